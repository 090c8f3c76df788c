//! The short way: what a front needs in order to become the backend at once, in one small file that takes no parsing.
//!
//! A front is started once for each of dockerd's commands, and nearly always it has nothing to do. Then it pays for
//! every page of the program that it touches, so this path does without text, formatting and maps. It holds only where
//! nothing can be in doubt: on a runtime directory that is gone at the next boot, in the user namespace that the
//! machine started with. Whatever is not as the ticket says sends the front the long way.
//!
//! What it is made of is inlined into one function: a page of the program that is touched for the first time costs as
//! much as ten system calls.

#![forbid(unsafe_code)]

use super::backends::NESTED_VARIABLE;
use super::cache::{Foundations, Seat};
use super::{Snapshot, Tool, may_make_namespaces, slot};
use crate::config::{CONFIG_PATH, CONFIG_VARIABLE, CarrierChoice, CarrierKind, Config};
use crate::family::Family;
use crate::plan;
use crate::rules;
use crate::sys::raw;
use crate::sys::start::Start;
use std::ffi::CStr;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

/// Where tickets lie. Users other than root have none.
const DIRECTORY: &[u8] = b"/run/xtshim/ticket-";

/// Length of a ticket's path, with its NUL.
const NAME: usize = DIRECTORY.len() + 16 + 1;

/// Begins every ticket; changes with its form.
const MAGIC: [u8; 8] = *b"xtshim\x00\x02";

/// Ends it.
const END: [u8; 4] = *b"end\n";

/// A ticket is some 1,100 bytes; one that is longer is not made.
const SPACE: usize = 2048;

/// Group of the file. No distribution uses the number, and user namespaces but the first have no such group: there the
/// file seems to be another's.
const GROUP: u32 = u32::MAX - 2;

/// Tables in the order of their words in a ticket.
const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// How many words a family has in a ticket: one for each table, and behind them that for all.
const WORDS: usize = TABLES.len() + 1;

/// What can be said of a table before anything is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is the backend's.
    Backend = 1,
    /// It is the backend's unless this network namespace has our table.
    BackendUnlessHeld = 2,
    /// It takes more to know.
    Unknown = 3,
}

impl Word {
    fn read(byte: u8) -> Self {
        match byte {
            1 => Self::Backend,
            2 => Self::BackendUnlessHeld,
            _ => Self::Unknown,
        }
    }

    fn of(family: Family, table: &str, snapshot: &Snapshot, config: &Config) -> Self {
        let backends = match config.carrier(table) {
            CarrierChoice::Auto => snapshot.ability(family, table, CarrierKind::Backend).is_able(),
            CarrierChoice::Fixed(carrier) => carrier == CarrierKind::Backend,
        };
        // Commands on a table that may hold raw have to be seen.
        let hosts = plan::may_host_raw(family, config, snapshot).is_some_and(|host| host.as_str() == table);
        // Where raw was once held otherwise, it takes a look, and so does what held it.
        let held = snapshot.hosted(family).is_some_and(|host| table == "raw" || host.as_str() == table);
        match backends && !hosts && !held {
            true if snapshot.nf_tables => Self::BackendUnlessHeld,
            true => Self::Backend,
            false => Self::Unknown,
        }
    }

    /// Of all that may be carried: what is not known to be the backend's, whatever a file names, sends the front the long
    /// way.
    fn of_all(family: Family, snapshot: &Snapshot, config: &Config) -> Self {
        let tables = snapshot.carried_tables(family).map(|table| Self::of(family, table, snapshot, config));
        let least = if snapshot.nf_tables { Self::BackendUnlessHeld } else { Self::Backend };
        let hosts = plan::may_host_raw(family, config, snapshot).is_some();
        let words = tables.chain(hosts.then_some(Self::Unknown));
        words.fold(least, |all, word| if word == Self::Unknown { word } else { all })
    }
}

/// A ticket of this caller's, made by this build.
#[derive(Debug)]
pub struct Ticket<'a> {
    /// How many files it rests upon.
    files: u8,
    /// Their marks and paths.
    marks: &'a [u8],
    /// The words on tables, and behind them the programs.
    words: &'a [u8],
}

impl<'a> Ticket<'a> {
    /// Room for one.
    #[inline(always)]
    pub const fn space() -> [MaybeUninit<u8>; SPACE] {
        [const { MaybeUninit::uninit() }; SPACE]
    }

    /// This caller's, if there is one.
    #[inline(always)]
    pub fn present(start: Start, space: &'a mut [MaybeUninit<u8>]) -> Option<Self> {
        if !start.is_plain_root() || start.variable(NESTED_VARIABLE).is_some() {
            return None;
        }
        let sys_admin = raw::has_sys_admin().ok()?;
        let number = match start.variable(CONFIG_VARIABLE) {
            Some(named) if !named.is_empty() => number_of(named, sys_admin),
            _ => usual_number(sys_admin),
        };
        let (bytes, group) = raw::read_own(raw::text(&name_of(number))?, space)?;
        if group == GROUP { Self::parse(bytes, sys_admin) } else { None }
    }

    #[inline(always)]
    fn parse(bytes: &'a [u8], sys_admin: bool) -> Option<Self> {
        let end = bytes.len().checked_sub(END.len())?;
        let mut rest = Reader(bytes.get(..end)?);
        let valid = bytes.get(end..)? == END
            && rest.take(MAGIC.len())? == MAGIC
            && rest.number()? == build()
            && rest.byte()? == u8::from(sys_admin);
        if !valid {
            return None;
        }
        let files = rest.byte()?;
        let marks = rest.0;
        for _ in 0..files {
            rest.take(MARK)?;
            let len = rest.byte()?;
            rest.take(usize::from(len))?;
        }
        Some(Self { files, marks, words: rest.0 })
    }

    /// Whether all that it rests upon is as it was.
    #[inline(always)]
    pub fn holds(&self) -> Option<bool> {
        let mut rest = Reader(self.marks);
        for _ in 0..self.files {
            let mark = rest.take(MARK)?;
            if !is_mark(mark, raw::numbers(rest.string()?)) {
                return Some(false);
            }
        }
        Some(true)
    }

    /// What is to become of `table`.
    #[inline(always)]
    pub fn word(&self, family: Family, table: &[u8]) -> Word {
        place_of(table).map_or(Word::Unknown, |place| self.word_at(family, place))
    }

    /// What is to become of all tables, whichever of them are meant.
    #[inline(always)]
    pub fn word_of_all(&self, family: Family) -> Word {
        self.word_at(family, TABLES.len())
    }

    #[inline(always)]
    fn word_at(&self, family: Family, place: usize) -> Word {
        let of_family = if family == Family::V4 { 0 } else { WORDS };
        self.words.get(of_family + place).map_or(Word::Unknown, |byte| Word::read(*byte))
    }

    /// The backend's program.
    #[inline(always)]
    pub fn program(&self, family: Family, tool: Tool) -> Option<&'a CStr> {
        let mut rest = Reader(self.words.get(2 * WORDS..)?);
        for _ in 0..slot(family, tool) {
            rest.string()?;
        }
        rest.string().filter(|path| !path.is_empty())
    }
}

/// Makes a ticket of what was found. That it cannot be made makes things slower, no more.
pub fn save(seat: &Seat, files: &Foundations, snapshot: &Snapshot, config: &Config) {
    let name = name_of(number_of(config.path.as_os_str().as_bytes(), may_make_namespaces()));
    let name = name.rsplit(|byte| *byte == b'/').next().and_then(|name| std::str::from_utf8(name).ok());
    let ticket = seat.store().is_volatile().then(|| render(files, snapshot, config)).flatten();
    if let Some((name, ticket)) = name.map(|name| name.trim_end_matches('\0')).zip(ticket)
        && let Err(error) = seat.store().write_for_group(name, &ticket, GROUP)
    {
        log::debug!("the ticket is not kept: {error}");
    }
}

fn render(Foundations(files): &Foundations, snapshot: &Snapshot, config: &Config) -> Option<Vec<u8>> {
    // A configuration that is bad is complained of each time.
    if config.mark.is_none() && config.path.exists() {
        return None;
    }
    let backend = snapshot.backend.as_ref()?;
    let mut out = MAGIC.to_vec();
    out.extend(build().to_ne_bytes());
    out.push(u8::from(may_make_namespaces()));
    out.push(u8::try_from(files.lines().count()).ok()?);
    for line in files.lines() {
        let (mark, path) = line.split_once(' ')?;
        out.extend(mark_from(mark)?);
        put_string(&mut out, path.as_bytes())?;
    }
    for family in Family::ALL {
        out.extend(TABLES.map(|table| Word::of(family, table, snapshot, config) as u8));
        out.push(Word::of_all(family, snapshot, config) as u8);
    }
    for (family, tool) in Family::ALL.into_iter().flat_map(|family| Tool::ALL.map(|tool| (family, tool))) {
        let program = backend.program(family, tool).map(|path| path.as_os_str().as_bytes());
        put_string(&mut out, program.unwrap_or_default())?;
    }
    out.extend(END);
    (out.len() <= SPACE).then_some(out)
}

/// For tests alone: tickets of a machine that has everything, and of one that has little.
pub(super) fn samples() -> Vec<Vec<u8>> {
    use super::{Ability, Backend};
    use crate::iptables::dialect::Variant;
    let config = Config { path: "/nonexistent/xtshim.toml".into(), ..Config::default() };
    let mut backend = Backend::new(Variant::Legacy, (1, 8, 9));
    let few = Snapshot { backend: Some(backend.clone()), ..Snapshot::default() };
    for (family, tool) in Family::ALL.into_iter().flat_map(|family| Tool::ALL.map(|tool| (family, tool))) {
        backend.set_program(family, tool, format!("/usr/sbin/{}-legacy{}", family.program(), tool.suffix()).into());
    }
    let mut all = Snapshot { backend: Some(backend), nf_tables: true, ..Snapshot::default() };
    for (family, table) in Family::ALL.into_iter().flat_map(|family| TABLES.map(|table| (family, table))) {
        all.set_ability(family, table, CarrierKind::Backend, Ability::Able);
    }
    let files = Foundations::now(&config);
    files.iter().flat_map(|files| [&all, &few].map(|snapshot| render(files, snapshot, &config))).flatten().collect()
}

/// For tests alone: asks a ticket for all that there is in it.
pub(super) fn read_all(bytes: &[u8]) -> bool {
    let tickets = [false, true].into_iter().filter_map(|sys_admin| Ticket::parse(bytes, sys_admin));
    let asked = tickets.map(|ticket| {
        let _ = ticket.holds();
        for family in Family::ALL {
            let _ = TABLES.map(|table| ticket.word(family, table.as_bytes()));
            let _ = ticket.word_of_all(family);
            let _ = Tool::ALL.map(|tool| ticket.program(family, tool));
        }
    });
    asked.count() > 0
}

/// Another build of this program reads no ticket of ours.
const fn build() -> u64 {
    rules::digest(env!("CARGO_PKG_VERSION").as_bytes(), rules::DIGEST)
}

/// Each configuration file and each kind of caller has a ticket of its own.
#[inline(always)]
const fn number_of(config: &[u8], sys_admin: bool) -> u64 {
    rules::digest(config, rules::digest(&[sys_admin as u8], 0))
}

/// The same for the usual configuration, ready-made.
#[inline(always)]
const fn usual_number(sys_admin: bool) -> u64 {
    const WITH: u64 = number_of(CONFIG_PATH.as_bytes(), true);
    const WITHOUT: u64 = number_of(CONFIG_PATH.as_bytes(), false);
    if sys_admin { WITH } else { WITHOUT }
}

/// Path of the ticket of that number, and a NUL.
#[inline(always)]
fn name_of(mut number: u64) -> [u8; NAME] {
    const WORDS: [u64; 3] = raw::words(DIRECTORY);
    let mut name = raw::spelled::<3, NAME>(WORDS);
    for place in name.iter_mut().skip(DIRECTORY.len()).take(16) {
        let digit = (number & 15) as u8;
        // Hidden, as a table of all digits would be made of it.
        *place = black_box(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
        number >>= 4;
    }
    name
}

/// Where a table's word is among those of its family.
#[inline(always)]
fn place_of(table: &[u8]) -> Option<usize> {
    TABLES.into_iter().position(|name| name.as_bytes() == table)
}

/// Length of a file's mark: device, inode, size, times of modification and of change in seconds and nanoseconds.
const MARK: usize = 7 * 8;

/// Whether these numbers are the mark. All are looked at: a way out at the first difference becomes a call of memcmp.
#[inline(always)]
fn is_mark(mark: &[u8], numbers: [i64; 7]) -> bool {
    let words = mark.chunks_exact(8).map(|word| word.try_into().map_or(0, i64::from_ne_bytes));
    words.zip(numbers).fold(0, |all, (word, number)| all | (word ^ number)) == 0
}

/// The same from its text.
fn mark_from(text: &str) -> Option<[u8; MARK]> {
    if text == "absent" {
        return Some([0; MARK]);
    }
    let mut numbers = [0; 7];
    let mut words = text.split([':', '.']);
    for number in &mut numbers {
        let word = words.next()?;
        *number = word.parse().or_else(|_| word.parse::<u64>().map(u64::cast_signed)).ok()?;
    }
    words.next().is_none().then(|| join(numbers))
}

fn join(numbers: [i64; 7]) -> [u8; MARK] {
    let mut mark = [0; MARK];
    for (place, number) in mark.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    mark
}

/// Its length, the string, a NUL.
fn put_string(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    out.push(u8::try_from(text.len() + 1).ok()?);
    out.extend(text);
    out.push(0);
    Some(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline(always)]
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    #[inline(always)]
    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_ne_bytes)
    }

    #[inline(always)]
    fn string(&mut self) -> Option<&'a CStr> {
        let len = usize::from(self.byte()?);
        raw::text(self.take(len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ability, Backend};
    use super::*;
    use crate::iptables::dialect::Variant;
    use std::path::PathBuf;

    #[test]
    fn a_mark_is_the_same_from_text_and_from_the_file() {
        let path = std::env::current_exe().expect("a program");
        let meta = std::fs::metadata(&path).expect("it is there");
        let text = crate::sys::mark::Mark::of(&meta).to_string();
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mark = mark_from(&text).expect("a mark");
        let numbers = raw::numbers(&name);
        assert!(is_mark(&mark, numbers));
        for place in 0..numbers.len() {
            let mut other = numbers;
            other[place] += 1;
            assert!(!is_mark(&mark, other), "the number at {place}");
        }
        assert!(is_mark(&mark_from("absent").expect("a mark"), raw::numbers(c"/nonexistent")));
        assert_eq!(mark_from("1:2:3"), None);
    }

    #[test]
    fn a_table_that_may_hold_raw_takes_the_long_way() {
        let mut snapshot = Snapshot { backend: Some(Backend::new(Variant::Legacy, (1, 8, 9))), ..Snapshot::default() };
        for table in ["filter", "mangle"] {
            snapshot.set_ability(Family::V4, table, CarrierKind::Backend, Ability::Able);
        }
        let missing = Ability::Missing { why: "no iptable_raw".to_owned() };
        snapshot.set_ability(Family::V4, "raw", CarrierKind::Backend, missing);
        let word = |snapshot: &Snapshot, table| Word::of(Family::V4, table, snapshot, &Config::default());
        assert_eq!(word(&snapshot, "mangle"), Word::Backend);
        snapshot.set_ability(Family::V4, "raw", CarrierKind::Mangle, Ability::Able);
        assert_eq!(word(&snapshot, "mangle"), Word::Unknown);
        assert_eq!(word(&snapshot, "raw"), Word::Unknown);
        assert_eq!(word(&snapshot, "filter"), Word::Backend);
    }

    #[test]
    fn a_file_takes_the_long_way_where_one_table_does() {
        let mut snapshot = Snapshot { nf_tables: true, ..Snapshot::default() };
        for table in TABLES {
            snapshot.set_ability(Family::V4, table, CarrierKind::Backend, Ability::Able);
            snapshot.set_ability(Family::V4, table, CarrierKind::Nft, Ability::Able);
        }
        let of_all = |snapshot: &Snapshot, config: &Config| Word::of_all(Family::V4, snapshot, config);
        assert_eq!(of_all(&snapshot, &Config::default()), Word::BackendUnlessHeld);
        let without = Snapshot { nf_tables: false, ..snapshot.clone() };
        assert_eq!(of_all(&without, &Config::default()), Word::Backend);
        for table in TABLES {
            let mut config = Config::default();
            config.carriers.insert(table.to_owned(), CarrierChoice::Fixed(CarrierKind::Nft));
            assert_eq!(of_all(&snapshot, &config), Word::Unknown, "{table} is configured");
            for ability in [Ability::Missing { why: String::new() }, Ability::Unknown { why: String::new() }] {
                let mut other = snapshot.clone();
                other.set_ability(Family::V4, table, CarrierKind::Backend, ability);
                assert_eq!(of_all(&other, &Config::default()), Word::Unknown, "{table} is not known to be able");
            }
        }
        let mut hosted = without;
        hosted.set_hosted(Family::V4, CarrierKind::Mangle);
        assert_eq!(of_all(&hosted, &Config::default()), Word::Unknown);
    }

    #[test]
    fn what_is_rendered_is_read() {
        let config = Config { path: PathBuf::from("/nonexistent"), ..Config::default() };
        let files = Foundations::now(&config).expect("plain names");
        let mut backend = Backend::new(Variant::Legacy, (1, 8, 9));
        backend.set_program(Family::V6, Tool::Save, PathBuf::from("/sbin/ip6tables-legacy-save"));
        let mut snapshot = Snapshot { backend: Some(backend), nf_tables: true, ..Snapshot::default() };
        snapshot.set_ability(Family::V6, "nat", CarrierKind::Backend, Ability::Able);
        let bytes = render(&files, &snapshot, &config).expect("it is short");
        let ticket = Ticket::parse(&bytes, may_make_namespaces()).expect("a ticket");
        assert_eq!(ticket.holds(), Some(true));
        assert!(Ticket::parse(&bytes, !may_make_namespaces()).is_none(), "it is for another kind of caller");
        for end in 0..bytes.len() {
            assert!(Ticket::parse(&bytes[..end], may_make_namespaces()).is_none(), "cut at {end}");
        }
        assert_eq!(ticket.word(Family::V6, b"nat"), Word::BackendUnlessHeld);
        assert_eq!(ticket.word(Family::V4, b"nat"), Word::Unknown);
        assert_eq!(ticket.word(Family::V6, b"arp"), Word::Unknown);
        assert_eq!(ticket.word_of_all(Family::V6), Word::of_all(Family::V6, &snapshot, &config));
        assert_eq!(ticket.program(Family::V6, Tool::Save), Some(c"/sbin/ip6tables-legacy-save"));
        assert_eq!(ticket.program(Family::V4, Tool::Command), None);
    }
}
