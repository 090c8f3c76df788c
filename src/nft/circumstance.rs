//! What a rule can ask of a packet that neither its headers nor its metadata hold: its route, its socket, what IPsec
//! does with it, and whose turn it is.

#![forbid(unsafe_code)]

use super::key::{Facts, Kind, Order, facts};
use super::syntax::{Unprintable, unprintable};
use super::uapi::{fib, numgen, reg, rt, socket, xfrm};
use super::wire::Writer;
use nftables::expr::{self as j, NamedExpression};
use std::borrow::Cow;

/// One such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circumstance {
    /// Realm of the packet's route, 4 bytes, host order.
    Realm,
    /// Whether IPsec will pack the packet, 1 byte.
    Packed,
    /// Of one of the IPsec states that have unpacked or will pack the packet, 4 bytes; no answer if there are fewer.
    Transform {
        /// Those that will pack it.
        out: bool,
        /// Which of them: 0 to 5 (XFRM_MAX_DEPTH, net/xfrm.h), from the one that was met first.
        nth: u8,
        /// What is asked of it.
        of: Transform,
    },
    /// Whether the socket that the packet is for may use foreign addresses, 1 byte; no answer if there is no socket.
    Transparent,
    /// Counts packets from 0 to `modulus` - 1 and then from 0 again, 4 bytes, host order.
    Turn {
        /// From 1 on.
        modulus: u32,
    },
    /// Whether a route leads back to the packet's source: the first of 4 bytes.
    WayBack {
        /// The route may depend on the packet's mark.
        mark: bool,
        /// It must lead through the input interface.
        iif: bool,
    },
}

/// A property of an IPsec state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Number that the policy gives its states, host order.
    Reqid,
    /// Security parameter index, network order.
    Spi,
}

impl Circumstance {
    pub(super) const fn facts(self) -> Facts {
        use Circumstance::{Packed, Realm, Transform as State, Transparent, Turn, WayBack};
        match self {
            Realm | Turn { .. } | State { of: Transform::Reqid, .. } => facts(4, Order::Host, Kind::Number),
            State { of: Transform::Spi, .. } => facts(4, Order::Network, Kind::Number),
            Packed => facts(1, Order::Host, Kind::Presence),
            WayBack { .. } => facts(4, Order::Host, Kind::Presence),
            Transparent => facts(1, Order::Host, Kind::Number),
        }
    }

    /// The kernel's name for the expression.
    pub(super) const fn expression(self) -> &'static str {
        match self {
            Self::Realm | Self::Packed => "rt",
            Self::Transform { .. } => "xfrm",
            Self::Transparent => "socket",
            Self::Turn { .. } => "numgen",
            Self::WayBack { .. } => "fib",
        }
    }

    /// Its attributes, which load it into register 1.
    pub(super) fn put(self, out: &mut Writer) {
        match self {
            Self::Realm | Self::Packed => {
                out.put_u32(rt::KEY, if self == Self::Realm { rt::CLASSID } else { rt::XFRM });
                out.put_u32(rt::DREG, reg::ONE);
            }
            Self::Transform { out: outwards, nth, of } => {
                let key = match of {
                    Transform::Reqid => xfrm::REQID,
                    Transform::Spi => xfrm::SPI,
                };
                out.put_u32(xfrm::KEY, key);
                out.put_u8(xfrm::DIR, if outwards { xfrm::DIR_OUT } else { xfrm::DIR_IN });
                out.put_u32(xfrm::SPNUM, u32::from(nth));
                out.put_u32(xfrm::DREG, reg::ONE);
            }
            Self::Transparent => {
                out.put_u32(socket::KEY, socket::TRANSPARENT);
                out.put_u32(socket::DREG, reg::ONE);
            }
            Self::Turn { modulus } => {
                out.put_u32(numgen::DREG, reg::ONE);
                out.put_u32(numgen::MODULUS, modulus);
                out.put_u32(numgen::TYPE, numgen::INCREMENTAL);
                out.put_u32(numgen::OFFSET, 0);
            }
            Self::WayBack { mark, iif } => {
                let mark = if mark { fib::F_MARK } else { 0 };
                let iif = if iif { fib::F_IIF } else { 0 };
                out.put_u32(fib::DREG, reg::ONE);
                out.put_u32(fib::RESULT, fib::RESULT_OIF);
                out.put_u32(fib::FLAGS, fib::F_SADDR | mark | iif | fib::F_PRESENT);
            }
        }
    }

    /// In nft syntax.
    pub(super) fn text(self) -> String {
        match self {
            Self::Realm => "rt classid".to_owned(),
            Self::Packed => "rt ipsec".to_owned(),
            Self::Transform { out, nth, of } => {
                let of = match of {
                    Transform::Reqid => "reqid",
                    Transform::Spi => "spi",
                };
                format!("ipsec {} spnum {nth} {of}", if out { "out" } else { "in" })
            }
            Self::Transparent => "socket transparent".to_owned(),
            Self::Turn { modulus } => format!("numgen inc mod {modulus}"),
            Self::WayBack { mark, iif } => {
                format!("fib saddr{}{} oif", if mark { " . mark" } else { "" }, if iif { " . iif" } else { "" })
            }
        }
    }

    pub(super) fn json(self) -> Result<NamedExpression<'static>, Unprintable> {
        Ok(match self {
            Self::Realm => NamedExpression::RT(j::RT { key: j::RTKey::ClassId, family: None }),
            Self::Packed | Self::Transform { .. } => return unprintable("IPsec, which the JSON types lack"),
            Self::Transparent => NamedExpression::Socket(j::Socket { key: Cow::Owned(j::SocketAttr::Transparent) }),
            Self::Turn { modulus } => {
                NamedExpression::Numgen(j::Numgen { mode: j::NgMode::Inc, ng_mod: modulus, offset: None })
            }
            Self::WayBack { mark, iif } => {
                let more = [mark.then_some(j::FibFlag::Mark), iif.then_some(j::FibFlag::Iif)];
                let flags = more.into_iter().flatten().chain([j::FibFlag::Saddr]).collect();
                NamedExpression::Fib(j::Fib { result: j::FibResult::Oif, flags })
            }
        })
    }
}
