//! Programs that look at words of a packet (u32, bpf), reduced to matches: what is read where is followed as bits that
//! come from the packet, through masks and shifts, up to the comparison.

#![forbid(unsafe_code)]

use super::RuleContext;
use crate::error::Refusal;
use crate::family::Family;
use crate::nft::expr::{Alternative, Base, Element, Expr, Field, Key, Match, Op, Value};

/// The least and the greatest length of an IPv4 header, in words of four bytes (RFC 791, 3.1).
const IHL: std::ops::RangeInclusive<u16> = 5..=15;

/// Length of the packet's first word in bytes; no packet is shorter.
const WORD: u16 = 4;

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the network header.
    Network,
    /// Behind the IPv4 header, whatever its options, in later fragments too.
    BehindIp,
    /// Behind the UDP header; in later fragments, which have none, behind the IPv4 header.
    BehindUdp,
}

/// Bytes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// From where.
    pub start: Start,
    /// Bytes from there.
    pub offset: u16,
    /// 1, 2 or 4.
    pub len: u16,
}

/// A number of 32 bits of which each bit is known or is one of those that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where its bits come from; `None`: all are known.
    read: Option<Read>,
    /// By position, the least significant first.
    bits: [Bit; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bit {
    Known(bool),
    /// Of the bits that were read the one at this position, the least significant being 0.
    Of(u8),
}

/// Whether a comparison holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    Always,
    Never,
    /// Where this holds.
    Where(Condition),
}

/// A comparison of bytes that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub read: Read,
    mask: u32,
    op: Op,
    value: Value,
}

impl Word {
    /// A known number.
    pub fn known(number: u32) -> Self {
        Self { read: None, bits: std::array::from_fn(|at| Bit::Known(number >> at & 1 == 1)) }
    }

    /// What was read, as a number.
    pub fn of(read: Read) -> Self {
        let bit = |at| u8::try_from(at).ok().filter(|bit| u16::from(*bit) < read.len * 8);
        Self { read: Some(read), bits: std::array::from_fn(|at| bit(at).map_or(Bit::Known(false), Bit::Of)) }
    }

    /// The number, where all its bits are known.
    pub fn number(&self) -> Option<u32> {
        self.bits.iter().rev().try_fold(0u32, |number, bit| match bit {
            Bit::Known(bit) => Some(number << 1 | u32::from(*bit)),
            Bit::Of(_) => None,
        })
    }

    /// `self & mask`
    pub fn and(self, mask: u32) -> Self {
        self.map(|at, bit| if mask >> at & 1 == 1 { bit } else { Bit::Known(false) })
    }

    /// `self | mask`
    pub fn or(self, mask: u32) -> Self {
        self.map(|at, bit| if mask >> at & 1 == 1 { Bit::Known(true) } else { bit })
    }

    /// `self << by`
    pub fn left(self, by: u32) -> Self {
        let bits = self.bits;
        self.map(|at, _| {
            at.checked_sub(by).and_then(|from| bits.get(from as usize).copied()).unwrap_or(Bit::Known(false))
        })
    }

    /// `self >> by`
    pub fn right(self, by: u32) -> Self {
        let bits = self.bits;
        self.map(|at, _| {
            at.checked_add(by).and_then(|from| bits.get(from as usize).copied()).unwrap_or(Bit::Known(false))
        })
    }

    fn map(self, change: impl Fn(u32, Bit) -> Bit) -> Self {
        let bits = std::array::from_fn(|at| change(u32::try_from(at).unwrap_or(u32::MAX), self.bits[at]));
        Self { read: self.read, bits }
    }

    /// Whether it is four times the length field of the IPv4 header, which is how far off the transport header lies.
    pub fn is_ip_header_length(&self) -> bool {
        let Some(Read { start: Start::Network, offset: 0, len }) = self.read else { return false };
        // The field is the lower half of the first byte read.
        let Ok(low) = u8::try_from((len - 1) * 8) else { return false };
        (0u8..).zip(&self.bits).all(|(at, bit)| match at {
            2..=5 => *bit == Bit::Of(low + at - 2),
            _ => *bit == Bit::Known(false),
        })
    }

    /// Whether it is one of these numbers (each range with both ends within).
    pub fn is_among(&self, ranges: &[(u32, u32)], inverted: bool) -> Result<Truth, Refusal> {
        let certain = |holds: bool| Ok(if holds != inverted { Truth::Always } else { Truth::Never });
        let (Some(read), None) = (self.read, self.number()) else {
            let number = self.number().unwrap_or_default();
            return certain(ranges.iter().any(|(first, last)| (*first..=*last).contains(&number)));
        };
        let mut found = Vec::new();
        for (first, last) in ranges.iter().filter(|(first, last)| first <= last) {
            match self.range(*first, *last)? {
                Some(range) => found.push(range),
                None => continue,
            }
        }
        let mask = self.mask();
        let ranges = joined(found, mask);
        match ranges.as_slice() {
            [] => certain(false),
            [(0, last)] if *last >= mask => certain(true),
            _ => {
                let op = if inverted { Op::Ne } else { Op::Eq };
                Ok(Truth::Where(Condition { read, mask, op, value: value(&ranges, read.len) }))
            }
        }
    }

    /// The bits of what was read that it depends on.
    fn mask(&self) -> u32 {
        self.bits.iter().fold(0, |mask, bit| match bit {
            Bit::Of(from) => mask | 1 << from,
            Bit::Known(_) => mask,
        })
    }

    /// What the masked bits that were read must be for the number to be in a range; `None`: it never is.
    fn range(&self, first: u32, last: u32) -> Result<Option<(u32, u32)>, Refusal> {
        if first == last {
            return Ok(self.exactly(first).map(|number| (number, number)));
        }
        let shift = self.shift()?;
        // The numbers of the range that the word can be at all lie between these.
        let (first, last) = match shift {
            0.. => {
                let by = shift.unsigned_abs();
                (u64::from(first) << by, (u64::from(last) << by) | ((1 << by) - 1))
            }
            _ => {
                let by = shift.unsigned_abs();
                (u64::from(first).div_ceil(1 << by), u64::from(last) >> by)
            }
        };
        if first > u64::from(u32::MAX) || first > last {
            return Ok(None);
        }
        Ok(Some((first as u32, last.min(u64::from(u32::MAX)) as u32)))
    }

    /// The bits that must have been read for the word to be this number.
    fn exactly(&self, number: u32) -> Option<u32> {
        (0u32..).zip(&self.bits).try_fold(0u32, |read, (at, bit)| {
            let wanted = number >> at & 1;
            match bit {
                Bit::Known(known) => (u32::from(*known) == wanted).then_some(read),
                Bit::Of(from) => Some(read | wanted << from),
            }
        })
    }

    /// By how much its bits lie lower than where they were read.
    fn shift(&self) -> Result<i32, Refusal> {
        let mut shift = None;
        for (at, bit) in (0i32..).zip(&self.bits) {
            match bit {
                Bit::Known(false) => {}
                Bit::Of(from) if shift.is_none_or(|shift| shift == i32::from(*from) - at) => {
                    shift = Some(i32::from(*from) - at);
                }
                _ => return Err(Refusal::new("the program", "compares a number that is not read in one piece")),
            }
        }
        Ok(shift.unwrap_or_default())
    }
}

/// The distance between the numbers that a mask leaves, at least.
fn step(mask: u32) -> u32 {
    mask & mask.wrapping_neg()
}

/// Ranges in order without overlap, their ends the nearest numbers within that `mask` may leave: nft writes the ends
/// without what the mask takes away.
fn joined(mut ranges: Vec<(u32, u32)>, mask: u32) -> Vec<(u32, u32)> {
    let step = step(mask).max(1);
    ranges.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        let Some(first) = first.checked_next_multiple_of(step) else { continue };
        let last = (last - last % step).min(mask);
        match out.last_mut() {
            _ if first > last => {}
            Some((_, end)) if first <= end.saturating_add(step) => *end = last.max(*end),
            _ => out.push((first, last)),
        }
    }
    out
}

fn bytes(number: u32, len: u16) -> Vec<u8> {
    number.to_be_bytes().into_iter().skip(4usize.saturating_sub(usize::from(len))).collect()
}

fn value(ranges: &[(u32, u32)], len: u16) -> Value {
    let bytes = |number| bytes(number, len);
    match ranges {
        [(one, last)] if one == last => Value::Bytes(bytes(*one)),
        [(first, last)] => Value::Range(bytes(*first), bytes(*last)),
        several => Value::Set(
            several
                .iter()
                .map(|(first, last)| match last == first {
                    true => Element::One(bytes(*first)),
                    false => Element::Range(bytes(*first), bytes(*last)),
                })
                .collect(),
        ),
    }
}

/// One way through a program: what must have been read, and what must hold of it, in order.
#[derive(Clone, Debug, Default)]
pub struct Path {
    pub steps: Vec<Step>,
}

/// A step of a program that may fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes must lie within the packet.
    Read(Read),
    /// This must hold.
    Holds(Condition),
}

/// The protocol that the rule itself is for.
fn named_protocol(context: &RuleContext<'_>) -> Option<u8> {
    let protocol = context.protocol;
    (protocol.number != 0 && !protocol.inverted).then_some(protocol.number)
}

impl Step {
    /// What it wants the protocol to be that the IP header names (RFC 791, 3.1; RFC 8200, 3).
    fn protocol(&self, family: Family) -> Option<u8> {
        let Step::Holds(Condition { read, mask, op: Op::Eq, value: Value::Bytes(value) }) = self else { return None };
        let place: u16 = if family == Family::V4 { 9 } else { 6 };
        let index = usize::from(place.checked_sub(read.offset)?);
        let whole = bytes(*mask, read.len).get(index) == Some(&0xff);
        value.get(index).copied().filter(|_| whole && read.start == Start::Network)
    }

    /// Whether it holds of no fragment but the first: the offset in the seventh and eighth byte of the IPv4 header is 0.
    fn excludes_later_fragments(&self) -> bool {
        let Step::Holds(Condition { read, mask, op: Op::Eq, value: Value::Bytes(value) }) = self else { return false };
        let mask = bytes(*mask, read.len);
        let is_zero = |at: u16, wanted: u8| {
            let index = at.checked_sub(read.offset).map(usize::from);
            let of = |bytes: &[u8]| index.and_then(|index| bytes.get(index).copied());
            of(&mask).zip(of(value)).is_some_and(|(mask, value)| mask & wanted == wanted && value & wanted == 0)
        };
        read.start == Start::Network && is_zero(6, 0x1f) && is_zero(7, 0xff)
    }
}

impl Path {
    /// Whether it reads anything behind the IP header.
    pub fn reads_behind(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Read(read) => read.start != Start::Network,
            Step::Holds(condition) => condition.read.start != Start::Network,
        })
    }

    /// As matches. With `whole` no later fragment meets the rule; else what lies behind the IPv4 header is read at a
    /// fixed place for each length that the header can have, as nf_tables knows no transport header there.
    pub fn alternatives(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let whole = context.whole;
        if let Some(wanted) = named_protocol(context)
            && self.steps.iter().any(|step| step.protocol(context.place.family).is_some_and(|found| found != wanted))
        {
            return Err(Refusal::new("-p", "nft does not read back a rule that looks for another protocol as well"));
        }
        if !self.reads_behind() {
            return self.at(None).map(|alternative| vec![alternative]);
        }
        if whole || self.steps.iter().any(Step::excludes_later_fragments) {
            let whole = self.at(Some(Behind::Transport))?;
            return Ok(vec![whole]);
        }
        let behind_udp = self.steps.iter().any(|step| {
            let (Step::Read(read) | Step::Holds(Condition { read, .. })) = step;
            read.start == Start::BehindUdp
        });
        if behind_udp {
            return Err(Refusal::new("--bytecode", "looks elsewhere in later fragments: needs a port, or ! -f"));
        }
        IHL.map(|words| {
            let length = Read { start: Start::Network, offset: 0, len: 1 };
            let value = Value::Bytes(bytes(u32::from(words), 1));
            let mut alternative = vec![Condition { read: length, mask: 0x0f, op: Op::Eq, value }.expr(None)?];
            alternative.extend(self.at(Some(Behind::Bytes(words * 4)))?);
            Ok(alternative)
        })
        .collect()
    }

    fn at(&self, behind: Option<Behind>) -> Result<Alternative, Refusal> {
        // A read needs no test of its own where bytes up to its end are compared.
        let compared = |read: &Read| {
            let ends = |of: Read| (of.start, of.offset.saturating_add(of.len));
            let up_to_end = |condition: &Condition| ends(condition.touched().0) == ends(*read);
            self.steps.iter().any(|step| matches!(step, Step::Holds(condition) if up_to_end(condition)))
        };
        let mut exprs = Vec::new();
        for step in &self.steps {
            match step {
                Step::Read(read) if compared(read) || read.is_always_there() => {}
                Step::Read(read) => {
                    let value = Value::Bytes(vec![0; usize::from(read.len)]);
                    exprs.push(Condition { read: *read, mask: u32::MAX, op: Op::Ge, value }.expr(behind)?);
                }
                Step::Holds(condition) => exprs.push(condition.expr(behind)?),
            }
        }
        Ok(exprs)
    }
}

/// Where the bytes behind the IP header are found.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Transport,
    /// So many bytes from the network header.
    Bytes(u16),
}

impl Read {
    /// Whether no IPv4 packet is too short for it.
    fn is_always_there(self) -> bool {
        self.start == Start::Network && self.offset.saturating_add(self.len) <= 20
    }

    fn key(self, behind: Option<Behind>) -> Result<Key, Refusal> {
        /// Length of the UDP header (RFC 768).
        const UDP: u16 = 8;
        let (base, start) = match (self.start, behind) {
            (Start::Network, _) => (Base::Network, 0),
            (Start::BehindIp, Some(Behind::Transport)) => (Base::Transport, 0),
            (Start::BehindUdp, Some(Behind::Transport)) => (Base::Transport, UDP),
            (Start::BehindIp, Some(Behind::Bytes(bytes))) => (Base::Network, bytes),
            _ => return Err(Refusal::new("the program", "reads where nothing is known to lie")),
        };
        // NFTA_PAYLOAD_OFFSET ends at 255 in kernels before 6.14.
        let offset = self.offset.checked_add(start).filter(|offset| *offset <= 255);
        let offset = offset.ok_or_else(|| Refusal::new("the program", "reads too far into the packet"))?;
        Ok(Key::Payload(Field::Raw { base, offset: offset * 8, len: self.len * 8 }))
    }
}

impl Condition {
    /// The bytes that the mask leaves something of, from the first to the last.
    fn touched(&self) -> (Read, std::ops::Range<usize>) {
        let mask = bytes(self.mask, self.read.len);
        let first = mask.iter().position(|byte| *byte != 0).unwrap_or(0);
        let end = mask.iter().rposition(|byte| *byte != 0).map_or(mask.len(), |last| last + 1);
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let offset = self.read.offset.saturating_add(count(first));
        (Read { offset, len: count(end - first), ..self.read }, first..end)
    }

    /// It compares no more bytes than it needs, as nft does when it reads back what it lists.
    fn expr(&self, behind: Option<Behind>) -> Result<Expr, Refusal> {
        let (mut read, kept) = self.touched();
        let cut = |bytes: &[u8]| bytes.get(kept.clone()).unwrap_or_default().to_vec();
        let mut mask = cut(&bytes(self.mask, self.read.len));
        let (op, value) = match (self.op, &self.value) {
            (Op::Ne, Value::Bytes(one)) => (Op::Eq, all_but(one, self.mask)),
            (op, value) => (op, value.clone()),
        };
        let mut value = match value {
            Value::Bytes(one) => Value::Bytes(cut(&one)),
            Value::Range(first, last) => Value::Range(cut(&first), cut(&last)),
            Value::Set(elements) => Value::Set(
                elements
                    .iter()
                    .map(|element| match element {
                        Element::One(one) => Element::One(cut(one)),
                        Element::Range(first, last) => Element::Range(cut(first), cut(last)),
                    })
                    .collect(),
            ),
        };
        // nft up to at least 1.0.6 takes the end of one to three bytes for a prefix of a field of the IPv6 header, which
        // it cannot read back; of a word it does not.
        let in_first_word = read.start == Start::Network && read.offset == 0 && read.len < WORD;
        if let (true, Op::Eq, Value::Bytes(one)) = (in_first_word, op, &mut value) {
            read.len = WORD;
            mask.resize(usize::from(WORD), 0);
            one.resize(usize::from(WORD), 0);
        }
        let key = read.key(behind)?;
        let whole = mask.iter().all(|byte| *byte == 0xff);
        Ok(Expr::Match(Match { key, mask: (!whole).then_some(mask), op, value }))
    }
}

/// What remains without one number. nft up to at least 1.0.6 lists `!=` of bytes that are several fields of a header as
/// `!=` of each, which is less.
fn all_but(one: &[u8], mask: u32) -> Value {
    let number = one.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    let below = number.checked_sub(step(mask)).map(|last| (0, last));
    let above = number.checked_add(step(mask)).filter(|first| *first <= mask).map(|first| (first, mask));
    let ranges: Vec<(u32, u32)> = below.into_iter().chain(above).collect();
    value(&ranges, u16::try_from(one.len()).unwrap_or_default())
}

/// The place behind a header as `family` has it: only IPv4's length field says how long the header is.
pub fn behind(family: Family, word: &Word) -> Option<Start> {
    (family == Family::V4 && word.is_ip_header_length()).then_some(Start::BehindIp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::dialect::{Dialect, Variant};
    use crate::iptables::translate::TranslateContext;
    use crate::iptables::{Command, parse};

    /// What nf_tables sees of a rule's matches on raw bytes and ports of UDP.
    fn meets(alternative: &Alternative, packet: &[u8]) -> bool {
        let behind = usize::from(packet[0] & 0x0f) * 4;
        let later = packet[6] & 0x1f != 0 || packet[7] != 0;
        alternative.iter().all(|expr| {
            let Expr::Match(Match { key, mask, op, value }) = expr else { return true };
            let found = match key {
                Key::Payload(Field::Raw { base, offset, len }) => {
                    let start = if *base == Base::Network { 0 } else { behind };
                    let from = start + usize::from(offset / 8);
                    assert!(*base == Base::Network || !later, "the guard stands before it");
                    packet.get(from..from + usize::from(len / 8)).map(<[u8]>::to_vec)
                }
                Key::Payload(Field::Ip4FragOff) => Some(packet[6..8].to_vec()),
                Key::Payload(Field::UdpDport) => packet.get(behind + 2..behind + 4).map(<[u8]>::to_vec),
                _ => Some(vec![17]),
            };
            let Some(mut found) = found else { return false };
            for (byte, mask) in found.iter_mut().zip(mask.iter().flatten()) {
                *byte &= mask;
            }
            let among = |first: &Vec<u8>, last: &Vec<u8>| *first <= found && found <= *last;
            let equal = match value {
                Value::Bytes(one) if *op == Op::Ge => return found >= *one,
                Value::Bytes(one) => found == *one,
                Value::Range(first, last) => among(first, last),
                Value::Set(elements) => elements.iter().any(|element| match element {
                    Element::One(one) => found == *one,
                    Element::Range(first, last) => among(first, last),
                }),
            };
            equal == (*op == Op::Eq)
        })
    }

    fn alternatives(rule: &[&str]) -> Vec<Alternative> {
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
        let words: Vec<String> = ["-A", "INPUT"].iter().chain(rule).map(|word| (*word).to_owned()).collect();
        let Ok(Command::Append { rules, .. }) = parse(Family::V4, &words, &dialect).map(|read| read.command) else {
            panic!("{rule:?}");
        };
        let context = TranslateContext { family: Family::V4, table: "filter", chain: "INPUT" };
        rules[0].translate(&context).unwrap_or_else(|refusal| panic!("{rule:?}: {refusal:?}"))
    }

    fn word(packet: &[u8], at: usize) -> Option<u32> {
        packet.get(at..at + 4).map(|bytes| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    /// Packets around what the programs look for: header lengths, fragments, lengths of the whole.
    fn packets() -> Vec<Vec<u8>> {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let mut packets = Vec::new();
        for _ in 0..4000 {
            let words = 5 + next() % 11;
            let mut packet: Vec<u8> =
                (0..words * 4 + next() % 40).map(|_| [0, 1, 6, 17, 0x45, 0xff][next() % 6]).collect();
            packet[0] = 0x40 | words as u8;
            packet[9] = 17;
            if next() % 3 > 0 {
                packet[6] &= 0xe0;
                packet[7] = 0;
            }
            let vni = [4097u32, 4096, 5][next() % 3] << 8 | 0x11;
            for (index, byte) in vni.to_be_bytes().into_iter().enumerate() {
                let at = words * 4 + 12 + index;
                if next() % 8 > 0
                    && let Some(place) = packet.get_mut(at)
                {
                    *place = byte;
                }
            }
            packets.push(packet);
        }
        packets
    }

    fn compare(rule: &[&str], wanted: impl Fn(&[u8]) -> bool) {
        let alternatives = alternatives(rule);
        let (mut met, mut missed) = (0, 0);
        for packet in packets() {
            let found = alternatives.iter().filter(|alternative| meets(alternative, &packet)).count();
            assert_eq!(found, usize::from(wanted(&packet)), "{rule:?}: {packet:02x?}");
            if found == 0 { missed += 1 } else { met += 1 }
        }
        assert!(met > 0 && missed > 0, "{rule:?}: {met} met, {missed} missed");
    }

    fn behind(packet: &[u8]) -> usize {
        usize::from(packet[0] & 0x0f) * 4
    }

    fn is_whole(packet: &[u8]) -> bool {
        packet[6] & 0x1f == 0 && packet[7] == 0
    }

    #[test]
    fn a_word_behind_the_header_is_found_there() {
        let vni = "0>>22&0x3C@12&0xFFFFFF00=0x100100";
        let found = |packet: &[u8]| word(packet, behind(packet) + 12).is_some_and(|word| word >> 8 == 4097);
        // Without anything else, in later fragments too.
        compare(&["-m", "u32", "--u32", vni], found);
        compare(&["-p", "udp", "!", "-f", "-m", "u32", "--u32", vni], |packet| is_whole(packet) && found(packet));
        let tested = format!("4&0x1FFF=0&&{vni}");
        compare(&["-m", "u32", "--u32", &tested], |packet| is_whole(packet) && found(packet));
    }

    #[test]
    fn masks_shifts_ranges_and_several_tests_mean_what_they_say() {
        let first = |packet: &[u8]| word(packet, 0).unwrap_or_default();
        compare(&["-m", "u32", "--u32", "0>>24&0xf=6:9,12"], |packet| matches!(first(packet) >> 24 & 15, 6..=9 | 12));
        compare(&["-m", "u32", "--u32", "0&0x0f000000>>20=0x65:0x90"], |packet| {
            (0x65..=0x90).contains(&((first(packet) & 0x0f00_0000) >> 20))
        });
        compare(&["-m", "u32", "--u32", "0<<4=0x60000000:0xdfffffff"], |packet| {
            (0x6000_0000..=0xdfff_ffff).contains(&(first(packet) << 4))
        });
        compare(&["-m", "u32", "--u32", "0>>24=0x47:0xffff&&1>>24=1,17:255"], |packet| {
            packet[0] >= 0x47 && matches!(packet[1], 1 | 17..)
        });
        compare(&["-m", "u32", "!", "--u32", "0>>24=0x47:0xffff&&1>>24=1,17:255"], |packet| {
            !(packet[0] >= 0x47 && matches!(packet[1], 1 | 17..))
        });
        compare(&["-m", "u32", "!", "--u32", "0>>24=0x47"], |packet| packet[0] != 0x47);
        compare(&["-m", "u32", "!", "--u32", "0>>24&0xf=6"], |packet| packet[0] & 0xf != 6);
        compare(&["-m", "u32", "!", "--u32", "0>>16&0x3=1"], |packet| packet[1] & 3 != 1);
        compare(&["-m", "u32", "!", "--u32", "0&0x0f010000=0x06000000"], |packet| {
            first(packet) & 0x0f01_0000 != 0x0600_0000
        });
        compare(&["-m", "u32", "--u32", "12&0xffff0000=0x1000000:0xffffffff"], |packet| packet[12] >= 1);
        compare(&["-m", "u32", "--u32", "0>>22&0x3C@12>>16=0x0010"], |packet| {
            word(packet, behind(packet) + 12).is_some_and(|word| word >> 16 == 0x10)
        });
        compare(&["-m", "u32", "--u32", "0>>22&0x3C@0>>16=0:0x0fff&&0>>22&0x3C@1=0:0x10ffffff"], |packet| {
            let at = behind(packet);
            word(packet, at).is_some_and(|word| word >> 16 <= 0xfff)
                && word(packet, at + 1).is_some_and(|word| word <= 0x10ff_ffff)
        });
    }

    #[test]
    fn a_program_of_the_packet_filter_means_what_it_computes() {
        let docker = "7,32 0 0 4294963252,7 0 0 0,64 0 0 4,116 0 0 8,21 1 0 4097,6 0 0 0,6 0 0 4294967295";
        compare(&["-p", "udp", "!", "-f", "-m", "bpf", "--bytecode", docker], |packet| {
            is_whole(packet) && word(packet, behind(packet) + 12).is_some_and(|word| word >> 8 == 4097)
        });
        // ldxb 4*([0]&0xf); ld #12; add x; tax; ld [x+0]; rsh #8; jeq #4097, 0, 1; ret #1; ret #0
        let sum = "9,177 0 0 0,0 0 0 12,12 0 0 0,7 0 0 0,64 0 0 0,116 0 0 8,21 0 1 4097,6 0 0 1,6 0 0 0";
        compare(&["-m", "bpf", "--bytecode", sum], |packet| {
            word(packet, behind(packet) + 12).is_some_and(|word| word >> 8 == 4097)
        });
        // ldxb 4*([0]&0xf); ldb [x+13]; and #0x10; jeq #0x10, 2, 0; ldh [2]; jgt #0x600, 0, 1; ret #1; ret #0
        let branches = "8,177 0 0 0,80 0 0 13,84 0 0 16,21 2 0 16,40 0 0 2,37 0 1 1536,6 0 0 1,6 0 0 0";
        compare(&["-m", "bpf", "--bytecode", branches], |packet| {
            let length = u16::from_be_bytes([packet[2], packet[3]]);
            packet.get(behind(packet) + 13).is_some_and(|byte| byte & 0x10 != 0 || length > 0x600)
        });
        // ldh [6]; jset #0x1fff, 3, 0; ldb [0]; and #15; lsh #2; … add #2; tax; ldh [x+0]; ret a
        let computed = "10,40 0 0 6,69 7 0 8191,48 0 0 0,84 0 0 15,100 0 0 2,4 0 0 2,7 0 0 0,72 0 0 0,22 0 0 0,6 0 0 0";
        compare(&["-m", "bpf", "--bytecode", computed], |packet| {
            let at = behind(packet) + 2;
            is_whole(packet) && packet.get(at..at + 2).is_some_and(|bytes| bytes != [0, 0])
        });
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let refused = |rule: &[&str]| {
            let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
            let words: Vec<String> = ["-A", "INPUT"].iter().chain(rule).map(|word| (*word).to_owned()).collect();
            let Ok(Command::Append { rules, .. }) = parse(Family::V4, &words, &dialect).map(|read| read.command) else {
                panic!("{rule:?}");
            };
            let context = TranslateContext { family: Family::V4, table: "filter", chain: "INPUT" };
            rules[0].translate(&context).is_err()
        };
        let docker = "7,32 0 0 4294963252,7 0 0 0,64 0 0 4,116 0 0 8,21 1 0 4097,6 0 0 0,6 0 0 4294967295";
        assert!(refused(&["-p", "udp", "-m", "bpf", "--bytecode", docker]), "later fragments");
        assert!(refused(&["-p", "tcp", "-m", "bpf", "--bytecode", docker]), "payload of TCP");
        assert!(refused(&["-m", "u32", "--u32", "0>>22&0x3C@12>>26&0x3C@8=1"]), "behind the TCP header");
        assert!(refused(&["-m", "u32", "!", "--u32", "20=1"]), "a packet too short matches");
        assert!(refused(&["-m", "u32", "--u32", "1000=1"]), "too far");
        assert!(refused(&["-m", "bpf", "--bytecode", "2,128 0 0 0,22 0 0 0"]), "length");
        assert!(refused(&["-m", "bpf", "--bytecode", "2,32 0 0 4294963220,22 0 0 0"]), "mark");
        assert!(refused(&["-m", "bpf", "--bytecode", "3,48 0 0 0,4 0 0 1,22 0 0 0"]), "a sum");
    }
}
