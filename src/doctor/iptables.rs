//! iptables: which one is in use, who else holds rules, and what takes them away.

#![forbid(unsafe_code)]

use super::{Diagnosis, Facts, Held, Source, fill, quote, texts, version};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::probe::backend_name;

/// How many rules of a table are shown as evidence.
const SHOWN: usize = 3;

/// Looks at it.
pub fn check(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    none(facts, diagnosis);
    both(facts, diagnosis);
    too_old(facts, diagnosis);
    not_in_front(facts, diagnosis);
    beside(facts, diagnosis);
    jump_gone(facts, diagnosis);
    flushed(facts, diagnosis);
    unreadable(facts, diagnosis);
}

fn none(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let none = facts.probe.as_ref().is_some_and(|report| report.backends.is_empty());
    if none && facts.docker.is_there() && facts.docker.uses_nftables().is_none() {
        let evidence = vec!["no iptables in /usr/sbin, /sbin, /usr/bin or /usr/local/sbin".to_owned()];
        diagnosis.find("iptables-none", evidence, &[]);
    }
}

/// A table as evidence: its first rules.
fn shown(held: &Held) -> Vec<String> {
    let of = |chain: &str, policy: &str| {
        format!("{} -t {} -P {chain} {policy}", held.source.program(held.family), held.table)
    };
    let policies = held.chains.iter().filter(|(_, policy)| policy == "DROP");
    let policies = policies.map(|(chain, policy)| of(chain, policy));
    let mut lines: Vec<String> = held.rules.iter().map(|line| held.evidence(line)).chain(policies).collect();
    let more = lines.len().saturating_sub(SHOWN);
    lines.truncate(SHOWN);
    if more > 0 {
        lines.push(format!("… and {more} more in {}", held.table));
    }
    lines
}

fn both(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let used = |variant: Variant| {
        facts.tables.iter().filter(move |held| held.source == Source::Backend(variant) && held.is_used())
    };
    let (legacy, nft): (Vec<&Held>, Vec<&Held>) = (used(Variant::Legacy).collect(), used(Variant::Nft).collect());
    if legacy.is_empty() || nft.is_empty() {
        return;
    }
    let in_use = facts.backend().unwrap_or(Variant::Nft);
    let (unused, name) = match in_use {
        Variant::Nft => (&legacy, backend_name(Variant::Legacy)),
        Variant::Legacy => (&nft, backend_name(Variant::Nft)),
    };
    let evidence = legacy.iter().chain(&nft).flat_map(|held| shown(held)).collect();
    let values = [("used", backend_name(in_use)), ("unused", name)];
    if let Some(finding) = diagnosis.find("iptables-both", evidence, &values) {
        let expand = |held: &&&Held| {
            let program = held.source.program(held.family);
            let values = [("program", program.as_str()), ("table", held.table.as_str())];
            let mut lines: Vec<String> = finding.mend.iter().map(|line| fill(line, &values, quote)).collect();
            let dropping = held.chains.iter().filter(|(_, policy)| policy == "DROP");
            lines.extend(dropping.map(|(chain, _)| format!("{program} -t {} -P {} ACCEPT", held.table, quote(chain))));
            lines
        };
        finding.mend = unused.iter().flat_map(|held| expand(&held)).collect();
    }
}

fn too_old(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let version = facts.backend_version();
    let since = &texts().thresholds.native_ports_since;
    let old = facts.backend() == Some(Variant::Nft) && !version.is_empty() && version < version::numbers(since);
    let Some(compat) = crate::rules::capability("nft-compat").filter(|_| old) else { return };
    let tried = facts.probe.iter().flat_map(|report| &report.capabilities);
    let mut missing = tried.filter(|found| found.name == compat.name && found.ability.is_missing());
    let why = match missing.next() {
        Some(found) => Some(found.ability.why().to_owned()),
        None if facts.probe.is_none() => facts.kernel.explain(compat, Family::V4).map(|why| why.to_string()),
        None => None,
    };
    let Some(why) = why else { return };
    let is = version::dotted(&version);
    let evidence = vec![format!("iptables-nft is {is}"), format!("nft_compat: {why}")];
    diagnosis.find("iptables-too-old", evidence, &[("version", &is), ("since", since)]);
}

fn not_in_front(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let Some(installed) = facts.installed.as_ref().filter(|_| !facts.front.is_ours) else { return };
    let mut evidence =
        vec![format!("{installed} is there"), format!("{} leads to {}", facts.front.called, facts.front.leads_to)];
    let admin = ["/var/lib/dpkg/alternatives/iptables", "/var/lib/alternatives/iptables"];
    let mode = admin.iter().find_map(|path| facts.host.line(path).map(|mode| (path, mode)));
    if let Some((path, mode)) = mode {
        let mode = if mode == "auto" { "automatic" } else { "manual: somebody has chosen it" };
        evidence.push(format!("{path}: {mode}"));
    }
    diagnosis.find("xtshim-not-in-front", evidence, &[("former", &facts.front.leads_to)]);
}

fn beside(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let carried = facts.tables.iter().filter(|held| held.source == Source::Carried);
    let others = carried.flat_map(|held| {
        let of_table = facts.held(held.family, &held.table);
        of_table.filter(|other| other.source != Source::Carried && other.is_used())
    });
    let others: Vec<&Held> = others.collect();
    let evidence = others.iter().flat_map(|held| shown(held)).collect();
    if let Some(finding) = diagnosis.find("beside-carried", evidence, &[]) {
        let expand = |held: &&Held| {
            let (program, table) = (held.source.program(held.family), held.table.clone());
            let front = held.family.program().to_owned();
            let values = [("program", program.as_str()), ("table", table.as_str()), ("front", front.as_str())];
            finding.mend.iter().map(|line| fill(line, &values, quote)).collect::<Vec<_>>()
        };
        finding.mend = others.iter().flat_map(expand).collect();
    }
}

/// The chains that another table has for raw, and no jump to them in front.
fn jump_gone(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let prefix = "xtshim-raw";
    let mut evidence = Vec::new();
    let mut lines = Vec::new();
    for held in facts.tables.iter().filter(|held| matches!(held.source, Source::Backend(_))) {
        let ours = |chain: &str| chain.starts_with(prefix);
        if !held.rules.iter().any(|line| ours(&line.chain)) {
            continue;
        }
        let hooks: [(&str, &str); 2] = match held.table.as_str() {
            "mangle" => [("PREROUTING", "xtshim-raw-PREROUTING"), ("OUTPUT", "xtshim-raw-OUTPUT")],
            _ => [("INPUT", prefix), ("FORWARD", prefix)],
        };
        for (chain, target) in hooks {
            let first = held.of(chain).next();
            if first.is_none_or(|line| !ours(line.target())) {
                let is = first.map_or_else(|| "empty".to_owned(), |line| held.evidence(line));
                evidence.push(format!("the first rule of {} {chain} should jump to {target}; it is {is}", held.table));
                let program = held.source.program(held.family);
                lines.push(format!("{program} -t {} -I {chain} 1 -j {target}", held.table));
            }
        }
    }
    if let Some(finding) = diagnosis.find("hosted-jump-gone", evidence, &[]) {
        finding.mend = lines;
    }
}

fn flushed(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let host = facts.host;
    let folders = host.names("/etc/systemd/system");
    let wanted = folders.iter().filter(|name| name.ends_with(".wants") || name.ends_with(".requires"));
    let mut enabled = wanted.map(|name| format!("/etc/systemd/system/{name}/nftables.service"));
    let Some(enabled) = enabled.find(|path| {
        let folder = path.trim_end_matches("/nftables.service");
        host.names(folder).iter().any(|name| name == "nftables.service")
    }) else {
        return;
    };
    let file = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"].into_iter().find(|path| host.has(path));
    let Some((file, text)) = file.and_then(|file| Some((file, host.text(file)?))) else { return };
    let flushes = |line: &str| line.trim_start().starts_with("flush ruleset");
    let Some(number) = text.lines().position(flushes) else { return };
    let followed = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]
        .iter()
        .flat_map(|folder| host.files(&format!("{folder}/nftables.service.d"), ".conf"))
        .any(|path| host.text(&path).is_some_and(|text| text.contains("docker")));
    let at_stake = facts.tables.iter().any(|held| held.source != Source::Backend(Variant::Legacy) && held.is_used());
    let at_stake = at_stake || facts.docker.uses_nftables().is_some();
    if !followed && (at_stake || (facts.docker.is_there() && facts.backend() == Some(Variant::Nft))) {
        let evidence = vec![format!("{enabled} starts it"), format!("{file}:{}: flush ruleset", number + 1)];
        diagnosis.find("nftables-flush", evidence, &[("file", file)]);
    }
}

fn unreadable(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let name = |(family, table): &(Family, String)| {
        format!("table {} {}", family.nft(), crate::carrier::nft::table_name(table))
    };
    let evidence = facts.unreadable.iter().map(|one| format!("{} holds rules without the words of them", name(one)));
    diagnosis.find("carried-unreadable", evidence.collect(), &[]);
}
