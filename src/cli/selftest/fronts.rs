//! The fronts, called as Docker calls them: programs of their own, by name.

use crate::config::{self, CONFIG_VARIABLE};
use crate::family::Family;
use crate::rules;
use crate::sys::netns::Namespace;
use anyhow::Context;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::{File, Permissions, read_to_string};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// This same program, whatever file it was started from.
const OURSELVES: &str = "/proc/self/exe";

/// The machine's configuration, less its journal: what is played in a throwaway network is no news. In memory only.
///
/// # Errors
/// The configuration is bad.
pub fn settings_without_journal() -> anyhow::Result<File> {
    let (config, error) = config::load();
    if let Some(error) = error {
        return Err(error.into());
    }
    let text = match read_to_string(&config.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("cannot read {}", config.path.display()))?,
    };
    let mut settings: toml::Table = toml::from_str(&text)?;
    settings.insert("journal".to_owned(), toml::toml! { file = "none" system = false }.into());
    let mut file = File::from(memfd_create("xtshim.toml", MFdFlags::MFD_CLOEXEC)?);
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(toml::to_string(&settings)?.as_bytes())?;
    Ok(file)
}

/// Calls fronts, and shows each call where that is wanted.
pub struct Fronts {
    settings: File,
    verbose: bool,
}

impl Fronts {
    pub fn new(settings: File, verbose: bool) -> Self {
        Self { settings, verbose }
    }

    /// Calls a front inside a network namespace.
    pub fn call(&self, inside: &Namespace, front: &str, args: &[String]) -> Answer {
        let settings = format!("/proc/{}/fd/{}", std::process::id(), self.settings.as_raw_fd());
        let mut command = Command::new(OURSELVES);
        command.arg0(front).args(args).env(CONFIG_VARIABLE, settings).stdin(Stdio::null());
        let output = inside.run(|| command.output()).flatten();
        let answer = match output {
            Ok(output) => Answer {
                command: format!("{front} {}", shlex::try_join(args.iter().map(String::as_str)).unwrap_or_default()),
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
            Err(error) => Answer {
                command: front.to_owned(),
                code: None,
                stdout: String::new(),
                stderr: format!("cannot be started: {error}"),
            },
        };
        if self.verbose {
            let mut out = io::stdout().lock();
            for line in answer.describe().lines() {
                // A reader that went away is noticed at the next line of the report.
                let _ = writeln!(out, "    {}", crate::journal::escape(line));
            }
        }
        answer
    }

    /// The same as Docker has it since 28.0: `--wait` first, then the table.
    pub fn say(&self, inside: &Namespace, family: Family, table: &str, args: &[String]) -> Answer {
        let mut words = ["--wait", "-t", table].map(str::to_owned).to_vec();
        words.extend_from_slice(args);
        self.call(inside, family.program(), &words)
    }

    /// What `iptables --version` says.
    pub fn version(&self, inside: &Namespace) -> String {
        let answer = self.call(inside, Family::V4.program(), &["--version".to_owned()]);
        let said = if answer.code == Some(0) { answer.stdout } else { answer.stderr };
        crate::journal::escape(said.trim_end())
    }
}

/// What a front answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub command: String,
    /// `None`: killed by a signal, or not started.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// What Docker takes for success of a command that changes something: exit 0 and not a byte on either stream.
    pub fn is_silent_success(&self) -> bool {
        self.code == Some(0) && self.stdout.is_empty() && self.stderr.is_empty()
    }

    /// The command, how it ended, what it printed, and what that means where it is a known message.
    pub fn describe(&self) -> String {
        let code = self.code.map_or("did not end by itself".to_owned(), |code| format!("exit {code}"));
        let mut text = format!("{}\n  {code}", self.command);
        for line in self.stdout.lines().chain(self.stderr.lines()).filter(|line| !line.is_empty()) {
            text.push_str("\n  | ");
            text.push_str(line);
        }
        if let Some(known) = rules::meaning(&self.stderr).filter(|_| self.code != Some(0)) {
            text.push_str("\n  that is: ");
            text.push_str(&known.meaning);
        }
        text
    }
}
