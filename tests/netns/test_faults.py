"""Killed at every step, refused by the kernel, out of everything: the table is as before or as after, and whoever was
not told that it failed can rely on it."""

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import subprocess
import time

import pytest

import harness

RULE = "PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP"
OTHER = "PREROUTING -p udp -m udp --dport 53 -j NOTRACK"
LONG = f"PREROUTING -m comment --comment {'x' * 250} -j ACCEPT"
NOTHING = ()
SOME = (f"-A {RULE}", "-A OUTPUT -p tcp -m tcp --dport 80 -j ACCEPT", "-N mine", "-A mine -j RETURN", "-A PREROUTING -j mine", f"-A {LONG}")
FILE = f"*raw\n:PREROUTING DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:new - [0:0]\n-A {OTHER}\n-A new -j ACCEPT\n-A PREROUTING -j new\nCOMMIT\n".encode()

# What is there, and what changes it.
CHANGES = {
    "first": (NOTHING, ["iptables", "-t", "raw", "-A", *RULE.split()], None),
    "append": (SOME, ["iptables", "-t", "raw", "-A", *OTHER.split()], None),
    "insert": (SOME, ["iptables", "-t", "raw", "-I", *OTHER.split()], None),
    "delete": (SOME, ["iptables", "-t", "raw", "-D", *LONG.split()], None),
    "restore": (SOME, ["iptables-restore"], FILE),
}

strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


class Bench:
    """Ours in a namespace after another, each with the same in it."""

    def __init__(self, subject, lock):
        self.subject, self.env = subject, {"XTABLES_LOCKFILE": lock, **subject.environment()}

    @contextlib.contextmanager
    def prepared(self, lines):
        place = harness.Netns()
        try:
            with place.entered():
                for line in lines:
                    answer = self.call(["iptables", "-t", "raw", *line.split()])
                    assert answer == harness.Result(0, b"", b""), answer.text()
                yield
        finally:
            place.close()

    def call(self, argv, stdin=None, via=(), **more):
        return harness.execute([*via, self.subject.path(argv[0]), *argv[1:]], stdin, self.env, **more)

    def state(self):
        """All that iptables shows of raw, and all that the kernel has of it."""
        saved = self.call(["iptables-save", "-t", "raw"])
        assert saved.rc == 0, saved.text()
        kernel = harness.execute(["nft", "list", "ruleset"])
        assert kernel.rc == 0, kernel.text()
        return harness.without_dates(saved.out), kernel.out

    def both(self, change):
        """How it is before and after."""
        lines, argv, stdin = CHANGES[change]
        with self.prepared(lines):
            before = self.state()
            answer = self.call(argv, stdin)
            assert answer == harness.Result(0, b"", b""), answer.text()
            return before, self.state()


@pytest.fixture
def bench(ours, tmp_path):
    return Bench(ours, str(tmp_path / "xtables.lock"))


@pytest.fixture
def over_nft(shim, tmp_path):
    """Over one backend, for what does not come near it."""
    return Bench(shim("nft"), str(tmp_path / "xtables.lock"))


def system_calls(bench, lines, argv, stdin, log):
    """Of a change, each system call as its name and how many of that name came before, from 1."""
    with bench.prepared(lines):
        traced = bench.call(argv, stdin, via=("strace", "-qq", "-o", str(log)))
        assert traced.rc == 0, traced.text()
    names = re.findall(r"^(\w+)\(", log.read_text(), re.M)
    return [(name, names[: at + 1].count(name)) for at, name in enumerate(names) if name not in ("execve", "exit_group")]


@strace
@pytest.mark.parametrize("change", CHANGES)
def test_killed_at_every_system_call(bench, change, tmp_path):
    before, after = bench.both(change)
    lines, argv, stdin = CHANGES[change]
    calls, seen = system_calls(bench, lines, argv, stdin, tmp_path / "calls"), set()
    for name, number in calls:
        with bench.prepared(lines):
            killed = bench.call(argv, stdin, via=("strace", "-qq", "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={number}"))
            state = bench.state()
            assert killed.rc == -9, f"{name} {number}: {killed.text()}"
            assert state in (before, after), f"killed at {name} {number}: neither before nor after\n{state[0].decode()}\n{state[1].decode()}"
            seen.add(state == after)
            # What was stopped leaves nothing behind that the next call would mind.
            if state == before:
                again = bench.call(argv, stdin)
                assert again == harness.Result(0, b"", b"") and bench.state() == after, again.text()
    assert seen == {True, False} and len(calls) > 20, calls


HOSTED = {
    "first": (NOTHING, ["iptables", "-t", "raw", "-A", *RULE.split()]),
    "delete": (SOME[:2], ["iptables", "-t", "raw", "-D", *RULE.split()]),
}


@strace
@pytest.mark.parametrize("change", HOSTED)
@pytest.mark.parametrize("host", ("mangle", "filter"))
def test_killed_while_another_table_holds_it(shim, original, host, change, tmp_path):
    """The backend that it has started may go on: what it does is a whole change too."""
    bench = Bench(shim("legacy", ("raw",), host), str(tmp_path / "xtables.lock"))
    lines, argv = HOSTED[change]
    if host == "filter":
        lines = lines[:1]

    def state():
        shown = bench.call(["iptables-save", "-t", "raw"])
        held = harness.execute([original("legacy").path("iptables-save"), "-t", host], env=bench.env)
        assert shown.rc == held.rc == 0, shown.text() + held.text()
        return harness.without_dates(shown.out), harness.without_dates(held.out)

    with bench.prepared(lines):
        before = state()
        assert bench.call(argv) == harness.Result(0, b"", b"")
        after = state()
    seen = set()
    for name, number in system_calls(bench, lines, argv, None, tmp_path / "calls"):
        with bench.prepared(lines):
            bench.call(argv, via=("strace", "-qq", "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={number}"))
            until = time.monotonic() + 5
            while (found := state()) not in (before, after) and time.monotonic() < until:
                time.sleep(0.05)
            assert found in (before, after), f"killed at {name} {number}: neither before nor after\n{found[0].decode()}\n{found[1].decode()}"
            seen.add(found == after)
    assert seen == {True, False}


@strace
@pytest.mark.parametrize("change", ("append", "restore"))
@pytest.mark.parametrize("error", ("ENOMEM", "EBUSY", "ENOBUFS", "EPERM"))
@pytest.mark.parametrize("call", ("sendto", "recvfrom"))
def test_errors_of_netlink(over_nft, change, call, error):
    """Retried, or told of with exit code and message."""
    before, after = over_nft.both(change)
    lines, argv, stdin = CHANGES[change]
    for number in range(1, 60):
        with over_nft.prepared(lines):
            answer = over_nft.call(argv, stdin, via=("strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:error={error}:when={number}"))
            state = over_nft.state()
        assert state in (before, after), state
        if answer.rc == 0:
            assert state == after and answer == harness.Result(0, b"", b""), answer.text()
            if number > 10:
                return
        else:
            assert answer.rc in (1, 3, 4) and answer.err.endswith(b"\n") and len(answer.err) > 20, answer.text()
    pytest.fail("there is no end of it")


@strace
@pytest.mark.parametrize("call", ("sendto", "recvfrom"))
def test_interrupted_system_calls_are_made_again(over_nft, call):
    _, after = over_nft.both("append")
    lines, argv, stdin = CHANGES["append"]
    for number in (1, 2, 3, 5, 8, 13):
        with over_nft.prepared(lines):
            answer = over_nft.call(argv, stdin, via=("strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:error=EINTR:when={number}"))
            assert answer == harness.Result(0, b"", b"") and over_nft.state() == after, answer.text()


@strace
def test_a_dump_that_overflows_is_read_again(over_nft):
    """ENOBUFS at any datagram of a listing: the whole of it is shown, or none. Dumps are asked for again."""
    with over_nft.prepared(NOTHING):
        filled(over_nft, MANY)
        whole = over_nft.call(["iptables", "-t", "raw", "-S"])
        failed = 0
        for number in range(1, 16):
            answer = over_nft.call(["iptables", "-t", "raw", "-S"], via=("strace", "-qq", "-o", "/dev/null", "-e", f"inject=recvfrom:error=ENOBUFS:when={number}"))
            assert answer == whole or (answer.rc == 4 and not answer.out and answer.err), answer.text()
            failed += answer.rc == 4
        # What asks for one thing only.
        assert failed <= 4, failed


# What is written over the first bytes of a datagram: a length that goes beyond it, none at all, an end that cuts the
# message in two, a message of another kind.
DAMAGES = {"long": "ffffff7f", "empty": "00000000", "cut": "18000000", "other": "140000000100"}
MANY = tuple(f"-A OUTPUT -d 10.1.{number}.0/24 -p tcp -m tcp --dport 80 -j ACCEPT" for number in range(200))


def damaged(number, with_what):
    """By strace, once the kernel has filled it in."""
    return ("strace", "-qq", "-o", "/dev/null", "-e", f"inject=recvfrom:poke_exit=@arg2={with_what}:when={number}")


def filled(bench, lines):
    """Many rules cost too many calls."""
    file = "*raw\n" + "".join(f"{line}\n" for line in lines) + "COMMIT\n"
    assert bench.call(["iptables-restore"], file.encode()) == harness.Result(0, b"", b"")


@strace
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_dump_is_no_answer(over_nft, damage, tmp_path):
    """Whatever datagram it is: all of the table is shown, or nothing and why."""
    with over_nft.prepared(NOTHING):
        filled(over_nft, MANY)
        log = tmp_path / "calls"
        whole = over_nft.call(["iptables", "-t", "raw", "-S"], via=("strace", "-qq", "-e", "trace=recvfrom", "-o", str(log)))
        assert whole.rc == 0 and whole.out.count(b"\n") == 202, whole.text()
        received = len(log.read_text().splitlines())
        failed = 0
        for number in range(1, received + 1):
            answer = over_nft.call(["iptables", "-t", "raw", "-S"], via=damaged(number, DAMAGES[damage]))
            assert answer == whole or (answer.rc == 4 and not answer.out and answer.err.endswith(b"\n")), f"{number}: {answer.text()}"
            failed += answer.rc == 4
        assert received > 8 and failed >= received - 3, f"{failed} of {received}"


@strace
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("change", ("append", "restore"))
def test_a_damaged_answer_to_a_change(over_nft, change, damage):
    """In force and silent, or a failure that does not hide that it may be in force."""
    before, after = over_nft.both(change)
    lines, argv, stdin = CHANGES[change]
    for number in range(1, 60):
        with over_nft.prepared(lines):
            answer = over_nft.call(argv, stdin, via=damaged(number, DAMAGES[damage]))
            state = over_nft.state()
        if answer.rc == 0:
            assert state == after and answer == harness.Result(0, b"", b""), answer.text()
            if number > 15:
                return
        else:
            assert answer.rc == 4 and answer.err.endswith(b"\n"), answer.text()
            assert state == before or (state == after and b"may be in force" in answer.err), answer.text()
    pytest.fail("there is no end of it")


@strace
def test_a_dump_that_never_ends_is_not_waited_for(over_nft, tmp_path):
    """Its last datagram is another's."""
    with over_nft.prepared(SOME):
        log = tmp_path / "calls"
        over_nft.call(["iptables", "-t", "raw", "-S"], via=("strace", "-qq", "-e", "trace=recvfrom", "-o", str(log)))
        number = next(number for number, line in enumerate(log.read_text().splitlines(), 1) if "NLMSG_DONE" in line)
        begun = time.monotonic()
        answer = over_nft.call(["iptables", "-t", "raw", "-S"], via=damaged(number, "1400000003000200ffffffff"), timeout=60)
        assert answer.rc == 4 and not answer.out and b"timed out" in answer.err, answer.text()
        assert time.monotonic() - begun < 30


def answer_to_the_batch(log):
    """Which of the calls that receive something tells what became of the change: none is sent after it."""
    calls = log.read_text().splitlines()
    sent = max(at for at, line in enumerate(calls) if "NFNL_MSG_BATCH_BEGIN" in line)
    return sum(line.startswith("recvfrom") for line in calls[:sent]) + 1


@strace
@pytest.mark.parametrize("error", ("ENOBUFS", "ENOMEM", "EIO"))
def test_an_acknowledgement_that_is_lost(over_nft, error, tmp_path):
    """The change is in force by then. It is looked for, and where only the kernel can know, that is said."""
    for change, told in (("append", False), ("restore", False), ("zero", True)):
        lines, argv, stdin = CHANGES.get(change, (SOME[1:3] + ("-A OUTPUT -c 5 6 -j ACCEPT",), ["iptables", "-t", "raw", "-Z"], None))
        log = tmp_path / change
        with over_nft.prepared(lines):
            assert over_nft.call(argv, stdin, via=("strace", "-qq", "-e", "trace=sendto,recvfrom", "-o", str(log))).rc == 0
        number = answer_to_the_batch(log)
        with over_nft.prepared(lines):
            answer = over_nft.call(argv, stdin, via=("strace", "-qq", "-o", "/dev/null", "-e", f"inject=recvfrom:error={error}:when={number}"))
            if told:
                assert answer.rc == 4 and b"may be in force" in answer.err, answer.text()
            else:
                assert answer == harness.Result(0, b"", b""), f"{change}: {answer.text()}"
                assert over_nft.state() == over_nft.both(change)[1]


def limited(**limits):
    """What sets resource limits before the program starts."""
    names = {name: getattr(resource, f"RLIMIT_{name}") for name in limits}

    def prepare():
        for name, value in limits.items():
            resource.setrlimit(names[name], (value, value))

    return {"preexec_fn": prepare}


def clean(answer, state, before, after):
    """In force and silent, or not and told of."""
    if answer.rc == 0:
        return answer == harness.Result(0, b"", b"") and state == after
    return answer.rc in (1, 3, 4) and answer.err and state in (before, after)


@pytest.mark.parametrize("change", ("append", "restore"))
def test_few_descriptors(over_nft, change):
    before, after = over_nft.both(change)
    lines, argv, stdin = CHANGES[change]
    for number in (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 16):
        with over_nft.prepared(lines):
            answer = over_nft.call(argv, stdin, **limited(NOFILE=number))
            state = over_nft.state()
        # Without any there is no standard error to tell it on.
        assert clean(answer, state, before, after) or (number < 3 and answer.rc != 0 and state == before), f"{number} descriptors: {answer.text()}"
    assert answer.rc == 0


@pytest.mark.parametrize("change", ("append", "restore"))
def test_32_mib_of_address_space(over_nft, change):
    before, after = over_nft.both(change)
    lines, argv, stdin = CHANGES[change]
    for size in (4 << 20, 8 << 20, 16 << 20, 32 << 20):
        with over_nft.prepared(lines):
            answer = over_nft.call(argv, stdin, **limited(AS=size))
            state = over_nft.state()
        # With less than its own size the program is not even started.
        assert clean(answer, state, before, after) or (size < 32 << 20 and answer.rc != 0 and state == before), f"{size >> 20} MiB: {answer.text()}"
    assert answer.rc == 0


def test_a_file_that_does_not_fit_into_memory(over_nft):
    """Told of, with exit code 4, and nothing of it is in force."""
    file = b"*raw\n" + b"".join(b"-A OUTPUT -d 10.%d.%d.%d -j ACCEPT\n" % (n >> 16, n >> 8 & 255, n & 255) for n in range(60000)) + b"COMMIT\n"
    with over_nft.prepared(SOME):
        before = over_nft.state()
        answer = over_nft.call(["iptables-restore"], file, **limited(AS=32 << 20))
        assert answer.rc == 4 and answer.err.endswith(b"\n"), answer.text()
        assert over_nft.state() == before


def test_no_file_may_be_written(over_nft):
    """RLIMIT_FSIZE of 0: neither cache nor journal, and no signal that ends it."""
    _, after = over_nft.both("append")
    lines, argv, stdin = CHANGES["append"]
    via = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /run && ulimit -f 0 && exec "$@"', "sh")
    with over_nft.prepared(lines):
        answer = over_nft.call(argv, stdin, via=via)
        assert answer == harness.Result(0, b"", b"") and over_nft.state() == after, answer.text()
        assert over_nft.call(["iptables", "-A", "INPUT", "-j", "ACCEPT"], via=via) == harness.Result(0, b"", b"")


@pytest.mark.parametrize("way", ("full", "read-only", "missing"))
def test_no_room_for_cache_and_journal(over_nft, way, tmp_path):
    script = {
        "full": "mount -t tmpfs -o size=4k tmpfs /run; mount -t tmpfs -o size=4k tmpfs /var/log; cat /dev/zero >/run/x; cat /dev/zero >/var/log/x",
        "read-only": "mount -t tmpfs -o ro tmpfs /run; mount -t tmpfs -o ro tmpfs /var/log",
        "missing": "mount -t tmpfs tmpfs /var; mount -t tmpfs -o ro,mode=0 tmpfs /run",
    }[way]
    config = tmp_path / "xtshim.toml"
    harness.configure(config, over_nft.subject.variant, {"raw": "nft"}, "/var/log/xtshim/rewrites.jsonl")
    over_nft.env["XTSHIM_CONFIG"] = str(config)
    via = ("unshare", "-m", "sh", "-c", f'({script}) 2>/dev/null; exec "$@"', "sh")
    _, after = over_nft.both("append")
    lines, argv, stdin = CHANGES["append"]
    with over_nft.prepared(lines):
        answer = over_nft.call(argv, stdin, via=via)
        assert answer == harness.Result(0, b"", b"") and over_nft.state() == after, answer.text()


CLOCKS = {"ahead": ("--monotonic=10000000", "--boottime=10000000"), "at zero": ("--monotonic={back}", "--boottime={back}")}


def of_another_clock(clock):
    """What runs a program whose machine has been up for another time than ours; no clock is set."""
    back = -int(time.clock_gettime(time.CLOCK_MONOTONIC)) + 1
    return ("unshare", "--time", "--fork", *(option.format(back=back) for option in CLOCKS[clock]))


needs_time = pytest.mark.skipif(subprocess.run(["unshare", "--time", "true"], capture_output=True).returncode != 0, reason="needs time namespaces")


@needs_time
@pytest.mark.parametrize("clock", CLOCKS)
def test_the_uptime_jumps_between_calls(over_nft, clock):
    """Nothing that is kept rests on it."""
    before, after = over_nft.both("append")
    lines, argv, stdin = CHANGES["append"]
    with over_nft.prepared(lines):
        listed = over_nft.call(["iptables", "-t", "raw", "-S"])
        assert over_nft.call(["iptables", "-t", "raw", "-S"], via=of_another_clock(clock)) == listed
        answer = over_nft.call(argv, stdin, via=of_another_clock(clock))
        assert answer == harness.Result(0, b"", b"") and over_nft.state() == after, answer.text()


@needs_time
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_lock_is_waited_for_as_long_as_was_said(shim, tmp_path, clock):
    """However long the machine has been up."""
    lock = tmp_path / "xtables.lock"
    bench = Bench(shim("legacy", ("raw",), "mangle"), str(lock))
    with bench.prepared(SOME[:1]), open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        begun = time.monotonic()
        answer = bench.call(["iptables", "-w", "2", "-t", "raw", "-A", *OTHER.split()[:-1], "DROP"], via=of_another_clock(clock), timeout=60)
        took = time.monotonic() - begun
        assert answer.rc == 4 and b"lock" in answer.err, answer.text()
        assert 1.9 < took < 20, took


@strace
@pytest.mark.parametrize("when", ("1970-01-02", "2098-12-31"))
def test_what_is_kept_has_no_age(over_nft, when, tmp_path):
    """Kept when the wall clock showed another year, it counts all the same: nothing is tried again."""
    log = tmp_path / "programs"
    script = f'mount -t tmpfs tmpfs /run && "$@" && find /run/xtshim -exec touch -d {when} {{}} + && exec strace -f -qq -e trace=execve -o {log} "$@"'
    with over_nft.prepared(SOME):
        plain = over_nft.call(["iptables", "-t", "raw", "-S"])
        twice = over_nft.call(["iptables", "-t", "raw", "-S"], via=("unshare", "-m", "sh", "-c", script, "sh"))
        assert (twice.rc, twice.out) == (0, plain.out * 2), twice.text()
    assert log.read_text().count("execve(") == 1


class Backends:
    """A directory of backends that do what a script says, instead of the real ones."""

    def __init__(self, tmp_path, variant):
        self.directory, self.variant = tmp_path / "backends", variant
        self.directory.mkdir()
        self.real()

    def real(self):
        for front in harness.FRONTS:
            self.put(front, f'exec -a {front} /usr/sbin/xtables-{self.variant}-multi "$@"')

    def put(self, front, script):
        name = front.replace("tables", f"tables-{self.variant}", 1)
        path = self.directory / name
        new = path.with_suffix(".new")
        new.write_text(f"#!/bin/bash\n{script}\n")
        new.chmod(0o755)
        new.rename(path)

    def all(self, script):
        for front in harness.FRONTS:
            self.put(front, script)


@pytest.fixture
def backends(bench, tmp_path):
    backends = Backends(tmp_path, bench.subject.variant)
    config = tmp_path / "xtshim.toml"
    harness.configure(config, bench.subject.variant, {"raw": "nft"}, tmp_path / "journal.jsonl", backends.directory)
    bench.env["XTSHIM_CONFIG"] = str(config)
    return backends


def test_the_backend_goes_and_another_comes(bench, backends):
    with bench.prepared(SOME[:1]):
        assert bench.call(["iptables", "-A", "INPUT", "-j", "ACCEPT"]).rc == 0
        shutil.rmtree(backends.directory)
        # With no iptables at all every table is carried.
        assert bench.call(["iptables", "-t", "mangle", "-A", "INPUT", "-j", "ACCEPT"]) == harness.Result(0, b"", b"")
        carried = bench.call(["iptables", "-t", "raw", "-C", *RULE.split()])
        assert carried == harness.Result(0, b"", b""), carried.text()
        backends.directory.mkdir()
        backends.real()
        assert bench.call(["iptables", "-C", "INPUT", "-j", "ACCEPT"]) == harness.Result(0, b"", b"")
        # One that cannot be started at all.
        backends.all("exit 1")
        assert bench.call(["iptables", "-t", "raw", "-C", *RULE.split()]) == harness.Result(0, b"", b"")


def test_a_hanging_backend_does_not_keep_carried_tables(bench, backends, tmp_path):
    """Its words are waited for, not for ever; its own tables are its own."""
    hang = tmp_path / "hang"
    with bench.prepared(SOME[:1]):
        # What a program is told by is its file: it must not be another by its hang.
        for front in harness.FRONTS:
            backends.put(front, f'[ -e {hang} ] && [ "$1" != --version ] && exec sleep 1000; exec -a {front} /usr/sbin/xtables-{bench.subject.variant}-multi "$@"')
        assert bench.call(["iptables", "-t", "raw", "-S"]).rc == 0
        hang.touch()
        begun = time.monotonic()
        wrong = bench.call(["iptables", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "x"], timeout=60)
        took = time.monotonic() - begun
        assert wrong.rc == 2 and wrong.err, wrong.text()
        assert took < 30, took
        right = bench.call(["iptables", "-t", "raw", "-A", *OTHER.split()], timeout=60)
        assert right == harness.Result(0, b"", b""), right.text()


def test_a_backend_that_reads_nothing(bench, backends):
    """It ends before it has taken what it is fed: what it says counts, and no signal ends us."""
    with bench.prepared(NOTHING):
        assert bench.call(["iptables", "-t", "raw", "-A", *RULE.split()]).rc == 0
        backends.put("iptables-restore", "exec <&-; echo no >&2; exit 3")
        file = b"*filter\n" + b"-A INPUT -j ACCEPT\n" * 20000 + b"COMMIT\n*raw\n-A OUTPUT -j ACCEPT\nCOMMIT\n"
        answer = bench.call(["iptables-restore", "-n"], file)
        assert answer == harness.Result(3, b"", b"no\n"), answer.text()


@strace
def test_a_refusal_that_is_lost(over_nft, tmp_path):
    """Neither the refusal nor the ruleset's generation can be learned: it is not in force, and is not called done."""
    lines = ("-N a", "-N b", "-A a -j b", "-A PREROUTING -j a")
    argv = ["iptables", "-t", "raw", "-A", "b", "-j", "a"]  # a loop, which the kernel finds
    log = tmp_path / "calls"
    with over_nft.prepared(lines):
        assert over_nft.call(argv, via=("strace", "-qq", "-e", "trace=sendto,recvfrom", "-o", str(log))).rc != 0
    number = answer_to_the_batch(log)
    with over_nft.prepared(lines):
        before = over_nft.state()
        answer = over_nft.call(argv, via=("strace", "-qq", "-o", "/dev/null", "-e", f"inject=recvfrom:error=EIO:when={number}..{number + 1}"))
        assert over_nft.state() == before
        assert answer.rc == 4 and b"may be in force" in answer.err, answer.text()
