//! Which carrier holds a table. Pure: from what the probe saw, what the configuration says and what this network
//! namespace already holds.

#![forbid(unsafe_code)]

use crate::config::{CarrierChoice, CarrierKind, Config};
use crate::family::Family;
use crate::probe::{Ability, Snapshot};
use std::borrow::Cow;

/// What is to become of a table's commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// They go to the real iptables, untouched.
    Backend {
        /// One clause for a person.
        why: Cow<'static, str>,
    },
    /// Our own nf_tables table answers them.
    Nft {
        /// One clause for the journal.
        why: String,
    },
    /// Another table of the backend's holds it.
    Hosted {
        /// Which way: [`CarrierKind::Mangle`] or [`CarrierKind::Filter`].
        by: CarrierKind,
        /// One clause for the journal.
        why: String,
    },
    /// Whether the backend can is not known: it has to be asked in this namespace before anything is decided.
    AskBackend,
}

impl Plan {
    fn backend(why: &'static str) -> Self {
        Plan::Backend { why: Cow::Borrowed(why) }
    }

    /// What it amounts to where nobody is asked any more.
    pub fn carrier(&self) -> CarrierKind {
        match self {
            Plan::Nft { .. } => CarrierKind::Nft,
            Plan::Hosted { by, .. } => *by,
            Plan::Backend { .. } | Plan::AskBackend => CarrierKind::Backend,
        }
    }

    /// Why, as one clause.
    pub fn why(&self) -> &str {
        match self {
            Plan::Backend { why } => why,
            Plan::Nft { why } | Plan::Hosted { why, .. } => why,
            Plan::AskBackend => "it is asked when the table is first spoken of",
        }
    }
}

/// The plan for `table` of `family`.
///
/// `held`: whether this network namespace already has our table of that name. What is carried stays carried, or its
/// rules would be neither listed nor removed.
pub fn plan(family: Family, table: &str, config: &Config, snapshot: &Snapshot, held: bool) -> Plan {
    let plan = unheld(family, table, config, snapshot);
    match plan {
        Plan::Nft { .. } => plan,
        _ if held => Plan::Nft { why: format!("this network namespace already holds {table} that way") },
        plan => plan,
    }
}

/// The plan of [`Plan::AskBackend`] when it has been asked.
pub fn answered(family: Family, table: &str, config: &Config, snapshot: &Snapshot, backend: Ability) -> Plan {
    match backend {
        Ability::Missing { why } => instead(family, table, config, snapshot, why),
        Ability::Able => Plan::backend("it can"),
        Ability::Unknown { .. } => Plan::backend("it does not say that it cannot"),
    }
}

fn unheld(family: Family, table: &str, config: &Config, snapshot: &Snapshot) -> Plan {
    match config.carrier(table) {
        CarrierChoice::Auto => automatic(family, table, config, snapshot),
        CarrierChoice::Fixed(CarrierKind::Backend) => Plan::backend("the configuration asks for it"),
        CarrierChoice::Fixed(kind) => match ability(family, table, kind, config, snapshot) {
            Ability::Missing { why } => {
                let name = kind.as_str();
                Plan::Backend { why: format!("the configuration asks for {name}, which cannot: {why}").into() }
            }
            _ => by(kind, "the configuration asks for it".to_owned()),
        },
    }
}

fn automatic(family: Family, table: &str, config: &Config, snapshot: &Snapshot) -> Plan {
    match snapshot.ability(family, table, CarrierKind::Backend) {
        Ability::Able => Plan::backend("it can"),
        Ability::Missing { why } => instead(family, table, config, snapshot, why),
        Ability::Unknown { .. } if next(family, table, config, snapshot).is_none() => Plan::backend("nothing else can"),
        Ability::Unknown { .. } => Plan::AskBackend,
    }
}

/// What carries a table that the backend cannot hold, because of `why`.
fn instead(family: Family, table: &str, config: &Config, snapshot: &Snapshot, why: String) -> Plan {
    match next(family, table, config, snapshot) {
        Some(kind) => by(kind, why),
        None => Plan::Backend { why: format!("nothing else can either, and it has the words for that: {why}").into() },
    }
}

fn by(kind: CarrierKind, why: String) -> Plan {
    match kind {
        CarrierKind::Nft => Plan::Nft { why },
        by => Plan::Hosted { by, why },
    }
}

/// The first that can, or of which it is not known that it cannot.
fn next(family: Family, table: &str, config: &Config, snapshot: &Snapshot) -> Option<CarrierKind> {
    let after_backend = [CarrierKind::Nft, CarrierKind::Mangle, CarrierKind::Filter].into_iter();
    after_backend.into_iter().find(|kind| !ability(family, table, *kind, config, snapshot).is_missing())
}

/// Whether `kind` can carry the table: another table of the backend's only while that is the backend's.
fn ability(family: Family, table: &str, kind: CarrierKind, config: &Config, snapshot: &Snapshot) -> Ability {
    let can = snapshot.ability(family, table, kind);
    let host = match kind {
        CarrierKind::Mangle | CarrierKind::Filter => kind.as_str(),
        CarrierKind::Backend | CarrierKind::Nft => return can,
    };
    if can.is_missing() {
        return can;
    }
    match unheld(family, host, config, snapshot) {
        Plan::Backend { .. } => can,
        _ => Ability::Missing { why: format!("{host} is not the backend's alone") },
    }
}

/// The carrier that holds raw in another table of the backend's, where that is the plan, or may become it when the
/// backend has been asked.
pub fn may_host_raw(family: Family, config: &Config, snapshot: &Snapshot) -> Option<CarrierKind> {
    planned_host(family, config, snapshot).or(snapshot.hosted(family))
}

/// The same, whatever is held already.
pub fn planned_host(family: Family, config: &Config, snapshot: &Snapshot) -> Option<CarrierKind> {
    match unheld(family, "raw", config, snapshot) {
        Plan::Hosted { by, .. } => Some(by),
        Plan::AskBackend => next(family, "raw", config, snapshot)
            .filter(|kind| !matches!(kind, CarrierKind::Nft | CarrierKind::Backend)),
        Plan::Backend { .. } | Plan::Nft { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, plan};
    use crate::config::{CarrierChoice, CarrierKind, Config};
    use crate::family::Family;
    use crate::probe::{Ability, Snapshot};

    fn missing() -> Ability {
        Ability::Missing { why: "no iptable_raw".to_owned() }
    }

    fn unknown() -> Ability {
        Ability::Unknown { why: "not permitted".to_owned() }
    }

    fn snapshot(backend: Ability, nft: Ability) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_ability(Family::V4, "raw", CarrierKind::Backend, backend);
        snapshot.set_ability(Family::V4, "raw", CarrierKind::Nft, nft);
        snapshot
    }

    /// A machine without nf_tables, whose backend has the other tables.
    fn old(backend: Ability, hosts: &[CarrierKind]) -> Snapshot {
        let mut snapshot = snapshot(backend, missing());
        for kind in hosts {
            snapshot.set_ability(Family::V4, kind.as_str(), CarrierKind::Backend, Ability::Able);
            snapshot.set_ability(Family::V4, "raw", *kind, Ability::Able);
        }
        snapshot
    }

    fn planned(snapshot: &Snapshot, config: &Config, held: bool) -> Plan {
        plan(Family::V4, "raw", config, snapshot, held)
    }

    fn forced(kind: CarrierKind) -> Config {
        let mut config = Config::default();
        config.carriers.insert("raw".to_owned(), CarrierChoice::Fixed(kind));
        config
    }

    #[test]
    fn what_the_backend_can_do_passes_through() {
        let config = Config::default();
        assert!(matches!(planned(&snapshot(Ability::Able, Ability::Able), &config, false), Plan::Backend { .. }));
    }

    #[test]
    fn what_only_nft_can_do_is_carried() {
        let plan = planned(&snapshot(missing(), Ability::Able), &Config::default(), false);
        assert_eq!(plan, Plan::Nft { why: "no iptable_raw".to_owned() });
    }

    #[test]
    fn what_nobody_can_do_fails_in_the_backends_own_words() {
        assert!(matches!(planned(&snapshot(missing(), missing()), &Config::default(), false), Plan::Backend { .. }));
    }

    #[test]
    fn doubt_is_settled_by_asking() {
        assert_eq!(planned(&snapshot(unknown(), Ability::Able), &Config::default(), false), Plan::AskBackend);
        assert!(matches!(planned(&snapshot(unknown(), missing()), &Config::default(), false), Plan::Backend { .. }));
    }

    #[test]
    fn another_table_holds_raw_where_there_is_no_nf_tables() {
        let both = old(missing(), &[CarrierKind::Mangle, CarrierKind::Filter]);
        assert_eq!(planned(&both, &Config::default(), false).carrier(), CarrierKind::Mangle);
        assert_eq!(planned(&both, &forced(CarrierKind::Filter), false).carrier(), CarrierKind::Filter);
        let filter = old(missing(), &[CarrierKind::Filter]);
        assert_eq!(planned(&filter, &Config::default(), false).carrier(), CarrierKind::Filter);
        assert_eq!(planned(&filter, &forced(CarrierKind::Mangle), false).carrier(), CarrierKind::Backend);
        let asked = old(unknown(), &[CarrierKind::Filter]);
        assert_eq!(planned(&asked, &Config::default(), false), Plan::AskBackend);
        let answer = super::answered(Family::V4, "raw", &Config::default(), &asked, missing());
        assert_eq!(answer.carrier(), CarrierKind::Filter);
        assert_eq!(super::may_host_raw(Family::V4, &Config::default(), &asked), Some(CarrierKind::Filter));
    }

    #[test]
    fn nf_tables_goes_before_other_tables() {
        let mut all = old(missing(), &[CarrierKind::Mangle, CarrierKind::Filter]);
        all.set_ability(Family::V4, "raw", CarrierKind::Nft, Ability::Able);
        assert_eq!(planned(&all, &Config::default(), false).carrier(), CarrierKind::Nft);
    }

    #[test]
    fn what_may_hold_raw_is_told_before_anything_is_asked() {
        let of = |snapshot: &Snapshot| {
            let config = Config::default();
            let planned = super::planned_host(Family::V4, &config, snapshot);
            (planned, super::may_host_raw(Family::V4, &config, snapshot))
        };
        let mangle = Some(CarrierKind::Mangle);
        assert_eq!(of(&old(missing(), &[CarrierKind::Mangle])), (mangle, mangle));
        // Once the backend has been asked, nf_tables would have it.
        let mut asked = old(unknown(), &[CarrierKind::Mangle]);
        asked.set_ability(Family::V4, "raw", CarrierKind::Nft, Ability::Able);
        assert_eq!(of(&asked), (None, None));
        // It was found there, whatever is planned.
        asked.set_hosted(Family::V4, CarrierKind::Filter);
        assert_eq!(of(&asked), (None, Some(CarrierKind::Filter)));
    }

    #[test]
    fn a_table_that_is_itself_carried_holds_no_other() {
        let mut snapshot = old(missing(), &[CarrierKind::Mangle]);
        snapshot.set_ability(Family::V4, "mangle", CarrierKind::Nft, Ability::Able);
        let mut config = forced(CarrierKind::Mangle);
        config.carriers.insert("mangle".to_owned(), CarrierChoice::Fixed(CarrierKind::Nft));
        assert_eq!(planned(&snapshot, &config, false).carrier(), CarrierKind::Backend);
    }

    #[test]
    fn what_is_carried_stays_carried() {
        let able = snapshot(Ability::Able, Ability::Able);
        assert!(matches!(planned(&able, &Config::default(), true), Plan::Nft { .. }));
        assert!(matches!(planned(&able, &forced(CarrierKind::Backend), true), Plan::Nft { .. }));
        // What it would be anyway is told as that.
        assert_eq!(planned(&snapshot(missing(), Ability::Able), &Config::default(), true).why(), "no iptable_raw");
    }

    #[test]
    fn the_configuration_decides_where_it_can() {
        let able = snapshot(Ability::Able, Ability::Able);
        assert!(matches!(planned(&able, &forced(CarrierKind::Nft), false), Plan::Nft { .. }));
        assert!(matches!(
            planned(&snapshot(missing(), missing()), &forced(CarrierKind::Nft), false),
            Plan::Backend { .. }
        ));
        assert!(matches!(
            planned(&snapshot(missing(), Ability::Able), &forced(CarrierKind::Backend), false),
            Plan::Backend { .. }
        ));
    }

    #[test]
    fn other_tables_pass_through() {
        let plan = plan(Family::V4, "filter", &Config::default(), &Snapshot::default(), false);
        assert!(matches!(plan, Plan::Backend { .. }));
    }
}
