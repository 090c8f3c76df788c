//! The faces a caller sees: iptables, ip6tables, and -save and -restore of each.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Chooses the front by the name of the call.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
