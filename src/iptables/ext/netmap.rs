//! `-j NETMAP`: one network's addresses for another's, the host's part kept.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext, nat};
use crate::error::{Error, Refusal};
use crate::iptables::address::{self, Network, Written};
use crate::iptables::number;
use crate::nft::expr::{Alternative, Expr, Manip, Nat};
use std::fmt::Write;
use std::net::IpAddr;

const OPTIONS: &[Opt] = &[Opt::value(0, &["to"]).plain().required()];

#[derive(Clone, Copy, Debug, Default)]
struct Netmap {
    /// First address and length.
    to: Option<(IpAddr, u8)>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Netmap::default())
}

impl Netmap {
    fn text(self) -> String {
        self.to.map(|(network, length)| format!("{}/{length}", Written(network))).unwrap_or_default()
    }
}

impl Extension for Netmap {
    fn name(&self) -> &'static str {
        "NETMAP"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let width = input.family.address_len() as u32 * 8;
        let bad = || {
            let text = "NETMAP: bad value for option \"--to\", neither a valid network mask nor valid CIDR";
            Error::Parameter(format!("{text} (0-{width}).\n"))
        };
        let mask = input.value.split_once('/').map(|(_, mask)| mask);
        if let Some(mask) = mask.filter(|mask| address::parse_numeric(mask, input.family).is_none()) {
            let length = number::parse(mask, u64::from(u32::MAX)).ok_or_else(bad)?;
            if width == 128 && length > 128 {
                return Err(bad());
            }
        }
        let (host, mask) = match mask {
            Some(mask) => (input.value.split_once('/').map_or("", |(host, _)| host), mask),
            None => (input.value, ""),
        };
        // Up to 1.8.9 a mask with holes, or a longer one than the address, counts as a whole one.
        let holes = input.dialect.version >= (1, 8, 11);
        let refused = || Error::Refused(Refusal::new("-j NETMAP --to", "has a mask with holes"));
        let single = address::parse_with_mask(host, input.family)?;
        let length = match (mask, address::parse_numeric(mask, input.family)) {
            ("", _) => width,
            (_, Some(mask)) => match Network::new(mask, mask).prefix_length() {
                Some(length) => length,
                None if holes => return Err(refused()),
                None => width,
            },
            (mask, None) => match number::parse(mask, u64::from(u32::MAX)) {
                Some(length) if holes && length > u64::from(width) => return Err(refused()),
                length => length.map_or(width, |length| width.min(length as u32)),
            },
        };
        let length = length as u8;
        self.to = Some((address::network(single.address, length), length));
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        nat::validate(place, &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"])
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --to {}", self.text());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " to:{}", self.text());
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let manip = match context.place.chain {
            "PREROUTING" | "OUTPUT" => Manip::Destination,
            "INPUT" | "POSTROUTING" => Manip::Source,
            _ => {
                let why = "in a chain of one's own changes source or destination, whichever hook the packet comes from";
                return Err(Refusal::new("-j NETMAP", why));
            }
        };
        let Some((network, length)) = self.to else { return Ok(Vec::new()) };
        Ok(vec![vec![Expr::Nat(Nat::Prefix { manip, network, length })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(*self)
    }
}
