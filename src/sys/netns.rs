//! Throwaway network namespaces: they vanish with the last process or handle that holds them.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// How this process was cut off from the machine's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// With privileges of its own.
    Network,
    /// As root of a user namespace of its own (user_namespaces(7)): the kernel loads no modules on its behalf.
    UserAndNetwork,
}

/// Moves this process into new network and mount namespaces, in a new user namespace where it takes one.
///
/// What it mounts is seen by nobody else. To be called before any thread is started.
///
/// # Errors
/// EPERM, ENOSPC or EINVAL where the system grants no user namespaces to unprivileged users (unshare(2)); EACCES
/// where a security module takes their privileges away.
pub fn isolate_process() -> io::Result<Isolation> {
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    let isolation = match unshare(namespaces) {
        Ok(()) => Isolation::Network,
        Err(Errno::EPERM) => {
            let (user, group) = (geteuid(), getegid());
            unshare(namespaces | CloneFlags::CLONE_NEWUSER)?;
            map_to_root(user.as_raw(), group.as_raw())?;
            Isolation::UserAndNetwork
        }
        Err(error) => return Err(error.into()),
    };
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    Ok(isolation)
}

/// Makes the caller root of its new user namespace (user_namespaces(7), "Defining user and group ID mappings").
fn map_to_root(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Covers `folder` with an empty one in memory, for this process and its children alone.
///
/// To be called after [`isolate_process`], or everyone sees it.
///
/// # Errors
/// EPERM or EACCES where mounting is denied, ENOENT where there is no such folder.
pub fn cover(folder: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some("mode=0755"))?)
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// The one that the calling thread is in.
    ///
    /// # Errors
    /// ENOENT where /proc is not mounted.
    pub fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// A new one; the caller stays where it is. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// As unshare(2).
    pub fn create() -> io::Result<Self> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })?
    }

    /// Does `work` inside, on a thread of its own. What it opens or starts there stays there. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// As setns(2).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("a thread ended early"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn inode() -> u64 {
        fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
    }

    #[test]
    fn work_is_done_inside_and_the_caller_stays_outside() {
        let Ok(namespace) = Namespace::create() else { return };
        let here = inode();
        let there = namespace.run(inode).unwrap();
        assert_ne!(here, there);
        assert_eq!(inode(), here);
        assert_eq!(namespace.0.metadata().unwrap().ino(), there);
    }
}
