//! `-j LOG`: the kernel's log.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::iptables::restore::quote;
use crate::nft::expr::{Alternative, Expr, Log as LogExpr};
use std::fmt::Write;

const LEVEL: u8 = 0;
const PREFIX: u8 = 1;

/// Length of xt_log_info's prefix less its NUL (linux/netfilter/xt_LOG.h).
const PREFIX_MAX: usize = 29;

/// LOGLEVEL_WARNING.
const DEFAULT_LEVEL: u8 = 4;

const OPTIONS: &[Opt] = &[
    Opt::value(LEVEL, &["log-level"]).plain(),
    Opt::value(PREFIX, &["log-prefix"]).plain(),
    Opt::flag(2, &["log-tcp-sequence"]).plain(),
    Opt::flag(3, &["log-tcp-options"]).plain(),
    Opt::flag(4, &["log-ip-options"]).plain(),
    Opt::flag(5, &["log-uid"]).plain(),
    Opt::flag(6, &["log-macdecode"]).plain(),
];

/// Option, its bit (XT_LOG_*, linux/netfilter/xt_LOG.h) and what is written for it.
const FLAGS: &[(u8, u32, &str, &str)] = &[
    (2, 0x01, "--log-tcp-sequence", "tcp-sequence"),
    (3, 0x02, "--log-tcp-options", "tcp-options"),
    (4, 0x04, "--log-ip-options", "ip-options"),
    (5, 0x08, "--log-uid", "uid"),
    (6, 0x20, "--log-macdecode", "macdecode"),
];

/// Levels as they may be written.
const LEVELS: &[(&str, u8)] = &[
    ("emerg", 0),
    ("panic", 0),
    ("alert", 1),
    ("crit", 2),
    ("error", 3),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];

/// Levels as a listing names them.
const LISTED: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

#[derive(Clone, Debug)]
struct Log {
    level: u8,
    prefix: Option<String>,
    flags: u32,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Log { level: DEFAULT_LEVEL, prefix: None, flags: 0 })
}

fn parse_level(text: &str) -> Result<u8, Error> {
    let named = LEVELS.iter().find(|(name, _)| *name == text).map(|(_, level)| *level);
    let level = named.or_else(|| number::parse(text, 7).map(|level| level as u8));
    level.ok_or_else(|| Error::Parameter(format!("log level \"{text}\" unknown\n")))
}

impl Extension for Log {
    fn name(&self) -> &'static str {
        "LOG"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            LEVEL => self.level = parse_level(input.value)?,
            PREFIX => self.prefix = Some(value::prefix(input.value, PREFIX_MAX)?),
            id => self.flags |= FLAGS.iter().filter(|flag| flag.0 == id).map(|flag| flag.1).sum::<u32>(),
        }
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        if let Some(prefix) = &self.prefix {
            let _ = write!(out, " --log-prefix {}", quote(prefix));
        }
        if self.level != DEFAULT_LEVEL {
            let _ = write!(out, " --log-level {}", self.level);
        }
        for (_, bit, option, _) in FLAGS {
            if self.flags & bit != 0 {
                let _ = write!(out, " {option}");
            }
        }
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        if style.numeric {
            let _ = write!(out, " LOG flags {} level {}", self.flags, self.level);
        } else {
            let level = LISTED.get(usize::from(self.level)).copied().unwrap_or_default();
            let _ = write!(out, " LOG level {level}");
            for (_, bit, _, word) in FLAGS {
                if self.flags & bit != 0 {
                    let _ = write!(out, " {word}");
                }
            }
        }
        if let Some(prefix) = &self.prefix {
            let _ = write!(out, " prefix \"{prefix}\"");
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let Self { level, flags, .. } = *self;
        Ok(vec![vec![Expr::Log(LogExpr::Kernel { prefix: self.prefix.clone(), level, flags })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
