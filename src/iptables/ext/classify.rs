//! `-j CLASSIFY`: the packet's class of traffic control.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::nft::expr::{Alternative, Assign, Expr};
use std::fmt::Write;

const OPTIONS: &[Opt] = &[Opt::value(0, &["set-class"]).plain().required()];

#[derive(Clone, Debug, Default)]
struct Classify {
    class: u32,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Classify::default())
}

/// A hexadecimal number at the start of `text`, cut to 32 bits, and what follows.
fn hexadecimal(text: &str) -> Option<(u32, &str)> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let number = u64::from_str_radix(digits.get(..end)?, 16).ok()?;
    Some((number as u32, digits.get(end..)?))
}

/// `MAJOR:MINOR`; what follows is passed over.
fn parse(text: &str) -> Option<u32> {
    let (major, rest) = hexadecimal(text)?;
    let (minor, _) = hexadecimal(rest.strip_prefix(':')?)?;
    Some(major << 16 | minor & 0xffff)
}

impl Extension for Classify {
    fn name(&self) -> &'static str {
        "CLASSIFY"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let bad = || Error::Parameter(format!("Bad class value \"{}\"", input.value));
        self.class = parse(input.value).ok_or_else(bad)?;
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if matches!(place.chain, "PREROUTING" | "INPUT") { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --set-class {:04x}:{:04x}", self.class >> 16, self.class & 0xffff);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " CLASSIFY set {:x}:{:x}", self.class >> 16, self.class & 0xffff);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        Ok(vec![vec![Expr::Assign(Assign::Priority(self.class))]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
