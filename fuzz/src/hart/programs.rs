//! Short programs to start from, one for each part of the instruction set, in the input form of [`super::Start`].

use super::TELLING;

/// A program: its name, privilege (0 U, 1 S, 2 M), CSR writes as `(index into CSRS, index into TELLING)`, and code.
type Program = (&'static str, u8, &'static [(u8, u8)], &'static [u32]);

/// `satp`, and the Sv39 table of S-mode for it.
const SATP_SV39: (u8, u8) = (29, 7);

/// a0, a6 and a7 hold addresses of data, of a page table's root and of code.
#[rustfmt::skip]
const PROGRAMS: [Program; 8] = [
    // add mulhsu div remuw sh3add clmul rev8 czero.eqz bltu auipc
    ("integer", 2, &[], &[
        0x00c5_85b3, 0x02d5_a633, 0x02b6_46b3, 0x02c6_f73b, 0x20b7_67b3, 0x0ac7_9833, 0x6b88_5893, 0x0eb8_d933,
        0x00c5_e463, 0x0000_1997,
    ]),
    // ld sd lw sh lbu cbo.zero cbo.flush fence, some of them misaligned
    ("memory", 2, &[], &[
        0x0085_3583, 0x00b5_3823, 0x0065_2603, 0x7ec5_1fa3, 0xfff5_4683, 0x0045_200f, 0x0025_200f, 0x0330_000f,
    ]),
    // lr.d sc.d amoadd.w amomaxu.d amocas.d amocas.q
    ("atomic", 2, &[], &[0x1405_35af, 0x1ab5_362f, 0x00c5_26af, 0xe0d5_372f, 0x28f5_372f, 0x2905_472f]),
    // fcvt.d.l fmadd.d fdiv.s fsqrt.h fcvt.w.d fld fround.d fmv.x.d csrrwi fflags
    ("float", 2, &[], &[
        0xd225_f553, 0x52a5_15c3, 0x18a5_f653, 0x5c06_76d3, 0xc205_b5d3, 0x0005_3707, 0x4247_77d3, 0xe207_8653,
        0x0010_56f3,
    ]),
    // csrr mstatus, csrw satp, sfence.vma, ld, csrsi sie, wfi, ecall, mret
    ("system", 2, &[], &[
        0x3000_25f3, 0x1808_1673, 0x1200_0073, 0x0005_3683, 0x1041_6773, 0x1050_0073, 0x0000_0073, 0x3020_0073,
    ]),
    // lui, sw before fence.i, fence.i, sw after it, addi
    ("self-modifying", 2, &[], &[0x0001_35b7, 0x00b8_a623, 0x0000_100f, 0x00b8_a823, 0x0016_0613]),
    // "memory" and "system" in S-mode behind page tables
    ("translated", 1, &[SATP_SV39], &[
        0x0085_3583, 0x00b5_3823, 0x7ec5_1fa3, 0x1808_1673, 0x1200_0073, 0x0005_3683, 0x1050_0073, 0x0000_0073,
    ]),
    // "memory" in U-mode, where all of it faults: the table has no U
    ("refused", 0, &[SATP_SV39], &[0x0085_3583, 0x00b5_3823, 0x0005_3683]),
];

/// All programs, as inputs that begin with `prefix`.
pub fn seeds(prefix: &[u8]) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    PROGRAMS.iter().map(move |&(name, privilege, csrs, code)| {
        let mut input = prefix.to_vec();
        input.extend([0, privilege, csrs.len() as u8]);
        input.extend(csrs.iter().flat_map(|&(csr, value)| [csr, telling(value)]));
        // x1 to x31.
        input.extend((1..32).map(|register| match register {
            10 => telling(3),
            16 => telling(7),
            17 => telling(1),
            small => 32 + small,
        }));
        input.extend(code.iter().flat_map(|insn| insn.to_le_bytes()));
        (name, input)
    })
}

/// The byte that stands for `TELLING[index]`.
fn telling(index: u8) -> u8 {
    debug_assert!(usize::from(index) < TELLING.len());
    0x80 | index
}
