//! Advanced SIMD instructions on registers: integers, permutations, cryptography (the manual, C4.1.96). Floating-point
//! ones are in `table_simd_fp.rs`.

use crate::{
    Features as F,
    decode::Insn,
    helpers_fp::FpHelper as H,
    lift_simd::{self as simd, Zero},
    lift_simd_move as moves, lift_simd_wide as wide,
    operands::row,
    pattern::Field,
    table::BASE,
};
use isomer_ir::op::{BinOp, VecBinOp as V, VecUnOp as U};

/// All of them; rows that refine come first.
pub(crate) static TABLES: &[&[Insn]] = &[
    ALIASES,
    SAME,
    SCALAR_SAME,
    MISC,
    ACROSS,
    DIFFERENT,
    ELEMENT,
    EXTRA,
    SHIFT,
    COPY,
    IMMEDIATE,
    PERMUTE,
    CRYPTO,
];

// Which lanes there are. `size` is bits 23:22.

/// No vector of one doubleword.
pub(crate) fn no_1d(insn: u32) -> bool {
    insn >> 30 & 1 != 0 || Field::vsize.of(insn) != 3
}

/// Halfwords and words.
pub(crate) fn hs(insn: u32) -> bool {
    matches!(Field::vsize.of(insn), 1 | 2)
}

/// Bytes and halfwords.
fn bh(insn: u32) -> bool {
    Field::vsize.of(insn) < 2
}

/// Bytes, halfwords and words, but no pair of words.
fn across(insn: u32) -> bool {
    Field::vsize.of(insn) < 2 || insn >> 30 & 1 != 0 && Field::vsize.of(insn) == 2
}

/// As [`no_1d`] for shifts by immediates; with immh 0 it is another class.
pub(crate) fn shift_lanes(insn: u32) -> bool {
    Field::immh.of(insn) != 0 && (insn >> 30 & 1 != 0 || Field::immh.of(insn) < 8)
}

/// A shift that narrows or widens: the narrow lane is a word at most.
fn shift_narrow(insn: u32) -> bool {
    matches!(Field::immh.of(insn), 1..8)
}

/// A shift of a scalar doubleword.
fn shift_d(insn: u32) -> bool {
    Field::immh.of(insn) >= 8
}

fn shift_any(insn: u32) -> bool {
    Field::immh.of(insn) != 0
}

/// Copies: imm5 names a lane, and no vector of one doubleword.
fn copy_lanes(insn: u32) -> bool {
    insn >> 16 & 0xf != 0 && (insn >> 30 & 1 != 0 || insn >> 16 & 7 != 0)
}

/// imm5 names a lane.
fn any_lane(insn: u32) -> bool {
    insn >> 16 & 0xf != 0
}

/// EXT of 64-bit vectors starts in the first.
fn extract_fits(insn: u32) -> bool {
    insn >> 30 & 1 != 0 || insn >> 14 & 1 == 0
}

/// Both sources are one register.
fn same_source(insn: u32) -> bool {
    Field::Rn.of(insn) == Field::Rm.of(insn)
}

/// SXTL, UXTL: no shift.
fn no_shift(insn: u32) -> bool {
    shift_narrow(insn) && Field::immh.of(insn).is_power_of_two() && Field::immb.of(insn) == 0
}

/// UMOV of a whole register is MOV.
fn whole_register(insn: u32) -> bool {
    match insn >> 30 & 1 {
        0 => insn >> 16 & 7 == 4,
        _ => insn >> 16 & 15 == 8,
    }
}

/// Smaller lanes are moved to W, doublewords to X.
fn unsigned_move(insn: u32) -> bool {
    match insn >> 30 & 1 {
        0 => insn >> 16 & 7 != 0,
        _ => insn >> 16 & 15 == 8,
    }
}

/// SMOV: the lane is narrower than the register.
fn signed_move(insn: u32) -> bool {
    insn >> 16 & 3 != 0 || insn >> 30 & 1 != 0 && insn >> 16 & 7 == 4
}

/// Same-shape vectors.
macro_rules! same {
    ($name:literal, $u:literal, $op:literal, $when:ident, $($lift:tt)*) => {
        row!($name, concat!("0 Q ", $u, " 01110 vsize 1 Rm ", $op, " 1 Rn Rd"), BASE, "{Vd.T}, {Vn.T}, {Vm.T}", $($lift)*)
            .when($when)
    };
}

/// The scalar doubleword form.
macro_rules! scalar {
    ($name:literal, $u:literal, $op:literal, $($lift:tt)*) => {
        row!($name, concat!("01 ", $u, " 11110 11 1 Rm ", $op, " 1 Rn Rd"), BASE, "{Dd}, {Dn}, {Dm}", $($lift)*)
    };
}

/// Logical operations.
macro_rules! logic {
    ($name:literal, $u:literal, $size:literal, $($lift:tt)*) => {
        row!($name, concat!("0 Q ", $u, " 01110 ", $size, " 1 Rm 00011 1 Rn Rd"), BASE, "{Vd.B}, {Vn.B}, {Vm.B}", $($lift)*)
    };
}

/// Two registers.
macro_rules! misc {
    ($name:literal, $u:literal, $op:literal, $when:ident, $assembly:literal; $($lift:tt)*) => {
        row!($name, concat!("0 Q ", $u, " 01110 vsize 10000 ", $op, " 10 Rn Rd"), BASE, $assembly, $($lift)*)
            .when($when)
    };
    ($name:literal, $u:literal, $op:literal, $when:ident, $($lift:tt)*) => {
        misc!($name, $u, $op, $when, "{Vd.T}, {Vn.T}"; $($lift)*)
    };
}

/// Bytes, halfwords and words.
pub(crate) fn bhs(insn: u32) -> bool {
    Field::vsize.of(insn) != 3
}

/// Bytes.
fn b_only(insn: u32) -> bool {
    Field::vsize.of(insn) == 0
}

/// How other instructions are written in special cases.
#[rustfmt::skip]
static ALIASES: &[Insn] = &[
    row!("mov",  "0 Q 0 01110 10 1 Rm 00011 1 Rn Rd",      BASE, "{Vd.B}, {Vn.B}", simd::copy).when(same_source).refines(),
    row!("sxtl{2}", "0 Q 0 011110 immh immb 10100 1 Rn Rd", BASE, "{Vd.J}, {Vn.I}", wide::shift_left_long).when(no_shift).refines(),
    row!("uxtl{2}", "0 Q 1 011110 immh immb 10100 1 Rn Rd", BASE, "{Vd.J}, {Vn.I}", wide::shift_left_long).when(no_shift).refines(),
    row!("mov",  "0 Q 0 01110000 imm5 0 0111 1 Rn Rd",      BASE, "{Rq}, {Vn.e5}", moves::move_to_general, false).when(whole_register).refines(),
];

#[rustfmt::skip]
static SAME: &[Insn] = &[
    same!("shadd",  "0", "00000", bhs,   simd::halving_add),
    same!("uhadd",  "1", "00000", bhs,   simd::halving_add),
    same!("sqadd",  "0", "00001", no_1d, simd::saturating, V::AddSatS, V::Add),
    same!("uqadd",  "1", "00001", no_1d, simd::saturating, V::AddSatU, V::Add),
    same!("srhadd", "0", "00010", bhs,   simd::rounding_halving_add),
    same!("urhadd", "1", "00010", bhs,   simd::rounding_halving_add),
    same!("shsub",  "0", "00100", bhs,   simd::halving_subtract),
    same!("uhsub",  "1", "00100", bhs,   simd::halving_subtract),
    same!("sqsub",  "0", "00101", no_1d, simd::saturating, V::SubSatS, V::Sub),
    same!("uqsub",  "1", "00101", no_1d, simd::saturating, V::SubSatU, V::Sub),
    same!("cmgt",   "0", "00110", no_1d, simd::binary, V::CmpGtS),
    same!("cmhi",   "1", "00110", no_1d, simd::binary, V::CmpGtU),
    same!("cmge",   "0", "00111", no_1d, simd::compare_not_less),
    same!("cmhs",   "1", "00111", no_1d, simd::compare_not_less),
    same!("sshl",   "0", "01000", no_1d, simd::shift_by_register),
    same!("ushl",   "1", "01000", no_1d, simd::shift_by_register),
    same!("sqshl",  "0", "01001", no_1d, simd::helper, H::ShiftByRegister),
    same!("uqshl",  "1", "01001", no_1d, simd::helper, H::ShiftByRegister),
    same!("srshl",  "0", "01010", no_1d, simd::helper, H::ShiftByRegister),
    same!("urshl",  "1", "01010", no_1d, simd::helper, H::ShiftByRegister),
    same!("sqrshl", "0", "01011", no_1d, simd::helper, H::ShiftByRegister),
    same!("uqrshl", "1", "01011", no_1d, simd::helper, H::ShiftByRegister),
    same!("smax",   "0", "01100", bhs,   simd::binary, V::MaxS),
    same!("umax",   "1", "01100", bhs,   simd::binary, V::MaxU),
    same!("smin",   "0", "01101", bhs,   simd::binary, V::MinS),
    same!("umin",   "1", "01101", bhs,   simd::binary, V::MinU),
    same!("sabd",   "0", "01110", bhs,   simd::difference),
    same!("uabd",   "1", "01110", bhs,   simd::difference),
    same!("saba",   "0", "01111", bhs,   simd::difference_accumulate),
    same!("uaba",   "1", "01111", bhs,   simd::difference_accumulate),
    same!("add",    "0", "10000", no_1d, simd::binary, V::Add),
    same!("sub",    "1", "10000", no_1d, simd::binary, V::Sub),
    same!("cmtst",  "0", "10001", no_1d, simd::compare_test),
    same!("cmeq",   "1", "10001", no_1d, simd::compare_equal),
    same!("mla",    "0", "10010", bhs,   simd::multiply_accumulate, V::Add),
    same!("mls",    "1", "10010", bhs,   simd::multiply_accumulate, V::Sub),
    same!("mul",    "0", "10011", bhs,   simd::binary, V::Mul),
    same!("pmul",   "1", "10011", b_only, simd::helper, H::Pmul),
    same!("smaxp",  "0", "10100", bhs,   simd::pairwise, V::MaxS),
    same!("umaxp",  "1", "10100", bhs,   simd::pairwise, V::MaxU),
    same!("sminp",  "0", "10101", bhs,   simd::pairwise, V::MinS),
    same!("uminp",  "1", "10101", bhs,   simd::pairwise, V::MinU),
    same!("sqdmulh", "0", "10110", hs,   simd::helper, H::MultiplyHigh),
    same!("sqrdmulh", "1", "10110", hs,  simd::helper, H::MultiplyHigh),
    same!("addp",   "0", "10111", no_1d, simd::pairwise, V::Add),
    logic!("and", "0", "00", simd::logical, V::And, BinOp::And),
    logic!("bic", "0", "01", simd::logical, V::AndNot, BinOp::AndNot),
    logic!("orr", "0", "10", simd::logical, V::Or, BinOp::Or),
    logic!("orn", "0", "11", simd::or_not),
    logic!("eor", "1", "00", simd::logical, V::Xor, BinOp::Xor),
    logic!("bsl", "1", "01", simd::bitwise_select),
    logic!("bit", "1", "10", simd::bitwise_select),
    logic!("bif", "1", "11", simd::bitwise_select),
];

/// Scalars of any width.
macro_rules! scalar_any {
    ($name:literal, $u:literal, $op:literal, $helper:ident) => {
        row!(
            $name,
            concat!("01 ", $u, " 11110 vsize 1 Rm ", $op, " 1 Rn Rd"),
            BASE,
            "{Zd}, {Zn}, {Zm}",
            simd::helper,
            H::$helper
        )
    };
}

#[rustfmt::skip]
static SCALAR_SAME: &[Insn] = &[
    scalar_any!("sqadd",  "0", "00001", AddSaturating),
    scalar_any!("uqadd",  "1", "00001", AddSaturating),
    scalar_any!("sqsub",  "0", "00101", AddSaturating),
    scalar_any!("uqsub",  "1", "00101", AddSaturating),
    scalar_any!("sqshl",  "0", "01001", ShiftByRegister),
    scalar_any!("uqshl",  "1", "01001", ShiftByRegister),
    scalar_any!("sqrshl", "0", "01011", ShiftByRegister),
    scalar_any!("uqrshl", "1", "01011", ShiftByRegister),
    scalar_any!("sqdmulh",  "0", "10110", MultiplyHigh).when(hs),
    scalar_any!("sqrdmulh", "1", "10110", MultiplyHigh).when(hs),
    scalar!("cmgt",  "0", "00110", simd::binary, V::CmpGtS),
    scalar!("cmhi",  "1", "00110", simd::binary, V::CmpGtU),
    scalar!("cmge",  "0", "00111", simd::compare_not_less),
    scalar!("cmhs",  "1", "00111", simd::compare_not_less),
    scalar!("sshl",  "0", "01000", simd::shift_by_register),
    scalar!("ushl",  "1", "01000", simd::shift_by_register),
    scalar!("srshl", "0", "01010", simd::helper, H::ShiftByRegister),
    scalar!("urshl", "1", "01010", simd::helper, H::ShiftByRegister),
    scalar!("add",   "0", "10000", simd::binary, V::Add),
    scalar!("sub",   "1", "10000", simd::binary, V::Sub),
    scalar!("cmtst", "0", "10001", simd::compare_test),
    scalar!("cmeq",  "1", "10001", simd::compare_equal),
];

/// Comparisons with zero.
macro_rules! zero {
    ($name:literal, $u:literal, $op:literal, $relation:ident) => {
        misc!($name, $u, $op, no_1d, "{Vd.T}, {Vn.T}, #0"; simd::compare_zero, Zero::$relation)
    };
    (scalar $name:literal, $u:literal, $op:literal, $relation:ident) => {
        row!($name, concat!("01 ", $u, " 11110 11 10000 ", $op, " 10 Rn Rd"), BASE, "{Dd}, {Dn}, #0", simd::compare_zero, Zero::$relation)
    };
}

/// Scalars of any width with one source.
macro_rules! scalar_misc {
    ($name:literal, $u:literal, $op:literal, $assembly:literal, $helper:ident) => {
        row!(
            $name,
            concat!("01 ", $u, " 11110 vsize 10000 ", $op, " 10 Rn Rd"),
            BASE,
            $assembly,
            simd::helper,
            H::$helper
        )
    };
}

#[rustfmt::skip]
static MISC: &[Insn] = &[
    misc!("rev64",  "0", "00000", bhs,    simd::reverse, 3),
    misc!("rev32",  "1", "00000", bh,     simd::reverse, 2),
    misc!("rev16",  "0", "00001", b_only, simd::reverse, 1),
    misc!("saddlp", "0", "00010", bhs, "{Vd.P}, {Vn.T}"; simd::add_long_pairwise),
    misc!("uaddlp", "1", "00010", bhs, "{Vd.P}, {Vn.T}"; simd::add_long_pairwise),
    misc!("sadalp", "0", "00110", bhs, "{Vd.P}, {Vn.T}"; simd::add_long_pairwise_accumulate),
    misc!("uadalp", "1", "00110", bhs, "{Vd.P}, {Vn.T}"; simd::add_long_pairwise_accumulate),
    misc!("suqadd", "0", "00011", no_1d,  simd::helper, H::AccumulateSaturating),
    misc!("usqadd", "1", "00011", no_1d,  simd::helper, H::AccumulateSaturating),
    misc!("cls",    "0", "00100", bhs,    simd::count_sign_bits),
    misc!("clz",    "1", "00100", bhs,    simd::unary, U::Clz),
    misc!("cnt",    "0", "00101", b_only, simd::unary, U::Popcnt),
    row!("mvn",  "0 Q 1 01110 00 10000 00101 10 Rn Rd", BASE, "{Vd.B}, {Vn.B}", simd::unary, U::Not),
    row!("rbit", "0 Q 1 01110 01 10000 00101 10 Rn Rd", BASE, "{Vd.B}, {Vn.B}", simd::reverse_bits),
    misc!("sqabs",  "0", "00111", no_1d,  simd::helper, H::NegateSaturating),
    misc!("sqneg",  "1", "00111", no_1d,  simd::helper, H::NegateSaturating),
    zero!("cmgt",   "0", "01000", Gt),
    zero!("cmge",   "1", "01000", Ge),
    zero!("cmeq",   "0", "01001", Eq),
    zero!("cmle",   "1", "01001", Le),
    zero!("cmlt",   "0", "01010", Lt),
    misc!("abs",    "0", "01011", no_1d,  simd::unary, U::Abs),
    misc!("neg",    "1", "01011", no_1d,  simd::unary, U::Neg),
    misc!("xtn{2}",    "0", "10010", bhs, "{Vd.T}, {Vn.W}"; wide::extract_narrow),
    misc!("sqxtun{2}", "1", "10010", bhs, "{Vd.T}, {Vn.W}"; simd::helper, H::ExtractNarrow),
    misc!("sqxtn{2}",  "0", "10100", bhs, "{Vd.T}, {Vn.W}"; simd::helper, H::ExtractNarrow),
    misc!("uqxtn{2}",  "1", "10100", bhs, "{Vd.T}, {Vn.W}"; simd::helper, H::ExtractNarrow),
    misc!("shll{2}",   "1", "10011", bhs, "{Vd.W}, {Vn.T}, #{lanebits}"; wide::shift_left_long_full),
    row!("urecpe",  "0 Q 0 01110 10 10000 11100 10 Rn Rd", BASE, "{Vd.S}, {Vn.S}", simd::helper, H::EstimateUnsigned),
    row!("ursqrte", "0 Q 1 01110 10 10000 11100 10 Rn Rd", BASE, "{Vd.S}, {Vn.S}", simd::helper, H::EstimateUnsigned),
    scalar_misc!("suqadd", "0", "00011", "{Zd}, {Zn}", AccumulateSaturating),
    scalar_misc!("usqadd", "1", "00011", "{Zd}, {Zn}", AccumulateSaturating),
    scalar_misc!("sqabs",  "0", "00111", "{Zd}, {Zn}", NegateSaturating),
    scalar_misc!("sqneg",  "1", "00111", "{Zd}, {Zn}", NegateSaturating),
    scalar_misc!("sqxtun", "1", "10010", "{Zd}, {ZWn}", ExtractNarrow).when(bhs),
    scalar_misc!("sqxtn",  "0", "10100", "{Zd}, {ZWn}", ExtractNarrow).when(bhs),
    scalar_misc!("uqxtn",  "1", "10100", "{Zd}, {ZWn}", ExtractNarrow).when(bhs),
    zero!(scalar "cmgt", "0", "01000", Gt),
    zero!(scalar "cmge", "1", "01000", Ge),
    zero!(scalar "cmeq", "0", "01001", Eq),
    zero!(scalar "cmle", "1", "01001", Le),
    zero!(scalar "cmlt", "0", "01010", Lt),
    row!("abs", "01 0 11110 11 10000 01011 10 Rn Rd", BASE, "{Dd}, {Dn}", simd::unary, U::Abs),
    row!("neg", "01 1 11110 11 10000 01011 10 Rn Rd", BASE, "{Dd}, {Dn}", simd::unary, U::Neg),
];

#[rustfmt::skip]
static ACROSS: &[Insn] = &[
    row!("saddlv", "0 Q 0 01110 vsize 11000 00011 10 Rn Rd", BASE, "{ZWd}, {Vn.T}", simd::add_long_across).when(across),
    row!("uaddlv", "0 Q 1 01110 vsize 11000 00011 10 Rn Rd", BASE, "{ZWd}, {Vn.T}", simd::add_long_across).when(across),
    row!("smaxv",  "0 Q 0 01110 vsize 11000 01010 10 Rn Rd", BASE, "{Zd}, {Vn.T}", simd::across, V::MaxS).when(across),
    row!("umaxv",  "0 Q 1 01110 vsize 11000 01010 10 Rn Rd", BASE, "{Zd}, {Vn.T}", simd::across, V::MaxU).when(across),
    row!("sminv",  "0 Q 0 01110 vsize 11000 11010 10 Rn Rd", BASE, "{Zd}, {Vn.T}", simd::across, V::MinS).when(across),
    row!("uminv",  "0 Q 1 01110 vsize 11000 11010 10 Rn Rd", BASE, "{Zd}, {Vn.T}", simd::across, V::MinU).when(across),
    row!("addv",   "0 Q 0 01110 vsize 11000 11011 10 Rn Rd", BASE, "{Zd}, {Vn.T}", simd::across, V::Add).when(across),
    row!("addp",   "01 0 11110 11 11000 11011 10 Rn Rd",     BASE, "{Dd}, {Vn.2d}", simd::add_pair),
];

/// Operands of one shape, a result of another.
macro_rules! different {
    ($name:literal, $u:literal, $op:literal, $assembly:ident, $when:ident, $($lift:tt)*) => {
        row!($name, concat!("0 Q ", $u, " 01110 vsize 1 Rm ", $op, " 00 Rn Rd"), BASE, $assembly, $($lift)*).when($when)
    };
}
const LONG: &str = "{Vd.W}, {Vn.T}, {Vm.T}";
const WIDE: &str = "{Vd.W}, {Vn.W}, {Vm.T}";
const NARROW: &str = "{Vd.T}, {Vn.W}, {Vm.W}";

#[rustfmt::skip]
static DIFFERENT: &[Insn] = &[
    different!("saddl{2}",   "0", "0000", LONG, bhs, wide::long, V::Add),
    different!("uaddl{2}",   "1", "0000", LONG, bhs, wide::long, V::Add),
    different!("saddw{2}",   "0", "0001", WIDE, bhs, wide::wide, V::Add),
    different!("uaddw{2}",   "1", "0001", WIDE, bhs, wide::wide, V::Add),
    different!("ssubl{2}",   "0", "0010", LONG, bhs, wide::long, V::Sub),
    different!("usubl{2}",   "1", "0010", LONG, bhs, wide::long, V::Sub),
    different!("ssubw{2}",   "0", "0011", WIDE, bhs, wide::wide, V::Sub),
    different!("usubw{2}",   "1", "0011", WIDE, bhs, wide::wide, V::Sub),
    different!("addhn{2}",   "0", "0100", NARROW, bhs, wide::narrow_high, V::Add),
    different!("raddhn{2}",  "1", "0100", NARROW, bhs, wide::narrow_high, V::Add),
    different!("subhn{2}",   "0", "0110", NARROW, bhs, wide::narrow_high, V::Sub),
    different!("rsubhn{2}",  "1", "0110", NARROW, bhs, wide::narrow_high, V::Sub),
    different!("sabal{2}",   "0", "0101", LONG, bhs, wide::difference_long, true),
    different!("uabal{2}",   "1", "0101", LONG, bhs, wide::difference_long, true),
    different!("sabdl{2}",   "0", "0111", LONG, bhs, wide::difference_long, false),
    different!("uabdl{2}",   "1", "0111", LONG, bhs, wide::difference_long, false),
    different!("smlal{2}",   "0", "1000", LONG, bhs, wide::multiply_long, Some(V::Add)),
    different!("umlal{2}",   "1", "1000", LONG, bhs, wide::multiply_long, Some(V::Add)),
    different!("smlsl{2}",   "0", "1010", LONG, bhs, wide::multiply_long, Some(V::Sub)),
    different!("umlsl{2}",   "1", "1010", LONG, bhs, wide::multiply_long, Some(V::Sub)),
    different!("smull{2}",   "0", "1100", LONG, bhs, wide::multiply_long, None),
    different!("umull{2}",   "1", "1100", LONG, bhs, wide::multiply_long, None),
    different!("sqdmlal{2}", "0", "1001", LONG, hs,  simd::helper, H::MultiplyLong),
    different!("sqdmlsl{2}", "0", "1011", LONG, hs,  simd::helper, H::MultiplyLong),
    different!("sqdmull{2}", "0", "1101", LONG, hs,  simd::helper, H::MultiplyLong),
    row!("pmull{2}", "0 Q 0 01110 00 1 Rm 1110 00 Rn Rd", BASE, LONG, simd::helper, H::Pmull),
    row!("pmull{2}", "0 Q 0 01110 11 1 Rm 1110 00 Rn Rd", F::PMULL, LONG, wide::multiply_polynomial),
    row!("sqdmlal", "01 0 11110 vsize 1 Rm 1001 00 Rn Rd", BASE, "{ZWd}, {Zn}, {Zm}", simd::helper, H::MultiplyLong).when(hs),
    row!("sqdmlsl", "01 0 11110 vsize 1 Rm 1011 00 Rn Rd", BASE, "{ZWd}, {Zn}, {Zm}", simd::helper, H::MultiplyLong).when(hs),
    row!("sqdmull", "01 0 11110 vsize 1 Rm 1101 00 Rn Rd", BASE, "{ZWd}, {Zn}, {Zm}", simd::helper, H::MultiplyLong).when(hs),
];

/// By element.
macro_rules! element {
    ($name:literal, $u:literal, $op:literal, $assembly:ident, $($lift:tt)*) => {
        row!($name, concat!("0 Q ", $u, " 01111 vsize Lm M Rm4 ", $op, " H 0 Rn Rd"), BASE, $assembly, $($lift)*).when(hs)
    };
}
/// Scalars by element.
macro_rules! scalar_element {
    ($name:literal, $u:literal, $op:literal, $features:expr, $assembly:ident, $helper:ident) => {
        row!(
            $name,
            concat!("01 ", $u, " 11111 vsize Lm M Rm4 ", $op, " H 0 Rn Rd"),
            $features,
            $assembly,
            simd::helper,
            H::$helper
        )
        .when(hs)
    };
}
const SAME_E: &str = "{Vd.T}, {Vn.T}, {Vm.e}";
const LONG_E: &str = "{Vd.W}, {Vn.T}, {Vm.e}";
const SCALAR_E: &str = "{Zd}, {Zn}, {Vm.e}";
const SCALAR_LONG_E: &str = "{ZWd}, {Zn}, {Vm.e}";

#[rustfmt::skip]
static ELEMENT: &[Insn] = &[
    element!("mla",        "1", "0000", SAME_E, simd::multiply_accumulate_element, V::Add),
    element!("mls",        "1", "0100", SAME_E, simd::multiply_accumulate_element, V::Sub),
    element!("mul",        "0", "1000", SAME_E, simd::multiply_element),
    element!("smlal{2}",   "0", "0010", LONG_E, wide::multiply_long_element, Some(V::Add)),
    element!("umlal{2}",   "1", "0010", LONG_E, wide::multiply_long_element, Some(V::Add)),
    element!("smlsl{2}",   "0", "0110", LONG_E, wide::multiply_long_element, Some(V::Sub)),
    element!("umlsl{2}",   "1", "0110", LONG_E, wide::multiply_long_element, Some(V::Sub)),
    element!("smull{2}",   "0", "1010", LONG_E, wide::multiply_long_element, None),
    element!("umull{2}",   "1", "1010", LONG_E, wide::multiply_long_element, None),
    element!("sqdmlal{2}", "0", "0011", LONG_E, simd::helper, H::MultiplyLong),
    element!("sqdmlsl{2}", "0", "0111", LONG_E, simd::helper, H::MultiplyLong),
    element!("sqdmull{2}", "0", "1011", LONG_E, simd::helper, H::MultiplyLong),
    element!("sqdmulh",    "0", "1100", SAME_E, simd::helper, H::MultiplyHigh),
    element!("sqrdmulh",   "0", "1101", SAME_E, simd::helper, H::MultiplyHigh),
    row!("sqrdmlah", "0 Q 1 01111 vsize Lm M Rm4 1101 H 0 Rn Rd", F::RDM, SAME_E, simd::helper, H::MultiplyAccumulateHigh).when(hs),
    row!("sqrdmlsh", "0 Q 1 01111 vsize Lm M Rm4 1111 H 0 Rn Rd", F::RDM, SAME_E, simd::helper, H::MultiplyAccumulateHigh).when(hs),
    row!("sdot",  "0 Q 0 01111 10 Lm M Rm4 1110 H 0 Rn Rd", F::DOTPROD, "{Vd.S}, {Vn.B}, {Vm.e4b}", simd::helper, H::DotProduct),
    row!("udot",  "0 Q 1 01111 10 Lm M Rm4 1110 H 0 Rn Rd", F::DOTPROD, "{Vd.S}, {Vn.B}, {Vm.e4b}", simd::helper, H::DotProduct),
    row!("sudot", "0 Q 0 01111 00 Lm M Rm4 1111 H 0 Rn Rd", F::I8MM,    "{Vd.S}, {Vn.B}, {Vm.e4b}", simd::helper, H::DotProduct),
    row!("usdot", "0 Q 0 01111 10 Lm M Rm4 1111 H 0 Rn Rd", F::I8MM,    "{Vd.S}, {Vn.B}, {Vm.e4b}", simd::helper, H::DotProduct),
    scalar_element!("sqdmlal",  "0", "0011", BASE, SCALAR_LONG_E, MultiplyLong),
    scalar_element!("sqdmlsl",  "0", "0111", BASE, SCALAR_LONG_E, MultiplyLong),
    scalar_element!("sqdmull",  "0", "1011", BASE, SCALAR_LONG_E, MultiplyLong),
    scalar_element!("sqdmulh",  "0", "1100", BASE, SCALAR_E, MultiplyHigh),
    scalar_element!("sqrdmulh", "0", "1101", BASE, SCALAR_E, MultiplyHigh),
    scalar_element!("sqrdmlah", "1", "1101", F::RDM, SCALAR_E, MultiplyAccumulateHigh),
    scalar_element!("sqrdmlsh", "1", "1111", F::RDM, SCALAR_E, MultiplyAccumulateHigh),
];

/// Three registers, later additions.
#[rustfmt::skip]
static EXTRA: &[Insn] = &[
    row!("sqrdmlah", "0 Q 1 01110 vsize 0 Rm 10000 1 Rn Rd", F::RDM, "{Vd.T}, {Vn.T}, {Vm.T}", simd::helper, H::MultiplyAccumulateHigh).when(hs),
    row!("sqrdmlsh", "0 Q 1 01110 vsize 0 Rm 10001 1 Rn Rd", F::RDM, "{Vd.T}, {Vn.T}, {Vm.T}", simd::helper, H::MultiplyAccumulateHigh).when(hs),
    row!("sqrdmlah", "01 1 11110 vsize 0 Rm 10000 1 Rn Rd",  F::RDM, "{Zd}, {Zn}, {Zm}", simd::helper, H::MultiplyAccumulateHigh).when(hs),
    row!("sqrdmlsh", "01 1 11110 vsize 0 Rm 10001 1 Rn Rd",  F::RDM, "{Zd}, {Zn}, {Zm}", simd::helper, H::MultiplyAccumulateHigh).when(hs),
    row!("sdot",   "0 Q 0 01110 10 0 Rm 10010 1 Rn Rd",      F::DOTPROD, "{Vd.S}, {Vn.B}, {Vm.B}", simd::helper, H::DotProduct),
    row!("udot",   "0 Q 1 01110 10 0 Rm 10010 1 Rn Rd",      F::DOTPROD, "{Vd.S}, {Vn.B}, {Vm.B}", simd::helper, H::DotProduct),
    row!("usdot",  "0 Q 0 01110 10 0 Rm 10011 1 Rn Rd",      F::I8MM, "{Vd.S}, {Vn.B}, {Vm.B}", simd::helper, H::DotProduct),
    row!("smmla",  "0 1 0 01110 10 0 Rm 10100 1 Rn Rd",      F::I8MM, "{Vd.4s}, {Vn.16b}, {Vm.16b}", simd::helper, H::MatrixMultiply),
    row!("ummla",  "0 1 1 01110 10 0 Rm 10100 1 Rn Rd",      F::I8MM, "{Vd.4s}, {Vn.16b}, {Vm.16b}", simd::helper, H::MatrixMultiply),
    row!("usmmla", "0 1 0 01110 10 0 Rm 10101 1 Rn Rd",      F::I8MM, "{Vd.4s}, {Vn.16b}, {Vm.16b}", simd::helper, H::MatrixMultiply),
];

/// Shifts by immediates, vector and scalar.
macro_rules! shift {
    ($name:literal, $u:literal, $op:literal, $amount:literal, $($lift:tt)*) => {
        row!($name, concat!("0 Q ", $u, " 011110 immh immb ", $op, " 1 Rn Rd"), BASE,
            concat!("{Vd.I}, {Vn.I}, #{", $amount, "}"), $($lift)*).when(shift_lanes)
    };
    (scalar $when:ident $name:literal, $u:literal, $op:literal, $assembly:literal, $($lift:tt)*) => {
        row!($name, concat!("01 ", $u, " 111110 immh immb ", $op, " 1 Rn Rd"), BASE, $assembly, $($lift)*).when($when)
    };
    (narrow $name:literal, $u:literal, $op:literal, $($lift:tt)*) => {
        row!($name, concat!("0 Q ", $u, " 011110 immh immb ", $op, " 1 Rn Rd"), BASE, "{Vd.I}, {Vn.J}, #{shr}", $($lift)*)
            .when(shift_narrow)
    };
}

#[rustfmt::skip]
static SHIFT: &[Insn] = &[
    shift!("sshr",   "0", "00000", "shr", wide::shift_right, false, false),
    shift!("ushr",   "1", "00000", "shr", wide::shift_right, false, false),
    shift!("ssra",   "0", "00010", "shr", wide::shift_right, false, true),
    shift!("usra",   "1", "00010", "shr", wide::shift_right, false, true),
    shift!("srshr",  "0", "00100", "shr", wide::shift_right, true, false),
    shift!("urshr",  "1", "00100", "shr", wide::shift_right, true, false),
    shift!("srsra",  "0", "00110", "shr", wide::shift_right, true, true),
    shift!("ursra",  "1", "00110", "shr", wide::shift_right, true, true),
    shift!("sri",    "1", "01000", "shr", wide::shift_right_insert),
    shift!("shl",    "0", "01010", "shl", wide::shift_left),
    shift!("sli",    "1", "01010", "shl", wide::shift_left_insert),
    shift!("sqshlu", "1", "01100", "shl", simd::helper, H::ShiftLeft),
    shift!("sqshl",  "0", "01110", "shl", simd::helper, H::ShiftLeft),
    shift!("uqshl",  "1", "01110", "shl", simd::helper, H::ShiftLeft),
    shift!(narrow "shrn{2}",     "0", "10000", wide::shift_right_narrow, false),
    shift!(narrow "rshrn{2}",    "0", "10001", wide::shift_right_narrow, true),
    shift!(narrow "sqshrun{2}",  "1", "10000", simd::helper, H::ShiftRightNarrow),
    shift!(narrow "sqrshrun{2}", "1", "10001", simd::helper, H::ShiftRightNarrow),
    shift!(narrow "sqshrn{2}",   "0", "10010", simd::helper, H::ShiftRightNarrow),
    shift!(narrow "uqshrn{2}",   "1", "10010", simd::helper, H::ShiftRightNarrow),
    shift!(narrow "sqrshrn{2}",  "0", "10011", simd::helper, H::ShiftRightNarrow),
    shift!(narrow "uqrshrn{2}",  "1", "10011", simd::helper, H::ShiftRightNarrow),
    row!("sshll{2}", "0 Q 0 011110 immh immb 10100 1 Rn Rd", BASE, "{Vd.J}, {Vn.I}, #{shl}", wide::shift_left_long).when(shift_narrow),
    row!("ushll{2}", "0 Q 1 011110 immh immb 10100 1 Rn Rd", BASE, "{Vd.J}, {Vn.I}, #{shl}", wide::shift_left_long).when(shift_narrow),
    shift!(scalar shift_d "sshr",  "0", "00000", "{Dd}, {Dn}, #{shr}", wide::shift_right, false, false),
    shift!(scalar shift_d "ushr",  "1", "00000", "{Dd}, {Dn}, #{shr}", wide::shift_right, false, false),
    shift!(scalar shift_d "ssra",  "0", "00010", "{Dd}, {Dn}, #{shr}", wide::shift_right, false, true),
    shift!(scalar shift_d "usra",  "1", "00010", "{Dd}, {Dn}, #{shr}", wide::shift_right, false, true),
    shift!(scalar shift_d "srshr", "0", "00100", "{Dd}, {Dn}, #{shr}", wide::shift_right, true, false),
    shift!(scalar shift_d "urshr", "1", "00100", "{Dd}, {Dn}, #{shr}", wide::shift_right, true, false),
    shift!(scalar shift_d "srsra", "0", "00110", "{Dd}, {Dn}, #{shr}", wide::shift_right, true, true),
    shift!(scalar shift_d "ursra", "1", "00110", "{Dd}, {Dn}, #{shr}", wide::shift_right, true, true),
    shift!(scalar shift_d "sri",   "1", "01000", "{Dd}, {Dn}, #{shr}", wide::shift_right_insert),
    shift!(scalar shift_d "shl",   "0", "01010", "{Dd}, {Dn}, #{shl}", wide::shift_left),
    shift!(scalar shift_d "sli",   "1", "01010", "{Dd}, {Dn}, #{shl}", wide::shift_left_insert),
    shift!(scalar shift_any "sqshlu", "1", "01100", "{Id}, {In}, #{shl}", simd::helper, H::ShiftLeft),
    shift!(scalar shift_any "sqshl",  "0", "01110", "{Id}, {In}, #{shl}", simd::helper, H::ShiftLeft),
    shift!(scalar shift_any "uqshl",  "1", "01110", "{Id}, {In}, #{shl}", simd::helper, H::ShiftLeft),
    shift!(scalar shift_narrow "sqshrun",  "1", "10000", "{Id}, {IWn}, #{shr}", simd::helper, H::ShiftRightNarrow),
    shift!(scalar shift_narrow "sqrshrun", "1", "10001", "{Id}, {IWn}, #{shr}", simd::helper, H::ShiftRightNarrow),
    shift!(scalar shift_narrow "sqshrn",   "0", "10010", "{Id}, {IWn}, #{shr}", simd::helper, H::ShiftRightNarrow),
    shift!(scalar shift_narrow "uqshrn",   "1", "10010", "{Id}, {IWn}, #{shr}", simd::helper, H::ShiftRightNarrow),
    shift!(scalar shift_narrow "sqrshrn",  "0", "10011", "{Id}, {IWn}, #{shr}", simd::helper, H::ShiftRightNarrow),
    shift!(scalar shift_narrow "uqrshrn",  "1", "10011", "{Id}, {IWn}, #{shr}", simd::helper, H::ShiftRightNarrow),
];

#[rustfmt::skip]
static COPY: &[Insn] = &[
    row!("dup",  "0 Q 0 01110000 imm5 0 0000 1 Rn Rd", BASE, "{Vd.T5}, {Vn.e5}", moves::duplicate_element).when(copy_lanes),
    row!("mov",  "01 0 11110000 imm5 0 0000 1 Rn Rd",  BASE, "{Z5d}, {Vn.e5}", moves::duplicate_element).when(any_lane),
    row!("dup",  "0 Q 0 01110000 imm5 0 0001 1 Rn Rd", BASE, "{Vd.T5}, {R5n}", moves::duplicate_general).when(copy_lanes),
    row!("mov",  "0 1 0 01110000 imm5 0 0011 1 Rn Rd", BASE, "{Vd.e5}, {R5n}", moves::insert_general).when(any_lane),
    row!("mov",  "0 1 1 01110000 imm5 0 imm4 1 Rn Rd", BASE, "{Vd.e5}, {Vn.e4}", moves::insert_element).when(any_lane),
    row!("umov", "0 Q 0 01110000 imm5 0 0111 1 Rn Rd", BASE, "{Rq}, {Vn.e5}", moves::move_to_general, false).when(unsigned_move),
    row!("smov", "0 Q 0 01110000 imm5 0 0101 1 Rn Rd", BASE, "{Rq}, {Vn.e5}", moves::move_to_general, true).when(signed_move),
];

/// Modified immediates: the four bits of cmode, op.
macro_rules! immediate {
    ($name:literal, $op:literal, $cmode:literal, $assembly:literal, $($lift:tt)*) => {
        row!($name, concat!("0 Q ", $op, " 0111100000 abc ", $cmode, " 0 1 defgh Rd"), BASE, $assembly, $($lift)*)
    };
}

#[rustfmt::skip]
static IMMEDIATE: &[Insn] = &[
    immediate!("movi", "0", "0xx0", "{Vd.S}, #{imm8}{vlsl}", moves::move_immediate, false),
    immediate!("movi", "0", "10x0", "{Vd.H}, #{imm8}{vlsl}", moves::move_immediate, false),
    immediate!("movi", "0", "110x", "{Vd.S}, #{imm8}{vmsl}", moves::move_immediate, false),
    immediate!("movi", "0", "1110", "{Vd.B}, #{imm8}",      moves::move_immediate, false),
    immediate!("mvni", "1", "0xx0", "{Vd.S}, #{imm8}{vlsl}", moves::move_immediate, true),
    immediate!("mvni", "1", "10x0", "{Vd.H}, #{imm8}{vlsl}", moves::move_immediate, true),
    immediate!("mvni", "1", "110x", "{Vd.S}, #{imm8}{vmsl}", moves::move_immediate, true),
    immediate!("orr",  "0", "0xx1", "{Vd.S}, #{imm8}{vlsl}", moves::logical_immediate, V::Or),
    immediate!("orr",  "0", "10x1", "{Vd.H}, #{imm8}{vlsl}", moves::logical_immediate, V::Or),
    immediate!("bic",  "1", "0xx1", "{Vd.S}, #{imm8}{vlsl}", moves::logical_immediate, V::AndNot),
    immediate!("bic",  "1", "10x1", "{Vd.H}, #{imm8}{vlsl}", moves::logical_immediate, V::AndNot),
    row!("movi", "0 0 1 0111100000 abc 1110 0 1 defgh Rd", BASE, "{Dd}, #{imm64}", moves::move_immediate, false),
    row!("movi", "0 1 1 0111100000 abc 1110 0 1 defgh Rd", BASE, "{Vd.2d}, #{imm64}", moves::move_immediate, false),
    immediate!("fmov", "0", "1111", "{Vd.S}, #{vfloat}", moves::move_immediate, false),
    row!("fmov", "0 1 1 0111100000 abc 1111 0 1 defgh Rd", BASE, "{Vd.2d}, #{vfloat}", moves::move_immediate, false),
    row!("fmov", "0 Q 0 0111100000 abc 1111 1 1 defgh Rd", F::FP16, "{Vd.H}, #{vfloat}", moves::move_immediate, false),
];

/// Permutations.
macro_rules! permute {
    ($name:literal, $op:literal, $($lift:tt)*) => {
        row!($name, concat!("0 Q 001110 vsize 0 Rm 0 ", $op, " 10 Rn Rd"), BASE, "{Vd.T}, {Vn.T}, {Vm.T}", $($lift)*).when(no_1d)
    };
}

#[rustfmt::skip]
static PERMUTE: &[Insn] = &[
    permute!("uzp1", "001", moves::unzip, 0),
    permute!("trn1", "010", moves::transpose, 0),
    permute!("zip1", "011", moves::zip, false),
    permute!("uzp2", "101", moves::unzip, 1),
    permute!("trn2", "110", moves::transpose, 1),
    permute!("zip2", "111", moves::zip, true),
    row!("ext", "0 Q 101110 00 0 Rm 0 imm4 0 Rn Rd",      BASE, "{Vd.B}, {Vn.B}, {Vm.B}, #{vimm4}", moves::extract).when(extract_fits),
    row!("tbl", "0 Q 001110 00 0 Rm 0 tlen 0 00 Rn Rd",   BASE, "{Vd.B}, {tlist}, {Vm.B}", moves::table_lookup, false),
    row!("tbx", "0 Q 001110 00 0 Rm 0 tlen 1 00 Rn Rd",   BASE, "{Vd.B}, {tlist}, {Vm.B}", moves::table_lookup, true),
];

#[rustfmt::skip]
static CRYPTO: &[Insn] = &[
    row!("aese",      "01001110 00 10100 00100 10 Rn Rd", F::AES, "{Vd.16b}, {Vn.16b}", simd::helper, H::Aese),
    row!("aesd",      "01001110 00 10100 00101 10 Rn Rd", F::AES, "{Vd.16b}, {Vn.16b}", simd::helper, H::Aesd),
    row!("aesmc",     "01001110 00 10100 00110 10 Rn Rd", F::AES, "{Vd.16b}, {Vn.16b}", simd::helper, H::Aesmc),
    row!("aesimc",    "01001110 00 10100 00111 10 Rn Rd", F::AES, "{Vd.16b}, {Vn.16b}", simd::helper, H::Aesimc),
    row!("sha1c",     "01011110 00 0 Rm 0 000 00 Rn Rd",  F::SHA1, "{Qd}, {Sn}, {Vm.4s}", simd::helper, H::Sha1c),
    row!("sha1p",     "01011110 00 0 Rm 0 001 00 Rn Rd",  F::SHA1, "{Qd}, {Sn}, {Vm.4s}", simd::helper, H::Sha1p),
    row!("sha1m",     "01011110 00 0 Rm 0 010 00 Rn Rd",  F::SHA1, "{Qd}, {Sn}, {Vm.4s}", simd::helper, H::Sha1m),
    row!("sha1su0",   "01011110 00 0 Rm 0 011 00 Rn Rd",  F::SHA1, "{Vd.4s}, {Vn.4s}, {Vm.4s}", simd::helper, H::Sha1su0),
    row!("sha256h",   "01011110 00 0 Rm 0 100 00 Rn Rd",  F::SHA256, "{Qd}, {Qn}, {Vm.4s}", simd::helper, H::Sha256h),
    row!("sha256h2",  "01011110 00 0 Rm 0 101 00 Rn Rd",  F::SHA256, "{Qd}, {Qn}, {Vm.4s}", simd::helper, H::Sha256h2),
    row!("sha256su1", "01011110 00 0 Rm 0 110 00 Rn Rd",  F::SHA256, "{Vd.4s}, {Vn.4s}, {Vm.4s}", simd::helper, H::Sha256su1),
    row!("sha1h",     "01011110 00 10100 00000 10 Rn Rd", F::SHA1, "{Sd}, {Sn}", simd::helper, H::Sha1h),
    row!("sha1su1",   "01011110 00 10100 00001 10 Rn Rd", F::SHA1, "{Vd.4s}, {Vn.4s}", simd::helper, H::Sha1su1),
    row!("sha256su0", "01011110 00 10100 00010 10 Rn Rd", F::SHA256, "{Vd.4s}, {Vn.4s}", simd::helper, H::Sha256su0),
    row!("sha512h",   "11001110 01 1 Rm 1 0 00 00 Rn Rd", F::SHA512, "{Qd}, {Qn}, {Vm.2d}", simd::helper, H::Sha512h),
    row!("sha512h2",  "11001110 01 1 Rm 1 0 00 01 Rn Rd", F::SHA512, "{Qd}, {Qn}, {Vm.2d}", simd::helper, H::Sha512h2),
    row!("sha512su1", "11001110 01 1 Rm 1 0 00 10 Rn Rd", F::SHA512, "{Vd.2d}, {Vn.2d}, {Vm.2d}", simd::helper, H::Sha512su1),
    row!("rax1",      "11001110 01 1 Rm 1 0 00 11 Rn Rd", F::SHA3, "{Vd.2d}, {Vn.2d}, {Vm.2d}", simd::rotate_and_xor),
    row!("sha512su0", "11001110 11 00000 0 10 00 00 Rn Rd", F::SHA512, "{Vd.2d}, {Vn.2d}", simd::helper, H::Sha512su0),
    row!("eor3",      "11001110 00 0 Rm 0 xxxxx Rn Rd",   F::SHA3, "{Vd.16b}, {Vn.16b}, {Vm.16b}, {Va.16b}", simd::xor3),
    row!("bcax",      "11001110 00 1 Rm 0 xxxxx Rn Rd",   F::SHA3, "{Vd.16b}, {Vn.16b}, {Vm.16b}, {Va.16b}", simd::clear_and_xor),
    row!("xar",       "11001110 10 0 Rm imm6x Rn Rd",     F::SHA3, "{Vd.2d}, {Vn.2d}, {Vm.2d}, #{imm6x}", simd::xor_and_rotate),
];
