"""Others may take carried rules away, change or add to them: each answer is still true. And two fronts at once."""

import shlex
import shutil
import subprocess
import time

import pytest

import harness
import packets

RULE = "PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP"
EMPTY = b"-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n"


def nft(alone, *words, stdin=None):
    """A call of nft in the namespace."""
    (_, place), = alone.places
    alone.history.append(shlex.join(["nft", *words]))
    with place.entered():
        answer = harness.execute(["nft", *words], stdin=stdin)
    assert answer.rc == 0, answer.text()
    return answer.out


def fill(alone):
    alone.run(f"iptables -t raw -A {RULE}", 0)
    alone.run("iptables -t raw -N mine", 0)
    alone.run("iptables -t raw -A mine -p tcp --dport 80 -m comment --comment 'web, here' -j RETURN", 0)
    alone.run("iptables -t raw -A PREROUTING -j mine", 0)
    alone.run("ip6tables -t raw -A OUTPUT -o eth0 -j ACCEPT", 0)


@pytest.mark.parametrize("how", (["flush", "ruleset"], ["delete", "table", "ip", "xtshim-raw"]))
def test_flushed(alone, how):
    fill(alone)
    nft(alone, *how)
    assert alone.run("iptables -t raw -S", 0).out == EMPTY
    assert alone.run(f"iptables -t raw -C {RULE}", 1).err == b"iptables: Bad rule (does a matching rule exist in that chain?).\n"
    assert alone.run(f"iptables -t raw -D {RULE}", 1).out == b""
    assert alone.run("iptables -t raw -D PREROUTING 1", 1).err
    assert alone.run("iptables -t raw -F mine", 1).err == b"iptables: No chain/target/match by that name.\n"
    assert b"172.17.0.2" not in alone.run("iptables-save", 0).out
    alone.run(f"iptables -t raw -A {RULE}", 0)
    alone.run(f"iptables -t raw -C {RULE}", 0)
    assert alone.run("iptables -t raw -S", 0).out == EMPTY + f"-A {RULE}\n".replace("172.17.0.2", "172.17.0.2/32").encode()


def test_flushed_rules_only(alone):
    """`nft flush table` leaves the chains."""
    fill(alone)
    nft(alone, "flush", "table", "ip", "xtshim-raw")
    assert alone.run("iptables -t raw -S", 0).out == EMPTY + b"-N mine\n"
    alone.run(f"iptables -t raw -C {RULE}", 1)
    alone.run("iptables -t raw -X mine", 0)


def test_nothing_from_nowhere(alone):
    """A listing or a check makes no table."""
    for line in ("-S", "-nvL", f"-C {RULE}", "-D PREROUTING 1", "-F missing"):
        alone.run(f"iptables -t raw {line}")
    alone.run("iptables-save")
    assert b"xtshim" not in nft(alone, "list", "tables")


def unreadable(alone, front="iptables"):
    """Commands on a table that holds rules which are not ours to read: nothing is guessed, nothing changes."""
    before = nft(alone, "list", "ruleset")
    for line in (f"-A {RULE}", "-I PREROUTING 1 -j DROP", f"-D {RULE}", "-D PREROUTING 1", "-R PREROUTING 1 -j ACCEPT", "-A OUTPUT -j DROP", "-N new", "-P OUTPUT DROP"):
        answer = alone.run(f"{front} -t raw {line}", 4)
        if not answer.err:
            alone.fault("a failure without a word", answer.text())
    for line in (f"-C {RULE}", "-S", "-nvL"):
        answer = alone.run(f"{front} -t raw {line}")
        if answer.rc == 0 or (line.startswith("-C") and answer.rc == 1):
            alone.fault("an answer about rules that cannot be read", answer.text())
    answer = alone.run(f"{front}-save -t raw")
    if answer.rc == 0:
        alone.fault("a save that poses as whole", answer.text())
    if nft(alone, "list", "ruleset") != before:
        alone.fault("a failed command has changed something")


def test_reloaded(alone):
    """A ruleset saved and loaded again has lost what the rules' user data said."""
    fill(alone)
    saved = nft(alone, "list", "ruleset")
    nft(alone, "flush", "ruleset")
    nft(alone, "-f", "-", stdin=saved)
    unreadable(alone)
    # The way out.
    nft(alone, "delete", "table", "ip", "xtshim-raw")
    alone.run(f"iptables -t raw -A {RULE}", 0)


def test_added_to_by_others(alone):
    fill(alone)
    nft(alone, "insert", "rule", "ip", "xtshim-raw", "PREROUTING", "udp", "dport", "9", "drop")
    unreadable(alone)


def test_added_to_by_others_elsewhere(alone):
    """A stranger's rule in one family's table is no reason to fail in the other's."""
    fill(alone)
    nft(alone, "add", "rule", "ip", "xtshim-raw", "PREROUTING", "drop")
    alone.run("ip6tables -t raw -S", 0)
    alone.run("ip6tables -t raw -A OUTPUT -j ACCEPT", 0)
    alone.run("iptables -t filter -S", 0)


def test_renamed(alone):
    fill(alone)
    nft(alone, "rename", "chain", "ip", "xtshim-raw", "mine", "yours")
    listing = alone.run("iptables -t raw -S", 0).out.decode()
    assert "-N yours" in listing and "-A PREROUTING -j yours" in listing and "-A yours -p tcp" in listing and "mine" not in listing, listing
    alone.run("iptables -t raw -C PREROUTING -j yours", 0)
    assert alone.run("iptables -t raw -C PREROUTING -j mine").rc != 0
    alone.run("iptables -t raw -D PREROUTING -j yours", 0)
    alone.run("iptables -t raw -F yours", 0)
    alone.run("iptables -t raw -X yours", 0)


def test_loads_again(alone):
    """What nft lists of carried rules, it can load."""
    fill(alone)
    alone.run("iptables -t raw -A PREROUTING -p tcp -m multiport --dports 80,443 -m conntrack --ctstate INVALID -j LOG --log-prefix 'x y: '", 0)
    alone.run("iptables -t raw -A PREROUTING -m addrtype --dst-type LOCAL -j NOTRACK", 0)
    nft(alone, "-c", "-f", "-", stdin=nft(alone, "list", "ruleset"))


@pytest.mark.parametrize("processes, each", ((8, 25),))
def test_at_once(both, processes, each):
    """What was acknowledged is there, once."""
    for subject, place in both.places:
        script = 'p=$1; n=$2; shift 2; for i in $(seq $n); do "$@" -w -t raw -A PREROUTING -s 10.0.$p.$i -j DROP && echo $p.$i; done'
        with place.entered():
            running = [
                subprocess.Popen(
                    ["bash", "-c", script, "bash", str(number), str(each), subject.path("iptables")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    env={**harness.BASE_ENVIRONMENT, **both.env, **subject.environment()},
                )
                for number in range(processes)
            ]
        outcomes = [process.communicate(timeout=120) for process in running]
        acknowledged = sorted(word for out, _ in outcomes for word in out.decode().split())
        listing = both.call(subject, place, ["iptables", "-t", "raw", "-S"]).out.decode()
        there = sorted(line.split()[3].removesuffix("/32").removeprefix("10.0.") for line in listing.splitlines() if line.startswith("-A"))
        both.history.append(f"{processes} times {each} appends at once")
        if there != acknowledged:
            both.fault(f"{subject.name}: {len(acknowledged)} acknowledged, {len(there)} there, {len(set(there))} different", b"".join(err for _, err in outcomes).decode()[:500])
        if subject.ours and len(acknowledged) != processes * each:
            both.fault(f"{subject.name}: {processes * each - len(acknowledged)} commands failed", b"".join(err for _, err in outcomes).decode()[:500])


def test_check_then_append_at_once(alone):
    """Two fronts that delete the same rule: one of them gets it."""
    (subject, place), = alone.places
    for _ in range(20):
        alone.run(f"iptables -t raw -A {RULE}", 0)
        with place.entered():
            running = [
                subprocess.Popen([subject.path("iptables"), "-t", "raw", "-D", *shlex.split(RULE)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**harness.BASE_ENVIRONMENT, **alone.env, **subject.environment()})
                for _ in range(2)
            ]
        assert sorted(process.wait(timeout=60) for process in running) == [0, 1]
        alone.run(f"iptables -t raw -C {RULE}", 1)


def test_first_calls_at_once(alone, tmp_path):
    """Fronts that make the table at the same time, with nothing cached."""
    (subject, place), = alone.places
    with place.entered():
        running = [
            subprocess.Popen(
                ["unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /run; exec "$@"', "sh", subject.path("iptables"), "-t", "raw", "-A", "OUTPUT", "-d", f"10.0.0.{number}", "-j", "DROP"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**harness.BASE_ENVIRONMENT, **alone.env, **subject.environment()},
            )
            for number in range(1, 6)
        ]
    outcomes = [(process.communicate(timeout=120)[0], process.returncode) for process in running]
    assert outcomes == [(b"", 0)] * 5
    assert alone.run("iptables -t raw -S OUTPUT", 0).out.count(b"-A OUTPUT") == 5


@pytest.mark.parametrize("chain, where", (("PREROUTING", "filter hook prerouting priority 0"), ("PREROUTING", "filter hook input priority -300"), ("OUTPUT", "route hook output priority -300")))
def test_a_chain_at_another_place(alone, chain, where):
    """What stands in it would be asked elsewhere than where iptables asks it."""
    nft(alone, "add", "table", "ip", "xtshim-raw")
    nft(alone, "add", "chain", "ip", "xtshim-raw", chain, f"{{ type {where}; }}")
    unreadable(alone)


def test_a_large_table_reloaded(alone):
    """As a small one: not even what needs to know no other rule is put into it."""
    fill(alone)
    many = "".join(f"-A OUTPUT -d 10.0.0.{number} -j ACCEPT\n" for number in range(100))
    alone.run("iptables-restore -n", 0, stdin=f"*raw\n{many}COMMIT\n".encode())
    saved = nft(alone, "list", "ruleset")
    nft(alone, "flush", "ruleset")
    nft(alone, "-f", "-", stdin=saved)
    unreadable(alone)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("line", ("-S", "-A OUTPUT -p udp -j ACCEPT", "-D PREROUTING -p tcp -j ACCEPT"))
def test_what_changes_while_it_is_read(alone, tmp_path, line):
    """Whatever question another's change comes before: the table is the one or the other, not a chain of the one and rules of
    the other."""
    subject, place = alone.places[-1]
    log = tmp_path / "calls"
    run = lambda words, **more: alone.run(f"iptables -t raw {words}", 0, **more).out
    other = b"*raw\n:new - [0:0]\n-A new -j DROP\n-A PREROUTING -p icmp -j new\nCOMMIT\n"

    def prepare():
        nft(alone, "flush", "ruleset")
        run("-A PREROUTING -p tcp -j ACCEPT")

    def begun(*inject):
        log.unlink(missing_ok=True)
        via = ("strace", "-qq", "-e", "trace=sendto", "-e", "signal=none", "-o", str(log), *inject)
        with place.entered():
            return subprocess.Popen([*via, subject.path("iptables"), "-t", "raw", *line.split()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**harness.BASE_ENVIRONMENT, **alone.env, **subject.environment()})

    prepare()
    listings = [run("-S")]
    began = time.monotonic()
    assert begun().wait(timeout=60) == 0
    took, questions = time.monotonic() - began, len(log.read_text().splitlines())
    assert questions > 3
    prepare()
    alone.run("iptables-restore -n", 0, stdin=other)
    listings.append(run("-S"))
    if line != "-S":
        run(line)
        wanted = run("-S")
    for number in range(1, questions + 1):
        prepare()
        reading = begun("-e", f"inject=sendto:delay_enter={int(1e6 * (1 + 5 * took))}:when={number}")
        assert packets.eventually(lambda: log.exists() and len(log.read_text().splitlines()) >= number - 1)
        time.sleep(0.1 + took)
        alone.run("iptables-restore -n", 0, stdin=other)
        assert reading.poll() is None
        out, err = reading.communicate(timeout=60)
        assert (reading.returncode, err) == (0, b""), f"{number} of {questions}: {err}"
        assert out in listings if line == "-S" else run("-S") == wanted, f"{number} of {questions}"
