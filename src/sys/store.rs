//! A directory of our own below the runtime directory, that nobody else can write to: `/run/xtshim`, or
//! `$XDG_RUNTIME_DIR/xtshim` for a user who owns that.

#![forbid(unsafe_code)]

use super::privilege;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use nix::unistd::{Gid, UnlinkatFlags, fchown, getegid, geteuid, getgid, getuid, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The directory's name.
const NAME: &str = "xtshim";

/// A file larger than this, in bytes, is none of ours.
const LIMIT: u64 = 1 << 20;

/// The directory, checked.
#[derive(Debug)]
pub struct Store {
    directory: OwnedFd,
}

impl Store {
    /// The directory if it is there and ours alone.
    ///
    /// # Errors
    /// ENOENT where it is not there; EPERM where others may write to it.
    pub fn open() -> nix::Result<Self> {
        first(|base| Self::open_below(&base))
    }

    /// The same, made if need be.
    ///
    /// # Errors
    /// EROFS, EACCES where it cannot be made; EPERM where others may write to it.
    pub fn create() -> nix::Result<Self> {
        first(|base| match mkdirat(&base, NAME, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => Self::open_below(&base),
            Err(error) => Err(error),
        })
    }

    fn open_below(base: &OwnedFd) -> nix::Result<Self> {
        let directory = openat(base, NAME, directory_flags(), Mode::empty())?;
        let private = |stat: &FileStat| is_ours(stat) && stat.st_mode & 0o077 == 0;
        fstat(&directory).and_then(|stat| private(&stat).then_some(()).ok_or(Errno::EPERM))?;
        Ok(Self { directory })
    }

    /// Takes the directory's own lock, waiting as long as another has it; `told` is called before that. It is let go when
    /// what is given back is dropped, or its process ends (flock(2)).
    ///
    /// # Errors
    /// What flock(2) says.
    pub fn lock(self, told: impl FnOnce()) -> nix::Result<Flock<OwnedFd>> {
        match Flock::lock(self.directory, FlockArg::LockExclusiveNonblock) {
            Err((directory, Errno::EAGAIN)) => {
                told();
                Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| error)
            }
            held => held.map_err(|(_, error)| error),
        }
    }

    /// An empty file, made if need be, that is there to be locked.
    ///
    /// # Errors
    /// What openat(2) says.
    pub fn file_to_lock(&self, name: &str) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        openat(&self.directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    /// Whether what lies in it is gone when the machine is switched off.
    pub fn is_volatile(&self) -> bool {
        /// RAMFS_MAGIC (linux/magic.h).
        const RAMFS: FsType = FsType(0x8584_58f6);
        fstatfs(&self.directory).is_ok_and(|stat| matches!(stat.filesystem_type(), TMPFS_MAGIC | RAMFS))
    }

    /// A file's content. `None`: it is not there, not ours, or no text.
    pub fn read(&self, name: &str) -> Option<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = openat(&self.directory, name, flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        let regular = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        let size = u64::try_from(stat.st_size).ok().filter(|size| *size <= LIMIT)?;
        (regular && is_ours(&stat) && stat.st_mode & 0o022 == 0).then_some(())?;
        // Its size is known and does not change: files are only ever replaced.
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        File::from(file).read_exact(&mut bytes).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// Puts a file in place at once: who reads it finds the old content or the new. Of two writers the last wins.
    ///
    /// # Errors
    /// What openat(2), write(2) and renameat(2) say.
    pub fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        self.put(name, text.as_bytes(), None)
    }

    /// The same, the file being of another group: for what no other user namespace shall take for its own.
    ///
    /// # Errors
    /// EINVAL or EPERM besides, where there is no such group to be had.
    pub fn write_for_group(&self, name: &str, bytes: &[u8], group: u32) -> std::io::Result<()> {
        self.put(name, bytes, Some(Gid::from_raw(group)))
    }

    fn put(&self, name: &str, bytes: &[u8], group: Option<Gid>) -> std::io::Result<()> {
        static WRITTEN: AtomicU32 = AtomicU32::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let temporary = format!(".{name}.{}.{number}", std::process::id());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // Of an earlier process that had our number and was killed.
        let _ = unlinkat(&self.directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        let file = openat(&self.directory, temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let owned = group.map_or(Ok(()), |group| fchown(&file, None, Some(group)));
        let written = owned
            .map_err(std::io::Error::from)
            .and_then(|()| File::from(file).write_all(bytes))
            .and_then(|()| Ok(renameat(&self.directory, temporary.as_str(), &self.directory, name)?));
        if written.is_err() {
            let _ = unlinkat(&self.directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn is_ours(stat: &FileStat) -> bool {
    stat.st_uid == geteuid().as_raw()
}

/// Tries the runtime directories that may be ours.
fn first(attempt: impl Fn(OwnedFd) -> nix::Result<Store>) -> nix::Result<Store> {
    let mut outcome = Err(Errno::ENOENT);
    for path in runtime_directories() {
        outcome = open(&path, directory_flags(), Mode::empty()).and_then(&attempt);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn runtime_directories() -> impl Iterator<Item = PathBuf> {
    let root = geteuid().is_root().then(|| PathBuf::from("/run"));
    let same = getuid() == geteuid() && getgid() == getegid() && !privilege::is_elevated();
    let user = same.then(|| std::env::var_os("XDG_RUNTIME_DIR")).flatten().map(PathBuf::from);
    root.into_iter().chain(user.filter(|path| path.is_absolute()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn store(mode: u32) -> (tempfile::TempDir, nix::Result<Store>) {
        let base = tempfile::tempdir().expect("a directory");
        let own = base.path().join(NAME);
        fs::create_dir(&own).expect("made");
        fs::set_permissions(&own, fs::Permissions::from_mode(mode)).expect("changed");
        let opened = open(base.path(), directory_flags(), Mode::empty()).expect("opened");
        let store = Store::open_below(&opened);
        (base, store)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_is_left_beside_it() {
        let (base, store) = store(0o700);
        let store = store.expect("a store");
        assert_eq!(store.read("x"), None);
        store.write("x", "one").expect("written");
        store.write("x", "two").expect("written");
        assert_eq!(store.read("x").as_deref(), Some("two"));
        assert_eq!(fs::read_dir(base.path().join(NAME)).expect("read").count(), 1);
    }

    #[test]
    fn a_directory_that_others_see_into_is_not_used() {
        assert_eq!(store(0o755).1.map(drop), Err(Errno::EPERM));
        assert_eq!(store(0o770).1.map(drop), Err(Errno::EPERM));
    }

    #[test]
    fn links_and_files_of_others_are_not_read() {
        let (base, store) = store(0o700);
        let store = store.expect("a store");
        symlink("/etc/hostname", base.path().join(NAME).join("link")).expect("made");
        assert_eq!(store.read("link"), None);
        let open_to_all = base.path().join(NAME).join("open");
        fs::write(&open_to_all, "text").expect("written");
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o666)).expect("changed");
        assert_eq!(store.read("open"), None);
    }
}
