//! The management command line, as a person or a script sees it: exit code, stdout, stderr.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use xtshim::family::Family;
use xtshim::rules;

/// With a configuration of its own, whose journal is `folder`/rewrites.jsonl.
fn xtshim(folder: &Path) -> Command {
    let config = folder.join("xtshim.toml");
    let journal = folder.join("rewrites.jsonl");
    fs::write(&config, format!("[journal]\nfile = {:?}\nsystem = false\n", journal.display())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtshim"));
    command.env("XTSHIM_CONFIG", config).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    said(&xtshim(folder.path()).args(args).output().unwrap())
}

fn run_with(args: &[&str], input: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = xtshim(folder.path());
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Complaints about the command line come before anything is read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    said(&child.wait_with_output().unwrap())
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_and_version_are_answers_and_go_to_stdout() {
    for args in [&["--help"][..], &["-h"], &["help", "translate"], &["log", "--help"], &["selftest", "-h"]] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        assert!(stdout.contains("Usage: xtshim"), "{args:?}: {stdout}");
    }
    let (code, stdout, stderr) = run(&["--version"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, concat!("xtshim ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn help_names_every_subcommand_and_file() {
    let (_, help, _) = run(&["--help"]);
    for word in ["probe", "translate", "selftest", "log", "xtshim iptables", "xtshim.toml", "rewrites.jsonl"] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn a_wrong_command_line_is_exit_2_and_goes_to_stderr() {
    for args in [&[][..], &["frobnicate"], &["log", "--frob"], &["translate", "--format", "yaml"], &["probe", "x"]] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        assert!(stderr.contains("--help") || stderr.contains("Usage: xtshim"), "{args:?}: {stderr}");
    }
}

const RECORD: &str = r#"{"time":"2026-11-21T02:04:11.123Z","pid":812,"caller":"dockerd","netns":4026531840,"front":"iptables","command":"iptables --wait -t raw -A PREROUTING -m comment --comment '\u001b[2J' -j DROP","family":"ip","table":"raw","carrier":"nft","applied":["add table ip xtshim-raw"],"why":"the kernel has no iptable_raw","result":"ok"}"#;

fn journal(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rewrites.jsonl"), text).unwrap();
    folder
}

#[test]
fn log_without_a_journal_says_so_and_is_well() {
    let (code, stdout, stderr) = run(&["log"]);
    assert_eq!((code, stdout.as_str()), (0, ""));
    assert!(stderr.contains("nothing has been rewritten yet"), "{stderr}");
}

#[test]
fn log_shows_records_to_people_without_their_control_bytes() {
    let folder = journal(&format!("{RECORD}\nno record\n{RECORD}\n"));
    let (code, stdout, stderr) = said(&xtshim(folder.path()).arg("log").output().unwrap());
    assert_eq!(code, 0);
    assert_eq!(stdout.matches("dockerd[812]").count(), 2);
    assert!(stdout.contains("--comment '\\x1b[2J' -j DROP"), "{stdout}");
    assert!(!stdout.contains('\u{1b}'));
    assert_eq!(stderr, "xtshim: lines of the journal that are no records: 1\n");
}

#[test]
fn log_shows_records_to_programs() {
    let folder = journal(&format!("{RECORD}\n"));
    let (code, stdout, stderr) = said(&xtshim(folder.path()).args(["log", "--json"]).output().unwrap());
    assert_eq!((code, stderr.as_str()), (0, ""));
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found, serde_json::from_str::<serde_json::Value>(RECORD).unwrap());
}

#[test]
fn log_follows_through_rotation() {
    let folder = journal(&format!("{RECORD}\n"));
    let path = folder.path().join("rewrites.jsonl");
    let mut follower = xtshim(folder.path()).args(["log", "-f", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let numbered = |pid: u32| format!("{}\n", RECORD.replace("812", &pid.to_string()));
    assert!(next().contains("\"pid\":812"));

    let mut old = fs::OpenOptions::new().append(true).open(&path).unwrap();
    old.write_all(numbered(1).as_bytes()).unwrap();
    assert!(next().contains("\"pid\":1,"));

    fs::rename(&path, folder.path().join("rewrites.jsonl.1")).unwrap();
    old.write_all(numbered(2).as_bytes()).unwrap();
    fs::write(&path, numbered(3)).unwrap();
    assert!(next().contains("\"pid\":2,"));
    assert!(next().contains("\"pid\":3,"));

    // Emptied: it is seen to be shorter, be it looked at before the next record comes or after.
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(numbered(4).as_bytes()).unwrap();
    assert!(next().contains("\"pid\":4,"));
    fs::write(&path, "").unwrap();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(numbered(5).as_bytes()).unwrap();
    assert!(next().contains("\"pid\":5,"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = journal(&format!("{RECORD}\n").repeat(2000));
    let mut child = xtshim(folder.path()).arg("log").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (code, _, stderr) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn a_verdict_that_nobody_read_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        xtshim(folder.path()).arg("selftest").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (code, _, stderr) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, stderr.as_str()), (1, ""));
}

#[test]
fn a_bad_configuration_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = xtshim(folder.path());
    fs::write(folder.path().join("xtshim.toml"), "backend = \"auto\"\n\n[journal]\nfiel = \"x\"\n").unwrap();
    let (code, stdout, stderr) = said(&command.arg("log").output().unwrap());
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("xtshim: ") && stderr.contains("xtshim.toml:4"), "{stderr}");
}

/// What Docker relies on most: `translate` of its raw rule.
#[test]
fn translate_shows_dockers_raw_rule() {
    let rule = "iptables --wait -t raw -A PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP";
    let words: Vec<&str> = ["translate", "--"].into_iter().chain(rule.split(' ')).collect();
    let by_words = run(&words);
    assert_eq!(
        by_words,
        (
            0,
            "add table ip xtshim-raw\n\
             add chain ip xtshim-raw PREROUTING { type filter hook prerouting priority raw; policy accept; }\n\
             add rule ip xtshim-raw PREROUTING ip daddr 172.17.0.2 iifname != \"docker0\" \
             counter packets 0 bytes 0 drop\n"
                .to_owned(),
            String::new()
        )
    );
    assert_eq!(run_with(&["translate"], &format!("{rule}\n")), by_words);
}

#[test]
fn translate_reads_a_saved_table_and_leaves_others_alone() {
    let file = "# Generated by iptables-save\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m string --algo bm --string x -j DROP\n\
                COMMIT\n*raw\n:PREROUTING ACCEPT [3:180]\n:OUTPUT DROP [0:0]\n:MINE - [0:0]\n\
                [7:420] -A PREROUTING -p tcp -m tcp --dport 80 -j MINE\n-A MINE -j DROP\nCOMMIT\n";
    let (code, stdout, stderr) = run_with(&["translate", "--restore", "-", "--table", "raw"], file);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("add table ip xtshim-raw\ndelete table ip xtshim-raw\nadd table ip xtshim-raw\n"));
    assert!(stdout.contains("hook output priority raw; policy drop;"), "{stdout}");
    assert!(stdout.contains("tcp dport 80 counter packets 7 bytes 420 jump MINE\n"), "{stdout}");

    for (args, input, at_fault) in [
        (&["translate", "--restore", "-"][..], file, "line 4: -m string"),
        (&["translate", "--restore", "-", "--table", "nat"], file, "no table nat"),
        (&["translate", "--restore", "-"], "", "no table"),
        (&["translate", "--restore", "-"], "*raw\n-A PREROUTING -j DROP\n", "COMMIT"),
        (&["translate", "--restore", "-"], "-A PREROUTING -j DROP\n", "line 1: outside of a table"),
        (&["translate", "--restore", "-"], "*raw\nflush ruleset\nCOMMIT\n", "line 2"),
    ] {
        let (code, stdout, stderr) = run_with(args, input);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(at_fault), "{stderr}");
    }
}

#[test]
fn what_cannot_be_carried_is_named_and_nothing_is_printed() {
    for (line, at_fault) in [
        ("iptables -t raw -A PREROUTING -m string --algo bm --string x -j DROP", "string"),
        ("iptables -t raw -A PREROUTING -p tcp --frob 7 -j DROP", "--frob"),
        ("iptables -t broute -A PREROUTING -j ACCEPT", "-t broute"),
        ("iptables -t raw -D PREROUTING 1", "-D"),
        ("iptables -t raw -L", "changes nothing"),
        ("iptables -t raw -A PREROUTING -j DROP; rm", "rm"),
        ("iptables -t raw -A PREROUTING '\u{1b}[2J' -j DROP", "\\x1b[2J"),
        ("ls -l", "`ls`"),
        ("iptables -t raw -A PREROUTING -m comment --comment 'x", "quote"),
    ] {
        let input = format!("iptables -t raw -A OUTPUT -j ACCEPT\n{line}\n");
        let (code, stdout, stderr) = run_with(&["translate"], &input);
        assert_eq!((code, stdout.as_str()), (1, ""), "{line}: {stderr}");
        assert!(!stderr.contains('\u{1b}'), "{line}");
        assert!(stderr.contains(at_fault) && stderr.contains("line 2"), "{line}: {stderr}");
    }
}

/// Gives a command a network namespace of its own; `None` where that, or the program, is not to be had.
fn apart(program: &str, args: &[&str], input: &str) -> Option<(i32, String, String)> {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", program]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let _ = child.stdin.take()?.write_all(input.as_bytes());
    let output = said(&child.wait_with_output().ok()?);
    let without = output.0 == 127 || output.2.starts_with("unshare:");
    (!without).then_some(output)
}

#[test]
fn the_real_nft_takes_all_that_docker_says_to_raw() {
    for family in Family::ALL {
        let sayings = rules::docker().says(family, "raw");
        assert!(!sayings.is_empty());
        let mut lines = String::new();
        for saying in sayings {
            let args = shlex::try_join(saying.args.iter().map(String::as_str)).unwrap();
            lines.push_str(&format!("{} --wait -t raw {args}\n", family.program()));
        }
        let (code, script, stderr) = run_with(&["translate"], &lines);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(script.matches("add rule ").count(), lines.lines().count());
        let Some(checked) = apart("nft", &["-c", "-f", "-"], &script) else { return };
        assert_eq!(checked, (0, String::new(), String::new()), "{script}");

        let (code, document, stderr) = run_with(&["translate", "--format", "json"], &lines);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(document.matches(r#""rule":"#).count(), lines.lines().count());
        let Some((code, _, stderr)) = apart("nft", &["-j", "-c", "-f", "-"], &document) else { return };
        assert_eq!((code, stderr.as_str()), (0, ""), "{document}");
    }
}

#[test]
fn translate_shows_what_is_applied() {
    for line in [
        "iptables --wait -t raw -A PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP",
        "iptables -t raw -A PREROUTING -s 10.0.0.1,10.0.1.0/24 -p tcp -m multiport --dports 80,443:445 -j ACCEPT",
        "iptables -t raw -A OUTPUT -m comment --comment 'two words' -m limit --limit 3/min -j LOG --log-prefix 'x '",
        "iptables -t raw -P OUTPUT DROP",
        "iptables -t raw -N MINE",
        "ip6tables -t raw -A PREROUTING -i br-lan137 -j NOTRACK",
        "ip6tables -t raw -A PREROUTING -m addrtype --dst-type LOCAL -p udp --dport 53 -j CT --zone 7",
    ] {
        let (code, shown, stderr) = run_with(&["translate"], line);
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}");

        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("xtshim.toml");
        let journal = folder.path().join("rewrites.jsonl");
        let text = format!("[carriers]\nraw = \"nft\"\n[journal]\nfile = {:?}\nsystem = false\n", journal.display());
        fs::write(&config, text).unwrap();
        let words = shlex::split(line).unwrap();
        let set = format!("XTSHIM_CONFIG={}", config.display());
        let mut args = vec![set.as_str(), env!("CARGO_BIN_EXE_xtshim")];
        args.extend(words.iter().map(String::as_str));
        let Some(answer) = apart("env", &args, "") else { return };
        assert_eq!(answer, (0, String::new(), String::new()), "{line}");
        let record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&journal).unwrap()).unwrap();
        let applied: Vec<&str> = record["applied"].as_array().unwrap().iter().filter_map(|l| l.as_str()).collect();
        assert_eq!(applied, shown.lines().collect::<Vec<_>>(), "{line}");
        assert_eq!(shlex::split(record["command"].as_str().unwrap()).unwrap(), words);
        assert_eq!(record["result"], "ok");
    }
}

#[test]
fn raw_in_another_table_is_shown_as_commands_of_iptables() {
    let shown = |carrier: &str, format: &str, rule: &str| {
        let head = ["translate", "--carrier", carrier, "--format", format, "--", "iptables", "-t", "raw", "-A"];
        run(&head.into_iter().chain(rule.split(' ')).collect::<Vec<_>>())
    };
    let (code, stdout, stderr) = shown("mangle", "iptables", "PREROUTING -d 172.17.0.2 ! -i docker0 -j ACCEPT");
    assert_eq!((code, stderr.as_str()), (0, ""));
    let rule = "iptables -t mangle -A xtshim-raw-PREROUTING -d 172.17.0.2/32 '!' -i docker0 -j RETURN\n";
    assert!(stdout.contains(rule), "{stdout}");
    assert!(stdout.ends_with("iptables -t mangle -I OUTPUT 1 -j xtshim-raw-OUTPUT\n"), "{stdout}");

    let rule = "PREROUTING -p tcp -d 127.0.0.1 --dport 8080 ! -i lo -j DROP";
    let (code, stdout, _) = shown("filter", "iptables", rule);
    assert_eq!(code, 0);
    let reply = "'!' -i lo -m conntrack --ctrepldst 127.0.0.1 --ctrepldstport 8080 --ctdir REPLY -j DROP\n";
    assert!(stdout.contains(reply), "{stdout}");

    for (carrier, format, rule) in [
        ("filter", "iptables", "PREROUTING -j DROP"),
        ("mangle", "iptables", "PREROUTING -j NOTRACK"),
        ("mangle", "nft", "PREROUTING -j DROP"),
        ("nft", "iptables", "PREROUTING -j DROP"),
    ] {
        let (code, stdout, stderr) = shown(carrier, format, rule);
        assert_eq!((code, stdout.as_str()), (1, ""), "{carrier} {format} {rule}");
        assert!(!stderr.is_empty());
    }
}

/// An iptables that says yes to everything about raw and does nothing.
fn liar(folder: &Path) {
    let put = |name: String, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for family in Family::ALL {
        let real = format!("{}-legacy", family.program());
        // What was added is found again, as the name of a file.
        let text = format!(
            "#!/bin/sh\nfile=/run/$(echo \"$*\" | sed 's/-[ACD] //' | tr '/ ' '__')\ncase \"$*\" in\n\
             *'-t raw -C'*) [ -e \"$file\" ]; exit $?;;\n\
             *'-t raw -A'*) exec touch \"$file\";;\n\
             *'-t raw -D'*) exec rm \"$file\";;\n\
             esac\nexec /usr/sbin/{real} \"$@\"\n"
        );
        put(real.clone(), text);
        for tool in ["save", "restore"] {
            put(format!("{real}-{tool}"), format!("#!/bin/sh\nexec /usr/sbin/{real}-{tool} \"$@\"\n"));
        }
    }
}

#[test]
fn selftest_sees_through_an_iptables_that_only_says_yes() {
    if !Path::new("/usr/sbin/iptables-legacy").exists() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    liar(folder.path());
    let mut command = xtshim(folder.path());
    let config = format!(
        "backend = \"legacy\"\n[carriers]\nraw = \"backend\"\n[backends]\ndirectory = {:?}\n",
        folder.path().display()
    );
    fs::write(folder.path().join("xtshim.toml"), config).unwrap();
    let (code, stdout, stderr) = said(&command.arg("selftest").output().unwrap());
    assert_eq!((code, stderr.as_str()), (1, ""), "{stdout}");
    if stdout.contains("throwaway network namespace") {
        return;
    }
    assert!(stdout.contains("FAIL    IPv4  packets with the rule, it does not"), "{stdout}");
    assert!(stdout.contains("FAIL    IPv4  raw"), "{stdout}");
    assert!(stdout.contains("ok      IPv4  filter"), "{stdout}");
    assert!(stdout.contains("would not work"), "{stdout}");
}

/// Runs where the system lets anyone make a network namespace; says so where it does not.
#[test]
fn selftest_gives_a_verdict_within_seconds_and_leaves_nothing() {
    let before = fs::read_to_string("/proc/net/dev").unwrap();
    let start = Instant::now();
    let (code, stdout, stderr) = run(&["selftest"]);
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(code == 0 || code == 1, "{code}: {stderr}");
    assert_eq!(stderr, "");
    let verdict = stdout.contains("Docker 28") || stdout.contains("throwaway network namespace");
    assert!(verdict, "{stdout}");
    let names = |text: &str| text.lines().filter_map(|l| l.split(':').next().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&fs::read_to_string("/proc/net/dev").unwrap()));
}
