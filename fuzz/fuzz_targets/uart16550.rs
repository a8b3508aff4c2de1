//! Any accesses to the 16550 UART, while bytes and breaks arrive.
#![no_main]

use isomer_core::IrqLine;
use isomer_devices::{backend::char::Discard, uart16550::Uart16550};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let make = || Uart16550::new(IrqLine::unconnected(), Box::new(Discard), Box::new(|| ()));
    drive(data, Shape::window(&[0x100]), make, |uart, input| {
        let len = usize::from(input.u8() & 31);
        let taken = uart.receive(input.take(len));
        assert!(taken <= len);
        if len == 0 {
            uart.receive_break();
        }
    });
});
