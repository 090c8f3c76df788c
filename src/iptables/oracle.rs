//! The language held against the real iptables: every line of `oracle.txt` is given to the installed iptables-legacy and
//! iptables-nft in a network namespace of its own, and to us; exit code, message, `-S` and `-L` must be the same.

use super::*;
use crate::error::Error;
use crate::family::Family;
use dialect::{Dialect, Variant};
use ext::Place;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command as Process, Stdio};

struct Case {
    family: Family,
    chain: String,
    line: String,
    words: Vec<String>,
}

/// `[4|6|46][O|U][L] ARGUMENTS`: family (both unless said), PREROUTING unless OUTPUT or the user's chain `foo`; `L`
/// where iptables-nft has a quirk that is not imitated.
fn cases(variant: Variant) -> Vec<Case> {
    let path = std::env::var("XTSHIM_ORACLE").ok();
    let text = match path {
        Some(path) => std::fs::read_to_string(path).unwrap(),
        None => include_str!("oracle.txt").to_owned(),
    };
    let mut cases = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (flags, rest) = match line.split_once(' ') {
            Some((flags, rest)) if flags.chars().all(|c| "46OUL".contains(c)) => (flags, rest),
            _ => ("", line),
        };
        let chain = if flags.contains('O') {
            "OUTPUT"
        } else if flags.contains('U') {
            "foo"
        } else {
            "PREROUTING"
        };
        if flags.contains('L') && variant == Variant::Nft {
            continue;
        }
        let only = |digit| flags.contains(['4', '6']) && !flags.contains(digit);
        for (digit, family) in [('4', Family::V4), ('6', Family::V6)] {
            if !only(digit) {
                let words = shlex::split(rest).unwrap();
                cases.push(Case { family, chain: chain.to_owned(), line: rest.to_owned(), words });
            }
        }
    }
    cases
}

/// What the real one said to a case: sections `rc`, `err`, `S`, `nv`, `plain`, `n`.
fn ask_real(cases: &[Case], variant: &str) -> Vec<BTreeMap<String, String>> {
    let mut script = String::from("exec 2>&1\n");
    for family in ["iptables", "ip6tables"] {
        script += &format!("{family}-{variant} -t raw -N foo; {family}-{variant} -t raw -N bar\n");
    }
    for case in cases {
        let program = format!("{}-{variant}", case.family.program());
        let raw = format!("{program} -t raw");
        script += &format!(
            "{raw} -F {c}\necho '@@err'\n{raw} -A {c} {l}; echo \"@@rc\n$?\"\n",
            c = case.chain,
            l = case.line
        );
        for (name, arguments) in [
            ("S", format!("-S {} 1", case.chain)),
            ("nv", format!("-nvL {} 1", case.chain)),
            ("plain", format!("-L {} 1", case.chain)),
            ("n", format!("-nL {} 1", case.chain)),
        ] {
            script += &format!("echo '@@{name}'\n{raw} {arguments}\n");
        }
        script += "echo @@end\n";
    }
    let mut child =
        Process::new("unshare").args(["-n", "bash"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::spawn(move || stdin.write_all(script.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut answers = Vec::new();
    let mut answer = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        match line.strip_prefix("@@") {
            Some("end") => answers.push(std::mem::take(&mut answer)),
            Some(name) => section = name.to_owned(),
            None => *answer.entry(section.clone()).or_insert_with(String::new) += &format!("{line}\n"),
        }
    }
    answers
}

struct Tally {
    same: usize,
    refused: usize,
    untranslated: usize,
    wrong: Vec<String>,
}

fn compare(case: &Case, dialect: &Dialect, real: &BTreeMap<String, String>, tally: &mut Tally) {
    let mut args: Vec<String> = ["-t", "raw", "-A", &case.chain].iter().map(|s| (*s).to_owned()).collect();
    args.extend(case.words.iter().cloned());
    let get = |name: &str| real.get(name).map(|text| text.trim_end_matches('\n')).unwrap_or_default();
    let mut differ = |what: &str, ours: &str, theirs: &str| {
        let family = case.family.nft();
        let variant = dialect.variant.as_str();
        tally.wrong.push(format!("{family} {variant} {}\n  {what}\n   ours {ours:?}\n   real {theirs:?}", case.line));
    };
    let parsed = parse(case.family, &args, dialect).and_then(|invocation| match invocation.command {
        Command::Append { rules, chain } => {
            for rule in &rules {
                rule.validate_chain(&Place {
                    family: case.family,
                    table: "raw",
                    chain: &chain,
                    protocol: rule.protocol,
                    operation: "APPEND",
                    dialect,
                })?;
            }
            Ok(rules)
        }
        other => panic!("{other:?}"),
    });
    // Whether a chain is there is not the language's to know.
    if parsed.as_ref().is_ok_and(|rules| rules[0].jump().is_some_and(|chain| chain != "bar" && chain != "foo")) {
        return;
    }
    let rules = match parsed {
        Err(Error::Refused(refusal)) => {
            tally.refused += 1;
            if std::env::var("XTSHIM_ORACLE_V").is_ok() {
                println!("refused {refusal} {}", case.line);
            }
            return;
        }
        Err(error) => {
            // Of a command that fails, ours gives the reason alone, without what iptables has warned of before it.
            let reason = get("err").trim_end();
            let reason =
                reason.strip_prefix("warn: ").and_then(|text| text.split_once('\n')).map_or(reason, |(_, rest)| rest);
            if get("rc") != error.code().to_string() {
                differ(
                    "code",
                    &format!("{} {}", error.code(), error.render(dialect)),
                    &format!("{} {}", get("rc"), get("err")),
                );
            } else if error.render(dialect).trim_end() != reason {
                differ("text", &error.render(dialect), reason);
            } else {
                tally.same += 1;
            }
            return;
        }
        Ok(rules) => rules,
    };
    if get("rc") != "0" {
        return differ("code", "0", &format!("{} {}", get("rc"), get("err")));
    }
    let rule = &rules[0];
    let option = |verbose, numeric| ListOptions { verbose, numeric, ..Default::default() };
    let ours = [
        ("S", format!("-A {} {}", case.chain, rule.save(dialect)).trim_end().to_owned()),
        ("nv", rule.list(dialect, &option(true, true), 1)),
        ("plain", rule.list(dialect, &option(false, false), 1)),
        ("n", rule.list(dialect, &option(false, true), 1)),
    ];
    let before = tally_len(&ours, real);
    for (what, text) in &ours {
        if text != get(what) {
            differ(what, text, get(what));
        }
    }
    for rule in &rules {
        let spec = rule.spec();
        match Rule::from_spec(case.family, "raw", &spec, rule.jump()) {
            Err(error) => differ("spec", &spec, &format!("{error:?}")),
            Ok(again) if again.spec() != spec => differ("spec again", &spec, &again.spec()),
            Ok(again) if again.save(dialect) != rule.save(dialect) => {
                differ("spec save", &rule.save(dialect), &again.save(dialect));
            }
            Ok(again) => {
                let again = Rule { counters: rule.counters, ..again };
                let context = TranslateContext { family: case.family, table: "raw", chain: &case.chain };
                let (ours, theirs) =
                    (format!("{:?}", rule.translate(&context)), format!("{:?}", again.translate(&context)));
                if ours != theirs {
                    differ("translation of the kept form", &theirs, &ours);
                }
                if let Err(refusal) = again.translate(&context) {
                    tally.untranslated += 1;
                    if std::env::var("XTSHIM_ORACLE_V").is_ok() {
                        println!("untranslated {refusal} {}", case.line);
                    }
                }
            }
        }
    }
    tally.same += usize::from(before);
}

fn tally_len(ours: &[(&str, String)], real: &BTreeMap<String, String>) -> bool {
    ours.iter().all(|(what, text)| real.get(*what).is_some_and(|theirs| theirs.trim_end_matches('\n') == text))
}

fn against(variant: Variant, name: &str) {
    let cases = cases(variant);
    let answers = ask_real(&cases, name);
    assert_eq!(cases.len(), answers.len());
    let mut tally = Tally { same: 0, refused: 0, untranslated: 0, wrong: Vec::new() };
    for (case, answer) in cases.iter().zip(&answers) {
        let dialect = Dialect { family: case.family, variant, version: (1, 8, 9) };
        compare(case, &dialect, answer, &mut tally);
    }
    println!(
        "{name}: {} cases, {} the same, {} refused, {} untranslated, {} differences",
        cases.len(),
        tally.same,
        tally.refused,
        tally.untranslated,
        tally.wrong.len()
    );
    assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n"));
}

#[test]
#[ignore = "needs root and iptables 1.8.9"]
fn legacy() {
    against(Variant::Legacy, "legacy");
}

#[test]
#[ignore = "needs root and iptables 1.8.9"]
fn nft() {
    against(Variant::Nft, "nft");
}
