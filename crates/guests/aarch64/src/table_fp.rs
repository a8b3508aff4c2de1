//! Scalar floating-point instructions, and loads and stores of SIMD and floating-point registers (the manual, C4.1.96 and
//! C4.1.97).

use crate::{
    Features as F,
    decode::Insn,
    float::DYNAMIC,
    lift_fp as fp,
    lift_mem::{Base, has_offset_register},
    lift_simd_mem as mem,
    operands::row,
    pattern::Field,
    table::BASE,
    table_simd, table_simd_fp,
};
use isomer_ir::{
    Type,
    op::{FmaOp, FpBinOp as B},
    types::Rounding as R,
};

/// Every row of an instruction that floating-point access controls apply to.
pub(crate) fn tables() -> impl Iterator<Item = &'static Insn> {
    let own: [&[Insn]; 7] = [SCALAR, INTEGER, LITERALS, SINGLES, PAIRS, ORDERED, STRUCTURES];
    table_simd::TABLES.iter().chain(table_simd_fp::TABLES).copied().flatten().chain(own.into_iter().flatten())
}

/// Rows for single and double (ftype 0x) and, with FP16, half (ftype 11).
macro_rules! scalar {
    ($($name:literal $assembly:literal $rest:literal $lift:path $(, $arg:expr)*;)* more $($row:expr,)*) => {
        #[rustfmt::skip]
        static SCALAR: &[Insn] = &[$(
            row!($name, concat!("000 11110 ftype!2,3 ", $rest), BASE, $assembly, $lift $(, $arg)*),
            row!($name, concat!("000 11110 11 ", $rest), F::FP16, $assembly, $lift $(, $arg)*),
        )* $($row,)*];
    };
}

scalar! {
    "fmov"   "{Fd}, {Fn}" "1 000000 10000 Rn Rd" fp::copy;
    "fabs"   "{Fd}, {Fn}" "1 000001 10000 Rn Rd" fp::absolute;
    "fneg"   "{Fd}, {Fn}" "1 000010 10000 Rn Rd" fp::negate;
    "fsqrt"  "{Fd}, {Fn}" "1 000011 10000 Rn Rd" fp::square_root;
    "frintn" "{Fd}, {Fn}" "1 001000 10000 Rn Rd" fp::round, R::NearestEven, false;
    "frintp" "{Fd}, {Fn}" "1 001001 10000 Rn Rd" fp::round, R::Up, false;
    "frintm" "{Fd}, {Fn}" "1 001010 10000 Rn Rd" fp::round, R::Down, false;
    "frintz" "{Fd}, {Fn}" "1 001011 10000 Rn Rd" fp::round, R::TowardZero, false;
    "frinta" "{Fd}, {Fn}" "1 001100 10000 Rn Rd" fp::round, R::NearestAway, false;
    "frintx" "{Fd}, {Fn}" "1 001110 10000 Rn Rd" fp::round, DYNAMIC, true;
    "frinti" "{Fd}, {Fn}" "1 001111 10000 Rn Rd" fp::round, DYNAMIC, false;
    "fmul"   "{Fd}, {Fn}, {Fm}" "1 Rm 0000 10 Rn Rd" fp::binary, B::Mul;
    "fdiv"   "{Fd}, {Fn}, {Fm}" "1 Rm 0001 10 Rn Rd" fp::binary, B::Div;
    "fadd"   "{Fd}, {Fn}, {Fm}" "1 Rm 0010 10 Rn Rd" fp::binary, B::Add;
    "fsub"   "{Fd}, {Fn}, {Fm}" "1 Rm 0011 10 Rn Rd" fp::binary, B::Sub;
    "fmax"   "{Fd}, {Fn}, {Fm}" "1 Rm 0100 10 Rn Rd" fp::binary, B::Maximum;
    "fmin"   "{Fd}, {Fn}, {Fm}" "1 Rm 0101 10 Rn Rd" fp::binary, B::Minimum;
    "fmaxnm" "{Fd}, {Fn}, {Fm}" "1 Rm 0110 10 Rn Rd" fp::binary, B::MaxNum2008;
    "fminnm" "{Fd}, {Fn}, {Fm}" "1 Rm 0111 10 Rn Rd" fp::binary, B::MinNum2008;
    "fnmul"  "{Fd}, {Fn}, {Fm}" "1 Rm 1000 10 Rn Rd" fp::multiply_negate;
    "fcmp"   "{Fn}, {Fm}"  "1 Rm 00 1000 Rn 00 000"    fp::compare, false, false;
    "fcmp"   "{Fn}, #0.0"  "1 xxxxx 00 1000 Rn 01 000" fp::compare, false, true;
    "fcmpe"  "{Fn}, {Fm}"  "1 Rm 00 1000 Rn 10 000"    fp::compare, true, false;
    "fcmpe"  "{Fn}, #0.0"  "1 xxxxx 00 1000 Rn 11 000" fp::compare, true, true;
    "fccmp"  "{Fn}, {Fm}, #{nzcv}, {cond}" "1 Rm cond 01 Rn 0 nzcv" fp::conditional_compare, false;
    "fccmpe" "{Fn}, {Fm}, #{nzcv}, {cond}" "1 Rm cond 01 Rn 1 nzcv" fp::conditional_compare, true;
    "fcsel"  "{Fd}, {Fn}, {Fm}, {cond}" "1 Rm cond 11 Rn Rd" fp::select;
    "fmov"   "{Fd}, #{float}" "1 fimm8 100 00000 Rd" fp::immediate;
    more
    row!("fcvt",   "000 11110 00 1 0001 01 10000 Rn Rd", BASE, "{Dd}, {Sn}", fp::convert),
    row!("fcvt",   "000 11110 00 1 0001 11 10000 Rn Rd", BASE, "{Hd}, {Sn}", fp::convert),
    row!("fcvt",   "000 11110 01 1 0001 00 10000 Rn Rd", BASE, "{Sd}, {Dn}", fp::convert),
    row!("fcvt",   "000 11110 01 1 0001 11 10000 Rn Rd", BASE, "{Hd}, {Dn}", fp::convert),
    row!("fcvt",   "000 11110 11 1 0001 00 10000 Rn Rd", BASE, "{Sd}, {Hn}", fp::convert),
    row!("fcvt",   "000 11110 11 1 0001 01 10000 Rn Rd", BASE, "{Dd}, {Hn}", fp::convert),
    row!("bfcvt",  "000 11110 01 1 000110 10000 Rn Rd",  F::BF16, "{Hd}, {Sn}", fp::convert_brain),
    row!("frint32z", "000 11110 ftype!2,3 1 010000 10000 Rn Rd", F::FRINTTS, "{Fd}, {Fn}", fp::round_sized),
    row!("frint32x", "000 11110 ftype!2,3 1 010001 10000 Rn Rd", F::FRINTTS, "{Fd}, {Fn}", fp::round_sized),
    row!("frint64z", "000 11110 ftype!2,3 1 010010 10000 Rn Rd", F::FRINTTS, "{Fd}, {Fn}", fp::round_sized),
    row!("frint64x", "000 11110 ftype!2,3 1 010011 10000 Rn Rd", F::FRINTTS, "{Fd}, {Fn}", fp::round_sized),
    row!("fmadd",  "000 11111 ftype!2,3 0 Rm 0 Ra Rn Rd", BASE, "{Fd}, {Fn}, {Fm}, {Fa}", fp::multiply_add, FmaOp::MulAdd),
    row!("fmsub",  "000 11111 ftype!2,3 0 Rm 1 Ra Rn Rd", BASE, "{Fd}, {Fn}, {Fm}, {Fa}", fp::multiply_add, FmaOp::NegMulAdd),
    row!("fnmadd", "000 11111 ftype!2,3 1 Rm 0 Ra Rn Rd", BASE, "{Fd}, {Fn}, {Fm}, {Fa}", fp::multiply_add, FmaOp::NegMulSub),
    row!("fnmsub", "000 11111 ftype!2,3 1 Rm 1 Ra Rn Rd", BASE, "{Fd}, {Fn}, {Fm}, {Fa}", fp::multiply_add, FmaOp::MulSub),
    row!("fmadd",  "000 11111 11 0 Rm 0 Ra Rn Rd", F::FP16, "{Fd}, {Fn}, {Fm}, {Fa}", fp::multiply_add, FmaOp::MulAdd),
    row!("fmsub",  "000 11111 11 0 Rm 1 Ra Rn Rd", F::FP16, "{Fd}, {Fn}, {Fm}, {Fa}", fp::multiply_add, FmaOp::NegMulAdd),
    row!("fnmadd", "000 11111 11 1 Rm 0 Ra Rn Rd", F::FP16, "{Fd}, {Fn}, {Fm}, {Fa}", fp::multiply_add, FmaOp::NegMulSub),
    row!("fnmsub", "000 11111 11 1 Rm 1 Ra Rn Rd", F::FP16, "{Fd}, {Fn}, {Fm}, {Fa}", fp::multiply_add, FmaOp::MulSub),
}

/// A 32-bit register has at most 32 fraction bits.
fn fraction_fits(insn: u32) -> bool {
    insn >> 31 != 0 || insn >> 15 & 1 != 0
}

/// To and from general registers: rmode and opcode.
macro_rules! integer {
    ($($name:literal $op:literal $assembly:literal $lift:path $(, $arg:expr)*;)* fixed $($fname:literal $fop:literal $fassembly:literal $flift:path;)*
        more $($row:expr,)*) => {
        #[rustfmt::skip]
        static INTEGER: &[Insn] = &[$(
            row!($name, concat!("sf 0011110 ftype!2,3 1 ", $op, " 000000 Rn Rd"), BASE, $assembly, $lift $(, $arg)*),
            row!($name, concat!("sf 0011110 11 1 ", $op, " 000000 Rn Rd"), F::FP16, $assembly, $lift $(, $arg)*),
        )*$(
            row!($fname, concat!("sf 0011110 ftype!2,3 0 ", $fop, " fscale Rn Rd"), BASE, $fassembly, $flift).when(fraction_fits),
            row!($fname, concat!("sf 0011110 11 0 ", $fop, " fscale Rn Rd"), F::FP16, $fassembly, $flift).when(fraction_fits),
        )* $($row,)*];
    };
}

integer! {
    "fcvtns" "00 000" "{Rd}, {Fn}" fp::to_integer, false;
    "fcvtnu" "00 001" "{Rd}, {Fn}" fp::to_integer, false;
    "fcvtps" "01 000" "{Rd}, {Fn}" fp::to_integer, false;
    "fcvtpu" "01 001" "{Rd}, {Fn}" fp::to_integer, false;
    "fcvtms" "10 000" "{Rd}, {Fn}" fp::to_integer, false;
    "fcvtmu" "10 001" "{Rd}, {Fn}" fp::to_integer, false;
    "fcvtzs" "11 000" "{Rd}, {Fn}" fp::to_integer, false;
    "fcvtzu" "11 001" "{Rd}, {Fn}" fp::to_integer, false;
    "fcvtas" "00 100" "{Rd}, {Fn}" fp::to_integer, true;
    "fcvtau" "00 101" "{Rd}, {Fn}" fp::to_integer, true;
    "scvtf"  "00 010" "{Fd}, {Rn}" fp::from_integer;
    "ucvtf"  "00 011" "{Fd}, {Rn}" fp::from_integer;
    fixed
    "fcvtzs" "11 000" "{Rd}, {Fn}, #{fbits}" fp::to_fixed;
    "fcvtzu" "11 001" "{Rd}, {Fn}, #{fbits}" fp::to_fixed;
    "scvtf"  "00 010" "{Fd}, {Rn}, #{fbits}" fp::from_fixed;
    "ucvtf"  "00 011" "{Fd}, {Rn}, #{fbits}" fp::from_fixed;
    more
    row!("fjcvtzs", "0 0011110 01 1 11 110 000000 Rn Rd", F::JSCVT, "{Wd}, {Dn}", fp::to_javascript),
    row!("fmov", "0 0011110 00 1 00 110 000000 Rn Rd", BASE,    "{Wd}, {Sn}", fp::to_general),
    row!("fmov", "0 0011110 00 1 00 111 000000 Rn Rd", BASE,    "{Sd}, {Wn}", fp::from_general),
    row!("fmov", "1 0011110 01 1 00 110 000000 Rn Rd", BASE,    "{Xd}, {Dn}", fp::to_general),
    row!("fmov", "1 0011110 01 1 00 111 000000 Rn Rd", BASE,    "{Dd}, {Xn}", fp::from_general),
    row!("fmov", "sf 0011110 11 1 00 110 000000 Rn Rd", F::FP16, "{Rd}, {Hn}", fp::to_general),
    row!("fmov", "sf 0011110 11 1 00 111 000000 Rn Rd", F::FP16, "{Hd}, {Rn}", fp::from_general),
    row!("fmov", "1 0011110 10 1 01 110 000000 Rn Rd", BASE,    "{Xd}, {Vn.d1}", fp::to_general_upper),
    row!("fmov", "1 0011110 10 1 01 111 000000 Rn Rd", BASE,    "{Vd.d1}, {Xn}", fp::from_general_upper),
}

#[rustfmt::skip]
static LITERALS: &[Insn] = &[
    row!("ldr", "00 011 1 00 imm19 Rt", BASE, "{St}, {imm19}", mem::load_literal, Type::I32),
    row!("ldr", "01 011 1 00 imm19 Rt", BASE, "{Dt}, {imm19}", mem::load_literal, Type::I64),
    row!("ldr", "10 011 1 00 imm19 Rt", BASE, "{Qt}, {imm19}", mem::load_literal, Type::V128),
];

/// Every addressing mode of one register: size, the upper bit of opc, the register in assembly, log2 of the size.
macro_rules! singles {
    ($($size:literal $opc:literal $rt:literal $scale:literal $ty:ident;)*) => {
        #[rustfmt::skip]
        static SINGLES: &[Insn] = &[$(
            row!("str", concat!($size, " 111101 ", $opc, "0 imm12 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}{off12.", $scale, "}]"), mem::store_scaled, Type::$ty),
            row!("ldr", concat!($size, " 111101 ", $opc, "1 imm12 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}{off12.", $scale, "}]"), mem::load_scaled, Type::$ty),
            row!("stur", concat!($size, " 111100 ", $opc, "0 0 imm9 00 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}{off9}]"), mem::store_unscaled, Type::$ty, Base::Kept),
            row!("ldur", concat!($size, " 111100 ", $opc, "1 0 imm9 00 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}{off9}]"), mem::load_unscaled, Type::$ty, Base::Kept),
            row!("str", concat!($size, " 111100 ", $opc, "0 0 imm9 01 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}], #{imm9}"), mem::store_unscaled, Type::$ty, Base::Post),
            row!("ldr", concat!($size, " 111100 ", $opc, "1 0 imm9 01 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}], #{imm9}"), mem::load_unscaled, Type::$ty, Base::Post),
            row!("str", concat!($size, " 111100 ", $opc, "0 0 imm9 11 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}, #{imm9}]!"), mem::store_unscaled, Type::$ty, Base::Pre),
            row!("ldr", concat!($size, " 111100 ", $opc, "1 0 imm9 11 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}, #{imm9}]!"), mem::load_unscaled, Type::$ty, Base::Pre),
            row!("str", concat!($size, " 111100 ", $opc, "0 1 Rm option S 10 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}, {offreg.", $scale, "}]"), mem::store_indexed, Type::$ty).when(has_offset_register),
            row!("ldr", concat!($size, " 111100 ", $opc, "1 1 Rm option S 10 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}, {offreg.", $scale, "}]"), mem::load_indexed, Type::$ty).when(has_offset_register),
        )*];
    };
}

singles! {
    "00" "0" "Bt" "0" I8;
    "01" "0" "Ht" "1" I16;
    "10" "0" "St" "2" I32;
    "11" "0" "Dt" "3" I64;
    "00" "1" "Qt" "4" V128;
}

/// Pairs: opc, the registers in assembly, log2 of the size.
macro_rules! pairs {
    ($($opc:literal $rt:literal $rt2:literal $scale:literal $ty:ident;)*) => {
        #[rustfmt::skip]
        static PAIRS: &[Insn] = &[$(
            row!("stnp", concat!($opc, " 101 1 000 0 imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}{off7.", $scale, "}]"), mem::store_pair, Type::$ty, Base::Kept),
            row!("ldnp", concat!($opc, " 101 1 000 1 imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}{off7.", $scale, "}]"), mem::load_pair, Type::$ty, Base::Kept),
            row!("stp", concat!($opc, " 101 1 001 0 imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}], #{imm7.", $scale, "}"), mem::store_pair, Type::$ty, Base::Post),
            row!("ldp", concat!($opc, " 101 1 001 1 imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}], #{imm7.", $scale, "}"), mem::load_pair, Type::$ty, Base::Post),
            row!("stp", concat!($opc, " 101 1 010 0 imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}{off7.", $scale, "}]"), mem::store_pair, Type::$ty, Base::Kept),
            row!("ldp", concat!($opc, " 101 1 010 1 imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}{off7.", $scale, "}]"), mem::load_pair, Type::$ty, Base::Kept),
            row!("stp", concat!($opc, " 101 1 011 0 imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}, #{imm7.", $scale, "}]!"), mem::store_pair, Type::$ty, Base::Pre),
            row!("ldp", concat!($opc, " 101 1 011 1 imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}, #{imm7.", $scale, "}]!"), mem::load_pair, Type::$ty, Base::Pre),
        )*];
    };
}

pairs! {
    "00" "St" "St2" "2" I32;
    "01" "Dt" "Dt2" "3" I64;
    "10" "Qt" "Qt2" "4" V128;
}

/// Acquire and release.
#[rustfmt::skip]
static ORDERED: &[Insn] = &[
    row!("stlur",  "00 011101 00 0 imm9 10 Rn Rt", F::LRCPC3, "{Bt}, [{Xnsp}{off9}]", mem::store_release, Type::I8),
    row!("ldapur", "00 011101 01 0 imm9 10 Rn Rt", F::LRCPC3, "{Bt}, [{Xnsp}{off9}]", mem::load_acquire, Type::I8),
    row!("stlur",  "01 011101 00 0 imm9 10 Rn Rt", F::LRCPC3, "{Ht}, [{Xnsp}{off9}]", mem::store_release, Type::I16),
    row!("ldapur", "01 011101 01 0 imm9 10 Rn Rt", F::LRCPC3, "{Ht}, [{Xnsp}{off9}]", mem::load_acquire, Type::I16),
    row!("stlur",  "10 011101 00 0 imm9 10 Rn Rt", F::LRCPC3, "{St}, [{Xnsp}{off9}]", mem::store_release, Type::I32),
    row!("ldapur", "10 011101 01 0 imm9 10 Rn Rt", F::LRCPC3, "{St}, [{Xnsp}{off9}]", mem::load_acquire, Type::I32),
    row!("stlur",  "11 011101 00 0 imm9 10 Rn Rt", F::LRCPC3, "{Dt}, [{Xnsp}{off9}]", mem::store_release, Type::I64),
    row!("ldapur", "11 011101 01 0 imm9 10 Rn Rt", F::LRCPC3, "{Dt}, [{Xnsp}{off9}]", mem::load_acquire, Type::I64),
    row!("stlur",  "00 011101 10 0 imm9 10 Rn Rt", F::LRCPC3, "{Qt}, [{Xnsp}{off9}]", mem::store_release, Type::V128),
    row!("ldapur", "00 011101 11 0 imm9 10 Rn Rt", F::LRCPC3, "{Qt}, [{Xnsp}{off9}]", mem::load_acquire, Type::V128),
    row!("stl1",   "0 Q 0011010 0 0 00001 100 0 01 Rn Rt", F::LRCPC3, "{element.1}, [{Xnsp}]", mem::store_release_lane),
    row!("ldap1",  "0 Q 0011010 1 0 00001 100 0 01 Rn Rt", F::LRCPC3, "{element.1}, [{Xnsp}]", mem::load_acquire_lane),
];

/// Structures of several elements need lanes to interleave: no vector of one doubleword.
fn interleaves(insn: u32) -> bool {
    insn >> 30 & 1 != 0 || Field::ldsize.of(insn) != 3
}

/// A lane of halfwords, words or doublewords has fewer index bits.
fn single_fits(insn: u32) -> bool {
    let (size, s) = (Field::ldsize.of(insn), Field::ldS.of(insn));
    match insn >> 14 & 3 {
        0 => true,
        1 => size & 1 == 0,
        _ => size == 0 || size == 1 && s == 0,
    }
}

/// Without write-back and with it: mnemonic, opcode, registers, elements.
macro_rules! structures {
    ($($load:literal $store:literal $op:literal $registers:literal $elements:literal $when:ident;)*
        single $($sload:literal $sstore:literal $replicate:literal $r:literal $last:literal $count:literal;)*) => {
        #[rustfmt::skip]
        static STRUCTURES: &[Insn] = &[$(
            row!($store, concat!("0 Q 0011000 0 000000 ", $op, " ldsize Rn Rt"), BASE,
                concat!("{list.", $registers, "}, [{Xnsp}]"), mem::store_multiple, $registers, $elements).when($when),
            row!($load, concat!("0 Q 0011000 1 000000 ", $op, " ldsize Rn Rt"), BASE,
                concat!("{list.", $registers, "}, [{Xnsp}]"), mem::load_multiple, $registers, $elements).when($when),
            row!($store, concat!("0 Q 0011001 0 0 Rm ", $op, " ldsize Rn Rt"), BASE,
                concat!("{list.", $registers, "}, [{Xnsp}], {post.", $registers, "}"), mem::store_multiple, $registers, $elements).when($when),
            row!($load, concat!("0 Q 0011001 1 0 Rm ", $op, " ldsize Rn Rt"), BASE,
                concat!("{list.", $registers, "}, [{Xnsp}], {post.", $registers, "}"), mem::load_multiple, $registers, $elements).when($when),
        )*$(
            row!($sstore, concat!("0 Q 0011010 0 ", $r, " 00000 00", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}]"), mem::store_single, $count).when(single_fits),
            row!($sstore, concat!("0 Q 0011010 0 ", $r, " 00000 01", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}]"), mem::store_single, $count).when(single_fits),
            row!($sstore, concat!("0 Q 0011010 0 ", $r, " 00000 10", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}]"), mem::store_single, $count).when(single_fits),
            row!($sload, concat!("0 Q 0011010 1 ", $r, " 00000 00", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}]"), mem::load_single, $count).when(single_fits),
            row!($sload, concat!("0 Q 0011010 1 ", $r, " 00000 01", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}]"), mem::load_single, $count).when(single_fits),
            row!($sload, concat!("0 Q 0011010 1 ", $r, " 00000 10", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}]"), mem::load_single, $count).when(single_fits),
            row!($replicate, concat!("0 Q 0011010 1 ", $r, " 00000 11", $last, " 0 ldsize Rn Rt"), BASE,
                concat!("{list.", $count, "}, [{Xnsp}]"), mem::load_replicate, $count),
            row!($sstore, concat!("0 Q 0011011 0 ", $r, " Rm 00", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}], {epost.", $count, "}"), mem::store_single, $count).when(single_fits),
            row!($sstore, concat!("0 Q 0011011 0 ", $r, " Rm 01", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}], {epost.", $count, "}"), mem::store_single, $count).when(single_fits),
            row!($sstore, concat!("0 Q 0011011 0 ", $r, " Rm 10", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}], {epost.", $count, "}"), mem::store_single, $count).when(single_fits),
            row!($sload, concat!("0 Q 0011011 1 ", $r, " Rm 00", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}], {epost.", $count, "}"), mem::load_single, $count).when(single_fits),
            row!($sload, concat!("0 Q 0011011 1 ", $r, " Rm 01", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}], {epost.", $count, "}"), mem::load_single, $count).when(single_fits),
            row!($sload, concat!("0 Q 0011011 1 ", $r, " Rm 10", $last, " ldS ldsize Rn Rt"), BASE,
                concat!("{element.", $count, "}, [{Xnsp}], {epost.", $count, "}"), mem::load_single, $count).when(single_fits),
            row!($replicate, concat!("0 Q 0011011 1 ", $r, " Rm 11", $last, " 0 ldsize Rn Rt"), BASE,
                concat!("{list.", $count, "}, [{Xnsp}], {rpost.", $count, "}"), mem::load_replicate, $count),
        )*];
    };
}

/// Consecutive registers hold anything.
fn anything(_: u32) -> bool {
    true
}

structures! {
    "ld4" "st4" "0000" 4 4 interleaves;
    "ld1" "st1" "0010" 4 1 anything;
    "ld3" "st3" "0100" 3 3 interleaves;
    "ld1" "st1" "0110" 3 1 anything;
    "ld1" "st1" "0111" 1 1 anything;
    "ld2" "st2" "1000" 2 2 interleaves;
    "ld1" "st1" "1010" 2 1 anything;
    single
    "ld1" "st1" "ld1r" "0" "0" 1;
    "ld2" "st2" "ld2r" "1" "0" 2;
    "ld3" "st3" "ld3r" "0" "1" 3;
    "ld4" "st4" "ld4r" "1" "1" 4;
}
