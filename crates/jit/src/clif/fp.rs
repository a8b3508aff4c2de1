//! Floating point with host instructions, exact flags and NaN rules included. The host's control register holds the
//! guest's dynamic rounding, and its sticky flags accumulate the guest's, while compiled code runs; what the host does
//! differently goes to the evaluator, out of line.

use super::translate::Translator;
use crate::CompileError;
use cranelift_codegen::ir::{
    self, Block, InstBuilder, MemFlagsData, Type as ClifType,
    condcodes::{FloatCC, IntCC},
    types::{F32, F64, I8, I32, I64},
};
use isomer_ir::{
    Inst, Op, Type,
    op::{FmaOp, FpBinOp, FpCond},
    softfloat::{NanRule, Tininess},
    types::{FpFormat, FpModel, Rounding, Value},
};

/// The host's formats and rules: SSE detects tininess after rounding, and keeps flags in MXCSR.
fn is_native(fmt: FpFormat, fp: FpModel) -> bool {
    cfg!(target_arch = "x86_64")
        && matches!(fmt, FpFormat::F32 | FpFormat::F64)
        && fp.tininess == Tininess::After
        && !fp.flush_inputs
        && !fp.flush_outputs
        && matches!(fp.nan, NanRule::Canonical | NanRule::X86)
}

const fn float_type(fmt: FpFormat) -> ClifType {
    match fmt {
        FpFormat::F32 => F32,
        _ => F64,
    }
}

impl Translator<'_, '_> {
    pub(super) fn float_op(&mut self, inst: &Inst) -> Result<(), CompileError> {
        let (fp, first) = (self.fp, inst.first);
        let dynamic = |rounding: Rounding| rounding == Rounding::Dynamic;
        match inst.op {
            Op::FpBinary { op, fmt, rounding, a, b } if is_native(fmt, fp) && dynamic(rounding) => match op {
                FpBinOp::Add | FpBinOp::Sub | FpBinOp::Mul | FpBinOp::Div => {
                    let (a, b) = (self.float(a), self.float(b));
                    let value = match op {
                        FpBinOp::Add => self.b.ins().fadd(a, b),
                        FpBinOp::Sub => self.b.ins().fsub(a, b),
                        FpBinOp::Mul => self.b.ins().fmul(a, b),
                        _ => self.b.ins().fdiv(a, b),
                    };
                    let value = self.canonical(fmt, value);
                    self.define_float(first, value);
                    Ok(())
                }
                _ => self.min_max(inst),
            },
            Op::FpBinary { op, fmt, .. } if is_native(fmt, fp) && is_min_max(op) => self.min_max(inst),
            Op::FpSqrt { fmt, rounding, a } if is_native(fmt, fp) && dynamic(rounding) => {
                let a = self.float(a);
                let value = self.b.ins().sqrt(a);
                let value = self.canonical(fmt, value);
                self.define_float(first, value);
                Ok(())
            }
            Op::FpFma { op, fmt, rounding, a, b, c }
                if is_native(fmt, fp) && dynamic(rounding) && self.features.fma =>
            {
                self.fused(inst, (op, fmt), [a, b, c])
            }
            Op::FpCompare { cond, fmt, signalling, a, b } if is_native(fmt, fp) => {
                self.compare(inst, (cond, signalling), a, b)
            }
            Op::FpConvert { from, to, rounding, a }
                if is_native(from, fp) && is_native(to, fp) && (dynamic(rounding) || to == FpFormat::F64) =>
            {
                let a = self.float(a);
                let value = match (from, to) {
                    (FpFormat::F32, FpFormat::F64) => self.b.ins().fpromote(F64, a),
                    (FpFormat::F64, FpFormat::F32) => self.b.ins().fdemote(F32, a),
                    // To itself: quiets a NaN, raises its flag.
                    _ => return self.compute_all(inst),
                };
                let value = self.canonical(to, value);
                self.define_float(first, value);
                Ok(())
            }
            Op::FpToInt { fmt, to, signed, rounding: Rounding::TowardZero, a, .. } if is_native(fmt, fp) => {
                self.truncate(inst, (fmt, to), signed, a)
            }
            Op::FpFromInt { fmt, from, signed, rounding, a } if is_native(fmt, fp) => {
                let exact = fmt == FpFormat::F64 && from == Type::I32;
                if !exact && !dynamic(rounding) {
                    return self.compute_all(inst);
                }
                let a = self.bits(a);
                let ty = float_type(fmt);
                let value = match (from, signed) {
                    (_, true) => self.b.ins().fcvt_from_sint(ty, a),
                    (Type::I32, false) => {
                        let wide = self.b.ins().uextend(I64, a);
                        self.b.ins().fcvt_from_sint(ty, wide)
                    }
                    (_, false) => return self.convert_u64(inst, ty, a),
                };
                self.define_float(first, value);
                Ok(())
            }
            _ => self.compute_all(inst),
        }
    }

    /// The guest's NaN where the result is one; the host has raised the right flags already.
    fn canonical(&mut self, fmt: FpFormat, value: ir::Value) -> ir::Value {
        if self.fp.nan == NanRule::X86 {
            return value;
        }
        let nan = match fmt {
            FpFormat::F32 => {
                let bits = self.b.ins().iconst(I32, 0x7fc0_0000);
                self.b.ins().bitcast(F32, MemFlagsData::new(), bits)
            }
            _ => {
                let bits = self.b.ins().iconst(I64, 0x7ff8_0000_0000_0000);
                self.b.ins().bitcast(F64, MemFlagsData::new(), bits)
            }
        };
        let number = self.b.ins().fcmp(FloatCC::Ordered, value, value);
        self.b.ins().select(number, value, nan)
    }

    /// Goes to a cold block for the evaluator if `rare`; both ways meet with the result.
    fn unless(
        &mut self,
        inst: &Inst,
        rare: ir::Value,
        ty: ClifType,
        common: impl FnOnce(&mut Self) -> ir::Value,
    ) -> Result<ir::Value, CompileError> {
        let mut operands = Vec::new();
        inst.op.for_each_operand(|value| operands.push(value));
        // Made here: what the cold block makes is not there afterwards.
        let operands: Vec<ir::Value> = operands
            .into_iter()
            .map(|value| match self.forms(value) {
                super::translate::Forms { float: Some(float), .. } => float,
                _ => self.bits(value),
            })
            .collect();
        let (fast, slow, join) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.append_block_param(join, ty);
        self.b.ins().brif(rare, slow, &[], fast, &[]);
        self.b.set_cold_block(slow);
        self.go_into(fast);
        let value = common(self);
        self.b.ins().jump(join, &[value.into()]);
        self.go_into(slow);
        self.compute_floats(&inst.op, &operands)?;
        let value = self.result(ty, 0);
        self.b.ins().jump(join, &[value.into()]);
        self.go_into(join);
        Ok(self.b.block_params(join)[0])
    }

    fn go_into(&mut self, block: Block) {
        self.b.switch_to_block(block);
        self.b.seal_block(block);
    }

    /// As [`Self::compute`], where 32-bit floats must not leave rubbish in the upper half.
    fn compute_floats(&mut self, op: &Op, operands: &[ir::Value]) -> Result<(), CompileError> {
        let operands: Vec<ir::Value> = operands
            .iter()
            .map(|&value| match self.b.func.dfg.value_type(value) {
                F32 => self.b.ins().bitcast(I32, MemFlagsData::new(), value),
                _ => value,
            })
            .collect();
        self.compute(op, &operands)
    }

    fn fused(
        &mut self,
        inst: &Inst,
        (op, fmt): (FmaOp, FpFormat),
        [a, b, c]: [Value; 3],
    ) -> Result<(), CompileError> {
        let [x, y, z] = [a, b, c].map(|value| self.float(value));
        let x = if matches!(op, FmaOp::NegMulAdd | FmaOp::NegMulSub) { self.b.ins().fneg(x) } else { x };
        let z = if matches!(op, FmaOp::MulSub | FmaOp::NegMulSub) { self.b.ins().fneg(z) } else { z };
        let value = self.b.ins().fma(x, y, z);
        // Which NaN, and whether infinity times zero plus a NaN is invalid, depends on the guest.
        let nan = self.b.ins().fcmp(FloatCC::Unordered, value, value);
        let value = self.unless(inst, nan, float_type(fmt), |_| value)?;
        self.define_float(inst.first, value);
        Ok(())
    }

    /// Smaller or larger of two different numbers; NaNs and equal numbers (zeros of two signs) are rare.
    fn min_max(&mut self, inst: &Inst) -> Result<(), CompileError> {
        let Op::FpBinary { op, fmt, a, b, .. } = inst.op else {
            return Err(CompileError::Nothing("an operation has no code"));
        };
        let less = match op {
            FpBinOp::MinNumber | FpBinOp::Minimum | FpBinOp::MinNum2008 | FpBinOp::MinSelect => true,
            FpBinOp::MaxNumber | FpBinOp::Maximum | FpBinOp::MaxNum2008 | FpBinOp::MaxSelect => false,
            _ => return self.compute_all(inst),
        };
        let (x, y) = (self.float(a), self.float(b));
        let rare = self.b.ins().fcmp(FloatCC::UnorderedOrEqual, x, y);
        let value = self.unless(inst, rare, float_type(fmt), |t| {
            let below = t.b.ins().fcmp(FloatCC::LessThan, x, y);
            if less { t.b.ins().select(below, x, y) } else { t.b.ins().select(below, y, x) }
        })?;
        self.define_float(inst.first, value);
        Ok(())
    }

    fn compare(
        &mut self,
        inst: &Inst,
        (cond, signalling): (FpCond, bool),
        a: Value,
        b: Value,
    ) -> Result<(), CompileError> {
        let (x, y) = (self.float(a), self.float(b));
        let cc = match cond {
            FpCond::Eq => FloatCC::Equal,
            FpCond::Lt => FloatCC::LessThan,
            FpCond::Le => FloatCC::LessThanOrEqual,
            FpCond::Unordered => FloatCC::Unordered,
        };
        let value = if signalling {
            // The host's quiet comparison does not raise Invalid for a quiet NaN.
            let rare = self.b.ins().fcmp(FloatCC::Unordered, x, y);
            self.unless(inst, rare, I8, |t| t.b.ins().fcmp(cc, x, y))?
        } else {
            self.b.ins().fcmp(cc, x, y)
        };
        self.define(inst.first, value);
        Ok(())
    }

    /// Truncates numbers that surely fit; the evaluator does the rest.
    fn truncate(
        &mut self,
        inst: &Inst,
        (fmt, to): (FpFormat, Type),
        signed: bool,
        a: Value,
    ) -> Result<(), CompileError> {
        let x = self.float(a);
        // Powers of two, so exact in both formats: fits if low <= x < high.
        let (low, high) = match (to, signed) {
            (Type::I32, true) => (-2_147_483_648.0, 2_147_483_648.0),
            (Type::I32, false) => (0.0, 4_294_967_296.0),
            (_, true) => (-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0),
            (_, false) => (0.0, 9_223_372_036_854_775_808.0),
        };
        let constant = |t: &mut Self, value: f64| match fmt {
            FpFormat::F32 => t.b.ins().f32const(value as f32),
            _ => t.b.ins().f64const(value),
        };
        let (low, high) = (constant(self, low), constant(self, high));
        let above = self.b.ins().fcmp(FloatCC::GreaterThanOrEqual, x, low);
        let below = self.b.ins().fcmp(FloatCC::LessThan, x, high);
        let fits = self.b.ins().band(above, below);
        let rare = self.b.ins().icmp_imm_s(IntCC::Equal, fits, 0);
        let ty = super::translate::clif_type(to);
        let value = self.unless(inst, rare, ty, |t| {
            let wide = t.b.ins().fcvt_to_sint_sat(I64, x);
            t.resize(wide, to, false)
        })?;
        self.define(inst.first, value);
        Ok(())
    }

    /// Unsigned 64-bit numbers of 63 bits as signed ones.
    fn convert_u64(&mut self, inst: &Inst, ty: ClifType, a: ir::Value) -> Result<(), CompileError> {
        let rare = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, a, 0);
        let value = self.unless(inst, rare, ty, |t| t.b.ins().fcvt_from_sint(ty, a))?;
        self.define_float(inst.first, value);
        Ok(())
    }
}

const fn is_min_max(op: FpBinOp) -> bool {
    !matches!(op, FpBinOp::Add | FpBinOp::Sub | FpBinOp::Mul | FpBinOp::Div)
}
