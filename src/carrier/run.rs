//! Runs: neighbouring rules that each mean one destination, of which the kernel is to look at the packet's own only.
//!
//! Docker keeps containers from being reached directly with one rule for each address, and every packet passes all of them.
//! As a run they cost what one does: in their chain stands a look-up of the destination in a verdict map, which jumps
//! to a chain that holds the rules of that address in their order, each with its counter and its text. Rules of
//! different addresses never meet the same packet, so nothing depends on which of those stands first; a number in the
//! user data of each keeps the order in which they are listed.
//!
//! Only chains that have a hook hold runs: from others there might be one jump too many (NFT_JUMP_STACK_SIZE,
//! net/netfilter/nf_tables.h).

#![forbid(unsafe_code)]

use super::table::{Chain, Held, Table};
use crate::family::Family;
use crate::nft::userdata;
use std::collections::HashMap;
use std::net::IpAddr;

/// So many neighbours become a run. Measured: with 10 nothing is won, with 100 a packet takes half the time.
pub const RUN_MIN: usize = 32;

/// Begins the names of the chains that hold one address's rules. 28 bytes, and more follows: iptables allows for no such
/// name.
const CHAIN_PREFIX: &str = "xtshim-rules-of-one-address-";

/// How far the numbers of neighbours lie apart, so that others find room between them.
const STEP: u64 = 1 << 32;

/// The number of a run's first rule when it is made: others find room before it, too.
const FIRST: u64 = 1 << 63;

/// Where a rule stands that is a member of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The run's number in its table.
    pub run: u32,
    /// Greater for each member that is listed later.
    pub ordinal: u64,
}

/// A run that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its number in its table.
    pub id: u32,
    /// The kernel's handle of the rule that looks up the destination.
    pub handle: u64,
}

/// The verdict map of a run.
pub fn map_name(run: u32) -> String {
    format!("xtshim-run-{run}")
}

/// The chain that holds the rules of one address of a run. nft syntax has no names with colons in them.
pub fn chain_name(run: u32, address: IpAddr) -> String {
    format!("{CHAIN_PREFIX}{run}-{address}").replace(':', "_")
}

/// Reads [`chain_name`] back.
pub fn of_chain(name: &str) -> Option<(u32, IpAddr)> {
    let (run, address) = name.strip_prefix(CHAIN_PREFIX)?.split_once('-')?;
    let (run, address) = (run.parse().ok()?, address.replace('_', ":").parse().ok()?);
    // One name for each: others can be given by hand.
    (chain_name(run, address) == name).then_some((run, address))
}

/// The one destination that a rule means, if it has the shape of those that runs are made of.
///
/// The shape is that of Docker's own rules in raw: `-d ADDRESS [[!] -i INTERFACE] [-p PROTOCOL --dport PORTS] -j DROP`, or
/// ACCEPT. Each of them is one rule of nf_tables that asks for the destination first.
pub fn address(family: Family, spec: &str) -> Option<IpAddr> {
    if spec.len() > userdata::SEATED_LIMIT {
        return None;
    }
    let words: Vec<&str> = spec.split(' ').collect();
    let ["-d", network, rest @ ..] = words.as_slice() else { return None };
    let rest = match rest {
        ["!", "-i", _, rest @ ..] | ["-i", _, rest @ ..] => rest,
        rest => rest,
    };
    let rest = match rest {
        ["-p", "tcp", "-m", "tcp", "--dport", _, rest @ ..] | ["-p", "udp", "-m", "udp", "--dport", _, rest @ ..] => {
            rest
        }
        rest => rest,
    };
    let ["-j", "DROP" | "ACCEPT"] = rest else { return None };
    let whole = match family {
        Family::V4 => "/32",
        Family::V6 => "/128",
    };
    network.strip_suffix(whole)?.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == (family == Family::V4))
}

/// Seats each rule of the table's built-in chains, or leaves it a rule of its own.
///
/// Runs that are there are kept as far as their members are still neighbours; what came between or behind them joins
/// them, and with `making` enough other neighbours become new ones. A rule that changes its place is made anew, with the
/// counters that were read.
pub fn arrange(before: &Table, after: &mut Table, making: bool) {
    let there = before.chains.iter().flat_map(|chain| &chain.runs).map(|run| run.id);
    let ids = there.chain(before.idle.iter().map(|(run, _)| *run));
    let mut next = ids.max().map_or(1, |id| id.wrapping_add(1));
    let family = after.family;
    for chain in after.chains.iter_mut().filter(|chain| chain.base.is_some()) {
        if !making && chain.runs.is_empty() {
            continue;
        }
        part(chain, family);
        for run in chain.runs.clone() {
            admit(chain, family, run.id, making);
        }
        if making {
            make(chain, family, &mut next);
        }
    }
}

/// Members behind a rule that their run cannot take in are no members any more.
fn part(chain: &mut Chain, family: Family) {
    let mut closed: Vec<u32> = Vec::new();
    let mut open: Option<Seat> = None;
    for held in &mut chain.rules {
        match (held.seat, open) {
            (Some(seat), Some(last)) if seat.run == last.run && seat.ordinal > last.ordinal => open = Some(seat),
            (Some(seat), last) => {
                closed.extend(last.map(|last| last.run));
                if closed.contains(&seat.run) {
                    held.unseat();
                    open = None;
                } else {
                    open = Some(seat);
                }
            }
            // A new rule can be taken in.
            (None, Some(_)) if held.handles.is_empty() && address(family, &held.spec).is_some() => {}
            (None, last) => {
                closed.extend(last.map(|last| last.run));
                open = None;
            }
        }
    }
}

/// Gives new rules among, and with `growing` beside, the members of a run a seat in it.
fn admit(chain: &mut Chain, family: Family, run: u32, growing: bool) {
    let is_member = |held: &Held| held.seat.is_some_and(|seat| seat.run == run);
    let Some(mut first) = chain.rules.iter().position(is_member) else { return };
    let mut end = chain.rules.iter().rposition(is_member).map_or(first, |last| last + 1);
    let joins = |held: &Held| held.seat.is_none() && held.handles.is_empty() && address(family, &held.spec).is_some();
    if growing {
        first -= chain.rules[..first].iter().rev().take_while(|held| joins(held)).count();
        end += chain.rules[end..].iter().take_while(|held| joins(held)).count();
    }
    let Some(span) = chain.rules.get_mut(first..end) else { return };
    if !seat(span, run) {
        span.iter_mut().for_each(Held::unseat);
    }
}

/// Numbers what has no seat yet between the neighbours that have one. `false`: there is no room left.
fn seat(span: &mut [Held], run: u32) -> bool {
    let mut from = 0;
    while let Some(free) = span.iter().skip(from).position(|held| held.seat.is_none()).map(|at| from + at) {
        let count = span.iter().skip(free).take_while(|held| held.seat.is_none()).count();
        let ordinal = |held: Option<&Held>| held.and_then(|held| held.seat).map(|seat| seat.ordinal);
        let below = free.checked_sub(1).and_then(|at| ordinal(span.get(at)));
        let above = ordinal(span.get(free + count));
        let places = u64::try_from(count).unwrap_or(u64::MAX).saturating_add(1);
        let (start, step) = match (below, above) {
            (Some(below), Some(above)) => (Some(below), (above - below) / places),
            (Some(below), None) => (Some(below), STEP.min((u64::MAX - below) / places)),
            (None, Some(above)) => {
                let step = STEP.min(above / places);
                (above.checked_sub(step.saturating_mul(places)), step)
            }
            (None, None) => (Some(FIRST), STEP),
        };
        let Some(start) = start.filter(|_| step > 0) else { return false };
        for (held, number) in span.iter_mut().skip(free).take(count).zip(1..) {
            held.seat = Some(Seat { run, ordinal: start + step * number });
        }
        from = free + count;
    }
    true
}

/// Makes runs of what stands together in great enough number.
fn make(chain: &mut Chain, family: Family, next: &mut u32) {
    let free = |held: &Held| held.seat.is_none() && address(family, &held.spec).is_some();
    for stretch in chain.rules.chunk_by_mut(|one, other| free(one) && free(other)) {
        if stretch.len() >= RUN_MIN {
            stretch.iter_mut().for_each(Held::unseat);
            seat(stretch, *next);
            *next = next.wrapping_add(1);
        }
    }
}

/// Rules that stand in one chain of the kernel's side by side: one alone, or the members of a run.
pub fn slots(chain: &Chain) -> impl DoubleEndedIterator<Item = &[Held]> {
    let together = |one: &Held, other: &Held| match (one.seat, other.seat) {
        (Some(one), Some(other)) => one.run == other.run,
        _ => false,
    };
    chain.rules.chunk_by(together)
}

/// Members by address, each address's in order.
pub fn by_address<'a>(family: Family, members: impl IntoIterator<Item = &'a Held>) -> Vec<(IpAddr, Vec<&'a Held>)> {
    let mut index: HashMap<IpAddr, usize> = HashMap::new();
    let mut found: Vec<(IpAddr, Vec<&Held>)> = Vec::new();
    for held in members {
        let Some(address) = address(family, &held.spec) else { continue };
        let at = *index.entry(address).or_insert(found.len());
        match found.get_mut(at) {
            Some((_, members)) => members.push(held),
            None => found.push((address, vec![held])),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::table::Unread;

    #[test]
    fn names_are_read_back_and_no_user_can_have_them() {
        for address in ["10.0.0.1", "2001:db8::1", "::", "::ffff:10.0.0.1"] {
            let address: IpAddr = address.parse().expect("an address");
            let name = chain_name(7, address);
            assert_eq!(of_chain(&name), Some((7, address)));
            assert!(crate::nft::chain_name_ok(&name) && name.len() > crate::iptables::parse::NAME_MAX, "{name}");
        }
        assert!(crate::nft::chain_name_ok(&map_name(7)));
        assert_eq!(of_chain("xtshim-rules-of-one-address-"), None);
        assert_eq!(of_chain("DOCKER"), None);
        for another in ["07-10.0.0.1", "+7-10.0.0.1", "7-2001_db8_0__1", "7-2001:db8::1"] {
            assert_eq!(of_chain(&format!("{CHAIN_PREFIX}{another}")), None, "{another}");
        }
    }

    #[test]
    fn only_rules_that_mean_one_address_have_the_shape() {
        let v4 = |spec| address(Family::V4, spec).map(|address| address.to_string());
        for spec in [
            "-d 10.0.0.1/32 ! -i docker0 -j DROP",
            "-d 10.0.0.1/32 -i docker0 -j ACCEPT",
            "-d 10.0.0.1/32 -j DROP",
            "-d 10.0.0.1/32 ! -i lo -p tcp -m tcp --dport 80:90 -j DROP",
        ] {
            assert_eq!(v4(spec).as_deref(), Some("10.0.0.1"), "{spec}");
        }
        for spec in [
            "! -d 10.0.0.1/32 -j DROP",
            "-d 10.0.0.0/24 -j DROP",
            "-s 10.0.0.1/32 -j DROP",
            "-i docker0 -j DROP",
            "-d 10.0.0.1/32 -j RETURN",
            "-d 10.0.0.1/32 -j mine",
            "-d 10.0.0.1/32",
            "-d 10.0.0.1/32 -o eth0 -j DROP",
            "-d 10.0.0.1/32 -p tcp -m udp --dport 1 -j DROP",
            "-d 10.0.0.1/32 -p tcp -m tcp ! --dport 1 -j DROP",
            "-d 10.0.0.1/32 -m comment --comment \"x\" -j DROP",
            "-d 2001:db8::1/128 -j DROP",
        ] {
            assert_eq!(v4(spec), None, "{spec}");
        }
        assert!(address(Family::V6, "-d 2001:db8::1/128 ! -i docker0 -j DROP").is_some());
    }

    fn rule(number: u32) -> Held {
        let mut held = Held::of(format!("-d 10.0.{}.{}/32 ! -i docker0 -j DROP", number / 250, number % 250), None);
        held.handles = vec![u64::from(number)];
        held
    }

    fn new(number: u32) -> Held {
        Held { handles: Vec::new(), ..rule(number) }
    }

    fn other(handle: u64) -> Held {
        Held { handles: vec![handle], ..Held::of("-i eth0 -j DROP".to_owned(), None) }
    }

    /// As the kernel would have it after `rules` were arranged: what has a seat is in a run that it has.
    fn settled(rules: Vec<Held>, making: bool) -> Table {
        let mut chain = Chain::untouched("PREROUTING");
        chain.rules = rules;
        let before = table(Chain::untouched("PREROUTING"));
        let mut after = table(chain);
        arrange(&before, &mut after, making);
        let chain = &mut after.chains[0];
        for (held, handle) in chain.rules.iter_mut().zip(1..) {
            held.handles = vec![handle];
        }
        let mut ids: Vec<u32> = chain.rules.iter().filter_map(|held| Some(held.seat?.run)).collect();
        ids.dedup();
        chain.runs = ids.into_iter().map(|id| Run { id, handle: u64::from(1_000_000 + id) }).collect();
        after
    }

    fn table(chain: Chain) -> Table {
        Table { chains: vec![chain], exists: true, ..Table::empty(Family::V4, "raw") }
    }

    fn changed(before: &Table, making: bool, change: impl FnOnce(&mut Vec<Held>)) -> Vec<Held> {
        let mut after = before.clone();
        change(&mut after.chains[0].rules);
        arrange(before, &mut after, making);
        check(&after);
        after.chains.remove(0).rules
    }

    /// Each run's members are neighbours, in the order of their numbers.
    fn check(table: &Table) {
        let mut seen = Vec::new();
        for slot in slots(&table.chains[0]) {
            if let Some(seat) = slot[0].seat {
                assert!(!seen.contains(&seat.run), "run {} stands in two places", seat.run);
                seen.push(seat.run);
                assert!(slot.is_sorted_by_key(|held| held.seat.map(|seat| seat.ordinal)));
                assert!(slot.iter().all(|held| address(table.family, &held.spec).is_some()));
            }
        }
        assert_eq!(table.unread, Unread::Nothing);
    }

    fn runs(rules: &[Held]) -> Vec<Option<u32>> {
        let mut runs: Vec<Option<u32>> = rules.iter().map(|held| held.seat.map(|seat| seat.run)).collect();
        runs.dedup();
        runs
    }

    fn made_anew(rules: &[Held]) -> usize {
        rules.iter().filter(|held| held.handles.is_empty()).count()
    }

    const MANY: u32 = RUN_MIN as u32;

    #[test]
    fn enough_neighbours_become_a_run() {
        let few = settled((1..MANY).map(new).collect(), true);
        assert_eq!(runs(&few.chains[0].rules), [None]);
        let rules = changed(&few, true, |rules| rules.push(new(MANY)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1)], RUN_MIN));
        let rules = changed(&few, false, |rules| rules.push(new(MANY)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![None], 1));
        let apart = (1..MANY).map(new).chain([other(0)]).chain([new(MANY)]).collect();
        assert_eq!(runs(&settled(apart, true).chains[0].rules), [None]);
    }

    #[test]
    fn a_run_takes_in_what_comes_before_among_and_behind_its_members() {
        let table = settled((1..=MANY).map(new).collect(), true);
        for at in [0, 5, RUN_MIN] {
            let rules = changed(&table, true, |rules| rules.insert(at, new(900)));
            assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1)], 1));
        }
        // One that is not to grow takes in what it cannot keep out.
        let rules = changed(&table, false, |rules| rules.insert(5, new(900)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1)], 1));
        let rules = changed(&table, false, |rules| rules.push(new(900)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1), None], 1));
    }

    #[test]
    fn several_at_once_find_room_in_a_run() {
        let table = settled((1..=MANY).map(new).collect(), true);
        for count in 1..10 {
            let rules = changed(&table, true, |rules| rules.extend((0..count).map(|number| new(900 + number))));
            assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1)], count as usize));
        }
        let rules = changed(&table, true, |rules| [7, 5, 5].into_iter().for_each(|at| rules.insert(at, new(900))));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1)], 3));
    }

    #[test]
    fn a_rule_that_the_kernel_has_beside_a_run_stays_where_it_is() {
        let mut table = settled((1..=MANY).map(new).collect(), true);
        for at in [RUN_MIN, 0] {
            table.chains[0].rules.insert(at, rule(900));
        }
        let rules = changed(&table, true, |rules| rules.push(new(901)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![None, Some(1), None], 1));
    }

    #[test]
    fn members_that_stand_otherwise_than_they_are_numbered_are_parted() {
        let table =
            settled((1..=2 * MANY).map(new).chain([other(0)]).chain((100..100 + MANY).map(new)).collect(), true);
        let last = table.chains[0].rules.len() - 1;
        for (one, another) in [(3, 7), (3, last), (0, last)] {
            for making in [true, false] {
                let rules = changed(&table, making, |rules| rules.swap(one, another));
                assert!(made_anew(&rules) > 0);
            }
        }
    }

    #[test]
    fn a_rule_of_another_shape_parts_a_run() {
        let table = settled((1..=3 * MANY).map(new).collect(), true);
        let rules = changed(&table, true, |rules| rules.insert(2 * RUN_MIN, other(0)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1), None, Some(2)], RUN_MIN));
        let rules = changed(&table, true, |rules| rules.insert(3 * RUN_MIN - 5, other(0)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1), None], 5));
        let rules = changed(&table, true, |rules| rules.insert(0, other(0)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![None, Some(1)], 0));
    }

    #[test]
    fn what_is_taken_away_leaves_the_others_as_they_are() {
        let table = settled((1..=MANY).map(new).collect(), true);
        let rules = changed(&table, true, |rules| drop(rules.drain(3..30)));
        assert_eq!((runs(&rules), made_anew(&rules)), (vec![Some(1)], 0));
        assert!(changed(&table, true, Vec::clear).is_empty());
    }

    #[test]
    fn a_run_without_room_for_another_is_made_anew() {
        let mut table = settled((1..=MANY).map(new).collect(), true);
        for number in 0..64 {
            let before = table.clone();
            let rules = &mut table.chains[0].rules;
            rules.insert(1, new(500 + number));
            arrange(&before, &mut table, true);
            check(&table);
            if made_anew(&table.chains[0].rules) > 1 {
                assert_eq!(runs(&table.chains[0].rules), [Some(2)]);
                return;
            }
            table.chains[0].rules[1].handles = vec![9_000 + u64::from(number)];
        }
        panic!("there was always room");
    }

    #[test]
    fn numbers_reach_neither_end() {
        for end in [1, u64::MAX - 1] {
            let mut span = vec![new(1), rule(2), new(3)];
            span[1].seat = Some(Seat { run: 1, ordinal: end });
            if seat(&mut span, 1) {
                assert!(span.is_sorted_by_key(|held| held.seat.map(|seat| seat.ordinal)), "{span:?}");
            }
        }
    }
}
