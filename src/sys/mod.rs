//! System calls, and the only place for `unsafe`: sockets, namespaces, exec, locks.

pub mod exec;
pub mod file;
pub mod netlink;
pub mod netns;
pub mod rtnl;
pub mod sandbox;
