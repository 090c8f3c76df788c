"""What the tests here are given: the program, packages of several versions, machines to install them on."""

import os
import pathlib
import shutil
import subprocess

import pytest

import roots

ROOT = roots.ROOT
DEBIAN = ("0.1.0", "0.1.1", "0.0.9")


def program():
    """The program under test: $XTSHIM_BIN, else the newest build in target/."""
    given = os.environ.get("XTSHIM_BIN")
    if given:
        return pathlib.Path(given).resolve()
    builds = ("x86_64-unknown-linux-musl/release", "x86_64-unknown-linux-musl/debug", "release", "debug")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = [target / build / "xtshim" for build in builds if (target / build / "xtshim").exists()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def pytest_configure(config):
    if os.geteuid() == 0:
        # Mounts made here end with the run.
        os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else _unshare()
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _unshare():
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


@pytest.fixture(scope="session")
def binary(tmp_path_factory):
    """Stripped, as a release is: a debug build would make large packages."""
    source = program()
    if source is None:
        pytest.fail("there is no program to pack: cargo build, or XTSHIM_BIN")
    path = tmp_path_factory.mktemp("program") / "xtshim"
    if subprocess.run(["strip", "-o", str(path), str(source)], check=False).returncode != 0:
        shutil.copy(source, path)
    return path


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The tree that packages are built from, without what cargo needs."""
    path = tmp_path_factory.mktemp("source") / "xtshim-0.1.0"
    path.mkdir()
    for name in ("debian", "rpm", "docs"):
        shutil.copytree(ROOT / name, path / name, symlinks=True)
    for name in ("Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"):
        shutil.copy(ROOT / name, path)
    return path


@pytest.fixture(scope="session")
def changes(source, binary):
    """What dpkg-buildpackage makes."""
    environment = {**os.environ, "XTSHIM_PREBUILT": str(binary), "DEB_BUILD_OPTIONS": "nocheck"}
    built = subprocess.run(["dpkg-buildpackage", "-b", "-d", "-us", "-uc"], cwd=source, env=environment, text=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert built.returncode == 0, built.stdout[-3000:]
    return next(source.parent.glob("*.changes"))


class Packages:
    """The package, in versions that differ in nothing else, and with scripts that fail."""

    def __init__(self, deb, work):
        self.tree = work / "tree"
        self.work = work
        subprocess.run(["dpkg-deb", "-R", str(deb), str(self.tree)], check=True)
        self.scripts = {path.name: path.read_text() for path in (self.tree / "DEBIAN").glob("p*") }
        self.made = {}

    def version(self, version, **scripts):
        """`scripts`: what stands behind the last line of one of the maintainer's scripts."""
        key = (version, *sorted(scripts.items()))
        if key not in self.made:
            control = self.tree / "DEBIAN/control"
            lines = control.read_text().splitlines()
            control.write_text("".join(f"Version: {version}\n" if line.startswith("Version:") else f"{line}\n" for line in lines))
            for name in ("preinst", "postinst", "prerm", "postrm"):
                path = self.tree / "DEBIAN" / name
                text = self.scripts.get(name, "#!/bin/sh\n") + scripts.get(name, "") + "\n"
                path.write_text(text)
                path.chmod(0o755)
            path = self.work / f"xtshim_{version}_{len(self.made)}.deb"
            subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b", str(self.tree), str(path)], check=True,
                           stdout=subprocess.DEVNULL)
            self.made[key] = path
        return self.made[key]


@pytest.fixture(scope="session")
def packages(changes, tmp_path_factory):
    return Packages(next(changes.parent.glob("*.deb")), tmp_path_factory.mktemp("packages"))


@pytest.fixture
def machine(tmp_path):
    """Makes machines of a Debian release."""
    made = []

    def make(suite="bookworm"):
        path = tmp_path / str(len(made))
        path.mkdir()
        made.append(roots.Machine(suite, path))
        return made[-1]

    yield make
    roots.close_all(made)
