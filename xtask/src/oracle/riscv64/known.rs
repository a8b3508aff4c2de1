//! Where the reference emulator and the manual differ, or the manual leaves a choice: what is not generated, and why.

use isomer_riscv64::encoding::{Encoding, Field};

/// Why this instruction cannot be compared, if so.
pub(crate) fn difference(row: Encoding, insn: u32) -> Option<&'static str> {
    let rd = row.get(insn, Field::Rd);
    match row.name() {
        "amocas.w" | "amocas.d" | "amocas.q" if rd == 0 => {
            Some("QEMU 10 loads into its own constant 0, which later instructions then use")
        }
        _ => None,
    }
}

/// CSRs that user mode has, here or there.
pub(crate) fn is_user_csr(number: i64) -> bool {
    matches!(
        number,
        // Floating point, vectors, shadow stack, entropy, table jumps, counters.
        0x001..=0x003 | 0x008..=0x00f | 0x011 | 0x015 | 0x017 | 0xc00..=0xc3f
    )
}

/// Illegal in user mode (volume II, 12.3), which QEMU's user mode does not check.
pub(crate) fn is_lenient(row: Encoding) -> bool {
    matches!(row.name(), "sfence.w.inval" | "sfence.inval.ir")
}

/// Waiting for a reservation may end it (volume I, 14.1): it does on QEMU, and not here.
pub(crate) fn drops_reservation(row: Encoding) -> bool {
    row.name().starts_with("wrs.")
}

/// QEMU 10 declares these free of side effects, and so leaves them out, flags and all, where their result is
/// overwritten before it is read.
pub(crate) fn is_skipped_unless_read(row: Encoding) -> bool {
    row.name().starts_with("fround")
}
