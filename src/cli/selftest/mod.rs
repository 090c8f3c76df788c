//! `xtshim selftest`: does Docker work here? In a throwaway network, everything that Docker says to iptables is said to
//! our own fronts, each as a program of its own, and packets are sent against the rules that matter.

#![forbid(unsafe_code)]

mod fronts;
mod packets;
mod vocabulary;

use super::Outcome;
use crate::family::Family;
use crate::rules;
use crate::sys::netns::{Isolation, Namespace, cover, isolate_process};
use anyhow::Context;
use fronts::Fronts;
use std::io::{self, Write};

/// Try whether Docker 28 would work here, in a throwaway network.
///
/// Makes network namespaces of its own, says to iptables there what Docker says, checks every answer, and sends packets
/// from one namespace to another. Nothing outside is touched, and nothing is left behind. Takes a few seconds.
///
/// Root is not needed where unprivileged user namespaces are allowed, but only for root does the kernel load modules
/// that are on disk and not loaded yet.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit codes: 0 Docker 28 would work here, 1 it would not (or it could not be tried), 2 the command line is wrong.")]
pub struct Args {
    /// Show each command with its answer
    #[arg(short, long)]
    verbose: bool,
}

/// Tries everything, and says what it found.
///
/// # Errors
/// A bad configuration, or a reader that went away. What does not work is no error but the outcome.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let settings = fronts::settings_without_journal()?;
    let isolation = match isolate_process() {
        Ok(isolation) => isolation,
        Err(error) => return explain_isolation(out, &error),
    };
    if isolation == Isolation::UserAndNetwork {
        writeln!(out, "Without root's privileges no kernel module is loaded: what is missing below, root may have.\n")?;
    }
    if let Err(error) = cover("/run") {
        log::debug!("cannot cover /run: {error}; the lock and cache files there are the machine's own");
    }
    let mut fronts = Fronts::new(settings, args.verbose);
    let mut report = Report { out, failures: 0 };
    try_all(&mut fronts, &mut report)?;
    report.verdict()
}

fn explain_isolation(out: &mut dyn Write, error: &io::Error) -> anyhow::Result<Outcome> {
    writeln!(out, "This test takes a throwaway network namespace, and the system does not let us make one: {error}.")?;
    if nix::unistd::geteuid().is_root() {
        writeln!(
            out,
            "Inside a container that takes CAP_SYS_ADMIN, and a security profile that allows unshare and mount."
        )?;
    } else {
        writeln!(out, "Unprivileged user namespaces are turned off here. As root it will work: sudo xtshim selftest")?;
    }
    Ok(Outcome::NotWell)
}

fn try_all(fronts: &mut Fronts, report: &mut Report<'_>) -> anyhow::Result<()> {
    let release = rules::docker().release();
    let version = Namespace::current().map(|here| fronts.version(&here)).context("no network namespace")?;
    writeln!(report.out, "What Docker {release} says to iptables, said to {version}:\n")?;
    for family in Family::ALL {
        if family == Family::V6 && !std::path::Path::new("/proc/net/if_inet6").exists() {
            report.line(Status::Skipped, family, "the kernel has no IPv6, or it is turned off")?;
            continue;
        }
        let names = Namespace::create().context("no network namespace")?;
        if !vocabulary::docker_uses(family, fronts, &names, report)? {
            continue;
        }
        for table in rules::tables() {
            vocabulary::play(family, &table.name, fronts, &names, report)?;
        }
        packets::send_all(family, fronts, report)?;
    }
    Ok(())
}

/// How one thing went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Works,
    /// Docker needs it.
    Fails,
    /// Docker does without, unless it is asked for.
    Absent,
    Skipped,
}

/// What is printed, and the sum of it.
struct Report<'a> {
    out: &'a mut dyn Write,
    failures: usize,
}

impl Report<'_> {
    fn line(&mut self, status: Status, family: Family, text: &str) -> io::Result<()> {
        let sign = match status {
            Status::Works => "ok",
            Status::Fails => "FAIL",
            Status::Absent => "absent",
            Status::Skipped => "skipped",
        };
        self.failures += usize::from(status == Status::Fails);
        let family = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        writeln!(self.out, "  {sign:7} {family}  {text}")?;
        self.out.flush()
    }

    /// More about the line before.
    fn detail(&mut self, text: &str) -> io::Result<()> {
        text.lines().try_for_each(|line| writeln!(self.out, "{:22}{}", "", crate::journal::escape(line)))
    }

    fn verdict(self) -> anyhow::Result<Outcome> {
        let release = rules::docker().release();
        if self.failures == 0 {
            writeln!(self.out, "\nDocker {release} works on this machine behind xtshim.")?;
            return Ok(Outcome::Well);
        }
        writeln!(self.out, "\nDocker {release} would not work on this machine: {} of the above fail.", self.failures)?;
        writeln!(self.out, "`xtshim probe` says what is missing; `xtshim selftest -v` shows each command.")?;
        Ok(Outcome::NotWell)
    }
}
