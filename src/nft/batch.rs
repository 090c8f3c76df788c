//! One transaction: operations in order, each remembered so that an error can be attributed to it.

#![forbid(unsafe_code)]

use super::expr::{Alternative, Expr};
use super::lower::{self, Lowered, Malformed};
use super::uapi::{chain, counter, elem, hook, msg, nfnl, nl, rule, set, table, verdict};
use super::userdata;
use super::wire::Writer;
use crate::family::Family;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

/// So many elements of a verdict map always fit into an attribute's 64 KiB.
const ELEMENTS_MAX: usize = 200;

/// A table of nf_tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    /// Its address family.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

/// Where a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// NF_INET_PRE_ROUTING
    Prerouting,
    /// NF_INET_LOCAL_IN
    Input,
    /// NF_INET_FORWARD
    Forward,
    /// NF_INET_LOCAL_OUT
    Output,
    /// NF_INET_POST_ROUTING
    Postrouting,
}

impl HookPoint {
    /// All of them, by number.
    pub const ALL: [Self; 5] = [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];

    /// `enum nf_inet_hooks` (linux/netfilter.h).
    pub const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }

    /// The hook's name in nft syntax.
    pub const fn nft(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// Type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// For filtering.
    Filter,
    /// Routes again when the packet was changed.
    Route,
    /// Network address translation.
    Nat,
}

impl ChainKind {
    /// The type's name, to the kernel and in nft syntax.
    pub const fn nft(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Route => "route",
            Self::Nat => "nat",
        }
    }
}

/// What happens to a packet at the end of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// NF_ACCEPT
    Accept,
    /// NF_DROP
    Drop,
}

impl Policy {
    const fn number(self) -> u32 {
        match self {
            Self::Accept => verdict::ACCEPT as u32,
            Self::Drop => verdict::DROP as u32,
        }
    }

    /// The policy of that number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Drop),
            1 => Some(Self::Accept),
            _ => None,
        }
    }

    /// Its name in nft syntax.
    pub const fn nft(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        }
    }
}

/// A base chain to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is called.
    pub hook: HookPoint,
    /// Lower is earlier (`enum nf_ip_hook_priorities`, linux/netfilter_ipv4.h).
    pub priority: i32,
    /// Its type.
    pub kind: ChainKind,
    /// Its policy.
    pub policy: Policy,
    /// Packets and bytes that the policy has decided, as a start value.
    pub counters: (u64, u64),
}

/// Where a rule goes. The kernel takes operations one by one: several rules before one handle keep their order,
/// several after one handle or at the front come out reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At the end.
    Append,
    /// At the front.
    Prepend,
    /// Right before the rule with that handle.
    BeforeHandle(u64),
    /// Right behind the rule with that handle.
    AfterHandle(u64),
}

/// What an operation does; displayed as iptables names it in its errors (`RULE_APPEND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The transaction as a whole: no operation of its own.
    Commit,
    /// A new table.
    TableAdd,
    /// Takes a table away with all that is in it.
    TableDelete,
    /// Takes all rules of a table away.
    TableFlush,
    /// A base chain.
    ChainAdd,
    /// A chain of the user's.
    ChainUserAdd,
    /// Sets policy or policy counters.
    ChainUpdate,
    /// A new name for a chain.
    ChainRename,
    /// Takes a chain away.
    ChainDelete,
    /// Takes all rules of a chain away.
    ChainFlush,
    /// A rule at the end.
    RuleAppend,
    /// A rule elsewhere.
    RuleInsert,
    /// A rule for another.
    RuleReplace,
    /// Takes a rule away.
    RuleDelete,
    /// A verdict map.
    SetAdd,
    /// Takes a verdict map away.
    SetDelete,
    /// Addresses in a verdict map.
    ElementAdd,
    /// Takes addresses out of a verdict map.
    ElementDelete,
}

impl Operation {
    /// Whether it concerns one rule.
    pub const fn is_of_rule(self) -> bool {
        matches!(self, Self::RuleAppend | Self::RuleInsert | Self::RuleReplace | Self::RuleDelete)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "COMMIT",
            Self::TableAdd => "TABLE_ADD",
            Self::TableDelete => "TABLE_DELETE",
            Self::TableFlush => "TABLE_FLUSH",
            Self::ChainAdd => "CHAIN_ADD",
            Self::ChainUserAdd => "CHAIN_USER_ADD",
            Self::ChainUpdate => "CHAIN_UPDATE",
            Self::ChainRename => "CHAIN_RENAME",
            Self::ChainDelete => "CHAIN_DEL",
            Self::ChainFlush => "RULE_FLUSH",
            Self::RuleAppend => "RULE_APPEND",
            Self::RuleInsert => "RULE_INSERT",
            Self::RuleReplace => "RULE_REPLACE",
            Self::RuleDelete => "RULE_DELETE",
            Self::SetAdd => "SET_ADD",
            Self::SetDelete => "SET_DELETE",
            Self::ElementAdd => "SETELEM_ADD",
            Self::ElementDelete => "SETELEM_DELETE",
        })
    }
}

/// One operation of a transaction, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table's family.
    pub family: Family,
    /// The table, whose name all changes in it share.
    pub table: Rc<str>,
    /// What is done in it.
    pub action: Action,
}

/// What an operation does in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    AddTable,
    DeleteTable,
    FlushTable,
    AddBaseChain { name: String, hook: HookPoint, priority: i32, kind: ChainKind, policy: Policy },
    AddChain { name: String },
    SetPolicy { name: String, policy: Policy },
    RenameChain { from: String, to: String },
    DeleteChain { name: String },
    FlushChain { name: String },
    AddRule { chain: String, position: Position, rule: Alternative, comment: Option<String> },
    ReplaceRule { chain: String, handle: u64, rule: Alternative, comment: Option<String> },
    DeleteRule { chain: String, handle: u64 },
    AddMap { name: String },
    DeleteMap { name: String },
    AddElements { map: String, elements: Vec<(IpAddr, String)> },
    DeleteElements { map: String, addresses: Vec<IpAddr> },
    FlushMap { name: String },
}

impl Change {
    /// What kind of operation it is.
    pub fn operation(&self) -> Operation {
        match &self.action {
            Action::AddTable => Operation::TableAdd,
            Action::DeleteTable => Operation::TableDelete,
            Action::FlushTable => Operation::TableFlush,
            Action::AddBaseChain { .. } => Operation::ChainAdd,
            Action::AddChain { .. } => Operation::ChainUserAdd,
            Action::SetPolicy { .. } => Operation::ChainUpdate,
            Action::RenameChain { .. } => Operation::ChainRename,
            Action::DeleteChain { .. } => Operation::ChainDelete,
            Action::FlushChain { .. } => Operation::ChainFlush,
            Action::AddRule { position: Position::Append, .. } => Operation::RuleAppend,
            Action::AddRule { .. } => Operation::RuleInsert,
            Action::ReplaceRule { .. } => Operation::RuleReplace,
            Action::DeleteRule { .. } => Operation::RuleDelete,
            Action::AddMap { .. } => Operation::SetAdd,
            Action::DeleteMap { .. } => Operation::SetDelete,
            Action::AddElements { .. } => Operation::ElementAdd,
            Action::DeleteElements { .. } | Action::FlushMap { .. } => Operation::ElementDelete,
        }
    }

    /// The chain that it concerns.
    pub fn chain(&self) -> Option<&str> {
        match &self.action {
            Action::AddTable | Action::DeleteTable | Action::FlushTable => None,
            Action::AddMap { .. } | Action::DeleteMap { .. } | Action::FlushMap { .. } => None,
            Action::AddElements { .. } | Action::DeleteElements { .. } => None,
            Action::AddBaseChain { name, .. }
            | Action::AddChain { name }
            | Action::SetPolicy { name, .. }
            | Action::RenameChain { from: name, .. }
            | Action::DeleteChain { name }
            | Action::FlushChain { name }
            | Action::AddRule { chain: name, .. }
            | Action::ReplaceRule { chain: name, .. }
            | Action::DeleteRule { chain: name, .. } => Some(name),
        }
    }
}

/// One transaction in the making. The operations' order is the kernel's: a jump's chain must have been added before.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
    messages: Writer,
    /// For each message, which change it belongs to.
    owners: Vec<usize>,
    last: usize,
    next_set: u32,
    malformed: Option<usize>,
    /// Room for a rule's expressions, used again and again.
    room: Writer,
}

impl Batch {
    /// A transaction that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The operations in order, for the printers.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Makes a table, or does nothing where it is there.
    pub fn add_table(&mut self, at: Table<'_>) {
        self.push(at, Action::AddTable);
        self.message(at, msg::NEWTABLE, nl::F_CREATE, |out| {
            out.put_str(table::NAME, at.name);
            out.put_u32(table::FLAGS, 0);
        });
    }

    /// Takes a table away with all that is in it. ENOENT where there is none.
    pub fn delete_table(&mut self, at: Table<'_>) {
        self.push(at, Action::DeleteTable);
        self.message(at, msg::DELTABLE, 0, |out| out.put_str(table::NAME, at.name));
    }

    /// Makes a base chain; where it is there, sets its policy and counters (EEXIST if its hook differs).
    pub fn add_base_chain(&mut self, at: Table<'_>, new: BaseChain<'_>) {
        let BaseChain { hook, priority, kind, policy, .. } = new;
        self.push(at, Action::AddBaseChain { name: new.name.to_owned(), hook, priority, kind, policy });
        self.message(at, msg::NEWCHAIN, nl::F_CREATE, |out| {
            out.put_str(chain::TABLE, at.name);
            out.put_str(chain::NAME, new.name);
            out.put_str(chain::TYPE, kind.nft());
            out.nest(chain::HOOK, |out| {
                out.put_u32(hook::HOOKNUM, hook.number());
                out.put(hook::PRIORITY, &priority.to_be_bytes());
            });
            out.put_u32(chain::POLICY, policy.number());
            put_counters(out, new.counters);
        });
    }

    /// Makes a chain that is called by jumps only. EEXIST where it is there.
    pub fn add_chain(&mut self, at: Table<'_>, name: &str) {
        self.new_chain(at, name, nl::F_CREATE | nl::F_EXCL);
    }

    /// Makes a chain that is called by jumps only, or does nothing where it is there.
    pub fn ensure_chain(&mut self, at: Table<'_>, name: &str) {
        self.new_chain(at, name, nl::F_CREATE);
    }

    fn new_chain(&mut self, at: Table<'_>, name: &str, flags: u16) {
        self.push(at, Action::AddChain { name: name.to_owned() });
        self.message(at, msg::NEWCHAIN, flags, |out| {
            out.put_str(chain::TABLE, at.name);
            out.put_str(chain::NAME, name);
        });
    }

    /// Sets a base chain's policy, and its packet and byte counters if given.
    pub fn set_policy(&mut self, at: Table<'_>, name: &str, policy: Policy, counters: Option<(u64, u64)>) {
        self.push(at, Action::SetPolicy { name: name.to_owned(), policy });
        self.message(at, msg::NEWCHAIN, 0, |out| {
            out.put_str(chain::TABLE, at.name);
            out.put_str(chain::NAME, name);
            out.put_u32(chain::POLICY, policy.number());
            if let Some(counters) = counters {
                put_counters(out, counters);
            }
        });
    }

    /// Renames the chain with that handle; `from` is for errors and printers. EEXIST where the name is taken.
    pub fn rename_chain(&mut self, at: Table<'_>, handle: u64, from: &str, to: &str) {
        self.push(at, Action::RenameChain { from: from.to_owned(), to: to.to_owned() });
        self.message(at, msg::NEWCHAIN, 0, |out| {
            out.put_str(chain::TABLE, at.name);
            out.put_u64(chain::HANDLE, handle);
            out.put_str(chain::NAME, to);
        });
    }

    /// Takes a chain away. EBUSY where a rule refers to it, or where it holds rules: flush it before.
    pub fn delete_chain(&mut self, at: Table<'_>, name: &str) {
        self.push(at, Action::DeleteChain { name: name.to_owned() });
        self.message(at, msg::DELCHAIN, 0, |out| {
            out.put_str(chain::TABLE, at.name);
            out.put_str(chain::NAME, name);
        });
    }

    /// Takes all rules of a chain away.
    pub fn flush_chain(&mut self, at: Table<'_>, name: &str) {
        self.push(at, Action::FlushChain { name: name.to_owned() });
        self.message(at, msg::DELRULE, 0, |out| {
            out.put_str(rule::TABLE, at.name);
            out.put_str(rule::CHAIN, name);
        });
    }

    /// Takes all rules of all chains of a table away.
    pub fn flush_table(&mut self, at: Table<'_>) {
        self.push(at, Action::FlushTable);
        self.message(at, msg::DELRULE, 0, |out| out.put_str(rule::TABLE, at.name));
    }

    /// Adds a rule. `userdata` holds 256 bytes at most; empty: none.
    pub fn add_rule<'r>(
        &mut self,
        at: Table<'_>,
        chain: &str,
        position: Position,
        rule: impl Into<Cow<'r, [Expr]>>,
        userdata: &[u8],
    ) {
        let rule = rule.into();
        let lowered = self.lowered(&rule);
        let (name, comment) = (chain.to_owned(), userdata::comment(userdata));
        self.push(at, Action::AddRule { chain: name, position, rule: rule.into_owned(), comment });
        let flags = match position {
            Position::Append | Position::AfterHandle(_) => nl::F_CREATE | nl::F_APPEND,
            Position::Prepend | Position::BeforeHandle(_) => nl::F_CREATE,
        };
        self.rule_messages(at, chain, flags, lowered, userdata, |out| match position {
            Position::BeforeHandle(handle) | Position::AfterHandle(handle) => out.put_u64(rule::POSITION, handle),
            Position::Append | Position::Prepend => {}
        });
    }

    /// Puts a rule in the place of the one with that handle.
    pub fn replace_rule<'r>(
        &mut self,
        at: Table<'_>,
        chain: &str,
        handle: u64,
        rule: impl Into<Cow<'r, [Expr]>>,
        userdata: &[u8],
    ) {
        let rule = rule.into();
        let lowered = self.lowered(&rule);
        let (name, comment) = (chain.to_owned(), userdata::comment(userdata));
        self.push(at, Action::ReplaceRule { chain: name, handle, rule: rule.into_owned(), comment });
        self.rule_messages(at, chain, nl::F_REPLACE, lowered, userdata, |out| out.put_u64(rule::HANDLE, handle));
    }

    /// Takes the rule with that handle away.
    pub fn delete_rule(&mut self, at: Table<'_>, chain: &str, handle: u64) {
        self.push(at, Action::DeleteRule { chain: chain.to_owned(), handle });
        self.message(at, msg::DELRULE, 0, |out| {
            out.put_str(rule::TABLE, at.name);
            out.put_str(rule::CHAIN, chain);
            out.put_u64(rule::HANDLE, handle);
        });
    }

    /// Makes a map of addresses of the table's family to verdicts. EEXIST where it is there.
    pub fn add_map(&mut self, at: Table<'_>, name: &str) {
        self.push(at, Action::AddMap { name: name.to_owned() });
        let id = self.next_set;
        self.next_set += 1;
        self.message(at, msg::NEWSET, nl::F_CREATE | nl::F_EXCL, |out| lower::put_verdict_map(out, at, name, id));
    }

    /// Takes a verdict map away. EBUSY where a rule refers to it.
    pub fn delete_map(&mut self, at: Table<'_>, name: &str) {
        self.push(at, Action::DeleteMap { name: name.to_owned() });
        self.message(at, msg::DELSET, 0, |out| {
            out.put_str(set::TABLE, at.name);
            out.put_str(set::NAME, name);
        });
    }

    /// Has a verdict map jump to a chain for each of these addresses. EEXIST where it does something else for one.
    pub fn add_elements(&mut self, at: Table<'_>, map: &str, elements: &[(IpAddr, String)]) {
        for some in elements.chunks(ELEMENTS_MAX) {
            self.push(at, Action::AddElements { map: map.to_owned(), elements: some.to_vec() });
            self.message(at, msg::NEWSETELEM, nl::F_CREATE | nl::F_EXCL, |out| {
                lower::put_verdicts(out, at, map, some.iter().map(|(address, chain)| (*address, Some(&**chain))));
            });
        }
    }

    /// Takes these addresses out of a verdict map. ENOENT where one is not in it.
    pub fn delete_elements(&mut self, at: Table<'_>, map: &str, addresses: &[IpAddr]) {
        for some in addresses.chunks(ELEMENTS_MAX) {
            self.push(at, Action::DeleteElements { map: map.to_owned(), addresses: some.to_vec() });
            self.message(at, msg::DELSETELEM, 0, |out| {
                lower::put_verdicts(out, at, map, some.iter().map(|address| (*address, None)));
            });
        }
    }

    /// Takes all addresses out of a verdict map.
    pub fn flush_map(&mut self, at: Table<'_>, name: &str) {
        self.push(at, Action::FlushMap { name: name.to_owned() });
        self.message(at, msg::DELSETELEM, 0, |out| {
            out.put_str(elem::LIST_TABLE, at.name);
            out.put_str(elem::LIST_SET, name);
        });
    }

    fn lowered(&mut self, rule: &[Expr]) -> Result<Lowered, Malformed> {
        lower::rule(std::mem::take(&mut self.room), rule, &mut self.next_set)
    }

    fn rule_messages(
        &mut self,
        at: Table<'_>,
        chain: &str,
        flags: u16,
        lowered: Result<Lowered, Malformed>,
        userdata: &[u8],
        place: impl FnOnce(&mut Writer),
    ) {
        let Ok(lowered) = lowered else {
            self.malformed.get_or_insert(self.changes.len() - 1);
            return;
        };
        for set in &lowered.sets {
            self.message(at, msg::NEWSET, nl::F_CREATE, |out| set.put_set(out, at.name));
            self.message(at, msg::NEWSETELEM, nl::F_CREATE, |out| set.put_elements(out, at.name));
        }
        self.message(at, msg::NEWRULE, flags, |out| {
            out.put_str(rule::TABLE, at.name);
            out.put_str(rule::CHAIN, chain);
            place(out);
            out.nest(rule::EXPRESSIONS, |out| out.append(&lowered.expressions));
            if !userdata.is_empty() {
                out.put(rule::USERDATA, userdata);
            }
        });
        self.room = lowered.expressions.emptied();
    }

    fn push(&mut self, at: Table<'_>, action: Action) {
        let known = self.changes.last().map(|change| &change.table).filter(|table| ***table == *at.name);
        let table = known.map_or_else(|| Rc::from(at.name), Rc::clone);
        self.changes.push(Change { family: at.family, table, action });
    }

    /// A message of the last change.
    fn message(&mut self, at: Table<'_>, message: u8, flags: u16, fill: impl FnOnce(&mut Writer)) {
        self.last = self.messages.bytes().len();
        // The number within the batch; the connection adds its own when it sends.
        let seq = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        let start = self.messages.begin(message, nl::F_REQUEST | flags, seq, at.family.nfproto());
        fill(&mut self.messages);
        self.messages.end_message(start);
        self.owners.push(self.changes.len() - 1);
    }

    /// The change that holds a value which does not fit its key.
    pub(super) fn malformed(&self) -> Option<&Change> {
        self.changes.get(self.malformed?)
    }

    pub(super) fn too_long(&self) -> bool {
        self.messages.too_long()
    }

    pub(super) fn message_count(&self) -> usize {
        self.owners.len()
    }

    /// The change that the message of that number, counted from 0, belongs to.
    pub(super) fn owner(&self, message: usize) -> Option<&Change> {
        self.changes.get(*self.owners.get(message)?)
    }

    /// The datagram, in three pieces; no other can be made of the batch afterwards. Its sequence numbers are `first` for
    /// the beginning, then one more for each message; the last operation asks for an acknowledgement. Without `finish`
    /// the kernel prepares it all and throws it away.
    pub(super) fn datagram(&mut self, first: u32, generation: Option<u32>, finish: bool) -> [Vec<u8>; 3] {
        self.messages.request_ack(self.last);
        self.messages.renumber(first.wrapping_add(1));
        let mut out = Writer::new();
        let begin = out.begin_raw(nfnl::BATCH_BEGIN, nl::F_REQUEST, first, 0, nfnl::SUBSYS_NFTABLES);
        if let Some(generation) = generation {
            out.put_u32(nfnl::BATCH_GENID, generation);
        }
        out.end_message(begin);
        let mut behind = Writer::new();
        if finish {
            let seq = first.wrapping_add(1).wrapping_add(u32::try_from(self.owners.len()).unwrap_or(u32::MAX));
            let end = behind.begin_raw(nfnl::BATCH_END, nl::F_REQUEST, seq, 0, nfnl::SUBSYS_NFTABLES);
            behind.end_message(end);
        }
        [out, std::mem::take(&mut self.messages), behind].map(Writer::into_bytes)
    }
}

fn put_counters(out: &mut Writer, (packets, bytes): (u64, u64)) {
    out.nest(chain::COUNTERS, |out| {
        out.put_u64(counter::BYTES, bytes);
        out.put_u64(counter::PACKETS, packets);
    });
}
