//! 128-bit vectors: lanes through the host's vector instructions, the rest through the evaluator.

use super::translate::{Translator, clif_type};
use crate::CompileError;
use cranelift_codegen::ir::{
    self, InstBuilder, MemFlagsData, Type as ClifType,
    condcodes::IntCC,
    types::{I8X16, I16X8, I32, I32X4, I64X2},
};
use isomer_ir::{
    Inst, Op,
    op::{VecBinOp, VecUnOp},
    types::Lane,
};

const fn lanes(lane: Lane) -> ClifType {
    match lane {
        Lane::B => I8X16,
        Lane::H => I16X8,
        Lane::S => I32X4,
        Lane::D => I64X2,
    }
}

impl Translator<'_, '_> {
    pub(super) fn vector_op(&mut self, inst: &Inst) -> Result<(), CompileError> {
        let value = match inst.op {
            Op::ConstVec { bits } => self.constant(bits.to_le_bytes()),
            Op::VecUnary { op: VecUnOp::Not, a, .. } => {
                let a = self.bits(a);
                self.b.ins().bnot(a)
            }
            Op::VecUnary { op: VecUnOp::Neg, lane, a } => {
                let a = self.bits(a);
                let a = self.cast(lanes(lane), a);
                self.b.ins().ineg(a)
            }
            Op::VecBinary { op, lane, a, b } => {
                let (a, b) = (self.bits(a), self.bits(b));
                match self.lane_wise(op, lane, a, b) {
                    Some(value) => value,
                    None => return self.compute_all(inst),
                }
            }
            Op::VecSelect { m, a, b } => {
                let (m, a, b) = (self.bits(m), self.bits(a), self.bits(b));
                self.b.ins().bitselect(m, a, b)
            }
            Op::VecShift { lane, left, signed, amount, a } => {
                let a = self.bits(a);
                let a = self.cast(lanes(lane), a);
                let amount = self.b.ins().iconst(I32, i64::from(amount));
                match (left, signed) {
                    (true, _) => self.b.ins().ishl(a, amount),
                    (false, true) => self.b.ins().sshr(a, amount),
                    (false, false) => self.b.ins().ushr(a, amount),
                }
            }
            Op::VecSplat { lane, a } => {
                let a = self.bits(a);
                let a = self.resize(a, lane.ty(), false);
                self.b.ins().splat(lanes(lane), a)
            }
            Op::VecGet { lane, index, a } => {
                let a = self.bits(a);
                let a = self.cast(lanes(lane), a);
                let value = self.b.ins().extractlane(a, index);
                debug_assert_eq!(self.b.func.dfg.value_type(value), clif_type(lane.ty()));
                self.define(inst.first, value);
                return Ok(());
            }
            Op::VecSet { lane, index, a, b } => {
                let (a, b) = (self.bits(a), self.bits(b));
                let a = self.cast(lanes(lane), a);
                let b = self.resize(b, lane.ty(), false);
                self.b.ins().insertlane(a, b, index)
            }
            Op::VecShuffle { bytes, a, b } => {
                let (a, b) = (self.bits(a), self.bits(b));
                let picked = bytes.map(|byte| if byte < 32 { byte } else { 0 });
                let value = self.shuffle(&picked, a, b);
                if picked == bytes {
                    value
                } else {
                    let mask = self.constant(bytes.map(|byte| if byte < 32 { 0xff } else { 0 }));
                    self.b.ins().band(value, mask)
                }
            }
            _ => return self.compute_all(inst),
        };
        let value = self.cast(I8X16, value);
        self.define(inst.first, value);
        Ok(())
    }

    /// The same bits as lanes of another width, lane 0 in the low bits.
    fn cast(&mut self, ty: ClifType, value: ir::Value) -> ir::Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        let little = MemFlagsData::new().with_endianness(ir::Endianness::Little);
        self.b.ins().bitcast(ty, little, value)
    }

    fn constant(&mut self, bytes: [u8; 16]) -> ir::Value {
        let constant = self.b.func.dfg.constants.insert(bytes.to_vec().into());
        self.b.ins().vconst(I8X16, constant)
    }

    pub(super) fn shuffle(&mut self, order: &[u8], a: ir::Value, b: ir::Value) -> ir::Value {
        let mask = self.b.func.dfg.immediates.push(order.to_vec().into());
        self.b.ins().shuffle(a, b, mask)
    }

    /// Operations every host has for these lanes; `None` for the others.
    fn lane_wise(&mut self, op: VecBinOp, lane: Lane, a: ir::Value, b: ir::Value) -> Option<ir::Value> {
        let small = matches!(lane, Lane::B | Lane::H);
        let order: Option<Vec<u8>> = {
            let (bytes, count) = (lane.bits() as u8 / 8, lane.count() as u8);
            let pick = |lanes: Vec<u8>| -> Vec<u8> {
                lanes.into_iter().flat_map(|l| (0..bytes).map(move |i| l * bytes + i)).collect()
            };
            match op {
                VecBinOp::ZipLow => Some(pick((0..count / 2).flat_map(|i| [i, count + i]).collect())),
                VecBinOp::ZipHigh => Some(pick((count / 2..count).flat_map(|i| [i, count + i]).collect())),
                VecBinOp::UnzipEven => Some(pick((0..count).map(|i| 2 * i).collect())),
                VecBinOp::UnzipOdd => Some(pick((0..count).map(|i| 2 * i + 1).collect())),
                _ => None,
            }
        };
        if let Some(order) = order {
            return Some(self.shuffle(&order, a, b));
        }
        if op == VecBinOp::Table {
            return Some(self.b.ins().swizzle(a, b));
        }
        let (x, y) = (self.cast(lanes(lane), a), self.cast(lanes(lane), b));
        let ins = self.b.ins();
        Some(match op {
            VecBinOp::Add => ins.iadd(x, y),
            VecBinOp::Sub => ins.isub(x, y),
            VecBinOp::Mul if lane != Lane::B => ins.imul(x, y),
            VecBinOp::AddSatU if small => ins.uadd_sat(x, y),
            VecBinOp::AddSatS if small => ins.sadd_sat(x, y),
            VecBinOp::SubSatU if small => ins.usub_sat(x, y),
            VecBinOp::SubSatS if small => ins.ssub_sat(x, y),
            VecBinOp::MinU if lane != Lane::D => ins.umin(x, y),
            VecBinOp::MinS if lane != Lane::D => ins.smin(x, y),
            VecBinOp::MaxU if lane != Lane::D => ins.umax(x, y),
            VecBinOp::MaxS if lane != Lane::D => ins.smax(x, y),
            VecBinOp::AvgU if small => ins.avg_round(x, y),
            VecBinOp::And => ins.band(x, y),
            VecBinOp::Or => ins.bor(x, y),
            VecBinOp::Xor => ins.bxor(x, y),
            VecBinOp::AndNot => ins.band_not(x, y),
            VecBinOp::CmpEq => ins.icmp(IntCC::Equal, x, y),
            VecBinOp::CmpGtU if lane != Lane::D => ins.icmp(IntCC::UnsignedGreaterThan, x, y),
            VecBinOp::CmpGtS if lane != Lane::D => ins.icmp(IntCC::SignedGreaterThan, x, y),
            _ => return None,
        })
    }
}
