//! `/etc/xtshim/xtshim.toml`: what the administrator has decided. Every key is optional, and so is the file.
//!
//! ```toml
//! backend = "auto"              # or "legacy", "nft": which real iptables pass-through goes to
//! optimize = false              # look up the destination once for many neighbouring rules, where nft carries them
//!
//! [carriers]                    # what holds a table's rules, in both families
//! raw = "auto"                  # or "backend", "nft", "mangle", "filter"
//!
//! [backends]
//! directory = "/usr/sbin"       # look for the real iptables here and nowhere else
//!
//! [journal]
//! file = "/var/log/xtshim/rewrites.jsonl"   # or "none"
//! system = true                 # journald, else syslog
//! ```
//!
//! The file decides what root runs, so one that others than root and the caller may write to is not read.

#![forbid(unsafe_code)]

use crate::sys::mark::Mark;
use crate::sys::privilege;
use nix::unistd::{getegid, geteuid, getgid, getuid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the configuration is, unless [`CONFIG_VARIABLE`] names another file.
pub const CONFIG_PATH: &str = "/etc/xtshim/xtshim.toml";

/// Environment variable that names another configuration file. Ignored where this program has rights that its caller has not.
pub const CONFIG_VARIABLE: &str = "XTSHIM_CONFIG";

/// A configuration larger than this, in bytes, is not one.
const SIZE_LIMIT: u64 = 1 << 20;

/// What the administrator has decided, with defaults for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it comes from, there or not.
    pub path: PathBuf,
    /// That file as it was when it was read; `None`: it was not.
    pub mark: Option<Mark>,
    /// Which real iptables pass-through goes to.
    pub backend: BackendChoice,
    /// The only directory in which backends are looked for; `None`: the usual ones.
    pub backend_directory: Option<PathBuf>,
    /// Neighbouring rules of our own nf_tables tables that mean one destination each are looked up by it.
    pub optimize: bool,
    /// By table name. Tables that are not in it are [`CarrierChoice::Auto`].
    pub carriers: BTreeMap<String, CarrierChoice>,
    /// Where rewrites are told of.
    pub journal: JournalConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::from(CONFIG_PATH),
            mark: None,
            backend: BackendChoice::Auto,
            backend_directory: None,
            optimize: false,
            carriers: BTreeMap::new(),
            journal: JournalConfig::default(),
        }
    }
}

impl Config {
    /// The carrier that the administrator wants for `table`, in both families.
    pub fn carrier(&self, table: &str) -> CarrierChoice {
        self.carriers.get(table).copied().unwrap_or_default()
    }
}

/// Which real iptables pass-through goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// The probe's choice.
    #[default]
    Auto,
    /// iptables-legacy.
    Legacy,
    /// iptables-nft.
    Nft,
}

impl BackendChoice {
    /// As it stands in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            BackendChoice::Auto => "auto",
            BackendChoice::Legacy => "legacy",
            BackendChoice::Nft => "nft",
        }
    }

    /// Reads [`BackendChoice::as_str`] back.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::Legacy, Self::Nft].into_iter().find(|choice| choice.as_str() == name)
    }
}

/// What holds a table's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CarrierKind {
    /// The real iptables.
    Backend,
    /// A table of our own in nf_tables.
    Nft,
    /// A chain of our own in the backend's mangle table (for raw alone).
    Mangle,
    /// A chain of our own in the backend's filter table (for raw alone).
    Filter,
}

impl CarrierKind {
    /// All of them, the least intrusive first.
    pub const ALL: [CarrierKind; 4] =
        [CarrierKind::Backend, CarrierKind::Nft, CarrierKind::Mangle, CarrierKind::Filter];

    /// As it stands in the configuration and in listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            CarrierKind::Backend => "backend",
            CarrierKind::Nft => "nft",
            CarrierKind::Mangle => "mangle",
            CarrierKind::Filter => "filter",
        }
    }

    /// Reads [`CarrierKind::as_str`] back.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The administrator's word on one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CarrierChoice {
    /// The first carrier that this kernel is able to.
    #[default]
    Auto,
    /// This one, even where the backend could do it.
    Fixed(CarrierKind),
}

impl CarrierChoice {
    /// As it stands in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            CarrierChoice::Auto => "auto",
            CarrierChoice::Fixed(kind) => kind.as_str(),
        }
    }

    /// Reads [`CarrierChoice::as_str`] back.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "auto" { Some(Self::Auto) } else { CarrierKind::from_name(name).map(Self::Fixed) }
    }
}

impl<'de> Deserialize<'de> for CarrierChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        CarrierChoice::from_name(&word).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "unknown carrier `{word}`, expected one of `auto`, `backend`, `nft`, `mangle`, `filter`"
            ))
        })
    }
}

/// Where rewrites are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// JSON lines go here; `None`: nowhere.
    pub file: Option<PathBuf>,
    /// To journald's socket, else to /dev/log.
    pub system: bool,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { file: Some(PathBuf::from("/var/log/xtshim/rewrites.jsonl")), system: true }
    }
}

/// What is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: Option<usize>,
    /// Dotted, with its section: `carriers.raw`.
    pub key: Option<String>,
    /// One clause for a person.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The configuration of this machine. Where the file is bad, the defaults, and what is wrong with it; where there is
/// none, the defaults. Costs one failed open(2) then.
pub fn load() -> (Config, Option<ConfigError>) {
    load_from(&path())
}

/// The same from another file.
pub fn load_from(path: &Path) -> (Config, Option<ConfigError>) {
    let defaults = Config { path: path.to_owned(), ..Config::default() };
    match read(path) {
        Ok(None) => (defaults, None),
        Ok(Some((mark, text))) => match parse(path, &text) {
            Ok(config) => (Config { mark: Some(mark), ..config }, None),
            Err(error) => (defaults, Some(error)),
        },
        Err(error) => {
            let error = ConfigError { file: path.to_owned(), line: None, key: None, message: error.to_string() };
            (defaults, Some(error))
        }
    }
}

/// Where the configuration is for this caller.
#[inline(always)]
pub fn path() -> PathBuf {
    let named = std::env::var_os(CONFIG_VARIABLE).filter(|name| !name.is_empty());
    match named {
        Some(name) if getuid() == geteuid() && getgid() == getegid() && !privilege::is_elevated() => {
            PathBuf::from(name)
        }
        _ => PathBuf::from(CONFIG_PATH),
    }
}

/// Without waiting where somebody has put a FIFO.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)
}

fn read(path: &Path) -> io::Result<Option<(Mark, String)>> {
    let mut file = match privilege::if_denied(|| open(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    let trusted = meta.uid() == 0 || meta.uid() == geteuid().as_raw();
    if !meta.is_file() || meta.len() > SIZE_LIMIT {
        return Err(io::Error::other("not a configuration file"));
    }
    if !trusted || meta.mode() & 0o022 != 0 {
        return Err(io::Error::other("not read, because others than its owner root may write to it"));
    }
    let mut text = String::new();
    file.by_ref().take(SIZE_LIMIT).read_to_string(&mut text)?;
    Ok(Some((Mark::of(&meta), text)))
}

/// The file's grammar.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    backend: BackendChoice,
    #[serde(default)]
    optimize: bool,
    #[serde(default)]
    backends: Backends,
    #[serde(default)]
    carriers: Carriers,
    #[serde(default)]
    journal: Journal,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backends {
    directory: Option<AbsolutePath>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Carriers {
    raw: Option<CarrierChoice>,
    mangle: Option<OwnCarrier>,
    nat: Option<OwnCarrier>,
    filter: Option<OwnCarrier>,
    security: Option<OwnCarrier>,
}

/// A carrier for any table but raw, which alone can be held by another table of the backend.
#[derive(Clone, Copy)]
struct OwnCarrier(CarrierChoice);

impl<'de> Deserialize<'de> for OwnCarrier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match CarrierChoice::deserialize(deserializer)? {
            CarrierChoice::Fixed(kind @ (CarrierKind::Mangle | CarrierKind::Filter)) => {
                let name = kind.as_str();
                Err(serde::de::Error::custom(format!("`{name}` can carry the raw table only")))
            }
            choice => Ok(Self(choice)),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    file: Option<JournalFile>,
    system: Option<bool>,
}

struct AbsolutePath(PathBuf);

impl<'de> Deserialize<'de> for AbsolutePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        if path.is_absolute() { Ok(Self(path)) } else { Err(serde::de::Error::custom("expected an absolute path")) }
    }
}

struct JournalFile(Option<PathBuf>);

impl<'de> Deserialize<'de> for JournalFile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        match path {
            none if none == Path::new("none") => Ok(Self(None)),
            path if path.is_absolute() => Ok(Self(Some(path))),
            _ => Err(serde::de::Error::custom("expected an absolute path or `none`")),
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let document: Document = toml::from_str(text).map_err(|error| locate(path, text, &error))?;
    let journal = JournalConfig::default();
    Ok(Config {
        path: path.to_owned(),
        mark: None,
        backend: document.backend,
        backend_directory: document.backends.directory.map(|AbsolutePath(path)| path),
        optimize: document.optimize,
        carriers: document.carriers.by_table(),
        journal: JournalConfig {
            file: document.journal.file.map_or(journal.file, |JournalFile(file)| file),
            system: document.journal.system.unwrap_or(journal.system),
        },
    })
}

impl Carriers {
    fn by_table(self) -> BTreeMap<String, CarrierChoice> {
        let own = |choice: Option<OwnCarrier>| choice.map(|OwnCarrier(choice)| choice);
        [
            ("raw", self.raw),
            ("mangle", own(self.mangle)),
            ("nat", own(self.nat)),
            ("filter", own(self.filter)),
            ("security", own(self.security)),
        ]
        .into_iter()
        .filter_map(|(table, choice)| Some((table.to_owned(), choice?)))
        .collect()
    }
}

/// The parser knows where, but not under which key: that is read from the text, up to the line at fault.
fn locate(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map(|span| span.start.min(text.len()));
    let before = start.and_then(|start| text.get(..start));
    let line = before.map(|before| before.matches('\n').count() + 1);
    ConfigError {
        file: path.to_owned(),
        line,
        key: line.and_then(|line| key_at(text, line)),
        message: error.message().trim_end().replace('\n', ", "),
    }
}

fn key_at(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line).map(str::trim).collect();
    let last = lines.last()?;
    let section = lines.iter().rev().find_map(|line| line.strip_prefix('[')?.split(']').next());
    if last.starts_with('[') {
        return section.map(str::to_owned);
    }
    let key = last.split_once('=')?.0.trim();
    Some(section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn fails(text: &str) -> String {
        parse(Path::new("x.toml"), text).expect_err("taken").to_string()
    }

    #[test]
    fn without_a_file_there_are_defaults_and_no_complaint() {
        let (config, error) = load_from(Path::new("/nonexistent/xtshim.toml"));
        assert_eq!(error, None);
        assert_eq!(config.backend, BackendChoice::Auto);
        assert_eq!(config.carrier("raw"), CarrierChoice::Auto);
        assert!(config.journal.system);
    }

    #[test]
    fn every_key_is_read() {
        let text = "backend = \"legacy\"\noptimize = true\n[backends]\ndirectory = \"/opt/ipt\"\n[carriers]\nraw = \"mangle\"\n\
                    nat = \"nft\"\nfilter = \"auto\"\n[journal]\nfile = \"none\"\nsystem = false\n";
        let config = parse(Path::new("x.toml"), text).expect("a good file");
        assert_eq!(config.backend, BackendChoice::Legacy);
        assert!(config.optimize);
        assert_eq!(config.backend_directory.as_deref(), Some(Path::new("/opt/ipt")));
        assert_eq!(config.carrier("raw"), CarrierChoice::Fixed(CarrierKind::Mangle));
        assert_eq!(config.carrier("nat"), CarrierChoice::Fixed(CarrierKind::Nft));
        assert_eq!(config.carrier("filter"), CarrierChoice::Auto);
        assert_eq!(config.journal, JournalConfig { file: None, system: false });
    }

    #[test]
    fn errors_name_line_and_key() {
        assert_eq!(
            fails("backend = \"legacy\"\n\n[carriers]\nrwa = \"nft\"\n"),
            "x.toml:4: carriers.rwa: unknown field `rwa`, expected one of `raw`, `mangle`, `nat`, `filter`, `security`"
        );
        assert_eq!(
            fails("backend = \"nftables\"\n"),
            "x.toml:1: backend: unknown variant `nftables`, expected one of `auto`, `legacy`, `nft`"
        );
        assert_eq!(
            fails("[carriers]\nraw = \"tc\"\n"),
            "x.toml:2: carriers.raw: unknown carrier `tc`, expected one of `auto`, `backend`, `nft`, `mangle`, `filter`"
        );
        assert_eq!(
            fails("[carriers]\nnat = \"mangle\"\n"),
            "x.toml:2: carriers.nat: `mangle` can carry the raw table only"
        );
        assert_eq!(fails("[backends]\ndirectory = \"x\"\n"), "x.toml:2: backends.directory: expected an absolute path");
        assert!(fails("[journal]\nsystem = \"yes\"\n").starts_with("x.toml:2: journal.system: invalid type: string"));
        assert!(fails("backend = \n").starts_with("x.toml:1: backend: "));
        assert!(fails("[logging]\n").starts_with("x.toml:1: logging: unknown field `logging`"));
    }

    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "backend = \"nft\"\n").expect("written");
        assert_eq!(load_from(file.path()).0.backend, BackendChoice::Nft);
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o666)).expect("changed");
        let (config, error) = load_from(file.path());
        assert_eq!(config.backend, BackendChoice::Auto);
        assert!(error.expect("a complaint").to_string().contains("may write to it"));
    }
}
