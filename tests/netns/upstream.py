"""The source package of iptables, fetched while the tests run and never kept in the repository."""

import os
import pathlib
import re
import subprocess
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "iptables-source"
ARCHIVE = "iptables_*.orig.tar.?z*"


# Names the mount namespace in which the name server is the machine's own.
OUTSIDE = "XTSHIM_TESTS_OUTSIDE"


def apt(options, *commands, cwd="/"):
    """What the last apt-get says; the first that fails is the last. A mirror that does not answer is asked again: several
    test processes come to it at once."""
    options = ["-q", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30", "-o", "APT::Update::Error-Mode=any", *options]
    enter = ["nsenter", f"--mount={os.environ[OUTSIDE]}"] if OUTSIDE in os.environ else []
    for pause in (5, 15, 0):
        for words in commands:
            try:
                done = subprocess.run([*enter, "sh", "-c", 'cd "$0" && exec apt-get "$@"', cwd, *options, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=180)
            except subprocess.TimeoutExpired:
                done = subprocess.CompletedProcess(words, 100, "", "it takes too long to come")
            if done.returncode:
                break
        if not done.returncode:
            break
        time.sleep(pause)
    return done


def fetch(suite=None):
    """Its archive: of this machine's own distribution, or of another Debian `suite`; by apt, with lists of its own. The
    test is skipped where it cannot be had."""
    cache = CACHE / suite if suite else CACHE
    if found := sorted(cache.glob(ARCHIVE)):
        return found[0]
    sources = pathlib.Path("/etc/apt/sources.list.d/debian.sources")
    if not sources.exists():
        pytest.skip("iptables' source package: no debian.sources to fetch it by")
    text = re.sub(r"^Types:.*$", "Types: deb-src", sources.read_text(), flags=re.M)
    if suite:
        text = re.sub(r"^Suites:.*$", f"Suites: {suite}", text.split("\n\n")[0], flags=re.M)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "parts").mkdir()
        (work / "lists/partial").mkdir(parents=True)
        (work / "parts/source.sources").write_text(text)
        options = ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={work}/parts", "-o", f"Dir::State::lists={work}/lists", "-o", "APT::Sandbox::User=root"]
        done = apt(options, ["update"], ["source", "--download-only", "iptables"], cwd=work)
        # Whole and checked once it has its own name, also where a mirror lacks the package's other files.
        found = sorted(work.glob(ARCHIVE))
        if not found:
            pytest.skip(f"iptables' source package cannot be had: {done.stderr.strip()[-200:]}")
        cache.mkdir(parents=True, exist_ok=True)
        # Several test processes may come here at once.
        temporary = cache / f".{found[0].name}.{os.getpid()}"
        temporary.write_bytes(found[0].read_bytes())
        return temporary.rename(cache / found[0].name)
