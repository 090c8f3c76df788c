"""Targets that change packets, marks and connections, and the matches that see it: forms, and real packets."""

import shlex
import socket

import pytest

import packets as p

FRONT = {4: "iptables", 6: "ip6tables"}
ACROSS = {4: {"source": p.PEER4, "target": p.BEYOND4}, 6: {"source": p.PEER6, "target": p.BEYOND6}}

# extension -> rules of mangle PREROUTING, or (chain, rules).
BOTH = {
    "connmark": ("-m connmark --mark 1", "-m connmark ! --mark 0x10/0xff -j DROP", "-m connmark --mark 0/0", "-m connmark", "-m connmark --mark x", "-m connmark --mark 1 --mark 2"),
    "CONNMARK": (
        "-j CONNMARK --set-mark 1", "-j CONNMARK --set-mark 0x10/0xff", "-j CONNMARK --set-mark 0x10/0x0f", "-j CONNMARK --set-xmark 0x10/0x0f", "-j CONNMARK --set-xmark 5", "-j CONNMARK --and-mark 0xff", "-j CONNMARK --or-mark 0x80",
        "-j CONNMARK --xor-mark 3", "-j CONNMARK --set-mark 0", "-j CONNMARK --set-mark x", "-j CONNMARK --and-mark x", "-j CONNMARK", "-j CONNMARK --mask 5", "-j CONNMARK --save-mark --restore-mark", "-j CONNMARK --save-mark --set-mark 1",
        "-j CONNMARK --save-mark --mask 1 --nfmask 1", "-j CONNMARK --save-mark --mask 1 --ctmask 1", "-j CONNMARK --set-mark 1 --mask 1", "-j CONNMARK --mask 0xf0 --set-mark 3", "-j CONNMARK ! --set-mark 1",
    ),
    "CONNMARK-copies": (
        "-j CONNMARK --save-mark", "-j CONNMARK --restore-mark", "-j CONNMARK --save-mark --mask 0xff", "-j CONNMARK --restore-mark --mask 0xff00", "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff00", "-j CONNMARK --save-mark --nfmask 0xff",
        "-j CONNMARK --save-mark --ctmask 0xff", "-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80", "-j CONNMARK --restore-mark --ctmask 0", "-m mark --mark 0 -j CONNMARK --restore-mark --mask 1", "-m mark ! --mark 0/0xff0000 -j CONNMARK --save-mark --mask 0xff0000",
    ),
    "CONNMARK-shifts": (
        "-j CONNMARK --set-mark 1 --left-shift-mark 3", "-j CONNMARK --set-xmark 1/0xff --right-shift-mark 3", "-j CONNMARK --save-mark --left-shift-mark 3", "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff00 --left-shift-mark 8",
        "-j CONNMARK --restore-mark --right-shift-mark 31", "-j CONNMARK --restore-mark --right-shift-mark 33", "-j CONNMARK --restore-mark --right-shift-mark 32", "-j CONNMARK --restore-mark --right-shift-mark 0", "-j CONNMARK --restore-mark --right-shift-mark 1 --left-shift-mark 2",
        "-j CONNMARK --left-shift-mark 2", "-j CONNMARK --and-mark 0xff --left-shift-mark 2", "-j CONNMARK --xor-mark 0xff --left-shift-mark 2",
    ),
}
BOTH |= {
    "dscp": ("-m dscp --dscp 0x20", "-m dscp ! --dscp 0", "-m dscp --dscp 64", "-m dscp --dscp-class AF41", "-m dscp ! --dscp-class be", "-m dscp --dscp-class X", "-m dscp", "-m dscp --dscp 1 --dscp-class EF", "-m dscp --dscp 1 --dscp 2"),
    "DSCP": ("-j DSCP --set-dscp 0x20", "-j DSCP --set-dscp 0", "-j DSCP --set-dscp 64", "-j DSCP --set-dscp-class EF", "-j DSCP --set-dscp-class af11", "-j DSCP --set-dscp-class CS7", "-j DSCP --set-dscp-class LE", "-j DSCP", "-j DSCP --set-dscp 1 --set-dscp-class EF", "-m dscp ! --dscp 8 -j DSCP --set-dscp 8"),
    "tos": ("-m tos --tos 0x10", "-m tos ! --tos 16", "-m tos ! --tos 0x10/0x3f", "-m tos --tos Minimize-Delay", "-m tos ! --tos Normal-Service", "-m tos --tos 0/0", "-m tos ! --tos 0/0", "-m tos --tos 0x10/0x0f", "-m tos ! --tos 0x10/0x0f", "-m tos --tos 256", "-m tos --tos x", "-m tos --tos 1/256", "-m tos --tos 1/", "-m tos", "-m tos --tos 1 --tos 2", "-m tos --tos Minimize-Delay/3"),
    "TOS": (
        "-j TOS --set-tos 0x10", "-j TOS --set-tos 0x1f", "-j TOS --set-tos Minimize-Delay", "-j TOS --set-tos minimize-cost", "-j TOS --set-tos Normal-Service", "-j TOS --set-tos 0x10/0x3f", "-j TOS --set-tos 0/0", "-j TOS --and-tos 0x3f", "-j TOS --or-tos 0x10", "-j TOS --xor-tos 0x10",
        "-j TOS --set-tos 256", "-j TOS --set-tos foo", "-j TOS --set-tos 1/", "-j TOS --and-tos 256", "-j TOS --or-tos x", "-j TOS", "-j TOS --set-tos 1 --or-tos 2", "-m dscp ! --dscp 0 -j TOS --set-tos Normal-Service",
    ),
    "ecn": (
        "-p tcp -m ecn --ecn-tcp-cwr", "-p tcp -m ecn ! --ecn-tcp-cwr", "-p tcp -m ecn --ecn-tcp-ece", "-p tcp -m ecn ! --ecn-tcp-ece --ecn-tcp-cwr", "-p tcp -m ecn --ecn-tcp-ece ! --ecn-tcp-cwr ! --ecn-ip-ect 2", "-m ecn --ecn-tcp-ece", "-p udp -m ecn --ecn-tcp-ece", "! -p tcp -m ecn --ecn-tcp-ece",
        "-m ecn --ecn-ip-ect 0", "-m ecn --ecn-ip-ect 3", "-m ecn ! --ecn-ip-ect 1", "-m ecn --ecn-ip-ect 4", "-m ecn", "-m ecn --ecn-ip-ect 1 --ecn-ip-ect 2", "-p udp -m ecn --ecn-ip-ect 1",
    ),
    "CLASSIFY": ("POSTROUTING", ("-j CLASSIFY --set-class 1:2", "-j CLASSIFY --set-class ffff:ffff", "-j CLASSIFY --set-class 0:0", "-j CLASSIFY --set-class 10000:1", "-j CLASSIFY --set-class 1", "-j CLASSIFY --set-class :1", "-j CLASSIFY --set-class 1:2:3", "-j CLASSIFY --set-class 0x10:0x2", "-j CLASSIFY --set-class 1:2x", "-j CLASSIFY")),
    "CLASSIFY-early": ("-j CLASSIFY --set-class 1:2",) * 2,
    "TCPOPTSTRIP": (
        "-p tcp -j TCPOPTSTRIP", "-p tcp -j TCPOPTSTRIP --strip-options 4,3,2", "-p tcp -j TCPOPTSTRIP --strip-options mss,wscale,sack-permitted,sack,timestamp,md5", "-p tcp -j TCPOPTSTRIP --strip-options mss,2", "-p tcp -j TCPOPTSTRIP --strip-options 254,1", "-p tcp -j TCPOPTSTRIP --strip-options 255",
        "-p tcp -j TCPOPTSTRIP --strip-options 256", "-p tcp -j TCPOPTSTRIP --strip-options foo", "-p tcp -j TCPOPTSTRIP --strip-options 2,", "-p udp -j TCPOPTSTRIP --strip-options 2", "-j TCPOPTSTRIP --strip-options 2", "-p tcp --dport 80 -j TCPOPTSTRIP --strip-options 5",
    ),
}
def connbytes(amount, direction="both", mode="bytes"):
    return f"-m connbytes {amount} --connbytes-dir {direction} --connbytes-mode {mode}"


BOTH |= {
    "connbytes": (
        connbytes("--connbytes 100:", "original", "packets"), connbytes("--connbytes 100:200", "reply"), connbytes("! --connbytes 100:200", mode="avgpkt"), connbytes("--connbytes :200"), connbytes("--connbytes 200:100"), connbytes("--connbytes 100"), connbytes("--connbytes 0:"), connbytes("! --connbytes 0:"),
        connbytes("--connbytes 5:5"), connbytes("! --connbytes 5:5"), connbytes("! --connbytes 0:5"), connbytes("! --connbytes 7:"), connbytes("--connbytes x"), connbytes("--connbytes 18446744073709551615:"), connbytes("--connbytes 1:18446744073709551615"), connbytes("--connbytes 1:18446744073709551616"),
        connbytes("--connbytes 1 --connbytes 2"), connbytes("--connbytes 1", "Both"), connbytes("--connbytes 1", mode="x"), "-m connbytes", "-m connbytes --connbytes 1:", "-m connbytes --connbytes-dir both", "-m connbytes --connbytes 1: --connbytes-mode bytes",
    ),
    "helper": ("-m helper --helper ftp", "-m helper ! --helper ftp-2121", "-m helper --helper ftp-2121", "-m helper --helper 'a b'", "-m helper --helper ''", "-m helper", "-m helper --helper 1234567890123456789012345678901234567890", "-m helper --helper ftp --helper irc", "-m helper --helper f"),
}
OWN = {
    4: {
        "ttl": ("-m ttl --ttl-eq 64", "-m ttl ! --ttl-eq 64", "-m ttl --ttl 5", "-m ttl --ttl-lt 64", "-m ttl --ttl-gt 64 -j DROP", "-m ttl ! --ttl-gt 64", "-m ttl --ttl-gt 255", "-m ttl --ttl-lt 0", "-m ttl --ttl-eq 256", "-m ttl", "-m ttl --ttl-gt 1 --ttl-lt 5", "-m ttl --ttl-eq 1 --ttl-eq 5"),
        "TTL": ("-j TTL --ttl-set 64", "-j TTL --ttl-set 0", "-j TTL --ttl-set 256", "-j TTL --ttl-inc 1", "-j TTL --ttl-dec 1", "-j TTL --ttl-inc 0", "-j TTL --ttl-dec 256", "-j TTL", "-j TTL --ttl-inc 1 --ttl-dec 1", "-j TTL --ttl-set 1 --ttl-set 2", "-j TTL ! --ttl-set 1", "-j HL --hl-set 1"),
        "ECN": ("-p tcp -j ECN --ecn-tcp-remove", "-j ECN", "-j ECN --ecn-ip-ect 0", "-p tcp -j ECN --ecn-ip-ect 3", "-j ECN --ecn-ip-ect 4", "-j ECN --ecn-ip-ect 1 --ecn-ip-ect 2", "-j ECN ! --ecn-ip-ect 1"),
    },
    6: {
        "hl": ("-m hl --hl-eq 64", "-m hl ! --hl-eq 64", "-m hl --hl 5", "-m hl --hl-lt 64", "-m hl --hl-gt 64 -j DROP", "-m hl ! --hl-gt 64", "-m hl --hl-gt 255", "-m hl --hl-lt 0", "-m hl --hl-eq 256", "-m hl", "-m hl --hl-gt 1 --hl-lt 5", "-m hl --hl-eq 1 --hl-eq 5"),
        "HL": ("-j HL --hl-set 64", "-j HL --hl-set 0", "-j HL --hl-set 256", "-j HL --hl-inc 1", "-j HL --hl-dec 1", "-j HL --hl-inc 0", "-j HL", "-j HL --hl-inc 1 --hl-dec 1", "-j HL --hl-set 1 --hl-set 2", "-j TTL --ttl-set 1"),
    },
}
FORMS = [(family, extension) for family in FRONT for extension in {**BOTH, **OWN[family]}]


@pytest.mark.parametrize("family, extension", FORMS)
def test_forms(carried, family, extension):
    """Each rule is taken, or refused, and listed as by the original, and found again."""
    front = FRONT[family]
    rules = {**BOTH, **OWN[family]}[extension]
    chain, rules = rules if isinstance(rules[1], tuple) else ("PREROUTING", rules)
    for rule in rules:
        words = shlex.split(rule)
        call = lambda command: carried.run([front, "-t", "mangle", command, chain, *words])
        if not carried.offer([front, "-t", "mangle", "-A", chain, *words]):
            continue
        carried.run(f"{front} -t mangle -S {chain}", 0)
        carried.run(f"{front} -t mangle -L {chain}", 0)
        carried.run(f"{front} -t mangle -nvxL {chain}", 0)
        saved = carried.run(f"{front}-save -t mangle", 0)
        for command in ("-C", "-I", "-D", "-D"):
            call(command)
        carried.run(f"{front}-restore", 0, stdin=saved.out)
        carried.run(f"{front} -t mangle -S {chain}", 0)
        carried.run(f"{front} -t mangle -F", 0)


# What CONNMARK is told, the packet's mark and the connection's before it, and after.
CONNMARKS = [
    ("--set-mark 0x5", 1, 2, 1, 5),
    ("--set-mark 0x10/0xff", 0, 0xFFFF, 0, 0xFF10),
    ("--set-xmark 0x11/0xf", 0, 0xFFFF, 0, 0xFFE1),
    ("--and-mark 0xf0", 0, 0xFFFF, 0, 0xF0),
    ("--or-mark 0xf0", 0, 0xF000, 0, 0xF0F0),
    ("--xor-mark 0xff", 0, 0xF0, 0, 0x0F),
    ("--set-xmark 0x1/0xf --left-shift-mark 4", 0, 0xFF, 0, 0xF10),
    ("--save-mark", 0x12345678, 0xFF, 0x12345678, 0x12345678),
    ("--save-mark --nfmask 0xff", 0x12345678, 0xFFFF, 0x12345678, 0x78),
    ("--save-mark --mask 0xff00", 0x12345678, 0xFFFFFFFF, 0x12345678, 0xFFFF56FF),
    ("--save-mark --mask 0x80", 0x80, 0x1, 0x80, 0x81),
    ("--save-mark --mask 0x80", 0x7F, 0x81, 0x7F, 0x01),
    ("--save-mark --nfmask 0xff --ctmask 0xf0", 0x55, 0xFF, 0x55, 0x5A),
    ("--save-mark --nfmask 0xff --ctmask 0xff00 --left-shift-mark 8", 0x12345678, 0x12345678, 0x12345678, 0x12347878),
    ("--save-mark --right-shift-mark 16", 0x12345678, 0, 0x12345678, 0x1234),
    ("--restore-mark", 7, 0x12345678, 0x12345678, 0x12345678),
    ("--restore-mark --ctmask 0xff", 0xF00, 0x12345678, 0x78, 0x12345678),
    ("--restore-mark --mask 0xff0000", 0x11223344, 0x55667788, 0x11663344, 0x55667788),
    ("--restore-mark --mask 0x80", 0x1, 0x80, 0x81, 0x80),
    ("--restore-mark --mask 0x80", 0x81, 0x7F, 0x1, 0x7F),
    ("--restore-mark --nfmask 0xf0 --ctmask 0xff", 0xFF, 0x55, 0x5A, 0x55),
    ("--restore-mark --ctmask 0", 5, 6, 0, 6),
    ("--restore-mark --left-shift-mark 8", 0, 0x12345678, 0x34567800, 0x12345678),
]


def test_connmark(scene):
    """Marks go over as the man page says, whatever both were before."""
    for number, (options, mark, connection, mark_after, connection_after) in enumerate(CONNMARKS):
        family = (4, 6)[number % 2]
        front = FRONT[family]
        for rule in (f"-j MARK --set-mark {mark:#x}", f"-j CONNMARK --set-mark {connection:#x}", f"-j CONNMARK {options}", f"-m connmark --mark {connection_after:#x}", f"-m connmark ! --mark {connection_after:#x}"):
            scene.run(f"{front} -t mangle -A PREROUTING {rule}", 0)
        scene.forget()
        assert [(each.where, each.mark) for each in scene.send(p.udp(**ACROSS[family]))] == [("right", mark_after)], options
        (entry,) = scene.entries("-p", "udp")
        assert f" mark={connection_after} " in entry, f"{options}: {entry}"
        scene.run(f"{front} -t mangle -vS PREROUTING", 0)
        scene.run(f"{front} -t mangle -F", 0)


def test_connmark_without_a_connection(scene):
    """An untracked packet keeps its mark, and no connmark matches it."""
    scene.run("iptables -t raw -A PREROUTING -j CT --notrack", 0)
    for options in ("--restore-mark", "--restore-mark --ctmask 0", "--restore-mark --mask 0xff", "--restore-mark --nfmask 1 --ctmask 0", "--save-mark --mask 0xff", "--set-mark 4"):
        for rule in ("-j MARK --set-mark 0x7", f"-j CONNMARK {options}", "-m connmark --mark 0/0 -j DROP", "-m connmark ! --mark 9 -j DROP"):
            scene.run(f"iptables -t mangle -A PREROUTING {rule}", 0)
        assert [(each.where, each.mark) for each in scene.send(p.udp(**ACROSS[4]))] == [("right", 7)], options
        scene.run("iptables -t mangle -vS PREROUTING", 0)
        scene.run("iptables -t mangle -F", 0)


def test_connmark_only_where_the_rule_means(scene):
    """A match on the mark that is then written is asked once."""
    for rule in ("-j CONNMARK --set-mark 1", "-m mark --mark 0/1 -j CONNMARK --restore-mark --mask 1", "-m mark --mark 0/1 -j CONNMARK --restore-mark --mask 1"):
        scene.run(f"iptables -t mangle -A PREROUTING {rule}", 0)
    assert [each.mark for each in scene.send(p.udp(**ACROSS[4]))] == [1]
    scene.run("iptables -t mangle -vS PREROUTING", 0)


@pytest.mark.parametrize("family", FRONT)
@pytest.mark.parametrize("table", ("filter", "raw"))
def test_only_in_mangle(carried, family, table):
    """What may stand in mangle alone is refused elsewhere as by the original."""
    hops = {4: "TTL --ttl-set 5", 6: "HL --hl-set 5"}[family]
    for target in ("DSCP --set-dscp 1", "TOS --set-tos 1", hops, "TCPOPTSTRIP --strip-options 2", "CLASSIFY --set-class 1:2", "CONNMARK --set-mark 1"):
        carried.run(f"{FRONT[family]} -t {table} -A OUTPUT -p tcp -j {target}")
    carried.run(f"{FRONT[family]} -t {table} -S OUTPUT", 0)


def tos_of(packet):
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] & 15) << 4 | packet[1] >> 4


TOS = [
    ("TOS --set-tos 0x10", lambda tos: 0x10), ("TOS --set-tos 0xff", lambda tos: 0xFF), ("TOS --set-tos Minimize-Delay", lambda tos: tos & 0xC0 | 0x10), ("TOS --set-tos Normal-Service", lambda tos: tos & 0xC0), ("TOS --and-tos 0x3f", lambda tos: tos & 0x3F),
    ("TOS --or-tos 0x11", lambda tos: tos | 0x11), ("TOS --set-tos 0x04/0x1c", lambda tos: tos & 0xE3 | 4), ("TOS --set-tos 0x02/0x03", lambda tos: tos & 0xFC | 2), ("TOS --set-tos 0/0", lambda tos: tos), ("DSCP --set-dscp 0", lambda tos: tos & 3), ("DSCP --set-dscp-class EF", lambda tos: tos & 3 | 0xB8),
    ("DSCP --set-dscp 63", lambda tos: tos | 0xFC), ("ECN --ecn-ip-ect 0", lambda tos: tos & 0xFC), ("ECN --ecn-ip-ect 2", lambda tos: tos & 0xFC | 2),
]


@pytest.mark.parametrize("family", FRONT)
def test_type_of_service(scene, family):
    """Each way of writing it gives the byte that the man page says, the checksum right, and one count of the rule."""
    for target, after in TOS:
        if target.startswith("ECN") and family == 6:
            continue
        scene.run(f"{FRONT[family]} -t mangle -A FORWARD -p udp -j {target}", 0)
        for tos in (0, 0x10, 0x1F, 0x63, 0xAA, 0xFF):
            (seen,) = scene.send(p.udp(tos=tos, **ACROSS[family]))
            assert (seen.where, tos_of(seen.packet)) == ("right", after(tos)), f"{target} {tos:#x}"
            assert family == 6 or seen.packet[10:12] == b"\0\0", "a wrong checksum"
        scene.run(f"{FRONT[family]} -t mangle -vS FORWARD", 0)
        scene.run(f"{FRONT[family]} -t mangle -F", 0)


@pytest.mark.parametrize("family", FRONT)
def test_hops(scene, family):
    target, option, at = {4: ("TTL", "ttl", 8), 6: ("HL", "hl", 7)}[family]
    for value, arrives in ((5, 4), (255, 254), (2, 1), (1, None), (0, None)):
        scene.run(f"{FRONT[family]} -t mangle -A PREROUTING -p udp -j {target} --{option}-set {value}", 0)
        seen = [(each.where, each.packet[at]) for each in scene.send(p.udp(**ACROSS[family])) if each.where == "right"]
        assert seen == ([("right", arrives)] if arrives else [])
        scene.run(f"{FRONT[family]} -t mangle -F", 0)
    scene.run(f"{FRONT[family]} -t mangle -A POSTROUTING -j {target} --{option}-set 64", 0)
    assert [each.packet[at] for each in scene.send(p.udp(ttl=9, **ACROSS[family]))] == [64]


def test_hops_by(scene):
    """More and fewer hops, no more than 255 and no fewer than 0."""
    for option, before, after in (("inc 1", 63, 64), ("inc 9", 250, 255), ("inc 255", 3, 255), ("inc 1", 255, 255), ("dec 1", 64, 63), ("dec 9", 5, 0), ("dec 200", 255, 55)):
        scene.run(f"ip6tables -t mangle -A POSTROUTING -p udp -j HL --hl-{option}", 0)
        assert [each.packet[7] for each in scene.send(p.udp(ttl=before, source=p.INNER6, target=p.BEYOND6), at="host")] == [after]
        scene.run("ip6tables -t mangle -vS POSTROUTING", 0)
        scene.run("ip6tables -t mangle -F", 0)


@pytest.mark.parametrize("family", FRONT)
def test_hops_match(scene, family):
    name = {4: "ttl", 6: "hl"}[family]
    packet = lambda ttl: p.udp(ttl=ttl, **ACROSS[family])
    for rule, meant, other in (("-eq 9", [9], [8, 10]), ("-lt 9", [8, 2], [9, 200]), ("-gt 9", [10, 255], [9, 2])):
        scene.meets(FRONT[family], "mangle", "PREROUTING", f"-m {name} --{name}{rule} -j DROP", map(packet, meant), map(packet, other))
    scene.meets(FRONT[family], "mangle", "PREROUTING", f"-m {name} ! --{name}-eq 9", [packet(8)], [packet(9)])


@pytest.mark.parametrize("family", FRONT)
def test_type_of_service_match(scene, family):
    packet = lambda tos: p.udp(tos=tos, **ACROSS[family])
    for rule, meant, other in (
        ("-m tos --tos 0x11", [0x11], [0x10, 0x12, 0x51]), ("-m tos ! --tos 0x11", [0x10, 0x51, 0], [0x11]), ("-m tos --tos Minimize-Delay", [0x10, 0xD0], [0x11, 0x30]), ("-m tos ! --tos 0x01/0x81", [0, 0x81], [1, 0x7F]), ("-m tos --tos 0x02/0x03", [2, 0xFE], [1, 3]),
        ("-m tos ! --tos 0x10/0x0f", [0, 0xFF], []), ("-m dscp --dscp-class EF", [0xB8, 0xBB], [0xB4, 0x2E]), ("-m dscp ! --dscp 1", [0, 8], [4, 7]), ("-m ecn --ecn-ip-ect 2", [2, 0xFE], [0, 1, 3]), ("-m ecn ! --ecn-ip-ect 0", [1, 2, 3], [0, 4]),
    ):
        scene.meets(FRONT[family], "mangle", "FORWARD", f"{rule} -j DROP", map(packet, meant), map(packet, other))


@pytest.mark.parametrize("family", FRONT)
def test_congestion_flags(scene, family):
    packet = lambda flags: p.tcp(flags=flags, **ACROSS[family])
    for rule, meant, other in (
        ("--ecn-tcp-ece", [0x42, 0xC2], [0x02, 0x82]), ("! --ecn-tcp-cwr", [0x02, 0x42], [0x82, 0xC2]), ("--ecn-tcp-ece ! --ecn-tcp-cwr", [0x42], [0x02, 0x82, 0xC2]), ("--ecn-tcp-ece --ecn-tcp-cwr", [0xC2], [0x02, 0x42, 0x82]),
    ):
        scene.meets(FRONT[family], "mangle", "FORWARD", f"-p tcp -m ecn {rule} -j DROP", map(packet, meant), map(packet, other))


@pytest.mark.parametrize("family", FRONT)
def test_classify(scene, family):
    for chain, value in (("FORWARD", "1:2"), ("POSTROUTING", "abcd:ef"), ("POSTROUTING", "0:0")):
        scene.run(f"{FRONT[family]} -t mangle -A {chain} -j CLASSIFY --set-class {value}", 0)
        major, minor = (int(part, 16) for part in value.split(":"))
        assert [each.priority for each in scene.send(p.udp(**ACROSS[family]))] in ([major << 16 | minor], [None])


MSS, SACK_PERMITTED, TIMESTAMP, WSCALE = b"\2\4\5\xb4", b"\4\2", b"\x08\x0a" + bytes(range(8)), b"\3\3\7"
OPTIONS = (b"", MSS, MSS + SACK_PERMITTED + TIMESTAMP + b"\1" + WSCALE, SACK_PERMITTED * 20, MSS + MSS + SACK_PERMITTED + b"\1" + SACK_PERMITTED, b"\4\0" * 5 + b"\2\2" * 4, TIMESTAMP + b"\x13\x12" + bytes(16), b"\0" + MSS + b"\0\0\0")


@pytest.mark.parametrize("family", FRONT)
@pytest.mark.parametrize("kinds", ("mss", "2,4", "sack-permitted", "mss,wscale,sack-permitted,sack,timestamp,md5", "254"))
def test_tcp_options_taken_away(scene, family, kinds):
    """Byte for byte as the original, all copies of an option, the checksum right."""
    scene.run(f"{FRONT[family]} -t mangle -A FORWARD -p tcp -j TCPOPTSTRIP --strip-options {kinds}", 0)
    for options in OPTIONS:
        packet = p.tcp(options=options, payload=b"data", **ACROSS[family])
        (seen,) = scene.send(packet)
        start = 40 if family == 6 else 20
        again = p.tcp(options=seen.packet[start + 20 : -4], payload=b"data", **ACROSS[family])
        assert again[start:] == seen.packet[start:], "a wrong checksum"
        assert kinds == "254" or options != MSS or "mss" not in kinds or seen.packet[start + 20 : start + 24] == b"\1\1\1\1"
    scene.send(p.udp(**ACROSS[family]))
    scene.run(f"{FRONT[family]} -t mangle -vS FORWARD", 0)


AMOUNTS = [
    connbytes(amount, direction, mode)
    for amount, mode in (("--connbytes 3:", "packets"), ("--connbytes 2:3", "packets"), ("! --connbytes 2:3", "packets"), ("--connbytes 0:2", "packets"), ("! --connbytes 0:2", "packets"), ("--connbytes 2:2", "packets"), ("! --connbytes 3:", "packets"), ("--connbytes 0:", "packets"), ("--connbytes 100:", "bytes"), ("--connbytes 30:40", "avgpkt"), ("--connbytes 0:40", "avgpkt"))
    for direction in ("original", "reply", "both")
]


@pytest.mark.parametrize("family", FRONT)
def test_connbytes(scene, family):
    """Each rule is met by as many packets of a flow as with the original, also of a flow that began uncounted."""
    front, to, back = FRONT[family], ACROSS[family], {"source": ACROSS[family]["target"], "target": ACROSS[family]["source"]}
    there, again = p.udp(payload=b"x" * 9, **to), p.udp(sport=2000, dport=1000, payload=b"y" * 50, **back)

    def talk():
        for packet, at in ((there, "left"),) * 2 + ((again, "right"),) * 3 + ((there, "left"),) * 2:
            assert [each.where for each in scene.send(packet, at=at)] == [{"left": "right", "right": "left"}[at]]

    scene.run(f"{front} -A FORWARD -m conntrack --ctstate NEW", 0)
    talk()
    for rule in AMOUNTS:
        scene.run(f"{front} -t mangle -A FORWARD {rule}", 0)
    talk()
    assert " -c 0 0" in scene.run(f"{front} -t mangle -vS FORWARD 1", 0).out.decode()
    scene.run(f"{front} -t mangle -vS FORWARD", 0)
    scene.forget()
    talk()
    counted = scene.run(f"{front} -t mangle -vS FORWARD", 0).out.decode().splitlines()
    assert any("--connbytes 3 --connbytes-mode packets --connbytes-dir both -c 5 " in line for line in counted)


def test_helper(scene):
    """A connection that FTP's helper has foretold is the helper's; the one that speaks of it is not."""
    rules = ("-m helper --helper ftp", "-m helper --helper ftp-2121", "-m helper --helper irc", "-m helper --helper ft", "-m conntrack --ctstate RELATED")
    for rule in rules:
        scene.run(f"iptables -A INPUT {rule}", 0)
    for line in ("add table inet help", "add ct helper inet help ftp { type \"ftp\" protocol tcp; }", "add chain inet help out { type filter hook output priority 0; }", "add rule inet help out tcp dport 21 ct helper set \"ftp\""):
        for _, place in scene.both.places:
            place.sh(shlex.join(["nft", line]))

    def talk(_):
        server, data = p.listener(4, 21, "127.0.0.1"), p.listener(4, 40000, "127.0.0.1")
        with server, data, socket.create_connection(("127.0.0.1", 21)) as client:
            control, _ = server.accept()
            with control:
                control.sendall(b"220 Ready\r\n")
                client.recv(99)
                client.sendall(b"PASV\r\n")
                control.recv(99)
                control.sendall(b"227 Entering Passive Mode (127,0,0,1,156,64)\r\n")
                client.recv(99)
                with socket.create_connection(("127.0.0.1", 40000)) as passive:
                    passive.sendall(b"data")
                    accepted, _ = data.accept()
                    with accepted:
                        assert accepted.recv(99) == b"data"

    scene.both.each(talk)
    # How many packets TCP takes for it depends on how busy the machine is.
    for subject, place in scene.both.places:
        lines = scene.both.call(subject, place, ["iptables", "-vS", "INPUT"]).out.decode().splitlines()
        counts = [int(line.split(" -c ")[1].split()[0]) for line in lines if line.startswith("-A")]
        assert counts[0] == counts[1] > counts[4] == 1 and counts[2:4] == [0, 0], (subject.name, lines)
