//! `-m hbh` and `-m dst`: the hop-by-hop and the destination options header of IPv6.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::number;
use crate::iptables::rule::bang;
use crate::iptables::translate::{matching, never};
use crate::nft::expr::{Alternative, Key, Value};
use crate::nft::exthdr::{ExtHdr, header};
use std::fmt::Write;

/// IP6T_OPTS_OPTSNR of linux/netfilter_ipv6/ip6t_opts.h
const MAX_OPTIONS: usize = 16;

const LENGTH: u8 = 0;
const LIST: u8 = 1;

const HBH_OPTIONS: &[Opt] = &[Opt::value(LENGTH, &["hbh-len"]), Opt::value(LIST, &["hbh-opts"]).plain()];
const DST_OPTIONS: &[Opt] = &[Opt::value(LENGTH, &["dst-len"]), Opt::value(LIST, &["dst-opts"]).plain()];

#[derive(Clone, Debug)]
struct Options {
    /// `hbh` or `dst`
    name: &'static str,
    /// Bytes.
    length: Option<(u32, bool)>,
    /// Type, and length where one was given.
    list: Vec<(u8, Option<u8>)>,
}

/// `-m hbh`, without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Options { name: "hbh", length: None, list: Vec::new() })
}

/// `-m dst`, without options.
pub fn dst() -> Box<dyn Extension> {
    Box::new(Options { name: "dst", length: None, list: Vec::new() })
}

impl Options {
    fn is_hbh(&self) -> bool {
        self.name == "hbh"
    }

    fn parse_list(&self, text: &str) -> Result<Vec<(u8, Option<u8>)>, Error> {
        let error = |text: String| Err(Error::Parameter(text));
        let mut list = Vec::new();
        for word in text.split(',') {
            if list.len() == MAX_OPTIONS {
                return error("too many ports specified".to_owned());
            }
            let (kind, length) = match word.split_once(':') {
                Some((kind, length)) => (kind, Some(length)),
                None => (word, None),
            };
            // Upper bits of a number that is too large are lost.
            let read = |text| number::parse(text, u64::from(u32::MAX)).map(|number| number as u8);
            let Some(kind) = read(kind) else {
                return error(format!("invalid {} option `{kind}'", self.name));
            };
            let length = match length.filter(|length| !length.is_empty()) {
                Some(length) => match read(length) {
                    Some(length) => Some(length),
                    None => return error(format!("invalid {} option length `{length}'", self.name)),
                },
                None => None,
            };
            list.push((kind, length));
        }
        Ok(list)
    }

    fn list_text(&self) -> String {
        let text = |(kind, length): &(u8, Option<u8>)| match length {
            Some(length) => format!("{kind}:{length}"),
            None => kind.to_string(),
        };
        self.list.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

impl Extension for Options {
    fn name(&self) -> &'static str {
        self.name
    }

    fn options(&self) -> &'static [Opt] {
        if self.is_hbh() { HBH_OPTIONS } else { DST_OPTIONS }
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let length = if self.is_hbh() { "hbh-len" } else { "dst-len" };
        match input.id {
            LENGTH => {
                let number = value::number(self.name, length, input.value, u64::from(u32::MAX))?;
                self.length = Some((number as u32, input.inverted));
            }
            _ => self.list = self.parse_list(input.value)?,
        }
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        if let Some((length, inverted)) = self.length {
            let _ = write!(out, "{} --{}-len {length}", bang(inverted), self.name);
        }
        if !self.list.is_empty() {
            let _ = write!(out, " --{}-opts {}", self.name, self.list_text());
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " {}", self.name);
        if let Some((length, inverted)) = self.length {
            let _ = write!(out, " length:{}{length}", if inverted { "!" } else { "" });
        }
        if !self.list.is_empty() {
            let _ = write!(out, " opts {}", self.list_text());
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !self.list.is_empty() {
            let option = format!("--{}-opts", self.name);
            return Err(Refusal::new(option, "nf_tables has no expression for options of an extension header"));
        }
        let (field, number) = match self.is_hbh() {
            true => (ExtHdr::HbhHdrlength, header::HOP_BY_HOP),
            false => (ExtHdr::DstHdrlength, header::DESTINATION),
        };
        let is_there = || matching(Key::ExtHdr(ExtHdr::Present(number)), false, Value::Bytes(vec![1]));
        let Some((length, inverted)) = self.length else { return Ok(vec![vec![is_there()]]) };
        // In units of 8 bytes, without the first 8 (RFC 8200, 4.3).
        let units = length.is_multiple_of(8).then(|| (length / 8).checked_sub(1)).flatten();
        match (units.and_then(|units| u8::try_from(units).ok()), inverted) {
            (Some(units), _) => Ok(vec![vec![matching(Key::ExtHdr(field), inverted, Value::Bytes(vec![units]))]]),
            (None, true) => Ok(vec![vec![is_there()]]),
            (None, false) => Ok(vec![vec![never()]]),
        }
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
