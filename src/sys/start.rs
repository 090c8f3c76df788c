//! What the kernel hands to a program at its start, read where it lies: without an allocation, and before anything of
//! the Rust runtime has been touched.

use super::raw;
use crate::exit::ExitCode;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc::{self, c_char, c_int};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;
use std::ffi::{CStr, OsStr, OsString};
use std::hint::black_box;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;

/// The argument and environment strings of this process (execve(2)). They lie there until it ends.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    argv: *mut *const c_char,
    environment: *const *const c_char,
    /// How many strings `argv` has, without the NULL that ends it.
    len: usize,
}

impl Start {
    /// What `main` was given.
    ///
    /// # Safety
    /// `argv` has `argc` strings and a NULL, `environment` ends in one, and behind it lies the auxiliary vector
    /// (getauxval(3)); all of it, and every string, stays as it is for as long as the process lives, and nobody else uses
    /// `argv`.
    pub const unsafe fn new(argc: c_int, argv: *mut *const c_char, environment: *const *const c_char) -> Self {
        Self { argv, environment, len: if argc < 0 { 0 } else { argc.cast_unsigned() as usize } }
    }

    /// The name of the call. There need not be any (execve(2), NOTES).
    #[inline(always)]
    pub fn called(&self) -> Option<&'static CStr> {
        self.word(0)
    }

    /// The words behind it.
    #[inline(always)]
    pub fn words(&self) -> impl Iterator<Item = &'static CStr> + Clone + use<> {
        let start = *self;
        (1..self.len).filter_map(move |index| start.word(index))
    }

    #[inline(always)]
    fn word(&self, index: usize) -> Option<&'static CStr> {
        if index >= self.len {
            return None;
        }
        // SAFETY: `argv` has `len` strings that stay (see `new`).
        Some(unsafe { raw::text_at(*self.argv.add(index)) })
    }

    /// `NAME=value` of the environment variable of that name.
    #[inline(always)]
    fn pair(&self, name: &str) -> Option<&'static CStr> {
        let mut at = self.environment;
        loop {
            // SAFETY: the list ends in a NULL (see `new`), and this is no later than that.
            let pair = unsafe { *at };
            if pair.is_null() {
                return None;
            }
            // SAFETY: what is no NULL is a string that stays.
            let pair = unsafe { raw::text_at(pair) };
            if pair.to_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")) {
                return Some(pair);
            }
            // SAFETY: the NULL has not been reached.
            at = unsafe { at.add(1) };
        }
    }

    /// Value of the environment variable of that name.
    #[inline(always)]
    pub fn variable(&self, name: &str) -> Option<&'static [u8]> {
        self.pair(name).and_then(|pair| pair.to_bytes().get(name.len() + 1..))
    }

    /// Whether the kernel started this for root, with nobody else's rights (getauxval(3), AT_SECURE).
    #[inline(always)]
    pub fn is_plain_root(&self) -> bool {
        let (mut secure, mut real, mut effective) = (1, 1, 1);
        let mut at = self.environment;
        // SAFETY: the list ends in a NULL (see `new`), and this is no later than that.
        while !unsafe { *at }.is_null() {
            // SAFETY: the NULL has not been reached.
            at = unsafe { at.add(1) };
        }
        // SAFETY: behind the NULL lies the auxiliary vector (see `new`).
        let mut pair = unsafe { at.add(1) }.cast::<[libc::c_ulong; 2]>();
        loop {
            // SAFETY: the vector ends in AT_NULL, and this is no later than that.
            let [kind, value] = unsafe { *pair };
            // Hidden, as a table of jumps would be made of it.
            if black_box(kind) == libc::AT_NULL {
                break;
            } else if black_box(kind) == libc::AT_SECURE {
                secure = value;
            } else if black_box(kind) == libc::AT_UID {
                real = value;
            } else if black_box(kind) == libc::AT_EUID {
                effective = value;
            }
            // SAFETY: AT_NULL has not been reached.
            pair = unsafe { pair.add(1) };
        }
        secure == 0 && real == 0 && effective == 0
    }

    /// Becomes `program`, as [`super::exec::replace`] does. Comes back only where that fails.
    #[inline(always)]
    pub fn become_program(&self, program: &CStr, argv0: &CStr) -> Option<std::convert::Infallible> {
        if self.len == 0 {
            return None;
        }
        const PATH: [u64; 5] = raw::words(super::exec::PATH_PAIR.to_bytes());
        let path: [u8; 40] = raw::spelled(PATH);
        let kept = super::exec::KEPT.map(|name| self.pair(name));
        let mut environment = [path.as_ptr().cast(), std::ptr::null(), std::ptr::null(), std::ptr::null()];
        for (place, pair) in environment.iter_mut().skip(1).zip(kept.into_iter().flatten()) {
            *place = pair.as_ptr();
        }
        // SAFETY: `argv` has a first place, and is nobody else's (see `new`).
        let called = unsafe { *self.argv };
        // SAFETY: the same; `argv0` outlives the call below.
        unsafe { *self.argv = argv0.as_ptr() };
        // SAFETY: both lists are of strings and end in a NULL.
        unsafe { raw::execve(program, self.argv.cast_const(), environment.as_ptr()) };
        // SAFETY: as above; the place gets back what it had.
        unsafe { *self.argv = called };
        None
    }

    /// All of them, for those who want to keep them.
    pub fn args(&self) -> Vec<OsString> {
        let own = |word: &CStr| OsStr::from_bytes(word.to_bytes()).to_owned();
        self.called().into_iter().chain(self.words()).map(own).collect()
    }
}

/// Ends the process. What was printed and not yet written goes out first.
#[allow(clippy::exit, reason = "this is where the runtime would end it")]
pub fn end(code: ExitCode) -> ! {
    std::process::exit(i32::from(code.number()))
}

/// What Rust's runtime does for a program that it starts itself: the three standard descriptors are open, so that no
/// file of ours comes to be one of them, and a write to a pipe that nobody reads is an error instead of the end.
pub fn settle() {
    for fd in 0..3 {
        // SAFETY: whether it is open is what is asked.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if fcntl(borrowed, FcntlArg::F_GETFD) == Err(Errno::EBADF) {
            // The lowest free number is the one that is missing, as those before it are open.
            let _ = open(c"/dev/null", OFlag::O_RDWR, Mode::empty()).map(IntoRawFd::into_raw_fd);
        }
    }
    // SAFETY: SIG_IGN installs no handler, so no code of ours can run in signal context.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}
