//! Address families that iptables serves.

#![forbid(unsafe_code)]

/// IPv4 (`iptables`) or IPv6 (`ip6tables`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `iptables`, nf_tables family `ip` (NFPROTO_IPV4, linux/netfilter.h).
    V4,
    /// `ip6tables`, nf_tables family `ip6` (NFPROTO_IPV6, linux/netfilter.h).
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// `iptables` or `ip6tables`: also the name that messages bear.
    pub const fn program(self) -> &'static str {
        match self {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        }
    }

    /// The family's name in nft syntax (nft(8), ADDRESS FAMILIES).
    pub const fn nft(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    /// NFPROTO_* of linux/netfilter.h.
    pub const fn nfproto(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// Length of an address in bytes.
    pub const fn address_len(self) -> usize {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }
}
