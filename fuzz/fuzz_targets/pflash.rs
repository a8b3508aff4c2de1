//! Any commands to the parallel flash, on its own storage and on a file.
#![no_main]

use isomer_devices::pflash::{Pflash, SECTOR_LEN};
use isomer_fuzz::device::{Shape, drive, nothing};
use libfuzzer_sys::fuzz_target;

const LEN: usize = 2 * SECTOR_LEN;
const SHAPE: Shape =
    Shape { windows: &[LEN as u64], landmarks: &[0, 0x1000, SECTOR_LEN as u64, LEN as u64 - 0x100] };

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, rest)) => {
            let file = || tempfile::tempfile().expect("the host has a temporary directory");
            drive(rest, SHAPE, || Pflash::with_file(LEN, file(), false).expect("the size is right"), nothing);
        }
        Some((kind, rest)) => {
            let make = || Pflash::with_image(LEN, b"firmware", kind & 1 != 0).expect("the size is right");
            drive(rest, SHAPE, make, nothing);
        }
        None => (),
    }
});
