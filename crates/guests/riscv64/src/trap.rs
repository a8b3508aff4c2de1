//! Traps: causes and their names (volume II, 3.1.15, table "Machine cause register values after trap").

use crate::{
    Cpu, Privilege, Riscv64, counters,
    regs::{envcfg, mstatus},
};
use isomer_core::clock::{ns_to_ticks, ticks_to_ns};
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

/// Bits of `mip` and `mie` (volume II, 3.1.9); a trap's number is the bit's.
pub mod irq {
    /// Supervisor software.
    pub const SSI: u64 = 1 << 1;
    /// Machine software; input line 3.
    pub const MSI: u64 = 1 << 3;
    /// Supervisor timer.
    pub const STI: u64 = 1 << 5;
    /// Machine timer; input line 7.
    pub const MTI: u64 = 1 << 7;
    /// Supervisor external; input line 9.
    pub const SEI: u64 = 1 << 9;
    /// Machine external; input line 11.
    pub const MEI: u64 = 1 << 11;
    /// Counter overflow (Sscofpmf).
    pub const LCOFI: u64 = 1 << 13;
    /// The input lines that appear in `mip` as they are.
    pub const LINES: u64 = SSI | MSI | MTI | SEI | MEI;
    /// All supervisor-level interrupts.
    pub const SUPERVISOR: u64 = SSI | STI | SEI | LCOFI;
    /// In the order they are taken (volume II, 3.1.9, and Sscofpmf).
    pub(super) const PRIORITY: [u64; 7] = [MEI, MSI, MTI, SEI, SSI, STI, LCOFI];
}

/// The rate of `time`, in hertz: QEMU's `virt` board's.
pub const TIMEBASE_HZ: u64 = 10_000_000;

/// Is `stimecmp` in charge of STIP? Guests can set STCE only where Sstc exists; firmware of the machine's own sets it in
/// every model, to have a timer.
fn has_stimecmp(cpu: &Cpu) -> bool {
    cpu.menvcfg & envcfg::STCE != 0
}

/// `mip` as a read gives it: software's bits, the input lines, and the supervisor timer.
pub(crate) fn mip(_guest: &Riscv64, cpu: &Cpu, lines: u64, now_ns: u64) -> u64 {
    let mut mip = cpu.mip | lines & irq::LINES;
    if has_stimecmp(cpu) {
        let due = ns_to_ticks(now_ns, TIMEBASE_HZ) >= cpu.stimecmp;
        mip = mip & !irq::STI | if due { irq::STI } else { 0 };
    }
    mip
}

/// Takes a trap: privilege, cause, value, return address, vector (volume II, 3.1.6.1, 3.1.7, 3.1.8).
pub(crate) fn take(guest: &Riscv64, cpu: &mut Cpu, trap: Trap) {
    counters::settle(guest, cpu, cpu.header.insns);
    let interrupt = trap.cause & cause::INTERRUPT != 0;
    let number = trap.cause & !cause::INTERRUPT;
    let delegation = if interrupt { cpu.mideleg } else { cpu.medeleg };
    let delegated = cpu.privilege != Privilege::Machine && number < 64 && delegation >> number & 1 != 0;
    let from = cpu.privilege as u64;
    let pc = cpu.header.pc;
    let vector = if delegated {
        let enabled = cpu.mstatus & mstatus::SIE != 0;
        cpu.mstatus &= !(mstatus::SIE | mstatus::SPIE | mstatus::SPP);
        cpu.mstatus |= if enabled { mstatus::SPIE } else { 0 } | if from == 0 { 0 } else { mstatus::SPP };
        (cpu.sepc, cpu.scause, cpu.stval) = (pc, trap.cause, trap.tval);
        cpu.privilege = Privilege::Supervisor;
        cpu.stvec
    } else {
        let enabled = cpu.mstatus & mstatus::MIE != 0;
        cpu.mstatus &= !(mstatus::MIE | mstatus::MPIE | mstatus::MPP);
        cpu.mstatus |= if enabled { mstatus::MPIE } else { 0 } | from << mstatus::MPP_SHIFT;
        (cpu.mepc, cpu.mcause, cpu.mtval) = (pc, trap.cause, trap.tval);
        cpu.privilege = Privilege::Machine;
        cpu.mtvec
    };
    let vectored = vector & 3 == 1 && interrupt;
    cpu.header.pc = (vector & !3).wrapping_add(if vectored { 4 * number } else { 0 });
    cpu.update_mode();
}

/// The interrupt to take now (volume II, 3.1.9).
pub(crate) fn pending(guest: &Riscv64, cpu: &Cpu, lines: u64, now_ns: u64) -> Option<Trap> {
    let ready = mip(guest, cpu, lines, now_ns) & cpu.mie;
    if ready == 0 {
        return None;
    }
    let machine = cpu.privilege < Privilege::Machine || cpu.mstatus & mstatus::MIE != 0;
    let supervisor = match cpu.privilege {
        Privilege::User => true,
        Privilege::Supervisor => cpu.mstatus & mstatus::SIE != 0,
        Privilege::Machine => false,
    };
    let to_machine = if machine { ready & !cpu.mideleg } else { 0 };
    let to_supervisor = if supervisor { ready & cpu.mideleg } else { 0 };
    let candidates = if to_machine != 0 { to_machine } else { to_supervisor };
    let bit = irq::PRIORITY.into_iter().find(|bit| candidates & bit != 0)?;
    Some(Trap { cause: cause::INTERRUPT | u64::from(bit.trailing_zeros()), tval: 0 })
}

/// Would an interrupt end a wait? Enabled in `mie` is enough (volume II, 3.3.3).
pub(crate) fn wakes(guest: &Riscv64, cpu: &Cpu, lines: u64, now_ns: u64) -> bool {
    mip(guest, cpu, lines, now_ns) & cpu.mie != 0
}

/// When `stimecmp` is reached, if anybody would notice.
pub(crate) fn deadline_ns(_guest: &Riscv64, cpu: &Cpu) -> Option<u64> {
    (has_stimecmp(cpu) && cpu.mie & irq::STI != 0).then(|| ticks_to_ns(cpu.stimecmp, TIMEBASE_HZ))
}

/// Is this an SBI call the machine answers, if it is its own firmware?
pub(crate) fn is_firmware_call(_guest: &Riscv64, _cpu: &Cpu, trap: Trap) -> bool {
    trap.cause == cause::ECALL_S
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> Cpu {
        Cpu { privilege: Privilege::Supervisor, stvec: 0x2001, mtvec: 0x1000, ..Cpu::default() }
    }

    #[test]
    fn delegated_traps_go_to_supervisor_mode() {
        let mut cpu = supervisor();
        cpu.medeleg = 1 << cause::LOAD_PAGE;
        cpu.mstatus |= mstatus::SIE;
        cpu.header.pc = 0x8000;
        take(&Riscv64::max(), &mut cpu, Trap { cause: cause::LOAD_PAGE, tval: 7 });
        assert_eq!((cpu.header.pc, cpu.sepc, cpu.scause, cpu.stval), (0x2000, 0x8000, cause::LOAD_PAGE, 7));
        assert_eq!(cpu.mstatus & (mstatus::SIE | mstatus::SPIE | mstatus::SPP), mstatus::SPIE | mstatus::SPP);
        take(&Riscv64::max(), &mut cpu, Trap::illegal(3));
        assert_eq!((cpu.header.pc, cpu.mepc, cpu.privilege), (0x1000, 0x2000, Privilege::Machine));
        assert_eq!(cpu.mstatus & mstatus::MPP, 1 << mstatus::MPP_SHIFT);
    }

    #[test]
    fn interrupts_are_vectored_and_ordered() {
        let mut cpu = supervisor();
        (cpu.mie, cpu.mideleg, cpu.mip) = (u64::MAX, irq::SUPERVISOR, irq::SSI | irq::LCOFI);
        assert_eq!(pending(&Riscv64::max(), &cpu, 0, 0), None);
        assert!(wakes(&Riscv64::max(), &cpu, 0, 0));
        cpu.mstatus |= mstatus::SIE;
        let trap = pending(&Riscv64::max(), &cpu, irq::SEI, 0).unwrap();
        assert_eq!(trap.cause, cause::INTERRUPT | 9);
        take(&Riscv64::max(), &mut cpu, trap);
        assert_eq!(cpu.header.pc, 0x2000 + 36);
        assert_eq!(pending(&Riscv64::max(), &cpu, irq::MTI, 0).unwrap().cause, cause::INTERRUPT | 7);
    }

    #[test]
    fn stimecmp_makes_a_deadline_and_an_interrupt() {
        let mut cpu = supervisor();
        cpu.menvcfg |= envcfg::STCE;
        cpu.stimecmp = 1000;
        assert_eq!(deadline_ns(&Riscv64::max(), &cpu), None);
        cpu.mie = irq::STI;
        assert_eq!(deadline_ns(&Riscv64::max(), &cpu), Some(100_000));
        assert!(!wakes(&Riscv64::max(), &cpu, 0, 99_999));
        assert!(wakes(&Riscv64::max(), &cpu, 0, 100_000));
    }
}
