//! Addresses with masks, as `-s` and `-d` take them.

#![forbid(unsafe_code)]

use super::{names, number};
use crate::error::Error;
use crate::family::Family;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and the bits of it that count; the others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Of the rule's family.
    pub address: IpAddr,
    /// Any bit pattern, of the same family.
    pub mask: IpAddr,
}

/// A network, or everything but it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMatch {
    /// What the address is held against.
    pub network: Network,
    /// `!` stood before it.
    pub inverted: bool,
}

/// Bytes of an address in network order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// Mask whose first `length` bits are set; `length` is at most the family's address width.
fn prefix_mask(family: Family, length: u32) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - length).unwrap_or(0))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX.checked_shl(128 - length).unwrap_or(0))),
    }
}

impl Network {
    /// `address/mask` with the host bits cleared.
    pub fn new(address: IpAddr, mask: IpAddr) -> Self {
        let address = match (address, mask) {
            (IpAddr::V4(a), IpAddr::V4(m)) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & m.to_bits())),
            (IpAddr::V6(a), IpAddr::V6(m)) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & m.to_bits())),
            (other, _) => other,
        };
        Self { address, mask }
    }

    /// Whether every address is in it.
    pub fn is_all(&self) -> bool {
        bits(self.mask).0 == 0
    }

    /// Length of the mask as a prefix; `None` for a mask with holes.
    pub fn prefix_length(&self) -> Option<u32> {
        let (mask, width) = bits(self.mask);
        let length = mask.count_ones();
        let contiguous = length == 0 || mask.trailing_zeros() == width - length;
        contiguous.then_some(length)
    }

    /// `/24`, `/255.0.255.0`.
    pub fn mask_text(&self) -> String {
        match self.prefix_length() {
            Some(length) => format!("/{length}"),
            None => format!("/{}", Written(self.mask)),
        }
    }

    /// `10.0.0.0/8`, the mask always there.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(20);
        self.write(&mut out);
        out
    }

    /// The same behind what is there.
    pub fn write(&self, out: &mut String) {
        match (self.address, self.prefix_length()) {
            (IpAddr::V4(address), Some(length)) => {
                for (octet, before) in address.octets().into_iter().zip(["", ".", ".", "."]) {
                    out.push_str(before);
                    number::write(out, u32::from(octet));
                }
                out.push('/');
                number::write(out, length);
            }
            _ => {
                let _ = write!(out, "{}{}", Written(self.address), self.mask_text());
            }
        }
    }

    /// As a listing shows it: no mask for a single address, and names unless `numeric`.
    pub fn list_text(&self, numeric: bool) -> String {
        let anywhere = self.is_all() || self.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        if anywhere && !numeric {
            return "anywhere".to_owned();
        }
        let (_, width) = bits(self.address);
        let single = self.prefix_length() == Some(width);
        let mask = if single { String::new() } else { self.mask_text() };
        let name = if numeric { None } else { names::address_name(self.address) };
        format!("{}{mask}", name.unwrap_or_else(|| Written(self.address).to_string()))
    }
}

/// An address in numbers, as iptables prints it: the C library shows those that stand for one of IPv4 as such, the
/// compatible ones too (RFC 4291 section 2.5.5.1), and takes all for that whose first six groups are zero and not the
/// seventh.
#[derive(Clone, Copy, Debug)]
pub struct Written(pub IpAddr);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(address) if address.to_bits() >> 32 == 0 && address.segments()[6] != 0 => {
                write!(f, "::{}", Ipv4Addr::from_bits(address.to_bits() as u32))
            }
            other => write!(f, "{other}"),
        }
    }
}

fn not_found(text: &str) -> Error {
    Error::Parameter(format!("host/network `{text}' not found"))
}

/// One to four octets, decimal, octal or hexadecimal; those not written are zero.
fn parse_v4(text: &str, complete: bool) -> Option<Ipv4Addr> {
    // Without zeros before a number, as nearly always, all agree on what it means.
    if let Ok(plain) = text.parse() {
        return Some(plain);
    }
    let mut octets = [0u8; 4];
    let mut count = 0;
    for word in text.split('.') {
        let octet = number::parse(word, 255)?;
        *octets.get_mut(count)? = octet as u8;
        count += 1;
    }
    (!complete || count == 4).then(|| Ipv4Addr::from(octets))
}

/// A numeric address of `family`, written out in full.
pub fn parse_numeric(text: &str, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => parse_v4(text, true).map(IpAddr::V4),
        Family::V6 => text.parse().ok().map(IpAddr::V6),
    }
}

/// A numeric address of `family`; IPv4 octets that are not written are zero.
pub fn parse_start(text: &str, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => parse_v4(text, false).map(IpAddr::V4),
        Family::V6 => text.parse().ok().map(IpAddr::V6),
    }
}

fn parse_mask(text: &str, family: Family) -> Result<IpAddr, Error> {
    let invalid = || Error::Parameter(format!("invalid mask `{text}' specified"));
    if let Some(mask) = parse_numeric(text, family) {
        return Ok(mask);
    }
    let width = family.address_len() as u64 * 8;
    let length = number::parse(text, width).ok_or_else(invalid)?;
    Ok(prefix_mask(family, length as u32))
}

/// What a name means.
fn resolve(text: &str, family: Family) -> Result<Vec<IpAddr>, Error> {
    if text.is_empty() {
        return Err(not_found(text));
    }
    if family == Family::V4
        && let Some(network) = names::network(text)
    {
        return Ok(vec![IpAddr::V4(network)]);
    }
    let hosts = names::hosts(text, family);
    if hosts.is_empty() { Err(not_found(text)) } else { Ok(hosts) }
}

fn parse_one(text: &str, family: Family) -> Result<Vec<Network>, Error> {
    let (host, mask) = match text.rsplit_once('/') {
        Some((host, mask)) => (host, parse_mask(mask, family)?),
        None => (text, prefix_mask(family, family.address_len() as u32 * 8)),
    };
    let whole = Network::new(any(family), mask);
    if whole.is_all() {
        return Ok(vec![whole]);
    }
    if let Some(address) = parse_start(host, family) {
        return Ok(vec![Network::new(address, mask)]);
    }
    let mut networks: Vec<Network> = Vec::new();
    for address in resolve(host, family)? {
        let network = Network::new(address, mask);
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

/// The first address of the network around `address` whose prefix has `length` bits, at most the address's own.
pub fn network(address: IpAddr, length: u8) -> IpAddr {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    Network::new(address, prefix_mask(family, u32::from(length))).address
}

/// The unspecified address.
pub fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Reads a comma-separated list of addresses and networks, host names among them.
pub fn parse_list(text: &str, family: Family) -> Result<Vec<Network>, Error> {
    let read = |word: &str| parse_one(word.trim_start_matches([' ', '\t']), family);
    let Some((first, others)) = text.split_once(',') else { return read(text) };
    let mut networks = read(first)?;
    for word in others.split(',') {
        networks.extend(read(word)?);
    }
    Ok(networks)
}

/// A mask that may be longer than the address.
fn parse_long_mask(text: &str, family: Family) -> Result<IpAddr, Error> {
    let width = family.address_len() as u32 * 8;
    match number::parse(text, 255) {
        Some(length) => Ok(prefix_mask(family, width.min(length as u32))),
        None => parse_mask(text, family),
    }
}

/// Reads an address with a mask or prefix length, as match options take it: the host bits stay.
pub fn parse_with_mask(text: &str, family: Family) -> Result<Network, Error> {
    let width = family.address_len() as u32 * 8;
    let (host, mask) = match text.split_once('/') {
        Some((host, mask)) => (host, parse_long_mask(mask, family)?),
        None => (text, prefix_mask(family, width)),
    };
    Ok(Network { address: parse_host(host, family)?, mask })
}

/// Reads a single address, as options take it that know no mask; a name is looked up.
pub fn parse_host(host: &str, family: Family) -> Result<IpAddr, Error> {
    if let Some(address) = parse_numeric(host, family) {
        return Ok(address);
    }
    names::hosts(host, family).into_iter().next().ok_or_else(|| {
        let why = match host.parse::<IpAddr>() {
            Ok(_) => "Address family for hostname not supported",
            Err(_) => "Name or service not known",
        };
        Error::Parameter(format!("getaddrinfo: {why}\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> String {
        parse_list(text, Family::V4).unwrap().iter().map(Network::text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn spellings_of_an_address() {
        assert_eq!(v4("10"), "10.0.0.0/32");
        assert_eq!(v4("10.1/16"), "10.1.0.0/16");
        assert_eq!(v4("010.1.1.1"), "8.1.1.1/32");
        assert_eq!(v4("10.1.2.3/255.0.255.0"), "10.0.2.0/255.0.255.0");
        assert_eq!(v4("10.1.2.3/255.255.0.0"), "10.1.0.0/16");
        assert_eq!(v4("1.2.3.4, 5.6.7.8"), "1.2.3.4/32 5.6.7.8/32");
        assert_eq!(v4("1.2.3.4/0"), "0.0.0.0/0");
    }

    #[test]
    fn an_address_of_ipv4_within_one_of_ipv6_shows() {
        for text in [
            "::10.0.0.1",
            "::0.1.0.2",
            "::0.1.0.0",
            "::ffff:1.2.3.4",
            "::ffff:0.0.0.0",
            "::1",
            "::",
            "::fffe:1:2",
            "1::1:2",
            "::1:2:3",
        ] {
            assert_eq!(Written(text.parse().unwrap()).to_string(), text);
        }
    }

    #[test]
    fn bad_addresses_are_named() {
        let text = |t| match parse_list(t, Family::V4) {
            Err(Error::Parameter(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text("1.2.3.4/33"), "invalid mask `33' specified");
        assert_eq!(text("1.2.3.4,"), "host/network `' not found");
    }
}
