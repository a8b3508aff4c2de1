//! A hart with devices survives whatever it runs from whatever state: no panic, no hang, bounded memory.
#![no_main]

use isomer_core::GuestMemory;
use isomer_core::{IrqLine, Timers, VcpuSignal};
use isomer_devices::{
    aclint::{CLINT_WINDOW_LEN, Clint},
    backend::char::Discard,
    fw_cfg::{self, FwCfg},
    goldfish_rtc::{self, GoldfishRtc},
    plic::{self, Context, Plic},
    test_finisher::{self, TestFinisher},
    uart16550::Uart16550,
    virtio::{
        mmio::{VirtioMmio, WINDOW_BYTES},
        rng::VirtioRng,
    },
};
use isomer_engine::{EngineKind, Exit, Group};
use isomer_fuzz::{
    hart::{Hart, Parts, Start, programs},
    input::Input,
    seeds, virtio,
};
use isomer_machine::firmware::sbi::Sbi;
use isomer_riscv64::Riscv64;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// Instructions between two looks, and looks.
const SLICE: u64 = 2000;
const SLICES: u32 = 10;
/// Looks that may find the hart asleep.
const SLEEPS: u32 = 1;
/// Guest time that passes between looks, in nanoseconds.
const TICK_NS: u64 = 100_000;

fuzz_target!(init: seeds::plant(programs::seeds(&[0])), |data: &[u8]| {
    let mut input = Input::new(data);
    let with_sbi = input.flag();
    let start = Start::new(&mut input, |input| input.rest().to_vec());
    let mut hart = Hart::new(&start, EngineKind::Interpreter, |memory, timers, group| {
        board(memory, timers, group, with_sbi)
    });
    let mut sleeps = 0;
    for _ in 0..SLICES {
        match hart.run(SLICE) {
            Exit::Wedged { .. } => break,
            // Finding out that a hart sleeps takes longer than running it.
            Exit::Paused if sleeps == SLEEPS => break,
            Exit::Paused => sleeps += 1,
            Exit::Limit | Exit::Stopped => (),
        }
        hart.advance_ns(TICK_NS);
    }
    assert!(hart.vcpu.stats().code_bytes < 1 << 20, "translated code is not bounded");
});

/// The devices of the virt board at its addresses.
fn board(memory: &GuestMemory, timers: &Timers, group: &Group<Riscv64>, with_sbi: bool) -> Parts {
    let harts: Vec<Arc<VcpuSignal>> = group.peers().iter().map(|peer| peer.signal().clone()).collect();
    let plic = Plic::new(Context::m_and_s(&harts));
    let irq = |source| plic.input(source);
    let mut parts = Parts::default();
    parts.add(0x10_0000, test_finisher::WINDOW_LEN, TestFinisher::new(Box::new(|_| ())));
    parts.add(0x10_1000, goldfish_rtc::WINDOW_LEN, GoldfishRtc::new(irq(11), timers));
    parts.add(0x200_0000, CLINT_WINDOW_LEN, Clint::new(&harts, timers));
    parts.add(0x1000_0000, 0x100, Uart16550::new(irq(10), Box::new(Discard), Box::new(|| ())));
    parts.add(0x1000_1000, WINDOW_BYTES, VirtioMmio::new(VirtioRng::new(), memory.clone(), irq(1)));
    let console = VirtioMmio::new(virtio::console(), memory.clone(), IrqLine::unconnected());
    parts.add(0x1000_2000, WINDOW_BYTES, console);
    parts.add(0x1010_0000, fw_cfg::WINDOW_LEN, FwCfg::new(memory.clone()));
    parts.add(0xc00_0000, plic::WINDOW_LEN, plic);
    if with_sbi {
        let sbi = Sbi::new(memory.clone(), 1, Box::new(Discard), Box::new(|_| ()));
        parts.firmware = Some(Box::new(sbi.hart()));
    }
    parts
}
