//! What `-L` prints besides rules.

#![forbid(unsafe_code)]

use super::dialect::Dialect;

/// What a listing shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `-v`
    pub verbose: bool,
    /// `-n`
    pub numeric: bool,
    /// `-x`
    pub exact: bool,
    /// `--line-numbers`
    pub line_numbers: bool,
}

/// What stands in brackets behind a chain's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainState<'a> {
    /// A built-in chain's policy and its packets and bytes.
    Policy(&'a str, (u64, u64)),
    /// How many rules jump to a user's chain.
    References(u32),
}

/// `Chain INPUT (policy ACCEPT)`, without newline.
pub fn chain_header(name: &str, state: ChainState<'_>, options: &ListOptions) -> String {
    match state {
        ChainState::Policy(policy, (packets, bytes)) if options.verbose => format!(
            "Chain {name} (policy {policy} {} packets, {} bytes)",
            scaled(packets, options.exact),
            scaled(bytes, options.exact)
        ),
        ChainState::Policy(policy, _) => format!("Chain {name} (policy {policy})"),
        ChainState::References(count) => format!("Chain {name} ({count} references)"),
    }
}

/// The line of column titles, without newline; its trailing blanks are iptables' own.
pub fn column_header(options: &ListOptions) -> String {
    let number = if options.line_numbers { "num  " } else { "" };
    let counters = match (options.verbose, options.exact) {
        (false, _) => "",
        (true, false) => " pkts bytes ",
        (true, true) => "    pkts      bytes ",
    };
    let interfaces = if options.verbose { " in     out    " } else { "" };
    format!("{number}{counters}{:<9}  prot opt{interfaces} {:<19}  {:<19} ", "target", "source", "destination")
}

/// Both lines that stand before a chain's rules, newlines included.
pub fn list_header(name: &str, state: ChainState<'_>, options: &ListOptions, _dialect: &Dialect) -> String {
    format!("{}\n{}\n", chain_header(name, state, options), column_header(options))
}

/// A counter as a number of at most five digits with its unit.
fn scaled(number: u64, exact: bool) -> String {
    if exact || number <= 99_999 {
        return number.to_string();
    }
    let mut scaled = number;
    for unit in ['K', 'M', 'G'] {
        scaled = scaled.wrapping_add(500) / 1000;
        if scaled <= 9999 {
            return format!("{scaled}{unit}");
        }
    }
    format!("{}T", (scaled + 500) / 1000)
}

/// A counter of a rule in its column, with the blank behind it.
pub(super) fn counter_text(number: u64, exact: bool) -> String {
    let width = if exact { 8 } else { 5 };
    format!("{:>width$} ", scaled(number, exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_scaled_and_rounded() {
        let cases = [
            (99_999, "99999"),
            (100_000, "100K"),
            (123_456, "123K"),
            (99_999_999, "100M"),
            (9_999_499, "9999K"),
            (9_999_500, "10M"),
            (1 << 62, "4611686T"),
            (u64::MAX, "0K"), // as the real ones, which round up beyond the last number
        ];
        for (number, text) in cases {
            assert_eq!(scaled(number, false), text);
        }
    }

    #[test]
    fn titles() {
        let options = ListOptions { verbose: true, numeric: true, exact: true, line_numbers: true };
        assert_eq!(
            column_header(&options),
            "num      pkts      bytes target     prot opt in     out     source               destination         "
        );
        assert_eq!(
            column_header(&ListOptions::default()),
            "target     prot opt source               destination         "
        );
    }
}
