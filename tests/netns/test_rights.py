"""Less than root's rights, a lock that another holds, no writable runtime directory: right answers, nothing wrong kept."""

import fcntl
import os

import pytest

import harness

RULE = "PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP"
NET_ADMIN = ("setpriv", "--bounding-set", "-all,+net_admin", "--inh-caps", "-all")
NET_ADMIN_RAW = ("setpriv", "--bounding-set", "-all,+net_admin,+net_raw", "--inh-caps", "-all")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SEQUENCE = (
    f"-A {RULE}", f"-C {RULE}", "-N mine", "-A mine -p tcp --dport 80 -j RETURN", "-A PREROUTING -j mine", "-S", "-nvL", "-I PREROUTING 2 -p udp -j DROP", "-D PREROUTING 1", f"-C {RULE}", f"-D {RULE}", "-A missing -j DROP", "-A PREROUTING --nonsense",
    "-P OUTPUT DROP", "-S",
)


def fresh_run(*via):
    """A command prefix: an empty /run of its own first, then `via`."""
    return ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh", *via)


def sequence(both, via, beside=()):
    """The sequence as `via` on raw by ours; what the original says with all its rights is what ours must say."""
    for line in SEQUENCE:
        for front in ("iptables", "ip6tables"):
            line_of_family = line.replace("172.17.0.2", "fd00::2") if front == "ip6tables" else line
            argv = [front, "-t", "raw", *line_of_family.split()]
            results = [both.call(subject, place, argv, via=via if subject.ours else beside) for subject, place in both.places]
            both.history.append(" ".join(argv))
            if len(results) == 2:
                both.compare(*results)


@pytest.mark.parametrize("cached", (True, False), ids=("cached", "nothing-cached"))
def test_cap_net_admin_alone(both, cached):
    sequence(both, NET_ADMIN if cached else fresh_run(*NET_ADMIN))
    both.state()


def test_no_namespaces_to_be_had(both):
    """In a user namespace whose owner may make no further ones."""
    forbid = ("unshare", "-U", "-r", "-n", "sh", "-c", 'echo 0 >/proc/sys/user/max_net_namespaces; echo 0 >/proc/sys/user/max_user_namespaces; mount -t tmpfs tmpfs /run 2>/dev/null; exec "$@"', "sh")
    for line in (f"-A {RULE}", "-S", f"-C {RULE}", "-A PREROUTING -j missing"):
        both.run(["iptables", "-t", "raw", *line.split()], via=forbid)
    script = 'i=$1; s=$2; $i -t raw -A OUTPUT -p udp --dport 53 -j NOTRACK; echo $?; $i -t raw -C OUTPUT -p udp --dport 53 -j NOTRACK; echo $?; $i -t raw -S; $i -A INPUT -j DROP; $i -S INPUT; $s -t raw; echo $?'
    answers = []
    for subject, place in both.places:
        with place.entered():
            answers.append(harness.execute([*forbid, "sh", "-c", script, "sh", subject.path("iptables"), subject.path("iptables-save")], env={**both.env, **subject.environment()}))
    both.history.append(script)
    if len(answers) == 2:
        both.compare(*answers)


def test_pass_through_with_net_admin_and_raw(both):
    for line in ("-N mine", "-A mine -p tcp --dport 80 -j RETURN", "-A INPUT -j mine", "-S", "-X mine", "-A missing -j DROP"):
        both.run(f"iptables {line}", via=NET_ADMIN_RAW)
        both.run(f"ip6tables -t mangle {line}", via=NET_ADMIN_RAW)
    both.state()


@pytest.mark.parametrize("cached", (True, False), ids=("cached", "nothing-cached"))
def test_unprivileged(both, cached):
    """The message and the code of the backend, whatever the table."""
    both.run("iptables -t raw -A OUTPUT -j ACCEPT", 0)
    via = NOBODY if cached else fresh_run(*NOBODY)
    for table in ("raw", "filter", "nat"):
        for line in ("-S", "-L", "-A OUTPUT -j DROP", "-C OUTPUT -j ACCEPT", "-D OUTPUT 1", "-F", "-N mine", "-P OUTPUT DROP", "-A OUTPUT --nonsense", "-A OUTPUT -p tcp --dport x", "-A"):
            both.run(f"iptables -t {table} {line}", via=via, env={"XTABLES_LOCKFILE": "/run/xtables.lock"})
    for line in ("iptables-save", "iptables-save -t raw", "iptables -V"):
        both.run(line, via=via, env={"XTABLES_LOCKFILE": "/run/xtables.lock"})
    both.run("iptables-restore", via=via, stdin=b"*raw\n-A OUTPUT -j DROP\nCOMMIT\n", env={"XTABLES_LOCKFILE": "/run/xtables.lock"})
    both.run("iptables -t raw -S", 0)
    both.state()


@pytest.fixture
def held(both):
    """The lock of xtables in another's hands."""
    with open(both.env["XTABLES_LOCKFILE"], "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def test_lock_held(both, held):
    """Pass-through waits or fails as the backend does; a carried table needs no lock, or says what the backend says."""
    both.run("iptables -w 1 -A INPUT -j DROP")
    both.run("iptables -w 1 -S INPUT")
    for subject, place in both.places:
        answer = both.call(subject, place, ["iptables", "-w", "1", "-t", "raw", "-A", *RULE.split()])
        if subject.ours and answer.rc == 0 and (answer.out or answer.err):
            both.fault(f"{subject.name}: neither silent nor a failure", answer.text())
        elif answer.rc not in (0, 4):
            both.fault(f"{subject.name}: neither 0 nor 4", answer.text())
        fcntl.flock(held, fcntl.LOCK_UN)
        check = both.call(subject, place, ["iptables", "-t", "raw", "-C", *RULE.split()])
        if check.rc != (0 if answer.rc == 0 else 1):
            both.fault(f"{subject.name}: exit {answer.rc}, and then -C says {check.rc}")
        fcntl.flock(held, fcntl.LOCK_EX)


@pytest.mark.parametrize("choice", ("auto", "nft"))
def test_lock_held_at_the_first_call(alone, choice, tmp_path):
    """The probe meets a held lock: what it could not find out is unknown, and asked again."""
    (subject, place), = alone.places
    config = tmp_path / "xtshim.toml"
    harness.configure(config, subject.variant, {"raw": choice})
    cache = tmp_path / "run"
    cache.mkdir()
    via = ("unshare", "-m", "sh", "-c", f'mount --bind {cache} /run && exec "$@"', "sh")
    environment = {"XTSHIM_CONFIG": str(config), "XTABLES_LOCKFILE": "/run/xtables.lock"}
    call = lambda line: alone.call(subject, place, ["iptables", *line.split()], via=via, env=environment)
    with open(cache / "xtables.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = call(f"-w 1 -t raw -A {RULE}")
        alone.history.append("with the lock held: -t raw -A")
        if first.rc not in (0, 4):
            alone.fault("neither 0 nor 4", first.text())
    for line, wanted in ((f"-t raw -A {RULE}", 0), (f"-t raw -C {RULE}", 0), ("-A INPUT -j DROP", 0)):
        answer = call(line)
        alone.history.append(line)
        if answer != harness.Result(wanted, b"", b""):
            alone.fault("a wrong answer once the lock is free", answer.text())
    if choice == "auto":
        with place.entered():
            tables = harness.execute(["nft", "list", "tables"]).out
        if b"xtshim" in tables:
            alone.fault("carried, although the backend is able", tables.decode())


@pytest.mark.parametrize("way", ("read-only", "missing", "a-file"))
def test_no_writable_run(both, way):
    prefix = {
        "read-only": 'mount -t tmpfs -o ro tmpfs /run',
        "missing": 'mount -t tmpfs -o ro,mode=000 tmpfs /run',
        "a-file": 'mount -t tmpfs tmpfs /run && touch /run/xtshim && mount -o remount,ro /run',
    }[way]
    via = ("unshare", "-m", "sh", "-c", prefix + ' && exec "$@"', "sh")
    sequence(both, via)
    for line in ("-N mine", "-A mine -j RETURN", "-S"):
        both.run(f"iptables {line}", via=via)
    both.state()


def test_foreign_cache_is_not_believed(alone, tmp_path):
    """What another user has put where the cache is kept decides nothing."""
    (subject, place), = alone.places
    alone.run("iptables -t raw -S", 0)
    if not os.path.isdir("/run/xtshim"):
        pytest.skip("there is no cache in /run/xtshim")
    via = ("unshare", "-m", "sh", "-c", 'mkdir /run/xtshim.copy; cp -a /run/xtshim/. /run/xtshim.copy; mount --bind /run/xtshim.copy /run/xtshim; chown -R 65534 /run/xtshim; find /run/xtshim -type f -exec sh -c \'echo nonsense > "$1"\' _ {} \\; ; "$@"; c=$?; umount /run/xtshim; rm -rf /run/xtshim.copy; exit $c', "sh")
    assert alone.call(subject, place, ["iptables", "-t", "raw", "-A", *RULE.split()], via=via) == harness.Result(0, b"", b"")
    alone.run(f"iptables -t raw -C {RULE}", 0)
