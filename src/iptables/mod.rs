//! The iptables language: argv or a restore file becomes commands holding rules. No I/O.

#![forbid(unsafe_code)]

pub mod dialect;
