//! The AArch64 guest: A64 with FP and Advanced SIMD, EL0 to EL2 with virtualization host extensions.
//!
//! Instructions are rows of tables (`table*.rs`): the manual's encoding diagram as text, and the function that lifts
//! it. System registers are rows of one table (`sysreg_table.rs`): encoding, who may access them, what a write keeps.
//! Specification: "Arm Architecture Reference Manual for A-profile architecture", DDI 0487; "the manual" below.

mod abort_syndrome;
mod at;
mod crc;
mod crypto;
mod debug;
mod decode;
mod disasm;
mod disasm_alias;
mod disasm_fp;
mod disasm_system;
pub mod encoding;
mod fixed;
mod float;
mod guest;
mod helpers;
mod helpers_fp;
mod helpers_integer;
mod helpers_system;
pub mod interrupts;
mod landing;
mod lift;
mod lift_alu;
mod lift_atomic;
mod lift_branch;
mod lift_fp;
mod lift_mem;
mod lift_simd;
mod lift_simd_fp;
mod lift_simd_mem;
mod lift_simd_move;
mod lift_simd_wide;
mod lift_system;
mod mmu;
mod mmu_stage2;
mod mmu_table;
pub mod mode;
mod model;
mod operands;
mod pattern;
mod pauth;
mod pmu;
mod privileged;
mod pstate;
mod qarma;
pub mod regs;
mod sysop;
mod sysreg;
mod sysreg_debug;
mod sysreg_id;
mod sysreg_interrupts;
mod sysreg_table;
mod sysreg_timer;
pub mod system;
mod table;
mod table_fp;
mod table_mem;
mod table_simd;
mod table_simd_fp;
mod table_system;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_fp;
#[cfg(test)]
mod tests_system;
pub mod timer;
mod tlbi;
pub mod trap;
mod vector;
mod vector_fp;
mod vector_int;
mod vreg;

pub use interrupts::CpuInterface;
pub use mode::Mode;
pub use model::{Aarch64, Conduit, Features, IdRegisters};
pub use regs::{Cpu, slot};
pub use trap::{Trap, ec};
