//! `-m ah`: SPI, and in IPv6 length and reserved field, of an authentication header.

#![forbid(unsafe_code)]

use super::transport::{Numbers, is_there};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::protocol::ip;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Alternative, Field, Key, Meta, Value};
use std::fmt::Write;

/// Header without the authentication data (RFC 4302, 2).
const HEADER: u16 = 12;

const SPI: u8 = 0;
const LENGTH: u8 = 1;
const RESERVED: u8 = 2;

const V4_OPTIONS: &[Opt] = &[Opt::value(SPI, &["ahspi"])];
const V6_OPTIONS: &[Opt] =
    &[Opt::value(SPI, &["ahspi"]), Opt::value(LENGTH, &["ahlen"]), Opt::flag(RESERVED, &["ahres"]).plain()];

#[derive(Clone, Debug)]
struct Ah {
    family: Family,
    spi: Numbers,
    /// Bytes; 0 says nothing, inverted or not.
    length: u32,
    length_inverted: bool,
    reserved: bool,
}

fn new(family: Family) -> Box<dyn Extension> {
    Box::new(Ah { family, spi: Numbers::default(), length: 0, length_inverted: false, reserved: false })
}

/// IPv4's, without options.
pub fn v4() -> Box<dyn Extension> {
    new(Family::V4)
}

/// IPv6's, without options.
pub fn v6() -> Box<dyn Extension> {
    new(Family::V6)
}

impl Extension for Ah {
    fn name(&self) -> &'static str {
        "ah"
    }

    fn options(&self) -> &'static [Opt] {
        match self.family {
            Family::V4 => V4_OPTIONS,
            Family::V6 => V6_OPTIONS,
        }
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            SPI => self.spi = Numbers::parse("ah", "ahspi", input)?,
            LENGTH => {
                self.length = value::number("ah", "ahlen", input.value, u64::from(u32::MAX))? as u32;
                self.length_inverted = input.inverted;
            }
            _ => self.reserved = true,
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        match self.family {
            Family::V4 if !place.protocol.is(ip::AH) => Err(place.invalid()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        self.spi.save(out, "ahspi", form);
        if self.length != 0 || self.length_inverted {
            let _ = write!(out, "{} --ahlen {}", bang(self.length_inverted), self.length);
        }
        if self.reserved {
            out.push_str(" --ahres");
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" ah ");
        self.spi.list(out, "spi");
        if self.length != 0 || self.length_inverted {
            let _ = write!(out, "length:{}{}", if self.length_inverted { "!" } else { "" }, self.length);
        }
        if self.reserved {
            out.push_str(" reserved");
        }
    }

    /// In IPv6, nf_tables takes the first authentication header for the transport header, so that `-m ah` finds it
    /// there, and no other protocol can be asked for beside it.
    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let mut exprs = Vec::new();
        match (self.family, context.protocol.number) {
            (Family::V6, 0) => exprs.push(matching(Key::Meta(Meta::L4proto), false, Value::Bytes(vec![ip::AH]))),
            _ if context.protocol.is(ip::AH) => {}
            (Family::V4, _) => return Err(Refusal::new("-m ah", "needs -p ah")),
            (Family::V6, _) => {
                let why = "nf_tables does not look behind an authentication header for another protocol";
                return Err(Refusal::new("-m ah", why));
            }
        }
        let prior = exprs.len();
        exprs.extend(self.spi.translate(Key::Payload(Field::AhSpi), 4));
        if self.length != 0 {
            // In units of 4 bytes, without the first 8 (RFC 4302, 2.2).
            let units = self.length.is_multiple_of(4).then(|| (self.length / 4).checked_sub(2)).flatten();
            match (units.and_then(|units| u8::try_from(units).ok()), self.length_inverted) {
                (Some(units), inverted) => {
                    exprs.push(matching(Key::Payload(Field::AhHdrlength), inverted, Value::Bytes(vec![units])));
                }
                (None, true) => {}
                (None, false) => exprs.push(never()),
            }
        }
        if self.reserved {
            exprs.push(matching(Key::Payload(Field::AhReserved), false, Value::Bytes(vec![0, 0])));
        }
        if exprs.len() == prior {
            exprs.push(is_there(HEADER));
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
