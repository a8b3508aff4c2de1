//! Random operands against rustc_apfloat, and against the host's FPU where that has no answer.

use proptest::prelude::*;
use rustc_apfloat::ieee::{BFloat, Double, Half, Single};
use rustc_apfloat::{Float, FloatConvert, Status, StatusAnd};

use super::riscv;
use crate::softfloat::{
    self as sf, Bf16, Carried, Env, F16, F32, F64, Flags, Fmt, Format, IntRule, IntType, NanRule, Negate,
    Round, Tininess, arith, fma,
};

/// A format and rustc_apfloat's of the same.
trait Oracle: Carried {
    const FMT: Fmt;
    type Float: Float;

    fn oracle(bits: u64) -> Self::Float {
        Self::Float::from_bits(u128::from(bits))
    }
}

impl Oracle for F16 {
    const FMT: Fmt = Fmt::F16;
    type Float = Half;
}
impl Oracle for Bf16 {
    const FMT: Fmt = Fmt::Bf16;
    type Float = BFloat;
}
impl Oracle for F32 {
    const FMT: Fmt = Fmt::F32;
    type Float = Single;
}
impl Oracle for F64 {
    const FMT: Fmt = Fmt::F64;
    type Float = Double;
}

fn oracle_round(round: Round) -> rustc_apfloat::Round {
    match round {
        Round::NearestEven => rustc_apfloat::Round::NearestTiesToEven,
        Round::TowardZero | Round::ToOdd => rustc_apfloat::Round::TowardZero,
        Round::Down => rustc_apfloat::Round::TowardNegative,
        Round::Up => rustc_apfloat::Round::TowardPositive,
        Round::NearestAway => rustc_apfloat::Round::NearestTiesToAway,
    }
}

fn oracle_flags(status: Status) -> Flags {
    [
        (Status::INEXACT, Flags::NX),
        (Status::UNDERFLOW, Flags::UF),
        (Status::OVERFLOW, Flags::OF),
        (Status::DIV_BY_ZERO, Flags::DZ),
        (Status::INVALID_OP, Flags::NV),
    ]
    .into_iter()
    .filter(|(theirs, _)| status.contains(*theirs))
    .fold(Flags::NONE, |flags, (_, ours)| flags | ours)
}

/// A direction rustc_apfloat has.
fn rounds() -> impl Strategy<Value = Round> {
    prop::sample::select(&Round::ALL[..5])
}

/// Encoded numbers of a format, mostly with exponents and significands where something happens.
fn numbers<F: Oracle>() -> impl Strategy<Value = u64> {
    let fields = (any::<bool>(), 0..=F::EXP_MAX, significands::<F>());
    let middle = (any::<bool>(), F::BIAS as u32 - 3..=F::BIAS as u32 + 3, significands::<F>());
    let edge =
        (any::<bool>(), prop::sample::select(vec![0, 1, F::EXP_MAX - 1, F::EXP_MAX]), significands::<F>());
    prop_oneof![3 => fields, 3 => middle, 2 => edge].prop_map(|(sign, exp, frac)| {
        let magnitude = u64::from(exp) << (F::PRECISION - 1) | frac;
        if sign { magnitude | F::FMT.sign_bit() } else { magnitude }
    })
}

fn significands<F: Format>() -> impl Strategy<Value = u64> {
    let mask = F::FRAC_MASK;
    let bits = 0..F::PRECISION - 1;
    prop_oneof![
        any::<u64>(),
        Just(0),
        Just(u64::MAX),
        bits.clone().prop_map(|bit| 1 << bit),
        bits.clone().prop_map(|bit| u64::MAX << bit),
        (bits.clone(), bits).prop_map(|(a, b)| (1u64 << a).wrapping_sub(1 << b)),
    ]
    .prop_map(move |frac| frac & mask)
}

/// Compares a result with rustc_apfloat's. NaNs must be canonical where it has any NaN.
fn agree<F: Oracle>(ours: (u64, Flags), theirs: StatusAnd<F::Float>) -> Result<(), TestCaseError> {
    let (bits, flags) = ours;
    let expected = if theirs.value.is_nan() {
        sf::default_nan(F::FMT, NanRule::Canonical)
    } else {
        theirs.value.to_bits() as u64
    };
    prop_assert_eq!(bits, expected);
    let mut expected = oracle_flags(theirs.status);
    // It calls a result tiny if it is subnormal once rounded there; the smallest normal number is the one result
    // for which that may differ from unbounded exponent.
    // And an overflow that ends at the largest finite number it reports as merely inexact.
    let smallest = 1 << (F::PRECISION - 1);
    let largest = (u64::from(F::EXP_MAX) << (F::PRECISION - 1)) - 1;
    let unsure = match bits & !F::FMT.sign_bit() {
        magnitude if magnitude == smallest => Flags::UF,
        magnitude if magnitude == largest => Flags::OF,
        _ => Flags::NONE,
    };
    if expected.contains(Flags::NX) {
        expected |= Flags::from_bits(flags.bits() & unsure.bits());
    }
    prop_assert_eq!(flags, expected);
    Ok(())
}

type Ours = fn(Fmt, u64, u64, &mut Env) -> u64;

fn check_arithmetic<F: Oracle>(a: u64, b: u64, c: u64, round: Round) -> Result<(), TestCaseError> {
    let (x, y, z) = (F::oracle(a), F::oracle(b), F::oracle(c));
    let r = oracle_round(round);
    let table: [(Ours, StatusAnd<F::Float>); 4] = [
        (sf::add, x.add_r(y, r)),
        (sf::sub, x.sub_r(y, r)),
        (sf::mul, x.mul_r(y, r)),
        (sf::div, x.div_r(y, r)),
    ];
    for (ours, theirs) in table {
        agree::<F>(riscv(round, |e| ours(F::FMT, a, b, e)), theirs)?;
    }
    let ours = riscv(round, |e| sf::mul_add(F::FMT, a, b, c, Negate::NONE, e));
    agree::<F>(ours, x.mul_add_r(y, z, r))?;
    Ok(())
}

fn check_conversion<F: Oracle, G: Oracle>(a: u64, round: Round) -> Result<(), TestCaseError>
where
    F::Float: FloatConvert<G::Float>,
{
    let theirs = F::oracle(a).convert_r(oracle_round(round), &mut false);
    agree::<G>(riscv(round, |e| sf::convert(F::FMT, G::FMT, a, e)), theirs)
}

fn check_integers<F: Oracle>(a: u64, value: u64, round: Round) -> Result<(), TestCaseError> {
    let r = oracle_round(round);
    let x = F::oracle(a);
    for (int, width, signed) in [
        (IntType::I32, 32, true),
        (IntType::U32, 32, false),
        (IntType::I64, 64, true),
        (IntType::U64, 64, false),
    ] {
        let theirs = if signed {
            x.to_i128_r(width, r, &mut false).map(|v| v as u64)
        } else {
            x.to_u128_r(width, r, &mut false).map(|v| v as u64)
        };
        let (bits, flags) = riscv(round, |e| sf::to_int(F::FMT, a, int, round, IntRule::Arm, e));
        prop_assert_eq!((bits, flags), (theirs.value, oracle_flags(theirs.status)), "{:?}", int);
        let theirs = match int {
            IntType::I32 => F::Float::from_i128_r(i128::from(value as i32), r),
            IntType::U32 => F::Float::from_u128_r(u128::from(value as u32), r),
            IntType::I64 => F::Float::from_i128_r(i128::from(value as i64), r),
            IntType::U64 => F::Float::from_u128_r(u128::from(value), r),
        };
        agree::<F>(riscv(round, |e| sf::from_int(F::FMT, value, int, e)), theirs)?;
    }
    let theirs = x.round_to_integral(r);
    agree::<F>(riscv(round, |e| sf::round_to_integral(F::FMT, a, round, true, e)), theirs)
}

/// With NX set the dispatching functions may use the host; the generic ones never do.
fn check_fast_path<F: Oracle>(x: [u64; 3], tininess: Tininess, negate: Negate) -> Result<(), TestCaseError> {
    let [a, b, c] = x.map(F::low);
    let env = Env { tininess, flags: Flags::NX, ..Env::default() };
    type Soft<F> = fn(<F as Format>::Bits, <F as Format>::Bits, &mut Env) -> <F as Format>::Bits;
    let table: [(Ours, Soft<F>); 4] = [
        (sf::add, arith::add::<F>),
        (sf::sub, arith::sub::<F>),
        (sf::mul, arith::mul::<F>),
        (sf::div, arith::div::<F>),
    ];
    for (fast, soft) in table {
        let soft = super::with(env, |e| F::wide(soft(a, b, e)));
        prop_assert_eq!(super::with(env, |e| fast(F::FMT, x[0], x[1], e)), soft);
    }
    let soft = super::with(env, |e| F::wide(arith::sqrt::<F>(a, e)));
    prop_assert_eq!(super::with(env, |e| sf::sqrt(F::FMT, x[0], e)), soft);
    let soft = super::with(env, |e| F::wide(fma::mul_add::<F>(a, b, c, negate, e)));
    prop_assert_eq!(super::with(env, |e| sf::mul_add(F::FMT, x[0], x[1], x[2], negate, e)), soft);
    Ok(())
}

macro_rules! against_apfloat {
    ($($test:ident $format:ty: $($other:ty)*;)*) => {$(
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(8000))]
            #[test]
            fn $test(
                a in numbers::<$format>(), b in numbers::<$format>(), c in numbers::<$format>(),
                value in any::<u64>(), shift in 0u32..64, round in rounds(),
            ) {
                check_arithmetic::<$format>(a, b, c, round)?;
                check_integers::<$format>(a, value >> shift, round)?;
                $(check_conversion::<$format, $other>(a, round)?;)*
            }
        }
    )*};
}

against_apfloat! {
    half_agrees F16: F32 F64;
    bfloat_agrees Bf16: F32;
    single_agrees F32: F16 Bf16 F64;
    double_agrees F64: F16 F32;
}

fn negations() -> impl Strategy<Value = Negate> {
    (any::<bool>(), any::<bool>()).prop_map(|(product, addend)| Negate { product, addend, result: false })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20000))]

    #[test]
    fn single_fast_path_is_invisible(
        x in prop::array::uniform3(numbers::<F32>()), before in any::<bool>(), negate in negations(),
    ) {
        check_fast_path::<F32>(x, if before { Tininess::Before } else { Tininess::After }, negate)?;
    }

    #[test]
    fn double_fast_path_is_invisible(
        x in prop::array::uniform3(numbers::<F64>()), before in any::<bool>(), negate in negations(),
    ) {
        check_fast_path::<F64>(x, if before { Tininess::Before } else { Tininess::After }, negate)?;
    }

    #[test]
    fn square_roots_agree_with_the_host(single in numbers::<F32>(), double in numbers::<F64>()) {
        let expected = f32::from_bits(single as u32).sqrt();
        let ours = riscv(Round::NearestEven, |e| sf::sqrt(Fmt::F32, single, e)).0;
        prop_assert_eq!(ours, if expected.is_nan() { 0x7fc0_0000 } else { u64::from(expected.to_bits()) });
        let expected = f64::from_bits(double).sqrt();
        let ours = riscv(Round::NearestEven, |e| sf::sqrt(Fmt::F64, double, e)).0;
        prop_assert_eq!(ours, if expected.is_nan() { 0x7ff8 << 48 } else { expected.to_bits() });
    }

    /// The directed roots bracket the nearest one, and all coincide exactly when nothing is lost.
    #[test]
    fn directed_square_roots_bracket(x in numbers::<F64>()) {
        let x = f64::from_bits(x & !(1 << 63)).min(f64::MAX).to_bits();
        let root = |round| riscv(round, |e| sf::sqrt(Fmt::F64, x, e));
        let (down, up, near) = (root(Round::Down), root(Round::Up), root(Round::NearestEven));
        prop_assert_eq!(root(Round::TowardZero).0, down.0);
        prop_assert!(near.0 == down.0 || near.0 == up.0);
        prop_assert_eq!(up.0 - down.0, u64::from(near.1.contains(Flags::NX)));
    }

    /// A number converted to a wider format and back is itself, without flags.
    #[test]
    fn widening_is_exact(a in numbers::<F16>()) {
        let there = riscv(Round::Up, |e| sf::convert(Fmt::F16, Fmt::F64, a, e)).0;
        let back = riscv(Round::Down, |e| sf::convert(Fmt::F64, Fmt::F16, there, e));
        if sf::is_nan(Fmt::F16, a) {
            prop_assert_eq!(back, (0x7e00, Flags::NONE));
        } else {
            prop_assert_eq!(back, (a, Flags::NONE));
        }
    }
}
