//! `xtshim probe`.

#![forbid(unsafe_code)]

use super::Outcome;
use std::io::Write;

/// Show what this kernel and its iptables can do, and why not.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Try again instead of believing what was found since the last boot
    #[arg(long)]
    refresh: bool,
}

/// Prints what was found.
///
/// # Errors
/// Not written yet.
pub fn run(_args: &Args, _out: &mut dyn Write) -> anyhow::Result<Outcome> {
    anyhow::bail!("probe is not built yet")
}
