//! Conversion between floating point and fixed point of 16, 32 and 64 bits (the manual, shared pseudocode `FPToFixed`,
//! `FixedToFP`, `FPToFixedJS`).

use crate::vector::{number, ones};
use isomer_ir::softfloat::{self, Env, Flags, Fmt, IntType, Round};

/// A fixed-point type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    /// 16, 32 or 64.
    pub(crate) bits: u32,
    pub(crate) signed: bool,
    /// Bits below the binary point, up to 64.
    pub(crate) fraction: u32,
}

/// Converts to fixed point; saturates, NaN is zero. The result is zero-extended from `to.bits`.
pub(crate) fn to_fixed(fmt: Fmt, a: u64, to: Fixed, round: Round, env: &mut Env) -> u64 {
    // Every format is exact as a double; a signalling NaN is as invalid there as here.
    let wide = if fmt == Fmt::F64 { a } else { softfloat::convert(fmt, Fmt::F64, a, env) };
    let (negative, exp, frac) = (wide >> 63 != 0, (wide >> 52 & 0x7ff) as i32, wide & ((1 << 52) - 1));
    let (min, max) = limits(to);
    if exp == 0x7ff {
        env.raise(Flags::NV);
        return if frac != 0 { 0 } else { (if negative { min } else { max }) as u64 & ones(to.bits) };
    }
    if exp == 0 {
        // Zero, or a subnormal double: too small for anything but its sign to matter.
        if frac == 0 || env.flush_inputs {
            env.raise(if frac == 0 { Flags::NONE } else { Flags::DENORMAL_INPUT });
            return 0;
        }
    }
    let significand = u128::from(frac | 1 << 52);
    let scale = exp - 1075 + to.fraction as i32;
    let (magnitude, inexact) = match scale {
        // Anything of 2^66 and more saturates.
        14.. => (1 << 66, false),
        0..14 => (significand << scale, false),
        _ => round_off(significand, scale.unsigned_abs(), negative, round),
    };
    let value = if negative { -(magnitude as i128) } else { magnitude as i128 };
    if value < min || value > max {
        env.raise(Flags::NV);
        return value.clamp(min, max) as u64 & ones(to.bits);
    }
    if inexact {
        env.raise(Flags::NX);
    }
    value as u64 & ones(to.bits)
}

fn limits(to: Fixed) -> (i128, i128) {
    if to.signed { (-1 << (to.bits - 1), !(-1 << (to.bits - 1))) } else { (0, !(-1 << to.bits)) }
}

/// `significand >> by`, rounded; and was it inexact?
fn round_off(significand: u128, by: u32, negative: bool, round: Round) -> (u128, bool) {
    // Beyond 60 bits all that is left of 53 is that it is not zero, and less than a half.
    let (significand, by) = if by > 60 { (1, 60) } else { (significand, by) };
    let (whole, lost) = (significand >> by, significand & ((1 << by) - 1));
    let half = 1 << (by - 1);
    let up = match round {
        Round::NearestEven => lost > half || lost == half && whole & 1 != 0,
        Round::NearestAway => lost >= half,
        Round::TowardZero => false,
        Round::Down => negative && lost != 0,
        Round::Up => !negative && lost != 0,
        Round::ToOdd => lost != 0 && whole & 1 == 0,
    };
    (whole + u128::from(up), lost != 0)
}

/// Converts from fixed point, of which the low `from.bits` of `a` are used.
pub(crate) fn from_fixed(fmt: Fmt, a: u64, from: Fixed, env: &mut Env) -> u64 {
    let value = number(a, from.bits, from.signed) as u64;
    let int = if from.signed { IntType::I64 } else { IntType::U64 };
    if fmt == Fmt::F64 {
        let result = softfloat::from_int(fmt, value, int, env);
        // Integers are far from both ends of a double's exponent.
        return if result == 0 { 0 } else { result - (u64::from(from.fraction) << 52) };
    }
    // By way of a double rounded to odd, which keeps the second rounding innocent (53 digits are more than 24 + 2).
    let mut exact = Env { rounding: Round::ToOdd, ..*env };
    let wide = softfloat::from_int(Fmt::F64, value, int, &mut exact);
    let scaled = if wide == 0 { 0 } else { wide - (u64::from(from.fraction) << 52) };
    softfloat::convert(Fmt::F64, fmt, scaled, env)
}

/// FJCVTZS: a double modulo 2^32, and in bit 32 whether that is exactly what it was.
pub(crate) fn to_javascript(a: u64, env: &mut Env) -> u64 {
    let before = env.flags;
    env.flags = Flags::NONE;
    let value = softfloat::to_int_modulo32(Fmt::F64, a, env);
    let exact = env.flags == Flags::NONE && a != 1 << 63;
    env.flags |= before;
    u64::from(value) | u64::from(exact) << 32
}
