//! Floating point: F, D (volume I, 21 and 22), Zfh and Zfhmin (24), Zfa (26). Loads and stores are in [`crate::lift_mem`].
//!
//! Functions are generic over the format: `fadd::<S>` is `fadd.s`. That `mstatus.FS` is not off was checked already.

use crate::{
    helpers::Helper,
    lift::Lift,
    operands::{Fp, R, R1, U},
};
use isomer_ir::{
    Type, Value,
    op::{BinOp, FmaOp, FpBinOp, FpCond, FpOverflow, UnOp},
    softfloat::{self, Env, Round},
    types::{FpFormat, Rounding},
};

/// A format, as a type parameter.
pub(crate) trait Precision {
    const FMT: FpFormat;
    /// The integer type that carries it.
    const TY: Type = Self::FMT.ty();
    /// Its sign bit.
    const SIGN: u64 = 1 << (Self::TY.bits() - 1);
}

/// Half precision.
pub(crate) enum H {}
/// Single precision.
pub(crate) enum S {}
/// Double precision.
pub(crate) enum D {}

impl Precision for H {
    const FMT: FpFormat = FpFormat::F16;
}
impl Precision for S {
    const FMT: FpFormat = FpFormat::F32;
}
impl Precision for D {
    const FMT: FpFormat = FpFormat::F64;
}

impl Lift<'_> {
    /// Runs `body` with the rounding of `rm`, or makes the instruction illegal.
    fn rounded(&mut self, rm: u8, body: impl FnOnce(&mut Self, Rounding)) {
        match self.rounding(rm) {
            Some(rounding) => body(self, rounding),
            None => self.illegal(),
        }
    }

    fn fp_binary<P: Precision>(&mut self, op: FpBinOp, rounding: Rounding, [rd, rs1, rs2]: [u8; 3]) {
        let (a, b) = (self.f(P::FMT, rs1), self.f(P::FMT, rs2));
        let value = self.b.fp_bin(op, P::FMT, rounding, a, b);
        self.set_f(P::FMT, rd, value);
    }

    fn fp_fma<P: Precision>(&mut self, op: FmaOp, o: Fp) {
        self.rounded(o.rm, |l, rounding| {
            let operands = [o.rs1, o.rs2, o.rs3].map(|n| l.f(P::FMT, n));
            let value = l.b.fp_fma(op, P::FMT, rounding, operands);
            l.set_f(P::FMT, o.rd, value);
        });
    }

    fn fp_compare<P: Precision>(&mut self, cond: FpCond, signalling: bool, o: R) {
        let (a, b) = (self.f(P::FMT, o.rs1), self.f(P::FMT, o.rs2));
        let value = self.b.fp_compare(cond, P::FMT, signalling, a, b);
        self.set_x_zext(o.rd, value);
        self.mark_fp_dirty();
    }

    fn fp_to_int<P: Precision>(&mut self, to: Type, signed: bool, o: Fp) {
        self.rounded(o.rm, |l, rounding| {
            let a = l.f(P::FMT, o.rs1);
            let value = l.b.fp_to_int(P::FMT, (to, signed), FpOverflow::SaturateNanMax, rounding, a);
            l.set_x(o.rd, value);
            l.mark_fp_dirty();
        });
    }

    fn fp_from_int<P: Precision>(&mut self, from: Type, signed: bool, o: Fp) {
        self.rounded(o.rm, |l, rounding| {
            let a = l.x(o.rs1);
            let a = l.b.trunc(from, a);
            let value = l.b.fp_from_int(P::FMT, signed, rounding, a);
            l.set_f(P::FMT, o.rd, value);
        });
    }

    fn fp_round<P: Precision>(&mut self, inexact: bool, o: Fp) {
        self.rounded(o.rm, |l, rounding| {
            let a = l.f(P::FMT, o.rs1);
            let value = l.b.fp_round(P::FMT, rounding, inexact, a);
            l.set_f(P::FMT, o.rd, value);
        });
    }
}

// --- arithmetic

macro_rules! arithmetic {
    ($($name:ident $op:ident)*) => {$(
        pub(crate) fn $name<P: Precision>(l: &mut Lift<'_>, o: Fp) {
            l.rounded(o.rm, |l, rounding| {
                l.fp_binary::<P>(FpBinOp::$op, rounding, [o.rd, o.rs1, o.rs2]);
            });
        }
    )*};
}

arithmetic! {
    fadd Add
    fsub Sub
    fmul Mul
    fdiv Div
}

macro_rules! selections {
    ($($name:ident $op:ident)*) => {$(
        pub(crate) fn $name<P: Precision>(l: &mut Lift<'_>, o: R) {
            l.fp_binary::<P>(FpBinOp::$op, Rounding::NearestEven, [o.rd, o.rs1, o.rs2]);
        }
    )*};
}

selections! {
    fmin MinNumber
    fmax MaxNumber
    fminm Minimum
    fmaxm Maximum
}

pub(crate) fn fsqrt<P: Precision>(l: &mut Lift<'_>, o: Fp) {
    l.rounded(o.rm, |l, rounding| {
        let a = l.f(P::FMT, o.rs1);
        let value = l.b.fp_sqrt(P::FMT, rounding, a);
        l.set_f(P::FMT, o.rd, value);
    });
}

macro_rules! fused {
    ($($name:ident $op:ident)*) => {$(
        pub(crate) fn $name<P: Precision>(l: &mut Lift<'_>, o: Fp) {
            l.fp_fma::<P>(FmaOp::$op, o);
        }
    )*};
}

// RISC-V's "negated" forms negate the product: fnmsub is -(a * b) + c.
fused! {
    fmadd MulAdd
    fmsub MulSub
    fnmsub NegMulAdd
    fnmadd NegMulSub
}

// --- comparisons

macro_rules! comparisons {
    ($($name:ident $cond:ident $signalling:literal)*) => {$(
        pub(crate) fn $name<P: Precision>(l: &mut Lift<'_>, o: R) {
            l.fp_compare::<P>(FpCond::$cond, $signalling, o);
        }
    )*};
}

comparisons! {
    feq Eq false
    flt Lt true
    fle Le true
    fltq Lt false
    fleq Le false
}

pub(crate) fn fclass<P: Precision>(l: &mut Lift<'_>, o: R1) {
    let format = l.imm(P::FMT as i64);
    let a = l.f(P::FMT, o.rs1);
    let a = l.b.zext(Type::I64, a);
    let value = l.call(Helper::Fclass, &[format, a]);
    l.set_x(o.rd, value);
}

// --- conversions

macro_rules! conversions {
    ($($to_int:ident $from_int:ident $ty:ident $signed:literal)*) => {$(
        pub(crate) fn $to_int<P: Precision>(l: &mut Lift<'_>, o: Fp) {
            l.fp_to_int::<P>(Type::$ty, $signed, o);
        }
        pub(crate) fn $from_int<P: Precision>(l: &mut Lift<'_>, o: Fp) {
            l.fp_from_int::<P>(Type::$ty, $signed, o);
        }
    )*};
}

conversions! {
    fcvt_to_w fcvt_from_w I32 true
    fcvt_to_wu fcvt_from_wu I32 false
    fcvt_to_l fcvt_from_l I64 true
    fcvt_to_lu fcvt_from_lu I64 false
}

/// `fcvt.To.From`.
pub(crate) fn fcvt<To: Precision, From: Precision>(l: &mut Lift<'_>, o: Fp) {
    l.rounded(o.rm, |l, rounding| {
        let a = l.f(From::FMT, o.rs1);
        let value = l.b.fp_convert(From::FMT, To::FMT, rounding, a);
        l.set_f(To::FMT, o.rd, value);
    });
}

/// The flags are those of `fcvt.w.d` towards zero, the value is that conversion's modulo 2^32 (volume I, 26.5).
pub(crate) fn fcvtmod_w_d(l: &mut Lift<'_>, o: R1) {
    let a = l.f(FpFormat::F64, o.rs1);
    l.b.fp_to_int(FpFormat::F64, (Type::I32, true), FpOverflow::SaturateNanMax, Rounding::TowardZero, a);
    let value = l.call(Helper::FcvtModWD, &[a]);
    l.set_x(o.rd, value);
    l.mark_fp_dirty();
}

pub(crate) fn fround<P: Precision>(l: &mut Lift<'_>, o: Fp) {
    l.fp_round::<P>(false, o);
}

pub(crate) fn froundnx<P: Precision>(l: &mut Lift<'_>, o: Fp) {
    l.fp_round::<P>(true, o);
}

// --- bits

/// Bits to an integer register, sign-extended whatever they are: `fmv.x.h`, `fmv.x.w`, `fmv.x.d`.
pub(crate) fn fmv_to_x<P: Precision>(l: &mut Lift<'_>, o: R1) {
    let bits = l.f_bits(o.rs1);
    let bits = l.b.trunc(P::TY, bits);
    l.set_x(o.rd, bits);
}

/// Bits from an integer register.
pub(crate) fn fmv_from_x<P: Precision>(l: &mut Lift<'_>, o: R1) {
    let bits = l.x(o.rs1);
    let bits = l.b.trunc(P::TY, bits);
    l.set_f(P::FMT, o.rd, bits);
}

/// Sign injection: `magnitude` of rs1 with a sign from rs2. With both the same these are `fmv`, `fneg` and `fabs`, by
/// far their most frequent use.
fn inject<P: Precision>(l: &mut Lift<'_>, o: R, sign: impl FnOnce(&mut Lift<'_>, Value) -> Value) {
    let (a, b) = (l.f(P::FMT, o.rs1), l.f(P::FMT, o.rs2));
    let magnitude = l.b.bin_imm(BinOp::And, a, !P::SIGN);
    let sign = sign(l, b);
    let sign = l.b.bin_imm(BinOp::And, sign, P::SIGN);
    let value = l.b.or(magnitude, sign);
    l.set_f(P::FMT, o.rd, value);
}

pub(crate) fn fsgnj<P: Precision>(l: &mut Lift<'_>, o: R) {
    if o.rs1 == o.rs2 {
        let value = l.f(P::FMT, o.rs1);
        return l.set_f(P::FMT, o.rd, value);
    }
    inject::<P>(l, o, |_, b| b);
}

pub(crate) fn fsgnjn<P: Precision>(l: &mut Lift<'_>, o: R) {
    inject::<P>(l, o, |l, b| l.b.un(UnOp::Not, b));
}

pub(crate) fn fsgnjx<P: Precision>(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.f(P::FMT, o.rs1), l.f(P::FMT, o.rs2));
    let sign = l.b.bin_imm(BinOp::And, b, P::SIGN);
    let value = l.b.xor(a, sign);
    l.set_f(P::FMT, o.rd, value);
}

/// The constants of `fli` but number 1, the format's smallest normal number (volume I, 26.1).
pub(crate) const FLI: [f64; 32] = [
    -1.0,
    f64::MIN_POSITIVE,
    1.0 / 65536.0,
    1.0 / 32768.0,
    1.0 / 256.0,
    1.0 / 128.0,
    0.0625,
    0.125,
    0.25,
    0.3125,
    0.375,
    0.4375,
    0.5,
    0.625,
    0.75,
    0.875,
    1.0,
    1.25,
    1.5,
    1.75,
    2.0,
    2.5,
    3.0,
    4.0,
    8.0,
    16.0,
    128.0,
    256.0,
    32768.0,
    65536.0,
    f64::INFINITY,
    f64::NAN,
];

/// Loads constant number `imm`; 2^16 is infinity in half precision.
pub(crate) fn fli<P: Precision>(l: &mut Lift<'_>, o: U) {
    let bits = match (o.imm, P::FMT) {
        (1, FpFormat::F16) => 0x0400,
        (1, FpFormat::F32) => u64::from(f32::MIN_POSITIVE.to_bits()),
        (n, fmt) => {
            let constant = FLI[(n & 31) as usize].to_bits();
            softfloat::convert(FpFormat::F64, fmt, constant, &mut Env::riscv(Round::NearestEven))
        }
    };
    let value = l.b.iconst(P::TY, bits);
    l.set_f(P::FMT, o.rd, value);
}
