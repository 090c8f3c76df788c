//! The allocator of static builds. A file of rules is taken apart into a hundred small pieces for each rule, and all but
//! a few are given back at once: those cost a dozen instructions here, and no lock.
//!
//! Each thread has a list of free pieces for each size, and cuts new ones off a block that it has from dlmalloc, which
//! also serves whatever is larger. Pieces that one thread gives back are its own from then on, whoever had them first.

#![allow(unsafe_code)]

use dlmalloc::GlobalDlmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{self, NonNull};

/// Sizes are multiples of this many bytes, and pieces are aligned to it.
const STEP: usize = 16;

/// The largest piece is so many steps.
const SIZES: usize = 32;

/// Bytes that are cut into pieces together.
const BLOCK: usize = 64 * 1024;

/// A piece that nobody uses.
struct Free {
    next: Option<NonNull<Free>>,
}

struct Pieces {
    free: [Option<NonNull<Free>>; SIZES],
    /// What is left of the block.
    rest: *mut u8,
    left: usize,
}

thread_local! {
    // Neither made when it is first used nor dropped at the end: an allocator has no other to do that with.
    static PIECES: UnsafeCell<Pieces> =
        const { UnsafeCell::new(Pieces { free: [None; SIZES], rest: ptr::null_mut(), left: 0 }) };
}

/// See the module's description.
#[derive(Debug)]
pub struct Heap;

/// The list that such a piece is in. `None`: it is none of ours.
#[inline]
fn list(layout: Layout) -> Option<usize> {
    let steps = layout.size().div_ceil(STEP);
    (layout.align() <= STEP && (1..=SIZES).contains(&steps)).then(|| steps - 1)
}

impl Pieces {
    #[inline]
    fn take(&mut self, list: usize) -> *mut u8 {
        if let Some(piece) = self.free[list] {
            // SAFETY: what is in a list is free and holds a `Free`, which `give` has written.
            self.free[list] = unsafe { piece.as_ref() }.next;
            return piece.as_ptr().cast();
        }
        let size = (list + 1) * STEP;
        if self.left < size && !self.refill() {
            return ptr::null_mut();
        }
        let piece = self.rest;
        // SAFETY: `left` bytes from `rest` on are ours, and `size` is no more.
        self.rest = unsafe { piece.add(size) };
        self.left -= size;
        piece
    }

    #[cold]
    fn refill(&mut self) -> bool {
        let Ok(layout) = Layout::from_size_align(BLOCK, STEP) else { return false };
        // SAFETY: the size is not 0.
        let block = unsafe { GlobalDlmalloc.alloc(layout) };
        if !block.is_null() {
            (self.rest, self.left) = (block, BLOCK);
        }
        !block.is_null()
    }

    #[inline]
    fn give(&mut self, list: usize, piece: *mut u8) {
        let Some(piece) = NonNull::new(piece.cast::<Free>()) else { return };
        // SAFETY: a piece is nobody's any more, aligned to `STEP` and at least as long.
        unsafe { piece.write(Free { next: self.free[list] }) };
        self.free[list] = Some(piece);
    }
}

/// This thread's.
#[inline]
fn with_pieces<T>(act: impl FnOnce(&mut Pieces) -> T) -> T {
    // SAFETY: no other thread sees it, and nothing that is done with it comes back here.
    PIECES.with(|pieces| act(unsafe { &mut *pieces.get() }))
}

// SAFETY: pieces are disjoint parts of blocks that are never given back, of at least the size and alignment that was
// asked for, and in a list only while nobody has them; all else is dlmalloc's. A layout tells both apart.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match list(layout) {
            Some(list) => with_pieces(|pieces| pieces.take(list)),
            // SAFETY: as the caller's.
            None => unsafe { GlobalDlmalloc.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match list(layout) {
            Some(list) => with_pieces(|pieces| pieces.give(list, piece)),
            // SAFETY: as the caller's; dlmalloc has made it.
            None => unsafe { GlobalDlmalloc.dealloc(piece, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if list(layout).is_none() {
            // SAFETY: as the caller's. Fresh pages are zero already.
            return unsafe { GlobalDlmalloc.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller's.
        let piece = unsafe { self.alloc(layout) };
        if !piece.is_null() {
            // SAFETY: it is that long.
            unsafe { piece.write_bytes(0, layout.size()) };
        }
        piece
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller vouches that such a layout is valid.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list(layout), list(wanted)) {
            (Some(old), Some(new)) if old == new => return piece,
            // SAFETY: as the caller's; dlmalloc has made it, and would make the new one.
            (None, None) => return unsafe { GlobalDlmalloc.realloc(piece, layout, size) },
            _ => {}
        }
        // SAFETY: as the caller's.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: two places that do not overlap, each at least as long; the old one is then nobody's.
            unsafe {
                ptr::copy_nonoverlapping(piece, moved, layout.size().min(size));
                self.dealloc(piece, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece that was filled with a byte of its own.
    struct Piece {
        at: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Piece {
        fn new(size: usize, align: usize, byte: u8) -> Self {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: no size here is 0.
            let at = unsafe { Heap.alloc(layout) };
            assert!(!at.is_null() && at.addr() % align == 0);
            // SAFETY: it is that long.
            unsafe { at.write_bytes(byte, size) };
            Self { at, layout, byte }
        }

        fn resize(&mut self, size: usize) {
            let kept = self.layout.size().min(size);
            // SAFETY: it was made with that layout, and the new size is not 0.
            self.at = unsafe { Heap.realloc(self.at, self.layout, size) };
            assert!(self.bytes(kept).iter().all(|byte| *byte == self.byte));
            self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
            // SAFETY: it is that long.
            unsafe { self.at.write_bytes(self.byte, size) };
        }

        fn bytes(&self, len: usize) -> &[u8] {
            // SAFETY: it is at least that long, and written.
            unsafe { std::slice::from_raw_parts(self.at, len) }
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            assert!(self.bytes(self.layout.size()).iter().all(|byte| *byte == self.byte), "another's");
            // SAFETY: it was made with that layout.
            unsafe { Heap.dealloc(self.at, self.layout) };
        }
    }

    #[test]
    fn nobody_writes_into_anothers_piece() {
        let sizes = [1, 15, 16, 17, 100, 511, 512, 513, 4000, 70_000];
        let mut pieces: Vec<Piece> = Vec::new();
        let mut turn = 1_usize;
        for round in 0..20_000_usize {
            turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (dice, size) = (turn >> 40, sizes[(turn >> 33) % sizes.len()]);
            match dice % 3 {
                0 if !pieces.is_empty() => drop(pieces.swap_remove(dice % pieces.len())),
                1 if !pieces.is_empty() => {
                    let place = dice % pieces.len();
                    pieces[place].resize(size);
                }
                _ if pieces.len() < 300 => pieces.push(Piece::new(size, 1 << (dice % 7), round as u8)),
                _ => {}
            }
        }
    }

    #[test]
    fn a_zeroed_piece_is_zero_though_it_was_used() {
        drop(Piece::new(64, 8, 7));
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: the size is not 0, and it is given back with the same layout.
        unsafe {
            let piece = Heap.alloc_zeroed(layout);
            assert!(std::slice::from_raw_parts(piece, 64).iter().all(|byte| *byte == 0));
            Heap.dealloc(piece, layout);
        }
    }
}
