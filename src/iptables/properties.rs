//! What must hold of every rule and every line, however odd.

use super::dialect::{Dialect, Variant};
use super::*;
use crate::family::Family;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const DIALECT: Dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 13) };

/// The same cases each time, unless PROPTEST_RNG_SEED asks for others.
fn seed() -> RngSeed {
    match ProptestConfig::default().rng_seed {
        RngSeed::Random => RngSeed::Fixed(20_261_120),
        RngSeed::Fixed(fixed) => RngSeed::Fixed(fixed),
    }
}

fn parse_rule(words: &[String]) -> Option<Rule> {
    let mut args = vec!["-A".to_owned(), "PREROUTING".to_owned()];
    args.extend(words.iter().cloned());
    match parse(Family::V4, &args, &DIALECT).ok()?.command {
        Command::Append { mut rules, .. } if rules.len() == 1 => rules.pop(),
        _ => None,
    }
}

fn bang() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just("! ")]
}

fn ports() -> impl Strategy<Value = String> {
    (any::<u16>(), any::<u16>(), any::<bool>()).prop_map(|(a, b, single)| match single {
        true => a.to_string(),
        false => format!("{}:{}", a.min(b), a.max(b)),
    })
}

fn quoted() -> impl Strategy<Value = String> {
    "[ -~\n\té]{1,40}".prop_map(|text| text.trim_end_matches('\n').to_owned())
}

/// Options that a rule may have, each a list of words.
fn part() -> impl Strategy<Value = Vec<String>> {
    let words = |text: String| text.split(' ').map(str::to_owned).filter(|w| !w.is_empty()).collect::<Vec<_>>();
    let comment = quoted().prop_map(|text| vec!["-m".into(), "comment".into(), "--comment".into(), text]);
    prop_oneof![
        (bang(), any::<u32>(), 0u8..33)
            .prop_map(|(b, a, l)| format!("{b}-s {}/{l}", std::net::Ipv4Addr::from(a)))
            .prop_map(words),
        (bang(), any::<u32>(), any::<u32>())
            .prop_map(|(b, a, m)| format!("{b}-d {}/{}", std::net::Ipv4Addr::from(a), std::net::Ipv4Addr::from(m)))
            .prop_map(words),
        (bang(), "[a-z0-9.-]{1,14}[+0-9]").prop_map(|(b, name)| format!("{b}-i {name}")).prop_map(words),
        (bang(), ports()).prop_map(|(b, p)| format!("-p tcp -m tcp {b}--dport {p}")).prop_map(words),
        (bang(), ports()).prop_map(|(b, p)| format!("-p udp -m udp {b}--sport {p}")).prop_map(words),
        (bang(), prop::collection::vec(any::<u16>(), 1..15))
            .prop_map(|(b, p)| {
                let list: Vec<String> = p.iter().map(u16::to_string).collect();
                format!("-p tcp -m multiport {b}--ports {}", list.join(","))
            })
            .prop_map(words),
        (bang(), any::<u32>(), any::<u32>()).prop_map(|(b, v, m)| format!("-m mark {b}--mark {v}/{m}")).prop_map(words),
        (1u32..2_000_000, 0usize..4, 1u32..10_000)
            .prop_map(|(r, u, n)| format!("-m limit --limit {r}/{} --limit-burst {n}", ["s", "m", "h", "d"][u]))
            .prop_map(words),
        // iptables saves type 255, which stands for every type, without its code.
        (bang(), 0u8..255, prop::option::of(any::<u8>()))
            .prop_map(|(b, t, c)| match c {
                Some(c) => format!("-p icmp -m icmp {b}--icmp-type {t}/{c}"),
                None => format!("-p icmp -m icmp {b}--icmp-type {t}"),
            })
            .prop_map(words),
        (bang(), 0usize..7, 0usize..7, prop::option::of(ports()))
            .prop_map(|(b, s, t, p)| {
                let names = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT"];
                let port = p.map(|p| format!("--ctorigdstport {p}")).unwrap_or_default();
                format!("-m conntrack {b}--ctstate {},{} {port}", names[s], names[t])
            })
            .prop_map(words),
        (bang(), any::<u16>(), any::<u16>())
            .prop_map(|(b, x, y)| format!("-m length {b}--length {x}:{y}"))
            .prop_map(words),
        (bang(), any::<[u8; 6]>())
            .prop_map(|(b, m)| format!("-m mac {b}--mac-source {}", m.map(|x| format!("{x:x}")).join(":")))
            .prop_map(words),
        comment,
    ]
}

fn target() -> impl Strategy<Value = Vec<String>> {
    let plain = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    prop_oneof![
        Just(Vec::new()),
        Just(plain("-j DROP")),
        Just(plain("-j NOTRACK")),
        Just(plain("-j TRACE")),
        Just(plain("-g elsewhere")),
        any::<u16>().prop_map(move |zone| plain(&format!("-j CT --zone-orig {zone}"))),
        (any::<u32>(), any::<u32>()).prop_map(move |(v, m)| plain(&format!("-j MARK --set-mark {v}/{m}"))),
        quoted().prop_map(|text| vec!["-j".into(), "LOG".into(), "--log-prefix".into(), text]),
        quoted().prop_map(|text| vec!["-j".into(), "NFLOG".into(), "--nflog-prefix".into(), text]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, rng_seed: seed(), ..ProptestConfig::default() })]

    /// What iptables-save would write is read back as the same rule, and the kept form too.
    #[test]
    fn saved_rules_are_read_back(first in part(), second in part(), target in target()) {
        let words: Vec<String> = first.into_iter().chain(second).chain(target).collect();
        let Some(rule) = parse_rule(&words) else { return Ok(()) };
        let saved = rule.save(&DIALECT);
        let hidden = saved.contains("multiport") || words.contains(&"!".to_owned());
        let again = parse_rule(&restore::split(&saved).unwrap());
        if let Some(again) = &again {
            prop_assert_eq!(&again.save(&DIALECT), &saved);
            prop_assert!(again.same(&rule) || hidden, "{} / {}", again.spec(), rule.spec());
        }
        prop_assert!(again.is_some(), "{}", saved);
        let kept = Rule::from_spec(Family::V4, "filter", &rule.spec(), rule.jump()).unwrap();
        prop_assert!(kept.same(&rule));
        prop_assert_eq!(kept.save(&DIALECT), saved);
        let context = TranslateContext { family: Family::V4, table: "raw", chain: "PREROUTING" };
        prop_assert_eq!(format!("{:?}", kept.translate(&context)), format!("{:?}", rule.translate(&context)));
    }

    /// What needs no reading is saved by all of them in the words in which it is kept.
    #[test]
    fn plain_texts_are_what_is_saved(first in part(), second in part(), target in target()) {
        let words: Vec<String> = first.into_iter().chain(second).chain(target).collect();
        let Some(rule) = parse_rule(&words) else { return Ok(()) };
        let spec = rule.spec();
        let Some(plain) = plain::saved(&spec) else { return Ok(()) };
        let plain = match plain {
            plain::Saved::Whole(spec) => spec.to_owned(),
            plain::Saved::Calls { spec, option } => format!("{spec}{option}{}", rule.jump().unwrap_or_default()),
        };
        let read = Rule::from_spec(Family::V4, "filter", &spec, rule.jump()).unwrap();
        for version in [(1, 8, 2), (1, 8, 4), (1, 8, 7), (1, 8, 8), (1, 8, 9), (1, 8, 10), (1, 8, 11), (1, 8, 13)] {
            for variant in [Variant::Legacy, Variant::Nft] {
                let saved = read.save(&Dialect { family: Family::V4, variant, version });
                prop_assert_eq!(saved.trim_start(), plain.trim_start(), "{:?} {:?}", variant, version);
            }
        }
    }

    /// No line makes the parser panic, and whatever the parser takes, the lenient look finds the same table.
    #[test]
    fn any_line_is_read(words in prop::collection::vec(word(), 0..10)) {
        for family in Family::ALL {
            if let Ok(invocation) = parse(family, &words, &DIALECT)
                && !matches!(invocation.command, Command::Help | Command::Version)
            {
                prop_assert_eq!(peek_table(words.iter().map(String::as_str)).unwrap_or("filter"), &invocation.table);
            }
        }
        let line = words.join(" ");
        restore::read_line(&line);
        let _ = Rule::from_spec(Family::V4, "raw", &line, None);
    }

    /// A quoted word is one word again, whatever is in it.
    #[test]
    fn quoting_is_undone(text in "\\PC{0,30}|[\"'\\\\ \t\n]{0,10}") {
        prop_assert_eq!(restore::split(&quote(&text)), Some(vec![text]));
    }
}

fn word() -> impl Strategy<Value = String> {
    let known: Vec<&'static str> = "-A -D -I -R -L -S -F -Z -N -X -E -P -C -nvL -t -traw --table=raw --tab raw -p tcp udp icmp -s -d \
        1.2.3.4 10/8 1.2.3.4,5.6.7.8 -i -o eth0 lo+ ! -j DROP ACCEPT LOG NFLOG MARK CT NOTRACK -g -m comment --comment multiport \
        --dport --sports --syn --tcp-flags SYN 80 80:90 conntrack --ctstate NEW limit --limit 5/s PREROUTING OUTPUT 1 -w -w5 \
        -W -x -n -v -c 1,2 --line-numbers -4 -6 -f -- - --log-prefix --set-mark 0x1/0xff --icmp-type -h -V"
        .split_whitespace()
        .collect();
    prop_oneof![8 => prop::sample::select(known).prop_map(str::to_owned), 1 => "\\PC{0,8}", 1 => "-{1,2}[a-z0-9=]{0,6}"]
}
