//! `-m ecn` and `-j ECN`: explicit congestion notification (RFC 3168), in the IP header and TCP's.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext, tos, value};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::nft::expr::{Alternative, Assign, Expr, Field, Key, Match, Op, SetField, Value};
use std::fmt::Write;

const CWR: u8 = 0;
const ECE: u8 = 1;
const ECT: u8 = 2;
const REMOVE: u8 = 3;

/// Flags of the TCP header (RFC 3168, 6.1).
const FLAG_ECE: u8 = 0x40;
const FLAG_CWR: u8 = 0x80;

/// IPPROTO_TCP (linux/in.h)
const TCP: u8 = 6;

const MATCH_OPTIONS: &[Opt] =
    &[Opt::flag(CWR, &["ecn-tcp-cwr"]), Opt::flag(ECE, &["ecn-tcp-ece"]), Opt::value(ECT, &["ecn-ip-ect"])];

#[derive(Clone, Debug, Default)]
struct EcnMatch {
    /// Whether the flag must be set, or must not.
    ece: Option<bool>,
    cwr: Option<bool>,
    /// Code point, and whether all others are meant.
    ect: Option<(u8, bool)>,
}

/// The match, without options.
pub fn new_match() -> Box<dyn Extension> {
    Box::new(EcnMatch::default())
}

fn code_point(extension: &str, text: &str) -> Result<u8, Error> {
    value::number(extension, "ecn-ip-ect", text, 3).map(|number| number as u8)
}

impl Extension for EcnMatch {
    fn name(&self) -> &'static str {
        "ecn"
    }

    fn options(&self) -> &'static [Opt] {
        MATCH_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            CWR => self.cwr = Some(!input.inverted),
            ECE => self.ece = Some(!input.inverted),
            _ => self.ect = Some((code_point("ecn", input.value)?, input.inverted)),
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match (self.ece, self.cwr, self.ect) {
            (None, None, None) => Err(Error::Parameter("ECN match: some option required".to_owned())),
            _ => Ok(()),
        }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let needs_tcp = self.ece.is_some() || self.cwr.is_some();
        if needs_tcp && !place.protocol.is(TCP) { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        for (name, wanted) in [("ece", self.ece), ("cwr", self.cwr)] {
            if let Some(set) = wanted {
                let _ = write!(out, "{} --ecn-tcp-{name}", bang(!set));
            }
        }
        if let Some((point, inverted)) = self.ect {
            let _ = write!(out, "{} --ecn-ip-ect {point}", bang(inverted));
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let bang = |inverted| if inverted { "!" } else { "" };
        out.push_str(" ECN match");
        for (name, wanted) in [("ECE", self.ece), ("CWR", self.cwr)] {
            if let Some(set) = wanted {
                let _ = write!(out, " {}{name}", bang(!set));
            }
        }
        if let Some((point, inverted)) = self.ect {
            let _ = write!(out, " {}ECT={point}", bang(inverted));
        }
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let mut tests = Vec::new();
        let flags = [(FLAG_ECE, self.ece), (FLAG_CWR, self.cwr)];
        let mask = flags.iter().filter(|(_, wanted)| wanted.is_some()).fold(0, |mask, (flag, _)| mask | flag);
        if mask != 0 {
            let value =
                flags.iter().filter(|(_, wanted)| *wanted == Some(true)).fold(0, |value, (flag, _)| value | flag);
            tests.push(Expr::Match(Match {
                key: Key::Payload(Field::TcpFlags),
                mask: Some(vec![mask]),
                op: Op::Eq,
                value: Value::Bytes(vec![value]),
            }));
        }
        if let Some((point, inverted)) = self.ect {
            let op = if inverted { Op::Ne } else { Op::Eq };
            tests.push(tos::bits(context.place.family, tos::ECN, op, point));
        }
        Ok(vec![tests])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

const TARGET_OPTIONS: &[Opt] = &[
    Opt::flag(REMOVE, &["ecn-tcp-remove"]).plain(),
    Opt::value(CWR, &["ecn-tcp-cwr"]).plain(),
    Opt::value(ECE, &["ecn-tcp-ece"]).plain(),
    Opt::value(ECT, &["ecn-ip-ect"]).plain(),
];

#[derive(Clone, Debug, Default)]
struct EcnTarget {
    ect: Option<u8>,
}

/// The target, without options.
pub fn new_target() -> Box<dyn Extension> {
    Box::new(EcnTarget::default())
}

impl Extension for EcnTarget {
    fn name(&self) -> &'static str {
        "ECN"
    }

    fn options(&self) -> &'static [Opt] {
        TARGET_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let option = match input.id {
            ECT => {
                self.ect = Some(code_point("ECN", input.value)?);
                return Ok(());
            }
            CWR => "ecn-tcp-cwr",
            ECE => "ecn-tcp-ece",
            _ => "ecn-tcp-remove",
        };
        Err(Refusal::new(format!("-j ECN --{option}"), "nft has no words for changing single flags of TCP").into())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match self.ect {
            Some(_) => Ok(()),
            None => Err(Error::Parameter("ECN target: An operation is required".to_owned())),
        }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        place.only_in("mangle")
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --ecn-ip-ect {}", self.ect.unwrap_or_default());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " ECN ECT codepoint={}", self.ect.unwrap_or_default());
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let value = self.ect.unwrap_or_default();
        Ok(vec![vec![Expr::Assign(Assign::Field { field: SetField::Ip4Ecn, value })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
