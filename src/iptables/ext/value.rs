//! Values of options, and the messages that most extensions share.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::iptables::dialect::{Dialect, KEPT};
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

/// `a`, `a:b`, `:b`, `a:`; the missing ends are 0 and `max`. The order is checked from 1.8.11 on; a rule of an older one
/// that is kept must be readable all the same.
pub fn range(dialect: &Dialect, extension: &str, option: &str, text: &str, max: u64) -> Result<(u64, u64), Error> {
    let read = |word: &str, near: &str, min: u64| {
        number::parse(word, max).filter(|number| *number >= min).ok_or_else(|| {
            let near = format!("near \"{near}\", or out of range ({min}-{max})");
            parameter(format!("{extension}: bad value for option \"--{option}\" {near}.\n"))
        })
    };
    let Some((first, last)) = text.split_once(':') else {
        let number = read(text, text, 0)?;
        return Ok((number, number));
    };
    let first = if first.is_empty() { 0 } else { read(first, text, 0)? };
    let ordered = dialect.version >= (1, 8, 11) && dialect.version != KEPT;
    let last = if last.is_empty() { max } else { read(last, last, if ordered { first } else { 0 })? };
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

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::family::Family;
    use crate::iptables::dialect::{Dialect, Variant};
    use crate::iptables::{Command, Rule, parse};

    fn spec(version: (u16, u16, u16), rule: &str) -> Result<String, String> {
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version };
        let words: Vec<String> = format!("-A INPUT {rule}").split(' ').map(str::to_owned).collect();
        match parse(Family::V4, &words, &dialect).map(|read| read.command) {
            Ok(Command::Append { rules, .. }) => Ok(rules[0].spec()),
            Ok(other) => panic!("{other:?}"),
            Err(Error::Parameter(text)) => Err(text),
            Err(other) => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_order_of_a_range_is_checked_from_1_8_11_on() {
        let bad = |option: &str, near: &str, range: &str| {
            Err(format!("{option} near \"{near}\", or out of range ({range}).\n"))
        };
        let length = "length: bad value for option \"--length\"";
        let queue = "NFQUEUE: bad value for option \"--queue-balance\"";
        assert_eq!(spec((1, 8, 11), "-m length --length 5:4"), bad(length, "4", "5-65535"));
        assert_eq!(spec((1, 8, 11), "-j NFQUEUE --queue-balance 5:4"), bad(queue, "4", "5-65534"));
        assert_eq!(spec((1, 8, 11), "-j NFQUEUE --queue-balance 5:65535"), bad(queue, "65535", "5-65534"));
        assert_eq!(spec((1, 8, 11), "-j NFQUEUE --queue-balance 5:"), Ok("-j NFQUEUE --queue-balance 5:65534".into()));
        assert_eq!(spec((1, 8, 9), "-j NFQUEUE --queue-balance 5:4"), Err("5 should be less than 4".into()));
    }

    #[test]
    fn what_an_older_one_took_is_read_again() {
        for rule in ["-m length ! --length 5:4", "-j NFQUEUE --queue-balance 5:65535", "-m conntrack ! --ctexpire 9:1"]
        {
            let kept = spec((1, 8, 9), rule).expect("it is taken");
            let again = Rule::from_spec(Family::V4, "filter", &kept, None).map(|rule| rule.spec());
            assert_eq!(again, Ok(kept));
        }
    }

    #[test]
    fn masks_with_holes_are_told_from_whole_ones_by_newer_ones() {
        let whole = Ok("-j NETMAP --to 192.0.2.1/32".to_owned());
        assert_eq!(spec((1, 8, 9), "-j NETMAP --to 192.0.2.1/255.0.255.0"), whole);
        assert_eq!(spec((1, 8, 9), "-j NETMAP --to 192.0.2.1/33"), whole);
        assert!(spec((1, 8, 11), "-j NETMAP --to 192.0.2.1/255.0.255.0").is_err_and(|text| text.contains("holes")));
        assert_eq!(spec((1, 8, 11), "-j NETMAP --to 192.0.2.1/24"), Ok("-j NETMAP --to 192.0.2.0/24".to_owned()));
    }
}
