//! `-m ttl`, `-m hl`, `-j TTL` and `-j HL`: how many hops the packet has left.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Alternative, Assign, Expr, Field, Key, Match, Op, SetField, Value};
use std::fmt::Write;

/// What differs between the families.
#[derive(Debug)]
struct Names {
    matching: &'static str,
    target: &'static str,
    /// In the order of [`Test`].
    tests: &'static [Opt],
    /// In the order of [`Action`].
    actions: &'static [Opt],
    missing: &'static str,
}

static TTL: Names = Names {
    matching: "ttl",
    target: "TTL",
    tests: &[
        Opt::value(LT, &["ttl-lt"]).plain().either(1),
        Opt::value(GT, &["ttl-gt"]).plain().either(1),
        Opt::value(EQ, &["ttl-eq", "ttl"]).either(1),
    ],
    actions: &[
        Opt::value(SET, &["ttl-set"]).plain().either(1),
        Opt::value(DEC, &["ttl-dec"]).plain().either(1),
        Opt::value(INC, &["ttl-inc"]).plain().either(1),
    ],
    // The original leaves the last quotation open.
    missing: "TTL match: You must specify one of `--ttl-eq', `--ttl-lt', `--ttl-gt",
};

static HL: Names = Names {
    matching: "hl",
    target: "HL",
    tests: &[
        Opt::value(LT, &["hl-lt"]).plain().either(1),
        Opt::value(GT, &["hl-gt"]).plain().either(1),
        Opt::value(EQ, &["hl-eq", "hl"]).either(1),
    ],
    actions: &[
        Opt::value(SET, &["hl-set"]).plain().either(1),
        Opt::value(DEC, &["hl-dec"]).plain().either(1),
        Opt::value(INC, &["hl-inc"]).plain().either(1),
    ],
    missing: "HL match: You must specify one of `--hl-eq', `--hl-lt', `--hl-gt'",
};

const EQ: u8 = 0;
const LT: u8 = 1;
const GT: u8 = 2;

#[derive(Clone, Debug)]
struct HopsMatch {
    names: &'static Names,
    /// Which option, and its value.
    test: Option<(u8, u8)>,
    inverted: bool,
}

/// `-m ttl`, without options.
pub fn ttl_match() -> Box<dyn Extension> {
    Box::new(HopsMatch { names: &TTL, test: None, inverted: false })
}

/// `-m hl`, without options.
pub fn hl_match() -> Box<dyn Extension> {
    Box::new(HopsMatch { names: &HL, test: None, inverted: false })
}

impl Extension for HopsMatch {
    fn name(&self) -> &'static str {
        self.names.matching
    }

    fn options(&self) -> &'static [Opt] {
        self.names.tests
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let name = self.names.matching;
        let option = format!("{name}-{}", test_word(input.id));
        self.test = Some((input.id, value::number(name, &option, input.value, 255)? as u8));
        self.inverted = input.inverted;
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        if self.test.is_some() { Ok(()) } else { Err(Error::Parameter(self.names.missing.to_owned())) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let (test, value) = self.test.unwrap_or_default();
        let _ = write!(out, "{} --{}-{} {value}", bang(self.inverted), self.names.matching, test_word(test));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let (test, value) = self.test.unwrap_or_default();
        let sign = match (test, self.inverted) {
            (LT, _) => "<",
            (GT, _) => ">",
            (_, false) => "==",
            (_, true) => "!=",
        };
        let name = self.names.target;
        let _ = write!(out, " {name} match {name} {sign} {value}");
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let (test, value) = self.test.unwrap_or_default();
        if let (LT, 0) | (GT, u8::MAX) = (test, value) {
            return Ok(vec![vec![never()]]);
        }
        let key = Key::Payload(if self.names.target == "TTL" { Field::Ip4Ttl } else { Field::Ip6HopLimit });
        let value = Value::Bytes(vec![value]);
        Ok(vec![vec![match test {
            LT => Expr::Match(Match { key, mask: None, op: Op::Lt, value }),
            GT => Expr::Match(Match { key, mask: None, op: Op::Gt, value }),
            _ => matching(key, self.inverted, value),
        }]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

fn test_word(test: u8) -> &'static str {
    match test {
        LT => "lt",
        GT => "gt",
        _ => "eq",
    }
}

const SET: u8 = 0;
const DEC: u8 = 1;
const INC: u8 = 2;

#[derive(Clone, Debug)]
struct HopsTarget {
    names: &'static Names,
    /// Which option, and its value.
    action: Option<(u8, u8)>,
}

/// `-j TTL`, without options.
pub fn ttl_target() -> Box<dyn Extension> {
    Box::new(HopsTarget { names: &TTL, action: None })
}

/// `-j HL`, without options.
pub fn hl_target() -> Box<dyn Extension> {
    Box::new(HopsTarget { names: &HL, action: None })
}

fn action_words(action: u8) -> (&'static str, &'static str) {
    match action {
        SET => ("set", "set to"),
        DEC => ("dec", "decrement by"),
        _ => ("inc", "increment by"),
    }
}

impl Extension for HopsTarget {
    fn name(&self) -> &'static str {
        self.names.target
    }

    fn options(&self) -> &'static [Opt] {
        self.names.actions
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let (least, (word, _)) = (u64::from(input.id != SET), action_words(input.id));
        let value = number::parse(input.value, 255).filter(|value| *value >= least).ok_or_else(|| {
            let Names { target, matching, .. } = self.names;
            Error::Parameter(format!(
                "{target}: bad value for option \"--{matching}-{word}\", or out of range ({least}-255).\n"
            ))
        })?;
        self.action = Some((input.id, value as u8));
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match self.action {
            Some(_) => Ok(()),
            None => Err(Error::Parameter(format!("{}: You must specify an action", self.names.target))),
        }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        place.only_in("mangle")
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let (action, value) = self.action.unwrap_or_default();
        let _ = write!(out, " --{}-{} {value}", self.names.matching, action_words(action).0);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let (action, value) = self.action.unwrap_or_default();
        let _ = write!(out, " {} {} {value}", self.names.target, action_words(action).1);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let (action, value) = self.action.unwrap_or_default();
        let field = if self.names.target == "TTL" { SetField::Ip4Ttl } else { SetField::Ip6HopLimit };
        let by = i16::from(value);
        match (action, field) {
            (SET, _) => {}
            (DEC, SetField::Ip6HopLimit) => return Ok(vec![vec![Expr::Assign(Assign::HopLimitBy(-by))]]),
            (_, SetField::Ip6HopLimit) => return Ok(vec![vec![Expr::Assign(Assign::HopLimitBy(by))]]),
            _ => {
                let option = format!("--{}-{}", self.names.matching, action_words(action).0);
                return Err(Refusal::new(
                    option,
                    "nft has no words for a number that is reckoned from the packet's own",
                ));
            }
        }
        Ok(vec![vec![Expr::Assign(Assign::Field { field, value })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
