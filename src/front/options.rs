//! The options of iptables-save and iptables-restore: one table for both.

#![forbid(unsafe_code)]

use crate::iptables::getopt::{Long, Scanner, Takes, Token, Value};
use crate::probe::Tool;
use std::ffi::OsString;

/// What they can be told (iptables-save(8), iptables-restore(8)).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-c`
    pub counters: bool,
    /// `-n`
    pub noflush: bool,
    /// `-t` of iptables-restore
    pub test: bool,
    /// `-v`
    pub verbose: bool,
    /// `-t` of iptables-save, `-T` of iptables-restore
    pub table: Option<String>,
    /// `-f` of iptables-save, the word that iptables-restore is given
    pub file: Option<OsString>,
    /// `-w`: `Some(None)` waits for ever, `Some(Some(s))` s seconds.
    pub wait: Option<Option<u32>>,
    /// How often `-b` was given, which iptables-restore speaks of.
    pub binary: usize,
    /// How often `-W` was given.
    pub intervals: usize,
    /// `-w` or `-W` is given as iptables-legacy-restore does not take it.
    pub odd_wait: bool,
    /// The file is left away, and of iptables-save's options the table.
    pub passed: Vec<OsString>,
    /// Why nothing else matters.
    pub ended: Option<Ended>,
}

/// An option that ends it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `-V`
    Version,
    /// `-h`
    Help,
}

/// A command line that they do not take.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// getopt_long(3)'s clause, without the name of the program before it.
    Option(String),
    /// Words too many.
    Words,
    /// A word that is not valid UTF-8.
    Strange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    Binary,
    Counters,
    Dump,
    File,
    Help,
    Modprobe,
    Noflush,
    Table,
    Test,
    Verbose,
    Version,
    Wait,
    Interval,
}

/// Name (none: it has its letter alone), letter with iptables-save, letter with iptables-restore, whether it takes a value, what it is.
type Row = (&'static str, Option<char>, Option<char>, Takes, Id);

const ROWS: &[Row] = &[
    ("", Some('b'), Some('b'), Takes::Nothing, Id::Binary),
    ("counters", Some('c'), Some('c'), Takes::Nothing, Id::Counters),
    ("dump", Some('d'), None, Takes::Nothing, Id::Dump),
    ("file", Some('f'), None, Takes::Value, Id::File),
    ("help", None, Some('h'), Takes::Nothing, Id::Help),
    ("modprobe", Some('M'), Some('M'), Takes::Value, Id::Modprobe),
    ("noflush", None, Some('n'), Takes::Nothing, Id::Noflush),
    ("table", Some('t'), Some('T'), Takes::Value, Id::Table),
    ("test", None, Some('t'), Takes::Nothing, Id::Test),
    ("verbose", None, Some('v'), Takes::Nothing, Id::Verbose),
    ("version", Some('V'), Some('V'), Takes::Nothing, Id::Version),
    ("wait", None, Some('w'), Takes::Maybe, Id::Wait),
    ("wait-interval", None, Some('W'), Takes::Maybe, Id::Interval),
];

/// Of a row, as far as `tool` has it.
fn letter(tool: Tool, row: &Row) -> Option<char> {
    if tool == Tool::Save { row.1 } else { row.2 }
}

impl Options {
    /// Reads the words behind the program's name.
    pub fn read(tool: Tool, args: &[OsString]) -> Result<Self, Wrong> {
        let words: Option<Vec<&str>> = args.iter().map(|arg| arg.to_str()).collect();
        let words = words.ok_or(Wrong::Strange)?;
        let rows = || ROWS.iter().filter(|row| letter(tool, row).is_some());
        let named = rows().filter(|row| !row.0.is_empty());
        let long: Vec<Long<Id>> = named.map(|row| Long { name: row.0, takes: row.3, id: row.4 }).collect();
        // A letter that may have a number has it in the next word only.
        let takes = |row: &Row| if row.3 == Takes::Maybe { Takes::Nothing } else { row.3 };
        let short = |wanted| rows().find(|row| letter(tool, row) == Some(wanted)).map(|row| (row.4, takes(row)));
        let (mut options, mut files) = (Self::default(), Vec::new());
        let mut scanner = Scanner::new(&words);
        loop {
            match scanner.next(short, &[&long]) {
                Token::End => break,
                Token::Word(word) => files.push(word),
                Token::Option { id, value } => {
                    options.take(tool, id, value, &mut scanner)?;
                    if options.ended.is_some() {
                        return Ok(options);
                    }
                }
                Token::Unknown(word) => return Err(Wrong::Option(unknown(word, short))),
                Token::MissingValue(word) => return Err(Wrong::Option(missing(word))),
            }
        }
        options.odd_wait |= options.intervals > 0 && options.wait.is_none();
        while let Some(word) = scanner.detached() {
            files.push(word);
        }
        match (tool, files.as_slice()) {
            (_, []) => Ok(options),
            (Tool::Restore, [file]) => Ok(Self { file: Some(file.into()), ..options }),
            _ => Err(Wrong::Words),
        }
    }

    fn take<'a>(
        &mut self,
        tool: Tool,
        id: Id,
        value: Option<Value<'a>>,
        scanner: &mut Scanner<'a>,
    ) -> Result<(), Wrong> {
        let text = value.map(|value| value.text).unwrap_or_default();
        let mut passed: Vec<String> = Vec::new();
        match id {
            Id::Binary => self.binary += 1,
            Id::Counters => (self.counters, passed) = (true, vec!["--counters".to_owned()]),
            Id::Dump => {}
            Id::File => self.file = Some(text.into()),
            Id::Help => self.ended = Some(Ended::Help),
            Id::Version => self.ended = Some(Ended::Version),
            Id::Modprobe => passed = vec![format!("--modprobe={text}")],
            Id::Noflush => (self.noflush, passed) = (true, vec!["--noflush".to_owned()]),
            Id::Table => {
                self.table = Some(text.to_owned());
                if tool == Tool::Restore {
                    passed = vec![format!("--table={text}")];
                }
            }
            Id::Test => (self.test, passed) = (true, vec!["--test".to_owned()]),
            Id::Verbose => (self.verbose, passed) = (true, vec!["--verbose".to_owned()]),
            Id::Wait | Id::Interval => {
                let option = if id == Id::Wait { "-w" } else { "-W" };
                let detached = if scanner.in_cluster() { None } else { scanner.detached() };
                let number = value.map(|value| value.text).or(detached);
                let read = number.and_then(|number| number.parse().ok());
                self.odd_wait |= read.is_none() && (number.is_some() || id == Id::Interval);
                match id {
                    Id::Wait => self.wait = Some(read),
                    _ => self.intervals += 1,
                }
                passed = std::iter::once(option).chain(number).map(str::to_owned).collect();
            }
        }
        self.passed.extend(passed.into_iter().map(OsString::from));
        Ok(())
    }

    /// Whether `table` is meant.
    pub fn wants(&self, table: &str) -> bool {
        self.table.as_deref().is_none_or(|wanted| wanted == table)
    }
}

/// What getopt_long(3) says of a word, or of the first letter in it that it does not know.
fn unknown(word: &str, short: impl Fn(char) -> Option<(Id, Takes)>) -> String {
    match word.strip_prefix("--") {
        Some(_) => format!("unrecognized option '{word}'"),
        None => {
            let letter = word.chars().skip(1).find(|letter| short(*letter).is_none()).unwrap_or('-');
            format!("invalid option -- '{letter}'")
        }
    }
}

fn missing(word: &str) -> String {
    match word.starts_with("--") {
        true => format!("option '{word}' requires an argument"),
        false => format!("option requires an argument -- '{}'", word.chars().last().unwrap_or('-')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tool: Tool, words: &str) -> Result<Options, Wrong> {
        Options::read(tool, &words.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn restore_as_callers_write_it() {
        let options = read(Tool::Restore, "-w 5 -nc --table=raw file").expect("these are known");
        assert!(options.noflush && options.counters && !options.test);
        assert_eq!(options.table.as_deref(), Some("raw"));
        assert_eq!(options.file, Some("file".into()));
        assert_eq!(options.passed, ["-w", "5", "--noflush", "--counters", "--table=raw"]);
        assert!(!read(Tool::Restore, "-T filter").expect("known").wants("raw"));
        assert!(read(Tool::Restore, "--noflu --tes -v").expect("known").test);
        assert_eq!(read(Tool::Restore, "-w -n").expect("known").passed, ["-w", "--noflush"]);
    }

    #[test]
    fn save_has_other_letters() {
        let options = read(Tool::Save, "-c -t raw -f out -M x").expect("these are known");
        assert_eq!((options.table.as_deref(), options.file), (Some("raw"), Some("out".into())));
        assert_eq!(options.passed, ["--counters", "--modprobe=x"]);
        assert_eq!(read(Tool::Save, "--table=raw").expect("known").table.as_deref(), Some("raw"));
        assert_eq!(read(Tool::Save, "-b").expect("known").binary, 1);
        assert!(read(Tool::Restore, "--binary").is_err());
    }

    /// Clauses of the C library's getopt_long.
    #[test]
    fn what_they_do_not_know() {
        let clause = |tool, words: &str| match read(tool, words) {
            Err(Wrong::Option(clause)) => clause,
            other => panic!("{words}: {other:?}"),
        };
        assert_eq!(clause(Tool::Restore, "--bogus"), "unrecognized option '--bogus'");
        assert_eq!(clause(Tool::Save, "-h"), "invalid option -- 'h'");
        assert_eq!(clause(Tool::Restore, "-tq"), "invalid option -- 'q'");
        assert_eq!(clause(Tool::Restore, "-T"), "option requires an argument -- 'T'");
        assert_eq!(clause(Tool::Save, "--table"), "option '--table' requires an argument");
        assert_eq!(read(Tool::Save, "stray"), Err(Wrong::Words));
        assert_eq!(read(Tool::Restore, "x y"), Err(Wrong::Words));
        assert_eq!(read(Tool::Restore, "-V --bogus").expect("known").ended, Some(Ended::Version));
    }
}
