"""Raw in another table of the real iptables: what is said of it, what the other table's own commands see, and what
becomes of packets, beside an original that has a raw table.

The same packets each time. More of them: XTSHIM_HOSTED_PAIRS=20000; others: XTSHIM_HOSTED_SEED=….
"""

import fcntl
import os
import random
import re
import shlex
import struct
import subprocess
import threading
import time

import pytest

import harness
import packets as p
import scene as scenes
import test_corpus as corpus

HOSTS = ("mangle", "filter")
FRONT = {4: "iptables", 6: "ip6tables"}
PAIRS = int(os.environ.get("XTSHIM_HOSTED_PAIRS", "2000"))
SEED = os.environ.get("XTSHIM_HOSTED_SEED", "20261121")
EXCHANGES = 40  # for each rule set
# Where the host's own table is asked about, our jumps standing in it.
CHAIN = {"mangle": "PREROUTING", "filter": "FORWARD"}
CONTAINER = {4: "172.17.0.2", 6: "fd17::2"}
LISTINGS = ("-S", "-vS", "-nL", "-nvxL", "-nL --line-numbers", "-nvL --line-numbers")


@pytest.fixture
def hosting(shim):
    """Gives ours over a variant, with raw in the table `host`."""
    return lambda variant, host: shim(variant, carrier=host)


@pytest.fixture(params=HOSTS)
def host(request):
    return request.param


@pytest.fixture
def pair(variant, host, original, hosting, beside):
    """An original and ours."""
    return beside(original(variant), hosting(variant, host))


@pytest.fixture
def legacy(host, original, hosting, beside, scenery):
    """The same over iptables-legacy alone, with neighbours to send packets from."""
    return scenery(beside(original("legacy"), hosting("legacy", host)))


def docker(family, table="raw"):
    """What Docker says, as both carriers take it."""
    to, lo = CONTAINER[family], p.LOOPBACK[family]
    return [f"{FRONT[family]} -t {table} {rule}" for rule in (
        f"-A PREROUTING -d {to} ! -i docker0 -j DROP",
        f"-I PREROUTING -d {to} -i eth0 -j ACCEPT",
        f"-A PREROUTING -p tcp -d {lo} --dport 8080 -i loopback0 -j ACCEPT",
        f"-A PREROUTING -p udp -d {lo} --dport 8080 ! -i lo -j DROP",
        f"-I PREROUTING 2 -p tcp -d {to} --dport 80 ! -i docker0 -j DROP",
    )]


@pytest.mark.parametrize("family", (4, 6))
def test_commands_on_raw(pair, host, family):
    front = FRONT[family]
    pair.run(f"{front}-save -t raw", 0)
    for line in docker(family):
        pair.run(line, 0)
        pair.run(line.replace("-I PREROUTING 2", "-I PREROUTING").replace("-A PRE", "-C PRE").replace("-I PRE", "-C PRE"), 0)
    for listing in LISTINGS:
        pair.run(f"{front} -t raw {listing}", 0)
        pair.run(f"{front} -t raw {listing.replace('S', 'S PREROUTING').replace('L ', 'L PREROUTING ')}", 0)
    pair.run(f"{front} -t raw -nL PREROUTING 2 --line-numbers", 0)
    pair.run(f"{front} -t raw -S PREROUTING 3", 0)
    pair.run(f"{front} -t raw -C PREROUTING -d {CONTAINER[family]} -j DROP", 1)
    pair.run(f"{front} -t raw -D PREROUTING 9", 1)
    pair.run(f"{front} -t raw -R PREROUTING 2 -c 7 8 -d {CONTAINER[family]} -i eth1 -j DROP", 0)
    pair.run(f"{front}-save -t raw")
    pair.run(f"{front} -t raw -vS", 0)
    pair.run(f"{front} -t raw -Z PREROUTING 2", 0)
    pair.run(f"{front} -t raw -vS", 0)
    pair.state()
    pair.run(f"{front} -t raw -D PREROUTING 1", 0)
    pair.run(f"{front} -t raw -D PREROUTING -d {CONTAINER[family]} ! -i docker0 -j DROP", 0)
    pair.run(f"{front} -t raw -D PREROUTING -d {CONTAINER[family]} ! -i docker0 -j DROP", 1)
    pair.run(f"{front} -t raw -X missing", 1)
    pair.run(f"{front} -t raw -A PREROUTING -j missing", 2)
    pair.run(f"{front} -t raw -A missing -j DROP", 1)
    pair.run(f"{front} -t raw -S", 0)
    saved = pair.run(f"{front}-save -t raw", 0).out
    pair.run(f"{front} -t raw -F", 0)
    pair.run(f"{front} -t raw -S", 0)
    pair.run(f"{front}-restore", 0, stdin=saved)
    pair.run(f"{front} -t raw -S", 0)
    pair.run(f"{front}-restore --noflush", 0, stdin=f"*raw\n-I PREROUTING -d {CONTAINER[family]} -i a -j ACCEPT\nCOMMIT\n".encode())
    pair.run(f"{front}-restore --noflush --test", 0, stdin=b"*raw\n-F\nCOMMIT\n")
    pair.run(f"{front}-restore --noflush", 1, stdin=b"*raw\n-F\n-D PREROUTING 77\nCOMMIT\n")
    pair.run(f"{front} -t raw -S", 0)
    pair.state()


def test_policies_and_returns_in_mangle(variant, original, hosting, beside):
    pair = beside(original(variant), hosting(variant, "mangle"))
    for line in ("-P OUTPUT DROP", "-A OUTPUT -p udp -j RETURN", "-A OUTPUT -p icmp -j ACCEPT", "-A OUTPUT -d 10.0.0.0/8 ! -o eth0", "-A PREROUTING -p tcp --dport 1:9 -m comment --comment 'a \"b\" $c' -j DROP", "-A PREROUTING -s 10.1.0.0/16 ! -p udp -m mark --mark 1/3 -j RETURN"):
        pair.run(f"iptables -t raw {line}", 0)
    for listing in LISTINGS:
        pair.run(f"iptables -t raw {listing}", 0)
    pair.run("iptables -t raw -P OUTPUT ACCEPT", 0)
    pair.run("iptables -t raw -P INPUT DROP", 1)
    pair.run("iptables -t raw -S", 0)
    pair.state()


REFUSED = {
    "mangle": ("-N mine", "-A PREROUTING -i 'a b' -j DROP", "-A PREROUTING ! -i 'a\"b' -j DROP", "-A OUTPUT -o 'a\\b' -j DROP", "-A PREROUTING -j NOTRACK", "-A PREROUTING -j CT --notrack", "-A PREROUTING -j TRACE", "-A OUTPUT -m conntrack --ctstate NEW -j DROP", "-A OUTPUT -m limit --limit 1/s -j ACCEPT", "-A PREROUTING -j LOG"),
    "filter": (
        "-N mine", "-P PREROUTING DROP", "-P OUTPUT DROP", "-A OUTPUT -d 10.0.0.1 -j DROP", "-A PREROUTING -j DROP", "-A PREROUTING -d 10.0.0.1 -j DROP", "-A PREROUTING -d 10.0.0.0/8 ! -i a -j DROP",
        "-A PREROUTING ! -d 10.0.0.1 -i a -j DROP", "-A PREROUTING -d 10.0.0.1 -i a+ -j DROP", "-A PREROUTING -d 10.0.0.1 -i 'a b' -j DROP", "-A PREROUTING -d 10.0.0.1 ! -i 'a\"b' -j DROP", "-A PREROUTING -s 10.0.0.2 -d 10.0.0.1 -i a -j DROP", "-A PREROUTING -d 10.0.0.1 -i a -j RETURN", "-A PREROUTING -d 10.0.0.1 -i a",
        "-A PREROUTING -p tcp -d 10.0.0.1 -i a -j DROP", "-A PREROUTING -p tcp -d 10.0.0.1 -i a --dport 1:2 -j DROP", "-A PREROUTING -p tcp -d 10.0.0.1 -i a ! --dport 1 -j DROP", "-A PREROUTING -p tcp -d 10.0.0.1 -i a --dport 1 --sport 2 -j DROP",
        "-A PREROUTING -p sctp -d 10.0.0.1 -i a --dport 1 -j DROP", "-A PREROUTING -d 224.0.0.1 -i a -j DROP", "-A PREROUTING -d 10.0.0.1 -i a -m comment --comment x -j DROP", "-A PREROUTING -d 10.0.0.1 -i a -j NOTRACK",
    ),
}


def test_what_cannot_be_held_fails_as_without_a_raw_table(variant, host, hosting, original, tmp_path):
    ours, place = hosting(variant, host), harness.Netns()
    with place.entered():
        def run(*argv, **more):
            return harness.execute([ours.path(argv[0]), *argv[1:]], env={"XTABLES_LOCKFILE": str(tmp_path / "lock"), **ours.environment()}, **more)

        assert run("iptables", "-t", "raw", "-A", "PREROUTING", "-d", "10.0.0.1", "-i", "a", "-j", "DROP").rc == 0
        before = run("iptables", "-t", "raw", "-S").out
        for rule in REFUSED[host]:
            theirs = harness.execute([original(variant).path("iptables"), "-t", "nonsense", *shlex.split(rule)])
            answer = run("iptables", "-t", "raw", *shlex.split(rule))
            assert (answer.rc, answer.out, answer.err) == (theirs.rc, b"", theirs.err.replace(b"nonsense", b"raw")), f"{rule}\n{answer.text()}"
        theirs = harness.execute([original(variant).path("iptables-restore")], stdin=b"#\n*nonsense\nCOMMIT\n")
        answer = run("iptables-restore", "--noflush", stdin=b"#\n*raw\n-A PREROUTING -j NOTRACK\nCOMMIT\n")
        strip = lambda text: re.sub(rb"\S*/", b"", text).replace(b"nonsense", b"raw")
        assert (answer.rc, strip(answer.err)) == (theirs.rc, strip(theirs.err))
        assert run("iptables", "-t", "raw", "-S").out == before
    place.close()
    told = open(ours.journal).read()
    assert f'"carrier":"{host}"' in told and "-N: a chain of one's own has no exact form" in told


@pytest.mark.parametrize("family", (4, 6))
def test_the_other_table_does_not_show_what_it_holds(pair, host, family):
    front, chain = FRONT[family], CHAIN[host]
    run = lambda words, *more, **options: pair.run(f"{front} -t {host} {words}", *more, **options)
    for line in docker(family):
        pair.run(line, 0)

    def look():
        for listing in LISTINGS:
            run(listing, 0)
        for number in (1, 2, 3, 9):
            run(f"-S {chain} {number}", 0)
            run(f"-nL {chain} {number} --line-numbers", 0)
            run(f"-L {chain} {number} -n", 0)
        pair.run(f"{front}-save -t {host}", 0)
        pair.run(f"{front} -t raw -S", 0)

    look()
    run(f"-I {chain} -p udp -j ACCEPT", 0)
    run(f"-I {chain} 1 -p tcp -m string --string x --algo bm -j ACCEPT", 0)
    run(f"--insert {chain} 3 -p esp", 0)
    run(f"-I {chain} 5 -p ah", 1)
    run(f"-vI {chain} 2 -p gre -j RETURN", 0)
    run(f"-A {chain} -p sctp -j DROP", 0)
    look()
    run(f"-R {chain} 2 -p 77 -j ACCEPT", 0)
    run(f"-R {chain} 6 -p 78 -j ACCEPT", 1)
    run(f"-D {chain} 1", 0)
    run(f"-D {chain} 7", 1)
    run(f"-D {chain} -p esp", 0)
    run(f"-C {chain} -p esp", 1)
    run(f"-Z {chain} 1", 0)
    run(f"-Z {chain}", 0)
    # iptables-nft tells of the chains that it has made, and for ours it has made more.
    run("-vZ" if pair.subject.variant == "legacy" else "-Z", 0)
    run("-L -n -Z", 0)
    look()
    run("-N mine", 0)
    run("-A mine -j RETURN", 0)
    run(f"-I {chain} -j mine", 0)
    if pair.subject.variant == "legacy":
        run("-X", 1)
    run("-N alpha", 0)
    run("-E mine yours", 0)
    run(f"-P {chain} DROP", 0)
    run(f"-P {chain} ACCEPT", 0)
    look()
    run(f"-F {chain}", 0)
    look()
    run("-vF", 0)
    run("-X", 0)
    look()
    run(f"-I {chain} 2 -p udp", 1)
    run(f"-A {chain} -p udp", 0)
    pair.state()


@pytest.mark.parametrize("family", (4, 6))
def test_the_other_table_is_zeroed_alone(pair, host, family):
    """What raw has counted stays counted, and the other way round."""
    front, chain = FRONT[family], CHAIN[host]
    pair.policies_count = False  # iptables-legacy forgets what its policies have counted at the next change
    pair.run(docker(family)[0].replace("-j", "-c 5 6 -j"), 0)
    pair.run(f"{front} -t {host} -A {chain} -c 7 8 -p 77 -j ACCEPT", 0)
    for line in (f"-t {host} -Z {chain} 1", f"-t {host} -Z {chain}", f"-t {host} -Z", f"-t {host} -L -n -Z", "-t raw -Z"):
        pair.run(f"{front} -t {host} -R {chain} 1 -c 7 8 -p 77 -j ACCEPT", 0)
        pair.run(f"{front} {line}", 0)
        for table in ("raw", host):
            pair.run(f"{front} -t {table} -vS", 0)


@pytest.mark.parametrize("options", ("", "--noflush", "--counters", "--noflush --test"))
def test_the_other_table_is_restored(pair, host, options):
    chain = CHAIN[host]
    for line in docker(4):
        pair.run(line, 0)
    pair.run(f"iptables -t {host} -A {chain} -p 7 -j ACCEPT", 0)
    files = (
        f"*{host}\n:{chain} DROP [5:6]\n:one - [0:0]\n[3:4] -A {chain} -j one\n-A one -p udp --dport 5 -j RETURN\nCOMMIT\n",
        f"# comment\n*{host}\n-I {chain} -p udp -j ACCEPT\n-I {chain} 2 -p tcp -j ACCEPT\n-D {chain} 1\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n",
        f"*{host}\n-A {chain} -p udp\n-F\n-A {chain} -p tcp\n-Z\n-N two\nCOMMIT\n",
        f"*nat\nCOMMIT\n*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.0.0.1 -i z -j DROP\nCOMMIT\n*{host}\n:{chain} ACCEPT [0:0]\n-A {chain} -p udp\nCOMMIT\n",
        f"*{host}\n\n-A {chain} -p udp\n-D {chain} 99\nCOMMIT\n",
        f"*{host}\n-A {chain} --bogus\nCOMMIT\n",
        f"*{host}\n-A {chain} -p udp\n",
        f"*{host}\nCOMMIT\n",
    )
    if pair.subject.variant == "nft":
        # A rule that iptables-nft-restore 1.8.9 adds to a new table outlives a -F behind it.
        files = tuple(text for text in files if "-F\n" not in text)
    for text in files:
        pair.run(f"iptables-restore {options}", stdin=text.encode())
        pair.run(f"iptables -t {host} -vS", 0)
        pair.run("iptables -t raw -S", 0)
    pair.state()


def test_the_lock_is_waited_for_as_the_original_does(pair, host, tmp_path):
    pair.run(docker(4)[0], 0)
    if pair.subject.variant == "nft":
        pytest.skip("iptables-nft has no lock")
    with open(tmp_path / "xtables.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for table in ("raw", host):
            pair.run(f"iptables -w 1 -t {table} -S", 4)
            pair.run(f"iptables -w 1 -t {table} -I {CHAIN[table] if table != 'raw' else 'PREROUTING'} -d 10.0.0.1 -i a -j DROP", 4)
        pair.run("iptables-save -t raw", 0, timeout=30)
    pair.run(f"iptables -w 1 -t {host} -S", 0)


def test_without_w_the_lock_is_waited_for_as_the_original_does(pair, tmp_path):
    """iptables-legacy 1.8.8 to 1.8.10 waits; beside iptables-nft, which has no lock, callers of ours wait for each other."""
    for line in (docker(4)[0], "iptables -t raw -S"):
        answers = []
        for subject, place in pair.places:
            with open(tmp_path / "xtables.lock", "w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                release = threading.Timer(1, fcntl.flock, (file, fcntl.LOCK_UN))
                release.start()
                answers.append(pair.call(subject, place, shlex.split(line), timeout=30))
                release.join()
        pair.history.append(f"{line}, while another holds the lock for a second")
        pair.compare(*answers)
    pair.state()


def test_protection_never_lapses_while_others_are_at_work(legacy, host):
    """What Docker and others do to the host table at the same time; datagrams are sent all the while."""
    ours, place = legacy.both.places[1]
    machine, chain = legacy.hosts[1], CHAIN[host]
    call = lambda *argv, stdin=None: legacy.both.call(ours, place, list(argv), stdin)
    assert call("iptables", "-t", "raw", "-A", "PREROUTING", "-d", p.BEYOND4, "!", "-i", "eth1", "-j", "DROP").rc == 0
    faults, counted, over = [], [0], threading.Event()
    restored = f"*{host}\n:{chain} ACCEPT [0:0]\n:a - [0:0]\n-A {chain} -j a\nCOMMIT\n".encode()

    def work(number):
        steps = ([("iptables", "-w", "-t", host, "-I", chain, "-p", "udp", "-j", "ACCEPT"), ("iptables", "-w", "-t", host, "-I", chain, "1", "-j", "ACCEPT"), ("iptables", "-w", "-t", host, "-D", chain, "1"), ("iptables", "-w", "-t", host, "-F", chain)],
                 [("iptables-restore", "-w", "--noflush"), ("iptables", "-w", "-t", host, "-F"), ("iptables-restore", "-w"), ("iptables", "-w", "-t", host, "-Z")],
                 [("iptables", "-w", "-t", "raw", "-A", "PREROUTING", "-d", "10.0.0.9", "-i", "a", "-j", "DROP"), ("iptables", "-w", "-t", "raw", "-D", "PREROUTING", "-d", "10.0.0.9", "-i", "a", "-j", "DROP")])[number]
        while not over.is_set():
            for step in steps:
                program = [ours.path(step[0]), *step[1:]]
                done = subprocess.run(["nsenter", f"--net={place.path}", *program], input=restored if "restore" in step[0] else None, capture_output=True, env={**harness.BASE_ENVIRONMENT, **legacy.both.env, **ours.environment()}, timeout=60)
                counted[0] += 1
                if done.returncode and step[-2:] != (chain, "1") or done.returncode not in (0, 1):
                    faults.append((step, done))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    end, sent = time.monotonic() + 6, 0
    try:
        while time.monotonic() < end:
            seen = machine.send(p.udp(source=p.PEER4, target=p.BEYOND4, sport=1024 + sent % 60000), "left", 0)
            sent += 1
            faults.extend(("passed", each) for each in seen if each.where == "right")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not faults, faults[:5]
    assert sent > 100 and counted[0] > 20, (sent, counted)


def test_dockers_own_calls(host, original, hosting, tmp_path):
    """Every call of a real Docker, with nat, filter and raw in one machine."""
    subjects = [original("legacy"), hosting("legacy", host)]
    machines = [corpus.Machine(each, str(tmp_path / f"lock-{each.name}")) for each in subjects]
    faults, raw = [], 0
    try:
        for number, call in enumerate(corpus.recorded("legacy"), 1):
            raw += "raw" in call["argv"]
            answers = [machine.call(call["ns"], call["argv"]) for machine in machines]
            if answers[0] != answers[1]:
                faults.append(f"call {number} in {call['ns']}: {call['argv']}\noriginal: {answers[0].text()}\nours: {answers[1].text()}")
            if number % 200 == 0 and machines[0].state() != machines[1].state():
                faults.append(f"the tables differ after call {number}")
    finally:
        for machine in machines:
            machine.close()
    assert not faults, f"{len(faults)} fault(s)\n" + "\n".join(faults[:5])
    assert raw > 10, "the recording says nothing to raw"


def test_flush_removes_it_and_probe_shows_it(variant, host, hosting, tmp_path):
    ours, place = hosting(variant, host), harness.Netns()
    with place.entered():
        def run(*argv):
            return harness.execute([ours.path(argv[0]), *argv[1:]], env={"XTABLES_LOCKFILE": str(tmp_path / "lock"), **ours.environment()})

        assert run("iptables", "-t", "raw", "-A", "PREROUTING", "-d", "10.0.0.1", "-i", "a", "-j", "DROP").rc == 0
        theirs = [f"/usr/sbin/iptables-{variant}", "-t", host, "-S"]
        assert b"xtshim-raw" in harness.execute(theirs).out
        shown = run("xtshim", "probe", "-v").out.decode()
        assert f"carrier {host}: connection tracking" in shown and f"-A {CHAIN[host]} -j xtshim-raw-" in shown, shown
        flushed = run("xtshim", "flush")
        assert (flushed.rc, flushed.out) == (0, f"ip raw: removed from {host}\n".encode()), flushed.text()
        assert b"xtshim-raw" not in harness.execute(theirs).out
        listed = run("iptables", "-t", "raw", "-S")
        assert listed.rc == 0 and b"-A" not in listed.out, listed.text()
        assert run("xtshim", "flush").out == b"Nothing of it is carried in this network namespace.\n"
    place.close()


def test_a_jump_that_was_moved_comes_first_again(variant, host, hosting, tmp_path):
    ours, place = hosting(variant, host), harness.Netns()
    with place.entered():
        def run(*argv):
            answer = harness.execute([ours.path(argv[0]), *argv[1:]], env={"XTABLES_LOCKFILE": str(tmp_path / "lock"), **ours.environment()})
            assert answer.rc == 0, answer.text()
            return answer.out.decode()

        theirs = lambda *argv: harness.execute([f"/usr/sbin/iptables-{variant}", "-t", host, *argv]).out.decode().splitlines()
        run("iptables", "-t", "raw", "-A", "PREROUTING", "-d", "10.0.0.1", "-i", "a", "-j", "DROP")
        first = theirs("-S", CHAIN[host])[1]
        theirs("-I", CHAIN[host], "-p", "udp", "-j", "ACCEPT")
        run("iptables", "-t", host, "-I", CHAIN[host], "2", "-p", "tcp", "-j", "ACCEPT")
        assert run("iptables", "-t", host, "-S", CHAIN[host]).splitlines()[1:] == [f"-A {CHAIN[host]} -p udp -j ACCEPT", f"-A {CHAIN[host]} -p tcp -j ACCEPT"]
        run("iptables", "-t", "raw", "-S")
        assert theirs("-S", CHAIN[host])[1] == first
        theirs("-D", CHAIN[host], "1")
        assert "-j DROP" in run("iptables", "-t", "raw", "-S")
        assert theirs("-S", CHAIN[host])[1] == first
        for argv in (("iptables-save", "-t", "raw"), ("iptables", "-t", "raw", "-A", "PREROUTING", "-d", "10.0.0.2", "-i", "a", "-j", "DROP")):
            theirs("-I", CHAIN[host], "-p", "udp", "-j", "ACCEPT")
            run(*argv)
            assert theirs("-S", CHAIN[host])[1] == first
            theirs("-D", CHAIN[host], "2")
    place.close()


# --- packets ----------------------------------------------------------------------------------------------------------

PLACES = {
    4: {"host": p.OURS4, "inner": p.INNER4, "left": p.PEER4, "right": p.BEYOND4, "lo": "127.0.0.1", "nets": ("10.9.0.0/24", "10.8.0.0/24", "127.0.0.0/8"), "prefix": 24},
    6: {"host": p.OURS6, "inner": p.INNER6, "left": p.PEER6, "right": p.BEYOND6, "lo": "::1", "nets": ("fd09::/64", "fd08::/64"), "prefix": 64},
}
PORTS = (53, 80, 5555, 8080, 9999, 20001)
UNREACHABLE = {4: (3, 3), 6: (1, 4)}


def arrange(scene, family):
    """NAT as Docker has it, and datagrams that are not tracked."""
    front, at = FRONT[family], PLACES[family]
    to = f"[{at['right']}]:80" if family == 6 else f"{at['right']}:80"
    for protocol in ("tcp", "udp"):
        scene.run(f"{front} -t nat -A PREROUTING -p {protocol} -d {at['host']} --dport 8080 -j DNAT --to-destination {to}", 0)
        scene.run(f"{front} -t nat -A OUTPUT -p {protocol} -d {at['host']} --dport 8080 -j DNAT --to-destination {to}", 0)
    scene.run(f"{front} -t nat -A PREROUTING -p udp --dport 9999 -j REDIRECT --to-ports 53", 0)
    scene.run(f"{front} -t nat -A OUTPUT -p udp -d {at['lo']} --dport 9999 -j REDIRECT --to-ports 53", 0)
    inside = f"[{at['inner']}]:53" if family == 6 else f"{at['inner']}:53"
    scene.run(f"{front} -t nat -A OUTPUT -p udp -d {at['host']} --dport 9999 -j DNAT --to-destination {inside}", 0)
    scene.run(f"{front} -t nat -A POSTROUTING -s {at['nets'][1]} -o eth0 -j MASQUERADE", 0)
    nft = "ip" if family == 4 else "ip6"
    for machine in scene.hosts:
        for line in (f"add table {nft} untracked", f"add chain {nft} untracked early {{ type filter hook prerouting priority -250; }}", f"add rule {nft} untracked early udp dport 5555 notrack"):
            machine.place.sh(f"nft '{line}'")


def rules_for_mangle(rng, family):
    at = PLACES[family]
    icmp = "icmp" if family == 4 else "icmpv6"
    lines = [f":{chain} {rng.choice(('ACCEPT', 'ACCEPT', 'ACCEPT', 'DROP'))} [0:0]" for chain in ("PREROUTING", "OUTPUT")]
    addresses = [at[name] for name in ("host", "inner", "left", "right", "lo")] + list(at["nets"])
    bang = lambda: rng.choice(("", "", "! "))
    for _ in range(rng.randint(1, 6)):
        chain = rng.choice(("PREROUTING", "PREROUTING", "OUTPUT"))
        words = [f"-A {chain}"]
        if rng.random() < 0.4:
            words.append(f"{bang()}-s {rng.choice(addresses)}")
        if rng.random() < 0.6:
            words.append(f"{bang()}-d {rng.choice(addresses)}")
        if rng.random() < 0.5:
            words.append(f"{bang()}{'-i' if chain == 'PREROUTING' else '-o'} {rng.choice(('eth0', 'eth1', 'lo', 'eth+'))}")
        match rng.randrange(5):
            case 0:
                words.append(f"{bang()}-p {rng.choice(('tcp', 'udp', icmp))}")
            case 1:
                words.append(f"-p {rng.choice(('tcp', 'udp'))} {bang()}--dport {rng.choice(PORTS)}")
            case 2:
                words.append(f"-p udp {bang()}--sport 20000:30000")
            case 3 if family == 4:
                words.append(f"{bang()}-f")
        words.append(rng.choice(("-j DROP", "-j DROP", "-j ACCEPT", "-j RETURN", "")))
        lines.append(" ".join(words))
    return lines


def rules_for_filter(rng, family):
    at = PLACES[family]
    lines = [":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    for _ in range(rng.randint(1, 6)):
        port = rng.choice(("", "", f"-p {rng.choice(('tcp', 'udp'))} --dport {rng.choice(PORTS)} "))
        address = at[rng.choice(("host", "inner", "left", "right", "right", "lo"))]
        lines.append(f"-A PREROUTING {port}-d {address} {rng.choice(('', '! '))}-i {rng.choice(('eth0', 'eth1', 'lo'))} -j {rng.choice(('DROP', 'DROP', 'ACCEPT'))}")
    return lines


RULES = {"mangle": rules_for_mangle, "filter": rules_for_filter}


def error_about(packet, source, target, family):
    """An ICMP error from `source` to `target` that quotes `packet`."""
    kind, code = UNREACHABLE[family]
    segment = struct.pack("!BBHI", kind, code, 0, 0) + packet
    number = 58 if family == 6 else 1
    return p.ip(number, p._sealed(number, segment, 2, source, target), source, target)


def exchange(rng, family, number):
    """Packets that belong to each other: what they are, and (packet, where it is sent, is it one of a flow's) each."""
    at = PLACES[family]
    sport = 20000 + number % 30000
    make = rng.choice((p.udp, p.udp, p.tcp))
    flow = lambda source, target, dport, **more: make(sport=sport, dport=dport, source=source, target=target, **more)
    back = lambda source, target, dport: p.tcp(sport=dport, dport=sport, flags=0x12, source=source, target=target) if make is p.tcp else p.udp(sport=dport, dport=sport, source=source, target=target)
    dport = rng.choice(PORTS)
    # A listener's answer to a datagram is none, so ports differ only in what rules say of them.
    kinds = ["to the host", "forwarded", "from inside", "published", "reply to masqueraded", "loopback", "redirected", "fragments", "error to the host", "error about a published one", "error from inside", "untracked", "invalid", "TTL 1", "sent", "echo"]
    kind = rng.choice(kinds)
    match kind:
        case "to the host":
            steps = [(flow(at["left"], rng.choice((at["host"], at["inner"])), dport), "left")]
        case "forwarded":
            steps = [(flow(at["left"], at["right"], dport), "left"), (back(at["right"], at["left"], dport), "right")]
        case "from inside":
            steps = [(flow(at["right"], rng.choice((at["host"], at["inner"], at["left"])), dport), "right")]
        case "published":
            steps = [(flow(at["left"], at["host"], 8080), "left"), (back(at["right"], at["left"], 80), "right")]
        case "reply to masqueraded":
            steps = [(flow(at["right"], at["left"], 7), "right"), (back(at["left"], at["host"], 7), "left")]
        case "loopback":
            target = rng.choice((at["lo"], at["host"], at["inner"]))
            steps = [(p.udp(sport=sport, dport=rng.choice((53, 9999)), source=target, target=target), "host")]
        case "redirected":
            steps = [(p.udp(sport=sport, dport=9999, source=at["left"], target=rng.choice((at["host"], at["right"]))), "left")]
        case "fragments":
            target = rng.choice((at["host"], at["right"]))
            whole = p.udp(sport=sport, dport=dport, source=at["left"], target=target, payload=b"f" * 64)
            if family == 4:
                segment = whole[20:]
                cut = [(segment[:40], 0, True), (segment[40:], 5, False)]
                pieces = [p.ip(17, data, at["left"], target, fragment=offset, more=more) for data, offset, more in cut]
                identity = struct.pack("!H", number & 0xFFFF)
                pieces = [head_sealed(piece[:4] + identity + piece[6:]) for piece in pieces]
            else:
                segment = whole[40:]
                header = lambda offset, more: struct.pack("!BBHI", 17, 0, offset << 3 | more, number)
                pieces = [p.ip(44, header(0, 1) + segment[:40], at["left"], target), p.ip(44, header(5, 0) + segment[40:], at["left"], target)]
            steps = [(piece, "left") for piece in pieces]
        case "error to the host":
            first = flow(at["right"], at["left"], 7)
            outside = flow(at["host"], at["left"], 7)
            steps = [(first, "right"), (error_about(outside, at["left"], at["host"], family), "left")]
        case "error about a published one":
            steps = [(flow(at["left"], at["host"], 8080), "left"), (back(at["right"], at["left"], 80), "right"), (error_about(back(at["host"], at["left"], 8080), at["left"], at["host"], family), "left")]
        case "error from inside":
            steps = [(flow(at["left"], at["host"], 8080), "left"), (error_about(flow(at["left"], at["right"], 80), at["right"], at["left"], family), "right")]
        case "untracked":
            steps = [(p.udp(sport=sport, dport=5555, source=at["left"], target=rng.choice((at["host"], at["right"]))), "left")]
        case "invalid":
            target = rng.choice((at["host"], at["right"]))
            stray = error_about(p.udp(sport=9, dport=10 + number % 1000, source=target, target=at["left"]), at["left"], target, family)
            steps = [(rng.choice((p.tcp(sport=sport, dport=dport, flags=0, source=at["left"], target=target), stray)), "left")]
        case "TTL 1":
            steps = [(flow(at["left"], at["right"], dport, ttl=1), "left")]
        case "sent":
            steps = [(p.udp(sport=sport, dport=dport, source=at["host"], target=rng.choice((at["left"], at["right"]))), "host")]
        case _:
            steps = [(p.icmp(128 if family == 6 else 8, source=at["left"], target=rng.choice((at["host"], at["right"]))), "left")]
    return kind, steps


def head_sealed(packet):
    """An IPv4 packet with the checksum of its header made right."""
    packet = packet[:10] + b"\0\0" + packet[12:]
    return packet[:10] + struct.pack("!H", p.checksum(packet[:20])) + packet[12:]


def arrived(seen, family):
    """What was delivered or sent on, without what the host itself has to say of it: routing's answers come sooner than
    filter's drop."""
    said = lambda packet: family == 4 and packet[9] == 1 and packet[20] in (3, 11) or family == 6 and packet[6] == 58 and packet[40] in (1, 2, 3, 4)
    at = PLACES[family]
    pack = lambda address: scenes.socket.inet_pton(p.FAMILY[family], address)
    mine = {pack(at["host"]), pack(at["inner"])}
    source = lambda packet: packet[12:16] if family == 4 else packet[8:24]
    # The kernel picks the number of what it takes apart again.
    plain = lambda packet: packet[:44] + bytes(4) + packet[48:] if family == 6 and packet[6] == 44 else packet
    # What a raw socket of IPv6 is given begins behind the header.
    delivered = [("host", each.packet) for each in seen if each.where == "host"]
    sent = [(each.where, plain(each.packet)) for each in seen if each.where in ("left", "right")]
    return sorted(delivered + [(where, packet) for where, packet in sent if not (said(packet) and source(packet) in mine)])


def compare(scene, family, rules_of, load, seed, pairs):
    """Sends random packets past random rule sets in both places. Gives what differed, and how many were kept out."""
    rng = random.Random(seed)
    faults, kept, passed, number = [], 0, 0, 0
    while number < pairs:
        lines = rules_of(rng, family)
        load(lines)
        for _ in range(EXCHANGES):
            kind, steps = exchange(rng, family, number)
            number += 1
            for step, (packet, at) in enumerate(steps):
                answers = []
                for machine in scene.hosts:
                    answers.append(arrived(machine.send(packet, at, 0), family))
                kept += not answers[0]
                passed += bool(answers[0])
                if answers[0] != answers[1]:
                    shown = [[(where, data.hex()) for where, data in answer] for answer in answers]
                    faults.append(f"seed {seed}, exchange {number}: {kind}, packet {step + 1} from {at}: {packet.hex()}\nraw:  {shown[0]}\nours: {shown[1]}\n" + "\n".join(lines))
                    break
            if len(faults) > 10:
                return faults, kept, passed
    return faults, kept, passed


@pytest.mark.parametrize("family", (4, 6))
def test_packets(legacy, host, family):
    arrange(legacy, family)
    seed = f"{host}-{family}-{SEED}"

    def load(lines):
        file = "*raw\n" + "\n".join(lines) + "\nCOMMIT\n"
        legacy.run(f"{FRONT[family]}-restore", 0, stdin=file.encode())

    faults, kept, passed = compare(legacy, family, RULES[host], load, seed, PAIRS)
    assert not faults, f"{len(faults)} of the packets met something else\n" + "\n\n".join(faults)
    assert kept > PAIRS / 20 and passed > PAIRS / 5, (seed, kept, passed)


@pytest.mark.parametrize("family", (4, 6))
def test_it_shows_when_filter_looks_at_translated_destinations(original, beside, scenery, family):
    """The comparison above finds the mistake that is easiest to make."""
    legacy = original("legacy")
    made = scenery(beside(legacy, legacy))
    arrange(made, family)

    def load(lines):
        real, naive = made.both.places
        answer = made.both.call(*real, [f"{FRONT[family]}-restore"], ("*raw\n" + "\n".join(lines) + "\nCOMMIT\n").encode())
        assert answer.rc == 0, answer.text()
        rules = [line.replace("PREROUTING", chain) for line in lines[2:] for chain in ("INPUT", "FORWARD")]
        answer = made.both.call(*naive, [f"{FRONT[family]}-restore"], ("*filter\n" + "\n".join(rules) + "\nCOMMIT\n").encode())
        assert answer.rc == 0, answer.text()

    faults, *_ = compare(made, family, rules_for_filter, load, "naive", 400)
    assert any("published" in fault or "masqueraded" in fault for fault in faults)


# What stands in filter's chains, and the packets that show when it is gone.
NEEDED = {
    "-A xtshim-raw-entry -i lo": {"loopback"},
    # An error about a flow whose first packet was dropped is an error about none.
    "-A xtshim-raw-entry -m conntrack": {"untracked", "invalid", "error to the host", "error about a published one", "error from inside"},
    "--ctdir ORIGINAL": {"to the host", "forwarded", "from inside", "published", "redirected"},
    "--ctdir REPLY": {"forwarded", "published", "reply to masqueraded", "error to the host", "error about a published one", "error from inside"},
}


@pytest.mark.parametrize("part", NEEDED)
def test_each_part_of_what_filter_holds_is_needed(original, hosting, beside, scenery, part):
    theirs, ours = original("legacy"), hosting("legacy", "filter")
    made = scenery(beside(theirs, ours))
    arrange(made, 4)

    def behind(*argv):
        answer = made.both.call(theirs, made.both.places[1][1], ["iptables", *argv])
        assert answer.rc == 0, answer.text()
        return answer.out.decode().splitlines()

    def load(lines):
        behind("-F")
        behind("-X")
        made.run("iptables-restore", 0, stdin=("*raw\n" + "\n".join(lines) + "\nCOMMIT\n").encode())
        for line in behind("-S"):
            if part in line:
                behind(*line.replace("-A", "-D", 1).split())

    faults, *_ = compare(made, 4, rules_for_filter, load, part, 1600)
    assert any(fault.split(": ")[1].split(",")[0] in NEEDED[part] for fault in faults), faults


CHANGES = ('raw = "nft"', 'raw = "backend"', 'raw = "auto"', 'raw = "filter"', 'raw = "mangle"', 'raw = "nft"\nmangle = "nft"\nfilter = "nft"')
RULE = ("-d", "10.0.0.1/32", "-i", "a", "-j", "DROP")


@pytest.mark.parametrize("later", CHANGES)
@pytest.mark.parametrize("earlier", ('raw = "nft"', 'raw = "mangle"', 'raw = "filter"', 'raw = "nft"\nmangle = "nft"'))
def test_another_configuration(variant, earlier, later, hosting, tmp_path):
    """What holds raw's rules holds them until they are flushed: they show and can be deleted, whatever the configuration says
    by then; and what is put into another table then does not lose them."""
    if earlier.splitlines() == later.splitlines():
        pytest.skip("nothing changes")
    ours, place = hosting(variant, "mangle"), harness.Netns()
    config = tmp_path / "xtshim.toml"
    settings = lambda carriers: config.write_text(f'backend = "{variant}"\n[carriers]\n{carriers}\n[journal]\nsystem = false\nfile = "none"\n')
    with place.entered():
        def run(*argv, stdin=None):
            return harness.execute([ours.path(argv[0]), *argv[1:]], stdin, env={"XTABLES_LOCKFILE": str(tmp_path / "lock"), "XTSHIM_CONFIG": str(config)})

        settings(earlier)
        assert run("iptables", "-t", "raw", "-A", "PREROUTING", *RULE).rc == 0
        assert run("iptables", "-t", "mangle", "-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT").rc == 0
        settings(later)
        line = b"-A PREROUTING " + " ".join(RULE).encode() + b"\n"
        listed = lambda: run("iptables", "-t", "raw", "-S").out
        assert line in listed(), listed()
        assert line in run("iptables-save").out and line in run("iptables-save", "-t", "raw").out
        changed = earlier.splitlines()[0] != later.splitlines()[0]
        told = [row for row in run("xtshim", "probe").out.decode().splitlines() if "raw" in row and "until `xtshim flush`" in row]
        assert bool(told) == changed, told
        # The other tables' own commands neither show it nor take it away.
        for host in HOSTS:
            assert b"xtshim-raw" not in run("iptables", "-t", host, "-S").out
            assert run("iptables", "-t", host, "-F").rc == 0
            assert run("iptables-restore", stdin=f"*{host}\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n".encode()).rc == 0
            assert b"-A FORWARD -p udp -j ACCEPT" in run("iptables", "-t", host, "-S").out
            assert line in listed()
        assert line in run("iptables-save").out
        # A change goes where the rules are.
        assert run("iptables", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-d", "10.0.0.1", "--dport", "80", "!", "-i", "a", "-j", "DROP").rc == 0
        assert listed().count(b"-A ") == 2
        assert run("iptables", "-t", "raw", "-D", "PREROUTING", *RULE).rc == 0
        assert listed().count(b"-A ") == 1
        flushed = run("xtshim", "flush", "--table", "raw")
        assert flushed.rc == 0 and b"raw" in flushed.out, flushed.text()
        ruleset = harness.execute(["nft", "list", "ruleset"]).out + harness.execute([f"/usr/sbin/iptables-{variant}-save"]).out
        assert b"xtshim-raw" not in ruleset
        assert b"-A" not in listed()
        run("iptables", "-t", "raw", "-A", "PREROUTING", *RULE)
        assert "until `xtshim flush`" not in "".join(row for row in run("xtshim", "probe").out.decode().splitlines() if "raw" in row)
    place.close()


def spoiled(variant, host, tmp_path, tool, script):
    """Ours, raw in `host`, over originals of which one tool is a script. Gives what calls it."""
    directory, front = tmp_path / "programs", tmp_path / "fronts"
    directory.mkdir(), front.mkdir()
    for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        named = name.replace("tables", f"tables-{variant}")
        if name == tool:
            (directory / named).write_text(script.format(real=f"/usr/sbin/{named}", here=tmp_path))
            (directory / named).chmod(0o755)
        else:
            (directory / named).symlink_to(f"/usr/sbin/{named}")
    config = tmp_path / "xtshim.toml"
    config.write_text(f'backend = "{variant}"\n[carriers]\nraw = "{host}"\n[backends]\ndirectory = "{directory}"\n[journal]\nsystem = false\nfile = "none"\n')
    return {"XTABLES_LOCKFILE": str(tmp_path / "lock"), "XTSHIM_CONFIG": str(config)}


@pytest.mark.parametrize("what", ("save", "restore"))
def test_a_backend_that_does_otherwise(variant, host, hosting, tmp_path, what):
    """One that cannot list what it holds is not one that holds nothing; and of a change that it made another of nothing stays."""
    script = {
        # Fails without a word.
        "save": '#!/bin/sh\n[ -e {here}/armed ] && exit 1\nexec {real} "$@"\n',
        # Drops become accepts, once.
        "restore": '#!/bin/sh\nrm {here}/armed 2>/dev/null && exec sh -c "sed s/DROP/ACCEPT/ | {real} --noflush"\nexec {real} "$@"\n',
    }[what]
    ours, place = hosting(variant, host), harness.Netns()
    env = spoiled(variant, host, tmp_path, f"iptables-{what}", script)
    with place.entered():
        run = lambda *argv: harness.execute([ours.path(argv[0]), *argv[1:]], env={**ours.environment(), **env})
        rule = lambda last: ("-d", f"10.0.0.{last}", "-i", "a", "-j", "DROP")
        for there in (False, True):
            if there:
                assert run("iptables", "-t", "raw", "-A", "PREROUTING", *rule(1)).rc == 0
            before = run("iptables", "-t", "raw", "-S")
            assert before.rc == 0 and before.out.count(b"-A") == there, before.text()
            (tmp_path / "armed").touch()
            assert run("iptables", "-t", "raw", "-A", "PREROUTING", *rule(2)).rc != 0
            if what == "save":
                assert run("iptables", "-t", "raw", "-S").rc != 0
                (tmp_path / "armed").unlink()
            assert run("iptables", "-t", "raw", "-S").out == before.out
            assert b"10.0.0.2" not in harness.execute([f"/usr/sbin/iptables-{variant}-save", "-t", host]).out
    place.close()


@pytest.mark.parametrize("said, code, told", (("line 3 failed", 1, b"No chain/target/match by that name"), ("out of patience", 4, b"out of patience")))
def test_a_backend_that_refuses(variant, host, hosting, tmp_path, said, code, told):
    """What it did not do is not called done, whatever it was to do. iptables-legacy itself says nothing better of a rule that
    the kernel does not take."""
    ours, place = hosting(variant, host), harness.Netns()
    env = spoiled(variant, host, tmp_path, "iptables-restore", f'#!/bin/sh\n[ -e {{here}}/armed ] && echo "iptables-restore: {said}" >&2 && exit 1\nexec {{real}} "$@"\n')
    if variant == "nft":
        code, told = 4, said.encode()
    with place.entered():
        run = lambda *argv: harness.execute([ours.path(argv[0]), *argv[1:]], env={**ours.environment(), **env})
        theirs = lambda *argv: harness.execute([f"/usr/sbin/iptables-{variant}", "-t", host, *argv])
        rule = lambda last: ("-t", "raw", "-A", "PREROUTING", "-d", f"10.0.0.{last}", "-i", "a", "-j", "DROP")
        assert run("iptables", *rule(1)).rc == 0
        before = run("iptables", "-t", "raw", "-S").out
        (tmp_path / "armed").touch()
        refused = run("iptables", *rule(2))
        assert refused.rc == code and told in refused.err, refused.text()
        assert run("iptables", "-t", "raw", "-S").out == before
        # Nothing else would show that it is not in force.
        theirs("-I", CHAIN[host], "-p", "udp", "-j", "ACCEPT")
        assert run("iptables", "-t", "raw", "-S").rc == code
        flushed = run("xtshim", "flush")
        assert flushed.rc != 0 and b"removed" not in flushed.out, flushed.text()
        assert b"xtshim-raw" in theirs("-S").out
    place.close()
