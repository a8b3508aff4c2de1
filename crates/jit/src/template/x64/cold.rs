//! What runs rarely, emitted behind the block: accesses that missed the TLB, operations left to
//! [`crate::abi::Context::compute`], traps, and the ways out.

use super::super::alloc::{NO_HOME, NONE, Remat};
use super::{
    Done, Gen, argument, context, cpu,
    enc::{Alu, Patch, Rm, cc, one, reg::*},
    header,
};
use crate::{
    abi::{Access, Context, ExitReason},
    cold,
};
use isomer_ir::{CpuHeader, Op, Type, Value};
use std::mem::offset_of;

/// An instruction of the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Site {
    /// Bytes from the entry.
    pub(super) offset: u32,
    /// Instructions before it.
    pub(super) retired: u32,
}

/// Where a value is when a cold path begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    Nothing,
    Int(u8),
    /// The low bytes of a vector register.
    Vec(u8, u32),
    Imm(i32),
    /// In the CPU.
    Home(u32, u32),
}

/// Where a cold path's result goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Nothing,
    /// Loaded as [`super::enc::Asm::load`] does.
    Int {
        reg: u8,
        bytes: u32,
        signed: bool,
        wide: bool,
    },
    Vec(u8, u32),
}

/// A path behind the block.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cold {
    /// A memory access that missed.
    Access { from: Patch, back: u32, va: u8, access: Access, value: Held, result: Wanted, site: Site },
    /// An operation that the fast path cannot do for these operands.
    Compute { from: [Option<Patch>; 3], back: u32, word: u64, operands: [Held; 3], result: Wanted },
    /// A trap whose condition holds.
    Trap { from: Patch, code: u32, value: Held, site: Site },
}

impl Gen<'_> {
    /// Calls a function of the context with `rdx` and `ecx` as given by `args`; both are kept.
    fn call_context(&mut self, function: usize, args: impl FnOnce(&mut Self)) {
        // Three words leave the stack aligned.
        self.asm.push(RCX);
        self.asm.push(RDX);
        self.asm.push(RDX);
        args(self);
        self.asm.op(one(0xff), false, 2, context(function));
        self.asm.pop(RDX);
        self.asm.pop(RDX);
        self.asm.pop(RCX);
    }

    /// Where `v` is now, for a cold path or a call.
    pub(super) fn held(&self, v: Value) -> Held {
        let place = self.alloc.place(v);
        if place.regs[0] != NONE {
            Held::Int(place.regs[0])
        } else if place.regs[1] != NONE {
            Held::Vec(place.regs[1], place.ty.bytes())
        } else if let (Some(imm), Remat::Const(_)) = (self.imm(v), place.remat) {
            Held::Imm(imm)
        } else if place.home != NO_HOME {
            Held::Home(place.home, place.ty.bytes())
        } else {
            Held::Nothing
        }
    }

    /// Stores an argument, zero-extended to 64 bits (vectors whole).
    pub(super) fn put_argument(&mut self, index: usize, held: Held) {
        let low = argument(index, 0);
        match held {
            Held::Nothing => {}
            Held::Int(reg) => self.asm.store(reg, low, 8),
            Held::Imm(imm) => self.asm.store_imm(imm, low, 8),
            Held::Vec(reg, bytes) => {
                if bytes < 8 {
                    self.asm.store_imm(0, low, 8);
                }
                self.asm.store_vec(reg, low, bytes.max(4));
            }
            Held::Home(home, bytes @ (4 | 8 | 16)) => {
                self.asm.load_vec(super::X15, cpu(home), bytes);
                self.asm.store_vec(super::X15, low, bytes.max(8));
            }
            Held::Home(home, bytes) => {
                self.asm.push(RCX);
                self.asm.load(RCX, cpu(home), bytes, false, false);
                self.asm.store(RCX, low, 8);
                self.asm.pop(RCX);
            }
        }
    }

    fn fetch_result(&mut self, index: usize, wanted: Wanted) {
        match wanted {
            Wanted::Nothing => {}
            Wanted::Int { reg, bytes, signed, wide } => {
                self.asm.load(reg, argument(index, 0), bytes, signed, wide);
            }
            Wanted::Vec(reg, bytes) => self.asm.load_vec(reg, argument(index, 0), bytes),
        }
    }

    /// An argument that lives nowhere cheap (a wide constant, a pc) is brought into a register.
    pub(super) fn settle(&mut self, v: Value) -> Done<Held> {
        let mut held = self.held(v);
        // Immediates of narrow types are sign-extended; arguments are zero-extended.
        let negative = matches!(held, Held::Imm(imm) if imm < 0 && self.ty(v) != Type::I64);
        if held == Held::Nothing || negative {
            if self.ty(v).is_int() {
                self.int(v)?
            } else {
                self.vec(v)?
            };
            held = self.held(v);
        }
        if let Held::Vec(_, 1 | 2) = held {
            self.int(v)?;
            held = self.held(v);
        }
        Ok(held)
    }

    fn call_compute(&mut self, word: u64) {
        let rules = cold::pack_rules(self.block.fp);
        self.call_context(offset_of!(Context, compute), |this| {
            this.asm.mov_imm(RDX, word);
            this.asm.mov_imm(RCX, rules);
        });
    }

    /// The whole operation through [`Context::compute`]. It has one result.
    pub(super) fn compute(&mut self, op: &Op, first: Value) -> Done {
        let Some(word) = cold::pack(op) else { return Err(super::Refusal::Malformed) };
        let mut operands = [None; 3];
        let mut count = 0;
        op.for_each_operand(|v| {
            if count < 3 {
                operands[count] = Some(v);
            }
            count += 1;
        });
        for (index, v) in operands.iter().enumerate() {
            if let Some(v) = *v {
                let held = self.settle(v)?;
                self.put_argument(index, held);
            }
        }
        self.call_compute(word);
        let wanted = self.wanted(first)?;
        self.fetch_result(0, wanted);
        Ok(())
    }

    /// A register for the result `v` of a function of the context.
    pub(super) fn wanted(&mut self, v: Value) -> Done<Wanted> {
        let ty = self.ty(v);
        Ok(if ty.is_int() {
            Wanted::Int { reg: self.define(v)?, bytes: ty.bytes(), signed: false, wide: true }
        } else {
            Wanted::Vec(self.define_vec(v)?, 16)
        })
    }

    /// The cold path of an operation whose operands are in vector or general registers.
    pub(super) fn compute_later(&mut self, op: &Op, from: [Option<Patch>; 3], result: Wanted) -> Done {
        let Some(word) = cold::pack(op) else { return Err(super::Refusal::Malformed) };
        let mut operands = [Held::Nothing; 3];
        let mut count = 0;
        op.for_each_operand(|v| {
            if count < 3 {
                operands[count] = self.held(v);
            }
            count += 1;
        });
        let back = self.asm.here();
        self.cold.push(Cold::Compute { from, back, word, operands, result });
        Ok(())
    }

    /// Everything behind the block.
    pub(super) fn finish(&mut self, exits: super::control::Exits, transfers: super::control::Transfers) {
        let mut ways_out = Vec::with_capacity(8);
        for cold in std::mem::take(&mut self.cold) {
            self.cold_path(cold, &mut ways_out);
        }
        self.fault_exits(&mut ways_out);
        self.exit_stubs(exits, transfers, ways_out);
        for (index, bits) in std::mem::take(&mut self.pool).into_iter().enumerate() {
            let place = self.asm.here();
            for (patch, wanted) in &self.pool_uses {
                if *wanted == index as u32 {
                    self.asm.patch(*patch, place);
                }
            }
            self.asm.raw(&bits.to_le_bytes());
        }
    }

    fn cold_path(&mut self, path: Cold, ways_out: &mut Vec<Patch>) {
        match path {
            Cold::Access { from, back, va, access, value, result, site } => {
                self.asm.patch_here(from);
                self.put_argument(0, value);
                self.call_context(offset_of!(Context, access), |this| {
                    this.asm.mov(RDX, va);
                    this.asm.mov_imm(RCX, access.pack());
                });
                self.leave_on_fault(site);
                self.fetch_result(0, result);
                self.asm.jmp_to(back);
            }
            Cold::Compute { from, back, word, operands, result } => {
                from.into_iter().flatten().for_each(|patch| self.asm.patch_here(patch));
                for (index, held) in operands.into_iter().enumerate() {
                    self.put_argument(index, held);
                }
                self.call_compute(word);
                self.fetch_result(0, result);
                self.asm.jmp_to(back);
            }
            Cold::Trap { from, code, value, site } => {
                self.asm.patch_here(from);
                self.put_trap(code, value);
                self.back_to(site);
                self.asm.mov_imm(RAX, ExitReason::Trap as u64);
                ways_out.push(self.asm.jmp());
            }
        }
    }

    /// Records a trap. Its value is stored first: rax may hold it.
    pub(super) fn put_trap(&mut self, code: u32, value: Held) {
        let to = context(offset_of!(Context, trap_value));
        match value {
            Held::Int(reg) => self.asm.store(reg, to, 8),
            Held::Imm(imm) => self.asm.store_imm(imm, to, 8),
            _ => self.asm.store_imm(0, to, 8),
        }
        self.asm.mov_imm(RAX, code.into());
        self.asm.store(RAX, context(offset_of!(Context, trap_code)), 8);
    }

    /// pc and instructions left as before the instruction at `site`.
    pub(super) fn back_to(&mut self, site: Site) {
        self.asm.lea(RCX, RCX, site.offset as i32);
        if site.retired != 0 {
            self.asm.alu_imm(Alu::Sub, true, Rm::Reg(RDX), site.retired as i32);
        }
    }

    /// After a function of the context that may fault.
    pub(super) fn leave_on_fault(&mut self, site: Site) {
        self.asm.cmp_imm(4, context(offset_of!(Context, status)), 0);
        let patch = self.asm.jcc(cc::NE);
        self.fault_exits.push((patch, site));
    }

    /// One exit an instruction.
    fn fault_exits(&mut self, ways_out: &mut Vec<Patch>) {
        let mut exits = std::mem::take(&mut self.fault_exits);
        exits.sort_unstable_by_key(|(_, site)| site.retired);
        let mut previous = None;
        let mut place = 0;
        let mut shared = Vec::with_capacity(exits.len());
        for (patch, site) in exits {
            if previous != Some(site.retired) {
                previous = Some(site.retired);
                place = self.asm.here();
                self.back_to(site);
                shared.push(self.asm.jmp());
            }
            self.asm.patch(patch, place);
        }
        if shared.is_empty() {
            return;
        }
        // The last one falls through.
        shared.pop();
        self.asm.shorten(5);
        shared.into_iter().for_each(|patch| self.asm.patch_here(patch));
        self.asm.mov_imm(RAX, ExitReason::Fault as u64);
        ways_out.push(self.asm.jmp());
    }

    /// Stores pc and the instructions left and returns what is in rax.
    pub(super) fn leave(&mut self) {
        self.asm.store(RCX, header(offset_of!(CpuHeader, pc)), 8);
        self.asm.store(RDX, context(offset_of!(Context, left)), 8);
        self.asm.raw(&[0xc3]);
    }
}
