"""Files take the short way to the backend where all tables are the backend's, whatever a file says, and no other."""

import contextlib
import glob
import os

import pytest

import harness

SIX = {"iptables": "ip", "ip6tables": "ip6"}


@pytest.fixture
def way(ours, beside, tmp_path):
    """Ours where every table is the backend's, after a first call, which has found that out and kept it."""

    class Way:
        def __init__(self):
            self.pair = beside(ours)
            (self.subject, self.place), = self.pair.places
            self.config = None

        def plan(self, carriers):
            """Another configuration, and what a first call keeps for those that follow."""
            self.config = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
            harness.configure(self.config, ours.variant, carriers)
            known = {what: set(glob.glob(f"/run/xtshim/{what}-*")) for what in ("ticket", "snapshot")}
            assert self("iptables", "--version").rc == 0
            self.kept, ticket = (set(glob.glob(f"/run/xtshim/{what}-*")) - known[what] for what in ("snapshot", "ticket"))
            if not ticket:
                pytest.skip("nothing is kept for the short way here")

        def __call__(self, *argv, stdin=None, config=None):
            return self.pair.call(self.subject, self.place, list(argv), stdin, env={"XTSHIM_CONFIG": config or str(self.config)})

        def is_short(self, *argv, stdin=None):
            """What the call says, and whether it went without what only the long way needs."""
            for path in self.kept:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            answer = self(*argv, stdin=stdin)
            return answer, not any(map(os.path.exists, self.kept))

        def original(self, front):
            """What the backend has, asked itself."""
            with self.place.entered():
                return harness.execute([f"/usr/sbin/xtables-{ours.variant}-multi", f"{front}-save"], env=self.pair.env).out

        def tables(self):
            return self.place.sh("nft list tables")

    made = Way()
    made.plan(dict.fromkeys(harness.TABLES, "backend"))
    return made


def raw(target):
    return f"*raw\n-A OUTPUT -d 192.0.2.7 -j {target}\nCOMMIT\n".encode()


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
def test_where_all_is_the_backends(way, front):
    file = b"*filter\n-A INPUT -p udp -j DROP\nCOMMIT\n*raw\n-A OUTPUT -p tcp -j DROP\nCOMMIT\n"
    for words in ((), ("-n",), ("-T", "raw"), ("-w", "5", "-c"), ("--modprobe=/bin/true",)):
        assert way.is_short(f"{front}-restore", *words, stdin=file) == (harness.Result(0, b"", b""), True), words
    assert b"-A OUTPUT -p tcp -j DROP" in way.original(front) and "xtshim" not in way.tables()
    for words in ((), ("-c",), ("-t", "raw")):
        answer, short = way.is_short(f"{front}-save", *words)
        assert short and answer.rc == 0 and b"-A OUTPUT -p tcp -j DROP" in answer.out, answer.text()
    # As it is called besides, and as it fails.
    assert way.is_short(f"{front}-save", "--bogus")[1]
    answer, short = way.is_short(f"{front}-restore", stdin=b"*raw\n-A nonsense -j DROP\nCOMMIT\n")
    assert short and answer.rc != 0 and f"{front}-restore".encode() in answer.err, answer.text()


@pytest.mark.parametrize("many", (0, 60))
def test_a_table_of_ours_is_in_this_namespace(way, many):
    """Carried by another configuration: what is carried stays carried."""
    way.place.sh("sh -c 'for number in $(seq %d); do echo add table ip other$number; done | nft -f -'" % many)
    assert way("iptables-restore", stdin=raw("ACCEPT"), config=way.subject.config).rc == 0
    assert "table ip xtshim-raw" in way.tables()
    answer, short = way.is_short("iptables-restore", "-n", stdin=raw("DROP"))
    assert (answer, short) == (harness.Result(0, b"", b""), False)
    assert b"DROP" not in way.original("iptables"), "a rule went to the backend that is carried here"
    for words in ((), ("-t", "raw")):
        answer, short = way.is_short("iptables-save", *words)
        assert not short and b"-j ACCEPT\n-A OUTPUT -d 192.0.2.7/32 -j DROP\n" in answer.out, answer.text()
    # A file that says nothing of it, but whose words might.
    assert not way.is_short("iptables-restore", "-T", "filter", stdin=raw("DROP"))[1]
    # The other family has none.
    assert way.is_short("ip6tables-save")[1] and way.is_short("ip6tables-restore", stdin=b"*raw\nCOMMIT\n")[1]


def test_more_tables_than_are_looked_through(way):
    """None of them is ours, but that takes the long way to see."""
    way.place.sh("sh -c 'for number in $(seq 200); do echo add table ip other$number; done | nft -f -'")
    answer, _ = way.is_short("iptables-restore", stdin=raw("DROP"))
    assert answer == harness.Result(0, b"", b"") and b"-j DROP" in way.original("iptables")


@pytest.mark.parametrize("table", harness.TABLES)
@pytest.mark.parametrize("front", SIX)
def test_one_table_that_is_not_the_backends(way, front, table):
    """A file may name it, so every file is looked at."""
    way.plan({**dict.fromkeys(harness.TABLES, "backend"), table: "nft"})
    answer, short = way.is_short(f"{front}-restore", stdin=f"*{table}\n-A OUTPUT -p udp -j RETURN\nCOMMIT\n".encode())
    assert (answer, short) == (harness.Result(0, b"", b""), False)
    assert f"table {SIX[front]} xtshim-{table}" in way.tables() and b"-p udp" not in way.original(front)
    assert not way.is_short(f"{front}-save")[1]


def test_raw_in_another_table(way):
    """Rules of mangle's would be told, or lost, that are no part of it."""
    way.plan({"raw": "mangle"})
    assert way.is_short("iptables-restore", stdin=raw("DROP")) == (harness.Result(0, b"", b""), False)
    answer, short = way.is_short("iptables-save")
    assert not short and b"*raw\n" in answer.out and b"-A OUTPUT -d 192.0.2.7/32 -j DROP" in answer.out, answer.text()
    # It stays there when that is no longer the plan.
    way.plan(dict.fromkeys(harness.TABLES, "backend"))
    again, short = way.is_short("iptables-save", "-t", "raw")
    assert not short and b"-A OUTPUT -d 192.0.2.7/32 -j DROP" in again.out, again.text()
