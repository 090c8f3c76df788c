//! Where the process begins. A command that is the backend's sees neither the C library nor Rust's runtime: setting
//! those up would take longer than all that there is to do.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};
use xtshim::sys::start::Start;

/// Whether the short way has been tried, and led nowhere.
static TRIED: AtomicBool = AtomicBool::new(false);

/// The entry point of a static build, named to the linker in `.cargo/config.toml`. What it is given and what it leaves is
/// what the kernel gives to `_start` (the processor's ABI, Process Initialization): if this is not the end, the C library
/// starts as if nothing had been.
#[cfg(all(target_env = "musl", target_arch = "x86_64"))]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn xtshim_start() -> ! {
    std::arch::naked_asm!(
        "xor ebp, ebp",
        "mov r12, rdx",
        "mov rdi, rsp",
        "call {before}",
        "mov rdx, r12",
        "jmp _start",
        before = sym before,
    )
}

/// As above.
#[cfg(all(target_env = "musl", target_arch = "aarch64"))]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn xtshim_start() -> ! {
    std::arch::naked_asm!(
        "mov x29, #0",
        "mov x30, #0",
        "mov x19, x0",
        "mov x0, sp",
        "bl {before}",
        "mov x0, x19",
        "b _start",
        before = sym before,
    )
}

/// The short way, before there is anything but the kernel: no allocation, no thread-local, no panic.
#[cfg(all(target_env = "musl", any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe extern "C" fn before(stack: *mut usize) {
    // SAFETY: the number of arguments lies there, then the arguments and a NULL.
    let (argc, argv) = unsafe { (*stack as c_int, stack.add(1).cast::<*const c_char>()) };
    // SAFETY: behind that lie the environment and the auxiliary vector; nobody else has started yet.
    let start = unsafe { Start::new(argc, argv, argv.add(argc as usize + 1)) };
    if let Some(never) = xtshim::pass_through(start) {
        match never {}
    }
    TRIED.store(true, Ordering::Relaxed);
}

/// The C library's entry.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *mut *const c_char, environment: *const *const c_char) -> c_int {
    // SAFETY: the C library hands on what the kernel has made (execve(2)), and starts this once.
    let start = unsafe { Start::new(argc, argv, environment) };
    if !TRIED.load(Ordering::Relaxed)
        && let Some(never) = xtshim::pass_through(start)
    {
        match never {}
    }
    xtshim::run(start)
}
