//! Waiting until the kernel is done with what it was busy with.

use nix::libc;
use std::time::Duration;

/// MEMBARRIER_CMD_GLOBAL (linux/membarrier.h).
const GLOBAL: libc::c_int = 1;

/// Where the kernel does not wait for us, as with `nohz_full`: longer than any packet takes.
const A_WHILE: Duration = Duration::from_millis(20);

/// Returns when every packet that any processor was at has been decided: the kernel decides them inside of RCU's read
/// sides, and membarrier(2) waits until those have ended.
pub fn pass() {
    // SAFETY: membarrier(2) takes three numbers and touches no memory of ours.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done != 0 {
        std::thread::sleep(A_WHILE);
    }
}
