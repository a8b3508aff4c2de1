//! The interpreter: blocks in a compact pre-decoded form, and the loop that runs them.
//!
//! Guest registers are operands by number, so that one guest instruction is mostly one operation here; values that
//! are no register's live in [`crate::CpuHeader::temps`]. Compilation is three passes over a block: facts about its
//! values ([`facts`], forwards), what to compute and how ([`select`], backwards), where to keep it ([`emit`],
//! forwards). Slots change in the order of their `Set`s as far as anybody who could stop in between can tell.

mod code;
mod cold;
mod emit;
mod env;
mod facts;
mod float;
mod memory;
mod run;
mod select;
mod word;

pub use code::{Code, CompileError, Entry};
pub use env::{Env, Fault, HostPlace};
pub use run::{End, run};
#[cfg(test)]
mod tests;
