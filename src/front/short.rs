//! The short way of a command that is the backend's: see [`crate::probe::Ticket`].

#![forbid(unsafe_code)]

use super::command::DEFAULT_TABLE;
use super::{Front, base_name};
use crate::carrier::nft::NAME_PREFIX;
use crate::iptables;
use crate::nft::glance;
use crate::probe::{Ticket, Tool, Word};
use crate::sys::raw;
use crate::sys::start::Start;
use std::convert::Infallible;
use std::ffi::CStr;

const FILTER: [u64; 1] = raw::words(DEFAULT_TABLE.as_bytes());
const PREFIX: [u64; 1] = raw::words(NAME_PREFIX.as_bytes());

/// Becomes the backend, where the name of the call is a front's and nothing speaks against it. Comes back where more has
/// to be looked at.
#[inline(always)]
pub fn pass_through(start: Start) -> Option<Infallible> {
    let called = start.called()?;
    let front = Front::by_bytes(base_name(called.to_bytes()))?;
    if front.tool != Tool::Command {
        return None;
    }
    let mut space = Ticket::space();
    let ticket = Ticket::present(start, &mut space)?;
    let default: [u8; DEFAULT_TABLE.len()] = raw::spelled(FILTER);
    let table = table(start)?.unwrap_or(&default);
    let prefix: [u8; NAME_PREFIX.len()] = raw::spelled(PREFIX);
    let word = ticket.word(front.family, table);
    if word == Word::Unknown
        || !ticket.holds()?
        || word == Word::BackendUnlessHeld && glance::is_there(front.family, [&prefix, table]).ok()?
    {
        return None;
    }
    let program = ticket.program(front.family, front.tool)?;
    let argv0 = if base_name(called.to_bytes()) == front.name().as_bytes() { called } else { plain_name(front) };
    // What fails here fails again the long way, and is told there.
    start.become_program(program, argv0)
}

/// What the backend is told it was called as, where we were called by a name of our own.
#[inline(always)]
const fn plain_name(front: Front) -> &'static CStr {
    match front.family {
        crate::family::Family::V4 => c"iptables",
        crate::family::Family::V6 => c"ip6tables",
    }
}

/// The table that a command line names, if it does. `None`: that takes reading.
#[inline(always)]
fn table(start: Start) -> Option<Option<&'static [u8]>> {
    let words = start.words().map(CStr::to_bytes);
    if !words.clone().all(<[u8]>::is_ascii) {
        return None;
    }
    iptables::plain_table(words)
}
