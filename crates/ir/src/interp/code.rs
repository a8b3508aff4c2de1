//! A block in the interpreter's compact form: one run of 8-byte words, changed after compilation only where blocks link.
#![allow(unsafe_code, reason = "owns words that run loops reach through raw pointers")]

use super::word::Word;
use crate::{op::Op, types::FpModel};
use std::ptr::NonNull;

/// Why a block has no compact form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    /// Too many values live at once, too long, or outside what the interpreter can address.
    #[error("the block is too complex for the interpreter: lift fewer instructions")]
    TooComplex,
}

/// Where to enter a [`Code`]. Dangles once the code is dropped; see the safety section of [`super::Env`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub(super) NonNull<u64>);

/// An operation without an opcode of its own. Narrow operands are zero-extended in their units, and so are results.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColdOp {
    pub(super) op: Op,
    /// Units of operands, in the operation's order, and how many there are.
    pub(super) operands: [u8; 5],
    pub(super) operand_count: u8,
    /// Which operands are vectors, a bit each.
    pub(super) vectors: u8,
    /// Units of results.
    pub(super) d: [u8; 3],
    pub(super) result_count: u8,
    /// The (only) result is a vector.
    pub(super) vector_result: bool,
}

/// Where a guest instruction begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct InsnAt {
    /// Index of its first word.
    pub(super) word: u32,
    /// Bytes from the block's entry.
    pub(super) offset: u32,
}

/// What is needed off the hot path.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) cold: Box<[ColdOp]>,
    pub(super) insns: Box<[InsnAt]>,
    pub(super) fp: FpModel,
    /// See [`Code::at_home`].
    pub(super) home: u64,
}

impl Meta {
    /// The instruction that word `index` belongs to: its number in the block and its offset.
    pub(super) fn insn_at(&self, index: u32) -> (u32, u32) {
        let after = self.insns.partition_point(|insn| insn.word <= index);
        match after.checked_sub(1) {
            Some(number) => (number as u32, self.insns[number].offset),
            None => (0, 0),
        }
    }
}

/// Words before the first operation: the address of the block's [`Meta`], and what is left of its countdown.
pub(super) const HEAD_WORDS: usize = 2;
/// Index of the countdown.
pub(super) const COUNTDOWN: usize = 1;

/// A compiled block.
///
/// The words are shared with run loops and other blocks' links through raw pointers, so they are kept behind one here.
#[derive(Debug)]
pub struct Code {
    words: NonNull<u64>,
    len: u32,
    /// Index of the first link, and how many there are: the block's last words.
    links: u32,
    meta: NonNull<Meta>,
}

// SAFETY: a `Code` owns its words and meta; links are plain addresses that only `run` follows, whose caller vouches
// for them.
unsafe impl Send for Code {}

impl Code {
    /// Takes words (the first [`HEAD_WORDS`] and the last `links` of which are placeholders).
    pub(super) fn new(mut words: Vec<u64>, links: u32, meta: Meta) -> Self {
        let meta = Box::into_raw(Box::new(meta));
        words[0] = meta.expose_provenance() as u64;
        words[COUNTDOWN] = u64::MAX;
        let len = words.len() as u32;
        let words = Box::into_raw(words.into_boxed_slice()).cast::<u64>();
        // SAFETY: both come from `Box::into_raw`, which never gives null.
        unsafe {
            Self { words: NonNull::new_unchecked(words), len, links, meta: NonNull::new_unchecked(meta) }
        }
    }

    /// Names the block's home, 0 without this: blocks link only to blocks of the same home. The guest-physical page,
    /// for those who free blocks a page at a time.
    #[must_use]
    pub fn at_home(mut self, home: u64) -> Self {
        // SAFETY: `meta` is live until drop, and no run loop has seen this code yet.
        unsafe { self.meta.as_mut() }.home = home;
        self
    }

    /// Where to enter it; stays the same when the `Code` moves.
    pub fn entry(&self) -> Entry {
        Entry(self.words)
    }

    /// Makes run loops stop with [`super::End::Hot`] instead of entering this code for the `entries`th time from now, where
    /// linked jumps forward do not count; code starts with practically no limit.
    pub fn set_countdown(&self, entries: u64) {
        // SAFETY: inside the allocation; no reference to the words exists, and `Code` is not `Sync`.
        unsafe { self.words.add(COUNTDOWN).write(entries) }
    }

    /// Counts `entries` entries that run loops do not see: [`super::run`] does not count its first. True if the countdown
    /// is over; the code may be entered nevertheless.
    pub fn count_down(&self, entries: u64) -> bool {
        // SAFETY: as in `set_countdown`.
        unsafe {
            let countdown = self.words.add(COUNTDOWN);
            let over = countdown.read() <= entries;
            countdown.write(if over { 1 } else { countdown.read() - entries });
            over
        }
    }

    /// Heap memory it takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        // SAFETY: `meta` is live until drop and written only by `at_home`, which has the code to itself.
        let meta = unsafe { self.meta.as_ref() };
        self.len as usize * size_of::<Word>()
            + size_of::<Meta>()
            + size_of_val(&*meta.cold)
            + size_of_val(&*meta.insns)
    }

    /// Forgets the blocks this one links to.
    pub fn unlink(&self) {
        for i in self.len - self.links..self.len {
            // SAFETY: inside the allocation; no reference to the words exists, and `Code` is not `Sync`.
            unsafe { self.words.add(i as usize).write(0) }
        }
    }
}

#[cfg(test)]
impl Code {
    /// Words between head and links, for tests that look at what was emitted.
    pub(super) fn words(&self) -> &[u64] {
        // SAFETY: inside the allocation; only links change.
        unsafe {
            std::slice::from_raw_parts(
                self.words.add(HEAD_WORDS).as_ptr(),
                (self.len - self.links) as usize - HEAD_WORDS,
            )
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        let words = std::ptr::slice_from_raw_parts_mut(self.words.as_ptr(), self.len as usize);
        // SAFETY: both were made by `Box::into_raw` in `new` with this length and are freed once.
        unsafe {
            drop(Box::from_raw(words));
            drop(Box::from_raw(self.meta.as_ptr()));
        }
    }
}
