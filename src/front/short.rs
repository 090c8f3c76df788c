//! The short way of a command that is the backend's: see [`crate::probe::Ticket`].

#![forbid(unsafe_code)]

use super::Front;
use super::command::DEFAULT_TABLE;
use crate::carrier::nft::table_name;
use crate::iptables;
use crate::nft::Connection;
use crate::probe::{Ticket, Tool, Word};
use crate::sys::exec;
use std::convert::Infallible;
use std::ffi::OsString;

/// Becomes the backend, where nothing speaks against it. Comes back where more has to be looked at.
pub fn pass_through(front: Front, called: &str, args: &[OsString]) -> Option<Infallible> {
    if front.tool != Tool::Command {
        return None;
    }
    let ticket = Ticket::present()?;
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str()).collect::<Option<_>>()?;
    let table = iptables::peek_table(&words).unwrap_or(DEFAULT_TABLE);
    let held = match ticket.word(front.family, table) {
        Word::Backend => false,
        Word::BackendUnlessHeld => Connection::open().ok()?.table(front.family, &table_name(table)).ok()?.is_some(),
        Word::Unknown => true,
    };
    let program = ticket.program(front.family, front.tool).filter(|_| !held)?;
    // What fails here fails again the long way, and is told there.
    exec::replace(program, front.argv0(called), args).ok()
}
