//! The first instructions of a hart: the reset vector in MROM, and what it tells OpenSBI's `fw_dynamic`
//! (OpenSBI docs/firmware/fw_dynamic.md). The layout is that of QEMU's `virt` board.

use isomer_core::Gpa;

/// The mode in which firmware starts the next stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum NextMode {
    /// Supervisor mode.
    Supervisor = 1,
    /// Machine mode.
    Machine = 3,
}

/// `fw_dynamic_info.magic`: "OSBI".
const DYNAMIC_INFO_MAGIC: u64 = 0x4942_534f;
/// The version that has `boot_hart`.
const DYNAMIC_INFO_VERSION: u64 = 2;

/// The code: a0 = hart id, a1 = device tree, a2 = `fw_dynamic_info`, then a jump. Every hart runs it. `t0` is the
/// reset vector's own address, so offsets count from there.
const CODE: [u32; 6] = [
    0x0000_0297, // auipc t0, 0
    0x0282_8613, // addi  a2, t0, 40
    0xf140_2573, // csrr  a0, mhartid
    0x0202_b583, // ld    a1, 32(t0)
    0x0182_b283, // ld    t0, 24(t0)
    0x0002_8067, // jr    t0
];

/// The bytes at the reset address, which must be 8-byte aligned. `start` is where firmware begins, `next` what it
/// starts afterwards, in `mode`, and `boot_hart` the hart it should prefer for that (`None`: any).
pub fn reset_vector(start: Gpa, fdt: Gpa, next: Gpa, mode: NextMode, boot_hart: Option<u64>) -> Vec<u8> {
    let code = CODE.iter().flat_map(|insn| insn.to_le_bytes());
    let options = 0;
    let boot_hart = boot_hart.unwrap_or(u64::MAX);
    let info = [DYNAMIC_INFO_MAGIC, DYNAMIC_INFO_VERSION, next.0, mode as u64, options, boot_hart];
    let data = [start.0, fdt.0].into_iter().chain(info);
    code.chain(data.flat_map(u64::to_le_bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_where_the_code_looks() {
        let rom =
            reset_vector(Gpa(0x8000_0000), Gpa(0x9fe0_0000), Gpa(0x8020_0000), NextMode::Supervisor, None);
        let at = |offset: usize| u64::from_le_bytes(rom[offset..offset + 8].try_into().unwrap());
        // The I-type immediates of `ld a1`, `ld t0` and `addi a2`.
        let immediate = |n: usize| (CODE[n] >> 20) as usize;
        assert_eq!(at(immediate(4)), 0x8000_0000);
        assert_eq!(at(immediate(3)), 0x9fe0_0000);
        let info = immediate(1);
        assert_eq!(&rom[info..info + 4], b"OSBI");
        let fields = [at(info + 8), at(info + 16), at(info + 24), at(info + 32), at(info + 40)];
        assert_eq!(fields, [2, 0x8020_0000, 1, 0, u64::MAX]);
        assert_eq!(rom.len(), info + 48);
    }
}
