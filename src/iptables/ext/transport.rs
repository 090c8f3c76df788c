//! What matches on transport headers share: ranges of 32-bit numbers, and that a header is there.

#![forbid(unsafe_code)]

use super::{Form, Input, value};
use crate::error::Error;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Base, Expr, Field, Key, Match, Op, Value};
use std::fmt::Write;

/// `a[:b]`, an SPI or another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub first: u32,
    pub last: u32,
    pub inverted: bool,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { first: 0, last: u32::MAX, inverted: false }
    }
}

impl Numbers {
    /// Reads `a`, `a:b`, `:b`, `a:`; the order is not checked.
    pub fn parse(extension: &str, option: &str, input: &Input<'_>) -> Result<Self, Error> {
        if input.value.matches(':').count() > 1 {
            let text = format!("{extension}: Too many components for option \"--{option}\" (max: 2)\n");
            return Err(Error::Parameter(text));
        }
        let (first, last) = value::range(input.dialect, extension, option, input.value, u64::from(u32::MAX))?;
        Ok(Self { first: first as u32, last: last as u32, inverted: input.inverted })
    }

    fn is_all(self) -> bool {
        self.first == 0 && self.last == u32::MAX
    }

    /// ` ! --espspi 5:9`; nothing for all numbers. Before 1.8.11 iptables does not show "none of all" either.
    pub fn save(self, out: &mut String, option: &str, form: &Form<'_>) {
        let hidden = !self.inverted || matches!(form, Form::Save(dialect) if dialect.version < (1, 8, 11));
        if self.is_all() && hidden {
            return;
        }
        let range = value::range_text(u64::from(self.first), u64::from(self.last));
        let _ = write!(out, "{} --{option} {range}", bang(self.inverted));
    }

    /// `spi:5`, `spis:!5:9`; nothing for all numbers.
    pub fn list(self, out: &mut String, name: &str) {
        if self.is_all() && !self.inverted {
            return;
        }
        let plural = if self.first == self.last { "" } else { "s" };
        let range = value::range_text(u64::from(self.first), u64::from(self.last));
        let _ = write!(out, "{name}{plural}:{}{range}", if self.inverted { "!" } else { "" });
    }

    /// As a match on a field of `len` bytes; `None`: every number of the field is meant.
    pub fn translate(self, key: Key, len: usize) -> Option<Expr> {
        let max = u32::try_from((1u64 << (8 * len)) - 1).unwrap_or(u32::MAX);
        let last = self.last.min(max);
        let empty = self.first > last;
        match (self.first == 0 && last == max, empty, self.inverted) {
            (true, _, true) | (_, true, false) => Some(never()),
            (true, _, false) | (_, true, true) => None,
            _ => {
                let bytes =
                    |number: u32| number.to_be_bytes().into_iter().skip(4usize.saturating_sub(len)).collect::<Vec<_>>();
                let value = match self.first == last {
                    true => Value::Bytes(bytes(last)),
                    false => Value::Range(bytes(self.first), bytes(last)),
                };
                Some(matching(key, self.inverted, value))
            }
        }
    }
}

/// The packet has a transport header of at least `len` bytes.
pub fn is_there(len: u16) -> Expr {
    let last = Field::Raw { base: Base::Transport, offset: len.saturating_sub(1) * 8, len: 8 };
    Expr::Match(Match { key: Key::Payload(last), mask: None, op: Op::Ge, value: Value::Bytes(vec![0]) })
}
