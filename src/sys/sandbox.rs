//! A throwaway network namespace, to try things in that must leave nothing behind.
//!
//! It belongs to one thread: namespaces are an attribute of the task (namespaces(7)), and what the thread starts
//! inherits them. When the thread has ended, and with it what it started, the kernel takes the namespace apart with
//! all the rules in it.

#![forbid(unsafe_code)]

use super::talk::{Limits, talk};
use super::{exec, privilege};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// More than this from one stream, in bytes, is cut off.
const OUTPUT_LIMIT: usize = 1 << 20;

/// The throwaway namespace, as seen from within.
#[derive(Debug)]
pub struct Room {
    lock: Lock,
    deadline: Instant,
}

/// The lock file that iptables takes in the room: never the real one, which must be neither held nor waited for.
#[derive(Debug)]
enum Lock {
    /// On a file system of our own over /run.
    Mounted,
    /// A file without a name. Heeded from iptables 1.8.6 on.
    Anonymous(OwnedFd),
}

/// What a program said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output; what is no UTF-8 is replaced.
    pub stdout: String,
    /// Standard error; what is no UTF-8 is replaced.
    pub stderr: String,
}

/// Does `work` in a throwaway network namespace, where programs may run for `limit` in all.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in this user namespace (unshare(2)); ENOSPC at the limit on namespaces.
pub fn enter<T: Send>(limit: Duration, work: impl FnOnce(&Room) -> T + Send) -> io::Result<T> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let lock = if private_run().is_ok() { Lock::Mounted } else { anonymous_lock()? };
        Ok(work(&Room { lock, deadline: Instant::now() + limit }))
    })
}

/// Does `work` in the network namespace that `path` names (`/proc/1/ns/net`).
///
/// # Errors
/// EPERM or EACCES without the right to enter it (setns(2)).
pub fn visit<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_thread(|| {
        let namespace = File::open(path)?;
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// A thread's capabilities are its own: this one has all that the process was started with.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let privileged = || {
        privilege::raise();
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, privileged)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the trial ended before its time")))
    })
}

fn private_run() -> nix::Result<()> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=0700,size=64k"))
}

fn anonymous_lock() -> nix::Result<Lock> {
    memfd_create("xtables.lock", MFdFlags::MFD_CLOEXEC).map(Lock::Anonymous)
}

impl Room {
    /// Runs `command` with `input` on its standard input.
    ///
    /// # Errors
    /// `TimedOut` when the room's time is up: the program has been killed then.
    pub fn run(&self, mut command: Command, input: &str) -> io::Result<Answer> {
        command.env("LC_ALL", "C").env(exec::LOCK_VARIABLE, self.lock_path());
        run_until(command, input, self.deadline)
    }

    fn lock_path(&self) -> PathBuf {
        match &self.lock {
            Lock::Mounted => PathBuf::from("/run/xtables.lock"),
            Lock::Anonymous(file) => PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())),
        }
    }
}

/// Runs `command` with `input` on its standard input, and kills it at `deadline`.
///
/// # Errors
/// `TimedOut` if it had to be killed; what starting it said.
pub fn run_until(mut command: Command, input: &str, deadline: Instant) -> io::Result<Answer> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let limits = Limits { deadline: Some(deadline), output: Some(OUTPUT_LIMIT) };
    let Output { status, stdout, stderr } = talk(command, input.as_bytes(), limits)?;
    let text = |heard: &[u8]| String::from_utf8_lossy(heard).into_owned();
    Ok(Answer { status, stdout: text(&stdout), stderr: text(&stderr) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_is_fed_heard_and_its_exit_code_taken() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let answer = run_until(shell("cat; echo err >&2; exit 3"), "words", deadline).expect("an answer");
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str(), answer.status.code()), ("words", "err\n", Some(3)));
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let started = Instant::now();
        let error = run_until(shell("exec sleep 60"), "", started + Duration::from_millis(50)).expect_err("an answer");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_room_has_a_network_and_a_lock_of_its_own() {
        let outside = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        let entered = enter(Duration::from_secs(10), |room| {
            room.run(shell("readlink /proc/self/ns/net; : >>\"$XTABLES_LOCKFILE\" && echo locked"), "")
        });
        // Without CAP_SYS_ADMIN there is no room to be had, and nothing to be shown.
        let Ok(answer) = entered else { return };
        let stdout = answer.expect("an answer").stdout;
        assert!(stdout.starts_with("net:["), "{stdout}");
        assert_ne!(stdout.lines().next(), outside.to_str());
        assert!(stdout.ends_with("locked\n"), "{stdout}");
        assert_eq!(std::fs::read_link("/proc/self/ns/net").expect("a namespace"), outside);
    }
}
