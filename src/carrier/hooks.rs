//! Matches and targets that want certain hooks, in chains that are called from others: iptables' kernel side looks at
//! every hook that a rule can be reached from.

#![forbid(unsafe_code)]

use super::table::{Chain, Table};
use crate::error::Error;
use crate::iptables::dialect::Dialect;
use crate::iptables::ext::Place;
use std::collections::HashMap;

/// Extensions whose hooks nf_tables does not see to by itself.
const CHOOSY: [&str; 9] = ["mac", "owner", "socket", "rpfilter", "realm", "devgroup", "policy", "CLASSIFY", "TPROXY"];

/// Whether it matters from where a rule of this text is reached.
pub fn is_choosy(spec: &str) -> bool {
    spec.split(' ').any(|word| CHOOSY.contains(&word))
}

/// Built-in chains, each a bit in the order of the table.
type Hooks = u8;

/// Refuses what stands, or can now be reached, where it may not.
///
/// # Errors
/// What the backend says when its kernel refuses a rule.
pub fn check(before: &Table, after: &Table, dialect: &Dialect) -> Result<(), Error> {
    if !after.chains.iter().flat_map(|chain| &chain.rules).any(|held| is_choosy(&held.spec)) {
        return Ok(());
    }
    let (was, is) = (reach(before), reach(after));
    let bridge = after.chains.iter().find_map(|chain| Some((chain, newly_jumps(chain)?)));
    for chain in after.chains.iter().filter(|chain| chain.base.is_none()) {
        let now = is.get(chain.name.as_str()).copied().unwrap_or(0);
        let earlier = chain.origin.as_ref().and_then(|(name, _)| was.get(name.as_str())).copied().unwrap_or(0);
        for (index, held) in chain.rules.iter().enumerate().filter(|(_, held)| is_choosy(&held.spec)) {
            let unchecked = if held.handles.is_empty() { now } else { now & !earlier };
            if unchecked == 0 {
                continue;
            }
            let rule = held.rule(after.family, &after.name)?;
            let (at, index) = bridge.filter(|_| !held.handles.is_empty()).unwrap_or((chain, index));
            for (bit, hook) in after.chains.iter().filter(|chain| chain.base.is_some()).enumerate() {
                if unchecked & 1 << bit != 0 {
                    rule.validate_chain(&Place {
                        family: after.family,
                        table: &after.name,
                        chain: &hook.name,
                        protocol: rule.protocol,
                        operation: if index + 1 < at.rules.len() { "INSERT" } else { "APPEND" },
                        dialect,
                    })
                    .map_err(|error| told_of(error, &hook.name, &at.name))?;
                }
            }
        }
    }
    Ok(())
}

/// Index of the first rule that is new and jumps.
fn newly_jumps(chain: &Chain) -> Option<usize> {
    chain.rules.iter().position(|held| held.handles.is_empty() && held.jump.is_some())
}

/// iptables-nft names the chain that was to be changed.
fn told_of(error: Error, hook: &str, chain: &str) -> Error {
    match error {
        Error::Resource(text) => match text.strip_suffix(hook) {
            Some(start) => Error::Resource(format!("{start}{chain}")),
            None => Error::Resource(text),
        },
        other => other,
    }
}

/// From which built-in chains each chain is reached.
fn reach(table: &Table) -> HashMap<&str, Hooks> {
    let mut reached: HashMap<&str, Hooks> = HashMap::new();
    for (bit, hook) in table.chains.iter().filter(|chain| chain.base.is_some()).enumerate() {
        let mut waiting = vec![hook.name.as_str()];
        while let Some(name) = waiting.pop() {
            let hooks = reached.entry(name).or_insert(0);
            if *hooks & 1 << bit != 0 {
                continue;
            }
            *hooks |= 1 << bit;
            let rules = table.chain(name).into_iter().flat_map(|chain| &chain.rules);
            waiting.extend(rules.filter_map(|held| held.jump.as_deref()));
        }
    }
    reached
}
