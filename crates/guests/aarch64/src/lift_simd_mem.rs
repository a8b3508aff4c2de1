//! Loads and stores of SIMD and floating-point registers (the manual, C3.2.12 and C3.2.13): whole registers, and
//! structures of one to four elements spread over registers.

use crate::{
    lift::Lift,
    lift_mem::Base,
    operands::{Indexed, Literal, Pair, Scaled, Unscaled},
    regs::slot,
    vreg::{Simd, lane_of},
};
use isomer_ir::{
    Slot, Type, Value,
    types::{Endian, Lane, Order},
};

impl Lift<'_> {
    /// What an access of type `ty` stores of register `n`.
    fn register(&mut self, n: u8, ty: Type) -> Value {
        if ty == Type::V128 { self.v(n) } else { self.scalar(n, ty) }
    }

    /// Writes a loaded value; narrow ones are zero-extended.
    fn set_register(&mut self, n: u8, value: Value) {
        if self.b.type_of(value) == Type::V128 {
            self.set_v(n, value);
        } else {
            self.set_scalar(n, value);
        }
    }

    fn load_register(&mut self, rt: u8, ty: Type, addr: Value) {
        let flags = self.plain();
        let value = self.b.load(ty, ty, false, addr, flags);
        self.set_register(rt, value);
    }

    fn store_register(&mut self, rt: u8, ty: Type, addr: Value) {
        let (value, flags) = (self.register(rt, ty), self.plain());
        self.b.store(ty, addr, value, flags);
    }
}

/// LDR (immediate, unsigned offset).
pub(crate) fn load_scaled(l: &mut Lift<'_>, o: Scaled, ty: Type) {
    let base = l.base(o.rn);
    let addr = l.address(base, (o.units * u64::from(ty.bytes())) as i64);
    l.load_register(o.rt, ty, addr);
}

/// STR (immediate, unsigned offset).
pub(crate) fn store_scaled(l: &mut Lift<'_>, o: Scaled, ty: Type) {
    let base = l.base(o.rn);
    let addr = l.address(base, (o.units * u64::from(ty.bytes())) as i64);
    l.store_register(o.rt, ty, addr);
}

/// LDUR; LDR (immediate, pre- and post-indexed).
pub(crate) fn load_unscaled(l: &mut Lift<'_>, o: Unscaled, ty: Type, base: Base) {
    let (addr, moved) = l.indexed(o.rn, o.imm, base);
    l.load_register(o.rt, ty, addr);
    l.write_back(o.rn, o.imm, moved);
}

/// STUR; STR (immediate, pre- and post-indexed).
pub(crate) fn store_unscaled(l: &mut Lift<'_>, o: Unscaled, ty: Type, base: Base) {
    let (addr, moved) = l.indexed(o.rn, o.imm, base);
    l.store_register(o.rt, ty, addr);
    l.write_back(o.rn, o.imm, moved);
}

/// LDR (register).
pub(crate) fn load_indexed(l: &mut Lift<'_>, o: Indexed, ty: Type) {
    let addr = l.register_address(o, ty.bytes().ilog2() as u8);
    l.load_register(o.rt, ty, addr);
}

/// STR (register).
pub(crate) fn store_indexed(l: &mut Lift<'_>, o: Indexed, ty: Type) {
    let addr = l.register_address(o, ty.bytes().ilog2() as u8);
    l.store_register(o.rt, ty, addr);
}

/// LDR (literal).
pub(crate) fn load_literal(l: &mut Lift<'_>, o: Literal, ty: Type) {
    let addr = l.pc_rel(o.words * 4);
    l.load_register(o.rt, ty, addr);
}

/// LDP, LDNP.
pub(crate) fn load_pair(l: &mut Lift<'_>, o: Pair, ty: Type, base: Base) {
    let offset = o.units * i64::from(ty.bytes());
    let (addr, moved) = l.indexed(o.rn, offset, base);
    let second = l.address(addr, ty.bytes().into());
    let flags = l.plain();
    let values = [addr, second].map(|addr| l.b.load(ty, ty, false, addr, flags));
    l.set_register(o.rt, values[0]);
    l.set_register(o.rt2, values[1]);
    l.write_back(o.rn, offset, moved);
}

/// STP, STNP.
pub(crate) fn store_pair(l: &mut Lift<'_>, o: Pair, ty: Type, base: Base) {
    let offset = o.units * i64::from(ty.bytes());
    let (addr, moved) = l.indexed(o.rn, offset, base);
    let second = l.address(addr, ty.bytes().into());
    l.store_register(o.rt, ty, addr);
    l.store_register(o.rt2, ty, second);
    l.write_back(o.rn, offset, moved);
}

// --- acquire and release (FEAT_LRCPC3)

/// LDAPUR.
pub(crate) fn load_acquire(l: &mut Lift<'_>, o: Unscaled, ty: Type) {
    let base = l.base(o.rn);
    let addr = l.address(base, o.imm);
    let flags = l.ordered_at(addr, ty.bytes(), Order::Acquire, false);
    let value = l.b.load(ty, ty, false, addr, flags);
    l.set_register(o.rt, value);
}

/// STLUR.
pub(crate) fn store_release(l: &mut Lift<'_>, o: Unscaled, ty: Type) {
    let base = l.base(o.rn);
    let addr = l.address(base, o.imm);
    let flags = l.ordered_at(addr, ty.bytes(), Order::Release, true);
    let value = l.register(o.rt, ty);
    l.b.store(ty, addr, value, flags);
}

/// LDAP1: a doubleword lane, by Q the upper one.
pub(crate) fn load_acquire_lane(l: &mut Lift<'_>, o: Simd) {
    let addr = l.base(o.rn());
    let flags = l.ordered_at(addr, 8, Order::Acquire, false);
    let value = l.b.load(Type::I64, Type::I64, false, addr, flags);
    l.b.set(doubleword(o), value);
}

/// STL1.
pub(crate) fn store_release_lane(l: &mut Lift<'_>, o: Simd) {
    let addr = l.base(o.rn());
    let flags = l.ordered_at(addr, 8, Order::Release, true);
    let value = l.b.get(doubleword(o));
    l.b.store(Type::I64, addr, value, flags);
}

/// The half of Vt that Q names.
fn doubleword(o: Simd) -> Slot {
    if o.q() { slot::d_high(o.rd()) } else { slot::d(o.rd()) }
}

// --- structures

/// The n-th of consecutive registers; 31 is followed by 0.
const fn following(first: u8, n: usize) -> u8 {
    (first + n as u8) & 31
}

/// The address behind the accesses: the base plus `bytes`, or plus Xm. `None` without write-back.
fn moved_base(l: &mut Lift<'_>, o: Simd, base: Value, bytes: u64) -> Option<Value> {
    if o.bits(23, 1) == 0 {
        return None;
    }
    Some(if o.rm() == 31 {
        l.address(base, bytes as i64)
    } else {
        let offset = l.x(o.rm());
        l.b.add(base, offset)
    })
}

/// Writes the base register of a structure access back.
fn write_back(l: &mut Lift<'_>, o: Simd, bytes: u64, moved: Option<Value>) {
    let offset = if o.rm() == 31 { bytes as i64 } else { 1 };
    l.write_back(o.rn(), offset, moved);
}

/// How multiple structures lie in memory.
#[derive(Clone, Copy)]
struct Layout {
    /// Registers of the instruction.
    registers: usize,
    /// Elements of one structure: 1 where registers are simply consecutive.
    elements: usize,
    lane: Lane,
    /// Bytes used of each register.
    width: usize,
}

impl Layout {
    fn of(o: Simd, registers: usize, elements: usize) -> Self {
        let width = if o.bits(30, 1) != 0 { 16 } else { 8 };
        Self { registers, elements, lane: lane_of(o.bits(10, 2)), width }
    }

    fn bytes(self) -> usize {
        self.registers * self.width
    }

    /// Where in memory byte `byte` of register `register` is; big-endian elements are reversed.
    fn place(self, register: usize, byte: usize, big: bool) -> usize {
        let size = self.lane.bits() as usize / 8;
        let (index, within) = (byte / size, byte % size);
        let within = if big { size - 1 - within } else { within };
        if self.elements == 1 {
            register * self.width + index * size + within
        } else {
            (index * self.elements + register) * size + within
        }
    }
}

/// Puts a vector together from bytes of several: `pick(i)` says where byte i comes from, counting bytes through all
/// `sources`, 16 each.
fn gather(l: &mut Lift<'_>, sources: &[Value], pick: impl Fn(usize) -> Option<usize>) -> Value {
    let mut result = None;
    for (number, &source) in sources.iter().enumerate() {
        let own = |i: usize| pick(i).and_then(|at| at.checked_sub(16 * number)).filter(|at| *at < 16);
        if (0..16).all(|i| own(i).is_none()) {
            continue;
        }
        result = Some(match result {
            None if (0..16).all(|i| own(i) == Some(i)) => source,
            None => l.shuffle(std::array::from_fn(|i| own(i).map_or(0xff, |at| at as u8)), source, source),
            Some(earlier) => {
                let bytes = std::array::from_fn(|i| match (own(i), pick(i)) {
                    (Some(at), _) => at as u8 + 16,
                    (None, Some(_)) => i as u8,
                    _ => 0xff,
                });
                l.shuffle(bytes, earlier, source)
            }
        });
    }
    result.unwrap_or_else(|| l.b.vconst(0))
}

/// Memory as 16-byte chunks; the last one may be half a chunk.
fn load_chunks(l: &mut Lift<'_>, lane: Lane, addr: Value, bytes: usize) -> Vec<Value> {
    let flags = l.plain().endian(Endian::Little);
    let chunk = |l: &mut Lift<'_>, at: usize| {
        let addr = l.address(addr, at as i64);
        if l.mode.aligned_only() {
            // Accesses are aligned by element, not by chunk.
            return load_elements(l, lane, addr, (bytes - at).min(16));
        }
        if bytes - at >= 16 {
            return l.b.load(Type::V128, Type::V128, false, addr, flags);
        }
        let half = l.b.load(Type::I64, Type::I64, false, addr, flags);
        let zero = l.b.vconst(0);
        l.vec_set(Lane::D, 0, zero, half)
    };
    (0..bytes).step_by(16).map(|at| chunk(l, at)).collect()
}

fn load_elements(l: &mut Lift<'_>, lane: Lane, addr: Value, bytes: usize) -> Value {
    let (flags, size) = (l.plain().endian(Endian::Little), lane.bits() as usize / 8);
    let mut result = l.b.vconst(0);
    for index in 0..bytes / size {
        let at = l.address(addr, (index * size) as i64);
        let value = l.b.load(lane.ty(), lane.ty(), false, at, flags);
        result = l.vec_set(lane, index as u8, result, value);
    }
    result
}

fn store_chunk(l: &mut Lift<'_>, lane: Lane, addr: Value, bytes: usize, value: Value) {
    let flags = l.plain().endian(Endian::Little);
    if l.mode.aligned_only() {
        let size = lane.bits() as usize / 8;
        for index in 0..bytes.min(16) / size {
            let at = l.address(addr, (index * size) as i64);
            let element = l.vec_get(lane, index as u8, value);
            l.b.store(lane.ty(), at, element, flags);
        }
    } else if bytes >= 16 {
        l.b.store(Type::V128, addr, value, flags);
    } else {
        let half = l.vec_get(Lane::D, 0, value);
        l.b.store(Type::I64, addr, half, flags);
    }
}

/// LD1 to LD4 (multiple structures).
pub(crate) fn load_multiple(l: &mut Lift<'_>, o: Simd, registers: usize, elements: usize) {
    let layout = Layout::of(o, registers, elements);
    let base = l.base(o.rn());
    let chunks = load_chunks(l, layout.lane, base, layout.bytes());
    let big = l.mode.big_endian();
    let moved = moved_base(l, o, base, layout.bytes() as u64);
    for register in 0..registers {
        let value =
            gather(l, &chunks, |byte| (byte < layout.width).then(|| layout.place(register, byte, big)));
        l.set_v(following(o.rd(), register), value);
    }
    write_back(l, o, layout.bytes() as u64, moved);
}

/// ST1 to ST4 (multiple structures).
pub(crate) fn store_multiple(l: &mut Lift<'_>, o: Simd, registers: usize, elements: usize) {
    let layout = Layout::of(o, registers, elements);
    let base = l.base(o.rn());
    let sources: Vec<Value> = (0..registers).map(|n| l.v(following(o.rd(), n))).collect();
    let big = l.mode.big_endian();
    let mut from = vec![0; layout.bytes()];
    for register in 0..registers {
        for byte in 0..layout.width {
            from[layout.place(register, byte, big)] = register * 16 + byte;
        }
    }
    for at in (0..layout.bytes()).step_by(16) {
        let value = gather(l, &sources, |byte| from.get(at + byte).copied());
        let addr = l.address(base, at as i64);
        store_chunk(l, layout.lane, addr, layout.bytes() - at, value);
    }
    let moved = moved_base(l, o, base, layout.bytes() as u64);
    write_back(l, o, layout.bytes() as u64, moved);
}

/// Lane and index of a single structure: Q:S:size, of which wider lanes use fewer bits.
fn single(o: Simd) -> (Lane, u8) {
    let index = (o.bits(30, 1) << 3 | o.bits(10, 3)) as u8;
    match (o.bits(14, 2), o.bits(10, 1)) {
        (0, _) => (Lane::B, index),
        (1, _) => (Lane::H, index >> 1),
        (_, 0) => (Lane::S, index >> 2),
        _ => (Lane::D, index >> 3),
    }
}

/// LD1 to LD4 (single structure): one lane of each register.
pub(crate) fn load_single(l: &mut Lift<'_>, o: Simd, registers: usize) {
    let (lane, index) = single(o);
    let (base, values, moved) = load_structure(l, o, lane, registers);
    for (n, value) in values.into_iter().enumerate() {
        let register = following(o.rd(), n);
        let old = l.v(register);
        let new = l.vec_set(lane, index, old, value);
        l.set_v(register, new);
    }
    write_back(l, o, base, moved);
}

/// LD1R to LD4R: every lane of each register.
pub(crate) fn load_replicate(l: &mut Lift<'_>, o: Simd, registers: usize) {
    let lane = lane_of(o.bits(10, 2));
    let (base, values, moved) = load_structure(l, o, lane, registers);
    for (n, value) in values.into_iter().enumerate() {
        let all = l.splat(lane, value);
        if o.bits(30, 1) != 0 {
            l.set_v(following(o.rd(), n), all);
        } else {
            let low = l.vec_get(Lane::D, 0, all);
            l.set_scalar(following(o.rd(), n), low);
        }
    }
    write_back(l, o, base, moved);
}

/// Loads one structure: how many bytes it has, its elements, and the base afterwards.
fn load_structure(
    l: &mut Lift<'_>,
    o: Simd,
    lane: Lane,
    registers: usize,
) -> (u64, Vec<Value>, Option<Value>) {
    let size = u64::from(lane.bits() / 8);
    let (base, flags) = (l.base(o.rn()), l.plain());
    let element = |n: usize| {
        let addr = l.address(base, n as i64 * size as i64);
        l.b.load(lane.ty(), lane.ty(), false, addr, flags)
    };
    let values = (0..registers).map(element).collect();
    let bytes = size * registers as u64;
    let moved = moved_base(l, o, base, bytes);
    (bytes, values, moved)
}

/// ST1 to ST4 (single structure).
pub(crate) fn store_single(l: &mut Lift<'_>, o: Simd, registers: usize) {
    let (lane, index) = single(o);
    let size = u64::from(lane.bits() / 8);
    let (base, flags) = (l.base(o.rn()), l.plain());
    for n in 0..registers {
        let whole = l.v(following(o.rd(), n));
        let value = l.vec_get(lane, index, whole);
        let addr = l.address(base, n as i64 * size as i64);
        l.b.store(lane.ty(), addr, value, flags);
    }
    let bytes = size * registers as u64;
    let moved = moved_base(l, o, base, bytes);
    write_back(l, o, bytes, moved);
}
