//! Guest memory: the TLB's fast path inline, everything else through the context.

use super::{
    pages::{Group, Noted},
    translate::{Rare, Translator, clif_type, memory},
};
use crate::{
    CompileError,
    abi::{self, Access, AccessKind, TLB_ENTRIES, TLB_FOLD, TLB_INVALID, TlbEntry, tlb_table_offset},
};
use cranelift_codegen::ir::{
    self, AtomicRmwOp, InstBuilder, MemFlagsData, Type as ClifType,
    condcodes::IntCC,
    types::{F32, F64, I8, I8X16, I64, I128},
};
use isomer_core::{PAGE_SHIFT, PAGE_SIZE};
use isomer_ir::{
    Inst, Op, Type,
    op::RmwOp,
    state::{CpuHeader, NO_RESERVATION},
    types::{Align, Endian, MemFlags, Order, Value},
};
use std::mem::offset_of;

/// The host keeps loads and stores in order but for a load before an earlier store.
const TOTAL_STORE_ORDER: bool = cfg!(target_arch = "x86_64");

/// Guest RAM: always mapped where the TLB says so; of any alignment.
const fn ram() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// The bits of an address that tell its page.
const PAGE_MASK: i64 = !(PAGE_SIZE as i64 - 1);

/// A look into the TLB.
struct Probe {
    entry: ir::Value,
    /// The page of the address, if it hit.
    compared: ir::Value,
    hit: ir::Value,
}

/// An access that may go on in the fast path, whose block is the present one.
struct Fork {
    /// Where the fast path finds it.
    host: ir::Value,
    slow: ir::Block,
    join: ir::Block,
    /// What the fast path gives those that share its page: tag and addend, and the TLB entry for the slow path.
    shared: Option<([ir::Value; 2], ir::Value)>,
}

impl Translator<'_, '_> {
    pub(super) fn memory_op(&mut self, inst: &Inst) -> Result<(), CompileError> {
        let first = inst.first;
        match inst.op {
            Op::Load { ty, mem, signed, addr, flags } => {
                self.flush();
                self.load(first, addr, (ty, mem, signed), flags);
            }
            Op::Store { mem, addr, value, flags } => {
                self.store(addr, value, mem, flags);
            }
            Op::Fence { order } => self.fence(order),
            Op::Rmw { op, ty, addr, value, flags } => {
                self.rmw(first, (op, ty), addr, value, flags)?;
            }
            Op::Cas { ty, addr, expected, new, flags } => {
                let (expected, new) = (self.bits(expected), self.bits(new));
                let host = self.atomic_place(addr, ty.bytes(), true, flags);
                let (expected, new) = (self.swap(expected, flags), self.swap(new, flags));
                let old = self.b.ins().atomic_cas(ram(), host, expected, new);
                let old = self.swap(old, flags);
                self.define(first, old);
            }
            Op::CasPair { addr, expected, new, flags } => {
                self.cas_pair(first, addr, (expected, new), flags)?;
            }
            Op::LoadReserve { ty, addr, flags } => {
                let host = self.atomic_place(addr, ty.bytes(), false, flags);
                let raw = self.b.ins().atomic_load(clif_type(ty), ram(), host);
                let wide = self.widen(raw);
                self.b.ins().store(memory(), host, self.cpu, offset_of!(CpuHeader, reserve_host) as i32);
                self.b.ins().store(memory(), wide, self.cpu, offset_of!(CpuHeader, reserve_value) as i32);
                let value = self.swap(raw, flags);
                self.define(first, value);
            }
            Op::StoreCond { ty, addr, value, flags } => self.store_cond(first, ty, addr, value, flags),
            _ => return Err(CompileError::Nothing("an operation has no code")),
        }
        Ok(())
    }

    fn fence(&mut self, order: Order) {
        if order == Order::SeqCst || (order != Order::Relaxed && !TOTAL_STORE_ORDER) {
            self.b.ins().fence();
        }
    }

    /// Byte order.
    fn swap(&mut self, value: ir::Value, flags: MemFlags) -> ir::Value {
        let ty = self.b.func.dfg.value_type(value);
        if flags.endian == Endian::Little || ty == I8 { value } else { self.b.ins().bswap(value) }
    }

    /// The TLB entry for `addr`, and whether its tag at `tag_offset` lets an access of `size` bytes pass.
    fn probe(&mut self, addr: ir::Value, size: u32, tag_offset: usize, flags: MemFlags) -> Probe {
        const ENTRY_LOG: i64 = size_of::<TlbEntry>().trailing_zeros() as i64;
        let page = self.b.ins().ushr_imm_s(addr, i64::from(PAGE_SHIFT) - ENTRY_LOG);
        let fold = self.b.ins().ushr_imm_s(addr, i64::from(PAGE_SHIFT + TLB_FOLD) - ENTRY_LOG);
        let page = self.b.ins().bxor(page, fold);
        let index = self.b.ins().band_imm_s(page, ((TLB_ENTRIES - 1) as i64) << ENTRY_LOG);
        // Not kept in a register: it would be spilled, and a spilled value is read from memory as well.
        let tlb = self.b.ins().load(I64, memory(), self.cx, tlb_table_offset(flags.mmu) as i32);
        let entry = self.b.ins().iadd(tlb, index);
        let tag = self.b.ins().load(I64, memory(), entry, tag_offset as i32);
        let compared = self.compared_with_tag(addr, size, flags);
        let hit = self.b.ins().icmp(IntCC::Equal, compared, tag);
        Probe { entry, compared, hit }
    }

    /// What has to be the page's tag for an access to be done in that page: if its first byte is not before the page.
    fn compared_with_tag(&mut self, addr: ir::Value, size: u32, flags: MemFlags) -> ir::Value {
        if flags.align == Align::Natural || size == 1 {
            self.b.ins().band_imm_s(addr, PAGE_MASK | i64::from(size - 1))
        } else {
            // The last byte's page: that of another entry's tag if the access crosses.
            let last = self.b.ins().iadd_imm_s(addr, i64::from(size - 1));
            self.b.ins().band_imm_s(last, PAGE_MASK)
        }
    }

    /// Forks on a TLB probe, or on a page that was looked up before. `to_share`: others will want to know the page.
    fn fork(
        &mut self,
        addr: ir::Value,
        size: u32,
        tag_offset: usize,
        flags: MemFlags,
        (result, noted, to_share): (Option<ClifType>, Option<Noted>, bool),
    ) -> Fork {
        let (fast, slow, join) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        for ty in result.into_iter().chain(to_share.then_some([I64; 2]).into_iter().flatten()) {
            self.b.append_block_param(join, ty);
        }
        let probe = match noted {
            Some(noted) => {
                let compared = self.compared_with_tag(addr, size, flags);
                let hit = self.b.ins().icmp(IntCC::Equal, compared, noted.tag);
                Err((hit, noted.addend))
            }
            None => Ok(self.probe(addr, size, tag_offset, flags)),
        };
        let hit = probe.as_ref().map_or_else(|&(hit, _)| hit, |probe| probe.hit);
        self.b.ins().brif(hit, fast, &[], slow, &[]);
        self.b.set_cold_block(slow);
        self.b.switch_to_block(fast);
        self.b.seal_block(fast);
        let (addend, shared) = match probe {
            Ok(probe) => {
                let offset = offset_of!(TlbEntry, addend) as i32;
                let addend = self.b.ins().load(I64, memory(), probe.entry, offset);
                (addend, to_share.then_some(([probe.compared, addend], probe.entry)))
            }
            Err((_, addend)) => (addend, None),
        };
        let host = self.b.ins().iadd(addr, addend);
        Fork { host, slow, join, shared }
    }

    /// Ends a path of a fork.
    fn meet(&mut self, fork: &Fork, value: Option<ir::Value>, shared: Option<[ir::Value; 2]>) {
        let args: Vec<ir::BlockArg> =
            value.into_iter().chain(shared.into_iter().flatten()).map(Into::into).collect();
        self.b.ins().jump(fork.join, &args);
    }

    /// In the slow path: the page as the TLB has it now, if it does.
    fn page_again(&mut self, fork: &Fork, addr: ir::Value, tag_offset: usize) -> Option<[ir::Value; 2]> {
        let (_, entry) = fork.shared?;
        let tag = self.b.ins().load(I64, memory(), entry, tag_offset as i32);
        let page = self.b.ins().band_imm_s(addr, PAGE_MASK);
        let same = self.b.ins().icmp(IntCC::Equal, tag, page);
        let none = self.b.ins().iconst(I64, TLB_INVALID as i64);
        let tag = self.b.ins().select(same, tag, none);
        let addend = self.b.ins().load(I64, memory(), entry, offset_of!(TlbEntry, addend) as i32);
        Some([tag, addend])
    }

    /// Where the paths of an access of `group` meet: notes the page.
    fn join_and_note(&mut self, fork: &Fork, group: Group, offset: i64) -> Option<ir::Value> {
        let value = self.join(fork.join);
        if fork.shared.is_some()
            && let [.., tag, addend] = *self.b.block_params(fork.join)
        {
            self.sharing.note(group, Noted { offset, tag, addend });
        }
        value
    }

    /// Continues in the slow path of a fork: calls the context; faults leave.
    fn slow_path(&mut self, slow: ir::Block, addr: ir::Value, access: Access) {
        self.b.switch_to_block(slow);
        self.b.seal_block(slow);
        let packed = self.b.ins().iconst(I64, access.pack() as i64);
        self.call_rare(Rare::Access, addr, packed);
        self.fault_if_told();
    }

    /// Continues where the paths of a fork meet.
    fn join(&mut self, join: ir::Block) -> Option<ir::Value> {
        self.b.switch_to_block(join);
        self.b.seal_block(join);
        self.b.block_params(join).first().copied()
    }

    fn load(&mut self, result: Value, addr: Value, (ty, mem, signed): (Type, Type, bool), flags: MemFlags) {
        let size = mem.bytes();
        let (group, offset, noted, more) = self.sharing.access(addr, false, flags.mmu);
        let addr = self.bits(addr);
        let whole = ty == mem && flags.endian == Endian::Little;
        let float = match ty {
            Type::I64 if whole && self.wants_float(result) => Some(F64),
            Type::I32 if whole && self.wants_float(result) => Some(F32),
            _ => None,
        };
        let loaded = float.unwrap_or(clif_type(mem));
        let tag = offset_of!(TlbEntry, load);
        let share = noted.is_none() && more;
        let fork = self.fork(addr, size, tag, flags, (Some(loaded), noted, share));
        let value = self.b.ins().load(loaded, ram(), fork.host, 0);
        self.meet(&fork, Some(value), fork.shared.map(|(shared, _)| shared));
        let access = Access { kind: AccessKind::Load, size, mmu: flags.mmu, align: flags.align };
        self.slow_path(fork.slow, addr, access);
        let value = self.result(loaded, 0);
        let page = self.page_again(&fork, addr, tag);
        self.meet(&fork, Some(value), page);
        let value = self.join_and_note(&fork, group, offset).unwrap_or(value);
        if float.is_some() {
            self.define_float(result, value);
        } else if mem == Type::V128 {
            let value = if flags.endian == Endian::Big { self.reverse_bytes(value) } else { value };
            self.define(result, value);
        } else {
            let value = self.swap(value, flags);
            let value = self.resize(value, ty, signed);
            self.define(result, value);
        }
        if flags.order != Order::Relaxed && !TOTAL_STORE_ORDER {
            self.b.ins().fence();
        }
    }

    fn store(&mut self, addr: Value, value: Value, mem: Type, flags: MemFlags) {
        let size = mem.bytes();
        let (group, offset, noted, more) = self.sharing.access(addr, true, flags.mmu);
        let addr = self.bits(addr);
        let bits = match self.forms(value).float {
            Some(float) if self.type_of(value) == mem && flags.endian == Endian::Little => float,
            _ => {
                let bits = self.bits(value);
                let bits = if mem == Type::V128 { bits } else { self.resize(bits, mem, false) };
                match flags.endian {
                    Endian::Big if mem == Type::V128 => self.reverse_bytes(bits),
                    _ => self.swap(bits, flags),
                }
            }
        };
        self.flush();
        if flags.order != Order::Relaxed && !TOTAL_STORE_ORDER {
            self.b.ins().fence();
        }
        let tag = offset_of!(TlbEntry, store);
        let fork = self.fork(addr, size, tag, flags, (None, noted, noted.is_none() && more));
        self.b.ins().store(ram(), bits, fork.host, 0);
        self.meet(&fork, None, fork.shared.map(|(shared, _)| shared));
        self.b.switch_to_block(fork.slow);
        let wide = self.widen(bits);
        self.b.ins().store(memory(), wide, self.cx, offset_of!(abi::Context, values) as i32);
        self.b.seal_block(fork.slow);
        let access = Access { kind: AccessKind::Store, size, mmu: flags.mmu, align: flags.align };
        let packed = self.b.ins().iconst(I64, access.pack() as i64);
        self.call_rare(Rare::Access, addr, packed);
        self.fault_if_told();
        let page = self.page_again(&fork, addr, tag);
        self.meet(&fork, None, page);
        self.join_and_note(&fork, group, offset);
        if flags.order == Order::SeqCst {
            self.b.ins().fence();
        }
    }

    /// The host address of an atomic access.
    fn atomic_place(&mut self, addr: Value, size: u32, stores: bool, flags: MemFlags) -> ir::Value {
        let addr = self.bits(addr);
        self.flush();
        let flags = flags.align(Align::Natural);
        let tag = if stores { offset_of!(TlbEntry, store) } else { offset_of!(TlbEntry, load) };
        let fork = self.fork(addr, size, tag, flags, (Some(I64), None, false));
        self.meet(&fork, Some(fork.host), None);
        let kind = if stores { AccessKind::ResolveStore } else { AccessKind::ResolveLoad };
        self.slow_path(fork.slow, addr, Access { kind, size, mmu: flags.mmu, align: flags.align });
        let resolved = self.result(I64, 0);
        self.meet(&fork, Some(resolved), None);
        self.join(fork.join).unwrap_or(resolved)
    }

    fn rmw(
        &mut self,
        result: Value,
        (op, ty): (RmwOp, Type),
        addr: Value,
        value: Value,
        flags: MemFlags,
    ) -> Result<(), CompileError> {
        if flags.endian == Endian::Big && ty != Type::I8 && !matches!(op, RmwOp::Xchg) {
            return Err(CompileError::Nothing("big-endian atomics have no code"));
        }
        let value = self.bits(value);
        let value = self.swap(value, flags);
        let host = self.atomic_place(addr, ty.bytes(), true, flags);
        let (op, value) = match op {
            RmwOp::Xchg => (AtomicRmwOp::Xchg, value),
            RmwOp::Add => (AtomicRmwOp::Add, value),
            RmwOp::And => (AtomicRmwOp::And, value),
            RmwOp::AndNot => (AtomicRmwOp::And, self.b.ins().bnot(value)),
            RmwOp::Or => (AtomicRmwOp::Or, value),
            RmwOp::Xor => (AtomicRmwOp::Xor, value),
            RmwOp::MinS => (AtomicRmwOp::Smin, value),
            RmwOp::MaxS => (AtomicRmwOp::Smax, value),
            RmwOp::MinU => (AtomicRmwOp::Umin, value),
            RmwOp::MaxU => (AtomicRmwOp::Umax, value),
        };
        let old = self.b.ins().atomic_rmw(clif_type(ty), ram(), op, host, value);
        let old = self.swap(old, flags);
        self.define(result, old);
        Ok(())
    }

    fn cas_pair(
        &mut self,
        first: Value,
        addr: Value,
        (expected, new): ([Value; 2], [Value; 2]),
        flags: MemFlags,
    ) -> Result<(), CompileError> {
        if !self.features.cmpxchg16b {
            return Err(CompileError::Nothing("this host has no 16-byte compare-and-swap"));
        }
        // Big-endian pairs are swapped as a whole: the low half is the second in memory.
        let arrange = |t: &mut Self, [low, high]: [ir::Value; 2]| match flags.endian {
            Endian::Little => [low, high],
            Endian::Big => [t.swap(high, flags), t.swap(low, flags)],
        };
        let expected = expected.map(|value| self.bits(value));
        let new = new.map(|value| self.bits(value));
        let host = self.atomic_place(addr, 16, true, flags);
        let [e0, e1] = arrange(self, expected);
        let [n0, n1] = arrange(self, new);
        let (expected, new) = (self.b.ins().iconcat(e0, e1), self.b.ins().iconcat(n0, n1));
        let old = self.b.ins().atomic_cas(ram(), host, expected, new);
        debug_assert_eq!(self.b.func.dfg.value_type(old), I128);
        let (low, high) = self.b.ins().isplit(old);
        let [low, high] = arrange(self, [low, high]);
        self.define(first, low);
        self.define(Value(first.0 + 1), high);
        Ok(())
    }

    fn store_cond(&mut self, result: Value, ty: Type, addr: Value, value: Value, flags: MemFlags) {
        let value = self.bits(value);
        let value = self.swap(value, flags);
        let host = self.atomic_place(addr, ty.bytes(), true, flags);
        let (at, was) = (offset_of!(CpuHeader, reserve_host), offset_of!(CpuHeader, reserve_value));
        let reserved = self.b.ins().load(I64, memory(), self.cpu, at as i32);
        let none = self.b.ins().iconst(I64, NO_RESERVATION as i64);
        self.b.ins().store(memory(), none, self.cpu, at as i32);
        let held = self.b.ins().icmp(IntCC::Equal, reserved, host);
        let (swap, join) = (self.b.create_block(), self.b.create_block());
        self.b.append_block_param(join, I8);
        let no = self.b.ins().iconst(I8, 0);
        self.b.ins().brif(held, swap, &[], join, &[no.into()]);
        self.b.switch_to_block(swap);
        self.b.seal_block(swap);
        let expected = self.b.ins().load(clif_type(ty), memory(), self.cpu, was as i32);
        let old = self.b.ins().atomic_cas(ram(), host, expected, value);
        let done = self.b.ins().icmp(IntCC::Equal, old, expected);
        self.b.ins().jump(join, &[done.into()]);
        let stored = self.join(join).unwrap_or(done);
        self.define(result, stored);
    }

    fn reverse_bytes(&mut self, value: ir::Value) -> ir::Value {
        debug_assert_eq!(self.b.func.dfg.value_type(value), I8X16);
        let order: Vec<u8> = (0..16).rev().collect();
        self.shuffle(&order, value, value)
    }
}
