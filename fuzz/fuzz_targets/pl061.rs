//! Any accesses to the PL061, while its lines change.
#![no_main]

use isomer_core::IrqLine;
use isomer_devices::pl061::{Pl061, WINDOW_LEN};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let make = || Pl061::new(IrqLine::unconnected());
    drive(data, Shape::window(&[WINDOW_LEN]), make, |port, input| {
        port.line(input.u8().into()).set(input.flag())
    });
});
