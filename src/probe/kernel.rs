//! What a kernel says about itself: how it was built, which modules are on disk and which are loaded. It proves
//! nothing, but says why something is missing.

#![forbid(unsafe_code)]

use crate::family::Family;
use crate::rules::Capability;
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A kernel configuration larger than this, in bytes, is not one.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Why a capability that was proven missing is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An option that it needs is not set.
    NotBuilt {
        /// Its present name.
        option: String,
    },
    /// The kernel was built with a module whose file is not there.
    Absent {
        /// The module.
        module: String,
        /// Where modules of this kernel are.
        directory: PathBuf,
    },
    /// The file of a module that ought to have been loaded when it was asked for is there.
    NotLoaded {
        /// The module.
        module: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt { option } => write!(f, "not built into this kernel ({option} is not set)"),
            Self::Absent { module, directory } => {
                write!(f, "built as module {module}, which is not below {}", directory.display())
            }
            Self::NotLoaded { module } => write!(f, "module {module} is on disk, but was not loaded"),
        }
    }
}

/// Facts about the running kernel.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// `uname -r`
    pub release: String,
    /// `uname -v`
    pub version: String,
    /// `uname -m`
    pub machine: String,
    /// Where its configuration was read; `None`: nowhere to be had.
    pub config_file: Option<PathBuf>,
    options: BTreeMap<String, String>,
    directory: PathBuf,
    /// Module name to its file, relative to `directory`; `None`: no modules.dep.
    on_disk: Option<BTreeMap<String, PathBuf>>,
    built_in: BTreeSet<String>,
    loaded: BTreeSet<String>,
}

/// State of a kernel option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionState {
    /// `=y`
    BuiltIn,
    /// `=m`
    Module,
    /// `is not set`, or not named.
    NotSet,
}

/// State of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleState {
    /// In /proc/modules.
    Loaded,
    /// In modules.builtin.
    BuiltIn,
    /// Its file is there.
    OnDisk,
    /// Its file is not there.
    NotOnDisk,
    /// There is no list of modules to look in.
    Unknown,
}

impl Kernel {
    /// Reads the running kernel's facts. What cannot be read is left out.
    pub fn read() -> Self {
        let Ok(name) = nix::sys::utsname::uname() else { return Self::default() };
        let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        let (release, version) = (text(name.release()), text(name.version()));
        Self { version, machine: text(name.machine()), ..Self::read_below(Path::new("/"), &release) }
    }

    /// Whether the module of a legacy table puts that table into every network namespace, rather than into those that
    /// ask for it: before Linux 5.15.
    pub fn spreads_legacy_tables(&self) -> bool {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (5, 15),
            _ => false,
        }
    }

    /// The same of a copied file tree, where that kernel ran.
    pub fn read_below(root: &Path, release: &str) -> Self {
        let directory = root.join("lib/modules").join(release);
        let (config_file, options) = match read_config(root, &directory, release) {
            Some((file, text)) => (Some(file), parse_config(&text)),
            None => (None, BTreeMap::new()),
        };
        let lines = |path: PathBuf| fs::read_to_string(path).ok();
        Self {
            release: release.to_owned(),
            config_file,
            options,
            on_disk: lines(modules_dep(root, release)).map(|text| parse_modules_dep(&text)),
            built_in: lines(directory.join("modules.builtin")).map(|text| parse_builtin(&text)).unwrap_or_default(),
            loaded: lines(root.join("proc/modules")).map(|text| parse_loaded(&text)).unwrap_or_default(),
            directory,
            ..Self::default()
        }
    }

    /// State of `CONFIG_…`; `None`: the configuration is not to be had.
    pub fn option(&self, name: &str) -> Option<OptionState> {
        self.config_file.as_ref()?;
        Some(match self.options.get(name).map(String::as_str) {
            Some("y") => OptionState::BuiltIn,
            Some("m") => OptionState::Module,
            _ => OptionState::NotSet,
        })
    }

    /// State of a module, by its name with underscores.
    pub fn module(&self, name: &str) -> ModuleState {
        let file = self.on_disk.as_ref().and_then(|modules| modules.get(name));
        if self.loaded.contains(name) {
            ModuleState::Loaded
        } else if self.built_in.contains(name) {
            ModuleState::BuiltIn
        } else if file.is_some_and(|file| self.directory.join(file).exists()) {
            ModuleState::OnDisk
        } else if self.on_disk.is_some() {
            ModuleState::NotOnDisk
        } else {
            ModuleState::Unknown
        }
    }

    /// Why a capability that was proven missing is missing; `None`: these facts do not tell.
    pub fn explain(&self, capability: &Capability, family: Family) -> Option<Reason> {
        if let Some(option) = capability.options(family).iter().find_map(|names| self.not_set(names)) {
            return Some(Reason::NotBuilt { option: option.to_owned() });
        }
        // What is loaded was noted before anything was tried: a file that is not there says more.
        let modules = capability.modules(family);
        let reasons = modules.iter().filter_map(|names| self.not_loaded(names));
        reasons.min_by_key(|reason| matches!(reason, Reason::NotLoaded { .. }))
    }

    /// Whether it says that it has what stands behind a capability: built in, loaded or on disk as far as options and
    /// modules tell. `None`: these facts do not tell.
    pub fn promises(&self, capability: &Capability, family: Family) -> Option<bool> {
        let (options, modules) = (capability.options(family), capability.modules(family));
        let built_in = |name: &&str| self.option(name) == Some(OptionState::BuiltIn);
        let there = |name: &&str| !matches!(self.module(name), ModuleState::NotOnDisk | ModuleState::Unknown);
        if !options.is_empty() && options.iter().all(|names| names.iter().any(built_in)) {
            return Some(true);
        }
        if matches!(self.explain(capability, family), Some(Reason::NotBuilt { .. } | Reason::Absent { .. })) {
            return Some(false);
        }
        (!modules.is_empty() && modules.iter().all(|names| names.iter().any(there))).then_some(true)
    }

    /// The present name of an option none of whose names is set.
    fn not_set<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        let unset = |name: &&str| self.option(name) == Some(OptionState::NotSet);
        names.iter().all(unset).then(|| names.first().copied()).flatten()
    }

    /// What is wrong with a module none of whose names is in the kernel.
    fn not_loaded(&self, names: &[&str]) -> Option<Reason> {
        let states: Vec<(ModuleState, &str)> = names.iter().map(|name| (self.module(name), *name)).collect();
        let found = |wanted: ModuleState| states.iter().find(|(state, _)| *state == wanted).map(|(_, name)| name);
        if found(ModuleState::Loaded).or(found(ModuleState::BuiltIn)).is_some() {
            return None;
        }
        if let Some(name) = found(ModuleState::OnDisk) {
            return Some(Reason::NotLoaded { module: (*name).to_owned() });
        }
        let absent = found(ModuleState::NotOnDisk)?;
        Some(Reason::Absent { module: (*absent).to_owned(), directory: self.directory.clone() })
    }
}

/// The file whose change means that modules have come or gone.
pub fn modules_dep(root: &Path, release: &str) -> PathBuf {
    root.join("lib/modules").join(release).join("modules.dep")
}

fn read_config(root: &Path, directory: &Path, release: &str) -> Option<(PathBuf, String)> {
    let own = root.join("proc/config.gz");
    if let Some(text) = fs::File::open(&own).ok().and_then(|file| read_limited(GzDecoder::new(file))) {
        return Some((own, text));
    }
    let files = [root.join("boot").join(format!("config-{release}")), directory.join("config")];
    files.into_iter().find_map(|path| {
        let text = fs::File::open(&path).ok().and_then(read_limited)?;
        Some((path, text))
    })
}

fn read_limited(reader: impl Read) -> Option<String> {
    let mut text = String::new();
    reader.take(CONFIG_LIMIT).read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn parse_config(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `kernel/net/ipv4/netfilter/iptable_raw.ko.xz: kernel/net/…` (modules.dep(5)).
fn parse_modules_dep(text: &str) -> BTreeMap<String, PathBuf> {
    let files = text.lines().filter_map(|line| line.split_once(':')).map(|(file, _)| file);
    files.filter_map(|file| Some((module_name(file)?, PathBuf::from(file)))).collect()
}

fn parse_builtin(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(module_name).collect()
}

fn parse_loaded(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn module_name(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?.split(".ko").next()?;
    Some(name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules;
    use std::io::Write;

    #[test]
    fn old_kernels_spread_legacy_tables() {
        let spreads =
            |release: &str| Kernel { release: release.to_owned(), ..Kernel::default() }.spreads_legacy_tables();
        assert!(spreads("5.10.0-32-cloud-amd64") && spreads("4.18.0-553.el8_10.x86_64") && spreads("5.14-rc1"));
        assert!(!spreads("5.15.0-91-generic") && !spreads("6.1.0-50-cloud-amd64") && !spreads("unknown"));
    }

    fn machine(config: &str, modules: &[&str]) -> (tempfile::TempDir, Kernel) {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("lib/modules/6.1.0");
        fs::create_dir_all(directory.join("kernel")).expect("made");
        fs::create_dir_all(root.path().join("proc")).expect("made");
        let file = fs::File::create(root.path().join("proc/config.gz")).expect("made");
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(config.as_bytes()).expect("written");
        packed.finish().expect("written");
        let dep: String = modules.iter().map(|name| format!("kernel/{name}.ko.xz: kernel/x_tables.ko.xz\n")).collect();
        fs::write(directory.join("modules.dep"), dep).expect("written");
        for name in modules {
            fs::write(directory.join(format!("kernel/{name}.ko.xz")), "").expect("written");
        }
        let kernel = Kernel::read_below(root.path(), "6.1.0");
        (root, kernel)
    }

    fn why(kernel: &Kernel, family: Family) -> Option<String> {
        Some(kernel.explain(rules::capability("table-raw").expect("known"), family)?.to_string())
    }

    #[test]
    fn an_option_that_is_not_set_is_the_reason() {
        let (_root, kernel) = machine("# CONFIG_IP_NF_RAW is not set\nCONFIG_IP6_NF_RAW=y\n", &[]);
        assert_eq!(
            why(&kernel, Family::V4).as_deref(),
            Some("not built into this kernel (CONFIG_IP_NF_RAW is not set)")
        );
        assert_eq!(kernel.option("CONFIG_IP6_NF_RAW"), Some(OptionState::BuiltIn));
    }

    #[test]
    fn a_module_without_a_file_is_the_reason() {
        let (root, kernel) = machine("CONFIG_IP_NF_RAW=m\nCONFIG_IP6_NF_RAW=m\n", &["ip6table_raw"]);
        let directory = root.path().join("lib/modules/6.1.0");
        let wanted = format!("built as module iptable_raw, which is not below {}", directory.display());
        assert_eq!(why(&kernel, Family::V4), Some(wanted));
        assert_eq!(why(&kernel, Family::V6).as_deref(), Some("module ip6table_raw is on disk, but was not loaded"));
        fs::remove_file(directory.join("kernel/ip6table_raw.ko.xz")).expect("removed");
        assert!(why(&kernel, Family::V6).expect("a reason").starts_with("built as module ip6table_raw, which"));
    }

    #[test]
    fn a_module_that_is_not_there_says_more_than_one_that_was_not_needed_yet() {
        let (_root, kernel) = machine("CONFIG_NF_TABLES=m\nCONFIG_NFT_COMPAT=m\n", &["nf_tables"]);
        let compat = rules::capability("nft-compat").expect("known");
        let why = kernel.explain(compat, Family::V4).expect("a reason");
        assert!(matches!(&why, Reason::Absent { module, .. } if module == "nft_compat"), "{why}");
        assert_eq!(kernel.promises(compat, Family::V4), Some(false));
    }

    #[test]
    fn a_kernel_promises_what_it_was_built_with() {
        let raw = rules::capability("table-raw").expect("known");
        let (root, kernel) = machine("# CONFIG_IP_NF_RAW is not set\nCONFIG_IP6_NF_RAW=y\n", &[]);
        assert_eq!(kernel.promises(raw, Family::V4), Some(false));
        assert_eq!(kernel.promises(raw, Family::V6), Some(true));
        drop(root);
        let (_root, kernel) = machine("CONFIG_IP_NF_RAW=m\nCONFIG_IP6_NF_RAW=m\n", &["iptable_raw"]);
        assert_eq!(kernel.promises(raw, Family::V4), Some(true));
        assert_eq!(kernel.promises(raw, Family::V6), Some(false));
        assert_eq!(Kernel::default().promises(raw, Family::V4), None);
    }

    #[test]
    fn without_facts_there_is_no_reason() {
        assert_eq!(why(&Kernel::default(), Family::V4), None);
        assert_eq!(Kernel::default().module("iptable_raw"), ModuleState::Unknown);
    }

    #[test]
    fn names_with_hyphens_are_the_same_module() {
        assert_eq!(module_name("kernel/drivers/nf-log.ko").as_deref(), Some("nf_log"));
    }
}
