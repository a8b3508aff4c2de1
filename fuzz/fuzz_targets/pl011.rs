//! Any accesses to the PL011, while characters arrive.
#![no_main]

use isomer_core::IrqLine;
use isomer_devices::{
    backend::char::Discard,
    pl011::{Pl011, WINDOW_LEN},
};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let make = || Pl011::new(IrqLine::unconnected(), Box::new(Discard), Box::new(|| ()));
    drive(data, Shape::window(&[WINDOW_LEN]), make, |uart, input| {
        if input.flag() {
            uart.receive_break();
            return;
        }
        let count = input.below(40);
        let bytes = input.take(count);
        assert!(uart.receive(bytes) <= bytes.len());
    });
});
