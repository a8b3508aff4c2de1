//! Any accesses to the PL031, while time passes.
#![no_main]

use isomer_core::{Clock, IrqLine, Timers};
use isomer_devices::pl031::{Pl031, WINDOW_LEN};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let clock = Arc::new(Clock::virtual_time(1_700_000_000_000_000_000));
    let timers = Timers::new(clock.clone());
    let make = || Pl031::new(IrqLine::unconnected(), &timers);
    drive(data, Shape::window(&[WINDOW_LEN]), make, |_, input| {
        clock.advance_to(clock.now_ns().saturating_add(input.number()));
    });
});
