//! Which accesses of a block share one look into the TLB: those a constant apart from one value, as fields of a structure
//! and the places of a stack frame are. The first of them notes its page and where that is on the host; the others only
//! compare their own page with it.
//!
//! What is noted holds to the end of the block: a mapping that goes is let go of at polls, which are at entries and on
//! backward edges, and by helpers, behind which nothing noted is used.

use cranelift_codegen::ir;
use isomer_core::PAGE_SIZE;
use isomer_ir::{
    Block, Op,
    op::BinOp,
    types::{MmuIndex, Value},
};
use rustc_hash::FxHashMap;

/// What accesses that may share have in common: the value their addresses are a constant away from, whether they store,
/// and the translation regime.
pub(super) type Group = (Value, bool, MmuIndex);

/// A page that was looked up.
#[derive(Clone, Copy)]
pub(super) struct Noted {
    /// Of the access that looked it up: its address less the common value.
    pub(super) offset: i64,
    /// The page's address as a TLB tag, or a tag that matches nothing.
    pub(super) tag: ir::Value,
    /// Host address less guest address.
    pub(super) addend: ir::Value,
}

/// How the accesses of one block can share.
#[derive(Default)]
pub(super) struct Sharing {
    /// By value: the value it is a constant away from, and the constant.
    roots: Vec<(Value, i64)>,
    /// Accesses of a group that are still to come.
    to_come: FxHashMap<Group, u32>,
    noted: FxHashMap<Group, Noted>,
}

impl Sharing {
    pub(super) fn of(block: &Block) -> Self {
        let mut roots: Vec<(Value, i64)> =
            (0..block.value_types.len()).map(|value| (Value(value as _), 0)).collect();
        let mut constants: FxHashMap<Value, i64> = FxHashMap::default();
        let mut to_come = FxHashMap::default();
        for inst in &block.insts {
            match inst.op {
                Op::Const { bits, .. } => {
                    constants.insert(inst.first, bits as i64);
                }
                Op::Binary { op: BinOp::Add, a, b, .. } => {
                    let sum = match (constants.get(&a), constants.get(&b)) {
                        (None, Some(&distance)) => Some((a, distance)),
                        (Some(&distance), None) => Some((b, distance)),
                        _ => None,
                    };
                    if let Some((from, distance)) = sum {
                        let (root, offset) = roots[from.0 as usize];
                        roots[inst.first.0 as usize] = (root, offset.wrapping_add(distance));
                    }
                }
                Op::Load { addr, flags, .. } => {
                    *to_come.entry((roots[addr.0 as usize].0, false, flags.mmu)).or_default() += 1;
                }
                Op::Store { addr, flags, .. } => {
                    *to_come.entry((roots[addr.0 as usize].0, true, flags.mmu)).or_default() += 1;
                }
                _ => {}
            }
        }
        Self { roots, to_come, noted: FxHashMap::default() }
    }

    /// Begins an access: its group, its distance from the group's value, what is noted that may serve it, and whether
    /// others come that could use what it finds.
    pub(super) fn access(
        &mut self,
        addr: Value,
        stores: bool,
        mmu: MmuIndex,
    ) -> (Group, i64, Option<Noted>, bool) {
        let (root, offset) = self.roots[addr.0 as usize];
        let group = (root, stores, mmu);
        let to_come = self.to_come.entry(group).or_insert(1);
        *to_come = to_come.saturating_sub(1);
        // Never before the one that looked: then its first byte is in the page or behind it, and its last byte tells.
        let near = |noted: &&Noted| (0..PAGE_SIZE as i64).contains(&offset.wrapping_sub(noted.offset));
        let noted = self.noted.get(&group).filter(near).copied();
        (group, offset, noted, *to_come > 0)
    }

    pub(super) fn note(&mut self, group: Group, noted: Noted) {
        self.noted.insert(group, noted);
    }

    /// A helper may change what is mapped.
    pub(super) fn forget(&mut self) {
        self.noted.clear();
    }
}
