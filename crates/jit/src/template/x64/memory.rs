//! Memory: the TLB probe inline, everything else behind the block. An aligned load or store of the host is one access;
//! the host's order is total but for a load that passes an earlier store, so only `SeqCst` stores and fences cost anything.

use super::super::alloc::NONE;
use super::{
    Class, Done, Gen, Refusal, X14, X15, argument,
    cold::{Cold, Held, Wanted},
    context,
    enc::{Alu, Opcode, Patch, Rm, Shift, cc, one, reg::*, sse, two},
    header,
};
use crate::abi::{Access, AccessKind, TLB_ENTRIES, TLB_FOLD, TlbEntry, tlb_table_offset};
use isomer_core::{PAGE_SHIFT, PAGE_SIZE};
use isomer_ir::{
    CpuHeader, Op, Type, Value,
    op::RmwOp,
    state::NO_RESERVATION,
    types::{Align, Endian, MemFlags, Order},
};
use std::mem::offset_of;

const TLB_SHIFT: u32 = size_of::<TlbEntry>().trailing_zeros();
const _: () = assert!(
    size_of::<TlbEntry>().is_power_of_two()
        && TLB_ENTRIES.is_power_of_two()
        && TLB_SHIFT < PAGE_SHIFT
        && PAGE_SHIFT + 2 * TLB_FOLD <= 32
        && NO_RESERVATION == u64::MAX
);

/// The host address of an atomic access.
struct Atomic {
    host: u8,
    /// Another register that is free again.
    spare: u8,
}

impl Gen<'_> {
    pub(super) fn memory(&mut self, op: &Op, first: Value) -> Done {
        match *op {
            Op::Load { mem: Type::V128, addr, flags, .. } => self.load_vector(addr, flags, first),
            Op::Load { ty, mem, signed, addr, flags } => self.load(ty, mem, signed, addr, flags, first),
            Op::Store { mem, addr, value, flags } => self.store(mem, addr, value, flags),
            Op::Rmw { op, ty, addr, value, flags } => self.rmw(op, ty, addr, value, flags, first),
            Op::Cas { ty, addr, expected, new, flags } => self.cas(ty, addr, expected, new, flags, first),
            Op::CasPair { addr, expected, new, flags } => self.cas_pair(addr, expected, new, flags, first),
            Op::LoadReserve { ty, addr, flags } => self.load_reserve(ty, addr, flags, first),
            Op::StoreCond { ty, addr, value, flags } => self.store_cond(ty, addr, value, flags, first),
            Op::Fence { order: Order::SeqCst } => {
                self.fence();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Keeps later loads behind earlier stores: any locked instruction does, and this one is cheaper than `mfence`.
    fn fence(&mut self) {
        self.asm.raw(&[0xf0]);
        self.asm.alu_imm(Alu::Or, false, Rm::Mem(RSP, 0), 0);
    }

    /// Finds the TLB entry of `va` into `entry`, with `scratch`; jumps if it does not allow the access. `scratch` may not
    /// be `va`.
    fn probe(&mut self, va: u8, entry: u8, scratch: u8, size: u32, flags: MemFlags, store: bool) -> Patch {
        let asm = &mut self.asm;
        let tag = if store { offset_of!(TlbEntry, store) } else { offset_of!(TlbEntry, load) };
        let tag = tag as i32;
        asm.mov32(entry, va);
        asm.mov32(scratch, va);
        asm.shift_imm(Shift::Shr, 4, entry, (PAGE_SHIFT - TLB_SHIFT) as u8);
        asm.shift_imm(Shift::Shr, 4, scratch, (PAGE_SHIFT + TLB_FOLD - TLB_SHIFT) as u8);
        asm.alu(Alu::Xor, false, entry, Rm::Reg(scratch));
        asm.alu_imm(Alu::And, false, Rm::Reg(entry), (TLB_ENTRIES as i32 - 1) << TLB_SHIFT);
        let page = -(PAGE_SIZE as i32);
        if flags.align == Align::Natural {
            asm.mov(scratch, va);
            asm.alu_imm(Alu::And, true, Rm::Reg(scratch), page | (size as i32 - 1));
        } else {
            // An access that ends in another page has that page's address and misses.
            asm.lea(scratch, va, size as i32 - 1);
            asm.alu_imm(Alu::And, true, Rm::Reg(scratch), page);
        }
        asm.alu(Alu::Add, true, entry, context(tlb_table_offset(flags.mmu)));
        asm.cmp(8, scratch, Rm::Mem(entry, tag));
        let miss = asm.jcc(cc::NE);
        let addend = offset_of!(TlbEntry, addend) as i32;
        asm.load(entry, Rm::Mem(entry, addend), 8, false, true);
        miss
    }

    fn access(kind: AccessKind, size: u32, flags: MemFlags) -> Access {
        Access { kind, size, mmu: flags.mmu, align: flags.align }
    }

    fn load(&mut self, ty: Type, mem: Type, signed: bool, addr: Value, flags: MemFlags, v: Value) -> Done {
        let va = self.int(addr)?;
        let dst = self.define(v)?;
        let entry = self.int_temp()?;
        let size = mem.bytes();
        let from = self.probe(va, entry, dst, size, flags, false);
        // Bytes are put in order before they are extended.
        let big = flags.endian == Endian::Big && size > 1;
        let (extend, wide) = (signed && !big, ty == Type::I64);
        self.asm.load(dst, Rm::Sum(entry, va), size, extend, wide);
        let back = self.asm.here();
        let result = Wanted::Int { reg: dst, bytes: size, signed: extend, wide };
        let access = Self::access(AccessKind::Load, size, flags);
        self.cold.push(Cold::Access {
            from,
            back,
            va,
            access,
            value: Held::Nothing,
            result,
            site: self.site,
        });
        if big {
            self.byte_swap(dst, size);
            if signed {
                self.asm.load(dst, Rm::Reg(dst), size, true, wide);
            }
        }
        if signed && ty < Type::I32 {
            self.asm.load(dst, Rm::Reg(dst), ty.bytes(), false, false);
        }
        Ok(())
    }

    fn load_vector(&mut self, addr: Value, flags: MemFlags, v: Value) -> Done {
        let va = self.int(addr)?;
        let (entry, scratch) = (self.int_temp()?, self.int_temp()?);
        let dst = self.define_vec(v)?;
        let from = self.probe(va, entry, scratch, 16, flags, false);
        self.asm.load_vec(dst, Rm::Sum(entry, va), 16);
        let back = self.asm.here();
        let access = Self::access(AccessKind::Load, 16, flags);
        let result = Wanted::Vec(dst, 16);
        self.cold.push(Cold::Access {
            from,
            back,
            va,
            access,
            value: Held::Nothing,
            result,
            site: self.site,
        });
        if flags.endian == Endian::Big {
            self.swap_vector(dst);
        }
        Ok(())
    }

    /// Reverses all sixteen bytes: within words, then the words.
    fn swap_vector(&mut self, dst: u8) {
        self.asm.movaps(X15, dst);
        self.asm.op_imm8(sse(0x66, 0x71), false, 6, Rm::Reg(X15), 8);
        self.asm.op_imm8(sse(0x66, 0x71), false, 2, Rm::Reg(dst), 8);
        self.asm.op(sse(0x66, 0xeb), false, dst, Rm::Reg(X15));
        self.asm.op_imm8(sse(0xf2, 0x70), false, dst, Rm::Reg(dst), 0x1b);
        self.asm.op_imm8(sse(0xf3, 0x70), false, dst, Rm::Reg(dst), 0x1b);
        self.asm.op_imm8(sse(0x66, 0x70), false, dst, Rm::Reg(dst), 0x4e);
    }

    fn store(&mut self, mem: Type, addr: Value, value: Value, flags: MemFlags) -> Done {
        let (va, size) = (self.int(addr)?, mem.bytes());
        let big = flags.endian == Endian::Big && size > 1;
        let held = self.stored(mem, value, big)?;
        let (entry, scratch) = (self.int_temp()?, self.int_temp()?);
        let from = self.probe(va, entry, scratch, size, flags, true);
        let to = Rm::Sum(entry, va);
        match held {
            Held::Int(reg) => self.asm.store(reg, to, size),
            Held::Imm(imm) => self.asm.store_imm(imm, to, size),
            Held::Vec(reg, bytes) => self.asm.store_vec(reg, to, bytes),
            _ => return Err(Refusal::Malformed),
        }
        let back = self.asm.here();
        let access = Self::access(AccessKind::Store, size, flags);
        let result = Wanted::Nothing;
        self.cold.push(Cold::Access { from, back, va, access, value: held, result, site: self.site });
        if flags.order == Order::SeqCst {
            self.fence();
        }
        Ok(())
    }

    /// What a store stores, in memory's byte order.
    fn stored(&mut self, mem: Type, value: Value, big: bool) -> Done<Held> {
        let place = *self.alloc.place(value);
        if mem == Type::V128 {
            let mut reg = self.vec(value)?;
            if big {
                self.asm.movaps(X14, reg);
                self.swap_vector(X14);
                reg = X14;
            }
            return Ok(Held::Vec(reg, 16));
        }
        if big {
            let reg = self.int_temp()?;
            self.copy_to(reg, value);
            self.byte_swap(reg, mem.bytes());
            return Ok(Held::Int(reg));
        }
        if let (Some(imm), NONE) = (self.imm(value), place.regs[0]) {
            return Ok(Held::Imm(imm));
        }
        let as_it_is = place.ty == mem && matches!(mem, Type::I32 | Type::I64);
        if place.regs[0] == NONE && place.regs[1] != NONE && as_it_is {
            return Ok(Held::Vec(self.vec(value)?, mem.bytes()));
        }
        Ok(Held::Int(self.int(value)?))
    }

    // --- atomic accesses

    /// The host address of a naturally aligned access.
    fn atomic(&mut self, addr: Value, size: u32, flags: MemFlags, store: bool) -> Done<Atomic> {
        let flags = flags.align(Align::Natural);
        let va = self.int(addr)?;
        let (host, spare) = (self.int_temp()?, self.int_temp()?);
        let from = self.probe(va, host, spare, size, flags, store);
        self.asm.alu(Alu::Add, true, host, Rm::Reg(va));
        let back = self.asm.here();
        let kind = if store { AccessKind::ResolveStore } else { AccessKind::ResolveLoad };
        let access = Self::access(kind, size, flags);
        let result = Wanted::Int { reg: host, bytes: 8, signed: false, wide: true };
        self.cold.push(Cold::Access {
            from,
            back,
            va,
            access,
            value: Held::Nothing,
            result,
            site: self.site,
        });
        Ok(Atomic { host, spare })
    }

    /// A locked instruction on `size` bytes whose byte form has the opcode `byte`, the others the next one.
    fn locked(&mut self, op: Opcode, size: u32, reg: u8, at: Rm) {
        self.asm.raw(&[0xf0]);
        self.sized(op, size, reg, at);
    }

    fn sized(&mut self, op: Opcode, size: u32, reg: u8, at: Rm) {
        let wider = Opcode { byte: op.byte | 1, ..op };
        match size {
            1 => self.asm.op_byte(op, reg, at),
            2 => self.asm.op(Opcode { prefix: 0x66, ..wider }, false, reg, at),
            _ => self.asm.op(wider, size == 8, reg, at),
        }
    }

    fn rmw(&mut self, op: RmwOp, ty: Type, addr: Value, value: Value, flags: MemFlags, v: Value) -> Done {
        let size = ty.bytes();
        let big = flags.endian == Endian::Big && size > 1;
        let unused = self.alloc.place(v).uses == 0;
        match op {
            RmwOp::Xchg => {
                let Atomic { host, .. } = self.atomic(addr, size, flags, true)?;
                let dst = self.define(v)?;
                self.copy_to(dst, value);
                if big {
                    self.byte_swap(dst, size);
                }
                self.sized(one(0x86), size, dst, Rm::Mem(host, 0));
                if big {
                    self.byte_swap(dst, size);
                }
                Ok(())
            }
            RmwOp::Add if !big => {
                let Atomic { host, .. } = self.atomic(addr, size, flags, true)?;
                let dst = self.define(v)?;
                self.copy_to(dst, value);
                self.locked(two(0xc0), size, dst, Rm::Mem(host, 0));
                Ok(())
            }
            RmwOp::And | RmwOp::Or | RmwOp::Xor if unused && !big => {
                let Atomic { host, .. } = self.atomic(addr, size, flags, true)?;
                let value = self.int(value)?;
                let number = match op {
                    RmwOp::And => Alu::And,
                    RmwOp::Or => Alu::Or,
                    _ => Alu::Xor,
                };
                self.locked(one((number as u8) << 3), size, value, Rm::Mem(host, 0));
                Ok(())
            }
            _ => self.rmw_loop(op, ty, addr, value, flags, v),
        }
    }

    /// Compares and swaps until nobody came in between.
    fn rmw_loop(
        &mut self,
        op: RmwOp,
        ty: Type,
        addr: Value,
        value: Value,
        flags: MemFlags,
        v: Value,
    ) -> Done {
        let (size, w) = (ty.bytes(), ty == Type::I64);
        let big = flags.endian == Endian::Big && size > 1;
        let old = self.take(Class::Int, Some(RAX))?;
        let Atomic { host, spare: new } = self.atomic(addr, size, flags, true)?;
        let value = self.int(value)?;
        self.asm.load(old, Rm::Mem(host, 0), size, false, true);
        let again = self.asm.here();
        self.asm.mov(new, old);
        if big {
            self.byte_swap(new, size);
        }
        match op {
            RmwOp::Add => self.asm.alu(Alu::Add, w, new, Rm::Reg(value)),
            RmwOp::And => self.asm.alu(Alu::And, w, new, Rm::Reg(value)),
            RmwOp::Or => self.asm.alu(Alu::Or, w, new, Rm::Reg(value)),
            RmwOp::Xor => self.asm.alu(Alu::Xor, w, new, Rm::Reg(value)),
            RmwOp::AndNot => {
                self.asm.alu(Alu::Or, w, new, Rm::Reg(value));
                self.asm.alu(Alu::Xor, w, new, Rm::Reg(value));
            }
            RmwOp::Xchg => self.asm.mov(new, value),
            RmwOp::MinS | RmwOp::MaxS | RmwOp::MinU | RmwOp::MaxU => {
                let keep_not = match op {
                    RmwOp::MinS => cc::G,
                    RmwOp::MaxS => cc::L,
                    RmwOp::MinU => cc::A,
                    _ => cc::B,
                };
                self.asm.cmp(size, new, Rm::Reg(value));
                self.asm.cmov(keep_not, w, new, Rm::Reg(value));
            }
        }
        if big {
            self.byte_swap(new, size);
        }
        self.locked(two(0xb0), size, new, Rm::Mem(host, 0));
        self.asm.jcc_to(cc::NE, again);
        if big {
            self.byte_swap(old, size);
        }
        self.alloc.own(Class::Int, old, v);
        Ok(())
    }

    fn cas(&mut self, ty: Type, addr: Value, expected: Value, new: Value, flags: MemFlags, v: Value) -> Done {
        let size = ty.bytes();
        let big = flags.endian == Endian::Big && size > 1;
        let old = self.take(Class::Int, Some(RAX))?;
        let Atomic { host, spare } = self.atomic(addr, size, flags, true)?;
        self.copy_to(old, expected);
        self.copy_to(spare, new);
        if big {
            self.byte_swap(old, size);
            self.byte_swap(spare, size);
        }
        self.locked(two(0xb0), size, spare, Rm::Mem(host, 0));
        if big {
            self.byte_swap(old, size);
        }
        self.alloc.own(Class::Int, old, v);
        Ok(())
    }

    fn cas_pair(
        &mut self,
        addr: Value,
        expected: [Value; 2],
        new: [Value; 2],
        flags: MemFlags,
        first: Value,
    ) -> Done {
        if !self.features.cmpxchg16b {
            return Err(Refusal::Host("16-byte compare-and-swap needs cmpxchg16b"));
        }
        let big = flags.endian == Endian::Big;
        let rax = self.take(Class::Int, Some(RAX))?;
        let Atomic { host, spare } = self.atomic(addr, 16, flags, true)?;
        // A pair is swapped as a whole: the low half is the second in memory.
        let order = if big { [1, 0] } else { [0, 1] };
        let operands = [expected[order[0]], expected[order[1]], new[order[0]], new[order[1]]];
        for (index, v) in operands.into_iter().enumerate() {
            self.copy_to(spare, v);
            if big {
                self.byte_swap(spare, 8);
            }
            self.asm.store(spare, argument(index, 0), 8);
        }
        self.cas_pair_at(host);
        self.alloc.give_back(Class::Int, rax);
        self.cas_pair_results(big, first)
    }

    /// `lock cmpxchg16b [at]` with operands and results in the context; changes rax.
    fn cas_pair_at(&mut self, at: u8) {
        self.asm.vec_from(X14, RCX, true);
        self.asm.vec_from(X15, RDX, true);
        self.asm.push(RBX);
        for (reg, index) in [(RAX, 0), (RDX, 1), (RBX, 2), (RCX, 3)] {
            self.asm.load(reg, argument(index, 0), 8, false, true);
        }
        self.asm.raw(&[0xf0]);
        self.asm.op(two(0xc7), true, 1, Rm::Mem(at, 0));
        self.asm.store(RAX, argument(0, 0), 8);
        self.asm.store(RDX, argument(1, 0), 8);
        self.asm.pop(RBX);
        self.asm.vec_to(RCX, X14, true);
        self.asm.vec_to(RDX, X15, true);
    }

    fn cas_pair_results(&mut self, big: bool, first: Value) -> Done {
        for half in 0..2 {
            let v = Value(first.0 + half);
            if self.alloc.place(v).uses == 0 {
                continue;
            }
            let from = if big { 1 - half } else { half };
            let reg = self.define(v)?;
            self.asm.load(reg, argument(from as usize, 0), 8, false, true);
            if big {
                self.byte_swap(reg, 8);
            }
        }
        Ok(())
    }

    fn load_reserve(&mut self, ty: Type, addr: Value, flags: MemFlags, v: Value) -> Done {
        let size = ty.bytes();
        let Atomic { host, .. } = self.atomic(addr, size, flags, false)?;
        let dst = self.define(v)?;
        self.asm.load(dst, Rm::Mem(host, 0), size, false, true);
        self.asm.store(host, header(offset_of!(CpuHeader, reserve_host)), 8);
        self.asm.store(dst, header(offset_of!(CpuHeader, reserve_value)), 8);
        if flags.endian == Endian::Big {
            self.byte_swap(dst, size);
        }
        Ok(())
    }

    fn store_cond(&mut self, ty: Type, addr: Value, value: Value, flags: MemFlags, v: Value) -> Done {
        let size = ty.bytes();
        let old = self.take(Class::Int, Some(RAX))?;
        let Atomic { host, spare } = self.atomic(addr, size, flags, true)?;
        self.copy_to(spare, value);
        if flags.endian == Endian::Big {
            self.byte_swap(spare, size);
        }
        let reserved = header(offset_of!(CpuHeader, reserve_host));
        self.asm.load(old, header(offset_of!(CpuHeader, reserve_value)), size, false, true);
        self.asm.cmp(8, host, reserved);
        // A move: the comparison's outcome stays.
        self.asm.store_imm(-1, reserved, 8);
        let lost = self.asm.jcc_short(cc::NE);
        self.locked(two(0xb0), size, spare, Rm::Mem(host, 0));
        self.asm.short_here(lost);
        self.asm.setcc(cc::E, old);
        self.alloc.own(Class::Int, old, v);
        Ok(())
    }
}
