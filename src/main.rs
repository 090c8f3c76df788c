//! The program: everything of substance is in the library.

#![cfg_attr(not(test), no_main)]

#[global_allocator]
static ALLOCATOR: xtshim::sys::memory::Memory = xtshim::sys::memory::Memory;

#[cfg(not(test))]
#[path = "sys/entry.rs"]
mod entry;
