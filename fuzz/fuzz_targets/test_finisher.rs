//! Any accesses to the test finisher.
#![no_main]

use isomer_devices::test_finisher::{TestFinisher, WINDOW_LEN};
use isomer_fuzz::device::{Shape, drive, nothing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    drive(data, Shape::window(&[WINDOW_LEN]), || TestFinisher::new(Box::new(|_| ())), nothing);
});
