//! What tells one state of a file from another.

use nix::libc;
use std::ffi::CStr;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// A file at a moment: changes with whatever is done to it, but for reading (inode(7), st_ctime).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    file: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Mark {
    /// Of the file that these facts are about.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            file: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What a [`Mark`] is made of, of the file that a path leads to: device, inode, size, and the times of modification and of
/// change in seconds and nanoseconds. All 0 where there is none.
#[inline(always)]
#[allow(clippy::unnecessary_cast, reason = "the C library's types differ between platforms")]
pub fn numbers(path: &CStr) -> [i64; 7] {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `path` ends in a NUL, and `stat` has room for what is written.
    if unsafe { libc::stat(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return [0; 7];
    }
    // SAFETY: stat(2) has filled it in.
    let stat = unsafe { stat.assume_init() };
    [
        stat.st_dev as i64,
        stat.st_ino as i64,
        stat.st_size as i64,
        stat.st_mtime as i64,
        stat.st_mtime_nsec as i64,
        stat.st_ctime as i64,
        stat.st_ctime_nsec as i64,
    ]
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file: (device, inode), size, modified, changed } = self;
        write!(f, "{device}:{inode}:{size}:{}.{}:{}.{}", modified.0, modified.1, changed.0, changed.1)
    }
}
