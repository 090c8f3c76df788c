//! What this machine can do: which real iptables there are, what each can do to each table, and what nf_tables
//! holds. Tried for real, once for a boot.

#![forbid(unsafe_code)]

mod backends;
mod cache;
mod choice;
mod hints;
mod kernel;
mod nftables;
mod report;
mod ticket;
mod trial;

pub use backends::NESTED_VARIABLE;
pub use choice::{PREVIOUS, backend_holds, holds, hosted_here};
pub use kernel::{Kernel, ModuleState, OptionState, Reason};
pub use report::{BackendFacts, CapabilityFacts, KernelFacts, Report, TableFacts, backend_name};
pub use ticket::{Ticket, Word};

use crate::config::{self, CarrierKind, Config, ConfigError};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::rules::{self, Need};
use crate::sys::privilege;
use choice::Choice;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;
use trial::Trial;

/// One of the programs that an iptables consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `iptables`
    Command,
    /// `iptables-save`
    Save,
    /// `iptables-restore`
    Restore,
}

impl Tool {
    /// All three.
    pub const ALL: [Tool; 3] = [Tool::Command, Tool::Save, Tool::Restore];

    /// What its name ends in, behind `iptables` or `ip6tables`.
    pub const fn suffix(self) -> &'static str {
        match self {
            Tool::Command => "",
            Tool::Save => "-save",
            Tool::Restore => "-restore",
        }
    }
}

/// `(1, 8, 9)`
pub type Version = (u16, u16, u16);

/// A real iptables on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Which of the two.
    pub variant: Variant,
    /// As in `iptables --version`.
    pub version: Version,
    programs: [Option<PathBuf>; 6],
}

impl Backend {
    /// A backend without programs; [`Backend::set_program`] adds them.
    pub fn new(variant: Variant, version: Version) -> Self {
        Self { variant, version, programs: Default::default() }
    }

    /// Says where a program is.
    pub fn set_program(&mut self, family: Family, tool: Tool, path: PathBuf) {
        self.programs[slot(family, tool)] = Some(path);
    }

    /// Absolute path of a program, never ourselves. It may be an `xtables-…-multi`, which goes by the name it is
    /// called: argv[0] must then end in `iptables`, `ip6tables-restore` and so on. `None` where it is not installed.
    pub fn program(&self, family: Family, tool: Tool) -> Option<&Path> {
        self.programs[slot(family, tool)].as_deref()
    }
}

#[inline]
fn slot(family: Family, tool: Tool) -> usize {
    let offset = match family {
        Family::V4 => 0,
        Family::V6 => 3,
    };
    offset + tool as usize
}

/// What the probe found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Ability {
    /// Proven by doing it.
    Able,
    /// Proven not to work.
    Missing {
        /// One clause for a person.
        why: String,
    },
    /// Not to be found out here: no permission, a lock that is held, a time-out. Never cached.
    Unknown {
        /// One clause for a person.
        why: String,
    },
}

impl Ability {
    /// Proven by doing it.
    pub fn is_able(&self) -> bool {
        matches!(self, Ability::Able)
    }

    /// Proven not to work.
    pub fn is_missing(&self) -> bool {
        matches!(self, Ability::Missing { .. })
    }

    /// Why not; empty when able.
    pub fn why(&self) -> &str {
        match self {
            Ability::Able => "",
            Ability::Missing { why } | Ability::Unknown { why } => why,
        }
    }
}

/// What a front needs to know. Small, and read from one cache file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The real iptables that pass-through goes to. `None`: there is none.
    pub backend: Option<Backend>,
    /// Whether the kernel has nf_tables at all: if not, no request need be made to find out what it holds.
    pub nf_tables: bool,
    /// Whether no backend was found, but something that might be one could not be asked.
    pub doubtful: bool,
    /// Where raw was found in another of the backend's tables when all was tried, in the namespace of that call: there
    /// may be more of it.
    hosted: Vec<(Family, CarrierKind)>,
    abilities: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    family: Family,
    table: String,
    carrier: CarrierKind,
    ability: Ability,
}

impl Snapshot {
    /// Notes what `carrier` can do to `table` of `family`.
    pub fn set_ability(&mut self, family: Family, table: &str, carrier: CarrierKind, ability: Ability) {
        self.abilities.retain(|entry| (entry.family, entry.carrier) != (family, carrier) || entry.table != table);
        self.abilities.push(Entry { family, table: table.to_owned(), carrier, ability });
    }

    /// Notes that raw was found in another of the backend's tables.
    pub fn set_hosted(&mut self, family: Family, by: CarrierKind) {
        self.hosted.push((family, by));
    }

    /// What held raw in another of the backend's tables when all was tried, whatever was planned then.
    pub fn hosted(&self, family: Family) -> Option<CarrierKind> {
        self.hosted.iter().find(|(of, _)| *of == family).map(|(_, by)| *by)
    }

    /// Tables of `family` that may have our own nf_tables table for a carrier.
    pub fn carried_tables(&self, family: Family) -> impl Iterator<Item = &str> {
        let carried = move |entry: &&Entry| entry.family == family && entry.carrier == CarrierKind::Nft;
        self.abilities.iter().filter(carried).map(|entry| entry.table.as_str())
    }

    /// Whether `carrier` can hold `table` of `family`. [`CarrierKind::Backend`] speaks of [`Snapshot::backend`].
    /// Carriers that a table cannot have are missing; a backend's tables of which the kernel says nothing are unknown.
    pub fn ability(&self, family: Family, table: &str, carrier: CarrierKind) -> Ability {
        self.abilities
            .iter()
            .find(|entry| entry.family == family && entry.carrier == carrier && entry.table == table)
            .map_or_else(|| untried(table, carrier), |entry| entry.ability.clone())
    }

    /// What may carry `table`, first choice first; without what is no carrier of it.
    pub fn carriers<'a>(&'a self, family: Family, table: &'a str) -> impl Iterator<Item = CarrierKind> + 'a {
        let of_table = move |entry: &&Entry| entry.family == family && entry.table == table;
        let listed = self.abilities.iter().filter(of_table).map(|entry| entry.carrier);
        let backend = move |entry: &&Entry| of_table(entry) && entry.carrier == CarrierKind::Backend;
        let untried = !self.abilities.iter().any(|entry| backend(&entry));
        untried.then_some(CarrierKind::Backend).into_iter().chain(listed)
    }

    fn is_known(&self) -> bool {
        !self.abilities.iter().any(|entry| matches!(entry.ability, Ability::Unknown { .. }))
    }
}

fn untried(table: &str, carrier: CarrierKind) -> Ability {
    match carrier {
        CarrierKind::Backend => not_tried(),
        _ => Ability::Missing { why: format!("{} cannot carry {table}", carrier.as_str()) },
    }
}

/// For tests alone: whether a text is what is kept of a snapshot.
#[doc(hidden)]
pub fn read_kept(text: &str) -> bool {
    cache::parse(text).is_some()
}

/// For tests alone: tickets that this build would keep.
#[doc(hidden)]
pub fn kept_tickets() -> Vec<Vec<u8>> {
    ticket::samples()
}

/// For tests alone: does with a ticket what the short way does, short of becoming a program. Whether it is one.
#[doc(hidden)]
pub fn read_ticket(bytes: &[u8]) -> bool {
    ticket::read_all(bytes)
}

/// How things stand for a front.
#[derive(Debug)]
pub struct Standing {
    /// The administrator's word.
    pub config: Config,
    /// What is wrong with it, if the defaults are used instead.
    pub error: Option<ConfigError>,
    /// What this machine can do.
    pub snapshot: Snapshot,
}

/// The configuration and what is known of this machine: from the cache if that is valid, else by reading and trying.
/// Never fails; what cannot be found out is [`Ability::Unknown`].
pub fn standing() -> Standing {
    let path = config::path();
    let read = |snapshot: &dyn Fn(&Config) -> Snapshot| {
        let (config, error) = config::load_from(&path);
        Standing { snapshot: snapshot(&config), config, error }
    };
    if std::env::var_os(backends::NESTED_VARIABLE).is_some() {
        return read(&|_| Snapshot::default());
    }
    let seat = cache::Seat::take(&path);
    match seat.as_ref().and_then(cache::load_snapshot) {
        Some((snapshot, Some(config))) => Standing { config, error: None, snapshot },
        Some((snapshot, None)) => read(&|_| snapshot.clone()),
        None => read(&|config| privilege::in_full(|| probe(config, seat.as_ref()).0)),
    }
}

/// The same where that cannot be had, because something in here is wrong: the backend that a person has chosen, or the only
/// one, and of nothing it is known whether it can do it.
pub fn standing_at_least() -> Standing {
    let (config, error) = config::load();
    let found = backends::find(&config).backends;
    let choice = choice::beforehand(&config, &found);
    let backend = choice.and_then(|choice| found.into_iter().find(|backend| backend.variant == choice.variant));
    Standing { snapshot: Snapshot { backend, nf_tables: true, ..Snapshot::default() }, config, error }
}

/// The same, and all else that was found out; with `refresh` by trying again. Never fails.
pub fn report(config: &Config, refresh: bool) -> (Snapshot, Report) {
    let seat = cache::Seat::take(&config.path);
    let load = |seat| cache::load_snapshot(seat).map(|(snapshot, _)| snapshot).zip(cache::load_report(seat));
    let kept = seat.as_ref().filter(|_| !refresh).and_then(load);
    kept.unwrap_or_else(|| probe(config, seat.as_ref()))
}

/// Tries everything, and keeps what was found if it will be the same until the next boot.
fn probe(config: &Config, seat: Option<&cache::Seat>) -> (Snapshot, Report) {
    let started = Instant::now();
    // Looked at before anything is tried: what changes meanwhile must make the result stale.
    let files = cache::Foundations::now(config);
    let kernel = Kernel::read();
    let found = backends::find(config);
    let tests = try_all(config, &found.backends, &kernel);
    let choice = choice::choose(config, &found.backends, &tests.trials);
    let mut snapshot = summarise(&found.backends, &tests, choice.as_ref(), &kernel);
    snapshot.doubtful = found.uncertain && found.backends.is_empty();
    for family in Family::ALL {
        if let Some(by) = choice::hosted_here(&snapshot, family) {
            snapshot.set_hosted(family, by);
        }
    }
    let findings = report::Findings {
        kernel: &kernel,
        backends: &found.backends,
        trials: &tests.trials,
        nf_tables: &tests.nf_tables,
        choice: choice.as_ref(),
        snapshot: &snapshot,
        tried: tests.for_real,
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let report = findings.report();
    let lasting = !found.uncertain && choice.as_ref().is_none_or(|choice| choice.lasting) && snapshot.is_known();
    let lasting = lasting && (tests.for_real || !may_make_namespaces());
    if let Some((seat, files)) = seat.zip(files).filter(|_| lasting) {
        cache::save_report(seat, &files, &report);
        cache::save_snapshot(seat, &files, &snapshot, config);
        ticket::save(seat, &files, &snapshot, config);
    }
    (snapshot, report)
}

/// With this right it should have been tried for real: that it was not may be different the next time.
#[inline]
fn may_make_namespaces() -> bool {
    privilege::holds(caps::Capability::CAP_SYS_ADMIN)
}

/// What trying gave.
struct Tests {
    /// One for each backend, in their order.
    trials: Vec<Trial>,
    nf_tables: nftables::Abilities,
    /// Whether there was a namespace to try it in.
    for_real: bool,
}

/// Each backend has a namespace of its own: two that hold the same tables would get in each other's way, and before
/// Linux 4.18 could not both have NAT.
///
/// On a kernel that puts a legacy table into every namespace, iptables-nft warns on every listing once the module is loaded.
/// There iptables-legacy is not tried if iptables-nft is chosen whatever it can do.
fn try_all(config: &Config, found: &[Backend], kernel: &Kernel) -> Tests {
    let in_use = choice::beforehand(config, found).map(|choice| choice.variant);
    let nft = found.iter().find(|backend| backend.variant == Variant::Nft && kernel.spreads_legacy_tables());
    let first = nft.and_then(|backend| trial::run(backend, kernel).ok());
    let settled = first.as_ref().is_some_and(|trial| in_use == Some(Variant::Nft) || choice::keeps_nft(found, trial));
    let attempt = |backend: &Backend| match backend.variant {
        Variant::Nft if first.is_some() => first.clone(),
        Variant::Legacy if settled => Some(hints::gather(backend, kernel, &nftables::Abilities::new(), false)),
        _ => trial::run(backend, kernel).ok(),
    };
    let (tried, nf_tables) = std::thread::scope(|scope| {
        let attempt = &attempt;
        let start = |backend| std::thread::Builder::new().spawn_scoped(scope, move || attempt(backend));
        let threads: Vec<_> = found.iter().map(start).collect();
        let nf_tables = nftables::run(kernel);
        let ended = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().ok().flatten();
        let tried: Vec<_> = threads.into_iter().map(|thread| thread.ok().and_then(ended)).collect();
        (tried, nf_tables)
    });
    let for_real = tried.iter().all(Option::is_some);
    let trials = found.iter().zip(tried).map(|(backend, trial)| {
        trial.unwrap_or_else(|| hints::gather(backend, kernel, &nf_tables, in_use == Some(backend.variant)))
    });
    Tests { trials: trials.collect(), for_real, nf_tables }
}

/// Puts together what a front needs.
fn summarise(found: &[Backend], tests: &Tests, choice: Option<&Choice>, kernel: &Kernel) -> Snapshot {
    let chosen = choice.and_then(|choice| found.iter().position(|backend| backend.variant == choice.variant));
    let trial = chosen.and_then(|chosen| tests.trials.get(chosen));
    let backend = chosen.and_then(|chosen| found.get(chosen));
    let nf_tables = has_nf_tables(&tests.nf_tables);
    let mut snapshot = Snapshot { backend: backend.cloned(), nf_tables, ..Snapshot::default() };
    let tables = || rules::tables().iter();
    for (family, table) in Family::ALL.into_iter().flat_map(|family| tables().map(move |table| (family, table))) {
        let is_untried = trial.is_some_and(|trial| trial.ability(family, &table.name).is_none());
        let untried = backend.filter(|_| is_untried);
        for carrier in &table.carriers {
            let ability = match (carrier, untried) {
                (CarrierKind::Backend, Some(backend)) => {
                    hints::untried_table(backend, kernel, &tests.nf_tables, family, table)
                }
                _ => Some(carrier_ability(family, table, *carrier, trial, &tests.nf_tables)),
            };
            if let Some(ability) = ability {
                snapshot.set_ability(family, &table.name, *carrier, ability);
            }
        }
    }
    snapshot
}

/// Unknown counts as there: a request that is made in vain costs little, one that is not made hides rules.
fn has_nf_tables(abilities: &nftables::Abilities) -> bool {
    let missing = |family| abilities.get(&(family, "nf_tables".to_owned())).is_none_or(Ability::is_missing);
    !Family::ALL.into_iter().all(missing)
}

fn carrier_ability(
    family: Family,
    table: &rules::Table,
    carrier: CarrierKind,
    trial: Option<&Trial>,
    nf_tables: &nftables::Abilities,
) -> Ability {
    let of_table = |name: &str| {
        let none = || Ability::Missing { why: format!("no {} is installed", family.program()) };
        trial.map_or_else(none, |trial| trial.ability(family, name).cloned().unwrap_or_else(not_tried))
    };
    if carrier == CarrierKind::Backend {
        return of_table(&table.name);
    }
    let needs: Vec<Ability> = table
        .needs(carrier)
        .map(|need| match need {
            Need::Table(name) => of_table(name),
            Need::Capability(name) => {
                let key = (family, name.to_owned());
                let asked = nf_tables.get(&key).or_else(|| trial.and_then(|trial| trial.extensions.get(&key)));
                asked.cloned().unwrap_or_else(not_tried)
            }
        })
        .collect();
    trial::worst(needs.iter())
}

/// Whether the chosen backend can open a table of which the probe does not know, in the calling thread's network
/// namespace. Loads the table.
pub fn ask_table(snapshot: &Snapshot, family: Family, table: &str) -> Ability {
    snapshot.backend.as_ref().map_or_else(not_tried, |backend| hints::ask_table(backend, family, table))
}

fn not_tried() -> Ability {
    Ability::Unknown { why: "not tried".to_owned() }
}

/// Where the kernel lists the legacy tables of the calling thread's network namespace.
fn names_file(family: Family) -> &'static str {
    match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A directory with an iptables-legacy that answers as the real one, except where `behaviour` says otherwise: lines
    /// of shell that see the table in `$table`.
    fn fake(behaviour: &str) -> Option<(tempfile::TempDir, Config)> {
        let directory = tempfile::tempdir().expect("a directory");
        for (family, tool) in Family::ALL.into_iter().flat_map(|family| Tool::ALL.map(|tool| (family, tool))) {
            let (program, suffix) = (family.program(), tool.suffix());
            let real = format!("/usr/sbin/{program}-legacy{suffix}");
            if !Path::new(&real).exists() {
                return None;
            }
            let script = match tool {
                Tool::Restore => format!(
                    "#!/bin/sh\ninput=$(cat)\nfor table in $(echo \"$input\" | sed -n 's/^\\*//p'); do\n{behaviour}\ndone\n\
                     echo \"$input\" | {real} \"$@\"\n"
                ),
                _ => format!(
                    "#!/bin/sh\ntable=$(echo \"$*\" | sed -n 's/.*-t \\([a-z]*\\).*/\\1/p')\n{behaviour}\nexec {real} \"$@\"\n"
                ),
            };
            let path = directory.path().join(format!("{program}-legacy{suffix}"));
            fs::write(&path, script).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
        }
        let config = Config { backend_directory: Some(directory.path().to_owned()), ..Config::default() };
        Some((directory, config))
    }

    fn fails(table: &str, message: &str, code: u8) -> String {
        format!("[ \"$table\" = {table} ] && {{ echo \"{message}\" >&2; exit {code}; }}")
    }

    /// `None` without the rights or the programs: then there is nothing to be shown.
    fn probe_fake(behaviour: &str) -> Option<(Snapshot, Report)> {
        let (_directory, config) = fake(behaviour)?;
        let (snapshot, report) = probe(&config, None);
        report.tried.then_some((snapshot, report))
    }

    #[test]
    fn a_missing_table_is_missing_and_can_be_carried() {
        let message = "iptables v1.8.9 (legacy): can't initialize iptables table \\`raw': Table does not exist (do you need to insmod?)";
        let Some((snapshot, report)) = probe_fake(&fails("raw", message, 3)) else { return };
        for family in Family::ALL {
            let ability = |table: &str, carrier| snapshot.ability(family, table, carrier);
            assert!(ability("raw", CarrierKind::Backend).is_missing());
            assert!(ability("raw", CarrierKind::Backend).why().contains("can't initialize iptables table `raw'"));
            for carrier in [CarrierKind::Nft, CarrierKind::Mangle, CarrierKind::Filter] {
                assert_eq!(ability("raw", carrier), Ability::Able, "{carrier:?}");
            }
            for table in ["filter", "nat", "mangle"] {
                assert_eq!(ability(table, CarrierKind::Backend), Ability::Able, "{table}");
            }
            let wanted = [CarrierKind::Backend, CarrierKind::Nft, CarrierKind::Mangle, CarrierKind::Filter];
            assert_eq!(snapshot.carriers(family, "raw").collect::<Vec<_>>(), wanted);
        }
        let missing = |table: &&TableFacts| table.backends.values().any(Ability::is_missing);
        let tables = report.tables.iter().filter(missing).map(|table| table.table.as_str());
        assert_eq!(tables.collect::<Vec<_>>(), ["raw", "raw"]);
        let backend = snapshot.backend.expect("a backend");
        assert_eq!((backend.variant, report.backends.len()), (Variant::Legacy, 1));
    }

    #[test]
    fn a_held_lock_is_no_missing_table() {
        let message = "Another app is currently holding the xtables lock. Perhaps you want to use the -w option?";
        let Some((snapshot, _)) = probe_fake(&fails("nat", message, 4)) else { return };
        assert!(matches!(snapshot.ability(Family::V4, "nat", CarrierKind::Backend), Ability::Unknown { .. }));
        assert!(snapshot.ability(Family::V4, "raw", CarrierKind::Backend).is_able());
        assert!(!snapshot.is_known());
    }

    #[test]
    fn a_word_of_warning_is_a_failure_as_it_is_to_docker() {
        let warning = "[ \"$table\" = nat ] && echo 'Warning: Extension tcp revision 0 not supported, missing kernel module?' >&2";
        let Some((snapshot, _)) = probe_fake(warning) else { return };
        assert!(snapshot.ability(Family::V4, "nat", CarrierKind::Backend).is_missing());
        assert!(snapshot.ability(Family::V4, "filter", CarrierKind::Backend).is_able());
    }

    #[test]
    fn rules_that_do_not_come_out_are_not_believed() {
        let pretend = "[ \"$table\" = raw ] && exit 0";
        let Some((snapshot, _)) = probe_fake(pretend) else { return };
        assert!(snapshot.ability(Family::V4, "raw", CarrierKind::Backend).is_missing());
    }

    #[test]
    fn without_iptables_there_is_no_backend() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config { backend_directory: Some(directory.path().to_owned()), ..Config::default() };
        let (snapshot, report) = probe(&config, None);
        assert_eq!((snapshot.backend.clone(), report.backends.len()), (None, 0));
        assert!(snapshot.ability(Family::V4, "filter", CarrierKind::Backend).is_missing());
    }

    #[test]
    fn what_no_carrier_can_hold_is_missing() {
        let snapshot = Snapshot::default();
        assert!(snapshot.ability(Family::V4, "nat", CarrierKind::Mangle).is_missing());
        assert!(matches!(snapshot.ability(Family::V4, "security", CarrierKind::Backend), Ability::Unknown { .. }));
        assert_eq!(snapshot.carriers(Family::V4, "security").collect::<Vec<_>>(), [CarrierKind::Backend]);
    }
}
