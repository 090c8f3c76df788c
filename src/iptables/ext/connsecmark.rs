//! `-j CONNSECMARK`: security marks from packets to their connections and back.

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::nft::expr::{Alternative, Assign, Ct, Expr, Key, Mark, Match, Meta, Op, Value};

const SAVE: u8 = 0;
const RESTORE: u8 = 1;

const OPTIONS: &[Opt] =
    &[Opt::flag(SAVE, &["save"]).plain().either(1), Opt::flag(RESTORE, &["restore"]).plain().either(1)];

/// nft takes security marks only bit by bit: two masks that make all of one.
const HALVES: [u32; 2] = [0xffff, 0xffff_0000];

/// Where the mark goes.
#[derive(Clone, Debug, Default)]
struct ConnSecMark {
    to: Option<Mark>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(ConnSecMark::default())
}

impl ConnSecMark {
    fn word(&self) -> &'static str {
        if self.to == Some(Mark::Packet) { "restore" } else { "save" }
    }
}

/// Whether some bit of a part of a mark is set, or none.
fn part(mark: Mark, mask: u32, some: bool) -> Expr {
    Expr::Match(Match {
        key: match mark {
            Mark::Packet => Key::Meta(Meta::SecurityMark),
            Mark::Connection => Key::Ct(Ct::SecurityMark, None),
        },
        mask: Some(mask.to_ne_bytes().to_vec()),
        op: if some { Op::Ne } else { Op::Eq },
        value: Value::Bytes(0u32.to_ne_bytes().to_vec()),
    })
}

impl Extension for ConnSecMark {
    fn name(&self) -> &'static str {
        "CONNSECMARK"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        self.to = Some(if input.id == SAVE { Mark::Connection } else { Mark::Packet });
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match self.to {
            Some(_) => Ok(()),
            None => Err(Error::Parameter("CONNSECMARK target: parameter required".to_owned())),
        }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if matches!(place.table, "mangle" | "security") { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        out.extend([" --", self.word()]);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.extend([" CONNSECMARK ", self.word()]);
    }

    /// A mark that is there goes where none is yet.
    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let to = self.to.unwrap_or(Mark::Connection);
        let from = if to == Mark::Packet { Mark::Connection } else { Mark::Packet };
        let [low, high] = HALVES;
        let found = [vec![part(from, low, true)], vec![part(from, low, false), part(from, high, true)]];
        let empty = HALVES.map(|half| part(to, half, false));
        let act = |found: Alternative| {
            found.into_iter().chain(empty.clone()).chain([Expr::Assign(Assign::SecurityMark(to))]).collect()
        };
        Ok(found.map(act).to_vec())
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
