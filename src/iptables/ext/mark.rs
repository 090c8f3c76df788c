//! `-m mark` and `-j MARK`: the packet's mark.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::nft::expr::{Alternative, Expr, Key, Match, Meta, Op, Value};
use std::fmt::Write;

const MATCH_OPTIONS: &[Opt] = &[Opt::value(0, &["mark"]).required()];

#[derive(Clone, Debug, Default)]
struct MarkMatch {
    value: u32,
    mask: u32,
    inverted: bool,
}

/// The match, without options.
pub fn new_match() -> Box<dyn Extension> {
    Box::new(MarkMatch::default())
}

impl MarkMatch {
    fn text(&self) -> String {
        if self.mask == u32::MAX { format!("{:#x}", self.value) } else { format!("{:#x}/{:#x}", self.value, self.mask) }
    }
}

impl Extension for MarkMatch {
    fn name(&self) -> &'static str {
        "mark"
    }

    fn options(&self) -> &'static [Opt] {
        MATCH_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        (self.value, self.mask) = value::mark("mark", "mark", input.value)?;
        self.inverted = input.inverted;
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --mark {}", bang(self.inverted), self.text());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " mark match{} {}", bang(self.inverted), self.text());
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        Ok(vec![vec![Expr::Match(Match {
            key: Key::Meta(Meta::Mark),
            mask: (self.mask != u32::MAX).then(|| self.mask.to_ne_bytes().to_vec()),
            op: if self.inverted { Op::Ne } else { Op::Eq },
            value: Value::Bytes(self.value.to_ne_bytes().to_vec()),
        })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

const SET: u8 = 0;
const XSET: u8 = 1;
const AND: u8 = 2;
const OR: u8 = 3;
const XOR: u8 = 4;

const TARGET_OPTIONS: &[Opt] = &[
    Opt::value(XSET, &["set-xmark"]).plain().either(1),
    Opt::value(SET, &["set-mark"]).plain().either(1),
    Opt::value(AND, &["and-mark"]).plain().either(1),
    Opt::value(OR, &["or-mark"]).plain().either(1),
    Opt::value(XOR, &["xor-mark"]).plain().either(1),
];

/// `mark = (mark & !mask) ^ value`
#[derive(Clone, Debug, Default)]
struct MarkTarget {
    value: u32,
    mask: u32,
    given: bool,
}

/// The target, without options.
pub fn new_target() -> Box<dyn Extension> {
    Box::new(MarkTarget::default())
}

impl Extension for MarkTarget {
    fn name(&self) -> &'static str {
        "MARK"
    }

    fn options(&self) -> &'static [Opt] {
        TARGET_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let bits = |option| value::number("MARK", option, input.value, u64::from(u32::MAX)).map(|bits| bits as u32);
        (self.value, self.mask) = match input.id {
            XSET => value::mark("MARK", "set-xmark", input.value)?,
            SET => {
                let (value, mask) = value::mark("MARK", "set-mark", input.value)?;
                (value, mask | value)
            }
            AND => (0, !bits("and-mark")?),
            OR => {
                let bits = bits("or-mark")?;
                (bits, bits)
            }
            _ => (bits("xor-mark")?, 0),
        };
        self.given = true;
        Ok(())
    }

    fn finish(&mut self, _rule: &super::Finished<'_>) -> Result<(), Error> {
        if self.given {
            return Ok(());
        }
        let text = "MARK: One of the --set-xmark, --{and,or,xor,set}-mark options is required";
        Err(Error::Parameter(text.to_owned()))
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --set-xmark {:#x}/{:#x}", self.value, self.mask);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let Self { value, mask, .. } = *self;
        let _ = match (value, mask) {
            (0, _) => write!(out, " MARK and {:#x}", !mask),
            _ if value == mask => write!(out, " MARK or {value:#x}"),
            (_, 0) => write!(out, " MARK xor {value:#x}"),
            (_, u32::MAX) => write!(out, " MARK set {value:#x}"),
            _ => write!(out, " MARK xset {value:#x}/{mask:#x}"),
        };
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        Ok(vec![vec![Expr::MarkSet { value: self.value, mask: self.mask }]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
