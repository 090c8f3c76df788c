//! What a rule writes: into marks, the priority and the packet itself.

#![forbid(unsafe_code)]

use super::circumstance::Circumstance;
use super::expr::{Field, Key, Meta};
use super::json::{binary, ct, mangle, meta, number_of, text, verbatim};
use super::key;
use super::lower::Lowering;
use super::syntax::{Unprintable, unprintable};
use super::uapi::{bitwise, ct as ct_key, exthdr, meta as meta_key, payload, reg};
use super::wire::Writer;
use nftables::expr::{BinaryOperation, Expression, Map, NamedExpression, Payload, PayloadField, SetItem};
use nftables::stmt::Statement;
use serde_json::json;

/// One thing that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assign {
    /// `to = shift(from & mask ^ xor)`. A packet without a conntrack entry whose mark is read ends the rule; one whose
    /// mark is written is left alone.
    Mark {
        /// What is written.
        to: Mark,
        /// What is read; nothing is where `mask` is 0 and nothing is shifted.
        from: Mark,
        /// Bits that are kept.
        mask: u32,
        /// Bits that are flipped then.
        xor: u32,
        /// Where the bits are moved to at last.
        shift: Option<Shift>,
    },
    /// The other's security mark goes here. A packet without a conntrack entry ends the rule where the connection's is read,
    /// and is left alone where it is written.
    SecurityMark(Mark),
    /// The packet's priority, a class of tc(8) with the major number in the upper half.
    Priority(u32),
    /// Gives the connection the label of this number, 0 to 127, beside those that it has. A packet without a conntrack
    /// entry is left alone.
    Label(u8),
    /// A field of the packet, checksum included.
    Field {
        /// Which.
        field: SetField,
        /// What is written; as many bits as the field has.
        value: u8,
    },
    /// So many more (or less) hops of IPv6 than there are, from 0 to 255.
    HopLimitBy(i16),
    /// The first TCP option of this kind becomes NOPs, checksum included (kernel 5.18 on).
    StripTcpOption(u8),
}

/// A mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The packet's.
    Packet,
    /// Its connection's.
    Connection,
}

/// Moves the bits of a mark; what is pushed out is lost (kernel 5.6 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// Towards the upper bits, 1 to 31 places.
    Left(u8),
    /// Towards the lower bits, 1 to 31 places.
    Right(u8),
}

/// Fields that can be written in words of nft syntax that are read back as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetField {
    /// Upper 6 bits of the IPv4 type of service (RFC 2474).
    Ip4Dscp,
    /// Lower 2 bits of the IPv4 type of service (RFC 3168).
    Ip4Ecn,
    /// Upper 6 bits of the IPv6 traffic class.
    Ip6Dscp,
    /// Lower 2 bits of the IPv6 traffic class.
    Ip6Ecn,
    /// IPv4 time to live.
    Ip4Ttl,
    /// IPv6 hop limit.
    Ip6HopLimit,
}

impl SetField {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Ip4Dscp, Self::Ip4Ecn, Self::Ip6Dscp, Self::Ip6Ecn, Self::Ip4Ttl, Self::Ip6HopLimit];
}

/// How a field is written: whole units that the checksum is made of (RFC 1071) are read, changed and written.
struct Place {
    header: &'static str,
    name: &'static str,
    /// Bytes from the network header.
    offset: u32,
    /// As many bytes as are written; bits that stay.
    keep: &'static [u8],
    /// Bits of the unit's number below the field.
    shift: u8,
    /// The header has a checksum, at this offset.
    checksum: Option<u32>,
}

fn place(field: SetField) -> Place {
    let (header, name, offset, keep, shift): (_, _, _, &[u8], _) = match field {
        SetField::Ip4Dscp => ("ip", "dscp", 0, &[0xff, 0x03], 2),
        SetField::Ip4Ecn => ("ip", "ecn", 0, &[0xff, 0xfc], 0),
        SetField::Ip6Dscp => ("ip6", "dscp", 0, &[0xf0, 0x3f], 6),
        SetField::Ip6Ecn => ("ip6", "ecn", 1, &[0xcf], 4),
        SetField::Ip4Ttl => ("ip", "ttl", 8, &[0x00, 0xff], 8),
        SetField::Ip6HopLimit => ("ip6", "hoplimit", 7, &[0x00], 0),
    };
    Place { header, name, offset, keep, shift, checksum: (header == "ip").then_some(IP4_CHECKSUM) }
}

/// Offset of the TCP header's checksum (RFC 9293, 3.1): the first of its bytes that change with its options.
const TCP_CHECKSUM: u32 = 16;

/// Length of the shortest IPv4 header (RFC 791, 3.1); IPv6's is longer.
const IP4_HEADER: u32 = 20;

/// Offset of the IPv4 header's checksum (RFC 791, 3.1).
const IP4_CHECKSUM: u32 = 10;

impl Place {
    /// Whether some of `len` bytes from `offset` on are written, the checksum with the rest.
    fn touches(&self, offset: u32, len: u32) -> bool {
        let kept = |at: u32| self.keep.get(at as usize).is_none_or(|keep| *keep == 0xff);
        let summed = |at: u32| self.checksum.is_some_and(|sum| (sum..sum + 2).contains(&at));
        let end = offset.saturating_add(len);
        (offset..end).any(|at| summed(at) || at.checked_sub(self.offset).is_some_and(|at| !kept(at)))
    }
}

impl Assign {
    /// Whether a match on `key` may say something else after this.
    pub fn changes(&self, key: Key) -> bool {
        match (self, key) {
            (Assign::Mark { to: Mark::Packet, .. }, Key::Meta(Meta::Mark)) => true,
            (Assign::Mark { to: Mark::Connection, .. }, Key::Ct(super::expr::Ct::Mark, _)) => true,
            (Assign::SecurityMark(Mark::Packet), Key::Meta(Meta::SecurityMark)) => true,
            (Assign::SecurityMark(Mark::Connection), Key::Ct(super::expr::Ct::SecurityMark, _)) => true,
            (Assign::Label(_), Key::Ct(super::expr::Ct::Labels, _)) => true,
            (Assign::Field { field, .. }, Key::Payload(read)) => {
                let (here, there) = (place(*field), key::place(read));
                let len = u32::try_from(there.len).unwrap_or(u32::MAX);
                there.base == payload::NETWORK_HEADER && here.touches(there.offset, len)
            }
            (Assign::HopLimitBy(_), Key::Payload(_)) => {
                Assign::Field { field: SetField::Ip6HopLimit, value: 0 }.changes(key)
            }
            // The way back is looked for by the mark, and by the TOS.
            (Assign::Mark { to: Mark::Packet, .. }, Key::Circumstance(Circumstance::WayBack { mark, .. })) => mark,
            (Assign::Field { field, .. }, Key::Circumstance(Circumstance::WayBack { .. })) => {
                matches!(field, SetField::Ip4Dscp | SetField::Ip6Dscp | SetField::Ip4Ecn | SetField::Ip6Ecn)
            }
            (Assign::StripTcpOption(_), Key::TcpOption(_)) => true,
            // Options and the checksum lie in the transport header, which reads from the network header's place reach too.
            (Assign::StripTcpOption(_), Key::Payload(read)) => {
                let there = key::place(read);
                let end = there.offset.saturating_add(u32::try_from(there.len).unwrap_or(u32::MAX));
                match there.base {
                    payload::TRANSPORT_HEADER => end > TCP_CHECKSUM,
                    payload::NETWORK_HEADER => end > IP4_HEADER,
                    _ => false,
                }
            }
            _ => false,
        }
    }

    pub(super) fn lower(&self, out: &mut Lowering<'_>) {
        match *self {
            Assign::Mark { to, mask: 0, xor, shift: None, .. } => {
                out.load_constant(&xor.to_ne_bytes());
                store_mark(out, to);
            }
            Assign::Mark { to, from, mask, xor, shift } => {
                load_mark(out, from);
                if (mask, xor) != (u32::MAX, 0) {
                    out.bitwise(&mask.to_ne_bytes(), &xor.to_ne_bytes());
                }
                if let Some(shift) = shift {
                    lower_shift(out, shift);
                }
                store_mark(out, to);
            }
            Assign::SecurityMark(to) => {
                let (packet, connection) = (meta_key::SECMARK, ct_key::SECMARK);
                let (meta, ct) = match to {
                    Mark::Packet => (meta_key::SREG, ct_key::DREG),
                    Mark::Connection => (meta_key::DREG, ct_key::SREG),
                };
                let of_packet = |out: &mut Writer| {
                    out.put_u32(meta_key::KEY, packet);
                    out.put_u32(meta, reg::ONE);
                };
                let of_connection = |out: &mut Writer| {
                    out.put_u32(ct_key::KEY, connection);
                    out.put_u32(ct, reg::ONE);
                };
                match to {
                    Mark::Packet => {
                        out.emit("ct", of_connection);
                        out.emit("meta", of_packet);
                    }
                    Mark::Connection => {
                        out.emit("meta", of_packet);
                        out.emit("ct", of_connection);
                    }
                }
            }
            Assign::Priority(class) => {
                out.load_constant(&class.to_ne_bytes());
                out.emit("meta", |out| {
                    out.put_u32(meta_key::KEY, meta_key::PRIORITY);
                    out.put_u32(meta_key::SREG, reg::ONE);
                });
            }
            Assign::Label(bit) => {
                out.load_constant(&1u128.checked_shl(u32::from(bit)).unwrap_or_default().to_ne_bytes());
                out.emit("ct", |out| {
                    out.put_u32(ct_key::KEY, ct_key::LABELS);
                    out.put_u32(ct_key::SREG, reg::ONE);
                });
            }
            Assign::Field { field, value } => lower_field(out, &place(field), value),
            Assign::HopLimitBy(by) => {
                let place = place(SetField::Ip6HopLimit);
                load_payload(out, &place);
                let pairs = hops(by).map(|(from, to)| (vec![from], vec![to])).collect();
                out.image(key::of(Key::Payload(Field::Ip6HopLimit)), pairs);
                store_payload(out, &place);
            }
            Assign::StripTcpOption(kind) => out.emit("exthdr", |out| {
                out.put_u8(exthdr::TYPE, kind);
                out.put_u32(exthdr::OP, exthdr::OP_TCPOPT);
            }),
        }
    }

    pub(super) fn text(&self) -> Result<String, Unprintable> {
        Ok(match *self {
            Assign::Mark { to, mask: 0, xor, shift: None, .. } => format!("{} set {xor:#010x}", mark_text(to)),
            Assign::Mark { to, from, mask, xor, shift } => {
                let from = mark_text(from);
                let bits = match (mask, xor) {
                    (u32::MAX, 0) => from.to_owned(),
                    (u32::MAX, _) => format!("{from} ^ {xor:#010x}"),
                    (_, 0) => format!("{from} & {mask:#010x}"),
                    _ => format!("{from} & {mask:#010x} ^ {xor:#010x}"),
                };
                let value = match shift {
                    None => bits,
                    Some(Shift::Left(places)) => format!("({bits}) << {places}"),
                    Some(Shift::Right(places)) => format!("({bits}) >> {places}"),
                };
                format!("{} set {value}", mark_text(to))
            }
            Assign::SecurityMark(Mark::Packet) => "meta secmark set ct secmark".to_owned(),
            Assign::SecurityMark(Mark::Connection) => "ct secmark set meta secmark".to_owned(),
            Assign::Label(bit) => format!("ct label set {bit}"),
            Assign::Priority(class) => format!("meta priority set {}", class_text(class)),
            Assign::Field { field, value } => {
                let Place { header, name, .. } = place(field);
                format!("{header} {name} set {value}")
            }
            Assign::HopLimitBy(by) => {
                let pairs: Vec<String> = hops(by).map(|(from, to)| format!("{from} : {to}")).collect();
                format!("ip6 hoplimit set ip6 hoplimit map {{ {} }}", pairs.join(", "))
            }
            Assign::StripTcpOption(kind) => format!("reset tcp option {kind}"),
        })
    }

    pub(super) fn json(&self) -> Result<Statement<'static>, Unprintable> {
        Ok(match *self {
            Assign::Mark { to, mask: 0, xor, shift: None, .. } => mangle(mark_json(to)?, number_of(u128::from(xor))),
            Assign::Mark { to, from, mask, xor, shift } => {
                let mut value = mark_json(from)?;
                if mask != u32::MAX {
                    value = binary(BinaryOperation::AND(value, number_of(u128::from(mask))));
                }
                if xor != 0 {
                    value = binary(BinaryOperation::XOR(value, number_of(u128::from(xor))));
                }
                value = match shift {
                    None => value,
                    Some(Shift::Left(places)) => {
                        binary(BinaryOperation::LSHIFT(value, Expression::Number(u32::from(places))))
                    }
                    Some(Shift::Right(places)) => {
                        binary(BinaryOperation::RSHIFT(value, Expression::Number(u32::from(places))))
                    }
                };
                mangle(mark_json(to)?, value)
            }
            Assign::SecurityMark(to) => {
                let (packet, connection) =
                    (json!({ "meta": { "key": "secmark" } }), json!({ "ct": { "key": "secmark" } }));
                let (key, value) = if to == Mark::Packet { (packet, connection) } else { (connection, packet) };
                verbatim(json!({ "mangle": { "key": key, "value": value } }))
            }
            Assign::Label(bit) => mangle(ct("label", None)?, Expression::Number(u32::from(bit))),
            Assign::Priority(class) => mangle(meta("priority")?, text(class_text(class))),
            Assign::Field { field, value } => mangle(field_json(field), Expression::Number(u32::from(value))),
            Assign::HopLimitBy(by) => {
                let number = |hops: u8| Expression::Number(u32::from(hops));
                let pairs = hops(by).map(|(from, to)| SetItem::Mapping(number(from), number(to)));
                let data = Expression::Named(NamedExpression::Set(pairs.collect()));
                let key = field_json(SetField::Ip6HopLimit);
                let map = NamedExpression::Map(Box::new(Map { key, data }));
                mangle(field_json(SetField::Ip6HopLimit), Expression::Named(map))
            }
            Assign::StripTcpOption(kind) => match super::json::tcp_option(kind) {
                Ok(name) => verbatim(json!({ "reset": { "tcp option": { "name": name } } })),
                Err(_) => return unprintable("a TCP option without a name, which only nft syntax has"),
            },
        })
    }
}

fn load_mark(out: &mut Lowering<'_>, mark: Mark) {
    match mark {
        Mark::Packet => out.emit("meta", |out| {
            out.put_u32(meta_key::KEY, meta_key::MARK);
            out.put_u32(meta_key::DREG, reg::ONE);
        }),
        Mark::Connection => out.emit("ct", |out| {
            out.put_u32(ct_key::KEY, ct_key::MARK);
            out.put_u32(ct_key::DREG, reg::ONE);
        }),
    }
}

fn store_mark(out: &mut Lowering<'_>, mark: Mark) {
    match mark {
        Mark::Packet => out.emit("meta", |out| {
            out.put_u32(meta_key::KEY, meta_key::MARK);
            out.put_u32(meta_key::SREG, reg::ONE);
        }),
        Mark::Connection => out.emit("ct", |out| {
            out.put_u32(ct_key::KEY, ct_key::MARK);
            out.put_u32(ct_key::SREG, reg::ONE);
        }),
    }
}

fn lower_shift(out: &mut Lowering<'_>, shift: Shift) {
    let (op, places) = match shift {
        Shift::Left(places) => (bitwise::LSHIFT, places),
        Shift::Right(places) => (bitwise::RSHIFT, places),
    };
    out.emit("bitwise", |out| {
        out.put_u32(bitwise::SREG, reg::ONE);
        out.put_u32(bitwise::DREG, reg::ONE);
        out.put_u32(bitwise::OP, op);
        out.put_u32(bitwise::LEN, 4);
        super::lower::put_data(out, bitwise::DATA, &u32::from(places).to_ne_bytes());
    });
}

fn lower_field(out: &mut Lowering<'_>, place: &Place, value: u8) {
    let number = (u16::from(value) << place.shift).to_be_bytes();
    let bits = number.get(number.len() - place.keep.len()..).unwrap_or_default();
    if place.keep.iter().all(|keep| *keep == 0) {
        out.load_constant(bits);
    } else {
        load_payload(out, place);
        out.bitwise(place.keep, bits);
    }
    store_payload(out, place);
}

fn load_payload(out: &mut Lowering<'_>, place: &Place) {
    out.emit("payload", |out| {
        out.put_u32(payload::DREG, reg::ONE);
        out.put_u32(payload::BASE, payload::NETWORK_HEADER);
        out.put_u32(payload::OFFSET, place.offset);
        out.put_u32(payload::LEN, u32::try_from(place.keep.len()).unwrap_or_default());
    });
}

fn store_payload(out: &mut Lowering<'_>, place: &Place) {
    out.emit("payload", |out| {
        out.put_u32(payload::SREG, reg::ONE);
        out.put_u32(payload::BASE, payload::NETWORK_HEADER);
        out.put_u32(payload::OFFSET, place.offset);
        out.put_u32(payload::LEN, u32::try_from(place.keep.len()).unwrap_or_default());
        if let Some(checksum) = place.checksum {
            out.put_u32(payload::CSUM_TYPE, payload::CSUM_INET);
            out.put_u32(payload::CSUM_OFFSET, checksum);
        }
    });
}

fn field_json(field: SetField) -> Expression<'static> {
    let Place { header, name, .. } = place(field);
    let field = PayloadField { protocol: header.into(), field: name.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

/// Hops before and after, for all numbers that change.
fn hops(by: i16) -> impl Iterator<Item = (u8, u8)> {
    let after = move |from: u8| {
        let sum = i16::from(from).saturating_add(by).clamp(0, i16::from(u8::MAX));
        u8::try_from(sum).unwrap_or_default()
    };
    (0..=u8::MAX).map(move |from| (from, after(from))).filter(|(from, to)| from != to)
}

fn mark_text(mark: Mark) -> &'static str {
    match mark {
        Mark::Packet => "meta mark",
        Mark::Connection => "ct mark",
    }
}

fn mark_json(mark: Mark) -> Result<Expression<'static>, Unprintable> {
    match mark {
        Mark::Packet => meta("mark"),
        Mark::Connection => ct("mark", None),
    }
}

/// As tc(8) writes a class.
fn class_text(class: u32) -> String {
    format!("{:x}:{:x}", class >> 16, class & 0xffff)
}
