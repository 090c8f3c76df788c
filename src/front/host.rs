//! Commands on a table that holds raw: our chains and jumps do not show, positions are those that the caller sees, and
//! our jumps stay first through every flush and restore.
//!
//! All of it happens while we hold the backend's lock, so that no jump of ours comes or goes meanwhile.

#![forbid(unsafe_code)]

use super::context::{Context, exit_code};
use super::options::Options;
use crate::carrier::hosted::{HostedCarrier, Hosting, Reading};
use crate::error::{Error, TableError, reason};
use crate::exit::ExitCode;
use crate::iptables::dialect::Variant;
use crate::iptables::restore::{self, Line};
use crate::iptables::{Spot, spot};
use crate::probe::Tool;
use crate::sys::exec;
use crate::sys::lock::{LockFile, XtablesLock};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;
use std::process::Output;

/// Answers one command on the host table.
pub fn command(context: &Context, hosting: &'static Hosting) -> ExitCode {
    let found =
        context.words().and_then(|words| Some((spot(context.front.family, &words, &context.dialect())?, words)));
    let Some((spot, words)) = found else {
        let error = Error::Parameter("it cannot be told what this command changes".to_owned());
        return context.fail(&context.in_the_backends_words(error, hosting.host, b""));
    };
    if matches!(spot.letter, 'V' | 'h') {
        return context.pass_through();
    }
    let Some(carrier) = context.hosted(hosting, spot.wait) else { return context.pass_through() };
    let answered = carrier.lock().and_then(|lock| Ok((lock, carrier.survey()?)));
    let (lock, reading) = match answered {
        Ok(found) => found,
        Err(error) => return context.fail(&error),
    };
    if !reading.held {
        return become_backend(context, lock, &context.args);
    }
    let host = Host { context, hosting, carrier, reading };
    match host.answer(&spot, &words) {
        Ok(Some(code)) => code,
        Ok(None) => become_backend(context, lock, &host.shifted(&spot, words)),
        Err(error) => context.fail(&error),
    }
}

/// Becomes the backend with the lock in our hands, which it holds until it ends.
pub(super) fn become_backend(context: &Context, lock: XtablesLock, args: &[OsString]) -> ExitCode {
    let Some((program, name)) = context.backend_program(Tool::Command) else { return context.pass_through() };
    let kept = LockFile::new().and_then(LockFile::outlive).and_then(|file| lock.outlive().map(|()| file));
    match kept.and_then(|file| exec::replace_under_lock(program, name, args, &file)) {
        Ok(never) => match never {},
        Err(error) => context.fail(&Error::Resource(format!("{}: {}", program.display(), reason(&error)))),
    }
}

/// A host table that holds raw, while we hold the lock.
struct Host<'a> {
    context: &'a Context,
    hosting: &'static Hosting,
    carrier: HostedCarrier<'a>,
    reading: Reading,
}

impl Host<'_> {
    /// `None`: the backend itself does it, with its number shifted.
    fn answer(&self, spot: &Spot, words: &[String]) -> Result<Option<ExitCode>, Error> {
        self.refuse_our_names(spot, words)?;
        match (spot.letter, spot.chain.as_deref()) {
            ('L' | 'S', _) => self.list(spot, words).map(Some),
            ('Z', None) => self.zero(words).map(Some),
            ('F', Some(chain)) if self.reading.jump_in(self.hosting, chain).is_none() => Ok(None),
            ('F', chain) => self.flush(chain, spot.verbose).map(Some),
            ('X', None) => self.delete_chains(spot.verbose),
            _ => Ok(None),
        }
    }

    /// Our chains are not there.
    fn refuse_our_names(&self, spot: &Spot, words: &[String]) -> Result<(), Error> {
        let dialect = self.context.dialect();
        if spot.chain.as_deref().is_some_and(|chain| self.hosting.is_ours(chain)) && spot.letter != 'N' {
            return Err(match spot.letter {
                'D' | 'C' => TableError::BadRule.into(),
                'P' => TableError::BadBuiltin.into(),
                _ => TableError::NoChain.into(),
            });
        }
        let target = |word: &String| {
            let attached = ["-j", "-g", "--jump=", "--goto="].into_iter().find_map(|option| word.strip_prefix(option));
            let named = attached.filter(|name| self.hosting.is_ours(name)).or(Some(word.as_str()));
            named.filter(|name| self.hosting.is_ours(name)).map(str::to_owned)
        };
        let rule = matches!(spot.letter, 'A' | 'I' | 'R' | 'D' | 'C');
        match words.iter().find_map(target).filter(|_| rule) {
            None => Ok(()),
            Some(name) => Err(Error::Parameter(match dialect.variant {
                Variant::Nft => format!("Chain '{name}' does not exist"),
                Variant::Legacy => format!("Couldn't load target `{name}':No such file or directory\n"),
            })),
        }
    }

    /// The line with the number that the rule really has.
    fn shifted(&self, spot: &Spot, mut words: Vec<String>) -> Vec<OsString> {
        let jump = spot.chain.as_deref().and_then(|chain| self.reading.jump_in(self.hosting, chain));
        let numbered = matches!(spot.letter, 'I' | 'R' | 'D' | 'L' | 'S' | 'Z');
        if let Some(jump) = jump.filter(|_| numbered) {
            let jump = u32::try_from(jump).unwrap_or(u32::MAX);
            let moved = |number: u32| if number >= jump { number.saturating_add(1) } else { number };
            match (spot.number, spot.letter, words.get_mut(spot.number_at)) {
                // Of `-I` without a number the parser says 1, and no word stands for it.
                (Some(number), 'I', word) => match word {
                    Some(word) if word.trim().parse() == Ok(number) || is_number(word) => {
                        *word = moved(number).to_string();
                    }
                    _ => words.insert(spot.number_at, moved(number).to_string()),
                },
                (Some(number), _, Some(word)) => *word = moved(number).to_string(),
                _ => {}
            }
        }
        words.into_iter().map(OsString::from).collect()
    }

    fn list(&self, spot: &Spot, words: &[String]) -> Result<ExitCode, Error> {
        let args = self.shifted(spot, words.to_vec());
        let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
        let output = self.carrier.run(Tool::Command, &args, "")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let jump = spot.chain.as_deref().and_then(|chain| self.reading.jump_in(self.hosting, chain));
        let text = match (spot.letter, spot.number, jump) {
            ('S', ..) => unsaved(&text, self.hosting),
            ('L', Some(number), Some(jump)) if number as usize >= jump => {
                let numbered = words.iter().any(|word| word.len() > 3 && "--line-numbers".starts_with(word.as_str()));
                if numbered { text.split_inclusive('\n').map(one_less).collect() } else { text.into_owned() }
            }
            ('L', Some(_), _) => text.into_owned(),
            _ => unlisted(&text, self.hosting),
        };
        if spot.zero && output.status.success() {
            self.carrier.recount(&self.reading)?;
        }
        Ok(self.finish(&output, &text))
    }

    /// Ours are counted on as if nothing had happened.
    fn zero(&self, words: &[String]) -> Result<ExitCode, Error> {
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = self.carrier.run(Tool::Command, &args, "")?;
        if output.status.success() {
            self.carrier.recount(&self.reading)?;
        }
        let told = String::from_utf8_lossy(&output.stdout);
        let of_ours = |line: &&str| self.hosting.chains.iter().any(|chain| line.contains(&format!("`{chain}'")));
        Ok(self.finish(&output, &told.split_inclusive('\n').filter(|line| !of_ours(line)).collect::<String>()))
    }

    fn flush(&self, chain: Option<&str>, verbose: bool) -> Result<ExitCode, Error> {
        let talk = if verbose { "-v " } else { "" };
        let all = self.reading.chains.iter().map(|(name, _)| name.as_str());
        let mut lines: Vec<String> =
            all.filter(|name| chain.is_none_or(|only| only == *name)).map(|name| format!("{talk}-F {name}")).collect();
        for (from, ours) in self.hosting.jumps.iter().filter(|(from, _)| chain.is_none_or(|only| only == *from)) {
            lines.push(format!("-I {from} 1 -j {ours}"));
        }
        let output = self.restore(&lines, &["--noflush"])?;
        Ok(self.finish(&output, &String::from_utf8_lossy(&output.stdout)))
    }

    /// All of the user's chains, or none of them.
    fn delete_chains(&self, verbose: bool) -> Result<Option<ExitCode>, Error> {
        let talk = if verbose { "-v " } else { "" };
        let users = || self.reading.chains.iter().filter(|(_, builtin)| !builtin).map(|(name, _)| name.as_str());
        let lines: Vec<String> = users().map(|name| format!("{talk}-X {name}")).collect();
        let output = self.restore(&lines, &["--noflush"])?;
        if output.status.success() {
            return Ok(Some(self.finish(&output, &String::from_utf8_lossy(&output.stdout))));
        }
        // The command fails in the words for the chain that it fails for: iptables-legacy tells of the last.
        let mut failing = Vec::new();
        for name in users() {
            if !self.restore(&[format!("-X {name}")], &["--noflush", "--test"])?.status.success() {
                failing.push(name);
            }
        }
        let told = match self.context.dialect().variant {
            Variant::Legacy => failing.last(),
            Variant::Nft => failing.first(),
        };
        let Some(name) = told else { return Ok(Some(self.finish(&output, ""))) };
        let output = self.carrier.run(Tool::Command, &["-t", self.hosting.host, "-X", name], "")?;
        Ok(Some(self.finish(&output, "")))
    }

    fn restore(&self, lines: &[String], options: &[&str]) -> Result<Output, Error> {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.carrier.run(Tool::Restore, options, &format!("*{}\n{body}COMMIT\n", self.hosting.host))
    }

    fn finish(&self, output: &Output, text: &str) -> ExitCode {
        let _ = io::stderr().write_all(&output.stderr);
        let said = self.context.succeed(text);
        match exit_code(output) {
            0 => said,
            code => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        }
    }
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit() || c == '+')
}

/// What `-S` and iptables-save print, without what is ours.
pub fn unsaved(text: &str, hosting: &Hosting) -> String {
    let ours = |line: &str| {
        let rule = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((_, rule)) => rule,
            None => line,
        };
        let mut words = rule.split([' ', '\n']);
        match (words.next(), words.next(), words.next()) {
            (Some("-N"), Some(chain), _) => hosting.is_ours(chain),
            (Some("-A"), Some(chain), option) => {
                let target = if option == Some("-c") { words.nth(2).and(words.next()) } else { words.next() };
                hosting.is_ours(chain) || (hosting.jumps.iter().any(|(from, to)| *from == chain && target == Some(to)))
            }
            (Some(name), ..) => name.strip_prefix(':').is_some_and(|chain| hosting.is_ours(chain)),
            _ => false,
        }
    };
    text.split_inclusive('\n').filter(|line| !ours(line)).collect()
}

/// What `-L` prints, without what is ours, and numbered as if that were not there.
fn unlisted(text: &str, hosting: &Hosting) -> String {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        let begins = line.starts_with("Chain ") && blocks.last().is_none_or(|block| block.last() == Some(&""));
        match blocks.last_mut() {
            Some(block) if !begins => block.push(line),
            _ => blocks.push(vec![line]),
        }
    }
    let name = |block: &[&str]| block.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let shown = blocks.iter().filter(|block| !hosting.is_ours(&name(block)));
    let texts = shown.map(|block| {
        let chain = name(block);
        let ours = hosting.jumps.iter().find(|(from, _)| *from == chain).map(|(_, ours)| *ours);
        let numbered = block.get(1).is_some_and(|line| line.starts_with("num "));
        let mut behind = false;
        let mut text = String::new();
        for line in block.iter().filter(|line| !line.is_empty()) {
            if !behind && ours.is_some_and(|ours| line.split_whitespace().any(|word| word == ours)) {
                behind = true;
                continue;
            }
            let line = if behind && numbered { one_less(line) } else { (*line).to_owned() };
            let _ = writeln!(text, "{line}");
        }
        text
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// A line of `-L --line-numbers` with the number before.
fn one_less(line: &str) -> String {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let number = line.get(..digits).and_then(|digits| digits.parse::<u32>().ok());
    match (number, line.get(digits.max(4)..)) {
        (Some(number), Some(rest)) => format!("{:<4}{rest}", number.saturating_sub(1)),
        _ => line.to_owned(),
    }
}

/// Restores a section of a file to the host table in one commit, our jumps first all the while.
pub fn section(
    context: &Context,
    options: &Options,
    hosting: &'static Hosting,
    lines: &[&[u8]],
    range: Range<usize>,
    commit: Option<usize>,
) -> Result<(), ExitCode> {
    let Some(carrier) = context.hosted(hosting, options.wait) else { return Ok(()) };
    let fail = |error: Error| context.fail(&error);
    let _lock = carrier.lock().map_err(fail)?;
    let reading = carrier.survey().map_err(fail)?;
    let own: Vec<String> = lines.get(range.clone()).unwrap_or_default().iter().map(|line| bare(line)).collect();
    let mut args: Vec<&str> = options.passed.iter().filter_map(|arg| arg.to_str()).collect();
    let mut file = Numbered::default();
    (1..range.start).for_each(|number| file.push(number, ""));
    file.push(range.start, &format!("*{}", hosting.host));
    let mut told = String::new();
    if reading.held {
        reading.without_jumps(hosting).iter().for_each(|line| file.push(range.start, line));
        if !options.noflush {
            if options.verbose {
                cleared(&reading).for_each(|line| told.push_str(&line));
            }
            emptied(&reading, context.dialect().variant).iter().for_each(|line| file.push(range.start, line));
            args.push("--noflush");
        }
    }
    let mut known = if options.noflush { reading.chains.clone() } else { builtins(&reading) };
    for (number, line) in (range.start + 1..).zip(&own) {
        match reading.held {
            true => expanded(context, hosting, &mut known, line).iter().for_each(|line| file.push(number, line)),
            false => file.push(number, line),
        }
    }
    if let Some(commit) = commit {
        if reading.held {
            Reading::with_jumps(hosting).iter().for_each(|line| file.push(commit + 1, line));
        }
        file.push(commit + 1, "COMMIT");
    }
    let output = carrier.run(Tool::Restore, &args, &file.text).map_err(fail)?;
    told.push_str(&String::from_utf8_lossy(&output.stdout));
    let _ = io::stderr().write_all(file.renumbered(&String::from_utf8_lossy(&output.stderr)).as_bytes());
    let _ = context.succeed(&told);
    match exit_code(&output) {
        0 => Ok(()),
        code => Err(ExitCode::from(u8::try_from(code).unwrap_or(1))),
    }
}

/// A line of a file without its newline. `COMMIT` is one that had none, and that is not to become one.
fn bare(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    match text.strip_suffix('\n') {
        Some(text) => text.to_owned(),
        None if text == "COMMIT" => "COMMIT ".to_owned(),
        None => text.into_owned(),
    }
}

fn builtins(reading: &Reading) -> Vec<(String, bool)> {
    reading.chains.iter().filter(|(_, builtin)| *builtin).cloned().collect()
}

/// What iptables-restore says of a table that it empties.
fn cleared(reading: &Reading) -> impl Iterator<Item = String> {
    let flushed = reading.chains.iter().map(|(name, _)| format!("Flushing chain `{name}'\n"));
    let users = reading.chains.iter().filter(|(_, builtin)| !builtin);
    flushed.chain(users.map(|(name, _)| format!("Deleting chain `{name}'\n")))
}

/// Lines that leave nothing of the host table but what is ours. iptables-nft takes policies away too.
fn emptied(reading: &Reading, variant: Variant) -> Vec<String> {
    let flushed = reading.chains.iter().map(|(name, _)| format!("-F {name}"));
    let rest = reading.chains.iter().filter_map(|(name, builtin)| match (builtin, variant) {
        (false, _) => Some(format!("-X {name}")),
        (true, Variant::Nft) => Some(format!("-P {name} ACCEPT")),
        (true, Variant::Legacy) => None,
    });
    flushed.chain(rest).collect()
}

/// A line of the file, such that it does not touch what is ours. `known` are the chains that there are by then.
fn expanded(context: &Context, hosting: &Hosting, known: &mut Vec<(String, bool)>, line: &str) -> Vec<String> {
    let as_it_is = vec![line.to_owned()];
    let args = match restore::read_line(line) {
        Line::Chain { name, .. } if hosting.is_ours(&name) => return vec![String::new()],
        Line::Chain { name, .. } => {
            if !known.iter().any(|(chain, _)| *chain == name) {
                known.push((name, false));
            }
            return as_it_is;
        }
        Line::Command { args, .. } => args,
        _ => return as_it_is,
    };
    let Some(spot) = spot(context.front.family, &args, &context.dialect()) else { return as_it_is };
    match (spot.letter, spot.chain) {
        ('N', Some(name)) => {
            known.push((name, false));
            as_it_is
        }
        (letter @ ('F' | 'Z'), None) => known.iter().map(|(name, _)| format!("-{letter} {name}")).collect(),
        ('X', None) => {
            let users: Vec<String> =
                known.iter().filter(|(_, builtin)| !builtin).map(|(name, _)| format!("-X {name}")).collect();
            known.retain(|(_, builtin)| *builtin);
            users
        }
        _ => as_it_is,
    }
}

/// A file whose lines have the numbers of others.
#[derive(Default)]
struct Numbered {
    text: String,
    numbers: Vec<usize>,
}

impl Numbered {
    fn push(&mut self, number: usize, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.numbers.push(number);
    }

    /// What was said of the file, said of those lines.
    fn renumbered(&self, said: &str) -> String {
        let mut out = String::new();
        let mut rest = said;
        while let Some(at) = rest.find("line") {
            let (before, from) = rest.split_at(at + "line".len());
            let whole = !before.trim_end_matches("line").ends_with(|c: char| c.is_alphanumeric());
            out.push_str(before);
            let gap = from.len() - from.trim_start_matches([':', ' ']).len();
            let digits = from.bytes().skip(gap).take_while(u8::is_ascii_digit).count();
            let number = from.get(gap..gap + digits).and_then(|digits| digits.parse::<usize>().ok());
            let mapped = number.map(|number| self.number(number));
            match mapped.filter(|_| whole && gap > 0) {
                Some(mapped) => {
                    let _ = write!(out, "{}{mapped}", from.get(..gap).unwrap_or_default());
                    rest = from.get(gap + digits..).unwrap_or_default();
                }
                None => rest = from,
            }
        }
        out.push_str(rest);
        out
    }

    /// Of a line that is there, or of those behind the last.
    fn number(&self, line: usize) -> usize {
        let last = self.numbers.last().copied().unwrap_or(0);
        line.checked_sub(1).and_then(|at| self.numbers.get(at)).copied().unwrap_or(last + line - self.numbers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CarrierKind;

    fn mangle() -> &'static Hosting {
        Hosting::of(CarrierKind::Mangle).expect("there is one")
    }

    #[test]
    fn ours_does_not_show_in_a_saved_table() {
        let text = "*mangle\n:PREROUTING ACCEPT [0:0]\n:xtshim-raw-OUTPUT - [0:0]\n\
            [0:0] -A PREROUTING -j xtshim-raw-PREROUTING\n[1:1] -A PREROUTING -j mine\n\
            [0:0] -A xtshim-raw-OUTPUT -j DROP\nCOMMIT\n";
        let hidden = "*mangle\n:PREROUTING ACCEPT [0:0]\n[1:1] -A PREROUTING -j mine\nCOMMIT\n";
        assert_eq!(unsaved(text, mangle()), hidden);
        let text = "-P PREROUTING ACCEPT -c 1 2\n-N xtshim-raw-OUTPUT\n-A OUTPUT -c 1 2 -j xtshim-raw-OUTPUT\n\
            -A OUTPUT -c 1 2 -j mine\n";
        assert_eq!(unsaved(text, mangle()), "-P PREROUTING ACCEPT -c 1 2\n-A OUTPUT -c 1 2 -j mine\n");
    }

    #[test]
    fn ours_does_not_show_in_a_listing() {
        let head = "num  target     prot opt source               destination         \n";
        let text = format!(
            "Chain PREROUTING (policy ACCEPT)\n{head}1    xtshim-raw-PREROUTING  all  --  anywhere\n\
             2    ACCEPT     all  --  anywhere\n\nChain mine (0 references)\n{head}1    ACCEPT     all\n\n\
             Chain xtshim-raw-OUTPUT (1 references)\n{head}1    DROP       all\n"
        );
        let hidden = format!(
            "Chain PREROUTING (policy ACCEPT)\n{head}1    ACCEPT     all  --  anywhere\n\n\
             Chain mine (0 references)\n{head}1    ACCEPT     all\n"
        );
        assert_eq!(unlisted(&text, mangle()), hidden);
    }

    #[test]
    fn numbers_of_lines_are_those_of_the_callers_file() {
        let mut file = Numbered::default();
        [(1, "*x"), (1, "-D"), (2, "-A"), (3, "COMMIT")].iter().for_each(|(number, line)| file.push(*number, line));
        assert_eq!(file.renumbered("iptables-restore: line 3 failed\n"), "iptables-restore: line 2 failed\n");
        assert_eq!(file.renumbered("Error occurred at line: 4\n"), "Error occurred at line: 3\n");
        assert_eq!(file.renumbered("COMMIT expected at line 5\n"), "COMMIT expected at line 4\n");
        assert_eq!(file.renumbered("outline online 7\n"), "outline online 7\n");
    }
}
