//! First step of compilation, forwards: which values are the same unit, and what is above a narrow value in its unit.

use crate::{
    block::Block,
    op::{BinOp, Op, UnOp},
    state::{DIRECT_UNITS, SlotDesc},
    types::{Endian, MemFlags, Order, Type, Value},
};

/// What is known of a unit above the value's type; for 64-bit values, nothing to know.
pub(super) type Repr = u8;
/// Zeros.
pub(super) const ZEXT: Repr = 1;
/// Copies of the top bit.
pub(super) const SEXT: Repr = 2;

/// The first unit, if the slot is 64 or 128 bits wide, aligned, and behind the header but near enough to be named
/// directly.
pub(super) fn direct_unit(slot: &SlotDesc) -> Option<u8> {
    let wide = matches!(slot.ty, Type::I64 | Type::V128);
    let (start, end) = (slot.offset / 8, (slot.offset + slot.ty.bytes()) / 8);
    let behind_header = slot.offset as usize >= size_of::<crate::CpuHeader>();
    (wide && slot.offset.is_multiple_of(8) && behind_header && end as usize <= DIRECT_UNITS)
        .then_some(start as u8)
}

/// A load or store whose order comes for free on this host, little-endian, of an integer, in one of the first 64
/// regimes: the `Ld`/`St` opcodes.
pub(super) fn is_plain(flags: MemFlags, mem: Type) -> bool {
    let free = match flags.order {
        Order::Relaxed => true,
        // Plain moves on x86 are acquire and release, and the run loop's accesses are written as such.
        Order::Acquire | Order::Release | Order::AcqRel => cfg!(target_arch = "x86_64"),
        Order::SeqCst => false,
    };
    free && flags.endian == Endian::Little && mem.is_int() && flags.mmu.0 < 64
}

/// How an operand is to be extended first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ext {
    /// As it is.
    Any,
    /// With zeros from this type.
    Zero(Type),
    /// With the sign from this type.
    Sign(Type),
}

/// An operand of a selected operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opnd {
    None,
    /// The unit of a root value, perhaps extended first.
    Unit(u32, Ext),
    /// A constant.
    Konst(u64),
    /// The field itself.
    Raw(u8),
}

/// Facts about a block's values, by number.
pub(super) struct Facts<'a> {
    pub(super) block: &'a Block,
    /// The value whose unit this one is in: itself, or another of which it is a view.
    root: Vec<u32>,
    repr: Vec<Repr>,
    /// The defining instruction.
    def: Vec<u32>,
}

/// The value each directly named slot is known to hold, by first unit; kept apart by slot type, so that a unit is
/// the home of at most one value of either type.
struct SlotValues {
    int: [u32; DIRECT_UNITS],
    vector: [u32; DIRECT_UNITS],
}

const UNKNOWN: u32 = u32::MAX;

impl SlotValues {
    fn known(&mut self, unit: u8, ty: Type) -> &mut u32 {
        let values = if ty == Type::V128 { &mut self.vector } else { &mut self.int };
        &mut values[usize::from(unit)]
    }

    fn forget_bytes(&mut self, slot: &SlotDesc) {
        let first = (slot.offset / 8) as usize;
        let last = ((slot.offset + slot.ty.bytes() - 1) / 8) as usize;
        for unit in (first..=last).filter(|&unit| unit < DIRECT_UNITS) {
            self.int[unit] = UNKNOWN;
            self.vector[unit] = UNKNOWN;
            self.vector[unit.saturating_sub(1)] = UNKNOWN;
        }
    }
}

impl<'a> Facts<'a> {
    pub(super) fn new(block: &'a Block) -> Self {
        let count = block.value_types.len();
        let mut facts = Self {
            block,
            root: (0..count as u32).collect(),
            repr: vec![0; count],
            def: vec![u32::MAX; count],
        };
        let mut slots = SlotValues { int: [UNKNOWN; DIRECT_UNITS], vector: [UNKNOWN; DIRECT_UNITS] };
        for (index, inst) in block.insts.iter().enumerate() {
            match inst.op {
                Op::Set { slot, value } => {
                    let desc = &block.slots[usize::from(slot.0)];
                    slots.forget_bytes(desc);
                    if let Some(unit) = direct_unit(desc) {
                        *slots.known(unit, desc.ty) = value.0;
                    }
                }
                Op::Get { slot } => {
                    let desc = &block.slots[usize::from(slot.0)];
                    facts.define(inst.first, index, ZEXT);
                    if let Some(unit) = direct_unit(desc) {
                        let known = slots.known(unit, desc.ty);
                        if *known == UNKNOWN {
                            *known = inst.first.0;
                        } else {
                            facts.root[inst.first.0 as usize] = facts.root[*known as usize];
                        }
                    }
                }
                Op::Call { .. } => {
                    slots.int.fill(UNKNOWN);
                    slots.vector.fill(UNKNOWN);
                    facts.define_all(inst, index, 0);
                }
                _ => facts.pure_or_memory(index),
            }
        }
        facts
    }

    fn define(&mut self, value: Value, index: usize, repr: Repr) {
        self.def[value.0 as usize] = index as u32;
        self.repr[value.0 as usize] = repr;
    }

    fn define_all(&mut self, inst: &crate::Inst, index: usize, repr: Repr) {
        for (value, _) in self.block.results(inst) {
            self.define(value, index, repr);
        }
    }

    fn pure_or_memory(&mut self, index: usize) {
        let inst = &self.block.insts[index];
        let v = inst.first;
        match inst.op {
            Op::Trunc { to, a } => {
                let root = self.root(a);
                // A view keeps what is known above it only if nothing was cut off.
                let same = self.block.type_of(Value(root)) == to;
                let repr = if same { self.repr[root as usize] } else { 0 };
                self.define(v, index, repr);
                self.root[v.0 as usize] = root;
            }
            Op::Zext { to, a } if to.is_int() && self.repr(a) & ZEXT != 0 => {
                self.define(v, index, ZEXT | SEXT);
                self.root[v.0 as usize] = self.root(a);
            }
            Op::Sext { to, a } if to.is_int() && self.repr(a) & SEXT != 0 => {
                self.define(v, index, SEXT);
                self.root[v.0 as usize] = self.root(a);
            }
            op => {
                let repr = self.repr_of(&op);
                self.define_all(inst, index, repr);
            }
        }
    }

    /// What the code that [`super::select`] chooses leaves above the result. Out-of-line operations leave zeros.
    fn repr_of(&self, op: &Op) -> Repr {
        match *op {
            Op::Const { ty, bits } => ZEXT | if sign_bit(ty, bits) { 0 } else { SEXT },
            Op::Compare { .. } | Op::FpCompare { .. } | Op::StoreCond { .. } => ZEXT | SEXT,
            Op::Load { ty, mem, signed, flags, .. } => match (is_plain(flags, mem), signed) {
                (true, true) => SEXT,
                (true, false) if mem == ty => ZEXT,
                (true, false) => ZEXT | SEXT,
                (false, _) => ZEXT,
            },
            Op::Unary { op, ty, a } => match (op, ty) {
                (UnOp::Not, _) => self.repr(a) & SEXT,
                (UnOp::Neg, Type::I32) => SEXT,
                (UnOp::Neg, _) => 0,
                (UnOp::Clz | UnOp::Ctz | UnOp::Popcnt, Type::I32) => ZEXT | SEXT,
                _ => ZEXT,
            },
            Op::Binary { op, ty, a, b } => self.repr_of_binary(op, ty, a, b),
            Op::Select { a, b, .. } => self.repr(a) & self.repr(b),
            Op::Zext { .. } => ZEXT | SEXT,
            Op::Sext { .. } => SEXT,
            Op::Extract { signed: true, .. } => SEXT,
            Op::Extract { ty, len, .. } => ZEXT | if u32::from(len) < ty.bits() { SEXT } else { 0 },
            Op::Deposit { .. } | Op::PcRel { .. } => 0,
            _ => ZEXT,
        }
    }

    fn repr_of_binary(&self, op: BinOp, ty: Type, a: Value, b: Value) -> Repr {
        use BinOp::{Add, And, DivS, DivU, Mul, Or, RemS, RemU, Rotl, Rotr, Shl, ShrS, ShrU, Sub, Xor};
        match (op, ty) {
            (Add | Sub | Mul | Shl | ShrU | ShrS | Rotl | Rotr | DivU | DivS | RemU | RemS, Type::I32) => {
                SEXT
            }
            // An immediate operand is sign-extended, so zeros are promised only between registers.
            (And | Or | Xor, _) if self.konst(a).is_none() && self.konst(b).is_none() => {
                self.repr(a) & self.repr(b)
            }
            _ => 0,
        }
    }

    /// The operand that is `v` extended to 64 bits; of 64-bit and vector values, their unit.
    pub(super) fn extended(&self, v: Value, signed: bool) -> Opnd {
        let ty = self.block.type_of(v);
        if matches!(ty, Type::I64 | Type::V128) || self.repr(v) & if signed { SEXT } else { ZEXT } != 0 {
            return Opnd::Unit(self.root(v), Ext::Any);
        }
        match (self.konst(v), signed) {
            (Some(bits), true) => Opnd::Konst(sign_extend(ty, bits) as u64),
            (Some(bits), false) => Opnd::Konst(bits),
            (None, true) => Opnd::Unit(self.root(v), Ext::Sign(ty)),
            (None, false) => Opnd::Unit(self.root(v), Ext::Zero(ty)),
        }
    }

    /// The value whose unit `value` is in.
    pub(super) fn root(&self, value: Value) -> u32 {
        self.root[value.0 as usize]
    }

    /// What is above `value` in its unit.
    pub(super) fn repr(&self, value: Value) -> Repr {
        self.repr[value.0 as usize]
    }

    /// Is it a view of another value, so that its definition needs no code?
    pub(super) fn is_view(&self, value: Value) -> bool {
        self.root(value) != value.0
    }

    /// The instruction that computes the value (of a view: that makes the view).
    pub(super) fn def(&self, value: Value) -> Option<&'a Op> {
        self.block.insts.get(self.def[value.0 as usize] as usize).map(|inst| &inst.op)
    }

    /// The constant in the root's unit.
    pub(super) fn root_konst(&self, root: u32) -> Option<u64> {
        match self.def(Value(root)) {
            Some(&Op::Const { ty, bits }) => Some(bits & ty.mask()),
            _ => None,
        }
    }

    /// The value's bits if it is an integer constant, zero-extended.
    pub(super) fn konst(&self, value: Value) -> Option<u64> {
        Some(self.root_konst(self.root(value))? & self.block.type_of(value).mask())
    }

    /// The same sign-extended.
    pub(super) fn konst_signed(&self, value: Value) -> Option<i64> {
        Some(sign_extend(self.block.type_of(value), self.konst(value)?))
    }
}

/// The top bit of an integer.
fn sign_bit(ty: Type, bits: u64) -> bool {
    bits >> (ty.bits().min(64) - 1) & 1 != 0
}

/// Sign-extends the low bits to 64.
pub(super) fn sign_extend(ty: Type, bits: u64) -> i64 {
    let shift = 64 - ty.bits().min(64);
    (bits << shift) as i64 >> shift
}
