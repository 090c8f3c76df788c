//! `xtshim probe`.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::carrier::hosted::{HostedCarrier, Hosting};
use crate::carrier::nft::table_name;
use crate::config::{self, CarrierKind, Config};
use crate::family::Family;
use crate::iptables::dialect::Dialect;
use crate::journal::escape;
use crate::nft::Connection;
use crate::plan;
use crate::probe::{self, Ability, CapabilityFacts, Report, Snapshot, TableFacts};
use crate::takeover::{self, Doubled};
use serde::Serialize;
use std::io::Write;

/// Show what this kernel and its iptables can do, and why not.
///
/// Everything is tried for real, in a network namespace that is thrown away, with the commands that Docker gives.
/// What was found is kept until the next boot, or until iptables, the configuration or the kernel's modules change.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  xtshim probe                  tables, what they can be carried by, and why something is missing
  xtshim probe -v               and the kernel's word on each extension, with its options and modules
  xtshim probe --refresh        try again
  xtshim probe --json | jq '.tables[] | select(.planned != \"backend\")'")]
pub struct Args {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Try again instead of believing what was found since the last boot
    #[arg(long)]
    refresh: bool,
    /// Show what is behind it: each extension, its kernel options and modules
    #[arg(short, long)]
    verbose: bool,
}

/// Prints what was found.
///
/// # Errors
/// A bad configuration, a reader that went away.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let (config, error) = config::load();
    if let Some(error) = error {
        return Err(error.into());
    }
    let (snapshot, facts) = probe::report(&config, args.refresh);
    let doubled = takeover::doubled();
    let tables = facts.tables.iter().map(|table| Row::new(table.clone(), &config, &snapshot, &doubled)).collect();
    let report = Planned { tables, facts: &facts };
    if args.json {
        let mut json = serde_json::to_value(report.facts)?;
        json["tables"] = serde_json::to_value(&report.tables)?;
        writeln!(out, "{}", serde_json::to_string_pretty(&json)?)?;
    } else {
        print(&report, args.verbose, out)?;
    }
    Ok(Outcome::Well)
}

/// What was found, and what follows from it.
struct Planned<'a> {
    tables: Vec<Row>,
    facts: &'a Report,
}

/// A table, and what would hold its rules in a network namespace that has none yet.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    facts: TableFacts,
    planned: &'static str,
    because: String,
    /// What the network namespace of the call has to do with it: rules of the backend's that are to be taken over, or that
    /// stand beside ours.
    here: Vec<String>,
    ability: Ability,
    /// What the carrier cannot do, and what it lets happen to a packet before a drop.
    limits: Vec<String>,
    /// What the network namespace of the call holds of it in another table, where no listing shows it.
    hidden: Vec<String>,
}

impl Row {
    fn new(facts: TableFacts, config: &Config, snapshot: &Snapshot, doubled: &[Doubled]) -> Self {
        let family = Family::ALL.into_iter().find(|family| family.nft() == facts.family).unwrap_or(Family::V4);
        let plan = plan::plan(family, &facts.table, config, snapshot, false);
        let carrier = plan.carrier();
        let ability = snapshot.ability(family, &facts.table, carrier);
        let beside = doubled.iter().filter(|one| one.family == facts.family && one.table == facts.table);
        let mut here: Vec<String> = beside.map(Doubled::clause).collect();
        let hosting = Hosting::of(carrier);
        let limits = hosting.iter().flat_map(|hosting| hosting.limits).map(str::to_owned).collect();
        let mut hidden = Vec::new();
        if let (Some(hosting), Some(backend)) = (hosting, &snapshot.backend)
            && probe::backend_holds(snapshot, family, hosting.host)
        {
            let dialect = Dialect { family, variant: backend.variant, version: backend.version };
            let carrier = HostedCarrier { hosting, family, dialect, backend, wait: None };
            hidden = carrier.survey().map(|reading| reading.ours(hosting)).unwrap_or_default();
        }
        here.extend(standing(snapshot, family, &facts.table, carrier));
        if carrier == CarrierKind::Nft {
            here.extend(takeover::pending(snapshot, family, &facts.table));
        }
        Self { planned: carrier.as_str(), because: plan.why().to_owned(), here, ability, limits, hidden, facts }
    }
}

/// What holds the table in the network namespace of the call, where that is not what would hold it in a new one.
fn standing(snapshot: &Snapshot, family: Family, table: &str, planned: CarrierKind) -> Option<String> {
    let hosted = if table == "raw" { probe::hosted_here(snapshot, family) } else { None };
    let nft = || {
        let asked = Connection::open().and_then(|mut connection| connection.table(family, &table_name(table)));
        asked.is_ok_and(|found| found.is_some()).then_some(CarrierKind::Nft)
    };
    let by = if planned == CarrierKind::Nft { hosted } else { nft().or(hosted) }?;
    (by != planned).then(|| format!("{} holds it here, until `xtshim flush`", by.as_str()))
}

fn print(report: &Planned<'_>, verbose: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let facts = report.facts;
    let kernel = &facts.kernel;
    writeln!(out, "Kernel    {} {}", kernel.release, kernel.machine)?;
    if verbose {
        writeln!(out, "          {}", kernel.version)?;
        let config = kernel.config.as_ref().map(|path| path.display().to_string());
        writeln!(out, "          configuration: {}", config.as_deref().unwrap_or("not to be had"))?;
    }
    print_backends(facts, out)?;
    writeln!(out)?;
    print_tables(report, verbose, out)?;
    print_reasons(report, out)?;
    print_limits(report, out)?;
    print_here(report, out)?;
    if verbose {
        print_hidden(report, out)?;
        print_capabilities(&facts.capabilities, out)?;
    }
    if !facts.tried {
        let advice = "Not all of this was tried: that takes the right to make a network namespace (root).";
        writeln!(out, "\n{advice}")?;
    }
    Ok(())
}

fn print_backends(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let mut title = "Backends ";
    for backend in &report.backends {
        let program = backend.program.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let because = report.chosen_because.as_deref().filter(|_| backend.chosen);
        let because = because.map(|why| format!("  <- in use: {why}")).unwrap_or_default();
        writeln!(out, "{title} {:<7} {:<7} {program}{because}", backend.name, backend.version)?;
        title = "         ";
    }
    if report.backends.is_empty() {
        writeln!(out, "{title} none: there is no iptables on this machine")?;
    }
    Ok(())
}

fn print_tables(report: &Planned<'_>, verbose: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let names: Vec<&str> = report.facts.backends.iter().map(|backend| backend.name.as_str()).collect();
    let columns: String = names.iter().map(|name| format!(" {name:<8}")).collect();
    writeln!(out, "Table       {columns} carried by")?;
    for row in &report.tables {
        let table = &row.facts;
        let states: String = names.iter().map(|name| format!(" {:<8}", word(table.backends.get(*name)))).collect();
        let name = format!("{:<3} {}", table.family, table.table);
        let note = match row.ability {
            Ability::Able => "",
            Ability::Missing { .. } => " (which cannot)",
            Ability::Unknown { .. } => " (not known whether it can)",
        };
        let usual = row.planned == CarrierKind::Backend.as_str() && row.ability.is_able() && !verbose;
        let because = if usual { String::new() } else { format!(": {}", row.because) };
        writeln!(out, "{name:<12}{states} {}{note}{because}", row.planned)?;
    }
    Ok(())
}

fn word(ability: Option<&Ability>) -> &'static str {
    match ability {
        Some(Ability::Able) => "yes",
        Some(Ability::Missing { .. }) => "missing",
        Some(Ability::Unknown { .. }) => "unknown",
        None => "-",
    }
}

/// One line for each reason, with all that it is a reason for.
fn print_reasons(report: &Planned<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    let mut reasons: Vec<((String, &str), Vec<String>)> = Vec::new();
    for (what, table, why) in report.tables.iter().flat_map(lacking) {
        match reasons.iter_mut().find(|((known, because), _)| *known == what && *because == why) {
            Some((_, tables)) => tables.push(table),
            None => reasons.push(((what, why), vec![table])),
        }
    }
    if !reasons.is_empty() {
        writeln!(out, "\nWhy")?;
    }
    let mut lines = reasons.iter();
    lines.try_for_each(|((what, why), tables)| writeln!(out, "  {what}: {}: {why}", tables.join(", ")))
}

/// What a carrier cannot do.
fn print_limits(report: &Planned<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    let mut told: Vec<&str> = Vec::new();
    for row in report.tables.iter().filter(|row| !row.limits.is_empty()) {
        if told.is_empty() {
            writeln!(out, "\nLimits")?;
        }
        if !told.contains(&row.planned) {
            told.push(row.planned);
            row.limits.iter().try_for_each(|limit| writeln!(out, "  carrier {}: {limit}", row.planned))?;
        }
    }
    Ok(())
}

/// What is hidden in other tables.
fn print_hidden(report: &Planned<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    for row in report.tables.iter().filter(|row| !row.hidden.is_empty()) {
        writeln!(out, "\nIn {} {}, for {}", row.facts.family, row.planned, row.facts.table)?;
        row.hidden.iter().try_for_each(|line| writeln!(out, "  {}", escape(line)))?;
    }
    Ok(())
}

/// What this network namespace has to do with it.
fn print_here(report: &Planned<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    let mut title = "\nHere\n";
    for row in &report.tables {
        for clause in &row.here {
            writeln!(out, "{title}  {} {}: {}", row.facts.family, row.facts.table, escape(clause))?;
            title = "";
        }
    }
    Ok(())
}

/// What is not there, and for which table, and why: of the backends, and of the carriers in their place.
fn lacking(row: &Row) -> Vec<(String, String, &str)> {
    let of_backends = row.facts.backends.iter().map(|(name, ability)| (name.clone(), ability));
    let own = row.facts.carriers.iter().filter(|(carrier, _)| **carrier != CarrierKind::Backend);
    let of_carriers = own.map(|(carrier, ability)| (format!("carrier {}", carrier.as_str()), ability));
    // Where the backend holds the table, nobody asks what else could.
    let in_question = row.planned != CarrierKind::Backend.as_str() || !row.ability.is_able();
    let all = of_backends.chain(of_carriers.filter(|_| in_question));
    let table = format!("{} {}", row.facts.family, row.facts.table);
    all.filter(|(_, ability)| !ability.is_able()).map(|(what, ability)| (what, table.clone(), ability.why())).collect()
}

fn print_capabilities(capabilities: &[CapabilityFacts], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "\nFamily For     {:<42} {:<8} Options and modules", "Capability", "")?;
    for fact in capabilities {
        let options = fact.options.iter().map(|(name, state)| format!("{name}={state}"));
        let modules = fact.modules.iter().map(|(name, state)| format!("{name}: {}", module_word(*state)));
        let behind: Vec<String> = options.chain(modules).collect();
        let backend = fact.backend.as_deref().unwrap_or("nf_tables");
        let state = word(Some(&fact.ability));
        writeln!(out, "{:<6} {backend:<9} {:<40} {state:<8} {}", fact.family, fact.what, behind.join(", "))?;
    }
    Ok(())
}

fn module_word(state: probe::ModuleState) -> &'static str {
    match state {
        probe::ModuleState::Loaded => "loaded",
        probe::ModuleState::BuiltIn => "built in",
        probe::ModuleState::OnDisk => "on disk",
        probe::ModuleState::NotOnDisk => "not on disk",
        probe::ModuleState::Unknown => "?",
    }
}
