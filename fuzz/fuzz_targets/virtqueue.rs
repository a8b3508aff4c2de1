//! Hostile rings and descriptors on live virtio devices: entropy source, disk, console.
#![no_main]

use isomer_devices::virtio::rng::VirtioRng;
use isomer_fuzz::{
    input::Input,
    seeds,
    virtio::{blk, console, console_event, disk, drive_rings, no_event, request_seed},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        let request = |device: u8, queue, parts| [vec![device], request_seed(queue, parts, false)].concat();
        seeds::plant([
            ("entropy", request(0, 0, &[(64, true)])),
            ("disk", request(1, 0, &[(16, false), (512, true), (1, true)])),
            ("output", request(2, 1, &[(5, false)])),
        ]);
    },
    |data: &[u8]| {
        let mut input = Input::new(data);
        match input.u8() % 3 {
            0 => drive_rings(&mut input, VirtioRng::new(), no_event),
            1 => drive_rings(&mut input, blk(&disk()), no_event),
            _ => drive_rings(&mut input, console(), console_event),
        }
    }
);
