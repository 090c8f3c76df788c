//! The facts that the program reads instead of having them in its code: what stands behind a capability, what may
//! carry a table, what consumers say to iptables, what error texts mean. They are the files under `rules/`,
//! compiled in, and each is parsed when it is first asked for.

#![forbid(unsafe_code)]

use crate::config::CarrierKind;
use crate::family::Family;
use crate::iptables::dialect::Variant;
use once_cell::sync::Lazy;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

const CAPABILITIES: &str = include_str!("../rules/capabilities.toml");
const TABLES: &str = include_str!("../rules/tables.toml");
const DOCKER: &str = include_str!("../rules/docker.toml");
const ERRORS: &str = include_str!("../rules/errors.toml");

/// Tells these facts from those of another build.
pub const DIGEST: u64 = {
    let half = digest(TABLES.as_bytes(), digest(CAPABILITIES.as_bytes(), 0));
    digest(ERRORS.as_bytes(), digest(DOCKER.as_bytes(), half))
};

/// FNV-1a, to tell one text from another; no proof against anyone who wants them to be the same.
pub const fn digest(text: &[u8], start: u64) -> u64 {
    let mut hash = start ^ 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < text.len() {
        hash = (hash ^ text[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

/// What a kernel can do, and what stands behind it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// Unique.
    pub name: String,
    /// In words, as a noun.
    pub what: String,
    /// How it is proven.
    pub kind: CapabilityKind,
    /// The name by which the kernel, or the probe, knows it.
    pub key: String,
    #[serde(default = "both")]
    families: Vec<FamilyName>,
    options: Vec<String>,
    modules: Vec<String>,
    options6: Option<Vec<String>>,
    modules6: Option<Vec<String>>,
}

/// How a capability is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapabilityKind {
    /// iptables-legacy opens the table of this name.
    Table,
    /// The kernel names a revision of the match.
    Match,
    /// The kernel names a revision of the target.
    Target,
    /// A table and a base chain of the family can be made.
    #[serde(rename = "nf_tables")]
    NfTables,
    /// A batch that bears an old generation id is refused.
    Generation,
    /// nft_compat answers.
    Compat,
    /// A base chain of this type can be made.
    Chain,
    /// A rule with the expression can be added.
    Expression,
}

impl Capability {
    /// Whether there is such a thing in `family`.
    pub fn serves(&self, family: Family) -> bool {
        self.families.iter().any(|name| name.0 == family)
    }

    /// Kernel options, all of which it takes. Each is a list of the names that it has had.
    pub fn options(&self, family: Family) -> Vec<Vec<&str>> {
        alternatives(of_family(family, &self.options, self.options6.as_ref()))
    }

    /// Kernel modules, all of which it takes. Each is a list of the names that it has had.
    pub fn modules(&self, family: Family) -> Vec<Vec<&str>> {
        alternatives(of_family(family, &self.modules, self.modules6.as_ref()))
    }
}

fn of_family<'a>(family: Family, both: &'a [String], v6: Option<&'a Vec<String>>) -> &'a [String] {
    match (family, v6) {
        (Family::V6, Some(v6)) => v6,
        _ => both,
    }
}

fn alternatives(list: &[String]) -> Vec<Vec<&str>> {
    list.iter().map(|names| names.split('|').collect()).collect()
}

/// A table of iptables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// `raw`, …
    pub name: String,
    /// Its built-in chains in hook order.
    pub chains: Vec<BaseChain>,
    /// What may carry it, first choice first.
    pub carriers: Vec<CarrierKind>,
    trial: String,
    #[serde(default)]
    needs: BTreeMap<CarrierKind, Vec<String>>,
}

/// A built-in chain.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseChain {
    /// `PREROUTING`, …
    pub name: String,
    /// nft's name of the hook: `prerouting`, …
    pub hook: String,
    /// As xtables registers it (linux/netfilter_ipv4.h, `enum nf_ip_hook_priorities`).
    pub priority: i32,
    /// Type of the nf_tables chain.
    #[serde(default, rename = "type")]
    pub kind: ChainType,
}

/// Types of nf_tables base chains (nft(8), CHAINS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainType {
    /// For filtering.
    #[default]
    Filter,
    /// Routes again when the packet was changed.
    Route,
    /// Network address translation.
    Nat,
}

impl Table {
    /// Arguments of a rule that every kernel takes that has the table at all.
    pub fn trial(&self, family: Family) -> Vec<String> {
        docker().arguments(&self.trial, family)
    }

    /// What `carrier` takes to carry this table.
    pub fn needs(&self, carrier: CarrierKind) -> impl Iterator<Item = Need<'_>> {
        self.needs.get(&carrier).into_iter().flatten().map(|name| match name.strip_prefix("table:") {
            Some(table) => Need::Table(table),
            None => Need::Capability(name),
        })
    }
}

/// Something that a carrier takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// The backend has this table.
    Table(&'a str),
    /// A capability of this name.
    Capability(&'a str),
}

/// What a consumer says to iptables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    /// The consumer's program.
    pub consumer: String,
    default: Release,
    values: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(rename = "part")]
    parts: Vec<Part>,
    #[serde(rename = "line")]
    lines: Vec<Line>,
}

/// A part of what the consumer does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Unique.
    pub name: String,
    /// In words.
    pub what: String,
    /// Whether the consumer is of no use without.
    pub required: bool,
}

/// One command, without `--wait` and `-t`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What follows `-t`.
    pub table: String,
    /// Name of a [`Part`].
    pub part: String,
    args: String,
    since: Option<Release>,
    until: Option<Release>,
    #[serde(default = "both")]
    families: Vec<FamilyName>,
}

impl Line {
    fn is_said_by(&self, release: Release, family: Family) -> bool {
        self.since.is_none_or(|since| since <= release)
            && self.until.is_none_or(|until| release < until)
            && self.families.iter().any(|name| name.0 == family)
    }
}

/// One command that a consumer gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// What follows `-t`.
    pub table: String,
    /// Name of a [`Part`].
    pub part: String,
    /// Whether the consumer is of no use without.
    pub required: bool,
    /// Arguments, without `--wait` and `-t`.
    pub args: Vec<String>,
}

impl Vocabulary {
    /// What the consumer's usual release says to `table`, in an order in which it works in an empty table.
    pub fn says(&self, family: Family, table: &str) -> Vec<Saying> {
        self.said_by(self.default, family, table)
    }

    /// The same for another release.
    pub fn said_by(&self, release: Release, family: Family, table: &str) -> Vec<Saying> {
        let said = self.lines.iter().filter(|line| line.table == table && line.is_said_by(release, family));
        said.map(|line| Saying {
            table: line.table.clone(),
            part: line.part.clone(),
            required: self.part(&line.part).is_some_and(|part| part.required),
            args: self.arguments(&line.args, family),
        })
        .collect()
    }

    /// The release that [`Vocabulary::says`] speaks of.
    pub fn release(&self) -> Release {
        self.default
    }

    /// The part of this name.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// A value that stands in its rules: `bridge`, `address`, `subnet`, ….
    pub fn value(&self, family: Family, name: &str) -> Option<&str> {
        self.values.get(family.nft())?.get(name).map(String::as_str)
    }

    fn arguments(&self, template: &str, family: Family) -> Vec<String> {
        let words = shlex::split(template).unwrap_or_default();
        words.iter().map(|word| self.fill(word, family)).collect()
    }

    fn fill(&self, word: &str, family: Family) -> String {
        let values = self.values.get(family.nft());
        let pairs = values.into_iter().flatten();
        pairs.fold(word.to_owned(), |word, (name, value)| word.replace(&format!("{{{name}}}"), value))
    }
}

/// A consumer's version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Release(pub u16, pub u16, pub u16);

impl TryFrom<String> for Release {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let numbers: Result<Vec<u16>, _> = text.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([major, minor, patch]) => Ok(Release(*major, *minor, *patch)),
            _ => Err(format!("`{text}` is not a version")),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Words of an error message, and what they mean.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorText {
    /// Occurs in the message.
    pub text: String,
    /// What it speaks of.
    pub kind: ErrorKind,
    /// One clause for a person.
    pub meaning: String,
}

/// What an error message speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// Nothing about the kernel: a lock, a permission.
    Transient,
    /// The kernel, or this iptables, lacks something.
    Missing,
    /// The rules that are there are in the way.
    State,
    /// The caller's mistake, unless something is missing that would have taught iptables the word.
    Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FamilyName(Family);

impl<'de> Deserialize<'de> for FamilyName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let family = Family::ALL.into_iter().find(|family| family.nft() == name);
        family.map(FamilyName).ok_or_else(|| serde::de::Error::custom(format!("`{name}` is no family")))
    }
}

fn both() -> Vec<FamilyName> {
    Family::ALL.map(FamilyName).to_vec()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapabilityFile {
    capability: Vec<Capability>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    table: Vec<Table>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorFile {
    error: Vec<ErrorText>,
}

// That the files parse is what the tests below are for; a program cannot be built from others.
static CAPABILITY_FILE: Lazy<CapabilityFile> = Lazy::new(|| toml::from_str(CAPABILITIES).unwrap_or_default());
static TABLE_FILE: Lazy<TableFile> = Lazy::new(|| toml::from_str(TABLES).unwrap_or_default());
static DOCKER_FILE: Lazy<Vocabulary> = Lazy::new(|| toml::from_str(DOCKER).unwrap_or_default());
static ERROR_FILE: Lazy<ErrorFile> = Lazy::new(|| toml::from_str(ERRORS).unwrap_or_default());

/// All capabilities.
pub fn capabilities() -> &'static [Capability] {
    &CAPABILITY_FILE.capability
}

/// The capability of this name.
pub fn capability(name: &str) -> Option<&'static Capability> {
    capabilities().iter().find(|capability| capability.name == name)
}

/// The capability of this kind that the kernel knows as `key`.
pub fn capability_of(kind: CapabilityKind, key: &str) -> Option<&'static Capability> {
    capabilities().iter().find(|capability| capability.kind == kind && capability.key == key)
}

/// The capability without which `variant` has no table `table`.
pub fn table_capability(variant: Variant, table: &str) -> Option<&'static Capability> {
    match variant {
        Variant::Legacy => capability_of(CapabilityKind::Table, table),
        Variant::Nft if table == "nat" => capability_of(CapabilityKind::Chain, "nat"),
        Variant::Nft => capability("nf_tables"),
    }
}

/// The tables of iptables.
pub fn tables() -> &'static [Table] {
    &TABLE_FILE.table
}

/// The table of this name.
pub fn table(name: &str) -> Option<&'static Table> {
    tables().iter().find(|table| table.name == name)
}

/// What dockerd says.
pub fn docker() -> &'static Vocabulary {
    &DOCKER_FILE
}

/// What an error message means, if it is a known one.
pub fn meaning(message: &str) -> Option<&'static ErrorText> {
    ERROR_FILE.error.iter().find(|error| message.contains(&error.text))
}

/// The extensions that the arguments of a rule name, as (kind, kernel's name): of `-m`, of `-j` where it is a known
/// target, and the match that a protocol with ports implies.
pub fn extensions(family: Family, args: &[String]) -> Vec<&'static Capability> {
    let mut found: Vec<&'static Capability> = Vec::new();
    let ports = args.iter().any(|arg| arg == "--dport" || arg == "--sport");
    for pair in args.windows(2) {
        let [option, value] = pair else { continue };
        let kind = match option.as_str() {
            "-m" => CapabilityKind::Match,
            "-p" if ports => CapabilityKind::Match,
            "-j" => CapabilityKind::Target,
            _ => continue,
        };
        let capability = capability_of(kind, value).filter(|capability| capability.serves(family));
        if let Some(capability) = capability.filter(|new| found.iter().all(|old| old.name != new.name)) {
            found.push(capability);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_parses() {
        toml::from_str::<CapabilityFile>(CAPABILITIES).expect("capabilities.toml");
        toml::from_str::<TableFile>(TABLES).expect("tables.toml");
        toml::from_str::<Vocabulary>(DOCKER).expect("docker.toml");
        toml::from_str::<ErrorFile>(ERRORS).expect("errors.toml");
    }

    #[test]
    fn names_are_unique_and_lead_somewhere() {
        let names: BTreeSet<&str> = capabilities().iter().map(|capability| capability.name.as_str()).collect();
        assert_eq!(names.len(), capabilities().len());
        for table in tables() {
            assert!(table_capability(Variant::Legacy, &table.name).is_some(), "{}", table.name);
            for carrier in table.carriers.iter().filter(|carrier| **carrier != CarrierKind::Backend) {
                assert!(table.needs(*carrier).count() > 0, "{} {carrier:?}", table.name);
                for need in table.needs(*carrier) {
                    match need {
                        Need::Table(name) => assert!(super::table(name).is_some(), "{name}"),
                        Need::Capability(name) => assert!(capability(name).is_some(), "{name}"),
                    }
                }
            }
        }
        for line in &docker().lines {
            assert!(docker().part(&line.part).is_some(), "{}", line.part);
            assert!(table(&line.table).is_some(), "{}", line.table);
        }
    }

    #[test]
    fn every_extension_that_docker_names_is_a_known_capability() {
        let chain = |name: &str| name.starts_with("DOCKER") || ["ACCEPT", "DROP", "RETURN"].contains(&name);
        for line in &docker().lines {
            for family in line.families.iter().map(|name| name.0) {
                let args = docker().arguments(&line.args, family);
                assert!(!args.is_empty() && !args.concat().contains('{'), "{}", line.args);
                let known: Vec<&str> = extensions(family, &args).iter().map(|found| found.key.as_str()).collect();
                for pair in args.windows(2) {
                    match pair[0].as_str() {
                        "-m" => assert!(known.contains(&pair[1].as_str()), "{}", line.args),
                        "-j" => assert!(chain(&pair[1]) || known.contains(&pair[1].as_str()), "{}", line.args),
                        _ => {}
                    }
                }
            }
        }
    }

    #[test]
    fn docker_speaks_of_raw_from_28_on() {
        let said = |release| docker().said_by(release, Family::V4, "raw");
        assert_eq!(said(Release(27, 5, 1)), []);
        assert!(said(Release(28, 0, 1))[0].args.contains(&"--dport".to_owned()));
        let now = docker().says(Family::V6, "raw");
        let wanted = ["-A", "PREROUTING", "-d", "fd00:db8:1::2", "!", "-i", "docker0", "-j", "DROP"];
        assert!(now.iter().any(|saying| saying.args == wanted && saying.required));
    }

    #[test]
    fn messages_are_told_apart() {
        let kind = |message: &str| meaning(message).map(|error| error.kind);
        let locked = "Another app is currently holding the xtables lock. Perhaps you want to use the -w option?";
        assert_eq!(kind(locked), Some(ErrorKind::Transient));
        let absent = "iptables v1.8.9 (legacy): can't initialize iptables table `raw': Table does not exist (do you need to insmod?)";
        assert_eq!(kind(absent), Some(ErrorKind::Missing));
        let denied =
            "iptables v1.8.9 (legacy): can't initialize iptables table `raw': Permission denied (you must be root)";
        assert_eq!(kind(denied), Some(ErrorKind::Transient));
        assert_eq!(kind("iptables v1.8.7 (nf_tables): unknown option \"--dport\""), Some(ErrorKind::Usage));
        assert_eq!(kind("something new"), None);
    }
}
