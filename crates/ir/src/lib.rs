//! The intermediate representation every guest instruction is lifted into, once.
//!
//! A [`Block`] is straight-line SSA over guest state *slots* with one [`Terminal`]; nothing in it names a
//! guest or a host. Consumers: the interpreter here, the compilers and the persistent cache in `engine`.
//! See "The IR" in ARCHITECTURE.md for how x86 flags, A64 NZCV, Power CR/XER, x87 and big-endian accesses fit.

pub mod block;
pub mod builder;
pub mod eval;
pub mod guest;
pub mod interp;
pub mod op;
pub mod passes;
pub mod reference;
pub mod softfloat;
pub mod state;
#[cfg(test)]
mod testing;
pub mod text;
pub mod types;
pub mod verify;
mod wide;

pub use block::{Block, Inst, LinkHint, Terminal};
pub use builder::Builder;
pub use guest::{Access, BlockKey, Guest, HelperCx, HelperDesc, Page};
pub use op::Op;
pub use state::{CpuHeader, CpuState, SlotDesc};
pub use types::{MmuIndex, Slot, Type, Value};
