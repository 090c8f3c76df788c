//! Ports of TCP and UDP, single and in ranges.

#![forbid(unsafe_code)]

use super::{Form, ListStyle, Place};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::dialect::{Dialect, KEPT, Variant};
use crate::iptables::translate::{matching, never, not_a_fragment};
use crate::iptables::{names, number};
use crate::nft::expr::{Element, Expr, Field, Key, Match, Op, Value};
use std::fmt::Write;

/// Ports from `first` to `last`, both within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

/// Ports as an option of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMatch {
    pub ports: Ports,
    pub inverted: bool,
}

/// One port, by number or by the name of a service.
pub fn parse_port(text: &str, protocol: Option<&str>) -> Result<u16, Error> {
    if let Some(port) = number::parse(text, 65535) {
        return Ok(port as u16);
    }
    names::service_port(text, protocol)
        .ok_or_else(|| Error::Parameter(format!("invalid port/service `{text}' specified")))
}

/// `a`, `a:b`, `:b`, `a:` as the options of newer matches take them: too large a number loses its upper bits, and the
/// order is not checked before 1.8.11; a rule of an older one that is kept must be readable all the same.
pub fn parse_loose_range(
    dialect: &Dialect,
    extension: &str,
    option: &str,
    text: &str,
    protocol: Option<&str>,
) -> Result<Ports, Error> {
    let read = |word: &str| match number::parse(word, u64::from(u32::MAX)) {
        Some(number) => Ok(number as u16),
        None if word.is_empty() => Ok(0),
        None => names::service_port(word, protocol)
            .ok_or_else(|| Error::Parameter(format!("Port \"{word}\" does not resolve to anything.\n"))),
    };
    let Some((first, last)) = text.split_once(':') else {
        let port = read(text)?;
        return Ok(Ports { first: port, last: port });
    };
    if last.contains(':') {
        let text = format!("{extension}: Too many components for option \"--{option}\" (max: 2)\n");
        return Err(Error::Parameter(text));
    }
    let (first, last) = (read(first)?, if last.is_empty() { u16::MAX } else { read(last)? });
    if first > last && dialect.version >= (1, 8, 11) && dialect.version != KEPT {
        return Err(Error::Parameter(format!("Port range {first}-{last} is negative.\n")));
    }
    Ok(Ports { first, last })
}

impl Ports {
    /// `a`, `a:b`, `:b`, `a:`.
    pub fn parse(text: &str, protocol: &str) -> Result<Self, Error> {
        let Some((first, last)) = text.split_once(':') else {
            let port = parse_port(text, Some(protocol))?;
            return Ok(Self { first: port, last: port });
        };
        let first = if first.is_empty() { 0 } else { parse_port(first, Some(protocol))? };
        let last = if last.is_empty() { u16::MAX } else { parse_port(last, Some(protocol))? };
        if first > last {
            return Err(Error::Parameter("invalid portrange (min > max)".to_owned()));
        }
        Ok(Self { first, last })
    }

    /// Every port.
    pub fn is_all(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// As a value of a match.
    pub fn value(self) -> Value {
        let bytes = |port: u16| port.to_be_bytes().to_vec();
        if self.first == self.last {
            Value::Bytes(bytes(self.first))
        } else {
            Value::Range(bytes(self.first), bytes(self.last))
        }
    }
}

impl Ports {
    fn element(self) -> Element {
        let bytes = |port: u16| port.to_be_bytes().to_vec();
        if self.first == self.last {
            Element::One(bytes(self.first))
        } else {
            Element::Range(bytes(self.first), bytes(self.last))
        }
    }
}

/// Several ports as a value of a match: sorted, with overlapping and adjoining ones made one.
pub fn port_set(ports: &[Ports]) -> Value {
    let mut sorted = ports.to_vec();
    sorted.sort_by_key(|ports| (ports.first, ports.last));
    let mut merged: Vec<Ports> = Vec::new();
    for next in sorted {
        match merged.last_mut() {
            Some(last) if next.first <= last.last.saturating_add(1) => last.last = last.last.max(next.last),
            _ => merged.push(next),
        }
    }
    match merged.as_slice() {
        [one] => one.value(),
        several => Value::Set(several.iter().map(|ports| ports.element()).collect()),
    }
}

/// The packet has a transport header with ports: any, but not in a later fragment.
pub fn has_ports(family: Family, field: Field) -> Expr {
    match family {
        Family::V4 => not_a_fragment(),
        Family::V6 => {
            let value = Value::Bytes(vec![0, 0]);
            Expr::Match(Match { key: Key::Payload(field), mask: None, op: Op::Ge, value })
        }
    }
}

/// A port in a listing: its service's name unless `-n`.
pub fn list_port(port: u16, protocol: Option<&str>, style: &ListStyle<'_>) -> String {
    let name = if style.numeric { None } else { names::service_name(port, protocol) };
    name.map_or_else(|| port.to_string(), str::to_owned)
}

impl PortMatch {
    /// iptables-nft shows "not from the first port on" as the range that is left.
    fn shown(self, nft: bool) -> Self {
        let Ports { first, last } = self.ports;
        if nft && self.inverted && first == 0 && last != 0 && last != u16::MAX {
            return Self { ports: Ports { first: last + 1, last: u16::MAX }, inverted: false };
        }
        self
    }

    /// ` ! --dport 1:2`
    pub fn save(self, out: &mut String, option: &str, form: &Form<'_>) {
        let shown = self.shown(form.nft_since((1, 8, 8)));
        // "Not any port" matches nothing, but iptables does not show it before 1.8.11.
        let hidden = matches!(form, Form::Save(dialect) if dialect.version < (1, 8, 11));
        if shown.ports.is_all() && (hidden || !shown.inverted) {
            return;
        }
        shown.save_as_given(out, option);
    }

    /// The same of a match that iptables-nft has no form of its own for: all ports are shown, too.
    pub fn save_as_given(self, out: &mut String, option: &str) {
        let Self { ports, inverted } = self;
        let _ = write!(out, "{} --{option} {}", if inverted { " !" } else { "" }, ports.first);
        if ports.first != ports.last {
            let _ = write!(out, ":{}", ports.last);
        }
    }

    /// ` dpt:!80`, ` dpts:1:2`
    pub fn list(self, out: &mut String, name: &str, protocol: &str, style: &ListStyle<'_>) {
        let nft = style.dialect.variant == Variant::Nft && style.dialect.version >= (1, 8, 8);
        self.shown(nft).list_as_given(out, name, protocol, style);
    }

    /// The same of a match that iptables-nft has no form of its own for.
    pub fn list_as_given(self, out: &mut String, name: &str, protocol: &str, style: &ListStyle<'_>) {
        let Self { ports, inverted } = self;
        if ports.is_all() && !inverted {
            return;
        }
        let bang = if inverted { "!" } else { "" };
        let port = |port| list_port(port, Some(protocol), style);
        let _ = if ports.first == ports.last {
            write!(out, " {name}:{bang}{}", port(ports.first))
        } else {
            write!(out, " {name}s:{bang}{}:{}", port(ports.first), port(ports.last))
        };
    }

    /// Refuses what iptables-nft takes for its opposite before 1.8.11: of "not any port" it makes "any".
    pub fn check_native(self, option: &str, place: &Place<'_>) -> Result<(), Error> {
        let Dialect { variant, version, .. } = place.dialect;
        let turned = *variant == Variant::Nft && ((1, 8, 8)..(1, 8, 11)).contains(version);
        match self.inverted && self.ports.is_all() && turned {
            true => {
                Err(Refusal::new(format!("! --{option}"), "means every packet to iptables-nft before 1.8.11").into())
            }
            false => Ok(()),
        }
    }

    /// As a match on `field`; the transport protocol is matched elsewhere.
    pub fn translate(self, field: Field) -> Option<Expr> {
        let reversed = self.ports.first > self.ports.last;
        match (self.ports.is_all(), reversed, self.inverted) {
            (true, _, true) | (_, true, false) => Some(never()),
            (true, _, false) | (_, true, true) => None,
            (false, false, inverted) => Some(matching(Key::Payload(field), inverted, self.ports.value())),
        }
    }
}
