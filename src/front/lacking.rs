//! What a kernel lacks for a rule that it has refused: the words of the backend do not say, the journal does.

#![forbid(unsafe_code)]

use super::context::Context;
use crate::error::Error;
use crate::family::Family;
use crate::iptables::ext::catalogue::{self, Known};
use crate::iptables::restore::{Line, read_line};
use crate::iptables::rule::Target;
use crate::iptables::translate::TranslateContext;
use crate::iptables::{self, Command, Rule};
use crate::probe::{self, CapabilityFacts};

/// Why the kernel has refused one of these rules: an extension, and the kernel option or module behind it.
pub fn for_command(context: &Context, command: &Command) -> Option<String> {
    let (Command::Append { rules, .. } | Command::Insert { rules, .. } | Command::Replace { rules, .. }) = command
    else {
        return None;
    };
    let facts = facts(context, rules)?;
    rules.iter().find_map(|rule| lacking(context.front.family, rule, &facts))
}

/// The same of a table's lines in a restore file, and the number of the line.
pub fn for_lines(context: &Context, table: &str, lines: &[(usize, &str)]) -> Option<(usize, String)> {
    let (family, dialect) = (context.front.family, context.dialect());
    let rules = |text: &str| match read_line(text) {
        Line::Command { args, .. } => {
            let words: Vec<String> = ["-t", table].into_iter().map(str::to_owned).chain(args).collect();
            match iptables::parse(family, &words, &dialect).map(|read| read.command) {
                Ok(Command::Append { rules, .. } | Command::Insert { rules, .. } | Command::Replace { rules, .. }) => {
                    rules
                }
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    let read: Vec<(usize, Vec<Rule>)> = lines.iter().map(|(number, text)| (*number, rules(text))).collect();
    let facts = facts(context, read.iter().flat_map(|(_, rules)| rules))?;
    read.iter()
        .find_map(|(number, rules)| rules.iter().find_map(|rule| Some((*number, lacking(family, rule, &facts)?))))
}

/// What of a table's lines in a restore file cannot be carried, and the number of the line; or that it cannot be read.
pub fn uncarriable(context: &Context, table: &str, lines: &[(usize, &str)]) -> Option<(usize, String)> {
    let (family, dialect) = (context.front.family, context.dialect());
    let refused = |text: &str| {
        let Line::Command { args, .. } = read_line(text) else { return None };
        let words: Vec<String> = ["-t", table].into_iter().map(str::to_owned).chain(args).collect();
        let (chain, rules) = match iptables::parse(family, &words, &dialect).map(|read| read.command) {
            Ok(
                Command::Append { chain, rules }
                | Command::Insert { chain, rules, .. }
                | Command::Replace { chain, rules, .. },
            ) => (chain, rules),
            // A line for the other family is none for this.
            Ok(_) | Err(Error::WrongFamily) => return None,
            Err(Error::Refused(refusal)) => return Some(refusal.to_string()),
            Err(error) => return Some(error.render(&dialect).trim_end().to_owned()),
        };
        let place = TranslateContext { family, table, chain: &chain };
        rules.iter().find_map(|rule| rule.translate(&place).err()).map(|refusal| refusal.to_string())
    };
    lines.iter().find_map(|(number, text)| Some((*number, refused(text)?)))
}

/// What the probe has found out; `None` where no rule takes more than every table does.
fn facts<'a>(context: &Context, rules: impl IntoIterator<Item = &'a Rule>) -> Option<Vec<CapabilityFacts>> {
    let family = context.front.family;
    let needy = rules.into_iter().any(|rule| extensions(family, rule).any(|known| !known.needs.is_empty()));
    needy.then(|| probe::report(&context.config, false).1.capabilities)
}

fn lacking(family: Family, rule: &Rule, facts: &[CapabilityFacts]) -> Option<String> {
    let missing = |need: &str| {
        let of_kernel = |fact: &&CapabilityFacts| fact.backend.is_none() && fact.family == family.nft();
        facts.iter().filter(of_kernel).find(|fact| fact.name == need && fact.ability.is_missing())
    };
    extensions(family, rule).find_map(|known| {
        let fact = known.needs.iter().find_map(|need| missing(need))?;
        Some(format!("{} takes {}: {}", known.name, fact.what, fact.ability.why()))
    })
}

/// What the rule names of the catalogue.
fn extensions(family: Family, rule: &Rule) -> impl Iterator<Item = &'static Known> {
    let here = move |known: &&Known, name: &str| known.name == name && known.family.is_none_or(|only| only == family);
    let matches: Vec<&'static str> = rule.matches.iter().map(|extension| extension.name()).collect();
    let target = match &rule.target {
        Target::Extension(target) => Some(target.name()),
        _ => None,
    };
    let of_matches =
        matches.into_iter().filter_map(move |name| catalogue::MATCHES.iter().find(|known| here(known, name)));
    of_matches
        .chain(target.into_iter().filter_map(move |name| catalogue::TARGETS.iter().find(|known| here(known, name))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::dialect::{Dialect, Variant};
    use crate::probe::Ability;

    #[test]
    fn the_missing_option_is_named() {
        let fact = |name: &str, family: Family, ability| CapabilityFacts {
            name: name.to_owned(),
            what: format!("what {name} is"),
            family: family.nft().to_owned(),
            backend: None,
            ability,
            options: Default::default(),
            modules: Default::default(),
        };
        let why = "not built into this kernel (CONFIG_NFT_CT is not set)".to_owned();
        let facts = [fact("nft-log", Family::V4, Ability::Able), fact("nft-ct", Family::V4, Ability::Missing { why })];
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
        let told = |words: &str| {
            let words: Vec<String> = format!("-A INPUT {words}").split(' ').map(str::to_owned).collect();
            match iptables::parse(Family::V4, &words, &dialect).expect("a rule").command {
                Command::Append { rules, .. } => lacking(Family::V4, &rules[0], &facts),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(told("-p tcp --dport 5 -j LOG"), None);
        assert_eq!(
            told("-p tcp -m conntrack --ctstate NEW -j LOG").as_deref(),
            Some("conntrack takes what nft-ct is: not built into this kernel (CONFIG_NFT_CT is not set)")
        );
    }
}
