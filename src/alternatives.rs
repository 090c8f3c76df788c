//! What update-alternatives keeps: Debian's, and the `alternatives` of chkconfig, which Fedora and RHEL have. Both keep a
//! group in a file of the same form, and its links in the same place.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// Where the links lie that the links in the PATH lead to.
pub const LINKS: &str = "/etc/alternatives";

/// Where the groups are kept: Debian's, chkconfig's, and chkconfig's on machines whose /var is made anew.
pub const ADMIN: [&str; 3] = ["/var/lib/dpkg/alternatives", "/var/lib/alternatives", "/etc/alternatives.admindir"];

/// A group: one link in the PATH, those that follow it, and what they may lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name, which is that of its first link.
    pub name: String,
    /// Whether the choice of the highest priority is taken.
    pub automatic: bool,
    /// The link in the PATH.
    pub link: PathBuf,
    /// The links that follow it, in the order of their names.
    pub slaves: Vec<Slave>,
    /// What it may lead to.
    pub choices: Vec<Choice>,
    /// What it leads to.
    pub value: Option<PathBuf>,
}

/// A link that follows another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slave {
    /// Its name.
    pub name: String,
    /// The link in the PATH.
    pub link: PathBuf,
}

/// One of the things that a group may lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the first link then leads.
    pub path: PathBuf,
    /// The highest wins in a group that is automatic.
    pub priority: i32,
    /// Where the links then lead that follow, in the order of [`Group::slaves`]; `None`: they are not there then.
    pub slaves: Vec<Option<PathBuf>>,
}

impl Group {
    /// As things are now. `None`: there is no such group, or no update-alternatives.
    pub fn read(name: &str) -> Option<Self> {
        Self::read_below(Path::new("/"), name)
    }

    /// The same on a machine whose files lie below `root`.
    pub fn read_below(root: &Path, name: &str) -> Option<Self> {
        let below = |path: &str| root.join(path.trim_start_matches('/'));
        let text = ADMIN.iter().find_map(|folder| fs::read_to_string(below(folder).join(name)).ok())?;
        let value = fs::read_link(below(LINKS).join(name)).ok();
        Some(Self { value, ..Self::parse(name, &text)? })
    }

    /// Reads the file of a group: its mode, its link, pairs of a slave's name and link up to an empty line; then for each
    /// choice its path, its priority and a line for each slave, up to an empty line or the end.
    pub fn parse(name: &str, text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let automatic = match lines.next()? {
            "auto" => true,
            "manual" => false,
            _ => return None,
        };
        let link = PathBuf::from(lines.next()?);
        let mut slaves = Vec::new();
        while let Some(name) = lines.next().filter(|line| !line.is_empty()) {
            slaves.push(Slave { name: name.to_owned(), link: PathBuf::from(lines.next()?) });
        }
        let mut choices = Vec::new();
        while let Some(path) = lines.next().filter(|line| !line.is_empty()) {
            let priority = priority(lines.next()?)?;
            let targets = lines.by_ref().take(slaves.len());
            let slaves = targets.map(|line| (!line.is_empty()).then(|| PathBuf::from(line))).collect();
            choices.push(Choice { path: PathBuf::from(path), priority, slaves });
        }
        Some(Self { name: name.to_owned(), automatic, link, slaves, choices, value: None })
    }

    /// The choice of that path.
    pub fn choice(&self, path: &Path) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.path == path)
    }

    /// The choices without `path`, the one that would be taken first.
    pub fn others(&self, path: &Path) -> Vec<&Choice> {
        let mut others: Vec<&Choice> = self.choices.iter().filter(|choice| choice.path != path).collect();
        others.sort_by_key(|choice| std::cmp::Reverse(choice.priority));
        others
    }
}

/// `30`; chkconfig may put a family in front (`@name@30`) and an init script behind.
fn priority(line: &str) -> Option<i32> {
    let number = line.strip_prefix('@').and_then(|line| line.split_once('@')).map_or(line, |(_, number)| number);
    number.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "auto\n/usr/sbin/iptables\niptables-restore\n/usr/sbin/iptables-restore\niptables-save\n\
        /usr/sbin/iptables-save\n\n/usr/sbin/iptables-legacy\n10\n/usr/sbin/iptables-legacy-restore\n\
        /usr/sbin/iptables-legacy-save\n/usr/sbin/iptables-nft\n20\n/usr/sbin/iptables-nft-restore\n\
        /usr/sbin/iptables-nft-save\n\n";

    #[test]
    fn the_state_of_a_group_is_read() {
        let group = Group::parse("iptables", DEBIAN).expect("a group");
        assert!(group.automatic);
        assert_eq!(group.link, Path::new("/usr/sbin/iptables"));
        let slaves: Vec<&str> = group.slaves.iter().map(|slave| slave.name.as_str()).collect();
        assert_eq!(slaves, ["iptables-restore", "iptables-save"]);
        let legacy = group.choice(Path::new("/usr/sbin/iptables-legacy")).expect("a choice");
        assert_eq!(legacy.priority, 10);
        assert_eq!(legacy.slaves[1].as_deref(), Some(Path::new("/usr/sbin/iptables-legacy-save")));
        assert_eq!(group.others(Path::new("/nowhere"))[0].path, Path::new("/usr/sbin/iptables-nft"));
        assert!(!Group::parse("iptables", &DEBIAN.replacen("auto", "manual", 1)).expect("a group").automatic);
        assert_eq!(Group::parse("iptables", ""), None);
    }

    #[test]
    fn a_slave_may_be_missing() {
        let text = DEBIAN.replacen("/usr/sbin/iptables-legacy-restore", "", 1);
        let group = Group::parse("iptables", &text).expect("a group");
        assert_eq!(group.choices.len(), 2);
        assert_eq!(group.choices[0].slaves[0], None);
        assert_eq!(group.choices[1].path, Path::new("/usr/sbin/iptables-nft"));
    }

    #[test]
    fn a_family_and_an_init_script_may_stand_beside_the_priority() {
        let text = "manual\n/usr/sbin/iptables\n\n/usr/sbin/iptables-nft\n@nft@10 iptables.service\n";
        let group = Group::parse("iptables", text).expect("a group");
        assert_eq!((group.automatic, group.choices[0].priority), (false, 10));
    }
}
