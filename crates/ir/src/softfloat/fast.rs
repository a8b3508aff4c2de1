//! Arithmetic on the host's own FPU where its answer is known to be right, flags included.
//!
//! The idea is QEMU's "hardfloat" (Cota and Carloni, VEE 2019). Host code runs with nearest-even rounding and no
//! flushing. When the guest does too and its sticky NX is already set, the only flags left to account for are the
//! rare ones, and a result strictly between the smallest normal number and infinity raises none of those. Anything
//! else goes to the software path. Sums need less: below the smallest normal number they are exact.

use std::ops::{Add, Div, Mul, Sub};

use super::arith;
use super::env::{Env, Flags, Round};
use super::fma::{self, Negate};
use super::format::{F32, F64, Format};

/// A format the host computes in.
pub trait Host: Format {
    /// The host's type.
    type Float: Copy
        + Add<Output = Self::Float>
        + Sub<Output = Self::Float>
        + Mul<Output = Self::Float>
        + Div<Output = Self::Float>;

    /// Reinterprets encoded bits.
    fn float(bits: Self::Bits) -> Self::Float;
    /// Reinterprets a host number.
    fn bits(float: Self::Float) -> Self::Bits;
    /// Clears the sign and returns the rest: magnitudes order as integers.
    fn magnitude(bits: Self::Bits) -> u64;
    /// Correctly rounded square root.
    fn sqrt(a: Self::Float) -> Self::Float;
    /// Correctly rounded fused multiply-add, `None` where the host has no trustworthy one. Operands are zero or
    /// normal; the result may be anything if it is not normal.
    fn mul_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Option<Self::Float>;
}

impl Host for F32 {
    type Float = f32;

    #[inline]
    fn float(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
    #[inline]
    fn bits(float: f32) -> u32 {
        float.to_bits()
    }
    #[inline]
    fn magnitude(bits: u32) -> u64 {
        u64::from(bits & 0x7fff_ffff)
    }
    #[inline]
    fn sqrt(a: f32) -> f32 {
        a.sqrt()
    }

    /// By way of binary64: the product is exact there, and rounding the sum to odd keeps the second rounding
    /// innocent, 53 digits being more than 24 + 2 (Boldo and Melquiond, IEEE TC 57(4), 2008).
    #[inline]
    fn mul_add(a: f32, b: f32, c: f32) -> Option<f32> {
        let product = f64::from(a) * f64::from(b);
        let c = f64::from(c);
        let sum = product + c;
        // Knuth's TwoSum: the exact error of `sum`.
        let c_seen = sum - product;
        let error = (product - (sum - c_seen)) + (c - c_seen);
        let bits = sum.to_bits();
        if error == 0.0 || bits & 1 != 0 {
            return Some(sum as f32);
        }
        let outward = (error > 0.0) == (sum > 0.0);
        Some(f64::from_bits(if outward { bits + 1 } else { bits - 1 }) as f32)
    }
}

/// Whether `f64::mul_add` is one instruction or a C library known to round it correctly.
const HOST_FMA: bool = cfg!(any(
    target_feature = "fma",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "powerpc64",
    all(target_arch = "x86_64", any(target_env = "gnu", target_vendor = "apple")),
));

impl Host for F64 {
    type Float = f64;

    #[inline]
    fn float(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    #[inline]
    fn bits(float: f64) -> u64 {
        float.to_bits()
    }
    #[inline]
    fn magnitude(bits: u64) -> u64 {
        bits & !(1 << 63)
    }
    #[inline]
    fn sqrt(a: f64) -> f64 {
        a.sqrt()
    }
    #[inline]
    fn mul_add(a: f64, b: f64, c: f64) -> Option<f64> {
        HOST_FMA.then(|| a.mul_add(b, c))
    }
}

/// Magnitude of the smallest normal number.
#[inline]
const fn min_normal<F: Format>() -> u64 {
    1 << (F::PRECISION - 1)
}

/// Magnitude of infinity.
#[inline]
const fn infinity<F: Format>() -> u64 {
    (F::EXP_MAX as u64) << (F::PRECISION - 1)
}

#[inline]
fn eligible(env: &Env) -> bool {
    env.flags.contains(Flags::NX)
        && env.rounding == Round::NearestEven
        && !env.flush_inputs
        && !env.flush_outputs
}

/// Zero or normal.
#[inline]
fn plain<F: Host>(bits: F::Bits) -> bool {
    let magnitude = F::magnitude(bits);
    magnitude == 0 || normal::<F>(magnitude)
}

#[inline]
fn normal<F: Host>(magnitude: u64) -> bool {
    magnitude.wrapping_sub(min_normal::<F>()) < infinity::<F>() - min_normal::<F>()
}

/// A result that neither overflowed nor came near underflow, by either definition of tininess.
#[inline]
fn settled<F: Host>(bits: F::Bits) -> bool {
    let magnitude = F::magnitude(bits);
    min_normal::<F>() < magnitude && magnitude < infinity::<F>()
}

/// `a + b`.
#[inline]
pub fn add<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    if eligible(env) && plain::<F>(a) && plain::<F>(b) {
        let sum = F::bits(F::float(a) + F::float(b));
        if F::magnitude(sum) < infinity::<F>() {
            return sum;
        }
    }
    arith::add::<F>(a, b, env)
}

/// `a - b`.
#[inline]
pub fn sub<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    if eligible(env) && plain::<F>(a) && plain::<F>(b) {
        let difference = F::bits(F::float(a) - F::float(b));
        if F::magnitude(difference) < infinity::<F>() {
            return difference;
        }
    }
    arith::sub::<F>(a, b, env)
}

/// `a * b`.
#[inline]
pub fn mul<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    if eligible(env) && plain::<F>(a) && plain::<F>(b) {
        let product = F::bits(F::float(a) * F::float(b));
        if settled::<F>(product) || F::magnitude(a) == 0 || F::magnitude(b) == 0 {
            return product;
        }
    }
    arith::mul::<F>(a, b, env)
}

/// `a / b`.
#[inline]
pub fn div<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    if eligible(env) && plain::<F>(a) && normal::<F>(F::magnitude(b)) {
        let quotient = F::bits(F::float(a) / F::float(b));
        if settled::<F>(quotient) || F::magnitude(a) == 0 {
            return quotient;
        }
    }
    arith::div::<F>(a, b, env)
}

/// The square root of `a`. That of a positive normal number is normal.
#[inline]
pub fn sqrt<F: Host>(a: F::Bits, env: &mut Env) -> F::Bits {
    if eligible(env) && normal::<F>(F::magnitude(a)) && !F::split(a).sign {
        return F::bits(F::sqrt(F::float(a)));
    }
    arith::sqrt::<F>(a, env)
}

/// `a * b + c`, negated as told, rounded once.
#[inline]
pub fn mul_add<F: Host>(a: F::Bits, b: F::Bits, c: F::Bits, negate: Negate, env: &mut Env) -> F::Bits {
    if eligible(env) && !negate.result && plain::<F>(a) && plain::<F>(b) && plain::<F>(c) {
        let x = if negate.product { fma::flip::<F>(a) } else { a };
        let z = if negate.addend { fma::flip::<F>(c) } else { c };
        if let Some(sum) = F::mul_add(F::float(x), F::float(b), F::float(z)).map(F::bits)
            && settled::<F>(sum)
        {
            return sum;
        }
    }
    fma::mul_add::<F>(a, b, c, negate, env)
}
