//! System calls, and the only place for `unsafe`: sockets, namespaces, exec, locks.

#![allow(unsafe_code)]

pub mod exec;
pub mod grace;
pub mod lock;
pub mod mark;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod privilege;
pub mod raw;
pub mod rtnl;
pub mod sandbox;
pub mod start;
pub mod store;
pub mod talk;
pub mod time;
pub mod turn;
pub mod xtables;
