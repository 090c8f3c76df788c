//! Taking a table over from the real iptables, and giving it back: who is asked and in which order, so that a process
//! that is killed at any point leaves the old rules in force, or the new, or both.

#![forbid(unsafe_code)]

use crate::carrier::Carrier;
use crate::carrier::nft::NftCarrier;
use crate::carrier::takeover::{EMPTYING, HANDING, Picture, Saved, Taken};
use crate::error::{Error, reason};
use crate::family::Family;
use crate::iptables::dialect::{Dialect, Variant};
use crate::probe::{self, Backend, Snapshot, Tool, backend_name};
use crate::sys::exec;
use crate::sys::lock::{LockFile, XtablesLock};
use crate::sys::{sandbox, xtables};
use nix::errno::Errno;
use std::ffi::OsString;
use std::process::Output;
use std::time::Duration;

/// How long the lock is waited for where the caller did not say.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before that version iptables-legacy has its lock where it has it, and cannot be started by one who holds it.
const LOCKFILE_SINCE: (u16, u16, u16) = (1, 8, 6);

/// How long the backend may take to show what it makes of what it prints.
const TRIAL: Duration = Duration::from_secs(30);

/// How often a ruleset that changes meanwhile is read again. Beside somebody who calls `nft` without a pause one reading
/// in four is still true when it has been made, and on a busy machine fewer: seconds go by before this is given up.
const ATTEMPTS: usize = 200;

const RESTLESS: &str = "the ruleset changes faster than a table can be taken over";

/// Why nothing was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The table stays with the backend, as it was: one clause.
    Stays(String),
    /// The command fails so.
    Fails(Error),
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Obstacle::Fails(error)
    }
}

/// A table, and the backend that holds it or is to hold it.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Of the table.
    pub family: Family,
    /// `filter`, …
    pub table: &'a str,
    /// The backend.
    pub backend: &'a Backend,
}

impl Owner<'_> {
    /// `iptables-legacy`, …
    pub fn name(&self) -> String {
        format!("{}-{}", self.family.program(), backend_name(self.backend.variant))
    }

    /// How it speaks.
    pub fn dialect(&self) -> Dialect {
        Dialect { family: self.family, variant: self.backend.variant, version: self.backend.version }
    }

    fn carrier(&self) -> Result<NftCarrier, Error> {
        NftCarrier::open(self.family, self.table, self.dialect())
    }

    /// Whether it holds rules, chains of somebody's or a policy in that table.
    fn holds(&self) -> bool {
        probe::holds(self.backend.variant, self.family, self.table, true)
    }

    /// What stands against taking the table over; nothing is changed.
    ///
    /// # Errors
    /// What stands against it.
    pub fn survey(&self) -> Result<(), Obstacle> {
        let saved = self.saved()?;
        let mut carrier = self.carrier()?;
        carrier.could_take(&saved).map_err(stays)?;
        Proof::default().compare(self, &mut carrier, &saved)
    }

    /// Makes ours what the backend holds of the table, and empties it there.
    ///
    /// `wait` is the caller's `-w`.
    ///
    /// # Errors
    /// Nothing has changed then; with [`Obstacle::Fails`] it may also be that ours and the backend's hold the rules, and
    /// the next call finishes it.
    pub fn take_over(&self, wait: Option<Option<u32>>) -> Result<Taken, Obstacle> {
        match self.backend.variant {
            Variant::Nft => {
                let _guard = self.guard(wait)?;
                self.take_from_nft()
            }
            Variant::Legacy => self.take_from_legacy(wait),
        }
    }

    fn take_from_nft(&self) -> Result<Taken, Obstacle> {
        let mut carrier = self.carrier()?;
        let mut proof = Proof::default();
        for _ in 0..ATTEMPTS {
            let generation = carrier.generation()?;
            if carrier.exists()? {
                // Somebody else was faster; what the backend holds now is no business of ours.
                return Ok(Taken::default());
            }
            let saved = self.saved()?;
            if carrier.generation()? != generation {
                continue;
            }
            let shown = proof.of(self, &saved)?;
            if let Some(taken) = carrier.take_from_nft(&saved, shown, generation).map_err(stays)? {
                return Ok(taken);
            }
        }
        Err(Obstacle::Fails(Error::Resource(RESTLESS.to_owned())))
    }

    /// What its program makes of what it prints, in a network namespace that is thrown away.
    fn shown(&self, saved: &Saved) -> Result<Picture, Obstacle> {
        let tried = sandbox::enter(TRIAL, |_| {
            self.restore(&["--counters"], &saved.file(self.table))?;
            Picture::read(self.family, self.table).map_err(|error| Obstacle::Stays(reason(&error)))
        });
        let why = match tried {
            Ok(Ok(picture)) => return Ok(picture),
            Ok(Err(Obstacle::Stays(why))) => why,
            Ok(Err(Obstacle::Fails(error))) => error.render(&self.dialect()).trim_end().to_owned(),
            Err(error) => format!("there is no network namespace to try it in: {}", reason(&error)),
        };
        Err(Obstacle::Stays(format!("that {} shows all of it cannot be proven: {why}", self.name())))
    }

    fn take_from_legacy(&self, wait: Option<Option<u32>>) -> Result<Taken, Obstacle> {
        if self.backend.version < LOCKFILE_SINCE {
            return Err(Obstacle::Stays("an iptables before 1.8.6 does not let another hold its lock".to_owned()));
        }
        let _lock = lock(wait)?;
        let mut carrier = self.carrier()?;
        if carrier.exists()? && !carrier.is_unfinished()? {
            // Somebody else was faster; what the backend holds now is no business of ours.
            return Ok(Taken::default());
        }
        let mut taken = Taken::default();
        if self.holds() && carrier.bears(EMPTYING)? {
            // What was taken may be gone from there, and what is there may be new.
            match self.saved() {
                Ok(saved) if carrier.equals(&saved).unwrap_or(false) => taken.told.lines.push(self.empty(&saved)?),
                _ => taken.told.lines.push(format!("# {} holds other rules by now, which stay", self.name())),
            }
        } else if self.holds() {
            let saved = self.saved()?;
            taken = self.take_beside(&mut carrier, &saved)?;
            carrier.set_mark(EMPTYING)?;
            taken.told.lines.push(self.empty(&saved)?);
        }
        if carrier.is_unfinished()? {
            taken.told.lines.extend(carrier.finish()?);
        }
        Ok(taken)
    }

    /// Empties the backend's table, and says so.
    fn empty(&self, saved: &Saved) -> Result<String, Obstacle> {
        self.restore(&[], &saved.emptied(self.table))?;
        if self.holds() {
            let text = format!("{} says that it has emptied {}, and has not", self.name(), self.table);
            return Err(Obstacle::Fails(Error::Resource(text)));
        }
        Ok(format!("# {}-restore has emptied {}", self.family.program(), self.table))
    }

    fn take_beside(&self, carrier: &mut NftCarrier, saved: &Saved) -> Result<Taken, Obstacle> {
        for _ in 0..ATTEMPTS {
            if let Some(taken) = carrier.take_beside(saved).map_err(stays)? {
                return Ok(taken);
            }
        }
        Err(Obstacle::Fails(Error::Resource(RESTLESS.to_owned())))
    }

    /// Finishes what an earlier process was stopped in. Until then ours is not changed. Before the backend's table is
    /// being emptied its rules are the table's, and where they have become such that cannot be carried, ours goes; from
    /// then on ours are, whatever comes.
    ///
    /// # Errors
    /// As [`Owner::take_over`].
    pub fn finish(&self, wait: Option<Option<u32>>) -> Result<Taken, Obstacle> {
        let mut carrier = self.carrier()?;
        if carrier.bears(HANDING)? {
            return self.undo_hand_back(wait).map_err(fails);
        }
        if self.backend.variant == Variant::Legacy {
            return match self.take_from_legacy(wait) {
                Err(Obstacle::Stays(why)) => {
                    if carrier.bears(EMPTYING)? {
                        return Err(Obstacle::Fails(Error::Resource(why)));
                    }
                    if probe::holds(Variant::Legacy, self.family, self.table, false) {
                        self.carrier()?.remove(None)?;
                    }
                    Err(Obstacle::Stays(why))
                }
                other => other,
            };
        }
        if probe::holds(Variant::Legacy, self.family, self.table, true) {
            let text =
                format!("{} was being taken over from iptables-legacy, which holds rules there still", self.table);
            return Err(Obstacle::Fails(Error::Resource(text)));
        }
        Ok(Taken { told: self.carrier()?.finish()?.into(), rules: 0 })
    }

    /// Gives the table to the backend, and takes ours away when it is there. Gives the number of rules.
    ///
    /// # Errors
    /// What stands against it. Ours is in force then.
    pub fn hand_back(&self, wait: Option<Option<u32>>) -> Result<usize, Obstacle> {
        let mut carrier = self.carrier()?;
        let _lock = self.lock_of_legacy(wait)?;
        let mut text = String::new();
        if !carrier.save(true, &mut text)? {
            return Ok(0);
        }
        let ours = Saved::find(&text, self.table).ok_or_else(|| unreadable(self.table))?;
        if let Some(line) = ours.torn() {
            return Err(Obstacle::Stays(format!("no file can hold `{line}'")));
        }
        let given = !self.holds();
        let done = match given {
            true => {
                carrier.set_mark(HANDING)?;
                self.restore(&["--counters"], &text).and_then(|()| self.give_way(&mut carrier))
            }
            false => self.give_way(&mut carrier),
        };
        if done.is_err() && given && carrier.exists()? {
            // It was empty before, and may have taken what it does not understand.
            self.empty(&ours)?;
            carrier.finish()?;
        }
        done.map(|()| ours.rules())
    }

    /// Takes ours away if the backend holds the same.
    fn give_way(&self, carrier: &mut NftCarrier) -> Result<(), Obstacle> {
        let mut proof = Proof::default();
        for _ in 0..ATTEMPTS {
            let generation = carrier.generation()?;
            let there = self.saved()?;
            if carrier.equals(&there)? {
                proof.compare(self, carrier, &there)?;
                if carrier.remove(Some(generation))?.is_some() {
                    return Ok(());
                }
            } else if carrier.generation()? == generation {
                let text = format!("{} holds other rules in {} than those that are carried", self.name(), self.table);
                return Err(Obstacle::Stays(text));
            }
        }
        Err(Obstacle::Fails(Error::Resource("the ruleset changes faster than it can be given back".to_owned())))
    }

    /// Takes back from the backend what a hand-back that was stopped has given it; nothing where there was none.
    ///
    /// # Errors
    /// What stands against it.
    pub fn undo(&self) -> Result<(), Obstacle> {
        match self.carrier()?.bears(HANDING)? {
            true => self.undo_hand_back(None).map(drop),
            false => Ok(()),
        }
    }

    /// Takes back what the backend was given by a process that was stopped before ours went.
    fn undo_hand_back(&self, wait: Option<Option<u32>>) -> Result<Taken, Obstacle> {
        let _lock = self.lock_of_legacy(wait)?;
        let mut carrier = self.carrier()?;
        for _ in 0..ATTEMPTS {
            let generation = carrier.generation()?;
            if !carrier.bears(HANDING)? {
                return Ok(Taken::default());
            }
            let mut lines = Vec::new();
            if self.holds() {
                match self.saved() {
                    Ok(saved) if carrier.equals(&saved).unwrap_or(false) => {
                        match self.backend.variant {
                            Variant::Legacy => drop(self.empty(&saved)?),
                            Variant::Nft if !carrier.empty_theirs(generation)? => continue,
                            Variant::Nft => {}
                        }
                        lines.push(format!("# {} holds {} no more", self.name(), self.table));
                    }
                    _ if carrier.generation()? != generation => continue,
                    _ => lines.push(format!("# {} holds other rules by now, which stay", self.name())),
                }
            }
            lines.extend(carrier.finish()?);
            return Ok(Taken { told: lines.into(), rules: 0 });
        }
        Err(Obstacle::Fails(Error::Resource(RESTLESS.to_owned())))
    }

    /// Keeps others from taking the table over while a change is passed on to the backend, where they would take any
    /// lock for it.
    ///
    /// # Errors
    /// Another holds it.
    pub fn guard(&self, wait: Option<Option<u32>>) -> Result<Option<XtablesLock>, Error> {
        if self.backend.version < LOCKFILE_SINCE {
            return Ok(None);
        }
        match lock(wait) {
            Ok(lock) => Ok(Some(lock)),
            Err(Obstacle::Fails(error)) => Err(error),
            Err(Obstacle::Stays(_)) => Ok(None),
        }
    }

    fn lock_of_legacy(&self, wait: Option<Option<u32>>) -> Result<Option<XtablesLock>, Obstacle> {
        match self.backend.variant {
            Variant::Legacy if self.backend.version >= LOCKFILE_SINCE => lock(wait).map(Some),
            _ => Ok(None),
        }
    }

    /// What the backend holds of the table, with counters.
    fn saved(&self) -> Result<Saved, Obstacle> {
        let output = self.run(Tool::Save, &["-c", "-t", self.table], "")?;
        let text = String::from_utf8(output.stdout).map_err(|_| unreadable(self.table))?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Of an extension that the kernel lacks it says in a warning that what it prints may not be what is there.
        if !output.status.success() || said.contains("not supported") {
            return Err(Obstacle::Stays(format!("{}-save says: {}", self.family.program(), said.trim_end())));
        }
        let strange = || format!("{} cannot read it itself", self.name());
        let saved = Saved::find(&text, self.table).ok_or_else(|| Obstacle::Stays(strange()))?;
        if let Some(line) = saved.torn() {
            return Err(Obstacle::Stays(format!("`{line}' is not a whole rule")));
        }
        if self.backend.variant == Variant::Legacy {
            let entries = xtables::legacy_entries(self.family, self.table);
            let entries = entries.map_err(|error| Obstacle::Stays(format!("ip_tables: {}", reason(&error))))?;
            if usize::try_from(entries) != Ok(saved.entries()) {
                return Err(Obstacle::Stays(format!("{} does not show all of it", self.name())));
            }
        }
        Ok(saved)
    }

    fn restore(&self, options: &[&str], file: &str) -> Result<(), Obstacle> {
        let output = self.run(Tool::Restore, options, file)?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Without an extension iptables-nft may take a rule and make another of it.
        if output.status.success() && !said.contains("not supported") {
            return Ok(());
        }
        let text = format!("{}-restore says: {}", self.family.program(), said.trim_end());
        Err(Obstacle::Fails(Error::Resource(text)))
    }

    /// Runs one of the backend's programs. We may hold its lock, so it is given another.
    fn run(&self, tool: Tool, args: &[&str], input: &str) -> Result<Output, Obstacle> {
        let name = format!("{}{}", self.family.program(), tool.suffix());
        let failed = |error: std::io::Error| Obstacle::Stays(format!("{name}: {}", reason(&error)));
        let program = self.backend.program(self.family, tool);
        let program = program.ok_or_else(|| Obstacle::Stays(format!("there is no {name}")))?;
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let lock = LockFile::new().map_err(failed)?;
        let mut command = exec::command(program, &name, &args);
        command.env(exec::LOCK_VARIABLE, lock.path());
        exec::capture(command, input.as_bytes()).map_err(failed)
    }
}

/// What a program makes of what it prints, until that is another.
#[derive(Default)]
struct Proof(Option<(Saved, Picture)>);

impl Proof {
    fn of(&mut self, owner: &Owner<'_>, saved: &Saved) -> Result<&Picture, Obstacle> {
        let kept = self.0.take().filter(|(of, _)| of.says_the_same(saved));
        let (_, picture) = self.0.insert(match kept {
            Some(kept) => kept,
            None => (saved.clone(), owner.shown(saved)?),
        });
        Ok(picture)
    }

    /// Whether the backend holds what it shows. iptables-legacy-save shows all or fails.
    fn compare(&mut self, owner: &Owner<'_>, carrier: &mut NftCarrier, saved: &Saved) -> Result<(), Obstacle> {
        match owner.backend.variant {
            Variant::Legacy => Ok(()),
            Variant::Nft => carrier.compare(self.of(owner, saved)?).map_err(stays),
        }
    }
}

/// Where the table is no more the backend's, nothing stays with it.
fn fails(obstacle: Obstacle) -> Obstacle {
    match obstacle {
        Obstacle::Stays(why) => Obstacle::Fails(Error::Resource(why)),
        Obstacle::Fails(error) => Obstacle::Fails(error),
    }
}

/// A refusal leaves the table where it is; anything else is an error.
fn stays(error: Error) -> Obstacle {
    match error {
        Error::Refused(refusal) => Obstacle::Stays(refusal.to_string()),
        other => Obstacle::Fails(other),
    }
}

fn unreadable(table: &str) -> Obstacle {
    Obstacle::Stays(format!("what is printed of {table} cannot be read"))
}

fn lock(wait: Option<Option<u32>>) -> Result<XtablesLock, Obstacle> {
    let patience = match wait {
        None => Some(PATIENCE),
        Some(seconds) => seconds.map(|seconds| Duration::from_secs(seconds.into())),
    };
    XtablesLock::take(patience).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => {
            let text = "Another app is currently holding the xtables lock. Perhaps you want to use the -w option?\n";
            Obstacle::Fails(Error::Verbatim { stderr: text.to_owned(), code: 4 })
        }
        _ => Obstacle::Stays(format!("the lock of iptables: {}", reason(&error))),
    })
}

/// Rules of one table in two places at once: where both are called, each packet meets both.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Doubled {
    /// `ip` or `ip6`
    pub family: &'static str,
    /// `filter`, …
    pub table: String,
    /// `legacy` or `nft`: whose rules are there beside ours.
    pub beside: &'static str,
}

/// Tables of the calling thread's network namespace that both we and an iptables hold rules in, be its programs there or
/// not.
pub fn doubled() -> Vec<Doubled> {
    let tables = crate::rules::tables().iter().map(|table| table.name.as_str());
    let all = Family::ALL.into_iter().flat_map(|family| tables.clone().map(move |table| (family, table)));
    all.filter(|(family, table)| is_carried(*family, table)).flat_map(|(family, table)| beside(family, table)).collect()
}

/// The same of one table that is carried.
pub fn beside(family: Family, table: &str) -> impl Iterator<Item = Doubled> {
    let holding =
        [Variant::Legacy, Variant::Nft].into_iter().filter(move |variant| probe::holds(*variant, family, table, false));
    holding.map(move |variant| Doubled { family: family.nft(), table: table.to_owned(), beside: backend_name(variant) })
}

impl Doubled {
    /// In words.
    pub fn clause(&self) -> String {
        let program = if self.family == Family::V4.nft() { Family::V4.program() } else { Family::V6.program() };
        format!("{program}-{} holds rules in {} too, and each packet meets both", self.beside, self.table)
    }
}

/// What stands between the plan and what the calling thread's network namespace holds, of a table that is to be carried:
/// one clause. `None`: nothing.
pub fn pending(snapshot: &Snapshot, family: Family, table: &str) -> Option<String> {
    let backend = snapshot.backend.as_ref()?;
    if is_carried(family, table) || !probe::backend_holds(snapshot, family, table) {
        return None;
    }
    let owner = Owner { family, table, backend };
    let name = owner.name();
    Some(match owner.survey() {
        Ok(()) => format!("{name} holds rules here; the next change makes them ours"),
        Err(Obstacle::Stays(why)) => format!("stays with {name} here: {why}"),
        Err(Obstacle::Fails(error)) => format!("stays with {name} here: {}", error.render(&owner.dialect()).trim_end()),
    })
}

fn is_carried(family: Family, table: &str) -> bool {
    let name = crate::carrier::nft::table_name(table);
    let found = crate::nft::Connection::open().and_then(|mut connection| connection.table(family, &name));
    found.is_ok_and(|table| table.is_some())
}
