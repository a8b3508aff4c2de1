//! The CPU interface's registers (IHI 0048B, 4.4): priorities, acknowledgement and end of interrupt.

use super::{Core, Highest};
use crate::gic::{IDLE, PRIORITY_MASK, SGIS, SPECIAL, SPURIOUS};
use serde::{Deserialize, Serialize};

/// Register offsets in bytes.
mod reg {
    pub(super) const CTLR: u64 = 0x0;
    pub(super) const PMR: u64 = 0x4;
    pub(super) const BPR: u64 = 0x8;
    pub(super) const IAR: u64 = 0xc;
    pub(super) const EOIR: u64 = 0x10;
    pub(super) const RPR: u64 = 0x14;
    pub(super) const HPPIR: u64 = 0x18;
    /// The aliased registers are group 1's.
    pub(super) const ABPR: u64 = 0x1c;
    pub(super) const AIAR: u64 = 0x20;
    pub(super) const AEOIR: u64 = 0x24;
    pub(super) const AHPPIR: u64 = 0x28;
    pub(super) const APR0: u64 = 0xd0;
    pub(super) const NSAPR0: u64 = 0xe0;
    pub(super) const IIDR: u64 = 0xfc;
    pub(super) const DIR: u64 = 0x1000;
}

mod ctlr {
    pub(super) const GROUPS: u32 = 3;
    /// The unaliased registers acknowledge group 1 too.
    pub(super) const ACK_CTL: u32 = 4;
    pub(super) const FIQ_ENABLE: u32 = 8;
    /// GICC_BPR is for both groups.
    pub(super) const CBPR: u32 = 0x10;
    /// Ending an interrupt drops its priority only; deactivation is separate.
    pub(super) const EOI_MODE: u32 = 0x200;
    pub(super) const WRITABLE: u32 = GROUPS | ACK_CTL | FIQ_ENABLE | CBPR | EOI_MODE;
}

/// A GIC-400's: product 2, architecture version 2, implementer Arm.
const IIDR: u32 = 0x0202_043b;
/// Least binary points: all five priority bits pre-empt.
const MIN_BINARY_POINT: [u8; 2] = [2, 3];
/// What acknowledging gives where the pending interrupt is of the other group.
const OTHER_GROUP: u32 = 1022;

/// The registers of one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Interface {
    ctlr: u32,
    pmr: u8,
    /// By group.
    binary_point: [u8; 2],
    /// By group: priorities being handled, a bit a level.
    active: [u32; 2],
}

impl Default for Interface {
    fn default() -> Self {
        Self { ctlr: 0, pmr: 0, binary_point: MIN_BINARY_POINT, active: [0; 2] }
    }
}

impl Interface {
    /// Groups enabled, a bit each.
    pub(super) fn groups(&self) -> u32 {
        self.ctlr & ctlr::GROUPS
    }

    pub(super) fn group_0_is_fiq(&self) -> bool {
        self.ctlr & ctlr::FIQ_ENABLE != 0
    }

    pub(super) fn is_possible(&self) -> bool {
        let points = self.binary_point.iter().zip(MIN_BINARY_POINT);
        self.ctlr & !ctlr::WRITABLE == 0
            && self.pmr & !PRIORITY_MASK == 0
            && points.into_iter().all(|(point, min)| (min..=7).contains(point))
    }

    /// The priority being handled now.
    fn running(&self) -> u8 {
        match (self.active[0] | self.active[1]).trailing_zeros() {
            32 => IDLE,
            level => (level as u8) << 3,
        }
    }

    /// The bits of a priority that decide on pre-emption, in a group.
    fn group_priority_mask(&self, group: usize) -> u8 {
        let shift = match group {
            1 if self.ctlr & ctlr::CBPR == 0 => u32::from(self.binary_point[1]),
            _ => u32::from(self.binary_point[0]) + 1,
        };
        (0xff_u32 << shift) as u8
    }

    /// Is the interrupt signalled to the CPU: not masked, and more important than what it does?
    pub(super) fn takes(&self, highest: &Highest) -> bool {
        let (running, mask) = (self.running(), self.group_priority_mask(highest.group));
        highest.priority < self.pmr && (running == IDLE || highest.priority & mask < running & mask)
    }

    /// Ends the handling of the most important interrupt, if it is of a group in `groups`.
    fn drop_priority(&mut self, groups: u32) -> bool {
        let first = |active: u32| active.trailing_zeros();
        let group = usize::from(first(self.active[1]) < first(self.active[0]));
        let ours = self.active[group] != 0 && groups >> group & 1 != 0;
        if ours {
            self.active[group] &= self.active[group] - 1;
        }
        ours
    }

    /// Groups that a register is for: the aliased ones are for group 1, the others for group 0 or both.
    fn groups_of(&self, aliased: bool) -> u32 {
        match aliased {
            true => 2,
            false if self.ctlr & ctlr::ACK_CTL != 0 => 3,
            false => 1,
        }
    }
}

impl Core {
    /// An interrupt as `GICC_IAR` and `GICC_HPPIR` name it: SGIs with the CPU they are from.
    fn name(&self, cpu: usize, intid: u32) -> u32 {
        match self.state.cpus[cpu].sgi_sources.get(intid as usize) {
            Some(from) if *from != 0 => intid | from.trailing_zeros() << 10,
            _ => intid,
        }
    }

    /// The pending interrupt, if it is of a group in `groups`; else why there is none.
    fn pending(&self, cpu: usize, groups: u32) -> Result<Highest, u32> {
        let highest = self.highest(cpu).ok_or(SPURIOUS)?;
        match groups >> highest.group & 1 {
            1 => Ok(highest),
            _ if highest.group == 1 => Err(OTHER_GROUP),
            _ => Err(SPURIOUS),
        }
    }

    fn acknowledge(&mut self, cpu: usize, groups: u32) -> u32 {
        let interface = &self.state.cpus[cpu].interface;
        if !self.highest(cpu).is_some_and(|highest| interface.takes(&highest)) {
            return SPURIOUS;
        }
        let highest = match self.pending(cpu, groups) {
            Ok(highest) => highest,
            Err(none) => return none,
        };
        let name = self.name(cpu, highest.intid);
        let private = &mut self.state.cpus[cpu];
        let level = (highest.priority & private.interface.group_priority_mask(highest.group)) >> 3;
        private.interface.active[highest.group] |= 1 << level;
        if let Some((lines, number)) = self.lines_mut(cpu, highest.intid) {
            lines.activate(number);
        }
        if highest.intid < SGIS {
            let private = &mut self.state.cpus[cpu];
            let from = &mut private.sgi_sources[highest.intid as usize];
            *from &= from.wrapping_sub(1);
            private.update_sgis();
        }
        name
    }

    fn end(&mut self, cpu: usize, groups: u32, intid: u32) {
        if intid >= SPECIAL {
            return;
        }
        let interface = &mut self.state.cpus[cpu].interface;
        if interface.drop_priority(groups) && interface.ctlr & ctlr::EOI_MODE == 0 {
            self.deactivate(cpu, intid);
        }
    }

    fn deactivate(&mut self, cpu: usize, intid: u32) {
        if let Some((lines, number)) = self.lines_mut(cpu, intid) {
            lines.active &= !(1 << number);
        }
    }

    pub(super) fn read_interface(&mut self, cpu: usize, offset: u64) -> u32 {
        let interface = &self.state.cpus[cpu].interface;
        let groups = interface.groups_of(matches!(offset, reg::AIAR | reg::AHPPIR));
        match offset {
            reg::CTLR => interface.ctlr,
            reg::PMR => interface.pmr.into(),
            reg::BPR => interface.binary_point[0].into(),
            reg::ABPR => interface.binary_point[1].into(),
            reg::IAR | reg::AIAR => self.acknowledge(cpu, groups),
            reg::RPR => interface.running().into(),
            reg::HPPIR | reg::AHPPIR => match self.pending(cpu, groups) {
                Ok(highest) => self.name(cpu, highest.intid),
                Err(none) => none,
            },
            reg::APR0 => interface.active[0],
            reg::NSAPR0 => interface.active[1],
            reg::IIDR => IIDR,
            _ => 0,
        }
    }

    pub(super) fn write_interface(&mut self, cpu: usize, offset: u64, value: u32) {
        let interface = &mut self.state.cpus[cpu].interface;
        let (groups, intid) = (interface.groups_of(offset == reg::AEOIR), value & 0x3ff);
        match offset {
            reg::CTLR => interface.ctlr = value & ctlr::WRITABLE,
            reg::PMR => interface.pmr = value as u8 & PRIORITY_MASK,
            reg::BPR | reg::ABPR => {
                let group = usize::from(offset == reg::ABPR);
                interface.binary_point[group] = (value as u8 & 7).max(MIN_BINARY_POINT[group]);
            }
            reg::EOIR | reg::AEOIR => self.end(cpu, groups, intid),
            reg::DIR if interface.ctlr & ctlr::EOI_MODE != 0 => self.deactivate(cpu, intid),
            reg::APR0 => interface.active[0] = value,
            reg::NSAPR0 => interface.active[1] = value,
            _ => {}
        }
    }
}
