//! `xtshim flush`: the carried rules go, or go to the real iptables.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::carrier::Carrier;
use crate::carrier::hosted::{HostedCarrier, Hosting, TABLE};
use crate::carrier::nft::{NftCarrier, table_name};
use crate::config::{CarrierKind, Config};
use crate::error::Error;
use crate::family::Family;
use crate::iptables::dialect::{Dialect, Variant};
use crate::journal::{self, Rewrite, escape};
use crate::nft::Connection;
use crate::nft::text::Told;
use crate::probe::{self, Snapshot};
use crate::rules;
use crate::takeover::{Obstacle, Owner};
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::io::Write;

/// Remove the rules that are carried in this network namespace, or give them to the real iptables.
///
/// Without options, all of them: packets are filtered and translated no more as they asked for. With --hand-back the real
/// iptables is given the rules first, and there is no moment without them; what it does not take stays carried.
///
/// Where the plan is to carry a table (xtshim probe), its next change carries it again.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  xtshim flush --hand-back              before xtshim is removed
  xtshim flush --table raw --family ip6

Exit codes: 0 nothing of it is carried any more, 1 something is, 2 the command line is wrong.")]
pub struct Args {
    /// Give the rules to the real iptables
    #[arg(long)]
    hand_back: bool,
    /// Only this table
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Only this family
    #[arg(long, value_name = "FAMILY")]
    family: Option<Only>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    /// IPv4
    #[value(aliases = ["ipv4", "4", "iptables"])]
    Ip,
    /// IPv6
    #[value(aliases = ["ipv6", "6", "ip6tables"])]
    Ip6,
}

/// Removes, and says what.
///
/// # Errors
/// A bad configuration, no right to do it, a reader that went away.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let probe::Standing { config, error, snapshot } = probe::standing();
    if let Some(error) = error {
        return Err(error.into());
    }
    if let Some(table) = args.table.as_deref().filter(|table| rules::table(table).is_none()) {
        bail!("there is no table `{table}`");
    }
    let found = if snapshot.nf_tables { carried(args) } else { Ok(Vec::new()) };
    let found = found.context("cannot ask for what is carried here")?;
    let hosted = hosted(args, &snapshot);
    if hosted.is_empty() && found.is_empty() {
        writeln!(out, "Nothing of it is carried in this network namespace.")?;
        return Ok(Outcome::Well);
    }
    let mut outcome = Outcome::Well;
    for (family, table) in found {
        let done = if args.hand_back { hand_back(&snapshot, family, table) } else { remove(&snapshot, family, table) };
        tell(&config, args, family, table, &done);
        match done {
            Ok(done) => writeln!(out, "{} {table}: {}", family.nft(), escape(&done.what))?,
            Err(problem) => {
                outcome = Outcome::NotWell;
                writeln!(out, "{} {table}: still carried: {}", family.nft(), escape(&problem))?;
            }
        }
    }
    for carrier in hosted {
        let (family, host) = (carrier.family, carrier.hosting.host);
        let done = match args.hand_back {
            true => Err(format!("what {host} holds of it is not handed back; without --hand-back it is removed")),
            false => match carrier.remove() {
                Ok(lines) => Ok(Done { what: format!("removed from {host}"), applied: lines }),
                Err(error) => Err(words(error, &carrier.dialect)),
            },
        };
        tell_by(&config, args, family, TABLE, carrier.hosting.kind.as_str(), &done);
        match done {
            Ok(done) => writeln!(out, "{} {TABLE}: {}", family.nft(), escape(&done.what))?,
            Err(problem) => {
                outcome = Outcome::NotWell;
                writeln!(out, "{} {TABLE}: still carried: {}", family.nft(), escape(&problem))?;
            }
        }
    }
    Ok(outcome)
}

/// A table that is carried, and what holds it.
pub struct Carried {
    /// `ip` or `ip6`.
    pub family: &'static str,
    /// `raw`, …
    pub table: String,
    /// `nft`, `mangle`, `filter`.
    pub carrier: &'static str,
    /// How many rules; `None`: they cannot be read.
    pub rules: Option<usize>,
}

/// What is carried in the network namespace of the call.
///
/// # Errors
/// The kernel does not say.
pub fn here(snapshot: &Snapshot) -> anyhow::Result<Vec<Carried>> {
    let all = Args { hand_back: false, table: None, family: None };
    let dialect = Dialect { family: Family::V4, variant: Variant::Nft, version: (1, 8, 13) };
    let found = if snapshot.nf_tables { carried(&all).context("cannot ask for what is carried here")? } else { vec![] };
    let rules = |family, table| {
        let mut text = String::new();
        let saved = NftCarrier::open(family, table, Dialect { family, ..dialect })
            .and_then(|mut carrier| carrier.save(false, &mut text));
        saved.ok().map(|_| text.lines().filter(|line| line.starts_with("-A ")).count())
    };
    let ours = found.into_iter().map(|(family, table)| Carried {
        family: family.nft(),
        table: table.to_owned(),
        carrier: CarrierKind::Nft.as_str(),
        rules: rules(family, table),
    });
    let hosted = hosted(&all, snapshot).into_iter().map(|carrier| Carried {
        family: carrier.family.nft(),
        table: TABLE.to_owned(),
        carrier: carrier.hosting.kind.as_str(),
        rules: carrier.survey().ok().map(|reading| reading.ours(carrier.hosting).len()),
    });
    Ok(ours.chain(hosted).collect())
}

/// Leaves nothing behind that only xtshim can list, in the network namespace of the call: what the real iptables takes
/// is given to it, the rest is removed and named.
///
/// # Errors
/// The kernel does not say what is carried; a reader that went away.
pub fn leave(config: &Config, snapshot: &Snapshot, whose: &str, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let args = Args { hand_back: true, table: None, family: None };
    let found =
        if snapshot.nf_tables { carried(&args).context("cannot ask for what is carried here")? } else { vec![] };
    let mut outcome = Outcome::Well;
    let mut say = |family: Family, table: &str, carrier: &str, done: Result<Done, String>| {
        tell_by(config, &args, family, table, carrier, &done);
        let said = match done {
            Ok(done) => escape(&done.what),
            Err(problem) => {
                outcome = Outcome::NotWell;
                format!("still carried: {}", escape(&problem))
            }
        };
        writeln!(out, "{} {table}{whose}: {said}", family.nft())
    };
    for (family, table) in found {
        let done = hand_back(snapshot, family, table).or_else(|why| {
            let done = remove(snapshot, family, table)?;
            Ok(Done { what: format!("REMOVED, its rules are in force no more: {why}"), ..done })
        });
        say(family, table, CarrierKind::Nft.as_str(), done)?;
    }
    for carrier in hosted(&args, snapshot) {
        let host = carrier.hosting.host;
        let done = match carrier.remove() {
            Ok(applied) => Ok(Done { what: format!("REMOVED from {host}, its rules are in force no more"), applied }),
            Err(error) => Err(words(error, &carrier.dialect)),
        };
        say(carrier.family, TABLE, carrier.hosting.kind.as_str(), done)?;
    }
    Ok(outcome)
}

/// Where other tables of the backend's hold raw.
fn hosted<'a>(args: &Args, snapshot: &'a Snapshot) -> Vec<HostedCarrier<'a>> {
    let Some(backend) = &snapshot.backend else { return Vec::new() };
    let families = Family::ALL.into_iter().filter(|family| args.wants(*family));
    let all = families.flat_map(|family| {
        [CarrierKind::Mangle, CarrierKind::Filter].into_iter().filter_map(Hosting::of).map(move |hosting| {
            let dialect = Dialect { family, variant: backend.variant, version: backend.version };
            HostedCarrier { hosting, family, dialect, backend, wait: Some(None) }
        })
    });
    let holds = |carrier: &HostedCarrier<'_>| {
        probe::backend_holds(snapshot, carrier.family, carrier.hosting.host)
            && carrier.survey().is_ok_and(|reading| !reading.ours(carrier.hosting).is_empty())
    };
    all.filter(|_| args.table.as_deref().is_none_or(|only| only == TABLE)).filter(holds).collect()
}

impl Args {
    fn wants(&self, family: Family) -> bool {
        match self.family {
            None => true,
            Some(Only::Ip) => family == Family::V4,
            Some(Only::Ip6) => family == Family::V6,
        }
    }
}

/// The tables that are there.
fn carried(args: &Args) -> std::io::Result<Vec<(Family, &'static str)>> {
    let mut connection = Connection::open()?;
    let mut found = Vec::new();
    for family in Family::ALL {
        let tables = if args.wants(family) { connection.tables(family)? } else { Vec::new() };
        let known = rules::tables().iter().map(|table| table.name.as_str());
        let asked_for = known.filter(|table| args.table.as_deref().is_none_or(|only| only == *table));
        found.extend(
            asked_for
                .filter(|table| tables.iter().any(|info| info.name == table_name(table)))
                .map(|table| (family, table)),
        );
    }
    Ok(found)
}

/// What was done.
struct Done {
    what: String,
    applied: Vec<String>,
}

fn remove(snapshot: &Snapshot, family: Family, table: &str) -> Result<Done, String> {
    if let Some(backend) = &snapshot.backend {
        let owner = Owner { family, table, backend };
        owner.undo().map_err(|obstacle| told(obstacle, &owner.dialect()))?;
    }
    // Nothing is read, so nothing is spoken.
    let dialect = Dialect { family, variant: Variant::Nft, version: (1, 8, 13) };
    let removed = NftCarrier::open(family, table, dialect).and_then(|mut carrier| carrier.remove(None));
    let applied = removed.map_err(|error| words(error, &dialect))?.unwrap_or_default();
    Ok(Done { what: "removed".to_owned(), applied })
}

fn hand_back(snapshot: &Snapshot, family: Family, table: &str) -> Result<Done, String> {
    let backend = snapshot.backend.as_ref().ok_or("there is no iptables to give it to")?;
    let owner = Owner { family, table, backend };
    match owner.hand_back(None) {
        Ok(rules) => Ok(Done {
            what: format!("given to {}, {rules} rules", owner.name()),
            applied: vec![format!("delete table {} {}", family.nft(), table_name(table))],
        }),
        Err(obstacle) => Err(told(obstacle, &owner.dialect())),
    }
}

fn told(obstacle: Obstacle, dialect: &Dialect) -> String {
    match obstacle {
        Obstacle::Stays(why) => why,
        Obstacle::Fails(error) => words(error, dialect),
    }
}

fn words(error: Error, dialect: &Dialect) -> String {
    match error {
        Error::Resource(text) => text.trim().to_owned(),
        other => other.render(dialect).trim_end().to_owned(),
    }
}

fn tell(config: &Config, args: &Args, family: Family, table: &str, done: &Result<Done, String>) {
    tell_by(config, args, family, table, "nft", done);
}

fn tell_by(config: &Config, args: &Args, family: Family, table: &str, carrier: &str, done: &Result<Done, String>) {
    let mut words = vec!["flush".to_owned()];
    words.extend(args.hand_back.then(|| "--hand-back".to_owned()));
    words.extend(args.table.iter().map(|table| format!("--table={table}")));
    words.extend(args.family.map(|_| format!("--family={}", family.nft())));
    let (applied, result) = match done {
        Ok(done) => (done.applied.clone().into(), Ok(())),
        Err(problem) => (Told::default(), Err(problem.clone())),
    };
    let why = match done {
        Ok(done) => done.what.as_str(),
        Err(_) => "it was asked for",
    };
    let rewrite = Rewrite { front: "xtshim", args: &words, family, table, carrier, applied, why, result };
    journal::record(&config.journal, &rewrite);
}
