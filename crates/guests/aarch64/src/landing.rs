//! Where an indirect branch may land: the slow half of branch target identification (Arm ARM, D8.5.1, "AArch64.BranchTargetCheck").

use crate::{Aarch64, Mode, Trap, trap};
use isomer_core::Gva;
use isomer_ir::{Access, HelperCx, guest::TlbFlush};

/// `check_landing(btype, refused)`: the running block's first instruction is none that a branch of type `btype` may
/// reach, if bit `btype` of `refused` is set and its page is guarded.
pub(crate) fn check(cx: &mut HelperCx<'_, Aarch64>, [btype, refused, ..]: [u64; 4]) -> Result<u64, Trap> {
    let refuses = |btype: u64| refused >> (btype & 3) & 1 != 0;
    if !refuses(btype) || !is_guarded(cx, cx.cpu.header.pc)? {
        return Ok(0);
    }
    // A `br` in an unguarded page lands where `bti c` is, too.
    let source = cx.cpu.branch_source;
    if btype == 3 && !refuses(1) && !is_guarded(cx, source).unwrap_or(false) {
        return Ok(0);
    }
    Err(Trap::new(trap::syndrome(trap::ec::BTI, btype as u32 & 3)))
}

/// Is the page of this code guarded? Only a walk says, so its cached translation is dropped first.
fn is_guarded(cx: &mut HelperCx<'_, Aarch64>, pc: u64) -> Result<bool, Trap> {
    let mmu = Mode(cx.cpu.header.mode).mmu();
    cx.env.flush_tlb(TlbFlush { gva: Some(Gva(pc)), ..TlbFlush::default() });
    cx.cpu.guarded.set(false);
    let walked = cx.env.translate(cx.guest, cx.cpu, Gva(pc), Access::Fetch, mmu);
    let guarded = cx.cpu.guarded.replace(true);
    walked.map(|_| guarded)
}
