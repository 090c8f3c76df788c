//! Making ours what the real iptables holds of a table, so that there is no moment without its rules.
//!
//! From iptables-nft all of it is one transaction. From iptables-legacy ours comes first, with a mark, and the mark goes
//! when the other is empty: whoever finds it knows that both may hold the rules.

#![forbid(unsafe_code)]

use super::change::{self, Change};
use super::nft::{NftCarrier, line, unavailable};
use super::table::{Session, Table};
use super::{Section, change::unwritable};
use crate::error::{Error, Refusal};
use crate::family::Family;
use crate::iptables::restore::{self, Line};
use crate::nft::{self, Batch, CommitError, Connection, Hook, Policy, RawExpr, text, text::Told};
use std::collections::BTreeMap;
use std::io;

/// A chain that is called by nothing: the table it stands in has been taken over, but not yet been emptied where it was.
/// No chain of the user's can have so long a name (XT_EXTENSION_MAXNAMELEN, linux/netfilter/x_tables.h).
pub const MARK: &str = "xtshim-takeover-is-not-finished";

/// Beside [`MARK`]: the emptying may have happened, so ours is the table, and what the other holds may be new.
pub const EMPTYING: &str = "xtshim-takeover-empties-the-other";

/// Beside [`MARK`]: the backend, which held nothing, is being given what ours holds.
pub const HANDING: &str = "xtshim-hand-back-is-not-finished";

/// Chains that are no part of the table.
pub const MARKS: [&str; 3] = [MARK, EMPTYING, HANDING];

/// How often a mark is looked for again because the ruleset was changed meanwhile.
const ATTEMPTS: usize = 200;

/// A table as iptables-save prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    lines: Vec<String>,
}

/// What was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What was sent to the kernel.
    pub told: Told,
    /// How many rules.
    pub rules: usize,
}

impl Saved {
    /// `table` in a file of iptables-save's; `None` where it is not in it, or not whole.
    pub fn find(file: &str, table: &str) -> Option<Self> {
        let mut lines = file.split('\n').skip_while(|line| line.strip_prefix('*') != Some(table)).skip(1);
        let mut found = Vec::new();
        loop {
            match lines.next()? {
                "COMMIT" => return Some(Self { lines: found }),
                line => found.push(line.to_owned()),
            }
        }
    }

    /// How many rules it holds.
    pub fn rules(&self) -> usize {
        self.lines.iter().filter(|line| line.starts_with('[') || line.starts_with("-A ")).count()
    }

    /// The first line that is not what it seems: what is printed of a text with a newline in it goes on in the next.
    pub fn torn(&self) -> Option<&str> {
        let whole = |line: &str| match restore::read_line(line) {
            Line::Chain { .. } => true,
            // What stands open is closed by the reader, with the newline in it.
            Line::Command { counters: Some(_), args } => {
                args.first().is_some_and(|word| word == "-A") && !args.iter().any(|word| word.contains('\n'))
            }
            _ => false,
        };
        self.lines.iter().map(String::as_str).find(|line| !whole(line))
    }

    /// How many entries iptables-legacy's kernel has for it: a rule is one, a chain of the kernel's own ends in its
    /// policy, a user's has a head and an end, and so has the table.
    pub fn entries(&self) -> usize {
        let (users, own): (Vec<&str>, Vec<&str>) = self
            .lines
            .iter()
            .filter(|line| line.starts_with(':'))
            .map(String::as_str)
            .partition(|line| line.split(' ').nth(1) == Some("-"));
        self.rules() + own.len() + 2 * users.len() + 1
    }

    /// A file of it.
    pub fn file(&self, table: &str) -> String {
        format!("*{table}\n{}\nCOMMIT\n", self.lines.join("\n"))
    }

    /// Whether it is the same but for counters.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let bare = |line: &String| match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((_, rule)) => rule.to_owned(),
            None => line.split(" [").next().unwrap_or_default().to_owned(),
        };
        self.lines.iter().map(bare).eq(other.lines.iter().map(bare))
    }

    /// A file that leaves nothing of it but chains of the kernel's own, with policy ACCEPT.
    pub fn emptied(&self, table: &str) -> String {
        let builtin = |line: &&String| line.split(' ').nth(1).is_some_and(|policy| policy != "-");
        let chains = self.lines.iter().filter(|line| line.starts_with(':')).filter(builtin);
        let names = chains.filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let declared: String = names.map(|name| format!(":{name} ACCEPT [0:0]\n")).collect();
        format!("*{table}\n{declared}COMMIT\n")
    }
}

/// All that the kernel does with a table, counters left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    flags: u32,
    chains: BTreeMap<String, PicturedChain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PicturedChain {
    hook: Option<Hook>,
    policy: Option<Policy>,
    rules: Vec<Vec<RawExpr>>,
}

impl Picture {
    /// What the calling thread's network namespace holds.
    ///
    /// # Errors
    /// As [`Connection::tables`].
    pub fn read(family: Family, table: &str) -> io::Result<Self> {
        Self::of(&mut Connection::open()?, family, table)
    }

    fn of(connection: &mut Connection, family: Family, table: &str) -> io::Result<Self> {
        let flags = connection.table(family, table)?.map_or(0, |table| table.flags);
        let chains = connection.chains(family, table)?.into_iter().map(|chain| {
            let pictured = PicturedChain { hook: chain.hook, policy: chain.policy, rules: Vec::new() };
            (chain.name, pictured)
        });
        let mut chains: BTreeMap<String, PicturedChain> = chains.collect();
        for rule in connection.rules(family, table, None)? {
            let mut expressions = rule.expressions;
            for counter in expressions.iter_mut().filter(|expression| expression.name == "counter") {
                counter.data.clear();
            }
            if let Some(chain) = chains.get_mut(&*rule.chain) {
                chain.rules.push(expressions);
            }
        }
        Ok(Self { flags, chains })
    }

    /// In one clause, what it has that is otherwise in `shown`, or not there.
    fn hidden_from(&self, shown: &Self) -> Option<String> {
        if self.flags != shown.flags {
            return Some("the table has flags that iptables-nft does not show".to_owned());
        }
        for (name, chain) in &self.chains {
            match shown.chains.get(name) {
                Some(same) if same == chain => {}
                Some(other) if other.rules.len() != chain.rules.len() => {
                    let (seen, all) = (other.rules.len(), chain.rules.len());
                    return Some(format!("iptables-nft shows {seen} of the {all} rules in chain {name}"));
                }
                _ => return Some(format!("chain {name} is not what iptables-nft shows of it")),
            }
        }
        // A chain of the kernel's own that does nothing is made wherever it is named.
        let idle = |chain: &PicturedChain| chain.policy == Some(Policy::Accept) && chain.rules.is_empty();
        let more = shown.chains.iter().find(|(name, chain)| !self.chains.contains_key(*name) && !idle(chain));
        more.map(|(name, _)| format!("iptables-nft shows a chain {name} that is not there"))
    }
}

impl NftCarrier {
    /// Whether our table bears [`MARK`], which stands beside every other.
    pub fn is_unfinished(&mut self) -> Result<bool, Error> {
        self.bears(MARK)
    }

    /// Whether our table bears that mark.
    pub fn bears(&mut self, mark: &str) -> Result<bool, Error> {
        let asked = self.connection.chain(self.family, &self.name, mark);
        asked.map(|chain| chain.is_some()).map_err(|error| unavailable(&error))
    }

    /// Marks our table with it and with [`MARK`].
    pub fn set_mark(&mut self, mark: &str) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.ensure_chain(self.at(), MARK);
        batch.ensure_chain(self.at(), mark);
        self.send(batch, None).map(drop)
    }

    /// Whether the backend's table is what its program makes of what it shows.
    ///
    /// # Errors
    /// What is hidden.
    pub fn compare(&mut self, shown: &Picture) -> Result<(), Error> {
        let held = Picture::of(&mut self.connection, self.family, &self.table).map_err(|error| unavailable(&error))?;
        match held.hidden_from(shown) {
            Some(why) => Err(Refusal::new("the table", why).into()),
            None => Ok(()),
        }
    }

    /// Empties iptables-nft's table if the ruleset's generation is still that one.
    pub fn empty_theirs(&mut self, generation: u32) -> Result<bool, Error> {
        let mut batch = Batch::new();
        self.emptying(&mut batch)?;
        match self.connection.commit(batch, Some(generation)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_race() => Ok(false),
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn emptying(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let theirs = nft::Table { family: self.family, name: &self.table };
        let chains = self.connection.chains(self.family, &self.table).map_err(|error| unavailable(&error))?;
        batch.flush_table(theirs);
        for chain in &chains {
            match chain.hook {
                None => batch.delete_chain(theirs, &chain.name),
                Some(_) if chain.policy == Some(Policy::Drop) => {
                    batch.set_policy(theirs, &chain.name, Policy::Accept, None);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether all of it could be carried; nothing is changed.
    ///
    /// # Errors
    /// What stands against it.
    pub fn could_take(&mut self, saved: &Saved) -> Result<(), Error> {
        let before = self.read()?;
        self.difference(&before, saved).map(drop)
    }

    /// Whether ours is the same, apart from counters.
    pub fn equals(&mut self, saved: &Saved) -> Result<bool, Error> {
        let ours = self.read()?;
        Ok(ours.reads_as(&self.taken(&ours, saved)?))
    }

    /// Takes a table over from iptables-nft, which was read when the ruleset's generation was `generation`, and empties it
    /// there, in one transaction. `shown`: what its program makes of `saved`. `None`: the ruleset is another by now.
    pub fn take_from_nft(&mut self, saved: &Saved, shown: &Picture, generation: u32) -> Result<Option<Taken>, Error> {
        let before = self.read()?;
        if before.exists {
            // Somebody else was faster; what the backend holds now is no business of ours.
            return Ok(Some(Taken::default()));
        }
        let Change { mut batch, mut told, .. } = self.difference(&before, saved)?;
        let compared = self.compare(shown);
        self.emptying(&mut batch)?;
        // What nft cannot write of another's table is no reason to leave it there.
        let mut emptying = Batch::new();
        self.emptying(&mut emptying)?;
        told.lines.extend(text::commands(&emptying).unwrap_or_default());
        if self.generation()? != generation {
            return Ok(None);
        }
        compared?;
        match self.connection.commit(batch, Some(generation)) {
            Ok(()) => Ok(Some(Taken { told, rules: saved.rules() })),
            Err(error) if error.is_race() => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    /// Makes ours what `saved` is, marks it as taken over, and reads it back. The rules are in force twice then. `None`:
    /// the ruleset has changed meanwhile.
    ///
    /// # Errors
    /// What stands against it; ours is as it was then.
    pub fn take_beside(&mut self, saved: &Saved) -> Result<Option<Taken>, Error> {
        let generation = self.generation()?;
        let before = self.read()?;
        let wanted = self.taken(&before, saved)?;
        let mut taken = Taken { told: Told::default(), rules: saved.rules() };
        if !before.reads_as(&wanted) {
            let Change { mut batch, told, .. } = change::between(&self.place(), &before, wanted.clone())?;
            batch.ensure_chain(self.at(), MARK);
            taken.told = told;
            match self.connection.commit(batch, Some(generation)) {
                Ok(()) => {}
                Err(error) if error.is_race() => return Ok(None),
                Err(error) => return Err(refused(&error)),
            }
        }
        if self.read()?.reads_as(&wanted) {
            return Ok(Some(taken));
        }
        if !before.exists {
            self.remove(None)?;
        }
        Err(Refusal::new("the table", "it was not read back as it was written").into())
    }

    /// Takes the marks away.
    pub fn finish(&mut self) -> Result<Vec<String>, Error> {
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            let mut batch = Batch::new();
            for mark in MARKS {
                if self.bears(mark)? {
                    batch.delete_chain(self.at(), mark);
                }
            }
            // Two may do it at once.
            if let Some(lines) = self.send(batch, Some(generation))? {
                return Ok(lines);
            }
        }
        Err(Error::Resource("the ruleset changes faster than a mark can be taken away".to_owned()))
    }

    /// Whether our table is there.
    pub fn exists(&mut self) -> Result<bool, Error> {
        let found = self.connection.table(self.family, &self.name).map_err(|error| unavailable(&error))?;
        Ok(found.is_some())
    }

    /// Takes our table away with all that is in it; with a generation, only if the ruleset is still that one. `None`: it
    /// is another.
    pub fn remove(&mut self, generation: Option<u32>) -> Result<Option<Vec<String>>, Error> {
        let mut batch = Batch::new();
        batch.delete_table(self.at());
        self.send(batch, generation)
    }

    /// The generation of the ruleset.
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.connection.settled_generation().map_err(|error| unavailable(&error))
    }

    fn send(&mut self, batch: Batch, generation: Option<u32>) -> Result<Option<Vec<String>>, Error> {
        let lines = text::commands(&batch).map_err(unwritable)?;
        match self.connection.commit(batch, generation) {
            Ok(()) => Ok(Some(lines)),
            Err(error) if error.is_race() => Ok(None),
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn at(&self) -> nft::Table<'_> {
        nft::Table { family: self.family, name: &self.name }
    }

    fn difference(&self, before: &Table, saved: &Saved) -> Result<Change, Error> {
        change::between(&self.place(), before, self.taken(before, saved)?)
    }

    /// What ours is to be.
    fn taken(&self, before: &Table, saved: &Saved) -> Result<Table, Error> {
        let (mut table, mut out, mut warnings) = (before.clone(), String::new(), Vec::new());
        let (family, name, dialect) = (self.family, self.table.clone(), self.dialect);
        let section = Section {
            lines: Vec::new(),
            commit: 0,
            complete: true,
            noflush: false,
            counters: true,
            test: false,
            comments: false,
            verbose: false,
        };
        let mut session = Session { table: &mut table, dialect: &dialect, out: &mut out };
        session.clear(false);
        for (number, text) in (1..).zip(&saved.lines) {
            line(&mut session, &mut warnings, &section, family, &name, number, text).map_err(|error| {
                let why = match error {
                    Error::Refused(refusal) => refusal.to_string(),
                    other => other.render(&dialect).trim_end().to_owned(),
                };
                Refusal::new(format!("`{text}'"), why)
            })?;
        }
        let read = table.chains.iter().map(|chain| chain.rules.len()).sum::<usize>();
        if read != saved.rules() {
            return Err(Refusal::new("the table", format!("{read} of its {} rules can be read", saved.rules())).into());
        }
        Ok(table)
    }
}

/// What the kernel does not take has changed nothing.
fn refused(error: &CommitError) -> Error {
    if error.in_doubt {
        return Error::Resource(error.to_string());
    }
    Refusal::new("the kernel", error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Generated\n*nat\n:X ACCEPT [1:2]\nCOMMIT\n# Completed\n*filter\n:INPUT DROP [0:0]\n:mine - [0:0]\n[1:2] -A INPUT -j mine\n-A mine -j DROP\nCOMMIT\n";

    #[test]
    fn a_table_is_found_in_a_file() {
        let saved = Saved::find(FILE, "filter").expect("it is there");
        assert_eq!(saved.rules(), 2);
        // Two rules, a policy, a chain's head and end, and the table's end.
        assert_eq!(saved.entries(), 6);
        let more = Saved::find(&FILE.replace(":mine", ":theirs - [0:0]\n:mine"), "filter").expect("it is there");
        assert_eq!(more.entries(), 8);
        assert_eq!(saved.emptied("filter"), "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n");
        assert_eq!(Saved::find(FILE, "raw"), None);
        assert_eq!(Saved::find("*raw\n-A X\n", "raw"), None);
    }

    #[test]
    fn a_text_with_a_newline_tears_its_rule() {
        let torn = |lines: &str| {
            let saved = Saved::find(&format!("*raw\n{lines}COMMIT\n"), "raw").expect("it is there");
            saved.torn().map(str::to_owned)
        };
        assert_eq!(
            torn(":OUTPUT ACCEPT [1:2]\n:x - [0:0]\n[0:0] -A x -m comment --comment \"a \\\"b\" -j DROP\n"),
            None
        );
        let (head, tail) = ("[0:0] -A x -m comment --comment \"a", "# b\" -j DROP");
        assert_eq!(torn(&format!("{head}\n{tail}\n")).as_deref(), Some(head));
        assert_eq!(torn(&format!("{head}\\\n{tail}\n")).as_deref(), Some(&*format!("{head}\\")));
        assert_eq!(torn("[0:0] -A x -i a\n#b -j DROP\n").as_deref(), Some("#b -j DROP"));
    }

    #[test]
    fn counters_do_not_make_a_table_another() {
        let one = Saved::find(FILE, "filter").expect("it is there");
        let other = |from: &str, to: &str| Saved::find(&FILE.replace(from, to), "filter").expect("it is there");
        assert!(
            one.says_the_same(&other("[1:2] -A", "[5:6] -A")) && one.says_the_same(&other("DROP [0:0]", "DROP [9:9]"))
        );
        assert!(
            !one.says_the_same(&other("-j mine", "-g mine"))
                && !one.says_the_same(&other("INPUT DROP", "INPUT ACCEPT"))
        );
    }

    #[test]
    fn what_a_program_does_not_show_is_hidden() {
        let drops = |data: u8| vec![RawExpr { name: "immediate".to_owned(), data: vec![data] }];
        let chain = |hook: Option<Policy>, rules: &[u8]| PicturedChain {
            hook: hook.map(|_| Hook { num: 1, priority: 0, kind: "filter".to_owned() }),
            policy: hook,
            rules: rules.iter().map(|data| drops(*data)).collect(),
        };
        let picture = |flags, chains: &[(&str, PicturedChain)]| Picture {
            flags,
            chains: chains.iter().map(|(name, chain)| ((*name).to_owned(), chain.clone())).collect(),
        };
        let (input, mine) = (("INPUT", chain(Some(Policy::Accept), &[1])), ("mine", chain(None, &[1, 2])));
        let held = picture(0, &[input.clone(), mine.clone()]);
        let hidden = |shown: &Picture| held.hidden_from(shown);
        assert_eq!(hidden(&held), None);
        let idle = ("OUTPUT", chain(Some(Policy::Accept), &[]));
        assert_eq!(hidden(&picture(0, &[input.clone(), mine.clone(), idle])), None);
        for (shown, told) in [
            (picture(1, &[input.clone(), mine.clone()]), "flags"),
            (picture(0, &[input.clone(), ("mine", chain(None, &[2]))]), "shows 1 of the 2 rules in chain mine"),
            (picture(0, &[input.clone(), ("mine", chain(None, &[2, 1]))]), "chain mine is not what"),
            (picture(0, &[("INPUT", chain(Some(Policy::Drop), &[1])), mine.clone()]), "chain INPUT is not what"),
            (picture(0, std::slice::from_ref(&input)), "chain mine is not what"),
            (picture(0, &[input.clone(), mine.clone(), ("more", chain(None, &[]))]), "a chain more that is not there"),
            (
                picture(0, &[input.clone(), mine.clone(), ("OUTPUT", chain(Some(Policy::Drop), &[]))]),
                "a chain OUTPUT that is not there",
            ),
            (
                picture(0, &[input.clone(), mine.clone(), ("OUTPUT", chain(Some(Policy::Accept), &[1]))]),
                "a chain OUTPUT that is not there",
            ),
        ] {
            assert!(hidden(&shown).is_some_and(|why| why.contains(told)), "{told}: {shown:?}");
        }
    }
}
