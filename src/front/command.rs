//! `iptables` and `ip6tables`.

use super::context::{Context, may_administer};
use crate::carrier::Carrier;
use crate::error::Error;
use crate::iptables::{self, Command, Invocation};
use crate::plan::Plan;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// Answers one command.
pub fn answer(context: &Context) -> ExitCode {
    let Some(table) = carried_table(context) else { return context.pass_through() };
    if !may_administer() {
        return context.pass_through();
    }
    match context.plan(table) {
        Ok(Plan::Nft { why }) => carry(context, table, &why),
        Ok(Plan::Backend { .. } | Plan::AskBackend) => context.pass_through(),
        Err(error) => context.fail(&error),
    }
}

/// Table of a command line that names none (iptables(8), --table).
const DEFAULT_TABLE: &str = "filter";

/// The table that the command line means, if it is one that may be carried.
///
/// A table's name can stand only at the end of a word (`-t raw`, `--table=raw`, `-nvLtraw`), so a command line
/// without such a word needs no reading at all.
fn carried_table(context: &Context) -> Option<&str> {
    let tables = || context.snapshot.carried_tables(context.front.family);
    let named = |table: &str| context.args.iter().any(|arg| arg.as_bytes().ends_with(table.as_bytes()));
    if !tables().any(|table| table == DEFAULT_TABLE || named(table)) {
        return None;
    }
    let args: Vec<String> = context.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let meant = iptables::peek_table(&args).unwrap_or(DEFAULT_TABLE);
    tables().find(|table| *table == meant)
}

fn carry(context: &Context, table: &str, why: &str) -> ExitCode {
    let invocation = match read(context) {
        Ok(invocation) => invocation,
        Err(error) => return refuse(context, table, why, error),
    };
    if matches!(invocation.command, Command::Version | Command::Help) {
        return context.pass_through();
    }
    context.warn(&invocation.warnings);
    let mut out = String::new();
    match context.carrier(table).and_then(|mut carrier| carrier.run(&invocation, &mut out)) {
        Ok(applied) => {
            if !applied.lines.is_empty() {
                context.tell(table, &applied.lines, why, Ok(()));
            }
            context.succeed(&out)
        }
        Err(error @ Error::Refused(_)) => refuse(context, table, why, error),
        Err(error) => {
            if matches!(error, Error::Resource(_)) {
                context.tell(table, &[], why, Err(error.render(&context.dialect())));
            }
            let _ = context.succeed(&out);
            context.fail(&error)
        }
    }
}

fn read(context: &Context) -> Result<Invocation, Error> {
    let args: Option<Vec<String>> = context.args.iter().map(|arg| arg.to_str().map(str::to_owned)).collect();
    let args = args.ok_or_else(|| Error::Parameter("an argument is not valid UTF-8".to_owned()))?;
    iptables::parse(context.front.family, &args, &context.dialect())
}

fn refuse(context: &Context, table: &str, why: &str, error: Error) -> ExitCode {
    if let Error::Refused(refusal) = &error {
        context.tell(table, &[], why, Err(refusal.to_string()));
    }
    context.fail(&context.in_the_backends_words(error, b""))
}
