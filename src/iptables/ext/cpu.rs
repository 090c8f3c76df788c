//! `-m cpu`: the processor at work on the packet.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::iptables::translate::matching;
use crate::nft::expr::{Alternative, Key, Meta, Value};
use std::fmt::Write;

const OPTIONS: &[Opt] = &[Opt::value(0, &["cpu"]).required()];

#[derive(Clone, Debug, Default)]
struct Cpu {
    number: u32,
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Cpu::default())
}

impl Extension for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let number = value::number("cpu", "cpu", input.value, u64::from(u32::MAX))? as u32;
        *self = Self { number, inverted: input.inverted };
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --cpu {}", bang(self.inverted), self.number);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " cpu{} {}", bang(self.inverted), self.number);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let number = Value::Bytes(self.number.to_ne_bytes().to_vec());
        Ok(vec![vec![matching(Key::Meta(Meta::Cpu), self.inverted, number)]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
