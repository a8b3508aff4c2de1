//! Hand-picked cases under RISC-V's rules.

use super::{FORMATS, f32_bits, riscv};
use crate::softfloat::{
    self as sf, Env, Flags, Fmt, IntRule, IntType, MinMax, Negate, Relation, Round, Tininess,
};

const RNE: Round = Round::NearestEven;
const EXACT: Flags = Flags::NONE;

const ONE: u64 = 0x3f80_0000;
const MIN_NORMAL: u64 = 0x0080_0000;
const MIN_SUBNORMAL: u64 = 1;
const MAX: u64 = 0x7f7f_ffff;
const INF: u64 = 0x7f80_0000;
const NEG: u64 = 0x8000_0000;
const QNAN: u64 = 0x7fc0_0000;
const SNAN: u64 = 0x7f80_0001;

#[test]
fn sums_of_zeros_take_their_sign_from_the_direction() {
    for round in Round::ALL {
        let minus = if round == Round::Down { NEG } else { 0 };
        for (a, b, sum) in [(0, 0, 0), (NEG, NEG, NEG), (0, NEG, minus), (ONE, ONE | NEG, minus)] {
            assert_eq!(riscv(round, |e| sf::add(Fmt::F32, a, b, e)), (sum, EXACT), "{round:?} {a:x} {b:x}");
            assert_eq!(riscv(round, |e| sf::sub(Fmt::F32, a, b ^ NEG, e)), (sum, EXACT));
            assert_eq!(riscv(round, |e| sf::mul_add(Fmt::F32, a, ONE, b, Negate::NONE, e)), (sum, EXACT));
        }
    }
}

#[test]
fn overflow_goes_where_the_direction_leads() {
    let flags = Flags::OF | Flags::NX;
    for (round, positive, negative) in [
        (Round::NearestEven, INF, INF),
        (Round::TowardZero, MAX, MAX),
        (Round::Down, MAX, INF),
        (Round::Up, INF, MAX),
        (Round::NearestAway, INF, INF),
        (Round::ToOdd, MAX, MAX),
    ] {
        assert_eq!(riscv(round, |e| sf::mul(Fmt::F32, MAX, MAX, e)), (positive, flags));
        assert_eq!(riscv(round, |e| sf::mul(Fmt::F32, MAX, MAX | NEG, e)), (negative | NEG, flags));
    }
}

#[test]
fn underflow_needs_inexactness_and_depends_on_when_tininess_is_seen() {
    // (1 - 2^-24) * 2^-126 lies halfway below the smallest normal number.
    let below_one = 0x3f7f_ffff;
    let at = |tininess, round, b| {
        super::with(Env { tininess, ..Env::riscv(round) }, |e| sf::mul(Fmt::F32, MIN_NORMAL, b, e))
    };
    let tiny = Flags::UF | Flags::NX;
    assert_eq!(at(Tininess::After, RNE, below_one), (MIN_NORMAL, tiny));
    assert_eq!(at(Tininess::Before, RNE, below_one), (MIN_NORMAL, tiny));
    // 2^-126 * (1 - 2^-25 + ...) rounds up to 2^-126 with unbounded exponent as well: tiny only before.
    let almost = |tininess| {
        super::with(Env { tininess, ..Env::riscv(RNE) }, |e| sf::mul(Fmt::F32, 0x0080_0001, 0x3f7f_fffe, e))
    };
    assert_eq!(almost(Tininess::After), (MIN_NORMAL, Flags::NX));
    assert_eq!(almost(Tininess::Before), (MIN_NORMAL, tiny));
    // Exact subnormal results do not underflow.
    assert_eq!(at(Tininess::Before, RNE, 0x3f00_0000), (MIN_NORMAL / 2, EXACT));
    assert_eq!(
        riscv(Round::Up, |e| sf::mul(Fmt::F32, MIN_SUBNORMAL, MIN_SUBNORMAL, e)),
        (MIN_SUBNORMAL, tiny)
    );
    assert_eq!(riscv(RNE, |e| sf::mul(Fmt::F32, MIN_SUBNORMAL, MIN_SUBNORMAL, e)), (0, tiny));
}

#[test]
fn invalid_operations_give_the_canonical_nan() {
    let cases: [fn(&mut Env) -> u64; 8] = [
        |e| sf::sub(Fmt::F32, INF, INF, e),
        |e| sf::mul(Fmt::F32, INF, 0, e),
        |e| sf::div(Fmt::F32, 0, 0, e),
        |e| sf::div(Fmt::F32, INF, INF | NEG, e),
        |e| sf::sqrt(Fmt::F32, ONE | NEG, e),
        |e| sf::add(Fmt::F32, SNAN | NEG, ONE, e),
        // Invalid although the addend is a quiet NaN (F extension, "Single-Precision Floating-Point Computational").
        |e| sf::mul_add(Fmt::F32, INF, 0, QNAN | NEG, Negate::NONE, e),
        |e| sf::rem(Fmt::F32, ONE, 0, e),
    ];
    for (i, case) in cases.into_iter().enumerate() {
        assert_eq!(riscv(RNE, case), (QNAN, Flags::NV), "case {i}");
    }
    assert_eq!(riscv(RNE, |e| sf::add(Fmt::F32, 0xffff_ffff, ONE, e)), (QNAN, EXACT));
    assert_eq!(riscv(RNE, |e| sf::sqrt(Fmt::F32, NEG, e)), (NEG, EXACT));
}

#[test]
fn division_by_zero_is_its_own_exception() {
    assert_eq!(riscv(RNE, |e| sf::div(Fmt::F32, ONE | NEG, 0, e)), (INF | NEG, Flags::DZ));
    assert_eq!(riscv(RNE, |e| sf::div(Fmt::F32, INF, 0, e)), (INF, EXACT));
    assert_eq!(riscv(RNE, |e| sf::div(Fmt::F64, 0, 1 << 63, e)).1, Flags::NV);
}

#[test]
fn flags_accumulate() {
    let mut env = Env::riscv(RNE);
    sf::div(Fmt::F32, ONE, 0, &mut env);
    sf::div(Fmt::F32, ONE, f32_bits(3.0), &mut env);
    sf::add(Fmt::F32, ONE, ONE, &mut env);
    assert_eq!(env.flags, Flags::DZ | Flags::NX);
}

#[test]
fn fused_multiply_add_rounds_once_and_negates_as_told() {
    // (1 + 2^-23)^2 - (1 + 2^-22) = 2^-46, which two roundings would lose.
    let a = ONE + 1;
    let c = ONE + 2;
    let tiny = f32_bits(2f32.powi(-46));
    assert_eq!(riscv(RNE, |e| sf::mul_add(Fmt::F32, a, a, c, Negate::ADDEND, e)), (tiny, EXACT));
    assert_eq!(riscv(RNE, |e| sf::mul_add(Fmt::F32, a, a, c, Negate::PRODUCT, e)), (tiny | NEG, EXACT));
    let (two, three) = (f32_bits(2.0), f32_bits(3.0));
    for (negate, expected) in
        [(Negate::NONE, 7.0), (Negate::ADDEND, 5.0), (Negate::PRODUCT, -5.0), (Negate::BOTH, -7.0)]
    {
        let result = riscv(RNE, |e| sf::mul_add(Fmt::F32, two, three, ONE, negate, e));
        assert_eq!(result, (f32_bits(expected), EXACT), "{negate:?}");
    }
    // Negating the result is not negating both: the direction sees the sum first.
    let result = Negate { result: true, ..Negate::NONE };
    let inexact = |negate| riscv(Round::Up, |e| sf::mul_add(Fmt::F32, ONE, ONE, MIN_SUBNORMAL, negate, e)).0;
    assert_eq!(inexact(result), (ONE + 1) | NEG);
    assert_eq!(inexact(Negate::BOTH), ONE | NEG);
}

#[test]
fn minimum_and_maximum() {
    use MinMax::{Number2019, Propagate};
    let min = |a, b, kind| riscv(RNE, |e| sf::min(Fmt::F32, a, b, kind, e));
    let max = |a, b, kind| riscv(RNE, |e| sf::max(Fmt::F32, a, b, kind, e));
    for kind in [Number2019, Propagate, MinMax::ArmNumber] {
        for (a, b) in [(NEG, 0), (0, NEG)] {
            assert_eq!(min(a, b, kind), (NEG, EXACT));
            assert_eq!(max(a, b, kind), (0, EXACT));
        }
        assert_eq!(min(ONE | NEG, INF | NEG, kind), (INF | NEG, EXACT));
        assert_eq!(max(MIN_SUBNORMAL, ONE, kind), (ONE, EXACT));
    }
    for (nan, flags) in [(QNAN, EXACT), (SNAN, Flags::NV)] {
        assert_eq!(min(nan, ONE, Number2019), (ONE, flags));
        assert_eq!(max(ONE, nan, Number2019), (ONE, flags));
        assert_eq!(min(nan, nan | NEG, Number2019), (QNAN, flags));
        assert_eq!(min(nan, ONE, Propagate), (QNAN, flags));
        assert_eq!(max(ONE, nan, Propagate), (QNAN, flags));
    }
}

#[test]
fn comparisons() {
    let quiet = |a, b| riscv(RNE, |e| sf::compare_quiet(Fmt::F32, a, b, e));
    let signaling = |a, b| riscv(RNE, |e| sf::compare_signaling(Fmt::F32, a, b, e));
    let ascending = [INF | NEG, MAX | NEG, ONE | NEG, MIN_SUBNORMAL | NEG, 0, MIN_SUBNORMAL, ONE, MAX, INF];
    for (i, &a) in ascending.iter().enumerate() {
        for (j, &b) in ascending.iter().enumerate() {
            let expected =
                [Relation::Less, Relation::Equal, Relation::Greater][(i.cmp(&j) as i8 + 1) as usize];
            assert_eq!(quiet(a, b), (expected, EXACT));
            assert_eq!(signaling(a, b), (expected, EXACT));
        }
    }
    assert_eq!(quiet(NEG, 0), (Relation::Equal, EXACT));
    assert_eq!(quiet(QNAN, QNAN), (Relation::Unordered, EXACT));
    assert_eq!(signaling(QNAN, ONE), (Relation::Unordered, Flags::NV));
    assert_eq!(quiet(ONE, SNAN), (Relation::Unordered, Flags::NV));
}

#[test]
fn conversion_to_integer_saturates() {
    let to = |x: f64, int, round| {
        riscv(round, |e| sf::to_int(Fmt::F64, x.to_bits(), int, round, IntRule::RiscV, e))
    };
    let rtz = Round::TowardZero;
    assert_eq!(to(-1.5, IntType::I32, rtz), (-1i64 as u64, Flags::NX));
    assert_eq!(to(2147483647.5, IntType::I32, rtz), (0x7fff_ffff, Flags::NX));
    assert_eq!(to(2147483647.5, IntType::I32, RNE), (0x7fff_ffff, Flags::NV));
    assert_eq!(to(-2147483648.5, IntType::I32, RNE), (i32::MIN as u64, Flags::NX));
    assert_eq!(to(-2147483649.0, IntType::I32, RNE), (i32::MIN as u64, Flags::NV));
    assert_eq!(to(-0.5, IntType::U32, rtz), (0, Flags::NX));
    assert_eq!(to(-0.5, IntType::U64, Round::Down), (0, Flags::NV));
    assert_eq!(to(4294967295.0, IntType::U32, rtz), (0xffff_ffff, EXACT));
    assert_eq!(to(18446744073709551616.0, IntType::U64, rtz), (u64::MAX, Flags::NV));
    assert_eq!(to(-9223372036854775808.0, IntType::I64, rtz), (1 << 63, EXACT));
    assert_eq!(to(9223372036854775808.0, IntType::I64, rtz), (i64::MAX as u64, Flags::NV));
    assert_eq!(to(f64::NEG_INFINITY, IntType::U32, rtz), (0, Flags::NV));
    assert_eq!(to(f64::NAN, IntType::U32, rtz), (0xffff_ffff, Flags::NV));
    assert_eq!(to(0.5, IntType::I64, RNE), (0, Flags::NX));
    assert_eq!(to(1.5, IntType::I64, RNE), (2, Flags::NX));
    assert_eq!(to(2.5, IntType::I64, Round::NearestAway), (3, Flags::NX));
    assert_eq!(to(f64::from_bits(1), IntType::I64, Round::Up), (1, Flags::NX));
}

#[test]
fn conversion_modulo_two_to_the_32() {
    let modulo = |x: f64| riscv(RNE, |e| sf::to_int_modulo32(Fmt::F64, x.to_bits(), e));
    assert_eq!(modulo(-1.5), (u32::MAX, Flags::NX));
    assert_eq!(modulo(4294967297.0), (1, Flags::NV));
    assert_eq!(modulo(4294967297.5), (1, Flags::NV));
    assert_eq!(modulo(-2147483648.0), (1 << 31, EXACT));
    assert_eq!(modulo(2147483648.0), (1 << 31, Flags::NV));
    assert_eq!(modulo(2f64.powi(83) + 2f64.powi(31)), (1 << 31, Flags::NV));
    assert_eq!(modulo(2f64.powi(84)), (0, Flags::NV));
    assert_eq!(modulo(-(2f64.powi(63) + 2048.0)), (2048u32.wrapping_neg(), Flags::NV));
    assert_eq!(modulo(2f64.powi(1000)), (0, Flags::NV));
    assert_eq!(modulo(f64::INFINITY), (0, Flags::NV));
    assert_eq!(modulo(f64::NAN), (0, Flags::NV));
    assert_eq!(modulo(-0.25), (0, Flags::NX));
}

#[test]
fn rounding_to_integral_keeps_the_sign_of_zero() {
    let round = |x: f32, round, inexact| {
        riscv(RNE, |e| sf::round_to_integral(Fmt::F32, f32_bits(x), round, inexact, e))
    };
    assert_eq!(round(-0.25, RNE, true), (NEG, Flags::NX));
    assert_eq!(round(-0.25, RNE, false), (NEG, EXACT));
    assert_eq!(round(2.5, RNE, false), (f32_bits(2.0), EXACT));
    assert_eq!(round(2.5, Round::NearestAway, false), (f32_bits(3.0), EXACT));
    assert_eq!(round(-2.5, Round::Down, true), (f32_bits(-3.0), Flags::NX));
    assert_eq!(round(8388609.0, Round::Up, true), (f32_bits(8388609.0), EXACT));
    let nan = riscv(RNE, |e| sf::round_to_integral(Fmt::F32, SNAN, RNE, false, e));
    assert_eq!(nan, (QNAN, Flags::NV));
}

#[test]
fn classes_mirror_by_sign() {
    for fmt in FORMATS {
        let sign = fmt.sign_bit();
        let quiet = sf::default_nan(fmt, sf::NanRule::Canonical);
        let infinity =
            sf::div(fmt, sf::from_int(fmt, 1, IntType::I32, &mut Env::default()), 0, &mut Env::default());
        let cases = [
            (infinity | sign, 0),
            ((infinity - 1) | sign, 1),
            (1 | sign, 2),
            (sign, 3),
            (0, 4),
            (1, 5),
            (infinity - 1, 6),
            (infinity, 7),
            (infinity + 1, 8),
            (quiet, 9),
            (quiet | sign, 9),
        ];
        for (bits, class) in cases {
            assert_eq!(sf::classify(fmt, bits), 1 << class, "{fmt:?} {bits:x}");
        }
        assert!(sf::is_nan(fmt, infinity + 1) && sf::is_signaling_nan(fmt, infinity + 1));
        assert!(sf::is_nan(fmt, quiet) && !sf::is_signaling_nan(fmt, quiet) && !sf::is_nan(fmt, infinity));
    }
}

#[test]
fn bits_above_the_format_are_ignored() {
    let boxed = 0xffff_ffff_0000_0000;
    assert_eq!(riscv(RNE, |e| sf::add(Fmt::F32, boxed | ONE, boxed | ONE, e)), (f32_bits(2.0), EXACT));
    assert_eq!(riscv(RNE, |e| sf::from_int(Fmt::F32, boxed | 7, IntType::U32, e)), (f32_bits(7.0), EXACT));
}

#[test]
fn remainder_is_exact_across_the_whole_range() {
    let rem = |a: f64, b: f64| riscv(RNE, |e| sf::rem(Fmt::F64, a.to_bits(), b.to_bits(), e));
    assert_eq!(rem(5.0, 3.0), ((-1.0f64).to_bits(), EXACT));
    assert_eq!(rem(3.0, 2.0), ((-1.0f64).to_bits(), EXACT));
    assert_eq!(rem(1.0, 2.0), (1.0f64.to_bits(), EXACT));
    assert_eq!(rem(-4.0, 2.0), ((-0.0f64).to_bits(), EXACT));
    // 2^1023 mod 3 is 2, so the nearest multiple is one above.
    assert_eq!(rem(2f64.powi(1023), 3.0), ((-1.0f64).to_bits(), EXACT));
    assert_eq!(rem(f64::MAX, f64::from_bits(1)), (0, EXACT));
}

#[test]
fn a_root_barely_above_a_number_is_inexact() {
    // As integers x * 2^52 = r^2 + 7 for significands x and r: the root exceeds r by less than 2^-50 of a last place.
    for (x, root) in
        [(0x3ff7_3419_a35a_b8b3, 0x3ff3_449c_6367_3f4b), (0x4007_3c5b_0360_fbff, 0x3ffb_449c_6367_3f4b)]
    {
        for round in Round::ALL {
            let expected = if matches!(round, Round::Up) { root + 1 } else { root };
            assert_eq!(riscv(round, |e| sf::sqrt(Fmt::F64, x, e)), (expected, Flags::NX), "{round:?}");
        }
    }
}
