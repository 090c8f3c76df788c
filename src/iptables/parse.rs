//! Command lines: iptables(8), OPTIONS.

#![forbid(unsafe_code)]

use super::address::{self, AddressMatch, Network};
use super::command::{Command, Invocation};
use super::dialect::{Dialect, KEPT};
use super::ext::{self, Finished, Input, Lookup, Opt, Values};
use super::getopt::{Long, Scanner, Takes, Token, Value};
use super::interface::InterfaceMatch;
use super::protocol::{self, Protocol};
use super::rule::{Rule, Target};
use super::{number, restore};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use std::hint::black_box;

/// Headers that ip6tables looks behind for a packet's protocol: routing, fragment, authentication, destination options
/// (RFC 8200, section 4).
const EXTENSION_HEADERS: [u8; 4] = [43, 44, 51, 60];

/// XT_EXTENSION_MAXNAMELEN less its NUL (linux/netfilter/x_tables.h).
pub const NAME_MAX: usize = 28;

/// What an option on the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    /// iptables' own, by its letter.
    Own(char),
    /// Of the match loaded n-th.
    Match(usize, u8),
    /// Of the target.
    Target(u8),
}

const fn own(name: &'static str, letter: char, takes: Takes) -> Long<Id> {
    Long { name, takes, id: Id::Own(letter) }
}

/// `--line-numbers` has no letter; its messages call it `0`.
const LINE_NUMBERS: char = '0';

const OWN: &[Long<Id>] = &[
    own("append", 'A', Takes::Value),
    own("delete", 'D', Takes::Value),
    own("check", 'C', Takes::Value),
    own("insert", 'I', Takes::Value),
    own("replace", 'R', Takes::Value),
    own("list", 'L', Takes::Maybe),
    own("list-rules", 'S', Takes::Maybe),
    own("flush", 'F', Takes::Maybe),
    own("zero", 'Z', Takes::Maybe),
    own("new-chain", 'N', Takes::Value),
    own("delete-chain", 'X', Takes::Maybe),
    own("rename-chain", 'E', Takes::Value),
    own("policy", 'P', Takes::Value),
    own("source", 's', Takes::Value),
    own("destination", 'd', Takes::Value),
    own("src", 's', Takes::Value),
    own("dst", 'd', Takes::Value),
    own("protocol", 'p', Takes::Value),
    own("in-interface", 'i', Takes::Value),
    own("jump", 'j', Takes::Value),
    own("table", 't', Takes::Value),
    own("match", 'm', Takes::Value),
    own("numeric", 'n', Takes::Nothing),
    own("out-interface", 'o', Takes::Value),
    own("verbose", 'v', Takes::Nothing),
    own("wait", 'w', Takes::Maybe),
    own("wait-interval", 'W', Takes::Maybe),
    own("exact", 'x', Takes::Nothing),
    own("fragments", 'f', Takes::Nothing),
    own("version", 'V', Takes::Nothing),
    own("help", 'h', Takes::Maybe),
    own("line-numbers", LINE_NUMBERS, Takes::Nothing),
    own("modprobe", 'M', Takes::Value),
    own("set-counters", 'c', Takes::Value),
    own("goto", 'g', Takes::Value),
    own("ipv4", '4', Takes::Nothing),
    own("ipv6", '6', Takes::Nothing),
];

fn short(letter: char) -> Option<(Id, Takes)> {
    if letter == LINE_NUMBERS {
        return None;
    }
    OWN.iter().find(|option| option.id == Id::Own(letter)).map(|option| (option.id, option.takes))
}

fn parameter(text: impl Into<String>) -> Error {
    Error::Parameter(text.into())
}

/// Which table a command line means, read leniently, without parsing rules: extensions' options that nobody here
/// knows are passed over. `None`: no `-t` given.
pub fn peek_table<'a>(mut args: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut table = None;
    while let Some(word) = args.next() {
        if let Some(name) = word.strip_prefix("--") {
            let (name, attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            // No other option of iptables' own begins with `t`.
            if !name.is_empty() && "table".starts_with(name) {
                table = attached.or_else(|| args.next());
            } else if attached.is_none() && takes_word(name) {
                args.next();
            }
        } else if let Some(letters) = word.strip_prefix('-') {
            peek_letters(letters, &mut args, &mut table);
        }
    }
    table
}

/// Which table a command line means, where that takes no reading: `None` where a word might be another option's value or
/// another way to say `-t`.
#[inline(always)]
pub fn plain_table<'a>(mut args: impl Iterator<Item = &'a [u8]>) -> Option<Option<&'a [u8]>> {
    let mut table = None;
    while let Some(word) = args.next() {
        match word {
            b"-w" | b"--wait" if table.is_none() => {}
            b"-t" | b"--table" if table.is_none() => table = Some(args.next()?),
            _ if may_name_table(word) => return None,
            // Behind any other word `-t` could be that word's value.
            _ => return (!args.any(may_name_table)).then_some(table),
        }
    }
    Some(table)
}

/// Whether the word could be one of the ways to say `-t` (`--tab`, `-nt`, `-tnat`).
#[inline(always)]
fn may_name_table(word: &[u8]) -> bool {
    const LONG: [u8; 5] = *b"table";
    match word {
        [b'-', b'-', name @ ..] => {
            let len = name.iter().position(|byte| *byte == b'=').unwrap_or(name.len());
            let name = name.get(..len).unwrap_or_default();
            // Byte for byte, because a front at its very beginning does without the C library's memcmp.
            !name.is_empty() && len <= LONG.len() && name.iter().zip(black_box(LONG)).all(|(byte, of)| *byte == of)
        }
        [b'-', letters @ ..] => letters.contains(&b't'),
        _ => false,
    }
}

/// Whether the long option is one of those whose value must not be taken for an option.
fn takes_word(name: &str) -> bool {
    matches!(name, "comment" | "log-prefix" | "nflog-prefix")
        || OWN.iter().any(|option| option.name == name && option.takes == Takes::Value)
}

fn peek_letters<'a>(letters: &'a str, args: &mut impl Iterator<Item = &'a str>, table: &mut Option<&'a str>) {
    for (index, letter) in letters.char_indices() {
        let rest = letters.get(index + letter.len_utf8()..).unwrap_or_default();
        match short(letter) {
            Some((Id::Own('t'), _)) => {
                *table = if rest.is_empty() { args.next() } else { Some(rest) };
                return;
            }
            Some((_, Takes::Nothing)) => {}
            Some((_, Takes::Value)) if rest.is_empty() => {
                args.next();
                return;
            }
            _ => return,
        }
    }
}

/// Parses a command line; `args` are the words behind the program's name.
pub fn parse(family: Family, args: &[String], dialect: &Dialect) -> Result<Invocation, Error> {
    let words = words(args);
    let mut parser = Parser::new(family, &words, dialect);
    parser.read()?;
    parser.invocation()
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Parses a line of an iptables-restore file, in which `table` is given; `args` are its words.
pub fn parse_line(family: Family, table: &str, args: &[&str], dialect: &Dialect) -> Result<Invocation, Error> {
    let mut parser = Parser::new(family, args, dialect);
    parser.table = table.to_owned();
    parser.restoring = true;
    parser.read()?;
    parser.invocation()
}

/// Reads the kept form of a rule; see [`Rule::from_spec`].
pub(super) fn spec(family: Family, table: &str, text: &str, chain: Option<&str>) -> Result<Rule, Error> {
    let broken = || parameter(format!("not a rule: {text}"));
    let words = restore::Words::of(text).ok_or_else(broken)?;
    let mut args: Vec<&str> = Vec::with_capacity(16);
    args.extend(words.iter());
    let jump = match args.first() {
        Some(&"jump") => Some(Target::Jump as fn(String) -> Target),
        Some(&"goto") => Some(Target::Goto as fn(String) -> Target),
        _ => None,
    };
    let dialect = Dialect { family, variant: Variant::Nft, version: KEPT };
    let mut parser = Parser::new(family, args.get(usize::from(jump.is_some())..).unwrap_or_default(), &dialect);
    parser.table = table.to_owned();
    let chain_of_any = Some("-".to_owned());
    parser.command = Some(Ordered { letter: 'A', chain: chain_of_any, number: None, second: None, number_at: 0 });
    parser.read()?;
    let Command::Append { rules, .. } = parser.invocation()?.command else { return Err(broken()) };
    let mut rules = rules.into_iter();
    let (Some(mut rule), None) = (rules.next(), rules.next()) else { return Err(broken()) };
    match (jump, chain) {
        (Some(target), Some(chain)) => rule.target = target(chain.to_owned()),
        (None, None) => {}
        _ => return Err(broken()),
    }
    Ok(rule)
}

/// A command's letter and what it was told.
#[derive(Clone, Debug)]
struct Ordered {
    letter: char,
    chain: Option<String>,
    number: Option<u32>,
    second: Option<String>,
    /// Index of the word that is the number, or would be.
    number_at: usize,
}

/// What a command line does, and where its number stands: found on lines of which not all can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The command's letter.
    pub letter: char,
    /// What stands behind it.
    pub chain: Option<String>,
    /// The rule's number, from 1.
    pub number: Option<u32>,
    /// Index of the word that is the number, or before which it would stand.
    pub number_at: usize,
    /// `-Z` beside `-L` or `-S`.
    pub zero: bool,
    /// `-v`
    pub verbose: bool,
    /// `-w`: `Some(None)` waits for ever, `Some(Some(s))` s seconds.
    pub wait: Option<Option<u32>>,
}

/// Looks for the command on a line. Matches and targets that nobody here knows are passed over: their options' values
/// are words to nobody.
pub fn spot(family: Family, args: &[String], dialect: &Dialect) -> Option<Spot> {
    // An option of -m recent, not the beginning of --set-counters.
    let unknown = |word: &String| if word == "--set" { "--recent-set".to_owned() } else { word.clone() };
    let args: Vec<String> = args.iter().map(unknown).collect();
    let words = words(&args);
    let mut parser = Parser::new(family, &words, dialect);
    while parser.read().is_err() && parser.scanner.has_rest() {
        parser.inverted = false;
    }
    let Ordered { letter, chain, number, number_at, .. } = parser.command?;
    let (zero, verbose, wait) = (parser.zero, parser.verbose > 0, parser.wait);
    Some(Spot { letter, chain, number, number_at, zero, verbose, wait })
}

struct Parser<'a> {
    family: Family,
    dialect: &'a Dialect,
    scanner: Scanner<'a>,
    /// Long options of the extensions, those loaded last first.
    long: Vec<Long<Id>>,
    inverted: bool,
    command: Option<Ordered>,
    zero: bool,
    /// It is a line of a file.
    restoring: bool,
    /// Letters of the options that were given, for the checks at the end.
    given: Vec<char>,
    table: String,
    verbose: u8,
    wait: Option<Option<u32>>,
    wait_interval: bool,
    modprobe: Option<String>,
    source: Option<(&'a str, bool)>,
    destination: Option<(&'a str, bool)>,
    rule: Rule,
    protocol_word: Option<String>,
    protocol_loaded: bool,
    /// Options already met, for those that may come once.
    seen: Vec<Id>,
    counters: Option<(u64, u64)>,
    /// What iptables says of interfaces' names.
    weird: Vec<String>,
}

impl<'a> Parser<'a> {
    fn new(family: Family, args: &'a [&'a str], dialect: &'a Dialect) -> Self {
        Self {
            family,
            dialect,
            scanner: Scanner::new(args),
            long: Vec::new(),
            inverted: false,
            command: None,
            zero: false,
            restoring: false,
            given: Vec::new(),
            table: "filter".to_owned(),
            verbose: 0,
            wait: None,
            wait_interval: false,
            modprobe: None,
            source: None,
            destination: None,
            rule: Rule::new(family),
            protocol_word: None,
            protocol_loaded: false,
            seen: Vec::new(),
            counters: None,
            weird: Vec::new(),
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        loop {
            let before = self.scanner;
            match self.scanner.next(short, &[OWN, &self.long]) {
                Token::End => break,
                Token::Word("!") if self.inverted => {
                    return Err(parameter("multiple consecutive ! not allowed"));
                }
                Token::Word("!") => self.inverted = true,
                Token::Word(word) => return Err(Error::BareParameter(format!("Bad argument `{word}'"))),
                Token::MissingValue(word) => {
                    return Err(parameter(format!("option \"{word}\" requires an argument")));
                }
                Token::Unknown(word) => {
                    if !self.load_implied()? {
                        return Err(parameter(format!("unknown option \"{word}\"")));
                    }
                    self.scanner = before;
                }
                Token::Option { id, value } => {
                    let inverted = std::mem::take(&mut self.inverted);
                    if self.option(id, value, inverted)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes one option; `true` ends the line (`-h`, `-V`).
    fn option(&mut self, id: Id, value: Option<Value<'a>>, inverted: bool) -> Result<bool, Error> {
        match id {
            Id::Own(letter) => self.own(letter, value, inverted),
            Id::Match(..) | Id::Target(_) => self.extension_option(id, value, inverted).map(|()| false),
        }
    }

    fn own(&mut self, letter: char, value: Option<Value<'a>>, inverted: bool) -> Result<bool, Error> {
        let text = value.map(|value| value.text).unwrap_or_default();
        match letter {
            'A' | 'D' | 'C' | 'I' | 'R' | 'L' | 'S' | 'F' | 'Z' | 'N' | 'X' | 'E' | 'P' => {
                self.command(letter, value, inverted)?;
            }
            'V' => {
                self.refuse_bang(inverted, "-V")?;
                self.command = Some(Ordered { letter, chain: None, number: None, second: None, number_at: 0 });
                return Ok(true);
            }
            'h' => {
                self.command = Some(Ordered { letter, chain: None, number: None, second: None, number_at: 0 });
                return Ok(true);
            }
            's' => {
                self.give('s')?;
                self.source = Some((self.attached_word(value), inverted));
            }
            'd' => {
                self.give('d')?;
                self.destination = Some((self.attached_word(value), inverted));
            }
            'p' => {
                self.give('p')?;
                self.protocol(value, inverted)?;
            }
            'j' | 'g' => self.target(letter, value, inverted)?,
            'i' | 'o' => {
                let name = self.attached_word(value);
                self.interface(letter, name, inverted)?;
            }
            'f' => {
                if self.family == Family::V6 {
                    return Err(parameter("`-f' is not supported in IPv6, use -m frag instead"));
                }
                self.give('f')?;
                self.rule.fragment = Some(inverted);
            }
            'v' => {
                self.repeat('v');
                self.verbose = self.verbose.saturating_add(1);
            }
            'm' => {
                if inverted {
                    return Err(parameter("unexpected ! flag before --match"));
                }
                self.load_match(text)?;
            }
            'n' | 'x' => self.give(letter)?,
            LINE_NUMBERS => self.give(letter)?,
            't' => {
                if inverted {
                    return Err(parameter("unexpected ! flag before --table"));
                }
                if self.restoring {
                    return Err(no_table(self.family));
                }
                self.table = text.to_owned();
            }
            'M' => self.modprobe = Some(text.to_owned()),
            'c' => self.set_counters(text)?,
            'w' => {
                let text = value.map(|value| value.text).or_else(|| self.scanner.detached());
                let seconds = |t: &str| number::leading(t).map(|s| s as u32);
                self.wait = match text {
                    None => Some(None),
                    Some(t) => Some(Some(seconds(t).ok_or_else(|| parameter("wait seconds not numeric"))?)),
                };
            }
            'W' => {
                let text = value.map(|value| value.text).or_else(|| self.scanner.detached());
                let text = text.ok_or_else(|| parameter("wait interval value required"))?;
                number::leading(text).ok_or_else(|| parameter("wait interval not numeric"))?;
                self.wait_interval = true;
            }
            '4' | '6' => {
                let other = if letter == '4' { Family::V6 } else { Family::V4 };
                if self.family == other {
                    return Err(Error::WrongFamily);
                }
            }
            _ => return Err(parameter(format!("unknown option \"-{letter}\""))),
        }
        Ok(false)
    }

    fn refuse_bang(&self, inverted: bool, option: &str) -> Result<(), Error> {
        if inverted { Err(parameter(format!("cannot have ! before {option}"))) } else { Ok(()) }
    }

    /// The value; but of an attached one, 1.8.8 and 1.8.9 read the whole word.
    fn attached_word(&self, value: Option<Value<'a>>) -> &'a str {
        let Some(value) = value else { return "" };
        let whole = matches!(self.dialect.version, (1, 8, 8 | 9));
        value.attached_to.filter(|_| whole).unwrap_or(value.text)
    }

    fn repeat(&mut self, letter: char) {
        if !self.given.contains(&letter) {
            self.given.push(letter);
        }
    }

    /// Notes an option that may be given once.
    fn give(&mut self, letter: char) -> Result<(), Error> {
        if self.given.contains(&letter) {
            return Err(parameter(if self.dialect.version >= (1, 8, 11) {
                format!("multiple {} options not allowed", long_name(letter))
            } else {
                format!("multiple -{letter} flags not allowed")
            }));
        }
        self.given.push(letter);
        Ok(())
    }

    fn command(&mut self, letter: char, value: Option<Value<'a>>, inverted: bool) -> Result<(), Error> {
        let list_and_zero = |a, b| matches!(a, 'L' | 'S') && b == 'Z';
        if inverted {
            return Err(parameter("unexpected '!' flag"));
        }
        match &self.command {
            Some(first) if list_and_zero(first.letter, letter) => {
                let (listed, zero) = (first.clone(), self.ordered(letter, value)?);
                // The last chain counts, for both. Behind a number nothing is listed.
                self.command = Some(match zero.number {
                    Some(_) => zero,
                    None => Ordered { chain: zero.chain.or(listed.chain.clone()), ..listed },
                });
                self.zero = self.command.as_ref().is_some_and(|command| command.letter != letter);
                return Ok(());
            }
            Some(first) if list_and_zero(letter, first.letter) && first.number.is_none() => {
                let zeroed = first.chain.clone();
                let listed = self.ordered(letter, value)?;
                self.command = Some(Ordered { chain: listed.chain.clone().or(zeroed), ..listed });
                self.zero = true;
                return Ok(());
            }
            Some(first) => {
                return Err(parameter(format!("Cannot use -{letter} with -{}", first.letter)));
            }
            None => {}
        }
        self.command = Some(self.ordered(letter, value)?);
        Ok(())
    }

    fn ordered(&mut self, letter: char, value: Option<Value<'a>>) -> Result<Ordered, Error> {
        let text = value.map(|value| value.text);
        let mut ordered = Ordered { letter, chain: text.map(str::to_owned), number: None, second: None, number_at: 0 };
        ordered.number_at = self.scanner.position();
        match letter {
            'A' | 'C' => {}
            'D' => ordered.number = self.rule_number()?,
            'I' => ordered.number = Some(self.rule_number()?.unwrap_or(1)),
            'R' => {
                let missing = || parameter("-R requires a rule number");
                ordered.number = Some(self.rule_number()?.ok_or_else(missing)?);
            }
            'N' => self.check_new_name(text.unwrap_or_default())?,
            'E' => {
                let missing = || parameter("-E requires old-chain-name and new-chain-name");
                let to = self.scanner.detached().ok_or_else(missing)?;
                self.check_new_name(to)?;
                ordered.second = Some(to.to_owned());
            }
            'P' => {
                let missing = || parameter("-P requires a chain and a policy");
                ordered.second = Some(self.scanner.detached().ok_or_else(missing)?.to_owned());
            }
            _ => {
                if text.is_none() {
                    ordered.chain = self.scanner.detached().map(str::to_owned);
                }
                ordered.number_at = self.scanner.position();
                if matches!(letter, 'L' | 'S' | 'Z') && ordered.chain.is_some() {
                    ordered.number = self.rule_number()?;
                }
            }
        }
        Ok(ordered)
    }

    fn rule_number(&mut self) -> Result<Option<u32>, Error> {
        let Some(text) = self.scanner.detached() else { return Ok(None) };
        match number::parse(text, i32::MAX as u64) {
            Some(number) if number > 0 => Ok(Some(number as u32)),
            _ => Err(parameter(format!("Invalid rule number `{text}'"))),
        }
    }

    fn check_new_name(&self, name: &str) -> Result<(), Error> {
        if name.len() > NAME_MAX {
            return Err(too_long(name));
        }
        if let Some(sign @ ('-' | '!')) = name.chars().next() {
            return Err(parameter(format!("chain name not allowed to start with `{sign}'")));
        }
        if name.is_empty() || ext::is_target_name(name, self.family) {
            return Err(parameter("chain name may not clash with target name"));
        }
        if self.dialect.version >= (1, 8, 8) && name.contains([' ', '\t', '\n', '\x0b', '\x0c', '\r']) {
            return Err(parameter(format!("Invalid chain name `{name}'")));
        }
        Ok(())
    }

    fn protocol(&mut self, value: Option<Value<'a>>, inverted: bool) -> Result<(), Error> {
        let word = self.attached_word(value).to_ascii_lowercase();
        let number = protocol::parse(&word)?;
        if number == 0 && inverted {
            return Err(parameter("rule would never match protocol"));
        }
        self.rule.protocol = Protocol { number, inverted };
        self.protocol_word = Some(word);
        Ok(())
    }

    fn interface(&mut self, letter: char, text: &str, inverted: bool) -> Result<(), Error> {
        if text.is_empty() {
            return Err(parameter("Empty interface is likely to be undesired"));
        }
        self.give(letter)?;
        let interface = InterfaceMatch::parse(text, inverted, self.dialect)?;
        if text.contains(['/', ' ', '\t', '\n', '\x0b', '\x0c', '\r']) {
            let reason = "('/' and ' ' are not allowed by the kernel)";
            self.weird.push(format!("Warning: weird character in interface `{text}' {reason}."));
        }
        let slot = if letter == 'i' { &mut self.rule.input } else { &mut self.rule.output };
        *slot = Some(interface);
        Ok(())
    }

    fn set_counters(&mut self, text: &str) -> Result<(), Error> {
        self.give('c')?;
        let short = self.dialect.version < (1, 8, 11);
        let name = if short { "-c" } else { "--set-counters" };
        let (packets, bytes) = match text.split_once(',') {
            Some(pair) => pair,
            None => match self.scanner.detached() {
                Some(bytes) => (text, bytes),
                None => return Err(parameter(format!("{name} requires packet and byte counter"))),
            },
        };
        let number = |text: &str, what: &str| {
            number::leading(text).ok_or_else(|| parameter(format!("{name} {what} counter not numeric")))
        };
        self.counters = Some((number(packets, "packet")?, number(bytes, "byte")?));
        Ok(())
    }

    fn target(&mut self, letter: char, value: Option<Value<'a>>, inverted: bool) -> Result<(), Error> {
        if inverted {
            let name = if self.dialect.version < (1, 8, 11) { "-j" } else { "--jump" };
            return Err(parameter(format!("cannot have ! before {name}")));
        }
        self.give('j')?;
        let name = self.attached_word(value);
        if name.is_empty() {
            return Err(parameter("Invalid target name (too short)"));
        }
        if name.len() > NAME_MAX {
            return Err(parameter(format!("Invalid target name `{name}' ({NAME_MAX} chars max)")));
        }
        if name.contains(|c: char| c.is_ascii_whitespace()) {
            return Err(parameter(format!("Invalid target name `{name}'")));
        }
        if letter == 'g' {
            if ext::is_target_name(name, self.family) {
                return Err(match self.dialect.variant {
                    Variant::Legacy => parameter(format!("goto '{name}' is not a chain{}", self.dialect.blank_line())),
                    Variant::Nft => parameter(format!("Chain '{name}' does not exist")),
                });
            }
            self.rule.target = Target::Goto(name.to_owned());
            return Ok(());
        }
        self.rule.target = match name {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            _ => match ext::find_target(name, self.family) {
                Lookup::Known(target) => {
                    self.add_options(target.options(), Id::Target);
                    Target::Extension(target)
                }
                Lookup::NotCarried(why) => return Err(not_carried("-j", name, why)),
                Lookup::Unknown => Target::Jump(name.to_owned()),
            },
        };
        Ok(())
    }

    fn load_match(&mut self, name: &str) -> Result<(), Error> {
        match ext::find_match(name, self.family) {
            Lookup::Known(extension) => {
                let index = self.rule.matches.len();
                self.add_options(extension.options(), |id| Id::Match(index, id));
                self.rule.matches.push(extension);
                Ok(())
            }
            Lookup::NotCarried(why) => Err(not_carried("-m", name, why)),
            Lookup::Unknown => Err(parameter(format!("Couldn't load match `{name}':No such file or directory\n"))),
        }
    }

    /// Loads the match that `-p` brings along; once.
    fn load_implied(&mut self) -> Result<bool, Error> {
        let Some(word) = &self.protocol_word else { return Ok(false) };
        if self.protocol_loaded {
            return Ok(false);
        }
        let name = protocol::implied_match(word, self.family);
        if matches!(ext::find_match(&name, self.family), Lookup::Unknown) {
            return Ok(false);
        }
        self.protocol_loaded = true;
        self.load_match(&name)?;
        Ok(true)
    }

    /// Puts an extension's options into the table: behind iptables' own, before those that were loaded earlier.
    fn add_options(&mut self, options: &'static [Opt], id: impl Fn(u8) -> Id) {
        let names = options.iter().flat_map(|option| option.names.iter().map(move |name| (option, *name)));
        let rows = names.map(|(option, name)| Long { name, takes: option.values.takes(), id: id(option.id) });
        self.long.splice(..0, rows);
    }

    fn extension_option(&mut self, id: Id, value: Option<Value<'a>>, inverted: bool) -> Result<(), Error> {
        let (extension, number) = match (id, &mut self.rule.target) {
            (Id::Match(index, number), _) => (self.rule.matches.get_mut(index), number),
            (Id::Target(number), Target::Extension(target)) => (Some(target), number),
            _ => (None, 0),
        };
        let known = extension.and_then(|e| e.options().iter().find(|o| o.id == number).map(|o| (e, o)));
        let Some((extension, option)) = known else { return Err(parameter("unknown option")) };
        let name = extension.name();
        let long = option.names.first().copied().unwrap_or_default();
        if inverted && !option.invertible {
            return Err(parameter(format!("{name}: option \"--{long}\" cannot be inverted.\n")));
        }
        if option.once && self.seen.contains(&id) {
            return Err(parameter(format!("{name}: option \"--{long}\" can only be used once.\n")));
        }
        self.seen.push(id);
        let second = if option.values == Values::Two { self.scanner.detached() } else { None };
        extension.option(&Input {
            id: number,
            value: value.map(|value| value.text).unwrap_or_default(),
            second,
            inverted,
            family: self.family,
            protocol: self.rule.protocol,
            dialect: self.dialect,
        })
    }

    fn invocation(mut self) -> Result<Invocation, Error> {
        let Some(ordered) = self.command.take() else {
            self.finish_extensions()?;
            return Err(self.leftover().unwrap_or_else(|| parameter("no command specified")));
        };
        if !matches!(ordered.letter, 'V' | 'h') {
            self.finish_extensions()?;
            if let Some(error) = self.leftover() {
                return Err(error);
            }
        }
        let warnings = self.warnings();
        let command = match ordered.letter {
            'V' => Command::Version,
            'h' => Command::Help,
            _ => self.carry_out(ordered)?,
        };
        Ok(Invocation {
            family: self.family,
            table: self.table,
            command,
            verbose: self.verbose,
            numeric: self.given.contains(&'n'),
            exact: self.given.contains(&'x'),
            line_numbers: self.given.contains(&LINE_NUMBERS),
            wait: self.wait,
            modprobe: self.modprobe,
            warnings,
        })
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.weird.clone();
        if self.wait_interval && self.dialect.version >= (1, 8, 8) {
            warnings.push("Ignoring deprecated --wait-interval option.".to_owned());
        }
        let Protocol { number, inverted } = self.rule.protocol;
        if self.family == Family::V6 && !inverted && EXTENSION_HEADERS.contains(&number) {
            let word = self.protocol_word.as_deref().unwrap_or_default();
            warnings.push(format!("Warning: never matched protocol: {word}. use extension match instead."));
        }
        warnings.extend(self.rule.matches.iter().flat_map(|m| m.warnings()));
        if let Target::Extension(target) = &self.rule.target {
            warnings.extend(target.warnings());
        }
        warnings
    }

    fn finish_extensions(&mut self) -> Result<(), Error> {
        let finished = Finished { family: self.family, protocol: self.rule.protocol, dialect: self.dialect };
        let seen = &self.seen;
        for (index, extension) in self.rule.matches.iter_mut().enumerate() {
            extension.finish(&finished)?;
            check_options(extension.name(), extension.options(), |id| seen.contains(&Id::Match(index, id)))?;
        }
        if let Target::Extension(target) = &mut self.rule.target {
            target.finish(&finished)?;
            check_options(target.name(), target.options(), |id| seen.contains(&Id::Target(id)))?;
        }
        Ok(())
    }

    fn leftover(&self) -> Option<Error> {
        if self.wait_interval && self.wait.is_none() {
            return Some(parameter("--wait-interval only makes sense with --wait\n"));
        }
        if self.scanner.has_rest() {
            return Some(parameter("unknown arguments found on commandline"));
        }
        self.inverted.then(|| parameter("nothing appropriate following !"))
    }

    fn carry_out(&mut self, ordered: Ordered) -> Result<Command, Error> {
        let Ordered { letter, chain, number, second, number_at: _ } = ordered;
        let numbered = letter == 'D' && number.is_some();
        let takes_rule = matches!(letter, 'A' | 'I' | 'R' | 'D' | 'C') && !numbered;
        let (sources, destinations) = if takes_rule { self.addresses()? } else { (Vec::new(), Vec::new()) };
        let pairs = sources.len().max(1) * destinations.len().max(1);
        if letter == 'R' && pairs != 1 && self.dialect.version < (1, 8, 11) {
            return Err(parameter("Replacement rule does not specify a unique address"));
        }
        self.check_legal(letter, numbered)?;
        let named = chain.clone().unwrap_or_default();
        if named.len() > NAME_MAX {
            return Err(too_long(&named));
        }
        let mut rules = Vec::new();
        if takes_rule {
            self.check_chain(&named)?;
            rules = self.expand(&sources, &destinations);
        }
        if letter == 'R' {
            // From 1.8.11 on the first of several addresses counts.
            rules.truncate(1);
        }
        if letter == 'P' && second.as_deref() == Some("DROP") {
            self.check_drop()?;
        }
        let position = number.unwrap_or(1);
        Ok(match letter {
            'A' => Command::Append { chain: named, rules },
            'I' => {
                rules.reverse();
                Command::Insert { chain: named, position, rules }
            }
            'R' => Command::Replace { chain: named, position, rules },
            'D' if numbered => Command::DeleteNumber { chain: named, position },
            'D' => Command::DeleteRule { chain: named, rules },
            'C' => Command::Check { chain: named, rules },
            'L' => Command::List { chain, position: number, zero: self.zero },
            'S' => Command::ListRules { chain, position: number, zero: self.zero },
            'F' => Command::Flush { chain },
            'Z' => Command::Zero { chain, position: number },
            'N' => Command::NewChain { chain: named },
            'X' => Command::DeleteChain { chain },
            'E' => Command::RenameChain { from: named, to: second.unwrap_or_default() },
            _ => Command::Policy { chain: named, policy: second.unwrap_or_default(), counters: self.counters },
        })
    }

    fn addresses(&self) -> Result<(Vec<Network>, Vec<Network>), Error> {
        let read = |wanted: Option<(&str, bool)>| match wanted {
            Some((text, _)) => address::parse_list(text, self.family),
            None => Ok(Vec::new()),
        };
        let (sources, destinations) = (read(self.source)?, read(self.destination)?);
        let inverted = |wanted: Option<(&str, bool)>| wanted.is_some_and(|(_, inverted)| inverted);
        let several_inverted =
            (sources.len() > 1 && inverted(self.source)) || (destinations.len() > 1 && inverted(self.destination));
        if several_inverted {
            return Err(parameter("! not allowed with multiple source or destination IP addresses"));
        }
        Ok((sources, destinations))
    }

    /// Which options go with which commands.
    fn check_legal(&self, letter: char, numbered: bool) -> Result<(), Error> {
        let rule = matches!(letter, 'A' | 'I' | 'R' | 'D' | 'C') && !numbered;
        for option in ['n', 's', 'd', 'p', 'j', 'x', 'i', 'o', LINE_NUMBERS, 'c', 'f'] {
            let legal = match option {
                // 1.8.11 takes them for no command that -Z is part of.
                'n' | 'x' | LINE_NUMBERS => letter == 'L' && !(self.zero && self.dialect.version == (1, 8, 11)),
                'c' => matches!(letter, 'A' | 'I' | 'R' | 'P'),
                _ => rule,
            };
            if self.given.contains(&option) && !legal {
                return Err(parameter(if self.dialect.version >= (1, 8, 11) {
                    format!("Illegal option `{}' with this command", long_name(option))
                } else {
                    format!("Illegal option `-{option}' with this command")
                }));
            }
        }
        Ok(())
    }

    /// What a built-in chain cannot see.
    fn check_chain(&self, chain: &str) -> Result<(), Error> {
        let wrong = match chain {
            "PREROUTING" | "INPUT" => self.given.contains(&'o').then_some('o'),
            "POSTROUTING" | "OUTPUT" => self.given.contains(&'i').then_some('i'),
            _ => None,
        };
        if let Some(letter) = wrong {
            return Err(parameter(if self.dialect.version >= (1, 8, 11) {
                format!("Can't use {} with {chain}", long_name(letter))
            } else {
                format!("Can't use -{letter} with {chain}\n")
            }));
        }
        if matches!(self.rule.target, Target::Drop) { self.check_drop() } else { Ok(()) }
    }

    /// Table nat sees the first packet of a flow alone.
    fn check_drop(&self) -> Result<(), Error> {
        if self.table == "nat" {
            let text = "\nThe \"nat\" table is not intended for filtering, the use of DROP is therefore inhibited.\n\n";
            return Err(parameter(text));
        }
        Ok(())
    }

    fn expand(&mut self, sources: &[Network], destinations: &[Network]) -> Vec<Rule> {
        let wrap = |networks: &[Network], at: usize, wanted: Option<(&str, bool)>| {
            let inverted = wanted.is_some_and(|(_, inverted)| inverted);
            networks.get(at).map(|network| AddressMatch { network: *network, inverted })
        };
        let mut base = std::mem::replace(&mut self.rule, Rule::new(self.family));
        base.counters = self.counters.unwrap_or_default();
        let (across, down) = (sources.len().max(1), destinations.len().max(1));
        let mut rules = vec![base; across * down];
        for (number, rule) in rules.iter_mut().enumerate() {
            rule.source = wrap(sources, number / down, self.source);
            rule.destination = wrap(destinations, number % down, self.destination);
        }
        rules
    }
}

/// Options that exclude each other, and those that must be there.
fn check_options(name: &str, options: &'static [Opt], seen: impl Fn(u8) -> bool) -> Result<(), Error> {
    let long = |option: &Opt| option.names.first().copied().unwrap_or_default();
    for option in options {
        if !seen(option.id) {
            if option.required {
                return Err(parameter(format!("{name}: option \"--{}\" must be specified\n", long(option))));
            }
            continue;
        }
        let rival = |other: &&Opt| other.group == option.group && other.id != option.id && seen(other.id);
        if option.group != 0
            && let Some(other) = options.iter().find(rival)
        {
            return Err(parameter(format!(
                "{name}: option \"--{}\" cannot be used together with \"--{}\".\n",
                long(option),
                long(other)
            )));
        }
    }
    Ok(())
}

fn not_carried(option: &str, name: &str, why: &str) -> Error {
    Error::Refused(Refusal::new(format!("{option} {name}"), why))
}

/// What iptables-restore says of `-t` in a file.
fn no_table(family: Family) -> Error {
    parameter(format!("The -t option cannot be used in {}-restore.\n", family.program()))
}

fn too_long(name: &str) -> Error {
    parameter(format!("chain name `{name}' too long (must be under {} chars)", NAME_MAX + 1))
}

/// The long form of an option of iptables' own, as messages since 1.8.11 write it.
fn long_name(letter: char) -> String {
    let found = OWN.iter().find(|option| option.id == Id::Own(letter));
    format!("--{}", found.map(|option| option.name).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> (char, Option<String>, Option<u32>, usize) {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
        let spot = spot(Family::V4, &args, &dialect).expect("a command");
        (spot.letter, spot.chain, spot.number, spot.number_at)
    }

    /// Read off 1.8.9, 1.8.11 and 1.8.13 of both variants.
    #[test]
    fn versions_differ_over_lists_of_addresses_and_over_zeroing() {
        let read = |version, line: &str| {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            parse(Family::V4, &args, &Dialect { family: Family::V4, variant: Variant::Nft, version })
        };
        let replace = "-R INPUT 1 -s 10.0.0.1,10.0.0.2 -d 10.1.0.1,10.1.0.2 -j DROP";
        assert!(read((1, 8, 9), replace).is_err());
        for version in [(1, 8, 11), (1, 8, 13)] {
            let Ok(Command::Replace { rules, .. }) = read(version, replace).map(|read| read.command) else {
                panic!("{version:?}");
            };
            let specs: Vec<String> = rules.iter().map(Rule::spec).collect();
            assert_eq!(specs, ["-s 10.0.0.1/32 -d 10.1.0.1/32 -j DROP"]);
        }
        for (version, takes) in [((1, 8, 9), true), ((1, 8, 11), false), ((1, 8, 13), true)] {
            assert_eq!(read(version, "-L -Z -n").is_ok(), takes, "{version:?}");
            assert!(read(version, "-L -Z -v").is_ok() && read(version, "-nvxL").is_ok());
        }
    }

    #[test]
    fn a_command_is_found_on_lines_that_cannot_be_read() {
        let chain = |name: &str| Some(name.to_owned());
        assert_eq!(found("-t mangle -I INPUT -j ACCEPT"), ('I', chain("INPUT"), Some(1), 4));
        assert_eq!(found("--insert INPUT 7 -m string --string -D --algo bm"), ('I', chain("INPUT"), Some(7), 2));
        assert_eq!(found("-m strange --what ever -RINPUT 3 -j ACCEPT"), ('R', chain("INPUT"), Some(3), 5));
        assert_eq!(found("-m recent --set --name x -D INPUT 2"), ('D', chain("INPUT"), Some(2), 7));
        assert_eq!(found("-m policy --pol ipsec --dir in -A INPUT"), ('A', chain("INPUT"), None, 8));
        assert_eq!(found("-nvL INPUT 4 --line-numbers"), ('L', chain("INPUT"), Some(4), 2));
        assert_eq!(found("-w 5 -S INPUT 2"), ('S', chain("INPUT"), Some(2), 4));
        assert_eq!(found("-vZ"), ('Z', None, None, 1));
        assert_eq!(found("-F -t mangle"), ('F', None, None, 1));
    }
}
