//! Address translation: the expressions nat, masq and redir.

#![forbid(unsafe_code)]

use super::expr::Alternative;
use super::json;
use super::lower::{Lowering, Malformed};
use super::syntax::{self, Unprintable, unprintable};
use super::uapi::{masq, nat, redir};
use super::wire::Writer;
use crate::family::Family;
use nftables::expr::Expression;
use nftables::stmt::{NAT, NATFlag, Statement};
use serde_json::json;
use std::net::IpAddr;

/// NF_NAT_RANGE_PROTO_RANDOM (linux/netfilter/nf_nat.h): the port is chosen by chance, with the tuple's hash.
pub const RANDOM: u32 = 1 << 2;
/// NF_NAT_RANGE_PERSISTENT: a client gets the same address each time.
pub const PERSISTENT: u32 = 1 << 3;
/// NF_NAT_RANGE_PROTO_RANDOM_FULLY: the port is chosen by chance alone.
pub const FULLY_RANDOM: u32 = 1 << 4;
/// NF_NAT_RANGE_PROTO_SPECIFIED
const PROTO_SPECIFIED: u32 = 1 << 1;
/// NF_NAT_RANGE_NETMAP: the bits in which both ends of the range agree are set, the others kept.
const NETMAP: u32 = 1 << 6;

/// NFPROTO_IPV4 and NFPROTO_IPV6 (linux/netfilter.h).
pub(super) const fn nfproto(family: Family) -> u32 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Which end of the packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manip {
    /// NFT_NAT_SNAT
    Source,
    /// NFT_NAT_DNAT
    Destination,
}

/// What becomes of the packet's addresses. Port ranges are from, to, both within; `flags` are of [`RANDOM`],
/// [`PERSISTENT`] and [`FULLY_RANDOM`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Another address, another port, or both.
    To {
        /// Which end.
        manip: Manip,
        /// Of the rule, and of the addresses.
        family: Family,
        /// From, to, both within; `None`: the address stays.
        addresses: Option<(IpAddr, IpAddr)>,
        /// `None`: the port stays if it can.
        ports: Option<(u16, u16)>,
        /// See above.
        flags: u32,
    },
    /// The network's bits are put in place of the address's first ones.
    Prefix {
        /// Which end.
        manip: Manip,
        /// First address of the network.
        network: IpAddr,
        /// Bits that are replaced: 0 to the width of the address.
        length: u8,
    },
    /// The source becomes the address of the interface by which the packet leaves.
    Masquerade {
        /// As above.
        ports: Option<(u16, u16)>,
        /// See above.
        flags: u32,
    },
    /// The destination becomes this host.
    Redirect {
        /// As above.
        ports: Option<(u16, u16)>,
        /// See above.
        flags: u32,
    },
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The last address of a network.
fn last_of(network: IpAddr, length: u8) -> IpAddr {
    let host =
        |width: u32| u128::MAX.checked_shl(width.saturating_sub(u32::from(length))).map_or(u128::MAX, |ones| !ones);
    match network {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() | host(32) as u32).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() | host(128)).into()),
    }
}

/// Loads constants into one register after the other, from the first on.
#[derive(Default)]
pub(super) struct Registers(u32);

impl Registers {
    pub(super) fn load(&mut self, lowering: &mut Lowering<'_>, value: &[u8]) -> u32 {
        self.0 += 1;
        lowering.load_into(self.0, value);
        self.0
    }

    fn load_pair(&mut self, lowering: &mut Lowering<'_>, from: &[u8], to: &[u8]) -> (u32, Option<u32>) {
        let first = self.load(lowering, from);
        (first, (from != to).then(|| self.load(lowering, to)))
    }

    fn load_ports(&mut self, lowering: &mut Lowering<'_>, ports: Option<(u16, u16)>) -> Option<(u32, Option<u32>)> {
        ports.map(|(from, to)| self.load_pair(lowering, &from.to_be_bytes(), &to.to_be_bytes()))
    }
}

fn put_pair(out: &mut Writer, (first, second): (u16, u16), pair: Option<(u32, Option<u32>)>) {
    if let Some((from, to)) = pair {
        out.put_u32(first, from);
        if let Some(to) = to {
            out.put_u32(second, to);
        }
    }
}

fn put_flags(out: &mut Writer, kind: u16, flags: u32, has_ports: bool) {
    let flags = flags | if has_ports { PROTO_SPECIFIED } else { 0 };
    if flags != 0 {
        out.put_u32(kind, flags);
    }
}

/// As the kernel takes it.
pub(super) fn lower(lowering: &mut Lowering<'_>, nat: &Nat) -> Result<(), Malformed> {
    let mut registers = Registers::default();
    match *nat {
        Nat::To { manip, family, addresses, ports, flags } => {
            if addresses.is_some_and(|(from, to)| from > to || from.is_ipv4() != (family == Family::V4)) {
                return Err(Malformed("a range of addresses is reversed or of the other family"));
            }
            let addresses = addresses.map(|(from, to)| registers.load_pair(lowering, &octets(from), &octets(to)));
            let registers = registers.load_ports(lowering, ports);
            emit_nat(lowering, manip, family, addresses, registers, flags);
        }
        Nat::Prefix { manip, network, length } => {
            let family = if network.is_ipv4() { Family::V4 } else { Family::V6 };
            let from = registers.load(lowering, &octets(network));
            let to = registers.load(lowering, &octets(last_of(network, length)));
            emit_nat(lowering, manip, family, Some((from, Some(to))), None, NETMAP);
        }
        Nat::Masquerade { ports, flags } => {
            let registers = registers.load_ports(lowering, ports);
            lowering.emit("masq", |out| {
                put_flags(out, masq::FLAGS, flags, ports.is_some());
                put_pair(out, (masq::REG_PROTO_MIN, masq::REG_PROTO_MAX), registers);
            });
        }
        Nat::Redirect { ports, flags } => {
            let registers = registers.load_ports(lowering, ports);
            lowering.emit("redir", |out| {
                put_pair(out, (redir::REG_PROTO_MIN, redir::REG_PROTO_MAX), registers);
                put_flags(out, redir::FLAGS, flags, ports.is_some());
            });
        }
    }
    Ok(())
}

fn emit_nat(
    lowering: &mut Lowering<'_>,
    manip: Manip,
    family: Family,
    addresses: Option<(u32, Option<u32>)>,
    ports: Option<(u32, Option<u32>)>,
    flags: u32,
) {
    lowering.emit("nat", |out| {
        out.put_u32(nat::TYPE, if manip == Manip::Source { nat::SNAT } else { nat::DNAT });
        out.put_u32(nat::FAMILY, nfproto(family));
        put_pair(out, (nat::REG_ADDR_MIN, nat::REG_ADDR_MAX), addresses);
        put_pair(out, (nat::REG_PROTO_MIN, nat::REG_PROTO_MAX), ports);
        put_flags(out, nat::FLAGS, flags, ports.is_some());
    });
}

/// nft takes a port only behind a match that says which protocol's.
fn check(nat: &Nat, rule: &Alternative) -> Result<(), Unprintable> {
    let ports = match nat {
        Nat::To { ports, .. } | Nat::Masquerade { ports, .. } | Nat::Redirect { ports, .. } => ports,
        Nat::Prefix { .. } => &None,
    };
    if ports.is_some() && !syntax::knows_protocol(rule) {
        return unprintable("a port to translate to without a match on the protocol before it");
    }
    Ok(())
}

fn flag_words(flags: u32) -> Vec<&'static str> {
    let names = [(RANDOM, "random"), (FULLY_RANDOM, "fully-random"), (PERSISTENT, "persistent")];
    names.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect()
}

fn range_text<T: PartialEq + std::fmt::Display>(from: T, to: T) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

/// Behind a port an IPv6 address stands in brackets.
fn address_text((from, to): (IpAddr, IpAddr), bracketed: bool) -> String {
    let one = |address: IpAddr| match address {
        IpAddr::V6(address) if bracketed => format!("[{address}]"),
        address => address.to_string(),
    };
    if from == to { one(from) } else { format!("{}-{}", one(from), one(to)) }
}

const fn word(manip: Manip) -> &'static str {
    match manip {
        Manip::Source => "snat",
        Manip::Destination => "dnat",
    }
}

/// In nft syntax.
pub(super) fn text(nat: &Nat, rule: &Alternative) -> Result<String, Unprintable> {
    check(nat, rule)?;
    let (verb, addresses, ports, flags) = match *nat {
        Nat::Prefix { manip, network, length } => return Ok(format!("{} prefix to {network}/{length}", word(manip))),
        Nat::To { manip, addresses, ports, flags, .. } => (word(manip), addresses, ports, flags),
        Nat::Masquerade { ports, flags } => ("masquerade", None, ports, flags),
        Nat::Redirect { ports, flags } => ("redirect", None, ports, flags),
    };
    let mut out = verb.to_owned();
    if addresses.is_some() || ports.is_some() {
        out.push_str(" to ");
    }
    out.extend(addresses.map(|addresses| address_text(addresses, ports.is_some())));
    out.extend(ports.map(|(from, to)| format!(":{}", range_text(from, to))));
    let flags = flag_words(flags);
    if !flags.is_empty() {
        out.push(' ');
        out.push_str(&flags.join(","));
    }
    Ok(out)
}

/// As libnftables' JSON.
pub(super) fn statement(nat: &Nat, rule: &Alternative) -> Result<Statement<'static>, Unprintable> {
    check(nat, rule)?;
    let flags = |flags: u32| {
        let known =
            [(RANDOM, NATFlag::Random), (FULLY_RANDOM, NATFlag::FullyRandom), (PERSISTENT, NATFlag::Persistent)];
        let found = known.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, flag)| flag).collect();
        (flags != 0).then_some(found)
    };
    let number = |port: u16| Expression::Number(u32::from(port));
    let port = |ports: Option<(u16, u16)>| ports.map(|(from, to)| json::span(number(from), number(to)));
    let address = |address: IpAddr| Expression::String(address.to_string().into());
    Ok(match *nat {
        Nat::Prefix { manip, network, length } => {
            // The crate's type has no room for these flags.
            let prefix = json!({ "prefix": { "addr": network.to_string(), "len": length } });
            json::verbatim(json!({ word(manip): { "addr": prefix, "flags": "netmap", "type_flags": "prefix" } }))
        }
        Nat::To { manip, addresses, ports, flags: bits, .. } => {
            let addr = addresses.map(|(from, to)| json::span(address(from), address(to)));
            let nat = NAT { addr, family: None, port: port(ports), flags: flags(bits) };
            match manip {
                Manip::Source => Statement::SNAT(Some(nat)),
                Manip::Destination => Statement::DNAT(Some(nat)),
            }
        }
        Nat::Masquerade { ports: None, flags: 0 } => Statement::Masquerade(None),
        Nat::Redirect { ports: None, flags: 0 } => Statement::Redirect(None),
        Nat::Masquerade { ports, flags: bits } => {
            Statement::Masquerade(Some(NAT { addr: None, family: None, port: port(ports), flags: flags(bits) }))
        }
        Nat::Redirect { ports, flags: bits } => {
            Statement::Redirect(Some(NAT { addr: None, family: None, port: port(ports), flags: flags(bits) }))
        }
    })
}
