//! The man page and the completions, made from the command line's own definition. `XTSHIM_BLESS=1 cargo test --test manual`
//! writes them anew.

#![allow(clippy::unwrap_used)]

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

const FILES: &str = "\
.SH FILES
.TP
.I /etc/xtshim/xtshim.toml
Configuration, optional: see
.BR xtshim.toml (5).
.TP
.I /var/log/xtshim/rewrites.jsonl
The journal of rewrites, one JSON object a line;
.B xtshim log
reads it. The same is in the system's journal.
.TP
.I /var/lib/xtshim/previous
What iptables was before xtshim.
.TP
.I /var/lib/xtshim/off
There after
.BR \"xtshim disable\" ;
upgrades leave xtshim switched off while it is.
.TP
.I /run/xtshim
What was found out about this machine since it was booted.
.SH SEE ALSO
.BR iptables-xtshim (8),
.BR xtshim.toml (5),
.BR iptables (8),
.BR update-alternatives (1),
.BR nft (8)
";

/// Text as roff has it, line for line: no backslash, no line that begins like a request.
fn literal(text: &str) -> String {
    let line = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}\n") } else { format!("{line}\n") }
    };
    text.lines().map(line).collect()
}

/// What one of clap_mangen's sections has below its heading.
fn section(command: &Command, render: impl Fn(&Man, &mut dyn io::Write) -> io::Result<()>) -> String {
    let mut text = Vec::new();
    render(&Man::new(command.clone()), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let body: Vec<&str> = text.lines().skip_while(|line| !line.starts_with(".SH")).skip(1).collect();
    body.join("\n")
}

fn manual() -> String {
    let mut command = xtshim::cli::command().disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).title("XTSHIM").section("8").source("xtshim").manual("System administration");
    man.render_title(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    writeln!(page, ".SH NAME\nxtshim \\- stand in for iptables where the kernel cannot do what Docker asks of it")
        .unwrap();
    writeln!(page, ".SH SYNOPSIS").unwrap();
    for sub in command.get_subcommands() {
        let synopsis = section(sub, Man::render_synopsis_section);
        writeln!(page, "{}\n.br", synopsis.trim_end()).unwrap();
    }
    writeln!(page, ".SH DESCRIPTION\n{}", section(&command, Man::render_description_section)).unwrap();
    page.push_str(".SH COMMANDS\n");
    for sub in command.get_subcommands() {
        let name = sub.get_name();
        writeln!(page, ".SS \"xtshim {name}\"\n{}", section(sub, Man::render_description_section)).unwrap();
        writeln!(page, "{}", section(sub, Man::render_options_section)).unwrap();
        if let Some(after) = sub.get_after_help() {
            writeln!(page, ".PP\n.nf\n{}.fi", literal(&after.to_string())).unwrap();
        }
    }
    if let Some(after) = command.get_after_help() {
        writeln!(page, ".SH NOTES\n.nf\n{}.fi", literal(&after.to_string())).unwrap();
    }
    page.push_str(FILES);
    page
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut xtshim::cli::command(), "xtshim", &mut text);
    // Some lines end in blanks.
    let text = String::from_utf8(text).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn what_is_made_from_the_command_line_is_up_to_date() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let made = [
        ("man/xtshim.8", manual()),
        ("completions/xtshim.bash", completions(Shell::Bash)),
        ("completions/_xtshim", completions(Shell::Zsh)),
        ("completions/xtshim.fish", completions(Shell::Fish)),
    ];
    for (name, text) in made {
        let path = docs.join(name);
        if std::env::var_os("XTSHIM_BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "docs/{name} is out of date: XTSHIM_BLESS=1 cargo test --test manual");
    }
}
