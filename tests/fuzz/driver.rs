//! Makes inputs from seeds, and watches what becomes of them: no panic, no more than a second, no more than 64 MiB.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use xtshim::sys::sandbox;

/// How many inputs a target is given unless XTSHIM_FUZZ_INPUTS says otherwise.
const INPUTS: u64 = 20_000;

/// The longest that an input may take.
const LONGEST: Duration = Duration::from_secs(1);

/// The most that an input may have allocated at one time, in bytes.
const MOST: isize = 64 << 20;

/// The longest input, in bytes.
const LENGTH: usize = 4096;

/// Counts what each thread holds.
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    /// What panics here is judged, and told at the end.
    static JUDGED: Cell<bool> = const { Cell::new(false) };
}

/// Has panics say nothing in the threads in which they are expected.
fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |fault| {
            if !JUDGED.get() {
                loud(fault);
            }
        }));
    });
}

fn count(change: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: all of it is the system's.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// A sequence of numbers that is the same each time: xorshift64* (Vigna, 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// What has its own meaning somewhere.
#[rustfmt::skip]
const ODD: [&[u8]; 58] = [
    b"0", b"-1", b"1", b"255", b"256", b"65535", b"65536", b"4294967295", b"4294967296", b"18446744073709551615",
    b"18446744073709551616", b"99999999999999999999999999", b"0x", b"0xffffffffffffffff", b"1e9", b"08", b"+5", b"-", b"--", b"!",
    b"\"", b"'", b"\\", b"\n", b"\r\n", b"\t", b" ", b"\0", b"#", b";", b",", b":", b"/", b"/0", b"/33", b"/129", b"::", b"::ffff:1.2.3.4",
    b"\xff", b"\xc3", b"\xe2\x98\x83", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\x1b[2J", b"\x7f", b"%s%n", b"$(id)", b"{", b"}", b"[", b"]", b"[0:0]", b"*raw", b"COMMIT", b"-A", b"-j", b"-m", b"=",
];

/// Gives `target` inputs made from `seeds`, and fails with those that it does not take.
pub fn run(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + Sync) {
    run_few(name, INPUTS, seeds, target);
}

/// The same with another number of inputs, where each means files.
pub fn run_few(name: &str, inputs: u64, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + Sync) {
    let setting = |variable: &str, otherwise| std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap());
    let (inputs, seed) = (setting("XTSHIM_FUZZ_INPUTS", inputs), setting("XTSHIM_FUZZ_SEED", 20_261_121));
    if let Some(corpus) = std::env::var_os("XTSHIM_FUZZ_CORPUS") {
        let folder = std::path::Path::new(&corpus).join(name.replace(' ', "_"));
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(number.to_string()), seed).unwrap();
        }
    }
    hush();
    // Without a network no name is looked up in one. Where that cannot be had a server may be asked, and be slow.
    let play = || play(seeds, inputs, seed, &target);
    let faults = sandbox::enter(Duration::from_secs(600), |_| play()).unwrap_or_else(|_| play());
    assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
}

fn play(seeds: &[Vec<u8>], inputs: u64, seed: u64, target: &impl Fn(&[u8])) -> Vec<String> {
    let words: Vec<&[u8]> = seeds
        .iter()
        .flat_map(|seed| seed.split(|byte| matches!(byte, 0 | b' ' | b'\n' | b'=' | b'\t')))
        .filter(|word| (1..64).contains(&word.len()))
        .collect();
    let mut dice = Dice(seed | 1);
    let mut faults = Vec::new();
    let unchanged = seeds.iter().cloned();
    let mut made = 0;
    for input in unchanged.chain(std::iter::from_fn(|| Some(make(&mut dice, seeds, &words)))) {
        made += 1;
        if let Some(fault) = judge(&input, target) {
            faults.push(format!("b\"{}\": {fault}", input.escape_ascii()));
        }
        if made >= inputs.max(seeds.len() as u64) || faults.len() >= 5 {
            break;
        }
    }
    faults
}

/// What is wrong with what becomes of `input`.
fn judge(input: &[u8], target: &impl Fn(&[u8])) -> Option<String> {
    let attempt = || {
        let before = HELD.get();
        PEAK.set(before);
        let begun = Instant::now();
        JUDGED.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
        JUDGED.set(false);
        (outcome, begun.elapsed(), PEAK.get() - before)
    };
    let (outcome, took, most) = attempt();
    if let Err(panic) = outcome {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        return Some(said.unwrap_or("a panic").to_owned());
    }
    if most > MOST {
        return Some(format!("it takes {most} bytes"));
    }
    // The machine may have had something else to do.
    (took > LONGEST && attempt().1 > LONGEST).then(|| format!("it takes {took:?}"))
}

fn make(dice: &mut Dice, seeds: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let mut input = seeds[dice.below(seeds.len())].clone();
    // Most are nearly right: what is all wrong is soon refused.
    for _ in 0..=dice.below(5).saturating_sub(2) {
        change(dice, &mut input, seeds, words);
    }
    input.truncate(LENGTH);
    input
}

fn change(dice: &mut Dice, input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&[u8]]) {
    let at = dice.below(input.len() + 1);
    let end = (at + dice.below(16)).min(input.len());
    match dice.below(16) {
        0 if at < input.len() => input[at] ^= 1 << dice.below(8),
        1 if at < input.len() => input[at] = dice.roll() as u8,
        2 => drop(input.drain(at..end)),
        3 => drop(input.splice(at..end, ODD[dice.below(ODD.len())].iter().copied())),
        4 => drop(input.splice(at..at, ODD[dice.below(ODD.len())].iter().copied())),
        5 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        6 => {
            let word = ODD[dice.below(ODD.len())].repeat(1 << dice.below(11));
            input.splice(at..at, word.into_iter().take(LENGTH));
        }
        7 => {
            let other = &seeds[dice.below(seeds.len())];
            input.truncate(at);
            input.extend(&other[dice.below(other.len() + 1)..]);
        }
        // A number for another.
        8..=11 => {
            let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|behind| at + behind) else { return };
            let stop =
                input[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |len| start + len);
            let number = [dice.roll() % 300, dice.roll() % 70_000, 1 << dice.below(64), dice.roll()][dice.below(4)];
            input.splice(start..stop, number.to_string().into_bytes());
        }
        // A word in the place of another, as the target takes words apart.
        12..=14 => {
            let between = |byte: &u8| matches!(byte, 0 | b' ' | b'\n' | b'=' | b'\t');
            let start = input[..at].iter().rposition(between).map_or(0, |before| before + 1);
            let stop = input[at..].iter().position(between).map_or(input.len(), |behind| at + behind);
            input.splice(start..stop, dice.pick(words).iter().copied());
        }
        _ => {
            let gap = input.iter().copied().find(|byte| matches!(byte, 0 | b' ')).unwrap_or(b' ');
            let start = input[..at].iter().rposition(|byte| *byte == gap).map_or(0, |before| before + 1);
            let word: Vec<u8> = dice.pick(words).iter().copied().chain([gap]).collect();
            input.splice(start..start, word);
        }
    }
}
