//! `xtshim status`.

#![forbid(unsafe_code)]

use super::{Outcome, flush};
use crate::alternatives::{Group, LINKS};
use crate::installation::docker::{self, Process};
use crate::installation::groups::Alternatives;
use crate::installation::places::Places;
use crate::installation::record::{self, Former, Record};
use crate::journal::{escape, timestamp};
use crate::probe::{self, backend_name};
use crate::takeover::{self, Doubled};
use serde::Serialize;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Show whether xtshim stands in front of iptables, what is carried, and what to do next.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit codes: 0 it stands in front of iptables, for the system or for Docker, and nothing is to be done; 1 it does not, or
something is to be done; 2 the command line is wrong.")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// All that is shown.
#[derive(Serialize)]
struct Status {
    /// In force for everything that calls iptables.
    system: bool,
    /// In force for docker.service.
    docker: bool,
    fronts: Vec<Front>,
    drop_in: Option<DropIn>,
    dockerd: Vec<Daemon>,
    backend: Option<BackendLine>,
    carried: Vec<CarriedLine>,
    /// A sentence each: what is to be done.
    next: Vec<String>,
    /// A sentence each: what to know.
    notes: Vec<String>,
}

/// A name, and what it leads to.
#[derive(Serialize)]
struct Front {
    name: &'static str,
    link: Option<PathBuf>,
    leads_to: Option<PathBuf>,
    ours: bool,
    mode: Option<&'static str>,
    since: Option<String>,
    former: Option<String>,
    #[serde(skip)]
    changed: Option<SystemTime>,
}

#[derive(Serialize)]
struct DropIn {
    path: &'static str,
    since: Option<String>,
    #[serde(skip)]
    changed: Option<SystemTime>,
}

#[derive(Serialize)]
struct Daemon {
    pid: u32,
    since: Option<String>,
}

#[derive(Serialize)]
struct BackendLine {
    name: &'static str,
    version: String,
    because: Option<String>,
}

#[derive(Serialize)]
struct CarriedLine {
    family: &'static str,
    table: String,
    carrier: &'static str,
    rules: Option<usize>,
}

/// Shows it.
///
/// # Errors
/// A reader that went away.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let status = gather()?;
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?,
        false => print(&status, out)?,
    }
    let well = (status.system || status.docker) && status.next.is_empty();
    Ok(if well { Outcome::Well } else { Outcome::NotWell })
}

fn gather() -> anyhow::Result<Status> {
    let places = Places::find()?;
    let alternatives = Alternatives::find();
    let recorded = Record::read();
    let fronts: Vec<Front> = ["iptables", "ip6tables"]
        .into_iter()
        .map(|name| front(name, &places, alternatives.as_ref(), &recorded))
        .collect();
    let drop_in = docker::is_enabled().then(|| {
        let changed = fs::metadata(docker::DROP_IN).and_then(|meta| meta.modified()).ok();
        DropIn { path: docker::DROP_IN, since: changed.map(timestamp), changed }
    });
    let (config, error) = crate::config::load();
    let (snapshot, report) = probe::report(&config, false);
    let backend = snapshot.backend.as_ref().map(|backend| BackendLine {
        name: backend_name(backend.variant),
        version: format!("{}.{}.{}", backend.version.0, backend.version.1, backend.version.2),
        because: report.chosen_because.clone(),
    });
    let mut notes: Vec<String> = error.iter().map(|error| format!("the configuration is not used: {error}")).collect();
    let carried = flush::here(&snapshot).unwrap_or_else(|error| {
        notes.push(format!("{error:#}"));
        Vec::new()
    });
    let carried: Vec<CarriedLine> = carried
        .into_iter()
        .map(|one| CarriedLine { family: one.family, table: one.table, carrier: one.carrier, rules: one.rules })
        .collect();
    let daemons = docker::processes("dockerd");
    let system = fronts.iter().all(|front| front.ours);
    let mut status = Status {
        system,
        docker: drop_in.is_some() && docker::obstacle().is_none() && docker::is_first(&places) != Some(false),
        dockerd: daemons.iter().map(|one| Daemon { pid: one.pid, since: one.since.map(timestamp) }).collect(),
        next: next(&fronts, drop_in.as_ref(), &places, &daemons),
        fronts,
        drop_in,
        backend,
        carried,
        notes,
    };
    status.notes.extend(warnings(&status));
    Ok(status)
}

fn front(name: &'static str, places: &Places, alternatives: Option<&Alternatives>, recorded: &Record) -> Front {
    let group = alternatives.and_then(|alternatives| alternatives.group_with(name));
    let link = group.map_or_else(|| in_path(name), |group| Some(link_of(group, name)));
    let leads_to = link.as_deref().and_then(|link| fs::canonicalize(link).ok());
    let this = fs::canonicalize("/proc/self/exe").ok();
    let ours = leads_to.is_some() && leads_to == this;
    let changed = fs::symlink_metadata(Path::new(LINKS).join(name)).and_then(|meta| meta.modified()).ok();
    let former = group.and_then(|group| recorded.0.get(&group.name)).filter(|_| ours);
    let alternative = group.filter(|group| group.name == name).and_then(|group| group.value.clone());
    let alternative = alternative.filter(|path| !ours || Some(path) != places.front(name).as_ref());
    Front {
        name,
        link,
        leads_to: alternative.or(leads_to),
        ours,
        mode: group.map(|group| if group.automatic { "auto" } else { "manual" }),
        since: changed.filter(|_| group.is_some()).map(timestamp),
        former: former.map(|Former { automatic, path }| {
            format!("{} ({})", path.display(), if *automatic { "automatic" } else { "chosen by hand" })
        }),
        changed: changed.filter(|_| group.is_some()),
    }
}

fn link_of(group: &Group, name: &str) -> PathBuf {
    let slave = group.slaves.iter().find(|slave| slave.name == name).map(|slave| slave.link.clone());
    slave.unwrap_or_else(|| group.link.clone())
}

/// Where dockerd would find it by itself.
fn in_path(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders.into_iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

fn next(fronts: &[Front], drop_in: Option<&DropIn>, places: &Places, daemons: &[Process]) -> Vec<String> {
    let mut next = Vec::new();
    let ours = fronts.iter().filter(|front| front.ours).count();
    if ours == 0 && drop_in.is_none() {
        let why = if record::is_off() { "it was disabled" } else { "it does not stand in front of iptables" };
        next.push(format!("{why}: sudo xtshim enable"));
    } else if ours == 1 {
        next.push("it stands in front of one of iptables and ip6tables only: sudo xtshim enable".to_owned());
    }
    if drop_in.is_some()
        && let Some(why) = docker::obstacle()
    {
        next.push(format!("the drop-in does nothing: {why}"));
    }
    let changed = fronts.iter().filter(|front| front.ours).filter_map(|front| front.changed);
    let last = changed.chain(drop_in.and_then(|drop_in| drop_in.changed)).max();
    let is_older = |daemon: &Process| daemon.since.zip(last).is_some_and(|(began, changed)| began < changed);
    let has_path = |daemon: &Process| docker::path_of(daemon.pid).map(|path| begins_with(&path, &places.private));
    let is_stale = |daemon: &Process| is_older(daemon) || has_path(daemon).is_some_and(|has| has != drop_in.is_some());
    if daemons.iter().any(is_stale) {
        next.push("dockerd runs since before that was changed: sudo systemctl restart docker".to_owned());
    }
    next
}

/// Whether a PATH begins with `folder`.
fn begins_with(path: &Path, folder: &Path) -> bool {
    path.to_string_lossy().split(':').next() == Some(&folder.to_string_lossy())
}

fn warnings(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    let nft = status.carried.iter().any(|carried| carried.carrier == "nft");
    if (status.system || status.docker || nft) && docker::nftables_is_in_use() && !Path::new(docker::FOLLOW).exists() {
        notes.push(
            "nftables.service is in use: whenever it is started, reloaded or stopped it takes carried rules away, until \
             Docker is restarted. `sudo xtshim enable --follow-nftables' has that done by itself"
                .to_owned(),
        );
    } else if nft {
        notes.push("`nft flush ruleset' takes carried rules away, until Docker is restarted".to_owned());
    }
    if status.fronts.iter().any(|front| !front.ours) && !status.carried.is_empty() && !status.docker {
        notes.push("what is carried is not listed by the iptables that is in use: xtshim flush --hand-back".to_owned());
    }
    notes.extend(takeover::doubled().iter().map(Doubled::clause));
    notes
}

fn print(status: &Status, out: &mut dyn Write) -> anyhow::Result<()> {
    for front in &status.fronts {
        let what = match (&front.link, &front.leads_to) {
            (None, _) => "not installed".to_owned(),
            (Some(link), _) if front.ours => format!("{} is xtshim", link.display()),
            (Some(link), Some(path)) => format!("{} is {}", link.display(), path.display()),
            (Some(link), None) => format!("{} leads nowhere", link.display()),
        };
        let mode = match front.mode {
            Some("auto") => ", the automatic choice",
            Some(_) => ", chosen by hand",
            None => "",
        };
        let since = front.since.as_ref().map(|since| format!(", since {since}")).unwrap_or_default();
        writeln!(out, "{:<9}  {}{mode}{since}", front.name, escape(&what))?;
        if let Some(former) = &front.former {
            writeln!(out, "           before: {}", escape(former))?;
        }
    }
    match &status.drop_in {
        Some(drop_in) => {
            let since = drop_in.since.as_ref().map(|since| format!(", since {since}")).unwrap_or_default();
            writeln!(out, "docker     finds xtshim first in its PATH{since} ({})", drop_in.path)?;
        }
        None => writeln!(out, "docker     finds what everybody finds")?,
    }
    for daemon in &status.dockerd {
        let since = daemon.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
        writeln!(out, "           dockerd runs{since} (pid {})", daemon.pid)?;
    }
    match &status.backend {
        Some(backend) => {
            let because = backend.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            writeln!(out, "behind it  iptables-{} {}{because}", backend.name, backend.version)?;
        }
        None => writeln!(out, "behind it  nothing: there is no iptables, every table is carried")?,
    }
    let mut title = "carried";
    for one in &status.carried {
        let rules = match one.rules {
            Some(1) => "1 rule".to_owned(),
            Some(number) => format!("{number} rules"),
            None => "rules that cannot be read".to_owned(),
        };
        writeln!(out, "{title:<9}  {} {}, {rules}, by {}", one.family, one.table, one.carrier)?;
        title = "";
    }
    if status.carried.is_empty() {
        writeln!(out, "carried    nothing in this network namespace")?;
    }
    for note in &status.notes {
        writeln!(out, "note       {}.", escape(note))?;
    }
    for next in &status.next {
        writeln!(out, "next       {}", escape(next))?;
    }
    Ok(())
}
