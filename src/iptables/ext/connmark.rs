//! `-m connmark` and `-j CONNMARK`: the mark of the packet's connection.
//!
//! nf_tables writes a mark from one other mark, so only part of one can be put into the other bit by bit. (Kernels from
//! 6.13 on can merge two marks, but no nft before 1.1 can list that.)

#![forbid(unsafe_code)]

use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::nft::expr::{Alternative, Assign, Ct, Expr, Key, Mark, Match, Meta, Op, Shift, Value};
use std::fmt::Write;

const MATCH_OPTIONS: &[Opt] = &[Opt::value(0, &["mark"]).required()];

#[derive(Clone, Debug, Default)]
struct ConnmarkMatch {
    value: u32,
    mask: u32,
    inverted: bool,
}

/// The match, without options.
pub fn new_match() -> Box<dyn Extension> {
    Box::new(ConnmarkMatch::default())
}

impl ConnmarkMatch {
    fn text(&self) -> String {
        if self.mask == u32::MAX { format!("{:#x}", self.value) } else { format!("{:#x}/{:#x}", self.value, self.mask) }
    }
}

/// `mark & mask OP value`
fn test(mark: Mark, mask: u32, op: Op, value: u32) -> Expr {
    Expr::Match(Match {
        key: match mark {
            Mark::Packet => Key::Meta(Meta::Mark),
            Mark::Connection => Key::Ct(Ct::Mark, None),
        },
        mask: (mask != u32::MAX).then(|| mask.to_ne_bytes().to_vec()),
        op,
        value: Value::Bytes(value.to_ne_bytes().to_vec()),
    })
}

impl Extension for ConnmarkMatch {
    fn name(&self) -> &'static str {
        "connmark"
    }

    fn options(&self) -> &'static [Opt] {
        MATCH_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        (self.value, self.mask) = value::mark("connmark", "mark", input.value)?;
        self.inverted = input.inverted;
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, "{} --mark {}", bang(self.inverted), self.text());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " connmark match {} {}", if self.inverted { "!" } else { "" }, self.text());
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let op = if self.inverted { Op::Ne } else { Op::Eq };
        Ok(vec![vec![test(Mark::Connection, self.mask, op, self.value)]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

const XSET: u8 = 0;
const SET: u8 = 1;
const AND: u8 = 2;
const OR: u8 = 3;
const XOR: u8 = 4;
const SAVE: u8 = 5;
const RESTORE: u8 = 6;
const LEFT: u8 = 7;
const RIGHT: u8 = 8;
const CTMASK: u8 = 9;
const NFMASK: u8 = 10;
const MASK: u8 = 11;

const TARGET_OPTIONS: &[Opt] = &[
    Opt::value(XSET, &["set-xmark"]).plain().either(1),
    Opt::value(SET, &["set-mark"]).plain().either(1),
    Opt::value(AND, &["and-mark"]).plain().either(1),
    Opt::value(OR, &["or-mark"]).plain().either(1),
    Opt::value(XOR, &["xor-mark"]).plain().either(1),
    Opt::flag(SAVE, &["save-mark"]).plain().either(1),
    Opt::flag(RESTORE, &["restore-mark"]).plain().either(1),
    Opt::value(LEFT, &["left-shift-mark"]).plain(),
    Opt::value(RIGHT, &["right-shift-mark"]).plain(),
    Opt::value(CTMASK, &["ctmask"]).plain(),
    Opt::value(NFMASK, &["nfmask"]).plain(),
    Opt::value(MASK, &["mask"]).plain(),
];

/// How many bits are put over in one rule for each of their values; more, in one step for each bit.
const VALUES_MAX: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// `ctmark = (ctmark & !ctmask) ^ value`
    Set(u32),
    /// `ctmark = (ctmark & !ctmask) ^ (mark & nfmask)`
    Save,
    /// `mark = (mark & !nfmask) ^ (ctmark & ctmask)`
    Restore,
}

#[derive(Clone, Debug)]
struct ConnmarkTarget {
    operation: Option<Operation>,
    ctmask: u32,
    nfmask: u32,
    /// What is set, or put over, is moved first.
    right: bool,
    /// By so many places, 0 to 32.
    places: u8,
    masks_given: [bool; 3],
}

/// The target, without options.
pub fn new_target() -> Box<dyn Extension> {
    Box::new(ConnmarkTarget {
        operation: None,
        ctmask: u32::MAX,
        nfmask: u32::MAX,
        right: false,
        places: 0,
        masks_given: [false; 3],
    })
}

/// `to = (to & !cleared) ^ shift(from & taken)`
#[derive(Clone, Copy, Debug)]
struct Transfer {
    to: Mark,
    from: Mark,
    cleared: u32,
    taken: u32,
    shift: Option<Shift>,
}

impl Transfer {
    fn moved(self, bits: u32) -> u32 {
        match self.shift {
            None => bits,
            Some(Shift::Left(places)) => bits.wrapping_shl(u32::from(places)),
            Some(Shift::Right(places)) => bits.wrapping_shr(u32::from(places)),
        }
    }

    /// The bits of `from` that arrive anywhere.
    fn arriving(self) -> impl Iterator<Item = u32> + Clone {
        (0..u32::BITS).map(|place| 1 << place).filter(move |bit| bit & self.taken != 0 && self.moved(*bit) != 0)
    }

    /// What spares a packet without an entry where the connection's mark is not read.
    fn guard(self) -> Option<Expr> {
        (self.to == Mark::Packet).then(|| entry(true))
    }

    /// One rule for each bit is needed, which act in turn.
    fn takes_steps(self) -> bool {
        self.cleared != u32::MAX && self.arriving().count() > VALUES_MAX as usize
    }

    fn write(self, mask: u32, xor: u32) -> Expr {
        Expr::Assign(Assign::Mark { to: self.to, from: self.to, mask, xor, shift: None })
    }

    fn actions(self) -> Vec<Alternative> {
        let Self { to, from, taken, shift, .. } = self;
        if self.cleared == u32::MAX && taken != 0 {
            return vec![vec![Expr::Assign(Assign::Mark { to, from, mask: taken, xor: 0, shift })]];
        }
        if self.takes_steps() {
            return self.steps();
        }
        let bits = self.arriving().fold(0, |bits, bit| bits | bit);
        self.arriving()
            .fold(vec![0], |values, bit| values.iter().flat_map(|value| [*value, value | bit]).collect())
            .into_iter()
            .map(|value: u32| {
                let read = (bits != 0).then(|| test(from, bits, Op::Eq, value)).or_else(|| self.guard());
                read.into_iter().chain([self.write(!self.cleared, self.moved(value))]).collect()
            })
            .collect()
    }

    /// What is only cleared first, then each bit. A connection's bits are only touched where they change, for others
    /// see them.
    fn steps(self) -> Vec<Alternative> {
        let copied = self.arriving().map(|bit| self.moved(bit)).fold(0, |bits, bit| bits | bit) & self.cleared;
        let at_once = if self.to == Mark::Connection { self.cleared & !copied } else { self.cleared };
        let mut steps: Vec<Alternative> =
            vec![self.guard().into_iter().chain((at_once != 0).then(|| self.write(!at_once, 0))).collect()];
        for bit in self.arriving() {
            let (set, there) = (test(self.from, bit, Op::Eq, bit), self.moved(bit));
            match self.to == Mark::Connection && there & copied != 0 {
                true => {
                    steps.push(vec![set, self.write(!there, there)]);
                    steps.push(vec![test(self.from, bit, Op::Eq, 0), self.write(!there, 0)]);
                }
                false => steps.push(vec![set, self.write(u32::MAX, there)]),
            }
        }
        steps
    }
}

/// The packet has a conntrack entry, or (else it is invalid or untracked) has none.
pub(super) fn entry(there: bool) -> Expr {
    // NF_CT_STATE_* of linux/netfilter/nf_conntrack_common.h: established, related, new.
    const TRACKED: u32 = 1 << 1 | 1 << 2 | 1 << 3;
    Expr::Match(Match {
        key: Key::Ct(Ct::State, None),
        mask: Some(TRACKED.to_ne_bytes().to_vec()),
        op: if there { Op::Ne } else { Op::Eq },
        value: Value::Bytes(0u32.to_ne_bytes().to_vec()),
    })
}

impl ConnmarkTarget {
    fn shift(&self) -> Option<Shift> {
        match (self.places, self.right) {
            (0, _) => None,
            (places, false) => Some(Shift::Left(places)),
            (places, true) => Some(Shift::Right(places)),
        }
    }

    fn transfer(&self) -> Option<Transfer> {
        let (to, from, cleared, taken) = match self.operation? {
            Operation::Set(_) => return None,
            Operation::Save => (Mark::Connection, Mark::Packet, self.ctmask, self.nfmask),
            Operation::Restore => (Mark::Packet, Mark::Connection, self.nfmask, self.ctmask),
        };
        Some(Transfer { to, from, cleared, taken, shift: self.shift() })
    }

    /// ` --left-shift-mark 3`, with `dashes` before the words.
    fn shift_text(&self, out: &mut String, dashes: &str) {
        if self.places != 0 {
            let _ = write!(out, " {dashes}{}-shift-mark {}", if self.right { "right" } else { "left" }, self.places);
        }
    }
}

impl Extension for ConnmarkTarget {
    fn name(&self) -> &'static str {
        "CONNMARK"
    }

    fn options(&self) -> &'static [Opt] {
        TARGET_OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let number = |option, max| value::number("CONNMARK", option, input.value, max).map(|bits| bits as u32);
        let bits = |option| number(option, u64::from(u32::MAX));
        let set = |(value, mask): (u32, u32)| (Some(Operation::Set(value)), mask);
        match input.id {
            XSET => (self.operation, self.ctmask) = set(value::mark("CONNMARK", "set-xmark", input.value)?),
            SET => {
                let (value, mask) = value::mark("CONNMARK", "set-mark", input.value)?;
                (self.operation, self.ctmask) = set((value, mask | value));
            }
            AND => (self.operation, self.ctmask) = set((0, !bits("and-mark")?)),
            OR => {
                let bits = bits("or-mark")?;
                (self.operation, self.ctmask) = set((bits, bits));
            }
            XOR => (self.operation, self.ctmask) = set((bits("xor-mark")?, 0)),
            SAVE => self.operation = Some(Operation::Save),
            RESTORE => self.operation = Some(Operation::Restore),
            LEFT => (self.right, self.places) = (false, number("left-shift-mark", 32)? as u8),
            RIGHT => (self.right, self.places) = (true, number("right-shift-mark", 32)? as u8),
            CTMASK => self.ctmask = bits("ctmask")?,
            NFMASK => self.nfmask = bits("nfmask")?,
            _ => {
                self.ctmask = bits("mask")?;
                self.nfmask = self.ctmask;
            }
        }
        if let Some(given) = input.id.checked_sub(CTMASK).and_then(|at| self.masks_given.get_mut(usize::from(at))) {
            *given = true;
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        let rival = match self.masks_given {
            _ if self.operation.is_none() => {
                return Err(Error::Parameter("CONNMARK target: No operation specified".to_owned()));
            }
            [true, _, true] => "ctmask",
            [_, true, true] => "nfmask",
            _ => return Ok(()),
        };
        let text = format!("CONNMARK: option \"--{rival}\" cannot be used together with \"--mask\".\n");
        Err(Error::Parameter(text))
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if self.places < 32 { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let Self { ctmask, nfmask, .. } = *self;
        let _ = match self.operation {
            Some(Operation::Set(value)) => write!(out, " --set-xmark {value:#x}/{ctmask:#x}"),
            Some(Operation::Save) => write!(out, " --save-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}"),
            _ => write!(out, " --restore-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}"),
        };
        self.shift_text(out, "--");
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let Self { ctmask, nfmask, .. } = *self;
        let (word, first, second) = match self.operation {
            Some(Operation::Set(value)) => {
                let _ = match (value, ctmask) {
                    (0, _) => write!(out, " CONNMARK and {:#x}", !ctmask),
                    _ if value == ctmask => write!(out, " CONNMARK or {value:#x}"),
                    (_, 0) => write!(out, " CONNMARK xor {value:#x}"),
                    (_, u32::MAX) => write!(out, " CONNMARK set {value:#x}"),
                    _ => write!(out, " CONNMARK xset {value:#x}/{ctmask:#x}"),
                };
                self.shift_text(out, "");
                return;
            }
            Some(Operation::Save) => ("save", ("nfmask", nfmask), ("ctmask", ctmask)),
            _ => ("restore", ("ctmask", ctmask), ("nfmask", nfmask)),
        };
        let _ = match (nfmask, ctmask) {
            (u32::MAX, u32::MAX) => write!(out, " CONNMARK {word}"),
            _ if nfmask == ctmask => write!(out, " CONNMARK {word} mask {nfmask:#x}"),
            _ => write!(out, " CONNMARK {word} {} {:#x} {} ~{:#x}", first.0, first.1, second.0, second.1),
        };
        self.shift_text(out, "");
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let mark = Mark::Connection;
        Ok(match (self.operation, self.transfer()) {
            (_, Some(transfer)) => transfer.actions(),
            (Some(Operation::Set(value)), _) => {
                let assign = Assign::Mark { to: mark, from: mark, mask: !self.ctmask, xor: value, shift: self.shift() };
                vec![vec![Expr::Assign(assign)]]
            }
            (_, None) => Vec::new(),
        })
    }

    fn acts_in_turn(&self) -> bool {
        self.transfer().is_some_and(Transfer::takes_steps)
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the actions make of two marks, done as the kernel does them.
    fn run(transfer: Transfer, mut to: u32, from: u32) -> u32 {
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
        for action in transfer.actions() {
            let meant = action.iter().all(|expr| match expr {
                Expr::Match(Match { key: Key::Ct(Ct::State, _), .. }) => true,
                Expr::Match(Match { key, mask, value: Value::Bytes(value), .. }) => {
                    let is_packet = *key == Key::Meta(Meta::Mark);
                    let read = if is_packet == (transfer.from == Mark::Packet) { from } else { to };
                    read & mask.as_deref().map_or(u32::MAX, number) == number(value)
                }
                _ => true,
            });
            if let (true, Some(Expr::Assign(Assign::Mark { from: source, mask, xor, shift, .. }))) =
                (meant, action.last())
            {
                let read = if *source == transfer.to { to } else { from };
                let value = read & mask ^ xor;
                to = match shift {
                    None => value,
                    Some(Shift::Left(places)) => value << places,
                    Some(Shift::Right(places)) => value >> places,
                };
            }
        }
        to
    }

    #[test]
    fn parts_of_a_mark_arrive_in_the_other() {
        let masks = [0, 1, 0x80, 0x6, 0xff0000, 0xff, 0xff00, 0x7fff_ffff, 0x8000_0001, u32::MAX];
        let shifts = [None, Some(Shift::Left(8)), Some(Shift::Right(8)), Some(Shift::Left(31)), Some(Shift::Right(1))];
        for (to, from) in [(Mark::Packet, Mark::Connection), (Mark::Connection, Mark::Packet)] {
            let each = masks.iter().flat_map(|a| masks.map(|b| (*a, b)));
            for (shift, (cleared, taken)) in
                shifts.iter().flat_map(|shift| each.clone().map(move |both| (*shift, both)))
            {
                let transfer = Transfer { to, from, cleared, taken, shift };
                for (old, new) in
                    [(0, 0), (u32::MAX, 0), (0, u32::MAX), (0x1234_5678, 0x9abc_def0), (0xa5a5_a5a5, 0x00ff_8001)]
                {
                    let wanted = old & !cleared ^ transfer.moved(new & taken);
                    assert_eq!(run(transfer, old, new), wanted, "{transfer:?} {old:#x} {new:#x}");
                }
            }
        }
    }
}
