//! Conversion between formats and to and from integers (IEEE 754-2019, 5.4.1, 5.4.2, 5.8, 5.9).

use super::env::{Env, Flags, Round};
use super::format::Format;
use super::nan;
use super::pack::{Class, Term, Unpacked, round_at, round_pack, unpack, used};

/// An integer type a number is converted to or from.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum IntType {
    /// 32-bit two's complement.
    I32,
    /// 32-bit unsigned.
    U32,
    /// 64-bit two's complement.
    I64,
    /// 64-bit unsigned.
    U64,
}

impl IntType {
    /// Smallest and largest value.
    const fn range(self) -> (i128, i128) {
        match self {
            IntType::I32 => (i32::MIN as i128, i32::MAX as i128),
            IntType::U32 => (0, u32::MAX as i128),
            IntType::I64 => (i64::MIN as i128, i64::MAX as i128),
            IntType::U64 => (0, u64::MAX as i128),
        }
    }
}

/// What a conversion to integer returns when it is invalid.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum IntRule {
    /// The nearest value; the largest for a NaN.
    #[default]
    RiscV,
    /// The nearest value; zero for a NaN.
    Arm,
    /// The integer indefinite: smallest signed or largest unsigned value.
    X86,
    /// The nearest value; the smallest for a NaN.
    Power,
}

impl IntRule {
    fn nan(self, (min, max): (i128, i128)) -> i128 {
        match self {
            IntRule::RiscV => max,
            IntRule::Arm => 0,
            IntRule::X86 => indefinite(min, max),
            IntRule::Power => min,
        }
    }

    fn out_of_range(self, sign: bool, (min, max): (i128, i128)) -> i128 {
        match self {
            IntRule::X86 => indefinite(min, max),
            _ if sign => min,
            _ => max,
        }
    }
}

fn indefinite(min: i128, max: i128) -> i128 {
    if min < 0 { min } else { max }
}

/// Converts between formats, rounding if the second is narrower. A NaN keeps the upper bits of its payload
/// unless the rule is canonical.
pub fn convert<F: Format, G: Format>(a_bits: F::Bits, env: &mut Env) -> G::Bits {
    let a = unpack::<F>(a_bits, env);
    match a.class {
        Class::Nan => nan::convert::<F, G>(a_bits, env),
        Class::Infinite => G::infinity(a.sign),
        Class::Zero => G::zero(a.sign),
        Class::Finite => {
            used(env, a.subnormal);
            round_pack::<G>(a.term(), env)
        }
    }
}

/// Magnitude of `a`, finite and below 2^64, rounded to an integer of at most 2^64, and whether that was inexact.
fn round_magnitude(a: Unpacked, round: Round) -> (u128, bool) {
    if a.exp < -1 {
        // Between zero and a half: a quarter stands for all of them.
        return round_at(1, 2, a.sign, round);
    }
    round_at(u128::from(a.sig) << 63, (126 - a.exp) as u32, a.sign, round)
}

/// Converts to an integer in direction `round`. An invalid conversion raises NV alone and returns what `rule`
/// says. The result is sign-extended for signed types and zero-extended for unsigned ones.
pub fn to_int<F: Format>(a_bits: F::Bits, int: IntType, round: Round, rule: IntRule, env: &mut Env) -> u64 {
    let a = unpack::<F>(a_bits, env);
    let range = int.range();
    let rounded = match a.class {
        Class::Zero => return 0,
        Class::Nan => {
            env.raise(Flags::NV);
            return rule.nan(range) as u64;
        }
        Class::Finite if a.exp < 64 => Some(round_magnitude(a, round)),
        _ => None,
    };
    let value = rounded
        .map(|(magnitude, inexact)| (if a.sign { -(magnitude as i128) } else { magnitude as i128 }, inexact));
    match value {
        Some((value, inexact)) if range.0 <= value && value <= range.1 => {
            if inexact {
                env.raise(Flags::NX);
            }
            value as u64
        }
        _ => {
            env.raise(Flags::NV);
            rule.out_of_range(a.sign, range) as u64
        }
    }
}

/// Truncates and reduces modulo 2^32, zero for NaNs and infinities, with the flags of a conversion to
/// [`IntType::I32`]. RISC-V `fcvtmod.w.d` (Zfa), Arm FJCVTZS, ECMAScript's ToInt32.
pub fn to_int_modulo32<F: Format>(a_bits: F::Bits, env: &mut Env) -> u32 {
    let a = unpack::<F>(a_bits, env);
    to_int::<F>(a_bits, IntType::I32, Round::TowardZero, IntRule::Arm, env);
    if a.class != Class::Finite || a.exp < 0 {
        return 0;
    }
    let magnitude = match a.exp {
        ..64 => (a.sig >> (63 - a.exp)) as u32,
        64..95 => (a.sig << (a.exp - 63)) as u32,
        _ => 0,
    };
    if a.sign { magnitude.wrapping_neg() } else { magnitude }
}

/// Converts an integer, of which a 32-bit type uses the low half.
pub fn from_int<F: Format>(value: u64, int: IntType, env: &mut Env) -> F::Bits {
    let (sign, magnitude) = match int {
        IntType::I32 => ((value as i32) < 0, u64::from((value as i32).unsigned_abs())),
        IntType::U32 => (false, u64::from(value as u32)),
        IntType::I64 => ((value as i64) < 0, (value as i64).unsigned_abs()),
        IntType::U64 => (false, value),
    };
    if magnitude == 0 {
        return F::zero(false);
    }
    round_pack::<F>(Term::normalise(sign, 63, u128::from(magnitude) << 64), env)
}

/// Rounds to an integral number in the same format; `inexact` says whether a change raises NX (RISC-V `froundnx`,
/// Arm FRINTX) or nothing does (`fround`, FRINTA and the like).
pub fn round_to_integral<F: Format>(a_bits: F::Bits, round: Round, inexact: bool, env: &mut Env) -> F::Bits {
    let a = unpack::<F>(a_bits, env);
    match a.class {
        Class::Nan => return nan::propagate::<F>(&[a_bits], env),
        Class::Infinite => return F::infinity(a.sign),
        Class::Zero => return F::zero(a.sign),
        Class::Finite if a.exp >= F::PRECISION as i32 - 1 => return a_bits,
        Class::Finite => {}
    }
    let (magnitude, changed) = round_magnitude(a, round);
    if changed && inexact {
        env.raise(Flags::NX);
    }
    if magnitude == 0 {
        return F::zero(a.sign);
    }
    round_pack::<F>(Term::normalise(a.sign, 127, magnitude), env)
}
