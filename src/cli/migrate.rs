//! `xtshim migrate docker-user`: from iptables' DOCKER-USER to a table of nftables.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::doctor::host::Host;
use crate::doctor::{Diagnosis, Facts, Held, Source};
use crate::family::Family;
use crate::journal::escape;
use crate::migrate::{self, Mark, Moved, TABLE};
use crate::nft::{Connection, text};
use anyhow::{Context, anyhow, bail};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// Docker takes packets that bear a mark.
const MARK_SINCE: &str = "29.0.0";

/// Where a daemon keeps that it is part of a swarm.
const SWARM: &str = crate::doctor::SWARM;

/// Move rules from iptables to where Docker's nftables backend heeds them.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    DockerUser(DockerUser),
}

/// Print DOCKER-USER, and the chains that it leads to, as a table of nftables before Docker's own.
///
/// Both families. Drops and rejects are as they are, RETURN ends the chain. ACCEPT becomes a mark, because an accept in
/// nftables does not keep a packet from the chains behind: dockerd must be told to take packets that bear it, which it
/// can from 29.0.0 on. What is printed is a file for `nft -f`; a checklist for the move is in its comments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo xtshim migrate docker-user                    look first
  sudo xtshim migrate docker-user --apply            load it, in one transaction; again as often as you like
  sudo xtshim migrate docker-user --output /etc/xtshim/before-docker.nft

Exit codes: 0 all of it can be said (and was done), 1 not, 2 the command line is wrong.")]
struct DockerUser {
    /// The mark that stands for ACCEPT; else a bit that nothing here has a use for
    #[arg(long, value_name = "N[/MASK]")]
    fwmark: Option<String>,
    /// Load the table
    #[arg(long)]
    apply: bool,
    /// Write the file there instead of printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints or applies it.
///
/// # Errors
/// What cannot be said, each rule of it; a daemon that is too old; what the kernel refuses.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let What::DockerUser(args) = &args.what;
    let host = Host::new(None);
    let facts = Facts::gather(&host, &mut Diagnosis::default());
    if !facts.rules_known {
        bail!("the rules of iptables are not to be read (root?)");
    }
    let mut tables: Vec<&Held> = Vec::new();
    for family in Family::ALL {
        let all: Vec<&Held> = facts.held(family, "filter").filter(|held| migrate::says_something(held)).collect();
        if let [one, other, ..] = all.as_slice() {
            let (one, other) = (one.source.program(family), other.source.program(family));
            bail!("{one} and {other} both hold rules in {}; see xtshim doctor", migrate::CHAIN);
        }
        tables.extend(all);
    }
    if tables.is_empty() {
        writeln!(out, "# {} holds no rules here: there is nothing to move.", migrate::CHAIN)?;
        return Ok(Outcome::Well);
    }
    let mark = mark(args, &facts)?;
    let mut moved = Vec::new();
    let mut obstacles = Vec::new();
    for held in tables {
        match migrate::translate(held, mark) {
            Ok(one) => moved.push(one),
            Err(found) => obstacles.extend(found.into_iter().map(|one| (held.family, one))),
        }
    }
    if !obstacles.is_empty() {
        let line = |(family, one): &(Family, migrate::Obstacle)| {
            format!("\n  {} {}\n    {}", family.program(), escape(&one.rule), escape(&one.why))
        };
        let lines: String = obstacles.iter().map(line).collect();
        bail!("these rules cannot be said in nftables, so nothing is moved:{lines}");
    }
    let batch = migrate::batch(&moved);
    let lines = text::commands(&batch).map_err(|problem| anyhow!("nft has no words for it: {problem}"))?;
    let steps = steps(&facts, &moved, mark, args.apply);
    let file = page(&facts, &lines, &moved, mark, &steps)?;
    let accepts: usize = moved.iter().map(|one| one.accepts).sum();
    if args.apply {
        if accepts > 0 && !facts.docker.is_since(MARK_SINCE) {
            let is = facts.docker.said.as_deref().unwrap_or("not known here");
            bail!(
                "{accepts} of the rules ACCEPT, which only Docker {MARK_SINCE} and later can be told of (--bridge-accept-fwmark); \
                 Docker is: {}. Nothing is changed",
                escape(is)
            );
        }
        let mut connection = Connection::open().context("cannot speak to nf_tables")?;
        connection.commit(batch, None).map_err(|error| match error.in_doubt {
            true => anyhow!("{error}: `nft list ruleset` shows it"),
            false => anyhow!("the kernel refuses it: {error}. Nothing is changed"),
        })?;
    }
    if let Some(path) = &args.output {
        fs::write(path, &file).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(out, "# written to {}", path.display())?;
    }
    if args.apply {
        for one in &moved {
            writeln!(out, "# table {} {TABLE}: {} rules are in force", one.family.nft(), one.rules)?;
        }
    }
    if args.apply || args.output.is_some() {
        out.write_all(checklist(&steps)?.as_bytes())?;
    } else {
        out.write_all(file.as_bytes())?;
    }
    Ok(Outcome::Well)
}

/// The one that is asked for, the one that dockerd heeds already, or a free one.
fn mark(args: &DockerUser, facts: &Facts<'_>) -> anyhow::Result<Mark> {
    if let Some(text) = &args.fwmark {
        return Mark::parse(text).ok_or_else(|| anyhow!("`{text}` is no mark: N or N/MASK, N not 0 and within MASK"));
    }
    let heeded = facts.docker.setting("bridge-accept-fwmark").and_then(|(text, _)| Mark::parse(&text));
    if let Some(mark) = heeded {
        return Ok(mark);
    }
    let ruleset = facts.host.said(&["nft", "list", "ruleset"]).unwrap_or_default();
    let mut texts: Vec<String> = Vec::new();
    let mut own = false;
    for line in ruleset.lines() {
        if line.starts_with("table ") {
            own = line.ends_with(&format!(" {TABLE} {{"));
        }
        texts.extend((!own && line.contains("mark")).then(|| line.to_owned()));
    }
    let routing = [&["ip", "rule", "show"][..], &["ip", "-6", "rule", "show"]];
    texts.extend(routing.iter().filter_map(|words| facts.host.said(words)));
    migrate::free_mark(&facts.tables, &texts).context("every bit of the mark is in use; name one with --fwmark")
}

/// Something that the move takes beside the rules.
struct Step {
    /// `None`: not to be found out here.
    done: Option<bool>,
    what: String,
    todo: Option<String>,
}

fn steps(facts: &Facts<'_>, moved: &[Moved], mark: Mark, applied: bool) -> Vec<Step> {
    let docker = &facts.docker;
    let mut steps = Vec::new();
    let mut step = |done: Option<bool>, what: String, todo: Option<&str>| {
        let todo = todo.filter(|_| done != Some(true)).map(str::to_owned);
        steps.push(Step { done, what, todo });
    };
    let since = (!docker.version.is_empty()).then(|| docker.is_since(MARK_SINCE));
    let is = docker.said.as_deref().unwrap_or("Docker's version is not known here");
    step(since, format!("Docker {MARK_SINCE} or later: {is}"), Some("upgrade Docker"));
    let swarm = facts.host.has(SWARM);
    step(
        Some(!swarm),
        format!("no swarm: {SWARM} is {}", if swarm { "there" } else { "not there" }),
        Some("docker swarm leave --force"),
    );
    let there = moved.iter().all(|one| applied || migrate::is_applied(one.family));
    step(Some(there), format!("table {TABLE} is loaded"), Some("xtshim migrate docker-user --apply"));
    let backend = docker.uses_nftables();
    let place = backend.clone().unwrap_or_else(|| "not set".to_owned());
    step(
        Some(backend.is_some()),
        format!("the backend is nftables: {place}"),
        Some("/etc/docker/daemon.json: \"firewall-backend\": \"nftables\""),
    );
    if moved.iter().any(|one| one.accepts > 0) {
        let set = docker.setting("bridge-accept-fwmark");
        let right = set.as_ref().is_some_and(|(text, _)| Mark::parse(text) == Some(mark));
        let place = set.map_or_else(|| "not set".to_owned(), |(_, place)| place);
        let key = format!("/etc/docker/daemon.json: \"bridge-accept-fwmark\": \"{mark}\"");
        step(Some(right), format!("Docker accepts what bears the mark {mark}: {place}"), Some(&key));
    }
    for family in Family::ALL {
        let dropping = facts.held(family, "filter").find(|held| held.policy("FORWARD") == Some("DROP"));
        let state = if dropping.is_some() { "DROP" } else { "ACCEPT" };
        let source = dropping.map_or(Source::Carried, |held| held.source);
        let program = match source {
            Source::Carried => family.program().to_owned(),
            Source::Backend(_) => source.program(family),
        };
        let todo =
            format!("{program} -P FORWARD ACCEPT    # and say in a table of your own what else may be forwarded");
        step(Some(dropping.is_none()), format!("FORWARD of {} accepts: {state}", family.program()), Some(&todo));
    }
    for (file, key) in [
        ("/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
    ] {
        let value = facts.host.line(file);
        let kept = kept(facts, key);
        let forwards = value.as_ref().map(|value| value != "0" && kept.is_some());
        let todo = format!("sysctl -w {key}=1 && echo {key}=1 > /etc/sysctl.d/90-docker.conf");
        let place = kept.map_or_else(|| "not kept for the next boot".to_owned(), |file| format!("kept in {file}"));
        step(forwards, format!("{key} is {}, {place}", value.as_deref().unwrap_or("unknown")), Some(&todo));
    }
    steps
}

/// The file that keeps a setting for the next boot.
fn kept(facts: &Facts<'_>, key: &str) -> Option<String> {
    let folders = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/lib/sysctl.d"];
    let files = folders.iter().flat_map(|folder| facts.host.files(folder, ".conf"));
    let says = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or_default();
        name.trim().replace('/', ".") == key && value.trim() != "0"
    };
    files
        .chain(["/etc/sysctl.conf".to_owned()])
        .find(|file| facts.host.text(file).is_some_and(|text| text.lines().any(says)))
}

fn checklist(steps: &[Step]) -> anyhow::Result<String> {
    let mut text = String::from("#\n# The move to Docker's nftables backend:\n");
    for step in steps {
        let state = match step.done {
            Some(true) => "done ",
            Some(false) => "to do",
            None => "?    ",
        };
        writeln!(text, "#   {state}  {}", escape(&step.what))?;
        if let Some(todo) = &step.todo {
            writeln!(text, "#          {}", escape(todo))?;
        }
    }
    text.push_str("#   Then restart Docker. FORWARD's jump to DOCKER-USER stays until the next boot, and its rules act twice until then:\n");
    text.push_str("#          iptables -D FORWARD -j DOCKER-USER; ip6tables -D FORWARD -j DOCKER-USER\n");
    Ok(text)
}

/// The file, for nft and for people.
fn page(facts: &Facts<'_>, lines: &[String], moved: &[Moved], mark: Mark, steps: &[Step]) -> anyhow::Result<String> {
    let mut page = String::from("#!/usr/sbin/nft -f\n# DOCKER-USER of iptables, in a table before Docker's own.\n");
    for one in moved {
        let accepts = if one.accepts > 0 {
            format!(", of which {} accept by the mark {mark}", one.accepts)
        } else {
            String::new()
        };
        writeln!(page, "# {}: {} rules{accepts}", one.family.program(), one.rules)?;
        one.remarks.iter().try_for_each(|remark| writeln!(page, "# {}", escape(remark)))?;
    }
    page.push('\n');
    lines.iter().try_for_each(|line| writeln!(page, "{line}"))?;
    page.push('\n');
    page.push_str(&checklist(steps)?);
    if facts.host.is_live() {
        page.push_str(PERSISTENT);
    }
    Ok(page)
}

const PERSISTENT: &str = "\
#
# To have it at each boot: keep this file as /etc/xtshim/before-docker.nft (--output), and either
#   include \"/etc/xtshim/before-docker.nft\"          in /etc/nftables.conf, behind its `flush ruleset`
# or /etc/systemd/system/before-docker.service:
#   [Unit]
#   Before=docker.service
#   After=nftables.service
#   [Service]
#   Type=oneshot
#   RemainAfterExit=yes
#   ExecStart=/usr/sbin/nft -f /etc/xtshim/before-docker.nft
#   [Install]
#   WantedBy=multi-user.target
";
