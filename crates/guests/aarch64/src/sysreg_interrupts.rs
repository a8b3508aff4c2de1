//! GICv3's CPU interface registers (IHI 0069H, 12.2): access checks here, contents with the interrupt controller.

use crate::sysreg::{Access, Register, Verdict, key};
use crate::system::hcr;

/// Is this access one to the virtual interface? Groups follow HCR_EL2.FMO (group 0) and IMO (group 1).
fn is_virtual(a: &Access<'_, '_>, groups: u64) -> bool {
    a.el() == 1 && a.cx.cpu.sys.hcr() & groups != 0
}

/// Which of HCR_EL2's routings concern a register.
fn groups(key: u16) -> u64 {
    match (key >> 7 & 15, key >> 3 & 15, key & 7) {
        // ICC_PMR, CTLR, DIR, RPR, SRE concern both.
        (4, ..) | (12, 11, 1 | 3) | (12, 12, 4 | 5) => hcr::FMO | hcr::IMO,
        (12, 8, _) | (12, 12, 6) => hcr::FMO,
        _ => hcr::IMO,
    }
}

fn read(a: &mut Access<'_, '_>) -> u64 {
    let is_virtual = is_virtual(a, groups(a.key));
    let Some(interface) = a.cx.guest.cpu_interface() else { return 0 };
    interface.read(a.cx.cpu.index as usize, a.key, is_virtual).unwrap_or(0)
}

fn write(a: &mut Access<'_, '_>, value: u64) {
    let is_virtual = is_virtual(a, groups(a.key));
    let Some(interface) = a.cx.guest.cpu_interface() else { return };
    interface.write(a.cx.cpu.index as usize, a.key, is_virtual, value);
}

/// The registers are there with GICv3.
fn exists(a: &Access<'_, '_>) -> Verdict {
    Verdict::exists(a.cx.guest.cpu_interface().is_some_and(|interface| interface.has_registers()))
}

/// SGIs are generated on physical interfaces only: a hypervisor's guest traps.
fn sgi(a: &Access<'_, '_>) -> Verdict {
    exists(a).or(|| Verdict::intercepted(is_virtual(a, hcr::FMO | hcr::IMO)))
}

const fn both(name: &'static str, key: u16) -> Register {
    Register::new(name, key, Some(read), Some(write)).guard(exists)
}

const fn reads(name: &'static str, key: u16) -> Register {
    Register::new(name, key, Some(read), None).guard(exists)
}

const fn writes(name: &'static str, key: u16) -> Register {
    Register::new(name, key, None, Some(write)).guard(exists)
}

#[rustfmt::skip]
pub(crate) static TABLE: &[Register] = &[
    both("ICC_PMR_EL1", key(3, 0, 4, 6, 0)),
    reads("ICC_IAR0_EL1", key(3, 0, 12, 8, 0)),
    writes("ICC_EOIR0_EL1", key(3, 0, 12, 8, 1)),
    reads("ICC_HPPIR0_EL1", key(3, 0, 12, 8, 2)),
    both("ICC_BPR0_EL1", key(3, 0, 12, 8, 3)),
    both("ICC_AP0R<n>_EL1", key(3, 0, 12, 8, 4)).array(4, 1),
    both("ICC_AP1R<n>_EL1", key(3, 0, 12, 9, 0)).array(4, 1),
    writes("ICC_DIR_EL1", key(3, 0, 12, 11, 1)),
    reads("ICC_RPR_EL1", key(3, 0, 12, 11, 3)),
    writes("ICC_SGI1R_EL1", key(3, 0, 12, 11, 5)).guard(sgi),
    writes("ICC_ASGI1R_EL1", key(3, 0, 12, 11, 6)).guard(sgi),
    writes("ICC_SGI0R_EL1", key(3, 0, 12, 11, 7)).guard(sgi),
    reads("ICC_IAR1_EL1", key(3, 0, 12, 12, 0)),
    writes("ICC_EOIR1_EL1", key(3, 0, 12, 12, 1)),
    reads("ICC_HPPIR1_EL1", key(3, 0, 12, 12, 2)),
    both("ICC_BPR1_EL1", key(3, 0, 12, 12, 3)),
    both("ICC_CTLR_EL1", key(3, 0, 12, 12, 4)),
    both("ICC_SRE_EL1", key(3, 0, 12, 12, 5)),
    both("ICC_IGRPEN0_EL1", key(3, 0, 12, 12, 6)),
    both("ICC_IGRPEN1_EL1", key(3, 0, 12, 12, 7)),
    // --- EL2: the virtual interface's control
    both("ICC_SRE_EL2", key(3, 4, 12, 9, 5)),
    both("ICH_AP0R<n>_EL2", key(3, 4, 12, 8, 0)).array(4, 1),
    both("ICH_AP1R<n>_EL2", key(3, 4, 12, 9, 0)).array(4, 1),
    both("ICH_HCR_EL2", key(3, 4, 12, 11, 0)),
    reads("ICH_VTR_EL2", key(3, 4, 12, 11, 1)),
    reads("ICH_MISR_EL2", key(3, 4, 12, 11, 2)),
    reads("ICH_EISR_EL2", key(3, 4, 12, 11, 3)),
    reads("ICH_ELRSR_EL2", key(3, 4, 12, 11, 5)),
    both("ICH_VMCR_EL2", key(3, 4, 12, 11, 7)),
    both("ICH_LR<n>_EL2", key(3, 4, 12, 12, 0)).array(16, 1),
];
