"""No iptables at all: every table is carried, and each answer is what iptables-nft would have given."""

import os
import re
import subprocess

import pytest

import conftest
import harness
import packets

VERSION = b"v1.8.13"  # whose words are spoken where there is none to imitate
# Over what would be found: neither can be run then, and each is still what its links lead to.
HIDE = "; ".join(f"mount --bind /dev/null /usr/sbin/xtables-{variant}-multi" for variant in conftest.VARIANTS)
ABSENT = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs tmpfs /run; {HIDE}; exec "$@"', "sh")
WAYS = ("an-empty-directory", "none-installed")
WHOLE = b"""*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -j MARK --set-xmark 0x5/0xffffffff
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT DROP [0:0]
-A OUTPUT -p udp -j ACCEPT
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:web - [0:0]
-A INPUT -p tcp -m tcp --dport 80 -j web
-A web -m comment --comment "a b" -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:mine - [0:0]
-A POSTROUTING -j mine
COMMIT
"""


class Bare:
    """Ours without iptables, and iptables-nft in a namespace beside it."""

    def __init__(self, way, original, program, directory):
        self.original, self.directory, self.program = original, directory, program
        self.via = ABSENT if way == "none-installed" else ()
        config = directory / "xtshim.toml"
        harness.configure(config, journal=f"{directory}/journal", backends=None if self.via else directory)
        self.env = {"XTSHIM_CONFIG": str(config), "XTABLES_LOCKFILE": str(directory / "lock")}
        for front in harness.FRONTS:
            (directory / f"xtshim-{front}").symlink_to(program)
        self.places = [harness.Netns(), harness.Netns()]

    def theirs(self, argv, stdin=None):
        with self.places[0].entered():
            answer = harness.execute([self.original.path(argv[0]), *argv[1:]], stdin, self.env)
        return harness.Result(answer.rc, *(re.sub(rb"v1\.8\.\d+", VERSION, part) for part in (answer.out, answer.err)))

    def ours(self, argv, stdin=None, via=()):
        with self.places[1].entered():
            return harness.execute([*self.via, *via, str(self.program), *argv], stdin, self.env)

    def same(self, command, stdin=None):
        argv = command.split() if isinstance(command, str) else command
        wanted, got = self.theirs(argv, stdin), self.ours(argv, stdin)
        for answer in (wanted, got):
            answer.out = harness.without_dates(answer.out)
            answer.err = answer.err.replace(self.original.directory.encode() + b"/", b"")
        assert got == wanted, f"{command} <<< {stdin!r}\n{got.text()}\ninstead of\n{wanted.text()}"
        return got

    def close(self):
        for place in self.places:
            place.close()


@pytest.fixture(params=WAYS)
def bare(request, original, program, tmp_path):
    pair = Bare(request.param, original("nft"), program, tmp_path)
    yield pair
    pair.close()


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
def test_words(bare, front):
    """Version, errors and exit codes."""
    for line in ("--version", "-V", "", "-t filter", "-t nonsense -S", "-t nonsense -A INPUT -j DROP", "-A INPUT --nonsense", "-A", "-A INPUT -m nonsense", "-A INPUT -p tcp --dport x -j DROP", "-A missing -j DROP", "-A INPUT -j missing", "-X missing", "-F missing", "-N INPUT", "-N DROP", "-P INPUT NONSENSE", "-P missing DROP", "-D INPUT -j DROP", "-C INPUT -j DROP", "-E missing other", "stray"):
        bare.same(f"{front} {line}")
    for line in ("-save --nonsense", "-save -h", "-save -t nonsense", "-save -t", "-save stray", "-save", "-save -t filter", "-save -t security -c", "-restore --nonsense", "-restore -q", "-restore -T", "-restore -V", "-restore one two", "-restore /nonexistent/file", "-save -V"):
        bare.same(f"{front}{line}")


def test_rules(bare):
    for line in ("-N web", "-A web -p tcp -m tcp --dport 80 -j RETURN", "-A INPUT -j web", "-I INPUT 1 -s 10.0.0.0/8 -j DROP", "-P FORWARD DROP", "-S", "-nL", "-C INPUT -s 10.0.0.0/8 -j DROP", "-D INPUT 1", "-S INPUT", "-t mangle -A PREROUTING -i eth0 -j ACCEPT", "-t mangle -S", "-t raw -P OUTPUT DROP", "-t raw -S", "-t nat -N other", "-t nat -S", "-t security -A OUTPUT -o lo -j ACCEPT", "-t security -S", "-X", "-F", "-X"):
        if line != "-nL":  # the column of protocols has had names again since 1.8.11
            bare.same(f"iptables {line}")
    bare.same("iptables-save")
    with bare.places[1].entered():
        assert b"table ip filter" not in harness.execute(["nft", "list", "tables"]).out


@pytest.mark.parametrize("options", ("", "-n", "-c", "--test", "-T filter", "--noflush --table raw"))
def test_whole_file(bare, options):
    bare.same("iptables -A INPUT -j ACCEPT")
    bare.same(f"iptables-restore {options}", WHOLE)
    bare.same("iptables-save")
    bare.same(f"iptables-restore {options}", WHOLE)
    saved = bare.same("iptables-save").out
    bare.same("iptables-restore", saved)
    bare.same("iptables-save")


def test_bad_files(bare):
    for data in (b"*nonsense\nCOMMIT\n", b"*\nCOMMIT\n", b"COMMIT\n", b"*filter\n", b"*filter\n*nat\nCOMMIT\n", b"*filter\nnonsense\nCOMMIT\n", b" *filter\nCOMMIT\n", b"nonsense\n", b"*filter\nCOMMIT\nnonsense\n", b"*filter\n-A INPUT --nonsense\nCOMMIT\n", b"*nat\n-A missing -j DROP\nCOMMIT\n", b"\n# comment\n\n", b""):
        for options in ("", " -n", " -T filter"):
            bare.same(f"iptables-restore{options}", data)
    # Tables before the bad one are in force.
    bare.same("iptables-restore", WHOLE + b"*filter\n-A INPUT -j missing\nCOMMIT\n")
    bare.same("iptables-save")


def test_help(bare):
    answer = bare.ours(["iptables", "--help"])
    assert answer.rc == 0 and not answer.err and answer.out.startswith(b"iptables v1.8.13 (nf_tables)\n"), answer.text()
    answer = bare.ours(["ip6tables-restore", "-h"])
    assert answer.rc == 0 and not answer.out and b"--noflush" in answer.err, answer.text()


def test_without_rights(bare):
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    os.chmod(bare.directory, 0o755)
    refused = b" v1.8.13 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)\n"
    copy = bare.directory / "program"
    subprocess.run(["cp", str(bare.program), str(copy)], check=True)
    for argv, stdin in ((["iptables", "-S"], None), (["iptables-save"], None), (["iptables", "-A", "INPUT", "-j", "DROP"], None), (["iptables-restore"], b"*filter\n-A INPUT -j DROP\nCOMMIT\n")):
        with bare.places[1].entered():
            # The directory of the test is closed to others; what is open is the program itself.
            descriptor = os.open(copy, os.O_RDONLY)
            answer = harness.execute([*bare.via, *nobody, f"/proc/self/fd/{descriptor}", *argv], stdin, {"XTABLES_LOCKFILE": "/nonexistent"} if bare.via else bare.env, pass_fds=(descriptor,))
            os.close(descriptor)
        if not bare.via:
            continue  # a configuration in a closed directory is one that cannot be read
        assert (answer.rc, answer.out) == (4, b"") and answer.err == argv[0].encode() + refused, answer.text()


def test_packets(bare):
    """The rules are in force: in filter, raw and mangle, for both families."""
    place = bare.places[1]
    with place.entered():
        for family, front in ((4, "iptables"), (6, "ip6tables")):
            assert packets.udp_arrives_over_lo(family, 4000)
        for family, front in ((4, "iptables"), (6, "ip6tables")):
            for table, chain in (("filter", "INPUT"), ("raw", "PREROUTING"), ("mangle", "OUTPUT"), ("security", "INPUT")):
                rule = ["-t", table, "-A", chain, "-p", "udp", "--dport", "4000", "-j", "DROP"]
                assert bare.ours([front, *rule]) == harness.Result(0, b"", b"")
                assert not packets.udp_arrives_over_lo(family, 4000), (front, table)
                assert packets.udp_arrives_over_lo(family, 4001), (front, table)
                assert bare.ours([front, "-t", table, "-D", *rule[3:]]) == harness.Result(0, b"", b"")
                assert packets.udp_arrives_over_lo(family, 4000), (front, table)


def test_selftest(bare):
    with bare.places[1].entered():
        answer = harness.execute([*bare.via, str(bare.program), "selftest"], env=bare.env, timeout=120)
    assert answer.rc == 0 and b"v1.8.13 (nf_tables)" in answer.out, answer.text()
