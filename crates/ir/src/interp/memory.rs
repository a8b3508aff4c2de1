//! Accesses to guest RAM: host atomics, because other vCPUs and devices race with them; byte order, alignment and
//! ordering rules; read-modify-write, compare-and-swap and reservations.
#![allow(unsafe_code, reason = "accesses guest RAM at addresses the environment gives")]

use super::env::{Env, Fault, HostPlace};
use crate::{
    eval,
    guest::Access,
    op::RmwOp,
    state::{CpuState, NO_RESERVATION},
    types::{Align, Endian, MemFlags, Order, Type},
    wide::compare_exchange_16,
};
use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence},
};

type Result<T> = std::result::Result<T, Fault>;

/// Ordering of plain loads: free on x86, where acquire loads are plain moves.
pub(super) const LOAD: Ordering =
    if cfg!(target_arch = "x86_64") { Ordering::Acquire } else { Ordering::Relaxed };
/// Ordering of plain stores.
pub(super) const STORE: Ordering =
    if cfg!(target_arch = "x86_64") { Ordering::Release } else { Ordering::Relaxed };

/// Evaluates an expression with `$a` standing for the atomic type of `$size` bytes at `$host`.
macro_rules! with_atomic {
    ($host:expr, $size:expr, $a:ident => $body:expr) => {
        // SAFETY: the caller vouches for `host`: RAM of that size, aligned to it; only ever accessed atomically here.
        unsafe {
            match $size {
                1 => { let $a = $host.cast::<AtomicU8>().as_ref(); $body }
                2 => { let $a = $host.cast::<AtomicU16>().as_ref(); $body }
                4 => { let $a = $host.cast::<AtomicU32>().as_ref(); $body }
                _ => { let $a = $host.cast::<AtomicU64>().as_ref(); $body }
            }
        }
    };
}

/// Loads `size` (1, 2, 4, else 8) bytes.
///
/// # Safety
/// `host` is RAM of that size and aligned to it; the same holds for the other functions here.
#[inline(always)]
#[allow(clippy::unnecessary_cast, reason = "one expression for all widths")]
unsafe fn load_host(host: NonNull<u8>, size: u32, order: Ordering) -> u64 {
    with_atomic!(host, size, a => a.load(order) as u64)
}

/// Stores the low `size` bytes.
#[inline(always)]
unsafe fn store_host(host: NonNull<u8>, size: u32, value: u64, order: Ordering) {
    with_atomic!(host, size, a => a.store(value as _, order));
}

/// Replaces `old` by `new`: the old value, and whether it was `old`.
#[allow(clippy::unnecessary_cast, reason = "one expression for all widths")]
unsafe fn cas_host(host: NonNull<u8>, size: u32, old: u64, new: u64) -> std::result::Result<u64, u64> {
    let order = Ordering::SeqCst;
    with_atomic!(host, size, a => match a.compare_exchange(old as _, new as _, order, order) {
        Ok(v) => Ok(v as u64),
        Err(v) => Err(v as u64),
    })
}

/// The low `size` bytes reversed.
fn swap(value: u64, size: u32) -> u64 {
    value.swap_bytes() >> (64 - 8 * size)
}

fn in_order(value: u64, size: u32, flags: MemFlags) -> u64 {
    match flags.endian {
        Endian::Little => value,
        Endian::Big => swap(value, size),
    }
}

fn acquires(order: Order) -> bool {
    matches!(order, Order::Acquire | Order::AcqRel | Order::SeqCst)
}

fn releases(order: Order) -> bool {
    matches!(order, Order::Release | Order::AcqRel | Order::SeqCst)
}

/// A vCPU and its environment.
pub(super) struct Memory<'a, E: Env> {
    pub(super) env: &'a mut E,
    pub(super) cpu: &'a mut E::Cpu,
}

impl<E: Env> Memory<'_, E> {
    fn check_aligned(&mut self, va: u64, size: u32, access: Access) -> Result<()> {
        if va.is_multiple_of(size.into()) { Ok(()) } else { Err(self.env.misaligned(self.cpu, va, access)) }
    }

    /// Loads an integer of `mem`, zero-extended.
    pub(super) fn load(&mut self, mem: Type, va: u64, flags: MemFlags) -> Result<u64> {
        let size = mem.bytes();
        if flags.align == Align::Natural {
            self.check_aligned(va, size, Access::Load)?;
        }
        if flags.order == Order::SeqCst && !cfg!(target_arch = "x86_64") {
            fence(Ordering::SeqCst);
        }
        let value = match self.env.read_hit(va, u64::from(size), flags.mmu) {
            // SAFETY: `read_hit` vouches for the address.
            Some(host) => unsafe { load_host(host, size, LOAD) },
            None => self.env.load(self.cpu, va, size, flags)?,
        };
        if acquires(flags.order) {
            fence(Ordering::Acquire);
        }
        Ok(in_order(value, size, flags))
    }

    /// Stores the low bits of an integer.
    pub(super) fn store(&mut self, mem: Type, va: u64, value: u64, flags: MemFlags) -> Result<()> {
        let size = mem.bytes();
        if flags.align == Align::Natural {
            self.check_aligned(va, size, Access::Store)?;
        }
        let value = in_order(value & mem.mask(), size, flags);
        if releases(flags.order) {
            fence(Ordering::Release);
        }
        match self.env.write_hit(va, u64::from(size), flags.mmu) {
            // SAFETY: `write_hit` vouches for the address.
            Some(host) => unsafe { store_host(host, size, value, STORE) },
            None => self.env.store(self.cpu, va, size, value, flags)?,
        }
        if flags.order == Order::SeqCst {
            fence(Ordering::SeqCst);
        }
        Ok(())
    }

    /// Loads 16 bytes, as two halves.
    pub(super) fn load128(&mut self, va: u64, flags: MemFlags) -> Result<u128> {
        if flags.align == Align::Natural {
            self.check_aligned(va, 16, Access::Load)?;
        }
        let halves = MemFlags { align: Align::Any, ..flags };
        let first = self.load(Type::I64, va, halves)?;
        let second = self.load(Type::I64, va.wrapping_add(8), halves)?;
        Ok(match flags.endian {
            Endian::Little => u128::from(second) << 64 | u128::from(first),
            Endian::Big => u128::from(first) << 64 | u128::from(second),
        })
    }

    /// Stores 16 bytes, as two halves; faults before it changes either.
    pub(super) fn store128(&mut self, va: u64, value: u128, flags: MemFlags) -> Result<()> {
        if flags.align == Align::Natural {
            self.check_aligned(va, 16, Access::Store)?;
        }
        let halves = MemFlags { align: Align::Any, ..flags };
        let (low, high) = (value as u64, (value >> 64) as u64);
        let (first, second) = match flags.endian {
            Endian::Little => (low, high),
            Endian::Big => (high, low),
        };
        self.env.probe_store(self.cpu, va, 16, flags)?;
        self.store(Type::I64, va, first, halves)?;
        self.store(Type::I64, va.wrapping_add(8), second, halves)
    }

    fn place(&mut self, va: u64, size: u32, access: Access, flags: MemFlags) -> Result<HostPlace> {
        self.check_aligned(va, size, access)?;
        self.env.resolve(self.cpu, va, size, access, flags)
    }

    /// Where a read-modify-write goes.
    fn writable(&mut self, va: u64, size: u32, flags: MemFlags) -> Result<NonNull<u8>> {
        match self.env.write_hit(va, u64::from(size), flags.mmu) {
            Some(host) => Ok(host),
            None => Ok(self.place(va, size, Access::Store, flags)?.host),
        }
    }

    /// Atomic read-modify-write; the old value.
    pub(super) fn rmw(&mut self, op: RmwOp, ty: Type, va: u64, operand: u64, flags: MemFlags) -> Result<u64> {
        let size = ty.bytes();
        let host = self.writable(va, size, flags)?;
        // SAFETY: `writable` vouches for the address.
        unsafe {
            let mut old = load_host(host, size, Ordering::Relaxed);
            loop {
                let new = in_order(eval::rmw(op, ty, in_order(old, size, flags), operand), size, flags);
                match cas_host(host, size, old, new) {
                    Ok(old) => return Ok(in_order(old, size, flags)),
                    Err(found) => old = found,
                }
            }
        }
    }

    /// Atomic compare-and-swap; the old value.
    pub(super) fn cas(
        &mut self,
        ty: Type,
        va: u64,
        [expected, new]: [u64; 2],
        flags: MemFlags,
    ) -> Result<u64> {
        let size = ty.bytes();
        let host = self.writable(va, size, flags)?;
        let in_memory = |value: u64| in_order(value & ty.mask(), size, flags);
        // SAFETY: `writable` vouches for the address.
        let (Ok(old) | Err(old)) = unsafe { cas_host(host, size, in_memory(expected), in_memory(new)) };
        Ok(in_order(old, size, flags))
    }

    /// Compare-and-swap of 16 bytes; the old halves, low first.
    pub(super) fn cas_pair(
        &mut self,
        va: u64,
        expected: [u64; 2],
        new: [u64; 2],
        flags: MemFlags,
    ) -> Result<[u64; 2]> {
        let place = self.place(va, 16, Access::Store, flags)?;
        // Big-endian pairs are swapped as a whole: the low half is the second in memory.
        let arrange = |[low, high]: [u64; 2]| match flags.endian {
            Endian::Little => [low, high],
            Endian::Big => [high.swap_bytes(), low.swap_bytes()],
        };
        // SAFETY: `resolve` vouches for 16 aligned bytes.
        let old = unsafe { compare_exchange_16(place.host, arrange(expected), arrange(new)) };
        Ok(arrange(old))
    }

    /// Loads and reserves.
    pub(super) fn load_reserve(&mut self, ty: Type, va: u64, flags: MemFlags) -> Result<u64> {
        let size = ty.bytes();
        let place = self.place(va, size, Access::Load, flags)?;
        // SAFETY: `resolve` vouches for the address.
        let value = unsafe { load_host(place.host, size, Ordering::SeqCst) };
        let header = self.cpu.header_mut();
        header.reserve_host = place.name();
        header.reserve_value = value;
        Ok(in_order(value, size, flags))
    }

    /// Stores if the reserved place still holds what was loaded from it; clears the reservation.
    pub(super) fn store_cond(&mut self, ty: Type, va: u64, value: u64, flags: MemFlags) -> Result<bool> {
        let size = ty.bytes();
        let place = self.place(va, size, Access::Store, flags)?;
        let header = self.cpu.header_mut();
        let reserved = std::mem::replace(&mut header.reserve_host, NO_RESERVATION);
        if reserved != place.name() {
            return Ok(false);
        }
        let new = in_order(value & ty.mask(), size, flags);
        // SAFETY: `resolve` vouches for the address.
        Ok(unsafe { cas_host(place.host, size, header.reserve_value & ty.mask(), new) }.is_ok())
    }
}

/// Orders earlier accesses before later ones.
pub(super) fn barrier(order: Order) {
    match order {
        Order::Relaxed => {}
        Order::Acquire => fence(Ordering::Acquire),
        Order::Release => fence(Ordering::Release),
        Order::AcqRel => fence(Ordering::AcqRel),
        Order::SeqCst => fence(Ordering::SeqCst),
    }
}
