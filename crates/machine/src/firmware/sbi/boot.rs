//! The state a hart enters a kernel in (SBI 2.0, 9.1, "Hart Start Register State"; Linux Documentation/arch/riscv/boot.rst):
//! supervisor mode, translation off, and everything delegated that can be.

use super::{A0, A1};
use isomer_core::Gpa;
use isomer_riscv64::{
    Cpu, Extensions, Privilege, Riscv64, counters,
    regs::envcfg,
    trap::{cause, irq},
};

/// Exceptions that can be delegated, and are, but for calls to this firmware.
const DELEGATED: u64 = 0xb3ff & !(1 << cause::ECALL_S);
/// A PMP entry for naturally aligned ranges, with all permissions.
const PMP_NAPOT_RWX: u8 = 3 << 3 | 7;
/// `pmpaddr` of the whole 56-bit address space.
const PMP_ALL: u64 = (1 << 54) - 1;
/// `mseccfg.SSEED`: S-mode may read `seed`, as the device tree's "zkr" promises.
const SSEED: u64 = 1 << 9;

/// Hart `hartid` about to run the first instruction at `entry`, with `opaque` in a1: the device tree's address, or what
/// sbi_hart_start was given.
pub fn boot_state(guest: &Riscv64, hartid: u64, entry: Gpa, opaque: u64) -> Cpu {
    let has = |ext| guest.ext.contains(ext);
    let when = |ext, bits: u64| if has(ext) { bits } else { 0 };
    let mut cpu = guest.reset(hartid, entry.0);
    cpu.privilege = Privilege::Supervisor;
    cpu.medeleg = DELEGATED;
    cpu.mideleg = irq::SUPERVISOR & !irq::LCOFI | when(Extensions::SSCOFPMF, irq::LCOFI);
    cpu.mcounteren = u64::from(u32::MAX);
    // As OpenSBI does. A kernel without a driver for counters leaves it as it is, and programs read `time` in its vDSO.
    cpu.scounteren = 0b111;
    // Those that sbi_pmu_counter_start starts are stopped.
    cpu.mcountinhibit = counters::PROGRAMMABLE;
    // STCE without Sstc too: there the kernel cannot reach `stimecmp`, and sbi_set_timer uses it all the same.
    // With both Svade and Svadu, software updates A and D until it asks otherwise (Linux extensions.yaml, "svadu").
    let hardware_ad = has(Extensions::SVADU) && !has(Extensions::SVADE);
    cpu.menvcfg = envcfg::STCE
        | when(Extensions::ZICBOM, envcfg::CBIE | envcfg::CBCFE)
        | when(Extensions::ZICBOZ, envcfg::CBZE)
        | when(Extensions::SVPBMT, envcfg::PBMTE)
        | if hardware_ad { envcfg::ADUE } else { 0 };
    cpu.mseccfg = when(Extensions::ZKR, SSEED);
    cpu.mstateen = [u64::MAX; 4];
    cpu.pmpcfg[0] = PMP_NAPOT_RWX;
    cpu.pmpaddr[0] = PMP_ALL;
    cpu.x[A0] = hartid;
    cpu.x[A1] = opaque;
    cpu.update_mode();
    cpu
}
