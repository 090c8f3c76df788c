//! xtshim stands where `iptables` stands. Each command either goes to the real iptables untouched, or, where this
//! kernel cannot do what it asks, is carried by other means that do the same to every packet.
//!
//! Imports point one way: front and CLI → plan → carriers → iptables, nft → sys.

#![deny(unsafe_code)]

pub mod alternatives;
pub mod carrier;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod error;
pub mod exit;
pub mod family;
pub mod front;
pub mod installation;
pub mod iptables;
pub mod journal;
pub mod migrate;
pub mod nft;
pub mod plan;
pub mod probe;
pub mod rules;
pub mod sys;
pub mod takeover;

use sys::start::{self, Start};

pub use front::pass_through;

/// Runs what the name of the call asks for, and ends with its exit code.
pub fn run(start: Start) -> ! {
    start::settle();
    start::end(front::main(start.args()))
}
