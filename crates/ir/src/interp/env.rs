//! What interpreted code reaches besides guest registers: memory, helpers, the next block.
#![allow(unsafe_code, reason = "implementors hand out host addresses that the run loop accesses")]

use super::code::Entry;
use crate::{
    guest::Access,
    state::CpuState,
    types::{HelperId, MemFlags, MmuIndex},
};
use std::{ptr::NonNull, sync::atomic::AtomicU32};

/// The access or call trapped; the environment keeps the trap for whoever called [`super::run`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

/// Where an atomic access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostPlace {
    /// Host address of RAM, as aligned as the guest address.
    pub host: NonNull<u8>,
}

impl HostPlace {
    /// What names the place in [`crate::CpuHeader::reserve_host`].
    pub fn name(self) -> u64 {
        self.host.as_ptr().addr() as u64
    }
}

/// A vCPU's surroundings as [`super::run`] sees them. `read_hit`, `write_hit` and `lookup_hit` are inlined into the
/// run loop and should be a handful of instructions; everything else is out of line and may take its time.
///
/// While any method runs, `cpu.header().pc` is the entry of the running block. `cpu.header().insns` is exact only in
/// [`Env::call`]; nobody but the run loop may change it meanwhile.
///
/// # Safety
/// * Addresses from `read_hit`, `write_hit` and `resolve` must be host RAM, valid for the stated size and access
///   until the next call of a method that takes `&mut self`, and aligned whenever the guest address is.
/// * Blocks behind an [`Entry`] given to the run loop must stay allocated until `run` has returned. A block links
///   itself to blocks of the same home ([`super::Code::at_home`]) entered in the same 4 KiB virtual page as itself, in
///   the same mode: whoever frees a block must, before the next `run`, free or [`super::Code::unlink`] all blocks of
///   its home.
/// * The flag from `attention` must stay where it is while `run` runs, outside the environment itself.
/// * `call` must leave the CPU a valid value of its type.
pub unsafe trait Env {
    /// The guest's CPU.
    type Cpu: CpuState;

    /// Polled at every block boundary: non-zero makes `run` return [`super::End::Leave`].
    fn attention(&self) -> &AtomicU32;

    /// Host address for a load of `size` (1, 2, 4, 8) bytes at `va`, if the translation is cached, it is plain RAM,
    /// **and `va` is a multiple of `size`**: compare `va & (page mask | size - 1)` with the tag. Mark it
    /// `#[inline(always)]`; `size` is a constant at every call.
    fn read_hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>>;

    /// The same for a store.
    fn write_hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>>;

    /// A load of `size` (1, 2, 4, 8) bytes at any alignment, after `read_hit` gave nothing. Little-endian, zero-extended:
    /// byte order and sign are the run loop's business, and so is the alignment rule in `flags`.
    fn load(&mut self, cpu: &mut Self::Cpu, va: u64, size: u32, flags: MemFlags) -> Result<u64, Fault>;

    /// A store of the low `size` (1, 2, 4, 8) bytes of `value` at any alignment. A store across two pages must fault
    /// before it changes either.
    fn store(
        &mut self,
        cpu: &mut Self::Cpu,
        va: u64,
        size: u32,
        value: u64,
        flags: MemFlags,
    ) -> Result<(), Fault>;

    /// Would a store of `size` (up to 16) bytes at `va` fault? Before the first half of a 16-byte store.
    fn probe_store(&mut self, cpu: &mut Self::Cpu, va: u64, size: u32, flags: MemFlags) -> Result<(), Fault>;

    /// Where an atomic access of `size` (1, 2, 4, 8, 16) bytes goes; `va` is a multiple of `size`. With
    /// [`Access::Store`] the page is about to be written. Faults where there is no RAM.
    fn resolve(
        &mut self,
        cpu: &mut Self::Cpu,
        va: u64,
        size: u32,
        access: Access,
        flags: MemFlags,
    ) -> Result<HostPlace, Fault>;

    /// Records the trap of a misaligned access.
    fn misaligned(&mut self, cpu: &mut Self::Cpu, va: u64, access: Access) -> Fault;

    /// Calls a helper of the guest.
    fn call(&mut self, cpu: &mut Self::Cpu, helper: HelperId, args: [u64; 4]) -> Result<u64, Fault>;

    /// The block for virtual address `pc` in mode `mode`, if a small cache has it. Mark it `#[inline(always)]`.
    fn lookup_hit(&self, pc: u64, mode: u32) -> Option<Entry>;

    /// The block for the CPU's pc and mode; `None` makes `run` return [`super::End::Leave`], and the engine finds out
    /// why. Must not free blocks.
    fn lookup(&mut self, cpu: &mut Self::Cpu) -> Option<Entry>;
}
