//! Helpers of the privileged instructions and CSR accesses (volume II, 3.3 and 12.2).
//!
//! `insn` is always the instruction's encoding, from which a helper takes the CSR number (bits 31:20), whether
//! operands are x0, and the trap value of an illegal instruction.

use crate::{
    Privilege, Riscv64, Trap, counters,
    csr::{self, Update},
    mstatus,
};
use isomer_core::Gva;
use isomer_ir::{HelperCx, guest::TlbFlush};

type Result = std::result::Result<u64, Trap>;

/// `csr_read(insn)`: the CSR's value. A read without a write (`csrrs rd, csr, x0`).
pub(crate) fn csr_read(cx: &mut HelperCx<'_, Riscv64>, [insn, ..]: [u64; 4]) -> Result {
    csr::access(cx, insn, true, Update::None)
}

/// `csr_write(insn, value)`: a write without a read (`csrrw x0, csr, rs1`).
pub(crate) fn csr_write(cx: &mut HelperCx<'_, Riscv64>, [insn, value, ..]: [u64; 4]) -> Result {
    csr::access(cx, insn, false, Update::Replace(value))
}

/// `csr_swap(insn, value)`: writes, and gives the old value.
pub(crate) fn csr_swap(cx: &mut HelperCx<'_, Riscv64>, [insn, value, ..]: [u64; 4]) -> Result {
    csr::access(cx, insn, true, Update::Replace(value))
}

/// `csr_set(insn, mask)`: sets bits, and gives the old value. Writes even where `mask` is 0.
pub(crate) fn csr_set(cx: &mut HelperCx<'_, Riscv64>, [insn, mask, ..]: [u64; 4]) -> Result {
    csr::access(cx, insn, true, Update::Set(mask))
}

/// `csr_clear(insn, mask)`: clears bits, and gives the old value. Writes even where `mask` is 0.
pub(crate) fn csr_clear(cx: &mut HelperCx<'_, Riscv64>, [insn, mask, ..]: [u64; 4]) -> Result {
    csr::access(cx, insn, true, Update::Clear(mask))
}

/// `mark_fs_dirty()`: an instruction is about to write floating-point state while `mstatus.FS` is not dirty.
pub(crate) fn mark_fs_dirty(cx: &mut HelperCx<'_, Riscv64>, _: [u64; 4]) -> Result {
    cx.cpu.mstatus |= mstatus::FS;
    cx.cpu.update_mode();
    // Code lifted for the new mode need not ask again.
    cx.env.reconsider();
    Ok(0)
}

/// `mret(insn)`: returns from an M trap; gives the pc to continue at.
pub(crate) fn mret(cx: &mut HelperCx<'_, Riscv64>, [insn, ..]: [u64; 4]) -> Result {
    let cpu = &mut *cx.cpu;
    if cpu.privilege != Privilege::Machine {
        return Err(Trap::illegal(insn));
    }
    // The return itself counts in the mode it leaves.
    counters::settle(cx.guest, cpu, cpu.header.insns + 1);
    let to = Privilege::from_bits(cpu.mstatus >> mstatus::MPP_SHIFT);
    let enable = if cpu.mstatus & mstatus::MPIE != 0 { mstatus::MIE } else { 0 };
    let drop_mprv = if to == Privilege::Machine { 0 } else { mstatus::MPRV };
    cpu.mstatus = cpu.mstatus & !(mstatus::MIE | mstatus::MPP | drop_mprv) | enable | mstatus::MPIE;
    cpu.privilege = to;
    cpu.update_mode();
    Ok(cpu.mepc)
}

/// `sret(insn)`: returns from an S trap (TSR checked); gives the pc to continue at.
pub(crate) fn sret(cx: &mut HelperCx<'_, Riscv64>, [insn, ..]: [u64; 4]) -> Result {
    let cpu = &mut *cx.cpu;
    let trapped = cpu.privilege == Privilege::Supervisor && cpu.mstatus & mstatus::TSR != 0;
    if cpu.privilege == Privilege::User || trapped {
        return Err(Trap::illegal(insn));
    }
    counters::settle(cx.guest, cpu, cpu.header.insns + 1);
    let to = if cpu.mstatus & mstatus::SPP != 0 { Privilege::Supervisor } else { Privilege::User };
    let enable = if cpu.mstatus & mstatus::SPIE != 0 { mstatus::SIE } else { 0 };
    cpu.mstatus = cpu.mstatus & !(mstatus::SIE | mstatus::SPP | mstatus::MPRV) | enable | mstatus::SPIE;
    cpu.privilege = to;
    cpu.update_mode();
    Ok(cpu.sepc)
}

/// `wfi(insn)`: waits for an interrupt (TW checked). U-mode may not, since S-mode exists.
pub(crate) fn wfi(cx: &mut HelperCx<'_, Riscv64>, [insn, ..]: [u64; 4]) -> Result {
    let timed_out = cx.cpu.mstatus & mstatus::TW != 0 && cx.cpu.privilege != Privilege::Machine;
    if timed_out || cx.cpu.privilege == Privilege::User {
        return Err(Trap::illegal(insn));
    }
    cx.env.wait_for_interrupt();
    Ok(0)
}

/// `sfence_vma(insn, rs1, rs2)`: `sfence.vma` and `sinval.vma` (privilege and TVM checked). Whether rs1 and rs2 are
/// x0 is in `insn`.
pub(crate) fn sfence_vma(cx: &mut HelperCx<'_, Riscv64>, [insn, gva, asid, _]: [u64; 4]) -> Result {
    let trapped = cx.cpu.privilege == Privilege::Supervisor && cx.cpu.mstatus & mstatus::TVM != 0;
    if cx.cpu.privilege == Privilege::User || trapped {
        return Err(Trap::illegal(insn));
    }
    let named = |field: u32| insn >> field & 0x1f != 0;
    let mode = csr::address_space(cx.cpu.satp) & !0xffff;
    cx.env.flush_tlb(TlbFlush {
        gva: named(15).then_some(Gva(gva)),
        len: 0,
        address_space: named(20).then_some(mode | asid & 0xffff),
    });
    Ok(0)
}

/// `fence_i()`: instruction fetches see all earlier stores.
pub(crate) fn fence_i(cx: &mut HelperCx<'_, Riscv64>, _: [u64; 4]) -> Result {
    cx.env.sync_code();
    Ok(0)
}
