//! `-j MASQUERADE`: the source becomes the address of the interface by which the packet leaves.

#![forbid(unsafe_code)]

use super::nat::{self, NatPorts};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::nft::expr::{Alternative, Expr, Nat};
use crate::nft::nat::{FULLY_RANDOM, RANDOM};
use std::fmt::Write;

const TO_PORTS: u8 = 0;
const WITH_RANDOM: u8 = 1;

const OPTIONS: &[Opt] = &[
    Opt::value(TO_PORTS, &["to-ports"]).plain(),
    Opt::flag(WITH_RANDOM, &["random"]).plain(),
    Opt::flag(2, &["random-fully"]).plain(),
];

const FLAGS: &[(u32, &str)] = &[(RANDOM, "random"), (FULLY_RANDOM, "random-fully")];

#[derive(Clone, Debug, Default)]
struct Masquerade {
    ports: Option<NatPorts>,
    flags: u32,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Masquerade::default())
}

impl Extension for Masquerade {
    fn name(&self) -> &'static str {
        "MASQUERADE"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            TO_PORTS => self.ports = Some(NatPorts::parse(input, input.value)?),
            WITH_RANDOM => self.flags |= RANDOM,
            _ => self.flags |= FULLY_RANDOM,
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        nat::validate(place, &["POSTROUTING"])
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        if let Some(ports) = self.ports {
            let _ = write!(out, " --to-ports {}", ports.text());
        }
        nat::flags(out, "--", self.flags, FLAGS);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        if let Some(ports) = self.ports {
            let _ = write!(out, " masq ports: {}", ports.text());
        }
        nat::flags(out, "", self.flags, FLAGS);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let ports = self.ports.map(|ports| ports.translate("--to-ports")).transpose()?;
        Ok(vec![vec![Expr::Nat(Nat::Masquerade { ports, flags: self.flags })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
