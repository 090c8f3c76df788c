"""The tarball with install.sh, where there is neither dpkg nor rpm: to one place, to another, and away again."""

import subprocess

import pytest

import roots


@pytest.fixture(scope="module")
def tarball(source, binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tarball")
    made = subprocess.run([source / "rpm/tarball", str(binary), "x86_64", str(folder)], capture_output=True, text=True, check=True)
    return made.stdout.strip()


def unpack(machine, tarball):
    machine.file("/tmp/unpacked").mkdir()
    subprocess.run(["tar", "-C", str(machine.file("/tmp/unpacked")), "-xf", tarball], check=True)
    return "/tmp/unpacked/xtshim-0.1.0-x86_64"


@pytest.mark.parametrize("prefix", ["/usr/local", "/opt/xtshim"])
def test_a_whole_life(machine, tarball, prefix):
    there = machine()
    for name in ("iptables", "ip6tables"):
        there.must("update-alternatives", "--set", name, f"/usr/sbin/{name}-legacy")
    there.file("/usr/lib/tmpfiles.d").mkdir(exist_ok=True)
    before, files = there.choices(), there.everything()
    folder = unpack(there, tarball)
    for _ in range(2):
        there.must(f"{folder}/install.sh", PREFIX=prefix)
        assert there.choices() == before
    there.must(f"{prefix}/sbin/xtshim", "enable")
    there.is_sound()
    assert there.value() == f"{prefix}/sbin/iptables-xtshim"
    # Installed again it is brought up to date, and stays in front.
    there.must(f"{folder}/install.sh", PREFIX=prefix)
    assert there.value() == f"{prefix}/sbin/iptables-xtshim"
    there.must(f"{prefix}/lib/xtshim/uninstall.sh", "--purge")
    there.is_sound()
    assert there.choices() == before
    there.must("sh", "-c", f"rmdir -p {prefix}/share {prefix}/sbin {prefix}/lib 2>/dev/null; true")
    left = set(there.everything()) - set(files)
    assert not [path for path in left if "xtshim" in path and path != "opt/xtshim"], left


def test_without_update_alternatives(machine, tarball):
    there = machine()
    there.must("sh", "-c", "for n in iptables ip6tables; do update-alternatives --remove-all $n; done")
    there.file("/usr/bin/update-alternatives").unlink()
    for name in ("iptables", "ip6tables"):
        there.file(f"/usr/sbin/{name}").symlink_to(f"{name}-nft")
    folder = unpack(there, tarball)
    there.must(f"{folder}/install.sh")
    code, said = there.run("xtshim", "enable", PATH="/usr/local/sbin:/usr/sbin:/usr/bin")
    assert code == 1 and "--scope docker" in said, said
    there.write("/etc/systemd/system/docker.service", "[Service]\nExecStart=/bin/true\n")
    there.must("/usr/local/sbin/xtshim", "enable", "--scope", "docker")
    assert there.must("/usr/local/lib/xtshim/bin/iptables", "--version").startswith("iptables v1.8.")
    # The program deleted by force, the drop-in goes all the same.
    there.file("/usr/local/sbin/xtshim").unlink()
    there.must("/usr/local/lib/xtshim/uninstall.sh")
    assert not there.file("/etc/systemd/system/docker.service.d").exists()


def test_a_program_for_another_machine(machine, tarball):
    there = machine()
    folder = unpack(there, tarball)
    there.write(f"{folder}/xtshim", "\x7fELF none of this machine's", 0o755)
    code, said = there.run(f"{folder}/install.sh")
    assert code == 1 and "not for this machine" in said
    assert not there.file("/usr/local/sbin/xtshim").exists()
