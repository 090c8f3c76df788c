//! Matches and targets: one file for each, holding all that is known of it. Adding one is adding a file and a row in
//! [`catalogue`].

#![forbid(unsafe_code)]

mod addrtype;
mod ah;
mod audit;
mod bpf;
pub mod catalogue;
mod classify;
mod comment;
mod connbytes;
mod connlabel;
mod connmark;
mod connsecmark;
mod conntrack;
mod cpu;
mod ct;
mod dccp;
mod devgroup;
mod dscp;
mod ecn;
mod esp;
mod frag;
mod group;
mod hbh;
mod helper;
mod icmp;
mod ipcomp;
mod iprange;
mod length;
mod limit;
mod log;
mod mac;
mod mark;
mod masquerade;
mod mh;
mod multiport;
mod nat;
mod netmap;
mod nflog;
mod nfqueue;
mod owner;
mod pkttype;
mod policy;
mod port;
mod quota;
mod realm;
mod redirect;
mod reject;
mod rpfilter;
mod rt;
mod sctp;
mod snat;
mod socket;
mod statistic;
mod synproxy;
mod tcp;
mod tcpoptstrip;
mod tee;
mod tos;
mod tproxy;
mod trace;
mod transport;
mod ttl;
mod u32;
mod udp;
mod value;
mod word;

use catalogue::{Known, MATCHES, NotCarried, OTHER_MATCHES, OTHER_TARGETS, TARGETS};

pub(super) use connlabel::lacks as lacks_label;

use super::dialect::{Dialect, Variant};
use super::getopt::Takes;
use super::protocol::Protocol;
use super::restore::quote;
use super::translate::TranslateContext;
use crate::error::{Error, Refusal, TableError};
use crate::family::Family;
use crate::nft::expr::Alternative;
use std::fmt::Debug;

/// One option of an extension.
#[derive(Debug, PartialEq, Eq)]
pub struct Opt {
    /// Tells it apart within its extension.
    pub id: u8,
    /// Spellings; messages use the first.
    pub names: &'static [&'static str],
    /// How many values it takes.
    pub values: Values,
    /// `!` may stand before it.
    pub invertible: bool,
    /// A second one is an error of the common form.
    pub once: bool,
    /// It must be there.
    pub required: bool,
    /// Options of one group, 0 excepted, exclude each other.
    pub group: u8,
}

/// How many values an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// None.
    None,
    /// One.
    One,
    /// One and the word behind it.
    Two,
}

impl Values {
    pub(super) fn takes(self) -> Takes {
        match self {
            Values::None => Takes::Nothing,
            Values::One | Values::Two => Takes::Value,
        }
    }
}

impl Opt {
    /// An option with one value, `!` allowed, once.
    pub const fn value(id: u8, names: &'static [&'static str]) -> Self {
        Self { id, names, values: Values::One, invertible: true, once: true, required: false, group: 0 }
    }

    /// An option without value, `!` allowed, once.
    pub const fn flag(id: u8, names: &'static [&'static str]) -> Self {
        Self { values: Values::None, ..Self::value(id, names) }
    }

    /// `!` is an error.
    pub const fn plain(self) -> Self {
        Self { invertible: false, ..self }
    }

    /// Takes two words.
    pub const fn two(self) -> Self {
        Self { values: Values::Two, ..self }
    }

    /// Must be there.
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// Excludes the others of its group.
    pub const fn either(self, group: u8) -> Self {
        Self { group, ..self }
    }

    /// May come again; the extension itself says what that means.
    pub const fn repeatable(self) -> Self {
        Self { once: false, ..self }
    }
}

/// An option as it was given.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// [`Opt::id`]
    pub id: u8,
    /// The value, empty if it takes none.
    pub value: &'a str,
    /// The second value.
    pub second: Option<&'a str>,
    /// `!` stood before it.
    pub inverted: bool,
    /// Of the rule.
    pub family: Family,
    /// What `-p` has said so far.
    pub protocol: Protocol,
    /// Whose messages are wanted.
    pub dialect: &'a Dialect,
}

/// What a rule is when all of its line has been read.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// Of the rule.
    pub family: Family,
    /// `-p`
    pub protocol: Protocol,
    /// Whose messages are wanted.
    pub dialect: &'a Dialect,
}

/// Where a rule is to stand.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Of the rule.
    pub family: Family,
    /// Table.
    pub table: &'a str,
    /// Chain; the hook is known only of built-in ones.
    pub chain: &'a str,
    /// `-p`
    pub protocol: Protocol,
    /// `APPEND`, `INSERT` or `REPLACE`.
    pub operation: &'a str,
    /// Whose messages are wanted.
    pub dialect: &'a Dialect,
}

impl Place<'_> {
    /// What `-m tcp` without `-p tcp` gets; `native` if iptables-nft would say it in nf_tables' own expressions.
    pub fn wrong_protocol(&self, name: &str, native: bool) -> Error {
        if native && self.dialect.variant == Variant::Nft && self.dialect.version >= (1, 8, 9) {
            return Error::Parameter(format!("{} match requires '-p {name}'", name.to_ascii_uppercase()));
        }
        self.invalid()
    }

    /// Refuses what the kernel knows in one table only.
    pub fn only_in(&self, table: &str) -> Result<(), Error> {
        if self.table == table { Ok(()) } else { Err(self.invalid()) }
    }

    /// What the kernel's EINVAL becomes.
    pub fn invalid(&self) -> Error {
        match self.dialect.variant {
            Variant::Legacy => TableError::Misplaced.into(),
            Variant::Nft => Error::Resource(format!(
                " RULE_{} failed (Invalid argument): rule in chain {}",
                self.operation, self.chain
            )),
        }
    }
}

/// Which text of an extension's options is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// Version-independent, without names out of files.
    Spec,
    /// As this iptables saves it.
    Save(&'a Dialect),
}

impl Form<'_> {
    /// A word as it is written. iptables itself quotes comments and prefixes only; the kept form must also be
    /// readable again where a name holds a blank.
    pub fn word(&self, text: &str) -> String {
        match self {
            Form::Spec if text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\')) => quote(text),
            _ => text.to_owned(),
        }
    }

    /// Whether iptables-nft of at least this version is to be imitated.
    pub fn nft_since(&self, version: (u16, u16, u16)) -> bool {
        matches!(self, Form::Save(dialect) if dialect.variant == Variant::Nft && dialect.version >= version)
    }
}

/// How a listing is wanted.
#[derive(Clone, Copy, Debug)]
pub struct ListStyle<'a> {
    /// Whose listing.
    pub dialect: &'a Dialect,
    /// `-n`
    pub numeric: bool,
}

/// A match or target with what its options said.
pub trait Extension: Debug + Send + Sync {
    /// As it stands behind `-m` or `-j` in the save form.
    fn name(&self) -> &'static str;

    /// All options it knows.
    fn options(&self) -> &'static [Opt];

    /// Takes one option.
    fn option(&mut self, input: &Input<'_>) -> Result<(), Error>;

    /// Checks what can only be checked at the end of the line.
    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Checks what the kernel would check when the rule is added.
    fn validate(&self, _place: &Place<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Writes the options, each with a blank before it.
    fn save(&self, out: &mut String, form: &Form<'_>);

    /// Writes what a listing shows of it; most begin with a blank.
    fn list(&self, out: &mut String, style: &ListStyle<'_>);

    /// A match: alternatives that exclude each other and together match exactly the same packets. A target: what it
    /// does, nearly always in one alternative; of several exactly one acts on a packet, and the others do not mean it
    /// afterwards either, unless they act in turn.
    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal>;

    /// The name a listing shows in the column of targets.
    fn list_name(&self) -> &'static str {
        self.name()
    }

    /// What iptables says on stderr when it reads the rule.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The text of a comment.
    fn comment(&self) -> Option<&str> {
        None
    }

    /// Whether a second copy of the translation would change what the rule does (a token bucket does).
    fn is_stateful(&self) -> bool {
        false
    }

    /// Whether the alternatives of a target are steps: each acts on the packet as the one before it has left it.
    fn acts_in_turn(&self) -> bool {
        false
    }

    /// Whether no fragment but the first matches, whatever its options say.
    fn sees_no_later_fragment(&self) -> bool {
        false
    }

    /// A copy.
    fn boxed(&self) -> Box<dyn Extension>;
}

impl Clone for Box<dyn Extension> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// What a translation may depend on.
#[derive(Clone, Copy, Debug)]
pub struct RuleContext<'a> {
    /// Family, table and chain.
    pub place: &'a TranslateContext<'a>,
    /// `-p`, for which the rule's base already has a match.
    pub protocol: Protocol,
    /// Whether no fragment but the first meets the rule, by something else that it says.
    pub whole: bool,
}

/// What a name behind `-m` or `-j` stands for.
pub enum Lookup {
    /// One of ours.
    Known(Box<dyn Extension>),
    /// iptables has it, we have not, for this reason.
    NotCarried(&'static str),
    /// No such thing.
    Unknown,
}

fn look_up(known: &[Known], others: &[NotCarried], name: &str, family: Family) -> Lookup {
    let here = |known: &&Known| known.name == name && known.family.is_none_or(|only| only == family);
    match known.iter().find(here) {
        Some(known) => Lookup::Known((known.make)()),
        None => match others.iter().find(|other| other.name == name) {
            Some(other) => Lookup::NotCarried(other.why),
            None => Lookup::Unknown,
        },
    }
}

/// The match of that name.
pub fn find_match(name: &str, family: Family) -> Lookup {
    look_up(MATCHES, OTHER_MATCHES, name, family)
}

/// The target of that name.
pub fn find_target(name: &str, family: Family) -> Lookup {
    look_up(TARGETS, OTHER_TARGETS, name, family)
}

/// Whether iptables has a target of that name, so that no chain may bear it.
pub fn is_target_name(name: &str, family: Family) -> bool {
    matches!(name, "ACCEPT" | "DROP" | "RETURN" | "QUEUE") || !matches!(find_target(name, family), Lookup::Unknown)
}
