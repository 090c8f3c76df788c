"""`-m connlabel`: forms, and flows with and without labels."""

import pathlib
import shlex
import socket
import struct

import pytest

import harness
import packets as p
import scene as scenes

FRONT = {4: "iptables", 6: "ip6tables"}
ACROSS = {4: {"source": p.PEER4, "target": p.BEYOND4}, 6: {"source": p.PEER6, "target": p.BEYOND6}}

NAMES = pathlib.Path("/etc/xtables/connlabel.conf")
# What is no name, and what has one already, is passed over.
LABELS = "# labels\n3 web\n40 two words\n0x7f last\n 9\tafter-blanks \n010 eight\n3 again\n11 web\n12 a_b\n13 4\n14\nx 15\n200 beyond\n"

RULES = (
    "--label 1", "! --label 1", "--label 1 --set", "! --label 127 --set", "--label 128", "--label 65535", "--label 65536", "--label 131075", "--label 4294967296", "--label 18446744073709551615", "--label 0x10", "--label 010", "--label 08", "--label +3", "--label ' 3'", "--label '3 '", "--label 1x",
    "--label -1", "--label web", "! --label web --set", "--label 'two words'", "--label two", "--label last", "--label after-blanks", "--label eight", "--label again", "--label a_b", "--label 4", "--label 11", "--label 13", "--label 14", "--label beyond", "--label 40 -j DROP", "--label ''", "--label", "--set", "",
    "--label 1 --label 2", "--label 1 --set --set", "--label 1 ! --set", "--label 1 -m connlabel ! --label 2", "! --label 1 -m connlabel --label 1 --set", "! --label 1 -m connlabel ! --label 2 -p udp -m multiport --ports 1,2",
)


@pytest.fixture(scope="module", autouse=True)
def names(tmp_path_factory):
    """/etc with a file of names, for this process and its children: without one the original warns at every listing."""
    room = tmp_path_factory.mktemp("etc")
    harness.mount("tmpfs", str(room), "tmpfs")
    for name in ("upper", "work"):
        (room / name).mkdir()
    harness.mount("overlay", "/etc", "overlay", 0, f"lowerdir=/etc,upperdir={room}/upper,workdir={room}/work")
    NAMES.parent.mkdir(exist_ok=True)
    NAMES.write_text(LABELS)
    yield
    harness.unmount("/etc")
    harness.unmount(str(room))


@pytest.mark.parametrize("family", FRONT)
def test_forms(carried, family):
    """Each rule is taken or refused as by the original, listed the same, and found again."""
    front = FRONT[family]
    for rule in RULES:
        words = ["-m", "connlabel", *shlex.split(rule)]
        if not carried.offer([front, "-A", "INPUT", *words]):
            continue
        for command in ("-S INPUT", "-nvxL INPUT", "-L INPUT"):
            carried.run(f"{front} {command}", 0)
        saved = carried.run(f"{front}-save -t filter", 0)
        for command in ("-C", "-I", "-D", "-D"):
            carried.run([front, command, "INPUT", *words])
        carried.run(f"{front}-restore", 0, stdin=saved.out)
        carried.run(f"{front} -S INPUT", 0)
        carried.run(f"{front} -F", 0)


def give(family, source, target, label):
    """Gives a label to the connection of a UDP packet from port 1000 to 2000, as `conntrack -U --label-add` would: that of
    1.4.7 fails with "Operation not supported". The kernel's errno; ENOSPC where a connection has no room for labels."""
    attribute = lambda kind, data: struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)
    nest = lambda kind, *parts: attribute(kind | 0x8000, b"".join(parts))
    af = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    first = {4: 1, 6: 3}[family]
    # linux/netfilter/nfnetlink_conntrack.h: CTA_TUPLE_ORIG, CTA_TUPLE_IP, CTA_TUPLE_PROTO, CTA_LABELS, CTA_LABELS_MASK.
    address = nest(1, *(attribute(first + number, socket.inet_pton(af, each)) for number, each in enumerate((source, target))))
    ports = nest(2, attribute(1, bytes([socket.IPPROTO_UDP])), attribute(2, struct.pack("!H", 1000)), attribute(3, struct.pack("!H", 2000)))
    bits = (1 << label).to_bytes(16, "little")
    body = nest(1, address, ports) + attribute(22, bits) + attribute(23, bits)
    return scenes.ctnetlink(0x100, af, body)


def labelled(scene, label):
    return [label in line.rpartition("labels=")[2].split(",") for line in scene.entries("-o", "labels", "-p", "udp") if "labels=" in line]


def met(scene, front, table="filter", chain="FORWARD"):
    """How many packets each rule has counted, in both places the same."""
    lines = scene.run(f"{front} -t {table} -vS {chain}", 0).out.decode().splitlines()
    return [int(line.split(" -c ")[1].split()[0]) for line in lines if line.startswith("-A")]


@pytest.mark.parametrize("family", FRONT)
@pytest.mark.parametrize("label", (0, 3, 32, 64, 127))
def test_given_from_outside(scene, family, label):
    """A flow that is given a label by someone else, which takes room that only the rules ask for."""
    front, packet = FRONT[family], p.udp(**ACROSS[family])
    for rule in (f"--label {label}", f"! --label {label}", f"--label {label ^ 1}", f"! --label {label ^ 32}"):
        scene.run(f"{front} -A FORWARD -m connlabel {rule}", 0)
    scene.send(packet)
    assert met(scene, front) == [0, 1, 0, 1]
    assert set(scene.both.each(lambda _: give(family, *ACROSS[family].values(), label))) == {0}
    scene.send(packet)
    assert met(scene, front) == [1, 1, 0, 2]
    scene.send(p.udp(sport=1001, **ACROSS[family]))
    assert met(scene, front) == [1, 2, 0, 3]


@pytest.mark.parametrize("family", FRONT)
@pytest.mark.parametrize("rule", ("--label 5", "! --label 5"))
def test_room(scene, family, rule):
    """One rule that only asks is enough for labels to be given, and none is given by it."""
    front = FRONT[family]
    scene.run(f"{front} -A FORWARD -m connlabel {rule} -j ACCEPT", 0)
    scene.send(p.udp(**ACROSS[family]))
    assert labelled(scene, "5") == []
    assert set(scene.both.each(lambda _: give(family, *ACROSS[family].values(), 3))) == {0}
    scene.send(p.udp(**ACROSS[family]))
    assert labelled(scene, "web") == [True]
    scene.run(f"{front} -F FORWARD", 0)
    scene.run(f"{front} -A FORWARD -m conntrack --ctstate NEW", 0)
    scene.forget()
    scene.send(p.udp(**ACROSS[family]))
    assert 0 not in scene.both.each(lambda _: give(family, *ACROSS[family].values(), 3))


@pytest.mark.parametrize("family", FRONT)
def test_set(scene, family):
    """A label that one rule gives is there for the next; what is asked inverted gives it and does not match."""
    front, packet = FRONT[family], p.udp(**ACROSS[family])
    for rule in ("--label web", "-p tcp -m connlabel --label 7 --set", "--label web --set", "--label web", "! --label web", "! --label last --set", "--label last", "--label 7", "! --label 8 -m connlabel --label 8 --set -j ACCEPT", "--label 8 -j DROP"):
        scene.run(f"{front} -A FORWARD {rule if rule.startswith('-p') else '-m connlabel ' + rule}", 0)
    assert [each.where for each in scene.send(packet)] == ["right"]
    assert met(scene, front) == [0, 0, 1, 1, 0, 0, 1, 0, 1, 0]
    assert [each.where for each in scene.send(packet)] == []
    assert met(scene, front) == [1, 0, 2, 2, 0, 0, 2, 0, 1, 1]
    assert labelled(scene, "web") == labelled(scene, "last") == [True]


@pytest.mark.parametrize("family", FRONT)
def test_set_before_several_ways(scene, family):
    """A rule that becomes several of nf_tables gives the label once, or is refused where the order would show."""
    front, to = FRONT[family], ACROSS[family]
    scene.run(f"{front} -A FORWARD -p udp -m connlabel --label 5 --set -m multiport --ports 9,2000", 0)
    scene.run(f"{front} -A FORWARD -p udp -m connlabel ! --label 6 -m multiport --ports 9,2000 -m connlabel --label 6 --set", 0)
    for sport in (9, 1000, 1000):
        scene.send(p.udp(sport=sport, **to))
    assert met(scene, front) == [3, 2]
    once = f"{front} -A FORWARD -p udp -m connlabel ! --label 7 -m connlabel --label 7 --set -m multiport --ports 9,2000"
    assert not scene.both.offer(shlex.split(once))


@pytest.mark.parametrize("family", FRONT)
def test_without_an_entry(scene, family):
    """An untracked packet has no label and can be given none."""
    front = FRONT[family]
    scene.run(f"{front} -t raw -A PREROUTING -j CT --notrack", 0)
    for rule in ("--label 1", "! --label 1", "--label 1 --set", "! --label 1 --set", "--label 1"):
        scene.run(f"{front} -A FORWARD -m connlabel {rule}", 0)
    for rule in ("--label 1", "! --label 1"):
        scene.run(f"{front} -t raw -A PREROUTING -m connlabel {rule}", 0)
    scene.send(p.udp(**ACROSS[family]))
    assert met(scene, front) == [0, 1, 0, 1, 0]
    assert met(scene, front, "raw", "PREROUTING") == [1, 0, 1]


@pytest.mark.parametrize("family", FRONT)
def test_flows_from_before(scene, family):
    """A connection that began before the first such rule has no room: nothing can be set, as with the original."""
    front, packet = FRONT[family], p.udp(**ACROSS[family])
    scene.run(f"{front} -A FORWARD -m conntrack --ctstate NEW", 0)
    scene.send(packet)
    for rule in ("--label 1 --set", "! --label 1 --set", "--label 1", "! --label 1"):
        scene.run(f"{front} -A FORWARD -m connlabel {rule}", 0)
    scene.send(packet)
    assert met(scene, front)[1:] == [0, 1, 0, 1]
