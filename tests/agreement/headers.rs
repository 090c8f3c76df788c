//! Shapes of matches on headers.

use super::*;
use xtshim::nft::exthdr::ExtHdr;

/// Headers beside TCP, UDP and ICMP.
pub fn transport(op: Op) -> Vec<Alternative> {
    let number = |number: u32| number.to_be_bytes();
    let mut rules = vec![
        vec![l4(51), matching(Key::Payload(Field::AhHdrlength), op, Value::Bytes(vec![4]))],
        vec![l4(51), matching(Key::Payload(Field::AhReserved), op, Value::Bytes(vec![0, 0]))],
        vec![l4(108), matching(Key::Payload(Field::CompCpi), op, Value::Bytes(vec![0, 5]))],
        vec![l4(108), range(Key::Payload(Field::CompCpi), op, port(5), port(9))],
    ];
    for (protocol, field) in [(50, Field::EspSpi), (51, Field::AhSpi)] {
        let key = Key::Payload(field);
        for compared in ALL {
            rules.push(vec![l4(protocol), matching(key, compared, Value::Bytes(number(0x105).into()))]);
        }
        rules.push(vec![l4(protocol), range(key, op, number(5), number(0x10000))]);
        rules.push(vec![matching(key, op, Value::Bytes(number(5).into()))]);
    }
    for (protocol, fields) in [(132, [Field::SctpSport, Field::SctpDport]), (33, [Field::DccpSport, Field::DccpDport])]
    {
        for field in fields {
            rules.push(vec![l4(protocol), matching(Key::Payload(field), op, Value::Bytes(port(80).into()))]);
            rules.push(vec![l4(protocol), range(Key::Payload(field), op, port(80), port(90))]);
            rules.push(vec![matching(Key::Payload(field), op, Value::Bytes(port(80).into()))]);
        }
    }
    let raw = |base, offset, len| Key::Payload(Field::Raw { base, offset, len });
    let kind = raw(Base::Transport, 64, 8);
    rules.push(vec![l4(33), masked(kind, [0x1e], op, [2])]);
    let several = Value::Set(vec![one([0]), one([2]), one([0x14])]);
    rules.push(vec![l4(33), Expr::Match(Match { key: kind, mask: Some(vec![0x1e]), op, value: several })]);
    // A word of a packet, as xt_u32 reads it.
    for key in [raw(Base::Transport, 96, 32), raw(Base::Network, 160, 32), raw(Base::Network, 752, 32)] {
        let but_one = Value::Set(vec![from_to([0, 0, 0, 0], [0, 1, 0, 1]), from_to([0, 1, 0, 3], [0xff; 4])]);
        rules.push(vec![Expr::Match(Match { key, mask: Some(vec![0, 0xff, 0, 0xff]), op, value: but_one })]);
        for mask in [[0xff, 0xff, 0xff, 0], [0, 0xff, 0xff, 0xff], [0x0f, 0, 0, 0], [0x0f, 0xff, 0, 0xf0]] {
            rules.push(vec![l4(17), masked(key, mask, op, [0, 0x10, 0, 0])]);
            let (from, to) = (vec![0, 1, 0, 0], vec![0, 9, 0, 0]);
            let value = Value::Range(from.clone(), to.clone());
            rules.push(vec![Expr::Match(Match { key, mask: Some(mask.into()), op, value })]);
            let value = Value::Set(vec![one([0, 0, 0, 0]), from_to(from, to), one([15, 0, 0, 0])]);
            rules.push(vec![Expr::Match(Match { key, mask: Some(mask.into()), op, value })]);
        }
        for compared in ALL {
            rules.push(vec![matching(key, compared, Value::Bytes(vec![0, 1, 2, 3]))]);
        }
        rules.push(vec![matching(key, Op::Ge, Value::Bytes(vec![0; 4]))]);
    }
    rules.push(vec![masked(raw(Base::Network, 0, 8), [0x0f], op, [5])]);
    rules
}

/// Of IPv6.
pub fn extension(op: Op) -> Vec<Alternative> {
    let one = |field, value: &[u8]| vec![matching(Key::ExtHdr(field), op, Value::Bytes(value.to_vec()))];
    let mut rules: Vec<Alternative> = Vec::new();
    for header in [0, 43, 44, 60, 135] {
        rules.push(one(ExtHdr::Present(header), &[1]));
        rules.push(one(ExtHdr::Present(header), &[0]));
    }
    rules.push(one(ExtHdr::FragOff, &[0, 0]));
    rules.push(one(ExtHdr::FragOff, &[1, 2]));
    rules.push(one(ExtHdr::FragId, &[0, 0, 1, 2]));
    rules.push(one(ExtHdr::SrhTag, &[1, 2]));
    rules.push(vec![range(Key::ExtHdr(ExtHdr::FragId), op, [0, 0, 0, 2], [0, 1, 0, 0])]);
    for field in [ExtHdr::FragReserved, ExtHdr::FragReserved2, ExtHdr::FragMore] {
        rules.push(one(field, &[0]));
        rules.push(one(field, &[1]));
    }
    for field in [
        ExtHdr::RtHdrlength,
        ExtHdr::RtType,
        ExtHdr::RtSegLeft,
        ExtHdr::SrhLastEntry,
        ExtHdr::SrhFlags,
        ExtHdr::HbhHdrlength,
        ExtHdr::DstHdrlength,
        ExtHdr::MhNexthdr,
        ExtHdr::MhType,
    ] {
        rules.push(one(field, &[0]));
        rules.push(one(field, &[59]));
        rules.push(vec![range(Key::ExtHdr(field), op, [1], [5])]);
    }
    for number in [1, 2] {
        rules.push(one(ExtHdr::SrhSid(number), &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]));
    }
    rules
}
