//! `-j NFQUEUE`: to a program, by nfnetlink_queue.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::dialect::{Dialect, KEPT};
use crate::iptables::number;
use crate::nft::expr::{Alternative, Divert, Expr};

const NUM: u8 = 0;
const BALANCE: u8 = 1;
const BYPASS: u8 = 2;

/// Queue numbers have 16 bits (linux/netfilter/xt_NFQUEUE.h).
const MAX: u64 = u16::MAX as u64;

const OPTIONS: &[Opt] = &[
    Opt::value(NUM, &["queue-num"]).plain().either(1),
    Opt::value(BALANCE, &["queue-balance"]).plain().either(1),
    Opt::flag(BYPASS, &["queue-bypass"]).plain(),
    Opt::flag(3, &["queue-cpu-fanout"]).plain(),
];

#[derive(Clone, Debug, Default)]
struct NfQueue {
    first: u16,
    last: u16,
    balanced: bool,
    bypass: bool,
    fanout: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(NfQueue::default())
}

/// The number of the last queue that a range may end with: 1.8.11 counts 65536 queues as too many itself. What is kept
/// of rules that an older one made is read by one that has no such limit.
fn last_queue(dialect: &Dialect) -> u64 {
    if dialect.version >= (1, 8, 11) && dialect.version != KEPT { MAX - 1 } else { MAX }
}

fn balance(text: &str, dialect: &Dialect) -> Result<(u16, u16), Error> {
    let parameter = |text: String| Error::Parameter(text);
    let max = last_queue(dialect);
    if let Some((_, rest)) = number::prefix(text).filter(|(_, rest)| !rest.is_empty() && !rest.starts_with(':')) {
        let near = format!("NFQUEUE: Argument to \"--queue-balance\" has unexpected characters near \"{rest}\".\n");
        return Err(parameter(near));
    }
    let (first, last) = value::range(dialect, "NFQUEUE", "queue-balance", text, max)?;
    if !text.contains(':') {
        return Err(parameter(format!("Bad range \"{text}\"")));
    }
    if first >= last {
        return Err(parameter(format!("{first} should be less than {last}")));
    }
    Ok((first as u16, last as u16))
}

impl NfQueue {
    fn text(&self, dashes: &str, queue: &str) -> String {
        let mut out = match self.balanced {
            true => format!(" {dashes}{queue}balance {}:{}", self.first, self.last),
            false => format!(" {dashes}{queue}num {}", self.first),
        };
        for (given, name) in [(self.bypass, "bypass"), (self.fanout, "cpu-fanout")] {
            if given {
                out.push_str(&format!(" {dashes}{queue}{name}"));
            }
        }
        out
    }
}

impl Extension for NfQueue {
    fn name(&self) -> &'static str {
        "NFQUEUE"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            NUM => {
                self.first = value::number("NFQUEUE", "queue-num", input.value, MAX)? as u16;
                self.last = self.first;
            }
            BALANCE => {
                (self.first, self.last) = balance(input.value, input.dialect)?;
                self.balanced = true;
            }
            BYPASS => self.bypass = true,
            _ => self.fanout = true,
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        if self.fanout && !self.balanced {
            let text = "NFQUEUE: option \"--queue-cpu-fanout\" also requires \"--queue-balance\".\n";
            return Err(Error::Parameter(text.to_owned()));
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        // Their number must be one of 16 bits too.
        if self.first == 0 && self.last == u16::MAX { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        out.push_str(&self.text("--", "queue-"));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" NFQUEUE");
        out.push_str(&self.text("", ""));
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let Self { first, last, bypass, fanout, .. } = *self;
        Ok(vec![vec![Expr::Divert(Divert::Queue { first, last, bypass, fanout })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
