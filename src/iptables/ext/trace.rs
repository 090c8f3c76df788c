//! `-j TRACE`: the packet's way through the rules is reported from here on.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::nft::expr::{Alternative, Expr};

#[derive(Clone, Debug)]
struct Trace;

/// It has no options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Trace)
}

impl Extension for Trace {
    fn name(&self) -> &'static str {
        "TRACE"
    }

    fn options(&self) -> &'static [Opt] {
        &[]
    }

    fn option(&mut self, _input: &Input<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.table == "raw" { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, _out: &mut String, _form: &Form<'_>) {}

    fn list(&self, _out: &mut String, _style: &ListStyle<'_>) {}

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        Ok(vec![vec![Expr::TraceSet]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
