//! nf_tables: typed expressions, the netlink batch made of them, what a dump says, and printers.

#![forbid(unsafe_code)]

mod batch;
mod connection;
pub mod expr;
mod key;
mod lower;
mod uapi;
pub mod wire;

pub use batch::{BaseChain, Batch, ChainKind, HookPoint, Operation, Policy, Position, Table};
pub use connection::{ChainInfo, CommitError, Connection, Hook, RawExpr, RuleInfo, TableInfo};
