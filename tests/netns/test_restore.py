"""iptables-save and iptables-restore with raw carried beside tables that pass through."""

import pytest

import harness

FRONTS = ("iptables", "ip6tables")
RAW = b"*raw\n:PREROUTING ACCEPT [1:2]\n:OUTPUT DROP [3:4]\n:mine - [0:0]\n[5:6] -A PREROUTING -p tcp -m tcp --dport 80 -j mine\n[7:8] -A mine -j ACCEPT\nCOMMIT\n"
FILTER = b"*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:web - [0:0]\n[1:1] -A INPUT -p tcp -m tcp --dport 80 -j web\n-A web -m comment --comment \"a \\\"b\\\" c\" -j RETURN\nCOMMIT\n"
NAT = b"*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n"


@pytest.fixture(params=FRONTS)
def front(request):
    return request.param


def saves(both, front):
    for options in ("-t raw", "-t raw -c", "-c -t raw", "-t filter", "-t filter -c", "--table raw --counters", "-M /nonexistent -t raw"):
        both.run(f"{front}-save {options}", 0)
    both.state(counters=True)


@pytest.mark.parametrize("data", (RAW, RAW + FILTER, FILTER + RAW, FILTER + RAW + NAT, NAT + FILTER, b"# a comment\n\n" + RAW + b"\n# another\n" + FILTER), ids=("raw", "raw-filter", "filter-raw", "filter-raw-nat", "none-carried", "comments"))
@pytest.mark.parametrize("options", ("", "-c", "-n", "--noflush --counters", "--test", "-t", "-T raw", "-T filter", "-c -T raw", "-w", "-w 5", "-v", "-T nonsense"))
def test_restore(both, front, data, options):
    if front == "ip6tables" and both.subject.variant == "nft":
        data = data.replace(b"[5:6] -A", b"-A").replace(b"[7:8] -A", b"-A")  # 1.8.9 loses them, see the changes of 1.8.10
    both.run(f"{front} -t raw -A OUTPUT -p udp -j ACCEPT", 0)
    both.run(f"{front} -A OUTPUT -p udp -j ACCEPT", 0)
    both.run(f"{front}-restore {options}", stdin=data)
    saves(both, front)
    both.run(f"{front}-restore {options}", stdin=data)
    saves(both, front)


def test_empty_input(both, front):
    both.run(f"{front} -t raw -A OUTPUT -j ACCEPT", 0)
    for data in (b"", b"\n", b"#\n", b"*raw\nCOMMIT\n", b"*raw\n", b"COMMIT\n", b"*raw\n:PREROUTING - [0:0]\nCOMMIT\n"):
        both.run(f"{front}-restore -n", stdin=data)
        both.run(f"{front}-restore", stdin=data)
    both.state()


MALFORMED = (
    b"*raw\nnonsense\nCOMMIT\n", b"*raw\n-A PREROUTING -j\nCOMMIT\n", b"*raw\n-A PREROUTING -j missing\nCOMMIT\n", b"*raw\n-A missing -j DROP\nCOMMIT\n", b"*raw\n-A PREROUTING --nonsense\nCOMMIT\n", b"*raw\n:PREROUTING\nCOMMIT\n", b"*raw\n:PREROUTING NONSENSE [0:0]\nCOMMIT\n",
    b"*raw\n:mine ACCEPT [0:0]\nCOMMIT\n", b"*raw\n: - [0:0]\nCOMMIT\n", b"*raw\n:x y z\nCOMMIT\n", b"*nonsense\nCOMMIT\n", b"*\nCOMMIT\n", b"*raw", b"*raw\n-A PREROUTING -j DROP", b"-A PREROUTING -j DROP\nCOMMIT\n", b"*raw\n*filter\nCOMMIT\n",
    b" *raw\nCOMMIT\n", b"*raw\n-A PREROUTING -j DROP\n COMMIT\n", b"*raw\n-A PREROUTING -p tcp --dport x -j DROP\nCOMMIT\n", b"*raw\n[x] -A PREROUTING -j DROP\nCOMMIT\n", b"*raw\n[1:2 -A PREROUTING -j DROP\nCOMMIT\n", b"*raw\n-A PREROUTING -t filter -j DROP\nCOMMIT\n", b"*raw\n-A PREROUTING -m comment --comment \"open\nCOMMIT\n",
    b"*raw\n-D PREROUTING -j DROP\nCOMMIT\n", b"*raw\n-D OUTPUT 9\nCOMMIT\n", b"*raw\n-I PREROUTING 9 -j DROP\nCOMMIT\n", b"*raw\n-C PREROUTING -j DROP\nCOMMIT\n", b"*raw\n-X missing\nCOMMIT\n", b"*raw\n-F missing\nCOMMIT\n", b"*raw\n-N PREROUTING\nCOMMIT\n", b"*raw\n-w -A PREROUTING -j DROP\nCOMMIT\n",
    b"*raw\n-A PREROUTING -j DROP\n-A PREROUTING -j missing\nCOMMIT\n", b"*raw\n" + b"-A PREROUTING -j DROP\n" * 3 + b"nonsense\nCOMMIT\n", b"*raw\n-A PREROUTING -p tcp -p udp\nCOMMIT\n", b"*raw\n-A PREROUTING -s 10.0.0.1/99 -j DROP\nCOMMIT\n", b"*raw\n:abcdefghijklmnopqrstuvwxyz0123 - [0:0]\nCOMMIT\n", b"*raw\n-P OUTPUT NONSENSE\nCOMMIT\n",
    b"*raw\n\n\n#\n\nnonsense\nCOMMIT\n", b"*raw\n-A\nCOMMIT\n", b"*raw\n-j DROP\nCOMMIT\n", b"*raw\ncommit\n", b"*raw\n-A PREROUTING -j DROP extra\nCOMMIT\n", b"*raw\n-4 -A PREROUTING -j DROP\nCOMMIT\n", b"*raw\n-6 -A PREROUTING -j DROP\nCOMMIT\n",
)


@pytest.mark.parametrize("options", ("", "-n", "--test"))
def test_malformed(both, front, options):
    """The backend's message and code; and raw is as it was, unless the backend takes the file."""
    if options == "--test" and both.subject.variant == "nft":
        pytest.skip("iptables-nft-restore 1.8.9 takes nearly anything with --test: it does not look at chains")
    for data in MALFORMED:
        for line in ("-P OUTPUT ACCEPT", "-P PREROUTING ACCEPT", "-F", "-X", "-A OUTPUT -p udp -j ACCEPT"):
            both.run(f"{front} -t raw {line}", 0)
        both.run(f"{front}-restore {options}", stdin=data)
        both.run(f"{front} -t raw -S", 0)
    both.state()


@pytest.mark.parametrize("options", ("", "-n"))
def test_malformed_after_a_good_table(both, front, options):
    """Tables before the bad line are in force, as with the original; the line number is that of the whole file."""
    for good, bad in ((FILTER, b"*raw\n-A PREROUTING --nonsense\nCOMMIT\n"), (RAW, b"*filter\n-A INPUT --nonsense\nCOMMIT\n"), (RAW, b"*filter\nnonsense\nCOMMIT\n"), (FILTER + RAW, b"*nat\n-A missing -j DROP\nCOMMIT\n"), (FILTER, b"*raw\nnonsense\nCOMMIT\n"), (NAT + RAW, b"*filter\n-A INPUT -j missing\n")):
        both.run(f"{front}-restore {options}", stdin=good + bad)
        both.state()


def test_commands_inside(both, front):
    # -R of a rule of the same file ends iptables-nft 1.8.9 by SIGSEGV, -E of a chain of the same file is refused,
    # and -Z takes the policy of the same file back.
    for lines in (b"-N a\n-A a -p tcp -j DROP\n-I a 1 -p udp -j ACCEPT\n-A PREROUTING -j a", b"-R a 2 -p sctp -j DROP\n-D a 1", b"-E a b", b"-P OUTPUT DROP", b"-Z"):
        both.run(f"{front}-restore -n", 0, stdin=b"*raw\n" + lines + b"\nCOMMIT\n")
    both.run(f"{front} -t raw -vS", 0)
    both.run(f"{front}-restore -n", stdin=b"*raw\n-F b\n-D PREROUTING -j b\n-X b\nCOMMIT\n")
    both.run(f"{front}-restore -n", stdin=b"*raw\n:PREROUTING DROP [0:0]\n:c - [0:0]\n-A c -s %s -j DROP\n-A PREROUTING -g c\nCOMMIT\n" % (b"10.0.0.1,10.0.0.2" if front == "iptables" else b"fd00::1,fd00::2"))
    both.run(f"{front}-restore -n", stdin=b"*raw\n:c - [0:0]\nCOMMIT\n")
    both.run(f"{front} -t raw -S", 0)
    both.run(f"{front}-restore -n", stdin=b"*raw\n-S\n-L -n\nCOMMIT\n")
    both.run(f"{front}-restore -n", stdin=b"*raw\n-A PREROUTING -m comment --comment \"two words\" -j DROP\n-A PREROUTING -m comment --comment it's\n-A PREROUTING -m comment --comment \"q\\\"q\"\nCOMMIT\n")
    both.run(f"{front} -t raw -S", 0)
    both.state()


def test_a_file_that_is_only_tried_tells_what_the_original_tells(both, front):
    both.run(f"{front} -t raw -A PREROUTING -p udp -j ACCEPT", 0)
    for options in ("-n -t", "-n -t -v"):
        for line in (b"-S PREROUTING", b"-nL OUTPUT", b"-vF OUTPUT", b"-N new", b"-v -A OUTPUT -p udp -j DROP"):
            both.run(f"{front}-restore {options}", 0, stdin=b"*raw\n" + line + b"\nCOMMIT\n")
    both.state()


def test_a_file_again(both, front):
    """Loading what was saved: chains keep their names, and what the file does not say is as after a first load."""
    saved = b"*raw\n:PREROUTING DROP [0:0]\n:a - [0:0]\n:b - [0:0]\n-A PREROUTING -j a\n-A a -p tcp -j b\n-A b -j DROP\nCOMMIT\n"
    for _ in range(3):
        both.run(f"{front}-restore", 0, stdin=saved)
        both.run(f"{front} -t raw -S", 0)
    both.run(f"{front}-restore", 0, stdin=b"*raw\n:b - [0:0]\n-A b -j ACCEPT\n-A OUTPUT -j b\nCOMMIT\n")
    both.run(f"{front} -t raw -S", 0)
    both.state()


def test_several_sections_of_one_table(both, front):
    both.run(f"{front}-restore", stdin=b"*raw\n-A OUTPUT -p tcp -j DROP\nCOMMIT\n*filter\n-A OUTPUT -j DROP\nCOMMIT\n*raw\n-A OUTPUT -p udp -j DROP\nCOMMIT\n")
    both.state()
    both.run(f"{front}-restore -n", stdin=b"*raw\n-A OUTPUT -p tcp -j DROP\nCOMMIT\n*filter\n-A OUTPUT -j DROP\nCOMMIT\n*raw\n-A OUTPUT -p udp -j DROP\nCOMMIT\n")
    both.state()


def test_many_rules(both, front):
    """A file of a thousand rules."""
    lines = b"".join(b"-A PREROUTING -p tcp -m tcp --dport %d -j DROP\n" % port for port in range(1, 1001))
    both.run(f"{front}-restore", 0, stdin=b"*raw\n" + lines + b"COMMIT\n" + FILTER)
    both.run(f"{front} -t raw -C PREROUTING -p tcp --dport 1000 -j DROP", 0)
    both.run(f"{front} -t raw -D PREROUTING -p tcp --dport 500 -j DROP", 0)
    both.state()
    saved = both.run(f"{front}-save -t raw", 0)
    both.run(f"{front}-restore", 0, stdin=saved.out)
    both.state()


@pytest.mark.parametrize("way", ("file", "substitution", "redirection", "pipe"))
def test_ways_in(both, front, way, tmp_path):
    """A file by name, a descriptor of the shell's, standard input from a file and from a pipe."""
    script = {
        "file": '"$1" "$2"', "substitution": '"$1" <(cat "$2")', "redirection": '"$1" < "$2"', "pipe": 'cat "$2" | "$1"',
    }[way]
    for number, data in enumerate((RAW + FILTER, FILTER + RAW, NAT)):
        path = tmp_path / f"rules{number}"
        path.write_bytes(data)
        answers = []
        for subject, place in both.places:
            with place.entered():
                answers.append(harness.execute(["bash", "-c", script, "bash", subject.path(f"{front}-restore"), str(path)], env={**both.env, **subject.environment()}))
        both.history.append(f"{way}: {data!r}")
        if any(answer != harness.Result(0, b"", b"") for answer in answers):
            both.fault("not a silent success", "\n".join(answer.text() for answer in answers))
        both.state()
    both.run(f"{front}-restore /nonexistent/file")
    both.run([f"{front}-restore", "-n", str(tmp_path / "rules0"), "extra"])


def test_save_to_a_file(both, front, tmp_path):
    both.run(f"{front}-restore", 0, stdin=RAW + FILTER)
    for subject, place in both.places:
        path = tmp_path / subject.name
        answer = both.call(subject, place, [f"{front}-save", "-f", str(path)])
        both.history.append(f"{front}-save -f")
        if answer != harness.Result(0, b"", b""):
            both.fault(f"{subject.name}: not a silent success", answer.text())
        elif set(harness.tables(path.read_bytes())) != {"raw", "filter"}:
            both.fault(f"{subject.name}: the file does not hold both tables", path.read_text())


def test_save_order_and_form(both, front):
    """Where raw stands in a save of all, and that each table is whole."""
    both.run(f"{front}-restore", 0, stdin=FILTER + RAW + NAT)
    saved = both.run(f"{front}-save -t raw", 0).out
    for subject, place in both.places:
        whole = both.call(subject, place, [f"{front}-save"]).out
        if whole.count(b"\n*raw\n") != 1 or whole.count(b"COMMIT\n") != 3 or whole.count(b"# Generated by") != whole.count(b"# Completed on"):
            both.fault(f"{subject.name}: not three whole tables", whole.decode())
        if not whole.endswith(b"\n") or b"\n\n" in whole:
            both.fault(f"{subject.name}: odd lines", whole.decode())
    if both.subject.variant == "nft":
        both.run(f"{front}-save", 0)
    assert saved
