//! What was found, kept until the next boot or until something changes that it rests upon. The file begins with all
//! that must be as it was; what does not begin so is as good as absent.

#![forbid(unsafe_code)]

use super::{Ability, Backend, Snapshot, Tool, Version, backends, choice, kernel};
use crate::config::{CarrierKind, Config};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::rules;
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

impl Key {
    /// As things are now. `None` where that cannot be told, and nothing can be kept.
    pub fn now(config: &Config) -> Option<Self> {
        let uname = nix::sys::utsname::uname().ok()?;
        let user = fs::metadata("/proc/self/ns/user").ok()?.ino();
        let mut text = String::with_capacity(256);
        writeln!(text, "xtshim {} {FORM} {:x}", env!("CARGO_PKG_VERSION"), rules::DIGEST).ok()?;
        writeln!(text, "boot {}", boot_id().ok()?).ok()?;
        writeln!(text, "kernel {} {}", uname.release().to_str()?, uname.version().to_str()?).ok()?;
        writeln!(text, "user-namespace {user}").ok()?;
        writeln!(text, "namespaces {}", super::may_make_namespaces()).ok()?;
        writeln!(text, "configuration {}", line(&config.path)?).ok()?;
        let seat = rules::digest(&[u8::from(super::may_make_namespaces())], user);
        Some(Self { name: rules::digest(config.path.as_os_str().as_bytes(), seat), text })
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
pub struct Foundations(String);

impl Foundations {
    /// As they are now. `None` where one has a name that no line can hold.
    pub fn now(config: &Config) -> Option<Self> {
        let release = nix::sys::utsname::uname().ok()?.release().to_str()?.to_owned();
        let facts = [config.path.clone(), kernel::modules_dep(Path::new("/"), &release)];
        // That a program has come is seen by its directory, that it has changed by itself.
        let watched = facts.into_iter().chain(choice::foundations()).chain(backends::directories(config));
        let mut text = String::with_capacity(2048);
        for path in watched {
            text.push_str(&identity(&path)?);
        }
        let mut seen = BTreeSet::new();
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
    let Ok(meta) = fs::metadata(path) else { return Some(format!("absent {name}\n")) };
    let (dev, ino, size) = (meta.dev(), meta.ino(), meta.size());
    let (modified, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    Some(format!("{dev}:{ino}:{size}:{}.{}:{}.{} {name}\n", modified.0, modified.1, changed.0, changed.1))
}

fn line(path: &Path) -> Option<&str> {
    path.to_str().filter(|name| !name.contains('\n'))
}

/// What was kept under this name, if it still holds.
fn load(key: &Key, what: &str) -> Option<String> {
    let text = Store::open().ok()?.read(&key.file(what))?;
    let (foundations, body) = text.strip_prefix(&key.text)?.split_once(RULER)?;
    foundations.split_inclusive('\n').all(holds).then(|| body.to_owned())
}

/// Whether a file is as this line says.
fn holds(line: &str) -> bool {
    let path = line.trim_end().split_once(' ').map(|(_, path)| path);
    path.and_then(|path| identity(Path::new(path))).is_some_and(|now| now == line)
}

/// Keeps a text. That it cannot be kept makes things slower, no more.
fn save(key: &Key, Foundations(files): &Foundations, what: &str, body: &str) {
    if let Ok(store) = Store::create()
        && let Err(error) = store.write(&key.file(what), &format!("{}{files}{RULER}{body}", key.text))
    {
        log::debug!("the {what} is not kept: {error}");
    }
}

/// The snapshot that was kept, if it still holds.
pub fn load_snapshot(key: &Key) -> Option<Snapshot> {
    parse(&load(key, "snapshot")?)
}

/// Keeps a snapshot, unless something in it is unknown: that may be known the next time.
pub fn save_snapshot(key: &Key, files: &Foundations, snapshot: &Snapshot) {
    if let Some(body) = render(snapshot) {
        save(key, files, "snapshot", &body);
    }
}

/// The report that was kept, if it still holds.
pub fn load_report<T: serde::de::DeserializeOwned>(key: &Key) -> Option<T> {
    serde_json::from_str(&load(key, "report")?).ok()
}

/// Keeps a report.
pub fn save_report<T: serde::Serialize>(key: &Key, files: &Foundations, report: &T) {
    if let Ok(body) = serde_json::to_string(report) {
        save(key, files, "report", &body);
    }
}

/// One fact a line, fields separated by tabs.
fn render(snapshot: &Snapshot) -> Option<String> {
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
    writeln!(text, "{END}").ok()?;
    Some(text)
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

fn parse(text: &str) -> Option<Snapshot> {
    let mut snapshot = Snapshot::default();
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
            _ => return None,
        }
    }
    (text.ends_with(&format!("{END}\n")) && lines.next().is_none()).then_some(snapshot)
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
        let mut snapshot = Snapshot { backend: Some(backend), nf_tables: true, abilities: Vec::new() };
        let missing = Ability::Missing { why: "not built".to_owned() };
        snapshot.set_ability(Family::V4, "raw", CarrierKind::Backend, missing);
        snapshot.set_ability(Family::V6, "raw", CarrierKind::Nft, Ability::Able);
        snapshot
    }

    #[test]
    fn what_is_written_is_read() {
        let text = render(&example()).expect("all is known");
        assert_eq!(parse(&text), Some(example()));
        let nothing = Snapshot::default();
        assert_eq!(parse(&render(&nothing).expect("all is known")), Some(nothing));
    }

    #[test]
    fn what_is_cut_off_or_strange_is_not_believed() {
        let text = render(&example()).expect("all is known");
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
        assert_eq!(render(&snapshot), None);
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
    fn each_configuration_has_a_key_of_its_own() {
        let key = |path: &str| Key::now(&Config { path: PathBuf::from(path), ..Config::default() }).expect("a key");
        assert_eq!(key("/nonexistent"), key("/nonexistent"));
        assert_ne!(key("/nonexistent").name, key("/another").name);
        assert_ne!(key("/nonexistent").text, key("/another").text);
    }
}
