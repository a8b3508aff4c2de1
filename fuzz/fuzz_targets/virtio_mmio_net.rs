//! Any register accesses and rings on virtio-net over MMIO, with user-mode networking at the other end.
#![no_main]

use isomer_fuzz::{
    seeds,
    virtio::{drive_mmio, net, no_event, request_seed},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: seeds::plant([
        ("send", request_seed(1, &[(12, false), (60, false)], true)),
        ("receive", request_seed(0, &[(2048, true)], true)),
        ("control", request_seed(4, &[(2, false), (1, false), (1, true)], true)),
    ]),
    |data: &[u8]| drive_mmio(data, net, no_event)
);
