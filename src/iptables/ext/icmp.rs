//! `-m icmp` and `-m icmp6`: type and code of an ICMP message.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::dialect::Dialect;
use crate::iptables::number;
use crate::iptables::protocol::ip;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never, not_a_fragment};
use crate::nft::expr::{Alternative, Field, Key, Value};
use std::fmt::Write;

/// Type that stands for every type in IPv4 (linux/netfilter_ipv4/ip_tables.h, `struct ipt_icmp`).
const ANY: u8 = 255;

const V4_OPTIONS: &[Opt] = &[Opt::value(0, &["icmp-type"]).required()];
const V6_OPTIONS: &[Opt] = &[Opt::value(0, &["icmpv6-type"]).required()];

/// Name, type, and code where the name means one code (RFC 792, RFC 1812; IANA's registry).
type Named = (&'static str, u8, Option<u8>);

const V4_NAMES: &[Named] = &[
    ("any", ANY, None),
    ("echo-reply", 0, None),
    ("pong", 0, None),
    ("destination-unreachable", 3, None),
    ("network-unreachable", 3, Some(0)),
    ("host-unreachable", 3, Some(1)),
    ("protocol-unreachable", 3, Some(2)),
    ("port-unreachable", 3, Some(3)),
    ("fragmentation-needed", 3, Some(4)),
    ("source-route-failed", 3, Some(5)),
    ("network-unknown", 3, Some(6)),
    ("host-unknown", 3, Some(7)),
    ("network-prohibited", 3, Some(9)),
    ("host-prohibited", 3, Some(10)),
    ("TOS-network-unreachable", 3, Some(11)),
    ("TOS-host-unreachable", 3, Some(12)),
    ("communication-prohibited", 3, Some(13)),
    ("host-precedence-violation", 3, Some(14)),
    ("precedence-cutoff", 3, Some(15)),
    ("source-quench", 4, None),
    ("redirect", 5, None),
    ("network-redirect", 5, Some(0)),
    ("host-redirect", 5, Some(1)),
    ("TOS-network-redirect", 5, Some(2)),
    ("TOS-host-redirect", 5, Some(3)),
    ("echo-request", 8, None),
    ("ping", 8, None),
    ("router-advertisement", 9, None),
    ("router-solicitation", 10, None),
    ("time-exceeded", 11, None),
    ("ttl-exceeded", 11, None),
    ("ttl-zero-during-transit", 11, Some(0)),
    ("ttl-zero-during-reassembly", 11, Some(1)),
    ("parameter-problem", 12, None),
    ("ip-header-bad", 12, Some(0)),
    ("required-option-missing", 12, Some(1)),
    ("timestamp-request", 13, None),
    ("timestamp-reply", 14, None),
    ("address-mask-request", 17, None),
    ("address-mask-reply", 18, None),
];

/// RFC 4443, RFC 4861; IANA's registry.
const V6_NAMES: &[Named] = &[
    ("destination-unreachable", 1, None),
    ("no-route", 1, Some(0)),
    ("communication-prohibited", 1, Some(1)),
    ("beyond-scope", 1, Some(2)),
    ("address-unreachable", 1, Some(3)),
    ("port-unreachable", 1, Some(4)),
    ("failed-policy", 1, Some(5)),
    ("reject-route", 1, Some(6)),
    ("packet-too-big", 2, None),
    ("time-exceeded", 3, None),
    ("ttl-exceeded", 3, None),
    ("ttl-zero-during-transit", 3, Some(0)),
    ("ttl-zero-during-reassembly", 3, Some(1)),
    ("parameter-problem", 4, None),
    ("bad-header", 4, Some(0)),
    ("unknown-header-type", 4, Some(1)),
    ("unknown-option", 4, Some(2)),
    ("echo-request", 128, None),
    ("ping", 128, None),
    ("echo-reply", 129, None),
    ("pong", 129, None),
    ("router-solicitation", 133, None),
    ("router-advertisement", 134, None),
    ("neighbour-solicitation", 135, None),
    ("neighbor-solicitation", 135, None),
    ("neighbour-advertisement", 136, None),
    ("neighbor-advertisement", 136, None),
    ("redirect", 137, None),
];

/// What 1.8.10 and later know too (RFC 2710, RFC 3810; man page of ip6tables-extensions).
const V6_NEWER_NAMES: &[Named] = &[
    ("mld-listener-query", 130, None),
    ("mld-listener-report", 131, None),
    ("mld-listener-done", 132, None),
    ("mld-listener-reduction", 132, None),
];

/// The first version with [`V6_NEWER_NAMES`], and with codes of [`ANY`] that are shown again. They have no effect: the
/// kernel looks at no code where the type is any.
const NEWER: (u16, u16, u16) = (1, 8, 10);

#[derive(Clone, Debug)]
struct Icmp {
    family: Family,
    kind: u8,
    code: Option<u8>,
    inverted: bool,
}

/// `-m icmp`, without options.
pub fn v4() -> Box<dyn Extension> {
    Box::new(Icmp { family: Family::V4, kind: ANY, code: None, inverted: false })
}

/// `-m icmp6`, without options.
pub fn v6() -> Box<dyn Extension> {
    Box::new(Icmp { family: Family::V6, kind: ANY, code: None, inverted: false })
}

impl Icmp {
    fn names(&self, dialect: &Dialect) -> impl Iterator<Item = &'static Named> {
        let (names, newer) = match self.family {
            Family::V4 => (V4_NAMES, [].as_slice()),
            Family::V6 => (V6_NAMES, V6_NEWER_NAMES),
        };
        names.iter().chain(if dialect.version >= NEWER { newer } else { &[] })
    }

    /// `ICMP` or `ICMPv6`, for messages.
    fn title(&self) -> &'static str {
        match self.family {
            Family::V4 => "ICMP",
            Family::V6 => "ICMPv6",
        }
    }

    fn is_any(&self) -> bool {
        self.family == Family::V4 && self.kind == ANY
    }

    fn parse(&self, text: &str, dialect: &Dialect) -> Result<(u8, Option<u8>), Error> {
        let title = self.title();
        let begins = |name: &str| name.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text));
        let mut candidates = self.names(dialect).filter(|(name, ..)| begins(name));
        match (candidates.next(), candidates.next()) {
            (Some((_, kind, code)), None) => return Ok((*kind, *code)),
            (Some((first, ..)), Some((second, ..))) => {
                let text = format!("Ambiguous {title} type `{text}': `{first}' or `{second}'?");
                return Err(Error::Parameter(text));
            }
            _ => {}
        }
        let (kind, code) = match text.split_once('/') {
            Some((kind, code)) => (kind, Some(code)),
            None => (text, None),
        };
        let unknown = |what: &str, part: &str| Error::Parameter(format!("Unknown {title} {what} `{part}'"));
        let kind = number::parse(kind, 255).ok_or_else(|| unknown("type", kind))? as u8;
        let code = match code {
            Some("0:255") if dialect.version >= NEWER => None,
            Some(code) => Some(number::parse(code, 255).ok_or_else(|| unknown("code", text))? as u8),
            None => None,
        };
        Ok((kind, code))
    }

    fn protocol(&self) -> u8 {
        match self.family {
            Family::V4 => ip::ICMP,
            Family::V6 => ip::ICMPV6,
        }
    }
}

impl Extension for Icmp {
    fn name(&self) -> &'static str {
        match self.family {
            Family::V4 => "icmp",
            Family::V6 => "icmp6",
        }
    }

    fn options(&self) -> &'static [Opt] {
        match self.family {
            Family::V4 => V4_OPTIONS,
            Family::V6 => V6_OPTIONS,
        }
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        (self.kind, self.code) = self.parse(input.value, input.dialect)?;
        self.inverted = input.inverted;
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.protocol.is(self.protocol()) { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        let option = match self.family {
            Family::V4 => "icmp-type",
            Family::V6 => "icmpv6-type",
        };
        let _ = write!(out, "{} --{option} ", bang(self.inverted));
        let codes = match form {
            Form::Spec => true,
            Form::Save(dialect) => dialect.version >= NEWER,
        };
        let _ = match self.code {
            _ if self.is_any() && !(codes && self.code.is_some()) => write!(out, "any"),
            Some(code) => write!(out, "{}/{code}", self.kind),
            None => write!(out, "{}", self.kind),
        };
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        out.push_str(match self.family {
            Family::V4 => " icmp",
            Family::V6 => " ipv6-icmp",
        });
        let named = self.names(style.dialect).find(|(_, kind, code)| (*kind, *code) == (self.kind, self.code));
        if let Some((name, ..)) = named.filter(|_| !style.numeric) {
            let _ = write!(out, " {}{name}", if self.inverted { "!" } else { "" });
            return;
        }
        let _ = write!(out, "{}type {}", if self.inverted { " !" } else { "" }, self.kind);
        if let Some(code) = self.code {
            let _ = write!(out, " code {code}");
        }
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !context.protocol.is(self.protocol()) {
            return Err(Refusal::new(format!("-m {}", self.name()), "needs -p of its protocol"));
        }
        let (kind, code) = match self.family {
            Family::V4 => (Field::IcmpType, Field::IcmpCode),
            Family::V6 => (Field::Icmp6Type, Field::Icmp6Code),
        };
        if self.is_any() {
            return match self.inverted {
                true => Ok(vec![vec![never()]]),
                false => Ok(vec![vec![not_a_fragment()]]),
            };
        }
        let test = |field, inverted, value| matching(Key::Payload(field), inverted, Value::Bytes(vec![value]));
        Ok(match (self.code, self.inverted) {
            (None, inverted) => vec![vec![test(kind, inverted, self.kind)]],
            (Some(value), false) => vec![vec![test(kind, false, self.kind), test(code, false, value)]],
            (Some(value), true) => {
                vec![vec![test(kind, true, self.kind)], vec![test(kind, false, self.kind), test(code, true, value)]]
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
