//! `iptables-restore` and `ip6tables-restore`: a file is taken apart by table, carried tables are applied in one
//! transaction each, and the rest is fed to the backend, in the file's own order.

use super::context::{Context, may_administer};
use crate::carrier::{Carrier, RestoreError, Section};
use crate::error::{Error, reason};
use crate::iptables::dialect::{Dialect, Variant};
use crate::plan::Plan;
use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

/// What iptables-restore can be told (iptables-restore(8)), as far as it matters to a carried table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    noflush: bool,
    counters: bool,
    test: bool,
    verbose: bool,
    table: Option<String>,
    file: Option<OsString>,
    /// All but the file's name, for the backend.
    passed: Vec<OsString>,
}

impl Options {
    /// `None` for anything else than what it knows: that is the backend's to answer.
    fn read(args: &[OsString]) -> Option<Self> {
        let mut options = Self::default();
        let mut rest = args.iter().peekable();
        while let Some(arg) = rest.next() {
            let word = arg.to_str()?;
            if !word.starts_with('-') || word == "-" {
                if options.file.replace(arg.clone()).is_some() {
                    return None;
                }
                continue;
            }
            options.passed.push(arg.clone());
            match word.strip_prefix("--") {
                Some(long) => options.long(long, &mut rest)?,
                None => options.short(word.strip_prefix('-')?, &mut rest)?,
            }
        }
        Some(options)
    }

    fn long<'a>(&mut self, word: &str, rest: &mut Rest<'a>) -> Option<()> {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("noflush", None) => self.noflush = true,
            ("counters", None) => self.counters = true,
            ("test", None) => self.test = true,
            ("verbose", None) => self.verbose = true,
            ("binary", None) => {}
            ("wait" | "wait-interval", Some(_)) => {}
            ("wait" | "wait-interval", None) => self.optional_number(rest),
            ("table", Some(table)) => self.table = Some(table.to_owned()),
            ("table", None) => self.table = Some(self.argument(rest)?),
            ("modprobe", Some(_)) => {}
            ("modprobe", None) => drop(self.argument(rest)?),
            _ => return None,
        }
        Some(())
    }

    fn short<'a>(&mut self, letters: &str, rest: &mut Rest<'a>) -> Option<()> {
        for (index, letter) in letters.char_indices() {
            let attached = letters.get(index + 1..).filter(|text| !text.is_empty());
            match letter {
                'n' => self.noflush = true,
                'c' => self.counters = true,
                't' => self.test = true,
                'v' => self.verbose = true,
                'b' => {}
                'w' | 'W' if attached.is_some() => return Some(()),
                'w' | 'W' => self.optional_number(rest),
                'T' => {
                    self.table = Some(match attached {
                        Some(table) => table.to_owned(),
                        None => self.argument(rest)?,
                    });
                    return Some(());
                }
                'M' => {
                    if attached.is_none() {
                        self.argument(rest)?;
                    }
                    return Some(());
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn argument(&mut self, rest: &mut Rest<'_>) -> Option<String> {
        let arg = rest.next()?;
        self.passed.push(arg.clone());
        arg.to_str().map(str::to_owned)
    }

    fn optional_number(&mut self, rest: &mut Rest<'_>) {
        if let Some(number) = rest.next_if(|arg| arg.to_str().is_some_and(|word| word.parse::<u32>().is_ok())) {
            self.passed.push(number.clone());
        }
    }

    fn wants(&self, table: &str) -> bool {
        self.table.as_deref().is_none_or(|wanted| wanted == table)
    }
}

type Rest<'a> = std::iter::Peekable<std::slice::Iter<'a, OsString>>;

/// Answers.
pub fn answer(context: &Context) -> ExitCode {
    let Some(options) = Options::read(&context.args) else { return context.pass_through() };
    if !may_administer() {
        return context.pass_through();
    }
    match carried_tables(context, &options) {
        Ok(carried) if carried.is_empty() => context.pass_through(),
        Ok(carried) => match input(&options) {
            Ok(text) => restore(context, &options, &carried, &text),
            Err(error) => context.fail(&error),
        },
        Err(error) => context.fail(&error),
    }
}

/// A table that is carried, and why.
struct Carried<'a> {
    table: &'a str,
    why: String,
}

fn carried_tables<'a>(context: &'a Context, options: &Options) -> Result<Vec<Carried<'a>>, Error> {
    let mut carried = Vec::new();
    let tables = context.snapshot.carried_tables(context.front.family);
    for table in tables.filter(|table| options.wants(table)) {
        if let Plan::Nft { why } = context.plan(table)? {
            carried.push(Carried { table, why });
        }
    }
    Ok(carried)
}

fn input(options: &Options) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = match &options.file {
        Some(path) => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
        None => std::io::stdin().lock().read_to_end(&mut bytes),
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let name = options.file.clone().unwrap_or_default();
            let reason = reason(&error);
            let stderr = format!("Can't open {}: {reason}\n", name.to_string_lossy());
            Err(Error::Verbatim { stderr, code: 1 })
        }
    }
}

/// A run of lines that one party answers for. Numbers are those of lines, from 0.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    /// From the first to before the last.
    Backend(std::ops::Range<usize>),
    /// The lines between `*table` and `COMMIT`; `None`: the file ends before a `COMMIT`.
    Carried { table: &'a str, lines: std::ops::Range<usize>, commit: Option<usize> },
}

/// Takes a file apart. Inside a table only `COMMIT` ends it; what stands outside of any is the backend's to judge.
fn parts<'a>(lines: &[&[u8]], carried: &[Carried<'a>]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let Some(name) = line.strip_prefix(b"*") else {
            at += 1;
            continue;
        };
        let name = String::from_utf8_lossy(name);
        let length = lines.iter().skip(at + 1).take_while(|line| **line != b"COMMIT").count();
        let end = at + 1 + length;
        let table = carried.iter().map(|carried| carried.table).find(|table| first_word(&name) == *table);
        if let Some(table) = table {
            if from < at {
                parts.push(Part::Backend(from..at));
            }
            parts.push(Part::Carried { table, lines: at + 1..end, commit: (end < lines.len()).then_some(end) });
            from = (end + 1).min(lines.len());
        }
        at = end + 1;
    }
    if from < lines.len() {
        parts.push(Part::Backend(from..lines.len()));
    }
    parts
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\t', '\n']).next().unwrap_or_default()
}

fn restore(context: &Context, options: &Options, carried: &[Carried<'_>], text: &[u8]) -> ExitCode {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    for part in parts(&lines, carried) {
        let done = match part {
            Part::Backend(range) => feed(context, options, &lines, range, text),
            Part::Carried { table, lines: range, commit } => {
                let why = carried.iter().find(|carried| carried.table == table).map_or("", |carried| &carried.why);
                section(context, options, &lines, table, why, range, commit)
            }
        };
        if let Err(code) = done {
            return code;
        }
    }
    ExitCode::SUCCESS
}

/// Gives the backend its lines, with blank ones before them, so that it counts as the whole file does.
fn feed(
    context: &Context,
    options: &Options,
    lines: &[&[u8]],
    range: std::ops::Range<usize>,
    whole: &[u8],
) -> Result<(), ExitCode> {
    let own = lines.get(range.clone()).unwrap_or_default();
    let ends_bare = range.end == lines.len() && !whole.ends_with(b"\n");
    if !options.verbose && own.iter().all(|line| line.is_empty() || line.starts_with(b"#")) {
        return Ok(());
    }
    let mut input = vec![b'\n'; range.start];
    for line in own {
        input.extend_from_slice(line);
        input.push(b'\n');
    }
    if ends_bare {
        input.pop();
    }
    match context.feed_backend(&options.passed, &input) {
        Ok(0) => Ok(()),
        Ok(code) => Err(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        Err(error) => Err(context.fail(&error)),
    }
}

fn section(
    context: &Context,
    options: &Options,
    lines: &[&[u8]],
    table: &str,
    why: &str,
    range: std::ops::Range<usize>,
    commit: Option<usize>,
) -> Result<(), ExitCode> {
    let start = range.start;
    let texts: Result<Vec<&str>, _> =
        lines.get(range.clone()).unwrap_or_default().iter().map(|line| std::str::from_utf8(line)).collect();
    let failed = |error: RestoreError| explain(context, lines, &range, why, table, error);
    let texts = texts.map_err(|_| {
        let error = Error::Parameter("a line is not valid UTF-8".to_owned());
        failed(RestoreError { line: start + 1, error })
    })?;
    let section = Section {
        lines: texts.into_iter().enumerate().map(|(index, text)| (start + index + 1, text)).collect(),
        commit: commit.map_or(range.end + 1, |commit| commit + 1),
        complete: commit.is_some(),
        noflush: options.noflush,
        counters: options.counters,
        test: options.test,
        verbose: options.verbose && !options.noflush,
    };
    let mut carrier = context.carrier(table).map_err(|error| context.fail(&error))?;
    let mut out = String::new();
    match carrier.restore(&section, &mut out) {
        Ok(applied) => {
            context.warn(&applied.warnings);
            if !applied.lines.is_empty() {
                context.tell(table, &applied.lines, why, Ok(()));
            }
            let _ = context.succeed(&out);
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Fails as the backend does: with the number of the line.
fn explain(
    context: &Context,
    lines: &[&[u8]],
    range: &std::ops::Range<usize>,
    why: &str,
    table: &str,
    failure: RestoreError,
) -> ExitCode {
    if let Error::Refused(refusal) = &failure.error {
        context.tell(table, &[], why, Err(format!("line {}: {refusal}", failure.line)));
    }
    let rehearsed = context.in_the_backends_words(failure.error, &alone(lines, range));
    context.fail(&numbered(rehearsed, failure.line, &context.dialect(), context.front.name()))
}

/// The file with nothing in it but one table, at its own place.
fn alone(lines: &[&[u8]], range: &std::ops::Range<usize>) -> Vec<u8> {
    let head = range.start.saturating_sub(1);
    let mut text = vec![b'\n'; head];
    for line in lines.get(head..lines.len().min(range.end + 1)).unwrap_or_default() {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text
}

/// An error of one line in the words of iptables-restore. iptables-legacy's always has the same name, iptables-nft's
/// goes by how it was called.
fn numbered(error: Error, line: usize, dialect: &Dialect, program: &str) -> Error {
    let tried =
        format!("Error occurred at line: {line}\nTry `{program} -h' or '{program} --help' for more information.\n");
    let prefix = dialect.prefix().replacen(dialect.family.program(), program, 1);
    let code = error.code();
    let stderr = match &error {
        Error::Parameter(text) => format!("{prefix}: {text}\n{tried}"),
        Error::BareParameter(text) => format!("{text}\n{tried}"),
        Error::Table(_) => {
            let text = error.render(dialect);
            match dialect.variant {
                Variant::Nft if dialect.version >= (1, 8, 9) => {
                    let reason = text.split_once(": ").map_or("", |(_, reason)| reason);
                    let reason = reason.trim_end().trim_end_matches(" Run `dmesg' for more information.");
                    format!("{program}: line {line} failed: {reason}\n")
                }
                _ => format!("{program}: line {line} failed\n"),
            }
        }
        Error::Resource(text) if dialect.variant == Variant::Nft => {
            format!("{prefix}: \nline {line}: {}\n", text.trim_start())
        }
        Error::Resource(text) => format!("{prefix}: {text}\n"),
        Error::Version(text) => format!("{prefix}: {text}\n"),
        Error::Refused(_) | Error::Verbatim { .. } => return error,
    };
    Error::Verbatim { stderr, code }
}

#[cfg(test)]
mod tests {
    use super::{Carried, Options, Part, parts};
    use std::ffi::OsString;

    fn read(words: &[&str]) -> Option<Options> {
        Options::read(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn taken_apart(file: &str) -> Vec<Part<'static>> {
        let lines: Vec<&[u8]> = file.split('\n').map(str::as_bytes).collect();
        parts(&lines, &[Carried { table: "raw", why: String::new() }])
    }

    #[test]
    fn options_as_callers_write_them() {
        let options = read(&["-w", "5", "-nc", "--table=raw", "file"]).expect("these are known");
        assert!(options.noflush && options.counters && !options.test);
        assert_eq!(options.table.as_deref(), Some("raw"));
        assert_eq!(options.file, Some("file".into()));
        assert_eq!(options.passed.len(), 4);
        assert!(!read(&["-T", "filter"]).expect("known").wants("raw"));
    }

    #[test]
    fn unknown_options_are_the_backends() {
        assert_eq!(read(&["--bogus"]), None);
        assert_eq!(read(&["-h"]), None);
        assert_eq!(read(&["-T"]), None);
    }

    #[test]
    fn each_table_goes_to_whom_it_belongs() {
        let file = "*nat\nCOMMIT\n*raw\n-A X\nCOMMIT\n*filter\nCOMMIT";
        let expected =
            [Part::Backend(0..2), Part::Carried { table: "raw", lines: 3..4, commit: Some(4) }, Part::Backend(5..7)];
        assert_eq!(taken_apart(file), expected);
    }

    #[test]
    fn a_table_without_its_end() {
        let expected = [Part::Carried { table: "raw", lines: 1..3, commit: None }];
        assert_eq!(taken_apart("*raw\n-A X\n*filter"), expected);
    }
}
