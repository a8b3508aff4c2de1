//! Comparison, minimum and maximum, classification (IEEE 754-2019, 5.6.1, 5.7.2, 5.11, 9.6).

use std::cmp::Ordering;

use super::env::{Env, Flags};
use super::format::{Fields, Format};
use super::nan;
use super::pack::{read, used};

/// The four mutually exclusive outcomes of a comparison.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `a < b`.
    Less,
    /// `a = b`; zeros are equal whatever their signs.
    Equal,
    /// `a > b`.
    Greater,
    /// At least one operand is a NaN.
    Unordered,
}

/// Which minimum or maximum.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum MinMax {
    /// minimumNumber of IEEE 754-2019: any NaN loses against a number. RISC-V `fmin`, `fmax`.
    Number2019,
    /// minimum of IEEE 754-2019: any NaN wins. RISC-V `fminm`, `fmaxm`; Arm FMIN, FMAX.
    Propagate,
    /// minNum of IEEE 754-2008: a quiet NaN loses against a number, a signalling one wins. Arm FMINNM, FMAXNM.
    ArmNumber,
    /// `a < b ? a : b`, so the second operand if either is a NaN (which is invalid) or both are zeros. MINSS, MAXSS.
    X86,
}

/// Compares; NV only for a signalling NaN.
pub fn compare_quiet<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> Relation {
    compare::<F>(a, b, false, env)
}

/// Compares; NV for any NaN.
pub fn compare_signaling<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> Relation {
    compare::<F>(a, b, true, env)
}

fn compare<F: Format>(a: F::Bits, b: F::Bits, signaling: bool, env: &mut Env) -> Relation {
    let (x, y) = (read::<F>(a, env), read::<F>(b, env));
    if F::is_nan(a) || F::is_nan(b) {
        if signaling || F::is_signaling(a) || F::is_signaling(b) {
            env.raise(Flags::NV);
        }
        return Relation::Unordered;
    }
    used(env, is_subnormal(x) || is_subnormal(y));
    match order(x, y) {
        _ if is_zero(x) && is_zero(y) => Relation::Equal,
        Ordering::Less => Relation::Less,
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Greater,
    }
}

/// The lesser of `a` and `b`; -0 is less than +0 except for [`MinMax::X86`].
pub fn min<F: Format>(a: F::Bits, b: F::Bits, kind: MinMax, env: &mut Env) -> F::Bits {
    select::<F>(a, b, Ordering::Less, kind, env)
}

/// The greater of `a` and `b`; +0 is greater than -0 except for [`MinMax::X86`].
pub fn max<F: Format>(a: F::Bits, b: F::Bits, kind: MinMax, env: &mut Env) -> F::Bits {
    select::<F>(a, b, Ordering::Greater, kind, env)
}

fn select<F: Format>(a: F::Bits, b: F::Bits, wanted: Ordering, kind: MinMax, env: &mut Env) -> F::Bits {
    let (x, y) = (read::<F>(a, env), read::<F>(b, env));
    if F::is_nan(a) || F::is_nan(b) {
        return select_nan::<F>(a, b, kind, env);
    }
    used(env, is_subnormal(x) || is_subnormal(y));
    let first = match kind {
        MinMax::X86 => order(x, y) == wanted && !(is_zero(x) && is_zero(y)),
        _ => order(x, y) == wanted,
    };
    F::join(if first { x } else { y })
}

/// Minimum or maximum with at least one NaN. The operands have been read once, for their flags, already.
#[cold]
fn select_nan<F: Format>(a: F::Bits, b: F::Bits, kind: MinMax, env: &mut Env) -> F::Bits {
    let signaling = F::is_signaling(a) || F::is_signaling(b);
    let number = match (F::is_nan(a), F::is_nan(b)) {
        (true, false) => Some(b),
        (false, true) => Some(a),
        _ => None,
    };
    match (kind, number) {
        (MinMax::Number2019, Some(number)) => {
            if signaling {
                env.raise(Flags::NV);
            }
            F::join(read::<F>(number, env))
        }
        (MinMax::ArmNumber, Some(number)) if !signaling => F::join(read::<F>(number, env)),
        (MinMax::X86, _) => {
            env.raise(Flags::NV);
            F::join(read::<F>(b, env))
        }
        _ => nan::propagate::<F>(&[a, b], env),
    }
}

/// RISC-V `fclass`: one bit of ten set. Bits 0 to 9 are -inf, negative normal, negative subnormal,
/// -0, +0, positive subnormal, positive normal, +inf, signalling NaN, quiet NaN.
pub fn classify<F: Format>(a: F::Bits) -> u16 {
    let f = F::split(a);
    let bit = match (f.exp, f.frac) {
        (0, 0) => 4,
        (0, _) => 5,
        (exp, _) if exp != F::EXP_MAX => 6,
        (_, 0) => 7,
        (_, frac) => return if frac & F::QUIET_BIT == 0 { 1 << 8 } else { 1 << 9 },
    };
    // The negative classes mirror the positive ones.
    1 << if f.sign { 7 - bit } else { bit }
}

/// Total order of two numbers, -0 before +0.
fn order(a: Fields, b: Fields) -> Ordering {
    let magnitude = |f: Fields| (f.exp, f.frac);
    match (a.sign, b.sign) {
        (false, false) => magnitude(a).cmp(&magnitude(b)),
        (true, true) => magnitude(b).cmp(&magnitude(a)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

fn is_zero(f: Fields) -> bool {
    f.exp == 0 && f.frac == 0
}

fn is_subnormal(f: Fields) -> bool {
    f.exp == 0 && f.frac != 0
}
