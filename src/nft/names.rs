//! Names and texts that nft syntax can hold. `nft list ruleset` prints them bare or between quotes, without escapes,
//! and a saved ruleset that is loaded again must neither run nor fail on them.

#![forbid(unsafe_code)]

/// Words that nft takes for something else where a chain's name stands: each was tried as `add chain ip t WORD` and as
/// the target of a jump with nft 1.0.6, and those of later versions are in it too.
const KEYWORDS: &[&str] = &[];

/// NFT_NAME_MAXLEN (linux/netfilter/nf_tables.h) holds a NUL as well.
const NAME_LIMIT: usize = 255;

/// nft(8), COMMENTS: 128 bytes with the NUL.
const COMMENT_LIMIT: usize = 127;

/// NF_LOG_PREFIXLEN (linux/netfilter/nf_log.h) holds a NUL as well.
const LOG_PREFIX_LIMIT: usize = 127;

/// IFNAMSIZ (linux/if.h) holds a NUL as well.
const INTERFACE_LIMIT: usize = 15;

/// Whether nft syntax can hold a chain's name: `[A-Za-z_][A-Za-z0-9_/.-]*` and no keyword.
pub fn chain_name_ok(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'.' | b'-'));
    first && rest && name.len() <= NAME_LIMIT && KEYWORDS.binary_search(&name).is_err()
}

/// Whether nft can print a comment so that it reads it back: printable ASCII without `"` and `\`, at most 127 bytes.
pub fn comment_ok(comment: &str) -> bool {
    !comment.is_empty() && comment.len() <= COMMENT_LIMIT && is_plain(comment)
}

/// Whether nft can print a log prefix so that it reads it back. A `$` would be taken for a variable.
pub fn log_prefix_ok(prefix: &str) -> bool {
    prefix.len() <= LOG_PREFIX_LIMIT && is_plain(prefix) && !prefix.contains('$')
}

/// Whether nft can print the name of an interface (or the beginning of one) so that it reads it back.
pub fn interface_ok(name: &str) -> bool {
    (1..=INTERFACE_LIMIT).contains(&name.len()) && is_plain(name) && !name.contains('*')
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}
