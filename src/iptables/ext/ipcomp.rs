//! `-m ipcomp`: the CPI of an IPComp header.

#![forbid(unsafe_code)]

use super::transport::{Numbers, is_there};
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::protocol::ip;
use crate::nft::expr::{Alternative, Field, Key};

/// The whole header (RFC 3173, 3.3).
const HEADER: u16 = 4;

const SPI: u8 = 0;
const RESERVED: u8 = 1;

const OPTIONS: &[Opt] = &[Opt::value(SPI, &["ipcompspi"]), Opt::flag(RESERVED, &["compres"]).plain()];

/// xt_ipcomp looks at the CPI alone; what `--compres` says is only shown.
#[derive(Clone, Debug)]
struct IpComp {
    spi: Numbers,
    reserved: bool,
}

/// Without options; then iptables asks for CPI 0.
pub fn new() -> Box<dyn Extension> {
    Box::new(IpComp { spi: Numbers { first: 0, last: 0, inverted: false }, reserved: false })
}

impl Extension for IpComp {
    fn name(&self) -> &'static str {
        "ipcomp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        match input.id {
            SPI => self.spi = Numbers::parse("ipcomp", "ipcompspi", input)?,
            _ => self.reserved = true,
        }
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.protocol.is(ip::COMP) { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        let all = self.spi == Numbers::default();
        match form {
            // Kept apart from a match without options.
            Form::Spec if all => out.push_str(" --ipcompspi 0:4294967295"),
            _ => self.spi.save(out, "ipcompspi", form),
        }
        if self.reserved {
            out.push_str(" --compres");
        }
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" comp ");
        self.spi.list(out, "spi");
        if self.reserved {
            out.push_str(" reserved");
        }
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !context.protocol.is(ip::COMP) {
            return Err(Refusal::new("-m ipcomp", "needs -p ipcomp"));
        }
        let spi = self.spi.translate(Key::Payload(Field::CompCpi), 2);
        Ok(vec![vec![spi.unwrap_or_else(|| is_there(HEADER))]])
    }

    fn sees_no_later_fragment(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
