//! Identification registers (the manual, D24.2; those of AArch32 read as zero, since there is none).

use crate::{
    model::DCZID,
    sysreg::{Access, Register, Verdict, constant, special},
    system::{hcr, sctlr},
};

/// At EL1, EL2 says which core this is.
fn virtualized(a: &Access<'_, '_>) -> bool {
    a.el() == 1 && a.cx.cpu.sys.has_el2
}

fn ccsidr(a: &mut Access<'_, '_>) -> u64 {
    let caches = &a.cx.guest.id.ccsidr;
    // Level 1 data, level 1 instruction, level 2 unified.
    match a.cx.cpu.sys.csselr {
        0 => caches[0],
        1 => caches[1],
        2 => caches[2],
        _ => 0,
    }
}

/// SCTLR_EL1.UCT lets EL0 read CTR_EL0.
fn ctr_guard(a: &Access<'_, '_>) -> Verdict {
    let cpu = &*a.cx.cpu;
    Verdict::enabled(cpu.el != 0 || cpu.sys.sctlr[cpu.sys.regime_el(0)] & sctlr::UCT != 0)
}

const CACHES: u64 = hcr::TID2 | hcr::TID4;

#[rustfmt::skip]
pub(crate) static TABLE: &[Register] = &[
    constant!("MIDR_EL1" (3, 0, 0, 0, 0) |a| if virtualized(a) { a.cx.cpu.sys.vpidr } else { a.cx.guest.id.midr }),
    constant!("MPIDR_EL1" (3, 0, 0, 0, 5) |a| if virtualized(a) { a.cx.cpu.sys.vmpidr } else { a.cx.guest.mpidr(a.cx.cpu.index) }),
    constant!("REVIDR_EL1" (3, 0, 0, 0, 6) |_| 0).traps(hcr::TID1),
    constant!("AIDR_EL1" (3, 1, 0, 0, 7) |_| 0).traps(hcr::TID1),
    constant!("ID_AA64PFR0_EL1" (3, 0, 0, 4, 0) |a| a.cx.guest.id.pfr0).traps(hcr::TID3),
    constant!("ID_AA64PFR1_EL1" (3, 0, 0, 4, 1) |a| a.cx.guest.id.pfr1).traps(hcr::TID3),
    constant!("ID_AA64PFR2_EL1" (3, 0, 0, 4, 2) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64ZFR0_EL1" (3, 0, 0, 4, 4) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64SMFR0_EL1" (3, 0, 0, 4, 5) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64FPFR0_EL1" (3, 0, 0, 4, 7) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64DFR0_EL1" (3, 0, 0, 5, 0) |a| a.cx.guest.id.dfr0).traps(hcr::TID3),
    constant!("ID_AA64DFR1_EL1" (3, 0, 0, 5, 1) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64AFR0_EL1" (3, 0, 0, 5, 4) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64AFR1_EL1" (3, 0, 0, 5, 5) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64ISAR0_EL1" (3, 0, 0, 6, 0) |a| a.cx.guest.id.isar0).traps(hcr::TID3),
    constant!("ID_AA64ISAR1_EL1" (3, 0, 0, 6, 1) |a| a.cx.guest.id.isar1).traps(hcr::TID3),
    constant!("ID_AA64ISAR2_EL1" (3, 0, 0, 6, 2) |a| a.cx.guest.id.isar2).traps(hcr::TID3),
    constant!("ID_AA64ISAR3_EL1" (3, 0, 0, 6, 3) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64MMFR0_EL1" (3, 0, 0, 7, 0) |a| a.cx.guest.id.mmfr0).traps(hcr::TID3),
    constant!("ID_AA64MMFR1_EL1" (3, 0, 0, 7, 1) |a| a.cx.guest.id.mmfr1).traps(hcr::TID3),
    constant!("ID_AA64MMFR2_EL1" (3, 0, 0, 7, 2) |a| a.cx.guest.id.mmfr2).traps(hcr::TID3),
    constant!("ID_AA64MMFR3_EL1" (3, 0, 0, 7, 3) |_| 0).traps(hcr::TID3),
    constant!("ID_AA64MMFR4_EL1" (3, 0, 0, 7, 4) |_| 0).traps(hcr::TID3),
    constant!("CLIDR_EL1" (3, 1, 0, 0, 1) |a| a.cx.guest.id.clidr).traps(CACHES),
    constant!("CCSIDR_EL1" (3, 1, 0, 0, 0) ccsidr).traps(CACHES),
    special!("CSSELR_EL1" (3, 2, 0, 0, 0) |a| a.cx.cpu.sys.csselr, |a, value| a.cx.cpu.sys.csselr = value & 0xf).traps(CACHES),
    constant!("CTR_EL0" (3, 3, 0, 0, 1) |a| a.cx.guest.id.ctr).traps(hcr::TID2).guard(ctr_guard),
    constant!("DCZID_EL0" (3, 3, 0, 0, 7) |a| {
        let allowed = crate::Mode(a.cx.cpu.header.mode).zva_allowed();
        DCZID | if allowed { 0 } else { 1 << 4 }
    }),
];
