//! `-j SNAT` and `-j DNAT`: other addresses and ports for the packet's source or destination.

#![forbid(unsafe_code)]

use super::nat::{self, NatRange};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::nft::expr::{Alternative, Expr, Manip, Nat};
use crate::nft::nat::{FULLY_RANDOM, PERSISTENT, RANDOM};
use std::fmt::Write;

const TO: u8 = 0;
const WITH_RANDOM: u8 = 1;
const WITH_FULLY_RANDOM: u8 = 2;

const SOURCE_OPTIONS: &[Opt] = &[
    Opt::value(TO, &["to-source"]).plain().required(),
    Opt::flag(WITH_RANDOM, &["random"]).plain(),
    Opt::flag(WITH_FULLY_RANDOM, &["random-fully"]).plain(),
    Opt::flag(3, &["persistent"]).plain(),
];

const DESTINATION_OPTIONS: &[Opt] = &[
    Opt::value(TO, &["to-destination"]).plain().required(),
    Opt::flag(WITH_RANDOM, &["random"]).plain(),
    Opt::flag(3, &["persistent"]).plain(),
];

/// In the order in which they are saved.
const FLAGS: &[(u32, &str)] = &[(RANDOM, "random"), (FULLY_RANDOM, "random-fully"), (PERSISTENT, "persistent")];

#[derive(Clone, Debug)]
struct Translation {
    manip: Manip,
    family: Family,
    to: NatRange,
    flags: u32,
}

/// `-j SNAT`, without options.
pub fn source() -> Box<dyn Extension> {
    Box::new(Translation { manip: Manip::Source, family: Family::V4, to: NatRange::default(), flags: 0 })
}

/// `-j DNAT`, without options.
pub fn destination() -> Box<dyn Extension> {
    Box::new(Translation { manip: Manip::Destination, family: Family::V4, to: NatRange::default(), flags: 0 })
}

impl Translation {
    fn option_name(&self) -> &'static str {
        match self.manip {
            Manip::Source => "--to-source",
            Manip::Destination => "--to-destination",
        }
    }
}

impl Extension for Translation {
    fn name(&self) -> &'static str {
        match self.manip {
            Manip::Source => "SNAT",
            Manip::Destination => "DNAT",
        }
    }

    fn options(&self) -> &'static [Opt] {
        match self.manip {
            Manip::Source => SOURCE_OPTIONS,
            Manip::Destination => DESTINATION_OPTIONS,
        }
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            TO => {
                self.family = input.family;
                self.to = NatRange::parse(input)?;
            }
            WITH_RANDOM => self.flags |= RANDOM,
            WITH_FULLY_RANDOM => self.flags |= FULLY_RANDOM,
            _ => self.flags |= PERSISTENT,
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        match self.manip {
            Manip::Source => nat::validate(place, &["POSTROUTING", "INPUT"]),
            Manip::Destination => nat::validate(place, &["PREROUTING", "OUTPUT"]),
        }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " {} {}", self.option_name(), self.to.text(self.family));
        nat::flags(out, "--", self.flags, FLAGS);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " to:{}", self.to.text(self.family));
        nat::flags(out, "", self.flags, FLAGS);
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let (addresses, ports) = self.to.translate(self.option_name())?;
        let (manip, family, flags) = (self.manip, context.place.family, self.flags);
        Ok(vec![vec![Expr::Nat(Nat::To { manip, family, addresses, ports, flags })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
