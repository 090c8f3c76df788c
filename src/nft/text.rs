//! nft syntax: complete commands, one for each operation, that `nft -f -` takes.

#![forbid(unsafe_code)]

use super::batch::{Action, Batch, Change, Position};
use super::divert;
use super::expr::{Alternative, Base, Direction, Expr, Key, Limit, Log, Op, Verdict};
use super::names;
use super::nat;
use super::reject;
use super::syntax::{self, Atom, Left, Relation, Right, checked_chain, checked_prefix, unprintable};
use crate::family::Family;
use std::net::IpAddr;

pub use super::syntax::Unprintable;

/// Every operation of a batch, one command each. Policy counters and private user data, which nft syntax has no words
/// for, are left out: no packet depends on them.
///
/// # Errors
/// The first thing that nft syntax cannot say.
pub fn commands(batch: &Batch) -> Result<Vec<String>, Unprintable> {
    batch.changes().iter().map(command).collect()
}

/// What a transaction does, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The first operations as commands.
    pub lines: Vec<String>,
    /// How many there are besides.
    pub more: usize,
}

impl Told {
    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.more == 0
    }

    /// This, and what was done next.
    pub fn and(mut self, next: Self) -> Self {
        if self.more == 0 {
            self.lines.extend(next.lines);
            self.more = next.more;
        } else {
            self.more += next.lines.len() + next.more;
        }
        self
    }
}

impl From<Vec<String>> for Told {
    fn from(lines: Vec<String>) -> Self {
        Self { lines, more: 0 }
    }
}

/// The first operations of a batch as commands, until they take `room` bytes. The others are only made sure of.
///
/// # Errors
/// As [`commands`].
pub fn told(batch: &Batch, room: usize) -> Result<Told, Unprintable> {
    let (mut told, mut taken) = (Told::default(), 0);
    // Names that were made sure of: nearly always those of the change before.
    let mut known = ("", "");
    for change in batch.changes() {
        if taken < room {
            let line = command(change)?;
            taken += line.len();
            told.lines.push(line);
        } else {
            check(change, &mut known)?;
            told.more += 1;
        }
    }
    Ok(told)
}

/// Whether there is a command for it: does what can fail of [`command`], and no more.
fn check<'a>(change: &'a Change, known: &mut (&'a str, &'a str)) -> Result<(), Unprintable> {
    if known.0 != &*change.table {
        known.0 = checked_chain(&change.table)?;
    }
    match &change.action {
        Action::AddRule { chain, rule, .. } | Action::ReplaceRule { chain, rule, .. } => {
            if known.1 != chain {
                known.1 = checked_chain(chain)?;
            }
            check_rule(rule)
        }
        Action::RenameChain { to, .. } => checked_chain(to).map(drop),
        Action::AddMap { name } | Action::DeleteMap { name } | Action::FlushMap { name } => {
            checked_chain(name).map(drop)
        }
        Action::AddElements { map, elements } => {
            checked_chain(map)?;
            elements.iter().try_for_each(|(_, chain)| checked_chain(chain).map(drop))
        }
        Action::DeleteElements { map, .. } => checked_chain(map).map(drop),
        _ => change.chain().map_or(Ok(()), |chain| checked_chain(chain).map(drop)),
    }
}

fn check_rule(rule: &Alternative) -> Result<(), Unprintable> {
    syntax::relations(rule)?;
    for expr in rule {
        match expr {
            Expr::Match(_) | Expr::Counter { .. } | Expr::Quota { .. } | Expr::Notrack | Expr::CtZone { .. } => {}
            Expr::MarkSet { .. } | Expr::TraceSet => {}
            Expr::Limit(bucket) => drop(limit(*bucket)?),
            Expr::Log(target) => drop(log(target)?),
            Expr::Assign(assign) => drop(assign.text()?),
            Expr::Nat(target) => drop(nat::text(target, rule)?),
            Expr::Divert(target) => drop(divert::text(*target, rule)?),
            Expr::Reject(answer) => drop(reject::text(*answer)?),
            Expr::VerdictMap { key, map } => drop(verdict_map(*key, map)?),
            Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => drop(checked_chain(chain)?),
            Expr::Verdict(_) => {}
        }
    }
    if rule.is_empty() { nothing() } else { Ok(()) }
}

fn nothing<T>() -> Result<T, Unprintable> {
    unprintable("a rule without any expression")
}

/// One operation as a command.
///
/// # Errors
/// As [`commands`].
pub fn command(change: &Change) -> Result<String, Unprintable> {
    let table = format!("{} {}", change.family.nft(), checked_chain(&change.table)?);
    let chain = |name| checked_chain(name).map(|name| format!("{table} {name}"));
    Ok(match &change.action {
        Action::AddTable => format!("add table {table}"),
        Action::DeleteTable => format!("delete table {table}"),
        Action::FlushTable => format!("flush table {table}"),
        Action::AddBaseChain { name, hook, priority, kind, policy } => format!(
            "add chain {} {{ type {} hook {} priority {}; policy {}; }}",
            chain(name)?,
            kind.nft(),
            hook.nft(),
            priority_name(*priority),
            policy.nft(),
        ),
        Action::AddChain { name } => format!("add chain {}", chain(name)?),
        Action::SetPolicy { name, policy } => format!("add chain {} {{ policy {}; }}", chain(name)?, policy.nft()),
        Action::RenameChain { from, to } => format!("rename chain {} {}", chain(from)?, checked_chain(to)?),
        Action::DeleteChain { name } => format!("delete chain {}", chain(name)?),
        Action::FlushChain { name } => format!("flush chain {}", chain(name)?),
        Action::AddRule { chain: name, position, rule, comment } => {
            let (verb, place) = match position {
                Position::Append => ("add", String::new()),
                Position::Prepend => ("insert", String::new()),
                Position::BeforeHandle(handle) => ("insert", format!(" handle {handle}")),
                Position::AfterHandle(handle) => ("add", format!(" handle {handle}")),
            };
            format!("{verb} rule {}{place} {}", chain(name)?, commented(change.family, rule, comment.as_deref())?)
        }
        Action::ReplaceRule { chain: name, handle, rule, comment } => {
            let rule = commented(change.family, rule, comment.as_deref())?;
            format!("replace rule {} handle {handle} {rule}", chain(name)?)
        }
        Action::DeleteRule { chain: name, handle } => format!("delete rule {} handle {handle}", chain(name)?),
        Action::AddMap { name } => {
            let address = if change.family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" };
            format!("add map {} {{ type {address} : verdict; }}", chain(name)?)
        }
        Action::DeleteMap { name } => format!("delete map {}", chain(name)?),
        Action::FlushMap { name } => format!("flush map {}", chain(name)?),
        Action::AddElements { map, elements } => {
            let jump = |(address, to): &(IpAddr, String)| Ok(format!("{address} : jump {}", checked_chain(to)?));
            let elements = elements.iter().map(jump).collect::<Result<Vec<_>, _>>()?;
            format!("add element {} {{ {} }}", chain(map)?, elements.join(", "))
        }
        Action::DeleteElements { map, addresses } => {
            let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            format!("delete element {} {{ {} }}", chain(map)?, addresses.join(", "))
        }
    })
}

/// What stands behind the chain in `add rule`.
///
/// # Errors
/// As [`commands`].
pub fn rule(_family: Family, rule: &Alternative) -> Result<String, Unprintable> {
    let mut relations = syntax::relations(rule)?.into_iter();
    let mut words = Vec::new();
    for expr in rule {
        words.push(match expr {
            Expr::Match(_) => relations.next().map(|relation| self::relation(&relation)).unwrap_or_default(),
            Expr::Counter { packets, bytes } => format!("counter packets {packets} bytes {bytes}"),
            Expr::Limit(bucket) => limit(*bucket)?,
            Expr::Quota { bytes, over } => format!("quota {}{bytes} bytes", if *over { "over " } else { "" }),
            Expr::Log(target) => log(target)?,
            Expr::Notrack => "notrack".to_owned(),
            Expr::CtZone { zone, direction } => format!("ct {}zone set {zone}", direction_word(*direction)),
            Expr::MarkSet { value, mask: u32::MAX } => format!("meta mark set {value:#010x}"),
            Expr::MarkSet { value, mask } => format!("meta mark set meta mark & {:#010x} ^ {value:#010x}", !mask),
            Expr::Assign(assign) => assign.text()?,
            Expr::TraceSet => "meta nftrace set 1".to_owned(),
            Expr::Nat(target) => nat::text(target, rule)?,
            Expr::Divert(target) => divert::text(*target, rule)?,
            Expr::Reject(answer) => reject::text(*answer)?,
            Expr::VerdictMap { key, map } => verdict_map(*key, map)?,
            Expr::Verdict(end) => verdict(end)?,
        });
    }
    if words.is_empty() { nothing() } else { Ok(words.join(" ")) }
}

fn commented(family: Family, rule: &Alternative, comment: Option<&str>) -> Result<String, Unprintable> {
    let text = self::rule(family, rule)?;
    Ok(match comment.filter(|comment| names::comment_ok(comment)) {
        Some(comment) => format!("{text} comment \"{comment}\""),
        None => text,
    })
}

/// Names of `enum nf_ip_hook_priorities` (linux/netfilter_ipv4.h) that nft has words for at every hook.
fn priority_name(priority: i32) -> String {
    match priority {
        -300 => "raw".to_owned(),
        -150 => "mangle".to_owned(),
        0 => "filter".to_owned(),
        50 => "security".to_owned(),
        other => other.to_string(),
    }
}

fn relation(relation: &Relation) -> String {
    let mask = relation.mask.as_ref().map(|mask| format!(" & {}", grouped(mask))).unwrap_or_default();
    let bare = relation.mask.is_none() && !matches!(relation.right, Right::One(Atom::Flags(_) | Atom::Hex(..)));
    let op = match relation.op {
        Op::Eq if bare => "",
        Op::Eq => " ==",
        Op::Ne => " !=",
        Op::Lt => " <",
        Op::Le => " <=",
        Op::Gt => " >",
        Op::Ge => " >=",
    };
    let right = match &relation.right {
        Right::One(value) => atom(value),
        Right::Range(from, to) => format!("{}-{}", atom(from), atom(to)),
        Right::Set(elements) => format!("{{ {} }}", elements.iter().map(element).collect::<Vec<_>>().join(", ")),
        Right::AnyOf(bits) => bits.iter().map(atom).collect::<Vec<_>>().join(","),
    };
    format!("{}{mask}{op} {right}", left(relation.left))
}

fn left(left: Left) -> String {
    match left {
        Left::Field(header, field) => format!("{header} {field}"),
        Left::Raw { base, offset, len } => format!("@{},{offset},{len}", base_word(base)),
        Left::Meta(key @ ("iifname" | "oifname")) => key.to_owned(),
        Left::Meta(key) => format!("meta {key}"),
        Left::Ct(key, direction) => format!("ct {}{key}", direction_word(direction)),
        Left::Fib { saddr, iif, oif } => {
            let address = if saddr { "saddr" } else { "daddr" };
            format!("fib {address}{}{} type", if iif { " . iif" } else { "" }, if oif { " . oif" } else { "" })
        }
        Left::TcpOption(kind) => format!("tcp option {kind}"),
        Left::Circumstance(which) => which.text(),
        Left::ExtHdr(header, None) => format!("exthdr {header}"),
        Left::ExtHdr(header, Some(field)) => format!("{header} {field}"),
    }
}

fn base_word(base: Base) -> &'static str {
    match base {
        Base::Link => "ll",
        Base::Network => "nh",
        Base::Transport => "th",
    }
}

fn direction_word(direction: Option<Direction>) -> &'static str {
    match direction {
        Some(Direction::Original) => "original ",
        Some(Direction::Reply) => "reply ",
        None => "",
    }
}

fn element((from, to): &(Atom, Option<Atom>)) -> String {
    match to {
        Some(to) => format!("{}-{}", atom(from), atom(to)),
        None => atom(from),
    }
}

fn grouped(value: &Atom) -> String {
    match value {
        Atom::Flags(bits) if bits.len() > 1 => format!("({})", atom(value)),
        _ => atom(value),
    }
}

fn atom(value: &Atom) -> String {
    match value {
        Atom::Decimal(number) => number.to_string(),
        Atom::Hex(number, digits) => format!("0x{number:0digits$x}"),
        Atom::Symbol(name) => (*name).to_owned(),
        Atom::Address(address) => address.to_string(),
        Atom::Ether(address) => address.clone(),
        Atom::Prefix(address, len) => format!("{address}/{len}"),
        Atom::Name(name) => format!("\"{name}\""),
        Atom::Time(milliseconds) => time(*milliseconds),
        Atom::Flags(bits) => bits.iter().map(atom).collect::<Vec<_>>().join(" | "),
        Atom::Present(true) => "exists".to_owned(),
        Atom::Present(false) => "missing".to_owned(),
    }
}

pub(super) fn time(milliseconds: u32) -> String {
    match (milliseconds / 1000, milliseconds % 1000) {
        (seconds, 0) => format!("{seconds}s"),
        (0, rest) => format!("{rest}ms"),
        (seconds, rest) => format!("{seconds}s{rest}ms"),
    }
}

fn limit(bucket: Limit) -> Result<String, Unprintable> {
    let over = if bucket.invert { "over " } else { "" };
    let unit = syntax::limit_unit(bucket.unit)?;
    Ok(format!("limit rate {over}{}/{unit} burst {} packets", bucket.rate, bucket.burst))
}

fn log(target: &Log) -> Result<String, Unprintable> {
    let mut words = vec!["log".to_owned()];
    let prefix = |prefix: &Option<String>| {
        prefix.as_deref().map(|prefix| checked_prefix(prefix).map(|prefix| format!("prefix \"{prefix}\""))).transpose()
    };
    match target {
        Log::Kernel { prefix: text, level, flags } => {
            words.extend(prefix(text)?);
            let Some(level) = syntax::LOG_LEVELS.get(usize::from(*level)) else {
                return unprintable("a log level beyond 7");
            };
            words.push(format!("level {level}"));
            words.extend(log_flags(*flags)?);
        }
        Log::Audit => words.push("level audit".to_owned()),
        Log::Group { group, prefix: text, snaplen, threshold } => {
            words.extend(prefix(text)?);
            words.push(format!("group {group}"));
            words.extend(snaplen.map(|snaplen| format!("snaplen {snaplen}")));
            words.extend(threshold.map(|threshold| format!("queue-threshold {threshold}")));
        }
    }
    Ok(words.join(" "))
}

fn log_flags(flags: u32) -> Result<Vec<String>, Unprintable> {
    if flags & !syntax::LOG_ALL != 0 {
        return unprintable("a log flag without a name");
    }
    if flags == syntax::LOG_ALL {
        return Ok(vec!["flags all".to_owned()]);
    }
    // `tcp` takes both of its flags in one word; said twice, the second would replace the first.
    let names = syntax::LOG_FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| format!("flags {name}"));
    let text = names
        .collect::<Vec<_>>()
        .join(" ")
        .replace("flags tcp sequence flags tcp options", "flags tcp sequence,options");
    Ok((!text.is_empty()).then_some(text).into_iter().collect())
}

/// Maps are named as chains are.
fn verdict_map(key: Key, map: &str) -> Result<String, Unprintable> {
    Ok(format!("{} vmap @{}", left(syntax::looked_up(key)?), checked_chain(map)?))
}

fn verdict(end: &Verdict) -> Result<String, Unprintable> {
    Ok(match end {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {}", checked_chain(chain)?),
        Verdict::Goto(chain) => format!("goto {}", checked_chain(chain)?),
    })
}
