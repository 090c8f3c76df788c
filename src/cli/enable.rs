//! `xtshim enable`.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::installation::docker;
use crate::installation::groups::{Alternatives, Plan};
use crate::installation::places::Places;
use crate::installation::record::{self, Record};
use crate::installation::step::Step;
use crate::sys::store::Store;
use crate::takeover;
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::fs;
use std::io::Write;

/// Put xtshim in front of iptables.
///
/// With update-alternatives, for everything on this machine that calls iptables, or for Docker alone. What is there now
/// is recorded, and `xtshim disable` brings it back. The real iptables stays where it is: what it can do goes on to it.
///
/// Docker's rules are made when dockerd starts, so restart it afterwards.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo xtshim enable && sudo systemctl restart docker
  sudo xtshim enable --scope docker     where there is no update-alternatives
  xtshim enable --dry-run               what would be done, and nothing else

Exit codes: 0 it stands there, 1 it does not (the reason is said), 2 the command line is wrong.")]
pub struct Args {
    /// For whom
    #[arg(long, value_enum, default_value_t = Scope::System)]
    scope: Scope,
    /// Restart Docker whenever nftables.service has taken carried rules away (a drop-in for that unit)
    #[arg(long)]
    follow_nftables: bool,
    /// Leave a choice that was made by hand as it is, and only offer xtshim beside it
    #[arg(long)]
    keep_choice: bool,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// Whom it is enabled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Everything that calls iptables, with update-alternatives
    System,
    /// Docker alone, with a drop-in that puts a directory first in docker.service's PATH
    Docker,
}

/// Stands in front.
///
/// # Errors
/// No right to do it, nothing to do it with, something in the way.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let _turn = if args.dry_run { None } else { turn("enable", out)? };
    let places = Places::find()?;
    let mut plan = match args.scope {
        Scope::System => system(&places, args)?,
        Scope::Docker => {
            places.check_private()?;
            Plan { steps: docker::enable(&places)?, notes: Vec::new() }
        }
    };
    if args.follow_nftables {
        let more = docker::follow()?;
        plan.steps.retain(|step| !more.contains(step));
        plan.steps.extend(more);
    }
    if !carry_out(&plan, args.dry_run, out)? {
        return Ok(Outcome::Well);
    }
    let stands = match args.scope {
        Scope::System => system_stands(&places, args, out)?,
        Scope::Docker => docker_stands(&places, out)?,
    };
    for both in takeover::doubled() {
        writeln!(out, "Note: {}.", both.clause())?;
    }
    if stands && !plan.steps.is_empty() && !docker::processes("dockerd").is_empty() {
        writeln!(out, "Next: restart Docker, which makes its rules anew then: sudo systemctl restart docker")?;
    }
    Ok(if stands { Outcome::Well } else { Outcome::NotWell })
}

/// `enable` and `disable` act upon what they have found, so one waits for the other. Held until it is dropped; `None`
/// where there is nowhere to wait (no writable `/run`).
///
/// # Errors
/// The caller is not root.
pub fn turn(what: &str, out: &mut dyn Write) -> anyhow::Result<Option<impl Sized + use<>>> {
    if !nix::unistd::geteuid().is_root() {
        bail!("that takes root: sudo xtshim {what}; with --dry-run it only says what it would do");
    }
    let told = || {
        let said = writeln!(out, "Waiting for another `xtshim enable' or `xtshim disable' to end.");
        drop(said.and_then(|()| out.flush()));
    };
    Ok(Store::create().and_then(|store| store.lock(told)).ok())
}

fn system(places: &Places, args: &Args) -> anyhow::Result<Plan> {
    places.check_fronts()?;
    let none = "there is no update-alternatives on this machine; `xtshim enable --scope docker' does without";
    let alternatives = Alternatives::find().context(none)?;
    let mut plan = alternatives.enable(places, &Record::read(), !args.keep_choice)?;
    if record::is_off() && !args.keep_choice {
        plan.steps.push(Step::Remove(record::OFF.into()));
    }
    Ok(plan)
}

/// Shows the plan and does it. `false`: it was a dry run.
///
/// # Errors
/// What the first step that fails says.
pub fn carry_out(plan: &Plan, dry: bool, out: &mut dyn Write) -> anyhow::Result<bool> {
    if plan.steps.is_empty() {
        writeln!(out, "Nothing to do.")?;
    } else if dry {
        writeln!(out, "Would do:")?;
    }
    for step in &plan.steps {
        writeln!(out, "  {}", step.to_string().replace('\n', "\n  "))?;
        if !dry {
            out.flush()?;
            step.perform()
                .with_context(|| "stopped there; the same command again goes on, `xtshim disable' goes back")?;
        }
    }
    for note in &plan.notes {
        writeln!(out, "Note: {note}.")?;
    }
    Ok(!dry)
}

/// Whether each name leads to this program; says so.
fn system_stands(places: &Places, args: &Args, out: &mut dyn Write) -> anyhow::Result<bool> {
    let alternatives = Alternatives::find();
    let mut stands = true;
    for name in ["iptables", "ip6tables"] {
        let group = alternatives.as_ref().and_then(|alternatives| alternatives.group_with(name));
        let link = group.map(|group| match group.name == name {
            true => group.link.clone(),
            false => {
                group.slaves.iter().find(|slave| slave.name == name).map(|slave| slave.link.clone()).unwrap_or_default()
            }
        });
        let Some(link) = link else {
            stands = false;
            writeln!(out, "{name}: update-alternatives does not know it.")?;
            continue;
        };
        let leads = fs::canonicalize(&link);
        let ours = places.front(name).and_then(|front| fs::canonicalize(front).ok());
        match leads {
            Ok(path) if Some(&path) == ours.as_ref() => writeln!(out, "{} leads to xtshim.", link.display())?,
            Ok(path) if args.keep_choice => {
                writeln!(out, "{} leads to {}; `xtshim enable' overrules that.", link.display(), path.display())?;
            }
            Ok(path) => {
                stands = false;
                writeln!(out, "{} leads to {}, not to xtshim.", link.display(), path.display())?;
            }
            Err(error) => {
                stands = false;
                writeln!(out, "{} leads nowhere: {error}.", link.display())?;
            }
        }
    }
    Ok(stands)
}

fn docker_stands(places: &Places, out: &mut dyn Write) -> anyhow::Result<bool> {
    match docker::is_first(places) {
        Some(false) => {
            writeln!(
                out,
                "docker.service's PATH does not begin with {}: another drop-in or EnvironmentFile= sets it after ours \
                 (systemctl cat docker).",
                places.private.display()
            )?;
            Ok(false)
        }
        Some(true) => {
            writeln!(out, "docker.service finds xtshim first.")?;
            Ok(true)
        }
        None => {
            writeln!(out, "docker.service will find xtshim first.")?;
            Ok(true)
        }
    }
}
