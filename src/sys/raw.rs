//! System calls and strings without the C library, for the few moments before it is set up: nothing here touches `errno`
//! or any other thread-local, which does not exist yet.
//!
//! A page of the program that is touched for the first time costs as much as ten system calls, and the library's
//! functions, the tables of constants and the variables all lie on pages of their own. Hence the loops that a compiler
//! cannot make a call of `strlen` or `memcpy`, and constants that are put together from numbers in the code.
//!
//! On a processor that this knows nothing of every call fails with ENOSYS, and a front goes the long way.

#![allow(clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "arguments of system calls are words")]

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use std::ffi::{CStr, c_char};
use std::hint::black_box;
use std::mem::MaybeUninit;

/// A call may fail with any of these (the kernel gives them negated, MAX_ERRNO in linux/err.h).
const ERRORS: std::ops::RangeInclusive<isize> = -4095..=-1;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod number {
    pub use libc::{
        SYS_capget as CAPGET, SYS_close as CLOSE, SYS_execve as EXECVE, SYS_fstat as FSTAT,
        SYS_newfstatat as NEWFSTATAT, SYS_openat as OPENAT, SYS_read as READ, SYS_recvfrom as RECVFROM,
        SYS_sendto as SENDTO, SYS_socket as SOCKET,
    };
    use nix::libc;
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod number {
    use nix::libc::c_long;
    pub const CAPGET: c_long = 0;
    pub const CLOSE: c_long = 0;
    pub const EXECVE: c_long = 0;
    pub const FSTAT: c_long = 0;
    pub const NEWFSTATAT: c_long = 0;
    pub const OPENAT: c_long = 0;
    pub const READ: c_long = 0;
    pub const RECVFROM: c_long = 0;
    pub const SENDTO: c_long = 0;
    pub const SOCKET: c_long = 0;
}

/// One call (syscall(2), Architecture calling conventions).
///
/// # Safety
/// What the call does to the memory that its arguments point at is as this program expects it.
#[inline(always)]
#[allow(unused_variables, reason = "not every processor is known")]
unsafe fn call(number: c_long, args: [usize; 6]) -> Result<usize, Errno> {
    #[cfg(target_arch = "x86_64")]
    let result = {
        let result: isize;
        // SAFETY: the kernel keeps all registers but these; what it does to memory is the caller's promise.
        unsafe {
            std::arch::asm!(
                "syscall", inlateout("rax") number as isize => result, in("rdi") args[0], in("rsi") args[1],
                in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
                lateout("rcx") _, lateout("r11") _, options(nostack),
            );
        }
        result
    };
    #[cfg(target_arch = "aarch64")]
    let result = {
        let result: isize;
        // SAFETY: the kernel keeps all registers but x0; what it does to memory is the caller's promise.
        unsafe {
            std::arch::asm!(
                "svc 0", in("x8") number, inlateout("x0") args[0] as isize => result, in("x1") args[1],
                in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack),
            );
        }
        result
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let result = -(libc::ENOSYS as isize);
    if ERRORS.contains(&result) { Err(Errno::from_raw(-result as i32)) } else { Ok(result as usize) }
}

/// A descriptor, closed when it goes.
struct Descriptor(usize);

impl Drop for Descriptor {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        let _ = unsafe { call(number::CLOSE, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// The string that begins there.
///
/// # Safety
/// It ends in a NUL, and stays as it is for as long as what is given back is used.
#[inline(always)]
pub unsafe fn text_at<'a>(start: *const c_char) -> &'a CStr {
    let mut len = 0;
    // SAFETY: the NUL has not been passed.
    while unsafe { start.add(len).read_volatile() } != 0 {
        len += 1;
    }
    // SAFETY: that many bytes and the NUL have been read.
    let bytes = unsafe { std::slice::from_raw_parts(start.cast(), len + 1) };
    // SAFETY: the last byte is the only NUL.
    unsafe { CStr::from_bytes_with_nul_unchecked(bytes) }
}

/// These bytes as a string: they end in a NUL, and have no other.
#[inline(always)]
pub fn text(bytes: &[u8]) -> Option<&CStr> {
    let (end, before) = bytes.split_last()?;
    // SAFETY: a reference can be read from.
    let whole = before.iter().all(|byte| unsafe { std::ptr::from_ref(byte).read_volatile() } != 0);
    // SAFETY: the last byte is the only NUL.
    (whole && *end == 0).then(|| unsafe { CStr::from_bytes_with_nul_unchecked(bytes) })
}

/// Writes what fits of `from` to the beginning of `to`.
#[inline(always)]
pub fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        // SAFETY: a reference can be written to.
        unsafe { std::ptr::from_mut(to).write_volatile(*from) };
    }
}

/// The bytes of a constant, made by the code itself. Behind them there are NULs.
#[inline(always)]
pub fn spelled<const WORDS: usize, const LEN: usize>(words: [u64; WORDS]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (place, word) in bytes.chunks_mut(8).zip(words.map(black_box)) {
        copy(place, &word.to_ne_bytes());
    }
    bytes
}

/// A constant's bytes as [`spelled`] takes them.
pub const fn words<const WORDS: usize>(text: &[u8]) -> [u64; WORDS] {
    let mut words = [0_u64; WORDS];
    let mut at = 0;
    while at < text.len() {
        let mut word = words[at / 8].to_ne_bytes();
        word[at % 8] = text[at];
        words[at / 8] = u64::from_ne_bytes(word);
        at += 1;
    }
    words
}

/// What is in a file of root's that nobody else may write to, and the file's group. `None`: it is not there, not such a
/// file, or does not fit.
#[inline(always)]
pub fn read_own<'a>(path: &CStr, space: &'a mut [MaybeUninit<u8>]) -> Option<(&'a [u8], u32)> {
    let flags = (libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
    // SAFETY: `path` ends in a NUL.
    let fd = unsafe { call(number::OPENAT, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0]) }.ok()?;
    let fd = Descriptor(fd);
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for what is written.
    unsafe { call(number::FSTAT, [fd.0, stat.as_mut_ptr() as usize, 0, 0, 0, 0]) }.ok()?;
    // SAFETY: fstat(2) has filled it in.
    let stat = unsafe { stat.assume_init() };
    let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    let private = stat.st_uid == 0 && stat.st_mode & 0o022 == 0;
    // SAFETY: no more than `space` holds is written to it.
    let size = unsafe { call(number::READ, [fd.0, space.as_mut_ptr() as usize, space.len(), 0, 0, 0]) }.ok()?;
    // SAFETY: read(2) has filled in so many.
    let bytes = unsafe { std::slice::from_raw_parts(space.as_ptr().cast(), size) };
    (regular && private && usize::try_from(stat.st_size) == Ok(size)).then_some((bytes, stat.st_gid))
}

/// What tells one state of the file that a path leads to from another: device, inode, size, and the times of modification
/// and of change in seconds and nanoseconds. All 0 where there is none.
#[inline(always)]
#[allow(clippy::unnecessary_cast, reason = "the C library's types differ between platforms")]
pub fn numbers(path: &CStr) -> [i64; 7] {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, stat.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: `path` ends in a NUL, and `stat` has room for what is written.
    if unsafe { call(number::NEWFSTATAT, args) }.is_err() {
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

/// A netlink socket.
pub struct Netlink(Descriptor);

impl Netlink {
    /// Of that protocol.
    ///
    /// # Errors
    /// What socket(2) says.
    #[inline(always)]
    pub fn open(protocol: c_int) -> Result<Self, Errno> {
        let kind = (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as usize;
        // SAFETY: no memory is involved.
        let fd = unsafe { call(number::SOCKET, [libc::AF_NETLINK as usize, kind, protocol as usize, 0, 0, 0]) }?;
        Ok(Self(Descriptor(fd)))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// What sendto(2) says, EMSGSIZE if not all of it was taken.
    #[inline(always)]
    pub fn send(&self, request: &[u8]) -> Result<(), Errno> {
        let args = [self.0.0, request.as_ptr() as usize, request.len(), 0, 0, 0];
        // SAFETY: `request` is read, no further than it goes.
        let sent = unsafe { call(number::SENDTO, args) }?;
        if sent == request.len() { Ok(()) } else { Err(Errno::EMSGSIZE) }
    }

    /// The next part of the answer.
    ///
    /// # Errors
    /// What recvfrom(2) says, EMSGSIZE if it is longer than `space`.
    #[inline(always)]
    pub fn receive<'a>(&self, space: &'a mut [MaybeUninit<u8>]) -> Result<&'a [u8], Errno> {
        // It is there by now, or was lost: nothing is waited for.
        let flags = (libc::MSG_TRUNC | libc::MSG_DONTWAIT) as usize;
        let args = [self.0.0, space.as_mut_ptr() as usize, space.len(), flags, 0, 0];
        // SAFETY: no more than `space` holds is written to it.
        let len = unsafe { call(number::RECVFROM, args) }?;
        if len > space.len() {
            return Err(Errno::EMSGSIZE);
        }
        // SAFETY: recvfrom(2) has filled in so many.
        Ok(unsafe { std::slice::from_raw_parts(space.as_ptr().cast(), len) })
    }
}

/// Whether CAP_SYS_ADMIN is in effect, with which namespaces can be made (capabilities(7)).
///
/// # Errors
/// What capget(2) says.
#[inline(always)]
pub fn has_sys_admin() -> Result<bool, Errno> {
    /// `_LINUX_CAPABILITY_VERSION_3` and CAP_SYS_ADMIN (linux/capability.h).
    const VERSION: u32 = 0x2008_0522;
    const SYS_ADMIN: u32 = 21;
    let mut header = [VERSION, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: with this version the sets are two times three words; 0 is this process.
    unsafe { call(number::CAPGET, [header.as_mut_ptr() as usize, sets.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    Ok(sets[0] & 1 << SYS_ADMIN != 0)
}

/// Replaces this process. Returns only where that fails.
///
/// # Safety
/// Both lists are of strings, and end in a NULL (execve(2)).
#[inline(always)]
pub unsafe fn execve(program: &CStr, argv: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: as the caller promises.
    let _ = unsafe { call(number::EXECVE, [program.as_ptr() as usize, argv as usize, environment as usize, 0, 0, 0]) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_what_the_library_takes_them_for() {
        for bytes in [&b""[..], b"\0", b"a\0", b"a", b"a\0b\0", b"\0\0", b"iptables\0"] {
            assert_eq!(text(bytes), CStr::from_bytes_with_nul(bytes).ok(), "{bytes:?}");
        }
        for string in [c"", c"-w", c"XTSHIM_CONFIG=/etc/x"] {
            // SAFETY: it is a string, and a constant.
            assert_eq!(unsafe { text_at(string.as_ptr()) }, string);
        }
    }

    #[test]
    fn a_constant_is_spelled_with_nuls_behind_it() {
        const TEXT: &[u8] = b"/run/xtshim/ticket-";
        let bytes: [u8; 30] = spelled(words::<3>(TEXT));
        assert_eq!(bytes.split_at(TEXT.len()), (TEXT, &[0; 11][..]));
        let cut: [u8; 5] = spelled(words::<3>(TEXT));
        assert_eq!(&cut, b"/run/");
    }

    #[test]
    fn a_failed_call_says_why() {
        // SAFETY: there is no such descriptor.
        let closed = unsafe { call(number::CLOSE, [usize::MAX >> 1, 0, 0, 0, 0, 0]) };
        assert_eq!(closed, Err(Errno::EBADF));
    }

    #[test]
    fn the_same_capability_as_the_crate_says() {
        let said = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN);
        assert_eq!(has_sys_admin().ok(), said.ok());
    }
}
