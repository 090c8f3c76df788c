//! What the inputs are made from: what has been recorded and written down elsewhere in this tree.

use std::fs;
use std::path::Path;
use xtshim::family::Family;
use xtshim::nft::expr::Verdict;
use xtshim::nft::{self, BaseChain, Batch, ChainKind, HookPoint, Policy, Position, Table};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is in this tree")
}

/// As dockerd has said them, and as they were written to be compared with iptables: words with a NUL behind each.
pub fn command_lines() -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for file in ["docker-28.5.2-legacy.jsonl", "docker-28.5.2-nft.jsonl"] {
        for line in read(&format!("tests/netns/corpus/{file}")).lines() {
            let Ok(said) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let argv = said["argv"].as_array().map(Vec::as_slice).unwrap_or_default();
            let words: Vec<&str> = argv.iter().filter_map(serde_json::Value::as_str).skip(1).collect();
            lines.push(words.join("\0").into_bytes());
        }
    }
    lines.sort();
    lines.dedup();
    lines.extend(rules().iter().map(|rule| [b"-t\0raw\0-A\0PREROUTING\0", rule.as_slice()].concat()));
    #[rustfmt::skip]
    lines.extend([
        "-t nat -I POSTROUTING 3 -s 10.0.0.0/8,192.168.0.0/16 -j MASQUERADE", "-L -nvx --line-numbers", "-tmangle -S FORWARD 2",
        "-w5 -W 10 -F", "-E one two", "-P FORWARD DROP", "-R INPUT 1 -p tcp --dport 22 -j REJECT", "-Z -L -v", "-c 1,2 -A INPUT",
    ].map(|line| line.replace(' ', "\0").into_bytes()));
    lines
}

/// What stands behind the chain.
pub fn rules() -> Vec<Vec<u8>> {
    let oracle = read("src/iptables/oracle.txt");
    let with_family = oracle.lines().filter_map(|line| line.split_once(' ')).map(|(_, rule)| rule.to_owned());
    let packets = read("src/iptables/packets.txt");
    let plain = packets.lines().filter(|line| line.starts_with(['-', '!'])).map(str::to_owned);
    // Of a table in Python all that stands between quotes and looks like a rule.
    let cases = read("tests/netns/cases.py");
    let cases = cases.split('"').filter(|text| text.starts_with(['-', '!'])).map(str::to_owned);
    let split = |line: String| shlex::split(&line).map(|words| words.join("\0").into_bytes());
    with_family.chain(plain).chain(cases).filter_map(split).collect()
}

/// The rules in tables, a few each.
pub fn restore_files() -> Vec<Vec<u8>> {
    let lines: Vec<String> = rules()
        .iter()
        .filter_map(|rule| String::from_utf8(rule.clone()).ok())
        .map(|rule| rule.split('\0').map(xtshim::iptables::quote).collect::<Vec<_>>().join(" "))
        .collect();
    let tables = lines.chunks(2).zip(["raw", "mangle", "filter", "nat", "security"].into_iter().cycle());
    let mut files: Vec<Vec<u8>> = tables
        .map(|(rules, table)| {
            let body: String = rules.iter().map(|rule| format!("[1:60] -A OUTPUT {rule}\n")).collect();
            format!("# a comment\n*{table}\n:OUTPUT ACCEPT [5:6]\n:mine - [0:0]\n{body}-A OUTPUT -j mine\nCOMMIT\n")
                .into_bytes()
        })
        .collect();
    files.push(b"*filter\n-N a\n-A a -j DROP\n-I a 1 -p tcp\n-R a 1 -p udp\n-D a 2\n-E a b\n-F\n-X b\n-Z\n-P INPUT DROP\nCOMMIT\n".to_vec());
    files
}

pub fn configurations() -> Vec<Vec<u8>> {
    #[rustfmt::skip]
    return [
        "", "backend = \"nft\"\n[carriers]\nraw = \"mangle\"\nnat = \"auto\"\nfilter = \"nft\"\n[backends]\ndirectory = \"/opt\"\n[journal]\nfile = \"none\"\nsystem = false\n",
        "backend = 'legacy'\ncarriers = { raw = \"filter\", security = \"backend\" }\njournal.file = \"/var/log/x\"\n",
        "[[carriers]]\nraw = [[[[[[[[1, 2.5e3, 1979-05-27T07:32:00Z, \"\\u00e9\", '''x''', { a.b.c = 1 }]]]]]]]]\n",
    ].map(|text| text.as_bytes().to_vec()).to_vec();
}

pub fn caches() -> Vec<Vec<u8>> {
    #[rustfmt::skip]
    return [
        "nf_tables\tfalse\nend\n",
        "backend\tnft\t1.8.9\nprogram\tiptables\t/usr/sbin/iptables-nft\nprogram\tip6tables-restore\t/usr/sbin/ip6tables-nft-restore\nnf_tables\ttrue\nability\tip\traw\tbackend\tmissing\tnot built\nability\tip6\traw\tnft\table\nhosted\tip\tmangle\nconfig\t/etc/xtshim/xtshim.toml\tauto\ndirectory\t/opt\ncarrier\traw\tnft\njournal\t\tfalse\nend\n",
    ].map(|text| text.as_bytes().to_vec()).to_vec();
}

pub fn tickets() -> Vec<Vec<u8>> {
    let tickets = xtshim::probe::kept_tickets();
    assert!(tickets.len() == 2 && tickets.iter().all(|ticket| xtshim::probe::read_ticket(ticket)));
    tickets
}

/// A configuration, the lists of modules that are there, built in and loaded, with a NUL behind each.
pub fn kernels() -> Vec<Vec<u8>> {
    vec![
        b"CONFIG_NF_TABLES=m\n# CONFIG_IP_NF_RAW is not set\nCONFIG_X=\"y\"\n\0kernel/net/ip_tables.ko.xz: kernel/net/x_tables.ko\n\0kernel/net/nf_tables.ko\n\0nf_tables 303104 1 nft_compat, Live 0x0\n".to_vec(),
    ]
}

/// What a kernel might send: rules as it would list them, a table, chains.
pub fn answers() -> Vec<Vec<u8>> {
    let at = Table { family: Family::V4, name: "xtshim-raw" };
    let mut plain = Batch::new();
    plain.add_table(at);
    plain.add_base_chain(
        at,
        BaseChain {
            name: "PREROUTING",
            hook: HookPoint::Prerouting,
            priority: -300,
            kind: ChainKind::Filter,
            policy: Policy::Drop,
            counters: (7, 8),
        },
    );
    plain.add_chain(at, "mine");
    let mut batches = vec![plain];
    let read = |rule: &[u8]| -> Option<Batch> {
        let words: Vec<String> = ["-t", "raw", "-A", "PREROUTING"]
            .into_iter()
            .chain(std::str::from_utf8(rule).ok()?.split('\0'))
            .map(str::to_owned)
            .collect();
        let dialect = crate::targets::dialect(2);
        let parsed = xtshim::iptables::parse(Family::V4, &words, &dialect).ok()?;
        let xtshim::iptables::Command::Append { rules, .. } = parsed.command else { return None };
        let context = xtshim::iptables::TranslateContext { family: Family::V4, table: "raw", chain: "PREROUTING" };
        let mut batch = Batch::new();
        for rule in &rules {
            let entry = nft::userdata::Entry::whole(rule.spec());
            let data = nft::userdata::encode(&entry, rule.comment()).userdata;
            for mut alternative in rule.translate(&context).ok()? {
                alternative.push(nft::expr::Expr::Verdict(Verdict::Jump("mine".to_owned())));
                batch.add_rule(at, "PREROUTING", Position::Append, &alternative, &data);
            }
        }
        Some(batch)
    };
    batches.extend(rules().iter().filter_map(|rule| read(rule)).take(120));
    batches.iter().map(nft::hostile::messages).collect()
}
