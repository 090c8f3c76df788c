//! `xtshim doctor`: what is wrong between this host's network and Docker.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::doctor::host::Host;
use crate::doctor::{self, Diagnosis, Finding, Severity};
use crate::journal::escape;
use anyhow::{Context, bail};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Command;

/// Name what is wrong between this host's network and Docker, prove it, and say what mends it.
///
/// Looks at the kernel, iptables, Docker, firewalld, bridges and rootless Docker, as they are at this moment, and changes
/// nothing without --fix. Each finding has what was seen of it. Some of it takes root; what could not be looked at is said.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo xtshim doctor
  sudo xtshim doctor --fix bridge-clash
  xtshim doctor --root /tmp/copy        a file tree that was copied off another host (docs/doctor.md)
  sudo xtshim doctor --json | jq -r '.findings[].name'

Exit codes: 0 nothing is wrong, 1 there are warnings, 2 there are errors (or the command line is wrong).")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Do what mends the finding of this name, after showing it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["root", "json"])]
    fix: Vec<String>,
    /// Look at a copied file tree instead of this host
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// Prints what was found, and mends what was asked for.
///
/// # Errors
/// A folder or a finding that is not there, a line that fails, a reader that went away.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    if let Some(root) = args.root.as_ref().filter(|root| !root.is_dir()) {
        bail!("{} is no folder", root.display());
    }
    if let Some(name) = args.fix.iter().find(|name| !doctor::is_known(name)) {
        bail!("there is no finding `{name}`");
    }
    let diagnosis = doctor::examine(&Host::new(args.root.as_deref()));
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&diagnosis)?)?;
    } else if args.fix.is_empty() {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Page { out, colour }.print(&diagnosis)?;
    } else {
        for name in &args.fix {
            fix(&diagnosis, name, out)?;
        }
        return Ok(Outcome::Well);
    }
    Ok(match diagnosis.severity() {
        None | Some(Severity::Note) => Outcome::Well,
        Some(Severity::Warning) => Outcome::NotWell,
        Some(Severity::Error) => Outcome::Broken,
    })
}

/// Mends every finding of that name.
fn fix(diagnosis: &Diagnosis, name: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let found: Vec<&Finding> = diagnosis.findings.iter().filter(|finding| finding.name == name).collect();
    if found.is_empty() {
        writeln!(out, "{name}: not found here, nothing to do")?;
    }
    for finding in found {
        if finding.undo.is_empty() {
            bail!("`{name}` is not mended without you; see what `xtshim doctor` says to do");
        }
        writeln!(out, "{name}: {}", escape(&finding.what))?;
        finding.mend.iter().try_for_each(|line| writeln!(out, "  does   {}", escape(line)))?;
        finding.undo.iter().try_for_each(|line| writeln!(out, "  undo   {}", escape(line)))?;
        out.flush()?;
        for line in &finding.mend {
            let status = Command::new("/bin/sh").args(["-c", line]).status().context("cannot start a shell")?;
            if !status.success() {
                bail!("`{line}` has failed: {status}");
            }
        }
        writeln!(out, "  done")?;
    }
    Ok(())
}

/// The report for a person.
struct Page<'a> {
    out: &'a mut dyn Write,
    colour: bool,
}

impl Page<'_> {
    fn print(&mut self, diagnosis: &Diagnosis) -> io::Result<()> {
        for (title, line) in &diagnosis.host {
            writeln!(self.out, "{title:<14} {}", escape(line))?;
        }
        for finding in &diagnosis.findings {
            self.finding(finding)?;
        }
        if !diagnosis.unchecked.is_empty() {
            writeln!(self.out, "\nNot looked at")?;
        }
        for one in &diagnosis.unchecked {
            writeln!(self.out, "  {}: {}", escape(&one.what), escape(&one.why))?;
        }
        let count = |severity: Severity| diagnosis.findings.iter().filter(|one| one.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        match (errors, warnings) {
            (0, 0) => writeln!(self.out, "\nNothing is wrong."),
            _ => writeln!(
                self.out,
                "\n{errors} {}, {warnings} {}.",
                plural(errors, "error"),
                plural(warnings, "warning")
            ),
        }
    }

    fn finding(&mut self, finding: &Finding) -> io::Result<()> {
        let (word, colour) = match finding.severity {
            Severity::Error => ("error", "\x1b[1;31m"),
            Severity::Warning => ("warning", "\x1b[1;33m"),
            Severity::Note => ("note", "\x1b[1;36m"),
        };
        let (colour, end) = if self.colour { (colour, "\x1b[0m") } else { ("", "") };
        writeln!(self.out, "\n{colour}{word}{end} {}: {}", finding.name, escape(&finding.what))?;
        let mut title = "seen";
        for line in &finding.evidence {
            writeln!(self.out, "  {title:<5} {}", escape(line))?;
            title = "";
        }
        title = "why";
        for line in wrapped(&escape(&finding.why)) {
            writeln!(self.out, "  {title:<5} {line}")?;
            title = "";
        }
        title = "do";
        for line in &finding.mend {
            writeln!(self.out, "  {title:<5} {}", escape(line))?;
            title = "";
        }
        if !finding.undo.is_empty() {
            writeln!(self.out, "  {:<5} xtshim doctor --fix {}", "or", finding.name)?;
        }
        Ok(())
    }
}

/// How wide sentences are printed, in characters.
const WIDTH: usize = 100;

/// A sentence in lines. Evidence and commands stay whole, so that they can be copied.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}
