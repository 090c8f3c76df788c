//! The program: everything of substance is in the library.

use std::process::ExitCode;

/// musl's own allocator gives pages back to the kernel as soon as they are free, and takes them again for the next word
/// of the command line: half of a front's system calls were its.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    xtshim::main()
}
