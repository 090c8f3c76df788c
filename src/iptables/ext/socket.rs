//! `-m socket`: there is a socket for the packet.
//!
//! nf_tables can be asked whether that socket is a transparent one, which has an answer only if there is one. Whether it
//! is bound to every address has an answer only for sockets of whole connections, where xt_socket also takes those that
//! are being made or closed.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::translate::matching;
use crate::nft::circumstance::Circumstance;
use crate::nft::expr::{Alternative, Expr, Key, Match, Op, Value};

const TRANSPARENT: u8 = 0;
const NO_WILDCARD: u8 = 1;
const RESTORE: u8 = 2;

/// In the order in which they are written.
const OPTIONS: &[Opt] = &[
    Opt::flag(TRANSPARENT, &["transparent"]).plain(),
    Opt::flag(NO_WILDCARD, &["nowildcard"]).plain(),
    Opt::flag(RESTORE, &["restore-skmark"]).plain(),
];

#[derive(Clone, Debug, Default)]
struct Socket {
    given: [bool; 3],
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Socket::default())
}

impl Socket {
    fn has(&self, option: u8) -> bool {
        self.given.get(usize::from(option)).copied().unwrap_or_default()
    }

    fn text(&self) -> String {
        let given = OPTIONS.iter().filter(|option| self.has(option.id));
        given.flat_map(|option| option.names).map(|name| format!(" --{name}")).collect()
    }
}

impl Extension for Socket {
    fn name(&self) -> &'static str {
        "socket"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        if let Some(given) = self.given.get_mut(usize::from(input.id)) {
            *given = true;
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let wrong_hook = matches!(place.chain, "FORWARD" | "OUTPUT" | "POSTROUTING");
        if wrong_hook { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        out.push_str(&self.text());
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" socket");
        out.push_str(&self.text());
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if self.has(RESTORE) {
            let why = "nft cannot list a rule that takes the mark of a socket so that it can be read again";
            return Err(Refusal::new("--restore-skmark", why));
        }
        if !self.has(NO_WILDCARD) {
            let why = "without --nowildcard, nf_tables passes over connections that are being made or closed";
            return Err(Refusal::new("-m socket", why));
        }
        let key = Key::Circumstance(Circumstance::Transparent);
        let test = match self.has(TRANSPARENT) {
            true => matching(key, false, Value::Bytes(vec![1])),
            false => Expr::Match(Match { key, mask: None, op: Op::Ge, value: Value::Bytes(vec![0]) }),
        };
        Ok(vec![vec![test]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
