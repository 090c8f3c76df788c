//! The difference between what the kernel holds and what it is to hold, as one batch.

#![forbid(unsafe_code)]

use super::nft::Builtin;
use super::table::{Base, Chain, Held, Policy, Table, Unread};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::TranslateContext;
use crate::nft::expr::{Alternative, Expr, Verdict};
use crate::nft::text::{self, Told};
use crate::nft::{self, BaseChain, Batch, Operation, Position, userdata};
use std::collections::{HashMap, HashSet};

/// Where a table is carried.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its family.
    pub family: Family,
    /// Our own table's name.
    pub table: &'a str,
    /// Its built-in chains.
    pub builtins: &'a [Builtin],
    /// Makes all built-in chains at the first change, as iptables-legacy has them: policies count from then on.
    /// iptables-nft makes each when it is first used.
    pub eager: bool,
}

/// How much of a change is told in so many words, in bytes: more than a journal takes.
const TOLD: usize = 64 * 1024;

/// What is to be sent, and how it reads.
#[derive(Debug)]
pub struct Change {
    /// For the kernel.
    pub batch: Batch,
    /// The same in nft syntax.
    pub told: Told,
}

/// What makes `after` of `before`, in one transaction.
///
/// What cannot be carried is refused, and so is what nft syntax has no words for, as some chain names and log prefixes:
/// a ruleset that holds such a thing could not be saved and loaded again.
pub fn between(place: &Place<'_>, before: &Table, mut after: Table) -> Result<Change, Error> {
    readopt(before, &mut after);
    let change = written(place, before, &after)?;
    let renames =
        |change: &Change| change.batch.changes().iter().any(|change| change.operation() == Operation::ChainRename);
    // Until a transaction is over its other operations know a chain by its old name.
    if change.batch.changes().len() > 1 && renames(&change) {
        let mut moved = moved(&after);
        readopt(before, &mut moved);
        return written(place, before, &moved);
    }
    Ok(change)
}

fn written(place: &Place<'_>, before: &Table, after: &Table) -> Result<Change, Error> {
    let heirs = after.chains.iter().filter_map(|chain| Some((chain.origin.as_ref()?.1, chain))).collect();
    let mut writer = Writer { place: *place, heirs, batch: Batch::new(), overflow_used: false };
    if !after.exists && after.differs_from(before) {
        writer.batch.add_table(writer.at());
    }
    writer.rename(after);
    writer.remove_rules(before);
    writer.add_chains(after);
    for chain in &after.chains {
        writer.place_rules(chain, after)?;
    }
    writer.remove_chains(before);
    writer.set_policies(before, after);
    let batch = writer.batch;
    let told = text::told(&batch, TOLD).map_err(unwritable)?;
    Ok(Change { batch, told })
}

/// Each chain of `after` that was taken away and made anew under its old name is the kernel's own one again: a name is
/// free only when a transaction is over.
fn readopt(before: &Table, after: &mut Table) {
    let kept: HashSet<u64> = after.chains.iter().filter_map(|chain| Some(chain.origin.as_ref()?.1)).collect();
    let gone = before.chains.iter().filter_map(|chain| Some((chain.name.as_str(), chain.origin.as_ref()?)));
    let gone: HashMap<&str, &(String, u64)> = gone.filter(|(_, origin)| !kept.contains(&origin.1)).collect();
    for chain in after.chains.iter_mut().filter(|chain| chain.origin.is_none() && chain.base.is_none()) {
        chain.origin = gone.get(chain.name.as_str()).map(|origin| (*origin).clone());
    }
}

/// `after`, with the rules of each chain that has another name now in a new chain, and jumps to there.
fn moved(after: &Table) -> Table {
    let mut moved = after.clone();
    let has_moved = |chain: &Chain| chain.origin.as_ref().is_some_and(|(name, _)| *name != chain.name);
    let names: HashSet<&str> = after.chains.iter().filter(|chain| has_moved(chain)).map(|chain| &*chain.name).collect();
    for chain in &mut moved.chains {
        let itself = names.contains(chain.name.as_str());
        let leads_there = |held: &Held| held.jump.as_deref().is_some_and(|jump| names.contains(jump));
        for held in chain.rules.iter_mut().filter(|held| itself || leads_there(held)) {
            *held = Held { handles: Vec::new(), overflow: Vec::new(), recounted: false, ..held.clone() };
        }
        chain.origin = chain.origin.take().filter(|_| !itself);
    }
    moved
}

struct Writer<'a> {
    place: Place<'a>,
    /// What has become of the chains that the kernel has, by its handle of each.
    heirs: HashMap<u64, &'a Chain>,
    batch: Batch,
    overflow_used: bool,
}

impl<'a> Writer<'a> {
    fn at(&self) -> nft::Table<'a> {
        nft::Table { family: self.place.family, name: self.place.table }
    }

    fn heir(&self, chain: &Chain) -> Option<&'a Chain> {
        self.heirs.get(&chain.origin.as_ref()?.1).copied()
    }

    fn rename(&mut self, after: &Table) {
        for chain in &after.chains {
            if let Some((name, handle)) = &chain.origin
                && *name != chain.name
            {
                self.batch.rename_chain(self.at(), *handle, name, &chain.name);
            }
        }
    }

    fn remove_rules(&mut self, before: &Table) {
        if before.unread == Unread::Replaced {
            self.batch.flush_table(self.at());
            return;
        }
        for chain in &before.chains {
            let now = self.heir(chain);
            let rules: Vec<&Held> = now.iter().flat_map(|chain| &chain.rules).collect();
            let kept: HashSet<u64> = rules.iter().flat_map(|held| &held.handles).copied().collect();
            let name = now.map_or(chain.name.as_str(), |chain| chain.name.as_str());
            // Flushing would take the rules with it that were not read.
            if kept.is_empty() && chain.rules.len() > 1 && before.unread == Unread::Nothing {
                self.batch.flush_chain(self.at(), name);
            } else {
                for handle in chain.rules.iter().flat_map(|held| &held.handles).filter(|handle| !kept.contains(handle))
                {
                    self.batch.delete_rule(self.at(), name, *handle);
                }
            }
            // A rule that is replaced by itself gets a new text as well.
            let texts_kept: HashSet<u64> =
                rules.iter().filter(|held| !held.recounted).flat_map(|held| &held.overflow).copied().collect();
            let texts = chain.rules.iter().flat_map(|held| &held.overflow);
            for handle in texts.filter(|handle| !texts_kept.contains(handle)) {
                self.batch.delete_rule(self.at(), userdata::OVERFLOW_CHAIN, *handle);
            }
        }
    }

    fn add_chains(&mut self, after: &Table) {
        let made = !self.batch.is_empty();
        for chain in after.chains.iter().filter(|chain| chain.origin.is_none()) {
            match chain.base {
                Some(base) if chain.is_in_use() || made && self.place.eager => self.add_base_chain(chain, base),
                Some(_) => {}
                None => self.batch.add_chain(self.at(), &chain.name),
            }
        }
    }

    fn add_base_chain(&mut self, chain: &Chain, base: Base) {
        let Some(builtin) = self.place.builtins.iter().find(|builtin| builtin.name == chain.name) else { return };
        let new = BaseChain {
            name: builtin.name,
            hook: builtin.hook,
            priority: builtin.priority,
            kind: builtin.kind,
            policy: policy(base.policy),
            counters: base.counters,
        };
        self.batch.add_base_chain(self.at(), new);
    }

    /// New rules go before the next one that stays, so runs of them keep their order.
    fn place_rules(&mut self, chain: &Chain, table: &Table) -> Result<(), Error> {
        let mut following = Vec::with_capacity(chain.rules.len());
        let mut next = None;
        for held in chain.rules.iter().rev() {
            following.push(next);
            next = held.handles.first().or(next);
        }
        for (held, next) in chain.rules.iter().zip(following.into_iter().rev()) {
            if !held.handles.is_empty() && !held.recounted {
                continue;
            }
            let parts = self.translate(chain, held, table)?;
            if held.handles.len() == parts.len() {
                for ((rule, data), handle) in parts.iter().zip(&held.handles) {
                    self.batch.replace_rule(self.at(), &chain.name, *handle, rule, data);
                }
                continue;
            }
            if table.unread == Unread::Behind {
                // Each goes to the front, so the last one first.
                for (rule, data) in parts.iter().rev() {
                    self.batch.add_rule(self.at(), &chain.name, Position::Prepend, rule, data);
                }
                continue;
            }
            let position = next.map_or(Position::Append, |handle| Position::BeforeHandle(*handle));
            for (rule, data) in &parts {
                self.batch.add_rule(self.at(), &chain.name, position, rule, data);
            }
            // A rule that is made of another number of parts than an older version of this program made it of.
            for handle in &held.handles {
                self.batch.delete_rule(self.at(), &chain.name, *handle);
            }
        }
        Ok(())
    }

    /// A rule's parts, each with its user data.
    fn translate(&mut self, chain: &Chain, held: &Held, table: &Table) -> Result<Vec<(Alternative, Vec<u8>)>, Error> {
        let context = TranslateContext { family: table.family, table: &table.name, chain: &chain.name };
        let read = || held.rule(table.family, &table.name);
        let again;
        let rule = match held.given() {
            Some(given) => given,
            None => {
                again = read()?;
                &again
            }
        };
        let alternatives = rule.translate(&context)?;
        debug_assert_eq!(read()?.translate(&context)?, alternatives, "what is kept of it says the same");
        let parts = u8::try_from(alternatives.len())
            .map_err(|_| Refusal::new("the rule", "it has more alternatives than can be kept together"))?;
        let comment = rule.comment().filter(|comment| nft::comment_ok(comment));
        let mut carried = Vec::with_capacity(alternatives.len());
        for (part, alternative) in (0..parts).zip(alternatives) {
            // The first part bears the text for all.
            let (text, comment) = if part == 0 { (held.spec.clone(), comment) } else { (String::new(), None) };
            let encoded = userdata::encode(&userdata::Entry { part, parts, text }, comment);
            self.add_overflow(&encoded.overflow);
            carried.push((alternative, encoded.userdata));
        }
        Ok(carried)
    }

    fn add_overflow(&mut self, overflow: &[Vec<u8>]) {
        if !overflow.is_empty() && !std::mem::replace(&mut self.overflow_used, true) {
            self.batch.ensure_chain(self.at(), userdata::OVERFLOW_CHAIN);
        }
        let nothing = vec![Expr::Verdict(Verdict::Return)];
        for data in overflow {
            self.batch.add_rule(self.at(), userdata::OVERFLOW_CHAIN, Position::Append, &nothing, data);
        }
    }

    fn remove_chains(&mut self, before: &Table) {
        for chain in before.chains.iter().filter(|chain| chain.origin.is_some()) {
            if self.heir(chain).is_none() {
                self.batch.delete_chain(self.at(), &chain.name);
            }
        }
    }

    fn set_policies(&mut self, before: &Table, after: &Table) {
        for chain in after.chains.iter().filter(|chain| chain.origin.is_some() && chain.base.is_some()) {
            let was = before.chain(&chain.name).and_then(|chain| chain.base);
            if let (Some(now), Some(was)) = (chain.base, was)
                && now != was
            {
                let counters = (now.counters != was.counters).then_some(now.counters);
                self.batch.set_policy(self.at(), &chain.name, policy(now.policy), counters);
            }
        }
    }
}

fn policy(policy: Policy) -> nft::Policy {
    match policy {
        Policy::Accept => nft::Policy::Accept,
        Policy::Drop => nft::Policy::Drop,
    }
}

pub(super) fn unwritable(error: text::Unprintable) -> Refusal {
    Refusal::new(error.0, "a ruleset with it could not be saved and loaded again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::Action;

    fn table(chains: Vec<Chain>) -> Table {
        Table {
            family: Family::V4,
            name: "raw".to_owned(),
            chains,
            exists: true,
            renewed: false,
            unread: Unread::Nothing,
        }
    }

    fn chain(name: &str, handle: Option<u64>, rules: Vec<Held>) -> Chain {
        Chain { name: name.to_owned(), base: None, rules, origin: handle.map(|handle| (name.to_owned(), handle)) }
    }

    fn rule(spec: &str, handles: &[u64]) -> Held {
        Held {
            spec: spec.to_owned(),
            jump: None,
            counters: (0, 0),
            handles: handles.to_vec(),
            parts: handles.len() as u8,
            overflow: Vec::new(),
            recounted: false,
            given: None,
        }
    }

    fn actions(before: &Table, after: &Table) -> Vec<Action> {
        let place = Place { family: Family::V4, table: "xtshim-raw", builtins: &[], eager: false };
        let change = between(&place, before, after.clone()).expect("it can be carried");
        change.batch.changes().iter().map(|change| change.action.clone()).collect()
    }

    #[test]
    fn a_chain_that_is_made_anew_under_its_old_name_is_the_same_to_the_kernel() {
        let before = table(vec![chain("mine", Some(7), vec![rule("-j DROP", &[1])])]);
        let after = table(vec![chain("mine", None, vec![rule("-j ACCEPT", &[])])]);
        let actions = actions(&before, &after);
        assert!(
            matches!(actions.as_slice(), [Action::DeleteRule { handle: 1, .. }, Action::AddRule { .. }]),
            "{actions:?}"
        );
    }

    #[test]
    fn a_chain_that_is_renamed_and_more_moves() {
        let jump = Held { jump: Some("old".to_owned()), ..rule("jump", &[2]) };
        let before =
            table(vec![chain("caller", Some(8), vec![jump]), chain("old", Some(7), vec![rule("-j DROP", &[1])])]);
        let mut after = before.clone();
        after.chains[1].name = "new".to_owned();
        after.chains[0].rules[0].jump = Some("new".to_owned());
        assert!(matches!(actions(&before, &after).as_slice(), [Action::RenameChain { .. }]));
        after.chains[1].rules.push(rule("-j ACCEPT", &[]));
        let actions = actions(&before, &after);
        let told: Vec<String> = actions.iter().map(|action| format!("{action:?}")).collect();
        assert!(!told.iter().any(|action| action.starts_with("RenameChain")), "{told:?}");
        let made =
            |chain: &str| told.iter().filter(|a| a.starts_with(&format!("AddRule {{ chain: \"{chain}\""))).count();
        assert_eq!((made("new"), made("caller")), (2, 1), "{told:?}");
        assert!(told.iter().any(|action| action == "DeleteChain { name: \"old\" }"), "{told:?}");
        assert_eq!(told.iter().filter(|action| action.starts_with("DeleteRule")).count(), 2, "{told:?}");
    }

    #[test]
    fn a_rule_that_is_recounted_in_other_parts_does_not_stay_beside_itself() {
        let before = table(vec![chain("mine", Some(7), vec![rule("-j DROP", &[1, 2])])]);
        let mut after = before.clone();
        after.chains[0].rules[0].recounted = true;
        let actions = actions(&before, &after);
        let deleted = actions.iter().filter_map(|action| match action {
            Action::DeleteRule { handle, .. } => Some(*handle),
            _ => None,
        });
        assert_eq!(deleted.collect::<Vec<_>>(), [1, 2], "{actions:?}");
    }
}
