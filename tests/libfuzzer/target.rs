//! One of the targets, by the program's name. A panic is a finding.

#![no_main]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../fuzz/targets.rs"]
#[allow(dead_code, reason = "each program has one of them")]
mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").unwrap());

fuzz_target!(|input: &[u8]| match env!("CARGO_BIN_NAME") {
    "command_lines" => targets::command_line(input),
    "restore_files" => targets::restore_file(input),
    "rules" => targets::round_trip(input),
    "configurations" => targets::configuration(FOLDER.path(), input),
    "caches" => targets::cache(input),
    "tickets" => targets::ticket(input),
    "kernels" => targets::kernel(FOLDER.path(), input),
    "answers" => targets::answer(input),
    "journals" => targets::journal(input),
    other => panic!("no such target: {other}"),
});
