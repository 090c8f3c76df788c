//! `-m connlabel`: labels that a connection bears, and giving it one.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext, connmark};
use crate::error::{Error, Refusal};
use crate::iptables::dialect::Variant;
use crate::iptables::rule::bang;
use crate::iptables::{names, number};
use crate::nft::expr::{Alternative, Assign, Ct, Expr, Key, Match, Op, Value};
use std::fmt::Write;

const LABEL: u8 = 0;

const OPTIONS: &[Opt] = &[Opt::value(LABEL, &["label"]).required(), Opt::flag(1, &["set"]).plain()];

/// Labels that a connection has room for: 8 * NF_CT_LABELS_MAX_SIZE (linux/netfilter/xt_connlabel.h).
const LABELS: u16 = 128;

#[derive(Clone, Copy, Debug, Default)]
struct ConnLabel {
    /// Number of the label's bit, below [`LABELS`] in a rule that the kernel takes.
    bit: u16,
    inverted: bool,
    set: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(ConnLabel::default())
}

/// What the kernel's ERANGE becomes.
fn out_of_range(place: &Place<'_>) -> Error {
    const TEXT: &str = "Numerical result out of range";
    match place.dialect.variant {
        Variant::Legacy => Error::Verbatim { stderr: format!("{}: {TEXT}.\n", place.family.program()), code: 1 },
        Variant::Nft => {
            Error::Resource(format!(" RULE_{} failed ({TEXT}): rule in chain {}", place.operation, place.chain))
        }
    }
}

/// The connection has the label of this number, or has it not.
fn test(bit: u8, has: bool) -> Expr {
    let label = 1u128.checked_shl(u32::from(bit)).unwrap_or_default().to_ne_bytes().to_vec();
    Expr::Match(Match {
        key: Key::Ct(Ct::Labels, None),
        mask: Some(label.clone()),
        op: if has { Op::Eq } else { Op::Ne },
        value: Value::Bytes(label),
    })
}

/// The connection has not the label of this number, below [`LABELS`].
pub fn lacks(bit: u8) -> Expr {
    test(bit, false)
}

impl ConnLabel {
    fn label(&self) -> Option<String> {
        names::label_name(self.bit)
    }
}

impl Extension for ConnLabel {
    fn name(&self) -> &'static str {
        "connlabel"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        if input.id != LABEL {
            self.set = true;
            return Ok(());
        }
        let text = input.value;
        if text.is_empty() {
            return Err(Error::Parameter("Argument must have a minimum length of 1 characters\n".to_owned()));
        }
        // The original keeps 16 bits of whatever number it reads.
        let bit = number::parse(text, u64::MAX - 1).map(|number| number as u16).or_else(|| names::label_number(text));
        self.bit = bit.ok_or_else(|| Error::Parameter(format!("label '{text}' not found or invalid value")))?;
        self.inverted = input.inverted;
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if self.bit < LABELS { Ok(()) } else { Err(out_of_range(place)) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        let _ = match form {
            Form::Spec => write!(out, "{} --label {}", bang(self.inverted), self.bit),
            Form::Save(_) => {
                let label = self.label().unwrap_or_else(|| self.bit.to_string());
                write!(out, "{} --label \"{label}\"", bang(self.inverted))
            }
        };
        out.push_str(if self.set { " --set" } else { "" });
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        let label = match self.label().filter(|_| !style.numeric) {
            Some(name) => format!("'{name}'"),
            None => self.bit.to_string(),
        };
        let _ = write!(out, " connlabel{} {label}{}", bang(self.inverted), if self.set { " set" } else { "" });
    }

    /// New connections have room for labels only while some rule asks for it. On kernel 6.18 a match of nf_tables does,
    /// on older ones nothing but a write is known to. So each form holds one, of a label that is there already where
    /// none is to be given.
    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let Some(bit) = u8::try_from(self.bit).ok().filter(|bit| u16::from(*bit) < LABELS) else {
            return Err(Refusal::new("--label", "is beyond the last label"));
        };
        if cfg!(target_endian = "big") {
            return Err(Refusal::new("--label", "lies elsewhere for nft than for the kernel on this machine"));
        }
        let (has, lacks, write) = (test(bit, true), lacks(bit), Expr::Assign(Assign::Label(bit)));
        Ok(match (self.inverted, self.set) {
            (false, false) => vec![vec![has, write]],
            (false, true) => vec![vec![write, has]],
            (true, false) => vec![vec![connmark::entry(false)], vec![lacks.clone()], vec![has, write, lacks]],
            (true, true) => vec![vec![connmark::entry(false)], vec![write, lacks]],
        })
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(*self)
    }
}
