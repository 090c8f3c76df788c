//! The management CLI: `xtshim enable`, `status`, `probe` and so on. The fronts' names as subcommands never get here: their
//! arguments are iptables' own, which clap would misread.
//!
//! Exit codes: 0 it is well, 1 it is not, 2 the command line is wrong.

#![forbid(unsafe_code)]

pub mod disable;
pub mod doctor;
pub mod enable;
pub mod explain;
pub mod flush;
pub mod log;
pub mod migrate;
pub mod probe;
pub mod selftest;
pub mod status;
pub mod translate;

use crate::exit::ExitCode;
use crate::journal::escape;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};

/// What help and complaints call the program, however it was called.
const NAME: &str = "xtshim";

/// Environment variable with env_logger's filter for the management CLI's own diagnostics (`debug`, `xtshim=trace`).
const LOG_VARIABLE: &str = "XTSHIM_LOG";

#[derive(Parser)]
#[command(
    name = NAME,
    version,
    about = "Stands where iptables stands, and carries by other means what this kernel cannot do for it.",
    long_about = "Stands where iptables stands, and carries by other means what this kernel cannot do for it.\n\n\
        Docker 28 needs the raw table of iptables. Where the kernel has none (Jetson, many NAS and phone kernels), \
        `docker run` dies with \"Unable to enable DIRECT ACCESS FILTERING - DROP rule\". Called as `iptables`, xtshim \
        passes every command on to the real one, except those that this kernel cannot do: they are carried by rules \
        that do the same to every packet, and each is told of in the journal.",
    after_help = AFTER_HELP,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
In a hurry:
  xtshim selftest      does Docker 28 work on this machine with xtshim? Tries it, changes nothing
  xtshim enable        put it in front of iptables; then: systemctl restart docker
  xtshim status        does it stand there, what is carried, what to do next
  xtshim disable       out of the way again, everything as it was
  xtshim doctor        what is wrong between this host's network and Docker, and what mends it
  xtshim probe         what this kernel and its iptables can do, and why not
  xtshim log -f        what is rewritten, as it happens

By hand:
  xtshim iptables ...  as if called as `iptables`; the same for ip6tables, and for -save and -restore of both

Files:
  /etc/xtshim/xtshim.toml              configuration, optional
  /var/log/xtshim/rewrites.jsonl       every rewrite, a JSON object a line

Exit codes: 0 it is well, 1 it is not, 2 the command line is wrong.";

#[derive(Subcommand)]
enum Command {
    Enable(enable::Args),
    Disable(disable::Args),
    Status(status::Args),
    Probe(probe::Args),
    Translate(translate::Args),
    Selftest(selftest::Args),
    Log(log::Args),
    Flush(flush::Args),
    Doctor(doctor::Args),
    Migrate(migrate::Args),
    Explain(explain::Args),
}

/// The whole command line, for what is made from it: man pages, completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// How a subcommand ended, unless it failed with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Well,
    /// Exit code 1: what was asked for is not so; what is wrong has been said.
    NotWell,
    /// Exit code 2, of `doctor` alone: errors beside warnings.
    Broken,
}

/// Runs the management CLI on its arguments, without the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    env_logger::init_from_env(LOG_VARIABLE);
    let cli = match Cli::try_parse_from(std::iter::once(OsString::from(NAME)).chain(args)) {
        Ok(cli) => cli,
        Err(message) => return show(&message),
    };
    // A reader that goes away has seen enough; but a verdict that was not reached is none.
    let unread = if matches!(cli.command, Command::Selftest(_)) { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    match run(cli.command, &mut io::stdout().lock()) {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::NotWell) => ExitCode::FAILURE,
        Ok(Outcome::Broken) => ExitCode::from(2),
        Err(error) if is_broken_pipe(&error) => unread,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "xtshim: {}", escape(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let outcome = match command {
        Command::Enable(args) => enable::run(&args, out),
        Command::Disable(args) => disable::run(&args, out),
        Command::Status(args) => status::run(&args, out),
        Command::Probe(args) => probe::run(&args, out),
        Command::Translate(args) => translate::run(&args, out),
        Command::Selftest(args) => selftest::run(&args, out),
        Command::Log(args) => log::run(&args, out),
        Command::Flush(args) => flush::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Migrate(args) => migrate::run(&args, out),
        Command::Explain(args) => explain::run(&args, out),
    }?;
    out.flush()?;
    Ok(outcome)
}

/// Prints clap's help, version or complaint where it belongs.
fn show(message: &clap::Error) -> ExitCode {
    let _ = message.print();
    match message.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
