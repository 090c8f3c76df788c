//! A rule as nf_tables expressions.

#![forbid(unsafe_code)]

use super::address::{AddressMatch, octets};
use super::ext::RuleContext;
use super::interface::InterfaceMatch;
use super::rule::{Rule, Target};
use crate::error::Refusal;
use crate::family::Family;
use crate::nft::circumstance::Circumstance;
use crate::nft::expr::Verdict;
use crate::nft::expr::{Alternative, Assign, Base, Expr, Field, Key, Mark, Match, Meta, Op, SetField, Value};
use crate::nft::intervals;
use crate::nft::key;

/// Where a rule is to stand.
#[derive(Clone, Copy, Debug)]
pub struct TranslateContext<'a> {
    /// Of the rule.
    pub family: Family,
    /// iptables' table.
    pub table: &'a str,
    /// iptables' chain.
    pub chain: &'a str,
}

/// How many rules of nf_tables one rule may become.
const PARTS_MAX: usize = 80;

/// Fragment offset bits of the IPv4 header's seventh and eighth byte (RFC 791, 3.1).
const FRAGMENT_OFFSET: [u8; 2] = [0x1f, 0xff];

/// `key OP value` with all bits of the key.
pub(super) fn matching(key: Key, inverted: bool, value: Value) -> Expr {
    Expr::Match(Match { key, mask: None, op: if inverted { Op::Ne } else { Op::Eq }, value })
}

/// What no packet meets, in words that nft can read again: none is without a header.
pub(super) fn never() -> Expr {
    matching(Key::Meta(Meta::Length), false, Value::Bytes(0u32.to_ne_bytes().to_vec()))
}

/// The packet is whole or its first fragment.
pub(super) fn not_a_fragment() -> Expr {
    fragment_test(true)
}

fn fragment_test(inverted: bool) -> Expr {
    Expr::Match(Match {
        key: Key::Payload(Field::Ip4FragOff),
        mask: Some(FRAGMENT_OFFSET.to_vec()),
        op: if inverted { Op::Eq } else { Op::Ne },
        value: Value::Bytes(vec![0, 0]),
    })
}

/// The packet is whole or its first fragment, in IPv6: the kernel loads three bytes the long way, which fails for later
/// fragments.
fn not_a_fragment_v6() -> Expr {
    Expr::Match(Match {
        key: Key::Payload(Field::Raw { base: Base::Transport, offset: 0, len: 24 }),
        mask: None,
        op: Op::Ge,
        value: Value::Bytes(vec![0; 3]),
    })
}

/// xt's matches see no transport header in later fragments. nf_tables' short way of loading one or two bytes of it does
/// not ask, and reads in their place what the fragment bears (IPv4) or the IPv6 header.
fn guard_from_fragments(family: Family, alternative: &mut Alternative) {
    let of_transport = |expr: &Expr| matches!(expr, Expr::Match(found) if is_of_transport(found.key));
    let Some(first) = alternative.iter().position(of_transport) else { return };
    let guard = match family {
        Family::V4 => not_a_fragment(),
        Family::V6 => not_a_fragment_v6(),
    };
    if !alternative.iter().take(first).any(|expr| *expr == guard) {
        alternative.insert(first, guard);
    }
}

fn is_of_transport(key: Key) -> bool {
    match key {
        Key::Payload(field) => field.is_of_transport(),
        // The socket is looked for by the packet's ports.
        Key::TcpOption(_) | Key::Circumstance(Circumstance::Transparent) => true,
        _ => false,
    }
}

/// How many tests one alternative may become: the kernel takes 128 expressions for a rule (NFT_RULE_MAXEXPRS,
/// linux/netfilter/nf_tables.h), and a test is three or four.
const TESTS_MAX: usize = 32;

/// Without sets of ranges, which are empty for a moment. With `parted` one alternative may become several; without, and where
/// it would become too long, such a set stays.
fn without_intervals(alternative: Alternative, parted: bool) -> Vec<Alternative> {
    let spread = |expr: &Expr| match expr {
        Expr::Match(found) => intervals::spread(found).filter(|said| parted || said.len() == 1),
        _ => None,
    };
    if alternative.iter().all(|expr| spread(expr).is_none()) {
        return vec![alternative];
    }
    let said = alternative.iter().map(|expr| match spread(expr) {
        Some(tests) => tests.into_iter().map(|tests| tests.into_iter().map(Expr::Match).collect()).collect(),
        None => vec![vec![expr.clone()]],
    });
    let said: Vec<Vec<Alternative>> = said.collect();
    // Each that doubles the parts doubles those of all others.
    let parts = said.iter().try_fold(1_usize, |parts, choices| parts.checked_mul(choices.len()));
    if parts.is_none_or(|parts| parts > PARTS_MAX) {
        return vec![alternative];
    }
    let said = said.iter().fold(vec![Vec::new()], |said, choices| product(&said, choices));
    if said.iter().any(|tests| tests.len() > TESTS_MAX) { vec![alternative] } else { said }
}

/// Tests of neighbouring fields that each exclude one value: up to at least 1.0.6 nft takes `sport != A … dport != B` for one
/// comparison when it loads a ruleset, whatever stands between them, which excludes only both together. So the second
/// excludes a range of that one value, which nft leaves as it is.
fn keep_exclusions_apart(alternative: &mut Alternative) {
    for at in 1..alternative.len() {
        let (before, behind) = alternative.split_at_mut(at);
        if let Some(Expr::Match(second)) = behind.first_mut()
            && let Value::Bytes(bytes) = &second.value
            && before.iter().any(|first| matches!(first, Expr::Match(first) if are_taken_for_one(first, second)))
        {
            second.value = Value::Range(bytes.clone(), bytes.clone());
        }
    }
}

fn are_taken_for_one(first: &Match, second: &Match) -> bool {
    let excludes = |one: &Match| one.op == Op::Ne && one.mask.is_none() && matches!(one.value, Value::Bytes(_));
    let (Key::Payload(one), Key::Payload(other)) = (first.key, second.key) else { return false };
    let (one, other) = (key::place(one), key::place(other));
    let ends_at = |place: key::Place, start: u32| u32::try_from(place.len).is_ok_and(|len| place.offset + len == start);
    let adjoin = ends_at(one, other.offset) || ends_at(other, one.offset);
    excludes(first) && excludes(second) && one.base == other.base && adjoin && one.len + other.len <= size_of::<u32>()
}

impl Rule {
    /// The rule as nf_tables expressions: parts that stand behind each other, nearly always one. A counter stands right
    /// before what the target does first; the first alternative's begins with this rule's counters. Whatever has no
    /// exact form is refused, naming the option.
    pub fn translate(&self, context: &TranslateContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        self.parts(context, true).or_else(|_| self.parts(context, false))
    }

    /// `parted` as [`without_intervals`] takes it.
    fn parts(&self, context: &TranslateContext<'_>, parted: bool) -> Result<Vec<Alternative>, Refusal> {
        let whole = self.fragment == Some(true) || self.matches.iter().any(|m| m.sees_no_later_fragment());
        let rule = RuleContext { place: context, protocol: self.protocol, whole };
        let mut alternatives = vec![self.translate_base()];
        for m in &self.matches {
            alternatives = product(&alternatives, &m.translate(&rule)?);
        }
        alternatives = alternatives.into_iter().flat_map(|one| without_intervals(one, parted)).collect();
        for alternative in &mut alternatives {
            guard_from_fragments(self.family, alternative);
            keep_exclusions_apart(alternative);
        }
        if alternatives.len() > 1
            && let Some(stateful) = self.matches.iter().find(|m| m.is_stateful())
        {
            return Err(Refusal::new(format!("-m {}", stateful.name()), "would be counted once for each alternative"));
        }
        let actions = self.translate_target(&rule)?;
        let in_turn = matches!(&self.target, Target::Extension(target) if target.acts_in_turn()) && actions.len() > 1;
        self.refuse_to_act_twice(&alternatives, &actions, in_turn)?;
        refuse_to_label_early(&alternatives, actions.len())?;
        if matches!(self.target, Target::Jump(_)) {
            refuse_to_call_twice(&alternatives, context.table)?;
        }
        // As nearly always: nothing has to be copied.
        if let ([_], [_]) = (alternatives.as_slice(), actions.as_slice()) {
            let (packets, bytes) = self.counters;
            let mut part = alternatives.pop().unwrap_or_default();
            part.push(Expr::Counter { packets, bytes });
            part.extend(actions.into_iter().flatten());
            return Ok(vec![part]);
        }
        let mut parts = Vec::with_capacity(alternatives.len() * actions.len());
        for (index, alternative) in alternatives.iter().enumerate() {
            let (packets, bytes) = if index == 0 { self.counters } else { (0, 0) };
            for (number, action) in actions.iter().enumerate() {
                let counter = (number == 0).then_some(Expr::Counter { packets, bytes });
                parts.push(alternative.iter().cloned().chain(counter).chain(action.iter().cloned()).collect());
            }
        }
        if parts.len() > PARTS_MAX {
            return Err(Refusal::new("the rule", format!("would take {} rules of nf_tables", parts.len())));
        }
        Ok(parts)
    }

    /// What one part of the rule has written must not make another part of it meet the same packet, or miss it.
    fn refuse_to_act_twice(
        &self,
        alternatives: &[Alternative],
        actions: &[Alternative],
        in_turn: bool,
    ) -> Result<(), Refusal> {
        let by_target = |key: Key| actions.iter().flatten().any(|expr| expr.changes(key));
        let changed = alternatives.iter().flatten().find_map(|expr| match expr {
            Expr::Match(found) if by_target(found.key) => {
                let common = alternatives.iter().all(|alternative| alternative.contains(expr));
                (in_turn || !common).then_some(())
            }
            _ => None,
        });
        match (changed, self.matches.iter().find(|m| m.is_stateful()), &self.target) {
            (Some(()), _, Target::Extension(target)) => Err(Refusal::new(
                format!("-j {}", target.name()),
                "writes in several steps what a match of the same rule looks at",
            )),
            (None, Some(stateful), _) if actions.len() > 1 => Err(Refusal::new(
                format!("-m {}", stateful.name()),
                "would be counted once for each step of the target",
            )),
            _ => Ok(()),
        }
    }

    fn translate_base(&self) -> Alternative {
        let (saddr, daddr) = Field::addresses(self.family);
        let mut exprs = Vec::new();
        exprs.extend(address(saddr, self.source.as_ref()));
        exprs.extend(address(daddr, self.destination.as_ref()));
        exprs.extend(interface(Meta::Iifname, self.input.as_ref()));
        exprs.extend(interface(Meta::Oifname, self.output.as_ref()));
        if self.protocol.number != 0 {
            let value = Value::Bytes(vec![self.protocol.number]);
            exprs.push(matching(Key::Meta(Meta::L4proto), self.protocol.inverted, value));
        }
        if let Some(inverted) = self.fragment {
            exprs.push(fragment_test(inverted));
        }
        exprs
    }

    /// What the target does: one list of expressions, or several (see [`super::ext::Extension::acts_in_turn`]).
    fn translate_target(&self, rule: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let verdict = match &self.target {
            Target::None => return Ok(vec![Vec::new()]),
            Target::Accept => Verdict::Accept,
            Target::Drop => Verdict::Drop,
            Target::Return => Verdict::Return,
            Target::Jump(chain) => Verdict::Jump(chain.clone()),
            Target::Goto(chain) => Verdict::Goto(chain.clone()),
            Target::Extension(target) => {
                let mut actions = target.translate(rule)?;
                actions.iter_mut().for_each(|action| guard_from_fragments(self.family, action));
                return Ok(actions);
            }
        };
        Ok(vec![vec![Expr::Verdict(verdict)]])
    }
}

/// A label that is only given where it was not there must not be given in a part of the rule that another part begins
/// like: that one would find it there.
fn refuse_to_label_early(alternatives: &[Alternative], actions: usize) -> Result<(), Refusal> {
    for alternative in alternatives {
        for (at, given) in alternative.iter().enumerate() {
            let Expr::Assign(Assign::Label(bit)) = given else { continue };
            let lacks = super::ext::lacks_label(*bit);
            let begun = alternative.get(..=at).unwrap_or_default();
            let alike = alternatives.iter().filter(|other| other.starts_with(begun)).count();
            if alike.max(actions) > 1 && begun.contains(&lacks) {
                return Err(Refusal::new("--set", "would be seen by what the rule asks before"));
            }
        }
    }
    Ok(())
}

/// A chain that comes back may have written what tells the parts of the rule from each other.
fn refuse_to_call_twice(alternatives: &[Alternative], table: &str) -> Result<(), Refusal> {
    let common = |expr: &Expr| alternatives.iter().all(|alternative| alternative.contains(expr));
    let found = alternatives.iter().flatten().find(|expr| match expr {
        Expr::Match(found) => may_be_written(found.key, table) && !common(expr),
        _ => false,
    });
    match found {
        Some(_) => Err(Refusal::new("the jump", "would be made twice where its chain writes what the rule looks at")),
        None => Ok(()),
    }
}

/// Whether a target that may stand in that table writes what a match looks at, labels excepted: a connection that has one
/// keeps it, which no part of a rule that lacks it meets again.
fn may_be_written(key: Key, table: &str) -> bool {
    let marks = [Mark::Packet, Mark::Connection].map(|to| Assign::Mark { to, from: to, mask: 0, xor: 0, shift: None });
    let fields = SetField::ALL.map(|field| Assign::Field { field, value: 0 });
    let of_packet = fields.iter().chain([&Assign::StripTcpOption(0)]);
    marks.iter().chain(of_packet.filter(|_| table == "mangle")).any(|write| write.changes(key))
}

/// Both conjunctions, in every combination.
pub(super) fn product(left: &[Alternative], right: &[Alternative]) -> Vec<Alternative> {
    left.iter().flat_map(|head| right.iter().map(|tail| head.iter().chain(tail).cloned().collect())).collect()
}

fn address(field: Field, wanted: Option<&AddressMatch>) -> Option<Expr> {
    let wanted = wanted?;
    if wanted.network.is_all() && !wanted.inverted {
        return None;
    }
    let mask = octets(wanted.network.mask);
    let whole = mask.iter().all(|byte| *byte == 0xff);
    Some(Expr::Match(Match {
        key: Key::Payload(field),
        mask: (!whole).then_some(mask),
        op: if wanted.inverted { Op::Ne } else { Op::Eq },
        value: Value::Bytes(octets(wanted.network.address)),
    }))
}

fn interface(key: Meta, wanted: Option<&InterfaceMatch>) -> Option<Expr> {
    let wanted = wanted?;
    match (wanted.is_all(), wanted.inverted) {
        (true, true) => Some(never()),
        (true, false) => None,
        (false, inverted) => Some(matching(Key::Meta(key), inverted, Value::Bytes(wanted.bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::dialect::{Dialect, Variant};
    use crate::iptables::{Command, parse};

    fn translation(family: Family, table: &str, rule: &str) -> Result<Vec<Alternative>, Refusal> {
        let dialect = Dialect { family, variant: Variant::Legacy, version: (1, 8, 9) };
        let words: Vec<String> = format!("-A PREROUTING {rule}").split(' ').map(str::to_owned).collect();
        let Ok(Command::Append { rules, .. }) = parse(family, &words, &dialect).map(|read| read.command) else {
            panic!("{rule}");
        };
        rules[0].translate(&TranslateContext { family, table, chain: "PREROUTING" })
    }

    fn translated(family: Family, rule: &str) -> Vec<Alternative> {
        translation(family, "raw", rule).expect("it can be carried")
    }

    /// What a rule of mangle is refused for.
    fn refused(rule: &str) -> Option<String> {
        translation(Family::V4, "mangle", rule).err().map(|refusal| refusal.option)
    }

    #[test]
    fn no_packet_is_counted_or_changed_twice() {
        for (rule, option) in [
            // One rule of nf_tables for either port, or for each value that the target makes of another.
            ("-p tcp -m multiport --ports 80 -m limit --limit 1/s", "-m limit"),
            ("-m limit --limit 1/s -j TOS --or-tos 4", "-m limit"),
            // What the first of them has written the second would look at.
            ("-m tos ! --tos 0x10/0xff -j TOS --set-tos 0x20/0xff", "-j TOS"),
            ("-m connmark --mark 1/1 -j CONNMARK --save-mark --nfmask 0xffff --ctmask 0xffff", "-j CONNMARK"),
            ("-p udp -m connlabel ! --label 7 -m connlabel --label 7 --set -m multiport --ports 9,2000", "--set"),
            ("-m connlabel ! --label 7 -m connlabel --label 7 --set -j TOS --or-tos 4", "--set"),
            ("-p tcp -m multiport --ports 80 -j TOS --or-tos 5", "the rule"),
        ] {
            assert_eq!(refused(rule).as_deref(), Some(option), "{rule}");
        }
        for rule in [
            "-m limit --limit 1/s -j ACCEPT",
            "-p tcp -m multiport --ports 80 -j MARK --set-mark 1",
            "-m tos --tos 0x10/0xff -j TOS --set-tos 0x20/0xff",
            "-m tos --tos 0x10/0xff -j TOS --or-tos 4",
            "-m connmark --mark 1/1 -j CONNMARK --save-mark",
            "-m mark --mark 1/1 -j CONNMARK --save-mark --nfmask 0xffff --ctmask 0xffff",
            "-p udp -m multiport --ports 9,2000 -m connlabel ! --label 7 -m connlabel --label 7 --set",
            "-p tcp -m multiport --ports 80 -j TOS --or-tos 4",
        ] {
            assert_eq!(refused(rule), None, "{rule}");
        }
    }

    #[test]
    fn the_counters_of_a_rule_are_those_of_its_first_part() {
        let counters = |rule: &str| {
            let parts = translation(Family::V4, "mangle", rule).expect("it can be carried");
            let of = |part: &Alternative| {
                part.iter()
                    .filter_map(|expr| match expr {
                        Expr::Counter { packets, bytes } => Some((*packets, *bytes)),
                        _ => None,
                    })
                    .collect::<Vec<_>>()
            };
            parts.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(counters("-c 1 2 -j DROP"), [[(1, 2)]]);
        assert_eq!(counters("-c 1 2 -p tcp -m multiport --ports 80 -j DROP"), [[(1, 2)], [(0, 0)]]);
        // The second step of a target meets the packets that the first has counted.
        let steps = counters("-c 1 2 -p tcp -j TCPOPTSTRIP --strip-options 2,3,4,5,6,7");
        assert_eq!(steps, [vec![(1, 2)], vec![]]);
    }

    #[test]
    fn no_chain_is_called_twice_for_one_packet() {
        let carried = |table, rule: &str| translation(Family::V4, table, rule).is_ok();
        assert!(!carried("mangle", "-m tos ! --tos 0x10/0xff -j mine"));
        assert!(!carried("raw", "-m rpfilter --validmark --invert -j mine"));
        for (table, rule) in [
            ("mangle", "-m tos ! --tos 0x10/0xff -g mine"),
            ("mangle", "-m tos ! --tos 0x10/0xff"),
            ("mangle", "-m tos --tos 0x10/0xff -j mine"),
            ("filter", "-m tos ! --tos 0x10/0xff -j mine"),
            ("mangle", "-m mark --mark 1 -p tcp -m multiport --ports 80 -j mine"),
            ("mangle", "-m connlabel ! --label 3 -j mine"),
        ] {
            assert!(carried(table, rule), "{table} {rule}");
        }
    }

    fn guards(family: Family, rule: &str) -> Vec<usize> {
        let guard = if family == Family::V4 { not_a_fragment() } else { not_a_fragment_v6() };
        translated(family, rule).iter().map(|one| one.iter().filter(|expr| **expr == guard).count()).collect()
    }

    #[test]
    fn two_exclusions_of_neighbours_are_not_taken_for_one() {
        let excluded = |rule: &str| {
            let translated = translated(Family::V4, rule);
            let excludes = |expr: &Expr| matches!(expr, Expr::Match(Match { op: Op::Ne, value: Value::Bytes(_), .. }));
            translated.iter().map(|one| one.iter().filter(|expr| excludes(expr)).count()).collect::<Vec<_>>()
        };
        assert_eq!(excluded("-p tcp -m tcp ! --sport 5 ! --dport 6"), [1]);
        assert_eq!(excluded("-p tcp -m tcp ! --dport 6 -m tcp ! --sport 5"), [1]);
        assert_eq!(excluded("-p tcp -m tcp ! --sport 5 -m multiport ! --dports 6"), [1]);
        assert_eq!(excluded("-p tcp -m tcp ! --sport 5 -m length --length 9 -m multiport ! --dports 6"), [1]);
        assert_eq!(excluded("-p tcp -m tcp ! --sport 5 -m multiport --dports 6:8,10:20"), [1]);
        assert_eq!(excluded("-p tcp ! -s 10.0.0.1 ! -d 10.0.0.2"), [2]);
        assert_eq!(excluded("-p tcp -m tcp --sport 5 ! --dport 6"), [1]);
        let six = matching(Key::Payload(Field::TcpDport), false, Value::Bytes(vec![0, 6]));
        let one_excluded = translated(Family::V4, "-p tcp -m tcp ! --sport 5 --dport 6");
        assert!(one_excluded.iter().all(|one| one.contains(&six)), "{one_excluded:?}");
    }

    #[test]
    fn a_set_of_ranges_stays_where_a_rule_cannot_go_without() {
        let sets = |rule: &str| {
            let parts = translated(Family::V4, rule);
            let of_ranges = |expr: &&Expr| matches!(expr, Expr::Match(found) if intervals::spread(found).is_some());
            (parts.len(), parts.iter().flatten().filter(of_ranges).count())
        };
        assert_eq!(sets("-p tcp -m multiport --dports 1,3:5,7"), (1, 0));
        assert_eq!(sets("-p tcp -m multiport ! --ports 1,3:5,7"), (1, 0));
        assert_eq!(sets("-m u32 ! --u32 0&0xffff=100"), (2, 0));
        assert_eq!(sets("-m u32 ! --u32 0&0xffff=100 -m limit --limit 5/second"), (1, 1));
        let fifteen = "-m multiport --dports 1,3,5,7,9,11,13,15,17,19,21,23,25,27:29 ";
        assert_eq!(sets(&format!("-p tcp {fifteen}-j ACCEPT")), (1, 0));
        let many: String =
            (0..9).map(|at| format!("-m multiport --sports 1:{0},{1}:60,70:80,90:95 ", at + 5, at + 20)).collect();
        assert_eq!(sets(&format!("-p tcp {many}-j ACCEPT")), (1, 9));
        // The most tests that an alternative may become, and one more.
        let seven = "-m multiport --dports 1:2,5:6,9:10,13:14,17:18,21:22,25:26 ".repeat(4);
        let and = |last: &str| sets(&format!("-p tcp {seven}-m multiport --dports {last} -j ACCEPT"));
        assert_eq!(and("1:2,5:6,9:10"), (1, 0));
        assert_eq!(and("1:2,5:6,9:10,13:14"), (1, 5));
        // Each of them doubles the parts.
        let misses = (0..24).map(|at| format!("-m u32 ! --u32 {}&0xffff=100 ", at % 16)).collect::<String>();
        assert_eq!(sets(&format!("{misses}-j ACCEPT")), (1, 24));
        assert_eq!(sets("-m u32 ! --u32 4&0xffff=100 -j mine"), (2, 0));
        assert_eq!(sets("-m u32 ! --u32 8&0xffff=100 -j ACCEPT"), (2, 0));
    }

    #[test]
    fn a_chain_that_changes_the_checksum_is_called_once() {
        let parts = |table: &str| {
            let rule = Rule::from_spec(
                Family::V4,
                table,
                "jump -m u32 --u32 0x8&0xffff=0x0:0x7fff,0x8001:0xffff",
                Some("mine"),
            )
            .unwrap();
            rule.translate(&TranslateContext { family: Family::V4, table, chain: "PREROUTING" }).unwrap().len()
        };
        assert_eq!((parts("mangle"), parts("raw")), (1, 2));
    }

    #[test]
    fn no_transport_header_is_read_out_of_a_later_fragment() {
        for family in [Family::V4, Family::V6] {
            assert_eq!(guards(family, "-p tcp --dport 80"), [1]);
            assert_eq!(guards(family, "-p tcp --tcp-flags SYN SYN --sport 1 --dport 2"), [1]);
            assert_eq!(guards(family, "-p udp -m udp"), [1]);
            assert_eq!(guards(family, "-p udp -m multiport --ports 1,2"), [1, 1]);
            assert_eq!(guards(family, "-p tcp"), [0]);
            assert_eq!(guards(family, "-m length --length 500"), [0]);
        }
        assert_eq!(guards(Family::V4, "-p icmp --icmp-type 8"), [1]);
        assert_eq!(guards(Family::V6, "-p icmpv6 --icmpv6-type 128/0"), [1]);
        assert_eq!(guards(Family::V4, "! -f -p udp --dport 5"), [1]);
    }
}
