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

/// IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const GET_INFO: libc::c_int = 64;

/// Length of a table's name (XT_TABLE_MAXNAMELEN, linux/netfilter/x_tables.h), terminator included.
const TABLE_NAME_LEN: usize = 32;

/// Length of `struct ipt_getinfo`, which `struct ip6t_getinfo` equals: a name and 13 numbers.
const INFO_LEN: usize = TABLE_NAME_LEN + 13 * 4;

/// What it tells.
struct GetInfo {
    valid_hooks: u32,
    underflow: [u32; 5],
    num_entries: u32,
    /// In bytes.
    size: u32,
}

/// IPT_SO_GET_ENTRIES and IP6T_SO_GET_ENTRIES.
const GET_ENTRIES: libc::c_int = 65;

/// Offset of the entries in `struct ipt_get_entries`: behind a name of 32 bytes and a length of 4, aligned as
/// `struct xt_counters` is.
const ENTRIES_OFFSET: usize = 36usize.next_multiple_of(align_of::<u64>());

/// Offset of the verdict in `struct xt_standard_target`, which a built-in chain's policy is.
const VERDICT_OFFSET: usize = 32;

/// A standard target's verdict for ACCEPT: -NF_ACCEPT - 1 (linux/netfilter/x_tables.h).
const ACCEPT: i32 = -2;

/// Whether the calling thread's network namespace has, or can have, this legacy table. Asking loads the table's
/// module, and gives the namespace an empty table.
///
/// # Errors
/// EPERM without CAP_NET_RAW and CAP_NET_ADMIN; ENOPROTOOPT where there is no ip_tables.
pub fn legacy_table(family: Family, name: &str) -> io::Result<bool> {
    match info(&raw_socket(family)?, family, name) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a legacy table of the calling thread's network namespace holds rules, chains of somebody's or a policy that is
/// not ACCEPT. Asking loads the table, as [`legacy_table`] does.
///
/// # Errors
/// As [`legacy_table`]; ENOENT where there is no such table.
pub fn legacy_holds(family: Family, name: &str) -> io::Result<bool> {
    let raw = raw_socket(family)?;
    let info = info(&raw, family, name)?;
    // Each built-in chain ends in its policy, and the table in an entry of its own.
    if info.num_entries != info.valid_hooks.count_ones() + 1 {
        return Ok(true);
    }
    let mut request = vec![0; ENTRIES_OFFSET + info.size as usize];
    put_name(&mut request, name)?;
    request.splice(32..36, info.size.to_ne_bytes());
    get(&raw, level(family), GET_ENTRIES, &mut request)?;
    let policies = (0..5).filter(|hook| info.valid_hooks & 1 << hook != 0).map(|hook| info.underflow[hook] as usize);
    Ok(policies.into_iter().any(|at| verdict(family, &request[ENTRIES_OFFSET..], at) != Some(ACCEPT)))
}

/// Whether a legacy table of the calling thread's network namespace has a chain of that name. Asking loads the table, as
/// [`legacy_table`] does.
///
/// # Errors
/// As [`legacy_holds`].
pub fn legacy_mentions(family: Family, table: &str, chain: &str) -> io::Result<bool> {
    let raw = raw_socket(family)?;
    let info = info(&raw, family, table)?;
    let mut request = vec![0; ENTRIES_OFFSET + info.size as usize];
    put_name(&mut request, table)?;
    request.splice(32..36, info.size.to_ne_bytes());
    get(&raw, level(family), GET_ENTRIES, &mut request)?;
    // A chain's name stands in the entry that it begins with.
    let name: Vec<u8> = chain.bytes().chain([0]).collect();
    Ok(request.windows(name.len()).any(|window| window == name))
}

/// How many entries a legacy table of the calling thread's network namespace has: those of its rules, and those that
/// chains and the table begin and end with.
///
/// # Errors
/// As [`legacy_holds`].
pub fn legacy_entries(family: Family, name: &str) -> io::Result<u32> {
    Ok(info(&raw_socket(family)?, family, name)?.num_entries)
}

/// The verdict of the entry that begins at `at` (`struct ipt_entry`, `struct ip6t_entry`).
fn verdict(family: Family, entries: &[u8], at: usize) -> Option<i32> {
    let target_offset = match family {
        Family::V4 => 88,
        Family::V6 => 140,
    };
    let entry = entries.get(at..)?;
    let target = u16::from_ne_bytes(*entry.get(target_offset..)?.first_chunk()?);
    Some(i32::from_ne_bytes(*entry.get(usize::from(target) + VERDICT_OFFSET..)?.first_chunk()?))
}

fn info(raw: &OwnedFd, family: Family, name: &str) -> nix::Result<GetInfo> {
    let mut request = [0; INFO_LEN];
    put_name(&mut request[..TABLE_NAME_LEN], name)?;
    get(raw, level(family), GET_INFO, &mut request)?;
    let number = |at: usize| u32::from_ne_bytes([request[at], request[at + 1], request[at + 2], request[at + 3]]);
    // name, valid_hooks, hook_entry, underflow, num_entries, size
    Ok(GetInfo {
        valid_hooks: number(32),
        underflow: [56, 60, 64, 68, 72].map(number),
        num_entries: number(76),
        size: number(80),
    })
}

/// getsockopt(2) with a request that the answer is written over.
fn get(raw: &OwnedFd, level: libc::c_int, option: libc::c_int, request: &mut [u8]) -> nix::Result<()> {
    let mut len = libc::socklen_t::try_from(request.len()).map_err(|_| Errno::EMSGSIZE)?;
    // SAFETY: `raw` is open for the whole call, and `request` is writable for the length given.
    let result = unsafe {
        let value = request.as_mut_ptr().cast::<libc::c_void>();
        libc::getsockopt(raw.as_raw_fd(), level, option, value, &raw mut len)
    };
    Errno::result(result).map(drop)
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
    // `struct xt_get_revision` (linux/netfilter/x_tables.h): a name, and a number that is 0 here.
    let mut request = [0; NAME_LEN + 1];
    put_name(&mut request[..NAME_LEN], name)?;
    get(raw, level, option, &mut request)
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
    fn rules_and_policies_are_seen() {
        let tried = crate::sys::sandbox::enter(std::time::Duration::from_secs(20), |room| {
            let run = |family: Family, words: &str| {
                let name = family.program();
                let program = format!("/usr/sbin/{name}-legacy");
                let args: Vec<_> = words.split(' ').map(Into::into).collect();
                let command = crate::sys::exec::command(std::path::Path::new(&program), name, &args);
                room.run(command, "").is_ok_and(|answer| answer.status.success())
            };
            for family in Family::ALL {
                for (table, words, back) in [
                    ("filter", "-A INPUT -j DROP", "-D INPUT 1"),
                    ("filter", "-P FORWARD DROP", "-P FORWARD ACCEPT"),
                    ("raw", "-t raw -P OUTPUT DROP", "-t raw -P OUTPUT ACCEPT"),
                    ("nat", "-t nat -N mine", "-t nat -X mine"),
                    ("mangle", "-t mangle -P POSTROUTING DROP", "-t mangle -P POSTROUTING ACCEPT"),
                ] {
                    if !run(family, words) {
                        return;
                    }
                    assert!(legacy_holds(family, table).expect("an answer"), "{words}");
                    assert!(run(family, back));
                    assert!(!legacy_holds(family, table).expect("an answer"), "{back}");
                }
            }
        });
        // Without the rights there is nothing to be shown.
        drop(tried);
    }

    #[test]
    fn a_revision_that_is_not_there_is_told_from_an_extension_that_is_not() {
        assert!(any_revision(Err(Errno::EPROTONOSUPPORT)).expect("an answer"));
        assert!(!any_revision(Err(Errno::ENOENT)).expect("an answer"));
        assert!(any_revision(Err(Errno::EPERM)).is_err());
    }
}
