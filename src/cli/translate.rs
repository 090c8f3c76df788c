//! `xtshim translate`.

#![forbid(unsafe_code)]

use super::Outcome;
use std::io::Write;

/// Show what a command would be carried as, without doing it.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Prints it.
pub fn run(_args: &Args, _out: &mut dyn Write) -> anyhow::Result<Outcome> {
    anyhow::bail!("not built yet")
}
