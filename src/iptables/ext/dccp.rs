//! `-m dccp`: ports, types of packets, options.

#![forbid(unsafe_code)]

use super::port::{PortMatch, parse_loose_range};
use super::transport::is_there;
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::iptables::protocol::ip;
use crate::iptables::rule::bang;
use crate::iptables::translate::never;
use crate::nft::expr::{Alternative, Base, Element, Expr, Field, Key, Match, Op, Value};
use std::fmt::Write;

/// The generic header with short sequence numbers (RFC 4340, 5.1).
const HEADER: u16 = 12;

/// Where the type lies: bits 1 to 4 of the ninth byte (RFC 4340, 5.1).
const TYPE: Field = Field::Raw { base: Base::Transport, offset: 64, len: 8 };
const TYPE_MASK: u8 = 0x1e;

const SOURCE: u8 = 0;
const DESTINATION: u8 = 1;
const TYPES: u8 = 2;
const OPTION: u8 = 3;

const OPTIONS: &[Opt] = &[
    Opt::value(SOURCE, &["source-port", "sport"]),
    Opt::value(DESTINATION, &["destination-port", "dport"]),
    Opt::value(TYPES, &["dccp-types"]),
    Opt::value(OPTION, &["dccp-option"]),
];

/// RFC 4340, 5.1, by number; all numbers beyond are `INVALID`.
const TYPE_NAMES: [&str; 10] =
    ["REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC", "SYNCACK"];
const INVALID: u16 = 0xfc00;

#[derive(Clone, Debug, Default)]
struct Dccp {
    source: Option<PortMatch>,
    destination: Option<PortMatch>,
    /// A bit for each type.
    types: Option<(u16, bool)>,
    option: Option<(u8, bool)>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Dccp::default())
}

fn parse_types(text: &str) -> Result<u16, Error> {
    let mut types = 0;
    for word in text.split(',').filter(|word| !word.is_empty()) {
        types |= match TYPE_NAMES.iter().position(|name| name.eq_ignore_ascii_case(word)) {
            Some(number) => 1 << number,
            None if word.eq_ignore_ascii_case("INVALID") => INVALID,
            None => return Err(Error::Parameter(format!("Unknown DCCP type `{word}'"))),
        };
    }
    Ok(types)
}

fn type_names(types: u16) -> String {
    let known = TYPE_NAMES.iter().enumerate().filter(|(number, _)| types & (1 << number) != 0).map(|(_, name)| *name);
    known.chain((types & INVALID != 0).then_some("INVALID")).collect::<Vec<_>>().join(",")
}

fn numbers(types: u16) -> impl Iterator<Item = u8> {
    (0..16u8).filter(move |number| types & (1 << number) != 0)
}

/// A match on the type; `None`: every type is meant.
fn translate_types(types: u16, inverted: bool) -> Option<Expr> {
    let value = |number: u8| vec![number << 1];
    let all: Vec<u8> = numbers(types).collect();
    let value = match (all.as_slice(), inverted) {
        ([], false) => return Some(never()),
        (_, true) if types == u16::MAX => return Some(never()),
        ([], true) => return None,
        (_, false) if types == u16::MAX => return None,
        ([one], _) => Value::Bytes(value(*one)),
        (several, _) => Value::Set(several.iter().map(|number| Element::One(value(*number))).collect()),
    };
    let op = if inverted { Op::Ne } else { Op::Eq };
    Some(Expr::Match(Match { key: Key::Payload(TYPE), mask: Some(vec![TYPE_MASK]), op, value }))
}

impl Extension for Dccp {
    fn name(&self) -> &'static str {
        "dccp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let inverted = input.inverted;
        let ports = |option| {
            let ports = parse_loose_range(input.dialect, "dccp", option, input.value, None)?;
            Ok::<_, Error>(Some(PortMatch { ports, inverted }))
        };
        match input.id {
            SOURCE => self.source = ports("source-port")?,
            DESTINATION => self.destination = ports("destination-port")?,
            TYPES => self.types = Some((parse_types(input.value)?, inverted)),
            _ => {
                let text = "dccp: bad value for option \"--dccp-option\", or out of range (1-255).\n";
                let kind = number::parse(input.value, 255).filter(|kind| *kind > 0);
                self.option = Some((kind.ok_or_else(|| Error::Parameter(text.to_owned()))? as u8, inverted));
            }
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.protocol.is(ip::DCCP) { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        self.source.inspect(|ports| ports.save_as_given(out, "sport"));
        self.destination.inspect(|ports| ports.save_as_given(out, "dport"));
        if let Some((types, inverted)) = self.types {
            let names = match form {
                Form::Spec if types == 0 => "\"\"".to_owned(),
                _ => type_names(types),
            };
            let _ = write!(out, "{} --dccp-types {names}", bang(inverted));
        }
        if let Some((kind, inverted)) = self.option {
            let _ = write!(out, "{} --dccp-option {kind}", bang(inverted));
        }
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        out.push_str(" dccp");
        self.source.inspect(|ports| ports.list_as_given(out, "spt", "dccp", style));
        self.destination.inspect(|ports| ports.list_as_given(out, "dpt", "dccp", style));
        if let Some((types, inverted)) = self.types {
            let text = match style.numeric {
                true => numbers(types).map(|number| number.to_string()).collect::<Vec<_>>().join(","),
                false => type_names(types),
            };
            let _ = write!(out, "{} {text}", bang(inverted));
        }
        if let Some((kind, inverted)) = self.option {
            let _ = write!(out, " option={}{kind}", if inverted { "!" } else { "" });
        }
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !context.protocol.is(ip::DCCP) {
            return Err(Refusal::new("-m dccp", "needs -p dccp"));
        }
        if self.option.is_some() {
            // xt_dccp takes only options 0 and 1 for single bytes, nf_tables all up to 31 (RFC 4340, 5.8).
            return Err(Refusal::new("--dccp-option", "nf_tables steps from option to option in another way"));
        }
        let ports = [(self.source, Field::DccpSport), (self.destination, Field::DccpDport)];
        let mut exprs: Alternative =
            ports.into_iter().filter_map(|(wanted, field)| wanted.and_then(|wanted| wanted.translate(field))).collect();
        if let Some((types, inverted)) = self.types {
            exprs.extend(translate_types(types, inverted));
        }
        if exprs.is_empty() {
            exprs.push(is_there(HEADER));
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
