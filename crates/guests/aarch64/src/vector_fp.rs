//! Floating-point instructions with results of their own: estimates and steps, conversions to and from fixed point and
//! half precision, brain floating point, widening multiplication of halves (the manual, shared pseudocode
//! `FPRecipEstimate` and so on), as [`crate::vector`] helpers execute them.

use crate::{
    fixed,
    vector::{FpState, Vector, lane},
};
use isomer_ir::softfloat::{self, Env, Flags, Fmt, IntRule, IntType, NanRule, Negate, Round, Tininess};

/// Digits of the fraction field.
pub(crate) const fn fraction_bits(fmt: Fmt) -> u32 {
    match fmt {
        Fmt::F16 => 10,
        Fmt::Bf16 => 7,
        Fmt::F32 => 23,
        Fmt::F64 => 52,
    }
}

/// A number's fields.
#[derive(Clone, Copy)]
struct Parts {
    sign: u64,
    exp: u64,
    frac: u64,
}

/// The largest exponent field.
const fn exp_max(fmt: Fmt) -> u64 {
    (1 << (fmt.bits() - 1 - fraction_bits(fmt))) - 1
}

impl Parts {
    /// Takes a number apart; a subnormal that is flushed is a zero and noted.
    fn read(fmt: Fmt, a: u64, env: &mut Env) -> Self {
        let bits = fraction_bits(fmt);
        let mut parts = Self {
            sign: a >> (fmt.bits() - 1) & 1,
            exp: a >> bits & exp_max(fmt),
            frac: a & ((1 << bits) - 1),
        };
        if parts.exp == 0 && parts.frac != 0 && env.flush_inputs {
            env.raise(Flags::DENORMAL_INPUT);
            parts.frac = 0;
        }
        parts
    }

    fn is_zero(self) -> bool {
        self.exp == 0 && self.frac == 0
    }

    fn is_infinite(self, fmt: Fmt) -> bool {
        self.exp == exp_max(fmt) && self.frac == 0
    }
}

fn join(fmt: Fmt, sign: u64, exp: u64, frac: u64) -> u64 {
    sign << (fmt.bits() - 1) | exp << fraction_bits(fmt) | frac
}

fn infinity(fmt: Fmt, sign: u64) -> u64 {
    join(fmt, sign, exp_max(fmt), 0)
}

/// 2.0 with a sign; its exponent field is a power of two.
fn two(fmt: Fmt, sign: u64) -> u64 {
    join(fmt, sign, exp_max(fmt) / 2 + 1, 0)
}

/// FPProcessNaN and FPProcessNaNs: what an operation on these operands gives if one is a NaN.
fn nan_result(fmt: Fmt, operands: &[u64], env: &mut Env) -> Option<u64> {
    let [a, b] = [operands[0], operands[operands.len() - 1]];
    // A minimum propagates NaNs as every operation does, and leaves everything else alone.
    let any = softfloat::is_nan(fmt, a) || softfloat::is_nan(fmt, b);
    any.then(|| softfloat::min(fmt, a, b, softfloat::MinMax::Propagate, env))
}

/// RecipEstimate(): of a number of 9 bits in 256..512.
pub(crate) fn reciprocal_estimate(a: u32) -> u32 {
    let a = a * 2 + 1;
    ((1 << 19) / a).div_ceil(2)
}

/// RecipSqrtEstimate(): of a number of 9 bits in 128..512.
pub(crate) fn square_root_estimate(a: u32) -> u32 {
    let a = if a < 256 { a * 2 + 1 } else { ((a >> 1 << 1) + 1) * 2 };
    let fits = |b: &u32| u64::from(a) * u64::from(b + 1) * u64::from(b + 1) < 1 << 28;
    let b = (512..1024).take_while(fits).count() as u32 + 512;
    b.div_ceil(2)
}

/// FPRecipEstimate().
fn recip_estimate(fmt: Fmt, a: u64, env: &mut Env) -> u64 {
    if let Some(nan) = nan_result(fmt, &[a], env) {
        return nan;
    }
    let parts = Parts::read(fmt, a, env);
    let Parts { sign, .. } = parts;
    if parts.is_infinite(fmt) {
        return join(fmt, sign, 0, 0);
    }
    if parts.is_zero() {
        env.raise(Flags::DZ);
        return infinity(fmt, sign);
    }
    // Fractions are worked on with 52 digits, whatever the format.
    let digits = fraction_bits(fmt);
    let mut fraction = parts.frac << (52 - digits);
    let mut exp = parts.exp as i64;
    let max = exp_max(fmt) as i64;
    if exp == 0 && parts.frac >> (digits - 2) == 0 {
        return overflow(fmt, sign, env);
    }
    if env.flush_outputs && exp >= max - 2 {
        env.raise(Flags::UF);
        return join(fmt, sign, 0, 0);
    }
    if exp == 0 {
        let shift = if fraction >> 51 == 0 { 2 } else { 1 };
        exp = 1 - shift;
        fraction = fraction << shift & ((1 << 52) - 1);
    }
    let scaled = 1 << 8 | (fraction >> 44) as u32;
    let result_exp = max - 2 - exp;
    let estimate = u64::from(reciprocal_estimate(scaled) & 0xff) << 44;
    let (result_exp, fraction) = match result_exp {
        0 => (0, 1 << 51 | estimate >> 1),
        -1 => (0, 1 << 50 | estimate >> 2),
        exp => (exp as u64, estimate),
    };
    join(fmt, sign, result_exp, fraction >> (52 - digits))
}

/// The reciprocal of a number too close to zero.
fn overflow(fmt: Fmt, sign: u64, env: &mut Env) -> u64 {
    env.raise(Flags::OF | Flags::NX);
    let to_infinity = match env.rounding {
        Round::NearestEven | Round::NearestAway => true,
        Round::Up => sign == 0,
        Round::Down => sign != 0,
        Round::TowardZero | Round::ToOdd => false,
    };
    infinity(fmt, sign) - u64::from(!to_infinity)
}

/// FPRSqrtEstimate().
fn rsqrt_estimate(fmt: Fmt, a: u64, env: &mut Env) -> u64 {
    if let Some(nan) = nan_result(fmt, &[a], env) {
        return nan;
    }
    let parts = Parts::read(fmt, a, env);
    if parts.is_zero() {
        env.raise(Flags::DZ);
        return infinity(fmt, parts.sign);
    }
    if parts.sign != 0 {
        env.raise(Flags::NV);
        return softfloat::default_nan(fmt, env.nan);
    }
    if parts.is_infinite(fmt) {
        return 0;
    }
    let digits = fraction_bits(fmt);
    let mut fraction = parts.frac << (52 - digits);
    let mut exp = parts.exp as i64;
    if exp == 0 {
        let shift = i64::from(fraction.leading_zeros()) - 11;
        exp = 1 - shift;
        fraction = fraction << shift & ((1 << 52) - 1);
    }
    let scaled = if exp & 1 == 0 { 1 << 8 | fraction >> 44 } else { 1 << 7 | fraction >> 45 } as u32;
    let bias = exp_max(fmt) as i64 / 2;
    let result_exp = (3 * bias - 1 - exp).div_euclid(2) as u64;
    let estimate = u64::from(square_root_estimate(scaled) & 0xff) << 44;
    join(fmt, 0, result_exp, estimate >> (52 - digits))
}

/// FPRecpX(): the exponent inverted.
fn recip_exponent(fmt: Fmt, a: u64, env: &mut Env) -> u64 {
    if let Some(nan) = nan_result(fmt, &[a], env) {
        return nan;
    }
    let parts = Parts::read(fmt, a, env);
    let exp = if parts.exp == 0 { exp_max(fmt) - 1 } else { exp_max(fmt) - parts.exp };
    join(fmt, parts.sign, exp, 0)
}

/// One operand infinite, the other zero?
fn infinity_times_zero(fmt: Fmt, a: Parts, b: Parts) -> bool {
    a.is_infinite(fmt) && b.is_zero() || a.is_zero() && b.is_infinite(fmt)
}

/// FPMulX(): infinity times zero is 2.0.
fn multiply_extended(fmt: Fmt, a: u64, b: u64, env: &mut Env) -> u64 {
    if let Some(nan) = nan_result(fmt, &[a, b], env) {
        return nan;
    }
    let (x, y) = (Parts::read(fmt, a, env), Parts::read(fmt, b, env));
    if infinity_times_zero(fmt, x, y) {
        return two(fmt, x.sign ^ y.sign);
    }
    softfloat::mul(fmt, a, b, env)
}

/// FPRecipStepFused(): 2 - a * b.
fn recip_step(fmt: Fmt, a: u64, b: u64, env: &mut Env) -> u64 {
    let a = a ^ fmt.sign_bit();
    if let Some(nan) = nan_result(fmt, &[a, b], env) {
        return nan;
    }
    let (x, y) = (Parts::read(fmt, a, env), Parts::read(fmt, b, env));
    if infinity_times_zero(fmt, x, y) {
        return two(fmt, 0);
    }
    softfloat::mul_add(fmt, a, b, two(fmt, 0), Negate::NONE, env)
}

/// FPRSqrtStepFused(): (3 - a * b) / 2, rounded once.
fn rsqrt_step(fmt: Fmt, a: u64, b: u64, env: &mut Env) -> u64 {
    let a = a ^ fmt.sign_bit();
    if let Some(nan) = nan_result(fmt, &[a, b], env) {
        return nan;
    }
    let (x, y) = (Parts::read(fmt, a, env), Parts::read(fmt, b, env));
    // 1.5
    let middle = join(fmt, 0, exp_max(fmt) / 2, 1 << (fraction_bits(fmt) - 1));
    if infinity_times_zero(fmt, x, y) {
        return middle;
    }
    // 1.5 - (a / 2) * b, halving the operand where that is exact. Where it is for neither the product is lost anyway.
    let halves = |p: Parts| p.exp > 1 && p.exp != exp_max(fmt);
    let one = 1 << fraction_bits(fmt);
    let (a, b) = match (halves(x), halves(y)) {
        (true, _) => (a - one, b),
        (_, true) => (a, b - one),
        _ => (a, b),
    };
    softfloat::mul_add(fmt, a, b, middle, Negate::NONE, env)
}

/// The format of `sz` (bit 22), or half precision where the encoding has its own class.
fn format(v: &Vector) -> Fmt {
    let half = match v.field(24, 5) {
        // Vector and scalar two-register: bits 22:17 are 1 11100 for half precision; three-register: bits 22:21 are 10
        // and bits 15:14 are 00.
        0b01110 | 0b11110 if v.field(17, 5) == 0b11100 && v.field(10, 2) == 2 => true,
        0b01110 | 0b11110 if v.field(21, 2) == 2 && v.field(14, 2) == 0 && v.field(10, 1) == 1 => true,
        // By element: size 00.
        0b01111 | 0b11111 => v.field(22, 2) == 0,
        _ => false,
    };
    match (half, v.field(22, 1)) {
        (true, _) => Fmt::F16,
        (_, 1) => Fmt::F64,
        _ => Fmt::F32,
    }
}

/// One operand, lane by lane.
fn unary(v: &mut Vector, f: fn(Fmt, u64, &mut Env) -> u64) -> u128 {
    let fmt = format(v);
    v.map(fmt.bits(), |v, [n, ..]| v.fp.with(fmt, |env| f(fmt, n, env)))
}

/// Two operands, lane by lane.
fn binary(v: &mut Vector, f: fn(Fmt, u64, u64, &mut Env) -> u64) -> u128 {
    let fmt = format(v);
    v.map(fmt.bits(), |v, [n, m, _]| v.fp.with(fmt, |env| f(fmt, n, m, env)))
}

/// FRECPE.
pub(crate) fn frecpe(v: &mut Vector) -> u128 {
    unary(v, recip_estimate)
}

/// FRSQRTE.
pub(crate) fn frsqrte(v: &mut Vector) -> u128 {
    unary(v, rsqrt_estimate)
}

/// FRECPX.
pub(crate) fn frecpx(v: &mut Vector) -> u128 {
    unary(v, recip_exponent)
}

/// FRECPS.
pub(crate) fn frecps(v: &mut Vector) -> u128 {
    binary(v, recip_step)
}

/// FRSQRTS.
pub(crate) fn frsqrts(v: &mut Vector) -> u128 {
    binary(v, rsqrt_step)
}

/// FMULX, vector and by element; Vm is the element in every lane already.
pub(crate) fn fmulx(v: &mut Vector) -> u128 {
    let fmt = format(v);
    if matches!(v.field(24, 5), 0b01111 | 0b11111) {
        v.fp_element(fmt);
    }
    binary(v, multiply_extended)
}

/// FCVTXN, FCVTXN2: double to single, rounded to odd.
pub(crate) fn fcvtxn(v: &mut Vector) -> u128 {
    v.narrow(32, |v, n| {
        v.fp.with(Fmt::F64, |env| {
            env.rounding = Round::ToOdd;
            softfloat::convert(Fmt::F64, Fmt::F32, n, env)
        })
    })
}

/// FCVTN, FCVTN2 from single to half.
pub(crate) fn fcvtn_half(v: &mut Vector) -> u128 {
    v.narrow(16, |v, n| to_half(&mut v.fp, Fmt::F32, n))
}

/// FCVTL, FCVTL2 from half to single.
pub(crate) fn fcvtl_half(v: &mut Vector) -> u128 {
    v.widen(16, |v, [n, ..]| from_half(&mut v.fp, Fmt::F32, n))
}

/// FPConvert() to half precision, of which FPCR.AHP has two kinds. Results are never flushed.
pub(crate) fn to_half(fp: &mut FpState, from: Fmt, a: u64) -> u64 {
    let alternative = fp.alternative_half();
    fp.with(from, |env| {
        env.flush_outputs = false;
        if alternative { to_alternative(from, a, env) } else { softfloat::convert(from, Fmt::F16, a, env) }
    })
}

/// To the alternative format, which has numbers where the other has infinities and NaNs.
fn to_alternative(from: Fmt, a: u64, env: &mut Env) -> u64 {
    let sign = a >> (from.bits() - 1) << 15;
    let exp = a >> fraction_bits(from) & exp_max(from);
    if softfloat::is_nan(from, a) {
        env.raise(Flags::NV);
        return sign;
    }
    if exp < exp_max(from) / 2 + 15 {
        return softfloat::convert(from, Fmt::F16, a, env);
    }
    // Large numbers are converted at half their size, so that overflow is overflow there too.
    let mut trial = Env { flags: Flags::NONE, ..*env };
    let half = if exp == exp_max(from) { a } else { a - (1 << fraction_bits(from)) };
    let result = softfloat::convert(from, Fmt::F16, half, &mut trial);
    if result & 0x7fff == 0x7c00 || trial.flags.contains(Flags::OF) {
        env.raise(Flags::NV);
        return sign | 0x7fff;
    }
    env.raise(trial.flags);
    result + (1 << 10)
}

/// FPConvert() from half precision; its subnormals are never flushed.
pub(crate) fn from_half(fp: &mut FpState, to: Fmt, a: u64) -> u64 {
    let alternative = fp.alternative_half();
    fp.with(Fmt::F16, |env| {
        env.flush_inputs = false;
        env.flush_outputs = false;
        if alternative && a >> 10 & 31 == 31 {
            return softfloat::convert(Fmt::F16, to, a - (1 << 10), env) + (1 << fraction_bits(to));
        }
        softfloat::convert(Fmt::F16, to, a, env)
    })
}

/// Conversions between floating and fixed point of vectors and SIMD scalars: FCVTZS, FCVTZU, SCVTF, UCVTF with a number
/// of fraction bits, in immh:immb.
pub(crate) fn convert_fixed(v: &mut Vector) -> u128 {
    let imm = v.field(16, 7);
    let bits = 8 << (imm >> 3).max(1).ilog2();
    let fraction = 2 * bits - imm;
    let fmt = format_of_bits(bits);
    let signed = !v.u();
    let to_integer = v.field(11, 5) == 0b11111;
    v.map(bits, |v, [n, ..]| {
        v.fp.with(fmt, |env| {
            if to_integer {
                fixed::to_fixed(fmt, n, fixed::Fixed { bits, signed, fraction }, Round::TowardZero, env)
            } else {
                fixed::from_fixed(fmt, n, fixed::Fixed { bits, signed, fraction }, env)
            }
        })
    })
}

const fn format_of_bits(bits: u32) -> Fmt {
    match bits {
        16 => Fmt::F16,
        32 => Fmt::F32,
        _ => Fmt::F64,
    }
}

/// Conversions of half-precision lanes to 16-bit integers and back: FCVT{N,P,M,Z,A}{S,U}, SCVTF, UCVTF.
pub(crate) fn convert_half(v: &mut Vector) -> u128 {
    let signed = !v.u();
    let fixed = fixed::Fixed { bits: 16, signed, fraction: 0 };
    // o2:o1 are bit 23 and bits 13:12.
    let round = match (v.field(12, 5), v.field(23, 1)) {
        (0b11010, 0) => Some(Round::NearestEven),
        (0b11010, _) => Some(Round::Up),
        (0b11011, 0) => Some(Round::Down),
        (0b11011, _) => Some(Round::TowardZero),
        (0b11100, _) => Some(Round::NearestAway),
        _ => None,
    };
    v.map(16, |v, [n, ..]| {
        v.fp.with(Fmt::F16, |env| match round {
            // SCVTF and UCVTF share their opcode with FCVTAS's neighbour: 11101.
            None => fixed::from_fixed(Fmt::F16, n, fixed, env),
            Some(round) => fixed::to_fixed(Fmt::F16, n, fixed, round, env),
        })
    })
}

/// FRINT32Z, FRINT32X, FRINT64Z, FRINT64X (FEAT_FRINTTS) of vectors.
pub(crate) fn frint_sized(v: &mut Vector) -> u128 {
    let fmt = format(v);
    let (wide, current) = (v.field(12, 1) != 0, v.u());
    v.map(fmt.bits(), |v, [n, ..]| round_sized(&mut v.fp, fmt, n, wide, current))
}

/// FPRoundIntN(): to an integral number that a 32- or 64-bit integer holds, else the most negative one.
pub(crate) fn round_sized(fp: &mut FpState, fmt: Fmt, a: u64, wide: bool, current: bool) -> u64 {
    let int = if wide { IntType::I64 } else { IntType::I32 };
    fp.with(fmt, |env| {
        let round = if current { env.rounding } else { Round::TowardZero };
        let mut trial = *env;
        softfloat::to_int(fmt, a, int, round, IntRule::Arm, &mut trial);
        if trial.flags.contains(Flags::NV) {
            env.raise(trial.flags);
            let power = if wide { 63 } else { 31 };
            return join(fmt, 1, exp_max(fmt) / 2 + power, 0);
        }
        softfloat::round_to_integral(fmt, a, round, true, env)
    })
}

/// FMLAL, FMLAL2, FMLSL, FMLSL2 (FEAT_FHM): halves multiplied and added to singles.
pub(crate) fn multiply_half_long(v: &mut Vector) -> u128 {
    let by_element = v.field(24, 1) != 0;
    // Which half of the sources, and whether to subtract.
    let (upper, subtract) =
        if by_element { (v.field(15, 1), v.field(14, 1)) } else { (v.u().into(), v.field(23, 1)) };
    if by_element {
        v.by_element(16);
    }
    let lanes = if v.q() { 4 } else { 2 };
    let mut result = 0;
    for i in 0..lanes {
        let from = i + upper * lanes;
        let n = lane(v.n, 16, from) ^ u64::from(subtract) << 15;
        let operands = [n, lane(v.m, 16, from)];
        let flush = v.fp.flushes(Fmt::F16);
        let [n, m] = operands.map(|half| half_as_single(half, flush));
        let d = lane(v.d, 32, i);
        let sum = v.fp.with(Fmt::F32, |env| softfloat::mul_add(Fmt::F32, n, m, d, Negate::NONE, env));
        result |= u128::from(sum) << (i * 32);
    }
    result
}

/// The same number or NaN as a single; flushed subnormals raise nothing.
fn half_as_single(half: u64, flush: bool) -> u64 {
    let (sign, exp, frac) = (half >> 15, half >> 10 & 31, half & 0x3ff);
    let (exp, frac) = match (exp, frac) {
        (0, _) if frac == 0 || flush => (0, 0),
        (0, _) => {
            let shift = frac.leading_zeros() - 53;
            (u64::from(113 - shift), frac << shift & 0x3ff)
        }
        (31, _) => (255, frac),
        _ => (exp + 112, frac),
    };
    join(Fmt::F32, sign, exp, frac << 13)
}

/// The rules of brain floating-point sums of products (shared pseudocode `BFDotAdd`, FPCR.EBF = 0).
const BRAIN: Env = Env {
    rounding: Round::ToOdd,
    nan: NanRule::Canonical,
    tininess: Tininess::Before,
    flush_inputs: true,
    flush_outputs: true,
    flags: Flags::NONE,
};

/// An operation on singles by those rules; overflow gives infinity.
fn brain(operation: fn(Fmt, u64, u64, &mut Env) -> u64, a: u64, b: u64) -> u64 {
    let mut env = BRAIN;
    let result = operation(Fmt::F32, a, b, &mut env);
    if env.flags.contains(Flags::OF) { infinity(Fmt::F32, result >> 31) } else { result }
}

/// `sum + (n0 * m0 + n1 * m1)` of two pairs of brain floating-point numbers.
fn brain_dot(sum: u64, n: u64, m: u64) -> u64 {
    let low = |pair: u64| pair << 16 & 0xffff_0000;
    let high = |pair: u64| pair & 0xffff_0000;
    let products =
        brain(softfloat::add, brain(softfloat::mul, low(n), low(m)), brain(softfloat::mul, high(n), high(m)));
    brain(softfloat::add, sum, products)
}

/// BFDOT (FEAT_BF16), vector and by element.
pub(crate) fn bfdot(v: &mut Vector) -> u128 {
    v.by_element(32);
    v.map(32, |_, [n, m, d]| brain_dot(d, n, m))
}

/// BFMMLA (FEAT_BF16): a 2x4 matrix times a 4x2 one.
pub(crate) fn bfmmla(v: &mut Vector) -> u128 {
    (0..4).fold(0, |result, at| {
        let (row, column) = (at / 2, at % 2);
        let pair = |from: u128, which: u32, k: u32| lane(from, 32, which * 2 + k);
        let sum =
            (0..2).fold(lane(v.d, 32, at), |sum, k| brain_dot(sum, pair(v.n, row, k), pair(v.m, column, k)));
        result | u128::from(sum) << (at * 32)
    })
}

impl Vector {
    /// Makes Vm the element that an indexed encoding of `fmt` picks, in every lane.
    fn fp_element(&mut self, fmt: Fmt) {
        let (h, l, m) = (self.field(11, 1), self.field(21, 1), self.field(20, 1));
        let index = match fmt {
            Fmt::F64 => h,
            Fmt::F32 => h << 1 | l,
            Fmt::F16 | Fmt::Bf16 => h << 2 | l << 1 | m,
        };
        let (bits, element) = (fmt.bits(), lane(self.m, fmt.bits(), index));
        self.m = (0..128 / bits).fold(0, |v, i| v | u128::from(element) << (i * bits));
    }
}
