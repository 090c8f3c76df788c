//! `xtshim disable`.

#![forbid(unsafe_code)]

use super::enable::{Scope, carry_out, turn};
use super::{Outcome, flush};
use crate::installation::groups::{Alternatives, Plan};
use crate::installation::places::Places;
use crate::installation::record::{self, Record};
use crate::installation::{Step, docker};
use crate::probe::{self, Standing};
use crate::sys::sandbox;
use std::io::Write;
use std::path::Path;

/// Step out of the way again: the former iptables comes back, as it was chosen then.
///
/// Rules that only xtshim can list are given to the real iptables, in every network namespace of this machine. What that
/// cannot hold is removed and named, because nobody could list or delete it any more: restart Docker then.
///
/// Upgrades of the package leave it disabled until `xtshim enable`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo xtshim disable && sudo systemctl restart docker
  xtshim disable --dry-run              what would be done, and nothing else

Exit codes: 0 everything is as it was before, 1 something is not (the reason is said), 2 the command line is wrong.")]
pub struct Args {
    /// For whom; without it, for whomever it was enabled
    #[arg(long, value_enum)]
    scope: Option<Scope>,
    /// Do not remember it: for scripts that remove the package
    #[arg(long)]
    for_removal: bool,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// Steps out of the way.
///
/// # Errors
/// No right to do it, a program that failed.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let _turn = if args.dry_run { None } else { turn("disable", out)? };
    let places = Places::find()?;
    let (of_system, of_docker) = (args.scope != Some(Scope::Docker), args.scope != Some(Scope::System));
    let alternatives = Alternatives::find();
    let mut plan = Plan::default();
    if let Some(alternatives) = alternatives.as_ref().filter(|_| of_system) {
        plan = alternatives.disable(&places, &Record::read());
    }
    if of_docker {
        plan.steps.extend(docker::disable());
    }
    if of_system && args.for_removal && record::is_off() {
        plan.steps.push(Step::Remove(record::OFF.into()));
    } else if of_system && !args.for_removal && !record::is_off() {
        plan.steps.push(Step::Write { path: record::OFF.into(), text: record::OFF_TEXT.to_owned() });
    }
    let stays = (!of_system && alternatives.is_some_and(|alternatives| stands(&alternatives, &places)))
        || (!of_docker && docker::is_enabled());
    // Before anything changes: what was found of this machine is valid until then.
    let Standing { config, snapshot, .. } = probe::standing();
    let done = carry_out(&plan, args.dry_run, out)?;
    if stays {
        return Ok(Outcome::Well);
    }
    if !done {
        for carried in flush::here(&snapshot)? {
            let (family, table) = (carried.family, carried.table);
            writeln!(out, "  give {family} {table} to the real iptables, or remove it")?;
        }
        return Ok(Outcome::Well);
    }
    let mut outcome = Outcome::Well;
    for namespace in docker::namespaces() {
        let own = namespace == Path::new("/proc/thread-self/ns/net");
        let whose = if own { String::new() } else { format!(" in {}", namespace.display()) };
        let mut said = Vec::new();
        let left = sandbox::visit(&namespace, || flush::leave(&config, &snapshot, &whose, &mut said));
        out.write_all(&said)?;
        match left {
            Ok(Ok(Outcome::Well)) => {}
            Ok(Ok(Outcome::NotWell | Outcome::Broken)) => outcome = Outcome::NotWell,
            Ok(Err(error)) if own => return Err(error),
            Err(error) if own => return Err(error.into()),
            // It is gone meanwhile, or belongs to somebody whom these rules do not reach.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    if plan.steps.len() > usize::from(!args.for_removal) && !docker::processes("dockerd").is_empty() {
        writeln!(out, "Next: restart Docker, which makes its rules anew then: sudo systemctl restart docker")?;
    }
    Ok(outcome)
}

fn stands(alternatives: &Alternatives, places: &Places) -> bool {
    alternatives.groups.iter().any(|group| group.value.is_some() && group.value == places.front(&group.name))
}
