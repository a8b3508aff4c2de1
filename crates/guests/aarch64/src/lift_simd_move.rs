//! Vector instructions that move lanes about: copies, constants, permutations, tables (the manual, C4.1.96: "Advanced SIMD
//! copy", "modified immediate", "permute", "extract", "table lookup").

use crate::{
    lift::Lift,
    lift_simd::even_and_odd,
    regs::slot,
    vreg::{Simd, lane_of, splat_bits},
};
use isomer_ir::{Type, Value, op::VecBinOp, types::Lane};

/// The lane and index of imm5: its lowest one says which lane, what is above it which one.
fn imm5(o: Simd) -> (Lane, u8) {
    let imm5 = o.bits(16, 5) as u8;
    let log2 = imm5.trailing_zeros().min(3);
    (lane_of(log2), imm5 >> (log2 + 1))
}

/// DUP (element), vector and scalar (MOV).
pub(crate) fn duplicate_element(l: &mut Lift<'_>, o: Simd) {
    let (lane, index) = imm5(o);
    let n = l.v(o.rn());
    let element = l.vec_get(lane, index, n);
    if o.scalar() {
        l.set_scalar(o.rd(), element);
    } else {
        let all = l.splat(lane, element);
        l.set_lanes(o, lane, all);
    }
}

/// A general register as a lane.
fn general(l: &mut Lift<'_>, lane: Lane, n: u8) -> Value {
    let whole = l.x(n);
    l.b.trunc(lane.ty(), whole)
}

/// DUP (general).
pub(crate) fn duplicate_general(l: &mut Lift<'_>, o: Simd) {
    let (lane, _) = imm5(o);
    let element = general(l, lane, o.rn());
    let all = l.splat(lane, element);
    l.set_lanes(o, lane, all);
}

/// INS (general), MOV.
pub(crate) fn insert_general(l: &mut Lift<'_>, o: Simd) {
    let (lane, index) = imm5(o);
    let element = general(l, lane, o.rn());
    insert(l, o, lane, index, element);
}

/// INS (element), MOV.
pub(crate) fn insert_element(l: &mut Lift<'_>, o: Simd) {
    let (lane, index) = imm5(o);
    let from = o.bits(11, 4) as u8 >> lane as u8;
    let n = l.v(o.rn());
    let element = l.vec_get(lane, from, n);
    insert(l, o, lane, index, element);
}

fn insert(l: &mut Lift<'_>, o: Simd, lane: Lane, index: u8, element: Value) {
    if lane == Lane::D {
        // A half of a register is a slot of its own.
        let half = if index == 0 { slot::d(o.rd()) } else { slot::d_high(o.rd()) };
        l.b.set(half, element);
        return;
    }
    let d = l.v(o.rd());
    let result = l.vec_set(lane, index, d, element);
    l.set_v(o.rd(), result);
}

/// UMOV, SMOV, MOV to general.
pub(crate) fn move_to_general(l: &mut Lift<'_>, o: Simd, signed: bool) {
    let (lane, index) = imm5(o);
    let element = match (lane, index) {
        (Lane::D, 0) => l.d(o.rn()),
        (Lane::D, _) => l.b.get(slot::d_high(o.rn())),
        _ => {
            let n = l.v(o.rn());
            l.vec_get(lane, index, n)
        }
    };
    let wide = if o.bits(30, 1) != 0 { Type::I64 } else { Type::I32 };
    let value = if signed { l.b.sext(wide, element) } else { element };
    l.set_x(o.rd(), value);
}

/// What a modified immediate is in every doubleword (shared pseudocode `AdvSIMDExpandImm`).
pub(crate) fn modified_immediate(insn: u32) -> u64 {
    let o = Simd(insn);
    let imm8 = u64::from(o.bits(16, 3) << 5 | o.bits(5, 5));
    let (cmode, op) = (o.bits(12, 4), o.u());
    let every = |lane: Lane, bits: u64| splat_bits(lane, bits) as u64;
    match cmode >> 1 {
        n @ 0..=3 => every(Lane::S, imm8 << (8 * n)),
        n @ 4..=5 => every(Lane::H, imm8 << (8 * (n - 4))),
        6 if cmode & 1 == 0 => every(Lane::S, imm8 << 8 | 0xff),
        6 => every(Lane::S, imm8 << 16 | 0xffff),
        _ => match (cmode & 1, op) {
            (0, false) => every(Lane::B, imm8),
            (0, true) => (0..8).filter(|i| imm8 >> i & 1 != 0).fold(0, |v, i| v | 0xff << (8 * i)),
            (_, false) if o.bits(11, 1) != 0 => every(Lane::H, expand_float(imm8, 5, 10)),
            (_, false) => every(Lane::S, expand_float(imm8, 8, 23)),
            (_, true) => expand_float(imm8, 11, 52),
        },
    }
}

/// VFPExpandImm(): a sign, three bits of exponent and four of fraction.
pub(crate) fn expand_float(imm8: u64, exp_bits: u32, fraction_bits: u32) -> u64 {
    let (sign, b, rest) = (imm8 >> 7 & 1, imm8 >> 6 & 1, imm8 >> 4 & 3);
    let repeated = if b != 0 { (1 << (exp_bits - 3)) - 1 } else { 0 };
    let exp = (b ^ 1) << (exp_bits - 1) | repeated << 2 | rest;
    sign << (exp_bits + fraction_bits) | exp << fraction_bits | (imm8 & 15) << (fraction_bits - 4)
}

/// MOVI, MVNI, FMOV (vector, immediate).
pub(crate) fn move_immediate(l: &mut Lift<'_>, o: Simd, invert: bool) {
    let bits = modified_immediate(o.0) ^ if invert { u64::MAX } else { 0 };
    set_immediate(l, o, bits);
}

fn set_immediate(l: &mut Lift<'_>, o: Simd, bits: u64) {
    if o.q() {
        let all = l.vec_const(Lane::D, bits);
        l.set_v(o.rd(), all);
    } else {
        let low = l.imm(bits as i64);
        l.set_scalar(o.rd(), low);
    }
}

/// ORR, BIC (vector, immediate).
pub(crate) fn logical_immediate(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let (d, imm) = (l.v(o.rd()), l.vec_const(Lane::D, modified_immediate(o.0)));
    let result = l.b.vec_bin(op, Lane::D, d, imm);
    l.set_lanes(o, Lane::D, result);
}

// --- permutations

/// UZP1, UZP2.
pub(crate) fn unzip(l: &mut Lift<'_>, o: Simd, odd: usize) {
    let operands = [l.v(o.rn()), l.v(o.rm())];
    let halves = even_and_odd(l, o, o.lane(), operands);
    l.set_lanes(o, Lane::D, halves[odd]);
}

/// ZIP1, ZIP2.
pub(crate) fn zip(l: &mut Lift<'_>, o: Simd, high: bool) {
    let (n, m) = (l.v(o.rn()), l.v(o.rm()));
    let op = if high && o.q() { VecBinOp::ZipHigh } else { VecBinOp::ZipLow };
    let result = l.b.vec_bin(op, o.lane(), n, m);
    if high && !o.q() {
        let upper = l.vec_get(Lane::D, 1, result);
        l.set_scalar(o.rd(), upper);
    } else {
        l.set_lanes(o, Lane::D, result);
    }
}

/// TRN1, TRN2.
pub(crate) fn transpose(l: &mut Lift<'_>, o: Simd, odd: u8) {
    let (n, m) = (l.v(o.rn()), l.v(o.rm()));
    let lane = o.lane().bits() as u8 / 8;
    let bytes = std::array::from_fn(|i| {
        let (index, within) = (i as u8 / lane, i as u8 % lane);
        (index & 1) * 16 + ((index & !1) + odd) * lane + within
    });
    let result = l.shuffle(bytes, n, m);
    l.set_lanes(o, Lane::D, result);
}

/// EXT: bytes of Vm:Vn from `imm4` on.
pub(crate) fn extract(l: &mut Lift<'_>, o: Simd) {
    let (n, m, from) = (l.v(o.rn()), l.v(o.rm()), o.bits(11, 4) as u8);
    let bytes = std::array::from_fn(|i| {
        let at = i as u8 + from;
        if o.q() || at < 8 { at } else { (at + 8) & 31 }
    });
    let result = l.shuffle(bytes, n, m);
    l.set_lanes(o, Lane::D, result);
}

/// TBL, TBX: bytes of one to four registers by index; others are 0 or stay.
pub(crate) fn table_lookup(l: &mut Lift<'_>, o: Simd, keep: bool) {
    let index = l.v(o.rm());
    let registers = o.bits(13, 2) as u8 + 1;
    let mut result = None;
    for i in 0..registers {
        let table = l.v((o.rn() + i) & 31);
        let first = l.vec_const(Lane::B, 16 * u64::from(i));
        let relative = if i == 0 { index } else { l.b.vec_bin(VecBinOp::Sub, Lane::B, index, first) };
        let found = l.b.vec_bin(VecBinOp::Table, Lane::B, table, relative);
        result = Some(result.map_or(found, |earlier| l.b.vec_bin(VecBinOp::Or, Lane::B, earlier, found)));
    }
    let Some(mut result) = result else { return };
    if keep {
        let last = l.vec_const(Lane::B, 16 * u64::from(registers) - 1);
        let beyond = l.b.vec_bin(VecBinOp::CmpGtU, Lane::B, index, last);
        let d = l.v(o.rd());
        result = l.vec_select(beyond, d, result);
    }
    l.set_lanes(o, Lane::D, result);
}
