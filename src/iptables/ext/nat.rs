//! What the targets of table nat have in common: where they may stand, and the addresses and ports that they take.

#![forbid(unsafe_code)]

use super::{Input, Place};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::address::Written;
use crate::iptables::protocol::{Protocol, ip};
use crate::iptables::{names, number};
use std::fmt::Write;
use std::net::IpAddr;

/// Ports to translate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPorts {
    pub first: u16,
    pub last: u16,
    /// `/base` behind a range: ports are shifted by their distance from this one.
    pub base: Option<u16>,
}

/// `--to-source`, `--to-destination`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatRange {
    pub addresses: Option<(IpAddr, IpAddr)>,
    pub ports: Option<NatPorts>,
}

fn parameter(text: impl Into<String>) -> Error {
    Error::Parameter(text.into())
}

/// Ports may be asked for only of a protocol that has some; `! -p tcp` passes for TCP here, and ICMP for one with
/// ports, as iptables has it.
fn may_have_ports(protocol: Protocol) -> bool {
    matches!(protocol.number, ip::TCP | ip::UDP | ip::SCTP | ip::DCCP | ip::ICMP)
}

fn check_protocol(input: &Input<'_>) -> Result<(), Error> {
    if may_have_ports(input.protocol) {
        return Ok(());
    }
    Err(parameter("Need TCP, UDP, SCTP or DCCP with port specification"))
}

/// A number that `text` begins with and what follows it.
fn port_prefix(text: &str) -> Option<(u16, &str)> {
    let (number, rest) = number::prefix(text)?;
    Some((u16::try_from(number).ok()?, rest))
}

impl NatPorts {
    /// `a`, `a-b`, `a-b/base`; `a` and `base` may be names of services.
    pub fn parse(input: &Input<'_>, text: &str) -> Result<Self, Error> {
        check_protocol(input)?;
        let invalid = |text: &str| parameter(format!("Port `{text}' not valid"));
        let Some((first, rest)) = port_prefix(text) else {
            let port = names::service_port(text, None).ok_or_else(|| invalid(text))?;
            return Ok(Self { first: port, last: port, base: None });
        };
        if rest.is_empty() {
            return Ok(Self { first, last: first, base: None });
        }
        if rest.starts_with(':') {
            return Err(parameter("Invalid port:port syntax - use dash"));
        }
        let Some(text) = rest.strip_prefix('-') else {
            return Err(parameter(format!("Garbage after port value: `{rest}'")));
        };
        let (last, rest) = port_prefix(text).ok_or_else(|| invalid(text))?;
        if last < first {
            return Err(parameter(format!("Port range `{text}' funky")));
        }
        match rest.strip_prefix('/') {
            None if rest.is_empty() => Ok(Self { first, last, base: None }),
            None => Err(parameter(format!("Garbage after port range: `{rest}'"))),
            // What follows the number is not looked at.
            Some(base) => {
                let port = port_prefix(base).map(|(port, _)| port).or_else(|| names::service_port(base, None));
                Ok(Self { first, last, base: Some(port.ok_or_else(|| invalid(base))?) })
            }
        }
    }

    /// `80`, `80-90`, `80-90/85`
    pub fn text(self) -> String {
        let Self { first, last, base } = self;
        let mut out = first.to_string();
        if first != last || base.is_some() {
            let _ = write!(out, "-{last}");
        }
        if let Some(base) = base {
            let _ = write!(out, "/{base}");
        }
        out
    }

    /// As the native expression takes them.
    pub fn translate(self, option: &str) -> Result<(u16, u16), Refusal> {
        match self.base {
            None => Ok((self.first, self.last)),
            Some(_) => Err(Refusal::new(option, "has a shift of ports, which nf_tables cannot do")),
        }
    }
}

impl NatRange {
    /// `ADDRESS[-ADDRESS][:PORTS]`, `:PORTS`; with ports an IPv6 address stands in brackets.
    pub fn parse(input: &Input<'_>) -> Result<Self, Error> {
        let (addresses, ports) = split(input.value, input.family)?;
        let ports = ports.map(|ports| NatPorts::parse(input, ports)).transpose()?;
        if addresses.is_empty() && ports.is_some() {
            return Ok(Self { addresses: None, ports });
        }
        let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
        let first = address(first, input.family)?;
        Ok(Self { addresses: Some((first, address(last, input.family)?)), ports })
    }

    /// As it is saved and listed.
    pub fn text(self, family: Family) -> String {
        let addresses = match self.addresses {
            None => String::new(),
            Some((first, last)) if first == last => Written(first).to_string(),
            Some((first, last)) => format!("{}-{}", Written(first), Written(last)),
        };
        match self.ports {
            None => addresses,
            Some(ports) if family == Family::V6 && !addresses.is_empty() => format!("[{addresses}]:{}", ports.text()),
            Some(ports) => format!("{addresses}:{}", ports.text()),
        }
    }

    /// The addresses and ports as the native expression takes them.
    #[allow(clippy::type_complexity)]
    pub fn translate(self, option: &str) -> Result<(Option<(IpAddr, IpAddr)>, Option<(u16, u16)>), Refusal> {
        if self.addresses.is_some_and(|(first, last)| first > last) {
            return Err(Refusal::new(option, "is reversed"));
        }
        let ports = self.ports.map(|ports| ports.translate(option)).transpose()?;
        Ok((self.addresses, ports))
    }
}

/// Addresses and ports.
fn split(text: &str, family: Family) -> Result<(&str, Option<&str>), Error> {
    if let Some((_, inside)) = text.split_once('[') {
        let bad = || parameter("Invalid address format");
        let (inside, rest) = inside.split_once(']').filter(|_| family == Family::V6).ok_or_else(bad)?;
        return Ok((inside, rest.split_once(':').map(|(_, ports)| ports)));
    }
    match text.split_once(':') {
        // An IPv6 address has more than one.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((addresses, ports)) => Ok((addresses, Some(ports))),
        None => Ok((text, None)),
    }
}

fn address(text: &str, family: Family) -> Result<IpAddr, Error> {
    let read: Option<IpAddr> = match family {
        Family::V4 => text.parse().ok().map(IpAddr::V4),
        Family::V6 => text.parse().ok().map(IpAddr::V6),
    };
    read.ok_or_else(|| parameter(format!("Bad IP address \"{text}\"")))
}

/// What the kernel says of a target that belongs into some chains of table nat; of the user's chains the kernel itself
/// finds out where they are called from.
pub fn validate(place: &Place<'_>, chains: &[&str]) -> Result<(), Error> {
    let builtin = matches!(place.chain, "PREROUTING" | "INPUT" | "OUTPUT" | "POSTROUTING" | "FORWARD");
    if place.table == "nat" && (!builtin || chains.contains(&place.chain)) { Ok(()) } else { Err(place.invalid()) }
}

/// Writes those of the options that were given.
pub fn flags(out: &mut String, dashes: &str, given: u32, known: &[(u32, &str)]) {
    for (_, name) in known.iter().filter(|(bit, _)| given & bit != 0) {
        let _ = write!(out, " {dashes}{name}");
    }
}
