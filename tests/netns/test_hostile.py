"""Texts that could end a statement, open a quote or name a keyword: they change nothing but their own rule, or are
refused, and what nft then lists it can load."""

import pytest

import harness

CANARY = "PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP"
TEXTS = (
    'a"b', "it's", "a\\", '\\"', "line\nbreak", "semi; colon", 'x"; flush ruleset; "', "x\nflush ruleset\n", "}", "{", "} flush ruleset", "#comment", "$var", "@set", "*", "a*b", "accept", "drop", "ip", "table", "comment", "\ttab", "\x01\x1b[31m", "ünïcödé", "☃", "%s%n", "`id`", "$(id)",
    "/* */", "include \"/etc/passwd\"", "a=b", "--jump", "-j", "!", "  blanks  ", "COMMIT", "*raw", ":x - [0:0]", "[1:2]", "0", "1a", "..", "/", "a/b", "x" * 27, "\\n", "a\rb", "\x7f", "\xa0", "meta", "jump", "queue", "_", "a.b", "a:b", "define x = y", "\\\n", '"', "''",
)
LONG = ("x" * 255, "x" * 256, 'q"' * 127, "é" * 127, "\\" * 255, ";" * 128, "x" * 126, "x" * 127, "x" * 128, "\n" * 255)


def settle(both, command, front="iptables", words=True):
    """Gives `command` to both. Ours may refuse what it cannot hold; then nothing may have changed, and the original's
    change is not compared. Where both refuse, so are the messages, unless not `words`. True where both took it."""
    taken = []
    for subject, place in both.places:
        look = lambda: [harness.without_dates(both.call(subject, place, [name, *rest]).out) for name, *rest in ((front, "-t", "raw", "-vS"), (f"{front}-save", "-t", "raw"))]
        before = look()
        answer = both.call(subject, place, command)
        taken.append(answer)
        if answer.rc != 0 and look() != before:
            both.fault(f"{subject.name}: a refusal that changed something", answer.text())
        if answer.rc != 0 and not answer.err:
            both.fault(f"{subject.name}: a refusal without a word", answer.text())
        if answer.rc == 0 and subject.ours and (answer.out or answer.err) and answer != taken[0]:
            both.fault(f"{subject.name}: neither silent nor in the original's words", answer.text())
        if subject.ours:
            loadable(both, subject, place)
    both.history.append(repr(command))
    if words and len(taken) == 2 and taken[0].rc != 0:
        both.compare(*taken)
    return all(answer.rc == 0 for answer in taken)


def loadable(both, subject, place):
    with place.entered():
        ruleset = harness.execute(["nft", "list", "ruleset"])
        again = harness.execute(["nft", "-c", "-f", "-"], stdin=ruleset.out)
    if ruleset.rc or again.rc:
        both.fault(f"{subject.name}: the ruleset that nft lists does not load", ruleset.out.decode(errors="backslashreplace") + again.err.decode(errors="backslashreplace"))


def untouched(both, front="iptables"):
    """The canary is in force, alone."""
    both.run(f"{front} -t raw -C {CANARY}", 0)
    both.run(f"{front} -t raw -S", 0)
    for subject, place in both.places:
        listing = both.call(subject, place, [front, "-t", "raw", "-S"]).out
        if listing != f"-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n-A {CANARY}\n".replace("172.17.0.2", "172.17.0.2/32").encode():
            both.fault(f"{subject.name}: more has changed than the rule itself", listing.decode(errors="backslashreplace"))


def rule(both, words):
    """A rule comes, is seen as the original shows it, and goes."""
    if settle(both, ["iptables", "-t", "raw", "-A", "PREROUTING", *words]):
        for look in (["-S"], ["-nvxL"], ["-C", "PREROUTING", *words]):
            both.run(["iptables", "-t", "raw", *look])
        both.run(["iptables-save", "-t", "raw"])
    for subject, place in both.places:
        both.call(subject, place, ["iptables", "-t", "raw", "-D", "PREROUTING", *words])
    untouched(both)


@pytest.mark.parametrize("texts", (TEXTS, LONG), ids=("odd", "long"))
def test_comments(both, texts):
    both.run(f"iptables -t raw -A {CANARY}", 0)
    for text in texts:
        rule(both, ["-m", "comment", "--comment", text, "-j", "ACCEPT"])


@pytest.mark.parametrize("option", ("LOG --log-prefix", "NFLOG --nflog-prefix"))
def test_prefixes(both, option):
    both.run(f"iptables -t raw -A {CANARY}", 0)
    for text in (*TEXTS, "x" * 29, "x" * 30, "x" * 63, "x" * 64, "x" * 127, "x" * 128):
        rule(both, ["-p", "udp", "-j", *option.split(), text])


def test_chain_names(both):
    both.run(f"iptables -t raw -A {CANARY}", 0)
    for name in (*TEXTS, "x" * 28, "x" * 29, "PREROUTING2", "input", "xtshim", "xtshim-raw", "rule", "chain", "policy", "type", "hook", "filter", "th", "tcp", "return", "goto", "continue", "last", "ct", "fib", "notrack", "not-a-keyword", "A", "Accept", "1", "in", "12345678901234567890"):
        if settle(both, ["iptables", "-t", "raw", "-N", name]):
            settle(both, ["iptables", "-t", "raw", "-A", name, "-p", "tcp", "-j", "RETURN"])
            settle(both, ["iptables", "-t", "raw", "-A", "PREROUTING", "-j", name])
            both.run("iptables -t raw -S", 0)
            both.run("iptables -t raw -nL", 0)
            both.run("iptables-save -t raw", 0)
        for subject, place in both.places:
            for line in (["-D", "PREROUTING", "-j", name], ["-F", name], ["-X", name]):
                both.call(subject, place, ["iptables", "-t", "raw", *line])
        untouched(both)


def test_renaming_to_odd_names(both):
    both.run(f"iptables -t raw -A {CANARY}", 0)
    for name in TEXTS:
        for subject, place in both.places:
            both.call(subject, place, ["iptables", "-t", "raw", "-N", "plain"])
        settle(both, ["iptables", "-t", "raw", "-E", "plain", name])
        for subject, place in both.places:
            for chain in ("plain", name):
                both.call(subject, place, ["iptables", "-t", "raw", "-X", chain])
        untouched(both)


@pytest.mark.parametrize("where", ("interface", "policy", "table", "address", "match", "target"))
def test_other_places(both, where):
    both.run(f"iptables -t raw -A {CANARY}", 0)
    for text in TEXTS[:12] if where == "address" else TEXTS:  # each may be looked up as a host's name
        words = {
            "interface": ["-t", "raw", "-A", "PREROUTING", "-i", text, "-j", "ACCEPT"], "policy": ["-t", "raw", "-P", "OUTPUT", text], "table": ["-t", text, "-S"], "address": ["-t", "raw", "-A", "PREROUTING", "-s", text],
            "match": ["-t", "raw", "-A", "PREROUTING", "-m", text], "target": ["-t", "raw", "-A", "PREROUTING", "-j", text],
        }[where]
        if where == "table" and text == "raw":
            continue
        settle(both, ["iptables", *words])
        for subject, place in both.places:
            both.call(subject, place, ["iptables", *[{"-A": "-D"}.get(word, word) for word in words]])
        untouched(both)


def test_not_utf8(both):
    """Bytes that are no text: as the original, or refused."""
    both.run(f"iptables -t raw -A {CANARY}", 0)
    for words in ([b"-m", b"comment", b"--comment", b"\xff\xfe"], [b"-i", b"\xc3"], [b"-j", b"\x80"]):
        settle(both, ["iptables", "-t", "raw", "-A", "PREROUTING", *words], words=False)
        for subject, place in both.places:
            both.call(subject, place, ["iptables", "-t", "raw", "-D", "PREROUTING", *words])
        untouched(both)


def test_in_a_restore_file(both):
    """The same texts, quoted as iptables-save quotes them."""
    both.run(f"iptables -t raw -A {CANARY}", 0)
    for text in TEXTS:
        if "\n" in text:
            continue
        quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        data = f"*raw\n-A PREROUTING -m comment --comment {quoted} -j ACCEPT\nCOMMIT\n".encode()
        for front in ("iptables-restore",):
            both.run([front, "-n"], stdin=data)
        both.run("iptables -t raw -S", 0)
        for subject, place in both.places:
            both.call(subject, place, ["iptables", "-t", "raw", "-D", "PREROUTING", "2"])
            if subject.ours:
                loadable(both, subject, place)
        untouched(both)
