//! The program: everything of substance is in the library.

#![cfg_attr(not(test), no_main)]

/// musl's own allocator gives pages back to the kernel as soon as they are free, and takes them again for the next word
/// of the command line: half of a front's system calls were its.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

#[cfg(not(test))]
#[path = "sys/entry.rs"]
mod entry;
