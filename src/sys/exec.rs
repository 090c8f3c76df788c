//! Starting other programs: replacing ourselves by the real iptables, or asking it something.

use super::privilege;
use super::talk::{Limits, talk};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use nix::sys::stat::umask;
use nix::unistd::dup2_stdin;
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// Variables that a backend may see. The rest could make it run somebody else's code (`LD_*`, `XTABLES_LIBDIR`).
pub(super) const KEPT: [&str; 2] = ["TZ", LOCK_VARIABLE];

/// Names the lock file (iptables(8)).
pub const LOCK_VARIABLE: &str = "XTABLES_LOCKFILE";

/// Where a backend finds `modprobe` when `/proc/sys/kernel/modprobe` names none.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// [`PATH`] as it stands in an environment.
pub(super) const PATH_PAIR: &CStr = c"PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// Puts SIGPIPE back to what the C library starts programs with. Rust's runtime ignores it, and an ignored signal
/// stays ignored across `execve` (signal(7)).
pub fn restore_sigpipe() {
    // SAFETY: SIG_DFL installs no handler, so no code of ours can run in signal context.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// Has the kernel keep what becomes of children until it is asked for. Ignored signals are inherited, and with SIGCHLD
/// ignored nobody's exit code can be had (waitpid(2)).
pub fn restore_sigchld() {
    // SAFETY: SIG_DFL installs no handler, so no code of ours can run in signal context.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Makes a write beyond the limit on a file's size (setrlimit(2), RLIMIT_FSIZE) an error instead of the end: what is kept
/// for the next call must not cost this one. A handler does not outlive execve(2), so nothing changes for a program that
/// is started.
pub fn outlive_sigxfsz() {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing, and what was there before is none of ours.
    let before = unsafe { sigaction(Signal::SIGXFSZ, &action) };
    if let Ok(ignored) = before
        && matches!(ignored.handler(), SigHandler::SigIgn)
    {
        // SAFETY: that installs no handler.
        let _ = unsafe { sigaction(Signal::SIGXFSZ, &ignored) };
    }
}

/// Replaces this process by `program`: same pid, descriptors, standard streams and signals.
///
/// Returns only on failure, with what execve(2) said.
pub fn replace(program: &Path, argv0: &str, args: &[OsString]) -> io::Result<Infallible> {
    replace_with(program, argv0, args, None)
}

/// The same, while we hold the lock of iptables, with another lock file for the program.
pub fn replace_under_lock(program: &Path, argv0: &str, args: &[OsString], lock_file: &str) -> io::Result<Infallible> {
    replace_with(program, argv0, args, Some(lock_file))
}

#[inline]
fn replace_with(program: &Path, argv0: &str, args: &[OsString], lock_file: Option<&str>) -> io::Result<Infallible> {
    let path = c_string(program.as_os_str())?;
    let mut argv = Vec::with_capacity(args.len() + 1);
    argv.push(c_string(OsStr::new(argv0))?);
    for arg in args {
        argv.push(c_string(arg)?);
    }
    let mut environment = Vec::with_capacity(1 + KEPT.len());
    environment.push(PATH_PAIR.to_owned());
    if let Some(path) = lock_file {
        environment.push(c_string(OsStr::new(&format!("{LOCK_VARIABLE}={path}")))?);
    }
    for (name, value) in kept_environment().filter(|(name, _)| lock_file.is_none() || *name != LOCK_VARIABLE) {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(value);
        environment.push(c_string(&pair)?);
    }
    if let Some(mask) = privilege::callers_mask() {
        umask(mask);
    }
    Ok(nix::unistd::execve(&path, &argv, &environment)?)
}

/// Makes `input` what this process reads on its standard input.
///
/// # Errors
/// EMFILE, ENOMEM and the like.
pub fn feed_stdin(input: &[u8]) -> io::Result<()> {
    let mut file = File::from(memfd_create("input", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(dup2_stdin(&file)?)
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn kept_environment() -> impl Iterator<Item = (&'static str, OsString)> {
    KEPT.into_iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value)))
}

/// `program` with a clean environment and the given `argv[0]`; SIGPIPE at its default, and the caller's umask.
pub fn command(program: &Path, argv0: &str, args: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.arg0(argv0).args(args).env_clear().env("PATH", PATH).envs(kept_environment());
    let mask = privilege::callers_mask();
    let prepare = move || {
        restore_sigpipe();
        if let Some(mask) = mask {
            umask(mask);
        }
        Ok(())
    };
    // SAFETY: the closure makes two async-signal-safe system calls between fork and exec.
    unsafe { command.pre_exec(prepare) };
    command
}

/// Runs `program` with `input` on its standard input, and gives what it said.
pub fn capture(command: Command, input: &[u8]) -> io::Result<Output> {
    capture_within(command, input, None)
}

/// The same, for no longer than that.
///
/// # Errors
/// `TimedOut` besides: the program has been killed then.
pub fn capture_within(mut command: Command, input: &[u8], deadline: Option<Instant>) -> io::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    feed(command, input, Limits { deadline, ..Limits::default() })
}

/// Feeds `input` to `command`, whose other streams stay as they were set. From here on SIGPIPE is ignored: a child that
/// stops reading early must not end this process before it has taken the child's exit code.
pub fn converse(command: Command, input: &[u8]) -> io::Result<Output> {
    feed(command, input, Limits::default())
}

fn feed(command: Command, input: &[u8], limits: Limits) -> io::Result<Output> {
    // SAFETY: SIG_IGN installs no handler, so no code of ours can run in signal context.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    talk(command, input, limits)
}

/// Makes `command` start in a network namespace of its own, where nothing it does can touch this one.
///
/// Starting it fails with EPERM without CAP_SYS_ADMIN (unshare(2)).
pub fn isolate_network(command: &mut Command) {
    let prepare = || unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // SAFETY: the closure makes one async-signal-safe system call between fork and exec.
    unsafe { command.pre_exec(prepare) };
}
