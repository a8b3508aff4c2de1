//! Addition, subtraction, multiplication, division, square root and remainder (IEEE 754-2019, 5.3.1 and 5.4.1).

use super::env::{Env, Flags, Round};
use super::format::Format;
use super::nan;
use super::pack::{Class, Term, Unpacked, round_pack, shift_right_jam, unpack, used};

/// `a + b`.
#[inline]
pub fn add<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    add_signed::<F>(a, b, false, env)
}

/// `a - b`.
#[inline]
pub fn sub<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    add_signed::<F>(a, b, true, env)
}

fn add_signed<F: Format>(a_bits: F::Bits, b_bits: F::Bits, negate_b: bool, env: &mut Env) -> F::Bits {
    let a = unpack::<F>(a_bits, env);
    let mut b = unpack::<F>(b_bits, env);
    if a.class == Class::Nan || b.class == Class::Nan {
        return nan::propagate::<F>(&[a_bits, b_bits], env);
    }
    b.sign ^= negate_b;
    used(env, a.subnormal || b.subnormal);
    match (a.class, b.class) {
        (Class::Finite, Class::Finite) => add_terms::<F>(a.term(), b.term(), env),
        (Class::Infinite, Class::Infinite) if a.sign != b.sign => nan::invalid::<F>(env),
        (Class::Infinite, _) => F::infinity(a.sign),
        (_, Class::Infinite) => F::infinity(b.sign),
        (Class::Finite, _) => round_pack::<F>(a.term(), env),
        (_, Class::Finite) => round_pack::<F>(b.term(), env),
        _ => F::zero(zero_sign(a.sign, b.sign, env)),
    }
}

/// Sign of a sum that is exactly zero, its terms having signs `a` and `b` (IEEE 754-2019, 6.3).
#[inline]
pub(super) fn zero_sign(a: bool, b: bool, env: &Env) -> bool {
    if a == b { a } else { env.rounding == Round::Down }
}

/// Sum of two non-zero numbers whose significands leave bit 0 clear.
#[inline]
pub(super) fn add_terms<F: Format>(a: Term, b: Term, env: &mut Env) -> F::Bits {
    debug_assert!(a.sig & 1 == 0 && b.sig & 1 == 0);
    let (big, small) = if a.exp >= b.exp { (a, b) } else { (b, a) };
    // One bit of headroom takes the carry. Bits are lost from the smaller term only when the exponents differ by
    // two or more; then a difference loses at most one leading bit, and the jammed bit stays below rounding.
    let x = big.sig >> 1;
    let y = shift_right_jam(small.sig >> 1, big.exp.abs_diff(small.exp));
    let (sign, sum) = if big.sign == small.sign {
        (big.sign, x + y)
    } else if x >= y {
        (big.sign, x - y)
    } else {
        (small.sign, y - x)
    };
    if sum == 0 {
        return F::zero(env.rounding == Round::Down);
    }
    round_pack::<F>(Term::normalise(sign, big.exp + 1, sum), env)
}

/// Exact product of two finite non-zero operands.
#[inline]
pub(super) fn product(a: Unpacked, b: Unpacked) -> Term {
    Term::normalise(a.sign ^ b.sign, a.exp + b.exp + 1, u128::from(a.sig) * u128::from(b.sig))
}

/// `a * b`.
pub fn mul<F: Format>(a_bits: F::Bits, b_bits: F::Bits, env: &mut Env) -> F::Bits {
    let a = unpack::<F>(a_bits, env);
    let b = unpack::<F>(b_bits, env);
    if a.class == Class::Nan || b.class == Class::Nan {
        return nan::propagate::<F>(&[a_bits, b_bits], env);
    }
    used(env, a.subnormal || b.subnormal);
    let sign = a.sign ^ b.sign;
    match (a.class, b.class) {
        (Class::Finite, Class::Finite) => round_pack::<F>(product(a, b), env),
        (Class::Infinite, Class::Zero) | (Class::Zero, Class::Infinite) => nan::invalid::<F>(env),
        (Class::Infinite, _) | (_, Class::Infinite) => F::infinity(sign),
        _ => F::zero(sign),
    }
}

/// `a / b`.
pub fn div<F: Format>(a_bits: F::Bits, b_bits: F::Bits, env: &mut Env) -> F::Bits {
    let a = unpack::<F>(a_bits, env);
    let b = unpack::<F>(b_bits, env);
    if a.class == Class::Nan || b.class == Class::Nan {
        return nan::propagate::<F>(&[a_bits, b_bits], env);
    }
    let sign = a.sign ^ b.sign;
    // A division by zero outranks a subnormal dividend (Intel SDM volume 1, 4.9.2).
    used(env, (a.subnormal || b.subnormal) && b.class != Class::Zero);
    match (a.class, b.class) {
        (Class::Finite, Class::Finite) => round_pack::<F>(quotient::<F>(a, b), env),
        (Class::Infinite, Class::Infinite) | (Class::Zero, Class::Zero) => nan::invalid::<F>(env),
        (Class::Infinite, _) => F::infinity(sign),
        (_, Class::Zero) => {
            env.raise(Flags::DZ);
            F::infinity(sign)
        }
        _ => F::zero(sign),
    }
}

/// Quotient of two finite non-zero operands to at least 63 bits, jammed.
#[inline]
fn quotient<F: Format>(a: Unpacked, b: Unpacked) -> Term {
    const { assert!(F::PRECISION <= 61, "63 quotient bits must hold the result, a round bit and a sticky bit") };
    let dividend = u128::from(a.sig) << 63;
    let divisor = u128::from(b.sig);
    let quotient = dividend / divisor;
    let remainder = dividend - quotient * divisor;
    Term::normalise(a.sign ^ b.sign, a.exp - b.exp, quotient << 64 | u128::from(remainder != 0))
}

/// The square root of `a`.
pub fn sqrt<F: Format>(a_bits: F::Bits, env: &mut Env) -> F::Bits {
    const { assert!(F::PRECISION <= 62, "64 root bits must hold the result, a round bit and a sticky bit") };
    let a = unpack::<F>(a_bits, env);
    match a.class {
        Class::Nan => return nan::propagate::<F>(&[a_bits], env),
        Class::Zero => return F::zero(a.sign),
        _ if a.sign => return nan::invalid::<F>(env),
        Class::Infinite => return F::infinity(false),
        Class::Finite => used(env, a.subnormal),
    }
    // Scaled so that the exponent is even and the root of the integer has exactly 64 bits.
    let radicand = u128::from(a.sig) << if a.exp & 1 == 0 { 63 } else { 64 };
    let root = radicand.isqrt();
    let sticky = u128::from(root * root != radicand);
    round_pack::<F>(Term { sign: false, exp: a.exp >> 1, sig: root << 64 | sticky }, env)
}

/// IEEE remainder: `a - b * n` with `n` the integer nearest `a / b`, ties to even. Always exact.
pub fn rem<F: Format>(a_bits: F::Bits, b_bits: F::Bits, env: &mut Env) -> F::Bits {
    let a = unpack::<F>(a_bits, env);
    let b = unpack::<F>(b_bits, env);
    if a.class == Class::Nan || b.class == Class::Nan {
        return nan::propagate::<F>(&[a_bits, b_bits], env);
    }
    if a.class == Class::Infinite || b.class == Class::Zero {
        return nan::invalid::<F>(env);
    }
    used(env, a.subnormal || b.subnormal);
    if a.class == Class::Zero {
        return F::zero(a.sign);
    }
    if b.class == Class::Infinite || a.exp < b.exp - 1 {
        return round_pack::<F>(a.term(), env);
    }
    // Both in units of 2^(unit - 63); the dividend may still be `steps` binary places higher.
    let unit = a.exp.min(b.exp);
    let divisor = u128::from(b.sig) << (b.exp - unit);
    let mut steps = (a.exp - unit) as u32;
    let mut odd = (u128::from(a.sig) / divisor) & 1 != 0;
    let mut rest = u128::from(a.sig) % divisor;
    while steps > 0 {
        let shift = steps.min(63);
        odd = ((rest << shift) / divisor) & 1 != 0;
        rest = (rest << shift) % divisor;
        steps -= shift;
    }
    let mut sign = a.sign;
    if rest * 2 > divisor || rest * 2 == divisor && odd {
        rest = divisor - rest;
        sign = !sign;
    }
    if rest == 0 {
        return F::zero(a.sign);
    }
    round_pack::<F>(Term::normalise(sign, unit + 64, rest), env)
}
