"""Each extension's save and list form, and that a rule given once more is found, by `-C` and by `-D`."""

import itertools
import shlex

import pytest

import cases

GROUPS = [(front, extension) for front in ("iptables", "ip6tables") for extension in sorted({extension for extension, *_ in cases.rules(front)})]


@pytest.mark.parametrize("front, extension", GROUPS)
def test_forms(both, front, extension):
    for _, chain, rule in filter(lambda case: case[0] == extension, cases.rules(front)):
        words = shlex.split(rule)
        call = lambda command, *more: both.run([front, "-t", "raw", command, chain, *words, *more])
        if not both.offer([front, "-t", "raw", "-A", chain, *words]):
            continue
        both.run(f"{front} -t raw -S {chain}", 0)
        both.run(f"{front} -t raw -L {chain}", 0)
        both.run(f"{front} -t raw -nvxL {chain}", 0)
        both.run(f"{front}-save -t raw", 0)
        call("-C")
        call("-I")
        call("-D")
        call("-D")
        both.run(f"{front} -t raw -F", 0)


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
def test_rules_that_differ_are_told_apart(both, front):
    """No rule of an extension is taken for its neighbour by -C and -D."""
    for extension, group in itertools.groupby(sorted(cases.rules(front)), key=lambda case: case[0]):
        if (front, both.subject.variant) == ("ip6tables", "legacy") or extension == "CT" and both.subject.variant == "legacy":
            continue  # iptables-legacy takes rules for the same that differ in what a target is told, ip6tables-legacy others too
        group = [(chain, shlex.split(rule)) for _, chain, rule in group]
        group = [(chain, words) for chain, words in group if both.offer([front, "-t", "raw", "-A", chain, *words])][:7]
        for chain, words in group:
            both.run([front, "-t", "raw", "-F"], 0)
            both.run([front, "-t", "raw", "-A", chain, *words], 0)
            for other, neighbour in group:
                if other == chain and neighbour != words:
                    both.run([front, "-t", "raw", "-C", other, *neighbour])


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
def test_saved_rules_can_be_read_back(both, front):
    """What -S says, given as a command, is the same rule; so is what iptables-save says, given to iptables-restore."""
    for _, chain, rule in cases.rules(front):
        if "\n" not in rule:  # a restore file has no way to say it
            both.offer([front, "-t", "raw", "-A", chain, *shlex.split(rule)])
    both.run(f"{front} -t raw -S", 0)
    saved = both.run(f"{front}-save -t raw", 0)
    both.run(f"{front} -t raw -F", 0)
    both.run(f"{front}-restore", 0, stdin=saved.out)
    both.state()
    for line in saved.out.decode().splitlines():
        if line.startswith("-A") and line.count('"') in (0, 2) and not set(line) & set("\\'$`"):
            both.run([front, "-t", "raw", *shlex.split(line.replace("-A", "-C", 1))])
