//! Packets that are answered and dropped: the expression reject.

#![forbid(unsafe_code)]

use super::json;
use super::lower::Lowering;
use super::syntax::{Unprintable, unprintable};
use super::uapi::reject;
use crate::family::Family;
use nftables::stmt::Statement;
use serde_json::json;

/// What the sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ICMP "destination unreachable" of the rule's family.
    Unreachable {
        /// The rule's.
        family: Family,
        /// RFC 792, RFC 1812 5.2.7.1; RFC 4443, 3.1.
        code: u8,
    },
    /// A TCP segment with RST; only for rules that are for TCP.
    TcpReset,
}

/// ICMP codes as nft names them.
const CODES: &[(u8, &str)] = &[
    (0, "net-unreachable"),
    (1, "host-unreachable"),
    (2, "prot-unreachable"),
    (3, "port-unreachable"),
    (9, "net-prohibited"),
    (10, "host-prohibited"),
    (13, "admin-prohibited"),
];

/// ICMPv6 codes as nft names them.
const CODES6: &[(u8, &str)] = &[
    (0, "no-route"),
    (1, "admin-prohibited"),
    (3, "addr-unreachable"),
    (4, "port-unreachable"),
    (5, "policy-fail"),
    (6, "reject-route"),
];

/// As the kernel takes it.
pub(super) fn lower(lowering: &mut Lowering<'_>, answer: Reject) {
    lowering.emit("reject", |out| match answer {
        Reject::Unreachable { code, .. } => {
            out.put_u32(reject::TYPE, reject::ICMP_UNREACH);
            out.put_u8(reject::ICMP_CODE, code);
        }
        Reject::TcpReset => {
            out.put_u32(reject::TYPE, reject::TCP_RST);
            out.put_u8(reject::ICMP_CODE, 0);
        }
    });
}

fn words(family: Family, code: u8) -> Result<(&'static str, &'static str), Unprintable> {
    let (protocol, codes) = match family {
        Family::V4 => ("icmp", CODES),
        Family::V6 => ("icmpv6", CODES6),
    };
    match codes.iter().find(|(number, _)| *number == code) {
        Some((_, name)) => Ok((protocol, name)),
        None => unprintable("an ICMP code without a name"),
    }
}

/// In nft syntax.
pub(super) fn text(answer: Reject) -> Result<String, Unprintable> {
    Ok(match answer {
        Reject::Unreachable { family, code } => {
            let (protocol, name) = words(family, code)?;
            format!("reject with {protocol} type {name}")
        }
        Reject::TcpReset => "reject with tcp reset".to_owned(),
    })
}

/// As libnftables' JSON; the crate's types lack some of the codes.
pub(super) fn statement(answer: Reject) -> Result<Statement<'static>, Unprintable> {
    let content = match answer {
        Reject::Unreachable { family, code } => {
            let (protocol, name) = words(family, code)?;
            json!({ "type": protocol, "expr": name })
        }
        Reject::TcpReset => json!({ "type": "tcp reset" }),
    };
    Ok(json::verbatim(json!({ "reject": content })))
}
