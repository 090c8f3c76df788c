//! `xtshim log`: the journal of rewrites, for a person or a program.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::journal::{Record, ascii_json, escape};
use anyhow::{Context, bail};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How often a followed journal is looked at. A person is waiting, and the machine may be small.
const PAUSE: Duration = Duration::from_millis(300);

/// Show what was rewritten, when, for whom and why.
///
/// Reads the journal file that the configuration names (/var/log/xtshim/rewrites.jsonl unless it says otherwise).
/// The same is in the system's journal: journalctl -t xtshim
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  xtshim log                    all that the journal file holds
  xtshim log -f                 and what comes, until Ctrl-C
  xtshim log --json | jq -r 'select(.result != \"ok\") | .command'")]
pub struct Args {
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Print the JSON lines as they stand in the file
    #[arg(long)]
    json: bool,
}

/// Prints the journal.
///
/// # Errors
/// A bad configuration, a journal that is turned off or not ours to read, a reader that went away.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let (config, error) = crate::config::load();
    if let Some(error) = error {
        return Err(error.into());
    }
    let Some(path) = config.journal.file else {
        bail!("the configuration turns the journal file off; try `journalctl -t xtshim`");
    };
    let mut file = open(&path)?;
    let mut reader = Reader { json: args.json, ..Reader::default() };
    match &mut file {
        Some(file) => reader.read(file, out)?,
        None => tell_absence(&path),
    }
    if args.follow {
        follow(&path, file, &mut reader, out)?;
    }
    reader.tell_strange();
    Ok(Outcome::Well)
}

fn open(path: &Path) -> anyhow::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn tell_absence(path: &Path) {
    let _ = writeln!(io::stderr().lock(), "xtshim: nothing has been rewritten yet (there is no {})", path.display());
}

/// Turns lines into what is printed.
#[derive(Debug, Default)]
struct Reader {
    json: bool,
    /// The beginning of a line that is still being written.
    begun: Vec<u8>,
    /// Lines that were no records.
    strange: usize,
}

impl Reader {
    /// Prints every whole line up to the present end.
    fn read(&mut self, file: &mut impl BufRead, out: &mut dyn Write) -> io::Result<()> {
        while file.read_until(b'\n', &mut self.begun)? > 0 && self.begun.ends_with(b"\n") {
            let line = std::mem::take(&mut self.begun);
            self.print(&line, out)?;
        }
        Ok(())
    }

    fn print(&mut self, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        match serde_json::from_str::<Record>(&text) {
            Ok(_) if self.json => writeln!(out, "{}", ascii_json(text.trim_end())),
            Ok(record) => write!(out, "{}", for_a_person(&record)),
            Err(_) => {
                self.strange += 1;
                Ok(())
            }
        }
    }

    fn tell_strange(&self) {
        if self.strange > 0 {
            let _ = writeln!(io::stderr().lock(), "xtshim: lines of the journal that are no records: {}", self.strange);
        }
    }
}

/// Four lines or more: who and when, what was asked for, what was applied and why, how it ended.
fn for_a_person(record: &Record) -> String {
    let Record { time, pid, caller, netns, family, table, carrier, .. } = record;
    let mut lines = vec![
        format!("{time}  {caller}[{pid}]  net:[{netns}]"),
        format!("  asked    {}", record.command),
        format!("  because  {}", record.why),
    ];
    for (number, command) in record.applied.iter().enumerate() {
        let label = if number == 0 { "applied" } else { "" };
        lines.push(format!("  {label:7}  {command}"));
    }
    let place = if table.is_empty() { String::new() } else { format!(" ({family} {table} carried by {carrier})") };
    lines.push(format!("  result   {}{place}", record.result));
    lines.iter().map(|line| escape(line) + "\n").collect()
}

/// Prints what is appended, for ever. When the file is replaced, as logrotate does, goes over to the new one once the
/// old one is read to its end; when it is emptied in place, begins again.
fn follow(
    path: &Path,
    mut file: Option<BufReader<File>>,
    reader: &mut Reader,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    loop {
        out.flush()?;
        std::thread::sleep(PAUSE);
        // Looked at before the old one is read: what was written to it until then is not lost.
        let replaced = is_another(path, file.as_ref());
        if let Some(file) = &mut file {
            if file.stream_position()? > file.get_ref().metadata()?.len() {
                reader.begun.clear();
                file.rewind()?;
            }
            reader.read(file, out)?;
        }
        if replaced {
            reader.begun.clear();
            file = open(path)?;
            if let Some(file) = &mut file {
                reader.read(file, out)?;
            }
        }
    }
}

/// Whether `path` now names another file than the open one.
fn is_another(path: &Path, file: Option<&BufReader<File>>) -> bool {
    let identity = |is: std::fs::Metadata| (is.dev(), is.ino());
    let open = file.and_then(|file| file.get_ref().metadata().ok()).map(identity);
    let named = std::fs::metadata(path).ok().map(identity);
    named.is_some() && named != open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            time: "2026-11-21T02:04:11.123Z".to_owned(),
            pid: 812,
            caller: "dockerd".to_owned(),
            netns: 4_026_531_840,
            front: "iptables".to_owned(),
            command: "iptables --wait -t raw -A PREROUTING -m comment --comment 'a\nb\u{1b}[2J' -j DROP".to_owned(),
            family: "ip".to_owned(),
            table: "raw".to_owned(),
            carrier: "nft".to_owned(),
            applied: vec!["add table ip xtshim-raw".to_owned(), "add rule …".to_owned()],
            why: "the kernel has no iptable_raw".to_owned(),
            result: "ok".to_owned(),
        }
    }

    fn printed(json: bool, text: &str) -> (String, usize) {
        let mut reader = Reader { json, ..Reader::default() };
        let mut out = Vec::new();
        reader.read(&mut text.as_bytes(), &mut out).unwrap();
        (String::from_utf8(out).unwrap(), reader.strange)
    }

    #[test]
    fn a_person_reads_who_what_and_why_and_no_control_byte() {
        let line = serde_json::to_string(&record()).unwrap() + "\n";
        let (text, strange) = printed(false, &line);
        assert_eq!(strange, 0);
        assert_eq!(
            text,
            "2026-11-21T02:04:11.123Z  dockerd[812]  net:[4026531840]\n  \
             asked    iptables --wait -t raw -A PREROUTING -m comment --comment 'a\\nb\\x1b[2J' -j DROP\n  \
             because  the kernel has no iptable_raw\n  \
             applied  add table ip xtshim-raw\n           add rule …\n  \
             result   ok (ip raw carried by nft)\n"
        );
    }

    #[test]
    fn a_program_reads_the_same_records() {
        let line = serde_json::to_string(&record()).unwrap() + "\n";
        let (text, _) = printed(true, &line);
        assert!(text.is_ascii());
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record());
    }

    #[test]
    fn torn_lines_are_counted_and_unfinished_ones_awaited() {
        let line = serde_json::to_string(&record()).unwrap();
        let (text, strange) = printed(true, &format!("{}\n\u{1b}[2J\n{line}\n{line}", &line[..20]));
        assert_eq!((text.lines().count(), strange), (1, 2));

        let mut reader = Reader { json: true, ..Reader::default() };
        let mut out = Vec::new();
        reader.read(&mut &line.as_bytes()[..30], &mut out).unwrap();
        assert!(out.is_empty());
        reader.read(&mut format!("{}\n", &line[30..]).as_bytes(), &mut out).unwrap();
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(reader.strange, 0);
    }
}
