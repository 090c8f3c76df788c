//! `-m length`: the length of the IP packet.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Alternative, Field, Key, Value};
use std::fmt::Write;

/// Length of the fixed IPv6 header, which its length field leaves out (RFC 8200, 3).
const IP6_HEADER: u16 = 40;

const OPTIONS: &[Opt] = &[Opt::value(0, &["length"]).required()];

#[derive(Clone, Debug, Default)]
struct Length {
    first: u16,
    last: u16,
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Length::default())
}

impl Length {
    fn text(&self) -> String {
        value::range_text(u64::from(self.first), u64::from(self.last))
    }
}

impl Extension for Length {
    fn name(&self) -> &'static str {
        "length"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let (first, last) = value::range(input.dialect, "length", "length", input.value, 65535)?;
        *self = Self { first: first as u16, last: last as u16, inverted: input.inverted };
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --length {}", bang(self.inverted), self.text());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " length {}{}", if self.inverted { "!" } else { "" }, self.text());
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let (field, header) = match context.place.family {
            Family::V4 => (Field::Ip4Length, 0),
            Family::V6 => (Field::Ip6Length, IP6_HEADER),
        };
        if self.first > self.last || self.last < header {
            return match self.inverted {
                true => Ok(vec![Vec::new()]),
                false => Ok(vec![vec![never()]]),
            };
        }
        let (first, last) = (self.first.saturating_sub(header), self.last - header);
        let bytes = |length: u16| length.to_be_bytes().to_vec();
        let value = if first == last { Value::Bytes(bytes(first)) } else { Value::Range(bytes(first), bytes(last)) };
        Ok(vec![vec![matching(Key::Payload(field), self.inverted, value)]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
