//! Loads and stores of general registers (Arm ARM, C4.1.96 and C3.2). Exclusive and atomic ones are `lift_atomic.rs`.
//!
//! A load's registers, and the base where it is written back, change only after every access of the instruction has
//! succeeded. Where the manual leaves a result open (base and destination the same) the base is written last.

use crate::{
    lift::Lift,
    mode::Key,
    operands::{Indexed, Literal, LoadAuth, Mem, Pair, Scaled, Unscaled},
};
use isomer_ir::{
    Type, Value,
    op::BinOp,
    types::{MemFlags, MmuIndex},
};

/// When and whether the base register is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Base {
    /// Address is base plus offset; the base stays.
    Kept,
    /// Address is the base; it becomes base plus offset.
    Post,
    /// Address is base plus offset; the base becomes the address.
    Pre,
}

impl Lift<'_> {
    /// base + offset, or just the base.
    pub(crate) fn address(&mut self, base: Value, offset: i64) -> Value {
        if offset == 0 { base } else { self.b.bin_imm(BinOp::Add, base, offset as u64) }
    }

    /// The address of an access, and the value that the base register takes afterwards.
    pub(crate) fn indexed(&mut self, n: u8, offset: i64, mode: Base) -> (Value, Option<Value>) {
        let base = self.base(n);
        let moved = self.address(base, offset);
        match mode {
            Base::Kept => (moved, None),
            Base::Post => (base, Some(moved)),
            Base::Pre => (moved, Some(moved)),
        }
    }

    /// Writes the base register back, moved by `offset`.
    pub(crate) fn write_back(&mut self, n: u8, offset: i64, value: Option<Value>) {
        match value {
            Some(value) if n == 31 && offset % 16 == 0 => self.move_sp(value),
            Some(value) => self.set_x_sp(n, value),
            None => {}
        }
    }

    /// The address base + extended register.
    pub(crate) fn register_address(&mut self, o: Indexed, scale: u8) -> Value {
        let base = self.base(o.rn);
        let offset = self.extended(true, o.rm, o.option, if o.scaled { scale } else { 0 });
        self.b.add(base, offset)
    }

    /// Loads into a general register.
    pub(crate) fn load(&mut self, rt: u8, m: Mem, addr: Value, flags: MemFlags) {
        let value = self.load_value(m, addr, flags);
        self.set_x(rt, value);
    }

    fn load_value(&mut self, m: Mem, addr: Value, flags: MemFlags) -> Value {
        let value =
            self.b.load(if m.sf || !m.signed { Type::I64 } else { Type::I32 }, m.ty, m.signed, addr, flags);
        self.b.zext(Type::I64, value)
    }

    /// Stores a general register's low part.
    pub(crate) fn store(&mut self, rt: u8, m: Mem, addr: Value, flags: MemFlags) {
        let value = self.x(rt);
        self.b.store(m.ty, addr, value, flags);
    }

    /// Flags of a load or store that may be unprivileged.
    fn regime(&self, unprivileged: bool) -> MemFlags {
        let mmu: MmuIndex = if unprivileged { self.mode.unprivileged_mmu() } else { self.mode.mmu() };
        self.access(mmu)
    }
}

/// An option field that names a register offset: UXTW, LSL, SXTW, SXTX.
pub(crate) fn has_offset_register(insn: u32) -> bool {
    insn >> 14 & 1 != 0
}

/// A load with an unsigned scaled offset.
pub(crate) fn load_scaled(l: &mut Lift<'_>, o: Scaled, m: Mem) {
    let base = l.base(o.rn);
    let addr = l.address(base, (o.units * u64::from(m.bytes())) as i64);
    let flags = l.plain();
    l.load(o.rt, m, addr, flags);
}

/// A store with an unsigned scaled offset.
pub(crate) fn store_scaled(l: &mut Lift<'_>, o: Scaled, m: Mem) {
    let base = l.base(o.rn);
    let addr = l.address(base, (o.units * u64::from(m.bytes())) as i64);
    let flags = l.plain();
    l.store(o.rt, m, addr, flags);
}

/// A load with a signed offset in bytes, in any form.
pub(crate) fn load_unscaled(l: &mut Lift<'_>, o: Unscaled, m: Mem, base: Base, unprivileged: bool) {
    let (addr, moved) = l.indexed(o.rn, o.imm, base);
    let flags = l.regime(unprivileged);
    l.load(o.rt, m, addr, flags);
    l.write_back(o.rn, o.imm, moved);
}

/// A store with a signed offset in bytes, in any form.
pub(crate) fn store_unscaled(l: &mut Lift<'_>, o: Unscaled, m: Mem, base: Base, unprivileged: bool) {
    let (addr, moved) = l.indexed(o.rn, o.imm, base);
    let flags = l.regime(unprivileged);
    l.store(o.rt, m, addr, flags);
    l.write_back(o.rn, o.imm, moved);
}

/// A load with a register offset.
pub(crate) fn load_indexed(l: &mut Lift<'_>, o: Indexed, m: Mem) {
    let addr = l.register_address(o, m.bytes().ilog2() as u8);
    let flags = l.plain();
    l.load(o.rt, m, addr, flags);
}

/// A store with a register offset.
pub(crate) fn store_indexed(l: &mut Lift<'_>, o: Indexed, m: Mem) {
    let addr = l.register_address(o, m.bytes().ilog2() as u8);
    let flags = l.plain();
    l.store(o.rt, m, addr, flags);
}

/// `ldr`, `ldrsw` of a pc-relative literal.
pub(crate) fn load_literal(l: &mut Lift<'_>, o: Literal, m: Mem) {
    let (addr, flags) = (l.pc_rel(o.words * 4), l.plain());
    l.load(o.rt, m, addr, flags);
}

/// `ldp`, `ldpsw`, `ldnp`.
pub(crate) fn load_pair(l: &mut Lift<'_>, o: Pair, m: Mem, base: Base) {
    let offset = o.units * i64::from(m.bytes());
    let ((addr, moved), flags) = (l.indexed(o.rn, offset, base), l.plain());
    let first = l.load_value(m, addr, flags);
    let addr = l.address(addr, i64::from(m.bytes()));
    let second = l.load_value(m, addr, flags);
    l.set_x(o.rt, first);
    l.set_x(o.rt2, second);
    l.write_back(o.rn, offset, moved);
}

/// `stp`, `stnp`.
pub(crate) fn store_pair(l: &mut Lift<'_>, o: Pair, m: Mem, base: Base) {
    let offset = o.units * i64::from(m.bytes());
    let ((addr, moved), flags) = (l.indexed(o.rn, offset, base), l.plain());
    l.store(o.rt, m, addr, flags);
    let addr = l.address(addr, i64::from(m.bytes()));
    l.store(o.rt2, m, addr, flags);
    l.write_back(o.rn, offset, moved);
}

/// `ldraa`, `ldrab`: the base is authenticated with a modifier of zero; written back, it stays authenticated.
pub(crate) fn load_authenticated(l: &mut Lift<'_>, o: LoadAuth, key: Key) {
    let (base, zero) = (l.base(o.rn), l.imm(0));
    let Some(base) = l.authenticate(key, base, zero) else {
        return;
    };
    let offset = (o.imm as i64 - if o.sign { 512 } else { 0 }) * 8;
    let (addr, flags) = (l.address(base, offset), l.plain());
    let value = l.load_value(Mem::new(Type::I64, false, true), addr, flags);
    l.set_x(o.rt, value);
    if o.writeback {
        l.set_x_sp(o.rn, addr);
    }
}

/// `prfm`, `prfum`, and hints that need nothing.
pub(crate) fn nothing(_: &mut Lift<'_>, _: ()) {}
