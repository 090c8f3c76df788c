"""xtshim explain: what it says of a command is what happens when the command is given."""

import re
import shlex

import pytest

import harness

COMMANDS = [
    ("iptables -t raw -A PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP", ["puts a rule at the end of PREROUTING in the IPv4 table raw", "to 172.17.0.2/32; comes in by anything but docker0", "thrown away", "dockerd 28.5.2 says this for bridge networks"]),
    ("ip6tables -t raw -I PREROUTING -i br-lan -j NOTRACK", ["puts a rule first in PREROUTING in the IPv6 table raw", "comes in by br-lan", "belongs to no connection"]),
    ("iptables -I FORWARD -i eth+ ! -s 192.0.2.0/24 -p tcp -m multiport --dports 80,443 -j REJECT", ["passes on from one interface to another", "an interface whose name begins with `eth`", "not from 192.0.2.0/24", "to one of the ports 80,443", "their sender is told"]),
    ("iptables -t nat -A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j DNAT --to-destination 10.0.0.1:80", ["for the first packet of each connection alone", "of the type LOCAL", "given another destination: 10.0.0.1:80"]),
]


def explain(alone, command):
    subject, place = alone.places[0]
    result = alone.call(subject, place, ["xtshim", "explain", "--", *shlex.split(command)])
    assert result.rc == 0 and not result.err, result.text()
    return result.out.decode()


@pytest.mark.parametrize("command, words", COMMANDS)
def test_a_command_in_words(alone, command, words):
    text = explain(alone, command)
    for word in words:
        assert word in text, text
    saved = lambda: alone.call(*alone.places[0], ["iptables-save"]).out
    before = saved()
    explain(alone, command)
    assert before == saved()
    done = alone.run(command, 0)
    assert done.rc == 0
    # What it says holds the table does hold it, and with the expressions that it has shown.
    subject, place = alone.places[0]
    family, table = ("ip6" if command.startswith("ip6") else "ip"), (re.search(r"-t (\w+)", command) or [None, "filter"])[1]
    if table == "raw":
        assert f"raw is held by xtshim, in the nf_tables table {family} xtshim-raw, because: the configuration asks for it" in text
        held = place.sh(f"nft list table {family} xtshim-raw")
        shown = re.search(r"^as +(.*)$", text, re.M)[1].split(" counter")[0]
        assert shown in held, (shown, held)
    else:
        assert f"{table} is held by iptables-{subject.variant} itself, because: it can" in text
        assert f"xtshim-{table}" not in place.sh("nft list tables")


def test_what_iptables_would_not_take_is_not_explained(alone):
    subject, place = alone.places[0]
    for command in ("iptables -A", "iptables -t raw -A PREROUTING --nonsense", "nft list ruleset"):
        result = alone.call(subject, place, ["xtshim", "explain", "--", *shlex.split(command)])
        assert result.rc == 1 and result.err and not result.out, result.text()
