"""NFQUEUE, TEE, TPROXY, SYNPROXY and AUDIT: their words, and where packets go."""

import contextlib
import shlex
import socket
import struct

import pytest

import packets as p

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
FRONTS = ("iptables", "ip6tables")
ADDRESS = {"iptables": "192.0.2.1", "ip6tables": "2001:db8::1"}

# table, chain, what stands before -j, target; `{a}` is an address.
TAKEN = (
    ("mangle", "PREROUTING", "", "TEE --gateway {a}"), ("mangle", "POSTROUTING", "-p udp --dport 53", "TEE --gateway {a}"), ("filter", "INPUT", "", "TEE --gateway {a}"), ("raw", "OUTPUT", "", "TEE --gateway {a}"), ("nat", "PREROUTING", "", "TEE --gateway {a}"),
    *(("mangle", "PREROUTING", "-p tcp", f"TPROXY {options}") for options in ("--on-port 80", "--on-port 0", "--on-port http", "--on-port 65537", "--on-port 080", "--on-port ' 80'", "--on-port ''", "--on-port 80 --on-ip {a}", "--on-port 80 --tproxy-mark 1", "--on-port 80 --tproxy-mark 0x1/0xff", "--tproxy-mark 0x100/0x1 --on-port 80 --on-ip {a}", "--on-port 80 --tproxy-mark 0", "--on-port 80 --tproxy-mark 5/0")),
    ("mangle", "PREROUTING", "-p udp -m udp --dport 53", "TPROXY --on-port 5353"), ("mangle", "mine", "-p udp", "TPROXY --on-port 5353"),
    *(("filter", "INPUT", "-p tcp", f"SYNPROXY {options}") for options in ("", "--mss 1460 --wscale 7 --sack-perm --timestamp", "--sack-perm --wscale 0x7 --mss 65535", "--timestamp", "--sack-perm", "--mss 65536 --wscale 256", "--wscale 14 --mss 0")), ("filter", "FORWARD", "-p tcp --syn", "SYNPROXY"), ("mangle", "INPUT", "-p tcp", "SYNPROXY"), ("security", "FORWARD", "-p tcp", "SYNPROXY"),
    *(("filter", "INPUT", "", f"AUDIT --type {kind}") for kind in ("accept", "ACCEPT", "drop", "Reject")), ("raw", "PREROUTING", "-p tcp", "AUDIT --type drop"), ("nat", "POSTROUTING", "", "AUDIT --type accept"),
)
REFUSED = (
    *(("filter", "INPUT", "", f"NFQUEUE {options}") for options in ("--queue-num 65536", "--queue-num x", "--queue-balance 5:1", "--queue-balance 5", "--queue-balance 5:5", "--queue-balance 0:65535", "--queue-balance 1:65536", "--queue-balance 1-5", "--queue-num 5 --queue-balance 1:5", "--queue-cpu-fanout", "--queue-num 3 --queue-cpu-fanout", "--queue-num 3 --queue-num 4", "! --queue-num 3", "--queue-num", "--queue-bypass --queue-bypass", "--queue-balance 0:0", "--queue-balance x:5", "--queue-balance 5:x")),
    *(("mangle", "PREROUTING", "", f"TEE {options}") for options in ("", "--oif eth0", "--gateway", "--gateway {a}/24", "--gateway ''", "--gateway 0.0.0.0", "--gateway ::", "! --gateway {a}", "--gateway {a} --gateway {a}", "--gateway {a} --oif")),
    *(("mangle", "PREROUTING", "-p tcp", f"TPROXY {options}") for options in ("", "--on-port", "--on-port x", "--on-port 0x50", "--on-port -5", "--on-port 80x", "--on-ip {a}", "--on-port 80 --tproxy-mark x", "--on-port 80 --on-port 81", "! --on-port 80", "--on-port 80 --on-ip {a}/8", "--on-port 80 --on-ip ''")),
    *(("mangle", "PREROUTING", match, "TPROXY --on-port 80") for match in ("", "! -p tcp", "-p sctp", "-p udplite", "-m tcp")), *((table, chain, "-p tcp", "TPROXY --on-port 80") for table, chain in (("filter", "INPUT"), ("raw", "PREROUTING"), ("nat", "PREROUTING"), ("mangle", "INPUT"), ("mangle", "OUTPUT"), ("mangle", "FORWARD"), ("mangle", "POSTROUTING"), ("filter", "mine"))),
    *(("filter", "INPUT", "-p tcp", f"SYNPROXY {options}") for options in ("--mss x", "--wscale x", "--sack-perm --sack-perm", "! --mss 5", "--mss 1 --mss 2", "--nonsense")), *(("filter", "FORWARD", match, "SYNPROXY") for match in ("", "! -p tcp", "-p udp", "-m tcp")), *((table, chain, "-p tcp", "SYNPROXY") for table, chain in (("filter", "OUTPUT"), ("raw", "PREROUTING"), ("mangle", "OUTPUT"), ("mangle", "PREROUTING"), ("mangle", "POSTROUTING"), ("nat", "PREROUTING"))),
    *(("filter", "INPUT", "", f"AUDIT {options}") for options in ("", "--type", "--type nonsense", "--type acc", "! --type drop", "--type drop --type accept", "--type ''")),
)
# The original takes these, ours has no exact form for them.
NO_FORM = (
    ("mangle", "PREROUTING", "", "TEE --gateway {a} --oif eth0"), ("filter", "INPUT", "-p tcp", "SYNPROXY --ecn"), ("filter", "INPUT", "-p tcp", "SYNPROXY --mss 1460"), ("filter", "INPUT", "-p tcp", "SYNPROXY --wscale 7"), ("filter", "INPUT", "-p tcp", "SYNPROXY --mss 1460 --wscale 15"),
    ("mangle", "PREROUTING", "-p tcp -m limit --limit 1/s", "TPROXY --on-port 80"),
)


def words(front, match, target):
    name, *options = shlex.split(target.replace("{a}", ADDRESS[front]))
    bang = options[:1] == ["!"]
    return [*shlex.split(match), "-j", name, *(options if not bang else ["!", *options[1:]])]


@pytest.mark.parametrize("front", FRONTS)
def test_rules_are_told_as_they_were_given(carried, front):
    carried.run(f"{front} -t mangle -N mine", 0)
    taken = [rule for rule in TAKEN if front == "iptables" or "SYNPROXY" not in rule[3]]
    for table, chain, match, target in taken:
        carried.run([front, "-t", table, "-A", chain, *words(front, match, target)], 0)
        carried.run([front, "-t", table, "-C", chain, *words(front, match, target)], 0)
    for table in ("filter", "mangle", "raw", "nat", "security"):
        carried.run(f"{front} -t {table} -S", 0)
        carried.run(f"{front} -t {table} -nvxL", 0)
        carried.run(f"{front} -t {table} -L --line-numbers", 0)
    carried.state(counters=True)
    for table, chain, match, target in taken:
        carried.run([front, "-t", table, "-D", chain, *words(front, match, target)], 0)
    carried.run(f"{front} -t mangle -S", 0)
    carried.state()


@pytest.mark.parametrize("front", FRONTS)
def test_refusals(carried, front):
    carried.run(f"{front} -N mine", 0)
    for table, chain, match, target in REFUSED:
        if front == "ip6tables" and "SYNPROXY" in target:
            continue
        carried.run([front, "-t", table, "-A", chain, *words(front, match, target)])
    carried.state()


@pytest.mark.parametrize("front", FRONTS)
def test_what_has_no_form_is_refused_whole(carried, front):
    (original, there), (ours, here) = carried.places
    for table, chain, match, target in NO_FORM:
        argv = [front, "-t", table, "-A", chain, *words(front, match, target)]
        assert carried.call(original, there, argv).rc == 0, target
        answer = carried.call(ours, here, argv)
        assert answer.rc != 0 and answer.err, target
        assert carried.call(ours, here, [front, "-t", table, "-S"]).out.count(b"-A") == 0


@pytest.mark.parametrize("front", FRONTS)
def test_a_copy_goes_to_the_gateway(scene, front):
    four = front == "iptables"
    gateway, to = (p.BEYOND4, {}) if four else (p.BEYOND6, {"source": p.PEER6, "target": p.OURS6})
    scene.meets(front, "mangle", "PREROUTING", f"-p udp -j TEE --gateway {gateway}", match=[p.udp(**to)], other=[p.tcp(**to)])
    scene.run(f"{front} -t mangle -A PREROUTING -p udp -j TEE --gateway {gateway}", 0)
    assert {each.where for each in scene.send(p.udp(**to))} >= {"host", "right"}
    scene.run(f"{front} -t mangle -A PREROUTING -p udp -j DROP", 0)
    assert [each.where for each in scene.send(p.udp(**to))] == ["right"]


@contextlib.contextmanager
def proxy(host, front, kind, port, address=""):
    """A transparent socket, and the route that brings marked packets to it."""
    four = front == "iptables"
    ip = "ip -4" if four else "ip -6"
    host.place.sh(f"{ip} rule add fwmark 1/1 lookup 100")
    host.place.sh(f"{ip} route add local default dev lo table 100")
    with host.place.entered():
        sock = socket.socket(socket.AF_INET if four else socket.AF_INET6, kind)
    with sock:
        sock.setsockopt(*((socket.SOL_IP, IP_TRANSPARENT) if four else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)), 1)
        sock.bind((address or ("0.0.0.0" if four else "::"), port))
        yield sock
    host.place.sh(f"{ip} rule del fwmark 1/1 lookup 100")
    host.place.sh(f"{ip} route del local default dev lo table 100")


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("own_address", (False, True))
def test_a_transparent_proxy_takes_packets_and_without_one_they_are_dropped(scene, front, own_address):
    four = front == "iptables"
    across = {"source": p.PEER4, "target": p.BEYOND4} if four else {"source": p.PEER6, "target": p.BEYOND6}
    ours = p.OURS4 if four else p.OURS6
    option = f"--on-ip {ours}" if own_address else ""
    scene.run(f"{front} -t mangle -A PREROUTING -p udp --dport 2000 -j TPROXY --on-port 5353 --tproxy-mark 1/1 {option}", 0)
    scene.run(f"{front} -t mangle -A PREROUTING -p udp -m comment --comment later", 0)
    assert scene.send(p.udp(**across)) == [], "no socket"
    assert [each.where for each in scene.send(p.udp(dport=2001, **across))] == ["right"]
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(proxy(host, front, socket.SOCK_DGRAM, 5353, ours if own_address else "")) for host in scene.hosts]
        scene.forget()
        scene.send(p.udp(payload=b"to the proxy", **across))
        for sock in socks:
            assert sock.recv(99, socket.MSG_DONTWAIT) == b"to the proxy"
        # One that is not transparent does not count.
        for sock in socks:
            sock.setsockopt(*((socket.SOL_IP, IP_TRANSPARENT) if four else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)), 0)
        assert scene.send(p.udp(**across)) == []
    scene.run(f"{front} -t mangle -vS PREROUTING", 0)
    scene.run(f"{front} -t mangle -Z", 0)
    scene.run(f"{front} -t mangle -vS PREROUTING", 0)
    assert scene.send(p.udp(**across)) == []
    scene.run(f"{front} -t mangle -vS PREROUTING", 0)


def answered(host, packet):
    """What `host` answers to a TCP packet: flags, window and options, without the cookies."""
    found = []
    for seen in host.send(packet, "left", 0):
        segment = seen.packet[20:]
        options = segment[20 : (segment[12] >> 4) * 4]
        # Time stamps differ, their place does not.
        at = options.find(b"\x08\x0a")
        if at >= 0:
            options = options[: at + 2] + bytes(8) + options[at + 10 :]
        found.append((seen.where, segment[13], struct.unpack("!H", segment[14:16])[0], options))
    return found


@pytest.mark.parametrize("options", ("--sack-perm --timestamp --wscale 7 --mss 1460", "", "--timestamp", "--mss 1000 --wscale 0"))
def test_synproxy_answers_for_the_server(scene, options):
    scene.run("iptables -t raw -A PREROUTING -p tcp --syn -j CT --notrack", 0)
    scene.run(f"iptables -A INPUT -p tcp --dport 80 -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY {options}", 0)
    scene.run("iptables -A INPUT -p tcp --dport 80 -m conntrack --ctstate INVALID -j DROP", 0)
    offers = (b"", b"\x02\x04\x05\xb4", b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + struct.pack("!II", 7, 0) + b"\x01\x03\x03\x07")
    for offer in offers:
        answers = [answered(host, p.tcp(dport=80, options=offer)) for host in scene.hosts]
        scene.both.equal(answers, f"{offer.hex()}: the answer differs")
        assert [(where, flags) for where, flags, *_ in answers[-1]] == [("left", 0x12)]
    for flags in (0x10, 0x11, 0x04, 0x12, 0x14, 0x03, 0x01, 0x00, 0x18, 0x3F):
        answers = [answered(host, p.tcp(dport=80, flags=flags)) for host in scene.hosts]
        scene.both.equal(answers, f"{flags:#x}: what becomes of it differs")
        scene.run("iptables -vS INPUT", 0)
