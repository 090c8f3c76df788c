//! `-m addrtype`: what routing says of an address.
//!
//! IPv4: xt_addrtype and nft_fib ask the same function of the kernel. IPv6: xt_addrtype decides unicast, multicast
//! and unspecified by the bits of the address alone, and local by a route lookup without source address or interface.
//! nft_fib's lookup also knows the packet's other address and, for a link-local one, the interface: what the machine
//! sends to itself over `lo` is told apart here. The answers then part only for a link-local address of another
//! interface, which is not delivered there anyhow, and for the all-zeros address of a prefix that is local as a whole.
//! Anycast and unreachable, and lookups bound to an interface, differ more and are
//! refused.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, product};
use crate::nft::expr::{Alternative, Element, Expr, Field, Key, Match, Meta, Op, Value};
use std::fmt::Write;

const SOURCE: u8 = 0;
const DESTINATION: u8 = 1;
const LIMIT_IN: u8 = 2;
const LIMIT_OUT: u8 = 3;

const OPTIONS: &[Opt] = &[
    Opt::value(SOURCE, &["src-type"]),
    Opt::value(DESTINATION, &["dst-type"]),
    Opt::flag(LIMIT_IN, &["limit-iface-in"]).plain().either(1),
    Opt::flag(LIMIT_OUT, &["limit-iface-out"]).plain().either(1),
];

/// Types by their number (RTN_*, linux/rtnetlink.h).
const TYPES: [&str; 12] = [
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
];

const UNSPEC: u16 = 1;
const UNICAST: u16 = 1 << 1;
const LOCAL: u16 = 1 << 2;
const BROADCAST: u16 = 1 << 3;
const MULTICAST: u16 = 1 << 5;
const BLACKHOLE: u16 = 1 << 6;
const PROHIBIT: u16 = 1 << 8;

/// Types that nft's `fib` has no word for.
const UNNAMED: u16 = !0 << 9;

#[derive(Clone, Copy, Debug)]
struct Types {
    bits: u16,
    inverted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    No,
    In,
    Out,
}

#[derive(Clone, Debug)]
struct AddrType {
    source: Option<Types>,
    destination: Option<Types>,
    bound: Bound,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(AddrType { source: None, destination: None, bound: Bound::No })
}

impl Types {
    fn parse(input: &Input<'_>) -> Result<Self, Error> {
        let mut bits = 0;
        for word in input.value.split(',') {
            let number = TYPES.iter().position(|name| name.eq_ignore_ascii_case(word));
            bits |= 1u16 << number.ok_or_else(|| Error::Parameter(format!("addrtype: bad type \"{word}\"")))?;
        }
        Ok(Self { bits, inverted: input.inverted })
    }

    fn numbers(self) -> impl Iterator<Item = usize> {
        (0..TYPES.len()).filter(move |number| self.bits >> number & 1 == 1)
    }

    fn text(self) -> String {
        let names: Vec<&str> = self.numbers().filter_map(|number| TYPES.get(number).copied()).collect();
        names.join(",")
    }

    fn v4(self, saddr: bool, bound: Bound) -> Result<Alternative, Refusal> {
        if self.bits & UNNAMED != 0 {
            return Err(Refusal::new("-m addrtype", format!("{} has no equal", self.text())));
        }
        let key = Key::FibType { saddr, iif: bound == Bound::In, oif: bound == Bound::Out };
        let number = |number: usize| (number as u32).to_ne_bytes().to_vec();
        let numbers: Vec<usize> = self.numbers().collect();
        let value = match numbers.as_slice() {
            [one] => Value::Bytes(number(*one)),
            several => Value::Set(several.iter().map(|n| Element::One(number(*n))).collect()),
        };
        Ok(vec![matching(key, self.inverted, value)])
    }

    /// All the types named must hold at once in IPv6.
    fn v6(self, saddr: bool, bound: Bound, chain: &str) -> Result<Vec<Alternative>, Refusal> {
        if bound != Bound::No || self.bits & !(UNSPEC | UNICAST | LOCAL | MULTICAST) != 0 {
            return Err(Refusal::new("-m addrtype", "is decided otherwise in IPv6 than nf_tables would"));
        }
        let field = Key::Payload(if saddr { Field::Ip6Saddr } else { Field::Ip6Daddr });
        let mut tests = Vec::new();
        if self.bits & MULTICAST != 0 {
            tests.push(Expr::Match(Match {
                key: field,
                mask: Some(leading([0xff; 1])),
                op: Op::Eq,
                value: Value::Bytes(leading([0xff; 1])),
            }));
        }
        if self.bits & UNICAST != 0 {
            tests.push(matching(field, true, not_unicast()));
        }
        if self.bits & UNSPEC != 0 {
            tests.push(matching(field, false, Value::Bytes(vec![0; 16])));
        }
        let local = self.bits & LOCAL != 0;
        if !self.inverted {
            let last = if local { local_v6(saddr, field, true, chain) } else { vec![Vec::new()] };
            return Ok(product(&[tests], &last));
        }
        // Not all of them: the first that fails decides.
        let mut alternatives: Vec<Alternative> = (0..tests.len())
            .map(|failing| {
                let holds = tests.iter().take(failing).cloned();
                holds.chain(tests.get(failing).cloned().map(negate)).collect()
            })
            .collect();
        if local {
            alternatives.extend(product(&[tests], &local_v6(saddr, field, false, chain)));
        }
        Ok(alternatives)
    }
}

/// Whether an address is local. A link-local one is looked up on the packet's own interface, which is `lo` for what
/// the machine sends to itself; there every one of them is local. The packet meets `lo` as its output interface and then
/// as its input interface; a chain of the user may be called at either time.
fn local_v6(saddr: bool, field: Key, wanted: bool, chain: &str) -> Vec<Alternative> {
    let fib = |inverted| {
        let local = Value::Bytes(2u32.to_ne_bytes().to_vec());
        matching(Key::FibType { saddr, iif: false, oif: false }, inverted, local)
    };
    let loopback = |interface, inverted| {
        let mut name = b"lo".to_vec();
        name.resize(16, 0);
        matching(Key::Meta(interface), inverted, Value::Bytes(name))
    };
    let link_local = |inverted| {
        let (mask, value) = (Some(leading([0xff, 0xc0])), Value::Bytes(leading([0xfe, 0x80])));
        Expr::Match(Match { key: field, mask, op: if inverted { Op::Ne } else { Op::Eq }, value })
    };
    let interfaces: &[Meta] = match chain {
        "PREROUTING" | "INPUT" | "FORWARD" => &[Meta::Iifname],
        "OUTPUT" | "POSTROUTING" => &[Meta::Oifname],
        _ => &[Meta::Iifname, Meta::Oifname],
    };
    // None of the interfaces before this one is `lo`.
    let elsewhere = |count| interfaces.iter().take(count).map(move |interface| loopback(*interface, true));
    let over_lo = interfaces.iter().enumerate().map(|(at, interface)| {
        let tests = std::iter::once(fib(true)).chain(elsewhere(at));
        tests.chain([loopback(*interface, false), link_local(!wanted)]).collect()
    });
    let by_route =
        if wanted { vec![fib(false)] } else { std::iter::once(fib(true)).chain(elsewhere(interfaces.len())).collect() };
    std::iter::once(by_route).chain(over_lo).collect()
}

fn leading<const N: usize>(bytes: [u8; N]) -> Vec<u8> {
    let mut address = bytes.to_vec();
    address.resize(16, 0);
    address
}

/// What ipv6_addr_type (net/ipv6/addrconf_core.c) does not call unicast: `::`, `::ffff:0:0/96`, `ff00::/8`.
fn not_unicast() -> Value {
    let mapped = |last: [u8; 4]| {
        let mut address = vec![0; 10];
        address.extend([0xff, 0xff]);
        address.extend(last);
        address
    };
    Value::Set(vec![
        Element::One(vec![0; 16]),
        Element::Range(mapped([0; 4]), mapped([0xff; 4])),
        Element::Range(leading([0xff]), vec![0xff; 16]),
    ])
}

fn negate(expr: Expr) -> Expr {
    match expr {
        Expr::Match(Match { key, mask, op, value }) => {
            let op = if op == Op::Eq { Op::Ne } else { Op::Eq };
            Expr::Match(Match { key, mask, op, value })
        }
        other => other,
    }
}

impl Extension for AddrType {
    fn name(&self) -> &'static str {
        "addrtype"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            SOURCE => self.source = Some(Types::parse(input)?),
            DESTINATION => self.destination = Some(Types::parse(input)?),
            LIMIT_IN => self.bound = Bound::In,
            _ => self.bound = Bound::Out,
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        if self.source.is_some() || self.destination.is_some() {
            return Ok(());
        }
        Err(Error::Parameter("addrtype: you must specify --src-type or --dst-type".to_owned()))
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let wrong_hook = match self.bound {
            Bound::No => false,
            Bound::In => matches!(place.chain, "OUTPUT" | "POSTROUTING"),
            Bound::Out => matches!(place.chain, "PREROUTING" | "INPUT"),
        };
        let bits = self.source.map_or(0, |types| types.bits) | self.destination.map_or(0, |types| types.bits);
        let unknown = bits >= PROHIBIT || bits & (BLACKHOLE | BROADCAST) != 0;
        if wrong_hook || (place.family == Family::V6 && unknown) { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        for (option, types) in [("--src-type", self.source), ("--dst-type", self.destination)] {
            if let Some(types) = types {
                let _ = write!(out, "{} {option} {}", bang(types.inverted), types.text());
            }
        }
        out.push_str(match self.bound {
            Bound::No => "",
            Bound::In => " --limit-iface-in",
            Bound::Out => " --limit-iface-out",
        });
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" ADDRTYPE match");
        for (name, types) in [("src-type", self.source), ("dst-type", self.destination)] {
            if let Some(types) = types {
                let _ = write!(out, " {name} {}{}", if types.inverted { "!" } else { "" }, types.text());
            }
        }
        out.push_str(match self.bound {
            Bound::No => "",
            Bound::In => " limit-in",
            Bound::Out => " limit-out",
        });
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let mut alternatives = vec![Vec::new()];
        for (saddr, types) in [(true, self.source), (false, self.destination)] {
            let Some(types) = types else { continue };
            let tests = match context.place.family {
                Family::V4 => vec![types.v4(saddr, self.bound)?],
                Family::V6 => types.v6(saddr, self.bound, context.place.chain)?,
            };
            alternatives = product(&alternatives, &tests);
        }
        Ok(alternatives)
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
