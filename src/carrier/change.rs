//! The difference between what the kernel holds and what it is to hold, as one batch.

#![forbid(unsafe_code)]

use super::nft::Builtin;
use super::run::{self, Run};
use super::table::{Base, Chain, Held, Policy, Table, Unread};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::TranslateContext;
use crate::nft::expr::{Alternative, Expr, Field, Key, Verdict};
use crate::nft::text::{self, Told};
use crate::nft::{self, BaseChain, Batch, Operation, Position, userdata};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

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
    /// Neighbouring rules for one destination each are made runs.
    pub optimize: bool,
}

/// How much of a change is told in so many words, in bytes: more than a journal takes.
pub const TOLD: usize = 64 * 1024;

/// What is to be sent, and how it reads.
#[derive(Debug)]
pub struct Change {
    /// For the kernel.
    pub batch: Batch,
    /// For the kernel when nothing can meet any more what there was before `batch`: takes away what that has emptied.
    pub sweep: Batch,
    /// The same in nft syntax.
    pub told: Told,
}

/// What makes `after` of `before`, in one transaction.
///
/// What cannot be carried is refused, and so is what nft syntax has no words for, as some chain names and log prefixes:
/// a ruleset that holds such a thing could not be saved and loaded again.
pub fn between(place: &Place<'_>, before: &Table, mut after: Table) -> Result<Change, Error> {
    readopt(before, &mut after);
    run::arrange(before, &mut after, place.optimize);
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
    let mut writer = Writer {
        place: *place,
        heirs,
        batch: Batch::new(),
        sweep: Batch::new(),
        only_thinner: is_only_thinner(before, after),
        overflow_used: false,
        staying: HashSet::new(),
    };
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
    let (batch, sweep) = (writer.batch, writer.sweep);
    let told = text::told(&batch, TOLD).map_err(unwritable)?;
    Ok(Change { batch, sweep, told })
}

/// Whether members of runs have gone, and nothing else is otherwise.
fn is_only_thinner(before: &Table, after: &Table) -> bool {
    let alone = |chain: &Chain| chain.rules.iter().filter(|held| held.seat.is_none()).count();
    let same = |(was, is): (&Chain, &Chain)| {
        (&was.name, was.base, &was.origin, alone(was)) == (&is.name, is.base, &is.origin, alone(is))
    };
    let stay = |held: &Held| !held.handles.is_empty() && !held.recounted;
    before.chains.len() == after.chains.len()
        && before.chains.iter().zip(&after.chains).all(same)
        && after.chains.iter().flat_map(|chain| &chain.rules).all(stay)
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
    /// See [`Change::sweep`].
    sweep: Batch,
    /// See [`is_only_thinner`].
    only_thinner: bool,
    overflow_used: bool,
    /// Chains of one address's rules that are there and remain.
    staying: HashSet<String>,
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
            let flushed = kept.is_empty() && chain.rules.len() > 1 && before.unread == Unread::Nothing;
            if flushed {
                self.batch.flush_chain(self.at(), name);
            } else {
                let alone = chain.rules.iter().filter(|held| held.seat.is_none());
                for handle in alone.flat_map(|held| &held.handles).filter(|handle| !kept.contains(handle)) {
                    self.batch.delete_rule(self.at(), name, *handle);
                }
            }
            for run in &chain.runs {
                self.thin_out(*run, before, (name, flushed), chain, &rules, &kept);
            }
            // A rule that is replaced by itself gets a new text as well.
            let texts_kept: HashSet<u64> =
                rules.iter().filter(|held| !held.recounted).flat_map(|held| &held.overflow).copied().collect();
            let texts = chain.rules.iter().flat_map(|held| &held.overflow);
            for handle in texts.filter(|handle| !texts_kept.contains(handle)) {
                self.batch.delete_rule(self.at(), userdata::OVERFLOW_CHAIN, *handle);
            }
        }
        let in_use: HashSet<u32> = before.chains.iter().flat_map(|chain| &chain.runs).map(|run| run.id).collect();
        let mut left: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for (run, address) in before.idle.iter().filter(|(run, _)| !in_use.contains(run)) {
            left.entry(*run).or_default().push(*address);
        }
        for (run, addresses) in left {
            self.discard(run, true, &addresses);
        }
    }

    /// Takes what has gone out of a run, or all of it. `kept`: the handles of what is there and remains.
    fn thin_out(
        &mut self,
        run: Run,
        before: &Table,
        (chain, flushed): (&str, bool),
        was: &Chain,
        now: &[&Held],
        kept: &HashSet<u64>,
    ) {
        let of_run = |held: &&Held| held.seat.is_some_and(|seat| seat.run == run.id);
        let addresses: HashSet<IpAddr> = run::by_address(before.family, now.iter().copied().filter(of_run))
            .into_iter()
            .map(|(address, _)| address)
            .collect();
        if addresses.is_empty() && !flushed {
            self.batch.delete_rule(self.at(), chain, run.handle);
        }
        let mut gone = Vec::new();
        for (address, members) in run::by_address(before.family, was.rules.iter().filter(of_run)) {
            let name = run::chain_name(run.id, address);
            if !addresses.contains(&address) {
                self.batch.flush_chain(self.at(), &name);
                gone.push(address);
                continue;
            }
            for handle in members.into_iter().flat_map(|held| &held.handles).filter(|handle| !kept.contains(handle)) {
                self.batch.delete_rule(self.at(), &name, *handle);
            }
            self.staying.insert(name);
        }
        for (_, address) in before.idle.iter().filter(|(id, _)| *id == run.id) {
            if addresses.contains(address) {
                self.staying.insert(run::chain_name(run.id, *address));
            } else {
                gone.push(*address);
            }
        }
        self.discard(run.id, addresses.is_empty(), &gone);
    }

    /// Takes addresses out of a run's map, or the `whole` of it away, and their chains, which are empty by then.
    ///
    /// The kernel has each packet meet the rules of one generation, but lets it look up what a map holds in the next. If a
    /// transaction took rules out of a map and put others elsewhere, a packet on its way would meet neither. So the ways
    /// into empty chains stay until it is through. Where rules have only gone, it meets what it would meet without them.
    fn discard(&mut self, run: u32, whole: bool, addresses: &[IpAddr]) {
        let (at, map) = (self.at(), run::map_name(run));
        let batch = if self.only_thinner { &mut self.batch } else { &mut self.sweep };
        if whole {
            batch.flush_map(at, &map);
            batch.delete_map(at, &map);
        } else {
            batch.delete_elements(at, &map, addresses);
        }
        for address in addresses {
            batch.delete_chain(at, &run::chain_name(run, *address));
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
        let known = |id: u32| chain.runs.iter().find(|run| run.id == id);
        let first = |slot: &&[Held]| match slot.first()? {
            Held { seat: Some(seat), .. } => known(seat.run).map(|run| run.handle),
            held => held.handles.first().copied(),
        };
        for (slot, next) in with_next(run::slots(chain), first) {
            match slot {
                [Held { seat: Some(seat), .. }, ..] => {
                    let fresh = known(seat.run).is_none();
                    self.place_run(chain, slot, table, seat.run, fresh.then_some(next))?;
                }
                alone => {
                    for held in alone {
                        self.place_rule(chain, &chain.name, held, table, next)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Brings a run up to date. `fresh`: the kernel does not have it yet, and is to look it up before that rule of the
    /// chain's.
    fn place_run(
        &mut self,
        chain: &Chain,
        members: &[Held],
        table: &Table,
        id: u32,
        fresh: Option<Option<u64>>,
    ) -> Result<(), Error> {
        let map = run::map_name(id);
        if fresh.is_some() {
            self.batch.add_map(self.at(), &map);
        }
        let mut elements = Vec::new();
        for (address, members) in run::by_address(table.family, members) {
            let name = run::chain_name(id, address);
            if !self.staying.contains(&name) {
                self.batch.add_chain(self.at(), &name);
                elements.push((address, name.clone()));
            }
            for (held, next) in with_next(members.into_iter(), |held| held.handles.first().copied()) {
                self.place_rule(chain, &name, held, table, next)?;
            }
        }
        self.batch.add_elements(self.at(), &map, &elements);
        if let Some(next) = fresh {
            let (_, daddr) = Field::addresses(table.family);
            let look_up = vec![Expr::VerdictMap { key: Key::Payload(daddr), map }];
            self.batch.add_rule(self.at(), &chain.name, before_or_last(next), &look_up, &userdata::run(id));
        }
        Ok(())
    }

    /// Puts a rule of `chain`, unless it is there, into the kernel's chain `stands_in`, before the rule with the handle
    /// `next`.
    fn place_rule(
        &mut self,
        chain: &Chain,
        stands_in: &str,
        held: &Held,
        table: &Table,
        next: Option<u64>,
    ) -> Result<(), Error> {
        if !held.handles.is_empty() && !held.recounted {
            return Ok(());
        }
        let parts = self.translate(chain, held, table)?;
        if held.handles.len() == parts.len() {
            for ((rule, data), handle) in parts.into_iter().zip(&held.handles) {
                self.batch.replace_rule(self.at(), stands_in, *handle, rule, &data);
            }
            return Ok(());
        }
        if table.unread == Unread::Behind {
            // Each goes to the front, so the last one first.
            for (rule, data) in parts.into_iter().rev() {
                self.batch.add_rule(self.at(), stands_in, Position::Prepend, rule, &data);
            }
            return Ok(());
        }
        for (rule, data) in parts {
            self.batch.add_rule(self.at(), stands_in, before_or_last(next), rule, &data);
        }
        // A rule that is made of another number of parts than an older version of this program made it of.
        for handle in &held.handles {
            self.batch.delete_rule(self.at(), stands_in, *handle);
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
            let (text, comment) = if part == 0 { (held.spec.as_str(), comment) } else { ("", None) };
            let ordinal = held.seat.map(|seat| seat.ordinal);
            let encoded = userdata::encode_text(part, parts, text, ordinal, comment);
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

/// Each item, and the handle of the first behind it that has one.
fn with_next<T>(
    items: impl DoubleEndedIterator<Item = T>,
    handle: impl Fn(&T) -> Option<u64>,
) -> impl Iterator<Item = (T, Option<u64>)> {
    let mut next = None;
    let mut found: Vec<(T, Option<u64>)> = Vec::new();
    for item in items.rev() {
        let own = handle(&item);
        found.push((item, next));
        next = own.or(next);
    }
    found.into_iter().rev()
}

fn before_or_last(next: Option<u64>) -> Position {
    next.map_or(Position::Append, Position::BeforeHandle)
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
    use super::super::run::Seat;
    use super::*;
    use crate::nft::Action;

    fn table(chains: Vec<Chain>) -> Table {
        Table { chains, exists: true, ..Table::empty(Family::V4, "raw") }
    }

    fn chain(name: &str, handle: Option<u64>, rules: Vec<Held>) -> Chain {
        Chain { rules, origin: handle.map(|handle| (name.to_owned(), handle)), ..Chain::user(name) }
    }

    fn rule(spec: &str, handles: &[u64]) -> Held {
        Held { handles: handles.to_vec(), parts: handles.len() as u8, ..Held::of(spec.to_owned(), None) }
    }

    /// A built-in chain with a run of that many addresses, and a rule behind it.
    fn optimized(members: u64) -> Table {
        let member = |number: u64| Held {
            seat: Some(Seat { run: 1, ordinal: number << 32 }),
            ..rule(&format!("-d 10.0.0.{number}/32 -j DROP"), &[number])
        };
        let rules = (1..=members).map(member).chain([rule("-i eth0 -j ACCEPT", &[900])]).collect();
        let built_in = chain("PREROUTING", Some(7), rules);
        let base = Chain::untouched("PREROUTING").base;
        table(vec![Chain { base, runs: vec![Run { id: 1, handle: 901 }], ..built_in }])
    }

    /// What is sent at once, and what when no packet is on its way any more.
    fn operations(before: &Table, after: &Table) -> [Vec<Operation>; 2] {
        let place = Place { family: Family::V4, table: "xtshim-raw", builtins: &[], eager: false, optimize: false };
        let change = between(&place, before, after.clone()).expect("it can be carried");
        [change.batch, change.sweep].map(|batch| batch.changes().iter().map(nft::Change::operation).collect())
    }

    const WAYS: [Operation; 3] = [Operation::ElementDelete, Operation::SetDelete, Operation::ChainDelete];

    #[test]
    fn a_packet_on_its_way_finds_what_stands_elsewhere_now() {
        let before = optimized(3);
        let mut parted = before.clone();
        parted.chains[0].rules.insert(1, rule("-i eth1 -j ACCEPT", &[]));
        let mut other = before.clone();
        other.chains[0].rules = vec![rule("-j DROP", &[])];
        let mut policy = before.clone();
        policy.chains[0].rules.clear();
        policy.chains[0].base = Some(Base { policy: Policy::Drop, counters: (0, 0) });
        let mut all = before.clone();
        all.chains[0].rules.clear();
        for after in [parted, other, policy, all] {
            let [batch, sweep] = operations(&before, &after);
            assert!(!WAYS.iter().any(|way| batch.contains(way)), "{batch:?}");
            assert!(sweep.contains(&Operation::ElementDelete) && sweep.contains(&Operation::ChainDelete), "{sweep:?}");
            assert!(sweep.iter().all(|operation| WAYS.contains(operation)), "{sweep:?}");
        }
    }

    #[test]
    fn what_only_goes_goes_at_once() {
        let before = optimized(3);
        for gone in [0..1, 0..3] {
            let mut after = before.clone();
            drop(after.chains[0].rules.drain(gone));
            let [batch, sweep] = operations(&before, &after);
            assert!(batch.contains(&Operation::ElementDelete) && batch.contains(&Operation::ChainDelete), "{batch:?}");
            assert!(sweep.is_empty(), "{sweep:?}");
        }
    }

    #[test]
    fn of_the_rules_of_one_address_one_goes_alone() {
        let mut before = optimized(3);
        let second = Held { spec: "-d 10.0.0.2/32 -i eth0 -j DROP".to_owned(), ..before.chains[0].rules[1].clone() };
        let ordinal = second.seat.map_or(0, |seat| seat.ordinal + 1);
        let second = Held { handles: vec![4], seat: Some(Seat { run: 1, ordinal }), ..second };
        before.chains[0].rules.insert(2, second);
        let mut after = before.clone();
        after.chains[0].rules.remove(1);
        let place = Place { family: Family::V4, table: "xtshim-raw", builtins: &[], eager: false, optimize: false };
        let change = between(&place, &before, after).expect("it can be carried");
        let told = text::commands(&change.batch).expect("there are words");
        assert_eq!(told, ["delete rule ip xtshim-raw xtshim-rules-of-one-address-1-10.0.0.2 handle 2"]);
        assert!(change.sweep.is_empty());
    }

    #[test]
    fn what_was_left_is_used_again_or_taken_away() {
        let address = |number| IpAddr::from([10, 0, 0, number]);
        let before = Table { idle: vec![(1, address(8)), (1, address(9)), (5, address(1))], ..optimized(3) };
        let mut after = before.clone();
        after.chains[0].rules.insert(1, rule("-d 10.0.0.9/32 -j DROP", &[]));
        let place = Place { family: Family::V4, table: "xtshim-raw", builtins: &[], eager: false, optimize: false };
        let change = between(&place, &before, after).expect("it can be carried");
        let [batch, sweep] =
            [change.batch, change.sweep].map(|batch| text::commands(&batch).expect("there are words").join("\n"));
        assert!(batch.starts_with("add rule ip xtshim-raw xtshim-rules-of-one-address-1-10.0.0.9 "), "{batch}");
        assert_eq!(batch.lines().count(), 1, "{batch}");
        assert_eq!(
            sweep,
            "delete element ip xtshim-raw xtshim-run-1 { 10.0.0.8 }\n\
             delete chain ip xtshim-raw xtshim-rules-of-one-address-1-10.0.0.8\n\
             flush map ip xtshim-raw xtshim-run-5\ndelete map ip xtshim-raw xtshim-run-5\n\
             delete chain ip xtshim-raw xtshim-rules-of-one-address-5-10.0.0.1"
        );
    }

    fn actions(before: &Table, after: &Table) -> Vec<Action> {
        let place = Place { family: Family::V4, table: "xtshim-raw", builtins: &[], eager: false, optimize: false };
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
    fn the_texts_of_rules_that_move_are_made_anew() {
        let long = |handle, text, jump: Option<&str>| Held {
            overflow: vec![text],
            jump: jump.map(str::to_owned),
            ..rule(if jump.is_some() { "jump" } else { "-j DROP" }, &[handle])
        };
        let before = table(vec![
            chain("caller", Some(8), vec![long(2, 10, Some("old")), long(3, 11, None)]),
            chain("old", Some(7), vec![long(1, 9, None)]),
        ]);
        let mut after = before.clone();
        after.chains[1].name = "new".to_owned();
        after.chains[1].rules.push(rule("-j ACCEPT", &[]));
        after.chains[0].rules[0].jump = Some("new".to_owned());
        let gone = actions(&before, &after).into_iter().filter_map(|action| match action {
            Action::DeleteRule { handle, chain } if chain == userdata::OVERFLOW_CHAIN => Some(handle),
            _ => None,
        });
        let mut gone: Vec<u64> = gone.collect();
        gone.sort_unstable();
        assert_eq!(gone, [9, 10]);
    }

    #[test]
    fn rules_that_go_take_no_others_with_them() {
        let two = || vec![rule("-j DROP", &[1]), Held { overflow: vec![9], ..rule("-j ACCEPT", &[2]) }];
        let before = table(vec![chain("mine", Some(7), two())]);
        let told = |before: &Table, rules: Vec<Held>| {
            let mut after = before.clone();
            after.chains[0].rules = rules;
            actions(before, &after).iter().map(|action| format!("{action:?}")).collect::<Vec<_>>()
        };
        let text = format!("DeleteRule {{ chain: \"{}\", handle: 9 }}", userdata::OVERFLOW_CHAIN);
        let rule = |handle| format!("DeleteRule {{ chain: \"mine\", handle: {handle} }}");
        assert_eq!(told(&before, vec![]), ["FlushChain { name: \"mine\" }".to_owned(), text.clone()]);
        assert_eq!(told(&before, two()[..1].to_vec()), [rule(2), text.clone()]);
        assert_eq!(told(&before, two()[1..].to_vec()), [rule(1)]);
        // Where others are there that were not read.
        let partly = Table { unread: Unread::Elsewhere, ..before.clone() };
        assert_eq!(told(&partly, vec![]), [rule(1), rule(2), text]);
        let one = table(vec![chain("mine", Some(7), two()[..1].to_vec())]);
        assert_eq!(told(&one, vec![]), [rule(1)]);
    }

    #[test]
    fn chains_are_made_when_they_are_needed() {
        let builtins = super::super::nft::builtins("raw");
        let untouched = || builtins.iter().map(|builtin| Chain::untouched(builtin.name)).collect::<Vec<_>>();
        let before = Table { chains: untouched(), ..Table::empty(Family::V4, "raw") };
        let made = |eager, change: &dyn Fn(&mut Table)| {
            let mut after = before.clone();
            change(&mut after);
            let place = Place { family: Family::V4, table: "xtshim-raw", builtins, eager, optimize: false };
            let change = between(&place, &before, after).expect("it can be carried");
            let name = |action: &Action| match action {
                Action::AddTable => Some("table".to_owned()),
                Action::AddBaseChain { name, .. } | Action::AddChain { name } => Some(name.clone()),
                _ => None,
            };
            change.batch.changes().iter().filter_map(|change| name(&change.action)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(made(false, &|_| {}), "");
        assert_eq!(made(true, &|_| {}), "");
        let own = |table: &mut Table| table.chains.push(Chain::user("mine"));
        assert_eq!(made(false, &own), "table mine");
        assert_eq!(made(true, &own), "table PREROUTING OUTPUT mine");
        let used = |table: &mut Table| table.chains[1].rules.push(rule("-j DROP", &[]));
        assert_eq!(made(false, &used), "table OUTPUT");
        assert_eq!(made(true, &used), "table PREROUTING OUTPUT");
        for base in [(Policy::Drop, (0, 0)), (Policy::Accept, (1, 2))] {
            let (policy, counters) = base;
            let set = |table: &mut Table| table.chains[1].base = Some(Base { policy, counters });
            assert_eq!(made(false, &set), "table OUTPUT", "{base:?}");
        }
    }

    #[test]
    fn a_policy_is_set_where_it_is_another() {
        let base = |policy, counters| Some(Base { policy, counters });
        let built_in = Chain { base: base(Policy::Accept, (1, 2)), ..chain("PREROUTING", Some(7), vec![]) };
        let before = table(vec![built_in]);
        let told = |policy, counters| {
            let mut after = before.clone();
            after.chains[0].base = base(policy, counters);
            actions(&before, &after)
        };
        assert!(told(Policy::Accept, (1, 2)).is_empty());
        for (policy, counters) in [(Policy::Drop, (1, 2)), (Policy::Accept, (0, 0))] {
            let actions = told(policy, counters);
            assert!(matches!(actions.as_slice(), [Action::SetPolicy { .. }]), "{actions:?}");
        }
    }

    #[test]
    fn a_long_text_is_kept_whole() {
        let before = table(vec![chain("mine", Some(7), vec![])]);
        let mut after = before.clone();
        let text = format!("-m comment --comment {} -j DROP", "x".repeat(250));
        after.chains[0].rules = vec![rule(&text, &[])];
        let actions = actions(&before, &after);
        let rest = actions
            .iter()
            .filter(|action| matches!(action, Action::AddRule { chain, .. } if chain == userdata::OVERFLOW_CHAIN));
        assert!(rest.count() > 0, "{actions:?}");
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
