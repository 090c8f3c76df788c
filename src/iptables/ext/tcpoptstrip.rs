//! `-j TCPOPTSTRIP`: TCP options become NOPs.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::nft::expr::{Alternative, Assign, Expr};
use std::collections::BTreeSet;
use std::fmt::Write;

const OPTIONS: &[Opt] = &[Opt::value(0, &["strip-options"]).plain()];

/// Kinds of TCP options (IANA, Transmission Control Protocol Parameters) as iptables names them.
const NAMES: [(&str, u8); 6] =
    [("wscale", 3), ("mss", 2), ("sack-permitted", 4), ("sack", 5), ("timestamp", 8), ("md5", 19)];

/// IPPROTO_TCP (linux/in.h)
const TCP: u8 = 6;

/// How often one option fits a TCP header: 40 bytes, two for each (RFC 9293, 3.1).
const COPIES_MAX: usize = 20;

/// In one rule of nf_tables, which has at most 128 expressions (NFT_RULE_MAXEXPRS), the matches included.
const KINDS_MAX: usize = 5;

#[derive(Clone, Debug, Default)]
struct TcpOptStrip {
    kinds: BTreeSet<u8>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(TcpOptStrip::default())
}

impl TcpOptStrip {
    fn text(&self, name: impl Fn(u8) -> Option<&'static str>) -> String {
        let word = |kind: &u8| name(*kind).map_or_else(|| kind.to_string(), str::to_owned);
        self.kinds.iter().map(word).collect::<Vec<_>>().join(",")
    }
}

impl Extension for TcpOptStrip {
    fn name(&self) -> &'static str {
        "TCPOPTSTRIP"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        for word in input.value.split(',') {
            let named = NAMES.iter().find(|(name, _)| *name == word).map(|(_, kind)| u64::from(*kind));
            let kind = named.or_else(|| number::parse(word, 255));
            match kind.and_then(|kind| u8::try_from(kind).ok()) {
                None => return Err(Error::Parameter(format!("Bad TCP option value \"{word}\""))),
                // End of list and NOP.
                Some(0 | 1) => return Err(Error::Parameter("Option value may not be 0 or 1".to_owned())),
                Some(kind) if !self.kinds.insert(kind) => {
                    return Err(Error::Parameter(format!("Option \"{word}\" already specified")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        place.only_in("mangle")?;
        if place.protocol.is(TCP) { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        if !self.kinds.is_empty() {
            let _ = write!(out, " --strip-options {}", self.text(|_| None));
        }
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        let named = |kind| NAMES.iter().find(|(_, known)| *known == kind).map(|(name, _)| *name);
        if !self.kinds.is_empty() {
            let text = self.text(|kind| if style.numeric { None } else { named(kind) });
            let _ = write!(out, " TCPOPTSTRIP options {text}");
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let kinds: Vec<u8> = self.kinds.iter().copied().collect();
        if kinds.is_empty() {
            return Ok(vec![Vec::new()]);
        }
        // xt takes every copy of an option away, nf_tables the first.
        let step = |kinds: &[u8]| {
            let copies = kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, COPIES_MAX));
            copies.map(|kind| Expr::Assign(Assign::StripTcpOption(kind))).collect()
        };
        Ok(kinds.chunks(KINDS_MAX).map(step).collect())
    }

    fn acts_in_turn(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
