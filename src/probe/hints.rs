//! What can be said of a backend without a network namespace to try it in: from what the kernel answers to questions
//! that change no rule. What that does not prove is unknown.

#![forbid(unsafe_code)]

use super::kernel::Kernel;
use super::nftables::Abilities;
use super::trial::{self, TableTrial, Trial};
use super::{Ability, Backend};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::rules::{self, Table};
use crate::sys::xtables;
use std::fs;

/// What stands in for [`trial::run`] where that is not permitted.
///
/// With `in_use`, the backend is the one that this machine uses. A legacy table that it could be told to carry by
/// other means may then be opened to see whether it is there, which gives this namespace an empty one.
pub fn gather(backend: &Backend, kernel: &Kernel, nf_tables: &Abilities, in_use: bool) -> Trial {
    let mut trial = Trial::default();
    for family in Family::ALL {
        for table in trial::tables() {
            let mut ability = match backend.variant {
                Variant::Legacy => legacy_table(kernel, family, table, in_use),
                Variant::Nft => nft_table(nf_tables, family, table),
            };
            for capability in
                trial::script(table, family).iter().flat_map(|saying| rules::extensions(family, &saying.args))
            {
                let known = trial.extensions.entry((family, capability.name.clone()));
                let known = known.or_insert_with(|| trial::ask_kernel(backend.variant, family, capability, kernel));
                ability = trial::worst([&ability, &*known].into_iter());
            }
            trial.tables.push(TableTrial { family, table: table.name.clone(), ability });
        }
    }
    trial
}

fn legacy_table(kernel: &Kernel, family: Family, table: &Table, in_use: bool) -> Ability {
    let names = fs::read_to_string(super::names_file(family)).unwrap_or_default();
    if names.lines().any(|name| name == table.name) {
        return Ability::Able;
    }
    if !in_use || table.carriers.len() < 2 {
        return Ability::Unknown { why: "not permitted to try it in a network namespace of its own".to_owned() };
    }
    match xtables::legacy_table(family, &table.name) {
        Ok(true) => Ability::Able,
        Err(error) if trial::is_denied(&error) => Ability::Unknown { why: error.to_string() },
        Ok(false) | Err(_) => {
            let capability = rules::table_capability(Variant::Legacy, &table.name);
            let why = capability.and_then(|capability| kernel.explain(capability, family));
            Ability::Missing { why: why.unwrap_or_else(|| "the kernel has no such table".to_owned()) }
        }
    }
}

fn nft_table(nf_tables: &Abilities, family: Family, table: &Table) -> Ability {
    let capability = rules::table_capability(Variant::Nft, &table.name);
    let known = capability.and_then(|capability| nf_tables.get(&(family, capability.name.clone())));
    known.cloned().unwrap_or_else(|| Ability::Unknown { why: "not tried".to_owned() })
}
