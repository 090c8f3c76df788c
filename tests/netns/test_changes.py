"""Targets that change packets, marks and connections, and the matches that see it: forms, and real packets."""

import shlex

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
OWN = {4: {}, 6: {}}
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
