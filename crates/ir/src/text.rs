//! The text form of blocks: one line an operation, made to be read, compared in golden tests and parsed back without
//! loss.
//!
//! ```text
//! block mode=0x3 len=6 insns=2 fp=canonical,after {
//!   insn +0 4
//!   v0 = get x10
//!   v1 = const.i64 0x10
//!   v2 = add.i64 v0, v1
//!   store.i32 [v2], v0, mmu=1 relaxed
//!   insn +4 2
//!   v3 = compare.eq.i64 v0, v2
//!   branch v3, +16, +6
//! }
//! ```
//!
//! A line is `results = operation.word.word operand, operand`. Words say what kind of operation it is (types, formats,
//! rounding), operands what it works on: values, `[addresses]`, numbers, slots by name. Offsets have a sign and count
//! from the block's entry. `;` starts a comment. Slots and helpers that have no name are written `#number`.
//!
//! The order of words and operands is written down once, in [`form`], for printer and parser.

mod form;
mod names;
mod parse;
mod print;
#[cfg(test)]
mod tests;

pub use parse::ParseError;

use crate::{block::Block, guest::Guest, state::SlotDesc};
use std::fmt;

/// Names of what blocks only have numbers for.
#[derive(Clone, Copy, Debug)]
struct Dialect<'a> {
    slots: &'static [SlotDesc],
    helpers: &'a [&'static str],
}

/// A block as text; helpers by number.
pub fn print(block: &Block) -> String {
    block.to_string()
}

/// One of `G`'s blocks as text.
pub fn print_for<G: Guest>(block: &Block) -> String {
    let mut text = String::new();
    let helpers = helper_names::<G>();
    // Writing to a string cannot fail.
    let _ = print::block(block, Dialect { slots: block.slots, helpers: &helpers }, &mut text);
    text
}

/// A block from its text. Only syntax is checked: [`crate::verify::verify`] tells whether it means anything.
pub fn parse(text: &str, slots: &'static [SlotDesc]) -> Result<Block, ParseError> {
    parse::block(text, Dialect { slots, helpers: &[] })
}

/// One of `G`'s blocks from its text.
pub fn parse_for<G: Guest>(text: &str) -> Result<Block, ParseError> {
    parse::block(text, Dialect { slots: G::SLOTS, helpers: &helper_names::<G>() })
}

fn helper_names<G: Guest>() -> Vec<&'static str> {
    G::HELPERS.iter().map(|helper| helper.name).collect()
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::block(self, Dialect { slots: self.slots, helpers: &[] }, f)
    }
}
