"""Words that look like options and are values, and files of which only a part is wanted: the rule goes where the original puts it."""

import pytest

LOOKALIKES = (
    "-A INPUT -m comment --comm -tmangle -j DROP", "-A INPUT -m comment --comment -tmangle -j DROP", "-A INPUT -j LOG --log-pre -tmangle", "-A INPUT -m comment --comment --table=mangle -j DROP", "-A INPUT -m comment --comment -t -j DROP",
    "-t filter -A INPUT -m comment --comm -tmangle -j DROP", "--wait -t filter -A INPUT -m comment --comment -6 -j DROP", "-A INPUT -m comment --comment -4 -j DROP", "-nvLINPUT -tfilter", "-S --tab mangle",
)


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
@pytest.mark.parametrize("line", LOOKALIKES)
def test_values_are_no_options(carried, front, line):
    carried.run(f"{front} {line}")
    for table in ("filter", "mangle"):
        carried.run(f"{front} -t {table} -S", 0)


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
@pytest.mark.parametrize("word", ("-4", "-6", "--ipv4", "--ipv6"))
def test_a_comment_is_not_a_family(carried, front, word):
    """What a save says is what a restore makes of it."""
    carried.run(f"{front} -A INPUT -p udp -m comment --comment {word} -j DROP", 0)
    saved = carried.run(f"{front}-save -t filter", 0)
    carried.run(f"{front}-restore", 0, stdin=saved.out)
    carried.run(f"{front} -S INPUT", 0)


FILES = (
    "*mangle\n*filter\n-A INPUT -p udp -j DROP\nCOMMIT\n", "*mangle\n-A INPUT -j DROP\nCOMMIT\n*filter\n-A INPUT -p udp -j DROP\nCOMMIT\n", "*mangle\n-A INPUT -j nowhere\n*filter\n-A INPUT -p tcp -j DROP\nCOMMIT\n",
    "*filter\n-A INPUT -p udp -j DROP\nCOMMIT\n*mangle\nnonsense\nCOMMIT\n",
)


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
@pytest.mark.parametrize("file", FILES)
def test_a_table_that_is_not_wanted(carried, front, file):
    carried.run(f"{front}-restore -T filter", stdin=file.encode())
    for table in ("filter", "mangle"):
        carried.run(f"{front} -t {table} -S", 0)


def test_a_question_for_somebody_else_is_not_answered(carried):
    """A copy of this program must not pass for the real iptables."""
    subject, place = carried.places[-1]
    answer = carried.call(subject, place, ["iptables", "--version"], env={"XTSHIM_NESTED": "1"})
    assert (answer.rc != 0, answer.out, answer.err) == (True, b"", b"")
