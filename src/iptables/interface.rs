//! Interface names, with iptables' `+` wildcard.

#![forbid(unsafe_code)]

use super::dialect::Dialect;
use crate::error::Error;

/// IFNAMSIZ of linux/if.h, the terminating NUL included.
pub const SIZE: usize = 16;

/// An interface, or every one whose name begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceMatch {
    /// At most 15 bytes; a `+` at its end is the wildcard.
    pub name: String,
    /// `!` stood before it.
    pub inverted: bool,
}

impl InterfaceMatch {
    /// Checks the name. One that no kernel would give only earns a warning.
    pub fn parse(name: &str, inverted: bool, dialect: &Dialect) -> Result<Self, Error> {
        if name.is_empty() {
            return Err(Error::Parameter("Empty interface is likely to be undesired".to_owned()));
        }
        if name.len() >= SIZE {
            let limit = if dialect.version >= (1, 8, 11) {
                "must be shorter than 16 characters"
            } else {
                "must be shorter than IFNAMSIZ (15)"
            };
            return Err(Error::Parameter(format!("interface name `{name}' {limit}")));
        }
        Ok(Self { name: name.to_owned(), inverted })
    }

    /// Whether every name fits (`+`).
    pub fn is_all(&self) -> bool {
        self.name == "+"
    }

    /// The prefix that a wildcard asks for; `None` for an exact name.
    pub fn wildcard(&self) -> Option<&str> {
        self.name.strip_suffix('+')
    }

    /// The name as a register holds it: padded with NULs when exact, cut short when a prefix.
    pub fn bytes(&self) -> Vec<u8> {
        match self.wildcard() {
            Some(prefix) => prefix.as_bytes().to_vec(),
            None => {
                let mut bytes = self.name.as_bytes().to_vec();
                bytes.resize(SIZE, 0);
                bytes
            }
        }
    }
}
