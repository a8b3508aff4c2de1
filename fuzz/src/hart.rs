//! A riscv64 hart with a little RAM and, if wanted, devices, that runs whatever the input says from a state the input
//! chooses, and never longer than it is told to.
//!
//! RAM from [`RAM`]: trap handlers that step over the trapping instruction, at 0 (M) and 0x40 (S); a prologue that
//! writes CSRs and enters the code with `mret`, at 0x100; its values, at 0x800; the code, from 0x1e00, repeated up to
//! 0x2200 and in a loop; page tables that map everything onto itself, for S-mode at 0x10000 and for U-mode at 0x11000.

pub mod programs;
pub(crate) mod watchdog;

use crate::input::Input;
use isomer_core::{Bus, Clock, Device, Gpa, GuestMemory, Timers};
use isomer_engine::{EngineKind, Exit, Firmware, Group, Jit, SoftVcpu, Trace, VcpuConfig};
use isomer_riscv64::{Cpu, Riscv64};
use std::sync::{Arc, Mutex};

/// Start of RAM.
pub const RAM: u64 = 0x8000_0000;
/// Bytes of RAM.
pub const RAM_BYTES: u64 = 128 << 10;
const S_HANDLER: u64 = RAM + 0x40;
const PROLOGUE: u64 = RAM + 0x100;
const VALUES: u64 = RAM + 0x800;
const CODE: u64 = RAM + 0x1e00;
/// Half of it lies in the next page. More would only take longer to translate.
const CODE_BYTES: usize = 0x400;
/// `c.nop`.
const NOP: [u8; 2] = [1, 0];
/// `j CODE` from the end of the code.
const LOOP: u32 = 0xc01f_f06f;
const S_TABLE: u64 = RAM + 0x1_0000;
const U_TABLE: u64 = RAM + 0x1_1000;
/// CSR writes of an input, beside those that every run starts with.
const WRITES: usize = 12;
/// Room for translated code: as little as makes long inputs run out of it.
const CODE_LIMIT_BYTES: usize = 64 << 10;

/// `csrr t6, xepc; addi t6, t6, 4; csrw xepc, t6; xret`.
const M_HANDLER: [u32; 4] = [0x3410_2ff3, 0x004f_8f93, 0x341f_9073, 0x3020_0073];
const S_HANDLER_CODE: [u32; 4] = [0x1410_2ff3, 0x004f_8f93, 0x141f_9073, 0x1020_0073];
const MRET: u32 = 0x3020_0073;

/// CSRs that a prologue may write besides those that an input names by number.
#[rustfmt::skip]
const CSRS: [u32; 32] = [
    0x300, 0x302, 0x303, 0x304, 0x305, 0x306, 0x30a, 0x30c, 0x320, 0x340, 0x341, 0x342, 0x343, 0x344, 0x3a0, 0x3a2,
    0x3b0, 0x3b1, 0x3b2, 0x747, 0x100, 0x104, 0x105, 0x106, 0x10a, 0x10c, 0x141, 0x144, 0x14d, 0x180, 0x003, 0xb00,
];

/// Numbers that mean something here: addresses, page-table roots, status bits.
#[rustfmt::skip]
const TELLING: [u64; 28] = [
    RAM, CODE, CODE + 0xffc, VALUES, RAM + RAM_BYTES - 8, RAM + RAM_BYTES, S_TABLE,
    8 << 60 | S_TABLE >> 12, 8 << 60 | U_TABLE >> 12, 9 << 60 | S_TABLE >> 12, 10 << 60 | 1 << 44 | S_TABLE >> 12,
    0x0010_0000, 0x0010_1000, 0x0200_0000, 0x0200_4000, 0x0200_bff8, 0x0c00_0000, 0x0c20_0000, 0x1000_0000,
    0x1000_1000, 0x1000_2000, 0x1010_0000,
    0x0000_000a_0000_1888, 0x8000_0000_0000_0000, 0xe000_0000_0000_0000, 0x1f1f_1f1f_1f1f_1f1f, 0xaaaa, 0x0fff_ffff_ffff,
];

/// A value of a register: an index into [`TELLING`], or a number.
fn value(input: &mut Input<'_>) -> u64 {
    match input.u8() {
        telling @ 0x80.. => TELLING[usize::from(telling & 0x7f) % TELLING.len()],
        0x7f => input.u64(),
        small => (i64::from(small) - 32) as u64,
    }
}

/// The hart's surroundings.
#[derive(Default)]
pub struct Parts {
    /// Devices, with their windows on the bus.
    pub devices: Vec<(u64, u64, isomer_core::bus::SharedDevice)>,
    /// Answers `ecall` from S-mode.
    pub firmware: Option<Box<dyn Firmware<Riscv64>>>,
}

impl Parts {
    /// Adds a device with one window.
    pub fn add(&mut self, base: u64, len: u64, device: impl Device + 'static) {
        self.devices.push((base, len, Arc::new(Mutex::new(device))));
    }
}

/// What a hart's memory and registers start as.
#[derive(Clone, Debug)]
pub struct Start {
    /// The CPU model.
    pub guest: Riscv64,
    registers: [u64; 32],
    prologue: Vec<u32>,
    values: Vec<u64>,
    code: Vec<u8>,
}

impl Start {
    /// Model, registers and CSRs come first in `input`; `code` makes the code of the rest.
    pub fn new(input: &mut Input<'_>, code: impl FnOnce(&mut Input<'_>) -> Vec<u8>) -> Self {
        let guest = input.pick(&[Riscv64::max, Riscv64::rva22, Riscv64::rv64])();
        let mpp = [0u64, 1, 3][input.below(3)];
        // mtvec, stvec, mepc, mstatus (FS, MPP), pmpaddr0, pmpcfg0, menvcfg: everything allowed, as firmware leaves it.
        let writes = [
            (0x305, RAM),
            (0x105, S_HANDLER),
            (0x341, CODE),
            (0x300, 0x2000 | mpp << 11),
            (0x3b0, u64::MAX),
            (0x3a0, 0x1f),
            (0x30a, 0xf0),
        ];
        let mut writes = writes.to_vec();
        for _ in 0..input.below(WRITES + 1) {
            let csr = match input.u8() {
                wild @ 0x80.. => u32::from(wild) << 5 & 0xfff | u32::from(input.u8() & 31),
                index => CSRS[usize::from(index) % CSRS.len()],
            };
            writes.push((csr, value(input)));
        }
        // ld t0, 8 * i(tp); csrw csr, t0
        let prologue = (0u32..)
            .zip(&writes)
            .flat_map(|(i, &(csr, _))| [(8 * i) << 20 | 0x0002_3283, csr << 20 | 0x0002_9073]);
        let mut registers = [0; 32];
        registers[1..].fill_with(|| value(input));
        registers[4] = VALUES;
        let code = code(input);
        Self {
            guest,
            registers,
            prologue: prologue.chain([MRET]).collect(),
            values: writes.iter().map(|write| write.1).collect(),
            code,
        }
    }

    fn load(&self, memory: &GuestMemory) {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let doublewords =
            |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        // Leaves of 1 GiB: valid, all permissions, accessed and dirty; with U in the second table.
        let table = |bits: u64| doublewords(&[0, 1, 2, 3].map(|gib| gib << 28 | bits));
        let code = if self.code.is_empty() { &NOP } else { &self.code[..] };
        let code = code.iter().copied().cycle().take(CODE_BYTES).chain(LOOP.to_le_bytes());
        let parts = [
            (RAM, words(&M_HANDLER)),
            (S_HANDLER, words(&S_HANDLER_CODE)),
            (PROLOGUE, words(&self.prologue)),
            (VALUES, doublewords(&self.values)),
            (CODE, code.collect()),
            (S_TABLE, table(0xcf)),
            (U_TABLE, table(0xdf)),
        ];
        for (at, bytes) in parts {
            memory.write(Gpa(at), &bytes).expect("everything is in RAM");
        }
    }
}

/// RAM of one hart.
pub fn ram() -> GuestMemory {
    GuestMemory::new(&[(Gpa(RAM), RAM_BYTES)]).expect("the host has 128 KiB")
}

/// A hart that can be run in bounded time.
pub struct Hart {
    /// The vCPU.
    pub vcpu: SoftVcpu<Riscv64>,
    /// Its RAM.
    pub memory: GuestMemory,
    group: Arc<Group<Riscv64>>,
    clock: Arc<Clock>,
    /// Kept for the devices' sake.
    _timers: Timers,
}

impl Hart {
    /// A hart at the prologue of `start`, on an engine, with what `parts` makes. Time stands still while it runs.
    pub fn new(
        start: &Start,
        engine: EngineKind,
        parts: impl FnOnce(&GuestMemory, &Timers, &Group<Riscv64>) -> Parts,
    ) -> Self {
        let memory = ram();
        start.load(&memory);
        let clock = Arc::new(Clock::virtual_time(1_700_000_000_000_000_000));
        let timers = Timers::new(clock.clone());
        let group = Group::new(1);
        let parts = parts(&memory, &timers, &group);
        let mmio = Arc::new(Bus::default());
        for (base, len, device) in parts.devices {
            mmio.map(Gpa(base), len, 0, device).expect("windows are apart");
        }
        let guest = Arc::new(start.guest.clone());
        let mut cpu = guest.reset(0, PROLOGUE);
        cpu.x = start.registers;
        let jit = Jit::for_engine(engine, &guest).expect("this host has compiled code");
        let vcpu = SoftVcpu::new(VcpuConfig {
            guest,
            cpu,
            index: 0,
            group: group.clone(),
            memory: memory.clone(),
            mmio,
            clock: clock.clone(),
            firmware: parts.firmware,
            trace: Trace::default(),
            engine,
            jit,
            code_limit_bytes: CODE_LIMIT_BYTES,
        });
        vcpu.power_on();
        Self { vcpu, memory, group, clock, _timers: timers }
    }

    /// Runs about `insns` instructions, or until the hart sleeps or is wedged.
    pub fn run(&mut self, insns: u64) -> Exit {
        let peer = &self.group.peers()[0];
        let exit = watchdog::bounded(peer, || self.vcpu.run(Some(insns)));
        check(self.vcpu.cpu());
        exit
    }

    /// Lets time pass.
    pub fn advance_ns(&self, ns: u64) {
        self.clock.advance_to(self.clock.now_ns() + ns);
    }

    /// Instructions retired.
    pub fn insns(&self) -> u64 {
        self.vcpu.cpu().header.insns
    }
}

/// What holds of every CPU between two instructions.
fn check(cpu: &Cpu) {
    assert_eq!(cpu.x[0], 0, "x0 was written");
    assert_eq!(cpu.header.pc & 1, 0, "pc {:#x}", cpu.header.pc);
    let mut fresh = cpu.clone();
    fresh.update_mode();
    assert_eq!(fresh.header.mode, cpu.header.mode, "the mode word is out of date");
    assert_eq!(fresh.header.rounding, cpu.header.rounding, "the rounding mode is out of date");
}
