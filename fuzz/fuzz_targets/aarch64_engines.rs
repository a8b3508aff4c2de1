//! On aarch64 interpreter and template compiler do what the reference engine does to registers and RAM.
#![no_main]

use isomer_aarch64::Cpu;
use isomer_core::Gpa;
use isomer_engine::{EngineKind, Exit};
use isomer_fuzz::{
    arm::{self, Pe, RAM, RAM_BYTES, Start},
    input::Input,
    seeds,
};
use isomer_ir::state::NO_RESERVATION;
use libfuzzer_sys::fuzz_target;

/// Instructions between comparisons, and comparisons.
const SLICE: u64 = 500;
const SLICES: u32 = 4;
/// Attempts to stop both at the same instruction: engines run whole blocks.
const ATTEMPTS: u32 = 40;
/// FPCR.FZ.
const FZ: u32 = 1 << 24;

fuzz_target!(init: seeds::plant(arm::seeds()), |data: &[u8]| {
    let mut input = Input::new(data);
    let engine = input.pick(&[EngineKind::Interpreter, EngineKind::Template]);
    let start = Start::new(&mut input);
    let mut fast = Pe::new(&start, engine);
    let mut reference = Pe::new(&start, EngineKind::Reference);
    for _ in 0..SLICES {
        if fast.run(SLICE) != Exit::Limit || !catch_up(&mut fast, &mut reference) {
            return;
        }
        assert_eq!(registers(&fast), registers(&reference), "after {} instructions", fast.insns());
    }
    assert!(contents(&fast) == contents(&reference), "RAM differs after {} instructions", fast.insns());
});

/// Runs whichever is behind until both have retired as many instructions; `false` if they never meet.
fn catch_up(fast: &mut Pe, reference: &mut Pe) -> bool {
    for _ in 0..ATTEMPTS {
        let (a, b) = (fast.insns(), reference.insns());
        if a == b && fast.vcpu.cpu().header.pc == reference.vcpu.cpu().header.pc {
            return true;
        }
        let behind = if a < b { &mut *fast } else { &mut *reference };
        if behind.run(a.abs_diff(b).max(1)) != Exit::Limit {
            return false;
        }
    }
    false
}

/// The CPU without what belongs to the engine, or says when the engine last looked.
fn registers(pe: &Pe) -> Cpu {
    let mut cpu = pe.vcpu.cpu().clone();
    cpu.header.engine = Default::default();
    cpu.header.temps = [0; _];
    // A reservation is on a host address.
    cpu.header.reserve_host = u64::from(cpu.header.reserve_host != NO_RESERVATION);
    // Subnormal operands count while they are flushed.
    if cpu.fpcr & FZ == 0 {
        cpu.header.fp_flags &= 31;
    }
    cpu.sys.pmu.settled = 0;
    cpu.told = Default::default();
    cpu
}

fn contents(pe: &Pe) -> Vec<u8> {
    let mut bytes = vec![0; RAM_BYTES as usize];
    pe.memory.read(Gpa(RAM), &mut bytes).expect("RAM is there");
    bytes
}
