//! What is wrong between a host's network and Docker: each cause by name, with what was seen of it, why it matters, and
//! the line that mends it. The words are in `rules/doctor.toml`.

#![forbid(unsafe_code)]

mod bridged;
mod docker;
pub mod facts;
pub mod host;
mod iptables;
mod kernel;
mod nftables;
mod rootless;
mod selinux;
pub mod version;

pub use facts::{Facts, Held, Line, Source, read_saved};
pub use nftables::SWARM;

use once_cell::sync::Lazy;
use serde::{Deserialize, Serialize};

const TEXTS: &str = include_str!("../../rules/doctor.toml");

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// It will be in the way, or is for some.
    Warning,
    /// Something does not work, or stands open.
    Error,
}

/// One cause, found on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// As in `rules/doctor.toml`.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// The cause in one sentence.
    pub what: String,
    /// What was seen of it, never empty.
    pub evidence: Vec<String>,
    /// Why it matters.
    pub why: String,
    /// What to do: lines for a root shell.
    pub mend: Vec<String>,
    /// What takes that back. Empty: `--fix` does not do it.
    pub undo: Vec<String>,
}

/// A check that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    /// What was to be looked at.
    pub what: String,
    /// Why it could not be.
    pub why: String,
}

/// All that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diagnosis {
    /// What sort of host it is: a title and a line each.
    pub host: Vec<(String, String)>,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unchecked: Vec<Unchecked>,
}

impl Diagnosis {
    /// How bad it is in all; `None`: nothing is wrong.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).filter(|severity| *severity > Severity::Note).max()
    }

    /// Notes a finding of that name; with no evidence there is none.
    fn find(&mut self, name: &str, evidence: Vec<String>, values: &[(&str, &str)]) -> Option<&mut Finding> {
        let text = texts().finding.iter().find(|text| text.name == name)?;
        if evidence.is_empty() {
            return None;
        }
        let plain = |template: &String| fill(template, values, str::to_owned);
        let quoted = |template: &String| fill(template, values, quote);
        self.findings.push(Finding {
            name: name.to_owned(),
            severity: text.severity,
            what: plain(&text.what),
            evidence,
            why: plain(&text.why),
            mend: text.mend.iter().map(quoted).collect(),
            undo: text.undo.iter().map(quoted).collect(),
        });
        self.findings.last_mut()
    }

    fn unchecked(&mut self, what: &str, why: &str) {
        let unchecked = Unchecked { what: what.to_owned(), why: why.to_owned() };
        if !self.unchecked.contains(&unchecked) {
            self.unchecked.push(unchecked);
        }
    }

    fn tell(&mut self, title: &str, line: impl Into<String>) {
        self.host.push((title.to_owned(), line.into()));
    }
}

/// Looks at everything.
pub fn examine(host: &host::Host) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let facts = Facts::gather(host, &mut diagnosis);
    let checks = [
        kernel::check,
        iptables::check,
        docker::check,
        bridged::check,
        rootless::check,
        nftables::check,
        selinux::check,
    ];
    for check in checks {
        check(&facts, &mut diagnosis);
    }
    diagnosis.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    diagnosis
}

/// Whether a finding of that name is known.
pub fn is_known(name: &str) -> bool {
    texts().finding.iter().any(|text| text.name == name)
}

fn fill(template: &str, values: &[(&str, &str)], render: impl Fn(&str) -> String) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &render(value)))
}

/// As a shell takes it.
fn quote(value: &str) -> String {
    shlex::try_quote(value).map(|quoted| quoted.into_owned()).unwrap_or_default()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    thresholds: Thresholds,
    need: Vec<Need>,
    requirement: Vec<Requirement>,
    finding: Vec<Text>,
}

/// Versions from which on something is so.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    /// dockerd filters direct access in the table raw.
    raw_since: String,
    /// dockerd heeds the variable that turns that off.
    raw_off_since: String,
    /// dockerd knows `firewall-backend`.
    firewall_backend_since: String,
    /// iptables-nft says `--dport` natively.
    native_ports_since: String,
    /// rootlesskit passes `--host-lo-to-ns-lo` on to pasta.
    rootlesskit_loopback_since: String,
    /// pasta knows that option, and needs it.
    pasta_loopback_since: String,
    /// The variable that turns the filtering off.
    raw_off_variable: String,
    /// Words that guides name for it, and that do nothing.
    raw_off_myths: Vec<String>,
    /// Packages that bring dockerd.
    packages: Vec<String>,
}

/// What Docker needs of a backend.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Need {
    /// `legacy`, `nft`; `nftables`: of nf_tables itself, without any iptables.
    backend: String,
    /// Names of rules/capabilities.toml.
    capabilities: Vec<String>,
}

/// Something of the kernel's beside the packet filter that Docker cannot do without.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    what: String,
    option: String,
    module: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    severity: Severity,
    what: String,
    why: String,
    #[serde(default)]
    mend: Vec<String>,
    #[serde(default)]
    undo: Vec<String>,
}

// That the file parses is what the test below is for; a program cannot be built from another.
static FILE: Lazy<Texts> = Lazy::new(|| toml::from_str(TEXTS).unwrap_or_default());

fn texts() -> &'static Texts {
    &FILE
}

/// Groups things under one title each, in order of their first.
fn grouped<K: PartialEq, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in pairs {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// A name and how often, for tests of the texts.
#[cfg(test)]
fn names() -> std::collections::BTreeMap<&'static str, usize> {
    texts().finding.iter().fold(std::collections::BTreeMap::new(), |mut names, text| {
        *names.entry(text.name.as_str()).or_default() += 1;
        names
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [&str; 7] = [
        include_str!("bridged.rs"),
        include_str!("docker.rs"),
        include_str!("iptables.rs"),
        include_str!("kernel.rs"),
        include_str!("nftables.rs"),
        include_str!("rootless.rs"),
        include_str!("selinux.rs"),
    ];

    #[test]
    fn the_texts_parse_and_each_is_used() {
        toml::from_str::<Texts>(TEXTS).expect("doctor.toml");
        for (name, times) in names() {
            assert_eq!(times, 1, "{name}");
            assert!(SOURCES.iter().any(|source| source.contains(&format!("\"{name}\""))), "{name} is never found");
        }
    }

    #[test]
    fn without_evidence_there_is_no_finding() {
        let mut diagnosis = Diagnosis::default();
        let name = texts().finding[0].name.as_str();
        assert!(diagnosis.find(name, Vec::new(), &[]).is_none());
        assert!(diagnosis.find("no-such-finding", vec!["seen".to_owned()], &[]).is_none());
        assert!(diagnosis.find(name, vec!["seen".to_owned()], &[]).is_some());
        assert_eq!(diagnosis.findings.len(), 1);
    }

    #[test]
    fn values_in_commands_are_quoted() {
        assert_eq!(fill("rm {file}", &[("file", "a b; reboot")], quote), "rm 'a b; reboot'");
        assert_eq!(fill("rm {file}", &[("file", "a\0b")], quote), "rm ");
    }
}
