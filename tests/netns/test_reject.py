"""-j REJECT: its words, where it may stand, and what the sender is told."""

import shlex
import struct

import pytest

import packets as p

# How it may be asked for, and the answer's code; None is RST.
WAYS = {
    "iptables": {
        "icmp-net-unreachable": 0, "net-unreach": 0, "icmp-host-unreachable": 1, "host-unreach": 1, "icmp-proto-unreachable": 2, "proto-unreach": 2, "icmp-port-unreachable": 3, "port-unreach": 3, "icmp-net-prohibited": 9, "net-prohib": 9, "icmp-host-prohibited": 10, "host-prohib": 10, "icmp-admin-prohibited": 13, "admin-prohib": 13,
        "icmp": 0, "": 0, "ICMP-PORT-UNREACHABLE": 3, "icmp-net": 0, "p": 2, "po": 3, "h": 1, "net": 0, "a": 13, "icmp-a": 13, "tcp-reset": None, "tcp-rst": None, "tcp": None, "T": None,
    },
    "ip6tables": {
        "icmp6-no-route": 0, "no-route": 0, "icmp6-adm-prohibited": 1, "adm-prohibited": 1, "icmp6-addr-unreachable": 3, "addr-unreach": 3, "icmp6-port-unreachable": 4, "port-unreach": 4, "icmp6-policy-fail": 5, "policy-fail": 5, "icmp6-reject-route": 6, "reject-route": 6, "icmp6": 0, "": 0, "p": 4, "po": 4, "pol": 5, "a": 1, "addr": 3, "r": 6, "tcp-reset": None, "tcp": None,
    },
}
WRONG = (
    "--reject-with", "--reject-with nonsense", "--reject-with echo-reply", "--reject-with echoreply", "--reject-with echo", "--reject-with icmp6-not-neighbour", "--reject-with beyond-scope", "--reject-with icmp-port-unreachablex", "! --reject-with tcp-reset", "--reject-with tcp-reset --reject-with tcp-reset", "--nonsense",
    "--reject-with tcp-reset", "! -p tcp --reject-with tcp-reset", "-p udp --reject-with tcp-reset", "-m tcp --reject-with tcp-reset", "-p all --reject-with tcp-reset",
)
PLACES = ("filter INPUT", "filter FORWARD", "filter OUTPUT", "filter mine", "mangle INPUT", "mangle FORWARD", "mangle PREROUTING", "mangle mine", "raw PREROUTING", "raw OUTPUT", "nat PREROUTING", "nat OUTPUT", "nat mine", "security INPUT", "security FORWARD", "security mine")
FRONTS = tuple(WAYS)


def flow(front, **more):
    """From the left neighbour to the right one."""
    return {"source": p.PEER4, "target": p.BEYOND4, **more} if front == "iptables" else {"source": p.PEER6, "target": p.BEYOND6, **more}


@pytest.mark.parametrize("front", FRONTS)
def test_rules_are_told_as_they_were_given(carried, front):
    given = [["-j", "REJECT"], ["-p", "tcp", "-m", "comment", "--comment", "no", "-j", "REJECT"]]
    given += [["-p", "tcp", "-j", "REJECT", "--reject-with", way] for way in WAYS[front]]
    given += [["-j", "REJECT", "--reject-with", way] for way, code in WAYS[front].items() if code is not None]
    for words in given:
        carried.run([front, "-A", "FORWARD", *words], 0)
        carried.run([front, "-C", "FORWARD", *words], 0)
    for command in ("-S", "-nvxL", "-L --line-numbers"):
        carried.run(f"{front} {command}", 0)
    carried.state(counters=True)
    for words in given:
        carried.run([front, "-D", "FORWARD", *words], 0)
    carried.run(f"{front} -S", 0)


@pytest.mark.parametrize("front", FRONTS)
def test_refusals(carried, front):
    for words in WRONG:
        before, option = words[: words.index("--")], words[words.index("--") :]
        before, bang = (before[:-2], ["!"]) if before.endswith("! ") else (before, [])
        carried.run([front, "-A", "FORWARD", *shlex.split(before), "-j", "REJECT", *bang, *shlex.split(option)])
    for table in ("filter", "mangle", "raw", "nat", "security"):
        carried.run(f"{front} -t {table} -N mine", 0)
    for place in PLACES:
        carried.run(f"{front} -t {place.split()[0]} -A {place.split()[1]} -j REJECT")
    carried.state()


@pytest.mark.parametrize("front", FRONTS)
def test_the_sender_is_told(scene, front):
    kind = 3 if front == "iptables" else 1
    for way, code in WAYS[front].items():
        packet = p.tcp(**flow(front)) if code is None else p.udp(**flow(front))
        protocol = "tcp" if code is None else "udp"
        scene.forget()
        scene.run([front, "-A", "FORWARD", "-p", protocol, "-j", "REJECT", "--reject-with", way], 0)
        seen = scene.send(packet)
        assert [each.where for each in seen] == ["left"], way
        answer = seen[0].packet[20:] if front == "iptables" else seen[0].packet[40:]
        if code is None:
            assert answer[13] == 0x14, "RST, ACK"
        else:
            assert (answer[0], answer[1]) == (kind, code), way
        scene.send(p.icmp(**flow(front)))
        scene.run(f"{front} -vS FORWARD", 0)
        scene.run(f"{front} -F", 0)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("chain, at", [("INPUT", "left"), ("OUTPUT", "host"), ("FORWARD", "left")])
def test_at_every_hook(scene, front, chain, at):
    four = front == "iptables"
    source, target = {"INPUT": ((p.PEER4, p.OURS4), (p.PEER6, p.OURS6)), "OUTPUT": ((p.OURS4, p.PEER4), (p.OURS6, p.PEER6)), "FORWARD": ((p.PEER4, p.BEYOND4), (p.PEER6, p.BEYOND6))}[chain][0 if four else 1]
    to = {"source": source, "target": target}
    # A host's own answer to itself leaves by another way, and IPv6 says things by itself.
    out = f"-o eth0 -d {target}" if chain == "OUTPUT" else f"-d {target}"
    scene.meets(front, "filter", chain, f"{out} -p udp -j REJECT", match=[p.udp(**to)], other=[p.tcp(**to)], at=at)
    scene.meets(front, "filter", chain, f"{out} -p tcp -j REJECT --reject-with tcp-reset", match=[p.tcp(**to), p.tcp(flags=0x10, **to), p.tcp(flags=0x04, **to), p.tcp(flags=0x12, payload=b"data", **to)], other=[p.udp(**to)], at=at)
    # Nothing is said about ICMP errors, later fragments and broken checksums.
    scene.meets(front, "filter", chain, f"{out} -j REJECT", match=[p.icmp(3 if four else 1, 1, **to), p.icmp(8 if four else 128, **to), p.other(253, **to), p.udp(**to)[:-1] + b"?"], other=[], at=at)
    if four and chain == "FORWARD":
        scene.meets(front, "filter", chain, "-p tcp -j REJECT", match=[p.ip(6, struct.pack("!HH", 80, 80) + bytes(20), source, target, fragment=2)], other=[], at=at)
