//! Transport protocols: the names iptables knows by itself, and those of /etc/protocols.

#![forbid(unsafe_code)]

use super::dialect::Dialect;
use super::{names, number};
use crate::error::Error;
use crate::family::Family;

/// IPPROTO_* of linux/in.h and linux/in6.h.
#[allow(missing_docs)]
pub mod ip {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const COMP: u8 = 108;
    pub const IPCOMP: u8 = 108;
    pub const SCTP: u8 = 132;
    pub const MH: u8 = 135;
    pub const UDPLITE: u8 = 136;
}

/// Names that iptables knows whatever /etc/protocols says.
const BUILT_IN: &[(&str, u8)] = &[
    ("tcp", ip::TCP),
    ("sctp", ip::SCTP),
    ("udp", ip::UDP),
    ("udplite", ip::UDPLITE),
    ("icmp", ip::ICMP),
    ("ipv6-icmp", ip::ICMPV6),
    ("icmpv6", ip::ICMPV6),
    ("esp", ip::ESP),
    ("ah", ip::AH),
    ("ipv6-mh", ip::MH),
    ("mh", ip::MH),
    ("all", 0),
];

/// Names more that iptables knows from 1.8.11 on, where it no longer asks /etc/protocols for the name of a number.
const NEWER: &[(&str, u8)] = &[("dccp", ip::DCCP), ("ipcomp", ip::IPCOMP), ("mobility-header", ip::MH)];

/// The protocol a rule asks for with `-p`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// 0: any.
    pub number: u8,
    /// `! -p`.
    pub inverted: bool,
}

impl Protocol {
    /// Whether the rule is for exactly this protocol.
    pub fn is(self, number: u8) -> bool {
        self.number == number && !self.inverted
    }
}

/// Reads what stands behind `-p`.
pub fn parse(text: &str) -> Result<u8, Error> {
    let text = text.to_ascii_lowercase();
    if let Some(number) = number::parse(&text, 255) {
        return Ok(number as u8);
    }
    if let Some((_, number)) = BUILT_IN.iter().find(|(name, _)| *name == text) {
        return Ok(*number);
    }
    names::protocol_number(&text).ok_or_else(|| Error::Parameter(format!("unknown protocol \"{text}\" specified")))
}

/// The name iptables itself has for a protocol.
pub fn built_in_name(number: u8) -> Option<&'static str> {
    BUILT_IN.iter().find(|(_, n)| *n == number).map(|(name, _)| *name)
}

/// The name that /etc/protocols gives it.
pub fn listed_name(number: u8) -> Option<&'static str> {
    if number == 0 { None } else { names::protocol_name(number) }
}

/// The name that `-S` gives it, and before 1.8.11 a listing without `-n`.
pub fn name(number: u8, dialect: &Dialect) -> Option<&'static str> {
    match number {
        0 | ip::TCP | ip::UDP | ip::ICMP => built_in_name(number),
        _ if dialect.version >= (1, 8, 11) => {
            NEWER.iter().find(|(_, n)| *n == number).map(|(name, _)| *name).or_else(|| built_in_name(number))
        }
        _ => names::protocol_name(number).or_else(|| built_in_name(number)),
    }
}

/// The match that `-p` brings with it when an option is met that nothing else knows.
pub fn implied_match(text: &str, family: Family) -> String {
    let text = text.to_ascii_lowercase();
    let name = match number::parse(&text, 255) {
        Some(number) => match built_in_name(number as u8).or_else(|| names::protocol_name(number as u8)) {
            Some(name) => name.to_owned(),
            None => text,
        },
        None => text,
    };
    match (family, name.as_str()) {
        (Family::V6, "icmpv6" | "ipv6-icmp") => "icmp6".to_owned(),
        _ => name,
    }
}
