//! `-m rpfilter`: a reply to the packet would leave through the interface that it came in by.
//!
//! IPv4: xt_rpfilter and nft_fib make the same lookup, but for a broadcast address as the source: xt_rpfilter takes none
//! that a route says to be one. IPv6: xt_rpfilter prefers a route through the input interface to a better one, which
//! nft_fib does not; that makes no difference to `--loose`. A packet from `::` passes.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::translate::matching;
use crate::nft::circumstance::Circumstance;
use crate::nft::expr::{Alternative, Element, Expr, Field, Key, Value};

const LOOSE: u8 = 0;
const VALID_MARK: u8 = 1;
const ACCEPT_LOCAL: u8 = 2;
const INVERT: u8 = 3;

/// In the order in which they are written.
const OPTIONS: &[Opt] = &[
    Opt::flag(LOOSE, &["loose"]).plain(),
    Opt::flag(VALID_MARK, &["validmark"]).plain(),
    Opt::flag(ACCEPT_LOCAL, &["accept-local"]).plain(),
    Opt::flag(INVERT, &["invert"]).plain(),
];

/// RTN_LOCAL and RTN_BROADCAST (linux/rtnetlink.h)
const LOCAL: u32 = 2;
const BROADCAST: u32 = 3;

#[derive(Clone, Debug, Default)]
struct RpFilter {
    given: [bool; 4],
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(RpFilter::default())
}

impl RpFilter {
    fn has(&self, option: u8) -> bool {
        self.given.get(usize::from(option)).copied().unwrap_or_default()
    }

    fn text(&self, dashes: &str) -> String {
        let given = OPTIONS.iter().filter(|option| self.has(option.id));
        given.flat_map(|option| option.names).map(|name| format!(" {dashes}{name}")).collect()
    }

    /// A route leads back, or does not.
    fn way_back(&self, there: bool) -> Expr {
        let key = Circumstance::WayBack { mark: self.has(VALID_MARK), iif: !self.has(LOOSE) };
        matching(Key::Circumstance(key), false, Value::Bytes(vec![u8::from(there), 0, 0, 0]))
    }

    fn v4(&self) -> Vec<Alternative> {
        let unroutable = |inverted| {
            let addresses = vec![Element::Range(vec![0, 0, 0, 0], vec![0, 255, 255, 255]), Element::One(vec![255; 4])];
            matching(Key::Payload(Field::Ip4Saddr), inverted, Value::Set(addresses))
        };
        let broadcast = |inverted| source_type(BROADCAST, false, inverted);
        let local = |inverted| source_type(LOCAL, !self.has(LOOSE), inverted);
        let accepts_local = self.has(ACCEPT_LOCAL);
        if self.has(INVERT) {
            let mut nowhere = vec![self.way_back(false)];
            nowhere.extend(accepts_local.then(|| local(true)));
            return vec![nowhere, vec![self.way_back(true), unroutable(true), broadcast(false)]];
        }
        // What no route can say to be a broadcast address is looked up all the same.
        let mut alternatives = vec![
            vec![self.way_back(true), unroutable(true), broadcast(true)],
            vec![self.way_back(true), unroutable(false)],
        ];
        alternatives.extend(accepts_local.then(|| vec![self.way_back(false), local(false)]));
        alternatives
    }

    fn v6(&self) -> Result<Vec<Alternative>, Refusal> {
        if !self.has(LOOSE) {
            let why = "without --loose, ip6tables prefers a route through the input interface, nf_tables the best";
            return Err(Refusal::new("-m rpfilter", why));
        }
        let nobody = |inverted| matching(Key::Payload(Field::Ip6Saddr), inverted, Value::Bytes(vec![0; 16]));
        let local = |inverted| source_type(LOCAL, false, inverted);
        let accepts_local = self.has(ACCEPT_LOCAL);
        let mut nowhere = vec![nobody(true), self.way_back(false)];
        if self.has(INVERT) {
            nowhere.extend(accepts_local.then(|| local(true)));
            return Ok(vec![nowhere]);
        }
        let mut alternatives = vec![vec![nobody(false)], vec![nobody(true), self.way_back(true)]];
        if accepts_local {
            nowhere.push(local(false));
            alternatives.push(nowhere);
        }
        Ok(alternatives)
    }
}

fn source_type(kind: u32, iif: bool, inverted: bool) -> Expr {
    let key = Key::FibType { saddr: true, iif, oif: false };
    matching(key, inverted, Value::Bytes(kind.to_ne_bytes().to_vec()))
}

impl Extension for RpFilter {
    fn name(&self) -> &'static str {
        "rpfilter"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        if let Some(given) = self.given.get_mut(usize::from(input.id)) {
            *given = true;
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let wrong_table = !matches!(place.table, "raw" | "mangle");
        let wrong_hook = matches!(place.chain, "INPUT" | "FORWARD" | "OUTPUT" | "POSTROUTING");
        if wrong_table || wrong_hook { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        out.push_str(&self.text("--"));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" rpfilter");
        out.push_str(&self.text(""));
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        match context.place.family {
            Family::V4 => Ok(self.v4()),
            Family::V6 => self.v6(),
        }
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
