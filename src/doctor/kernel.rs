//! The kernel: what Docker's rules need of it, and why it is not there.

#![forbid(unsafe_code)]

use super::{Diagnosis, Facts, Severity, grouped, texts};
use crate::family::Family;
use crate::probe::{Ability, ModuleState, OptionState, Reason, backend_name};
use crate::rules::{self, Capability, CapabilityKind};

/// Looks at it.
pub fn check(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    if facts.kernel.release.is_empty() {
        diagnosis.unchecked("the kernel", facts.no_answer());
        return;
    }
    not_rebooted(facts, diagnosis);
    rules_need(facts, diagnosis);
    docker_needs(facts, diagnosis);
    bridge_filter(facts, diagnosis);
    if facts.kernel.config_file.is_none() {
        let places = "there is no /proc/config.gz, /boot/config-RELEASE or /lib/modules/RELEASE/config";
        diagnosis.unchecked("how the kernel was configured", places);
    }
}

fn not_rebooted(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let release = facts.kernel.release.as_str();
    let there = facts.host.names("/lib/modules");
    if there.is_empty() || there.iter().any(|name| name == release) {
        return;
    }
    let evidence = vec![
        format!("the running kernel is {release}"),
        format!("/lib/modules has {}, not {release}", there.join(", ")),
    ];
    diagnosis.find("kernel-not-rebooted", evidence, &[("release", release)]);
}

/// Why something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    NotBuilt,
    Absent,
    NotLoaded,
}

struct Lack {
    cause: Cause,
    what: String,
    family: Family,
    why: String,
    modules: Vec<String>,
    table: Option<String>,
}

fn rules_need(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let backend = match (facts.docker.uses_nftables(), facts.backend()) {
        (Some(_), _) => "nftables",
        (None, Some(variant)) => backend_name(variant),
        (None, None) => {
            diagnosis.unchecked("what the rules need of the kernel", "it is not known which iptables is in use");
            return;
        }
    };
    let needed = texts().need.iter().filter(|need| need.backend == backend).flat_map(|need| &need.capabilities);
    let needed: Vec<&Capability> = needed.filter_map(|name| rules::capability(name)).collect();
    let lacks = |family: Family| {
        let of_family = needed.iter().filter(move |capability| capability.serves(family));
        of_family.filter_map(move |capability| lack(facts, backend, capability, family))
    };
    let lacks: Vec<Lack> = Family::ALL.into_iter().flat_map(lacks).collect();
    for (cause, lacks) in grouped(lacks.into_iter().map(|lack| (lack.cause, lack))) {
        tell(facts, diagnosis, backend, cause, &lacks);
    }
}

fn lack(facts: &Facts<'_>, backend: &str, capability: &Capability, family: Family) -> Option<Lack> {
    let kernel = &facts.kernel;
    let why = match asked(facts, backend, capability, family) {
        Some(Ability::Able) => return None,
        Some(Ability::Missing { why }) => Some(why),
        Some(Ability::Unknown { .. }) | None => None,
    };
    let tried = why.is_some();
    let modules = capability.modules(family);
    let states = modules.iter().filter_map(|names| {
        let loadable = names.iter().find(|name| kernel.module(name) == ModuleState::OnDisk)?;
        Some((*loadable).to_owned())
    });
    let loadable: Vec<String> = states.collect();
    // What is built in needs no module, though no list of modules tells.
    let promised = !tried && loadable.is_empty() && kernel.promises(capability, family) == Some(true);
    let explained = if promised { None } else { kernel.explain(capability, family) };
    let cause = match &explained {
        Some(Reason::NotBuilt { .. }) => Cause::NotBuilt,
        Some(Reason::Absent { .. }) => Cause::Absent,
        // A module that nobody has asked for yet is loaded when somebody does, if the kernel still loads any.
        Some(Reason::NotLoaded { .. }) if tried || cannot_load(facts) => Cause::NotLoaded,
        None if tried => Cause::NotBuilt,
        _ => return None,
    };
    let table = (capability.kind == CapabilityKind::Table).then(|| capability.key.clone());
    let why = explained.map(|why| why.to_string()).or(why)?;
    let why = match facts.host.place("/").filter(|_| !facts.host.is_live()) {
        Some(root) => why.replace(&format!("{}/", root.display().to_string().trim_end_matches('/')), "/"),
        None => why,
    };
    Some(Lack { cause, what: capability.what.clone(), family, why, modules: loadable, table })
}

/// Whether nothing can load a module any more by asking for it.
fn cannot_load(facts: &Facts<'_>) -> bool {
    facts.host.line("/proc/sys/kernel/modules_disabled").as_deref() == Some("1")
}

/// What trying has given.
fn asked(facts: &Facts<'_>, backend: &str, capability: &Capability, family: Family) -> Option<Ability> {
    let report = facts.probe.as_ref()?;
    if capability.kind == CapabilityKind::Table {
        let table = report.tables.iter().find(|row| row.family == family.nft() && row.table == capability.key)?;
        return table.backends.get(backend).cloned();
    }
    let of_kernel = |owner: Option<&str>| owner.is_none_or(|owner| owner == backend);
    let found = report.capabilities.iter().find(|facts| {
        facts.name == capability.name && facts.family == family.nft() && of_kernel(facts.backend.as_deref())
    })?;
    Some(found.ability.clone())
}

fn tell(facts: &Facts<'_>, diagnosis: &mut Diagnosis, backend: &str, cause: Cause, lacks: &[Lack]) {
    let name = match cause {
        Cause::NotBuilt => "kernel-not-built",
        Cause::Absent => "kernel-module-absent",
        Cause::NotLoaded => "kernel-not-loaded",
    };
    let mut evidence: Vec<String> = grouped(lacks.iter().map(|lack| ((&lack.what, &lack.why), lack.family.nft())))
        .into_iter()
        .map(|((what, why), families)| format!("{what} ({}): {why}", families.join(", ")))
        .collect();
    if let Some(file) = &facts.kernel.config_file {
        evidence.push(format!("its configuration: {}", shown(facts, file)));
    }
    let mut modules: Vec<&str> = lacks.iter().flat_map(|lack| &lack.modules).map(String::as_str).collect();
    modules.sort_unstable();
    modules.dedup();
    let carried = facts.front.is_ours && backend != "nftables" && lacks.iter().all(|lack| is_carried(facts, lack));
    if carried {
        evidence.push(format!("{} is xtshim, which carries it", facts.front.called));
    }
    let mut what: Vec<&str> = lacks.iter().map(|lack| lack.what.as_str()).collect();
    what = grouped(what.into_iter().map(|what| (what, ()))).into_iter().map(|(what, _)| what).collect();
    let release = facts.kernel.release.clone();
    let values = [("what", what.join(", ")), ("backend", backend.to_owned()), ("release", release)];
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if let Some(finding) = diagnosis.find(name, evidence, &values) {
        // A list of names, so each is a word of its own.
        finding.mend.iter_mut().for_each(|line| *line = line.replace("{modules}", &modules.join(" ")));
        if carried {
            finding.severity = Severity::Note;
            finding.mend.clear();
            finding.undo.clear();
        }
    }
}

fn is_carried(facts: &Facts<'_>, lack: &Lack) -> bool {
    let tables = facts.probe.iter().flat_map(|report| &report.tables);
    let mut concerned = tables
        .filter(|row| row.family == lack.family.nft() && lack.table.as_ref().is_none_or(|table| *table == row.table));
    let carries = |row: &crate::probe::TableFacts| row.carriers.values().any(Ability::is_able);
    facts.probe.is_none() || concerned.all(carries)
}

/// A path as the host knows it.
pub fn shown(facts: &Facts<'_>, file: &std::path::Path) -> String {
    let root = facts.host.place("/").filter(|_| !facts.host.is_live());
    let inner = root.and_then(|root| file.strip_prefix(root).ok().map(std::path::Path::to_owned));
    inner.map_or_else(|| file.display().to_string(), |inner| format!("/{}", inner.display()))
}

fn docker_needs(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let kernel = &facts.kernel;
    let mut evidence = Vec::new();
    let mut lacking = Vec::new();
    for need in &texts().requirement {
        let module = need.module.as_deref();
        let built_in = kernel.option(&need.option) == Some(OptionState::BuiltIn);
        let state = module.map(|module| kernel.module(module));
        let there = matches!(state, Some(ModuleState::Loaded | ModuleState::BuiltIn | ModuleState::OnDisk));
        let why = match (kernel.option(&need.option), state) {
            _ if built_in || there => continue,
            (Some(OptionState::NotSet), _) => format!("{} is not set", need.option),
            (Some(OptionState::Module), Some(ModuleState::NotOnDisk)) => {
                format!("built as module {}, which is not on disk", module.unwrap_or_default())
            }
            _ => continue,
        };
        evidence.push(format!("{}: {why}", need.what));
        lacking.push(need.what.as_str());
    }
    diagnosis.find("kernel-docker-needs", evidence, &[("what", &lacking.join(", "))]);
}

fn bridge_filter(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let asks = |name: &str, wanted: &str| facts.docker.setting(name).filter(|(value, _)| value == wanted);
    let asked = [asks("icc", "false"), asks("userland-proxy", "false")];
    let mut evidence: Vec<String> = asked.into_iter().flatten().map(|(_, place)| place).collect();
    if evidence.is_empty() || facts.host.has("/proc/sys/net/bridge") {
        return;
    }
    let built = facts.kernel.option("CONFIG_BRIDGE_NETFILTER");
    let why = match facts.kernel.module("br_netfilter") {
        _ if built == Some(OptionState::NotSet) => "CONFIG_BRIDGE_NETFILTER is not set",
        ModuleState::NotOnDisk => "the module br_netfilter is not on disk",
        ModuleState::OnDisk => "the module br_netfilter is on disk, but not loaded",
        _ => "there is no /proc/sys/net/bridge",
    };
    evidence.push(why.to_owned());
    diagnosis.find("kernel-br-netfilter", evidence, &[]);
}
