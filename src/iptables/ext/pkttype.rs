//! `-m pkttype`: to whom the link layer delivered the packet.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::iptables::translate::matching;
use crate::nft::expr::{Alternative, Key, Meta, Value};
use std::fmt::Write;

const OPTIONS: &[Opt] = &[Opt::value(0, &["pkt-type"]).required()];

/// Names and PACKET_* values of linux/if_packet.h; the first name of a value is the one that is written.
const TYPES: &[(&str, u8)] =
    &[("unicast", 0), ("broadcast", 1), ("multicast", 2), ("otherhost", 3), ("host", 0), ("bcast", 1), ("mcast", 2)];

#[derive(Clone, Debug, Default)]
struct PktType {
    value: u8,
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(PktType::default())
}

impl PktType {
    fn text(&self) -> &'static str {
        TYPES.iter().find(|(_, value)| *value == self.value).map(|(name, _)| *name).unwrap_or_default()
    }
}

impl Extension for PktType {
    fn name(&self) -> &'static str {
        "pkttype"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let known = TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(input.value));
        let bad = || Error::Parameter(format!("Bad packet type '{}'", input.value));
        self.value = known.ok_or_else(bad)?.1;
        self.inverted = input.inverted;
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --pkt-type {}", bang(self.inverted), self.text());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " PKTTYPE {} {}", if self.inverted { "!=" } else { "=" }, self.text());
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        Ok(vec![vec![matching(Key::Meta(Meta::Pkttype), self.inverted, Value::Bytes(vec![self.value]))]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
