//! What is given the inputs. A panic in here is a finding, and so is what is asserted.

use std::fs;
use std::path::Path;
use xtshim::carrier::change::{self, Place};
use xtshim::carrier::nft::{builtins, table_name};
use xtshim::carrier::table::{Chain, Held, Session, Table};
use xtshim::family::Family;
use xtshim::iptables::dialect::{Dialect, Variant};
use xtshim::iptables::restore::{self, Line};
use xtshim::iptables::{self, Command, ListOptions, Rule, TranslateContext, parse, peek_table, plain_table};
use xtshim::nft::{self, Batch, Position, json, text, userdata};
use xtshim::{config, journal, probe};

/// That save or list some rule otherwise than the one before, and so on through both variants.
const VERSIONS: [(u16, u16, u16); 8] =
    [(1, 8, 2), (1, 8, 7), (1, 8, 4), (1, 8, 9), (1, 8, 8), (1, 8, 11), (1, 8, 10), (1, 8, 13)];

/// One of those that differ.
pub fn dialect(number: u8) -> Dialect {
    let family = if number & 1 == 0 { Family::V4 } else { Family::V6 };
    let variant = if number & 2 == 0 { Variant::Legacy } else { Variant::Nft };
    let version = if number & 4 == 0 { (1, 8, 9) } else { (1, 8, 11) };
    Dialect { family, variant, version }
}

/// The same input is read by all, each in its turn by its length: four times the inputs are no better.
fn dialect_of(input: &[u8]) -> Dialect {
    dialect(input.iter().fold(input.len() as u8, |sum, byte| sum.wrapping_add(*byte)))
}

fn words(input: &[u8]) -> Vec<String> {
    input.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Words with a NUL behind each. Whoever only looks for the table finds the one that the parser finds.
pub fn command_line(input: &[u8]) {
    let (words, dialect) = (words(input), dialect_of(input));
    let invocation = match parse(dialect.family, &words, &dialect) {
        Ok(invocation) => invocation,
        Err(error) => {
            assert!(error.code() != 0, "a failure without an exit code");
            error.render(&dialect);
            return;
        }
    };
    iptables::spot(dialect.family, &words, &dialect);
    if matches!(invocation.command, Command::Help | Command::Version) {
        return;
    }
    let peeked = peek_table(words.iter().map(String::as_str)).unwrap_or("filter");
    assert_eq!(peeked, invocation.table, "another table is found by who looks for that alone");
    if let Some(plain) = plain_table(words.iter().map(String::as_bytes)) {
        assert_eq!(plain.unwrap_or(b"filter"), invocation.table.as_bytes(), "the short way finds another table");
    }
    let mut table = untouched(dialect.family, &invocation.table);
    let mut out = String::new();
    let _ = Session { table: &mut table, dialect: &dialect, out: &mut out }.run(&invocation);
    carry(&table, &dialect);
}

fn untouched(family: Family, name: &str) -> Table {
    let chains = builtins(name).iter().map(|builtin| Chain::untouched(builtin.name)).collect();
    Table { chains, ..Table::empty(family, name) }
}

/// All that is done with a table but sending it.
fn carry(table: &Table, dialect: &Dialect) {
    let name = table_name(&table.name);
    let eager = dialect.variant == Variant::Legacy;
    let place = Place { family: table.family, table: &name, builtins: builtins(&table.name), eager, optimize: true };
    if let Ok(change) = change::between(&place, &untouched(table.family, &table.name), table.clone()) {
        let _ = json::commands(&change.batch);
        nft::hostile::messages(&change.batch);
    }
    let mut out = String::new();
    let mut table = table.clone();
    let _ = Session { table: &mut table, dialect, out: &mut out }.save(true);
}

/// What stands between `*` and `COMMIT` is done to a table that nothing has touched.
pub fn restore_file(input: &[u8]) {
    let dialect = dialect_of(input);
    let mut table = untouched(dialect.family, "raw");
    for piece in restore::pieces(input) {
        let line = String::from_utf8_lossy(restore::seen(piece)).into_owned();
        let mut out = String::new();
        match restore::read_line(&line) {
            Line::Table(name) if !builtins(&name).is_empty() => table = untouched(dialect.family, &name),
            Line::Chain { name, policy, counters } => {
                let mut session = Session { table: &mut table, dialect: &dialect, out: &mut out };
                let _ = session.declare(&name, &policy, counters, false);
            }
            Line::Command { counters, args } => {
                if let Some(bracket) = counters {
                    bracket.read();
                }
                let words: Vec<&str> = args.iter().map(String::as_str).collect();
                if let Ok(invocation) = iptables::parse_line(dialect.family, &table.name, &words, &dialect) {
                    let _ = Session { table: &mut table, dialect: &dialect, out: &mut out }.run(&invocation);
                }
            }
            Line::Commit => {
                carry(&table, &dialect);
                table.exists = true;
            }
            _ => {}
        }
    }
    carry(&table, &dialect);
}

/// What is kept of a rule reads as the same rule, and means the same; what is sent can be read back.
pub fn round_trip(input: &[u8]) {
    let dialect = dialect_of(input);
    let line =
        ["-t", "mangle", "-A", "PREROUTING"].into_iter().map(str::to_owned).chain(words(input)).collect::<Vec<_>>();
    let Ok(parsed) = parse(dialect.family, &line, &dialect) else { return };
    let Command::Append { rules, .. } = parsed.command else { return };
    for rule in &rules {
        let kept = Rule::from_spec(dialect.family, "mangle", &rule.spec(), rule.jump());
        let mut kept = kept.unwrap_or_else(|error| panic!("what is kept cannot be read: {} ({error:?})", rule.spec()));
        assert!(kept.same(rule), "what is kept is another rule: {} / {}", kept.spec(), rule.spec());
        // The kernel counts.
        kept.counters = rule.counters;
        for (number, version) in (0..).zip(VERSIONS) {
            let dialect = Dialect { family: dialect.family, version, ..self::dialect(number) };
            assert_eq!(kept.save(&dialect), rule.save(&dialect), "{}", rule.spec());
            // What is saved without having been read is what reading would have given.
            let mut table = untouched(dialect.family, "mangle");
            table.chains[0].rules.push(Held::new(rule));
            let mut out = String::new();
            Session { table: &mut table, dialect: &dialect, out: &mut out }.save(false).unwrap();
            let line = out.split_once("-A PREROUTING").and_then(|(_, line)| line.strip_suffix("\nCOMMIT\n"));
            assert_eq!(line.map(str::trim), Some(rule.save(&dialect).trim()), "{dialect:?}: {}", rule.spec());
            kept.list(&dialect, &ListOptions { verbose: true, numeric: true, exact: true, line_numbers: true }, 1);
        }
        let context = TranslateContext { family: dialect.family, table: "mangle", chain: "PREROUTING" };
        let (native, again) = (rule.translate(&context), kept.translate(&context));
        assert_eq!(format!("{native:?}"), format!("{again:?}"), "what is kept means something else: {}", rule.spec());
        let entry = userdata::Entry::whole(rule.spec());
        let encoded = userdata::encode(&entry, rule.comment());
        assert!(encoded.userdata.len() <= 256 && encoded.overflow.iter().all(|piece| piece.len() <= 256));
        if encoded.overflow.is_empty() {
            assert_eq!(
                userdata::decode(&encoded.userdata, &userdata::Continuations::default()),
                userdata::Decoded::Ours(entry)
            );
        }
        let Ok(native) = native else { continue };
        assert!(!native.is_empty() || rule.spec().contains('!'), "a rule that is none at all: {}", rule.spec());
        let mut batch = Batch::new();
        let at = nft::Table { family: dialect.family, name: "xtshim-mangle" };
        for alternative in &native {
            batch.add_rule(at, "PREROUTING", Position::Append, alternative, &encoded.userdata);
        }
        nft::hostile::read(&nft::hostile::messages(&batch));
        let lines = text::commands(&batch);
        let made_sure_of = text::told(&batch, 0).map(drop);
        assert_eq!(lines.clone().map(drop), made_sure_of, "what is not told is looked at otherwise: {}", rule.spec());
        for line in lines.into_iter().flatten() {
            assert!(!line.contains(['\n', '\0', '\x1b']), "what nft is given has a control byte: {line:?}");
        }
        let _ = json::commands(&batch);
    }
}

/// A configuration file.
pub fn configuration(folder: &Path, input: &[u8]) {
    let path = folder.join("xtshim.toml");
    fs::write(&path, input).unwrap();
    let (config, error) = config::load_from(&path);
    assert_eq!(config.mark.is_some(), error.is_none(), "neither read nor complained of");
    if let Some(error) = error {
        assert!(!error.to_string().contains('\n'), "a complaint of two lines: {error}");
    }
}

/// What was kept from an earlier call.
pub fn cache(input: &[u8]) {
    probe::read_kept(&String::from_utf8_lossy(input));
}

/// What the short way goes by. One of which a piece is missing at its end is none.
pub fn ticket(input: &[u8]) {
    let (is_one, end) = (probe::read_ticket(input), input.len());
    assert!(!is_one || !probe::read_ticket(&input[..end - 1]), "a ticket without its end is taken for one");
}

/// What a kernel says of itself, in files.
pub fn kernel(folder: &Path, input: &[u8]) {
    let mut parts = input.split(|byte| *byte == 0);
    let modules = folder.join("lib/modules/x");
    for path in [modules.clone(), folder.join("boot"), folder.join("proc")] {
        fs::create_dir_all(path).unwrap();
    }
    let files = [
        folder.join("boot/config-x"),
        modules.join("modules.dep"),
        modules.join("modules.builtin"),
        folder.join("proc/modules"),
    ];
    for path in &files {
        fs::write(path, parts.next().unwrap_or_default()).unwrap();
    }
    fs::write(folder.join("proc/config.gz"), parts.next().unwrap_or(input)).unwrap();
    let kernel = probe::Kernel::read_below(folder, "x");
    kernel.module("nf_tables");
    kernel.option("CONFIG_NF_TABLES");
    for capability in xtshim::rules::capabilities() {
        kernel.promises(capability, Family::V4);
    }
}

/// What the kernel answers over netlink.
pub fn answer(input: &[u8]) {
    nft::hostile::read(input);
}

/// What is told of a command, for a terminal and for a file: no byte in it does anything.
pub fn journal(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let shown = journal::escape(&text);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    let line = journal::ascii_json(&serde_json::to_string(&*text).unwrap());
    assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
    assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
}
