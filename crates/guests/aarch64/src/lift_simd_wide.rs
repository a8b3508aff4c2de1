//! Integer vector instructions that widen or narrow, and shifts by immediates (the manual, C4.1.96: "Advanced SIMD three
//! different", "vector x indexed element", "shift by immediate").

use crate::{
    lift::Lift,
    lift_simd::absolute_difference,
    regs::slot,
    vreg::{Simd, wider},
};
use isomer_ir::{
    Value,
    op::{BinOp, VecBinOp},
    types::Lane,
};

/// SADDL, UADDL, SSUBL, USUBL.
pub(crate) fn long(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let operands = [l.v(o.rn()), l.v(o.rm())];
    let [n, m] = operands.map(|v| l.v_widened(o, o.lane(), !o.u(), v));
    let result = l.b.vec_bin(op, o.wide(), n, m);
    l.set_v(o.rd(), result);
}

/// SADDW, UADDW, SSUBW, USUBW.
pub(crate) fn wide(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let (n, m) = (l.v(o.rn()), l.v(o.rm()));
    let m = l.v_widened(o, o.lane(), !o.u(), m);
    let result = l.b.vec_bin(op, o.wide(), n, m);
    l.set_v(o.rd(), result);
}

/// ADDHN, SUBHN and, with U, RADDHN, RSUBHN.
pub(crate) fn narrow_high(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let (n, m, lane) = (l.v(o.rn()), l.v(o.rm()), o.wide());
    let bits = o.lane().bits() as u8;
    let mut sum = l.b.vec_bin(op, lane, n, m);
    if o.u() {
        let half = l.vec_const(lane, 1 << (bits - 1));
        sum = l.b.vec_bin(VecBinOp::Add, lane, sum, half);
    }
    let high = l.vec_shr(lane, false, bits, sum);
    let result = l.b.vec_bin(VecBinOp::Narrow, lane, high, high);
    l.set_narrow(o, result);
}

/// XTN.
pub(crate) fn extract_narrow(l: &mut Lift<'_>, o: Simd) {
    let n = l.v(o.rn());
    let result = l.b.vec_bin(VecBinOp::Narrow, o.wide(), n, n);
    l.set_narrow(o, result);
}

/// SABDL, UABDL; accumulating SABAL, UABAL.
pub(crate) fn difference_long(l: &mut Lift<'_>, o: Simd, accumulate: bool) {
    let operands = [l.v(o.rn()), l.v(o.rm())];
    let operands = operands.map(|v| l.v_widened(o, o.lane(), !o.u(), v));
    let mut result = absolute_difference(l, o.wide(), !o.u(), operands);
    if accumulate {
        let d = l.v(o.rd());
        result = l.b.vec_bin(VecBinOp::Add, o.wide(), d, result);
    }
    l.set_v(o.rd(), result);
}

/// SMULL, UMULL; accumulating SMLAL, UMLAL, SMLSL, UMLSL.
pub(crate) fn multiply_long(l: &mut Lift<'_>, o: Simd, accumulate: Option<VecBinOp>) {
    let m = l.v(o.rm());
    product_long(l, o, accumulate, m);
}

/// The same by element.
pub(crate) fn multiply_long_element(l: &mut Lift<'_>, o: Simd, accumulate: Option<VecBinOp>) {
    let m = l.v_element(o, o.lane());
    product_long(l, o, accumulate, m);
}

fn product_long(l: &mut Lift<'_>, o: Simd, accumulate: Option<VecBinOp>, m: Value) {
    let n = l.v(o.rn());
    let [n, m] = [n, m].map(|v| l.v_widened(o, o.lane(), !o.u(), v));
    let mut result = l.b.vec_bin(VecBinOp::Mul, o.wide(), n, m);
    if let Some(op) = accumulate {
        let d = l.v(o.rd());
        result = l.b.vec_bin(op, o.wide(), d, result);
    }
    l.set_v(o.rd(), result);
}

/// PMULL, PMULL2 of doublewords (FEAT_PMULL).
pub(crate) fn multiply_polynomial(l: &mut Lift<'_>, o: Simd) {
    let half = if o.q() { slot::d_high } else { slot::d };
    let (n, m) = (l.b.get(half(o.rn())), l.b.get(half(o.rm())));
    let low = l.b.bin(BinOp::ClMul, n, m);
    let high = l.b.bin(BinOp::ClMulHi, n, m);
    l.b.set(slot::d(o.rd()), low);
    l.b.set(slot::d_high(o.rd()), high);
}

/// SHLL: widened, and shifted left by the width of the narrow lane.
pub(crate) fn shift_left_long_full(l: &mut Lift<'_>, o: Simd) {
    let n = l.v(o.rn());
    let n = l.v_widened(o, o.lane(), false, n);
    let result = l.vec_shl(o.wide(), o.lane().bits() as u8, n);
    l.set_v(o.rd(), result);
}

// --- shifts by immediates

/// A right shift by 1 to the lane's width, rounded if told.
fn shift_right_value(
    l: &mut Lift<'_>,
    lane: Lane,
    amount: u8,
    [signed, round]: [bool; 2],
    n: Value,
) -> Value {
    let shifted = l.vec_shr(lane, signed, amount, n);
    if !round {
        return shifted;
    }
    let last = l.vec_shr(lane, false, amount - 1, n);
    let one = l.vec_const(lane, 1);
    let last = l.b.vec_bin(VecBinOp::And, lane, last, one);
    l.b.vec_bin(VecBinOp::Add, lane, shifted, last)
}

/// SSHR, USHR; rounding SRSHR, URSHR; accumulating SSRA, USRA, SRSRA, URSRA.
pub(crate) fn shift_right(l: &mut Lift<'_>, o: Simd, round: bool, accumulate: bool) {
    let (n, lane) = (l.v(o.rn()), o.shift_lane());
    let mut result = shift_right_value(l, lane, o.right_shift(), [!o.u(), round], n);
    if accumulate {
        let d = l.v(o.rd());
        result = l.b.vec_bin(VecBinOp::Add, lane, d, result);
    }
    l.set_lanes(o, lane, result);
}

/// SHL.
pub(crate) fn shift_left(l: &mut Lift<'_>, o: Simd) {
    let (n, lane) = (l.v(o.rn()), o.shift_lane());
    let result = l.vec_shl(lane, o.left_shift(), n);
    l.set_lanes(o, lane, result);
}

/// SLI: the bits below stay.
pub(crate) fn shift_left_insert(l: &mut Lift<'_>, o: Simd) {
    let (n, lane, amount) = (l.v(o.rn()), o.shift_lane(), o.left_shift());
    let shifted = l.vec_shl(lane, amount, n);
    insert(l, o, u64::MAX << amount, shifted);
}

/// SRI: the bits above stay.
pub(crate) fn shift_right_insert(l: &mut Lift<'_>, o: Simd) {
    let (n, lane, amount) = (l.v(o.rn()), o.shift_lane(), o.right_shift());
    let shifted = l.vec_shr(lane, false, amount, n);
    let mask = lane.ty().mask().checked_shr(amount.into()).unwrap_or(0);
    insert(l, o, mask, shifted);
}

/// Bits in `mask` from `value`, others stay.
fn insert(l: &mut Lift<'_>, o: Simd, mask: u64, value: Value) {
    let lane = o.shift_lane();
    let (mask, d) = (l.vec_const(lane, mask), l.v(o.rd()));
    let result = l.vec_select(mask, value, d);
    l.set_lanes(o, lane, result);
}

/// SHRN, RSHRN.
pub(crate) fn shift_right_narrow(l: &mut Lift<'_>, o: Simd, round: bool) {
    let (n, lane) = (l.v(o.rn()), wider(o.shift_lane()));
    let shifted = shift_right_value(l, lane, o.right_shift(), [false, round], n);
    let result = l.b.vec_bin(VecBinOp::Narrow, lane, shifted, shifted);
    l.set_narrow(o, result);
}

/// SSHLL, USHLL, of which SXTL and UXTL are aliases.
pub(crate) fn shift_left_long(l: &mut Lift<'_>, o: Simd) {
    let (n, lane) = (l.v(o.rn()), o.shift_lane());
    let wide = l.v_widened(o, lane, !o.u(), n);
    let result = match o.left_shift() {
        0 => wide,
        amount => l.vec_shl(wider(lane), amount, wide),
    };
    l.set_v(o.rd(), result);
}
