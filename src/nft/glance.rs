//! Whether a table is there: one request without any allocation, for a program that has nothing else to do.

#![forbid(unsafe_code)]

use super::uapi::{msg, nfnl, nl, table};
use crate::family::Family;
use crate::sys::raw;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

/// The two headers (`struct nlmsghdr`, `struct nfgenmsg`) and the attribute's.
const HEADERS: usize = 16 + 4 + 4;

/// The longest name of a table with its NUL (NFT_NAME_MAXLEN is more than any of ours needs).
const NAME: usize = 40;

/// Whether this network namespace has the table whose name is these parts together.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN, EINVAL where the kernel has no nf_tables, ENAMETOOLONG for a name of 40 bytes or more.
#[inline(always)]
pub fn is_there(family: Family, name: [&[u8]; 2]) -> Result<bool, Errno> {
    let mut request = [0; HEADERS + NAME];
    let len = name[0].len() + name[1].len();
    if len >= NAME {
        return Err(Errno::ENAMETOOLONG);
    }
    let (headers, text) = request.split_at_mut(HEADERS);
    let (first, second) = text.split_at_mut(name[0].len());
    raw::copy(first, name[0]);
    raw::copy(second, name[1]);
    let attribute = 4 + len + 1;
    let size = HEADERS - 4 + attribute.next_multiple_of(4);
    headers[..4].copy_from_slice(&(size as u32).to_ne_bytes());
    headers[4..6].copy_from_slice(&(nfnl::SUBSYS_NFTABLES << 8 | u16::from(msg::GETTABLE)).to_ne_bytes());
    headers[6..8].copy_from_slice(&nl::F_REQUEST.to_ne_bytes());
    headers[16] = family.nfproto();
    headers[20..22].copy_from_slice(&(attribute as u16).to_ne_bytes());
    headers[22..24].copy_from_slice(&table::NAME.to_ne_bytes());

    // Whatever it is, its beginning says all.
    let mut answer = [0; 64];
    let len = raw::ask(SockProtocol::NetlinkNetFilter as i32, &request[..size], &mut answer)?;
    let answer = answer.get(..len).unwrap_or_default();
    match (answer.get(4..6), answer.get(16..20)) {
        (Some(kind), Some(body)) if kind == nl::ERROR.to_ne_bytes() => {
            let errno = i32::from_ne_bytes([body[0], body[1], body[2], body[3]]).saturating_neg();
            if errno == Errno::ENOENT as i32 { Ok(false) } else { Err(Errno::from_raw(errno)) }
        }
        (Some(_), Some(_)) => Ok(true),
        _ => Err(Errno::EBADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Batch, Connection, Table};
    use crate::sys::sandbox;
    use std::time::Duration;

    #[test]
    fn a_table_is_seen_when_it_is_there() {
        let looked = sandbox::enter(Duration::from_secs(10), |_| {
            let look = |family| is_there(family, [b"xtshim-", b"glance"]).map_err(|error| error.to_string());
            let before = look(Family::V6);
            let mut batch = Batch::new();
            batch.add_table(Table { family: Family::V6, name: "xtshim-glance" });
            let made = Connection::open().map(|mut connection| connection.commit(batch, None).is_ok()).unwrap_or(false);
            (before, made, look(Family::V6), look(Family::V4))
        });
        // Without CAP_SYS_ADMIN there is no room to be had, and nothing to be shown.
        let Ok(looked) = looked else { return };
        assert_eq!(looked, (Ok(false), true, Ok(true), Ok(false)));
    }
}
