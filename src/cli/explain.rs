//! `xtshim explain`: one command in plain words.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::carrier::nft::builtins;
use crate::config::CarrierKind;
use crate::error::Error;
use crate::family::Family;
use crate::iptables::address::AddressMatch;
use crate::iptables::dialect::{Dialect, Variant};
use crate::iptables::ext::{Extension, Form};
use crate::iptables::interface::InterfaceMatch;
use crate::iptables::rule::Target;
use crate::iptables::{Command, Invocation, Rule, TranslateContext, parse, protocol, restore};
use crate::journal::escape;
use crate::nft::{Connection, text};
use crate::plan;
use crate::probe::{self, Standing};
use crate::rules;
use anyhow::{Context, anyhow, bail};
use once_cell::sync::Lazy;
use serde::Deserialize;
use std::io::Write;

const TEXTS: &str = include_str!("../../rules/explain.toml");

/// Whose grammar is read: the newest that the drift between versions is known of.
const VERSION: (u16, u16, u16) = (1, 8, 11);

/// Say in plain words what a command of iptables means, and what would carry it here.
///
/// What it matches, where on a packet's way it is asked, what becomes of the packet, who usually says such a thing, and
/// what holds the table on this machine and why. Does nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  xtshim explain -- iptables -t raw -A PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP
  xtshim explain -- iptables -I DOCKER-USER -i eth0 ! -s 192.0.2.0/24 -j DROP")]
pub struct Args {
    /// The command, beginning with iptables or ip6tables
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    hook: Vec<Hook>,
    table: Vec<Named>,
    target: Vec<Named>,
    option: Vec<Opt>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hook {
    name: String,
    when: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opt {
    of: String,
    name: String,
    says: String,
}

// That the file parses is what the test below is for; a program cannot be built from another.
static FILE: Lazy<Texts> = Lazy::new(|| toml::from_str(TEXTS).unwrap_or_default());

/// Explains it.
///
/// # Errors
/// A command that iptables would not take, a bad configuration.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let (program, words) = args.command.split_first().context("no command")?;
    let name = program.rsplit('/').next().unwrap_or(program);
    let Some(family) = Family::ALL.into_iter().find(|family| family.program() == name) else {
        bail!("`{name}` is not iptables or ip6tables");
    };
    let dialect = Dialect { family, variant: Variant::Nft, version: VERSION };
    let invocation = parse(family, words, &dialect).map_err(|error| anyhow!(words_of(&error, &dialect)))?;
    let standing = probe::standing();
    if let Some(error) = standing.error {
        return Err(error.into());
    }
    for (title, line) in explain(&invocation, words, &standing) {
        writeln!(out, "{title:<8} {}", escape(&line))?;
    }
    Ok(Outcome::Well)
}

fn words_of(error: &Error, dialect: &Dialect) -> String {
    match error {
        Error::Refused(refusal) => refusal.to_string(),
        other => other.render(dialect).trim_end().to_owned(),
    }
}

type Lines = Vec<(&'static str, String)>;

fn explain(invocation: &Invocation, words: &[String], standing: &Standing) -> Lines {
    let (family, table) = (invocation.family, invocation.table.as_str());
    let mut lines = vec![("command", command(invocation))];
    let known = FILE.table.iter().find(|known| known.name == table);
    let chain = chain(&invocation.command);
    lines.extend(chain.map(|chain| ("where", place(table, chain, known.map(|known| known.what.as_str())))));
    let rules = rules_of(&invocation.command);
    for rule in rules {
        lines.push(("matches", matches(rule)));
        lines.push(("then", then(rule)));
    }
    lines.extend(said_by_docker(family, table, words).map(|line| ("docker", line)));
    lines.extend(carried(invocation, rules, standing));
    lines
}

fn command(invocation: &Invocation) -> String {
    let of =
        format!("the {} table {}", if invocation.family == Family::V4 { "IPv4" } else { "IPv6" }, invocation.table);
    match &invocation.command {
        Command::Append { chain, rules } => format!("puts {} at the end of {chain} in {of}", count(rules.len())),
        Command::Insert { chain, position: 1, rules } => {
            format!("puts {} first in {chain} in {of}", count(rules.len()))
        }
        Command::Insert { chain, position, .. } => format!("puts a rule at place {position} of {chain} in {of}"),
        Command::Replace { chain, position, .. } => format!("puts another rule at place {position} of {chain} in {of}"),
        Command::DeleteRule { chain, .. } => format!("takes this rule out of {chain} in {of}"),
        Command::DeleteNumber { chain, position } => format!("takes rule {position} out of {chain} in {of}"),
        Command::Check { chain, .. } => format!("asks whether this rule is in {chain} of {of}; changes nothing"),
        Command::List { chain, .. } | Command::ListRules { chain, .. } => match chain {
            Some(chain) => format!("shows {chain} of {of}; changes nothing"),
            None => format!("shows {of}; changes nothing"),
        },
        Command::Flush { chain: Some(chain) } => format!("takes all rules out of {chain} in {of}"),
        Command::Flush { chain: None } => format!("takes all rules out of {of}; policies and chains stay"),
        Command::Zero { .. } => format!("sets counters of {of} to zero"),
        Command::NewChain { chain } => format!("makes a chain {chain} in {of}; a rule has to jump there"),
        Command::DeleteChain { chain: Some(chain) } => format!("takes the empty chain {chain} away from {of}"),
        Command::DeleteChain { chain: None } => format!("takes the empty chains of one's own away from {of}"),
        Command::RenameChain { from, to } => format!("calls the chain {from} of {of} {to}"),
        Command::Policy { chain, policy, .. } => {
            format!(
                "what reaches the end of {chain} in {of} is {}",
                if policy == "DROP" { "thrown away" } else { "let through" }
            )
        }
        Command::Version => "says the version".to_owned(),
        Command::Help => "says how it is used".to_owned(),
    }
}

fn count(rules: usize) -> String {
    if rules == 1 { "a rule".to_owned() } else { format!("{rules} rules") }
}

fn chain(command: &Command) -> Option<&str> {
    match command {
        Command::Append { chain, .. }
        | Command::Insert { chain, .. }
        | Command::Replace { chain, .. }
        | Command::DeleteRule { chain, .. }
        | Command::DeleteNumber { chain, .. }
        | Command::Check { chain, .. }
        | Command::NewChain { chain }
        | Command::Policy { chain, .. } => Some(chain),
        Command::Flush { chain } | Command::List { chain, .. } | Command::ListRules { chain, .. } => chain.as_deref(),
        _ => None,
    }
}

fn rules_of(command: &Command) -> &[Rule] {
    match command {
        Command::Append { rules, .. }
        | Command::Insert { rules, .. }
        | Command::Replace { rules, .. }
        | Command::DeleteRule { rules, .. }
        | Command::Check { rules, .. } => rules,
        _ => &[],
    }
}

fn place(table: &str, chain: &str, what: Option<&str>) -> String {
    let table_is = what.map(|what| format!("; {table} is {what}")).unwrap_or_default();
    let builtin = builtins(table).iter().find(|builtin| builtin.name == chain);
    match (builtin, FILE.hook.iter().find(|hook| hook.name == chain)) {
        (Some(builtin), Some(hook)) => {
            let at = format!("hook {}, priority {}", builtin.hook.nft(), builtin.priority);
            format!("{chain} is asked {} ({at}){table_is}", hook.when)
        }
        _ => format!("{chain} is a chain of somebody's own: it is asked where a rule jumps to it{table_is}"),
    }
}

fn matches(rule: &Rule) -> String {
    let mut parts = Vec::new();
    parts.extend(rule.source.as_ref().map(|wanted| address("from", wanted)));
    parts.extend(rule.destination.as_ref().map(|wanted| address("to", wanted)));
    parts.extend(rule.input.as_ref().map(|wanted| interface("comes in by", wanted)));
    parts.extend(rule.output.as_ref().map(|wanted| interface("leaves by", wanted)));
    if rule.protocol.number != 0 {
        let name = protocol::built_in_name(rule.protocol.number).map(str::to_owned);
        let name = name.unwrap_or_else(|| format!("protocol {}", rule.protocol.number));
        parts.push(format!("{}{name}", if rule.protocol.inverted { "anything but " } else { "" }));
    }
    parts.extend(rule.fragment.map(|inverted| {
        if inverted { "whole, or a first fragment" } else { "a fragment behind the first" }.to_owned()
    }));
    parts.extend(rule.matches.iter().flat_map(|one| phrases(one.as_ref())));
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "every packet there".to_owned() } else { format!("packets: {}", parts.join("; ")) }
}

fn address(word: &str, wanted: &AddressMatch) -> String {
    let not = if wanted.inverted { "not " } else { "" };
    if wanted.network.is_all() && !wanted.inverted {
        String::new()
    } else {
        format!("{not}{word} {}", wanted.network.text())
    }
}

fn interface(verb: &str, wanted: &InterfaceMatch) -> String {
    let name = match wanted.name.strip_suffix('+') {
        Some(start) => format!("an interface whose name begins with `{start}`"),
        None => wanted.name.clone(),
    };
    let by = if wanted.inverted { format!("{verb} anything but {name}") } else { format!("{verb} {name}") };
    if wanted.is_all() && !wanted.inverted { String::new() } else { by }
}

/// Each option of an extension in words; what there are no words for as it is written.
fn phrases(extension: &dyn Extension) -> Vec<String> {
    let mut text = String::new();
    extension.save(&mut text, &Form::Spec);
    let mut found = Vec::new();
    let mut words = restore::split(&text).unwrap_or_default().into_iter().peekable();
    let mut inverted = false;
    while let Some(word) = words.next() {
        if word == "!" {
            inverted = true;
            continue;
        }
        let mut value = Vec::new();
        while let Some(next) = words.next_if(|next| next != "!" && !next.starts_with("--")) {
            value.push(next);
        }
        let known = FILE.option.iter().find(|known| known.of == extension.name() && known.name == word);
        let value = value.join(" ");
        let phrase = match known {
            Some(known) => known.says.replace("{value}", &value),
            None => format!("{} {word} {value}", extension.name()).trim_end().to_owned(),
        };
        found.push(if inverted { format!("not {phrase}") } else { phrase });
        inverted = false;
    }
    found
}

fn then(rule: &Rule) -> String {
    let known = |name: &str| FILE.target.iter().find(|target| target.name == name).map(|target| target.what.clone());
    let what = match &rule.target {
        Target::None => "only counted".to_owned(),
        Target::Accept => known("ACCEPT").unwrap_or_default(),
        Target::Drop => known("DROP").unwrap_or_default(),
        Target::Return => known("RETURN").unwrap_or_default(),
        Target::Jump(chain) => format!("led through the rules of {chain}, and back here if those do not decide"),
        Target::Goto(chain) => format!("led to the rules of {chain}, and not back here"),
        Target::Extension(target) => {
            let what = known(target.name()).unwrap_or_else(|| format!("given to {}", target.name()));
            let phrases = phrases(target.as_ref());
            if phrases.is_empty() { what } else { format!("{what}: {}", phrases.join("; ")) }
        }
    };
    format!("they are {what}")
}

/// Which part of Docker says such a thing, its own addresses and names apart.
fn said_by_docker(family: Family, table: &str, words: &[String]) -> Option<String> {
    let mut words = words.iter().map(String::as_str).peekable();
    let mut said: Vec<&str> = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "--wait" | "-w" => {}
            "-t" | "--table" => drop(words.next()),
            word => said.push(word),
        }
    }
    let docker = rules::docker();
    let values: Vec<&str> =
        ["bridge", "subnet", "gateway", "address", "destination", "any", "host", "loopback", "virtual"]
            .into_iter()
            .filter_map(|name| docker.value(family, name))
            .collect();
    let alike = |(one, other): (&String, &&str)| {
        let changes = |word: &str| matches!(word, "-A" | "-I" | "-D" | "-C");
        let free = values.contains(&one.as_str()) || one.parse::<u16>().is_ok() || one.contains(':');
        one == other || changes(one) && changes(other) || free && !other.starts_with('-') && *other != "!"
    };
    let sayings = docker.says(family, table);
    let found =
        sayings.iter().find(|saying| saying.args.len() == said.len() && saying.args.iter().zip(&said).all(alike))?;
    let part = docker.part(&found.part)?;
    Some(format!("{} {} says this for {}", docker.consumer, docker.release(), part.what))
}

fn carried(invocation: &Invocation, rules: &[Rule], standing: &Standing) -> Lines {
    let (family, table) = (invocation.family, invocation.table.as_str());
    let name = crate::carrier::nft::table_name(table);
    let held = Connection::open()
        .and_then(|mut connection| connection.table(family, &name))
        .is_ok_and(|found| found.is_some());
    let plan = plan::plan(family, table, &standing.config, &standing.snapshot, held);
    let carrier = plan.carrier();
    let mut lines = Lines::new();
    let by = match (carrier, &standing.snapshot.backend) {
        (CarrierKind::Backend, Some(backend)) => format!("iptables-{} itself", probe::backend_name(backend.variant)),
        (CarrierKind::Backend, None) => "nothing: there is no iptables".to_owned(),
        (CarrierKind::Nft, _) => format!("xtshim, in the nf_tables table {} {name}", family.nft()),
        (CarrierKind::Mangle | CarrierKind::Filter, _) => {
            format!("xtshim, by chains of its own in {}", carrier.as_str())
        }
    };
    lines.push(("here", format!("{table} is held by {by}, because: {}", plan.why())));
    if carrier != CarrierKind::Nft {
        return lines;
    }
    let Some(chain) = chain(&invocation.command) else { return lines };
    for rule in rules {
        match rule.translate(&TranslateContext { family, table, chain }) {
            Ok(parts) => {
                let printed =
                    parts.iter().map(|part| text::rule(family, part).unwrap_or_else(|problem| problem.to_string()));
                lines.extend(printed.map(|line| ("as", line)));
            }
            Err(refusal) => lines.push(("as", format!("nothing: it is refused, because {refusal}"))),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_parse_and_name_what_there_is() {
        let texts = toml::from_str::<Texts>(TEXTS).expect("explain.toml");
        for table in rules::tables() {
            assert!(texts.table.iter().any(|known| known.name == table.name), "{}", table.name);
            for chain in &table.chains {
                assert!(texts.hook.iter().any(|hook| hook.name == chain.name), "{}", chain.name);
            }
        }
    }

    fn explained(line: &str) -> Lines {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let dialect = Dialect { family: Family::V4, variant: Variant::Nft, version: VERSION };
        let invocation = parse(Family::V4, &words, &dialect).expect("a command");
        let standing = Standing { config: Default::default(), error: None, snapshot: Default::default() };
        explain(&invocation, &words, &standing)
    }

    #[test]
    fn dockers_filter_of_direct_access_in_words() {
        let lines = explained("--wait -t raw -A PREROUTING -d 10.3.0.9 ! -i br-0123456789ab -j DROP");
        let the = |title: &str| lines.iter().find(|(known, _)| *known == title).map_or("", |(_, line)| line.as_str());
        assert_eq!(the("command"), "puts a rule at the end of PREROUTING in the IPv4 table raw");
        assert!(the("where").starts_with("PREROUTING is asked for each packet that comes in from a network"));
        assert!(the("where").contains("(hook prerouting, priority -300); raw is the first of the tables"));
        assert_eq!(the("matches"), "packets: to 10.3.0.9/32; comes in by anything but br-0123456789ab");
        assert_eq!(the("then"), "they are thrown away without a word to their sender");
        assert_eq!(the("docker"), "dockerd 28.5.2 says this for bridge networks and published ports");
    }

    #[test]
    fn options_are_put_into_words_and_unknown_ones_shown() {
        let lines = explained(
            "-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -m length ! --length 5 -j DNAT --to-destination 172.17.0.2:80",
        );
        let the = |title: &str| lines.iter().find(|(known, _)| *known == title).map_or("", |(_, line)| line.as_str());
        assert_eq!(the("matches"), "packets: comes in by anything but docker0; tcp; to port 80; not length --length 5");
        assert_eq!(the("then"), "they are given another destination: 172.17.0.2:80");
        assert!(the("where").starts_with("DOCKER is a chain of somebody's own"));
    }
}
