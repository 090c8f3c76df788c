//! getopt_long(3) as iptables uses it: words stay in order, a long option may be cut short as long as it is unique in
//! the table of the moment, and that table grows while the line is read.

#![forbid(unsafe_code)]

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// None.
    Nothing,
    /// In the same word or the next.
    Value,
    /// In the same word only; a detached one is the caller's to fetch.
    Maybe,
}

/// One row of the table of long options. `I` tells the option apart; spellings with equal `id` are one option.
#[derive(Clone, Copy, Debug)]
pub struct Long<I> {
    /// Without the dashes.
    pub name: &'static str,
    /// Its value.
    pub takes: Takes,
    /// What it is.
    pub id: I,
}

/// A value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The value.
    pub text: &'a str,
    /// The word it stands in, when that is the option's own word.
    pub attached_to: Option<&'a str>,
}

/// What comes next on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a, I> {
    /// Nothing more.
    End,
    /// A word that belongs to no option.
    Word(&'a str),
    /// An option.
    Option {
        /// Which.
        id: I,
        /// What it was given.
        value: Option<Value<'a>>,
    },
    /// No such option, or several that begin so; the word that iptables names in its message.
    Unknown(&'a str),
    /// The value is missing.
    MissingValue(&'a str),
}

/// A place on the line; a copy of it is a bookmark.
#[derive(Clone, Copy, Debug)]
pub struct Scanner<'a> {
    words: &'a [&'a str],
    next: usize,
    cluster: Option<&'a str>,
}

impl<'a> Scanner<'a> {
    /// From the first word on.
    pub fn new(words: &'a [&'a str]) -> Self {
        Self { words, next: 0, cluster: None }
    }

    fn word(&self, index: usize) -> Option<&'a str> {
        self.words.get(index).copied()
    }

    /// Takes the next word as a detached value if it can be one: it does not begin with `-` or `!`.
    pub fn detached(&mut self) -> Option<&'a str> {
        let word = self.word(self.next)?;
        if word.starts_with(['-', '!']) {
            return None;
        }
        self.next += 1;
        Some(word)
    }

    /// Whether letters are left in the word that the last option stood in.
    pub fn in_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Index of the word that is read next.
    pub fn position(&self) -> usize {
        self.next
    }

    /// Whether words are left, behind `--`.
    pub fn has_rest(&self) -> bool {
        self.next < self.words.len()
    }

    /// Reads on. `short` gives the letters and `long` the long options of the moment, one table behind the other.
    pub fn next<I: Copy + PartialEq>(
        &mut self,
        short: impl Fn(char) -> Option<(I, Takes)>,
        long: &[&[Long<I>]],
    ) -> Token<'a, I> {
        if let Some(rest) = self.cluster.take() {
            return self.short(rest, short);
        }
        let Some(word) = self.word(self.next) else { return Token::End };
        self.next += 1;
        if word == "--" {
            return Token::End;
        }
        if let Some(name) = word.strip_prefix("--") {
            return self.long(word, name, long);
        }
        match word.strip_prefix('-') {
            Some(letters) if !letters.is_empty() => self.short(letters, short),
            _ => Token::Word(word),
        }
    }

    fn long<I: Copy + PartialEq>(&mut self, word: &'a str, text: &'a str, tables: &[&[Long<I>]]) -> Token<'a, I> {
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let Some(option) = find(name, tables) else { return Token::Unknown(word) };
        let value = match (option.takes, attached) {
            (Takes::Nothing, Some(_)) => return Token::Unknown(word),
            (Takes::Nothing | Takes::Maybe, None) => None,
            (_, Some(text)) => Some(Value { text, attached_to: Some(word) }),
            (Takes::Value, None) => match self.take_word() {
                Some(text) => Some(Value { text, attached_to: None }),
                None => return Token::MissingValue(word),
            },
        };
        Token::Option { id: option.id, value }
    }

    fn short<I: Copy>(&mut self, letters: &'a str, short: impl Fn(char) -> Option<(I, Takes)>) -> Token<'a, I> {
        let mut chars = letters.chars();
        let letter = chars.next();
        let rest = chars.as_str();
        let here = self.word(self.next.saturating_sub(1)).unwrap_or_default();
        let Some((id, takes)) = letter.and_then(short) else {
            return Token::Unknown(if rest.is_empty() {
                here
            } else {
                self.cluster = Some(rest);
                self.next.checked_sub(2).and_then(|index| self.word(index)).unwrap_or_default()
            });
        };
        let value = match takes {
            Takes::Nothing => {
                self.cluster = (!rest.is_empty()).then_some(rest);
                None
            }
            _ if !rest.is_empty() => Some(Value { text: rest, attached_to: Some(here) }),
            Takes::Maybe => None,
            Takes::Value => match self.take_word() {
                Some(text) => Some(Value { text, attached_to: None }),
                None => return Token::MissingValue(here),
            },
        };
        Token::Option { id, value }
    }

    fn take_word(&mut self) -> Option<&'a str> {
        let word = self.word(self.next)?;
        self.next += 1;
        Some(word)
    }
}

/// The exact name, else the only option that begins so.
fn find<'t, I: PartialEq>(name: &str, tables: &[&'t [Long<I>]]) -> Option<&'t Long<I>> {
    let all = || tables.iter().flat_map(|table| table.iter());
    if let Some(exact) = all().find(|option| option.name == name) {
        return Some(exact);
    }
    let mut candidates = all().filter(|option| option.name.starts_with(name));
    let first = candidates.next()?;
    candidates.all(|other| other.id == first.id && other.takes == first.takes).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &[Long<char>] = &[
        Long { name: "source", takes: Takes::Value, id: 's' },
        Long { name: "src", takes: Takes::Value, id: 's' },
        Long { name: "insert", takes: Takes::Value, id: 'I' },
        Long { name: "in-interface", takes: Takes::Value, id: 'i' },
        Long { name: "wait", takes: Takes::Maybe, id: 'w' },
    ];

    fn short(letter: char) -> Option<(char, Takes)> {
        match letter {
            's' => Some((letter, Takes::Value)),
            'n' | 'v' => Some((letter, Takes::Nothing)),
            'L' | 'w' => Some((letter, Takes::Maybe)),
            _ => None,
        }
    }

    fn read(line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let mut scanner = Scanner::new(&words);
        let mut seen = Vec::new();
        loop {
            match scanner.next(short, &[LONG]) {
                Token::End => return seen.join(" "),
                Token::Word(word) => seen.push(format!("'{word}'")),
                Token::Option { id, value: None } => seen.push(id.to_string()),
                Token::Option { id, value: Some(value) } => seen.push(format!("{id}={}", value.text)),
                Token::Unknown(word) => seen.push(format!("?{word}")),
                Token::MissingValue(word) => seen.push(format!(":{word}")),
            }
        }
    }

    #[test]
    fn words_and_clusters() {
        assert_eq!(read("-nvL x -s a"), "n v L 'x' s=a");
        assert_eq!(read("-Lnv"), "L=nv");
        assert_eq!(read("--so a --s b"), "s=a s=b");
        assert_eq!(read("--in a"), "?--in 'a'");
        assert_eq!(read("--wait=5 -w5 -w 5"), "w=5 w=5 w '5'");
        assert_eq!(read("-s"), ":-s");
        assert_eq!(read("- -- -s"), "'-'");
    }
}
