//! Base instructions against what other programs make of them: execution as recorded from QEMU's user mode, assembly as
//! recorded from GNU objdump.
#![allow(unsafe_code, reason = "the test's memory is handed to the interpreter by address")]

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
use std::{ptr::NonNull, sync::atomic::AtomicU32};

/// Where the recorded instructions were, and where the branches among them go.
const BODY: u64 = 0x1000_1000;
const TAKEN: u64 = BODY + 0x40;
/// The memory that they could access.
const WINDOW: u64 = 0x2000_0000;
const SIZE: u64 = 0x2_0000;

/// The generator of inputs (SplitMix64's finalizer).
const fn mix(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// What register `n` holds at first unless a record says otherwise.
const fn input(seed: u64, n: u64) -> u64 {
    let x = mix(seed << 32 | n);
    match x >> 60 {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << (x & 63),
        3 => x & 0xffff_ffff,
        4 => x as i8 as u64,
        5 => 1 << 63,
        6 => 0x8000_0000,
        _ => x,
    }
}

/// A CPU that has every feature the tables know.
fn everything() -> Aarch64 {
    let mut guest = Aarch64::max();
    guest.features = Features::all();
    guest
}

/// The window's memory, and nothing else.
struct Memory {
    words: Vec<u128>,
    guest: Aarch64,
    attention: AtomicU32,
    trap: Option<Trap>,
}

impl Memory {
    fn new(guest: Aarch64) -> Self {
        let word = |at: u64| u128::from(mix(at)) | u128::from(mix(at + 8)) << 64;
        let words = (WINDOW..WINDOW + SIZE).step_by(16).map(word).collect();
        Self { words, guest, attention: AtomicU32::new(0), trap: None }
    }

    fn host(&self, va: u64, size: u64) -> Option<NonNull<u8>> {
        let offset = va.checked_sub(WINDOW).filter(|offset| offset + size <= SIZE)?;
        NonNull::new(self.words.as_ptr().cast::<u8>().wrapping_add(offset as usize).cast_mut())
    }

    fn place(&mut self, va: u64, size: u32, access: Access) -> Result<NonNull<u8>, Fault> {
        self.host(va, u64::from(size)).ok_or_else(|| {
            self.trap = Some(self.guest.bus_error(Gva(va), access));
            Fault
        })
    }

    /// Words that are not what they were at first, with their addresses.
    fn changes(&self) -> Vec<(u64, u64)> {
        let halves = self.words.iter().flat_map(|&word| [word as u64, (word >> 64) as u64]);
        let now = (WINDOW..).step_by(8).zip(halves);
        now.filter(|&(at, value)| mix(at) != value).collect()
    }
}

// SAFETY: places lie in `words`, which is aligned to 16 bytes and never moves; no block outlives its run.
unsafe impl Env for Memory {
    type Cpu = Cpu;

    fn attention(&self) -> &AtomicU32 {
        &self.attention
    }
    fn read_hit(&self, va: u64, size: u64, _: MmuIndex) -> Option<NonNull<u8>> {
        self.host(va, size).filter(|_| va.is_multiple_of(size))
    }
    fn write_hit(&self, va: u64, size: u64, _: MmuIndex) -> Option<NonNull<u8>> {
        self.host(va, size).filter(|_| va.is_multiple_of(size))
    }
    fn load(&mut self, _: &mut Cpu, va: u64, size: u32, _: MemFlags) -> Result<u64, Fault> {
        let from = self.place(va, size, Access::Load)?;
        let mut bytes = [0; 8];
        // SAFETY: `place` gives `size` bytes inside `words`.
        unsafe { from.as_ptr().copy_to(bytes.as_mut_ptr(), size as usize) };
        Ok(u64::from_le_bytes(bytes))
    }
    fn store(&mut self, _: &mut Cpu, va: u64, size: u32, value: u64, _: MemFlags) -> Result<(), Fault> {
        let to = self.place(va, size, Access::Store)?;
        // SAFETY: as in `load`.
        unsafe { to.as_ptr().copy_from(value.to_le_bytes().as_ptr(), size as usize) };
        Ok(())
    }
    fn probe_store(&mut self, _: &mut Cpu, va: u64, size: u32, _: MemFlags) -> Result<(), Fault> {
        self.place(va, size, Access::Store).map(|_| ())
    }
    fn resolve(
        &mut self,
        _: &mut Cpu,
        va: u64,
        size: u32,
        access: Access,
        _: MemFlags,
    ) -> Result<HostPlace, Fault> {
        self.place(va, size, access).map(|host| HostPlace { host })
    }
    fn misaligned(&mut self, _: &mut Cpu, va: u64, access: Access) -> Fault {
        self.trap = Some(self.guest.misaligned(Gva(va), access));
        Fault
    }
    fn call(&mut self, cpu: &mut Cpu, helper: HelperId, args: [u64; 4]) -> Result<u64, Fault> {
        let mut context = HelperCx { guest: &self.guest, cpu, env: &mut Nothing };
        (Aarch64::HELPERS[usize::from(helper.0)].run)(&mut context, args).map_err(|trap| {
            self.trap = Some(trap);
            Fault
        })
    }
    fn lookup_hit(&self, _: u64, _: u32) -> Option<Entry> {
        None
    }
    fn lookup(&mut self, _: &mut Cpu) -> Option<Entry> {
        None
    }
}

/// Helpers of base instructions ask nothing of the engine.
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

/// How a recorded sequence came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Outcome {
    #[default]
    Fell,
    Taken,
    Undefined,
    Fault,
}

/// Registers and memory before or after: what a record names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct State {
    x: [u64; 31],
    sp: u64,
    nzcv: u64,
    memory: Vec<(u64, u64)>,
    outcome: Outcome,
}

impl State {
    /// Changes what `name=value` says.
    fn set(&mut self, field: &str) {
        let Some((name, value)) = field.split_once('=') else {
            self.outcome = match field {
                "taken" => Outcome::Taken,
                "undefined" => Outcome::Undefined,
                _ => Outcome::Fault,
            };
            return;
        };
        let value = u64::from_str_radix(value, 16).expect("a number");
        match (name, name.strip_prefix('x')) {
            (_, Some(n)) => self.x[n.parse::<usize>().expect("a register")] = value,
            ("sp", _) => self.sp = value,
            ("nzcv", _) => self.nzcv = value,
            ("seed", _) => self.x = std::array::from_fn(|n| input(value, n as u64)),
            _ => self.memory.push((u64::from_str_radix(name, 16).expect("an address"), value)),
        }
    }

    fn cpu(&self) -> Cpu {
        let mut cpu = Cpu { x: self.x, sp: self.sp, ..Cpu::default() };
        cpu.nzcv = std::array::from_fn(|bit| self.nzcv >> (3 - bit) & 1);
        cpu.el = 0;
        cpu.header.pc = BODY;
        // Both halves of 48-bit addresses; the lower one's top byte is ignored, as Linux has it.
        cpu.sys.tcr[1] = 16 | 16 << 16 | 1 << 37;
        cpu
    }
}

/// Runs a sequence at EL0 until it leaves.
fn run(code: &[u32], before: &State, interpret: bool) -> State {
    let mut memory = Memory::new(everything());
    let mut cpu = before.cpu();
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let end = BODY + bytes.len() as u64;
    let mut outcome = Outcome::Fault;
    while (BODY..end).contains(&cpu.header.pc) {
        let at = (cpu.header.pc - BODY) as usize;
        let mut block =
            lift_block(&memory.guest, cpu.header.mode, &bytes[at..], 16).expect("whole instructions");
        verify(&block).expect("a valid block");
        // SAFETY: the block is for this CPU, and the code lives until the run is over.
        let stopped = unsafe {
            if interpret {
                passes::optimize_for::<Aarch64>(&mut block);
                let code = Code::compile(&block).expect("a simple block");
                interp::run(&code, &mut cpu, &mut memory, 1)
            } else {
                reference::run_block(&block, &mut cpu, &mut memory)
            }
        };
        match stopped {
            End::Leave | End::Exit | End::Hot => {}
            End::Trap { code, value, .. } => memory.trap = Some(memory.guest.trap(code, value)),
            End::Fault { .. } => {}
        }
        if let Some(trap) = memory.trap {
            outcome = if trap == Trap::undefined() { Outcome::Undefined } else { Outcome::Fault };
            break;
        }
        match cpu.header.pc {
            TAKEN => outcome = Outcome::Taken,
            pc if pc == end => outcome = Outcome::Fell,
            _ => {}
        }
    }
    let nzcv = cpu.nzcv.iter().fold(0, |nzcv, &bit| nzcv << 1 | bit);
    State { x: cpu.x, sp: cpu.sp, nzcv, memory: memory.changes(), outcome }
}

/// Lines that are no comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn compare_with_qemu(interpret: bool) {
    let mut records = 0;
    for line in lines(include_str!("integer-qemu.txt")) {
        let (given, expected) = line.split_once(" ->").expect("two sides");
        let (words, given) = given.split_once(' ').expect("inputs");
        let code: Vec<u32> =
            words.split(',').map(|word| u32::from_str_radix(word, 16).expect("an encoding")).collect();
        let mut before = State::default();
        given.split_whitespace().for_each(|field| before.set(field));
        let mut after = before.clone();
        expected.split_whitespace().for_each(|field| after.set(field));
        assert_eq!(run(&code, &before, interpret), after, "{line}");
        records += 1;
    }
    assert!(records > 800, "only {records} records");
}

#[test]
fn the_reference_agrees_with_qemu() {
    compare_with_qemu(false);
}

#[test]
fn the_interpreter_agrees_with_qemu() {
    compare_with_qemu(true);
}

/// FEAT_CSSC and FEAT_LRCPC3, which that QEMU has not: by the manual.
#[test]
fn newer_instructions_do_what_the_manual_says() {
    let at = WINDOW + 0x40;
    let given = State { x: std::array::from_fn(|n| n as u64), ..State::default() };
    let check = |insn: u32, x: &[(usize, u64)], changed: &[(usize, u64)], memory: &[(u64, u64)]| {
        let mut before = given.clone();
        x.iter().for_each(|&(n, value)| before.x[n] = value);
        let mut after = State { memory: memory.to_vec(), ..before.clone() };
        changed.iter().for_each(|&(n, value)| after.x[n] = value);
        for interpret in [false, true] {
            assert_eq!(run(&[insn], &before, interpret), after, "{insn:08x}");
        }
    };
    let minimum = 1 << 63;
    check(0xdac0_2020, &[(1, -5i64 as u64)], &[(0, 5)], &[]); // abs x0, x1
    check(0xdac0_2020, &[(1, minimum)], &[(0, minimum)], &[]);
    check(0x5ac0_2020, &[(1, 0xffff_fff0)], &[(0, 16)], &[]); // abs w0, w1
    check(0xdac0_1c20, &[(1, 0xff00_0000_0000_0001)], &[(0, 9)], &[]); // cnt x0, x1
    check(0x5ac0_1820, &[(1, 1 << 40)], &[(0, 32)], &[]); // ctz w0, w1
    check(0x9ac2_6020, &[(1, u64::MAX), (2, 1)], &[(0, 1)], &[]); // smax x0, x1, x2
    check(0x9ac2_6420, &[(1, u64::MAX), (2, 1)], &[(0, u64::MAX)], &[]); // umax x0, x1, x2
    check(0x91cb_fc20, &[(1, 7)], &[(0, u64::MAX)], &[]); // smin x0, x1, #-1
    check(0x11c7_2020, &[(1, 7)], &[(0, 200)], &[]); // umax w0, w1, #200
    // ldiapp x0, x1, [x2], #16; stilp x0, x1, [x2, #-16]!; ldapr x0, [x2], #8; stlr w0, [x2, #-4]!
    check(0xd941_0840, &[(2, at)], &[(0, mix(at)), (1, mix(at + 8)), (2, at + 16)], &[]);
    check(0xd901_0840, &[(2, at + 16)], &[(2, at)], &[(at, 0), (at + 8, 1)]);
    check(0xd9c0_0840, &[(2, at)], &[(0, mix(at)), (2, at + 8)], &[]);
    check(0x9980_0840, &[(0, 0), (2, at + 4)], &[(0, 0), (2, at)], &[(at, mix(at) & !0xffff_ffff)]);
}

#[test]
fn assembly_is_objdumps() {
    let guest = everything();
    let mut compared = 0;
    for (number, line) in lines(include_str!("integer-objdump.txt")).enumerate() {
        let (word, expected) = line.split_once(' ').expect("an encoding and its text");
        let word = u32::from_str_radix(word, 16).expect("an encoding");
        let text = guest.disassemble(&word.to_le_bytes(), 4 * number as u64).0;
        assert_eq!(text, expected, "{word:08x}");
        compared += 1;
    }
    assert!(compared > 1000, "only {compared} lines");
}
