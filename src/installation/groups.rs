//! update-alternatives: Debian's groups `iptables` and `ip6tables`, or the one group `iptables` of Fedora and RHEL.

#![forbid(unsafe_code)]

use super::Step;
use super::places::Places;
use super::record::{Former, Record};
use crate::alternatives::{ADMIN, Group, LINKS, Slave};
use anyhow::bail;
use std::fs;
use std::path::{Path, PathBuf};

/// Above iptables-nft, which Debian has at 20 and Fedora at 10; below what puts itself above everything (100).
pub const PRIORITY: i32 = 30;

/// The groups that may be ours, whichever way the distribution cuts them.
const NAMES: [&str; 2] = ["iptables", "ip6tables"];

/// Where distributions keep it.
const PROGRAMS: [&str; 4] = [
    "/usr/bin/update-alternatives",
    "/usr/sbin/update-alternatives",
    "/usr/sbin/alternatives",
    "/usr/bin/alternatives",
];

/// update-alternatives as it is here.
#[derive(Clone, Debug)]
pub struct Alternatives {
    /// Absolute path.
    pub program: String,
    /// Whether it is chkconfig's, with whose iptables all programs are one group.
    pub one_group: bool,
    /// The groups that are there.
    pub groups: Vec<Group>,
    /// The names of those of which a link in the PATH is missing: Debian's iptables takes one along when it is removed.
    pub torn: Vec<String>,
}

/// What is to be done, and what a person should know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// A sentence each.
    pub notes: Vec<String>,
}

/// A group as we want it.
struct Wanted {
    name: String,
    link: PathBuf,
    path: PathBuf,
    slaves: Vec<(Slave, PathBuf)>,
}

impl Alternatives {
    /// `None`: there is none here.
    pub fn find() -> Option<Self> {
        let program = PROGRAMS.into_iter().find(|path| Path::new(path).exists())?;
        let groups: Vec<Group> = NAMES.into_iter().filter_map(Group::read).collect();
        let is_missing = |link: &PathBuf| fs::symlink_metadata(link).is_err();
        let is_torn =
            |group: &&Group| is_missing(&group.link) || group.slaves.iter().any(|slave| is_missing(&slave.link));
        Some(Self {
            torn: groups.iter().filter(is_torn).map(|group| group.name.clone()).collect(),
            program: program.to_owned(),
            one_group: !Path::new(ADMIN[0]).is_dir(),
            groups,
        })
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The group that has `name` for its first link or for one that follows.
    pub fn group_with(&self, name: &str) -> Option<&Group> {
        let follows = |group: &&Group| group.slaves.iter().any(|slave| slave.name == name);
        self.group(name).or_else(|| self.groups.iter().find(follows))
    }

    /// What is needed so that `iptables` and its like lead to us. A choice that somebody made by hand is overruled only
    /// if `overrule`; otherwise we are merely one of the choices then.
    ///
    /// # Errors
    /// Where a link should be there is a program.
    pub fn enable(&self, places: &Places, record: &Record, overrule: bool) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        let mut kept = record.clone();
        let (mut added, mut chosen) = (Vec::new(), Vec::new());
        for wanted in self.wanted(places) {
            wanted.links().try_for_each(check_link)?;
            let group = self.group(&wanted.name);
            let ours = group.is_some_and(|group| group.value.as_ref() == Some(&wanted.path));
            let registered = group.and_then(|group| group.choice(&wanted.path));
            let registered =
                registered.is_some_and(|choice| group.is_some_and(|group| wanted.is_registered(group, choice)));
            if !registered || (ours && self.torn.contains(&wanted.name)) {
                added.push(self.register(&wanted));
            }
            let others = group.map(|group| group.others(&wanted.path)).unwrap_or_default();
            let wins = others.first().is_none_or(|best| best.priority < PRIORITY);
            let automatic = group.is_none_or(|group| group.automatic);
            if ours || (automatic && wins) {
            } else if overrule {
                chosen.push(self.step(&["--set", &wanted.name, &wanted.path.to_string_lossy()]));
            } else {
                let value = group.and_then(|group| group.value.as_ref()).map(|path| path.display().to_string());
                let value = value.unwrap_or_default();
                plan.notes.push(match automatic {
                    false => format!("{} was set to {value} by hand, and stays so", wanted.name),
                    true => format!("{} stays with {value}, which has a higher priority", wanted.name),
                });
            }
            match group.and_then(|group| group.value.clone().filter(|_| !ours).map(|path| (group.automatic, path))) {
                Some((automatic, path)) => drop(kept.0.insert(wanted.name, Former { automatic, path })),
                None if group.is_none() => drop(kept.0.remove(&wanted.name)),
                None => {}
            }
        }
        let changes = !added.is_empty() || !chosen.is_empty();
        if changes && kept != *record {
            plan.steps.push(Step::Write { path: Record::path(), text: kept.render() });
        }
        plan.steps.extend(added);
        plan.steps.extend(chosen);
        Ok(plan)
    }

    /// What is needed so that all is as it was before us.
    pub fn disable(&self, places: &Places, record: &Record) -> Plan {
        let mut plan = Plan::default();
        let (mut back, mut gone) = (Vec::new(), Vec::new());
        for group in &self.groups {
            let Some(path) = places.front(&group.name) else { continue };
            let Some(choice) = group.choice(&path) else { continue };
            let former = record.0.get(&group.name);
            if group.value.as_ref() == Some(&choice.path) {
                back.extend(self.back(group, former, &mut plan.notes));
            }
            gone.push(self.step(&["--remove", &group.name, &path.to_string_lossy()]));
        }
        plan.steps.extend(back);
        plan.steps.extend(gone);
        if Record::path().exists() {
            plan.steps.push(Step::Remove(Record::path()));
        }
        plan
    }

    /// The former choice of a group that is ours now. Without ours the automatic one is the best of the others.
    fn back(&self, group: &Group, former: Option<&Former>, notes: &mut Vec<String>) -> Option<Step> {
        let auto = || (!group.automatic).then(|| self.step(&["--auto", &group.name]));
        match former {
            Some(Former { automatic: false, path }) if group.choice(path).is_some() && path.exists() => {
                Some(self.step(&["--set", &group.name, &path.to_string_lossy()]))
            }
            Some(Former { automatic: false, path }) => {
                notes.push(format!("{} was {}, which is not there any more", group.name, path.display()));
                auto()
            }
            Some(Former { automatic: true, .. }) => auto(),
            None => {
                if !group.automatic && group.choices.len() > 1 {
                    notes.push(format!("what {} was before is not known: the automatic choice is taken", group.name));
                }
                auto()
            }
        }
    }

    fn wanted(&self, places: &Places) -> Vec<Wanted> {
        let follows =
            |name: &str| self.group("iptables").map(|group| group.slaves.iter().any(|slave| slave.name == name));
        let one_group = follows("ip6tables").unwrap_or(self.one_group && self.group("ip6tables").is_none());
        let names: &[(&str, &[&str])] = match one_group {
            true => &[(
                "iptables",
                &["ip6tables", "iptables-restore", "iptables-save", "ip6tables-restore", "ip6tables-save"],
            )],
            false => &[
                ("iptables", &["iptables-restore", "iptables-save"]),
                ("ip6tables", &["ip6tables-restore", "ip6tables-save"]),
            ],
        };
        names.iter().filter_map(|(name, slaves)| self.wanted_group(places, name, slaves)).collect()
    }

    fn wanted_group(&self, places: &Places, name: &str, slaves: &[&str]) -> Option<Wanted> {
        let group = self.group(name);
        let link = group.map_or_else(|| folder().join(name), |group| group.link.clone());
        let beside = link.parent().unwrap_or(Path::new("/usr/sbin")).to_owned();
        let slave = |name: &&str| {
            let known = group.and_then(|group| group.slaves.iter().find(|slave| slave.name == **name));
            let slave = known.cloned();
            let slave = slave.unwrap_or_else(|| Slave { name: (*name).to_owned(), link: beside.join(name) });
            Some((slave, places.front(name)?))
        };
        let slaves = slaves.iter().filter_map(slave).collect();
        Some(Wanted { name: name.to_owned(), path: places.front(name)?, slaves, link })
    }

    fn register(&self, wanted: &Wanted) -> Step {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut words = vec![self.program.clone(), "--install".to_owned(), text(&wanted.link), wanted.name.clone()];
        words.extend([text(&wanted.path), PRIORITY.to_string()]);
        for (slave, path) in &wanted.slaves {
            words.extend(["--slave".to_owned(), text(&slave.link), slave.name.clone(), text(path)]);
        }
        Step::Run(words)
    }

    fn step(&self, words: &[&str]) -> Step {
        let program = std::iter::once(self.program.as_str());
        Step::run(&program.chain(words.iter().copied()).collect::<Vec<_>>())
    }
}

impl Wanted {
    fn links(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.link.as_path()).chain(self.slaves.iter().map(|(slave, _)| slave.link.as_path()))
    }

    fn is_registered(&self, group: &Group, choice: &crate::alternatives::Choice) -> bool {
        let target = |name: &str| {
            let at = group.slaves.iter().position(|slave| slave.name == name)?;
            choice.slaves.get(at)?.as_deref()
        };
        choice.priority == PRIORITY && self.slaves.iter().all(|(slave, path)| target(&slave.name) == Some(path))
    }
}

/// Where the links are made if nobody has made them: where iptables is, as a rule.
fn folder() -> PathBuf {
    // On Fedora since 42 /usr/sbin is a link to /usr/bin, and update-alternatives wants the real place.
    fs::canonicalize("/usr/sbin").unwrap_or_else(|_| PathBuf::from("/usr/sbin"))
}

/// update-alternatives does not replace what is no link, and reports success all the same.
fn check_link(link: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(link) {
        Ok(meta) if !meta.is_symlink() => {
            bail!(
                "{} is a program and no link of update-alternatives; `--scope docker' leaves it alone",
                link.display()
            )
        }
        Ok(_) => {
            let target = fs::read_link(link)?;
            match target.starts_with(LINKS) {
                true => Ok(()),
                false => bail!(
                    "{} leads to {} and not to {LINKS}, as update-alternatives would have it; \
                     `--scope docker' leaves it alone",
                    link.display(),
                    target.display()
                ),
            }
        }
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "auto\n/nowhere/iptables\niptables-restore\n/nowhere/iptables-restore\niptables-save\n\
        /nowhere/iptables-save\n\n/bin/sh\n10\n/bin/sh\n/bin/sh\n/usr/sbin/iptables-nft\n20\n\
        /usr/sbin/iptables-nft-restore\n/usr/sbin/iptables-nft-save\n\n";

    const OURS: &str = "/x/iptables-xtshim\n30\n/x/iptables-xtshim-restore\n/x/iptables-xtshim-save\n\n";

    /// One group, with ours among its choices or not, and what it leads to.
    fn machine(mode: &str, value: &str, registered: bool) -> Alternatives {
        let mut text = DEBIAN.replacen("auto", mode, 1);
        if registered {
            text = format!("{}{OURS}", text.trim_end_matches("\n\n").to_owned() + "\n");
        }
        let parse = |name: &str, text: &str| {
            let value = Some(PathBuf::from(value.replace("iptables", name)));
            Group { value, ..Group::parse(name, text).expect("a group") }
        };
        let groups = vec![parse("iptables", &text)];
        Alternatives { program: "ua".to_owned(), one_group: false, groups, torn: Vec::new() }
    }

    fn places() -> Places {
        Places { programs: "/x".into(), private: "/y".into() }
    }

    fn said(plan: &Plan) -> Vec<String> {
        let words = |step: &Step| step.to_string().replace("/x/", "").replace("/nowhere/", "");
        plan.steps.iter().map(words).filter(|line| !line.contains("ip6tables")).collect()
    }

    #[test]
    fn where_the_choice_is_automatic_priority_decides() {
        let plan = machine("auto", "/usr/sbin/iptables-nft", false).enable(&places(), &Record::default(), false);
        let plan = plan.expect("a plan");
        assert_eq!(
            said(&plan),
            [
                "write /var/lib/xtshim/previous\n    iptables auto /usr/sbin/iptables-nft",
                "ua --install iptables iptables iptables-xtshim 30 --slave iptables-restore iptables-restore \
                 iptables-xtshim-restore --slave iptables-save iptables-save iptables-xtshim-save",
            ]
        );
        assert!(plan.notes.is_empty());
    }

    #[test]
    fn what_was_chosen_by_hand_is_overruled_only_if_asked_for() {
        let machine = machine("manual", "/bin/sh", true);
        let plan = machine.enable(&places(), &Record::default(), false).expect("a plan");
        assert!(said(&plan).iter().all(|step| step.starts_with("write ")), "{plan:?}");
        assert_eq!(plan.notes, ["iptables was set to /bin/sh by hand, and stays so"]);
        let plan = machine.enable(&places(), &Record::default(), true).expect("a plan");
        let steps = said(&plan);
        assert_eq!(steps[0], "write /var/lib/xtshim/previous\n    iptables manual /bin/sh");
        assert_eq!(steps[1], "ua --set iptables iptables-xtshim");
    }

    #[test]
    fn what_is_done_is_not_done_again() {
        for mode in ["auto", "manual"] {
            let machine = machine(mode, "/x/iptables-xtshim", true);
            let plan = machine.enable(&places(), &Record::default(), true).expect("a plan");
            assert_eq!(said(&plan), Vec::<String>::new());
        }
    }

    #[test]
    fn a_link_that_is_missing_is_made_again() {
        let torn = vec!["iptables".to_owned()];
        let machine = Alternatives { torn, ..machine("auto", "/x/iptables-xtshim", true) };
        let plan = machine.enable(&places(), &Record::default(), false).expect("a plan");
        assert!(said(&plan)[0].starts_with("ua --install iptables iptables iptables-xtshim 30 "), "{plan:?}");
    }

    #[test]
    fn the_former_choice_comes_back() {
        let back = |mode: &str, value: &str, record: &str| {
            said(&machine(mode, value, true).disable(&places(), &Record::parse(record)))
        };
        let (ours, remove) = ("/x/iptables-xtshim", "ua --remove iptables iptables-xtshim");
        assert_eq!(back("manual", ours, "iptables manual /bin/sh"), ["ua --set iptables /bin/sh", remove]);
        assert_eq!(back("auto", ours, "iptables manual /bin/sh"), ["ua --set iptables /bin/sh", remove]);
        assert_eq!(back("manual", ours, "iptables auto /bin/sh"), ["ua --auto iptables", remove]);
        assert_eq!(back("manual", ours, "iptables manual /gone"), ["ua --auto iptables", remove]);
        assert_eq!(back("manual", ours, ""), ["ua --auto iptables", remove]);
        assert_eq!(back("auto", ours, ""), [remove]);
        assert_eq!(back("manual", "/bin/sh", "iptables auto /usr/sbin/iptables-nft"), [remove]);
    }

    #[test]
    fn one_group_has_all_programs() {
        let text = "auto\n/nowhere/iptables\nip6tables\n/nowhere/ip6tables\n\n/usr/sbin/iptables-nft\n10\n\
            /usr/sbin/ip6tables-nft\n";
        let group = Group::parse("iptables", text).expect("a group");
        let machine = Alternatives { program: "ua".to_owned(), one_group: true, groups: vec![group], torn: Vec::new() };
        let plan = machine.enable(&places(), &Record::default(), false).expect("a plan");
        let Some(Step::Run(words)) = plan.steps.last() else { panic!("{plan:?}") };
        let slaves = words.iter().filter(|word| *word == "--slave").count();
        assert_eq!((plan.steps.len(), slaves), (1, 5));
        assert!(words.contains(&"/x/ip6tables-xtshim-save".to_owned()));
    }
}
