"""A table that the backend holds becomes ours at the first change: no moment without its rules, whatever happens."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import time

import pytest

import harness
import packets

DROP = ("-A", "INPUT", "-p", "udp", "--dport", "4000", "-j", "DROP")
OTHER = ("-A", "OUTPUT", "-o", "nowhere", "-j", "ACCEPT")
RULES = b"""*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [5:6]
:OUTPUT ACCEPT [0:0]
:empty - [0:0]
:web - [0:0]
[1:2] -A INPUT -p udp -m udp --dport 4000 -j DROP
[3:4] -A INPUT -p tcp -m tcp --dport 80 -m comment --comment "a \\"b\\"" -j web
[0:0] -A INPUT -i eth0 -g web
[7:8] -A web -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
[9:10] -A web -j DROP
COMMIT
"""


class Machine:
    """A namespace, the original that it used to be called with, and ours over it, which is to carry its tables."""

    def __init__(self, variant, original, program, directory, tables=("filter", "nat", "mangle", "raw")):
        self.variant, self.original, self.program, self.directory = variant, original(variant), program, directory
        self.journal = directory / "journal.jsonl"
        self.place = harness.Netns()
        self.env = {"XTABLES_LOCKFILE": str(directory / "lock"), "XTSHIM_CONFIG": str(directory / "xtshim.toml")}
        self.configure(tables)

    def configure(self, tables):
        harness.configure(self.directory / "xtshim.toml", self.variant, dict.fromkeys(tables, "nft"), self.journal)

    def theirs(self, *argv, stdin=None):
        """The original, behind our back."""
        with self.place.entered():
            answer = harness.execute([self.original.path(argv[0]), *argv[1:]], stdin, self.env)
        assert answer.rc == 0, answer.text()
        return answer.out

    def ours(self, *argv, stdin=None, via=(), rc=0):
        with self.place.entered():
            answer = harness.execute([*via, str(self.program), *argv], stdin, self.env)
        if rc is not None:
            assert answer.rc == rc, answer.text()
        return answer

    def nft(self, *argv):
        with self.place.entered():
            answer = harness.execute(["nft", *argv])
        assert answer.rc == 0, answer.text()
        return answer.out.decode()

    def carried(self, table="filter", family="ip"):
        return f"table {family} xtshim-{table}\n" in self.nft("list", "tables")

    def told(self):
        return [json.loads(line) for line in self.journal.read_text().splitlines()] if self.journal.exists() else []

    def dropped(self, family=4, port=4000):
        with self.place.entered():
            return not packets.udp_arrives_over_lo(family, port)

    def rules(self, front="iptables", table="filter"):
        return [line for line in self.ours(front, "-t", table, "-S").out.decode().splitlines() if not line.startswith("-P")]

    def emptied(self, front="iptables", table="filter"):
        saved = self.theirs(f"{front}-save", "-t", table).decode()
        return "-A " not in saved and " - [" not in saved and " DROP [" not in saved


@pytest.fixture
def machine(variant, original, program, tmp_path):
    made = Machine(variant, original, program, tmp_path)
    yield made
    made.place.close()


def test_first_change(machine):
    """Rules, chains, policies and counters are ours then, the backend's table is empty, and it was told of once."""
    machine.theirs("iptables-restore", "-c", stdin=RULES)
    before = machine.theirs("iptables-save", "-c", "-t", "filter")
    assert machine.ours("iptables", *OTHER) == harness.Result(0, b"", b"")
    assert machine.carried() and machine.emptied()
    after = machine.ours("iptables-save", "-c", "-t", "filter").out
    lines = lambda saved: [line for line in saved.decode().splitlines() if not line.startswith("#")]
    added = "[0:0] -A OUTPUT -o nowhere -j ACCEPT"
    policies = lambda saved: [re.sub(r"^(:\S+ \S+) \[.*", r"\1", line) for line in saved] if machine.variant == "nft" else saved
    assert added in lines(after)
    assert policies([line for line in lines(after) if line != added]) == policies(lines(before))
    assert machine.dropped()
    first, second = machine.told()
    assert first["result"] == second["result"] == "ok" and f"5 rules were taken over from iptables-{machine.variant}" in first["why"], first
    assert any("add rule ip xtshim-filter" in line for line in first["applied"]), first


def test_listings_leave_it(machine):
    machine.theirs("iptables-restore", stdin=RULES)
    before = machine.theirs("iptables-save", "-t", "filter")
    for line in ("-S", "-nvL", "-C INPUT -i eth0 -g web", "-L web", "-V", "-h", "-A INPUT --nonsense"):
        machine.ours("iptables", *line.split(), rc=None)
    assert harness.without_dates(machine.ours("iptables-save", "-t", "filter").out) == harness.without_dates(before)
    machine.ours("iptables-restore", "--test", stdin=b"*filter\n-A INPUT -j DROP\nCOMMIT\n")
    assert not machine.carried() and machine.told() == []
    assert harness.without_dates(machine.theirs("iptables-save", "-t", "filter")) == harness.without_dates(before)


@pytest.mark.parametrize("change", ("-F", "-D INPUT 1", "-I INPUT 2 -j ACCEPT", "-N new", "-X empty", "-P OUTPUT DROP", "-Z", "-E web other", "-R INPUT 1 -j ACCEPT", "-L -Z"))
def test_any_change(machine, change, original, tmp_path):
    """The same as on the original alone."""
    machine.theirs("iptables-restore", stdin=RULES)
    machine.ours("iptables", *change.split())
    assert machine.carried() and machine.emptied()
    alone = harness.Netns()
    with alone.entered():
        for argv, stdin in ((["iptables-restore"], RULES), (["iptables", *change.split()], None)):
            assert harness.execute([machine.original.path(argv[0]), *argv[1:]], stdin, machine.env).rc == 0
        wanted = harness.execute([machine.original.path("iptables"), "-S"], env=machine.env).out
    alone.close()
    assert machine.ours("iptables", "-S").out == wanted


def test_what_cannot_be_carried_stays(machine):
    """One rule without a native form: the whole table stays, the change is the backend's, and the journal says why."""
    machine.theirs("iptables-restore", stdin=RULES)
    machine.theirs("iptables", "-A", "web", "-m", "string", "--string", "x", "--algo", "bm", "-j", "DROP")
    before = machine.theirs("iptables", "-S").decode()
    machine.ours("iptables", *OTHER)
    assert not machine.carried()
    after = machine.theirs("iptables", "-S").decode().splitlines()
    assert [line for line in after if line != " ".join(OTHER)] == before.splitlines() and " ".join(OTHER) in after
    (record,) = machine.told()
    assert "stays with iptables-" in record["result"] and "-m string" in record["result"] and record["applied"] == [], record
    # Without the rule it is taken.
    machine.theirs("iptables", "-D", "web", "3")
    machine.ours("iptables", "-F", "empty")
    assert machine.carried() and machine.emptied()


def test_a_new_rule_that_cannot_be_carried(machine):
    """The table is not taken over for a rule that would be refused then."""
    machine.theirs("iptables-restore", stdin=RULES)
    machine.ours("iptables", "-A", "INPUT", "-m", "string", "--string", "x", "--algo", "bm", "-j", "DROP")
    assert not machine.carried() and b"--string" in machine.theirs("iptables", "-S")
    (record,) = machine.told()
    assert record["result"].startswith("passed on to iptables, which holds filter here: -m string"), record


def test_a_rule_that_the_kernel_lacks_something_for(machine):
    """A rule of the backend's that takes what nf_tables was not built with here: the table stays."""
    if "# CONFIG_NFT_QUEUE is not set" not in os.popen("zcat /proc/config.gz").read():
        pytest.skip("this kernel lacks nothing that is known here")
    machine.theirs("iptables", *DROP)
    machine.theirs("iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "4005", "-j", "NFQUEUE", "--queue-num", "3")
    machine.ours("iptables", *OTHER)
    assert not machine.carried() and machine.dropped() and " ".join(OTHER).encode() in machine.theirs("iptables", "-S")
    (record,) = machine.told()
    assert "stays with iptables-" in record["result"] and "No such file or directory" in record["result"], record


def test_while_others_change_the_ruleset(machine):
    """Somebody who changes nf_tables all the time does not keep a table from being taken over, nor is it taken by halves."""
    machine.nft("add", "table", "ip", "busy")
    with machine.place.entered():
        busy = subprocess.Popen(["sh", "-c", "while :; do nft add chain ip busy x; nft delete chain ip busy x; done"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(5):
            machine.theirs("iptables-restore", stdin=RULES)
            machine.ours("iptables", *OTHER)
            assert machine.carried() and machine.emptied() and machine.dropped() and len(machine.rules()) == 8
            machine.nft("delete", "table", "ip", "xtshim-filter")
    finally:
        busy.kill()
        busy.wait()


@pytest.mark.parametrize("options", ("", "-n", "-c"))
def test_a_file(machine, options):
    """A restore takes over what it is to change, and no more."""
    machine.theirs("iptables-restore", stdin=RULES)
    machine.theirs("iptables", "-t", "mangle", "-A", "OUTPUT", "-j", "ACCEPT")
    machine.ours("iptables-restore", *options.split(), stdin=b"*filter\n:mine - [0:0]\n-A mine -p udp --dport 4001 -j DROP\n-A INPUT -j mine\nCOMMIT\n")
    assert machine.carried() and machine.emptied() and not machine.carried("mangle")
    assert machine.dropped(port=4001) and machine.dropped() == (options == "-n")
    assert ("-N web" in machine.rules()) == (options == "-n")


def test_families_and_tables(machine):
    for front, family in (("iptables", "ip"), ("ip6tables", "ip6")):
        for table, rule in (("mangle", "-A PREROUTING -p udp -m udp --dport 4000 -j DROP"), ("raw", "-A OUTPUT -p udp -m udp --dport 4002 -j DROP"), ("nat", "-A POSTROUTING -o eth0 -j MASQUERADE")):
            machine.theirs(front, "-t", table, *rule.split())
            machine.ours(front, "-t", table, "-N", "new")
            assert machine.carried(table, family) and machine.emptied(front, table)
            assert machine.rules(front, table) == ["-N new", rule]
    for family in (4, 6):
        assert machine.dropped(family) and machine.dropped(family, 4002) and not machine.dropped(family, 4001)


def test_at_once(machine):
    """Eight first changes at the same moment: one takes over, none is lost."""
    machine.theirs("iptables-restore", stdin=RULES)
    with machine.place.entered():
        running = [
            subprocess.Popen([str(machine.program), "iptables", "-w", "-A", "OUTPUT", "-d", f"10.0.0.{number}", "-j", "ACCEPT"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**harness.BASE_ENVIRONMENT, **machine.env})
            for number in range(8)
        ]
    outcomes = [(process.communicate(timeout=60)[0], process.returncode) for process in running]
    assert outcomes == [(b"", 0)] * 8
    assert sum(line.startswith("-A OUTPUT") for line in machine.rules()) == 8 and sum(line.startswith("-A INPUT") for line in machine.rules()) == 3
    assert machine.emptied() and "xtshim-takeover" not in machine.nft("list", "ruleset")
    assert sum("taken over" in record["why"] and record["applied"] != [] for record in machine.told()) == 1


def test_the_lock_is_heeded(machine):
    """While another holds iptables' lock, nothing is taken over from iptables-legacy."""
    import fcntl

    if machine.variant == "nft":
        pytest.skip("iptables-nft has no lock")
    machine.theirs("iptables-restore", stdin=RULES)
    with open(machine.env["XTABLES_LOCKFILE"], "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = machine.ours("iptables", "-w", "1", *OTHER, rc=4)
        assert b"holding the xtables lock" in answer.err, answer.text()
    assert not machine.carried() and machine.dropped()
    machine.ours("iptables", "-w", "1", *OTHER)
    assert machine.carried()


# Each is made by the process itself, not by what it starts; a kill comes before the call that it is counted at.
STEPS = ("openat", "flock", "sendto", "recvfrom", "memfd_create", "clone,clone3,?fork,?vfork", "wait4,waitid", "getsockopt", "close")


def state(machine):
    """Which of the two hold the rule, each proven alone: by listing, and together by a packet."""
    theirs = b"--dport 4000 -j DROP" in machine.theirs("iptables-save", "-t", "filter")
    ours = machine.carried() and "udp dport 4000" in machine.nft("list", "table", "ip", "xtshim-filter")
    return theirs, ours


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("step", STEPS)
def test_killed(machine, step):
    """Killed before each system call of a kind in turn: the rules are in force throughout, and the next change finishes."""
    machine.ours("iptables", "-V")
    killed, number, seen = 0, 0, set()
    while number < 60:
        number += 1
        machine.theirs("iptables-restore", stdin=RULES)
        with machine.place.entered():
            answer = harness.execute(["strace", "-o", "/dev/null", "-e", f"inject={step}:signal=KILL:when={number}", str(machine.program), "iptables", *OTHER], env=machine.env)
        done = answer.rc == 0
        theirs, ours = state(machine)
        assert theirs or ours, f"neither, killed at {step} {number}"
        assert machine.dropped(), f"the packet passes, killed at {step} {number}: {theirs} {ours}"
        assert "--dport 4000" in machine.ours("iptables", "-S").out.decode()
        killed += not done
        seen.add((theirs, ours))
        machine.ours("iptables", "-A", "OUTPUT", "-o", "elsewhere", "-j", "ACCEPT")
        assert state(machine) == (False, True), f"not finished, killed at {step} {number}: {machine.told()[-1]}"
        assert machine.dropped() and machine.emptied()
        ruleset = machine.nft("list", "ruleset")
        assert "xtshim-takeover" not in ruleset and ruleset.count("udp dport 4000") == 1
        machine.nft("delete", "table", "ip", "xtshim-filter")
        if done:
            break
    assert done, f"{step} is still being called"
    assert killed or step in ("flock", "getsockopt")
    if step.startswith("clone"):
        assert (True, False) in seen and ((True, True) in seen) == (machine.variant == "legacy"), seen


def test_finishing_what_was_changed_meanwhile(machine):
    """Stopped between the two, and then somebody speaks to iptables-legacy itself: nothing of that is lost."""
    if machine.variant == "nft":
        pytest.skip("one transaction has no between")
    machine.theirs("iptables-restore", stdin=RULES)
    machine.ours("iptables", *OTHER)
    # As it is when ours has been made and theirs not yet been emptied.
    machine.nft("add", "chain", "ip", "xtshim-filter", "xtshim-takeover-is-not-finished")
    machine.theirs("iptables-restore", stdin=RULES)
    machine.theirs("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4001", "-j", "DROP")
    assert machine.dropped() and machine.dropped(port=4001)
    machine.ours("iptables", "-N", "new")
    assert machine.emptied() and "xtshim-takeover" not in machine.nft("list", "ruleset")
    assert machine.dropped() and machine.dropped(port=4001) and "-N new" in machine.rules()
    # What has come and cannot be carried gives the table back, whole.
    machine.nft("add", "chain", "ip", "xtshim-filter", "xtshim-takeover-is-not-finished")
    machine.theirs("iptables-restore", stdin=RULES)
    machine.theirs("iptables", "-A", "INPUT", "-m", "string", "--string", "x", "--algo", "bm", "-j", "DROP")
    machine.ours("iptables", "-N", "newer")
    assert not machine.carried() and machine.dropped()
    listed = machine.theirs("iptables", "-S").decode()
    assert "-N newer" in listed and "--string" in listed
    assert "stays with iptables-legacy" in machine.told()[-1]["result"]


@pytest.mark.parametrize("family", (4, 6))
def test_flush(machine, family):
    """Ours goes, of one table or all."""
    front, nft = ("iptables", "ip") if family == 4 else ("ip6tables", "ip6")
    machine.ours(front, *DROP)
    machine.ours(front, "-t", "mangle", "-N", "mine")
    assert machine.ours("flush", "--table", "mangle").out == f"{nft} mangle: removed\n".encode()
    assert not machine.carried("mangle", nft) and machine.dropped(family)
    assert machine.ours("flush", "--family", "ip6" if family == 4 else "ip").out == b"Nothing of it is carried in this network namespace.\n"
    assert machine.dropped(family)
    assert machine.ours("flush").out == f"{nft} filter: removed\n".encode()
    assert not machine.carried("filter", nft) and not machine.dropped(family)
    assert [record["command"] for record in machine.told()][-1] == "xtshim flush"
    assert machine.ours("flush", "--table", "nonsense", rc=1).err == b"xtshim: there is no table `nonsense`\n"


def test_hand_back(machine):
    """The backend holds the rules then, counters too, and nothing of ours is left."""
    machine.ours("iptables-restore", "-c", stdin=RULES)
    machine.ours("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE")
    machine.ours("ip6tables", "-t", "raw", "-P", "OUTPUT", "DROP")
    before = {table: machine.ours(f"{front}-save", "-c", "-t", table).out for front, table in (("iptables", "filter"), ("iptables", "nat"), ("ip6tables", "raw"))}
    assert machine.carried()
    answer = machine.ours("flush", "--hand-back")
    assert f"ip filter: given to iptables-{machine.variant}, 5 rules\n" in answer.out.decode(), answer.text()
    assert "xtshim" not in machine.nft("list", "tables")
    policies = lambda saved: re.sub(rb"^(:\S+ \S+) \[.*", rb"\1", harness.without_dates(saved), flags=re.M) if machine.variant == "nft" else harness.without_dates(saved)
    for (front, table), wanted in zip((("iptables", "filter"), ("iptables", "nat"), ("ip6tables", "raw")), before.values()):
        assert policies(machine.theirs(f"{front}-save", "-c", "-t", table)) == policies(wanted)
    assert machine.dropped()


def test_hand_back_beside_others(machine):
    """Rules that the backend holds by then are neither lost nor mixed with ours; the same rules are ours that were left."""
    machine.ours("iptables", *DROP)
    machine.theirs("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4001", "-j", "DROP")
    answer = machine.ours("flush", "--hand-back", rc=1)
    assert b"ip filter: still carried: " in answer.out, answer.text()
    assert machine.carried() and machine.dropped() and machine.dropped(port=4001)
    machine.theirs("iptables", "-F")
    machine.theirs("iptables", *DROP)
    machine.ours("flush", "--hand-back")
    assert not machine.carried() and machine.dropped() and b"--dport 4000" in machine.theirs("iptables", "-S")


def test_hand_back_needs_somebody(machine):
    machine.ours("iptables", *DROP)
    empty = machine.directory / "empty"
    empty.mkdir()
    harness.configure(machine.directory / "xtshim.toml", backends=empty)
    answer = machine.ours("flush", "--hand-back", rc=1)
    assert b"ip filter: still carried: there is no iptables to give it to\n" == answer.out and machine.dropped()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("step", STEPS)
def test_hand_back_killed(machine, step):
    """Killed before each system call of a kind in turn: the rule is in force throughout, and calling again finishes."""
    machine.ours("iptables", "-V")
    number, done = 0, False
    while not done and number < 60:
        number += 1
        machine.ours("iptables-restore", stdin=RULES)
        with machine.place.entered():
            answer = harness.execute(["strace", "-o", "/dev/null", "-e", f"inject={step}:signal=KILL:when={number}", str(machine.program), "flush", "--hand-back"], env=machine.env)
        done = answer.rc == 0
        theirs, ours = state(machine)
        assert theirs or ours, f"neither, killed at {step} {number}"
        assert machine.dropped(), f"the packet passes, killed at {step} {number}: {theirs} {ours}"
        machine.ours("flush", "--hand-back")
        assert state(machine) == (True, False) and machine.dropped(), f"not finished, killed at {step} {number}"
        machine.theirs("iptables-restore", stdin=b"*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")
    assert done, f"{step} is still being called"


def test_probe_tells(machine):
    """What the next change would take over, what stays and why, and where both hold rules."""
    here = lambda: {(row["family"], row["table"]): row["here"] for row in json.loads(machine.ours("probe", "--json").out)["tables"]}
    assert not any(here().values())
    machine.theirs("iptables-restore", stdin=RULES)
    machine.theirs("iptables", "-t", "mangle", "-A", "OUTPUT", "-m", "string", "--string", "x", "--algo", "bm", "-j", "ACCEPT")
    told = here()
    name = f"iptables-{machine.variant}"
    assert told["ip", "filter"] == [f"{name} holds rules here; the next change makes them ours"], told
    assert told["ip", "mangle"][0].startswith(f"stays with {name} here: ") and "-m string" in told["ip", "mangle"][0], told
    assert f"  ip filter: {name} holds rules here; the next change makes them ours\n" in machine.ours("probe").out.decode()
    machine.ours("iptables", *OTHER)
    assert here()["ip", "filter"] == []
    machine.theirs("iptables", "-A", "INPUT", "-j", "ACCEPT")
    clause = f"{name} holds rules in filter too, and each packet meets both"
    assert here()["ip", "filter"] == [clause]
    machine.ours("iptables", "-N", "new")
    assert machine.told()[-1]["why"].endswith(f"; but {clause}"), machine.told()[-1]


@pytest.mark.parametrize("table, chain", (("filter", "INPUT"), ("mangle", "INPUT"), ("raw", "PREROUTING")))
@pytest.mark.parametrize("first", ("ours", "theirs"))
def test_rules_in_both_at_one_hook(machine, table, chain, first):
    """A packet has to come through both, whoever's chain was made first; neither shows in the other's listings."""
    rule = lambda number, verdict: ("-p", "udp", "--dport", str(4000 + number), "-j", verdict)
    combinations = [(mine, other) for mine in ("ACCEPT", "DROP") for other in ("ACCEPT", "DROP")]
    if first == "theirs":
        machine.theirs("iptables", "-t", table, "-P", chain, "ACCEPT")
    # What is carried already is not taken over again, so that both stand where they are put.
    machine.ours("iptables", "-t", table, "-A", chain, "-s", "192.0.2.1", "-j", "DROP")
    for who in (first, "theirs" if first == "ours" else "ours"):
        for number, verdicts in enumerate(combinations):
            getattr(machine, who)("iptables", "-t", table, "-A", chain, *rule(number, verdicts[who == "theirs"]))
    assert [machine.dropped(port=4000 + number) for number in range(4)] == ["DROP" in verdicts for verdicts in combinations]
    ours, theirs = machine.rules(table=table), machine.theirs("iptables", "-t", table, "-S").decode()
    assert len(ours) == 5 and theirs.count("--dport") == 4, (ours, theirs)
    machine.theirs("iptables", "-t", table, "-F", chain)
    assert [machine.dropped(port=4000 + number) for number in range(4)] == [mine == "DROP" for mine, _ in combinations]
    assert machine.rules(table=table) == ours
    machine.ours("iptables", "-t", table, "-F", chain)
    assert not any(machine.dropped(port=4000 + number) for number in range(4))


INPUT = "add chain ip filter INPUT { type filter hook input priority 0; policy accept; }"
# What iptables-nft-save leaves out or shows as something else, and whether port 4000 is dropped then.
HIDDEN = {
    "set": ("add table ip filter", INPUT.replace("accept", "drop"), "add set ip filter S { type ipv4_addr; }", "add rule ip filter INPUT ip saddr @S accept", True),
    "range": ("add table ip filter", INPUT, "add rule ip filter INPUT meta l4proto udp ip saddr 127.0.0.0-127.0.0.9 drop", True),
    "map": ("add table ip filter", INPUT, "add rule ip filter INPUT udp dport vmap { 4000 : drop }", True),
    "value": ("add table ip filter", INPUT, "add rule ip filter INPUT meta l4proto > 1 counter drop", True),
    "twice": ("add table ip filter", INPUT, "add rule ip filter INPUT ip daddr 127.0.0.1 ip daddr 127.0.0.2 accept", "add rule ip filter INPUT meta l4proto udp drop", True),
    "write": ("add table ip filter", INPUT, "add rule ip filter INPUT ip dscp set cs1", "add rule ip filter INPUT meta l4proto udp drop", True),
    "dormant": ("add table ip filter { flags dormant; }", INPUT, "add rule ip filter INPUT meta l4proto udp drop", False),
    "another chain": ("add table ip filter", INPUT, INPUT.replace("INPUT", "input").replace("accept", "drop"), True),
    "priority": ("add table ip filter", INPUT.replace("priority 0", "priority 10").replace("accept", "drop"), True),
    "hook": ("add table ip filter", INPUT.replace("hook input", "hook output").replace("accept", "drop"), True),
    "type": ("add table ip filter", "add chain ip filter OUTPUT { type route hook output priority 0; policy drop; }", True),
}


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_its_program_does_not_show(machine, hidden):
    """A table of iptables-nft's that holds more than its program prints stays, all of it in force."""
    if machine.variant == "legacy":
        pytest.skip("iptables-legacy shows all that the kernel holds")
    *commands, dropped = HIDDEN[hidden]
    for command in commands:
        machine.nft(command)
    lines = lambda: re.sub(r"packets \d+ bytes \d+", "", machine.nft("list", "ruleset")).splitlines()
    before = lines()
    assert machine.dropped() == dropped
    machine.ours("iptables", "-A", "FORWARD", "-j", "ACCEPT", rc=None)
    assert not machine.carried() and machine.dropped() == dropped
    after = lines()
    assert [line for line in before if line not in after] == []
    (record,) = machine.told()
    assert "stays with iptables-nft" in record["result"] and record["applied"] == [], record


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_without_a_namespace_to_try_it_in(machine):
    """What iptables-nft shows is believed only where it can be proven; iptables-legacy's kernel counts."""
    machine.theirs("iptables-restore", stdin=RULES)
    machine.ours("iptables", *OTHER, via=("setpriv", "--bounding-set", "-sys_admin"))
    assert machine.carried() == (machine.variant == "legacy") and machine.dropped()
    if machine.variant == "nft":
        assert "no network namespace" in machine.told()[-1]["result"], machine.told()
        assert " ".join(OTHER).encode() in machine.theirs("iptables", "-S")


@pytest.mark.parametrize("comment", ("a\nb", "a\n# b", "a\\\n# b", "a\n[0:0] -A INPUT -i b", 'a"\n# b'))
def test_a_newline_in_a_comment(machine, comment):
    machine.theirs("iptables", *DROP[:-2], "-m", "comment", "--comment", comment, "-j", "DROP")
    machine.ours("iptables", *OTHER)
    assert not machine.carried() and machine.dropped()
    assert " ".join(OTHER).encode() in machine.theirs("iptables", "-S")
    assert "stays with" in machine.told()[-1]["result"], machine.told()


# Before each program that it starts, after each that has ended, and before and after each word to the kernel.
BETWEEN = ("clone,clone3,?fork,?vfork", "wait4,waitid", "sendto")


def killed_at_each(machine, step, prepare, *argv):
    """Kills ours before each call of a kind in turn, and then gives control back; the last time it lives."""
    machine.ours("iptables", "-V")
    for number in range(1, 60):
        prepare()
        with machine.place.entered():
            answer = harness.execute(["strace", "-o", "/dev/null", "-e", f"inject={step}:signal=KILL:when={number}", str(machine.program), *argv], env=machine.env)
        yield number
        if answer.rc == 0:
            return
    raise AssertionError("it never ends")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("step", BETWEEN)
def test_killed_and_then_changed_directly(machine, step):
    """Whatever somebody says to the backend itself between a kill and the next change, nothing of either is lost."""
    for number in killed_at_each(machine, step, lambda: machine.theirs("iptables-restore", stdin=RULES), "iptables", *OTHER):
        machine.theirs("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4001", "-j", "DROP")
        machine.ours("iptables", "-N", "new")
        assert machine.dropped() and machine.dropped(port=4001), f"killed at {number}"
        assert machine.carried() and "-N new" in machine.rules() and "-N web" in machine.rules(), f"killed at {number}"
        assert "xtshim-takeover" not in machine.nft("list", "ruleset")
        machine.theirs("iptables", "-F")
        machine.nft("delete", "table", "ip", "xtshim-filter")


def test_emptied_or_not(machine):
    """Stopped after the emptying was begun: ours is the table, the same rules go there, and others stay and are named."""
    if machine.variant == "nft":
        pytest.skip("one transaction has no between")
    machine.theirs("iptables-restore", stdin=RULES)
    machine.ours("iptables", *OTHER)

    def stopped():
        for mark in ("xtshim-takeover-is-not-finished", "xtshim-takeover-empties-the-other"):
            machine.nft("add", "chain", "ip", "xtshim-filter", mark)

    stopped()
    machine.theirs("iptables-restore", stdin=machine.ours("iptables-save", "-t", "filter").out)
    machine.ours("iptables", "-N", "new")
    assert machine.emptied() and machine.dropped() and "-N new" in machine.rules()
    stopped()
    machine.theirs("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4001", "-m", "string", "--string", "nothing-like-it", "--algo", "bm", "-j", "ACCEPT")
    machine.theirs("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4001", "-j", "DROP")
    machine.ours("iptables", "-N", "newer")
    assert machine.dropped() and machine.dropped(port=4001) and "-N newer" in machine.rules() and "-N web" in machine.rules()
    assert "iptables-legacy holds rules in filter too" in machine.told()[-1]["why"], machine.told()[-1]
    assert "xtshim-takeover" not in machine.nft("list", "ruleset")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("step", BETWEEN)
def test_hand_back_killed_and_then_changed(machine, step):
    """The next change leaves one owner: a rule that it deletes is gone."""
    for number in killed_at_each(machine, step, lambda: machine.ours("iptables-restore", stdin=RULES), "flush", "--hand-back"):
        assert machine.dropped(), f"killed at {number}"
        machine.ours("iptables", *OTHER)
        assert state(machine) == (False, True) and machine.dropped() and machine.emptied(), f"killed at {number}"
        assert "xtshim-hand-back" not in machine.nft("list", "ruleset")
        machine.ours("iptables", "-D", "INPUT", "1")
        assert not machine.dropped(), f"killed at {number}"


@pytest.mark.parametrize("argv", (("flush",), ("iptables", "-F")))
def test_hand_back_that_was_stopped(machine, argv):
    """What the backend was given goes with ours; what somebody has made of it stays."""
    machine.ours("iptables-restore", stdin=RULES)

    def stopped():
        for mark in ("xtshim-takeover-is-not-finished", "xtshim-hand-back-is-not-finished"):
            machine.nft("add", "chain", "ip", "xtshim-filter", mark)
        machine.theirs("iptables-restore", stdin=RULES)

    stopped()
    machine.ours(*argv)
    assert not machine.dropped() and machine.emptied()
    machine.ours("iptables-restore", stdin=RULES)
    stopped()
    machine.theirs("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4001", "-j", "DROP")
    machine.ours(*argv)
    assert machine.dropped() and machine.dropped(port=4001)


def test_hand_back_that_fails(machine):
    """Nothing of what the backend took stays there."""
    machine.ours("iptables-restore", stdin=RULES)
    real = machine.original.path("iptables-restore")
    # It takes the rules, and one more.
    directory = machine.directory / "programs"
    directory.mkdir()
    for tool in ("iptables", "iptables-save", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        os.symlink(machine.original.path(tool), directory / f"{tool.replace('tables', f'tables-{machine.variant}')}")
    restore = directory / f"iptables-{machine.variant}-restore"
    restore.write_text(f'#!/bin/sh\ncat >"$0.in"\n"{real}" "$@" <"$0.in" || exit\ngrep -q -- -A "$0.in" && "{machine.original.path("iptables")}" -A INPUT -j ACCEPT\nexit 0\n')
    restore.chmod(0o755)
    config = machine.directory / "xtshim.toml"
    config.write_text(config.read_text().replace("[journal]", f'[backends]\ndirectory = "{directory}"\n[journal]'))
    answer = machine.ours("flush", "--hand-back", rc=1)
    assert b"still carried: " in answer.out and b"holds other rules" in answer.out, answer.text()
    assert state(machine) == (False, True) and machine.emptied() and machine.dropped()
    assert "not-finished" not in machine.nft("list", "ruleset")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_passed_on_while_another_takes_over(machine):
    """A rule that cannot be carried is refused once the table is ours, not put beside it."""
    machine.theirs("iptables-restore", stdin=RULES)
    words = ("-I", "INPUT", "-p", "udp", "-m", "string", "--string", "x", "--algo", "bm", "-j", "ACCEPT")
    machine.ours("iptables", "-V")
    begun = time.monotonic()
    machine.ours("iptables", "-S")
    # Long enough for what comes in between, also on a busy machine.
    delay = int(1e6 * (1 + 20 * (time.monotonic() - begun)))
    with machine.place.entered():
        slow = subprocess.Popen(["strace", "-o", "/dev/null", "-e", f"inject=flock:delay_enter={delay}:when=1", str(machine.program), "iptables", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**harness.BASE_ENVIRONMENT, **machine.env})
    assert packets.eventually(lambda: any("passed on" in record["result"] for record in machine.told()))
    assert not machine.carried()
    machine.ours("iptables", *OTHER)
    assert machine.carried() and slow.poll() is None
    _, err = slow.communicate(timeout=60)
    assert slow.returncode != 0 and b"cannot carry" in err, err
    assert machine.emptied() and machine.dropped()


def test_a_file_that_cannot_be_carried(machine):
    """The table is not taken over for it: the backend does what it says."""
    machine.theirs("iptables-restore", stdin=RULES)
    file = b"*filter\n-A INPUT -p udp --dport 4001 -m string --string nothing-like-it --algo bm -j ACCEPT\n-A INPUT -p udp --dport 4001 -j DROP\nCOMMIT\n"
    machine.ours("iptables-restore", "-n", stdin=file)
    assert not machine.carried() and machine.dropped() and machine.dropped(port=4001)
    assert b"--string" in machine.theirs("iptables", "-S")
    (record,) = machine.told()
    assert record["result"].startswith("passed on to iptables, which holds filter here: line 2: -m string"), record


def slowed(machine, slow):
    """Has ours call originals of which the one tool, when it is armed, waits until it is let go. Gives what arms it and what lets
    it go."""
    directory = machine.directory / "programs"
    directory.mkdir()
    with machine.place.entered():
        here = os.readlink("/proc/self/ns/net")
    for tool in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        name = directory / tool.replace("tables", f"tables-{machine.variant}")
        if tool != slow:
            os.symlink(machine.original.path(tool), name)
            continue
        # What is tried is tried in other namespaces.
        name.write_text(f'#!/bin/sh\n[ "$(readlink /proc/self/ns/net)" = "{here}" ] && mv "{directory}/armed" "{directory}/waits" 2>/dev/null && while [ -e "{directory}/waits" ]; do sleep 0.05; done\nexec "{machine.original.path(tool)}" "$@"\n')
        name.chmod(0o755)
    config = machine.directory / "xtshim.toml"
    config.write_text(config.read_text().replace("[journal]", f'[backends]\ndirectory = "{directory}"\n[journal]'))
    return directory / "armed", directory / "waits"


def begun(machine, *argv, stdin=subprocess.DEVNULL, via=()):
    with machine.place.entered():
        return subprocess.Popen([*via, str(machine.program), *argv], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**harness.BASE_ENVIRONMENT, **machine.env})


@pytest.mark.parametrize("options", ((), ("-t", "filter")))
def test_saved_while_another_takes_over(machine, options):
    """A save shows the table as the one or as the other had it: never without its rules."""
    machine.theirs("iptables-restore", stdin=RULES)
    armed, waits = slowed(machine, "iptables-save")
    armed.touch()
    saving = begun(machine, "iptables-save", *options)
    assert packets.eventually(waits.exists)
    machine.ours("iptables", *OTHER)
    assert machine.carried() and machine.emptied()
    waits.unlink()
    out, err = saving.communicate(timeout=60)
    assert saving.returncode == 0 and err == b"", err
    assert out.count(b"*filter\n") == 1 and b"--dport 4000 -j DROP" in out and b"-A web -j DROP" in out, out


def test_restored_while_another_takes_over(machine):
    """While the backend is given a file, nobody takes the table over: what the file says is neither lost nor put beside ours."""
    machine.theirs("iptables-restore", stdin=RULES)
    armed, waits = slowed(machine, "iptables-restore")
    armed.touch()
    file = machine.directory / "file"
    file.write_text("*filter\n-A INPUT -p udp --dport 4001 -m string --string nothing-like-it --algo bm -j ACCEPT\n-A INPUT -p udp --dport 4001 -j DROP\nCOMMIT\n")
    restoring = begun(machine, "iptables-restore", "-n", str(file))
    assert packets.eventually(waits.exists)
    changing = begun(machine, "iptables", "-w", "30", *OTHER)
    time.sleep(1)
    assert changing.poll() is None and not machine.carried()
    waits.unlink()
    for process in (restoring, changing):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b""), err
    assert not machine.carried() and machine.dropped() and machine.dropped(port=4001)
    shown = machine.theirs("iptables", "-S").decode()
    assert "--string" in shown and shown.count("4001 -j DROP") == 1, shown
    assert machine.rules() == [line for line in shown.splitlines() if not line.startswith("-P")]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_flush_that_fails(machine):
    """Removed, or still there and a failure."""
    for number in range(1, 60):
        machine.ours("iptables", *DROP)
        answer = machine.ours("flush", via=("strace", "-o", "/dev/null", "-e", f"inject=sendto:error=ENOBUFS:when={number}"), rc=None)
        assert machine.carried() == (b"ip filter: removed" not in answer.out), f"{number}: {answer.text()}"
        if machine.carried():
            assert answer.rc != 0 and machine.dropped(), f"{number}: {answer.text()}"
            machine.ours("flush")
        elif number > 20 and answer.rc == 0:
            return
    raise AssertionError("there is no end of it")


def taken(machine):
    assert machine.carried() and machine.emptied() and " ".join(OTHER) in machine.rules()


def given(machine):
    assert not machine.carried() and b"--dport 4000" in machine.theirs("iptables", "-S")


# What is done with a table of the backend's (`False`) or of ours, and what comes of it.
OWNERS = {
    "taken": (False, ("iptables", *OTHER), taken),
    "given back": (True, ("flush", "--hand-back"), given),
    # Stopped when the backend had been given it.
    "kept": (True, ("iptables", *OTHER), taken),
}


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("what", OWNERS)
def test_what_comes_between_the_last_look_and_a_transaction(machine, what):
    """It is not lost, and no reason for the table to stay with whom it is."""
    carried, argv, becomes = OWNERS[what]
    log = machine.directory / "calls"

    def prepare():
        if machine.carried():
            machine.nft("delete", "table", "ip", "xtshim-filter")
        machine.theirs("iptables-restore", stdin=RULES)
        if carried:
            machine.ours("iptables", "-A", "FORWARD", "-o", "elsewhere", "-j", "ACCEPT")
        if what == "kept":
            for mark in ("xtshim-takeover-is-not-finished", "xtshim-hand-back-is-not-finished"):
                machine.nft("add", "chain", "ip", "xtshim-filter", mark)
            machine.theirs("iptables-restore", stdin=machine.ours("iptables-save", "-t", "filter").out)

    def sent():
        return log.read_text().splitlines() if log.exists() else []

    def traced(*inject):
        log.unlink(missing_ok=True)
        return begun(machine, *argv, via=("strace", "-qq", "-e", "trace=sendto", "-e", "signal=none", "-o", str(log), *inject))

    prepare()
    machine.ours(*argv)
    prepare()
    began = time.monotonic()
    assert traced().wait(timeout=60) == 0
    took = time.monotonic() - began
    numbers = [number for number, line in enumerate(sent(), 1) if "NFNL_MSG_BATCH_BEGIN" in line]
    assert numbers
    for number in numbers:
        prepare()
        process = traced("-e", f"inject=sendto:delay_enter={int(1e6 * (1 + 4 * took))}:when={number}")
        assert packets.eventually(lambda: len(sent()) >= number - 1)
        time.sleep(0.2 + took)
        another = what == "taken" and machine.variant == "nft" and not machine.carried()
        if another:
            machine.theirs("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4001", "-j", "DROP")
        else:
            machine.nft("add", "table", "ip", f"other{number}")
        assert process.poll() is None
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "NFNL_MSG_BATCH_BEGIN" in sent()[number - 1] and len(sent()) > number
        becomes(machine)
        assert machine.dropped() and "xtshim-takeover" not in machine.nft("list", "ruleset")
        assert machine.dropped(port=4001) == another


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_what_is_not_read_back_as_it_was_written(machine):
    """Somebody takes rules out of ours before it is proven: the table stays where it was, and ours is not left beside it."""
    if machine.variant == "nft":
        pytest.skip("one transaction has no between")
    machine.theirs("iptables-restore", stdin=RULES)
    machine.ours("iptables", *OTHER)
    log, seen = machine.directory / "calls", set()
    via = ("strace", "-qq", "-e", "trace=sendto", "-e", "signal=none", "-o", str(log))

    def prepare():
        machine.nft("delete", "table", "ip", "xtshim-filter")
        machine.theirs("iptables-restore", stdin=RULES)

    prepare()
    machine.ours("iptables", *OTHER, via=via)
    numbers = [number for number, line in enumerate(log.read_text().splitlines(), 1) if "NFNL_MSG_BATCH_BEGIN" in line]
    for number in numbers[:-1]:
        prepare()
        log.unlink()
        taking = begun(machine, "iptables", *OTHER, via=(*via, "-e", f"inject=sendto:delay_enter=1500000:when={number + 1}"))
        assert packets.eventually(lambda: log.exists() and len(log.read_text().splitlines()) >= number)
        time.sleep(0.3)
        if machine.carried():
            machine.nft("flush", "chain", "ip", "xtshim-filter", "web")
        assert taking.poll() is None
        taking.communicate(timeout=60)
        seen.add(state(machine))
        assert machine.dropped() and state(machine) != (True, True), number
        if not machine.carried():
            machine.ours("iptables", "-N", "x")
    assert (True, False) in seen, seen
