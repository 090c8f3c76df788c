//! Which backend pass-through goes to: one for all tables and both families. A mixture would hide half of the rules
//! from whoever lists them, and iptables-nft warns on every listing once legacy tables exist.
//!
//! The choice is made once for a boot, and the rules that it looks at are those of the host's network namespace: that
//! of process 1. Commands also come from containers' namespaces (dockerd sets up DNS there), which are empty when
//! they are made; were each to choose for itself, one machine would use both backends.

#![forbid(unsafe_code)]

use super::trial::Trial;
use super::{Backend, Snapshot, Tool, backends};
use crate::alternatives::{self, Group};
use crate::config::{BackendChoice, CarrierKind, Config};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::nft::{ChainInfo, Connection, Policy};
use crate::rules;
use crate::sys::{sandbox, xtables};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where update-alternatives says what `iptables` is at present.
const LINK: &str = "/etc/alternatives/iptables";

/// What `iptables` was before it was us: `iptables auto|manual PATH` on a line.
pub const PREVIOUS: &str = "/var/lib/xtshim/previous";

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

/// The files that the choice rests upon: none where the configuration has made it.
pub fn foundations(config: &Config) -> impl Iterator<Item = PathBuf> {
    let files = [LINK, PREVIOUS].into_iter().map(PathBuf::from);
    let folders = alternatives::ADMIN.into_iter().map(Path::new).filter(|folder| folder.is_dir());
    files.chain(folders.map(|folder| folder.join("iptables"))).filter(|_| config.backend == BackendChoice::Auto)
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

/// Whether iptables-nft is chosen whatever iptables-legacy can do: update-alternatives prefers it, and it can do most.
pub fn keeps_nft(found: &[Backend], nft: &Trial) -> bool {
    matches!(standing(found), Some(Standing::Default(Variant::Nft))) && Score::of(nft).is_most()
}

/// The choice when all has been tried: the one in use, if it can do most of what Docker says or its rules stand in the way
/// of another; else the one that can do more. What the chosen one cannot do is carried.
pub fn choose(config: &Config, found: &[Backend], trials: &[Trial]) -> Option<Choice> {
    if let Some(choice) = beforehand(config, found) {
        return Some(choice);
    }
    let default = match standing(found) {
        Some(Standing::Default(variant)) => Some(variant),
        _ => None,
    };
    let (held, for_everyone) = holding(found);
    let choice = among(found, trials, default, &held)?;
    let (legacy, nft) = (Variant::Legacy, Variant::Nft);
    let whatever_is_held = [&[][..], &[legacy], &[nft], &[legacy, nft]]
        .into_iter()
        .all(|held| among(found, trials, default, held).is_some_and(|other| other.variant == choice.variant));
    Some(Choice { lasting: for_everyone || whatever_is_held, ..choice })
}

/// `default` is what update-alternatives prefers, `held` which of them hold rules.
fn among(found: &[Backend], trials: &[Trial], default: Option<Variant>, held: &[Variant]) -> Option<Choice> {
    let scores: Vec<(Variant, Score)> =
        found.iter().zip(trials).map(|(backend, trial)| (backend.variant, Score::of(trial))).collect();
    let best = scores.iter().map(|(_, score)| score.able).max()?;
    let is_best = |variant: Variant| scores.iter().any(|(other, score)| *other == variant && score.able == best);
    let does_most = |variant: Variant| scores.iter().any(|(other, score)| *other == variant && score.is_most());
    let only_holder = match held {
        [variant] => Some(*variant),
        _ => None,
    };
    let preferred = if is_best(Variant::Nft) { Variant::Nft } else { Variant::Legacy };
    let (variant, why) = match default.or(only_holder) {
        Some(variant) if default == Some(variant) && (does_most(variant) || is_best(variant)) => {
            (variant, "update-alternatives prefers it")
        }
        Some(variant) if default.is_none() && (does_most(variant) || is_best(variant)) => (variant, "it holds rules"),
        Some(variant) if held.contains(&variant) => {
            (variant, "it holds rules, though it cannot do most of what Docker says")
        }
        Some(_) => (preferred, "it can do more of what Docker says than the one that was in use"),
        None => (preferred, "it can do most of what Docker says"),
    };
    Some(Choice::lasting(variant, why))
}

/// How much of what Docker says a backend can do. IPv4 weighs more than IPv6.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    able: u32,
    of: u32,
}

impl Score {
    fn of(trial: &Trial) -> Self {
        trial.tables.iter().fold(Self::default(), |sum, table| {
            let weight = if table.family == Family::V4 { 2 } else { 1 };
            Self { able: sum.able + weight * u32::from(table.ability.is_able()), of: sum.of + weight }
        })
    }

    fn is_most(self) -> bool {
        2 * self.able > self.of
    }
}

fn standing(found: &[Backend]) -> Option<Standing> {
    let variant = |path: &Path| variant_of(found, path);
    let group = Group::read("iptables");
    let automatic = group.as_ref().is_some_and(|group| group.automatic);
    let link = fs::canonicalize(LINK).ok();
    if let Some(variant) = link.as_deref().and_then(variant) {
        return Some(if automatic { Standing::Default(variant) } else { Standing::Chosen(variant) });
    }
    if let Some((automatic, path)) = fs::read_to_string(PREVIOUS).ok().and_then(|text| parse_previous(&text)) {
        let variant = variant(&path)?;
        return Some(if automatic { Standing::Default(variant) } else { Standing::Chosen(variant) });
    }
    // Were we not there, the automatic choice would be the best of the others. Of a manual one no trace is left.
    let group = group.filter(|group| group.automatic)?;
    let others = group.others(Path::new(""));
    others.into_iter().find_map(|choice| variant(&choice.path)).map(Standing::Default)
}

/// The backend that a path leads to.
fn variant_of(found: &[Backend], path: &Path) -> Option<Variant> {
    let file = backends::identity(path)?;
    let is_it =
        |backend: &&Backend| backend.program(Family::V4, Tool::Command).and_then(backends::identity) == Some(file);
    found.iter().find(is_it).map(|backend| backend.variant)
}

fn parse_previous(text: &str) -> Option<(bool, PathBuf)> {
    let line = text.lines().find_map(|line| line.strip_prefix("iptables "))?;
    let (mode, path) = line.split_once(' ')?;
    Some((mode == "auto", PathBuf::from(path.trim())))
}

/// Those that hold rules, and whether the answer will be the same for everyone.
fn holding(found: &[Backend]) -> (Vec<Variant>, bool) {
    let ask = || found.iter().map(|backend| backend.variant).filter(|variant| holds_rules(*variant)).collect();
    let host = sandbox::visit(Path::new("/proc/1/ns/net"), ask);
    // Without the right to look there, this namespace has to do, but only for this call.
    let lasting = host.is_ok();
    (host.unwrap_or_else(|_| ask()), lasting)
}

/// Whether a backend has rules or chains of somebody's in the calling thread's network namespace.
fn holds_rules(variant: Variant) -> bool {
    Family::ALL.into_iter().any(|family| rules::tables().iter().any(|table| holds(variant, family, &table.name, false)))
}

/// Whether the backend that commands are passed on to has somebody's rules in one table, in the calling thread's
/// network namespace. What cannot be found out counts as held.
pub fn backend_holds(snapshot: &Snapshot, family: Family, table: &str) -> bool {
    snapshot.backend.as_ref().is_some_and(|backend| holds(backend.variant, family, table, true))
}

/// Whether `variant` has somebody's rules, chains or policies in `table`, in the calling thread's network namespace,
/// be its programs there or not. Loads nothing. `unknown` where the kernel does not say.
pub fn holds(variant: Variant, family: Family, table: &str, unknown: bool) -> bool {
    match variant {
        Variant::Legacy => {
            let names = fs::read_to_string(super::names_file(family)).unwrap_or_default();
            names.lines().any(|name| name == table) && xtables::legacy_holds(family, table).unwrap_or(unknown)
        }
        Variant::Nft => nft_holds(family, table).unwrap_or(unknown),
    }
}

/// A chain that raw has in another of the backend's tables, by what it holds raw there.
const HOSTED: [(CarrierKind, &str); 2] =
    [(CarrierKind::Mangle, "xtshim-raw-PREROUTING"), (CarrierKind::Filter, "xtshim-raw-entry")];

/// What holds raw in another of the backend's tables, in the calling thread's network namespace. Loads nothing.
pub fn hosted_here(snapshot: &Snapshot, family: Family) -> Option<CarrierKind> {
    let backend = snapshot.backend.as_ref()?;
    let there = |(by, chain): &(CarrierKind, &str)| match backend.variant {
        Variant::Legacy => {
            let names = fs::read_to_string(super::names_file(family)).unwrap_or_default();
            names.lines().any(|name| name == by.as_str())
                && xtables::legacy_mentions(family, by.as_str(), chain).unwrap_or(false)
        }
        Variant::Nft => {
            let asked = Connection::open().and_then(|mut connection| connection.chain(family, by.as_str(), chain));
            asked.is_ok_and(|found| found.is_some())
        }
    };
    HOSTED.iter().find(|hosted| there(hosted)).map(|(by, _)| *by)
}

fn nft_holds(family: Family, table: &str) -> io::Result<bool> {
    let mut connection = Connection::open()?;
    let Some(found) = connection.table(family, table)? else { return Ok(false) };
    if found.use_count == 0 {
        return Ok(false);
    }
    let somebodys = |chain: &ChainInfo| chain.hook.is_none() || chain.policy == Some(Policy::Drop);
    Ok(connection.chains(family, table)?.iter().any(somebodys) || !connection.rules(family, table, None)?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::Ability;
    use super::super::trial::TableTrial;
    use super::*;

    #[test]
    fn what_was_there_before_is_read() {
        let text = "ip6tables auto /usr/sbin/ip6tables-nft\niptables manual /usr/sbin/iptables-legacy\n";
        assert_eq!(parse_previous(text), Some((false, PathBuf::from("/usr/sbin/iptables-legacy"))));
        assert_eq!(parse_previous(""), None);
    }

    fn trial(able: &[&str]) -> Trial {
        let mut trial = Trial::default();
        for (family, table) in
            Family::ALL.into_iter().flat_map(|family| ["filter", "nat", "mangle", "raw"].map(|table| (family, table)))
        {
            let ability = if able.contains(&table) { Ability::Able } else { Ability::Missing { why: String::new() } };
            trial.tables.push(TableTrial { family, table: table.to_owned(), ability });
        }
        trial
    }

    fn chosen(legacy: &[&str], nft: &[&str], default: Option<Variant>, held: &[Variant]) -> Variant {
        let found = [Variant::Legacy, Variant::Nft].map(|variant| Backend::new(variant, (1, 8, 9)));
        among(&found, &[trial(legacy), trial(nft)], default, held).expect("a choice").variant
    }

    const ALL: &[&str] = &["filter", "nat", "mangle", "raw"];

    #[test]
    fn what_is_in_use_stays_while_it_can_do_most() {
        let (legacy, nft) = (Some(Variant::Legacy), Some(Variant::Nft));
        assert_eq!(chosen(&ALL[..3], ALL, legacy, &[]), Variant::Legacy);
        assert_eq!(chosen(ALL, &ALL[..3], nft, &[Variant::Legacy]), Variant::Nft);
        assert_eq!(chosen(&ALL[..3], ALL, None, &[Variant::Legacy]), Variant::Legacy);
        assert_eq!(chosen(ALL, ALL, None, &[]), Variant::Nft);
        assert_eq!(chosen(ALL, &ALL[..3], None, &[Variant::Legacy, Variant::Nft]), Variant::Legacy);
    }

    #[test]
    fn what_can_do_little_gives_way_unless_it_holds_rules() {
        assert_eq!(chosen(&ALL[..3], &["raw", "mangle"], Some(Variant::Nft), &[]), Variant::Legacy);
        assert_eq!(chosen(&ALL[..3], &["raw", "mangle"], Some(Variant::Nft), &[Variant::Legacy]), Variant::Legacy);
        assert_eq!(chosen(&ALL[..3], &["raw", "mangle"], Some(Variant::Nft), &[Variant::Nft]), Variant::Nft);
        assert_eq!(chosen(&[], ALL, None, &[Variant::Legacy]), Variant::Legacy);
        assert_eq!(chosen(&[], &[], Some(Variant::Nft), &[]), Variant::Nft);
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
