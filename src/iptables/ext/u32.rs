//! `-m u32`: words of the packet, where ever they lie.

#![forbid(unsafe_code)]

use super::word::{Path, Read, Start, Step, Truth, Word, behind};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::number;
use crate::iptables::rule::bang;
use crate::iptables::translate::never;
use crate::nft::expr::Alternative;
use std::fmt::Write;

/// XT_U32_MAXSIZE of linux/netfilter/xt_u32.h, less the one that iptables itself does not use: so many tests, ranges of
/// a test and numbers of a location.
const MAX: usize = 10;

/// A word has so many bits; the kernel takes no greater shift.
const BITS: u32 = 32;

/// What is read in any IPv4 or IPv6 packet: the fixed part of the header (RFC 791, 3.1; RFC 8200, 3).
const SHORTEST: [u16; 2] = [20, 40];

const OPTIONS: &[Opt] = &[Opt::value(0, &["u32"]).required()];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    And,
    Left,
    Right,
    At,
}

impl Operator {
    fn text(self) -> &'static str {
        match self {
            Operator::And => "&",
            Operator::Left => "<<",
            Operator::Right => ">>",
            Operator::At => "@",
        }
    }
}

#[derive(Clone, Debug)]
struct Test {
    first: u32,
    then: Vec<(Operator, u32)>,
    ranges: Vec<(u32, u32)>,
}

#[derive(Clone, Debug, Default)]
struct U32 {
    tests: Vec<Test>,
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(U32::default())
}

/// Reads the little language of u32(8).
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
    }

    fn error<T>(&self, what: &str) -> Result<T, Error> {
        Err(Error::Parameter(format!("u32: at char {}: {what}", self.at)))
    }

    fn number(&mut self) -> Result<u32, Error> {
        self.blanks();
        let read = number::prefix(self.rest()).map(|(number, rest)| (u32::try_from(number), rest.len()));
        match read {
            Some((Ok(number), left)) => {
                self.at = self.text.len() - left;
                Ok(number)
            }
            _ => self.error("not a number or out of range"),
        }
    }

    /// Takes one character.
    fn take(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn operator(&mut self) -> Result<Operator, Error> {
        for (sign, operator) in [('<', Operator::Left), ('>', Operator::Right)] {
            if self.take(sign) {
                return match self.take(sign) {
                    true => Ok(operator),
                    false => self.error(&format!("a second '{sign}' was expected")),
                };
            }
        }
        match (self.take('&'), self.take('@')) {
            (true, _) => Ok(Operator::And),
            (_, true) => Ok(Operator::At),
            _ => self.error("operator expected"),
        }
    }

    fn location(&mut self) -> Result<(u32, Vec<(Operator, u32)>), Error> {
        let abrupt = || Err(Error::Parameter("u32: abrupt end of input after location specifier".to_owned()));
        self.blanks();
        if self.rest().is_empty() {
            return abrupt();
        }
        let first = self.number()?;
        let mut then = Vec::new();
        loop {
            self.blanks();
            if self.rest().is_empty() {
                return abrupt();
            }
            if self.take('=') {
                return Ok((first, then));
            }
            let operator = self.operator()?;
            let number = self.number()?;
            if then.len() + 1 == MAX {
                return self.error("too many operators");
            }
            then.push((operator, number));
        }
    }

    /// The ranges of a test; whether another test follows.
    fn ranges(&mut self, tests: usize) -> Result<(Vec<(u32, u32)>, bool), Error> {
        self.blanks();
        if self.rest().is_empty() {
            return Err(Error::Parameter("u32: test ended with no value specified".to_owned()));
        }
        let mut ranges = Vec::new();
        loop {
            let first = self.number()?;
            self.blanks();
            let last = if self.take(':') { self.number()? } else { first };
            if ranges.len() == MAX {
                return self.error("too many \",\"s");
            }
            ranges.push((first, last));
            self.blanks();
            if self.take(',') {
                continue;
            }
            let follows = match (self.rest().is_empty(), self.take('&')) {
                (true, _) => false,
                (_, true) if self.rest().starts_with('&') => true,
                (_, true) => return self.error("a second '&' was expected"),
                _ => return self.error("expected \",\" or \"&&\""),
            };
            if tests == MAX {
                return self.error("too many \"&&\"s");
            }
            self.take('&');
            return Ok((ranges, follows));
        }
    }
}

fn parse(text: &str) -> Result<Vec<Test>, Error> {
    let mut reader = Reader { text, at: 0 };
    let mut tests = Vec::new();
    loop {
        let (first, then) = reader.location()?;
        let (ranges, follows) = reader.ranges(tests.len())?;
        tests.push(Test { first, then, ranges });
        if !follows {
            return Ok(tests);
        }
    }
}

impl Test {
    fn text(&self, out: &mut String) {
        let _ = write!(out, "{:#x}", self.first);
        for (operator, number) in &self.then {
            let _ = write!(out, "{}{number:#x}", operator.text());
        }
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let _ = write!(out, "{}{first:#x}", if index == 0 { "=" } else { "," });
            if first != last {
                let _ = write!(out, ":{last:#x}");
            }
        }
    }

    /// What is read, in order, and what of it is compared.
    fn reduce(&self, family: Family) -> Result<(Vec<Step>, Word), Refusal> {
        let (mut start, mut base) = (Start::Network, 0u32);
        let mut steps = Vec::new();
        let mut read = |start, offset: u32| {
            let offset = u16::try_from(offset).map_err(|_| Refusal::new("--u32", "reads too far into the packet"))?;
            let read = Read { start, offset, len: 4 };
            steps.push(Step::Read(read));
            Ok::<_, Refusal>(Word::of(read))
        };
        let mut word = read(start, self.first)?;
        for (operator, number) in &self.then {
            word = match operator {
                Operator::And => word.and(*number),
                Operator::Left => word.left(*number),
                Operator::Right => word.right(*number),
                Operator::At => {
                    match (word.number(), behind(family, &word)) {
                        (Some(known), _) => base = base.saturating_add(known),
                        (None, Some(found)) if (start, base) == (Start::Network, 0) => start = found,
                        _ => {
                            let why = "moves on by a number of the packet other than the length of the IPv4 header";
                            return Err(Refusal::new("--u32", why));
                        }
                    }
                    read(start, base.saturating_add(*number))?
                }
            };
        }
        Ok((steps, word))
    }
}

impl U32 {
    fn text(&self) -> String {
        let mut out = String::new();
        for (index, test) in self.tests.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "&&" });
            test.text(&mut out);
        }
        out
    }

    /// One path where all tests hold; `None`: they never do.
    fn path(&self, family: Family) -> Result<Option<Path>, Refusal> {
        let mut path = Path::default();
        for test in &self.tests {
            let (steps, word) = test.reduce(family)?;
            path.steps.extend(steps);
            match word.is_among(&test.ranges, false)? {
                Truth::Always => {}
                Truth::Never => return Ok(None),
                Truth::Where(condition) => path.steps.push(Step::Holds(condition)),
            }
        }
        Ok(Some(path))
    }

    /// The paths on which not all tests hold: the first fails, or it holds and the second fails, and so on.
    fn inverted_paths(&self, family: Family) -> Result<Vec<Path>, Refusal> {
        let there = SHORTEST[usize::from(family == Family::V6)];
        let mut before = Path::default();
        let mut paths = Vec::new();
        for test in &self.tests {
            let (steps, word) = test.reduce(family)?;
            let sure = |step: &Step| matches!(step, Step::Read(read) if read.start == Start::Network && read.offset + read.len <= there);
            if !steps.iter().all(sure) {
                return Err(Refusal::new("! --u32", "matches packets that are too short to be looked at"));
            }
            match word.is_among(&test.ranges, true)? {
                Truth::Always => {
                    paths.push(before);
                    return Ok(paths);
                }
                Truth::Never => {}
                Truth::Where(condition) => {
                    let mut failing = before.clone();
                    failing.steps.push(Step::Holds(condition));
                    paths.push(failing);
                }
            }
            if let Truth::Where(condition) = word.is_among(&test.ranges, false)? {
                before.steps.push(Step::Holds(condition));
            }
        }
        Ok(paths)
    }
}

impl Extension for U32 {
    fn name(&self) -> &'static str {
        "u32"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        self.tests = parse(input.value)?;
        self.inverted = input.inverted;
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let shifts = |(operator, number): &(Operator, u32)| {
            matches!(operator, Operator::Left | Operator::Right) && *number >= BITS
        };
        match self.tests.iter().any(|test| test.then.iter().any(shifts)) {
            true => Err(place.invalid()),
            false => Ok(()),
        }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --u32 \"{}\"", bang(self.inverted), self.text());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " u32{} \"{}\"", bang(self.inverted), self.text());
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let family = context.place.family;
        let paths = match self.inverted {
            true => self.inverted_paths(family)?,
            false => self.path(family)?.into_iter().collect(),
        };
        let mut alternatives = Vec::new();
        for path in paths {
            alternatives.extend(path.alternatives(context)?);
        }
        match alternatives.is_empty() {
            true => Ok(vec![vec![never()]]),
            false => Ok(alternatives),
        }
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
