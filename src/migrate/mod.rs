//! What DOCKER-USER of iptables says, as a table of nftables that stands before Docker's own.
//!
//! In iptables `-j ACCEPT` there ends the whole table, Docker's rules included. In nftables an accept ends one base chain,
//! and Docker's comes behind it all the same: so an ACCEPT becomes a mark, which dockerd is told to accept.

#![forbid(unsafe_code)]

use crate::doctor::{Held, Line};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::dialect::{Dialect, Variant};
use crate::iptables::rule::Target;
use crate::iptables::{Command, Rule, TranslateContext, parse};
use crate::nft::expr::{Alternative, Expr, Verdict};
use crate::nft::{BaseChain, Batch, ChainKind, Connection, HookPoint, Policy, Position, Table, names, userdata};
use std::fmt;

/// The table that holds what DOCKER-USER held. dockerd deletes tables of other names that begin with `docker-`.
pub const TABLE: &str = "before-docker";

/// The chain that the administrator's rules are in.
pub const CHAIN: &str = "DOCKER-USER";

/// Its base chain.
const BASE: &str = "FORWARD";

/// Right before Docker's chain, which stands at `filter` (`enum nf_ip_hook_priorities`, linux/netfilter_ipv4.h).
const PRIORITY: i32 = -1;

/// Grammar that the rules are read by: the newest.
const VERSION: (u16, u16, u16) = (1, 8, 13);

/// Bits of the mark in the order in which they are tried. The others are in use by many programs that make no rules
/// beforehand (kube-proxy 0xc000, tailscale 0xff0000, Docker's overlay networks 0xd0c4e3).
const BITS: [u32; 8] = [1 << 28, 1 << 27, 1 << 26, 1 << 25, 1 << 24, 1 << 29, 1 << 30, 1 << 31];

/// What stands for an ACCEPT: `mark & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bits that are set.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
}

impl Mark {
    /// Reads `N` or `N/MASK`, decimal or with `0x`.
    pub fn parse(text: &str) -> Option<Self> {
        let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
        let mark = Self { value: number(value)?, mask: mask.map_or(Some(u32::MAX), number)? };
        (mark.value != 0 && mark.value & !mark.mask == 0).then_some(mark)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Why a rule cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The rule, as iptables-save writes it.
    pub rule: String,
    /// One clause.
    pub why: String,
}

/// A chain's name, and its rules with their comments.
type Chain = (String, Vec<(Alternative, Option<String>)>);

/// One family's part of the move.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Of the rules.
    pub family: Family,
    /// Chains, DOCKER-USER first, and their rules with their comments.
    chains: Vec<Chain>,
    /// Jumps to DOCKER-USER.
    entries: Vec<Alternative>,
    /// Rules that were moved.
    pub rules: usize,
    /// Rules that accept.
    pub accepts: usize,
    /// What is not the same, or was not in force: a clause each.
    pub remarks: Vec<String>,
}

/// Whether that table is there, in the calling thread's network namespace.
pub fn is_applied(family: Family) -> bool {
    Connection::open().and_then(|mut connection| connection.table(family, TABLE)).is_ok_and(|table| table.is_some())
}

/// Whether a DOCKER-USER says anything: the RETURN at its end that Docker put there until 28.2 does not.
pub fn says_something(held: &Held) -> bool {
    held.of(CHAIN).any(|line| line.args != ["-j", "RETURN"])
}

/// A bit of the mark that no rule, and no routing rule, has a use for. `texts`: what else speaks of marks, such as the
/// nftables ruleset.
pub fn free_mark(tables: &[Held], texts: &[String]) -> Option<Mark> {
    let rules = tables.iter().flat_map(|held| &held.rules);
    let of_rules = rules.flat_map(|line| marks_of(&line.args)).fold(0, |used, bits| used | bits);
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    let words = words.map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
    // Decimal numbers there are something else: both nft and ip print marks in hexadecimal.
    let words = words.filter(|word| word.starts_with("0x")).flat_map(|word| word.split('/'));
    let of_texts = words.filter_map(number).filter(is_bits);
    let used = of_texts.fold(of_rules, |used, bits| used | bits);
    BITS.into_iter().find(|bit| used & bit == 0).map(|bit| Mark { value: bit, mask: bit })
}

/// A mask of everything says nothing of which bits are used.
fn is_bits(bits: &u32) -> bool {
    *bits != u32::MAX
}

fn marks_of(args: &[String]) -> Vec<u32> {
    let speaks =
        ["--mark", "--set-mark", "--set-xmark", "--or-mark", "--and-mark", "--xor-mark", "--nfmask", "--ctmask"];
    let pairs = args.windows(2).filter(|pair| speaks.contains(&pair[0].as_str()));
    let values = pairs.flat_map(|pair| pair[1].split('/').map(number).collect::<Vec<_>>());
    values.flatten().filter(is_bits).collect()
}

/// Puts the DOCKER-USER of one table, with the chains that it leads to, into nf_tables' words.
///
/// # Errors
/// Every rule that has no exact form.
pub fn translate(held: &Held, mark: Mark) -> Result<Moved, Vec<Obstacle>> {
    let family = held.family;
    let mut moved =
        Moved { family, chains: Vec::new(), entries: Vec::new(), rules: 0, accepts: 0, remarks: Vec::new() };
    let mut obstacles = Vec::new();
    let mut pending = vec![CHAIN.to_owned()];
    while let Some(name) = pending.pop() {
        if moved.chains.iter().any(|(known, _)| *known == name) {
            continue;
        }
        if !names::chain_name_ok(&name) {
            obstacles
                .push(Obstacle { rule: format!("-N {name}"), why: "nft's syntax cannot hold that name".to_owned() });
        }
        let mut rules = Vec::new();
        for line in held.of(&name) {
            match one(family, line, mark, &mut moved) {
                Ok((parts, comment, jump)) => {
                    pending.extend(jump);
                    rules.extend((0..).zip(parts).map(|(part, rule)| (rule, comment.clone().filter(|_| part == 0))));
                }
                Err(why) => obstacles.push(Obstacle { rule: line.text(), why }),
            }
        }
        moved.chains.push((name, rules));
    }
    for line in held.of(BASE).filter(|line| line.target() == CHAIN) {
        match one(family, line, mark, &mut moved) {
            Ok((parts, _, _)) => {
                moved.rules -= 1;
                moved.entries.extend(parts);
            }
            Err(why) => obstacles.push(Obstacle { rule: line.text(), why }),
        }
    }
    if moved.entries.is_empty() {
        moved
            .remarks
            .push(format!("FORWARD of {} does not jump to {CHAIN}: its rules were not in force", family.program()));
        moved.entries.push(vec![Expr::Verdict(Verdict::Jump(CHAIN.to_owned()))]);
    }
    if obstacles.is_empty() { Ok(moved) } else { Err(obstacles) }
}

type Parts = (Vec<Alternative>, Option<String>, Option<String>);

fn one(family: Family, line: &Line, mark: Mark, moved: &mut Moved) -> Result<Parts, String> {
    let dialect = Dialect { family, variant: Variant::Nft, version: VERSION };
    let words: Vec<String> =
        ["-A".to_owned(), line.chain.clone()].into_iter().chain(line.args.iter().cloned()).collect();
    let read = parse(family, &words, &dialect).map_err(|error| clause(&error, &dialect))?;
    let rule = match read.command {
        Command::Append { mut rules, .. } if rules.len() == 1 => rules.remove(0),
        _ => return Err("is not one rule".to_owned()),
    };
    refuse(&rule).map_err(|refusal| refusal.to_string())?;
    let context = TranslateContext { family, table: "filter", chain: &line.chain };
    let mut parts = rule.translate(&context).map_err(|refusal| refusal.to_string())?;
    if matches!(rule.target, Target::Accept) {
        moved.accepts += 1;
        for part in &mut parts {
            let at = part.len().saturating_sub(1);
            part.insert(at, Expr::MarkSet { value: mark.value, mask: mark.mask });
        }
    }
    moved.rules += 1;
    let comment = rule.comment().map(str::to_owned);
    if comment.as_deref().is_some_and(|comment| !names::comment_ok(comment)) {
        moved.remarks.push(format!("nft cannot hold the comment of `{}'", line.text()));
    }
    Ok((parts, comment, rule.jump().map(str::to_owned)))
}

/// Refuses what ends the whole table in iptables, and would end one base chain here.
fn refuse(rule: &Rule) -> Result<(), Refusal> {
    match &rule.target {
        Target::Extension(target) if target.name() == "NFQUEUE" => {
            Err(Refusal::new("-j NFQUEUE", "what the program accepts would still meet Docker's rules"))
        }
        _ => Ok(()),
    }
}

fn clause(error: &Error, dialect: &Dialect) -> String {
    match error {
        Error::Refused(refusal) => refusal.to_string(),
        other => other.render(dialect).lines().next().unwrap_or_default().to_owned(),
    }
}

/// All of it as one transaction: made anew, whatever is there.
pub fn batch(moved: &[Moved]) -> Batch {
    let mut batch = Batch::new();
    for one in moved {
        let at = Table { family: one.family, name: TABLE };
        batch.add_table(at);
        batch.delete_table(at);
        batch.add_table(at);
        batch.add_base_chain(
            at,
            BaseChain {
                name: BASE,
                hook: HookPoint::Forward,
                priority: PRIORITY,
                kind: ChainKind::Filter,
                policy: Policy::Accept,
                counters: (0, 0),
            },
        );
        for (name, _) in &one.chains {
            batch.add_chain(at, name);
        }
        for (name, rules) in &one.chains {
            for (rule, comment) in rules {
                let data = comment.as_deref().map(userdata::comment_alone).unwrap_or_default();
                batch.add_rule(at, name, Position::Append, rule, &data);
            }
        }
        for entry in &one.entries {
            batch.add_rule(at, BASE, Position::Append, entry, &[]);
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Source, read_saved};
    use crate::nft::text;

    fn held(rules: &str) -> Held {
        let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n:DOCKER-USER - [0:0]\n:U - [0:0]\n{rules}COMMIT\n");
        read_saved(Source::Backend(Variant::Nft), Family::V4, &text).remove(0)
    }

    fn moved(rules: &str) -> Vec<String> {
        let one = translate(&held(rules), Mark { value: 0x10, mask: 0x10 }).expect("it can be said");
        text::commands(&batch(&[one])).expect("printable").split_off(4)
    }

    #[test]
    fn an_accept_becomes_a_mark_and_the_rest_stays() {
        let lines = moved(
            "-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -s 10.0.0.1/32 -m comment --comment \"my rule\" -j ACCEPT\n\
             -A DOCKER-USER -i eth0 -j U\n-A DOCKER-USER -j RETURN\n-A U -p tcp -m tcp --dport 22 -j DROP\n",
        );
        let chain = "add rule ip before-docker DOCKER-USER";
        let counter = "counter packets 0 bytes 0";
        assert_eq!(
            lines,
            [
                "add chain ip before-docker DOCKER-USER".to_owned(),
                "add chain ip before-docker U".to_owned(),
                format!(
                    "{chain} ip saddr 10.0.0.1 {counter} meta mark set meta mark & 0xffffffef ^ 0x00000010 accept comment \"my rule\""
                ),
                format!("{chain} iifname \"eth0\" {counter} jump U"),
                format!("{chain} {counter} return"),
                format!(
                    "add rule ip before-docker U meta l4proto tcp ip frag-off & 8191 == 0 tcp dport 22 {counter} drop"
                ),
                format!("add rule ip before-docker FORWARD {counter} jump DOCKER-USER"),
            ]
        );
    }

    #[test]
    fn what_cannot_be_said_is_named_all_of_it() {
        let rules =
            "-A DOCKER-USER -m set --match-set bad src -j DROP\n-A DOCKER-USER -j NFQUEUE\n-A DOCKER-USER -j DROP\n";
        let obstacles = translate(&held(rules), Mark { value: 1, mask: 1 }).expect_err("it cannot");
        let rules: Vec<&str> = obstacles.iter().map(|one| one.rule.as_str()).collect();
        assert_eq!(rules, ["-A DOCKER-USER -m set --match-set bad src -j DROP", "-A DOCKER-USER -j NFQUEUE"]);
    }

    #[test]
    fn a_bit_that_nobody_uses_is_found() {
        let none = free_mark(&[], &[]).expect("one");
        assert_eq!(none.value, 1 << 28);
        let used = held("-A DOCKER-USER -m mark --mark 0x10000000/0x30000000 -j DROP\n");
        assert_eq!(free_mark(std::slice::from_ref(&used), &[]).map(|mark| mark.value), Some(1 << 27));
        let text = "meta mark & 0x0f000000 == 0x08000000 accept".to_owned();
        assert_eq!(free_mark(&[used], &[text]).map(|mark| mark.value), Some(1 << 30));
    }

    #[test]
    fn marks_are_read() {
        assert_eq!(Mark::parse("0x10/0xff"), Some(Mark { value: 0x10, mask: 0xff }));
        assert_eq!(Mark::parse("16"), Some(Mark { value: 16, mask: u32::MAX }));
        assert_eq!(Mark::parse("0x100/0xff"), None);
        assert_eq!(Mark::parse("0"), None);
        assert_eq!(Mark::parse("x"), None);
        assert_eq!(Mark { value: 16, mask: 16 }.to_string(), "0x10/0x10");
    }
}
