//! What the checks look at: the live host, or a copied file tree of another one.
//!
//! A copied tree holds files where they lay on their host (`/proc/config.gz`, `/etc/docker/daemon.json`, …) and, below
//! `captured/`, what programs said there: the words of their call, with `_` between them and for every `/`.

#![forbid(unsafe_code)]

use crate::carrier::Carrier;
use crate::carrier::nft::{NftCarrier, table_name};
use crate::family::Family;
use crate::iptables::dialect::{Dialect, Variant};
use crate::nft::Connection;
use crate::probe::{self, Kernel, Report};
use crate::rules;
use crate::sys::{exec, sandbox};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Larger files are not read any further, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

/// How long a program may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many links lead from one to another before it is given up (path_resolution(7)).
const LINKS: usize = 40;

/// Where a copied tree has what programs said.
const CAPTURED: &str = "captured";

/// Where programs are looked for.
const PLACES: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

/// By whose words a carried table is read: the newest.
const DIALECT: (u16, u16, u16) = (1, 8, 13);

/// A host.
#[derive(Debug)]
pub struct Host {
    root: Option<PathBuf>,
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its arguments, the program first.
    pub args: Vec<String>,
    /// Its environment; `None`: not to be read.
    pub environment: Option<Vec<(String, String)>>,
}

impl Process {
    /// The last part of the program's path, as it was called.
    pub fn name(&self) -> &str {
        self.args.first().map(|word| word.rsplit('/').next().unwrap_or(word)).unwrap_or_default()
    }

    /// The value of `--flag=value` or `--flag value`; the last one counts.
    pub fn flag(&self, flag: &str) -> Option<&str> {
        let is_flag = |word: &str| word.strip_prefix("--").or_else(|| word.strip_prefix('-')) == Some(flag);
        let mut found = None;
        for (at, word) in self.args.iter().enumerate() {
            match word.split_once('=') {
                Some((name, value)) if is_flag(name) => found = Some(value),
                None if is_flag(word) => found = self.args.get(at + 1).map(String::as_str),
                _ => {}
            }
        }
        found
    }

    /// Whether a word is among its arguments.
    pub fn has(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }

    /// A variable of its environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.as_ref()?.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Host {
    /// This host, or the one whose files were copied to `root`.
    pub fn new(root: Option<&Path>) -> Self {
        Self { root: root.map(Path::to_owned) }
    }

    /// Whether it is this host, and now.
    pub fn is_live(&self) -> bool {
        self.root.is_none()
    }

    /// Where a path of the host is to be found here. Links are followed within the tree: an absolute one in a copy must
    /// not lead to the machine that looks at it.
    pub fn place(&self, path: &str) -> Option<PathBuf> {
        let Some(root) = &self.root else { return Some(PathBuf::from(path)) };
        self.inner(path).map(|inner| root.join(inner))
    }

    /// The path that a path leads to in the end, as the host knows it.
    pub fn leads_to(&self, path: &str) -> Option<String> {
        match &self.root {
            None => fs::canonicalize(path).ok().map(|found| found.to_string_lossy().into_owned()),
            Some(_) => self.inner(path).map(|inner| format!("/{}", inner.display())),
        }
    }

    fn inner(&self, path: &str) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        let mut left: Vec<OsString> = names(Path::new(path));
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            done.push(&name);
            if let Ok(target) = fs::read_link(root.join(&done)) {
                links += 1;
                if links > LINKS {
                    return None;
                }
                done.pop();
                if target.is_absolute() {
                    done = PathBuf::new();
                }
                left.extend(names(&target));
            }
        }
        Some(done)
    }

    /// A file's text; `None`: there is no such, or it is not to be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let file = File::open(self.place(path)?).ok()?;
        let mut bytes = Vec::new();
        file.take(FILE_LIMIT).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file's first line.
    pub fn line(&self, path: &str) -> Option<String> {
        Some(self.text(path)?.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// Whether there is such a file or folder.
    pub fn has(&self, path: &str) -> bool {
        self.place(path).is_some_and(|place| place.exists())
    }

    /// Names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = self.place(folder).and_then(|place| fs::read_dir(place).ok());
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Paths of the files in a folder whose names end so.
    pub fn files(&self, folder: &str, ending: &str) -> Vec<String> {
        let names = self.names(folder);
        names.iter().filter(|name| name.ends_with(ending)).map(|name| format!("{folder}/{name}")).collect()
    }

    /// What a program says on its standard output; `None`: it is not there, it fails, or what it said was not copied.
    pub fn said(&self, words: &[&str]) -> Option<String> {
        if self.root.is_some() {
            return self.text(&format!("/{CAPTURED}/{}", words.join("_").replace('/', "_")));
        }
        let (name, args) = words.split_first()?;
        let program = match name.starts_with('/') {
            true => PathBuf::from(name),
            false => PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())?,
        };
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let command = exec::command(&program, name, &args);
        let answer = sandbox::run_until(command, "", Instant::now() + PATIENCE).ok()?;
        answer.status.success().then_some(answer.stdout)
    }

    /// The processes; of a copy, those whose /proc/PID was copied.
    pub fn processes(&self) -> Vec<Process> {
        let pids = self.names("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
        pids.filter_map(|pid| self.process(pid)).collect()
    }

    fn process(&self, pid: u32) -> Option<Process> {
        let args = self.text(&format!("/proc/{pid}/cmdline"))?;
        let args: Vec<String> = args.split_terminator('\0').map(str::to_owned).collect();
        args.first()?;
        let environment = self.text(&format!("/proc/{pid}/environ")).map(|text| {
            let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        });
        Some(Process { pid, args, environment })
    }

    /// What the kernel says of itself.
    pub fn kernel(&self) -> Kernel {
        match &self.root {
            None => Kernel::read(),
            Some(root) => {
                let release = self.line("/proc/sys/kernel/osrelease").unwrap_or_default();
                let mut kernel = Kernel::read_below(root, &release);
                kernel.machine = self.line("/proc/sys/kernel/arch").unwrap_or_default();
                kernel
            }
        }
    }

    /// What was found by trying; `None`: this is a copy, and the answer was not copied with it (`captured/probe.json`,
    /// as `xtshim probe --json` prints it).
    pub fn probe(&self) -> Option<Report> {
        match &self.root {
            None => Some(probe::report(&crate::config::load().0, false).1),
            Some(_) => serde_json::from_str(&self.text(&format!("/{CAPTURED}/probe.json"))?).ok(),
        }
    }

    /// All tables of a backend with their counters, as its iptables-save prints them; `None`: it cannot be asked.
    pub fn saved(&self, variant: Variant, family: Family) -> Option<String> {
        let name = format!("{}-{}-save", family.program(), probe::backend_name(variant));
        self.said(&[&name, "-c"])
    }

    /// The carried tables, as iptables-save prints them, and what stands against reading one; `None`: nobody can tell.
    pub fn carried(&self, family: Family) -> Option<Carried> {
        if self.root.is_some() {
            let saved = self.text(&format!("/{CAPTURED}/xtshim_{}-save_-c", family.program()))?;
            return Some(Carried { saved, unreadable: Vec::new() });
        }
        let mut carried = Carried::default();
        let Ok(mut connection) = Connection::open() else { return Some(carried) };
        let tables = match connection.tables(family) {
            Ok(tables) => tables,
            // A kernel without nf_tables carries nothing; without the right nobody can tell.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) => return None,
            Err(_) => return Some(carried),
        };
        let known = rules::tables().iter().map(|table| table.name.as_str());
        for table in known.filter(|table| tables.iter().any(|info| info.name == table_name(table))) {
            let dialect = Dialect { family, variant: Variant::Nft, version: DIALECT };
            let mut text = String::new();
            let read = NftCarrier::open(family, table, dialect).and_then(|mut carrier| carrier.save(true, &mut text));
            match read {
                Ok(_) => carried.saved.push_str(&text),
                Err(_) => carried.unreadable.push(table.to_owned()),
            }
        }
        Some(carried)
    }
}

/// What is carried of one family.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// As iptables-save prints it.
    pub saved: String,
    /// Tables that hold what this program cannot read.
    pub unreadable: Vec<String>,
}

/// Names of a path, the last first.
fn names(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    let mut names: Vec<OsString> = parts.collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_a_copy_stay_within_it() {
        let root = tempfile::tempdir().expect("a directory");
        let below = |path: &str| root.path().join(path);
        fs::create_dir_all(below("etc/alternatives")).expect("made");
        fs::create_dir_all(below("usr/sbin")).expect("made");
        fs::write(below("usr/sbin/tool"), "inside\n").expect("written");
        symlink("/usr/sbin/tool", below("etc/alternatives/tool")).expect("a link");
        symlink("../etc/alternatives/tool", below("usr/link")).expect("a link");
        symlink("/../../../../etc/passwd", below("usr/out")).expect("a link");
        symlink("round", below("usr/round")).expect("a link");
        let host = Host::new(Some(root.path()));
        assert_eq!(host.text("/usr/link").as_deref(), Some("inside\n"));
        assert_eq!(host.leads_to("/usr/link").as_deref(), Some("/usr/sbin/tool"));
        assert_eq!(host.text("/usr/out"), None);
        assert_eq!(host.text("/usr/round"), None);
        assert_eq!(host.text("/../../etc/hostname"), None);
    }

    #[test]
    fn flags_are_read_in_both_forms() {
        let args = ["/usr/bin/rootlesskit", "--net=pasta", "--mtu", "1500", "--net=slirp4netns"];
        let process = Process { pid: 1, args: args.map(str::to_owned).to_vec(), environment: None };
        assert_eq!(process.name(), "rootlesskit");
        assert_eq!(process.flag("net"), Some("slirp4netns"));
        assert_eq!(process.flag("mtu"), Some("1500"));
        assert_eq!(process.flag("port-driver"), None);
    }
}
