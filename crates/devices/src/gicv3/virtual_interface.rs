//! The virtual CPU interface (IHI 0069H, 6 and 12.3 to 12.5): the list registers and controls that a hypervisor has
//! (ICH_*_EL2), and what its guest then sees in place of the CPU interface (ICV_*_EL1).

use super::{Core, FIRST_LPI, ID_BITS, sysreg};
use crate::gic::{IDLE, PRIORITY_MASK, SPECIAL, SPURIOUS};
use serde::{Deserialize, Serialize};

/// List registers.
const LIST_REGISTERS: usize = 4;
/// The maintenance interrupt's PPI.
pub(super) const MAINTENANCE: u32 = 25;
/// Least binary points: all five priority bits pre-empt.
const MIN_BINARY_POINT: [u8; 2] = [2, 3];

/// `ICH_HCR_EL2`.
mod hcr {
    pub(super) const EN: u32 = 1;
    /// Underflow interrupt enable.
    pub(super) const UIE: u32 = 1 << 1;
    /// List register entry not present interrupt enable.
    pub(super) const LRENPIE: u32 = 1 << 2;
    /// No pending interrupt enable.
    pub(super) const NPIE: u32 = 1 << 3;
    /// Interrupts when groups 0 and 1 become enabled, and disabled.
    pub(super) const VGRP0EIE: u32 = 1 << 4;
    pub(super) const VGRP0DIE: u32 = 1 << 5;
    pub(super) const VGRP1EIE: u32 = 1 << 6;
    pub(super) const VGRP1DIE: u32 = 1 << 7;
    pub(super) const EOI_COUNT_SHIFT: u32 = 27;
    /// All of the above, the trap controls and EOIcount.
    pub(super) const WRITABLE: u32 = 0xf800_7cff;
}

/// `ICH_VMCR_EL2`, which the ICV_* registers are views of.
mod vmcr {
    pub(super) const CBPR: u32 = 1 << 4;
    pub(super) const EOIM: u32 = 1 << 9;
    /// VBPR1 and VBPR0.
    pub(super) const BINARY_POINT_SHIFT: [u32; 2] = [21, 18];
    pub(super) const PRIORITY_SHIFT: u32 = 24;
    pub(super) const WRITABLE: u32 = 3 | CBPR | EOIM | 0x3f << 18 | 0xf8 << PRIORITY_SHIFT;
}

/// `ICH_LR<n>_EL2`.
mod lr {
    pub(super) const PENDING: u64 = 1 << 62;
    pub(super) const ACTIVE: u64 = 1 << 63;
    pub(super) const STATE: u64 = PENDING | ACTIVE;
    /// Deactivation deactivates a physical interrupt too.
    pub(super) const HW: u64 = 1 << 61;
    pub(super) const GROUP_SHIFT: u32 = 60;
    pub(super) const PRIORITY_SHIFT: u32 = 48;
    pub(super) const PINTID_SHIFT: u32 = 32;
    /// Without HW: maintenance interrupt at the end.
    pub(super) const EOI: u64 = 1 << 41;
    pub(super) const WRITABLE: u64 =
        STATE | HW | 1 << GROUP_SHIFT | 0xf8 << PRIORITY_SHIFT | 0x1fff_ffff_ffff;
}

/// `ICH_VTR_EL2`: five priority and pre-emption bits, INTIDs of 16 bits, Aff3, and the list registers.
const VTR: u64 = 4 << 29 | 4 << 26 | 1 << 21 | (LIST_REGISTERS as u64 - 1);
const _: () = assert!(ID_BITS == 16);

/// The registers of one CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Virtual {
    hcr: u32,
    vmcr: u32,
    list: [u64; LIST_REGISTERS],
    /// By group: priorities being handled, a bit a level.
    active: [u32; 2],
}

fn priority(lr: u64) -> u8 {
    (lr >> lr::PRIORITY_SHIFT) as u8
}

fn group(lr: u64) -> usize {
    (lr >> lr::GROUP_SHIFT & 1) as usize
}

fn vintid(lr: u64) -> u32 {
    lr as u32
}

impl Virtual {
    pub(super) fn is_possible(&self) -> bool {
        self.hcr & !hcr::WRITABLE == 0
            && self.vmcr & !vmcr::WRITABLE == 0
            && self.list.iter().all(|lr| lr & !lr::WRITABLE == 0)
    }

    /// A group's binary point as it acts.
    fn binary_point(&self, group: usize) -> u8 {
        ((self.vmcr >> vmcr::BINARY_POINT_SHIFT[group]) as u8 & 7).max(MIN_BINARY_POINT[group])
    }

    fn has_common_binary_point(&self) -> bool {
        self.vmcr & vmcr::CBPR != 0
    }

    fn group_priority_mask(&self, group: usize) -> u8 {
        let shift = match group {
            1 if !self.has_common_binary_point() => u32::from(self.binary_point(1)),
            _ => u32::from(self.binary_point(0)) + 1,
        };
        (0xff_u32 << shift) as u8
    }

    fn running(&self) -> u8 {
        match (self.active[0] | self.active[1]).trailing_zeros() {
            32 => IDLE,
            level => (level as u8) << 3,
        }
    }

    /// The list register whose interrupt the guest would handle next.
    fn highest(&self) -> Option<usize> {
        let is_candidate = |lr: u64| lr & lr::STATE == lr::PENDING && self.vmcr >> group(lr) & 1 != 0;
        let candidates = (0..LIST_REGISTERS).filter(|n| is_candidate(self.list[*n]));
        candidates.min_by_key(|n| priority(self.list[*n])).filter(|_| self.hcr & hcr::EN != 0)
    }

    /// The same, if it is signalled to the guest.
    fn signalled(&self) -> Option<usize> {
        let lr = self.list[self.highest()?];
        let (mask, running) = (self.group_priority_mask(group(lr)), self.running());
        let unmasked = priority(lr) < (self.vmcr >> vmcr::PRIORITY_SHIFT) as u8;
        let preempts = running == IDLE || priority(lr) & mask < running & mask;
        self.highest().filter(|_| unmasked && preempts)
    }

    /// Virtual `[FIQ, IRQ]`.
    pub(super) fn outputs(&self) -> [bool; 2] {
        let signalled = self.signalled().map(|n| group(self.list[n]));
        [0, 1].map(|group| signalled == Some(group))
    }

    /// `ICH_EISR_EL2`: interrupts that have ended and whose hypervisor wants to know.
    fn ended(&self) -> u64 {
        let has_ended = |lr: u64| lr & (lr::STATE | lr::HW | lr::EOI) == lr::EOI;
        self.mask_of(has_ended)
    }

    /// `ICH_ELRSR_EL2`: list registers that are free.
    fn free(&self) -> u64 {
        self.mask_of(|lr| lr & lr::STATE == 0 && (lr & lr::HW != 0 || lr & lr::EOI == 0))
    }

    fn mask_of(&self, holds: impl Fn(u64) -> bool) -> u64 {
        self.list.iter().enumerate().fold(0, |mask, (n, lr)| mask | u64::from(holds(*lr)) << n)
    }

    /// `ICH_MISR_EL2`: why the hypervisor is to look.
    fn maintenance_causes(&self) -> u32 {
        let valid = self.list.iter().filter(|lr| *lr & lr::STATE != 0).count();
        let pending = self.list.iter().any(|lr| lr & lr::STATE == lr::PENDING);
        let enabled = |group: u32| self.vmcr >> group & 1 != 0;
        let wants = |bit: u32| self.hcr & bit != 0;
        let causes = [
            self.ended() != 0,
            wants(hcr::UIE) && valid <= 1,
            wants(hcr::LRENPIE) && self.hcr >> hcr::EOI_COUNT_SHIFT != 0,
            wants(hcr::NPIE) && !pending,
            wants(hcr::VGRP0EIE) && enabled(0),
            wants(hcr::VGRP0DIE) && !enabled(0),
            wants(hcr::VGRP1EIE) && enabled(1),
            wants(hcr::VGRP1DIE) && !enabled(1),
        ];
        causes.iter().enumerate().fold(0, |bits, (n, cause)| bits | u32::from(*cause) << n)
    }

    /// Is the maintenance interrupt asserted?
    pub(super) fn needs_maintenance(&self) -> bool {
        self.hcr & hcr::EN != 0 && self.maintenance_causes() != 0
    }

    fn acknowledge(&mut self, group: usize) -> u32 {
        let Some(n) = self.signalled().filter(|n| self::group(self.list[*n]) == group) else {
            return SPURIOUS;
        };
        let lr = self.list[n];
        self.active[group] |= 1 << ((priority(lr) & self.group_priority_mask(group)) >> 3);
        // LPIs are never active.
        let state = if vintid(lr) >= FIRST_LPI { 0 } else { lr::ACTIVE };
        self.list[n] = lr & !lr::STATE | state;
        vintid(lr)
    }

    fn drop_priority(&mut self, group: usize) -> bool {
        let first = |active: u32| active.trailing_zeros();
        let ours = self.active[group] != 0 && first(self.active[group]) <= first(self.active[1 - group]);
        if ours {
            self.active[group] &= self.active[group] - 1;
        }
        ours
    }

    /// Deactivates a virtual interrupt; gives the physical one that goes with it.
    fn deactivate(&mut self, intid: u32) -> Option<u32> {
        let is_it = |lr: &&mut u64| **lr & lr::ACTIVE != 0 && vintid(**lr) == intid;
        let Some(lr) = self.list.iter_mut().find(is_it) else {
            // The hypervisor has it elsewhere.
            let count = (self.hcr >> hcr::EOI_COUNT_SHIFT).wrapping_add(1);
            self.hcr = self.hcr & !(0x1f << hcr::EOI_COUNT_SHIFT) | count << hcr::EOI_COUNT_SHIFT;
            return None;
        };
        *lr &= !lr::ACTIVE;
        (*lr & lr::HW != 0).then_some((*lr >> lr::PINTID_SHIFT) as u32 & 0x1fff)
    }

    /// Ends a virtual interrupt; gives the physical one that is deactivated with it.
    fn end(&mut self, group: usize, intid: u32) -> Option<u32> {
        if (SPECIAL..=SPURIOUS).contains(&intid) || !self.drop_priority(group) {
            return None;
        }
        let together = self.vmcr & vmcr::EOIM == 0 && intid < FIRST_LPI;
        together.then(|| self.deactivate(intid)).flatten()
    }

    fn read_control(&self, register: u16) -> Option<u64> {
        use sysreg::*;
        Some(match register {
            ICH_HCR_EL2 => self.hcr.into(),
            ICH_VTR_EL2 => VTR,
            ICH_MISR_EL2 => self.maintenance_causes().into(),
            ICH_EISR_EL2 => self.ended(),
            ICH_ELRSR_EL2 => self.free(),
            ICH_VMCR_EL2 => self.vmcr.into(),
            ICH_AP0R0_EL2 => self.active[0].into(),
            ICH_AP1R0_EL2 => self.active[1].into(),
            ICH_LR0_EL2..=ICH_LR15_EL2 => *self.list.get(usize::from(register - ICH_LR0_EL2))?,
            _ => return None,
        })
    }

    fn write_control(&mut self, register: u16, value: u64) -> bool {
        use sysreg::*;
        match register {
            ICH_HCR_EL2 => self.hcr = value as u32 & hcr::WRITABLE,
            ICH_VMCR_EL2 => self.vmcr = value as u32 & vmcr::WRITABLE,
            ICH_AP0R0_EL2 => self.active[0] = value as u32,
            ICH_AP1R0_EL2 => self.active[1] = value as u32,
            ICH_LR0_EL2..=ICH_LR15_EL2 => match self.list.get_mut(usize::from(register - ICH_LR0_EL2)) {
                Some(lr) => *lr = value & lr::WRITABLE,
                None => return false,
            },
            _ => return false,
        }
        true
    }

    fn read_guest(&mut self, register: u16) -> Option<u64> {
        use sysreg::*;
        let pending = |group| self.highest().map(|n| self.list[n]).filter(|lr| self::group(*lr) == group);
        let binary_point = |group| match group {
            1 if self.has_common_binary_point() => (self.binary_point(0) + 1).min(7),
            _ => self.binary_point(group),
        };
        Some(match register {
            ICC_PMR_EL1 => (self.vmcr >> vmcr::PRIORITY_SHIFT).into(),
            ICC_IAR0_EL1 => self.acknowledge(0).into(),
            ICC_IAR1_EL1 => self.acknowledge(1).into(),
            ICC_HPPIR0_EL1 => pending(0).map_or(SPURIOUS, vintid).into(),
            ICC_HPPIR1_EL1 => pending(1).map_or(SPURIOUS, vintid).into(),
            ICC_BPR0_EL1 => binary_point(0).into(),
            ICC_BPR1_EL1 => binary_point(1).into(),
            ICC_AP0R0_EL1 => self.active[0].into(),
            ICC_AP1R0_EL1 => self.active[1].into(),
            ICC_RPR_EL1 => self.running().into(),
            // Five priority bits, INTIDs of 16 bits, Aff3.
            ICC_CTLR_EL1 => u64::from(self.vmcr >> 4 & 1 | self.vmcr >> 8 & 2) | 4 << 8 | 1 << 15,
            ICC_IGRPEN0_EL1 => u64::from(self.vmcr & 1),
            ICC_IGRPEN1_EL1 => u64::from(self.vmcr >> 1 & 1),
            _ => return None,
        })
    }

    /// Writes a register of the guest's; gives the physical interrupt that it deactivates. `None`: there is no such
    /// register.
    fn write_guest(&mut self, register: u16, value: u64) -> Option<Option<u32>> {
        use sysreg::*;
        let (bits, intid) = (value as u32, value as u32 & 0xff_ffff);
        let is_common = self.has_common_binary_point();
        let mut set =
            |mask: u32, shift: u32| self.vmcr = self.vmcr & !(mask << shift) | (bits & mask) << shift;
        match register {
            ICC_PMR_EL1 => set(PRIORITY_MASK.into(), vmcr::PRIORITY_SHIFT),
            ICC_BPR0_EL1 => set(7, vmcr::BINARY_POINT_SHIFT[0]),
            ICC_BPR1_EL1 if is_common => {}
            ICC_BPR1_EL1 => set(7, vmcr::BINARY_POINT_SHIFT[1]),
            ICC_IGRPEN0_EL1 => set(1, 0),
            ICC_IGRPEN1_EL1 => set(1, 1),
            ICC_CTLR_EL1 => {
                let modes = (bits & 1) << 4 | (bits & 2) << 8;
                self.vmcr = self.vmcr & !(vmcr::CBPR | vmcr::EOIM) | modes;
            }
            ICC_AP0R0_EL1 => self.active[0] = bits,
            ICC_AP1R0_EL1 => self.active[1] = bits,
            ICC_EOIR0_EL1 => return Some(self.end(0, intid)),
            ICC_EOIR1_EL1 => return Some(self.end(1, intid)),
            ICC_DIR_EL1 if self.vmcr & vmcr::EOIM != 0 => return Some(self.deactivate(intid)),
            ICC_DIR_EL1 => {}
            _ => return None,
        }
        Some(None)
    }
}

impl Core {
    /// Reads a register of the hypervisor's.
    pub(super) fn read_virtual_control(&self, cpu: usize, register: u16) -> Option<u64> {
        self.state.virtuals[cpu].read_control(register)
    }

    /// Writes a register of the hypervisor's; tells whether there is one.
    pub(super) fn write_virtual_control(&mut self, cpu: usize, register: u16, value: u64) -> bool {
        self.state.virtuals[cpu].write_control(register, value)
    }

    /// Reads a register of the guest's.
    pub(super) fn read_virtual(&mut self, cpu: usize, register: u16) -> Option<u64> {
        self.state.virtuals[cpu].read_guest(register)
    }

    /// Writes a register of the guest's; tells whether there is one.
    pub(super) fn write_virtual(&mut self, cpu: usize, register: u16, value: u64) -> bool {
        let Some(physical) = self.state.virtuals[cpu].write_guest(register, value) else { return false };
        if let Some(intid) = physical {
            self.deactivate(cpu, intid);
        }
        true
    }
}
