//! The netlink batch, the nft syntax and the libnftables JSON of a rule must make the same rule. Needs root and the
//! real `nft`; each test runs in a network namespace of its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

#[path = "agreement/headers.rs"]
mod headers;

#[path = "agreement/programs.rs"]
mod programs;

use nix::sched::{CloneFlags, unshare};
use std::process::{Command, Stdio};
use xtshim::family::Family;
use xtshim::nft::circumstance::{Circumstance, Transform};
use xtshim::nft::expr::*;
use xtshim::nft::*;
use xtshim::sys::exec::capture;

/// Puts this thread, and what it starts, into a new network namespace. False, loudly, where that cannot be done.
fn in_namespace() -> bool {
    let possible = unshare(CloneFlags::CLONE_NEWNET).is_ok()
        && Command::new(program()).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !possible {
        eprintln!("SKIPPED: needs root and nft");
    }
    possible
}

/// The `nft` to agree with: another version's, where the environment names one.
fn program() -> String {
    std::env::var("XTSHIM_TEST_NFT").unwrap_or_else(|_| "nft".to_owned())
}

fn nft(args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program());
    command.args(args);
    let output = capture(command, input.as_bytes()).unwrap();
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
    batch.add_rule(RAW, "PREROUTING", Position::Prepend, vec![Expr::Verdict(Verdict::Drop)], b"");
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
    batch.add_rule(RAW, "PREROUTING", Position::BeforeHandle(rules[1].handle), vec![Expr::Notrack], b"");
    batch.add_rule(RAW, "PREROUTING", Position::AfterHandle(rules[1].handle), vec![Expr::TraceSet], b"");
    batch.replace_rule(RAW, "PREROUTING", rules[0].handle, vec![Expr::Verdict(Verdict::Accept)], b"");
    kernel.commit(batch, None).unwrap();
    let listing = nft(&["list", "ruleset"], "").unwrap();
    let lines: Vec<&str> = listing.lines().map(str::trim).collect();
    assert!(lines.contains(&"type filter hook prerouting priority raw; policy drop;"), "{listing}");
    let at = lines.iter().position(|line| *line == "accept").unwrap();
    assert_eq!(
        lines[at + 1..at + 4],
        ["notrack", "counter packets 3 bytes 4 jump other comment \"a\"", "meta nftrace set 1"]
    );

    let mut batch = Batch::new();
    batch.delete_table(RAW);
    kernel.commit(batch, None).unwrap();
    assert!(kernel.tables(Family::V4).unwrap().is_empty());
}

/// What a run is made of, and what becomes of it.
#[test]
fn verdict_maps_agree() {
    for (family, key, address) in
        [(Family::V4, Field::Ip4Daddr, ["10.0.0.1", "10.0.0.2"]), (Family::V6, Field::Ip6Daddr, ["fd00::1", "fd00::2"])]
    {
        if !in_namespace() {
            return;
        }
        let mut kernel = Connection::open().unwrap();
        let at = Table { family, ..RAW };
        let address = address.map(|address| address.parse().unwrap());
        let chains = ["one", "other"];
        let mut made = Batch::new();
        made.add_table(at);
        made.add_base_chain(at, prerouting((0, 0)));
        chains.iter().for_each(|chain| made.add_chain(at, chain));
        made.add_map(at, "run");
        made.add_elements(at, "run", &[(address[0], chains[0].to_owned()), (address[1], chains[1].to_owned())]);
        let look_up = vec![Expr::VerdictMap { key: Key::Payload(key), map: "run".to_owned() }];
        made.add_rule(at, "PREROUTING", Position::Append, &look_up, b"");
        let mut thinned = Batch::new();
        thinned.delete_elements(at, "run", &address[..1]);
        thinned.delete_chain(at, "one");
        let mut gone = Batch::new();
        gone.flush_chain(at, "PREROUTING");
        gone.flush_map(at, "run");
        gone.delete_map(at, "run");
        gone.delete_chain(at, "other");

        let mut ours = Vec::new();
        let jumps = |kernel: &mut Connection| kernel.verdict_map(family, at.name, "run").ok();
        let whole = [(address[0], "one".to_owned()), (address[1], "other".to_owned())];
        let expected = [Some(whole.clone().into()), Some(whole[1..].iter().cloned().collect()), None];
        for (batch, expected) in [&made, &thinned, &gone].into_iter().zip(expected) {
            kernel.commit(batch.clone(), None).unwrap();
            assert_eq!(jumps(&mut kernel), expected);
            let listing = nft(&["list", "ruleset"], "").unwrap();
            nft(&["-c", "-f", "-"], &listing).unwrap();
            ours.push(listing);
        }
        nft(&["delete", "table", family.nft(), at.name], "").unwrap();
        for (batch, listing) in [made, thinned, gone].iter().zip(ours) {
            nft(&["-f", "-"], &as_text(batch).unwrap()).unwrap();
            assert_eq!(nft(&["list", "ruleset"], "").unwrap(), listing);
            assert!(json::commands(batch).is_err() || !listing.contains("vmap"));
        }
    }
}

fn matching(key: Key, op: Op, value: Value) -> Expr {
    Expr::Match(Match { key, mask: None, op, value })
}

fn eq(key: Key, value: impl Into<Vec<u8>>) -> Expr {
    matching(key, Op::Eq, Value::Bytes(value.into()))
}

fn masked(key: Key, mask: impl Into<Vec<u8>>, op: Op, value: impl Into<Vec<u8>>) -> Expr {
    Expr::Match(Match { key, mask: Some(mask.into()), op, value: Value::Bytes(value.into()) })
}

fn range(key: Key, op: Op, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Expr {
    matching(key, op, Value::Range(from.into(), to.into()))
}

fn set(key: Key, op: Op, elements: Vec<Element>) -> Expr {
    matching(key, op, Value::Set(elements))
}

fn one(value: impl Into<Vec<u8>>) -> Element {
    Element::One(value.into())
}

fn from_to(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Element {
    Element::Range(from.into(), to.into())
}

fn l4(protocol: u8) -> Expr {
    eq(Key::Meta(Meta::L4proto), [protocol])
}

fn host(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

fn port(number: u16) -> [u8; 2] {
    number.to_be_bytes()
}

fn exactly(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.resize(16, 0);
    name
}

fn bits(len: usize, size: usize) -> Vec<u8> {
    (0..size).map(|byte| !(0xffu16 >> len.saturating_sub(8 * byte).min(8)) as u8).collect()
}

const BOTH: [Op; 2] = [Op::Eq, Op::Ne];
const ALL: [Op; 6] = [Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge];

/// Marks put into marks, classes, and TCP options taken away.
fn assignments() -> Vec<Assign> {
    let mut found: Vec<Assign> = Vec::new();
    for to in [Mark::Packet, Mark::Connection] {
        for from in [Mark::Packet, Mark::Connection] {
            for (mask, xor) in [(u32::MAX, 0), (u32::MAX, 5), (0xff00, 0), (0xffff_ff00, 0x10), (!0x80, 0x80), (0, 7)] {
                for shift in [None, Some(Shift::Left(8)), Some(Shift::Right(31))] {
                    // A mark that is written back as it was is nothing to write.
                    if to != from || (mask, xor, shift) != (u32::MAX, 0, None) {
                        found.push(Assign::Mark { to, from, mask, xor, shift });
                    }
                }
            }
        }
    }
    found.extend([0, 1, 0x1_0002, 0xffff_0000, u32::MAX].map(Assign::Priority));
    found.extend([2, 3, 4, 5, 8, 19, 254].map(Assign::StripTcpOption));
    found
}

/// What connections have counted, and who has foretold them.
fn counted() -> Vec<Alternative> {
    let mut rules: Vec<Alternative> = Vec::new();
    let long = |number: u64| number.to_ne_bytes();
    for direction in [None, Some(Direction::Original), Some(Direction::Reply)] {
        for key in [Ct::Packets, Ct::Bytes, Ct::AveragePacket].map(|key| Key::Ct(key, direction)) {
            rules.extend(ALL.map(|op| vec![matching(key, op, Value::Bytes(long(5_000_000_000).into()))]));
            rules.extend(BOTH.map(|op| vec![range(key, op, long(7), long(u64::MAX - 1))]));
            rules.push(vec![matching(key, Op::Gt, Value::Bytes(long(0).into()))]);
        }
    }
    for bit in [0, 3, 31, 32, 63, 64, 127] {
        let (key, label) = (Key::Ct(Ct::Labels, None), (1u128 << bit).to_ne_bytes());
        rules.extend(BOTH.map(|op| vec![masked(key, label, op, label), Expr::Assign(Assign::Label(bit))]));
    }
    for key in [Key::Meta(Meta::SecurityMark), Key::Ct(Ct::SecurityMark, None)] {
        for mask in [0xffffu32, 0xffff_0000].map(u32::to_ne_bytes) {
            rules.extend(BOTH.map(|op| vec![masked(key, mask, op, [0; 4])]));
        }
    }
    rules.extend([Mark::Packet, Mark::Connection].map(|to| vec![Expr::Assign(Assign::SecurityMark(to))]));
    let helper = |name: &str| exactly(name);
    rules.push(vec![eq(Key::Ct(Ct::Helper, None), helper("f"))]);
    rules.push(vec![set(Key::Ct(Ct::Helper, None), Op::Eq, vec![one(helper("f")), one(helper("ft-1.x_y"))])]);
    rules
}

fn fields(family: Family) -> Vec<Alternative> {
    let fields: [(SetField, &[u8]); 3] = match family {
        Family::V4 => [
            (SetField::Ip4Dscp, &[0, 1, 10, 46, 63]),
            (SetField::Ip4Ecn, &[0, 1, 2, 3]),
            (SetField::Ip4Ttl, &[0, 1, 64, 255]),
        ],
        Family::V6 => [
            (SetField::Ip6Dscp, &[0, 1, 10, 46, 63]),
            (SetField::Ip6Ecn, &[0, 1, 2, 3]),
            (SetField::Ip6HopLimit, &[0, 1, 64, 255]),
        ],
    };
    let each = |(field, values): &(SetField, &'static [u8])| {
        let field = *field;
        values.iter().map(move |value| vec![Expr::Assign(Assign::Field { field, value: *value })])
    };
    let mut rules: Vec<Alternative> = fields.iter().flat_map(each).collect();
    let hops = Key::Payload(match family {
        Family::V4 => Field::Ip4Ttl,
        Family::V6 => Field::Ip6HopLimit,
    });
    if family == Family::V6 {
        rules.extend([1, -1, 255, -255, 100].map(|by| vec![Expr::Assign(Assign::HopLimitBy(by))]));
    }
    rules.extend(ALL.map(|op| vec![matching(hops, op, Value::Bytes(vec![64]))]));
    let network = |offset, len| Key::Payload(Field::Raw { base: Base::Network, offset, len });
    for mask in [0xfc, 0x03, 0x3f, 0xc0, 0xe0, 0x01, 0x80, 0xfe, 0x1c, 0xfd] {
        for op in BOTH {
            rules.push(match family {
                Family::V4 => vec![masked(network(8, 8), [mask], op, [mask & 0x55])],
                Family::V6 if mask == 0x03 => vec![masked(network(8, 8), [0x30], op, [0x10])],
                Family::V6 => {
                    let wide = |bits: u8| (u16::from(bits) << 4).to_be_bytes();
                    vec![masked(network(0, 16), wide(mask), op, wide(mask & 0x55))]
                }
            });
        }
    }
    rules
}

/// Shapes that rules of both families are made of.
fn common() -> Vec<Alternative> {
    let mut rules: Vec<Alternative> = Vec::new();
    for op in BOTH {
        for name in [
            exactly("eth0"),
            exactly("br-0123456789ab"),
            exactly("a.b:c-d"),
            exactly("a$b;c{d"),
            b"eth".to_vec(),
            b"br-0123456789a".to_vec(),
        ] {
            rules.push(vec![matching(Key::Meta(Meta::Iifname), op, Value::Bytes(name.clone()))]);
            rules.push(vec![matching(Key::Meta(Meta::Oifname), op, Value::Bytes(name))]);
        }
        rules.push(vec![set(Key::Meta(Meta::Iifname), op, vec![one(exactly("a")), one(exactly("b"))])]);
        for protocol in [0u8, 1, 6, 17, 33, 47, 58, 132, 255] {
            rules.push(vec![matching(Key::Meta(Meta::L4proto), op, Value::Bytes(vec![protocol]))]);
        }
        rules.push(vec![set(Key::Meta(Meta::L4proto), op, vec![one([6]), one([17])])]);
        for (protocol, sport, dport) in [
            (6, Field::TcpSport, Field::TcpDport),
            (17, Field::UdpSport, Field::UdpDport),
            (132, Field::ThSport, Field::ThDport),
        ] {
            rules.push(vec![
                l4(protocol),
                matching(Key::Payload(sport), Op::Ne, Value::Bytes(port(5).into())),
                range(Key::Payload(dport), Op::Ne, port(6), port(6)),
            ]);
            for field in [sport, dport] {
                let key = Key::Payload(field);
                for compared in ALL {
                    rules.push(vec![l4(protocol), matching(key, compared, Value::Bytes(port(80).into()))]);
                }
                rules.push(vec![l4(protocol), range(key, op, port(80), port(90))]);
                rules.push(vec![l4(protocol), range(key, op, port(0), port(65535))]);
                rules.push(vec![l4(protocol), set(key, op, vec![one(port(80)), one(port(443))])]);
                rules.push(vec![
                    l4(protocol),
                    set(
                        key,
                        op,
                        vec![
                            one(port(80)),
                            from_to(port(81), port(90)),
                            from_to(port(1000), port(65535)),
                            one(port(0)),
                        ],
                    ),
                ]);
                rules.push(vec![
                    l4(protocol),
                    set(key, op, vec![from_to(port(1), port(2)), from_to(port(10), port(20))]),
                ]);
            }
            rules.push(vec![l4(protocol), eq(Key::Payload(sport), port(1)), eq(Key::Payload(dport), port(2))]);
        }
        // Without the protocol, as it is after a set of protocols.
        let both = set(Key::Meta(Meta::L4proto), Op::Eq, vec![one([6]), one([17])]);
        rules.push(vec![both.clone(), matching(Key::Payload(Field::TcpDport), op, Value::Bytes(port(80).into()))]);
        rules.push(vec![both, set(Key::Payload(Field::ThDport), op, vec![one(port(80)), one(port(443))])]);
        rules.push(vec![matching(Key::Payload(Field::IcmpType), op, Value::Bytes(vec![8]))]);
        let flags = Key::Payload(Field::TcpFlags);
        for (mask, value) in [
            (0x17, 0x02),
            (0x3f, 0),
            (0x02, 0x02),
            (0x02, 0),
            (0x03, 0x03),
            (0xff, 0x02),
            (0x3f, 0x3f),
            (0, 0),
            (0xc0, 0x40),
        ] {
            rules.push(vec![l4(6), masked(flags, [mask], op, [value])]);
        }
        rules.push(vec![l4(6), matching(flags, op, Value::Bytes(vec![0x12]))]);
        rules.push(vec![l4(6), matching(flags, op, Value::Bytes(vec![0]))]);
        for kind in [0, 1, 2, 3, 4, 5, 8, 19, 30, 34, 254] {
            rules.push(vec![l4(6), matching(Key::TcpOption(kind), op, Value::Bytes(vec![1]))]);
            rules.push(vec![matching(Key::TcpOption(kind), op, Value::Bytes(vec![0]))]);
        }
        let (state, status) = (Key::Ct(Ct::State, None), Key::Ct(Ct::Status, None));
        for mask in [1, 2, 8, 0x40, 0x0e, 0x4f, 0x80, 0x8a] {
            rules.push(vec![masked(state, host(mask), op, host(0))]);
            rules.push(vec![masked(status, host(mask), op, host(0))]);
        }
        rules.push(vec![masked(state, host(0x0a), op, host(2))]);
        rules.push(vec![masked(status, host(0x30), op, host(0x30))]);
        rules.push(vec![masked(status, host(0x230), op, host(0))]);
        rules.push(vec![matching(state, op, Value::Bytes(host(8).into()))]);
        rules.push(vec![matching(status, op, Value::Bytes(host(0).into()))]);
        rules.push(vec![matching(Key::Ct(Ct::DirectionKey, None), op, Value::Bytes(vec![1]))]);
        rules.push(vec![set(state, op, vec![one(host(2)), one(host(8))])]);
        for direction in [Direction::Original, Direction::Reply] {
            for which in [Ct::ProtoSrc, Ct::ProtoDst] {
                let key = Key::Ct(which, Some(direction));
                rules.push(vec![l4(6), matching(key, op, Value::Bytes(port(80).into()))]);
                rules.push(vec![l4(17), range(key, op, port(80), port(90))]);
            }
            for number in [1, 2, 6, 17, 33, 50, 51, 58, 108, 132, 136] {
                let protocol = matching(Key::Ct(Ct::Protocol, Some(direction)), Op::Eq, Value::Bytes(vec![number]));
                let key = Key::Ct(Ct::ProtoSrc, Some(direction));
                rules.push(vec![protocol, range(key, op, port(0), port(90))]);
            }
            for number in [1, 47, 51, 58, 99] {
                let gre = matching(Key::Ct(Ct::Protocol, Some(direction)), Op::Eq, Value::Bytes(vec![47]));
                let key = Key::Ct(Ct::ProtoDst, Some(direction));
                rules.push(vec![gre, l4(number), matching(key, op, Value::Bytes(port(513).into()))]);
            }
            let several = vec![one([1]), one([6]), one([99])];
            rules.push(vec![set(Key::Ct(Ct::Protocol, Some(direction)), op, several)]);
            let protocol = matching(Key::Ct(Ct::Protocol, Some(direction)), op, Value::Bytes(vec![17]));
            rules.push(vec![protocol]);
        }
        let expiration = Key::Ct(Ct::Expiration, None);
        for time in [0, 999, 1500, 10_000, 4_294_967_000, u32::MAX] {
            rules.push(vec![matching(expiration, op, Value::Bytes(host(time).into()))]);
        }
        for (from, to) in [(5000, 10_000), (0, 10_000), (0, 0), (0, u32::MAX)] {
            rules.push(vec![range(expiration, op, host(from), host(to))]);
        }
        for key in [Key::Meta(Meta::Mark), Key::Ct(Ct::Mark, None)] {
            for compared in ALL {
                rules.push(vec![matching(key, compared, Value::Bytes(host(5).into()))]);
                rules.push(vec![masked(key, host(0xff), compared, host(5))]);
            }
            rules.push(vec![masked(key, host(0), op, host(0))]);
            rules.push(vec![masked(key, host(0xf0), op, host(0x1f))]);
            rules.push(vec![masked(key, host(u32::MAX), op, host(7))]);
            rules.push(vec![range(key, op, host(5), host(0x1234))]);
            rules.push(vec![set(key, op, vec![one(host(1)), from_to(host(0x100), host(0x200))])]);
        }
        for kind in 0..4u8 {
            rules.push(vec![matching(Key::Meta(Meta::Pkttype), op, Value::Bytes(vec![kind]))]);
        }
        rules.push(vec![matching(Key::Meta(Meta::Length), op, Value::Bytes(host(1500).into()))]);
        rules.push(vec![range(Key::Meta(Meta::Length), op, host(20), host(1500))]);
        rules.push(vec![matching(Key::Meta(Meta::Iiftype), op, Value::Bytes(772u16.to_ne_bytes().into()))]);
        let mac = [0, 0x11, 0x22, 0x33, 0x44, 0x55];
        rules.push(vec![
            eq(Key::Meta(Meta::Iiftype), 1u16.to_ne_bytes()),
            matching(Key::Payload(Field::EtherSaddr), op, Value::Bytes(mac.into())),
        ]);
        rules.push(vec![matching(Key::Payload(Field::EtherSaddr), op, Value::Bytes(mac.into()))]);
        for saddr in [true, false] {
            for kind in [0, 1, 2, 3, 5, 8, 11] {
                rules.push(vec![matching(
                    Key::FibType { saddr, iif: false, oif: false },
                    op,
                    Value::Bytes(host(kind).into()),
                )]);
            }
            rules.push(vec![matching(Key::FibType { saddr, iif: true, oif: false }, op, Value::Bytes(host(2).into()))]);
            rules.push(vec![set(Key::FibType { saddr, iif: false, oif: false }, op, vec![one(host(1)), one(host(2))])]);
        }
        let raw = |base, offset, len| Key::Payload(Field::Raw { base, offset, len });
        rules.push(vec![matching(raw(Base::Transport, 0, 8), op, Value::Bytes(vec![8]))]);
        rules.push(vec![masked(raw(Base::Transport, 96, 8), [0xf0], op, [0x50])]);
        rules.push(vec![range(raw(Base::Transport, 32, 16), op, port(8), port(800))]);
        rules.push(vec![matching(raw(Base::Link, 0, 48), op, Value::Bytes(mac.into()))]);
        rules.extend(headers::transport(op));
    }
    rules.extend(circumstances());
    rules.extend(statements());
    rules
}

/// What a packet's headers do not say.
fn circumstances() -> Vec<Alternative> {
    let mut rules: Vec<Alternative> = Vec::new();
    for op in BOTH {
        for key in [Key::Meta(Meta::Cpu), Key::Meta(Meta::Iifgroup), Key::Meta(Meta::Skuid), Key::Meta(Meta::Skgid)] {
            rules.push(vec![matching(key, op, Value::Bytes(host(0).into()))]);
            rules.push(vec![matching(key, op, Value::Bytes(host(70_000).into()))]);
            rules.push(vec![masked(key, host(0xf0), op, host(0x10))]);
            rules.push(vec![range(key, op, host(5), host(1000))]);
        }
        rules.push(vec![matching(Key::Meta(Meta::Oifgroup), op, Value::Bytes(host(7).into()))]);
        let realm = Key::Circumstance(Circumstance::Realm);
        rules.push(vec![matching(realm, op, Value::Bytes(host(42).into()))]);
        rules.push(vec![masked(realm, host(0xff), op, host(0x105))]);
        for modulus in [1, 2, 70_000, u32::MAX] {
            let turn = Key::Circumstance(Circumstance::Turn { modulus });
            rules.push(vec![matching(turn, op, Value::Bytes(host(modulus - 1).into()))]);
        }
        for mark in [false, true] {
            for iif in [false, true] {
                let back = Key::Circumstance(Circumstance::WayBack { mark, iif });
                rules.push(vec![matching(back, op, Value::Bytes(vec![1, 0, 0, 0]))]);
            }
        }
        rules.push(vec![matching(Key::Circumstance(Circumstance::Transparent), op, Value::Bytes(vec![1]))]);
    }
    for op in [Op::Lt, Op::Ge] {
        rules.push(vec![matching(Key::Meta(Meta::Random), op, Value::Bytes(0x8000_0001u32.to_be_bytes().into()))]);
    }
    rules.push(vec![matching(Key::Circumstance(Circumstance::Transparent), Op::Ge, Value::Bytes(vec![0]))]);
    for bytes in [1, 1000, 1 << 20, i64::MAX as u64 - 1] {
        rules.push(vec![Expr::Quota { bytes, over: false }]);
        rules.push(vec![Expr::Quota { bytes, over: true }]);
    }
    rules
}

/// IPsec, which the JSON types lack.
fn ipsec() -> Vec<Alternative> {
    let mut rules: Vec<Alternative> = Vec::new();
    for op in BOTH {
        for key in [Key::Meta(Meta::Ipsec), Key::Circumstance(Circumstance::Packed)] {
            rules.push(vec![matching(key, op, Value::Bytes(vec![0]))]);
            rules.push(vec![matching(key, op, Value::Bytes(vec![1]))]);
        }
        for nth in 0..6 {
            let state = |of| Key::Circumstance(Circumstance::Transform { out: false, nth, of });
            rules.push(vec![matching(state(Transform::Reqid), op, Value::Bytes(host(16_384).into()))]);
            rules.push(vec![matching(state(Transform::Spi), op, Value::Bytes(vec![0xc0, 0, 1, 2]))]);
        }
    }
    rules
}

fn statements() -> Vec<Alternative> {
    let mut rules: Vec<Alternative> = vec![
        vec![Expr::Notrack],
        vec![Expr::TraceSet],
        vec![Expr::Counter { packets: 0, bytes: 0 }],
        vec![Expr::Counter { packets: 5, bytes: u64::from(u32::MAX) * 9 }],
        vec![
            l4(6),
            eq(Key::Payload(Field::TcpDport), port(22)),
            Expr::Counter { packets: 1, bytes: 2 },
            Expr::Verdict(Verdict::Drop),
        ],
    ];
    for verdict in [
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Return,
        Verdict::Jump("user".into()),
        Verdict::Goto("other-chain.x".into()),
    ] {
        rules.push(vec![Expr::Verdict(verdict)]);
    }
    for direction in [None, Some(Direction::Original), Some(Direction::Reply)] {
        rules.push(vec![Expr::CtZone { zone: 1, direction }]);
        rules.push(vec![Expr::CtZone { zone: 65535, direction }]);
    }
    for (value, mask) in
        [(0, u32::MAX), (5, u32::MAX), (5, 0x0f), (0, 0xf0), (0x15, 0x0f), (5, 0), (u32::MAX, u32::MAX), (0xff, 0xff)]
    {
        rules.push(vec![Expr::MarkSet { value, mask }]);
    }
    rules.extend(counted());
    rules.extend(assignments().into_iter().map(|assign| vec![Expr::Assign(assign)]));
    for (rate, unit, burst) in [(3, 3600, 5), (1, 1, 1), (10_000, 1, 100), (10, 60, 7), (1, 86400, 5)] {
        for invert in [false, true] {
            rules.push(vec![Expr::Limit(Limit { rate, unit, burst, invert }), Expr::Verdict(Verdict::Drop)]);
        }
    }
    for level in 0..8 {
        rules.push(vec![Expr::Log(Log::Kernel { prefix: None, level, flags: 0 })]);
        rules.push(vec![Expr::Log(Log::Kernel { prefix: Some(format!("a {{'#;*}} {level}: ")), level, flags: 0x2f })]);
    }
    for flags in (0..0x30).filter(|flags| flags & 0x10 == 0) {
        rules.push(vec![Expr::Log(Log::Kernel { prefix: None, level: 4, flags })]);
    }
    for group in [0, 7, 65535] {
        rules.push(vec![Expr::Log(Log::Group { group, prefix: None, snaplen: None, threshold: None })]);
        rules.push(vec![Expr::Log(Log::Group {
            group,
            prefix: Some("x".repeat(63)),
            snaplen: Some(100),
            threshold: Some(4),
        })]);
        rules.push(vec![Expr::Log(Log::Group { group, prefix: Some("x".into()), snaplen: Some(0), threshold: None })]);
    }
    rules
}

fn addresses(size: usize, saddr: Key, daddr: Key, ct: Key) -> Vec<Alternative> {
    let address = |last: u8| -> Vec<u8> {
        let mut bytes = vec![0x20, 1, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.truncate(size);
        bytes[size - 1] = last;
        bytes
    };
    let mut rules = Vec::new();
    for op in BOTH {
        for key in [saddr, daddr, ct] {
            rules.push(vec![matching(key, op, Value::Bytes(address(7)))]);
            for len in (0..=8 * size).filter(|len| size == 4 || len % 8 < 2 || len % 32 == 31) {
                let mask = bits(len, size);
                let network: Vec<u8> = address(7).iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
                rules.push(vec![masked(key, mask, op, network)]);
            }
            let mut holes = vec![0xff; size];
            holes[1] = 0;
            let network: Vec<u8> = address(7).iter().zip(&holes).map(|(byte, mask)| byte & mask).collect();
            rules.push(vec![masked(key, holes, op, network)]);
            // Bits outside of the mask: matches nothing.
            rules.push(vec![masked(key, bits(8, size), op, address(7))]);
            rules.push(vec![range(key, op, address(1), address(9))]);
            rules.push(vec![range(key, op, vec![0; size], vec![0xff; size])]);
            rules.push(vec![set(key, op, vec![one(address(1)), one(address(3))])]);
            rules.push(vec![set(
                key,
                op,
                vec![from_to(address(5), address(9)), one(address(1)), from_to(vec![0xfe; size], vec![0xff; size])],
            )]);
        }
        rules.push(vec![
            matching(saddr, op, Value::Bytes(address(1))),
            matching(daddr, op, Value::Bytes(address(2))),
            Expr::Verdict(Verdict::Accept),
        ]);
    }
    rules
}

fn shapes(family: Family) -> Vec<Alternative> {
    let mut rules = common();
    rules.extend(fields(family));
    rules.extend(ipsec());
    let original = Some(Direction::Original);
    match family {
        Family::V4 => {
            rules.extend(translations(family, "192.0.2.1", "192.0.2.9"));
            rules.extend(diversions(family, "192.0.2.1"));
            rules.extend(answers(family));
            rules.extend(addresses(
                4,
                Key::Payload(Field::Ip4Saddr),
                Key::Payload(Field::Ip4Daddr),
                Key::Ct(Ct::SrcIp, original),
            ));
            for op in BOTH {
                rules.push(vec![matching(Key::Payload(Field::Ip4Protocol), op, Value::Bytes(vec![6]))]);
                rules.push(vec![
                    eq(Key::Payload(Field::Ip4Protocol), [6]),
                    matching(Key::Payload(Field::TcpDport), op, Value::Bytes(port(80).into())),
                ]);
                rules.push(vec![masked(Key::Payload(Field::Ip4FragOff), [0x1f, 0xff], op, [0, 0])]);
                rules.push(vec![range(Key::Payload(Field::Ip4Length), op, port(20), port(1500))]);
                rules.push(vec![set(
                    Key::Payload(Field::Ip4Length),
                    op,
                    vec![one(port(20)), from_to(port(30), port(40))],
                )]);
                for kind in 0..=18u8 {
                    rules.push(vec![l4(1), matching(Key::Payload(Field::IcmpType), op, Value::Bytes(vec![kind]))]);
                }
                rules.push(vec![
                    l4(1),
                    eq(Key::Payload(Field::IcmpType), [3]),
                    matching(Key::Payload(Field::IcmpCode), op, Value::Bytes(vec![4])),
                ]);
                rules.push(vec![
                    l4(1),
                    eq(Key::Payload(Field::IcmpType), [3]),
                    range(Key::Payload(Field::IcmpCode), op, [0], [4]),
                ]);
                rules.push(vec![l4(1), set(Key::Payload(Field::IcmpType), op, vec![one([8]), one([0])])]);
            }
        }
        Family::V6 => {
            rules.extend(translations(family, "2001:db8::1", "2001:db8::9"));
            rules.extend(diversions(family, "2001:db8::1"));
            rules.extend(answers(family));
            rules.extend(addresses(
                16,
                Key::Payload(Field::Ip6Saddr),
                Key::Payload(Field::Ip6Daddr),
                Key::Ct(Ct::DstIp6, original),
            ));
            for op in BOTH {
                rules.extend(headers::extension(op));
                rules.push(vec![range(Key::Payload(Field::Ip6Length), op, port(20), port(1500))]);
                for kind in (0..5u8).chain(127..144) {
                    rules.push(vec![l4(58), matching(Key::Payload(Field::Icmp6Type), op, Value::Bytes(vec![kind]))]);
                }
                rules.push(vec![
                    l4(58),
                    eq(Key::Payload(Field::Icmp6Type), [1]),
                    range(Key::Payload(Field::Icmp6Code), op, [0], [4]),
                ]);
                rules.push(vec![
                    l4(58),
                    eq(Key::Payload(Field::Icmp6Type), [1]),
                    matching(Key::Payload(Field::Icmp6Code), op, Value::Bytes(vec![3])),
                ]);
            }
        }
    }
    rules
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A rule's expressions as the kernel tells them, less what depends on chance: a set stands for its name, and neighbouring
/// header fields, which nft loads at once, are taken apart.
fn kernel_form(kernel: &mut Connection, table: Table<'_>, rule: &RuleInfo) -> Vec<String> {
    // Attributes of linux/netfilter/nf_tables.h.
    const PAYLOAD_BASE: u16 = 2;
    const PAYLOAD_OFFSET: u16 = 3;
    const CMP_OP: u16 = 2;
    const CMP_DATA: u16 = 3;
    const CMP_NEQ: u32 = 1;
    const CMP_LTE: u32 = 3;
    const CMP_GTE: u32 = 5;
    const RANGE_OP: u16 = 2;
    const RANGE_FROM: u16 = 3;
    const RANGE_TO: u16 = 4;
    const LOOKUP_SET: u16 = 1;
    const LOOKUP_FLAGS: u16 = 5;
    let mut form = Vec::new();
    let mut loaded: Option<&RawExpr> = None;
    for expr in &rule.expressions {
        let attributes = expr.attributes();
        match (expr.name.as_str(), loaded.take()) {
            ("payload", before) => {
                form.extend(before.map(|before| format!("payload {}", hex(&before.data))));
                loaded = Some(expr);
            }
            ("cmp", Some(load)) if attributes.u32(CMP_OP) == Some(0) => {
                let place = load.attributes();
                let value = attributes.nested(CMP_DATA).unwrap().find(1).unwrap().value;
                for (at, byte) in (place.u32(PAYLOAD_OFFSET).unwrap()..).zip(value) {
                    form.push(format!("byte {} of header {} == {byte:02x}", at, place.u32(PAYLOAD_BASE).unwrap()));
                }
            }
            (name, before) => {
                form.extend(before.map(|before| format!("payload {}", hex(&before.data))));
                let data = |kind| hex(attributes.nested(kind).unwrap().find(1).unwrap().value);
                if name == "range" && attributes.u32(RANGE_OP) == Some(0) {
                    // Two comparisons up to nft 1.0, one expression from 1.1 on.
                    form.push(format!("from {}", data(RANGE_FROM)));
                    form.push(format!("to {}", data(RANGE_TO)));
                } else if name == "range" && data(RANGE_FROM) == data(RANGE_TO) {
                    // What nft 1.1 makes of a range of one value.
                    form.push(format!("not {}", data(RANGE_FROM)));
                } else if name == "cmp" && attributes.u32(CMP_OP) == Some(CMP_NEQ) {
                    form.push(format!("not {}", data(CMP_DATA)));
                } else if name == "cmp" && matches!(attributes.u32(CMP_OP), Some(CMP_GTE | CMP_LTE)) {
                    let word = if attributes.u32(CMP_OP) == Some(CMP_GTE) { "from" } else { "to" };
                    form.push(format!("{word} {}", data(CMP_DATA)));
                } else if name == "lookup" {
                    let set = attributes.string(LOOKUP_SET).unwrap();
                    let mut elements = kernel.set_elements(table.family, table.name, &set).unwrap();
                    elements.sort();
                    let elements: Vec<String> = elements
                        .iter()
                        .map(|(key, ends)| format!("{}{}", hex(key), if *ends { " end" } else { "" }))
                        .collect();
                    form.push(format!("lookup {:?} {}", attributes.u32(LOOKUP_FLAGS), elements.join(", ")));
                } else {
                    form.push(format!("{name} {}", hex(&expr.data)));
                }
            }
        }
    }
    form
}

const CHAINS: [(&str, HookPoint, i32, ChainKind); 5] = [
    ("answers", HookPoint::Input, 0, ChainKind::Filter),
    ("PREROUTING", HookPoint::Prerouting, -300, ChainKind::Filter),
    ("OUTPUT", HookPoint::Output, -300, ChainKind::Filter),
    ("to-destination", HookPoint::Prerouting, -100, ChainKind::Nat),
    ("to-source", HookPoint::Postrouting, 100, ChainKind::Nat),
];

/// Where the kernel takes such a rule.
fn chain_of(rule: &Alternative) -> &'static str {
    let place = |expr: &Expr| match expr {
        Expr::Match(found) if found.key == Key::Meta(Meta::Oifname) => Some("OUTPUT"),
        Expr::Nat(Nat::To { manip: Manip::Source, .. } | Nat::Prefix { manip: Manip::Source, .. }) => Some("to-source"),
        Expr::Nat(Nat::Masquerade { .. }) => Some("to-source"),
        Expr::Nat(_) => Some("to-destination"),
        Expr::Reject(_) | Expr::Divert(Divert::Synproxy { .. }) => Some("answers"),
        _ => None,
    };
    rule.iter().find_map(place).unwrap_or("PREROUTING")
}

/// Packets that are answered and dropped.
fn answers(family: Family) -> Vec<Alternative> {
    let codes: &[u8] = if family == Family::V4 { &[0, 1, 2, 3, 9, 10, 13] } else { &[0, 1, 3, 4, 5, 6] };
    let counted = |answer| vec![l4(6), Expr::Counter { packets: 0, bytes: 0 }, Expr::Reject(answer)];
    let plain = codes.iter().map(|code| vec![Expr::Reject(Reject::Unreachable { family, code: *code })]);
    let of_tcp = codes.iter().map(|code| counted(Reject::Unreachable { family, code: *code }));
    plain.chain(of_tcp).chain([counted(Reject::TcpReset)]).collect()
}

/// Packets that go elsewhere. Not queues: this needs a kernel that has them.
fn diversions(family: Family, address: &str) -> Vec<Alternative> {
    let address: std::net::IpAddr = address.parse().unwrap();
    let counter = Expr::Counter { packets: 0, bytes: 0 };
    let mut rules = vec![vec![Expr::Divert(Divert::Dup { gateway: address })], vec![Expr::Log(Log::Audit)]];
    for (timestamp, sack) in [(false, false), (true, false), (false, true), (true, true)] {
        for sizes in [None, Some((0, 0)), Some((1460, 7)), Some((65535, 14))] {
            let proxy = Expr::Divert(Divert::Synproxy { sizes, timestamp, sack });
            let opening = Expr::Match(Match {
                key: Key::Payload(Field::TcpFlags),
                mask: Some(vec![0x17]),
                op: Op::Eq,
                value: Value::Set(vec![one([0x02]), one([0x10])]),
            });
            rules.push(vec![l4(6), counter.clone(), proxy.clone()]);
            rules.push(vec![l4(6), counter.clone(), opening, proxy]);
        }
    }
    for (protocol, port) in [(6, 80), (17, 65535), (6, 0)] {
        for address in [None, Some(address)] {
            let proxy = Expr::Divert(Divert::Tproxy { family, address, port });
            let mark = Expr::MarkSet { value: 5, mask: 0xff };
            rules.push(vec![l4(protocol), counter.clone(), proxy.clone(), Expr::Verdict(Verdict::Accept)]);
            rules.push(vec![l4(protocol), counter.clone(), proxy, mark, Expr::Verdict(Verdict::Accept)]);
        }
    }
    rules
}

/// Translations of addresses and ports.
fn translations(family: Family, from: &str, to: &str) -> Vec<Alternative> {
    const RANDOM: u32 = 4;
    const PERSISTENT: u32 = 8;
    const FULLY: u32 = 16;
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    let mut rules = Vec::new();
    let mut both = |nat: Nat| rules.push(vec![l4(6), Expr::Counter { packets: 0, bytes: 0 }, Expr::Nat(nat)]);
    for ports in [None, Some((0, 0)), Some((80, 80)), Some((80, 90)), Some((1, 65535))] {
        for flags in [0, RANDOM, FULLY, RANDOM | FULLY] {
            both(Nat::Masquerade { ports, flags });
        }
        for flags in [0, RANDOM] {
            both(Nat::Redirect { ports, flags });
        }
        for manip in [Manip::Source, Manip::Destination] {
            for flags in [0, RANDOM, PERSISTENT, RANDOM | PERSISTENT, FULLY, RANDOM | FULLY | PERSISTENT] {
                both(Nat::To { manip, family, addresses: Some((from, from)), ports, flags });
                both(Nat::To { manip, family, addresses: Some((from, to)), ports, flags });
                if ports.is_some() {
                    both(Nat::To { manip, family, addresses: None, ports, flags });
                }
            }
        }
    }
    for (network, length) in [(from, if family == Family::V4 { 32 } else { 128 }), (from, 24), (from, 0)] {
        for manip in [Manip::Source, Manip::Destination] {
            let network = match network {
                std::net::IpAddr::V4(address) if length < 32 => {
                    (address & std::net::Ipv4Addr::from(u32::MAX.checked_shl(32 - length).unwrap_or(0))).into()
                }
                std::net::IpAddr::V6(address) if length < 128 => {
                    (address & std::net::Ipv6Addr::from(u128::MAX.checked_shl(128 - length).unwrap_or(0))).into()
                }
                whole => whole,
            };
            rules.push(vec![Expr::Nat(Nat::Prefix { manip, network, length: length as u8 })]);
        }
    }
    for flags in [0, RANDOM | FULLY] {
        rules.push(vec![Expr::Nat(Nat::Masquerade { ports: None, flags })]);
    }
    rules.push(vec![Expr::Nat(Nat::Redirect { ports: None, flags: 0 })]);
    for protocol in [1, 17, 33, 132] {
        let to =
            Nat::To { manip: Manip::Destination, family, addresses: Some((from, from)), ports: Some((5, 6)), flags: 0 };
        rules.push(vec![l4(protocol), Expr::Nat(to)]);
    }
    rules
}

fn batch_with(table: Table<'_>, rules: &[Alternative]) -> Batch {
    let mut batch = Batch::new();
    batch.add_table(table);
    for (name, hook, priority, kind) in CHAINS {
        batch.add_base_chain(table, BaseChain { name, hook, priority, kind, ..prerouting((0, 0)) });
    }
    batch.add_chain(table, "user");
    batch.add_chain(table, "other-chain.x");
    for rule in rules {
        batch.add_rule(table, chain_of(rule), Position::Append, rule, b"");
    }
    batch
}

/// What the kernel holds, each rule with its line in nft's own listing.
fn held(kernel: &mut Connection, table: Table<'_>) -> Vec<(Vec<String>, String)> {
    let listing = nft(&["list", "table", table.family.nft(), table.name], "").unwrap();
    let is_rule = |line: &&str| line.starts_with("\t\t") && !line.starts_with("\t\ttype ");
    let mut lines = listing.lines().filter(is_rule).map(|line| line.trim().to_owned());
    let mut held = Vec::new();
    for (chain, ..) in CHAINS {
        for rule in kernel.rules(table.family, table.name, Some(chain)).unwrap() {
            held.push((kernel_form(kernel, table, &rule), lines.next().unwrap_or_default()));
        }
    }
    held
}

/// Commits rules, and loads their printed form into another table: the kernel must hold the same in both, nft must
/// print the same of both, and read back what it prints.
fn agree(
    family: Family,
    shapes: &[Alternative],
    print: impl Fn(&Batch) -> Result<String, text::Unprintable>,
    args: &[&str],
) {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    let ours = Table { family, name: "ours" };
    let theirs = Table { family, name: "theirs" };
    let mut problems = Vec::new();
    for rules in shapes.chunks(20) {
        kernel.commit(batch_with(ours, rules), None).unwrap_or_else(|error| panic!("{error}: {rules:?}"));
        let printed = print(&batch_with(theirs, rules)).unwrap_or_else(|error| panic!("{error}: {rules:?}"));
        nft(args, &printed).unwrap_or_else(|error| panic!("not loaded: {error}"));
        let (committed, loaded) = (held(&mut kernel, ours), held(&mut kernel, theirs));
        assert_eq!((committed.len(), loaded.len()), (rules.len(), rules.len()));
        for (ours, theirs) in committed.into_iter().zip(loaded) {
            if ours != theirs {
                problems.push(format!("ours   {ours:?}\ntheirs {theirs:?}"));
            }
        }
        let listing = nft(&["list", "ruleset"], "").unwrap();
        if let Err(error) = nft(&["-c", "-f", "-"], &listing) {
            problems.push(format!("cannot be reloaded: {error}"));
        }
        let mut batch = Batch::new();
        batch.delete_table(ours);
        batch.delete_table(theirs);
        kernel.commit(batch, None).unwrap();
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    println!("{} shapes agree", shapes.len());
}

fn as_text(batch: &Batch) -> Result<String, text::Unprintable> {
    text::commands(batch).map(|commands| commands.join("\n") + "\n")
}

#[test]
fn nft_syntax_agrees_ipv4() {
    agree(Family::V4, &shapes(Family::V4), as_text, &["-f", "-"]);
}

#[test]
fn nft_syntax_agrees_ipv6() {
    agree(Family::V6, &shapes(Family::V6), as_text, &["-f", "-"]);
}

/// All but what only nft syntax has: TCP options without a name, IPsec, numbers beyond 32 bits.
fn shapes_in_json(family: Family) -> Vec<Alternative> {
    let nameless = |expr: &Expr| {
        matches!(
            expr,
            Expr::Match(Match { key: Key::TcpOption(6 | 7 | 9..), .. })
                | Expr::Assign(Assign::StripTcpOption(6 | 7 | 9..))
        )
    };
    let ipsec = ipsec();
    let transformed = |expr: &Expr| ipsec.iter().any(|rule| rule.contains(expr));
    let huge = |expr: &Expr| matches!(expr, Expr::Quota { bytes: 0x1_0000_0000.., .. });
    shapes(family)
        .into_iter()
        .filter(|rule| !rule.iter().any(|expr| nameless(expr) || transformed(expr) || huge(expr)))
        .collect()
}

#[test]
fn json_agrees_ipv4() {
    agree(Family::V4, &shapes_in_json(Family::V4), json::commands, &["-j", "-f", "-"]);
}

#[test]
fn json_agrees_ipv6() {
    agree(Family::V6, &shapes_in_json(Family::V6), json::commands, &["-j", "-f", "-"]);
}

/// What nft lists and loads again is the same to the kernel, where a list may be loaded in place of ours.
#[test]
fn what_is_written_comes_back_as_it_was() {
    if !in_namespace() {
        return;
    }
    let mut kernel = Connection::open().unwrap();
    for family in [Family::V4, Family::V6] {
        let table = Table { family, name: "ours" };
        let mut shapes = fields(family);
        shapes.extend(counted());
        shapes.extend(assignments().into_iter().map(|assign| vec![Expr::Assign(assign)]));
        for rules in shapes.chunks(20) {
            kernel.commit(batch_with(table, rules), None).unwrap();
            let was = held(&mut kernel, table);
            let listing = nft(&["list", "table", family.nft(), table.name], "").unwrap();
            nft(&["delete", "table", family.nft(), table.name], "").unwrap();
            nft(&["-f", "-"], &listing).unwrap();
            assert_eq!(held(&mut kernel, table), was, "{listing}");
            nft(&["delete", "table", family.nft(), table.name], "").unwrap();
        }
    }
}
