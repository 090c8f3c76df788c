//! `-m udp`: ports.

#![forbid(unsafe_code)]

use super::port::{PortMatch, has_ports, parse_loose_range};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::protocol::ip;
use crate::nft::expr::{Alternative, Field};

const SOURCE: u8 = 0;
const DESTINATION: u8 = 1;

const OPTIONS: &[Opt] =
    &[Opt::value(SOURCE, &["source-port", "sport"]), Opt::value(DESTINATION, &["destination-port", "dport"])];

#[derive(Clone, Debug, Default)]
struct Udp {
    source: Option<PortMatch>,
    destination: Option<PortMatch>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Udp::default())
}

impl Extension for Udp {
    fn name(&self) -> &'static str {
        "udp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let (slot, option) = match input.id {
            SOURCE => (&mut self.source, "source-port"),
            _ => (&mut self.destination, "destination-port"),
        };
        let ports = parse_loose_range(input.dialect, "udp", option, input.value, Some("udp"))?;
        *slot = Some(PortMatch { ports, inverted: input.inverted });
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.protocol.is(ip::UDP) {
            let ports = [("sport", self.source), ("dport", self.destination)];
            return ports
                .iter()
                .try_for_each(|(option, ports)| ports.map_or(Ok(()), |p| p.check_native(option, place)));
        }
        Err(place.wrong_protocol("udp", self.source.is_some() || self.destination.is_some()))
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        self.source.inspect(|ports| ports.save(out, "sport", form));
        self.destination.inspect(|ports| ports.save(out, "dport", form));
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        out.push_str(" udp");
        self.source.inspect(|ports| ports.list(out, "spt", "udp", style));
        self.destination.inspect(|ports| ports.list(out, "dpt", "udp", style));
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !context.protocol.is(ip::UDP) {
            return Err(Refusal::new("-m udp", "needs -p udp"));
        }
        let ports = [(self.source, Field::UdpSport), (self.destination, Field::UdpDport)];
        let mut exprs: Alternative =
            ports.into_iter().filter_map(|(wanted, field)| wanted.and_then(|wanted| wanted.translate(field))).collect();
        if exprs.is_empty() {
            exprs.push(has_ports(context.place.family, Field::UdpSport));
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
