"""Rules that are looked up by their destination (`optimize = true`): to whoever asks, and to every packet, they are what
the original's are."""

import ipaddress
import random
import re
import socket

import pytest

import harness

NETS = {"iptables": "10.7.{}.{}", "ip6tables": "fd07::{}:{}"}
WHOLE = {"iptables": 32, "ip6tables": 128}
FAMILIES = {"iptables": socket.AF_INET, "ip6tables": socket.AF_INET6}
PORTS = (7, 80, 81)


def address(front, number):
    return NETS[front].format(number // 200, number % 200 + 1)


def drop(front, number, more="! -i docker0"):
    return f"-d {address(front, number)} {more} -j DROP"


def many(front, numbers, **more):
    return "*raw\n" + "".join(f"-A PREROUTING {drop(front, number, **more)}\n" for number in numbers) + "COMMIT\n"


def run_of(place, front):
    """What the kernel has instead of the rules: look-ups in chains, chains of addresses."""
    family = "ip" if front == "iptables" else "ip6"
    listed = place.sh(f"nft list table {family} xtshim-raw", check=False)
    return len(re.findall(r"daddr vmap @xtshim-run-\d+$", listed, re.M)), len(re.findall(r"chain xtshim-rules-of-one-address-", listed))


def loads_again(place):
    saved = place.sh("nft list ruleset")
    with place.entered():
        answer = harness.execute(["nft", "-c", "-f", "-"], stdin=saved.encode())
    assert answer.rc == 0, answer.text()


@pytest.fixture
def optimizing(shim, optimized):
    """Ours over a variant; raw is carried and optimized."""
    return lambda variant: optimized(shim(variant))


@pytest.fixture
def pair(variant, original, optimizing, beside):
    """An original, and ours beside it."""
    both = beside(original(variant), optimizing(variant))
    both.policies_count = False  # iptables-legacy begins again with each change
    for _, place in both.places:
        place.ip("addr add 10.7.0.0/16 dev lo", "addr add fd07::/64 dev lo nodad")
        place.ip("route add local fd07::/64 dev lo table local")
    return both


@pytest.fixture(params=tuple(NETS))
def front(request):
    return request.param


def send(both, front, numbers):
    def each(_):
        with socket.socket(FAMILIES[front], socket.SOCK_DGRAM) as sender:
            for number in numbers:
                for port in PORTS:
                    sender.sendto(b"x" * (number % 7), (address(front, number), port))

    both.each(each)


def test_the_kernel_looks_up_what_is_listed_as_before(pair, front):
    _, ours = pair.places[-1]
    for number in range(31):
        pair.run(f"{front} -t raw -A PREROUTING {drop(front, number)}", 0)
    assert run_of(ours, front) == (0, 0)
    send(pair, front, range(40))
    pair.state(counters=True)
    pair.run(f"{front} -t raw -A PREROUTING {drop(front, 31)}", 0)
    assert run_of(ours, front) == (1, 32)
    pair.state(counters=True)
    send(pair, front, range(40))
    pair.state(counters=True)
    loads_again(ours)
    for options in ("-S", "-S PREROUTING 20", "-vnL", "-nL --line-numbers", "-S PREROUTING", "-vS"):
        pair.run(f"{front} -t raw {options}", 0)
    pair.run(f"{front} -t raw -C PREROUTING {drop(front, 31)}", 0)
    pair.run(f"{front} -t raw -C PREROUTING {drop(front, 32)}", 1)
    for number in (3, 31, 0):
        pair.run(f"{front} -t raw -D PREROUTING {drop(front, number)}", 0)
        pair.state(counters=True)
    assert run_of(ours, front) == (1, 29)
    pair.run(f"{front} -t raw -F", 0)
    assert run_of(ours, front) == (0, 0)
    assert "map" not in ours.sh("nft list ruleset")
    pair.state()


def test_order_within_an_address_is_kept(pair, front):
    """Of several rules for one address the first decides; one that comes first later does so from then on."""
    pair.run(f"{front}-restore", 0, stdin=many(front, range(40)).encode())
    pair.run(f"{front} -t raw -A PREROUTING -d {address(front, 5)} -j ACCEPT", 0)
    send(pair, front, range(8))
    pair.run(f"{front} -t raw -I PREROUTING -d {address(front, 5)} -j ACCEPT", 0)
    send(pair, front, range(8))
    pair.run(f"{front} -t raw -I PREROUTING 4 -d {address(front, 7)} -p udp --dport 80 -j ACCEPT", 0)
    pair.run(f"{front} -t raw -I PREROUTING 20 -d {address(front, 7)} -p udp --dport 81 -j ACCEPT", 0)
    send(pair, front, range(8))
    assert run_of(pair.places[-1][1], front) == (1, 40)
    pair.state(counters=True)
    pair.run(f"{front} -t raw -Z PREROUTING 6", 0)
    pair.state(counters=True)
    pair.run(f"{front} -t raw -Z", 0)
    pair.state(counters=True)


def test_a_rule_between_is_asked_in_its_turn(pair, front):
    """A rule of another shape parts the run: what stands before it is decided before, what stands behind it is not."""
    pair.run(f"{front}-restore", 0, stdin=many(front, range(80)).encode())
    _, ours = pair.places[-1]
    assert run_of(ours, front) == (1, 80)
    pair.run(f"{front} -t raw -I PREROUTING 41 -p udp --dport 80 -j ACCEPT", 0)
    assert run_of(ours, front) == (2, 80)
    send(pair, front, range(0, 80, 3))
    pair.state(counters=True)
    pair.run(f"{front} -t raw -I PREROUTING 11 -p udp --dport 7 -j ACCEPT", 0)
    send(pair, front, range(0, 80, 3))
    pair.state(counters=True)
    loads_again(ours)
    pair.run(f"{front} -t raw -D PREROUTING 11", 0)
    pair.run(f"{front} -t raw -D PREROUTING -p udp --dport 80 -j ACCEPT", 0)
    send(pair, front, range(0, 80, 3))
    pair.state(counters=True)


@pytest.mark.parametrize("seed", range(2))
def test_anything_at_any_place(pair, front, seed):
    """Random changes, with packets between them."""
    dice = random.Random(seed)
    shapes = ["! -i docker0 -j DROP", "-i lo -j ACCEPT", "-j DROP", "-p udp -m udp --dport 80 -j ACCEPT", "! -i lo -p udp -m udp --dport 7:80 -j DROP"]
    others = ["-p udp --dport 81 -j ACCEPT", "-s fd07::/64 -j RETURN" if front == "ip6tables" else "-s 10.7.1.0/24 -j RETURN", "-p udp -j mine"]

    def rule():
        if dice.random() < 0.08:
            return dice.choice(others)
        return f"-d {address(front, dice.randrange(60))}/{WHOLE[front]} {dice.choice(shapes)}"

    pair.run(f"{front} -t raw -N mine", 0)
    pair.run(f"{front} -t raw -A mine -d {address(front, 3)} -j DROP", 0)
    lines = ["-N mine"]
    for _ in range(45):
        pair.run(f"{front} -t raw -A PREROUTING {(line := rule())}", 0)
        lines.append(line)
    rules = lines[1:]
    for step in range(60):
        what = dice.choice("AAAIIIIDDDRnZ")
        at = dice.randrange(len(rules)) + 1 if rules else 1
        if what == "A":
            pair.run(f"{front} -t raw -A PREROUTING {(line := rule())}", 0)
            rules.append(line)
        elif what == "I":
            pair.run(f"{front} -t raw -I PREROUTING {at} {(line := rule())}", 0)
            rules.insert(at - 1, line)
        elif what == "D" and rules:
            line = dice.choice(rules)
            pair.run(f"{front} -t raw -D PREROUTING {line}", 0)
            rules.remove(line)
        elif what == "R" and rules:
            pair.run(f"{front} -t raw -R PREROUTING {at} {(line := rule())}", 0)
            rules[at - 1] = line
        elif what == "n":
            file = "*raw\n" + "".join(f"-{dice.choice('AI')} PREROUTING {rule()}\n" for _ in range(dice.choice((1, 40)))) + "COMMIT\n"
            pair.run(f"{front}-restore -n", 0, stdin=file.encode())
            listed = pair.run(f"{front} -t raw -S PREROUTING", 0).out.decode().splitlines()
            rules = [line.removeprefix("-A PREROUTING ") for line in listed if line.startswith("-A")]
        elif what == "Z":
            pair.run(f"{front} -t raw -Z PREROUTING {at}")
        if step % 6 == 0:
            send(pair, front, [dice.randrange(60) for _ in range(12)])
            pair.state(counters=True)
            loads_again(pair.places[-1][1])
    pair.state(counters=True)
    saved = pair.run(f"{front}-save -c -t raw", 0).out
    pair.run(f"{front}-restore -c", 0, stdin=saved)
    # ip6tables-nft-restore of 1.8.9 begins at zero all the same.
    pair.state(counters=(front, pair.subject.variant) != ("ip6tables", "nft"))
    loads_again(pair.places[-1][1])


def test_what_was_made_so_is_understood_without_the_word(variant, original, shim, optimizing, beside):
    """The configuration is changed back; the rules are still there, and are changed."""
    first = beside(original(variant), optimizing(variant))
    first.run("iptables-restore", 0, stdin=many("iptables", range(40)).encode())
    both = beside(original(variant), shim(variant))
    both.places = [(subject, place) for (subject, _), (_, place) in zip(both.places, first.places)]
    both.state()
    for command in ("-A PREROUTING " + drop("iptables", 90), "-D PREROUTING " + drop("iptables", 7), "-I PREROUTING 9 " + drop("iptables", 91)):
        both.run(f"iptables -t raw {command}", 0)
        both.state()
    assert run_of(both.places[-1][1], "iptables") == (1, 40)
    both.run("iptables -t raw -S", 0)
    both.run("iptables-restore", 0, stdin=many("iptables", range(50)).encode())
    both.state()
    assert run_of(both.places[-1][1], "iptables") == (0, 0)
    both.places = []


def test_what_is_left_of_a_run_is_no_rule(pair, front):
    """Chains without rules, as a change that was killed half way leaves them: nothing is said of them, they are used again,
    and the next change takes them away."""
    _, ours = pair.places[-1]
    family = "ip" if front == "iptables" else "ip6"
    pair.run(f"{front}-restore", 0, stdin=many(front, range(40)).encode())
    emptied = [f"xtshim-rules-of-one-address-1-{ipaddress.ip_address(address(front, number))}".replace(":", "_") for number in range(40)]
    for number in (5, 4):
        pair.call(*pair.places[0], [front, "-t", "raw", "-D", "PREROUTING", str(number + 1)])
        ours.sh(f"nft flush chain {family} xtshim-raw {emptied[number]}")
    pair.state(counters=True)
    pair.run(f"{front} -t raw -C PREROUTING {drop(front, 4)}", 1)
    pair.run(f"{front} -t raw -I PREROUTING 9 {drop(front, 5)}", 0)
    send(pair, front, range(8))
    pair.state(counters=True)
    assert run_of(ours, front) == (1, 39)
    # The way into the run is gone, and so are its rules.
    for chain in ("PREROUTING", *emptied[:4], *emptied[5:]):
        ours.sh(f"nft flush chain {family} xtshim-raw {chain}")
    pair.call(*pair.places[0], [front, "-t", "raw", "-F"])
    pair.state()
    assert run_of(ours, front) == (0, 39)
    pair.run(f"{front} -t raw -A PREROUTING {drop(front, 7)}", 0)
    assert run_of(ours, front) == (0, 0) and "map" not in ours.sh("nft list ruleset")
    pair.state()


@pytest.mark.parametrize("harm", ("delete element ip xtshim-raw xtshim-run-1 {{ {address} }}", "delete rule ip xtshim-raw PREROUTING handle {handle}", "add chain ip xtshim-raw xtshim-rules-of-one-address-1-10.9.9.9", "flush ruleset"))
def test_what_is_not_in_force_is_not_said_to_be(variant, optimizing, beside, harm):
    """Whoever takes a way into the rules away gets no answer that says they are there."""
    alone = beside(optimizing(variant))
    _, place = alone.places[-1]
    alone.run("iptables-restore", 0, stdin=many("iptables", range(40)).encode())
    alone.run(f"iptables -t raw -C PREROUTING {drop('iptables', 4)}", 0)
    listed = place.sh("nft -a list chain ip xtshim-raw PREROUTING")
    handle = re.search(r"vmap .*# handle (\d+)", listed)[1]
    place.sh("nft " + harm.format(address=address("iptables", 4), handle=handle))
    for command in (f"-C PREROUTING {drop('iptables', 4)}", "-S", f"-A PREROUTING {drop('iptables', 99)}"):
        answer = alone.run(f"iptables -t raw {command}")
        if harm == "flush ruleset":
            assert answer.rc == (1 if command.startswith("-C") else 0) and b"10.7.0.5/32" not in answer.out
        else:
            assert answer.rc == 4 and b"is incompatible, use 'nft' tool" in answer.err, answer.text()
