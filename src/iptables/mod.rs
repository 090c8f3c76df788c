//! The iptables language: argv or a restore file becomes commands holding rules. Apart from looking up names that are
//! not numbers ([`names`]) there is no I/O here.

#![forbid(unsafe_code)]

pub mod address;
pub mod command;
mod describe;
pub mod dialect;
pub mod ext;
pub mod getopt;
pub mod interface;
pub mod list;
pub mod names;
pub mod number;
pub mod parse;
pub mod plain;
pub mod protocol;
pub mod restore;
pub mod rule;
pub mod translate;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod packets;
#[cfg(test)]
mod properties;

pub use command::{Command, Invocation};
pub use list::{ListOptions, chain_header, column_header, list_header};
pub use parse::{Spot, parse, parse_line, peek_table, plain_table, spot};
pub use restore::quote;
pub use rule::Rule;
pub use translate::TranslateContext;
