//! How each guest register is kept inside a region: as an integer, as a floating-point or vector value, or in memory.

use crate::region::Region;
use isomer_ir::{
    Op, SlotDesc, Type,
    state::CpuHeader,
    types::{FpFormat, Slot, Value},
};

/// How a slot is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    /// Not used in the region.
    Unused,
    /// In the CPU only: others share its bytes, or operations change it behind the IR's back.
    Memory,
    /// As an SSA value of its own type.
    Register,
    /// As an SSA value of type F64: most of what reads or writes it computes with doubles.
    Double,
}

/// The choice for every slot, and which values had better be loaded as floating point.
pub(super) struct Choice {
    pub(super) keep: Vec<Keep>,
    /// By block and value: used as floating point only.
    pub(super) float: Vec<Vec<bool>>,
    /// By block and value: surely stored or branched on, so that the code generator cannot drop what computes it.
    pub(super) needed: Vec<Vec<bool>>,
}

/// Operands that a host instruction wants in a floating-point register.
fn float_operands(op: &Op, mut f: impl FnMut(Value)) {
    let native = |fmt: FpFormat| matches!(fmt, FpFormat::F64 | FpFormat::F32);
    match *op {
        Op::FpBinary { fmt, .. }
        | Op::FpSqrt { fmt, .. }
        | Op::FpFma { fmt, .. }
        | Op::FpCompare { fmt, .. }
            if native(fmt) =>
        {
            op.for_each_operand(f);
        }
        Op::FpConvert { from, a, .. } if native(from) => f(a),
        Op::FpToInt { fmt, a, .. } if native(fmt) => f(a),
        _ => {}
    }
}

/// Is the result computed in a floating-point register?
fn is_float_result(op: &Op) -> bool {
    let native = |fmt: FpFormat| matches!(fmt, FpFormat::F64 | FpFormat::F32);
    match *op {
        Op::FpBinary { fmt, .. }
        | Op::FpSqrt { fmt, .. }
        | Op::FpFma { fmt, .. }
        | Op::FpFromInt { fmt, .. } => native(fmt),
        Op::FpConvert { to, .. } => native(to),
        _ => false,
    }
}

impl Choice {
    pub(super) fn of(region: &Region, slots: &[SlotDesc]) -> Self {
        let mut used = vec![false; slots.len()];
        // Computations with doubles less other uses.
        let mut balance = vec![0_i32; slots.len()];
        for block in &region.blocks {
            let insts = &block.block.insts;
            let mut from_slot: Vec<Option<Slot>> = vec![None; block.block.value_types.len()];
            let mut is_float = vec![false; block.block.value_types.len()];
            for inst in insts {
                let mut floats = Vec::new();
                float_operands(&inst.op, |value| floats.push(value));
                match inst.op {
                    Op::Get { slot } => {
                        used[usize::from(slot.0)] = true;
                        from_slot[inst.first.0 as usize] = Some(slot);
                    }
                    Op::Set { slot, value } => {
                        used[usize::from(slot.0)] = true;
                        balance[usize::from(slot.0)] += if is_float[value.0 as usize] { 1 } else { 0 };
                    }
                    // Moves between memory and a register cost the same either way.
                    Op::Store { .. } => {}
                    ref op => {
                        op.for_each_operand(|value| {
                            if let Some(slot) = from_slot[value.0 as usize] {
                                balance[usize::from(slot.0)] += if floats.contains(&value) { 1 } else { -1 };
                            }
                        });
                    }
                }
                if is_float_result(&inst.op) {
                    is_float[inst.first.0 as usize] = true;
                }
            }
        }
        let keep: Vec<Keep> = slots
            .iter()
            .enumerate()
            .map(|(i, desc)| {
                let shared =
                    slots.iter().enumerate().any(|(j, other)| j != i && used[j] && desc.overlaps(other));
                match (used[i], shared || (desc.offset as usize) < size_of::<CpuHeader>()) {
                    (false, _) => Keep::Unused,
                    (true, true) => Keep::Memory,
                    (true, false) if desc.ty == Type::I64 && balance[i] > 0 => Keep::Double,
                    (true, false) => Keep::Register,
                }
            })
            .collect();
        let float = region.blocks.iter().map(|block| float_values(&block.block, &keep)).collect();
        let needed = region.blocks.iter().map(|block| needed_values(&block.block, &keep)).collect();
        Self { keep, float, needed }
    }
}

/// Values of a block that are used as floating point only, so that a load had better give them in such a register.
fn float_values(block: &isomer_ir::Block, keep: &[Keep]) -> Vec<bool> {
    let mut uses = vec![(0_u32, 0_u32); block.value_types.len()];
    for inst in &block.insts {
        let mut floats = Vec::new();
        float_operands(&inst.op, |value| floats.push(value));
        if let Op::Set { slot, value } = inst.op
            && keep[usize::from(slot.0)] == Keep::Double
        {
            floats.push(value);
        }
        inst.op.for_each_operand(|value| {
            let (float, all) = &mut uses[value.0 as usize];
            *all += 1;
            *float += u32::from(floats.contains(&value));
        });
    }
    if let Some(value) = block.terminal.operand() {
        uses[value.0 as usize].1 += 1;
    }
    uses.into_iter().map(|(float, all)| all > 0 && float == all).collect()
}

/// Values that go to a slot kept as a double, which [`super::translate::Translator`] never drops, or decide a branch.
fn needed_values(block: &isomer_ir::Block, keep: &[Keep]) -> Vec<bool> {
    let mut needed = vec![false; block.value_types.len()];
    for inst in &block.insts {
        if let Op::Set { slot, value } = inst.op
            && keep[usize::from(slot.0)] == Keep::Double
        {
            needed[value.0 as usize] = true;
        }
    }
    if let Some(value) = block.terminal.operand() {
        needed[value.0 as usize] = true;
    }
    needed
}

/// A set of slots.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct SlotSet(Vec<u64>);

impl SlotSet {
    pub(super) fn insert(&mut self, slot: usize) {
        if self.0.len() <= slot / 64 {
            self.0.resize(slot / 64 + 1, 0);
        }
        self.0[slot / 64] |= 1 << (slot % 64);
    }

    pub(super) fn contains(&self, slot: usize) -> bool {
        self.0.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
    }

    pub(super) fn keep_only(&mut self, others: &Self) {
        for (i, word) in self.0.iter_mut().enumerate() {
            *word &= others.0.get(i).copied().unwrap_or(0);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// All members, in order.
    pub(super) fn members(&self) -> Vec<usize> {
        let word = |(i, &bits): (usize, &u64)| {
            (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| i * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(word).collect()
    }
}
