//! Advanced SIMD instructions on floating-point lanes, vector and scalar (the manual, C4.1.96). Most have a row for single
//! and double precision, told apart by sz, and one for half precision.

use crate::{
    Features as F,
    decode::Insn,
    float::DYNAMIC,
    helpers_fp::FpHelper as H,
    lift_simd as simd,
    lift_simd::Zero,
    lift_simd_fp::{self as fp, Relation},
    operands::row,
    pattern::Field,
    table::BASE,
};
use isomer_ir::{
    op::{FmaOp, FpBinOp as B},
    types::{FpFormat, Rounding as R},
};

/// All of them.
pub(crate) static TABLES: &[&[Insn]] = &[SAME, SCALAR_SAME, MISC, SCALAR_MISC, ACROSS, ELEMENT, FIXED, EXTRA];

/// No vector of one double.
fn no_1d(insn: u32) -> bool {
    insn >> 30 & 1 != 0 || insn >> 22 & 1 == 0
}

/// Elements: doubles have one index bit and whole vectors only.
fn element_fits(insn: u32) -> bool {
    insn >> 22 & 1 == 0 || insn >> 30 & 1 != 0 && Field::Lm.of(insn) == 0
}

/// FCMLA, FCADD: halves, singles and doubles in pairs.
fn complex_fits(insn: u32) -> bool {
    match Field::vsize.of(insn) {
        0 => false,
        3 => insn >> 30 & 1 != 0,
        _ => true,
    }
}

/// FCMLA by element: halves with an index below the vector's pairs, singles in whole vectors.
fn complex_element_fits(insn: u32) -> bool {
    match Field::vsize.of(insn) {
        1 => insn >> 30 & 1 != 0 || Field::H.of(insn) == 0,
        2 => insn >> 30 & 1 != 0 && Field::Lm.of(insn) == 0,
        _ => false,
    }
}

/// Fixed point: 32 and 64 bits.
fn fixed_fits(insn: u32) -> bool {
    match Field::immh.of(insn) {
        0..4 => false,
        8.. => insn >> 30 & 1 != 0,
        _ => true,
    }
}

/// Scalar fixed point.
fn scalar_fixed_fits(insn: u32) -> bool {
    Field::immh.of(insn) >= 4
}

/// Fixed point of 16 bits.
fn half_fixed(insn: u32) -> bool {
    matches!(Field::immh.of(insn), 2 | 3)
}

/// Both precisions of an instruction on vectors: U, bit 23, opcode for sz, opcode for halves.
macro_rules! same {
    ($($name:literal $u:literal $a:literal $op:literal $half:literal $f:ident($($arg:expr),*);)*) => {
        #[rustfmt::skip]
        static SAME: &[Insn] = &[$(
            row!($name, concat!("0 Q ", $u, " 01110 ", $a, " sz 1 Rm ", $op, " 1 Rn Rd"), BASE,
                "{Vd.F}, {Vn.F}, {Vm.F}", fp::$f, false $(, $arg)*).when(no_1d),
            row!($name, concat!("0 Q ", $u, " 01110 ", $a, " 10 Rm 00 ", $half, " 1 Rn Rd"), F::FP16,
                "{Vd.H}, {Vn.H}, {Vm.H}", fp::$f, true $(, $arg)*),
        )*
            row!("fmulx",   "0 Q 0 01110 0 sz 1 Rm 11011 1 Rn Rd", BASE, "{Vd.F}, {Vn.F}, {Vm.F}", simd::helper, H::Fmulx).when(no_1d),
            row!("fmulx",   "0 Q 0 01110 0 10 Rm 00 011 1 Rn Rd",  F::FP16, "{Vd.H}, {Vn.H}, {Vm.H}", simd::helper, H::Fmulx),
            row!("frecps",  "0 Q 0 01110 0 sz 1 Rm 11111 1 Rn Rd", BASE, "{Vd.F}, {Vn.F}, {Vm.F}", simd::helper, H::Frecps).when(no_1d),
            row!("frecps",  "0 Q 0 01110 0 10 Rm 00 111 1 Rn Rd",  F::FP16, "{Vd.H}, {Vn.H}, {Vm.H}", simd::helper, H::Frecps),
            row!("frsqrts", "0 Q 0 01110 1 sz 1 Rm 11111 1 Rn Rd", BASE, "{Vd.F}, {Vn.F}, {Vm.F}", simd::helper, H::Frsqrts).when(no_1d),
            row!("frsqrts", "0 Q 0 01110 1 10 Rm 00 111 1 Rn Rd",  F::FP16, "{Vd.H}, {Vn.H}, {Vm.H}", simd::helper, H::Frsqrts),
            row!("fmlal",   "0 Q 0 01110 00 1 Rm 11101 1 Rn Rd",   F::FHM, "{Vd.S}, {Vn.h}, {Vm.h}", simd::helper, H::Fmlal),
            row!("fmlsl",   "0 Q 0 01110 10 1 Rm 11101 1 Rn Rd",   F::FHM, "{Vd.S}, {Vn.h}, {Vm.h}", simd::helper, H::Fmlal),
            row!("fmlal2",  "0 Q 1 01110 00 1 Rm 11001 1 Rn Rd",   F::FHM, "{Vd.S}, {Vn.h}, {Vm.h}", simd::helper, H::Fmlal),
            row!("fmlsl2",  "0 Q 1 01110 10 1 Rm 11001 1 Rn Rd",   F::FHM, "{Vd.S}, {Vn.h}, {Vm.h}", simd::helper, H::Fmlal),
        ];
    };
}

same! {
    "fmaxnm"  "0" "0" "11000" "000" binary(B::MaxNum2008);
    "fminnm"  "0" "1" "11000" "000" binary(B::MinNum2008);
    "fmla"    "0" "0" "11001" "001" multiply_add(FmaOp::MulAdd);
    "fmls"    "0" "1" "11001" "001" multiply_add(FmaOp::NegMulAdd);
    "fadd"    "0" "0" "11010" "010" binary(B::Add);
    "fsub"    "0" "1" "11010" "010" binary(B::Sub);
    "fcmeq"   "0" "0" "11100" "100" compare(Relation::Eq, false);
    "fmax"    "0" "0" "11110" "110" binary(B::Maximum);
    "fmin"    "0" "1" "11110" "110" binary(B::Minimum);
    "fmaxnmp" "1" "0" "11000" "000" pairwise(B::MaxNum2008);
    "fminnmp" "1" "1" "11000" "000" pairwise(B::MinNum2008);
    "faddp"   "1" "0" "11010" "010" pairwise(B::Add);
    "fabd"    "1" "1" "11010" "010" difference();
    "fmul"    "1" "0" "11011" "011" binary(B::Mul);
    "fcmge"   "1" "0" "11100" "100" compare(Relation::Ge, false);
    "fcmgt"   "1" "1" "11100" "100" compare(Relation::Gt, false);
    "facge"   "1" "0" "11101" "101" compare(Relation::Ge, true);
    "facgt"   "1" "1" "11101" "101" compare(Relation::Gt, true);
    "fmaxp"   "1" "0" "11110" "110" pairwise(B::Maximum);
    "fminp"   "1" "1" "11110" "110" pairwise(B::Minimum);
    "fdiv"    "1" "0" "11111" "111" binary(B::Div);
}

/// The scalar forms.
macro_rules! scalar_same {
    ($($name:literal $u:literal $a:literal $op:literal $half:literal ($($lift:expr),*) ($($lift_half:expr),*);)*) => {
        #[rustfmt::skip]
        static SCALAR_SAME: &[Insn] = &[$(
            row!($name, concat!("01 ", $u, " 11110 ", $a, " sz 1 Rm ", $op, " 1 Rn Rd"), BASE,
                "{Yd}, {Yn}, {Ym}", $($lift),*),
            row!($name, concat!("01 ", $u, " 11110 ", $a, " 10 Rm 00 ", $half, " 1 Rn Rd"), F::FP16,
                "{Hd}, {Hn}, {Hm}", $($lift_half),*),
        )*];
    };
}

scalar_same! {
    "fmulx"   "0" "0" "11011" "011" (simd::helper, H::Fmulx) (simd::helper, H::Fmulx);
    "fcmeq"   "0" "0" "11100" "100" (fp::compare, false, Relation::Eq, false) (fp::compare, true, Relation::Eq, false);
    "frecps"  "0" "0" "11111" "111" (simd::helper, H::Frecps) (simd::helper, H::Frecps);
    "frsqrts" "0" "1" "11111" "111" (simd::helper, H::Frsqrts) (simd::helper, H::Frsqrts);
    "fcmge"   "1" "0" "11100" "100" (fp::compare, false, Relation::Ge, false) (fp::compare, true, Relation::Ge, false);
    "fcmgt"   "1" "1" "11100" "100" (fp::compare, false, Relation::Gt, false) (fp::compare, true, Relation::Gt, false);
    "facge"   "1" "0" "11101" "101" (fp::compare, false, Relation::Ge, true) (fp::compare, true, Relation::Ge, true);
    "facgt"   "1" "1" "11101" "101" (fp::compare, false, Relation::Gt, true) (fp::compare, true, Relation::Gt, true);
    "fabd"    "1" "1" "11010" "010" (fp::difference, false) (fp::difference, true);
}

/// One source, both precisions, vector and (after `scalar`) scalar: U, bit 23, opcode, assembly behind the registers.
macro_rules! misc {
    ($($name:literal $u:literal $a:literal $op:literal $rest:literal ($($lift:expr),*) ($($lift_half:expr),*);)*
        scalar $($sname:literal $su:literal $sa:literal $sop:literal $srest:literal ($($slift:expr),*) ($($slift_half:expr),*);)*) => {
        #[rustfmt::skip]
        static MISC: &[Insn] = &[$(
            row!($name, concat!("0 Q ", $u, " 01110 ", $a, " sz 10000 ", $op, " 10 Rn Rd"), BASE,
                concat!("{Vd.F}, {Vn.F}", $rest), $($lift),*).when(no_1d),
            row!($name, concat!("0 Q ", $u, " 01110 ", $a, " 111100 ", $op, " 10 Rn Rd"), F::FP16,
                concat!("{Vd.H}, {Vn.H}", $rest), $($lift_half),*),
        )*
            row!("fcvtn{2}",  "0 Q 0 01110 0 0 10000 10110 10 Rn Rd", BASE, "{Vd.H}, {Vn.4s}", simd::helper, H::FcvtnHalf),
            row!("fcvtn{2}",  "0 Q 0 01110 0 1 10000 10110 10 Rn Rd", BASE, "{Vd.S}, {Vn.2d}", fp::convert_narrow, FpFormat::F64, FpFormat::F32),
            row!("bfcvtn{2}", "0 Q 0 01110 1 0 10000 10110 10 Rn Rd", F::BF16, "{Vd.H}, {Vn.4s}", fp::convert_narrow, FpFormat::F32, FpFormat::Bf16),
            row!("fcvtl{2}",  "0 Q 0 01110 0 0 10000 10111 10 Rn Rd", BASE, "{Vd.4s}, {Vn.H}", simd::helper, H::FcvtlHalf),
            row!("fcvtl{2}",  "0 Q 0 01110 0 1 10000 10111 10 Rn Rd", BASE, "{Vd.2d}, {Vn.S}", fp::convert_long),
            row!("fcvtxn{2}", "0 Q 1 01110 0 1 10000 10110 10 Rn Rd", BASE, "{Vd.S}, {Vn.2d}", simd::helper, H::Fcvtxn),
            row!("frint32z",  "0 Q 0 01110 0 sz 10000 11110 10 Rn Rd", F::FRINTTS, "{Vd.F}, {Vn.F}", simd::helper, H::FrintSized).when(no_1d),
            row!("frint32x",  "0 Q 1 01110 0 sz 10000 11110 10 Rn Rd", F::FRINTTS, "{Vd.F}, {Vn.F}", simd::helper, H::FrintSized).when(no_1d),
            row!("frint64z",  "0 Q 0 01110 0 sz 10000 11111 10 Rn Rd", F::FRINTTS, "{Vd.F}, {Vn.F}", simd::helper, H::FrintSized).when(no_1d),
            row!("frint64x",  "0 Q 1 01110 0 sz 10000 11111 10 Rn Rd", F::FRINTTS, "{Vd.F}, {Vn.F}", simd::helper, H::FrintSized).when(no_1d),
        ];
        #[rustfmt::skip]
        static SCALAR_MISC: &[Insn] = &[$(
            row!($sname, concat!("01 ", $su, " 11110 ", $sa, " sz 10000 ", $sop, " 10 Rn Rd"), BASE,
                concat!("{Yd}, {Yn}", $srest), $($slift),*),
            row!($sname, concat!("01 ", $su, " 11110 ", $sa, " 111100 ", $sop, " 10 Rn Rd"), F::FP16,
                concat!("{Hd}, {Hn}", $srest), $($slift_half),*),
        )*
            row!("fcvtxn",  "01 1 11110 0 1 10000 10110 10 Rn Rd", BASE, "{Sd}, {Dn}", simd::helper, H::Fcvtxn),
        ];
    };
}

misc! {
    "frintn" "0" "0" "11000" "" (fp::round, false, R::NearestEven, false) (fp::round, true, R::NearestEven, false);
    "frintp" "0" "1" "11000" "" (fp::round, false, R::Up, false) (fp::round, true, R::Up, false);
    "frintm" "0" "0" "11001" "" (fp::round, false, R::Down, false) (fp::round, true, R::Down, false);
    "frintz" "0" "1" "11001" "" (fp::round, false, R::TowardZero, false) (fp::round, true, R::TowardZero, false);
    "frinta" "1" "0" "11000" "" (fp::round, false, R::NearestAway, false) (fp::round, true, R::NearestAway, false);
    "frintx" "1" "0" "11001" "" (fp::round, false, DYNAMIC, true) (fp::round, true, DYNAMIC, true);
    "frinti" "1" "1" "11001" "" (fp::round, false, DYNAMIC, false) (fp::round, true, DYNAMIC, false);
    "fabs"   "0" "1" "01111" "" (fp::absolute, false) (fp::absolute, true);
    "fneg"   "1" "1" "01111" "" (fp::negate, false) (fp::negate, true);
    "fsqrt"  "1" "1" "11111" "" (fp::square_root, false) (fp::square_root, true);
    "fcmgt"  "0" "1" "01100" ", #0.0" (fp::compare_zero, false, Zero::Gt) (fp::compare_zero, true, Zero::Gt);
    "fcmeq"  "0" "1" "01101" ", #0.0" (fp::compare_zero, false, Zero::Eq) (fp::compare_zero, true, Zero::Eq);
    "fcmlt"  "0" "1" "01110" ", #0.0" (fp::compare_zero, false, Zero::Lt) (fp::compare_zero, true, Zero::Lt);
    "fcmge"  "1" "1" "01100" ", #0.0" (fp::compare_zero, false, Zero::Ge) (fp::compare_zero, true, Zero::Ge);
    "fcmle"  "1" "1" "01101" ", #0.0" (fp::compare_zero, false, Zero::Le) (fp::compare_zero, true, Zero::Le);
    "fcvtns" "0" "0" "11010" "" (fp::to_integer, R::NearestEven) (simd::helper, H::ConvertHalf);
    "fcvtps" "0" "1" "11010" "" (fp::to_integer, R::Up) (simd::helper, H::ConvertHalf);
    "fcvtms" "0" "0" "11011" "" (fp::to_integer, R::Down) (simd::helper, H::ConvertHalf);
    "fcvtzs" "0" "1" "11011" "" (fp::to_integer, R::TowardZero) (simd::helper, H::ConvertHalf);
    "fcvtas" "0" "0" "11100" "" (fp::to_integer, R::NearestAway) (simd::helper, H::ConvertHalf);
    "scvtf"  "0" "0" "11101" "" (fp::from_integer) (simd::helper, H::ConvertHalf);
    "fcvtnu" "1" "0" "11010" "" (fp::to_integer, R::NearestEven) (simd::helper, H::ConvertHalf);
    "fcvtpu" "1" "1" "11010" "" (fp::to_integer, R::Up) (simd::helper, H::ConvertHalf);
    "fcvtmu" "1" "0" "11011" "" (fp::to_integer, R::Down) (simd::helper, H::ConvertHalf);
    "fcvtzu" "1" "1" "11011" "" (fp::to_integer, R::TowardZero) (simd::helper, H::ConvertHalf);
    "fcvtau" "1" "0" "11100" "" (fp::to_integer, R::NearestAway) (simd::helper, H::ConvertHalf);
    "ucvtf"  "1" "0" "11101" "" (fp::from_integer) (simd::helper, H::ConvertHalf);
    "frecpe" "0" "1" "11101" "" (simd::helper, H::Frecpe) (simd::helper, H::Frecpe);
    "frsqrte" "1" "1" "11101" "" (simd::helper, H::Frsqrte) (simd::helper, H::Frsqrte);
    scalar
    "fcmgt"  "0" "1" "01100" ", #0.0" (fp::compare_zero, false, Zero::Gt) (fp::compare_zero, true, Zero::Gt);
    "fcmeq"  "0" "1" "01101" ", #0.0" (fp::compare_zero, false, Zero::Eq) (fp::compare_zero, true, Zero::Eq);
    "fcmlt"  "0" "1" "01110" ", #0.0" (fp::compare_zero, false, Zero::Lt) (fp::compare_zero, true, Zero::Lt);
    "fcmge"  "1" "1" "01100" ", #0.0" (fp::compare_zero, false, Zero::Ge) (fp::compare_zero, true, Zero::Ge);
    "fcmle"  "1" "1" "01101" ", #0.0" (fp::compare_zero, false, Zero::Le) (fp::compare_zero, true, Zero::Le);
    "fcvtns" "0" "0" "11010" "" (fp::to_integer, R::NearestEven) (simd::helper, H::ConvertHalf);
    "fcvtps" "0" "1" "11010" "" (fp::to_integer, R::Up) (simd::helper, H::ConvertHalf);
    "fcvtms" "0" "0" "11011" "" (fp::to_integer, R::Down) (simd::helper, H::ConvertHalf);
    "fcvtzs" "0" "1" "11011" "" (fp::to_integer, R::TowardZero) (simd::helper, H::ConvertHalf);
    "fcvtas" "0" "0" "11100" "" (fp::to_integer, R::NearestAway) (simd::helper, H::ConvertHalf);
    "scvtf"  "0" "0" "11101" "" (fp::from_integer) (simd::helper, H::ConvertHalf);
    "fcvtnu" "1" "0" "11010" "" (fp::to_integer, R::NearestEven) (simd::helper, H::ConvertHalf);
    "fcvtpu" "1" "1" "11010" "" (fp::to_integer, R::Up) (simd::helper, H::ConvertHalf);
    "fcvtmu" "1" "0" "11011" "" (fp::to_integer, R::Down) (simd::helper, H::ConvertHalf);
    "fcvtzu" "1" "1" "11011" "" (fp::to_integer, R::TowardZero) (simd::helper, H::ConvertHalf);
    "fcvtau" "1" "0" "11100" "" (fp::to_integer, R::NearestAway) (simd::helper, H::ConvertHalf);
    "ucvtf"  "1" "0" "11101" "" (fp::from_integer) (simd::helper, H::ConvertHalf);
    "frecpe" "0" "1" "11101" "" (simd::helper, H::Frecpe) (simd::helper, H::Frecpe);
    "frecpx" "0" "1" "11111" "" (simd::helper, H::Frecpx) (simd::helper, H::Frecpx);
    "frsqrte" "1" "1" "11101" "" (simd::helper, H::Frsqrte) (simd::helper, H::Frsqrte);
}

/// Across lanes, and of pairs of lanes.
macro_rules! across {
    ($($name:literal $a:literal $op:literal $operation:ident;)* pairs $($pname:literal $pa:literal $pop:literal $poperation:ident;)*) => {
        #[rustfmt::skip]
        static ACROSS: &[Insn] = &[$(
            row!($name, concat!("0 1 1 01110 ", $a, " 0 11000 ", $op, " 10 Rn Rd"), BASE, "{Sd}, {Vn.4s}", fp::across, false, B::$operation),
            row!($name, concat!("0 Q 0 01110 ", $a, " 0 11000 ", $op, " 10 Rn Rd"), F::FP16, "{Hd}, {Vn.H}", fp::across, true, B::$operation),
        )*$(
            row!($pname, concat!("01 1 11110 ", $pa, " sz 11000 ", $pop, " 10 Rn Rd"), BASE, "{Yd}, {Vn.2}", fp::pairwise_scalar, false, B::$poperation),
            row!($pname, concat!("01 0 11110 ", $pa, " 0 11000 ", $pop, " 10 Rn Rd"), F::FP16, "{Hd}, {Vn.2h}", fp::pairwise_scalar, true, B::$poperation),
        )*];
    };
}

across! {
    "fmaxnmv" "0" "01100" MaxNum2008;
    "fminnmv" "1" "01100" MinNum2008;
    "fmaxv"   "0" "01111" Maximum;
    "fminv"   "1" "01111" Minimum;
    pairs
    "fmaxnmp" "0" "01100" MaxNum2008;
    "fminnmp" "1" "01100" MinNum2008;
    "faddp"   "0" "01101" Add;
    "fmaxp"   "0" "01111" Maximum;
    "fminp"   "1" "01111" Minimum;
}

/// By element: vectors and scalars of both precisions.
macro_rules! element {
    ($($name:literal $u:literal $op:literal ($($lift:expr),*) ($($lift_half:expr),*);)*) => {
        #[rustfmt::skip]
        static ELEMENT: &[Insn] = &[$(
            row!($name, concat!("0 Q ", $u, " 01111 1 sz Lm M Rm4 ", $op, " H 0 Rn Rd"), BASE,
                "{Vd.F}, {Vn.F}, {Vm.ef}", $($lift),*).when(element_fits),
            row!($name, concat!("0 Q ", $u, " 01111 00 Lm M Rm4 ", $op, " H 0 Rn Rd"), F::FP16,
                "{Vd.H}, {Vn.H}, {Vm.eh}", $($lift_half),*),
            row!($name, concat!("01 ", $u, " 11111 1 sz Lm M Rm4 ", $op, " H 0 Rn Rd"), BASE,
                "{Yd}, {Yn}, {Vm.ef}", $($lift),*).when(element_fits),
            row!($name, concat!("01 ", $u, " 11111 00 Lm M Rm4 ", $op, " H 0 Rn Rd"), F::FP16,
                "{Hd}, {Hn}, {Vm.eh}", $($lift_half),*),
        )*
            row!("fmlal",  "0 Q 0 01111 10 Lm M Rm4 0000 H 0 Rn Rd", F::FHM, "{Vd.S}, {Vn.h}, {Vm.eh}", simd::helper, H::Fmlal),
            row!("fmlsl",  "0 Q 0 01111 10 Lm M Rm4 0100 H 0 Rn Rd", F::FHM, "{Vd.S}, {Vn.h}, {Vm.eh}", simd::helper, H::Fmlal),
            row!("fmlal2", "0 Q 1 01111 10 Lm M Rm4 1000 H 0 Rn Rd", F::FHM, "{Vd.S}, {Vn.h}, {Vm.eh}", simd::helper, H::Fmlal),
            row!("fmlsl2", "0 Q 1 01111 10 Lm M Rm4 1100 H 0 Rn Rd", F::FHM, "{Vd.S}, {Vn.h}, {Vm.eh}", simd::helper, H::Fmlal),
        ];
    };
}

element! {
    "fmla"  "0" "0001" (fp::multiply_add_element, false, FmaOp::MulAdd) (fp::multiply_add_element, true, FmaOp::MulAdd);
    "fmls"  "0" "0101" (fp::multiply_add_element, false, FmaOp::NegMulAdd) (fp::multiply_add_element, true, FmaOp::NegMulAdd);
    "fmul"  "0" "1001" (fp::multiply_element, false) (fp::multiply_element, true);
    "fmulx" "1" "1001" (simd::helper, H::Fmulx) (simd::helper, H::Fmulx);
}

/// To and from fixed point.
macro_rules! fixed {
    ($($name:literal $u:literal $op:literal;)*) => {
        #[rustfmt::skip]
        static FIXED: &[Insn] = &[$(
            row!($name, concat!("0 Q ", $u, " 011110 immh immb ", $op, " 1 Rn Rd"), F::FP16,
                "{Vd.I}, {Vn.I}, #{shr}", simd::helper, H::ConvertFixed).when(half_fixed).refines(),
            row!($name, concat!("01 ", $u, " 111110 immh immb ", $op, " 1 Rn Rd"), F::FP16,
                "{Id}, {In}, #{shr}", simd::helper, H::ConvertFixed).when(half_fixed).refines(),
            row!($name, concat!("0 Q ", $u, " 011110 immh immb ", $op, " 1 Rn Rd"), BASE,
                "{Vd.I}, {Vn.I}, #{shr}", simd::helper, H::ConvertFixed).when(fixed_fits),
            row!($name, concat!("01 ", $u, " 111110 immh immb ", $op, " 1 Rn Rd"), BASE,
                "{Id}, {In}, #{shr}", simd::helper, H::ConvertFixed).when(scalar_fixed_fits),
        )*];
    };
}

fixed! {
    "scvtf"  "0" "11100";
    "ucvtf"  "1" "11100";
    "fcvtzs" "0" "11111";
    "fcvtzu" "1" "11111";
}

/// Complex numbers and brain floating point.
#[rustfmt::skip]
static EXTRA: &[Insn] = &[
    row!("fcmla",   "0 Q 1 01110 vsize 0 Rm 110 xx 1 Rn Rd", F::FCMA, "{Vd.T}, {Vn.T}, {Vm.T}, #{rot11}", fp::complex_multiply).when(complex_fits),
    row!("fcadd",   "0 Q 1 01110 vsize 0 Rm 111 x 01 Rn Rd", F::FCMA, "{Vd.T}, {Vn.T}, {Vm.T}, #{rotadd}", fp::complex_add).when(complex_fits),
    row!("fcmla",   "0 Q 1 01111 vsize Lm M Rm4 0 xx 1 H 0 Rn Rd", F::FCMA, "{Vd.T}, {Vn.T}, {Vm.ec}, #{rot13}", fp::complex_multiply_element).when(complex_element_fits),
    row!("bfdot",   "0 Q 1 01110 01 0 Rm 11111 1 Rn Rd",        F::BF16, "{Vd.S}, {Vn.H}, {Vm.H}", simd::helper, H::Bfdot),
    row!("bfdot",   "0 Q 0 01111 01 Lm M Rm4 1111 H 0 Rn Rd",   F::BF16, "{Vd.S}, {Vn.H}, {Vm.e2h}", simd::helper, H::Bfdot),
    row!("bfmmla",  "0 1 1 01110 01 0 Rm 11101 1 Rn Rd",        F::BF16, "{Vd.4s}, {Vn.8h}, {Vm.8h}", simd::helper, H::Bfmmla),
    row!("bfmlalb", "0 0 1 01110 11 0 Rm 11111 1 Rn Rd",        F::BF16, "{Vd.4s}, {Vn.8h}, {Vm.8h}", fp::brain_multiply_add),
    row!("bfmlalt", "0 1 1 01110 11 0 Rm 11111 1 Rn Rd",        F::BF16, "{Vd.4s}, {Vn.8h}, {Vm.8h}", fp::brain_multiply_add),
    row!("bfmlalb", "0 0 0 01111 11 Lm M Rm4 1111 H 0 Rn Rd",   F::BF16, "{Vd.4s}, {Vn.8h}, {Vm.eh}", fp::brain_multiply_add_element),
    row!("bfmlalt", "0 1 0 01111 11 Lm M Rm4 1111 H 0 Rn Rd",   F::BF16, "{Vd.4s}, {Vn.8h}, {Vm.eh}", fp::brain_multiply_add_element),
];
