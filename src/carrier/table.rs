//! A table in memory: what each command does to it, and how it is listed. No I/O.
//!
//! Commands change this model; the carrier then applies the difference to the kernel in one transaction. So one command
//! and a file of a thousand go the same way.

#![forbid(unsafe_code)]

use super::run::{Run, Seat};
use crate::error::{Error, Refusal, TableError};
use crate::family::Family;
use crate::iptables::dialect::{Dialect, Variant};
use crate::iptables::ext::{self, Place};
use crate::iptables::list::ChainState;
use crate::iptables::plain::{self, Saved};
use crate::iptables::rule::Target;
use crate::iptables::{self, Command, Invocation, ListOptions, Rule};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::rc::Rc;

/// What happens to packets that reach the end of a built-in chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They go on.
    Accept,
    /// They do not.
    Drop,
}

impl Policy {
    /// As iptables writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Policy::Accept => "ACCEPT",
            Policy::Drop => "DROP",
        }
    }

    /// Reads `ACCEPT` or `DROP`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "ACCEPT" => Some(Policy::Accept),
            "DROP" => Some(Policy::Drop),
            _ => None,
        }
    }
}

/// Packets and bytes.
pub type Counters = (u64, u64);

/// A built-in chain's own properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its policy.
    pub policy: Policy,
    /// What the policy has counted.
    pub counters: Counters,
}

/// A rule as the table holds it.
#[derive(Clone, Debug)]
pub struct Held {
    /// [`Rule::spec`]: the rule's identity.
    pub spec: String,
    /// Chain that it jumps or goes to.
    pub jump: Option<String>,
    /// Packets and bytes counted.
    pub counters: Counters,
    /// The kernel's handles of its parts; empty for a rule that the kernel does not have yet.
    pub handles: Vec<u64>,
    /// How many parts it has in the kernel.
    pub parts: u8,
    /// Handles of the rules that hold the rest of its text, where that is long.
    pub overflow: Vec<u64>,
    /// The kernel's copy has other counters than these.
    pub recounted: bool,
    /// Of a rule that was just given: what was read of it.
    pub given: Option<Rc<Rule>>,
    /// Of a member of a run: where it stands in it.
    pub seat: Option<Seat>,
}

impl Held {
    /// A rule of that text that the kernel does not have yet.
    pub fn of(spec: String, jump: Option<String>) -> Self {
        Self {
            spec,
            jump,
            counters: (0, 0),
            handles: Vec::new(),
            parts: 0,
            overflow: Vec::new(),
            recounted: false,
            given: None,
            seat: None,
        }
    }

    /// A rule the kernel does not have yet.
    pub fn new(rule: &Rule) -> Self {
        Self { counters: rule.counters, ..Self::of(rule.spec(), rule.jump().map(str::to_owned)) }
    }

    /// Where it stands now it cannot stay: the kernel is to have it anew elsewhere.
    pub fn unseat(&mut self) {
        self.handles.clear();
        self.overflow.clear();
        self.recounted = false;
        self.seat = None;
    }

    fn to_be_sent(rule: &Rule) -> Self {
        Self { given: Some(Rc::new(rule.clone())), ..Self::new(rule) }
    }

    /// What is to be sent of it, as far as that is known without reading the text again, which says the same.
    pub fn given(&self) -> Option<&Rule> {
        let given = self.given.as_deref();
        given.filter(|rule| rule.counters == self.counters && rule.jump() == self.jump.as_deref())
    }

    /// The rule behind the text.
    pub fn rule(&self, family: Family, table: &str) -> Result<Rule, Error> {
        let mut rule = Rule::from_spec(family, table, &self.spec, self.jump.as_deref())?;
        rule.counters = self.counters;
        Ok(rule)
    }

    /// As `-S` and iptables-save print it.
    fn save_line(&self, out: &mut String, table: &Table, chain: &str, dialect: &Dialect) -> Result<(), Error> {
        match (plain::saved(&self.spec), &self.jump) {
            (Some(Saved::Whole(spec)), None) => push_line(out, chain, spec),
            (Some(Saved::Calls { spec, option }), Some(target)) => {
                for word in ["-A ", chain, if spec.is_empty() { "" } else { " " }, spec, option, target, "\n"] {
                    out.push_str(word);
                }
            }
            _ => push_line(out, chain, &self.rule(table.family, &table.name)?.save(dialect)),
        }
        Ok(())
    }

    fn is(&self, other: &Held) -> bool {
        self.spec == other.spec && self.jump == other.jump
    }

    fn zero(&mut self) {
        self.recounted |= self.counters != (0, 0);
        self.counters = (0, 0);
    }
}

/// A chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its name, without the table.
    pub name: String,
    /// `Some` for a built-in chain.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Held>,
    /// Name and handle in the kernel; `None` for a chain that the kernel does not have yet.
    pub origin: Option<(String, u64)>,
    /// Those of its rules that the kernel looks up by their destination.
    pub runs: Vec<Run>,
}

impl Chain {
    /// A built-in chain is made in the kernel only when it has something to do.
    pub fn is_in_use(&self) -> bool {
        self.base.is_none_or(|base| base.policy != Policy::Accept || base.counters != (0, 0)) || !self.rules.is_empty()
    }

    /// A user's chain that the kernel does not have yet.
    pub fn user(name: &str) -> Self {
        Self { name: name.to_owned(), base: None, rules: Vec::new(), origin: None, runs: Vec::new() }
    }

    /// A built-in chain that nothing has touched.
    pub fn untouched(name: &str) -> Self {
        let base = Base { policy: Policy::Accept, counters: (0, 0) };
        Self { base: Some(base), ..Self::user(name) }
    }
}

/// A table of one family: built-in chains in the order of their hooks, then the user's in the order of their names.
#[derive(Clone, Debug)]
pub struct Table {
    /// Family.
    pub family: Family,
    /// `raw`, …
    pub name: String,
    /// See above for their order.
    pub chains: Vec<Chain>,
    /// The kernel has it.
    pub exists: bool,
    /// A restore has begun it anew. To iptables-nft its built-in chains are then ones that were never used.
    pub renewed: bool,
    /// What this model leaves out of what the kernel holds.
    pub unread: Unread,
    /// Runs, and addresses that a chain of theirs stands for without holding a rule: what is left of them.
    pub idle: Vec<(u32, IpAddr)>,
}

/// What is left out of a model, because a command can do without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Nothing.
    Nothing,
    /// Rules that stand where the command does not look or write.
    Elsewhere,
    /// All rules; what is new stands before them.
    Behind,
    /// All rules; what is new stands behind them.
    Before,
    /// All rules; none of them stays.
    Replaced,
}

impl Table {
    /// One without chains, which the kernel does not have.
    pub fn empty(family: Family, name: &str) -> Self {
        let name = name.to_owned();
        Self {
            family,
            name,
            chains: Vec::new(),
            exists: false,
            renewed: false,
            unread: Unread::Nothing,
            idle: Vec::new(),
        }
    }

    /// Puts the user's chains in the order in which iptables lists them.
    pub fn sort(&mut self) {
        let builtins = self.chains.iter().take_while(|chain| chain.base.is_some()).count();
        if let Some(users) = self.chains.get_mut(builtins..) {
            users.sort_by(|one, other| one.name.cmp(&other.name));
        }
    }

    /// Where the chain of that name stands, or would stand.
    fn place(&self, name: &str) -> Result<usize, usize> {
        let builtins = self.chains.iter().take_while(|chain| chain.base.is_some()).count();
        let (builtins, users) = self.chains.split_at(builtins);
        match builtins.iter().position(|chain| chain.name == name) {
            Some(place) => Ok(place),
            None => match users.binary_search_by(|chain| chain.name.as_str().cmp(name)) {
                Ok(place) => Ok(builtins.len() + place),
                Err(place) => Err(builtins.len() + place),
            },
        }
    }

    /// The chain of that name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.get(self.place(name).ok()?)
    }

    fn chain_mut(&mut self, name: &str) -> Result<&mut Chain, Error> {
        let place = self.place(name).ok();
        place.and_then(|place| self.chains.get_mut(place)).ok_or(Error::Table(TableError::NoChain))
    }

    /// Whether there is anything in this table that was not in `before`, of which it is a changed copy.
    pub fn differs_from(&self, before: &Table) -> bool {
        self.chains.len() != before.chains.len() || self.chains.iter().any(Chain::is_in_use)
    }

    /// Whether both have the same chains, policies and rules, whatever was counted.
    pub fn reads_as(&self, other: &Table) -> bool {
        let same = |(one, two): (&Chain, &Chain)| {
            let policy = |chain: &Chain| chain.base.map(|base| base.policy);
            let rules = one.rules.len() == two.rules.len() && one.rules.iter().zip(&two.rules).all(|(a, b)| a.is(b));
            one.name == two.name && policy(one) == policy(two) && rules
        };
        self.chains.len() == other.chains.len() && self.chains.iter().zip(&other.chains).all(same)
    }

    /// How many rules jump or go to each chain that any of them does.
    fn references(&self) -> HashMap<&str, u32> {
        let mut counts = HashMap::new();
        for jump in self.chains.iter().flat_map(|chain| &chain.rules).filter_map(|rule| rule.jump.as_deref()) {
            let count: &mut u32 = counts.entry(jump).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }
}

/// A command at work on a table.
pub struct Session<'a> {
    /// What it works on.
    pub table: &'a mut Table,
    /// Whose words it speaks.
    pub dialect: &'a Dialect,
    /// What it prints.
    pub out: &'a mut String,
}

impl Session<'_> {
    /// Does what `invocation` says, to the model alone.
    pub fn run(&mut self, invocation: &Invocation) -> Result<(), Error> {
        match &invocation.command {
            Command::Append { chain, rules } => self.append(invocation, chain, rules),
            Command::Insert { chain, position, rules } => self.insert(invocation, chain, *position, rules),
            Command::Replace { chain, position, rules } => self.replace(invocation, chain, *position, rules),
            Command::DeleteRule { chain, rules } => self.delete(invocation, chain, rules),
            Command::DeleteNumber { chain, position } => self.delete_number(chain, *position),
            Command::Check { chain, rules } => self.check(invocation, chain, rules),
            Command::List { chain, position, zero } => {
                self.list(invocation, chain.as_deref(), *position)?;
                if *zero { self.zero(invocation, chain.as_deref(), None) } else { Ok(()) }
            }
            Command::ListRules { chain, position, zero } => {
                self.list_rules(invocation, chain.as_deref(), *position)?;
                if *zero { self.zero(invocation, chain.as_deref(), None) } else { Ok(()) }
            }
            Command::Flush { chain } => self.flush(invocation, chain.as_deref()),
            Command::Zero { chain, position } => self.zero(invocation, chain.as_deref(), *position),
            Command::NewChain { chain } => self.new_chain(chain),
            Command::DeleteChain { chain } => self.delete_chain(invocation, chain.as_deref()),
            Command::RenameChain { from, to } => self.rename_chain(from, to),
            Command::Policy { chain, policy, counters } => self.set_policy(chain, policy, *counters),
            Command::Version | Command::Help => Ok(()),
        }
    }

    /// What the kernel would say of these rules at that place.
    fn validate(&self, rules: &[Rule], chain: &str, operation: &str) -> Result<(), Error> {
        let (family, table, dialect) = (self.table.family, self.table.name.as_str(), self.dialect);
        rules.iter().try_for_each(|rule| {
            rule.validate_chain(&Place { family, table, chain, protocol: rule.protocol, operation, dialect })
        })
    }

    fn admit(&self, rules: &[Rule], hold: fn(&Rule) -> Held) -> Result<Vec<Held>, Error> {
        for rule in rules {
            let Some(target) = rule.jump() else { continue };
            if self.table.chain(target).is_none() {
                return Err(self.no_such_target(rule, target));
            }
        }
        Ok(rules.iter().map(hold).collect())
    }

    fn no_such_target(&self, rule: &Rule, target: &str) -> Error {
        match self.dialect.variant {
            Variant::Nft => Error::Parameter(format!("Chain '{target}' does not exist")),
            Variant::Legacy if rule.is_goto() => {
                Error::Parameter(format!("goto '{target}' is not a chain{}", self.dialect.blank_line()))
            }
            Variant::Legacy => Error::Parameter(format!("Couldn't load target `{target}':No such file or directory\n")),
        }
    }

    /// A kernel knows no jump into a chain that has a hook.
    fn refuse_builtin_target(&self, chain: &str, rules: &[Rule], operation: &str) -> Result<(), Error> {
        let targets = rules.iter().filter_map(Rule::jump).filter_map(|target| self.table.chain(target));
        let Some(target) = targets.into_iter().find(|chain| chain.base.is_some()) else { return Ok(()) };
        if self.dialect.variant == Variant::Legacy {
            return Err(TableError::Invalid.into());
        }
        // iptables-nft makes a built-in chain only when it is first used.
        let used = target.origin.is_some() || target.name == chain;
        let reason = if used { "Operation not supported" } else { "No such file or directory" };
        Err(Error::Resource(format!(" {operation} failed ({reason}): rule in chain {chain}")))
    }

    fn describe(&mut self, invocation: &Invocation, rules: &[Rule]) {
        if invocation.verbose > 0 {
            for rule in rules {
                self.out.push_str(&rule.describe(self.dialect));
                self.out.push('\n');
            }
        }
    }

    fn append(&mut self, invocation: &Invocation, chain: &str, rules: &[Rule]) -> Result<(), Error> {
        let held = self.admit(rules, Held::to_be_sent)?;
        self.table.chain_mut(chain)?;
        self.refuse_builtin_target(chain, rules, "RULE_APPEND")?;
        self.validate(rules, chain, "APPEND")?;
        self.describe(invocation, rules);
        self.table.chain_mut(chain)?.rules.extend(held);
        Ok(())
    }

    fn insert(&mut self, invocation: &Invocation, chain: &str, position: u32, rules: &[Rule]) -> Result<(), Error> {
        let held = self.admit(rules, Held::to_be_sent)?;
        let length = self.table.chain_mut(chain)?.rules.len();
        self.refuse_builtin_target(chain, rules, "RULE_INSERT")?;
        self.validate(rules, chain, "INSERT")?;
        let index = index_of(position).filter(|index| *index <= length).ok_or(TableError::InsertIndex)?;
        // They stand in the chain in the opposite order to that in which they were asked for.
        rules.iter().rev().for_each(|rule| self.describe(invocation, std::slice::from_ref(rule)));
        self.table.chain_mut(chain)?.rules.splice(index..index, held);
        Ok(())
    }

    fn replace(&mut self, invocation: &Invocation, chain: &str, position: u32, rules: &[Rule]) -> Result<(), Error> {
        let held = self.admit(rules, Held::to_be_sent)?;
        self.table.chain_mut(chain)?;
        self.refuse_builtin_target(chain, rules, "RULE_REPLACE")?;
        self.validate(rules, chain, "REPLACE")?;
        let index = self.existing(chain, position, TableError::ReplaceIndex)?;
        self.describe(invocation, rules);
        let target = self.table.chain_mut(chain)?;
        target.rules.splice(index..=index, held);
        Ok(())
    }

    /// Index of the rule at a 1-based position. iptables-nft makes built-in chains only when they are first used, and
    /// says so when one that was never used is asked for a rule by number.
    fn existing(&mut self, chain: &str, position: u32, missing: TableError) -> Result<usize, Error> {
        let (never_used, renewed) = (self.dialect.variant == Variant::Nft, self.table.renewed);
        let chain = self.table.chain_mut(chain)?;
        match index_of(position).filter(|index| *index < chain.rules.len()) {
            Some(index) => Ok(index),
            None if never_used
                && chain.base.is_some()
                && (renewed || chain.origin.is_none())
                && chain.rules.is_empty() =>
            {
                Err(TableError::NoChain.into())
            }
            None => Err(missing.into()),
        }
    }

    fn find(&self, chain: &str, wanted: &Held, sought: &Rule) -> Result<usize, Error> {
        let rules = &self.table.chain(chain).ok_or(TableError::BadRule)?.rules;
        rules.iter().position(|rule| rule.is(wanted)).ok_or_else(|| self.not_found(sought).into())
    }

    /// iptables-legacy has other words for a rule with more of a target than a verdict.
    fn not_found(&self, rule: &Rule) -> TableError {
        let verdict = matches!(rule.target, Target::None | Target::Accept | Target::Drop | Target::Return);
        if verdict || self.dialect.variant == Variant::Nft { TableError::BadRule } else { TableError::NoChain }
    }

    fn delete(&mut self, invocation: &Invocation, chain: &str, rules: &[Rule]) -> Result<(), Error> {
        let wanted = self.admit(rules, Held::new)?;
        for (rule, held) in rules.iter().zip(&wanted) {
            let found = self.find(chain, held, rule);
            if self.dialect.variant == Variant::Legacy || found.is_ok() {
                self.describe(invocation, std::slice::from_ref(rule));
            }
            let index = found?;
            self.table.chain_mut(chain)?.rules.remove(index);
        }
        Ok(())
    }

    fn check(&mut self, invocation: &Invocation, chain: &str, rules: &[Rule]) -> Result<(), Error> {
        let wanted = self.admit(rules, Held::new)?;
        for (rule, held) in rules.iter().zip(&wanted) {
            let found = self.find(chain, held, rule);
            if self.dialect.variant == Variant::Legacy || found.is_ok() {
                self.describe(invocation, std::slice::from_ref(rule));
            }
            found?;
        }
        Ok(())
    }

    fn delete_number(&mut self, chain: &str, position: u32) -> Result<(), Error> {
        let index = self.existing(chain, position, TableError::DeleteIndex)?;
        self.table.chain_mut(chain)?.rules.remove(index);
        Ok(())
    }

    fn names(&self, chain: Option<&str>) -> Result<Vec<String>, Error> {
        match chain {
            Some(name) => {
                self.table.chain(name).ok_or(TableError::NoChain)?;
                Ok(vec![name.to_owned()])
            }
            None => Ok(self.table.chains.iter().map(|chain| chain.name.clone()).collect()),
        }
    }

    fn flush(&mut self, invocation: &Invocation, chain: Option<&str>) -> Result<(), Error> {
        if let (Some(name), true, Variant::Legacy) = (chain, invocation.verbose > 0, self.dialect.variant) {
            self.out.push_str(&format!("Flushing chain `{name}'\n"));
        }
        let told = invocation.verbose > 0 && !(chain.is_some() && self.dialect.variant == Variant::Legacy);
        for name in self.names(chain)? {
            if told {
                self.out.push_str(&format!("Flushing chain `{name}'\n"));
            }
            self.table.chain_mut(&name)?.rules.clear();
        }
        Ok(())
    }

    fn zero(&mut self, invocation: &Invocation, chain: Option<&str>, position: Option<u32>) -> Result<(), Error> {
        if let (Some(name), Some(position)) = (chain, position) {
            return self.zero_rule(name, position);
        }
        let nft = self.dialect.variant == Variant::Nft;
        for name in self.names(chain)? {
            let chain = self.table.chain_mut(&name)?;
            if invocation.verbose > 0 && (!nft || chain.origin.is_some()) {
                self.out.push_str(&format!("Zeroing chain `{name}'\n"));
            }
            chain.rules.iter_mut().for_each(Held::zero);
            if let Some(base) = &mut chain.base {
                base.counters = (0, 0);
            }
        }
        Ok(())
    }

    fn zero_rule(&mut self, chain: &str, position: u32) -> Result<(), Error> {
        match self.existing(chain, position, TableError::CounterIndex) {
            Ok(index) => {
                if let Some(rule) = self.table.chain_mut(chain)?.rules.get_mut(index) {
                    rule.zero();
                }
                Ok(())
            }
            Err(error) if self.dialect.variant == Variant::Legacy => Err(error),
            // iptables-nft looked for nothing there up to 1.8.10.
            Err(Error::Table(TableError::CounterIndex)) if self.dialect.version < (1, 8, 11) => Ok(()),
            Err(_) => Err(TableError::BadRule.into()),
        }
    }

    fn new_chain(&mut self, name: &str) -> Result<(), Error> {
        match self.table.place(name) {
            Ok(_) => Err(TableError::ChainExists.into()),
            Err(place) => {
                self.table.chains.insert(place, Chain::user(name));
                Ok(())
            }
        }
    }

    fn delete_chain(&mut self, invocation: &Invocation, chain: Option<&str>) -> Result<(), Error> {
        let names = match chain {
            Some(name) => vec![name.to_owned()],
            None => {
                let users = self.table.chains.iter().filter(|chain| chain.base.is_none());
                users.map(|chain| chain.name.clone()).collect()
            }
        };
        let mut failure = None;
        let legacy = self.dialect.variant == Variant::Legacy;
        let references = self.table.references();
        let told =
            |name: &str| if invocation.verbose > 0 { format!("Deleting chain `{name}'\n") } else { String::new() };
        for name in &names {
            if legacy {
                self.out.push_str(&told(name));
            }
            let chain = self.table.chain(name).ok_or(TableError::NoChain)?;
            let referenced = references.contains_key(name.as_str());
            let obstacle = self.undeletable(chain, referenced);
            // iptables-nft says at the end what the kernel thought of it.
            if !legacy && (chain.base.is_none() || obstacle.is_none()) {
                self.out.push_str(&told(name));
            }
            match obstacle {
                // iptables-legacy tries them all and tells of the last that failed.
                Some(error) if legacy => failure = Some(error),
                Some(error) => failure = failure.or(Some(error)),
                None => {}
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let names: HashSet<String> = names.into_iter().collect();
        for chain in self.table.chains.iter_mut().filter(|chain| names.contains(&chain.name)) {
            chain.base = chain.base.and(Chain::untouched(&chain.name).base);
        }
        self.table.chains.retain(|chain| chain.base.is_some() || !names.contains(&chain.name));
        Ok(())
    }

    /// What stands against deleting a chain. iptables-nft has let go of built-in chains, which it makes when they are
    /// used, since 1.8.8.
    fn undeletable(&self, chain: &Chain, referenced: bool) -> Option<Error> {
        let (name, builtin, empty) = (&chain.name, chain.base.is_some(), chain.rules.is_empty());
        match self.dialect.variant {
            Variant::Nft if builtin && self.dialect.version < (1, 8, 8) => Some(TableError::BuiltinDelete.into()),
            Variant::Nft if builtin && chain.origin.is_none() => Some(TableError::NoChain.into()),
            Variant::Nft if referenced || !empty => {
                let operation = if self.dialect.version < (1, 8, 8) { "CHAIN_USER_DEL" } else { "CHAIN_DEL" };
                Some(Error::Resource(format!(" {operation} failed (Device or resource busy): chain {name}")))
            }
            Variant::Legacy if builtin => Some(TableError::BuiltinDelete.into()),
            Variant::Legacy if referenced => Some(TableError::TooManyLinks.into()),
            Variant::Legacy if !empty => Some(TableError::NotEmpty.into()),
            _ => None,
        }
    }

    fn rename_chain(&mut self, from: &str, to: &str) -> Result<(), Error> {
        if self.table.chain(to).is_some() {
            return Err(TableError::FileExists.into());
        }
        let chain = self.table.chain_mut(from)?;
        if chain.base.is_some() {
            return Err(TableError::NoChain.into());
        }
        chain.name = to.to_owned();
        for rule in self.table.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            if rule.jump.as_deref() == Some(from) {
                rule.jump = Some(to.to_owned());
            }
        }
        self.table.sort();
        Ok(())
    }

    fn set_policy(&mut self, chain: &str, policy: &str, counters: Option<Counters>) -> Result<(), Error> {
        let legacy = self.dialect.variant == Variant::Legacy;
        let base = self.table.chain_mut(chain).ok().and_then(|chain| chain.base.as_mut());
        let base = base.ok_or(TableError::BadBuiltin)?;
        base.policy = Policy::parse(policy).ok_or(TableError::BadPolicy)?;
        if let (Some(counters), true) = (counters, legacy) {
            base.counters = counters;
        }
        Ok(())
    }

    fn shown(&self, chain: Option<&str>) -> Result<Vec<&Chain>, Error> {
        match chain {
            None => Ok(self.table.chains.iter().collect()),
            Some(name) => match self.table.chain(name) {
                Some(chain) => Ok(vec![chain]),
                None => Err(self.unlistable(name)),
            },
        }
    }

    /// iptables-nft of 1.8.7 to 1.8.9 has words of its own for listing a chain that is not there.
    fn unlistable(&self, chain: &str) -> Error {
        let odd = self.dialect.variant == Variant::Nft && ((1, 8, 7)..(1, 8, 10)).contains(&self.dialect.version);
        if !odd {
            return TableError::NoChain.into();
        }
        let prefix = self.dialect.prefix();
        let table = &self.table.name;
        let blank = self.dialect.blank_line();
        let stderr = format!("{prefix}: chain `{chain}' in table `{table}' is incompatible, use 'nft' tool.\n{blank}");
        Error::Verbatim { stderr, code: 1 }
    }

    fn list(&mut self, invocation: &Invocation, chain: Option<&str>, position: Option<u32>) -> Result<(), Error> {
        let options = ListOptions {
            verbose: invocation.verbose > 0,
            numeric: invocation.numeric,
            exact: invocation.exact,
            line_numbers: invocation.line_numbers,
        };
        let mut text = String::new();
        let references = self.table.references();
        for (count, chain) in self.shown(chain)?.into_iter().enumerate() {
            if count > 0 {
                text.push('\n');
            }
            if position.is_none() {
                let state = match chain.base {
                    Some(base) => ChainState::Policy(base.policy.as_str(), base.counters),
                    None => ChainState::References(references.get(chain.name.as_str()).copied().unwrap_or(0)),
                };
                text.push_str(&iptables::list_header(&chain.name, state, &options, self.dialect));
            }
            for (index, held) in chain.rules.iter().enumerate() {
                let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
                if position.is_none_or(|wanted| wanted == number) {
                    let rule = held.rule(self.table.family, &self.table.name)?;
                    text.push_str(&rule.list(self.dialect, &options, number));
                    text.push('\n');
                }
            }
        }
        self.out.push_str(&text);
        Ok(())
    }

    fn list_rules(&mut self, invocation: &Invocation, chain: Option<&str>, position: Option<u32>) -> Result<(), Error> {
        let counted = invocation.verbose > 0;
        let mut text = String::new();
        let shown = self.shown(chain)?;
        if position.is_none() {
            for chain in &shown {
                match chain.base {
                    Some(Base { policy, counters: (packets, bytes) }) => {
                        text.push_str(&format!("-P {} {}", chain.name, policy.as_str()));
                        if counted {
                            text.push_str(&format!(" -c {packets} {bytes}"));
                        }
                        text.push('\n');
                    }
                    None => text.push_str(&format!("-N {}\n", chain.name)),
                }
            }
        }
        for chain in shown {
            for (index, held) in chain.rules.iter().enumerate() {
                if position.is_some() && position.and_then(index_of) != Some(index) {
                    continue;
                }
                if !counted {
                    held.save_line(&mut text, self.table, &chain.name, self.dialect)?;
                    continue;
                }
                let rule = held.rule(self.table.family, &self.table.name)?;
                push_line(&mut text, &chain.name, &rule.save_with_counters(self.dialect));
            }
        }
        self.out.push_str(&text);
        Ok(())
    }

    /// Appends the table as iptables-save does.
    pub fn save(&mut self, counters: bool) -> Result<(), Error> {
        let mut text = format!("*{}\n", self.table.name);
        for chain in &self.table.chains {
            match chain.base {
                Some(Base { policy, counters: (packets, bytes) }) => {
                    text.push_str(&format!(":{} {} [{packets}:{bytes}]\n", chain.name, policy.as_str()));
                }
                None => text.push_str(&format!(":{} - [0:0]\n", chain.name)),
            }
        }
        for chain in &self.table.chains {
            for held in &chain.rules {
                if counters {
                    let _ = write!(text, "[{}:{}] ", held.counters.0, held.counters.1);
                }
                held.save_line(&mut text, self.table, &chain.name, self.dialect)?;
            }
        }
        text.push_str("COMMIT\n");
        self.out.push_str(&text);
        Ok(())
    }

    /// What `:CHAIN POLICY [packets:bytes]` in a restore file does.
    pub fn declare(
        &mut self,
        name: &str,
        policy: &str,
        counters: Option<Counters>,
        noflush: bool,
    ) -> Result<(), Error> {
        let legacy = self.dialect.variant == Variant::Legacy;
        if let Ok(Chain { base: Some(base), .. }) = self.table.chain_mut(name) {
            if policy != "-" {
                base.policy = Policy::parse(policy).ok_or(TableError::BadPolicy)?;
            }
            if let Some(counters) = counters
                && (policy != "-" || !legacy)
            {
                base.counters = counters;
            }
            return Ok(());
        }
        if ext::is_target_name(name, self.table.family) && !matches!(name, "ACCEPT" | "DROP" | "RETURN" | "QUEUE") {
            // To iptables, -j means the chain then.
            let why = format!("a jump to {name} would mean the target of that name here");
            return Err(Refusal::new(format!(":{name}"), why).into());
        }
        if matches!(name, "ACCEPT" | "DROP" | "RETURN" | "QUEUE") {
            return Err(match legacy {
                true => Error::Parameter(format!("error creating chain '{name}':File exists")),
                false => Error::Parameter("chain name may not clash with target name".to_owned()),
            });
        }
        if policy != "-" && legacy {
            return Err(TableError::BadBuiltin.into());
        }
        match self.table.chain_mut(name) {
            Ok(_) if legacy && !noflush => Err(Error::Parameter(format!("error creating chain '{name}':File exists"))),
            Ok(chain) => {
                chain.rules.clear();
                Ok(())
            }
            Err(_) => self.new_chain(name),
        }
    }

    /// What a restore without `--noflush` begins with.
    pub fn clear(&mut self, verbose: bool) {
        self.table.renewed = true;
        let names = self.table.chains.iter().map(|chain| format!("Flushing chain `{}'\n", chain.name));
        let users = self.table.chains.iter().filter(|chain| chain.base.is_none());
        let told = names.chain(users.map(|chain| format!("Deleting chain `{}'\n", chain.name)));
        if verbose {
            self.out.extend(told);
        }
        self.table.chains.retain(|chain| chain.base.is_some());
        for chain in &mut self.table.chains {
            chain.rules.clear();
            // iptables-nft takes the whole table away, policies too; but where it is to tell of it, chain after chain.
            if self.dialect.variant == Variant::Nft && !verbose {
                chain.base = Chain::untouched(&chain.name).base;
            }
        }
    }
}

/// A rule as `-S` and iptables-save print it.
fn push_line(out: &mut String, chain: &str, spec: &str) {
    let blank = if spec.is_empty() { "" } else { " " };
    for word in ["-A ", chain, blank, spec, "\n"] {
        out.push_str(word);
    }
}

fn index_of(position: u32) -> Option<usize> {
    usize::try_from(position.checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::nft::{builtins, lines};
    use super::super::{Section, hooks};
    use super::*;

    /// What iptables 1.8.9 said to commands given one after another on a raw table that nothing had touched: after `$` the
    /// command, then its standard output, after `!` its standard error, after `=` its exit code unless that is 0.
    const SAID: [(Variant, &str); 2] = [
        (Variant::Legacy, include_str!("../../tests/agreement/raw-1.8.9-legacy.txt")),
        (Variant::Nft, include_str!("../../tests/agreement/raw-1.8.9-nft.txt")),
    ];

    fn untouched() -> Table {
        let chains = builtins("raw").iter().map(|builtin| Chain::untouched(builtin.name)).collect();
        Table { chains, ..Table::empty(Family::V4, "raw") }
    }

    /// The change is in the kernel: it has the chains that it needs, and every rule.
    fn settle(table: &mut Table) {
        for chain in table.chains.iter_mut() {
            let made = chain.origin.is_some() || chain.is_in_use();
            chain.origin = made.then(|| (chain.name.clone(), 1));
            chain.rules.iter_mut().for_each(|held| held.handles = vec![1]);
        }
        (table.exists, table.renewed) = (true, false);
    }

    fn run(table: &mut Table, dialect: &Dialect, command: &str, out: &mut String) -> Result<(), Error> {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        if word == "save" {
            return Session { table, dialect, out }.save(rest == "-c");
        }
        let words: Vec<String> = ["-t", "raw"].into_iter().chain(command.split(' ')).map(str::to_owned).collect();
        if word != "restore" {
            let invocation = iptables::parse(Family::V4, &words, dialect)?;
            return Session { table, dialect, out }.run(&invocation);
        }
        let (options, text) = rest.split_once('*').unwrap_or_default();
        let text: Vec<String> = text.split_inclusive("\\n").map(|line| line.replace("\\n", "\n")).collect();
        let complete = text.last().is_some_and(|line| line == "COMMIT\n");
        let section = Section {
            lines: (2..).zip(text.iter().skip(1).map(String::as_str).filter(|line| *line != "COMMIT\n")).collect(),
            commit: text.len(),
            complete,
            noflush: options.contains("-n"),
            counters: options.contains("-c"),
            test: false,
            comments: false,
            verbose: options.contains("-v") && !options.contains("-n"),
        };
        let mut session = Session { table, dialect, out };
        lines(&mut session, &mut Vec::new(), &section, Family::V4, "raw").map_err(|failed| failed.error)
    }

    #[test]
    fn each_command_says_what_it_says_in_iptables() {
        for (variant, said) in SAID {
            let dialect = Dialect { family: Family::V4, variant, version: (1, 8, 9) };
            let mut table = untouched();
            for answer in said.split("$ ").skip(1) {
                let (command, expected) = answer.split_once('\n').unwrap_or((answer, ""));
                let (before, mut after, mut out) = (table.clone(), table.clone(), String::new());
                let done =
                    run(&mut after, &dialect, command, &mut out).and_then(|()| hooks::check(&before, &after, &dialect));
                match done {
                    Ok(()) => {
                        table = after;
                        settle(&mut table);
                    }
                    Err(_) if command.starts_with("restore") => out.push_str("= failed\n"),
                    Err(error) => {
                        error.render(&dialect).lines().for_each(|line| out.push_str(&format!("! {line}\n")));
                        out.push_str(&format!("= {}\n", error.code()));
                    }
                }
                assert_eq!(out, expected, "{variant:?}: {command}");
            }
        }
    }

    #[test]
    fn a_rule_that_was_just_given_is_sent_as_it_is_by_now() {
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
        let mut table = Table::empty(Family::V4, "raw");
        let mut after = |commands: &[&str]| {
            for command in commands {
                run(&mut table, &dialect, command, &mut String::new()).expect(command);
            }
            let held = &table.chains[1].rules[0];
            held.given().map(|rule| (rule.counters, rule.jump().map(str::to_owned)))
        };
        let calls = |chain: &str| Some(chain.to_owned());
        assert_eq!(after(&["-N a", "-N b", "-A b -c 1 2 -j a"]), Some(((1, 2), calls("a"))));
        assert!(after(&["-E a aa"]).is_none_or(|sent| sent == ((1, 2), calls("aa"))));
        assert!(after(&["-E aa a", "-Z"]).is_none_or(|sent| sent == ((0, 0), calls("a"))));
    }

    #[test]
    fn tables_read_the_same_whatever_was_counted() {
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
        let table = |commands: &[&str]| {
            let mut table = untouched();
            for command in commands {
                run(&mut table, &dialect, command, &mut String::new()).expect(command);
            }
            table
        };
        let one = table(&["-N a", "-N b", "-A a -j b", "-P OUTPUT DROP"]);
        assert!(one.reads_as(&table(&["-N a", "-N b", "-A a -c 1 2 -j b", "-P OUTPUT DROP"])));
        for other in [
            ["-N a", "-N b", "-A a -g b", "-P OUTPUT DROP"],
            ["-N a", "-N b", "-A a -j b", "-P OUTPUT ACCEPT"],
            ["-N a", "-N c", "-A a -j c", "-P OUTPUT DROP"],
            ["-N a", "-N b", "-A b -j a", "-P OUTPUT DROP"],
            ["-N a", "-N b", "-P PREROUTING DROP", "-P OUTPUT DROP"],
        ] {
            assert!(!one.reads_as(&table(&other)), "{other:?}");
        }
        assert!(!one.reads_as(&table(&["-N a", "-N b", "-N c", "-A a -j b", "-P OUTPUT DROP"])));
        assert!(!table(&["-N a", "-N c"]).reads_as(&table(&["-N a", "-N b"])));
    }

    #[test]
    fn chains_that_call_each_other_in_a_circle_are_looked_through_once() {
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
        let mut table = untouched();
        let commands =
            ["-N a", "-N b", "-A a -j b", "-A b -j a", "-A a -m owner --uid-owner 0 -j DROP", "-A OUTPUT -j a"];
        for command in commands {
            let before = table.clone();
            run(&mut table, &dialect, command, &mut String::new()).expect(command);
            hooks::check(&before, &table, &dialect).expect(command);
        }
    }
}
