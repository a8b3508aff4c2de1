//! Floating-point vector instructions, and their scalar forms (the manual, C4.1.96: "Advanced SIMD three same",
//! "three same (FP16)", "two-register miscellaneous" and their scalar counterparts; FEAT_FCMA, FEAT_BF16).
//!
//! `half` tells encodings of half precision, which have classes of their own, from those with sz in bit 22.

use crate::{
    float::DYNAMIC,
    lift::Lift,
    lift_simd::{Zero, even_and_odd},
    vreg::{Simd, lane_of_format, splat_bits},
};
use isomer_ir::{
    Op, Type, Value,
    op::{FmaOp, FpBinOp, FpCond, FpOverflow, VecBinOp},
    types::{FpFormat, Lane, Rounding},
};

const fn format(o: Simd, half: bool) -> FpFormat {
    if half { FpFormat::F16 } else { o.fmt() }
}

/// Vn and Vm without lanes that the instruction does not have.
fn operands(l: &mut Lift<'_>, o: Simd, lane: Lane) -> [Value; 2] {
    [l.v_repeated(o, lane, o.rn()), l.v_repeated(o, lane, o.rm())]
}

/// FADD, FSUB, FMUL, FDIV, FMAX, FMIN, FMAXNM, FMINNM.
pub(crate) fn binary(l: &mut Lift<'_>, o: Simd, half: bool, op: FpBinOp) {
    let fmt = format(o, half);
    let [a, b] = operands(l, o, lane_of_format(fmt));
    let result = l.fp(Op::VecFpBinary { op, fmt, rounding: DYNAMIC, a, b });
    l.set_lanes(o, lane_of_format(fmt), result);
}

/// FMUL by element.
pub(crate) fn multiply_element(l: &mut Lift<'_>, o: Simd, half: bool) {
    let fmt = format(o, half);
    let lane = lane_of_format(fmt);
    let (a, b) = (l.v_repeated(o, lane, o.rn()), l.v_element(o, lane));
    let result = l.fp(Op::VecFpBinary { op: FpBinOp::Mul, fmt, rounding: DYNAMIC, a, b });
    l.set_lanes(o, lane, result);
}

/// FABD.
pub(crate) fn difference(l: &mut Lift<'_>, o: Simd, half: bool) {
    let fmt = format(o, half);
    let lane = lane_of_format(fmt);
    let [a, b] = operands(l, o, lane);
    let difference = l.fp(Op::VecFpBinary { op: FpBinOp::Sub, fmt, rounding: DYNAMIC, a, b });
    let result = magnitude(l, fmt, difference);
    l.set_lanes(o, lane, result);
}

fn magnitude(l: &mut Lift<'_>, fmt: FpFormat, value: Value) -> Value {
    let signs = l.signs_of(fmt);
    l.b.vec_bin(VecBinOp::AndNot, lane_of_format(fmt), value, signs)
}

/// FMLA, FMLS.
pub(crate) fn multiply_add(l: &mut Lift<'_>, o: Simd, half: bool, op: FmaOp) {
    let fmt = format(o, half);
    let [a, b] = operands(l, o, lane_of_format(fmt));
    fused(l, o, fmt, op, [a, b]);
}

/// FMLA, FMLS by element.
pub(crate) fn multiply_add_element(l: &mut Lift<'_>, o: Simd, half: bool, op: FmaOp) {
    let fmt = format(o, half);
    let lane = lane_of_format(fmt);
    let (a, b) = (l.v_repeated(o, lane, o.rn()), l.v_element(o, lane));
    fused(l, o, fmt, op, [a, b]);
}

fn fused(l: &mut Lift<'_>, o: Simd, fmt: FpFormat, op: FmaOp, [a, b]: [Value; 2]) {
    let lane = lane_of_format(fmt);
    let c = l.v_repeated(o, lane, o.rd());
    let result = l.fp(Op::VecFpFma { op, fmt, rounding: DYNAMIC, a, b, c });
    l.set_lanes(o, lane, result);
}

/// Which comparison, of Vn with Vm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relation {
    Eq,
    Ge,
    Gt,
}

/// FCMEQ, FCMGE, FCMGT; `absolute`: FACGE, FACGT.
pub(crate) fn compare(l: &mut Lift<'_>, o: Simd, half: bool, relation: Relation, absolute: bool) {
    let fmt = format(o, half);
    let lane = lane_of_format(fmt);
    let mut both = operands(l, o, lane);
    if absolute {
        both = both.map(|value| magnitude(l, fmt, value));
    }
    let [n, m] = both;
    let (cond, signalling, a, b) = match relation {
        Relation::Eq => (FpCond::Eq, false, n, m),
        Relation::Ge => (FpCond::Le, true, m, n),
        Relation::Gt => (FpCond::Lt, true, m, n),
    };
    let result = l.fp(Op::VecFpCompare { cond, fmt, signalling, a, b });
    l.set_lanes(o, lane, result);
}

/// FCMGT, FCMGE, FCMEQ, FCMLE, FCMLT with zero.
pub(crate) fn compare_zero(l: &mut Lift<'_>, o: Simd, half: bool, relation: Zero) {
    let fmt = format(o, half);
    let lane = lane_of_format(fmt);
    let (n, zero) = (l.v_repeated(o, lane, o.rn()), l.b.vconst(0));
    let (cond, a, b) = match relation {
        Zero::Gt => (FpCond::Lt, zero, n),
        Zero::Ge => (FpCond::Le, zero, n),
        Zero::Eq => (FpCond::Eq, n, zero),
        Zero::Le => (FpCond::Le, n, zero),
        Zero::Lt => (FpCond::Lt, n, zero),
    };
    let result = l.fp(Op::VecFpCompare { cond, fmt, signalling: relation != Zero::Eq, a, b });
    l.set_lanes(o, lane, result);
}

/// FADDP, FMAXP, FMINP, FMAXNMP, FMINNMP: of neighbours in Vn:Vm.
pub(crate) fn pairwise(l: &mut Lift<'_>, o: Simd, half: bool, op: FpBinOp) {
    let fmt = format(o, half);
    let lane = lane_of_format(fmt);
    let both = [l.v(o.rn()), l.v(o.rm())];
    let [a, b] = even_and_odd(l, o, lane, both);
    let result = l.fp(Op::VecFpBinary { op, fmt, rounding: DYNAMIC, a, b });
    l.set_lanes(o, lane, result);
}

/// FADDP and so on of the two lowest lanes of Vn, to a scalar.
pub(crate) fn pairwise_scalar(l: &mut Lift<'_>, o: Simd, half: bool, op: FpBinOp) {
    let fmt = format(o, half);
    let lane = lane_of_format(fmt);
    let n = l.v(o.rn());
    let (a, b) = (l.vec_get(lane, 0, n), l.vec_get(lane, 1, n));
    let result = l.fp(Op::FpBinary { op, fmt, rounding: DYNAMIC, a, b });
    l.set_scalar(o.rd(), result);
}

/// FMAXV, FMINV, FMAXNMV, FMINNMV: halves against each other (shared pseudocode `Reduce`).
pub(crate) fn across(l: &mut Lift<'_>, o: Simd, half: bool, op: FpBinOp) {
    let fmt = if half { FpFormat::F16 } else { FpFormat::F32 };
    let lane = lane_of_format(fmt);
    let count = if o.q() { lane.count() } else { lane.count() / 2 };
    let n = l.v(o.rn());
    let mut values: Vec<Value> = (0..count as u8).map(|i| l.vec_get(lane, i, n)).collect();
    while let [_, _, ..] = values[..] {
        let pairs = values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>();
        let reduced = pairs.into_iter();
        values = reduced.map(|(a, b)| l.fp(Op::FpBinary { op, fmt, rounding: DYNAMIC, a, b })).collect();
    }
    if let [result] = values[..] {
        l.set_scalar(o.rd(), result);
    }
}

/// FABS (vector).
pub(crate) fn absolute(l: &mut Lift<'_>, o: Simd, half: bool) {
    let (fmt, n) = (format(o, half), l.v(o.rn()));
    let result = magnitude(l, fmt, n);
    l.set_lanes(o, lane_of_format(fmt), result);
}

/// FNEG (vector).
pub(crate) fn negate(l: &mut Lift<'_>, o: Simd, half: bool) {
    let (fmt, n) = (format(o, half), l.v(o.rn()));
    let signs = l.signs_of(fmt);
    let result = l.b.vec_bin(VecBinOp::Xor, lane_of_format(fmt), n, signs);
    l.set_lanes(o, lane_of_format(fmt), result);
}

/// FSQRT (vector).
pub(crate) fn square_root(l: &mut Lift<'_>, o: Simd, half: bool) {
    let fmt = format(o, half);
    let a = l.v_repeated(o, lane_of_format(fmt), o.rn());
    let result = l.fp(Op::VecFpSqrt { fmt, rounding: DYNAMIC, a });
    l.set_lanes(o, lane_of_format(fmt), result);
}

/// Lane by lane of Vn, by scalar operations.
fn each_lane(l: &mut Lift<'_>, o: Simd, lane: Lane, f: impl Fn(Value) -> Op) {
    if o.scalar() {
        let value = l.scalar(o.rn(), lane.ty());
        let result = l.fp(f(value));
        l.set_scalar(o.rd(), result);
        return;
    }
    let (n, mut result) = (l.v(o.rn()), l.b.vconst(0));
    let count = if o.q() { lane.count() } else { lane.count() / 2 };
    for index in 0..count as u8 {
        let value = l.vec_get(lane, index, n);
        let value = l.fp(f(value));
        result = l.vec_set(lane, index, result, value);
    }
    l.set_v(o.rd(), result);
}

/// FRINTN, FRINTP, FRINTM, FRINTZ, FRINTA, FRINTX, FRINTI (vector).
pub(crate) fn round(l: &mut Lift<'_>, o: Simd, half: bool, rounding: Rounding, inexact: bool) {
    let fmt = format(o, half);
    each_lane(l, o, lane_of_format(fmt), |a| Op::FpRound { fmt, rounding, inexact, a });
}

/// FCVTNS, FCVTNU and so on of single and double lanes.
pub(crate) fn to_integer(l: &mut Lift<'_>, o: Simd, rounding: Rounding) {
    let (fmt, signed, overflow) = (o.fmt(), !o.u(), FpOverflow::SaturateNanZero);
    each_lane(l, o, lane_of_format(fmt), |a| Op::FpToInt {
        fmt,
        to: fmt.ty(),
        signed,
        overflow,
        rounding,
        a,
    });
}

/// SCVTF, UCVTF of single and double lanes.
pub(crate) fn from_integer(l: &mut Lift<'_>, o: Simd) {
    let (fmt, signed) = (o.fmt(), !o.u());
    each_lane(l, o, lane_of_format(fmt), |a| Op::FpFromInt {
        fmt,
        from: fmt.ty(),
        signed,
        rounding: DYNAMIC,
        a,
    });
}

/// FCVTL, FCVTL2 from single to double.
pub(crate) fn convert_long(l: &mut Lift<'_>, o: Simd) {
    let (n, mut result) = (l.v(o.rn()), l.b.vconst(0));
    for index in 0..2 {
        let from = index + if o.q() { 2 } else { 0 };
        let value = l.vec_get(Lane::S, from, n);
        let value = l.b.fp_convert(FpFormat::F32, FpFormat::F64, DYNAMIC, value);
        result = l.vec_set(Lane::D, index, result, value);
    }
    l.set_v(o.rd(), result);
}

/// FCVTN, FCVTN2 from double to single; BFCVTN, BFCVTN2 from single to brain floating point.
pub(crate) fn convert_narrow(l: &mut Lift<'_>, o: Simd, from: FpFormat, to: FpFormat) {
    let (wide, lane) = (lane_of_format(from), lane_of_format(to));
    let (n, mut result) = (l.v(o.rn()), l.b.vconst(0));
    for index in 0..wide.count() as u8 {
        let value = l.vec_get(wide, index, n);
        let value = l.b.fp_convert(from, to, DYNAMIC, value);
        result = l.vec_set(lane, index, result, value);
    }
    l.set_narrow(o, result);
}

// --- complex numbers: real parts in even lanes, imaginary parts in odd ones (FEAT_FCMA)

/// Lanes of each pair exchanged.
fn swapped(l: &mut Lift<'_>, lane: Lane, value: Value) -> Value {
    let bytes = lane.bits() as u8 / 8;
    let swap = std::array::from_fn(|i| i as u8 ^ bytes);
    l.shuffle(swap, value, value)
}

/// The sign changed of even lanes, odd lanes.
fn negated(l: &mut Lift<'_>, fmt: FpFormat, [even, odd]: [bool; 2], value: Value) -> Value {
    let lane = lane_of_format(fmt);
    let signs = splat_bits(lane, fmt.sign_bit());
    let mut odd_lanes = u128::MAX;
    for index in (0..lane.count()).step_by(2) {
        odd_lanes &= !(u128::from(lane.ty().mask()) << (index * lane.bits()));
    }
    let mask = if even { signs & !odd_lanes } else { 0 } | if odd { signs & odd_lanes } else { 0 };
    if mask == 0 {
        return value;
    }
    let mask = l.b.vconst(mask);
    l.b.vec_bin(VecBinOp::Xor, lane, value, mask)
}

fn complex_format(o: Simd) -> FpFormat {
    match o.bits(22, 2) {
        1 => FpFormat::F16,
        2 => FpFormat::F32,
        _ => FpFormat::F64,
    }
}

/// FCADD: Vn plus Vm turned by 90 degrees, or 270.
pub(crate) fn complex_add(l: &mut Lift<'_>, o: Simd) {
    let fmt = complex_format(o);
    let lane = lane_of_format(fmt);
    let [a, m] = operands(l, o, lane);
    let turned = swapped(l, lane, m);
    let by_270 = o.bits(12, 1) != 0;
    let b = negated(l, fmt, [!by_270, by_270], turned);
    let result = l.fp(Op::VecFpBinary { op: FpBinOp::Add, fmt, rounding: DYNAMIC, a, b });
    l.set_lanes(o, lane, result);
}

/// FCMLA: half of a complex product, Vm turned by `rotation` quarters.
pub(crate) fn complex_multiply(l: &mut Lift<'_>, o: Simd) {
    let fmt = complex_format(o);
    let m = l.v_repeated(o, lane_of_format(fmt), o.rm());
    complex_product(l, o, fmt, o.bits(11, 2), m);
}

/// FCMLA by element: a pair of lanes.
pub(crate) fn complex_multiply_element(l: &mut Lift<'_>, o: Simd) {
    let fmt = complex_format(o);
    let (pair, index) = match fmt {
        FpFormat::F16 => (Lane::S, o.bits(11, 1) << 1 | o.bits(21, 1)),
        _ => (Lane::D, o.bits(11, 1)),
    };
    let m = l.v(o.rm());
    let element = l.vec_get(pair, index as u8, m);
    let m = l.splat(pair, element);
    complex_product(l, o, fmt, o.bits(13, 2), m);
}

fn complex_product(l: &mut Lift<'_>, o: Simd, fmt: FpFormat, rotation: u32, m: Value) {
    let lane = lane_of_format(fmt);
    let n = l.v_repeated(o, lane, o.rn());
    // Turned by an odd number of quarters, imaginary parts of Vn meet exchanged parts of Vm.
    let odd = rotation & 1 != 0;
    let (width, from) = (lane.bits() as u8 / 8, if odd { lane.bits() as u8 / 8 } else { 0 });
    let part = std::array::from_fn(|i| i as u8 & !width | from);
    let a = l.shuffle(part, n, n);
    let m = if odd { swapped(l, lane, m) } else { m };
    let b = negated(l, fmt, [matches!(rotation, 1 | 2), matches!(rotation, 2 | 3)], m);
    let c = l.v_repeated(o, lane, o.rd());
    let result = l.fp(Op::VecFpFma { op: FmaOp::MulAdd, fmt, rounding: DYNAMIC, a, b, c });
    l.set_lanes(o, lane, result);
}

// --- brain floating point (FEAT_BF16)

/// BFMLALB, BFMLALT: Q chooses even or odd lanes; a brain floating-point number is the upper half of a single.
pub(crate) fn brain_multiply_add(l: &mut Lift<'_>, o: Simd) {
    let m = l.v(o.rm());
    let m = brain_lanes(l, o, m);
    brain_product(l, o, m);
}

/// The same by element.
pub(crate) fn brain_multiply_add_element(l: &mut Lift<'_>, o: Simd) {
    let (register, index) = o.element(Lane::H);
    let m = l.v(register);
    let element = l.vec_get(Lane::H, index, m);
    let single = l.b.zext(Type::I32, element);
    let single = l.b.bin_imm(isomer_ir::op::BinOp::Shl, single, 16);
    let m = l.splat(Lane::S, single);
    brain_product(l, o, m);
}

fn brain_lanes(l: &mut Lift<'_>, o: Simd, value: Value) -> Value {
    if o.q() {
        let upper = l.vec_const(Lane::S, 0xffff_0000);
        l.b.vec_bin(VecBinOp::And, Lane::S, value, upper)
    } else {
        l.vec_shl(Lane::S, 16, value)
    }
}

fn brain_product(l: &mut Lift<'_>, o: Simd, b: Value) {
    let n = l.v(o.rn());
    let (a, c) = (brain_lanes(l, o, n), l.v(o.rd()));
    let result = l.b.push(Op::VecFpFma { op: FmaOp::MulAdd, fmt: FpFormat::F32, rounding: DYNAMIC, a, b, c });
    l.set_v(o.rd(), result);
}
