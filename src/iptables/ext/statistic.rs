//! `-m statistic`: every so-many-eth packet, or some at random.
//!
//! xt_statistic compares 31 random bits with a number of 31 bits; nf_tables has 32 random bits, so with twice that
//! number the chance is the same. Both count the packets that come to the rule from its making on.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::circumstance::Circumstance;
use crate::nft::expr::{Alternative, Expr, Key, Match, Meta, Op, Value};
use std::fmt::Write;

const MODE: u8 = 0;
const PROBABILITY: u8 = 1;
const EVERY: u8 = 2;
const PACKET: u8 = 3;

const OPTIONS: &[Opt] = &[
    Opt::value(MODE, &["mode"]).plain(),
    Opt::value(PROBABILITY, &["probability"]),
    Opt::value(EVERY, &["every"]),
    Opt::value(PACKET, &["packet"]).plain(),
];

/// What stands for the probability 1 (linux/netfilter/xt_statistic.h has 31 bits for it).
const CERTAIN: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Random,
    Nth,
}

#[derive(Clone, Debug, Default)]
struct Statistic {
    mode: Option<Mode>,
    /// In [`CERTAIN`]ths.
    probability: Option<u32>,
    every: Option<u32>,
    packet: Option<u32>,
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Statistic::default())
}

#[allow(clippy::cast_sign_loss, reason = "it is between 0 and 1")]
fn parse_probability(text: &str) -> Result<u32, Error> {
    let bad = "statistic: bad value for option \"--probability\", or out of range (0-1).\n";
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    let number: f64 = number.ok_or_else(|| Error::Parameter(bad.to_owned()))?;
    Ok((number * f64::from(CERTAIN)).round() as u32)
}

impl Statistic {
    /// The form behind `mode`; `dashes` stand before each name.
    fn text(&self, dashes: &str, packet: Option<u32>) -> String {
        let bang = bang(self.inverted);
        match self.mode {
            Some(Mode::Nth) => {
                let packet = packet.map(|packet| format!(" {dashes}packet {packet}")).unwrap_or_default();
                format!("nth{bang} {dashes}every {}{packet}", self.every.unwrap_or(1))
            }
            _ => {
                let probability = f64::from(self.probability.unwrap_or_default()) / f64::from(CERTAIN);
                format!("random{bang} {dashes}probability {probability:.11}")
            }
        }
    }
}

impl Extension for Statistic {
    fn name(&self) -> &'static str {
        "statistic"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            MODE => {
                self.mode = Some(match input.value {
                    "random" => Mode::Random,
                    "nth" => Mode::Nth,
                    other => return Err(Error::Parameter(format!("Bad mode \"{other}\""))),
                });
            }
            PROBABILITY => {
                self.probability = Some(parse_probability(input.value)?);
                self.inverted |= input.inverted;
            }
            EVERY => {
                let bad = "statistic: bad value for option \"--every\", or out of range (1-4294967295).\n";
                let every = number::parse(input.value, u64::from(u32::MAX)).filter(|every| *every > 0);
                self.every = Some(every.ok_or_else(|| Error::Parameter(bad.to_owned()))? as u32);
                self.inverted |= input.inverted;
            }
            _ => {
                let packet = value::number("statistic", "packet", input.value, u64::from(u32::MAX))?;
                self.packet = Some(packet as u32);
            }
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        let nth = self.mode == Some(Mode::Nth);
        let text = match (self.every, self.packet) {
            _ if !nth && self.probability.is_none() => "--probability must be specified when using random mode",
            _ if self.mode.is_none() => "statistic: option \"--mode\" must be specified\n",
            (None, None) if nth => "--every and --packet must be specified when using nth mode",
            (every, Some(packet)) if nth && packet >= every.unwrap_or(0) => "the --packet p must be 0 <= p <= n-1",
            (Some(_), None) if nth => "statistic: option \"--every\" also requires \"--packet\".\n",
            _ => return Ok(()),
        };
        Err(Error::Parameter(text.to_owned()))
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --mode {}", self.text("--", Some(self.packet.unwrap_or(0))));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " statistic mode {}", self.text("", self.packet.filter(|packet| *packet != 0)));
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let (test, always, impossible) = match self.mode {
            Some(Mode::Nth) => {
                let modulus = self.every.unwrap_or(1);
                let packet = Value::Bytes(self.packet.unwrap_or(0).to_ne_bytes().to_vec());
                let turn = Key::Circumstance(Circumstance::Turn { modulus });
                (matching(turn, self.inverted, packet), modulus == 1, false)
            }
            _ => {
                let probability = self.probability.unwrap_or_default();
                let value = Value::Bytes(probability.wrapping_mul(2).to_be_bytes().to_vec());
                let op = if self.inverted { Op::Ge } else { Op::Lt };
                let test = Expr::Match(Match { key: Key::Meta(Meta::Random), mask: None, op, value });
                (test, probability == CERTAIN, probability == 0)
            }
        };
        match if self.inverted { (impossible, always) } else { (always, impossible) } {
            (true, _) => Ok(vec![Vec::new()]),
            (_, true) => Ok(vec![vec![never()]]),
            _ => Ok(vec![vec![test]]),
        }
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_rounded_to_31_bits() {
        assert_eq!(parse_probability("0.5"), Ok(1 << 30));
        assert_eq!(parse_probability("0.33333333349"), Ok(715_827_883));
        assert_eq!(parse_probability("0.99999999999"), Ok(CERTAIN));
        assert_eq!(parse_probability("1e-3"), Ok(2_147_484));
        for bad in ["1.1", "-0.1", "x", "0.1x", "nan", ""] {
            assert!(parse_probability(bad).is_err(), "{bad}");
        }
    }
}
