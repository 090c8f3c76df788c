//! Finding the real iptables programs, by fixed absolute paths and never by `PATH`, which may lead back to us.

#![forbid(unsafe_code)]

use super::{Backend, Tool, Version};
use crate::config::Config;
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::sys::{exec, sandbox};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where distributions keep it, the usual one first.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];

/// What it may be called. Names that say which of the two it is come first; the plain name may be ourselves.
const NAMES: [Name; 6] = [
    Name { file: "iptables-legacy", suffix: Some("-legacy") },
    Name { file: "iptables-nft", suffix: Some("-nft") },
    Name { file: "xtables-legacy-multi", suffix: None },
    Name { file: "xtables-nft-multi", suffix: None },
    Name { file: "xtables-multi", suffix: None },
    Name { file: "iptables", suffix: Some("") },
];

/// Set for what is asked for its version: a second copy of this program among the candidates must not go looking for
/// backends in its turn, and so for ever.
pub const NESTED_VARIABLE: &str = "XTSHIM_NESTED";

/// How long `--version` may take.
const PATIENCE: Duration = Duration::from_secs(5);

struct Name {
    file: &'static str,
    /// What stands behind `iptables` in the names of the family of programs; `None`: one file is all of them, and
    /// goes by argv\[0\].
    suffix: Option<&'static str>,
}

/// Which file it is, whatever its name: device and inode.
pub type Identity = (u64, u64);

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// At most one of each variant.
    pub backends: Vec<Backend>,
    /// Whether something could not be asked for reasons that may pass.
    pub uncertain: bool,
}

/// What may be a backend.
pub fn candidates(config: &Config) -> impl Iterator<Item = PathBuf> + '_ {
    directories(config).into_iter().flat_map(|directory| NAMES.iter().map(move |name| directory.join(name.file)))
}

/// Where backends are looked for.
pub fn directories(config: &Config) -> Vec<PathBuf> {
    match &config.backend_directory {
        Some(directory) => vec![directory.clone()],
        None => DIRECTORIES.iter().map(PathBuf::from).collect(),
    }
}

/// Finds the backends of this machine.
pub fn find(config: &Config) -> Found {
    let ourselves = identity(Path::new("/proc/self/exe"));
    let mut seen: BTreeSet<Identity> = ourselves.into_iter().collect();
    let mut found = Found::default();
    for directory in directories(config) {
        for name in &NAMES {
            let path = directory.join(name.file);
            let Some(file) = identity(&path).filter(|file| !seen.contains(file)) else { continue };
            match ask_version(&path) {
                Ok(Some((variant, version))) => {
                    seen.insert(file);
                    if found.backends.iter().all(|backend| backend.variant != variant) {
                        found.backends.push(collect(&directory, name, variant, version, ourselves));
                    }
                }
                Ok(None) => {}
                Err(_) => found.uncertain = true,
            }
        }
    }
    found
}

/// Which file a path leads to; `None`: to no file that can be run.
pub fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok()?;
    (meta.is_file() && meta.mode() & 0o111 != 0).then(|| (meta.dev(), meta.ino()))
}

fn collect(directory: &Path, name: &Name, variant: Variant, version: Version, ourselves: Option<Identity>) -> Backend {
    let mut backend = Backend::new(variant, version);
    for family in Family::ALL {
        for tool in Tool::ALL {
            let path = match name.suffix {
                Some(suffix) => directory.join(format!("{}{suffix}{}", family.program(), tool.suffix())),
                None => directory.join(name.file),
            };
            let file = identity(&path);
            if file.is_some() && file != ourselves && is_variant(name, &path, variant) {
                backend.set_program(family, tool, path);
            }
        }
    }
    backend
}

/// Names of a pair belong together, except that `iptables` and `ip6tables` are separate choices on Debian.
fn is_variant(name: &Name, path: &Path, variant: Variant) -> bool {
    let plain = name.suffix == Some("") && path.file_name().is_some_and(|file| file == "ip6tables");
    !plain || matches!(ask_version(path), Ok(Some((other, _))) if other == variant)
}

/// Variant and version of an iptables. `Ok(None)`: it is none.
fn ask_version(path: &Path) -> std::io::Result<Option<(Variant, Version)>> {
    let argv0 = path.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with("ip6tables"));
    let argv0 = argv0.map_or(Family::V4, |_| Family::V6).program();
    let mut command = exec::command(path, argv0, &["--version".into()]);
    command.env(NESTED_VARIABLE, "1");
    match sandbox::run_until(command, "", Instant::now() + PATIENCE) {
        Ok(answer) => Ok(parse_version(&answer.stdout)),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOEXEC) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads `iptables v1.8.9 (legacy)`. Before 1.8 there was one iptables, and no parenthesis.
fn parse_version(text: &str) -> Option<(Variant, Version)> {
    let mut words = text.lines().next()?.split_whitespace();
    words.next().filter(|name| *name == "iptables" || *name == "ip6tables")?;
    let mut numbers = words.next()?.strip_prefix('v')?.split('.').map(str::parse);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let patch = numbers.next().transpose().ok()?.unwrap_or(0);
    let variant = match words.next() {
        None | Some("(legacy)") => Variant::Legacy,
        Some("(nf_tables)") => Variant::Nft,
        Some(_) => return None,
    };
    Some((variant, (major, minor, patch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("iptables v1.8.9 (legacy)\n"), Some((Variant::Legacy, (1, 8, 9))));
        assert_eq!(parse_version("ip6tables v1.8.13 (nf_tables)\n"), Some((Variant::Nft, (1, 8, 13))));
        assert_eq!(parse_version("iptables v1.6.1\n"), Some((Variant::Legacy, (1, 6, 1))));
        assert_eq!(parse_version("xtshim 0.1.0\n"), None);
        assert_eq!(parse_version(""), None);
        assert_eq!(parse_version("iptables vNext (legacy)"), None);
    }

    #[test]
    fn a_link_to_ourselves_is_no_backend() {
        let directory = tempfile::tempdir().expect("a directory");
        let ourselves = std::env::current_exe().expect("a program");
        std::os::unix::fs::symlink(ourselves, directory.path().join("iptables-nft")).expect("a link");
        let config = Config { backend_directory: Some(directory.path().to_owned()), ..Config::default() };
        assert!(find(&config).backends.is_empty());
    }
}
