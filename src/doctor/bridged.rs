//! Networks that are bridged through the host: br_netfilter has iptables see each frame, and once more when it comes back
//! through another bridge.

#![forbid(unsafe_code)]

use super::{Diagnosis, Facts, Line};
use crate::family::Family;
use serde::Deserialize;

const SWITCH: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// As `ip -j -d addr show` tells of it.
#[derive(Debug, Deserialize)]
struct Link {
    ifname: String,
    master: Option<String>,
    linkinfo: Option<Kind>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    info_kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Address {
    family: Option<String>,
    local: Option<String>,
    scope: Option<String>,
}

struct Bridge {
    name: String,
    ports: Vec<String>,
    addresses: Vec<String>,
}

/// Looks at it.
pub fn check(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    if facts.host.line(SWITCH).as_deref() != Some("1") || !facts.docker_has_rules() {
        return;
    }
    let Some(links) = facts.host.said(&["ip", "-j", "-d", "addr", "show"]).and_then(|text| read(&text)) else {
        diagnosis.unchecked("bridges (ip -j -d addr show)", facts.no_answer());
        return;
    };
    let bridges = bridges(&links);
    through(facts, diagnosis, &bridges);
    isolated(facts, diagnosis, &bridges);
}

fn read(text: &str) -> Option<Vec<Link>> {
    serde_json::from_str(text).ok()
}

fn bridges(links: &[Link]) -> Vec<Bridge> {
    let is_bridge =
        |link: &&Link| link.linkinfo.as_ref().is_some_and(|kind| kind.info_kind.as_deref() == Some("bridge"));
    let bridge = |link: &Link| {
        let ports = links.iter().filter(|port| port.master.as_ref() == Some(&link.ifname));
        let global = |address: &&Address| {
            address.family.as_deref() == Some("inet") && address.scope.as_deref() == Some("global")
        };
        Bridge {
            name: link.ifname.clone(),
            ports: ports.map(|port| port.ifname.clone()).collect(),
            addresses: link.addr_info.iter().filter(global).filter_map(|address| address.local.clone()).collect(),
        }
    };
    links.iter().filter(is_bridge).map(bridge).collect()
}

/// Whether conntrack leaves alone what comes by that bridge, before anything else decides.
fn is_untracked(facts: &Facts<'_>, bridge: &str) -> bool {
    let by_bridge = |line: &Line| line.option(&["-i"]) == Some((false, bridge)) && line.args.len() <= 5;
    let spares = |line: &Line| match line.target() {
        "NOTRACK" => true,
        "CT" => line.args.iter().any(|arg| arg == "--notrack"),
        _ => false,
    };
    facts.held(Family::V4, "raw").any(|held| held.of("PREROUTING").any(|line| by_bridge(line) && spares(line)))
}

/// A bridge that frames go through, and that conntrack sees them on: they are for an address of the host's, which
/// Docker translates at once, though they were on their way through another bridge.
fn through(facts: &Facts<'_>, diagnosis: &mut Diagnosis, bridges: &[Bridge]) {
    let dockers = facts.docker_bridges();
    let is_docker = |bridge: &&Bridge| {
        dockers.contains(&bridge.name) || bridge.name == "docker0" || bridge.name == "docker_gwbridge"
    };
    let mut translated = Vec::new();
    for held in facts.held(Family::V4, "nat") {
        let local = held.of("PREROUTING").find(|line| line.target() == "DOCKER");
        let dnat = held.of("DOCKER").find(|line| line.target() == "DNAT");
        if let (Some(local), Some(dnat)) = (local, dnat) {
            translated = vec![held.evidence(local), held.evidence(dnat)];
        }
    }
    if translated.is_empty() {
        return;
    }
    let own: Vec<&Bridge> = bridges.iter().filter(|bridge| !is_docker(bridge)).collect();
    // Where the host has an address on the bridge itself, its own traffic comes by it, and must be tracked.
    let only_joins = |bridge: &&&Bridge| bridge.ports.len() > 1 && bridge.addresses.is_empty();
    for bridge in own.iter().filter(only_joins).filter(|bridge| !is_untracked(facts, &bridge.name)) {
        let Some(other) = own.iter().find(|other| other.name != bridge.name && !other.addresses.is_empty()) else {
            continue;
        };
        let mut evidence = vec![
            format!("{SWITCH}: 1"),
            format!("bridge {} joins {}, and has no address", bridge.name, bridge.ports.join(", ")),
            format!("bridge {} has the host's address {}", other.name, other.addresses.join(", ")),
        ];
        evidence.extend(translated.clone());
        evidence.extend(broken(facts));
        let values = [("bridge", bridge.name.as_str()), ("other", other.name.as_str())];
        diagnosis.find("bridge-clash", evidence, &values);
        let strict = |name: &str| {
            let file = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
            facts.host.line(&file).map(|value| format!("{file}: {value}"))
        };
        let settings = [strict("all"), strict(&bridge.name)];
        let settings: Vec<String> = settings.into_iter().flatten().collect();
        let value = settings.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u8>().ok()).max();
        if value == Some(1) {
            let mut evidence = settings;
            evidence.push(format!("bridge {} has no address", bridge.name));
            diagnosis.find("bridge-rp-filter", evidence, &values);
        }
    }
}

/// Translated connections that were reset before they had sent much, as conntrack still knows them.
fn broken(facts: &Facts<'_>) -> Option<String> {
    let known =
        facts.host.text("/proc/net/nf_conntrack").or_else(|| facts.host.said(&["conntrack", "-L", "-p", "tcp"]))?;
    let field = |line: &str, name: &str, nth: usize| {
        let mut values = line.split_whitespace().filter_map(|word| word.strip_prefix(name)).map(str::to_owned);
        values.nth(nth)
    };
    let reset = |line: &&str| {
        let translated = field(line, "dst=", 0) != field(line, "src=", 1);
        translated && line.split_whitespace().any(|word| word == "CLOSE")
    };
    let lines: Vec<&str> = known.lines().filter(reset).collect();
    let line = lines.first()?;
    let text = |name: &str, nth: usize| field(line, name, nth).unwrap_or_default();
    Some(format!(
        "{} translated connection(s) ended by a reset, such as {}:{} to {}:{} (for {})",
        lines.len(),
        text("src=", 0),
        text("sport=", 0),
        text("dst=", 0),
        text("dport=", 0),
        text("src=", 1),
    ))
}

/// Docker's isolation has dropped what went from one of its networks to another by way of a bridge.
fn isolated(facts: &Facts<'_>, diagnosis: &mut Diagnosis, bridges: &[Bridge]) {
    for held in facts.held(Family::V4, "filter") {
        let user: Vec<&Line> = held.of("DOCKER-USER").filter(|line| line.target() == "ACCEPT").collect();
        let drops = held.of("DOCKER-ISOLATION-STAGE-2").filter(|line| line.target() == "DROP" && line.packets > 0);
        for line in drops {
            let Some(to) = line.value("-o").filter(|to| bridges.iter().any(|bridge| bridge.name == *to)) else {
                continue;
            };
            let allowed =
                |from: &str| user.iter().any(|rule| rule.value("-i") == Some(from) && rule.value("-o") == Some(to));
            let stage = held.of("DOCKER-ISOLATION-STAGE-1");
            let mut from = stage.filter(|rule| rule.packets > 0).filter_map(|rule| rule.value("-i"));
            let Some(from) = from.find(|from| *from != to && !allowed(from)) else { continue };
            let evidence =
                vec![format!("{SWITCH}: 1"), format!("{} has dropped {} packets", held.evidence(line), line.packets)];
            diagnosis.find("bridge-isolation", evidence, &[("from", from), ("to", to)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_their_ports_and_addresses_are_read() {
        let text = r#"[{"ifname":"lo","addr_info":[]},
            {"ifname":"br0","linkinfo":{"info_kind":"bridge","info_data":{}},"addr_info":[
                {"family":"inet","local":"10.2.0.1","prefixlen":24,"scope":"global"},
                {"family":"inet6","local":"fe80::1","scope":"link"}]},
            {"ifname":"veth1","master":"br0","linkinfo":{"info_kind":"veth"},"addr_info":[]}]"#;
        let found = bridges(&read(text).expect("a list"));
        let [bridge] = found.as_slice() else { panic!("one bridge") };
        assert_eq!(
            (bridge.name.as_str(), bridge.ports.join(","), bridge.addresses.join(",")),
            ("br0", "veth1".into(), "10.2.0.1".into())
        );
    }
}
