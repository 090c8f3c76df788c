//! Docker: what it was told, what it is kept from, and whether its protection is in force.

#![forbid(unsafe_code)]

use super::facts::entry;
use super::{Diagnosis, Facts, Held, Line, Source, texts, version};
use crate::family::Family;

/// Looks at it.
pub fn check(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    if !facts.docker.is_there() && !facts.docker_has_rules() {
        return;
    }
    if let Some(daemon) = facts.docker.daemons.iter().find(|daemon| daemon.environment.is_none()) {
        diagnosis.unchecked("the daemon's environment", &format!("/proc/{}/environ is not to be read", daemon.pid));
    }
    if facts.docker.version.is_empty() {
        diagnosis.unchecked("Docker's version", facts.no_answer());
    }
    let off = raw_off(facts, diagnosis);
    myths(facts, diagnosis);
    direct_access(facts, diagnosis, off);
    settings(facts, diagnosis);
    forward_policy(facts, diagnosis);
    forwarding(facts, diagnosis);
    firewalld(facts, diagnosis);
    held_back(facts, diagnosis);
}

/// The variable that turns the filtering off. Gives whether it does.
fn raw_off(facts: &Facts<'_>, diagnosis: &mut Diagnosis) -> bool {
    let limits = &texts().thresholds;
    let name = limits.raw_off_variable.as_str();
    let found = facts.docker.variable(name);
    let heeded = !facts.docker.is_before(&limits.raw_off_since);
    match found {
        Some((value, place)) if value == "1" && heeded && facts.docker.uses_nftables().is_none() => {
            let mut evidence = vec![place];
            let lines = facts.docker.unit.iter().filter(|(_, line)| line.contains(name));
            let files: Vec<&(String, String)> = lines.collect();
            evidence.extend(files.iter().map(|(file, line)| format!("{file}: {line}")));
            evidence.dedup();
            let file = files.first().map_or("", |(file, _)| file);
            if files.is_empty() {
                evidence
                    .push("no unit file of docker.service sets it: whatever else has started dockerd does".to_owned());
            }
            let found = diagnosis.find("docker-raw-off", evidence, &[("variable", name), ("file", file)]);
            if let Some(finding) = found.filter(|_| files.is_empty()) {
                finding.mend.remove(0);
            }
            true
        }
        Some((value, place)) => {
            let why = if value != "1" {
                "it must be exactly 1"
            } else if heeded {
                "the nftables backend does not heed it"
            } else {
                "this Docker is older than the variable"
            };
            diagnosis.find("docker-raw-off-idle", vec![place, why.to_owned()], &[("variable", name)]);
            false
        }
        None => {
            let elsewhere = ["/etc/environment", "/etc/profile", "/root/.bashrc", "/root/.profile"];
            let lines = elsewhere.iter().flat_map(|file| occurrences(facts, file, name));
            let mut evidence: Vec<String> = lines.collect();
            if !evidence.is_empty() && !facts.docker.daemons.is_empty() {
                evidence.push("the running dockerd does not have it in its environment".to_owned());
                diagnosis.find("docker-raw-off-idle", evidence, &[("variable", name)]);
            }
            false
        }
    }
}

fn occurrences(facts: &Facts<'_>, file: &str, word: &str) -> Vec<String> {
    let text = facts.host.text(file).unwrap_or_default();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| line.contains(word) && !line.trim_start().starts_with('#'));
    lines.map(|(number, line)| format!("{file}:{number}: {}", line.trim())).collect()
}

/// Words that guides name, and that no Docker knows.
fn myths(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    for myth in &texts().thresholds.raw_off_myths {
        let mut evidence = Vec::new();
        for daemon in &facts.docker.daemons {
            let words = daemon.args.iter().filter(|arg| arg.contains(myth));
            evidence.extend(words.map(|arg| format!("dockerd[{}] runs with {arg}", daemon.pid)));
            let pairs = daemon.environment.iter().flatten().filter(|(name, _)| name == myth);
            evidence.extend(pairs.map(|(name, value)| format!("dockerd[{}] runs with {name}={value}", daemon.pid)));
        }
        let lines = facts.docker.unit.iter().filter(|(_, line)| line.contains(myth));
        evidence.extend(lines.map(|(file, line)| format!("{file}: {line}")));
        let keys = facts.docker.files.iter().filter_map(|(file, value)| Some((file, value.get(myth)?)));
        evidence.extend(keys.map(|(file, value)| format!("{file}: \"{myth}\": {value}")));
        evidence.extend(occurrences(facts, "/etc/environment", myth));
        diagnosis.find("docker-raw-myth", evidence, &[("word", myth)]);
    }
}

/// Where packets that are not for the bridge are dropped: raw, or what another table holds of it.
fn drops<'a>(facts: &'a Facts<'_>, family: Family) -> impl Iterator<Item = (&'a Held, &'a Line)> {
    let of_family = facts.tables.iter().filter(move |held| held.family == family);
    of_family.flat_map(|held| {
        let hosted = held.table == "mangle" || held.table == "filter";
        let rules = held.rules.iter().filter(move |line| {
            held.table == "raw" && line.chain == "PREROUTING" || hosted && line.chain.starts_with("xtshim-raw")
        });
        rules.map(move |line| (held, line))
    })
}

fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

/// Containers that are published, by their address: the rule that says so.
fn published<'a>(facts: &'a Facts<'_>, family: Family) -> Vec<(String, &'a Held, &'a Line)> {
    let mut found: Vec<(String, &Held, &Line)> = Vec::new();
    for held in facts.held(family, "nat") {
        for line in held.of("DOCKER").filter(|line| line.target() == "DNAT") {
            let Some(to) = line.value("--to-destination") else { continue };
            let address = match to.strip_prefix('[') {
                Some(rest) => rest.split(']').next().unwrap_or_default(),
                None => to.split(':').next().unwrap_or_default(),
            };
            if !address.is_empty() && found.iter().all(|(known, _, _)| known != address) {
                found.push((address.to_owned(), held, line));
            }
        }
    }
    found
}

/// Whether a network was asked for without protection (gateway mode `nat-unprotected`): Docker accepts what comes for it.
fn is_unprotected(facts: &Facts<'_>, family: Family, bridge: &str) -> bool {
    let accepts = |line: &Line| {
        line.target() == "ACCEPT"
            && line.args.len() == 7
            && line.option(&["-i"]) == Some((true, bridge))
            && line.value("-o") == Some(bridge)
    };
    facts.held(family, "filter").any(|held| held.of("DOCKER").any(accepts))
}

fn direct_access(facts: &Facts<'_>, diagnosis: &mut Diagnosis, off: bool) {
    let limits = &texts().thresholds;
    if off {
        diagnosis.tell("direct access", format!("not filtered: {} is set", limits.raw_off_variable));
        return;
    }
    if facts.docker.uses_nftables().is_some() {
        diagnosis.tell("direct access", "filtered by Docker's own nftables tables");
        return;
    }
    if facts.docker.is_before(&limits.raw_since) {
        diagnosis.tell("direct access", format!("not filtered: Docker does that from {} on", limits.raw_since));
        return;
    }
    if !facts.rules_known || !facts.docker.is_since(&limits.raw_since) {
        return;
    }
    let allowed = facts.docker.setting("allow-direct-routing").filter(|(value, _)| value == "true");
    if let Some((_, place)) = allowed {
        diagnosis.tell("direct access", format!("not filtered: {place}"));
        return;
    }
    let mut evidence = Vec::new();
    let mut by: Vec<String> = Vec::new();
    for family in Family::ALL {
        for (address, held, line) in published(facts, family) {
            let bridge = line.option(&["-i"]).filter(|(inverted, _)| *inverted).map(|(_, bridge)| bridge);
            if bridge.is_some_and(|bridge| is_unprotected(facts, family, bridge)) {
                continue;
            }
            let filters = |rule: &Line| rule.target() == "DROP" && rule.value("-d").map(bare) == Some(&address);
            match drops(facts, family).find(|(_, rule)| filters(rule)) {
                Some((held, _)) if held.source == Source::Carried => by.push("rules that xtshim carries".to_owned()),
                Some((held, _)) if held.table != "raw" => {
                    by.push(format!("rules that {} holds for xtshim", held.table));
                }
                Some(_) => by.push("the backend's raw table".to_owned()),
                None => {
                    evidence.push(held.evidence(line));
                    evidence.push(format!("no rule of raw drops what comes for {address} from elsewhere"));
                }
            }
        }
    }
    by.sort();
    by.dedup();
    if evidence.is_empty() {
        let line = if by.is_empty() {
            "no container is published".to_owned()
        } else {
            format!("filtered by {}", by.join(" and "))
        };
        diagnosis.tell("direct access", line);
    } else {
        diagnosis.tell("direct access", "not filtered");
    }
    diagnosis.find("docker-direct-access-open", evidence, &[]);
}

fn settings(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let set = |name: &str, wanted: &str| facts.docker.setting(name).filter(|(value, _)| value == wanted);
    if let Some((_, place)) = set("iptables", "false") {
        diagnosis.find("docker-iptables-off", vec![place], &[]);
    }
    let limits = &texts().thresholds;
    if let Some((_, place)) = facts.docker.setting("firewall-backend")
        && facts.docker.is_before(&limits.firewall_backend_since)
    {
        let is = version::dotted(&facts.docker.version);
        let evidence = vec![place, format!("Docker is {is}")];
        let values = [("version", is.as_str()), ("since", limits.firewall_backend_since.as_str())];
        diagnosis.find("docker-firewall-backend-unknown", evidence, &values);
    }
    let daemon = ["/usr/bin/dockerd", "/usr/sbin/dockerd"].into_iter().find(|path| facts.host.has(path));
    let proxies = ["/usr/bin", "/usr/sbin", "/usr/libexec/docker", "/usr/local/bin"];
    let proxy = proxies.iter().any(|place| facts.host.has(&format!("{place}/docker-proxy")));
    if let Some(daemon) = daemon.filter(|_| !proxy)
        && set("userland-proxy", "false").is_none()
        && facts.docker.setting("userland-proxy-path").is_none()
    {
        let evidence = vec![format!("{daemon} is there"), format!("no docker-proxy in {}", proxies.join(", "))];
        diagnosis.find("docker-proxy-absent", evidence, &[]);
    }
}

/// FORWARD drops what nobody asked for, and none of Docker's rules stands before that.
fn forward_policy(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let ours = ["DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1", "DOCKER", "DOCKER-CT"];
    let nftables = facts.docker.uses_nftables();
    if nftables.is_none() && facts.docker.daemons.is_empty() && !facts.docker_has_rules() {
        return;
    }
    for family in Family::ALL {
        let tables: Vec<&Held> = facts.held(family, "filter").collect();
        let served = tables.iter().any(|held| held.of("FORWARD").any(|line| ours.contains(&line.target())));
        let Some(held) = tables.iter().find(|held| held.policy("FORWARD") == Some("DROP")) else { continue };
        let lets_more = held.of("FORWARD").any(|line| line.target() == "ACCEPT");
        if served && nftables.is_none() || lets_more {
            continue;
        }
        let program = held.source.program(family);
        let mut evidence =
            vec![format!("{program} -P FORWARD DROP, and no rule of FORWARD lets Docker's packets pass")];
        evidence.extend(nftables.clone());
        let program = if held.source == Source::Carried { family.program().to_owned() } else { program };
        diagnosis.find("docker-forward-drop", evidence, &[("program", &program)]);
    }
}

fn forwarding(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let needed = !facts.docker.daemons.is_empty() || facts.docker_has_rules();
    let unwanted = facts.docker.setting("ip-forward").is_some_and(|(value, _)| value == "false");
    let file = "/proc/sys/net/ipv4/ip_forward";
    match facts.host.line(file) {
        Some(value) if value == "0" && needed && !unwanted => {
            diagnosis.find("docker-forwarding-off", vec![format!("{file}: 0")], &[]);
        }
        Some(_) => {}
        None => diagnosis.unchecked("IP forwarding", facts.no_answer()),
    }
}

fn firewalld(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let is_it = |arg: &String| arg.rsplit('/').next() == Some("firewalld");
    let Some(process) = facts.processes.iter().find(|process| process.args.iter().take(4).any(is_it)) else { return };
    let running = format!("firewalld runs as process {}", process.pid);
    let zones = ["/etc/firewalld/zones/docker.xml", "/usr/lib/firewalld/zones/docker.xml"];
    let zone = zones.iter().find(|path| facts.host.has(path));
    match zone {
        Some(zone) => {
            let evidence = vec![running.clone(), format!("{zone} is there")];
            diagnosis.find("firewalld", evidence, &[]);
        }
        None => {
            let evidence = vec![running.clone(), format!("neither {} nor {} is there", zones[0], zones[1])];
            diagnosis.find("firewalld-no-zone", evidence, &[]);
        }
    }
    let fixed = facts.host.leads_to("/usr/sbin/iptables").unwrap_or_default();
    if facts.front.is_ours && !fixed.ends_with("xtshim") {
        let evidence =
            vec![running, format!("/usr/sbin/iptables leads to {fixed}"), format!("{} is xtshim", facts.front.called)];
        diagnosis.find("firewalld-passes-by", evidence, &[]);
    }
}

fn held_back(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let limits = &texts().thresholds;
    if !facts.docker.is_before(&limits.raw_since) {
        return;
    }
    let status = facts.host.text("/var/lib/dpkg/status").unwrap_or_default();
    let mut evidence = Vec::new();
    let mut package = None;
    for name in &limits.packages {
        let found = entry(&status, name).is_some_and(|entry| entry.contains("Status: hold "));
        if found {
            evidence.push(format!("/var/lib/dpkg/status: {name} is held"));
            package = package.or(Some(name.as_str()));
        }
        for file in ["/etc/dnf/plugins/versionlock.list", "/etc/yum/pluginconf.d/versionlock.list"] {
            let lines = occurrences(facts, file, &format!("{name}-"));
            package = package.or(Some(name.as_str()).filter(|_| !lines.is_empty()));
            evidence.extend(lines);
        }
        for file in facts.host.files("/etc/apt/preferences.d", "") {
            let pinned = occurrences(facts, &file, name).into_iter().filter(|line| line.contains("Package:"));
            let lines: Vec<String> = pinned.collect();
            package = package.or(Some(name.as_str()).filter(|_| !lines.is_empty()));
            evidence.extend(lines);
        }
        let history = occurrences(facts, "/var/log/apt/history.log", "Downgrade: ");
        let lines: Vec<String> = history.into_iter().filter(|line| line.contains(&format!("{name}:"))).collect();
        package = package.or(Some(name.as_str()).filter(|_| !lines.is_empty()));
        evidence.extend(lines);
    }
    if !evidence.is_empty() {
        evidence.push(format!("Docker is {}", version::dotted(&facts.docker.version)));
    }
    let values = [("package", package.unwrap_or("docker-ce")), ("since", limits.raw_since.as_str())];
    diagnosis.find("docker-held", evidence, &values);
}
