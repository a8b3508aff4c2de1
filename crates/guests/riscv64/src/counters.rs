//! Counters: `mcycle`, `minstret`, and eight programmable ones with overflow interrupts and filters (volume II, 3.1.10
//! to 3.1.12, and Sscofpmf).
//!
//! Nothing is counted an instruction at a time. `mcycle` and `minstret` are kept as differences to the header's count of
//! retired instructions. The programmable counters hold their values as of [`Cpu::hpm_settled`]; [`settle`] brings
//! them up to date, and is called wherever what they count may change: at every change of privilege, at every access
//! to these registers, and between slices of translated code. With no event programmed it tests one word.
//!
//! `at` is always a count of retired instructions. An instruction that writes one of these registers counts under the
//! old settings, so they pass the count after it.

use crate::{Cpu, Extensions, Privilege, Riscv64, trap::irq};

/// The first programmable counter, `mhpmcounter3`; numbers are those of `mcountinhibit`'s bits.
pub const FIRST: usize = 3;
/// The last; those above are read-only zero.
pub const LAST: usize = 10;
/// `mcountinhibit`'s bits of `mcycle`, `minstret` and the programmable counters.
pub const INHIBITABLE: u64 = CYCLE | INSTRET | PROGRAMMABLE;
const CYCLE: u64 = 1;
const INSTRET: u64 = 1 << 2;
/// `mcountinhibit`'s bits of the programmable counters.
pub const PROGRAMMABLE: u64 = (1 << (LAST + 1)) - (1 << FIRST);

/// Fields of `mhpmevent3` and up; the upper four exist with Sscofpmf only.
pub mod hpmevent {
    /// The counter overflowed; while set, it asks for no interrupt.
    pub const OF: u64 = 1 << 63;
    /// Does not count in M-mode.
    pub const MINH: u64 = 1 << 62;
    /// Does not count in S-mode.
    pub const SINH: u64 = 1 << 61;
    /// Does not count in U-mode.
    pub const UINH: u64 = 1 << 60;
    /// The event selector.
    pub const SELECTOR: u64 = (1 << 56) - 1;
}

/// The event selectors. Every one counts retired instructions, since one takes one cycle here.
pub const EVENTS: &[(u64, &str)] = &[(CYCLES, "cycles, as mcycle"), (INSTRUCTIONS, "instructions retired")];
/// Selector of cycles.
pub const CYCLES: u64 = 1;
/// Selector of retired instructions.
pub const INSTRUCTIONS: u64 = 2;

/// Is `n` a programmable counter?
pub const fn is_programmable(n: usize) -> bool {
    FIRST <= n && n <= LAST
}

fn numbers(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let n = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(n)
    })
}

/// The event field that keeps counters from counting in the present privilege.
fn filter(cpu: &Cpu) -> u64 {
    match cpu.privilege {
        Privilege::Machine => hpmevent::MINH,
        Privilege::Supervisor => hpmevent::SINH,
        Privilege::User => hpmevent::UINH,
    }
}

/// Counts what was retired since the last call, all of it in the present privilege. An overflow raises the local
/// counter overflow interrupt in `mip`.
#[inline]
pub fn settle(guest: &Riscv64, cpu: &mut Cpu, at: u64) {
    if cpu.hpm_active != 0 {
        count(guest, cpu, at);
    }
}

fn count(guest: &Riscv64, cpu: &mut Cpu, at: u64) {
    let retired = at.saturating_sub(cpu.hpm_settled);
    cpu.hpm_settled = cpu.hpm_settled.max(at);
    let filter = filter(cpu);
    for n in numbers(cpu.hpm_active) {
        let event = &mut cpu.mhpmevent[n];
        if *event & filter != 0 {
            continue;
        }
        let (value, overflow) = cpu.mhpmcounter[n].overflowing_add(retired);
        cpu.mhpmcounter[n] = value;
        if overflow && *event & hpmevent::OF == 0 && guest.ext.contains(Extensions::SSCOFPMF) {
            *event |= hpmevent::OF;
            cpu.mip |= irq::LCOFI;
        }
    }
}

/// How many instructions may be retired in the present privilege until a counter overflows that would ask for an
/// interrupt. At least 1. To be called when settled.
pub(crate) fn until_overflow(guest: &Riscv64, cpu: &Cpu) -> u64 {
    if cpu.hpm_active == 0 || !guest.ext.contains(Extensions::SSCOFPMF) {
        return u64::MAX;
    }
    let quiet = filter(cpu) | hpmevent::OF;
    let counting = numbers(cpu.hpm_active).filter(|n| cpu.mhpmevent[*n] & quiet == 0);
    // A value of 0 is 2^64 away: as good as never.
    counting
        .map(|n| cpu.mhpmcounter[n].wrapping_neg().wrapping_sub(1))
        .min()
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// Applies a change of settings at `at`.
fn reprogram(guest: &Riscv64, cpu: &mut Cpu, at: u64, change: impl FnOnce(&mut Cpu)) {
    settle(guest, cpu, at);
    change(cpu);
    let inhibited = cpu.mcountinhibit;
    let programmed = |n: &usize| cpu.mhpmevent[*n] & hpmevent::SELECTOR != 0;
    cpu.hpm_active = numbers(PROGRAMMABLE & !inhibited).filter(programmed).fold(0, |all, n| all | 1 << n);
    cpu.hpm_settled = at;
}

/// The value of counter `n`: 0 where there is none.
pub fn read(guest: &Riscv64, cpu: &mut Cpu, n: usize, at: u64) -> u64 {
    let follow = |field: u64, bit| if cpu.mcountinhibit & bit != 0 { field } else { field.wrapping_add(at) };
    match n {
        0 => follow(cpu.mcycle, CYCLE),
        2 => follow(cpu.minstret, INSTRET),
        _ if is_programmable(n) => {
            settle(guest, cpu, at);
            cpu.mhpmcounter[n]
        }
        _ => 0,
    }
}

/// Makes `value` what counter `n` reads at `at`.
pub fn write(guest: &Riscv64, cpu: &mut Cpu, n: usize, value: u64, at: u64) {
    let follow = |bit| if cpu.mcountinhibit & bit != 0 { value } else { value.wrapping_sub(at) };
    match n {
        0 => cpu.mcycle = follow(CYCLE),
        2 => cpu.minstret = follow(INSTRET),
        _ if is_programmable(n) => {
            settle(guest, cpu, at);
            cpu.mhpmcounter[n] = value;
        }
        _ => {}
    }
}

/// Writes `mcountinhibit`.
pub fn inhibit(guest: &Riscv64, cpu: &mut Cpu, value: u64, at: u64) {
    reprogram(guest, cpu, at, |cpu| {
        let (old, new) = (cpu.mcountinhibit, value & INHIBITABLE);
        cpu.mcountinhibit = new;
        for (bit, field) in [(CYCLE, &mut cpu.mcycle), (INSTRET, &mut cpu.minstret)] {
            if (old ^ new) & bit != 0 {
                *field = if new & bit != 0 { field.wrapping_add(at) } else { field.wrapping_sub(at) };
            }
        }
    });
}

/// Writes the event register of counter `n`. Unknown selectors become 0, no event.
pub fn set_event(guest: &Riscv64, cpu: &mut Cpu, n: usize, value: u64, at: u64) {
    if !is_programmable(n) {
        return;
    }
    let selector = value & hpmevent::SELECTOR;
    let known = EVENTS.iter().any(|(number, _)| *number == selector);
    let fields = hpmevent::OF | hpmevent::MINH | hpmevent::SINH | hpmevent::UINH;
    let fields = if guest.ext.contains(Extensions::SSCOFPMF) { fields } else { 0 };
    reprogram(guest, cpu, at, |cpu| cpu.mhpmevent[n] = value & fields | if known { selector } else { 0 });
}

/// Gives a hart that was set up anew the counters it had `before`.
pub fn carry_over(cpu: &mut Cpu, before: &Cpu) {
    cpu.header.insns = before.header.insns;
    (cpu.mcycle, cpu.minstret, cpu.mcountinhibit) = (before.mcycle, before.minstret, before.mcountinhibit);
    (cpu.mhpmcounter, cpu.mhpmevent) = (before.mhpmcounter, before.mhpmevent);
    (cpu.hpm_active, cpu.hpm_settled) = (before.hpm_active, before.hpm_settled);
}

/// `scountovf` before `mcounteren` masks it: the overflow fields, at their counters' numbers.
pub(crate) fn overflows(cpu: &Cpu) -> u64 {
    numbers(PROGRAMMABLE).fold(0, |all, n| all | cpu.mhpmevent[n] >> 63 << n)
}

#[cfg(test)]
mod tests;
