//! Any accesses to the PLIC, while its inputs change.
#![no_main]

use isomer_core::VcpuSignal;
use isomer_devices::plic::{Context, Plic, WINDOW_LEN};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const SHAPE: Shape = Shape {
    windows: &[WINDOW_LEN],
    // Priorities, pending bits, enable bits and thresholds of the first contexts.
    landmarks: &[0, 0x1000, 0x2000, 0x2080, 0x2100, 0x20_0000, 0x20_1000, 0x20_2000, 0x20_3000, 0x20_4000],
};

fuzz_target!(|data: &[u8]| {
    let harts = [(); 2].map(|()| Arc::new(VcpuSignal::default()));
    let make = || Plic::new(Context::m_and_s(&harts));
    drive(data, SHAPE, make, |plic, input| plic.input(input.u8().into()).set(input.flag()));
});
