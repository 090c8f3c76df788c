//! `iptables-save` and `ip6tables-save`: the backend's tables and the carried ones in one file.

use super::RESOURCE_PROBLEM;
use super::alone;
use super::context::{Context, exit_code, may_administer};
use super::host;
use super::options::Options;
use super::planning::Course;
use super::rescue::trip;
use crate::carrier::Carrier;
use crate::carrier::hosted::TABLE;
use crate::config::CarrierKind;
use crate::error::{Error, reason};
use crate::exit::ExitCode;
use crate::iptables::dialect::Variant;
use crate::probe::Tool;
use crate::sys::privilege;
use crate::sys::time::local_timestamp;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;

/// How often tables that change hands are read again.
const ATTEMPTS: usize = 20;

/// Order in which iptables-nft-save prints tables.
const NFT_ORDER: [&str; 5] = ["mangle", "security", "raw", "filter", "nat"];

/// Answers.
pub fn answer(context: &Context) -> ExitCode {
    if !may_administer() && context.has_backend() {
        return context.pass_through();
    }
    let whole = || context.hosting().is_none() && context.held_tables().is_ok_and(|tables| tables.is_empty());
    trip("save");
    let options = match alone::heed(context, Options::read(Tool::Save, &context.args), whole) {
        Ok(options) => options,
        Err(answer) => return answer,
    };
    if !may_administer() {
        return context.fail(&alone::not_permitted());
    }
    match settled(context, &options) {
        Ok(None) => context.pass_through(),
        Ok(Some(answer)) => {
            context.warn(&vec!["-b/--binary option is not implemented".to_owned(); options.binary]);
            let _ = std::io::stderr().write_all(&answer.said);
            let delivered = deliver(context, &options, &answer.text);
            if answer.code == 0 { delivered } else { ExitCode::from(u8::try_from(answer.code).unwrap_or(1)) }
        }
        Err(error) => context.fail(&error),
    }
}

/// What is said, and what with.
struct Answer {
    text: Vec<u8>,
    said: Vec<u8>,
    code: i32,
}

/// The answer, of before or of after whatever another front does meanwhile; `None` where the backend can answer alone. A
/// table that is being taken over is in ours before it is gone from the backend's: so whoever finds one in neither looks
/// again.
fn settled(context: &Context, options: &Options) -> Result<Option<Answer>, Error> {
    let wanted = |table: &str| options.table.as_deref().is_none_or(|only| only == table);
    for _ in 0..ATTEMPTS {
        let sections = match carried(context, options)? {
            None if !context.has_backend() || !context.may_be_taken(wanted) => return Ok(None),
            sections => sections.unwrap_or_default(),
        };
        let known: Vec<String> = sections.iter().map(|saved| saved.table.clone()).collect();
        let answer = assemble(context, options, sections)?;
        let ours = context.held_tables()?;
        if ours.iter().filter(|(table, _)| wanted(table)).all(|(table, _)| known.contains(table)) {
            return Ok(Some(answer));
        }
    }
    Err(Error::Resource("the tables change hands faster than they can be read".to_owned()))
}

/// A table as it is saved, with the comments around it.
struct Saved {
    table: String,
    text: String,
}

/// The carried tables that are asked for; `None` where the backend can answer alone.
fn carried(context: &Context, options: &Options) -> Result<Option<Vec<Saved>>, Error> {
    if let Some(table) = &options.table {
        return carried_one(context, options, table);
    }
    let mut sections = Vec::new();
    if let Some(by) = context.hosting().map(|hosting| hosting.kind) {
        let hosts = matches!(context.course(TABLE)?, Course::Carry { by: holder, .. } if holder == by);
        if hosts {
            let mut carrier = context.carrier_of(TABLE, by)?;
            sections.extend(framed(context, TABLE, |text| carrier.save(options.counters, text))?);
        }
    }
    for (table, _) in context.held_tables()? {
        let mut carrier = context.carrier(&table)?;
        sections.extend(framed(context, &table, |text| carrier.save(options.counters, text))?);
    }
    Ok((!sections.is_empty() || !context.has_backend()).then_some(sections))
}

/// The one table that is asked for.
fn carried_one(context: &Context, options: &Options, table: &str) -> Result<Option<Vec<Saved>>, Error> {
    if context.hosting().is_some_and(|hosting| hosting.host == table) {
        return Ok(Some(Vec::new()));
    }
    if !context.snapshot.carried_tables(context.front.family).any(|known| known == table) {
        let stderr = format!("Table `{table}' does not exist\n");
        return if context.has_backend() { Ok(None) } else { Err(Error::Verbatim { stderr, code: 1 }) };
    }
    let by = match context.course(table)? {
        Course::Carry { by, .. } => by,
        _ if context.has_backend() => return Ok(None),
        _ => CarrierKind::Nft,
    };
    let mut carrier = context.carrier_of(table, by)?;
    let saved = framed(context, table, |text| {
        if !carrier.save(options.counters, text)? {
            carrier.save_untouched(text);
        }
        Ok(true)
    })?;
    Ok(saved.map(|saved| vec![saved]))
}

fn assemble(context: &Context, options: &Options, sections: Vec<Saved>) -> Result<Answer, Error> {
    if options.table.is_some() && !sections.is_empty() || !context.has_backend() {
        return Ok(Answer { text: merge(context, "", sections).into_bytes(), said: Vec::new(), code: 0 });
    }
    let table = options.table.iter().flat_map(|table| ["-t".into(), table.into()]);
    let args: Vec<OsString> = options.passed.iter().cloned().chain(table).collect();
    let output = context.backend_output(&args)?;
    let code = exit_code(&output);
    let hosting = context.hosting();
    if sections.is_empty() && hosting.is_none() {
        return Ok(Answer { text: output.stdout, said: output.stderr, code });
    }
    let mut theirs = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(hosting) = hosting {
        theirs = host::unsaved(&theirs, hosting);
    }
    Ok(Answer { text: merge(context, &theirs, sections).into_bytes(), said: output.stderr, code })
}

/// What `save` writes, which tells whether there is anything, between the comments that iptables-save puts around each table.
fn framed(
    context: &Context,
    table: &str,
    save: impl FnOnce(&mut String) -> Result<bool, Error>,
) -> Result<Option<Saved>, Error> {
    let dialect = context.dialect();
    let (major, minor, patch) = dialect.version;
    let variant = match dialect.variant {
        Variant::Nft if dialect.version >= (1, 8, 8) => " (nf_tables)",
        _ => "",
    };
    let stamp = local_timestamp();
    let program = context.front.name();
    let mut text = format!("# Generated by {program} v{major}.{minor}.{patch}{variant} on {stamp}\n");
    if !save(&mut text)? {
        return Ok(None);
    }
    for part in ["# Completed on ", &stamp, "\n"] {
        text.push_str(part);
    }
    Ok(Some(Saved { table: table.to_owned(), text }))
}

/// The backend's file with ours, the newest first, put where the backend would have them, and without what the backend has under the
/// same names: an empty table that something loaded.
fn merge(context: &Context, theirs: &str, ours: Vec<Saved>) -> String {
    let mut tables = split(theirs);
    tables.retain(|known| ours.iter().all(|saved| saved.table != known.table));
    for (newer, saved) in ours.into_iter().enumerate() {
        let place = match context.dialect().variant {
            Variant::Legacy => newer,
            Variant::Nft => {
                let behind = |known: &Saved| rank(&known.table) > rank(&saved.table);
                tables.iter().position(behind).unwrap_or(tables.len())
            }
        };
        tables.insert(place, saved);
    }
    // The first is not copied: it is mostly the only one.
    tables.into_iter().map(|saved| saved.text).reduce(|text, next| text + &next).unwrap_or_default()
}

fn rank(table: &str) -> usize {
    NFT_ORDER.iter().position(|name| *name == table).unwrap_or(NFT_ORDER.len())
}

/// A save file as its tables, each with the comments around it.
fn split(file: &str) -> Vec<Saved> {
    let mut tables = Vec::new();
    let (mut table, mut text, mut committed) = (String::new(), String::new(), false);
    for line in file.split_inclusive('\n') {
        if committed && !line.starts_with("# Completed") {
            tables.push(Saved { table: std::mem::take(&mut table), text: std::mem::take(&mut text) });
            committed = false;
        }
        if let Some(name) = line.strip_prefix('*') {
            name.trim_end().clone_into(&mut table);
        }
        committed |= line.trim_end() == "COMMIT";
        text.push_str(line);
    }
    if !text.is_empty() {
        tables.push(Saved { table, text });
    }
    tables
}

fn deliver(context: &Context, options: &Options, text: &[u8]) -> ExitCode {
    let Some(path) = &options.file else {
        let mut stdout = std::io::stdout().lock();
        // The original says nothing of a file that it could not write.
        return match stdout.write_all(text).and_then(|()| stdout.flush()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(RESOURCE_PROBLEM),
        };
    };
    let created = privilege::with_callers_mask(|| privilege::if_denied(|| File::create(path)));
    match created.and_then(|mut file| file.write_all(text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => context
            .fail(&Error::Verbatim { stderr: format!("Failed to open file, error: {}\n", reason(&error)), code: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_file_falls_into_its_tables() {
        let file = "# Generated\n*nat\nCOMMIT\n# Completed on\n# Generated\n*filter\n-A X\nCOMMIT\n# Completed on\n";
        let tables = split(file);
        let names: Vec<&str> = tables.iter().map(|saved| saved.table.as_str()).collect();
        assert_eq!(names, ["nat", "filter"]);
        assert_eq!(tables.iter().map(|saved| saved.text.as_str()).collect::<String>(), file);
    }
}
