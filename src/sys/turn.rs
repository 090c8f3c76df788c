//! Taking turns with other fronts once one of them was faster.
//!
//! Nothing rests on it: whoever does not ask for a turn, or cannot have one, is held off by the ruleset's generation as
//! well. But many who read a large table again whenever another has changed it would read for ever.

#![forbid(unsafe_code)]

use super::store::Store;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The file that is locked.
const NAME: &str = "turn";

/// How long a turn is waited for before it is tried without: whoever has it may have been stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause between two looks whether it is free.
const POLL: Duration = Duration::from_millis(16);

/// The longest pause where there are no turns to be had.
const PAUSE: Duration = Duration::from_millis(250);

/// A call's turn, from its first defeat until it is dropped.
#[derive(Debug, Default)]
pub struct Turn {
    held: Option<Flock<OwnedFd>>,
    defeats: u32,
    /// Whoever has it does not give it back.
    out_of_reach: bool,
}

impl Turn {
    /// To be called when what was read is not what stands any more: comes back when it is worth trying again.
    pub fn lost(&mut self) {
        // Whoever has the turn was beaten by one who has not asked for it, and that one is done.
        if self.held.is_some() {
            return;
        }
        self.defeats += 1;
        if !self.out_of_reach {
            self.held =
                Store::open().and_then(|store| store.file_to_lock(NAME)).ok().and_then(|file| wait(file, PATIENCE));
            self.out_of_reach = self.held.is_none();
        }
        if self.held.is_none() {
            std::thread::sleep(some_of(grown(self.defeats, PAUSE)));
        }
    }

    /// Gives it back before the end.
    pub fn over(&mut self) {
        self.held = None;
    }
}

fn wait(mut file: OwnedFd, patience: Duration) -> Option<Flock<OwnedFd>> {
    let begun = Instant::now();
    for asked in 1.. {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Some(held),
            Err((returned, Errno::EAGAIN)) if begun.elapsed() < patience => file = returned,
            Err(_) => break,
        }
        std::thread::sleep(some_of(grown(asked, POLL)));
    }
    None
}

fn grown(times: u32, most: Duration) -> Duration {
    Duration::from_micros(100 << times.min(12)).min(most)
}

/// At least half of it: those who were beaten together shall not come back together.
fn some_of(pause: Duration) -> Duration {
    let share = RandomState::new().hash_one(()) % 1024;
    pause / 2 + pause / 2048 * u32::try_from(share).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn one_has_a_turn_and_nobody_waits_for_it_for_ever() {
        let place = tempfile::NamedTempFile::new().expect("a file");
        let open = || OwnedFd::from(File::open(place.path()).expect("it is there"));
        let first = wait(open(), Duration::ZERO);
        assert!(first.is_some());
        assert!(wait(open(), Duration::from_millis(30)).is_none());
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| wait(open(), Duration::from_secs(60)));
            drop(first);
            second.join().expect("no panic")
        });
        assert!(second.is_some());
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_are_not_all_the_same() {
        assert!(grown(1, PAUSE) < grown(2, PAUSE));
        assert_eq!(grown(u32::MAX, PAUSE), PAUSE);
        let pauses: std::collections::HashSet<Duration> = (0..100).map(|_| some_of(PAUSE)).collect();
        assert!(pauses.len() > 1 && pauses.iter().all(|pause| (PAUSE / 2..=PAUSE).contains(pause)));
    }
}
