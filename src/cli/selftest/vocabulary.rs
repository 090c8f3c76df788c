//! Everything that Docker says to a table, each answer checked, and all of it taken back.

use super::fronts::{Answer, Fronts};
use super::{Report, Status};
use crate::carrier::nft::table_name;
use crate::family::Family;
use crate::nft::Connection;
use crate::plan::{self, Plan};
use crate::probe;
use crate::rules::{self, Saying};
use crate::sys::netns::Namespace;
use std::io;

/// Whether Docker would use iptables for this family at all. For IPv6 it asks first, and does without on a refusal.
pub fn docker_uses(family: Family, fronts: &Fronts, inside: &Namespace, report: &mut Report<'_>) -> io::Result<bool> {
    if family == Family::V4 {
        return Ok(true);
    }
    let answer = fronts.say(inside, family, "filter", &words(&["-n", "-L", "FORWARD"]));
    if answer.code == Some(0) {
        return Ok(true);
    }
    report.line(Status::Absent, family, "no filter table: Docker's networks will have no IPv6 firewall")?;
    report.detail(&answer.describe())?;
    Ok(false)
}

/// Says to one table all that Docker says to it, and takes it back.
pub fn play(
    family: Family,
    table: &str,
    fronts: &Fronts,
    inside: &Namespace,
    report: &mut Report<'_>,
) -> io::Result<()> {
    let sayings = rules::docker().says(family, table);
    if sayings.is_empty() {
        return Ok(());
    }
    let needed = sayings.iter().any(|saying| saying.required);
    let scene = Scene { family, table, fronts, inside };
    let before = match scene.list() {
        Ok(before) => before,
        Err(refused) => {
            report.line(worst(needed), family, &format!("{table:7} is not there"))?;
            return report.detail(&refused.describe());
        }
    };
    let accepted = scene.say_all(&sayings, report)?;
    let by = scene.carried_by();
    let listed = scene.check_listings(&before, &accepted);
    let removed = listed.and_then(|()| scene.take_back(&accepted, &before));
    match removed {
        Ok(()) => report.line(Status::Works, family, &format!("{table:7} lists, saves and removes what was added{by}")),
        Err(problem) => {
            report.line(worst(needed), family, &format!("{table:7} {}", problem.text))?;
            problem.answer.map_or(Ok(()), |answer| report.detail(&answer.describe()))
        }
    }
}

fn worst(needed: bool) -> Status {
    if needed { Status::Fails } else { Status::Absent }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What is wrong, and with which answer.
struct Problem {
    text: String,
    answer: Option<Answer>,
}

impl Problem {
    fn new(text: &str, answer: &Answer) -> Self {
        Self { text: text.to_owned(), answer: Some(answer.clone()) }
    }
}

/// One table, and how to speak to it.
struct Scene<'a> {
    family: Family,
    table: &'a str,
    fronts: &'a Fronts,
    inside: &'a Namespace,
}

impl Scene<'_> {
    fn say(&self, args: &[String]) -> Answer {
        self.fronts.say(self.inside, self.family, self.table, args)
    }

    /// What holds the rules, where it is not the real iptables' own table.
    fn carried_by(&self) -> String {
        let ours = table_name(self.table);
        let found = self.inside.run(|| Connection::open()?.table(self.family, &ours)).flatten();
        if found.is_ok_and(|table| table.is_some()) {
            return ", carried by xtshim in nf_tables".to_owned();
        }
        let probe::Standing { config, snapshot, .. } = probe::standing();
        match plan::plan(self.family, self.table, &config, &snapshot, false) {
            Plan::Hosted { by, .. } => format!(", carried by xtshim in the {} table", by.as_str()),
            _ => String::new(),
        }
    }

    /// The lines of `-S`.
    fn list(&self) -> Result<Vec<String>, Answer> {
        let answer = self.say(&words(&["-S"]));
        if answer.code != Some(0) || !answer.stderr.is_empty() {
            return Err(answer);
        }
        Ok(answer.stdout.lines().map(str::to_owned).collect())
    }

    /// Says everything, prints a line for each part of Docker, and gives what was accepted.
    fn say_all<'s>(&self, sayings: &'s [Saying], report: &mut Report<'_>) -> io::Result<Vec<&'s Saying>> {
        let mut accepted = Vec::new();
        let mut problems: Vec<(&Saying, Problem)> = Vec::new();
        for saying in sayings {
            match self.add(&saying.args) {
                Ok(()) => accepted.push(saying),
                Err(problem) => problems.push((saying, problem)),
            }
        }
        let mut parts: Vec<&str> = sayings.iter().map(|saying| saying.part.as_str()).collect();
        parts.dedup();
        let mut told: Vec<&str> = Vec::new();
        for part in parts {
            if !told.contains(&part) {
                told.push(part);
                self.tell_part(part, sayings, &problems, report)?;
            }
        }
        Ok(accepted)
    }

    fn tell_part(
        &self,
        part: &str,
        sayings: &[Saying],
        problems: &[(&Saying, Problem)],
        report: &mut Report<'_>,
    ) -> io::Result<()> {
        let what = rules::docker().part(part).map_or(part, |part| part.what.as_str());
        let said = sayings.iter().filter(|saying| saying.part == part).count();
        let of_part: Vec<_> = problems.iter().filter(|(saying, _)| saying.part == part).collect();
        let Some((saying, problem)) = of_part.first() else {
            let text = format!("{:7} {what} ({said} said)", self.table);
            return report.line(Status::Works, self.family, &text);
        };
        let text = format!("{:7} {what}: {} ({} of {said})", self.table, problem.text, of_part.len());
        report.line(worst(saying.required), self.family, &text)?;
        problem.answer.as_ref().map_or(Ok(()), |answer| report.detail(&answer.describe()))
    }

    /// Adds as Docker does: asks first, adds, and finds it again at its next start.
    fn add(&self, args: &[String]) -> Result<(), Problem> {
        let check = checking(args, "-C");
        if let Some(check) = &check {
            let absent = self.say(check);
            if absent.code == Some(0) {
                return Err(Problem::new("said to be there before it was added", &absent));
            }
        }
        let added = self.say(args);
        let answers = verb(args) == "-n";
        let taken = if answers { added.code == Some(0) && added.stderr.is_empty() } else { added.is_silent_success() };
        if !taken {
            return Err(Problem::new("not taken", &added));
        }
        if let Some(check) = &check {
            let found = self.say(check);
            if !found.is_silent_success() {
                return Err(Problem::new("not found again", &found));
            }
        }
        Ok(())
    }

    /// `-S` has a line more for each rule and chain, and iptables-save has the same rules.
    fn check_listings(&self, before: &[String], accepted: &[&Saying]) -> Result<(), Problem> {
        let listed = self.list().map_err(|answer| Problem::new("cannot be listed", &answer))?;
        let added = accepted.iter().filter(|saying| matches!(verb(&saying.args), "-A" | "-I" | "-N")).count();
        if listed.len() != before.len() + added {
            let text = format!("lists {} lines, not the {} it had and {added} more", listed.len(), before.len());
            return Err(Problem { text, answer: None });
        }
        let save = format!("{}-save", self.family.program());
        let saved = self.fronts.call(self.inside, &save, &words(&["-t", self.table]));
        if saved.code != Some(0) || !saved.stderr.is_empty() {
            return Err(Problem::new("cannot be saved", &saved));
        }
        let rules = |lines: &mut dyn Iterator<Item = &str>| {
            let mut rules: Vec<String> = lines.filter(|line| line.starts_with("-A ")).map(str::to_owned).collect();
            rules.sort();
            rules
        };
        if rules(&mut listed.iter().map(String::as_str)) != rules(&mut saved.stdout.lines()) {
            return Err(Problem::new("saves other rules than it lists", &saved));
        }
        Ok(())
    }

    /// Removes everything, last first, until the table is as it was.
    fn take_back(&self, accepted: &[&Saying], before: &[String]) -> Result<(), Problem> {
        for saying in accepted.iter().rev() {
            let Some(args) = undoing(&saying.args) else { continue };
            let removed = self.say(&args);
            if !removed.is_silent_success() {
                return Err(Problem::new("not removed", &removed));
            }
        }
        let after = self.list().map_err(|answer| Problem::new("cannot be listed", &answer))?;
        if after != before {
            let left = after.iter().filter(|line| !before.contains(line)).cloned().collect::<Vec<_>>();
            return Err(Problem { text: format!("is not as it was; left: {}", left.join("; ")), answer: None });
        }
        Ok(())
    }
}

/// The first argument: `-A`, `-N`, …; `-n` of a query.
fn verb(args: &[String]) -> &str {
    args.first().map_or("", String::as_str)
}

/// The same rule with another command (`-C`, `-D`), if the command is about a rule.
pub fn checking(args: &[String], command: &str) -> Option<Vec<String>> {
    matches!(verb(args), "-A" | "-I").then(|| with_verb(args, command))
}

/// What takes a command back.
fn undoing(args: &[String]) -> Option<Vec<String>> {
    match verb(args) {
        "-A" | "-I" => Some(with_verb(args, "-D")),
        "-N" => Some(with_verb(args, "-X")),
        // In a new network namespace every policy was ACCEPT.
        "-P" => Some(words(&["-P", args.get(1)?, "ACCEPT"])),
        _ => None,
    }
}

fn with_verb(args: &[String], verb: &str) -> Vec<String> {
    std::iter::once(verb.to_owned()).chain(args.iter().skip(1).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_that_docker_makes_can_be_taken_back() {
        for family in Family::ALL {
            for table in rules::tables() {
                for saying in rules::docker().says(family, &table.name) {
                    assert!(undoing(&saying.args).is_some() || verb(&saying.args) == "-n", "{:?}", saying.args);
                }
            }
        }
        assert_eq!(undoing(&words(&["-I", "X", "-j", "Y"])), Some(words(&["-D", "X", "-j", "Y"])));
        assert_eq!(undoing(&words(&["-P", "FORWARD", "DROP"])), Some(words(&["-P", "FORWARD", "ACCEPT"])));
        assert_eq!(checking(&words(&["-N", "X"]), "-C"), None);
    }
}
