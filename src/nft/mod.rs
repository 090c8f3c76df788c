//! nf_tables: typed expressions, the netlink batch made of them, what a dump says, and printers.

#![forbid(unsafe_code)]

mod assign;
mod batch;
mod canonical;
pub mod circumstance;
mod connection;
pub mod divert;
pub mod expr;
pub mod exthdr;
pub mod glance;
#[doc(hidden)]
pub mod hostile;
pub mod intervals;
pub mod json;
pub mod key;
mod lower;
pub mod names;
pub mod nat;
pub mod reject;
mod syntax;
pub mod text;
mod uapi;
pub mod userdata;
pub mod wire;

pub use batch::{Action, BaseChain, Batch, ChainKind, Change, HookPoint, Operation, Policy, Position, Table};
pub use connection::{ChainInfo, CommitError, Connection, Hook, RawExpr, RuleInfo, TableInfo};
pub use names::{chain_name_ok, comment_ok, interface_ok, log_prefix_ok};
