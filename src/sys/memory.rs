//! The allocator: what happens when there is no more memory.

use nix::libc;
use std::alloc::{GlobalAlloc, Layout};

/// musl's own allocator gives pages back to the kernel as soon as they are free, and takes them again for the next word
/// of the command line: half of a front's system calls were its.
#[cfg(target_env = "musl")]
use dlmalloc::GlobalDlmalloc as Inner;
#[cfg(not(target_env = "musl"))]
use std::alloc::System as Inner;

/// Where it cannot be had the process ends as an iptables does: with a message and exit code 4. The runtime would abort, as
/// after a fault of its own. What has been sent to the kernel by then is a whole transaction.
#[derive(Debug)]
pub struct Memory;

/// What iptables-legacy calls it (iptc_strerror).
const MESSAGE: &[u8] = b"iptables: Memory allocation problem.\n";

/// RESOURCE_PROBLEM (xtables.h).
const CODE: libc::c_int = 4;

#[cold]
fn exhausted() -> ! {
    // SAFETY: the text lies there for good; ending the process asks for nothing.
    unsafe {
        libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len());
        libc::_exit(CODE)
    }
}

#[inline(always)]
fn had(memory: *mut u8) -> *mut u8 {
    if memory.is_null() { exhausted() } else { memory }
}

// SAFETY: all of it is the inner allocator's.
unsafe impl GlobalAlloc for Memory {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        had(unsafe { Inner.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        had(unsafe { Inner.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        had(unsafe { Inner.realloc(memory, layout, size) })
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { Inner.dealloc(memory, layout) }
    }
}
