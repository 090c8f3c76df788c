"""What of root's rights is in force where, and what a backend finds of them: all, as if nobody had been between."""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import time

import pytest

import harness

NET_ADMIN, NET_RAW = 12, 13
NARROW = 1 << NET_ADMIN | 1 << NET_RAW
RULE = "PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP"


def status(pid):
    """proc_pid_status(5)."""
    return dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def environment(pair, subject):
    return {**harness.BASE_ENVIRONMENT, **pair.env, **subject.environment()}


def test_a_carried_command_works_with_two_capabilities(alone):
    """Looked at while it waits for what it is to read."""
    (subject, place), = alone.places
    alone.run("iptables -t raw -S", 0)
    with place.entered():
        waiting = subprocess.Popen([subject.path("iptables-restore"), "-n"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(alone, subject))
        until = time.monotonic() + 20
        while int(status(waiting.pid)["CapEff"], 16) != NARROW and time.monotonic() < until:
            time.sleep(0.01)
        seen = status(waiting.pid)
        _, said = waiting.communicate(f"*raw\n-A {RULE}\nCOMMIT\n".encode())
    assert int(seen["CapEff"], 16) == NARROW, seen["CapEff"]
    assert seen["Umask"] == "0077", seen["Umask"]
    # What is permitted stays, or nothing that is started would have it.
    assert int(seen["CapPrm"], 16) == int(status(os.getpid())["CapPrm"], 16)
    assert (waiting.returncode, said) == (0, b"")
    alone.run(f"iptables -t raw -C {RULE}", 0)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_they_are_laid_down_before_anything_is_read(alone):
    """No argument, file or answer of the kernel is looked at with more."""
    (subject, place), = alone.places
    alone.run("iptables -t raw -S", 0)
    with place.entered():
        for argv, stdin in ((["iptables", "-t", "raw", "-A", *RULE.split()], None), (["iptables-restore", "-n"], f"*raw\n-A {RULE}\nCOMMIT\n".encode())):
            traced = harness.execute(["strace", "-qq", "-e", "trace=capset,sendto,recvfrom,read", subject.path(argv[0]), *argv[1:]], stdin, environment(alone, subject))
            calls = [line for line in traced.err.decode().splitlines() if line.startswith(("capset", "sendto", "recvfrom", "read(0"))]
            assert calls and calls[0].startswith("capset") and "effective=1<<CAP_NET_ADMIN|1<<CAP_NET_RAW," in calls[0], calls[:3]
            assert not [call for call in calls[1:] if call.startswith("capset")], calls


PROGRAM = """#!/bin/bash
case $1 in --version) exec -a iptables /usr/sbin/xtables-{variant}-multi --version;; esac
[ -e {out} ] || exec -a "$(basename "$0" | sed s/-{variant}//)" /usr/sbin/xtables-{variant}-multi "$@"
{{ grep -E '^(Cap|Uid|Gid|Groups|NoNewPrivs|Seccomp:|Umask|Sig(Blk|Ign|Cgt))' /proc/self/status; echo; ls /proc/$$/fd; ulimit -a; pwd; cat /proc/self/oom_score_adj; echo; tr '\\0' '\\n' </proc/$$/environ; }} >{out} 2>&1
"""


@pytest.mark.parametrize("mask", (0o22, 0o777))
@pytest.mark.parametrize("front", ("iptables", "ip6tables", "iptables-save", "iptables-restore"))
def test_a_backend_inherits_what_the_caller_has(ours, beside, front, mask, tmp_path):
    """Capabilities of every kind, ids, umask, signals, limits, descriptors: on the short way and on the long one."""
    directory, out = tmp_path / "backends", tmp_path / "out"
    directory.mkdir()
    for name in harness.FRONTS:
        program = directory / name.replace("tables", f"tables-{ours.variant}", 1)
        program.write_text(PROGRAM.format(variant=ours.variant, out=out))
        program.chmod(0o755)
    config = tmp_path / "xtshim.toml"
    harness.configure(config, ours.variant, {}, "none", directory)
    (_, place), = beside(ours).places
    direct = str(directory / front.replace("tables", f"tables-{ours.variant}", 1))
    variables = {**harness.BASE_ENVIRONMENT, "TZ": "UTC", "XTABLES_LOCKFILE": str(tmp_path / "lock")}

    def report(program):
        out.write_text("")
        with place.entered():
            done = subprocess.run([program, "-w"] if front.endswith("tables") else [program], stdin=subprocess.DEVNULL, capture_output=True, env={**variables, "XTSHIM_CONFIG": str(config), "LD_BIND_NOW": "1", "XTABLES_LIBDIR": "/nowhere", "BASH_ENV": "/nowhere"}, umask=mask)
        assert done.returncode == 0, done
        return out.read_text().splitlines()

    with place.entered():
        warm = harness.execute([ours.path(front), "-V"], env={**variables, "XTSHIM_CONFIG": str(config)})
    assert warm.rc == 0, warm.text()
    mine, theirs = report(ours.path(front)), report(direct)
    ends = [lines.index("") for lines in (mine, theirs)]
    ends = [lines.index("", end + 1) for lines, end in zip((mine, theirs), ends)]
    assert mine[: ends[0]] == theirs[: ends[1]]
    assert sorted(line.split("=")[0] for line in mine[ends[0] + 1 :]) == ["PATH", "TZ", "XTABLES_LOCKFILE"]


@pytest.mark.parametrize("bits,code", ((0o6755, 111), (0o4755, 111), (0o2755, None)))
@pytest.mark.parametrize("table", ("raw", "filter"))
def test_set_id_programs(subject, public, bits, code, table, tmp_path):
    """With another effective user it does nothing, and says nothing. iptables does not mind the group."""
    program = public / f"setid-{subject.name}-{bits:o}"
    if not program.exists():
        shutil.copy(os.path.realpath(subject.path("iptables")), program)
        program.chmod(bits)
    call = program.with_suffix(".d")
    call.mkdir(exist_ok=True)
    call.chmod(0o755)
    link = call / "iptables"
    if not link.is_symlink():
        link.symlink_to(program)
    answer = harness.execute([str(link), "-t", table, "-S"], user=65534, group=65534, extra_groups=[])
    if code is None:
        assert answer.rc in (3, 4) and answer.err, answer.text()
    else:
        assert answer == harness.Result(code, b"", b""), answer.text()


def test_files_of_others(both, tmp_path):
    """Root reads a file that only its owner may read, and writes one where only its owner may: as the original."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    rules = folder / "rules"
    rules.write_text(f"*raw\n-A {RULE}\nCOMMIT\n")
    rules.chmod(0o600)
    os.chown(rules, 65534, 65534)
    os.chown(folder, 65534, 65534)
    folder.chmod(0o700)
    both.run(["iptables-restore", str(rules)], 0)
    both.run(f"iptables -t raw -C {RULE}", 0)
    for mask in (0o022, 0o027):
        for subject, place in both.places:
            saved = folder / f"saved-{subject.name}-{mask:o}"
            answer = both.call(subject, place, ["iptables-save", "-t", "raw", "-f", str(saved)], umask=mask)
            if answer != harness.Result(0, b"", b"") or RULE.encode() not in saved.read_bytes():
                both.fault(f"{subject.name}: -f", answer.text())
            elif stat.S_IMODE(saved.stat().st_mode) != 0o666 & ~mask:
                both.fault(f"{subject.name}: a file of mode {saved.stat().st_mode:o}")


@pytest.mark.parametrize("mask", (0o000, 0o777))
def test_what_is_written_is_for_root_alone(alone, mask, tmp_path):
    """Whatever the caller's umask: no file of ours that others may read, and none that we ourselves could not."""
    (subject, place), = alone.places
    config, journal, run = tmp_path / "xtshim.toml", tmp_path / "log" / "rewrites.jsonl", tmp_path / "run"
    run.mkdir()
    harness.configure(config, subject.variant, {"raw": "nft"}, journal)
    via = ("unshare", "-m", "sh", "-c", f'mount --bind {run} /run && exec "$@"', "sh")
    for letter in ("-A", "-A", "-D"):
        answer = alone.call(subject, place, ["iptables", "-t", "raw", letter, *RULE.split()], env={"XTSHIM_CONFIG": str(config), "XTABLES_LOCKFILE": "/run/xtables.lock"}, via=via, umask=mask)
        assert answer == harness.Result(0, b"", b""), answer.text()
    assert len(journal.read_text().splitlines()) == 3
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (journal, *run.rglob("*"))}
    assert all(mode & 0o077 == 0 and mode & 0o600 for mode in modes.values()), modes
    assert any(path.name.startswith("snapshot-") for path in modes), modes


def test_links_are_not_followed(alone, tmp_path):
    """Where others may write they might wait for us with a link."""
    (subject, place), = alone.places
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    open_to_all = tmp_path / "tmp"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    journal = open_to_all / "rewrites.jsonl"
    journal.symlink_to(victim)
    config = tmp_path / "xtshim.toml"
    harness.configure(config, subject.variant, {"raw": "nft"}, journal)
    run = tmp_path / "run"
    run.mkdir()
    (run / "xtshim").symlink_to(open_to_all)
    via = ("unshare", "-m", "sh", "-c", f'mount --bind {run} /run && exec "$@"', "sh")
    answer = alone.call(subject, place, ["iptables", "-t", "raw", "-A", *RULE.split()], env={"XTSHIM_CONFIG": str(config), "XTABLES_LOCKFILE": str(tmp_path / "lock")}, via=via)
    assert answer == harness.Result(0, b"", b""), answer.text()
    assert victim.read_text() == "untouched"
    assert [path.name for path in open_to_all.iterdir()] == ["rewrites.jsonl"]
    alone.run(f"iptables -t raw -C {RULE}", 0)


FORGED = "x\n2026-11-21T00:00:00.000Z  dockerd[1]  net:[1]\n  asked    iptables -F\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e"


def test_nothing_is_forged_in_the_journal(alone, tmp_path):
    """Whatever a rule, a chain's name or a failing option says: one line for each command, and no byte that a terminal heeds."""
    (subject, place), = alone.places
    config, journal = tmp_path / "xtshim.toml", tmp_path / "rewrites.jsonl"
    harness.configure(config, subject.variant, {"raw": "nft"}, journal)
    env = {"XTSHIM_CONFIG": str(config)}
    lines = (["-A", "PREROUTING", "-m", "comment", "--comment", FORGED], ["-N", FORGED[:20]], ["-A", "PREROUTING", "-j", "LOG", "--log-prefix", FORGED[:25]], ["-A", "PREROUTING", "-m", "string", "--string", FORGED, "--algo", "bm"])
    for line in lines:
        alone.call(subject, place, ["iptables", "-t", "raw", *line], env=env)
    written = journal.read_bytes()
    assert all(byte in b"\n" or 32 <= byte < 127 for byte in written), written
    assert 1 <= len(written.splitlines()) <= len(lines)
    with place.entered():
        shown = harness.execute([os.path.realpath(subject.path("iptables")), "log"], env={**environment(alone, subject), **env})
    assert shown.rc == 0 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown.out.decode()), shown.text()
    assert sum(line.startswith("  asked") for line in shown.out.decode().splitlines()) == len(written.splitlines())
