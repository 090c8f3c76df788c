//! The one error type of the core. Exit codes 1 to 4 are contract (iptables(8), DIAGNOSTICS; xtables.h): callers
//! branch on them, so every error knows its own.

#![forbid(unsafe_code)]

use crate::iptables::dialect::Dialect;
use nix::errno::Errno;
use std::{fmt, io};

/// What the system says of `error`, without the number that Rust adds (strerror(3)).
pub fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| Errno::from_raw(number).desc().to_owned())
}

/// What a front can fail with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A command line that iptables would not take: exit 2, `PROGRAM vX (variant): TEXT`, then the "Try" line.
    Parameter(String),
    /// The same, for the messages that come without the program's name before them (`Bad argument …`).
    BareParameter(String),
    /// An operation on a chain or rule that the table's state does not allow: exit 1, `PROGRAM: TEXT`.
    Table(TableError),
    /// The table cannot be had: exit 3, with the "Perhaps" line.
    Version(String),
    /// The kernel refused, or a resource is missing: exit 4.
    Resource(String),
    /// `-4` to ip6tables, `-6` to iptables: exit 2, the "Try" line alone.
    WrongFamily,
    /// The rule is understood, but no carrier here can hold it exactly.
    Refused(Refusal),
    /// A text that is printed as it is (newline included), with its exit code: what a backend said.
    Verbatim {
        /// For standard error.
        stderr: String,
        /// 1 to 255.
        code: u8,
    },
}

/// State errors, each with the text iptables gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// ENOENT on a chain.
    NoChain,
    /// `-C` or `-D` found no such rule.
    BadRule,
    /// `-N` of a chain that is there.
    ChainExists,
    /// `-E` to a name that is taken.
    FileExists,
    /// `-I CHAIN n` beyond the end.
    InsertIndex,
    /// `-R CHAIN n` beyond the end.
    ReplaceIndex,
    /// `-D CHAIN n` beyond the end.
    DeleteIndex,
    /// `-Z CHAIN n` beyond the end.
    CounterIndex,
    /// `-X` of a chain that is jumped to (legacy; iptables-nft reports CHAIN_DEL failed, exit 4).
    TooManyLinks,
    /// `-X` of a chain that holds rules.
    NotEmpty,
    /// `-P` on what is no built-in chain.
    BadBuiltin,
    /// `-P` with what is no policy.
    BadPolicy,
    /// `-X` or `-E` of a built-in chain.
    BuiltinDelete,
    /// A jump that would loop (ELOOP).
    Loop,
    /// Anything the kernel answered EINVAL to.
    Invalid,
    /// A rule that the kernel answers EINVAL to, which a file finds out when its table is committed.
    Misplaced,
}

/// Why a rule cannot be carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The option, match or target at fault, as the user wrote or would write it (`-m string`, `--limit-iface-in`).
    pub option: String,
    /// One clause for a person, without a full stop.
    pub why: String,
}

impl Refusal {
    /// A refusal of `option`, because of `why`.
    pub fn new(option: impl Into<String>, why: impl Into<String>) -> Self {
        Self { option: option.into(), why: why.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.why)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Refused(refusal)
    }
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        Error::Table(error)
    }
}

impl Error {
    /// The exit code that iptables gives this error (xtables.h, `enum xtables_exittype`).
    pub fn code(&self) -> u8 {
        match self {
            Error::Table(_) => 1,
            Error::Parameter(_) | Error::BareParameter(_) | Error::WrongFamily => 2,
            Error::Version(_) => 3,
            Error::Resource(_) => 4,
            Error::Refused(_) => 1,
            Error::Verbatim { code, .. } => *code,
        }
    }

    /// What goes to standard error, final newline included, in the words of the backend in use.
    pub fn render(&self, dialect: &Dialect) -> String {
        dialect.render(self)
    }
}
