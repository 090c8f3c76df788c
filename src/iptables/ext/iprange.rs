//! `-m iprange`: addresses from one to another.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::address::{Written, octets, parse_start};
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Alternative, Expr, Field, Key, Value};
use std::fmt::Write;
use std::net::IpAddr;

const SOURCE: u8 = 0;
const DESTINATION: u8 = 1;

const OPTIONS: &[Opt] = &[Opt::value(SOURCE, &["src-range"]), Opt::value(DESTINATION, &["dst-range"])];

#[derive(Clone, Copy, Debug)]
struct Range {
    first: IpAddr,
    last: IpAddr,
    inverted: bool,
}

#[derive(Clone, Debug, Default)]
struct IpRange {
    source: Option<Range>,
    destination: Option<Range>,
    /// What iptables says of reversed ranges, in the words in which they were given.
    warnings: Vec<String>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(IpRange::default())
}

impl Range {
    fn parse(input: &Input<'_>, option: &str) -> Result<Self, Error> {
        let read = |text: &str| {
            let bad = || Error::Parameter(format!("iprange: Bad value for \"--{option}\" option: \"{text}\""));
            parse_start(text, input.family).ok_or_else(bad)
        };
        let (first, last) = input.value.split_once('-').unwrap_or((input.value, input.value));
        Ok(Self { first: read(first)?, last: read(last)?, inverted: input.inverted })
    }

    fn translate(self, field: Field) -> Option<Expr> {
        match (self.first <= self.last, self.inverted) {
            (true, inverted) => {
                let value = if self.first == self.last {
                    Value::Bytes(octets(self.first))
                } else {
                    Value::Range(octets(self.first), octets(self.last))
                };
                Some(matching(Key::Payload(field), inverted, value))
            }
            (false, true) => None,
            (false, false) => Some(never()),
        }
    }
}

impl Extension for IpRange {
    fn name(&self) -> &'static str {
        "iprange"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let (slot, option) = match input.id {
            SOURCE => (&mut self.source, "src-range"),
            _ => (&mut self.destination, "dst-range"),
        };
        let range = Range::parse(input, option)?;
        if range.first > range.last {
            self.warnings.push(format!("xt_iprange: range {} is reversed and will never match", input.value));
        }
        *slot = Some(range);
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        if self.source.is_some() || self.destination.is_some() {
            return Ok(());
        }
        Err(Error::Parameter("iprange match: You must specify `--src-range' or `--dst-range'".to_owned()))
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        for (option, range) in [("--src-range", self.source), ("--dst-range", self.destination)] {
            if let Some(range) = range {
                let _ =
                    write!(out, "{} {option} {}-{}", bang(range.inverted), Written(range.first), Written(range.last));
            }
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        for (name, range) in [("source", self.source), ("destination", self.destination)] {
            if let Some(range) = range {
                let _ = write!(
                    out,
                    " {name} IP range{} {}-{}",
                    bang(range.inverted),
                    Written(range.first),
                    Written(range.last)
                );
            }
        }
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let (saddr, daddr) = Field::addresses(context.place.family);
        let mut exprs = Vec::new();
        if let Some(range) = self.source {
            exprs.extend(range.translate(saddr));
        }
        if let Some(range) = self.destination {
            exprs.extend(range.translate(daddr));
        }
        Ok(vec![exprs])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
