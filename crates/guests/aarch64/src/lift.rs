//! What every lifting function works with, and the way from an encoding to its function.
//!
//! A lifting function is `fn name(l: &mut Lift<'_>, o: Operands)`, where `Operands` is a struct of
//! [`crate::operands::operands`]; a row of a table names it next to the encoding (see [`crate::operands::row`]).

use crate::{Aarch64, Mode, decode, helpers_system::SystemHelper, regs::slot, trap};
use isomer_ir::{
    Builder, LinkHint, Slot, Terminal, Type, Value,
    guest::Lifted,
    op::{BinOp, Cond, UnOp},
    types::{Align, Endian, HelperId, MemFlags, MmuIndex},
};

/// One instruction being lifted.
pub(crate) struct Lift<'a> {
    /// The block.
    pub(crate) b: &'a mut Builder,
    /// The CPU model.
    pub(crate) guest: &'a Aarch64,
    /// The mode word the block is lifted for.
    pub(crate) mode: Mode,
    /// The encoding.
    pub(crate) insn: u32,
    /// Bytes from the block's entry.
    offset: u32,
}

/// The length of every instruction in bytes.
const LEN: u32 = 4;

/// Lifts one instruction; see [`isomer_ir::Guest::lift_insn`].
pub(crate) fn lift_insn(guest: &Aarch64, mode: u32, code: &[u8], offset: u32, b: &mut Builder) -> Lifted {
    let Some(&bytes) = code.first_chunk() else {
        return Lifted::NeedMore;
    };
    let insn = u32::from_le_bytes(bytes);
    b.insn_start(offset, LEN as u8);
    let mut l = Lift { b, guest, mode: Mode(mode), insn, offset };
    let step = l.mode.single_step() && offset == 0;
    if step {
        l.call_void(SystemHelper::Step.id(), &[]);
    }
    if l.mode.guarded() && offset == 0 {
        l.check_landing();
    }
    match decode::decode(guest.features, insn) {
        Some(row) if row.fp && l.mode.fp_trapped() => l.trap(trap::FP_ACCESS, None),
        Some(row) => (row.insn.lift)(&mut l, insn),
        None => l.undefined(),
    }
    if step {
        l.end_step();
    }
    if l.b.ended() { Lifted::End } else { Lifted::Next }
}

impl Lift<'_> {
    // --- control

    /// The instruction is undefined.
    pub(crate) fn undefined(&mut self) {
        self.trap(trap::UNDEFINED, None);
    }

    /// Ends the block with an exception; `code` is a [`trap::syndrome`], `far` the faulting address.
    pub(crate) fn trap(&mut self, code: u32, far: Option<Value>) {
        self.b.end(Terminal::Trap { code, value: far });
    }

    /// Ends the block behind this instruction and lets the executor look.
    pub(crate) fn exit(&mut self) {
        let offset = self.next();
        self.b.end(Terminal::Exit { offset });
    }

    /// Ends the block of an instruction that is stepped. A branch to a known place must not go on there, as one that is
    /// compiled together with its destination would: one to an unknown place lets the executor look.
    fn end_step(&mut self) {
        let end = match self.b.reopen() {
            None => return self.exit(),
            Some(Terminal::Jump { offset, .. }) => Terminal::Exit { offset },
            Some(Terminal::Branch { c, taken, not_taken }) => {
                let (taken, not_taken) = (self.b.pc_rel(taken), self.b.pc_rel(not_taken));
                Terminal::Indirect { pc: self.b.select(c, taken, not_taken), hint: LinkHint::None }
            }
            Some(other) => other,
        };
        self.b.end(end);
    }

    /// Offset of the next instruction from the block's entry.
    pub(crate) fn next(&self) -> i64 {
        i64::from(self.offset + LEN)
    }

    /// Offset of what lies `imm` bytes from this instruction.
    pub(crate) fn relative(&self, imm: i64) -> i64 {
        i64::from(self.offset) + imm
    }

    /// The address `imm` bytes from this instruction.
    pub(crate) fn pc_rel(&mut self, imm: i64) -> Value {
        let offset = self.relative(imm);
        self.b.pc_rel(offset)
    }

    /// Calls a helper for an I64.
    pub(crate) fn call(&mut self, helper: HelperId, args: &[Value]) -> Value {
        self.b.call(helper, args, Type::I64)
    }

    /// Calls a helper for its effect.
    pub(crate) fn call_void(&mut self, helper: HelperId, args: &[Value]) {
        self.b.call_void(helper, args);
    }

    // --- constants

    /// An I64 constant.
    pub(crate) fn imm(&mut self, value: i64) -> Value {
        self.b.iconst(Type::I64, value as u64)
    }

    /// A constant of the width `sf` says: I64 or I32.
    pub(crate) fn constant(&mut self, sf: bool, value: u64) -> Value {
        self.b.iconst(width(sf), value)
    }

    /// A truth value.
    pub(crate) fn truth(&mut self, value: bool) -> Value {
        self.b.iconst(Type::I8, u64::from(value))
    }

    // --- general registers

    /// Reads Xn; 31 is XZR.
    pub(crate) fn x(&mut self, n: u8) -> Value {
        if n == 31 { self.imm(0) } else { self.b.get(slot::x(n)) }
    }

    /// Reads Wn; 31 is WZR.
    pub(crate) fn w(&mut self, n: u8) -> Value {
        if n == 31 {
            return self.b.iconst(Type::I32, 0);
        }
        let value = self.b.get(slot::x(n));
        self.b.trunc(Type::I32, value)
    }

    /// Reads Xn or Wn; 31 is the zero register.
    pub(crate) fn r(&mut self, sf: bool, n: u8) -> Value {
        if sf { self.x(n) } else { self.w(n) }
    }

    /// Reads Xn in an operand where 31 is SP.
    pub(crate) fn x_sp(&mut self, n: u8) -> Value {
        self.b.get(if n == 31 { slot::SP } else { slot::x(n) })
    }

    /// Reads Xn or Wn where 31 is SP.
    pub(crate) fn r_sp(&mut self, sf: bool, n: u8) -> Value {
        let value = self.x_sp(n);
        if sf { value } else { self.b.trunc(Type::I32, value) }
    }

    /// Writes Xn; a narrower value is zero-extended; 31 is XZR.
    pub(crate) fn set_x(&mut self, n: u8, value: Value) {
        if n != 31 {
            let value = self.b.zext(Type::I64, value);
            self.b.set(slot::x(n), value);
        }
    }

    /// Writes Xn where 31 is SP.
    pub(crate) fn set_x_sp(&mut self, n: u8, value: Value) {
        let value = self.b.zext(Type::I64, value);
        if n == 31 {
            self.b.set(slot::SP, value);
            self.b.lifter_bits &= !SP_CHECKED;
        } else {
            self.b.set(slot::x(n), value);
        }
    }

    /// Writes SP with a value that differs from it by a multiple of 16.
    pub(crate) fn move_sp(&mut self, value: Value) {
        self.b.set(slot::SP, value);
    }

    // --- flags

    /// Reads one of PSTATE.N, Z, C, V as an I8 of 0 or 1.
    pub(crate) fn flag(&mut self, flag: Slot) -> Value {
        let value = self.b.get(flag);
        self.b.trunc(Type::I8, value)
    }

    /// Writes one of them.
    pub(crate) fn set_flag(&mut self, flag: Slot, value: Value) {
        let value = self.b.zext(Type::I64, value);
        self.b.set(flag, value);
    }

    /// Writes PSTATE.NZCV, each an I8 of 0 or 1.
    pub(crate) fn set_nzcv(&mut self, [n, z, c, v]: [Value; 4]) {
        for (flag, value) in [(slot::N, n), (slot::Z, z), (slot::C, c), (slot::V, v)] {
            self.set_flag(flag, value);
        }
    }

    /// Reads PSTATE.NZCV.
    pub(crate) fn nzcv(&mut self) -> [Value; 4] {
        [slot::N, slot::Z, slot::C, slot::V].map(|flag| self.flag(flag))
    }

    /// Is an integer negative? And is it zero?
    pub(crate) fn sign_and_zero(&mut self, value: Value) -> [Value; 2] {
        let ty = self.b.type_of(value);
        let zero = self.b.iconst(ty, 0);
        let n = self.b.compare(Cond::LtS, value, zero);
        let z = self.b.compare(Cond::Eq, value, zero);
        [n, z]
    }

    /// Negates a truth value.
    pub(crate) fn not(&mut self, c: Value) -> Value {
        self.b.bin_imm(BinOp::Xor, c, 1)
    }

    /// ConditionHolds(cond), as I8 (Arm ARM, C1.2.4).
    pub(crate) fn condition(&mut self, cond: u8) -> Value {
        let holds = match cond >> 1 {
            0 => self.flag(slot::Z),
            1 => self.flag(slot::C),
            2 => self.flag(slot::N),
            3 => self.flag(slot::V),
            4 => {
                let (c, z) = (self.flag(slot::C), self.flag(slot::Z));
                self.b.bin(BinOp::AndNot, c, z)
            }
            5 => {
                let (n, v) = (self.flag(slot::N), self.flag(slot::V));
                self.b.compare(Cond::Eq, n, v)
            }
            6 => {
                let (n, v, z) = (self.flag(slot::N), self.flag(slot::V), self.flag(slot::Z));
                let ge = self.b.compare(Cond::Eq, n, v);
                self.b.bin(BinOp::AndNot, ge, z)
            }
            // AL and NV both always hold.
            _ => return self.truth(true),
        };
        if cond & 1 != 0 { self.not(holds) } else { holds }
    }

    // --- memory

    /// Flags of an ordinary data access.
    pub(crate) fn plain(&self) -> MemFlags {
        self.access(self.mode.mmu())
    }

    /// Flags of an access in translation regime `mmu`.
    pub(crate) fn access(&self, mmu: MmuIndex) -> MemFlags {
        let align = if self.mode.aligned_only() { Align::Natural } else { Align::Any };
        let endian = if self.mode.big_endian() { Endian::Big } else { Endian::Little };
        MemFlags::plain(mmu).align(align).endian(endian)
    }

    /// The base register of an access; SP is checked (Arm ARM, D1.3.7 "CheckSPAlignment").
    pub(crate) fn base(&mut self, n: u8) -> Value {
        let base = self.x_sp(n);
        if n == 31 && self.mode.sp_aligned() && self.b.lifter_bits & SP_CHECKED == 0 {
            let low = self.b.trunc(Type::I8, base);
            let low = self.b.bin_imm(BinOp::And, low, 15);
            let zero = self.imm(0);
            self.b.trap_if(low, trap::SP_ALIGNMENT, zero);
            self.b.lifter_bits |= SP_CHECKED;
        }
        base
    }

    /// Ones' complement.
    pub(crate) fn invert(&mut self, value: Value) -> Value {
        self.b.un(UnOp::Not, value)
    }
}

/// [`Builder::lifter_bits`]: SP has been found aligned and has moved by multiples of 16 only since.
pub(crate) const SP_CHECKED: u64 = 1;

/// The type of a general register operand.
pub(crate) const fn width(sf: bool) -> Type {
    if sf { Type::I64 } else { Type::I32 }
}
