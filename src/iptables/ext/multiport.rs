//! `-m multiport`: up to fifteen ports and ranges.

#![forbid(unsafe_code)]

use super::port::{Ports, list_port, parse_port, port_set};
use super::{Extension, Finished, Form, Input, ListStyle, Opt, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::protocol::ip;
use crate::iptables::rule::bang;
use crate::iptables::translate::matching;
use crate::nft::expr::{Alternative, Expr, Field, Key};
use std::fmt::Write;

/// XT_MULTI_PORTS of linux/netfilter/xt_multiport.h; a range counts twice.
const MAX: usize = 15;

const SOURCE: u8 = 0;
const DESTINATION: u8 = 1;
const EITHER: u8 = 2;

const OPTIONS: &[Opt] = &[
    Opt::value(SOURCE, &["source-ports", "sports", "sport"]).either(1),
    Opt::value(DESTINATION, &["destination-ports", "dports", "dport"]).either(1),
    Opt::value(EITHER, &["ports", "port"]).either(1),
];

#[derive(Clone, Debug, Default)]
struct Multiport {
    which: u8,
    ports: Vec<Ports>,
    inverted: bool,
    protocol: Option<&'static str>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Multiport::default())
}

/// Name of a protocol whose header begins with two ports.
fn port_protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        ip::TCP => "tcp",
        ip::UDP => "udp",
        ip::UDPLITE => "udplite",
        ip::SCTP => "sctp",
        ip::DCCP => "dccp",
        _ => return None,
    })
}

fn parse_ports(text: &str, protocol: &str) -> Result<Vec<Ports>, Error> {
    let parameter = |text: &str| Error::Parameter(text.to_owned());
    let mut ports = Vec::new();
    let mut count = 0;
    for word in text.split(',') {
        let (first, last) = word.split_once(':').unwrap_or((word, word));
        count += if word.contains(':') { 2 } else { 1 };
        if count > MAX {
            return Err(parameter("too many ports specified"));
        }
        let (first, last) = (parse_port(first, Some(protocol))?, parse_port(last, Some(protocol))?);
        if first > last || (first == last && word.contains(':')) {
            return Err(parameter("invalid portrange specified"));
        }
        ports.push(Ports { first, last });
    }
    Ok(ports)
}

impl Multiport {
    fn option_name(&self) -> &'static str {
        match self.which {
            SOURCE => "sports",
            DESTINATION => "dports",
            _ => "ports",
        }
    }

    fn list_text(&self, port: impl Fn(u16) -> String) -> String {
        let text = |ports: &Ports| match ports.first == ports.last {
            true => port(ports.first),
            false => format!("{}:{}", port(ports.first), port(ports.last)),
        };
        self.ports.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

impl Extension for Multiport {
    fn name(&self) -> &'static str {
        "multiport"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let error = |text: &str| Err(Error::Parameter(text.to_owned()));
        if input.protocol.inverted {
            return error("multiport only works with TCP, UDP, UDPLITE, SCTP and DCCP");
        }
        let name = match (port_protocol(input.protocol.number), input.protocol.number) {
            (Some(name), _) => name,
            (None, 0) => return error("multiport needs `-p tcp', `-p udp', `-p udplite', `-p sctp' or `-p dccp'"),
            (None, _) => return error("multiport only works with TCP, UDP, UDPLITE, SCTP and DCCP"),
        };
        self.protocol = Some(name);
        self.which = input.id;
        self.ports = parse_ports(input.value, name)?;
        self.inverted = input.inverted;
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match self.ports.is_empty() {
            true => Err(Error::Parameter("multiport expection an option".to_owned())),
            false => Ok(()),
        }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let ports = self.list_text(|port| port.to_string());
        let _ = write!(out, "{} --{} {ports}", bang(self.inverted), self.option_name());
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        let ports = self.list_text(|port| list_port(port, self.protocol, style));
        let _ = write!(out, " multiport {} {}{ports}", self.option_name(), if self.inverted { " !" } else { "" });
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if context.protocol.inverted || port_protocol(context.protocol.number).is_none() {
            return Err(Refusal::new("-m multiport", "needs a protocol that has ports"));
        }
        let test = |field, inverted| -> Expr { matching(Key::Payload(field), inverted, port_set(&self.ports)) };
        Ok(match (self.which, self.inverted) {
            (SOURCE, inverted) => vec![vec![test(Field::ThSport, inverted)]],
            (DESTINATION, inverted) => vec![vec![test(Field::ThDport, inverted)]],
            (_, true) => vec![vec![test(Field::ThSport, true), test(Field::ThDport, true)]],
            (_, false) => {
                vec![vec![test(Field::ThSport, false)], vec![test(Field::ThSport, true), test(Field::ThDport, false)]]
            }
        })
    }

    fn sees_no_later_fragment(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
