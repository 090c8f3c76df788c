//! Values of options, and the messages that most extensions share.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::iptables::number;

fn parameter(text: String) -> Error {
    Error::Parameter(text)
}

/// A number from 0 to `max`.
pub fn number(extension: &str, option: &str, text: &str, max: u64) -> Result<u64, Error> {
    number::parse(text, max).ok_or_else(|| {
        parameter(format!("{extension}: bad value for option \"--{option}\", or out of range (0-{max}).\n"))
    })
}

/// `a`, `a:b`, `:b`, `a:`; the missing ends are 0 and `max`. The order is not checked.
pub fn range(extension: &str, option: &str, text: &str, max: u64) -> Result<(u64, u64), Error> {
    let bad = |near: &str| {
        parameter(format!(
            "{extension}: bad value for option \"--{option}\" near \"{near}\", or out of range (0-{max}).\n"
        ))
    };
    let read = |word: &str, near: &str| number::parse(word, max).ok_or_else(|| bad(near));
    let Some((first, last)) = text.split_once(':') else {
        let number = read(text, text)?;
        return Ok((number, number));
    };
    let first = if first.is_empty() { 0 } else { read(first, text)? };
    let last = if last.is_empty() { max } else { read(last, last)? };
    Ok((first, last))
}

/// `a:b`, or `a` where both ends are equal.
pub fn range_text(first: u64, last: u64) -> String {
    if first == last { first.to_string() } else { format!("{first}:{last}") }
}

/// `value[/mask]` of 32 bits; the mask is all ones when missing.
pub fn mark(extension: &str, option: &str, text: &str) -> Result<(u32, u32), Error> {
    let read = |word| number::parse(word, u64::from(u32::MAX)).map(|number| number as u32);
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (read(value), read(mask)),
        None => (read(text), Some(u32::MAX)),
    };
    value.zip(mask).ok_or_else(|| {
        parameter(format!("{extension}: bad integer value for option \"--{option}\", or out of range.\n"))
    })
}

/// A log prefix, cut to `max` bytes as iptables cuts it.
pub fn prefix(text: &str, max: usize) -> Result<String, Error> {
    if text.is_empty() {
        return Err(parameter("Argument must have a minimum length of 1 characters\n".to_owned()));
    }
    if text.contains('\n') {
        return Err(parameter("Newlines not allowed in --log-prefix".to_owned()));
    }
    Ok(cut(text, max).to_owned())
}

/// At most `max` bytes, whole characters only.
pub fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
