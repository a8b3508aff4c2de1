//! The forward sweep: folds operations, reads slots from values already known, computes equal operations once.

use super::{Optimizer, fold::Folded, result_count, slots::SlotLayout};
use crate::{
    block::{Block, Inst, LinkHint, Terminal},
    guest::Effects,
    op::{Cond, Op},
    types::{Slot, Type, Value},
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
            let mut op = inst.op;
            op.map_operands(|v| self.names[v.0 as usize]);
            let old = inst.first.0 as usize;
            let types = &block.value_types[old.min(block.value_types.len())..];
            if let Some(first) = self.rewrite(&mut op, types) {
                for i in 0..result_count(&op) {
                    self.names[old + i] = Value(first.0 + i as u32);
                }
            }
        }
        let terminal = block.terminal.clone_with(|v| self.names[v.0 as usize]);
        block.terminal = self.rewrite_terminal(terminal);
    }

    /// Appends what is left of an operation whose operands are rewritten; its first result's new name. `types` starts
    /// with its results' types, which stay the same whatever becomes of it.
    // Out of line, so that operations stay in memory: split into registers field by field they are slower to copy.
    #[inline(never)]
    fn rewrite(&mut self, op: &mut Op, types: &[Type]) -> Option<Value> {
        match *op {
            Op::Get { slot } => Some(self.rewrite_get(op, types, slot)),
            Op::Set { slot, value } => {
                self.rewrite_set(op, slot, value);
                None
            }
            Op::Const { .. } => Some(self.number(op, types)),
            Op::TrapIf { c, .. } if self.code.konst(c) == Some(0) => None,
            Op::Call { helper, result, .. } => Some(match (self.facts.effects)(helper) {
                Effects::Pure if result.is_some() => self.number(op, types),
                Effects::Pure | Effects::ReadsState => self.append(op, types),
                Effects::Any => {
                    self.known.forget();
                    self.append(op, types)
                }
            }),
            _ if op.is_pure() => Some(self.rewrite_pure(op, types)),
            _ => Some(self.append(op, types)),
        }
    }

    fn rewrite_pure(&mut self, op: &mut Op, types: &[Type]) -> Value {
        for _ in 0..ROUNDS {
            match self.code.fold(op, self.facts.insn_align) {
                Folded::Kept => break,
                Folded::Value(v) => return v,
                Folded::Op(simpler) => *op = simpler,
            }
        }
        self.number(op, types)
    }

    fn rewrite_get(&mut self, op: &Op, types: &[Type], slot: Slot) -> Value {
        if self.layout.in_header(slot) {
            return self.append(op, types);
        }
        self.known.get(slot).unwrap_or_else(|| {
            let value = self.append(op, types);
            self.known.learn(slot, value);
            value
        })
    }

    fn rewrite_set(&mut self, op: &Op, slot: Slot, value: Value) {
        if self.layout.in_header(slot) {
            self.append(op, &[]);
        } else if self.known.get(slot) != Some(value) {
            self.append(op, &[]);
            self.known.written(&self.layout, slot, value);
        }
    }

    /// An equal operation's result, or the appended operation's.
    fn number(&mut self, op: &Op, types: &[Type]) -> Value {
        match self.table.find(&self.code, op) {
            Some(first) => first,
            None => self.append(op, types),
        }
    }

    fn append(&mut self, op: &Op, types: &[Type]) -> Value {
        let code = &mut self.code;
        let first = Value(code.types.len() as u32);
        for ty in types.iter().take(result_count(op)) {
            code.types.push(*ty);
            code.def.push(code.insts.len() as u32);
        }
        code.insts.push(Inst { op: *op, first });
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
