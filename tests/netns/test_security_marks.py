"""`-j CONNSECMARK`: security marks from packets to connections and back.

No LSM is needed for it: beside the tables that are compared stands one of nf_tables that makes a security mark of the
packet's mark, and at the end a mark of what is then seen."""

import os
import shlex
import socket
import struct

import pytest

import packets as p

SIX = {"source": p.PEER6, "target": p.OURS6}
FAMILY = {"iptables": "ip", "ip6tables": "ip6"}
BOTH = ("-j CONNSECMARK --save", "-j CONNSECMARK --restore", "-p tcp --dport 80 -j CONNSECMARK --sav", "-i lo -j CONNSECMARK --res")
WRONG = ("-j CONNSECMARK", "-j CONNSECMARK --save --restore", "-j CONNSECMARK --save --save", "-j CONNSECMARK ! --save", "-j CONNSECMARK --save x", "-j CONNSECMARK --sa --re")
NFNL_SUBSYS_NFTABLES, NEWRULE = 10, 6  # linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
META_MARK, META_SECMARK = 3, 14


def attribute(kind, data):
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nested(kind, *parts):
    return attribute(kind | 0x8000, b"".join(parts))


def meta(register, key):
    """A meta expression: the destination (1) or source (3) is register 1."""
    number = lambda kind, value: attribute(kind, struct.pack("!I", value))
    return nested(1, attribute(1, b"meta\0"), nested(2, number(register, 1), number(2, key)))


def message(kind, flags, family, resource, sequence, data=b""):
    return struct.pack("IHHII", 20 + len(data), kind, flags, sequence, 0) + struct.pack("!BBH", family, 0, resource) + data


def mark_becomes_security_mark(place, family, chain):
    """Appends to a chain of table `aside` what nft has no words for: `meta secmark set meta mark`."""
    rule = attribute(1, b"aside\0") + attribute(2, chain.encode() + b"\0") + nested(4, meta(1, META_MARK), meta(3, META_SECMARK))
    kind = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}[family]
    with place.entered():
        sender = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    with sender:
        sender.sendto(message(0x10, 1, 0, NFNL_SUBSYS_NFTABLES, 1) + message(NFNL_SUBSYS_NFTABLES << 8 | NEWRULE, 0xC05, kind, 0, 2, rule) + message(0x11, 1, 0, NFNL_SUBSYS_NFTABLES, 3), (0, 0))
        assert struct.unpack_from("i", sender.recv(4096), 16)[0] == 0, os.strerror(-struct.unpack_from("i", sender.recv(4096), 16)[0])


@pytest.mark.parametrize("front", FAMILY)
def test_forms(carried, front):
    for table in ("mangle", "security"):
        for rule in BOTH:
            words = [front, "-t", table, "-A", "INPUT", *shlex.split(rule)]
            carried.run(words, 0)
            carried.run([*words[:3], "-C", *words[4:]], 0)
        for command in ("-S", "-nvxL", "-L"):
            carried.run(f"{front} -t {table} {command} INPUT", 0)
        for rule in WRONG:
            assert carried.run([front, "-t", table, "-A", "INPUT", *shlex.split(rule)]).rc != 0, rule
        saved = carried.run(f"{front}-save -t {table}", 0)
        carried.run(f"{front}-restore", 0, stdin=saved.out)
        carried.run(f"{front} -t {table} -S", 0)
    for table, chain in (("filter", "INPUT"), ("nat", "PREROUTING"), ("raw", "PREROUTING")):
        assert carried.run(f"{front} -t {table} -A {chain} -j CONNSECMARK --save").rc != 0


@pytest.mark.parametrize("front", FAMILY)
def test_marks_go_where_none_is(scene, front):
    to, family = SIX if front == "ip6tables" else {}, FAMILY[front]
    for _, place in scene.both.places:
        place.sh(f"nft 'add table {family} aside; add chain {family} aside early {{ type filter hook prerouting priority -250; }}; add chain {family} aside late {{ type filter hook input priority 400; }}'")
        mark_becomes_security_mark(place, family, "early")
    for hops, mark in ((10, 0x5), (11, 0x70000), (12, 0x80000001)):
        option = "-m hl --hl-eq" if to else "-m ttl --ttl-eq"
        scene.run(f"{front} -t raw -A PREROUTING {option} {hops} -j MARK --set-mark {mark:#x}", 0)
    scene.run(f"{front} -t mangle -A PREROUTING -p udp --dport 2000:2009 -j CONNSECMARK --save", 0)
    scene.run(f"{front} -t mangle -A INPUT -p udp --dport 2005:2009 -j CONNSECMARK --restore", 0)
    scene.run(f"{front} -t raw -A PREROUTING -p udp --sport 77 -j NOTRACK", 0)

    def ends_with(shown, packet):
        for _, place in scene.both.places:
            place.sh(f"nft 'flush chain {family} aside late; add rule {family} aside late meta mark set {shown} secmark'")
        marks = [seen.mark for seen in scene.send(packet) if seen.where == "host"]
        assert len(marks) == 1, "the packet did not arrive"
        return marks[0]

    scene.forget()
    udp = lambda hops, **more: p.udp(ttl=hops, **more, **to)
    assert ends_with("ct", udp(64)) == 0
    assert ends_with("ct", udp(11)) == 0x70000
    assert ends_with("ct", udp(10)) == 0x70000, "the connection's first mark stays"
    assert ends_with("meta", udp(64)) == 0, "nothing is restored without --restore"
    for port, first in ((2005, 10), (2006, 11), (2007, 12)):
        mark = ends_with("ct", udp(first, dport=port))
        assert mark == {10: 5, 11: 0x70000, 12: 0x80000001}[first]
        assert ends_with("meta", udp(64, dport=port)) == mark
        assert ends_with("meta", udp(10 if first != 10 else 11, dport=port)) != mark, "the packet's own mark stays"
    assert ends_with("meta", udp(10, dport=2005, sport=77)) == 5
    assert ends_with("meta", udp(64, dport=2005, sport=77)) == 0, "no connection, no mark"
    scene.run(f"{front} -t mangle -vS", 0)
