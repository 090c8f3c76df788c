"""The Debian package's whole life, on machines of two releases: whatever happens, there is an iptables, and the former
choice comes back."""

import json
import subprocess

import pytest

import roots

NFT = "[carriers]\nraw = \"nft\"\n[journal]\nsystem = false\n"
RULE = ("-t", "raw", "PREROUTING", "-d", "172.17.0.2/32", "!", "-i", "docker0", "-j", "DROP")
CHOSEN = {"automatic": None, "legacy by hand": "legacy", "nft by hand": "nft"}


def choose(machine, how):
    if CHOSEN[how]:
        for name in ("iptables", "ip6tables"):
            machine.must("update-alternatives", "--set", name, f"/usr/sbin/{name}-{CHOSEN[how]}")


def install(machine, package):
    path = machine.file("/tmp") / package.name
    path.write_bytes(package.read_bytes())
    try:
        return machine.run("dpkg", "--force-confold", "-i", f"/tmp/{package.name}")
    finally:
        path.unlink()


def must_install(machine, package):
    code, said = install(machine, package)
    assert code == 0, said
    machine.is_sound()
    return said


def rule(machine, command, program="iptables"):
    return machine.run(program, "--wait", RULE[0], RULE[1], command, *RULE[2:])


def is_ours(machine):
    return all(machine.value(name) == f"/usr/sbin/{name}-xtshim" for name in ("iptables", "ip6tables"))


def status(machine):
    code, said = machine.run("xtshim", "status", "--json")
    return code, json.loads(said)


@pytest.mark.parametrize("suite", roots.SUITES)
@pytest.mark.parametrize("how", CHOSEN)
def test_a_whole_life(machine, packages, suite, how):
    there = machine(suite)
    choose(there, how)
    before, files = there.choices(), there.everything()
    there.is_sound()

    said = must_install(there, packages.version("0.1.0"))
    if how == "automatic":
        assert is_ours(there)
    else:
        assert there.choices()[1]["etc/alternatives/iptables"] == before[1]["etc/alternatives/iptables"]
        assert "by hand, and stays so" in said and "xtshim enable" in said
        there.must("xtshim", "enable")
        assert is_ours(there)
    assert there.run("xtshim", "enable")[1].startswith("Nothing to do.")
    code, told = status(there)
    assert (code, told["system"], told["next"]) == (0, True, [])
    assert told["fronts"][0]["former"].startswith(f"/usr/sbin/iptables-{CHOSEN[how] or 'nft'} ")

    # As Docker does it, on a machine that is told to carry raw.
    there.write("/etc/xtshim/xtshim.toml", NFT)
    assert rule(there, "-C")[0] == 1
    assert rule(there, "-A") == (0, "")
    assert rule(there, "-C") == (0, "")
    assert status(there)[1]["carried"] == [{"family": "ip", "table": "raw", "carrier": "nft", "rules": 1}]

    for version in ("0.1.1", "0.1.0"):
        must_install(there, packages.version(version))
        assert is_ours(there) and rule(there, "-C") == (0, "")

    said = there.must("dpkg", "-r", "xtshim")
    there.is_sound()
    assert there.choices() == before
    # The rule is where the real iptables lists it, and nowhere else.
    assert rule(there, "-C", f"iptables-{CHOSEN[how] or 'nft'}") == (0, ""), said
    assert "xtshim" not in there.must("nft", "list", "tables")
    assert there.read("/etc/xtshim/xtshim.toml") == NFT

    must_install(there, packages.version("0.1.0"))
    assert there.read("/etc/xtshim/xtshim.toml") == NFT
    assert is_ours(there) == (how == "automatic")

    # What a person has switched off stays so over an upgrade.
    there.must("xtshim", "disable")
    assert there.choices() == before
    said = must_install(there, packages.version("0.1.1"))
    assert "stays switched off" in said and there.choices() == before
    there.must("xtshim", "enable")
    assert is_ours(there)

    there.must("dpkg", "-P", "xtshim")
    there.is_sound()
    assert there.choices() == before
    assert there.everything() == files


@pytest.mark.parametrize("how", CHOSEN)
def test_files_that_were_deleted_by_force(machine, packages, how):
    there = machine()
    choose(there, how)
    before, files = there.choices(), there.everything()
    must_install(there, packages.version("0.1.0"))
    there.write("/etc/xtshim/xtshim.toml", NFT)
    there.must("xtshim", "enable")
    assert rule(there, "-A") == (0, "")
    there.must("sh", "-c", "rm -rf /usr/sbin/*xtshim* /usr/lib/xtshim")
    there.must("dpkg", "-r", "xtshim")
    there.is_sound()
    assert there.choices() == before
    assert "xtshim" not in there.must("nft", "list", "tables")
    there.must("dpkg", "-P", "xtshim")
    assert there.everything() == files


def test_another_choice_that_was_made_since_is_left_alone(machine, packages):
    there = machine()
    must_install(there, packages.version("0.1.0"))
    there.must("update-alternatives", "--set", "iptables", "/usr/sbin/iptables-legacy")
    code, told = status(there)
    assert (code, told["system"]) == (1, False)
    assert told["next"] == ["it stands in front of one of iptables and ip6tables only: sudo xtshim enable"]
    must_install(there, packages.version("0.1.1"))
    assert there.value() == "/usr/sbin/iptables-legacy"
    there.must("dpkg", "-P", "xtshim")
    there.is_sound()
    assert there.value() == "/usr/sbin/iptables-legacy"
    assert there.choices()[0]["iptables"].startswith("manual\n")
    assert there.choices()[0]["ip6tables"].startswith("auto\n")


def test_rules_in_both_places_are_told(machine, packages):
    there = machine()
    there.write("/etc/xtshim/xtshim.toml", NFT)
    must_install(there, packages.version("0.1.0"))
    there.must("xtshim", "enable")
    assert rule(there, "-A")[0] == 0
    both = "iptables-nft holds rules in raw too, and each packet meets both"
    assert both not in there.must("xtshim", "enable") and both not in status(there)[1]["notes"]
    there.must("iptables-nft", "-t", "raw", "-A", "PREROUTING", "-s", "192.0.2.1", "-j", "DROP")
    assert f"Note: {both}." in there.must("xtshim", "enable")
    assert both in status(there)[1]["notes"]
    there.must("iptables-nft", "-t", "raw", "-F")
    assert both not in there.must("xtshim", "enable")


def test_a_former_choice_that_has_gone(machine, packages):
    there = machine()
    choose(there, "legacy by hand")
    must_install(there, packages.version("0.1.0"))
    there.must("xtshim", "enable")
    for name in ("iptables", "ip6tables"):
        there.must("update-alternatives", "--remove", name, f"/usr/sbin/{name}-legacy")
    said = there.must("xtshim", "disable")
    there.is_sound()
    assert "which is not there any more" in said
    assert there.value() == "/usr/sbin/iptables-nft"


@pytest.mark.parametrize("script", ["preinst", "postinst"])
def test_an_upgrade_whose_script_fails(machine, packages, script):
    there = machine()
    choose(there, "legacy by hand")
    before = there.choices()
    must_install(there, packages.version("0.1.0"))
    there.must("xtshim", "enable")
    code, _ = install(there, packages.version("0.1.1", **{script: "exit 1"}))
    assert code != 0
    there.is_sound()
    assert is_ours(there)
    must_install(there, packages.version("0.1.1"))
    assert is_ours(there)
    there.must("dpkg", "-P", "xtshim")
    there.is_sound()
    assert there.choices() == before


@pytest.mark.parametrize("how", ["automatic", "legacy by hand"])
def test_a_removal_whose_script_fails_half_way(machine, packages, how):
    there = machine()
    choose(there, how)
    before = there.choices()
    failing = packages.version("0.1.0", prerm="[ \"$1\" != remove ] || [ -e /tmp/fine ] || exit 1")
    must_install(there, failing)
    there.must("xtshim", "enable")
    code, _ = there.run("dpkg", "-r", "xtshim")
    assert code != 0
    there.is_sound()
    # It was stepping aside when it failed, and stands there again.
    assert is_ours(there)
    there.write("/tmp/fine", "")
    there.must("dpkg", "-r", "xtshim")
    there.is_sound()
    assert there.choices() == before


def test_a_purge_whose_script_fails(machine, packages):
    there = machine()
    before = there.choices()
    must_install(there, packages.version("0.1.0", postrm="[ -e /tmp/fine ] || exit 1"))
    assert there.run("dpkg", "-P", "xtshim")[0] != 0
    there.is_sound()
    assert there.choices() == before
    there.write("/tmp/fine", "")
    there.must("dpkg", "-P", "xtshim")
    there.is_sound()


# Stands in update-alternatives' place, and kills who has called it at one of the calls, before it or after.
KILLER = """#!/bin/sh
count=$(cat /tmp/count 2>/dev/null || echo 0)
count=$((count + 1))
echo $count >/tmp/count
if [ "$count" = "$(cat /tmp/at)" ] && [ -e /tmp/before ]; then kill -9 $PPID; exit 1; fi
/usr/bin/update-alternatives.real "$@"
code=$?
if [ "$count" = "$(cat /tmp/at)" ]; then kill -9 $PPID; fi
exit $code
"""


@pytest.mark.parametrize("what", ["enable", "disable"])
def test_killed_at_each_step(machine, packages, what):
    there = machine()
    choose(there, "legacy by hand")
    before = there.choices()
    must_install(there, packages.version("0.1.0"))
    if what == "enable":
        there.must("xtshim", "disable")
    there.file("/usr/bin/update-alternatives").rename(there.file("/usr/bin/update-alternatives.real"))
    there.write("/usr/bin/update-alternatives", KILLER, 0o755)
    for at in range(1, 5):
        for moment in ("before", "after"):
            there.write("/tmp/at", "0")
            there.must("xtshim", "enable" if what == "disable" else "disable")
            there.must("rm", "-f", "/tmp/count", "/tmp/before")
            there.write("/tmp/at", str(at))
            if moment == "before":
                there.write("/tmp/before", "")
            code, said = there.run("xtshim", what)
            assert code != 0, (at, moment, said)
            there.is_sound()
            there.must("xtshim", what)
            there.is_sound()
            assert is_ours(there) == (what == "enable")
            there.must("xtshim", "disable")
            assert there.choices() == before, (at, moment)


def test_a_machine_without_iptables(machine, packages):
    there = machine()
    there.must("dpkg", "-P", "--force-depends", "iptables")
    files = there.everything()
    must_install_without(there, packages)
    there.is_sound()
    assert rule(there, "-A") == (0, "")
    assert rule(there, "-C") == (0, "")
    said = there.must("dpkg", "-P", "xtshim")
    assert "REMOVED" in said, said
    assert "xtshim" not in there.must("nft", "list", "tables")
    assert there.everything() == files


def must_install_without(machine, packages):
    code, said = install(machine, packages.version("0.1.0"))
    assert code == 0, said


@pytest.mark.parametrize("suite", roots.SUITES)
def test_iptables_goes_from_behind_it(machine, packages, suite):
    there = machine(suite)
    must_install(there, packages.version("0.1.0"))
    there.must("dpkg", "-r", "--force-depends", "iptables")
    there.is_sound()
    assert is_ours(there)
    assert rule(there, "-A") == (0, "") and rule(there, "-C") == (0, "")
    there.must("xtshim", "disable")
    assert not there.file("/usr/sbin/iptables").is_symlink()


def test_a_program_in_the_place_of_the_link(machine, packages):
    there = machine()
    there.file("/usr/sbin/iptables").unlink()
    there.write("/usr/sbin/iptables", "#!/bin/sh\nexec iptables-nft \"$@\"\n", 0o755)
    code, said = install(there, packages.version("0.1.0"))
    assert code == 0 and "is a program and no link" in said, said
    assert there.run("xtshim", "status")[0] == 1
    there.must("dpkg", "-P", "xtshim")
    assert there.read("/usr/sbin/iptables").startswith("#!/bin/sh")


def test_status_says_when_docker_is_to_be_restarted(machine, packages):
    there = machine()
    there.must("cp", "/usr/bin/sleep", "/tmp/dockerd")
    start = "/tmp/dockerd 60 >/dev/null 2>&1 & echo $! >/tmp/pid"
    there.must("sh", "-c", start)
    assert "restart Docker" in must_install(there, packages.version("0.1.0"))
    code, told = status(there)
    assert (code, told["next"]) == (1, ["dockerd runs since before that was changed: sudo systemctl restart docker"])
    there.must("sh", "-c", f"kill $(cat /tmp/pid); sleep 0.1; {start}")
    code, told = status(there)
    assert (code, told["next"], len(told["dockerd"])) == (0, [], 1)
    assert "restart Docker" not in there.must("xtshim", "enable")
    assert "restart Docker" in there.must("xtshim", "disable")


def test_enable_and_disable_at_once_take_turns(machine, packages):
    there = machine()
    must_install(there, packages.version("0.1.0"))
    first = there.must("update-alternatives", "--query", "iptables")
    there.must("xtshim", "disable")
    # The first of them stands still in the middle of it, behind an update-alternatives that waits.
    real = "/usr/bin/update-alternatives"
    there.must("sh", "-c", f"""
        mv {real} {real}.real
        printf '#!/bin/sh\\n>/tmp/begun\\nwhile [ ! -e /tmp/go ]; do sleep 0.05; done\\nexec {real}.real "$@"\\n' >{real}
        chmod +x {real}""")
    said = there.must("sh", "-c", """
        xtshim enable >/tmp/enable 2>&1 & enable=$!
        while [ ! -e /tmp/begun ]; do sleep 0.05; done
        xtshim disable >/tmp/disable 2>&1 & disable=$!
        sleep 0.5; cat /tmp/disable; >/tmp/go; wait $enable && wait $disable; echo $?; cat /tmp/enable""")
    there.must("mv", f"{real}.real", real)
    assert "Waiting for another `xtshim enable' or `xtshim disable' to end.\n0\n" in said, said
    assert "leads to xtshim" in said
    assert there.read("/var/lib/xtshim/off")
    there.must("xtshim", "enable")
    assert there.must("update-alternatives", "--query", "iptables") == first


def test_a_dry_run_changes_nothing(machine, packages):
    there = machine()
    must_install(there, packages.version("0.1.0"))
    for words in (("disable",), ("enable",), ("disable", "--for-removal")):
        files, choices = there.everything(), there.choices()
        assert there.must("xtshim", *words, "--dry-run").startswith(("Would do:", "Nothing to do."))
        assert (there.everything(), there.choices()) == (files, choices)


DOCKER = "[Unit]\nDescription=Docker\n[Service]\nExecStart=/bin/true\n"
NFTABLES = "[Unit]\nDescription=nftables\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
ExecStart=/bin/true\nExecReload=/bin/true\nExecStop=/bin/true\n"


def test_docker_scope(machine, packages, tmp_path):
    there = machine()
    must_install(there, packages.version("0.1.0"))
    there.must("xtshim", "disable")
    code, said = there.run("xtshim", "enable", "--scope", "docker")
    assert code == 1 and "there is no docker.service" in said
    there.file("/snap/docker").mkdir(parents=True)
    assert "Docker is a snap here" in there.run("xtshim", "enable", "--scope", "docker")[1]
    there.must("rm", "-r", "/snap")
    there.write("/usr/local/bin/k3s", "")
    assert "k3s" in there.run("xtshim", "enable", "--scope", "docker")[1]
    there.file("/usr/local/bin/k3s").unlink()

    for folder in ("docker", "nftables"):
        there.write(f"/etc/systemd/system/{folder}.service", DOCKER if folder == "docker" else NFTABLES)
    files = there.everything()
    there.must("cp", "/usr/bin/sleep", "/tmp/firewalld")
    there.must("sh", "-c", "/tmp/firewalld 60 >/dev/null 2>&1 & echo $! >/tmp/pid")
    code, said = there.run("xtshim", "enable", "--scope", "docker")
    assert code == 1 and "firewalld is running" in said and "--scope system" in said
    there.must("sh", "-c", "kill $(cat /tmp/pid)")

    there.must("xtshim", "enable", "--scope", "docker", "--follow-nftables")
    drop_in = "/etc/systemd/system/docker.service.d/xtshim.conf"
    path = next(line for line in there.read(drop_in).splitlines() if line.startswith("Environment="))
    first = path.split("=")[2].split(":")[0]
    assert first == "/usr/lib/xtshim/bin"
    assert there.must("env", f"PATH={first}", "/usr/bin/env", "ip6tables-save", "--version").startswith("ip6tables-save v1.8.")
    assert status(there)[1]["docker"] is True
    assert there.must("xtshim", "enable", "--scope", "docker", "--follow-nftables").startswith("Nothing to do.")
    # systemd itself has nothing against them.
    units = ":".join(str(there.file(folder)) for folder in ("/etc/systemd/system", "/lib/systemd/system"))
    for unit in ("docker.service", "nftables.service", "xtshim-probe.service"):
        checked = subprocess.run(["systemd-analyze", "--man=no", "verify", unit], capture_output=True, text=True, check=False,
                                 env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{units}:/lib/systemd/system"})
        wrong = [line for line in checked.stderr.splitlines() if "/usr/sbin/xtshim is not executable" not in line]
        assert not [line for line in wrong if "xtshim" in line or unit in line], checked.stderr
    there.must("xtshim", "disable")
    assert there.everything() == files


def test_it_takes_root(machine, packages):
    there = machine()
    must_install(there, packages.version("0.1.0"))
    for what in ("enable", "disable"):
        code, said = there.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "xtshim", what)
        assert code == 1 and "that takes root" in said
    assert there.run("xtshim", "enable", "--scope", "galaxy")[0] == 2


def test_lintian(changes):
    said = subprocess.run(["lintian", "--allow-root", "--tag-display-limit=0", str(changes)], capture_output=True, text=True, check=False)
    lines = [line for line in said.stdout.splitlines() if line[:2] in ("E:", "W:")]
    # Of a program that is no static release build.
    lines = [line for line in lines if "undeclared-elf-prerequisites" not in line]
    assert lines == [], said.stdout + said.stderr


def test_logrotate_takes_its_file(machine, packages):
    there = machine()
    must_install(there, packages.version("0.1.0"))
    there.write("/var/log/xtshim/rewrites.jsonl", "{}\n", 0o600)
    there.must("logrotate", "--force", "/etc/logrotate.d/xtshim")
    assert not there.file("/var/log/xtshim/rewrites.jsonl").exists()
    assert there.read("/var/log/xtshim/rewrites.jsonl.1") == "{}\n"
