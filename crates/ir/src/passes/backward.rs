//! The backward sweep: which operations stay.

use super::{Optimizer, result_count, slots::SlotLayout};
use crate::{
    block::Block,
    guest::Effects,
    op::{BinOp, Cond, Op},
    types::{Slot, Value},
};

/// The slots all of whose bytes are written before anything further on can see them.
#[derive(Debug, Default)]
pub(super) struct Overwritten {
    /// By slot; set if the number is the current epoch.
    at: Vec<u64>,
    epoch: u64,
}

impl Overwritten {
    fn start(&mut self, slots: usize) {
        self.at.resize(slots, 0);
        self.all_seen();
    }

    /// Something may read every slot here.
    fn all_seen(&mut self) {
        self.epoch += 1;
    }

    fn contains(&self, slot: Slot) -> bool {
        self.at[usize::from(slot.0)] == self.epoch
    }

    fn written(&mut self, layout: &SlotLayout, slot: Slot) {
        self.at[usize::from(slot.0)] = self.epoch;
        for neighbour in layout.neighbours(slot).iter().filter(|n| n.covered) {
            self.at[usize::from(neighbour.slot.0)] = self.epoch;
        }
    }

    fn read(&mut self, layout: &SlotLayout, slot: Slot) {
        self.at[usize::from(slot.0)] = 0;
        for neighbour in layout.neighbours(slot) {
            self.at[usize::from(neighbour.slot.0)] = 0;
        }
    }
}

impl Optimizer {
    /// Finds what in `code` is live; narrows operations of which only one result is.
    pub(super) fn backward(&mut self, block: &Block) {
        let count = self.code.insts.len();
        self.used.clear();
        self.used.resize(self.code.types.len(), false);
        self.live.clear();
        self.live.resize(count, false);
        self.overwritten.start(self.layout.len());
        if let Some(v) = block.terminal.operand() {
            self.used[v.0 as usize] = true;
        }
        for index in (0..count).rev() {
            if self.is_live(index) {
                self.live[index] = true;
                self.narrow(index);
                let used = &mut self.used;
                self.code.insts[index].op.for_each_operand(|v| used[v.0 as usize] = true);
            }
        }
    }

    fn is_live(&mut self, index: usize) -> bool {
        let inst = &self.code.insts[index];
        let first = inst.first.0 as usize;
        let used = |used: &[bool]| used[first..first + result_count(&inst.op)].contains(&true);
        match inst.op {
            Op::Set { slot, .. } => {
                let dead = self.overwritten.contains(slot) && !self.layout.in_header(slot);
                if !dead {
                    self.overwritten.written(&self.layout, slot);
                }
                !dead
            }
            Op::Get { slot } => {
                let live = used(&self.used);
                if live {
                    self.overwritten.read(&self.layout, slot);
                }
                live
            }
            Op::Call { helper, .. } => match (self.facts.effects)(helper) {
                Effects::Pure => used(&self.used),
                Effects::ReadsState | Effects::Any => {
                    self.overwritten.all_seen();
                    true
                }
            },
            ref op if op.is_pure() => used(&self.used),
            ref op => {
                if op.may_fault() {
                    self.overwritten.all_seen();
                }
                true
            }
        }
    }

    /// Flags that nobody reads cost nothing: a sum or difference, or only a borrow, needs an ordinary operation.
    fn narrow(&mut self, index: usize) {
        let inst = &self.code.insts[index];
        let (carry, narrowed) = match inst.op {
            Op::AddCarry { ty, a, b, carry } => (carry, Op::Binary { op: BinOp::Add, ty, a, b }),
            Op::SubBorrow { ty, a, b, borrow } => (borrow, Op::Binary { op: BinOp::Sub, ty, a, b }),
            _ => return,
        };
        let used = |result: u32| self.used[(inst.first.0 + result) as usize];
        if self.code.konst(carry) != Some(0) || used(2) {
            return;
        }
        let (value, borrow) = (used(0), used(1));
        let inst = &mut self.code.insts[index];
        match (inst.op, value, borrow) {
            (_, _, false) => inst.op = narrowed,
            (Op::SubBorrow { ty, a, b, .. }, false, true) => {
                inst.op = Op::Compare { cond: Cond::LtU, ty, a, b };
                inst.first = Value(inst.first.0 + 1);
            }
            _ => {}
        }
    }
}
