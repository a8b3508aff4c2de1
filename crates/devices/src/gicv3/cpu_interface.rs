//! The CPU interface (IHI 0069H, 4.8 and 12.1): priorities, acknowledgement and end of interrupt, and SGIs, behind the
//! ICC_* system registers.

use super::{Core, FIRST_LPI, Highest, ID_BITS, Shared, sysreg};
use crate::gic::{IDLE, PRIORITY_MASK, SGIS, SPECIAL, SPURIOUS};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// Least binary points: all five priority bits pre-empt.
const MIN_BINARY_POINT: [u8; 2] = [2, 3];

mod ctlr {
    /// BPR0 is for both groups.
    pub(super) const CBPR: u8 = 1;
    /// Ending an interrupt drops its priority only; deactivation is separate.
    pub(super) const EOI_MODE: u8 = 2;
    pub(super) const WRITABLE: u8 = CBPR | EOI_MODE;
    /// Five priority bits, less one.
    pub(super) const PRI_BITS: u64 = 4 << 8;
    /// INTIDs of 16 bits.
    pub(super) const ID_BITS_16: u64 = 0 << 11;
    /// Affinity level 3 in SGIs can be other than 0.
    pub(super) const A3V: u64 = 1 << 15;
}
const _: () = assert!(ID_BITS == 16);

/// System registers in use, IRQ and FIQ bypass off; at EL2 and EL3, lower levels may use them.
const SRE: u64 = 7;
const SRE_LOWER: u64 = 8;

/// The registers of one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Interface {
    pmr: u8,
    /// By group.
    binary_point: [u8; 2],
    /// Groups enabled, a bit each.
    enabled: u8,
    ctlr: u8,
    /// By group: priorities being handled, a bit a level.
    active: [u32; 2],
}

impl Default for Interface {
    fn default() -> Self {
        Self { pmr: 0, binary_point: MIN_BINARY_POINT, enabled: 0, ctlr: 0, active: [0; 2] }
    }
}

impl Interface {
    /// Groups enabled, a bit each.
    pub(super) fn groups(&self) -> u32 {
        self.enabled.into()
    }

    pub(super) fn is_possible(&self) -> bool {
        let points = self.binary_point.iter().zip(MIN_BINARY_POINT);
        self.pmr & !PRIORITY_MASK == 0
            && points.into_iter().all(|(point, min)| (min..=7).contains(point))
            && self.enabled <= 3
            && self.ctlr & !ctlr::WRITABLE == 0
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

    /// Ends the handling of the most important interrupt, if it is of `group`; tells whether there was one.
    fn drop_priority(&mut self, group: usize) -> bool {
        let first = |active: u32| active.trailing_zeros();
        let ours = self.active[group] != 0 && first(self.active[group]) <= first(self.active[1 - group]);
        if ours {
            self.active[group] &= self.active[group] - 1;
        }
        ours
    }

    fn binary_point(&self, group: usize) -> u8 {
        match group {
            1 if self.ctlr & ctlr::CBPR != 0 => (self.binary_point[0] + 1).min(7),
            _ => self.binary_point[group],
        }
    }
}

impl Core {
    /// What acknowledging would give: the interrupt signalled, if it is of `group`.
    fn acknowledgeable(&self, cpu: usize, group: usize) -> Option<Highest> {
        let interface = &self.state.interfaces[cpu];
        self.highest(cpu).filter(|highest| highest.group == group && interface.takes(highest))
    }

    fn acknowledge(&mut self, cpu: usize, group: usize) -> u32 {
        let Some(highest) = self.acknowledgeable(cpu, group) else { return SPURIOUS };
        let interface = &mut self.state.interfaces[cpu];
        let level = (highest.priority & interface.group_priority_mask(group)) >> 3;
        interface.active[group] |= 1 << level;
        if highest.intid >= FIRST_LPI {
            self.acknowledge_lpi(cpu, &highest);
        } else if let Some((lines, number)) = self.lines_mut(cpu, highest.intid) {
            lines.activate(number);
        }
        highest.intid
    }

    fn end(&mut self, cpu: usize, group: usize, intid: u32) {
        if (SPECIAL..=SPURIOUS).contains(&intid) {
            return;
        }
        let interface = &mut self.state.interfaces[cpu];
        if interface.drop_priority(group) && interface.ctlr & ctlr::EOI_MODE == 0 {
            self.deactivate(cpu, intid);
        }
    }

    pub(super) fn deactivate(&mut self, cpu: usize, intid: u32) {
        if let Some((lines, number)) = self.lines_mut(cpu, intid) {
            lines.active &= !(1 << number);
        }
    }

    /// Sends an SGI (ICC_SGI1R_EL1 and its like): to CPUs where it is of that group.
    fn send_sgi(&mut self, from: usize, group: u32, value: u64) {
        let field = |shift: u32, bits: u32| (value >> shift) as u32 & ((1 << bits) - 1);
        let (to_others, intid) = (field(40, 1) != 0, field(24, 4));
        let cluster = field(48, 8) << 24 | field(32, 8) << 16 | field(16, 8) << 8;
        let (range, targets) = (field(44, 4), field(0, 16));
        for (cpu, port) in self.cpus.iter().enumerate() {
            let level0 = port.affinity & 0xff;
            let named =
                port.affinity & !0xff == cluster && level0 / 16 == range && targets >> (level0 % 16) & 1 != 0;
            let lines = &mut self.state.redistributors[cpu].lines;
            if (if to_others { cpu != from } else { named }) && lines.group >> intid & 1 == group {
                lines.latched |= 1 << intid;
            }
        }
    }

    fn read_sysreg(&mut self, cpu: usize, register: u16) -> Option<u64> {
        use sysreg::*;
        let interface = &self.state.interfaces[cpu];
        let pending =
            |core: &Self, group| core.highest(cpu).filter(|h| h.group == group).map_or(SPURIOUS, |h| h.intid);
        let value = match register {
            ICC_PMR_EL1 => interface.pmr.into(),
            ICC_IAR0_EL1 => self.acknowledge(cpu, 0).into(),
            ICC_IAR1_EL1 => self.acknowledge(cpu, 1).into(),
            ICC_HPPIR0_EL1 => pending(self, 0).into(),
            ICC_HPPIR1_EL1 => pending(self, 1).into(),
            ICC_BPR0_EL1 => interface.binary_point(0).into(),
            ICC_BPR1_EL1 => interface.binary_point(1).into(),
            ICC_AP0R0_EL1 => interface.active[0].into(),
            ICC_AP1R0_EL1 => interface.active[1].into(),
            ICC_RPR_EL1 => interface.running().into(),
            ICC_CTLR_EL1 | ICC_CTLR_EL3 => {
                u64::from(interface.ctlr) | ctlr::PRI_BITS | ctlr::ID_BITS_16 | ctlr::A3V
            }
            ICC_SRE_EL1 => SRE,
            ICC_SRE_EL2 | ICC_SRE_EL3 => SRE | SRE_LOWER,
            ICC_IGRPEN0_EL1 => u64::from(interface.enabled & 1),
            ICC_IGRPEN1_EL1 => u64::from(interface.enabled >> 1),
            // One Security state: the lower bit is the other's and does nothing.
            ICC_IGRPEN1_EL3 => u64::from(interface.enabled & 2),
            _ => return self.read_virtual_control(cpu, register),
        };
        Some(value)
    }

    fn write_sysreg(&mut self, cpu: usize, register: u16, value: u64) -> bool {
        use sysreg::*;
        let interface = &mut self.state.interfaces[cpu];
        let intid = value as u32 & 0xff_ffff;
        match register {
            ICC_PMR_EL1 => interface.pmr = value as u8 & PRIORITY_MASK,
            ICC_EOIR0_EL1 => self.end(cpu, 0, intid),
            ICC_EOIR1_EL1 => self.end(cpu, 1, intid),
            ICC_DIR_EL1 if interface.ctlr & ctlr::EOI_MODE != 0 => self.deactivate(cpu, intid),
            ICC_BPR1_EL1 if interface.ctlr & ctlr::CBPR != 0 => {}
            ICC_BPR0_EL1 | ICC_BPR1_EL1 => {
                let group = usize::from(register == ICC_BPR1_EL1);
                interface.binary_point[group] = (value as u8 & 7).max(MIN_BINARY_POINT[group]);
            }
            ICC_AP0R0_EL1 => interface.active[0] = value as u32,
            ICC_AP1R0_EL1 => interface.active[1] = value as u32,
            ICC_CTLR_EL1 | ICC_CTLR_EL3 => interface.ctlr = value as u8 & ctlr::WRITABLE,
            ICC_IGRPEN0_EL1 => interface.enabled = interface.enabled & !1 | value as u8 & 1,
            ICC_IGRPEN1_EL1 => interface.enabled = interface.enabled & !2 | (value as u8 & 1) << 1,
            ICC_IGRPEN1_EL3 => interface.enabled = interface.enabled & !2 | value as u8 & 2,
            ICC_SGI1R_EL1 => self.send_sgi(cpu, 1, value),
            ICC_SGI0R_EL1 => self.send_sgi(cpu, 0, value),
            // There is no other Security state; the system registers stay in use.
            ICC_DIR_EL1 | ICC_ASGI1R_EL1 | ICC_SRE_EL1 | ICC_SRE_EL2 | ICC_SRE_EL3 => {}
            _ => return self.write_virtual_control(cpu, register, value),
        }
        true
    }
}
const _: () = assert!(SGIS == 16);

/// The ICC_*, ICH_* and ICV_* registers of one CPU. Cheap to clone; called by the CPU on its own thread. Which exception levels may use
/// which register is the CPU's to check.
#[derive(Clone)]
pub struct CpuInterface {
    shared: Arc<Shared>,
    cpu: usize,
}

impl fmt::Debug for CpuInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuInterface({})", self.cpu)
    }
}

impl CpuInterface {
    pub(super) fn new(shared: Arc<Shared>, cpu: usize) -> Self {
        Self { shared, cpu }
    }

    /// Does `access` for this CPU and drives what follows from it; `None` if there is no such CPU.
    fn access<T>(&self, access: impl FnOnce(&mut Core, usize) -> T) -> Option<T> {
        let mut core = self.shared.core();
        if self.cpu >= core.cpus.len() {
            return None;
        }
        let result = access(&mut core, self.cpu);
        core.update();
        Some(result)
    }

    /// Reads a register, numbered as [`sysreg::number`] does; reading ICC_IAR*_EL1 acknowledges. `None`: there is no
    /// such register here, or it is write-only.
    pub fn read(&self, register: u16) -> Option<u64> {
        self.access(|core, cpu| core.read_sysreg(cpu, register))?
    }

    /// Writes a register; `false`: there is no such register here, or it is read-only.
    pub fn write(&self, register: u16, value: u64) -> bool {
        self.access(|core, cpu| core.write_sysreg(cpu, register, value)).unwrap_or(false)
    }

    /// Reads an ICV_* register, which has its ICC_* register's number: what a guest reads while `HCR_EL2` sends
    /// interrupts of that group to the hypervisor.
    pub fn read_virtual(&self, register: u16) -> Option<u64> {
        self.access(|core, cpu| core.read_virtual(cpu, register))?
    }

    /// Writes an ICV_* register.
    pub fn write_virtual(&self, register: u16, value: u64) -> bool {
        self.access(|core, cpu| core.write_virtual(cpu, register, value)).unwrap_or(false)
    }
}
