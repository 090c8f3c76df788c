"""What every test here is given: a private mount namespace, the originals, ours, and the two side by side."""

import contextlib
import os
import pathlib
import shutil
import tempfile

import pytest

import harness
import scene as scenes

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANTS = ("legacy", "nft")
NAMES = (*VARIANTS, *(f"xtshim-{variant}" for variant in VARIANTS))
CONFIG = """backend = "{variant}"

[carriers]
{carriers}
[journal]
file = "{journal}"
system = false
"""


def pytest_configure(config):
    if os.geteuid() == 0:
        # Nothing here may touch the machine's own lock, cache, sockets or logs.
        harness.unshare(harness.CLONE_NEWNS)
        harness.mount(None, "/", None, harness.MS_REC | harness.MS_PRIVATE)
        for place in ("/run", "/var/log"):
            harness.mount("tmpfs", place, "tmpfs", 0, "mode=755")
        # A name server that nothing is sent to: chains would count that. musl's resolver waits for it all the same.
        resolver = pathlib.Path("/run/resolv.conf")
        resolver.write_text("nameserver 192.0.2.53\noptions timeout:1 attempts:1\n")
        with contextlib.suppress(OSError):  # there may be none
            harness.mount(str(resolver), "/etc/resolv.conf", None, harness.MS_BIND)


def pytest_collection_modifyitems(items):
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
def shim(public):
    """Gives ours over a variant with some tables carried by nft: raw, where nothing else is asked for."""
    known = {}

    def make(variant, tables=("raw",)):
        if (variant, tables) not in known:
            program = binary()
            if program is None:
                pytest.skip("xtshim is not built (cargo build, or name it in XTSHIM_BIN)")
            name = f"xtshim-{variant}" if tables == ("raw",) else f"xtshim-{variant}-{'-'.join(tables)}"
            directory = public / name
            directory.mkdir()
            journal = directory / "rewrites.jsonl"
            config = directory / "xtshim.toml"
            config.write_text(CONFIG.format(variant=variant, journal=journal, carriers="".join(f'{table} = "nft"\n' for table in tables)))
            shutil.copy(program, directory / "xtshim")
            for front in harness.FRONTS:
                (directory / front).symlink_to("xtshim")
            known[variant, tables] = harness.Subject(name, variant, True, str(directory), str(config), str(journal))
        return known[variant, tables]

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
def both(subject, original, tmp_path):
    """The subject and its original side by side, each in a fresh namespace."""
    subjects = [original(subject.variant), subject] if subject.ours else [subject]
    pair = harness.Both(subjects, str(tmp_path / "xtables.lock"))
    yield pair
    pair.close()


@pytest.fixture
def alone(ours, tmp_path):
    """Ours in a fresh namespace, nothing beside it."""
    single = harness.Both([ours], str(tmp_path / "xtables.lock"))
    yield single
    single.close()


@pytest.fixture
def carried(variant, original, shim, tmp_path):
    """An original and ours side by side, each in a fresh namespace; ours carries every table by nft."""
    pair = harness.Both([original(variant), shim(variant, harness.TABLES)], str(tmp_path / "xtables.lock"))
    yield pair
    pair.close()


@pytest.fixture
def scene(carried):
    """`carried` with neighbours to send packets from: see scene.py."""
    made = scenes.Scene(carried)
    yield made
    made.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Calls the test, then has the pair's collected faults fail it."""
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    pyfuncitem.obj(**arguments)
    for name in ("both", "alone", "carried", "scene"):
        if name in arguments:
            getattr(arguments[name], "both", arguments[name]).verdict()
    return True


def pytest_terminal_summary(terminalreporter):
    """Figures that a test has found."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == "figure":
                    terminalreporter.write_line(value)
