//! User data of rules: TLVs of one byte type and one byte length, 256 bytes in all (NFT_USERDATA_MAXLEN,
//! linux/netfilter/nf_tables.h), so 254 for one entry.
//!
//! Type 0 is nft's readable comment. Ours holds the text of the iptables rule that a rule of nf_tables carries. A text
//! that does not fit is spread over rules of [`OVERFLOW_CHAIN`], which nothing calls; a random key links them.

#![forbid(unsafe_code)]

use super::connection::RuleInfo;
use super::names;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Holds nothing but rules whose user data continues that of others. Longer than the 28 bytes that iptables allows for
/// a chain's name, so that it cannot be a user's.
pub const OVERFLOW_CHAIN: &str = "xtshim-continues-long-rule-texts";

/// NFTNL_UDATA_RULE_COMMENT, as nft writes it.
const COMMENT: u8 = 0;
/// Ours: far from the numbers that libnftnl takes one after the other.
const ENTRY: u8 = 0xd5;
/// Ours: a piece of a long text.
const PIECE: u8 = 0xd6;
/// Ours: of a rule that carries none of iptables', but leads to others that do.
const RUN: u8 = 0xd7;

/// Changes whenever what is behind it is to be read otherwise.
const FORMAT: u8 = 1;

const LIMIT: usize = 256;
const TLV_HEADER: usize = 2;
const VALUE_LIMIT: usize = LIMIT - TLV_HEADER;

/// Format, part, parts, form.
const ENTRY_HEADER: usize = 4;
const INLINE: u8 = 0;
const OVERFLOWING: u8 = 1;
/// Inline, behind a number of eight bytes.
const SEATED: u8 = 2;
const INLINE_LIMIT: usize = VALUE_LIMIT - ENTRY_HEADER;

/// The longest text, in bytes, that has room beside [`Entry::ordinal`].
pub const SEATED_LIMIT: usize = INLINE_LIMIT - 8;

/// Format, key, number of the piece.
const PIECE_HEADER: usize = 1 + 8 + 2;
const PIECE_LIMIT: usize = VALUE_LIMIT - PIECE_HEADER;

/// What is kept of an iptables rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which of the rules that carry it together, from 0.
    pub part: u8,
    /// How many rules carry it together.
    pub parts: u8,
    /// Its text.
    pub text: String,
    /// Of a rule that is listed elsewhere than where it stands: its place there. Its text is at most [`SEATED_LIMIT`] long.
    pub ordinal: Option<u64>,
}

impl Entry {
    /// Of a rule that is carried by one rule, in its own place.
    pub fn whole(text: String) -> Self {
        Self { part: 0, parts: 1, text, ordinal: None }
    }
}

/// User data to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Of the rule itself.
    pub userdata: Vec<u8>,
    /// Of one rule each in [`OVERFLOW_CHAIN`], to be added in the same batch.
    pub overflow: Vec<Vec<u8>>,
}

/// User data that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// One of our rules.
    Ours(Entry),
    /// What [`run`] gives.
    Run(u32),
    /// No entry of ours, or one that is damaged or lacks its continuation.
    Foreign,
    /// Written by a newer version of this program.
    Newer,
}

/// User data for `entry`. The readable `comment` is added where nft syntax can hold it and it fits beside the entry.
///
/// A text longer than 65 535 pieces (15 MB) could not be numbered; the kernel refuses such a batch long before.
pub fn encode(entry: &Entry, comment: Option<&str>) -> Encoded {
    encode_text(entry.part, entry.parts, &entry.text, entry.ordinal, comment)
}

/// The same, of an [`Entry`] that nobody has put together.
pub fn encode_text(part: u8, parts: u8, text: &str, ordinal: Option<u64>, comment: Option<&str>) -> Encoded {
    let text = text.as_bytes();
    let (form, len) = match ordinal {
        Some(_) => (SEATED, 8 + text.len()),
        None if text.len() <= INLINE_LIMIT => (INLINE, text.len()),
        None => (OVERFLOWING, 8 + 4),
    };
    let len = ENTRY_HEADER + len;
    let mut overflow = Vec::new();
    let mut userdata = comment.and_then(|comment| readable(comment, len)).unwrap_or_default();
    userdata.reserve_exact(TLV_HEADER + len);
    userdata.extend([ENTRY, u8::try_from(len).unwrap_or(u8::MAX), FORMAT, part, parts, form]);
    if let Some(ordinal) = ordinal {
        userdata.extend_from_slice(&ordinal.to_be_bytes());
    }
    if form != OVERFLOWING {
        userdata.extend_from_slice(text);
        return Encoded { userdata, overflow };
    }
    let key = random_key();
    userdata.extend_from_slice(&key);
    userdata.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    for (number, piece) in text.chunks(PIECE_LIMIT).enumerate() {
        let mut value = vec![FORMAT];
        value.extend_from_slice(&key);
        value.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
        value.extend_from_slice(piece);
        overflow.push(tlv(PIECE, &value));
    }
    Encoded { userdata, overflow }
}

/// User data of a rule that is none of iptables' rules itself: what it leads to has that number.
pub fn run(id: u32) -> Vec<u8> {
    let mut value = vec![FORMAT];
    value.extend_from_slice(&id.to_be_bytes());
    tlv(RUN, &value)
}

/// The rules of [`OVERFLOW_CHAIN`], by what they continue.
#[derive(Debug, Default)]
pub struct Continuations<'a>(HashMap<[u8; 8], Vec<(u64, Piece<'a>)>>);

impl<'a> Continuations<'a> {
    /// Rules that are none of it are passed over.
    pub fn of(overflow: &'a [RuleInfo]) -> Self {
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        for (rule, piece) in overflow.iter().filter_map(|rule| Some((rule, piece(&rule.userdata)?))) {
            by_key.entry(piece.key).or_default().push((rule.handle, piece));
        }
        for pieces in by_key.values_mut() {
            pieces.sort_by_key(|(_, piece)| piece.number);
        }
        Self(by_key)
    }

    fn get(&self, key: &[u8; 8]) -> &[(u64, Piece<'a>)] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Reads user data, and what continues it.
pub fn decode(userdata: &[u8], overflow: &Continuations<'_>) -> Decoded {
    let Some(value) = Tlvs(userdata).find_map(|(kind, value)| (kind == ENTRY).then_some(value)) else {
        return match Tlvs(userdata).find_map(|(kind, value)| (kind == RUN).then_some(value)) {
            Some([FORMAT, one, two, three, four]) => Decoded::Run(u32::from_be_bytes([*one, *two, *three, *four])),
            Some([format, ..]) if *format > FORMAT => Decoded::Newer,
            _ => Decoded::Foreign,
        };
    };
    let (part, parts, form, rest) = match value {
        [format, ..] if *format > FORMAT => return Decoded::Newer,
        [FORMAT, part, parts, form, rest @ ..] => (*part, *parts, *form, rest),
        _ => return Decoded::Foreign,
    };
    let (ordinal, rest) = match (form, rest.split_first_chunk::<8>()) {
        (SEATED, Some((ordinal, rest))) => (Some(u64::from_be_bytes(*ordinal)), rest),
        (SEATED, None) => return Decoded::Foreign,
        _ => (None, rest),
    };
    let bytes = match form {
        INLINE | SEATED => Some(rest.to_vec()),
        OVERFLOWING => gather(rest, overflow),
        _ => None,
    };
    match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) if part < parts => Decoded::Ours(Entry { part, parts, text, ordinal }),
        _ => Decoded::Foreign,
    }
}

/// Which part of a rule this is, and its text if that is all here. `None`: it takes [`decode`] to know.
pub fn glance(userdata: &[u8]) -> Option<(u8, &[u8])> {
    match Tlvs(userdata).find_map(|(kind, value)| (kind == ENTRY).then_some(value))? {
        [FORMAT, part, _, INLINE, text @ ..] => Some((*part, text)),
        _ => None,
    }
}

/// Whether this is user data that this program writes, of a rule or of its continuation.
pub fn is_ours(userdata: &[u8]) -> bool {
    Tlvs(userdata).any(|tlv| match tlv {
        (ENTRY, [FORMAT, part, parts, ..]) => part < parts,
        (RUN, [FORMAT, ..]) => true,
        _ => false,
    }) || piece(userdata).is_some()
}

/// Handles of the rules in [`OVERFLOW_CHAIN`] that continue this user data: to be deleted with its rule.
pub fn overflow_handles(userdata: &[u8], overflow: &Continuations<'_>) -> Vec<u64> {
    let entry = Tlvs(userdata).find_map(|(kind, value)| (kind == ENTRY).then_some(value));
    let Some([FORMAT, _, _, OVERFLOWING, rest @ ..]) = entry else { return Vec::new() };
    let Some(key) = rest.first_chunk::<8>() else { return Vec::new() };
    overflow.get(key).iter().map(|(handle, _)| *handle).collect()
}

/// User data of a rule that is not ours to read back: nft's readable comment alone; empty where nft cannot hold it.
pub fn comment_alone(comment: &str) -> Vec<u8> {
    readable(comment, 0).unwrap_or_default()
}

/// nft's readable comment, if there is one.
pub fn comment(userdata: &[u8]) -> Option<String> {
    let value = Tlvs(userdata).find_map(|(kind, value)| (kind == COMMENT).then_some(value))?;
    let text = value.split(|byte| *byte == 0).next()?;
    String::from_utf8(text.to_vec()).ok()
}

fn readable(comment: &str, value_len: usize) -> Option<Vec<u8>> {
    let fits = 2 * TLV_HEADER + comment.len() + 1 + value_len <= LIMIT;
    (fits && names::comment_ok(comment)).then(|| tlv(COMMENT, &[comment.as_bytes(), b"\0"].concat()))
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    out.extend_from_slice(value);
    out
}

/// 64 bits from the hasher that the standard library seeds from the system's random numbers.
fn random_key() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_be_bytes()
}

/// Puts a long text together; `None` unless every byte of it is there.
fn gather(rest: &[u8], overflow: &Continuations<'_>) -> Option<Vec<u8>> {
    let key = rest.first_chunk::<8>()?;
    let len = usize::try_from(u32::from_be_bytes(rest.get(8..)?.try_into().ok()?)).ok()?;
    let pieces = overflow.get(key);
    let in_order = pieces.iter().enumerate().all(|(at, (_, piece))| usize::from(piece.number) == at);
    let text: Vec<u8> = pieces.iter().flat_map(|(_, piece)| piece.text).copied().collect();
    (in_order && text.len() == len).then_some(text)
}

#[derive(Debug)]
struct Piece<'a> {
    key: [u8; 8],
    number: u16,
    text: &'a [u8],
}

fn piece(userdata: &[u8]) -> Option<Piece<'_>> {
    let value = Tlvs(userdata).find_map(|(kind, value)| (kind == PIECE).then_some(value))?;
    let (&format, rest) = value.split_first()?;
    let (key, rest) = rest.split_first_chunk::<8>()?;
    let (number, text) = rest.split_first_chunk::<2>()?;
    (format == FORMAT).then_some(Piece { key: *key, number: u16::from_be_bytes(*number), text })
}

struct Tlvs<'a>(&'a [u8]);

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, len, rest @ ..] = self.0 else { return None };
        let value = rest.get(..usize::from(*len))?;
        self.0 = rest.get(usize::from(*len)..).unwrap_or_default();
        Some((*kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(overflow: &[Vec<u8>]) -> Vec<RuleInfo> {
        overflow
            .iter()
            .zip(7..)
            .map(|(userdata, handle)| RuleInfo {
                chain: OVERFLOW_CHAIN.into(),
                handle,
                userdata: userdata.clone(),
                packets: 0,
                bytes: 0,
                verdict: None,
                expressions: Vec::new(),
            })
            .collect()
    }

    fn entry(text: &str) -> Entry {
        Entry::whole(text.into())
    }

    #[test]
    fn a_comment_is_readable_where_it_fits() {
        let encoded = encode(&entry("-j DROP"), Some("for web"));
        assert!(encoded.userdata.starts_with(b"\x00\x08for web\x00"));
        assert_eq!(comment(&encoded.userdata).as_deref(), Some("for web"));
        for bad in ["say \"hi\"", "back\\slash", "ümlaut", "two\nlines", &"x".repeat(128)] {
            assert_eq!(comment(&encode(&entry("-j DROP"), Some(bad)).userdata), None);
        }
        assert_eq!(comment(&encode(&entry(&"x".repeat(240)), Some("no room here")).userdata), None);
    }

    #[test]
    fn a_newer_format_is_told_from_a_foreign_one() {
        let mut encoded = encode(&entry("-j DROP"), None);
        encoded.userdata[2] = FORMAT + 1;
        assert_eq!(decode(&encoded.userdata, &Continuations::default()), Decoded::Newer);
        assert_eq!(decode(b"", &Continuations::default()), Decoded::Foreign);
        assert_eq!(decode(b"\x00\x02a\x00", &Continuations::default()), Decoded::Foreign);
    }

    #[test]
    fn a_text_without_all_its_pieces_is_not_ours() {
        let encoded = encode(&entry(&"x".repeat(1000)), None);
        let mut overflow = rules(&encoded.overflow);
        assert_eq!(overflow_handles(&encoded.userdata, &Continuations::of(&overflow)).len(), encoded.overflow.len());
        overflow.remove(1);
        assert_eq!(decode(&encoded.userdata, &Continuations::of(&overflow)), Decoded::Foreign);
    }

    proptest! {
        #[test]
        fn every_text_comes_back(len in 0usize..=2000, letter in "[a-z\"\\\\ ü\n]", part in 0u8..4, comment in proptest::option::of(".{0,200}")) {
            let text: String = letter.repeat(len).chars().take(len).collect();
            let entry = Entry { part, parts: 4, text, ordinal: None };
            let encoded = encode(&entry, comment.as_deref());
            prop_assert!(encoded.userdata.len() <= LIMIT);
            prop_assert!(encoded.overflow.iter().all(|piece| piece.len() <= LIMIT));
            let mut overflow = rules(&encode(&Entry::whole("y".repeat(900)), None).overflow);
            overflow.extend(rules(&encoded.overflow).into_iter().rev());
            prop_assert_eq!(decode(&encoded.userdata, &Continuations::of(&overflow)), Decoded::Ours(entry));
        }

        #[test]
        fn a_place_in_a_run_comes_back(text in "[ -~]{0,242}", ordinal: u64, id: u32) {
            let entry = Entry { ordinal: Some(ordinal), ..Entry::whole(text) };
            let encoded = encode(&entry, None);
            prop_assert!(encoded.userdata.len() <= LIMIT && encoded.overflow.is_empty() && is_ours(&encoded.userdata));
            prop_assert_eq!(decode(&encoded.userdata, &Continuations::default()), Decoded::Ours(entry));
            prop_assert!(is_ours(&run(id)));
            prop_assert_eq!(decode(&run(id), &Continuations::default()), Decoded::Run(id));
        }

        #[test]
        fn hostile_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            tail in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let looks_ours: Vec<u8> = [&[ENTRY, u8::try_from(tail.len()).unwrap_or(0)], &tail[..]].concat();
            let overflow = rules(&[bytes.clone(), [&[PIECE, 20], &tail[..]].concat()]);
            let overflow = Continuations::of(&overflow);
            for userdata in [&bytes, &looks_ours] {
                let _ = decode(userdata, &overflow);
                let _ = overflow_handles(userdata, &overflow);
                let _ = super::comment(userdata);
            }
        }
    }
}
