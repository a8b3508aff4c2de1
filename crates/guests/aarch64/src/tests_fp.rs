//! What lifting floating-point and SIMD instructions gives, and how the mode word changes it.

use crate::{
    Aarch64, Features, Mode,
    decode::{self, Decoder, Row},
    trap,
};
use isomer_ir::{
    Block, Guest, Op, Terminal, Type,
    guest::lift_block,
    interp::Code,
    passes, text,
    types::{Align, Endian, FpFormat},
    verify::verify,
};

/// A CPU that has every feature the tables know.
fn everything() -> Aarch64 {
    let mut guest = Aarch64::max();
    guest.features = Features::all();
    guest
}

fn lift_in(mode: u32, insn: u32) -> Block {
    let block = lift_block(&everything(), mode, &insn.to_le_bytes(), 1).expect("a whole instruction");
    verify(&block).unwrap_or_else(|e| panic!("{insn:08x}: {e}"));
    block
}

fn ops(block: &Block) -> impl Iterator<Item = Op> {
    block.insts.iter().map(|inst| inst.op)
}

fn helpers(block: &Block) -> Vec<&'static str> {
    let called = |op| match op {
        Op::Call { helper, .. } => Some(Aarch64::HELPERS[usize::from(helper.0)].name),
        _ => None,
    };
    ops(block).filter_map(called).collect()
}

/// Rows of instructions that floating-point access controls apply to, which are ours.
fn rows() -> impl Iterator<Item = &'static Row> {
    Decoder::rows().iter().filter(|row| row.fp)
}

/// Encodings of a row, the same ones as long as it keeps its name and pattern.
fn samples(row: &Row) -> impl Iterator<Item = u32> {
    let text = row.insn.name.bytes().chain(row.insn.pattern.bytes());
    let seed = text
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let fills = std::iter::successors(Some(seed), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    });
    let own = |&insn: &u32| {
        decode::decode(Features::all(), insn).is_some_and(|found| std::ptr::eq(found.insn, row.insn))
    };
    fills.map(|fill| (fill >> 32) as u32 & !row.pattern.mask | row.pattern.bits).take(100_000).filter(own)
}

/// One encoding of every row against `tests/simd/lift.golden`; `ISOMER_BLESS=1` writes that file anew.
#[test]
fn every_row_lifts_as_recorded() {
    let mut lifted = String::new();
    for row in rows() {
        let insn = samples(row).next().expect("every row has encodings of its own");
        let block = lift_in(0, insn);
        let text = text::print_for::<Aarch64>(&block);
        assert_eq!(text::parse_for::<Aarch64>(&text).as_ref(), Ok(&block), "{text}");
        let assembly = everything().disassemble(&insn.to_le_bytes(), 0).0;
        lifted += &format!("; {insn:08x} {assembly}\n{text}\n");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simd/lift.golden");
    if std::env::var_os("ISOMER_BLESS").is_some() {
        std::fs::write(path, &lifted).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(path).expect("the golden file can be read");
    for (got, wanted) in lifted.split("\n\n").zip(golden.split("\n\n")) {
        assert_eq!(got, wanted);
    }
    assert_eq!(lifted.len(), golden.len(), "rows came or went");
}

/// No instruction needs more temporaries than the interpreter has, in any mode.
#[test]
fn every_row_is_simple_enough() {
    for row in rows() {
        for mode in [0, Mode::ALIGN, Mode::BIG, Mode::FZ, Mode::FZ16 | Mode::DN] {
            for insn in samples(row).take(4) {
                let mut block = lift_in(mode, insn);
                passes::optimize_for::<Aarch64>(&mut block);
                assert!(Code::compile(&block).is_ok(), "{} in mode {mode:#x}", row.insn.name);
            }
        }
    }
}

#[test]
fn access_controls_trap_them_all() {
    let trapped = Terminal::Trap { code: trap::FP_ACCESS, value: None };
    for row in rows() {
        let insn = samples(row).next().expect("every row has encodings of its own");
        assert_eq!(lift_in(Mode::FP_TRAP, insn).terminal, trapped, "{}", row.insn.name);
        assert_ne!(lift_in(0, insn).terminal, trapped, "{}", row.insn.name);
    }
}

#[test]
fn features_gate() {
    let mut old = everything();
    old.features = Features::empty();
    let undefined = Terminal::Trap { code: trap::UNDEFINED, value: None };
    for insn in [
        0x4e28_4800u32, // aese
        0x1ee1_2800,    // fadd h0
        0x4e82_9420,    // sdot
        0x6e82_c420,    // fcmla
        0x1e7e_0020,    // fjcvtzs
    ] {
        let block = lift_block(&old, 0, &insn.to_le_bytes(), 1).expect("a whole instruction");
        assert_eq!(block.terminal, undefined, "{insn:08x}");
        assert_ne!(lift_in(0, insn).terminal, undefined, "{insn:08x}");
    }
}

#[test]
fn unallocated_shapes_are_undefined() {
    for insn in [
        0x0ee2_8420, // add v0.1d
        0x4ee2_9c20, // mul v0.2d
        0x2e62_d420, // faddp v0.1d
        0x0c40_8c20, // ld2 {v0.1d, v1.1d}
        0x0e00_0420, // dup without a lane
        0x6fe0_9020, // fmulx v0.2d, v1.2d, v0.d[0] with L
        0x2e02_4020, // ext v0.8b, v1.8b, v2.8b, #8
        0x1ea2_4020, // fcvt from ftype 2
    ] {
        let undefined = matches!(lift_in(0, insn).terminal, Terminal::Trap { code: trap::UNDEFINED, .. });
        assert!(undefined, "{insn:08x}");
    }
}

/// Halves are flushed by a rule of their own, so while anything is flushed a helper computes them.
#[test]
fn halves_have_their_own_subnormals() {
    let (fadd_h, fadd_s, fadd_8h) = (0x1ee1_2800, 0x1e21_2800, 0x4e42_1420);
    for mode in [Mode::FZ, Mode::FZ16] {
        assert_eq!(helpers(&lift_in(mode, fadd_h)), ["half"]);
        assert_eq!(helpers(&lift_in(mode, fadd_s)), [""; 0]);
        assert_eq!(helpers(&lift_in(mode, fadd_8h)), ["half"; 8]);
    }
    let half = |op| matches!(op, Op::FpBinary { fmt: FpFormat::F16, .. });
    assert!(ops(&lift_in(0, fadd_h)).any(half));
}

/// A structure's registers and base change after all of its loads.
#[test]
fn structures_are_loaded_before_anything_is_written() {
    // ld4 {v0.16b-v3.16b}, [x0], #64; ld3 {v0.h-v2.h}[1], [x0], #6; ldp q0, q1, [x0], #32
    for insn in [0x4cdf_0000, 0x0ddf_6800, 0xacc1_0400] {
        let block = lift_in(0, insn);
        let load = ops(&block).enumerate().filter(|(_, op)| matches!(op, Op::Load { .. })).last();
        let set = ops(&block).position(|op| matches!(op, Op::Set { .. }));
        assert!(load.expect("a load").0 < set.expect("a write"), "{insn:08x}");
    }
}

/// Where accesses must be aligned, structures are by element.
#[test]
fn structures_are_aligned_by_element() {
    let types = |mode, insn| {
        let accesses = |op: Op| match op {
            Op::Load { mem, flags, .. } | Op::Store { mem, flags, .. } => Some((mem, flags.align)),
            _ => None,
        };
        let block = lift_in(mode, insn);
        ops(&block).filter_map(accesses).collect::<Vec<_>>()
    };
    // ld1 {v0.4s}, [x0]; st1 {v0.8h}, [x0]
    assert_eq!(types(0, 0x4c40_7800), [(Type::V128, Align::Any)]);
    assert_eq!(types(Mode::ALIGN, 0x4c40_7800), [(Type::I32, Align::Natural); 4]);
    assert_eq!(types(Mode::ALIGN, 0x4c00_7400), [(Type::I16, Align::Natural); 8]);
}

/// Big-endian structures are reversed by element, registers as a whole.
#[test]
fn big_endian_elements_are_reversed() {
    // ld1 {v0.4s}, [x0]
    let block = lift_in(Mode::BIG, 0x4c40_7800);
    let shuffled = ops(&block).find_map(|op| match op {
        Op::VecShuffle { bytes, .. } => Some(bytes),
        _ => None,
    });
    assert_eq!(shuffled, Some([3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12]));
    let flags = ops(&block).find_map(|op| op.mem_flags()).expect("an access");
    assert_eq!(flags.endian, Endian::Little);
    // ldr q0, [x0]
    let flags = ops(&lift_in(Mode::BIG, 0x3dc0_0000)).find_map(|op| op.mem_flags()).expect("an access");
    assert_eq!(flags.endian, Endian::Big);
}

/// FCCMP whose condition does not hold compares nothing that could raise an exception.
#[test]
fn skipped_comparisons_compare_zeros() {
    let block = lift_in(0, 0x1e22_0420); // fccmp s1, s2, #0, eq
    let selects = ops(&block).filter(|op| matches!(op, Op::Select { ty: Type::I32, .. })).count();
    assert_eq!(selects, 2);
}
