//! A small guest for the tests: a CPU with slots of every type, some of which overlap, and memory of every kind; run by
//! the reference engine and by compiled code.

use crate::{
    abi::{
        Access as Packed, AccessKind, Context, ExitReason, HOT_COUNTERS, JumpEntry, MIN_JUMPS, TLB_ENTRIES,
        TLB_INVALID, TlbEntry, jump_mask, tlb_index,
    },
    code_memory::{CodeMemory, CodeSpan},
    cold,
    host::HostFeatures,
    stubs::Stubs,
};
use isomer_ir::{
    Access, Block, CpuHeader, CpuState, MmuIndex, SlotDesc, Type, eval,
    interp::{End, Entry, Env, Fault, HostPlace},
    reference,
    types::{Align, FpModel, HelperId, MemFlags},
};
use std::{
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU32},
};

pub(super) const UNITS: usize = 96;

#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Cpu {
    pub(super) header: CpuHeader,
    pub(super) units: [u64; UNITS],
}

// SAFETY: `repr(C)`, header first, integers only; slots end inside `units`.
unsafe impl CpuState for Cpu {
    fn header(&self) -> &CpuHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut CpuHeader {
        &mut self.header
    }
}

const fn slot(unit: usize, byte: usize, ty: Type) -> SlotDesc {
    SlotDesc { name: "slot", offset: (512 + unit * 8 + byte) as u32, ty }
}

/// Slots a type, with nothing in common.
pub(super) const EACH: usize = 8;

/// Slots of their own, then some that overlap them and each other, then the header's.
pub(super) static SLOTS: [SlotDesc; 5 * EACH + 12] = {
    let mut slots = [slot(UNITS - 1, 0, Type::I64); 5 * EACH + 12];
    let mut n = 0;
    while n < EACH {
        slots[n] = slot(n, n % 8, Type::I8);
        slots[EACH + n] = slot(8 + n, n % 4 * 2, Type::I16);
        slots[2 * EACH + n] = slot(16 + n, n % 2 * 4, Type::I32);
        slots[3 * EACH + n] = slot(24 + n, 0, Type::I64);
        slots[4 * EACH + n] = slot(32 + 2 * n, 0, Type::V128);
        n += 1;
    }
    let n = 5 * EACH;
    slots[n] = slot(24, 0, Type::I32);
    slots[n + 1] = slot(24, 4, Type::I32);
    slots[n + 2] = slot(25, 3, Type::I8);
    slots[n + 3] = slot(25, 6, Type::I16);
    slots[n + 4] = slot(26, 0, Type::V128);
    slots[n + 5] = slot(27, 0, Type::V128);
    slots[n + 6] = slot(32, 0, Type::I64);
    slots[n + 7] = slot(33, 0, Type::I64);
    slots[n + 8] = slot(34, 0, Type::I32);
    slots[n + 9] = slot(35, 7, Type::I8);
    slots
};

/// The plain slots of a type, as a range of numbers.
pub(super) fn plain_slots(ty: Type) -> std::ops::Range<u16> {
    let first = ty as u16 * EACH as u16;
    first..first + EACH as u16
}

/// Where memory begins.
pub(super) const BASE: u64 = 0x40_0000;
const PAGE: u64 = 4096;
/// Pages: two plain ones, one outside the TLB, one that only loads may reach there, one that only stores may.
pub(super) const PAGES: u64 = 5;
pub(super) const BYTES: usize = (PAGES * PAGE) as usize;
/// Regimes whose tables have entries; the others' accesses all miss.
const REGIMES: [u8; 2] = [0, 2];
const TABLES: usize = 4;

#[repr(C, align(4096))]
pub(super) struct Ram(pub(super) [u8; BYTES]);

/// Memory and what happened.
pub(super) struct Machine {
    pub(super) ram: Box<Ram>,
    pub(super) log: Vec<String>,
    attention: Box<AtomicU32>,
    fp: FpModel,
}

/// The host's sticky flags that [`CpuHeader::fp_flags`] has, but for the one about subnormal operands: the host raises
/// it for results that are looked at, too.
pub(super) const COMPARED_FLAGS: u8 = 0x1f;

impl Machine {
    fn new() -> Self {
        let fp = FpModel {
            nan: isomer_ir::softfloat::NanRule::Canonical,
            tininess: isomer_ir::softfloat::Tininess::After,
            flush_inputs: false,
            flush_outputs: false,
        };
        Self { ram: Box::new(Ram([0; BYTES])), log: Vec::new(), attention: Box::default(), fp }
    }

    fn bytes(&mut self, va: u64, size: u32, what: &str) -> Result<&mut [u8], Fault> {
        let at = va.wrapping_sub(BASE);
        if at > BYTES as u64 - u64::from(size) {
            self.log.push(format!("{what} of {size} at {va:x} faults"));
            return Err(Fault);
        }
        Ok(&mut self.ram.0[at as usize..at as usize + size as usize])
    }
}

// SAFETY: nothing is interpreted with this: the reference engine asks for `resolve` only, which gives addresses in `ram`.
unsafe impl Env for Machine {
    type Cpu = Cpu;

    fn attention(&self) -> &AtomicU32 {
        &self.attention
    }
    fn read_hit(&self, _: u64, _: u64, _: MmuIndex) -> Option<NonNull<u8>> {
        None
    }
    fn write_hit(&self, _: u64, _: u64, _: MmuIndex) -> Option<NonNull<u8>> {
        None
    }
    fn load(&mut self, _: &mut Cpu, va: u64, size: u32, _: MemFlags) -> Result<u64, Fault> {
        let bytes = self.bytes(va, size, "load")?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
    fn store(&mut self, _: &mut Cpu, va: u64, size: u32, value: u64, _: MemFlags) -> Result<(), Fault> {
        let bytes = self.bytes(va, size, "store")?;
        bytes.copy_from_slice(&value.to_le_bytes()[..size as usize]);
        Ok(())
    }
    fn probe_store(&mut self, _: &mut Cpu, va: u64, size: u32, _: MemFlags) -> Result<(), Fault> {
        self.bytes(va, size, "store").map(drop)
    }
    fn resolve(
        &mut self,
        _: &mut Cpu,
        va: u64,
        size: u32,
        _: Access,
        _: MemFlags,
    ) -> Result<HostPlace, Fault> {
        let bytes = self.bytes(va, size, "atomic")?;
        Ok(HostPlace { host: NonNull::from(bytes).cast() })
    }
    fn misaligned(&mut self, _: &mut Cpu, va: u64, access: Access) -> Fault {
        self.log.push(format!("misaligned {access:?} at {va:x}"));
        Fault
    }
    fn call(&mut self, cpu: &mut Cpu, helper: HelperId, args: [u64; 4]) -> Result<u64, Fault> {
        let header = &cpu.header;
        let units = cpu.units.iter().fold(0u64, |sum, unit| sum.rotate_left(5).wrapping_add(*unit));
        let seen = (header.pc, header.insns, header.fp_flags & COMPARED_FLAGS, header.reserve_host);
        self.log.push(format!("call {helper:?} {args:x?} {seen:x?} {:x}", units));
        let hash = args.iter().fold(u64::from(helper.0), |hash, &arg| {
            (hash ^ arg).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        });
        if hash.is_multiple_of(16) {
            return Err(Fault);
        }
        cpu.units[hash as usize / 16 % 64] ^= hash;
        Ok(hash)
    }
    fn lookup_hit(&self, _: u64, _: u32) -> Option<Entry> {
        None
    }
    fn lookup(&mut self, _: &mut Cpu) -> Option<Entry> {
        None
    }
}

// --- compiled code

fn read_mxcsr() -> u32 {
    let mut word = 0u32;
    // SAFETY: stores the register to a variable of ours.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack)) };
    word
}

fn write_mxcsr(word: u32) {
    // SAFETY: exceptions stay masked in every word given here; it is set back before other Rust code computes.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack)) };
}

const DEFAULT_MXCSR: u32 = 0x1f80;

fn enter_fp(header: &CpuHeader) {
    let control = [0, 3, 1, 2, 0, 0][usize::from(header.rounding) % 6];
    write_mxcsr(DEFAULT_MXCSR | control << 13);
}

fn leave_fp(header: &mut CpuHeader) {
    let word = read_mxcsr();
    write_mxcsr(DEFAULT_MXCSR);
    for (from, to) in [(5, 0), (4, 1), (3, 2), (2, 3), (0, 4), (1, 5)] {
        header.fp_flags |= ((word >> from & 1) << to) as u8;
    }
}

fn flags_of(access: Packed) -> MemFlags {
    MemFlags::plain(access.mmu).align(access.align)
}

unsafe extern "C" fn access(cpu: *mut u8, context: *mut Context, va: u64, descriptor: u64) {
    // SAFETY: compiled code passes what it was entered with; the machine outlives the run.
    let (cpu, context) = unsafe { (&mut *cpu.cast::<Cpu>(), &mut *context) };
    // SAFETY: as above.
    let machine = unsafe { &mut *context.env.cast::<Machine>() };
    let access = Packed::unpack(descriptor);
    context.status = u64::from(serve(machine, cpu, context, va, access).is_err());
}

fn serve(
    machine: &mut Machine,
    cpu: &mut Cpu,
    context: &mut Context,
    va: u64,
    access: Packed,
) -> Result<(), Fault> {
    let flags = flags_of(access);
    let why = match access.kind {
        AccessKind::Load | AccessKind::ResolveLoad => Access::Load,
        _ => Access::Store,
    };
    if access.align == Align::Natural && !va.is_multiple_of(access.size.into()) {
        return Err(machine.misaligned(cpu, va, why));
    }
    let size = access.size;
    match access.kind {
        AccessKind::Load => {
            context.values[0] = [0; 2];
            for part in 0..size.div_ceil(8) {
                let at = va.wrapping_add(8 * u64::from(part));
                context.values[0][part as usize] = machine.load(cpu, at, size.min(8), flags)?;
            }
        }
        AccessKind::Store => {
            if size == 16 {
                machine.probe_store(cpu, va, 16, flags)?;
            }
            for part in 0..size.div_ceil(8) {
                let at = va.wrapping_add(8 * u64::from(part));
                machine.store(cpu, at, size.min(8), context.values[0][part as usize], flags)?;
            }
        }
        AccessKind::ResolveLoad | AccessKind::ResolveStore => {
            context.values[0][0] = machine.resolve(cpu, va, size, why, flags)?.name();
        }
    }
    Ok(())
}

unsafe extern "C" fn call(cpu: *mut u8, context: *mut Context, helper: u64, _: u64) {
    // SAFETY: as in `access`.
    let (cpu, context) = unsafe { (&mut *cpu.cast::<Cpu>(), &mut *context) };
    // SAFETY: as in `access`.
    let machine = unsafe { &mut *context.env.cast::<Machine>() };
    leave_fp(&mut cpu.header);
    let args = context.values.map(|[low, _]| low);
    match machine.call(cpu, HelperId(helper as u16), args) {
        Ok(value) => (context.status, context.values[0][0]) = (0, value),
        Err(Fault) => context.status = 1,
    }
    enter_fp(&cpu.header);
}

unsafe extern "C" fn compute(cpu: *mut u8, context: *mut Context, operation: u64, rules: u64) {
    // SAFETY: as in `access`.
    let (cpu, context) = unsafe { (&mut *cpu.cast::<Cpu>(), &mut *context) };
    // SAFETY: as in `access`.
    let machine = unsafe { &*context.env.cast::<Machine>() };
    leave_fp(&mut cpu.header);
    assert_eq!(cold::unpack_rules(rules), machine.fp);
    let op = cold::unpack(operation).expect("a packed operation");
    let operands = context.values.map(|[low, high]| u128::from(low) | u128::from(high) << 64);
    let header = &mut cpu.header;
    let results = eval::compute(&op, &operands, machine.fp, header.rounding, &mut header.fp_flags);
    for (value, result) in context.values.iter_mut().zip(results.expect("computed")) {
        *value = [result as u64, (result >> 64) as u64];
    }
    enter_fp(&cpu.header);
}

/// How a run ended, with everything that can be seen.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Outcome {
    pub(super) end: String,
    pub(super) pc: u64,
    pub(super) insns: u64,
    pub(super) fp: (u8, u8),
    pub(super) reservation: (u64, u64),
    pub(super) units: [u64; UNITS],
    pub(super) ram: Vec<u8>,
    pub(super) log: Vec<String>,
}

/// Both engines on one memory.
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) context: Box<Context>,
    tlb: Vec<TlbEntry>,
    pub(super) jumps: Vec<JumpEntry>,
    pub(super) memory: Arc<CodeMemory>,
    stubs: Stubs,
}

impl Bench {
    pub(super) fn new() -> Self {
        let memory = CodeMemory::new(1 << 20).expect("memory for code");
        let stubs = Stubs::new(&memory, HostFeatures::detect(), [access, call, compute]).expect("stubs");
        let mut machine = Machine::new();
        let invalid = TlbEntry { load: TLB_INVALID, store: TLB_INVALID, fetch: TLB_INVALID, addend: 0 };
        let mut tlb = vec![invalid; TLB_ENTRIES * TABLES];
        let addend = (machine.ram.0.as_mut_ptr().addr() as u64).wrapping_sub(BASE);
        for regime in REGIMES {
            for page in 0..PAGES {
                let va = BASE + page * PAGE;
                let entry = &mut tlb[usize::from(regime) * TLB_ENTRIES + tlb_index(va)];
                entry.addend = addend;
                if matches!(page, 0 | 1 | 3) {
                    entry.load = va;
                }
                if matches!(page, 0 | 1 | 4) {
                    entry.store = va;
                }
            }
        }
        let jumps = vec![JumpEntry::EMPTY; MIN_JUMPS];
        let [access, call, compute] = stubs.rare();
        // SAFETY: numbers and raw pointers only.
        let mut context = Box::new(unsafe { std::mem::zeroed::<Context>() });
        context.attention = &raw const *machine.attention;
        (context.access, context.call, context.compute) = (access, call, compute);
        context.elsewhere = stubs.elsewhere();
        context.hot = [u32::MAX; HOT_COUNTERS];
        Self { machine, context, tlb, jumps, memory, stubs }
    }

    pub(super) fn attention(&self) -> &AtomicU32 {
        &self.machine.attention
    }

    /// Enters compiled code with `left` instructions; the reason, and the engine's count brought up to date.
    pub(super) fn enter(&mut self, code: &CodeSpan, cpu: &mut Cpu, left: i64, pc: u64) -> ExitReason {
        self.context.env = (&raw mut self.machine).cast();
        self.context.tlb = std::array::from_fn(|regime| &raw const self.tlb[regime % TABLES * TLB_ENTRIES]);
        self.context.jumps = self.jumps.as_ptr();
        self.context.jump_mask = jump_mask(self.jumps.len());
        self.context.insns_end = cpu.header.insns.wrapping_add(left as u64);
        enter_fp(&cpu.header);
        // SAFETY: the code keeps the contract of `abi`: that is what is tested; everything it is given lives on.
        let raw = unsafe {
            (self.stubs.enter())(code.address(), (&raw mut *cpu).cast(), &raw mut *self.context, left, pc)
        };
        leave_fp(&mut cpu.header);
        cpu.header.insns = self.context.insns_end.wrapping_sub(self.context.left as u64);
        ExitReason::from_raw(raw)
    }

    fn outcome(&mut self, end: String, cpu: &Cpu) -> Outcome {
        let header = &cpu.header;
        Outcome {
            end,
            pc: header.pc,
            insns: header.insns,
            fp: (header.fp_flags & COMPARED_FLAGS, header.rounding),
            reservation: (header.reserve_host, header.reserve_value),
            units: cpu.units,
            ram: self.machine.ram.0.to_vec(),
            log: std::mem::take(&mut self.machine.log),
        }
    }

    /// What the reference engine makes of a block.
    pub(super) fn reference(&mut self, block: &Block, start: &Cpu, ram: &[u8]) -> Outcome {
        self.machine.ram.0.copy_from_slice(ram);
        let mut cpu = start.clone();
        let entry = cpu.header.pc;
        // SAFETY: the block's slots are those of `Cpu`.
        let end = unsafe { reference::run_block(block, &mut cpu, &mut self.machine) };
        let end = match end {
            End::Leave => "on".to_owned(),
            End::Exit => "exit".to_owned(),
            End::Trap { code, value, insn_offset } => {
                cpu.header.pc = entry.wrapping_add(insn_offset.into());
                format!("trap {code:x} {value:x}")
            }
            End::Fault { insn_offset } => {
                cpu.header.pc = entry.wrapping_add(insn_offset.into());
                "fault".to_owned()
            }
            End::Hot => "hot".to_owned(),
        };
        self.outcome(end, &cpu)
    }

    /// What compiled code makes of it, run once.
    pub(super) fn compiled(&mut self, code: &[u8], block: &Block, start: &Cpu, ram: &[u8]) -> Outcome {
        let span = self.memory.install(code).expect("room");
        self.machine.ram.0.copy_from_slice(ram);
        self.machine.fp = block.fp;
        let mut cpu = start.clone();
        // A block that goes on at its own entry leaves there.
        let left = i64::from(block.insn_count);
        let pc = cpu.header.pc;
        cpu.header.pc = 0xdead;
        let reason = self.enter(&span, &mut cpu, left, pc);
        let end = match reason {
            ExitReason::Leave | ExitReason::Lookup => "on".to_owned(),
            ExitReason::Exit => "exit".to_owned(),
            ExitReason::Trap => format!("trap {:x} {:x}", self.context.trap_code, self.context.trap_value),
            ExitReason::Fault => "fault".to_owned(),
            ExitReason::Hot => "hot".to_owned(),
        };
        self.outcome(end, &cpu)
    }
}
