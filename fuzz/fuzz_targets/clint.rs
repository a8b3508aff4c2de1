//! Any accesses to the CLINT, while time passes.
#![no_main]

use isomer_core::{Clock, Timers, VcpuSignal};
use isomer_devices::aclint::{CLINT_WINDOW_LEN, Clint};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const SHAPE: Shape = Shape { windows: &[CLINT_WINDOW_LEN], landmarks: &[0, 0x4000, 0xbff8] };

fuzz_target!(|data: &[u8]| {
    let clock = Arc::new(Clock::virtual_time(0));
    let timers = Timers::new(clock.clone());
    let harts = [(); 3].map(|()| Arc::new(VcpuSignal::default()));
    let make = || Clint::new(&harts, &timers);
    drive(data, SHAPE, make, |_, input| clock.advance_to(clock.now_ns().saturating_add(input.number())));
});
