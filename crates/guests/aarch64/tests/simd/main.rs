//! Floating-point, SIMD and cryptographic instructions against what other programs make of them: execution as recorded from
//! QEMU's user mode, assembly as recorded from GNU objdump.
#![allow(unsafe_code, reason = "blocks are handed to the interpreter")]

mod inputs;

use inputs::WINDOW;
use isomer_aarch64::{Aarch64, Cpu, Features, Trap};
use isomer_core::{Gpa, Gva};
use isomer_ir::{
    Access, Guest, HelperCx, MmuIndex,
    guest::{HelperEnv, TlbFlush, lift_block},
    interp::{self, Code, End, Entry, Env, Fault, HostPlace},
    passes, reference,
    types::{HelperId, MemFlags},
    verify::verify,
};
use std::{
    ptr::NonNull,
    sync::{LazyLock, atomic::AtomicU32},
};

/// Where the recorded instructions were.
const PC: u64 = 0x2000_0000;
/// FPCR.FZ.
const FZ: u32 = 1 << 24;

static FRESH: LazyLock<Vec<u8>> =
    LazyLock::new(|| inputs::memory().iter().flat_map(|word| word.to_le_bytes()).collect());

/// The window's memory and nothing else.
struct Memory {
    guest: Aarch64,
    bytes: Vec<u8>,
    attention: AtomicU32,
}

impl Memory {
    fn new() -> Self {
        Self { guest: everything(), bytes: FRESH.clone(), attention: AtomicU32::new(0) }
    }

    fn at(&mut self, va: u64, size: u32) -> Result<&mut [u8], Fault> {
        let from = va.wrapping_sub(WINDOW) as usize;
        self.bytes.get_mut(from..from.wrapping_add(size as usize)).ok_or(Fault)
    }

    /// Doublewords that are not what they were, with their addresses.
    fn changes(&self) -> Vec<(u64, u64)> {
        let words = self.bytes.chunks_exact(8).zip(FRESH.chunks_exact(8));
        let changed = (WINDOW..).step_by(8).zip(words).filter(|(_, (now, before))| now != before);
        changed.map(|(at, (now, _))| (at, now.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))).collect()
    }
}

fn everything() -> Aarch64 {
    let mut guest = Aarch64::max();
    guest.features = Features::all();
    guest
}

// SAFETY: no host address is ever handed out, and no block outlives its run.
unsafe impl Env for Memory {
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
        Ok(self.at(va, size)?.iter().rev().fold(0, |v, byte| v << 8 | u64::from(*byte)))
    }
    fn store(&mut self, _: &mut Cpu, va: u64, size: u32, value: u64, _: MemFlags) -> Result<(), Fault> {
        self.at(va, size)?.copy_from_slice(&value.to_le_bytes()[..size as usize]);
        Ok(())
    }
    fn probe_store(&mut self, _: &mut Cpu, va: u64, size: u32, _: MemFlags) -> Result<(), Fault> {
        self.at(va, size).map(|_| ())
    }
    fn resolve(&mut self, _: &mut Cpu, _: u64, _: u32, _: Access, _: MemFlags) -> Result<HostPlace, Fault> {
        Err(Fault)
    }
    fn misaligned(&mut self, _: &mut Cpu, _: u64, _: Access) -> Fault {
        Fault
    }
    fn call(&mut self, cpu: &mut Cpu, helper: HelperId, args: [u64; 4]) -> Result<u64, Fault> {
        let mut context = HelperCx { guest: &self.guest, cpu, env: &mut Nothing };
        (Aarch64::HELPERS[usize::from(helper.0)].run)(&mut context, args).map_err(|_| Fault)
    }
    fn lookup_hit(&self, _: u64, _: u32) -> Option<Entry> {
        None
    }
    fn lookup(&mut self, _: &mut Cpu) -> Option<Entry> {
        None
    }
}

/// Helpers of these instructions ask nothing of the engine.
struct Nothing;

impl HelperEnv<Aarch64> for Nothing {
    fn now_ns(&self) -> u64 {
        0
    }
    fn lines(&self) -> u64 {
        0
    }
    fn entropy(&mut self) -> u64 {
        0
    }
    fn load(&mut self, _: &Aarch64, _: &mut Cpu, _: Gva, _: usize, _: MmuIndex) -> Result<u64, Trap> {
        Err(Trap::undefined())
    }
    fn store(&mut self, _: &Aarch64, _: &mut Cpu, _: Gva, _: usize, _: MmuIndex, _: u64) -> Result<(), Trap> {
        Err(Trap::undefined())
    }
    fn translate(&mut self, _: &Aarch64, _: &mut Cpu, _: Gva, _: Access, _: MmuIndex) -> Result<Gpa, Trap> {
        Err(Trap::undefined())
    }
    fn flush_tlb(&mut self, _: TlbFlush) {}
    fn set_address_space(&mut self, _: u64) {}
    fn sync_code(&mut self) {}
    fn reconsider(&mut self) {}
    fn wait_for_interrupt(&mut self) {}
}

/// What a record is about.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    x: [u64; 31],
    v: [u128; 32],
    nzcv: u64,
    fpsr: u64,
    memory: Vec<(u64, u64)>,
}

impl State {
    fn new(seed: u64, memory: bool) -> Self {
        Self {
            x: std::array::from_fn(|n| inputs::general(seed, n as u64, memory)),
            v: std::array::from_fn(|n| inputs::vector(seed, n as u64)),
            nzcv: seed & 15,
            fpsr: 0,
            memory: Vec::new(),
        }
    }

    /// Changes what `name=value` says.
    fn set(&mut self, field: &str) {
        let (name, value) = field.split_once('=').expect("a name and a value");
        let value = u128::from_str_radix(value, 16).expect("a number");
        match (name, name.strip_prefix('x'), name.strip_prefix('v')) {
            (_, Some(n), _) => self.x[n.parse::<usize>().expect("a register")] = value as u64,
            (_, _, Some(n)) => self.v[n.parse::<usize>().expect("a register")] = value,
            ("nzcv", ..) => self.nzcv = value as u64,
            ("fpsr", ..) => self.fpsr = value as u64,
            _ => self.memory.push((u64::from_str_radix(name, 16).expect("an address"), value as u64)),
        }
    }

    fn cpu(&self, fpcr: u32) -> Cpu {
        let mut cpu = Cpu { x: self.x, fpcr, ..Cpu::default() };
        cpu.v = self.v.map(|v| [v as u64, (v >> 64) as u64]);
        cpu.nzcv = std::array::from_fn(|bit| self.nzcv >> (3 - bit) & 1);
        cpu.el = 1;
        // Floating point is enabled, and so is the MMU: without it memory is Device, which must be aligned.
        cpu.sys.cpacr = 3 << 20;
        cpu.sys.sctlr[1] = 1;
        cpu.header.pc = PC;
        cpu.update_mode();
        cpu
    }
}

/// FPSR, as `mrs` gives it.
fn fpsr(cpu: &Cpu) -> u64 {
    // The header's flags are NX, UF, OF, DZ, NV, denormal; FPSR's IOC, DZC, OFC, UFC, IXC and, seven up, IDC.
    let flag = |bit: u32| u64::from(cpu.header.fp_flags >> bit & 1);
    let idc = if cpu.fpcr & FZ != 0 { flag(5) } else { 0 };
    (0..5).fold(0, |v, bit| v | flag(4 - bit) << bit) | idc << 7 | u64::from(cpu.qc) << 27
}

/// Executes one instruction.
fn run(insn: u32, fpcr: u32, before: &State, interpret: bool) -> State {
    let mut memory = Memory::new();
    let mut cpu = before.cpu(fpcr);
    let mut block =
        lift_block(&memory.guest, cpu.header.mode, &insn.to_le_bytes(), 1).expect("a whole instruction");
    verify(&block).expect("a valid block");
    // SAFETY: the block is for this CPU, and the code lives until the run is over.
    let end = unsafe {
        if interpret {
            passes::optimize_for::<Aarch64>(&mut block);
            let code = Code::compile(&block).expect("a simple block");
            interp::run(&code, &mut cpu, &mut memory, 1)
        } else {
            reference::run_block(&block, &mut cpu, &mut memory)
        }
    };
    assert!(!matches!(end, End::Trap { .. } | End::Fault { .. }), "{insn:08x}: {end:?}");
    State {
        x: cpu.x,
        v: cpu.v.map(|[low, high]| u128::from(low) | u128::from(high) << 64),
        nzcv: cpu.nzcv.iter().fold(0, |nzcv, &bit| nzcv << 1 | bit),
        fpsr: fpsr(&cpu),
        memory: memory.changes(),
    }
}

/// Lines that are no comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn hex(text: Option<&str>) -> u64 {
    u64::from_str_radix(text.expect("a field"), 16).expect("a number")
}

fn compare_with_qemu(interpret: bool) {
    let mut records = 0;
    for line in lines(include_str!("qemu.txt")) {
        let (given, expected) = line.split_once(" ->").expect("two sides");
        let mut given = given.split(' ');
        let (insn, fpcr, seed) = (hex(given.next()) as u32, hex(given.next()) as u32, hex(given.next()));
        let rest: Vec<&str> = given.collect();
        let mut before = State::new(seed, !rest.is_empty());
        rest.iter().for_each(|field| before.set(field));
        let mut after = before.clone();
        expected.split_whitespace().for_each(|field| after.set(field));
        assert_eq!(run(insn, fpcr, &before, interpret), after, "{line}");
        records += 1;
    }
    assert!(records > 1500, "only {records} records");
}

#[test]
fn the_reference_agrees_with_qemu() {
    compare_with_qemu(false);
}

#[test]
fn the_interpreter_agrees_with_qemu() {
    compare_with_qemu(true);
}

#[test]
fn assembly_is_objdumps() {
    let guest = everything();
    let mut compared = 0;
    for (number, line) in lines(include_str!("objdump.txt")).enumerate() {
        let (word, expected) = line.split_once(' ').expect("an encoding and its text");
        let word = u32::from_str_radix(word, 16).expect("an encoding");
        assert_eq!(guest.disassemble(&word.to_le_bytes(), 4 * number as u64).0, expected, "{word:08x}");
        compared += 1;
    }
    assert!(compared > 1500, "only {compared} lines");
}

/// Guest code is hostile: whatever the encoding and the operands, helpers come to an end without a panic.
#[test]
fn any_encoding_runs() {
    let mut memory = Memory::new();
    let mut insn = 1u32;
    let mut executed = 0;
    for seed in 0..40_000 {
        insn = insn.wrapping_mul(0x915f_77f5).wrapping_add(0x1234_5677);
        // Data processing, scalar floating-point and Advanced SIMD.
        let word = (insn ^ insn >> 15) & !(7 << 25) | 7 << 25;
        let state = State::new(seed, false);
        let mut cpu = state.cpu(insn.rotate_left(11));
        let mode = cpu.header.mode;
        let block = lift_block(&memory.guest, mode, &word.to_le_bytes(), 1).expect("a whole instruction");
        verify(&block).unwrap_or_else(|e| panic!("{word:08x}: {e}"));
        // SAFETY: the block is for this CPU.
        let end = unsafe { reference::run_block(&block, &mut cpu, &mut memory) };
        executed += u32::from(!matches!(end, End::Trap { .. } | End::Fault { .. }));
    }
    assert!(executed > 4_000, "only {executed} were allocated");
}
