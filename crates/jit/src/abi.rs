//! What compiled code and the engine agree on: how code is entered and left, and the memory it reads to find its way.
//!
//! Compiled code is position-independent and refers to nothing but its arguments, so that it can be kept on disk:
//!
//! * It is entered with Cranelift's `tail` convention as [`Enter`] shows: CPU, context, instructions left, and the guest
//!   virtual pc of its entry (`CpuHeader::pc` need not be up to date). On x86-64 these are `rdi rsi rdx rcx`, the
//!   stack is as after a call, `rbx rbp r12 r13 r14 r15` are the caller's, everything else is free.
//! * It is left by a tail call into other compiled code that a [`JumpEntry`] names, or by returning an [`ExitReason`]
//!   after storing `CpuHeader::pc` and [`Context::left`]. All slots are then in memory.
//! * Slots are in memory before everything that may fault, call or exit.
//! * It polls `left <= 0` and [`Context::attention`] at its entry, and `left <= 0` on every backward edge.
//! * Anything rare goes through the function pointers of the context. They keep **every** register but the flags (Cranelift's
//!   `preserve_all`), take CPU, context and up to two words, and answer in the context.

use isomer_core::{PAGE_SHIFT, PAGE_SIZE};
use isomer_ir::types::{Align, MmuIndex};
use std::{ffi::c_void, sync::atomic::AtomicU32};

/// Part of the key of everything kept on disk: raise it when anything in this file, or in what the compilers make of
/// the IR, changes.
pub const ABI_VERSION: u32 = 8;

/// Entries of one TLB table (one translation regime of one address space).
pub const TLB_ENTRIES: usize = 1024;

/// One cached translation of a 4 KiB granule. The tags are the granule's virtual address, or [`TLB_INVALID`] where that
/// access may not take the fast path.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct TlbEntry {
    /// Tag for loads.
    pub load: u64,
    /// Tag for stores.
    pub store: u64,
    /// Tag for fetches.
    pub fetch: u64,
    /// Host address = guest virtual address + this (wrapping).
    pub addend: u64,
}

/// A tag no address matches: what is compared with a tag is an address's page, and perhaps its low bits where it must be
/// aligned. This bit is in neither; one of the lowest would match misaligned accesses to page 0.
pub const TLB_INVALID: u64 = PAGE_SIZE / 2;

/// How far down [`tlb_index`] folds an address's bits: the width of an index.
pub const TLB_FOLD: u32 = TLB_ENTRIES.trailing_zeros();

/// The entry of its table that an address uses. Folded, so that arrays a power of two apart do not compete.
#[inline(always)]
pub const fn tlb_index(va: u64) -> usize {
    ((va >> PAGE_SHIFT) ^ (va >> (PAGE_SHIFT + TLB_FOLD))) as usize % TLB_ENTRIES
}

/// Translation regimes that compiled code can name.
pub const TLB_TABLES: usize = 8;

/// Where in the context the address of the present table of regime `mmu` is.
pub const fn tlb_table_offset(mmu: MmuIndex) -> usize {
    std::mem::offset_of!(Context, tlb) + mmu.0 as usize % TLB_TABLES * size_of::<*const TlbEntry>()
}

/// Entries of a jump cache: a power of two between these, as many as what runs there needs.
pub const MIN_JUMPS: usize = 4096;
/// See [`MIN_JUMPS`].
pub const MAX_JUMPS: usize = 65536;
/// How far down [`jump_index`] folds the bits of a pc. Twice this is less than a word of 32 bits, which is all that it takes.
pub const JUMP_FOLD: u32 = 15;

/// Where compiled code for a virtual pc is. Valid in the current address space until the engine drops it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct JumpEntry {
    /// Guest virtual pc.
    pub pc: u64,
    /// The mode word as [`mode_tag`] gives it.
    pub mode: u64,
    /// Where to enter compiled code; null only in empty entries.
    pub entry: *const u8,
}

/// [`JumpEntry::mode`] for a mode word: never 0, so that an empty cache is memory that nobody has touched, and short as a
/// sign-extended immediate.
pub const fn mode_tag(mode: u32) -> u64 {
    !(mode as u64)
}

impl JumpEntry {
    /// Names no code.
    pub const EMPTY: Self = Self { pc: 0, mode: 0, entry: std::ptr::null() };
}

/// The entry a virtual pc uses in a jump cache of `len` entries: blocks of as many bytes of code in a row do not compete.
#[inline(always)]
pub const fn jump_index(pc: u64, len: usize) -> usize {
    ((pc ^ (pc >> JUMP_FOLD)) >> 1) as usize & (len - 1)
}

/// [`Context::jump_mask`] for a jump cache of `len` entries.
pub const fn jump_mask(len: usize) -> u64 {
    (len as u64 - 1) << 1
}

/// The other entry that may have what belongs to entry `index`: two blocks that fall on one entry, and run in turn, are
/// common.
#[inline(always)]
pub const fn jump_other(index: usize, len: usize) -> usize {
    index ^ (len / 2)
}

/// Hotness counters of one vCPU.
pub const HOT_COUNTERS: usize = 8192;

/// The counter of the code at `offset` in its page (in `mode`): chosen when it is compiled, without knowing where it
/// will run; strangers that share one get hot a little early.
pub const fn hot_index(first_bytes_hash: u64) -> usize {
    (first_bytes_hash as usize) % HOT_COUNTERS
}

/// One vCPU's side of compiled code. The engine keeps it at one address.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Context {
    /// The table of each translation regime, in the current address space.
    pub tlb: [*const TlbEntry; TLB_TABLES],
    /// The current address space's jump cache.
    pub jumps: *const JumpEntry,
    /// What an index in it is masked with, before it is halved: [`jump_mask`].
    pub jump_mask: u64,
    /// Non-zero when the engine wants compiled code to return.
    pub attention: *const AtomicU32,
    /// Instructions left when code was left.
    pub left: i64,
    /// `CpuHeader::insns` is this less what is left.
    pub insns_end: u64,
    /// A memory access that missed the TLB: `access(cpu, context, va, descriptor)`; the descriptor is an
    /// [`Access::pack`]. Value stored or loaded, or host address, in `values[0]`; [`Context::status`].
    pub access: *const c_void,
    /// A guest helper: `call(cpu, context, helper, 0)` with arguments in `values[0..4]` (low halves), result in
    /// `values[0]`; [`Context::status`]. `CpuHeader::pc` and `insns` must be up to date: the block's entry, and the
    /// count before the calling instruction.
    pub call: *const c_void,
    /// An operation compiled code leaves to [`isomer_ir::eval`]: `compute(cpu, context, operation, rules)` with an
    /// operation packed by [`crate::cold::pack`], operands in `values[0..4]`, results in `values[0..3]`. Cannot fault.
    pub compute: *const c_void,
    /// 0: done; 1: it faulted, leave with [`ExitReason::Fault`].
    pub status: u64,
    /// Of [`ExitReason::Trap`].
    pub trap_code: u64,
    /// Of [`ExitReason::Trap`].
    pub trap_value: u64,
    /// Operands and results of the functions above.
    pub values: [[u64; 2]; 4],
    /// Where the running region was entered: compiled code's own.
    pub entry_pc: u64,
    /// `access`, `call` and `compute` once more, as functions of CPU and context that find their two words in
    /// [`Self::words`]: for code that had better not tie up registers.
    pub by_words: [*const c_void; 3],
    /// See [`Self::by_words`].
    pub words: [u64; 2],
    /// Where code goes (with compiled code's arguments, and the [`mode_tag`] as a fifth) if the jump cache's entry for pc is
    /// another's: to the other place where it may be ([`jump_other`]), or back to the engine.
    pub elsewhere: *const c_void,
    /// The engine's own.
    pub env: *mut c_void,
    /// Counted down by code that wants to be compiled better; [`ExitReason::Hot`] at 0.
    pub hot: [u32; HOT_COUNTERS],
}

/// How code is entered.
pub type Enter =
    unsafe extern "C" fn(code: *const u8, cpu: *mut u8, context: *mut Context, left: i64, pc: u64) -> u64;

/// Why compiled code returned. `CpuHeader::pc` says where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum ExitReason {
    /// Nothing left, or attention: pc is the next instruction.
    Leave = 0,
    /// The jump cache has no code for pc.
    Lookup = 1,
    /// [`isomer_ir::Terminal::Exit`]: pc is the next instruction.
    Exit = 2,
    /// A trap of `trap_code` and `trap_value`; pc is the instruction.
    Trap = 3,
    /// A function of the context said so; pc is the instruction.
    Fault = 4,
    /// The code at pc is hot: its counter is 0. Nothing of it ran.
    Hot = 5,
}

impl ExitReason {
    /// What compiled code returned.
    pub const fn from_raw(raw: u64) -> Self {
        match raw {
            0 => Self::Leave,
            1 => Self::Lookup,
            2 => Self::Exit,
            3 => Self::Trap,
            4 => Self::Fault,
            _ => Self::Hot,
        }
    }
}

/// What [`Context::access`] is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AccessKind {
    /// Load into `values[0]`, little-endian, zero-extended (16 bytes fill both halves).
    Load = 0,
    /// Store `values[0]`.
    Store = 1,
    /// The host address for an atomic access that only loads, in `values[0]`.
    ResolveLoad = 2,
    /// The host address for an atomic access that may store.
    ResolveStore = 3,
}

/// A memory access that missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// What to do.
    pub kind: AccessKind,
    /// 1, 2, 4, 8 or 16 bytes.
    pub size: u32,
    /// Translation regime.
    pub mmu: MmuIndex,
    /// Alignment rule.
    pub align: Align,
}

impl Access {
    /// As a constant in compiled code.
    pub const fn pack(self) -> u64 {
        self.kind as u64
            | (self.size.trailing_zeros() as u64) << 4
            | (self.mmu.0 as u64) << 8
            | (matches!(self.align, Align::Natural) as u64) << 16
    }

    /// Back from the constant.
    pub const fn unpack(packed: u64) -> Self {
        let kind = match packed & 15 {
            0 => AccessKind::Load,
            1 => AccessKind::Store,
            2 => AccessKind::ResolveLoad,
            _ => AccessKind::ResolveStore,
        };
        let align = if packed >> 16 & 1 != 0 { Align::Natural } else { Align::Any };
        Self { kind, size: 1 << (packed >> 4 & 7), mmu: MmuIndex((packed >> 8) as u8), align }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_survive_packing() {
        for kind in [AccessKind::Load, AccessKind::Store, AccessKind::ResolveLoad, AccessKind::ResolveStore] {
            for (log, mmu, align) in [(0, 0, Align::Any), (4, 63, Align::Natural), (3, 7, Align::Any)] {
                let access = Access { kind, size: 1 << log, mmu: MmuIndex(mmu), align };
                assert_eq!(Access::unpack(access.pack()), access);
            }
        }
    }

    #[test]
    fn blocks_of_a_page_do_not_compete() {
        let of_page = |page: u64| (page..page + 0x1000).step_by(2).map(|pc| jump_index(pc, MIN_JUMPS));
        let page = 0xffff_ffff_8012_3000;
        assert_eq!(of_page(page).collect::<std::collections::BTreeSet<_>>().len(), 0x800);
        let other = |index| jump_other(index, MIN_JUMPS);
        assert!(of_page(page).all(|index| other(other(index)) == index && other(index) < MIN_JUMPS));
    }
}
