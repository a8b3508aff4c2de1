//! What the enumerations of the IR are called in the text form.

use crate::{
    op::{BinOp, Cond, FmaOp, FpBinOp, FpCond, FpOverflow, Op, RmwOp, UnOp, VecBinOp, VecUnOp},
    softfloat::{NanRule, Tininess},
    types::{
        Align, Endian, FpFormat, HelperId, Lane, MemFlags, MmuIndex, Order, Rounding, Slot, Type, Value,
    },
};
use std::mem::discriminant;

/// An enumeration whose values have names.
pub(super) trait Named: Copy + PartialEq + 'static {
    /// What one of them is, for error messages.
    const WHAT: &'static str;
    /// All of them.
    const NAMES: &'static [(Self, &'static str)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(value, _)| *value == self).map_or("?", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
    }
}

macro_rules! names {
    ($($ty:ident $what:literal: $($variant:ident $name:literal)*;)*) => {$(
        impl Named for $ty {
            const WHAT: &'static str = $what;
            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$variant, $name)),*];
        }
    )*};
}

names! {
    Type "a type": I8 "i8" I16 "i16" I32 "i32" I64 "i64" V128 "v128";
    Lane "a lane width": B "b" H "h" S "s" D "d";
    FpFormat "a floating-point format": F16 "f16" Bf16 "bf16" F32 "f32" F64 "f64";
    Rounding "a rounding mode":
        NearestEven "nearest" TowardZero "zero" Down "down" Up "up" NearestAway "away" Dynamic "dynamic";
    Order "a memory order":
        Relaxed "relaxed" Acquire "acquire" Release "release" AcqRel "acq_rel" SeqCst "seq_cst";
    NanRule "a NaN rule": Canonical "canonical" Arm "arm" X86 "x86" Power "power";
    Tininess "a tininess rule": Before "before" After "after";
    UnOp "an operation":
        Not "not" Neg "neg" Clz "clz" Ctz "ctz" Popcnt "popcnt" Bswap "bswap" Bitrev "bitrev" OrBytes "or_bytes";
    BinOp "an operation":
        Add "add" Sub "sub" Mul "mul" MulHiU "mul_hi_u" MulHiS "mul_hi_s" MulHiSU "mul_hi_su"
        DivU "div_u" DivS "div_s" RemU "rem_u" RemS "rem_s"
        And "and" Or "or" Xor "xor" AndNot "and_not"
        Shl "shl" ShrU "shr_u" ShrS "shr_s" Rotl "rotl" Rotr "rotr"
        MinU "min_u" MaxU "max_u" MinS "min_s" MaxS "max_s" ClMul "clmul" ClMulHi "clmul_hi";
    Cond "a condition": Eq "eq" Ne "ne" LtU "lt_u" GeU "ge_u" LtS "lt_s" GeS "ge_s";
    RmwOp "an atomic operation":
        Xchg "xchg" Add "add" And "and" AndNot "and_not" Or "or" Xor "xor"
        MinS "min_s" MaxS "max_s" MinU "min_u" MaxU "max_u";
    FpBinOp "a floating-point operation":
        Add "add" Sub "sub" Mul "mul" Div "div"
        MinNumber "min_number" MaxNumber "max_number" Minimum "minimum" Maximum "maximum"
        MinNum2008 "min_num_2008" MaxNum2008 "max_num_2008" MinSelect "min_select" MaxSelect "max_select";
    FmaOp "a fused multiply-add":
        MulAdd "mul_add" MulSub "mul_sub" NegMulAdd "neg_mul_add" NegMulSub "neg_mul_sub";
    FpCond "a floating-point condition": Eq "eq" Lt "lt" Le "le" Unordered "unordered";
    FpOverflow "an overflow rule":
        SaturateNanMax "nan_max" SaturateNanZero "nan_zero" Indefinite "indefinite" SaturateNanMin "nan_min";
    VecUnOp "a vector operation":
        Not "not" Neg "neg" Abs "abs" Clz "clz" Popcnt "popcnt" Reverse "reverse"
        WidenLowU "widen_low_u" WidenLowS "widen_low_s" WidenHighU "widen_high_u" WidenHighS "widen_high_s";
    VecBinOp "a vector operation":
        Add "add" Sub "sub" Mul "mul"
        AddSatU "add_sat_u" AddSatS "add_sat_s" SubSatU "sub_sat_u" SubSatS "sub_sat_s"
        MinU "min_u" MinS "min_s" MaxU "max_u" MaxS "max_s" AvgU "avg_u"
        And "and" Or "or" Xor "xor" AndNot "and_not"
        CmpEq "cmp_eq" CmpGtU "cmp_gt_u" CmpGtS "cmp_gt_s"
        ShlV "shl_v" ShrUV "shr_u_v" ShrSV "shr_s_v"
        ZipLow "zip_low" ZipHigh "zip_high" UnzipEven "unzip_even" UnzipOdd "unzip_odd" Table "table"
        Narrow "narrow" NarrowSatS "narrow_sat_s" NarrowSatSU "narrow_sat_su" NarrowSatU "narrow_sat_u";
}

const A: Value = Value(0);
const TY: Type = Type::I64;
const FMT: FpFormat = FpFormat::F64;
const R: Rounding = Rounding::Dynamic;
const LANE: Lane = Lane::B;
const FLAGS: MemFlags =
    MemFlags { mmu: MmuIndex(0), order: Order::Relaxed, endian: Endian::Little, align: Align::Any };

/// Every operation but [`Op::Unary`] and [`Op::Binary`], whose names are their [`UnOp`]'s and [`BinOp`]'s, with a
/// template that the parser fills in.
const OPS: &[(&str, Op)] = &[
    ("insn", Op::InsnStart { offset: 0, len: 0 }),
    ("const", Op::Const { ty: TY, bits: 0 }),
    ("const_vec", Op::ConstVec { bits: 0 }),
    ("pc_rel", Op::PcRel { offset: 0 }),
    ("get", Op::Get { slot: Slot(0) }),
    ("set", Op::Set { slot: Slot(0), value: A }),
    ("add_carry", Op::AddCarry { ty: TY, a: A, b: A, carry: A }),
    ("sub_borrow", Op::SubBorrow { ty: TY, a: A, b: A, borrow: A }),
    ("compare", Op::Compare { cond: Cond::Eq, ty: TY, a: A, b: A }),
    ("select", Op::Select { ty: TY, c: A, a: A, b: A }),
    ("zext", Op::Zext { to: TY, a: A }),
    ("sext", Op::Sext { to: TY, a: A }),
    ("trunc", Op::Trunc { to: TY, a: A }),
    ("extract", Op::Extract { ty: TY, a: A, lo: 0, len: 0, signed: false }),
    ("deposit", Op::Deposit { ty: TY, a: A, b: A, lo: 0, len: 0 }),
    ("load", Op::Load { ty: TY, mem: TY, signed: false, addr: A, flags: FLAGS }),
    ("store", Op::Store { mem: TY, addr: A, value: A, flags: FLAGS }),
    ("rmw", Op::Rmw { op: RmwOp::Add, ty: TY, addr: A, value: A, flags: FLAGS }),
    ("cas", Op::Cas { ty: TY, addr: A, expected: A, new: A, flags: FLAGS }),
    ("cas_pair", Op::CasPair { addr: A, expected: [A; 2], new: [A; 2], flags: FLAGS }),
    ("load_reserve", Op::LoadReserve { ty: TY, addr: A, flags: FLAGS }),
    ("store_cond", Op::StoreCond { ty: TY, addr: A, value: A, flags: FLAGS }),
    ("fence", Op::Fence { order: Order::SeqCst }),
    ("fp", Op::FpBinary { op: FpBinOp::Add, fmt: FMT, rounding: R, a: A, b: A }),
    ("fp_sqrt", Op::FpSqrt { fmt: FMT, rounding: R, a: A }),
    ("fp_fma", Op::FpFma { op: FmaOp::MulAdd, fmt: FMT, rounding: R, a: A, b: A, c: A }),
    ("fp_compare", Op::FpCompare { cond: FpCond::Eq, fmt: FMT, signalling: false, a: A, b: A }),
    ("fp_convert", Op::FpConvert { from: FMT, to: FMT, rounding: R, a: A }),
    (
        "fp_to_int",
        Op::FpToInt { fmt: FMT, to: TY, signed: false, overflow: FpOverflow::Indefinite, rounding: R, a: A },
    ),
    ("fp_from_int", Op::FpFromInt { fmt: FMT, from: TY, signed: false, rounding: R, a: A }),
    ("fp_round", Op::FpRound { fmt: FMT, rounding: R, inexact: false, a: A }),
    ("vec_unary", Op::VecUnary { op: VecUnOp::Not, lane: LANE, a: A }),
    ("vec", Op::VecBinary { op: VecBinOp::Add, lane: LANE, a: A, b: A }),
    ("vec_select", Op::VecSelect { m: A, a: A, b: A }),
    ("vec_shift", Op::VecShift { lane: LANE, left: false, signed: false, amount: 0, a: A }),
    ("vec_splat", Op::VecSplat { lane: LANE, a: A }),
    ("vec_get", Op::VecGet { lane: LANE, index: 0, a: A }),
    ("vec_set", Op::VecSet { lane: LANE, index: 0, a: A, b: A }),
    ("vec_shuffle", Op::VecShuffle { bytes: [0; 16], a: A, b: A }),
    ("vec_fp", Op::VecFpBinary { op: FpBinOp::Add, fmt: FMT, rounding: R, a: A, b: A }),
    ("vec_fp_fma", Op::VecFpFma { op: FmaOp::MulAdd, fmt: FMT, rounding: R, a: A, b: A, c: A }),
    ("vec_fp_sqrt", Op::VecFpSqrt { fmt: FMT, rounding: R, a: A }),
    ("vec_fp_compare", Op::VecFpCompare { cond: FpCond::Eq, fmt: FMT, signalling: false, a: A, b: A }),
    ("call", Op::Call { helper: HelperId(0), args: [None; 4], result: None }),
    ("trap_if", Op::TrapIf { c: A, code: 0, value: A }),
];

/// The operation's name.
pub(super) fn mnemonic(op: &Op) -> &'static str {
    match op {
        Op::Unary { op, .. } => op.name(),
        Op::Binary { op, .. } => op.name(),
        _ => {
            let known = OPS.iter().find(|(_, template)| discriminant(template) == discriminant(op));
            known.map_or("?", |(name, _)| name)
        }
    }
}

/// An operation of that name, to be filled in.
pub(super) fn template(name: &str) -> Option<Op> {
    let known = OPS.iter().find(|(known, _)| *known == name).map(|(_, op)| *op);
    known
        .or_else(|| UnOp::from_name(name).map(|op| Op::Unary { op, ty: TY, a: A }))
        .or_else(|| BinOp::from_name(name).map(|op| Op::Binary { op, ty: TY, a: A, b: A }))
}
