//! Tests against sets that hold ranges, said without such a set: the kernel fills one only just after the transaction that
//! brings it is in force (seen with Linux 6.18), so that packets of that moment are in none of its ranges. Sets of single
//! values are whole from the first packet on.

#![forbid(unsafe_code)]

use super::expr::{Element, Field, Key, Match, Op, Value};
use super::key::{self, Facts, Order};
use super::syntax;

/// Numbers from the first to the second, both within.
type Range = (u128, u128);

/// The same test without a set of ranges, as alternatives of which a packet meets one at most; nearly always that is one.
/// `None` for what is no such test.
pub fn spread(found: &Match) -> Option<Vec<Vec<Match>>> {
    let Value::Set(elements) = &found.value else { return None };
    if !elements.iter().any(|element| matches!(element, Element::Range(..))) {
        return None;
    }
    let facts = key::of(found.key);
    let number = |bytes: &Vec<u8>| (bytes.len() == facts.len).then(|| syntax::number(facts, bytes));
    let mask = found.mask.as_ref().map_or_else(|| number(&vec![0xff; facts.len]), number)?;
    let space = Space { mask };
    let ranges = elements.iter().map(|element| match element {
        Element::One(value) => number(value).map(|number| (number, number)),
        Element::Range(from, to) => number(from).zip(number(to)),
    });
    let ranges = space.joined(ranges.collect::<Option<_>>()?);
    let (first, last) = (ranges.first()?.0, ranges.last()?.1);
    let matching = |op, value| Match { op, value, ..found.clone() };
    let mut tests = Vec::new();
    let (mut excluded, mut spare) = (space.gaps(&ranges), None);
    if found.op == Op::Ne {
        excluded = ranges;
    } else {
        // A number that the bounds exclude.
        spare = space.below(first).or_else(|| space.above(last));
        if spare.is_some() || excluded.is_empty() {
            tests.push(matching(Op::Eq, value(facts, (first, last))));
        }
    }
    let (singles, wide): (Vec<Range>, Vec<Range>) = excluded.into_iter().partition(|(from, to)| from == to);
    tests.extend(wide.iter().map(|range| matching(Op::Ne, value(facts, *range))));
    let set = |singles: &[Range]| Value::Set(singles.iter().map(|(one, _)| Element::One(bytes(facts, *one))).collect());
    match singles.as_slice() {
        [] => {}
        [one] if !matches!(found.key, Key::Payload(Field::Raw { .. })) => {
            tests.push(matching(Op::Ne, value(facts, *one)));
        }
        // Of bytes that are several fields of a header nft lists `!=` of one number as `!=` of each field, which is less;
        // not of two numbers, of which the other is excluded anyhow.
        [one] => match spare.or(wide.first().map(|(from, _)| *from)) {
            Some(spare) => tests.push(matching(Op::Ne, set(&[*one, (spare, spare)]))),
            None => {
                let below = space.below(one.0).map(|last| (0, last));
                let above = space.above(one.1).map(|first| (first, mask));
                let sides = below.into_iter().chain(above);
                return Some(sides.map(|range| vec![matching(Op::Eq, value(facts, range))]).collect());
            }
        },
        several => tests.push(matching(Op::Ne, set(several))),
    }
    Some(vec![tests])
}

fn value(facts: Facts, (from, to): Range) -> Value {
    match from == to {
        true => Value::Bytes(bytes(facts, from)),
        false => Value::Range(bytes(facts, from), bytes(facts, to)),
    }
}

fn bytes(facts: Facts, number: u128) -> Vec<u8> {
    let number = number.to_be_bytes();
    let mut bytes = number.get(number.len().saturating_sub(facts.len)..).unwrap_or_default().to_vec();
    if facts.order == Order::Host && cfg!(target_endian = "little") {
        bytes.reverse();
    }
    bytes
}

/// The numbers that a mask leaves. nft writes the ends of a range without what the mask takes away.
struct Space {
    mask: u128,
}

impl Space {
    /// The least of them that is not less.
    fn ceil(&self, number: u128) -> Option<u128> {
        match self.below_taken(number) {
            0 => Some(number),
            low => (number | low | !self.mask).checked_add(1).map(|next| next & self.mask),
        }
    }

    /// The greatest of them that is not greater.
    fn floor(&self, number: u128) -> u128 {
        (number | self.below_taken(number)) & self.mask
    }

    /// From the highest bit that the mask takes away from a number on downwards.
    fn below_taken(&self, number: u128) -> u128 {
        u128::MAX.checked_shr((number & !self.mask).leading_zeros()).unwrap_or_default()
    }

    fn above(&self, number: u128) -> Option<u128> {
        number.checked_add(1).and_then(|next| self.ceil(next))
    }

    fn below(&self, number: u128) -> Option<u128> {
        number.checked_sub(1).map(|last| self.floor(last))
    }

    /// In order, with overlapping and adjoining ones made one.
    fn joined(&self, mut ranges: Vec<Range>) -> Vec<Range> {
        ranges.sort_unstable();
        let mut joined: Vec<Range> = Vec::new();
        for (from, to) in ranges {
            let (Some(from), to) = (self.ceil(from), self.floor(to)) else { continue };
            match joined.last_mut() {
                _ if from > to => {}
                Some((_, last)) if self.above(*last).is_none_or(|next| from <= next) => *last = to.max(*last),
                _ => joined.push((from, to)),
            }
        }
        joined
    }

    fn gaps(&self, ranges: &[Range]) -> Vec<Range> {
        ranges.windows(2).filter_map(|pair| self.above(pair.first()?.1).zip(self.below(pair.last()?.0))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::expr::{Base, Meta};
    use super::*;
    use proptest::prelude::*;

    fn among(value: &Value, found: u128, number: &dyn Fn(&Vec<u8>) -> u128) -> bool {
        let within = |from: &Vec<u8>, to: &Vec<u8>| (number(from)..=number(to)).contains(&found);
        match value {
            Value::Bytes(one) => within(one, one),
            Value::Range(from, to) => within(from, to),
            Value::Set(elements) => elements.iter().any(|element| match element {
                Element::One(one) => within(one, one),
                Element::Range(from, to) => within(from, to),
            }),
        }
    }

    fn meets(test: &Match, packet: u128) -> bool {
        let facts = key::of(test.key);
        let number = |bytes: &Vec<u8>| syntax::number(facts, bytes);
        let found = test.mask.as_ref().map_or(packet, |mask| packet & number(mask));
        among(&test.value, found, &number) == (test.op == Op::Eq)
    }

    fn has_ranges(test: &Match) -> bool {
        matches!(&test.value, Value::Set(elements) if elements.iter().any(|one| matches!(one, Element::Range(..))))
    }

    proptest! {
        #[test]
        fn it_means_the_same(
            which in 0usize..3,
            mask in proptest::option::of(1u128..=0xffff),
            op in proptest::sample::select(vec![Op::Eq, Op::Ne]),
            ends in proptest::collection::vec((0u128..=0xffff, 0u128..300), 1..8),
            packets in proptest::collection::vec(0u128..=0xffff, 50),
        ) {
            let raw = Key::Payload(Field::Raw { base: Base::Network, offset: 0, len: 16 });
            let key = [raw, Key::Payload(Field::ThDport), Key::Meta(Meta::Iiftype)][which];
            let facts = key::of(key);
            // As masks are, one that leaves the greatest number that there is.
            let mask = mask.map(|mask| mask | 0x8000);
            let space = Space { mask: mask.unwrap_or(0xffff) };
            let ranges: Vec<Range> = ends.iter().map(|(from, len)| (*from, (from + len).min(0xffff))).collect();
            let elements = ranges.iter().map(|range| match value(facts, *range) {
                Value::Bytes(one) => Element::One(one),
                Value::Range(from, to) => Element::Range(from, to),
                Value::Set(_) => unreachable!(),
            }).collect();
            let test = Match { key, mask: mask.map(|mask| bytes(facts, mask)), op, value: Value::Set(elements) };
            let said = spread(&test);
            prop_assert_eq!(said.is_some(), has_ranges(&test) && !space.joined(ranges.clone()).is_empty());
            let Some(said) = said else { return Ok(()) };
            prop_assert!(said.iter().flatten().all(|test| !has_ranges(test)));
            let edges = ranges.iter().flat_map(|(from, to)| [from.saturating_sub(1), *from, *to, (to + 1).min(0xffff)]);
            for packet in packets.into_iter().chain(edges) {
                let times = said.iter().filter(|tests| tests.iter().all(|test| meets(test, packet))).count();
                prop_assert_eq!(times, usize::from(meets(&test, packet)), "{}: {:?}", packet, said);
            }
            // What nft would write otherwise.
            for test in said.iter().flatten() {
                if let Value::Range(from, to) = &test.value {
                    let (from, to) = (syntax::number(facts, from), syntax::number(facts, to));
                    prop_assert!(from < to && (from | to) & !space.mask == 0);
                }
                prop_assert!(key != raw || test.op == Op::Eq || !matches!(test.value, Value::Bytes(_)));
            }
        }
    }

    fn port(number: u16) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    fn of_ports(op: Op, elements: &[(u16, u16)]) -> Vec<Vec<(Op, Value)>> {
        let element = |(from, to): &(u16, u16)| match from == to {
            true => Element::One(port(*from)),
            false => Element::Range(port(*from), port(*to)),
        };
        let value = Value::Set(elements.iter().map(element).collect());
        let test = Match { key: Key::Payload(Field::ThDport), mask: None, op, value };
        let said = spread(&test).unwrap_or_default();
        said.into_iter().map(|tests| tests.into_iter().map(|test| (test.op, test.value)).collect()).collect()
    }

    #[test]
    fn bounds_come_first_and_single_numbers_stay_together() {
        let (one, range) = (|number| Value::Bytes(port(number)), |from, to| Value::Range(port(from), port(to)));
        assert_eq!(
            of_ports(Op::Eq, &[(8000, 9000), (22, 22), (80, 81)]),
            [[(Op::Eq, range(22, 9000)), (Op::Ne, range(23, 79)), (Op::Ne, range(82, 7999))]]
        );
        assert_eq!(of_ports(Op::Eq, &[(5, 7), (9, 11)]), [[(Op::Eq, range(5, 11)), (Op::Ne, one(8))]]);
        assert_eq!(of_ports(Op::Eq, &[(0, 7), (9, 65535)]), [[(Op::Ne, one(8))]]);
        assert_eq!(of_ports(Op::Eq, &[(0, 7), (8, 65535)]), [[(Op::Eq, range(0, 65535))]]);
        let both = Value::Set(vec![Element::One(port(22)), Element::One(port(80))]);
        assert_eq!(
            of_ports(Op::Ne, &[(22, 22), (80, 80), (8000, 9000)]),
            [[(Op::Ne, range(8000, 9000)), (Op::Ne, both)]]
        );
    }
}
