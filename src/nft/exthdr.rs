//! Fields of IPv6 extension headers: where they lie, and how nft writes them.

#![forbid(unsafe_code)]

use super::key::{Facts, Kind, Order};
use super::lower::Malformed;
use super::syntax::{Left, Unprintable, unprintable};
use super::uapi::{bitwise, data, exthdr, reg};
use super::wire::Writer;

/// A field of an IPv6 extension header (RFC 8200, RFC 6275, RFC 8754); the header itself must be there, but in no later
/// fragment behind the fragment header. Values are as nft counts them: those of fields narrower than a byte are
/// numbers of their own, shifted down to the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ExtHdr {
    /// Whether the header of this number is there (1 byte, 0 or 1).
    Present(u8),
    FragReserved,
    /// In units of 8 bytes.
    FragOff,
    FragReserved2,
    FragMore,
    FragId,
    /// In units of 8 bytes, without the first 8.
    RtHdrlength,
    RtType,
    RtSegLeft,
    /// The fifth byte of a routing header.
    SrhLastEntry,
    /// The sixth byte of a routing header.
    SrhFlags,
    /// The seventh and eighth byte of a routing header.
    SrhTag,
    /// The address of this number, from 1, behind the first 8 bytes of a routing header. nft has names for two.
    SrhSid(u8),
    HbhHdrlength,
    DstHdrlength,
    MhNexthdr,
    MhType,
}

/// Numbers of headers (linux/in.h, linux/in6.h).
pub mod header {
    /// IPPROTO_HOPOPTS
    pub const HOP_BY_HOP: u8 = 0;
    /// IPPROTO_ROUTING
    pub const ROUTING: u8 = 43;
    /// IPPROTO_FRAGMENT
    pub const FRAGMENT: u8 = 44;
    /// IPPROTO_DSTOPTS
    pub const DESTINATION: u8 = 60;
    /// IPPROTO_MH
    pub const MOBILITY: u8 = 135;
}

/// Names of the addresses of a routing header.
const SIDS: [&str; 2] = ["sid[1]", "sid[2]"];

struct Place {
    header: u8,
    offset: u32,
    len: usize,
    /// Bits of the loaded bytes that belong to the field, and how far up they lie; 0: all.
    mask: u16,
    shift: u32,
    names: (&'static str, &'static str),
}

fn place(field: ExtHdr) -> Place {
    let bits = |header, offset, len, mask, shift, names| Place { header, offset, len, mask, shift, names };
    let whole = |header, offset, len, names| bits(header, offset, len, 0, 0, names);
    match field {
        ExtHdr::Present(number) => whole(number, 0, 1, ("exthdr", present_name(number).unwrap_or_default())),
        ExtHdr::FragReserved => whole(header::FRAGMENT, 1, 1, ("frag", "reserved")),
        ExtHdr::FragOff => bits(header::FRAGMENT, 2, 2, 0xfff8, 3, ("frag", "frag-off")),
        ExtHdr::FragReserved2 => bits(header::FRAGMENT, 3, 1, 0x06, 1, ("frag", "reserved2")),
        ExtHdr::FragMore => bits(header::FRAGMENT, 3, 1, 0x01, 0, ("frag", "more-fragments")),
        ExtHdr::FragId => whole(header::FRAGMENT, 4, 4, ("frag", "id")),
        ExtHdr::RtHdrlength => whole(header::ROUTING, 1, 1, ("rt", "hdrlength")),
        ExtHdr::RtType => whole(header::ROUTING, 2, 1, ("rt", "type")),
        ExtHdr::RtSegLeft => whole(header::ROUTING, 3, 1, ("rt", "seg-left")),
        ExtHdr::SrhLastEntry => whole(header::ROUTING, 4, 1, ("srh", "last-entry")),
        ExtHdr::SrhFlags => whole(header::ROUTING, 5, 1, ("srh", "flags")),
        ExtHdr::SrhTag => whole(header::ROUTING, 6, 2, ("srh", "tag")),
        ExtHdr::SrhSid(number) => {
            let name = SIDS.get(usize::from(number.wrapping_sub(1))).copied().unwrap_or_default();
            whole(header::ROUTING, 8 + 16 * (u32::from(number).saturating_sub(1)), 16, ("srh", name))
        }
        ExtHdr::HbhHdrlength => whole(header::HOP_BY_HOP, 1, 1, ("hbh", "hdrlength")),
        ExtHdr::DstHdrlength => whole(header::DESTINATION, 1, 1, ("dst", "hdrlength")),
        ExtHdr::MhNexthdr => whole(header::MOBILITY, 0, 1, ("mh", "nexthdr")),
        ExtHdr::MhType => whole(header::MOBILITY, 2, 1, ("mh", "type")),
    }
}

fn present_name(number: u8) -> Option<&'static str> {
    match number {
        header::HOP_BY_HOP => Some("hbh"),
        header::ROUTING => Some("rt"),
        header::FRAGMENT => Some("frag"),
        header::DESTINATION => Some("dst"),
        header::MOBILITY => Some("mh"),
        _ => None,
    }
}

/// What is known of a field.
pub(super) fn facts(field: ExtHdr) -> Facts {
    let kind = match field {
        ExtHdr::Present(_) => Kind::Presence,
        ExtHdr::SrhSid(_) => Kind::Ipv6,
        _ => Kind::Number,
    };
    Facts { len: place(field).len, order: Order::Network, kind }
}

/// The field's place in nft syntax.
pub(super) fn left(field: ExtHdr) -> Result<Left, Unprintable> {
    match place(field).names {
        (_, "") => unprintable("a field of an extension header without a name"),
        ("exthdr", name) => Ok(Left::ExtHdr(name, None)),
        (header, name) => Ok(Left::ExtHdr(header, Some(name))),
    }
}

/// Whether its values are shifted in the register, so that they can be compared for equality only.
pub(super) fn is_part_of_byte(field: ExtHdr) -> bool {
    place(field).mask != 0
}

/// The value of a field as the register holds it.
pub(super) fn in_register(field: ExtHdr, value: &[u8]) -> Vec<u8> {
    let place = place(field);
    let number = value.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    match place.shift {
        0 => value.to_vec(),
        shift => last(&(number << shift).to_be_bytes(), place.len),
    }
}

fn last(bytes: &[u8], len: usize) -> Vec<u8> {
    bytes.iter().copied().skip(bytes.len().saturating_sub(len)).collect()
}

/// Loads a field into register 1.
pub(super) fn load(field: ExtHdr, mut emit: impl FnMut(&str, &dyn Fn(&mut Writer))) -> Result<(), Malformed> {
    let place = place(field);
    let len = u32::try_from(place.len).map_err(|_| Malformed("a field is too long"))?;
    emit("exthdr", &|out| {
        out.put_u32(exthdr::DREG, reg::ONE);
        out.put_u8(exthdr::TYPE, place.header);
        out.put_u32(exthdr::OFFSET, place.offset);
        out.put_u32(exthdr::LEN, len);
        out.put_u32(exthdr::FLAGS, if matches!(field, ExtHdr::Present(_)) { exthdr::F_PRESENT } else { 0 });
        out.put_u32(exthdr::OP, exthdr::OP_IPV6);
    });
    if place.mask != 0 {
        let mask = last(&place.mask.to_be_bytes(), place.len);
        emit("bitwise", &|out| {
            out.put_u32(bitwise::SREG, reg::ONE);
            out.put_u32(bitwise::DREG, reg::ONE);
            out.put_u32(bitwise::LEN, len);
            out.nest(bitwise::MASK, |out| out.put(data::VALUE, &mask));
            out.nest(bitwise::XOR, |out| out.put(data::VALUE, &vec![0; mask.len()]));
        });
    }
    Ok(())
}
