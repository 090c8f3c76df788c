//! What differs between the iptables of one version and variant and another: message prefixes, listing drift.

#![forbid(unsafe_code)]

use crate::error::{Error, TableError};
use crate::family::Family;

/// The two programs that call themselves iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// iptables-legacy: ip_tables in the kernel, getsockopt.
    Legacy,
    /// iptables-nft: nf_tables in the kernel, with nft_compat.
    Nft,
}

impl Variant {
    /// As it stands in `iptables --version` (`legacy`, `nf_tables`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Variant::Legacy => "legacy",
            Variant::Nft => "nf_tables",
        }
    }
}

/// The version by whose words kept rules are read ([`super::rule::Rule::spec`]): later than any, and it takes what any
/// other has taken.
pub const KEPT: (u16, u16, u16) = (1, 8, u16::MAX);

/// How the iptables that we stand before speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Family of the front that was called.
    pub family: Family,
    /// Which of the two programs.
    pub variant: Variant,
    /// Its version, `(1, 8, 9)`.
    pub version: (u16, u16, u16),
}

impl Dialect {
    /// `iptables v1.8.9 (legacy)`: what stands before most messages.
    pub fn prefix(&self) -> String {
        let (major, minor, patch) = self.version;
        format!("{} v{major}.{minor}.{patch} ({})", self.family.program(), self.variant.as_str())
    }

    /// What stands behind messages that end in a newline of their own, or should: before 1.8.9 there was one more.
    pub fn blank_line(&self) -> &'static str {
        if self.version < (1, 8, 9) { "\n" } else { "" }
    }

    /// The message of `error` as this iptables prints it, final newline included.
    pub fn render(&self, error: &Error) -> String {
        let program = self.family.program();
        let prefix = self.prefix();
        let tried = format!("Try `{program} -h' or '{program} --help' for more information.\n");
        match error {
            Error::Parameter(text) => format!("{prefix}: {text}\n{tried}"),
            Error::BareParameter(text) => format!("{text}\n{tried}"),
            Error::WrongFamily if self.variant == Variant::Legacy && self.version < (1, 8, 8) => {
                let version = if self.family == Family::V4 { 4 } else { 6 };
                format!("This is the IPv{version} version of {}.\n{tried}", self.family.program())
            }
            Error::WrongFamily => tried,
            Error::Table(table) => format!("{program}: {}\n", self.table_text(*table)),
            Error::Version(text) => {
                format!("{prefix}: {text}\nPerhaps {program} or your kernel needs to be upgraded.\n")
            }
            Error::Resource(text) => format!("{prefix}: {text}\n"),
            Error::Refused(_) => format!("{program}: {}\n", self.table_text(TableError::NoChain)),
            Error::Verbatim { stderr, .. } => stderr.clone(),
        }
    }

    fn table_text(&self, error: TableError) -> &'static str {
        match error {
            TableError::NoChain => "No chain/target/match by that name.",
            TableError::BadRule => "Bad rule (does a matching rule exist in that chain?).",
            TableError::ChainExists => "Chain already exists.",
            TableError::FileExists => "File exists.",
            TableError::InsertIndex => "Index of insertion too big.",
            TableError::ReplaceIndex => "Index of replacement too big.",
            TableError::DeleteIndex => "Index of deletion too big.",
            TableError::CounterIndex => "Index of counter too big.",
            TableError::TooManyLinks => "Too many links.",
            TableError::NotEmpty => "Directory not empty.",
            TableError::BadBuiltin => "Bad built-in chain name.",
            TableError::BadPolicy => "Bad policy name. Run `dmesg' for more information.",
            TableError::BuiltinDelete => match self.variant {
                Variant::Nft => "Can't delete built-in chain. Run `dmesg' for more information.",
                Variant::Legacy => "Invalid argument. Run `dmesg' for more information.",
            },
            TableError::Loop => "Too many levels of symbolic links.",
            TableError::Invalid | TableError::Misplaced => "Invalid argument. Run `dmesg' for more information.",
        }
    }
}
