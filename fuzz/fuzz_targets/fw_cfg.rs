//! Any accesses to fw_cfg, with its DMA control blocks anywhere in RAM.
#![no_main]

use isomer_core::Gpa;
use isomer_devices::fw_cfg::{FwCfg, WINDOW_LEN, key};
use isomer_fuzz::{
    device::{Shape, drive},
    virtio::{RAM, ram},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let memory = ram();
    let make = || {
        let mut device = FwCfg::new(memory.clone());
        device.add_item(key::NB_CPUS, [4, 0]).expect("the key is free");
        device.add_file("opt/org.example/file", vec![0x5a; 300]).expect("the name is free");
        device
    };
    // The guest prepares a control block: control, length, address, all big-endian.
    drive(data, Shape::window(&[WINDOW_LEN]), make, |device, input| {
        let at = RAM + u64::from(input.u8()) * 8;
        let control =
            (u64::from(input.u8()) << 16 | u64::from(input.u8() & 0x1f)) << 32 | input.number() & 0xffff_ffff;
        let address = if input.flag() { input.number() } else { RAM + u64::from(input.u16()) };
        memory
            .write(Gpa(at), &[control.to_be_bytes(), address.to_be_bytes()].concat())
            .expect("it is in RAM");
        isomer_core::Device::write(device, 0, 0x10, 8, at.swap_bytes());
        isomer_core::Device::write(device, 0, 0x10, 8, at);
    });
});
