//! Operations that compiled code leaves to [`isomer_ir::eval`], named by two constants in the code.

use isomer_ir::{
    Op,
    op::{BinOp, FmaOp, FpBinOp, FpCond, FpOverflow, UnOp, VecBinOp, VecUnOp},
    softfloat::{NanRule, Tininess},
    types::{FpFormat, FpModel, Lane, Rounding, Type, Value},
};

const UN: [UnOp; 8] = UnOp::ALL;
const BIN: [BinOp; 25] = BinOp::ALL;
const FP_BIN: [FpBinOp; 12] = FpBinOp::ALL;
const FMA: [FmaOp; 4] = FmaOp::ALL;
const FP_COND: [FpCond; 4] = FpCond::ALL;
const OVERFLOW: [FpOverflow; 4] = FpOverflow::ALL;
const VEC_UN: [VecUnOp; 10] = VecUnOp::ALL;
const VEC_BIN: [VecBinOp; 31] = VecBinOp::ALL;
const TYPES: [Type; 5] = [Type::I8, Type::I16, Type::I32, Type::I64, Type::V128];
const LANES: [Lane; 4] = [Lane::B, Lane::H, Lane::S, Lane::D];
const FORMATS: [FpFormat; 4] = [FpFormat::F16, FpFormat::Bf16, FpFormat::F32, FpFormat::F64];
const ROUNDINGS: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::TowardZero,
    Rounding::Down,
    Rounding::Up,
    Rounding::NearestAway,
    Rounding::Dynamic,
];
const NANS: [NanRule; 4] = [NanRule::Canonical, NanRule::Arm, NanRule::X86, NanRule::Power];

/// Kinds of operations, the lowest byte of the packed form.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Unary,
    Binary,
    FpBinary,
    FpSqrt,
    FpFma,
    FpCompare,
    FpConvert,
    FpToInt,
    FpFromInt,
    FpRound,
    VecUnary,
    VecBinary,
    VecFpBinary,
    VecFpFma,
    VecFpSqrt,
    VecFpCompare,
}

/// The operation as a constant, its operands left out; `None` for operations that every compiler must do itself
/// (moves, constants, memory, control).
pub fn pack(op: &Op) -> Option<u64> {
    let word = |kind: Kind, fields: [u8; 5]| {
        let mut bytes = [0; 8];
        bytes[0] = kind as u8;
        bytes[1..6].copy_from_slice(&fields);
        Some(u64::from_le_bytes(bytes))
    };
    match *op {
        Op::Unary { op, ty, .. } => word(Kind::Unary, [op as u8, ty as u8, 0, 0, 0]),
        Op::Binary { op, ty, .. } => word(Kind::Binary, [op as u8, ty as u8, 0, 0, 0]),
        Op::FpBinary { op, fmt, rounding, .. } => {
            word(Kind::FpBinary, [op as u8, format(fmt), rounding as u8, 0, 0])
        }
        Op::FpSqrt { fmt, rounding, .. } => word(Kind::FpSqrt, [0, format(fmt), rounding as u8, 0, 0]),
        Op::FpFma { op, fmt, rounding, .. } => {
            word(Kind::FpFma, [op as u8, format(fmt), rounding as u8, 0, 0])
        }
        Op::FpCompare { cond, fmt, signalling, .. } => {
            word(Kind::FpCompare, [cond as u8, format(fmt), signalling.into(), 0, 0])
        }
        Op::FpConvert { from, to, rounding, .. } => {
            word(Kind::FpConvert, [format(from), format(to), rounding as u8, 0, 0])
        }
        Op::FpToInt { fmt, to, signed, overflow, rounding, .. } => {
            word(Kind::FpToInt, [overflow as u8, format(fmt), rounding as u8, signed.into(), to as u8])
        }
        Op::FpFromInt { fmt, from, signed, rounding, .. } => {
            word(Kind::FpFromInt, [0, format(fmt), rounding as u8, signed.into(), from as u8])
        }
        Op::FpRound { fmt, rounding, inexact, .. } => {
            word(Kind::FpRound, [0, format(fmt), rounding as u8, inexact.into(), 0])
        }
        Op::VecUnary { op, lane, .. } => word(Kind::VecUnary, [op as u8, lane as u8, 0, 0, 0]),
        Op::VecBinary { op, lane, .. } => word(Kind::VecBinary, [op as u8, lane as u8, 0, 0, 0]),
        Op::VecFpBinary { op, fmt, rounding, .. } => {
            word(Kind::VecFpBinary, [op as u8, format(fmt), rounding as u8, 0, 0])
        }
        Op::VecFpFma { op, fmt, rounding, .. } => {
            word(Kind::VecFpFma, [op as u8, format(fmt), rounding as u8, 0, 0])
        }
        Op::VecFpSqrt { fmt, rounding, .. } => word(Kind::VecFpSqrt, [0, format(fmt), rounding as u8, 0, 0]),
        Op::VecFpCompare { cond, fmt, signalling, .. } => {
            word(Kind::VecFpCompare, [cond as u8, format(fmt), signalling.into(), 0, 0])
        }
        _ => None,
    }
}

/// Back from the constant; operands are `Value(0)` onwards. `None` for what [`pack`] never gives.
pub fn unpack(packed: u64) -> Option<Op> {
    let [kind, x, y, z, flag, extra, ..] = packed.to_le_bytes().map(usize::from);
    let (a, b, c) = (Value(0), Value(1), Value(2));
    let signed = flag != 0;
    let (fmt, rounding, lane) = (FORMATS.get(y).copied(), ROUNDINGS.get(z).copied(), LANES.get(y).copied());
    Some(match kind {
        0 => Op::Unary { op: *UN.get(x)?, ty: *TYPES.get(y)?, a },
        1 => Op::Binary { op: *BIN.get(x)?, ty: *TYPES.get(y)?, a, b },
        2 => Op::FpBinary { op: *FP_BIN.get(x)?, fmt: fmt?, rounding: rounding?, a, b },
        3 => Op::FpSqrt { fmt: fmt?, rounding: rounding?, a },
        4 => Op::FpFma { op: *FMA.get(x)?, fmt: fmt?, rounding: rounding?, a, b, c },
        5 => Op::FpCompare { cond: *FP_COND.get(x)?, fmt: fmt?, signalling: z != 0, a, b },
        6 => Op::FpConvert { from: *FORMATS.get(x)?, to: fmt?, rounding: rounding?, a },
        7 => Op::FpToInt {
            fmt: fmt?,
            to: *TYPES.get(extra)?,
            signed,
            overflow: *OVERFLOW.get(x)?,
            rounding: rounding?,
            a,
        },
        8 => Op::FpFromInt { fmt: fmt?, from: *TYPES.get(extra)?, signed, rounding: rounding?, a },
        9 => Op::FpRound { fmt: fmt?, rounding: rounding?, inexact: signed, a },
        10 => Op::VecUnary { op: *VEC_UN.get(x)?, lane: lane?, a },
        11 => Op::VecBinary { op: *VEC_BIN.get(x)?, lane: lane?, a, b },
        12 => Op::VecFpBinary { op: *FP_BIN.get(x)?, fmt: fmt?, rounding: rounding?, a, b },
        13 => Op::VecFpFma { op: *FMA.get(x)?, fmt: fmt?, rounding: rounding?, a, b, c },
        14 => Op::VecFpSqrt { fmt: fmt?, rounding: rounding?, a },
        15 => Op::VecFpCompare { cond: *FP_COND.get(x)?, fmt: fmt?, signalling: z != 0, a, b },
        _ => return None,
    })
}

fn format(fmt: FpFormat) -> u8 {
    match fmt {
        FpFormat::F16 => 0,
        FpFormat::Bf16 => 1,
        FpFormat::F32 => 2,
        FpFormat::F64 => 3,
    }
}

/// The floating-point rules as a constant.
pub fn pack_rules(fp: FpModel) -> u64 {
    let nan = NANS.iter().position(|rule| *rule == fp.nan).unwrap_or(0) as u64;
    nan | u64::from(fp.tininess == Tininess::Before) << 8
        | u64::from(fp.flush_inputs) << 9
        | u64::from(fp.flush_outputs) << 10
}

/// Back from the constant.
pub fn unpack_rules(packed: u64) -> FpModel {
    FpModel {
        nan: NANS[(packed & 3) as usize],
        tininess: if packed >> 8 & 1 != 0 { Tininess::Before } else { Tininess::After },
        flush_inputs: packed >> 9 & 1 != 0,
        flush_outputs: packed >> 10 & 1 != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variants are packed by number: the tables must be in the order of their declarations.
    #[test]
    fn tables_are_in_order() {
        assert!(UN.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(BIN.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(FP_BIN.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(FMA.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(FP_COND.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(OVERFLOW.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(VEC_UN.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(VEC_BIN.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(TYPES.iter().enumerate().all(|(i, ty)| *ty as usize == i));
        assert!(LANES.iter().enumerate().all(|(i, lane)| *lane as usize == i));
        assert!(ROUNDINGS.iter().enumerate().all(|(i, rounding)| *rounding as usize == i));
        assert!(FORMATS.iter().enumerate().all(|(i, fmt)| usize::from(format(*fmt)) == i));
    }

    #[test]
    fn operations_survive_packing() {
        let (a, b, c) = (Value(0), Value(1), Value(2));
        let (fmt, rounding) = (FpFormat::F32, Rounding::Up);
        let ops = [
            Op::Unary { op: UnOp::OrBytes, ty: Type::I32, a },
            Op::Binary { op: BinOp::ClMulHi, ty: Type::I64, a, b },
            Op::FpBinary { op: FpBinOp::Minimum, fmt, rounding, a, b },
            Op::FpSqrt { fmt: FpFormat::F16, rounding, a },
            Op::FpFma { op: FmaOp::NegMulSub, fmt, rounding, a, b, c },
            Op::FpCompare { cond: FpCond::Le, fmt, signalling: true, a, b },
            Op::FpConvert { from: FpFormat::F64, to: FpFormat::Bf16, rounding, a },
            Op::FpToInt {
                fmt,
                to: Type::I64,
                signed: false,
                overflow: FpOverflow::SaturateNanMin,
                rounding,
                a,
            },
            Op::FpFromInt { fmt, from: Type::I32, signed: true, rounding: Rounding::Dynamic, a },
            Op::FpRound { fmt, rounding, inexact: true, a },
            Op::VecUnary { op: VecUnOp::WidenHighS, lane: Lane::H, a },
            Op::VecBinary { op: VecBinOp::NarrowSatU, lane: Lane::D, a, b },
            Op::VecFpBinary { op: FpBinOp::MaxSelect, fmt, rounding, a, b },
            Op::VecFpFma { op: FmaOp::MulSub, fmt, rounding, a, b, c },
            Op::VecFpSqrt { fmt, rounding, a },
            Op::VecFpCompare { cond: FpCond::Unordered, fmt, signalling: false, a, b },
        ];
        for op in ops {
            assert_eq!(pack(&op).and_then(unpack), Some(op));
        }
        for rules in 0..16 {
            let packed = rules & 3 | (rules >> 2) << 8;
            assert_eq!(pack_rules(unpack_rules(packed)), packed);
        }
    }
}
