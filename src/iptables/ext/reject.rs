//! `-j REJECT`: drops the packet and tells its sender.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::protocol::ip;
use crate::nft::expr::{Alternative, Expr, Reject as Answer};
use std::fmt::Write;

const OPTIONS: &[Opt] = &[Opt::value(0, &["reject-with"]).plain()];

/// `tcp-reset`, which has no ICMP code.
const RESET: u8 = 255;

/// A way to reject: its name, its short name, its ICMP code.
type Way = (&'static str, &'static str, u8);

/// Any beginning of a name will do; the first that fits counts.
const WAYS: &[Way] = &[
    ("icmp-net-unreachable", "net-unreach", 0),
    ("icmp-host-unreachable", "host-unreach", 1),
    ("icmp-proto-unreachable", "proto-unreach", 2),
    ("icmp-port-unreachable", "port-unreach", 3),
    ("icmp-net-prohibited", "net-prohib", 9),
    ("icmp-host-prohibited", "host-prohib", 10),
    ("tcp-reset", "tcp-rst", RESET),
    ("icmp-admin-prohibited", "admin-prohib", 13),
];

const WAYS6: &[Way] = &[
    ("icmp6-no-route", "no-route", 0),
    ("icmp6-adm-prohibited", "adm-prohibited", 1),
    ("icmp6-addr-unreachable", "addr-unreach", 3),
    ("icmp6-port-unreachable", "port-unreach", 4),
    ("tcp-reset", "tcp-reset", RESET),
    ("icmp6-policy-fail", "policy-fail", 5),
    ("icmp6-reject-route", "reject-route", 6),
];

#[derive(Clone, Debug)]
struct Reject {
    name: &'static str,
    code: u8,
}

/// For IPv4, without options.
pub fn v4() -> Box<dyn Extension> {
    Box::new(Reject { name: "icmp-port-unreachable", code: 3 })
}

/// For IPv6, without options.
pub fn v6() -> Box<dyn Extension> {
    Box::new(Reject { name: "icmp6-port-unreachable", code: 4 })
}

fn begins(name: &str, text: &str) -> bool {
    name.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
}

impl Extension for Reject {
    fn name(&self) -> &'static str {
        "REJECT"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let ways = match input.family {
            Family::V4 => WAYS,
            Family::V6 => WAYS6,
        };
        let found = ways.iter().find(|(name, short, _)| begins(name, input.value) || begins(short, input.value));
        let (name, _, code) = found.ok_or_else(|| unknown(input))?;
        (self.name, self.code) = (name, *code);
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let table = place.table == "filter";
        if table && (self.code != RESET || place.protocol.is(ip::TCP)) { Ok(()) } else { Err(place.invalid()) }
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --reject-with {}", self.name);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " reject-with {}", self.name);
    }

    fn translate(&self, context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let answer = match self.code {
            RESET => Answer::TcpReset,
            code => Answer::Unreachable { family: context.place.family, code },
        };
        Ok(vec![vec![Expr::Reject(answer)]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}

fn unknown(input: &Input<'_>) -> Error {
    let error = Error::Parameter(format!("unknown reject type \"{}\"", input.value));
    let gone = ["echo-reply", "echoreply"].contains(&input.value.to_ascii_lowercase().as_str());
    if input.family == Family::V4 && gone {
        let rest = input.dialect.render(&error);
        return Error::Verbatim { stderr: format!("--reject-with echo-reply no longer supported\n{rest}"), code: 2 };
    }
    error
}
