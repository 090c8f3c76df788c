//! `-m mh`: the type of a mobility header of IPv6.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::iptables::protocol::ip;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Alternative, Key, Value};
use crate::nft::exthdr::ExtHdr;
use std::fmt::Write;

/// IPPROTO_NONE of linux/in6.h: nothing may follow a mobility header (RFC 6275, 6.1.1), or xt drops the packet.
const NO_NEXT_HEADER: u8 = 59;

const OPTIONS: &[Opt] = &[Opt::value(0, &["mh-type"])];

/// RFC 6275, 6.1, by number, and short names.
const NAMES: [(&str, &str); 8] = [
    ("binding-refresh-request", "brr"),
    ("home-test-init", "hoti"),
    ("careof-test-init", "coti"),
    ("home-test", "hot"),
    ("careof-test", "cot"),
    ("binding-update", "bu"),
    ("binding-acknowledgement", "ba"),
    ("binding-error", "be"),
];

#[derive(Clone, Debug)]
struct Mh {
    first: u8,
    last: u8,
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Mh { first: 0, last: u8::MAX, inverted: false })
}

fn parse_type(text: &str) -> Result<u8, Error> {
    let begins = |name: &str| name.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text));
    let exact = |(long, short): &(&str, &str)| long.eq_ignore_ascii_case(text) || short.eq_ignore_ascii_case(text);
    let found = NAMES.iter().position(exact);
    let found = found.or_else(|| NAMES.iter().position(|(long, short)| begins(long) || begins(short)));
    match found.and_then(|number| u8::try_from(number).ok()) {
        Some(number) => Ok(number),
        None => number::parse(text, 255)
            .map(|number| number as u8)
            .ok_or_else(|| Error::Parameter(format!("Invalid MH type `{text}'"))),
    }
}

impl Extension for Mh {
    fn name(&self) -> &'static str {
        "mh"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        (self.first, self.last) = match input.value.split_once(':') {
            Some((first, last)) => (
                if first.is_empty() { 0 } else { parse_type(first)? },
                if last.is_empty() { u8::MAX } else { parse_type(last)? },
            ),
            None => {
                let kind = parse_type(input.value)?;
                (kind, kind)
            }
        };
        if self.first > self.last {
            return Err(Error::Parameter("Invalid MH type range (min > max)".to_owned()));
        }
        self.inverted = input.inverted;
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.protocol.is(ip::MH) { Ok(()) } else { Err(place.invalid()) }
    }

    /// Before 1.8.11 iptables does not show "none of all" either.
    fn save(&self, out: &mut String, form: &Form<'_>) {
        let hidden = !self.inverted || matches!(form, Form::Save(dialect) if dialect.version < (1, 8, 11));
        if (self.first, self.last) == (0, u8::MAX) && hidden {
            return;
        }
        let range = value::range_text(u64::from(self.first), u64::from(self.last));
        let _ = write!(out, "{} --mh-type {range}", bang(self.inverted));
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        out.push_str(" mh");
        if (self.first, self.last) == (0, u8::MAX) && !self.inverted {
            return;
        }
        let name = |kind: u8| match NAMES.get(usize::from(kind)) {
            Some((name, _)) if !style.numeric => (*name).to_owned(),
            _ => kind.to_string(),
        };
        let _ = write!(out, " {}{}", if self.inverted { "!" } else { "" }, name(self.first));
        if self.first != self.last {
            let _ = write!(out, ":{}", name(self.last));
        }
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !context.protocol.is(ip::MH) {
            return Err(Refusal::new("-m mh", "needs -p mh"));
        }
        let mut exprs = vec![matching(Key::ExtHdr(ExtHdr::MhNexthdr), false, Value::Bytes(vec![NO_NEXT_HEADER]))];
        match ((self.first, self.last) == (0, u8::MAX), self.inverted) {
            (true, true) => exprs.push(never()),
            (true, false) => {}
            (false, inverted) => {
                let value = match self.first == self.last {
                    true => Value::Bytes(vec![self.first]),
                    false => Value::Range(vec![self.first], vec![self.last]),
                };
                exprs.push(matching(Key::ExtHdr(ExtHdr::MhType), inverted, value));
            }
        }
        Ok(vec![exprs])
    }

    fn sees_no_later_fragment(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
