//! `-m dscp` and `-j DSCP`: the upper six bits of the IPv4 type of service or the IPv6 traffic class (RFC 2474).

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext, tos, value};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::rule::bang;
use crate::nft::expr::{Alternative, Assign, Expr, Op, SetField};
use std::fmt::Write;

const VALUE: u8 = 0;
const CLASS: u8 = 1;

const MATCH_OPTIONS: &[Opt] = &[Opt::value(VALUE, &["dscp"]).either(1), Opt::value(CLASS, &["dscp-class"]).either(1)];
const TARGET_OPTIONS: &[Opt] =
    &[Opt::value(VALUE, &["set-dscp"]).plain().either(1), Opt::value(CLASS, &["set-dscp-class"]).plain().either(1)];

/// RFC 2474, RFC 2597 and RFC 3246.
const CLASSES: &[(&str, u8)] = &[
    ("CS0", 0x00),
    ("CS1", 0x08),
    ("CS2", 0x10),
    ("CS3", 0x18),
    ("CS4", 0x20),
    ("CS5", 0x28),
    ("CS6", 0x30),
    ("CS7", 0x38),
    ("BE", 0x00),
    ("AF11", 0x0a),
    ("AF12", 0x0c),
    ("AF13", 0x0e),
    ("AF21", 0x12),
    ("AF22", 0x14),
    ("AF23", 0x16),
    ("AF31", 0x1a),
    ("AF32", 0x1c),
    ("AF33", 0x1e),
    ("AF41", 0x22),
    ("AF42", 0x24),
    ("AF43", 0x26),
    ("EF", 0x2e),
];

fn parse(extension: &str, option: &str, input: &Input<'_>) -> Result<u8, Error> {
    if input.id == VALUE {
        return value::number(extension, option, input.value, 63).map(|number| number as u8);
    }
    let class = CLASSES.iter().find(|(name, _)| name.eq_ignore_ascii_case(input.value));
    class.map(|(_, value)| *value).ok_or_else(|| Error::Parameter(format!("Invalid DSCP value `{}'", input.value)))
}

#[derive(Clone, Debug, Default)]
struct DscpMatch {
    value: Option<u8>,
    inverted: bool,
}

/// The match, without options.
pub fn new_match() -> Box<dyn Extension> {
    Box::new(DscpMatch::default())
}

impl Extension for DscpMatch {
    fn name(&self) -> &'static str {
        "dscp"
    }

    fn options(&self) -> &'static [Opt] {
        MATCH_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        self.value = Some(parse("dscp", "dscp", input)?);
        self.inverted = input.inverted;
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match self.value {
            Some(_) => Ok(()),
            None => Err(Error::Parameter("DSCP match: Parameter --dscp is required".to_owned())),
        }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --dscp {:#04x}", bang(self.inverted), self.value.unwrap_or_default());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let bang = if self.inverted { "!" } else { "" };
        let _ = write!(out, " DSCP match {bang}{:#04x}", self.value.unwrap_or_default());
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let op = if self.inverted { Op::Ne } else { Op::Eq };
        let value = self.value.unwrap_or_default() << tos::DSCP_SHIFT;
        Ok(vec![vec![tos::bits(context.place.family, tos::DSCP, op, value)]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

#[derive(Clone, Debug, Default)]
struct DscpTarget {
    value: Option<u8>,
}

/// The target, without options.
pub fn new_target() -> Box<dyn Extension> {
    Box::new(DscpTarget::default())
}

impl Extension for DscpTarget {
    fn name(&self) -> &'static str {
        "DSCP"
    }

    fn options(&self) -> &'static [Opt] {
        TARGET_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        self.value = Some(parse("DSCP", "set-dscp", input)?);
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match self.value {
            Some(_) => Ok(()),
            None => Err(Error::Parameter("DSCP target: Parameter --set-dscp is required".to_owned())),
        }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        place.only_in("mangle")
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --set-dscp {:#04x}", self.value.unwrap_or_default());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " DSCP set {:#04x}", self.value.unwrap_or_default());
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let field = match context.place.family {
            Family::V4 => SetField::Ip4Dscp,
            Family::V6 => SetField::Ip6Dscp,
        };
        Ok(vec![vec![Expr::Assign(Assign::Field { field, value: self.value.unwrap_or_default() })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
