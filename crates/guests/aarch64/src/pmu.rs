//! Performance monitors, PMUv3: a cycle counter and six event counters (the manual, D13).
//!
//! Nothing is counted an instruction at a time: counters hold their values as of [`crate::system::Pmu::settled`], and
//! [`settle`] brings them up to date wherever what they count may change. One instruction takes one cycle.

use crate::{Aarch64, Cpu, Features, system::Pmu};

/// Event counters.
pub(crate) const COUNTERS: usize = 6;
/// The cycle counter's bit in PMCNTENSET_EL0 and its relatives.
pub(crate) const CYCLE: u64 = 1 << 31;
/// Bits of all counters.
pub(crate) const ALL: u64 = CYCLE | ((1 << COUNTERS) - 1);

/// Bits of PMCR_EL0.
pub(crate) mod pmcr {
    /// Counters enabled.
    pub(crate) const E: u64 = 1;
    /// Write: reset the event counters.
    pub(crate) const P: u64 = 1 << 1;
    /// Write: reset the cycle counter.
    pub(crate) const C: u64 = 1 << 2;
    /// The cycle counter overflows at 64 bits.
    pub(crate) const LC: u64 = 1 << 6;
    /// Event counters overflow at 64 bits (FEAT_PMUv3p5).
    pub(crate) const LP: u64 = 1 << 7;
    /// What is kept: E, X, DP, LC, LP.
    pub(crate) const KEPT: u64 = E | 1 << 4 | 1 << 5 | LC | LP;
}

/// Event numbers.
pub(crate) mod event {
    /// Software increment.
    pub(crate) const SW_INCR: u64 = 0x00;
    /// Instructions retired.
    pub(crate) const INST_RETIRED: u64 = 0x08;
    /// Cycles.
    pub(crate) const CPU_CYCLES: u64 = 0x11;
}

/// PMCEID0_EL0: the events there are among the first 32.
pub(crate) const EVENTS: u64 = 1 << event::SW_INCR | 1 << event::INST_RETIRED | 1 << event::CPU_CYCLES;

/// Does a filter (PMCCFILTR_EL0, PMEVTYPER<n>_EL0) let the level be counted?
fn counts_at(filter: u64, el: u8) -> bool {
    let bit = |n: u32| filter >> n & 1 != 0;
    match el {
        // P and NSK, U and NSU; EL2 counts only when asked.
        1 => bit(31) == bit(29),
        0 => bit(30) == bit(28),
        _ => bit(27),
    }
}

/// The last value before an overflow.
fn limit(pmu: &Pmu, cycle: bool) -> u64 {
    let long = pmu.pmcr & if cycle { pmcr::LC } else { pmcr::LP } != 0;
    if long { u64::MAX } else { u64::from(u32::MAX) }
}

/// Adds to a counter; true if it overflowed.
fn advance(counter: &mut u64, by: u64, limit: u64) -> bool {
    let low = *counter & limit;
    let overflow = limit - low < by;
    *counter = counter.wrapping_add(by);
    overflow
}

/// Is the counter with this bit counting instructions or cycles now?
fn is_running(pmu: &Pmu, n: usize, el: u8) -> bool {
    let number = pmu.event[n] & 0xffff;
    let counted = number == event::INST_RETIRED || number == event::CPU_CYCLES;
    pmu.enabled & 1 << n != 0 && counted && counts_at(pmu.event[n], el)
}

/// Counts what was retired up to the header's instruction count `at`, all of it at the present level.
pub(crate) fn settle(cpu: &mut Cpu, at: u64) {
    let el = cpu.el;
    let pmu = &mut cpu.sys.pmu;
    let retired = at.saturating_sub(pmu.settled);
    pmu.settled = pmu.settled.max(at);
    if pmu.pmcr & pmcr::E == 0 || pmu.enabled == 0 || retired == 0 {
        return;
    }
    if pmu.enabled & CYCLE != 0 && counts_at(pmu.cycle_filter, el) {
        let limit = limit(pmu, true);
        if advance(&mut pmu.cycles, retired, limit) {
            pmu.overflow |= CYCLE;
        }
    }
    let limit = limit(pmu, false);
    for n in 0..COUNTERS {
        if is_running(pmu, n, el) && advance(&mut pmu.counter[n], retired, limit) {
            pmu.overflow |= 1 << n;
        }
    }
}

/// How many instructions may pass until a counter overflows that asks for an interrupt. To be called when settled.
pub(crate) fn until_overflow(cpu: &Cpu) -> u64 {
    let pmu = &cpu.sys.pmu;
    let asking = pmu.enabled & pmu.interrupt & !pmu.overflow;
    if pmu.pmcr & pmcr::E == 0 || asking == 0 {
        return u64::MAX;
    }
    let left = |counter: u64, limit: u64| (limit - (counter & limit)).saturating_add(1);
    let cycle = (asking & CYCLE != 0 && counts_at(pmu.cycle_filter, cpu.el))
        .then(|| left(pmu.cycles, limit(pmu, true)));
    let running = (0..COUNTERS).filter(|&n| asking & 1 << n != 0 && is_running(pmu, n, cpu.el));
    running.map(|n| left(pmu.counter[n], limit(pmu, false))).chain(cycle).min().unwrap_or(u64::MAX)
}

/// Is the overflow interrupt asserted?
pub(crate) fn asserted(cpu: &Cpu) -> bool {
    let pmu = &cpu.sys.pmu;
    pmu.pmcr & pmcr::E != 0 && pmu.overflow & pmu.interrupt != 0
}

/// Writes PMCR_EL0. To be called when settled.
pub(crate) fn write_control(guest: &Aarch64, pmu: &mut Pmu, value: u64) {
    if value & pmcr::P != 0 {
        pmu.counter = [0; COUNTERS];
    }
    if value & pmcr::C != 0 {
        pmu.cycles = 0;
    }
    let long = if guest.has(Features::PMU_P5) { 0 } else { pmcr::LP };
    pmu.pmcr = value & pmcr::KEPT & !long;
}

/// Writes PMSWINC_EL0.
pub(crate) fn software_increment(pmu: &mut Pmu, counters: u64, el: u8) {
    if pmu.pmcr & pmcr::E == 0 {
        return;
    }
    let limit = limit(pmu, false);
    for n in 0..COUNTERS {
        let chosen = counters & pmu.enabled & 1 << n != 0;
        let counted = pmu.event[n] & 0xffff == event::SW_INCR && counts_at(pmu.event[n], el);
        if chosen && counted && advance(&mut pmu.counter[n], 1, limit) {
            pmu.overflow |= 1 << n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_their_filter_and_overflow() {
        let mut cpu = Cpu::default();
        let pmu = &mut cpu.sys.pmu;
        (pmu.pmcr, pmu.enabled, pmu.interrupt) = (pmcr::E | pmcr::LC, CYCLE | 3, 1);
        pmu.event[0] = event::INST_RETIRED;
        pmu.event[1] = event::INST_RETIRED | 1 << 31;
        pmu.counter[0] = 0xffff_fff0;
        assert_eq!(until_overflow(&cpu), 16);
        settle(&mut cpu, 15);
        assert!(!asserted(&cpu));
        settle(&mut cpu, 16);
        assert!(asserted(&cpu));
        assert_eq!((cpu.sys.pmu.cycles, cpu.sys.pmu.counter[1], cpu.sys.pmu.overflow), (16, 0, 1));
        assert_eq!(until_overflow(&cpu), u64::MAX);
    }

    #[test]
    fn software_increments_count_where_programmed() {
        let mut pmu = Pmu { pmcr: pmcr::E, enabled: 3, ..Pmu::default() };
        pmu.event[1] = event::INST_RETIRED;
        software_increment(&mut pmu, 7, 0);
        assert_eq!(pmu.counter[..3], [1, 0, 0]);
    }
}
