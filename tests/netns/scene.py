"""What a packet meets, with the original and with ours, every table carried by nft.

The fixture `scene` (once for each variant) is two hosts that are the same but for whose iptables they have. Each stands
between two neighbours and forwards:

    left 10.9.0.2, fd09::2 ── eth0 10.9.0.1, fd09::1 [host] eth1 10.8.0.1, fd08::1 ── right 10.8.0.2, fd08::2

A rule, a packet that it means, one that it does not, and what becomes of both, the same in either place:

    def test_ttl(scene):
        across = {"source": p.PEER4, "target": p.BEYOND4}
        scene.meets("iptables", "mangle", "FORWARD", "-m ttl --ttl-lt 9 -j MARK --set-mark 7",
                    match=[p.udp(ttl=5, **across)], other=[p.udp(**across)])

or step by step, where more is to be seen:

    def test_dnat(scene):
        scene.run("iptables -t nat -A PREROUTING -p udp --dport 2000 -j DNAT --to-destination 10.8.0.2:53", 0)
        seen = scene.send(p.udp(dport=2000))
        assert [(each.where, each.mark) for each in seen] == [("right", 0)]
        scene.entries()

`run`, `meets`, `send`, `entries` and `log` compare the two places by themselves and collect what differs; the test then
fails at its end. What they give is the subject's, for `assert`s on what the original's man page says.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shlex
import socket
import struct
import typing

import packets as p

SO_RCVMARK, SO_RCVPRIORITY = 75, 82  # asm-generic/socket.h; the second from Linux 6.14 on
PACKET_OUTGOING = 4
NETLINK_NETFILTER, NLM_F_REQUEST, NLM_F_ACK = 12, 1, 4  # linux/netlink.h
IPV6_HDRINCL = 36
CTNETLINK_DELETE = 0x102  # linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h


class Seen(typing.NamedTuple):
    """A packet somewhere, as bytes, with the mark and priority it had there (None: this kernel does not tell)."""

    where: str  # host: delivered to it | left, right: sent by it to that neighbour | error: the sender's errno
    mark: int | None
    priority: int | None
    packet: bytes

    def __repr__(self):
        return f"{self.where} mark={self.mark} priority={self.priority} {self.packet.hex()}"


def _tell_all(sock):
    for option in (SO_RCVMARK, SO_RCVPRIORITY):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)


def _received(sock):
    """All that waits in `sock`: data, address, mark, priority."""
    while True:
        try:
            data, control, _, address = sock.recvmsg(65535, 256, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        told = {kind: struct.unpack("I", value)[0] for level, kind, value in control if level == socket.SOL_SOCKET and len(value) == 4}
        yield data, address, told.get(socket.SO_MARK), told.get(socket.SO_PRIORITY)


def _same_each_time(packet):
    """An IPv4 packet without its ID, which the kernel picks, its checksum replaced by whether it is right."""
    if packet[0] >> 4 != 4:
        return packet
    right = p.checksum(packet[: (packet[0] & 15) * 4]) == 0
    return packet[:4] + b"\0\0" + packet[6:10] + (b"\0\0" if right else b"\xff\xff") + packet[12:]


def protocol(packet):
    """The transport protocol of an IP packet, behind IPv6 extension headers."""
    if packet[0] >> 4 == 4:
        return packet[9]
    kind, at = packet[6], 40
    while kind in (0, 43, 44, 60):
        kind, at = packet[at], at + (8 if kind == 44 else 8 + 8 * packet[at + 1])
    return kind


def ctnetlink(kind, family, attributes=b""):
    """One request to connection tracking in the present namespace; the kernel's errno, 0 where it did as asked."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as link:
        link.send(struct.pack("=IHHIIBBH", 20 + len(attributes), kind, NLM_F_REQUEST | NLM_F_ACK, 1, 0, family, 0, 0) + attributes)
        return -struct.unpack("=i", link.recv(4096)[16:20])[0]


class Host:
    """One of the two places: a namespace between `left` and `right`."""

    def __init__(self, place):
        self.place = place
        place.settings({"ipv4/conf/all/rp_filter": 0, "ipv4/conf/default/rp_filter": 0, "ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1, "ipv6/auto_flowlabels": 0, "ipv4/icmp_ratelimit": 0, "ipv6/icmp/ratelimit": 0, "ipv4/tcp_synack_retries": 0})
        self.wires = {"left": p.Wire(place), "right": p.Wire(place, "eth1", (p.INNER4, p.INNER6, p.INNER_MAC), (p.BEYOND4, p.BEYOND6, p.BEYOND_MAC))}
        with place.entered():
            self.taps = {side: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003)) for side in self.wires}
        for (side, tap), device in zip(self.taps.items(), ("eth0", "eth1")):
            tap.bind((device, 0x0003))
            _tell_all(tap)
        self.listeners = {}

    def listen(self, family, kind):
        """A raw socket for one protocol: it sees what is delivered to this host."""
        if (family, kind) not in self.listeners:
            with self.place.entered():
                sock = socket.socket(family, socket.SOCK_RAW, kind)
            _tell_all(sock)
            self.listeners[family, kind] = sock
        return self.listeners[family, kind]

    def send(self, packet, at, mark, **frame):
        six = packet[0] >> 4 == 6
        local = self.listen(socket.AF_INET6 if six else socket.AF_INET, protocol(packet))
        for sock in (local, *self.taps.values()):
            list(_received(sock))
        seen = []
        if at == "host":
            try:
                with self.place.entered(), p.over_lo():
                    self.emit(packet, mark)
            except OSError as error:
                seen.append(Seen("error", None, None, errno.errorcode[error.errno].encode()))
        else:
            self.wires[at].send(packet, **frame)
        seen += [Seen("host", mark, priority, data if six else _same_each_time(data)) for data, _, mark, priority in _received(local)]
        for side, tap in self.taps.items():
            for data, address, mark, priority in _received(tap):
                if address[2] == PACKET_OUTGOING and address[1] in (0x0800, 0x86DD):
                    seen.append(Seen(side, mark, priority, _same_each_time(data)))
        return seen

    @staticmethod
    def emit(packet, mark):
        six = packet[0] >> 4 == 6
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            sender.setsockopt(*((socket.IPPROTO_IPV6, IPV6_HDRINCL) if six else (socket.IPPROTO_IP, socket.IP_HDRINCL)), 1)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            target = socket.inet_ntop(socket.AF_INET6, packet[24:40]) if six else socket.inet_ntoa(packet[16:20])
            sender.sendto(packet, (target, 0))

    def close(self):
        for sock in (*self.taps.values(), *self.listeners.values()):
            sock.close()
        for wire in self.wires.values():
            wire.close()


class Scene:
    """The two hosts. `both` is the pair of iptables (harness.Both), `hosts` the original's and ours."""

    def __init__(self, both):
        self.both = both
        both.policies_count = False  # iptables-legacy sets a policy's counters to 0 at every change
        self.hosts = [Host(place) for _, place in both.places]
        self.run, self.state, self.variant = both.run, both.state, both.subject.variant

    def send(self, packet, at="left", mark=0, **frame):
        """Sends an IP packet from a neighbour (`left`, `right`; `frame` may have source and target MAC), or from the
        `host` itself with a socket's `mark`. Gives what is then Seen, in either place the same."""
        answers = [host.send(packet, at, mark, **frame) for host in self.hosts]
        self.both.history.append(f"{packet.hex()} from {at}")
        self.both.equal(answers, "the packet met something else")
        return answers[-1]

    def meets(self, front, table, chain, rule, match, other, at="left"):
        """Appends `rule` to a chain, sends packets that it means and others, each seen by the rule's own counter and by
        what comes of it (see `send`); then compares the listings and takes the rule away. A packet is bytes, or (bytes,
        arguments of `send`). Flows are new ones each: connection tracking starts empty."""
        words = shlex.split(rule)
        self.run([front, "-t", table, "-A", chain, *words], 0)
        before = [0] * len(self.hosts)
        for packet, expected in [(packet, 1) for packet in match] + [(packet, 0) for packet in other]:
            packet, arguments = packet if isinstance(packet, tuple) else (packet, {})
            self.forget()
            self.send(packet, **{"at": at, **arguments})
            counted = self.counts(front, table, chain)
            for (subject, _), old, new in zip(self.both.places, before, counted):
                if new - old != expected:
                    self.both.fault(f"{subject.name}: the rule counted {new - old} instead of {expected}", packet.hex())
            before = counted
        self.run([front, "-t", table, "-vS", chain], 0)
        self.run([front, "-t", table, "-nvxL", chain], 0)
        self.run([front, "-t", table, "-D", chain, *words], 0)

    def counts(self, front, table, chain):
        """The packet count of the last rule of a chain, in each place."""
        counted = []
        for subject, place in self.both.places:
            last = self.both.call(subject, place, [front, "-t", table, "-vS", chain]).out.decode(errors="replace").splitlines()[-1]
            counted.append(int(re.search(r" -c (\d+) \d+", last).group(1)) if last.startswith("-A") else 0)
        return counted

    def forget(self):
        """Empties connection tracking."""
        self.both.each(lambda _: ctnetlink(CTNETLINK_DELETE, socket.AF_UNSPEC))

    def entries(self, *options):
        """The entries of connection tracking as conntrack(8) lists them with `options`, without seconds and ids."""
        answers = []
        for _, place in self.both.places:
            lines = "".join(place.sh(shlex.join(["conntrack", "-L", "-f", family, *options]), check=False) for family in ("ipv4", "ipv6")).splitlines()
            answers.append(sorted(re.sub(r"^(\w+ +\d+) \d+ ", r"\1 ", re.sub(r" id=\d+", "", line)) for line in lines))
        self.both.equal(answers, "connection tracking differs")
        return answers[-1]

    def log(self, word, packet, at="left", mark=0, **frame):
        """Sends a packet, and gives the lines with `word` that the kernel's log then has, each with its level:
        `<4>WORD IN=eth0 …`. `word` must be no other test's: a log prefix with this process' id in it."""
        answers = []
        switch = pathlib.Path("/proc/sys/net/netfilter/nf_log_all_netns")
        with open("/dev/kmsg", "rb", buffering=0) as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # the switch is the machine's, and there are several of us
            os.set_blocking(log.fileno(), False)
            before = switch.read_text()
            switch.write_text("1")
            try:
                for host in self.hosts:
                    log.seek(0, os.SEEK_END)
                    host.send(packet, at, mark, **frame)
                    answers.append(list(_lines(log, word)))
            finally:
                switch.write_text(before)
        self.both.history.append(f"{packet.hex()} from {at}, the log")
        self.both.equal(answers, "the log has other lines")
        return answers[-1]

    def close(self):
        for host in self.hosts:
            host.close()


def _lines(log, word):
    while True:
        try:
            entry = log.read(8192)
        except BrokenPipeError:  # overwritten in the meantime: the next read goes on behind
            continue
        if not entry:
            return
        head, _, text = entry.decode(errors="backslashreplace").partition(";")
        if word in text:
            yield f"<{int(head.split(',')[0]) & 7}>" + text.splitlines()[0]
