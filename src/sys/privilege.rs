//! What of the caller's rights is in force: a front that answers by itself works with two capabilities, and takes the
//! others up for as long as something cannot be done without.
//!
//! What is permitted stays permitted, and with it what a program inherits that is started: of the effective set nothing
//! is inherited (capabilities(7), "Transformation of capabilities during execve()").

use caps::{CapSet, Capability, CapsHashSet};
use nix::libc;
use nix::sys::stat::{Mode, umask};
use std::io;
use std::sync::OnceLock;

/// What netfilter asks for: the first of nf_tables and of xtables, the second to open a socket that xtables are spoken to
/// over.
const KEPT: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// What files that we make are never open to.
const MASK: Mode = Mode::from_bits_truncate(0o077);

/// How this process was started.
#[derive(Debug)]
struct Beginning {
    effective: CapsHashSet,
    mask: Mode,
}

static BEGINNING: OnceLock<Beginning> = OnceLock::new();

/// Lays down what is not needed, for as long as nobody takes it up. To be called once, before any thread is started.
pub fn lower() {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let kept = KEPT.into_iter().filter(|capability| effective.contains(capability)).collect();
    let beginning = Beginning { effective, mask: umask(MASK) };
    if BEGINNING.set(beginning).is_ok() {
        put_on(&kept);
    }
}

/// Takes up all that this process was started with, for the calling thread and those that it starts.
pub fn raise() {
    if let Some(beginning) = BEGINNING.get() {
        put_on(&beginning.effective);
    }
}

/// Whether the process was started with that capability in force.
pub fn holds(capability: Capability) -> bool {
    match BEGINNING.get() {
        Some(beginning) => beginning.effective.contains(&capability),
        None => caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false),
    }
}

/// Does `work` with all that this process was started with.
pub fn in_full<T>(work: impl FnOnce() -> T) -> T {
    /// Lays it down again, also when `work` panics.
    struct Back(Option<CapsHashSet>);
    impl Drop for Back {
        fn drop(&mut self) {
            if let Some(before) = &self.0 {
                put_on(before);
            }
        }
    }
    let before = BEGINNING.get().and_then(|_| caps::read(None, CapSet::Effective).ok());
    let _back = Back(before);
    raise();
    work()
}

/// Tries it with what is in force, and where that is not enough with all: a file that the caller names may be another's.
///
/// # Errors
/// What the last attempt said.
pub fn if_denied<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match attempt() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => in_full(attempt),
        outcome => outcome,
    }
}

/// Does `work` with the caller's own file mode creation mask (umask(2)): what is made for the caller is as the caller
/// wants it.
pub fn with_callers_mask<T>(work: impl FnOnce() -> T) -> T {
    let Some(mask) = callers_mask() else { return work() };
    let ours = umask(mask);
    let done = work();
    umask(ours);
    done
}

/// The caller's mask, where another is in force. For what is started: the mask is inherited.
pub fn callers_mask() -> Option<Mode> {
    BEGINNING.get().map(|beginning| beginning.mask)
}

/// Whether this process has rights that its caller has not (getauxval(3), AT_SECURE): what its environment names is the
/// caller's word, and not to be trusted.
pub fn is_elevated() -> bool {
    // SAFETY: it reads a vector that the kernel has made, and keeps no pointer.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// That it cannot be had makes nothing weaker than it was before.
fn put_on(capabilities: &CapsHashSet) {
    let _ = caps::set(None, CapSet::Effective, capabilities);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective() -> CapsHashSet {
        caps::read(None, CapSet::Effective).expect("they can be read")
    }

    /// Capabilities are a thread's own, but the mask is the process's: so this is one test.
    #[test]
    fn what_is_laid_down_can_be_taken_up() {
        let all = effective();
        let narrowed: CapsHashSet = KEPT.into_iter().filter(|capability| all.contains(capability)).collect();
        lower();
        assert_eq!(effective(), narrowed);
        assert_eq!(in_full(effective), all);
        assert_eq!(effective(), narrowed);
        let panicked = std::panic::catch_unwind(|| in_full(|| panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(effective(), narrowed);
        for capability in &all {
            assert!(holds(*capability));
        }
        let mask = callers_mask().expect("it was noted");
        assert_eq!(with_callers_mask(|| umask(mask)), mask);
        assert_eq!(umask(mask), MASK);
        raise();
        assert_eq!(effective(), all);
    }
}
