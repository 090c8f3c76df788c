//! The lock that iptables-legacy takes around every change: flock(2) on a file.

#![forbid(unsafe_code)]

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io;
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
    _held: Flock<File>,
}

impl XtablesLock {
    /// Takes it, waiting for at most `patience`; `None`: for ever.
    ///
    /// # Errors
    /// EAGAIN when the time is up; what open(2) says.
    pub fn take(patience: Option<Duration>) -> io::Result<Self> {
        let path = std::env::var_os("XTABLES_LOCKFILE").map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let begun = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(Self { _held: held }),
                Err((returned, Errno::EAGAIN)) if patience.is_none_or(|patience| begun.elapsed() < patience) => {
                    file = returned;
                    std::thread::sleep(PAUSE);
                }
                Err((_, error)) => return Err(error.into()),
            }
        }
    }
}
