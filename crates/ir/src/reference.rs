//! The reference engine: walks a [`Block`] operation by operation. Slow, and plain enough to be believed: what the
//! other engines are compared with.
#![allow(unsafe_code, reason = "reads and writes slots and guest memory through raw pointers")]

use crate::{
    block::{Block, Terminal},
    eval,
    guest::Access,
    interp::{End, Env, Fault, HostPlace},
    op::Op,
    state::{CpuState, NO_RESERVATION, SlotDesc},
    types::{Align, Endian, MemFlags, Order, Type, Value},
    wide::compare_exchange_16,
};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// One run of one block.
struct Run<'a, E: Env> {
    block: &'a Block,
    cpu: &'a mut E::Cpu,
    env: &'a mut E,
    values: Vec<u128>,
    /// Bytes from the entry to the running instruction, and how many came before it.
    insn_offset: u32,
    retired: u64,
}

/// Runs one block, which must be the one for the CPU's pc and mode; afterwards as [`crate::interp::run`] leaves the
/// CPU, with [`End::Leave`] for terminals that merely continue.
///
/// # Safety
/// As for [`crate::interp::run`].
pub unsafe fn run_block<E: Env>(block: &Block, cpu: &mut E::Cpu, env: &mut E) -> End {
    let values = vec![0; block.value_types.len()];
    let mut run = Run { block, cpu, env, values, insn_offset: 0, retired: 0 };
    let mut started = false;
    for inst in &block.insts {
        if let Op::InsnStart { offset, .. } = inst.op {
            run.insn_offset = offset;
            run.retired += u64::from(started);
            started = true;
            continue;
        }
        match run.step(&inst.op) {
            Ok(results) => {
                for (value, ty) in block.results(inst) {
                    let result = results[(value.0 - inst.first.0) as usize];
                    run.values[value.0 as usize] =
                        if ty == Type::V128 { result } else { result & u128::from(ty.mask()) };
                }
            }
            Err(end) => {
                run.cpu.header_mut().insns += run.retired;
                return end;
            }
        }
    }
    run.finish()
}

type Step = Result<[u128; 3], End>;

impl<E: Env> Run<'_, E> {
    fn int(&self, value: Value) -> u64 {
        self.values[value.0 as usize] as u64
    }

    fn slot(&mut self, slot: &SlotDesc) -> *mut u8 {
        let base: *mut E::Cpu = self.cpu;
        // SAFETY: `CpuState` promises that slots lie inside the CPU.
        unsafe { base.cast::<u8>().add(slot.offset as usize) }
    }

    fn fault(&self, _: Fault) -> End {
        End::Fault { insn_offset: self.insn_offset }
    }

    fn finish(self) -> End {
        let entry = self.cpu.header().pc;
        let all = u64::from(self.block.insn_count);
        let (pc, end) = match self.block.terminal {
            Terminal::Jump { offset, .. } => (entry.wrapping_add(offset as u64), End::Leave),
            Terminal::Branch { c, taken, not_taken } => {
                let offset = if self.int(c) != 0 { taken } else { not_taken };
                (entry.wrapping_add(offset as u64), End::Leave)
            }
            Terminal::Indirect { pc, .. } => (self.int(pc), End::Leave),
            Terminal::Exit { offset } | Terminal::Attend { offset } => {
                (entry.wrapping_add(offset as u64), End::Exit)
            }
            Terminal::ExitIndirect { pc } => (self.int(pc), End::Exit),
            Terminal::Trap { code, value } => {
                self.cpu.header_mut().insns += self.retired;
                let value = value.map_or(0, |value| self.int(value));
                return End::Trap { code, value, insn_offset: self.insn_offset };
            }
        };
        let header = self.cpu.header_mut();
        (header.pc, header.insns) = (pc, header.insns + all);
        end
    }

    fn step(&mut self, op: &Op) -> Step {
        let one = |value: u64| Ok([u128::from(value), 0, 0]);
        match *op {
            Op::PcRel { offset } => one(self.cpu.header().pc.wrapping_add(offset as u64)),
            Op::Get { slot } => {
                let desc = self.block.slots[usize::from(slot.0)];
                let mut bytes = [0; 16];
                let at = self.slot(&desc);
                // SAFETY: the slot lies inside the CPU.
                unsafe { at.copy_to(bytes.as_mut_ptr(), desc.ty.bytes() as usize) };
                Ok([u128::from_le_bytes(bytes), 0, 0])
            }
            Op::Set { slot, value } => {
                let desc = self.block.slots[usize::from(slot.0)];
                let bytes = self.values[value.0 as usize].to_le_bytes();
                let at = self.slot(&desc);
                // SAFETY: the slot lies inside the CPU, where any bits are valid.
                unsafe { at.copy_from(bytes.as_ptr(), desc.ty.bytes() as usize) };
                Ok([0; 3])
            }
            Op::Sext { to, a } => {
                let from = self.block.type_of(a);
                one(eval::sign_extend(self.int(a), from.bits()) as u64 & to.mask())
            }
            Op::Fence { order } => {
                if order != Order::Relaxed {
                    fence(Ordering::SeqCst);
                }
                Ok([0; 3])
            }
            Op::TrapIf { c, code, value } if self.int(c) != 0 => {
                Err(End::Trap { code, value: self.int(value), insn_offset: self.insn_offset })
            }
            Op::TrapIf { .. } | Op::InsnStart { .. } => Ok([0; 3]),
            Op::Call { helper, args, result: _ } => {
                let args = args.map(|arg| arg.map_or(0, |arg| self.int(arg)));
                // Helpers see an exact count; the block's instructions are added again at its end.
                self.cpu.header_mut().insns += self.retired;
                let result = self.env.call(self.cpu, helper, args);
                self.cpu.header_mut().insns -= self.retired;
                result.map(|value| [u128::from(value), 0, 0]).map_err(|fault| self.fault(fault))
            }
            Op::Load { .. } | Op::Store { .. } => self.plain(op),
            Op::Rmw { .. }
            | Op::Cas { .. }
            | Op::CasPair { .. }
            | Op::LoadReserve { .. }
            | Op::StoreCond { .. } => self.atomic(op),
            _ => {
                let mut operands = Vec::new();
                op.for_each_operand(|value| operands.push(self.values[value.0 as usize]));
                let header = self.cpu.header();
                let (rounding, mut flags) = (header.rounding, header.fp_flags);
                let results = eval::compute(op, &operands, self.block.fp, rounding, &mut flags);
                self.cpu.header_mut().fp_flags = flags;
                Ok(results.unwrap_or_default())
            }
        }
    }

    fn check_alignment(&mut self, va: u64, size: u32, flags: MemFlags, access: Access) -> Result<(), End> {
        if flags.align == Align::Natural && !va.is_multiple_of(u64::from(size)) {
            let fault = self.env.misaligned(self.cpu, va, access);
            return Err(self.fault(fault));
        }
        Ok(())
    }

    fn plain(&mut self, op: &Op) -> Step {
        match *op {
            Op::Load { ty, mem, signed, addr, flags } => {
                let va = self.int(addr);
                self.check_alignment(va, mem.bytes(), flags, Access::Load)?;
                let mut value = 0;
                for part in 0..mem.bytes().div_ceil(8) {
                    let (at, size) = (va.wrapping_add(u64::from(part) * 8), mem.bytes().min(8));
                    let loaded = self.env.load(self.cpu, at, size, flags).map_err(|f| self.fault(f))?;
                    value |= u128::from(loaded) << (64 * part);
                }
                if flags.endian == Endian::Big {
                    value = value.swap_bytes() >> (128 - mem.bits());
                }
                if signed && mem != Type::V128 {
                    value = u128::from(eval::sign_extend(value as u64, mem.bits()) as u64 & ty.mask());
                }
                if flags.order != Order::Relaxed {
                    fence(Ordering::SeqCst);
                }
                Ok([value, 0, 0])
            }
            Op::Store { mem, addr, value, flags } => {
                let va = self.int(addr);
                self.check_alignment(va, mem.bytes(), flags, Access::Store)?;
                if flags.order != Order::Relaxed {
                    fence(Ordering::SeqCst);
                }
                let mut bits = self.values[value.0 as usize];
                if flags.endian == Endian::Big {
                    bits = bits.swap_bytes() >> (128 - mem.bits());
                }
                if mem == Type::V128 {
                    self.env.probe_store(self.cpu, va, 16, flags).map_err(|f| self.fault(f))?;
                }
                for part in 0..mem.bytes().div_ceil(8) {
                    let (at, size) = (va.wrapping_add(u64::from(part) * 8), mem.bytes().min(8));
                    let half = (bits >> (64 * part)) as u64 & mem.mask();
                    self.env.store(self.cpu, at, size, half, flags).map_err(|f| self.fault(f))?;
                }
                if flags.order == Order::SeqCst {
                    fence(Ordering::SeqCst);
                }
                Ok([0; 3])
            }
            _ => Ok([0; 3]),
        }
    }

    fn place(&mut self, addr: Value, size: u32, access: Access, flags: MemFlags) -> Result<HostPlace, End> {
        let va = self.int(addr);
        let flags = flags.align(Align::Natural);
        self.check_alignment(va, size, flags, access)?;
        self.env.resolve(self.cpu, va, size, access, flags).map_err(|f| self.fault(f))
    }

    fn atomic(&mut self, op: &Op) -> Step {
        let one = |value: u64| Ok([u128::from(value), 0, 0]);
        match *op {
            Op::Rmw { op, ty, addr, value, flags } => {
                let place = self.place(addr, ty.bytes(), Access::Store, flags)?;
                let operand = self.int(value);
                loop {
                    let old = swap(flags, ty, load(place, ty));
                    let new = eval::rmw(op, ty, old, operand);
                    if exchange(place, ty, swap(flags, ty, old), swap(flags, ty, new)) {
                        return one(old);
                    }
                }
            }
            Op::Cas { ty, addr, expected, new, flags } => {
                let place = self.place(addr, ty.bytes(), Access::Store, flags)?;
                let (expected, new) = (self.int(expected), self.int(new));
                loop {
                    let old = swap(flags, ty, load(place, ty));
                    if old != expected || exchange(place, ty, swap(flags, ty, old), swap(flags, ty, new)) {
                        return one(old);
                    }
                }
            }
            Op::CasPair { addr, expected, new, flags } => {
                let place = self.place(addr, 16, Access::Store, flags)?;
                let [e0, e1] = expected.map(|v| self.int(v));
                let [n0, n1] = new.map(|v| self.int(v));
                // Big-endian pairs are swapped as a whole: the low half is the second in memory.
                let arrange = |[low, high]: [u64; 2]| match flags.endian {
                    Endian::Little => [low.to_le(), high.to_le()],
                    Endian::Big => [high.to_be(), low.to_be()],
                };
                // SAFETY: `resolve` gives mapped RAM, as aligned as the address, which `place` has checked.
                let old = unsafe { compare_exchange_16(place.host, arrange([e0, e1]), arrange([n0, n1])) };
                let [o0, o1] = arrange(old);
                Ok([u128::from(o0), u128::from(o1), 0])
            }
            Op::LoadReserve { ty, addr, flags } => {
                let place = self.place(addr, ty.bytes(), Access::Load, flags)?;
                let raw = load(place, ty);
                let header = self.cpu.header_mut();
                (header.reserve_host, header.reserve_value) = (place.name(), raw);
                one(swap(flags, ty, raw))
            }
            Op::StoreCond { ty, addr, value, flags } => {
                let place = self.place(addr, ty.bytes(), Access::Store, flags)?;
                let header = self.cpu.header_mut();
                let held = std::mem::replace(&mut header.reserve_host, NO_RESERVATION) == place.name();
                let raw = header.reserve_value & ty.mask();
                let value = self.int(value);
                one(u64::from(held && exchange(place, ty, raw, swap(flags, ty, value))))
            }
            _ => Ok([0; 3]),
        }
    }
}

fn swap(flags: MemFlags, ty: Type, value: u64) -> u64 {
    match flags.endian {
        Endian::Little => value,
        Endian::Big => value.swap_bytes() >> (64 - ty.bits()),
    }
}

fn load(place: HostPlace, ty: Type) -> u64 {
    let at = place.host.as_ptr();
    // SAFETY: `Env::resolve` gives mapped, aligned RAM of the access's size.
    unsafe {
        match ty {
            Type::I8 => u64::from(AtomicU8::from_ptr(at).load(Ordering::SeqCst)),
            Type::I16 => u64::from(u16::from_le(AtomicU16::from_ptr(at.cast()).load(Ordering::SeqCst))),
            Type::I32 => u64::from(u32::from_le(AtomicU32::from_ptr(at.cast()).load(Ordering::SeqCst))),
            _ => u64::from_le(AtomicU64::from_ptr(at.cast()).load(Ordering::SeqCst)),
        }
    }
}

fn exchange(place: HostPlace, ty: Type, old: u64, new: u64) -> bool {
    let at = place.host.as_ptr();
    let order = Ordering::SeqCst;
    // SAFETY: as in `load`.
    unsafe {
        match ty {
            Type::I8 => AtomicU8::from_ptr(at).compare_exchange(old as u8, new as u8, order, order).is_ok(),
            Type::I16 => AtomicU16::from_ptr(at.cast())
                .compare_exchange((old as u16).to_le(), (new as u16).to_le(), order, order)
                .is_ok(),
            Type::I32 => AtomicU32::from_ptr(at.cast())
                .compare_exchange((old as u32).to_le(), (new as u32).to_le(), order, order)
                .is_ok(),
            _ => AtomicU64::from_ptr(at.cast())
                .compare_exchange(old.to_le(), new.to_le(), order, order)
                .is_ok(),
        }
    }
}
