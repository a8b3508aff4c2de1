//! Self-hosted debug: software step, breakpoints and watchpoints (the manual, D2).
//!
//! Breakpoints and watchpoints need nothing from engines: a page that holds one is never kept in a TLB, so that each
//! access to it is walked, and the walk ends here.

use crate::{
    Cpu, Trap,
    mmu::Regime,
    pstate::{daif, spsr},
    trap::{ec, syndrome},
};
use isomer_core::PAGE_SHIFT;
use isomer_ir::{Access, Page};

/// Bits of MDSCR_EL1.
pub(crate) mod mdscr {
    /// Software step.
    pub(crate) const SS: u64 = 1;
    /// Debug exceptions at the level that takes them.
    pub(crate) const KDE: u64 = 1 << 13;
    /// Breakpoints and watchpoints.
    pub(crate) const MDE: u64 = 1 << 15;
    /// What can be written while the OS lock is open.
    pub(crate) const MASK: u64 = SS | 1 << 12 | KDE | MDE;
}

/// The status of debug exceptions in ISS.
const STATUS: u32 = 0x22;

/// MDCR_EL2.TDE.
const TDE: u64 = 1 << 8;

/// The level that takes debug exceptions.
pub(crate) fn taker(cpu: &Cpu) -> u8 {
    if cpu.sys.has_el2 && (cpu.sys.mdcr & TDE != 0 || cpu.sys.tge()) { 2 } else { 1 }
}

/// Are debug exceptions generated at level `el` with PSTATE.D as in `mask`?
fn generated(cpu: &Cpu, el: u8, mask: u64) -> bool {
    let debug = &cpu.sys.debug;
    let taker = taker(cpu);
    let open = !debug.os_locked && !debug.double_locked;
    let same = debug.mdscr & mdscr::KDE != 0 && mask & daif::D == 0;
    open && (el < taker || el == taker && same)
}

fn stepping(cpu: &Cpu) -> bool {
    cpu.sys.debug.mdscr & mdscr::SS != 0 && generated(cpu, cpu.el, cpu.daif)
}

/// Is one instruction to be executed before a step exception (active, not pending)?
pub(crate) fn steps(cpu: &Cpu) -> bool {
    cpu.ss && !cpu.stepped && stepping(cpu)
}

/// The step exception, if it is pending.
pub(crate) fn step_pending(cpu: &Cpu) -> Option<Trap> {
    let pending = (!cpu.ss || cpu.stepped) && stepping(cpu);
    let valid = u32::from(cpu.stepped) << 24;
    pending.then(|| Trap::new(syndrome(ec::STEP, STATUS | valid)))
}

/// Does an exception return to level `to` with `bits` for PSTATE keep SPSR_ELx.SS ("DebugExceptionReturnSS")?
pub(crate) fn return_steps(cpu: &Cpu, to: u8, bits: u64) -> bool {
    cpu.sys.debug.mdscr & mdscr::SS != 0
        && !generated(cpu, cpu.el, cpu.daif)
        && generated(cpu, to, bits & spsr::DAIF)
}

/// Does a control register's level match: HMC and PMC (or PAC) against the accessing level?
fn level_matches(control: u64, el: u8) -> bool {
    let (higher, levels) = (control & 1 << 13 != 0, control >> 1 & 3);
    match (el, higher) {
        (0, false) => levels & 2 != 0,
        (0, true) => levels == 3,
        (1, false) => levels & 1 != 0,
        (1, true) => levels & 1 != 0,
        (_, higher) => higher,
    }
}

/// What a watchpoint watches: first address and length (the manual, D2.10.5).
fn watched(value: u64, control: u64) -> (u64, u64) {
    let mask = control >> 24 & 0x1f;
    if mask >= 3 {
        return (value & (u64::MAX << mask), 1 << mask);
    }
    let bytes = control >> 5 & 0xff;
    let first = u64::from(bytes.trailing_zeros());
    let length = u64::from((!(bytes >> first.min(63))).trailing_zeros());
    (value.wrapping_add(first), length)
}

/// Looks whether an access that translates to `page` meets a breakpoint or watchpoint. `address` is untagged.
pub(crate) fn check(
    cpu: &Cpu,
    page: Page,
    (address, len): (u64, u32),
    access: Access,
    regime: Regime,
) -> Result<Page, Trap> {
    let debug = &cpu.sys.debug;
    if debug.mdscr & mdscr::MDE == 0 {
        return Ok(page);
    }
    if access == Access::Fetch {
        breakpoints(cpu, page, address)
    } else {
        watchpoints(cpu, page, (address, len), access, regime)
    }
}

fn same_area(a: u64, b: u64, shift: u8) -> bool {
    a >> shift.min(63) == b >> shift.min(63)
}

fn breakpoints(cpu: &Cpu, page: Page, address: u64) -> Result<Page, Trap> {
    let debug = &cpu.sys.debug;
    let mut page = page;
    for (value, control) in debug.bvr.into_iter().zip(debug.bcr) {
        // Enabled, and an unlinked address match.
        if control & 1 == 0 || control >> 20 & 0xf != 0 {
            continue;
        }
        // Sign-extended from bit 52.
        let at = ((value << 11) as i64 >> 11) as u64 & !3;
        if !same_area(at, address, page.shift.max(PAGE_SHIFT as u8)) {
            continue;
        }
        if at == address & !3 && level_matches(control, cpu.el) && generated(cpu, cpu.el, cpu.daif) {
            return Err(Trap::new(syndrome(ec::BREAKPOINT, STATUS)));
        }
        if same_area(at, address, PAGE_SHIFT as u8) {
            page.shift = 2;
        } else {
            page.shift = page.shift.min(PAGE_SHIFT as u8);
        }
    }
    Ok(page)
}

fn watchpoints(
    cpu: &Cpu,
    page: Page,
    (address, len): (u64, u32),
    access: Access,
    regime: Regime,
) -> Result<Page, Trap> {
    let debug = &cpu.sys.debug;
    let mut page = page;
    let kind = if access == Access::Store { 2 } else { 1 };
    let el = if regime.user { 0 } else { regime.el as u8 };
    for (value, control) in debug.wvr.into_iter().zip(debug.wcr) {
        if control & 1 == 0 {
            continue;
        }
        let (first, length) = watched(value, control);
        let shift = page.shift.max(PAGE_SHIFT as u8);
        let near = |shift: u8| {
            let (low, high) = (first >> shift, first.wrapping_add(length.wrapping_sub(1)) >> shift);
            (low..=high).contains(&(address >> shift))
        };
        if length == 0 || !near(shift.min(63)) {
            continue;
        }
        let overlaps =
            address < first.saturating_add(length) && first < address.saturating_add(u64::from(len));
        let asked = control >> 3 & kind != 0 && level_matches(control, el);
        if overlaps && asked && generated(cpu, cpu.el, cpu.daif) {
            let write = u32::from(access == Access::Store) << 6;
            return Err(Trap::with_far(syndrome(ec::WATCHPOINT, STATUS | write), address));
        }
        page.shift = if near(PAGE_SHIFT as u8) { 0 } else { page.shift.min(PAGE_SHIFT as u8) };
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_core::Gpa;

    const USER: Regime = Regime { el: 1, user: true, pan: false, two_ranges: true };

    fn page() -> Page {
        Page { gpa: Gpa(0x8000), shift: 21, load: true, store: true, fetch: true, global: false }
    }

    fn user() -> Cpu {
        let mut cpu = Cpu::default();
        cpu.set_level(0, false);
        cpu.daif = 0;
        cpu.sys.debug.mdscr = mdscr::MDE;
        cpu
    }

    #[test]
    fn a_watchpoint_keeps_its_page_out_of_the_tlb_and_fires_on_overlap() {
        let mut cpu = user();
        cpu.sys.debug.wvr[1] = 0x1000;
        // Stores by EL0 to bytes 2 and 3.
        cpu.sys.debug.wcr[1] = 1 | 2 << 1 | 2 << 3 | 0b1100 << 5;
        let go = |cpu: &Cpu, at, len, access| check(cpu, page(), (at, len), access, USER);
        assert_eq!(go(&cpu, 0x1004, 4, Access::Store).map(|page| page.shift), Ok(0));
        assert_eq!(go(&cpu, 0x1000, 4, Access::Load).map(|page| page.shift), Ok(0));
        let trap = go(&cpu, 0x1000, 4, Access::Store).unwrap_err();
        assert_eq!((trap.class(), trap.syndrome & 0x7f, trap.far), (ec::WATCHPOINT, 0x62, 0x1000));
        assert_eq!(go(&cpu, 0x1000, 2, Access::Store).map(|page| page.shift), Ok(0));
        assert_eq!(go(&cpu, 0x3000, 4, Access::Store).map(|page| page.shift), Ok(12));
        assert_eq!(go(&cpu, 0x40_0000, 4, Access::Store).map(|page| page.shift), Ok(21));
        cpu.sys.debug.os_locked = true;
        assert!(go(&cpu, 0x1000, 4, Access::Store).is_ok());
    }

    #[test]
    fn masks_watch_large_ranges() {
        assert_eq!(watched(0x1234, 1 | 12 << 24 | 0xff << 5), (0x1000, 4096));
        assert_eq!(watched(0x1000, 1 | 0xff << 5), (0x1000, 8));
        assert_eq!(watched(0x1000, 1 | 0xf0 << 5), (0x1004, 4));
        assert_eq!(watched(0x1000, 1).1, 0);
    }

    #[test]
    fn a_breakpoint_fires_at_its_level_only() {
        let mut cpu = user();
        (cpu.sys.debug.bvr[0], cpu.sys.debug.bcr[0]) = (0x1008, 1 | 2 << 1 | 0xf << 5);
        assert_eq!(
            check(&cpu, page(), (0x1008, 4), Access::Fetch, USER).unwrap_err().class(),
            ec::BREAKPOINT
        );
        assert_eq!(check(&cpu, page(), (0x100c, 4), Access::Fetch, USER).map(|page| page.shift), Ok(2));
        cpu.set_level(1, true);
        assert!(check(&cpu, page(), (0x1008, 4), Access::Fetch, USER).is_ok());
    }

    #[test]
    fn step_is_pending_once_its_instruction_has_begun() {
        let mut cpu = user();
        cpu.sys.debug.mdscr = mdscr::SS;
        cpu.ss = true;
        assert!(steps(&cpu) && step_pending(&cpu).is_none());
        cpu.stepped = true;
        assert!(!steps(&cpu));
        assert_eq!(step_pending(&cpu).map(|trap| trap.syndrome & 0x100_003f), Some(0x100_0022));
        cpu.set_level(1, true);
        assert!(step_pending(&cpu).is_none());
        assert!(return_steps(&cpu, 0, 0) && !return_steps(&cpu, 1, 0));
    }
}
