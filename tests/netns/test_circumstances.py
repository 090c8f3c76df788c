"""Matches on what a packet's headers do not say: chance, quotas, IPsec, routes, sockets, interfaces' groups. The words of
the originals, and the same packets through both."""

import itertools
import platform
import shlex
import socket

import pytest

import packets as p

ACROSS = {4: {"source": p.PEER4, "target": p.BEYOND4}, 6: {"source": p.PEER6, "target": p.BEYOND6}}
HERE = {4: {"source": p.PEER4, "target": p.OURS4}, 6: {"source": p.PEER6, "target": p.OURS6}}
AWAY = {4: {"source": p.INNER4, "target": p.BEYOND4}, 6: {"source": p.INNER6, "target": p.BEYOND6}}
FRONT = {4: "iptables", 6: "ip6tables"}
FAMILIES = pytest.mark.parametrize("family", FRONT)

# Chain: rules that ours takes as well. PREROUTING and POSTROUTING are mangle's, the others filter's.
FORMS = {
    "statistic": {
        "OUTPUT": (
            "--mode random --probability 0.5", "--mode random ! --probability 0.5", "--mode random --probability 0.33333333349", "--mode random --probability 1", "--mode random --probability 1e-3", "--mode nth --every 1 --packet 0", "--mode nth --every 5 --packet 0", "--mode nth --every 5 --packet 4",
            "--mode nth ! --every 5 --packet 2", "--every 5 --mode nth --packet 3", "--mode nth --every 4294967295 --packet 1",
        ),
    },
    "quota": {"OUTPUT": ("--quota 1000", "! --quota 1000", "--quota 0x10", "! --quota 0")},
    "policy": {
        "INPUT": ("--dir in", "--dir in --pol none", "--dir in --pol ipsec", "--dir in --pol none --reqid 1", "--dir in --pol ipsec --reqid 1", "--dir in --pol ipsec ! --reqid 1", "--dir in --pol ipsec --spi 256", "--dir in --pol ipsec ! --spi 0x100", "--dir in --pol ipsec --reqid 0"),
        "OUTPUT": ("--dir out --pol ipsec", "--dir out --pol none", "--dir out --pol ipsec --reqid 7"),
        "FORWARD": ("--dir in --pol none", "--dir out --pol none"),
        "PREROUTING": ("--dir in --pol none",),
        "POSTROUTING": ("--dir out --pol ipsec",),
    },
    "realm": {"INPUT": ("--realm 0x1/0x2a", "--realm 42", "! --realm 5/0xff", "--realm cosmos", "--realm 0", "--realm 5/0", "--realm 5/0xffffffff")},
    "cpu": {"OUTPUT": ("--cpu 0", "! --cpu 1", "--cpu 4294967295")},
    "devgroup": {"FORWARD": ("--src-group 5", "--src-group 0x5/0xf", "! --src-group 5/0xf", "--src-group default", "--src-group 21/0xf", "--src-group 5 ! --dst-group 6/7", "--dst-group 6 --src-group 5", "--src-group 5/0")},
    "owner": {
        "OUTPUT": ("--uid-owner root", "--uid-owner 0-10", "--uid-owner 5-5", "--uid-owner 4294967294", "--uid-owner 0x10", "--gid-owner daemon", "--gid-owner 0-10", "--uid-owner root --gid-owner daemon", "--uid-owner 0 ! --gid-owner 1", "! --uid-owner 0 --gid-owner 1"),
        "POSTROUTING": ("--uid-owner root",),
    },
    "rpfilter": {"PREROUTING": ("--loose", "--loose --validmark", "--loose --accept-local", "--loose --invert", "--invert --accept-local --validmark --loose")},
    "socket": {},
}
# Rules that the original refuses, and so does ours, in the same words.
ERRORS = {
    "statistic": {
        "OUTPUT": (
            "", "--mode random", "--mode foo", "--mode random --probability 1.1", "--mode random --probability -0.1", "--mode random --probability 0.1x", "--probability 1", "--mode random --every 5", "--mode nth --probability 0.5", "--mode nth --every 5", "--mode nth --every 0", "--mode nth --every 5 --packet 5", "--mode nth --every 5 ! --packet 2",
            "--mode nth --every 4294967296 --packet 0", "--mode nth --every abc", "--mode nth --packet 2", "--mode nth --mode random --probability 0.5",
        ),
    },
    "quota": {"OUTPUT": ("", "--quota 18446744073709551616", "--quota 1k", "--quota 5 --quota 6")},
    "policy": {
        "INPUT": ("", "--pol ipsec", "--dir out --pol ipsec", "--dir x", "--dir in --pol x", "--dir in --pol ipsec ! --reqid 1 --reqid 2", "--dir in --dir out", "! --dir in", "--dir in ! --pol none", "--dir in --pol ipsec --reqid 4294967296"),
        "OUTPUT": ("--dir in --pol ipsec",),
        "PREROUTING": ("--dir out --pol none",),
    },
    "realm": {"INPUT": ("", "--realm foo", "--realm 0x100000000", "--realm 5x", "--realm 5/x"), "PREROUTING": ("--realm 5",)},
    "cpu": {"OUTPUT": ("", "--cpu 4294967296", "--cpu x")},
    "devgroup": {"INPUT": ("", "--src-group foo", "--dst-group 5", "--src-group 4294967296"), "OUTPUT": ("--src-group 5",), "FORWARD": ("--src-group 6 --src-group 5",)},
    "owner": {"OUTPUT": ("", "--uid-owner 10-5", "--uid-owner nosuchuser", "--uid-owner 4294967295", "--uid-owner 5-", "--gid-owner nosuchgroup", "--uid-owner 1 --uid-owner 2", "--uid-owner 1 ! --suppl-groups"), "INPUT": ("--uid-owner root",)},
    "rpfilter": {"PREROUTING": ("! --invert", "--invert --invert"), "INPUT": ("--loose",), "OUTPUT": ("--loose",)},
    "socket": {"PREROUTING": ("! --transparent", "--transparent --transparent"), "OUTPUT": ("--nowildcard",)},
}


def table_of(chain):
    return "mangle" if chain in ("PREROUTING", "POSTROUTING") else "filter"


@pytest.mark.parametrize("front", FRONT.values())
@pytest.mark.parametrize("extension", FORMS)
def test_forms(carried, front, extension):
    """Saved, listed, found again and taken away in the words of the original; refused in its words, too."""
    if (front, extension) == ("ip6tables", "realm"):
        carried.run("ip6tables -A INPUT -m realm --realm 5")
        return
    for chain, rules in FORMS[extension].items():
        start = [front, "-t", table_of(chain)]
        for rule in rules:
            words = [chain, "-m", extension, *shlex.split(rule), "-j", "ACCEPT"]
            carried.run([*start, "-A", *words], 0)
            for look in ("-S", "-L", "-nvxL"):
                carried.run([*start, look, chain], 0)
            carried.run([f"{front}-save", "-t", table_of(chain)], 0)
            carried.run([*start, "-C", *words], 0)
            carried.run([*start, "-D", *words], 0)
    for chain, rules in ERRORS[extension].items():
        for rule in rules:
            carried.run([front, "-t", table_of(chain), "-A", chain, "-m", extension, *shlex.split(rule)])


@pytest.mark.parametrize("front", FRONT.values())
def test_neighbours_are_told_apart(carried, front):
    """No rule is taken by -C for another one, and what is saved can be restored."""
    if carried.subject.variant == "legacy" and front == "ip6tables":
        return  # ip6tables-legacy finds rules that differ in these
    for extension, chains in FORMS.items():
        for chain, rules in chains.items():
            if (front, extension) == ("ip6tables", "realm"):
                continue
            start = [front, "-t", table_of(chain)]
            carried.run([*start, "-A", chain, "-m", extension, *shlex.split(rules[0])], 0)
            for rule in rules[1:]:
                carried.run([*start, "-C", chain, "-m", extension, *shlex.split(rule)])
    saved = carried.run(f"{front}-save", 0)
    carried.run(f"{front}-restore", 0, stdin=saved.out)
    carried.state()


@FAMILIES
@pytest.mark.parametrize("rule, turns", [("--every 3 --packet 0", "1001001"), ("--every 3 --packet 2", "0010010"), ("! --every 3 --packet 1", "1011011"), ("--every 1 --packet 0", "1111111")])
def test_every_nth(scene, family, rule, turns):
    front, to = FRONT[family], ACROSS[family]
    scene.run(f"{front} -A FORWARD -p udp -m statistic --mode nth {rule} -j DROP", 0)
    for turn in turns:
        assert [each.where for each in scene.send(p.udp(**to))] == ([] if turn == "1" else ["right"])
    scene.run(f"{front} -vS FORWARD", 0)


@FAMILIES
def test_probability(carried, family):
    """Of 400 packets half, give or take 6 deviations of 10; with a probability of 1 every one."""
    front = FRONT[family]
    for rule in ("--probability 0.5", "! --probability 0.5", "--probability 1"):
        carried.run(f"{front} -A OUTPUT -p udp --dport 4000 -m statistic --mode random {rule}", 0)
    carried.each(lambda _: [p.udp_over_lo(family, 4000) for _ in range(400)])
    for subject, place in carried.places:
        lines = carried.call(subject, place, [front, "-vS", "OUTPUT"]).out.decode().splitlines()[-3:]
        half, other, all = (int(line.split(" -c ")[1].split()[0]) for line in lines)
        if not (140 < half < 260 and 140 < other < 260 and all == 400):
            carried.fault(f"{subject.name}: {half}, {other} and {all} of 400")


@FAMILIES
@pytest.mark.parametrize("bang, within", [("", 1), ("! ", 0)])
def test_quota(scene, family, bang, within):
    """A packet beyond the quota ends it, also for smaller packets."""
    front, to = FRONT[family], ACROSS[family]
    long, short = p.udp(payload=b"x" * 40, **to), p.udp(payload=b"", **to)
    scene.run(f"{front} -A FORWARD -p udp -m quota {bang}--quota {2 * len(long) + len(short)} -j DROP", 0)
    for packet, counts in ((long, within), (long, within), (long, 1 - within), (short, 1 - within)):
        assert [each.where for each in scene.send(packet)] == ([] if counts else ["right"])
    scene.run(f"{front} -vS FORWARD", 0)


@pytest.mark.skipif(tuple(map(int, platform.release().split(".")[:2])) < (6, 16), reason="nft_quota of kernels before 6.16 does not use the last byte")
def test_quota_to_the_last_byte(scene):
    packet = p.udp(**ACROSS[4])
    scene.run(f"iptables -A FORWARD -p udp -m quota --quota {2 * len(packet)} -j DROP", 0)
    assert [[each.where for each in scene.send(packet)] for _ in range(3)] == [[], [], ["right"]]


@FAMILIES
def test_policy_without_ipsec(scene, family):
    """What Docker's encrypted overlays ask for, on a host where nothing is encrypted."""
    front = FRONT[family]
    for table, chain, direction, at, addresses in (
        ("mangle", "PREROUTING", "in", "left", ACROSS), ("filter", "INPUT", "in", "left", HERE), ("filter", "FORWARD", "in", "left", ACROSS), ("filter", "FORWARD", "out", "left", ACROSS), ("filter", "OUTPUT", "out", "host", AWAY), ("mangle", "POSTROUTING", "out", "left", ACROSS),
    ):
        packet = p.udp(**addresses[family])
        scene.meets(front, table, chain, f"-p udp -m policy --dir {direction} --pol none -j MARK --set-mark 7" if table == "mangle" else f"-p udp -m policy --dir {direction} --pol none -j DROP", [packet], [p.tcp(**addresses[family])], at=at)
        for element in ("", " --reqid 5", " ! --reqid 5", " --spi 5"):
            scene.meets(front, table, chain, f"-p udp -m policy --dir {direction} --pol ipsec{element} -j DROP", [], [packet], at=at)


def test_realm(scene):
    for host in scene.hosts:
        host.place.sh(f"ip route replace 10.8.0.0/24 dev eth1 src {p.INNER4} realm 5")
    packet = p.udp(**AWAY[4])
    scene.meets("iptables", "filter", "OUTPUT", "-p udp -m realm --realm 5 -j DROP", [packet], [p.tcp(**AWAY[4])], at="host")
    scene.meets("iptables", "filter", "OUTPUT", "-p udp -m realm --realm 4/0xfe -j DROP", [packet], [], at="host")
    scene.meets("iptables", "filter", "OUTPUT", "-p udp -m realm ! --realm 6 -j DROP", [packet], [], at="host")
    for rule in ("--realm 6", "--realm 5/0xfe", "! --realm 5"):
        scene.meets("iptables", "filter", "OUTPUT", f"-p udp -m realm {rule} -j DROP", [], [packet], at="host")


@FAMILIES
def test_devgroup(scene, family):
    for host in scene.hosts:
        host.place.sh("ip link set eth0 group 5")
        host.place.sh("ip link set eth1 group 0x16")
    packet = p.udp(**ACROSS[family])
    for rule in ("--src-group 5", "--src-group 0x15/0xf", "! --src-group 6", "--src-group 5 --dst-group 6/0xf", "--dst-group 0x16"):
        scene.meets(FRONT[family], "filter", "FORWARD", f"-p udp -m devgroup {rule} -j DROP", [packet], [p.tcp(**ACROSS[family])])
    for rule in ("--src-group 6", "! --src-group 0x15/0xf", "--src-group 5 --dst-group 6", "--dst-group default"):
        scene.meets(FRONT[family], "filter", "FORWARD", f"-p udp -m devgroup {rule} -j DROP", [], [packet])


@FAMILIES
def test_cpu(scene, family):
    packet = p.udp(**ACROSS[family])
    scene.meets(FRONT[family], "filter", "FORWARD", "-p udp -m cpu ! --cpu 4000 -j DROP", [packet], [p.tcp(**ACROSS[family])])
    scene.meets(FRONT[family], "filter", "FORWARD", "-p udp -m cpu --cpu 4000 -j DROP", [], [packet])


@FAMILIES
def test_owner(scene, family):
    """A socket of ours is root's; an echo reply is nobody's, which no positive rule means."""
    front, sent, answered = FRONT[family], p.udp(**AWAY[family]), p.icmp(128 if family == 6 else 8, **HERE[family])
    for rule in ("--uid-owner root", "--uid-owner 0-10", "--gid-owner 0", "--uid-owner 0 ! --gid-owner 1-9", "! --uid-owner 7 --gid-owner 0"):
        scene.meets(front, "filter", "OUTPUT", f"-m owner {rule} -j DROP", [(sent, {"at": "host"})], [answered])
    for rule in ("--uid-owner 1-99", "--gid-owner 7", "--uid-owner 0 ! --gid-owner 0", "! --uid-owner 0 --gid-owner 0"):
        scene.meets(front, "filter", "OUTPUT", f"-m owner {rule} -j DROP", [], [(sent, {"at": "host"}), answered])


@FAMILIES
def test_owner_of_nothing(carried, family):
    """Rules that also mean packets without an owner are refused, not weakened."""
    for rule in ("! --uid-owner 0", "! --gid-owner 0-9", "! --uid-owner 0 ! --gid-owner 0", "--socket-exists", "--uid-owner 0 --suppl-groups", "--gid-owner 0 --suppl-groups"):
        subject, place = carried.places[-1]
        assert carried.call(subject, place, [FRONT[family], "-A", "OUTPUT", "-m", "owner", *shlex.split(rule), "-j", "DROP"]).rc != 0
        assert b"-A" not in carried.call(subject, place, [FRONT[family], "-S"]).out


@pytest.mark.parametrize("front", FRONT.values())
def test_socket_is_refused(carried, front):
    """xt puts fragments together for it, nft does not: what drops by length would let fragments through."""
    subject, place = carried.subject, carried.places[-1][1]
    for rule in ("", "--nowildcard", "--transparent --nowildcard", "--restore-skmark"):
        answer = carried.call(subject, place, [front, "-t", "mangle", "-A", "PREROUTING", "-m", "socket", *rule.split(), "-j", "DROP"])
        assert answer.rc != 0 and b"does not put fragments together" in answer.err, answer
    assert b"-A" not in carried.call(subject, place, [front, "-t", "mangle", "-S"]).out


@FAMILIES
def test_addrtype_at_every_hook(scene, family):
    """Docker asks for local destinations in nat PREROUTING and OUTPUT, for local sources in POSTROUTING."""
    front, links = FRONT[family], {6: "fe80::ff:fe00:1%eth0"}
    for host in scene.hosts:
        host.place.sh("ip route add 224.0.0.0/4 dev eth0")
    kinds = ("LOCAL", "UNICAST", "MULTICAST", *(("BROADCAST",) if family == 4 else ()))
    hooks = [("mangle", chain) for chain in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")] + [("nat", chain) for chain in ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")]
    scene.run(f"{front} -t mangle -N everywhere", 0)
    for table, chain in hooks[:5]:
        scene.run(f"{front} -t {table} -A {chain} -p udp -j everywhere", 0)
    hooks.append(("mangle", "everywhere"))
    for (table, chain), side, bang, kind in itertools.product(hooks, ("--src-type", "--dst-type"), ("", "! "), kinds):
        scene.run(f"{front} -t {table} -A {chain} -p udp -m addrtype {bang}{side} {kind}", 0)

    def from_the_host(_):
        targets = [HERE[family]["target"], AWAY[family]["source"], AWAY[family]["target"], p.LOOPBACK[family]]
        targets += [links[6], "ff02::5%eth0", "fe80::1234%eth0"] if family == 6 else ["10.9.0.255", "224.0.0.5", "127.0.0.5"]
        for port, target in enumerate(targets, 5000):
            with socket.socket(p.FAMILY[family], socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                address, _, scope = target.partition("%")
                sender.sendto(b"x", (address, port, 0, socket.if_nametoindex(scope)) if family == 6 and scope else (address, port))

    scene.both.each(from_the_host)
    inner, peer, ours_ = AWAY[family]["target"], HERE[family]["source"], HERE[family]["target"]
    everybody = {4: ("10.9.0.255", "224.0.0.1"), 6: ("ff02::1",)}[family]
    for host in scene.hosts:
        for target in (ours_, AWAY[family]["source"], inner, *everybody):
            host.send(p.udp(source=peer, target=target), "left", 0)
    for table, chain in hooks:
        scene.run(f"{front} -t {table} -vS {chain}", 0)
    lines = scene.run(f"{front} -t mangle -vS OUTPUT", 0).out.decode().splitlines()
    assert any(" -c 0 " not in line and "--dst-type LOCAL" in line and "!" not in line for line in lines)


# Where chains may be called from that hold such a rule. The kernel side of iptables-nft looks at some of them alone.
CALLED = {
    "mac": ("--mac-source 02:00:00:00:00:02", "INPUT FORWARD"), "owner": ("--uid-owner 0", "OUTPUT"), "realm": ("--realm 5", "INPUT FORWARD OUTPUT"),
    "policy": ("--dir in --pol none", "INPUT FORWARD"), "devgroup": ("--src-group 1", "INPUT FORWARD"), "addrtype": ("--src-type LOCAL --limit-iface-out", "FORWARD OUTPUT"),
}


@pytest.mark.parametrize("extension", CALLED)
def test_where_chains_are_called_from(carried, extension):
    """The rule first and then the jump, and the other way round, two chains away."""
    if carried.subject.variant == "nft" and extension in ("policy", "devgroup", "addrtype"):
        pytest.skip("iptables-nft takes what its kernel side does not look at, see docs/carriers.md")
    carried.policies_count = False
    rule, hooks = f"-m {extension} {CALLED[extension][0]}", CALLED[extension][1].split()
    for line in ("-N near", "-N far", "-A near -j far"):
        carried.run(f"iptables {line}", 0)
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        carried.run(f"iptables -A far {rule}", 0)
        assert (carried.run(f"iptables -A {chain} -j near").rc == 0) == (chain in hooks)
        carried.run("iptables -F far", 0)
        carried.run(f"iptables -F {chain}", 0)
        carried.run(f"iptables -A {chain} -j near", 0)
        assert (carried.run(f"iptables -A far {rule}").rc == 0) == (chain in hooks)
        carried.run("iptables -A far -p udp", 0)
        assert (carried.run(f"iptables -I far {rule}").rc == 0) == (chain in hooks)
        if carried.subject.variant == "legacy":  # iptables-nft-restore names the rule's line, ours the last
            assert (carried.run("iptables-restore -n", stdin=f"*filter\n-A far {rule}\nCOMMIT\n".encode()).rc == 0) == (chain in hooks)
        carried.state()
        for emptied in ("far", chain):
            carried.run(f"iptables -F {emptied}", 0)


SOURCES = {
    4: ("10.9.0.2", "10.8.0.2", "10.77.0.1", "10.78.0.1", "10.9.0.1", "10.8.0.1", "10.9.0.255", "10.8.0.255", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.5", "127.0.0.1"),
    6: ("fd09::2", "fd08::2", "fd77::1", "fd78::1", "fd09::1", "fd08::1", "fd09::", "::", "fe80::5", "fe80::ff:fe00:1", "2001:db8::1"),
}


@FAMILIES
def test_way_back(scene, family):
    """Packets from everywhere to either interface, with and without a default route, and with a mark's own routes."""
    front, ip = FRONT[family], f"ip -{family}"
    for host in scene.hosts:
        host.place.sh("nft add table inet marks")
        host.place.sh("nft add chain inet marks c { type filter hook prerouting priority -400; }")
        host.place.sh("nft add rule inet marks c udp sport 77 meta mark set 7")
    for options in itertools.product(("", "--loose") if family == 4 else ("--loose",), ("", "--validmark"), ("", "--accept-local"), ("", "--invert")):
        scene.run(f"{front} -t mangle -A PREROUTING -p udp -m rpfilter {' '.join(options)}", 0)
    near, far, beyond, gone = {4: ("10.9.0.2", "10.8.0.2", "10.77.0.0/24", "10.78.0.0/24"), 6: ("fd09::2", "fd08::2", "fd77::/64", "fd78::/64")}[family]
    steps = (
        (), (f"route add {beyond} via {far}",), (f"route add default via {near} metric 1000", f"route add default via {far} metric 2000", f"route add unreachable {gone}"),
        ("rule add fwmark 7 table 7", f"route add default via {far} table 7"),
    )
    counted = [rule_counts(scene, place, front) for place in scene.both.places]
    for step in steps:
        for host, line in itertools.product(scene.hosts, step):
            host.place.sh(f"{ip} {line}")
        for at, source, sport in itertools.product(("left", "right"), SOURCES[family], (1, 77)):
            for host in scene.hosts:
                host.send(p.udp(source=source, target=HERE[family]["target"], sport=sport), at, 0)
            now = [rule_counts(scene, place, front) for place in scene.both.places]
            seen = [[new - old for old, new in zip(*pair)] for pair in zip(counted, now)]
            # Each rule stands before its inverse.
            assert [a + b for a, b in zip(seen[-1][::2], seen[-1][1::2])] == [1] * (len(seen[-1]) // 2), (source, at, step)
            scene.both.equal(seen, f"{source} from the {at} is taken otherwise after {step}")
            counted = now


def rule_counts(scene, place, front):
    """What the rules of mangle PREROUTING have counted."""
    listed = scene.both.call(*place, [front, "-t", "mangle", "-vS", "PREROUTING"]).out.decode().splitlines()
    return [int(line.split(" -c ")[1].split()[0]) for line in listed if line.startswith("-A")]


def test_way_back_through_the_same_interface(carried):
    """In IPv6 only where both mean the same."""
    subject, place = carried.places[-1]
    answer = carried.call(subject, place, ["ip6tables", "-t", "raw", "-A", "PREROUTING", "-m", "rpfilter"])
    assert answer.rc != 0 and b"cannot carry -m rpfilter" in answer.err
