//! The journal of rewrites: what a caller asked for, what was applied instead, and why.
//!
//! A front must not say a word of this on its own streams (dockerd takes any byte for a failure), and a rewrite that
//! could not be journaled is still in force. So nothing here fails, prints or waits: a destination that does not take
//! the record at once goes without it.

#![forbid(unsafe_code)]

use crate::config::JournalConfig;
use crate::family::Family;
use crate::nft::text::Told;
use crate::sys::privilege;
use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// systemd-journald's native datagram socket (systemd.io, "Native Journal Protocol").
const JOURNALD: &str = "/run/systemd/journal/socket";

/// The local syslog daemon's datagram socket (syslog(3)).
const SYSLOG: &str = "/dev/log";

/// Tells our journald entries from all others, whatever their text (systemd.journal-fields(7), `MESSAGE_ID`).
const MESSAGE_ID: &str = "8d1f3a5c0b6e4d7f9a2c41e65b70d93a";

/// Facility daemon (3), severity notice (5): RFC 3164, section 4.1.1.
const SYSLOG_PRIORITY: u8 = 3 * 8 + 5;

/// The longest packet that RFC 3164, section 4.1, allows, in bytes.
const SYSLOG_MAX: usize = 1024;

/// Longest original command that is kept, in bytes.
const COMMAND_MAX: usize = 8 * 1024;

/// Longest reason or error text that is kept, in bytes.
const TEXT_MAX: usize = 2 * 1024;

/// How much of what was applied is kept, in bytes: a datagram must stay well below the default socket buffer.
const APPLIED_MAX: usize = 48 * 1024;

/// One rewritten command, as a front knows it.
#[derive(Clone, Debug)]
pub struct Rewrite<'a> {
    /// The front that was called (`iptables`, `ip6tables-restore`, …).
    pub front: &'a str,
    /// The original arguments, the program's name not included.
    pub args: &'a [String],
    /// Family of the table.
    pub family: Family,
    /// The iptables table (`raw`); empty where the record is about none, but about the front itself.
    pub table: &'a str,
    /// What holds the table's rules (`nft`, `mangle`, `filter`).
    pub carrier: &'a str,
    /// What was applied.
    pub applied: Told,
    /// Why the backend was not used, one clause.
    pub why: &'a str,
    /// How it ended: the error as the caller was told.
    pub result: Result<(), String>,
}

/// One line of the journal file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// Process id of the caller, as seen from the front's own pid namespace.
    pub pid: i32,
    /// The caller's command name (proc_pid_comm(5)); empty where it could not be read.
    pub caller: String,
    /// Inode number of the network namespace that was changed (namespaces(7)); 0 where it could not be read.
    pub netns: u64,
    /// The front that was called.
    pub front: String,
    /// The original command, quoted for a POSIX shell.
    pub command: String,
    /// `ip` or `ip6`.
    pub family: String,
    /// The iptables table.
    pub table: String,
    /// What holds the table's rules.
    pub carrier: String,
    /// What was applied, in nft syntax, control characters escaped.
    pub applied: Vec<String>,
    /// Why it was rewritten.
    pub why: String,
    /// `ok`, or what the caller was told.
    pub result: String,
}

/// Journals one rewrite wherever the configuration says. Never fails, prints or blocks.
pub fn record(config: &JournalConfig, rewrite: &Rewrite<'_>) {
    let record = Record::now(rewrite);
    if let Some(path) = &config.file {
        // A rewrite stands whether or not it could be journaled (see the module's description).
        let _ = append(path, &record);
    }
    if config.system {
        let _ = send(Path::new(JOURNALD), &native_datagram(&record))
            .or_else(|_| send(Path::new(SYSLOG), &syslog_datagram(&record)));
    }
}

impl Record {
    fn now(rewrite: &Rewrite<'_>) -> Self {
        let pid = nix::unistd::getppid().as_raw();
        Self {
            time: timestamp(SystemTime::now()),
            pid,
            caller: command_name(pid),
            netns: fs::metadata("/proc/thread-self/ns/net").map_or(0, |namespace| namespace.ino()),
            front: rewrite.front.to_owned(),
            command: cut(&quote_command(rewrite.front, rewrite.args), COMMAND_MAX),
            family: rewrite.family.nft().to_owned(),
            table: cut(rewrite.table, TEXT_MAX),
            carrier: rewrite.carrier.to_owned(),
            applied: bounded(&rewrite.applied),
            why: cut(rewrite.why, TEXT_MAX),
            result: match &rewrite.result {
                Ok(()) => "ok".to_owned(),
                Err(text) => cut(text.trim_end(), TEXT_MAX),
            },
        }
    }

    /// The record on one line for a person, control characters escaped.
    pub fn summary(&self) -> String {
        let mut line = format!("[{}] {} => ", self.caller, self.command);
        match self.result.as_str() {
            "ok" => {
                let _ = write!(line, "{} ({}): {}", self.carrier, self.why, self.applied.join("; "));
            }
            error => {
                let _ = write!(line, "failed ({}): {error}", self.why);
            }
        }
        escape(&line)
    }

    /// One line of JSON, newline included.
    fn json_line(&self) -> serde_json::Result<String> {
        Ok(ascii_json(&serde_json::to_string(self)?) + "\n")
    }
}

/// The same JSON in printable ASCII alone, so that no terminal takes part of it for a control sequence.
pub fn ascii_json(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\x7f' {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// The command as it can be pasted into a shell. What no shell can say is shown escaped.
fn quote_command(front: &str, args: &[String]) -> String {
    let words = std::iter::once(front).chain(args.iter().map(String::as_str));
    let quoted = words.map(|word| shlex::try_quote(word).map_or_else(|_| escape(word), |quoted| quoted.into_owned()));
    quoted.collect::<Vec<_>>().join(" ")
}

/// As many commands as fit, and how many did not.
fn bounded(Told { lines: applied, more }: &Told) -> Vec<String> {
    let mut kept = Vec::new();
    let mut room = APPLIED_MAX;
    for (number, command) in applied.iter().enumerate() {
        let command = cut(&escape(command), COMMAND_MAX);
        if command.len() > room {
            kept.push(format!("… {} more", applied.len() - number + more));
            return kept;
        }
        room -= command.len();
        kept.push(command);
    }
    if *more > 0 {
        kept.push(format!("… {more} more"));
    }
    kept
}

/// At most `max` bytes of `text`, and a sign where it was cut.
fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

/// Makes characters visible that a terminal or a log viewer would act on: control characters, line separators and
/// those that reorder text. All others, the backslash too, stay as they are.
pub fn escape(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => visible.push_str("\\n"),
            '\t' => visible.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(visible, "\\x{:02x}", u32::from(c));
            }
            c if acts_on_a_terminal(c) => {
                let _ = write!(visible, "\\u{{{:x}}}", u32::from(c));
            }
            c => visible.push(c),
        }
    }
    visible
}

/// C1 controls, line and paragraph separators, and the bidirectional controls (Unicode Standard Annex 9, section 2).
fn acts_on_a_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The command name of a process, escaped; empty where /proc does not tell.
fn command_name(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    escape(String::from_utf8_lossy(&name).trim_end_matches('\n'))
}

/// RFC 3339 in UTC, with milliseconds.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let february = days_of(year) - 337;
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    (year, month + 1, days + 1)
}

/// Days in a year.
fn days_of(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

/// Appends the record to the journal file, whole. The file's folder is made if it alone is missing.
fn append(path: &Path, record: &Record) -> io::Result<()> {
    let line = record.json_line()?;
    let mut file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(path)?;
            open(path)?
        }
        other => other?,
    };
    refuse_strange(&file, line.len())?;
    // Appended in one write, two fronts' lines never mix (write(2), O_APPEND).
    if file.write(line.as_bytes())? < line.len() {
        // Only a full disk cuts a line; ended here, it does not spoil the next one.
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// Opens without following a link, and without waiting where someone has put a FIFO.
fn open(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(flags);
    privilege::if_denied(|| options.open(path))
}

fn make_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    DirBuilder::new().mode(0o750).create(folder)
}

/// Refuses what is not a plain file of our own, and what would raise SIGXFSZ (setrlimit(2), RLIMIT_FSIZE).
fn refuse_strange(file: &File, more: usize) -> io::Result<()> {
    let is = file.metadata()?;
    let ours = is.is_file() && is.nlink() == 1 && is.uid() == nix::unistd::geteuid().as_raw();
    if !ours || is.mode() & 0o022 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if is.len().saturating_add(more as u64) > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

/// Sends one datagram, or gives up at once (the standard library sends with MSG_NOSIGNAL).
fn send(socket: &Path, datagram: &[u8]) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to(datagram, socket).map(drop)
}

/// The record in journald's native protocol.
fn native_datagram(record: &Record) -> Vec<u8> {
    let mut datagram = Vec::new();
    let pid = record.pid.to_string();
    let netns = record.netns.to_string();
    let applied = record.applied.join("\n");
    let fields: [(&str, &str); 15] = [
        ("MESSAGE", &record.summary()),
        ("MESSAGE_ID", MESSAGE_ID),
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "xtshim"),
        ("XTSHIM_CALLER_PID", &pid),
        ("XTSHIM_CALLER", &record.caller),
        ("XTSHIM_NETNS", &netns),
        ("XTSHIM_FRONT", &record.front),
        ("XTSHIM_COMMAND", &record.command),
        ("XTSHIM_FAMILY", &record.family),
        ("XTSHIM_TABLE", &record.table),
        ("XTSHIM_CARRIER", &record.carrier),
        ("XTSHIM_APPLIED", &applied),
        ("XTSHIM_WHY", &record.why),
        ("XTSHIM_RESULT", &record.result),
    ];
    for (name, value) in fields {
        push_field(&mut datagram, name, value);
    }
    datagram
}

/// `NAME=value` on a line, or, where the value holds a newline, the name, its length (64 bits, little-endian) and it.
fn push_field(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// The record as RFC 3164 has it, without a time: what stands there is local time, of a zone the daemon may not share,
/// and a daemon that finds none puts its own (section 4.3.2).
fn syslog_datagram(record: &Record) -> Vec<u8> {
    let mut text = format!("<{SYSLOG_PRIORITY}>xtshim[{}]: {}", std::process::id(), record.summary());
    text.truncate(text.floor_char_boundary(SYSLOG_MAX));
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::tempdir;

    fn args(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn sample(args: &[String]) -> Rewrite<'_> {
        Rewrite {
            front: "iptables",
            args,
            family: Family::V4,
            table: "raw",
            carrier: "nft",
            applied: vec!["add rule ip xtshim-raw PREROUTING counter drop".to_owned()].into(),
            why: "the kernel has no iptable_raw",
            result: Ok(()),
        }
    }

    fn lines(path: &Path) -> Vec<Record> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn to_file(path: &Path) -> JournalConfig {
        JournalConfig { file: Some(path.to_owned()), system: false }
    }

    #[test]
    fn a_record_says_who_asked_for_what() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("made/rewrites.jsonl");
        let args = args(&["-t", "raw", "-A", "PREROUTING", "-m", "comment", "--comment", "it's; $HOME", "-j", "DROP"]);
        record(&to_file(&path), &sample(&args));
        let found = lines(&path).remove(0);
        assert_eq!(found.pid, nix::unistd::getppid().as_raw());
        assert!(!found.caller.is_empty());
        assert_eq!(found.netns, fs::metadata("/proc/self/ns/net").unwrap().ino());
        let mut words = shlex::split(&found.command).unwrap();
        assert_eq!(words.remove(0), "iptables");
        assert_eq!(words, args);
        assert_eq!((found.family.as_str(), found.table.as_str(), found.carrier.as_str()), ("ip", "raw", "nft"));
        assert_eq!(found.result, "ok");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o027, 0);
    }

    #[test]
    fn records_of_many_at_once_stay_whole_lines() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("rewrites.jsonl");
        let long = args(&[&"x".repeat(6000)]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| record(&to_file(&path), &sample(&long))));
            }
        });
        assert_eq!(lines(&path).len(), 100);
    }

    #[test]
    fn the_file_is_ascii_and_a_line_each_whatever_is_said() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("rewrites.jsonl");
        let args = args(&["a\nb", "\u{1b}[2J", "\u{9b}31m", "\u{202e}", "é😀", "\x7f"]);
        let mut rewrite = sample(&args);
        rewrite.applied = vec!["line\nbreak \u{1b}]0;\u{7}".to_owned()].into();
        record(&to_file(&path), &rewrite);
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.iter().all(|b| matches!(b, b' '..=b'~' | b'\n')));
        let found = lines(&path).remove(0);
        assert_eq!(shlex::split(&found.command).unwrap()[1..], args);
        assert_eq!(found.applied, ["line\\nbreak \\x1b]0;\\x07"]);
        assert!(!found.summary().chars().any(acts_on_a_terminal));
    }

    #[test]
    fn sizes_are_bounded() {
        let huge = args(&[&"€".repeat(100_000)]);
        let mut rewrite = sample(&huge);
        rewrite.applied = vec!["x".repeat(1000); 1000].into();
        rewrite.result = Err("y".repeat(100_000));
        let found = Record::now(&rewrite);
        assert!(found.command.len() < COMMAND_MAX + 4);
        assert_eq!(found.applied.last().unwrap(), "… 951 more");
        assert!(native_datagram(&found).len() < 150_000);
        assert!(syslog_datagram(&found).len() <= SYSLOG_MAX);
    }

    #[test]
    fn links_fifos_and_foreign_files_are_left_alone() {
        let folder = tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, "").unwrap();
        let link = folder.path().join("link");
        symlink(&target, &link).unwrap();
        record(&to_file(&link), &sample(&[]));
        assert_eq!(fs::read(&target).unwrap(), b"");

        let second_name = folder.path().join("second-name");
        fs::hard_link(&target, &second_name).unwrap();
        record(&to_file(&second_name), &sample(&[]));
        assert_eq!(fs::read(&target).unwrap(), b"");

        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        record(&to_file(&fifo), &sample(&[]));

        let writable = folder.path().join("writable");
        fs::write(&writable, "").unwrap();
        fs::set_permissions(&writable, fs::Permissions::from_mode(0o622)).unwrap();
        record(&to_file(&writable), &sample(&[]));
        assert_eq!(fs::read(&writable).unwrap(), b"");

        record(&to_file(folder.path()), &sample(&[]));
        record(&to_file(&folder.path().join("no/such/folder/file")), &sample(&[]));
        record(&to_file(Path::new("/dev/full")), &sample(&[]));
    }

    /// What the reader of journald's native protocol makes of a datagram.
    fn fields(mut datagram: &[u8]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        while let Some(end) = datagram.iter().position(|b| *b == b'\n') {
            let line = std::str::from_utf8(&datagram[..end]).unwrap();
            datagram = &datagram[end + 1..];
            if let Some((name, value)) = line.split_once('=') {
                found.push((name.to_owned(), value.to_owned()));
                continue;
            }
            let (length, rest) = datagram.split_at(8);
            let (value, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            found.push((line.to_owned(), String::from_utf8(value.to_vec()).unwrap()));
            datagram = rest.strip_prefix(b"\n").unwrap();
        }
        found
    }

    #[test]
    fn journald_gets_each_field_and_none_can_be_forged() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let args = args(&["--comment", "x\nPRIORITY=0\n_UID=0"]);
        let mut rewrite = sample(&args);
        rewrite.applied.lines.push("add rule ip xtshim-raw OUTPUT counter drop".to_owned());
        let sent = Record::now(&rewrite);
        send(&path, &native_datagram(&sent)).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let length = journald.recv(&mut buffer).unwrap();
        let found = fields(&buffer[..length]);
        let get = |name: &str| found.iter().filter(|f| f.0 == name).map(|f| f.1.clone()).collect::<Vec<_>>();
        assert_eq!(found.len(), 15);
        assert_eq!(get("PRIORITY"), ["5"]);
        assert!(get("_UID").is_empty());
        assert_eq!(get("XTSHIM_COMMAND"), [sent.command]);
        assert_eq!(get("XTSHIM_APPLIED"), [sent.applied.join("\n")]);
    }

    #[test]
    fn a_full_socket_is_not_waited_for() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("socket");
        let _never_read = UnixDatagram::bind(&path).unwrap();
        let mut sent = 0;
        while send(&path, b"x").is_ok() {
            sent += 1;
            assert!(sent < 100_000);
        }
    }

    #[test]
    fn syslog_gets_one_visible_line() {
        let args = args(&["a\nb\u{1b}"]);
        let text = String::from_utf8(syslog_datagram(&Record::now(&sample(&args)))).unwrap();
        assert!(text.starts_with("<29>xtshim["), "{text}");
        assert!(!text.chars().any(char::is_control), "{text}");
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = |seconds, millis: u32| timestamp(UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_735_689_599, 999), "2024-12-31T23:59:59.999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
