//! `-m frag`: the fragment header of IPv6.

#![forbid(unsafe_code)]

use super::transport::Numbers;
use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::iptables::translate::matching;
use crate::nft::expr::{Alternative, Key, Value};
use crate::nft::exthdr::{ExtHdr, header};
use std::fmt::Write;

const ID: u8 = 0;
const LENGTH: u8 = 1;
const RESERVED: u8 = 2;
const FIRST: u8 = 3;
const MORE: u8 = 4;
const LAST: u8 = 5;

const OPTIONS: &[Opt] = &[
    Opt::value(ID, &["fragid"]),
    Opt::value(LENGTH, &["fraglen"]),
    Opt::flag(RESERVED, &["fragres"]).plain(),
    Opt::flag(FIRST, &["fragfirst"]).plain(),
    Opt::flag(MORE, &["fragmore"]).plain().either(1),
    Opt::flag(LAST, &["fraglast"]).plain().either(1),
];

/// A length may be given, but the header has only one (RFC 8200, 4.5), and the kernel does not look at it.
#[derive(Clone, Debug, Default)]
struct Frag {
    id: Numbers,
    length: Option<(u32, bool)>,
    reserved: bool,
    first: bool,
    more: bool,
    last: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Frag::default())
}

impl Frag {
    /// What is asked for beside numbers, as it is saved and as it is listed.
    fn flags(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let flags = [
            (self.reserved, ("--fragres", "reserved")),
            (self.first, ("--fragfirst", "first")),
            (self.more, ("--fragmore", "more")),
            (self.last, ("--fraglast", "last")),
        ];
        flags.into_iter().filter(|(given, _)| *given).map(|(_, names)| names)
    }
}

impl Extension for Frag {
    fn name(&self) -> &'static str {
        "frag"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            ID => self.id = Numbers::parse("frag", "fragid", input)?,
            LENGTH => {
                let length = value::number("frag", "fraglen", input.value, u64::from(u32::MAX))?;
                self.length = Some((length as u32, input.inverted));
            }
            RESERVED => self.reserved = true,
            FIRST => self.first = true,
            MORE => self.more = true,
            _ => self.last = true,
        }
        Ok(())
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        self.id.save(out, "fragid", form);
        if let Some((length, inverted)) = self.length {
            let _ = write!(out, "{} --fraglen {length}", bang(inverted));
        }
        self.flags().for_each(|(option, _)| out.extend([" ", option]));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" frag ");
        self.id.list(out, "id");
        if let Some((length, inverted)) = self.length {
            let _ = write!(out, " length:{}{length}", if inverted { "!" } else { "" });
        }
        self.flags().for_each(|(_, word)| out.extend([" ", word]));
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let is = |field, inverted, value: &[u8]| matching(Key::ExtHdr(field), inverted, Value::Bytes(value.to_vec()));
        let mut exprs = Vec::new();
        exprs.extend(self.id.translate(Key::ExtHdr(ExtHdr::FragId), 4));
        if self.reserved {
            exprs.push(is(ExtHdr::FragReserved, false, &[0]));
            exprs.push(is(ExtHdr::FragReserved2, false, &[0]));
        }
        if self.first {
            exprs.push(is(ExtHdr::FragOff, false, &[0, 0]));
        }
        if self.more {
            exprs.push(is(ExtHdr::FragMore, false, &[1]));
        }
        if self.last {
            exprs.push(is(ExtHdr::FragMore, false, &[0]));
        }
        if exprs.is_empty() {
            exprs.push(is(ExtHdr::Present(header::FRAGMENT), false, &[1]));
        }
        Ok(vec![exprs])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
