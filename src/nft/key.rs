//! What is known of each thing that a rule can look at: where it lies, how long it is, in which byte order the
//! register holds it, and how its values are written. Lowering and both printers read this one table.

#![forbid(unsafe_code)]

use super::expr::{Base, Ct, Field, Key, Meta};
use super::exthdr;
use super::uapi::{ct, meta, payload};

/// How the values of a key are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Link layer address.
    Ether,
    /// Interface name.
    Interface,
    /// Letters, padded with NULs.
    Name,
    /// Port number.
    Port,
    /// Decimal number.
    Number,
    /// Mark, in hexadecimal.
    Mark,
    /// Protocol number of the transport layer.
    L4proto,
    /// Flags of the TCP header.
    TcpFlags,
    /// ICMP type.
    IcmpType,
    /// ICMPv6 type.
    Icmp6Type,
    /// ICMP code.
    IcmpCode,
    /// ICMPv6 code.
    Icmp6Code,
    /// Bits of a connection's labels.
    Label,
    /// Bits of the conntrack state.
    CtState,
    /// Bits of the conntrack status.
    CtStatus,
    /// Direction of a conntrack entry.
    CtDirection,
    /// Milliseconds.
    Time,
    /// Type of an address (linux/rtnetlink.h, `RTN_*`).
    AddressType,
    /// PACKET_*
    Pkttype,
    /// ARPHRD_*
    LinkType,
    /// Whether a header is there.
    Presence,
    /// Nanoseconds since 1970, UTC.
    Date,
    /// Day of the week.
    Day,
    /// Seconds since midnight, UTC.
    Hour,
    /// NFPROTO_*
    Nfproto,
    /// Bits without a meaning of their own.
    Bits,
}

impl Kind {
    /// The number by which nft names the data type of a set's key (NFTA_SET_KEY_TYPE, "informational purpose only" to
    /// the kernel). Read off what nft 1.0.6 sends for a set of each kind; without it nft cannot print the elements.
    pub const fn set_type(self) -> u32 {
        match self {
            Kind::Number | Kind::Bits | Kind::Presence => 4,
            Kind::Name => 5,
            Kind::Ipv4 => 7,
            Kind::Ipv6 => 8,
            Kind::Ether => 9,
            Kind::L4proto => 12,
            Kind::Port => 13,
            Kind::IcmpType => 14,
            Kind::TcpFlags => 15,
            Kind::Time => 18,
            Kind::Mark => 19,
            Kind::LinkType => 21,
            Kind::Nfproto => 2,
            Kind::CtState => 26,
            Kind::CtDirection => 27,
            Kind::CtStatus => 28,
            Kind::Icmp6Type => 29,
            Kind::Label => 30,
            Kind::Pkttype => 31,
            Kind::IcmpCode => 32,
            Kind::Icmp6Code => 33,
            Kind::AddressType => 38,
            Kind::Interface => 41,
            Kind::Date => 43,
            Kind::Hour => 44,
            Kind::Day => 45,
        }
    }
}

/// Byte order of a value in its register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As on the wire.
    Network,
    /// As the machine counts.
    Host,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Bytes.
    pub len: usize,
    /// Byte order in the register.
    pub order: Order,
    /// How values are written.
    pub kind: Kind,
}

pub(super) const fn facts(len: usize, order: Order, kind: Kind) -> Facts {
    Facts { len, order, kind }
}

/// What is known of `key`.
pub fn of(key: Key) -> Facts {
    use Order::{Host, Network};
    match key {
        Key::Payload(field) => {
            let place = place(field);
            facts(place.len, Network, place.kind)
        }
        Key::Meta(Meta::Iifname | Meta::Oifname) => facts(16, Host, Kind::Interface),
        Key::Meta(Meta::L4proto) => facts(1, Network, Kind::L4proto),
        Key::Meta(Meta::Mark | Meta::SecurityMark) => facts(4, Host, Kind::Mark),
        Key::Meta(Meta::Pkttype) => facts(1, Host, Kind::Pkttype),
        Key::Meta(Meta::Length) => facts(4, Host, Kind::Number),
        Key::Meta(Meta::Iiftype) => facts(2, Host, Kind::LinkType),
        Key::Meta(Meta::Nfproto) => facts(1, Host, Kind::Nfproto),
        Key::Meta(Meta::Skuid | Meta::Skgid | Meta::Cpu | Meta::Iifgroup | Meta::Oifgroup) => {
            facts(4, Host, Kind::Number)
        }
        Key::Meta(Meta::Random) => facts(4, Network, Kind::Number),
        Key::Meta(Meta::Ipsec) => facts(1, Host, Kind::Presence),
        Key::Meta(Meta::Time) => facts(8, Host, Kind::Date),
        Key::Meta(Meta::Day) => facts(1, Host, Kind::Day),
        Key::Meta(Meta::Hour) => facts(4, Host, Kind::Hour),
        Key::Ct(Ct::State, _) => facts(4, Host, Kind::CtState),
        Key::Ct(Ct::Status, _) => facts(4, Host, Kind::CtStatus),
        Key::Ct(Ct::DirectionKey, _) => facts(1, Host, Kind::CtDirection),
        Key::Ct(Ct::Expiration, _) => facts(4, Host, Kind::Time),
        Key::Ct(Ct::Protocol, _) => facts(1, Network, Kind::L4proto),
        Key::Ct(Ct::SrcIp | Ct::DstIp, _) => facts(4, Network, Kind::Ipv4),
        Key::Ct(Ct::SrcIp6 | Ct::DstIp6, _) => facts(16, Network, Kind::Ipv6),
        Key::Ct(Ct::ProtoSrc | Ct::ProtoDst, _) => facts(2, Network, Kind::Port),
        Key::Ct(Ct::Mark | Ct::SecurityMark, _) => facts(4, Host, Kind::Mark),
        Key::Ct(Ct::Packets | Ct::Bytes | Ct::AveragePacket, _) => facts(8, Host, Kind::Number),
        Key::Ct(Ct::Helper, _) => facts(16, Host, Kind::Name),
        Key::Ct(Ct::Labels, _) => facts(16, Host, Kind::Label),
        Key::FibType { .. } => facts(4, Host, Kind::AddressType),
        Key::TcpOption(_) => facts(1, Host, Kind::Presence),
        Key::Circumstance(which) => which.facts(),
        Key::ExtHdr(field) => exthdr::facts(field),
    }
}

/// Where a header field lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// NFT_PAYLOAD_*_HEADER
    pub base: u32,
    /// Bytes from there.
    pub offset: u32,
    /// Bytes.
    pub len: usize,
    /// How values are written.
    pub kind: Kind,
    /// Header and field in nft syntax; `None` for a raw one.
    pub name: Option<(&'static str, &'static str)>,
}

/// Where `field` lies. A raw field that does not begin and end on a byte boundary is rounded outwards; nothing can
/// be lowered from such a one ([`is_whole_bytes`]).
pub fn place(field: Field) -> Place {
    use payload::{LL_HEADER, NETWORK_HEADER, TRANSPORT_HEADER};
    let named = |base, offset, len, kind, header, name| Place { base, offset, len, kind, name: Some((header, name)) };
    match field {
        Field::Ip4Saddr => named(NETWORK_HEADER, 12, 4, Kind::Ipv4, "ip", "saddr"),
        Field::Ip4Daddr => named(NETWORK_HEADER, 16, 4, Kind::Ipv4, "ip", "daddr"),
        Field::Ip4Protocol => named(NETWORK_HEADER, 9, 1, Kind::L4proto, "ip", "protocol"),
        Field::Ip4FragOff => named(NETWORK_HEADER, 6, 2, Kind::Number, "ip", "frag-off"),
        Field::Ip4Length => named(NETWORK_HEADER, 2, 2, Kind::Number, "ip", "length"),
        Field::Ip4Ttl => named(NETWORK_HEADER, 8, 1, Kind::Number, "ip", "ttl"),
        Field::Ip6HopLimit => named(NETWORK_HEADER, 7, 1, Kind::Number, "ip6", "hoplimit"),
        Field::Ip6Saddr => named(NETWORK_HEADER, 8, 16, Kind::Ipv6, "ip6", "saddr"),
        Field::Ip6Daddr => named(NETWORK_HEADER, 24, 16, Kind::Ipv6, "ip6", "daddr"),
        Field::Ip6Length => named(NETWORK_HEADER, 4, 2, Kind::Number, "ip6", "length"),
        Field::TcpSport => named(TRANSPORT_HEADER, 0, 2, Kind::Port, "tcp", "sport"),
        Field::TcpDport => named(TRANSPORT_HEADER, 2, 2, Kind::Port, "tcp", "dport"),
        Field::TcpFlags => named(TRANSPORT_HEADER, 13, 1, Kind::TcpFlags, "tcp", "flags"),
        Field::UdpSport => named(TRANSPORT_HEADER, 0, 2, Kind::Port, "udp", "sport"),
        Field::UdpDport => named(TRANSPORT_HEADER, 2, 2, Kind::Port, "udp", "dport"),
        Field::ThSport => named(TRANSPORT_HEADER, 0, 2, Kind::Port, "th", "sport"),
        Field::ThDport => named(TRANSPORT_HEADER, 2, 2, Kind::Port, "th", "dport"),
        Field::IcmpType => named(TRANSPORT_HEADER, 0, 1, Kind::IcmpType, "icmp", "type"),
        Field::IcmpCode => named(TRANSPORT_HEADER, 1, 1, Kind::IcmpCode, "icmp", "code"),
        Field::Icmp6Type => named(TRANSPORT_HEADER, 0, 1, Kind::Icmp6Type, "icmpv6", "type"),
        Field::Icmp6Code => named(TRANSPORT_HEADER, 1, 1, Kind::Icmp6Code, "icmpv6", "code"),
        Field::EspSpi => named(TRANSPORT_HEADER, 0, 4, Kind::Number, "esp", "spi"),
        Field::AhHdrlength => named(TRANSPORT_HEADER, 1, 1, Kind::Number, "ah", "hdrlength"),
        Field::AhReserved => named(TRANSPORT_HEADER, 2, 2, Kind::Number, "ah", "reserved"),
        Field::AhSpi => named(TRANSPORT_HEADER, 4, 4, Kind::Number, "ah", "spi"),
        Field::CompCpi => named(TRANSPORT_HEADER, 2, 2, Kind::Number, "comp", "cpi"),
        Field::SctpSport => named(TRANSPORT_HEADER, 0, 2, Kind::Port, "sctp", "sport"),
        Field::SctpDport => named(TRANSPORT_HEADER, 2, 2, Kind::Port, "sctp", "dport"),
        Field::DccpSport => named(TRANSPORT_HEADER, 0, 2, Kind::Port, "dccp", "sport"),
        Field::DccpDport => named(TRANSPORT_HEADER, 2, 2, Kind::Port, "dccp", "dport"),
        Field::EtherSaddr => named(LL_HEADER, 6, 6, Kind::Ether, "ether", "saddr"),
        Field::Raw { base, offset, len } => Place {
            base: match base {
                Base::Link => LL_HEADER,
                Base::Network => NETWORK_HEADER,
                Base::Transport => TRANSPORT_HEADER,
            },
            offset: u32::from(offset / 8),
            len: usize::from((offset % 8 + len).div_ceil(8)),
            kind: Kind::Bits,
            name: None,
        },
    }
}

/// Whether a field begins and ends on byte boundaries and fits a register (16 bytes), so that it can be loaded as it
/// is.
pub fn is_whole_bytes(field: Field) -> bool {
    match field {
        Field::Raw { offset, len, .. } => offset % 8 == 0 && len % 8 == 0 && (8..=128).contains(&len),
        _ => true,
    }
}

/// Whether nft reads a port of a conntrack entry behind `ct protocol` and this number; behind others it takes none, and
/// lists it in words that it does not take. Tried for each number with 1.0.6; behind `meta l4proto` it reads one whatever
/// the number.
pub const fn is_protocol_of_ports(number: u8) -> bool {
    matches!(number, 1 | 2 | 6 | 17 | 33 | 50 | 51 | 58 | 108 | 132 | 136)
}

/// Number and name of a meta key.
pub const fn meta(key: Meta) -> (u32, &'static str) {
    match key {
        Meta::Iifname => (meta::IIFNAME, "iifname"),
        Meta::Oifname => (meta::OIFNAME, "oifname"),
        Meta::L4proto => (meta::L4PROTO, "l4proto"),
        Meta::Mark => (meta::MARK, "mark"),
        Meta::SecurityMark => (meta::SECMARK, "secmark"),
        Meta::Pkttype => (meta::PKTTYPE, "pkttype"),
        Meta::Length => (meta::LEN, "length"),
        Meta::Iiftype => (meta::IIFTYPE, "iiftype"),
        Meta::Nfproto => (meta::NFPROTO, "nfproto"),
        Meta::Skuid => (meta::SKUID, "skuid"),
        Meta::Skgid => (meta::SKGID, "skgid"),
        Meta::Cpu => (meta::CPU, "cpu"),
        Meta::Iifgroup => (meta::IIFGROUP, "iifgroup"),
        Meta::Oifgroup => (meta::OIFGROUP, "oifgroup"),
        Meta::Random => (meta::PRANDOM, "random"),
        Meta::Ipsec => (meta::SECPATH, "ipsec"),
        Meta::Time => (meta::TIME_NS, "time"),
        Meta::Day => (meta::TIME_DAY, "day"),
        Meta::Hour => (meta::TIME_HOUR, "hour"),
    }
}

/// Number and name of a conntrack key; the name is what stands behind `ct` and the direction.
pub const fn ct(key: Ct) -> (u32, &'static str) {
    match key {
        Ct::State => (ct::STATE, "state"),
        Ct::Status => (ct::STATUS, "status"),
        Ct::DirectionKey => (ct::KEY_DIRECTION, "direction"),
        Ct::Expiration => (ct::EXPIRATION, "expiration"),
        Ct::Protocol => (ct::PROTOCOL, "protocol"),
        Ct::SrcIp => (ct::SRC_IP, "ip saddr"),
        Ct::DstIp => (ct::DST_IP, "ip daddr"),
        Ct::SrcIp6 => (ct::SRC_IP6, "ip6 saddr"),
        Ct::DstIp6 => (ct::DST_IP6, "ip6 daddr"),
        Ct::ProtoSrc => (ct::PROTO_SRC, "proto-src"),
        Ct::ProtoDst => (ct::PROTO_DST, "proto-dst"),
        Ct::Mark => (ct::MARK, "mark"),
        Ct::SecurityMark => (ct::SECMARK, "secmark"),
        Ct::Packets => (ct::PKTS, "packets"),
        Ct::Bytes => (ct::BYTES, "bytes"),
        Ct::AveragePacket => (ct::AVGPKT, "avgpkt"),
        Ct::Helper => (ct::HELPER, "helper"),
        Ct::Labels => (ct::LABELS, "label"),
    }
}
