//! What a transaction promises: all of it or nothing, every failure seen and attributed, no change lost. Needs root;
//! each test runs in a network namespace of its own.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::thread;
use xtshim::family::Family;
use xtshim::nft::expr::{Alternative, Expr, Verdict};
use xtshim::nft::*;

const RAW: Table<'_> = Table { family: Family::V4, name: "xtshim-raw" };

/// Puts this thread into a new network namespace. False, loudly, where that cannot be done.
fn in_namespace() -> bool {
    let possible = unshare(CloneFlags::CLONE_NEWNET).is_ok();
    if !possible {
        eprintln!("SKIPPED: needs root");
    }
    possible
}

fn jump(chain: &str) -> Alternative {
    vec![Expr::Counter { packets: 0, bytes: 0 }, Expr::Verdict(Verdict::Jump(chain.into()))]
}

fn accept() -> Alternative {
    vec![Expr::Verdict(Verdict::Accept)]
}

fn with_table(kernel: &mut Connection) {
    let mut batch = Batch::new();
    batch.add_table(RAW);
    batch.add_base_chain(
        RAW,
        BaseChain {
            name: "PREROUTING",
            hook: HookPoint::Prerouting,
            priority: -300,
            kind: ChainKind::Filter,
            policy: Policy::Accept,
            counters: (0, 0),
        },
    );
    batch.add_chain(RAW, "one");
    batch.add_chain(RAW, "two");
    kernel.commit(batch, None).unwrap();
}

fn rule_count(kernel: &mut Connection) -> usize {
    kernel.rules(Family::V4, RAW.name, None).unwrap().len()
}

#[test]
fn a_failure_anywhere_is_told_and_leaves_nothing() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    with_table(&mut kernel);
    for (before, behind) in [(0, 0), (0, 5), (5, 0), (50, 50), (0, 2000)] {
        let mut batch = Batch::new();
        (0..before).for_each(|_| batch.add_rule(RAW, "one", Position::Append, accept(), b""));
        batch.add_rule(RAW, "two", Position::Prepend, jump("nowhere"), b"");
        (0..behind).for_each(|_| batch.add_rule(RAW, "one", Position::Append, accept(), b""));
        let error = kernel.commit(batch, None).unwrap_err();
        assert_eq!(error.errno, Errno::ENOENT, "{before} before, {behind} behind");
        assert_eq!((error.operation, error.chain.as_deref()), (Operation::RuleInsert, Some("two")));
        assert_eq!(rule_count(&mut kernel), 0);
    }
}

#[test]
fn so_many_failures_that_answers_are_lost_are_a_failure() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    with_table(&mut kernel);
    let mut batch = Batch::new();
    (0..5000).for_each(|_| batch.add_rule(RAW, "one", Position::Append, jump("nowhere"), b""));
    let error = kernel.commit(batch, None).unwrap_err();
    assert_eq!((error.errno, error.operation), (Errno::ENOENT, Operation::RuleAppend));
    // The next answers are not taken for those.
    assert_eq!(rule_count(&mut kernel), 0);
    let mut batch = Batch::new();
    batch.add_rule(RAW, "one", Position::Append, accept(), b"");
    kernel.commit(batch, None).unwrap();
    assert_eq!(rule_count(&mut kernel), 1);
}

#[test]
fn a_loop_is_refused() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    with_table(&mut kernel);
    let mut batch = Batch::new();
    batch.add_rule(RAW, "PREROUTING", Position::Append, jump("one"), b"");
    batch.add_rule(RAW, "one", Position::Append, jump("two"), b"");
    batch.add_rule(RAW, "two", Position::Append, jump("one"), b"");
    let error = kernel.commit(batch, None).unwrap_err();
    assert!(matches!(error.errno, Errno::ELOOP | Errno::EMLINK), "{error}");
    assert_eq!(rule_count(&mut kernel), 0);
}

#[test]
fn errors_that_iptables_has_words_for() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    with_table(&mut kernel);
    let mut batch = Batch::new();
    batch.add_rule(RAW, "PREROUTING", Position::Append, jump("one"), b"");
    kernel.commit(batch, None).unwrap();
    let mut fails = |fill: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new();
        fill(&mut batch);
        kernel.commit(batch, None).unwrap_err()
    };
    assert_eq!(fails(&|batch| batch.add_chain(RAW, "one")).errno, Errno::EEXIST);
    assert_eq!(fails(&|batch| batch.delete_chain(RAW, "one")).errno, Errno::EBUSY);
    assert_eq!(fails(&|batch| batch.delete_chain(RAW, "three")).errno, Errno::ENOENT);
    assert_eq!(fails(&|batch| batch.delete_rule(RAW, "one", 999)).errno, Errno::ENOENT);
    assert_eq!(fails(&|batch| batch.add_rule(RAW, "one", Position::Append, accept(), &[0; 257])).errno, Errno::ERANGE);
}

#[test]
fn a_check_changes_nothing() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    with_table(&mut kernel);
    let generation = kernel.generation().unwrap();
    let mut batch = Batch::new();
    batch.add_rule(RAW, "one", Position::Append, accept(), b"");
    kernel.check(batch).unwrap();
    let mut batch = Batch::new();
    batch.add_rule(RAW, "one", Position::Append, jump("nowhere"), b"");
    assert_eq!(kernel.check(batch).unwrap_err().errno, Errno::ENOENT);
    assert_eq!(rule_count(&mut kernel), 0);
    assert_eq!(kernel.generation().unwrap(), generation);
}

#[test]
fn thousands_of_rules_are_one_transaction() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    with_table(&mut kernel);
    let mut batch = Batch::new();
    (0..20_000).for_each(|_| batch.add_rule(RAW, "one", Position::Append, accept(), &[7; 256]));
    kernel.commit(batch, None).unwrap();
    let rules = kernel.rules(Family::V4, RAW.name, None).unwrap();
    assert_eq!(rules.len(), 20_000);
    assert!(rules.iter().all(|rule| rule.userdata == [7; 256] && rule.verdict == Some(Verdict::Accept)));
}

#[test]
fn a_settled_generation_is_the_present_one_and_leaves_nothing_behind() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    with_table(&mut kernel);
    for count in 1..4 {
        let generation = kernel.settled_generation().unwrap();
        let mut batch = Batch::new();
        batch.add_rule(RAW, "one", Position::Append, accept(), b"");
        kernel.commit(batch, Some(generation)).unwrap();
        let settled = kernel.settled_generation().unwrap();
        assert_ne!(settled, generation);
        assert_eq!(rule_count(&mut kernel), count);
        assert_eq!(kernel.generation().unwrap(), settled);
    }
}

#[test]
fn writers_at_once_lose_nothing() {
    if !in_namespace() {
        return;
    }
    with_table(&mut Connection::open().unwrap());
    let namespace = File::open("/proc/thread-self/ns/net").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                let mut kernel = Connection::open().unwrap();
                for _ in 0..50 {
                    loop {
                        let generation = kernel.generation().unwrap();
                        let last =
                            kernel.rules(Family::V4, RAW.name, Some("one")).unwrap().last().map(|rule| rule.handle);
                        let position = last.map_or(Position::Append, Position::AfterHandle);
                        let mut batch = Batch::new();
                        batch.add_rule(RAW, "one", position, accept(), b"");
                        match kernel.commit(batch, Some(generation)) {
                            Ok(()) => break,
                            Err(error) => assert!(error.is_race(), "{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(rule_count(&mut Connection::open().unwrap()), 200);
}
