//! Raw held by another table of the backend's, in chains of our own that are jumped to first.
//!
//! The kernel is the only store: all is read back from what the backend's own programs print. A change is one
//! `iptables-restore --noflush` commit, made while we hold the backend's lock.

#![forbid(unsafe_code)]

use super::nft::{builtins, lines, only_looks};
use super::table::{Chain, Counters, Session, Table};
use super::{Applied, Carrier, RestoreError, Section};
use crate::config::CarrierKind;
use crate::error::{Error, Refusal, TableError, reason};
use crate::family::Family;
use crate::iptables::dialect::{Dialect, Variant};
use crate::iptables::restore::{self, Line};
use crate::iptables::{self, Command, Invocation, Rule};
use crate::probe::{Backend, Tool};
use crate::sys::exec;
use crate::sys::lock::{LockFile, XtablesLock};
use nix::errno::Errno;
use std::ffi::OsString;
use std::process::Output;
use std::time::Duration;

/// The table that is held so.
pub const TABLE: &str = "raw";

/// Before that version iptables-legacy has its lock where it has it, and cannot be started by one who holds it.
const LOCKFILE_SINCE: (u16, u16, u16) = (1, 8, 6);

/// A rule of the host's as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What stands behind `-A CHAIN `.
    pub text: String,
    /// Its counters when it is made.
    pub set: Counters,
    /// What was counted by the rule of raw that it belongs to: a rule with the same text and the same of this stays.
    pub known: Counters,
}

/// One of our chains as it is to be.
pub type Written = (&'static str, Vec<Wanted>);

/// Takes the rules of each of our chains, by its name.
pub type Reader = fn(&dyn Fn(&str) -> Vec<Rule>, &mut Table, &Dialect) -> Option<()>;

/// A way of holding raw in another table.
#[derive(Debug)]
pub struct Hosting {
    /// Its name in the configuration.
    pub kind: CarrierKind,
    /// The table that holds it.
    pub host: &'static str,
    /// Chains of the host, and ours that is jumped to first from there.
    pub jumps: &'static [(&'static str, &'static str)],
    /// What it cannot do, and what happens to a packet before it is dropped: a clause each.
    pub limits: [&'static str; 2],
    /// All of ours.
    pub chains: &'static [&'static str],
    /// What our chains are to hold.
    pub write: fn(&Table, &Dialect) -> Result<Vec<Written>, Error>,
    /// Puts what they hold into a table that nothing has touched; `None`: this is not how we would have written it.
    pub read: Reader,
}

impl Hosting {
    /// The way of that name.
    pub fn of(kind: CarrierKind) -> Option<&'static Self> {
        [&super::mangle::HOSTING, &super::filter::HOSTING].into_iter().find(|hosting| hosting.kind == kind)
    }

    /// Whether a chain of the host is one of ours.
    pub fn is_ours(&self, chain: &str) -> bool {
        self.chains.contains(&chain)
    }

    /// What makes all of it, as lines of a restore file.
    fn made_anew(&self, written: &[Written]) -> Vec<String> {
        let chains = self.chains.iter().map(|chain| format!(":{chain} - [0:0]"));
        let rules = written.iter().flat_map(|(chain, rules)| rules.iter().map(|rule| command("-A", chain, None, rule)));
        let jumps = self.jumps.iter().map(|(chain, ours)| format!("-I {chain} 1 -j {ours}"));
        chains.chain(rules).chain(jumps).collect()
    }
}

fn command(letter: &str, chain: &str, position: Option<usize>, rule: &Wanted) -> String {
    let (packets, bytes) = rule.set;
    let position = position.map(|position| format!(" {position}")).unwrap_or_default();
    format!("{letter} {chain}{position} -c {packets} {bytes} {}", rule.text)
}

/// What makes `after` of `before`, in one of our chains. What stands before the first difference and behind the last
/// stays as it is, counters and all.
fn difference(chain: &str, before: &[Wanted], after: &[Wanted]) -> Vec<String> {
    let same = |(one, two): &(&Wanted, &Wanted)| one.text == two.text && one.known == two.known;
    let head = before.iter().zip(after).take_while(same).count();
    let (old, new) = (before.get(head..).unwrap_or_default(), after.get(head..).unwrap_or_default());
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (old.len() - tail, new.get(..new.len() - tail).unwrap_or_default());
    let mut lines: Vec<String> = Vec::new();
    for (position, rule) in (head + 1..).zip(new) {
        let letter = if position <= head + old { "-R" } else { "-I" };
        lines.push(command(letter, chain, Some(position), rule));
    }
    lines.extend((new.len()..old).map(|_| format!("-D {chain} {}", head + new.len() + 1)));
    lines
}

/// The host table as the backend printed it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its chains in order, ours left out, and whether each is a built-in one.
    pub chains: Vec<(String, bool)>,
    /// There are chains of ours that hold something.
    pub held: bool,
    /// For each of [`Hosting::jumps`] where it stands, from 1.
    pub jumps: Vec<Vec<usize>>,
    rules: Vec<(String, Counters, Vec<String>)>,
}

impl Reading {
    fn of(hosting: &Hosting, text: &str) -> Option<Self> {
        let mut lines = text.lines().skip_while(|line| line.strip_prefix('*') != Some(hosting.host)).skip(1);
        let mut reading =
            Self { chains: Vec::new(), held: false, jumps: vec![Vec::new(); hosting.jumps.len()], rules: Vec::new() };
        let mut counts: Vec<(String, usize)> = Vec::new();
        loop {
            match restore::read_line(lines.next()?) {
                Line::Commit => break,
                Line::Chain { name, policy, .. } if !hosting.is_ours(&name) => {
                    reading.chains.push((name, policy != "-"));
                }
                Line::Command { counters, args } => {
                    let [add, chain, rest @ ..] = args.as_slice() else { return None };
                    if add != "-A" {
                        return None;
                    }
                    if hosting.is_ours(chain) {
                        let counters = counters.and_then(|bracket| bracket.read()).unwrap_or_default();
                        reading.rules.push((chain.clone(), counters, rest.to_vec()));
                        continue;
                    }
                    let place = match counts.iter_mut().find(|(name, _)| name == chain) {
                        Some((_, count)) => {
                            *count += 1;
                            *count
                        }
                        None => {
                            counts.push((chain.clone(), 1));
                            1
                        }
                    };
                    let jump = hosting.jumps.iter().position(|(from, to)| from == chain && *rest == ["-j", *to]);
                    if let Some(places) = jump.and_then(|jump| reading.jumps.get_mut(jump)) {
                        places.push(place);
                    }
                }
                _ => {}
            }
        }
        reading.held = !reading.rules.is_empty();
        Some(reading)
    }

    /// Whether each jump stands where it has to: first, and once.
    pub fn is_in_force(&self) -> bool {
        self.jumps.iter().all(|places| places.as_slice() == [1])
    }

    /// Where our jump stands in a chain of the host's, from 1.
    pub fn jump_in(&self, hosting: &Hosting, chain: &str) -> Option<usize> {
        let jump = hosting.jumps.iter().position(|(from, _)| *from == chain)?;
        self.jumps.get(jump)?.first().copied()
    }

    /// What is ours, as iptables-save prints it.
    pub fn ours(&self, hosting: &Hosting) -> Vec<String> {
        let places = hosting.jumps.iter().zip(&self.jumps);
        let jumps =
            places.flat_map(|((from, to), at)| at.iter().map(move |at| format!("-A {from} -j {to} (as number {at})")));
        let rules = self.rules.iter().map(|(chain, (packets, bytes), words)| {
            let words: Vec<String> = words.iter().map(|word| word_of(word)).collect();
            format!("[{packets}:{bytes}] -A {chain} {}", words.join(" "))
        });
        jumps.chain(rules).collect()
    }

    /// Lines that take our jumps away.
    pub fn without_jumps(&self, hosting: &Hosting) -> Vec<String> {
        let places = hosting.jumps.iter().zip(&self.jumps);
        places.flat_map(|((chain, _), places)| places.iter().rev().map(move |at| format!("-D {chain} {at}"))).collect()
    }

    /// Lines that put them back, first.
    pub fn with_jumps(hosting: &Hosting) -> Vec<String> {
        hosting.jumps.iter().map(|(chain, ours)| format!("-I {chain} 1 -j {ours}")).collect()
    }
}

fn word_of(word: &str) -> String {
    if word.contains(' ') || word.is_empty() { iptables::quote(word) } else { word.to_owned() }
}

/// A raw table that is nowhere: what would be made of it.
#[derive(Clone, Debug)]
pub struct Draft {
    hosting: &'static Hosting,
    dialect: Dialect,
    table: Table,
}

impl Draft {
    /// An empty one.
    pub fn new(hosting: &'static Hosting, dialect: Dialect) -> Self {
        Self { hosting, dialect, table: untouched(dialect.family) }
    }

    /// Whose rules they are.
    pub fn family(&self) -> Family {
        self.dialect.family
    }

    /// The table that holds them.
    pub fn host(&self) -> &'static str {
        self.hosting.host
    }

    /// Does what a command says.
    ///
    /// # Errors
    /// As iptables would fail, or what cannot be held so.
    pub fn run(&mut self, invocation: &Invocation) -> Result<(), Error> {
        Session { table: &mut self.table, dialect: &self.dialect, out: &mut String::new() }.run(invocation)?;
        (self.hosting.write)(&self.table, &self.dialect).map(drop)
    }

    /// Does what a section of a restore file says.
    ///
    /// # Errors
    /// The same, with the number of the line.
    pub fn restore(&mut self, section: &Section<'_>) -> Result<(), RestoreError> {
        let mut out = String::new();
        let mut session = Session { table: &mut self.table, dialect: &self.dialect, out: &mut out };
        lines(&mut session, &mut Vec::new(), section, self.dialect.family, TABLE)?;
        let written = (self.hosting.write)(&self.table, &self.dialect).map(drop);
        written.map_err(|error| RestoreError { line: section.commit, error })
    }

    /// What makes all of it: the words behind `iptables -t HOST`, quoted as in a restore file.
    ///
    /// # Errors
    /// What cannot be held so.
    pub fn commands(&self) -> Result<Vec<String>, Error> {
        let made = self.hosting.made_anew(&(self.hosting.write)(&self.table, &self.dialect)?);
        let command = |line: String| match line.strip_prefix(':').and_then(|line| line.split(' ').next()) {
            Some(chain) => format!("-N {chain}"),
            None => line.replacen(" -c 0 0 ", " ", 1),
        };
        Ok(made.into_iter().map(command).collect())
    }
}

fn untouched(family: Family) -> Table {
    let chains = builtins(TABLE).iter().map(|builtin| Chain::untouched(builtin.name)).collect();
    Table { chains, ..Table::empty(family, TABLE) }
}

/// Raw, and the table that holds it.
#[derive(Clone, Copy, Debug)]
pub struct HostedCarrier<'a> {
    /// How.
    pub hosting: &'static Hosting,
    /// Of both tables.
    pub family: Family,
    /// Whose words are spoken.
    pub dialect: Dialect,
    /// Whose table it is.
    pub backend: &'a Backend,
    /// The caller's `-w`.
    pub wait: Option<Option<u32>>,
}

impl HostedCarrier<'_> {
    /// Whether the backend can be started by one who holds its lock: nothing is held by another.
    pub fn can_change(&self) -> bool {
        self.dialect.variant == Variant::Nft || self.dialect.version >= LOCKFILE_SINCE
    }

    /// Takes the backend's lock, for as long as it takes the backend to give up: iptables-legacy for every command,
    /// iptables-nft not at all; there it keeps us apart from each other.
    ///
    /// # Errors
    /// In the backend's words.
    pub fn lock(&self) -> Result<XtablesLock, Error> {
        let legacy = self.dialect.variant == Variant::Legacy;
        let version = self.dialect.version;
        let for_ever = !legacy || (self.wait.is_none() && ((1, 8, 8)..(1, 8, 11)).contains(&version));
        let patience = match self.wait {
            _ if for_ever => None,
            None => Some(Duration::ZERO),
            Some(seconds) => seconds.map(|seconds| Duration::from_secs(seconds.into())),
        };
        XtablesLock::take(patience).map_err(|error| self.unlocked(&error))
    }

    fn unlocked(&self, error: &std::io::Error) -> Error {
        let path = XtablesLock::path();
        let path = path.display();
        let stderr = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN) => {
                let named = match self.dialect.version >= (1, 8, 8) {
                    true => format!("Can't lock {path}: Resource temporarily unavailable\n"),
                    false => String::new(),
                };
                let advice = match self.wait {
                    Some(Some(seconds)) => format!("Stopped waiting after {seconds}s."),
                    _ => "Perhaps you want to use the -w option?".to_owned(),
                };
                format!("{named}Another app is currently holding the xtables lock. {advice}\n")
            }
            _ => format!("Fatal: can't open lock file {path}: {}\n", reason(error)),
        };
        Error::Verbatim { stderr, code: 4 }
    }

    /// What the host table holds.
    ///
    /// # Errors
    /// What the backend said.
    pub fn survey(&self) -> Result<Reading, Error> {
        let output = self.run(Tool::Save, &["-c", "-t", self.hosting.host], "")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() || said.contains("not supported") {
            return Err(Error::Resource(format!("{}-save says: {}", self.family.program(), said.trim_end())));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        // iptables-nft prints nothing of a table that it has not made yet.
        if text.lines().all(|line| line.is_empty() || line.starts_with('#')) {
            return Reading::of(self.hosting, &format!("*{}\nCOMMIT\n", self.hosting.host))
                .ok_or_else(|| self.strange());
        }
        Reading::of(self.hosting, &text).ok_or_else(|| self.strange())
    }

    /// What we did not put there, or cannot read, is never guessed at.
    fn strange(&self) -> Error {
        let (program, host) = (self.family.program(), self.hosting.host);
        Error::Resource(format!(
            "the chains {}… in {program}'s table {host} are not as xtshim writes them",
            "xtshim-raw-"
        ))
    }

    fn table(&self, reading: &Reading) -> Result<Table, Error> {
        let mut table = untouched(self.family);
        if !reading.held {
            return Ok(table);
        }
        table.exists = true;
        for (handle, chain) in (1..).zip(&mut table.chains) {
            chain.origin = Some((chain.name.clone(), handle));
        }
        let mut rules: Vec<(&str, Rule)> = Vec::new();
        for (chain, counters, words) in &reading.rules {
            let mut rule = self.parsed(chain, words).ok_or_else(|| self.strange())?;
            rule.counters = *counters;
            rules.push((chain, rule));
        }
        let of = |chain: &str| rules.iter().filter(|(name, _)| *name == chain).map(|(_, rule)| rule.clone()).collect();
        (self.hosting.read)(&of, &mut table, &self.dialect).ok_or_else(|| self.strange())?;
        Ok(table)
    }

    fn parsed(&self, chain: &str, words: &[String]) -> Option<Rule> {
        let head = ["-t", self.hosting.host, "-A", chain].map(str::to_owned);
        let args: Vec<String> = head.into_iter().chain(words.iter().cloned()).collect();
        match iptables::parse(self.family, &args, &self.dialect).ok()?.command {
            Command::Append { rules, .. } if rules.len() == 1 => rules.into_iter().next(),
            _ => None,
        }
    }

    /// Raw as it is. Where somebody has moved our jumps away behind our back, they are put back first: what is listed is
    /// in force.
    fn read(&self) -> Result<Table, Error> {
        let reading = self.survey()?;
        if reading.held && !reading.is_in_force() {
            self.commit(&self.mended(&reading))?;
            return self.table(&self.survey()?);
        }
        self.table(&reading)
    }

    fn mended(&self, reading: &Reading) -> Vec<String> {
        let mut lines = reading.without_jumps(self.hosting);
        lines.extend(Reading::with_jumps(self.hosting));
        lines
    }

    /// Lines that make `after` of what was read.
    fn change(&self, reading: &Reading, before: &Table, after: &Table) -> Result<Vec<String>, Error> {
        let wanted = (self.hosting.write)(after, &self.dialect)?;
        if !reading.held {
            let needed = after.chains.iter().any(Chain::is_in_use);
            let mut lines = if needed { reading.without_jumps(self.hosting) } else { Vec::new() };
            if needed {
                lines.extend(self.hosting.made_anew(&wanted));
            }
            return Ok(lines);
        }
        let present = (self.hosting.write)(before, &self.dialect)?;
        let mut lines: Vec<String> = Vec::new();
        for ((chain, old), (_, new)) in present.iter().zip(&wanted) {
            lines.extend(difference(chain, old, new));
        }
        if !reading.is_in_force() {
            lines.extend(self.mended(reading));
        }
        Ok(lines)
    }

    fn transact<E>(
        &self,
        compute: impl FnOnce(&mut Table) -> Result<(), E>,
        lift: impl Fn(Error) -> E,
        dry: bool,
    ) -> Result<Applied, E> {
        if !self.can_change() {
            let why = "an iptables before 1.8.6 does not let another hold its lock";
            return Err(lift(Refusal::new("a change", why).into()));
        }
        let _lock = self.lock().map_err(&lift)?;
        let reading = self.survey().map_err(&lift)?;
        let before = self.table(&reading).map_err(&lift)?;
        let mut after = before.clone();
        compute(&mut after)?;
        let lines = self.change(&reading, &before, &after).map_err(&lift)?;
        if dry || lines.is_empty() {
            return Ok(Applied::default());
        }
        self.commit(&lines).map_err(&lift)?;
        let found = self.survey().and_then(|reading| Ok((reading.is_in_force(), self.table(&reading)?)));
        if !matches!(&found, Ok((true, found)) if found.reads_as(&after)) {
            self.undo(&reading, &before).map_err(&lift)?;
            let why = "it was not read back as it was written";
            return Err(lift(Refusal::new("the rule", why).into()));
        }
        let told: Vec<String> = lines.iter().map(|line| format!("-t {} {line}", self.hosting.host)).collect();
        Ok(Applied { told: told.into(), ..Applied::default() })
    }

    fn undo(&self, reading: &Reading, before: &Table) -> Result<(), Error> {
        if !reading.held {
            return self.remove_locked().map(drop);
        }
        let present = self.survey()?;
        let mut lines = present.without_jumps(self.hosting);
        lines.extend(self.hosting.made_anew(&(self.hosting.write)(before, &self.dialect)?));
        self.commit(&lines)
    }

    /// Takes all of it away. Gives the lines that did it.
    ///
    /// # Errors
    /// What the backend said.
    pub fn remove(&self) -> Result<Vec<String>, Error> {
        let _lock = self.lock()?;
        self.remove_locked()
    }

    fn remove_locked(&self) -> Result<Vec<String>, Error> {
        let mut lines = self.survey()?.without_jumps(self.hosting);
        // Those that are not there are made: what is deleted has to be there.
        lines.extend(self.hosting.chains.iter().map(|chain| format!(":{chain} - [0:0]")));
        lines.extend(self.hosting.chains.iter().map(|chain| format!("-F {chain}")));
        lines.extend(self.hosting.chains.iter().map(|chain| format!("-X {chain}")));
        self.commit(&lines)?;
        Ok(lines)
    }

    /// Gives our rules the counters that they had when `before` was read. The caller holds the lock.
    ///
    /// # Errors
    /// What the backend said.
    pub fn recount(&self, before: &Reading) -> Result<(), Error> {
        let written = (self.hosting.write)(&self.table(before)?, &self.dialect)?;
        let replaced = |(chain, rules): &Written| {
            let lines = (1..).zip(rules).map(|(at, rule)| command("-R", chain, Some(at), rule));
            lines.collect::<Vec<_>>()
        };
        self.commit(&written.iter().flat_map(replaced).collect::<Vec<_>>())
    }

    /// Commits lines to the host table. The caller holds the lock.
    ///
    /// # Errors
    /// What the backend said.
    pub fn commit(&self, lines: &[String]) -> Result<(), Error> {
        let file = format!("*{}\n{}\nCOMMIT\n", self.hosting.host, lines.join("\n"));
        let output = self.run(Tool::Restore, &["--noflush"], &file)?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Without an extension iptables-nft may take a rule and make another of it.
        if output.status.success() && !said.contains("not supported") {
            return Ok(());
        }
        Err(match self.dialect.variant {
            Variant::Legacy if said.trim_end().ends_with("failed") => TableError::NoChain.into(),
            _ => Error::Resource(format!("{}-restore says: {}", self.family.program(), said.trim_end())),
        })
    }

    /// Runs one of the backend's programs while we hold its lock: it is given another.
    ///
    /// # Errors
    /// It is not installed, or cannot be started.
    pub fn run(&self, tool: Tool, args: &[&str], input: &str) -> Result<Output, Error> {
        let name = format!("{}{}", self.family.program(), tool.suffix());
        let program = self.backend.program(self.family, tool);
        let program = program.ok_or_else(|| Error::Resource(format!("there is no {name}")))?;
        let failed = |error: std::io::Error| Error::Resource(format!("{name}: {}", reason(&error)));
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let lock = LockFile::new().map_err(failed)?;
        let mut command = exec::command(program, &name, &args);
        command.env(exec::LOCK_VARIABLE, lock.path());
        exec::capture(command, input.as_bytes()).map_err(failed)
    }
}

impl Carrier for HostedCarrier<'_> {
    fn run(&mut self, invocation: &Invocation, out: &mut String) -> Result<Applied, Error> {
        self.wait = invocation.wait;
        let dialect = self.dialect;
        if only_looks(&invocation.command) {
            let _lock = self.lock()?;
            let mut table = self.read()?;
            Session { table: &mut table, dialect: &dialect, out }.run(invocation)?;
            return Ok(Applied::default());
        }
        let compute = |table: &mut Table| Session { table, dialect: &dialect, out }.run(invocation);
        self.transact(compute, |error| error, false)
    }

    fn save(&mut self, counters: bool, out: &mut String) -> Result<bool, Error> {
        let reading = self.survey()?;
        let mut table = if reading.held && !reading.is_in_force() {
            let _lock = self.lock()?;
            self.read()?
        } else {
            self.table(&reading)?
        };
        if table.exists {
            Session { table: &mut table, dialect: &self.dialect, out }.save(counters)?;
        }
        Ok(table.exists)
    }

    fn save_untouched(&self, out: &mut String) {
        let mut table = untouched(self.family);
        // A table without rules has nothing to fail on.
        let _ = Session { table: &mut table, dialect: &self.dialect, out }.save(false);
    }

    fn restore(&mut self, section: &Section<'_>, out: &mut String) -> Result<Applied, RestoreError> {
        let (dialect, family) = (self.dialect, self.family);
        let mut warnings = Vec::new();
        let compute = |table: &mut Table| {
            lines(&mut Session { table, dialect: &dialect, out }, &mut warnings, section, family, TABLE)
        };
        let lift = |error| RestoreError { line: section.commit, error };
        let applied = self.transact(compute, lift, section.test)?;
        Ok(Applied { warnings, ..applied })
    }
}

/// A rule's text, if a restore file can hold it.
///
/// # Errors
/// Names with blanks or quotes in them.
pub fn restorable(rule: &Rule, dialect: &Dialect) -> Result<String, Refusal> {
    let odd = |name: &str| name.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '\''));
    for (option, interface) in [("-i", &rule.input), ("-o", &rule.output)] {
        if interface.as_ref().is_some_and(|interface| odd(&interface.name)) {
            return Err(Refusal::new(option, "iptables-restore cannot be told such a name"));
        }
    }
    let text = rule.save(dialect);
    match text.contains('\n') {
        true => Err(Refusal::new("the rule", "iptables-restore cannot be told a text of several lines")),
        false => Ok(text),
    }
}

/// What nothing but raw itself can have.
///
/// # Errors
/// There is a chain of the user's.
pub fn refuse_user_chains(table: &Table) -> Result<(), Refusal> {
    match table.chains.iter().any(|chain| chain.base.is_none()) {
        true => Err(Refusal::new("-N", "a chain of one's own has no exact form in another table")),
        false => Ok(()),
    }
}

/// What the backend says of a raw table that is not there.
pub fn no_such_table(dialect: &Dialect) -> Error {
    let program = dialect.family.program();
    Error::Version(match dialect.variant {
        Variant::Legacy => {
            format!("can't initialize {program} table `{TABLE}': Table does not exist (do you need to insmod?)")
        }
        Variant::Nft => format!("table '{TABLE}' does not exist"),
    })
}

/// Raw as a file has it, what a way of holding it writes, and what it reads of that: without any kernel.
#[cfg(test)]
pub(super) mod bench {
    use super::super::nft::builtins;
    use super::super::table::{Chain, Session};
    use super::*;
    use crate::iptables::dialect::Variant;

    pub const DIALECT: Dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };

    /// After these commands, on a table that nothing had touched.
    pub fn raw(family: Family, commands: &[&str]) -> Table {
        let mut table = Table::empty(family, "raw");
        table.chains = builtins("raw").iter().map(|builtin| Chain::untouched(builtin.name)).collect();
        for command in commands {
            let words: Vec<String> = ["-t", "raw"].into_iter().chain(command.split(' ')).map(str::to_owned).collect();
            let invocation = iptables::parse(family, &words, &DIALECT).expect(command);
            let mut session = Session { table: &mut table, dialect: &DIALECT, out: &mut String::new() };
            session.run(&invocation).expect(command);
        }
        table
    }

    pub fn chain<'a>(table: &'a mut Table, name: &str) -> &'a mut Chain {
        table.chains.iter_mut().find(|chain| chain.name == name).expect("it is there")
    }

    pub fn texts(written: &[Written], chain: &str) -> Vec<String> {
        let rules = written.iter().find(|(name, _)| *name == chain).map(|(_, rules)| rules.as_slice());
        rules.expect("it is written").iter().map(|wanted| wanted.text.clone()).collect()
    }

    /// What is read where the host holds what was written, each rule as `seen` makes it of its chain, place and rule.
    pub fn read_back(
        hosting: &Hosting,
        table: &Table,
        written: &[Written],
        seen: impl Fn(&str, usize, Rule) -> Rule,
    ) -> Option<Table> {
        let of = |chain: &str| {
            let rules = written.iter().find(|(name, _)| *name == chain).map(|(_, rules)| rules.as_slice());
            let rules = rules.unwrap_or_default().iter().enumerate().map(|(at, wanted)| {
                let words: Vec<String> = ["-t", hosting.host, "-A", chain]
                    .into_iter()
                    .chain(wanted.text.split(' '))
                    .map(str::to_owned)
                    .collect();
                let parsed = iptables::parse(table.family, &words, &DIALECT).expect("it is a rule").command;
                let Command::Append { rules, .. } = parsed else { panic!("another command: {}", wanted.text) };
                let rule = rules.into_iter().next().expect("a rule");
                seen(chain, at, Rule { counters: wanted.set, ..rule })
            });
            rules.collect()
        };
        let mut read = raw(table.family, &[]);
        (hosting.read)(&of, &mut read, &DIALECT).map(|()| read)
    }

    /// The option at which raw cannot be held after this command.
    pub fn refusal(hosting: &Hosting, family: Family, command: &str) -> Option<String> {
        match (hosting.write)(&raw(family, &[command]), &Dialect { family, ..DIALECT }) {
            Ok(_) => None,
            Err(Error::Refused(refusal)) => Some(refusal.option),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(words: &str) -> Vec<Wanted> {
        let wanted = |text: &str| Wanted { text: text.to_owned(), set: (0, 0), known: (0, 0) };
        words.split_whitespace().map(wanted).collect()
    }

    /// What the lines do to a list of rules.
    fn applied(before: &str, lines: &[String]) -> Vec<String> {
        let mut rules: Vec<String> = before.split_whitespace().map(str::to_owned).collect();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let at = words[2].parse::<usize>().expect("a position") - 1;
            match words[0] {
                "-D" => drop(rules.remove(at)),
                "-I" => rules.insert(at, words[6].to_owned()),
                _ => rules[at] = words[6].to_owned(),
            }
        }
        rules
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other() {
        let lists =
            ["", "a", "a b", "b a", "a b c", "a c", "c", "x a b c", "a x b c", "a b c x", "x y", "a a", "a a a"];
        for before in lists {
            for after in lists {
                let lines = difference("chain", &wanted(before), &wanted(after));
                assert_eq!(applied(before, &lines).join(" "), after, "{before} -> {after}: {lines:?}");
            }
        }
    }

    #[test]
    fn what_stays_is_not_touched() {
        assert_eq!(difference("c", &wanted("a b c d"), &wanted("a b d")), ["-D c 3"]);
        assert_eq!(difference("c", &wanted("a b"), &wanted("a x b")), ["-I c 2 -c 0 0 x"]);
    }

    #[test]
    fn a_jump_is_found_where_it_stands() {
        let text = "*mangle\n:PREROUTING ACCEPT [0:0]\n:mine - [0:0]\n:xtshim-raw-OUTPUT - [0:0]\n\
            [0:0] -A PREROUTING -j mine\n[0:0] -A PREROUTING -j xtshim-raw-PREROUTING\n\
            [0:0] -A OUTPUT -j xtshim-raw-OUTPUT\n[1:2] -A xtshim-raw-OUTPUT -j DROP\nCOMMIT\n";
        let hosting = Hosting::of(CarrierKind::Mangle).expect("there is one");
        let reading = Reading::of(hosting, text).expect("it is whole");
        assert_eq!(reading.jumps, [vec![2], vec![1]]);
        assert!(reading.held && !reading.is_in_force());
        assert_eq!(reading.chains, [("PREROUTING".to_owned(), true), ("mine".to_owned(), false)]);
        assert!(Reading::of(hosting, "*mangle\n").is_none());
        assert_eq!((reading.jump_in(hosting, "PREROUTING"), reading.jump_in(hosting, "OUTPUT")), (Some(2), Some(1)));
        assert_eq!(reading.jump_in(hosting, "mine"), None);
    }

    #[test]
    fn what_is_ours_is_shown_as_iptables_writes_it() {
        let text = "*mangle\n[0:0] -A OUTPUT -j xtshim-raw-OUTPUT\n\
            [1:2] -A xtshim-raw-OUTPUT -m comment --comment \"a b\" -m comment --comment \"\" -j DROP\nCOMMIT\n";
        let hosting = Hosting::of(CarrierKind::Mangle).expect("there is one");
        let reading = Reading::of(hosting, text).expect("it is whole");
        assert_eq!(
            reading.ours(hosting),
            [
                "-A OUTPUT -j xtshim-raw-OUTPUT (as number 1)",
                "[1:2] -A xtshim-raw-OUTPUT -m comment --comment \"a b\" -m comment --comment \"\" -j DROP"
            ]
        );
    }

    #[test]
    fn what_would_be_made_of_commands_is_told() {
        let hosting = Hosting::of(CarrierKind::Mangle).expect("there is one");
        let mut draft = Draft::new(hosting, bench::DIALECT);
        let run = |draft: &mut Draft, command: &str| {
            let words: Vec<String> = ["-t", "raw"].into_iter().chain(command.split(' ')).map(str::to_owned).collect();
            draft.run(&iptables::parse(Family::V4, &words, &bench::DIALECT).expect(command))
        };
        assert!(run(&mut draft, "-A PREROUTING -i lo -j DROP").is_ok());
        assert!(matches!(run(&mut draft.clone(), "-A PREROUTING -j NOTRACK"), Err(Error::Refused(_))));
        let restored = |draft: &mut Draft, line: &str| {
            let section = Section {
                lines: vec![(2, line)],
                commit: 3,
                complete: true,
                noflush: true,
                counters: false,
                test: false,
                comments: false,
                verbose: false,
            };
            draft.restore(&section).map_err(|failed| failed.line)
        };
        assert_eq!(restored(&mut draft.clone(), "-A PREROUTING -j NOTRACK\n"), Err(3));
        assert_eq!(restored(&mut draft.clone(), "-A nowhere -j DROP\n"), Err(2));
        assert_eq!(restored(&mut draft, "-A OUTPUT -o lo -j RETURN\n"), Ok(()));
        assert_eq!((draft.host(), draft.family()), ("mangle", Family::V4));
        assert_eq!(
            draft.commands().expect("it can be held"),
            [
                "-N xtshim-raw-PREROUTING",
                "-N xtshim-raw-PREROUTING-end",
                "-N xtshim-raw-OUTPUT",
                "-N xtshim-raw-OUTPUT-end",
                "-A xtshim-raw-PREROUTING -i lo -j DROP",
                "-A xtshim-raw-PREROUTING -g xtshim-raw-PREROUTING-end",
                "-A xtshim-raw-PREROUTING-end -j RETURN",
                "-A xtshim-raw-OUTPUT -o lo -g xtshim-raw-OUTPUT-end",
                "-A xtshim-raw-OUTPUT -g xtshim-raw-OUTPUT-end",
                "-A xtshim-raw-OUTPUT-end -j RETURN",
                "-I PREROUTING 1 -j xtshim-raw-PREROUTING",
                "-I OUTPUT 1 -j xtshim-raw-OUTPUT",
            ]
        );
    }
}
