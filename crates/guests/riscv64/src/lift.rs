//! What every lifting function works with: the builder, registers, and the instruction at hand.

use crate::{
    Extensions, Mode, Riscv64, cause, decode,
    helpers::Helper,
    regs::{FpState, slot},
};
use isomer_ir::{
    Builder, Terminal, Type, Value,
    guest::Lifted,
    types::{FpFormat, MemFlags, Rounding},
};

/// One instruction being lifted.
pub(crate) struct Lift<'a> {
    /// The block.
    pub(crate) b: &'a mut Builder,
    /// The mode word the block is lifted for.
    pub(crate) mode: Mode,
    /// The encoding; 16-bit ones in the low half.
    pub(crate) insn: u32,
    /// Bytes from the block's entry.
    offset: u32,
    /// 2 or 4.
    len: u32,
    /// Has FS been marked dirty by this instruction? Then the mode has changed under the block.
    marked_dirty: bool,
}

/// Lifts one instruction; see [`isomer_ir::Guest::lift_insn`].
pub(crate) fn lift_insn(guest: &Riscv64, mode: u32, code: &[u8], offset: u32, b: &mut Builder) -> Lifted {
    let Some((insn, len)) = decode::fetch(code) else {
        return Lifted::NeedMore;
    };
    b.insn_start(offset, len as u8);
    let mode = Mode(mode);
    let mut lift = Lift { b, mode, insn, offset, len: len as u32, marked_dirty: false };
    match decode::decode(guest.ext, insn) {
        Some(d) if mode.fp() == FpState::Off && d.row.insn.uses_fp() => lift.illegal(),
        Some(d) => d.row.insn.form.lift(&mut lift, &d.fields),
        None => lift.illegal(),
    }
    if lift.marked_dirty {
        lift.exit();
    }
    if b.ended() { Lifted::End } else { Lifted::Next }
}

impl decode::Insn {
    /// Is it of an extension that `mstatus.FS` switches?
    fn uses_fp(&self) -> bool {
        const FP: Extensions = Extensions::F
            .union(Extensions::D)
            .union(Extensions::ZFH)
            .union(Extensions::ZFHMIN)
            .union(Extensions::ZFA);
        self.all.union(self.any).intersects(FP)
    }
}

impl Lift<'_> {
    // --- control

    /// The instruction is illegal; its encoding is the trap value.
    pub(crate) fn illegal(&mut self) {
        let value = self.insn_bits();
        self.trap(cause::ILLEGAL, Some(value));
    }

    /// Ends the block with exception `cause`.
    pub(crate) fn trap(&mut self, cause: u64, value: Option<Value>) {
        self.b.end(Terminal::Trap { code: cause as u32, value });
    }

    /// Ends the block behind this instruction and lets the executor look.
    pub(crate) fn exit(&mut self) {
        let offset = self.next();
        self.b.end(Terminal::Exit { offset });
    }

    /// Offset of the next instruction from the block's entry.
    pub(crate) fn next(&self) -> i64 {
        i64::from(self.offset + self.len)
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

    /// The encoding as a value, for helpers and trap values.
    pub(crate) fn insn_bits(&mut self) -> Value {
        self.b.iconst(Type::I64, u64::from(self.insn))
    }

    /// Calls a helper for an I64.
    pub(crate) fn call(&mut self, helper: Helper, args: &[Value]) -> Value {
        self.b.call(helper.id(), args, Type::I64)
    }

    /// Calls a helper for its effect.
    pub(crate) fn call_void(&mut self, helper: Helper, args: &[Value]) {
        self.b.call_void(helper.id(), args);
    }

    // --- integer registers

    /// An I64 constant.
    pub(crate) fn imm(&mut self, value: i64) -> Value {
        self.b.iconst(Type::I64, value as u64)
    }

    /// Reads integer register `n`.
    pub(crate) fn x(&mut self, n: u8) -> Value {
        if n == 0 { self.imm(0) } else { self.b.get(slot::x(n)) }
    }

    /// The low half of integer register `n`, as I32.
    pub(crate) fn x32(&mut self, n: u8) -> Value {
        let value = self.x(n);
        self.b.trunc(Type::I32, value)
    }

    /// Writes integer register `n`: an I64, or an I32 to be sign-extended as all 32-bit results are (volume I, 4.2).
    pub(crate) fn set_x(&mut self, n: u8, value: Value) {
        if n != 0 {
            let value = self.b.sext(Type::I64, value);
            self.b.set(slot::x(n), value);
        }
    }

    /// Writes a narrower value zero-extended.
    pub(crate) fn set_x_zext(&mut self, n: u8, value: Value) {
        if n != 0 {
            let value = self.b.zext(Type::I64, value);
            self.b.set(slot::x(n), value);
        }
    }

    /// `rs1 + imm`.
    pub(crate) fn address(&mut self, rs1: u8, imm: i64) -> Value {
        let base = self.x(rs1);
        let imm = self.imm(imm);
        self.b.add(base, imm)
    }

    /// Flags of an ordinary access: any alignment, no ordering.
    pub(crate) fn plain(&self) -> MemFlags {
        MemFlags::plain(self.mode.data_mmu())
    }

    // --- floating-point registers

    /// To be called where floating-point state (registers or `fflags`) is written.
    pub(crate) fn mark_fp_dirty(&mut self) {
        if self.mode.fp() == FpState::Clean && !self.marked_dirty {
            self.call_void(Helper::MarkFsDirty, &[]);
            self.marked_dirty = true;
        }
    }

    /// Reads floating-point register `n` as `fmt`: a value that is not NaN-boxed is the canonical NaN (volume I, 21.2).
    pub(crate) fn f(&mut self, fmt: FpFormat, n: u8) -> Value {
        let whole = self.b.get(slot::f(n));
        let value = self.b.trunc(fmt.ty(), whole);
        if fmt == FpFormat::F64 || fmt == FpFormat::F32 && self.b.lifter_bits & single_bit(n) != 0 {
            return value;
        }
        let least_boxed = self.b.iconst(Type::I64, box_of(fmt));
        let boxed = self.b.compare(isomer_ir::op::Cond::GeU, whole, least_boxed);
        let nan = self.b.iconst(fmt.ty(), canonical_nan(fmt));
        self.b.select(boxed, value, nan)
    }

    /// The low bits of floating-point register `n`, boxed or not: stores and `fmv.x.*`.
    pub(crate) fn f_bits(&mut self, n: u8) -> Value {
        self.b.get(slot::f(n))
    }

    /// Writes floating-point register `n`, NaN-boxing narrow formats.
    pub(crate) fn set_f(&mut self, fmt: FpFormat, n: u8, value: Value) {
        let mut whole = self.b.zext(Type::I64, value);
        if fmt == FpFormat::F64 {
            self.b.lifter_bits &= !single_bit(n);
        } else {
            let ones = self.b.iconst(Type::I64, box_of(fmt));
            whole = self.b.or(whole, ones);
            self.b.lifter_bits |= single_bit(n);
        }
        self.b.set(slot::f(n), whole);
        self.mark_fp_dirty();
    }

    /// The rounding an `rm` field asks for; `None` where that makes the instruction illegal.
    pub(crate) fn rounding(&self, rm: u8) -> Option<Rounding> {
        match rm {
            0 => Some(Rounding::NearestEven),
            1 => Some(Rounding::TowardZero),
            2 => Some(Rounding::Down),
            3 => Some(Rounding::Up),
            4 => Some(Rounding::NearestAway),
            7 if !self.mode.frm_invalid() => Some(Rounding::Dynamic),
            _ => None,
        }
    }
}

/// The bit of [`Builder::lifter_bits`] that says that a register is known to hold a NaN-boxed single.
const fn single_bit(n: u8) -> u64 {
    1 << (n & 31)
}

/// The bits above a narrow value, all ones.
const fn box_of(fmt: FpFormat) -> u64 {
    match fmt {
        FpFormat::F64 => 0,
        _ => u64::MAX << fmt.bits(),
    }
}

/// The NaN that stands for badly boxed values.
const fn canonical_nan(fmt: FpFormat) -> u64 {
    match fmt {
        FpFormat::F16 => 0x7e00,
        FpFormat::Bf16 => 0x7fc0,
        FpFormat::F32 => 0x7fc0_0000,
        FpFormat::F64 => 0x7ff8_0000_0000_0000,
    }
}
