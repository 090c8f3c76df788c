//! Words of a packet as u32 and bpf compare them.

use super::{Connection, Family, RawExpr, RuleInfo, Table, as_text, batch_with, in_namespace, kernel_form, nft};
use std::collections::BTreeMap;
use xtshim::iptables::dialect::{Dialect, Variant};
use xtshim::iptables::{self, TranslateContext, parse};
use xtshim::nft::expr::Alternative;

/// What a rule becomes; `None` where it is refused.
fn translated(family: Family, rule: &[&str]) -> Option<Vec<Alternative>> {
    let dialect = Dialect { family, variant: Variant::Legacy, version: (1, 8, 9) };
    let words: Vec<String> = ["-A", "PREROUTING"].iter().chain(rule).map(|word| (*word).to_owned()).collect();
    let Ok(iptables::Command::Append { rules, .. }) = parse(family, &words, &dialect).map(|read| read.command) else {
        panic!("{rule:?}");
    };
    let parts = rules[0].translate(&TranslateContext { family, table: "raw", chain: "PREROUTING" }).ok()?;
    as_text(&batch_with(Table { family, name: "ours" }, &parts)).ok().map(|_| parts)
}

/// A rule's expressions as the kernel tells them, the bits that must be as they are told byte by byte: nft takes bytes
/// of a header apart into its fields.
fn meaning(kernel: &mut Connection, table: Table<'_>, mut rule: RuleInfo) -> Vec<String> {
    // Attributes of linux/netfilter/nf_tables.h.
    const PAYLOAD_BASE: u16 = 2;
    const PAYLOAD_OFFSET: u16 = 3;
    const CMP_OP: u16 = 2;
    const CMP_DATA: u16 = 3;
    const BITWISE_MASK: u16 = 4;
    let mut bits: BTreeMap<(u32, u32), (u8, u8)> = BTreeMap::new();
    let mut at = 0;
    while let Some(load) = rule.expressions.get(at) {
        let follows = |by: usize, name: &str| rule.expressions.get(at + by).filter(|expr| expr.name == name);
        let bitwise = follows(1, "bitwise");
        let compared = follows(1 + usize::from(bitwise.is_some()), "cmp");
        let equal = compared.filter(|cmp| load.name == "payload" && cmp.attributes().u32(CMP_OP) == Some(0));
        let Some(equal) = equal else {
            at += 1;
            continue;
        };
        let data = |expr: &RawExpr, kind| expr.attributes().nested(kind).unwrap().find(1).unwrap().value.to_vec();
        let value = data(equal, CMP_DATA);
        let mask = bitwise.map_or(vec![0xff; value.len()], |bitwise| data(bitwise, BITWISE_MASK));
        let place = load.attributes();
        for (offset, (value, mask)) in (place.u32(PAYLOAD_OFFSET).unwrap()..).zip(value.iter().zip(mask)) {
            let known = bits.entry((place.u32(PAYLOAD_BASE).unwrap(), offset)).or_default();
            *known = (known.0 | mask, known.1 | value);
        }
        rule.expressions.drain(at..at + 2 + usize::from(bitwise.is_some()));
    }
    let told = |(place, bits): (&(u32, u32), &(u8, u8))| format!("{place:?} {bits:02x?}");
    let equal = bits.iter().filter(|(_, (mask, _))| *mask != 0).map(told);
    equal.chain(kernel_form(kernel, table, &rule).into_iter().map(without_last_end)).collect()
}

/// nft leaves the end of a set away where it is behind the greatest number that a field can be.
fn without_last_end(form: String) -> String {
    match form.rsplit_once(", ") {
        Some((before, last)) if last.strip_suffix(" end").is_some_and(is_behind_a_field) => before.to_owned(),
        _ => form,
    }
}

/// One bit more than a field of less than whole bytes has.
fn is_behind_a_field(number: &str) -> bool {
    u32::from_str_radix(number, 16).is_ok_and(|number| matches!(number, 0x4 | 0x10 | 0x10_0000))
}

fn held(kernel: &mut Connection, table: Table<'_>) -> Vec<Vec<String>> {
    let rules = kernel.rules(table.family, table.name, Some("PREROUTING")).unwrap();
    rules.into_iter().map(|rule| meaning(kernel, table, rule)).collect()
}

/// Tests of u32, each taken as it is and inverted.
const WORDS_V4: &[&str] = &[
    "0>>24=0x45",
    "0>>28=4",
    "6&0xFF=0x6",
    "0&0xffff=100",
    "5&0xff=5",
    "0>>24&0xf=5",
    "8&0xFF0000=0x60000",
    "0>>18&0x3f=5",
    "0>>16&0x3=1",
    "16=0x0a090001",
    "0&0xffff0000=0x45000000",
    "0>>24=0",
    "0>>24=255",
    "0&0xffff=0x100:0xffffffff",
    "16>>24=10:11",
    "16>>8=0xa0000:0xa00ff",
    "12&0xffff0000=0xa000000:0xffffffff",
    "12>>24=10:11,13",
    "12>>20=0xa0:0xa1",
    "12&0xffff=5",
    "6&0xff=1:6,17",
    "0>>28=3:4",
    "0<<8>>8=8",
    "4&0xffff=0x2000:0x3000",
    "12&0x0f0f0f0f=0x0a000005:0x0b000000",
    "0&0xffff=1:5,7:9",
    "0&0xffff=0:5,7:0xffff",
    "0&0xffff=1:5,7:9,11:13,20:30",
    "0>>24=1:5,7:9",
    "12&0x0f0f0f0f=1:5,7:9",
    "12&0x0f0f0f0f=0:5,7:0x0f0f0f0f",
    "12=0x0a090001",
];
const WORDS_V6: &[&str] = &[
    "4>>16=6",
    "4&0xff=6",
    "3&0xff=6",
    "0>>20&0xff=6",
    "0&0xfffff=6",
    "4>>8&0xff=6",
    "0>>24=0x60",
    "0>>28=6",
    "0&0xffffff00=0x60123400",
    "0&0xffff0000=0x60120000",
    "8>>16=0x2001:0x2002",
    "24>>16=5:9,18",
    "0&0xfffff=6:9",
];
const PROGRAMS: &[&str] = &[
    "5,40 0 0 0,116 0 0 8,21 1 0 69,6 0 0 1,6 0 0 0",
    "5,48 0 0 0,84 0 0 15,37 0 1 5,6 0 0 1,6 0 0 0",
    "5,48 0 0 0,84 0 0 15,21 1 0 5,6 0 0 1,6 0 0 0",
    "5,40 0 0 0,84 0 0 255,37 0 1 5,6 0 0 1,6 0 0 0",
    "4,40 0 0 0,116 0 0 8,84 0 0 15,22 0 0 0",
    "4,48 0 0 0,21 0 1 96,6 0 0 1,6 0 0 0",
    "4,40 0 0 0,21 0 1 24594,6 0 0 1,6 0 0 0",
];

/// Tests of several ranges, and of all but some numbers.
const RANGES_V4: &[&str] = &[
    "-p tcp -m multiport --dports 22,80,8000:9000",
    "-p tcp -m multiport ! --dports 22,80,8000:9000",
    "-p udp -m multiport --ports 1:5,7:9,11:13,100",
    "-p udp -m multiport ! --ports 1:5,7,100",
    "-p tcp -m tcp ! --sport 5 ! --dport 6",
    "-p tcp -m tcp ! --sport 5 -m length --length 9 -m multiport ! --dports 6,8:9",
    "-p tcp -m multiport ! --sports 5,7:9 -m multiport ! --dports 6,8:9",
    "-p sctp -m multiport --sports 5:6,8:9 -m multiport --dports 5:6,8:9",
    "-m rpfilter",
    "-m rpfilter --invert",
];
const RANGES_V6: &[&str] = &["-m addrtype --src-type UNICAST", "-m addrtype ! --dst-type UNICAST"];

#[test]
fn words_of_a_packet_come_back_as_they_were() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    for (family, tests, ranges) in [(Family::V4, WORDS_V4, RANGES_V4), (Family::V6, WORDS_V6, RANGES_V6)] {
        let plain = tests.iter().map(|test| vec!["-m", "u32", "--u32", test]);
        let inverted = tests.iter().map(|test| vec!["-m", "u32", "!", "--u32", test]);
        let programs = PROGRAMS.iter().map(|program| vec!["-m", "bpf", "--bytecode", program]);
        let ranges = ranges.iter().map(|rule| rule.split(' ').collect());
        for rule in plain.chain(inverted).chain(programs).chain(ranges) {
            let parts = translated(family, &rule).unwrap_or_else(|| panic!("refused: {rule:?}"));
            let table = Table { family, name: "ours" };
            kernel.commit(batch_with(table, &parts), None).unwrap();
            let was = held(&mut kernel, table);
            let listing = nft(&["list", "table", family.nft(), table.name], "").unwrap();
            nft(&["delete", "table", family.nft(), table.name], "").unwrap();
            nft(&["-f", "-"], &listing).unwrap_or_else(|error| panic!("{rule:?}: {error}"));
            assert_eq!(held(&mut kernel, table), was, "{rule:?}: {listing}");
            nft(&["delete", "table", family.nft(), table.name], "").unwrap();
        }
    }
}

#[test]
fn two_protocols_in_one_rule_are_refused() {
    let refused = |family, rule: &str| translated(family, &rule.split(' ').collect::<Vec<_>>()).is_none();
    assert!(refused(Family::V4, "-p udp -m u32 --u32 6&0xff=6 -m udp --dport 5"));
    assert!(refused(Family::V4, "-p udp -m u32 --u32 8&0xffff0000=0x40060000 -m udp --dport 5"));
    assert!(refused(Family::V6, "-p udp -m u32 --u32 3&0xff=6 -m udp --dport 5"));
    assert!(!refused(Family::V4, "-p udp -m u32 --u32 6&0xff=17 -m udp --dport 5"));
    assert!(!refused(Family::V4, "-p udp -m u32 --u32 6&0xff=6:17 -m udp --dport 5"));
}
