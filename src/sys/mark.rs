//! What tells one state of a file from another.

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

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file: (device, inode), size, modified, changed } = self;
        write!(f, "{device}:{inode}:{size}:{}.{}:{}.{}", modified.0, modified.1, changed.0, changed.1)
    }
}
