//! What nft syntax and the libnftables JSON have in common: how a match is said.

#![forbid(unsafe_code)]

use super::canonical::canonical;
use super::circumstance::Circumstance;
use super::expr::{Alternative, Base, Ct, Direction, Element, Expr, Field, Key, Match, Meta, Op, Value};
use super::exthdr;
use super::key::{self, Facts, Kind, Order};
use super::names;
use std::fmt;
use std::net::IpAddr;

/// Why something cannot be printed: one clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unprintable(pub String);

impl fmt::Display for Unprintable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nft syntax cannot say it: {}", self.0)
    }
}

impl std::error::Error for Unprintable {}

pub(super) fn unprintable<T>(why: &str) -> Result<T, Unprintable> {
    Err(Unprintable(why.to_owned()))
}

/// The left side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Field(&'static str, &'static str),
    Raw {
        base: Base,
        offset: u16,
        len: u16,
    },
    Meta(&'static str),
    Ct(&'static str, Option<Direction>),
    Fib {
        saddr: bool,
        iif: bool,
        oif: bool,
    },
    TcpOption(u8),
    Circumstance(Circumstance),
    /// Of IPv6; without a field: whether it is there.
    ExtHdr(&'static str, Option<&'static str>),
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Atom {
    Decimal(u64),
    /// A number and the digits that it is written with at least.
    Hex(u128, usize),
    Symbol(&'static str),
    Address(IpAddr),
    Prefix(IpAddr, usize),
    /// Of a network card.
    Ether(String),
    /// Between quotes.
    Name(String),
    /// Milliseconds.
    Time(u32),
    /// Symbols for bits, never empty.
    Flags(Vec<Atom>),
    Present(bool),
}

/// The right side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Right {
    One(Atom),
    Range(Atom, Atom),
    Set(Vec<(Atom, Option<Atom>)>),
    /// Any of these bits is set.
    AnyOf(Vec<Atom>),
}

/// A match as syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub left: Left,
    pub mask: Option<Atom>,
    pub op: Op,
    pub right: Right,
}

/// IPPROTO_* (linux/in.h) that matter to the printers.
mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const COMP: u8 = 108;
    pub const SCTP: u8 = 132;
}

/// ARPHRD_ETHER (linux/if_arp.h)
const ARPHRD_ETHER: u16 = 1;

/// Protocols that nft's grammar has words for, so that no /etc/protocols is needed.
const PROTOCOLS: &[(u64, &str)] = &[(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "icmpv6"), (132, "sctp"), (33, "dccp")];

/// `enum ip_conntrack_info` as NF_CT_STATE_BIT (linux/netfilter/nf_conntrack_common.h)
const CT_STATES: &[(u64, &str)] = &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];

/// `enum ip_conntrack_status` (linux/netfilter/nf_conntrack_common.h)
const CT_STATUSES: &[(u64, &str)] = &[
    (0x1, "expected"),
    (0x2, "seen-reply"),
    (0x4, "assured"),
    (0x8, "confirmed"),
    (0x10, "snat"),
    (0x20, "dnat"),
    (0x200, "dying"),
];

/// RFC 9293
const TCP_FLAGS: &[(u64, &str)] = &[
    (0x01, "fin"),
    (0x02, "syn"),
    (0x04, "rst"),
    (0x08, "psh"),
    (0x10, "ack"),
    (0x20, "urg"),
    (0x40, "ecn"),
    (0x80, "cwr"),
];

/// RTN_* (linux/rtnetlink.h)
const ADDRESS_TYPES: &[(u64, &str)] = &[
    (0, "unspec"),
    (1, "unicast"),
    (2, "local"),
    (3, "broadcast"),
    (4, "anycast"),
    (5, "multicast"),
    (6, "blackhole"),
    (7, "unreachable"),
    (8, "prohibit"),
];

/// PACKET_* (linux/if_packet.h)
const PACKET_TYPES: &[(u64, &str)] = &[(0, "host"), (1, "broadcast"), (2, "multicast"), (3, "other")];

/// RFC 792 and nft(8)
const ICMP_TYPES: &[(u64, &str)] = &[
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (9, "router-advertisement"),
    (10, "router-solicitation"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
];

/// RFC 4443, RFC 4861 and nft(8)
const ICMP6_TYPES: &[(u64, &str)] = &[
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
];

const DAYS: &[(u64, &str)] =
    &[(0, "Sunday"), (1, "Monday"), (2, "Tuesday"), (3, "Wednesday"), (4, "Thursday"), (5, "Friday"), (6, "Saturday")];

/// In a second.
const NANOSECONDS: u64 = 1_000_000_000;

const DIRECTIONS: &[(u64, &str)] = &[(0, "original"), (1, "reply")];

/// What the matches so far have established; nft would add a match of its own to a field whose header it does not
/// know to be there, so such a field is written as a raw one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    protocol: Option<u8>,
    ethernet: bool,
}

/// Every match of a rule as syntax, in order.
pub(super) fn relations(rule: &Alternative) -> Result<Vec<Relation>, Unprintable> {
    let mut context = Context::default();
    let matches = rule.iter().filter_map(|expr| match expr {
        Expr::Match(found) => Some(found),
        _ => None,
    });
    matches.map(|found| relation(found, &mut context)).collect()
}

/// Whether the matches of a rule say which transport protocol it is for.
pub(super) fn knows_protocol(rule: &Alternative) -> bool {
    let mut context = Context::default();
    for expr in rule {
        if let Expr::Match(found) = expr {
            context.learn(found);
        }
    }
    context.protocol.is_some()
}

fn relation(found: &Match, context: &mut Context) -> Result<Relation, Unprintable> {
    let found = &*canonical(found);
    let facts = key::of(found.key);
    let left = left(found.key, context)?;
    let facts = match left {
        Left::Raw { .. } => Facts { kind: Kind::Bits, ..facts },
        _ => facts,
    };
    context.learn(found);
    let (mask, value) = (found.mask.as_deref(), &found.value);
    if facts.kind == Kind::Label && !is_one_label(found) {
        return unprintable("labels of a connection other than whether it has one");
    }
    if let (Some(mask), Value::Bytes(bytes)) = (mask, value)
        && let Some(relation) = masked(left, facts, mask, found.op, bytes)
    {
        return Ok(relation);
    }
    let mask = mask.map(|mask| atom(facts, mask)).transpose()?;
    let right = match value {
        Value::Bytes(bytes) => Right::One(atom(facts, bytes)?),
        Value::Range(from, to) => Right::Range(atom(facts, from)?, atom(facts, to)?),
        Value::Set(elements) => Right::Set(elements.iter().map(|item| element(facts, item)).collect::<Result<_, _>>()?),
    };
    Ok(Relation { left, mask, op: found.op, right })
}

/// nft has numbers for single labels only, none for "no label".
fn is_one_label(found: &Match) -> bool {
    let (Some(mask), Value::Bytes(value), Op::Eq | Op::Ne) = (&found.mask, &found.value, found.op) else {
        return false;
    };
    mask == value && mask.iter().map(|byte| byte.count_ones()).sum::<u32>() == 1
}

impl Context {
    fn learn(&mut self, found: &Match) {
        let (Op::Eq, None, Value::Bytes(value)) = (found.op, &found.mask, &found.value) else { return };
        match found.key {
            Key::Meta(Meta::L4proto) | Key::Payload(Field::Ip4Protocol) => self.protocol = value.first().copied(),
            Key::Ct(Ct::Protocol, _) => {
                let known = value.first().copied().filter(|number| key::is_protocol_of_ports(*number));
                self.protocol = known.or(self.protocol);
            }
            Key::Meta(Meta::Iiftype) => self.ethernet = value[..] == ARPHRD_ETHER.to_ne_bytes(),
            _ => {}
        }
    }
}

/// A key that is looked up, with nothing said before.
pub(super) fn looked_up(key: Key) -> Result<Left, Unprintable> {
    left(key, &Context::default())
}

fn left(key: Key, context: &Context) -> Result<Left, Unprintable> {
    Ok(match key {
        Key::Payload(Field::Raw { base, offset, len }) => Left::Raw { base, offset, len },
        Key::Payload(field) => field_left(field, context),
        Key::Meta(Meta::Nfproto) => return unprintable("meta nfproto outside of the inet family"),
        Key::Meta(which) => Left::Meta(key::meta(which).1),
        Key::Ct(Ct::ProtoSrc | Ct::ProtoDst, _) if context.protocol.is_none() => {
            return unprintable("a port of a conntrack entry without a match on the protocol before it");
        }
        Key::Ct(which, direction) => Left::Ct(key::ct(which).1, direction),
        Key::FibType { saddr, iif, oif } => Left::Fib { saddr, iif, oif },
        Key::TcpOption(kind) => Left::TcpOption(kind),
        Key::Circumstance(which) => Left::Circumstance(which),
        Key::ExtHdr(field) => exthdr::left(field)?,
    })
}

fn field_left(field: Field, context: &Context) -> Left {
    let place = key::place(field);
    let named = place.name.filter(|(header, _)| match *header {
        "tcp" => context.protocol == Some(protocol::TCP),
        "udp" => context.protocol == Some(protocol::UDP),
        "icmp" => context.protocol == Some(protocol::ICMP),
        "icmpv6" => context.protocol == Some(protocol::ICMPV6),
        "esp" => context.protocol == Some(protocol::ESP),
        "ah" => context.protocol == Some(protocol::AH),
        "comp" => context.protocol == Some(protocol::COMP),
        "sctp" => context.protocol == Some(protocol::SCTP),
        "dccp" => context.protocol == Some(protocol::DCCP),
        "ether" => context.ethernet,
        _ => true,
    });
    match (named, place.kind) {
        (Some((header, name)), _) => Left::Field(header, name),
        (None, Kind::Port) => Left::Field("th", place.name.map_or("", |(_, name)| name)),
        (None, _) => Left::Raw {
            base: match field {
                Field::EtherSaddr => Base::Link,
                _ => Base::Transport,
            },
            offset: u16::try_from(place.offset * 8).unwrap_or(u16::MAX),
            len: u16::try_from(place.len * 8).unwrap_or(u16::MAX),
        },
    }
}

/// The short forms of a mask: a prefix length, and a list of bits.
fn masked(left: Left, facts: Facts, mask: &[u8], op: Op, value: &[u8]) -> Option<Relation> {
    let relation = |right| Some(Relation { left, mask: None, op, right });
    let within = mask.iter().zip(value).all(|(mask, value)| value & !mask == 0);
    match facts.kind {
        Kind::Ipv4 | Kind::Ipv6 if matches!(op, Op::Eq | Op::Ne) && within => {
            let len = prefix_len(mask)?;
            relation(Right::One(Atom::Prefix(address(value)?, len)))
        }
        Kind::CtState | Kind::CtStatus if op == Op::Ne && value.iter().all(|byte| *byte == 0) => {
            let symbols = if facts.kind == Kind::CtState { CT_STATES } else { CT_STATUSES };
            let bits = flags(u64::try_from(number(facts, mask)).ok()?, symbols)?;
            Some(Relation { left, mask: None, op: Op::Eq, right: Right::AnyOf(bits) })
        }
        _ => None,
    }
}

fn prefix_len(mask: &[u8]) -> Option<usize> {
    let whole = mask.iter().take_while(|byte| **byte == 0xff).count();
    let ones = mask.get(whole).map_or(0, |byte| byte.leading_ones());
    let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let length = whole * 8 + usize::try_from(ones).ok()?;
    (usize::try_from(set).ok()? == length).then_some(length)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

/// Bytes of a register as the number that they are.
pub(super) fn number(facts: Facts, value: &[u8]) -> u128 {
    let append = |sum: u128, byte: &u8| (sum << 8) | u128::from(*byte);
    if facts.order == Order::Host && cfg!(target_endian = "little") {
        value.iter().rev().fold(0, append)
    } else {
        value.iter().fold(0, append)
    }
}

fn element(facts: Facts, element: &Element) -> Result<(Atom, Option<Atom>), Unprintable> {
    match element {
        Element::One(value) => Ok((atom(facts, value)?, None)),
        Element::Range(from, to) => Ok((atom(facts, from)?, Some(atom(facts, to)?))),
    }
}

fn atom(facts: Facts, value: &[u8]) -> Result<Atom, Unprintable> {
    if facts.kind == Kind::Interface {
        return interface(value);
    }
    if facts.kind == Kind::Name {
        return name(value);
    }
    if value.len() != facts.len {
        return unprintable("a value of another length than its key's");
    }
    let number = number(facts, value);
    let small = u64::try_from(number).unwrap_or(u64::MAX);
    Ok(match facts.kind {
        Kind::Ipv4 | Kind::Ipv6 => match address(value) {
            Some(address) => Atom::Address(address),
            None => return unprintable("an address of another length than its family's"),
        },
        Kind::Ether => Atom::Ether(value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")),
        Kind::Port | Kind::Number | Kind::IcmpCode | Kind::Icmp6Code | Kind::LinkType | Kind::Nfproto => {
            Atom::Decimal(small)
        }
        Kind::Mark => Atom::Hex(number, 8),
        Kind::Label => Atom::Decimal(u64::from(number.trailing_zeros())),
        Kind::Bits | Kind::Interface | Kind::Name => Atom::Hex(number, 1),
        Kind::L4proto => symbol(small, PROTOCOLS),
        Kind::IcmpType => symbol(small, ICMP_TYPES),
        Kind::Icmp6Type => symbol(small, ICMP6_TYPES),
        Kind::CtDirection => symbol(small, DIRECTIONS),
        Kind::AddressType => symbol(small, ADDRESS_TYPES),
        Kind::Pkttype => symbol(small, PACKET_TYPES),
        Kind::TcpFlags => bits(small, TCP_FLAGS),
        Kind::CtState => bits(small, CT_STATES),
        Kind::CtStatus => bits(small, CT_STATUSES),
        Kind::Time => Atom::Time(u32::try_from(number).unwrap_or(u32::MAX)),
        Kind::Presence => Atom::Present(number != 0),
        Kind::Day => symbol(small, DAYS),
        Kind::Hour => Atom::Decimal(small),
        Kind::Date if small % NANOSECONDS == 0 => Atom::Decimal(small / NANOSECONDS),
        Kind::Date => return unprintable("a time with fractions of a second"),
    })
}

fn interface(value: &[u8]) -> Result<Atom, Unprintable> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    let exact = end < value.len();
    let name = value.get(..end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    if !names::interface_ok(name) {
        return unprintable("a name of an interface with characters that nft would take otherwise");
    }
    Ok(Atom::Name(if exact { name.to_owned() } else { format!("{name}*") }))
}

fn name(value: &[u8]) -> Result<Atom, Unprintable> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    let name = value.get(..end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return unprintable("a name with characters that nft would take otherwise");
    }
    Ok(Atom::Name(name.to_owned()))
}

fn symbol(number: u64, symbols: &[(u64, &'static str)]) -> Atom {
    symbols.iter().find(|(value, _)| *value == number).map_or(Atom::Decimal(number), |(_, name)| Atom::Symbol(name))
}

fn bits(number: u64, symbols: &[(u64, &'static str)]) -> Atom {
    flags(number, symbols).map_or(Atom::Hex(0, 1), Atom::Flags)
}

/// A name for each bit, a number for the nameless rest; `None` where no bit is set.
fn flags(number: u64, symbols: &[(u64, &'static str)]) -> Option<Vec<Atom>> {
    let mut found: Vec<Atom> =
        symbols.iter().filter(|(bit, _)| number & bit != 0).map(|(_, name)| Atom::Symbol(name)).collect();
    let rest = symbols.iter().fold(number, |rest, (bit, _)| rest & !bit);
    if rest != 0 {
        found.push(Atom::Hex(u128::from(rest), 1));
    }
    (!found.is_empty()).then_some(found)
}

/// syslog's levels by number, as nft names them.
pub(super) const LOG_LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

/// NF_LOG_* (linux/netfilter/nf_log.h) as nft names them.
pub(super) const LOG_FLAGS: &[(u32, &str)] =
    &[(0x01, "tcp sequence"), (0x02, "tcp options"), (0x04, "ip options"), (0x08, "skuid"), (0x20, "ether")];

/// NF_LOG_MASK (linux/netfilter/nf_log.h)
pub(super) const LOG_ALL: u32 = 0x2f;

/// The unit of a limit.
pub(super) fn limit_unit(seconds: u64) -> Result<&'static str, Unprintable> {
    match seconds {
        1 => Ok("second"),
        60 => Ok("minute"),
        3600 => Ok("hour"),
        86400 => Ok("day"),
        _ => unprintable("a limit in another unit than second, minute, hour or day"),
    }
}

pub(super) fn checked_chain(name: &str) -> Result<&str, Unprintable> {
    if names::chain_name_ok(name) { Ok(name) } else { unprintable("the name of a chain that nft would take otherwise") }
}

pub(super) fn checked_prefix(prefix: &str) -> Result<&str, Unprintable> {
    if names::log_prefix_ok(prefix) { Ok(prefix) } else { unprintable("a log prefix that nft would take otherwise") }
}
