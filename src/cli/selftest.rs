//! `xtshim selftest`.

#![forbid(unsafe_code)]

use super::Outcome;
use std::io::Write;

/// Try whether Docker 28 would work here, in a throwaway network.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Prints it.
pub fn run(_args: &Args, _out: &mut dyn Write) -> anyhow::Result<Outcome> {
    anyhow::bail!("not built yet")
}
