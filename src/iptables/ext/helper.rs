//! `-m helper`: packets of connections that a connection tracking helper has foretold.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::restore::quote;
use crate::iptables::rule::bang;
use crate::iptables::translate::matching;
use crate::nft::expr::{Alternative, Ct, Element, Key, Value};
use std::fmt::Write;

const OPTIONS: &[Opt] = &[Opt::value(0, &["helper"]).required()];

/// Bytes of a name that the original keeps.
const NAME_MAX: usize = 29;

/// NF_CT_HELPER_NAME_LEN (linux/netfilter/nf_conntrack_common.h), of which one is a NUL.
const HELPER_LEN: usize = 16;

#[derive(Clone, Debug, Default)]
struct Helper {
    name: String,
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Helper::default())
}

impl Extension for Helper {
    fn name(&self) -> &'static str {
        "helper"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        *self = Self { name: value::cut(input.value, NAME_MAX).to_owned(), inverted: input.inverted };
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':');
        let name = match self.name.chars().all(plain) && !self.name.is_empty() {
            true => self.name.clone(),
            false => quote(&self.name),
        };
        let _ = write!(out, "{} --helper {name}", bang(self.inverted));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " helper match {}\"{}\"", if self.inverted { "! " } else { "" }, self.name);
    }

    /// xt compares as many letters as the helper's own name has, so what is asked for may be longer (`ftp-2121`).
    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if self.inverted {
            return Err(Refusal::new(
                "! --helper",
                "also means connections whose helper has gone, which nf_tables passes over",
            ));
        }
        if self.name.is_empty() {
            return Err(Refusal::new("--helper", "means any helper, for which nft has no words"));
        }
        let padded = |len| {
            let mut name: Vec<u8> = self.name.bytes().take(len).collect();
            name.resize(HELPER_LEN, 0);
            name
        };
        let mut names: Vec<Vec<u8>> = (1..=self.name.len().min(HELPER_LEN - 1)).map(padded).collect();
        let value = match names.len() {
            1 => Value::Bytes(names.remove(0)),
            _ => Value::Set(names.into_iter().map(Element::One).collect()),
        };
        Ok(vec![vec![matching(Key::Ct(Ct::Helper, None), false, value)]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
