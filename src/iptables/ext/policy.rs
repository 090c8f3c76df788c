//! `-m policy`: what IPsec has done with the packet, or will do.
//!
//! nf_tables can tell whether there is an IPsec state, and ask one at a known place for its reqid or SPI; there are at
//! most six. It cannot tell how many there are, nor their protocol and mode.
//!
//! iptables hands xt_policy the SPI in the machine's own byte order, and xt_policy holds it against the one of the packet,
//! which is in the network's: where the two differ, `--spi 0x100` means the SPI 0x10000. So it does here.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::iptables::translate::matching;
use crate::nft::circumstance::{Circumstance, Transform};
use crate::nft::expr::{Alternative, Key, Meta, Value};
use std::fmt::Write;

const DIRECTION: u8 = 0;
const POLICY: u8 = 1;
const STRICT: u8 = 2;
const REQID: u8 = 3;
const SPI: u8 = 4;

const OPTIONS: &[Opt] = &[
    Opt::value(DIRECTION, &["dir"]).plain(),
    Opt::value(POLICY, &["pol"]).plain(),
    Opt::flag(STRICT, &["strict"]).plain(),
    Opt::value(REQID, &["reqid"]).repeatable(),
    Opt::value(SPI, &["spi"]).repeatable(),
    Opt::value(5, &["tunnel-src"]).repeatable(),
    Opt::value(6, &["tunnel-dst"]).repeatable(),
    Opt::value(7, &["proto"]).repeatable(),
    Opt::value(8, &["mode"]).repeatable(),
    Opt::flag(9, &["next"]).plain().repeatable(),
];

/// Options that nf_tables has nothing for, and why.
const REFUSED: &[(u8, &str, &str)] = &[
    (STRICT, "--strict", "nf_tables cannot tell how many IPsec states there are"),
    (5, "--tunnel-src", "nf_tables does not tell tunnel mode from others"),
    (6, "--tunnel-dst", "nf_tables does not tell tunnel mode from others"),
    (7, "--proto", "nf_tables cannot see an IPsec state's protocol"),
    (8, "--mode", "nf_tables cannot see an IPsec state's mode"),
    (9, "--next", "nf_tables cannot tell how many IPsec states there are"),
];

/// XFRM_MAX_DEPTH (net/xfrm.h): IPsec states of one packet.
const DEPTH: u8 = 6;

#[derive(Clone, Copy, Debug)]
struct Is {
    value: u32,
    inverted: bool,
}

#[derive(Clone, Debug, Default)]
struct Policy {
    /// Whether it is about what will be done.
    out: Option<bool>,
    none: bool,
    reqid: Option<Is>,
    spi: Option<Is>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Policy::default())
}

impl Policy {
    /// `dashes` stand before each name.
    fn text(&self, dashes: &str) -> String {
        let direction = if self.out == Some(true) { "out" } else { "in" };
        let policy = if self.none { "none" } else { "ipsec" };
        let mut text = format!("{dashes}dir {direction} {dashes}pol {policy}");
        for (name, wanted) in [("reqid", self.reqid), ("spi", self.spi)] {
            if let Some(Is { value, inverted }) = wanted.filter(|_| !self.none) {
                let bang = bang(inverted);
                let _ = match name {
                    "spi" => write!(text, "{bang} {dashes}{name} {value:#x}"),
                    _ => write!(text, "{bang} {dashes}{name} {value}"),
                };
            }
        }
        text
    }

    fn state(&self, of: Transform, Is { value, inverted }: Is) -> Vec<Alternative> {
        let test = |nth, inverted| {
            let key = Circumstance::Transform { out: self.out == Some(true), nth, of };
            matching(Key::Circumstance(key), inverted, Value::Bytes(value.to_ne_bytes().to_vec()))
        };
        // The first of the states that is such a one: those before it are not.
        let first = |found: u8| (0..found).map(|nth| test(nth, !inverted)).chain([test(found, inverted)]).collect();
        (0..DEPTH).map(first).collect()
    }
}

impl Extension for Policy {
    fn name(&self) -> &'static str {
        "policy"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let bad = |what: &str| Error::Parameter(format!("{what} \"{}\"", input.value));
        match input.id {
            DIRECTION => {
                self.out = Some(match input.value {
                    "in" => false,
                    "out" => true,
                    _ => return Err(bad("policy_match: invalid dir")),
                });
            }
            POLICY => {
                self.none = match input.value {
                    "none" => true,
                    "ipsec" => false,
                    _ => return Err(bad("policy match: invalid policy")),
                };
            }
            id @ (REQID | SPI) => {
                let (name, slot) = if id == REQID { ("reqid", &mut self.reqid) } else { ("spi", &mut self.spi) };
                if slot.is_some() {
                    return Err(Error::Parameter(format!("policy match: double --{name} option")));
                }
                let value = value::number("policy", name, input.value, u64::from(u32::MAX))? as u32;
                *slot = Some(Is { value, inverted: input.inverted });
            }
            id => {
                let refused = REFUSED.iter().find(|(refused, ..)| *refused == id);
                let (option, why) = refused.map_or(("-m policy", "has no equal"), |(_, option, why)| (option, why));
                return Err(Refusal::new(option, why).into());
            }
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match self.out {
            Some(_) => Ok(()),
            None => Err(Error::Parameter("policy match: neither --dir in nor --dir out specified".to_owned())),
        }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let wrong_hook = match self.out {
            Some(true) => ["PREROUTING", "INPUT"],
            _ => ["OUTPUT", "POSTROUTING"],
        };
        if wrong_hook.contains(&place.chain) { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " {}", self.text("--"));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " policy match {}", self.text(""));
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        match (self.none, self.reqid, self.spi) {
            (false, Some(reqid), None) => Ok(self.state(Transform::Reqid, reqid)),
            (false, None, Some(spi)) => Ok(self.state(Transform::Spi, spi)),
            (false, Some(_), Some(_)) => {
                Err(Refusal::new("--spi", "together with --reqid takes too many rules of nf_tables"))
            }
            _ => {
                let out = self.out == Some(true);
                let key = if out { Key::Circumstance(Circumstance::Packed) } else { Key::Meta(Meta::Ipsec) };
                Ok(vec![vec![matching(key, false, Value::Bytes(vec![u8::from(!self.none)]))]])
            }
        }
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
