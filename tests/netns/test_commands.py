"""Every command on raw, one after the other, as iptables does it: exit code, both streams, and what is in force."""

import pytest

import packets

FAMILIES = ("iptables", "ip6tables")
HOSTS = {"iptables": ("10.0.0.1", "10.0.0.2", "192.0.2.0/24"), "ip6tables": ("2001:db8::1", "2001:db8::2", "2001:db8:1::/64")}
LISTINGS = (
    "-S", "-S PREROUTING", "-S PREROUTING 1", "-S -v", "-L", "-L -n", "-L -v", "-nvL", "-L -n -v -x", "-L -n --line-numbers",
    "-nvxL --line-numbers", "-L PREROUTING -n", "-L OUTPUT", "-L PREROUTING 1 -n", "-nL PREROUTING 2 --line-numbers", "-L -x",
)


@pytest.fixture(params=FAMILIES)
def raw(request, both):
    """`raw("-A …", rc=0)`: a command on raw of one family, on both sides."""

    def run(arguments, rc=None, **more):
        return both.run(f"{request.param} -t raw {arguments}", rc, **more)

    run.front, run.both, run.hosts = request.param, both, HOSTS[request.param]
    return run


def look(raw):
    for listing in LISTINGS:
        raw(listing)


def test_untouched(raw):
    look(raw)
    raw("-S OUTPUT", 0)
    raw("-F", 0)
    raw("-Z", 0)
    raw("-X", 0)
    raw.both.state()


def test_append_insert_replace_delete(raw):
    one, two, net = raw.hosts
    raw(f"-A PREROUTING -s {one} -j DROP", 0)
    raw(f"-A PREROUTING -d {two} -i eth0 -j ACCEPT", 0)
    raw(f"-I PREROUTING -s {net} -j RETURN", 0)
    raw(f"-I PREROUTING 2 -p tcp --dport 80 -j DROP", 0)
    raw(f"-I PREROUTING 5 -p udp --sport 53 -j ACCEPT", 0)
    look(raw)
    raw(f"-R PREROUTING 3 ! -s {one} ! -i lo -j DROP", 0)
    raw(f"-C PREROUTING ! -s {one} ! -i lo -j DROP", 0)
    raw(f"-C PREROUTING -s {one} -j DROP", 1)
    look(raw)
    raw("-D PREROUTING 2", 0)
    raw(f"-D PREROUTING -d {two} -i eth0 -j ACCEPT", 0)
    raw(f"-D PREROUTING -d {two} -i eth0 -j ACCEPT", 1)
    look(raw)
    raw.both.state()
    raw("-F PREROUTING", 0)
    look(raw)
    raw.both.state()


def test_long_and_abbreviated_options(raw):
    one, two, net = raw.hosts
    raw(f"--append PREROUTING --source {one} --destination {two} --in-interface eth+ --protocol tcp --jump DROP", 0)
    raw(f"--app OUTPUT --src {one} --dst {two} --out-interface eth0 --proto udp --jum ACCEPT", 0)
    raw(f"--ins OUTPUT 1 --sou {one} --goto nowhere")
    raw("--list --numeric --verbose --exact --line-numbers", 0)
    raw("--list-r OUTPUT", 0)
    raw("--vers", 0)
    raw(f"--check PREROUTING -s {one} -d {two} -i eth+ -p tcp -j DROP", 0)
    raw("--del OUTPUT 1", 2)  # or --delete-chain
    raw("--delete OUTPUT 1", 0)
    raw(f"--fl", 0)
    raw.both.run(f"{raw.front} -A OUTPUT -t raw -w -j ACCEPT", 0)
    raw.both.run(f"{raw.front} -w5 -A OUTPUT --table raw -j ACCEPT", 0)
    raw.both.run(f"{raw.front} --wait=5 -A OUTPUT -traw -j ACCEPT")
    raw.both.run(f"{raw.front} --wait 5 -A OUTPUT --table=raw -j ACCEPT", 0)
    raw("-nvL", 0)
    raw("-Lnv")
    raw.both.state()


def test_user_chains(raw):
    one, two, _ = raw.hosts
    raw("-N zeta", 0)
    raw("-N alpha", 0)
    raw("-N Beta-1.x", 0)
    raw("-N alpha", 1)
    raw(f"-A zeta -s {one} -j RETURN", 0)
    raw("-A PREROUTING -j zeta", 0)
    raw("-A PREROUTING -p tcp -j zeta", 0)
    raw(f"-A OUTPUT -d {two} -g alpha", 0)
    raw("-A alpha -j zeta", 0)
    raw("-A zeta", 0)
    look(raw)
    raw("-L zeta -n -v", 0)
    raw("-S alpha", 0)
    raw.both.state()
    raw("-X zeta")
    raw("-X PREROUTING")
    raw("-E zeta omega", 0)
    raw("-E alpha omega", 1)
    raw("-E missing other", 1)
    raw("-C PREROUTING -j omega", 0)
    raw("-C PREROUTING -j zeta")
    look(raw)
    raw.both.state()
    raw("-D PREROUTING -j omega", 0)
    raw("-F omega", 0)
    if raw.both.subject.variant == "legacy":
        raw("-X")  # iptables-nft names the one that fails in an order of its own
    raw("-F", 0)
    raw("-X alpha", 0)
    raw("-X alpha", 1)
    raw("-X", 0)
    look(raw)
    raw.both.state()


def test_policies(raw):
    raw("-P PREROUTING DROP", 0)
    raw("-S", 0)
    raw("-L -n -v", 0)
    raw("-P OUTPUT DROP", 0)
    raw.both.state()
    raw("-N mine", 0)
    raw("-P PREROUTING ACCEPT", 0)
    raw("-P OUTPUT ACCEPT -c 7 9")  # the last change: each sets policies' counters to 0 in iptables-legacy
    raw("-P PREROUTING RETURN")
    raw("-P PREROUTING nonsense")
    raw("-P mine DROP")
    raw("-P INPUT DROP")
    raw("-P missing ACCEPT")
    raw("-nvL", 0)
    raw.both.state(counters=True)


def test_policies_of_chains_that_nobody_spoke_of(raw):
    """iptables-legacy counts in all of them from the first command on."""
    raw("-A PREROUTING -p tcp -j ACCEPT", 0)
    raw.both.each(lambda _: packets.udp_over_lo(4 if raw.front == "iptables" else 6, 4000))
    raw("-nvxL OUTPUT", 0)
    raw("-vS", 0)


def test_address_lists_expand(raw):
    one, two, net = raw.hosts
    raw(f"-A PREROUTING -s {one},{two} -d {net},{one} -j DROP", 0)
    raw("-S", 0)
    raw(f"-I PREROUTING -s {one},{net} -j ACCEPT", 0)
    raw(f"-I PREROUTING 2 -d {one},{two} -j RETURN", 0)
    raw("-S", 0)
    raw(f"-C PREROUTING -s {one},{net} -j ACCEPT", 0)
    raw(f"-C PREROUTING -s {one},{two} -j ACCEPT", 1)
    raw(f"-R PREROUTING 1 -s {one},{two} -j DROP")
    raw(f"-D PREROUTING -s {one},{two} -d {net},{one} -j DROP", 0)
    raw("-S", 0)
    raw(f"-D PREROUTING -s {one},{two} -j ACCEPT")
    raw(f"-A PREROUTING ! -s {one},{two} -j ACCEPT", 2)
    raw("-S", 0)
    raw.both.state()


def test_address_forms(both):
    for address in (
        "10", "10.1/16", "10.0.0.0/255.0.0.0", "10.0.3.0/255.0.255.0", "0.0.0.0/0", "10.1.2.3/24", "127.1", "010.1.1.1", "0x0a000001",
        "10.0.0.1/33", "10.0.0.256", "10.0.0.1/", "10.0.0.0/0.0.0.255", "loopback", "10.0.0.1, 10.0.0.2", "10.0.0.1,", "localhost",
        "255.255.255.255", "0/1", "1.2.3.4/0x", "1.2.3.4/255.255.255.254",
    ):
        both.run(["iptables", "-t", "raw", "-A", "PREROUTING", "-s", address])
        if address != "0.0.0.0/0":  # iptables-nft 1.8.9 cannot say "no address at all": EINVAL, where legacy takes it
            both.run(["iptables", "-t", "raw", "-A", "OUTPUT", "!", "-d", address, "-j", "DROP"])
    both.run("iptables -t raw -S")
    both.run("iptables -t raw -nL")
    for address in (
        "::1", "::/0", "2001:db8::/32", "2001:DB8:0:0::1", "::ffff:10.0.0.1", "::10.0.0.1", "::1:0/112", "fe80::1/ffff:ffff::", "fe80::/ffff::ffff", "::1/129", "1.2.3.4", "2001:db8::g", "::1,::2", "2001:db8::1/64",
    ):
        both.run(["ip6tables", "-t", "raw", "-A", "PREROUTING", "-s", address])
        if address != "::/0":
            both.run(["ip6tables", "-t", "raw", "-A", "OUTPUT", "!", "-d", address, "-j", "DROP"])
    both.run("ip6tables -t raw -S")
    both.run("ip6tables -t raw -nL")
    both.run("ip6tables -t raw -L -v -n -x")
    both.state()


def test_interfaces(raw):
    for name in ("eth0", "eth+", "+", "a", "br-lan137", "exactlyfifteen1", "sixteencharacter", "with space", "with/slash", "", "star*", "ünï", "eth0.5", "veth@x"):
        for option in ("-i", "! -i"):
            raw.both.offer([raw.front, "-t", "raw", "-A", "PREROUTING", *option.split(), name])
        raw.both.offer([raw.front, "-t", "raw", "-A", "OUTPUT", "-o", name, "-j", "DROP"])
    raw("-S", 0)
    raw("-nvL", 0)
    raw.both.state()


def test_protocols(raw):
    for name in ("tcp", "udp", "icmp", "icmpv6", "ipv6-icmp", "icmp6", "6", "0x11", "017", "all", "ip", "0", "gre", "sctp", "esp", "ah", "udplite", "dccp", "mh", "ipv6-mh", "ospf", "132", "255", "256", "-1", "TCP", "Udp", "nonsense", "", "41", "ipip", "igmp", "253"):
        raw.both.run([raw.front, "-t", "raw", "-A", "PREROUTING", "-p", name])
        raw.both.run([raw.front, "-t", "raw", "-A", "OUTPUT", "!", "-p", name, "-j", "ACCEPT"])
    raw("-S", 0)
    raw("-L", 0)
    raw("-nL", 0)
    raw("-nvL", 0)
    raw.both.state()


def test_fragments(both):
    both.run("iptables -t raw -A PREROUTING -f -j DROP", 0)
    both.run("iptables -t raw -A PREROUTING ! -f -j ACCEPT", 0)
    both.run("iptables -t raw -A OUTPUT --fragment -d 10.0.0.1 -j DROP", 0)
    both.run("ip6tables -t raw -A PREROUTING -f -j DROP")
    for listing in LISTINGS:
        both.run(f"iptables -t raw {listing}")
    both.run("iptables -t raw -C PREROUTING -f -j DROP", 0)
    both.run("iptables -t raw -D PREROUTING ! -f -j ACCEPT", 0)
    both.state()


def keeps_counters(raw):
    if (raw.front, raw.both.subject.variant) == ("ip6tables", "nft"):
        pytest.skip("ip6tables-nft 1.8.9 loses given counters, see the changes of 1.8.10")


def test_given_counters(raw):
    keeps_counters(raw)
    one, two, _ = raw.hosts
    raw(f"-A PREROUTING -s {one} -c 3 300 -j DROP", 0)
    raw(f"-A PREROUTING -s {two} -j DROP -c 99999 100000", 0)
    raw(f"-A PREROUTING -p tcp -c 9999999 123456789012", 0)
    raw(f"-A PREROUTING -p udp --set-counters 5,6 -j ACCEPT", 0)
    raw(f"-A PREROUTING -c 5 -j ACCEPT")
    raw(f"-A PREROUTING -c x y -j ACCEPT")
    raw(f"-A PREROUTING -c 18446744073709551615 18446744073709551615 -j ACCEPT")
    raw("-nvL", 0)
    raw("-nvxL", 0)
    raw("-vS", 0)
    raw(f"-I PREROUTING 2 -c 12 34 -j RETURN", 0)
    raw(f"-R PREROUTING 1 -s {one} -c 8 9 -j ACCEPT")
    raw("-vS", 0)
    raw.both.state(counters=True)
    raw("-Z PREROUTING 1", 0)
    raw("-vS", 0)
    raw("-Z PREROUTING", 0)
    raw("-vS", 0)
    raw.both.state(counters=True)


def test_live_counters(raw):
    family = 4 if raw.front == "iptables" else 6
    raw("-A OUTPUT -p udp --dport 4000 -j ACCEPT", 0)
    raw("-A OUTPUT -p udp --dport 4001 -j DROP", 0)
    raw("-N mine", 0)
    raw("-A mine -p udp --dport 4002", 0)
    raw("-A OUTPUT -j mine", 0)
    raw("-A PREROUTING -i lo -p udp", 0)

    def send(_):
        for port, times in ((4000, 3), (4001, 2), (4002, 4), (4003, 1)):
            for _ in range(times):
                packets.udp_over_lo(family, port, b"x" * 40)

    raw.both.each(send)
    for listing in ("-nvxL", "-vS", "-L -v -n -x -Z", "-nvxL", "-vS"):
        raw(listing, 0)
    raw.both.each(send)
    raw.both.state(counters=True)
    raw.both.policies_count = False  # each change sets them to 0 in iptables-legacy
    raw("-I OUTPUT 1 -p udp -j ACCEPT", 0)
    raw("-D OUTPUT 2", 0)
    raw.both.each(send)
    raw("-nvxL", 0)
    raw("-L OUTPUT -Z -nvx", 0)
    raw("-S -Z", 0)
    raw("-nvxL", 0)
    raw("-Z OUTPUT 2", 0)
    raw.both.state(counters=True)


def test_policy_counters_and_verdict(raw):
    family = 4 if raw.front == "iptables" else 6
    raw("-P OUTPUT DROP", 0)
    raw("-A OUTPUT -p udp --dport 4000 -j ACCEPT", 0)

    def send(_):
        return [packets.udp_arrives_over_lo(family, 4000), packets.udp_arrives_over_lo(family, 4001)]

    for answer in raw.both.each(send):
        assert answer == [True, False]
    raw("-nvxL OUTPUT", 0)
    raw("-Z", 0)
    raw("-nvxL OUTPUT", 0)
    raw.both.state(counters=True)


def test_verbose_changes_talk(raw):
    one, two, _ = raw.hosts
    raw(f"-v -A PREROUTING -s {one} -j DROP", 0)
    raw(f"-v -I PREROUTING -p tcp --dport 80 -i eth0 ! -d {two} -j ACCEPT", 0)
    raw(f"-v -C PREROUTING -s {one} -j DROP", 0)
    raw(f"-v -D PREROUTING -s {one} -j DROP", 0)
    raw(f"-v -R PREROUTING 1 -s {one} -j DROP", 0)
    raw("-v -D PREROUTING 1", 0)
    raw("-v -N mine")
    raw("-v -F", 0)
    # iptables-nft tells of the chains that it has made, which are more.
    raw("-v -Z" if raw.both.subject.variant == "legacy" else "-Z", 0)
    raw("-v -E mine yours")
    raw("-v -P OUTPUT DROP")
    raw("-v -X", 0)
    raw.both.state()


def test_same_rule_twice(raw):
    one, *_ = raw.hosts
    for _ in range(3):
        raw(f"-A PREROUTING -s {one} -j DROP", 0)
    raw("-A PREROUTING -j ACCEPT", 0)
    raw(f"-D PREROUTING -s {one} -j DROP", 0)
    raw("-S", 0)
    raw(f"-D PREROUTING -s {one} -j DROP", 0)
    raw(f"-D PREROUTING -s {one} -j DROP", 0)
    raw(f"-D PREROUTING -s {one} -j DROP", 1)
    raw("-S", 0)


def test_what_a_command_did_not_look_at_is_left_alone(raw):
    """Several rules put in or taken out by one command, rules that become several of nf_tables, and rules with long texts."""
    one, two, net = raw.hosts
    kept = f"-s {net} -j ACCEPT"
    parts = "-p tcp -m multiport ! --ports 80,443 -m conntrack ! --ctstate INVALID,NEW --ctorigsrcport 5:80 -j DROP"
    long = f"-s {one} -m comment --comment '{'long text ' * 27}' -j DROP"
    # A small table is read whole.
    many = "".join(f"-A many -m mark --mark {number} -j ACCEPT\n" for number in range(80))
    raw.both.run(f"{raw.front}-restore --noflush", 0, stdin=f"*raw\n:many - [0:0]\n{many}COMMIT\n".encode())
    raw("-N other", 0)
    raw("-A other -m mark --mark 0x1 -j DROP", 0)
    raw(f"-A PREROUTING {kept}", 0)
    for rule in (f"-s {one},{two} -j DROP", parts, long):
        for put in ("-A PREROUTING", "-I PREROUTING", "-I PREROUTING 2", "-A other", "-I other"):
            raw(f"{put} {rule}", 0)
        raw("-S PREROUTING", 0)
        raw("-S", 0)
        raw(f"-C PREROUTING {rule}", 0)
        raw(f"-D PREROUTING {rule}", 0)
        raw("-S", 0)
        raw(f"-D other {rule}", 0)
        raw(f"-D other {rule}", 0)
        raw(f"-D other {rule}", 1)
        raw(f"-C other {rule}", 1)
        raw("-S", 0)
    raw.both.state()
    raw("-D PREROUTING 2", 0)
    raw(f"-C PREROUTING {kept}", 0)
    raw("-C other -m mark --mark 0x1 -j DROP", 0)
    raw("-S", 0)
    raw.both.state()


def test_replace_keeps_place_and_counts_anew(raw):
    keeps_counters(raw)
    raw("-A OUTPUT -p tcp -c 5 6 -j ACCEPT", 0)
    raw("-A OUTPUT -p udp -c 7 8 -j ACCEPT", 0)
    raw("-R OUTPUT 1 -p icmp -j DROP")
    raw("-R OUTPUT 1 -p sctp -j DROP", 0)
    raw("-R OUTPUT 3 -p tcp -j DROP", 1)
    raw("-R OUTPUT 0 -p tcp -j DROP")
    raw("-vS", 0)
    raw.both.state(counters=True)


def test_other_tables_pass_through(both):
    for table in ("filter", "nat", "mangle", "security"):
        both.run(f"iptables -t {table} -N mine", 0)
        both.run(f"iptables -t {table} -A mine -p tcp --dport 80 -m comment --comment 'a b' -j RETURN", 0)
        both.run(f"iptables -t {table} -A OUTPUT -j mine", 0)
        both.run(f"iptables -t {table} -S", 0)
        both.run(f"iptables -t {table} -nvL", 0)
        both.run(f"iptables -t {table} -X mine")
    both.run("iptables -A INPUT -m string --algo bm --string x -j DROP")
    both.run("iptables -S", 0)
    both.run("iptables -t nonsense -S")
    both.run("iptables -t raw -A OUTPUT -j NOTRACK", 0)
    both.state()
