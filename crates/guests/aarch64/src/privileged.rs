//! Helpers of system instructions: register accesses, PSTATE, exception returns, waiting, barriers.
//!
//! `insn` is always the instruction's encoding, from which a helper takes what is accessed and what a trap reports.

use crate::{
    Aarch64, Cpu, Features, Trap, pmu,
    pstate::{daif, spsr},
    sysop, sysreg,
    sysreg::Verdict,
    system::{hcr, sctlr},
    trap::{ec, syndrome},
};
use isomer_ir::HelperCx;
use std::sync::atomic::Ordering;

type Cx<'a> = HelperCx<'a, Aarch64>;
type Result = std::result::Result<u64, Trap>;

/// `mrs(insn)`: the register's value.
pub(crate) fn mrs(cx: &mut Cx<'_>, [insn, ..]: [u64; 4]) -> Result {
    sysreg::access(cx, insn, None)
}

/// `msr(insn, value)`.
pub(crate) fn msr(cx: &mut Cx<'_>, [insn, value, ..]: [u64; 4]) -> Result {
    sysreg::access(cx, insn, Some(value))
}

/// `sys(insn, value)`: maintenance and address translation.
pub(crate) fn sys(cx: &mut Cx<'_>, [insn, value, ..]: [u64; 4]) -> Result {
    sysop::run(cx, insn, value).map(|()| 0)
}

/// The fields that `msr` with an immediate names, as op1 and op2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Uao,
    Pan,
    SpSel,
    Ssbs,
    Dit,
    DaifSet,
    DaifClear,
}

impl Field {
    /// The field of an instruction, if there is such a one.
    pub(crate) fn of(guest: &Aarch64, insn: u32) -> Option<Self> {
        let (field, needs) = match (insn >> 16 & 7, insn >> 5 & 7) {
            (0, 3) => (Self::Uao, Features::UAO),
            (0, 4) => (Self::Pan, Features::PAN),
            (0, 5) => (Self::SpSel, Features::empty()),
            (3, 1) => (Self::Ssbs, Features::SSBS),
            (3, 2) => (Self::Dit, Features::DIT),
            (3, 6) => (Self::DaifSet, Features::empty()),
            (3, 7) => (Self::DaifClear, Features::empty()),
            _ => return None,
        };
        guest.has(needs).then_some(field)
    }

    /// Does EL0 have it?
    pub(crate) const fn is_users(self) -> bool {
        matches!(self, Self::Ssbs | Self::Dit | Self::DaifSet | Self::DaifClear)
    }

    /// Is it in the mode word?
    pub(crate) const fn changes_mode(self) -> bool {
        matches!(self, Self::Uao | Self::Pan | Self::SpSel)
    }
}

/// `msr_imm(insn)`: changes a field of PSTATE. The lifter has found that the field is there.
pub(crate) fn msr_immediate(cx: &mut Cx<'_>, [insn, ..]: [u64; 4]) -> Result {
    let field = Field::of(cx.guest, insn as u32).ok_or(Trap::undefined())?;
    let immediate = insn >> 8 & 15;
    let on = immediate & 1 != 0;
    let cpu = &mut *cx.cpu;
    let is_daif = matches!(field, Field::DaifSet | Field::DaifClear);
    if is_daif && cpu.el == 0 && cpu.sys.sctlr[cpu.sys.regime_el(0)] & sctlr::UMA == 0 {
        Verdict::Trap.result(insn)?;
    }
    match field {
        Field::Uao => cpu.uao = on,
        Field::Pan => cpu.pan = on,
        Field::SpSel => cpu.set_level(cpu.el, on),
        Field::Ssbs => cpu.ssbs = on,
        Field::Dit => cpu.dit = on,
        Field::DaifSet => cpu.daif |= immediate << 6,
        Field::DaifClear => {
            cpu.daif &= !(immediate << 6);
            unmasked(cx);
        }
    }
    if field.changes_mode() {
        cx.cpu.update_mode();
    }
    Ok(0)
}

/// Something became unmasked: an interrupt may wait, or a debug exception.
fn unmasked(cx: &mut Cx<'_>) {
    let virtual_pending = hcr::VI | hcr::VF | hcr::VSE;
    let debug = cx.cpu.sys.debug.mdscr & 1 != 0 && cx.cpu.daif & daif::D == 0;
    if debug {
        cx.cpu.update_mode();
    }
    if debug || cx.env.lines() != 0 || cx.cpu.sys.hcr & virtual_pending != 0 {
        cx.env.reconsider();
    }
}

/// `daif(value)`: writes PSTATE.DAIF, at EL1 and up.
pub(crate) fn write_daif(cx: &mut Cx<'_>, [value, ..]: [u64; 4]) -> Result {
    let old = std::mem::replace(&mut cx.cpu.daif, value & spsr::DAIF);
    if old & !cx.cpu.daif != 0 {
        unmasked(cx);
    }
    Ok(0)
}

/// `eret(pc)`: returns from an exception; gives the pc to continue at. `pc` replaces ELR_ELx where `authenticated` is 1.
pub(crate) fn eret(cx: &mut Cx<'_>, [pc, authenticated, ..]: [u64; 4]) -> Result {
    let cpu = &mut *cx.cpu;
    // The return itself counts at the level it leaves.
    pmu::settle(cpu, cpu.header.insns + 1);
    let elr = cpu.exception_return();
    if cpu.el < 2 && cpu.sys.hcr() & (hcr::VM | hcr::DC) != 0 {
        cx.guest.guests_seen.store(true, Ordering::SeqCst);
    }
    cx.env.sync_code();
    Ok(branch_address(cx.cpu, if authenticated != 0 { pc } else { elr }))
}

/// `elr()`: ELR_ELx of this level, for the authenticated returns.
pub(crate) fn elr(cx: &mut Cx<'_>, _: [u64; 4]) -> Result {
    Ok(cx.cpu.sys.elr[usize::from(cx.cpu.el & 3)])
}

/// A branch destination without the top byte, where that is ignored (the manual, "AArch64.BranchAddr").
fn branch_address(cpu: &Cpu, pc: u64) -> u64 {
    let upper = pc >> 55 & 1 != 0;
    match (crate::Mode(cpu.header.mode).ignores_top_byte(upper), upper) {
        (false, _) => pc,
        (true, true) if cpu.el < 2 || cpu.sys.e2h() => pc | 0xff << 56,
        (true, _) => pc & (u64::MAX >> 8),
    }
}

/// Does waiting trap from this level? `event`: `wfe` rather than `wfi`; `timed`: with a timeout.
fn wait_traps(cpu: &Cpu, event: bool, timed: bool) -> std::result::Result<(), Trap> {
    let kind = u32::from(event) | u32::from(timed) << 1;
    let trap = Trap::new(syndrome(ec::WFX, 0x1e0_0000 | kind));
    let (user, below) = if event { (sctlr::NTWE, hcr::TWE) } else { (sctlr::NTWI, hcr::TWI) };
    if cpu.el == 0 && cpu.sys.sctlr[cpu.sys.regime_el(0)] & user == 0 {
        return Err(trap);
    }
    if cpu.el < 2 && cpu.sys.hcr() & below != 0 {
        return Err(Trap { to_el2: true, ..trap });
    }
    Ok(())
}

/// `wfi(timed, until)`: sleeps until an interrupt, or the virtual counter reaches `until`.
pub(crate) fn wfi(cx: &mut Cx<'_>, [timed, until, ..]: [u64; 4]) -> Result {
    wait_traps(cx.cpu, false, timed != 0)?;
    let offset = if cx.cpu.sys.has_el2 { cx.cpu.sys.cntvoff } else { 0 };
    cx.cpu.wait_until = if timed != 0 { until.saturating_add(offset) } else { u64::MAX };
    cx.env.wait_for_interrupt();
    Ok(0)
}

/// `wfe(timed)`: waiting for an event ends at once; others get a chance to run.
pub(crate) fn wfe(cx: &mut Cx<'_>, [timed, ..]: [u64; 4]) -> Result {
    if !std::mem::take(&mut cx.cpu.event) {
        wait_traps(cx.cpu, true, timed != 0)?;
        cx.env.reconsider();
    }
    Ok(0)
}

/// `event()`: `sev` and `sevl`. Nobody sleeps in `wfe`, so other PEs need not be told.
pub(crate) fn event(cx: &mut Cx<'_>, _: [u64; 4]) -> Result {
    cx.cpu.event = true;
    Ok(0)
}

/// `isb()`: fetches see everything before it.
pub(crate) fn isb(cx: &mut Cx<'_>, _: [u64; 4]) -> Result {
    cx.env.sync_code();
    Ok(0)
}

/// `dsb()`: TLB maintenance is complete.
pub(crate) fn dsb(cx: &mut Cx<'_>, _: [u64; 4]) -> Result {
    cx.env.await_flushes();
    Ok(0)
}
