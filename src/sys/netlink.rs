//! A netlink socket of any protocol: open, send a whole request in one datagram, receive.
//!
//! The kernel handles a request within `send`: when it returns, every answer that is no dump is already queued.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, sendmsg, setsockopt, socket, sockopt,
};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A netlink socket, closed on exec. The first send binds it (netlink(7), Address formats).
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    send_space: usize,
}

/// What the kernel grants without asking (net.core.wmem_default is never smaller in practice); only a larger
/// request touches the buffer size.
const DEFAULT_SEND_SPACE: usize = 64 * 1024;

/// The kernel keeps 32 bytes of the send buffer for itself (netlink_sendmsg in net/netlink/af_netlink.c, since
/// Linux 2.6).
const RESERVED: usize = 32;

/// How long an answer is waited for, in milliseconds. It is there when the request has been sent, and a dump's next
/// datagram when the one before it was received: what does not come in this time never will.
const PATIENCE: u16 = 10_000;

impl Socket {
    /// Opens a socket of the netlink `protocol`.
    ///
    /// # Errors
    /// EPROTONOSUPPORT where the kernel lacks the protocol, EMFILE and the like.
    #[inline]
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { fd, send_space: DEFAULT_SEND_SPACE })
    }

    /// Has the kernel leave the request out of its answers.
    pub fn want_short_answers(&self) {
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            // Refused by old kernels, which then send longer answers or none of the details.
            let _ = enable(&self.fd, option);
        }
    }

    /// Sends `request` whole, in one datagram.
    ///
    /// # Errors
    /// EMSGSIZE when the buffer cannot be made large enough: nothing was sent then.
    #[inline]
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.make_room(request.len());
        loop {
            match send(self.fd.as_raw_fd(), request, MsgFlags::empty()) {
                Ok(sent) if sent == request.len() => return Ok(()),
                Ok(_) => return Err(io::Error::from(Errno::EMSGSIZE)),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The same of a request that lies in several places. Only a large one is worth being sent from there.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub fn send_gathered(&mut self, request: &[IoSlice<'_>]) -> io::Result<()> {
        let len = request.iter().map(|part| part.len()).sum();
        if len <= DEFAULT_SEND_SPACE {
            let mut whole = Vec::with_capacity(len);
            request.iter().for_each(|part| whole.extend_from_slice(part));
            return self.send(&whole);
        }
        self.make_room(len);
        loop {
            match sendmsg::<()>(self.fd.as_raw_fd(), request, &[], MsgFlags::empty(), None) {
                Ok(sent) if sent == len => return Ok(()),
                Ok(_) => return Err(io::Error::from(Errno::EMSGSIZE)),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one datagram into `buffer`, in place of what is in it: at most the buffer's capacity, of which no byte is
    /// touched that nothing is received into. Waits for it only if `wait`, and not for ever.
    ///
    /// # Errors
    /// ENOBUFS when answers were lost; EAGAIN when there is none and `wait` is false, ETIMEDOUT when there still is none;
    /// EMSGSIZE when it did not fit. The buffer is empty then.
    #[inline]
    pub fn receive(&self, buffer: &mut Vec<u8>, wait: bool) -> io::Result<()> {
        buffer.clear();
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        loop {
            let room = buffer.spare_capacity_mut();
            let (start, len) = (room.as_mut_ptr(), room.len());
            // SAFETY: the kernel writes no more than `len` bytes, which are the buffer's.
            let received = unsafe { libc::recv(self.fd.as_raw_fd(), start.cast(), len, flags) };
            match Errno::result(received).map(isize::cast_unsigned) {
                Ok(size) if size > len => return Err(Errno::EMSGSIZE.into()),
                Ok(size) => {
                    // SAFETY: there is room for them, and the kernel has written them.
                    unsafe { buffer.set_len(size) };
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if wait => self.wait()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cold]
    fn wait(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE)) {
            Ok(0) => Err(Errno::ETIMEDOUT.into()),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for a send buffer that holds `len` bytes: by force where we may, else up to net.core.wmem_max.
    fn make_room(&mut self, len: usize) {
        let needed = len + RESERVED;
        if needed <= self.send_space {
            return;
        }
        // The kernel doubles the number; asking for half would do, asking for all keeps clear of its own overhead.
        if setsockopt(&self.fd, sockopt::SndBufForce, &needed).is_err() {
            let _ = setsockopt(&self.fd, sockopt::SndBuf, &needed);
        }
        self.send_space = needed;
    }
}

/// Turns on a socket option of level SOL_NETLINK (netlink(7), SOCKET OPTIONS).
fn enable(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` is open for the whole call, and `on` is a c_int that outlives it, of the length given.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast::<libc::c_void>(), len)
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}
