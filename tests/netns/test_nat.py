"""Table nat: the words of its targets, and what packets come out as."""

import contextlib
import shlex
import socket
import struct

import pytest

import packets as p

PORTS = ("5", "5-7", "7-7", "0", "http", " 5", "0x10", "010-020", "1-65535")
WRONG_PORTS = ("7-5", "70000", "5:6", "5-x", "", "5-65536", "5-7x", "5-7:9", "5-7-9", "5-http", "5x", "5/6", "http-5", "5-", "-5", "5--7", "7-5/1", "5-7/x", "http x", "70000-5", ":", "5-6:")
SHIFTED = ("5-7/6", "5-7/http", "5-7/6x", "80-90/100")
# target -> its chain of table nat, rules that it is taken in. `{a}` to `{d}` are addresses, `{net}` a network.
TAKEN = {
    "MASQUERADE": ("POSTROUTING", ("", "--random", "--random-fully", "--random --random-fully", *(f"-p tcp --to-ports {shlex.quote(ports)}" for ports in PORTS), "-p sctp --to-port 5 --random", "-p dccp --to-ports 5", "-p icmp --to-ports 5", "-p udp --dport 53 --to-ports 1000-2000 --random-fully", "-o eth0", "! -p udp")),
    "SNAT": ("POSTROUTING", (
        "--to-source {a}", "--to-source {a}-{b} --random --persistent", "--to {a}-{a}", "--to-source {a} --random-fully", "--persistent --random-fully --random --to-source {a}-{b}", *(f"-p udp --to-source :{shlex.quote(ports)}" for ports in PORTS), "-p tcp -m tcp --sport 5 --to-source :6", "! -p tcp --to-source {a}",
    )),
    "DNAT": ("PREROUTING", ("--to-destination {a}", "--to-destination {a}-{b} --random --persistent", "--to-dest {a} --rand", *(f"-p tcp --to-destination :{shlex.quote(ports)}" for ports in PORTS), "-p tcp -m multiport --dports 80,443 --to-destination {a}", "-i eth0 -m addrtype --dst-type LOCAL --to-destination {a}")),
    "REDIRECT": ("PREROUTING", ("", "--random", *(f"-p tcp --to-ports {shlex.quote(ports)}" for ports in PORTS), "-p tcp --to-port 1", "-p udp --to 1 --random", "-p tcp --dport 80 --to-ports 8080")),
    "NETMAP": ("PREROUTING", ("--to {net}", "--to {a}", "--to {a}/24", "--to {a}/0", "--to {any}")),
}
TAKEN4 = {
    "SNAT": tuple(f"-p tcp --to-source {to}" for to in ("{a}:80", "{a}:80-90", "{a}-{b}:80-90", "{a}-{a}:80", "{a}:http")),
    "DNAT": tuple(f"-p tcp --to-destination {to}" for to in ("{a}:80", "{a}:80-90", "{a}-{b}:80-90", "{a}:http")) + ("-p icmp --to-destination {a}:5", "-p 6 --to-destination {a}:80"),
    "NETMAP": ("--to 1.2.3.4/255.0.255.0", "--to 1.2.3.4/255.255.255.0", "--to 1.2.3.4/33", "--to 1.2.3.4/256", "--to 1.2.3/24", "--to localhost"),
}
TAKEN6 = {
    "SNAT": ("--to-source [{a}]", "--to-source [{a}-{b}]", "--to-source ::ffff:1.2.3.4", "--to-source 2001:db8:0:0:0:0:0:1", *(f"-p tcp --to-source {to}" for to in ("[{a}]:80", "[{a}-{b}]:80-90 --random", "[]:80-90", "[::]:80", "2001::1:80", "[{a}]80", "x[{a}]:80"))),
    "DNAT": tuple(f"-p tcp --to-destination {to}" for to in ("[{a}]:80", "[{a}-{b}]:80-90", "[{a}]")),
    "NETMAP": ("--to 2001::5/ffff::ffff", "--to 2001::5/64"),
}
# What iptables says no to by itself, or the kernel does.
REFUSED = (
    *(f"POSTROUTING -p tcp -j MASQUERADE --to-ports {shlex.quote(ports)}" for ports in WRONG_PORTS), *(f"PREROUTING -p tcp -j REDIRECT --to-ports {shlex.quote(ports)}" for ports in WRONG_PORTS + SHIFTED),
    *(f"POSTROUTING -p tcp -j SNAT --to-source {shlex.quote('1.2.3.4:' + ports)}" for ports in WRONG_PORTS), *(f"PREROUTING -p tcp -j DNAT --to-destination {shlex.quote('[2001::1]:' + ports)}" for ports in WRONG_PORTS), *(f"PREROUTING -p tcp -j DNAT --to-destination {shlex.quote(':' + ports)}" for ports in WRONG_PORTS),
    "POSTROUTING -j MASQUERADE --to-ports 5", "POSTROUTING -p udplite -j MASQUERADE --to-ports 5", "POSTROUTING -p gre -j MASQUERADE --to-ports 5", "POSTROUTING -p icmpv6 -j MASQUERADE --to-ports 5", "POSTROUTING -j MASQUERADE --to-ports 5 -p tcp", "POSTROUTING -p tcp -j MASQUERADE --to-ports 1 --to-ports 2",
    "POSTROUTING -j MASQUERADE --random --random", "POSTROUTING -j MASQUERADE ! --random", "POSTROUTING -j MASQUERADE --persistent", "POSTROUTING -j SNAT", "POSTROUTING -j SNAT --random", "POSTROUTING -j SNAT --to-source {a}:80", "POSTROUTING -j SNAT --to-source [{a}]:80", "POSTROUTING -j SNAT --to-source :80",
    "POSTROUTING -p tcp -j SNAT --to-source {a}", "POSTROUTING -p tcp -j SNAT ! --to-source {a}", "POSTROUTING -p tcp -j SNAT --to-source {a} --to-source {b}", "POSTROUTING -j SNAT --to-source {a}/24", "POSTROUTING -p tcp -j SNAT --to-source localhost", "POSTROUTING -p tcp -j SNAT --to-source ''", "POSTROUTING -p tcp -j SNAT --to-source {a}-",
    "POSTROUTING -j SNAT --to-source 1.2.3", "POSTROUTING -j SNAT --to-source 01.2.3.4", "POSTROUTING -j SNAT --to-source ' 1.2.3.4'", "POSTROUTING -j SNAT --to-source 1.2.3.4-1.2.3.5-1.2.3.6", "POSTROUTING -j SNAT --to-source -1.2.3.4", "POSTROUTING -j SNAT --to-source -:80", "POSTROUTING -p tcp -j SNAT --to-source -:80",
    "POSTROUTING -p tcp -j SNAT --to-source [1.2.3.4]:80", "POSTROUTING -p tcp -j SNAT --to-source 1.2.3.4]:80", "POSTROUTING -p tcp -j SNAT --to-source 256.2.3.4:80", "POSTROUTING -p tcp -j SNAT --to-source 1.2.3.4::80", "POSTROUTING -p tcp -j SNAT --to-source ::80", "POSTROUTING -p tcp -j SNAT --to-source :80:90",
    "POSTROUTING -p tcp -j SNAT --to-source [2001::1]-[2001::9]:80", "POSTROUTING -p tcp -j SNAT --to-source [2001::1", "POSTROUTING -p tcp -j SNAT --to-source 2001::1]", "POSTROUTING -p tcp -j SNAT --to-source x", "POSTROUTING -p tcp -j SNAT --to-source 2001:80", "POSTROUTING -p tcp -j SNAT --to-source [2001::1]:80:90",
    "PREROUTING -j DNAT", "PREROUTING -j DNAT --to-destination {a} --random-fully", "PREROUTING -p tcp -j DNAT --to-destination {a}:80/85", "PREROUTING -j REDIRECT --to-ports 80", "PREROUTING -j REDIRECT --persistent", "PREROUTING -j REDIRECT --random-fully", "PREROUTING -j NETMAP", "PREROUTING -j NETMAP --to x.invalid", "PREROUTING -j NETMAP --to ''",
    "PREROUTING -j NETMAP --to /24", "PREROUTING -j NETMAP --to {a}/x", "PREROUTING -j NETMAP --to {a}/", "PREROUTING -j NETMAP --to 2001::5/129", "PREROUTING -j NETMAP ! --to {a}", "PREROUTING -j NETMAP --to {a} --random",
    "PREROUTING -j DROP", "mine -j DROP",
)
# Where each target may stand: all others are refused.
TARGETS = ("MASQUERADE", "SNAT --to-source {a}", "DNAT --to-destination {a}", "REDIRECT", "NETMAP --to {net}")
PLACES = ("nat PREROUTING", "nat INPUT", "nat OUTPUT", "nat POSTROUTING", "nat mine", "filter INPUT", "filter FORWARD", "filter mine", "mangle PREROUTING", "mangle POSTROUTING", "mangle mine", "raw PREROUTING", "raw mine", "security OUTPUT")
# Ours may refuse these, the original takes them.
NO_FORM = (
    "POSTROUTING -p tcp -j SNAT --to-source :5-7/6", "POSTROUTING -p tcp -j MASQUERADE --to-ports 5-7/6", "PREROUTING -p tcp -j DNAT --to-destination :80-90/85", "POSTROUTING -j SNAT --to-source {b}-{a}", "PREROUTING -j DNAT --to-destination {b}-{a}", "POSTROUTING ! -p tcp -j MASQUERADE --to-ports 5", "PREROUTING ! -p udp -j REDIRECT --to-ports 5",
    "mine -j NETMAP --to {net}",
)
ADDRESSES = {
    "iptables": {"a": "192.0.2.1", "b": "192.0.2.9", "net": "198.51.100.0/24", "any": "0.0.0.0/0"},
    "ip6tables": {"a": "2001:db8::1", "b": "2001:db8::9", "net": "2001:db8:5::/64", "any": "::/0"},
}
FRONTS = tuple(ADDRESSES)


def filled(front, rule):
    for name, address in ADDRESSES[front].items():
        rule = rule.replace("{" + name + "}", address)
    return shlex.split(rule)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("target", TAKEN)
def test_rules_are_told_as_they_were_given(carried, front, target):
    chain, rules = TAKEN[target]
    more = (TAKEN4 if front == "iptables" else TAKEN6).get(target, ())
    given = []
    for rule in (*rules, *more):
        words = filled(front, rule)
        # Everything up to the first option of the target's own stands before it.
        own = next((at for at, word in enumerate(words) if word.startswith(("--to", "--random", "--rand", "--persistent"))), len(words))
        given.append([*words[:own], "-j", target, *words[own:]])
    for words in given:
        carried.run([front, "-t", "nat", "-A", chain, *words], 0)
        carried.run([front, "-t", "nat", "-C", chain, *words], 0)
    for command in ("-S", "-vS", "-nvxL", "-L --line-numbers"):
        carried.run(f"{front} -t nat {command}", 0)
    carried.state(counters=True)
    saved = carried.run(f"{front}-save -t nat", 0)
    carried.run(f"{front}-restore", 0, stdin=saved.out)
    carried.run(f"{front} -t nat -S", 0)
    for words in given:
        carried.run([front, "-t", "nat", "-D", chain, *words], 0)
    carried.run(f"{front} -t nat -S", 0)


@pytest.mark.parametrize("front", FRONTS)
def test_refusals(carried, front):
    carried.run(f"{front} -t nat -N mine", 0)
    for rule in REFUSED:
        words = filled(front, rule)
        if carried.run([front, "-t", "nat", "-A", *words]).rc == 0:
            carried.run([front, "-t", "nat", "-D", *words], 0)
    for policy in ("OUTPUT DROP", "mine DROP", "missing DROP", "OUTPUT drop", "OUTPUT REJECT"):
        carried.run(f"{front} -t nat -P {policy}")
    carried.run(f"{front} -t nat -S", 0)


@pytest.mark.parametrize("front", FRONTS)
def test_where_targets_may_stand(carried, front):
    for table in ("nat", "filter", "mangle", "raw"):
        carried.run(f"{front} -t {table} -N mine", 0)
    for place in PLACES:
        for target in TARGETS:
            if target.startswith("NETMAP") and place == "nat mine":
                continue
            table, chain = place.split()
            carried.run([front, "-t", table, "-A", chain, "-j", *filled(front, target)])
    carried.state()


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("target, hooks", [("MASQUERADE", "POSTROUTING"), ("SNAT --to-source {a}", "INPUT POSTROUTING"), ("DNAT --to-destination {a}", "PREROUTING OUTPUT"), ("REDIRECT", "PREROUTING OUTPUT")])
def test_chains_of_ones_own_are_called_from_where_the_target_may_stand(carried, front, target, hooks):
    carried.run(f"{front} -t nat -N mine", 0)
    carried.run(f"{front} -t nat -N outer", 0)
    carried.run([front, "-t", "nat", "-A", "mine", "-p", "tcp", "-j", *filled(front, target)], 0)
    carried.run(f"{front} -t nat -A outer -j mine", 0)
    for hook in ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"):
        answer = carried.run(f"{front} -t nat -A {hook} -j outer")
        assert (answer.rc == 0) == (hook in hooks.split())
    carried.run(f"{front} -t nat -S", 0)
    # The same the other way round: called first, filled later.
    carried.run(f"{front} -t nat -F", 0)
    carried.run(f"{front} -t nat -A outer -j mine", 0)
    for hook in ("PREROUTING", "POSTROUTING"):
        carried.run(f"{front} -t nat -A {hook} -j outer", 0)
    carried.run([front, "-t", "nat", "-A", "mine", "-j", *filled(front, target)])
    carried.run(f"{front} -t nat -S", 0)
    carried.state()


@pytest.mark.parametrize("front", FRONTS)
def test_what_has_no_form_is_refused_whole(carried, front):
    (original, there), (ours, here) = carried.places
    carried.run(f"{front} -t nat -N mine", 0)
    for rule in NO_FORM:
        words = [front, "-t", "nat", "-A", *filled(front, rule)]
        assert carried.call(original, there, words).rc == 0, rule
        answer = carried.call(ours, here, words)
        assert answer.rc != 0 and answer.err, rule
    assert carried.call(ours, here, [front, "-t", "nat", "-S"]).out.count(b"-A") == 0


# --- packets --------------------------------------------------------------------------------------------------------

class Side:
    """Addresses of one family: of the left neighbour, of the host towards it and towards the right, of the right one."""

    def __init__(self, front):
        four = front == "iptables"
        self.front, self.six = front, not four
        self.left, self.near, self.far, self.right = (p.PEER4, p.OURS4, p.INNER4, p.BEYOND4) if four else (p.PEER6, p.OURS6, p.INNER6, p.BEYOND6)
        net = "10.8.0." if four else "fd08::"
        self.others = [f"{net}{number}" for number in range(20, 30)]

    def across(self, **more):
        return {"source": self.left, "target": self.right, **more}

    def here(self, **more):
        return {"source": self.left, "target": self.near, **more}

    def ends(self, seen):
        """Source and destination with ports of each packet seen, and where."""
        found = []
        for each in seen:
            packet = each.packet
            if each.where == "host" and self.six:  # delivered without its header
                found.append(("host", None, *struct.unpack("!H", packet[:2]), None, *struct.unpack("!H", packet[2:4])))
                continue
            at = 40 if self.six else 20
            family, first, last = (socket.AF_INET6, 8, 16) if self.six else (socket.AF_INET, 12, 4)
            text = [socket.inet_ntop(family, packet[first + last * number : first + last * (number + 1)]) for number in (0, 1)]
            found.append((each.where, text[0], struct.unpack("!H", packet[at : at + 2])[0], text[1], struct.unpack("!H", packet[at + 2 : at + 4])[0]))
        return found

    def dressed(self, address, port=None):
        """An address, and a port behind it, as the options take them."""
        if port is None:
            return address
        return f"[{address}]:{port}" if self.six else f"{address}:{port}"


@pytest.fixture(params=FRONTS)
def side(request, scene):
    """The family's addresses; the right neighbour answers for more than one."""
    made = Side(request.param)
    for host in scene.hosts:
        for address in made.others:
            host.place.sh(f"ip {'-6' if made.six else '-4'} neigh add {address} lladdr {p.BEYOND_MAC} dev eth1 nud permanent")
    return made


def test_masquerade(scene, side):
    scene.meets(side.front, "nat", "POSTROUTING", "-o eth1 -p udp -j MASQUERADE", match=[p.udp(**side.across())], other=[p.tcp(**side.across()), p.udp(**side.here())])
    scene.run(f"{side.front} -t nat -A POSTROUTING -o eth1 -p tcp -j MASQUERADE --to-ports 5000", 0)
    scene.run(f"{side.front} -t nat -A POSTROUTING -o eth1 -j MASQUERADE", 0)
    assert side.ends(scene.send(p.udp(sport=1234, dport=53, **side.across()))) == [("right", side.far, 1234, side.right, 53)]
    # The answer finds its way back, and so do an error about it and the flow's next packet.
    answer = p.udp(sport=53, dport=1234, source=side.right, target=side.far)
    assert side.ends(scene.send(answer, at="right")) == [("left", side.right, 53, side.left, 1234)]
    assert side.ends(scene.send(p.udp(sport=1234, dport=53, payload=b"again", **side.across()))) == [("right", side.far, 1234, side.right, 53)]
    sent = p.udp(sport=1234, dport=53, source=side.far, target=side.right)
    error = p.error(1 if side.six else 3, 4 if side.six else 3, sent, source=side.right, target=side.far)
    seen = scene.send(error, at="right")
    assert [each.where for each in seen] == ["left"]
    assert socket.inet_pton(socket.AF_INET6 if side.six else socket.AF_INET, side.left) in seen[0].packet[48 if side.six else 28 :], "the inner header"
    assert side.ends(scene.send(p.tcp(sport=1234, dport=80, **side.across()))) == [("right", side.far, 5000, side.right, 80)]
    # One that comes in, no new flow of ours, stays as it is.
    assert side.ends(scene.send(p.udp(sport=7, dport=9, source=side.right, target=side.far), at="right"))[0][0] == "host"
    scene.entries()
    scene.run(f"{side.front} -t nat -vS", 0)


@pytest.mark.parametrize("options", ("--to-ports 5000-5010 --random", "--to-ports 5000-5010 --random-fully", "--to-ports 5000-5010", "--random", "--random-fully"))
def test_ports_by_chance(scene, side, options):
    """Which port it will be is not to be known; that one of the range is taken is, and that a port within it is kept."""
    scene.run(f"{side.front} -t nat -A POSTROUTING -o eth1 -p udp -j MASQUERADE {options}", 0)
    for host in scene.hosts:
        taken = {side.ends(host.send(p.udp(sport=sport, dport=53, **side.across()), "left", 0))[0][2] for sport in range(2000, 2008)}
        if "--to-ports" in options:
            assert all(5000 <= port <= 5010 for port in taken), options
        else:
            assert taken.isdisjoint(range(2000, 2008)), options
        kept = side.ends(host.send(p.udp(sport=5003, dport=54, **side.across()), "left", 0))[0][2]
        assert "--random" in options or kept == 5003


def test_snat(scene, side):
    to = side.others
    scene.meets(side.front, "nat", "POSTROUTING", f"-o eth1 -p udp --dport 53 -j SNAT --to-source {to[0]}", match=[p.udp(dport=53, **side.across())], other=[p.udp(dport=54, **side.across())])
    scene.forget()
    scene.run(f"{side.front} -t nat -A POSTROUTING -o eth1 -p tcp -j SNAT --to-source {side.dressed(to[1], 7)}", 0)
    scene.run(f"{side.front} -t nat -A POSTROUTING -o eth1 -p udp --dport 54 -j SNAT --to-source :8", 0)
    scene.run(f"{side.front} -t nat -A POSTROUTING -o eth1 -p udp -j SNAT --to-source {to[2]}", 0)
    assert side.ends(scene.send(p.tcp(**side.across()))) == [("right", to[1], 7, side.right, 2000)]
    assert side.ends(scene.send(p.udp(dport=54, **side.across()))) == [("right", side.left, 8, side.right, 54)]
    assert side.ends(scene.send(p.udp(dport=55, **side.across()))) == [("right", to[2], 1000, side.right, 55)]
    assert side.ends(scene.send(p.icmp(128 if side.six else 8, **side.across())))[0][1] == side.left
    scene.entries()
    scene.run(f"{side.front} -t nat -F", 0)
    scene.run(f"{side.front} -t nat -A INPUT -p udp -j SNAT --to-source {to[3]}", 0)
    scene.forget()
    seen = side.ends(scene.send(p.udp(**side.here())))
    assert seen[0][:3] == ("host", None if side.six else to[3], 1000)
    scene.entries()


@pytest.mark.parametrize("options", ("", "--persistent", "--random --persistent"))
def test_an_address_of_a_range(scene, side, options):
    """Which one it is depends on the addresses of the flow; with --persistent on the client's alone."""
    first, last = side.others[0], side.others[-1]
    scene.run(f"{side.front} -t nat -A POSTROUTING -o eth1 -j SNAT --to-source {first}-{last} {options}", 0)
    chosen = {}
    for source in range(2, 8):
        client = side.left[:-1] + str(source)
        for target in side.others[:4]:
            packet = p.udp(source=client, target=target)
            answers = [[end[1:2] + end[3:] for end in side.ends(host.send(packet, "left", 0))] for host in scene.hosts]
            scene.both.equal(answers, f"{client} to {target}: another address")
            chosen.setdefault(client, set()).add(answers[-1][0][0])
    assert all(address in side.others for found in chosen.values() for address in found)
    assert len(set().union(*chosen.values())) > 1
    if "--persistent" in options:
        assert all(len(found) == 1 for found in chosen.values())


def test_dnat(scene, side):
    to = side.others
    scene.meets(side.front, "nat", "PREROUTING", f"-i eth0 -p udp --dport 53 -j DNAT --to-destination {to[0]}", match=[p.udp(dport=53, **side.here())], other=[p.udp(dport=54, **side.here())])
    scene.forget()
    for rule in (f"-p tcp --dport 8080 -j DNAT --to-destination {side.dressed(to[1], 80)}", f"-p udp --dport 54 -j DNAT --to-destination {side.dressed(to[2], '5000-5010')}", f"-p udp --dport 55 -j DNAT --to-destination :56", f"-p udp --dport 57 -j DNAT --to-destination {to[0]}-{to[9]} --persistent"):
        scene.run(f"{side.front} -t nat -A PREROUTING {rule}", 0)
    assert side.ends(scene.send(p.tcp(dport=8080, **side.here()))) == [("right", side.left, 1000, to[1], 80)]
    answer = p.tcp(sport=80, dport=1000, flags=0x12, source=to[1], target=side.left)
    assert side.ends(scene.send(answer, at="right")) == [("left", side.near, 8080, side.left, 1000)]
    for sport in (1000, 1001, 5005):
        seen = side.ends(scene.send(p.udp(sport=sport, dport=54, **side.here())))
        assert seen[0][0] == "right" and seen[0][3] == to[2] and 5000 <= seen[0][4] <= 5010
    assert side.ends(scene.send(p.udp(dport=55, **side.across()))) == [("right", side.left, 1000, side.right, 56)]
    assert side.ends(scene.send(p.udp(dport=57, **side.here())))[0][3] in to
    assert side.ends(scene.send(p.tcp(dport=81, **side.across()))) == [("right", side.left, 1000, side.right, 81)]
    scene.entries()
    scene.run(f"{side.front} -t nat -vS", 0)


def test_dnat_of_the_hosts_own_packets(scene, side):
    to = side.others
    scene.run(f"{side.front} -t nat -A OUTPUT -p udp --dport 53 -j DNAT --to-destination {side.dressed(to[0], 5353)}", 0)
    assert side.ends(scene.send(p.udp(dport=53, source=side.far, target=side.right), at="host")) == [("right", side.far, 1000, to[0], 5353)]
    answer = p.udp(sport=5353, dport=1000, source=to[0], target=side.far)
    scene.send(answer, at="right")
    assert side.ends(scene.send(p.udp(dport=54, source=side.far, target=side.right), at="host")) == [("right", side.far, 1000, side.right, 54)]
    scene.entries()


def test_redirect_to_a_local_listener(scene, side):
    scene.meets(side.front, "nat", "PREROUTING", "-p udp --dport 53 -j REDIRECT", match=[p.udp(dport=53, **side.across())], other=[p.udp(dport=54, **side.across())])
    scene.run(f"{side.front} -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080", 0)
    scene.run(f"{side.front} -t nat -A PREROUTING -p udp --dport 53 -j REDIRECT --to-ports 5300-5310", 0)
    with contextlib.ExitStack() as stack:
        for host in scene.hosts:
            with host.place.entered():
                stack.enter_context(p.listener(6 if side.six else 4, 8080))
        answers = [[(each.where, each.packet[40 if side.six else 20 :][13]) for each in host.send(p.tcp(sport=4321, dport=80, **side.across()), "left", 0) if each.where == "left"] for host in scene.hosts]
        scene.both.equal(answers, "the listener's answer")
        assert answers[-1] == [("left", 0x12)], "SYN, ACK by the port that was asked for"
        again = side.ends(scene.hosts[-1].send(p.tcp(sport=4321, dport=80, **side.across()), "left", 0))
        assert [end[1:3] for end in again if end[0] == "left"] == [(side.right, 80)]
        scene.hosts[0].send(p.tcp(sport=4321, dport=80, **side.across()), "left", 0)

    def takes(address, packet, at):
        scene.forget()
        for host in scene.hosts:
            with host.place.entered():
                sock = socket.socket(socket.AF_INET6 if side.six else socket.AF_INET, socket.SOCK_DGRAM)
            with sock:
                sock.bind((address, 5300))
                host.send(packet, at, 0)
                assert sock.recv(99, socket.MSG_DONTWAIT) == packet[-10:]

    takes("::" if side.six else "0.0.0.0", p.udp(sport=5555, dport=53, payload=b"redirected", **side.across()), "left")
    # What the host itself sends goes to its loopback address.
    scene.run(f"{side.front} -t nat -A OUTPUT -p udp --dport 99 -j REDIRECT --to-ports 5300", 0)
    takes("::1" if side.six else "127.0.0.1", p.udp(dport=99, payload=b"to oneself", source=side.far, target=side.right), "host")
    scene.run(f"{side.front} -t nat -vS", 0)


def test_netmap(scene, side):
    net, length = (("fd08::", 64), ("10.8.0.", 24))[not side.six]
    base = f"{net}0" if not side.six else net
    mapped = "fd77:0:0:1::" if side.six else "10.77.1."
    for host in scene.hosts:
        host.place.sh(f"ip {'-6' if side.six else '-4'} route add {mapped}{'' if side.six else '0'}/{length} dev eth1")
    scene.meets(side.front, "nat", "PREROUTING", f"-d {mapped}{'' if side.six else '0'}/{length} -p udp -j NETMAP --to {base}/{length}", match=[p.udp(source=side.left, target=f"{mapped}25")], other=[p.udp(**side.across())])
    scene.run(f"{side.front} -t nat -A PREROUTING -d {mapped}{'' if side.six else '0'}/{length} -j NETMAP --to {base}/{length}", 0)
    scene.run(f"{side.front} -t nat -A POSTROUTING -o eth1 -p udp -j NETMAP --to {mapped}{'' if side.six else '0'}/{length}", 0)
    scene.forget()
    inside = f"{net}25"
    own = f"{mapped}2"
    assert side.ends(scene.send(p.udp(source=side.left, target=f"{mapped}25"))) == [("right", own, 1000, inside, 2000)]
    assert side.ends(scene.send(p.udp(sport=2000, dport=1000, source=inside, target=own), at="right")) == [("left", f"{mapped}25", 2000, side.left, 1000)]
    assert side.ends(scene.send(p.tcp(source=side.left, target=f"{mapped}25"))) == [("right", side.left, 1000, inside, 2000)]
    scene.entries()


def test_the_first_rule_that_fits_is_the_last(scene, side):
    """A translation ends the table, as ACCEPT does; what then becomes of the flow does not depend on whose rule it was."""
    to = side.others
    scene.run(f"{side.front} -t nat -N mine", 0)
    for rule in (f"PREROUTING -p udp -j mine", f"PREROUTING -p udp -j DNAT --to-destination {to[1]}", f"mine -p udp --dport 53 -j DNAT --to-destination {to[0]}", "mine -p udp --dport 54 -j ACCEPT", "mine -p udp --dport 55 -j RETURN"):
        scene.run(f"{side.front} -t nat -A {rule}", 0)
    for port, target in ((53, to[0]), (54, side.right), (55, to[1]), (56, to[1])):
        assert side.ends(scene.send(p.udp(dport=port, **side.across())))[0][3] == target
    scene.run(f"{side.front} -t nat -vS", 0)
    scene.run(f"{side.front} -t nat -F", 0)
    for port in (53, 54, 55):
        scene.send(p.udp(dport=port, payload=b"later", **side.across()))
    scene.entries()


@pytest.mark.parametrize("chain", ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"))
def test_a_policy_that_only_a_restore_can_give(scene, side, chain):
    scene.run(f"{side.front}-restore", 0, stdin=f"*nat\n:{chain} DROP [0:0]\n-A {chain} -p tcp -j ACCEPT\nCOMMIT\n".encode())
    for make in (p.udp, p.tcp):
        scene.forget()
        for packet, at in ((make(**side.across()), "left"), (make(**side.here()), "left"), (make(source=side.far, target=side.right), "host")):
            scene.send(packet, at=at)
    scene.run(f"{side.front} -t nat -vS {chain}", 0)
    scene.run(f"{side.front}-restore", 0, stdin=f"*nat\n:{chain} ACCEPT [0:0]\nCOMMIT\n".encode())
    scene.forget()
    assert scene.send(p.udp(**side.across()))[0].where == "right"
