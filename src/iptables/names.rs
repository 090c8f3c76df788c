//! Names that stand for numbers: services, protocols, networks and hosts of this machine. The one place of the
//! language that reads files; nothing here is asked when a number was given.

#![forbid(unsafe_code)]

use crate::family::Family;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::sync::OnceLock;

struct Entry {
    names: Vec<String>,
    number: u32,
    protocol: String,
}

/// Lines `name number[/protocol] alias…` of services(5), protocols(5).
fn read_numbers(path: &str) -> Vec<Entry> {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter_map(number_line).collect()
}

fn number_line(line: &str) -> Option<Entry> {
    let mut words = line.split('#').next()?.split_whitespace();
    let name = words.next()?;
    let value = words.next()?;
    let (number, protocol) = value.split_once('/').unwrap_or((value, ""));
    let names = std::iter::once(name).chain(words).map(str::to_owned).collect();
    Some(Entry { names, number: number.parse().ok()?, protocol: protocol.to_owned() })
}

fn services() -> &'static [Entry] {
    static TABLE: OnceLock<Vec<Entry>> = OnceLock::new();
    TABLE.get_or_init(|| read_numbers("/etc/services"))
}

fn protocols() -> &'static [Entry] {
    static TABLE: OnceLock<Vec<Entry>> = OnceLock::new();
    TABLE.get_or_init(|| read_numbers("/etc/protocols"))
}

/// Port of a service, for one protocol or (`None`) whichever comes first in the file.
pub fn service_port(name: &str, protocol: Option<&str>) -> Option<u16> {
    let fits = |entry: &&Entry| protocol.is_none_or(|p| p == entry.protocol) && entry.names.iter().any(|n| n == name);
    services().iter().find(fits).and_then(|entry| u16::try_from(entry.number).ok())
}

/// Name of the service on a port.
pub fn service_name(port: u16, protocol: Option<&str>) -> Option<&'static str> {
    let fits = |entry: &&Entry| entry.number == u32::from(port) && protocol.is_none_or(|p| p == entry.protocol);
    services().iter().find(fits).and_then(|entry| entry.names.first()).map(String::as_str)
}

/// Number of a protocol in protocols(5).
pub fn protocol_number(name: &str) -> Option<u8> {
    let entry = protocols().iter().find(|entry| entry.names.iter().any(|n| n == name))?;
    u8::try_from(entry.number).ok()
}

/// Name of a protocol in protocols(5).
pub fn protocol_name(number: u8) -> Option<&'static str> {
    let entry = protocols().iter().find(|entry| entry.number == u32::from(number))?;
    entry.names.first().map(String::as_str)
}

/// Number behind a name in a file of iproute2, whose lines are `number name`.
pub fn group_number(file: &str, name: &str) -> Option<u32> {
    iproute_lines(file).into_iter().find(|(_, found)| found == name).map(|(number, _)| number)
}

/// Name of a number in a file of iproute2.
pub fn group_name(file: &str, number: u32) -> Option<String> {
    iproute_lines(file).into_iter().find(|(found, _)| *found == number).map(|(_, name)| name)
}

/// Number of a connection's label by its name in /etc/xtables/connlabel.conf.
pub fn label_number(name: &str) -> Option<u16> {
    label_lines().into_iter().find(|(_, found)| found == name).map(|(number, _)| number)
}

/// Name of a connection's label.
pub fn label_name(number: u16) -> Option<String> {
    label_lines().into_iter().find(|(found, _)| *found == number).map(|(_, name)| name)
}

/// Names of the labels of connections, which conntrack(8) reads as well: lines `number name`.
const LABELS: &str = "/etc/xtables/connlabel.conf";

fn label_lines() -> Vec<(u16, String)> {
    labels(&String::from_utf8_lossy(&fs::read(LABELS).unwrap_or_default()))
}

/// A name is letters, digits, `-` and blanks within; of two lines with one number or one name the first holds.
fn labels(text: &str) -> Vec<(u16, String)> {
    let blank = [' ', '\t'];
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || blank.contains(&c);
    let mut found: Vec<(u16, String)> = Vec::new();
    for line in text.lines() {
        let Some((number, rest)) = super::number::prefix(line).filter(|(_, rest)| rest.starts_with(blank)) else {
            continue;
        };
        let (Ok(number), name) = (u16::try_from(number), rest.trim_matches(blank)) else { continue };
        let known = found.iter().any(|(other, taken)| *other == number || taken == name);
        if !known && !name.is_empty() && name.chars().all(plain) {
            found.push((number, name.to_owned()));
        }
    }
    found
}

fn iproute_lines(file: &str) -> Vec<(u32, String)> {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let number = super::number::parse(words.next()?, u64::from(u32::MAX))?;
        Some((u32::try_from(number).ok()?, words.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Number of a user in passwd(5).
pub fn user_id(name: &str) -> Option<u32> {
    accounts("/etc/passwd").into_iter().find(|(found, _)| found == name).map(|(_, id)| id)
}

/// Name of a user in passwd(5).
pub fn user_name(id: u32) -> Option<String> {
    accounts("/etc/passwd").into_iter().find(|(_, found)| *found == id).map(|(name, _)| name)
}

/// Number of a group in group(5).
pub fn group_id(name: &str) -> Option<u32> {
    accounts("/etc/group").into_iter().find(|(found, _)| found == name).map(|(_, id)| id)
}

/// Name of a group in group(5).
pub fn group_of(id: u32) -> Option<String> {
    accounts("/etc/group").into_iter().find(|(_, found)| *found == id).map(|(name, _)| name)
}

/// `name:password:id:…`
fn accounts(file: &str) -> Vec<(String, u32)> {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Address of a network in networks(5); trailing octets that are not written are zero.
pub fn network(name: &str) -> Option<Ipv4Addr> {
    network_lines().find(|(names, _)| names.iter().any(|n| n == name)).map(|(_, address)| address)
}

/// Names and address of each network in networks(5).
fn network_lines() -> impl Iterator<Item = (Vec<String>, Ipv4Addr)> {
    let bytes = fs::read("/etc/networks").unwrap_or_default();
    let lines: Vec<String> = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
    lines.into_iter().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace().map(str::to_owned);
        let name = words.next()?;
        let number = words.next()?;
        let mut octets = [0u8; 4];
        for (octet, word) in octets.iter_mut().zip(number.split('.')) {
            *octet = word.parse().ok()?;
        }
        Some((std::iter::once(name).chain(words).collect(), Ipv4Addr::from(octets)))
    })
}

/// All addresses of a host in `family`, as getaddrinfo(3) orders them.
pub fn hosts(name: &str, family: Family) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in (name, 0).to_socket_addrs().into_iter().flatten() {
        let address = address.ip();
        if address.is_ipv4() == (family == Family::V4) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Name of an address in hosts(5) or networks(5). Reverse DNS is not asked.
pub fn address_name(address: IpAddr) -> Option<String> {
    host_name(address).or_else(|| match address {
        IpAddr::V4(address) => network_lines().find(|(_, here)| *here == address)?.0.into_iter().next(),
        IpAddr::V6(_) => None,
    })
}

fn host_name(address: IpAddr) -> Option<String> {
    let bytes = fs::read("/etc/hosts").ok()?;
    String::from_utf8_lossy(&bytes).lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let here: IpAddr = words.next()?.parse().ok()?;
        if here == address { words.next().map(str::to_owned) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_as_the_original_reads_them() {
        let text = "# c\n3 web\n0x4 two  words \n 010\teight\n3 again\n10 web\n12 a_b\n14\n15x y\nz 1\n65536 far\n";
        let wanted = [(3, "web"), (4, "two  words"), (8, "eight")].map(|(number, name)| (number, name.to_owned()));
        assert_eq!(labels(text), wanted);
    }
}
