//! What runs Docker here, and the drop-ins for its unit.

#![forbid(unsafe_code)]

use super::Step;
use super::places::Places;
use anyhow::bail;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use std::{fs, io};

/// Docker's unit.
pub const UNIT: &str = "docker.service";

/// The unit that loads and flushes nft's own rules.
const NFTABLES: &str = "nftables.service";

/// Puts our private directory first in docker.service's PATH.
pub const DROP_IN: &str = "/etc/systemd/system/docker.service.d/xtshim.conf";

/// Has docker.service restarted after nftables.service has taken its rules away.
pub const FOLLOW: &str = "/etc/systemd/system/nftables.service.d/xtshim.conf";

/// Where units lie (systemd.unit(5)).
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// systemd's own default for services (systemd.exec(5), PATH), and the old names for the same places.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where an xtshim that is at work as root has its directory.
const STORE: &str = "/run/xtshim";

/// Whether systemd runs this machine (sd_booted(3)).
pub fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether there is such a unit.
pub fn has_unit(unit: &str) -> bool {
    UNITS.iter().any(|folder| Path::new(folder).join(unit).exists())
}

/// A process of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began; `None`: that is not to be had.
    pub since: Option<SystemTime>,
}

/// The processes whose command name (proc_pid_comm(5)) is `name`, in this pid namespace itself and in none below it.
pub fn processes(name: &str) -> Vec<Process> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // `812 (dockerd) S 1 …`; one that has ended and was not waited for yet is in state Z (proc_pid_stat(5)).
    let is_it = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.split_once(" (").and_then(|(_, rest)| rest.strip_prefix(name)?.strip_prefix(") "));
        rest.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
    };
    // A container's own is none of ours.
    let own = fs::read_link("/proc/self/ns/pid").ok();
    let is_here = |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok().is_none_or(|other| own == Some(other));
    numbers.filter(is_it).filter(is_here).map(|pid| Process { pid, since: start(pid) }).collect()
}

/// The time at which a process began: its 22nd field of proc_pid_stat(5) is in clock ticks since the boot, 100 a second.
fn start(pid: u32) -> Option<SystemTime> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64(uptime).ok()?.checked_sub(Duration::from_millis(ticks * 10));
    SystemTime::now().checked_sub(age.unwrap_or_default())
}

/// The PATH of a process.
pub fn path_of(pid: u32) -> Option<PathBuf> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let path = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"PATH="))?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// Why a drop-in for docker.service would not reach Docker. `None`: it would.
pub fn obstacle() -> Option<String> {
    if !processes("firewalld").is_empty() || Path::new("/run/firewalld.pid").exists() {
        let text = "firewalld is running: dockerd then sends its rules to firewalld, and that calls /usr/sbin/iptables, \
                    whatever dockerd's PATH is. `--scope system' reaches it";
        return Some(text.to_owned());
    }
    if has_unit(UNIT) {
        return None;
    }
    let there = |paths: &[&str]| paths.iter().any(|path| Path::new(path).exists());
    if there(&["/snap/docker", "/var/lib/snapd/snap/docker", "/var/snap/docker"]) {
        let text = "Docker is a snap here, and brings its own iptables, which nothing outside of it can replace. \
                    Install Docker's own package or the distribution's";
        return Some(text.to_owned());
    }
    if there(&["/var/lib/rancher/k3s", "/usr/local/bin/k3s", "/usr/bin/k3s"]) {
        let text = "k3s runs containers here, and no docker.service: it brings its own iptables, and takes the machine's \
                    where there is one and it is not started with --prefer-bundled-bin. `--scope system' is for that";
        return Some(text.to_owned());
    }
    let text = match is_systemd() {
        true => "there is no docker.service on this machine",
        false => {
            "there is no docker.service, and systemd does not run this machine: put the directory first in the PATH \
             that dockerd is started with (docs/install.md says where)"
        }
    };
    Some(text.to_owned())
}

/// What puts us first in docker.service's PATH.
///
/// # Errors
/// It would not reach Docker.
pub fn enable(places: &Places) -> anyhow::Result<Vec<Step>> {
    if let Some(why) = obstacle() {
        bail!("{why}");
    }
    let private = places.private.display().to_string();
    let rest = service_path().unwrap_or_else(|| PATH.to_owned());
    let rest: Vec<&str> = rest.split(':').filter(|folder| *folder != private).collect();
    let text = format!(
        "# `xtshim enable --scope docker` made this, `xtshim disable` takes it away.\n[Service]\n\
         Environment=\"PATH={private}:{}\"\n",
        escaped(&rest.join(":"))
    );
    Ok(place(DROP_IN, text))
}

/// Between double quotes in a unit (systemd.syntax(7), systemd.unit(5) for `%`).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

/// Whether docker.service's PATH is to begin with our directory.
pub fn is_enabled() -> bool {
    Path::new(DROP_IN).exists()
}

/// What has docker.service restarted after nftables.service.
///
/// # Errors
/// There is no nftables.service, or no docker.service.
pub fn follow() -> anyhow::Result<Vec<Step>> {
    for unit in [NFTABLES, UNIT] {
        if !has_unit(unit) {
            bail!("there is no {unit} on this machine");
        }
    }
    // `-`: that docker cannot be restarted is no failure of nftables. At shutdown systemd refuses the job.
    let line = format!("-/usr/bin/env systemctl --no-block try-restart {UNIT}");
    let text = format!(
        "# `xtshim enable --follow-nftables` made this, `xtshim disable` takes it away.\n\
         # Loading or flushing nft's rules takes carried rules away; Docker makes them anew when it is restarted.\n\
         [Service]\nExecStartPost={line}\nExecReload={line}\nExecStopPost={line}\n"
    );
    Ok(place(FOLLOW, text))
}

/// Takes away what [`enable`] and [`follow`] made.
pub fn disable() -> Vec<Step> {
    let there = [DROP_IN, FOLLOW].into_iter().filter(|path| Path::new(path).exists());
    let mut steps: Vec<Step> = there.map(|path| Step::Remove(path.into())).collect();
    if !steps.is_empty() {
        steps.extend(reload());
    }
    steps
}

fn place(path: &str, text: String) -> Vec<Step> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Vec::new();
    }
    let write = Step::Write { path: path.into(), text };
    std::iter::once(write).chain(reload()).collect()
}

fn reload() -> Option<Step> {
    is_systemd().then(|| Step::run(&["systemctl", "daemon-reload"]))
}

/// The PATH that docker.service has, or would have from systemd, our drop-in put aside.
fn service_path() -> Option<String> {
    let own = systemctl(&["show", "--property=Environment", "--value", UNIT])?;
    let own = shlex::split(&own).unwrap_or_default();
    let own = own.iter().rev().find_map(|word| word.strip_prefix("PATH=")).map(str::to_owned);
    own.or_else(|| {
        let manager = systemctl(&["show-environment"])?;
        let line = manager.lines().find_map(|line| line.strip_prefix("PATH="))?;
        Some(line.to_owned())
    })
}

/// Whether docker.service's PATH, as systemd has it now, begins with our directory. `None`: systemd does not say.
pub fn is_first(places: &Places) -> Option<bool> {
    let first = format!("{}:", places.private.display());
    service_path().map(|path| path.starts_with(&first))
}

/// Whether nftables.service is started at boot, or has been.
pub fn nftables_is_in_use() -> bool {
    has_unit(NFTABLES)
        && ["is-enabled", "is-active"].into_iter().any(|question| {
            systemctl(&[question, NFTABLES]).is_some_and(|word| matches!(word.trim(), "enabled" | "active"))
        })
}

fn systemctl(words: &[&str]) -> Option<String> {
    if !is_systemd() {
        return None;
    }
    let output = Command::new("systemctl").args(words).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The network namespaces of this machine that this xtshim may have been told to put rules into, each by a path that leads
/// into it, the caller's own first. One that has an xtshim of its own at work (a Docker inside a container) is not: what
/// is carried there, that one lists.
pub fn namespaces() -> Vec<PathBuf> {
    let own = PathBuf::from("/proc/thread-self/ns/net");
    let store = identity(Path::new(STORE));
    let mut foreign = BTreeSet::new();
    let mut found = Vec::new();
    for process in entries("/proc") {
        if !process.file_name().is_some_and(|name| name.as_bytes().iter().all(u8::is_ascii_digit)) {
            continue;
        }
        let path = process.join("ns/net");
        let Some(namespace) = identity(&path) else { continue };
        let theirs = identity(&process.join("root").join(STORE.trim_start_matches('/')));
        if theirs.is_some() && theirs != store {
            foreign.insert(namespace);
        }
        found.push((namespace, path));
    }
    let named = ["/run/netns", "/run/docker/netns"].into_iter().flat_map(entries);
    found.extend(named.filter_map(|path| Some((identity(&path)?, path))));
    let mut seen: BTreeSet<_> = identity(&own).into_iter().collect();
    let others = found.into_iter().filter(|(namespace, _)| !foreign.contains(namespace) && seen.insert(*namespace));
    std::iter::once(own.clone()).chain(others.map(|(_, path)| path)).collect()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn entries(folder: &str) -> Vec<PathBuf> {
    let entries: io::Result<Vec<_>> = fs::read_dir(folder).and_then(Iterator::collect);
    entries.unwrap_or_default().into_iter().map(|entry: fs::DirEntry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_with_the_time_it_began() {
        let own = fs::read_to_string("/proc/self/comm").expect("a name");
        let found = processes(own.trim_end());
        let ours = found.iter().find(|process| process.pid == std::process::id()).expect("this process");
        let age = SystemTime::now().duration_since(ours.since.expect("a time")).unwrap_or_default();
        assert!(age < Duration::from_secs(3600), "{age:?}");
    }

    #[test]
    fn the_own_namespace_comes_first_and_once() {
        let all = namespaces();
        assert_eq!(all[0], Path::new("/proc/thread-self/ns/net"));
        let own = fs::metadata(&all[0]).expect("ours").ino();
        assert!(all[1..].iter().all(|path| fs::metadata(path).map_or(true, |meta| meta.ino() != own)));
    }
}
