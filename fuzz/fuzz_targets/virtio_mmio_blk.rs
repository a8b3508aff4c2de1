//! Any register accesses and rings on virtio-blk over MMIO.
#![no_main]

use isomer_fuzz::{
    seeds,
    virtio::{blk, disk, drive_mmio, no_event, request_seed},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: seeds::plant([("request", request_seed(0, &[(16, false), (512, true), (1, true)], true))]),
    |data: &[u8]| {
        let disk = disk();
        drive_mmio(data, || blk(&disk), no_event);
    }
);
