"""Ports of a connection, asked for without its protocol: what stands in their place in each protocol."""

import re
import struct

import pytest

import packets as p

FAMILIES = {"iptables": ({}, 1, 3), "ip6tables": ({"source": p.PEER6, "target": p.OURS6}, 58, 1)}
PORTS = ("--ctorigsrcport", "--ctorigdstport", "--ctreplsrcport", "--ctrepldstport")
RULES = (
    *(f"{option} {value}" for option in PORTS for value in ("0", "7", "1000", "2000:3000", ":", ":999")),
    *(f"! {option} {value}" for option in PORTS for value in ("0", "1000", "2000:3000")),
    "--ctorigsrcport 1000 --ctorigdstport 2000", "--ctorigsrcport 1000 ! --ctrepldstport 7:9", "! --ctorigsrcport 1000 ! --ctorigdstport 2000", "--ctorigsrcport 0 --ctorigdstport 0", "--ctorigsrcport : --ctorigdstport 2000",
    "--ctproto gre --ctorigdstport 0", "--ctproto gre --ctorigdstport 513", "--ctproto 99 --ctorigsrcport 0", "--ctproto 99 --ctorigsrcport 1", "! --ctproto 6 --ctorigsrcport 1000", "! --ctproto 99 --ctorigsrcport 0", "! --ctproto gre --ctorigdstport :600", "--ctproto esp --ctorigsrcport 0", "--ctproto udp ! --ctorigsrcport 1000", "--ctproto icmp --ctorigsrcport 7",
    "--ctstate NEW --ctorigsrcport 1000", "--ctstate INVALID --ctorigsrcport 1", "! --ctstate NEW --ctorigdstport 2000", "--ctstate RELATED --ctorigdstport 513", "--ctdir REPLY --ctorigsrcport 1000", "--ctstatus CONFIRMED --ctorigdstport 2000:2100",
)


def ported(kind, sport, dport, **to):
    return p.other(kind, payload=struct.pack("!HHHH", sport, dport, 8, 0) + bytes(16), **to)


def sctp(sport, dport, **to):
    return p.other(132, payload=struct.pack("!HHIIBBHIIHHI", sport, dport, 0, 0, 1, 0, 20, 1, 9000, 1, 1, 1), **to)


def tunnelled(call, **to):
    """Enhanced GRE (RFC 2637, 4.1)."""
    return p.other(47, payload=struct.pack("!HHHHI", 0x3001, 0x880B, 4, call, 1) + b"data", **to)


def behind_ah(kind, payload, **to):
    return p.other(51, payload=struct.pack("!BBHII", kind, 4, 0, 5, 1) + bytes(12) + payload, **to)


@pytest.mark.parametrize("front", FAMILIES)
def test_what_stands_for_a_port(scene, front):
    to, icmp, unreachable = FAMILIES[front]
    back = {"source": to["target"], "target": to["source"]} if to else {"source": p.OURS4, "target": p.PEER4}
    outward = [p.udp(sport=1000, **back), ported(132, 1000, 7, **back), p.other(99, **back), p.other(50, **back), tunnelled(513, **back), p.other(47, **back), p.icmp(8 if icmp == 1 else 128, **back)]
    inward = [
        p.udp(**to), p.udp(sport=7, **to), p.tcp(**to), p.tcp(dport=2500, **to), p.tcp(flags=0x10, sport=9, **to), sctp(1000, 7, **to), ported(33, 1000, 2000, **to), ported(136, 1000, 2000, **to),
        p.icmp(8 if icmp == 1 else 128, **to), p.icmp(17 if icmp == 1 else 129, **to), p.icmp(3, **to), p.other(99, **to), p.other(50, **to), p.other(2, payload=struct.pack("!HHI", 1000, 2000, 0), **to),
        p.other(47, **to), tunnelled(513, **to), tunnelled(7, **to),
    ]
    if icmp == 58:
        inward += [behind_ah(kind, struct.pack("!HHHH", 1000, 2000, 8, 0), **to) for kind in (17, 99)] + [behind_ah(47, struct.pack("!HHHHI", 0x3001, 0x880B, 4, 513, 1) + b"data", **to)]
    for rule in RULES:
        scene.run(f"{front} -A INPUT -m conntrack {rule}", 0)
    counted = set()
    for packet in inward:
        scene.forget()
        scene.send(packet)
        scene.send(packet)
        scene.run(f"{front} -vS INPUT", 0)
    # Answers, and errors about what this host has sent.
    for packet in outward:
        scene.forget()
        scene.send(packet, at="host")
        scene.send(p.error(unreachable, 1, packet, **to))
        scene.run(f"{front} -vS INPUT", 0)
    scene.send(p.udp(sport=2000, dport=1000, **to))
    lines = scene.run(f"{front} -vS INPUT", 0).out.decode()
    for line in lines.splitlines()[1:]:
        counted.add(int(re.search(r" -c (\d+) ", line).group(1)) > 0)
    assert counted == {True, False}
    scene.run(f"{front} -nvxL INPUT", 0)


@pytest.mark.parametrize("front", FAMILIES)
@pytest.mark.parametrize("protocol", (17, 47))
def test_behind_a_protocol_of_the_packets_own(scene, front, protocol):
    to, icmp, unreachable = FAMILIES[front]
    for rule in RULES[::3]:
        scene.run(f"{front} -A INPUT -p {protocol} -m conntrack {rule}", 0)
        scene.run(f"{front} -A INPUT ! -p {protocol} -m conntrack {rule} -j ACCEPT", 0)
    for packet in (p.udp(**to), p.tcp(**to), tunnelled(513, **to), p.other(47, **to), p.other(99, **to), p.icmp(8 if icmp == 1 else 128, **to)):
        scene.forget()
        scene.send(packet)
        scene.run(f"{front} -vS INPUT", 0)
