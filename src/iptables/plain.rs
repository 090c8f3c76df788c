//! Kept texts of rules that every iptables saves in just these words, so that nobody has to read them first: nearly all
//! that people and programs write. Whatever is not known to be so is left to those who read.

#![forbid(unsafe_code)]

/// What iptables saves of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved<'a> {
    /// All of it.
    Whole(&'a str),
    /// It ends with this option and the name of a chain.
    Calls {
        /// What stands before.
        spec: &'a str,
        /// ` -j ` or ` -g `.
        option: &'static str,
    },
}

/// Matches and targets whose options have one spelling whoever saves them.
const OF_ONE_FORM: &[&str] = &[
    "addrtype",
    "conntrack",
    "length",
    "limit",
    "mark",
    "multiport",
    "pkttype",
    "state",
    "statistic",
    "MASQUERADE",
    "MARK",
    "NOTRACK",
    "REJECT",
    "REDIRECT",
    "SNAT",
    "DNAT",
];

/// The kept text (see [`super::Rule::spec`]) of a rule in the words of its save form. `None`: it takes reading.
pub fn saved(kept: &str) -> Option<Saved<'_>> {
    let (option, spec) = match kept.split_once(' ').unwrap_or((kept, "")) {
        ("jump", rest) => (Some(" -j "), rest),
        ("goto", rest) => (Some(" -g "), rest),
        _ => (None, kept),
    };
    let mut words = spec.split(' ').filter(|word| !word.is_empty());
    let mut ends = false;
    while let Some(word) = words.next() {
        let word = if word == "!" { words.next()? } else { word };
        let holds = match word {
            "-s" | "-d" => words.next().is_some(),
            "-i" | "-o" => is_plain_interface(words.next()?),
            "-p" => matches!(words.next()?, "tcp" | "udp" | "icmp"),
            "-m" => match words.next()? {
                "tcp" | "udp" => is_one_port(&mut words)?,
                "comment" => words.next()? == "--comment" && !words.next()?.starts_with('"'),
                name => is_of_one_form(name, &mut words),
            },
            "-j" => {
                ends = true;
                match words.next()? {
                    "ACCEPT" | "DROP" | "RETURN" => true,
                    name => is_of_one_form(name, &mut words),
                }
            }
            _ => false,
        };
        if !holds {
            return None;
        }
    }
    match option {
        Some(option) => (!ends).then_some(Saved::Calls { spec, option }),
        None => ends.then_some(Saved::Whole(spec)),
    }
}

/// `+` alone is shown by some and not by others, and what has to be quoted is not quoted by iptables.
fn is_plain_interface(name: &str) -> bool {
    name != "+" && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+'))
}

/// Ports that are asked for, not excluded.
fn is_one_port<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<bool> {
    let asked = matches!(words.next()?, "--dport" | "--sport");
    Some(asked && words.next()?.bytes().all(|byte| byte.is_ascii_digit() || byte == b':'))
}

/// Takes the options of such an extension.
fn is_of_one_form<'a>(name: &str, words: &mut (impl Iterator<Item = &'a str> + Clone)) -> bool {
    if !OF_ONE_FORM.contains(&name) {
        return false;
    }
    loop {
        match words.clone().next() {
            None | Some("-m" | "-j") => return true,
            Some(word) if word.contains(['"', '\\']) => return false,
            Some(_) => drop(words.next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Saved, saved};
    use crate::family::Family;
    use crate::iptables::Rule;
    use crate::iptables::dialect::{Dialect, Variant};

    #[test]
    fn what_people_and_docker_write_is_plain() {
        for (spec, jump) in [
            ("-s 10.0.0.1/32 -j ACCEPT", None),
            ("-d 172.17.0.2/32 ! -i docker0 -j DROP", None),
            ("jump", Some("DOCKER-USER")),
            ("jump -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED", Some("web")),
            ("goto ! -s 10.0.0.0/8 -i br-+", Some("web")),
            (
                "! -d 127.0.0.0/8 -p tcp -m tcp --dport 8080 -m addrtype --dst-type LOCAL -j DNAT --to-destination 172.17.0.2:80",
                None,
            ),
            (
                "-p udp -m multiport ! --dports 53,67:68 -m comment --comment names -j REJECT --reject-with icmp-port-unreachable",
                None,
            ),
        ] {
            let rule = Rule::from_spec(Family::V4, "filter", spec, jump).expect("a rule");
            let plain = match saved(spec) {
                Some(Saved::Whole(spec)) => spec.to_owned(),
                Some(Saved::Calls { spec, option }) => format!("{spec}{option}{}", jump.unwrap_or_default()),
                None => panic!("{spec}"),
            };
            for variant in [Variant::Legacy, Variant::Nft] {
                let dialect = Dialect { family: Family::V4, variant, version: (1, 8, 9) };
                assert_eq!(rule.save(&dialect), plain.trim_start(), "{spec}");
            }
        }
    }

    #[test]
    fn what_is_saved_in_several_ways_takes_reading() {
        for spec in [
            "",
            "-i + -j DROP",
            "! -i + -j DROP",
            "-p tcp -m tcp ! --dport 0:1023 -j DROP",
            "-p ipv6-icmp -j DROP",
            "-s 10.0.0.1/32",
            "-m comment --comment \"two words\" -j DROP",
            "-m comment --comment -j",
            "-m mac --mac-source 0:0:0:0:0:1 -j DROP",
            "-j LOG --log-prefix x",
            "-m icmp --icmp-type 8 -j DROP",
            "-i \"a b\" -j DROP",
        ] {
            assert_eq!(saved(spec), None, "{spec}");
        }
    }
}
