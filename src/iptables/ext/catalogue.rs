//! Every match and target of iptables 1.8.13: how it is carried, or why it is not. `docs/extensions.md` is made of this.

#![forbid(unsafe_code)]

use super::{
    Extension, addrtype, ah, audit, bpf, comment, conntrack, cpu, ct, dccp, devgroup, esp, frag, hbh, icmp, ipcomp,
    iprange, length, limit, log, mac, mark, masquerade, mh, multiport, netmap, nflog, nfqueue, owner, pkttype, policy,
    quota, realm, redirect, reject, rpfilter, rt, sctp, snat, socket, statistic, synproxy, tcp, tee, tproxy, trace,
    u32, udp,
};
use super::{classify, connbytes, connlabel, connmark, connsecmark, dscp, ecn, helper, tcpoptstrip, tos, ttl};
use crate::family::Family;

/// Makes an extension without options.
pub type Make = fn() -> Box<dyn Extension>;

/// An extension that is carried.
#[derive(Debug)]
pub struct Known {
    /// As it stands behind `-m` or `-j`.
    pub name: &'static str,
    /// `None`: both.
    pub family: Option<Family>,
    /// Makes it.
    pub make: Make,
    /// Its native form, in a few words of nft syntax; for a second name of another extension, that one's name in `=NAME`;
    /// empty where it is read and checked, and then always refused.
    pub form: &'static str,
    /// What for some packets or options is refused or differs all the same; may be empty.
    pub limits: &'static str,
    /// Capabilities (rules/capabilities.toml) that it takes beside those that every table takes.
    pub needs: &'static [&'static str],
}

/// An extension that is not.
#[derive(Debug)]
pub struct NotCarried {
    /// As it stands behind `-m` or `-j`.
    pub name: &'static str,
    /// One clause for a person.
    pub why: &'static str,
}

const fn both(name: &'static str, make: Make, form: &'static str, needs: &'static [&'static str]) -> Known {
    Known { name, family: None, make, form, limits: "", needs }
}

const fn only(
    family: Family,
    name: &'static str,
    make: Make,
    form: &'static str,
    needs: &'static [&'static str],
) -> Known {
    Known { name, family: Some(family), make, form, limits: "", needs }
}

const fn not(name: &'static str, why: &'static str) -> NotCarried {
    NotCarried { name, why }
}

impl Known {
    const fn but(self, limits: &'static str) -> Self {
        Self { limits, ..self }
    }
}

const LOOKUPS: &str = "THROW, NAT and XRESOLVE are refused; in IPv6 also all types but UNSPEC, UNICAST, LOCAL and \
    MULTICAST, and --limit-iface-in and --limit-iface-out";
const BY_REQID: &str =
    "--strict, --proto, --mode, --tunnel-src, --tunnel-dst, and --reqid together with --spi are refused";
const BY_LAST_BYTE: &str = "a packet that uses the quota up to its last byte matches only on kernels from 6.16 on";
const OWNERLESS: &str =
    "refused where packets without an owner would match: `!` alone, --socket-exists; and --suppl-groups";
const NEAREST: &str = "in IPv6 only with --loose; routing rules for one protocol alone are not heeded alike";
const FRAGMENTS: &str = "nft's socket does not put fragments together, as xt's does";

/// Seen with kernel 6.18: xt drops whatever is shorter than its struct of the header, iptables-nft's own `tcp` and `udp` do
/// as we do.
const TRUNCATED: &str = "a packet whose header is cut short is not dropped as xt does, but matched by what is there";

const AH: &str =
    "refused beside a `-p` of another protocol: nf_tables does not look behind the header; cut short as `tcp`";
const SCTP: &str = "`--chunk-types` is refused: xt drops a packet with a malformed chunk, which nf_tables passes over; cut short as `tcp`";
const DCCP: &str =
    "`--dccp-option` is refused: nf_tables steps from option to option in another way; cut short as `tcp`";

const SHIFTED: &str = "no shift of ports (`a-b/base`), no reversed range, no ports for `! -p`";

const ECN: &str =
    "`--ecn-tcp-*` does not match later fragments, of which xt reads the bytes without `-m tcp`; cut short as `tcp`";

const EXTENSION_OPTIONS: &str = "options of the header are refused; cut short as `tcp`";
const ROUTING: &str = "more than two addresses and `--rt-0-not-strict` are refused; cut short as `tcp`";
const LABELS: &str = "nothing is said where /etc/xtables/connlabel.conf is missing; what is done once for each connection \
    (`! --label`, then `--set` of the same) not before a match or a target that takes several rules";
const ONCE: &str = "not behind a match that counts, as `limit`: it takes two rules";

const PROGRAMS: &str =
    "refused: programs that do more than compare numbers at fixed places, or behind an IPv4 header or UDP's";

/// Matches, by name.
pub const MATCHES: &[Known] = &[
    both("addrtype", addrtype::new, "fib daddr type", &["nft-fib"]).but(LOOKUPS),
    only(Family::V4, "ah", ah::v4, "ah spi", &[]).but(TRUNCATED),
    only(Family::V6, "ah", ah::v6, "ah spi, ah hdrlength, ah reserved", &[]).but(AH),
    both("bpf", bpf::new, "@nh, @th", &["nft-set"]).but(PROGRAMS),
    both("comment", comment::new, "comment", &[]),
    both("connbytes", connbytes::new, "ct bytes, ct packets, ct avgpkt", &["nft-ct"]),
    both("connlabel", connlabel::new, "ct label, ct label set", &["nft-ct-label"]).but(LABELS),
    both("connmark", connmark::new_match, "ct mark", &["nft-ct-mark"]),
    both("conntrack", conntrack::new, "ct state, ct status, ct original, …", &["nft-ct"]),
    both("cpu", cpu::new, "meta cpu", &[]),
    both("devgroup", devgroup::new, "iifgroup, oifgroup", &[]),
    both("dccp", dccp::new, "dccp sport, dccp dport, dccp type", &["nft-set"]).but(DCCP),
    only(Family::V6, "dst", hbh::dst, "exthdr dst, dst hdrlength", &["nft-exthdr"]).but(EXTENSION_OPTIONS),
    both("esp", esp::new, "esp spi", &[]).but(TRUNCATED),
    only(Family::V6, "frag", frag::new, "frag id, frag frag-off, frag more-fragments, …", &["nft-exthdr"])
        .but(TRUNCATED),
    only(Family::V6, "hbh", hbh::new, "exthdr hbh, hbh hdrlength", &["nft-exthdr"]).but(EXTENSION_OPTIONS),
    both("dscp", dscp::new_match, "ip dscp, ip6 dscp", &[]),
    both("ecn", ecn::new_match, "tcp flags & ecn, ip ecn, ip6 ecn", &[]).but(ECN),
    both("helper", helper::new, "ct helper", &["nft-ct"])
        .but("not inverted: connections whose helper has gone are not told from others"),
    only(Family::V6, "hl", ttl::hl_match, "ip6 hoplimit", &[]),
    only(Family::V4, "icmp", icmp::v4, "icmp type, icmp code", &[]).but(TRUNCATED),
    only(Family::V6, "icmp6", icmp::v6, "icmpv6 type, icmpv6 code", &[]).but(TRUNCATED),
    only(Family::V6, "icmpv6", icmp::v6, "=icmp6", &[]),
    only(Family::V6, "ipv6-icmp", icmp::v6, "=icmp6", &[]),
    both("ipcomp", ipcomp::new, "comp cpi", &[]).but(TRUNCATED),
    both("iprange", iprange::new, "ip saddr, ip daddr", &[]),
    both("length", length::new, "ip length, ip6 length", &[]),
    both("limit", limit::new, "limit rate", &["nft-limit"]),
    both("mac", mac::new, "ether saddr", &[]),
    both("mark", mark::new_match, "meta mark", &[]),
    only(Family::V6, "mh", mh::new, "mh type", &["nft-exthdr"]).but(TRUNCATED),
    both("multiport", multiport::new, "th sport, th dport", &["nft-set"]).but(TRUNCATED),
    both("owner", owner::new, "meta skuid, meta skgid", &[]).but(OWNERLESS),
    both("pkttype", pkttype::new, "meta pkttype", &[]),
    both("policy", policy::new, "meta ipsec, rt ipsec, ipsec in reqid, …", &["nft-ipsec", "nft-xfrm"]).but(BY_REQID),
    both("quota", quota::new, "quota", &["nft-quota"]).but(BY_LAST_BYTE),
    only(Family::V4, "realm", realm::new, "rt classid", &["nft-realm"]),
    both("rpfilter", rpfilter::new, "fib saddr . iif oif, fib saddr type", &["nft-fib", "nft-set"]).but(NEAREST),
    both("socket", socket::new, "", &[]).but(FRAGMENTS),
    only(Family::V6, "rt", rt::new, "rt type, rt seg-left, rt hdrlength, srh sid", &["nft-exthdr"]).but(ROUTING),
    both("sctp", sctp::new, "sctp sport, sctp dport", &[]).but(SCTP),
    both("state", conntrack::state, "=conntrack", &["nft-ct"]),
    both("statistic", statistic::new, "meta random, numgen inc", &["nft-numgen"]),
    both("tcp", tcp::new, "tcp sport, tcp dport, tcp flags", &[]).but(TRUNCATED),
    both("tos", tos::new_match, "@nh,8,8, @nh,0,16", &[]),
    only(Family::V4, "ttl", ttl::ttl_match, "ip ttl", &[]),
    both("u32", u32::new, "@nh, @th", &["nft-set"]).but(PROGRAMS),
    both("udp", udp::new, "udp sport, udp dport", &[]).but(TRUNCATED),
];

/// Targets, by name.
pub const TARGETS: &[Known] = &[
    both("CLASSIFY", classify::new, "meta priority set", &["nft-priority"])
        .but("in a chain of the user's it is not seen whether it is called before routing, where xt refuses it"),
    both("CONNMARK", connmark::new_target, "ct mark set, meta mark set", &["nft-ct-mark"])
        .but("part of one mark goes into the other bit by bit; `--left-shift-mark`, `--right-shift-mark`: `nft-shift`"),
    both("CONNSECMARK", connsecmark::new, "ct secmark set, meta secmark set", &["nft-secmark"]).but(ONCE),
    both("CT", ct::new, "notrack, ct zone set", &["nft-notrack", "nft-zone"])
        .but("only `--notrack` and zones by number: the rest nf_tables says of connections that are there, which raw's packets have not yet"),
    both("AUDIT", audit::new, "log level audit", &["nft-log"])
        .but("the type is kept for listings; it is in no record of xt_AUDIT's either"),
    both("DNAT", snat::destination, "dnat to", &["nft-chain-nat", "nft-nat"]).but(SHIFTED),
    both("DSCP", dscp::new_target, "ip dscp set, ip6 dscp set", &["nft-write"]),
    only(Family::V4, "ECN", ecn::new_target, "ip ecn set", &["nft-write"])
        .but("only `--ecn-ip-ect`: nft has no words for changing single flags of TCP"),
    only(Family::V6, "HL", ttl::hl_target, "ip6 hoplimit set", &["nft-write", "nft-map"]),
    both("LOG", log::new, "log prefix … level … flags …", &["nft-log"]),
    both("MARK", mark::new_target, "meta mark set", &[]),
    both("MASQUERADE", masquerade::new, "masquerade", &["nft-chain-nat", "nft-masq"]).but(SHIFTED),
    both("NETMAP", netmap::new, "dnat prefix to, snat prefix to", &["nft-chain-nat", "nft-nat"])
        .but("only in built-in chains: in others the hook that decides what is changed is not known; no mask with holes, which iptables takes for a whole one before 1.8.11"),
    both("NFLOG", nflog::new, "log group", &["nft-log"]).but("--nflog-range has no effect here either"),
    both("NFQUEUE", nfqueue::new, "queue num", &["nft-queue"]),
    both("NOTRACK", ct::notrack, "notrack", &["nft-notrack"]),
    both("REDIRECT", redirect::new, "redirect", &["nft-chain-nat", "nft-redir"]),
    only(Family::V4, "REJECT", reject::v4, "reject with icmp, reject with tcp reset", &["nft-reject"]),
    only(Family::V6, "REJECT", reject::v6, "reject with icmpv6, reject with tcp reset", &["nft-reject"]),
    both("SNAT", snat::source, "snat to", &["nft-chain-nat", "nft-nat"]).but(SHIFTED),
    only(Family::V4, "SYNPROXY", synproxy::new, "synproxy mss … wscale …", &["nft-set", "nft-synproxy"]).but(
        "no `--ecn`; `--mss` and `--wscale` only together, the latter up to 14; segments other than SYN and ACK go on to \
         the next rule even with a broken checksum, which xt drops and otherwise whoever receives them",
    ),
    both("TEE", tee::new, "dup to", &["nft-dup"]).but("no `--oif`: nf_tables would not follow the name"),
    only(Family::V4, "TPROXY", tproxy::v4, "tproxy to …, drop", &["nft-tproxy"]).but(ONCE),
    only(Family::V6, "TPROXY", tproxy::v6, "tproxy to …, drop", &["nft-tproxy"]).but(ONCE),
    both("TCPOPTSTRIP", tcpoptstrip::new, "reset tcp option", &["nft-strip"])
        .but(
            "a packet with an option that is cut short is dropped; one that ends before its TCP header does is passed on, \
             where xt drops it",
        ),
    both("TOS", tos::new_target, "ip dscp set, ip ecn set", &["nft-write"])
        .but("not `--xor-tos` and what else flips bits: nft has no words for it"),
    both("TRACE", trace::new, "meta nftrace set 1", &[]),
    only(Family::V4, "TTL", ttl::ttl_target, "ip ttl set", &["nft-write"])
        .but("not `--ttl-inc`, `--ttl-dec`: nft has no words for a number that is reckoned from the packet's own"),
];

/// Matches of iptables 1.8.13 that are not carried.
pub const OTHER_MATCHES: &[NotCarried] = &[
    not("cgroup", "nf_tables counts what answers for a listening socket to its group, xt_cgroup to none"),
    not("cluster", "nft aborts when it lists a rule with a hash of an address"),
    not("connlimit", "counts without bound, where a full set of nf_tables lets packets of new addresses pass"),
    not("eui64", "nf_tables does not compare one part of a packet with another"),
    not("hashlimit", "a full table of it drops packets, where a full set of nf_tables lets them pass"),
    not("ipv6header", "reads on behind the fragment header of later fragments, where nf_tables finds no header"),
    not("ipvs", "a flag of the packet says that it is one of IPVS, which no expression of nf_tables shows"),
    not("nfacct", "counts into objects that only xt_nfacct and nfacct(8) know"),
    not("osf", "nf_tables takes the first fingerprint that fits, xt_osf any that fits"),
    not("physdev", "a chain of ip or ip6 cannot see through which port of a bridge a packet came"),
    not("rateest", "the estimators belong to xt_RATEEST"),
    not("recent", "its lists live in /proc/net/xt_recent, where others read and write them"),
    not("set", "a copy of an ipset would miss its next change"),
    not("srh", "compares one field of the header with another"),
    not("standard", "not a match that can be asked for by name"),
    not("string", "nf_tables does not search a packet's content"),
    not("tcpmss", "nf_tables stops at the first option of a kind, xt passes over malformed ones"),
    not("time", "nft lists times in the local time zone and cannot read all of them back as the same"),
    not("unclean", "gone from the kernel since 2.6"),
];

/// Targets of iptables 1.8.13 that are not carried.
pub const OTHER_TARGETS: &[NotCarried] = &[
    not("CHECKSUM", "nf_tables cannot fill in a checksum"),
    not("CLUSTERIP", "gone from the kernel since 6.3, and answers ARP, which no rule of nf_tables does"),
    not("DNPT", "nf_tables has no checksum-neutral prefix translation"),
    not("HMARK", "its hash of the packet has no native form"),
    not("IDLETIMER", "its timers live in sysfs"),
    not("LED", "blinks a light that only xt_LED knows"),
    not("MIRROR", "gone from the kernel since 2.6"),
    not("QUEUE", "gone from the kernel since 3.5: NFQUEUE with number 0"),
    not("RATEEST", "its estimators are read by xt_rateest alone"),
    not("SAME", "gone from the kernel since 2.6"),
    not("SECMARK", "needs a named object beside the rule, whose text the kernel keeps for itself"),
    not("SET", "an ipset is changed by xt_SET alone"),
    not("SNPT", "nf_tables has no checksum-neutral prefix translation"),
    not("SYNPROXY", "in IPv6, nft_synproxy takes the checksum for an IPv4 packet's and drops nearly all"),
    not("TCPMSS", "adds the option where it is missing, which nf_tables does not"),
    not("ULOG", "gone from the kernel since 3.17: NFLOG"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules;
    use std::fmt::Write;

    const HEAD: &str = "# Extensions

Every match and target of iptables 1.8.13: the native nf_tables form that the `nft` carrier gives it and the kernel
options that it takes beside `CONFIG_NF_TABLES`, or why it is not carried. A rule that names something which is not
carried, or an option that has no exact form, is refused with the exit code that the real iptables has for a missing
extension; the reason is in the journal (`xtshim log`).

This page is made of the tables that the program itself uses (`src/iptables/ext/catalogue.rs`): after a change there,
`XTSHIM_BLESS=1 cargo test --lib catalogue` writes it anew.
";

    fn options(known: &Known) -> String {
        let mut found: Vec<String> = Vec::new();
        for need in known.needs {
            let capability = rules::capability(need).unwrap_or_else(|| panic!("{need}: no such capability"));
            let families = known.family.map_or(Family::ALL.to_vec(), |family| vec![family]);
            for family in families.into_iter().filter(|family| capability.serves(*family)) {
                let names = capability.options(family).into_iter().map(|names| format!("`{}`", names.join("` or `")));
                found.extend(names);
            }
        }
        found.dedup();
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|option| option != "`CONFIG_NF_TABLES`" && seen.insert(option.clone()));
        found.join(", ")
    }

    fn rows(known: &[Known], others: &[NotCarried], out: &mut String) {
        let mut rows: Vec<(String, String)> = Vec::new();
        for known in known {
            let family = match known.family {
                None => "",
                Some(Family::V4) => " (IPv4)",
                Some(Family::V6) => " (IPv6)",
            };
            let form = match known.form.strip_prefix('=') {
                Some(other) => format!("as `{other}`"),
                None if known.form.is_empty() => "not carried".to_owned(),
                None => format!("`{}`", known.form),
            };
            let row = format!("| `{}`{family} | {form} | {} | {} |", known.name, known.limits, options(known));
            rows.push((known.name.to_owned(), row));
        }
        rows.extend(
            others
                .iter()
                .map(|other| (other.name.to_owned(), format!("| `{}` | not carried | {} | |", other.name, other.why))),
        );
        rows.sort_by_key(|(name, _)| name.to_lowercase());
        let _ = writeln!(out, "| | native form | what is refused or differs | kernel options |\n|---|---|---|---|");
        for (_, row) in rows {
            let _ = writeln!(out, "{row}");
        }
    }

    #[test]
    fn no_extension_is_told_of_twice() {
        for (known, others) in [(MATCHES, OTHER_MATCHES), (TARGETS, OTHER_TARGETS)] {
            let mut seen = std::collections::BTreeSet::new();
            let carried = known.iter().map(|known| (known.name, known.family));
            for name in carried.chain(others.iter().map(|other| (other.name, None))) {
                assert!(seen.insert(name), "{name:?}");
                assert!(name.1.is_none() || !seen.contains(&(name.0, None)), "{name:?}");
            }
            assert!(others.iter().all(|other| other.why != "not yet carried"));
        }
    }

    #[test]
    fn the_page_says_what_the_tables_say() {
        let mut page = format!("{HEAD}\n## Matches\n\n");
        rows(MATCHES, OTHER_MATCHES, &mut page);
        page.push_str("\n## Targets\n\n");
        rows(TARGETS, OTHER_TARGETS, &mut page);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/extensions.md");
        if std::env::var_os("XTSHIM_BLESS").is_some() {
            std::fs::write(path, &page).expect("written");
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == page, "docs/extensions.md is not what the tables say: XTSHIM_BLESS=1 writes it anew");
    }
}
