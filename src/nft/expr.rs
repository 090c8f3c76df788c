//! What a translated rule is made of: typed nf_tables expressions. The netlink batch, the nft syntax and the
//! libnftables JSON all come from this one list.

#![forbid(unsafe_code)]

pub use super::assign::{Assign, Mark, SetField, Shift};
use super::circumstance::Circumstance;

pub use super::divert::Divert;
use super::exthdr::ExtHdr;
use super::key;
pub use super::nat::{Manip, Nat};
pub use super::reject::Reject;
use super::uapi::payload;
use crate::family::Family;

/// One alternative of a rule: its expressions in order. A rule whose matches cannot be said in one conjunction is a
/// list of alternatives that exclude each other, so that exactly one of them acts on a packet.
pub type Alternative = Vec<Expr>;

/// One expression or statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Goes on only for packets that match.
    Match(Match),
    /// Counts packets and bytes of the network header's length, as iptables does.
    Counter {
        /// Start value.
        packets: u64,
        /// Start value.
        bytes: u64,
    },
    /// Token bucket.
    Limit(Limit),
    /// Goes on until so many bytes have been seen.
    Quota {
        /// Bytes of all packets together, at most `i64::MAX`.
        bytes: u64,
        /// Goes on from there on instead.
        over: bool,
    },
    /// Writes to the kernel log (`level` …) or to a nfnetlink_log group.
    Log(Log),
    /// No connection tracking for this packet.
    Notrack,
    /// Sets the conntrack zone, before conntrack looks at the packet.
    CtZone {
        /// Zone id.
        zone: u16,
        /// `None`: both directions.
        direction: Option<Direction>,
    },
    /// `mark = (mark & !mask) ^ value`.
    MarkSet {
        /// Bits to flip after clearing.
        value: u32,
        /// Bits to clear.
        mask: u32,
    },
    /// Writes a mark, the priority, or a part of the packet.
    Assign(Assign),
    /// Turns rule tracing on for the packet.
    TraceSet,
    /// Address translation.
    Nat(Nat),
    /// To a program or a neighbour.
    Divert(Divert),
    /// Drops the packet and tells its sender.
    Reject(Reject),
    /// Does what a verdict map has for the packet, and goes on where it has nothing.
    VerdictMap {
        /// What is looked up.
        key: Key,
        /// The map's name, in the same table.
        map: String,
    },
    /// What happens to the packet; always last.
    Verdict(Verdict),
}

impl Expr {
    /// Whether a match on `key` may say something else after this.
    pub fn changes(&self, key: Key) -> bool {
        match self {
            Expr::MarkSet { .. } => matches!(
                key,
                Key::Meta(Meta::Mark)
                    | Key::Circumstance(super::circumstance::Circumstance::WayBack { mark: true, .. })
            ),
            Expr::Assign(assign) => assign.changes(key),
            _ => false,
        }
    }
}

/// A verdict of nf_tables (linux/netfilter/nf_tables.h, `enum nft_verdicts`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// NF_ACCEPT
    Accept,
    /// NF_DROP
    Drop,
    /// NFT_RETURN
    Return,
    /// NFT_JUMP to a chain of the same table.
    Jump(String),
    /// NFT_GOTO to a chain of the same table.
    Goto(String),
}

/// Direction of a conntrack entry (`enum ip_conntrack_dir`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// IP_CT_DIR_ORIGINAL
    Original,
    /// IP_CT_DIR_REPLY
    Reply,
}

/// `key & mask OP value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// What is looked at.
    pub key: Key,
    /// As long as the key; `None`: all of it.
    pub mask: Option<Vec<u8>>,
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub value: Value,
}

/// Comparison (`enum nft_cmp_ops`). With [`Value::Range`] and [`Value::Set`] only `Eq` (in) and `Ne` (not in).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// ==
    Eq,
    /// !=
    Ne,
    /// <
    Lt,
    /// <=
    Le,
    /// >
    Gt,
    /// >=
    Ge,
}

/// The right-hand side. Bytes are as the register holds them: network order for payload, host order for meta marks,
/// conntrack numbers and fib types. An interface name shorter than 16 bytes without a terminating NUL is a prefix
/// (`eth+`); padded with NULs to 16 it is exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// One value.
    Bytes(Vec<u8>),
    /// From, to, both within.
    Range(Vec<u8>, Vec<u8>),
    /// An anonymous constant set. Elements must not overlap.
    Set(Vec<Element>),
}

/// A member of an anonymous set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// One value.
    One(Vec<u8>),
    /// From, to, both within.
    Range(Vec<u8>, Vec<u8>),
}

/// What a match looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A field of a header.
    Payload(Field),
    /// Of the packet's metadata.
    Meta(Meta),
    /// Of its conntrack entry.
    Ct(Ct, Option<Direction>),
    /// The answer of a route lookup: type of the source (`saddr`) or destination address, optionally bound to the
    /// input (`iif`) or output (`oif`) interface.
    FibType {
        /// Looks up the source address; else the destination address.
        saddr: bool,
        /// Only addresses of the input interface.
        iif: bool,
        /// Only addresses of the output interface.
        oif: bool,
    },
    /// Whether a TCP option of this kind is there (1 byte, 0 or 1).
    TcpOption(u8),
    /// Of the packet's route, its socket, what IPsec has done with it, …
    Circumstance(Circumstance),
    /// A field of an IPv6 extension header.
    ExtHdr(ExtHdr),
}

/// `enum nft_meta_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Input interface's name, 16 bytes.
    Iifname,
    /// Output interface's name, 16 bytes.
    Oifname,
    /// Transport protocol, 1 byte.
    L4proto,
    /// skb mark, 4 bytes, host order.
    Mark,
    /// Security mark, 4 bytes, host order. nft takes it only with a mask of less than all bits.
    SecurityMark,
    /// PACKET_HOST and so on (linux/if_packet.h), 1 byte.
    Pkttype,
    /// Packet's length, 4 bytes, host order.
    Length,
    /// Hardware type of the input interface (linux/if_arp.h), 2 bytes, host order.
    Iiftype,
    /// 1 byte.
    Nfproto,
    /// Owner of the sending socket's file, 4 bytes, host order; no answer without one.
    Skuid,
    /// Its group.
    Skgid,
    /// Number of the processor, 4 bytes, host order.
    Cpu,
    /// Group of the input interface, 4 bytes, host order.
    Iifgroup,
    /// Group of the output interface, 4 bytes, host order.
    Oifgroup,
    /// A random number of 32 bits; it has no byte order.
    Random,
    /// Whether IPsec has unpacked the packet, 1 byte.
    Ipsec,
    /// Nanoseconds since 1970, 8 bytes, host order.
    Time,
    /// Day of the week, 0 Sunday, in the kernel's time zone; 1 byte.
    Day,
    /// Seconds since midnight UTC, 4 bytes, host order.
    Hour,
}

/// `enum nft_ct_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    /// Bit mask, 4 bytes, host order (`NF_CT_STATE_BIT`).
    State,
    /// Bit mask, 4 bytes, host order (`enum ip_conntrack_status`).
    Status,
    /// 1 byte: 0 original, 1 reply.
    DirectionKey,
    /// Seconds are milliseconds here: 4 bytes, host order.
    Expiration,
    /// Layer 4 protocol, 1 byte; needs a direction.
    Protocol,
    /// Source address, IPv4; needs a direction.
    SrcIp,
    /// Destination address, IPv4; needs a direction.
    DstIp,
    /// Source address, IPv6; needs a direction.
    SrcIp6,
    /// Destination address, IPv6; needs a direction.
    DstIp6,
    /// Source port, 2 bytes, network order; needs a direction.
    ProtoSrc,
    /// Destination port, 2 bytes, network order; needs a direction.
    ProtoDst,
    /// Conntrack mark, 4 bytes, host order.
    Mark,
    /// The connection's security mark, 4 bytes, host order. nft takes it only with a mask of less than all bits.
    SecurityMark,
    /// Packets counted in one direction, or in both: 8 bytes, host order.
    Packets,
    /// Bytes counted in one direction, or in both: 8 bytes, host order.
    Bytes,
    /// Bytes for each packet: 8 bytes, host order.
    AveragePacket,
    /// Name of the helper that has foretold the connection, 16 bytes.
    Helper,
    /// One bit for each label, 16 bytes, host order.
    Labels,
}

/// Header fields that have a name in nft syntax (nft(8), PAYLOAD EXPRESSIONS), and raw ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Field {
    Ip4Saddr,
    Ip4Daddr,
    Ip4Protocol,
    Ip4FragOff,
    Ip4Length,
    Ip4Ttl,
    Ip6Saddr,
    Ip6Daddr,
    Ip6Length,
    Ip6HopLimit,
    TcpSport,
    TcpDport,
    TcpFlags,
    UdpSport,
    UdpDport,
    /// Source port of whatever transport protocol (`th sport`).
    ThSport,
    /// Destination port of whatever transport protocol (`th dport`).
    ThDport,
    IcmpType,
    IcmpCode,
    Icmp6Type,
    Icmp6Code,
    EtherSaddr,
    EspSpi,
    AhHdrlength,
    AhReserved,
    AhSpi,
    CompCpi,
    SctpSport,
    SctpDport,
    DccpSport,
    DccpDport,
    /// `@base,offset,length`, in bits.
    Raw {
        base: Base,
        offset: u16,
        len: u16,
    },
}

impl Field {
    /// Source and destination in a packet of that family.
    pub fn addresses(family: Family) -> (Self, Self) {
        match family {
            Family::V4 => (Self::Ip4Saddr, Self::Ip4Daddr),
            Family::V6 => (Self::Ip6Saddr, Self::Ip6Daddr),
        }
    }

    /// Whether it lies in the transport header.
    pub fn is_of_transport(self) -> bool {
        key::place(self).base == payload::TRANSPORT_HEADER
    }
}

/// `enum nft_payload_bases`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Link layer.
    Link,
    /// Network header.
    Network,
    /// Transport header.
    Transport,
}

/// Token bucket of nft's `limit` (`enum nft_limit_attributes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Packets for each `unit`.
    pub rate: u64,
    /// Seconds in the unit: 1, 60, 3600, 86400.
    pub unit: u64,
    /// Packets above the rate that pass at once.
    pub burst: u32,
    /// Matches above the limit instead of below.
    pub invert: bool,
}

/// LOG or NFLOG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// To the kernel's log.
    Kernel {
        /// Printable text, at most 29 bytes for LOG.
        prefix: Option<String>,
        /// syslog level, 0 (emerg) to 7 (debug).
        level: u8,
        /// NF_LOG_* bits (linux/netfilter/nf_log.h): TCPSEQ 1, TCPOPT 2, IPOPT 4, UID 8, MACDECODE 32.
        flags: u32,
    },
    /// To the audit system.
    Audit,
    /// To a nfnetlink_log group.
    Group {
        /// Group number.
        group: u16,
        /// At most 63 bytes for NFLOG.
        prefix: Option<String>,
        /// Bytes of each packet; 0: all.
        snaplen: Option<u32>,
        /// Packets gathered before they are sent.
        threshold: Option<u16>,
    },
}
