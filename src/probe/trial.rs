//! Saying to a backend what Docker says, in a network namespace that is thrown away.
//!
//! An exit code of 0 is not believed. Without xt_mark, iptables-nft since 1.8.8 takes `-m mark` and installs a rule
//! that matches every packet. So the backend must say nothing (dockerd takes any word for a failure), the rules must
//! be there when read back, and the kernel must know each extension.

#![forbid(unsafe_code)]

use super::kernel::Kernel;
use super::{Ability, Backend, Tool, nftables};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::rules::{self, Capability, CapabilityKind, ErrorKind, Saying, Table};
use crate::sys::exec;
use crate::sys::sandbox::{self, Answer, Room};
use crate::sys::xtables::{self, Extension};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// How long all of a backend's trials may take. The first may load two dozen modules from a slow card.
const LIMIT: Duration = Duration::from_secs(120);

/// What a backend can do.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// One for each family and table.
    pub tables: Vec<TableTrial>,
    /// The kernel's word on extensions, by family and capability name.
    pub extensions: BTreeMap<(Family, String), Ability>,
}

/// What a backend can do to one table.
#[derive(Clone, Debug)]
pub struct TableTrial {
    /// Of the table.
    pub family: Family,
    /// Its name.
    pub table: String,
    /// Whether it takes all that Docker cannot do without.
    pub ability: Ability,
}

impl Trial {
    /// What the backend can do to `table`.
    pub fn ability(&self, family: Family, table: &str) -> Option<&Ability> {
        let found = self.tables.iter().find(|trial| trial.family == family && trial.table == table);
        found.map(|trial| &trial.ability)
    }
}

/// Tries `backend` for real.
///
/// # Errors
/// EPERM where no throwaway namespace is to be had.
pub fn run(backend: &Backend, kernel: &Kernel) -> io::Result<Trial> {
    sandbox::enter(LIMIT, |room| {
        let mut trial = Trial::default();
        for family in Family::ALL {
            let mut bench = Bench { room, backend, kernel, family, extensions: BTreeMap::new() };
            trial.tables.extend(bench.try_family());
            let known = bench.extensions.into_iter();
            trial.extensions.extend(known.map(|(name, ability)| ((family, name), ability)));
        }
        trial
    })
}

/// One backend and family at work in the throwaway namespace.
struct Bench<'a> {
    room: &'a Room,
    backend: &'a Backend,
    kernel: &'a Kernel,
    family: Family,
    extensions: BTreeMap<String, Ability>,
}

/// What became of a command.
enum Outcome {
    Done,
    /// It was carried out, but something was said about it, which dockerd takes for a failure.
    DoneNoisily {
        said: String,
    },
    Failed {
        said: String,
    },
    Unknown {
        why: String,
    },
}

impl Bench<'_> {
    fn try_family(&mut self) -> Vec<TableTrial> {
        let scripts: Vec<(&Table, Vec<Saying>)> = tables().map(|table| (table, script(table, self.family))).collect();
        let at_once = self.restore(scripts.iter().map(|(table, script)| restore_text(&table.name, script)).collect());
        let whole = matches!(at_once, Outcome::Done);
        let tried = scripts.iter().map(|(table, script)| TableTrial {
            family: self.family,
            table: table.name.clone(),
            ability: self.try_table(&table.name, script, whole),
        });
        tried.collect()
    }

    /// `done`: the whole script has been carried out without a word.
    fn try_table(&mut self, table: &str, script: &[Saying], done: bool) -> Ability {
        let named: Vec<Ability> = script.iter().map(|saying| self.extension_ability(saying)).collect();
        let extensions = worst(named.iter());
        // Every command that names a missing extension has the kernel look for its module, again and again.
        if !done && extensions.is_missing() {
            // That there is no table at all says more.
            let plain = script.first().map(|plain| self.try_one(table, plain, true));
            return plain.filter(Ability::is_missing).unwrap_or(extensions);
        }
        let restored = if done { Outcome::Done } else { self.restore(restore_text(table, script)) };
        if matches!(restored, Outcome::Done) && self.read_back(table, script).is_able() {
            return extensions;
        }
        if matches!(restored, Outcome::Done | Outcome::DoneNoisily { .. }) {
            self.clean(table);
        }
        self.try_each(table, script)
    }

    fn clean(&self, table: &str) {
        for command in ["-F", "-X"] {
            // If it fails, so will what follows, and that is told.
            let _ = self.command(table, &[command.to_owned()]);
        }
    }

    /// One command after the other, as Docker would, up to the first that fails: in which words, a restore file does
    /// not tell.
    fn try_each(&mut self, table: &str, script: &[Saying]) -> Ability {
        for (number, saying) in script.iter().enumerate() {
            let outcome = self.try_one(table, saying, number == 0);
            if !outcome.is_able() {
                return outcome;
            }
        }
        self.read_back(table, script)
    }

    fn try_one(&mut self, table: &str, saying: &Saying, plain: bool) -> Ability {
        let answer = match self.command(table, &saying.args) {
            Outcome::Done => return self.extension_ability(saying),
            Outcome::Unknown { why } => return Ability::Unknown { why },
            Outcome::Failed { said } | Outcome::DoneNoisily { said } => said,
        };
        if let Some(unknown) = said_transient(&answer) {
            return unknown;
        }
        if let missing @ Ability::Missing { .. } = self.extension_ability(saying) {
            return missing;
        }
        let table = plain.then(|| rules::table_capability(self.backend.variant, table)).flatten();
        let why = table.and_then(|capability| self.kernel.explain(capability, self.family));
        Ability::Missing { why: why.map_or_else(|| in_short(&answer), |why| why.to_string()) }
    }

    /// Whether the kernel has what the command names.
    fn extension_ability(&mut self, saying: &Saying) -> Ability {
        let named = rules::extensions(self.family, &saying.args);
        let abilities: Vec<Ability> = named.into_iter().map(|capability| self.ask(capability)).collect();
        worst(abilities.iter())
    }

    fn ask(&mut self, capability: &'static Capability) -> Ability {
        if let Some(known) = self.extensions.get(&capability.name) {
            return known.clone();
        }
        let ability = ask_kernel(self.backend.variant, self.family, capability, self.kernel);
        self.extensions.insert(capability.name.clone(), ability.clone());
        ability
    }

    /// Whether the table holds as many rules as were put into it.
    fn read_back(&self, table: &str, script: &[Saying]) -> Ability {
        let name = self.family.program();
        let Some(program) = self.backend.program(self.family, Tool::Command) else {
            return Ability::Missing { why: format!("{name} is not installed") };
        };
        let answer = match self.room.run(exec::command(program, name, &["-t", table, "-S"].map(Into::into)), "") {
            Ok(answer) => answer,
            Err(error) => return Ability::Unknown { why: format!("{name}: {error}") },
        };
        let there = answer.stdout.lines().filter(|line| line.starts_with("-A ")).count();
        let wanted = script.iter().filter(|saying| adds_rule(saying)).count();
        match said_transient(&answer.stderr) {
            Some(unknown) => unknown,
            None if answer.status.success() && answer.stderr.is_empty() && there == wanted => Ability::Able,
            None => Ability::Missing { why: format!("it took {wanted} rules, but lists {there} of them") },
        }
    }

    fn restore(&self, input: String) -> Outcome {
        self.run(Tool::Restore, &[], &input)
    }

    fn command(&self, table: &str, args: &[String]) -> Outcome {
        let mut argv = vec!["--wait".to_owned(), "-t".to_owned(), table.to_owned()];
        argv.extend_from_slice(args);
        self.run(Tool::Command, &argv, "")
    }

    fn run(&self, tool: Tool, args: &[String], input: &str) -> Outcome {
        let name = format!("{}{}", self.family.program(), tool.suffix());
        let Some(program) = self.backend.program(self.family, tool) else {
            return Outcome::Failed { said: format!("{name} is not installed") };
        };
        let args: Vec<_> = args.iter().map(Into::into).collect();
        match self.room.run(exec::command(program, &name, &args), input) {
            Ok(answer) => outcome(&answer, &args),
            Err(error) => Outcome::Unknown { why: format!("{name}: {error}") },
        }
    }
}

/// The tables that Docker speaks to. Trying another would load its module for nothing.
pub fn tables() -> impl Iterator<Item = &'static Table> {
    let spoken_to =
        |table: &&Table| Family::ALL.iter().any(|family| !rules::docker().says(*family, &table.name).is_empty());
    rules::tables().iter().filter(spoken_to)
}

/// The plainest rule first, then what Docker says in any case. What it says only for some of its features is left
/// out: their modules (ip_vs, sctp) are no small thing to load into a kernel that does without.
pub(super) fn script(table: &Table, family: Family) -> Vec<Saying> {
    let plain = Saying { table: table.name.clone(), part: String::new(), required: true, args: table.trial(family) };
    let said = rules::docker().says(family, &table.name);
    std::iter::once(plain).chain(said.into_iter().filter(|saying| saying.required)).collect()
}

fn outcome(answer: &Answer, args: &[std::ffi::OsString]) -> Outcome {
    let lists = args.iter().any(|arg| arg == "-L");
    let silent = answer.stderr.is_empty() && (lists || answer.stdout.is_empty());
    match answer.status.code() {
        Some(0) if silent => Outcome::Done,
        Some(0) => Outcome::DoneNoisily { said: format!("{}{}", answer.stderr, answer.stdout) },
        Some(_) => Outcome::Failed { said: format!("{}{}", answer.stderr, answer.stdout) },
        None => Outcome::Unknown { why: answer.status.to_string() },
    }
}

/// A message that says nothing about the kernel.
fn said_transient(said: &str) -> Option<Ability> {
    let meaning = rules::meaning(said).filter(|error| error.kind == ErrorKind::Transient)?;
    Some(Ability::Unknown { why: meaning.meaning.clone() })
}

fn restore_text(table: &str, script: &[Saying]) -> String {
    let said = script.iter().filter(|saying| saying.args.iter().all(|arg| arg != "-L"));
    let lines: String = said.map(|saying| format!("{}\n", join(&saying.args))).collect();
    format!("*{table}\n{lines}COMMIT\n")
}

/// A restore file knows double quotes only. No word of the vocabulary has one in it.
fn join(args: &[String]) -> String {
    let quoted = args.iter().map(|arg| if arg.contains(' ') { format!("\"{arg}\"") } else { arg.clone() });
    quoted.collect::<Vec<_>>().join(" ")
}

fn adds_rule(saying: &Saying) -> bool {
    matches!(saying.args.first().map(String::as_str), Some("-A" | "-I"))
}

/// Missing outweighs unknown, and that able.
pub(super) fn worst<'a>(abilities: impl Iterator<Item = &'a Ability>) -> Ability {
    let rank = |ability: &&Ability| match ability {
        Ability::Missing { .. } => 0,
        Ability::Unknown { .. } => 1,
        Ability::Able => 2,
    };
    abilities.min_by_key(rank).cloned().unwrap_or(Ability::Able)
}

/// The line of a message that says most: the error, not the warnings before it nor the advice behind it.
fn in_short(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| !line.starts_with("Warning:")).or_else(|| lines().next());
    line.unwrap_or("it failed without a word").to_owned()
}

/// The kernel's own word on a match or target.
pub(super) fn ask_kernel(variant: Variant, family: Family, capability: &Capability, kernel: &Kernel) -> Ability {
    let extension = match capability.kind {
        CapabilityKind::Match => Extension::Match,
        CapabilityKind::Target => Extension::Target,
        _ => return Ability::Able,
    };
    let asked = match variant {
        Variant::Legacy => xtables::legacy_has(family, extension, &capability.key),
        Variant::Nft => xtables::compat_has(family, extension, &capability.key),
    };
    let missing = |behind: &Capability| {
        let why = kernel.explain(behind, family).map(|why| why.to_string());
        let why = why.unwrap_or_else(|| "this kernel does not know it".to_owned());
        Ability::Missing { why: format!("{}: {why}", behind.what) }
    };
    match asked {
        Ok(true) => Ability::Able,
        Ok(false) => missing(capability),
        Err(error) if is_denied(&error) => Ability::Unknown { why: format!("{}: {error}", capability.what) },
        Err(error) => match variant {
            Variant::Nft => missing(rules::capability("nft-compat").unwrap_or(capability)),
            // No ip_tables to ask: the table itself says that better.
            Variant::Legacy => Ability::Unknown { why: format!("{}: {error}", capability.what) },
        },
    }
}

pub(super) fn is_denied(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| nftables::says_nothing(Errno::from_raw(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_of_a_table_is_a_restore_file() {
        let table = rules::table("nat").expect("known");
        let text = restore_text("nat", &script(table, Family::V4));
        assert!(text.starts_with("*nat\n-A PREROUTING -d 172.17.0.2 ! -i docker0 -j RETURN\n-N DOCKER\n"), "{text}");
        assert!(!text.contains("ipvs"), "{text}");
        assert!(text.ends_with("COMMIT\n"), "{text}");
    }

    #[test]
    fn words_with_blanks_are_quoted() {
        assert_eq!(join(&["--bytecode".to_owned(), "1,6 0 0 0".to_owned()]), "--bytecode \"1,6 0 0 0\"");
    }

    #[test]
    fn the_error_is_told_and_not_the_warning() {
        let said = "Warning: Extension tcp revision 0 not supported, missing kernel module?\niptables: No chain.\n";
        assert_eq!(in_short(said), "iptables: No chain.");
        assert_eq!(in_short("Warning: only\n"), "Warning: only");
        assert_eq!(in_short(""), "it failed without a word");
    }

    #[test]
    fn missing_outweighs_unknown() {
        let missing = Ability::Missing { why: "m".to_owned() };
        let unknown = Ability::Unknown { why: "u".to_owned() };
        assert_eq!(worst([&Ability::Able, &unknown, &missing].into_iter()), missing);
        assert_eq!(worst([].into_iter()), Ability::Able);
    }

    #[test]
    fn what_is_installed_here_does_what_docker_says() {
        for backend in super::super::backends::find(&crate::config::Config::default()).backends {
            // Without CAP_SYS_ADMIN there is no room to be had, and nothing to be shown.
            let Ok(trial) = run(&backend, &Kernel::read()) else { return };
            for table in &trial.tables {
                assert!(table.ability.is_able(), "{:?} {table:?}", backend.variant);
            }
        }
    }
}
