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

/// A register of GICv3's CPU interface.
///
/// The PE has checked privilege and traps; enables of the interface itself (ICC_SRE_ELx) are the controller's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CpuInterfaceRegister {
    /// ICC_PMR_EL1.
    Pmr,
    /// ICC_IAR0_EL1; a read acknowledges.
    Iar0,
    /// ICC_IAR1_EL1; a read acknowledges.
    Iar1,
    /// ICC_EOIR0_EL1.
    Eoir0,
    /// ICC_EOIR1_EL1.
    Eoir1,
    /// ICC_HPPIR0_EL1.
    Hppir0,
    /// ICC_HPPIR1_EL1.
    Hppir1,
    /// ICC_BPR0_EL1.
    Bpr0,
    /// ICC_BPR1_EL1.
    Bpr1,
    /// ICC_DIR_EL1.
    Dir,
    /// ICC_RPR_EL1.
    Rpr,
    /// ICC_SGI1R_EL1: generates group 1 SGIs.
    Sgi1r,
    /// ICC_ASGI1R_EL1.
    Asgi1r,
    /// ICC_SGI0R_EL1.
    Sgi0r,
    /// ICC_CTLR_EL1.
    Ctlr,
    /// ICC_SRE_EL1.
    SreEl1,
    /// ICC_SRE_EL2.
    SreEl2,
    /// ICC_IGRPEN0_EL1.
    Igrpen0,
    /// ICC_IGRPEN1_EL1.
    Igrpen1,
    /// ICC_AP0R<n>_EL1.
    Ap0r(u8),
    /// ICC_AP1R<n>_EL1.
    Ap1r(u8),
    /// ICH_HCR_EL2.
    IchHcr,
    /// ICH_VTR_EL2.
    IchVtr,
    /// ICH_MISR_EL2.
    IchMisr,
    /// ICH_EISR_EL2.
    IchEisr,
    /// ICH_ELRSR_EL2.
    IchElrsr,
    /// ICH_VMCR_EL2.
    IchVmcr,
    /// ICH_LR<n>_EL2.
    IchLr(u8),
    /// ICH_AP0R<n>_EL2.
    IchAp0r(u8),
    /// ICH_AP1R<n>_EL2.
    IchAp1r(u8),
}

/// An interrupt controller as its PEs see it. Calls come from the PE's own thread and may raise or lower any PE's
/// lines ([`line`]) before they return.
pub trait CpuInterface: Send + Sync + fmt::Debug {
    /// PE `cpu` asserts or releases its private interrupt `intid`.
    fn set_ppi(&self, cpu: usize, intid: u32, level: bool);

    /// Are the registers of [`CpuInterfaceRegister`] there (GICv3 and up)?
    fn has_registers(&self) -> bool;

    /// Reads a register as PE `cpu`. `is_virtual`: the access is to the virtual interface (ICV_*), since
    /// HCR_EL2.FMO or IMO sends that group's accesses there.
    fn read(&self, cpu: usize, register: CpuInterfaceRegister, is_virtual: bool) -> u64;

    /// Writes a register as PE `cpu`.
    fn write(&self, cpu: usize, register: CpuInterfaceRegister, is_virtual: bool, value: u64);
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
