//! Which backend pass-through goes to: one for all tables and both families. A mixture would hide half of the rules
//! from whoever lists them, and iptables-nft warns on every listing once legacy tables exist.
//!
//! The choice is made once for a boot, and the rules that it looks at are those of the host's network namespace: that
//! of process 1. Commands also come from containers' namespaces (dockerd sets up DNS there), which are empty when
//! they are made; were each to choose for itself, one machine would use both backends.

#![forbid(unsafe_code)]

use super::trial::Trial;
use super::{Backend, Snapshot, Tool, backends};
use crate::config::{BackendChoice, CarrierKind, Config};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::nft::{ChainInfo, Connection, Policy};
use crate::rules;
use crate::sys::{exec, sandbox};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where update-alternatives says what `iptables` is at present.
const LINK: &str = "/etc/alternatives/iptables";

/// Where it keeps the choices: Debian's, and that of chkconfig's `alternatives`.
const ADMIN: [&str; 2] = ["/var/lib/dpkg/alternatives/iptables", "/var/lib/alternatives/iptables"];

/// What `iptables` was before it was us: `iptables auto|manual PATH` on a line.
const PREVIOUS: &str = "/var/lib/xtshim/previous";

/// How long listing the present rules may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A backend, and why it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub variant: Variant,
    /// One clause for a person.
    pub why: String,
    /// Whether the same choice will be made until the next boot. If not, it must not be kept.
    pub lasting: bool,
}

impl Choice {
    fn lasting(variant: Variant, why: &str) -> Self {
        Self { variant, why: why.to_owned(), lasting: true }
    }
}

/// The files that the choice rests upon.
pub fn foundations() -> impl Iterator<Item = PathBuf> {
    [LINK, PREVIOUS].into_iter().chain(ADMIN).map(PathBuf::from)
}

/// What update-alternatives says about `iptables` without us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Someone has chosen it.
    Chosen(Variant),
    /// It has the highest priority.
    Default(Variant),
}

/// The choice that stands before anything is tried: only one there, or chosen by a person.
pub fn beforehand(config: &Config, found: &[Backend]) -> Option<Choice> {
    let there = |variant: Variant| found.iter().any(|backend| backend.variant == variant);
    let configured = match config.backend {
        BackendChoice::Auto => None,
        BackendChoice::Legacy => Some(Variant::Legacy),
        BackendChoice::Nft => Some(Variant::Nft),
    };
    if let Some(variant) = configured.filter(|variant| there(*variant)) {
        return Some(Choice::lasting(variant, "the configuration says so"));
    }
    if let [only] = found {
        return Some(Choice::lasting(only.variant, "it is the only one here"));
    }
    match standing(found)? {
        Standing::Chosen(variant) => Some(Choice::lasting(variant, "it was chosen with update-alternatives")),
        Standing::Default(_) => None,
    }
}

/// The choice when all has been tried.
pub fn choose(config: &Config, found: &[Backend], trials: &[Trial]) -> Option<Choice> {
    if let Some(choice) = beforehand(config, found) {
        return Some(choice);
    }
    let scores: Vec<(u32, Variant)> =
        found.iter().zip(trials).map(|(backend, trial)| (score(trial), backend.variant)).collect();
    let best = scores.iter().map(|(score, _)| *score).max()?;
    let of_best = |variant: Variant| scores.contains(&(best, variant));
    // Nobody chose the default. One that this kernel cannot serve is passed over for one that it can.
    if let Some(Standing::Default(variant)) = standing(found)
        && of_best(variant)
    {
        return Some(Choice::lasting(variant, "update-alternatives prefers it"));
    }
    if let Some(choice) = holding(found) {
        return Some(choice);
    }
    let preferred = if of_best(Variant::Nft) { Variant::Nft } else { Variant::Legacy };
    Some(Choice { variant: preferred, why: "it can do most of what Docker says".to_owned(), lasting: true })
}

/// How much of what cannot be carried by other means a backend can do. IPv4 weighs more than IPv6.
fn score(trial: &Trial) -> u32 {
    let able = |family, table: &str| u32::from(trial.ability(family, table).is_some_and(super::Ability::is_able));
    let tables = rules::tables().iter().filter(|table| table.carriers.len() == 1);
    tables.map(|table| 2 * able(Family::V4, &table.name) + able(Family::V6, &table.name)).sum()
}

fn standing(found: &[Backend]) -> Option<Standing> {
    let variant = |path: &Path| variant_of(found, path);
    let admin = ADMIN.iter().find_map(|path| fs::read_to_string(path).ok());
    let admin = admin.as_deref().map(parse_admin);
    let automatic = admin.as_ref().is_some_and(|admin| admin.automatic);
    let link = fs::canonicalize(LINK).ok();
    if let Some(variant) = link.as_deref().and_then(variant) {
        return Some(if automatic { Standing::Default(variant) } else { Standing::Chosen(variant) });
    }
    if let Some((automatic, path)) = fs::read_to_string(PREVIOUS).ok().and_then(|text| parse_previous(&text)) {
        let variant = variant(&path)?;
        return Some(if automatic { Standing::Default(variant) } else { Standing::Chosen(variant) });
    }
    // Were we not there, the automatic choice would be the best of the others. Of a manual one no trace is left.
    let mut choices = admin.filter(|admin| admin.automatic)?.choices;
    choices.sort_by_key(|(_, priority)| std::cmp::Reverse(*priority));
    choices.iter().find_map(|(path, _)| variant(path)).map(Standing::Default)
}

/// The backend that a path leads to.
fn variant_of(found: &[Backend], path: &Path) -> Option<Variant> {
    let file = backends::identity(path)?;
    let is_it =
        |backend: &&Backend| backend.program(Family::V4, Tool::Command).and_then(backends::identity) == Some(file);
    found.iter().find(is_it).map(|backend| backend.variant)
}

#[derive(Debug, PartialEq, Eq)]
struct Admin {
    automatic: bool,
    choices: Vec<(PathBuf, i32)>,
}

/// Reads the state of an alternative: its mode, its link, pairs of slave name and link up to an empty line, then for
/// each choice its path, its priority and one line for each slave, up to an empty line.
fn parse_admin(text: &str) -> Admin {
    let mut lines = text.lines();
    let automatic = lines.next() == Some("auto");
    let slaves = lines.by_ref().skip(1).take_while(|line| !line.is_empty()).count() / 2;
    let rest: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    let choice = |lines: &[&str]| {
        let priority = lines.get(1)?.split_whitespace().next()?.parse().ok()?;
        Some((PathBuf::from(lines.first()?), priority))
    };
    Admin { automatic, choices: rest.chunks(2 + slaves).filter_map(choice).collect() }
}

fn parse_previous(text: &str) -> Option<(bool, PathBuf)> {
    let line = text.lines().find_map(|line| line.strip_prefix("iptables "))?;
    let (mode, path) = line.split_once(' ')?;
    Some((mode == "auto", PathBuf::from(path.trim())))
}

/// The one that holds rules, if only one does.
fn holding(found: &[Backend]) -> Option<Choice> {
    let ask = || [Variant::Legacy, Variant::Nft].map(|variant| holds_rules(found, variant));
    let host = sandbox::visit(Path::new("/proc/1/ns/net"), ask);
    // Without the right to look there, this namespace has to do, but only for this call.
    let lasting = host.is_ok();
    let variant = match host.unwrap_or_else(|_| ask()) {
        [true, false] => Variant::Legacy,
        [false, true] => Variant::Nft,
        _ => return None,
    };
    Some(Choice { variant, why: "it holds rules".to_owned(), lasting })
}

/// Whether a backend has rules or chains of somebody's in the calling thread's network namespace.
fn holds_rules(found: &[Backend], variant: Variant) -> bool {
    let backend = found.iter().find(|backend| backend.variant == variant);
    Family::ALL.into_iter().any(|family| match variant {
        Variant::Legacy => backend.is_some_and(|backend| legacy_holds_rules(backend, family)),
        Variant::Nft => nft_holds_rules(family),
    })
}

/// Whether the backend that commands are passed on to has somebody's rules in one table, in the calling thread's
/// network namespace. What cannot be found out counts as held.
pub fn backend_holds(snapshot: &Snapshot, family: Family, table: &str) -> bool {
    let Some(backend) = &snapshot.backend else { return false };
    if snapshot.ability(family, table, CarrierKind::Backend).is_missing() {
        return false;
    }
    match backend.variant {
        Variant::Legacy => {
            let names = fs::read_to_string(super::names_file(family)).unwrap_or_default();
            names.lines().any(|name| name == table) && saves_rules(backend, family, Some(table))
        }
        Variant::Nft => nft_holds_table(family, table, true),
    }
}

fn legacy_holds_rules(backend: &Backend, family: Family) -> bool {
    let names = fs::read_to_string(super::names_file(family)).unwrap_or_default();
    // Asked without need, iptables-save would load the modules of tables that nobody uses.
    !names.is_empty() && saves_rules(backend, family, None)
}

fn saves_rules(backend: &Backend, family: Family, table: Option<&str>) -> bool {
    let Some(save) = backend.program(family, Tool::Save) else { return true };
    let args: Vec<OsString> = table.iter().flat_map(|table| ["-t", table]).map(OsString::from).collect();
    let command = exec::command(save, &format!("{}-save", family.program()), &args);
    let Ok(answer) = sandbox::run_until(command, "", Instant::now() + PATIENCE) else { return true };
    answer.stdout.lines().any(is_somebodys)
}

/// A rule, a chain of the user's own, or a policy that is not the kernel's.
fn is_somebodys(line: &str) -> bool {
    let policy = line.strip_prefix(':').and_then(|chain| chain.split_whitespace().nth(1));
    line.starts_with("-A ") || policy.is_some_and(|policy| policy != "ACCEPT")
}

fn nft_holds_rules(family: Family) -> bool {
    rules::tables().iter().any(|table| nft_holds_table(family, &table.name, false))
}

/// `unknown` where the kernel does not say.
fn nft_holds_table(family: Family, table: &str, unknown: bool) -> bool {
    let drops = |chain: &ChainInfo| chain.policy == Some(Policy::Drop);
    let asked = Connection::open().and_then(|mut connection| {
        let (rules, chains) = (connection.rules(family, table, None)?, connection.chains(family, table)?);
        Ok(!rules.is_empty() || chains.iter().any(drops))
    });
    asked.unwrap_or(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "auto\n/usr/sbin/iptables\niptables-restore\n/usr/sbin/iptables-restore\niptables-save\n\
        /usr/sbin/iptables-save\n\n/usr/sbin/iptables-legacy\n10\n/usr/sbin/iptables-legacy-restore\n\
        /usr/sbin/iptables-legacy-save\n/usr/sbin/iptables-nft\n20\n/usr/sbin/iptables-nft-restore\n\
        /usr/sbin/iptables-nft-save\n\n";

    #[test]
    fn the_state_of_an_alternative_is_read() {
        let legacy = (PathBuf::from("/usr/sbin/iptables-legacy"), 10);
        let nft = (PathBuf::from("/usr/sbin/iptables-nft"), 20);
        assert_eq!(parse_admin(DEBIAN), Admin { automatic: true, choices: vec![legacy, nft] });
        assert!(!parse_admin(&DEBIAN.replacen("auto", "manual", 1)).automatic);
        assert_eq!(parse_admin(""), Admin { automatic: false, choices: Vec::new() });
    }

    #[test]
    fn what_was_there_before_is_read() {
        let text = "ip6tables auto /usr/sbin/ip6tables-nft\niptables manual /usr/sbin/iptables-legacy\n";
        assert_eq!(parse_previous(text), Some((false, PathBuf::from("/usr/sbin/iptables-legacy"))));
        assert_eq!(parse_previous(""), None);
    }

    #[test]
    fn an_empty_table_is_nobodys() {
        assert!(!is_somebodys(":INPUT ACCEPT [12:345]"));
        assert!(is_somebodys(":FORWARD DROP [0:0]"));
        assert!(is_somebodys(":DOCKER - [0:0]"));
        assert!(is_somebodys("-A INPUT -j DROP"));
        assert!(!is_somebodys("*filter"));
    }

    #[test]
    fn the_configuration_outweighs_all() {
        let found = [Variant::Legacy, Variant::Nft].map(|variant| Backend::new(variant, (1, 8, 9)));
        let config = Config { backend: BackendChoice::Legacy, ..Config::default() };
        assert_eq!(choose(&config, &found, &[]).map(|choice| choice.variant), Some(Variant::Legacy));
        let only = &found[1..];
        assert_eq!(choose(&config, only, &[]).map(|choice| choice.variant), Some(Variant::Nft));
        assert_eq!(choose(&config, &[], &[]), None);
    }
}
