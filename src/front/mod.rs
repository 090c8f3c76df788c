//! The faces a caller sees: iptables, ip6tables, and -save and -restore of each, chosen by the name of the call.
//!
//! A front prints what the real iptables prints and nothing else: dockerd takes any other byte for a failure.

#![forbid(unsafe_code)]

mod alone;
mod command;
mod context;
mod host;
mod lacking;
mod options;
mod planning;
mod rescue;
mod restore;
mod save;
mod short;

use crate::exit::ExitCode;
use crate::family::Family;
use crate::probe::{self, Tool};
use crate::sys::{exec, privilege};
use context::Context;
pub use short::pass_through;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Exit code of a program that runs with somebody else's rights (as libxtables does).
const SETUID_REFUSED: u8 = 111;

/// Exit code for what is not the caller's fault (xtables.h, RESOURCE_PROBLEM).
const RESOURCE_PROBLEM: u8 = 4;

/// A front, and the name under which it was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// Which family it serves.
    pub family: Family,
    /// Which of the three programs it is.
    pub tool: Tool,
}

impl Front {
    /// The front of that name: `iptables`, `ip6tables-save`, `iptables-xtshim-restore`, …
    pub fn by_name(name: &str) -> Option<Self> {
        Self::by_bytes(name.as_bytes())
    }

    #[inline(always)]
    fn by_bytes(name: &[u8]) -> Option<Self> {
        let (family, rest) = match name.strip_prefix(b"ip6tables") {
            Some(rest) => (Family::V6, rest),
            None => (Family::V4, name.strip_prefix(b"iptables")?),
        };
        let tool = match rest.strip_prefix(b"-xtshim").unwrap_or(rest) {
            b"" => Tool::Command,
            b"-save" => Tool::Save,
            b"-restore" => Tool::Restore,
            _ => return None,
        };
        Some(Self { family, tool })
    }

    /// The name that the real program of this kind has.
    pub const fn name(self) -> &'static str {
        match (self.family, self.tool) {
            (Family::V4, Tool::Command) => "iptables",
            (Family::V4, Tool::Save) => "iptables-save",
            (Family::V4, Tool::Restore) => "iptables-restore",
            (Family::V6, Tool::Command) => "ip6tables",
            (Family::V6, Tool::Save) => "ip6tables-save",
            (Family::V6, Tool::Restore) => "ip6tables-restore",
        }
    }
}

impl Front {
    /// What the backend is told it was called as: it goes by that, and some messages bear it.
    fn argv0(self, called: &str) -> &str {
        if self.is_named(base_name(called.as_bytes())) { called } else { self.name() }
    }

    /// Whether a name of this front's is that of the real program. A name of our own is longer, and nothing else tells
    /// them apart.
    #[inline(always)]
    const fn is_named(self, name: &[u8]) -> bool {
        let of_family = match self.family {
            Family::V4 => "iptables".len(),
            Family::V6 => "ip6tables".len(),
        };
        let of_tool = match self.tool {
            Tool::Command => 0,
            Tool::Save => "-save".len(),
            Tool::Restore => "-restore".len(),
        };
        name.len() == of_family + of_tool
    }
}

/// Chooses by the name of the call: a front, or else the management CLI, which has the fronts as subcommands.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let called = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    if let Some(front) = Front::by_bytes(base_name(called.as_bytes())) {
        return serve(front, called.to_str().unwrap_or_default(), args);
    }
    match args.split_first() {
        Some((name, rest)) if name.to_str().is_some_and(|name| Front::by_name(name).is_some()) => {
            run(name.to_str().unwrap_or_default(), rest.to_vec())
        }
        // What has failed is said by then.
        _ => rescue::guarded(|| crate::cli::main(args)).unwrap_or(ExitCode::FAILURE),
    }
}

#[inline(always)]
fn base_name(path: &[u8]) -> &[u8] {
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    path.get(start..).unwrap_or_default()
}

/// Runs the front of that name. An unknown name is a caller's mistake, exit code 2.
pub fn run(name: &str, args: Vec<OsString>) -> ExitCode {
    match Front::by_name(name) {
        Some(front) => serve(front, name, args),
        None => ExitCode::from(2),
    }
}

fn serve(front: Front, called: &str, args: Vec<OsString>) -> ExitCode {
    if nix::unistd::getuid() != nix::unistd::geteuid() {
        return ExitCode::from(SETUID_REFUSED);
    }
    // Somebody who looks for the real iptables wants to hear nothing of us.
    if std::env::var_os(probe::NESTED_VARIABLE).is_some() {
        return ExitCode::FAILURE;
    }
    rescue::hush();
    privilege::lower();
    exec::restore_sigchld();
    exec::outlive_sigxfsz();
    let standing = rescue::guarded(|| {
        rescue::trip("standing");
        probe::standing()
    });
    let whole = standing.is_some();
    let standing = standing.or_else(|| rescue::guarded(probe::standing_at_least));
    // Not before: what is tried may stop reading what it is fed.
    exec::restore_sigpipe();
    let Some(context) = standing.map(|standing| Context::new(front, called, args, standing)) else {
        return rescue::refuse(front);
    };
    if !whole {
        return rescue::answer(&context);
    }
    let answered = rescue::guarded(|| match front.tool {
        Tool::Command => command::answer(&context),
        Tool::Save => save::answer(&context),
        Tool::Restore => restore::answer(&context),
    });
    answered.unwrap_or_else(|| rescue::answer(&context))
}

#[cfg(test)]
mod tests {
    use super::Front;

    #[test]
    fn a_front_is_known_by_its_name() {
        for name in
            ["iptables", "ip6tables", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"]
        {
            let front = Front::by_name(name).expect("a front");
            assert_eq!(front.name(), name);
            assert!(front.is_named(name.as_bytes()));
            let own = name.replacen("tables", "tables-xtshim", 1);
            assert_eq!(Front::by_name(&own), Some(front));
            assert!(!front.is_named(own.as_bytes()));
        }
    }

    #[test]
    fn alternatives_have_links_of_our_own() {
        assert_eq!(Front::by_name("iptables-xtshim").map(Front::name), Some("iptables"));
        assert_eq!(Front::by_name("ip6tables-xtshim-restore").map(Front::name), Some("ip6tables-restore"));
    }

    #[test]
    fn other_names_are_no_fronts() {
        for name in
            ["xtshim", "iptables-nft", "iptables-legacy", "iptables-translate", "arptables", "xtables-nft-multi"]
        {
            assert_eq!(Front::by_name(name), None);
        }
    }
}
