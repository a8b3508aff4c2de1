//! An aarch64 PE with a little RAM that runs whatever the input says from a state the input chooses.
//!
//! RAM from [`RAM`]: vectors whose handlers step over the trapping instruction, at 0; the code, from 0x1e00, repeated up
//! to 0x2200 and in a loop; page tables that map everything onto itself, at 0x10000 for EL1 and at 0x11000 for EL0 too.

use crate::{hart::watchdog, input::Input};
use isomer_aarch64::{Aarch64, Cpu};
use isomer_core::{Bus, Clock, Gpa, GuestMemory};
use isomer_engine::{EngineKind, Exit, Group, Jit, SoftVcpu, Trace, VcpuConfig};
use std::sync::Arc;

/// Start of RAM.
pub const RAM: u64 = 0x8000_0000;
/// Bytes of RAM.
pub const RAM_BYTES: u64 = 128 << 10;
const CODE: u64 = RAM + 0x1e00;
/// Half of it lies in the next page. More would only take longer to translate.
const CODE_BYTES: usize = 0x400;
const NOP: [u8; 4] = [0x1f, 0x20, 0x03, 0xd5];
/// `b CODE` from the end of the code.
const LOOP: u32 = 0x17ff_ff00;
const EL1_TABLE: u64 = RAM + 0x1_0000;
const EL0_TABLE: u64 = RAM + 0x1_1000;
/// Room for translated code: as little as makes long inputs run out of it.
const CODE_LIMIT_BYTES: usize = 64 << 10;

/// `mrs x30, elr_el1; add x30, x30, #4; msr elr_el1, x30; eret`, for each of the sixteen vectors.
const HANDLER: [u32; 4] = [0xd538_403e, 0x9100_13de, 0xd518_403e, 0xd69f_03e0];
/// What gives fresh random numbers, the one thing that differs from run to run: `rndr`, `rndrrs`.
const RANDOM: [u32; 2] = [0xd53b_2400, 0xd53b_2420];
/// SCTLR_EL1's bits that an input may set: A, SA, SA0, nAA, UMA, EnDB, I, EnDA, DZE, UCT, nTWI, nTWE, WXN, SPAN, EE's
/// neighbours, UCI, EnIB, EnIA, BT0, BT1.
const CONTROLS: u64 = 0xd_6cbf_725a;

/// Numbers that mean something here.
const TELLING: [u64; 12] = [
    RAM,
    CODE,
    CODE + 0xffc,
    RAM + RAM_BYTES - 8,
    RAM + RAM_BYTES,
    EL1_TABLE,
    EL0_TABLE,
    0x8000_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0x3ff0_0000_0000_0000,
    0xffff_ffff_0000_0000,
    0x7fff_ffff_7fff_ffff,
];

/// A CPU model.
pub fn model(input: &mut Input<'_>) -> Aarch64 {
    let name = input.pick(Aarch64::MODELS);
    Aarch64::by_name(name).expect("the names are those of models").with_el2(input.flag())
}

/// A value of a register: an index into [`TELLING`], or a number.
fn value(input: &mut Input<'_>) -> u64 {
    match input.u8() {
        telling @ 0x80.. => TELLING[usize::from(telling & 0x7f) % TELLING.len()],
        0x7f => input.u64(),
        small => (i64::from(small) - 32) as u64,
    }
}

/// A PE with some of the state that makes its mode.
pub fn state(guest: &Aarch64, input: &mut Input<'_>) -> Cpu {
    let mut cpu = guest.reset(0, CODE);
    cpu.sys.cpacr = (input.u8() as u64 & 3) << 20;
    cpu.sys.sctlr[1] |= input.u64() & CONTROLS;
    cpu.sys.tcr[1] = (input.u8() as u64 & 3) << 37;
    if cpu.sys.has_el2 {
        // RW, and no traps but what the input asks for.
        cpu.sys.cptr = 0x33ff | (input.u8() as u64 & 1) << 10;
        cpu.sys.hcr = 1 << 31 | (input.u8() as u64 & 3) << 40;
    }
    cpu.set_level(input.u8() & 1, true);
    cpu.set_fpcr(input.u32().into());
    (cpu.pan, cpu.uao) = (input.flag(), input.flag());
    cpu.update_mode();
    cpu
}

/// What a PE's memory and registers start as.
#[derive(Debug)]
pub struct Start {
    guest: Aarch64,
    cpu: Cpu,
    code: Vec<u8>,
}

impl Start {
    /// Model, state and registers come first in `input`; the rest is code.
    pub fn new(input: &mut Input<'_>) -> Self {
        let guest = model(input).with_el2(false);
        let mut cpu = state(&guest, input);
        cpu.x.fill_with(|| value(input));
        for register in &mut cpu.v {
            *register = [value(input), value(input)];
        }
        cpu.nzcv = [0; 4].map(|_: u64| u64::from(input.flag()));
        cpu.sys.vbar[1] = RAM;
        if input.flag() {
            // 39 bits, 4 KiB pages, the lower range only.
            cpu.sys.tcr[1] |= 25 | 1 << 23 | 2 << 32;
            cpu.sys.mair[1] = 0xff;
            cpu.sys.ttbr0[1] = if cpu.el == 0 { EL0_TABLE } else { EL1_TABLE };
            cpu.sys.sctlr[1] |= 1;
        }
        cpu.update_mode();
        let mut code = input.rest().to_vec();
        for word in code.chunks_exact_mut(4) {
            let insn = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            if RANDOM.contains(&(insn & !31)) {
                word.copy_from_slice(&NOP);
            }
        }
        Self { guest, cpu, code }
    }

    fn load(&self, memory: &GuestMemory) {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let code = if self.code.is_empty() { &NOP } else { &self.code[..] };
        let code = code.iter().copied().cycle().take(CODE_BYTES).chain(LOOP.to_le_bytes());
        // Blocks of 1 GiB with the access flag; with AP for EL0 in the second table.
        let table =
            |bits: u64| (0..4u64).flat_map(|gib| (gib << 30 | bits).to_le_bytes()).collect::<Vec<_>>();
        let mut parts = vec![(CODE, code.collect()), (EL1_TABLE, table(0x701)), (EL0_TABLE, table(0x7c1))];
        parts.extend((0..16).map(|vector| (RAM + 0x80 * vector, words(&HANDLER))));
        for (at, bytes) in parts {
            memory.write(Gpa(at), &bytes).expect("everything is in RAM");
        }
    }
}

/// A PE that can be run in bounded time.
pub struct Pe {
    /// The vCPU.
    pub vcpu: SoftVcpu<Aarch64>,
    /// Its RAM.
    pub memory: GuestMemory,
    group: Arc<Group<Aarch64>>,
}

impl Pe {
    /// A PE with `start`'s state, on an engine. Time stands still.
    pub fn new(start: &Start, engine: EngineKind) -> Self {
        let memory = GuestMemory::new(&[(Gpa(RAM), RAM_BYTES)]).expect("the host has 128 KiB");
        start.load(&memory);
        let group = Group::new(1);
        let guest = Arc::new(start.guest.clone());
        let jit = Jit::for_engine(engine, &guest).expect("this host has compiled code");
        let vcpu = SoftVcpu::new(VcpuConfig {
            guest,
            cpu: start.cpu.clone(),
            index: 0,
            group: group.clone(),
            memory: memory.clone(),
            mmio: Arc::new(Bus::default()),
            clock: Arc::new(Clock::virtual_time(1_700_000_000_000_000_000)),
            firmware: None,
            trace: Trace::default(),
            engine,
            jit,
            code_limit_bytes: CODE_LIMIT_BYTES,
        });
        vcpu.power_on();
        Self { vcpu, memory, group }
    }

    /// Runs about `insns` instructions, or until the PE sleeps or is wedged.
    pub fn run(&mut self, insns: u64) -> Exit {
        let peer = &self.group.peers()[0];
        watchdog::bounded(peer, || self.vcpu.run(Some(insns)))
    }

    /// Instructions retired.
    pub fn insns(&self) -> u64 {
        self.vcpu.cpu().header.insns
    }
}

/// Short programs to start from, one for each part of the instruction set.
#[rustfmt::skip]
const PROGRAMS: [(&str, &[u32]); 6] = [
    // adds, csel, ubfm, madd, udiv, crc32x, cbnz, adr
    ("integer", &[0xab02_0020, 0x9a83_0041, 0xd344_fc62, 0x9b04_0c83, 0x9ac2_0824, 0x9ac3_4c45, 0xb500_0046, 0x1000_0047]),
    // ldr, str, ldp, stp with writeback, ldrb, ldtr, ldr q, dc zva
    ("memory", &[0xf940_0020, 0xf900_0440, 0xa940_0c22, 0xa9bf_1423, 0x3941_0045, 0xf840_0826, 0x3dc0_0021, 0xd50b_7421]),
    // ldxr, stxr, ldadd, casal, casp, ldar, stlr, clrex
    ("atomic", &[0xc85f_7c22, 0xc806_7c23, 0xf823_0022, 0xc8e2_fc23, 0x4822_7c24, 0xc8df_fc22, 0xc89f_fc23, 0xd503_3f5f]),
    // fadd, fmadd, fdiv, fsqrt, fcvtzs, scvtf, fcmp, msr fpcr
    ("float", &[0x1e62_2820, 0x1f43_0821, 0x1e62_1822, 0x1e61_c043, 0x9e78_0044, 0x9e62_0085, 0x1e62_2020, 0xd51b_4400]),
    // add v, mul v, tbl, addv, sqadd, zip1, ld4, aese
    ("vector", &[0x4e22_8420, 0x4e62_9c21, 0x4e02_0022, 0x4e31_b843, 0x4e62_0c24, 0x4e82_3825, 0x4c40_0020, 0x4e28_4820]),
    // mrs sctlr, msr vbar, tlbi, isb, msr daifset, svc, eret, str into the code
    ("system", &[0xd538_1000, 0xd518_c001, 0xd508_871f, 0xd503_3fdf, 0xd503_42df, 0xd400_0001, 0xd69f_03e0, 0xf900_0441]),
];

/// All programs, as inputs: for the interpreter, `max`, at EL1 and EL0, with translation on.
pub fn seeds() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    PROGRAMS.iter().map(|&(name, code)| {
        // The engine, the model, EL2, CPACR, SCTLR, TCR, the level, FPCR, PAN, UAO.
        let mut input = vec![0, 3, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        // x0 to x30: two addresses of data, then small numbers.
        input.extend((0..31).map(|register| if register < 3 { 0x80 } else { 32 + register }));
        input.extend([0x89; 64]);
        input.extend([0, 0, 0, 0, 1]);
        input.extend(code.iter().flat_map(|insn| insn.to_le_bytes()));
        (name, input)
    })
}
