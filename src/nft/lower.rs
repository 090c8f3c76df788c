//! Typed expressions as the kernel's own, in the shapes that nft itself sends, so that `nft list ruleset` prints them
//! readably. Register 1 alone is used, loaded anew for each match.

#![forbid(unsafe_code)]

use super::batch::Table;
use super::canonical::canonical;
use super::divert;
use super::expr::{Direction, Element, Expr, Key, Limit, Log, Match, Op, Value, Verdict};
use super::exthdr::{self as extension, ExtHdr};
use super::key::{self, Facts, Kind, Order};
use super::nat;
use super::reject;
use super::uapi::{bitwise, byteorder, cmp, counter, ct, data, elem, exthdr, fib, immediate, limit, log, lookup, meta};
use super::uapi::{payload, quota, range, reg, set, set_flag, verdict};
use super::wire::Writer;
use crate::family::Family;
use std::net::IpAddr;

/// A rule in the kernel's terms.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Contents of NFTA_RULE_EXPRESSIONS.
    pub expressions: Writer,
    /// Sets to be made before the rule, in order.
    pub sets: Vec<AnonymousSet>,
}

/// An anonymous constant set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnonymousSet {
    /// Names the set within its batch.
    pub id: u32,
    key_type: u32,
    key_len: u32,
    order: Order,
    interval: bool,
    /// Key, and whether it ends an interval instead of beginning one.
    elements: Vec<(Vec<u8>, bool)>,
    /// Of a map: what each element becomes, which is of the key's own kind.
    images: Option<Vec<Vec<u8>>>,
}

/// A value that does not fit its key; the expression was built wrongly, and nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// Lowers a rule, into a buffer that holds nothing. Sets are numbered from `next_set` on, which is advanced.
///
/// # Errors
/// Where a value, mask or field does not have the length of its key.
pub fn rule(out: Writer, alternative: &[Expr], next_set: &mut u32) -> Result<Lowered> {
    let mut lowering = Lowering { out, sets: Vec::new(), next_set };
    for expr in alternative {
        lowering.expr(expr)?;
    }
    Ok(Lowered { expressions: lowering.out, sets: lowering.sets })
}

pub(super) struct Lowering<'a> {
    out: Writer,
    sets: Vec<AnonymousSet>,
    next_set: &'a mut u32,
}

impl Lowering<'_> {
    pub(super) fn emit(&mut self, name: &str, fill: impl FnOnce(&mut Writer)) {
        self.out.nest(data::LIST_ELEM, |out| {
            out.put_str(data::EXPR_NAME, name);
            out.nest(data::EXPR_DATA, fill);
        });
    }

    fn expr(&mut self, expr: &Expr) -> Result<()> {
        match expr {
            Expr::Match(found) => self.matching(found)?,
            Expr::Counter { packets, bytes } => self.emit("counter", |out| {
                out.put_u64(counter::BYTES, *bytes);
                out.put_u64(counter::PACKETS, *packets);
            }),
            Expr::Limit(bucket) => self.limit(*bucket),
            Expr::Quota { bytes, over } => self.emit("quota", |out| {
                out.put_u64(quota::BYTES, *bytes);
                out.put_u32(quota::FLAGS, if *over { quota::F_INV } else { 0 });
                out.put_u64(quota::CONSUMED, 0);
            }),
            Expr::Log(target) => self.log(target),
            Expr::Notrack => self.emit("notrack", |_| {}),
            Expr::CtZone { zone, direction } => self.ct_zone(*zone, *direction),
            Expr::MarkSet { value, mask } => self.mark_set(*value, *mask),
            Expr::Assign(assign) => assign.lower(self),
            Expr::TraceSet => {
                self.load_constant(&[1]);
                self.emit("meta", |out| {
                    out.put_u32(meta::KEY, meta::NFTRACE);
                    out.put_u32(meta::SREG, reg::ONE);
                });
            }
            Expr::Nat(target) => nat::lower(self, target)?,
            Expr::Divert(target) => divert::lower(self, *target),
            Expr::Reject(answer) => reject::lower(self, *answer),
            Expr::VerdictMap { key, map } => {
                self.load(*key, key::of(*key).len)?;
                self.emit("lookup", |out| {
                    out.put_str(lookup::SET, map);
                    out.put_u32(lookup::SREG, reg::ONE);
                    out.put_u32(lookup::DREG, reg::VERDICT);
                });
            }
            Expr::Verdict(end) => self.verdict(end),
        }
        Ok(())
    }

    fn matching(&mut self, found: &Match) -> Result<()> {
        let found = &*canonical(found);
        let facts = key::of(found.key);
        check_lengths(found, facts)?;
        if let Key::ExtHdr(field) = found.key
            && extension::is_part_of_byte(field)
        {
            return self.compare_part(field, found);
        }
        match (&found.value, &found.mask) {
            (Value::Bytes(value), mask) => self.compare(found.key, facts, mask.as_deref(), found.op, value),
            (Value::Range(from, to), mask) => {
                self.load_ordered(found.key, facts, mask.as_deref())?;
                let (from, to) = (comparable(from, facts.order), comparable(to, facts.order));
                if found.op == Op::Ne {
                    self.emit("range", |out| {
                        out.put_u32(range::SREG, reg::ONE);
                        out.put_u32(range::OP, range::NEQ);
                        put_data(out, range::FROM_DATA, &from);
                        put_data(out, range::TO_DATA, &to);
                    });
                } else {
                    self.cmp(Op::Ge, &from);
                    self.cmp(Op::Le, &to);
                }
                Ok(())
            }
            (Value::Set(elements), mask) => self.lookup(found.key, facts, mask.as_deref(), found.op, elements),
        }
    }

    fn compare(&mut self, key: Key, facts: Facts, mask: Option<&[u8]>, op: Op, value: &[u8]) -> Result<()> {
        if !matches!(op, Op::Eq | Op::Ne) {
            self.load_ordered(key, facts, mask)?;
            self.cmp(op, &comparable(value, facts.order));
            return Ok(());
        }
        match mask.and_then(|mask| prefix_bytes(facts.kind, mask, value)) {
            Some(len) => {
                self.load(key, len)?;
                self.cmp(op, &value[..len]);
            }
            None => {
                self.load(key, facts.len)?;
                if let Some(mask) = mask {
                    self.and(mask);
                }
                self.cmp(op, value);
            }
        }
        Ok(())
    }

    /// A field of a few bits.
    fn compare_part(&mut self, field: ExtHdr, found: &Match) -> Result<()> {
        let (Value::Bytes(value), None, Op::Eq | Op::Ne) = (&found.value, &found.mask, found.op) else {
            return Err(Malformed("a field of a few bits is compared for equality only"));
        };
        self.load(found.key, value.len())?;
        self.cmp(found.op, &extension::in_register(field, value));
        Ok(())
    }

    /// Loads a key so that its bytes compare as the number does: in network order.
    fn load_ordered(&mut self, key: Key, facts: Facts, mask: Option<&[u8]>) -> Result<()> {
        self.load(key, facts.len)?;
        if let Some(mask) = mask {
            self.and(mask);
        }
        let (Ok(len), Order::Host) = (u32::try_from(facts.len), facts.order) else { return Ok(()) };
        if matches!(len, 2 | 4 | 8) {
            self.emit("byteorder", |out| {
                out.put_u32(byteorder::SREG, reg::ONE);
                out.put_u32(byteorder::DREG, reg::ONE);
                out.put_u32(byteorder::OP, byteorder::HTON);
                out.put_u32(byteorder::LEN, len);
                out.put_u32(byteorder::SIZE, len);
            });
        }
        Ok(())
    }

    /// Loads the first `len` bytes of a key; fewer than all only of addresses, where the kernel's load is cut (header)
    /// or the comparison is (conntrack).
    fn load(&mut self, key: Key, len: usize) -> Result<()> {
        match key {
            Key::Payload(field) => {
                if !key::is_whole_bytes(field) {
                    return Err(Malformed("a raw field must begin and end on byte boundaries"));
                }
                let place = key::place(field);
                let len = u32::try_from(len).map_err(|_| Malformed("a field is too long"))?;
                self.emit("payload", |out| {
                    out.put_u32(payload::DREG, reg::ONE);
                    out.put_u32(payload::BASE, place.base);
                    out.put_u32(payload::OFFSET, place.offset);
                    out.put_u32(payload::LEN, len);
                });
            }
            Key::Meta(which) => self.emit("meta", |out| {
                out.put_u32(meta::KEY, key::meta(which).0);
                out.put_u32(meta::DREG, reg::ONE);
            }),
            Key::Ct(which, direction) => self.emit("ct", |out| {
                out.put_u32(ct::KEY, key::ct(which).0);
                out.put_u32(ct::DREG, reg::ONE);
                put_direction(out, direction);
            }),
            Key::FibType { saddr, iif, oif } => {
                let address = if saddr { fib::F_SADDR } else { fib::F_DADDR };
                let flags = address | if iif { fib::F_IIF } else { 0 } | if oif { fib::F_OIF } else { 0 };
                self.emit("fib", |out| {
                    out.put_u32(fib::DREG, reg::ONE);
                    out.put_u32(fib::RESULT, fib::RESULT_ADDRTYPE);
                    out.put_u32(fib::FLAGS, flags);
                });
            }
            Key::Circumstance(which) => self.emit(which.expression(), |out| which.put(out)),
            Key::ExtHdr(field) => extension::load(field, |name, fill| self.emit(name, fill))?,
            Key::TcpOption(kind) => self.emit("exthdr", |out| {
                out.put_u32(exthdr::DREG, reg::ONE);
                out.put_u8(exthdr::TYPE, kind);
                out.put_u32(exthdr::OFFSET, 0);
                out.put_u32(exthdr::LEN, 1);
                out.put_u32(exthdr::FLAGS, exthdr::F_PRESENT);
                out.put_u32(exthdr::OP, exthdr::OP_TCPOPT);
            }),
        }
        Ok(())
    }

    fn and(&mut self, mask: &[u8]) {
        self.bitwise(mask, &vec![0; mask.len()]);
    }

    pub(super) fn bitwise(&mut self, mask: &[u8], xor: &[u8]) {
        let len = u32::try_from(mask.len()).unwrap_or_default();
        self.emit("bitwise", |out| {
            out.put_u32(bitwise::SREG, reg::ONE);
            out.put_u32(bitwise::DREG, reg::ONE);
            out.put_u32(bitwise::LEN, len);
            put_data(out, bitwise::MASK, mask);
            put_data(out, bitwise::XOR, xor);
        });
    }

    fn cmp(&mut self, op: Op, value: &[u8]) {
        let op = match op {
            Op::Eq => cmp::EQ,
            Op::Ne => cmp::NEQ,
            Op::Lt => cmp::LT,
            Op::Le => cmp::LTE,
            Op::Gt => cmp::GT,
            Op::Ge => cmp::GTE,
        };
        self.emit("cmp", |out| {
            out.put_u32(cmp::SREG, reg::ONE);
            out.put_u32(cmp::OP, op);
            put_data(out, cmp::DATA, value);
        });
    }

    fn lookup(&mut self, key: Key, facts: Facts, mask: Option<&[u8]>, op: Op, elements: &[Element]) -> Result<()> {
        let id = *self.next_set;
        *self.next_set += 1;
        let set = AnonymousSet::new(id, facts, elements);
        if set.interval {
            self.load_ordered(key, facts, mask)?;
        } else {
            self.load(key, facts.len)?;
            if let Some(mask) = mask {
                self.and(mask);
            }
        }
        self.sets.push(set);
        self.emit("lookup", |out| {
            out.put_u32(lookup::SREG, reg::ONE);
            out.put_str(lookup::SET, SET_NAME);
            out.put_u32(lookup::SET_ID, id);
            if op == Op::Ne {
                out.put_u32(lookup::FLAGS, lookup::F_INV);
            }
        });
        Ok(())
    }

    /// Puts in place of what has been loaded what an anonymous map makes of it; the rule ends for what is not in there.
    pub(super) fn image(&mut self, facts: Facts, pairs: Vec<(Vec<u8>, Vec<u8>)>) {
        let id = *self.next_set;
        *self.next_set += 1;
        let (keys, images): (Vec<Vec<u8>>, Vec<Vec<u8>>) = pairs.into_iter().unzip();
        let elements: Vec<Element> = keys.into_iter().map(Element::One).collect();
        self.sets.push(AnonymousSet { images: Some(images), ..AnonymousSet::new(id, facts, &elements) });
        self.emit("lookup", |out| {
            out.put_u32(lookup::SREG, reg::ONE);
            out.put_u32(lookup::DREG, reg::ONE);
            out.put_str(lookup::SET, MAP_NAME);
            out.put_u32(lookup::SET_ID, id);
        });
    }

    fn limit(&mut self, bucket: Limit) {
        self.emit("limit", |out| {
            out.put_u64(limit::RATE, bucket.rate);
            out.put_u64(limit::UNIT, bucket.unit);
            out.put_u32(limit::TYPE, limit::PKTS);
            out.put_u32(limit::BURST, bucket.burst);
            out.put_u32(limit::FLAGS, if bucket.invert { limit::F_INV } else { 0 });
        });
    }

    fn log(&mut self, target: &Log) {
        self.emit("log", |out| match target {
            Log::Kernel { prefix, level, flags } => {
                put_prefix(out, prefix.as_deref());
                out.put_u32(log::LEVEL, u32::from(*level));
                if *flags != 0 {
                    out.put_u32(log::FLAGS, *flags);
                }
            }
            Log::Audit => out.put_u32(log::LEVEL, log::LEVEL_AUDIT),
            Log::Group { group, prefix, snaplen, threshold } => {
                put_prefix(out, prefix.as_deref());
                out.put_u16(log::GROUP, *group);
                if let Some(snaplen) = snaplen {
                    out.put_u32(log::SNAPLEN, *snaplen);
                }
                if let Some(threshold) = threshold {
                    out.put_u16(log::QTHRESHOLD, *threshold);
                }
            }
        });
    }

    fn ct_zone(&mut self, zone: u16, direction: Option<Direction>) {
        self.load_constant(&zone.to_ne_bytes());
        self.emit("ct", |out| {
            out.put_u32(ct::KEY, ct::ZONE);
            put_direction(out, direction);
            out.put_u32(ct::SREG, reg::ONE);
        });
    }

    fn mark_set(&mut self, value: u32, mask: u32) {
        if mask == u32::MAX {
            self.load_constant(&value.to_ne_bytes());
        } else {
            self.emit("meta", |out| {
                out.put_u32(meta::KEY, meta::MARK);
                out.put_u32(meta::DREG, reg::ONE);
            });
            self.bitwise(&(!mask).to_ne_bytes(), &value.to_ne_bytes());
        }
        self.emit("meta", |out| {
            out.put_u32(meta::KEY, meta::MARK);
            out.put_u32(meta::SREG, reg::ONE);
        });
    }

    pub(super) fn load_constant(&mut self, value: &[u8]) {
        self.load_into(reg::ONE, value);
    }

    /// Loads a constant of up to 16 bytes into a register of that size (`enum nft_registers`, from 1 on).
    pub(super) fn load_into(&mut self, register: u32, value: &[u8]) {
        self.emit("immediate", |out| {
            out.put_u32(immediate::DREG, register);
            put_data(out, immediate::DATA, value);
        });
    }

    fn verdict(&mut self, end: &Verdict) {
        let (code, chain) = match end {
            Verdict::Accept => (verdict::ACCEPT, None),
            Verdict::Drop => (verdict::DROP, None),
            Verdict::Return => (verdict::RETURN, None),
            Verdict::Jump(chain) => (verdict::JUMP, Some(chain)),
            Verdict::Goto(chain) => (verdict::GOTO, Some(chain)),
        };
        self.emit("immediate", |out| {
            out.put_u32(immediate::DREG, reg::VERDICT);
            put_verdict(out, immediate::DATA, code, chain.map(String::as_str));
        });
    }
}

fn put_verdict(out: &mut Writer, kind: u16, code: i32, chain: Option<&str>) {
    out.nest(kind, |out| {
        out.nest(data::VERDICT, |out| {
            out.put(data::VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                out.put_str(data::VERDICT_CHAIN, chain);
            }
        });
    });
}

pub(super) fn put_data(out: &mut Writer, kind: u16, value: &[u8]) {
    out.nest(kind, |out| out.put(data::VALUE, value));
}

fn put_prefix(out: &mut Writer, prefix: Option<&str>) {
    if let Some(prefix) = prefix {
        out.put_str(log::PREFIX, prefix);
    }
}

fn put_direction(out: &mut Writer, direction: Option<Direction>) {
    match direction {
        Some(Direction::Original) => out.put_u8(ct::DIRECTION, 0),
        Some(Direction::Reply) => out.put_u8(ct::DIRECTION, 1),
        None => {}
    }
}

/// Bytes that compare as the number does.
fn comparable(value: &[u8], order: Order) -> Vec<u8> {
    let mut bytes = value.to_vec();
    if order == Order::Host && cfg!(target_endian = "little") && matches!(bytes.len(), 2 | 4 | 8) {
        bytes.reverse();
    }
    bytes
}

/// The length of an address mask that ends on a byte boundary: then nft loads or compares so many bytes only. Not
/// where the value has bits outside of the mask: that never matches.
fn prefix_bytes(kind: Kind, mask: &[u8], value: &[u8]) -> Option<usize> {
    let ones = mask.iter().take_while(|byte| **byte == 0xff).count();
    let zero_behind = |bytes: &[u8]| bytes.iter().skip(ones).all(|byte| *byte == 0);
    let is_prefix = matches!(kind, Kind::Ipv4 | Kind::Ipv6) && ones > 0 && zero_behind(mask) && zero_behind(value);
    is_prefix.then_some(ones)
}

fn check_lengths(found: &Match, facts: Facts) -> Result<()> {
    let fits = |value: &Vec<u8>| value.len() == facts.len;
    let value_fits = match &found.value {
        // A prefix of an interface's name.
        Value::Bytes(value) if facts.kind == Kind::Interface => (1..=facts.len).contains(&value.len()),
        Value::Bytes(value) => fits(value),
        Value::Range(from, to) => fits(from) && fits(to) && in_order(from, to, facts.order),
        Value::Set(elements) => {
            !elements.is_empty()
                && elements.iter().all(|element| match element {
                    Element::One(value) => fits(value),
                    Element::Range(from, to) => fits(from) && fits(to) && in_order(from, to, facts.order),
                })
        }
    };
    if !value_fits || found.mask.as_ref().is_some_and(|mask| !fits(mask)) {
        return Err(Malformed("a value or mask does not fit its key"));
    }
    if !matches!(found.value, Value::Bytes(_)) && !matches!(found.op, Op::Eq | Op::Ne) {
        return Err(Malformed("ranges and sets are compared for equality only"));
    }
    Ok(())
}

fn in_order(from: &[u8], to: &[u8], order: Order) -> bool {
    comparable(from, order) <= comparable(to, order)
}

/// The kernel puts a number of its own for `%d`.
const SET_NAME: &str = "__set%d";
const MAP_NAME: &str = "__map%d";

/// libnftnl's TLVs in NFTA_SET_USERDATA, without which nft prints numbers of a set's elements in the wrong byte order.
mod set_userdata {
    /// Byte order of the key: 1 host, 2 network.
    pub const KEY_BYTEORDER: u8 = 0;
    /// The same of what a map gives.
    pub const DATA_BYTEORDER: u8 = 1;
    pub const HOST: u32 = 1;
    pub const NETWORK: u32 = 2;
}

impl AnonymousSet {
    fn new(id: u32, facts: Facts, elements: &[Element]) -> Self {
        let interval = elements.iter().any(|element| matches!(element, Element::Range(..)));
        let elements = if interval {
            interval_elements(facts, elements)
        } else {
            elements.iter().filter_map(single).map(|value| (value, false)).collect()
        };
        let key_len = u32::try_from(facts.len).unwrap_or_default();
        Self { id, key_type: facts.kind.set_type(), key_len, order: facts.order, interval, elements, images: None }
    }

    fn name(&self) -> &'static str {
        if self.images.is_some() { MAP_NAME } else { SET_NAME }
    }

    /// Attributes of NFT_MSG_NEWSET.
    pub fn put_set(&self, out: &mut Writer, table: &str) {
        let interval = if self.interval { set_flag::INTERVAL } else { 0 };
        let map = if self.images.is_some() { set_flag::MAP } else { 0 };
        out.put_str(set::TABLE, table);
        out.put_str(set::NAME, self.name());
        out.put_u32(set::FLAGS, set_flag::ANONYMOUS | set_flag::CONSTANT | interval | map);
        out.put_u32(set::KEY_TYPE, self.key_type);
        out.put_u32(set::KEY_LEN, self.key_len);
        if self.images.is_some() {
            out.put_u32(set::DATA_TYPE, self.key_type);
            out.put_u32(set::DATA_LEN, self.key_len);
        }
        out.put_u32(set::ID, self.id);
        out.nest(set::DESC, |out| {
            out.put_u32(set::DESC_SIZE, u32::try_from(self.elements.len()).unwrap_or(u32::MAX));
        });
        let order = if self.order == Order::Host { set_userdata::HOST } else { set_userdata::NETWORK };
        let mut userdata = vec![set_userdata::KEY_BYTEORDER, 4];
        userdata.extend_from_slice(&order.to_ne_bytes());
        if self.images.is_some() {
            userdata.extend_from_slice(&[set_userdata::DATA_BYTEORDER, 4]);
            userdata.extend_from_slice(&order.to_ne_bytes());
        }
        out.put(set::USERDATA, &userdata);
    }

    /// Attributes of NFT_MSG_NEWSETELEM.
    pub fn put_elements(&self, out: &mut Writer, table: &str) {
        out.put_str(elem::LIST_TABLE, table);
        out.put_str(elem::LIST_SET, self.name());
        out.put_u32(elem::LIST_SET_ID, self.id);
        out.nest(elem::LIST_ELEMENTS, |out| {
            let images = self.images.iter().flatten().map(Some).chain(std::iter::repeat(None));
            for ((key, ends), image) in self.elements.iter().zip(images) {
                out.nest(data::LIST_ELEM, |out| {
                    if *ends {
                        out.put_u32(elem::FLAGS, elem::INTERVAL_END);
                    }
                    put_data(out, elem::KEY, key);
                    if let Some(image) = image {
                        put_data(out, elem::DATA, image);
                    }
                });
            }
        });
    }
}

/// Attributes of NFT_MSG_NEWSET for a named map of addresses to verdicts.
pub(super) fn put_verdict_map(out: &mut Writer, at: Table<'_>, name: &str, id: u32) {
    let kind = match at.family {
        Family::V4 => Kind::Ipv4,
        Family::V6 => Kind::Ipv6,
    };
    out.put_str(set::TABLE, at.name);
    out.put_str(set::NAME, name);
    out.put_u32(set::FLAGS, set_flag::MAP);
    out.put_u32(set::KEY_TYPE, kind.set_type());
    out.put_u32(set::KEY_LEN, u32::try_from(at.family.address_len()).unwrap_or_default());
    out.put_u32(set::DATA_TYPE, set::VERDICTS);
    out.put_u32(set::ID, id);
    let mut userdata = vec![set_userdata::KEY_BYTEORDER, 4];
    userdata.extend_from_slice(&set_userdata::NETWORK.to_ne_bytes());
    out.put(set::USERDATA, &userdata);
}

/// Attributes of NFT_MSG_NEWSETELEM, or of NFT_MSG_DELSETELEM where no chains are given: addresses, and the chain that
/// the map jumps to for each.
pub(super) fn put_verdicts<'a>(
    out: &mut Writer,
    at: Table<'_>,
    map: &str,
    elements: impl Iterator<Item = (IpAddr, Option<&'a str>)>,
) {
    out.put_str(elem::LIST_TABLE, at.name);
    out.put_str(elem::LIST_SET, map);
    out.nest(elem::LIST_ELEMENTS, |out| {
        for (address, chain) in elements {
            out.nest(data::LIST_ELEM, |out| {
                match address {
                    IpAddr::V4(address) => put_data(out, elem::KEY, &address.octets()),
                    IpAddr::V6(address) => put_data(out, elem::KEY, &address.octets()),
                }
                if chain.is_some() {
                    put_verdict(out, elem::DATA, verdict::JUMP, chain);
                }
            });
        }
    });
}

fn single(element: &Element) -> Option<Vec<u8>> {
    match element {
        Element::One(value) => Some(value.clone()),
        Element::Range(..) => None,
    }
}

/// The kernel's form of intervals: the first value of each, then the first value behind it, marked as an end;
/// ascending, from an end at zero on. Neighbours are joined, as nft does.
fn interval_elements(facts: Facts, elements: &[Element]) -> Vec<(Vec<u8>, bool)> {
    let mut ranges: Vec<(Vec<u8>, Vec<u8>)> = elements
        .iter()
        .map(|element| match element {
            Element::One(value) => (comparable(value, facts.order), comparable(value, facts.order)),
            Element::Range(from, to) => (comparable(from, facts.order), comparable(to, facts.order)),
        })
        .collect();
    ranges.sort();
    let mut out: Vec<(Vec<u8>, bool)> = Vec::new();
    for (from, to) in ranges {
        let joins = out.last().is_none_or(|(end, ends)| *ends && *end >= from);
        let behind = successor(&to);
        match out.last_mut() {
            // Everything up to the last value is in already.
            Some((_, false)) => break,
            Some((end, _)) if joins => match behind {
                Some(behind) => *end = behind.max(std::mem::take(end)),
                None => {
                    out.pop();
                }
            },
            _ => {
                if out.is_empty() && from.iter().any(|byte| *byte != 0) {
                    out.push((vec![0; facts.len], true));
                }
                out.push((from, false));
                out.extend(behind.map(|behind| (behind, true)));
            }
        }
    }
    out
}

/// The next number, unless that was the last one.
fn successor(value: &[u8]) -> Option<Vec<u8>> {
    let mut next = value.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(next);
        }
    }
    None
}
