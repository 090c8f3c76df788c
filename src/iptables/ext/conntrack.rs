//! `-m conntrack` and `-m state`: what connection tracking knows of the packet.
//!
//! xt_conntrack looks at the state first. A packet without a conntrack entry (invalid or untracked) whose state fits
//! matches then and there, whatever else is asked; without `--ctstate` it never matches.

#![forbid(unsafe_code)]

use super::port::{Ports, parse_loose_range};
use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::address::{Network, octets, parse_with_mask};
use crate::iptables::protocol::{self, ip};
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never, product};
use crate::nft::expr::{Alternative, Ct, Direction, Element, Expr, Key, Match, Meta, Op, Value};
use crate::nft::key;
use std::collections::BTreeSet;
use std::fmt::Write;

const STATE: u8 = 0;
const STATUS: u8 = 1;
const PROTOCOL: u8 = 2;
const EXPIRE: u8 = 3;
const DIRECTION: u8 = 4;
/// Addresses and ports: this, plus their place in [`ADDRESSES`] or [`PORTS`].
const ADDRESS: u8 = 8;
const PORT: u8 = 16;

const OPTIONS: &[Opt] = &[
    Opt::value(STATE, &["ctstate"]),
    Opt::value(PROTOCOL, &["ctproto"]),
    Opt::value(ADDRESS, &["ctorigsrc"]),
    Opt::value(ADDRESS + 1, &["ctorigdst"]),
    Opt::value(ADDRESS + 2, &["ctreplsrc"]),
    Opt::value(ADDRESS + 3, &["ctrepldst"]),
    Opt::value(STATUS, &["ctstatus"]),
    Opt::value(EXPIRE, &["ctexpire"]),
    Opt::value(PORT, &["ctorigsrcport"]),
    Opt::value(PORT + 1, &["ctorigdstport"]),
    Opt::value(PORT + 2, &["ctreplsrcport"]),
    Opt::value(PORT + 3, &["ctrepldstport"]),
    Opt::value(DIRECTION, &["ctdir"]).plain(),
];

const STATE_OPTIONS: &[Opt] = &[Opt::value(STATE, &["state"]).required()];

/// Option, direction of the tuple, whether its source.
const ADDRESSES: [(&str, Direction, bool); 4] = [
    ("ctorigsrc", Direction::Original, true),
    ("ctorigdst", Direction::Original, false),
    ("ctreplsrc", Direction::Reply, true),
    ("ctrepldst", Direction::Reply, false),
];

const PORTS: [(&str, Direction, bool); 4] = [
    ("ctorigsrcport", Direction::Original, true),
    ("ctorigdstport", Direction::Original, false),
    ("ctreplsrcport", Direction::Reply, true),
    ("ctrepldstport", Direction::Reply, false),
];

/// State bits of nft_ct (NF_CT_STATE_*, linux/netfilter/nf_conntrack_common.h), in the order in which they are
/// written. SNAT and DNAT are states only to xt_conntrack and get bits of their own here.
const STATES: [(&str, u32); 7] = [
    ("INVALID", INVALID),
    ("NEW", 1 << 3),
    ("RELATED", 1 << 2),
    ("ESTABLISHED", 1 << 1),
    ("UNTRACKED", UNTRACKED),
    ("SNAT", SNAT),
    ("DNAT", DNAT),
];

const INVALID: u32 = 1;
const UNTRACKED: u32 = 1 << 6;
/// States of a packet that has a conntrack entry.
const TRACKED: u32 = 1 << 1 | 1 << 2 | 1 << 3;
/// States of one that has none.
const ENTRYLESS: u32 = INVALID | UNTRACKED;
const SNAT: u32 = 1 << 30;
const DNAT: u32 = 1 << 31;

/// IPS_SRC_NAT and IPS_DST_NAT of the same header.
const STATUS_SNAT: u32 = 1 << 4;
const STATUS_DNAT: u32 = 1 << 5;

/// Protocols of which an entry has what xt and nf_tables alike take for its ports (`union nf_conntrack_man_proto`,
/// linux/netfilter/nf_conntrack_tuple_common.h): ports, or ICMP's identifier, type and code, or GRE's keys. Of all others
/// it has zeros.
const PORTED: [u8; 8] = [ip::ICMP, ip::TCP, ip::UDP, ip::DCCP, ip::GRE, ip::ICMPV6, ip::SCTP, ip::UDPLITE];

/// IPS_* bits that may be asked for.
const STATUSES: [(&str, u32); 5] =
    [("NONE", 0), ("EXPECTED", 1), ("SEEN_REPLY", 1 << 1), ("ASSURED", 1 << 2), ("CONFIRMED", 1 << 3)];

#[derive(Clone, Copy, Debug)]
struct Is<T> {
    value: T,
    inverted: bool,
}

#[derive(Clone, Debug)]
struct Conntrack {
    /// Written as `-m state`.
    alias: bool,
    state: Option<Is<u32>>,
    status: Option<Is<u32>>,
    protocol: Option<Is<u8>>,
    addresses: [Option<Is<Network>>; 4],
    ports: [Option<Is<(u16, u16)>>; 4],
    /// Seconds.
    expire: Option<Is<(u32, u32)>>,
    direction: Option<Direction>,
}

fn make(alias: bool) -> Conntrack {
    Conntrack {
        alias,
        state: None,
        status: None,
        protocol: None,
        addresses: [None; 4],
        ports: [None; 4],
        expire: None,
        direction: None,
    }
}

/// `-m conntrack`, without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(make(false))
}

/// `-m state`, without options.
pub fn state() -> Box<dyn Extension> {
    Box::new(make(true))
}

fn parse_bits(text: &str, known: &[(&str, u32)], what: &str) -> Result<u32, Error> {
    let mut bits = 0;
    for word in text.split(',') {
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        bits |= found.ok_or_else(|| Error::Parameter(format!("Bad {what} \"{word}\"")))?.1;
    }
    Ok(bits)
}

fn bits_text(bits: u32, known: &[(&str, u32)]) -> String {
    let names: Vec<&str> = known.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name).collect();
    if names.is_empty() { "NONE".to_owned() } else { names.join(",") }
}

/// The status bits behind the states SNAT and DNAT.
fn nat_bits(states: u32) -> u32 {
    let snat = if states & SNAT != 0 { STATUS_SNAT } else { 0 };
    let dnat = if states & DNAT != 0 { STATUS_DNAT } else { 0 };
    snat | dnat
}

/// `ct KEY & mask != 0`, or `== 0`.
fn any_bit(key: Ct, mask: u32, some: bool) -> Expr {
    Expr::Match(Match {
        key: Key::Ct(key, None),
        mask: Some(mask.to_ne_bytes().to_vec()),
        op: if some { Op::Ne } else { Op::Eq },
        value: Value::Bytes(0u32.to_ne_bytes().to_vec()),
    })
}

/// The packet has a conntrack entry.
fn is_tracked() -> Expr {
    any_bit(Ct::State, TRACKED, true)
}

/// The connection is of this protocol.
fn of_protocol(number: u8, inverted: bool) -> Expr {
    matching(Key::Ct(Ct::Protocol, Some(Direction::Original)), inverted, Value::Bytes(vec![number]))
}

/// The packet is of this protocol.
fn packet_of(number: u8) -> Expr {
    matching(Key::Meta(Meta::L4proto), false, Value::Bytes(vec![number]))
}

impl Conntrack {
    /// Writes every criterion; `dashes` stand before each name.
    fn text(&self, out: &mut String, dashes: &str, address: impl Fn(&Network) -> String) {
        let mut write = |inverted: bool, name: &str, value: String| {
            let _ = write!(out, "{} {dashes}{name} {value}", bang(inverted));
        };
        if let Some(state) = self.state {
            write(state.inverted, if self.alias { "state" } else { "ctstate" }, bits_text(state.value, &STATES));
        }
        if let Some(protocol) = self.protocol {
            write(protocol.inverted, "ctproto", protocol.value.to_string());
        }
        for ((name, ..), wanted) in ADDRESSES.iter().zip(&self.addresses) {
            if let Some(wanted) = wanted {
                write(wanted.inverted, name, address(&wanted.value));
            }
        }
        for ((name, ..), wanted) in PORTS.iter().zip(self.ports) {
            if let Some(Is { value: (first, last), inverted }) = wanted {
                write(inverted, name, value::range_text(u64::from(first), u64::from(last)));
            }
        }
        if let Some(status) = self.status {
            write(status.inverted, "ctstatus", bits_text(status.value, &STATUSES));
        }
        if let Some(Is { value: (first, last), inverted }) = self.expire {
            write(inverted, "ctexpire", value::range_text(u64::from(first), u64::from(last)));
        }
        match self.direction {
            None => {}
            Some(Direction::Original) => write(false, "ctdir", "ORIGINAL".to_owned()),
            Some(Direction::Reply) => write(false, "ctdir", "REPLY".to_owned()),
        }
    }

    /// Everything but the state; each of these fails for a packet without an entry.
    fn others(&self, context: &RuleContext<'_>) -> Vec<Alternative> {
        let mut tests = Vec::new();
        if let Some(direction) = self.direction {
            let number = u8::from(direction == Direction::Reply);
            tests.push(matching(Key::Ct(Ct::DirectionKey, None), false, Value::Bytes(vec![number])));
        }
        for ((_, direction, source), wanted) in ADDRESSES.iter().zip(&self.addresses) {
            if let Some(wanted) = wanted {
                tests.push(address_test(context.place.family, *direction, *source, wanted));
            }
        }
        let mut rest = Vec::new();
        if let Some(Is { value, inverted }) = self.status {
            rest.push(match (value, inverted) {
                (0, false) => never(),
                (0, true) => is_tracked(),
                (bits, inverted) => any_bit(Ct::Status, bits, !inverted),
            });
        }
        if let Some(Is { value: (first, last), inverted }) = self.expire {
            // Whole seconds there, milliseconds here.
            let from = first.saturating_mul(1000).to_ne_bytes().to_vec();
            let to = last.saturating_mul(1000).saturating_add(999).to_ne_bytes().to_vec();
            rest.push(match (first > last, inverted) {
                (true, false) => never(),
                (true, true) => is_tracked(),
                (false, _) => matching(Key::Ct(Ct::Expiration, None), inverted, Value::Range(from, to)),
            });
        }
        let joined = |middle: Alternative| tests.iter().cloned().chain(middle).chain(rest.iter().cloned()).collect();
        self.by_protocol(context).into_iter().map(joined).collect()
    }

    /// `--ctproto` and the ports.
    fn by_protocol(&self, context: &RuleContext<'_>) -> Vec<Alternative> {
        let asked = self.protocol.map(|Is { value, inverted }| of_protocol(value, inverted));
        let asked = |behind: &[Expr]| asked.iter().chain(behind).cloned().collect::<Alternative>();
        let mut tests = Vec::new();
        let mut zero_fits = true;
        for ((_, direction, source), wanted) in PORTS.iter().zip(self.ports) {
            let Some(Is { value: (first, last), inverted }) = wanted else { continue };
            if first > last || (first, last) == (0, u16::MAX) {
                match (first > last) == inverted {
                    true => tests.push(is_tracked()),
                    false => return vec![vec![never()]],
                }
                continue;
            }
            zero_fits &= (first == 0) != inverted;
            let key = Key::Ct(if *source { Ct::ProtoSrc } else { Ct::ProtoDst }, Some(*direction));
            let bytes = |port: u16| port.to_be_bytes().to_vec();
            let value =
                if first == last { Value::Bytes(bytes(first)) } else { Value::Range(bytes(first), bytes(last)) };
            tests.push(matching(key, inverted, value));
        }
        // nft lists a port as it reads it only where it knows the protocol, from the packet or from the connection.
        let known = context.protocol.number != 0 && !context.protocol.inverted;
        let readable = tests.iter().all(|test| *test == is_tracked());
        match self.protocol {
            _ if known || readable => vec![asked(&tests)],
            Some(Is { value, inverted: false }) if key::is_protocol_of_ports(value) => vec![asked(&tests)],
            Some(Is { value: ip::GRE, inverted: false }) => gre(context.place.family, &tests),
            Some(Is { inverted: false, .. }) if zero_fits => vec![asked(&[])],
            Some(Is { inverted: false, .. }) => vec![vec![never()]],
            other => each_protocol(context.place.family, other.map(|other| other.value), &tests, zero_fits),
        }
    }

    fn with_state(&self, state: Is<u32>, others: &[Alternative]) -> Vec<Alternative> {
        let nat = nat_bits(state.value);
        let states = state.value & (TRACKED | ENTRYLESS);
        if nat == 0 && others.iter().all(Vec::is_empty) {
            return vec![vec![any_bit(Ct::State, states, !state.inverted)]];
        }
        let wanted = if state.inverted { !states } else { states };
        let (tracked, entryless) = (wanted & TRACKED, wanted & ENTRYLESS);
        let mut heads: Vec<Alternative> = Vec::new();
        if tracked != 0 {
            let mut head = vec![any_bit(Ct::State, tracked, true)];
            if state.inverted && nat != 0 {
                head.push(any_bit(Ct::Status, nat, false));
            }
            heads.push(head);
        }
        // A translated connection in none of the states that are asked for.
        if !state.inverted && nat != 0 && tracked != TRACKED {
            heads.push(vec![any_bit(Ct::State, TRACKED & !tracked, true), any_bit(Ct::Status, nat, true)]);
        }
        let mut alternatives = product(&heads, others);
        if entryless != 0 {
            alternatives.push(vec![any_bit(Ct::State, entryless, true)]);
        }
        alternatives
    }
}

/// The tests of ports for connections of every protocol but one; `zero_fits`: they are met by a port of zero.
fn each_protocol(family: Family, except: Option<u8>, tests: &[Expr], zero_fits: bool) -> Vec<Alternative> {
    let mut alternatives = Vec::new();
    for number in PORTED.into_iter().filter(|number| Some(*number) != except) {
        match number {
            ip::GRE => alternatives.extend(gre(family, tests)),
            number => {
                alternatives.push(std::iter::once(of_protocol(number, false)).chain(tests.iter().cloned()).collect());
            }
        }
    }
    if zero_fits {
        let without: BTreeSet<u8> = PORTED.into_iter().chain(except).collect();
        let without = without.into_iter().map(|number| Element::One(vec![number])).collect();
        let key = Key::Ct(Ct::Protocol, Some(Direction::Original));
        alternatives.push(vec![matching(key, true, Value::Set(without))]);
    }
    alternatives
}

/// nft takes no port behind `ct protocol gre`, but behind what says of which protocol the packet itself is: GRE, or an
/// ICMP error about it. nf_tables does not look behind an authentication header of IPv6, conntrack does.
fn gre(family: Family, tests: &[Expr]) -> Vec<Alternative> {
    let packets: &[u8] = match family {
        Family::V4 => &[ip::GRE, ip::ICMP],
        Family::V6 => &[ip::GRE, ip::ICMPV6, ip::AH],
    };
    let of = |number: &u8| {
        [of_protocol(ip::GRE, false), packet_of(*number)].into_iter().chain(tests.iter().cloned()).collect()
    };
    packets.iter().map(of).collect()
}

fn address_test(family: Family, direction: Direction, source: bool, wanted: &Is<Network>) -> Expr {
    let network = Network::new(wanted.value.address, wanted.value.mask);
    if network.is_all() {
        return if wanted.inverted { never() } else { is_tracked() };
    }
    let key = match (family, source) {
        (Family::V4, true) => Ct::SrcIp,
        (Family::V4, false) => Ct::DstIp,
        (Family::V6, true) => Ct::SrcIp6,
        (Family::V6, false) => Ct::DstIp6,
    };
    let mask = octets(network.mask);
    let whole = mask.iter().all(|byte| *byte == 0xff);
    Expr::Match(Match {
        key: Key::Ct(key, Some(direction)),
        mask: (!whole).then_some(mask),
        op: if wanted.inverted { Op::Ne } else { Op::Eq },
        value: Value::Bytes(octets(network.address)),
    })
}

impl Extension for Conntrack {
    fn name(&self) -> &'static str {
        if self.alias { "state" } else { "conntrack" }
    }

    fn options(&self) -> &'static [Opt] {
        if self.alias { STATE_OPTIONS } else { OPTIONS }
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let Input { id, value: text, inverted, .. } = *input;
        match id {
            STATE => {
                let (known, what) = if self.alias { (STATES.get(..5), "state") } else { (STATES.get(..), "ctstate") };
                let value = parse_bits(text, known.unwrap_or_default(), what)?;
                self.state = Some(Is { value, inverted });
            }
            STATUS => self.status = Some(Is { value: parse_bits(text, &STATUSES, "ctstatus")?, inverted }),
            PROTOCOL => self.protocol = Some(Is { value: protocol::parse(text)?, inverted }),
            EXPIRE => {
                let (first, last) = value::range(input.dialect, "conntrack", "ctexpire", text, u64::from(u32::MAX))?;
                self.expire = Some(Is { value: (first as u32, last as u32), inverted });
            }
            DIRECTION => {
                let bad = || Error::Parameter(format!("conntrack: Bad value for \"--ctdir\" option: \"{text}\""));
                self.direction = Some(match text.to_ascii_uppercase().as_str() {
                    "ORIGINAL" => Direction::Original,
                    "REPLY" => Direction::Reply,
                    _ => return Err(bad()),
                });
            }
            id if id >= PORT => {
                let option = PORTS.get(usize::from(id - PORT)).map(|(option, ..)| *option).unwrap_or_default();
                let Ports { first, last } = parse_loose_range(input.dialect, "conntrack", option, text, None)?;
                let value = (first, last);
                if let Some(slot) = self.ports.get_mut(usize::from(id - PORT)) {
                    *slot = Some(Is { value, inverted });
                }
            }
            id => {
                let value = parse_with_mask(text, input.family)?;
                if value.prefix_length().is_none() {
                    return Err(Refusal::new("-m conntrack", "has a mask with holes").into());
                }
                if let Some(slot) = self.addresses.get_mut(usize::from(id - ADDRESS)) {
                    *slot = Some(Is { value, inverted });
                }
            }
        }
        Ok(())
    }

    /// Not while it is read: a rule that an older version has set is read again.
    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        match self.protocol {
            Some(Is { value: 0, .. }) if place.dialect.version >= (1, 8, 11) => {
                Err(Error::Parameter("conntrack: rule would never match protocol".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        let mut text = String::new();
        self.text(&mut text, "", Network::text);
        match text.is_empty() && !self.alias {
            true => Err(Error::Parameter("conntrack: At least one option is required".to_owned())),
            false => Ok(()),
        }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        self.text(out, "--", |network| match network.is_all() {
            true => network.text(),
            false => network.list_text(true),
        });
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        self.text(out, "", |network| network.list_text(style.numeric));
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let others = self.others(context);
        let alternatives = match self.state {
            Some(state) => self.with_state(state, &others),
            None => others,
        };
        Ok(if alternatives.is_empty() { vec![vec![never()]] } else { alternatives })
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
