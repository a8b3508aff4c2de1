//! NaN choice, flushing and integer results of the guests that are not RISC-V.

use super::{f32_bits, nan_rule, with};
use crate::softfloat::{
    self as sf, Env, Flags, Fmt, IntRule, IntType, MinMax, NanRule, Negate, Round, Tininess,
};

const ONE: u64 = 0x3f80_0000;
const INF: u64 = 0x7f80_0000;
const NEG: u64 = 0x8000_0000;
const QUIET: u64 = 0x0040_0000;
/// Quiet and signalling NaNs told apart by payload.
const Q: [u64; 3] = [0x7fc0_0001, 0xffc0_0002, 0x7fc0_0003];
const S: [u64; 3] = [0x7f80_0011, 0xff80_0012, 0x7f80_0013];
const MIN_NORMAL: u64 = 0x0080_0000;

fn add(rule: NanRule, a: u64, b: u64) -> (u64, Flags) {
    with(nan_rule(rule), |e| sf::add(Fmt::F32, a, b, e))
}

fn fma(rule: NanRule, [a, b, c]: [u64; 3], negate: Negate) -> (u64, Flags) {
    with(nan_rule(rule), |e| sf::mul_add(Fmt::F32, a, b, c, negate, e))
}

#[test]
fn two_operand_nans() {
    assert_eq!(add(NanRule::Arm, Q[0], S[1]), (S[1] | QUIET, Flags::NV));
    assert_eq!(add(NanRule::Arm, Q[0], Q[1]), (Q[0], Flags::NONE));
    assert_eq!(add(NanRule::Arm, ONE, Q[1]), (Q[1], Flags::NONE));
    for rule in [NanRule::X86, NanRule::Power] {
        assert_eq!(add(rule, Q[0], S[1]), (Q[0], Flags::NV));
        assert_eq!(add(rule, S[0], Q[1]), (S[0] | QUIET, Flags::NV));
        assert_eq!(add(rule, ONE, S[1]), (S[1] | QUIET, Flags::NV));
    }
    for (rule, default) in
        [(NanRule::X86, 0xffc0_0000), (NanRule::Arm, 0x7fc0_0000), (NanRule::Power, 0x7fc0_0000)]
    {
        assert_eq!(add(rule, INF, INF | NEG), (default, Flags::NV));
        assert_eq!(sf::default_nan(Fmt::F32, rule), default);
    }
}

#[test]
fn fused_nans_follow_each_order() {
    let none = Flags::NONE;
    assert_eq!(fma(NanRule::Arm, Q, Negate::NONE), (Q[2], none));
    assert_eq!(fma(NanRule::Arm, [S[0], S[1], Q[2]], Negate::NONE), (S[0] | QUIET, Flags::NV));
    assert_eq!(fma(NanRule::X86, Q, Negate::NONE), (Q[0], none));
    assert_eq!(fma(NanRule::X86, [ONE, Q[1], S[2]], Negate::NONE), (Q[1], Flags::NV));
    // Power's frB is the addend and comes before frC, the second factor.
    assert_eq!(fma(NanRule::Power, [ONE, Q[1], Q[2]], Negate::NONE), (Q[2], none));
}

#[test]
fn only_arm_negates_a_nan() {
    let negate = Negate { product: true, addend: true, result: true };
    assert_eq!(fma(NanRule::Arm, [Q[0], ONE, ONE], negate).0, Q[0] ^ NEG);
    assert_eq!(fma(NanRule::Arm, [ONE, Q[1], ONE], negate).0, Q[1]);
    assert_eq!(fma(NanRule::Arm, [ONE, ONE, Q[2]], negate).0, Q[2] ^ NEG);
    for rule in [NanRule::X86, NanRule::Power] {
        assert_eq!(fma(rule, [Q[0], ONE, ONE], negate).0, Q[0]);
        assert_eq!(fma(rule, [ONE, ONE, Q[2]], negate).0, Q[2]);
    }
}

#[test]
fn infinity_times_zero_plus_nan() {
    for (a, b) in [(INF, 0), (0, INF)] {
        assert_eq!(fma(NanRule::Arm, [a, b, Q[1]], Negate::NONE), (0x7fc0_0000, Flags::NV));
        assert_eq!(fma(NanRule::Arm, [a, b, S[1]], Negate::NONE), (S[1] | QUIET, Flags::NV));
        assert_eq!(fma(NanRule::X86, [a, b, Q[1]], Negate::NONE), (Q[1], Flags::NONE));
        assert_eq!(fma(NanRule::Power, [a, b, Q[1]], Negate::NONE), (Q[1], Flags::NV));
    }
}

#[test]
fn payloads_survive_conversion_by_their_upper_bits() {
    let convert = |rule, from, to, x| with(nan_rule(rule), |e| sf::convert(from, to, x, e));
    for rule in [NanRule::Arm, NanRule::X86, NanRule::Power] {
        assert_eq!(convert(rule, Fmt::F32, Fmt::F64, 0xff80_0001), (0xfff8_0000_2000_0000, Flags::NV));
        assert_eq!(convert(rule, Fmt::F64, Fmt::F32, 0x7ffc_0000_0000_0001), (0x7fe0_0000, Flags::NONE));
        assert_eq!(convert(rule, Fmt::F64, Fmt::F16, 0xfff0_0000_0000_0001), (0xfe00, Flags::NV));
        assert_eq!(convert(rule, Fmt::Bf16, Fmt::F32, 0xffb7), (0xfff7_0000, Flags::NV));
    }
    assert_eq!(
        convert(NanRule::Canonical, Fmt::F32, Fmt::F64, 0xffff_ffff),
        (0x7ff8_0000_0000_0000, Flags::NONE)
    );
}

#[test]
fn arm_min_number_prefers_numbers_to_quiet_nans_only() {
    let min = |a, b| with(nan_rule(NanRule::Arm), |e| sf::min(Fmt::F32, a, b, MinMax::ArmNumber, e));
    assert_eq!(min(Q[0], ONE), (ONE, Flags::NONE));
    assert_eq!(min(ONE, Q[0]), (ONE, Flags::NONE));
    assert_eq!(min(S[0], ONE), (S[0] | QUIET, Flags::NV));
    assert_eq!(min(Q[0], S[1]), (S[1] | QUIET, Flags::NV));
    assert_eq!(min(Q[0], Q[1]), (Q[0], Flags::NONE));
}

#[test]
fn x86_minimum_is_a_select() {
    let run = |f: fn(Fmt, u64, u64, MinMax, &mut Env) -> u64, a, b| {
        with(nan_rule(NanRule::X86), |e| f(Fmt::F32, a, b, MinMax::X86, e))
    };
    for f in [sf::min, sf::max] {
        assert_eq!(run(f, NEG, 0), (0, Flags::NONE));
        assert_eq!(run(f, 0, NEG), (NEG, Flags::NONE));
        assert_eq!(run(f, Q[0], ONE), (ONE, Flags::NV));
        assert_eq!(run(f, ONE, Q[0]), (Q[0], Flags::NV));
        assert_eq!(run(f, ONE, S[0]), (S[0], Flags::NV));
    }
    assert_eq!(run(sf::min, ONE, INF).0, ONE);
    assert_eq!(run(sf::max, ONE, INF).0, INF);
}

#[test]
fn invalid_integers() {
    use IntType::{I32, I64, U32, U64};
    let to = |rule, x: f32, int| {
        with(Env::default(), |e| sf::to_int(Fmt::F32, f32_bits(x), int, Round::TowardZero, rule, e))
    };
    let cases = [
        (IntRule::Arm, f32::NAN, U64, 0),
        (IntRule::Arm, f32::NEG_INFINITY, I32, i32::MIN as u64),
        (IntRule::X86, f32::NAN, I32, i32::MIN as u64),
        (IntRule::X86, 3e9, I32, i32::MIN as u64),
        (IntRule::X86, 1e20, I64, i64::MIN as u64),
        (IntRule::X86, -1.0, U32, 0xffff_ffff),
        (IntRule::X86, -1.0, U64, u64::MAX),
        (IntRule::Power, f32::NAN, I64, i64::MIN as u64),
        (IntRule::Power, f32::NAN, U32, 0),
        (IntRule::Power, 1e20, U64, u64::MAX),
    ];
    for (rule, x, int, expected) in cases {
        assert_eq!(to(rule, x, int), (expected, Flags::NV), "{rule:?} {x} {int:?}");
    }
}

#[test]
fn flushed_inputs_are_zeros() {
    let arm = Env { nan: NanRule::Arm, tininess: Tininess::Before, flush_inputs: true, ..Env::default() };
    let (zero, denormal) = (NEG, Flags::DENORMAL_INPUT);
    assert_eq!(with(arm, |e| sf::add(Fmt::F32, NEG | 1, zero, e)), (zero, denormal));
    assert_eq!(with(arm, |e| sf::div(Fmt::F32, ONE, 1, e)), (INF, denormal | Flags::DZ));
    assert_eq!(with(arm, |e| sf::add(Fmt::F32, 1, Q[0], e)), (Q[0], denormal));
    assert_eq!(with(arm, |e| sf::max(Fmt::F32, 1, NEG, MinMax::Propagate, e)), (0, denormal));
    assert_eq!(with(arm, |e| sf::compare_quiet(Fmt::F32, 1, NEG, e)), (sf::Relation::Equal, denormal));
    assert_eq!(with(arm, |e| sf::convert(Fmt::F32, Fmt::F64, 1, e)), (0, denormal));
    assert_eq!(with(arm, |e| sf::mul_add(Fmt::F32, 1, INF, ONE, Negate::NONE, e)).1, denormal | Flags::NV);
    assert_eq!(with(arm, |e| sf::round_to_integral(Fmt::F32, 1, Round::Up, true, e)), (0, denormal));
}

#[test]
fn flushed_outputs_raise_what_each_machine_raises() {
    let half = f32_bits(0.5);
    for (tininess, flags) in [(Tininess::Before, Flags::UF), (Tininess::After, Flags::UF | Flags::NX)] {
        let env = Env { tininess, flush_outputs: true, ..Env::default() };
        assert_eq!(with(env, |e| sf::mul(Fmt::F32, MIN_NORMAL | NEG, half, e)), (NEG, flags));
        assert_eq!(with(env, |e| sf::sub(Fmt::F32, MIN_NORMAL, MIN_NORMAL + 1, e)), (NEG, flags));
        assert_eq!(with(env, |e| sf::mul(Fmt::F32, MIN_NORMAL, ONE, e)), (MIN_NORMAL, Flags::NONE));
    }
    // Tiny before rounding only: x86 rounds it up and keeps it, Arm flushes it.
    let edge = |tininess| {
        let env = Env { tininess, flush_outputs: true, ..Env::default() };
        with(env, |e| sf::mul(Fmt::F32, 0x0080_0001, 0x3f7f_fffe, e))
    };
    assert_eq!(edge(Tininess::After), (MIN_NORMAL, Flags::NX));
    assert_eq!(edge(Tininess::Before), (0, Flags::UF));
}

#[test]
fn used_subnormals_are_noted_where_x86_notes_them() {
    let x86 = nan_rule(NanRule::X86);
    let denormal = Flags::DENORMAL_INPUT;
    assert_eq!(with(x86, |e| sf::add(Fmt::F32, 1, ONE, e)).1, denormal | Flags::NX);
    assert_eq!(with(x86, |e| sf::add(Fmt::F32, 1, Q[0], e)).1, Flags::NONE);
    assert_eq!(with(x86, |e| sf::div(Fmt::F32, 1, 0, e)).1, Flags::DZ);
    assert_eq!(with(x86, |e| sf::sqrt(Fmt::F32, 1 | NEG, e)).1, Flags::NV);
    assert_eq!(with(x86, |e| sf::compare_quiet(Fmt::F32, 1, ONE, e)).1, denormal);
    let to_int = with(x86, |e| sf::to_int(Fmt::F32, 1, IntType::I32, Round::TowardZero, IntRule::X86, e));
    assert_eq!(to_int, (0, Flags::NX));
}
