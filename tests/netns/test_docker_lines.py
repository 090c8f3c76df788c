"""Every line that any dockerd says to iptables (rules/docker.toml), with all tables carried by nft."""

import pathlib
import shlex
import tomllib

import pytest

DOCKER = tomllib.loads((pathlib.Path(__file__).resolve().parents[2] / "rules/docker.toml").read_text())
# Swarm's ingress, and SCTP before 29: nf_tables has nothing for them.
NOT_CARRIED = ("-m ipvs", "-j CHECKSUM")
FAMILY = {"iptables": "ip", "ip6tables": "ip6"}


def lines(front):
    """(table, words) in the order in which a dockerd would say them: chains first."""
    family = FAMILY[front]
    said = [line for line in DOCKER["line"] if family in line.get("families", FAMILY.values())]
    for line in sorted(said, key=lambda line: not line["args"].startswith("-N")):
        args = line["args"]
        for name, value in DOCKER["values"][family].items():
            args = args.replace("{" + name + "}", value)
        yield line["table"], args


@pytest.mark.parametrize("front", FAMILY)
def test_every_line_is_carried(carried, front):
    known = set()
    for table, args in lines(front):
        words = ["--wait", "-t", table, *shlex.split(args)]
        if (table, args) in known:
            continue
        known.add((table, args))
        if any(name in args for name in NOT_CARRIED):
            subject, place = carried.places[-1]
            answer = carried.call(subject, place, [front, *words])
            assert answer.rc != 0 and answer.err, args
            continue
        carried.run([front, *words], 0)
        if args.startswith(("-A", "-I")):
            check = shlex.split(args)
            check[0] = "-C"
            carried.run([front, "--wait", "-t", table, *check], 0)
    assert len(known) > 50
    for table in ("nat", "filter", "mangle", "raw"):
        carried.run(f"{front} -t {table} -S", 0)
        carried.run(f"{front} -t {table} -nvxL", 0)
    carried.state()
    # Which empty tables a save shows depends on what was merely looked at.
    for subject, place in carried.places:
        saved = carried.call(subject, place, [f"{front}-save"])
        assert carried.call(subject, place, [f"{front}-restore"], saved.out).rc == 0, subject.name
    carried.state()
    for table, args in known:
        if args.startswith(("-A", "-I")) and not any(name in args for name in NOT_CARRIED):
            words = shlex.split(args)
            words[0] = "-D"
            carried.run([front, "--wait", "-t", table, *words], 0)
    carried.state()
