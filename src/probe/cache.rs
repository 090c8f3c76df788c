//! What was found, kept until the next boot or until something changes that it rests upon. The file begins with all
//! that must be as it was; what does not begin so is as good as absent.

#![forbid(unsafe_code)]

use super::{Ability, Backend, Snapshot, Tool, Version, backends, choice, kernel};
use crate::config::{BackendChoice, CarrierChoice, CarrierKind, Config, JournalConfig};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::rules;
use crate::sys::mark::Mark;
use crate::sys::store::Store;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Changes with the form of the files.
const FORM: u32 = 2;

/// Between what must be as it was, and what was found.
const RULER: &str = "--\n";

/// Ends a snapshot that is whole.
const END: &str = "end";

/// The circumstances that a result belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Sets apart what may be in use side by side: configurations, user namespaces, and callers that may try things
    /// for real and such that may not.
    name: u64,
    text: String,
}

/// A place in the cache.
#[derive(Debug)]
pub struct Seat {
    store: Store,
    key: Key,
}

impl Seat {
    /// That of a configuration file. `None` where nothing can be kept.
    pub fn take(config: &Path) -> Option<Self> {
        let store = Store::open().or_else(|_| Store::create()).ok()?;
        let key = Key::now(config, store.is_volatile())?;
        Some(Self { store, key })
    }

    /// Where it is.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl Key {
    /// As things are now. `None` where that cannot be told. What is `volatile` is gone at the next boot by itself.
    fn now(config: &Path, volatile: bool) -> Option<Self> {
        let uname = nix::sys::utsname::uname().ok()?;
        let user = fs::metadata("/proc/self/ns/user").ok()?.ino();
        let mut text = String::with_capacity(256);
        writeln!(text, "xtshim {} {FORM} {:x}", env!("CARGO_PKG_VERSION"), rules::DIGEST).ok()?;
        if !volatile {
            writeln!(text, "boot {}", boot_id().ok()?).ok()?;
        }
        writeln!(text, "kernel {} {}", uname.release().to_str()?, uname.version().to_str()?).ok()?;
        writeln!(text, "user-namespace {user}").ok()?;
        writeln!(text, "namespaces {}", super::may_make_namespaces()).ok()?;
        writeln!(text, "configuration {}", line(config)?).ok()?;
        let seat = rules::digest(&[u8::from(super::may_make_namespaces())], user);
        Some(Self { name: rules::digest(config.as_os_str().as_bytes(), seat), text })
    }

    fn file(&self, what: &str) -> String {
        format!("{what}-{:016x}", self.name)
    }
}

/// Told in one read(2): std's readers for whole files take five system calls.
fn boot_id() -> std::io::Result<String> {
    let mut buffer = [0; 64];
    let size = fs::File::open("/proc/sys/kernel/random/boot_id")?.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..size]).trim_end().to_owned())
}

/// The files that a result rests upon, as they were before it was found: each on a line, with its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foundations(pub(super) String);

impl Foundations {
    /// As they are now. `None` where one has a name that no line can hold.
    pub fn now(config: &Config) -> Option<Self> {
        let release = nix::sys::utsname::uname().ok()?.release().to_str()?.to_owned();
        let mut text = String::with_capacity(2048);
        // The file may have changed since it was read.
        match config.mark {
            Some(mark) => writeln!(text, "{mark} {}", line(&config.path)?).ok()?,
            None => text.push_str(&identity(&config.path)?),
        }
        text.push_str(&identity(&kernel::modules_dep(Path::new("/"), &release))?);
        for path in choice::foundations(config) {
            text.push_str(&identity(&path)?);
        }
        // That a program has come is seen by its directory, that it has changed by itself.
        let mut seen = BTreeSet::new();
        for path in backends::directories(config) {
            if fs::metadata(&path).is_ok_and(|meta| seen.insert((meta.dev(), meta.ino()))) || !path.exists() {
                text.push_str(&identity(&path)?);
            }
        }
        for path in backends::candidates(config) {
            if backends::identity(&path).is_some_and(|file| seen.insert(file)) {
                text.push_str(&identity(&path)?);
            }
        }
        Some(Self(text))
    }
}

/// A line that changes with the file that a path leads to.
fn identity(path: &Path) -> Option<String> {
    let name = line(path)?;
    Some(match fs::metadata(path) {
        Ok(meta) => format!("{} {name}\n", Mark::of(&meta)),
        Err(_) => format!("absent {name}\n"),
    })
}

fn line(path: &Path) -> Option<&str> {
    path.to_str().filter(|name| !name.contains('\n'))
}

/// What was kept under this name, if it still holds.
fn load(Seat { store, key }: &Seat, what: &str) -> Option<String> {
    let text = store.read(&key.file(what))?;
    let (foundations, body) = text.strip_prefix(&key.text)?.split_once(RULER)?;
    foundations.split_inclusive('\n').all(holds).then(|| body.to_owned())
}

/// Whether a file is as this line says.
fn holds(line: &str) -> bool {
    let path = line.trim_end().split_once(' ').map(|(_, path)| path);
    path.and_then(|path| identity(Path::new(path))).is_some_and(|now| now == line)
}

/// Keeps a text. That it cannot be kept makes things slower, no more.
fn save(Seat { store, key }: &Seat, Foundations(files): &Foundations, what: &str, body: &str) {
    if let Err(error) = store.write(&key.file(what), &format!("{}{files}{RULER}{body}", key.text)) {
        log::debug!("the {what} is not kept: {error}");
    }
}

/// The snapshot that was kept, if it still holds, and the configuration that it belongs to, unless that has to be read
/// for what is wrong with it.
pub fn load_snapshot(seat: &Seat) -> Option<(Snapshot, Option<Config>)> {
    parse(&load(seat, "snapshot")?)
}

/// Keeps a snapshot, unless something in it is unknown: that may be known the next time.
pub fn save_snapshot(seat: &Seat, files: &Foundations, snapshot: &Snapshot, config: &Config) {
    if let Some(body) = render(snapshot, config) {
        save(seat, files, "snapshot", &body);
    }
}

/// The report that was kept, if it still holds.
pub fn load_report<T: serde::de::DeserializeOwned>(seat: &Seat) -> Option<T> {
    serde_json::from_str(&load(seat, "report")?).ok()
}

/// Keeps a report.
pub fn save_report<T: serde::Serialize>(seat: &Seat, files: &Foundations, report: &T) {
    if let Ok(body) = serde_json::to_string(report) {
        save(seat, files, "report", &body);
    }
}

/// One fact a line, fields separated by tabs.
fn render(snapshot: &Snapshot, config: &Config) -> Option<String> {
    let mut text = String::new();
    if let Some(backend) = &snapshot.backend {
        put_backend(&mut text, backend)?;
    }
    writeln!(text, "nf_tables\t{}", snapshot.nf_tables).ok()?;
    for entry in &snapshot.abilities {
        let state = match &entry.ability {
            Ability::Able => "able".to_owned(),
            Ability::Missing { why } => format!("missing\t{}", why.replace(['\t', '\n'], " ")),
            Ability::Unknown { .. } => return None,
        };
        let (family, carrier) = (entry.family.nft(), entry.carrier.as_str());
        writeln!(text, "ability\t{family}\t{}\t{carrier}\t{state}", entry.table).ok()?;
    }
    for family in Family::ALL {
        if let Some(by) = snapshot.hosted(family) {
            writeln!(text, "hosted\t{}\t{}", family.nft(), by.as_str()).ok()?;
        }
    }
    // A file that is there and was not read is to be complained of each time.
    if config.mark.is_some() || !config.path.exists() {
        put_config(&mut text, config)?;
    }
    writeln!(text, "{END}").ok()?;
    Some(text)
}

fn put_config(text: &mut String, config: &Config) -> Option<()> {
    let path = |path: &Path| path.to_str().filter(|path| !path.contains(['\t', '\n'])).map(str::to_owned);
    writeln!(text, "config\t{}\t{}", path(&config.path)?, config.backend.as_str()).ok()?;
    if let Some(directory) = &config.backend_directory {
        writeln!(text, "directory\t{}", path(directory)?).ok()?;
    }
    if config.optimize {
        writeln!(text, "optimize").ok()?;
    }
    for (table, choice) in &config.carriers {
        writeln!(text, "carrier\t{table}\t{}", choice.as_str()).ok()?;
    }
    let file = config.journal.file.as_deref().map_or(Some(String::new()), path)?;
    writeln!(text, "journal\t{file}\t{}", config.journal.system).ok()
}

fn put_backend(text: &mut String, backend: &Backend) -> Option<()> {
    let (major, minor, patch) = backend.version;
    writeln!(text, "backend\t{}\t{major}.{minor}.{patch}", backend.variant.as_str()).ok()?;
    for (family, tool) in Family::ALL.into_iter().flat_map(|family| Tool::ALL.map(|tool| (family, tool))) {
        let Some(path) = backend.program(family, tool) else { continue };
        let path = path.to_str().filter(|path| !path.contains(['\t', '\n']))?;
        writeln!(text, "program\t{}{}\t{path}", family.program(), tool.suffix()).ok()?;
    }
    Some(())
}

pub(super) fn parse(text: &str) -> Option<(Snapshot, Option<Config>)> {
    let mut snapshot = Snapshot::default();
    let mut config = None;
    let mut lines = text.lines();
    for line in lines.by_ref().take_while(|line| *line != END) {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["backend", variant, version] => {
                snapshot.backend = Some(Backend::new(parse_variant(variant)?, parse_version(version)?));
            }
            ["program", name, path] => parse_program(snapshot.backend.as_mut()?, name, path)?,
            ["nf_tables", there] => snapshot.nf_tables = there.parse().ok()?,
            ["ability", family, table, carrier, state @ ..] => {
                let ability = match state {
                    ["able"] => Ability::Able,
                    ["missing", why] => Ability::Missing { why: (*why).to_owned() },
                    _ => return None,
                };
                snapshot.set_ability(parse_family(family)?, table, CarrierKind::from_name(carrier)?, ability);
            }
            ["hosted", family, by] => snapshot.set_hosted(parse_family(family)?, CarrierKind::from_name(by)?),
            ["config", path, backend] => {
                let (path, backend) = (PathBuf::from(path), BackendChoice::from_name(backend)?);
                config = Some(Config { path, backend, ..Config::default() });
            }
            fields => parse_config(config.as_mut()?, fields)?,
        }
    }
    (text.ends_with(&format!("{END}\n")) && lines.next().is_none()).then_some((snapshot, config))
}

fn parse_config(config: &mut Config, fields: &[&str]) -> Option<()> {
    match *fields {
        ["directory", path] => config.backend_directory = Some(PathBuf::from(path)),
        ["optimize"] => config.optimize = true,
        ["carrier", table, choice] => {
            config.carriers.insert(table.to_owned(), CarrierChoice::from_name(choice)?);
        }
        ["journal", file, system] => {
            let file = (!file.is_empty()).then(|| PathBuf::from(file));
            config.journal = JournalConfig { file, system: system.parse().ok()? };
        }
        _ => return None,
    }
    Some(())
}

fn parse_program(backend: &mut Backend, name: &str, path: &str) -> Option<()> {
    let mut all = Family::ALL.into_iter().flat_map(|family| Tool::ALL.map(|tool| (family, tool)));
    let (family, tool) =
        all.find(|(family, tool)| name.strip_prefix(family.program()).is_some_and(|suffix| suffix == tool.suffix()))?;
    backend.set_program(family, tool, PathBuf::from(path));
    Some(())
}

fn parse_variant(text: &str) -> Option<Variant> {
    [Variant::Legacy, Variant::Nft].into_iter().find(|variant| variant.as_str() == text)
}

fn parse_family(text: &str) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family.nft() == text)
}

fn parse_version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn example() -> Snapshot {
        let mut backend = Backend::new(Variant::Legacy, (1, 8, 9));
        backend.set_program(Family::V4, Tool::Command, PathBuf::from("/usr/sbin/iptables-legacy"));
        backend.set_program(Family::V6, Tool::Save, PathBuf::from("/usr/sbin/ip6tables-legacy-save"));
        let mut snapshot = Snapshot { backend: Some(backend), nf_tables: true, ..Snapshot::default() };
        let missing = Ability::Missing { why: "not built".to_owned() };
        snapshot.set_ability(Family::V4, "raw", CarrierKind::Backend, missing);
        snapshot.set_ability(Family::V6, "raw", CarrierKind::Nft, Ability::Able);
        snapshot.set_hosted(Family::V6, CarrierKind::Mangle);
        snapshot
    }

    #[test]
    fn what_is_written_is_read() {
        let config = Config { path: PathBuf::from("/nonexistent"), ..Config::default() };
        let text = render(&example(), &config).expect("all is known");
        assert_eq!(parse(&text), Some((example(), Some(config.clone()))));
        let nothing = Snapshot::default();
        assert_eq!(parse(&render(&nothing, &config).expect("all is known")), Some((nothing, Some(config))));
    }

    #[test]
    fn what_is_cut_off_or_strange_is_not_believed() {
        let text = render(&example(), &Config::default()).expect("all is known");
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), None, "{cut}");
        }
        assert_eq!(parse(&text.replace("able\n", "perhaps\n")), None);
        assert_eq!(parse(&format!("{text}more\n")), None);
    }

    #[test]
    fn the_unknown_is_not_kept() {
        let mut snapshot = example();
        snapshot.set_ability(Family::V4, "nat", CarrierKind::Backend, Ability::Unknown { why: "a lock".to_owned() });
        assert_eq!(render(&snapshot, &Config::default()), None);
    }

    #[test]
    fn what_a_result_rests_upon_is_watched() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("xtshim.toml");
        let backend_directory = Some(directory.path().join("sbin"));
        let config = Config { path, backend_directory, ..Config::default() };
        fs::create_dir(directory.path().join("sbin")).expect("made");
        let now = || Foundations::now(&config).expect("all names are plain").0;
        let still_holds = |text: &str| text.split_inclusive('\n').all(holds);

        let before = now();
        assert!(still_holds(&before), "{before}");
        let program = directory.path().join("sbin/iptables-legacy");
        fs::copy("/bin/true", &program).expect("copied");
        assert!(!still_holds(&before));

        let with_program = now();
        assert!(still_holds(&with_program) && with_program.ends_with("/sbin/iptables-legacy\n"), "{with_program}");
        fs::OpenOptions::new().append(true).open(&program).and_then(|mut file| file.write_all(b"x")).expect("written");
        assert!(!still_holds(&with_program));

        let with_change = now();
        fs::write(&config.path, "").expect("written");
        assert!(!still_holds(&with_change));
    }

    #[test]
    fn the_configuration_is_kept_with_what_was_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("xtshim.toml");
        let text = "backend = \"nft\"\noptimize = true\n[backends]\ndirectory = \"/opt/ipt\"\n[carriers]\nraw = \"mangle\"\nnat = \"auto\"\n\
            [journal]\nfile = \"none\"\nsystem = false\n";
        fs::write(&path, text).expect("written");
        let (read, error) = crate::config::load_from(&path);
        assert_eq!((read.mark.is_some(), error), (true, None));
        let kept = parse(&render(&example(), &read).expect("all is known")).and_then(|(_, config)| config);
        assert_eq!(kept, Some(Config { mark: None, ..read }));

        fs::write(&path, "backend = 1").expect("written");
        let (bad, error) = crate::config::load_from(&path);
        assert!(error.is_some());
        let kept = parse(&render(&example(), &bad).expect("all is known"));
        assert_eq!(kept, Some((example(), None)), "what is wrong with it is said each time");
    }

    #[test]
    fn each_configuration_has_a_key_of_its_own() {
        let key = |path: &str| Key::now(Path::new(path), true).expect("a key");
        assert_eq!(key("/nonexistent"), key("/nonexistent"));
        assert_ne!(key("/nonexistent").name, key("/another").name);
        assert_ne!(key("/nonexistent").text, key("/another").text);
    }
}
