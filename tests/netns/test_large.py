"""Large files: in force as a whole or not at all, and what they replace is gone without having been read."""

import pathlib

import pytest

import harness

COUNT = 100_000


def many(count, target="ACCEPT", comment=""):
    said = f'-m comment --comment "{comment}" ' if comment else ""
    return "".join(f"-A PREROUTING -s 10.{number >> 16}.{number >> 8 & 255}.{number & 255} {said}-j {target}\n" for number in range(count))


def file(rules, chains=""):
    return f"*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{chains}{rules}COMMIT\n".encode()


def test_a_hundred_thousand_rules(both):
    both.run("iptables-restore", 0, stdin=file(many(COUNT)))
    last = f"PREROUTING -s 10.{COUNT - 1 >> 16}.{COUNT - 1 >> 8 & 255}.{COUNT - 1 & 255} -j ACCEPT"
    both.run(f"iptables -t raw -C {last}", 0)
    both.run(f"iptables -t raw -C {last.replace('ACCEPT', 'DROP')}", 1)
    both.run(f"iptables -t raw -D {last}", 0)
    both.run("iptables-save -t raw", 0)
    both.run("iptables-restore", 0, stdin=file("-A OUTPUT -p udp -j DROP\n"))
    both.run("iptables-save -t raw", 0)


@pytest.mark.parametrize("options", ("", "-c", "-n"))
def test_a_large_table_over_another(both, options):
    """Texts that take several rules, chains that come, stay and go, policies."""
    long = "a text that no one rule can hold " * 7
    first = file(many(70, "DROP", long) + "-A PREROUTING -j gone\n-A gone -j stays\n-A stays -p tcp -j DROP\n", ":gone - [0:0]\n:stays - [0:0]\n")
    second = file("[7:8] -A stays -p udp -j ACCEPT\n" + many(90, "RETURN", long[1:]) + "-A comes -g stays\n-A PREROUTING -j comes\n", ":comes - [0:0]\n:stays - [0:0]\n").replace(b"OUTPUT ACCEPT", b"OUTPUT DROP")
    for data in (first, second, second, first, file("")):
        both.run(f"iptables-restore {options}", stdin=data)
        both.run("iptables-save -t raw", 0)
        both.run("iptables -t raw -S", 0)
        both.state()
    if both.subject.ours and options != "-n":
        _, place = both.places[-1]
        assert "comment" not in place.sh("nft list table ip xtshim-raw"), "something is left of what was replaced"


def test_what_is_too_large_changes_nothing(ours, tmp_path):
    """Where the send buffer cannot be had: in a user namespace of one's own."""
    if int(pathlib.Path("/proc/sys/net/core/wmem_max").read_text()) > 8 << 20:
        pytest.skip("net.core.wmem_max lets anybody send that much")
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(file(many(100)))
    large.write_bytes(file(many(COUNT)))
    script = '"$1" <"$3" && "$1" <"$4"; echo "exit $?"; "$2" -t raw'
    argv = ["unshare", "-U", "-r", "-n", "sh", "-c", script, "sh", ours.path("iptables-restore"), ours.path("iptables-save"), str(small), str(large)]
    answer = harness.execute(argv, env={**ours.environment(), "XTABLES_LOCKFILE": str(tmp_path / "lock")})
    assert b"exit 4\n" in answer.out, answer.text()
    assert answer.out.count(b"\n-A PREROUTING ") == 100, answer.text()[:2000]
    assert b"net.core.wmem_max" in answer.err and answer.err.count(b"\n") <= 2, answer.err
