//! The lock that iptables-legacy takes around everything it does: flock(2) on a file. And another file for those that
//! are started by its holder.

#![forbid(unsafe_code)]

use super::exec::LOCK_VARIABLE;
use super::privilege;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// XT_LOCK_NAME of iptables since 1.8.0 (iptables(8), FILES, and XTABLES_LOCKFILE).
const DEFAULT: &str = "/run/xtables.lock";

/// How often it is asked for.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, until it is dropped.
#[derive(Debug)]
pub struct XtablesLock {
    held: Flock<File>,
}

impl XtablesLock {
    /// The file, as iptables finds it.
    pub fn path() -> PathBuf {
        std::env::var_os(LOCK_VARIABLE).map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from)
    }

    /// Keeps it locked across execve(2), until the program that this process becomes ends.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn outlive(self) -> io::Result<()> {
        keep_open(self.held.as_fd())?;
        std::mem::forget(self);
        Ok(())
    }

    /// Takes it, waiting for at most `patience`; `None`: for ever.
    ///
    /// # Errors
    /// EAGAIN when the time is up; what open(2) says.
    pub fn take(patience: Option<Duration>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = privilege::if_denied(|| options.open(Self::path()))?;
        let begun = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(Self { held }),
                Err((returned, Errno::EAGAIN)) if patience.is_none_or(|patience| begun.elapsed() < patience) => {
                    file = returned;
                    std::thread::sleep(PAUSE);
                }
                Err((_, error)) => return Err(error.into()),
            }
        }
    }
}

fn keep_open(file: impl AsFd) -> io::Result<()> {
    fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(io::Error::from)
}

/// A file that nobody else locks, for an iptables that is started while we hold [`XtablesLock`] (XTABLES_LOCKFILE, since
/// iptables 1.8.6).
#[derive(Debug)]
pub struct LockFile(OwnedFd);

impl LockFile {
    /// A new one.
    ///
    /// # Errors
    /// What memfd_create(2) says.
    pub fn new() -> io::Result<Self> {
        Ok(Self(memfd_create("xtables.lock", MFdFlags::MFD_CLOEXEC)?))
    }

    /// Its name, while this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Its name for the program that this process becomes.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn outlive(self) -> io::Result<String> {
        keep_open(&self.0)?;
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        std::mem::forget(self);
        Ok(path)
    }
}
