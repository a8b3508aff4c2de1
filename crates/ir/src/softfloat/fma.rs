//! Fused multiply-add (IEEE 754-2019, 5.4.1): one rounding of `a * b + c`.

use super::arith::{add_terms, product, zero_sign};
use super::env::{Env, Flags, NanRule};
use super::format::{Fields, Format};
use super::nan;
use super::pack::{Class, round_pack, unpack, used};

/// What a fused multiply-add negates.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Negate {
    /// The product, before the addition.
    pub product: bool,
    /// The addend, before the addition.
    pub addend: bool,
    /// A result that is not a NaN, after rounding (Power `fnmadd`).
    pub result: bool,
}

impl Negate {
    /// `a * b + c`: RISC-V `fmadd`.
    pub const NONE: Negate = Negate { product: false, addend: false, result: false };
    /// `a * b - c`: RISC-V `fmsub`.
    pub const ADDEND: Negate = Negate { product: false, addend: true, result: false };
    /// `-(a * b) + c`: RISC-V `fnmsub`.
    pub const PRODUCT: Negate = Negate { product: true, addend: false, result: false };
    /// `-(a * b) - c`: RISC-V `fnmadd`.
    pub const BOTH: Negate = Negate { product: true, addend: true, result: false };
}

/// `a * b + c`, negated as told, rounded once.
pub fn mul_add<F: Format>(
    a_bits: F::Bits,
    b_bits: F::Bits,
    c_bits: F::Bits,
    negate: Negate,
    env: &mut Env,
) -> F::Bits {
    const { assert!(F::PRECISION * 2 <= 127, "the exact product must leave bit 0 of a term clear") };
    let mut a = unpack::<F>(a_bits, env);
    let b = unpack::<F>(b_bits, env);
    let mut c = unpack::<F>(c_bits, env);
    if [a, b, c].iter().any(|x| x.class == Class::Nan) {
        let no_product =
            matches!((a.class, b.class), (Class::Infinite, Class::Zero) | (Class::Zero, Class::Infinite));
        return propagate::<F>(a_bits, b_bits, c_bits, no_product, negate, env);
    }
    a.sign ^= negate.product;
    c.sign ^= negate.addend;
    let sign = a.sign ^ b.sign;
    let result = match (a.class, b.class, c.class) {
        (Class::Infinite, Class::Zero, _) | (Class::Zero, Class::Infinite, _) => {
            return nan::invalid::<F>(env);
        }
        (Class::Infinite, _, Class::Infinite) | (_, Class::Infinite, Class::Infinite) if sign != c.sign => {
            return nan::invalid::<F>(env);
        }
        (Class::Infinite, ..) | (_, Class::Infinite, _) => F::infinity(sign),
        (_, _, Class::Infinite) => F::infinity(c.sign),
        (Class::Finite, Class::Finite, Class::Finite) => add_terms::<F>(product(a, b), c.term(), env),
        (Class::Finite, Class::Finite, _) => round_pack::<F>(product(a, b), env),
        (_, _, Class::Finite) => round_pack::<F>(c.term(), env),
        _ => F::zero(zero_sign(sign, c.sign, env)),
    };
    used(env, a.subnormal || b.subnormal || c.subnormal);
    if negate.result { flip::<F>(result) } else { result }
}

/// Result with a NaN operand; `no_product` says that the product is infinity times zero, so the NaN is `c`.
#[cold]
fn propagate<F: Format>(
    a: F::Bits,
    b: F::Bits,
    c: F::Bits,
    no_product: bool,
    negate: Negate,
    env: &mut Env,
) -> F::Bits {
    // Whether inf * 0 + qNaN is invalid is the architecture's choice (IEEE 754-2019, 7.2c).
    if no_product && env.nan != NanRule::X86 {
        env.raise(Flags::NV);
        if env.nan == NanRule::Arm && !F::is_signaling(c) {
            return nan::default::<F>(env.nan);
        }
    }
    match env.nan {
        // Arm negates an operand, NaN or not, before it looks at it (Arm ARM, FMSUB); the others only a number.
        NanRule::Arm => {
            let a = if negate.product { flip::<F>(a) } else { a };
            let c = if negate.addend { flip::<F>(c) } else { c };
            nan::propagate::<F>(&[c, a, b], env)
        }
        NanRule::Power => nan::propagate::<F>(&[a, c, b], env),
        NanRule::Canonical | NanRule::X86 => nan::propagate::<F>(&[a, b, c], env),
    }
}

#[inline]
pub(super) fn flip<F: Format>(bits: F::Bits) -> F::Bits {
    let f = F::split(bits);
    F::join(Fields { sign: !f.sign, ..f })
}
