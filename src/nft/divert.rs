//! Packets that are handed to a program, copied, or answered for a server: queue, dup, tproxy and synproxy.

#![forbid(unsafe_code)]

use super::expr::Alternative;
use super::json;
use super::lower::Lowering;
use super::nat::{Registers, nfproto, octets};
use super::syntax::{self, Unprintable, unprintable};
use super::uapi::{dup, queue, synproxy, tproxy};
use crate::family::Family;
use nftables::stmt::Statement;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Where the packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divert {
    /// To a program, by nfnetlink_queue.
    Queue {
        /// The first queue.
        first: u16,
        /// The last one; a packet's flow decides which of them.
        last: u16,
        /// Lets packets pass where no program listens.
        bypass: bool,
        /// The CPU decides which queue, not the flow.
        fanout: bool,
    },
    /// A copy is sent to a neighbour.
    Dup {
        /// The neighbour, of the rule's family.
        gateway: IpAddr,
    },
    /// To a local transparent socket; where there is none, the rule's remaining expressions are passed over.
    Tproxy {
        /// The rule's.
        family: Family,
        /// The socket's address; `None`: one of the interface's.
        address: Option<IpAddr>,
        /// The socket's port; 0: the packet's.
        port: u16,
    },
    /// Answers for the server until the client has shown itself; only for rules that are for TCP.
    Synproxy {
        /// The server's maximum segment size and window scale (0 to 14); `None`: neither is told.
        sizes: Option<(u16, u8)>,
        /// Tells of timestamps.
        timestamp: bool,
        /// Tells of selective acknowledgements.
        sack: bool,
    },
}

/// As the kernel takes it.
pub(super) fn lower(lowering: &mut Lowering<'_>, divert: Divert) {
    match divert {
        Divert::Queue { first, last, bypass, fanout } => lowering.emit("queue", |out| {
            let flags = if bypass { queue::F_BYPASS } else { 0 } | if fanout { queue::F_CPU_FANOUT } else { 0 };
            out.put_u16(queue::NUM, first);
            out.put_u16(queue::TOTAL, last.saturating_sub(first).saturating_add(1));
            if flags != 0 {
                out.put_u16(queue::FLAGS, flags);
            }
        }),
        Divert::Dup { gateway } => {
            let register = Registers::default().load(lowering, &octets(gateway));
            lowering.emit("dup", |out| out.put_u32(dup::SREG_ADDR, register));
        }
        Divert::Tproxy { family, address, port } => {
            let mut registers = Registers::default();
            let address = address.map(|address| registers.load(lowering, &octets(address)));
            let port = registers.load(lowering, &port.to_be_bytes());
            lowering.emit("tproxy", |out| {
                out.put_u32(tproxy::FAMILY, nfproto(family));
                if let Some(address) = address {
                    out.put_u32(tproxy::REG_ADDR, address);
                }
                out.put_u32(tproxy::REG_PORT, port);
            });
        }
        Divert::Synproxy { sizes, timestamp, sack } => lowering.emit("synproxy", |out| {
            let (mss, wscale) = sizes.unwrap_or_default();
            let told = if sizes.is_some() { synproxy::F_MSS | synproxy::F_WSCALE } else { 0 };
            let sack = if sack { synproxy::F_SACK_PERM } else { 0 };
            out.put_u16(synproxy::MSS, mss);
            out.put_u8(synproxy::WSCALE, wscale);
            out.put_u32(synproxy::FLAGS, told | sack | if timestamp { synproxy::F_TIMESTAMP } else { 0 });
        }),
    }
}

/// nft takes a socket's port, and a proxy for TCP, only behind a match that says which protocol's.
fn check(divert: Divert, rule: &Alternative) -> Result<(), Unprintable> {
    match divert {
        Divert::Tproxy { .. } if !syntax::knows_protocol(rule) => {
            unprintable("a transparent proxy without a match on the protocol before it")
        }
        _ => Ok(()),
    }
}

fn words(all: &[(bool, &'static str)]) -> Vec<&'static str> {
    all.iter().filter(|(given, _)| *given).map(|(_, word)| *word).collect()
}

/// In nft syntax.
pub(super) fn text(divert: Divert, rule: &Alternative) -> Result<String, Unprintable> {
    check(divert, rule)?;
    Ok(match divert {
        Divert::Queue { first, last, bypass, fanout } => {
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            let flags = words(&[(bypass, "bypass"), (fanout, "fanout")]);
            let blank = if flags.is_empty() { "" } else { " " };
            format!("queue num {range}{blank}{}", flags.join(","))
        }
        Divert::Dup { gateway } => format!("dup to {gateway}"),
        Divert::Tproxy { address, port, .. } => {
            let address = match address {
                Some(IpAddr::V6(address)) => format!("[{address}]"),
                Some(address) => address.to_string(),
                None => String::new(),
            };
            format!("tproxy to {address}:{port}")
        }
        Divert::Synproxy { sizes, timestamp, sack } => {
            let sizes = sizes.map(|(mss, wscale)| format!(" mss {mss} wscale {wscale}")).unwrap_or_default();
            let timestamp = if timestamp { " timestamp" } else { "" };
            format!("synproxy{sizes}{timestamp}{}", if sack { " sack-perm" } else { "" })
        }
    })
}

/// As libnftables' JSON. The crate's types give some of these otherwise than libnftables reads them.
pub(super) fn statement(divert: Divert, rule: &Alternative) -> Result<Statement<'static>, Unprintable> {
    check(divert, rule)?;
    Ok(json::verbatim(match divert {
        Divert::Queue { first, last, bypass, fanout } => {
            let num = if first == last { json!(first) } else { json!({ "range": [first, last] }) };
            json!({ "queue": { "num": num, "flags": words(&[(bypass, "bypass"), (fanout, "fanout")]) } })
        }
        Divert::Dup { gateway } => json!({ "dup": { "addr": gateway.to_string() } }),
        Divert::Tproxy { address, port, .. } => {
            let mut content = json!({ "port": port });
            if let (Some(address), Value::Object(members)) = (address, &mut content) {
                members.insert("addr".to_owned(), json!(address.to_string()));
            }
            json!({ "tproxy": content })
        }
        Divert::Synproxy { sizes, timestamp, sack } => {
            let mut content = serde_json::Map::new();
            if let Some((mss, wscale)) = sizes {
                content.insert("mss".to_owned(), json!(mss));
                content.insert("wscale".to_owned(), json!(wscale));
            }
            let flags = words(&[(timestamp, "timestamp"), (sack, "sack-perm")]);
            if !flags.is_empty() {
                content.insert("flags".to_owned(), json!(flags));
            }
            let content = if content.is_empty() { Value::Null } else { Value::Object(content) };
            json!({ "synproxy": content })
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::expr::Expr;
    use crate::nft::lower;
    use crate::nft::wire::Writer;

    fn attributes(divert: Divert) -> Vec<u8> {
        let lowered = lower::rule(Writer::new(), &[Expr::Divert(divert)], &mut 0).expect("it is whole");
        lowered.expressions.into_bytes()
    }

    #[test]
    fn a_queue_is_sent_as_nft_sends_it() {
        // Read off `nft --debug=mnl`: a kernel without nft_queue cannot tell what it holds. Numbers are big-endian,
        // lengths and types little-endian.
        if cfg!(target_endian = "big") {
            return;
        }
        let head = |len: u8, data: u8| {
            let mut bytes = vec![len, 0, 1, 0x80, 10, 0, 1, 0];
            bytes.extend_from_slice(b"queue\0\0\0");
            bytes.extend_from_slice(&[data, 0, 2, 0x80]);
            bytes
        };
        let mut balanced = head(44, 28);
        balanced.extend_from_slice(&[6, 0, 1, 0, 0, 5, 0, 0, 6, 0, 2, 0, 0, 4, 0, 0, 6, 0, 3, 0, 0, 3, 0, 0]);
        assert_eq!(attributes(Divert::Queue { first: 5, last: 8, bypass: true, fanout: true }), balanced);
        let mut single = head(36, 20);
        single.extend_from_slice(&[6, 0, 1, 0, 0, 5, 0, 0, 6, 0, 2, 0, 0, 1, 0, 0]);
        assert_eq!(attributes(Divert::Queue { first: 5, last: 5, bypass: false, fanout: false }), single);
    }
}
