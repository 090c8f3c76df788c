//! Versions of other people's programs: numbers in a row, whatever stands between them.

#![forbid(unsafe_code)]

/// The numbers of the first word that begins with a digit, a `v` before it not counted: `28.5.2`, `2023_12_04`.
pub fn numbers(text: &str) -> Vec<u32> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | ':' | '~'));
    let mut words = words.map(|word| word.strip_prefix('v').unwrap_or(word));
    let first = words.find(|word| word.contains(['.', '_']) && word.starts_with(|c: char| c.is_ascii_digit()));
    let plain = first.unwrap_or_default().split(['-', '+']).next().unwrap_or_default();
    plain.split(['.', '_']).map_while(|part| part.parse().ok()).collect()
}

/// Whether what a program says of its version is at least `since`; `None`: it says no version.
pub fn at_least(text: &str, since: &str) -> Option<bool> {
    let found = numbers(text);
    (!found.is_empty()).then(|| found >= numbers(since))
}

/// Numbers as a version is written.
pub fn dotted(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_their_programs_say_them() {
        assert_eq!(numbers("Docker version 28.5.2, build ecc6942"), [28, 5, 2]);
        assert_eq!(numbers("Docker version 26.1.5+dfsg1, build a72d7cd"), [26, 1, 5]);
        assert_eq!(numbers("5:27.5.1-1~debian.12~bookworm"), [27, 5, 1]);
        assert_eq!(numbers("rootlesskit version 2.0.2+ds1"), [2, 0, 2]);
        assert_eq!(numbers("pasta 2024_10_30.ee7d0b6"), [2024, 10, 30]);
        assert_eq!(numbers("0.0~git20250503.587980c-2"), [0, 0]);
        assert!(numbers("none").is_empty());
        assert_eq!(at_least("Docker version 28.0.0, build x", "28.0.0"), Some(true));
        assert_eq!(at_least("v27.5.1", "28.0.0"), Some(false));
        assert_eq!(at_least("", "28.0.0"), None);
    }
}
