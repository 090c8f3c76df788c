//! The netlink batch, the nft syntax and the libnftables JSON of a rule must make the same rule. Needs root and the
//! real `nft`; each test runs in a network namespace of its own.


#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]
use nix::sched::{CloneFlags, unshare};
use std::io::Write;
use std::process::{Command, Stdio};
use xtshim::family::Family;
use xtshim::nft::expr::*;
use xtshim::nft::*;

/// Puts this thread, and what it starts, into a new network namespace. False, loudly, where that cannot be done.
fn in_namespace() -> bool {
    let possible = unshare(CloneFlags::CLONE_NEWNET).is_ok()
        && Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !possible {
        eprintln!("SKIPPED: needs root and nft");
    }
    possible
}

fn nft(args: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{}\n{input}", String::from_utf8_lossy(&output.stderr)))
    }
}

const RAW: Table<'_> = Table { family: Family::V4, name: "xtshim-raw" };

fn prerouting(counters: (u64, u64)) -> BaseChain<'static> {
    BaseChain {
        name: "PREROUTING",
        hook: HookPoint::Prerouting,
        priority: -300,
        kind: ChainKind::Filter,
        policy: Policy::Accept,
        counters,
    }
}

#[test]
fn a_table_is_made_read_and_taken_away() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    assert_eq!(kernel.table(Family::V4, RAW.name).unwrap(), None);
    let generation = kernel.generation().unwrap();
    let mut batch = Batch::new();
    batch.add_table(RAW);
    batch.add_base_chain(RAW, prerouting((7, 700)));
    batch.add_chain(RAW, "user");
    let jump = vec![Expr::Counter { packets: 3, bytes: 4 }, Expr::Verdict(Verdict::Jump("user".into()))];
    batch.add_rule(RAW, "PREROUTING", Position::Append, &jump, b"\x00\x02a\x00");
    batch.add_rule(RAW, "PREROUTING", Position::Prepend, &vec![Expr::Verdict(Verdict::Drop)], b"");
    kernel.commit(batch.clone(), Some(generation)).unwrap();
    assert!(kernel.commit(batch, Some(generation)).unwrap_err().is_race());

    let chains = kernel.chains(Family::V4, RAW.name).unwrap();
    assert_eq!(chains.len(), 2);
    assert_eq!(chains[0].counters, Some((7, 700)));
    assert_eq!(chains[0].policy, Some(Policy::Accept));
    assert_eq!(chains[0].hook.as_ref().map(|hook| (hook.num, hook.priority)), Some((0, -300)));
    let rules = kernel.rules(Family::V4, RAW.name, Some("PREROUTING")).unwrap();
    assert_eq!(rules[0].verdict, Some(Verdict::Drop));
    assert_eq!(rules[1].verdict, Some(Verdict::Jump("user".into())));
    assert_eq!((rules[1].packets, rules[1].bytes), (3, 4));
    assert_eq!(rules[1].userdata, b"\x00\x02a\x00");
    assert!(kernel.rules(Family::V4, RAW.name, Some("user")).unwrap().is_empty());

    let mut batch = Batch::new();
    batch.set_policy(RAW, "PREROUTING", Policy::Drop, Some((0, 0)));
    batch.rename_chain(RAW, chains[1].handle, "user", "other");
    batch.add_rule(RAW, "PREROUTING", Position::BeforeHandle(rules[1].handle), &vec![Expr::Notrack], b"");
    batch.add_rule(RAW, "PREROUTING", Position::AfterHandle(rules[1].handle), &vec![Expr::TraceSet], b"");
    batch.replace_rule(RAW, "PREROUTING", rules[0].handle, &vec![Expr::Verdict(Verdict::Accept)], b"");
    kernel.commit(batch, None).unwrap();
    let listing = nft(&["list", "ruleset"], "").unwrap();
    let lines: Vec<&str> = listing.lines().map(str::trim).collect();
    assert!(lines.contains(&"type filter hook prerouting priority raw; policy drop;"), "{listing}");
    let at = lines.iter().position(|line| *line == "accept").unwrap();
    assert_eq!(lines[at + 1..at + 4], ["notrack", "counter packets 3 bytes 4 jump other comment \"a\"", "meta nftrace set 1"]);

    let mut batch = Batch::new();
    batch.delete_table(RAW);
    kernel.commit(batch, None).unwrap();
    assert!(kernel.tables(Family::V4).unwrap().is_empty());
}
