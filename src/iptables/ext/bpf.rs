//! `-m bpf`: a program of the classic packet filter.

#![forbid(unsafe_code)]

use super::word::{Path, Read, Start, Step, Truth, Word, behind};
use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::protocol::ip;
use crate::iptables::translate::never;
use crate::nft::expr::Alternative;
use std::fmt::Write;

/// XT_BPF_MAX_NUM_INSTR of linux/netfilter/xt_bpf.h
const MAX: usize = 64;

/// More ways through a program than this are not followed.
const MAX_PATHS: usize = 32;

const BYTECODE: u8 = 0;
const PINNED: u8 = 1;

const OPTIONS: &[Opt] = &[Opt::value(BYTECODE, &["bytecode"]).plain(), Opt::value(PINNED, &["object-pinned"]).plain()];

/// Parts of an instruction's code (linux/bpf_common.h, linux/filter.h).
mod code {
    pub const CLASS: u16 = 0x07;
    pub const LD: u16 = 0x00;
    pub const LDX: u16 = 0x01;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    pub const ALU: u16 = 0x04;
    pub const JMP: u16 = 0x05;
    pub const MISC: u16 = 0x07;

    pub const SIZE: u16 = 0x18;
    pub const W: u16 = 0x00;
    pub const H: u16 = 0x08;
    pub const B: u16 = 0x10;

    pub const MODE: u16 = 0xe0;
    pub const IMM: u16 = 0x00;
    pub const ABS: u16 = 0x20;
    pub const IND: u16 = 0x40;
    pub const MEM: u16 = 0x60;
    pub const LEN: u16 = 0x80;
    pub const MSH: u16 = 0xa0;

    pub const OP: u16 = 0xf0;
    pub const ADD: u16 = 0x00;
    pub const MUL: u16 = 0x20;
    pub const DIV: u16 = 0x30;
    pub const OR: u16 = 0x40;
    pub const AND: u16 = 0x50;
    pub const LSH: u16 = 0x60;
    pub const RSH: u16 = 0x70;
    pub const NEG: u16 = 0x80;
    pub const MOD: u16 = 0x90;
    pub const XOR: u16 = 0xa0;

    pub const JA: u16 = 0x00;
    pub const JEQ: u16 = 0x10;
    pub const JGT: u16 = 0x20;
    pub const JGE: u16 = 0x30;
    pub const JSET: u16 = 0x40;

    /// The second operand is X instead of the instruction's number.
    pub const X: u16 = 0x08;
    /// BPF_A, of a return.
    pub const A: u16 = 0x10;
    /// BPF_TXA
    pub const TXA: u16 = 0x80;

    /// A = A + X
    pub const ADD_X: u16 = 0x0c;
    /// Cells of memory (BPF_MEMWORDS).
    pub const CELLS: usize = 16;
    /// Offsets from here on are no places in the packet (SKF_LL_OFF of linux/filter.h, as a u32).
    pub const BEYOND: u32 = 0x8000_0000;
    /// SKF_AD_OFF + SKF_AD_PAY_OFFSET: where the payload behind the transport header begins.
    pub const PAYLOAD_OFFSET: u32 = 0xffff_f034;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    on_true: u8,
    on_false: u8,
    k: u32,
}

#[derive(Clone, Debug, Default)]
struct Bpf {
    program: Vec<Instruction>,
    pinned: Option<String>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Bpf::default())
}

fn error<T>(text: &str) -> Result<T, Error> {
    Err(Error::Parameter(format!("bpf: {text}")))
}

/// Reads `LENGTH,CODE JT JF K,…` as iptables does: upper bits that do not fit are lost, and what stands behind the four
/// numbers is not looked at.
fn parse(text: &str) -> Result<Vec<Instruction>, Error> {
    let Some((length, mut rest)) = text.split_once(',') else { return error("error parsing program length") };
    let negative = length.trim_start().starts_with('-');
    let length = match length.trim_start().trim_start_matches('-').parse::<u32>() {
        Ok(length) => length as usize,
        Err(_) => return error("error parsing program length"),
    };
    if length == 0 {
        return error("illegal zero length program");
    }
    if length > MAX || negative {
        return error("number of instructions exceeds maximum");
    }
    let mut program = Vec::new();
    while !rest.is_empty() {
        let (word, behind) = rest.split_once(',').unwrap_or((rest, ""));
        if program.len() == length {
            return error("real program length exceeds the encoded length parameter");
        }
        match instruction(word) {
            Some(instruction) => program.push(instruction),
            None => return error(&format!("error at instr {}", program.len())),
        }
        rest = behind;
    }
    match program.len() == length {
        true => Ok(program),
        false => error("parsed program length is less than the encoded length parameter"),
    }
}

fn instruction(text: &str) -> Option<Instruction> {
    let (code, text) = leading_number(text)?;
    let (on_true, text) = leading_number(text)?;
    let (on_false, text) = leading_number(text)?;
    let (k, _) = leading_number(text)?;
    Some(Instruction { code: code as u16, on_true: on_true as u8, on_false: on_false as u8, k: k as u32 })
}

/// A decimal number, modulo what C's `unsigned long` holds.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let number = digits.get(..end)?.parse::<u64>().ok()?;
    Some((if negative { number.wrapping_neg() } else { number }, digits.get(end..)?))
}

/// Codes of returns, of moves between registers, and of loads from elsewhere than memory.
const OTHER_CODES: [u16; 15] =
    [0x06, 0x16, 0x07, 0x87, 0x00, 0x01, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x81, 0xb1];

/// What a register holds.
#[derive(Clone, Copy, Debug)]
enum Held {
    Word(Word),
    /// The distance of a place from the network header.
    Place(Start, u32),
}

/// A way through the program, as far as it has been followed.
#[derive(Clone, Debug)]
struct State {
    at: usize,
    a: Held,
    x: Held,
    cells: [Held; code::CELLS],
    path: Path,
}

fn refused<T>(why: &str) -> Result<T, Refusal> {
    Err(Refusal::new("--bytecode", why))
}

const NO_FORM: &str = "computes something that has no native form";

struct Machine<'a> {
    program: &'a [Instruction],
    context: &'a RuleContext<'a>,
    /// On which the packet matches.
    paths: Vec<Path>,
}

impl Machine<'_> {
    fn follow(&mut self, mut state: State) -> Result<(), Refusal> {
        loop {
            let Some(now) = self.program.get(state.at).copied() else { return refused(NO_FORM) };
            state.at += 1;
            match now.code & code::CLASS {
                code::LD | code::LDX => self.load(&mut state, now)?,
                code::ST | code::STX => {
                    let held = if now.code & code::CLASS == code::ST { state.a } else { state.x };
                    match state.cells.get_mut(now.k as usize) {
                        Some(cell) => *cell = held,
                        None => return refused(NO_FORM),
                    }
                }
                code::ALU => state.a = self.compute(&state, now)?,
                code::MISC if now.code & code::TXA != 0 => state.a = state.x,
                code::MISC => state.x = state.a,
                code::JMP => match self.jump(state, now)? {
                    Some(next) => state = next,
                    None => return Ok(()),
                },
                _ => return self.end(state, now),
            }
        }
    }

    /// Where all that remains is whether the packet matches.
    fn end(&mut self, mut state: State, now: Instruction) -> Result<(), Refusal> {
        let given = if now.code & code::A != 0 { state.a } else { Held::Word(Word::known(now.k)) };
        let Held::Word(word) = given else { return refused(NO_FORM) };
        match word.is_among(&[(0, 0)], true)? {
            Truth::Never => return Ok(()),
            Truth::Always => {}
            Truth::Where(condition) => state.path.steps.push(Step::Holds(condition)),
        }
        if self.paths.len() == MAX_PATHS {
            return refused("has too many ways to a match");
        }
        self.paths.push(state.path);
        Ok(())
    }

    fn load(&self, state: &mut State, now: Instruction) -> Result<(), Refusal> {
        let len = match now.code & code::SIZE {
            code::W => 4,
            code::H => 2,
            code::B => 1,
            _ => return refused(NO_FORM),
        };
        let to_x = now.code & code::CLASS == code::LDX;
        let held = match now.code & code::MODE {
            code::IMM => Held::Word(Word::known(now.k)),
            code::MEM => match state.cells.get(now.k as usize) {
                Some(cell) => *cell,
                None => return refused(NO_FORM),
            },
            code::ABS if now.k == code::PAYLOAD_OFFSET => self.payload()?,
            code::ABS => Held::Word(read(&mut state.path, Start::Network, now.k, len)?),
            code::IND => {
                let (start, base) = match state.x {
                    Held::Place(start, base) => (start, base),
                    Held::Word(word) => match word.number() {
                        Some(number) => (Start::Network, number),
                        None => return refused("reads at a place that the packet says"),
                    },
                };
                Held::Word(read(&mut state.path, start, base.saturating_add(now.k), len)?)
            }
            code::MSH => {
                let word = read(&mut state.path, Start::Network, now.k, 1)?.and(0x0f).left(2);
                self.place(word)
            }
            code::LEN => return refused("looks at the length of the packet"),
            _ => return refused(NO_FORM),
        };
        *(if to_x { &mut state.x } else { &mut state.a }) = held;
        Ok(())
    }

    /// Four times the IPv4 header's length is a place.
    fn place(&self, word: Word) -> Held {
        match behind(self.context.place.family, &word) {
            Some(start) => Held::Place(start, 0),
            None => Held::Word(word),
        }
    }

    /// The payload offset is known of UDP in IPv4 alone: of other protocols it depends on the transport header.
    fn payload(&self) -> Result<Held, Refusal> {
        let known = self.context.place.family == Family::V4 && self.context.protocol.is(ip::UDP);
        match known {
            true => Ok(Held::Place(Start::BehindUdp, 0)),
            false => refused("looks for the payload of another protocol than IPv4's UDP"),
        }
    }

    fn compute(&self, state: &State, now: Instruction) -> Result<Held, Refusal> {
        if let (Held::Word(word), Held::Place(start, base)) = (state.a, state.x)
            && now.code == code::ADD_X
            && let Some(number) = word.number()
        {
            return Ok(Held::Place(start, base.saturating_add(number)));
        }
        let operand = match (now.code & code::X != 0, state.x) {
            (false, _) => Some(now.k),
            (true, Held::Word(word)) => word.number(),
            (true, Held::Place(..)) => None,
        };
        let Some(number) = operand else { return refused(NO_FORM) };
        let word = match (state.a, now.code & code::OP) {
            (Held::Place(start, base), code::ADD) => return Ok(Held::Place(start, base.saturating_add(number))),
            (Held::Place(..), _) => return refused(NO_FORM),
            (Held::Word(word), _) => word,
        };
        let word = match now.code & code::OP {
            code::AND => word.and(number),
            code::OR => word.or(number),
            code::LSH if number < u32::BITS => word.left(number),
            code::RSH if number < u32::BITS => word.right(number),
            code::MUL if number.is_power_of_two() => word.left(number.trailing_zeros()),
            code::DIV if number.is_power_of_two() => word.right(number.trailing_zeros()),
            code::MOD if number.is_power_of_two() => word.and(number - 1),
            code::ADD | code::XOR if number == 0 => word,
            _ => return refused(NO_FORM),
        };
        Ok(self.place(word))
    }

    /// The state behind a jump; where both ways are open, one is followed to its end first.
    fn jump(&mut self, mut state: State, now: Instruction) -> Result<Option<State>, Refusal> {
        let kind = now.code & code::OP;
        if kind == code::JA {
            state.at = state.at.saturating_add(now.k as usize);
            return Ok(Some(state));
        }
        let (Held::Word(word), false) = (state.a, now.code & code::X != 0) else { return refused(NO_FORM) };
        let truth = |inverted: bool| match kind {
            code::JEQ => word.is_among(&[(now.k, now.k)], inverted),
            code::JGT => match now.k.checked_add(1) {
                Some(first) => word.is_among(&[(first, u32::MAX)], inverted),
                None => Ok(if inverted { Truth::Always } else { Truth::Never }),
            },
            code::JGE => word.is_among(&[(now.k, u32::MAX)], inverted),
            code::JSET => word.and(now.k).is_among(&[(0, 0)], !inverted),
            _ => refused(NO_FORM),
        };
        let (on_true, on_false) = (truth(false)?, truth(true)?);
        let go = |state: &State, by: u8, truth: Truth| {
            let mut next = state.clone();
            next.at = next.at.saturating_add(usize::from(by));
            if let Truth::Where(condition) = truth {
                next.path.steps.push(Step::Holds(condition));
            }
            next
        };
        if now.on_true == now.on_false || on_true == Truth::Always {
            return Ok(Some(go(&state, now.on_true, Truth::Always)));
        }
        if on_true == Truth::Never {
            return Ok(Some(go(&state, now.on_false, Truth::Always)));
        }
        self.follow(go(&state, now.on_true, on_true))?;
        Ok(Some(go(&state, now.on_false, on_false)))
    }
}

fn read(path: &mut Path, start: Start, offset: u32, len: u16) -> Result<Word, Refusal> {
    if offset >= code::BEYOND {
        return refused("looks at something beside the packet");
    }
    let Ok(offset) = u16::try_from(offset) else { return refused("reads too far into the packet") };
    let read = Read { start, offset, len };
    path.steps.push(Step::Read(read));
    Ok(Word::of(read))
}

impl Bpf {
    fn text(&self) -> String {
        let mut out = String::new();
        for now in &self.program {
            let _ = write!(out, ",{} {} {} {}", now.code, now.on_true, now.on_false, now.k);
        }
        out.split_off(usize::from(!out.is_empty()))
    }

    /// Whether the kernel would take the program: it ends with a return and no jump leaves it.
    fn is_sound(&self) -> bool {
        let inside = |(at, now): (usize, &Instruction)| {
            let left = self.program.len().saturating_sub(at + 1);
            let by_number = now.code & code::X == 0;
            let taken = match (now.code & code::CLASS, now.code & code::OP) {
                (code::JMP, code::JA) => now.code == 0x05 && (now.k as usize) < left,
                (code::JMP, op) => op <= code::JSET && usize::from(now.on_true.max(now.on_false)) < left,
                (code::ALU, code::LSH | code::RSH) if by_number => now.k < u32::BITS,
                (code::ALU, code::DIV | code::MOD) if by_number => now.k != 0,
                (code::ALU, op) => op <= code::XOR && (op != code::NEG || by_number),
                (code::ST | code::STX, _) => matches!(now.code, 0x02 | 0x03) && (now.k as usize) < code::CELLS,
                (code::LD | code::LDX, 0x60) => matches!(now.code, 0x60 | 0x61) && (now.k as usize) < code::CELLS,
                _ => OTHER_CODES.contains(&now.code),
            };
            taken && now.code <= 0xff
        };
        let ends = self.program.last().is_some_and(|now| matches!(now.code, 0x06 | 0x16));
        ends && self.program.iter().enumerate().all(inside)
    }
}

impl Extension for Bpf {
    fn name(&self) -> &'static str {
        "bpf"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            BYTECODE => self.program = parse(input.value)?,
            _ => self.pinned = Some(input.value.to_owned()),
        }
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        match self.program.is_empty() && self.pinned.is_none() {
            true => error("one of --bytecode or --pinned is required"),
            false => Ok(()),
        }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if self.pinned.is_some() || self.is_sound() { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        match &self.pinned {
            Some(path) => {
                let _ = write!(out, " --object-pinned {}", form.word(path));
            }
            None => {
                let _ = write!(out, " --bytecode \"{},{}\"", self.program.len(), self.text());
            }
        }
    }

    /// With the byte at its end, and without a blank before it.
    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = match &self.pinned {
            Some(path) => write!(out, "match bpf pinned {path} "),
            None => write!(out, "match bpf {}\0", self.text()),
        };
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if self.pinned.is_some() {
            return Err(Refusal::new("--object-pinned", "nf_tables runs no programs"));
        }
        let nothing = Held::Word(Word::known(0));
        let start = State { at: 0, a: nothing, x: nothing, cells: [nothing; code::CELLS], path: Path::default() };
        let mut machine = Machine { program: &self.program, context, paths: Vec::new() };
        machine.follow(start)?;
        let mut alternatives = Vec::new();
        for path in &machine.paths {
            alternatives.extend(path.alternatives(context)?);
        }
        match alternatives.len() {
            0 => Ok(vec![vec![never()]]),
            1..=MAX_PATHS => Ok(alternatives),
            _ => refused("has too many ways to a match"),
        }
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
