//! The language of iptables-restore files: one line at a time. Its quoting is iptables' own, not a shell's: only `"`
//! quotes, and a backslash means something only between quotes.

#![forbid(unsafe_code)]

use super::number;

/// Bytes that iptables-restore takes for one line, newline included (observed: what is longer falls into several).
const LINE_MAX: usize = 10_239;

/// Bytes of a word in a file that iptables-restore takes at most (observed).
pub const WORD_MAX: usize = 1023;

/// Words of a line that iptables-restore takes at most (observed).
pub const WORDS_MAX: usize = 251;

/// Takes a file apart as iptables-restore does, newlines included.
pub fn pieces(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').flat_map(|line| line.chunks(LINE_MAX)).collect()
}

/// What iptables-restore sees of a piece: a NUL ends it.
pub fn seen(piece: &[u8]) -> &[u8] {
    match piece.contains(&0) {
        true => piece.split(|byte| *byte == 0).next().unwrap_or_default(),
        false => piece,
    }
}

/// One line of a restore file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing on it.
    Blank,
    /// The text behind `#`.
    Comment(String),
    /// `*TABLE`
    Table(String),
    /// `:CHAIN POLICY [packets:bytes]`
    Chain {
        /// Name.
        name: String,
        /// `-` for a user's chain.
        policy: String,
        /// In brackets; `None` for what cannot be read as such, which only `--counters` asks for.
        counters: Option<(u64, u64)>,
    },
    /// A rule or any other command, `[packets:bytes]` perhaps before it.
    Command {
        /// In brackets.
        counters: Option<Bracket>,
        /// Words, quotes taken off.
        args: Vec<String>,
    },
    /// `COMMIT`
    Commit,
    /// Nothing of these; what is wrong.
    Malformed(Malformation),
}

/// What stands in brackets before a rule, as it is written: iptables-restore reads it as the words of `--set-counters`, and
/// only with `--counters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// Before the colon.
    pub packets: String,
    /// Behind it.
    pub bytes: String,
}

impl Bracket {
    /// Its numbers. `None`: it holds others.
    pub fn read(&self) -> Option<(u64, u64)> {
        Some((number::leading(&self.packets)?, number::leading(&self.bytes)?))
    }
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformation {
    /// `*` without a table's name.
    NoTable,
    /// `:` without a chain's name.
    NoChain,
    /// A chain without its policy.
    NoPolicy,
    /// `[…]` that are no counters.
    Counters,
}

/// Reads one line, its newline taken off or not.
pub fn read_line(text: &str) -> Line {
    let text = text.strip_suffix('\n').unwrap_or(text);
    match text.as_bytes().first() {
        None => Line::Blank,
        Some(b'#') => Line::Comment(text.get(1..).unwrap_or_default().to_owned()),
        Some(b'*') => match words(text.get(1..).unwrap_or_default()).next() {
            Some(table) => Line::Table(table.to_owned()),
            None => Line::Malformed(Malformation::NoTable),
        },
        Some(b':') => chain(text.get(1..).unwrap_or_default()),
        _ if text == "COMMIT" => Line::Commit,
        _ => match command(text) {
            Some((counters, words)) => Line::Command { counters, args: words.iter().map(str::to_owned).collect() },
            None => Line::Malformed(Malformation::Counters),
        },
    }
}

/// The words of a line that [`read_line`] takes for a command, without a string for each, and what stands in brackets before
/// them. `None`: it is another line.
pub fn read_words(text: &str) -> Option<(Option<Bracket>, Words)> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let other = matches!(text.as_bytes().first(), None | Some(b'#' | b'*' | b':')) || text == "COMMIT";
    if other { None } else { command(text) }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t']).filter(|word| !word.is_empty())
}

fn chain(text: &str) -> Line {
    let mut words = words(text);
    let Some(name) = words.next() else { return Line::Malformed(Malformation::NoChain) };
    let Some(policy) = words.next() else { return Line::Malformed(Malformation::NoPolicy) };
    let counters = words.next().and_then(counters);
    Line::Chain { name: name.to_owned(), policy: policy.to_owned(), counters }
}

/// `[packets:bytes]` behind a chain. What follows the second number is not looked at.
pub fn counters(text: &str) -> Option<(u64, u64)> {
    let text = text.strip_prefix('[')?;
    let (packets, bytes) = text.split_once(':')?;
    let digits = packets.trim_start().trim_start_matches(['-', '+']);
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    Some((number::leading(packets)?, number::leading(bytes)?))
}

fn command(text: &str) -> Option<(Option<Bracket>, Words)> {
    let (counted, rest) = match text.starts_with('[') {
        false => (None, text),
        true => bracket(text).map(|(bracket, rest)| (Some(bracket), rest))?,
    };
    // A quote that stays open takes in the newline too.
    let words = Words::of(rest).or_else(|| Words::of(&format!("{rest}\n\""))).unwrap_or_default();
    Some((counted, words))
}

/// `[packets:bytes]` before a rule, and the rule. Colons before the packets and brackets before the bytes are passed over, as
/// iptables-restore does.
fn bracket(text: &str) -> Option<(Bracket, &str)> {
    let rest = text.get(text.find(']')? + 1..)?;
    let (packets, behind) = text.strip_prefix('[')?.trim_start_matches(':').split_once(':')?;
    let bytes = behind.trim_start_matches(']').split(']').next().filter(|bytes| !bytes.is_empty())?;
    Some((Bracket { packets: packets.to_owned(), bytes: bytes.to_owned() }, rest))
}

/// The words of a rule, quotes taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    text: String,
    ends: Vec<usize>,
}

impl Words {
    /// Takes a rule's words apart; a closing quote ends its word. `None`: a quote is left open.
    pub fn of(text: &str) -> Option<Self> {
        let mut words = Self { text: String::with_capacity(text.len()), ends: Vec::with_capacity(16) };
        if !text.contains('"') {
            for word in text.split([' ', '\t', '\n']).filter(|word| !word.is_empty()) {
                words.text.push_str(word);
                words.ends.push(words.text.len());
            }
            return Some(words);
        }
        let (mut quoted, mut open) = (false, false);
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted => {
                    (quoted, open) = (false, false);
                    words.ends.push(words.text.len());
                }
                '"' => quoted = true,
                '\\' if quoted => {
                    open = true;
                    words.text.extend(chars.next());
                }
                ' ' | '\t' | '\n' if !quoted => {
                    if std::mem::take(&mut open) {
                        words.ends.push(words.text.len());
                    }
                }
                c => {
                    open = true;
                    words.text.push(c);
                }
            }
        }
        if open {
            words.ends.push(words.text.len());
        }
        (!quoted).then_some(words)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.text.get(start..*end).unwrap_or_default())
    }
}

/// [`Words::of`], each word for itself.
pub fn split(text: &str) -> Option<Vec<String>> {
    Some(Words::of(text)?.iter().map(str::to_owned).collect())
}

/// A text as `-S` and iptables-save write comments and prefixes: bare when it is of letters, digits, `-` and `_`,
/// else in quotes.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        split(text)
    }

    #[test]
    fn only_double_quotes_quote() {
        let cases: &[(&str, &[&str])] = &[
            (r#"-c "a \"b\" \\ c""#, &["-c", r#"a "b" \ c"#]),
            (r#"a"b c"d"#, &["ab c", "d"]),
            ("'x y'", &["'x", "y'"]),
            (r"a\b", &[r"a\b"]),
            (r#"x """#, &["x", ""]),
            ("  a\tb ", &["a", "b"]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text).unwrap(), *expected, "{text}");
        }
        assert_eq!(words("\"a"), None);
    }

    #[test]
    fn lines_of_a_file() {
        assert_eq!(read_line("*raw\n"), Line::Table("raw".to_owned()));
        assert_eq!(read_line("# x"), Line::Comment(" x".to_owned()));
        assert_eq!(read_line(""), Line::Blank);
        assert_eq!(read_line("COMMIT\n"), Line::Commit);
        let chain = Line::Chain { name: "foo".to_owned(), policy: "-".to_owned(), counters: Some((0, 0)) };
        assert_eq!(read_line(":foo - [0:0]"), chain);
        let chain = Line::Chain { name: "foo".to_owned(), policy: "DROP".to_owned(), counters: None };
        assert_eq!(read_line(":foo DROP [x:y]"), chain);
        let args = vec!["-A".to_owned(), "foo".to_owned()];
        let counters = Some(Bracket { packets: "1".to_owned(), bytes: "2".to_owned() });
        assert_eq!(read_line("[1:2] -A foo"), Line::Command { counters, args });
        let args = vec!["x".to_owned(), "a\n".to_owned()];
        assert_eq!(read_line("x \"a\n"), Line::Command { counters: None, args });
        assert_eq!(read_line(" "), Line::Command { counters: None, args: Vec::new() });
        assert_eq!(read_line("[1:2 -A foo"), Line::Malformed(Malformation::Counters));
    }
}
