"""Matches on headers: transport protocols beside TCP, UDP and ICMP, IPv6 extension headers, and words at any place (u32, bpf)."""

import shlex
import socket
import struct

import pytest

import packets as p

SIX = {"source": p.PEER6, "target": p.OURS6}
FRONTS = ("iptables", "ip6tables")

# Docker's looks at the VNI 4097 of VXLAN, in its older form and its newer one.
VNI_U32 = "-m u32 --u32 '0>>22&0x3C@12&0xFFFFFF00=0x100100'"
VNI_BPF = "-m bpf --bytecode '7,32 0 0 4294963252,7 0 0 0,64 0 0 4,116 0 0 8,21 1 0 4097,6 0 0 0,6 0 0 4294967295'"
# The same by the length of the IP header.
VNI_LENGTH = "-m bpf --bytecode '6,177 0 0 0,64 0 0 12,84 0 0 4294967040,21 0 1 1048832,6 0 0 4294967295,6 0 0 0'"
# tcpdump's udp and port 53, behind IPv4 headers of any length.
PORT_53 = "-m bpf --bytecode '11,48 0 0 9,21 0 8 17,40 0 0 6,69 6 0 8191,177 0 0 0,72 0 0 0,21 2 0 53,72 0 0 2,21 0 1 53,6 0 0 65535,6 0 0 0'"

# What both take, and say in the same words.
BOTH = (
    "-p sctp -m sctp", "-p sctp --dport 80", "-p sctp --sport 1: ! --dport :9", "-p sctp --dport 0:65535", "-p sctp --dport 5:5", "-p 132 --destination-port 9 -j DROP", "-p sctp ! --sport 7 --dport :", "-p sctp --sport 2905",
    "-p dccp -m dccp", "-p dccp --dport 80 --sport http", "-p dccp --dport 0:65535", "-p dccp --dport 65536", "-p dccp --dccp-types REQUEST", "-p dccp ! --dccp-types data,ACK", "-p dccp --dccp-types INVALID", "-p dccp --dccp-types REQUEST,REQUEST", "-p dccp ! --sport 5:9 --dccp-types SYNCACK,CLOSE -j DROP",
    "-p dccp --dccp-types REQUEST,RESPONSE,DATA,ACK,DATAACK,CLOSEREQ,CLOSE,RESET,SYNC,SYNCACK,INVALID",
    "-p esp -m esp", "-p esp --espspi 5", "-p esp ! --espspi 5:9", "-p esp --espspi :", "-p esp --espspi 0x10:", "-p esp --espspi 4:4 -j DROP", "-p esp --espspi 4294967295", "-p esp ! --espspi 9:5",
    "-p 108 -m ipcomp", "-p ipcomp --ipcompspi 5", "-p 108 -m ipcomp ! --ipcompspi 5:9", "-p 108 -m ipcomp --compres", "-p 108 -m ipcomp ! --ipcompspi 70000", "-p 108 -m ipcomp --ipcompspi 9:70000 --compres -j DROP",
    "-p udplite -m multiport --dports 80,90:95", "-p sctp -m multiport ! --ports 80,90", "-p dccp -m multiport --sports 1:5",
    "-m u32 --u32 '6&0xFF=1:5'", "-m u32 --u32 ' 6 & 0xFF = 6 && 4 & 0x3FFF = 0'", "-m u32 --u32 '0&0xFFFF=0x100:0xFFFF,5' -j DROP", "-m u32 ! --u32 '0<<8>>8=010'", "-m u32 --u32 '0>>31=+1,3 : 5,9'", "-m u32 --u32 '0&1&2&3&4&5&6&7&8&0xff9=0'", "-m u32 --u32 '0x0=0x0&&0x4=0x1,0x5:0x9'",
    "-m bpf --bytecode '4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0'", "-m bpf --bytecode '4,48 0 0 9,21 0 1 17,6 0 0 1,6 0 0 0,' -j DROP", "-m bpf --bytecode '1,6 0 0  1 '", "-m bpf --bytecode '1, 6 0 0 -1 junk'", "-m bpf --bytecode '1,6 300 0 7'", "-m bpf --bytecode '2,48 0 0 9,22 0 0 0'",
)
ONLY = {
    "iptables": ("-p ah -m ah", "-p ah --ahspi 5", "-p ah ! --ahspi 5:9", "-p ah --ahspi :", "-p 51 --ahspi :32 -j DROP", VNI_U32, f"-p udp --dport 4789 {VNI_U32}", f"-p udp --dport 4789 {VNI_BPF}", f"-p udp ! -f {VNI_BPF} -j DROP", PORT_53),
    "ip6tables": ("-m ah", "-m ah --ahspi 5", "-m ah ! --ahspi 5:9", "-m ah --ahlen 24", "-m ah ! --ahlen 24 --ahres --ahspi 7", "-m ah --ahlen 0", "-m ah --ahlen 24 --ahres -j DROP",
        "-m frag", "-m frag --fragid 5", "-m frag ! --fragid 5:9", "-m frag --fraglen 42", "-m frag ! --fraglen 8", "-m frag --fragres", "-m frag --fragfirst", "-m frag --fragmore", "-m frag --fraglast", "-m frag ! --fragid 1 ! --fraglen 42 --fragres --fragfirst --fraglast -j DROP", "-m frag --fragmore --fragfirst", "-p udp -m frag --fraglast",
        "-m rt", "-m rt --rt-type 0 -j DROP", "-m rt ! --rt-type 4", "-m rt --rt-segsleft 1:3", "-m rt ! --rt-segsleft 2", "-m rt --rt-len 24", "-m rt ! --rt-len 8", "-m rt --rt-type 0 --rt-0-res", "-m rt --rt-type 0 --rt-0-addrs ::1,::2", "-m rt --rt-type 0 --rt-len 24 --rt-0-addrs 2001:db8::1 --rt-0-res", "-m rt ! --rt-type 300", "-m rt ! --rt-len 25",
        "-m hbh", "-m hbh --hbh-len 8", "-m hbh ! --hbh-len 16", "-m hbh ! --hbh-len 0", "-m dst", "-m dst --dst-len 8", "-m dst ! --dst-len 8 -j DROP",
        "-p mh -m mh", "-p mh --mh-type 1", "-p mh --mh-type brr", "-p mh --mh-type binding-update", "-p mh ! --mh-type bu:5", "-p mh --mh-type :", "-p mh --mh-type HOTI", "-p mh --mh-type 1:hot", "-p mh --mh-type b", "-p mh --mh-type 200:255 -j DROP", "-p 135 -m mh --mh-type 3:9", "-p mh --mh-type binding", "-p mh --mh-type c", "-p mh --mh-type ''",
    ),
}
# What neither takes.
WRONG = (
    "-p udplite -m udplite --dport 5", "-p udplite --dport 5", "-p sctp --dport http", "-p sctp --dport 5:3", "-p sctp --dport 65536", "-p sctp --dport 1:2:3", "-m sctp", "-p tcp -m sctp --dport 9", "-p sctp --dport 1 --dport 2", "! -p sctp -m sctp",
    "-p sctp --chunk-types none DATA", "-p sctp --chunk-types all", "-p sctp --chunk-types any FOO", "-p sctp --chunk-types any DATA:X", "-p sctp --chunk-types any SACK:T",
    "-p dccp --dport x", "-p dccp --dccp-types FOO", "-p dccp --dccp-option 0", "-p dccp --dccp-option 256", "-m dccp", "-p dccp --dport 1 --dport 2", "-p udp -m dccp", "-p dccp --dport 1:2:3",
    "-p esp --espspi x", "-p esp --espspi 4294967296", "-p esp --espspi 1:2:3", "-p esp --espspi 1 --espspi 2", "-m esp --espspi 1", "-p tcp -m esp",
    "-m ipcomp", "-p 108 -m ipcomp --ipcompspi x", "-p 108 -m ipcomp ! --compres",
    "-m u32", *(f"-m u32 --u32 '{test}'" for test in ("", "0=1:", "0=:5", "0", "0=", "0&", "0=1&&", "x=1", "0=1&2", "0>>64=1", "0<<32=1", "0=4294967296", "0=-1", "0>22=1", "0<1=1", "0=1x", "0?1=1", "0=1 2", "0 1=1", "0=1,", "0=1=2", "0&=1", "0=0x1g", "&&0=1", "08=1", "0&1&2&3&4&5&6&7&8&9&10=1", "0=1,2,3,4,5,6,7,8,9,10,11", "&&".join(["0=1"] * 11), "&&".join(["0=1"] * 12))),
    "-m u32 --u32 0=1 --u32 0=2", "-m bpf", "-m bpf ! --bytecode '1,6 0 0 1'", "-m bpf --bytecode '1,6 0 0 1' --bytecode '1,6 0 0 0'",
    *(f"-m bpf --bytecode '{code}'" for code in ("3,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0", "5,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0", "0,", "x", "", "1", "1,", "1,48 0 0 9", "65,6 0 0 0", "-1,6 0 0 1", "2,21 0 5 0,6 0 0 0", "1,70000 0 0 1", "1,6 0 0", "1,6 0 0 x", "2,6 0 0 1,,6 0 0 0", "1,6,0,0,1", "1 ,6 0 0 1", "2,5 0 0 1,6 0 0 0", "2,100 0 0 32,6 0 0 0", "2,52 0 0 0,6 0 0 0", "2,99 0 0 16,6 0 0 0", "2,255 0 0 0,6 0 0 0")),
)
WRONG_ONLY = {"iptables": ("-m ah", "-m ah --ahspi 5", "-p ah --ahlen 24", "-p 51 --ahspi x", "-p 51 --ahspi 1:2:3"), "ip6tables": ("-m ah --ahspi x", "-m ah ! --ahres", "-m ah --ahlen x", "-m ah --ahspi 1 --ahspi 2",
        "-m frag --fraglast --fragmore", "-m frag --fragid x", "-m frag ! --fragfirst", "-m frag --fraglen x", "-m rt --rt-0-res", "-m rt --rt-0-addrs ::1", "-m rt --rt-type 2 --rt-0-res", "-m rt ! --rt-type 0 --rt-0-res", "-m rt --rt-type 0 --rt-0-not-strict", "-m rt --rt-type x", "-m rt --rt-segsleft 4294967296",
        "-m hbh ! --hbh-opts 5", "-m hbh --hbh-len x", "-m hbh --hbh-not-strict", "-m dst --dst-opts x", "-m hbh --hbh-opts 5:x", "-m hbh --hbh-opts 5:2:1", "-m hbh --hbh-opts 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "-m mh", "-p mh --mh-type 9:3", "-p mh --mh-type x", "-p mh --mh-type 256", "-p 135 --mh-type 7", "-m ipv6-mh", "-p udp -m mh", "-p mobility-header --mh-type 3",
    )}
# What ours refuses, the original takes it.
NO_FORM = (
    "-p sctp --chunk-types any DATA,INIT", "-p sctp ! --chunk-types only DATA:Be,SACK", "-p sctp --chunk-types all ALL", "-p dccp --dccp-option 5",
    "-m u32 --u32 '0>>22&0x3C@12>>26&0x3C@8=1'", "-m u32 ! --u32 '60=1'", "-m u32 --u32 '1000=1'", "-m bpf --bytecode '2,128 0 0 0,22 0 0 0'", "-m bpf --bytecode '2,32 0 0 4294963220,22 0 0 0'", f"-p tcp {VNI_BPF}", VNI_BPF,
)
NO_FORM_ONLY = {"iptables": (f"-p udp {VNI_BPF}",), "ip6tables": (VNI_U32, f"-p udp --dport 4789 {VNI_BPF}", "-m bpf --bytecode '3,177 0 0 0,64 0 0 0,22 0 0 0'", "-p udp -m ah", "! -p udp -m ah",
        "-m rt --rt-type 0 --rt-0-addrs ::1 --rt-0-not-strict", "-m rt --rt-type 0 --rt-0-addrs ::1,::2,::3", "-m hbh --hbh-opts 5", "-m dst --dst-opts 1:4,5",
        "-m eui64", "-m ipv6header --header hop-by-hop", "-m ipv6header --header frag --soft", "-m srh", "-m srh --srh-segs-left-eq 1",
    )}


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


def chained(*headers):
    """An IPv6 packet of headers, each (number, bytes); the first byte of each is what follows it."""
    inner, follows = b"", None
    for kind, body in reversed(headers):
        inner = (body if follows is None else bytes([follows]) + body[1:]) + inner
        follows = kind
    return p.ip(follows, inner, p.PEER6, p.OURS6)


DATAGRAM = (17, p.udp(**SIX)[40:])


def fragment(offset=0, more=False, ident=7, reserved=0, low=0):
    return 44, struct.pack("!BBHI", 0, reserved, offset << 3 | low << 1 | more, ident)


def routing(kind=0, left=0, count=1, reserved=0, units=None):
    addresses = b"".join(bytes(15) + bytes([number + 1]) for number in range(count))
    units = 2 * count if units is None else units
    return 43, struct.pack("!BBBBI", 0, units, kind, left, reserved) + addresses.ljust(units * 8, b"\0")


def options(number, size=6):
    """One option of an unknown kind that is to be skipped (RFC 8200, 4.2)."""
    return number, bytes([0, (size + 2) // 8 - 1, 0x1E, size - 2]) + bytes(size - 2)


def mobility(kind, behind=59):
    return p.ip(135, struct.pack("!BBBBHH", behind, 0, kind, 0, 0, 0), p.PEER6, p.OURS6)


def ipv4(kind, segment, options=b"", fragment=0, more=False, source=p.PEER4, target=p.OURS4):
    """An IPv4 packet whose header has options."""
    length, place = 20 + len(options), fragment | (0x2000 if more else 0)
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | length // 4, 0, length + len(segment), 1, place, 64, kind, 0, *map(socket.inet_aton, (source, target))) + options
    return head[:10] + struct.pack("!H", p.checksum(head)) + head[12:] + segment


def vxlan(vni, dport=4789, cut=None, **header):
    """A frame in VXLAN (RFC 7348, 5), of which the last bytes may be cut off."""
    inner = struct.pack("!II", 0x08000000, vni << 8) + bytes(14)
    return ipv4(17, (struct.pack("!HHHH", 5000, dport, 8 + len(inner), 0) + inner)[:cut], **header)


# rule: packets that it means, packets that it does not.
MEETS = lambda **to: {
    "-p sctp --dport 80": ([sctp(**to)], [sctp(dport=81, **to), dccp(**to), p.udp(dport=80, **to)]),
    "-p sctp ! --sport 5:9": ([sctp(**to)], [sctp(sport=5, **to), sctp(sport=9, **to)]),
    "-p sctp ! --sport 5 ! --dport 6": ([sctp(**to)], [sctp(sport=5, **to), sctp(dport=6, **to)]),
    "-p sctp -m sctp": ([sctp(**to)], [dccp(**to)]),
    "-p dccp --sport 5:9 --dport 80": ([dccp(sport=5, **to), dccp(sport=9, **to)], [dccp(sport=10, **to), dccp(sport=5, dport=81, **to), sctp(sport=5, **to)]),
    "-p dccp -m dccp": ([dccp(**to)], [sctp(**to)]),
    "-p dccp --dccp-types ''": ([], [dccp(**to)]),
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
NOPS = bytes([1, 1, 1, 1])
OURS, OTHERS = [vxlan(4097), vxlan(4097, options=NOPS), vxlan(4097, options=NOPS * 10), vxlan(4097, cut=16), vxlan(4097, more=True)], [vxlan(4098), vxlan(1), vxlan(4098, options=NOPS), vxlan(4097, cut=15)]
MEETS4.update({
    VNI_U32: (OURS + [vxlan(4097, fragment=2), vxlan(4097, fragment=9, options=NOPS * 2), vxlan(4097, dport=9)], OTHERS + [vxlan(4097, cut=8), vxlan(4097, cut=0), vxlan(7, fragment=2)]),
    f"-p udp {VNI_U32}": (OURS + [vxlan(4097, fragment=2)], OTHERS + [vxlan(7, fragment=2), ipv4(6, vxlan(4097)[20:])]),
    f"-p udp ! -f {VNI_BPF}": (OURS + [vxlan(4097, dport=9)], OTHERS + [vxlan(4097, cut=8), vxlan(4097, cut=0), vxlan(4097, fragment=2), vxlan(0, fragment=2), ipv4(6, vxlan(4097)[20:])]),
    VNI_LENGTH: (OURS + [vxlan(4097, fragment=2, options=NOPS), vxlan(4097, dport=9)], OTHERS + [vxlan(4097, cut=8), vxlan(7, fragment=2)]),
    f"-p udp --dport 4789 {VNI_LENGTH}": (OURS, OTHERS + [vxlan(4097, dport=9)]),
    f"-p udp -m multiport --dports 4789,8472 {VNI_BPF}": (OURS, OTHERS + [vxlan(4097, dport=9)]),
    PORT_53: ([p.udp(dport=53), p.udp(sport=53), ipv4(17, p.udp(dport=53)[20:], NOPS)], [p.udp(), p.tcp(dport=53), ipv4(17, p.udp(dport=53)[20:], fragment=2), ipv4(17, p.udp()[20:], NOPS)]),
    "-m u32 --u32 '6&0xFF=1:6,17&&4&0x1FFF=0&&0>>22&0x3C@0>>16=1000'": ([p.udp(), p.tcp()], [p.udp(sport=1001), p.other(50), ipv4(17, p.udp()[20:], fragment=2)]),
    "-m u32 ! --u32 '6&0xFF=17&&16=0x0a090001'": ([p.tcp(), p.udp(target="10.9.0.255")], [p.udp()]),
})
MEETS6 = {
    "-m u32 --u32 '4>>8&0xff=17&&40&0xffff=53'": ([p.udp(dport=53, **SIX)], [p.udp(**SIX), p.tcp(dport=53, **SIX)]),
    "-m u32 ! --u32 '4>>8&0xff=17'": ([p.tcp(**SIX)], [p.udp(**SIX)]),
    "-m bpf --bytecode '6,48 0 0 6,21 0 3 17,40 0 0 42,21 0 1 53,6 0 0 1,6 0 0 0'": ([p.udp(dport=53, **SIX)], [p.udp(**SIX), p.tcp(dport=53, **SIX), p.ip(17, b"\0" * 3, p.PEER6, p.OURS6)]),
    "-m ah": ([ah(**SIX)], [p.udp(**SIX), esp(5, **SIX)]),
    "-m ah --ahspi 5 --ahlen 24": ([ah(**SIX)], [ah(6, **SIX), ah(icv=16, **SIX)]),
    "-m ah ! --ahlen 24": ([ah(icv=0, **SIX)], [ah(**SIX)]),
    "-m ah --ahres ! --ahspi 7:9": ([ah(**SIX)], [ah(reserved=1, **SIX), ah(8, **SIX)]),
}
PLAIN6 = p.udp(**SIX)
FIRST, ALONE, MIDDLE, LAST = (chained(fragment(offset, more), DATAGRAM) for offset, more in ((0, True), (0, False), (2, True), (2, False)))
MEETS6.update({
    "-m frag": ([FIRST, ALONE, MIDDLE, LAST, chained(routing(), fragment(), DATAGRAM)], [PLAIN6, chained(routing(), DATAGRAM)]),
    "-m frag --fragid :": ([FIRST, LAST], [PLAIN6]),
    "-m frag --fragid 5:7": ([FIRST, LAST], [chained(fragment(ident=8), DATAGRAM), PLAIN6]),
    "-m frag ! --fragid 7": ([chained(fragment(ident=0x07000000), DATAGRAM)], [FIRST, PLAIN6]),
    "-m frag ! --fraglen 8": ([FIRST], [PLAIN6]),
    "-m frag --fragres": ([FIRST, LAST], [chained(fragment(reserved=3), DATAGRAM), chained(fragment(low=1), DATAGRAM), chained(fragment(low=2), DATAGRAM)]),
    "-m frag --fragfirst": ([FIRST, ALONE, chained(fragment(low=3, more=True), DATAGRAM)], [MIDDLE, LAST, chained(fragment(0x1000), DATAGRAM)]),
    "-m frag --fragmore": ([FIRST, MIDDLE], [ALONE, LAST]),
    "-m frag --fraglast": ([ALONE, LAST], [FIRST, MIDDLE]),
    "-m frag --fragfirst --fragmore --fragid 7": ([FIRST], [ALONE, MIDDLE, chained(fragment(more=True, ident=8), DATAGRAM)]),
    "-p udp -m frag --fraglast": ([ALONE, LAST], [FIRST, p.other(6, **SIX)]),
    "-m rt": ([chained(routing(), DATAGRAM), chained(routing(4), DATAGRAM), chained(fragment(more=True), routing(), DATAGRAM)], [PLAIN6, chained(fragment(2), routing(), DATAGRAM), FIRST]),
    "-m rt --rt-type 0": ([chained(routing(), DATAGRAM), chained(options(60), routing(), DATAGRAM)], [chained(routing(2), DATAGRAM), chained(routing(2), routing(0), DATAGRAM), PLAIN6]),
    "-m rt ! --rt-type 0": ([chained(routing(2), DATAGRAM)], [chained(routing(), DATAGRAM), PLAIN6]),
    "-m rt --rt-segsleft 1:3": ([chained(routing(left=3), DATAGRAM)], [chained(routing(left=4), DATAGRAM), chained(routing(), DATAGRAM)]),
    "-m rt --rt-segsleft :": ([chained(routing(left=3), DATAGRAM)], [PLAIN6]),
    "-m rt ! --rt-segsleft 2:70000": ([chained(routing(left=1), DATAGRAM)], [chained(routing(left=2), DATAGRAM), PLAIN6]),
    "-m rt --rt-len 24": ([chained(routing(), DATAGRAM)], [chained(routing(count=2), DATAGRAM)]),
    "-m rt ! --rt-len 24": ([chained(routing(count=2), DATAGRAM)], [chained(routing(), DATAGRAM), PLAIN6]),
    "-m rt ! --rt-len 25": ([chained(routing(), DATAGRAM)], [PLAIN6]),
    "-m rt --rt-type 0 --rt-0-res": ([chained(routing(), DATAGRAM)], [chained(routing(reserved=bit), DATAGRAM) for bit in (1 << 31, 1 << 23, 1 << 8, 1)]),
    "-m rt --rt-type 0 --rt-0-addrs ::1": ([chained(routing(), DATAGRAM), chained(routing(units=3), DATAGRAM)], [chained(routing(count=2), DATAGRAM), chained(routing(2), DATAGRAM)]),
    "-m rt --rt-type 0 --rt-0-addrs ::1,::2": ([chained(routing(count=2), DATAGRAM)], [chained(routing(), DATAGRAM), chained(routing(count=3), DATAGRAM)]),
    "-m rt --rt-type 0 --rt-0-addrs ::2": ([], [chained(routing(), DATAGRAM), chained(routing(count=2), DATAGRAM)]),
    "-m hbh": ([chained(options(0), DATAGRAM)], [chained(options(60), DATAGRAM), PLAIN6]),
    "-m hbh --hbh-len 16": ([chained(options(0, 14), DATAGRAM)], [chained(options(0), DATAGRAM), PLAIN6]),
    "-m hbh ! --hbh-len 8": ([chained(options(0, 14), DATAGRAM)], [chained(options(0), DATAGRAM), PLAIN6]),
    "-m dst": ([chained(options(60), DATAGRAM), chained(options(0), options(60), DATAGRAM)], [chained(options(0), DATAGRAM), PLAIN6, chained(fragment(2), options(60), DATAGRAM)]),
    "-m dst --dst-len 8": ([chained(options(60), DATAGRAM)], [chained(options(60, 14), DATAGRAM), PLAIN6]),
    "-m dst ! --dst-len 9": ([chained(options(60), DATAGRAM)], [PLAIN6]),
    "-p mh -m mh": ([mobility(1), mobility(200)], [PLAIN6]),
    "-p mh --mh-type bu:8": ([mobility(5), mobility(8)], [mobility(4), mobility(9)]),
    "-p mh ! --mh-type 1": ([mobility(5)], [mobility(1), chained(fragment(2), (135, mobility(5)[40:]))]),
})
CASES = [(front, rule, *packets) for front, table in (("iptables", {**MEETS(), **MEETS4}), ("ip6tables", {**MEETS(**SIX), **MEETS6})) for rule, packets in table.items()]


@pytest.mark.parametrize("front", FRONTS)
def test_packets(scene, front):
    for _, rule, match, other in filter(lambda case: case[0] == front, CASES):
        scene.meets(front, "raw", "PREROUTING", f"{rule} -j DROP", match, other)


@pytest.mark.parametrize("vni", [VNI_U32, VNI_BPF, VNI_LENGTH])
def test_dockers_overlays(scene, vni):
    """What leaves for an encrypted overlay is marked, what comes in for one without IPsec is dropped; other overlays are not touched."""
    away = {"source": p.OURS4, "target": p.PEER4}
    scene.meets("iptables", "mangle", "OUTPUT", f"-p udp --dport 4789 {vni} -j MARK --set-mark 13681891", [vxlan(4097, **away)], [vxlan(4098, **away), vxlan(4097, dport=4790, **away)], at="host")
    scene.meets("iptables", "filter", "INPUT", f"-p udp --dport 4789 {vni} -j DROP", [vxlan(4097), vxlan(4097, options=NOPS * 3)], [vxlan(4098), vxlan(4097, dport=4790)])
