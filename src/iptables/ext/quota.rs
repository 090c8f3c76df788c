//! `-m quota`: until so many bytes have come.
//!
//! Both count the bytes of every packet that comes to the rule, from its making on. A packet that uses the quota up to
//! its last byte still matches in xt_quota; in nf_tables only since the kernel says so (6.16, and kernels that have
//! taken the change over).

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::iptables::translate::never;
use crate::nft::expr::{Alternative, Expr};
use std::fmt::Write;

const OPTIONS: &[Opt] = &[Opt::value(0, &["quota"]).required()];

/// The kernel's nft_quota takes no more.
const MOST: u64 = i64::MAX as u64;

#[derive(Clone, Debug, Default)]
struct Quota {
    bytes: u64,
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Quota::default())
}

impl Extension for Quota {
    fn name(&self) -> &'static str {
        "quota"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        *self = Self { bytes: value::number("quota", "quota", input.value, u64::MAX)?, inverted: input.inverted };
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --quota {}", bang(self.inverted), self.bytes);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " quota: {} bytes", self.bytes);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        match (self.bytes, self.inverted) {
            (0, false) => Ok(vec![vec![never()]]),
            (0, true) => Ok(vec![Vec::new()]),
            (MOST.., _) => Err(Refusal::new("--quota", "is more than nf_tables can count")),
            (bytes, over) => Ok(vec![vec![Expr::Quota { bytes, over }]]),
        }
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
