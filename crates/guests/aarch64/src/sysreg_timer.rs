//! Registers of the generic timers (the manual, D12 and D24.10).

use crate::{
    Features,
    sysreg::{Access, Register, Verdict, constant, field, special},
    timer::{self, TimerId, ctl},
};

/// Bits of CNTKCTL_EL1, and of CNTHCTL_EL2 on a host, that let EL0 in.
mod user {
    pub(super) const PHYSICAL_COUNTER: u64 = 1;
    pub(super) const VIRTUAL_COUNTER: u64 = 1 << 1;
    pub(super) const VIRTUAL_TIMER: u64 = 1 << 8;
    pub(super) const PHYSICAL_TIMER: u64 = 1 << 9;
}

/// Does EL0 need `bit`, and have it?
fn lets_user_in(a: &Access<'_, '_>, bit: u64) -> Verdict {
    let sys = &a.cx.cpu.sys;
    let control = if sys.in_host() { sys.cnthctl } else { sys.cntkctl };
    Verdict::enabled(a.el() != 0 || control & bit != 0)
}

/// Does EL2 let EL1 (and its EL0) at the physical counter, or timer?
fn lets_guest_in(a: &Access<'_, '_>, timer: bool) -> Verdict {
    let sys = &a.cx.cpu.sys;
    if !sys.has_el2 || a.el() == 2 || sys.in_host() {
        return Verdict::Allow;
    }
    let bit = match (sys.e2h(), timer) {
        (false, false) => 1,
        (false, true) => 1 << 1,
        (true, false) => 1 << 10,
        (true, true) => 1 << 11,
    };
    Verdict::intercepted(sys.cnthctl & bit == 0)
}

fn physical_counter_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, user::PHYSICAL_COUNTER).or(|| lets_guest_in(a, false))
}

fn virtual_counter_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, user::VIRTUAL_COUNTER)
}

fn frequency_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, user::VIRTUAL_COUNTER | user::PHYSICAL_COUNTER)
}

fn physical_timer_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, user::PHYSICAL_TIMER).or(|| lets_guest_in(a, true))
}

fn virtual_timer_guard(a: &Access<'_, '_>) -> Verdict {
    lets_user_in(a, user::VIRTUAL_TIMER)
}

/// A host's own timers; its user's go by the EL1 names.
fn host_timer_guard(a: &Access<'_, '_>) -> Verdict {
    let bit = if a.key >> 3 & 15 == 2 { user::PHYSICAL_TIMER } else { user::VIRTUAL_TIMER };
    match a.el() {
        2 => Verdict::Allow,
        0 if a.cx.cpu.sys.in_host() => lets_user_in(a, bit),
        _ => Verdict::Undefined,
    }
}

/// CNTVCT_EL0: without offset on a host.
fn virtual_count(a: &mut Access<'_, '_>) -> u64 {
    let cpu = &*a.cx.cpu;
    let host = cpu.el == 2 && cpu.sys.e2h() || cpu.el == 0 && cpu.sys.in_host();
    let id = if host { TimerId::HypVirtual } else { TimerId::Virtual };
    timer::view(a.cx.guest, cpu, id, a.cx.env.now_ns())
}

fn physical_count(a: &mut Access<'_, '_>) -> u64 {
    timer::count(a.cx.guest, a.now_ns())
}

/// The timer that an access is about.
fn id(a: &Access<'_, '_>) -> TimerId {
    match (a.key >> 11 & 7, a.key >> 3 & 15) {
        (4, 2) => TimerId::HypPhysical,
        (4, _) => TimerId::HypVirtual,
        (_, 2) => TimerId::Physical,
        _ => TimerId::Virtual,
    }
}

fn read_control(a: &mut Access<'_, '_>) -> u64 {
    timer::control(a.cx.guest, a.cx.cpu, id(a), a.cx.env.now_ns())
}

fn write_control(a: &mut Access<'_, '_>, value: u64) {
    let id = id(a);
    a.cpu().sys.timers[id as usize].ctl = value & (ctl::ENABLE | ctl::IMASK);
    a.lines_changed();
}

fn read_compare(a: &mut Access<'_, '_>) -> u64 {
    a.cx.cpu.sys.timers[id(a) as usize].cval
}

fn write_compare(a: &mut Access<'_, '_>, value: u64) {
    let id = id(a);
    a.cpu().sys.timers[id as usize].cval = value;
    a.lines_changed();
}

fn read_value(a: &mut Access<'_, '_>) -> u64 {
    let view = timer::view(a.cx.guest, a.cx.cpu, id(a), a.cx.env.now_ns());
    read_compare(a).wrapping_sub(view) & 0xffff_ffff
}

fn write_value(a: &mut Access<'_, '_>, value: u64) {
    let view = timer::view(a.cx.guest, a.cx.cpu, id(a), a.cx.env.now_ns());
    let ticks = i64::from(value as u32 as i32) as u64;
    write_compare(a, view.wrapping_add(ticks));
}

fn write_offset(a: &mut Access<'_, '_>, value: u64) {
    a.cpu().sys.cntvoff = value;
    a.lines_changed();
}

#[rustfmt::skip]
pub(crate) static TABLE: &[Register] = &[
    special!("CNTFRQ_EL0" (3, 3, 14, 0, 0) |a| a.cx.cpu.sys.cntfrq, |a, value| a.cx.cpu.sys.cntfrq = value & 0xffff_ffff)
        .guard(|a| match (a.is_write, a.el()) {
            // Only the highest level writes it.
            (true, el) => Verdict::exists(el == 2 || el == 1 && !a.cx.cpu.sys.has_el2),
            (false, _) => frequency_guard(a),
        }),
    constant!("CNTPCT_EL0" (3, 3, 14, 0, 1) physical_count).guard(physical_counter_guard),
    constant!("CNTVCT_EL0" (3, 3, 14, 0, 2) virtual_count).guard(virtual_counter_guard),
    constant!("CNTPCTSS_EL0" (3, 3, 14, 0, 5) physical_count).guard(physical_counter_guard).needs(Features::ECV),
    constant!("CNTVCTSS_EL0" (3, 3, 14, 0, 6) virtual_count).guard(virtual_counter_guard).needs(Features::ECV),
    field!("CNTKCTL_EL1" (3, 0, 14, 1, 0) sys.cntkctl = 0x2_03ff),
    special!("CNTP_TVAL_EL0" (3, 3, 14, 2, 0) read_value, write_value).guard(physical_timer_guard),
    special!("CNTP_CTL_EL0" (3, 3, 14, 2, 1) read_control, write_control).guard(physical_timer_guard),
    special!("CNTP_CVAL_EL0" (3, 3, 14, 2, 2) read_compare, write_compare).guard(physical_timer_guard),
    special!("CNTV_TVAL_EL0" (3, 3, 14, 3, 0) read_value, write_value).guard(virtual_timer_guard),
    special!("CNTV_CTL_EL0" (3, 3, 14, 3, 1) read_control, write_control).guard(virtual_timer_guard),
    special!("CNTV_CVAL_EL0" (3, 3, 14, 3, 2) read_compare, write_compare).guard(virtual_timer_guard),
    field!("CNTHCTL_EL2" (3, 4, 14, 1, 0) sys.cnthctl = 0x2_0fff),
    special!("CNTVOFF_EL2" (3, 4, 14, 0, 3) |a| a.cx.cpu.sys.cntvoff, write_offset),
    special!("CNTHP_TVAL_EL2" (3, 4, 14, 2, 0) read_value, write_value).at_level(0).guard(host_timer_guard),
    special!("CNTHP_CTL_EL2" (3, 4, 14, 2, 1) read_control, write_control).at_level(0).guard(host_timer_guard),
    special!("CNTHP_CVAL_EL2" (3, 4, 14, 2, 2) read_compare, write_compare).at_level(0).guard(host_timer_guard),
    special!("CNTHV_TVAL_EL2" (3, 4, 14, 3, 0) read_value, write_value).at_level(0).guard(host_timer_guard).needs(Features::VHE),
    special!("CNTHV_CTL_EL2" (3, 4, 14, 3, 1) read_control, write_control).at_level(0).guard(host_timer_guard).needs(Features::VHE),
    special!("CNTHV_CVAL_EL2" (3, 4, 14, 3, 2) read_compare, write_compare).at_level(0).guard(host_timer_guard).needs(Features::VHE),
];
