//! `iptables-restore` and `ip6tables-restore`: a file is taken apart by table, carried tables are applied in one
//! transaction each, and the rest is fed to the backend, in the file's own order.

use super::context::{Context, may_administer};
use super::host;
use super::options::Options;
use super::planning::Course;
use super::rescue::trip;
use super::{alone, lacking};
use crate::carrier::hosted::Hosting;
use crate::carrier::{Carrier, RestoreError, Section};
use crate::config::CarrierKind;
use crate::error::{Error, Refusal, reason};
use crate::exit::ExitCode;
use crate::iptables::dialect::{Dialect, Variant};
use crate::iptables::restore::{pieces, seen};
use crate::probe::Tool;
use crate::sys::privilege;
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;

/// Answers.
pub fn answer(context: &Context) -> ExitCode {
    if !may_administer() && context.has_backend() {
        return context.pass_through();
    }
    let whole = || {
        context.hosting().is_none() && candidates(context, &Options::default()).is_ok_and(|tables| tables.is_empty())
    };
    let options = match alone::heed(context, Options::read(Tool::Restore, &context.args), whole) {
        Ok(options) => options,
        Err(answer) => return answer,
    };
    match candidates(context, &options) {
        Ok(candidates) if candidates.is_empty() && context.has_backend() && context.hosting().is_none() => {
            context.pass_through()
        }
        Ok(candidates) => match input(&options) {
            Ok(text) => {
                let text = Rc::new(text);
                if options.file.is_none() {
                    *context.input.borrow_mut() = Some(Rc::clone(&text));
                }
                trip("restore");
                apply(context, &options, &candidates, &text)
            }
            Err(error) => context.fail(&error),
        },
        Err(error) => context.fail(&error),
    }
}

/// A table that may be carried, and whether our own is there.
struct Candidate {
    table: String,
    held: bool,
}

/// Tables that are not the backend's in any case.
fn candidates(context: &Context, options: &Options) -> Result<Vec<Candidate>, Error> {
    let held = if may_administer() { context.held_tables()? } else { Vec::new() };
    let tables = context.snapshot.carried_tables(context.front.family).filter(|table| options.wants(table));
    let candidates =
        tables.map(|table| Candidate { table: table.to_owned(), held: held.iter().any(|(name, _)| name == table) });
    let possible =
        |candidate: &Candidate| !context.has_backend() || !context.is_passed_through(&candidate.table, candidate.held);
    Ok(candidates.filter(possible).collect())
}

/// A table that is carried, and why.
struct Carried<'a> {
    table: &'a str,
    how: How,
    why: String,
}

/// What is done with a section.
#[derive(Clone, Copy)]
enum How {
    /// It is a carrier's.
    By(CarrierKind),
    /// It is the backend's, beside what we hold there.
    Beside(&'static Hosting),
}

/// Of the candidates those that the file speaks of and that are ours.
fn carried<'a>(
    context: &Context,
    options: &Options,
    candidates: &'a [Candidate],
    lines: &[&[u8]],
) -> Result<Vec<Carried<'a>>, Error> {
    let named = |table: &str| lines.iter().filter_map(|line| table_of(line)).any(|name| name == table);
    let host = context.hosting().map(|hosting| hosting.host);
    // What holds raw for us is the backend's as long as it does.
    let own = |candidate: &&Candidate| candidate.held || host != Some(candidate.table.as_str());
    let wanted = candidates.iter().filter(|candidate| named(&candidate.table)).filter(own);
    let left: RefCell<Vec<(&'a str, String)>> = RefCell::default();
    let course = |candidate: &'a Candidate| match context.course_of(&candidate.table, candidate.held) {
        Course::Carry { by, why } => {
            let ours = options.test
                || by != CarrierKind::Nft
                || context.finish_takeover(&candidate.table, &why, options.wait)?;
            Ok(ours.then_some(Carried { table: &candidate.table, how: How::By(by), why }))
        }
        Course::TakeOver { .. } if options.test => Ok(None),
        Course::TakeOver { why } => {
            if !takes_over(context, options, &candidate.table, &why, lines)? {
                left.borrow_mut().push((&candidate.table, why));
                return Ok(None);
            }
            Ok(Some(Carried { table: &candidate.table, how: How::By(CarrierKind::Nft), why }))
        }
        Course::PassThrough => Ok(None),
    };
    let mut carried: Vec<Carried<'_>> =
        wanted.filter_map(|candidate| course(candidate).transpose()).collect::<Result<_, Error>>()?;
    carried.extend(guarded(context, options, left.into_inner())?);
    let beside = |hosting: &&Hosting| {
        options.wants(hosting.host)
            && named(hosting.host)
            && !carried.iter().any(|carried| carried.table == hosting.host)
    };
    if let Some(hosting) = context.hosting().filter(beside) {
        carried.push(Carried { table: hosting.host, how: How::Beside(hosting), why: String::new() });
    }
    Ok(carried)
}

/// Takes a table over for what the file says of it. `false`: it stays with the backend, and so does the file's part.
fn takes_over(context: &Context, options: &Options, table: &str, why: &str, lines: &[&[u8]]) -> Result<bool, Error> {
    let told: Vec<String> = lines.iter().map(|line| String::from_utf8_lossy(seen(line)).into_owned()).collect();
    let variant = context.dialect().variant;
    let mut within = None;
    let of_table = (1..).zip(lines.iter().zip(&told)).filter_map(|(number, (line, text))| {
        match (&within, table_of(line)) {
            (None, Some(name)) if options.wants(&name) => within = Some(name),
            (Some(_), _) if commits(line, variant) => within = None,
            (Some(name), _) if name == table => return Some((number, text.as_str())),
            _ => {}
        }
        None
    });
    let of_table: Vec<(usize, &str)> = of_table.collect();
    if let Some((line, refusal)) = lacking::uncarriable(context, table, &of_table) {
        let result = format!("passed on to iptables, which holds {table} here: line {line}: {refusal}");
        context.tell(table, why, Err(result));
    } else if context.take_over(table, why, options.wait)? {
        return Ok(true);
    }
    Ok(false)
}

/// Of tables that the backend holds those that another front has made ours meanwhile. The others stay the backend's until
/// this process ends: nobody takes them over while the backend is given its part of the file.
fn guarded<'a>(context: &Context, options: &Options, left: Vec<(&'a str, String)>) -> Result<Vec<Carried<'a>>, Error> {
    // Where raw is held in another table, that needs the lock for itself.
    if left.is_empty() || context.hosting().is_some() {
        return Ok(Vec::new());
    }
    let lock = context.guard_all(options.wait)?;
    let mut ours = Vec::new();
    for (table, why) in left {
        if context.carrier(table)?.exists()? {
            ours.push(Carried { table, how: How::By(CarrierKind::Nft), why });
        }
    }
    *context.guard.borrow_mut() = lock;
    Ok(ours)
}

/// The name behind `*`.
fn table_of(line: &[u8]) -> Option<String> {
    if line.first() != Some(&b'*') {
        return None;
    }
    let name = String::from_utf8_lossy(seen(line).strip_prefix(b"*")?).into_owned();
    Some(name.split([' ', '\t', '\n']).find(|word| !word.is_empty()).unwrap_or_default().to_owned())
}

/// Whether the line ends a table. To iptables-legacy-restore it is no such line without its newline.
fn commits(line: &[u8], variant: Variant) -> bool {
    if line.first() != Some(&b'C') {
        return false;
    }
    match seen(line).strip_prefix(b"COMMIT") {
        Some(b"\n") => true,
        Some(b"") => variant == Variant::Nft,
        _ => false,
    }
}

/// Whether there is nothing on the line, or a comment.
fn says_nothing(line: &[u8]) -> bool {
    matches!(seen(line).first(), Some(b'\n' | b'#'))
}

/// What the line reads as. One that a NUL has left nothing of is not a blank one.
fn text_of(line: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(seen(line)) {
        text if text.is_empty() => Cow::Borrowed(" "),
        text => text,
    }
}

fn apply(context: &Context, options: &Options, candidates: &[Candidate], text: &[u8]) -> ExitCode {
    let lines = pieces(text);
    let carried = match carried(context, options, candidates, &lines) {
        Ok(carried) => carried,
        Err(error) => return context.fail(&error),
    };
    match carried.is_empty() && context.has_backend() {
        true => context.pass_through_fed(&options.passed, text),
        false => restore(context, options, &carried, &lines),
    }
}

fn input(options: &Options) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = match &options.file {
        Some(path) => {
            let opened = privilege::if_denied(|| std::fs::File::open(path));
            opened.and_then(|mut file| file.read_to_end(&mut bytes))
        }
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
///
/// With `--table` the file is in no table where it names another one: nothing counts there but the next `*`.
fn parts<'a>(lines: &[&[u8]], carried: &[Carried<'a>], options: &Options, variant: Variant) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let Some(name) = table_of(line).filter(|name| options.wants(name)) else {
            at += 1;
            continue;
        };
        let length = lines.iter().skip(at + 1).take_while(|line| !commits(line, variant)).count();
        let end = at + 1 + length;
        let table = carried.iter().map(|carried| carried.table).find(|table| name == *table);
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

fn restore(context: &Context, options: &Options, carried: &[Carried<'_>], lines: &[&[u8]]) -> ExitCode {
    let dialect = context.dialect();
    let parts = parts(lines, carried, options, dialect.variant);
    let fed = parts.iter().any(|part| matches!(part, Part::Backend(range) if is_fed(context, options, lines, range)));
    // Where it is given a part of the file, the backend says so itself.
    if dialect.variant == Variant::Legacy && dialect.version >= (1, 8, 8) && !fed {
        context.warn(&vec!["Ignoring deprecated --wait-interval option.".to_owned(); options.intervals]);
    }
    context.warn(&vec!["-b/--binary option is not implemented".to_owned(); options.binary]);
    for part in parts {
        let done = match part {
            Part::Backend(range) if !context.has_backend() => outside(context, options, lines, range),
            Part::Backend(range) => feed(context, options, lines, range),
            Part::Carried { table, lines: range, commit } => {
                match carried.iter().find(|carried| carried.table == table) {
                    Some(Carried { how: How::Beside(hosting), .. }) => {
                        host::section(context, options, hosting, lines, range, commit)
                    }
                    Some(Carried { how: How::By(by), why, .. }) => {
                        section(context, options, lines, (table, *by), why, range, commit)
                    }
                    None => Ok(()),
                }
            }
        };
        if let Err(code) = done {
            return code;
        }
    }
    ExitCode::SUCCESS
}

/// Lines that belong to no table of ours, where there is no backend that could judge them.
fn outside(
    context: &Context,
    options: &Options,
    lines: &[&[u8]],
    range: std::ops::Range<usize>,
) -> Result<(), ExitCode> {
    let name = context.front.name();
    // A table that is not wanted is passed over, up to the next.
    let mut passing = false;
    for (number, line) in (range.start + 1..).zip(lines.get(range).unwrap_or_default()) {
        let refuse = |stderr: String, code| Err(context.fail(&Error::Verbatim { stderr, code }));
        match table_of(line) {
            Some(table) => {
                if context.snapshot.carried_tables(context.front.family).any(|known| known == table) {
                    passing = !options.wants(&table);
                    if passing {
                        continue;
                    }
                    return Err(context.fail_without_backend(&table));
                }
                let named = if table.is_empty() { String::new() } else { format!(" '{table}'") };
                let error = Error::Parameter(format!("{name}: line {number} table name{named} invalid"));
                return Err(context.fail(&numbered(error, number, &context.dialect(), name)));
            }
            _ if says_nothing(line) => {
                if options.verbose && line.starts_with(b"#") {
                    let _ = context.succeed(&text_of(line));
                }
            }
            _ if passing => {}
            _ => return refuse(format!("{name}: line {number} failed\n"), 1),
        }
    }
    Ok(())
}

/// Whether the backend has to see these lines: blank ones and comments say nothing to it.
fn is_fed(context: &Context, options: &Options, lines: &[&[u8]], range: &std::ops::Range<usize>) -> bool {
    let own = lines.get(range.clone()).unwrap_or_default();
    context.has_backend() && (options.verbose || own.iter().any(|line| !says_nothing(line)))
}

/// Gives the backend its lines, with blank ones before them, so that it counts as the whole file does.
fn feed(context: &Context, options: &Options, lines: &[&[u8]], range: std::ops::Range<usize>) -> Result<(), ExitCode> {
    let own = lines.get(range.clone()).unwrap_or_default();
    if !is_fed(context, options, lines, &range) {
        return Ok(());
    }
    let mut input = vec![b'\n'; range.start];
    own.iter().for_each(|line| input.extend_from_slice(line));
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
    (table, by): (&str, CarrierKind),
    why: &str,
    range: std::ops::Range<usize>,
    commit: Option<usize>,
) -> Result<(), ExitCode> {
    let start = range.start;
    let own = lines.get(range.clone()).unwrap_or_default();
    let failed = |error: RestoreError| explain(context, lines, &range, why, (table, by), error);
    let broken = |line: &&[u8]| !says_nothing(line) && std::str::from_utf8(seen(line)).is_err();
    if let Some(index) = own.iter().position(broken) {
        let error = Refusal::new("a line", "is not valid UTF-8").into();
        return Err(failed(RestoreError { line: start + index + 1, error }));
    }
    let texts: Vec<Cow<'_, str>> = own.iter().map(|line| text_of(line)).collect();
    let section = Section {
        lines: texts.iter().enumerate().map(|(index, text)| (start + index + 1, text.as_ref())).collect(),
        commit: commit.map_or(range.end + 1, |commit| commit + 1),
        complete: commit.is_some(),
        noflush: options.noflush,
        counters: options.counters,
        test: options.test,
        comments: options.verbose,
        verbose: options.verbose && !options.noflush,
    };
    let hosted = Hosting::of(by).and_then(|hosting| context.hosted(hosting, options.wait));
    let mut carrier: Box<dyn Carrier + '_> = match hosted {
        Some(carrier) => Box::new(carrier),
        None => Box::new(context.carrier(table).map_err(|error| context.fail(&error))?),
    };
    let mut out = String::new();
    match carrier.restore(&section, &mut out) {
        Ok(applied) => {
            context.warn(&applied.warnings);
            if !applied.told.is_empty() {
                context.tell_change(table, &applied.told, why);
            }
            let _ = context.succeed(&out);
            Ok(())
        }
        // -h or -V in a line: it ends there.
        Err(RestoreError { error: Error::Verbatim { code: 0, .. }, .. }) => {
            // iptables-legacy has told of what it did before; nothing of that can be learned elsewhere.
            let version = out.ends_with(&format!("({})\n", context.dialect().variant.as_str()));
            if !version || context.dialect().variant == Variant::Nft {
                let said = context.rehearse(&alone(lines, &range)).filter(|output| output.status.success());
                out = said.map_or(out, |output| String::from_utf8_lossy(&output.stdout).into_owned());
            }
            Err(context.succeed(&out))
        }
        Err(failure) => {
            let _ = context.succeed(&told_until(&section, &failure, out, context.dialect().variant));
            let refused =
                matches!(&failure.error, Error::Resource(_) | Error::Table(_)) && failure.line == section.commit;
            match (refused && by == CarrierKind::Nft)
                .then(|| lacking::for_lines(context, table, &section.lines))
                .flatten()
            {
                None => Err(failed(failure)),
                Some((line, lacking)) => {
                    context.tell(table, why, Err(format!("line {line}: {lacking}")));
                    // iptables-nft names the rule's line, iptables-legacy that of the COMMIT.
                    let line = if context.dialect().variant == Variant::Nft { line } else { failure.line };
                    Err(failed(RestoreError { line, ..failure }))
                }
            }
        }
    }
}

/// What iptables-restore has said before a line failed. iptables-nft does what it has read at the end of the table: where it
/// could not read a line the comments are all that it has said.
fn told_until(section: &Section<'_>, failure: &RestoreError, told: String, variant: Variant) -> String {
    let unread = match &failure.error {
        Error::Parameter(text) => !is_late(text),
        Error::BareParameter(_) | Error::WrongFamily => true,
        Error::Verbatim { .. } => !section.complete,
        _ => false,
    };
    if variant == Variant::Legacy || !section.comments || !unread {
        return told;
    }
    let before = section.lines.iter().take_while(|(number, _)| *number < failure.line);
    before.filter(|(_, text)| text.starts_with('#')).map(|(_, text)| *text).collect()
}

/// Fails as the backend does: with the number of the line.
fn explain(
    context: &Context,
    lines: &[&[u8]],
    range: &std::ops::Range<usize>,
    why: &str,
    (table, by): (&str, CarrierKind),
    failure: RestoreError,
) -> ExitCode {
    if let Error::Refused(refusal) = &failure.error {
        context.tell(table, why, Err(format!("line {}: {refusal}", failure.line)));
        // What another table cannot hold exactly is as good as a table that is not there.
        if by != CarrierKind::Nft {
            let (dialect, program, line) = (context.dialect(), context.front.name(), range.start);
            let text = match dialect.variant {
                Variant::Legacy => format!("{program}: unable to initialize table '{table}'"),
                Variant::Nft => format!("{program}: line {line} table name '{table}' invalid"),
            };
            return context.fail(&numbered(Error::Parameter(text), line, &dialect, program));
        }
    }
    let rehearsed = context.in_the_backends_words(failure.error, table, &alone(lines, range));
    let dialect = context.dialect();
    let line = match &rehearsed {
        Error::Parameter(text) if dialect.variant == Variant::Nft && is_late(text) => range.end + 1,
        _ => failure.line,
    };
    context.fail(&numbered(rehearsed, line, &dialect, context.front.name()))
}

/// iptables-nft looks for the chains that are jumped to when all of the table has been read.
fn is_late(text: &str) -> bool {
    text.starts_with("Chain '") && text.ends_with("' does not exist")
}

/// The file with nothing in it but one table, at its own place.
fn alone(lines: &[&[u8]], range: &std::ops::Range<usize>) -> Vec<u8> {
    let head = range.start.saturating_sub(1);
    let mut text = vec![b'\n'; head];
    lines.get(head..lines.len().min(range.end + 1)).unwrap_or_default().iter().for_each(|l| text.extend_from_slice(l));
    text
}

/// What iptables-restore says of an option that names a table begins so.
const NO_TABLE: &str = "The -t option";

/// An error of one line in the words of iptables-restore. iptables-legacy's always has the same name, iptables-nft's
/// goes by how it was called.
fn numbered(error: Error, line: usize, dialect: &Dialect, program: &str) -> Error {
    let tried =
        format!("Error occurred at line: {line}\nTry `{program} -h' or '{program} --help' for more information.\n");
    let prefix = dialect.prefix().replacen(dialect.family.program(), program, 1);
    let code = error.code();
    let stderr = match &error {
        Error::Parameter(text) if dialect.version < (1, 8, 8) && text.starts_with(NO_TABLE) => {
            let text = text.replacen(NO_TABLE, &format!("{NO_TABLE} (seen in line {line})"), 1);
            format!("{prefix}: {text}\n{tried}")
        }
        Error::Parameter(text) => format!("{prefix}: {text}\n{tried}"),
        Error::BareParameter(text) => format!("{text}\n{tried}"),
        Error::WrongFamily => tried,
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
        // What the kernel said of a rule begins with a blank.
        Error::Resource(text) if dialect.variant == Variant::Nft && text.starts_with(' ') => {
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
    use super::{Carried, CarrierKind, How, Part, parts};

    fn taken_apart(file: &str) -> Vec<Part<'static>> {
        let lines = crate::iptables::restore::pieces(file.as_bytes());
        let carried = [Carried { table: "raw", how: How::By(CarrierKind::Nft), why: String::new() }];
        parts(&lines, &carried, &super::Options::default(), crate::iptables::dialect::Variant::Legacy)
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
