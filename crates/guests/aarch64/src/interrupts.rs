//! The way to the interrupt controller: the private interrupts a PE asserts, and GICv3's CPU interface registers,
//! which are system registers of the PE but belong to the controller (IHI 0069H, 12.2).

use crate::{Aarch64, Cpu, pmu, timer};
use std::fmt;

/// INTIDs of a PE's own interrupts (Server Base System Architecture, table 2).
pub mod ppi {
    /// Performance monitors overflow.
    pub const PMU: u32 = 23;
    /// GIC maintenance.
    pub const GIC_MAINTENANCE: u32 = 25;
    /// EL2 physical timer.
    pub const HYP_TIMER: u32 = 26;
    /// EL1 virtual timer.
    pub const VIRTUAL_TIMER: u32 = 27;
    /// EL2 virtual timer.
    pub const HYP_VIRTUAL_TIMER: u32 = 28;
    /// EL1 physical timer, non-secure.
    pub const PHYSICAL_TIMER: u32 = 30;
}

/// The interrupt inputs of a PE, by number of [`isomer_core::VcpuSignal`]'s lines.
pub mod line {
    /// IRQ.
    pub const IRQ: u32 = 0;
    /// FIQ.
    pub const FIQ: u32 = 1;
    /// Virtual IRQ, from the virtual CPU interface.
    pub const VIRTUAL_IRQ: u32 = 2;
    /// Virtual FIQ.
    pub const VIRTUAL_FIQ: u32 = 3;
}

/// An interrupt controller as its PEs see it. Calls come from the PE's own thread and may raise or lower any PE's
/// lines ([`line`]) before they return.
pub trait CpuInterface: Send + Sync + fmt::Debug {
    /// PE `cpu` asserts or releases its private interrupt `intid`.
    fn set_ppi(&self, cpu: usize, intid: u32, level: bool);

    /// Are the ICC_*_ELx registers there (GICv3 and up)?
    fn has_registers(&self) -> bool;

    /// Reads a register as PE `cpu`; reading ICC_IAR<n>_EL1 acknowledges. `register` is op0, op1, CRn, CRm and op2 as in
    /// bits 20:5 of `mrs`. `is_virtual`: the access is to the virtual interface (ICV_*), since HCR_EL2.FMO or IMO sends
    /// that group's accesses there. `None`: there is no such register. The PE has checked privilege and traps.
    fn read(&self, cpu: usize, register: u16, is_virtual: bool) -> Option<u64>;

    /// Writes a register as PE `cpu`; false if there is no such register.
    fn write(&self, cpu: usize, register: u16, is_virtual: bool, value: u64) -> bool;
}

/// The bit of [`Cpu::told`] for the performance monitors; timers have theirs below.
const PMU_BIT: u32 = 4;

/// Tells the interrupt controller which private interrupts the PE asserts, if that has changed.
pub(crate) fn tell(guest: &Aarch64, cpu: &Cpu, now_ns: u64) {
    let lines = timer::asserted(guest, cpu, now_ns) | u32::from(pmu::asserted(cpu)) << PMU_BIT;
    let changed = lines ^ cpu.told.replace(lines);
    let Some(interface) = guest.cpu_interface().filter(|_| changed != 0) else { return };
    let index = cpu.index as usize;
    for id in timer::TimerId::ALL {
        if changed & 1 << id as u32 != 0 {
            interface.set_ppi(index, id.ppi(), lines & 1 << id as u32 != 0);
        }
    }
    if changed & 1 << PMU_BIT != 0 {
        interface.set_ppi(index, ppi::PMU, lines & 1 << PMU_BIT != 0);
    }
}
