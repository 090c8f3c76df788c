//! Asking the kernel which xtables extensions it has, by the two ways in which iptables asks: a socket option of
//! ip_tables (linux/netfilter_ipv4/ip_tables.h), and a message to nft_compat (linux/netfilter/nf_tables_compat.h).
//! Both load the extension's module if it is there.

use crate::family::Family;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The two kinds of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// `-m`
    Match,
    /// `-j`
    Target,
}

/// XT_EXTENSION_MAXNAMELEN (linux/netfilter/x_tables.h), terminator included.
const NAME_LEN: usize = 29;

/// NFNL_SUBSYS_NFT_COMPAT (linux/netfilter/nfnetlink.h).
const SUBSYSTEM: u16 = 11;

/// `struct xt_get_revision` (linux/netfilter/x_tables.h).
#[repr(C)]
struct GetRevision {
    name: [u8; NAME_LEN],
    revision: u8,
}

/// IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const GET_INFO: libc::c_int = 64;

/// `struct ipt_getinfo`, which `struct ip6t_getinfo` equals.
#[repr(C)]
struct GetInfo {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// Whether the calling thread's network namespace has, or can have, this legacy table. Asking loads the table's
/// module, and gives the namespace an empty table.
///
/// # Errors
/// EPERM without CAP_NET_RAW and CAP_NET_ADMIN; ENOPROTOOPT where there is no ip_tables.
pub fn legacy_table(family: Family, name: &str) -> io::Result<bool> {
    let raw = raw_socket(family)?;
    let mut request =
        GetInfo { name: [0; 32], valid_hooks: 0, hook_entry: [0; 5], underflow: [0; 5], num_entries: 0, size: 0 };
    put_name(&mut request.name, name)?;
    let mut len = size_of::<GetInfo>() as libc::socklen_t;
    // SAFETY: `raw` is open for the whole call, and `request` is a value of the option's type, of the length given.
    let result = unsafe {
        let value = (&raw mut request).cast::<libc::c_void>();
        libc::getsockopt(raw.as_raw_fd(), level(family), GET_INFO, value, &raw mut len)
    };
    match Errno::result(result) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn raw_socket(family: Family) -> nix::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
}

fn level(family: Family) -> libc::c_int {
    match family {
        Family::V4 => libc::IPPROTO_IP,
        Family::V6 => libc::IPPROTO_IPV6,
    }
}

/// Leaves at least one terminator.
fn put_name(room: &mut [u8], name: &str) -> nix::Result<()> {
    let spare = room.len() > name.len();
    let start = room.get_mut(..name.len()).filter(|_| spare).ok_or(Errno::ENAMETOOLONG)?;
    start.copy_from_slice(name.as_bytes());
    Ok(())
}

/// Whether ip_tables (or ip6_tables) of the calling thread's network namespace has any revision of the extension.
///
/// # Errors
/// EPERM without CAP_NET_RAW and CAP_NET_ADMIN; ENOPROTOOPT where there is no ip_tables.
pub fn legacy_has(family: Family, extension: Extension, name: &str) -> io::Result<bool> {
    let raw = raw_socket(family)?;
    any_revision(ask_socket(&raw, level(family), option(family, extension), name))
}

/// IPT_SO_GET_REVISION_MATCH and so on.
fn option(family: Family, extension: Extension) -> libc::c_int {
    match (family, extension) {
        (Family::V4, Extension::Match) => 66,
        (Family::V4, Extension::Target) => 67,
        (Family::V6, Extension::Match) => 68,
        (Family::V6, Extension::Target) => 69,
    }
}

fn ask_socket(raw: &OwnedFd, level: libc::c_int, option: libc::c_int, name: &str) -> nix::Result<()> {
    let mut request = GetRevision { name: [0; NAME_LEN], revision: 0 };
    put_name(&mut request.name, name)?;
    let mut len = size_of::<GetRevision>() as libc::socklen_t;
    // SAFETY: `raw` is open for the whole call, and `request` is a value of the option's type, of the length given.
    let result = unsafe {
        libc::getsockopt(raw.as_raw_fd(), level, option, (&raw mut request).cast::<libc::c_void>(), &raw mut len)
    };
    Errno::result(result).map(drop)
}

/// Whether nft_compat has any revision of the extension.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; EINVAL or EOPNOTSUPP where there is no nft_compat.
pub fn compat_has(family: Family, extension: Extension, name: &str) -> io::Result<bool> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
    send(netlink.as_raw_fd(), &compat_request(family, extension, name), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let size = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    any_revision(error_of(&answer[..size]))
}

/// NFNL_MSG_COMPAT_GET for revision 0.
fn compat_request(family: Family, extension: Extension, name: &str) -> Vec<u8> {
    let kind: u32 = match extension {
        Extension::Match => 0,
        Extension::Target => 1,
    };
    let mut body = vec![family.nfproto(), 0, 0, 0];
    attribute(&mut body, 1, &[name.as_bytes(), &[0]].concat());
    attribute(&mut body, 2, &0u32.to_be_bytes());
    attribute(&mut body, 3, &kind.to_be_bytes());
    let length = (16 + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend((SUBSYSTEM << 8).to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The error in an NLMSG_ERROR (netlink(7)); any other message is an answer.
fn error_of(message: &[u8]) -> nix::Result<()> {
    let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = message.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(kind), Some(code)) if i32::from(kind) == libc::NLMSG_ERROR && code != 0 => Err(Errno::from_raw(-code)),
        (Some(_), _) => Ok(()),
        _ => Err(Errno::EBADMSG),
    }
}

/// EPROTONOSUPPORT: it is there, in other revisions than the one asked for (xt_find_revision in x_tables.c).
fn any_revision(answer: nix::Result<()>) -> io::Result<bool> {
    match answer {
        Ok(()) | Err(Errno::EPROTONOSUPPORT) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kernel_has_is_not_there() {
        for ask in [legacy_has, compat_has] {
            for extension in [Extension::Match, Extension::Target] {
                // Without the rights, or without xtables, there is nothing to be shown.
                let Ok(there) = ask(Family::V4, extension, "nosuchthing") else { return };
                assert!(!there);
            }
        }
    }

    #[test]
    fn no_kernel_has_a_table_of_any_name() {
        // Without the rights, or without xtables, there is nothing to be shown.
        let Ok(there) = legacy_table(Family::V4, "nosuchtable") else { return };
        assert!(!there);
    }

    #[test]
    fn a_revision_that_is_not_there_is_told_from_an_extension_that_is_not() {
        assert!(any_revision(Err(Errno::EPROTONOSUPPORT)).expect("an answer"));
        assert!(!any_revision(Err(Errno::ENOENT)).expect("an answer"));
        assert!(any_revision(Err(Errno::EPERM)).is_err());
    }
}
