"""The rule lines of iptables' own test suite, for the extensions that raw may carry.

They come with the source package of the installed iptables, which is fetched while the tests run and never kept in the
repository; without it the test says so and is skipped.
"""

import pathlib
import shlex
import tarfile

import pytest

import upstream

FILES = {
    "iptables": (
        "libxt_tcp", "libxt_udp", "libipt_icmp", "libxt_multiport", "libxt_addrtype", "libxt_conntrack", "libxt_comment", "libxt_mark", "libxt_limit", "libxt_pkttype", "libxt_mac", "libxt_iprange", "libxt_length", "libipt_LOG", "libxt_NFLOG", "libxt_NOTRACK", "libxt_CT", "libxt_TRACE", "libxt_MARK", "libxt_standard", "libxt_sctp", "libxt_dccp", "libxt_esp", "libipt_ah", "libxt_ipcomp", "libxt_u32", "libxt_bpf", "iptables",
    ),
}
FILES["ip6tables"] = tuple(name.replace("libipt_icmp", "libip6t_icmp6").replace("libipt_LOG", "libip6t_LOG").replace("libipt_ah", "libip6t_ah") for name in FILES["iptables"] if name != "iptables") + ("libip6t_frag", "libip6t_rt", "libip6t_hbh", "libip6t_dst", "libip6t_mh", "libip6t_ipv6header", "libip6t_srh")


@pytest.fixture(scope="session")
def suite():
    """File name without `.t` -> its lines."""
    with tarfile.open(upstream.fetch()) as archive:
        return {pathlib.Path(member.name).stem: archive.extractfile(member).read().decode().splitlines() for member in archive if member.name.endswith(".t")}


def rules(lines):
    """(chains, rule) of a file. Its rules are put into raw's own chains, whatever table they were written for: what the
    original says to that is what ours must say."""
    for line in lines:
        line = line.strip()
        if not line or line[0] in "#@%*:":
            continue
        yield line.split(";")[0]


@pytest.mark.parametrize("front", FILES)
def test_rule_lines(both, suite, front):
    known = 0
    for name in FILES[front]:
        for rule in rules(suite.get(name, ())):
            known += 1
            words = shlex.split(rule)
            for chain in ("PREROUTING", "OUTPUT"):
                if not both.offer([front, "-t", "raw", "-A", chain, *words]):
                    continue
                both.run(f"{front} -t raw -S {chain}", 0)
                both.run(f"{front} -t raw -nvxL {chain}", 0)
                both.run([front, "-t", "raw", "-C", chain, *words])
                both.run([front, "-t", "raw", "-D", chain, *words])
                both.run(f"{front} -t raw -F", 0)
    assert known > 200, "the source package's test files are not what they were"
