//! Where the reference emulator and the manual differ, or the manual leaves a choice: what is not generated, and why.

use isomer_aarch64::{Aarch64, Features, encoding::Encoding};

/// What QEMU 10's user mode cannot be compared in: keys of pointer authentication are drawn anew for each process, random
/// numbers are random, and it has none of the rest.
pub(super) const LEFT_OUT: Features = Features::PAUTH
    .union(Features::PAUTH2)
    .union(Features::FPAC)
    .union(Features::PACIMP)
    .union(Features::PACQARMA3)
    .union(Features::RNG)
    .union(Features::LRCPC3)
    .union(Features::CSSC)
    .union(Features::WFXT);

/// Encodings, as mask and value, that QEMU 10's `max` has and Isomer has not.
const FOREIGN: &[(u32, u32)] = &[
    // FEAT_MTE: `stgp`; `addg`, `subg`; `irg`, `gmi`, `subp`; `ldg` and its kin.
    (0xfe40_0000, 0x6800_0000),
    (0xbf80_0000, 0x9180_0000),
    (0x5fe0_0000, 0x1ac0_0000),
    (0xff20_0000, 0xd920_0000),
    // FEAT_HBC: `bc.cond`.
    (0xff00_0010, 0x5400_0010),
    // FEAT_MOPS.
    (0x3b20_0c00, 0x1900_0400),
    // FEAT_SM3 and FEAT_SM4, with all of their neighbours.
    (0xff00_0000, 0xce00_0000),
    // System instructions and hints.
    (0xffc0_0000, 0xd500_0000),
    // FEAT_CSSC and FEAT_LRCPC3 may come.
    (0x7fc0_0000, 0x11c0_0000),
    (0x3f20_0000, 0x1900_0000),
];

/// May QEMU execute what Isomer calls undefined?
pub(super) fn is_foreign(insn: u32) -> bool {
    FOREIGN.iter().any(|&(mask, value)| insn & mask == value)
}

/// Does `dc zva` clear as much on both sides? QEMU's `max` clears 512 bytes, everybody else 64.
pub(super) fn zeroes_alike(guest: &Aarch64) -> bool {
    guest.name != "max"
}

/// Not generated at all.
pub(super) fn is_left_out(row: Encoding) -> bool {
    matches!(
        row.name(),
        // Waiting, and what only a supervisor or a debugger does.
        "wfi" | "wfe" | "wfet" | "wfit" | "yield" | "svc" | "hvc" | "smc" | "brk" | "hlt" | "udf"
            // By builders of their own.
            | "msr" | "mrs" | "{sysop}"
    ) || row.name().starts_with("eret")
}
