//! The short way of a command that is the backend's: see [`crate::probe::Ticket`].

#![forbid(unsafe_code)]

use super::Front;
use super::command::DEFAULT_TABLE;
use crate::carrier::nft::NAME_PREFIX;
use crate::iptables;
use crate::nft::glance;
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
    let table = table(args)?;
    let held = match ticket.word(front.family, table) {
        Word::Backend => false,
        Word::BackendUnlessHeld => glance::is_there(front.family, [NAME_PREFIX, table]).ok()?,
        Word::Unknown => true,
    };
    let program = ticket.program(front.family, front.tool).filter(|_| !held)?;
    // What fails here fails again the long way, and is told there.
    exec::replace(program, front.argv0(called), args).ok()
}

/// The table that a command line means. `None`: that takes reading, or its words are no text.
#[inline]
fn table(args: &[OsString]) -> Option<&str> {
    if !args.iter().all(|arg| arg.to_str().is_some()) {
        return None;
    }
    let meant = iptables::plain_table(args.iter().filter_map(|arg| arg.to_str()))?;
    Some(meant.unwrap_or(DEFAULT_TABLE))
}
