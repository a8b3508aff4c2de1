//! The forward sweep: folds operations, reads slots from values already known, computes equal operations once.

use super::{Optimizer, fold::Folded, slots::SlotLayout};
use crate::{
    block::{Block, Inst, LinkHint, Terminal},
    guest::Effects,
    op::{Cond, Op},
    types::{Slot, Value},
};

/// The value each slot is known to hold.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By slot; counts if the number is the current epoch.
    values: Vec<(u64, Value)>,
    epoch: u64,
}

impl Known {
    fn start(&mut self, slots: usize) {
        self.values.resize(slots, (0, Value(0)));
        self.forget();
    }

    fn forget(&mut self) {
        self.epoch += 1;
    }

    fn get(&self, slot: Slot) -> Option<Value> {
        let (epoch, value) = self.values[usize::from(slot.0)];
        (epoch == self.epoch).then_some(value)
    }

    fn learn(&mut self, slot: Slot, value: Value) {
        self.values[usize::from(slot.0)] = (self.epoch, value);
    }

    fn written(&mut self, layout: &SlotLayout, slot: Slot, value: Value) {
        for neighbour in layout.neighbours(slot) {
            self.values[usize::from(neighbour.slot.0)].0 = 0;
        }
        self.learn(slot, value);
    }
}

/// Folding may enable folding: how often to try.
const ROUNDS: u32 = 4;

impl Optimizer {
    /// Rewrites the block's operations into `code`, and its terminal in place.
    pub(super) fn forward(&mut self, block: &mut Block) {
        self.code.clear();
        self.known.start(self.layout.len());
        self.names.clear();
        self.names.resize(block.value_types.len(), Value(0));
        for inst in &block.insts {
            let op = inst.op.clone_with(|v| self.names[v.0 as usize]);
            if let Some(first) = self.rewrite(block, op) {
                let (_, count) = op.results(|slot| block.slots[usize::from(slot.0)].ty);
                for i in 0..count as u32 {
                    self.names[(inst.first.0 + i) as usize] = Value(first.0 + i);
                }
            }
        }
        let terminal = block.terminal.clone_with(|v| self.names[v.0 as usize]);
        block.terminal = self.rewrite_terminal(terminal);
    }

    /// Appends what is left of an operation whose operands are rewritten; its first result's new name.
    fn rewrite(&mut self, block: &Block, op: Op) -> Option<Value> {
        match op {
            Op::Get { slot } => Some(self.rewrite_get(block, slot)),
            Op::Set { slot, value } => {
                self.rewrite_set(block, slot, value);
                None
            }
            Op::TrapIf { c, .. } if self.code.konst(c) == Some(0) => None,
            Op::Call { helper, result, .. } => Some(match (self.facts.effects)(helper) {
                Effects::Pure if result.is_some() => self.number(block, op),
                Effects::Pure | Effects::ReadsState => self.append(block, op),
                Effects::Any => {
                    self.known.forget();
                    self.append(block, op)
                }
            }),
            _ if op.is_pure() => Some(self.rewrite_pure(block, op)),
            _ => Some(self.append(block, op)),
        }
    }

    fn rewrite_pure(&mut self, block: &Block, mut op: Op) -> Value {
        for _ in 0..ROUNDS {
            match self.code.fold(&op, self.facts.insn_align) {
                Folded::Kept => break,
                Folded::Value(v) => return v,
                Folded::Op(simpler) => op = simpler,
            }
        }
        self.number(block, op)
    }

    fn rewrite_get(&mut self, block: &Block, slot: Slot) -> Value {
        if self.layout.in_header(slot) {
            return self.append(block, Op::Get { slot });
        }
        self.known.get(slot).unwrap_or_else(|| {
            let value = self.append(block, Op::Get { slot });
            self.known.learn(slot, value);
            value
        })
    }

    fn rewrite_set(&mut self, block: &Block, slot: Slot, value: Value) {
        if self.layout.in_header(slot) {
            self.append(block, Op::Set { slot, value });
        } else if self.known.get(slot) != Some(value) {
            self.append(block, Op::Set { slot, value });
            self.known.written(&self.layout, slot, value);
        }
    }

    /// An equal operation's result, or the appended operation's.
    fn number(&mut self, block: &Block, op: Op) -> Value {
        match self.table.find(&self.code, &op) {
            Some(first) => first,
            None => self.append(block, op),
        }
    }

    fn append(&mut self, block: &Block, op: Op) -> Value {
        let code = &mut self.code;
        let first = Value(code.types.len() as u32);
        let (types, count) = op.results(|slot| block.slots[usize::from(slot.0)].ty);
        for ty in &types[..count] {
            code.types.push(*ty);
            code.def.push(code.insts.len() as u32);
        }
        code.insts.push(Inst { op, first });
        first
    }

    fn rewrite_terminal(&self, terminal: Terminal) -> Terminal {
        match terminal {
            Terminal::Branch { c, taken, not_taken } => self.rewrite_branch(c, taken, not_taken),
            Terminal::Indirect { pc, hint } => match *self.code.def(pc).0 {
                Op::PcRel { offset } => Terminal::Jump {
                    offset,
                    hint: if hint == LinkHint::Return { LinkHint::None } else { hint },
                },
                _ => terminal,
            },
            Terminal::ExitIndirect { pc } => match *self.code.def(pc).0 {
                Op::PcRel { offset } => Terminal::Exit { offset },
                _ => terminal,
            },
            _ => terminal,
        }
    }

    fn rewrite_branch(&self, c: Value, taken: i64, not_taken: i64) -> Terminal {
        let jump = |offset| Terminal::Jump { offset, hint: LinkHint::None };
        if taken == not_taken {
            return jump(taken);
        }
        if let Some(bits) = self.code.konst(c) {
            return jump(if bits != 0 { taken } else { not_taken });
        }
        // A branch on "not c" is a branch on c the other way round.
        if let (&Op::Compare { cond: Cond::Eq, a, b, .. }, _) = self.code.def(c)
            && self.code.konst(b) == Some(0)
            && let Some(c) = self.code.boolean(a)
        {
            return Terminal::Branch { c, taken: not_taken, not_taken: taken };
        }
        Terminal::Branch { c, taken, not_taken }
    }
}
