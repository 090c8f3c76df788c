//! `-j CT` and `-j NOTRACK`: how connection tracking will see the packet.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::nft::expr::{Alternative, Ct as CtKey, Direction, Expr, Key, Match, Op, Value};
use std::fmt::Write;

/// NF_CT_STATE_UNTRACKED_BIT of linux/netfilter/nf_conntrack_common.h.
const UNTRACKED: u32 = 1 << 6;

const NOTRACK: u8 = 0;
const ZONE: u8 = 1;
const ZONE_ORIG: u8 = 2;
const ZONE_REPLY: u8 = 3;
const HELPER: u8 = 4;
const CTEVENTS: u8 = 5;
const EXPEVENTS: u8 = 6;
const TIMEOUT: u8 = 7;

const OPTIONS: &[Opt] = &[
    Opt::flag(NOTRACK, &["notrack"]).plain(),
    Opt::value(HELPER, &["helper"]).plain(),
    Opt::value(TIMEOUT, &["timeout"]).plain(),
    Opt::value(CTEVENTS, &["ctevents"]).plain(),
    Opt::value(EXPEVENTS, &["expevents"]).plain(),
    Opt::value(ZONE_ORIG, &["zone-orig"]).plain(),
    Opt::value(ZONE_REPLY, &["zone-reply"]).plain(),
    Opt::value(ZONE, &["zone"]).plain(),
];

#[derive(Clone, Copy, Debug)]
struct Zone {
    id: u16,
    direction: Option<Direction>,
}

#[derive(Clone, Debug, Default)]
struct Ct {
    /// Written as `-j NOTRACK`.
    alias: bool,
    notrack: bool,
    zone: Option<Zone>,
}

/// `-j CT`, without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Ct::default())
}

/// `-j NOTRACK`.
pub fn notrack() -> Box<dyn Extension> {
    Box::new(Ct { alias: true, notrack: true, zone: None })
}

fn refused(option: &str, why: &str) -> Error {
    Error::Refused(Refusal::new(format!("-j CT --{option}"), why))
}

/// What nf_tables does to a connection it does when there is one.
const NO_CONNECTION: &str = "nf_tables says it of connections that are there, and raw's packets have none yet";

impl Ct {
    /// ` zone-orig 5` with `dashes` before the words.
    fn zone_text(&self, dashes: &str) -> String {
        match self.zone {
            Some(Zone { id, direction }) if id != 0 => {
                let name = match direction {
                    None => "zone",
                    Some(Direction::Original) => "zone-orig",
                    Some(Direction::Reply) => "zone-reply",
                };
                format!(" {dashes}{name} {id}")
            }
            _ => String::new(),
        }
    }
}

impl Extension for Ct {
    fn name(&self) -> &'static str {
        if self.alias { "NOTRACK" } else { "CT" }
    }

    fn list_name(&self) -> &'static str {
        "CT"
    }

    fn options(&self) -> &'static [Opt] {
        if self.alias { &[] } else { OPTIONS }
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let direction = match input.id {
            NOTRACK => {
                self.notrack = true;
                return Ok(());
            }
            ZONE => None,
            ZONE_ORIG => Some(Direction::Original),
            ZONE_REPLY => Some(Direction::Reply),
            HELPER => return Err(refused("helper", NO_CONNECTION)),
            CTEVENTS => return Err(refused("ctevents", NO_CONNECTION)),
            EXPEVENTS => return Err(refused("expevents", NO_CONNECTION)),
            _ => return Err(refused("timeout", NO_CONNECTION)),
        };
        if input.value == "mark" {
            return Err(refused(
                "zone mark",
                "means the mark that the packet has behind raw, where nf_tables takes the present one",
            ));
        }
        let unknown = || Error::Parameter(format!("Cannot parse {} as a zone ID", input.value));
        let id = number::parse(input.value, u64::from(u16::MAX)).ok_or_else(unknown)? as u16;
        // Zone 0 is the default of either direction; which one was named is not kept.
        self.zone = Some(Zone { id, direction: direction.filter(|_| id != 0) });
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.table == "raw" { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        if self.notrack && !self.alias {
            out.push_str(" --notrack");
        }
        out.push_str(&self.zone_text("--"));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        if self.alias {
            out.push_str(" NOTRACK");
            return;
        }
        let notrack = if self.notrack { " notrack" } else { "" };
        let _ = write!(out, " CT{notrack}{}", self.zone_text(""));
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if self.notrack {
            return Ok(vec![vec![Expr::Notrack]]);
        }
        let Zone { id: zone, direction } = self.zone.unwrap_or(Zone { id: 0, direction: None });
        // xt_CT leaves a packet alone that an earlier rule has set aside from tracking; nft_ct would track it again.
        let tracked = Expr::Match(Match {
            key: Key::Ct(CtKey::State, None),
            mask: Some(UNTRACKED.to_ne_bytes().to_vec()),
            op: Op::Eq,
            value: Value::Bytes(0u32.to_ne_bytes().to_vec()),
        });
        Ok(vec![vec![tracked, Expr::CtZone { zone, direction }]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
