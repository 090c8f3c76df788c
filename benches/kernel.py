"""What the kernel alone takes: the request that a command comes down to, sent by a process that already runs and reads
nothing of the answer but its end. No program can be faster than this."""

import socket
import struct
import time

NETLINK_NETFILTER = 12
SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWRULE, GETRULE, DELRULE = 6, 7, 8
REQUEST, ACK, DUMP, CREATE, APPEND = 0x1, 0x4, 0x300, 0x400, 0x800
ERROR, DONE = 2, 3
TABLE, CHAIN, HANDLE, EXPRESSIONS, USERDATA = 1, 2, 3, 4, 7  # enum nft_rule_attributes
SO_SNDBUFFORCE = 32


def attribute(kind, value):
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def message(kind, flags, body=b"", family=socket.AF_INET, resource=0):
    body = struct.pack("=BBH", family, 0, socket.htons(resource)) + body
    return struct.pack("=IHHII", len(body) + 16, kind, flags, 0, 0) + body


def batch(*messages):
    begin, end = (message(kind, REQUEST, family=0, resource=10) for kind in (BATCH_BEGIN, BATCH_END))
    return begin + b"".join(messages) + end


def clocks():
    return time.perf_counter_ns(), time.thread_time_ns()


def elapsed(since):
    return tuple((now - then) / 1e6 for now, then in zip(clocks(), since))


class Socket:
    """A netlink socket to nf_tables. Times are as a clock on the wall and as the processor has them, in milliseconds."""

    def __init__(self, table):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.table = table.encode() + b"\0"
        self.buffer = bytearray(64 * 1024)

    def place(self, chain):
        return attribute(TABLE, self.table) + (attribute(CHAIN, chain.encode() + b"\0") if chain else b"")

    def dump(self, chain=None, keep=False):
        """All rules of a chain, or of the table: how long it took, and the datagrams if they are to be kept."""
        request = message(SUBSYSTEM | GETRULE, REQUEST | DUMP, self.place(chain))
        kept, since = [], clocks()
        self.socket.send(request)
        while True:
            size = self.socket.recv_into(self.buffer)
            if keep:
                kept.append(bytes(self.buffer[:size]))
            # The end has a datagram of its own, or stands last in one.
            if any(struct.unpack_from("=IH", self.buffer, at) == (20, DONE) for at in {0, max(size - 20, 0)}):
                return elapsed(since), kept

    def commit(self, *changes):
        """Sends one transaction, of which one operation asks for an answer: how long it took."""
        datagram = batch(*changes)
        if len(datagram) > 64 * 1024:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, len(datagram) + 4096)
        since = clocks()
        self.socket.send(datagram)
        size = self.socket.recv_into(self.buffer)
        taken = elapsed(since)
        kind, = struct.unpack_from("=H", self.buffer, 4)
        errno, = struct.unpack_from("=i", self.buffer, 16)
        assert size >= 20 and kind == ERROR and errno == 0, f"the kernel says {kind}, {errno}"
        return taken


def rules(datagrams):
    """(handle, what makes the same rule again) of each rule in the datagrams of a dump."""
    for datagram in datagrams:
        at = 0
        while at + 16 <= len(datagram):
            length, kind = struct.unpack_from("=IH", datagram, at)
            if kind == SUBSYSTEM | NEWRULE:
                handle, body, place = None, b"", at + 20
                while place < at + length:
                    size, what = struct.unpack_from("=HH", datagram, place)
                    padded = (size + 3) & ~3
                    if what == HANDLE:
                        handle = datagram[place : place + size][4:]
                    elif what & 0x3FFF in (TABLE, CHAIN, EXPRESSIONS, USERDATA):
                        body += datagram[place : place + padded]
                    place += padded
                yield handle, body
            at += (length + 3) & ~3


class Floor:
    """The kernel's part of each operation on one chain of a table that is already there."""

    def __init__(self, table, chain):
        self.socket, self.chain, self.known = Socket(table), chain, []

    def learn(self):
        """Keeps the rules that are there now, for `restore` to make again."""
        self.known = [body for _, body in rules(self.socket.dump(keep=True)[1])]

    def last(self):
        """Handle of the chain's last rule, and what makes the same again."""
        return list(rules(self.socket.dump(self.chain, keep=True)[1]))[-1]

    def add(self, flags, body):
        return self.socket.commit(message(SUBSYSTEM | NEWRULE, REQUEST | ACK | CREATE | flags, body))

    def delete_last(self):
        body = self.socket.place(self.chain) + attribute(HANDLE, self.last()[0])
        return self.socket.commit(message(SUBSYSTEM | DELRULE, REQUEST | ACK, body))

    def restore(self):
        """The table's rules taken away and made again, as a file without --noflush does it."""
        flush = message(SUBSYSTEM | DELRULE, REQUEST | (0 if self.known else ACK), self.socket.place(None))
        flags = [REQUEST | CREATE | APPEND] * len(self.known)
        flags[-1:] = [flag | ACK for flag in flags[-1:]]
        return self.socket.commit(flush, *(message(SUBSYSTEM | NEWRULE, flag, body) for flag, body in zip(flags, self.known)))
