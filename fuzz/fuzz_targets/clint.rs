//! Any accesses to the CLINT and to the supervisor software interrupt device, while time passes.
#![no_main]

use isomer_core::{Clock, IrqLine, Timers, VcpuSignal};
use isomer_devices::aclint::{CLINT_WINDOW_LEN, Clint, SSWI_WINDOW_LEN, Sswi};
use isomer_fuzz::device::{Shape, drive, nothing};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const SHAPE: Shape = Shape { windows: &[CLINT_WINDOW_LEN], landmarks: &[0, 0x4000, 0xbff8] };

fuzz_target!(|data: &[u8]| {
    let harts = [(); 3].map(|()| Arc::new(VcpuSignal::default()));
    match data.split_first() {
        Some((0, rest)) => {
            let lines: Vec<_> = harts.iter().map(|hart| IrqLine::new(hart.clone(), 1)).collect();
            drive(rest, Shape::window(&[SSWI_WINDOW_LEN]), || Sswi::new(lines.clone()), nothing);
        }
        Some((_, rest)) => {
            let clock = Arc::new(Clock::virtual_time(0));
            let timers = Timers::new(clock.clone());
            let pass = |ns| clock.advance_to(clock.now_ns().saturating_add(ns));
            drive(rest, SHAPE, || Clint::new(&harts, &timers), |_, input| pass(input.number()));
        }
        None => (),
    }
});
