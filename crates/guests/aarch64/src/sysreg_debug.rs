//! Registers of self-hosted debug and of the performance monitors (the manual, D24.3 and D24.5).

use crate::{
    Features,
    debug::mdscr,
    pmu::{self, COUNTERS, CYCLE},
    sysreg::{Access, Register, Verdict, constant, field, special},
};

/// MDCR_EL2's traps.
mod mdcr {
    pub(super) const TPMCR: u64 = 1 << 5;
    pub(super) const TPM: u64 = 1 << 6;
    pub(super) const TDE: u64 = 1 << 8;
    pub(super) const TDA: u64 = 1 << 9;
    pub(super) const TDOSA: u64 = 1 << 10;
    pub(super) const TDRA: u64 = 1 << 11;
}

/// Does EL2 trap this from below? TDE implies the debug traps.
fn intercepted(a: &Access<'_, '_>, bits: u64) -> Verdict {
    let sys = &a.cx.cpu.sys;
    let below = sys.has_el2 && a.el() < 2 && !(a.el() == 0 && sys.in_host());
    Verdict::intercepted(below && sys.mdcr & bits != 0)
}

fn debug_guard(a: &Access<'_, '_>) -> Verdict {
    intercepted(a, mdcr::TDA | mdcr::TDE)
}

fn os_lock_guard(a: &Access<'_, '_>) -> Verdict {
    intercepted(a, mdcr::TDOSA | mdcr::TDE)
}

/// MDSCR_EL1.TDCC keeps EL0 from the communications channel.
fn channel_guard(a: &Access<'_, '_>) -> Verdict {
    let trapped = a.el() == 0 && a.cx.cpu.sys.debug.mdscr & 1 << 12 != 0;
    Verdict::enabled(!trapped).or(|| debug_guard(a))
}

/// Breakpoints and watchpoints decide what TLBs may keep.
fn changed(a: &mut Access<'_, '_>) {
    a.update_mode();
    a.flush_tlb();
}

fn write_mdscr(a: &mut Access<'_, '_>, value: u64) {
    a.cpu().sys.debug.mdscr = value & mdscr::MASK;
    changed(a);
}

fn write_os_lock(a: &mut Access<'_, '_>, locked: bool) {
    a.cpu().sys.debug.os_locked = locked;
    changed(a);
}

macro_rules! points {
    ($name:literal ($($number:literal),*) $field:ident $count:literal) => {
        special!($name ($($number),*) |a| a.cx.cpu.sys.debug.$field[a.index], |a, value| {
            let index = a.index;
            a.cpu().sys.debug.$field[index] = value;
            changed(a);
        })
        .array($count, 8)
        .guard(debug_guard)
    };
}

// --- performance monitors

/// PMUSERENR_EL0's bits.
mod user {
    pub(super) const ALL: u64 = 1;
    pub(super) const INCREMENT: u64 = 1 << 1;
    pub(super) const CYCLES: u64 = 1 << 2;
    pub(super) const EVENTS: u64 = 1 << 3;
}

fn lets_user_in(a: &Access<'_, '_>, bits: u64) -> Verdict {
    let allowed = a.el() != 0 || a.cx.cpu.sys.pmu.user & (user::ALL | bits) != 0;
    Verdict::enabled(allowed).or(|| intercepted(a, mdcr::TPM))
}

fn pmu_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, 0)
}

fn control_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, 0).or(|| intercepted(a, mdcr::TPMCR))
}

fn increment_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, user::INCREMENT)
}

fn cycles_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, if a.is_write { 0 } else { user::CYCLES })
}

fn select_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, user::EVENTS)
}

fn counter_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, if a.is_write { 0 } else { user::EVENTS })
}

fn selected_guard(a: &Access<'_, '_>) -> Verdict {
    counter_guard(a).or(|| Verdict::exists((a.cx.cpu.sys.pmu.select as usize) < COUNTERS))
}

/// PMSELR_EL0 may select the cycle counter's filter.
fn selected_type_guard(a: &Access<'_, '_>) -> Verdict {
    let select = a.cx.cpu.sys.pmu.select as usize;
    pmu_guard(a).or(|| Verdict::exists(select < COUNTERS || select == 31))
}

/// PMUSERENR_EL0 is EL0's to read only.
fn user_enable_guard(a: &Access<'_, '_>) -> Verdict {
    Verdict::exists(a.el() > 0 || !a.is_write).or(|| intercepted(a, mdcr::TPM))
}

/// A change of what is counted, or of what overflows mean.
fn change(a: &mut Access<'_, '_>, change: impl FnOnce(&mut crate::system::Pmu)) {
    a.settle();
    change(&mut a.cpu().sys.pmu);
    a.lines_changed();
}

fn read_pmcr(a: &mut Access<'_, '_>) -> u64 {
    a.cx.guest.id.pmcr | (COUNTERS as u64) << 11 | a.cx.cpu.sys.pmu.pmcr
}

fn write_pmcr(a: &mut Access<'_, '_>, value: u64) {
    a.settle();
    let guest = a.cx.guest;
    pmu::write_control(guest, &mut a.cpu().sys.pmu, value);
    a.lines_changed();
}

fn read_cycles(a: &mut Access<'_, '_>) -> u64 {
    a.settle();
    a.cx.cpu.sys.pmu.cycles
}

fn long(a: &Access<'_, '_>) -> u64 {
    if a.has(Features::PMU_P5) { u64::MAX } else { u64::from(u32::MAX) }
}

fn read_counter(a: &mut Access<'_, '_>, n: usize) -> u64 {
    a.settle();
    a.cx.cpu.sys.pmu.counter.get(n).copied().unwrap_or(0) & long(a)
}

fn write_counter(a: &mut Access<'_, '_>, n: usize, value: u64) {
    let value = value & long(a);
    change(a, |pmu| {
        if let Some(counter) = pmu.counter.get_mut(n) {
            *counter = value;
        }
    });
}

/// What PMEVTYPER<n>_EL0 keeps: P, U, NSK, NSU, NSH, and the event.
const TYPE: u64 = 0xf800_ffff;
/// What PMCCFILTR_EL0 keeps.
const FILTER: u64 = 0xf800_0000;

fn read_type(a: &mut Access<'_, '_>, n: usize) -> u64 {
    let pmu = &a.cx.cpu.sys.pmu;
    pmu.event.get(n).copied().unwrap_or(if n == 31 { pmu.cycle_filter } else { 0 })
}

fn write_type(a: &mut Access<'_, '_>, n: usize, value: u64) {
    change(a, |pmu| match pmu.event.get_mut(n) {
        Some(event) => *event = value & TYPE,
        None if n == 31 => pmu.cycle_filter = value & FILTER,
        None => {}
    });
}

fn select(a: &Access<'_, '_>) -> usize {
    a.cx.cpu.sys.pmu.select as usize
}

#[rustfmt::skip]
pub(crate) static TABLE: &[Register] = &[
    // --- debug
    special!("OSDTRRX_EL1" (2, 0, 0, 0, 2) |_| 0, |_, _| {}).guard(debug_guard),
    special!("OSDTRTX_EL1" (2, 0, 0, 3, 2) |_| 0, |_, _| {}).guard(debug_guard),
    special!("OSECCR_EL1" (2, 0, 0, 6, 2) |_| 0, |_, _| {}).guard(debug_guard),
    field!("MDCCINT_EL1" (2, 0, 0, 2, 0) sys.debug.mdccint = 3 << 29).guard(debug_guard),
    special!("MDSCR_EL1" (2, 0, 0, 2, 2) |a| a.cx.cpu.sys.debug.mdscr, write_mdscr).guard(debug_guard),
    points!("DBGBVR<n>_EL1" (2, 0, 0, 0, 4) bvr 6),
    points!("DBGBCR<n>_EL1" (2, 0, 0, 0, 5) bcr 6),
    points!("DBGWVR<n>_EL1" (2, 0, 0, 0, 6) wvr 4),
    points!("DBGWCR<n>_EL1" (2, 0, 0, 0, 7) wcr 4),
    constant!("MDRAR_EL1" (2, 0, 1, 0, 0) |_| 0).guard(|a| intercepted(a, mdcr::TDRA | mdcr::TDE)),
    Register::new("OSLAR_EL1", crate::sysreg::key(2, 0, 1, 0, 4), None, Some(|a, value| write_os_lock(a, value & 1 != 0)))
        .guard(os_lock_guard),
    constant!("OSLSR_EL1" (2, 0, 1, 1, 4) |a| 1 << 3 | u64::from(a.cx.cpu.sys.debug.os_locked) << 1).guard(os_lock_guard),
    special!("OSDLR_EL1" (2, 0, 1, 3, 4) |a| u64::from(a.cx.cpu.sys.debug.double_locked), |a, value| {
        let exists = a.has(Features::DOUBLE_LOCK);
        a.cpu().sys.debug.double_locked = exists && value & 1 != 0;
        changed(a);
    })
    .guard(os_lock_guard),
    special!("DBGPRCR_EL1" (2, 0, 1, 4, 4) |_| 0, |_, _| {}).guard(os_lock_guard),
    special!("DBGCLAIMSET_EL1" (2, 0, 7, 8, 6) |_| 0xff, |a, value| a.cx.cpu.sys.debug.claim |= value & 0xff).guard(debug_guard),
    special!("DBGCLAIMCLR_EL1" (2, 0, 7, 9, 6) |a| a.cx.cpu.sys.debug.claim, |a, value| a.cx.cpu.sys.debug.claim &= !value)
        .guard(debug_guard),
    constant!("DBGAUTHSTATUS_EL1" (2, 0, 7, 14, 6) |_| 0xa).guard(debug_guard),
    constant!("MDCCSR_EL0" (2, 3, 0, 1, 0) |_| 0).guard(channel_guard),
    special!("DBGDTR_EL0" (2, 3, 0, 4, 0) |_| 0, |_, _| {}).guard(channel_guard),
    special!("DBGDTRRX_EL0" (2, 3, 0, 5, 0) |_| 0, |_, _| {}).guard(channel_guard),
    // --- performance monitors
    special!("PMCR_EL0" (3, 3, 9, 12, 0) read_pmcr, write_pmcr).needs(Features::PMU).guard(control_guard),
    special!("PMCNTENSET_EL0" (3, 3, 9, 12, 1) |a| a.cx.cpu.sys.pmu.enabled, |a, v| change(a, |pmu| pmu.enabled |= v & pmu::ALL))
        .needs(Features::PMU).guard(pmu_guard),
    special!("PMCNTENCLR_EL0" (3, 3, 9, 12, 2) |a| a.cx.cpu.sys.pmu.enabled, |a, v| change(a, |pmu| pmu.enabled &= !v))
        .needs(Features::PMU).guard(pmu_guard),
    special!("PMOVSCLR_EL0" (3, 3, 9, 12, 3) |a| { a.settle(); a.cx.cpu.sys.pmu.overflow }, |a, v| change(a, |pmu| pmu.overflow &= !v))
        .needs(Features::PMU).guard(pmu_guard),
    Register::new("PMSWINC_EL0", crate::sysreg::key(3, 3, 9, 12, 4), None, Some(|a, v| {
        let el = a.el();
        change(a, |pmu| pmu::software_increment(pmu, v, el));
    }))
    .needs(Features::PMU).guard(increment_guard),
    special!("PMSELR_EL0" (3, 3, 9, 12, 5) |a| a.cx.cpu.sys.pmu.select, |a, v| a.cx.cpu.sys.pmu.select = v & 31)
        .needs(Features::PMU).guard(select_guard),
    constant!("PMCEID0_EL0" (3, 3, 9, 12, 6) |_| pmu::EVENTS).needs(Features::PMU).guard(pmu_guard),
    constant!("PMCEID1_EL0" (3, 3, 9, 12, 7) |_| 0).needs(Features::PMU).guard(pmu_guard),
    special!("PMCCNTR_EL0" (3, 3, 9, 13, 0) read_cycles, |a, v| change(a, |pmu| pmu.cycles = v))
        .needs(Features::PMU).guard(cycles_guard),
    special!("PMXEVTYPER_EL0" (3, 3, 9, 13, 1) |a| { let n = select(a); read_type(a, n) }, |a, v| { let n = select(a); write_type(a, n, v); })
        .needs(Features::PMU).guard(selected_type_guard),
    special!("PMXEVCNTR_EL0" (3, 3, 9, 13, 2) |a| { let n = select(a); read_counter(a, n) }, |a, v| { let n = select(a); write_counter(a, n, v); })
        .needs(Features::PMU).guard(selected_guard),
    special!("PMUSERENR_EL0" (3, 3, 9, 14, 0) |a| a.cx.cpu.sys.pmu.user, |a, v| a.cx.cpu.sys.pmu.user = v & 0xf)
        .needs(Features::PMU).guard(user_enable_guard),
    special!("PMINTENSET_EL1" (3, 0, 9, 14, 1) |a| a.cx.cpu.sys.pmu.interrupt, |a, v| change(a, |pmu| pmu.interrupt |= v & pmu::ALL))
        .needs(Features::PMU).guard(pmu_guard),
    special!("PMINTENCLR_EL1" (3, 0, 9, 14, 2) |a| a.cx.cpu.sys.pmu.interrupt, |a, v| change(a, |pmu| pmu.interrupt &= !v))
        .needs(Features::PMU).guard(pmu_guard),
    special!("PMOVSSET_EL0" (3, 3, 9, 14, 3) |a| { a.settle(); a.cx.cpu.sys.pmu.overflow }, |a, v| change(a, |pmu| pmu.overflow |= v & pmu::ALL))
        .needs(Features::PMU).guard(pmu_guard),
    constant!("PMMIR_EL1" (3, 0, 9, 14, 6) |_| 0).needs(Features::PMU_P1).guard(pmu_guard),
    special!("PMEVCNTR<n>_EL0" (3, 3, 14, 8, 0) |a| read_counter(a, a.index), |a, v| write_counter(a, a.index, v))
        .array(6, 1).needs(Features::PMU).guard(counter_guard),
    special!("PMEVTYPER<n>_EL0" (3, 3, 14, 12, 0) |a| read_type(a, a.index), |a, v| write_type(a, a.index, v))
        .array(6, 1).needs(Features::PMU).guard(pmu_guard),
    special!("PMCCFILTR_EL0" (3, 3, 14, 15, 7) |a| read_type(a, 31), |a, v| write_type(a, 31, v))
        .needs(Features::PMU).guard(pmu_guard),
];

const _: () = assert!(COUNTERS == 6 && CYCLE == 1 << 31);
