//! Rootless Docker: the network that rootlesskit has made for it, and what it cannot do by itself.

#![forbid(unsafe_code)]

use super::facts::entry;
use super::host::{Host, Process};
use super::{Diagnosis, Facts, texts, version};
use crate::probe::ModuleState;
use std::path::Path;

/// Modules that dockerd's rules ask for, and that nobody but the host's root can load.
const MODULES: [&str; 4] = ["ip_tables", "iptable_nat", "iptable_filter", "iptable_raw"];

/// Looks at it.
pub fn check(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    // rootlesskit starts itself once more inside.
    let outer = facts.processes.iter().find(|process| process.name() == "rootlesskit");
    let Some(kit) = outer else { return };
    let said = facts.host.said(&["rootlesskit", "--version"]).unwrap_or_default();
    let network = kit.flag("net").or_else(|| kit.variable("DOCKERD_ROOTLESS_ROOTLESSKIT_NET")).unwrap_or("host");
    let driver = kit.flag("port-driver").unwrap_or("none");
    let is = if said.trim().is_empty() {
        "rootlesskit".to_owned()
    } else {
        said.lines().next().unwrap_or_default().to_owned()
    };
    diagnosis.tell("rootless", format!("{is}; network {network}, ports by {driver}"));
    if network == "pasta" {
        pasta(facts, diagnosis, kit, &said);
    }
    modules(facts, diagnosis, kit);
    in_front(facts, diagnosis);
}

/// pasta of late leaves 127.0.0.1 of the host alone, unless it is told otherwise.
fn pasta(facts: &Facts<'_>, diagnosis: &mut Diagnosis, kit: &Process, said: &str) {
    let limits = &texts().thresholds;
    let pasta = facts.host.said(&["pasta", "--version"]).unwrap_or_default();
    // Into a pipe some of them say nothing.
    let packaged = || {
        let status = facts.host.text("/var/lib/dpkg/status")?;
        let entry = entry(&status, "passt")?;
        released(entry.lines().find(|line| line.starts_with("Version: "))?)
    };
    let released = released(&pasta).or_else(packaged);
    let running = facts
        .processes
        .iter()
        .find(|process| process.name().starts_with("pasta") || process.name().starts_with("passt"));
    let told = running.map(|process| process.has("--host-lo-to-ns-lo"));
    let kit_knows = version::at_least(said, &limits.rootlesskit_loopback_since);
    let pasta_knows = released.as_ref().map(|date| *date >= limits.pasta_loopback_since);
    if told == Some(true) || kit_knows == Some(true) && pasta_knows == Some(true) {
        return;
    }
    let mut evidence = vec![format!("rootlesskit[{}] runs with --net=pasta", kit.pid)];
    if kit_knows == Some(false) {
        evidence.push(format!("{} is older than {}", said.trim(), limits.rootlesskit_loopback_since));
    }
    if let Some(process) = running.filter(|_| told == Some(false)) {
        evidence.push(format!("pasta[{}] runs without --host-lo-to-ns-lo", process.pid));
    }
    if let Some(date) = released {
        let age = if pasta_knows == Some(true) { "knows that option" } else { "is too old for that option" };
        evidence.push(format!("pasta of {date} {age}"));
    }
    if evidence.len() == 1 {
        diagnosis.unchecked("whether pasta passes 127.0.0.1 on", facts.no_answer());
        return;
    }
    let values = [("kit", limits.rootlesskit_loopback_since.as_str()), ("pasta", limits.pasta_loopback_since.as_str())];
    diagnosis.find("rootless-pasta-loopback", evidence, &values);
}

/// The date of a pasta: `2024_10_30.ee7d0b6`, and `0.0~git20250503.587980c` where Debian has packed it.
fn released(text: &str) -> Option<String> {
    let line = text.lines().next()?;
    let digits: String = line.split('.').flat_map(|part| part.chars()).filter(|c| *c != '_').collect();
    let bytes = digits.as_bytes();
    let at = bytes.windows(8).position(|window| window.starts_with(b"20") && window.iter().all(u8::is_ascii_digit))?;
    let date = digits.get(at..at + 8)?;
    Some(format!("{}_{}_{}", date.get(..4)?, date.get(4..6)?, date.get(6..)?))
}

fn modules(facts: &Facts<'_>, diagnosis: &mut Diagnosis, kit: &Process) {
    let asleep: Vec<&str> =
        MODULES.into_iter().filter(|name| facts.kernel.module(name) == ModuleState::OnDisk).collect();
    if asleep.is_empty() || facts.backend() == Some(crate::iptables::dialect::Variant::Nft) {
        return;
    }
    let evidence = vec![
        format!("rootlesskit runs as process {}", kit.pid),
        format!("on disk, but not loaded: {}", asleep.join(", ")),
    ];
    if let Some(finding) = diagnosis.find("rootless-modules", evidence, &[]) {
        finding.mend.iter_mut().for_each(|line| *line = line.replace("{modules}", &asleep.join(" ")));
    }
}

/// Whether the iptables that the rootless daemon finds is xtshim, where the host's is.
fn in_front(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for daemon in &facts.docker.daemons {
        let path = daemon.variable("PATH").unwrap_or(usual);
        // What rootlesskit copied up, such as /etc with its alternatives, is the daemon's own.
        let own = Host::new(Some(Path::new(&format!("/proc/{}/root", daemon.pid))));
        let inside = if facts.host.is_live() { &own } else { facts.host };
        let called = path.split(':').map(|place| format!("{place}/iptables")).find(|path| inside.has(path));
        let Some(called) = called else { continue };
        let leads_to = inside.leads_to(&called).unwrap_or_default();
        if facts.installed.is_some() && !leads_to.ends_with("xtshim") {
            let evidence = vec![
                format!("dockerd[{}] has PATH={path}", daemon.pid),
                format!("its {called} leads to {leads_to}"),
                format!("{} is there", facts.installed.as_deref().unwrap_or_default()),
            ];
            diagnosis.find("rootless-not-in-front", evidence, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_a_pasta_is_read() {
        assert_eq!(released("pasta 2024_10_30.ee7d0b6\n").as_deref(), Some("2024_10_30"));
        assert_eq!(released("pasta 0.0~git20250503.587980c-2+deb13u1").as_deref(), Some("2025_05_03"));
        assert_eq!(released("pasta UNKNOWN VERSION"), None);
    }
}
