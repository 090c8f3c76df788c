//! When something in here is wrong: the command is not lost for it. What is the backend's goes to the backend all the same;
//! of what is not, the caller hears that it was not done, and the journal in what it failed.

#![forbid(unsafe_code)]

use super::command::DEFAULT_TABLE;
use super::context::Context;
use super::{Front, RESOURCE_PROBLEM};
use crate::carrier::hosted::TABLE;
use crate::carrier::nft::NftCarrier;
use crate::config::{CarrierChoice, CarrierKind};
use crate::exit::ExitCode;
use crate::iptables;
use crate::probe::{self, Tool};
use crate::sys::privilege;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

/// What has failed, and where: a place in the source.
static FAULT: Mutex<String> = Mutex::new(String::new());

/// Has a panic print nothing, and keep for the journal what it says. dockerd takes any byte for a failure, and a terminal
/// for what it likes.
pub fn hush() {
    panic::set_hook(Box::new(|fault| {
        *FAULT.lock().unwrap_or_else(PoisonError::into_inner) = fault.to_string().replace('\n', " ");
    }));
}

/// Does `work`. `None`: it panicked.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).ok()
}

/// What the last panic said.
fn fault() -> String {
    FAULT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Answers after a panic.
pub fn answer(context: &Context) -> ExitCode {
    let fault = fault();
    let passed = guarded(|| is_theirs(context)).unwrap_or(false);
    let outcome = if passed { "passed on to iptables" } else { "not carried out" };
    // The journal may be what is at fault.
    let _ = guarded(|| context.tell("", "internal error", Err(format!("{outcome}: {fault}"))));
    if !passed {
        return refuse(context.front);
    }
    let input = context.input.borrow_mut().take();
    match input {
        Some(text) => context.pass_through_fed(&context.args, &text),
        None => context.pass_through(),
    }
}

/// Says that it was not done.
pub fn refuse(front: Front) -> ExitCode {
    let text = format!("{}: internal error of xtshim, the command may not have been carried out\n", front.name());
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::from(RESOURCE_PROBLEM)
}

/// Whether all that the command may mean is the backend's. What read it is what may have failed, so it is not read again.
fn is_theirs(context: &Context) -> bool {
    if !context.has_backend() {
        return false;
    }
    let all = || crate::rules::tables().iter().map(|table| table.name.clone()).collect();
    let meant: Vec<String> = match context.front.tool {
        Tool::Command => {
            let words: Vec<String> = context.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
            vec![iptables::peek_table(words.iter().map(String::as_str)).unwrap_or(DEFAULT_TABLE).to_owned()]
        }
        Tool::Save => all(),
        Tool::Restore => file(context).map_or_else(all, |text| named(&text)),
    };
    meant.iter().all(|table| is_the_backends(context, table))
}

/// What iptables-restore is to read. `None`: that cannot be told.
fn file(context: &Context) -> Option<Rc<Vec<u8>>> {
    if let Some(text) = context.input.borrow().as_ref() {
        return Some(Rc::clone(text));
    }
    let words = || context.args.iter().map(|arg| arg.as_bytes());
    let mut text = Vec::new();
    match words().next_back().filter(|word| !word.starts_with(b"-")) {
        // What may be an option's value is no file.
        Some(_) if words().rev().nth(1).is_some_and(|before| before.starts_with(b"-")) => None,
        Some(name) => {
            let opened = privilege::if_denied(|| File::open(OsStr::from_bytes(name)));
            opened.and_then(|mut file| file.read_to_end(&mut text)).ok().map(|_| Rc::new(text))
        }
        None => {
            io::stdin().lock().read_to_end(&mut text).ok()?;
            let text = Rc::new(text);
            *context.input.borrow_mut() = Some(Rc::clone(&text));
            Some(text)
        }
    }
}

/// Of a restore file, all that may be the name of a table.
fn named(text: &[u8]) -> Vec<String> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"*"));
    let name = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        line.split([' ', '\t', '\0']).find(|word| !word.is_empty()).unwrap_or_default().to_owned()
    };
    lines.map(name).collect()
}

/// Whether neither the plan nor this network namespace has the table with anybody else. What cannot be found out speaks
/// against it.
fn is_the_backends(context: &Context, table: &str) -> bool {
    let (family, snapshot) = (context.front.family, &context.snapshot);
    let left =
        matches!(context.config.carrier(table), CarrierChoice::Auto | CarrierChoice::Fixed(CarrierKind::Backend));
    let there = || NftCarrier::open(family, table, context.dialect()).and_then(|mut ours| ours.exists());
    let held = snapshot.nf_tables && there().unwrap_or(true);
    // Raw, and what holds it, whose numbers are shifted.
    let hosted = probe::hosted_here(snapshot, family).or_else(|| context.hosting().map(|hosting| hosting.kind));
    let hosts = hosted.is_some_and(|by| table == TABLE || by.as_str() == table);
    left && !held && !hosts && context.is_passed_through(table, false)
}

/// Fails where a test wants it to. There is no such thing in a release build.
#[cfg(debug_assertions)]
#[allow(clippy::panic, reason = "that is what it is for")]
pub fn trip(place: &str) {
    if std::env::var_os("XTSHIM_TRIP").is_some_and(|wanted| wanted == place) {
        panic!("tripped in {place}\n\x1b[31m");
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub fn trip(_: &str) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_kept_and_not_said() {
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(guarded(|| -> u8 { panic!("on purpose") }), None);
    }

    #[test]
    fn whatever_begins_with_a_star_may_be_a_table() {
        assert_eq!(named(b"# x\n*raw\n-A X\n* \tnat y\nCOMMIT\n*\n\xff*no\n"), ["raw", "nat", ""]);
    }
}
