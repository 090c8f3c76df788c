//! What a front says by itself where no iptables is installed that could say it.

#![forbid(unsafe_code)]

use super::context::{Context, exit_code};
use super::options::{Ended, Options, Wrong};
use crate::error::Error;
use crate::exit::ExitCode;
use crate::iptables::dialect::{Dialect, Variant};
use crate::probe::Tool;
use std::io::{self, Write};

/// `iptables --help`: what there is, after iptables(8).
pub fn help(dialect: &Dialect) -> String {
    let (prefix, program) = (dialect.prefix(), dialect.family.program());
    format!(
        "{prefix}

This is xtshim, which carries the rules in nf_tables. It takes {program}'s own language:

  {program} [-t TABLE] -A|-C|-D CHAIN RULE      append, look for, delete a rule
  {program} [-t TABLE] -I CHAIN [NUMBER] RULE   insert a rule, first unless a number is given
  {program} [-t TABLE] -R CHAIN NUMBER RULE     replace a rule
  {program} [-t TABLE] -D CHAIN NUMBER          delete a rule by its number
  {program} [-t TABLE] -L|-S [CHAIN [NUMBER]]   list rules
  {program} [-t TABLE] -F|-Z [CHAIN]            delete all rules, set counters to zero
  {program} [-t TABLE] -N|-X CHAIN              make, delete a chain
  {program} [-t TABLE] -E OLD NEW               rename a chain
  {program} [-t TABLE] -P CHAIN ACCEPT|DROP     set the policy of a built-in chain

A rule is made of
  [!] -s|-d ADDRESS[/MASK][,...]   source, destination
  [!] -i|-o NAME[+]                incoming, outgoing interface
  [!] -p PROTOCOL                  by name or number
  -m MATCH ... -j TARGET ...       with their own options; -g CHAIN goes there without coming back
  -c PACKETS BYTES                 counters to begin with

Listings take -n (numbers only), -v (counters and interfaces), -x (counters in full), --line-numbers.
Tables are filter (unless -t names another), nat, mangle, raw and security.
-w is taken and has no effect: there is no lock. -V prints the version, -h this.

iptables(8) and iptables-extensions(8) have it in full; `xtshim --help` speaks of xtshim.
"
    )
}

/// What iptables-nft says without CAP_NET_ADMIN.
pub fn not_permitted() -> Error {
    Error::Resource("Could not fetch rule set generation id: Permission denied (you must be root)".to_owned())
}

/// Options that end iptables-save and iptables-restore, as they do with the backend where there is one, which is only asked
/// what it says where not all tables are its own (`whole`): it would read the file into them, or leave ours out. `Err` is
/// the answer.
pub fn heed(
    context: &Context,
    read: Result<Options, Wrong>,
    whole: impl FnOnce() -> bool,
) -> Result<Options, ExitCode> {
    let name = context.front.name();
    if context.has_backend() {
        let legacy = context.dialect().variant == Variant::Legacy;
        let plain = |options: &Options| options.ended.is_none() && !(legacy && options.odd_wait);
        let ends = read.as_ref().is_ok_and(|options| options.ended.is_some());
        let answer = || if whole() { context.pass_through() } else { told(context, ends) };
        return read.ok().filter(plain).ok_or_else(answer);
    }
    let fail = |text: String| {
        let _ = io::stderr().write_all(text.as_bytes());
        ExitCode::FAILURE
    };
    match read {
        Ok(options) => match options.ended {
            None => Ok(options),
            Some(Ended::Version) => {
                let prefix = context.dialect().prefix().replacen(context.front.family.program(), name, 1);
                Err(context.succeed(&format!("{prefix}\n")))
            }
            Some(Ended::Help) => {
                let _ = io::stderr().write_all(restore_help(name).as_bytes());
                Err(ExitCode::SUCCESS)
            }
        },
        Err(Wrong::Option(clause)) => {
            let advice = match context.front.tool {
                Tool::Restore => format!("Try `{name} -h' for more information."),
                _ => format!("Look at manual page `{name}.8' for more information."),
            };
            Err(fail(format!("{name}: {clause}\n{advice}\n")))
        }
        Err(Wrong::Words) => Err(fail("Unknown arguments found on commandline\n".to_owned())),
        Err(Wrong::Strange) => Err(fail(format!("{name}: an argument is not valid UTF-8\n"))),
    }
}

/// What the backend says of its options, where it can do no harm. If it sees nothing wrong with what nobody here knows,
/// that is not done.
fn told(context: &Context, ends: bool) -> ExitCode {
    match context.rehearse(b"") {
        Some(output) if ends || exit_code(&output) != 0 => context.say(&output),
        _ => {
            let text = "an option is not known here, and not all tables are iptables' own".to_owned();
            context.fail(&Error::Resource(text))
        }
    }
}

fn restore_help(name: &str) -> String {
    format!(
        "Usage: {name} [OPTION...] [FILE]
  -n, --noflush          keep what is there
  -c, --counters         set counters as the file has them
  -t, --test             read the file, change nothing
  -T, --table=TABLE      of the file, only this table
  -v, --verbose          tell what is done
  -w, --wait[=SECONDS]   taken, without effect
  -V, --version
  -h, --help
"
    )
}
