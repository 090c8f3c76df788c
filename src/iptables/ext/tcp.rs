//! `-m tcp`: ports, flags, the presence of an option.

#![forbid(unsafe_code)]

use super::port::{PortMatch, Ports, has_ports};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::iptables::protocol::ip;
use crate::nft::expr::{Alternative, Expr, Field, Key, Match, Op, Value};
use std::fmt::Write;

const SOURCE: u8 = 0;
const DESTINATION: u8 = 1;
const SYN: u8 = 2;
const FLAGS: u8 = 3;
const OPTION: u8 = 4;

const OPTIONS: &[Opt] = &[
    Opt::value(SOURCE, &["source-port", "sport"]).repeatable(),
    Opt::value(DESTINATION, &["destination-port", "dport"]).repeatable(),
    Opt::flag(SYN, &["syn"]).repeatable(),
    Opt::value(FLAGS, &["tcp-flags"]).two().repeatable(),
    Opt::value(OPTION, &["tcp-option"]).repeatable(),
];

/// Bits of the flags byte (RFC 9293, 3.1), in the order in which they are written.
const FLAG_NAMES: &[(&str, u8)] =
    &[("FIN", 0x01), ("SYN", 0x02), ("RST", 0x04), ("PSH", 0x08), ("ACK", 0x10), ("URG", 0x20)];

const ALL_FLAGS: u8 = 0x3f;

/// `--syn`: SYN out of FIN, SYN, RST, ACK.
const SYN_MASK: u8 = 0x17;
const SYN_ONLY: u8 = 0x02;

#[derive(Clone, Copy, Debug)]
struct Flags {
    mask: u8,
    set: u8,
    inverted: bool,
}

#[derive(Clone, Debug, Default)]
struct Tcp {
    source: Option<PortMatch>,
    destination: Option<PortMatch>,
    flags: Option<Flags>,
    option: Option<(u8, bool)>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Tcp::default())
}

fn parse_flags(text: &str) -> Result<u8, Error> {
    let mut bits = 0;
    for word in text.split(',').filter(|word| !word.is_empty()) {
        bits |= match word.to_ascii_uppercase().as_str() {
            "ALL" => ALL_FLAGS,
            "NONE" => 0,
            name => match FLAG_NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, bit)) => *bit,
                None => return Err(Error::Parameter(format!("Unknown TCP flag `{word}'"))),
            },
        };
    }
    Ok(bits)
}

fn flag_text(bits: u8) -> String {
    let names: Vec<&str> = FLAG_NAMES.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name).collect();
    if names.is_empty() { "NONE".to_owned() } else { names.join(",") }
}

/// Sets `slot` unless an earlier option did.
fn once<T>(slot: &mut Option<T>, value: T, message: &str) -> Result<(), Error> {
    if slot.is_some() {
        return Err(Error::Parameter(message.to_owned()));
    }
    *slot = Some(value);
    Ok(())
}

impl Tcp {
    fn set_flags(&mut self, flags: Flags) -> Result<(), Error> {
        once(&mut self.flags, flags, "Only one of `--syn' or `--tcp-flags'  allowed")
    }
}

impl Extension for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let inverted = input.inverted;
        match input.id {
            SOURCE | DESTINATION => {
                let (slot, message) = match input.id {
                    SOURCE => (&mut self.source, "Only one `--source-port' allowed"),
                    _ => (&mut self.destination, "Only one `--destination-port' allowed"),
                };
                if slot.is_some() {
                    return Err(Error::Parameter(message.to_owned()));
                }
                *slot = Some(PortMatch { ports: Ports::parse(input.value, "tcp")?, inverted });
                Ok(())
            }
            SYN => self.set_flags(Flags { mask: SYN_MASK, set: SYN_ONLY, inverted }),
            FLAGS => {
                let Some(second) = input.second else {
                    return Err(Error::Parameter("--tcp-flags requires two args.".to_owned()));
                };
                if self.flags.is_some() {
                    return Err(Error::Parameter("Only one of `--syn' or `--tcp-flags'  allowed".to_owned()));
                }
                let flags = Flags { mask: parse_flags(input.value)?, set: parse_flags(second)?, inverted };
                // No flags of none are what a rule without flags has: iptables does not tell the two apart.
                if flags.mask == 0 && flags.set == 0 && !inverted {
                    return Ok(());
                }
                self.set_flags(flags)
            }
            _ => {
                let kind = number::parse(input.value, 255).filter(|kind| *kind > 0);
                let bad = || Error::Parameter(format!("Bad TCP option \"{}\"", input.value));
                once(&mut self.option, (kind.ok_or_else(bad)? as u8, inverted), "Only one `--tcp-option' allowed")
            }
        }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.protocol.is(ip::TCP) {
            let ports = [("sport", self.source), ("dport", self.destination)];
            return ports
                .iter()
                .try_for_each(|(option, ports)| ports.map_or(Ok(()), |p| p.check_native(option, place)));
        }
        let said = self.source.is_some() || self.destination.is_some() || self.flags.is_some();
        Err(place.wrong_protocol("tcp", said))
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        self.source.inspect(|ports| ports.save(out, "sport", form));
        self.destination.inspect(|ports| ports.save(out, "dport", form));
        if let Some((kind, inverted)) = self.option {
            let _ = write!(out, "{} --tcp-option {kind}", if inverted { " !" } else { "" });
        }
        if let Some(flags) = self.flags {
            let bang = if flags.inverted { " !" } else { "" };
            let _ = write!(out, "{bang} --tcp-flags {} {}", flag_text(flags.mask), flag_text(flags.set));
        }
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        out.push_str(" tcp");
        self.source.inspect(|ports| ports.list(out, "spt", "tcp", style));
        self.destination.inspect(|ports| ports.list(out, "dpt", "tcp", style));
        if let Some((kind, inverted)) = self.option {
            let _ = write!(out, " option={}{kind}", if inverted { "!" } else { "" });
        }
        if let Some(flags) = self.flags {
            let bang = if flags.inverted { "!" } else { "" };
            let _ = if style.numeric {
                write!(out, " flags:{bang}0x{:02X}/0x{:02X}", flags.mask, flags.set)
            } else {
                write!(out, " flags:{bang}{}/{}", flag_text(flags.mask), flag_text(flags.set))
            };
        }
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !context.protocol.is(ip::TCP) {
            return Err(Refusal::new("-m tcp", "needs -p tcp"));
        }
        if self.option.is_some() {
            // xt_tcpudp sees an option whose length is wrong, or that is the header's last byte; nft_exthdr does not.
            return Err(Refusal::new("--tcp-option", "nf_tables passes over options that are malformed"));
        }
        let ports = [(self.source, Field::TcpSport), (self.destination, Field::TcpDport)];
        let mut exprs: Alternative =
            ports.into_iter().filter_map(|(wanted, field)| wanted.and_then(|wanted| wanted.translate(field))).collect();
        if let Some(flags) = self.flags {
            exprs.push(Expr::Match(Match {
                key: Key::Payload(Field::TcpFlags),
                mask: Some(vec![flags.mask]),
                op: if flags.inverted { Op::Ne } else { Op::Eq },
                value: Value::Bytes(vec![flags.set]),
            }));
        }
        if exprs.is_empty() {
            exprs.push(has_ports(context.place.family, Field::TcpSport));
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
