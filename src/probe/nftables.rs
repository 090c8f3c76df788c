//! What the kernel's nf_tables can do, tried over netlink: committed in a network namespace that is thrown away, or,
//! without the right to make one, prepared by the kernel and never committed.

#![forbid(unsafe_code)]

use super::Ability;
use super::kernel::Kernel;
use crate::family::Family;
use crate::nft::circumstance::{Circumstance, Transform};
use crate::nft::expr::{
    Alternative, Assign, Ct, Divert, Element, Expr, Field, Key, Limit, Log, Manip, Mark, Match, Meta, Nat,
};
use crate::nft::expr::{Op, Reject, SetField, Shift, Value, Verdict};
use crate::nft::exthdr::{ExtHdr, header};
use crate::nft::{BaseChain, Batch, ChainKind, CommitError, Connection, HookPoint, Policy, Position, Table};
use crate::rules::{self, Capability, CapabilityKind};
use crate::sys::sandbox;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// No program is started here, so nothing has to wait for long.
const LIMIT: Duration = Duration::from_secs(30);

/// Name of the table and the chain of a trial.
const NAME: &str = "xtshim-probe";

/// By family and capability name.
pub type Abilities = BTreeMap<(Family, String), Ability>;

/// Tries every capability that has to do with nf_tables itself.
pub fn run(kernel: &Kernel) -> Abilities {
    sandbox::enter(LIMIT, |_| try_all(kernel, Way::Commit)).unwrap_or_else(|_| try_all(kernel, Way::Check))
}

#[derive(Clone, Copy)]
enum Way {
    /// In a namespace of our own.
    Commit,
    /// In one that others live in.
    Check,
}

fn try_all(kernel: &Kernel, way: Way) -> Abilities {
    Family::ALL.into_iter().flat_map(|family| try_family(kernel, way, family)).collect()
}

fn try_family(kernel: &Kernel, way: Way, family: Family) -> Abilities {
    let wanted = rules::capabilities().iter().filter(|capability| is_ours(capability) && capability.serves(family));
    let mut bench = Bench { connection: Connection::open(), way, family };
    let missing = bench.try_samples();
    wanted
        .map(|capability| {
            let proven = missing.as_ref().filter(|_| capability.kind == CapabilityKind::Expression);
            let outcome = match proven {
                Some(missing) => missing.get(capability.key.as_str()).map_or(Ok(()), |errno| Err(*errno)),
                None => bench.try_one(capability),
            };
            ((family, capability.name.clone()), ability(outcome, capability, family, kernel))
        })
        .collect()
}

fn is_ours(capability: &Capability) -> bool {
    use CapabilityKind::{Chain, Expression, Generation, NfTables};
    matches!(capability.kind, NfTables | Generation | Chain | Expression)
}

fn ability(outcome: Result<(), Errno>, capability: &Capability, family: Family, kernel: &Kernel) -> Ability {
    match outcome {
        Ok(()) => Ability::Able,
        Err(errno) if says_nothing(errno) => Ability::Unknown { why: errno.desc().to_owned() },
        Err(errno) => {
            let why = kernel.explain(capability, family).map(|why| why.to_string());
            Ability::Missing { why: why.unwrap_or_else(|| format!("the kernel says: {}", errno.desc())) }
        }
    }
}

/// Whether it says nothing of what the kernel can do: no right, no room, an answer that was lost or could not be read.
pub(super) fn says_nothing(errno: Errno) -> bool {
    let denied = matches!(errno, Errno::EPERM | Errno::EACCES);
    let crowded = matches!(errno, Errno::ENOMEM | Errno::ENOBUFS | Errno::EMFILE | Errno::ENFILE | Errno::EMSGSIZE);
    let lost = matches!(errno, Errno::EAGAIN | Errno::EINTR | Errno::ETIMEDOUT | Errno::ENODATA | Errno::EBADMSG);
    denied || crowded || lost || errno == Errno::EIO
}

struct Bench {
    connection: std::io::Result<Connection>,
    way: Way,
    family: Family,
}

impl Bench {
    fn try_one(&mut self, capability: &Capability) -> Result<(), Errno> {
        match capability.kind {
            CapabilityKind::Generation => self.try_generation(),
            CapabilityKind::Chain => {
                let kind = if capability.key == "nat" { ChainKind::Nat } else { ChainKind::Route };
                self.transact(|batch, table| batch.add_base_chain(table, base_chain(kind)))
            }
            CapabilityKind::Expression => {
                let rule = sample(&capability.key, self.family).ok_or(Errno::EOPNOTSUPP)?;
                self.transact(|batch, table| add_sample(batch, table, &capability.key, &rule))
            }
            _ => self.transact(|batch, table| batch.add_base_chain(table, base_chain(ChainKind::Filter))),
        }
    }

    /// Tries all expressions at once, then those that are left without the one that failed, until the others pass:
    /// those that the kernel does not have. An aborted batch costs a grace period of the kernel, some 16 ms. `None`
    /// where the kernel does not say what failed.
    fn try_samples(&mut self) -> Option<BTreeMap<&'static str, Errno>> {
        let mut missing = BTreeMap::new();
        loop {
            let left: Vec<_> = SAMPLES.into_iter().filter(|name| !missing.contains_key(name)).collect();
            let tried = self.commit(|batch, table| {
                for (name, rule) in left.iter().filter_map(|name| Some((name, sample(name, table.family)?))) {
                    add_sample(batch, table, name, &rule);
                }
            });
            let Err(error) = tried else { return Some(missing) };
            let failed = left.into_iter().find(|name| error.chain.as_deref() == Some(*name))?;
            missing.insert(failed, error.errno);
        }
    }

    fn transact(&mut self, fill: impl FnOnce(&mut Batch, Table<'_>)) -> Result<(), Errno> {
        self.commit(fill).map_err(|error| error.errno)
    }

    fn commit(&mut self, fill: impl FnOnce(&mut Batch, Table<'_>)) -> Result<(), CommitError> {
        let (way, family) = (self.way, self.family);
        let connection = self.connection().map_err(CommitError::whole)?;
        let table = Table { family, name: NAME };
        let mut batch = Batch::new();
        batch.add_table(table);
        fill(&mut batch, table);
        match way {
            Way::Commit => connection.commit(batch, None),
            Way::Check => connection.check(batch),
        }
    }

    /// A transaction that bears another generation than the present must be refused for that, before it is looked
    /// at. This one could not be carried out in any case.
    fn try_generation(&mut self) -> Result<(), Errno> {
        let family = self.family;
        let connection = self.connection()?;
        let present = connection.generation().map_err(|error| errno(&error))?;
        let mut batch = Batch::new();
        batch.delete_table(Table { family, name: "xtshim-probe-absent" });
        match connection.commit(batch, Some(present.wrapping_add(1 << 20))) {
            Err(CommitError { errno: Errno::ERESTART, .. }) => Ok(()),
            Err(CommitError { errno: Errno::ENOENT, .. }) | Ok(()) => Err(Errno::EOPNOTSUPP),
            Err(error) => Err(error.errno),
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, Errno> {
        self.connection.as_mut().map_err(|error| errno(error))
    }
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn base_chain(kind: ChainKind) -> BaseChain<'static> {
    // A name for each kind: a chain that is there cannot become one of another kind.
    let (name, hook, priority) = match kind {
        ChainKind::Filter => ("filter", HookPoint::Prerouting, -300),
        ChainKind::Route => ("route", HookPoint::Output, -150),
        ChainKind::Nat => ("nat", HookPoint::Prerouting, -100),
    };
    BaseChain { name, hook, priority, kind, policy: Policy::Accept, counters: (0, 0) }
}

fn add_sample(batch: &mut Batch, table: Table<'_>, chain: &str, rule: &Alternative) {
    let base = match chain {
        "masq" => BaseChain { hook: HookPoint::Postrouting, priority: 100, ..base_chain(ChainKind::Nat) },
        "reject" | "synproxy" => BaseChain { hook: HookPoint::Input, priority: 0, ..base_chain(ChainKind::Filter) },
        "nat" | "redir" => base_chain(ChainKind::Nat),
        _ => base_chain(ChainKind::Filter),
    };
    batch.add_base_chain(table, BaseChain { name: chain, ..base });
    batch.add_rule(table, chain, Position::Append, rule, &[]);
}

/// The expressions that capabilities name.
const SAMPLES: [&str; 31] = [
    "counter", "match", "set", "exthdr", "ct", "ct-mark", "ct-label", "secmark", "shift", "write", "map", "priority",
    "strip", "zone", "notrack", "fib", "limit", "log", "nat", "masq", "redir", "reject", "numgen", "quota", "realm",
    "ipsec", "xfrm", "queue", "dup", "tproxy", "synproxy",
];

/// A rule that takes nothing but the expression of this name.
fn sample(expression: &str, family: Family) -> Option<Alternative> {
    let rule = match expression {
        "counter" => vec![Expr::Counter { packets: 0, bytes: 0 }, Expr::Verdict(Verdict::Return)],
        "match" => matches(family),
        "set" => vec![matching(
            Key::Payload(Field::ThDport),
            Op::Eq,
            Value::Set(vec![Element::One(vec![0, 80]), Element::One(vec![1, 187])]),
        )],
        "exthdr" => {
            let option = (family == Family::V4).then_some(Key::TcpOption(2));
            let key = option.unwrap_or(Key::ExtHdr(ExtHdr::Present(header::FRAGMENT)));
            vec![matching(key, Op::Eq, Value::Bytes(vec![1]))]
        }
        "ct" => vec![Expr::Match(Match {
            key: Key::Ct(Ct::State, None),
            mask: Some(8u32.to_ne_bytes().to_vec()),
            op: Op::Ne,
            value: Value::Bytes(vec![0; 4]),
        })],
        "ct-mark" => vec![mark_set(Mark::Connection, None)],
        "ct-label" => vec![Expr::Assign(Assign::Label(0))],
        "secmark" => vec![Expr::Assign(Assign::SecurityMark(Mark::Connection))],
        "shift" => vec![mark_set(Mark::Packet, Some(Shift::Left(1)))],
        "write" => vec![Expr::Assign(Assign::Field {
            field: match family {
                Family::V4 => SetField::Ip4Dscp,
                Family::V6 => SetField::Ip6Dscp,
            },
            value: 0,
        })],
        "map" => vec![Expr::Assign(Assign::HopLimitBy(1))],
        "priority" => vec![Expr::Assign(Assign::Priority(1))],
        "strip" => vec![Expr::Assign(Assign::StripTcpOption(2))],
        "zone" => vec![Expr::CtZone { zone: 1, direction: None }],
        "notrack" => vec![Expr::Notrack],
        "fib" => {
            let key = Key::FibType { saddr: false, iif: false, oif: false };
            // RTN_LOCAL (linux/rtnetlink.h)
            vec![matching(key, Op::Eq, Value::Bytes(2u32.to_ne_bytes().to_vec()))]
        }
        "numgen" => {
            let key = Key::Circumstance(Circumstance::Turn { modulus: 2 });
            vec![matching(key, Op::Eq, Value::Bytes(vec![0; 4]))]
        }
        "quota" => vec![Expr::Quota { bytes: 1, over: true }],
        "realm" => vec![matching(Key::Circumstance(Circumstance::Realm), Op::Eq, Value::Bytes(vec![0; 4]))],
        "ipsec" => vec![matching(Key::Meta(Meta::Ipsec), Op::Eq, Value::Bytes(vec![1]))],
        "xfrm" => {
            let key = Circumstance::Transform { out: false, nth: 0, of: Transform::Reqid };
            vec![matching(Key::Circumstance(key), Op::Eq, Value::Bytes(vec![0; 4]))]
        }
        "limit" => vec![Expr::Limit(Limit { rate: 3, unit: 3600, burst: 5, invert: false })],
        "log" => vec![Expr::Log(Log::Kernel { prefix: None, level: 4, flags: 0 })],
        "nat" => {
            let network = localhost(family);
            let (manip, addresses) = (Manip::Destination, Some((network, network)));
            vec![Expr::Nat(Nat::To { manip, family, addresses, ports: Some((1, 1)), flags: 0 })]
        }
        "queue" => vec![Expr::Divert(Divert::Queue { first: 0, last: 1, bypass: true, fanout: false })],
        "dup" => vec![Expr::Divert(Divert::Dup { gateway: localhost(family) })],
        "tproxy" => vec![Expr::Divert(Divert::Tproxy { family, address: None, port: 1 })],
        "synproxy" => vec![Expr::Divert(Divert::Synproxy { sizes: None, timestamp: false, sack: false })],
        "masq" => vec![Expr::Nat(Nat::Masquerade { ports: None, flags: 0 })],
        "reject" => vec![Expr::Reject(Reject::Unreachable { family, code: 3 })],
        "redir" => vec![Expr::Nat(Nat::Redirect { ports: None, flags: 0 })],
        _ => return None,
    };
    Some(rule)
}

fn localhost(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Docker's rules of raw, and what else takes no module of its own.
fn matches(family: Family) -> Alternative {
    let (_, address) = Field::addresses(family);
    let mut mask = vec![0xff; family.address_len()];
    mask.last_mut().into_iter().for_each(|byte| *byte = 0);
    let mut interface = b"docker0".to_vec();
    interface.resize(16, 0);
    vec![
        Expr::Match(Match {
            key: Key::Payload(address),
            mask: Some(mask),
            op: Op::Eq,
            value: Value::Bytes(vec![0; family.address_len()]),
        }),
        matching(Key::Meta(Meta::Iifname), Op::Ne, Value::Bytes(interface)),
        matching(Key::Meta(Meta::L4proto), Op::Eq, Value::Bytes(vec![6])),
        matching(Key::Payload(Field::TcpDport), Op::Eq, Value::Range(vec![0, 80], vec![0, 90])),
        Expr::Verdict(Verdict::Drop),
    ]
}

fn matching(key: Key, op: Op, value: Value) -> Expr {
    Expr::Match(Match { key, mask: None, op, value })
}

fn mark_set(to: Mark, shift: Option<Shift>) -> Expr {
    Expr::Assign(Assign::Mark { to, from: to, mask: 1, xor: 0, shift })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_lost_proves_nothing() {
        let kernel = Kernel::read_below(std::path::Path::new("/nonexistent"), "x");
        let capability = rules::capabilities().iter().find(|capability| is_ours(capability)).expect("some");
        for errno in [Errno::EPERM, Errno::ENOBUFS, Errno::EBADMSG, Errno::ETIMEDOUT, Errno::ENODATA, Errno::EINTR] {
            let ability = ability(Err(errno), capability, Family::V4, &kernel);
            assert!(matches!(ability, Ability::Unknown { .. }), "{errno}: {ability:?}");
        }
        for errno in [Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EINVAL, Errno::EPROTONOSUPPORT] {
            let ability = ability(Err(errno), capability, Family::V4, &kernel);
            assert!(ability.is_missing(), "{errno}: {ability:?}");
        }
    }

    #[test]
    fn every_expression_has_a_sample() {
        let named: Vec<&str> = rules::capabilities()
            .iter()
            .filter(|capability| capability.kind == CapabilityKind::Expression)
            .map(|capability| capability.key.as_str())
            .collect();
        assert_eq!(named, SAMPLES);
        for (name, family) in named.iter().flat_map(|name| Family::ALL.map(|family| (name, family))) {
            assert!(sample(name, family).is_some(), "{name}");
        }
    }

    #[test]
    fn both_ways_agree_and_leave_nothing() {
        let kernel = Kernel::read();
        let tried = sandbox::enter(LIMIT, |_| {
            let checked = try_all(&kernel, Way::Check);
            let left = Connection::open().and_then(|mut connection| connection.tables(Family::V4));
            (checked, left, try_all(&kernel, Way::Commit))
        });
        // Without CAP_SYS_ADMIN there is no room to be had, and nothing to be shown.
        let Ok((checked, left, committed)) = tried else { return };
        assert_eq!(checked, committed);
        assert_eq!(left.map_or(0, |tables| tables.len()), 0);
        for (what, ability) in &committed {
            // A kernel may well lack this one: xtables needs another option for it.
            assert!(ability.is_able() || what.1 == "nft-queue", "{what:?}: {ability:?}");
        }
    }
}
