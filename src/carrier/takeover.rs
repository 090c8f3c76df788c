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
use crate::nft::{self, Batch, CommitError, Policy, text};

/// A chain that is called by nothing: the table it stands in has been taken over, but not yet been emptied where it was.
/// No chain of the user's can have so long a name (XT_EXTENSION_MAXNAMELEN, linux/netfilter/x_tables.h).
pub const MARK: &str = "xtshim-takeover-is-not-finished";

/// A table as iptables-save prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    lines: Vec<String>,
}

/// What was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What was sent to the kernel, in nft syntax.
    pub lines: Vec<String>,
    /// How many rules.
    pub rules: usize,
}

impl Saved {
    /// `table` in a file of iptables-save's; `None` where it is not in it, or not whole.
    pub fn find(file: &str, table: &str) -> Option<Self> {
        let mut lines = file.lines().skip_while(|line| line.strip_prefix('*') != Some(table)).skip(1);
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

    /// A file that leaves nothing of it but chains of the kernel's own, with policy ACCEPT.
    pub fn emptied(&self, table: &str) -> String {
        let builtin = |line: &&String| line.split(' ').nth(1).is_some_and(|policy| policy != "-");
        let chains = self.lines.iter().filter(|line| line.starts_with(':')).filter(builtin);
        let names = chains.filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let declared: String = names.map(|name| format!(":{name} ACCEPT [0:0]\n")).collect();
        format!("*{table}\n{declared}COMMIT\n")
    }
}

impl NftCarrier {
    /// Whether our table bears [`MARK`].
    pub fn is_unfinished(&mut self) -> Result<bool, Error> {
        let asked = self.connection.chain(self.family, &self.name, MARK);
        asked.map(|chain| chain.is_some()).map_err(|error| unavailable(&error))
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
    /// there, in one transaction. `None`: the ruleset is another by now.
    pub fn take_from_nft(&mut self, saved: &Saved, generation: u32) -> Result<Option<Taken>, Error> {
        let before = self.read()?;
        if before.exists {
            // Somebody else was faster; what the backend holds now is no business of ours.
            return Ok(Some(Taken::default()));
        }
        let Change { mut batch, mut lines } = self.difference(&before, saved)?;
        let table = self.table.clone();
        let theirs = nft::Table { family: self.family, name: &table };
        let chains = self.connection.chains(self.family, &self.table).map_err(|error| unavailable(&error))?;
        let rules = self.connection.rules(self.family, &self.table, None).map_err(|error| unavailable(&error))?;
        if self.generation()? != generation {
            return Ok(None);
        }
        if rules.len() != saved.rules() {
            let why = format!("iptables-nft shows {} of the {} rules in its table", saved.rules(), rules.len());
            return Err(Refusal::new("the table", why).into());
        }
        let empty = |batch: &mut Batch| {
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
        };
        empty(&mut batch);
        // What nft cannot write of another's table is no reason to leave it there.
        let mut told = Batch::new();
        empty(&mut told);
        lines.extend(text::commands(&told).unwrap_or_default());
        match self.connection.commit(batch, Some(generation)) {
            Ok(()) => Ok(Some(Taken { lines, rules: saved.rules() })),
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
        let mut taken = Taken { lines: Vec::new(), rules: saved.rules() };
        if !before.reads_as(&wanted) {
            let Change { mut batch, lines } = change::between(&self.place(), &before, &wanted)?;
            batch.ensure_chain(self.at(), MARK);
            taken.lines = lines;
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

    /// Takes the mark away.
    pub fn finish(&mut self) -> Result<Vec<String>, Error> {
        let mut batch = Batch::new();
        batch.delete_chain(self.at(), MARK);
        Ok(self.send(batch, None)?.unwrap_or_default())
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
        self.connection.generation().map_err(|error| unavailable(&error))
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
        change::between(&self.place(), before, &self.taken(before, saved)?)
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
        Ok(table)
    }
}

/// What the kernel does not take has changed nothing.
fn refused(error: &CommitError) -> Error {
    Refusal::new("the kernel", error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::Saved;

    const FILE: &str = "# Generated\n*nat\n:X ACCEPT [1:2]\nCOMMIT\n# Completed\n*filter\n:INPUT DROP [0:0]\n:mine - [0:0]\n[1:2] -A INPUT -j mine\n-A mine -j DROP\nCOMMIT\n";

    #[test]
    fn a_table_is_found_in_a_file() {
        let saved = Saved::find(FILE, "filter").expect("it is there");
        assert_eq!(saved.rules(), 2);
        assert_eq!(saved.emptied("filter"), "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n");
        assert_eq!(Saved::find(FILE, "raw"), None);
        assert_eq!(Saved::find("*raw\n-A X\n", "raw"), None);
    }
}
