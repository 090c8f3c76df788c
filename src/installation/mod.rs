//! Where xtshim stands on this machine: in update-alternatives, in docker.service's PATH; how it gets there, and how what
//! was there before comes back.
//!
//! What is to be done is computed from what is there, as a list of steps: nothing is done that is done already, a dry run
//! shows the list, and what was interrupted is finished by asking again.

#![forbid(unsafe_code)]

pub mod docker;
pub mod groups;
pub mod places;
pub mod record;
pub mod step;

pub use step::Step;
