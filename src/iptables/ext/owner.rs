//! `-m owner`: who opened the socket that sends the packet.
//!
//! A packet without a socket, or with one that no process holds open, has no owner: nf_tables then matches nothing, and
//! so does xt_owner unless all that is asked for is inverted. Those rules have no equal.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::iptables::translate::matching;
use crate::iptables::{names, number};
use crate::nft::expr::{Alternative, Key, Meta, Value};
use std::fmt::Write;

const USER: u8 = 0;
const GROUP: u8 = 1;
const EXISTS: u8 = 2;

const OPTIONS: &[Opt] = &[
    Opt::value(USER, &["uid-owner"]),
    Opt::value(GROUP, &["gid-owner"]),
    Opt::flag(EXISTS, &["socket-exists"]),
    Opt::flag(3, &["suppl-groups"]).plain(),
];

/// The greatest id: the one above stands for none.
const LAST: u64 = u32::MAX as u64 - 1;

#[derive(Clone, Copy, Debug)]
struct Ids {
    first: u32,
    last: u32,
    inverted: bool,
}

#[derive(Clone, Debug, Default)]
struct Owner {
    user: Option<Ids>,
    group: Option<Ids>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Owner::default())
}

impl Ids {
    /// A name, a number, or two numbers.
    fn parse(option: &str, input: &Input<'_>, known: fn(&str) -> Option<u32>) -> Result<Self, Error> {
        let text = input.value;
        let ids = known(text).map(|id| (id, id)).or_else(|| {
            let read = |word| number::parse(word, LAST).map(|id| id as u32);
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            read(first).zip(read(last))
        });
        let (first, last) =
            ids.ok_or_else(|| Error::Parameter(format!("owner: Bad value for \"--{option}\" option: \"{text}\"")))?;
        Ok(Self { first, last, inverted: input.inverted })
    }

    fn text(&self) -> String {
        if self.first == self.last { self.first.to_string() } else { format!("{}-{}", self.first, self.last) }
    }

    fn value(&self) -> Value {
        let bytes = |id: u32| id.to_ne_bytes().to_vec();
        if self.first == self.last {
            Value::Bytes(bytes(self.first))
        } else {
            Value::Range(bytes(self.first), bytes(self.last))
        }
    }
}

impl Owner {
    fn each(&self) -> impl Iterator<Item = (u8, Ids)> {
        [(USER, self.user), (GROUP, self.group)].into_iter().filter_map(|(id, ids)| Some((id, ids?)))
    }
}

impl Extension for Owner {
    fn name(&self) -> &'static str {
        "owner"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            USER => self.user = Some(Ids::parse("uid-owner", input, names::user_id)?),
            GROUP => self.group = Some(Ids::parse("gid-owner", input, names::group_id)?),
            EXISTS => {
                let why = "nf_tables sees no socket that no process holds open";
                return Err(Refusal::new("--socket-exists", why).into());
            }
            _ => {
                let why = "nf_tables knows but the one group that a socket was opened with";
                return Err(Refusal::new("--suppl-groups", why).into());
            }
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        let text = "owner: At least one of --uid-owner, --gid-owner or --socket-exists is required";
        if self.each().next().is_some() { Ok(()) } else { Err(Error::Parameter(text.to_owned())) }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let wrong_hook = matches!(place.chain, "PREROUTING" | "INPUT" | "FORWARD");
        if wrong_hook || self.each().any(|(_, ids)| ids.first > ids.last) { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        for (id, ids) in self.each() {
            let option = if id == USER { "uid-owner" } else { "gid-owner" };
            let _ = write!(out, "{} --{option} {}", bang(ids.inverted), ids.text());
        }
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        for (id, ids) in self.each() {
            let what = if id == USER { "UID" } else { "GID" };
            let name = match id {
                _ if style.numeric || ids.first != ids.last => None,
                USER => names::user_name(ids.first),
                _ => names::group_of(ids.first),
            };
            let _ = write!(out, "{} owner {what} match {}", bang(ids.inverted), name.unwrap_or_else(|| ids.text()));
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if self.each().all(|(_, ids)| ids.inverted) {
            let why = "iptables then also means packets without an owner, which nf_tables cannot tell";
            return Err(Refusal::new("! --uid-owner", why));
        }
        let test = |(id, ids): (u8, Ids)| {
            let key = if id == USER { Meta::Skuid } else { Meta::Skgid };
            matching(Key::Meta(key), ids.inverted, ids.value())
        };
        // What must hold first: without an owner there is nothing to be unlike.
        let (unlike, like): (Vec<_>, Vec<_>) = self.each().partition(|(_, ids)| ids.inverted);
        Ok(vec![like.into_iter().chain(unlike).map(test).collect()])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
