//! Exclusive, ordered and atomic accesses (Arm ARM, C3.2.6 to C3.2.17; B2.9 "Synchronization and semaphores").
//!
//! The exclusive monitor is the engine's reservation: an address and the value that was there. Ordered accesses of
//! general registers are RCsc, so they take part in one total order; `ldapr` and its kin are RCpc and merely acquire.
//! Atomic and exclusive accesses must be naturally aligned, with FEAT_LSE2 too, which would allow more. A store-exclusive
//! checks its address before the monitor, which the manual leaves open.

use crate::{
    Features,
    lift::{Lift, width},
    lift_mem::Base,
    operands::{Atomic, Exclusive, Mem, OrderedPair, Unscaled},
    regs::slot,
    trap,
};
use isomer_ir::{
    Type, Value,
    op::{BinOp, Cond, RmwOp},
    types::{Align, Endian, MemFlags, Order},
};

/// Data abort, alignment fault (ESR_ELx.ISS.DFSC = 0b100001).
const ALIGNMENT: u32 = trap::syndrome(trap::ec::DATA_ABORT, 0x21);
/// ISS.WnR.
const WRITE: u32 = 1 << 6;

impl Lift<'_> {
    /// Flags of an access that is naturally aligned and ordered.
    fn ordered(&self, order: Order) -> MemFlags {
        self.plain().align(Align::Natural).order(order)
    }

    /// The order that acquire and release bits give an atomic access.
    fn atomic_flags(&self, acquire: bool, release: bool) -> MemFlags {
        self.ordered(match (acquire, release) {
            (false, false) => Order::Relaxed,
            (true, false) => Order::Acquire,
            (false, true) => Order::Release,
            _ => Order::SeqCst,
        })
    }

    /// Flags of a load-acquire or store-release of `bytes` at `addr`, which FEAT_LSE2 lets be misaligned within 16
    /// bytes (anywhere if SCTLR_ELx.nAA).
    pub(crate) fn ordered_at(&mut self, addr: Value, bytes: u32, order: Order, store: bool) -> MemFlags {
        let flags = self.ordered(order);
        if !self.guest.has(Features::LSE2) || self.mode.aligned_only() || bytes == 1 {
            return flags;
        }
        if !self.mode.unaligned_ordered() {
            let low = self.b.trunc(Type::I8, addr);
            let low = self.b.bin_imm(BinOp::And, low, 15);
            let last = self.b.iconst(Type::I8, u64::from(16 - bytes));
            let crosses = self.b.compare(Cond::LtU, last, low);
            self.b.trap_if(crosses, ALIGNMENT | if store { WRITE } else { 0 }, addr);
        }
        flags.align(Align::Any)
    }

    /// Traps unless `addr` is a multiple of 16.
    fn check_16(&mut self, addr: Value) {
        let low = self.b.trunc(Type::I8, addr);
        let low = self.b.bin_imm(BinOp::And, low, 15);
        self.b.trap_if(low, ALIGNMENT, addr);
    }

    fn is_big(&self) -> bool {
        self.mode.big_endian()
    }

    /// Register `n`'s low bits as `ty`.
    fn x_as(&mut self, ty: Type, n: u8) -> Value {
        let value = self.x(n);
        self.b.trunc(ty, value)
    }

    /// Two 32-bit registers as they lie in eight bytes of memory, the first at the lower address.
    fn join(&mut self, first: u8, second: u8) -> Value {
        let (low, high) = if self.is_big() { (second, first) } else { (first, second) };
        let (low, high) = (self.x(low), self.x(high));
        self.b.deposit(low, high, 32, 32)
    }

    /// Writes both halves of eight bytes into two registers.
    fn split(&mut self, value: Value, first: u8, second: u8) {
        let (low, high) = if self.is_big() { (second, first) } else { (first, second) };
        let halves = [self.b.extract(value, 0, 32, false), self.b.extract(value, 32, 32, false)];
        self.set_x(low, halves[0]);
        self.set_x(high, halves[1]);
    }
}

fn order_if(ordered: bool) -> Order {
    if ordered { Order::SeqCst } else { Order::Relaxed }
}

/// `ldxr`, `ldaxr`.
pub(crate) fn load_exclusive(l: &mut Lift<'_>, o: Exclusive, ty: Type) {
    let (addr, flags) = (l.base(o.rn), l.ordered(order_if(o.ordered)));
    let value = l.b.load_reserve(ty, addr, flags);
    l.set_x(o.rt, value);
}

/// `stxr`, `stlxr`: Ws becomes 0 if it stored.
pub(crate) fn store_exclusive(l: &mut Lift<'_>, o: Exclusive, ty: Type) {
    let (addr, flags) = (l.base(o.rn), l.ordered(order_if(o.ordered)));
    let value = l.x_as(ty, o.rt);
    let stored = l.b.store_cond(addr, value, flags);
    let failed = l.not(stored);
    l.set_x(o.rs, failed);
}

/// `ldxp`, `ldaxp` of 32-bit registers.
pub(crate) fn load_exclusive_pair(l: &mut Lift<'_>, o: Exclusive) {
    let (addr, flags) = (l.base(o.rn), l.ordered(order_if(o.ordered)));
    let value = l.b.load_reserve(Type::I64, addr, flags);
    l.split(value, o.rt, o.rt2);
}

/// `stxp`, `stlxp` of 32-bit registers.
pub(crate) fn store_exclusive_pair(l: &mut Lift<'_>, o: Exclusive) {
    let (addr, flags) = (l.base(o.rn), l.ordered(order_if(o.ordered)));
    let value = l.join(o.rt, o.rt2);
    let stored = l.b.store_cond(addr, value, flags);
    let failed = l.not(stored);
    l.set_x(o.rs, failed);
}

/// `ldxp`, `ldaxp` of 64-bit registers. The reservation covers the first; both are remembered for `stxp` to compare.
pub(crate) fn load_exclusive_quad(l: &mut Lift<'_>, o: Exclusive) {
    let (addr, flags) = (l.base(o.rn), l.ordered(order_if(o.ordered)));
    l.check_16(addr);
    let first = l.b.load_reserve(Type::I64, addr, flags);
    let addr = l.address(addr, 8);
    let second = l.b.load(Type::I64, Type::I64, false, addr, flags);
    l.b.set(slot::PAIR_FIRST, first);
    l.b.set(slot::PAIR_SECOND, second);
    l.set_x(o.rt, first);
    l.set_x(o.rt2, second);
}

/// `stxp`, `stlxp` of 64-bit registers: gives the reservation up by storing what is there already, then swaps all 16
/// bytes if it was held; else the swap changes nothing.
pub(crate) fn store_exclusive_quad(l: &mut Lift<'_>, o: Exclusive) {
    let (addr, flags) = (l.base(o.rn), l.ordered(order_if(o.ordered)));
    l.check_16(addr);
    let expected = [l.b.get(slot::PAIR_FIRST), l.b.get(slot::PAIR_SECOND)];
    let held = l.b.store_cond(addr, expected[0], flags);
    let new = [o.rt, o.rt2].map(|n| l.x(n));
    let new = [l.b.select(held, new[0], expected[0]), l.b.select(held, new[1], expected[1])];
    let old = l.swap_pair(addr, expected, new, flags);
    let same = [0, 1].map(|half| l.b.compare(Cond::Eq, old[half], expected[half]));
    let same = l.b.and(same[0], same[1]);
    let stored = l.b.and(held, same);
    let failed = l.not(stored);
    l.set_x(o.rs, failed);
}

impl Lift<'_> {
    /// Compares and swaps 16 bytes, each pair in the order of addresses.
    fn swap_pair(
        &mut self,
        addr: Value,
        expected: [Value; 2],
        new: [Value; 2],
        flags: MemFlags,
    ) -> [Value; 2] {
        // Big-endian, the IR's first half lies behind its second.
        let arrange = |[a, b]: [Value; 2]| if flags.endian == Endian::Big { [b, a] } else { [a, b] };
        arrange(self.b.cas_pair(addr, arrange(expected), arrange(new), flags))
    }
}

/// `ldar`, `ldlar`.
pub(crate) fn load_acquire(l: &mut Lift<'_>, o: Exclusive, m: Mem) {
    let addr = l.base(o.rn);
    let flags = l.ordered_at(addr, m.bytes(), Order::SeqCst, false);
    l.load(o.rt, m, addr, flags);
}

/// `stlr`, `stllr`.
pub(crate) fn store_release(l: &mut Lift<'_>, o: Exclusive, m: Mem) {
    let addr = l.base(o.rn);
    let flags = l.ordered_at(addr, m.bytes(), Order::SeqCst, true);
    l.store(o.rt, m, addr, flags);
}

/// `ldapr`.
pub(crate) fn load_rcpc(l: &mut Lift<'_>, o: Atomic, m: Mem) {
    let addr = l.base(o.rn);
    let flags = l.ordered_at(addr, m.bytes(), Order::Acquire, false);
    l.load(o.rt, m, addr, flags);
}

/// `ldapur` and its kin.
pub(crate) fn load_rcpc_unscaled(l: &mut Lift<'_>, o: Unscaled, m: Mem) {
    let (addr, _) = l.indexed(o.rn, o.imm, Base::Kept);
    let flags = l.ordered_at(addr, m.bytes(), Order::Acquire, false);
    l.load(o.rt, m, addr, flags);
}

/// `stlur` and its kin.
pub(crate) fn store_release_unscaled(l: &mut Lift<'_>, o: Unscaled, m: Mem) {
    let (addr, _) = l.indexed(o.rn, o.imm, Base::Kept);
    let flags = l.ordered_at(addr, m.bytes(), Order::SeqCst, true);
    l.store(o.rt, m, addr, flags);
}

/// `ldapr` that moves its base on behind the access (FEAT_LRCPC3).
pub(crate) fn load_rcpc_post(l: &mut Lift<'_>, o: Atomic, m: Mem) {
    let offset = i64::from(m.bytes());
    let (addr, moved) = l.indexed(o.rn, offset, Base::Post);
    let flags = l.ordered_at(addr, m.bytes(), Order::Acquire, false);
    l.load(o.rt, m, addr, flags);
    l.write_back(o.rn, offset, moved);
}

/// `stlr` that moves its base down before the access (FEAT_LRCPC3).
pub(crate) fn store_release_pre(l: &mut Lift<'_>, o: Atomic, m: Mem) {
    let offset = -i64::from(m.bytes());
    let (addr, moved) = l.indexed(o.rn, offset, Base::Pre);
    let flags = l.ordered_at(addr, m.bytes(), Order::SeqCst, true);
    l.store(o.rt, m, addr, flags);
    l.write_back(o.rn, offset, moved);
}

/// `ldiapp`; after it, with `Base::Post`, the base has moved on.
pub(crate) fn load_acquire_pair(l: &mut Lift<'_>, o: OrderedPair, m: Mem, base: Base) {
    let offset = if base == Base::Kept { 0 } else { 2 * i64::from(m.bytes()) };
    let (addr, moved) = l.indexed(o.rn, offset, base);
    let flags = l.ordered_at(addr, 2 * m.bytes(), Order::Acquire, false);
    let first = l.b.load(Type::I64, m.ty, false, addr, flags);
    let second = l.address(addr, i64::from(m.bytes()));
    let second = l.b.load(Type::I64, m.ty, false, second, flags);
    l.set_x(o.rt, first);
    l.set_x(o.rt2, second);
    l.write_back(o.rn, offset, moved);
}

/// `stilp`; before it, with `Base::Pre`, the base moves down.
pub(crate) fn store_release_pair(l: &mut Lift<'_>, o: OrderedPair, m: Mem, base: Base) {
    let offset = if base == Base::Kept { 0 } else { -2 * i64::from(m.bytes()) };
    let (addr, moved) = l.indexed(o.rn, offset, base);
    let flags = l.ordered_at(addr, 2 * m.bytes(), Order::SeqCst, true);
    l.store(o.rt, m, addr, flags);
    let second = l.address(addr, i64::from(m.bytes()));
    l.store(o.rt2, m, second, flags);
    l.write_back(o.rn, offset, moved);
}

/// `ldadd`, `swp` and their kin.
pub(crate) fn read_modify_write(l: &mut Lift<'_>, o: Atomic, op: RmwOp, ty: Type) {
    let (addr, flags) = (l.base(o.rn), l.atomic_flags(o.acquire, o.release));
    let operand = l.x_as(ty, o.rs);
    let old = l.b.rmw(op, addr, operand, flags);
    l.set_x(o.rt, old);
}

/// `cas`: Rs is compared and takes the old value, Rt is stored.
pub(crate) fn compare_and_swap(l: &mut Lift<'_>, o: Exclusive, ty: Type) {
    let (addr, flags) = (l.base(o.rn), l.atomic_flags(o.acquire, o.ordered));
    let (expected, new) = (l.x_as(ty, o.rs), l.x_as(ty, o.rt));
    let old = l.b.cas(addr, expected, new, flags);
    l.set_x(o.rs, old);
}

/// `casp`: the same with pairs of registers that start at an even one. L and o0 lie where `cas` has them.
pub(crate) fn compare_and_swap_pair(l: &mut Lift<'_>, o: Exclusive, sf: bool) {
    let (addr, flags) = (l.base(o.rn), l.atomic_flags(o.acquire, o.ordered));
    let second = |n: u8| if n == 30 { 31 } else { n + 1 };
    if width(sf) == Type::I64 {
        let [expected, new] = [o.rs, o.rt].map(|n| [l.x(n), l.x(second(n))]);
        let old = l.swap_pair(addr, expected, new, flags);
        l.set_x(o.rs, old[0]);
        l.set_x(second(o.rs), old[1]);
    } else {
        let (expected, new) = (l.join(o.rs, second(o.rs)), l.join(o.rt, second(o.rt)));
        let old = l.b.cas(addr, expected, new, flags);
        l.split(old, o.rs, second(o.rs));
    }
}

/// Both registers of `casp` are even.
pub(crate) fn has_even_pairs(insn: u32) -> bool {
    insn & (1 << 16 | 1) == 0
}
