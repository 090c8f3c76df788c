//! Where our own files are: beside the program that runs.

#![forbid(unsafe_code)]

use crate::family::Family;
use crate::probe::Tool;
use anyhow::{Context, bail};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where our own files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `/usr/sbin` or `/usr/local/sbin`: the program, and the links `iptables-xtshim`, `ip6tables-xtshim-save`, ….
    pub programs: PathBuf,
    /// `/usr/lib/xtshim/bin` or `/usr/local/lib/xtshim/bin`: links with the names of the real iptables' programs.
    pub private: PathBuf,
}

impl Places {
    /// Beside the program that runs.
    ///
    /// # Errors
    /// Where that is cannot be told.
    pub fn find() -> anyhow::Result<Self> {
        let program = env::current_exe().context("cannot tell where xtshim is")?;
        let programs = program.parent().context("cannot tell where xtshim is")?.to_owned();
        let prefix = programs.parent().unwrap_or(Path::new("/"));
        Ok(Self { private: prefix.join("lib/xtshim/bin"), programs })
    }

    /// `iptables-xtshim`, … for `iptables`, …; `None` for what we do not stand in for.
    pub fn front(&self, name: &str) -> Option<PathBuf> {
        let (family, tool) = programs().find(|(family, tool)| called(*family, *tool) == name)?;
        Some(self.programs.join(format!("{}-xtshim{}", family.program(), tool.suffix())))
    }

    /// Whether a path is one of ours, by its name.
    pub fn is_front(path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        programs().any(|(family, tool)| format!("{}-xtshim{}", family.program(), tool.suffix()) == name)
    }

    /// That the links are there which update-alternatives is to lead to.
    ///
    /// # Errors
    /// One is not, or leads to another program.
    pub fn check_fronts(&self) -> anyhow::Result<()> {
        let names = programs().filter_map(|(family, tool)| self.front(&called(family, tool)));
        names.into_iter().try_for_each(|path| check(&path))
    }

    /// That the links are there which docker.service is to find first.
    ///
    /// # Errors
    /// One is not, or leads to another program.
    pub fn check_private(&self) -> anyhow::Result<()> {
        programs().try_for_each(|(family, tool)| check(&self.private.join(called(family, tool))))
    }
}

fn programs() -> impl Iterator<Item = (Family, Tool)> {
    Family::ALL.into_iter().flat_map(|family| Tool::ALL.map(move |tool| (family, tool)))
}

fn called(family: Family, tool: Tool) -> String {
    format!("{}{}", family.program(), tool.suffix())
}

fn check(path: &Path) -> anyhow::Result<()> {
    let file = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let ours = file(Path::new("/proc/self/exe")).context("cannot tell where xtshim is")?;
    match file(path) {
        Ok(other) if other == ours => Ok(()),
        Ok(_) => bail!("{} leads to another program than this one", path.display()),
        Err(error) => bail!("{} is not there ({error}): the package or install.sh puts it there", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts_have_names_of_their_own() {
        let places = Places { programs: "/usr/sbin".into(), private: "/usr/lib/xtshim/bin".into() };
        assert_eq!(places.front("ip6tables-restore"), Some("/usr/sbin/ip6tables-xtshim-restore".into()));
        assert_eq!(places.front("ebtables"), None);
        assert!(Places::is_front(Path::new("/usr/local/sbin/iptables-xtshim")));
        assert!(!Places::is_front(Path::new("/usr/sbin/iptables-nft")));
    }
}
