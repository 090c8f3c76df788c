"""Refusals on raw: the message and the exit code are the backend's, and nothing has changed."""

import shlex

import pytest

import harness

# Not here is what an original takes though it makes no sense, and ours refuses: -E of a built-in chain (renamed in
# earnest by iptables-nft 1.8.9), `! -p tcp --dport`, -c with three numbers, a burst of 0, reversed ranges,
# --limit-iface-out before routing.
PLACE = (
    # chains
    "-A missing -j DROP", "-I missing 1 -j DROP", "-I missing -j DROP", "-D missing 1", "-D missing -j DROP", "-C missing -j DROP", "-R missing 1 -j DROP",
    "-F missing", "-Z missing", "-X missing", "-L missing", "-S missing", "-nL missing 3", "-E missing there", "-E mine mine", "-E mine PREROUTING",
    "-N mine", "-N PREROUTING", "-N DROP", "-N LOG", "-N -dash", "-N ''", "-N !bang", "-N 'two words'", "-N abcdefghijklmnopqrstuvwxyz0123", "-N abcdefghijklmnopqrstuvwxyz012",
    "-N abcdefghijklmnopqrstuvwxyz01", "-X PREROUTING", "-X busy", "-X full", "-X", "-A INPUT -j DROP", "-A FORWARD -j DROP", "-L POSTROUTING", "-N",
    # places
    "-D PREROUTING 9", "-D PREROUTING 0", "-D PREROUTING -1", "-R PREROUTING 9 -j DROP", "-I PREROUTING 9 -j DROP", "-I PREROUTING 0 -j DROP", "-I PREROUTING x -j DROP",
    "-D PREROUTING 1x", "-R PREROUTING -j DROP", "-R PREROUTING x -j DROP", "-Z PREROUTING 9", "-Z PREROUTING 0", "-L PREROUTING 9", "-S PREROUTING 9", "-D PREROUTING", "-D OUTPUT 1",
    "-I OUTPUT 2 -j DROP", "-R OUTPUT 1 -j DROP",
    # rules that are not there
    "-D PREROUTING -s 192.0.2.1 -j DROP", "-C PREROUTING -j RETURN", "-C PREROUTING -p udp --dport 1 -j DROP", "-C OUTPUT", "-C mine",
    # jumps
    "-A PREROUTING -j missing", "-A PREROUTING -g missing", "-A PREROUTING -g DROP", "-A PREROUTING -g ACCEPT", "-A mine -j mine", "-A full -j busy", "-A PREROUTING -j PREROUTING", "-A PREROUTING -j OUTPUT",
    "-A PREROUTING -j ''", "-A PREROUTING -j", "-A PREROUTING -j abcdefghijklmnopqrstuvwxyz0123", "-A PREROUTING -j DROP -j ACCEPT", "-A PREROUTING -j mine -g mine", "-A PREROUTING ! -j DROP",
    "-C PREROUTING -j missing", "-D PREROUTING -j missing", "-A PREROUTING -j nonsense --with option",
    "-A PREROUTING -j drop", "-A PREROUTING -j Log",
    # policies
    "-P PREROUTING", "-P PREROUTING REJECT", "-P PREROUTING accept", "-P mine DROP", "-P missing DROP", "-P INPUT DROP", "-P OUTPUT ''",
    # words
    "", "-A", "-A PREROUTING extra", "-A PREROUTING -j DROP extra", "extra", "-L PREROUTING 1 extra", "-A PREROUTING -A OUTPUT", "-A PREROUTING -L", "-L -F", "-L -Z", "-S -Z", "-F -L",
    "--nonsense", "-A PREROUTING --nonsense", "-A PREROUTING --dport 80", "-A PREROUTING --dport 80 -p tcp", "-A PREROUTING -p tcp --nonsense 5", "-q", "-A PREROUTING -q",
    "-A PREROUTING -p", "-A PREROUTING -s", "-A PREROUTING -i", "-A PREROUTING -m", "-A PREROUTING -p tcp --dport", "-A PREROUTING !", "-A PREROUTING ! ! -s 10.0.0.1", "-A PREROUTING -s ! 10.0.0.1",
    "-A PREROUTING ! -m tcp", "-A PREROUTING -m nonsense", "-A PREROUTING -m ''", "-A PREROUTING -m tcp", "-A PREROUTING -m tcp --dport 80", "-A PREROUTING -p udp -m tcp", "-A PREROUTING -p udp -m tcp --dport 80", "-A PREROUTING -p tcp -m udp --dport 80",
    "-A PREROUTING -s 10.0.0.1 -s 10.0.0.2", "-A PREROUTING -p tcp -p udp", "-A PREROUTING -i a -i b", "-A PREROUTING -p all --dport 80", "-A PREROUTING ! -p all",
    "-A PREROUTING -p tcp --dport 80 --dport 81", "-A PREROUTING --in eth0", "-A PREROUTING --d 10.0.0.1", "-A PREROUTING -ptcp", "-A PREROUTING -s10.0.0.1", "-A PREROUTING -jDROP", "-A PREROUTING --jump=DROP", "-APREROUTING -j DROP",
    "-nA PREROUTING -j DROP", "-xA PREROUTING", "-n -A PREROUTING -j DROP", "-A PREROUTING --line-numbers", "-S -n", "-S -x", "-F -n", "-N other -j DROP", "-N other -s 10.0.0.1", "-L -s 10.0.0.1", "-L -j DROP", "-P OUTPUT DROP -s 10.0.0.1",
    "-F -c 1 2", "-A PREROUTING -c 1", "-A PREROUTING -c", "-A PREROUTING -c a b", "-A PREROUTING -c 1 b", 
    "-A PREROUTING -o eth0 -j DROP", "-A OUTPUT -i eth0 -j DROP", "-A mine -i eth0 -o eth1 -j DROP", "-w x -S", "-W 5 -S", "-w -W 1000 -S", "-4 -S", "-6 -S", "-4 -A PREROUTING -j DROP", "-6 -A PREROUTING -j DROP",
    # values
    "-A PREROUTING -p tcp --dport nonsense", "-A PREROUTING -p tcp --dport 65536", "-A PREROUTING -p tcp --dport 80:70", "-A PREROUTING -p tcp --dport ''", "-A PREROUTING -p tcp --dport 80:", "-A PREROUTING -p tcp --dport :80",
    "-A PREROUTING -p tcp --dport -1", "-A PREROUTING -p tcp --dport 80,81", "-A PREROUTING -p tcp --dport 1:2:3", "-A PREROUTING -p tcp --dport http", "-A PREROUTING -p tcp --dport ! 80", "-A PREROUTING -p udp --sport domain:ntp",
    "-A PREROUTING -p nonsense", "-A PREROUTING -p 256", "-A PREROUTING -p -5", "-A PREROUTING -s nonsense.invalid", "-A PREROUTING -s 10.0.0.1/33", "-A PREROUTING -s 10.0.0.1/x", "-A PREROUTING -s ''", "-A PREROUTING -i sixteen-letters-", "-A PREROUTING -i ''",
    "-A PREROUTING -p tcp --tcp-flags SYN", "-A PREROUTING -p tcp --tcp-flags NONSENSE SYN", "-A PREROUTING -p tcp --tcp-flags SYN SYN,NOT", "-A PREROUTING -p tcp --tcp-option 0", "-A PREROUTING -p tcp --tcp-option 256", "-A PREROUTING -p tcp --syn --syn",
    "-A PREROUTING -m comment", "-A PREROUTING -m comment --comment", "-A PREROUTING -m multiport", "-A PREROUTING -m multiport --dports 80", "-A PREROUTING -p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
    "-A PREROUTING -p tcp -m multiport --dports", "-A PREROUTING -p tcp -m multiport --dports 80,x", "-A PREROUTING -p tcp -m multiport --dports 80:70", "-A PREROUTING -p icmp -m multiport --dports 80", "-A PREROUTING -p tcp -m multiport --dports 1 --sports 2",
    "-A PREROUTING -m addrtype", "-A PREROUTING -m addrtype --dst-type NONSENSE", "-A PREROUTING -m addrtype --dst-type LOCAL,NONSENSE", "-A PREROUTING -m addrtype --dst-type LOCAL --limit-iface-in --limit-iface-out", "-A OUTPUT -m addrtype --dst-type LOCAL --limit-iface-in",
    "-A PREROUTING -m conntrack", "-A PREROUTING -m conntrack --ctstate NONSENSE", "-A PREROUTING -m conntrack --ctstate", "-A PREROUTING -m conntrack --ctstatus NONSENSE", "-A PREROUTING -m conntrack --ctdir NONSENSE", "-A PREROUTING -m conntrack --ctproto nonsense", "-A PREROUTING -m conntrack --ctexpire x",
    "-A PREROUTING -m mark", "-A PREROUTING -m mark --mark x", "-A PREROUTING -m mark --mark 0x100000000", "-A PREROUTING -m mark --mark 1/x", "-A PREROUTING -m mark --mark 1 --mark 2",
    "-A PREROUTING -m limit --limit x", "-A PREROUTING -m limit --limit 0/s", "-A PREROUTING -m limit --limit 1/x", "-A PREROUTING -m limit --limit 100000/s", "-A PREROUTING -m limit --limit-burst 20000", "-A PREROUTING -m limit ! --limit 1/s",
    "-A PREROUTING -m pkttype", "-A PREROUTING -m pkttype --pkt-type nonsense", "-A PREROUTING -m mac", "-A PREROUTING -m mac --mac-source nonsense", "-A PREROUTING -m mac --mac-source 00:11:22:33:44", "-A OUTPUT -m mac --mac-source 00:11:22:33:44:55",
    "-A PREROUTING -m iprange", "-A PREROUTING -m iprange --src-range 10.0.0.1", "-A PREROUTING -m iprange --src-range nonsense", "-A PREROUTING -m length", "-A PREROUTING -m length --length x", "-A PREROUTING -m length --length 65536",
    "-A PREROUTING -p icmp --icmp-type nonsense", "-A PREROUTING -p icmp --icmp-type 256", "-A PREROUTING -p icmp --icmp-type 3/256", "-A PREROUTING -p icmp --icmp-type", "-A PREROUTING -p ipv6-icmp --icmpv6-type nonsense", "-A PREROUTING -m icmp --icmp-type 8",
    "-A PREROUTING -j LOG --log-level nonsense", "-A PREROUTING -j LOG --log-level 8", "-A PREROUTING -j LOG --log-prefix", "-A PREROUTING -j LOG --log-prefix ''", "-A PREROUTING -j LOG --log-prefix 123456789012345678901234567890", "-A PREROUTING -j LOG --nonsense",
    "-A PREROUTING -j NFLOG --nflog-group 65536", "-A PREROUTING -j NFLOG --nflog-group x", "-A PREROUTING -j NFLOG --nflog-range x", "-A PREROUTING -j NFLOG --nflog-threshold 0",
    "-A PREROUTING -j CT", "-A PREROUTING -j CT --zone x", "-A PREROUTING -j CT --zone 65536", "-A PREROUTING -j CT --notrack --zone 3", "-A PREROUTING -j NOTRACK --nonsense", "-A mine -j NOTRACK", "-A mine -j CT --zone 1",
    "-A PREROUTING -j MARK", "-A PREROUTING -j MARK --set-mark x", "-A PREROUTING -j MARK --set-mark 1 --and-mark 2", "-A PREROUTING -j MARK --set-xmark 1/x", "-A PREROUTING -j TRACE --nonsense", "-A PREROUTING -j ACCEPT --nonsense",
)


def prepare(both, front):
    for line in ("-N mine", "-N busy", "-N full", "-A full -j busy", "-A PREROUTING -p tcp -j ACCEPT", "-A PREROUTING -p udp -j DROP"):
        both.run(f"{front} -t raw {line}", 0)


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
def test_refusals(both, front):
    prepare(both, front)
    for line in PLACE:
        answer = both.run([front, "-t", "raw", *shlex.split(line)])
        if answer.rc == 0 and line.startswith("-A"):
            both.run([front, "-t", "raw", *shlex.split(line.replace("-A", "-D", 1))])
    both.run(f"{front} -t raw -nvL", 0)
    both.run(f"{front} -t raw -vS", 0)
    both.state(counters=True)


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
def test_refusals_before_anything_was_made(both, front):
    """The same where raw has never been touched."""
    for line in PLACE[:80]:
        if not line.startswith(("-A PREROUTING -j", "-N")):
            both.run([front, "-t", "raw", *shlex.split(line)])
    both.state()


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
def test_loops(both, front):
    for name in "abc":
        both.run(f"{front} -t raw -N {name}", 0)
    both.run(f"{front} -t raw -A a -j b", 0)
    both.run(f"{front} -t raw -A b -j c", 0)
    both.run(f"{front} -t raw -A c -j a")
    both.run(f"{front} -t raw -A PREROUTING -j a")
    both.run(f"{front} -t raw -A c -j a")
    both.run(f"{front} -t raw -A c -g a")
    both.run(f"{front} -t raw -I c -j c")
    both.run(f"{front} -t raw -S", 0)
    both.state()


@pytest.mark.parametrize("front", ("iptables", "ip6tables"))
def test_nothing_changes_on_failure(both, front):
    prepare(both, front)
    before = both.run(f"{front}-save -t raw -c", 0)
    for line in ("-A PREROUTING -s 10.0.0.1,nonsense.invalid -j DROP", "-A PREROUTING -j missing", "-I PREROUTING 9 -j DROP", "-R PREROUTING 9 -j DROP", "-X busy", "-E mine busy", "-P PREROUTING NONSENSE", "-N mine"):
        answer = both.run(f"{front} -t raw {line}")
        assert answer.rc != 0, line
    after = both.run(f"{front}-save -t raw -c", 0)
    assert harness.without_dates(before.out) == harness.without_dates(after.out)


def test_what_no_carrier_holds(both):
    """Rules beyond what can be carried are refused whole, with a word, by a code that no caller takes for success or for
    "no such rule" of -C; here the original's words are not asked for."""
    for rule in ("-j MASQUERADE", "-j REJECT", "-j DNAT --to-destination 1.2.3.4", "-m string --string x --algo bm -j DROP", "-m recent --set", "-m owner --uid-owner 0", "-m set --match-set x src", "-j IDLETIMER --timeout 5 --label x"):
        for subject, place in both.places:
            look = lambda: both.call(subject, place, ["iptables", "-t", "raw", "-S"]).out
            before = look()
            answer = both.call(subject, place, ["iptables", "-t", "raw", "-A", "PREROUTING", *rule.split()])
            both.history.append(rule)
            if subject.ours and (answer.rc == 0 or not answer.err or look() != before):
                both.fault(f"{subject.name}: not a clean refusal", answer.text())


def test_help_and_version(both):
    for front in ("iptables", "ip6tables"):
        for line in ("-V", "--version", "-h", "-t raw -V", "-t raw -h", "-p tcp -h", "-t raw -m comment -h", "-j LOG -h", "-t raw -j CT -h"):
            both.run(f"{front} {line}")
    for front in ("iptables-save", "iptables-restore"):
        for line in ("-V", "--version", "-h", "--nonsense", "-t nonsense", "extra"):
            both.run(f"{front} {line}", stdin=b"")
