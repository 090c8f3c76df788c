"""dockerd takes any byte beside exit 0 for a failure: a change that succeeds says nothing at all."""

import harness

DIRECT = "-d 172.17.0.2 ! -i docker0 -j DROP"


def test_dockers_words(both):
    """What Docker 28 says to raw, over and over."""
    for wait in ("--wait", "--wait 5", "-w", ""):
        for line in (f"-A PREROUTING {DIRECT}", f"-C PREROUTING {DIRECT}", f"-D PREROUTING {DIRECT}"):
            answer = both.run(f"iptables {wait} -t raw {line}", 0)
            if answer != harness.Result(0, b"", b""):
                both.fault("not silent", answer.text())
        both.run(f"iptables {wait} -t raw -C PREROUTING {DIRECT}", 1)
        both.run(f"iptables {wait} -t raw -D PREROUTING {DIRECT}", 1)
        both.run(f"ip6tables {wait} -t raw -A PREROUTING -d fd00:d0c::2 ! -i br-9ac42b4d2381 -j DROP", 0)
        both.run(f"ip6tables {wait} -t raw -D PREROUTING -d fd00:d0c::2 ! -i br-9ac42b4d2381 -j DROP", 0)
        both.run(f"iptables {wait} -t raw -A PREROUTING -p tcp -d 127.0.0.1 --dport 9090 ! -i lo -j DROP", 0)
    both.run("iptables --version", 0)
    both.state()


def test_all_changes(both):
    for front in ("iptables", "ip6tables"):
        for table in ("raw", "filter", "mangle"):
            for line in (
                "-N mine", "-A mine -p tcp --dport 80 -m comment --comment c -j DROP", "-I mine 1 -j RETURN", "-R mine 1 -j ACCEPT", "-A OUTPUT -j mine", "-Z", "-Z mine", "-Z mine 1", "-E mine yours", "-P OUTPUT DROP", "-P OUTPUT ACCEPT",
                "-D OUTPUT -j yours", "-D yours 1", "-F yours", "-X yours", "-F", "-X",
            ):
                both.run(f"{front} -t {table} {line}", 0)
        both.run(f"{front}-restore", 0, stdin=b"*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n*filter\n:x - [0:0]\nCOMMIT\n")
        answer = both.run(f"{front}-restore -n", 0, stdin=b"*raw\n-A OUTPUT -j DROP\nCOMMIT\n")
        if answer.out or answer.err:
            both.fault("restore is not silent", answer.text())
    both.state()


def test_broken_configuration_is_silent(alone, tmp_path):
    """A front keeps to the defaults, and says nothing of the file."""
    bad = tmp_path / "bad.toml"
    bad.write_text('backend = "nonsense"\n[carriers\n')
    for subject, place in alone.places:
        for front in ("iptables", "ip6tables"):
            answer = alone.call(subject, place, [front, "-t", "raw", "-A", "OUTPUT", "-j", "ACCEPT"], env={"XTSHIM_CONFIG": str(bad)})
            assert answer == harness.Result(0, b"", b""), answer.text()
