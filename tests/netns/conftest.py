"""What every test here is given: a private mount namespace, the originals, ours, and the two side by side."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile

import pytest

import harness
import scene as scenes
import upstream

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANTS = ("legacy", "nft")
NAMES = (*VARIANTS, *(f"xtshim-{variant}" for variant in VARIANTS))


def pytest_configure(config):
    if os.geteuid() == 0:
        # Nothing here may touch the machine's own lock, cache, sockets or logs. What is fetched is fetched from outside, by
        # the workers as well, which begin in here.
        outside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        os.environ.setdefault(upstream.OUTSIDE, f"/proc/{os.getpid()}/fd/{outside}")
        harness.unshare(harness.CLONE_NEWNS)
        harness.mount(None, "/", None, harness.MS_REC | harness.MS_PRIVATE)
        for place in ("/run", "/var/log"):
            harness.mount("tmpfs", place, "tmpfs", 0, "mode=755")
        # A name server that nothing is sent to: chains would count that. musl's resolver waits for it all the same.
        resolver = pathlib.Path("/run/resolv.conf")
        resolver.write_text("nameserver 192.0.2.53\noptions timeout:1 attempts:1\n")
        with contextlib.suppress(OSError):  # there may be none
            harness.mount(str(resolver), "/etc/resolv.conf", None, harness.MS_BIND)


# Files with tests that take longest: they begin first, so that nobody waits for one that began last.
LONG = ("test_suite", "test_upstream", "test_hosted", "test_corpus", "test_circumstances")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs root, for network namespaces"))


def binary():
    """The program under test: $XTSHIM_BIN, else the newest build in target/."""
    given = os.environ.get("XTSHIM_BIN")
    if given:
        return pathlib.Path(given) if os.access(given, os.X_OK) else None
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    builds = [target / kind / "xtshim" for kind in ("debug", "release", "x86_64-unknown-linux-musl/release")]
    builds = [build for build in builds if os.access(build, os.X_OK)]
    return max(builds, key=lambda build: build.stat().st_mtime, default=None)


@pytest.fixture(scope="session")
def public():
    """A directory that an unprivileged user can run programs from: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="xtshim-tests-") as path:
        os.chmod(path, 0o755)
        yield pathlib.Path(path)


@pytest.fixture(scope="session")
def original(public):
    """Gives the original of a variant, under the names it has behind update-alternatives."""
    known = {}

    def make(variant):
        if variant not in known:
            multi = f"/usr/sbin/xtables-{variant}-multi"
            if not os.access(multi, os.X_OK):
                pytest.skip(f"{multi} is not installed")
            directory = public / variant
            directory.mkdir()
            for front in harness.FRONTS:
                (directory / front).symlink_to(multi)
            known[variant] = harness.Subject(variant, variant, False, str(directory))
        return known[variant]

    return make


@pytest.fixture(scope="session")
def program():
    found = binary()
    if found is None:
        pytest.skip("xtshim is not built (cargo build, or name it in XTSHIM_BIN)")
    return found


@pytest.fixture(scope="session")
def shim(request, public):
    """Gives ours over a variant with some tables carried by nft, or another carrier: raw, where nothing else is asked for."""
    known = {}

    def make(variant, tables=("raw",), carrier="nft"):
        key = variant, tables, carrier
        if key not in known:
            name = "-".join(["xtshim", variant, *((tables or ("nothing",)) if tables != ("raw",) else ()), *([carrier] if carrier != "nft" else ())])
            directory = public / name
            directory.mkdir()
            journal, config = directory / "rewrites.jsonl", directory / "xtshim.toml"
            harness.configure(config, variant, dict.fromkeys(tables, carrier), journal)
            shutil.copy(request.getfixturevalue("program"), directory / "xtshim")
            for front in harness.FRONTS:
                (directory / front).symlink_to("xtshim")
            known[key] = harness.Subject(name, variant, True, str(directory), str(config), str(journal))
        return known[key]

    return make


@pytest.fixture(scope="session")
def optimized(public):
    """Gives the same subject with `optimize = true`."""
    known = {}

    def make(subject):
        if subject.name not in known:
            directory = public / f"{subject.name}-optimized"
            shutil.copytree(subject.directory, directory, symlinks=True)
            config = directory / "xtshim.toml"
            config.write_text("optimize = true\n" + config.read_text())
            known[subject.name] = dataclasses.replace(subject, name=directory.name, directory=str(directory), config=str(config))
        return known[subject.name]

    return make


def pytest_generate_tests(metafunc):
    if "subject" in metafunc.fixturenames:
        metafunc.parametrize("subject", NAMES, indirect=True, scope="session")
    if "variant" in metafunc.fixturenames:
        metafunc.parametrize("variant", VARIANTS, scope="session")
    if "ours" in metafunc.fixturenames:
        metafunc.parametrize("ours", VARIANTS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def subject(request, original, shim):
    """What is under test: each original first, then ours over each."""
    name = request.param
    return shim(name.removeprefix("xtshim-")) if name.startswith("xtshim-") else original(name)


@pytest.fixture(scope="session")
def ours(request, shim):
    """Ours alone, for what no original does."""
    return shim(request.param)


@pytest.fixture
def beside(tmp_path):
    """Gives subjects side by side, each in a fresh namespace. The faults that they collect fail the test at its end."""

    def make(*subjects):
        make.pairs.append(harness.Both(subjects, str(tmp_path / "xtables.lock")))
        return make.pairs[-1]

    make.pairs = []
    yield make
    for pair in make.pairs:
        pair.close()


@pytest.fixture
def both(subject, original, beside):
    """The subject and its original side by side."""
    return beside(original(subject.variant), subject) if subject.ours else beside(subject)


@pytest.fixture
def alone(ours, beside):
    """Ours, nothing beside it."""
    return beside(ours)


@pytest.fixture
def carried(variant, original, shim, beside):
    """An original and ours side by side; ours carries every table by nft."""
    return beside(original(variant), shim(variant, harness.TABLES))


@pytest.fixture
def scenery():
    """Gives subjects that stand side by side neighbours to send packets from: see scene.py."""
    with contextlib.ExitStack() as stack:
        yield lambda pair: stack.enter_context(contextlib.closing(scenes.Scene(pair)))


@pytest.fixture
def scene(carried, scenery):
    """`carried` with neighbours."""
    return scenery(carried)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Calls the test, then has the collected faults fail it."""
    pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    if "beside" in pyfuncitem.funcargs:
        for pair in pyfuncitem.funcargs["beside"].pairs:
            pair.verdict()
    return True


def pytest_terminal_summary(terminalreporter):
    """Figures that a test has found."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == "figure":
                    terminalreporter.write_line(value)
