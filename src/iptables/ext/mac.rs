//! `-m mac`: the Ethernet source address.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::iptables::translate::matching;
use crate::nft::expr::{Alternative, Field, Key, Meta, Value};
use std::fmt::Write;

/// ARPHRD_ETHER of linux/if_arp.h.
const ETHERNET: u16 = 1;

const OPTIONS: &[Opt] = &[Opt::value(0, &["mac-source"]).required()];

#[derive(Clone, Debug, Default)]
struct Mac {
    address: [u8; 6],
    inverted: bool,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Mac::default())
}

fn parse_address(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut words = text.split(':');
    for byte in &mut address {
        let word = words.next()?;
        let digits = (1..=2).contains(&word.len()) && word.chars().all(|c| c.is_ascii_hexdigit());
        *byte = u8::from_str_radix(word, 16).ok().filter(|_| digits)?;
    }
    words.next().is_none().then_some(address)
}

impl Mac {
    fn text(&self) -> String {
        self.address.map(|byte| format!("{byte:02x}")).join(":")
    }
}

impl Extension for Mac {
    fn name(&self) -> &'static str {
        "mac"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let bad = || Error::Parameter("Invalid MAC address specified.".to_owned());
        self.address = parse_address(input.value).ok_or_else(bad)?;
        self.inverted = input.inverted;
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if matches!(place.chain, "OUTPUT" | "POSTROUTING") { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        let upper = matches!(form, Form::Save(dialect) if dialect.version <= (1, 8, 7));
        let text = if upper { self.text().to_uppercase() } else { self.text() };
        let _ = write!(out, "{} --mac-source {text}", bang(self.inverted));
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        let upper = style.dialect.version <= (1, 8, 7);
        let text = if upper { self.text().to_uppercase() } else { self.text() };
        let _ = write!(out, " MAC{} {text}", bang(self.inverted));
    }

    /// Only packets that came in through an Ethernet device have such an address, inverted or not.
    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let ethernet = Value::Bytes(ETHERNET.to_ne_bytes().to_vec());
        Ok(vec![vec![
            matching(Key::Meta(Meta::Iiftype), false, ethernet),
            matching(Key::Payload(Field::EtherSaddr), self.inverted, Value::Bytes(self.address.to_vec())),
        ]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
