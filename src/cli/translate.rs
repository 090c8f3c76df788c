//! `xtshim translate`: what a command would be carried as, without a kernel.

#![forbid(unsafe_code)]

use super::Outcome;
use crate::carrier::Section;
use crate::carrier::hosted::{Draft, Hosting, TABLE};
use crate::carrier::nft::{Builtin, builtins, table_name};
use crate::config::CarrierKind;
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::dialect::{Dialect, Variant};
use crate::iptables::ext::Place;
use crate::iptables::restore::{self, Line};
use crate::iptables::{Command, Invocation, Rule, TranslateContext, parse};
use crate::nft::{self, BaseChain, Batch, Policy, Position, userdata};
use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Whose grammar is read: the newest that the drift between versions is known of.
const VERSION: (u16, u16, u16) = (1, 8, 11);

/// Show what a command would be carried as, without doing it.
///
/// Prints what would be sent to the kernel, as nft syntax or as libnftables' JSON; of the carriers mangle and filter, the
/// commands of iptables that make the same. Needs neither root nor a kernel that
/// can do it. What has no exact form is named on standard error, and nothing is printed then.
///
/// Without COMMAND and --restore, commands are read from standard input, one a line, quoted as for a shell.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  xtshim translate -- iptables -t raw -A PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP
  xtshim translate -- ip6tables -t raw -I PREROUTING -i br-lan -j NOTRACK | sudo nft -c -f -
  xtshim translate --format json < commands.txt
  xtshim translate --carrier filter --format iptables < commands.txt
  iptables-save | xtshim translate --table raw --restore -")]
pub struct Args {
    /// What is to carry the rules
    #[arg(long, default_value = "nft")]
    carrier: Carrier,
    /// How it is printed: nft or json of the carrier nft, iptables of the others
    #[arg(long)]
    format: Option<Format>,
    /// Read a file as iptables-save writes it; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    restore: Option<PathBuf>,
    /// Of that file, only this table
    #[arg(long, requires = "restore")]
    table: Option<String>,
    /// That file is ip6tables-save's
    #[arg(short = '6', long, requires = "restore")]
    ipv6: bool,
    /// The command, beginning with iptables or ip6tables
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Carrier {
    /// A table of our own in nf_tables
    Nft,
    /// A chain of our own in the mangle table
    Mangle,
    /// A chain of our own in the filter table
    Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// nft syntax, for `nft -f -`
    Nft,
    /// libnftables' JSON, for `nft -j -f -`
    Json,
    /// Commands for a shell
    Iptables,
}

/// Prints the translation, all of it or nothing.
///
/// # Errors
/// What cannot be read or carried, named.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let kind = match args.carrier {
        Carrier::Nft => CarrierKind::Nft,
        Carrier::Mangle => CarrierKind::Mangle,
        Carrier::Filter => CarrierKind::Filter,
    };
    let hosting = Hosting::of(kind);
    let format = args.format.unwrap_or(if hosting.is_some() { Format::Iptables } else { Format::Nft });
    if hosting.is_some() != (format == Format::Iptables) {
        bail!("the carriers mangle and filter are shown with --format iptables, nft with --format nft or json");
    }
    let mut translation = Translation { hosting, ..Translation::default() };
    if let Some(path) = &args.restore {
        let family = if args.ipv6 { Family::V6 } else { Family::V4 };
        translation.file(family, args.table.as_deref(), &read(path)?)?;
    } else if args.command.is_empty() {
        for (number, line) in read(Path::new("-"))?.lines().enumerate() {
            let at = || format!("line {}", number + 1);
            let words = shlex::split(line).ok_or_else(|| anyhow!("a quote is left open")).with_context(at)?;
            if !words.is_empty() {
                translation.command(&words).with_context(at)?;
            }
        }
    } else {
        translation.command(&args.command)?;
    }
    out.write_all(translation.print(format)?.as_bytes())?;
    Ok(Outcome::Well)
}

/// A file's text, `-` for standard input.
fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What has been translated so far.
#[derive(Default)]
struct Translation {
    batch: Batch,
    /// Tables and chains that the batch makes, each once, by its nft path.
    made: Vec<String>,
    /// The rules are raw's, for another table of the backend's.
    hosting: Option<&'static Hosting>,
    drafts: Vec<Draft>,
}

impl Translation {
    fn command(&mut self, words: &[String]) -> anyhow::Result<()> {
        let (program, args) = words.split_first().context("no command")?;
        let name = program.rsplit('/').next().unwrap_or(program);
        let Some(family) = Family::ALL.into_iter().find(|family| family.program() == name) else {
            bail!("`{name}` is not iptables or ip6tables (a file of iptables-save is read with --restore)");
        };
        let invocation = parse(family, args, &dialect(family)).map_err(|error| anyhow!(words_of(&error)))?;
        self.invocation(&invocation).map_err(|error| anyhow!(words_of(&error)))
    }

    /// Every table of the file, or the one asked for. What it holds is to be all that the table holds.
    fn file(&mut self, family: Family, only: Option<&str>, text: &str) -> anyhow::Result<()> {
        if let Some(hosting) = self.hosting {
            return self.hosted_file(hosting, family, text);
        }
        let mut table: Option<String> = None;
        let mut skipping = false;
        let mut found = false;
        for (number, line) in text.lines().enumerate() {
            let at = || format!("line {}", number + 1);
            match restore::read_line(line) {
                Line::Blank | Line::Comment(_) => {}
                Line::Table(name) if table.is_none() => {
                    skipping = only.is_some_and(|only| only != name);
                    found |= !skipping;
                    if !skipping {
                        self.empty_table(family, &name).map_err(|error| anyhow!(words_of(&error))).with_context(at)?;
                    }
                    table = Some(name);
                }
                Line::Commit if table.is_some() => table = None,
                line => {
                    let table = table.as_deref().ok_or_else(|| anyhow!("outside of a table")).with_context(at)?;
                    if !skipping {
                        self.line(family, table, line).map_err(|error| anyhow!(words_of(&error))).with_context(at)?;
                    }
                }
            }
        }
        if let Some(table) = table {
            bail!("the file ends within table {table}: COMMIT is missing");
        }
        if !found {
            bail!("the file has no table{}", only.map(|only| format!(" {only}")).unwrap_or_default());
        }
        Ok(())
    }

    fn line(&mut self, family: Family, table: &str, line: Line) -> Result<(), Error> {
        match line {
            Line::Chain { name, policy, counters: _ } if policy == "-" => self.user_chain(family, table, &name),
            Line::Chain { name, policy, counters } => self.policy(family, table, &name, &policy, counters),
            Line::Command { counters, args } => {
                let args: Vec<String> = ["-t".to_owned(), table.to_owned()].into_iter().chain(args).collect();
                let mut invocation = parse(family, &args, &dialect(family))?;
                if invocation.table != table {
                    return Err(Error::Parameter("-t cannot be used in a file".to_owned()));
                }
                if let (Some(counters), Command::Append { rules, .. } | Command::Insert { rules, .. }) =
                    (counters.and_then(|bracket| bracket.read()), &mut invocation.command)
                {
                    rules.iter_mut().for_each(|rule| rule.counters = counters);
                }
                self.invocation(&invocation)
            }
            _ => Err(Error::Parameter("not a line of an iptables-save file".to_owned())),
        }
    }

    fn invocation(&mut self, invocation: &Invocation) -> Result<(), Error> {
        let Invocation { family, table, command, .. } = invocation;
        if let Some(hosting) = self.hosting {
            return self.draft(hosting, *family, table)?.run(invocation);
        }
        match command {
            Command::Append { chain, rules } => self.rules(*family, table, chain, rules, Position::Append),
            Command::Insert { chain, position: 1, rules } => {
                // Each goes to the front, so the last of them first.
                let reversed: Vec<Rule> = rules.iter().rev().cloned().collect();
                self.rules(*family, table, chain, &reversed, Position::Prepend)
            }
            Command::Insert { position, .. } => Err(depends(&format!("-I with position {position}"))),
            Command::NewChain { chain } => self.user_chain(*family, table, chain),
            Command::Policy { chain, policy, counters } => self.policy(*family, table, chain, policy, *counters),
            Command::Replace { .. } => Err(depends("-R")),
            Command::DeleteRule { .. } | Command::DeleteNumber { .. } => Err(depends("-D")),
            Command::Flush { .. } => Err(depends("-F")),
            Command::DeleteChain { .. } => Err(depends("-X")),
            Command::RenameChain { .. } => Err(depends("-E")),
            Command::Zero { .. } => Err(depends("-Z")),
            Command::Check { .. }
            | Command::List { .. }
            | Command::ListRules { .. }
            | Command::Version
            | Command::Help => Err(Refusal::new("the command", "changes nothing").into()),
        }
    }

    /// What another table would hold of raw.
    fn draft(&mut self, hosting: &'static Hosting, family: Family, table: &str) -> Result<&mut Draft, Error> {
        if table != TABLE {
            return Err(Refusal::new(format!("-t {table}"), "only raw is carried by another table").into());
        }
        let known = self.drafts.iter().position(|draft| draft.family() == family);
        let at = known.unwrap_or(self.drafts.len());
        if known.is_none() {
            self.drafts.push(Draft::new(hosting, dialect(family)));
        }
        self.drafts.get_mut(at).ok_or_else(|| depends("it"))
    }

    /// Of a file, raw.
    fn hosted_file(&mut self, hosting: &'static Hosting, family: Family, text: &str) -> anyhow::Result<()> {
        let mut lines = (1..).zip(text.lines()).skip_while(|(_, line)| line.strip_prefix('*') != Some(TABLE)).skip(1);
        let own: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "COMMIT").collect();
        let commit = own.last().map_or(2, |(number, _)| number + 1);
        let section = Section {
            lines: own,
            commit,
            complete: true,
            noflush: false,
            counters: true,
            test: false,
            comments: false,
            verbose: false,
        };
        let draft = self.draft(hosting, family, TABLE).map_err(|error| anyhow!(words_of(&error)))?;
        let at = |line: usize| move || format!("line {line}");
        draft.restore(&section).map_err(|failed| anyhow!(words_of(&failed.error)).context(at(failed.line)()))
    }

    /// Our table, made if there is none.
    fn table(&mut self, family: Family, table: &str) -> Result<(), Error> {
        carried(table)?;
        if self.is_new(family, table, "") {
            self.batch.add_table(at(family, &table_name(table)));
        }
        Ok(())
    }

    /// Our table, made anew.
    fn empty_table(&mut self, family: Family, table: &str) -> Result<(), Error> {
        self.table(family, table)?;
        self.batch.delete_table(at(family, &table_name(table)));
        self.batch.add_table(at(family, &table_name(table)));
        Ok(())
    }

    fn rules(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        rules: &[Rule],
        position: Position,
    ) -> Result<(), Error> {
        self.chain(family, table, chain)?;
        for rule in rules {
            let operation = if position == Position::Append { "APPEND" } else { "INSERT" };
            let dialect = dialect(family);
            rule.validate_chain(&Place {
                family,
                table,
                chain,
                protocol: rule.protocol,
                operation,
                dialect: &dialect,
            })?;
            if let Some(target) = rule.jump() {
                self.chain(family, table, target)?;
            }
            self.rule(&TranslateContext { family, table, chain }, rule, position)?;
        }
        Ok(())
    }

    fn rule(&mut self, place: &TranslateContext<'_>, rule: &Rule, position: Position) -> Result<(), Error> {
        let alternatives = rule.translate(place)?;
        let parts = u8::try_from(alternatives.len()).unwrap_or(u8::MAX);
        let table = table_name(place.table);
        for (part, alternative) in (0..parts).zip(&alternatives) {
            let text = if part == 0 { rule.spec() } else { String::new() };
            let comment = rule.comment().filter(|_| part == 0);
            let data = userdata::encode(&userdata::Entry { part, parts, text, ordinal: None }, comment);
            self.batch.add_rule(at(place.family, &table), place.chain, position, alternative, &data.userdata);
        }
        Ok(())
    }

    /// A chain that a rule stands in or jumps to, made if it is not.
    fn chain(&mut self, family: Family, table: &str, chain: &str) -> Result<(), Error> {
        match built_in(table, chain) {
            Some(_) => self.base_chain(family, table, chain, Policy::Accept, (0, 0)),
            None => self.user_chain(family, table, chain),
        }
    }

    fn user_chain(&mut self, family: Family, table: &str, chain: &str) -> Result<(), Error> {
        self.table(family, table)?;
        if self.is_new(family, table, chain) {
            self.batch.add_chain(at(family, &table_name(table)), chain);
        }
        Ok(())
    }

    fn policy(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        policy: &str,
        counters: Option<(u64, u64)>,
    ) -> Result<(), Error> {
        let policy = match policy {
            "ACCEPT" => Policy::Accept,
            "DROP" => Policy::Drop,
            _ => return Err(Error::Parameter(format!("`{policy}' is no policy"))),
        };
        self.base_chain(family, table, chain, policy, counters.unwrap_or_default())
    }

    fn base_chain(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        policy: Policy,
        counters: (u64, u64),
    ) -> Result<(), Error> {
        self.table(family, table)?;
        let Some(built_in) = built_in(table, chain) else {
            return Err(Error::Parameter(format!("`{chain}' is no built-in chain of table {table}")));
        };
        let name = table_name(table);
        if self.is_new(family, table, chain) {
            let Builtin { hook, priority, kind, .. } = *built_in;
            let new = BaseChain { name: chain, hook, priority, kind, policy, counters };
            self.batch.add_base_chain(at(family, &name), new);
        } else if policy == Policy::Drop {
            self.batch.set_policy(at(family, &name), chain, policy, Some(counters));
        }
        Ok(())
    }

    fn is_new(&mut self, family: Family, table: &str, chain: &str) -> bool {
        let path = format!("{} {table} {chain}", family.nft());
        let new = !self.made.contains(&path);
        if new {
            self.made.push(path);
        }
        new
    }

    /// The whole, or what has no words in nft syntax: nothing is carried that could not be saved and loaded again.
    fn print(&self, format: Format) -> anyhow::Result<String> {
        if format == Format::Iptables {
            return self.drafts.iter().map(printed).collect();
        }
        let commands = nft::text::commands(&self.batch)?;
        match format {
            Format::Nft => Ok(commands.iter().map(|command| format!("{command}\n")).collect()),
            Format::Iptables => Ok(String::new()),
            Format::Json => Ok(nft::json::commands(&self.batch)? + "\n"),
        }
    }
}

/// Commands that a shell can be given.
fn printed(draft: &Draft) -> anyhow::Result<String> {
    let commands = draft.commands().map_err(|error| anyhow!(words_of(&error)))?;
    let line = |command: String| {
        let words = restore::split(&command).unwrap_or_default();
        let words = shlex::try_join(words.iter().map(String::as_str))?;
        Ok(format!("{} -t {} {words}\n", draft.family().program(), draft.host()))
    };
    commands.into_iter().map(line).collect()
}

fn dialect(family: Family) -> Dialect {
    Dialect { family, variant: Variant::Legacy, version: VERSION }
}

fn at(family: Family, name: &str) -> nft::Table<'_> {
    nft::Table { family, name }
}

fn built_in(table: &str, chain: &str) -> Option<&'static Builtin> {
    builtins(table).iter().find(|built_in| built_in.name == chain)
}

fn carried(table: &str) -> Result<(), Error> {
    match builtins(table).is_empty() {
        false => Ok(()),
        true => Err(Refusal::new(format!("-t {table}"), "there is no such table").into()),
    }
}

fn depends(command: &str) -> Error {
    Refusal::new(command, "what it changes depends on the rules that are there, and translate looks at none").into()
}

/// What is wrong, in iptables' own words but not in its name.
fn words_of(error: &Error) -> String {
    match error {
        Error::Parameter(text) | Error::BareParameter(text) | Error::Version(text) | Error::Resource(text) => {
            text.trim_end().to_owned()
        }
        Error::Refused(refusal) => refusal.to_string(),
        Error::Table(_) | Error::WrongFamily | Error::Verbatim { .. } => {
            error.render(&dialect(Family::V4)).trim_end().to_owned()
        }
    }
}
