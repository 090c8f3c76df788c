"""The .rpm: what is in it, and its life on a machine whose update-alternatives is chkconfig's, with one group for all of
iptables, as on Fedora."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

import roots

HERE = pathlib.Path(__file__).parent
# The real one, where there is one; `XTSHIM_BLESS` then writes down what it does.
ALTERNATIVES = pathlib.Path(os.environ.get("XTSHIM_TEST_ALTERNATIVES", HERE / "alternatives"))
FOLLOWERS = ("ip6tables", "ip6tables-restore", "ip6tables-save", "iptables-restore", "iptables-save")
OURS = "/usr/sbin/iptables-xtshim"


def own(name, variant):
    head, tail = (name.split("-", 1) + [""])[:2]
    return f"/usr/sbin/{head}-{variant}{'-' + tail if tail else ''}"


def install_words(variant, priority, folder=""):
    words = ["--install", f"{folder}/usr/sbin/iptables", "iptables", f"{folder}{own('iptables', variant)}", str(priority)]
    for name in FOLLOWERS:
        words += ["--slave", f"{folder}/usr/sbin/{name}", name, f"{folder}{own(name, variant)}"]
    return words


@pytest.fixture(scope="module")
def package(source, binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rpm")
    made = {}
    for version in ("0.1.0", "0.1.1"):
        tree = folder / version
        shutil.copytree(source, tree, symlinks=True)
        for path in (tree / "rpm/xtshim.spec", tree / "Cargo.toml"):
            path.write_text(path.read_text().replace("0.1.0", version))
        built = subprocess.run([tree / "rpm/build", str(binary), os.uname().machine, str(folder / f"made-{version}")],
                               stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stdout + built.stderr
        made[version] = pathlib.Path(built.stdout.split()[-1])
    return made


class Fedora:
    """A machine with chkconfig's alternatives and rpm's database."""

    def __init__(self, machine):
        self.machine = machine
        machine.must("sh", "-c", "for n in iptables ip6tables; do update-alternatives --remove-all $n; done")
        shutil.rmtree(machine.file("/var/lib/dpkg"))
        machine.file("/usr/bin/update-alternatives").unlink()
        for path in ("/usr/sbin/alternatives", "/usr/sbin/update-alternatives"):
            shutil.copy(ALTERNATIVES, machine.file(path))
        machine.file("/var/lib/alternatives").mkdir()
        # What Fedora's own `filesystem' has.
        for folder in ("/var/lib/rpm", "/usr/share/licenses", "/usr/share/fish/vendor_completions.d",
                       "/usr/share/zsh/site-functions", "/usr/share/bash-completion/completions"):
            machine.file(folder).mkdir(parents=True, exist_ok=True)
        self.alternatives(*install_words("nft", 10))
        self.alternatives(*install_words("legacy", 10))

    def alternatives(self, *words):
        self.machine.must("alternatives", *words)

    def rpm(self, *words):
        # rpm itself is not in there: it changes its root, and runs the scriptlets in it.
        root = f"/proc/{self.machine.pid}/root"
        done = subprocess.run(
            ["nsenter", "--target", self.machine.pid, "--net", "--pid", "rpm", "--root", root, "--dbpath", "/var/lib/rpm",
             "--nodeps", *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert done.returncode == 0 and "scriptlet failed" not in done.stdout, done.stdout
        return done.stdout

    def state(self):
        return self.machine.read("/var/lib/alternatives/iptables"), self.machine.links()


@pytest.mark.parametrize("how", ["automatic", "legacy by hand", "nft by hand"])
def test_a_whole_life(machine, package, how):
    there = machine()
    fedora = Fedora(there)
    if how != "automatic":
        fedora.alternatives("--set", "iptables", f"/usr/sbin/iptables-{how.split()[0]}")
    before, files = fedora.state(), there.everything()
    there.is_sound()

    said = fedora.rpm("-i", package["0.1.0"])
    there.is_sound()
    assert (there.value() == OURS) == (how == "automatic"), said
    there.must("xtshim", "enable")
    assert there.value() == OURS and there.value("ip6tables-save") == "/usr/sbin/ip6tables-xtshim-save"
    assert json.loads(there.must("xtshim", "status", "--json"))["system"] is True

    there.write("/etc/xtshim/xtshim.toml", "[carriers]\nraw = \"nft\"\n[journal]\nsystem = false\n")
    rule = ("iptables", "-w", "-t", "raw", "-A", "PREROUTING", "-d", "172.17.0.2", "!", "-i", "docker0", "-j", "DROP")
    there.must(*rule)
    fedora.rpm("-U", package["0.1.1"])
    there.is_sound()
    assert there.value() == OURS
    there.must(*(word.replace("-A", "-C") for word in rule))
    fedora.rpm("-U", "--oldpackage", package["0.1.0"])
    there.is_sound()
    assert there.value() == OURS

    fedora.rpm("-e", "xtshim")
    there.is_sound()
    assert fedora.state() == before
    assert "xtshim" not in there.must("nft", "list", "tables")
    there.must("rm", "-f", "/etc/xtshim/xtshim.toml.rpmsave")
    there.must("sh", "-c", "rmdir /etc/xtshim 2>/dev/null; true")
    assert there.everything() == files


def test_a_removal_without_the_program(machine, package):
    there = machine()
    fedora = Fedora(there)
    fedora.alternatives("--set", "iptables", "/usr/sbin/iptables-legacy")
    before = fedora.state()
    fedora.rpm("-i", package["0.1.0"])
    there.must("xtshim", "enable")
    there.file("/usr/sbin/xtshim").unlink()
    fedora.rpm("-e", "xtshim")
    there.is_sound()
    assert fedora.state() == before


def test_what_is_in_it(package):
    def query(*words):
        said = subprocess.run(["rpm", "-qp", *words, str(package["0.1.0"])], capture_output=True, text=True, check=True)
        return said.stdout.splitlines()

    files = query("--list")
    for name in ("iptables", "ip6tables"):
        for tool in ("", "-save", "-restore"):
            assert f"/usr/sbin/{name}-xtshim{tool}" in files and f"/usr/lib/xtshim/bin/{name}{tool}" in files
            assert f"/usr/share/man/man8/{name}-xtshim{tool}.8.gz" in files
    for path in ("/usr/lib/systemd/system/xtshim-probe.service", "/usr/share/man/man8/xtshim.8.gz",
                 "/usr/share/man/man5/xtshim.toml.5.gz", "/usr/share/bash-completion/completions/xtshim"):
        assert path in files
    assert set(query("--configfiles")) == {"/etc/xtshim/xtshim.toml", "/etc/logrotate.d/xtshim"}
    # The program needs nothing, whatever it was built with.
    assert not [line for line in query("--requires") if "lib" in line and "rpmlib" not in line]
    assert query("--recommends") == ["iptables"]


def test_rpmlint(package, tmp_path):
    said = subprocess.run(["rpmlint", "-c", str(HERE.parents[1] / "rpm/xtshim.rpmlintrc.toml"), str(package["0.1.0"])],
                          capture_output=True, text=True, check=False)
    lines = [line for line in said.stdout.splitlines() if ": E: " in line or ": W: " in line]
    assert lines == [], said.stdout + said.stderr


STEPS = (
    install_words("nft", 10, "@"),
    install_words("legacy", 10, "@"),
    install_words("xtshim", 30, "@"),
    ["--remove", "iptables", f"@{OURS}"],
    ["--set", "iptables", "@/usr/sbin/iptables-legacy"],
    install_words("xtshim", 30, "@"),
    ["--set", "iptables", f"@{OURS}"],
    install_words("xtshim", 30, "@"),
    ["--set", "iptables", "@/usr/sbin/iptables-legacy"],
    ["--remove", "iptables", f"@{OURS}"],
    ["--remove", "iptables", f"@{OURS}"],
    install_words("xtshim", 30, "@"),
    ["--set", "iptables", f"@{OURS}"],
    ["--remove", "iptables", f"@{OURS}"],
    ["--set", "iptables", "@/usr/sbin/iptables-legacy"],
    ["--auto", "iptables"],
    ["--set", "iptables", f"@{OURS}"],
    ["--remove", "iptables", "@/usr/sbin/iptables-nft"],
    ["--remove", "iptables", "@/usr/sbin/iptables-legacy"],
    ["--remove", "iptables", "@/usr/sbin/iptables-legacy"],
)


def test_the_stand_in_does_what_the_real_one_does(tmp_path):
    for folder in ("usr/sbin", "etc", "var"):
        (tmp_path / folder).mkdir(parents=True)
    for variant in ("nft", "legacy", "xtshim"):
        for name in ("iptables", *FOLLOWERS):
            path = tmp_path / own(name, variant).lstrip("/")
            path.write_text("#!/bin/sh\n")
            path.chmod(0o755)
    seen = []
    for words in STEPS:
        words = [word.replace("@", str(tmp_path)) for word in words]
        done = subprocess.run([ALTERNATIVES, "--altdir", tmp_path / "etc", "--admindir", tmp_path / "var", *words],
                              capture_output=True, text=True, check=False)
        state = tmp_path / "var/iptables"
        links = {path.name: os.readlink(path) for folder in ("etc", "usr/sbin")
                 for path in sorted((tmp_path / folder).iterdir()) if path.is_symlink()}
        seen.append({"code": done.returncode, "state": state.read_text() if state.exists() else None, "links": links})
    seen = json.loads(json.dumps(seen).replace(str(tmp_path), "@"))
    kept = HERE / "alternatives.json"
    if "XTSHIM_BLESS" in os.environ and "XTSHIM_TEST_ALTERNATIVES" in os.environ:
        kept.write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n")
    for words, one, other in zip(STEPS, seen, json.loads(kept.read_text()), strict=True):
        assert one == other, words
