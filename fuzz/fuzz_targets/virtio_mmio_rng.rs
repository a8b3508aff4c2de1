//! Any register accesses and rings on virtio-rng over MMIO.
#![no_main]

use isomer_devices::virtio::rng::VirtioRng;
use isomer_fuzz::{
    seeds,
    virtio::{drive_mmio, no_event, request_seed},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: seeds::plant([("request", request_seed(0, &[(64, true)], true))]),
    |data: &[u8]| drive_mmio(data, VirtioRng::new, no_event)
);
