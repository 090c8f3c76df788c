//! Docker's own rules of raw, held by the backend's filter table.
//!
//! filter is called after DNAT, so a packet's destination is looked for where it can still be read as it was on the wire:
//! in connection tracking's entry, in the tuple of the packet's own direction. That holds for an ICMP error of a flow
//! too: its outer destination is that tuple's, or the kernel calls it invalid (since Linux 5.1). What has no entry is
//! translated by nothing, and what came over `lo` was translated before raw saw it: both are matched by what they bear.

#![forbid(unsafe_code)]

use super::hosted::{Hosting, Wanted, Written, refuse_user_chains, restorable};
use super::table::{Base, Held, Policy, Table};
use crate::config::CarrierKind;
use crate::error::{Error, Refusal};
use crate::iptables::dialect::Dialect;
use crate::iptables::ext::Form;
use crate::iptables::rule::Target;
use crate::iptables::{self, Command, Rule};
use std::net::IpAddr;

/// Where all packets come in, those of the next two chains are told apart.
const ENTRY: &str = "xtshim-raw-entry";
/// Raw's rules, for packets that bear what they bore when raw would have seen them.
const PLAIN: &str = "xtshim-raw-plain";
/// The same for packets of flows: two rules for each of raw's.
const TRACKED: &str = "xtshim-raw-tracked";

/// How filter holds raw.
pub static HOSTING: Hosting = Hosting {
    kind: CarrierKind::Filter,
    host: "filter",
    limits: [
        "nothing but Docker's rules: -d ADDRESS, -i or ! -i INTERFACE, perhaps -p tcp|udp --dport PORT, DROP or ACCEPT",
        "connection tracking, NAT and routing see a packet before it is dropped, and routing may answer it with ICMP",
    ],
    jumps: &[("INPUT", ENTRY), ("FORWARD", ENTRY)],
    chains: &[ENTRY, PLAIN, TRACKED],
    write,
    read,
};

const ENTRY_RULES: [&str; 3] = [
    "-i lo -g xtshim-raw-plain",
    "-m conntrack --ctstate INVALID,UNTRACKED -g xtshim-raw-plain",
    "-g xtshim-raw-tracked",
];

/// Counts what comes to raw's policy, which is ACCEPT.
const LAST: &str = "-j RETURN";

fn fixed(text: &str) -> Wanted {
    Wanted { text: text.to_owned(), set: (0, 0), known: (0, 0) }
}

fn write(table: &Table, dialect: &Dialect) -> Result<Vec<Written>, Error> {
    refuse_user_chains(table)?;
    let (mut plain, mut tracked, mut counted) = (Vec::new(), Vec::new(), (0, 0));
    for chain in &table.chains {
        let base = chain.base.unwrap_or(Base { policy: Policy::Accept, counters: (0, 0) });
        if base.policy == Policy::Drop {
            return Err(Refusal::new(format!("-P {} DROP", chain.name), "filter sees not all packets of raw").into());
        }
        if chain.name != "PREROUTING" && !chain.rules.is_empty() {
            return Err(Refusal::new(format!("-A {}", chain.name), "filter sees too late what is sent").into());
        }
        if chain.name == "PREROUTING" {
            counted = base.counters;
        }
        for held in &chain.rules {
            let rule = held.rule(table.family, &table.name)?;
            for text in of_flows(&rule)? {
                tracked.push(Wanted { text, set: (0, 0), known: held.counters });
            }
            let mut rule = rule;
            if matches!(rule.target, Target::Accept) {
                rule.target = Target::Return;
            }
            plain.push(Wanted { text: restorable(&rule, dialect)?, set: held.counters, known: held.counters });
        }
    }
    plain.push(Wanted { text: LAST.to_owned(), set: counted, known: counted });
    tracked.push(Wanted { text: LAST.to_owned(), set: (0, 0), known: counted });
    Ok(vec![(ENTRY, ENTRY_RULES.map(fixed).to_vec()), (PLAIN, plain), (TRACKED, tracked)])
}

fn refused(option: &str) -> Refusal {
    Refusal::new(
        option,
        "filter holds rules for one address and one interface, with one port perhaps, and DROP or ACCEPT",
    )
}

/// What a rule becomes for packets of flows, one rule for each direction.
fn of_flows(rule: &Rule) -> Result<[String; 2], Refusal> {
    if rule.source.as_ref().is_some_and(|source| source.inverted || !source.network.is_all()) {
        return Err(refused("-s"));
    }
    if rule.output.is_some() || rule.fragment.is_some() {
        return Err(refused("-o, -f"));
    }
    let destination = rule.destination.as_ref().filter(|wanted| !wanted.inverted).map(|wanted| wanted.network);
    let whole = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let single = destination.filter(|network| network.prefix_length() == Some(whole(network.address)));
    let address = single.map(|network| network.address).filter(is_unicast).ok_or_else(|| refused("-d"))?;
    let input = rule.input.as_ref().filter(|input| input.wildcard().is_none()).ok_or_else(|| refused("-i"))?;
    let (protocol, port) = port_of(rule)?;
    let verdict = match rule.target {
        Target::Drop => "DROP",
        Target::Accept => "RETURN",
        _ => return Err(refused("-j")),
    };
    let (bang, name) = (if input.inverted { "! " } else { "" }, &input.name);
    let directed = |tuple: &str, direction: &str| {
        let port = port.map(|port| format!(" --ct{tuple}dstport {port}")).unwrap_or_default();
        let tuple = format!("--ct{tuple}dst {address}{port} --ctdir {direction}");
        format!("{protocol}{bang}-i {name} -m conntrack {tuple} -j {verdict}")
    };
    Ok([directed("orig", "ORIGINAL"), directed("repl", "REPLY")])
}

fn is_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unspecified(),
    }
}

/// `-p tcp ` or `-p udp ` with the one port that is asked for, or nothing of it.
fn port_of(rule: &Rule) -> Result<(&'static str, Option<u16>), Refusal> {
    let (name, option) = match (rule.protocol.number, rule.protocol.inverted) {
        (0, false) if rule.matches.is_empty() => return Ok(("", None)),
        (0, false) => return Err(refused("-m")),
        (6, false) => ("tcp", "-p tcp "),
        (17, false) => ("udp", "-p udp "),
        _ => return Err(refused("-p")),
    };
    let [only] = rule.matches.as_slice() else { return Err(refused("-m")) };
    let mut text = String::new();
    only.save(&mut text, &Form::Spec);
    let port = text.strip_prefix(" --dport ").filter(|_| only.name() == name).and_then(|port| port.parse().ok());
    port.map(|port| (option, Some(port))).ok_or_else(|| refused("-m"))
}

fn read(of: &dyn Fn(&str) -> Vec<Rule>, table: &mut Table, dialect: &Dialect) -> Option<()> {
    let same = |rule: &Rule, text: &str| parsed(table.family, text, dialect).is_some_and(|wanted| wanted.same(rule));
    let entry = of(ENTRY);
    if entry.len() != ENTRY_RULES.len() || !entry.iter().zip(ENTRY_RULES).all(|(rule, text)| same(rule, text)) {
        return None;
    }
    let (mut plain, mut tracked) = (of(PLAIN), of(TRACKED));
    let (last, other) = (plain.pop()?, tracked.pop()?);
    if !same(&last, LAST) || !same(&other, LAST) || tracked.len() != 2 * plain.len() {
        return None;
    }
    let mut rules = Vec::with_capacity(plain.len());
    for (mut rule, flows) in plain.into_iter().zip(tracked.chunks_exact(2)) {
        rule.target = match rule.target {
            Target::Return => Target::Accept,
            Target::Drop => Target::Drop,
            _ => return None,
        };
        let expected = of_flows(&rule).ok()?;
        if !flows.iter().zip(&expected).all(|(flow, text)| same(flow, text)) {
            return None;
        }
        rule.counters = flows.iter().fold(rule.counters, |sum, flow| added(sum, flow.counters));
        rules.push(Held::new(&rule));
    }
    let chain = table.chains.iter_mut().find(|chain| chain.name == "PREROUTING")?;
    chain.rules = rules;
    chain.base = Some(Base { policy: Policy::Accept, counters: added(last.counters, other.counters) });
    Some(())
}

fn added(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0.saturating_add(other.0), one.1.saturating_add(other.1))
}

fn parsed(family: crate::family::Family, text: &str, dialect: &Dialect) -> Option<Rule> {
    let words = ["-t", "filter", "-A", PLAIN].into_iter().chain(text.split(' ')).map(str::to_owned).collect::<Vec<_>>();
    match iptables::parse(family, &words, dialect).ok()?.command {
        Command::Append { rules, .. } => rules.into_iter().next(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::hosted::bench::{DIALECT, chain, raw, read_back, refusal, texts};
    use super::*;
    use crate::family::Family;

    const SHAPES: [&str; 5] = [
        "-A PREROUTING -c 1 2 -d 172.17.0.2/32 ! -i docker0 -j DROP",
        "-A PREROUTING -c 3 4 -d 172.17.0.3/32 -i docker0 -j ACCEPT",
        "-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -p tcp --dport 80 -j DROP",
        "-A PREROUTING -d 172.17.0.2/32 -i docker0 -p udp --dport 53 -j ACCEPT",
        "-A PREROUTING -d 239.1.2.3/32 -i docker0 -j DROP",
    ];

    #[test]
    fn docker_s_rules_stand_in_three_chains_and_are_read_from_there() {
        let mut table = raw(Family::V4, &SHAPES[..4]);
        chain(&mut table, "PREROUTING").base = Some(Base { policy: Policy::Accept, counters: (7, 8) });
        let written = write(&table, &DIALECT).expect("it can be held");
        assert_eq!(texts(&written, ENTRY), ENTRY_RULES);
        assert_eq!(
            texts(&written, PLAIN),
            [
                "-d 172.17.0.2/32 ! -i docker0 -j DROP",
                "-d 172.17.0.3/32 -i docker0 -j RETURN",
                "-d 172.17.0.2/32 ! -i docker0 -p tcp -m tcp --dport 80 -j DROP",
                "-d 172.17.0.2/32 -i docker0 -p udp -m udp --dport 53 -j RETURN",
                "-j RETURN",
            ]
        );
        let tracked = texts(&written, TRACKED);
        assert_eq!(
            tracked[..4],
            [
                "! -i docker0 -m conntrack --ctorigdst 172.17.0.2 --ctdir ORIGINAL -j DROP",
                "! -i docker0 -m conntrack --ctrepldst 172.17.0.2 --ctdir REPLY -j DROP",
                "-i docker0 -m conntrack --ctorigdst 172.17.0.3 --ctdir ORIGINAL -j RETURN",
                "-i docker0 -m conntrack --ctrepldst 172.17.0.3 --ctdir REPLY -j RETURN",
            ]
        );
        let port =
            "-p tcp ! -i docker0 -m conntrack --ctorigdst 172.17.0.2 --ctorigdstport 80 --ctdir ORIGINAL -j DROP";
        assert_eq!((tracked[4].as_str(), tracked.len()), (port, 9));

        let read = read_back(&HOSTING, &table, &written, |_, _, rule| rule).expect("it can be read");
        assert!(read.reads_as(&table));
        let counters = |table: &Table| table.chains[0].rules.iter().map(|held| held.counters).collect::<Vec<_>>();
        assert_eq!(counters(&read), counters(&table));
        assert_eq!(read.chains[0].base, table.chains[0].base);
        // What the host has counted in the chain for flows belongs to the rule as well.
        let counted = |chain: &str, at: usize, mut rule: Rule| {
            if (chain, at) == (TRACKED, 1) || (chain, at) == (TRACKED, 8) {
                rule.counters = (100, 1000);
            }
            rule
        };
        let read = read_back(&HOSTING, &table, &written, counted).expect("it can be read");
        assert_eq!(read.chains[0].rules[0].counters, (101, 1002));
        assert_eq!(read.chains[0].base.map(|base| base.counters), Some((107, 1008)));
    }

    #[test]
    fn what_is_not_as_it_was_written_is_not_read() {
        let table = raw(Family::V4, &SHAPES[..2]);
        let written = write(&table, &DIALECT).expect("it can be held");
        let changed = |chain: &str, change: &dyn Fn(&mut Vec<Wanted>)| {
            let mut written = written.clone();
            written.iter_mut().filter(|(name, _)| *name == chain).for_each(|(_, rules)| change(rules));
            read_back(&HOSTING, &table, &written, |_, _, rule| rule)
        };
        assert!(changed(PLAIN, &|_| {}).is_some());
        for (chain, rules) in &written {
            for at in 0..rules.len() {
                assert!(changed(chain, &|rules| drop(rules.remove(at))).is_none(), "{chain} without {at}");
                let another = |rules: &mut Vec<Wanted>| "-i lo -j DROP".clone_into(&mut rules[at].text);
                assert!(changed(chain, &another).is_none(), "{chain}: another at {at}");
                assert!(changed(chain, &|rules| rules.insert(at, rules[at].clone())).is_none(), "{chain}: two of {at}");
            }
        }
    }

    #[test]
    fn all_else_is_refused_by_the_option_at_fault() {
        for (rule, option) in [
            ("-A OUTPUT -d 172.17.0.2/32 -o docker0 -j DROP", "-A OUTPUT"),
            ("-P PREROUTING DROP", "-P PREROUTING DROP"),
            ("-P OUTPUT DROP", "-P OUTPUT DROP"),
            ("-A PREROUTING -s 1.2.3.4/32 -d 172.17.0.2/32 -i docker0 -j DROP", "-s"),
            ("-A PREROUTING ! -s 0.0.0.0/0 -d 172.17.0.2/32 -i docker0 -j DROP", "-s"),
            ("-A PREROUTING -f -d 172.17.0.2/32 -i docker0 -j DROP", "-o, -f"),
            ("-A PREROUTING ! -d 172.17.0.2/32 -i docker0 -j DROP", "-d"),
            ("-A PREROUTING -d 172.17.0.0/31 -i docker0 -j DROP", "-d"),
            ("-A PREROUTING -i docker0 -j DROP", "-d"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker+ -j DROP", "-i"),
            ("-A PREROUTING -d 172.17.0.2/32 -j DROP", "-i"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0 -m mark --mark 1 -j DROP", "-m"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0 -p icmp -j DROP", "-p"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0 ! -p tcp -j DROP", "-p"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0 -p tcp -j DROP", "-m"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0 -p tcp --dport 1:2 -j DROP", "-m"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0 -p tcp --sport 1 -j DROP", "-m"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0 -p tcp --dport 1 -m mark --mark 1 -j DROP", "-m"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0 -j NOTRACK", "-j"),
            ("-A PREROUTING -d 172.17.0.2/32 -i docker0", "-j"),
            ("-N mine", "-N"),
        ] {
            assert_eq!(refusal(&HOSTING, Family::V4, rule).as_deref(), Some(option), "{rule}");
        }
        for address in ["239.1.2.3", "255.255.255.255", "0.0.0.0"] {
            let rule = format!("-A PREROUTING -d {address}/32 -i docker0 -j DROP");
            assert_eq!(refusal(&HOSTING, Family::V4, &rule).as_deref(), Some("-d"), "{rule}");
        }
        for (address, option) in [("ff02::1", Some("-d")), ("::", Some("-d")), ("fd00::2", None)] {
            let rule = format!("-A PREROUTING -d {address}/128 -i docker0 -j DROP");
            assert_eq!(refusal(&HOSTING, Family::V6, &rule).as_deref(), option, "{rule}");
        }
        let rule = "-A PREROUTING -d fd00::/32 -i docker0 -j DROP";
        assert_eq!(refusal(&HOSTING, Family::V6, rule).as_deref(), Some("-d"));
    }
}
