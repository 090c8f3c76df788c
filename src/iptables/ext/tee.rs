//! `-j TEE`: a copy of the packet to a neighbour.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::address::{self, Written};
use crate::nft::expr::{Alternative, Divert, Expr};
use std::fmt::Write;
use std::net::IpAddr;

const GATEWAY: u8 = 0;

/// IFNAMSIZ less its NUL (linux/if.h).
const NAME_MAX: usize = 15;

const OPTIONS: &[Opt] = &[Opt::value(GATEWAY, &["gateway"]).plain().required(), Opt::value(1, &["oif"]).plain()];

#[derive(Clone, Debug, Default)]
struct Tee {
    gateway: Option<IpAddr>,
    output: Option<String>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Tee::default())
}

impl Extension for Tee {
    fn name(&self) -> &'static str {
        "TEE"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            GATEWAY => self.gateway = Some(address::parse_host(input.value, input.family)?),
            _ => self.output = Some(value::cut(input.value, NAME_MAX).to_owned()),
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        match self.gateway {
            Some(gateway) if !gateway.is_unspecified() => Ok(()),
            _ => Err(place.invalid()),
        }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        if let Some(gateway) = self.gateway {
            let _ = write!(out, " --gateway {}", Written(gateway));
        }
        if let Some(output) = &self.output {
            let _ = write!(out, " --oif {}", form.word(output));
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        if let Some(gateway) = self.gateway {
            let _ = write!(out, " TEE gw:{}", Written(gateway));
        }
        if let Some(output) = &self.output {
            let _ = write!(out, " oif={output}");
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if self.output.is_some() {
            let why = "would name the interface that is called so now, where xt follows the name";
            return Err(Refusal::new("-j TEE --oif", why));
        }
        Ok(vec![self.gateway.map(|gateway| Expr::Divert(Divert::Dup { gateway })).into_iter().collect()])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
