//! Floating-point operations as lifting functions emit them.
//!
//! A block has one rule for subnormals, FPCR.FZ; half precision has its own, FPCR.FZ16 (the manual, A1.5.5). Where
//! either is set, operations on halves are calls of a helper that computes the same operation by its own rule.

use crate::{helpers_fp::FpHelper, lift::Lift, vector::FpState, vreg::lane_of_format};
use isomer_ir::{
    Op, Type, Value, eval,
    guest::HelperCx,
    op::{FmaOp, FpBinOp, FpCond, FpOverflow, UnOp},
    softfloat::Flags,
    types::{FpFormat, FpModel, Lane, Rounding},
};
use std::sync::LazyLock;

/// FPCR.RMode.
pub(crate) const DYNAMIC: Rounding = Rounding::Dynamic;

/// The operations on halves, by the number that [`half`] takes. Operands say nothing.
static HALF: LazyLock<Vec<Op>> = LazyLock::new(|| {
    use FpBinOp::{Add, Div, MaxNum2008, Maximum, MinNum2008, Minimum, Mul, Sub};
    const FMT: FpFormat = FpFormat::F16;
    let [a, b, c] = [Value(0); 3];
    let mut ops = vec![Op::FpSqrt { fmt: FMT, rounding: DYNAMIC, a }];
    for op in [Add, Sub, Mul, Div, Minimum, Maximum, MinNum2008, MaxNum2008] {
        ops.push(Op::FpBinary { op, fmt: FMT, rounding: DYNAMIC, a, b });
    }
    for op in [FmaOp::MulAdd, FmaOp::MulSub, FmaOp::NegMulAdd, FmaOp::NegMulSub] {
        ops.push(Op::FpFma { op, fmt: FMT, rounding: DYNAMIC, a, b, c });
    }
    for signed in [false, true] {
        for cond in [FpCond::Eq, FpCond::Lt, FpCond::Le, FpCond::Unordered] {
            ops.push(Op::FpCompare { cond, fmt: FMT, signalling: signed, a, b });
        }
        for rounding in ROUNDINGS {
            ops.push(Op::FpRound { fmt: FMT, rounding, inexact: signed, a });
            for to in [Type::I32, Type::I64] {
                let overflow = FpOverflow::SaturateNanZero;
                ops.push(Op::FpToInt { fmt: FMT, to, signed, overflow, rounding, a });
            }
        }
        for from in [Type::I32, Type::I64] {
            ops.push(Op::FpFromInt { fmt: FMT, from, signed, rounding: DYNAMIC, a });
        }
    }
    ops
});

const ROUNDINGS: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::TowardZero,
    Rounding::Down,
    Rounding::Up,
    Rounding::NearestAway,
    Rounding::Dynamic,
];

/// Computes operation number `number` of [`HALF`]: the helper.
pub(crate) fn half(
    cx: &mut HelperCx<'_, crate::Aarch64>,
    [number, a, b, c]: [u64; 4],
) -> Result<u64, crate::Trap> {
    let Some(op) = HALF.get(number as usize) else { return Ok(0) };
    let mut fp = FpState::of(cx.cpu);
    let env = fp.env(FpFormat::F16);
    let model = FpModel {
        nan: env.nan,
        tininess: env.tininess,
        flush_inputs: env.flush_inputs,
        flush_outputs: env.flush_outputs,
    };
    let mut flags = 0;
    let operands = [a, b, c].map(u128::from);
    let result = eval::compute(op, &operands, model, cx.cpu.header.rounding, &mut flags);
    fp.raise(Flags::from_bits(flags), false);
    fp.leave(cx.cpu);
    Ok(result.map_or(0, |[value, ..]| value as u64))
}

/// The format that an operation computes in.
fn format_of(op: &Op) -> Option<FpFormat> {
    match *op {
        Op::FpBinary { fmt, .. }
        | Op::FpSqrt { fmt, .. }
        | Op::FpFma { fmt, .. }
        | Op::FpCompare { fmt, .. }
        | Op::FpRound { fmt, .. }
        | Op::FpToInt { fmt, .. }
        | Op::FpFromInt { fmt, .. }
        | Op::VecFpBinary { fmt, .. }
        | Op::VecFpFma { fmt, .. }
        | Op::VecFpSqrt { fmt, .. }
        | Op::VecFpCompare { fmt, .. } => Some(fmt),
        _ => None,
    }
}

impl Lift<'_> {
    /// Does half precision have rules of its own here?
    fn half_differs(&self) -> bool {
        self.mode.flush_to_zero() || self.mode.flush_to_zero_half()
    }

    /// Emits a floating-point operation, scalar or lane by lane.
    pub(crate) fn fp(&mut self, op: Op) -> Value {
        if format_of(&op) != Some(FpFormat::F16) || !self.half_differs() {
            return self.b.push(op);
        }
        match op {
            Op::VecFpBinary { op, fmt, rounding, a, b } => {
                self.half_lanes([a, b, b], |[a, b, _]| Op::FpBinary { op, fmt, rounding, a, b })
            }
            Op::VecFpFma { op, fmt, rounding, a, b, c } => {
                self.half_lanes([a, b, c], |[a, b, c]| Op::FpFma { op, fmt, rounding, a, b, c })
            }
            Op::VecFpSqrt { fmt, rounding, a } => {
                self.half_lanes([a, a, a], |[a, ..]| Op::FpSqrt { fmt, rounding, a })
            }
            Op::VecFpCompare { cond, fmt, signalling, a, b } => {
                self.half_lanes([a, b, b], |[a, b, _]| Op::FpCompare { cond, fmt, signalling, a, b })
            }
            _ => self.half(op),
        }
    }

    /// Calls the helper for a scalar operation.
    fn half(&mut self, op: Op) -> Value {
        let plain = op.clone_with(|_| Value(0));
        let Some(number) = HALF.iter().position(|known| *known == plain) else {
            return self.b.push(op);
        };
        let mut args = vec![self.imm(number as i64)];
        op.for_each_operand(|value| args.push(value));
        let args: Vec<Value> = args.into_iter().map(|value| self.b.zext(Type::I64, value)).collect();
        let ([ty, ..], _) = op.results(|_| Type::I64);
        self.b.call(FpHelper::Half.id(), &args, ty)
    }

    fn half_lanes(&mut self, operands: [Value; 3], op: impl Fn([Value; 3]) -> Op) -> Value {
        let mut result = self.b.vconst(0);
        for index in 0..Lane::H.count() as u8 {
            let [a, b, c] = operands.map(|v| self.vec_get(Lane::H, index, v));
            let mut value = self.half(op([a, b, c]));
            if self.b.type_of(value) == Type::I8 {
                let truth = self.b.zext(Type::I16, value);
                value = self.b.un(UnOp::Neg, truth);
            }
            result = self.vec_set(Lane::H, index, result, value);
        }
        result
    }

    /// The sign bit of a format as a constant.
    pub(crate) fn sign_of(&mut self, fmt: FpFormat) -> Value {
        self.b.iconst(fmt.ty(), fmt.sign_bit())
    }

    /// The sign bits of all lanes.
    pub(crate) fn signs_of(&mut self, fmt: FpFormat) -> Value {
        self.vec_const(lane_of_format(fmt), fmt.sign_bit())
    }
}

/// The rounding direction of FPCR.RMode's encoding, which instructions use as well (the manual, C4.1.96, rmode).
pub(crate) const fn rounding(rmode: u32) -> Rounding {
    match rmode {
        0 => Rounding::NearestEven,
        1 => Rounding::Up,
        2 => Rounding::Down,
        _ => Rounding::TowardZero,
    }
}
