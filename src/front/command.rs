//! `iptables` and `ip6tables`.

use super::context::{Context, may_administer};
use super::host;
use super::planning::{Course, Guarded};
use super::rescue::trip;
use super::{alone, lacking};
use crate::carrier::hosted;
use crate::carrier::nft::only_looks;
use crate::config::CarrierKind;
use crate::error::{Error, Refusal};
use crate::exit::ExitCode;
use crate::iptables::{self, Command, Invocation};

/// Answers one command.
pub fn answer(context: &Context) -> ExitCode {
    trip("answer");
    if !context.has_backend() {
        return match context.snapshot.doubtful {
            true => context.fail(&Error::Resource("the iptables that is installed could not be asked".to_owned())),
            false => by_ourselves(context),
        };
    }
    if let Some(hosting) = context.hosting()
        && may_administer()
        && means(context, hosting.host)
    {
        return host::command(context, hosting);
    }
    let Some(table) = carried_table(context) else { return context.pass_through() };
    if !may_administer() {
        return context.pass_through();
    }
    match context.course(table) {
        Ok(Course::Carry { by, why }) => carry(context, table, by, &why),
        Ok(Course::TakeOver { why }) => take_over(context, table, &why),
        Ok(Course::PassThrough) => context.pass_through(),
        Err(error) => context.fail(&error),
    }
}

/// Answers one command where there is nobody to pass it on to.
fn by_ourselves(context: &Context) -> ExitCode {
    let invocation = match read(context) {
        Ok(invocation) => invocation,
        Err(error) => return refuse(context, "", CarrierKind::Nft, "no iptables is installed", error),
    };
    match invocation.command {
        Command::Version => return context.succeed(&format!("{}\n", context.dialect().prefix())),
        Command::Help => return context.succeed(&alone::help(&context.dialect())),
        _ => {}
    }
    let known = |table: &&str| *table == invocation.table;
    let Some(table) = context.snapshot.carried_tables(context.front.family).find(known) else {
        return context.fail(&Error::Version(format!("table '{}' does not exist", invocation.table)));
    };
    if !may_administer() {
        return context.fail(&alone::not_permitted());
    }
    match context.course(table) {
        Ok(Course::Carry { by, why }) => carry(context, table, by, &why),
        Ok(Course::TakeOver { why }) => carry(context, table, CarrierKind::Nft, &why),
        Ok(Course::PassThrough) => context.fail_without_backend(table),
        Err(error) => context.fail(&error),
    }
}

/// Table of a command line that names none (iptables(8), --table).
pub(super) const DEFAULT_TABLE: &str = "filter";

/// Whether the command line means that table.
fn means(context: &Context, table: &str) -> bool {
    meant(context) == table
}

/// The table that the command line means. What nobody here can read is read leniently.
fn meant(context: &Context) -> String {
    let args: Vec<String> = context.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let words = || args.iter().map(String::as_str);
    let table = match iptables::plain_table(words().map(str::as_bytes)) {
        Some(table) => table.map(|table| String::from_utf8_lossy(table).into_owned()),
        None => match read(context) {
            Ok(invocation) => Some(invocation.table),
            Err(_) => iptables::peek_table(words()).map(str::to_owned),
        },
    };
    table.unwrap_or_else(|| DEFAULT_TABLE.to_owned())
}

/// The table that the command line means, if it is one that may be carried.
fn carried_table(context: &Context) -> Option<&str> {
    let meant = meant(context);
    context.snapshot.carried_tables(context.front.family).find(|table| *table == meant)
}

/// The backend's rules are the table until something is to be changed. What it holds that cannot be carried, and what we
/// cannot read, leaves the table with it.
fn take_over(context: &Context, table: &str, why: &str) -> ExitCode {
    let invocation = match read(context) {
        Ok(invocation) => invocation,
        Err(error) => {
            if let Error::Refused(refusal) = error {
                context.tell(table, why, Err(format!("passed on to iptables, which holds {table} here: {refusal}")));
            }
            return pass_on(context, table, why);
        }
    };
    if only_looks(&invocation.command) {
        return look(context, table, why);
    }
    match context.take_over(table, why, invocation.wait) {
        Ok(true) => carry(context, table, CarrierKind::Nft, why),
        Ok(false) => pass_on(context, table, why),
        Err(error) => context.fail(&error),
    }
}

/// Gives the backend a change to a table that it holds, unless another has made the table ours meanwhile.
fn pass_on(context: &Context, table: &str, why: &str) -> ExitCode {
    let spot = context.words().and_then(|words| iptables::spot(context.front.family, &words, &context.dialect()));
    match context.guarded(table, spot.and_then(|spot| spot.wait)) {
        Ok(Guarded::Ours) => carry(context, table, CarrierKind::Nft, why),
        Ok(Guarded::Theirs(Some(lock))) => host::become_backend(context, lock, &context.args),
        Ok(Guarded::Theirs(None)) => context.pass_through(),
        Err(error) => context.fail(&error),
    }
}

/// What the backend says of a table that another front may be taking over meanwhile: then it is ours that counts.
fn look(context: &Context, table: &str, why: &str) -> ExitCode {
    let answer = match context.whole_answer() {
        Ok(answer) => answer,
        Err(error) => return context.fail(&error),
    };
    match context.course(table) {
        Ok(Course::Carry { by, .. }) => carry(context, table, by, why),
        Ok(_) => context.say(&answer),
        Err(error) => context.fail(&error),
    }
}

fn carry(context: &Context, table: &str, by: CarrierKind, why: &str) -> ExitCode {
    let invocation = match read(context) {
        Ok(invocation) => invocation,
        Err(error) => return refuse(context, table, by, why, error),
    };
    if matches!(invocation.command, Command::Version | Command::Help) {
        return context.pass_through();
    }
    if invocation.table != table {
        return context.fail(&Error::Resource("it is not clear which table is meant".to_owned()));
    }
    if by == CarrierKind::Nft && !only_looks(&invocation.command) {
        match context.finish_takeover(table, why, invocation.wait) {
            Ok(true) => {}
            Ok(false) => return context.pass_through(),
            Err(error) => return context.fail(&error),
        }
    }
    context.warn(&invocation.warnings);
    trip("carry");
    let mut out = String::new();
    match context.carrier_of(table, by).and_then(|mut carrier| carrier.run(&invocation, &mut out)) {
        Ok(applied) => {
            if !applied.told.is_empty() {
                context.tell_change(table, &applied.told, why);
            }
            context.succeed(&out)
        }
        Err(error @ Error::Refused(_)) => refuse(context, table, by, why, error),
        Err(error) => {
            let said = error.render(&context.dialect()).trim_end().to_owned();
            let told = match (&error, lacking_of(context, by, &invocation.command)) {
                (_, Some(lacking)) => Some(format!("{lacking}; {said}")),
                (Error::Resource(_), None) => Some(said),
                _ => None,
            };
            if let Some(told) = told {
                context.tell(table, why, Err(told));
            }
            let _ = context.succeed(&out);
            context.fail(&error)
        }
    }
}

/// What nf_tables lacks for a rule of ours.
fn lacking_of(context: &Context, by: CarrierKind, command: &Command) -> Option<String> {
    if by == CarrierKind::Nft { lacking::for_command(context, command) } else { None }
}

fn read(context: &Context) -> Result<Invocation, Error> {
    trip("read");
    let args = context.words().ok_or_else(|| Refusal::new("an argument", "is not valid UTF-8"))?;
    iptables::parse(context.front.family, &args, &context.dialect())
}

fn refuse(context: &Context, table: &str, by: CarrierKind, why: &str, error: Error) -> ExitCode {
    if let Error::Refused(refusal) = &error {
        context.tell(table, why, Err(refusal.to_string()));
        // What another table cannot hold exactly is as good as a table that is not there.
        if by != CarrierKind::Nft {
            return context.fail(&hosted::no_such_table(&context.dialect()));
        }
    }
    context.fail(&context.in_the_backends_words(error, table, b""))
}
