"""Packets of the very moment in which rules are made anew: none passes that is dropped before and after. The kernel fills
sets of ranges later than the rules that look into them are in force, so none of these looks into one."""

import re
import socket
import subprocess
import sys
import time

import pytest

import packets

SECONDS = 3

# Sends to each address and port in turn, for ever.
FLOOD = """
import socket, sys
goals = [goal.rsplit("|") for goal in sys.argv[1:]]
senders = [socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) for address, _ in goals]
for sender, (address, port) in zip(senders, goals):
    sender.connect((address, int(port)))
while True:
    for sender in senders:
        try:
            sender.send(b"x")
        except OSError:
            pass
"""

# What is dropped, and by which rules.
DROPPED = {
    "iptables": {
        ("127.0.0.1", 5000): ("-p udp -d 127.0.0.1 -m multiport --dports 5000,5100:5110 -j DROP",),
        ("127.0.0.2", 5000): ("-p udp -d 127.0.0.2 -m multiport ! --dports 5000,5100:5110 -j ACCEPT", "-p udp -d 127.0.0.2 -j DROP"),
        ("127.0.0.3", 5000): ("-p udp -d 127.0.0.3 -m multiport --ports 10:20,22:30,5000 -j DROP",),
        ("127.0.0.4", 5000): ("-p udp -d 127.0.0.4 -m multiport --dports 5000,5100 -j DROP",),
        ("127.0.0.5", 5000): ("-p udp -d 127.0.0.5 -m udp ! --sport 1 ! --dport 2 -j DROP",),
        ("127.0.0.6", 5000): ("! -f -p udp -d 127.0.0.6 -m u32 --u32 0>>22&0x3C@0&0xFFFF=5000,5100:5110 -j DROP",),
        ("127.0.0.7", 5000): ("-d 127.0.0.7 -m u32 ! --u32 0&0xffff=100 -j DROP",),
        ("127.0.0.8", 5000): ("-d 127.0.0.8 -m addrtype --dst-type LOCAL,BROADCAST -j DROP",),
    },
    "ip6tables": {
        ("::1", 5000): ("-p udp -d ::1 -m multiport --dports 5000,5100:5110 -j DROP",),
        ("fd00::1", 5000): ("-p udp -d fd00::1 -m multiport ! --dports 5000,5100:5110 -j ACCEPT", "-p udp -d fd00::1 -j DROP"),
        ("fd00::2", 5000): ("-p udp -d fd00::2 -m multiport --sports 1:1023,1025:65535 -m multiport --dports 5000:5001,5100:5110 -j DROP",),
    },
}
# Tests that no packet of the flood is held against.
OTHERS = {
    "iptables": ("-m rpfilter -j RETURN", "-m rpfilter --invert -j RETURN"),
    "ip6tables": ("-m addrtype --src-type UNICAST -j RETURN", "-m addrtype ! --dst-type UNICAST -j RETURN"),
}


@pytest.mark.parametrize("front", tuple(DROPPED))
def test_no_packet_passes_while_rules_are_made_anew(shim, beside, front):
    alone = beside(shim("nft"))
    _, place = alone.places[-1]
    place.ip("addr add fd00::1/128 dev lo nodad", "addr add fd00::2/128 dev lo nodad")
    dropped = DROPPED[front]
    rules = [rule for given in dropped.values() for rule in given]
    lines = [f"-A PREROUTING {rule}\n" for rule in (*rules, *OTHERS[front])]
    file = f"*raw\n{''.join(lines)}COMMIT\n".encode()
    alone.run(f"{front}-restore", 0, stdin=file)
    family = packets.FAMILY[4 if front == "iptables" else 6]
    receivers = {}
    with place.entered():
        for goal in dropped:
            receivers[goal] = socket.socket(family, socket.SOCK_DGRAM)
            receivers[goal].bind(goal)
        flood = subprocess.Popen([sys.executable, "-c", FLOOD, *(f"{address}|{port}" for address, port in dropped)])
    try:
        end, restores = time.monotonic() + SECONDS, 0
        while time.monotonic() < end or restores < 10:
            alone.run(f"{front}-restore", 0, stdin=file)
            restores += 1
        passed = [goal for goal, receiver in receivers.items() if packets.has_received(receiver)]
        counted = lambda: [line for line in place.sh("nft list ruleset").splitlines() if line.endswith("drop") and "packets 0 " not in line]
        reached = packets.eventually(lambda: len(counted()) >= len(dropped))
    finally:
        flood.kill()
        flood.wait()
        for receiver in receivers.values():
            receiver.close()
    assert not passed, f"{restores} restores"
    assert reached, counted()
    assert not re.findall(r"(?m)^.*\{[^}\n]*[-/][^}\n]*\}.*$", place.sh("nft list ruleset")), "a set of ranges"
