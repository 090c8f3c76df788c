//! What `-v` prints of a rule that is added, deleted or checked.

#![forbid(unsafe_code)]

use super::address;
use super::address::AddressMatch;
use super::dialect::Dialect;
use super::ext::ListStyle;
use super::interface::InterfaceMatch;
use super::protocol;
use super::rule::{Rule, Target};
use crate::family::Family;
use std::fmt::Write;

impl Rule {
    /// `DROP  all opt -- in * out *  10.0.0.0/8  -> 0.0.0.0/0  `, newline not included; its trailing blanks are
    /// iptables' own.
    pub fn describe(&self, dialect: &Dialect) -> String {
        let (number, sign) = (self.protocol.number, if self.protocol.inverted { '!' } else { ' ' });
        let name = protocol::name(number, dialect).map_or_else(|| number.to_string(), str::to_owned);
        let fragment = match (self.family, self.fragment) {
            (Family::V6, _) if dialect.version < (1, 8, 8) => "  ",
            (Family::V6, _) if dialect.version < (1, 8, 9) => "",
            (_, None) => "--",
            (_, Some(false)) => "-f",
            (_, Some(true)) => "!f",
        };
        let mut out = format!("{} {sign}{name} opt {fragment} ", self.target_name());
        let _ = write!(out, "in {} out {} ", interface(self.input.as_ref()), interface(self.output.as_ref()));
        let (from, to) = (self.address(self.source.as_ref()), self.address(self.destination.as_ref()));
        let _ = write!(out, "{}{} {}-> {}  ", from.0, from.1, to.0, to.1);
        if matches!(self.target, Target::Goto(_)) {
            out.push_str("[goto] ");
        }
        let style = ListStyle { dialect, numeric: true };
        for m in &self.matches {
            m.list(&mut out, &style);
        }
        if let Target::Extension(target) = &self.target {
            target.list(&mut out, &style);
        }
        out
    }

    fn address(&self, wanted: Option<&AddressMatch>) -> (char, String) {
        match wanted {
            Some(wanted) if wanted.inverted => ('!', wanted.network.list_text(true)),
            Some(wanted) => (' ', wanted.network.list_text(true)),
            None => {
                let any = address::any(self.family);
                (' ', address::Network::new(any, any).list_text(true))
            }
        }
    }
}

fn interface(wanted: Option<&InterfaceMatch>) -> String {
    match wanted {
        Some(wanted) if wanted.inverted => format!("!{}", wanted.name),
        Some(wanted) if !wanted.is_all() => wanted.name.clone(),
        _ => "*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::family::Family;
    use crate::iptables::dialect::{Dialect, Variant};
    use crate::iptables::{Command, parse};

    fn described(words: &str) -> String {
        let dialect = Dialect { family: Family::V4, variant: Variant::Legacy, version: (1, 8, 9) };
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        match parse(Family::V4, &words, &dialect).expect("a rule").command {
            Command::Append { rules, .. } => rules[0].describe(&dialect),
            other => panic!("{other:?}"),
        }
    }

    /// Texts of iptables 1.8.9, both variants.
    #[test]
    fn it_reads_as_iptables_prints_it() {
        assert_eq!(
            described("-t raw -A PREROUTING -s 10.0.0.0/8 -j DROP"),
            "DROP  all opt -- in * out *  10.0.0.0/8  -> 0.0.0.0/0  "
        );
        assert_eq!(
            described("-t raw -A PREROUTING ! -s 10.0.0.0/8 ! -d 1.2.3.4 ! -i eth0 -p tcp --dport 80 -j ACCEPT"),
            "ACCEPT  tcp opt -- in !eth0 out * !10.0.0.0/8 !-> 1.2.3.4   tcp dpt:80"
        );
        assert_eq!(described("-t raw -A PREROUTING ! -f -j U"), "U  all opt !f in * out *  0.0.0.0/0  -> 0.0.0.0/0  ");
        assert_eq!(
            described("-t raw -A PREROUTING -d 1.1.1.1 -g U"),
            "U  all opt -- in * out *  0.0.0.0/0  -> 1.1.1.1  [goto] "
        );
    }
}
