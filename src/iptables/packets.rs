//! Translations held against the real thing: every rule of `oracle.txt` and `packets.txt` is loaded into
//! iptables-legacy and, as we translate it, into nf_tables, at the same priority of the same hook; then packets of
//! many kinds come in, and every rule must have counted the same in both.

use super::*;
use crate::family::Family;
use crate::nft::text;
use dialect::{Dialect, Variant};
use ext::Place;
use rule::Target;
use std::process::{Command as Process, Stdio};

const SETUP: &str = include_str!("packets.sh");

struct Loaded {
    line: String,
    rule: Rule,
    alternatives: usize,
}

fn lines(family: Family) -> Vec<String> {
    let digit = if family == Family::V4 { '4' } else { '6' };
    let mut lines = Vec::new();
    let more = std::env::var("XTSHIM_ORACLE").ok().map(|path| std::fs::read_to_string(path).unwrap());
    let texts = [include_str!("oracle.txt"), include_str!("packets.txt"), more.as_deref().unwrap_or_default()];
    for line in texts.iter().flat_map(|text| text.lines()) {
        let (flags, rest) = match line.split_once(' ') {
            Some((flags, rest)) if flags.chars().all(|c| "46OUL".contains(c)) => (flags, rest),
            _ => ("", line),
        };
        if !flags.contains(['O', 'U']) && (!flags.contains(['4', '6']) || flags.contains(digit)) {
            lines.push(rest.to_owned());
        }
    }
    lines
}

/// The rules without their targets, with their nft syntax.
fn load(family: Family) -> (Vec<Loaded>, String, String) {
    let dialect = Dialect { family, variant: Variant::Legacy, version: (1, 8, 9) };
    let (mut loaded, mut legacy, mut native) = (Vec::new(), String::from("*mangle\n"), String::new());
    for line in lines(family) {
        let mut args = vec!["-A".to_owned(), "PREROUTING".to_owned()];
        args.extend(shlex::split(&line).unwrap_or_default());
        // xt_limit fills its bucket once in a tick of the kernel's clock, so fast rates never reach what they say.
        if line.contains("/s") || line.contains("1000000/hour") {
            continue;
        }
        let Ok(Invocation { command: Command::Append { rules, .. }, .. }) = parse(family, &args, &dialect) else {
            continue;
        };
        for mut rule in rules {
            rule.target = Target::None;
            rule.counters = (0, 0);
            let protocol = rule.protocol;
            let place = Place {
                family,
                table: "mangle",
                chain: "PREROUTING",
                protocol,
                operation: "APPEND",
                dialect: &dialect,
            };
            let context = TranslateContext { family, table: "mangle", chain: "PREROUTING" };
            let Ok(alternatives) = rule.translate(&context) else { continue };
            let printed: Result<Vec<String>, _> = alternatives.iter().map(|one| text::rule(family, one)).collect();
            let Ok(printed) = printed else { continue };
            if rule.validate_chain(&place).is_err() || rule.save(&dialect).contains('\n') {
                continue;
            }
            // Not the save form, which hides `-i +`.
            legacy += &format!("-A PREROUTING {}\n", rule.spec());
            for one in &printed {
                native += &format!("add rule {} test c {one}\n", family.nft());
            }
            loaded.push(Loaded { line: line.clone(), rule, alternatives: printed.len() });
        }
    }
    legacy += "COMMIT\n";
    let head =
        format!("table {0} test {{\nchain c {{\ntype filter hook prerouting priority -150;\n}}\n}}\n", family.nft());
    (loaded, legacy, head + &native)
}

fn numbers(text: &str, before: &str, after: char) -> Vec<u64> {
    text.split(before).skip(1).filter_map(|rest| rest.split(after).next()?.parse().ok()).collect()
}

fn counted_alike(family: Family) {
    let (loaded, legacy, native) = load(family);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("legacy"), &legacy).unwrap();
    std::fs::write(directory.path().join("native"), &native).unwrap();
    std::fs::write(directory.path().join("send.py"), include_str!("packets.py")).unwrap();
    let output = Process::new("unshare")
        .args(["-n", "bash", "-c", SETUP, "packets", family.program(), family.nft()])
        .current_dir(directory.path())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (theirs, ours) = text.split_once("@@native\n").unwrap();
    let theirs = numbers(theirs, "\n[", ':');
    let theirs = theirs.get(theirs.len().saturating_sub(loaded.len())..).unwrap();
    let mut ours = numbers(ours, "counter packets ", ' ').into_iter();
    let (mut hit, mut wrong) = (0, Vec::new());
    for (case, theirs) in loaded.iter().zip(theirs) {
        let ours: u64 = ours.by_ref().take(case.alternatives).sum();
        // A clock runs between the two looks at one packet, and further on a busy machine.
        let timed = case.line.contains("limit") || case.line.contains("ctexpire");
        let slack = if timed { 5 + theirs / 50 } else { 0 };
        hit += u32::from(*theirs != 0);
        if ours.abs_diff(*theirs) > slack {
            wrong.push(format!("ours {ours} theirs {theirs}: {} [{}]", case.line, case.rule.spec()));
        }
    }
    println!("{}: {} rules, {hit} hit, {} differ", family.nft(), loaded.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(hit as usize > loaded.len() / 3);
}

#[test]
#[ignore = "needs root, iptables-legacy, nft and python3"]
fn ipv4_packets_are_counted_alike() {
    counted_alike(Family::V4);
}

#[test]
#[ignore = "needs root, iptables-legacy, nft and python3"]
fn ipv6_packets_are_counted_alike() {
    counted_alike(Family::V6);
}
