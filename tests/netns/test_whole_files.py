"""Whole files of iptables-restore with every table carried: as administrators save them, and in the shape that kube-proxy,
ufw and firewalld give them."""

import json
import os

import pytest

import harness

FRONTS = ("iptables", "ip6tables")
FILTER = b"*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:web - [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -j web\n-A web -m comment --comment \"a \\\"b\\\" c\" -j RETURN\nCOMMIT\n"
NAT = b"*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n"
RAW = b"*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n-A PREROUTING -p udp -m udp --dport 53 -j NOTRACK\nCOMMIT\n"
MANGLE = b"*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A PREROUTING -i eth0 -j MARK --set-xmark 0x5/0xff\nCOMMIT\n"
SECURITY = b"*security\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p udp -j ACCEPT\nCOMMIT\n"
FILES = {
    "all": FILTER + NAT + RAW + MANGLE + SECURITY,
    "backwards": SECURITY + MANGLE + RAW + NAT + FILTER,
    "one": MANGLE,
    "twice": FILTER + NAT + FILTER.replace(b"80", b"81"),
    "comments": b"# a\n\n" + FILTER + b"# b\n\n# c\n" + NAT.replace(b"*nat\n", b"*nat\n# d\n\n"),
}
OPTIONS = ("", "-n", "-c", "--noflush --counters", "--test", "-T filter", "-n -T nat", "-T nonsense", "-w 3 -W 1000 -n", "-v", "-nv")


@pytest.fixture(params=FRONTS)
def front(request):
    return request.param


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("file", FILES)
def test_restore(carried, front, file, options):
    if "--test" in options and carried.subject.variant == "nft":
        options = "--test -T raw"  # without it 1.8.9 takes nearly anything
    carried.run(f"{front} -A OUTPUT -p udp -j ACCEPT", 0)
    carried.run(f"{front} -t nat -N old", 0)
    for _ in range(2):
        carried.run(f"{front}-restore {options}", stdin=FILES[file])
        carried.state(counters=True)
    for table in ("filter", "nat", "mangle", "raw", "security"):
        carried.run(f"{front}-save -t {table}", 0)


def test_order_of_a_save(carried, front):
    """As the original has the tables: iptables-legacy the newest first, iptables-nft in an order of its own."""
    for made in (RAW, SECURITY, FILTER, NAT, MANGLE):
        carried.run(f"{front}-restore", 0, stdin=made)
    carried.run(f"{front}-save", 0)
    carried.run(f"{front}-save -c", 0)


def test_a_save_restores_itself(carried, front):
    carried.run(f"{front}-restore", 0, stdin=FILES["all"])
    for subject, place in carried.places:
        saved = carried.call(subject, place, [f"{front}-save", "-c"]).out
        assert carried.call(subject, place, [f"{front}-restore", "-c"], saved) == harness.Result(0, b"", b"")
        assert harness.without_dates(carried.call(subject, place, [f"{front}-save", "-c"]).out) == harness.without_dates(saved)
    carried.state(counters=True)


@pytest.mark.parametrize("options", ("", "-n"))
def test_a_bad_table_among_good_ones(carried, front, options):
    """What stands before the fault is in force, the table with it is as it was, what comes behind it is not read."""
    for bad in (b"*raw\n-A OUTPUT -j missing\nCOMMIT\n", b"*raw\n-A missing -j DROP\nCOMMIT\n", b"*raw\n-A OUTPUT --nonsense\nCOMMIT\n", b"*raw\nnonsense\nCOMMIT\n", b"*nonsense\nCOMMIT\n", b"nonsense\n", b"*raw\n-A OUTPUT -j DROP\n"):
        for line in ("-F", "-X", "-A OUTPUT -p tcp -j ACCEPT"):
            carried.run(f"{front} -t raw {line}", 0)
        carried.run(f"{front}-restore {options}", stdin=FILTER + bad + NAT)
        carried.state()


# kube-proxy adds its chains and jumps one by one, then gives the rest as one file: --noflush, comments quoted, a chain for
# each service and end point, rules that are new each time, and chains that are gone at the end.
KUBE_SETUP = (
    "-N KUBE-SERVICES -t nat", "-N KUBE-POSTROUTING -t nat", "-N KUBE-FORWARD -t filter", "-N KUBE-PROXY-FIREWALL -t filter", "-N KUBE-SVC-OLDOLDOLDOLDOLD1 -t nat", "-A KUBE-SVC-OLDOLDOLDOLDOLD1 -t nat -j RETURN",
    "-I PREROUTING 1 -t nat -m comment --comment KubeServicePortals -j KUBE-SERVICES", "-I OUTPUT 1 -t nat -m comment --comment KubeServicePortals -j KUBE-SERVICES", "-I POSTROUTING 1 -t nat -m comment --comment KubePostrouting -j KUBE-POSTROUTING",
    "-I FORWARD 1 -t filter -m comment --comment KubeForward -j KUBE-FORWARD", "-I FORWARD 1 -t filter -m conntrack --ctstate NEW -m comment --comment KubeLb -j KUBE-PROXY-FIREWALL",
)
KUBE = """*filter
:KUBE-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "marked by us" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "what belongs to it" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -m comment --comment "shop/cart:http has no endpoints" -m tcp -p tcp -d {virtual2} --dport 80 -j REJECT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-AAAABBBBCCCCDDDD - [0:0]
:KUBE-SVC-OLDOLDOLDOLDOLD1 - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAA1 - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAA2 - [0:0]
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "traffic that needs another source" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-SERVICES -m comment --comment "shop/web:http cluster IP" -m tcp -p tcp -d {virtual} --dport 80 -j KUBE-SVC-AAAABBBBCCCCDDDD
-A KUBE-SVC-AAAABBBBCCCCDDDD -m comment --comment "shop/web:http cluster IP" -m tcp -p tcp -d {virtual} --dport 80 ! -s {pods} -j KUBE-MARK-MASQ
-A KUBE-SVC-AAAABBBBCCCCDDDD -m comment --comment "shop/web:http -> {pod1}" -m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-AAAAAAAAAAAAAAA1
-A KUBE-SVC-AAAABBBBCCCCDDDD -m comment --comment "shop/web:http -> {pod2}" -j KUBE-SEP-AAAAAAAAAAAAAAA2
-A KUBE-SEP-AAAAAAAAAAAAAAA1 -m comment --comment "shop/web:http" -s {address1} -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAA1 -m comment --comment "shop/web:http" -m tcp -p tcp -j DNAT --to-destination {pod1}
-A KUBE-SEP-AAAAAAAAAAAAAAA2 -m comment --comment "shop/web:http" -s {address2} -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAA2 -m comment --comment "shop/web:http" -m tcp -p tcp -j DNAT --to-destination {pod2}
-A KUBE-SERVICES -m comment --comment "last of all" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-X KUBE-SVC-OLDOLDOLDOLDOLD1
COMMIT
"""
KUBE_VALUES = {
    "iptables": {"virtual": "10.96.0.10", "virtual2": "10.96.0.11", "pods": "10.244.0.0/16", "address1": "10.244.1.5", "address2": "10.244.2.6", "pod1": "10.244.1.5:8080", "pod2": "10.244.2.6:8080"},
    "ip6tables": {"virtual": "fd00:96::10", "virtual2": "fd00:96::11", "pods": "fd00:244::/56", "address1": "fd00:244::1:5", "address2": "fd00:244::2:6", "pod1": "[fd00:244::1:5]:8080", "pod2": "[fd00:244::2:6]:8080"},
}


def test_kube_proxy(carried, front):
    for line in KUBE_SETUP:
        carried.run(f"{front} -w 5 {line}", 0)
    data = KUBE.format(**KUBE_VALUES[front]).encode()
    carried.run(f"{front}-restore -w 5 -W 100000 --noflush --counters", stdin=data)
    carried.state()
    carried.run(f"{front} -t nat -S", 0)
    # A later round: the chain that went is not spoken of any more, a service has come and another has gone.
    later = data.replace(b":KUBE-SVC-OLDOLDOLDOLDOLD1 - [0:0]\n", b"").replace(b"-X KUBE-SVC-OLDOLDOLDOLDOLD1\n", b"").replace(b"--dport 80", b"--dport 8080")
    for _ in range(2):
        carried.run(f"{front}-restore -w 5 -W 100000 --noflush --counters", 0, stdin=later)
        carried.state()
    # Taken back, as `kube-proxy --cleanup` does: jumps by their rule, then one file of chains emptied and deleted.
    carried.run(f"{front} -w 5 -D PREROUTING -t nat -m comment --comment KubeServicePortals -j KUBE-SERVICES", 0)
    carried.run(f"{front} -w 5 -D OUTPUT -t nat -m comment --comment KubeServicePortals -j KUBE-SERVICES", 0)
    carried.run(f"{front} -w 5 -D POSTROUTING -t nat -m comment --comment KubePostrouting -j KUBE-POSTROUTING", 0)
    chains = ("SERVICES", "NODEPORTS", "POSTROUTING", "MARK-MASQ", "SVC-AAAABBBBCCCCDDDD", "SEP-AAAAAAAAAAAAAAA1", "SEP-AAAAAAAAAAAAAAA2")
    gone = "*nat\n" + "".join(f":KUBE-{name} - [0:0]\n" for name in chains) + "".join(f"-X KUBE-{name}\n" for name in chains) + "COMMIT\n"
    carried.run(f"{front}-restore -w 5 -W 100000 --noflush --counters", 0, stdin=gone.encode())
    carried.state()


# ufw keeps files that its own -restore -n is given: comments and blank lines between the rules, chains declared with -, and a
# table that ends in a COMMIT with a comment behind it.
UFW_CHAINS = b"*filter\n:ufw-before-input - [0:0]\n:ufw-before-output - [0:0]\n:ufw-after-input - [0:0]\n:ufw-user-input - [0:0]\n:ufw-user-limit - [0:0]\n:ufw-user-limit-accept - [0:0]\n:ufw-logging-deny - [0:0]\n:ufw-not-local - [0:0]\nCOMMIT\n"
UFW = b"""#
# rules that come before those of the user
#

*filter
:ufw-before-input - [0:0]
:ufw-before-output - [0:0]
:ufw-not-local - [0:0]
:ufw-logging-deny - [0:0]
# required lines end here


# all on loopback
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-output -o lo -j ACCEPT

# packets of connections that are known, and such as belong to none
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP

-A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny
-A ufw-not-local -j DROP
-A ufw-logging-deny -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN
-A ufw-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "

# don't delete the 'COMMIT' line or these rules won't be processed
COMMIT
# a word behind it
"""
UFW_USER = b"""*filter
:ufw-user-input - [0:0]
:ufw-user-limit - [0:0]
:ufw-user-limit-accept - [0:0]
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 22 -j ACCEPT

### tuple ### allow any 53 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 53 -j ACCEPT
-A ufw-user-input -p udp --dport 53 -j ACCEPT

### END RULES ###
-A ufw-user-limit -m limit --limit 3/minute -j LOG --log-prefix "[UFW LIMIT BLOCK] "
-A ufw-user-limit -j REJECT
-A ufw-user-limit-accept -j ACCEPT
COMMIT
"""


def test_ufw(carried):
    carried.run("iptables -P INPUT DROP", 0)
    carried.run("iptables-restore -n", 0, stdin=UFW_CHAINS)
    for line in ("-A INPUT -j ufw-before-input", "-A INPUT -j ufw-after-input", "-A OUTPUT -j ufw-before-output", "-A ufw-before-input -j ufw-user-input"):
        carried.run(f"iptables {line}", 0)
    for _ in range(2):
        carried.run("iptables-restore -n", 0, stdin=UFW)
        carried.run("iptables-restore -n", 0, stdin=UFW_USER)
        carried.state()
    carried.run("iptables -n -L ufw-user-input", 0)
    carried.run("iptables-restore -n", 0, stdin=UFW_CHAINS)
    carried.state()


# firewalld's direct interface gives a file with commands of any kind in it, a table at a time, with -w and -n.
FIREWALLD = b"""*raw
-N PREROUTING_direct
-I PREROUTING 1 -j PREROUTING_direct
COMMIT
*mangle
-N PREROUTING_direct
-I PREROUTING 1 -j PREROUTING_direct
-P FORWARD ACCEPT
COMMIT
*nat
-N PREROUTING_direct
-I PREROUTING 1 -j PREROUTING_direct
-N POSTROUTING_direct
-I POSTROUTING 1 -j POSTROUTING_direct
COMMIT
*filter
-N INPUT_direct
-I INPUT 1 -j INPUT_direct
-I INPUT_direct 1 -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT_direct -m comment --comment "two words" -j RETURN
-D INPUT_direct -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT
COMMIT
"""


def test_firewalld_direct(carried, front):
    carried.run(f"{front}-restore -w -n", 0, stdin=FIREWALLD)
    carried.state()
    carried.run(f"{front} -w -t filter -I INPUT_direct 1 -p udp --dport 53 -j DROP", 0)
    carried.run(f"{front}-restore -w -n", 0, stdin=b"*filter\n-F INPUT_direct\n-D INPUT -j INPUT_direct\n-X INPUT_direct\nCOMMIT\n*nat\n-D PREROUTING -j PREROUTING_direct\n-X PREROUTING_direct\nCOMMIT\n")
    carried.state()
    # Its panic mode.
    carried.run(f"{front}-restore -w -n", 0, stdin=b"*mangle\n-P INPUT DROP\n-P OUTPUT DROP\nCOMMIT\n")
    carried.run(f"{front} -t mangle -S", 0)


def test_packets(scene):
    """A file that is loaded is in force: a service's address leads to the one that serves it, and what is not for it does
    not pass."""
    import packets as p

    scene.run("iptables-restore", 0, stdin=f"*nat\n:svc - [0:0]\n-A PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -j svc\n-A svc -p udp -j DNAT --to-destination {p.BEYOND4}:2000\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -d {p.BEYOND4}/32 -p udp -m udp --dport 2000 -j ACCEPT\nCOMMIT\n".encode())
    assert [(each.where) for each in scene.send(p.udp(source=p.PEER4, target="10.96.0.10", dport=53))] == ["right"]
    assert scene.send(p.udp(source=p.PEER4, target=p.BEYOND4, dport=2001)) == []


def test_what_the_kernel_lacks(carried):
    """A rule that takes what this kernel was not built with: the words of the backend, and the option in the journal."""
    kernel = os.popen("zcat /proc/config.gz").read()
    if "# CONFIG_NFT_QUEUE is not set" not in kernel:
        pytest.skip("this kernel lacks nothing that is known here")
    subject, place = carried.places[-1]
    size = os.path.getsize(subject.journal) if os.path.exists(subject.journal) else 0
    single = carried.call(subject, place, "iptables -t mangle -A PREROUTING -j NFQUEUE --queue-num 3".split())
    file = carried.call(subject, place, ["iptables-restore"], b"*filter\n-A INPUT -j ACCEPT\n-A INPUT -p tcp -j NFQUEUE --queue-num 3\n-A OUTPUT -j ACCEPT\nCOMMIT\n")
    if subject.variant == "nft":
        wanted = (4, b"iptables v1.8.9 (nf_tables):  RULE_APPEND failed (No such file or directory): rule in chain PREROUTING\n"), (4, b"iptables-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed (No such file or directory): rule in chain INPUT\n")
    else:
        wanted = (1, b"iptables: No chain/target/match by that name.\n"), (1, b"iptables-restore: line 5 failed\n")
    assert [(answer.rc, answer.err) for answer in (single, file)] == list(wanted)
    assert b"-A" not in carried.call(subject, place, ["iptables-save"]).out
    with open(subject.journal) as journal:
        journal.seek(size)
        told = [json.loads(line)["result"] for line in journal]
    assert len(told) == 2 and all("CONFIG_NFT_QUEUE is not set" in line for line in told) and told[1].startswith("line 3: "), told


ABSENT = """#!/bin/sh
# The real one, on a kernel that has no table nat.
name=${{0##*/}}
no() {{ echo "$1" >&2; exit "$2"; }}
case "$name $*" in
*-restore*)
    input=$(mktemp); trap 'rm -f "$input"' EXIT; cat >"$input"
    grep -q '^\\*nat' "$input" && no "iptables-restore v1.8.9 ({word}): iptables-restore: unable to initialize table 'nat'" 2
    {real} "$@" <"$input"; exit ;;
*-save*"-t nat"*) no "Cannot initialize: iptables who? (do you need to insmod?)" 1 ;;
*"-t nat"*) no "iptables v1.8.9 ({word}): can't initialize iptables table \\`nat': Table does not exist (do you need to insmod?)" 3 ;;
esac
exec {real} "$@"
"""


@pytest.fixture
def lame(variant, original, program, beside, tmp_path):
    """An original, and ours over the same less its table nat, with nothing said in the configuration about tables."""
    (tmp_path / "xtshim").symlink_to(program)
    directory = tmp_path / "backends"
    directory.mkdir()
    for family in FRONTS:
        for suffix in ("", "-save", "-restore"):
            path = directory / f"{family}-{variant}{suffix}"
            word = "legacy" if variant == "legacy" else "nf_tables"
            path.write_text(ABSENT.format(real=f"/usr/sbin/{path.name}", word=word))
            path.chmod(0o755)
            (tmp_path / f"{family}{suffix}").symlink_to("xtshim")
    config, journal = tmp_path / "xtshim.toml", tmp_path / "journal.jsonl"
    harness.configure(config, journal=journal, backends=directory)
    ours = harness.Subject(f"xtshim-{variant}-lame", variant, True, str(tmp_path), str(config), str(journal))
    return beside(original(variant), ours)


def test_one_table_that_the_backend_lacks(lame, front):
    """nat is carried and nothing else, whole files fall into their parts, and listings show them as one."""
    subject, place = lame.places[-1]
    lame.run(f"{front} -A OUTPUT -p udp -j ACCEPT", 0)
    lame.run(f"{front} -t nat -A POSTROUTING -o eth1 -j MASQUERADE", 0)
    lame.run(f"{front} -t nat -S", 0)
    for name in ("all", "backwards", "twice", "comments"):
        lame.run(f"{front}-restore", 0, stdin=FILES[name])
        lame.state()
    for line in KUBE_SETUP:
        lame.run(f"{front} -w 5 {line}", 0)
    lame.run(f"{front}-restore -w 5 --noflush --counters", 0, stdin=KUBE.format(**KUBE_VALUES[front]).encode())
    lame.state()
    lame.run(f"{front}-restore", stdin=FILTER + b"*nat\n-A missing -j DROP\nCOMMIT\n" + MANGLE.replace(b"0x5", b"0x6"))
    lame.state()
    with place.entered():
        tables = harness.execute(["nft", "list", "tables"]).out.decode().splitlines()
    assert [line for line in tables if "xtshim" in line] == [f"table {'ip' if front == 'iptables' else 'ip6'} xtshim-nat"]
    told = [json.loads(line) for line in open(subject.journal)]
    assert {record["table"] for record in told} == {"nat"} and all("Table does not exist" in record["why"] for record in told), told[0]
    probed = lame.call(subject, place, ["xtshim", "probe"]).out.decode()
    assert f"ip  nat      missing  nft: " in probed and "ip  filter   yes      backend\n" in probed, probed
