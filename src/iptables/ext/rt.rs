//! `-m rt`: the routing header of IPv6.

#![forbid(unsafe_code)]

use super::transport::Numbers;
use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::address::Written;
use crate::iptables::names;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Alternative, Key, Value};
use crate::nft::exthdr::{ExtHdr, header};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

/// IP6T_RT_HOPS of linux/netfilter_ipv6/ip6t_rt.h
const MAX_ADDRESSES: usize = 16;

const TYPE: u8 = 0;
const LEFT: u8 = 1;
const LENGTH: u8 = 2;
const RESERVED: u8 = 3;
const ADDRESSES: u8 = 4;
const NOT_STRICT: u8 = 5;

const OPTIONS: &[Opt] = &[
    Opt::value(TYPE, &["rt-type"]),
    Opt::value(LEFT, &["rt-segsleft"]),
    Opt::value(LENGTH, &["rt-len"]),
    Opt::flag(RESERVED, &["rt-0-res"]).plain(),
    Opt::value(ADDRESSES, &["rt-0-addrs"]).plain(),
    Opt::flag(NOT_STRICT, &["rt-0-not-strict"]).plain(),
];

#[derive(Clone, Debug, Default)]
struct Rt {
    kind: Option<(u32, bool)>,
    left: Numbers,
    /// Bytes.
    length: Option<(u32, bool)>,
    reserved: bool,
    addresses: Vec<Ipv6Addr>,
    not_strict: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Rt::default())
}

fn parameter(text: String) -> Error {
    Error::Parameter(text)
}

fn parse_addresses(text: &str) -> Result<Vec<Ipv6Addr>, Error> {
    let mut addresses = Vec::new();
    for word in text.split(',') {
        if addresses.len() == MAX_ADDRESSES {
            return Err(parameter("too many addresses specified".to_owned()));
        }
        let found = word.parse().ok().or_else(|| match names::hosts(word, crate::family::Family::V6).first() {
            Some(IpAddr::V6(address)) => Some(*address),
            _ => None,
        });
        addresses.push(found.ok_or_else(|| parameter(format!("bad address: {word}")))?);
    }
    Ok(addresses)
}

/// A number of one byte: `None` where no such byte can have it.
fn byte(number: u32) -> Option<Value> {
    u8::try_from(number).ok().map(|byte| Value::Bytes(vec![byte]))
}

impl Rt {
    fn address_text(&self) -> String {
        self.addresses.iter().map(|address| Written(IpAddr::V6(*address)).to_string()).collect::<Vec<_>>().join(",")
    }

    fn is_type_0(&self) -> bool {
        self.kind == Some((0, false))
    }
}

impl Extension for Rt {
    fn name(&self) -> &'static str {
        "rt"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let number = |option| value::number("rt", option, input.value, u64::from(u32::MAX)).map(|number| number as u32);
        let needs_type_0 = |option: &str| parameter(format!("`--rt-type 0' required before `{option}'"));
        match input.id {
            TYPE => self.kind = Some((number("rt-type")?, input.inverted)),
            LEFT => self.left = Numbers::parse("rt", "rt-segsleft", input)?,
            LENGTH => self.length = Some((number("rt-len")?, input.inverted)),
            RESERVED if !self.is_type_0() => return Err(needs_type_0("--rt-0-res")),
            RESERVED => self.reserved = true,
            ADDRESSES if !self.is_type_0() => return Err(needs_type_0("--rt-0-addrs")),
            ADDRESSES => self.addresses = parse_addresses(input.value)?,
            _ if self.addresses.is_empty() => {
                return Err(parameter("`--rt-0-addr ...' required before `--rt-0-not-strict'".to_owned()));
            }
            _ => self.not_strict = true,
        }
        Ok(())
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        if let Some((kind, inverted)) = self.kind {
            let _ = write!(out, "{} --rt-type {kind}", bang(inverted));
        }
        self.left.save(out, "rt-segsleft", form);
        if let Some((length, inverted)) = self.length {
            let _ = write!(out, "{} --rt-len {length}", bang(inverted));
        }
        if self.reserved {
            out.push_str(" --rt-0-res");
        }
        if !self.addresses.is_empty() {
            let _ = write!(out, " --rt-0-addrs {}", self.address_text());
        }
        if self.not_strict {
            out.push_str(" --rt-0-not-strict");
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let no = |inverted| if inverted { "!" } else { "" };
        out.push_str(" rt");
        if let Some((kind, inverted)) = self.kind {
            let _ = write!(out, " type:{}{kind}", no(inverted));
        }
        let mut left = String::new();
        self.left.list(&mut left, "segsleft");
        if !left.is_empty() {
            out.extend([" ", &left]);
        }
        if let Some((length, inverted)) = self.length {
            let _ = write!(out, " length:{}{length}", no(inverted));
        }
        if self.reserved {
            out.push_str(" reserved");
        }
        if !self.addresses.is_empty() {
            let _ = write!(out, " 0-addrs {}", self.address_text());
        }
        if self.not_strict {
            out.push_str(" 0-not-strict");
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let test = |field, inverted, value| matching(Key::ExtHdr(field), inverted, value);
        let mut exprs = Vec::new();
        match self.kind.map(|(kind, inverted)| (byte(kind), inverted)) {
            Some((Some(kind), inverted)) => exprs.push(test(ExtHdr::RtType, inverted, kind)),
            Some((None, false)) => exprs.push(never()),
            Some((None, true)) | None => {}
        }
        exprs.extend(self.left.translate(Key::ExtHdr(ExtHdr::RtSegLeft), 1));
        if let Some((length, inverted)) = self.length {
            // In units of 8 bytes, without the first 8 (RFC 8200, 4.4).
            let units = length.is_multiple_of(8).then(|| (length / 8).checked_sub(1)).flatten().and_then(byte);
            match (units, inverted) {
                (Some(units), inverted) => exprs.push(test(ExtHdr::RtHdrlength, inverted, units)),
                (None, true) => {}
                (None, false) => exprs.push(never()),
            }
        }
        if self.reserved {
            let zero = |field, len| test(field, false, Value::Bytes(vec![0; len]));
            exprs.extend([zero(ExtHdr::SrhLastEntry, 1), zero(ExtHdr::SrhFlags, 1), zero(ExtHdr::SrhTag, 2)]);
        }
        if self.not_strict {
            return Err(Refusal::new("--rt-0-not-strict", "nf_tables does not search a list of addresses"));
        }
        if self.addresses.len() > 2 {
            return Err(Refusal::new("--rt-0-addrs", "nft has words for two addresses only"));
        }
        if let Ok(count @ 1..) = u8::try_from(self.addresses.len()) {
            // All addresses there are, each of two units; a unit too many is not looked at.
            exprs.push(test(ExtHdr::RtHdrlength, false, Value::Range(vec![2 * count], vec![2 * count + 1])));
            for (number, address) in (1..).zip(&self.addresses) {
                exprs.push(test(ExtHdr::SrhSid(number), false, Value::Bytes(address.octets().to_vec())));
            }
        }
        if exprs.is_empty() {
            exprs.push(test(ExtHdr::Present(header::ROUTING), false, Value::Bytes(vec![1])));
        }
        Ok(vec![exprs])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
