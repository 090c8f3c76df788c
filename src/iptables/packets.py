"""Packets for the comparison of rules: many kinds, none of them answered for."""
import random
import socket
import struct
import sys
import time

mode, family = sys.argv[1], sys.argv[2]
v6 = family == "ip6"
HERE, THERE = ("fd09::1", "fd09::2") if v6 else ("10.9.0.1", "10.9.0.2")
INET = socket.AF_INET6 if v6 else socket.AF_INET
PORTS = [0, 1, 2, 3, 5, 6, 7, 10, 16, 22, 53, 60, 80, 99, 100, 123, 124, 443, 4464, 8080, 60000, 65535]


def serve():
    """Answers the connections that `connect` makes, for a while."""
    udp = socket.socket(INET, socket.SOCK_DGRAM)
    udp.bind((THERE, 5353))
    tcp = socket.socket(INET, socket.SOCK_STREAM)
    tcp.bind((THERE, 80))
    tcp.listen()  # the last: this is what is waited for
    for _ in range(20):
        data, sender = udp.recvfrom(2048)
        udp.sendto(data, sender)
        other, _ = tcp.accept()
        other.recv(100)
        other.send(b"x" * 100)
        other.close()


def connect():
    """Flows that begin here, so that what comes in is the reply direction."""
    for _ in range(20):
        udp = socket.socket(INET, socket.SOCK_DGRAM)
        udp.connect((THERE, 5353))
        udp.send(b"y" * random.randrange(1, 900))
        udp.recv(2048)
        tcp = socket.socket(INET, socket.SOCK_STREAM)
        tcp.connect((THERE, 80))
        tcp.send(b"z")
        tcp.recv(1000)
        tcp.close()


def header(protocol, source, destination, payload, fragment=0):
    if v6:
        a, b = (socket.inet_pton(socket.AF_INET6, x) for x in (source, destination))
        if fragment:
            payload = struct.pack("!BBHI", protocol, 0, fragment, random.getrandbits(32)) + payload
            protocol = 44
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + a + b + payload
    a, b = socket.inet_aton(source), socket.inet_aton(destination)
    plain = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), random.getrandbits(16), fragment, 64, protocol, 0, a, b)
    total = sum(struct.unpack("!10H", plain))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return plain[:10] + struct.pack("!H", ~total & 0xFFFF) + plain[12:] + payload


def tcp(source, destination):
    flags = random.choice([2, 0x12, 0x10, 0x11, 4, 0, 0x3F, 0x29, random.randrange(64)])
    options = random.choice([b"", b"\x02\x04\x05\xb4", b"\x05\x0a" + bytes(8) + b"\1\1", b"\x03\x03\x07\0", b"\1\1\x05\x02"])
    size = 5 + len(options) // 4
    return struct.pack("!HHIIBBHHH", source, destination, random.getrandbits(32), 0, size << 4, flags, 1000, 0, 0) + options


def udp(source, destination):
    body = bytes(random.choice([0, 1, 5, 20, 100, 900, 1300]))
    return struct.pack("!HHHH", source, destination, 8 + len(body), 0) + body


def transport():
    protocol = random.choice([6, 6, 6, 17, 17, 17, 58 if v6 else 1, 58 if v6 else 1, 47, 50, 132, 136, 33, 89, 255, 135, 41])
    source, destination = random.choice(PORTS), random.choice(PORTS)
    if protocol == 6:
        return protocol, tcp(source, destination)
    if protocol in (17, 136):
        return protocol, udp(source, destination)
    if protocol == 1:
        return protocol, struct.pack("!BBHI", random.choice([0, 3, 3, 3, 4, 5, 8, 11, 12, 13, 17, 18, 40, 255]), random.randrange(17), 0, 0) + bytes(40)
    if protocol == 58:
        return protocol, struct.pack("!BBHI", random.choice([1, 1, 2, 3, 4, 128, 129, 133, 134, 135, 136, 137, 255]), random.randrange(11), 0, 0) + bytes(40)
    return protocol, struct.pack("!HH", source, destination) + bytes(random.choice([8, 12, 40]))


ADDRESSES = (
    "::1 ::5 fe80::1 fe80::77 fd09::1 fd09::1 fd09::2 2001:db8::1 2001:db8::5 2001:db8:1::1 ff02::1 ff05::2 "
    "::ffff:1.2.3.4 ::1.2.3.4 fec0::1 fe80:1::1".split()
    if v6
    else "1.2.3.4 1.2.3.0 1.2.3.9 1.2.9.4 5.6.7.8 8.1.1.1 10.1.2.3 10.9.0.1 10.9.0.1 10.9.0.2 10.9.0.255 127.0.0.1 172.17.0.2 "
    "224.0.0.1 255.255.255.255 0.0.0.0 10.0.0.1 10.77.0.5 10.0.0.5 1.1.1.1 1.0.0.2 2.3.4.5 4.5.6.7".split()
)


def send():
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.bind(("v1", 0))
    kind = struct.pack("!H", 0x86DD if v6 else 0x0800)
    senders = [bytes.fromhex(x) for x in ("001122aabbcc", "0001020a0b0c", "020000000009")]
    receivers = [bytes.fromhex(x) for x in ("020000000001",) * 6 + ("ffffffffffff", "333300000001" if v6 else "01005e000001")]
    for number in range(6000):
        protocol, payload = transport()
        # Later IPv6 fragments are left out: nf_tables reads ports there that ip6tables does not look for.
        fragment = 0 if v6 else random.choice([0] * 20 + [0x2000, 5, 0x2005])
        packet = header(protocol, random.choice(ADDRESSES), random.choice(ADDRESSES), payload, fragment)
        link.send(random.choice(receivers) + random.choice(senders) + kind + packet)
        if number % 200 == 0:
            time.sleep(0.01)


random.seed(1)
{"serve": serve, "connect": connect, "send": send}[mode]()
