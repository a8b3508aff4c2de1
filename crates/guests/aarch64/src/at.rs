//! Address translation instructions (the manual, C5.4 "AT" and D24.2.142 "PAR_EL1").

use crate::{
    Features, Trap,
    mmu::{self, Translation, Walker},
    mmu_table::FaultKind,
    mode::mmu as regime,
    sysop::{Operation, operation},
    sysreg::Access,
    system::hcr,
};
use isomer_ir::{Access as Kind, MmuIndex};

/// PAR_EL1 of a translation that succeeded.
fn success(translation: &Translation) -> u64 {
    let device = translation.attributes >> 4 == 0;
    // Device memory is always outer shareable.
    let shareability = if device { 2 } else { u64::from(translation.shareability) };
    u64::from(translation.attributes) << 56
        | translation.address & 0x000f_ffff_ffff_f000
        | 1 << 11
        | shareability << 7
}

/// PAR_EL1 of one that failed.
fn failure(fault: &mmu::Fault) -> u64 {
    let stage2 = u64::from(fault.ipa.is_some());
    stage2 << 9 | 1 << 11 | u64::from(fault.walk) << 8 | u64::from(fault.table.status()) << 1 | 1
}

/// Translates `gva`; `both` stages, or stage 1 alone.
fn translate(a: &mut Access<'_, '_>, gva: u64, kind: Kind, mmu: MmuIndex, both: bool) -> Result<(), Trap> {
    let cx = &mut *a.cx;
    let Some(memory) = cx.env.memory() else {
        return Err(Trap::undefined());
    };
    let walker = Walker::new(cx.guest, cx.cpu, memory, kind, mmu);
    let address = mmu::untagged(cx.cpu, gva, kind, mmu);
    let outcome = if both { walker.translate(address) } else { walker.stage1(address) };
    let par = match outcome {
        Ok(translation) => success(&translation),
        // A hypervisor hears of stage 2 faults that its guest's walk meets; external aborts are taken.
        Err(fault) if fault.ipa.is_some() && cx.cpu.el == 1 || fault.table.kind == FaultKind::External => {
            return Err(mmu::trap(fault, gva, kind));
        }
        Err(fault) => failure(&fault),
    };
    cx.cpu.sys.par = par;
    Ok(())
}

/// The regime that an EL1 or EL0 name means: a host's own, or EL1&0.
fn el1_or_host(a: &Access<'_, '_>, user: bool, pan: bool) -> MmuIndex {
    let host = a.el() == 2 && a.cx.cpu.sys.in_host();
    let pan = pan && a.cx.cpu.pan;
    match (host, user) {
        (false, true) => regime::E10_0,
        (false, false) if pan => regime::E10_1_PAN,
        (false, false) => regime::E10_1,
        (true, true) => regime::E20_0,
        (true, false) if pan => regime::E20_2_PAN,
        (true, false) => regime::E20_2,
    }
}

fn stage1(a: &mut Access<'_, '_>, gva: u64, kind: Kind, user: bool, pan: bool) -> Result<(), Trap> {
    let mmu = el1_or_host(a, user, pan);
    translate(a, gva, kind, mmu, false)
}

fn el2(a: &mut Access<'_, '_>, gva: u64, kind: Kind) -> Result<(), Trap> {
    let mmu = if a.cx.cpu.sys.e2h() { regime::E20_2 } else { regime::E2 };
    translate(a, gva, kind, mmu, false)
}

/// Both stages of EL1&0; under TGE there is no stage 2, and a host means itself.
fn both_stages(a: &mut Access<'_, '_>, gva: u64, kind: Kind, user: bool) -> Result<(), Trap> {
    let mmu = el1_or_host(a, user, false);
    translate(a, gva, kind, mmu, a.cx.cpu.sys.hcr() & (hcr::VM | hcr::DC) != 0)
}

#[rustfmt::skip]
pub(crate) static TABLE: &[Operation] = &[
    operation("s1e1r", 0, 7, 8, 0, |a, v| stage1(a, v, Kind::Load, false, false)),
    operation("s1e1w", 0, 7, 8, 1, |a, v| stage1(a, v, Kind::Store, false, false)),
    operation("s1e0r", 0, 7, 8, 2, |a, v| stage1(a, v, Kind::Load, true, false)),
    operation("s1e0w", 0, 7, 8, 3, |a, v| stage1(a, v, Kind::Store, true, false)),
    operation("s1e1rp", 0, 7, 9, 0, |a, v| stage1(a, v, Kind::Load, false, true)).needs(Features::PAN2),
    operation("s1e1wp", 0, 7, 9, 1, |a, v| stage1(a, v, Kind::Store, false, true)).needs(Features::PAN2),
    operation("s1e2r", 4, 7, 8, 0, |a, v| el2(a, v, Kind::Load)),
    operation("s1e2w", 4, 7, 8, 1, |a, v| el2(a, v, Kind::Store)),
    operation("s12e1r", 4, 7, 8, 4, |a, v| both_stages(a, v, Kind::Load, false)),
    operation("s12e1w", 4, 7, 8, 5, |a, v| both_stages(a, v, Kind::Store, false)),
    operation("s12e0r", 4, 7, 8, 6, |a, v| both_stages(a, v, Kind::Load, true)),
    operation("s12e0w", 4, 7, 8, 7, |a, v| both_stages(a, v, Kind::Store, true)),
];
