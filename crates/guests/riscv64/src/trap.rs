//! Traps: causes and their names (volume II, 3.1.15, table "Machine cause register values after trap").

use crate::{Cpu, Privilege, Riscv64};
use std::fmt;

/// Exception causes, and the bit that makes a cause an interrupt.
pub mod cause {
    /// Instruction address misaligned.
    pub const FETCH_MISALIGNED: u64 = 0;
    /// Instruction access fault.
    pub const FETCH_ACCESS: u64 = 1;
    /// Illegal instruction; `tval` is the instruction.
    pub const ILLEGAL: u64 = 2;
    /// Breakpoint; `tval` is the address.
    pub const BREAKPOINT: u64 = 3;
    /// Load address misaligned.
    pub const LOAD_MISALIGNED: u64 = 4;
    /// Load access fault.
    pub const LOAD_ACCESS: u64 = 5;
    /// Store or AMO address misaligned.
    pub const STORE_MISALIGNED: u64 = 6;
    /// Store or AMO access fault.
    pub const STORE_ACCESS: u64 = 7;
    /// Environment call from U-mode.
    pub const ECALL_U: u64 = 8;
    /// Environment call from S-mode.
    pub const ECALL_S: u64 = 9;
    /// Environment call from M-mode.
    pub const ECALL_M: u64 = 11;
    /// Instruction page fault.
    pub const FETCH_PAGE: u64 = 12;
    /// Load page fault.
    pub const LOAD_PAGE: u64 = 13;
    /// Store or AMO page fault.
    pub const STORE_PAGE: u64 = 15;
    /// Set in a cause that is an interrupt; the rest is its number in `mip`.
    pub const INTERRUPT: u64 = 1 << 63;
}

/// An exception or interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap {
    /// As `mcause` holds it: bit 63 set for interrupts.
    pub cause: u64,
    /// As `mtval` holds it.
    pub tval: u64,
}

impl Trap {
    /// Illegal instruction `insn`.
    pub const fn illegal(insn: u64) -> Self {
        Self { cause: cause::ILLEGAL, tval: insn }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.cause & cause::INTERRUPT != 0 { "interrupt" } else { "exception" };
        write!(f, "{kind} {} (tval {:#x})", self.cause & !cause::INTERRUPT, self.tval)
    }
}

/// Takes a trap: privilege, cause, value, return address, vector (volume II, 3.1.6.1 and 3.1.7).
pub(crate) fn take(_guest: &Riscv64, cpu: &mut Cpu, trap: Trap) {
    cpu.mepc = cpu.header.pc;
    cpu.mcause = trap.cause;
    cpu.mtval = trap.tval;
    cpu.header.pc = cpu.mtvec & !3;
    cpu.privilege = Privilege::Machine;
    cpu.update_mode();
}

/// The interrupt to take now.
pub(crate) fn pending(_guest: &Riscv64, _cpu: &Cpu, _lines: u64, _now_ns: u64) -> Option<Trap> {
    None
}

/// Would an interrupt end a wait?
pub(crate) fn wakes(_guest: &Riscv64, _cpu: &Cpu, _lines: u64, _now_ns: u64) -> bool {
    true
}

/// When `stimecmp` is reached.
pub(crate) fn deadline_ns(_guest: &Riscv64, _cpu: &Cpu) -> Option<u64> {
    None
}

/// Is this an SBI call the machine answers?
pub(crate) fn is_firmware_call(_guest: &Riscv64, _cpu: &Cpu, _trap: Trap) -> bool {
    false
}
