//! The two ends of every operation: taking operands apart and rounding a result (IEEE 754-2019, 4.3 and 7.4-7.6).

use super::env::{Env, Flags, Round, Tininess};
use super::format::{Fields, Format};

/// What kind of datum an operand is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Zero,
    Finite,
    Infinite,
    Nan,
}

/// An operand taken apart. A `Finite` one is `sig / 2^63 * 2^exp` with bit 63 of `sig` set; elsewhere `exp` and
/// `sig` are meaningless.
#[derive(Copy, Clone, Debug)]
pub(super) struct Unpacked {
    pub(super) class: Class,
    pub(super) sign: bool,
    /// The operand was subnormal and not flushed.
    pub(super) subnormal: bool,
    pub(super) exp: i32,
    pub(super) sig: u64,
}

impl Unpacked {
    /// The magnitude as a [`Term`].
    #[inline]
    pub(super) fn term(self) -> Term {
        Term { sign: self.sign, exp: self.exp, sig: u128::from(self.sig) << 64 }
    }
}

/// A finite non-zero intermediate: `sig / 2^127 * 2^exp` with bit 127 of `sig` set.
///
/// Bit 0 may stand for any amount lost below it: every format rounds far above that bit.
#[derive(Copy, Clone, Debug)]
pub(super) struct Term {
    pub(super) sign: bool,
    pub(super) exp: i32,
    pub(super) sig: u128,
}

impl Term {
    /// `sig / 2^127 * 2^exp` for any non-zero `sig`.
    #[inline]
    pub(super) fn normalise(sign: bool, exp: i32, sig: u128) -> Term {
        let shift = sig.leading_zeros();
        Term { sign, exp: exp - shift as i32, sig: sig << shift }
    }
}

/// The fields of an operand after flushing of subnormals.
#[inline]
pub(super) fn read<F: Format>(bits: F::Bits, env: &mut Env) -> Fields {
    let mut fields = F::split(bits);
    if env.flush_inputs && fields.exp == 0 && fields.frac != 0 {
        env.raise(Flags::DENORMAL_INPUT);
        fields.frac = 0;
    }
    fields
}

/// Takes an operand apart, normalising subnormals or flushing them.
#[inline]
pub(super) fn unpack<F: Format>(bits: F::Bits, env: &mut Env) -> Unpacked {
    let Fields { sign, exp, frac } = read::<F>(bits, env);
    let special = |class| Unpacked { class, sign, subnormal: false, exp: 0, sig: 0 };
    if exp == F::EXP_MAX {
        return special(if frac == 0 { Class::Infinite } else { Class::Nan });
    }
    if exp != 0 {
        let sig = 1 << 63 | frac << (64 - F::PRECISION);
        return Unpacked { class: Class::Finite, sign, subnormal: false, exp: exp as i32 - F::BIAS, sig };
    }
    if frac == 0 {
        return special(Class::Zero);
    }
    let shift = frac.leading_zeros();
    let exp = 1 - F::BIAS - (F::PRECISION as i32 - 1) + 63 - shift as i32;
    Unpacked { class: Class::Finite, sign, subnormal: true, exp, sig: frac << shift }
}

/// Notes that a subnormal operand took part in a computation that was not cut short by a NaN.
#[inline]
pub(super) fn used(env: &mut Env, subnormal: bool) {
    if subnormal {
        env.raise(Flags::DENORMAL_INPUT);
    }
}

/// `sig >> shift`, with bit 0 set if any bit was lost.
#[inline]
pub(super) fn shift_right_jam(sig: u128, shift: u32) -> u128 {
    match shift {
        0 => sig,
        1..=127 => sig >> shift | u128::from(sig << (128 - shift) != 0),
        _ => u128::from(sig != 0),
    }
}

/// Rounds `sig / 2^drop` to an integer, for `drop` of 1 to 127; also tells whether that was inexact.
#[inline]
pub(super) fn round_at(sig: u128, drop: u32, sign: bool, round: Round) -> (u128, bool) {
    let lost = sig & ((1 << drop) - 1);
    let half = 1 << (drop - 1);
    let quotient = sig >> drop;
    let up = match round {
        Round::NearestEven => lost > half || lost == half && quotient & 1 != 0,
        Round::NearestAway => lost >= half,
        Round::TowardZero => false,
        Round::Down => sign && lost != 0,
        Round::Up => !sign && lost != 0,
        Round::ToOdd => lost != 0 && quotient & 1 == 0,
    };
    (quotient + u128::from(up), lost != 0)
}

/// Rounds to the format and encodes, raising NX, UF and OF as due.
#[inline]
pub(super) fn round_pack<F: Format>(term: Term, env: &mut Env) -> F::Bits {
    let Term { sign, exp, sig } = term;
    let drop = 128 - F::PRECISION;
    let biased = exp + F::BIAS;
    if biased < 1 {
        return round_pack_tiny::<F>(sign, biased, sig, env);
    }
    let (quotient, inexact) = round_at(sig, drop, sign, env.rounding);
    let carry = (quotient >> F::PRECISION) as u32;
    let exp = biased as u32 + carry;
    if exp >= F::EXP_MAX {
        return overflow::<F>(sign, env);
    }
    if inexact {
        env.raise(Flags::NX);
    }
    // After a carry the quotient is a power of two and its fraction zero at either position.
    F::join(Fields { sign, exp, frac: quotient as u64 & F::FRAC_MASK })
}

/// `round_pack` for a result below the smallest normal number before rounding.
#[cold]
fn round_pack_tiny<F: Format>(sign: bool, biased: i32, sig: u128, env: &mut Env) -> F::Bits {
    let drop = 128 - F::PRECISION;
    let tiny = env.tininess == Tininess::Before
        || biased < 0
        || round_at(sig, drop, sign, env.rounding).0 >> F::PRECISION == 0;
    if tiny && env.flush_outputs {
        env.raise(match env.tininess {
            Tininess::Before => Flags::UF,
            Tininess::After => Flags::UF | Flags::NX,
        });
        return F::zero(sign);
    }
    let aligned = shift_right_jam(sig, (1 - biased) as u32);
    let (quotient, inexact) = round_at(aligned, drop, sign, env.rounding);
    if inexact {
        env.raise(if tiny { Flags::UF | Flags::NX } else { Flags::NX });
    }
    let exp = (quotient >> (F::PRECISION - 1)) as u32;
    F::join(Fields { sign, exp, frac: quotient as u64 & F::FRAC_MASK })
}

/// The result of an overflow: infinity or the largest finite number, whichever the direction leads to.
#[cold]
fn overflow<F: Format>(sign: bool, env: &mut Env) -> F::Bits {
    env.raise(Flags::OF | Flags::NX);
    let to_infinity = match env.rounding {
        Round::NearestEven | Round::NearestAway => true,
        Round::TowardZero | Round::ToOdd => false,
        Round::Down => sign,
        Round::Up => !sign,
    };
    if to_infinity { F::infinity(sign) } else { F::max_finite(sign) }
}
