//! What a command line means.

#![forbid(unsafe_code)]

use super::rule::Rule;
use crate::family::Family;

/// One parsed command line.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Family of the front.
    pub family: Family,
    /// `-t`, else `filter`.
    pub table: String,
    /// What is to be done.
    pub command: Command,
    /// How often `-v` was given.
    pub verbose: u8,
    /// `-n`
    pub numeric: bool,
    /// `-x`
    pub exact: bool,
    /// `--line-numbers`
    pub line_numbers: bool,
    /// `-w`: `Some(None)` waits for ever, `Some(Some(s))` s seconds.
    pub wait: Option<Option<u32>>,
    /// `-M`
    pub modprobe: Option<String>,
    /// What goes to standard error all the same when the command succeeds, a line each.
    pub warnings: Vec<String>,
}

/// The commands of iptables(8).
#[derive(Clone, Debug)]
pub enum Command {
    /// `-A`; several addresses expand into several rules.
    Append {
        /// Chain.
        chain: String,
        /// In order.
        rules: Vec<Rule>,
    },
    /// `-I`
    Insert {
        /// Chain.
        chain: String,
        /// Where the first of the rules will stand, from 1.
        position: u32,
        /// In the order in which they will stand, which is the reverse of the order of their addresses.
        rules: Vec<Rule>,
    },
    /// `-R`
    Replace {
        /// Chain.
        chain: String,
        /// From 1.
        position: u32,
        /// One rule; several from 1.8.11 on, of which the last one wins.
        rules: Vec<Rule>,
    },
    /// `-D` with a rule; all rules must be there.
    DeleteRule {
        /// Chain.
        chain: String,
        /// In order.
        rules: Vec<Rule>,
    },
    /// `-D` with a number.
    DeleteNumber {
        /// Chain.
        chain: String,
        /// From 1.
        position: u32,
    },
    /// `-C`; all rules must be there.
    Check {
        /// Chain.
        chain: String,
        /// In order.
        rules: Vec<Rule>,
    },
    /// `-L`
    List {
        /// `None`: all.
        chain: Option<String>,
        /// From 1; `None`: all.
        position: Option<u32>,
        /// With `-Z`.
        zero: bool,
    },
    /// `-S`
    ListRules {
        /// `None`: all.
        chain: Option<String>,
        /// From 1; `None`: all.
        position: Option<u32>,
        /// With `-Z`.
        zero: bool,
    },
    /// `-F`
    Flush {
        /// `None`: all.
        chain: Option<String>,
    },
    /// `-Z`
    Zero {
        /// `None`: all.
        chain: Option<String>,
        /// From 1; `None`: all.
        position: Option<u32>,
    },
    /// `-N`
    NewChain {
        /// Name.
        chain: String,
    },
    /// `-X`
    DeleteChain {
        /// `None`: every empty, unreferenced one.
        chain: Option<String>,
    },
    /// `-E`
    RenameChain {
        /// Old name.
        from: String,
        /// New name.
        to: String,
    },
    /// `-P`
    Policy {
        /// A built-in chain.
        chain: String,
        /// As written; not checked.
        policy: String,
        /// `-c`: packets, bytes.
        counters: Option<(u64, u64)>,
    },
    /// `-V`
    Version,
    /// `-h`, which stops reading the line.
    Help,
}
