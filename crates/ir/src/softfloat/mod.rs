//! Bit-exact IEEE 754-2019 arithmetic on encoded numbers, with the choices each guest architecture makes.
//!
//! Every operation exists twice. The functions here take a [`Fmt`] and numbers in the low bits of a `u64` (bits
//! above the format's width are ignored on entry and zero on return); they use the host's FPU where that cannot
//! be told from the software path. The modules hold that path, generic over [`Format`], for any host.
//!
//! ```
//! use isomer_ir::softfloat::{self, Env, Flags, Fmt, Round};
//!
//! let mut env = Env::riscv(Round::Up);
//! let third = softfloat::div(Fmt::F32, 0x3f80_0000, 0x4040_0000, &mut env);
//! assert_eq!(third, 0x3eaa_aaab);
//! assert_eq!(env.flags, Flags::NX);
//! ```

pub mod arith;
pub mod compare;
pub mod convert;
mod env;
pub mod fast;
pub mod fma;
mod format;
pub mod nan;
mod pack;
#[cfg(test)]
mod tests;

pub use compare::{MinMax, Relation};
pub use convert::{IntRule, IntType};
pub use env::{Env, Flags, NanRule, Round, Tininess};
pub use fma::Negate;
pub use format::{Bf16, Carried, F16, F32, F64, Fields, Format};

/// A format chosen at run time.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fmt {
    /// binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// binary32.
    F32,
    /// binary64.
    F64,
}

impl Fmt {
    /// Width of an encoded number in bits.
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Fmt::F16 | Fmt::Bf16 => 16,
            Fmt::F32 => 32,
            Fmt::F64 => 64,
        }
    }

    /// The sign bit; exclusive-or with it negates.
    #[inline]
    pub const fn sign_bit(self) -> u64 {
        1 << (self.bits() - 1)
    }
}

/// Evaluates an expression with `F` standing for the format `$fmt` names; `host` adds a separate expression for
/// the formats the host computes in.
macro_rules! with_format {
    ($fmt:expr, $body:expr) => { with_format!($fmt, $body, host $body) };
    ($fmt:expr, $body:expr, host $host:expr) => {
        match $fmt {
            Fmt::F16 => { type F = F16; $body }
            Fmt::Bf16 => { type F = Bf16; $body }
            Fmt::F32 => { type F = F32; $host }
            Fmt::F64 => { type F = F64; $host }
        }
    };
}

macro_rules! binary_operations {
    ($($name:ident $doc:literal)*) => {$(
        #[doc = $doc]
        #[inline]
        pub fn $name(fmt: Fmt, a: u64, b: u64, env: &mut Env) -> u64 {
            with_format!(
                fmt,
                F::wide(arith::$name::<F>(F::low(a), F::low(b), env)),
                host F::wide(fast::$name::<F>(F::low(a), F::low(b), env))
            )
        }
    )*};
}

binary_operations! {
    add "`a + b`."
    sub "`a - b`."
    mul "`a * b`."
    div "`a / b`."
}

/// The square root of `a`.
#[inline]
pub fn sqrt(fmt: Fmt, a: u64, env: &mut Env) -> u64 {
    with_format!(
        fmt,
        F::wide(arith::sqrt::<F>(F::low(a), env)),
        host F::wide(fast::sqrt::<F>(F::low(a), env))
    )
}

/// `a * b + c`, negated as told, rounded once. RISC-V `fmadd`, `fmsub`, `fnmsub`, `fnmadd` are the constants of
/// [`Negate`] in that order: `NONE`, `ADDEND`, `PRODUCT`, `BOTH`.
#[inline]
pub fn mul_add(fmt: Fmt, a: u64, b: u64, c: u64, negate: Negate, env: &mut Env) -> u64 {
    with_format!(
        fmt,
        F::wide(fma::mul_add::<F>(F::low(a), F::low(b), F::low(c), negate, env)),
        host F::wide(fast::mul_add::<F>(F::low(a), F::low(b), F::low(c), negate, env))
    )
}

/// IEEE remainder of `a` by `b`.
pub fn rem(fmt: Fmt, a: u64, b: u64, env: &mut Env) -> u64 {
    with_format!(fmt, F::wide(arith::rem::<F>(F::low(a), F::low(b), env)))
}

/// The lesser of `a` and `b`.
pub fn min(fmt: Fmt, a: u64, b: u64, kind: MinMax, env: &mut Env) -> u64 {
    with_format!(fmt, F::wide(compare::min::<F>(F::low(a), F::low(b), kind, env)))
}

/// The greater of `a` and `b`.
pub fn max(fmt: Fmt, a: u64, b: u64, kind: MinMax, env: &mut Env) -> u64 {
    with_format!(fmt, F::wide(compare::max::<F>(F::low(a), F::low(b), kind, env)))
}

/// Compares; NV only for a signalling NaN. RISC-V `feq`, `fltq`, `fleq`.
pub fn compare_quiet(fmt: Fmt, a: u64, b: u64, env: &mut Env) -> Relation {
    with_format!(fmt, compare::compare_quiet::<F>(F::low(a), F::low(b), env))
}

/// Compares; NV for any NaN. RISC-V `flt`, `fle`.
pub fn compare_signaling(fmt: Fmt, a: u64, b: u64, env: &mut Env) -> Relation {
    with_format!(fmt, compare::compare_signaling::<F>(F::low(a), F::low(b), env))
}

/// Converts `a` from format `from` to format `to`; the same format quiets a NaN and changes nothing else.
pub fn convert(from: Fmt, to: Fmt, a: u64, env: &mut Env) -> u64 {
    with_format!(from, convert_to::<F>(to, F::low(a), env))
}

fn convert_to<A: Format>(to: Fmt, a: A::Bits, env: &mut Env) -> u64 {
    with_format!(to, F::wide(convert::convert::<A, F>(a, env)))
}

/// Converts to an integer in direction `round` (not `env.rounding`). NX if rounded; if invalid NV alone, and
/// `rule` chooses the result. Signed results are sign-extended to 64 bits, unsigned ones zero-extended.
pub fn to_int(fmt: Fmt, a: u64, int: IntType, round: Round, rule: IntRule, env: &mut Env) -> u64 {
    with_format!(fmt, convert::to_int::<F>(F::low(a), int, round, rule, env))
}

/// Truncates modulo 2^32 with the flags of a conversion to a signed 32-bit integer: RISC-V `fcvtmod.w.d`, Arm
/// FJCVTZS.
pub fn to_int_modulo32(fmt: Fmt, a: u64, env: &mut Env) -> u32 {
    with_format!(fmt, convert::to_int_modulo32::<F>(F::low(a), env))
}

/// Converts an integer, of which a 32-bit type uses the low half.
pub fn from_int(fmt: Fmt, value: u64, int: IntType, env: &mut Env) -> u64 {
    with_format!(fmt, F::wide(convert::from_int::<F>(value, int, env)))
}

/// Rounds to an integral number in direction `round` (not `env.rounding`); `inexact` says whether a change raises
/// NX (RISC-V `froundnx`) or nothing (`fround`).
pub fn round_to_integral(fmt: Fmt, a: u64, round: Round, inexact: bool, env: &mut Env) -> u64 {
    with_format!(fmt, F::wide(convert::round_to_integral::<F>(F::low(a), round, inexact, env)))
}

/// RISC-V `fclass`: one bit of ten set.
pub fn classify(fmt: Fmt, a: u64) -> u16 {
    with_format!(fmt, compare::classify::<F>(F::low(a)))
}

/// Whether `a` is a NaN.
#[inline]
pub fn is_nan(fmt: Fmt, a: u64) -> bool {
    with_format!(fmt, F::is_nan(F::low(a)))
}

/// Whether `a` is a signalling NaN.
#[inline]
pub fn is_signaling_nan(fmt: Fmt, a: u64) -> bool {
    with_format!(fmt, F::is_signaling(F::low(a)))
}

/// The default NaN of `rule`.
#[inline]
pub fn default_nan(fmt: Fmt, rule: NanRule) -> u64 {
    with_format!(fmt, F::wide(nan::default::<F>(rule)))
}
