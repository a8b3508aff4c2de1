//! Passes over blocks. Each keeps the block's meaning, precise faults included.
//!
//! Two sweeps, each linear in the block's length, then values are renumbered:
//!
//! * [`forward`] rewrites operands as it goes: constant folding and identities ([`fold`]), a read of a slot whose value
//!   is known becomes that value, equal pure operations are computed once ([`number`]);
//! * [`backward`] drops pure operations nobody uses and slot writes nobody can see.
//!
//! Nothing is ever moved, so the order of writes, accesses and `insn_start` stays the lifter's. A slot write is dropped
//! only if its bytes are written again before anything that reads them or may leave the block. Slots in the
//! [`crate::CpuHeader`] are left alone: floating-point operations and engines touch them behind the IR's back.

mod backward;
mod fold;
mod forward;
mod number;
mod slots;
#[cfg(test)]
mod tests;

use crate::{
    block::{Block, Inst},
    guest::{Effects, Guest},
    op::Op,
    types::{HelperId, Type, Value},
};
use forward::Known;
use number::Table;
use slots::SlotLayout;
use std::cell::RefCell;

/// What passes may assume beyond the block.
#[derive(Clone, Copy, Debug)]
pub struct GuestFacts {
    /// Block entries are multiples of it; a power of two.
    pub insn_align: u32,
    /// What a helper may touch.
    pub effects: fn(HelperId) -> Effects,
}

impl GuestFacts {
    /// Nothing: helpers touch everything.
    pub const NONE: Self = Self { insn_align: 1, effects: |_| Effects::Any };

    /// All that is known of `G`'s blocks.
    pub const fn of<G: Guest>() -> Self {
        Self { insn_align: G::INSN_ALIGN, effects: effects_of::<G> }
    }
}

fn effects_of<G: Guest>(helper: HelperId) -> Effects {
    G::HELPERS.get(usize::from(helper.0)).map_or(Effects::Any, |desc| desc.effects)
}

/// How many results an operation has.
fn result_count(op: &Op) -> usize {
    match op {
        Op::InsnStart { .. } | Op::Set { .. } | Op::Store { .. } | Op::Fence { .. } | Op::TrapIf { .. } => 0,
        Op::Call { result, .. } => usize::from(result.is_some()),
        Op::AddCarry { .. } | Op::SubBorrow { .. } => 3,
        Op::CasPair { .. } => 2,
        _ => 1,
    }
}

/// Operations with the type and the defining operation of each value: a block being rewritten.
#[derive(Debug, Default)]
struct Code {
    insts: Vec<Inst>,
    types: Vec<Type>,
    /// Index into `insts`, by value.
    def: Vec<u32>,
}

impl Code {
    fn clear(&mut self) {
        self.insts.clear();
        self.types.clear();
        self.def.clear();
    }

    fn type_of(&self, v: Value) -> Type {
        self.types[v.0 as usize]
    }

    /// The operation that defines `v`, and which of its results `v` is.
    fn def(&self, v: Value) -> (&Op, u32) {
        let inst = &self.insts[self.def[v.0 as usize] as usize];
        (&inst.op, v.0 - inst.first.0)
    }

    /// The value of an integer constant, zero-extended.
    fn konst(&self, v: Value) -> Option<u64> {
        match self.def(v).0 {
            Op::Const { bits, .. } => Some(*bits),
            _ => None,
        }
    }
}

/// The passes and their working memory, which is kept from block to block.
#[derive(Debug)]
pub struct Optimizer {
    facts: GuestFacts,
    layout: SlotLayout,
    code: Code,
    known: Known,
    table: Table,
    /// Old values' new names.
    names: Vec<Value>,
    /// By value: has a live use.
    used: Vec<bool>,
    /// By operation: stays.
    live: Vec<bool>,
    overwritten: backward::Overwritten,
}

impl Optimizer {
    /// Passes that may rely on `facts`.
    pub fn new(facts: GuestFacts) -> Self {
        Self {
            facts,
            layout: SlotLayout::default(),
            code: Code::default(),
            known: Known::default(),
            table: Table::default(),
            names: Vec::new(),
            used: Vec::new(),
            live: Vec::new(),
            overwritten: backward::Overwritten::default(),
        }
    }

    /// Runs all passes over a block that [`crate::verify::verify`] accepts. It never has more operations afterwards.
    pub fn run(&mut self, block: &mut Block) {
        crate::verify::debug_verify(block, "before the passes");
        self.layout.prepare(block.slots);
        self.forward(block);
        self.backward(block);
        self.compact(block);
        crate::verify::debug_verify(block, "after the passes");
    }

    /// Copies what is live back into the block and numbers values densely.
    fn compact(&mut self, block: &mut Block) {
        let names = &mut self.names;
        names.clear();
        names.resize(self.code.types.len(), Value(0));
        block.insts.clear();
        block.value_types.clear();
        for (inst, _) in self.code.insts.iter().zip(&self.live).filter(|&(_, &live)| live) {
            let first = Value(block.value_types.len() as u32);
            let old = inst.first.0 as usize;
            for i in 0..result_count(&inst.op) {
                names[old + i] = Value(first.0 + i as u32);
                block.value_types.push(self.code.types[old + i]);
            }
            block.insts.push(Inst { op: inst.op, first });
            if let Some(copy) = block.insts.last_mut() {
                copy.op.map_operands(|v| names[v.0 as usize]);
            }
        }
        block.terminal = block.terminal.clone_with(|v| names[v.0 as usize]);
    }
}

/// Runs all passes, knowing nothing of the guest: every helper call may read and write all slots.
pub fn optimize(block: &mut Block) {
    thread_local! {
        static OPTIMIZER: RefCell<Optimizer> = RefCell::new(Optimizer::new(GuestFacts::NONE));
    }
    OPTIMIZER.with_borrow_mut(|optimizer| optimizer.run(block));
}

/// Runs all passes over one of `G`'s blocks.
pub fn optimize_for<G: Guest>(block: &mut Block) {
    thread_local! {
        static OPTIMIZER: RefCell<Optimizer> = RefCell::new(Optimizer::new(GuestFacts::NONE));
    }
    OPTIMIZER.with_borrow_mut(|optimizer| {
        optimizer.facts = GuestFacts::of::<G>();
        optimizer.run(block);
    });
}
