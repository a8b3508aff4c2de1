//! The RISC-V 64-bit guest: RV64GC and its ratified scalar extensions, M, S and U modes.

mod csr;
mod mmu;
mod model;
mod pmp;
mod regs;
mod trap;

pub use model::{Extensions, Riscv64};
pub use regs::{Cpu, Mode, Privilege, mstatus, slot};
pub use trap::{Trap, cause};
