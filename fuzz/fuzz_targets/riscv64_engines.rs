//! Interpreter and reference engine do the same to registers and RAM, instruction for instruction.
#![no_main]

use isomer_core::Gpa;
use isomer_engine::{EngineKind, Exit};
use isomer_fuzz::{
    hart::{Hart, Parts, RAM, RAM_BYTES, Start, programs},
    input::Input,
    seeds,
};
use isomer_riscv64::{Cpu, Extensions};
use libfuzzer_sys::fuzz_target;

/// Instructions between comparisons, and comparisons.
const SLICE: u64 = 500;
const SLICES: u32 = 4;
/// Attempts to stop both at the same instruction: engines run whole blocks.
const ATTEMPTS: u32 = 40;

fuzz_target!(init: seeds::plant(programs::seeds(&[])), |data: &[u8]| {
    let mut input = Input::new(data);
    let mut start = Start::new(&mut input, |input| input.rest().to_vec());
    // Entropy is the one thing that differs from run to run.
    start.guest.ext.remove(Extensions::ZKR);
    let mut fast = Hart::new(&start, EngineKind::Interpreter, |_, _, _| Parts::default());
    let mut reference = Hart::new(&start, EngineKind::Reference, |_, _, _| Parts::default());
    for _ in 0..SLICES {
        if fast.run(SLICE) != Exit::Limit || !catch_up(&mut fast, &mut reference) {
            return;
        }
        assert_eq!(registers(&fast), registers(&reference), "after {} instructions", fast.insns());
    }
    assert!(contents(&fast) == contents(&reference), "RAM differs after {} instructions", fast.insns());
});

/// Runs whichever is behind until both have retired as many instructions; `false` if they never meet.
fn catch_up(fast: &mut Hart, reference: &mut Hart) -> bool {
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

/// The CPU without what belongs to the engine.
fn registers(hart: &Hart) -> Cpu {
    let mut cpu = hart.vcpu.cpu().clone();
    cpu.header.engine = Default::default();
    cpu.header.temps = [0; _];
    cpu
}

fn contents(hart: &Hart) -> Vec<u8> {
    let mut bytes = vec![0; RAM_BYTES as usize];
    hart.memory.read(Gpa(RAM), &mut bytes).expect("RAM is there");
    bytes
}
