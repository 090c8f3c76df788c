//! What a front does about a table, in the network namespace that it was called in.

#![forbid(unsafe_code)]

use super::context::Context;
use crate::carrier::Carrier;
use crate::carrier::hosted::{HostedCarrier, Hosting};
use crate::carrier::nft as carrier;
use crate::carrier::takeover::Taken;
use crate::config::CarrierKind;
use crate::error::{Error, reason};
use crate::nft::text::Told;
use crate::nft::{Connection, TableInfo};
use crate::plan::{self, Plan};
use crate::probe;
use crate::sys::lock::XtablesLock;
use crate::takeover::{self, Obstacle, Owner};
use std::io;

/// What is done about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// It is the backend's.
    PassThrough,
    /// Our own table answers, or chains of our own in another of the backend's.
    Carry {
        /// What holds it.
        by: CarrierKind,
        /// One clause for the journal.
        why: String,
    },
    /// The backend holds rules that are to be ours from the first change on.
    TakeOver {
        /// One clause for the journal.
        why: String,
    },
}

/// Whose a table is while nobody can take it over.
#[derive(Debug)]
pub enum Guarded {
    /// It has become ours.
    Ours,
    /// It is the backend's, as long as the lock is held. `None`: there is no lock to be had.
    Theirs(Option<XtablesLock>),
}

impl Context {
    /// Whose `table` is, and what keeps it so until a change has been passed on.
    ///
    /// # Errors
    /// The lock is another's.
    pub fn guarded(&self, table: &str, wait: Option<Option<u32>>) -> Result<Guarded, Error> {
        let Some(backend) = &self.snapshot.backend else { return Ok(Guarded::Theirs(None)) };
        let lock = Owner { family: self.front.family, table, backend }.guard(wait)?;
        match self.carrier(table)?.exists()? {
            true => Ok(Guarded::Ours),
            false => Ok(Guarded::Theirs(lock)),
        }
    }

    /// Keeps others from taking any table over; see [`Owner::guard`].
    ///
    /// # Errors
    /// The lock is another's.
    pub fn guard_all(&self, wait: Option<Option<u32>>) -> Result<Option<XtablesLock>, Error> {
        let Some(backend) = &self.snapshot.backend else { return Ok(None) };
        Owner { family: self.front.family, table: "", backend }.guard(wait)
    }

    /// Whether another front may be taking a table over that is the backend's to us.
    pub fn may_be_taken(&self, wanted: impl Fn(&str) -> bool) -> bool {
        let tables = self.snapshot.carried_tables(self.front.family).filter(|table| wanted(table));
        self.snapshot.nf_tables && tables.into_iter().any(|table| !self.is_passed_through(table, false))
    }

    /// What is done about `table`. Costs one request to the kernel, and none where there is no nf_tables.
    pub fn course(&self, table: &str) -> Result<Course, Error> {
        let name = carrier::table_name(table);
        let family = self.front.family;
        let found = self.snapshot.nf_tables.then(|| self.ask(|connection| connection.table(family, &name)));
        Ok(self.course_of(table, found.transpose()?.flatten().is_some()))
    }

    /// The same where it is known whether our table is there.
    pub fn course_of(&self, table: &str, held: bool) -> Course {
        let family = self.front.family;
        if let (Some(by), "raw", false) = (self.stays_in(), table, held) {
            return Course::Carry { by, why: format!("this network namespace already holds raw in {}", by.as_str()) };
        }
        let plan = match plan::plan(family, table, &self.config, &self.snapshot, held) {
            Plan::AskBackend => {
                let answer = probe::ask_table(&self.snapshot, family, table);
                plan::answered(family, table, &self.config, &self.snapshot, answer)
            }
            plan => plan,
        };
        match plan {
            // A table has one owner: rules that the backend holds would no longer show, and still act.
            Plan::Nft { why } if !held && probe::backend_holds(&self.snapshot, family, table) => {
                Course::TakeOver { why }
            }
            Plan::Nft { why } => Course::Carry { by: CarrierKind::Nft, why },
            Plan::Hosted { .. } if probe::backend_holds(&self.snapshot, family, table) => Course::PassThrough,
            Plan::Hosted { by, .. } if self.is_ours(by) => Course::PassThrough,
            Plan::Hosted { by, why } => Course::Carry { by, why },
            Plan::Backend { .. } | Plan::AskBackend => Course::PassThrough,
        }
    }

    /// What answers for `table`, which `by` holds.
    pub fn carrier_of<'a>(&'a self, table: &str, by: CarrierKind) -> Result<Box<dyn Carrier + 'a>, Error> {
        let hosted = Hosting::of(by).and_then(|hosting| self.hosted(hosting, None));
        match hosted {
            Some(carrier) => Ok(Box::new(carrier)),
            None => Ok(Box::new(self.carrier(table)?)),
        }
    }

    /// Raw in another table of the backend's.
    pub fn hosted(&self, hosting: &'static Hosting, wait: Option<Option<u32>>) -> Option<HostedCarrier<'_>> {
        let (family, dialect, backend) = (self.front.family, self.dialect(), self.snapshot.backend.as_ref()?);
        Some(HostedCarrier { hosting, family, dialect, backend, wait })
    }

    /// How another table of the backend's may hold raw here.
    pub fn hosting(&self) -> Option<&'static Hosting> {
        let planned = || plan::planned_host(self.front.family, &self.config, &self.snapshot);
        let by = self.stays_in().or_else(|| planned().filter(|by| !self.is_ours(*by)))?;
        Hosting::of(by).filter(|hosting| self.hosted(hosting, None).is_some_and(|carrier| carrier.can_change()))
    }

    /// Whether the table that `by` means is held by one of our own here, whatever is planned: it holds nothing for raw.
    fn is_ours(&self, by: CarrierKind) -> bool {
        let name = carrier::table_name(by.as_str());
        let ours =
            self.snapshot.nf_tables && self.ask(|c| c.table(self.front.family, &name)).is_ok_and(|t| t.is_some());
        ours && probe::hosted_here(&self.snapshot, self.front.family) != Some(by)
    }

    /// Another table of the backend's that holds raw here although it would not be put there now: what stands in a
    /// carrier stays with it until it is flushed, or it would act and not show.
    fn stays_in(&self) -> Option<CarrierKind> {
        let family = self.front.family;
        self.snapshot.hosted(family)?;
        let planned = plan::planned_host(family, &self.config, &self.snapshot);
        probe::hosted_here(&self.snapshot, family).filter(|by| planned != Some(*by))
    }

    /// Whether `table` is the backend's in any case: nobody need look into it to know.
    pub fn is_passed_through(&self, table: &str, held: bool) -> bool {
        let plan = plan::plan(self.front.family, table, &self.config, &self.snapshot, held);
        matches!(plan, Plan::Backend { .. }) && (table != "raw" || self.stays_in().is_none())
    }

    /// Our own tables in this network namespace, by the names that iptables has for them, the newest first.
    pub fn held_tables(&self) -> Result<Vec<(String, TableInfo)>, Error> {
        if !self.snapshot.nf_tables {
            return Ok(Vec::new());
        }
        let found = self.ask(|connection| connection.tables(self.front.family))?;
        let mut ours: Vec<(String, TableInfo)> = self
            .snapshot
            .carried_tables(self.front.family)
            .filter_map(|table| {
                let name = carrier::table_name(table);
                Some((table.to_owned(), found.iter().find(|info| info.name == name)?.clone()))
            })
            .collect();
        ours.sort_by_key(|(_, info)| std::cmp::Reverse(info.handle));
        Ok(ours)
    }

    /// Takes `table` over from the backend, and tells of it. `false`: it stays there, and that was told of.
    pub fn take_over(&self, table: &str, why: &str, wait: Option<Option<u32>>) -> Result<bool, Error> {
        self.told_of(table, why, |owner| owner.take_over(wait))
    }

    /// Finishes what an earlier call was stopped in. `false`: the table is the backend's again.
    pub fn finish_takeover(&self, table: &str, why: &str, wait: Option<Option<u32>>) -> Result<bool, Error> {
        let mut carrier = self.carrier(table)?;
        let unfinished = carrier.is_unfinished()?;
        *self.connection.borrow_mut() = Some(carrier.into_connection());
        if unfinished { self.told_of(table, why, |owner| owner.finish(wait)) } else { Ok(true) }
    }

    fn told_of(
        &self,
        table: &str,
        why: &str,
        take: impl FnOnce(&Owner<'_>) -> Result<Taken, Obstacle>,
    ) -> Result<bool, Error> {
        let Some(backend) = &self.snapshot.backend else { return Ok(true) };
        let owner = Owner { family: self.front.family, table, backend };
        match take(&owner) {
            Ok(taken) if taken.told.is_empty() => Ok(true),
            Ok(taken) => {
                let why = format!("{why}; {} rules were taken over from {}", taken.rules, owner.name());
                self.tell(table, &why, Ok(&taken.told));
                Ok(true)
            }
            Err(Obstacle::Stays(obstacle)) => {
                let result = format!("{table} stays with {}: {obstacle}", owner.name());
                self.tell(table, why, Err(result));
                Ok(false)
            }
            Err(Obstacle::Fails(error)) => {
                self.tell(table, why, Err(error.render(&self.dialect())));
                Err(error)
            }
        }
    }

    /// Tells of a change to a carried table, and of rules that act beside ours.
    pub fn tell_change(&self, table: &str, told: &Told, why: &str) {
        let journal = &self.config.journal;
        if journal.file.is_none() && !journal.system {
            return;
        }
        let mut why = why.to_owned();
        for doubled in takeover::beside(self.front.family, table) {
            why.push_str("; but ");
            why.push_str(&doubled.clause());
        }
        self.tell(table, &why, Ok(told));
    }

    fn ask<T>(&self, question: impl FnOnce(&mut Connection) -> io::Result<T>) -> Result<T, Error> {
        let unavailable = |error: io::Error| Error::Resource(format!("nf_tables: {}", reason(&error)));
        let mut slot = self.connection.borrow_mut();
        if slot.is_none() {
            *slot = Some(Connection::open().map_err(unavailable)?);
        }
        match slot.as_mut() {
            Some(connection) => question(connection).map_err(unavailable),
            None => Err(unavailable(io::ErrorKind::NotConnected.into())),
        }
    }
}
