//! SELinux: what it has denied xtshim.

#![forbid(unsafe_code)]

use super::{Diagnosis, Facts};
use crate::front::Front;
use std::collections::BTreeSet;

/// auditd's log (auditd.conf(5), log_file).
const LOG: &str = "/var/log/audit/audit.log";

/// How many denials are shown, the last ones.
const SHOWN: usize = 5;

/// Looks at it.
pub fn check(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let Some(enforcing) = facts.host.line("/sys/fs/selinux/enforce") else { return };
    // Without auditd the kernel tells its own log.
    let Some(log) = facts.host.text(LOG).or_else(|| facts.host.said(&["dmesg"])) else {
        let why = "there is no /var/log/audit/audit.log, and dmesg says nothing";
        diagnosis.unchecked("what SELinux has denied xtshim", why);
        return;
    };
    let mut evidence = denials(&log, facts.front.is_ours);
    if evidence.is_empty() {
        return;
    }
    let mode = if enforcing == "1" { "enforcing" } else { "permissive: it only tells" };
    evidence.push(format!("SELinux is {mode}"));
    diagnosis.find("selinux-denied", evidence, &[("program", &program(&log))]);
}

/// The last lines that tell of a denial of ours. A line on a denial bears the name of the call alone, which is the real
/// iptables' too; the line on the system call, which has the same number, bears the program.
fn denials(log: &str, ours_in_front: bool) -> Vec<String> {
    let events: BTreeSet<&str> = log.lines().filter(|line| is_ours(line)).filter_map(number).collect();
    let ours = |line: &&str| {
        let name = value(line, "comm").unwrap_or_default();
        line.contains("avc:")
            && line.contains("denied")
            && (name == "xtshim"
                || ours_in_front && Front::by_name(name).is_some()
                || number(line).is_some_and(|number| events.contains(number)))
    };
    let mut seen = BTreeSet::new();
    let mut last: Vec<&str> =
        log.lines().rev().filter(ours).filter(|line| seen.insert(denied(line))).take(SHOWN).collect();
    last.reverse();
    last.into_iter().map(str::to_owned).collect()
}

fn is_ours(line: &str) -> bool {
    value(line, "exe").is_some_and(|program| program.rsplit('/').next() == Some("xtshim"))
}

/// Where xtshim is, as the log has it.
fn program(log: &str) -> String {
    let said = log.lines().rev().filter(|line| is_ours(line)).find_map(|line| value(line, "exe"));
    said.unwrap_or("/usr/sbin/xtshim").to_owned()
}

/// `123.456:789` of `msg=audit(123.456:789):`, or of the kernel's own `audit(123.456:789):`.
fn number(line: &str) -> Option<&str> {
    line.split_once("audit(")?.1.split_once(')').map(|(number, _)| number)
}

/// `value` of ` name="value"`.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.match_indices(name).find_map(|(at, _)| {
        let begins = at == 0 || line.get(..at)?.ends_with(' ');
        line.get(at + name.len()..)?.strip_prefix("=\"").filter(|_| begins)
    })?;
    rest.split_once('"').map(|(value, _)| value)
}

/// What tells one denial from another: what was wanted, and of what.
fn denied(line: &str) -> (&str, &str) {
    let wanted = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(wanted, _)| wanted);
    let class = line.split_once("tclass=").map_or("", |(_, rest)| rest.split(' ').next().unwrap_or_default());
    (wanted, class)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
type=AVC msg=audit(1.5:7): avc:  denied  { create } for  pid=8 comm=\"iptables\" scontext=system_u:system_r:iptables_t:s0 tcontext=system_u:system_r:iptables_t:s0 tclass=user_namespace permissive=0
type=SYSCALL msg=audit(1.5:7): arch=c000003e syscall=272 success=no exit=-13 pid=8 comm=\"iptables\" exe=\"/usr/sbin/xtshim\"
type=AVC msg=audit(1.5:8): avc:  denied  { read } for  pid=9 comm=\"iptables\" name=\"x\" tclass=file permissive=0
type=SYSCALL msg=audit(1.5:8): arch=c000003e syscall=2 success=no exit=-13 pid=9 comm=\"iptables\" exe=\"/usr/sbin/xtables-nft-multi\"
type=AVC msg=audit(1.5:9): avc:  denied  { write } for  pid=10 comm=\"xtshim\" tclass=file permissive=1
type=AVC msg=audit(1.5:10): avc:  denied  { write } for  pid=11 comm=\"xtshim\" tclass=file permissive=1
type=AVC msg=audit(1.5:11): avc:  granted  { write } for  pid=12 comm=\"xtshim\" tclass=file
type=AVC msg=audit(1.5:12): avc:  denied  { write } for  pid=13 comm=\"nginx\" tclass=file permissive=1
";

    #[test]
    fn only_ours_and_each_once() {
        let numbers = |ours_in_front| -> Vec<String> {
            denials(LOG, ours_in_front).iter().filter_map(|line| number(line)).map(str::to_owned).collect()
        };
        assert_eq!(numbers(false), ["1.5:7", "1.5:10"]);
        assert_eq!(numbers(true), ["1.5:7", "1.5:8", "1.5:10"], "whatever is called iptables is ours there");
        assert_eq!(program(LOG), "/usr/sbin/xtshim");
    }
}
