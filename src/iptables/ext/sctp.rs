//! `-m sctp`: ports and kinds of chunks.

#![forbid(unsafe_code)]

use super::port::{PortMatch, Ports};
use super::transport::is_there;
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::protocol::ip;
use crate::iptables::rule::bang;
use crate::nft::expr::{Alternative, Field};
use std::fmt::Write;

/// The common header (RFC 9260, 3.1).
const HEADER: u16 = 12;

const SOURCE: u8 = 0;
const DESTINATION: u8 = 1;
const CHUNKS: u8 = 2;

const OPTIONS: &[Opt] = &[
    Opt::value(SOURCE, &["source-port", "sport"]).repeatable(),
    Opt::value(DESTINATION, &["destination-port", "dport"]).repeatable(),
    Opt::value(CHUNKS, &["chunk-types"]).two().repeatable(),
];

/// Names of chunks, and the letters of their flags (RFC 9260, RFC 8260, RFC 5061, RFC 3758, RFC 6525, RFC 4820).
const CHUNK_NAMES: &[(&str, u8, &str)] = &[
    ("DATA", 0, "IUBE"),
    ("INIT", 1, ""),
    ("INIT_ACK", 2, ""),
    ("SACK", 3, ""),
    ("HEARTBEAT", 4, ""),
    ("HEARTBEAT_ACK", 5, ""),
    ("ABORT", 6, "T"),
    ("SHUTDOWN", 7, ""),
    ("SHUTDOWN_ACK", 8, ""),
    ("ERROR", 9, ""),
    ("COOKIE_ECHO", 10, ""),
    ("COOKIE_ACK", 11, ""),
    ("ECN_ECNE", 12, ""),
    ("ECN_CWR", 13, ""),
    ("SHUTDOWN_COMPLETE", 14, "T"),
    ("I_DATA", 64, "IUBE"),
    ("ASCONF_ACK", 128, ""),
    ("RE_CONFIG", 130, ""),
    ("PAD", 132, ""),
    ("ASCONF", 193, ""),
    ("FORWARD_TSN", 192, ""),
    ("I_FORWARD_TSN", 194, ""),
];

#[derive(Clone, Debug)]
struct Chunks {
    how: &'static str,
    which: String,
    inverted: bool,
}

#[derive(Clone, Debug, Default)]
struct Sctp {
    source: Option<PortMatch>,
    destination: Option<PortMatch>,
    chunks: Option<Chunks>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Sctp::default())
}

fn parse_chunks(input: &Input<'_>) -> Result<Chunks, Error> {
    let error = |text: String| Error::Parameter(text);
    let Some(second) = input.second else {
        return Err(error("--chunk-types requires two args".to_owned()));
    };
    let how = ["all", "any", "only"].into_iter().find(|known| input.value.eq_ignore_ascii_case(known));
    let how = how.ok_or_else(|| error("Match type has to be one of \"ALL\", \"ANY\" or \"ONLY\"".to_owned()))?;
    let mut which = Vec::new();
    for word in second.split(',').filter(|word| !word.is_empty()) {
        let (name, flags) = word.split_once(':').unwrap_or((word, ""));
        if ["ALL", "NONE"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            which = vec![name.to_ascii_uppercase()];
            break;
        }
        let chunk = CHUNK_NAMES.iter().find(|(known, ..)| name.eq_ignore_ascii_case(known));
        let (known, number, letters) = chunk.ok_or_else(|| error(format!("Unknown sctp chunk `{name}'")))?;
        if flags.chars().any(|flag| !letters.contains(flag.to_ascii_uppercase())) {
            return Err(error(format!("Invalid flags for chunk type {number}")));
        }
        let shown =
            letters.chars().filter_map(|letter| flags.chars().rev().find(|flag| flag.eq_ignore_ascii_case(&letter)));
        let shown: String = shown.collect();
        which.push(if shown.is_empty() { (*known).to_owned() } else { format!("{known}:{shown}") });
    }
    Ok(Chunks { how, which: which.join(","), inverted: input.inverted })
}

impl Extension for Sctp {
    fn name(&self) -> &'static str {
        "sctp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let (slot, message) = match input.id {
            SOURCE => (&mut self.source, "Only one `--source-port' allowed"),
            DESTINATION => (&mut self.destination, "Only one `--destination-port' allowed"),
            _ => {
                if self.chunks.is_some() {
                    return Err(Error::Parameter("Only one `--chunk-types' allowed".to_owned()));
                }
                self.chunks = Some(parse_chunks(input)?);
                return Ok(());
            }
        };
        if slot.is_some() {
            return Err(Error::Parameter(message.to_owned()));
        }
        *slot = Some(PortMatch { ports: Ports::parse(input.value, "sctp")?, inverted: input.inverted });
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.protocol.is(ip::SCTP) { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        self.source.inspect(|ports| ports.save_as_given(out, "sport"));
        self.destination.inspect(|ports| ports.save_as_given(out, "dport"));
        if let Some(chunks) = &self.chunks {
            let _ = write!(out, "{} --chunk-types {} {}", bang(chunks.inverted), chunks.how, chunks.which);
        }
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        out.push_str(" sctp");
        self.source.inspect(|ports| ports.list_as_given(out, "spt", "sctp", style));
        self.destination.inspect(|ports| ports.list_as_given(out, "dpt", "sctp", style));
        if let Some(chunks) = &self.chunks {
            let _ = write!(out, "{} {} {}", bang(chunks.inverted), chunks.how, chunks.which);
        }
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        if !context.protocol.is(ip::SCTP) {
            return Err(Refusal::new("-m sctp", "needs -p sctp"));
        }
        if self.chunks.is_some() {
            return Err(Refusal::new(
                "--chunk-types",
                "xt drops a packet with a malformed chunk, which nf_tables passes over",
            ));
        }
        let ports = [(self.source, Field::SctpSport), (self.destination, Field::SctpDport)];
        let mut exprs: Alternative =
            ports.into_iter().filter_map(|(wanted, field)| wanted.and_then(|wanted| wanted.translate(field))).collect();
        if exprs.is_empty() {
            exprs.push(is_there(HEADER));
        }
        Ok(vec![exprs])
    }

    fn sees_no_later_fragment(&self) -> bool {
        true
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
