//! A fault in here must not cost the caller its command: what is the backend's goes to the backend, and of what is carried
//! the caller hears that it failed. Debug builds fail where XTSHIM_TRIP says.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use xtshim::sys::exec::capture;

/// A network namespace for each command line, in which it runs `script` with ours as `iptables` before the originals.
struct Place {
    folder: TempDir,
}

impl Place {
    /// `None` where there is nothing to be shown: a release build, no rights, no iptables.
    fn new() -> Option<Self> {
        let possible = Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success());
        if !cfg!(debug_assertions) || !possible || !Path::new("/usr/sbin/iptables-nft").exists() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        for front in ["iptables", "ip6tables", "iptables-save", "iptables-restore"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_xtshim"), folder.path().join(front)).unwrap();
        }
        let config = "backend = \"nft\"\n[carriers]\nraw = \"nft\"\n[journal]\nsystem = false\nfile = ";
        let journal = folder.path().join("rewrites.jsonl");
        fs::write(folder.path().join("xtshim.toml"), format!("{config}{:?}\n", journal.display())).unwrap();
        Some(Self { folder })
    }

    /// Runs lines of shell; `$ours` is the folder of our fronts.
    fn sh(&self, script: &str, input: &str) -> Output {
        let mut command = Command::new("unshare");
        command
            .args(["-n", "sh", "-c", script])
            .env("ours", self.folder.path())
            .env("XTSHIM_CONFIG", self.folder.path().join("xtshim.toml"))
            .env("XTABLES_LOCKFILE", self.folder.path().join("lock"));
        capture(command, input.as_bytes()).unwrap()
    }

    /// What it says, standard error behind.
    fn said(&self, script: &str, input: &str) -> String {
        let output = self.sh(script, input);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("rewrites.jsonl")
    }
}

const LOST: &str = "internal error of xtshim, the command may not have been carried out\n";

#[test]
fn what_is_the_backends_reaches_it() {
    let Some(place) = Place::new() else { return };
    for trip in ["standing", "answer", "read"] {
        let script = format!(
            "XTSHIM_TRIP={trip} $ours/iptables -A INPUT -m comment --comment -t -j ACCEPT; echo $?; iptables-nft -S INPUT"
        );
        assert_eq!(
            place.said(&script, ""),
            "0\n-P INPUT ACCEPT\n-A INPUT -m comment --comment -t -j ACCEPT\n",
            "{trip}"
        );
        let told = fs::read_to_string(place.journal()).unwrap();
        assert!(told.contains("internal error") && told.contains("passed on to iptables"), "{told}");
        assert!(told.contains(&format!("tripped in {trip}")) && told.lines().count() == 1, "{told}");
        fs::remove_file(place.journal()).unwrap();
    }
}

#[test]
fn of_what_is_carried_the_caller_hears() {
    let Some(place) = Place::new() else { return };
    for trip in ["standing", "answer", "read", "carry"] {
        let script =
            format!("XTSHIM_TRIP={trip} $ours/iptables -t raw -A OUTPUT -j ACCEPT; echo $?; $ours/iptables -t raw -S");
        let said = place.said(&script, "");
        assert_eq!(said, format!("4\n-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\niptables: {LOST}"), "{trip}");
        let told = fs::read_to_string(place.journal()).unwrap();
        assert!(
            told.contains("not carried out") && told.bytes().all(|byte| byte == b'\n' || (32..127).contains(&byte)),
            "{told}"
        );
        fs::remove_file(place.journal()).unwrap();
    }
}

#[test]
fn what_is_held_is_not_given_away() {
    let Some(place) = Place::new() else { return };
    // The configuration has forgotten that raw is carried: this namespace has not.
    let forgotten = place.folder.path().join("other.toml");
    fs::write(&forgotten, "backend = \"nft\"\n[journal]\nsystem = false\nfile = \"none\"\n").unwrap();
    for trip in ["standing", "answer"] {
        let script = format!(
            "$ours/iptables -t raw -A OUTPUT -j ACCEPT || exit 9
             export XTSHIM_CONFIG={}
             XTSHIM_TRIP={trip} $ours/iptables -t raw -A OUTPUT -j DROP; echo $?
             $ours/iptables -t raw -S OUTPUT; nft list tables",
            forgotten.display()
        );
        assert_eq!(
            place.said(&script, ""),
            format!("4\n-P OUTPUT ACCEPT\n-A OUTPUT -j ACCEPT\ntable ip xtshim-raw\niptables: {LOST}"),
            "{trip}"
        );
    }
}

#[test]
fn files_are_given_on_whole_or_not_at_all() {
    let Some(place) = Place::new() else { return };
    let filter = "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n";
    let with_raw = "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n*raw\n-A OUTPUT -j ACCEPT\nCOMMIT\n";
    for trip in ["standing", "restore"] {
        let script = format!("XTSHIM_TRIP={trip} $ours/iptables-restore; echo $?; iptables-nft -S INPUT");
        let wanted = "0\n-P INPUT ACCEPT\n-A INPUT -j ACCEPT\n";
        let said = place.said(&script, filter);
        assert_eq!(said, wanted, "{trip}");
        let refused = format!("4\n-P INPUT ACCEPT\niptables-restore: {LOST}");
        assert_eq!(place.said(&script, with_raw), refused, "{trip}");
    }
    let script = "$ours/iptables -t raw -A OUTPUT -j ACCEPT; XTSHIM_TRIP=save $ours/iptables-save; echo $?";
    assert_eq!(place.said(script, ""), format!("4\niptables-save: {LOST}"));
}
