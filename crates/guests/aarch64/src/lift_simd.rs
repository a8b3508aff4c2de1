//! Integer vector instructions on whole vectors: three registers of the same shape, two registers, across lanes, and by
//! element (the manual, C4.1.96: "Advanced SIMD three same", "two-register miscellaneous", "across lanes").

use crate::{
    helpers_fp::FpHelper,
    lift::Lift,
    regs::slot,
    vreg::{Simd, wider},
};
use isomer_ir::{
    Value,
    op::{BinOp, Cond, VecBinOp, VecUnOp},
    types::Lane,
};

/// An operation of the IR, lane by lane: ADD, SUB, MUL, SMAX and so on.
pub(crate) fn binary(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let (n, m) = (l.v(o.rn()), l.v(o.rm()));
    let result = l.b.vec_bin(op, o.lane(), n, m);
    l.set_lanes(o, o.lane(), result);
}

/// MLA, MLS.
pub(crate) fn multiply_accumulate(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let (n, m) = (l.v(o.rn()), l.v(o.rm()));
    accumulate_product(l, o, op, [n, m]);
}

/// MLA, MLS by element.
pub(crate) fn multiply_accumulate_element(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let (n, m) = (l.v(o.rn()), l.v_element(o, o.lane()));
    accumulate_product(l, o, op, [n, m]);
}

fn accumulate_product(l: &mut Lift<'_>, o: Simd, op: VecBinOp, [n, m]: [Value; 2]) {
    let product = l.b.vec_bin(VecBinOp::Mul, o.lane(), n, m);
    let d = l.v(o.rd());
    let result = l.b.vec_bin(op, o.lane(), d, product);
    l.set_lanes(o, o.lane(), result);
}

/// MUL by element.
pub(crate) fn multiply_element(l: &mut Lift<'_>, o: Simd) {
    let (n, m) = (l.v(o.rn()), l.v_element(o, o.lane()));
    let result = l.b.vec_bin(VecBinOp::Mul, o.lane(), n, m);
    l.set_lanes(o, o.lane(), result);
}

/// |n - m| in `lane`.
pub(crate) fn absolute_difference(l: &mut Lift<'_>, lane: Lane, signed: bool, [n, m]: [Value; 2]) -> Value {
    let (max, min) = if signed { (VecBinOp::MaxS, VecBinOp::MinS) } else { (VecBinOp::MaxU, VecBinOp::MinU) };
    let larger = l.b.vec_bin(max, lane, n, m);
    let smaller = l.b.vec_bin(min, lane, n, m);
    l.b.vec_bin(VecBinOp::Sub, lane, larger, smaller)
}

/// SABD, UABD.
pub(crate) fn difference(l: &mut Lift<'_>, o: Simd) {
    let operands = [l.v(o.rn()), l.v(o.rm())];
    let result = absolute_difference(l, o.lane(), !o.u(), operands);
    l.set_lanes(o, o.lane(), result);
}

/// SABA, UABA.
pub(crate) fn difference_accumulate(l: &mut Lift<'_>, o: Simd) {
    let operands = [l.v(o.rn()), l.v(o.rm())];
    let difference = absolute_difference(l, o.lane(), !o.u(), operands);
    let d = l.v(o.rd());
    let result = l.b.vec_bin(VecBinOp::Add, o.lane(), d, difference);
    l.set_lanes(o, o.lane(), result);
}

/// SHADD, UHADD: `n + m = 2 * (n & m) + (n ^ m)`, halved without a carry out.
pub(crate) fn halving_add(l: &mut Lift<'_>, o: Simd) {
    let (n, m, lane) = (l.v(o.rn()), l.v(o.rm()), o.lane());
    let both = l.b.vec_bin(VecBinOp::And, lane, n, m);
    let half = half_of_difference(l, o, [n, m]);
    let result = l.b.vec_bin(VecBinOp::Add, lane, both, half);
    l.set_lanes(o, lane, result);
}

/// SRHADD, URHADD: `n + m = 2 * (n | m) - (n ^ m)`, so halved and rounded up.
pub(crate) fn rounding_halving_add(l: &mut Lift<'_>, o: Simd) {
    let (n, m, lane) = (l.v(o.rn()), l.v(o.rm()), o.lane());
    let result = if o.u() {
        l.b.vec_bin(VecBinOp::AvgU, lane, n, m)
    } else {
        let either = l.b.vec_bin(VecBinOp::Or, lane, n, m);
        let half = half_of_difference(l, o, [n, m]);
        l.b.vec_bin(VecBinOp::Sub, lane, either, half)
    };
    l.set_lanes(o, lane, result);
}

/// SHSUB, UHSUB: `n - m = (n ^ m) - 2 * (m & !n)`.
pub(crate) fn halving_subtract(l: &mut Lift<'_>, o: Simd) {
    let (n, m, lane) = (l.v(o.rn()), l.v(o.rm()), o.lane());
    let half = half_of_difference(l, o, [n, m]);
    let borrowed = l.b.vec_bin(VecBinOp::AndNot, lane, m, n);
    let result = l.b.vec_bin(VecBinOp::Sub, lane, half, borrowed);
    l.set_lanes(o, lane, result);
}

/// `(n ^ m) >> 1`, of lanes that are signed unless U.
fn half_of_difference(l: &mut Lift<'_>, o: Simd, [n, m]: [Value; 2]) -> Value {
    let differ = l.b.vec_bin(VecBinOp::Xor, o.lane(), n, m);
    l.vec_shr(o.lane(), !o.u(), 1, differ)
}

/// SQADD, UQADD, SQSUB, UQSUB: `exact` is the operation without saturation.
pub(crate) fn saturating(l: &mut Lift<'_>, o: Simd, op: VecBinOp, exact: VecBinOp) {
    let (n, m, lane) = (l.v(o.rn()), l.v(o.rm()), o.lane());
    let result = l.b.vec_bin(op, lane, n, m);
    let wrapped = l.b.vec_bin(exact, lane, n, m);
    let differ = l.b.vec_bin(VecBinOp::Xor, lane, result, wrapped);
    let mut any = l.vec_get(Lane::D, 0, differ);
    if o.q() {
        let high = l.vec_get(Lane::D, 1, differ);
        any = l.b.or(any, high);
    }
    let zero = l.imm(0);
    let saturated = l.b.compare(Cond::Ne, any, zero);
    let qc = l.b.get(slot::QC);
    let qc = l.b.or(qc, saturated);
    l.b.set(slot::QC, qc);
    l.set_lanes(o, lane, result);
}

/// CMEQ.
pub(crate) fn compare_equal(l: &mut Lift<'_>, o: Simd) {
    binary(l, o, VecBinOp::CmpEq);
}

/// CMGE, CMHS: not less.
pub(crate) fn compare_not_less(l: &mut Lift<'_>, o: Simd) {
    let (n, m, lane) = (l.v(o.rn()), l.v(o.rm()), o.lane());
    let op = if o.u() { VecBinOp::CmpGtU } else { VecBinOp::CmpGtS };
    let less = l.b.vec_bin(op, lane, m, n);
    let result = l.b.vec_un(VecUnOp::Not, lane, less);
    l.set_lanes(o, lane, result);
}

/// CMTST: any bit in common?
pub(crate) fn compare_test(l: &mut Lift<'_>, o: Simd) {
    let (n, m, lane) = (l.v(o.rn()), l.v(o.rm()), o.lane());
    let common = l.b.vec_bin(VecBinOp::And, lane, n, m);
    let zero = l.b.vconst(0);
    let none = l.b.vec_bin(VecBinOp::CmpEq, lane, common, zero);
    let result = l.b.vec_un(VecUnOp::Not, lane, none);
    l.set_lanes(o, lane, result);
}

/// How a lane compares with zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Zero {
    Gt,
    Ge,
    Eq,
    Le,
    Lt,
}

/// CMGT, CMGE, CMEQ, CMLE, CMLT with zero.
pub(crate) fn compare_zero(l: &mut Lift<'_>, o: Simd, relation: Zero) {
    let (n, lane) = (l.v(o.rn()), o.lane());
    let zero = l.b.vconst(0);
    let result = match relation {
        Zero::Gt | Zero::Le => l.b.vec_bin(VecBinOp::CmpGtS, lane, n, zero),
        Zero::Ge | Zero::Lt => l.b.vec_bin(VecBinOp::CmpGtS, lane, zero, n),
        Zero::Eq => l.b.vec_bin(VecBinOp::CmpEq, lane, n, zero),
    };
    let result = match relation {
        Zero::Ge | Zero::Le => l.b.vec_un(VecUnOp::Not, lane, result),
        _ => result,
    };
    l.set_lanes(o, lane, result);
}

/// SSHL, USHL: by the signed lowest byte of each lane of Vm, to the right if it is negative.
pub(crate) fn shift_by_register(l: &mut Lift<'_>, o: Simd) {
    let (n, m, lane) = (l.v(o.rn()), l.v(o.rm()), o.lane());
    let byte = l.vec_const(lane, 0xff);
    let zero = l.b.vconst(0);
    let left = l.b.vec_bin(VecBinOp::And, lane, m, byte);
    let right = l.b.vec_bin(VecBinOp::Sub, lane, zero, m);
    let right = l.b.vec_bin(VecBinOp::And, lane, right, byte);
    // What is negative as one amount is beyond any lane as the other.
    let shifted_left = l.b.vec_bin(VecBinOp::ShlV, lane, n, left);
    let result = if o.u() {
        let shifted_right = l.b.vec_bin(VecBinOp::ShrUV, lane, n, right);
        l.b.vec_bin(VecBinOp::Or, lane, shifted_left, shifted_right)
    } else {
        let shifted_right = l.b.vec_bin(VecBinOp::ShrSV, lane, n, right);
        let most = l.vec_const(lane, 0x7f);
        let to_right = l.b.vec_bin(VecBinOp::CmpGtU, lane, left, most);
        l.vec_select(to_right, shifted_right, shifted_left)
    };
    l.set_lanes(o, lane, result);
}

/// The even and the odd lanes of Vn:Vm.
pub(crate) fn even_and_odd(l: &mut Lift<'_>, o: Simd, lane: Lane, [n, m]: [Value; 2]) -> [Value; 2] {
    let [n, m] = if o.q() {
        [n, m]
    } else {
        let both = l.b.vec_bin(VecBinOp::ZipLow, Lane::D, n, m);
        [both, both]
    };
    [VecBinOp::UnzipEven, VecBinOp::UnzipOdd].map(|op| l.b.vec_bin(op, lane, n, m))
}

/// ADDP, SMAXP and so on: of neighbours in Vn:Vm.
pub(crate) fn pairwise(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let operands = [l.v(o.rn()), l.v(o.rm())];
    let [even, odd] = even_and_odd(l, o, o.lane(), operands);
    let result = l.b.vec_bin(op, o.lane(), even, odd);
    l.set_lanes(o, o.lane(), result);
}

/// ADDP of the two doublewords of Vn.
pub(crate) fn add_pair(l: &mut Lift<'_>, o: Simd) {
    let (low, high) = (l.d(o.rn()), l.b.get(slot::d_high(o.rn())));
    let sum = l.b.add(low, high);
    l.set_scalar(o.rd(), sum);
}

/// AND, BIC, ORR, EOR.
pub(crate) fn logical(l: &mut Lift<'_>, o: Simd, op: VecBinOp, half: BinOp) {
    if o.q() {
        binary(l, o, op);
    } else {
        let (n, m) = (l.d(o.rn()), l.d(o.rm()));
        let result = l.b.bin(half, n, m);
        l.set_scalar(o.rd(), result);
    }
}

/// ORN.
pub(crate) fn or_not(l: &mut Lift<'_>, o: Simd) {
    let (n, m) = (l.v(o.rn()), l.v(o.rm()));
    let m = l.b.vec_un(VecUnOp::Not, Lane::D, m);
    let result = l.b.vec_bin(VecBinOp::Or, Lane::D, n, m);
    l.set_lanes(o, Lane::D, result);
}

/// MOV (vector): ORR of a register with itself.
pub(crate) fn copy(l: &mut Lift<'_>, o: Simd) {
    if o.q() {
        let n = l.v(o.rn());
        l.set_v(o.rd(), n);
    } else {
        let n = l.d(o.rn());
        l.set_scalar(o.rd(), n);
    }
}

/// BSL: Vd chooses; BIT: Vm inserts; BIF: Vm keeps.
pub(crate) fn bitwise_select(l: &mut Lift<'_>, o: Simd) {
    let (n, m, d) = (l.v(o.rn()), l.v(o.rm()), l.v(o.rd()));
    let result = match o.bits(22, 2) {
        1 => l.vec_select(d, n, m),
        2 => l.vec_select(m, n, d),
        _ => l.vec_select(m, d, n),
    };
    l.set_lanes(o, Lane::D, result);
}

/// Two registers and an operation of the IR: ABS, NEG, NOT, CLZ, CNT.
pub(crate) fn unary(l: &mut Lift<'_>, o: Simd, op: VecUnOp) {
    let n = l.v(o.rn());
    let result = l.b.vec_un(op, o.lane(), n);
    l.set_lanes(o, o.lane(), result);
}

/// CLS: the bits below the sign that are as it is.
pub(crate) fn count_sign_bits(l: &mut Lift<'_>, o: Simd) {
    let (n, lane) = (l.v(o.rn()), o.lane());
    let sign = l.vec_shr(lane, true, lane.bits() as u8 - 1, n);
    let differ = l.b.vec_bin(VecBinOp::Xor, lane, n, sign);
    let count = l.b.vec_un(VecUnOp::Clz, lane, differ);
    let one = l.vec_const(lane, 1);
    let result = l.b.vec_bin(VecBinOp::Sub, lane, count, one);
    l.set_lanes(o, lane, result);
}

/// RBIT: each byte by its halves, looked up.
pub(crate) fn reverse_bits(l: &mut Lift<'_>, o: Simd) {
    let n = l.v(o.rn());
    let reversed = (0..16).map(|i: u8| i.reverse_bits());
    let high = l.b.vconst(u128::from_le_bytes(std::array::from_fn(|i| (i as u8).reverse_bits())));
    let low = l.b.vconst(reversed.enumerate().fold(0, |v, (i, byte)| v | u128::from(byte >> 4) << (8 * i)));
    let mask = l.vec_const(Lane::B, 15);
    let low_index = l.b.vec_bin(VecBinOp::And, Lane::B, n, mask);
    let high_index = l.vec_shr(Lane::B, false, 4, n);
    let upper = l.b.vec_bin(VecBinOp::Table, Lane::B, high, low_index);
    let lower = l.b.vec_bin(VecBinOp::Table, Lane::B, low, high_index);
    let result = l.b.vec_bin(VecBinOp::Or, Lane::B, upper, lower);
    l.set_lanes(o, Lane::B, result);
}

/// REV16, REV32, REV64: lanes reversed in containers of `1 << log2` bytes.
pub(crate) fn reverse(l: &mut Lift<'_>, o: Simd, log2: u32) {
    let n = l.v(o.rn());
    let (container, lane) = (1u8 << log2, (o.lane().bits() / 8) as u8);
    let bytes = std::array::from_fn(|i| i as u8 ^ (container - lane));
    let result = l.shuffle(bytes, n, n);
    l.set_lanes(o, Lane::D, result);
}

/// The sums of neighbouring lanes, twice as wide.
fn add_long_pairs(l: &mut Lift<'_>, lane: Lane, signed: bool, n: Value) -> Value {
    let (wide, bits) = (wider(lane), lane.bits() as u8);
    let even = l.vec_shl(wide, bits, n);
    let even = l.vec_shr(wide, signed, bits, even);
    let odd = l.vec_shr(wide, signed, bits, n);
    l.b.vec_bin(VecBinOp::Add, wide, even, odd)
}

/// SADDLP, UADDLP.
pub(crate) fn add_long_pairwise(l: &mut Lift<'_>, o: Simd) {
    let n = l.v(o.rn());
    let result = add_long_pairs(l, o.lane(), !o.u(), n);
    l.set_lanes(o, o.wide(), result);
}

/// SADALP, UADALP.
pub(crate) fn add_long_pairwise_accumulate(l: &mut Lift<'_>, o: Simd) {
    let n = l.v(o.rn());
    let sums = add_long_pairs(l, o.lane(), !o.u(), n);
    let d = l.v(o.rd());
    let result = l.b.vec_bin(VecBinOp::Add, o.wide(), d, sums);
    l.set_lanes(o, o.wide(), result);
}

/// Lane 0 of what `op` makes of all lanes.
fn reduce(l: &mut Lift<'_>, o: Simd, lane: Lane, op: VecBinOp, mut value: Value) -> Value {
    let mut bytes = if o.q() { 16 } else { 8 };
    while bytes > lane.bits() as u8 / 8 {
        bytes /= 2;
        let upper = std::array::from_fn(|i| (i as u8 + bytes) % 16);
        let other = l.shuffle(upper, value, value);
        value = l.b.vec_bin(op, lane, value, other);
    }
    l.vec_get(lane, 0, value)
}

/// ADDV, SMAXV, SMINV, UMAXV, UMINV.
pub(crate) fn across(l: &mut Lift<'_>, o: Simd, op: VecBinOp) {
    let n = l.v(o.rn());
    let result = reduce(l, o, o.lane(), op, n);
    l.set_scalar(o.rd(), result);
}

/// SADDLV, UADDLV.
pub(crate) fn add_long_across(l: &mut Lift<'_>, o: Simd) {
    let n = l.v(o.rn());
    let pairs = add_long_pairs(l, o.lane(), !o.u(), n);
    let result = reduce(l, o, o.wide(), VecBinOp::Add, pairs);
    l.set_scalar(o.rd(), result);
}

/// What helpers execute: see [`crate::vector_int`].
pub(crate) fn helper(l: &mut Lift<'_>, _: Simd, helper: FpHelper) {
    l.execute(helper.id());
}

// --- SHA3: bit-wise instructions with three and four registers (FEAT_SHA3)

/// EOR3.
pub(crate) fn xor3(l: &mut Lift<'_>, o: Simd) {
    let (n, m, a) = (l.v(o.rn()), l.v(o.rm()), l.v(o.ra()));
    let result = l.b.vec_bin(VecBinOp::Xor, Lane::D, n, m);
    let result = l.b.vec_bin(VecBinOp::Xor, Lane::D, result, a);
    l.set_v(o.rd(), result);
}

/// BCAX: n ^ (m & !a).
pub(crate) fn clear_and_xor(l: &mut Lift<'_>, o: Simd) {
    let (n, m, a) = (l.v(o.rn()), l.v(o.rm()), l.v(o.ra()));
    let cleared = l.b.vec_bin(VecBinOp::AndNot, Lane::D, m, a);
    let result = l.b.vec_bin(VecBinOp::Xor, Lane::D, n, cleared);
    l.set_v(o.rd(), result);
}

/// Doublewords rotated right.
fn rotate_right(l: &mut Lift<'_>, amount: u8, value: Value) -> Value {
    if amount == 0 {
        return value;
    }
    let right = l.vec_shr(Lane::D, false, amount, value);
    let left = l.vec_shl(Lane::D, 64 - amount, value);
    l.b.vec_bin(VecBinOp::Or, Lane::D, right, left)
}

/// RAX1: n ^ rotl(m, 1).
pub(crate) fn rotate_and_xor(l: &mut Lift<'_>, o: Simd) {
    let (n, m) = (l.v(o.rn()), l.v(o.rm()));
    let rotated = rotate_right(l, 63, m);
    let result = l.b.vec_bin(VecBinOp::Xor, Lane::D, n, rotated);
    l.set_v(o.rd(), result);
}

/// XAR: rotr(n ^ m, imm6).
pub(crate) fn xor_and_rotate(l: &mut Lift<'_>, o: Simd) {
    let (n, m) = (l.v(o.rn()), l.v(o.rm()));
    let differ = l.b.vec_bin(VecBinOp::Xor, Lane::D, n, m);
    let result = rotate_right(l, o.bits(10, 6) as u8, differ);
    l.set_v(o.rd(), result);
}
