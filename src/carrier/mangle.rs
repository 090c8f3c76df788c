//! Raw held by the backend's mangle table.
//!
//! mangle is called after connection tracking's look at the packet and before DNAT, at the same two hooks as raw, so a
//! packet still bears what it bore on the wire and every match that looks at that alone passes as it is. `ACCEPT`
//! becomes `RETURN` out of our chain, or later rules of mangle would be skipped; `RETURN` goes to the policy, which
//! stands in a chain of its own.

#![forbid(unsafe_code)]

use super::hosted::{Hosting, Wanted, Written, refuse_user_chains, restorable};
use super::table::{Base, Held, Policy, Table};
use crate::config::CarrierKind;
use crate::error::{Error, Refusal};
use crate::iptables::Rule;
use crate::iptables::dialect::Dialect;
use crate::iptables::rule::Target;

/// Chains of raw with ours for their rules and for their policy.
const CHAINS: [(&str, &str, &str); 2] = [
    ("PREROUTING", "xtshim-raw-PREROUTING", "xtshim-raw-PREROUTING-end"),
    ("OUTPUT", "xtshim-raw-OUTPUT", "xtshim-raw-OUTPUT-end"),
];

/// How mangle holds raw.
pub static HOSTING: Hosting = Hosting {
    kind: CarrierKind::Mangle,
    host: "mangle",
    limits: [
        "no chains of one's own, no targets but ACCEPT, DROP and RETURN, no match on connections or that counts",
        "connection tracking sees a packet before it is dropped",
    ],
    jumps: &[("PREROUTING", "xtshim-raw-PREROUTING"), ("OUTPUT", "xtshim-raw-OUTPUT")],
    chains: &["xtshim-raw-PREROUTING", "xtshim-raw-PREROUTING-end", "xtshim-raw-OUTPUT", "xtshim-raw-OUTPUT-end"],
    write,
    read,
};

/// Matches that look at nothing but the packet, its device and its socket, and keep nothing between packets: the others
/// would see connection tracking's entry, which raw does not, or begin anew whenever mangle is changed.
const MATCHES: &[&str] = &[
    "addrtype",
    "ah",
    "comment",
    "cpu",
    "dccp",
    "devgroup",
    "dscp",
    "dst",
    "ecn",
    "esp",
    "frag",
    "hbh",
    "hl",
    "icmp",
    "icmp6",
    "ipcomp",
    "iprange",
    "length",
    "mac",
    "mark",
    "mh",
    "multiport",
    "owner",
    "pkttype",
    "policy",
    "rt",
    "sctp",
    "tcp",
    "tos",
    "ttl",
    "udp",
];

fn write(table: &Table, dialect: &Dialect) -> Result<Vec<Written>, Error> {
    refuse_user_chains(table)?;
    let mut written = Vec::new();
    for (name, ours, end) in CHAINS {
        let Some(chain) = table.chain(name) else { continue };
        let mut rules = Vec::with_capacity(chain.rules.len() + 1);
        for held in &chain.rules {
            let rule = held.rule(table.family, &table.name)?;
            let text = restorable(&carried(rule, end)?, dialect)?;
            rules.push(Wanted { text, set: held.counters, known: held.counters });
        }
        rules.push(Wanted { text: format!("-g {end}"), set: (0, 0), known: (0, 0) });
        let base = chain.base.unwrap_or(Base { policy: Policy::Accept, counters: (0, 0) });
        let verdict = if base.policy == Policy::Drop { "-j DROP" } else { "-j RETURN" };
        let policy = Wanted { text: verdict.to_owned(), set: base.counters, known: base.counters };
        written.push((ours, rules));
        written.push((end, vec![policy]));
    }
    Ok(written)
}

/// The rule as it stands in our chain.
fn carried(mut rule: Rule, end: &str) -> Result<Rule, Refusal> {
    if let Some(odd) = rule.matches.iter().find(|found| !MATCHES.contains(&found.name())) {
        return Err(Refusal::new(format!("-m {}", odd.name()), "sees or keeps something else in mangle than in raw"));
    }
    rule.target = match rule.target {
        Target::None => Target::None,
        Target::Accept => Target::Return,
        Target::Drop => Target::Drop,
        Target::Return => Target::Goto(end.to_owned()),
        Target::Jump(chain) | Target::Goto(chain) => {
            return Err(Refusal::new(format!("-j {chain}"), "an ACCEPT in there has no exact form in mangle"));
        }
        Target::Extension(target) => {
            return Err(Refusal::new(format!("-j {}", target.name()), "has no exact form in mangle"));
        }
    };
    Ok(rule)
}

fn read(of: &dyn Fn(&str) -> Vec<Rule>, table: &mut Table, _dialect: &Dialect) -> Option<()> {
    for (name, ours, end) in CHAINS {
        let chain = table.chains.iter_mut().find(|chain| chain.name == name)?;
        let mut rules = of(ours);
        let last = rules.pop()?;
        if last.spec() != "goto" || last.jump() != Some(end) {
            return None;
        }
        for mut rule in rules {
            rule.target = match rule.target {
                Target::None => Target::None,
                Target::Return => Target::Accept,
                Target::Drop => Target::Drop,
                Target::Goto(chain) if chain == end => Target::Return,
                _ => return None,
            };
            chain.rules.push(Held::new(&rule));
        }
        let last = of(end);
        let [policy] = last.as_slice() else { return None };
        let verdict = match policy.spec().as_str() {
            "-j RETURN" => Policy::Accept,
            "-j DROP" => Policy::Drop,
            _ => return None,
        };
        chain.base = Some(Base { policy: verdict, counters: policy.counters });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::hosted::bench::{DIALECT, chain, raw, read_back, refusal, texts};
    use super::*;
    use crate::family::Family;

    #[test]
    fn verdicts_are_others_there_and_the_same_when_they_are_read() {
        let mut table = raw(
            Family::V4,
            &[
                "-A PREROUTING -c 1 2 -s 1.2.3.4/32 -j DROP",
                "-A PREROUTING -c 3 4 -i eth0 -j ACCEPT",
                "-A PREROUTING -p tcp --dport 80 -j RETURN",
                "-A PREROUTING -m mark --mark 1",
                "-A OUTPUT -o eth0 -j ACCEPT",
                "-P OUTPUT DROP",
            ],
        );
        chain(&mut table, "PREROUTING").base = Some(Base { policy: Policy::Accept, counters: (7, 8) });
        let written = write(&table, &DIALECT).expect("it can be held");
        assert_eq!(
            texts(&written, "xtshim-raw-PREROUTING"),
            [
                "-s 1.2.3.4/32 -j DROP",
                "-i eth0 -j RETURN",
                "-p tcp -m tcp --dport 80 -g xtshim-raw-PREROUTING-end",
                "-m mark --mark 0x1",
                "-g xtshim-raw-PREROUTING-end",
            ]
        );
        assert_eq!(texts(&written, "xtshim-raw-PREROUTING-end"), ["-j RETURN"]);
        assert_eq!(texts(&written, "xtshim-raw-OUTPUT-end"), ["-j DROP"]);
        let read = read_back(&HOSTING, &table, &written, |_, _, rule| rule).expect("it can be read");
        assert!(read.reads_as(&table));
        for (one, other) in read.chains.iter().zip(&table.chains) {
            assert_eq!(one.base, other.base, "{}", one.name);
            let counters =
                |chain: &super::super::table::Chain| chain.rules.iter().map(|held| held.counters).collect::<Vec<_>>();
            assert_eq!(counters(one), counters(other), "{}", one.name);
        }
    }

    #[test]
    fn what_is_not_as_it_was_written_is_not_read() {
        let table = raw(Family::V4, &["-A PREROUTING -j DROP"]);
        let written = write(&table, &DIALECT).expect("it can be held");
        let changed = |chain: &str, at: usize, text: &str| {
            let mut written = written.clone();
            let rules = &mut written.iter_mut().find(|(name, _)| *name == chain).expect("the chain").1;
            match text {
                "" => drop(rules.remove(at)),
                text => text.clone_into(&mut rules[at].text),
            }
            read_back(&HOSTING, &table, &written, |_, _, rule| rule)
        };
        assert!(changed("xtshim-raw-PREROUTING", 0, "-j DROP").is_some());
        for (chain, at, text) in [
            ("xtshim-raw-PREROUTING", 0, "-j xtshim-raw-PREROUTING-end"),
            ("xtshim-raw-PREROUTING", 0, "-g xtshim-raw-OUTPUT-end"),
            ("xtshim-raw-PREROUTING", 1, ""),
            ("xtshim-raw-PREROUTING", 1, "-j xtshim-raw-PREROUTING-end"),
            ("xtshim-raw-PREROUTING", 1, "-g xtshim-raw-OUTPUT-end"),
            ("xtshim-raw-PREROUTING", 1, "-i lo -g xtshim-raw-PREROUTING-end"),
            ("xtshim-raw-PREROUTING-end", 0, ""),
            ("xtshim-raw-PREROUTING-end", 0, "-j ACCEPT"),
            ("xtshim-raw-OUTPUT-end", 0, "-i lo -j RETURN"),
        ] {
            assert!(changed(chain, at, text).is_none(), "{chain} {at} {text}");
        }
    }

    #[test]
    fn what_means_something_else_there_is_refused() {
        for (rule, option) in [
            ("-A PREROUTING -m conntrack --ctstate NEW -j DROP", "-m conntrack"),
            ("-A PREROUTING -m limit --limit 1/s -j DROP", "-m limit"),
            ("-A PREROUTING -j NOTRACK", "-j NOTRACK"),
            ("-N mine", "-N"),
        ] {
            assert_eq!(refusal(&HOSTING, Family::V4, rule).as_deref(), Some(option), "{rule}");
        }
        assert_eq!(refusal(&HOSTING, Family::V4, "-A OUTPUT -m comment --comment x -j DROP"), None);
    }
}
