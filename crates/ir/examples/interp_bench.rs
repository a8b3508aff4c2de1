//! How fast the interpreter runs loops as a RISC-V lifter would emit them, without the rest of the emulator:
//! `cargo run --release -p isomer-ir --example interp_bench [seconds per loop]`.
#![allow(unsafe_code, reason = "is an interpreter environment")]

use isomer_ir::{
    Access, Block, Builder, CpuHeader, CpuState, SlotDesc, Terminal, Type, Value,
    block::LinkHint,
    interp::{self, Code, End, Entry, Env, Fault, HostPlace},
    op::{BinOp, Cond, FmaOp, FpBinOp, FpCond, Op, RmwOp},
    softfloat::{NanRule, Tininess},
    types::{Align, FpFormat, FpModel, HelperId, MemFlags, MmuIndex, Order, Rounding, Slot},
};
use std::{
    collections::HashMap,
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

#[derive(Clone)]
#[repr(C)]
struct Cpu {
    header: CpuHeader,
    x: [u64; 32],
}

// SAFETY: `repr(C)`, header first, integers only.
unsafe impl CpuState for Cpu {
    fn header(&self) -> &CpuHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut CpuHeader {
        &mut self.header
    }
}

const fn slots() -> [SlotDesc; 32] {
    let mut slots = [SlotDesc { name: "x", offset: 0, ty: Type::I64 }; 32];
    let mut i = 0;
    while i < 32 {
        slots[i].offset = 512 + 8 * i as u32;
        i += 1;
    }
    slots
}

static SLOTS: [SlotDesc; 32] = slots();
const MODEL: FpModel =
    FpModel { nan: NanRule::Canonical, tininess: Tininess::After, flush_inputs: false, flush_outputs: false };

/// An entry as an engine's TLB would have it.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct TlbEntry {
    load: u64,
    store: u64,
    fetch: u64,
    addend: u64,
}

#[derive(Clone, Copy)]
struct Jump {
    pc: u64,
    mode: u32,
    entry: Option<Entry>,
}

const PAGE: u64 = 4096;
const RAM: usize = 64 << 10;

struct Machine {
    tlb: Box<[TlbEntry]>,
    jumps: Box<[Jump; 4096]>,
    ram: Box<[u64]>,
    base: u64,
    attention: Arc<AtomicU32>,
    blocks: HashMap<u64, Code>,
}

impl Machine {
    fn new(blocks: HashMap<u64, Code>) -> Self {
        let mut ram = vec![0u64; RAM / 8 + 512].into_boxed_slice();
        let base = (ram.as_mut_ptr().expose_provenance() as u64).next_multiple_of(PAGE);
        let entry = |i: u64| TlbEntry { load: i * PAGE, store: i * PAGE, fetch: 1, addend: base };
        let none = TlbEntry { load: 1, store: 1, fetch: 1, addend: 0 };
        let tlb =
            (0..1024).map(|i| if i % 256 < RAM as u64 / PAGE { entry(i % 256) } else { none }).collect();
        let jumps = Box::new([Jump { pc: 1, mode: 0, entry: None }; 4096]);
        Self { tlb, jumps, ram, base, attention: Arc::default(), blocks }
    }

    #[inline(always)]
    fn entry(&self, va: u64, mmu: MmuIndex) -> &TlbEntry {
        &self.tlb[usize::from(mmu.0) * 256 + (va / PAGE) as usize % 256]
    }
}

// SAFETY: hits lie in `ram`; blocks stay in `blocks`.
unsafe impl Env for Machine {
    type Cpu = Cpu;
    #[inline(always)]
    fn attention(&self) -> &AtomicU32 {
        &self.attention
    }
    #[inline(always)]
    fn read_hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>> {
        let entry = self.entry(va, mmu);
        let host = std::ptr::with_exposed_provenance_mut(va.wrapping_add(entry.addend) as usize);
        if va & (!(PAGE - 1) | (size - 1)) == entry.load { NonNull::new(host) } else { None }
    }
    #[inline(always)]
    fn write_hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>> {
        let entry = self.entry(va, mmu);
        let host = std::ptr::with_exposed_provenance_mut(va.wrapping_add(entry.addend) as usize);
        if va & (!(PAGE - 1) | (size - 1)) == entry.store { NonNull::new(host) } else { None }
    }
    fn load(&mut self, _: &mut Cpu, _: u64, _: u32, _: MemFlags) -> Result<u64, Fault> {
        Err(Fault)
    }
    fn store(&mut self, _: &mut Cpu, _: u64, _: u32, _: u64, _: MemFlags) -> Result<(), Fault> {
        Err(Fault)
    }
    fn probe_store(&mut self, _: &mut Cpu, _: u64, _: u32, _: MemFlags) -> Result<(), Fault> {
        Err(Fault)
    }
    fn resolve(&mut self, _: &mut Cpu, _: u64, _: u32, _: Access, _: MemFlags) -> Result<HostPlace, Fault> {
        Err(Fault)
    }
    fn misaligned(&mut self, _: &mut Cpu, _: u64, _: Access) -> Fault {
        Fault
    }
    fn call(&mut self, _: &mut Cpu, _: HelperId, args: [u64; 4]) -> Result<u64, Fault> {
        Ok(args[0])
    }
    #[inline(always)]
    fn lookup_hit(&self, pc: u64, mode: u32) -> Option<Entry> {
        let jump = &self.jumps[(pc / 2) as usize % 4096];
        if jump.pc == pc && jump.mode == mode { jump.entry } else { None }
    }
    fn lookup(&mut self, cpu: &mut Cpu) -> Option<Entry> {
        let (pc, mode) = (cpu.header.pc, cpu.header.mode);
        let entry = Some(self.blocks.get(&pc)?.entry());
        self.jumps[(pc / 2) as usize % 4096] = Jump { pc, mode, entry };
        entry
    }
}

/// Emits blocks instruction by instruction, as a lifter would.
struct Lifter {
    b: Builder,
}

impl Lifter {
    fn block(f: impl FnOnce(&mut Self)) -> Block {
        let mut lifter = Self { b: Builder::new(&SLOTS, 0, MODEL) };
        f(&mut lifter);
        lifter.b.finish()
    }
    fn insn(&mut self) -> &mut Builder {
        self.b.insn_start(self.b.len(), 4);
        &mut self.b
    }
    fn rr(&mut self, op: BinOp, d: u16, a: u16, b: u16) {
        let builder = self.insn();
        let (a, b) = (builder.get(Slot(a)), builder.get(Slot(b)));
        let value = builder.bin(op, a, b);
        builder.set(Slot(d), value);
    }
    fn ri(&mut self, op: BinOp, d: u16, a: u16, imm: i64) {
        let builder = self.insn();
        let a = builder.get(Slot(a));
        let value = builder.bin_imm(op, a, imm as u64);
        builder.set(Slot(d), value);
    }
    fn rrw(&mut self, op: BinOp, d: u16, a: u16, b: u16) {
        let builder = self.insn();
        let (a, b) = (builder.get(Slot(a)), builder.get(Slot(b)));
        let (a, b) = (builder.trunc(Type::I32, a), builder.trunc(Type::I32, b));
        let value = builder.bin(op, a, b);
        let value = builder.sext(Type::I64, value);
        builder.set(Slot(d), value);
    }
    fn addr(&mut self, base: u16, disp: i64) -> Value {
        let builder = self.insn();
        let base = builder.get(Slot(base));
        builder.bin_imm(BinOp::Add, base, disp as u64)
    }
    fn load(&mut self, mem: Type, signed: bool, d: u16, base: u16, disp: i64) {
        let addr = self.addr(base, disp);
        let value = self.b.load(Type::I64, mem, signed, addr, MemFlags::plain(MmuIndex(1)));
        self.b.set(Slot(d), value);
    }
    fn store(&mut self, mem: Type, s: u16, base: u16, disp: i64) {
        let addr = self.addr(base, disp);
        let value = self.b.get(Slot(s));
        self.b.store(mem, addr, value, MemFlags::plain(MmuIndex(1)));
    }
    fn branch(&mut self, cond: Cond, a: u16, b: u16, taken: i64) {
        let builder = self.insn();
        let a = builder.get(Slot(a));
        let b = if b == 0 { builder.iconst(Type::I64, 0) } else { builder.get(Slot(b)) };
        let c = builder.compare(cond, a, b);
        let not_taken = i64::from(builder.len());
        builder.end(Terminal::Branch { c, taken, not_taken });
    }
    fn jump(&mut self, offset: i64) {
        self.insn().end(Terminal::Jump { offset, hint: LinkHint::None });
    }
}

const CODE: u64 = 0x10_0000;

fn alu() -> Vec<(u64, Block)> {
    let body = Lifter::block(|l| {
        l.rr(BinOp::Add, 10, 10, 11);
        l.rr(BinOp::Xor, 11, 11, 10);
        l.ri(BinOp::Shl, 12, 10, 3);
        l.rr(BinOp::Sub, 13, 12, 11);
        l.ri(BinOp::And, 14, 13, 255);
        l.rrw(BinOp::Add, 15, 15, 14);
        l.ri(BinOp::ShrU, 16, 15, 2);
        l.ri(BinOp::Add, 5, 5, -1);
        l.branch(Cond::Ne, 5, 0, 0);
    });
    vec![(0, body)]
}

/// Adds two arrays of words.
fn memory() -> Vec<(u64, Block)> {
    let body = Lifter::block(|l| {
        l.load(Type::I32, true, 10, 5, 0);
        l.load(Type::I64, false, 11, 5, 4096);
        l.rrw(BinOp::Add, 10, 10, 11);
        l.store(Type::I64, 10, 5, 8192);
        l.store(Type::I8, 11, 5, 12288);
        l.ri(BinOp::Add, 5, 5, 8);
        l.ri(BinOp::And, 5, 5, 4095);
        l.branch(Cond::Ne, 9, 0, 0);
    });
    vec![(0, body)]
}

/// The Collatz iteration, from another number each time round.
fn branches() -> Vec<(u64, Block)> {
    let (head, odd, even, next, again) = (0, 8, 24, 32, 40);
    let block = |at: i64, f: &dyn Fn(&mut Lifter)| (at as u64, Lifter::block(f));
    vec![
        block(head, &|l| {
            l.ri(BinOp::And, 11, 10, 1);
            l.branch(Cond::Eq, 11, 0, even - head);
        }),
        block(odd, &|l| {
            l.ri(BinOp::Shl, 12, 10, 1);
            l.rr(BinOp::Add, 10, 10, 12);
            l.ri(BinOp::Add, 10, 10, 1);
            l.jump(next - odd);
        }),
        block(even, &|l| {
            l.ri(BinOp::ShrU, 10, 10, 1);
            l.jump(next - even);
        }),
        block(next, &|l| {
            l.ri(BinOp::Add, 13, 10, -1);
            l.branch(Cond::Ne, 13, 0, head - next);
        }),
        block(again, &|l| {
            l.ri(BinOp::Add, 14, 14, 1);
            l.ri(BinOp::And, 14, 14, 0x3ff);
            l.ri(BinOp::Add, 10, 14, 27);
            l.jump(head - again);
        }),
    ]
}

/// A call to another page and a return, each time round.
fn calls() -> Vec<(u64, Block)> {
    let body = Lifter::block(|l| {
        l.ri(BinOp::Add, 10, 10, 1);
        let b = l.insn();
        let link = b.pc_rel(8);
        b.set(Slot(1), link);
        b.end(Terminal::Jump { offset: 0x2000, hint: LinkHint::Call { return_offset: 8 } });
    });
    let callee = Lifter::block(|l| {
        l.rr(BinOp::Add, 11, 11, 10);
        let b = l.insn();
        let pc = b.get(Slot(1));
        let mask = b.iconst(Type::I64, !1);
        let pc = b.push(Op::Binary { op: BinOp::And, ty: Type::I64, a: pc, b: mask });
        b.end(Terminal::Indirect { pc, hint: LinkHint::Return });
    });
    let back = Lifter::block(|l| {
        l.rr(BinOp::Xor, 12, 12, 11);
        l.branch(Cond::Ne, 10, 0, -8);
    });
    vec![(0, body), (0x2000, callee), (8, back)]
}

/// A matrix product's inner loop, and some of what surrounds such loops.
fn floats() -> Vec<(u64, Block)> {
    let body = Lifter::block(|l| {
        let (fmt, rounding) = (FpFormat::F64, Rounding::Dynamic);
        l.load(Type::I64, false, 20, 5, 0);
        l.load(Type::I64, false, 21, 5, 4096);
        let b = l.insn();
        let [x, y, z] = [20, 21, 22].map(|n| b.get(Slot(n)));
        let sum = b.fp_fma(FmaOp::MulAdd, fmt, rounding, [x, y, z]);
        b.set(Slot(22), sum);
        let b = l.insn();
        let [x, y] = [20, 21].map(|n| b.get(Slot(n)));
        let sum = b.fp_bin(FpBinOp::Add, fmt, rounding, x, y);
        b.set(Slot(23), sum);
        let b = l.insn();
        let [x, y] = [23, 21].map(|n| b.get(Slot(n)));
        let product = b.fp_bin(FpBinOp::Mul, fmt, rounding, x, y);
        b.set(Slot(24), product);
        let b = l.insn();
        let [x, y] = [23, 24].map(|n| b.get(Slot(n)));
        let less = b.fp_compare(FpCond::Lt, fmt, true, x, y);
        let less = b.zext(Type::I64, less);
        b.set(Slot(12), less);
        l.ri(BinOp::Add, 5, 5, 8);
        l.ri(BinOp::And, 5, 5, 4095);
        l.branch(Cond::Ne, 9, 0, 0);
    });
    vec![(0, body)]
}

/// A counter behind a lock, and a helper.
fn atomics() -> Vec<(u64, Block)> {
    let body = Lifter::block(|l| {
        let flags = MemFlags::plain(MmuIndex(1)).align(Align::Natural).order(Order::AcqRel);
        let b = l.insn();
        let (addr, one) = (b.get(Slot(5)), b.iconst(Type::I32, 1));
        let old = b.rmw(RmwOp::Add, addr, one, flags);
        let old = b.sext(Type::I64, old);
        b.set(Slot(10), old);
        l.ri(BinOp::Add, 11, 10, 1);
        let b = l.insn();
        let arg = b.get(Slot(11));
        let result = b.call(HelperId(0), &[arg], Type::I64);
        b.set(Slot(12), result);
        l.branch(Cond::Ne, 9, 0, 0);
    });
    vec![(0, body)]
}

fn measure(name: &str, blocks: Vec<(u64, Block)>, time: Duration) {
    let compiled = blocks.iter().map(|(offset, block)| {
        let code = Code::compile(block).expect("the loop fits");
        (CODE + offset, code)
    });
    let mut machine = Machine::new(compiled.collect());
    let mut cpu = Cpu { header: CpuHeader { pc: CODE, ..CpuHeader::default() }, x: [0; 32] };
    (cpu.x[9], cpu.x[10]) = (1, 27);
    for i in 0..RAM as u64 / 8 {
        machine.ram[(machine.base - machine.ram.as_ptr().addr() as u64 + i * 8) as usize / 8] =
            (1.0 + 1.0 / (i + 3) as f64).to_bits();
    }
    // As after the first inexact operation.
    cpu.header.fp_flags = 1;
    // The best of many short runs: whatever else the host does only slows them.
    let (start, mut best) = (Instant::now(), 0f64);
    while start.elapsed() < time {
        let entry: *const Code = &machine.blocks[&cpu.header.pc];
        let (before, insns) = (Instant::now(), cpu.header.insns);
        // SAFETY: blocks are never dropped, and compiled for this CPU.
        let end = unsafe { interp::run(&*entry, &mut cpu, &mut machine, 1_000_000) };
        assert_eq!(end, End::Leave, "at {:#x}", cpu.header.pc);
        let mips = (cpu.header.insns - insns) as f64 / before.elapsed().as_secs_f64() / 1e6;
        best = best.max(mips);
    }
    println!("{name:10} {best:8.1} MIPS   (x10 = {:#x})", cpu.x[10]);
}

/// Compile speed, in instructions.
fn measure_compile(time: Duration) {
    let blocks: Vec<_> = [alu(), memory(), branches(), calls()].concat();
    let insns: u32 = blocks.iter().map(|(_, block)| block.insn_count).sum();
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < time {
        let before = Instant::now();
        for _ in 0..20 {
            blocks.iter().for_each(|(_, block)| assert!(Code::compile(block).is_ok()));
        }
        best = best.min(before.elapsed().as_nanos() as f64 / f64::from(20 * insns));
    }
    println!("compile    {best:8.1} ns per instruction, {} blocks of {insns} instructions", blocks.len());
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds);
    measure("alu", alu(), time);
    measure("memory", memory(), time);
    measure("branches", branches(), time);
    measure("calls", calls(), time);
    measure("floats", floats(), time);
    measure("atomics", atomics(), time);
    measure_compile(time);
}
