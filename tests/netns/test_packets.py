"""Real packets: each extension's rule meets those that it means, and no other, with the original and with ours."""

import shlex
import socket
import struct

import pytest

import harness
import packets as p

SIX = {"source": p.PEER6, "target": p.OURS6}

# Looks like a header with ports 80 and 80.
PORTS_80 = struct.pack("!HHHH", 80, 80, 16, 0) + bytes(8)

# rule, packets it means, packets it does not mean. A packet is bytes, or (bytes, frame options).
V4 = {
    "source": ("-s 10.9.0.2", [p.udp()], [p.udp(source="10.9.0.3")]),
    "source-inverted": ("! -s 10.9.0.0/31", [p.udp()], [p.udp(source="10.9.0.0"), p.udp(source="10.9.0.1")][:1]),
    "source-odd-mask": ("-s 10.0.0.2/255.0.0.255", [p.udp()], [p.udp(source="10.9.0.3")]),
    "destination": ("-d 10.9.0.1", [p.udp()], [p.udp(target="10.9.0.9")]),
    "interface": ("-i eth0", [p.udp()], []),
    "interface-inverted": ("! -i docker0", [p.udp()], []),
    "interface-own-inverted": ("! -i eth0", [], [p.udp()]),
    "interface-wildcard": ("-i et+", [p.udp()], []),
    "interface-wildcard-other": ("-i ex+", [], [p.udp()]),
    "fragment": ("-f", [p.udp(fragment=2)], [p.udp(), p.udp(more=True)]),
    "fragment-inverted": ("! -f", [p.udp(), p.udp(more=True)], [p.udp(fragment=2)]),
    "later-fragment-udp": ("-p udp --dport 80", [p.udp(dport=80, more=True)], [p.ip(17, PORTS_80, p.PEER4, p.OURS4, fragment=2)]),
    "later-fragment-tcp": ("-p tcp ! --sport 81", [], [p.ip(6, PORTS_80, p.PEER4, p.OURS4, fragment=2)]),
    "later-fragment-multiport": ("-p udp -m multiport --ports 80,81", [], [p.ip(17, PORTS_80, p.PEER4, p.OURS4, fragment=2)]),
    "later-fragment-icmp": ("-p icmp --icmp-type 0", [], [p.ip(1, bytes(16), p.PEER4, p.OURS4, fragment=2)]),
    "icmp": ("-p icmp --icmp-type echo-request", [p.icmp(8)], [p.icmp(0), p.udp()]),
    "icmp-code": ("-p icmp --icmp-type 3/4", [p.icmp(3, 4)], [p.icmp(3, 3), p.icmp(4, 4)]),
    "icmp-inverted": ("-p icmp ! --icmp-type 3/4", [p.icmp(3, 3), p.icmp(8)], [p.icmp(3, 4), p.udp()]),
    "icmp-any": ("-p icmp --icmp-type any", [p.icmp(3, 3), p.icmp(8)], [p.udp()]),
    "iprange": ("-m iprange --src-range 10.9.0.2-10.9.0.5", [p.udp(), p.udp(source="10.9.0.5")], [p.udp(source="10.9.0.6")]),
    "iprange-inverted": ("-m iprange ! --dst-range 10.9.0.1-10.9.0.5", [p.udp(target="10.9.0.7")], [p.udp()]),
    "addrtype-local": ("-m addrtype --dst-type LOCAL", [p.udp()], [p.udp(target="10.9.0.7")]),
    "addrtype-not-local": ("-m addrtype ! --dst-type LOCAL", [p.udp(target="10.9.0.7")], [p.udp()]),
    "addrtype-list": ("-m addrtype --dst-type LOCAL,BROADCAST", [p.udp(), p.udp(target="10.9.0.255")], [p.udp(target="10.9.0.7")]),
    "addrtype-multicast": ("-m addrtype --dst-type MULTICAST", [p.udp(target="224.0.0.5")], [p.udp()]),
    "addrtype-source": ("-m addrtype --src-type UNICAST --dst-type LOCAL", [p.udp()], [p.udp(target="10.9.0.7")]),
    "addrtype-iface": ("-m addrtype --dst-type LOCAL --limit-iface-in", [p.udp()], [p.udp(target="10.9.0.7"), p.udp(target="10.8.0.1")]),
    "pkttype-broadcast": ("-m pkttype --pkt-type broadcast", [(p.udp(target="10.9.0.255"), {"target": p.BROADCAST_MAC})], [p.udp()]),
    "pkttype-multicast": ("-m pkttype --pkt-type multicast", [(p.udp(target="224.0.0.5"), {"target": "01:00:5e:00:00:05"})], [p.udp()]),
    "conntrack-origsrc": ("-m conntrack --ctorigsrc 10.9.0.2", [], [p.udp()]),
}
EITHER = lambda **to: {
    "any": ("", [p.udp(**to), p.tcp(**to), p.icmp(128 if to else 8, **to)], []),
    "protocol": ("-p udp", [p.udp(**to)], [p.tcp(**to)]),
    "protocol-inverted": ("! -p udp", [p.tcp(**to)], [p.udp(**to)]),
    "protocol-number": ("-p 253", [p.other(253, **to)], [p.udp(**to)]),
    "tcp-dport": ("-p tcp --dport 80", [p.tcp(dport=80, **to)], [p.tcp(dport=81, **to), p.udp(dport=80, **to)]),
    "tcp-dport-inverted": ("-p tcp ! --dport 80:90", [p.tcp(dport=91, **to)], [p.tcp(dport=80, **to), p.tcp(dport=85, **to), p.udp(dport=91, **to)]),
    "tcp-sport-range": ("-p tcp --sport 100:200", [p.tcp(sport=100, **to), p.tcp(sport=200, **to)], [p.tcp(sport=99, **to), p.tcp(sport=201, **to)]),
    "tcp-syn": ("-p tcp --syn", [p.tcp(flags=0x02, **to)], [p.tcp(flags=0x12, **to), p.tcp(flags=0x10, **to)]),
    "tcp-not-syn": ("-p tcp ! --syn", [p.tcp(flags=0x12, **to)], [p.tcp(flags=0x02, **to)]),
    "tcp-flags": ("-p tcp --tcp-flags FIN,SYN,RST,ACK FIN,ACK", [p.tcp(flags=0x11, **to), p.tcp(flags=0x19, **to)], [p.tcp(flags=0x01, **to), p.tcp(flags=0x13, **to)]),
    "udp-dport": ("-p udp --dport 53", [p.udp(dport=53, **to)], [p.udp(dport=54, **to), p.tcp(dport=53, **to)]),
    "udp-both": ("-p udp --sport 1:9 ! --dport 53", [p.udp(sport=5, dport=1, **to)], [p.udp(sport=5, dport=53, **to), p.udp(sport=10, dport=1, **to)]),
    "multiport-dports": ("-p tcp -m multiport --dports 80,90:95", [p.tcp(dport=80, **to), p.tcp(dport=93, **to)], [p.tcp(dport=81, **to), p.tcp(sport=80, **to)]),
    "multiport-sports": ("-p udp -m multiport --sports 1:5,9", [p.udp(sport=9, **to)], [p.udp(sport=6, **to), p.udp(dport=9, **to)]),
    "multiport-ports": ("-p udp -m multiport --ports 7", [p.udp(sport=7, **to), p.udp(dport=7, **to), p.udp(sport=7, dport=7, **to)], [p.udp(**to)]),
    "multiport-inverted": ("-p tcp -m multiport ! --dports 80,443", [p.tcp(dport=81, **to)], [p.tcp(dport=443, **to), p.udp(dport=81, **to)]),
    "multiport-ports-inverted": ("-p tcp -m multiport ! --ports 80,443", [p.tcp(dport=81, **to)], [p.tcp(dport=443, **to), p.tcp(sport=80, **to)]),
    "multiport-overlap": ("-p tcp -m multiport --dports 1:10,5:20,20", [p.tcp(dport=20, **to), p.tcp(dport=1, **to), p.tcp(dport=7, **to)], [p.tcp(dport=21, **to)]),
    "comment": ("-m comment --comment hello -p udp", [p.udp(**to)], [p.tcp(**to)]),
    "mac": ("-m mac --mac-source 02:00:00:00:00:02", [p.udp(**to)], [(p.udp(**to), {"source": "02:00:00:00:00:03"})]),
    "mac-inverted": ("-m mac ! --mac-source 02:00:00:00:00:02", [(p.udp(**to), {"source": "02:00:00:00:00:03"})], [p.udp(**to)]),
    "pkttype-unicast": ("-m pkttype --pkt-type unicast", [p.udp(**to)], [(p.udp(**to), {"target": p.BROADCAST_MAC})]),
    "pkttype-inverted": ("-m pkttype ! --pkt-type unicast", [(p.udp(**to), {"target": p.BROADCAST_MAC})], [p.udp(**to)]),
    "length": ("-p udp -m length --length 100:128", [p.udp(payload=b"x" * 80, **to)], [p.udp(**to), p.udp(payload=b"x" * 101, **to)]),
    "length-inverted": ("-p udp -m length ! --length :100", [p.udp(payload=b"x" * 101, **to)], [p.udp(**to)]),
    "mark-zero": ("-m mark --mark 0", [p.udp(**to)], []),
    "mark-one": ("-m mark --mark 1", [], [p.udp(**to)]),
    "mark-not-zero": ("-m mark ! --mark 0", [], [p.udp(**to)]),
    "conntrack-invalid": ("-m conntrack --ctstate INVALID", [p.udp(**to)], []),
    "conntrack-not-invalid": ("-m conntrack ! --ctstate INVALID", [], [p.udp(**to)]),
    "conntrack-new": ("-m conntrack --ctstate NEW", [], [p.udp(**to)]),
    "conntrack-untracked": ("-m conntrack --ctstate UNTRACKED", [], [p.udp(**to)]),
    "conntrack-proto": ("-m conntrack --ctproto udp", [], [p.udp(**to)]),
    "conntrack-quirk": ("-m conntrack --ctstate INVALID --ctproto tcp", [p.udp(**to)], []),
    "limit": ("-p udp -m limit --limit 1/day --limit-burst 1", [p.udp(**to)], [p.udp(**to), p.udp(**to)]),
}
# Where the kernel takes the start of a later fragment's transport header to be, the IPv6 header begins: 0x6000.
LATER6 = p.ip(44, struct.pack("!BBHI", 17, 0, 2 << 3, 7) + PORTS_80, p.PEER6, p.OURS6)
V6 = {
    "later-fragment-protocol": ("-p udp", [LATER6], []),
    "later-fragment-ports": ("-p udp --sport 24576", [], [LATER6]),
    "later-fragment-any": ("-p udp -m udp", [p.udp(**SIX)], [LATER6]),
    "source": ("-s fd09::2", [p.udp(**SIX)], [p.udp(source="fd09::3", target=p.OURS6)]),
    "source-odd-mask": ("-s fd09::2/ffff::ffff", [p.udp(**SIX)], [p.udp(source="fd09::3", target=p.OURS6)]),
    "destination-inverted": ("! -d fd09::/64", [], [p.udp(**SIX)]),
    "icmpv6": ("-p ipv6-icmp --icmpv6-type echo-request", [p.icmp(128, **SIX)], [p.icmp(129, **SIX), p.udp(**SIX)]),
    "icmpv6-code": ("-p ipv6-icmp --icmpv6-type 1/4", [p.icmp(1, 4, **SIX)], [p.icmp(1, 3, **SIX)]),
    "iprange": ("-m iprange --src-range fd09::2-fd09::5", [p.udp(**SIX)], [p.udp(source="fd09::6", target=p.OURS6)]),
    "addrtype-local": ("-m addrtype --dst-type LOCAL", [p.udp(**SIX)], [p.udp(source=p.PEER6, target="fd09::77")]),
    "addrtype-not-local": ("-m addrtype ! --dst-type LOCAL", [p.udp(source=p.PEER6, target="fd09::77")], [p.udp(**SIX)]),
}
FAMILIES = {"iptables": {**EITHER(), **V4}, "ip6tables": {**EITHER(**SIX), **V6}}
CASES = [pytest.param(front, name, id=f"{front}-{name}") for front, table in FAMILIES.items() for name in table]


def count(both, front, place, subject):
    """The packet count of the first rule of raw PREROUTING."""
    lines = both.call(subject, place, [front, "-t", "raw", "-vS", "PREROUTING"]).out.decode().splitlines()
    words = shlex.split(next(line for line in lines if line.startswith("-A")))
    return int(words[words.index("-c") + 1])


@pytest.fixture
def wires(both):
    made = [p.Wire(place) for _, place in both.places]
    yield made
    for wire in made:
        wire.close()


@pytest.mark.parametrize("front, name", CASES)
def test_match(both, wires, front, name):
    if name.startswith("later-fragment") and both.subject.variant == "nft":
        pytest.skip("iptables-nft itself reads ports out of later fragments")
    rule, meant, others = FAMILIES[front][name]
    both.run([front, "-t", "raw", "-A", "PREROUTING", *shlex.split(rule), "-j", "DROP"], 0)
    for (subject, place), wire in zip(both.places, wires):
        seen = 0
        for packet, expected in [(packet, 1) for packet in meant] + [(packet, 0) for packet in others]:
            packet, frame = packet if isinstance(packet, tuple) else (packet, {})
            wire.send(packet, **frame)
            now = count(both, front, place, subject)
            if now - seen != expected:
                both.fault(f"{subject.name}: counted {now - seen} instead of {expected} for {packet.hex()} {frame}")
            seen = now
        if subject.ours and not both.faults:
            both.history.append("packets sent")
    both.run(f"{front} -t raw -nvxL PREROUTING", 0)


@pytest.mark.parametrize("front", FAMILIES)
@pytest.mark.parametrize("target, arrives", [("DROP", False), ("ACCEPT", True), ("RETURN", True), ("LOG", True), ("NFLOG", True), ("NOTRACK", True), ("TRACE", True), ("MARK --set-mark 1", True), ("CT --zone 3", True), ("CT --notrack", True)])
def test_verdicts(both, wires, front, target, arrives):
    to = SIX if front == "ip6tables" else {}
    both.run(f"{front} -t raw -A PREROUTING -p udp --dport 2000 -j {target}", 0)
    both.run(f"{front} -t raw -A PREROUTING -p udp -j DROP" if target == "ACCEPT" else f"{front} -t raw -A PREROUTING -p udp --dport 2001 -j DROP", 0)
    for (subject, _), wire in zip(both.places, wires):
        if wire.delivered(p.udp(**to)) != arrives:
            both.fault(f"{subject.name}: -j {target}: arrives is not {arrives}")
        if wire.delivered(p.udp(dport=2001, **to)):
            both.fault(f"{subject.name}: the next rule's DROP let it through")
        if not wire.delivered(p.tcp(flags=0x10, **to)):
            both.fault(f"{subject.name}: a packet that no rule means did not arrive")
    both.run(f"{front} -t raw -vS", 0)


@pytest.mark.parametrize("front", FAMILIES)
def test_user_chains_jump_goto_return(both, wires, front):
    to = SIX if front == "ip6tables" else {}
    for line in (
        "-N outer", "-N inner", "-A PREROUTING -p udp --dport 1 -j outer", "-A PREROUTING -p udp --dport 2 -g outer", "-A PREROUTING -p udp --dport 1:2 -j DROP",
        "-A PREROUTING -p udp --dport 3 -j outer", "-A outer -p udp --dport 3 -j inner", "-A outer -j RETURN", "-A inner -p udp --sport 7 -j ACCEPT", "-A inner -j DROP",
    ):
        both.run(f"{front} -t raw {line}", 0)
    for (subject, _), wire in zip(both.places, wires):
        for sport, dport, arrives in ((9, 1, False), (9, 2, True), (9, 3, False), (7, 3, True), (7, 4, True)):
            if wire.delivered(p.udp(sport=sport, dport=dport, **to)) != arrives:
                both.fault(f"{subject.name}: {sport} to {dport}: arrives is not {arrives}")
    both.run(f"{front} -t raw -vS", 0)
    both.state(counters=True)


@pytest.mark.parametrize("front", FAMILIES)
def test_marks(both, wires, front):
    """Each way of setting a mark gives the mark that the mark match then finds."""
    to = SIX if front == "ip6tables" else {}
    steps = (("--set-mark 0x5", 0x5), ("--or-mark 0xf0", 0xF5), ("--and-mark 0x3c", 0x34), ("--xor-mark 0xff", 0xCB), ("--set-mark 0x10/0xff", 0x10), ("--set-xmark 0x3/0xf0", 0x3), ("--set-xmark 0x81/0x0", 0x82), ("--set-mark 0x4/0x6", 0x84))
    for option, mark in steps:
        both.run(f"{front} -t raw -A PREROUTING -p udp -j MARK {option}", 0)
        both.run(f"{front} -t raw -A PREROUTING -p udp -m mark ! --mark {mark:#x} -j DROP", 0)
    both.run(f"{front} -t raw -A PREROUTING -p udp -m mark --mark 0x4/0x4 -m comment --comment end", 0)
    for wire in wires:
        wire.send(p.udp(**to))
    both.run(f"{front} -t raw -vS", 0)
    both.run(f"{front} -t raw -C PREROUTING -p udp -m mark --mark 0x4/0x4 -m comment --comment end", 0)
    for subject, place in both.places:
        lines = both.call(subject, place, [front, "-t", "raw", "-vS"]).out.decode().splitlines()
        if "-c 1 " not in lines[-1]:
            both.fault(f"{subject.name}: a mark came out wrong", "\n".join(lines))


def test_states_over_loopback(both):
    """On `lo` a packet reaches raw PREROUTING with the entry that OUTPUT gave it."""
    both.run("iptables -A OUTPUT -m conntrack --ctstate NEW", 0)
    rules = [
        "--ctstate NEW", "--ctstate ESTABLISHED", "! --ctstate NEW", "--ctstate NEW,ESTABLISHED", "--ctdir ORIGINAL", "--ctdir REPLY", "--ctproto udp", "--ctorigdstport 4000", "--ctorigsrc 127.0.0.1", "--ctorigdst 127.0.0.0/8 --ctorigdstport 4000:4001", "! --ctorigdst 127.0.0.1",
        "--ctstatus SEEN_REPLY", "--ctstatus CONFIRMED", "--ctreplsrcport 4000", "--ctstate DNAT", "! --ctstate SNAT", "--ctstate ESTABLISHED,DNAT", "--ctstate INVALID", "--ctstate UNTRACKED", "--ctexpire 0:300", "--ctexpire 300:900", "! --ctstatus NONE", "! --ctstatus CONFIRMED",
        "--ctrepldst 127.0.0.1 --ctstate NEW",
    ]
    for rule in rules:
        both.run(f"iptables -t raw -A PREROUTING -p udp -m conntrack {rule}", 0)

    def talk(_):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two:
            one.bind(("127.0.0.1", 4000))
            two.bind(("127.0.0.1", 4001))
            for _ in range(3):
                two.sendto(b"question", ("127.0.0.1", 4000))
                one.recv(64)
                one.sendto(b"answer", ("127.0.0.1", 4001))
                two.recv(64)

    both.each(talk)
    both.run("iptables -t raw -vS", 0)
    both.state(counters=True)


@pytest.mark.parametrize("how", ("NOTRACK", "CT --notrack"))
def test_notrack(both, how):
    """A real flow through `br-lan137` leaves no entry with the rule, and does without."""
    for subject, place in both.places:
        peer = harness.Netns()
        place.sh(f"ip link add br-lan137 type veth peer name far netns {peer.path}")
        place.sh("ip addr add 10.7.0.1/24 dev br-lan137")
        place.sh("ip link set br-lan137 up")
        peer.sh("ip addr add 10.7.0.2/24 dev far")
        peer.sh("ip link set far up")
        # Connection tracking runs in a namespace once something there asks for it.
        assert both.call(subject, place, ["iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED"]).rc == 0

        def flow(port):
            with place.entered():
                server = p.listener(4, port, "10.7.0.1")
            with peer.entered():
                assert p.eventually(lambda: p.connects("10.7.0.1", port))
            server.close()
            return place.sh(f"conntrack -L -p tcp --dport {port}", check=False)

        with_entry = flow(7001)
        both.history.append("a flow; conntrack -L")
        if "dport=7001" not in with_entry:
            both.fault(f"{subject.name}: no conntrack entry even without the rule", with_entry)
        answer = both.call(subject, place, ["iptables", "-t", "raw", "-I", "PREROUTING", "1", "-i", "br-lan137", "-j", *how.split()])
        both.history.append(f"iptables -t raw -I PREROUTING 1 -i br-lan137 -j {how}")
        if answer != harness.Result(0, b"", b""):
            both.fault(f"{subject.name}: the rule was not taken in silence", answer.text())
        if "dport=7002" in flow(7002):
            both.fault(f"{subject.name}: a conntrack entry in spite of {how}")
        peer.close()
    both.run("iptables -t raw -S", 0)


def test_zone(both):
    """The same flow in two zones is two entries."""
    both.run("iptables -A OUTPUT -m conntrack --ctstate NEW", 0)
    both.run("iptables -t raw -A OUTPUT -p udp -j CT --zone 7", 0)

    def flow(_):
        p.udp_over_lo(4, 4000)

    both.each(flow)
    for subject, place in both.places:
        entries = place.sh("conntrack -L -p udp", check=False)
        if "zone=7" not in entries:
            both.fault(f"{subject.name}: no entry in zone 7", entries)


@pytest.mark.parametrize("family", (4, 6))
def test_direct_access(both, family):
    """Docker's rule: the published port answers, the container's own address does not, except from the host."""
    front = {4: "iptables", 6: "ip6tables"}[family]
    bits, outer, inner = {4: (24, ("10.9.0.1", "10.9.0.2"), ("172.17.0.1", "172.17.0.2")), 6: (64, ("fd09::1", "fd09::2"), ("fd17::1", "fd17::2"))}[family]
    nodad = "nodad" if family == 6 else ""
    for subject, host in both.places:
        peer, container = harness.Netns(), harness.Netns()
        for far, name, (near_address, far_address) in ((peer, "eth0", outer), (container, "docker0", inner)):
            host.sh(f"ip link add {name} type veth peer name far netns {far.path}")
            host.sh(f"ip addr add {near_address}/{bits} dev {name} {nodad}")
            host.sh(f"ip link set {name} up")
            far.sh(f"ip addr add {far_address}/{bits} dev far {nodad}")
            far.sh("ip link set far up")
            far.sh(f"ip -{family} route add default via {near_address}")
        host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        with container.entered():
            server = p.listener(family, 80)
        target = f"{inner[1]}:80" if family == 4 else f"[{inner[1]}]:80"
        assert both.call(subject, host, [front, "-t", "nat", "-A", "PREROUTING", "!", "-i", "docker0", "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", target]).rc == 0

        def reach(place, address, port):
            with place.entered():
                return p.connects(address, port)

        assert p.eventually(lambda: reach(peer, outer[0], 8080)), "the published port does not answer even without the rule"
        assert p.eventually(lambda: reach(peer, inner[1], 80)), "direct access does not work even without the rule"
        answer = both.call(subject, host, [front, "--wait", "-t", "raw", "-A", "PREROUTING", "-d", inner[1], "!", "-i", "docker0", "-j", "DROP"])
        both.history.append("the direct access rule")
        if answer != harness.Result(0, b"", b""):
            both.fault(f"{subject.name}: the rule was not taken in silence", answer.text())
        for what, place, address, port, expected in (("published port", peer, outer[0], 8080, True), ("direct access", peer, inner[1], 80, False), ("access from the host", host, inner[1], 80, True)):
            if (p.eventually(lambda: reach(place, address, port)) if expected else reach(place, address, port)) != expected:
                both.fault(f"{subject.name}: {what} is not {expected}")
        server.close()
        peer.close()
        container.close()
    both.run(f"{front} -t raw -S", 0)
