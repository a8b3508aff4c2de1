//! The RISC-V 64-bit guest: RV64GC and its ratified scalar extensions, M, S and U modes.
//!
//! Instructions are rows of tables (`table.rs`, `table_c.rs`, `table_fp.rs`): the manual's encoding diagram as
//! text, and the function that lifts it. Decoder, disassembler and overlap tests are made from them.
//! Specifications: "The RISC-V Instruction Set Manual", volumes I (unprivileged) and II (privileged), 2025.

pub mod counters;
mod csr;
mod decode;
mod disasm;
pub mod encoding;
mod guest;
mod helpers;
mod lift;
mod lift_alu;
mod lift_atomic;
mod lift_branch;
mod lift_crypto;
mod lift_fp;
mod lift_mem;
mod lift_system;
mod mmu;
mod model;
mod operands;
mod pattern;
mod pmp;
mod pure;
pub mod regs;
mod system;
mod table;
mod table_c;
mod table_fp;
#[cfg(test)]
mod tests;
pub mod trap;

pub use csr::address_space;
pub use lift_mem::CACHE_BLOCK;
pub use model::{Extensions, Riscv64};
pub use regs::{Cpu, Mode, Privilege, mstatus, slot};
pub use trap::{Trap, cause};
