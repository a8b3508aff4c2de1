//! Helpers of the privileged instructions and CSR accesses.
//!
//! `insn` is always the instruction's encoding, from which a helper takes the CSR number (bits 31:20), whether
//! operands are x0, and the trap value of an illegal instruction.

use crate::{Riscv64, Trap, mstatus};
use isomer_ir::HelperCx;

type Result = std::result::Result<u64, Trap>;

/// `csr_read(insn, _, index)`: the CSR's value. A read without a write (`csrrs rd, csr, x0`). `index` is how many
/// instructions of the running block came before this one: they are not in the header's count yet.
pub(crate) fn csr_read(_: &mut HelperCx<'_, Riscv64>, [insn, _, _index, _]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `csr_write(insn, value, index)`: a write without a read (`csrrw x0, csr, rs1`).
pub(crate) fn csr_write(_: &mut HelperCx<'_, Riscv64>, [insn, _value, _index, _]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `csr_swap(insn, value, index)`: writes, and gives the old value.
pub(crate) fn csr_swap(_: &mut HelperCx<'_, Riscv64>, [insn, _value, _index, _]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `csr_set(insn, mask, index)`: sets bits, and gives the old value. Writes even where `mask` is 0.
pub(crate) fn csr_set(_: &mut HelperCx<'_, Riscv64>, [insn, _mask, _index, _]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `csr_clear(insn, mask, index)`: clears bits, and gives the old value. Writes even where `mask` is 0.
pub(crate) fn csr_clear(_: &mut HelperCx<'_, Riscv64>, [insn, _mask, _index, _]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `mark_fs_dirty()`: an instruction is about to write floating-point state while `mstatus.FS` is not dirty.
pub(crate) fn mark_fs_dirty(cx: &mut HelperCx<'_, Riscv64>, _: [u64; 4]) -> Result {
    cx.cpu.mstatus |= mstatus::FS;
    cx.cpu.update_mode();
    Ok(0)
}

/// `mret(insn)`: returns from an M trap; gives the pc to continue at.
pub(crate) fn mret(_: &mut HelperCx<'_, Riscv64>, [insn, ..]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `sret(insn)`: returns from an S trap (TSR checked); gives the pc to continue at.
pub(crate) fn sret(_: &mut HelperCx<'_, Riscv64>, [insn, ..]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `wfi(insn)`: waits for an interrupt (TW checked).
pub(crate) fn wfi(_: &mut HelperCx<'_, Riscv64>, [insn, ..]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `sfence_vma(insn, rs1, rs2)`: `sfence.vma` and `sinval.vma` (privilege and TVM checked). Whether rs1 and rs2 are
/// x0 is in `insn`.
pub(crate) fn sfence_vma(_: &mut HelperCx<'_, Riscv64>, [insn, _gva, _asid, _]: [u64; 4]) -> Result {
    Err(Trap::illegal(insn))
}

/// `fence_i()`: instruction fetches see all earlier stores.
pub(crate) fn fence_i(cx: &mut HelperCx<'_, Riscv64>, _: [u64; 4]) -> Result {
    cx.env.sync_code();
    Ok(0)
}
