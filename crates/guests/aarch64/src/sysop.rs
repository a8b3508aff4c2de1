//! System instructions, `sys`: maintenance of caches, TLBs and predictors, address translation (the manual, C5.3 to C5.6).
//!
//! Caches are coherent and invisible; what is left of their maintenance is its faults and traps.

use crate::{
    Aarch64, Features, Mode, Trap, at,
    sysreg::{Access, Guard, Verdict, key, key_of},
    system::{hcr, sctlr},
    tlbi,
};
use isomer_core::Gva;
use isomer_ir::{Access as Kind, HelperCx};

/// A system instruction.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) key: u16,
    needs: Features,
    level: u8,
    /// Bits of HCR_EL2 of which one makes it trap below EL2.
    traps: u64,
    guard: Guard,
    run: fn(&mut Access<'_, '_>, u64) -> Result<(), Trap>,
}

/// A row: name, op1, CRn, CRm, op2, what it does with the register's value.
pub(crate) const fn operation(
    name: &'static str,
    op1: u16,
    crn: u16,
    crm: u16,
    op2: u16,
    run: fn(&mut Access<'_, '_>, u64) -> Result<(), Trap>,
) -> Operation {
    let level = match op1 {
        3 => 0,
        4 => 2,
        _ => 1,
    };
    let key = key(1, op1, crn, crm, op2);
    Operation { name, key, needs: Features::empty(), level, traps: 0, guard: |_| Verdict::Allow, run }
}

impl Operation {
    pub(crate) const fn needs(self, needs: Features) -> Self {
        Self { needs, ..self }
    }
    pub(crate) const fn traps(self, traps: u64) -> Self {
        Self { traps, ..self }
    }
    const fn guard(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }
    /// EL0 may use it if SCTLR_EL1.UCI is set.
    const fn user(self) -> Self {
        self.guard(|a| Verdict::enabled(lets_user(a, sctlr::UCI)))
    }
}

fn lets_user(a: &Access<'_, '_>, bit: u64) -> bool {
    let cpu = &*a.cx.cpu;
    cpu.el != 0 || cpu.sys.sctlr[cpu.sys.regime_el(0)] & bit != 0
}

/// ISS of an abort by cache maintenance: CM, and WnR.
const CACHE_MAINTENANCE: u32 = 1 << 8 | 1 << 6;

/// Maintenance of one line: only its translation matters.
fn line(a: &mut Access<'_, '_>, gva: u64) -> Result<(), Trap> {
    touch(a, gva, Kind::Load)
}

/// Invalidation alone needs the right to write.
fn line_for_write(a: &mut Access<'_, '_>, gva: u64) -> Result<(), Trap> {
    touch(a, gva, Kind::Store)
}

fn touch(a: &mut Access<'_, '_>, gva: u64, kind: Kind) -> Result<(), Trap> {
    let mmu = Mode(a.cx.cpu.header.mode).mmu();
    let translated = a.cx.env.translate(a.cx.guest, a.cx.cpu, Gva(gva), kind, mmu);
    translated.map(|_| ()).map_err(|trap| Trap { syndrome: trap.syndrome | CACHE_MAINTENANCE, ..trap })
}

/// Everything, or a line by set and way: nothing to do.
fn nothing(_: &mut Access<'_, '_>, _: u64) -> Result<(), Trap> {
    Ok(())
}

/// `dc zva` where the mode word does not allow it outright: the guard has trapped it unless the mode is stale.
fn zero(a: &mut Access<'_, '_>, gva: u64) -> Result<(), Trap> {
    let mmu = Mode(a.cx.cpu.header.mode).mmu();
    for offset in (0..ZERO_BYTES).step_by(8) {
        let at = Gva((gva & !(ZERO_BYTES - 1)) + offset);
        a.cx.env.store(a.cx.guest, a.cx.cpu, at, 8, mmu, 0)?;
    }
    Ok(())
}

/// What `dc zva` clears.
pub(crate) const ZERO_BYTES: u64 = 4 << crate::model::DCZID;

const POU: u64 = hcr::TPU | hcr::TOCU;
const ZVA: u16 = key(1, 3, 7, 4, 1);

/// Is this `dc zva`?
pub(crate) const fn is_zva(insn: u32) -> bool {
    key_of(insn as u64) == ZVA
}

#[rustfmt::skip]
static CACHES: &[Operation] = &[
    operation("ivac", 0, 7, 6, 1, line_for_write).traps(hcr::TPCP),
    operation("isw", 0, 7, 6, 2, nothing).traps(hcr::TSW),
    operation("csw", 0, 7, 10, 2, nothing).traps(hcr::TSW),
    operation("cisw", 0, 7, 14, 2, nothing).traps(hcr::TSW),
    operation("zva", 3, 7, 4, 1, zero).traps(hcr::TDZ).guard(|a| Verdict::enabled(lets_user(a, sctlr::DZE))),
    operation("cvac", 3, 7, 10, 1, line).traps(hcr::TPCP).user(),
    operation("cvau", 3, 7, 11, 1, line).traps(POU).user(),
    operation("cvap", 3, 7, 12, 1, line).traps(hcr::TPCP).needs(Features::DPB).user(),
    operation("cvadp", 3, 7, 13, 1, line).traps(hcr::TPCP).needs(Features::DPB2).user(),
    operation("civac", 3, 7, 14, 1, line).traps(hcr::TPCP).user(),
    // Instruction fetches see earlier stores from the next `isb` or exception return on, maintained or not.
    operation("ialluis", 0, 7, 1, 0, nothing).traps(POU | hcr::TICAB),
    operation("iallu", 0, 7, 5, 0, nothing).traps(POU),
    operation("ivau", 3, 7, 5, 1, line).traps(POU).user(),
];

/// Prediction restriction: nothing is predicted.
#[rustfmt::skip]
static PREDICTORS: &[Operation] = &[
    operation("cfp", 3, 7, 3, 4, nothing).needs(Features::SPECRES).guard(|a| Verdict::enabled(lets_user(a, sctlr::ENRCTX))),
    operation("dvp", 3, 7, 3, 5, nothing).needs(Features::SPECRES).guard(|a| Verdict::enabled(lets_user(a, sctlr::ENRCTX))),
    operation("cpp", 3, 7, 3, 7, nothing).needs(Features::SPECRES).guard(|a| Verdict::enabled(lets_user(a, sctlr::ENRCTX))),
];

pub(crate) fn all() -> impl Iterator<Item = &'static Operation> {
    CACHES.iter().chain(PREDICTORS).chain(at::TABLE).chain(tlbi::TABLE)
}

/// The mnemonic and name of an operation ("dc", "cvau"), if it has one.
pub(crate) fn name(key: u16) -> Option<(&'static str, &'static str)> {
    let operation = all().find(|operation| operation.key == key)?;
    let mnemonic = match (key >> 7 & 15, key >> 3 & 15) {
        (8, _) => "tlbi",
        (_, 8 | 9) => "at",
        (_, 1 | 5) => "ic",
        (_, 3) => operation.name,
        _ => "dc",
    };
    Some((mnemonic, operation.name))
}

/// `sys`.
pub(crate) fn run(cx: &mut HelperCx<'_, Aarch64>, insn: u64, value: u64) -> Result<(), Trap> {
    let key = key_of(insn);
    let operation = all()
        .find(|operation| operation.key == key)
        .filter(|operation| cx.guest.has(operation.needs) && cx.cpu.el >= operation.level)
        .ok_or(Trap::undefined())?;
    let mut a = Access { cx, key, index: 0, is_write: true };
    let intercepted = a.el() < 2 && a.cx.cpu.sys.hcr() & operation.traps != 0;
    (operation.guard)(&a).or(|| Verdict::intercepted(intercepted)).result(insn)?;
    (operation.run)(&mut a, value)
}
