//! `-j REDIRECT`: the destination becomes this host.

#![forbid(unsafe_code)]

use super::nat::{self, NatPorts};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::nft::expr::{Alternative, Expr, Nat};
use crate::nft::nat::RANDOM;
use std::fmt::Write;

const TO_PORTS: u8 = 0;

const OPTIONS: &[Opt] = &[Opt::value(TO_PORTS, &["to-ports"]).plain(), Opt::flag(1, &["random"]).plain()];

const FLAGS: &[(u32, &str)] = &[(RANDOM, "random")];

#[derive(Clone, Debug, Default)]
struct Redirect {
    ports: Option<NatPorts>,
    flags: u32,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Redirect::default())
}

impl Extension for Redirect {
    fn name(&self) -> &'static str {
        "REDIRECT"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        if input.id != TO_PORTS {
            self.flags |= RANDOM;
            return Ok(());
        }
        let ports = NatPorts::parse(input, input.value)?;
        if ports.base.is_some() {
            return Err(Error::Parameter("Shifted portmap ranges not supported with this kernel".to_owned()));
        }
        self.ports = Some(ports);
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        nat::validate(place, &["PREROUTING", "OUTPUT"])
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        if let Some(ports) = self.ports {
            let _ = write!(out, " --to-ports {}", ports.text());
        }
        nat::flags(out, "--", self.flags, FLAGS);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        if let Some(ports) = self.ports {
            let _ = write!(out, " redir ports {}", ports.text());
        }
        nat::flags(out, "", self.flags, FLAGS);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let ports = self.ports.map(|ports| ports.translate("--to-ports")).transpose()?;
        Ok(vec![vec![Expr::Nat(Nat::Redirect { ports, flags: self.flags })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
