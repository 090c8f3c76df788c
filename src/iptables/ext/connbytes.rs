//! `-m connbytes`: how much a connection has carried so far.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Alternative, Ct, Direction, Expr, Key, Match, Op, Value};
use std::fmt::Write;

const AMOUNT: u8 = 0;
const DIRECTION: u8 = 1;

const OPTIONS: &[Opt] = &[
    Opt::value(AMOUNT, &["connbytes"]).required(),
    Opt::value(DIRECTION, &["connbytes-dir"]).plain().required(),
    Opt::value(2, &["connbytes-mode"]).plain().required(),
];

const DIRECTIONS: [(&str, Option<Direction>); 3] =
    [("original", Some(Direction::Original)), ("reply", Some(Direction::Reply)), ("both", None)];

const MODES: [(&str, Ct); 3] = [("packets", Ct::Packets), ("bytes", Ct::Bytes), ("avgpkt", Ct::AveragePacket)];

#[derive(Clone, Copy, Debug)]
struct ConnBytes {
    /// Packets or bytes, both ends within.
    from: u64,
    to: u64,
    inverted: bool,
    direction: (&'static str, Option<Direction>),
    mode: (&'static str, Ct),
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    let [direction, ..] = DIRECTIONS;
    let [mode, ..] = MODES;
    Box::new(ConnBytes { from: 0, to: u64::MAX, inverted: false, direction, mode })
}

impl ConnBytes {
    /// The original leaves out an upper end of 0 as well, which makes another rule of what it says.
    fn text(&self, upper_end: bool) -> String {
        match self.to {
            u64::MAX => self.from.to_string(),
            0 if !upper_end => self.from.to_string(),
            to => format!("{}:{to}", self.from),
        }
    }
}

impl Extension for ConnBytes {
    fn name(&self) -> &'static str {
        "connbytes"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let text = input.value;
        match input.id {
            AMOUNT => {
                (self.from, self.to) = value::range(input.dialect, "connbytes", "connbytes", text, u64::MAX)?;
                if !text.contains(':') {
                    self.to = u64::MAX;
                }
                if self.from > self.to {
                    return Err(Error::Parameter(format!("{} should be less than {}", self.from, self.to)));
                }
                self.inverted = input.inverted;
            }
            DIRECTION => {
                let found = DIRECTIONS.into_iter().find(|(name, _)| *name == text);
                self.direction = found.ok_or_else(|| Error::Parameter(format!("Unknown --connbytes-dir `{text}'")))?;
            }
            _ => {
                let found = MODES.into_iter().find(|(name, _)| *name == text);
                self.mode = found.ok_or_else(|| Error::Parameter(format!("Unknown --connbytes-mode `{text}'")))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        // What is inverted is handed to the kernel with its ends swapped, which does not show on a single number.
        self.inverted &= self.from != self.to;
        Ok(())
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        let (text, bang) = (self.text(matches!(form, Form::Spec)), bang(self.inverted));
        let (mode, direction) = (self.mode.0, self.direction.0);
        let _ = write!(out, "{bang} --connbytes {text} --connbytes-mode {mode} --connbytes-dir {direction}");
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let (text, bang) = (self.text(false), bang(self.inverted));
        let (mode, direction) = (self.mode.0, self.direction.0);
        let _ = write!(out, "{bang} connbytes {text} connbytes mode {mode} connbytes direction {direction}");
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let Self { from, to, inverted, .. } = *self;
        let key = Key::Ct(self.mode.1, self.direction.1);
        let bytes = |number: u64| number.to_ne_bytes().to_vec();
        let compared = |op, number| Expr::Match(Match { key, mask: None, op, value: Value::Bytes(bytes(number)) });
        let test = match (from, to, inverted) {
            (0, u64::MAX, true) => Some(never()),
            (0, u64::MAX, false) => None,
            (from, to, _) if from == to => Some(compared(Op::Eq, from)),
            (0, to, false) => Some(compared(Op::Le, to)),
            (0, to, true) => Some(compared(Op::Gt, to)),
            (from, u64::MAX, false) => Some(compared(Op::Ge, from)),
            (from, u64::MAX, true) => Some(compared(Op::Lt, from)),
            (from, to, inverted) => Some(matching(key, inverted, Value::Range(bytes(from), bytes(to)))),
        };
        // A connection that is not counted, older than the first such rule, meets no rule in xt; here it has counted 0.
        let counted = Expr::Match(Match {
            key: Key::Ct(Ct::Packets, None),
            mask: None,
            op: Op::Gt,
            value: Value::Bytes(bytes(0)),
        });
        let meets_zero = (from == 0) != inverted;
        Ok(vec![meets_zero.then_some(counted).into_iter().chain(test).collect()])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(*self)
    }
}
