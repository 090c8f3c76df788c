//! Matches that nft cannot print as they are, said otherwise.

#![forbid(unsafe_code)]

use super::expr::{Match, Op, Value};
use super::key::{self, Kind};
use std::borrow::Cow;

/// The same match in a form that `nft list ruleset` prints so that it can be read back. It has no word for what is
/// not "missing", and prints a time of zero as nothing at all.
pub(super) fn canonical(found: &Match) -> Cow<'_, Match> {
    let with = |op, value: Vec<u8>| Cow::Owned(Match { op, value: Value::Bytes(value), ..found.clone() });
    match (key::of(found.key).kind, found.op, &found.value) {
        (Kind::Presence, Op::Ne, Value::Bytes(value)) => with(Op::Eq, presence(is_zero(value), value.len())),
        (Kind::Time, Op::Eq, Value::Bytes(value)) if is_zero(value) => with(Op::Lt, millisecond()),
        (Kind::Time, Op::Ne, Value::Bytes(value)) if is_zero(value) => with(Op::Ge, millisecond()),
        (Kind::Time, Op::Eq, Value::Range(from, to)) if is_zero(from) && !is_zero(to) => with(Op::Le, to.clone()),
        (Kind::Time, Op::Ne, Value::Range(from, to)) if is_zero(from) && !is_zero(to) => with(Op::Gt, to.clone()),
        (Kind::Time, Op::Eq, Value::Range(_, to)) if is_zero(to) => with(Op::Lt, millisecond()),
        (Kind::Time, Op::Ne, Value::Range(_, to)) if is_zero(to) => with(Op::Ge, millisecond()),
        _ => Cow::Borrowed(found),
    }
}

/// The kernel writes presence into the first byte, however long the key is.
fn presence(there: bool, len: usize) -> Vec<u8> {
    std::iter::once(u8::from(there)).chain(std::iter::repeat_n(0, len.saturating_sub(1))).collect()
}

fn is_zero(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == 0)
}

fn millisecond() -> Vec<u8> {
    1u32.to_ne_bytes().to_vec()
}
