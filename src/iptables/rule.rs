//! A rule, and how it is written and listed.

#![forbid(unsafe_code)]

use super::address::AddressMatch;
use super::dialect::{Dialect, Variant};
use super::ext::{Extension, Form, ListStyle, Place};
use super::interface::InterfaceMatch;
use super::list::{ListOptions, counter_text};
use super::protocol::{self, Protocol, ip};
use super::{address, parse};
use crate::error::Error;
use crate::family::Family;
use std::fmt::Write;

/// What happens to the packets that match.
#[derive(Clone, Debug)]
pub enum Target {
    /// No `-j`: they are counted.
    None,
    /// `-j ACCEPT`
    Accept,
    /// `-j DROP`
    Drop,
    /// `-j RETURN`
    Return,
    /// `-j CHAIN`
    Jump(String),
    /// `-g CHAIN`
    Goto(String),
    /// A target extension.
    Extension(Box<dyn Extension>),
}

/// One rule of one family.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Whose addresses these are.
    pub family: Family,
    /// `-s`
    pub source: Option<AddressMatch>,
    /// `-d`
    pub destination: Option<AddressMatch>,
    /// `-i`
    pub input: Option<InterfaceMatch>,
    /// `-o`
    pub output: Option<InterfaceMatch>,
    /// `-p`
    pub protocol: Protocol,
    /// `-f`: `Some(true)` for `! -f`. IPv4 only.
    pub fragment: Option<bool>,
    /// In the order in which they were loaded, which is the order in which they are asked.
    pub matches: Vec<Box<dyn Extension>>,
    /// `-j`, `-g`
    pub target: Target,
    /// Packets, bytes.
    pub counters: (u64, u64),
}

impl Rule {
    /// A rule that every packet matches and that does nothing.
    pub fn new(family: Family) -> Self {
        Self {
            family,
            source: None,
            destination: None,
            input: None,
            output: None,
            protocol: Protocol::default(),
            fragment: None,
            matches: Vec::new(),
            target: Target::None,
            counters: (0, 0),
        }
    }

    /// The chain it jumps or goes to, if any.
    pub fn jump(&self) -> Option<&str> {
        match &self.target {
            Target::Jump(chain) | Target::Goto(chain) => Some(chain),
            _ => None,
        }
    }

    /// Whether the chain is reached by `-g`.
    pub fn is_goto(&self) -> bool {
        matches!(self.target, Target::Goto(_))
    }

    /// The first `-m comment`.
    pub fn comment(&self) -> Option<&str> {
        self.matches.iter().find_map(|m| m.comment())
    }

    /// Whether both are the same rule: counters aside, they do the same to the same packets in the same words.
    pub fn same(&self, other: &Rule) -> bool {
        self.jump() == other.jump() && self.spec() == other.spec()
    }

    /// The rule in a form of its own that depends on no version and no file of the machine. The name of the chain it
    /// jumps to is left out, and so are the counters: `jump` or `goto` stands first instead.
    pub fn spec(&self) -> String {
        let mut out = String::with_capacity(48);
        match self.target {
            Target::Jump(_) => out.push_str("jump"),
            Target::Goto(_) => out.push_str("goto"),
            _ => {}
        }
        self.save_matches(&mut out, &Form::Spec);
        if self.jump().is_none() {
            self.save_target(&mut out, &Form::Spec);
        }
        if out.starts_with(' ') {
            out.remove(0);
        }
        out
    }

    /// Reads [`Rule::spec`] back; `chain` is the target of its jump or goto as the kernel knows it.
    pub fn from_spec(family: Family, table: &str, text: &str, chain: Option<&str>) -> Result<Rule, Error> {
        parse::spec(family, table, text, chain)
    }

    /// What stands behind `-A CHAIN ` in `-S` and iptables-save.
    pub fn save(&self, dialect: &Dialect) -> String {
        self.save_text(dialect, false)
    }

    /// The same with `-c PACKETS BYTES` before the target, as `-vS` shows it.
    pub fn save_with_counters(&self, dialect: &Dialect) -> String {
        self.save_text(dialect, true)
    }

    fn save_text(&self, dialect: &Dialect, counters: bool) -> String {
        let form = Form::Save(dialect);
        let mut out = String::new();
        self.save_matches(&mut out, &form);
        if counters {
            let _ = write!(out, " -c {} {}", self.counters.0, self.counters.1);
        }
        self.save_target(&mut out, &form);
        // iptables-nft up to 1.8.7 leaves a blank behind a rule without a target.
        if dialect.variant == Variant::Nft && dialect.version <= (1, 8, 7) && matches!(self.target, Target::None) {
            out.push(' ');
        }
        if out.starts_with(' ') {
            out.remove(0);
        }
        out
    }

    fn save_matches(&self, out: &mut String, form: &Form<'_>) {
        save_address(out, "-s", self.source.as_ref());
        save_address(out, "-d", self.destination.as_ref());
        save_interface(out, "-i", self.input.as_ref(), form);
        save_interface(out, "-o", self.output.as_ref(), form);
        if self.protocol.number != 0 {
            let name = match form {
                Form::Spec => protocol::built_in_name(self.protocol.number),
                Form::Save(dialect) => protocol::name(self.protocol.number, dialect),
            };
            let text = name.map_or_else(|| self.protocol.number.to_string(), str::to_owned);
            let _ = write!(out, "{} -p {text}", bang(self.protocol.inverted));
        }
        if let Some(inverted) = self.fragment {
            let _ = write!(out, "{} -f", bang(inverted));
        }
        for m in &self.matches {
            let _ = write!(out, " -m {}", m.name());
            m.save(out, form);
        }
    }

    fn save_target(&self, out: &mut String, form: &Form<'_>) {
        let _ = match &self.target {
            Target::None => Ok(()),
            Target::Accept => out.write_str(" -j ACCEPT"),
            Target::Drop => out.write_str(" -j DROP"),
            Target::Return => out.write_str(" -j RETURN"),
            Target::Jump(chain) => write!(out, " -j {chain}"),
            Target::Goto(chain) => write!(out, " -g {chain}"),
            Target::Extension(target) => {
                let _ = write!(out, " -j {}", target.name());
                target.save(out, form);
                Ok(())
            }
        };
    }

    /// Checks what the kernel would check when the rule is added there: matches and targets that want a certain
    /// protocol, hook or table.
    pub fn validate_chain(&self, place: &Place<'_>) -> Result<(), Error> {
        for m in &self.matches {
            m.validate(place)?;
        }
        match &self.target {
            Target::Extension(target) => target.validate(place),
            _ => Ok(()),
        }
    }

    /// One line of `-L`, newline not included.
    pub fn list(&self, dialect: &Dialect, options: &ListOptions, number: u32) -> String {
        let mut out = String::new();
        if options.line_numbers {
            let _ = write!(out, "{number:<4} ");
        }
        if options.verbose {
            let _ = write!(out, "{}", counter_text(self.counters.0, options.exact));
            let _ = write!(out, "{}", counter_text(self.counters.1, options.exact));
        }
        let _ = write!(out, "{:<9} ", self.target_name());
        self.list_protocol(&mut out, dialect, options);
        self.list_fragment(&mut out, dialect);
        if options.verbose {
            list_interface(&mut out, self.input.as_ref(), dialect, options.numeric);
            list_interface(&mut out, self.output.as_ref(), dialect, options.numeric);
            out.push(' ');
        }
        self.list_address(&mut out, self.source.as_ref(), options.numeric);
        out.push(' ');
        self.list_address(&mut out, self.destination.as_ref(), options.numeric);
        out.push(' ');
        if matches!(self.target, Target::Goto(_)) {
            out.push_str("[goto] ");
        }
        let style = ListStyle { dialect, numeric: options.numeric };
        for m in &self.matches {
            m.list(&mut out, &style);
        }
        if let Target::Extension(target) = &self.target {
            target.list(&mut out, &style);
        }
        out
    }

    pub(super) fn target_name(&self) -> &str {
        match &self.target {
            Target::None => "",
            Target::Accept => "ACCEPT",
            Target::Drop => "DROP",
            Target::Return => "RETURN",
            Target::Jump(chain) | Target::Goto(chain) => chain,
            Target::Extension(target) => target.list_name(),
        }
    }

    fn list_protocol(&self, out: &mut String, dialect: &Dialect, options: &ListOptions) {
        let number = self.protocol.number;
        let as_number = options.numeric && dialect.version >= (1, 8, 9) && dialect.version < (1, 8, 11);
        // From 1.8.11 on `-S` asks no /etc/protocols, a listing with names still does.
        let named = || protocol::listed_name(number).filter(|_| !options.numeric && dialect.version >= (1, 8, 11));
        let name = match as_number {
            true => None,
            // Of several of its own names that iptables took another then.
            false if options.numeric && dialect.version < (1, 8, 8) => match number {
                ip::ICMPV6 => Some("icmpv6"),
                _ => protocol::built_in_name(number),
            },
            false => named().or_else(|| protocol::name(number, dialect)),
        };
        let text = name.map_or_else(|| number.to_string(), str::to_owned);
        let sign = if self.protocol.inverted { '!' } else { ' ' };
        let shifts = dialect.version < (1, 8, 8) || dialect.version == (1, 8, 8) && options.numeric;
        let blank = if shifts && text.len() > 4 { "" } else { " " };
        let _ = write!(out, "{sign}{text:<4}{blank}");
    }

    fn list_fragment(&self, out: &mut String, dialect: &Dialect) {
        out.push_str(match (self.family, self.fragment) {
            (Family::V6, _) if dialect.version < (1, 8, 9) => "   ",
            (_, None) => "-- ",
            (_, Some(false)) => "-f ",
            (_, Some(true)) => "!f ",
        });
    }

    fn list_address(&self, out: &mut String, wanted: Option<&AddressMatch>, numeric: bool) {
        let (text, inverted) = match wanted {
            Some(wanted) => (wanted.network.list_text(numeric), wanted.inverted),
            None => {
                let any = address::any(self.family);
                (address::Network::new(any, any).list_text(numeric), false)
            }
        };
        let sign = if inverted { '!' } else { ' ' };
        let _ = write!(out, "{sign}{text:<19}");
    }
}

/// ` !` before an inverted option.
pub(super) fn bang(inverted: bool) -> &'static str {
    if inverted { " !" } else { "" }
}

fn save_address(out: &mut String, option: &str, wanted: Option<&AddressMatch>) {
    if let Some(wanted) = wanted
        && (wanted.inverted || !wanted.network.is_all())
    {
        for word in [bang(wanted.inverted), " ", option, " "] {
            out.push_str(word);
        }
        wanted.network.write(out);
    }
}

fn save_interface(out: &mut String, option: &str, wanted: Option<&InterfaceMatch>, form: &Form<'_>) {
    let Some(wanted) = wanted else { return };
    // `! -i +` matches nothing, but iptables-legacy does not show it before 1.8.11.
    let hidden = match form {
        Form::Spec => false,
        Form::Save(Dialect { variant, version, .. }) => {
            !wanted.inverted || *variant == Variant::Legacy && *version < (1, 8, 11)
        }
    };
    if wanted.is_all() && hidden {
        return;
    }
    let name = form.word(&wanted.name);
    let _ = write!(out, "{} {option} {name}", bang(wanted.inverted));
}

fn list_interface(out: &mut String, wanted: Option<&InterfaceMatch>, dialect: &Dialect, numeric: bool) {
    let any = if numeric { "*" } else { "any" };
    let text = match wanted {
        Some(wanted) if wanted.inverted => format!("!{}", wanted.name),
        Some(wanted) if !wanted.is_all() || dialect.variant == Variant::Legacy => wanted.name.clone(),
        _ => any.to_owned(),
    };
    let _ = write!(out, " {text:<6}");
}
