"""Matches on headers: transport protocols beside TCP, UDP and ICMP, IPv6 extension headers, and words at any place (u32, bpf)."""

import shlex
import struct

import pytest

import packets as p

SIX = {"source": p.PEER6, "target": p.OURS6}
FRONTS = ("iptables", "ip6tables")

# What both take, and say in the same words.
BOTH = (
    "-p sctp -m sctp", "-p sctp --dport 80", "-p sctp --sport 1: ! --dport :9", "-p sctp --dport 0:65535", "-p sctp --dport 5:5", "-p 132 --destination-port 9 -j DROP", "-p sctp ! --sport 7 --dport :", "-p sctp --sport 2905",
    "-p dccp -m dccp", "-p dccp --dport 80 --sport http", "-p dccp --dport 0:65535", "-p dccp --dport 65536", "-p dccp --dccp-types REQUEST", "-p dccp ! --dccp-types data,ACK", "-p dccp --dccp-types INVALID", "-p dccp --dccp-types REQUEST,REQUEST", "-p dccp ! --sport 5:9 --dccp-types SYNCACK,CLOSE -j DROP",
    "-p dccp --dccp-types REQUEST,RESPONSE,DATA,ACK,DATAACK,CLOSEREQ,CLOSE,RESET,SYNC,SYNCACK,INVALID",
    "-p esp -m esp", "-p esp --espspi 5", "-p esp ! --espspi 5:9", "-p esp --espspi :", "-p esp --espspi 0x10:", "-p esp --espspi 4:4 -j DROP", "-p esp --espspi 4294967295", "-p esp ! --espspi 9:5",
    "-p 108 -m ipcomp", "-p ipcomp --ipcompspi 5", "-p 108 -m ipcomp ! --ipcompspi 5:9", "-p 108 -m ipcomp --compres", "-p 108 -m ipcomp ! --ipcompspi 70000", "-p 108 -m ipcomp --ipcompspi 9:70000 --compres -j DROP",
    "-p udplite -m multiport --dports 80,90:95", "-p sctp -m multiport ! --ports 80,90", "-p dccp -m multiport --sports 1:5",
)
ONLY = {
    "iptables": ("-p ah -m ah", "-p ah --ahspi 5", "-p ah ! --ahspi 5:9", "-p ah --ahspi :", "-p 51 --ahspi :32 -j DROP"),
    "ip6tables": ("-m ah", "-m ah --ahspi 5", "-m ah ! --ahspi 5:9", "-m ah --ahlen 24", "-m ah ! --ahlen 24 --ahres --ahspi 7", "-m ah --ahlen 0", "-m ah --ahlen 24 --ahres -j DROP"),
}
# What neither takes.
WRONG = (
    "-p udplite -m udplite --dport 5", "-p udplite --dport 5", "-p sctp --dport http", "-p sctp --dport 5:3", "-p sctp --dport 65536", "-p sctp --dport 1:2:3", "-m sctp", "-p tcp -m sctp --dport 9", "-p sctp --dport 1 --dport 2", "! -p sctp -m sctp",
    "-p sctp --chunk-types none DATA", "-p sctp --chunk-types all", "-p sctp --chunk-types any FOO", "-p sctp --chunk-types any DATA:X", "-p sctp --chunk-types any SACK:T",
    "-p dccp --dport x", "-p dccp --dccp-types FOO", "-p dccp --dccp-option 0", "-p dccp --dccp-option 256", "-m dccp", "-p dccp --dport 1 --dport 2", "-p udp -m dccp", "-p dccp --dport 1:2:3",
    "-p esp --espspi x", "-p esp --espspi 4294967296", "-p esp --espspi 1:2:3", "-p esp --espspi 1 --espspi 2", "-m esp --espspi 1", "-p tcp -m esp",
    "-m ipcomp", "-p 108 -m ipcomp --ipcompspi x", "-p 108 -m ipcomp ! --compres",
)
WRONG_ONLY = {"iptables": ("-m ah", "-m ah --ahspi 5", "-p ah --ahlen 24", "-p 51 --ahspi x", "-p 51 --ahspi 1:2:3"), "ip6tables": ("-m ah --ahspi x", "-m ah ! --ahres", "-m ah --ahlen x", "-m ah --ahspi 1 --ahspi 2")}
# What ours refuses, the original takes it.
NO_FORM = (
    "-p sctp ! --dport 0:65535", "-p sctp --chunk-types any DATA,INIT", "-p sctp ! --chunk-types only DATA:Be,SACK", "-p sctp --chunk-types all ALL", "-p dccp --dport 5:3", "-p dccp --dccp-option 5", "-p dccp --dccp-types ''", "-p esp ! --espspi :", "-p esp --espspi 9:5", "-p 108 -m ipcomp --ipcompspi 70000",
)
NO_FORM_ONLY = {"iptables": ("-p ah ! --ahspi :", "-p ah --ahspi 9:5"), "ip6tables": ("-p udp -m ah", "! -p udp -m ah", "-m ah --ahlen 23")}


@pytest.mark.parametrize("front", FRONTS)
def test_rules_are_told_as_they_were_given(carried, front):
    given = [shlex.split(rule) for rule in (*BOTH, *ONLY[front])]
    for words in given:
        carried.run([front, "-t", "raw", "-A", "PREROUTING", *words], 0)
        carried.run([front, "-t", "raw", "-C", "PREROUTING", *words], 0)
    for command in ("-S", "-nvxL", "-L"):
        carried.run(f"{front} -t raw {command} PREROUTING", 0)
    carried.state(counters=True)
    saved = carried.run(f"{front}-save -t raw", 0)
    carried.run(f"{front}-restore", 0, stdin=saved.out)
    carried.run(f"{front} -t raw -S", 0)
    for words in given:
        carried.run([front, "-t", "raw", "-D", "PREROUTING", *words], 0)
    carried.run(f"{front} -t raw -S", 0)


@pytest.mark.parametrize("front", FRONTS)
def test_each_rule_is_no_other(carried, front):
    """A rule is found only where it is itself among the rules."""
    rules = [*BOTH, *ONLY[front]]
    if (front, carried.subject.variant) == ("ip6tables", "legacy"):
        pytest.skip("ip6tables-legacy takes rules for the same that differ")
    for rule, other in zip(rules, rules[1:] + rules[:1]):
        carried.run([front, "-t", "raw", "-A", "PREROUTING", *shlex.split(rule)], 0)
        carried.run([front, "-t", "raw", "-C", "PREROUTING", *shlex.split(other)])
        carried.run([front, "-t", "raw", "-F"], 0)


@pytest.mark.parametrize("front", FRONTS)
def test_wrong_rules(carried, front):
    for rule in (*WRONG, *WRONG_ONLY[front]):
        assert carried.run([front, "-t", "raw", "-A", "PREROUTING", *shlex.split(rule)]).rc != 0, rule
    carried.run(f"{front} -t raw -S", 0)


@pytest.mark.parametrize("front", FRONTS)
def test_what_has_no_form_is_refused_whole(carried, front):
    (original, there), (ours, here) = carried.places
    for rule in (*NO_FORM, *NO_FORM_ONLY[front]):
        words = [front, "-t", "raw", "-A", "PREROUTING", *shlex.split(rule)]
        assert carried.call(original, there, words).rc == 0, rule
        answer = carried.call(ours, here, words)
        assert answer.rc != 0 and b"cannot carry" in answer.err, rule
    assert b"-A" not in carried.call(ours, here, [front, "-t", "raw", "-S"]).out


def sctp(sport=1000, dport=80, **to):
    return p.other(132, payload=struct.pack("!HHII", sport, dport, 1, 0) + struct.pack("!BBH", 3, 0, 4), **to)


def dccp(sport=1000, dport=80, kind=0, **to):
    return p.other(33, payload=struct.pack("!HHBBHBBHI", sport, dport, 4, 0, 0, kind << 1, 0, 0, 0), **to)


def esp(spi, **to):
    return p.other(50, payload=struct.pack("!II", spi, 1) + bytes(16), **to)


def ah(spi=5, icv=12, reserved=0, **to):
    """An authentication header before a datagram."""
    inner = p.udp(**to)[40 if "source" in to else 20 :]
    return p.other(51, payload=struct.pack("!BBHII", 17, (12 + icv) // 4 - 2, reserved, spi, 1) + bytes(icv) + inner, **to)


def ipcomp(cpi, **to):
    return p.other(108, payload=struct.pack("!BBH", 17, 0, cpi) + bytes(16), **to)


def ports(kind, sport, dport, **to):
    return p.other(kind, payload=struct.pack("!HHHH", sport, dport, 16, 0) + bytes(8), **to)


# rule: packets that it means, packets that it does not.
MEETS = lambda **to: {
    "-p sctp --dport 80": ([sctp(**to)], [sctp(dport=81, **to), dccp(**to), p.udp(dport=80, **to)]),
    "-p sctp ! --sport 5:9": ([sctp(**to)], [sctp(sport=5, **to), sctp(sport=9, **to)]),
    "-p sctp ! --sport 5 ! --dport 6": ([sctp(**to)], [sctp(sport=5, **to), sctp(dport=6, **to)]),
    "-p sctp -m sctp": ([sctp(**to)], [dccp(**to)]),
    "-p dccp --sport 5:9 --dport 80": ([dccp(sport=5, **to), dccp(sport=9, **to)], [dccp(sport=10, **to), dccp(sport=5, dport=81, **to), sctp(sport=5, **to)]),
    "-p dccp -m dccp": ([dccp(**to)], [sctp(**to)]),
    "-p dccp --dccp-types REQUEST": ([dccp(**to)], [dccp(kind=1, **to), dccp(kind=15, **to)]),
    "-p dccp ! --dccp-types DATA,ACK": ([dccp(**to), dccp(kind=4, **to)], [dccp(kind=2, **to), dccp(kind=3, **to)]),
    "-p dccp --dccp-types INVALID,SYNCACK --dport 80": ([dccp(kind=9, **to), dccp(kind=10, **to), dccp(kind=15, **to)], [dccp(kind=8, **to), dccp(kind=9, dport=81, **to)]),
    "-p esp --espspi 5:0x100": ([esp(5, **to), esp(256, **to)], [esp(4, **to), esp(257, **to), esp(0x5000000, **to), ah(**to)]),
    "-p esp ! --espspi 5": ([esp(4, **to)], [esp(5, **to)]),
    "-p esp -m esp": ([esp(4, **to)], [ah(**to)]),
    "-p 108 -m ipcomp --ipcompspi 5:9": ([ipcomp(5, **to), ipcomp(9, **to)], [ipcomp(4, **to), ipcomp(10, **to)]),
    "-p 108 -m ipcomp ! --ipcompspi 5:70000": ([ipcomp(4, **to)], [ipcomp(5, **to), ipcomp(65535, **to)]),
    "-p 108 -m ipcomp": ([ipcomp(0, **to)], [ipcomp(4, **to)]),
    "-p 108 -m ipcomp --ipcompspi 3 --compres": ([ipcomp(3, **to)], [ipcomp(4, **to)]),
    "-p udplite -m multiport --dports 80,90:95": ([ports(136, 1, 80, **to), ports(136, 1, 92, **to)], [ports(136, 80, 1, **to), ports(17, 1, 80, **to)]),
    "-p sctp -m multiport --ports 80,90": ([sctp(**to), sctp(sport=90, dport=1, **to)], [sctp(dport=81, **to)]),
    "-p dccp -m multiport ! --sports 1:5,7": ([dccp(**to)], [dccp(sport=5, **to), dccp(sport=7, **to)]),
}
LATER = lambda kind, data: p.ip(kind, data, p.PEER4, p.OURS4, fragment=2)
MEETS4 = {
    "-p ah --ahspi 5": ([ah()], [ah(6), esp(5)]),
    "-p ah ! --ahspi 5:9": ([ah(4)], [ah(5), ah(9)]),
    "-p ah -m ah": ([ah(4)], [p.udp()]),
    # Nothing is read out of later fragments.
    "-p sctp --dport 20480": ([], [LATER(132, b"\x50\0" * 8)]),
    "-p dccp ! --dccp-types DATA": ([], [LATER(33, bytes(16))]),
    "-p esp ! --espspi 9": ([], [LATER(50, bytes(16))]),
    "-p ah -m ah --ahspi 0": ([], [LATER(51, bytes(16))]),
    "-p 108 -m ipcomp --ipcompspi :": ([], [LATER(108, bytes(16))]),
}
MEETS6 = {
    "-m ah": ([ah(**SIX)], [p.udp(**SIX), esp(5, **SIX)]),
    "-m ah --ahspi 5 --ahlen 24": ([ah(**SIX)], [ah(6, **SIX), ah(icv=16, **SIX)]),
    "-m ah ! --ahlen 24": ([ah(icv=0, **SIX)], [ah(**SIX)]),
    "-m ah --ahres ! --ahspi 7:9": ([ah(**SIX)], [ah(reserved=1, **SIX), ah(8, **SIX)]),
}
CASES = [(front, rule, *packets) for front, table in (("iptables", {**MEETS(), **MEETS4}), ("ip6tables", {**MEETS(**SIX), **MEETS6})) for rule, packets in table.items()]


@pytest.mark.parametrize("front", FRONTS)
def test_packets(scene, front):
    for _, rule, match, other in filter(lambda case: case[0] == front, CASES):
        scene.meets(front, "raw", "PREROUTING", f"{rule} -j DROP", match, other)
