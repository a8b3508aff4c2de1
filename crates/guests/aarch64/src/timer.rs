//! The generic timers: one counter, four comparators (the manual, D12).

use crate::{Aarch64, Cpu, interrupts::ppi, system::Timer};
use isomer_core::clock::{ns_to_ticks, ticks_to_ns};

/// The timers of a PE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum TimerId {
    /// EL1 physical.
    Physical,
    /// EL1 virtual.
    Virtual,
    /// EL2 physical.
    HypPhysical,
    /// EL2 virtual.
    HypVirtual,
}

impl TimerId {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Physical, Self::Virtual, Self::HypPhysical, Self::HypVirtual];

    /// The interrupt that it asserts.
    pub const fn ppi(self) -> u32 {
        match self {
            Self::Physical => ppi::PHYSICAL_TIMER,
            Self::Virtual => ppi::VIRTUAL_TIMER,
            Self::HypPhysical => ppi::HYP_TIMER,
            Self::HypVirtual => ppi::HYP_VIRTUAL_TIMER,
        }
    }
}

/// Bits of CNT*_CTL.
pub mod ctl {
    /// The timer runs.
    pub const ENABLE: u64 = 1;
    /// Its interrupt is masked.
    pub const IMASK: u64 = 2;
    /// Its condition is met.
    pub const ISTATUS: u64 = 4;
}

/// CNTPCT_EL0 at a time.
pub(crate) fn count(guest: &Aarch64, now_ns: u64) -> u64 {
    ns_to_ticks(now_ns, guest.counter_hz)
}

/// What is taken off the counter for a timer.
fn offset(cpu: &Cpu, id: TimerId) -> u64 {
    if id == TimerId::Virtual && cpu.sys.has_el2 { cpu.sys.cntvoff } else { 0 }
}

/// The counter as a timer sees it.
pub(crate) fn view(guest: &Aarch64, cpu: &Cpu, id: TimerId, now_ns: u64) -> u64 {
    count(guest, now_ns).wrapping_sub(offset(cpu, id))
}

/// CNT*_CTL as a read gives it.
pub(crate) fn control(guest: &Aarch64, cpu: &Cpu, id: TimerId, now_ns: u64) -> u64 {
    let Timer { ctl: bits, cval } = cpu.sys.timers[id as usize];
    let met = bits & ctl::ENABLE != 0 && view(guest, cpu, id, now_ns) >= cval;
    bits | if met { ctl::ISTATUS } else { 0 }
}

/// Which timers assert their interrupt, a bit each.
pub(crate) fn asserted(guest: &Aarch64, cpu: &Cpu, now_ns: u64) -> u32 {
    let asserts = |id: TimerId| {
        let armed = cpu.sys.timers[id as usize].ctl & (ctl::ENABLE | ctl::IMASK) == ctl::ENABLE;
        armed && control(guest, cpu, id, now_ns) & ctl::ISTATUS != 0
    };
    TimerId::ALL.into_iter().fold(0, |lines, id| lines | u32::from(asserts(id)) << id as u32)
}

/// When the next timer asserts its interrupt.
pub(crate) fn deadline_ns(guest: &Aarch64, cpu: &Cpu) -> Option<u64> {
    let due = |id: TimerId| {
        let Timer { ctl: bits, cval } = cpu.sys.timers[id as usize];
        // One that told of itself already has no deadline.
        let told = cpu.told.get() & 1 << id as u32 != 0;
        let at = cval.checked_add(offset(cpu, id))?;
        (bits & (ctl::ENABLE | ctl::IMASK) == ctl::ENABLE && !told).then(|| ticks_to_ns(at, guest.counter_hz))
    };
    TimerId::ALL.into_iter().filter_map(due).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_asserts_when_its_time_has_come() {
        let guest = Aarch64::by_name("cortex-a57").unwrap();
        let mut cpu = guest.reset(0, 0);
        cpu.sys.timers[TimerId::Virtual as usize] = Timer { ctl: ctl::ENABLE, cval: 625 };
        assert_eq!(deadline_ns(&guest, &cpu), Some(10_000));
        assert_eq!(asserted(&guest, &cpu, 9_999), 0);
        assert_eq!(asserted(&guest, &cpu, 10_000), 1 << TimerId::Virtual as u32);
        assert_eq!(control(&guest, &cpu, TimerId::Virtual, 10_000), ctl::ENABLE | ctl::ISTATUS);
        cpu.sys.timers[TimerId::Virtual as usize].ctl |= ctl::IMASK;
        assert_eq!((asserted(&guest, &cpu, 10_000), deadline_ns(&guest, &cpu)), (0, None));
    }

    #[test]
    fn the_virtual_counter_is_offset_with_el2_only() {
        let guest = Aarch64::max().with_el2(true);
        let mut cpu = guest.reset(0, 0);
        cpu.sys.cntvoff = 100;
        assert_eq!(view(&guest, &cpu, TimerId::Virtual, 300), 200);
        assert_eq!(view(&guest, &cpu, TimerId::HypVirtual, 300), 300);
        cpu.sys.has_el2 = false;
        assert_eq!(view(&guest, &cpu, TimerId::Virtual, 300), 300);
        cpu.sys.timers[0] = Timer { ctl: ctl::ENABLE, cval: u64::MAX };
        cpu.sys.timers[1] = Timer { ctl: ctl::ENABLE, cval: u64::MAX };
        assert_eq!(asserted(&guest, &cpu, 1 << 60), 0);
        assert!(deadline_ns(&guest, &cpu).is_some());
    }
}
