"""Every table carried: where its chains hook in, and what its rules do to packets."""

import os

import pytest

import packets as p

# From the left neighbour to the right one, to the host, and from the host to the right one.
ACROSS = {4: {"source": p.PEER4, "target": p.BEYOND4}, 6: {"source": p.PEER6, "target": p.BEYOND6}}
HERE = {4: {"source": p.PEER4, "target": p.OURS4}, 6: {"source": p.PEER6, "target": p.OURS6}}
AWAY = {4: {"source": p.INNER4, "target": p.BEYOND4}, 6: {"source": p.INNER6, "target": p.BEYOND6}}
FRONT = {4: "iptables", 6: "ip6tables"}
CHAINS = [
    (table, chain)
    for table, chains in {"filter": "INPUT FORWARD OUTPUT", "mangle": "PREROUTING INPUT FORWARD OUTPUT POSTROUTING", "raw": "PREROUTING OUTPUT", "security": "INPUT FORWARD OUTPUT"}.items()
    for chain in chains.split()
]


@pytest.mark.parametrize("family", FRONT)
@pytest.mark.parametrize("table, chain", CHAINS)
def test_chains_meet_their_packets(scene, family, table, chain):
    """Each chain sees the packets of its hook, and a drop there is a drop."""
    ways = {"INPUT": ("left", HERE), "OUTPUT": ("host", AWAY)}
    at, addresses = ways.get(chain, ("left", ACROSS))
    to = addresses[family]
    scene.meets(FRONT[family], table, chain, "-p udp --dport 2000 -j DROP", [p.udp(**to)], [p.udp(dport=2001, **to)], at=at)


@pytest.mark.parametrize("family", FRONT)
def test_a_chain_is_called_once(scene, family):
    """A rule that takes several of nf_tables', which tell packets from each other by what the chain writes, is refused
    rather than followed twice."""
    front, to = FRONT[family], ACROSS[family]
    for line in ("-N mine", "-A mine -j TOS --set-tos 0x11/0xff", "-A mine -j MARK --xor-mark 7"):
        scene.run(f"{front} -t mangle {line}", 0)
    (original, there), (ours, here) = scene.both.places
    words = [front, "-t", "mangle", "-A", "FORWARD", "-m", "tos", "!", "--tos", "0x10/0xff", "-j", "mine"]
    assert scene.both.call(original, there, words).rc == 0
    answer = scene.both.call(ours, here, words)
    assert answer.rc != 0 and b"would be made twice" in answer.err
    assert [seen.mark for seen in scene.hosts[0].send(p.udp(**to), "left", 0)] == [7]
    assert b"FORWARD -m" not in scene.both.call(ours, here, [front, "-t", "mangle", "-S"]).out
    scene.run([front, "-t", "mangle", "-F", "FORWARD"], 0)
    scene.run([front, "-t", "mangle", "-Z"], 0)
    # Where it is one rule, or the chain does not come back, it is carried.
    for rule in ("-m tos --tos 0/0xff -j mine", "-m tos ! --tos 0x10/0xff -g mine", "-p udp -m multiport --ports 1000,2000 -j mine"):
        scene.run(f"{front} -t mangle -A FORWARD {rule}", 0)
        assert [seen.mark for seen in scene.send(p.udp(**to))] == [7]
        scene.run(f"{front} -t mangle -vS", 0)
        scene.run(f"{front} -t mangle -F FORWARD", 0)


@pytest.mark.parametrize("family", FRONT)
def test_mark(scene, family):
    to = ACROSS[family]
    scene.run(f"{FRONT[family]} -t mangle -A FORWARD -p udp -j MARK --set-mark 7", 0)
    assert [(each.where, each.mark) for each in scene.send(p.udp(**to))] == [("right", 7)]


def test_log(scene):
    word = f"scene-{os.getpid()} "
    scene.run(["iptables", "-A", "FORWARD", "-p", "udp", "-j", "LOG", "--log-level", "6", "--log-prefix", word], 0)
    (line,) = scene.log(word, p.udp(**ACROSS[4]))
    assert line.startswith(f"<6>{word}IN=eth0 OUT=eth1 ")
