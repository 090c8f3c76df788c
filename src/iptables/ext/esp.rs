//! `-m esp`: the SPI of an ESP header.

#![forbid(unsafe_code)]

use super::transport::{Numbers, is_there};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::protocol::ip;
use crate::nft::expr::{Alternative, Field, Key};

/// SPI and sequence number (RFC 4303, 2).
const HEADER: u16 = 8;

const OPTIONS: &[Opt] = &[Opt::value(0, &["espspi"])];

#[derive(Clone, Debug, Default)]
struct Esp {
    spi: Numbers,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Esp::default())
}

impl Extension for Esp {
    fn name(&self) -> &'static str {
        "esp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        self.spi = Numbers::parse("esp", "espspi", input)?;
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.protocol.is(ip::ESP) { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        self.spi.save(out, "espspi", form);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let mut text = String::new();
        self.spi.list(&mut text, "spi");
        out.push_str(if text.is_empty() { " esp" } else { " esp " });
        out.push_str(&text);
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !context.protocol.is(ip::ESP) {
            return Err(Refusal::new("-m esp", "needs -p esp"));
        }
        let spi = self.spi.translate(Key::Payload(Field::EspSpi), 4);
        Ok(vec![vec![spi.unwrap_or_else(|| is_there(HEADER))]])
    }

    fn sees_no_later_fragment(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
