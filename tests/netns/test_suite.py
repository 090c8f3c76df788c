"""iptables' own test suite, 1.8.11's as Debian trixie has it, with every table carried by nft.

Its runner, `iptables-test.py`, takes what answers to `xtables-legacy-multi` and `xtables-nft-multi` on PATH for the
iptables to test, and counts a rule line tried as one unit for each family. What its lines expect of iptables-save is
what 1.8.11 says: the backend that ours is told of calls itself by that version.
"""

import os
import re
import shlex
import sys
import tarfile

import pytest

import harness
import upstream
from conftest import ROOT

VERSION = "1.8.11"
UNITS = 1693  # of iptables and ip6tables
# What passed when this was written, on a kernel without nf_tables' `queue`, which 26 units are about. The others that fail
# are most of all those of what is not carried (hashlimit, ipvs, srh, rateest, string), and chunk types of sctp.
LEAST = 1314


@pytest.fixture(scope="session")
def source(public):
    """The source package, unpacked."""
    archive = upstream.fetch("trixie")
    if VERSION not in archive.name:
        pytest.skip(f"trixie has {archive.name}, not {VERSION}: what is asserted here is another suite's")
    with tarfile.open(archive) as files:
        files.extractall(public)
    return public / f"iptables-{VERSION}"


def stage(directory, variant, program):
    """Ours under the names that the suite calls, over a backend that says it is of the suite's version."""
    backends, bin = directory / "backends", directory / "bin"
    backends.mkdir()
    bin.mkdir()
    for front in harness.FRONTS:
        name = re.sub(r"^(ip6?tables)", rf"\1-{variant}", front)
        label = {"legacy": "legacy", "nft": "nf_tables"}[variant]
        (backends / name).write_text(f"#!/bin/sh\ncase $1 in --version | -V) echo '{front} v{VERSION} ({label})' ;; *) exec /usr/sbin/{name} \"$@\" ;; esac\n")
        (backends / name).chmod(0o755)
    (bin / f"xtables-{variant}-multi").symlink_to(program)
    config = directory / "suite.toml"
    harness.configure(config, variant, dict.fromkeys(harness.TABLES, "nft"), backends=backends)
    return {**harness.BASE_ENVIRONMENT, "PATH": f"{bin}:{harness.BASE_ENVIRONMENT['PATH']}", "XTSHIM_CONFIG": str(config)}


def catalogue():
    """What docs/extensions.md says of each extension: (`-m` or `-j`, name) -> its native form, what it refuses."""
    found, kind = {}, None
    for line in (ROOT / "docs/extensions.md").read_text().splitlines():
        kind = {"## Matches": "-m", "## Targets": "-j"}.get(line, kind)
        cells = [cell.strip() for cell in line.split("|")]
        if kind and len(cells) >= 5 and cells[1].startswith("`"):
            found[kind, cells[1].split("`")[1]] = cells[2], cells[3]
    return found


def has_queue():
    """Whether this kernel's nf_tables has an expression for NFQUEUE."""
    return harness.execute(["nft", "-c", "add table t; add chain t c; add rule t c queue num 0"]).rc == 0


def explained(failure, said, known):
    """Whether a unit failed for something that the catalogue lists as not carried, or as refused in part."""
    command = shlex.split(failure.partition("cannot load: ")[2])
    named = [(option, name) for option, name in zip(command, command[1:]) if option in ("-m", "-j")]
    if any(known.get(each, ("", ""))[0] == "not carried" for each in named):
        return True
    refusal = next((line.partition("cannot carry ")[2] for line in said if "cannot carry " in line), None)
    if refusal is None:
        return False
    words = re.match(r"(-[mj]) ([^\s:]+)", refusal)
    of = [words.groups()] if words else named
    return any(known.get(each, ("", ""))[1] for each in of)


def test_units(variant, source, shim, tmp_path, record_property):
    program = os.path.join(shim(variant).directory, "xtshim")
    env = stage(tmp_path, variant, program)
    logfile = tmp_path / "suite.log"
    runner = source / f"iptables-test-{variant}.py"
    text = (source / "iptables-test.py").read_text()
    assert text.count('LOGFILE="/tmp/iptables-test.log"') == 1
    runner.write_text(text.replace("/tmp/iptables-test.log", str(logfile)))
    files = sorted(path for pattern in ("libxt_*.t", "libipt_*.t", "libip6t_*.t", "iptables.t") for path in (source / "extensions").glob(pattern))
    with harness.Netns().entered():
        done = harness.execute([sys.executable, str(runner), "--host", "--no-netns", {"legacy": "-l", "nft": "-n"}[variant], *map(str, files)], env=env, timeout=900)
    out, err = done.out.decode(), done.err.decode()
    units, passed = map(int, re.search(r"(\d+) unit tests, (\d+) passed", out).groups())
    record_property("figure", f"iptables' own suite, {VERSION}, {variant}: {passed} of {units} units pass")
    assert units == UNITS
    log, said = {}, []
    for line in logfile.read_text(errors="replace").splitlines():
        # The runner's own lines wait in its buffer while what it has called speaks.
        if line.startswith("command: "):
            log[line.split(" ", 2)[2]], said = said, []
        else:
            said.append(line)
    known, faults = catalogue(), []
    with harness.Netns().entered():
        if not has_queue():
            known["-j", "NFQUEUE"] = "not carried", ""
    for line in err.splitlines():
        failure = line.partition("extensions/")[2].removesuffix(")")
        said = log.get(failure.partition("cannot load: ")[2], [])
        if failure and not explained(failure, said, known):
            faults.append("\n    ".join([failure, *said]))
    # Each line was tried by itself and passed, but not all in one iptables-restore.
    faults.extend(line for line in out.splitlines() if "fast mode failed" in line)
    assert not faults, "\n".join(faults)
    assert passed >= LEAST


def test_translations(source, shim, variant):
    """Whatever `xtshim translate` accepts of the suite's rules, nft accepts."""
    ours, tried, wrong = shim(variant, harness.TABLES), [], []
    with harness.Netns().entered():
        queue = has_queue()
        for path in sorted((source / "extensions").glob("*.txlate")):
            for line in path.read_text().splitlines():
                words = shlex.split(line) if re.match(r"ip6?tables-translate ", line) else None
                if not words:
                    continue
                argv = [words[0].removesuffix("-translate"), *words[1:]]
                said = harness.execute([os.path.join(ours.directory, "xtshim"), "translate", "--", *argv], env=ours.environment())
                if said.rc:
                    continue
                if b" queue " in said.out and not queue:
                    continue
                tried.append(line)
                answer = harness.execute(["nft", "-c", "-f", "-"], stdin=said.out)
                if answer.rc or answer.out or answer.err:
                    wrong.append(f"{line}\n{said.out.decode()}\n{answer.text()}")
    assert not wrong, f"{len(wrong)} of {len(tried)}\n" + "\n\n".join(wrong)
    assert len(tried) > 250, f"only {len(tried)} translations"
