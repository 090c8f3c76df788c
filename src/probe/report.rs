//! All that the probe found out, for people and programs.

#![forbid(unsafe_code)]

use super::choice::Choice;
use super::kernel::{Kernel, ModuleState, OptionState};
use super::nftables::Abilities;
use super::trial::Trial;
use super::{Ability, Backend, Snapshot, Tool};
use crate::config::CarrierKind;
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::rules::{self, Capability};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// All that the probe found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The running kernel.
    pub kernel: KernelFacts,
    /// The real iptables on this machine.
    pub backends: Vec<BackendFacts>,
    /// Why pass-through goes to the one that is chosen.
    pub chosen_because: Option<String>,
    /// Each table of each family.
    pub tables: Vec<TableFacts>,
    /// What was asked of the kernel beside the tables.
    pub capabilities: Vec<CapabilityFacts>,
    /// Whether it was tried in a throwaway network namespace; else it rests on what the kernel answers to questions.
    pub tried: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// `uname -r`
    pub release: String,
    /// `uname -v`
    pub version: String,
    /// `uname -m`
    pub machine: String,
    /// Where its configuration was read.
    pub config: Option<PathBuf>,
}

/// A real iptables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendFacts {
    /// `legacy` or `nft`
    pub name: String,
    /// `1.8.9`
    pub version: String,
    /// Of `iptables`.
    pub program: Option<PathBuf>,
    /// Whether pass-through goes to it.
    pub chosen: bool,
}

/// A table of a family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// `ip` or `ip6`
    pub family: String,
    /// `raw`, …
    pub table: String,
    /// What each backend can do to it, by the backend's name.
    pub backends: BTreeMap<String, Ability>,
    /// What each carrier can do to it.
    pub carriers: BTreeMap<CarrierKind, Ability>,
}

/// Something that was asked of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityFacts {
    /// As in the rules' data.
    pub name: String,
    /// In words.
    pub what: String,
    /// `ip` or `ip6`
    pub family: String,
    /// For which backend; `None`: for nf_tables itself.
    pub backend: Option<String>,
    /// The answer.
    pub ability: Ability,
    /// Kernel options behind it: `y`, `m`, `n` or `?`.
    pub options: BTreeMap<String, String>,
    /// Kernel modules behind it.
    pub modules: BTreeMap<String, ModuleState>,
}

/// `legacy` or `nft`: the backend's name in configuration and listings.
pub fn backend_name(variant: Variant) -> &'static str {
    match variant {
        Variant::Legacy => "legacy",
        Variant::Nft => "nft",
    }
}

/// What the findings are made of.
pub(super) struct Findings<'a> {
    pub kernel: &'a Kernel,
    pub backends: &'a [Backend],
    pub trials: &'a [Trial],
    pub nf_tables: &'a Abilities,
    pub choice: Option<&'a Choice>,
    pub snapshot: &'a Snapshot,
    pub tried: bool,
    pub took_ms: u64,
}

impl Findings<'_> {
    pub(super) fn report(&self) -> Report {
        let kernel = self.kernel;
        Report {
            kernel: KernelFacts {
                release: kernel.release.clone(),
                version: kernel.version.clone(),
                machine: kernel.machine.clone(),
                config: kernel.config_file.clone(),
            },
            backends: self.backends.iter().map(|backend| self.backend(backend)).collect(),
            chosen_because: self.choice.map(|choice| choice.why.clone()),
            tables: Family::ALL
                .into_iter()
                .flat_map(|family| rules::tables().iter().map(move |table| (family, table)))
                .map(|(family, table)| self.table(family, table))
                .collect(),
            capabilities: self.capabilities(),
            tried: self.tried,
            took_ms: self.took_ms,
        }
    }

    fn backend(&self, backend: &Backend) -> BackendFacts {
        let (major, minor, patch) = backend.version;
        BackendFacts {
            name: backend_name(backend.variant).to_owned(),
            version: format!("{major}.{minor}.{patch}"),
            program: backend.program(Family::V4, Tool::Command).map(PathBuf::from),
            chosen: self.choice.is_some_and(|choice| choice.variant == backend.variant),
        }
    }

    fn table(&self, family: Family, table: &rules::Table) -> TableFacts {
        let name = table.name.as_str();
        let ability = |carrier: CarrierKind| self.snapshot.ability(family, name, carrier);
        let tried = self.backends.iter().zip(self.trials);
        TableFacts {
            family: family.nft().to_owned(),
            table: name.to_owned(),
            backends: tried
                .filter_map(|(backend, trial)| {
                    Some((backend_name(backend.variant).to_owned(), trial.ability(family, name)?.clone()))
                })
                .collect(),
            carriers: table.carriers.iter().map(|carrier| (*carrier, ability(*carrier))).collect(),
        }
    }

    fn capabilities(&self) -> Vec<CapabilityFacts> {
        let asked = self.backends.iter().zip(self.trials).flat_map(|(backend, trial)| {
            let name = Some(backend_name(backend.variant));
            trial.extensions.iter().map(move |(key, ability)| (name, key, ability))
        });
        let own = self.nf_tables.iter().map(|(key, ability)| (None, key, ability));
        own.chain(asked)
            .filter_map(|(backend, (family, name), ability)| {
                let capability = rules::capability(name)?;
                Some(self.capability(capability, *family, backend, ability))
            })
            .collect()
    }

    fn capability(
        &self,
        capability: &Capability,
        family: Family,
        backend: Option<&str>,
        ability: &Ability,
    ) -> CapabilityFacts {
        let options = capability.options(family).concat();
        let modules = capability.modules(family).concat();
        let state = |name: &str| match self.kernel.option(name) {
            Some(OptionState::BuiltIn) => "y",
            Some(OptionState::Module) => "m",
            Some(OptionState::NotSet) => "n",
            None => "?",
        };
        CapabilityFacts {
            name: capability.name.clone(),
            what: capability.what.clone(),
            family: family.nft().to_owned(),
            backend: backend.map(str::to_owned),
            ability: ability.clone(),
            options: options.into_iter().map(|name| (name.to_owned(), state(name).to_owned())).collect(),
            modules: modules.into_iter().map(|name| (name.to_owned(), self.kernel.module(name))).collect(),
        }
    }
}
