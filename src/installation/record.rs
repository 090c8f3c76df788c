//! What was before us, kept in `/var/lib/xtshim` so that it can come back.

#![forbid(unsafe_code)]

use crate::probe;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// There while a person wants xtshim out of the way: then an upgrade does not bring it back.
pub const OFF: &str = "/var/lib/xtshim/off";

/// What [`OFF`] says to one who finds it.
pub const OFF_TEXT: &str = "`xtshim disable` was run. While this file is here, upgrades leave xtshim switched off.\n\
    `xtshim enable` takes it away.\n";

/// What a group of update-alternatives was before us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its mode.
    pub automatic: bool,
    /// What it led to.
    pub path: PathBuf,
}

/// By the group's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(pub BTreeMap<String, Former>);

impl Record {
    /// Where it is kept.
    pub fn path() -> PathBuf {
        PathBuf::from(probe::PREVIOUS)
    }

    /// As it was kept; empty where there is none.
    pub fn read() -> Self {
        fs::read_to_string(Self::path()).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Reads `GROUP auto|manual PATH` on each line.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (group, rest) = line.split_once(' ')?;
            let (mode, path) = rest.split_once(' ')?;
            let automatic = match mode {
                "auto" => true,
                "manual" => false,
                _ => return None,
            };
            Some((group.to_owned(), Former { automatic, path: PathBuf::from(path.trim()) }))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// What [`Record::parse`] reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (group, former) in &self.0 {
            let _ = writeln!(text, "{group} {} {}", former.mode(), former.path.display());
        }
        text
    }
}

impl Former {
    /// As update-alternatives calls it.
    pub const fn mode(&self) -> &'static str {
        if self.automatic { "auto" } else { "manual" }
    }
}

/// Whether a person has switched it off.
pub fn is_off() -> bool {
    Path::new(OFF).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes() {
        let text = "ip6tables auto /usr/sbin/ip6tables-nft\niptables manual /usr/sbin/iptables-legacy\n";
        let record = Record::parse(text);
        assert_eq!(record.0["iptables"], Former { automatic: false, path: "/usr/sbin/iptables-legacy".into() });
        assert_eq!(record.render(), text);
        assert_eq!(Record::parse("iptables sometimes /x\n\nip6tables\n"), Record::default());
    }
}
