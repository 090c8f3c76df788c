//! nf_tables: typed expressions, the netlink batch made of them, what a dump says, and printers.

#![forbid(unsafe_code)]

pub mod expr;
