"""Packets: over `lo` with sockets, and frame by frame over a veth pair."""

import contextlib
import os
import socket
import struct
import time

import harness

OURS4, PEER4 = "10.9.0.1", "10.9.0.2"
OURS6, PEER6 = "fd09::1", "fd09::2"
OUR_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
# The same of a second neighbour, behind us as the first sees it.
INNER4, BEYOND4 = "10.8.0.1", "10.8.0.2"
INNER6, BEYOND6 = "fd08::1", "fd08::2"
INNER_MAC, BEYOND_MAC = "02:00:00:00:08:01", "02:00:00:00:08:02"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
MARKER = 0x88B5  # IEEE 802 local experimental: no IP, so no rule sees it
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@contextlib.contextmanager
def one_cpu():
    """What is sent inside is dealt with in the order in which it was sent: `lo` and veth put it into their CPU's queue."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def packet_socket(device, protocol=0):
    """A socket for whole frames of a device of the present namespace, which is given those of `protocol` that come in."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    sock.bind((device, protocol))
    return sock


class Marker:
    """Frames that no rule sees. One that has arrived says that what was sent before it, on the same CPU, has been dealt
    with, however busy the machine is. `head` is the frame's addresses."""

    def __init__(self, sender, receiver, head):
        self.sender, self.receiver, self.head, self.sent = sender, receiver, head, 0

    def pass_through(self):
        """Sends one, and returns when it has arrived."""
        self.sent += 1
        self.receiver.settimeout(1)
        for _ in range(30):
            self.sender.send(self.head + struct.pack("!HQ", MARKER, self.sent) + b"\0" * 38)
            with contextlib.suppress(TimeoutError):
                while struct.unpack_from("!Q", self.receiver.recv(128), 14)[0] != self.sent:
                    pass
                return
        raise AssertionError("no frame arrives")


@contextlib.contextmanager
def over_lo():
    """What is sent inside over `lo` of the present namespace has been dealt with at the end."""
    with one_cpu(), packet_socket("lo", MARKER) as lo:
        try:
            yield
        finally:  # what is refused may have been answered
            Marker(lo, lo, bytes(12)).pass_through()


def udp_over_lo(family, port, payload=b"x"):
    """One datagram to this namespace itself. A rule that drops it on its way out may make send fail; that is no fault."""
    with socket.socket(FAMILY[family], socket.SOCK_DGRAM) as sender, over_lo(), contextlib.suppress(PermissionError):
        sender.sendto(payload, (LOOPBACK[family], port))


def udp_arrives_over_lo(family, port):
    """Whether a datagram to this namespace itself is received."""
    with socket.socket(FAMILY[family], socket.SOCK_DGRAM) as receiver:
        receiver.bind((LOOPBACK[family], port))
        udp_over_lo(family, port)
        return has_received(receiver)


def has_received(sock):
    """Whether something waits in a socket."""
    try:
        sock.recv(4096, socket.MSG_DONTWAIT)
        return True
    except BlockingIOError:
        return False


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text):
    return bytes.fromhex(text.replace(":", ""))


def _sealed(kind, segment, at, source, target):
    """`segment` with its checksum at offset `at`, over the pseudo header of its family."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    pack = lambda address: socket.inet_pton(family, address)
    if family == socket.AF_INET:
        pseudo = pack(source) + pack(target) + struct.pack("!BBH", 0, kind, len(segment))
    else:
        pseudo = pack(source) + pack(target) + struct.pack("!IHBB", len(segment), 0, 0, kind)
    if kind == 1:
        pseudo = b""
    value = checksum(pseudo + segment)
    if kind == 17 and value == 0:
        value = 0xFFFF
    return segment[:at] + struct.pack("!H", value) + segment[at + 2 :]


def ip(kind, segment, source, target, fragment=0, more=False, ttl=64, tos=0):
    """An IP packet of either family around `segment`. `tos` is the whole byte, `ttl` the hop limit in IPv6."""
    if ":" in source:
        head = struct.pack("!IHBB", 6 << 28 | tos << 20, len(segment), kind, ttl)
        return head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) + segment
    offset = fragment | (0x2000 if more else 0)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, tos, 20 + len(segment), 1, offset, ttl, kind, 0, socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + segment


def udp(sport=1000, dport=2000, source=PEER4, target=OURS4, payload=b"payload", **more):
    segment = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    return ip(17, _sealed(17, segment, 6, source, target), source, target, **more)


def tcp(sport=1000, dport=2000, flags=0x02, source=PEER4, target=OURS4, options=b"", payload=b"", **more):
    options += b"\1" * (-len(options) % 4)
    segment = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, (5 + len(options) // 4) << 4, flags, 1024, 0, 0) + options + payload
    return ip(6, _sealed(6, segment, 16, source, target), source, target, **more)


def icmp(kind=8, code=0, source=PEER4, target=OURS4, **more):
    six = ":" in source
    segment = struct.pack("!BBHHH", kind, code, 0, 7, 1) + b"echo"
    return ip(58 if six else 1, _sealed(58 if six else 1, segment, 2, source, target), source, target, **more)


def error(kind, code, about, source=PEER4, target=OURS4, **more):
    """An ICMP error about the packet `about`."""
    six = ":" in source
    segment = struct.pack("!BBHI", kind, code, 0, 0) + about
    return ip(58 if six else 1, _sealed(58 if six else 1, segment, 2, source, target), source, target, **more)


def other(kind, source=PEER4, target=OURS4, payload=b"\0" * 24, **more):
    return ip(kind, payload, source, target, **more)


class Wire:
    """A veth pair from namespace `here` (interface `name`) to one of its own, from which frames are sent. `ours` and
    `peer` are each end's IPv4 address, IPv6 address and MAC.

    Nobody speaks unasked: there is no router solicitation, no neighbour discovery and no listener report, which chains
    would count whenever they come."""

    def __init__(self, here, name="eth0", ours=(OURS4, OURS6, OUR_MAC), peer=(PEER4, PEER6, PEER_MAC)):
        self.here, self.there = here, harness.Netns()
        self.there.settings({"ipv6/conf/default/disable_ipv6": 1})
        forwarding = here.setting("ipv6/conf/all/forwarding")
        here.settings({"ipv6/conf/default/forwarding": 0})  # a router joins a group
        here.ip(f"link add {name} address {ours[2]} type veth peer name far address {peer[2]} netns {self.there.path}", f"link set {name} multicast off arp off")
        here.settings({f"ipv6/conf/{name}/accept_ra": 0, f"ipv6/conf/{name}/forwarding": forwarding})
        self.there.ip("link set far up")
        here.ip(
            f"addr add {ours[0]}/24 brd + dev {name}", f"addr add {ours[1]}/64 dev {name} nodad", f"link set {name} up",
            f"neigh add {peer[0]} lladdr {peer[2]} dev {name} nud permanent", f"neigh add {peer[1]} lladdr {peer[2]} dev {name} nud permanent",
        )
        with here.entered():
            receiver = packet_socket(name, MARKER)
        with self.there.entered():
            self.sender = packet_socket("far")
        self.ours, self.peer = _mac(ours[2]), _mac(peer[2])
        self.marker = Marker(self.sender, receiver, self.ours + self.peer)
        # The kernel sees later that a link is up, and what is sent to it sooner is lost; addresses are in force later, too.
        with one_cpu():
            self.marker.pass_through()
        link = b"\xfe\x80" + bytes(6) + bytes([self.ours[0] ^ 2]) + self.ours[1:3] + b"\xff\xfe" + self.ours[3:]  # RFC 4291, appendix A
        own = {f"{address.hex()} 80" for address in (socket.inet_pton(socket.AF_INET6, ours[1]), link)}
        if not eventually(lambda: own <= {line[:35] for line in here.read("/proc/thread-self/net/ipv6_route")}):
            raise AssertionError(f"{name} has no addresses")

    def close(self):
        self.marker.receiver.close()
        self.sender.close()
        self.there.close()

    def send(self, packet, source=None, target=None):
        """Sends one IP packet, between the MACs `source` and `target`, and returns once the other end has dealt with it."""
        kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        with one_cpu():
            self.sender.send((_mac(target) if target else self.ours) + (_mac(source) if source else self.peer) + struct.pack("!H", kind) + packet)
            self.marker.pass_through()

    def delivered(self, packet, **frame):
        """Whether a packet to this host gets past all that filters: a raw socket sees what is delivered locally."""
        six = packet[0] >> 4 == 6
        kind = packet[6] if six else packet[9]
        with self.here.entered():
            listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, kind)
        with listener:
            self.send(packet, **frame)
            return has_received(listener)


def connects(address, port, source=None, wait=0.4):
    """Whether a TCP connection from the present namespace is made within `wait` seconds."""
    with socket.socket(FAMILY[6 if ":" in address else 4], socket.SOCK_STREAM) as client:
        client.settimeout(wait)
        if source:
            client.bind((source, 0))
        try:
            client.connect((address, port))
            return True
        except OSError:
            return False


def listener(family, port, address=None):
    """A TCP socket that accepts by itself (the kernel's backlog), in the present namespace."""
    sock = socket.socket(FAMILY[family], socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address or {4: "0.0.0.0", 6: "::"}[family], port))
    sock.listen(16)
    return sock


def eventually(check, wait=30.0):
    """Whether `check()` comes true within `wait` seconds."""
    end = time.monotonic() + wait
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
