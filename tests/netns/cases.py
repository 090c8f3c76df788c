"""Rules of every extension that raw may carry, as a user may write them."""

# Each entry: extension -> rules for both families. Chains by the option used: `-o` and OUTPUT for what only that may say.
BOTH = {
    "plain": (
        "", "-j ACCEPT", "-j DROP", "-j RETURN", "-i eth0 -j DROP", "! -i docker0 -j DROP", "-i eth+ -j DROP", "! -i eth+ -j ACCEPT", "-p tcp", "! -p tcp -j DROP", "-p 253 -j DROP",
        "-p esp -j ACCEPT", "-p udplite -j ACCEPT", "-p sctp", "-p 41",
    ),
    "tcp": (
        "-p tcp -m tcp", "-p tcp --dport 80", "-p tcp --sport 80", "-p tcp ! --dport 80 -j DROP", "-p tcp ! --sport 1:1023", "-p tcp --dport 1024:", "-p tcp --dport :1023", "-p tcp --dport 0:65535", "-p tcp --dport 7:7",
        "-p tcp --sport 1:2 --dport 3:4 -j DROP", "-p tcp -m tcp --destination-port 443", "-p tcp --source-port ssh --destination-port http", "-p tcp --syn", "-p tcp ! --syn", "-p tcp --tcp-flags SYN,ACK SYN", "-p tcp --tcp-flags ALL NONE",
        "-p tcp --tcp-flags ALL ALL", "-p tcp ! --tcp-flags FIN,RST,PSH URG -j DROP", "-p tcp ! --tcp-flags FIN,RST FIN", "-p tcp --tcp-flags NONE NONE", "-p tcp --tcp-flags SYN NONE", "-p tcp --tcp-option 2", "-p tcp ! --tcp-option 7 -j DROP", "-p tcp --tcp-option 255",
        "-p tcp --dport 80 --syn --tcp-option 2 -j DROP", "-p tcp --dport 65535", "-p tcp --dport 0", "-p tcp ! --dport 0", "-p tcp ! --sport 0:65535",
    ),
    "udp": ("-p udp -m udp", "-p udp --dport 53", "-p udp --sport domain", "-p udp ! --dport 5000:6000 -j DROP", "-p udp --sport 0:1024 --dport 9", "-p udp --dport 0:65535", "-p udp ! --sport 0:65535", "-p udp --dport :5"),
    "multiport": (
        "-p tcp -m multiport --dports 80", "-p tcp -m multiport --dports 80,443", "-p udp -m multiport --sports 1:5,9,domain", "-p tcp -m multiport --ports 1,2:4", "-p tcp -m multiport ! --dports 80,443 -j DROP", "-p tcp -m multiport ! --ports 80 -j DROP",
        "-p udp -m multiport ! --sports 5:9", "-p sctp -m multiport --dports 3", "-p udplite -m multiport --ports 3,4", "-p dccp -m multiport --sports 3,4", "-p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "-p tcp -m multiport --dports 1:2,3:4,5:6,7:8,9:10,11:12,13:14,15",
        "-p tcp -m multiport --destination-ports http,https", "-p tcp -m multiport --source-ports 1 -m multiport --dports 2", "-p tcp -m multiport --dports 5,5,5", "-p tcp -m multiport --dports 1:10,5:20", "-p tcp -m multiport --dports 0:65535", "-p tcp --dport 80 -m multiport --sports 1,2 --syn",
    ),
    "addrtype": (
        "-m addrtype --dst-type LOCAL", "-m addrtype ! --dst-type LOCAL -j DROP", "-m addrtype --src-type UNICAST", "-m addrtype --src-type LOCAL --dst-type UNICAST", "-m addrtype --dst-type LOCAL,UNICAST", "-m addrtype ! --dst-type LOCAL,MULTICAST -j DROP",
        "-m addrtype --dst-type local", "-m addrtype --dst-type BLACKHOLE,UNREACHABLE,PROHIBIT", "-m addrtype --dst-type MULTICAST", "-m addrtype --dst-type BROADCAST,ANYCAST", "-m addrtype --dst-type LOCAL --limit-iface-in -j DROP", "-m addrtype --src-type UNSPEC", "-m addrtype --dst-type THROW,NAT,XRESOLVE",
    ),
    "conntrack": (
        "-m conntrack --ctstate NEW", "-m conntrack --ctstate RELATED,ESTABLISHED", "-m conntrack ! --ctstate INVALID -j DROP", "-m conntrack --ctstate UNTRACKED", "-m conntrack --ctstate DNAT", "-m conntrack --ctstate SNAT,DNAT", "-m conntrack --ctstate ESTABLISHED,DNAT", "-m conntrack ! --ctstate NEW,SNAT",
        "-m conntrack --ctstate new", "-m conntrack --ctproto tcp", "-m conntrack ! --ctproto 17", "-m conntrack --ctstatus ASSURED", "-m conntrack --ctstatus NONE", "-m conntrack --ctstatus EXPECTED,SEEN_REPLY", "-m conntrack ! --ctstatus CONFIRMED", "-m conntrack --ctexpire 5", "-m conntrack --ctexpire 1:9", "-m conntrack ! --ctexpire 7:",
        "-m conntrack --ctdir ORIGINAL", "-m conntrack --ctdir REPLY", "-m conntrack --ctorigsrcport 5", "-m conntrack --ctorigdstport 80:90", "-m conntrack ! --ctreplsrcport 5", "-m conntrack --ctrepldstport 1:1024", "-m conntrack --ctstate NEW --ctproto tcp --ctorigdstport 80 --ctdir ORIGINAL",
        "-m conntrack --ctstate NEW,ESTABLISHED,RELATED,INVALID,UNTRACKED",
    ),
    "comment": (
        "-m comment --comment plain", "-m comment --comment 'two words'", "-m comment --comment 'a \"quoted\" word'", "-m comment --comment \"it's\"", "-m comment --comment 'back\\slash'", "-m comment --comment ''", "-m comment --comment 'tab\there'", "-m comment --comment -x", "-m comment --comment '!'", "-m comment --comment 'ünï ☃'",
        "-m comment --comment " + "x" * 255, "-m comment --comment " + "y" * 256, "-m comment --comment " + "z" * 128, "-m comment --comment a -m comment --comment b -j DROP", "-p tcp --dport 80 -m comment --comment 'DOCKER: x; y' -j DROP", "-m comment --comment 'line\nbreak'", "-m comment --comment '/* no */'", "-m comment --comment '$x `y` #z'",
    ),
    "mark": ("-m mark --mark 1", "-m mark --mark 0x10/0xff", "-m mark ! --mark 0 -j DROP", "-m mark --mark 4294967295", "-m mark --mark 0xffffffff/0xffffffff", "-m mark ! --mark 5/7", "-m mark --mark 0/0", "-m mark --mark 017", "-m mark --mark 5/0", "-m mark --mark 0x100/0x1"),
    "limit": (
        "-m limit", "-m limit --limit 5/s", "-m limit --limit 1/min --limit-burst 9", "-m limit --limit 3/hour", "-m limit --limit 7/d", "-m limit --limit 10/second --limit-burst 1", "-m limit --limit 10000/s", "-m limit --limit-burst 10000", "-m limit --limit 5", "-m limit --limit 90/minute -j DROP", "-m limit --limit 61/min", "-m limit --limit 33/s",
        "-m limit --limit 1/sec -m limit --limit 2/min", "-m limit --limit 7/minute --limit-burst 8 -p tcp",
    ),
    "pkttype": ("-m pkttype --pkt-type unicast", "-m pkttype --pkt-type broadcast", "-m pkttype --pkt-type multicast -j DROP", "-m pkttype ! --pkt-type unicast", "-m pkttype --pkt-type host", "-m pkttype --pkt-type bcast", "-m pkttype --pkt-type mcast", "-m pkttype --pkt-type MULTICAST"),
    "mac": ("-m mac --mac-source 00:11:22:33:44:55", "-m mac ! --mac-source 02:00:00:00:00:02 -j DROP", "-m mac --mac-source AA:bb:CC:dd:EE:ff", "-m mac --mac-source 0:1:2:3:4:5"),
    "length": ("-m length --length 100", "-m length --length 20:1500", "-m length ! --length 64:", "-m length --length :128 -j DROP", "-m length --length 0:65535", "-m length --length 0", "-m length ! --length 0:65535", "-m length --length 5:5", "-m length --length 0x10"),
    "LOG": (
        "-j LOG", "-j LOG --log-level 7", "-j LOG --log-level warning", "-j LOG --log-level debug --log-prefix 'raw: '", "-j LOG --log-prefix x", "-j LOG --log-tcp-sequence -p tcp", "-j LOG --log-tcp-options --log-ip-options", "-j LOG --log-uid", "-j LOG --log-macdecode", "-j LOG --log-level 4", "-j LOG --log-level emerg --log-uid --log-macdecode",
        "-j LOG --log-prefix '12345678901234567890123456789'", "-j LOG --log-prefix 'with \"quotes\"'", "-j LOG --log-prefix \"it's\"", "-j LOG --log-level ERROR", "-j LOG --log-prefix 'semi; colon'",
    ),
    "NFLOG": ("-j NFLOG", "-j NFLOG --nflog-group 5", "-j NFLOG --nflog-prefix 'hello there'", "-j NFLOG --nflog-group 0 --nflog-threshold 20", "-j NFLOG --nflog-size 64", "-j NFLOG --nflog-range 64", "-j NFLOG --nflog-group 65535 --nflog-size 0", "-j NFLOG --nflog-prefix " + "p" * 63, "-j NFLOG --nflog-prefix " + "p" * 64, "-j NFLOG --nflog-threshold 1"),
    "NOTRACK": ("-j NOTRACK", "-i br-lan137 -j NOTRACK", "-p udp --dport 53 -j NOTRACK"),
    "CT": ("-j CT --notrack", "-p tcp --dport 80 -j CT --notrack", "-j CT --zone 5", "-j CT --zone 0", "-j CT --zone 65535", "-j CT --zone-orig 3", "-j CT --zone-reply 4", "-j CT --zone mark"),
    "TRACE": ("-j TRACE", "-p tcp --dport 80 -j TRACE"),
    "MARK": (
        "-j MARK --set-mark 1", "-j MARK --set-mark 0x10/0xff", "-j MARK --set-xmark 5", "-j MARK --set-xmark 0x1/0xf", "-j MARK --and-mark 0xff", "-j MARK --or-mark 0x80", "-j MARK --xor-mark 3", "-j MARK --set-mark 0", "-j MARK --set-mark 4294967295/0", "-j MARK --set-xmark 0/0xffffffff", "-j MARK --set-xmark 0/0",
    ),
    "mixed": (
        "-p tcp -m comment --comment first --dport 80 -m conntrack --ctstate INVALID -m limit --limit 1/s -j DROP", "-m conntrack --ctstate NEW -p udp -m multiport --dports 1,2 -m addrtype --dst-type LOCAL -j ACCEPT",
        "-m mark --mark 1 -m mark ! --mark 2 -j DROP", "-m length --length 1:99 -m pkttype --pkt-type unicast -j MARK --set-mark 7", "-m tcp -p tcp --dport 80 -j DROP", "-m udp --dport 80 -p udp", "-m comment --comment c -p tcp -m tcp -m mark --mark 9 --sport 9",
    ),
}
OUTPUT = {
    "plain": ("-o eth0 -j DROP", "! -o eth0 -j DROP", "-o lo+ -j ACCEPT", "-p tcp ! -o lo --dport 80 -j RETURN"),
    "addrtype": ("-m addrtype --src-type LOCAL --limit-iface-out", "-m addrtype ! --dst-type LOCAL --limit-iface-out -j DROP"),
    "NOTRACK": ("-j NOTRACK", "-o lo -j NOTRACK"),
    "CT": ("-j CT --notrack", "-j CT --zone 7"),
}
V4 = {
    "plain": ("-s 10.0.0.1 -j DROP", "-d 172.17.0.2 ! -i docker0 -j DROP", "-s 10.0.0.0/8 -d 192.168.0.0/16", "! -s 10.0.0.1 ! -d 10.0.0.2", "-f -j DROP", "! -f", "-s 10.0.3.0/255.0.255.0 -j ACCEPT", "-d 0.0.0.0/0 -j DROP", "-s 10.0.0.0/31", "-p icmp -j DROP"),
    "icmp": (
        "-p icmp -m icmp", "-p icmp --icmp-type 8", "-p icmp --icmp-type echo-request", "-p icmp --icmp-type echo-reply", "-p icmp --icmp-type ping", "-p icmp --icmp-type 3/4", "-p icmp --icmp-type fragmentation-needed", "-p icmp ! --icmp-type echo-request -j DROP", "-p icmp --icmp-type any", "-p icmp ! --icmp-type any", "-p icmp --icmp-type destination-unreachable",
        "-p icmp --icmp-type 3/0", "-p icmp --icmp-type 11/1", "-p icmp --icmp-type time-exceeded", "-p icmp --icmp-type redirect", "-p icmp --icmp-type 255", "-p icmp --icmp-type 8/0", "-p icmp --icmp-type ECHO-REQUEST", "-p icmp --icmp-type ttl-exceeded", "-p icmp --icmp-type 255/255", "-p icmp --icmp-type 40/4",
    ),
    "iprange": ("-m iprange --src-range 10.0.0.1-10.0.0.9", "-m iprange --dst-range 10.0.0.1-10.0.0.9", "-m iprange ! --src-range 10.0.0.1-10.0.0.9 --dst-range 192.168.0.1-192.168.0.5 -j DROP", "-m iprange --src-range 10.0.0.1", "-m iprange --src-range 0.0.0.0-255.255.255.255", "-m iprange ! --dst-range 10.0.0.5-10.0.0.5"),
    "conntrack": ("-m conntrack --ctorigsrc 10.0.0.1", "-m conntrack --ctorigdst 10.0.0.0/8", "-m conntrack ! --ctreplsrc 10.1.2.3", "-m conntrack --ctrepldst 192.168.0.0/255.255.0.0", "-m conntrack --ctorigsrc 10.0.3.0/255.0.255.0", "-m conntrack ! --ctorigdst 10.0.0.0/8 --ctorigdstport 80 -j DROP"),
    "docker": (
        "-p tcp -d 172.17.0.2 --dport 80 ! -i docker0 -j DROP", "-p tcp -d 127.0.0.1 --dport 9090 ! -i lo -j DROP", "-p tcp -d 127.0.0.1 --dport 9090 -i loopback0 -j ACCEPT", "-p udp -d 172.17.0.3 --dport 80 ! -i br-c28c01ecf067 -j DROP", "-p sctp -d 172.17.0.3 --dport 80 ! -i docker0 -j DROP",
    ),
}
V6 = {
    "plain": ("-s 2001:db8::1 -j DROP", "-d fd00:d0c::2 ! -i docker0 -j DROP", "-s 2001:db8::/32 -d fe80::/10", "! -s ::1 ! -d ::2", "-s ::/0 -j DROP", "-s 2001::/ffff:0:ffff:: -j DROP", "-p ipv6-icmp -j DROP", "-s ::ffff:10.0.0.1", "-s ::10.0.0.1 ! -d ::1:2/127", "-s ::1:0/ffff:ffff::1.0.0.1", "-p ipv6-frag", "-p ipv6-route", "-p ipv6-opts", "-p ipv6-nonxt", "-p mh", "-s 2001:db8::/127"),
    "icmpv6": (
        "-p ipv6-icmp -m icmp6", "-p icmpv6 --icmpv6-type 128", "-p ipv6-icmp --icmpv6-type echo-request", "-p icmp6 --icmpv6-type 1/4", "-p ipv6-icmp --icmpv6-type port-unreachable", "-p ipv6-icmp ! --icmpv6-type 135 -j DROP", "-p ipv6-icmp --icmpv6-type neighbour-solicitation", "-p ipv6-icmp --icmpv6-type neighbor-advertisement",
        "-p ipv6-icmp --icmpv6-type packet-too-big", "-p ipv6-icmp --icmpv6-type router-advertisement", "-p ipv6-icmp --icmpv6-type destination-unreachable", "-p ipv6-icmp --icmpv6-type 255", "-p ipv6-icmp -m icmpv6 --icmpv6-type 128", "-p ipv6-icmp --icmpv6-type ttl-exceeded", "-p ipv6-icmp --icmpv6-type 128/0", "-p ipv6-icmp --icmpv6-type 1/0",
    ),
    "iprange": ("-m iprange --src-range 2001:db8::1-2001:db8::9", "-m iprange --dst-range ::1-::ffff", "-m iprange --dst-range ::1:0-::2:ffff", "-m iprange ! --src-range fe80::1-fe80::2 --dst-range ::-::9 -j DROP", "-m iprange ! --dst-range ::5-::5"),
    "conntrack": ("-m conntrack --ctorigsrc 2001:db8::1", "-m conntrack ! --ctorigdst 2001:db8::/32", "-m conntrack --ctrepldst fe80::/10 --ctreplsrcport 5"),
    "docker": ("-p tcp -d fd00:d0c::2 --dport 80 ! -i br-9ac42b4d2381 -j DROP", "-p tcp -d ::1 --dport 9090 ! -i lo -j DROP"),
}


def rules(front):
    """(extension, chain, rule) of one family."""
    own = V4 if front == "iptables" else V6
    for chain, table in (("PREROUTING", BOTH), ("PREROUTING", own), ("OUTPUT", OUTPUT)):
        for extension, lines in table.items():
            for line in lines:
                yield extension, chain, line
