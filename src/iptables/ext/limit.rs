//! `-m limit`: a token bucket.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::dialect::Variant;
use crate::nft::expr::{Alternative, Expr, Limit as LimitExpr};
use std::fmt::Write;

/// Parts of a second in which the time between two packets is kept (XT_LIMIT_SCALE, linux/netfilter/xt_limit.h).
const SCALE: u64 = 10_000;

/// xt_limit counts in 32 bits of which this many make a second, whatever HZ is of 250 and 1000 (xt_limit.c).
const CREDITS: u64 = 32_000;

const DEFAULT_BURST: u32 = 5;

const RATE: u8 = 0;
const BURST: u8 = 1;

const OPTIONS: &[Opt] = &[Opt::value(RATE, &["limit"]).plain(), Opt::value(BURST, &["limit-burst"]).plain()];

/// Units as they may be cut short, as they are written, and their seconds.
const UNITS: [(&str, &str, u64); 4] =
    [("day", "day", 86_400), ("hour", "hour", 3_600), ("minute", "min", 60), ("second", "sec", 1)];

#[derive(Clone, Debug)]
struct Limit {
    /// Time from one packet to the next, in [`SCALE`]ths of a second.
    period: u64,
    burst: u32,
}

/// With iptables' defaults: 3 an hour, 5 at once.
pub fn new() -> Box<dyn Extension> {
    Box::new(Limit { period: SCALE * 3_600 / 3, burst: DEFAULT_BURST })
}

/// The time between two packets at a rate `N[/UNIT]`.
fn parse_rate(text: &str) -> Result<u64, Error> {
    let bad = || Error::Parameter(format!("bad rate \"{text}\"'"));
    let too_fast = || Error::Parameter(format!("Rate too fast \"{text}\""));
    let (count, unit) = match text.split_once('/') {
        Some((count, unit)) => (count, Some(unit)),
        None => (text, None),
    };
    let fits = |name: &str, unit: &str| {
        !unit.is_empty() && name.get(..unit.len()).is_some_and(|head| head.eq_ignore_ascii_case(unit))
    };
    let seconds = match unit {
        None => 1,
        Some(unit) => UNITS.iter().rev().find(|(name, ..)| fits(name, unit)).ok_or_else(bad)?.2,
    };
    let (negative, digits) = match count.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, count),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let rate: u64 = digits.get(..end).unwrap_or_default().parse().unwrap_or(0);
    match rate {
        0 => Err(bad()),
        rate if negative || rate / seconds > SCALE => Err(too_fast()),
        rate => Ok(SCALE * seconds / rate),
    }
}

impl Limit {
    /// Packets and the unit in which iptables says the rate.
    fn rate(&self) -> (u64, &'static str, u64) {
        let period = self.period.max(1);
        let mut shown = UNITS[0];
        for unit in UNITS.iter().skip(1) {
            let ticks = unit.2 * SCALE;
            if period > ticks || ticks / period < ticks % period {
                break;
            }
            shown = *unit;
        }
        (shown.2 * SCALE / period, shown.1, shown.2)
    }
}

impl Extension for Limit {
    fn name(&self) -> &'static str {
        "limit"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            RATE => self.period = parse_rate(input.value)?,
            _ => {
                self.burst = value::number("limit", "limit-burst", input.value, SCALE)? as u32;
                if self.burst == 0 && input.dialect.variant == Variant::Nft {
                    self.burst = DEFAULT_BURST;
                }
            }
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let tokens = self.period * u64::from(self.burst);
        let fits = tokens * CREDITS / SCALE <= u64::from(u32::MAX) && self.burst != 0;
        if fits || place.dialect.variant == Variant::Nft {
            return Ok(());
        }
        let stderr = format!("{}: Numerical result out of range.\n", place.family.program());
        Err(Error::Verbatim { stderr, code: 1 })
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let (rate, unit, _) = self.rate();
        let _ = write!(out, " --limit {rate}/{unit}");
        if self.burst != DEFAULT_BURST {
            let _ = write!(out, " --limit-burst {}", self.burst);
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let (rate, unit, _) = self.rate();
        let _ = write!(out, " limit: avg {rate}/{unit} burst {}", self.burst);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if self.burst == 0 {
            return Err(Refusal::new("--limit-burst 0", "is out of range"));
        }
        let (rate, _, unit) = self.rate();
        Ok(vec![vec![Expr::Limit(LimitExpr { rate, unit, burst: self.burst, invert: false })]])
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
