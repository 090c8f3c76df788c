//! `-m tos` and `-j TOS`: the IPv4 type of service or the IPv6 traffic class, all eight bits of it.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::number;
use crate::iptables::rule::bang;
use crate::iptables::translate::never;
use crate::nft::expr::{Alternative, Assign, Base, Expr, Field, Key, Match, Op, SetField, Value};
use std::fmt::Write;

/// Bits of the differentiated services code point (RFC 2474).
pub const DSCP: u8 = 0xfc;
/// Bits below it.
pub const DSCP_SHIFT: u8 = 2;
/// Bits of explicit congestion notification (RFC 3168).
pub const ECN: u8 = 0x03;

/// iptables-extensions(8), tos.
const SYMBOLS: [(&str, u8); 5] = [
    ("Minimize-Delay", 0x10),
    ("Maximize-Throughput", 0x08),
    ("Maximize-Reliability", 0x04),
    ("Minimize-Cost", 0x02),
    ("Normal-Service", 0x00),
];

/// Bits that a symbol speaks of.
const SYMBOL_MASK: u8 = 0x3f;

/// `byte & mask OP value`, for a mask that does not reach from one of both parts into the other's whole: nft lists
/// "not these eight bits" as two tests, one on each part.
pub fn bits(family: Family, mask: u8, op: Op, value: u8) -> Expr {
    let network = |offset, len| Key::Payload(Field::Raw { base: Base::Network, offset, len });
    // The traffic class lies across the first two bytes (RFC 8200, 3).
    let wide = |bits: u8| (u16::from(bits) << 4).to_be_bytes().to_vec();
    let (key, mask, value) = match family {
        Family::V4 => (network(8, 8), vec![mask], vec![value]),
        Family::V6 if mask == ECN => (network(8, 8), vec![mask << 4], vec![value << 4]),
        Family::V6 => (network(0, 16), wide(mask), wide(value)),
    };
    Expr::Match(Match { key, mask: Some(mask), op, value: Value::Bytes(value) })
}

/// `value[/mask]`, or a symbol.
fn parse(text: &str) -> Result<(u8, u8), Error> {
    let Some((value, rest)) = number::prefix(text) else {
        let symbol = SYMBOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        return symbol.map(|(_, value)| (*value, SYMBOL_MASK)).ok_or_else(|| unknown(text));
    };
    let value = u8::try_from(value).map_err(|_| unknown(text))?;
    let mask = match rest.strip_prefix('/') {
        None if rest.is_empty() => return Ok((value, u8::MAX)),
        None => None,
        Some(mask) => number::parse(mask, u64::from(u8::MAX)),
    };
    let illegal = || Error::Parameter(format!("Illegal value: \"{text}\""));
    mask.map(|mask| (value, mask as u8)).ok_or_else(illegal)
}

fn unknown(text: &str) -> Error {
    Error::Parameter(format!("Symbolic name \"{text}\" is unknown"))
}

fn symbol(value: u8, mask: u8, style: &ListStyle<'_>) -> Option<&'static str> {
    let known = SYMBOLS.iter().find(|(_, known)| *known == value && mask == SYMBOL_MASK);
    known.filter(|_| !style.numeric).map(|(name, _)| *name)
}

const MATCH_OPTIONS: &[Opt] = &[Opt::value(0, &["tos"]).required()];

#[derive(Clone, Debug, Default)]
struct TosMatch {
    value: u8,
    mask: u8,
    inverted: bool,
}

/// The match, without options.
pub fn new_match() -> Box<dyn Extension> {
    Box::new(TosMatch::default())
}

impl Extension for TosMatch {
    fn name(&self) -> &'static str {
        "tos"
    }

    fn options(&self) -> &'static [Opt] {
        MATCH_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        (self.value, self.mask) = parse(input.value)?;
        self.inverted = input.inverted;
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --tos {:#04x}/{:#04x}", bang(self.inverted), self.value, self.mask);
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        let _ = write!(out, " tos match{}", if self.inverted { "!" } else { "" });
        let _ = match symbol(self.value, self.mask, style) {
            Some(name) => write!(out, " {name}"),
            None => write!(out, "{:#04x}/{:#04x}", self.value, self.mask),
        };
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let Self { value, mask, inverted } = *self;
        let test = |mask, op| bits(context.place.family, mask, op, value & mask);
        match (value & !mask != 0 || mask == 0, inverted) {
            (true, _) if (value & !mask != 0) == inverted => Ok(vec![Vec::new()]),
            (true, _) => Ok(vec![vec![never()]]),
            (false, false) if mask == u8::MAX => Ok(vec![vec![test(DSCP, Op::Eq), test(ECN, Op::Eq)]]),
            (false, true) if mask == u8::MAX => {
                Ok(vec![vec![test(DSCP, Op::Ne)], vec![test(DSCP, Op::Eq), test(ECN, Op::Ne)]])
            }
            (false, inverted) => Ok(vec![vec![test(mask, if inverted { Op::Ne } else { Op::Eq })]]),
        }
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

const SET: u8 = 0;
const AND: u8 = 1;
const OR: u8 = 2;

const TARGET_OPTIONS: &[Opt] = &[
    Opt::value(SET, &["set-tos"]).plain().either(1),
    Opt::value(AND, &["and-tos"]).plain().either(1),
    Opt::value(OR, &["or-tos"]).plain().either(1),
    Opt::value(3, &["xor-tos"]).plain().either(1),
];

/// `tos = (tos & !mask) ^ value`
#[derive(Clone, Debug, Default)]
struct TosTarget {
    value: u8,
    mask: u8,
    given: bool,
}

/// The target, without options.
pub fn new_target() -> Box<dyn Extension> {
    Box::new(TosTarget::default())
}

impl Extension for TosTarget {
    fn name(&self) -> &'static str {
        "TOS"
    }

    fn options(&self) -> &'static [Opt] {
        TARGET_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let bits = |option| value::number("TOS", option, input.value, u64::from(u8::MAX)).map(|bits| bits as u8);
        (self.value, self.mask) = match input.id {
            SET => parse(input.value)?,
            AND => (0, !bits("and-tos")?),
            OR => {
                let bits = bits("or-tos")?;
                (bits, bits)
            }
            _ => (bits("xor-tos")?, 0),
        };
        self.given = true;
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        if self.given { Ok(()) } else { Err(Error::Parameter("TOS: An action is required".to_owned())) }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        place.only_in("mangle")
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --set-tos {:#04x}/{:#04x}", self.value, self.mask);
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        let Self { value, mask, .. } = *self;
        let _ = match symbol(value, mask, style) {
            Some(name) => write!(out, "  TOS set{name}"),
            None if style.numeric => write!(out, " TOS set {value:#04x}/{mask:#04x}"),
            None if value == 0 => write!(out, " TOS and {:#04x}", !mask),
            None if value == mask => write!(out, " TOS or {value:#04x}"),
            None if mask == 0 => write!(out, " TOS xor {value:#04x}"),
            None => write!(out, " TOS set {value:#04x}/{mask:#04x}"),
        };
    }

    /// nft has words for all of a code point, or all of the congestion bits. Where part of one stays as it was, there
    /// is one alternative for each value of that part.
    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let family = context.place.family;
        let Self { value, mask, .. } = *self;
        if value & !mask != 0 {
            return Err(Refusal::new("-j TOS", "flips bits, for which nft has no words"));
        }
        let (dscp, ecn) = match family {
            Family::V4 => (SetField::Ip4Dscp, SetField::Ip4Ecn),
            Family::V6 => (SetField::Ip6Dscp, SetField::Ip6Ecn),
        };
        let written = [(DSCP, DSCP_SHIFT, dscp), (ECN, 0, ecn)].into_iter().filter(|(part, ..)| mask & part != 0);
        let kept = written.clone().fold(0, |kept, (part, ..)| kept | part & !mask);
        let each_value = (0..=u8::MAX).filter(|bits| bits & !kept == 0);
        let alternatives = each_value.map(|bits| {
            let test = (kept != 0).then(|| self::bits(family, kept, Op::Eq, bits));
            let writes = written.clone().map(|(part, shift, field)| {
                Expr::Assign(Assign::Field { field, value: ((value | bits) & part) >> shift })
            });
            test.into_iter().chain(writes).collect()
        });
        Ok(alternatives.collect())
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::protocol::Protocol;
    use crate::iptables::translate::TranslateContext;

    /// What the alternatives make of an IPv4 type of service.
    fn run(target: &TosTarget, tos: u8) -> u8 {
        let place = TranslateContext { family: Family::V4, table: "mangle", chain: "PREROUTING" };
        let context = RuleContext { place: &place, protocol: Protocol::default(), whole: false };
        let mut tos = tos;
        let mut acted = 0;
        for alternative in target.translate(&context).expect("it can be carried") {
            let meant = alternative.iter().all(|expr| match expr {
                Expr::Match(Match { mask: Some(mask), value: Value::Bytes(value), .. }) => tos & mask[0] == value[0],
                _ => true,
            });
            acted += u32::from(meant);
            for expr in alternative.iter().filter(|_| meant) {
                match expr {
                    Expr::Assign(Assign::Field { field: SetField::Ip4Dscp, value }) => tos = tos & ECN | value << 2,
                    Expr::Assign(Assign::Field { field: SetField::Ip4Ecn, value }) => tos = tos & DSCP | value,
                    _ => {}
                }
            }
        }
        assert_eq!(acted, 1, "{target:?} {tos:#x}");
        tos
    }

    #[test]
    fn every_byte_comes_out_as_it_should() {
        for mask in 0..=u8::MAX {
            for value in [0, 0x10, 0x55, 0xff].map(|value| value & mask) {
                let target = TosTarget { value, mask, given: true };
                for tos in 0..=u8::MAX {
                    assert_eq!(run(&target, tos), tos & !mask | value, "{value:#x}/{mask:#x} {tos:#x}");
                }
            }
        }
    }
}
