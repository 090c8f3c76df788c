//! Names and texts that nft syntax can hold. `nft list ruleset` prints them bare or between quotes, without escapes,
//! and a saved ruleset that is loaded again must neither run nor fail on them.

#![forbid(unsafe_code)]

/// Words that some nft takes for something else where a chain's name stands.
///
/// Measured, as the union over nft 0.9.8, 1.0.6, 1.1.3 and 1.1.7: every word of the manual pages of nft, libnftables-json
/// and iptables of those versions, and every sequence of one to three small letters, was tried as `chain WORD { counter }`
/// within a table, through `nft -c -f -`. As the target of a jump or goto, in `add chain`, `add rule` and `flush chain`,
/// nothing else failed (0.9.8 and 1.0.6). 3000 random names of the pattern below all loaded in each version. In order.
#[rustfmt::skip]
const KEYWORDS: [&str; 305] = [
    "accept", "ackseq", "add", "addr", "ah", "all", "and", "arp", "auto-merge", "avgpkt", "bridge", "burst",
    "bypass", "bytes", "cfi", "cgroup", "chain", "chains", "checksum", "classid", "code", "comment", "comp",
    "constant", "continue", "count", "counter", "counters", "cpi", "cpu", "create", "ct", "daddr", "day", "dccp",
    "define", "delete", "describe", "destroy", "device", "devices", "direction", "dnat", "doff", "dport", "drop",
    "dscp", "dst", "dup", "dynamic", "echo", "ecn", "element", "elements", "eol", "eq", "esp", "ether", "event",
    "exists", "expectation", "expiration", "expires", "export", "exthdr", "fanout", "fib", "flags", "flow",
    "flowlabel", "flowtable", "flowtables", "flush", "frag", "frag-off", "fully-random", "fwd", "gateway",
    "gc-interval", "ge", "geneve", "get", "goto", "gre", "gretap", "group", "gt", "handle", "hbh", "hdrlength",
    "helper", "helpers", "hlen", "hook", "hoplimit", "hour", "htype", "ibriport", "ibrname", "icmp", "icmpv6",
    "icmpx", "id", "igmp", "iif", "iifgroup", "iifname", "iiftype", "import", "in", "inc", "include", "index",
    "inet", "insert", "interval", "ip", "ip6", "ipsec", "jhash", "json", "jump", "kind", "l3proto", "label", "le",
    "left", "length", "level", "limit", "limits", "list", "ll", "log", "lshift", "lsrr", "lt", "map", "maps",
    "mark", "masquerade", "max-delay", "maxseg", "memory", "meta", "meter", "meters", "mh", "millisecond", "minute",
    "missing", "mod", "mode", "monitor", "more-fragments", "mrt", "mss", "mtu", "name", "ne", "netdev", "nexthdr",
    "nexthop", "nftrace", "nh", "nop", "not", "notrack", "num", "numgen", "obriport", "obrname", "offload",
    "offset", "oif", "oifgroup", "oifname", "oiftype", "operation", "option", "options", "or", "original", "osf",
    "out", "over", "packets", "pcp", "performance", "persistent", "pkttype", "plen", "policy", "port", "position",
    "prefix", "priority", "proto-dst", "proto-src", "protocol", "ptr", "ptype", "queue", "queue-threshold", "quota",
    "quotas", "ra", "random", "rate", "redefine", "redirect", "reject", "rename", "replace", "reply", "reqid",
    "reserved", "reset", "return", "right", "rr", "rshift", "rt", "rt0", "rtclassid", "rule", "rules", "ruleset",
    "sack", "sack-perm", "sack-permitted", "sack0", "sack1", "sack2", "sack3", "saddr", "sctp", "secmark",
    "secmarks", "second", "seed", "seg-left", "sequence", "set", "sets", "sid", "size", "skgid", "skuid", "snaplen",
    "snat", "socket", "spi", "spnum", "sport", "srh", "ssrr", "state", "status", "symhash", "synproxy", "synproxys",
    "table", "tables", "tag", "tcp", "th", "time", "timeout", "timestamp", "to", "tproxy", "trace", "transparent",
    "transport", "tsecr", "tsval", "ttl", "tunnel", "type", "typeof", "udp", "udplite", "undefine", "until",
    "update", "urgptr", "used", "value", "version", "vlan", "vm", "vmap", "vni", "vtag", "vxlan", "week",
    "wildcard", "window", "with", "wscale", "xml", "xor", "xt", "zone",
];

/// NFT_NAME_MAXLEN (linux/netfilter/nf_tables.h) holds a NUL as well.
const NAME_LIMIT: usize = 255;

/// nft(8), COMMENTS: 128 bytes with the NUL.
const COMMENT_LIMIT: usize = 127;

/// NF_LOG_PREFIXLEN (linux/netfilter/nf_log.h) holds a NUL as well.
const LOG_PREFIX_LIMIT: usize = 127;

/// IFNAMSIZ (linux/if.h) holds a NUL as well.
const INTERFACE_LIMIT: usize = 15;

/// Whether nft syntax can hold a chain's name: `[A-Za-z_][A-Za-z0-9_/.-]*` and no keyword.
pub fn chain_name_ok(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'.' | b'-'));
    first && rest && name.len() <= NAME_LIMIT && KEYWORDS.binary_search(&name).is_err()
}

/// Whether nft can print a comment so that it reads it back: printable ASCII without `"` and `\`, at most 127 bytes.
pub fn comment_ok(comment: &str) -> bool {
    !comment.is_empty() && comment.len() <= COMMENT_LIMIT && is_plain(comment)
}

/// Whether nft can print a log prefix so that it reads it back: printable ASCII without `"`, and without `$`, which is
/// taken for a variable. Every printable character was tried at each place with the versions above.
pub fn log_prefix_ok(prefix: &str) -> bool {
    prefix.len() <= LOG_PREFIX_LIMIT
        && prefix.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'$'))
}

/// Whether nft can print the name of an interface (or the beginning of one) so that it reads it back.
pub fn interface_ok(name: &str) -> bool {
    (1..=INTERFACE_LIMIT).contains(&name.len()) && is_plain(name) && !name.contains('*')
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_can_be_searched() {
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn names_that_docker_and_people_use_are_fine() {
        for name in ["PREROUTING", "DOCKER-ISOLATION-STAGE-1", "f2b-sshd", "_x", "a/b.c_d-e", "ACCEPT", "KUBE-SEP-AB12"]
        {
            assert!(chain_name_ok(name), "{name}");
        }
    }

    #[test]
    fn names_that_nft_would_take_otherwise_are_not() {
        for name in
            ["", "drop", "table", "ct", "1st", "a b", "a:b", "a+", "$x", "x\"y", "über", "-a", "a;b", "vm", "xor"]
        {
            assert!(!chain_name_ok(name), "{name}");
        }
        assert!(!chain_name_ok(&"x".repeat(256)));
    }

    #[test]
    fn texts_between_quotes() {
        assert!(
            comment_ok("it's; {fine} $here #") && !comment_ok("a\"b") && !comment_ok("a\\b") && !comment_ok("a\nb")
        );
        assert!(log_prefix_ok("DROP: \\ ") && !log_prefix_ok("cost $5") && !log_prefix_ok("ü"));
        assert!(interface_ok("br-0123456789ab") && !interface_ok("eth*") && !interface_ok("0123456789abcdef"));
    }
}
