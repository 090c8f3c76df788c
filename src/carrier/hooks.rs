//! Matches and targets that want certain hooks, in chains that are called from others: iptables' kernel side looks at
//! every hook that a rule can be reached from.

#![forbid(unsafe_code)]

use super::table::Table;
use crate::error::Error;
use crate::iptables::dialect::Dialect;
use crate::iptables::ext::Place;
use std::collections::HashMap;

/// Extensions whose hooks nf_tables does not see to by itself.
const CHOOSY: [&str; 8] = ["owner", "socket", "rpfilter", "realm", "devgroup", "policy", "CLASSIFY", "TPROXY"];

/// Whether it matters from where a rule of this text is reached.
pub fn is_choosy(spec: &str) -> bool {
    CHOOSY.iter().any(|name| spec.contains(name))
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
    for chain in after.chains.iter().filter(|chain| chain.base.is_none()) {
        let now = is.get(chain.name.as_str()).copied().unwrap_or(0);
        let earlier = chain.origin.as_ref().and_then(|(name, _)| was.get(name.as_str())).copied().unwrap_or(0);
        for held in chain.rules.iter().filter(|held| is_choosy(&held.spec)) {
            let unchecked = if held.handles.is_empty() { now } else { now & !earlier };
            if unchecked == 0 {
                continue;
            }
            let rule = held.rule(after.family, &after.name)?;
            for (bit, hook) in after.chains.iter().filter(|chain| chain.base.is_some()).enumerate() {
                if unchecked & 1 << bit != 0 {
                    rule.validate_chain(&Place {
                        family: after.family,
                        table: &after.name,
                        chain: &hook.name,
                        protocol: rule.protocol,
                        operation: "APPEND",
                        dialect,
                    })?;
                }
            }
        }
    }
    Ok(())
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
