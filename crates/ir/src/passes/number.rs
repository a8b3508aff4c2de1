//! Local value numbering: finds an equal operation computed before, with a direct-mapped table.

use super::Code;
use crate::{op::Op, types::Value};

const BITS: u32 = 9;

/// For each hash, the index of the last operation that had it. Entries of earlier blocks need no clearing: an entry
/// counts only if the operation at its index is equal.
#[derive(Debug)]
pub(super) struct Table {
    last: Vec<u32>,
}

impl Default for Table {
    fn default() -> Self {
        Self { last: vec![u32::MAX; 1 << BITS] }
    }
}

impl Table {
    /// The first result of an operation in `code` equal to `op`. If there is none, the one about to be appended will
    /// be found from now on.
    pub(super) fn find(&mut self, code: &Code, op: &Op) -> Option<Value> {
        let last = &mut self.last[hash(op) as usize >> (64 - BITS)];
        match code.insts.get(*last as usize) {
            Some(inst) if inst.op == *op => Some(inst.first),
            _ => {
                *last = code.insts.len() as u32;
                None
            }
        }
    }
}

fn mix(tag: u32, a: u64, b: u64) -> u64 {
    (a.rotate_left(23) ^ b ^ u64::from(tag) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// By the fields that tell operations apart in practice; the table compares the rest.
fn hash(op: &Op) -> u64 {
    let pair = |a: Value, b: Value| u64::from(a.0) | u64::from(b.0) << 32;
    match *op {
        Op::Const { ty, bits } => mix(1 | (ty as u32) << 8, bits, 0),
        Op::ConstVec { bits } => mix(2, bits as u64, (bits >> 64) as u64),
        Op::PcRel { offset } => mix(3, offset as u64, 0),
        Op::Unary { op, a, .. } => mix(4 | (op as u32) << 8, a.0.into(), 0),
        Op::Binary { op, a, b, .. } => mix(5 | (op as u32) << 8, pair(a, b), 0),
        Op::AddCarry { a, b, carry, .. } => mix(6, pair(a, b), carry.0.into()),
        Op::SubBorrow { a, b, borrow, .. } => mix(7, pair(a, b), borrow.0.into()),
        Op::Compare { cond, a, b, .. } => mix(8 | (cond as u32) << 8, pair(a, b), 0),
        Op::Select { c, a, b, .. } => mix(9, pair(a, b), c.0.into()),
        Op::Zext { to, a } => mix(10 | (to as u32) << 8, a.0.into(), 0),
        Op::Sext { to, a } => mix(11 | (to as u32) << 8, a.0.into(), 0),
        Op::Trunc { to, a } => mix(12 | (to as u32) << 8, a.0.into(), 0),
        Op::Extract { a, lo, len, .. } => mix(13 | u32::from(lo) << 8 | u32::from(len) << 16, a.0.into(), 0),
        Op::Deposit { a, b, lo, len, .. } => {
            mix(14 | u32::from(lo) << 8 | u32::from(len) << 16, pair(a, b), 0)
        }
        Op::VecUnary { op, a, .. } => mix(15 | (op as u32) << 8, a.0.into(), 0),
        Op::VecBinary { op, a, b, .. } => mix(16 | (op as u32) << 8, pair(a, b), 0),
        Op::VecSelect { m, a, b } => mix(17, pair(a, b), m.0.into()),
        Op::VecShift { amount, a, .. } => mix(18 | u32::from(amount) << 8, a.0.into(), 0),
        Op::VecSplat { a, .. } => mix(19, a.0.into(), 0),
        Op::VecGet { index, a, .. } => mix(20 | u32::from(index) << 8, a.0.into(), 0),
        Op::VecSet { index, a, b, .. } => mix(21 | u32::from(index) << 8, pair(a, b), 0),
        Op::VecShuffle { a, b, .. } => mix(22, pair(a, b), 0),
        Op::Call { helper, args, .. } => {
            let operand = |i: usize| args[i].map_or(u64::MAX, |v| v.0.into());
            mix(23 | u32::from(helper.0) << 8, operand(0) | operand(1) << 32, operand(2))
        }
        _ => 0,
    }
}
