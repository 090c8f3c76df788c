//! Inputs that nobody in their right mind would give: the same ones each time, made from those that somebody did give.
//!
//! XTSHIM_FUZZ_INPUTS is their number for each target, XTSHIM_FUZZ_SEED another seed. What a run finds becomes a test
//! of its own in `tests/fuzz/found.rs`, by the name of what was wrong. XTSHIM_FUZZ_CORPUS is a folder for what the inputs are
//! made of, for `tests/libfuzzer`, which has the same targets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "fuzz/driver.rs"]
mod driver;
#[path = "fuzz/found.rs"]
mod found;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "fuzz/targets.rs"]
mod targets;

#[global_allocator]
static ALLOCATOR: driver::Counting = driver::Counting;

/// In memory, where there is such a place.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn command_lines() {
    driver::run("command lines", &seeds::command_lines(), targets::command_line);
}

#[test]
fn restore_files() {
    driver::run("restore files", &seeds::restore_files(), targets::restore_file);
}

#[test]
fn rules_round_trip() {
    driver::run("rules", &seeds::rules(), targets::round_trip);
}

#[test]
fn configurations() {
    let folder = folder();
    driver::run_few("configurations", 5000, &seeds::configurations(), |input| {
        targets::configuration(folder.path(), input);
    });
}

#[test]
fn caches() {
    driver::run("caches", &seeds::caches(), targets::cache);
}

#[test]
fn tickets() {
    driver::run("tickets", &seeds::tickets(), targets::ticket);
}

#[test]
fn kernel_configurations() {
    let folder = folder();
    driver::run_few("kernels", 5000, &seeds::kernels(), |input| targets::kernel(folder.path(), input));
}

#[test]
fn answers_of_the_kernel() {
    driver::run("answers", &seeds::answers(), targets::answer);
}

#[test]
fn journals() {
    driver::run("journals", &seeds::command_lines(), targets::journal);
}
