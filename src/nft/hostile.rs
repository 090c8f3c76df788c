//! For tests alone: what a dump is read with, given bytes that no kernel has sent.

#![forbid(unsafe_code)]

use super::batch::Batch;
use super::connection;
use super::userdata;

/// The messages of a batch, which have the form in which the kernel lists what they make.
pub fn messages(batch: &Batch) -> Vec<u8> {
    batch.clone().datagram(1, Some(1), true).concat()
}

/// Reads what is there as answers to each of our questions. Gives how much there was.
pub fn read(bytes: &[u8]) -> usize {
    let rules = connection::read_all(bytes);
    let overflow = userdata::Continuations::of(&rules);
    for rule in &rules {
        let _ = userdata::decode(&rule.userdata, &overflow);
        let _ = userdata::overflow_handles(&rule.userdata, &overflow);
        let _ = userdata::is_ours(&rule.userdata);
    }
    rules.len()
}
