"""Table nat: the words of its targets, and what packets come out as."""

import shlex

import pytest

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
    for table in ("nat",):
        carried.run(f"{front} -t {table} -N mine", 0)
    for rule in NO_FORM:
        words = [front, "-t", "nat", "-A", *filled(front, rule)]
        assert carried.call(original, there, words).rc == 0, rule
        answer = carried.call(ours, here, words)
        assert answer.rc not in (0, 1) or answer.err, rule
        assert answer.rc != 0, rule
    assert carried.call(ours, here, [front, "-t", "nat", "-S"]).out.count(b"-A") == 0
