"""What is not carried goes to the backend as if we were not there."""

import fcntl
import json
import os
import shlex
import signal
import subprocess

import pytest

import harness
import packets


def test_unknown_extensions(both):
    for line in (
        "-A INPUT -m string --string x --algo bm -j DROP", "-A INPUT -p tcp -m tcp --dport 22 -m recent --name ssh --set", "-t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE --random-fully", "-t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080", "-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
        "-A INPUT -m hashlimit --hashlimit-upto 5/s --hashlimit-name h -j ACCEPT", "-A FORWARD -m policy --dir in --pol ipsec -j ACCEPT", "-A INPUT -m bpf --bytecode '4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0' -j ACCEPT", "-A INPUT -m statistic --mode random --probability 0.5", "-A INPUT -m nonsense --option", "-A INPUT -j NONSENSE --option",
        "-A INPUT -m time --datestop 2030-01-01", "-A INPUT -m u32 --u32 '0>>22=5'", "-A OUTPUT -m owner --uid-owner root", "-A INPUT -j REJECT --reject-with tcp-reset -p tcp", "-S", "-t nat -S", "-t mangle -nvL",
    ):
        both.run(["iptables", *shlex.split(line)])
    both.state()


def test_words_that_look_like_ours(both):
    """Words that name raw without meaning the table."""
    for line in ("-A INPUT -m comment --comment raw -j DROP", "-A INPUT -m comment --comment '-t raw' -j DROP", "-N raw", "-A INPUT -j raw", "-A INPUT -i raw", "-A INPUT -m comment --comment -t -j ACCEPT", "-A INPUT -m comment --comment -traw -j ACCEPT", "-t filter -A INPUT -m comment --comment '--table=raw'", "-S"):
        both.run(["iptables", *shlex.split(line)])
    both.run("iptables -A OUTPUT -j NOTRACK -t raw", 0)
    both.run("iptables -A OUTPUT -j ACCEPT --table raw", 0)
    both.run("iptables -A OUTPUT -j ACCEPT --table=raw", 0)
    both.run("iptables -A OUTPUT -j ACCEPT --tab raw", 0)
    both.run("iptables -t filter -t raw -S")
    both.run("iptables -t raw -t filter -S")
    both.run("iptables -S -t")
    both.run("iptables -t")
    both.run("iptables -t raw -m comment --comment filter -A OUTPUT -j DROP", 0)
    both.run("iptables -nt raw -L")
    both.run("iptables -nvtraw -L")
    both.state()


def test_nothing_is_carried_where_the_backend_can(alone, tmp_path):
    """With nothing forced, raw stays with the backend wherever the backend has it."""
    (subject, place), = alone.places
    config = tmp_path / "auto.toml"
    journal = tmp_path / "journal.jsonl"
    harness.configure(config, subject.variant, journal=journal)
    multi = f"/usr/sbin/xtables-{subject.variant}-multi"
    for front in ("iptables", "ip6tables"):
        for line in ("-t raw -A OUTPUT -j NOTRACK", "-t raw -N mine", "-A INPUT -j DROP"):
            assert alone.call(subject, place, [front, *line.split()], env={"XTSHIM_CONFIG": str(config)}) == harness.Result(0, b"", b"")
        with place.entered():
            real = harness.execute([multi, front, "-t", "raw", "-S"], env=alone.env)
            tables = harness.execute(["nft", "list", "tables"])
        assert b"-A OUTPUT -j NOTRACK" in real.out or b"-A OUTPUT -j CT --notrack" in real.out, real.text()
        assert b"xtshim" not in tables.out
    assert not journal.exists() or not journal.read_bytes()


FAKE = """#!/bin/sh
# The real one, which tells how it was called where it is asked to.
case "$*" in
*tell-me*)
    echo "name=$0"; for word; do echo "word=$word"; done; env | sort; grep SigIgn /proc/$$/status; ls /proc/$$/fd | tr '\\n' ' '; echo; echo "pid=$$"; cat
    echo a word >&2
    exit 77 ;;
esac
exec {real} "$@"
"""


@pytest.fixture
def told(ours, tmp_path):
    """Ours over a backend that tells how it was called."""
    directory = tmp_path / "backends"
    directory.mkdir()
    for family in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            path = directory / f"{family}-{ours.variant}{suffix}"
            path.write_text(FAKE.format(real=f"/usr/sbin/{path.name}"))
            path.chmod(0o755)
    config = tmp_path / "xtshim.toml"
    harness.configure(config, ours.variant, backends=directory)
    place = harness.Netns()

    def call(argv, **more):
        environment = {"XTSHIM_CONFIG": str(config), "XTABLES_LOCKFILE": str(tmp_path / "lock"), **more.pop("env", {})}
        with place.entered():
            return harness.execute([*more.pop("via", ()), ours.path(argv[0]), *argv[1:]], env=environment, **more)

    yield call
    place.close()


def test_arguments_streams_and_exit_code(told):
    words = ["-A", "INPUT", "-m", "tell-me", "", "two words", "*", "ünï", "\\", '"', "-t", "filter"]
    answer = told(["iptables", *words], stdin=b"from stdin\n")
    assert answer.rc == 77 and answer.err == b"a word\n", answer.text()
    lines = answer.out.decode().splitlines()
    assert [line[5:] for line in lines if line.startswith("word=")] == words
    assert lines[-1] == "from stdin"


def test_environment(told):
    answer = told(["iptables", "-m", "tell-me"], env={"LD_PRELOAD": "", "LD_LIBRARY_PATH": "/nonexistent", "XTABLES_LIBDIR": "/nonexistent", "IPTABLES_LIB_DIR": "/x", "TZ": "Europe/Berlin", "BASH_ENV": "/nonexistent", "XTABLES_LOCKFILE": "/run/some.lock"})
    assert answer.rc == 77, answer.text()
    environment = dict(line.split("=", 1) for line in answer.out.decode().splitlines() if "=" in line)
    assert environment["TZ"] == "Europe/Berlin" and environment["XTABLES_LOCKFILE"] == "/run/some.lock"
    assert not {"LD_PRELOAD", "LD_LIBRARY_PATH", "XTABLES_LIBDIR", "IPTABLES_LIB_DIR", "BASH_ENV", "XTSHIM_CONFIG"} & set(environment), environment


def test_same_process_descriptors_and_signals(told, tmp_path):
    (tmp_path / "file").write_text("x")
    answer = told(["iptables", "-m", "tell-me"], via=("bash", "-c", f'exec 9<"{tmp_path}/file"; echo "shell=$$"; exec "$@"', "bash"))
    lines = answer.out.decode().splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    assert values["pid"] == values["shell"], "not the same process"
    assert any("9" in line.split() for line in lines), "descriptor 9 is gone"
    ignored = int(next(line for line in lines if line.startswith("SigIgn")).split()[1], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1), "SIGPIPE is ignored"


def test_raw_passes_untouched_where_the_backend_can(told):
    """Nothing is forced: raw is the backend's, unknown words and all."""
    answer = told(["iptables", "-t", "raw", "-A", "PREROUTING", "-m", "tell-me", "--unknown", "x"])
    assert answer.rc == 77, answer.text()


@pytest.mark.parametrize("words", ([], ["-n"], ["-T", "filter", "-c"], ["tell-me"]))
def test_restore_without_carried_tables_is_an_exec(told, words):
    if words == ["tell-me"]:
        assert told(["iptables-restore", *words]).rc == 77
    else:
        data = b"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m string --string x --algo bm -j DROP\nCOMMIT\n"
        assert told(["iptables-restore", *words], stdin=data) == harness.Result(0, b"", b"")


def test_ends_by_signal(both):
    """A caller that kills us kills the backend: it is the same process."""
    if both.subject.variant != "legacy":
        pytest.skip("iptables-nft has no lock to wait for")
    for subject, place in both.places:
        with open(both.env["XTABLES_LOCKFILE"], "w") as lock, place.entered():
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = subprocess.Popen([subject.path("iptables"), "-w", "-A", "INPUT", "-j", "DROP"], env={**harness.BASE_ENVIRONMENT, **both.env, **subject.environment()}, stderr=subprocess.PIPE)
            # A `->` stands before who waits, in proc_locks(5).
            assert packets.eventually(lambda: any("->" in line and f" {waiting.pid} " in line for line in place.read("/proc/locks")), 30)
            assert waiting.poll() is None
            waiting.send_signal(signal.SIGTERM)
            assert waiting.wait(timeout=30) == -signal.SIGTERM
            waiting.stderr.close()
        assert both.call(subject, place, ["iptables", "-S", "INPUT"]).out == b"-P INPUT ACCEPT\n"


def test_broken_pipe(both):
    """A reader that goes away: the same end as the original's."""
    lines = b"".join(b"-A INPUT -s 10.%d.%d.1 -j DROP\n" % divmod(number, 250) for number in range(3000))
    both.run("iptables-restore", 0, stdin=b"*filter\n" + lines + b"COMMIT\n*raw\n" + lines.replace(b"INPUT", b"OUTPUT") + b"COMMIT\n")
    for table in ("filter", "raw"):
        answers = []
        for subject, place in both.places:
            with place.entered():
                answers.append(harness.execute(["bash", "-c", '"$1" -t $2 -S | head -1; echo ${PIPESTATUS[0]}', "bash", subject.path("iptables"), table], env={**both.env, **subject.environment()}))
        both.history.append(f"iptables -t {table} -S | head -1")
        if len(answers) == 2:
            both.compare(*answers)


def test_closed_streams(both):
    """Started with standard streams closed, nothing that was meant for them lands elsewhere."""
    for line in ("-t raw -A OUTPUT -j ACCEPT", "-A OUTPUT -j ACCEPT", "-t raw -A nonsense -j DROP"):
        answers = []
        for subject, place in both.places:
            with place.entered():
                answers.append(harness.execute(["bash", "-c", '"$@" <&- >&- 2>&-; echo $?', "bash", subject.path("iptables"), *line.split()], env={**both.env, **subject.environment()}))
        both.history.append(line + " <&- >&- 2>&-")
        if len(answers) == 2:
            both.compare(*answers)
    both.state()


@pytest.mark.parametrize("command", ("iptables -S", "iptables -t raw -S", "iptables-save", "ip6tables -A INPUT -j DROP"))
def test_recursion_is_refused(alone, tmp_path, command):
    """Where the backend's name leads back to us there is no backend, and no endless chain: we answer ourselves."""
    (subject, place), = alone.places
    directory = tmp_path / "backends"
    directory.mkdir()
    for front in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            for name in (f"{front}-legacy{suffix}", f"{front}-nft{suffix}", f"{front}{suffix}"):
                os.link(os.path.realpath(subject.path("xtshim")), directory / name) if os.stat(directory).st_dev == os.stat(subject.path("xtshim")).st_dev else (directory / name).symlink_to(subject.path("xtshim"))
    config = tmp_path / "xtshim.toml"
    harness.configure(config, subject.variant, backends=directory)
    answer = alone.call(subject, place, command.split(), env={"XTSHIM_CONFIG": str(config)})
    assert answer.rc == 0 and not answer.err, answer.text()


def test_recursion_at_the_usual_places(alone):
    """The same where we have been put over the real programs themselves."""
    (subject, place), = alone.places
    cover = "; ".join(f'mount --bind "$0" /usr/sbin/xtables-{variant}-multi' for variant in ("legacy", "nft"))
    program = os.path.realpath(subject.path("xtshim"))
    with place.entered():
        answer = harness.execute(["unshare", "-m", "sh", "-c", f'mount -t tmpfs tmpfs /run; {cover}; exec "$@"', program, subject.path("iptables"), "-S"], env={**alone.env, **subject.environment()})
    assert (answer.rc, answer.err) == (0, b"") and answer.out.startswith(b"-P INPUT ACCEPT\n"), answer.text()


def test_every_name(alone, tmp_path):
    """All names that the program answers to, and `xtshim NAME`."""
    (subject, place), = alone.places
    program = os.path.realpath(subject.path("xtshim"))
    alone.run("iptables -t raw -A OUTPUT -j ACCEPT", 0)
    with place.entered():
        for family in ("iptables", "ip6tables"):
            for suffix in ("", "-save", "-restore"):
                plain = harness.execute([subject.path(f"{family}{suffix}"), *([] if suffix else ["-t", "raw", "-S"])], env={**alone.env, **subject.environment()})
                link = tmp_path / f"{family}-xtshim{suffix}"
                link.symlink_to(program)
                words = [] if suffix else ["-t", "raw", "-S"]
                for argv in ([str(link), *words], [program, f"{family}{suffix}", *words]):
                    named = harness.execute(argv, env={**alone.env, **subject.environment()})
                    named.out, plain.out = harness.without_dates(named.out), harness.without_dates(plain.out)
                    assert named == plain, f"{argv}\n{named.text()}\n{plain.text()}"


def test_journal(alone):
    """Each rewrite is told of, no other command is."""
    (subject, _), = alone.places
    size = os.path.getsize(subject.journal) if os.path.exists(subject.journal) else 0
    alone.run("iptables -A INPUT -j DROP", 0)
    alone.run("iptables -t raw -A PREROUTING -d 172.17.0.2 ! -i docker0 -m comment --comment 'a; \"b\"' -j DROP", 0)
    alone.run("iptables -t raw -A missing -j DROP", 1)
    assert os.stat(subject.journal).st_mode & 0o777 == 0o600
    with open(subject.journal) as journal:
        journal.seek(size)
        records = [json.loads(line) for line in journal]
    changes = [record for record in records if "-A" in record["command"]]
    assert [record["result"] == "ok" for record in changes] in ([True], [True, False]), records
    good = changes[0]
    assert (good["front"], good["table"], good["carrier"], good["family"]) == ("iptables", "raw", "nft", "ip"), good
    assert good["applied"] and any("172.17.0.2" in line for line in good["applied"]), good
    assert shlex.split(good["command"])[1:] == ["-t", "raw", "-A", "PREROUTING", "-d", "172.17.0.2", "!", "-i", "docker0", "-m", "comment", "--comment", 'a; "b"', "-j", "DROP"]


@pytest.mark.parametrize("obstacle", ("unwritable", "directory", "link", "full"))
def test_journal_is_no_reason_to_fail(alone, tmp_path, obstacle):
    (subject, place), = alone.places
    target = {"unwritable": "/proc/nonexistent/file", "directory": str(tmp_path), "link": str(tmp_path / "link"), "full": "/dev/full"}[obstacle]
    if obstacle == "link":
        (tmp_path / "victim").write_text("untouched")
        (tmp_path / "link").symlink_to(tmp_path / "victim")
    config = tmp_path / "xtshim.toml"
    config.write_text(f'backend = "{subject.variant}"\n[carriers]\nraw = "nft"\n[journal]\nfile = "{target}"\nsystem = true\n')
    answer = alone.call(subject, place, ["iptables", "-t", "raw", "-A", "OUTPUT", "-j", "DROP"], env={"XTSHIM_CONFIG": str(config)})
    assert answer == harness.Result(0, b"", b""), answer.text()
    if obstacle == "link":
        assert (tmp_path / "victim").read_text() == "untouched"
