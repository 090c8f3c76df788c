//! `xtshim probe`.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::config;
use crate::probe::{self, Ability, CapabilityFacts, Report, TableFacts};
use anyhow::Context;
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
    let report = probe::report(&config, args.refresh);
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report).context("cannot print the report")?;
        writeln!(out)?;
    } else {
        print(&report, args.verbose, out)?;
    }
    Ok(Outcome::Well)
}

fn print(report: &Report, verbose: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let kernel = &report.kernel;
    writeln!(out, "Kernel    {} {}", kernel.release, kernel.machine)?;
    if verbose {
        writeln!(out, "          {}", kernel.version)?;
        let config = kernel.config.as_ref().map(|path| path.display().to_string());
        writeln!(out, "          configuration: {}", config.as_deref().unwrap_or("not to be had"))?;
    }
    print_backends(report, out)?;
    writeln!(out)?;
    print_tables(report, out)?;
    print_reasons(report, out)?;
    if verbose {
        print_capabilities(&report.capabilities, out)?;
    }
    if !report.tried {
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

fn print_tables(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let names: Vec<&str> = report.backends.iter().map(|backend| backend.name.as_str()).collect();
    let columns: String = names.iter().map(|name| format!(" {name:<8}")).collect();
    writeln!(out, "Table       {columns} carried by")?;
    for table in &report.tables {
        let states: String = names.iter().map(|name| format!(" {:<8}", word(table.backends.get(*name)))).collect();
        let name = format!("{:<3} {}", table.family, table.table);
        let note = if table.possible { "" } else { " (which cannot)" };
        writeln!(out, "{name:<12}{states} {}{note}", table.planned.as_str())?;
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

fn print_reasons(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let reasons: Vec<String> = report.tables.iter().flat_map(reasons).collect();
    if !reasons.is_empty() {
        writeln!(out, "\nWhy")?;
    }
    reasons.iter().try_for_each(|reason| writeln!(out, "  {reason}"))
}

/// What is not there, of the backends and of the carriers in their place.
fn reasons(table: &TableFacts) -> Vec<String> {
    let of_backends = table.backends.iter().map(|(name, ability)| (name.as_str(), ability));
    let own = table.carriers.iter().filter(|(carrier, _)| **carrier != config::CarrierKind::Backend);
    let of_carriers = own.map(|(carrier, ability)| (carrier.as_str(), ability));
    // Where the backend holds the table, nobody asks what else could.
    let in_question = table.planned != config::CarrierKind::Backend || !table.possible;
    let listed = of_backends
        .map(|found| ("", found))
        .chain(of_carriers.filter(|_| in_question).map(|found| ("carrier ", found)));
    listed
        .filter(|(_, (_, ability))| !ability.is_able())
        .map(|(kind, (name, ability))| format!("{} {}, {kind}{name}: {}", table.family, table.table, ability.why()))
        .collect()
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
