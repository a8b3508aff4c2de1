//! Scalar floating-point instructions (the manual, C4.1.96: "Floating-point data-processing" with one, two and three
//! sources, comparisons, conversions, moves).

use crate::{
    fixed::{self, Fixed},
    float::{DYNAMIC, rounding},
    helpers_fp::FpHelper,
    lift::{Lift, width},
    lift_simd_move::expand_float,
    regs::slot,
    vector::FpState,
    vector_fp,
    vreg::Simd,
};
use isomer_ir::{
    Op, Type, Value,
    guest::HelperCx,
    op::{BinOp, Cond, FmaOp, FpBinOp, FpCond, FpOverflow},
    softfloat::Round,
    types::{FpFormat, Rounding},
};

/// FADD, FSUB, FMUL, FDIV, FMAX, FMIN, FMAXNM, FMINNM.
pub(crate) fn binary(l: &mut Lift<'_>, o: Simd, op: FpBinOp) {
    let result = binary_value(l, o, op);
    l.set_scalar(o.rd(), result);
}

fn binary_value(l: &mut Lift<'_>, o: Simd, op: FpBinOp) -> Value {
    let fmt = o.ftype();
    let (a, b) = (l.scalar(o.rn(), fmt.ty()), l.scalar(o.rm(), fmt.ty()));
    l.fp(Op::FpBinary { op, fmt, rounding: DYNAMIC, a, b })
}

/// FNMUL.
pub(crate) fn multiply_negate(l: &mut Lift<'_>, o: Simd) {
    let product = binary_value(l, o, FpBinOp::Mul);
    let sign = l.sign_of(o.ftype());
    let result = l.b.xor(product, sign);
    l.set_scalar(o.rd(), result);
}

/// FMADD, FMSUB, FNMADD, FNMSUB.
pub(crate) fn multiply_add(l: &mut Lift<'_>, o: Simd, op: FmaOp) {
    let fmt = o.ftype();
    let [a, b, c] = [o.rn(), o.rm(), o.ra()].map(|n| l.scalar(n, fmt.ty()));
    let result = l.fp(Op::FpFma { op, fmt, rounding: DYNAMIC, a, b, c });
    l.set_scalar(o.rd(), result);
}

/// FMOV between registers of the same kind.
pub(crate) fn copy(l: &mut Lift<'_>, o: Simd) {
    let value = l.scalar(o.rn(), o.ftype().ty());
    l.set_scalar(o.rd(), value);
}

/// FABS.
pub(crate) fn absolute(l: &mut Lift<'_>, o: Simd) {
    let (value, sign) = (l.scalar(o.rn(), o.ftype().ty()), l.sign_of(o.ftype()));
    let result = l.b.bin(BinOp::AndNot, value, sign);
    l.set_scalar(o.rd(), result);
}

/// FNEG.
pub(crate) fn negate(l: &mut Lift<'_>, o: Simd) {
    let (value, sign) = (l.scalar(o.rn(), o.ftype().ty()), l.sign_of(o.ftype()));
    let result = l.b.xor(value, sign);
    l.set_scalar(o.rd(), result);
}

/// FSQRT.
pub(crate) fn square_root(l: &mut Lift<'_>, o: Simd) {
    let fmt = o.ftype();
    let a = l.scalar(o.rn(), fmt.ty());
    let result = l.fp(Op::FpSqrt { fmt, rounding: DYNAMIC, a });
    l.set_scalar(o.rd(), result);
}

/// FRINTN, FRINTP, FRINTM, FRINTZ, FRINTA, FRINTX, FRINTI.
pub(crate) fn round(l: &mut Lift<'_>, o: Simd, rounding: Rounding, inexact: bool) {
    let fmt = o.ftype();
    let a = l.scalar(o.rn(), fmt.ty());
    let result = l.fp(Op::FpRound { fmt, rounding, inexact, a });
    l.set_scalar(o.rd(), result);
}

/// FRINT32Z, FRINT32X, FRINT64Z, FRINT64X: a helper's work.
pub(crate) fn round_sized(l: &mut Lift<'_>, o: Simd) {
    let fmt = o.ftype();
    let what = l.imm((o.bits(15, 2) | u32::from(fmt == FpFormat::F64) << 2).into());
    let value = l.scalar(o.rn(), fmt.ty());
    let result = l.b.call(FpHelper::RoundSized.id(), &[what, value], fmt.ty());
    l.set_scalar(o.rd(), result);
}

/// The helper of [`round_sized`]: bit 0 of the first argument says "current rounding", bit 1 64 bits, bit 2 double.
pub(crate) fn round_sized_helper(
    cx: &mut HelperCx<'_, crate::Aarch64>,
    [what, a, ..]: [u64; 4],
) -> Result<u64, crate::Trap> {
    let fmt = if what & 4 != 0 { FpFormat::F64 } else { FpFormat::F32 };
    let mut fp = FpState::of(cx.cpu);
    let result = vector_fp::round_sized(&mut fp, fmt, a, what & 2 != 0, what & 1 != 0);
    fp.leave(cx.cpu);
    Ok(result)
}

// --- comparisons

/// Flags of a comparison (shared pseudocode `FPCompare`): less 1000, equal 0110, greater 0010, unordered 0011.
fn comparison(l: &mut Lift<'_>, fmt: FpFormat, signalling: bool, a: Value, b: Value) -> [Value; 4] {
    let [less, equal, unordered] = [FpCond::Lt, FpCond::Eq, FpCond::Unordered]
        .map(|cond| l.fp(Op::FpCompare { cond, fmt, signalling, a, b }));
    let not_less = l.not(less);
    [less, equal, not_less, unordered]
}

/// FCMP, FCMPE, with a register or zero.
pub(crate) fn compare(l: &mut Lift<'_>, o: Simd, signalling: bool, zero: bool) {
    let fmt = o.ftype();
    let a = l.scalar(o.rn(), fmt.ty());
    let b = if zero { l.b.iconst(fmt.ty(), 0) } else { l.scalar(o.rm(), fmt.ty()) };
    let flags = comparison(l, fmt, signalling, a, b);
    l.set_nzcv(flags);
}

/// FCCMP, FCCMPE. If the condition does not hold, zeros are compared, which raises nothing.
pub(crate) fn conditional_compare(l: &mut Lift<'_>, o: Simd, signalling: bool) {
    let (fmt, cond, nzcv) = (o.ftype(), o.bits(12, 4) as u8, o.bits(0, 4));
    let holds = l.condition(cond);
    let zero = l.b.iconst(fmt.ty(), 0);
    let [a, b] = [o.rn(), o.rm()].map(|n| {
        let value = l.scalar(n, fmt.ty());
        l.b.select(holds, value, zero)
    });
    let compared = comparison(l, fmt, signalling, a, b);
    let mut bit = 4;
    let flags = compared.map(|flag| {
        bit -= 1;
        let otherwise = l.truth(nzcv >> bit & 1 != 0);
        l.b.select(holds, flag, otherwise)
    });
    l.set_nzcv(flags);
}

/// FCSEL.
pub(crate) fn select(l: &mut Lift<'_>, o: Simd) {
    let ty = o.ftype().ty();
    let holds = l.condition(o.bits(12, 4) as u8);
    let (a, b) = (l.scalar(o.rn(), ty), l.scalar(o.rm(), ty));
    let result = l.b.select(holds, a, b);
    l.set_scalar(o.rd(), result);
}

// --- moves

/// FMOV (scalar, immediate).
pub(crate) fn immediate(l: &mut Lift<'_>, o: Simd) {
    let imm8 = o.bits(13, 8).into();
    let bits = match o.ftype() {
        FpFormat::F64 => expand_float(imm8, 11, 52),
        FpFormat::F32 => expand_float(imm8, 8, 23),
        FpFormat::F16 | FpFormat::Bf16 => expand_float(imm8, 5, 10),
    };
    let value = l.imm(bits as i64);
    l.set_scalar(o.rd(), value);
}

/// FMOV from a general register.
pub(crate) fn from_general(l: &mut Lift<'_>, o: Simd) {
    let value = l.x(o.rn());
    let value = l.b.trunc(o.ftype().ty(), value);
    l.set_scalar(o.rd(), value);
}

/// FMOV to a general register.
pub(crate) fn to_general(l: &mut Lift<'_>, o: Simd) {
    let value = l.scalar(o.rn(), o.ftype().ty());
    l.set_x(o.rd(), value);
}

/// FMOV to the upper half of a vector, which leaves the lower one.
pub(crate) fn from_general_upper(l: &mut Lift<'_>, o: Simd) {
    let value = l.x(o.rn());
    l.b.set(slot::d_high(o.rd()), value);
}

/// FMOV from the upper half of a vector.
pub(crate) fn to_general_upper(l: &mut Lift<'_>, o: Simd) {
    let value = l.b.get(slot::d_high(o.rn()));
    l.set_x(o.rd(), value);
}

// --- conversions

/// FCVT between formats; half precision, which has FPCR.AHP, is a helper's work.
pub(crate) fn convert(l: &mut Lift<'_>, o: Simd) {
    let from = o.ftype();
    let to = match o.bits(15, 2) {
        0 => FpFormat::F32,
        1 => FpFormat::F64,
        _ => FpFormat::F16,
    };
    let a = l.scalar(o.rn(), from.ty());
    let result = match (from, to) {
        (FpFormat::F16, _) => {
            let double = l.imm((to == FpFormat::F64).into());
            l.b.call(FpHelper::FromHalf.id(), &[double, a], to.ty())
        }
        (_, FpFormat::F16) => {
            let double = l.imm((from == FpFormat::F64).into());
            l.b.call(FpHelper::ToHalf.id(), &[double, a], to.ty())
        }
        _ => l.b.fp_convert(from, to, DYNAMIC, a),
    };
    l.set_scalar(o.rd(), result);
}

const fn wide_format(double: u64) -> FpFormat {
    if double != 0 { FpFormat::F64 } else { FpFormat::F32 }
}

/// From half precision to single, or double by the first argument.
pub(crate) fn from_half_helper(
    cx: &mut HelperCx<'_, crate::Aarch64>,
    [double, a, ..]: [u64; 4],
) -> Result<u64, crate::Trap> {
    let mut fp = FpState::of(cx.cpu);
    let result = vector_fp::from_half(&mut fp, wide_format(double), a);
    fp.leave(cx.cpu);
    Ok(result)
}

/// To half precision from single, or double by the first argument.
pub(crate) fn to_half_helper(
    cx: &mut HelperCx<'_, crate::Aarch64>,
    [double, a, ..]: [u64; 4],
) -> Result<u64, crate::Trap> {
    let mut fp = FpState::of(cx.cpu);
    let result = vector_fp::to_half(&mut fp, wide_format(double), a);
    fp.leave(cx.cpu);
    Ok(result)
}

/// BFCVT.
pub(crate) fn convert_brain(l: &mut Lift<'_>, o: Simd) {
    let a = l.scalar(o.rn(), Type::I32);
    let result = l.b.fp_convert(FpFormat::F32, FpFormat::Bf16, DYNAMIC, a);
    l.set_scalar(o.rd(), result);
}

/// FCVTNS, FCVTNU and so on to a general register, by rmode; `away`: FCVTAS, FCVTAU.
pub(crate) fn to_integer(l: &mut Lift<'_>, o: Simd, away: bool) {
    let fmt = o.ftype();
    let rounding = if away { Rounding::NearestAway } else { rounding(o.bits(19, 2)) };
    let a = l.scalar(o.rn(), fmt.ty());
    let result = l.fp(Op::FpToInt {
        fmt,
        to: width(o.sf()),
        signed: o.bits(16, 1) == 0,
        overflow: FpOverflow::SaturateNanZero,
        rounding,
        a,
    });
    l.set_x(o.rd(), result);
}

/// SCVTF, UCVTF from a general register.
pub(crate) fn from_integer(l: &mut Lift<'_>, o: Simd) {
    let fmt = o.ftype();
    let a = l.r(o.sf(), o.rn());
    let (from, signed) = (width(o.sf()), o.bits(16, 1) == 0);
    let result = l.fp(Op::FpFromInt { fmt, from, signed, rounding: DYNAMIC, a });
    l.set_scalar(o.rd(), result);
}

/// FCVTZS, FCVTZU, SCVTF, UCVTF with fraction bits: helpers' work. Their first argument is the encoding.
pub(crate) fn to_fixed(l: &mut Lift<'_>, o: Simd) {
    let insn = l.imm(o.0.into());
    let value = l.scalar(o.rn(), o.ftype().ty());
    let result = l.b.call(FpHelper::ToFixed.id(), &[insn, value], width(o.sf()));
    l.set_x(o.rd(), result);
}

/// See [`to_fixed`].
pub(crate) fn from_fixed(l: &mut Lift<'_>, o: Simd) {
    let insn = l.imm(o.0.into());
    let value = l.r(o.sf(), o.rn());
    let result = l.b.call(FpHelper::FromFixed.id(), &[insn, value], o.ftype().ty());
    l.set_scalar(o.rd(), result);
}

fn fixed_type(o: Simd) -> Fixed {
    let bits = if o.sf() { 64 } else { 32 };
    Fixed { bits, signed: o.bits(16, 1) == 0, fraction: 64 - o.bits(10, 6) }
}

/// The helper of [`to_fixed`].
pub(crate) fn to_fixed_helper(
    cx: &mut HelperCx<'_, crate::Aarch64>,
    [insn, a, ..]: [u64; 4],
) -> Result<u64, crate::Trap> {
    let (o, mut fp) = (Simd(insn as u32), FpState::of(cx.cpu));
    let fmt = o.ftype();
    let result = fp.with(fmt, |env| fixed::to_fixed(fmt, a, fixed_type(o), Round::TowardZero, env));
    fp.leave(cx.cpu);
    Ok(result)
}

/// The helper of [`from_fixed`].
pub(crate) fn from_fixed_helper(
    cx: &mut HelperCx<'_, crate::Aarch64>,
    [insn, a, ..]: [u64; 4],
) -> Result<u64, crate::Trap> {
    let (o, mut fp) = (Simd(insn as u32), FpState::of(cx.cpu));
    let fmt = o.ftype();
    let result = fp.with(fmt, |env| fixed::from_fixed(fmt, a, fixed_type(o), env));
    fp.leave(cx.cpu);
    Ok(result)
}

/// FJCVTZS (FEAT_JSCVT): Z says that nothing was lost.
pub(crate) fn to_javascript(l: &mut Lift<'_>, o: Simd) {
    let value = l.d(o.rn());
    let result = l.call(FpHelper::ToJavascript.id(), &[value]);
    let number = l.b.trunc(Type::I32, result);
    l.set_x(o.rd(), number);
    let exact = l.b.bin_imm(BinOp::ShrU, result, 32);
    let zero = l.imm(0);
    let z = l.b.compare(Cond::Ne, exact, zero);
    let clear = l.truth(false);
    l.set_nzcv([clear, z, clear, clear]);
}

/// The helper of [`to_javascript`].
pub(crate) fn to_javascript_helper(
    cx: &mut HelperCx<'_, crate::Aarch64>,
    [a, ..]: [u64; 4],
) -> Result<u64, crate::Trap> {
    let mut fp = FpState::of(cx.cpu);
    let result = fp.with(FpFormat::F64, |env| fixed::to_javascript(a, env));
    fp.leave(cx.cpu);
    Ok(result)
}
