//! The language of iptables-restore files: one line at a time. Its quoting is iptables' own, not a shell's: only `"`
//! quotes, and a backslash means something only between quotes.

#![forbid(unsafe_code)]

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
        /// In brackets.
        counters: Option<(u64, u64)>,
    },
    /// A rule or any other command, `[packets:bytes]` perhaps before it.
    Command {
        /// In brackets.
        counters: Option<(u64, u64)>,
        /// Words, quotes taken off.
        args: Vec<String>,
    },
    /// `COMMIT`
    Commit,
    /// Nothing of these; what is wrong.
    Malformed(Malformation),
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
    /// `[…]` that are no counters, or a rule without words behind them.
    Counters,
    /// A quote that is not closed.
    OpenQuote,
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
        _ => command(text),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t']).filter(|word| !word.is_empty())
}

fn chain(text: &str) -> Line {
    let mut words = words(text);
    let Some(name) = words.next() else { return Line::Malformed(Malformation::NoChain) };
    let Some(policy) = words.next() else { return Line::Malformed(Malformation::NoPolicy) };
    let counters = match words.next() {
        None => None,
        Some(_) if policy == "-" => None,
        Some(word) => match counters(word) {
            Some(counters) => Some(counters),
            None => return Line::Malformed(Malformation::Counters),
        },
    };
    Line::Chain { name: name.to_owned(), policy: policy.to_owned(), counters }
}

/// `[packets:bytes]`
pub fn counters(text: &str) -> Option<(u64, u64)> {
    let (packets, bytes) = text.strip_prefix('[')?.split_once(':')?;
    let bytes = bytes.strip_suffix(']')?;
    Some((packets.parse().ok()?, bytes.parse().ok()?))
}

fn command(text: &str) -> Line {
    let (counted, rest) = match text.starts_with('[') {
        false => (None, text),
        true => {
            let Some(end) = text.find(']') else { return Line::Malformed(Malformation::Counters) };
            let (bracket, rest) = text.split_at(end + 1);
            match counters(bracket) {
                Some(pair) => (Some(pair), rest),
                None => return Line::Malformed(Malformation::Counters),
            }
        }
    };
    match split(rest) {
        None => Line::Malformed(Malformation::OpenQuote),
        Some(args) if args.is_empty() && counted.is_some() => Line::Malformed(Malformation::Counters),
        Some(args) if args.is_empty() => Line::Blank,
        Some(args) => Line::Command { counters: counted, args },
    }
}

/// Takes a rule's words apart. `None`: a quote is left open.
pub fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(chars.next()),
            ' ' | '\t' | '\n' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
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
