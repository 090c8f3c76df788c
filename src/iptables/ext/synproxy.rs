//! `-j SYNPROXY`: answers for a server until the client has shown itself.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::protocol::ip;
use crate::nft::expr::{Alternative, Divert, Element, Expr, Field, Key, Match, Op, Value};
use std::fmt::Write;

const SACK: u8 = 0;
const TIMESTAMP: u8 = 1;
const WSCALE: u8 = 2;
const MSS: u8 = 3;

/// Flags of the TCP header (RFC 9293, 3.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// TCP_MAX_WSCALE (RFC 7323, 2.3).
const WSCALE_MAX: u8 = 14;

const OPTIONS: &[Opt] = &[
    Opt::flag(SACK, &["sack-perm"]).plain(),
    Opt::flag(TIMESTAMP, &["timestamp"]).plain(),
    Opt::value(WSCALE, &["wscale"]).plain(),
    Opt::value(MSS, &["mss"]).plain(),
    Opt::flag(4, &["ecn"]).plain(),
];

#[derive(Clone, Debug, Default)]
struct Synproxy {
    sack: bool,
    timestamp: bool,
    wscale: Option<u8>,
    mss: Option<u16>,
    ecn: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Synproxy::default())
}

impl Synproxy {
    fn words(&self) -> Vec<String> {
        let flag = |given: bool, name: &str| given.then(|| name.to_owned());
        [
            flag(self.sack, "sack-perm"),
            flag(self.timestamp, "timestamp"),
            self.wscale.map(|wscale| format!("wscale {wscale}")),
            self.mss.map(|mss| format!("mss {mss}")),
            flag(self.ecn, "ecn"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Extension for Synproxy {
    fn name(&self) -> &'static str {
        "SYNPROXY"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let number = |option| value::number("SYNPROXY", option, input.value, u64::from(u32::MAX));
        match input.id {
            SACK => self.sack = true,
            TIMESTAMP => self.timestamp = true,
            // Of too large numbers the upper bits are lost.
            WSCALE => self.wscale = Some(number("wscale")? as u8),
            MSS => self.mss = Some(number("mss")? as u16),
            _ => self.ecn = true,
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let elsewhere = matches!(place.chain, "PREROUTING" | "OUTPUT" | "POSTROUTING") || place.table == "raw";
        if elsewhere || !place.protocol.is(ip::TCP) { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        for word in self.words() {
            let _ = write!(out, " --{word}");
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" SYNPROXY ");
        for word in self.words() {
            let _ = write!(out, "{word} ");
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let Self { sack, timestamp, .. } = *self;
        let refused = |option: &str, why: &str| Err(Refusal::new(format!("-j SYNPROXY --{option}"), why));
        let sizes = match (self.mss, self.wscale) {
            _ if self.ecn => return refused("ecn", "nf_tables has no such flag"),
            (_, Some(wscale)) if wscale > WSCALE_MAX => return refused("wscale", "is beyond 14"),
            (Some(_), None) => return refused("mss", "nft lists it with a window scale, which would then be told too"),
            (None, Some(_)) => {
                return refused("wscale", "nft lists it with a segment size, which would then be told too");
            }
            (mss, wscale) => mss.zip(wscale),
        };
        // xt leaves all other segments to the next rule, where nft_synproxy goes by SYN, then by ACK alone.
        let opening = Expr::Match(Match {
            key: Key::Payload(Field::TcpFlags),
            mask: Some(vec![FIN | SYN | RST | ACK]),
            op: Op::Eq,
            value: Value::Set(vec![Element::One(vec![SYN]), Element::One(vec![ACK])]),
        });
        Ok(vec![vec![opening, Expr::Divert(Divert::Synproxy { sizes, timestamp, sack })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
