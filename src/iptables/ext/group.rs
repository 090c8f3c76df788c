//! Numbers with a mask that may also be said by name, as `-m devgroup` and `-m realm` take them.

#![forbid(unsafe_code)]

use super::Form;
use crate::error::Error;
use crate::iptables::translate::matching;
use crate::iptables::{names, number};
use crate::nft::expr::{Expr, Key, Match, Op, Value};

/// A number and its mask.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What is asked for.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
    /// `!`
    pub inverted: bool,
    /// File with names for such numbers.
    pub names: &'static str,
}

impl Group {
    /// `NUMBER[/MASK]` or a name of `file`.
    pub fn parse(extension: &str, option: &str, text: &str, file: &'static str, inverted: bool) -> Result<Self, Error> {
        let most = u64::from(u32::MAX);
        let unknown = || {
            let text =
                format!("{extension}: could not map name {text} to an integer value for option \"--{option}\".\n");
            Error::Parameter(text)
        };
        let bad = || {
            let text = format!("{extension}: bad integer value for option \"--{option}\", or out of range.\n");
            Error::Parameter(text)
        };
        let of = |value, mask| Self { value, mask, inverted, names: file };
        match number::prefix(text).filter(|(value, _)| *value <= most) {
            Some((value, "")) => Ok(of(value as u32, u32::MAX)),
            Some((value, rest)) if rest.starts_with('/') => {
                let mask = rest.get(1..).and_then(|mask| number::parse(mask, most));
                Ok(of(value as u32, mask.ok_or_else(bad)? as u32))
            }
            _ => names::group_number(file, text).map(|value| of(value, u32::MAX)).ok_or_else(unknown),
        }
    }

    /// In hexadecimal; or by its name, if names are wanted.
    pub fn text(&self, named: bool) -> String {
        let Self { value, mask, names: file, .. } = *self;
        let name = if named && mask == u32::MAX { names::group_name(file, value) } else { None };
        match name {
            Some(name) => name,
            None if mask == u32::MAX => format!("{value:#x}"),
            None => format!("{value:#x}/{mask:#x}"),
        }
    }

    /// As an option is written.
    pub fn save(&self, form: &Form<'_>) -> String {
        self.text(matches!(form, Form::Save(_)))
    }

    /// `key & mask == value`.
    pub fn test(&self, key: Key) -> Expr {
        let value = Value::Bytes(self.value.to_ne_bytes().to_vec());
        if self.mask == u32::MAX {
            return matching(key, self.inverted, value);
        }
        let op = if self.inverted { Op::Ne } else { Op::Eq };
        Expr::Match(Match { key, mask: Some(self.mask.to_ne_bytes().to_vec()), op, value })
    }
}
