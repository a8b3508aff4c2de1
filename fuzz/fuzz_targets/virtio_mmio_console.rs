//! Any register accesses and rings on virtio-console over MMIO, while a user types.
#![no_main]

use isomer_fuzz::{
    seeds,
    virtio::{console, console_event, drive_mmio, request_seed},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: seeds::plant([("request", request_seed(1, &[(5, false)], true))]),
    |data: &[u8]| drive_mmio(data, console, console_event)
);
