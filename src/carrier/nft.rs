//! The `nft` carrier: a table of our own in nf_tables, holding native expressions.
//!
//! The kernel is the only store. Each rule's user data holds its iptables form; what a chain's rules jump to is read
//! from their verdicts. Every change is one batch, guarded by the generation that it was computed from.

#![forbid(unsafe_code)]

use super::change::{self, Change, Place};
use super::hooks;
use super::run::{self, Run, Seat};
use super::table::{Base, Chain, Held, Policy, Session, Table, Unread};
use super::takeover::MARKS;
use super::{Applied, Carrier, RestoreError, Section};
use crate::error::{Error, TableError, reason};
use crate::family::Family;
use crate::iptables::dialect::{Dialect, Variant};
use crate::iptables::parse::NAME_MAX;
use crate::iptables::restore::{self, Bracket, Line, Words};
use crate::iptables::{self, Command, Invocation, Rule};
use crate::nft::text::{self, Told};
use crate::nft::userdata::{self, Continuations, Decoded, Entry};
use crate::nft::{self, Batch, ChainInfo, ChainKind, CommitError, Connection, HookPoint, RuleInfo};
use crate::sys::grace;
use crate::sys::turn::Turn;
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

/// How often a table is read again because somebody else's change came first.
const ATTEMPTS: u32 = 200;

/// So many rules, and jumps to chains, are read faster than one could ask for less.
const FEW: u64 = 64;

/// NFT_TABLE_F_DORMANT (linux/netfilter/nf_tables.h): the table's chains are not called.
const DORMANT: u32 = 1;

/// A built-in chain and where it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// `PREROUTING`, …
    pub name: &'static str,
    /// Its hook.
    pub hook: HookPoint,
    /// Its priority there.
    pub priority: i32,
    /// Its type.
    pub kind: ChainKind,
}

impl Builtin {
    const fn new(name: &'static str, hook: HookPoint, priority: i32, kind: ChainKind) -> Self {
        Self { name, hook, priority, kind }
    }
}

/// What `rules/tables.toml` says of the tables that this carrier can hold. Every command asks for it, and would take as long to
/// read that file as for all else that it does.
const BUILTINS: [(&str, &[Builtin]); 5] = {
    use ChainKind::{Filter, Nat, Route};
    use HookPoint::{Forward, Input, Output, Postrouting, Prerouting};
    [
        (
            "filter",
            &[
                Builtin::new("INPUT", Input, 0, Filter),
                Builtin::new("FORWARD", Forward, 0, Filter),
                Builtin::new("OUTPUT", Output, 0, Filter),
            ],
        ),
        (
            "nat",
            &[
                Builtin::new("PREROUTING", Prerouting, -100, Nat),
                Builtin::new("INPUT", Input, 100, Nat),
                Builtin::new("OUTPUT", Output, -100, Nat),
                Builtin::new("POSTROUTING", Postrouting, 100, Nat),
            ],
        ),
        (
            "mangle",
            &[
                Builtin::new("PREROUTING", Prerouting, -150, Filter),
                Builtin::new("INPUT", Input, -150, Filter),
                Builtin::new("FORWARD", Forward, -150, Filter),
                Builtin::new("OUTPUT", Output, -150, Route),
                Builtin::new("POSTROUTING", Postrouting, -150, Filter),
            ],
        ),
        ("raw", &[Builtin::new("PREROUTING", Prerouting, -300, Filter), Builtin::new("OUTPUT", Output, -300, Filter)]),
        (
            "security",
            &[
                Builtin::new("INPUT", Input, 50, Filter),
                Builtin::new("FORWARD", Forward, 50, Filter),
                Builtin::new("OUTPUT", Output, 50, Filter),
            ],
        ),
    ]
};

/// Built-in chains of an iptables table that this carrier can hold, in the order in which iptables lists them. Empty
/// for a table that it cannot.
pub fn builtins(table: &str) -> &'static [Builtin] {
    BUILTINS.iter().find(|(name, _)| *name == table).map_or(&[], |(_, chains)| chains)
}

/// What the names of our tables begin with; the iptables table's name follows.
pub const NAME_PREFIX: &str = "xtshim-";

/// Our table's name for the iptables table `table`.
pub fn table_name(table: &str) -> String {
    format!("{NAME_PREFIX}{table}")
}

/// Our own table at work.
pub struct NftCarrier {
    pub(super) connection: Connection,
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) dialect: Dialect,
    pub(super) optimize: bool,
}

/// How much of a table a command has to see. Chains are always read, rules are many.
#[derive(Clone, Debug, PartialEq, Eq)]
enum View {
    /// All of it.
    Whole,
    /// One chain's rules.
    Chain(String),
    /// Those of one chain's rules that have one of these texts.
    Texts { chain: String, texts: Vec<String> },
    /// No rules.
    Chains(Unread),
}

impl View {
    fn of(command: &Command, table: &str) -> Self {
        match command {
            Command::Check { chain, rules } | Command::DeleteRule { chain, rules } => {
                Self::Texts { chain: chain.clone(), texts: rules.iter().map(Rule::spec).collect() }
            }
            Command::ListRules { chain: Some(chain), zero: false, .. } | Command::DeleteNumber { chain, .. } => {
                Self::Chain(chain.clone())
            }
            // With a jump other rules can be reached from elsewhere than before.
            Command::Append { chain, rules } if rules.iter().all(|rule| is_plain(rule, chain, table)) => {
                Self::Chains(Unread::Before)
            }
            Command::Insert { chain, position: 1, rules } => match rules.as_slice() {
                [rule] if is_plain(rule, chain, table) => Self::Chains(Unread::Behind),
                _ => Self::Whole,
            },
            _ => Self::Whole,
        }
    }

    fn unread(&self) -> Unread {
        match self {
            Self::Whole => Unread::Nothing,
            Self::Chain(_) | Self::Texts { .. } => Unread::Elsewhere,
            Self::Chains(unread) => *unread,
        }
    }
}

/// Whether what stands in other rules has no bearing on this one.
fn is_plain(rule: &Rule, chain: &str, table: &str) -> bool {
    let builtin = builtins(table).iter().any(|builtin| builtin.name == chain);
    rule.jump().is_none() && (builtin || !hooks::is_choosy(&rule.spec()))
}

/// A table as it was read, and the generation that it was read from.
struct Reading {
    table: Result<Table, Error>,
    generation: u32,
}

impl NftCarrier {
    /// Speaks to the kernel about the table that carries `table`.
    pub fn open(family: Family, table: &str, dialect: Dialect) -> Result<Self, Error> {
        let connection = Connection::open().map_err(|error| unavailable(&error))?;
        Ok(Self::over(connection, family, table, dialect))
    }

    /// The same over a connection that is open already.
    pub fn over(connection: Connection, family: Family, table: &str, dialect: Dialect) -> Self {
        Self { connection, family, table: table.to_owned(), name: table_name(table), dialect, optimize: false }
    }

    /// The same; with `optimize` neighbouring rules for one destination each become runs, of which a packet meets its own
    /// address's only.
    pub fn optimizing(self, optimize: bool) -> Self {
        Self { optimize, ..self }
    }

    /// The connection, for other questions.
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    fn untouched(&self) -> Table {
        let chains = builtins(&self.table).iter().map(|builtin| Chain::untouched(builtin.name)).collect();
        Table { chains, ..Table::empty(self.family, &self.table) }
    }

    /// The table as it was at one moment.
    pub(super) fn read(&mut self) -> Result<Table, Error> {
        self.look(&View::Whole)
    }

    /// As much of it as is asked for.
    fn look(&mut self, view: &View) -> Result<Table, Error> {
        let mut turn = Turn::default();
        for _ in 0..ATTEMPTS {
            let reading = self.read_loosely(view)?;
            if self.is_present(reading.generation)? {
                return reading.table;
            }
            turn.lost();
        }
        Err(Error::Resource("the ruleset changes faster than it can be read".to_owned()))
    }

    /// The table as it was at one moment if its generation is still the present one: a transaction that bears the
    /// generation finds that out by itself.
    fn read_loosely(&mut self, view: &View) -> Result<Reading, Error> {
        let generation = self.connection.settled_generation().map_err(|error| unavailable(&error))?;
        Ok(Reading { table: self.read_table(view), generation })
    }

    fn is_present(&mut self, generation: u32) -> Result<bool, Error> {
        let present = self.connection.generation().map_err(|error| unavailable(&error))?;
        Ok(present == generation)
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            family: self.family,
            table: &self.name,
            builtins: builtins(&self.table),
            eager: self.dialect.variant == Variant::Legacy,
            optimize: self.optimize,
        }
    }

    fn read_table(&mut self, view: &View) -> Result<Table, Error> {
        let mut table = self.untouched();
        let found = self.connection.table(self.family, &self.name).map_err(|error| unavailable(&error))?;
        let Some(found) = found else { return Ok(table) };
        if found.flags & DORMANT != 0 {
            return Err(self.incompatible());
        }
        table.exists = true;
        let chains = self.connection.chains(self.family, &self.name).map_err(|error| unavailable(&error))?;
        let few = chains.iter().map(|chain| u64::from(chain.use_count)).sum::<u64>() <= FEW;
        // A run's members stand in chains of their own.
        let runs = chains.iter().any(|chain| run::of_chain(&chain.name).is_some());
        let view = if few || runs { &View::Whole } else { view };
        if *view != View::Whole {
            // A ruleset that was saved and loaded again has lost all of its texts.
            let ours = self.connection.first_rules_are(self.family, &self.name, userdata::is_ours);
            if !ours.map_err(|error| unavailable(&error))? {
                return Err(self.incompatible());
            }
        }
        let continued = chains.iter().any(|chain| chain.name == userdata::OVERFLOW_CHAIN);
        let (rules, overflow) = self.read_rules(view, continued).map_err(|error| unavailable(&error))?;
        let hidden =
            |name: &str| name == userdata::OVERFLOW_CHAIN || MARKS.contains(&name) || run::of_chain(name).is_some();
        for info in chains.iter().filter(|chain| !hidden(&chain.name)) {
            self.place_chain(&mut table, info)?;
        }
        self.place_rules(&mut table, rules, &overflow)?;
        if runs {
            self.prove_runs(&table, &chains)?;
            table.idle = self.idle(&table, &chains);
        }
        table.sort();
        table.unread = view.unread();
        Ok(table)
    }

    /// The rules, and those that continue them.
    fn read_rules(&mut self, view: &View, continued: bool) -> io::Result<(Vec<RuleInfo>, Vec<RuleInfo>)> {
        let (chain, texts) = match view {
            View::Chains(_) => return Ok((Vec::new(), Vec::new())),
            View::Whole => (None, None),
            View::Chain(chain) => (Some(chain.as_str()), None),
            View::Texts { chain, texts } => (Some(chain.as_str()), Some(texts)),
        };
        let mut before = true;
        let wanted = |userdata: &[u8]| {
            // What follows the first part of a rule goes with it.
            before = match (texts, userdata::glance(userdata)) {
                (Some(texts), Some((0, text))) => texts.iter().any(|wanted| wanted.as_bytes() == text),
                (Some(_), Some(_)) => before,
                _ => true,
            };
            before
        };
        let rules = self.connection.rules_in_short(self.family, &self.name, chain, wanted)?;
        let overflow = |rule: &RuleInfo| *rule.chain == *userdata::OVERFLOW_CHAIN;
        match chain {
            None => {
                let (overflow, rules) = rules.into_iter().partition(overflow);
                Ok((rules, overflow))
            }
            Some(_) if !continued => Ok((rules, Vec::new())),
            Some(_) => {
                let chain = Some(userdata::OVERFLOW_CHAIN);
                let overflow = self.connection.rules_in_short(self.family, &self.name, chain, |_| true)?;
                Ok((rules, overflow))
            }
        }
    }

    /// A chain with a hook must be one of the built-in ones, at its own place: anything else is not ours.
    fn place_chain(&self, table: &mut Table, info: &ChainInfo) -> Result<(), Error> {
        let origin = Some((info.name.clone(), info.handle));
        let builtin = builtins(&self.table).iter().find(|builtin| builtin.name == info.name);
        let hook = match (&info.hook, builtin) {
            (None, None) => {
                table.chains.push(Chain { origin, ..Chain::user(&info.name) });
                return Ok(());
            }
            (Some(hook), Some(builtin))
                if hook.num == builtin.hook.number() && hook.priority == builtin.priority && hook.is(builtin.kind) =>
            {
                info
            }
            _ => return Err(self.incompatible()),
        };
        let policy = match hook.policy {
            Some(nft::Policy::Drop) => Policy::Drop,
            Some(nft::Policy::Accept) | None => Policy::Accept,
        };
        if let Some(chain) = table.chains.iter_mut().find(|chain| chain.name == info.name) {
            chain.base = Some(Base { policy, counters: info.counters.unwrap_or_default() });
            chain.origin = origin;
        }
        Ok(())
    }

    fn place_rules(&self, table: &mut Table, rules: Vec<RuleInfo>, overflow: &[RuleInfo]) -> Result<(), Error> {
        let mut index: HashMap<&str, usize> = HashMap::new();
        let names: Vec<String> = table.chains.iter().map(|chain| chain.name.clone()).collect();
        for (at, name) in names.iter().enumerate() {
            index.insert(name, at);
        }
        let overflow = &Continuations::of(overflow);
        let mut members: HashMap<u32, Vec<Held>> = HashMap::new();
        let mut runs = Vec::new();
        // Rules come chain by chain.
        let mut last: Option<usize> = None;
        for info in rules {
            if let Some((run, address)) = run::of_chain(&info.chain) {
                let Decoded::Ours(Entry { part: 0, parts: 1, text, ordinal: Some(ordinal) }) =
                    userdata::decode(&info.userdata, overflow)
                else {
                    return Err(self.incompatible());
                };
                if run::address(self.family, &text) != Some(address) {
                    return Err(self.incompatible());
                }
                members.entry(run).or_default().push(Held {
                    counters: (info.packets, info.bytes),
                    handles: vec![info.handle],
                    parts: 1,
                    seat: Some(Seat { run, ordinal }),
                    ..Held::of(text, None)
                });
                continue;
            }
            let same = last.filter(|at| names.get(*at).is_some_and(|name| **name == *info.chain));
            let at = same.or_else(|| index.get(&*info.chain).copied());
            last = at;
            let chain = at.and_then(|at| table.chains.get_mut(at));
            let chain = chain.ok_or_else(|| self.incompatible())?;
            match userdata::decode(&info.userdata, overflow) {
                Decoded::Ours(Entry { ordinal: Some(_), .. }) => return Err(self.incompatible()),
                Decoded::Ours(entry) if entry.part == 0 => chain.rules.push(Held {
                    counters: (info.packets, info.bytes),
                    handles: vec![info.handle],
                    parts: entry.parts,
                    overflow: userdata::overflow_handles(&info.userdata, overflow),
                    ..Held::of(entry.text, jump_of(&info))
                }),
                Decoded::Run(id) => runs.push((at, chain.rules.len(), Run { id, handle: info.handle })),
                Decoded::Ours(entry) => {
                    let held = chain.rules.last_mut().filter(|held| held.handles.len() == usize::from(entry.part));
                    let held = held.ok_or_else(|| self.incompatible())?;
                    held.handles.push(info.handle);
                    held.counters.0 = held.counters.0.saturating_add(info.packets);
                    held.counters.1 = held.counters.1.saturating_add(info.bytes);
                }
                Decoded::Foreign | Decoded::Newer => return Err(self.incompatible()),
            }
        }
        // From behind, so that the places before stay what they are.
        for (chain, at, run) in runs.into_iter().rev() {
            let chain = chain.and_then(|chain| table.chains.get_mut(chain)).ok_or_else(|| self.incompatible())?;
            let mut members = members.remove(&run.id).unwrap_or_default();
            members.sort_by_key(|held| held.seat.map(|seat| seat.ordinal));
            chain.rules.splice(at..at, members);
            chain.runs.push(run);
        }
        if !members.is_empty() {
            return Err(self.incompatible());
        }
        let whole = |held: &Held| held.handles.len() == usize::from(held.parts);
        match table.chains.iter().flat_map(|chain| &chain.rules).all(whole) {
            true => Ok(()),
            false => Err(self.incompatible()),
        }
    }

    /// A rule in a chain of its address's is in force only where the run's map leads there, and nowhere else.
    fn prove_runs(&mut self, table: &Table, chains: &[ChainInfo]) -> Result<(), Error> {
        let mut expected: HashMap<u32, HashMap<IpAddr, String>> = HashMap::new();
        for (name, (run, address)) in chains.iter().filter_map(|chain| Some((&chain.name, run::of_chain(&chain.name)?)))
        {
            expected.entry(run).or_default().insert(address, name.clone());
        }
        let looked_up = table.chains.iter().flat_map(|chain| &chain.runs).map(|run| run.id);
        let runs: HashSet<u32> = looked_up.chain(expected.keys().copied()).collect();
        for run in runs {
            let map = self.connection.verdict_map(self.family, &self.name, &run::map_name(run));
            if map.ok() != Some(expected.remove(&run).unwrap_or_default()) {
                return Err(self.incompatible());
            }
        }
        Ok(())
    }

    /// Chains of one address that hold no rules.
    fn idle(&self, table: &Table, chains: &[ChainInfo]) -> Vec<(u32, IpAddr)> {
        let rules = table.chains.iter().flat_map(|chain| &chain.rules);
        let at = |held: &Held| Some((held.seat?.run, run::address(self.family, &held.spec)?));
        let inhabited: HashSet<(u32, IpAddr)> = rules.filter_map(at).collect();
        let there = chains.iter().filter_map(|chain| run::of_chain(&chain.name));
        there.filter(|chain| !inhabited.contains(chain)).collect()
    }

    /// What we did not put there, or cannot read, is never guessed at.
    fn incompatible(&self) -> Error {
        Error::Resource(format!(
            "table `{}' is incompatible, use 'nft' tool.\n`nft list table {} {}' shows it, `nft delete table …' removes it",
            self.table,
            self.family.nft(),
            self.name
        ))
    }

    /// Computes a change on what the kernel holds and applies it, again and again until nobody was faster.
    fn transact<E>(
        &mut self,
        view: &View,
        mut compute: impl FnMut(&mut Table) -> Result<(), E>,
        lift: impl Fn(Error) -> E,
        dry: bool,
    ) -> Result<Applied, E> {
        // What is new may make a run of what is there, unless nothing of that stays.
        let view = if self.optimize && *view != View::Chains(Unread::Replaced) { &View::Whole } else { view };
        let mut turn = Turn::default();
        for _ in 0..ATTEMPTS {
            let Reading { table, generation } = self.read_loosely(view).map_err(&lift)?;
            let change = table.map_err(&lift).and_then(|before| {
                let mut after = before.clone();
                compute(&mut after)?;
                hooks::check(&before, &after, &self.dialect).map_err(&lift)?;
                let change = change::between(&self.place(), &before, after).map_err(&lift)?;
                Ok((change, before))
            });
            let (Change { batch, sweep, told }, before) = match change {
                Ok(change) if !dry && !change.0.batch.is_empty() => change,
                outcome if self.is_present(generation).map_err(&lift)? => return outcome.map(|_| Applied::default()),
                _ => {
                    turn.lost();
                    continue;
                }
            };
            match self.connection.commit(batch, Some(generation)) {
                Ok(()) => {
                    let told = told.and(self.clean_up(sweep, generation));
                    return Ok(Applied { told, ..Applied::default() });
                }
                Err(error) if error.is_race() => turn.lost(),
                Err(error) if error.in_doubt => {
                    turn.over();
                    if self.is_so(before, |table| compute(table).is_ok()) {
                        return Ok(Applied { told, ..Applied::default() });
                    }
                    return Err(lift(self.explain(&error)));
                }
                // A kernel that has no such maps is no reason to fail.
                Err(_) if self.optimize => self.optimize = false,
                Err(error) => return Err(lift(self.explain(&error))),
            }
        }
        Err(lift(Error::Resource("the ruleset changes faster than it can be changed".to_owned())))
    }

    /// Whether the kernel holds by now what `compute` makes of a table that was read whole. Counters alone show nothing.
    fn is_so(&mut self, before: Table, compute: impl FnOnce(&mut Table) -> bool) -> bool {
        let mut wanted = before.clone();
        before.unread == Unread::Nothing
            && compute(&mut wanted)
            && !wanted.reads_as(&before)
            && self.read().is_ok_and(|now| now.exists && now.reads_as(&wanted))
    }

    /// Takes away what a change has left empty, unless another came since: the next one then does. `generation`: from before
    /// the change.
    fn clean_up(&mut self, sweep: Batch, generation: u32) -> Told {
        if sweep.is_empty() {
            return Told::default();
        }
        grace::pass();
        let told = text::told(&sweep, change::TOLD).unwrap_or_default();
        // 0 is no generation (nf_tables_commit, net/netfilter/nf_tables_api.c).
        match self.connection.commit(sweep, Some(generation.wrapping_add(1).max(1))) {
            Ok(()) => told,
            Err(_) => Told::default(),
        }
    }

    /// A refusal of the kernel's in the words of the backend. Where a native expression is called from a hook that it
    /// is not for, xt says EINVAL.
    pub(super) fn explain(&self, error: &CommitError) -> Error {
        if error.in_doubt {
            return Error::Resource(error.to_string());
        }
        let misplaced = error.errno == Errno::EOPNOTSUPP && error.operation.is_of_rule();
        let error = &CommitError { errno: if misplaced { Errno::EINVAL } else { error.errno }, ..error.clone() };
        if error.errno == Errno::EPERM {
            return Error::Resource(format!("{} failed (Permission denied (you must be root))", error.operation));
        }
        if error.errno == Errno::EMSGSIZE {
            let more = "it takes root of the whole machine, or a larger net.core.wmem_max";
            return Error::Resource(format!("too much to be sent at once ({}): {more}", error.errno.desc()));
        }
        match self.dialect.variant {
            Variant::Nft => {
                let what = match &error.chain {
                    Some(chain) if error.operation.is_of_rule() => format!("rule in chain {chain}"),
                    Some(chain) => format!("chain {chain}"),
                    None => format!("table {}", self.table),
                };
                Error::Resource(format!(" {} failed ({}): {what}", error.operation, error.errno.desc()))
            }
            Variant::Legacy => match error.errno {
                Errno::ENOENT => TableError::NoChain.into(),
                Errno::EMLINK | Errno::ELOOP => TableError::Loop.into(),
                Errno::EINVAL => TableError::Invalid.into(),
                Errno::EEXIST => TableError::FileExists.into(),
                Errno::EBUSY => TableError::TooManyLinks.into(),
                errno => Error::Resource(errno.desc().to_owned()),
            },
        }
    }
}

fn jump_of(info: &RuleInfo) -> Option<String> {
    match &info.verdict {
        Some(nft::expr::Verdict::Jump(chain) | nft::expr::Verdict::Goto(chain)) => Some(chain.clone()),
        _ => None,
    }
}

/// The kernel cannot even be asked.
pub(super) fn unavailable(error: &io::Error) -> Error {
    let reason = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => "Permission denied (you must be root)".to_owned(),
        _ => reason(error),
    };
    Error::Resource(format!("Could not fetch rule set generation id: {reason}"))
}

/// Whether a command only looks.
pub fn only_looks(command: &Command) -> bool {
    match command {
        Command::Check { .. } | Command::Version | Command::Help => true,
        Command::List { zero, .. } | Command::ListRules { zero, .. } => !zero,
        _ => false,
    }
}

impl Carrier for NftCarrier {
    fn run(&mut self, invocation: &Invocation, out: &mut String) -> Result<Applied, Error> {
        let dialect = self.dialect;
        let view = View::of(&invocation.command, &self.table);
        if only_looks(&invocation.command) {
            let mut table = self.look(&view)?;
            Session { table: &mut table, dialect: &dialect, out }.run(invocation)?;
            return Ok(Applied::default());
        }
        let start = out.len();
        let compute = |table: &mut Table| {
            out.truncate(start);
            Session { table, dialect: &dialect, out }.run(invocation)
        };
        self.transact(&view, compute, |error| error, false)
    }

    fn save(&mut self, counters: bool, out: &mut String) -> Result<bool, Error> {
        let mut table = self.read()?;
        if table.exists {
            Session { table: &mut table, dialect: &self.dialect, out }.save(counters)?;
        }
        Ok(table.exists)
    }

    fn save_untouched(&self, out: &mut String) {
        let mut table = self.untouched();
        // A table without rules has nothing to fail on.
        let _ = Session { table: &mut table, dialect: &self.dialect, out }.save(false);
    }

    fn restore(&mut self, section: &Section<'_>, out: &mut String) -> Result<Applied, RestoreError> {
        let (dialect, family) = (self.dialect, self.family);
        let table_name = self.table.clone();
        let (start, mut warnings) = (out.len(), Vec::new());
        let compute = |table: &mut Table| {
            out.truncate(start);
            warnings.clear();
            if section.comments && dialect.variant == Variant::Nft {
                // iptables-nft-restore does what it has read at the end of the table.
                let comments = section.lines.iter().filter(|(_, text)| text.starts_with('#'));
                out.extend(comments.map(|(_, text)| *text));
            }
            let heard = out.len();
            let mut session = Session { table, dialect: &dialect, out };
            let done = lines(&mut session, &mut warnings, section, family, &table_name);
            if section.test && dialect.variant == Variant::Nft && done.is_ok() {
                out.truncate(heard);
            }
            done
        };
        let lift = |error| RestoreError { line: section.commit, error };
        let view = if section.noflush { View::Whole } else { View::Chains(Unread::Replaced) };
        let applied = self.transact(&view, compute, lift, section.test)?;
        Ok(Applied { warnings, ..applied })
    }
}

/// Does what a section of a restore file says, to the model alone.
pub(super) fn lines(
    session: &mut Session<'_>,
    warnings: &mut Vec<String>,
    section: &Section<'_>,
    family: Family,
    table: &str,
) -> Result<(), RestoreError> {
    if !section.noflush {
        session.clear(section.verbose);
    }
    for (number, text) in &section.lines {
        line(session, warnings, section, family, table, *number, text).map_err(|error| {
            let late = matches!(error, Error::Table(TableError::Misplaced));
            RestoreError { line: if late { section.commit } else { *number }, error }
        })?;
    }
    match section.complete {
        true => Ok(()),
        false => Err(RestoreError { line: section.commit, error: no_commit(session.dialect, section.commit) }),
    }
}

/// What iptables-restore says of a file that ends inside a table.
fn no_commit(dialect: &Dialect, line: usize) -> Error {
    let program = dialect.family.program();
    Error::Verbatim { stderr: format!("{program}-restore: COMMIT expected at line {line}\n"), code: 1 }
}

pub(super) fn line(
    session: &mut Session<'_>,
    warnings: &mut Vec<String>,
    section: &Section<'_>,
    family: Family,
    table: &str,
    number: usize,
    text: &str,
) -> Result<(), Error> {
    if let Some((counters, words)) = restore::read_words(text) {
        return command(session, warnings, section, family, table, counters, &words);
    }
    match restore::read_line(text) {
        Line::Comment(_) if section.comments && session.dialect.variant == Variant::Legacy => {
            session.out.push_str(text);
            Ok(())
        }
        Line::Blank | Line::Comment(_) => Ok(()),
        // One that ends the table is not among its lines: here it is one without a newline.
        Line::Commit => Err(Error::BareParameter("Bad argument `COMMIT'".to_owned())),
        Line::Chain { name, policy, counters } => {
            admit_name(session.dialect, &name)?;
            let counted = match session.dialect.variant {
                Variant::Legacy => policy != "-",
                Variant::Nft => session.table.chain(&name).is_some_and(|chain| chain.base.is_some()),
            };
            // From 1.8.11 on they are read whether they count or not.
            let said = text.trim_start().trim_start_matches(':');
            let written = said.split([' ', '\t', '\n']).filter(|word| !word.is_empty()).count() > 2;
            let read = section.counters || written && session.dialect.version >= (1, 8, 11);
            if read && counters.is_none() && counted {
                return Err(Error::Parameter(format!("invalid policy counters for chain '{name}'\n")));
            }
            let counters = if section.counters { counters } else { Some((0, 0)) };
            let declared = session.declare(&name, &policy, counters, section.noflush);
            declared.map_err(|error| undeclared(session.dialect, number, &name, &policy, error))
        }
        Line::Table(name) => Err(Error::BareParameter(format!("Bad argument `*{name}'"))),
        Line::Command { .. } | Line::Malformed(_) => Err(Error::Parameter("malformed line".to_owned())),
    }
}

/// A rule, or any other command.
fn command(
    session: &mut Session<'_>,
    warnings: &mut Vec<String>,
    section: &Section<'_>,
    family: Family,
    table: &str,
    counters: Option<Bracket>,
    args: &Words,
) -> Result<(), Error> {
    let counted = counters.filter(|_| section.counters);
    let mut words: Vec<&str> = Vec::with_capacity(args.count() + 3);
    if let Some(Bracket { packets, bytes }) = &counted {
        words.extend(["--set-counters", packets, bytes]);
    }
    if args.iter().any(|word| word.len() > restore::WORD_MAX) {
        return Err(Error::Parameter("Parameter too long!".to_owned()));
    }
    words.extend(args.iter());
    if words.len() > restore::WORDS_MAX {
        return Err(Error::Parameter("Parser cannot handle more arguments".to_owned()));
    }
    let mut invocation = match iptables::parse_line(family, table, &words, session.dialect) {
        // A file may serve both families: `-4` and `-6` say which of them a line is for (iptables(8), --ipv4).
        Err(Error::WrongFamily) => return Ok(()),
        parsed => parsed?,
    };
    if matches!(invocation.command, Command::Version | Command::Help) {
        // It ends the whole call there and then, and well.
        if matches!(invocation.command, Command::Version) {
            let (prefix, program) = (session.dialect.prefix(), family.program());
            session.out.push_str(&prefix.replacen(program, &format!("{program}-restore"), 1));
            session.out.push('\n');
        }
        return Err(Error::Verbatim { stderr: String::new(), code: 0 });
    }
    if invocation.wait.is_some() {
        return Err(Error::Parameter("You cannot use `-w' from iptables-restore".to_owned()));
    }
    warnings.append(&mut invocation.warnings);
    if section.verbose {
        invocation.verbose = invocation.verbose.max(1);
    }
    session.run(&invocation)
}

/// What `:CHAIN` may be called. iptables-legacy-restore looks at the length alone.
fn admit_name(dialect: &Dialect, name: &str) -> Result<(), Error> {
    let long = name.len() > NAME_MAX;
    let text = match dialect.variant {
        Variant::Legacy if long => format!("Invalid chain name `{name}' ({NAME_MAX} chars max)"),
        Variant::Nft if long => format!("chain name `{name}' too long (must be under {} chars)", NAME_MAX + 1),
        Variant::Nft if name.starts_with('-') => "chain name not allowed to start with `-'".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::Parameter(text))
}

/// iptables-legacy-restore has words of its own for a policy that cannot be set.
fn undeclared(dialect: &Dialect, line: usize, chain: &str, policy: &str, error: Error) -> Error {
    let reason = match error {
        Error::Table(TableError::BadPolicy) => "Bad policy name",
        Error::Table(TableError::BadBuiltin) => "Bad built-in chain name",
        _ => return error,
    };
    if dialect.variant == Variant::Nft {
        return error;
    }
    let program = dialect.family.program();
    let prefix = dialect.prefix().replacen(program, &format!("{program}-restore"), 1);
    let blank = dialect.blank_line();
    let stderr = format!("{prefix}: Can't set policy `{policy}' on `{chain}' line {line}: {reason}\n{blank}");
    Error::Verbatim { stderr, code: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CarrierKind;
    use crate::rules;

    fn command(words: &str) -> Command {
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        iptables::parse(Family::V4, &words, &dialect).expect("it is a command").command
    }

    #[test]
    fn built_in_chains_are_as_the_rules_say() {
        let kind = |kind| match kind {
            rules::ChainType::Filter => ChainKind::Filter,
            rules::ChainType::Route => ChainKind::Route,
            rules::ChainType::Nat => ChainKind::Nat,
        };
        let hook = |name: &str| HookPoint::ALL.into_iter().find(|hook| hook.nft() == name).expect("a hook");
        let carried = rules::tables().iter().filter(|table| table.carriers.contains(&CarrierKind::Nft));
        let of_the_rules = carried.map(|table| {
            let chains = table.chains.iter();
            let chains =
                chains.map(|chain| Builtin::new(&chain.name, hook(&chain.hook), chain.priority, kind(chain.kind)));
            (table.name.as_str(), chains.collect::<Vec<_>>())
        });
        let ours = BUILTINS.iter().map(|(name, chains)| (*name, chains.to_vec()));
        assert_eq!(ours.collect::<Vec<_>>(), of_the_rules.collect::<Vec<_>>());
    }

    #[test]
    fn of_a_large_table_is_read_what_a_command_depends_on() {
        let view = |words: &str| View::of(&command(&format!("-t raw {words}")), "raw");
        let text = |chain: &str, text: &str| View::Texts { chain: chain.to_owned(), texts: vec![text.to_owned()] };
        assert_eq!(view("-C PREROUTING -i lo -j DROP"), text("PREROUTING", "-i lo -j DROP"));
        assert_eq!(view("-D mine -i lo -j DROP"), text("mine", "-i lo -j DROP"));
        for words in ["-S mine", "-S mine 3", "-D mine 3"] {
            assert_eq!(view(words), View::Chain("mine".to_owned()), "{words}");
        }
        for words in ["-A PREROUTING -j DROP", "-A mine -j DROP", "-A OUTPUT -m owner --uid-owner 0 -j DROP"] {
            assert_eq!(view(words), View::Chains(Unread::Before), "{words}");
        }
        for words in ["-I PREROUTING -j DROP", "-I mine 1 -j DROP", "-I OUTPUT -m owner --uid-owner 0 -j DROP"] {
            assert_eq!(view(words), View::Chains(Unread::Behind), "{words}");
        }
        for words in [
            "-S",
            "-S mine -Z",
            "-L mine",
            "-F mine",
            "-A PREROUTING -j mine",
            "-I PREROUTING -j mine",
            "-A mine -m owner --uid-owner 0 -j DROP",
            "-I mine -m owner --uid-owner 0 -j DROP",
            "-I PREROUTING 2 -j DROP",
            "-I PREROUTING -s 10.0.0.1,10.0.0.2 -j DROP",
        ] {
            assert_eq!(view(words), View::Whole, "{words}");
        }
    }

    #[test]
    fn a_command_that_changes_nothing_only_looks() {
        for words in ["-C mine -j DROP", "-L", "-S mine", "-V"] {
            assert!(only_looks(&command(words)), "{words}");
        }
        for words in ["-L -Z", "-S mine -Z", "-Z", "-A mine -j DROP"] {
            assert!(!only_looks(&command(words)), "{words}");
        }
    }
}
