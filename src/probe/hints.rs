//! What can be said of a backend without a network namespace to try it in: from what the kernel answers to questions
//! that change no rule. What that does not prove is unknown.

#![forbid(unsafe_code)]

use super::kernel::Kernel;
use super::nftables::Abilities;
use super::trial::{self, TableTrial, Trial};
use super::{Ability, Backend};
use crate::error::reason;
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::rules::{self, Table};
use crate::sys::xtables;
use std::fs;

/// What stands in for [`trial::run`] where that is not permitted.
///
/// With `in_use`, the backend is the one that this machine uses. A legacy table may then be opened to see whether it is
/// there, which gives this namespace an empty one.
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

/// Whether the backend can open `table` in the calling thread's network namespace, where the probe has not found out.
/// It is asked for a table that a command names, which would open it too.
pub fn ask_table(backend: &Backend, family: Family, table: &str) -> Ability {
    match backend.variant {
        Variant::Nft => Ability::Able,
        Variant::Legacy => match xtables::legacy_table(family, table) {
            Ok(true) => Ability::Able,
            Ok(false) => Ability::Missing { why: "the kernel has no such table".to_owned() },
            Err(error) => Ability::Missing { why: reason(&error) },
        },
    }
}

/// What a kernel's own word says of a table that is not tried, because Docker does not use it: opening it would load its
/// module for nothing. `None`: it does not say.
pub fn untried_table(
    backend: &Backend,
    kernel: &Kernel,
    nf_tables: &Abilities,
    family: Family,
    table: &Table,
) -> Option<Ability> {
    match backend.variant {
        Variant::Nft => Some(nft_table(nf_tables, family, table)).filter(|known| known.is_able() || known.is_missing()),
        Variant::Legacy => {
            let capability = rules::table_capability(Variant::Legacy, &table.name)?;
            match kernel.promises(capability, family)? {
                true => Some(Ability::Able),
                false => Some(Ability::Missing { why: kernel.explain(capability, family)?.to_string() }),
            }
        }
    }
}

fn legacy_table(kernel: &Kernel, family: Family, table: &Table, in_use: bool) -> Ability {
    let names = fs::read_to_string(super::names_file(family)).unwrap_or_default();
    if names.lines().any(|name| name == table.name) {
        return Ability::Able;
    }
    if !in_use {
        return Ability::Unknown { why: "not permitted to try it in a network namespace of its own".to_owned() };
    }
    match xtables::legacy_table(family, &table.name) {
        Ok(true) => Ability::Able,
        Err(error) if trial::is_denied(&error) => Ability::Unknown { why: error.to_string() },
        Ok(false) | Err(_) => {
            let capability = rules::table_capability(Variant::Legacy, &table.name);
            let why = capability.and_then(|capability| kernel.explain(capability, family));
            Ability::Missing {
                why: why.map_or_else(|| "the kernel has no such table".to_owned(), |why| why.to_string()),
            }
        }
    }
}

fn nft_table(nf_tables: &Abilities, family: Family, table: &Table) -> Ability {
    let capability = rules::table_capability(Variant::Nft, &table.name);
    let known = capability.and_then(|capability| nf_tables.get(&(family, capability.name.clone())));
    known.cloned().unwrap_or_else(|| Ability::Unknown { why: "not tried".to_owned() })
}
