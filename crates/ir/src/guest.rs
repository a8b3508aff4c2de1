//! What an instruction set is to the rest of Isomer: a lifter, a page walker, traps, and plain CPU state.

use crate::{
    builder::Builder,
    state::{CpuState, SlotDesc},
    types::{FpModel, MmuIndex},
};
use isomer_core::{Gpa, Gva};
use std::fmt;

/// Names a piece of guest code for the lifter: where it starts and every mode bit that changes its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockKey {
    /// Guest virtual address of the first instruction.
    pub pc: u64,
    /// [`crate::CpuHeader::mode`].
    pub mode: u32,
}

/// Why memory is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Access {
    /// Data load.
    Load,
    /// Data store, or an atomic that may store.
    Store,
    /// Instruction fetch.
    Fetch,
}

/// A translation, as the TLB keeps it. Permissions say what may be done **without another walk**: a page
/// whose dirty bit is still to be set by hardware has `store == false` until a store walks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Guest-physical address of the accessed byte's 4 KiB granule.
    pub gpa: Gpa,
    /// log2 of the size over which this translation and these permissions hold, 12 and up. Below 12: they
    /// hold for this access only (a PMP or MPU region smaller than a granule) and must not be kept.
    pub shift: u8,
    /// Loads may pass.
    pub load: bool,
    /// Stores may pass.
    pub store: bool,
    /// Fetches may pass.
    pub fetch: bool,
    /// The mapping is the same in every address space.
    pub global: bool,
}

/// Which cached translations to drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TlbFlush {
    /// Only the page that holds this address.
    pub gva: Option<Gva>,
    /// How many bytes from `gva`; 0 means one page.
    pub len: u64,
    /// Only this address space; global mappings may stay.
    pub address_space: Option<u64>,
}

/// What a lifter made of one instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifted {
    /// The next instruction follows in the same block.
    Next,
    /// It set the block's terminal.
    End,
    /// The instruction is longer than the bytes given; nothing was emitted.
    NeedMore,
}

/// Physical memory as page walkers see it.
pub trait PhysMemory {
    /// Reads an aligned 4- or 8-byte little-endian entry; `None` where there is no RAM.
    fn load(&self, gpa: Gpa, size: usize) -> Option<u64>;
    /// Atomically replaces `old` by `new` in an aligned 4- or 8-byte entry; `None` where there is no RAM, else
    /// whether it was replaced.
    fn compare_exchange(&self, gpa: Gpa, size: usize, old: u64, new: u64) -> Option<bool>;
}

/// What helpers may ask of the engine that runs them.
pub trait HelperEnv<G: Guest> {
    /// Guest time in nanoseconds.
    fn now_ns(&self) -> u64;
    /// The external interrupt inputs, a bit each (see [`isomer_core::VcpuSignal`]).
    fn lines(&self) -> u64;
    /// Fresh random bits from the host (RISC-V `seed`, x86 `rdrand`, A64 `rndr`).
    fn entropy(&mut self) -> u64;
    /// Loads `size` (1, 2, 4, 8) bytes, zero-extended, with all checks of an ordinary access.
    fn load(
        &mut self,
        guest: &G,
        cpu: &mut G::Cpu,
        gva: Gva,
        size: usize,
        mmu: MmuIndex,
    ) -> Result<u64, G::Trap>;
    /// Stores the low `size` bytes with all checks of an ordinary access.
    fn store(
        &mut self,
        guest: &G,
        cpu: &mut G::Cpu,
        gva: Gva,
        size: usize,
        mmu: MmuIndex,
        value: u64,
    ) -> Result<(), G::Trap>;
    /// Translates without accessing.
    fn translate(
        &mut self,
        guest: &G,
        cpu: &mut G::Cpu,
        gva: Gva,
        access: Access,
        mmu: MmuIndex,
    ) -> Result<Gpa, G::Trap>;
    /// Drops cached translations of this vCPU.
    fn flush_tlb(&mut self, what: TlbFlush);
    /// Drops cached translations of every vCPU (A64 `tlbi ...is`, Power `tlbie`): this one's at once, the others' by
    /// [`Self::await_flushes`] at the latest.
    fn flush_tlb_everywhere(&mut self, what: TlbFlush) {
        self.flush_tlb(what);
    }
    /// No further block runs before the flushes of [`Self::flush_tlb_everywhere`] are done everywhere.
    fn await_flushes(&mut self) {}
    /// Physical memory, for walks that helpers make themselves (A64 `at`, x86 nested pages); `None` where helpers run
    /// without a machine.
    fn memory(&self) -> Option<&dyn PhysMemory> {
        None
    }
    /// Selects the cached translations to use from now on (riscv64: satp's ASID; others: ASID, PCID, PID). The
    /// same number always means the same translations, or they were flushed.
    fn set_address_space(&mut self, id: u64);
    /// Makes all earlier stores, anybody's, visible to this vCPU's instruction fetches.
    fn sync_code(&mut self);
    /// Pending interrupts may have changed: look before the next block.
    fn reconsider(&mut self);
    /// May there be an interrupt that is taken as soon as the CPU lets it, as far as was known when pending interrupts were
    /// looked at last? One that came since asks for attention by itself, and one that is due by time alone is noticed
    /// within a slice.
    fn interrupts_waiting(&self) -> bool {
        true
    }
    /// After this block, sleep until an interrupt line is high or the guest's deadline has come.
    fn wait_for_interrupt(&mut self);
}

/// A helper's view of its vCPU.
pub struct HelperCx<'a, G: Guest> {
    /// The guest (its model and constants).
    pub guest: &'a G,
    /// Its CPU. `pc` in the header is the running block's entry.
    pub cpu: &'a mut G::Cpu,
    /// The engine.
    pub env: &'a mut dyn HelperEnv<G>,
}

impl<G: Guest> fmt::Debug for HelperCx<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HelperCx({})", G::NAME)
    }
}

/// What a helper may touch, so that passes know what they may move or drop around a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effects {
    /// Computes from its arguments only.
    Pure,
    /// Reads slots; writes none; cannot trap.
    ReadsState,
    /// Reads and writes slots, memory, anything; may trap.
    Any,
}

/// A helper: a guest operation that is not worth IR operations of its own.
pub struct HelperDesc<G: Guest> {
    /// Name in the text form.
    pub name: &'static str,
    /// What it may touch.
    pub effects: Effects,
    /// The code. Absent arguments are 0. `Err` takes the trap at the calling instruction.
    pub run: fn(&mut HelperCx<'_, G>, [u64; 4]) -> Result<u64, G::Trap>,
}

impl<G: Guest> fmt::Debug for HelperDesc<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.name, self.effects)
    }
}

/// An instruction set architecture. The value itself is a CPU model: the same guest with another extension set is
/// another value.
pub trait Guest: Sized + Send + Sync + 'static {
    /// Architectural state.
    type Cpu: CpuState;
    /// An architectural exception or interrupt with its syndrome.
    type Trap: Copy + PartialEq + fmt::Debug + fmt::Display + Send;

    /// The name users type ("riscv64").
    const NAME: &'static str;
    /// All slots of the CPU.
    const SLOTS: &'static [SlotDesc];
    /// All helpers.
    const HELPERS: &'static [HelperDesc<Self>];
    /// Translation regimes ([`MmuIndex`] 0 .. this).
    const MMU_INDEXES: usize;
    /// Regimes whose mappings are mostly the same in all address spaces ([`Page::global`]), as a kernel's are: a bit each. A
    /// hint, which decides how they are cached.
    const SHARED_MMUS: u64 = 0;
    /// The shortest instruction, in bytes: pc is always a multiple of it.
    const INSN_ALIGN: u32;
    /// The longest instruction, in bytes.
    const INSN_MAX: u32;

    /// Names the CPU model as far as lifting depends on it: the same code in the same mode lifts to the same block
    /// wherever these names are equal. Part of the key of code that is kept.
    fn model_id(&self) -> String;

    /// Floating-point rules for mode word `mode`.
    fn fp_model(&self, mode: u32) -> FpModel;

    /// Lifts the instruction at the start of `code`, `offset` bytes from the block's entry: calls
    /// [`Builder::insn_start`] first (except on [`Lifted::NeedMore`]) and sets a terminal where the block must end.
    /// `code` holds at least [`Self::INSN_ALIGN`] bytes and ends at the page's end or later.
    /// Invalid encodings become traps, never errors.
    fn lift_insn(&self, mode: u32, code: &[u8], offset: u32, b: &mut Builder) -> Lifted;

    /// The instruction at the start of `code` as assembly text, and its length in bytes (0 if incomplete).
    fn disassemble(&self, code: &[u8], pc: u64) -> (String, usize);

    /// The translation regime of instruction fetches in this state.
    fn fetch_mmu(&self, cpu: &Self::Cpu) -> MmuIndex;

    /// Walks the page tables for an `access` to `len` bytes at `gva` (all in one granule), updating accessed and dirty
    /// bits where the architecture says so.
    fn walk(
        &self,
        cpu: &Self::Cpu,
        memory: &dyn PhysMemory,
        gva: Gva,
        len: u32,
        access: Access,
        mmu: MmuIndex,
    ) -> Result<Page, Self::Trap>;

    /// The trap of a misaligned access that must be aligned.
    fn misaligned(&self, gva: Gva, access: Access) -> Self::Trap;
    /// The trap of an access to a physical address nobody answers for.
    fn bus_error(&self, gva: Gva, access: Access) -> Self::Trap;
    /// The trap a lifter named by number in [`crate::Terminal::Trap`] or [`crate::Op::TrapIf`].
    fn trap(&self, code: u32, value: u64) -> Self::Trap;

    /// `trap` with what it reports of the instruction at `cpu.header().pc`, where that has to be read from memory (A64:
    /// the syndrome of stage 2 aborts; x86: nested page faults).
    fn complete(&self, _cpu: &Self::Cpu, _memory: &dyn PhysMemory, trap: Self::Trap) -> Self::Trap {
        trap
    }

    /// Takes a trap: `cpu.header().pc` is the faulting instruction (for interrupts: the next one); afterwards it is
    /// the handler's first instruction and the mode word is the handler's.
    fn take(&self, cpu: &mut Self::Cpu, trap: Self::Trap);

    /// The interrupt to take now, if any, given the external `lines` and the time.
    fn pending(&self, cpu: &Self::Cpu, lines: u64, now_ns: u64) -> Option<Self::Trap>;
    /// Would an interrupt end a wait (it may be disabled for taking)?
    fn wakes(&self, cpu: &Self::Cpu, lines: u64, now_ns: u64) -> bool;
    /// When `pending` may change by time alone.
    fn deadline_ns(&self, cpu: &Self::Cpu) -> Option<u64>;

    /// Called between runs of translated code, before [`Self::pending`]: counters may have overflowed (riscv64's
    /// Sscofpmf now, A64's PMU in its turn). Gives how many instructions may pass before the next call is due; at most
    /// a block more than that pass.
    fn slice_done(&self, _cpu: &mut Self::Cpu) -> u64 {
        u64::MAX
    }

    /// Is this trap a call to firmware that the machine provides itself (SBI, PSCI, hcall)? It is then handed to
    /// the machine, with pc at the calling instruction, instead of being taken.
    fn is_firmware_call(&self, cpu: &Self::Cpu, trap: Self::Trap) -> bool;

    /// Registers for people, a line each or several a line.
    fn describe(&self, cpu: &Self::Cpu) -> String;
}

/// Lifts a block: up to `max_insns` instructions from `code`, which starts at the entry and ends at its page's end
/// (or, for an entry that crosses, holds the next page's bytes too, in which case one instruction is lifted).
/// `None` if even the first instruction needs more bytes.
pub fn lift_block<G: Guest>(guest: &G, mode: u32, code: &[u8], max_insns: u32) -> Option<crate::Block> {
    let mut b = Builder::new(G::SLOTS, mode, guest.fp_model(mode));
    while b.insn_count() < max_insns {
        let offset = b.len();
        let rest = &code[offset as usize..];
        if rest.len() < G::INSN_ALIGN as usize {
            break;
        }
        match guest.lift_insn(mode, rest, offset, &mut b) {
            Lifted::Next => {}
            Lifted::End => break,
            Lifted::NeedMore => break,
        }
    }
    (!b.is_empty()).then(|| b.finish())
}
