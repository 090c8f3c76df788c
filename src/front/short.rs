//! The short way of a call that is the backend's: see [`crate::probe::Ticket`].

#![forbid(unsafe_code)]

use super::command::DEFAULT_TABLE;
use super::{Front, base_name};
use crate::carrier::nft::NAME_PREFIX;
use crate::family::Family;
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
    let mut space = Ticket::space();
    let ticket = Ticket::present(start, &mut space)?;
    let passes = match front.tool {
        Tool::Command => is_command_passed_on(start, front, &ticket)?,
        Tool::Save | Tool::Restore => is_file_passed_on(front, &ticket)?,
    };
    if !passes {
        return None;
    }
    let program = ticket.program(front.family, front.tool)?;
    let argv0 = if front.is_named(base_name(called.to_bytes())) { called } else { plain_name(front) };
    // What fails here fails again the long way, and is told there.
    start.become_program(program, argv0)
}

/// Whether the one table that a command means is the backend's.
#[inline(always)]
fn is_command_passed_on(start: Start, front: Front, ticket: &Ticket<'_>) -> Option<bool> {
    let default: [u8; DEFAULT_TABLE.len()] = raw::spelled(FILTER);
    let table = table(start)?.unwrap_or(&default);
    let prefix: [u8; NAME_PREFIX.len()] = raw::spelled(PREFIX);
    Some(match ticket.word(front.family, table) {
        Word::Unknown => false,
        _ if !ticket.holds()? => false,
        Word::BackendUnlessHeld => !glance::is_there(front.family, [&prefix, table]).ok()?,
        Word::Backend => true,
    })
}

/// Whether all tables of the family are the backend's. A file that has not been read may name any of them, and what is
/// saved is all there is; so the command line, whatever it says of tables, has no part in it.
#[inline(always)]
fn is_file_passed_on(front: Front, ticket: &Ticket<'_>) -> Option<bool> {
    let prefix: [u8; NAME_PREFIX.len()] = raw::spelled(PREFIX);
    Some(match ticket.word_of_all(front.family) {
        Word::Unknown => false,
        _ if !ticket.holds()? => false,
        Word::BackendUnlessHeld => !glance::may_be_any(front.family, &prefix).ok()?,
        Word::Backend => true,
    })
}

/// What the backend is told it was called as, where we were called by a name of our own.
#[inline(always)]
const fn plain_name(front: Front) -> &'static CStr {
    match (front.family, front.tool) {
        (Family::V4, Tool::Command) => c"iptables",
        (Family::V4, Tool::Save) => c"iptables-save",
        (Family::V4, Tool::Restore) => c"iptables-restore",
        (Family::V6, Tool::Command) => c"ip6tables",
        (Family::V6, Tool::Save) => c"ip6tables-save",
        (Family::V6, Tool::Restore) => c"ip6tables-restore",
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
