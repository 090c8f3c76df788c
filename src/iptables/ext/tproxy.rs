//! `-j TPROXY`: to a local transparent socket. Where there is none, the packet is dropped.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::address::{self, Written};
use crate::iptables::names;
use crate::iptables::protocol::ip;
use crate::nft::expr::{Alternative, Divert, Expr, Verdict};
use std::fmt::Write;
use std::net::IpAddr;

const ON_PORT: u8 = 0;
const ON_IP: u8 = 1;

const OPTIONS: &[Opt] = &[
    Opt::value(ON_PORT, &["on-port"]).plain().required(),
    Opt::value(ON_IP, &["on-ip"]).plain(),
    Opt::value(2, &["tproxy-mark"]).plain(),
];

/// `mark = (mark & !mask) ^ value` where a socket takes the packet.
#[derive(Clone, Debug)]
struct Tproxy {
    port: u16,
    address: IpAddr,
    value: u32,
    mask: u32,
}

/// For IPv4, without options.
pub fn v4() -> Box<dyn Extension> {
    Box::new(Tproxy { port: 0, address: address::any(Family::V4), value: 0, mask: 0 })
}

/// For IPv6, without options.
pub fn v6() -> Box<dyn Extension> {
    Box::new(Tproxy { port: 0, address: address::any(Family::V6), value: 0, mask: 0 })
}

/// Decimal, of too large a number the lower bits; or a service of any protocol.
fn port(text: &str) -> Result<u16, Error> {
    let digits = text.trim_start();
    if digits.is_empty() && text.is_empty() {
        return Ok(0);
    }
    if let Ok(number) = digits.parse::<u64>() {
        return Ok(number as u16);
    }
    let unknown = || Error::Parameter(format!("Port \"{text}\" does not resolve to anything.\n"));
    names::service_port(text, None).ok_or_else(unknown)
}

impl Extension for Tproxy {
    fn name(&self) -> &'static str {
        "TPROXY"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            ON_PORT => self.port = port(input.value)?,
            ON_IP => self.address = address::parse_host(input.value, input.family)?,
            _ => (self.value, self.mask) = value::mark("TPROXY", "tproxy-mark", input.value)?,
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let elsewhere = matches!(place.chain, "INPUT" | "FORWARD" | "OUTPUT" | "POSTROUTING");
        let protocol = place.protocol.is(ip::TCP) || place.protocol.is(ip::UDP);
        if place.table == "mangle" && !elsewhere && protocol { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let Self { port, address, value, mask } = self;
        let address = Written(*address);
        let _ = write!(out, " --on-port {port} --on-ip {address} --tproxy-mark {value:#x}/{mask:#x}");
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let Self { port, address, value, mask } = self;
        let address = Written(*address);
        let _ = write!(out, " TPROXY redirect {address}:{port} mark {value:#x}/{mask:#x}");
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let Self { port, value, mask, .. } = *self;
        let address = (!self.address.is_unspecified()).then_some(self.address);
        let proxy = Expr::Divert(Divert::Tproxy { family: context.place.family, address, port });
        let mark = (value != 0 || mask != 0).then_some(Expr::MarkSet { value, mask });
        // Where no socket takes the packet, nft_tproxy goes on with the next rule, of which xt knows nothing.
        let taken = [proxy].into_iter().chain(mark).chain([Expr::Verdict(Verdict::Accept)]).collect();
        Ok(vec![taken, vec![Expr::Verdict(Verdict::Drop)]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
