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
            Plan::Backend { .. } | Plan::AskBackend => CarrierKind::Backend,
        }
    }

    /// Why, as one clause.
    pub fn why(&self) -> &str {
        match self {
            Plan::Backend { why } => why,
            Plan::Nft { why } => why,
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
pub fn answered(backend: Ability) -> Plan {
    match backend {
        Ability::Missing { why } => Plan::Nft { why },
        Ability::Able => Plan::backend("it can"),
        Ability::Unknown { .. } => Plan::backend("it does not say that it cannot"),
    }
}

fn unheld(family: Family, table: &str, config: &Config, snapshot: &Snapshot) -> Plan {
    let nft = snapshot.ability(family, table, CarrierKind::Nft);
    match config.carrier(table) {
        CarrierChoice::Auto => automatic(snapshot.ability(family, table, CarrierKind::Backend), &nft),
        CarrierChoice::Fixed(CarrierKind::Nft) if !nft.is_missing() => {
            Plan::Nft { why: "the configuration asks for it".to_owned() }
        }
        CarrierChoice::Fixed(CarrierKind::Nft) => {
            Plan::Backend { why: format!("the configuration asks for nft, which cannot: {}", nft.why()).into() }
        }
        CarrierChoice::Fixed(_) => Plan::backend("the configuration asks for it"),
    }
}

fn automatic(backend: Ability, nft: &Ability) -> Plan {
    match backend {
        Ability::Able => Plan::backend("it can"),
        Ability::Missing { why } if nft.is_missing() => {
            Plan::Backend { why: format!("nothing else can either, and it has the words for that: {why}").into() }
        }
        Ability::Unknown { .. } if nft.is_missing() => Plan::backend("nothing else can"),
        Ability::Missing { why } => Plan::Nft { why },
        Ability::Unknown { .. } => Plan::AskBackend,
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
    fn what_is_carried_stays_carried() {
        let able = snapshot(Ability::Able, Ability::Able);
        assert!(matches!(planned(&able, &Config::default(), true), Plan::Nft { .. }));
        assert!(matches!(planned(&able, &forced(CarrierKind::Backend), true), Plan::Nft { .. }));
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
