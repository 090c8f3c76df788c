//! `-m socket`: there is a socket for the packet.
//!
//! Read and checked as iptables does, and then refused: xt_socket asks for fragments to be put together before anything
//! else sees them, nft's `socket` does not, and a rule that drops what is too long would let its fragments through.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::nft::expr::Alternative;

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
        Err(Refusal::new("-m socket", "nft's socket does not put fragments together, as xt's does"))
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
