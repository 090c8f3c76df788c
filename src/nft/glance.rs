//! Whether a table is there: one request without any allocation, for a program that has nothing else to do.

#![forbid(unsafe_code)]

use super::uapi::{msg, nfnl, nl, table};
use crate::family::Family;
use crate::sys::raw::{self, Netlink};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use std::hint::black_box;
use std::mem::MaybeUninit;

/// The two headers (`struct nlmsghdr`, `struct nfgenmsg`).
const HEADERS: usize = 16 + 4;

/// The longest name of a table with its NUL (NFT_NAME_MAXLEN is more than any of ours needs).
const NAME: usize = 40;

/// Room for a part of an answer: that many bytes tell of some twenty tables.
const SPACE: usize = 1536;

/// More parts than an answer has that is worth the while.
const PARTS: usize = 8;

/// Whether this network namespace has the table whose name is these parts together.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN, EINVAL where the kernel has no nf_tables, ENAMETOOLONG for a name of 40 bytes or more.
#[inline(always)]
pub fn is_there(family: Family, name: [&[u8]; 2]) -> Result<bool, Errno> {
    let mut request = [0; HEADERS + 4 + NAME];
    let len = name[0].len() + name[1].len();
    if len >= NAME {
        return Err(Errno::ENAMETOOLONG);
    }
    let (headers, text) = request.split_at_mut(HEADERS + 4);
    let (first, second) = text.split_at_mut(name[0].len());
    raw::copy(first, name[0]);
    raw::copy(second, name[1]);
    let attribute = 4 + len + 1;
    let size = HEADERS + attribute.next_multiple_of(4);
    head(headers, size, family, nl::F_REQUEST);
    headers[20..22].copy_from_slice(&(attribute as u16).to_ne_bytes());
    headers[22..24].copy_from_slice(&table::NAME.to_ne_bytes());

    let kernel = Netlink::open(SockProtocol::NetlinkNetFilter as i32)?;
    kernel.send(&request[..size])?;
    let mut space = [const { MaybeUninit::uninit() }; SPACE];
    let (message, _) = Message::first(kernel.receive(&mut space)?)?;
    match message.number() {
        _ if message.kind != nl::ERROR => Ok(true),
        number if number == -(Errno::ENOENT as i32) => Ok(false),
        _ => Err(message.error()),
    }
}

/// Whether this network namespace may have a table whose name begins so.
///
/// # Errors
/// As [`is_there`]; EMSGSIZE where there are many tables, EINTR where they change meanwhile.
#[inline(always)]
pub fn may_be_any(family: Family, start: &[u8]) -> Result<bool, Errno> {
    let mut request = [0; HEADERS];
    head(&mut request, HEADERS, family, nl::F_REQUEST | nl::F_DUMP);
    let kernel = Netlink::open(SockProtocol::NetlinkNetFilter as i32)?;
    kernel.send(&request)?;
    let mut space = [const { MaybeUninit::uninit() }; SPACE];
    for _ in 0..PARTS {
        let mut rest = kernel.receive(&mut space)?;
        while !rest.is_empty() {
            let (message, behind) = Message::first(rest)?;
            match message.kind {
                _ if message.flags & nl::F_DUMP_INTR != 0 => return Err(Errno::EINTR),
                nl::DONE if message.number() == 0 => return Ok(false),
                nl::DONE | nl::ERROR => return Err(message.error()),
                _ if message.may_hold(start) => return Ok(true),
                _ => rest = behind,
            }
        }
    }
    Err(Errno::EMSGSIZE)
}

/// Begins a question for tables of a family.
#[inline(always)]
fn head(headers: &mut [u8], size: usize, family: Family, flags: u16) {
    headers[..4].copy_from_slice(&(size as u32).to_ne_bytes());
    headers[4..6].copy_from_slice(&(nfnl::SUBSYS_NFTABLES << 8 | u16::from(msg::GETTABLE)).to_ne_bytes());
    headers[6..8].copy_from_slice(&flags.to_ne_bytes());
    headers[16] = family.nfproto();
}

/// A message of the kernel's: what stands behind its header begins with a number if it is an error or an end.
struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first of those that were received, and what is behind it.
    #[inline(always)]
    fn first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Errno> {
        let Some([a, b, c, d, e, f, g, h]) = bytes.first_chunk() else { return Err(Errno::EBADMSG) };
        let (kind, flags) = (u16::from_ne_bytes([*e, *f]), u16::from_ne_bytes([*g, *h]));
        let len = u32::from_ne_bytes([*a, *b, *c, *d]) as usize;
        // A header and a number: no message is shorter.
        let Some(body) = bytes.get(16..len).filter(|body| body.len() >= 4) else { return Err(Errno::EBADMSG) };
        let behind = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Ok((Self { kind, flags, body }, behind))
    }

    #[inline(always)]
    fn number(&self) -> i32 {
        self.body.first_chunk().map_or(i32::MIN, |number| i32::from_ne_bytes(*number))
    }

    #[inline(always)]
    fn error(&self) -> Errno {
        Errno::from_raw(self.number().saturating_neg())
    }

    /// Whether a value begins so: all begin at a multiple of four bytes.
    #[inline(always)]
    fn may_hold(&self, start: &[u8]) -> bool {
        let mut values = (0..self.body.len()).step_by(4).filter_map(|at| self.body.get(at..at + start.len()));
        // Byte for byte, as the C library's memcmp lies on a page of its own.
        values.any(|value| value.iter().zip(start).all(|(byte, of)| black_box(*byte) == *of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Batch, Connection, Table};
    use crate::sys::sandbox;
    use std::time::Duration;

    fn add(name: &str) -> bool {
        let mut batch = Batch::new();
        batch.add_table(Table { family: Family::V6, name });
        Connection::open().is_ok_and(|mut connection| connection.commit(batch, None).is_ok())
    }

    /// `None` without CAP_SYS_ADMIN: there is no room to be had then, and nothing to be shown.
    fn apart<T: Send>(look: impl FnOnce() -> T + Send) -> Option<T> {
        sandbox::enter(Duration::from_secs(10), |_| look()).ok()
    }

    #[test]
    fn a_table_is_seen_when_it_is_there() {
        let look = |family| is_there(family, [b"xtshim-", b"glance"]).map_err(|error| error.to_string());
        let looked = apart(|| (look(Family::V6), add("xtshim-glance"), look(Family::V6), look(Family::V4)));
        assert!(looked.is_none_or(|looked| looked == (Ok(false), true, Ok(true), Ok(false))));
    }

    #[test]
    fn a_table_that_begins_so_is_seen_among_others() {
        let look = |family| may_be_any(family, b"xtshim-").map_err(|error| error.to_string());
        let Some(looked) = apart(|| {
            let mut looked = vec![look(Family::V6)];
            let others = add("xtshim") && add("x") && add("my-xtshim-raw");
            looked.extend([look(Family::V6), if others && add("xtshim-raw") { look(Family::V6) } else { Ok(false) }]);
            looked.push(look(Family::V4));
            looked
        }) else {
            return;
        };
        assert_eq!(looked, [Ok(false), Ok(false), Ok(true), Ok(false)]);
    }

    #[test]
    fn where_there_are_too_many_nothing_is_said() {
        let looked = apart(|| {
            let many = (0..300).all(|number| add(&format!("other-{number}")));
            (many, may_be_any(Family::V6, b"xtshim-").map_err(|error| error.to_string()))
        });
        assert!(looked.is_none_or(|(many, looked)| many && looked == Err(Errno::EMSGSIZE.to_string())));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        for bytes in [&[][..], &[0; 20], &[16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[255; 64]] {
            assert_eq!(Message::first(bytes).map(drop), Err(Errno::EBADMSG), "{bytes:?}");
        }
    }
}
