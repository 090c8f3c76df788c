//! `-j NFLOG`: a log group of user space.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::dialect::{KEPT, Variant};
use crate::iptables::restore::quote;
use crate::nft::expr::{Alternative, Expr, Log};
use std::fmt::Write;

const GROUP: u8 = 0;
const PREFIX: u8 = 1;
const RANGE: u8 = 2;
const SIZE: u8 = 3;
const THRESHOLD: u8 = 4;

/// Length of xt_nflog_info's prefix less its NUL (linux/netfilter/xt_NFLOG.h).
const PREFIX_MAX: usize = 63;

/// The same of nf_tables' log expression (NF_LOG_PREFIXLEN, linux/netfilter/nf_log.h), which iptables-nft uses.
const NFT_PREFIX_MAX: usize = 127;

const OPTIONS: &[Opt] = &[
    Opt::value(GROUP, &["nflog-group"]).plain(),
    Opt::value(PREFIX, &["nflog-prefix"]).plain(),
    Opt::value(RANGE, &["nflog-range"]).plain().either(1),
    Opt::value(SIZE, &["nflog-size"]).plain().either(1),
    Opt::value(THRESHOLD, &["nflog-threshold"]).plain(),
];

#[derive(Clone, Debug, Default)]
struct Nflog {
    group: u16,
    prefix: Option<String>,
    size: Option<u32>,
    /// Told in listings and of no other effect; `--nflog-range` was given.
    range: u32,
    ranged: bool,
    threshold: u16,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Nflog::default())
}

impl Nflog {
    fn text(&self, dashes: &str, out: &mut String, double_blank: bool) {
        if let Some(prefix) = &self.prefix {
            let blank = if double_blank { " " } else { "" };
            let _ = write!(out, " {dashes}nflog-prefix {blank}{}", quote(prefix));
        }
        if self.group != 0 {
            let _ = write!(out, " {dashes}nflog-group {}", self.group);
        }
        if let Some(size) = self.size {
            let _ = write!(out, " {dashes}nflog-size {size}");
        }
        if self.range != 0 {
            let _ = write!(out, " {dashes}nflog-range {}", self.range);
        }
        if self.threshold != 0 {
            let _ = write!(out, " {dashes}nflog-threshold {}", self.threshold);
        }
    }
}

impl Extension for Nflog {
    fn name(&self) -> &'static str {
        "NFLOG"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let read = |option, max| value::number("NFLOG", option, input.value, max);
        let native = input.dialect.variant == Variant::Nft && input.dialect.version >= (1, 8, 8);
        match input.id {
            GROUP => self.group = read("nflog-group", 65535)? as u16,
            PREFIX => {
                let max = if native { NFT_PREFIX_MAX } else { PREFIX_MAX };
                self.prefix = Some(value::prefix(input.value, max)?);
            }
            SIZE => self.size = Some(read("nflog-size", u64::from(u32::MAX))? as u32),
            THRESHOLD => self.threshold = read("nflog-threshold", 65535)? as u16,
            _ => {
                let range = read("nflog-range", u64::from(u32::MAX))? as u32;
                self.ranged = true;
                // iptables-nft has forgotten it once the rule is set.
                self.range = if native && input.dialect.version != KEPT { 0 } else { range };
            }
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let text = "warn: --nflog-range has never worked and is no longer supported, please use --nflog-size instead";
        self.ranged.then(|| text.to_owned()).into_iter().collect()
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        // Up to 1.8.7 two blanks stand before the prefix.
        let old = matches!(form, Form::Save(dialect) if dialect.version <= (1, 8, 7));
        self.text("--", out, old);
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        self.text("", out, style.dialect.version <= (1, 8, 7));
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        Ok(vec![vec![Expr::Log(Log::Group {
            group: self.group,
            prefix: self.prefix.clone(),
            snaplen: self.size,
            threshold: (self.threshold != 0).then_some(self.threshold),
        })]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
