//! Builds one [`Block`]. Lifters use nothing else; they do no clever folding, passes do.

use crate::{
    block::{Block, Inst, LinkHint, Terminal},
    op::{BinOp, Cond, FmaOp, FpBinOp, FpCond, FpOverflow, Op, RmwOp, UnOp, VecBinOp, VecUnOp},
    state::SlotDesc,
    types::{FpFormat, FpModel, HelperId, Lane, MemFlags, MmuIndex, Order, Rounding, Slot, Type, Value},
};

/// A block under construction.
#[derive(Debug)]
pub struct Builder {
    insts: Vec<Inst>,
    value_types: Vec<Type>,
    terminal: Option<Terminal>,
    mode: u32,
    fp: FpModel,
    insn_count: u32,
    len: u32,
    slots: &'static [SlotDesc],
    /// For the lifter: facts that hold for the rest of this block ("FS is already dirty"). Starts at 0.
    pub lifter_bits: u64,
}

impl Builder {
    /// An empty block for mode word `mode`.
    pub fn new(slots: &'static [SlotDesc], mode: u32, fp: FpModel) -> Self {
        Self {
            insts: Vec::with_capacity(64),
            value_types: Vec::with_capacity(64),
            terminal: None,
            mode,
            fp,
            insn_count: 0,
            len: 0,
            slots,
            lifter_bits: 0,
        }
    }

    /// Appends any operation; gives its first result (meaningless when it has none).
    pub fn push(&mut self, op: Op) -> Value {
        let first = Value(self.value_types.len() as u32);
        let (types, count) = op.results(|slot| self.slots[usize::from(slot.0)].ty);
        self.value_types.extend_from_slice(&types[..count]);
        self.insts.push(Inst { op, first });
        first
    }

    fn push3(&mut self, op: Op) -> [Value; 3] {
        let v = self.push(op).0;
        [Value(v), Value(v + 1), Value(v + 2)]
    }

    /// Ends the block.
    pub fn end(&mut self, terminal: Terminal) {
        self.terminal.get_or_insert(terminal);
    }

    /// Takes the terminal away, for another in its place.
    pub fn reopen(&mut self) -> Option<Terminal> {
        self.terminal.take()
    }

    /// Has a terminal been set?
    pub fn ended(&self) -> bool {
        self.terminal.is_some()
    }

    /// Guest instructions begun so far.
    pub fn insn_count(&self) -> u32 {
        self.insn_count
    }

    /// Bytes of guest code lifted so far.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Has no instruction been begun?
    pub fn is_empty(&self) -> bool {
        self.insn_count == 0
    }

    /// The type of a value.
    pub fn type_of(&self, value: Value) -> Type {
        self.value_types[value.0 as usize]
    }

    /// Begins a guest instruction `offset` bytes from the entry, `len` bytes long.
    pub fn insn_start(&mut self, offset: u32, len: u8) {
        self.push(Op::InsnStart { offset, len });
        self.insn_count += 1;
        self.len = offset + u32::from(len);
    }

    /// The finished block. One that was cut without a terminal continues behind its last instruction.
    pub fn finish(self) -> Block {
        let fall_through = Terminal::Jump { offset: i64::from(self.len), hint: LinkHint::None };
        Block {
            insts: self.insts,
            value_types: self.value_types,
            terminal: self.terminal.unwrap_or(fall_through),
            mode: self.mode,
            fp: self.fp,
            insn_count: self.insn_count,
            len: self.len,
            slots: self.slots,
        }
    }

    // --- constants and state

    /// An integer constant; bits above the type's width are dropped.
    pub fn iconst(&mut self, ty: Type, bits: u64) -> Value {
        self.push(Op::Const { ty, bits: bits & ty.mask() })
    }
    /// A vector constant.
    pub fn vconst(&mut self, bits: u128) -> Value {
        self.push(Op::ConstVec { bits })
    }
    /// A guest code address relative to the block's entry.
    pub fn pc_rel(&mut self, offset: i64) -> Value {
        self.push(Op::PcRel { offset })
    }
    /// Reads a slot.
    pub fn get(&mut self, slot: Slot) -> Value {
        self.push(Op::Get { slot })
    }
    /// Writes a slot.
    pub fn set(&mut self, slot: Slot, value: Value) {
        self.push(Op::Set { slot, value });
    }

    // --- integers

    /// One-operand integer operation.
    pub fn un(&mut self, op: UnOp, a: Value) -> Value {
        let ty = self.type_of(a);
        self.push(Op::Unary { op, ty, a })
    }
    /// Two-operand integer operation.
    pub fn bin(&mut self, op: BinOp, a: Value, b: Value) -> Value {
        let ty = self.type_of(a);
        self.push(Op::Binary { op, ty, a, b })
    }
    /// Two-operand integer operation with a constant.
    pub fn bin_imm(&mut self, op: BinOp, a: Value, bits: u64) -> Value {
        let ty = self.type_of(a);
        let b = self.iconst(ty, bits);
        self.push(Op::Binary { op, ty, a, b })
    }
    /// a + b.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.bin(BinOp::Add, a, b)
    }
    /// a - b.
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.bin(BinOp::Sub, a, b)
    }
    /// a and b.
    pub fn and(&mut self, a: Value, b: Value) -> Value {
        self.bin(BinOp::And, a, b)
    }
    /// a or b.
    pub fn or(&mut self, a: Value, b: Value) -> Value {
        self.bin(BinOp::Or, a, b)
    }
    /// a xor b.
    pub fn xor(&mut self, a: Value, b: Value) -> Value {
        self.bin(BinOp::Xor, a, b)
    }
    /// `[sum, carry, overflow]` of a + b + carry.
    pub fn add_with_carry(&mut self, a: Value, b: Value, carry: Value) -> [Value; 3] {
        let ty = self.type_of(a);
        self.push3(Op::AddCarry { ty, a, b, carry })
    }
    /// `[difference, borrow, overflow]` of a - b - borrow.
    pub fn sub_with_borrow(&mut self, a: Value, b: Value, borrow: Value) -> [Value; 3] {
        let ty = self.type_of(a);
        self.push3(Op::SubBorrow { ty, a, b, borrow })
    }
    /// Truth of a comparison.
    pub fn compare(&mut self, cond: Cond, a: Value, b: Value) -> Value {
        let ty = self.type_of(a);
        self.push(Op::Compare { cond, ty, a, b })
    }
    /// `if c { a } else { b }`.
    pub fn select(&mut self, c: Value, a: Value, b: Value) -> Value {
        let ty = self.type_of(a);
        self.push(Op::Select { ty, c, a, b })
    }
    /// Zero-extends; the same value when it has that type already.
    pub fn zext(&mut self, to: Type, a: Value) -> Value {
        if self.type_of(a) == to { a } else { self.push(Op::Zext { to, a }) }
    }
    /// Sign-extends; the same value when it has that type already.
    pub fn sext(&mut self, to: Type, a: Value) -> Value {
        if self.type_of(a) == to { a } else { self.push(Op::Sext { to, a }) }
    }
    /// Truncates; the same value when it has that type already.
    pub fn trunc(&mut self, to: Type, a: Value) -> Value {
        if self.type_of(a) == to { a } else { self.push(Op::Trunc { to, a }) }
    }
    /// A bit field.
    pub fn extract(&mut self, a: Value, lo: u8, len: u8, signed: bool) -> Value {
        let ty = self.type_of(a);
        self.push(Op::Extract { ty, a, lo, len, signed })
    }
    /// Replaces a bit field.
    pub fn deposit(&mut self, a: Value, b: Value, lo: u8, len: u8) -> Value {
        let ty = self.type_of(a);
        self.push(Op::Deposit { ty, a, b, lo, len })
    }

    // --- memory

    /// Loads `mem`, extended to `ty`.
    pub fn load(&mut self, ty: Type, mem: Type, signed: bool, addr: Value, flags: MemFlags) -> Value {
        self.push(Op::Load { ty, mem, signed, addr, flags })
    }
    /// Stores the low bits of `value`.
    pub fn store(&mut self, mem: Type, addr: Value, value: Value, flags: MemFlags) {
        self.push(Op::Store { mem, addr, value, flags });
    }
    /// Atomic read-modify-write; the old value.
    pub fn rmw(&mut self, op: RmwOp, addr: Value, value: Value, flags: MemFlags) -> Value {
        let ty = self.type_of(value);
        self.push(Op::Rmw { op, ty, addr, value, flags })
    }
    /// Atomic compare-and-swap; the old value.
    pub fn cas(&mut self, addr: Value, expected: Value, new: Value, flags: MemFlags) -> Value {
        let ty = self.type_of(expected);
        self.push(Op::Cas { ty, addr, expected, new, flags })
    }
    /// 16-byte compare-and-swap; the old halves.
    pub fn cas_pair(
        &mut self,
        addr: Value,
        expected: [Value; 2],
        new: [Value; 2],
        flags: MemFlags,
    ) -> [Value; 2] {
        let v = self.push(Op::CasPair { addr, expected, new, flags }).0;
        [Value(v), Value(v + 1)]
    }
    /// Load-reserved.
    pub fn load_reserve(&mut self, ty: Type, addr: Value, flags: MemFlags) -> Value {
        self.push(Op::LoadReserve { ty, addr, flags })
    }
    /// Store-conditional; I8 1 on success.
    pub fn store_cond(&mut self, addr: Value, value: Value, flags: MemFlags) -> Value {
        let ty = self.type_of(value);
        self.push(Op::StoreCond { ty, addr, value, flags })
    }
    /// Memory fence.
    pub fn fence(&mut self, order: Order) {
        self.push(Op::Fence { order });
    }
    /// Flags of a plain access, for convenience.
    pub fn plain(&self, mmu: MmuIndex) -> MemFlags {
        MemFlags::plain(mmu)
    }

    // --- floating point

    /// Two-operand floating point.
    pub fn fp_bin(&mut self, op: FpBinOp, fmt: FpFormat, rounding: Rounding, a: Value, b: Value) -> Value {
        self.push(Op::FpBinary { op, fmt, rounding, a, b })
    }
    /// Square root.
    pub fn fp_sqrt(&mut self, fmt: FpFormat, rounding: Rounding, a: Value) -> Value {
        self.push(Op::FpSqrt { fmt, rounding, a })
    }
    /// Fused multiply-add.
    pub fn fp_fma(&mut self, op: FmaOp, fmt: FpFormat, rounding: Rounding, [a, b, c]: [Value; 3]) -> Value {
        self.push(Op::FpFma { op, fmt, rounding, a, b, c })
    }
    /// Comparison.
    pub fn fp_compare(&mut self, cond: FpCond, fmt: FpFormat, signalling: bool, a: Value, b: Value) -> Value {
        self.push(Op::FpCompare { cond, fmt, signalling, a, b })
    }
    /// Format conversion.
    pub fn fp_convert(&mut self, from: FpFormat, to: FpFormat, rounding: Rounding, a: Value) -> Value {
        self.push(Op::FpConvert { from, to, rounding, a })
    }
    /// To integer.
    pub fn fp_to_int(
        &mut self,
        fmt: FpFormat,
        (to, signed): (Type, bool),
        overflow: FpOverflow,
        rounding: Rounding,
        a: Value,
    ) -> Value {
        self.push(Op::FpToInt { fmt, to, signed, overflow, rounding, a })
    }
    /// From integer (the value's type is the integer's).
    pub fn fp_from_int(&mut self, fmt: FpFormat, signed: bool, rounding: Rounding, a: Value) -> Value {
        let from = self.type_of(a);
        self.push(Op::FpFromInt { fmt, from, signed, rounding, a })
    }
    /// To an integral value.
    pub fn fp_round(&mut self, fmt: FpFormat, rounding: Rounding, inexact: bool, a: Value) -> Value {
        self.push(Op::FpRound { fmt, rounding, inexact, a })
    }

    // --- vectors

    /// Lane-wise, one operand.
    pub fn vec_un(&mut self, op: VecUnOp, lane: Lane, a: Value) -> Value {
        self.push(Op::VecUnary { op, lane, a })
    }
    /// Lane-wise, two operands.
    pub fn vec_bin(&mut self, op: VecBinOp, lane: Lane, a: Value, b: Value) -> Value {
        self.push(Op::VecBinary { op, lane, a, b })
    }

    // --- escape hatches

    /// Calls a helper for its value.
    pub fn call(&mut self, helper: HelperId, args: &[Value], result: Type) -> Value {
        self.push(Op::Call { helper, args: pack_args(args), result: Some(result) })
    }
    /// Calls a helper for its effect.
    pub fn call_void(&mut self, helper: HelperId, args: &[Value]) {
        self.push(Op::Call { helper, args: pack_args(args), result: None });
    }
    /// Traps if `c` is not 0.
    pub fn trap_if(&mut self, c: Value, code: u32, value: Value) {
        self.push(Op::TrapIf { c, code, value });
    }
}

fn pack_args(args: &[Value]) -> [Option<Value>; 4] {
    debug_assert!(args.len() <= 4, "helpers take up to four arguments");
    std::array::from_fn(|i| args.get(i).copied())
}
