//! Templates for x86-64 hosts (Intel SDM volume 2). `rdi rsi rdx rcx` are the CPU, the context, the instructions left and
//! the entry's pc throughout a block; `rax r8`-`r11` and `xmm0`-`xmm12` hold values; `xmm13`-`xmm15` are scratch
//! within one operation. Nothing is saved and no stack frame is made.
//!
//! What is rare is emitted behind the block ([`cold`]), where the registers are as they were at the jump.

mod cold;
mod control;
mod enc;
mod fp;
mod int;
mod memory;
mod vector;

use self::{
    cold::{Cold, Site},
    enc::{Asm, Patch, Rm, one, reg::*, two},
};
use super::alloc::{Alloc, Class, Full, NO_HOME, NONE, Remat};
use crate::{CompileError, Compiled, abi::Context, host::HostFeatures, region::RegionBlock};
use isomer_ir::{Block, CpuHeader, Op, Type, Value};
use std::{cell::Cell, mem::offset_of};

/// Registers that hold values.
const INT_REGS: u32 = 1 << RAX | 1 << R8 | 1 << R9 | 1 << R10 | 1 << R11;
const VEC_REGS: u32 = (1 << 13) - 1;
/// Vector registers free within an operation.
const X13: u8 = 13;
const X14: u8 = 14;
const X15: u8 = 15;

/// Why the block cannot be compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    /// Registers and spill slots are used up.
    Full,
    /// The host lacks an instruction without which the operation cannot be done.
    Host(&'static str),
    /// The block is not well-formed, or larger than code can address.
    Malformed,
}

impl From<Full> for Refusal {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

type Done<T = ()> = Result<T, Refusal>;

/// A field of the CPU header.
const fn header(offset: usize) -> Rm {
    Rm::Mem(RDI, offset as i32)
}

/// A field of the context.
const fn context(offset: usize) -> Rm {
    Rm::Mem(RSI, offset as i32)
}

/// The low or high half of an argument or result of a function of the context.
const fn argument(index: usize, half: usize) -> Rm {
    context(offset_of!(Context, values) + 16 * index + 8 * half)
}

/// A slot or spill unit.
const fn cpu(offset: u32) -> Rm {
    Rm::Mem(RDI, offset as i32)
}

/// An operand of an integer instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Src {
    Imm(i32),
    Rm(Rm),
}

/// One block being compiled.
struct Gen<'a> {
    asm: Asm,
    alloc: Alloc,
    block: &'a Block,
    features: HostFeatures,
    cold: Vec<Cold>,
    /// Jumps to the fault exit of an instruction.
    fault_exits: Vec<(Patch, Site)>,
    /// Literals and where they are referred to.
    pool: Vec<u128>,
    pool_uses: Vec<(Patch, u32)>,
    /// The instruction being compiled.
    site: Site,
    started: bool,
    /// The truth value that is in the host's flags only, and the condition that says so.
    flags: Option<(Value, u8)>,
}

thread_local! {
    /// Code is written here before it is copied out at its size. Grows to what the largest block needs: a few hundred
    /// bytes an instruction at most.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See [`super::compile`].
pub(super) fn compile(
    block: &RegionBlock,
    features: HostFeatures,
    hot: Option<u16>,
) -> Result<Compiled, CompileError> {
    let RegionBlock { offset, block } = block;
    let refused = |refusal| match refusal {
        Refusal::Full => CompileError::Codegen("more values live at once than there is room for".to_owned()),
        Refusal::Host(what) => CompileError::Nothing(what),
        Refusal::Malformed => CompileError::Codegen("the block is malformed".to_owned()),
    };
    let mut compiler = Gen {
        asm: Asm::reusing(BUFFER.take()),
        alloc: Alloc::new(block, INT_REGS, VEC_REGS),
        block,
        features,
        cold: Vec::with_capacity(16),
        fault_exits: Vec::with_capacity(16),
        pool: Vec::new(),
        pool_uses: Vec::new(),
        site: Site { offset: 0, retired: 0 },
        started: false,
        flags: None,
    };
    let outcome = compiler.all(hot);
    let (code, buffer) = compiler.asm.finish();
    BUFFER.set(buffer);
    outcome.map_err(refused)?;
    let end = u32::from(*offset) + block.len;
    let end = u16::try_from(end).map_err(|_| refused(Refusal::Malformed))?;
    Ok(Compiled { code, ranges: vec![(*offset, end)], insns: block.insn_count })
}

impl Gen<'_> {
    fn all(&mut self, hot: Option<u16>) -> Done {
        let exits = self.entry(hot);
        for at in 0..self.block.insts.len() {
            let inst = &self.block.insts[at];
            self.alloc.now = at as u32;
            self.op(at, &inst.op, inst.first)?;
            self.alloc.done(&inst.op);
        }
        self.alloc.now = self.block.insts.len() as u32;
        let transfers = self.terminal()?;
        self.finish(exits, transfers);
        Ok(())
    }

    fn op(&mut self, at: usize, op: &Op, first: Value) -> Done {
        match *op {
            Op::InsnStart { offset, .. } => {
                self.site.offset = offset;
                self.site.retired += u32::from(self.started);
                self.started = true;
                Ok(())
            }
            Op::Const { bits, .. } => self.define_remat(first, Remat::Const(bits)),
            Op::ConstVec { .. } => self.define_remat(first, Remat::ConstVec(at as u32)),
            Op::PcRel { offset } => self.define_remat(first, Remat::PcRel(offset)),
            Op::Get { slot } => self.get(slot, first),
            Op::Set { slot, value } => self.set(slot, value),
            Op::Unary { .. }
            | Op::Binary { .. }
            | Op::AddCarry { .. }
            | Op::SubBorrow { .. }
            | Op::Compare { .. }
            | Op::Select { .. }
            | Op::Zext { .. }
            | Op::Sext { .. }
            | Op::Trunc { .. }
            | Op::Extract { .. }
            | Op::Deposit { .. } => self.integer(at, op, first),
            Op::Load { .. }
            | Op::Store { .. }
            | Op::Rmw { .. }
            | Op::Cas { .. }
            | Op::CasPair { .. }
            | Op::LoadReserve { .. }
            | Op::StoreCond { .. }
            | Op::Fence { .. } => self.memory(op, first),
            Op::FpBinary { .. }
            | Op::FpSqrt { .. }
            | Op::FpFma { .. }
            | Op::FpCompare { .. }
            | Op::FpConvert { .. }
            | Op::FpToInt { .. }
            | Op::FpFromInt { .. }
            | Op::FpRound { .. } => self.float(op, first),
            Op::VecUnary { .. }
            | Op::VecBinary { .. }
            | Op::VecSelect { .. }
            | Op::VecShift { .. }
            | Op::VecSplat { .. }
            | Op::VecGet { .. }
            | Op::VecSet { .. }
            | Op::VecShuffle { .. } => self.vector(op, first),
            Op::VecFpBinary { .. } | Op::VecFpFma { .. } | Op::VecFpSqrt { .. } | Op::VecFpCompare { .. } => {
                self.vector_float(op, first)
            }
            Op::Call { helper, args, result } => self.call(helper, args, result, first),
            Op::TrapIf { c, code, value } => self.trap_if(c, code, value),
        }
    }

    fn define_remat(&mut self, v: Value, remat: Remat) -> Done {
        self.alloc.place_mut(v).remat = remat;
        Ok(())
    }

    fn ty(&self, v: Value) -> Type {
        self.alloc.place(v).ty
    }

    // --- registers

    /// Any register of the class, until the operation is done.
    fn temp(&mut self, class: Class) -> Done<u8> {
        self.take(class, None)
    }

    /// A certain register; whatever is there goes elsewhere.
    fn take(&mut self, class: Class, wanted: Option<u8>) -> Done<u8> {
        let picked = self.alloc.pick(class, wanted)?;
        if let Some((bytes, home)) = picked.spill {
            match class {
                Class::Int => self.asm.store(picked.reg, cpu(home), 8),
                Class::Vec => self.asm.store_vec(picked.reg, cpu(home), bytes),
            }
        }
        Ok(picked.reg)
    }

    fn int_temp(&mut self) -> Done<u8> {
        self.temp(Class::Int)
    }

    /// A register for the result `v`.
    fn define(&mut self, v: Value) -> Done<u8> {
        let reg = self.temp(Class::Int)?;
        self.alloc.own(Class::Int, reg, v);
        Ok(reg)
    }

    fn define_vec(&mut self, v: Value) -> Done<u8> {
        let reg = self.temp(Class::Vec)?;
        self.alloc.own(Class::Vec, reg, v);
        Ok(reg)
    }

    /// A register for the result `to` that holds `from` already: `from`'s own if nobody needs that any more. Fetch other
    /// operands first: they may be the same value.
    fn define_from(&mut self, to: Value, from: Value) -> Done<u8> {
        let place = self.alloc.place(from);
        if place.regs[0] != NONE && self.alloc.dies(from) {
            return Ok(self.alloc.take_over(Class::Int, from, to));
        }
        let reg = self.define(to)?;
        self.copy_to(reg, from);
        Ok(reg)
    }

    fn define_vec_from(&mut self, to: Value, from: Value) -> Done<u8> {
        let place = self.alloc.place(from);
        if place.regs[1] != NONE && self.alloc.dies(from) {
            return Ok(self.alloc.take_over(Class::Vec, from, to));
        }
        let reg = self.define_vec(to)?;
        self.copy_to_vec(reg, from);
        Ok(reg)
    }

    /// `v` in a general register, zero-extended, until the operation is done. Flags stay.
    fn int(&mut self, v: Value) -> Done<u8> {
        let held = self.alloc.place(v).regs[0];
        if held != NONE {
            self.alloc.pin(Class::Int, held);
            return Ok(held);
        }
        let reg = self.temp(Class::Int)?;
        self.copy_to(reg, v);
        self.alloc.own(Class::Int, reg, v);
        Ok(reg)
    }

    /// `v` in a vector register. Bits above its type are unspecified.
    fn vec(&mut self, v: Value) -> Done<u8> {
        let held = self.alloc.place(v).regs[1];
        if held != NONE {
            self.alloc.pin(Class::Vec, held);
            return Ok(held);
        }
        let reg = self.temp(Class::Vec)?;
        self.copy_to_vec(reg, v);
        self.alloc.own(Class::Vec, reg, v);
        Ok(reg)
    }

    /// `v` where an instruction of its own size (4 or 8 bytes) can read it.
    fn rm(&mut self, v: Value) -> Done<Rm> {
        let place = *self.alloc.place(v);
        let direct = place.regs == [NONE; 2]
            && place.home != NO_HOME
            && matches!(place.ty, Type::I32 | Type::I64)
            && self.alloc.dies(v);
        if direct { Ok(cpu(place.home)) } else { Ok(Rm::Reg(self.int(v)?)) }
    }

    /// The same, or an immediate.
    fn src(&mut self, v: Value) -> Done<Src> {
        if let Some(imm) = self.imm(v) {
            return Ok(Src::Imm(imm));
        }
        Ok(Src::Rm(self.rm(v)?))
    }

    /// The constant `v`, as an immediate that is sign-extended from 32 bits to `v`'s width.
    fn imm(&self, v: Value) -> Option<i32> {
        let place = self.alloc.place(v);
        match place.remat {
            Remat::Const(bits) if place.ty == Type::I64 => i32::try_from(bits as i64).ok(),
            Remat::Const(bits) => Some(bits as i32),
            _ => None,
        }
    }

    fn constant(&self, v: Value) -> Option<u64> {
        match self.alloc.place(v).remat {
            Remat::Const(bits) => Some(bits),
            _ => None,
        }
    }

    /// Copies `v` into a general register. Flags stay.
    fn copy_to(&mut self, reg: u8, v: Value) {
        let place = *self.alloc.place(v);
        if place.regs[0] != NONE {
            self.asm.mov(reg, place.regs[0]);
        } else if let Remat::Const(bits) = place.remat {
            self.asm.mov_imm(reg, bits);
        } else if let Remat::PcRel(offset) = place.remat {
            self.pc_plus(reg, offset);
        } else if place.home != NO_HOME {
            self.asm.load(reg, cpu(place.home), place.ty.bytes(), false, true);
        } else if place.regs[1] != NONE {
            self.asm.vec_to(reg, place.regs[1], place.ty == Type::I64);
            if place.ty < Type::I32 {
                self.asm.load(reg, Rm::Reg(reg), place.ty.bytes(), false, false);
            }
        }
    }

    /// Copies `v` into a vector register. Flags stay.
    fn copy_to_vec(&mut self, reg: u8, v: Value) {
        let place = *self.alloc.place(v);
        if place.regs[1] != NONE {
            self.asm.movaps(reg, place.regs[1]);
        } else if place.regs[0] != NONE {
            self.asm.vec_from(reg, place.regs[0], true);
        } else if let Remat::Const(bits) = place.remat {
            self.literal(reg, bits.into());
        } else if let Remat::ConstVec(at) = place.remat {
            if let Op::ConstVec { bits } = self.block.insts[at as usize].op {
                self.literal(reg, bits);
            }
        } else if let Remat::PcRel(offset) = place.remat {
            // Rare: through the scratch part of the context.
            self.asm.push(RCX);
            self.pc_plus(RCX, offset);
            self.asm.vec_from(reg, RCX, true);
            self.asm.pop(RCX);
        } else if place.home != NO_HOME {
            let bytes = place.ty.bytes();
            if bytes >= 4 {
                self.asm.load_vec(reg, cpu(place.home), bytes);
            } else {
                self.asm.push(RCX);
                self.asm.load(RCX, cpu(place.home), bytes, false, false);
                self.asm.vec_from(reg, RCX, false);
                self.asm.pop(RCX);
            }
        }
    }

    /// `dst` = entry pc + offset. Flags stay.
    fn pc_plus(&mut self, dst: u8, offset: i64) {
        match i32::try_from(offset) {
            Ok(offset) => self.asm.lea(dst, RCX, offset),
            // `dst` may be rcx itself.
            Err(_) if dst == RCX => {
                self.asm.push(RAX);
                self.asm.mov_imm(RAX, offset as u64);
                self.asm.op(one(0x8d), true, RCX, Rm::Sum(RCX, RAX));
                self.asm.pop(RAX);
            }
            Err(_) => {
                self.asm.mov_imm(dst, offset as u64);
                self.asm.op(one(0x8d), true, dst, Rm::Sum(dst, RCX));
            }
        }
    }

    /// A vector constant.
    fn literal(&mut self, dst: u8, bits: u128) {
        if bits == 0 {
            self.asm.op(two(0x57), false, dst, Rm::Reg(dst));
            return;
        }
        let index = self.pool.iter().position(|held| *held == bits).unwrap_or_else(|| {
            self.pool.push(bits);
            self.pool.len() - 1
        });
        self.asm.load_vec(dst, Rm::Rip, 16);
        self.pool_uses.push((Patch(self.asm.here() - 4), index as u32));
    }

    // --- slots

    fn get(&mut self, slot: isomer_ir::Slot, v: Value) -> Done {
        let desc = *self.block.slots.get(usize::from(slot.0)).ok_or(Refusal::Malformed)?;
        if i32::try_from(desc.offset).is_err() {
            return Err(Refusal::Malformed);
        }
        if overlaps_fp_state(desc.offset, desc.ty.bytes()) {
            self.merge_flags()?;
        }
        if desc.offset < size_of::<CpuHeader>() as u32 {
            // Engines and floating-point operations change the header behind the IR's back: no home there.
            return if desc.ty.is_int() {
                let reg = self.define(v)?;
                self.asm.load(reg, cpu(desc.offset), desc.ty.bytes(), false, true);
                Ok(())
            } else {
                let reg = self.define_vec(v)?;
                self.asm.load_vec(reg, cpu(desc.offset), 16);
                Ok(())
            };
        }
        self.alloc.set_home(v, desc.offset);
        Ok(())
    }

    fn set(&mut self, slot: isomer_ir::Slot, v: Value) -> Done {
        let desc = *self.block.slots.get(usize::from(slot.0)).ok_or(Refusal::Malformed)?;
        if i32::try_from(desc.offset).is_err() {
            return Err(Refusal::Malformed);
        }
        let (bytes, to) = (desc.ty.bytes(), cpu(desc.offset));
        let place = *self.alloc.place(v);
        // Where the value comes from is settled before homes are lost.
        let imm = self.imm(v).filter(|_| place.regs[0] == NONE);
        let (mut int, mut vec) = (NONE, NONE);
        if !desc.ty.is_int() || place.regs[0] == NONE && place.regs[1] != NONE && bytes >= 4 {
            vec = self.vec(v)?;
        } else if imm.is_none() {
            int = self.int(v)?;
        }
        while let Some(other) = self.alloc.evict_home(desc.offset, bytes) {
            self.bring_in(other)?;
        }
        match imm {
            _ if vec != NONE => self.asm.store_vec(vec, to, bytes),
            _ if int != NONE => self.asm.store(int, to, bytes),
            Some(imm) => self.asm.store_imm(imm, to, bytes),
            None => return Err(Refusal::Malformed),
        }
        if overlaps_fp_state(desc.offset, bytes) {
            self.reload_rounding()?;
        }
        if desc.offset >= size_of::<CpuHeader>() as u32 && !self.alloc.dies(v) {
            self.alloc.set_home(v, desc.offset);
        }
        Ok(())
    }

    /// Before a helper: every live value must be somewhere that helpers do not write.
    fn leave_slots(&mut self) -> Done {
        while let Some(v) = self.alloc.evict_home(0, u32::MAX) {
            self.bring_in(v)?;
        }
        Ok(())
    }

    /// A register for `v`, which is about to lose its home. The next one may push it on to a spill slot.
    fn bring_in(&mut self, v: Value) -> Done {
        if self.ty(v).is_int() {
            let reg = self.int(v)?;
            self.alloc.unpin(Class::Int, reg);
        } else {
            let reg = self.vec(v)?;
            self.alloc.unpin(Class::Vec, reg);
        }
        Ok(())
    }
}

/// Does this part of the CPU touch the rounding direction or the sticky flags, which live in MXCSR meanwhile?
const fn overlaps_fp_state(offset: u32, len: u32) -> bool {
    let (first, last) = (offset_of!(CpuHeader, rounding) as u32, offset_of!(CpuHeader, fp_flags) as u32);
    offset <= last && first < offset + len
}
