"""Namespaces, the programs under test, and how two of them are compared.

A network namespace here has no name: the test process itself makes it, keeps it open through a descriptor, and steps
into it for the length of a call. Children inherit it, and it is gone with the last descriptor: nothing to clean up,
also when a test dies.
"""

import contextlib
import ctypes
import dataclasses
import difflib
import fcntl
import os
import re
import shlex
import socket
import struct
import subprocess

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unshare(flags):
    """unshare(2)."""
    _checked(_libc.unshare(flags))


def setns(descriptor):
    """setns(2) into a network namespace."""
    _checked(_libc.setns(descriptor, CLONE_NEWNET))


def mount(source, target, kind, flags=0, data=None):
    """mount(2)."""
    encode = lambda text: None if text is None else text.encode()
    _checked(_libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)))


def unmount(target):
    """umount2(2), also of what is still in use."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH))


class Netns:
    """A network namespace of our own, with `lo` up."""

    def __init__(self):
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            unshare(CLONE_NEWNET)
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            with socket.socket() as any:
                fcntl.ioctl(any, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
        finally:
            setns(home)
            os.close(home)

    @contextlib.contextmanager
    def entered(self):
        """Everything inside happens in this namespace, children included."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.fd)
            yield self
        finally:
            setns(home)
            os.close(home)

    @property
    def path(self):
        """A name for this namespace that `ip link … netns` takes."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def sh(self, command, check=True):
        """Runs a command line in here, for preparing things; gives its standard output."""
        with self.entered():
            done = subprocess.run(shlex.split(command), capture_output=True, text=True)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}: {done.stderr}")
        return done.stdout

    def ip(self, *lines):
        """Runs lines of ip(8), all in one call."""
        with self.entered():
            done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"{lines}: {done.stderr}")

    def read(self, path):
        """The lines of a file of /proc as they are in here."""
        with self.entered(), open(path) as file:
            return file.read().splitlines()

    def setting(self, name):
        """What a setting below /proc/sys/net says in here."""
        return self.read(f"/proc/sys/net/{name}")[0]

    def settings(self, values):
        """Gives settings below /proc/sys/net their values in here."""
        with self.entered():
            for name, value in values.items():
                with open(f"/proc/sys/net/{name}", "w") as file:
                    file.write(str(value))

    def close(self):
        os.close(self.fd)


FRONTS = ("iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore")

TABLES = ("filter", "nat", "mangle", "raw", "security")


@dataclasses.dataclass(frozen=True)
class Subject:
    """One thing that answers to iptables' names."""

    name: str
    variant: str  # legacy | nft: the backend at work
    ours: bool
    directory: str  # holds a link for each front
    config: str = "/nonexistent"
    journal: str = ""

    def path(self, front):
        return os.path.join(self.directory, front)

    def environment(self):
        return {"XTSHIM_CONFIG": self.config} if self.ours else {}


def configure(path, variant=None, carriers=None, journal="none", backends=None):
    """Writes a configuration of ours: over which `variant`, by what each table is carried ({table: carrier}), the file of
    the journal, and the directory of the backends."""
    lines = [f'backend = "{variant}"'] if variant else []
    if backends:
        lines += ["[backends]", f'directory = "{backends}"']
    if carriers:
        lines += ["[carriers]", *(f'{table} = "{carrier}"' for table, carrier in carriers.items())]
    path.write_text("\n".join([*lines, "[journal]", f'file = "{journal}"', "system = false", ""]))


@dataclasses.dataclass
class Result:
    """What a caller sees of one call."""

    rc: int
    out: bytes
    err: bytes

    def text(self):
        return f"exit {self.rc}\n--- stdout\n{self.out.decode(errors='backslashreplace')}--- stderr\n{self.err.decode(errors='backslashreplace')}"


BASE_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def execute(argv, stdin=None, env=None, timeout=180, **more):
    """Runs `argv` and catches everything it says. `stdin` is bytes or None (/dev/null)."""
    feed = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(argv, capture_output=True, env={**BASE_ENVIRONMENT, **(env or {})}, timeout=timeout, **feed, **more)
    return Result(done.returncode, done.stdout, done.stderr)


_STAMP = re.compile(rb"^(# (?:Generated by|Completed) .*?on ).*$", re.M)


def without_dates(data):
    """iptables-save output with the time taken out of its comments."""
    return _STAMP.sub(rb"\1DATE", data)


_POLICY_COUNTED = re.compile(rb"^(Chain \S+ \(policy [A-Z]+|-P \S+ [A-Z]+|:\S+ (?:ACCEPT|DROP))(?: \d+ packets, \d+ bytes| -c \d+ \d+| \[\d+:\d+\])", re.M)
_COUNTED = re.compile(rb"\[\d+:\d+\]")


def tables(saved, counters=False):
    """An iptables-save text as {table: lines}, without tables that hold nothing: which of those a backend prints
    depends on what was merely looked at."""
    found, name = {}, None
    for line in saved.splitlines():
        if line.startswith(b"#"):
            continue
        if line.startswith(b"*"):
            name = line[1:].decode()
            found[name] = []
        elif name and line != b"COMMIT":
            found[name].append(line if counters else _COUNTED.sub(b"[]", line))
    idle = re.compile(rb":[A-Z]+ ACCEPT( \[(0:0)?\])?$" if counters else rb":[A-Z]+ ACCEPT( \[\])?$")
    return {name: lines for name, lines in found.items() if not all(idle.match(line) for line in lines)}


# What ours may refuse although the original takes it: rules that have no exact form in nf_tables.
REFUSALS = tuple(
    b"cannot carry " + reason
    for reason in (
        b"a name of an interface with characters that nft would take otherwise", b"! --sport: means every packet", b"! --dport: means every packet", b"a log prefix that nft would take otherwise", b"-j CT --zone mark:", b"-j CT --ctevents:", b"-j CT --expevents:", b"-j CT --helper:", b"-j CT --timeout:", b"-j NFLOG --nflog-range:", b"-m addrtype: THROW,NAT,XRESOLVE has no equal", b"-m addrtype: is decided otherwise in IPv6", b"-m conntrack: has a mask with holes", b"--tcp-option: nf_tables passes over",
        b"-j TOS: flips bits", b"--set: would be seen by what the rule asks before", b"! --helper: also means", b"a name with characters that nft would take otherwise", b"--helper: means any helper", b"-j ECN --ecn-tcp-", b"--ttl-inc: nft has no words", b"--ttl-dec: nft has no words",
        b"--chunk-types: xt drops", b"--dccp-option: nf_tables steps", b"--hbh-opts: nf_tables has no", b"--dst-opts: nf_tables has no", b"-m ipv6header:", b"-m srh:",
    )
)

_CHANGES = {
    "-A", "-I", "-D", "-R", "-F", "-N", "-X", "-E", "-P", "-Z", "--append", "--insert", "--delete", "--replace",
    "--flush", "--new-chain", "--delete-chain", "--rename-chain", "--policy", "--zero",
}
_TALKS = {"-L", "-S", "-C", "--list", "--list-rules", "--check", "-v", "-vv", "--verbose", "-h", "-V", "--help", "--version"}


def must_be_silent(argv):
    """A command that changes something and was not asked to talk."""
    words = set(argv)
    return bool(words & _CHANGES) and not words & _TALKS


class Both:
    """The original in one namespace and, where ours is under test, ours in another beside it, fed with the same.

    Differences are collected rather than raised, so that one run shows all of them; `verdict` raises. With an
    original as the subject the same test runs on that alone: it shows that what the test expects is what iptables
    does.
    """

    def __init__(self, subjects, lock):
        self.env = {"XTABLES_LOCKFILE": lock}
        self.places = [(subject, Netns()) for subject in subjects]
        self.history, self.faults = [], []
        # The base chains of iptables-nft 1.8.9 count only once a policy has been set.
        self.policies_count = subjects[-1].variant == "legacy"

    @property
    def subject(self):
        """What is under test: the last."""
        return self.places[-1][0]

    def close(self):
        for _, place in self.places:
            place.close()

    def each(self, action):
        """`action(namespace)` inside of each namespace; the answers as a list, the original's first."""
        answers = []
        for _, place in self.places:
            with place.entered():
                answers.append(action(place))
        return answers

    def call(self, subject, place, argv, stdin=None, env=None, via=(), **more):
        """One call of one of the two. `argv[0]` is a front's name; `via` is a command that is given it to run."""
        with place.entered():
            return execute([*via, subject.path(argv[0]), *argv[1:]], stdin=stdin, env={**self.env, **subject.environment(), **(env or {})}, **more)

    def run(self, command, rc=None, stdin=None, **more):
        """Runs `command` (text as for a shell, or a list) in each place; gives the subject's result. With `rc` 0 a plain
        change must also be silent, the original's included."""
        argv = shlex.split(command) if isinstance(command, str) else list(command)
        self.history.append(shlex.join(argv) + (f"  <<< {stdin!r}" if stdin else ""))
        results = [self.call(subject, place, argv, stdin, **more) for subject, place in self.places]
        for (subject, _), result in zip(self.places, results):
            if rc is not None and result.rc != rc:
                self.fault(f"{subject.name}: exit {result.rc}, expected {rc}", result.text())
            if rc == result.rc == 0 and must_be_silent(argv) and (result.out or result.err):
                self.fault(f"{subject.name}: a success that is not silent", result.text())
        if len(results) == 2:
            self.compare(*results)
        return results[-1]

    def offer(self, argv):
        """Gives a rule (`-A` or `-I`) to both; True where both took it. A refusal of ours that is among REFUSALS is no
        fault; the original's rule is taken away again."""
        self.history.append(shlex.join(argv))
        results = [self.call(subject, place, argv) for subject, place in self.places]
        wanted, got = results[0], results[-1]
        if wanted.rc == 0 and got.rc != 0 and any(reason in got.err for reason in REFUSALS):
            # By its number: an original may take it for another rule of the chain, which it would then delete instead.
            at = next(index for index, word in enumerate(argv) if word in ("-A", "-I"))
            front, chain = argv[0], argv[at + 1]
            table = argv[argv.index("-t") + 1] if "-t" in argv else "filter"
            listed = self.call(*self.places[0], [front, "-t", table, "-S", chain]).out.splitlines()
            number = sum(line.startswith(b"-A ") for line in listed) if argv[at] == "-A" else 1
            self.call(*self.places[0], [front, "-t", table, "-D", chain, str(number)])
            return False
        if len(results) == 2:
            self.compare(wanted, got)
        return wanted.rc == got.rc == 0

    def compare(self, wanted, got):
        problems = []
        if wanted.rc != got.rc:
            problems.append(f"exit {got.rc} instead of {wanted.rc}")
        # Some messages bear the path that the caller used.
        here = lambda data, subject: self.comparable(without_dates(data).replace(subject.directory.encode(), b"DIRECTORY"))
        for what, a, b in (("stdout", wanted.out, got.out), ("stderr", wanted.err, got.err)):
            a, b = here(a, self.places[0][0]), here(b, self.subject)
            if a != b:
                problems.append(f"{what} differs:\n" + difference(a, b))
        if problems:
            self.fault("differs from the original", "\n".join(problems))

    def comparable(self, data):
        """`data` without policy counters where these are not to be compared."""
        return data if self.policies_count else _POLICY_COUNTED.sub(rb"\1", data)

    def state(self, counters=False):
        """Compares all tables of both families as iptables-save gives them."""
        for front in ("iptables-save", "ip6tables-save"):
            argv = [front, "-c"] if counters else [front]
            saved = [self.call(subject, place, argv) for subject, place in self.places]
            self.history.append(shlex.join(argv))
            for (subject, _), result in zip(self.places, saved):
                if result.rc or result.err:
                    self.fault(f"{subject.name}: {front} failed", result.text())
            if len(saved) == 2:
                wanted, got = (tables(self.comparable(result.out), counters) for result in saved)
                if wanted != got:
                    flat = lambda all: "\n".join(f"*{t}\n" + b"\n".join(all[t]).decode(errors="backslashreplace") for t in sorted(all)).encode()
                    self.fault("the tables differ", difference(flat(wanted), flat(got)))

    def equal(self, answers, what):
        """What `each` gave must be the same in both places."""
        if len(answers) == 2 and answers[0] != answers[1]:
            self.fault(what, f"original: {answers[0]!r}\nours:     {answers[1]!r}")

    def fault(self, headline, detail=""):
        # What led to the first fault is told at length, of later ones only the step itself.
        last = 2 if self.faults else 12
        steps = "\n".join(f"  {number}. {step}" for number, step in list(enumerate(self.history, 1))[-last:])
        self.faults.append(f"{headline}, after\n{steps}\n{detail}")

    def verdict(self):
        if self.faults:
            shown = "\n\n".join(self.faults[:20])
            raise AssertionError(f"{len(self.faults)} fault(s)\n{shown}")


def difference(wanted, got):
    """A unified diff of two byte texts that shows blanks at line ends."""
    lines = lambda data: [repr(line)[2:-1] for line in data.split(b"\n")]
    return "\n".join(difflib.unified_diff(lines(wanted), lines(got), "original", "ours", lineterm="", n=2))
