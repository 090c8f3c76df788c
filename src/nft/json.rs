//! libnftables' JSON (libnftables-json(5)), in the types of the `nftables` crate: what `nft -j -f -` takes. Only for
//! showing; nothing of ours is applied through it.

#![forbid(unsafe_code)]

use super::batch::{Action, Batch, Change, Policy, Position};
use super::divert;
use super::expr::{Alternative, Base, Direction, Expr, Limit, Log, Op, Verdict};
use super::names;
use super::nat;
use super::reject;
use super::syntax::{self, Atom, Left, Relation, Right, Unprintable, checked_chain, checked_prefix, unprintable};
use crate::family::Family;
use nftables::expr::{self as j, BinaryOperation, Expression, NamedExpression, SetItem};
use nftables::schema::{Chain, FlushObject, NfCmd, NfListObject, NfObject, Nftables, Rule, Table};
use nftables::stmt::{self, Statement};
use nftables::types::{NfChainPolicy, NfFamily};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The crate's types have no map from something to a verdict.
const VERDICT_MAP: &str = "a verdict map, which only nft syntax has";

/// Every operation of a batch in one document. As with nft syntax, policy counters and private user data are left out.
///
/// # Errors
/// The first thing that the format cannot say.
pub fn commands(batch: &Batch) -> Result<String, Unprintable> {
    let commands: Result<Vec<_>, _> = batch.changes().iter().map(command).collect();
    let objects: Vec<NfObject<'_>> = commands?.into_iter().map(NfObject::CmdObject).collect();
    let document = serde_json::to_value(Nftables { objects: objects.into() });
    let mut document = document.or_else(|error| unprintable(&error.to_string()))?;
    repair(&mut document);
    Ok(document.to_string())
}

/// What the crate's types say otherwise than libnftables reads it: `notrack` must be an object, an absent field of a
/// TCP option must be absent, and a statement that the types lack stands in an `xt`. The crate keeps flags in hash sets; sorted, the same rule is always printed the same.
fn repair(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(repair),
        Value::Object(members) => {
            if let Some(Value::Array(statements)) = members.get_mut("expr") {
                for statement in statements.iter_mut() {
                    if *statement == json!("notrack") {
                        *statement = json!({ "notrack": null });
                    } else if let Some(inner) = statement.get_mut("xt") {
                        *statement = inner.take();
                    }
                }
            }
            for name in ["tcp option", "exthdr"] {
                if let Some(Value::Object(option)) = members.get_mut(name) {
                    option.retain(|_, value| !value.is_null());
                }
            }
            if let Some(Value::Array(flags)) = members.get_mut("flags") {
                flags.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
            }
            members.values_mut().for_each(repair);
        }
        _ => {}
    }
}

fn command(change: &Change) -> Result<NfCmd<'static>, Unprintable> {
    let family = family(change.family);
    let table = checked_chain(&change.table)?.to_owned();
    let whole = || Table { family, name: table.clone().into(), handle: None };
    let chain = |name: &str| -> Result<Chain<'static>, Unprintable> {
        let name = checked_chain(name)?.to_owned();
        Ok(Chain { family, table: table.clone().into(), name: name.into(), ..Chain::default() })
    };
    let rule = |chain: &str, handle: Option<u64>, rule: &Alternative, comment: Option<&str>| {
        let comment = comment.filter(|comment| names::comment_ok(comment)).map(|comment| comment.to_owned().into());
        Ok::<_, Unprintable>(Rule {
            family,
            table: table.clone().into(),
            chain: checked_chain(chain)?.to_owned().into(),
            expr: statements(rule)?.into(),
            handle: handle.map(number).transpose()?,
            comment,
            ..Rule::default()
        })
    };
    Ok(match &change.action {
        Action::AddTable => NfCmd::Add(NfListObject::Table(whole())),
        Action::DeleteTable => NfCmd::Delete(NfListObject::Table(whole())),
        Action::FlushTable => NfCmd::Flush(FlushObject::Table(whole())),
        Action::AddBaseChain { name, hook, priority, kind, policy } => NfCmd::Add(NfListObject::Chain(Chain {
            _type: Some(named(kind.nft())?),
            hook: Some(named(hook.nft())?),
            prio: Some(*priority),
            policy: Some(self::policy(*policy)),
            ..chain(name)?
        })),
        Action::AddChain { name } => NfCmd::Add(NfListObject::Chain(chain(name)?)),
        Action::SetPolicy { name, policy } => {
            NfCmd::Add(NfListObject::Chain(Chain { policy: Some(self::policy(*policy)), ..chain(name)? }))
        }
        Action::RenameChain { from, to } => {
            NfCmd::Rename(Chain { newname: Some(checked_chain(to)?.to_owned().into()), ..chain(from)? })
        }
        Action::DeleteChain { name } => NfCmd::Delete(NfListObject::Chain(chain(name)?)),
        Action::FlushChain { name } => NfCmd::Flush(FlushObject::Chain(chain(name)?)),
        Action::AddRule { chain, position, rule: exprs, comment } => {
            let comment = comment.as_deref();
            match *position {
                Position::Append => NfCmd::Add(NfListObject::Rule(rule(chain, None, exprs, comment)?)),
                Position::Prepend => NfCmd::Insert(NfListObject::Rule(rule(chain, None, exprs, comment)?)),
                Position::AfterHandle(at) => NfCmd::Add(NfListObject::Rule(rule(chain, Some(at), exprs, comment)?)),
                Position::BeforeHandle(at) => NfCmd::Insert(NfListObject::Rule(rule(chain, Some(at), exprs, comment)?)),
            }
        }
        Action::ReplaceRule { chain, handle, rule: exprs, comment } => {
            NfCmd::Replace(rule(chain, Some(*handle), exprs, comment.as_deref())?)
        }
        Action::DeleteRule { chain, handle } => {
            NfCmd::Delete(NfListObject::Rule(rule(chain, Some(*handle), &Vec::new(), None)?))
        }
        Action::AddMap { .. }
        | Action::DeleteMap { .. }
        | Action::FlushMap { .. }
        | Action::AddElements { .. }
        | Action::DeleteElements { .. } => return unprintable(VERDICT_MAP),
    })
}

fn family(family: Family) -> NfFamily {
    match family {
        Family::V4 => NfFamily::IP,
        Family::V6 => NfFamily::IP6,
    }
}

fn policy(policy: Policy) -> NfChainPolicy {
    match policy {
        Policy::Accept => NfChainPolicy::Accept,
        Policy::Drop => NfChainPolicy::Drop,
    }
}

/// A value of one of the crate's enums by its name in the format, which is nft's.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, Unprintable> {
    serde_json::from_value(json!(name)).or_else(|_| unprintable("a word that the JSON types lack"))
}

fn number(number: u64) -> Result<u32, Unprintable> {
    u32::try_from(number).or_else(|_| unprintable("a number beyond 32 bits"))
}

fn statements(rule: &Alternative) -> Result<Vec<Statement<'static>>, Unprintable> {
    let mut relations = syntax::relations(rule)?.into_iter();
    let mut found = Vec::new();
    for expr in rule {
        found.push(match expr {
            // There is one relation for each match.
            Expr::Match(_) => match relations.next() {
                Some(relation) if relation.left == Left::Meta("secmark") => security_mark(&relation)?,
                Some(relation) => Statement::Match(self::relation(&relation)?),
                None => return unprintable("a match without a form"),
            },
            Expr::Counter { packets, bytes } => {
                let count = |number: u64| match usize::try_from(number) {
                    Ok(number) => Ok(Some(number)),
                    Err(_) => unprintable("a counter beyond this machine's word, in the JSON types"),
                };
                let counter = stmt::AnonymousCounter { packets: count(*packets)?, bytes: count(*bytes)? };
                Statement::Counter(stmt::Counter::Anonymous(Some(counter)))
            }
            Expr::Limit(bucket) => Statement::Limit(limit(*bucket)?),
            Expr::Quota { bytes, over } => Statement::Quota(stmt::QuotaOrQuotaRef::Quota(stmt::Quota {
                val: number(*bytes)?,
                val_unit: "bytes".into(),
                used: None,
                used_unit: None,
                inv: Some(*over),
            })),
            Expr::Log(target) => Statement::Log(Some(log(target)?)),
            Expr::Notrack => Statement::Notrack,
            Expr::CtZone { zone, direction } => mangle(ct("zone", *direction)?, number_of(u128::from(*zone))),
            Expr::MarkSet { value, mask } => {
                let mark = || meta("mark");
                let value = number_of(u128::from(*value));
                let value = match mask {
                    &u32::MAX => value,
                    mask => {
                        let kept = BinaryOperation::AND(mark()?, number_of(u128::from(!mask)));
                        binary(BinaryOperation::XOR(binary(kept), value))
                    }
                };
                mangle(mark()?, value)
            }
            Expr::Assign(assign) => assign.json()?,
            Expr::TraceSet => mangle(meta("nftrace")?, Expression::Number(1)),
            Expr::Nat(target) => nat::statement(target, rule)?,
            Expr::Divert(target) => divert::statement(*target, rule)?,
            Expr::Reject(answer) => reject::statement(*answer)?,
            Expr::VerdictMap { .. } => return unprintable(VERDICT_MAP),
            Expr::Verdict(end) => verdict(end)?,
        });
    }
    Ok(found)
}

pub(super) fn binary(operation: BinaryOperation<'static>) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(operation))
}

pub(super) fn mangle(key: Expression<'static>, value: Expression<'static>) -> Statement<'static> {
    Statement::Mangle(stmt::Mangle { key, value })
}

pub(super) fn meta(key: &str) -> Result<Expression<'static>, Unprintable> {
    Ok(Expression::Named(NamedExpression::Meta(j::Meta { key: named(key)? })))
}

pub(super) fn ct(key: &'static str, direction: Option<Direction>) -> Result<Expression<'static>, Unprintable> {
    let dir = direction.map(|direction| match direction {
        Direction::Original => named("original"),
        Direction::Reply => named("reply"),
    });
    Ok(Expression::Named(NamedExpression::CT(j::CT { key: key.into(), family: None, dir: dir.transpose()? })))
}

/// A packet's security mark has no name in the crate's types: what would be said of its mark, renamed.
fn security_mark(relation: &Relation) -> Result<Statement<'static>, Unprintable> {
    let of_mark = self::relation(&Relation { left: Left::Meta("mark"), ..relation.clone() })?;
    let renamed = serde_json::to_string(&Statement::Match(of_mark))
        .map(|text| text.replace(r#"{"key":"mark"}"#, r#"{"key":"secmark"}"#))
        .and_then(|text| serde_json::from_str(&text));
    renamed.map(verbatim).or_else(|_| unprintable("a match without a form"))
}

fn relation(relation: &Relation) -> Result<stmt::Match<'static>, Unprintable> {
    let left = left(relation.left)?;
    let left = match &relation.mask {
        Some(mask) => binary(BinaryOperation::AND(left, atom(mask))),
        None => left,
    };
    let right = match &relation.right {
        Right::One(value) => atom(value),
        Right::Range(from, to) => range(from, to),
        Right::Set(elements) => {
            let items = elements.iter().map(|(from, to)| match to {
                Some(to) => SetItem::Element(range(from, to)),
                None => SetItem::Element(atom(from)),
            });
            Expression::Named(NamedExpression::Set(items.collect()))
        }
        Right::AnyOf(bits) => Expression::List(bits.iter().map(atom).collect()),
    };
    let op = match (relation.op, &relation.right) {
        (_, Right::AnyOf(_)) => stmt::Operator::IN,
        (Op::Eq, _) => stmt::Operator::EQ,
        (Op::Ne, _) => stmt::Operator::NEQ,
        // The crate has the names of these two the wrong way round: its LT is written `>`.
        (Op::Lt, _) => stmt::Operator::GT,
        (Op::Gt, _) => stmt::Operator::LT,
        (Op::Le, _) => stmt::Operator::LEQ,
        (Op::Ge, _) => stmt::Operator::GEQ,
    };
    Ok(stmt::Match { left, right, op })
}

fn left(left: Left) -> Result<Expression<'static>, Unprintable> {
    let named = match left {
        Left::Meta(key) => return meta(key),
        Left::Ct(key, direction) => return ct(key, direction),
        Left::Field(header, field) => {
            let field = j::PayloadField { protocol: header.into(), field: field.into() };
            NamedExpression::Payload(j::Payload::PayloadField(field))
        }
        Left::Raw { base, offset, len } => {
            let base = match base {
                Base::Link => j::PayloadBase::LL,
                Base::Network => j::PayloadBase::NH,
                Base::Transport => j::PayloadBase::TH,
            };
            let raw = j::PayloadRaw { base, offset: u32::from(offset), len: u32::from(len) };
            NamedExpression::Payload(j::Payload::PayloadRaw(raw))
        }
        Left::Fib { saddr, iif, oif } => {
            let address = if saddr { j::FibFlag::Saddr } else { j::FibFlag::Daddr };
            let interfaces = [iif.then_some(j::FibFlag::Iif), oif.then_some(j::FibFlag::Oif)];
            let flags = interfaces.into_iter().flatten().chain([address]).collect();
            NamedExpression::Fib(j::Fib { result: j::FibResult::Type, flags })
        }
        Left::Circumstance(which) => which.json()?,
        Left::ExtHdr(header, field) => {
            let field = field.map(Into::into);
            NamedExpression::Exthdr(j::Exthdr { name: header.into(), field, offset: None })
        }
        Left::TcpOption(kind) => {
            NamedExpression::TcpOption(j::TcpOption { name: tcp_option(kind)?.into(), field: None })
        }
    };
    Ok(Expression::Named(named))
}

/// Only options with a name can be asked for here (nft(8), EXTENSION HEADER EXPRESSIONS).
pub(super) fn tcp_option(kind: u8) -> Result<&'static str, Unprintable> {
    match kind {
        0 => Ok("eol"),
        1 => Ok("nop"),
        2 => Ok("maxseg"),
        3 => Ok("window"),
        4 => Ok("sack-perm"),
        5 => Ok("sack"),
        8 => Ok("timestamp"),
        _ => unprintable("a TCP option without a name, which only nft syntax has"),
    }
}

fn range(from: &Atom, to: &Atom) -> Expression<'static> {
    Expression::Range(Box::new(j::Range { range: [atom(from), atom(to)] }))
}

/// One value, or all from one to another.
pub(super) fn span(from: Expression<'static>, to: Expression<'static>) -> Expression<'static> {
    if from == to { from } else { Expression::Range(Box::new(j::Range { range: [from, to] })) }
}

/// A statement that the crate's types cannot say; [`repair`] puts it in its place.
pub(super) fn verbatim(statement: Value) -> Statement<'static> {
    Statement::XT(Some(statement))
}

pub(super) fn text(text: impl Into<String>) -> Expression<'static> {
    Expression::String(text.into().into())
}

/// A number; where the crate's 32 bits do not hold it, the text that nft reads as one.
pub(super) fn number_of(number: u128) -> Expression<'static> {
    u32::try_from(number).map_or_else(|_| text(format!("{number:#x}")), Expression::Number)
}

fn atom(value: &Atom) -> Expression<'static> {
    match value {
        Atom::Decimal(number) => number_of(u128::from(*number)),
        Atom::Hex(number, _) => number_of(*number),
        Atom::Symbol(name) => text(*name),
        Atom::Address(address) => text(address.to_string()),
        Atom::Ether(address) => text(address.clone()),
        Atom::Name(name) => text(name.clone()),
        Atom::Time(milliseconds) => text(super::text::time(*milliseconds)),
        Atom::Prefix(address, len) => {
            let len = u32::try_from(*len).unwrap_or(u32::MAX);
            Expression::Named(NamedExpression::Prefix(j::Prefix { addr: Box::new(text(address.to_string())), len }))
        }
        // Two at a time: nft up to 1.0.6 takes no longer lists.
        Atom::Flags(bits) => {
            let both = |one, other| binary(BinaryOperation::OR(vec![one, other]));
            bits.iter().map(atom).reduce(both).unwrap_or(Expression::Number(0))
        }
        Atom::Present(present) => Expression::Boolean(*present),
    }
}

fn limit(bucket: Limit) -> Result<stmt::Limit<'static>, Unprintable> {
    Ok(stmt::Limit {
        rate: number(bucket.rate)?,
        rate_unit: None,
        per: Some(syntax::limit_unit(bucket.unit)?.into()),
        burst: Some(bucket.burst),
        burst_unit: None,
        inv: bucket.invert.then_some(true),
    })
}

fn log(target: &Log) -> Result<stmt::Log<'static>, Unprintable> {
    let prefix = |prefix: &Option<String>| {
        prefix.as_deref().map(|prefix| checked_prefix(prefix).map(|prefix| prefix.to_owned().into())).transpose()
    };
    match target {
        Log::Kernel { prefix: text, level, flags } => {
            let Some(level) = syntax::LOG_LEVELS.get(usize::from(*level)) else {
                return unprintable("a log level beyond 7");
            };
            let known = syntax::LOG_FLAGS.iter().filter(|(bit, _)| flags & bit != 0);
            let names: Vec<&str> = match *flags {
                syntax::LOG_ALL => vec!["all"],
                flags if flags & !syntax::LOG_ALL != 0 => return unprintable("a log flag without a name"),
                _ => known.map(|(_, name)| *name).collect(),
            };
            let flags = names.into_iter().map(named).collect::<Result<_, _>>()?;
            let level = Some(named(level)?);
            Ok(stmt::Log { prefix: prefix(text)?, level, flags: Some(flags), ..stmt::Log::new(None) })
        }
        Log::Audit => Ok(stmt::Log { level: Some(named("audit")?), ..stmt::Log::new(None) }),
        Log::Group { group, prefix: text, snaplen, threshold } => Ok(stmt::Log {
            prefix: prefix(text)?,
            snaplen: *snaplen,
            queue_threshold: threshold.map(u32::from),
            ..stmt::Log::new(Some(u32::from(*group)))
        }),
    }
}

fn verdict(end: &Verdict) -> Result<Statement<'static>, Unprintable> {
    let target = |chain: &str| -> Result<stmt::JumpTarget<'static>, Unprintable> {
        Ok(stmt::JumpTarget { target: checked_chain(chain)?.to_owned().into() })
    };
    Ok(match end {
        Verdict::Accept => Statement::Accept(None),
        Verdict::Drop => Statement::Drop(None),
        Verdict::Return => Statement::Return(None),
        Verdict::Jump(chain) => Statement::Jump(target(chain)?),
        Verdict::Goto(chain) => Statement::Goto(target(chain)?),
    })
}
