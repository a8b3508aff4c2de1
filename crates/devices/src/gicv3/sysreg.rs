//! Names of the CPU interface's system registers, as the instructions that access them have them.

/// A system register's number: op0, op1, CRn, CRm and op2, as in bits 20:5 of MRS and MSR.
pub const fn number(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

const fn icc(crm: u16, op2: u16) -> u16 {
    number(3, 0, 12, crm, op2)
}

/// Interrupt priority mask.
pub const ICC_PMR_EL1: u16 = number(3, 0, 4, 6, 0);
/// Acknowledges group 0.
pub const ICC_IAR0_EL1: u16 = icc(8, 0);
/// Ends a group 0 interrupt.
pub const ICC_EOIR0_EL1: u16 = icc(8, 1);
/// The pending interrupt, if of group 0.
pub const ICC_HPPIR0_EL1: u16 = icc(8, 2);
/// Group 0 binary point.
pub const ICC_BPR0_EL1: u16 = icc(8, 3);
/// Group 0 active priorities.
pub const ICC_AP0R0_EL1: u16 = icc(8, 4);
/// Group 1 active priorities.
pub const ICC_AP1R0_EL1: u16 = icc(9, 0);
/// Deactivates an interrupt.
pub const ICC_DIR_EL1: u16 = icc(11, 1);
/// Running priority.
pub const ICC_RPR_EL1: u16 = icc(11, 3);
/// Generates group 1 SGIs.
pub const ICC_SGI1R_EL1: u16 = icc(11, 5);
/// Generates group 1 SGIs of the other Security state.
pub const ICC_ASGI1R_EL1: u16 = icc(11, 6);
/// Generates group 0 SGIs.
pub const ICC_SGI0R_EL1: u16 = icc(11, 7);
/// Acknowledges group 1.
pub const ICC_IAR1_EL1: u16 = icc(12, 0);
/// Ends a group 1 interrupt.
pub const ICC_EOIR1_EL1: u16 = icc(12, 1);
/// The pending interrupt, if of group 1.
pub const ICC_HPPIR1_EL1: u16 = icc(12, 2);
/// Group 1 binary point.
pub const ICC_BPR1_EL1: u16 = icc(12, 3);
/// Control.
pub const ICC_CTLR_EL1: u16 = icc(12, 4);
/// System register enable.
pub const ICC_SRE_EL1: u16 = icc(12, 5);
/// Group 0 enable.
pub const ICC_IGRPEN0_EL1: u16 = icc(12, 6);
/// Group 1 enable.
pub const ICC_IGRPEN1_EL1: u16 = icc(12, 7);
/// System register enable, EL2.
pub const ICC_SRE_EL2: u16 = number(3, 4, 12, 9, 5);
/// Control, EL3.
pub const ICC_CTLR_EL3: u16 = number(3, 6, 12, 12, 4);
/// System register enable, EL3.
pub const ICC_SRE_EL3: u16 = number(3, 6, 12, 12, 5);
/// Hypervisor control.
pub const ICH_HCR_EL2: u16 = number(3, 4, 12, 11, 0);
/// What the virtual interface has.
pub const ICH_VTR_EL2: u16 = number(3, 4, 12, 11, 1);
/// Why the maintenance interrupt is asserted.
pub const ICH_MISR_EL2: u16 = number(3, 4, 12, 11, 2);
/// List registers whose interrupts have ended.
pub const ICH_EISR_EL2: u16 = number(3, 4, 12, 11, 3);
/// List registers that are free.
pub const ICH_ELRSR_EL2: u16 = number(3, 4, 12, 11, 5);
/// The guest's controls.
pub const ICH_VMCR_EL2: u16 = number(3, 4, 12, 11, 7);
/// The guest's group 0 active priorities.
pub const ICH_AP0R0_EL2: u16 = number(3, 4, 12, 8, 0);
/// The guest's group 1 active priorities.
pub const ICH_AP1R0_EL2: u16 = number(3, 4, 12, 9, 0);
/// The first list register; the others follow it.
pub const ICH_LR0_EL2: u16 = number(3, 4, 12, 12, 0);
/// The last list register that could be.
pub const ICH_LR15_EL2: u16 = ICH_LR0_EL2 + 15;
/// Group 1 enable, EL3.
pub const ICC_IGRPEN1_EL3: u16 = number(3, 6, 12, 12, 7);
