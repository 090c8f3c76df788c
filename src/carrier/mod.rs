//! What holds a table's rules: the real iptables (`backend`), our own nf_tables table (`nft`), or for raw chains of our
//! own in another table of the real iptables (`mangle`, `filter`).

#![forbid(unsafe_code)]

pub mod change;
mod filter;
mod hooks;
pub mod hosted;
mod mangle;
pub mod nft;
mod run;
pub mod table;
pub mod takeover;

use crate::error::Error;
use crate::iptables::Invocation;
use crate::nft::text::Told;

/// What a command did to a carried table.
#[derive(Debug, Default)]
pub struct Applied {
    /// What was sent to the kernel, for the journal. Empty: nothing changed.
    pub told: Told,
    /// What iptables-restore says on standard error all the same, a line each.
    pub warnings: Vec<String>,
}

/// Whatever answers iptables for one table of one family.
pub trait Carrier {
    /// Carries out one command. What it prints on success is appended to `out`.
    fn run(&mut self, invocation: &Invocation, out: &mut String) -> Result<Applied, Error>;

    /// Appends the table as iptables-save prints it, from `*table` to `COMMIT`.
    ///
    /// Gives `false`, and appends nothing, where the table does not exist yet.
    fn save(&mut self, counters: bool, out: &mut String) -> Result<bool, Error>;

    /// Appends the table as iptables-save prints one that nothing has touched.
    fn save_untouched(&self, out: &mut String);

    /// Applies the lines of one `*table` … `COMMIT` section in one transaction.
    fn restore(&mut self, section: &Section<'_>, out: &mut String) -> Result<Applied, RestoreError>;
}

/// One table's part of an iptables-restore file.
#[derive(Debug)]
pub struct Section<'a> {
    /// The lines between `*table` and `COMMIT`, with their newlines, where they have them, and 1-based numbers in the whole file.
    pub lines: Vec<(usize, &'a str)>,
    /// Number of the line with `COMMIT`, or of the one after the last where there is none.
    pub commit: usize,
    /// There is a `COMMIT`.
    pub complete: bool,
    /// `--noflush`
    pub noflush: bool,
    /// `--counters`
    pub counters: bool,
    /// `--test`
    pub test: bool,
    /// Comments are printed.
    pub comments: bool,
    /// Tells what is done. iptables-restore's `--verbose` does so without `--noflush` alone.
    pub verbose: bool,
}

/// What is wrong with a line of a restore file.
#[derive(Debug)]
pub struct RestoreError {
    /// 1-based.
    pub line: usize,
    /// How it fails.
    pub error: Error,
}
