//! Binary32 and binary64 operations that have opcodes: on the host's FPU where its answer is known to be right, flags
//! included (see [`softfloat::fast`]), else in software. For blocks that flush nothing.

use crate::{
    eval,
    op::{FmaOp, FpBinOp, FpCond, FpOverflow, Op},
    softfloat::{
        self, Carried, Env, F32, F64, Flags, Fmt, IntRule, IntType, Negate, Round, fast, fast::Host,
    },
    state::CpuHeader,
    types::{FpFormat, FpModel, Rounding, Type},
};

/// What to compute: bits 15:8 of the immediate. Bits 7:0 are the third operand's unit, bits 23:16 the [`Rounding`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Add,
    Sub,
    Mul,
    Div,
    Sqrt,
    MulAdd,
    MulSub,
    NegMulAdd,
    NegMulSub,
    Eq,
    Lt,
    Le,
    EqSignalling,
    LtSignalling,
    LeSignalling,
    FromI32,
    FromU32,
    FromI64,
    FromU64,
    /// Conversions to integers saturate as RISC-V's do.
    ToI32,
    ToU32,
    ToI64,
    ToU64,
    /// To the other of the two formats.
    Convert,
}

const KINDS: [Kind; 24] = [
    Kind::Add,
    Kind::Sub,
    Kind::Mul,
    Kind::Div,
    Kind::Sqrt,
    Kind::MulAdd,
    Kind::MulSub,
    Kind::NegMulAdd,
    Kind::NegMulSub,
    Kind::Eq,
    Kind::Lt,
    Kind::Le,
    Kind::EqSignalling,
    Kind::LtSignalling,
    Kind::LeSignalling,
    Kind::FromI32,
    Kind::FromU32,
    Kind::FromI64,
    Kind::FromU64,
    Kind::ToI32,
    Kind::ToU32,
    Kind::ToI64,
    Kind::ToU64,
    Kind::Convert,
];

const ROUNDINGS: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::TowardZero,
    Rounding::Down,
    Rounding::Up,
    Rounding::NearestAway,
    Rounding::Dynamic,
];

/// The format and immediate of an operation that has an opcode.
pub(super) fn encode(op: &Op, model: FpModel) -> Option<(FpFormat, i32)> {
    let (fmt, rounding, kind) = match *op {
        Op::FpBinary { op, fmt, rounding, .. } => (
            fmt,
            rounding,
            match op {
                FpBinOp::Add => Kind::Add,
                FpBinOp::Sub => Kind::Sub,
                FpBinOp::Mul => Kind::Mul,
                FpBinOp::Div => Kind::Div,
                _ => return None,
            },
        ),
        Op::FpSqrt { fmt, rounding, .. } => (fmt, rounding, Kind::Sqrt),
        Op::FpFma { op, fmt, rounding, .. } => (
            fmt,
            rounding,
            match op {
                FmaOp::MulAdd => Kind::MulAdd,
                FmaOp::MulSub => Kind::MulSub,
                FmaOp::NegMulAdd => Kind::NegMulAdd,
                FmaOp::NegMulSub => Kind::NegMulSub,
            },
        ),
        Op::FpCompare { cond, fmt, signalling, .. } => (
            fmt,
            Rounding::NearestEven,
            match (cond, signalling) {
                (FpCond::Eq, false) => Kind::Eq,
                (FpCond::Lt, false) => Kind::Lt,
                (FpCond::Le, false) => Kind::Le,
                (FpCond::Eq, true) => Kind::EqSignalling,
                (FpCond::Lt, true) => Kind::LtSignalling,
                (FpCond::Le, true) => Kind::LeSignalling,
                (FpCond::Unordered, _) => return None,
            },
        ),
        Op::FpFromInt { fmt, from, signed, rounding, .. } => (
            fmt,
            rounding,
            match (from, signed) {
                (Type::I32, true) => Kind::FromI32,
                (Type::I32, false) => Kind::FromU32,
                (Type::I64, true) => Kind::FromI64,
                (Type::I64, false) => Kind::FromU64,
                _ => return None,
            },
        ),
        Op::FpToInt { fmt, to, signed, overflow: FpOverflow::SaturateNanMax, rounding, .. } => (
            fmt,
            rounding,
            match (to, signed) {
                (Type::I32, true) => Kind::ToI32,
                (Type::I32, false) => Kind::ToU32,
                (Type::I64, true) => Kind::ToI64,
                (Type::I64, false) => Kind::ToU64,
                _ => return None,
            },
        ),
        Op::FpConvert { from, to, rounding, .. }
            if from != to && matches!(to, FpFormat::F32 | FpFormat::F64) =>
        {
            (from, rounding, Kind::Convert)
        }
        _ => return None,
    };
    let host = matches!(fmt, FpFormat::F32 | FpFormat::F64);
    (host && !model.flush_inputs && !model.flush_outputs)
        .then_some((fmt, i32::from(kind as u8) << 8 | i32::from(rounding as u8) << 16))
}

/// A host format as this module needs it.
pub(super) trait Number: Host + Carried {
    const FMT: Fmt;
    const OTHER: Fmt;
    /// The value in binary64, exactly.
    fn value(bits: Self::Bits) -> f64;
    /// The nearest number.
    fn from_i128(value: i128) -> u64;
    /// The number in the other format, if finding it raises nothing but, where it rounds, what `inexact` allows.
    fn converted(bits: Self::Bits, inexact: bool) -> Option<u64>;
}

impl Number for F64 {
    const FMT: Fmt = Fmt::F64;
    const OTHER: Fmt = Fmt::F32;
    fn value(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    fn from_i128(value: i128) -> u64 {
        (value as f64).to_bits()
    }
    fn converted(bits: u64, inexact: bool) -> Option<u64> {
        let narrow = f64::from_bits(bits) as f32;
        let exact = f64::from(narrow).to_bits() == bits;
        // Exact results may be subnormal; rounded ones must be clear of underflow and overflow.
        let settled = narrow.is_finite() && narrow.abs() > f32::MIN_POSITIVE;
        (exact && narrow.is_finite() || inexact && settled).then(|| narrow.to_bits().into())
    }
}

impl Number for F32 {
    const FMT: Fmt = Fmt::F32;
    const OTHER: Fmt = Fmt::F64;
    fn value(bits: u32) -> f64 {
        f32::from_bits(bits).into()
    }
    fn from_i128(value: i128) -> u64 {
        (value as f32).to_bits().into()
    }
    fn converted(bits: u32, _: bool) -> Option<u64> {
        let value = f32::from_bits(bits);
        (value.is_normal() || value == 0.0).then(|| f64::from(value).to_bits())
    }
}

/// Computes what the immediate says from `[a, b, c]`, raising flags in `header`.
#[inline(always)]
pub(super) fn compute<F: Number>(
    imm: i32,
    operands: [u64; 3],
    model: FpModel,
    header: &mut CpuHeader,
) -> u64 {
    let kind = KINDS[(imm >> 8) as u8 as usize % KINDS.len()];
    let rounding = ROUNDINGS[(imm >> 16) as u8 as usize % ROUNDINGS.len()];
    let mut env = eval::fp_env(model, rounding, header.rounding, header.fp_flags);
    let [a, b, c] = operands.map(F::low);
    let fma = |negate, env: &mut Env| F::wide(fast::mul_add::<F>(a, b, c, negate, env));
    let value = match kind {
        Kind::Add => F::wide(fast::add::<F>(a, b, &mut env)),
        Kind::Sub => F::wide(fast::sub::<F>(a, b, &mut env)),
        Kind::Mul => F::wide(fast::mul::<F>(a, b, &mut env)),
        Kind::Div => F::wide(fast::div::<F>(a, b, &mut env)),
        Kind::Sqrt => F::wide(fast::sqrt::<F>(a, &mut env)),
        Kind::MulAdd => fma(Negate::NONE, &mut env),
        Kind::MulSub => fma(Negate::ADDEND, &mut env),
        Kind::NegMulAdd => fma(Negate::PRODUCT, &mut env),
        Kind::NegMulSub => fma(Negate::BOTH, &mut env),
        Kind::Eq => compare::<F>(FpCond::Eq, false, a, b, &mut env),
        Kind::Lt => compare::<F>(FpCond::Lt, false, a, b, &mut env),
        Kind::Le => compare::<F>(FpCond::Le, false, a, b, &mut env),
        Kind::EqSignalling => compare::<F>(FpCond::Eq, true, a, b, &mut env),
        Kind::LtSignalling => compare::<F>(FpCond::Lt, true, a, b, &mut env),
        Kind::LeSignalling => compare::<F>(FpCond::Le, true, a, b, &mut env),
        Kind::FromI32 => from_int::<F>((operands[0] as i32).into(), &mut env),
        Kind::FromU32 => from_int::<F>((operands[0] as u32).into(), &mut env),
        Kind::FromI64 => from_int::<F>((operands[0] as i64).into(), &mut env),
        Kind::FromU64 => from_int::<F>(operands[0].into(), &mut env),
        Kind::ToI32 => to_int::<F>((Type::I32, true), a, &mut env),
        Kind::ToU32 => to_int::<F>((Type::I32, false), a, &mut env),
        Kind::ToI64 => to_int::<F>((Type::I64, true), a, &mut env),
        Kind::ToU64 => to_int::<F>((Type::I64, false), a, &mut env),
        Kind::Convert => convert::<F>(a, &mut env),
    };
    header.fp_flags = env.flags.bits();
    value
}

/// Has rounding to nearest no flag left to raise?
fn may_round(env: &Env) -> bool {
    env.flags.contains(Flags::NX) && env.rounding == Round::NearestEven
}

fn compare<F: Number>(cond: FpCond, signalling: bool, a: F::Bits, b: F::Bits, env: &mut Env) -> u64 {
    let (x, y) = (F::value(a), F::value(b));
    // Subnormal operands raise a flag of their own.
    let plain = |v: f64, bits| v == 0.0 || !F::is_nan(bits) && F::magnitude(bits) >> (F::PRECISION - 1) != 0;
    if plain(x, a) && plain(y, b) {
        return match cond {
            FpCond::Eq => x == y,
            FpCond::Lt => x < y,
            _ => x <= y,
        }
        .into();
    }
    eval::fp_compare(cond, F::FMT, signalling, F::wide(a), F::wide(b), env).into()
}

fn from_int<F: Number>(value: i128, env: &mut Env) -> u64 {
    let exact = value.unsigned_abs() >> F::PRECISION == 0;
    if exact || may_round(env) {
        return F::from_i128(value);
    }
    let int = if value < 0 { softfloat::IntType::I64 } else { softfloat::IntType::U64 };
    softfloat::from_int(F::FMT, value as u64, int, env)
}

fn to_int<F: Number>((to, signed): (Type, bool), a: F::Bits, env: &mut Env) -> u64 {
    let value = F::value(a);
    let limit = if signed { 1u128 << (to.bits() - 1) } else { 1u128 << to.bits() } as f64;
    let lowest = if signed { -limit } else { 0.0 };
    if value >= lowest && value < limit {
        let whole = value.trunc();
        let allowed = env.rounding == Round::TowardZero && env.flags.contains(Flags::NX);
        let subnormal = value != 0.0 && F::magnitude(a) >> (F::PRECISION - 1) == 0;
        if whole == value || allowed && !subnormal {
            let int = if signed { whole as i64 as u64 } else { whole as u64 };
            return int & to.mask();
        }
    }
    let int = match (to, signed) {
        (Type::I64, true) => IntType::I64,
        (Type::I64, false) => IntType::U64,
        (_, true) => IntType::I32,
        (_, false) => IntType::U32,
    };
    softfloat::to_int(F::FMT, F::wide(a), int, env.rounding, IntRule::RiscV, env) & to.mask()
}

fn convert<F: Number>(a: F::Bits, env: &mut Env) -> u64 {
    match F::converted(a, may_round(env)) {
        Some(bits) => bits,
        None => softfloat::convert(F::FMT, F::OTHER, F::wide(a), env),
    }
}
