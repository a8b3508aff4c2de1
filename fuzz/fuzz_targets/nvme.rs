//! Any register accesses and any commands on an NVMe controller, which the driver has enabled every other time.
#![no_main]

use isomer_core::{Device, Gpa, GuestMemory};
use isomer_devices::{
    nvme::{Nvme, NvmeOptions},
    pci::PciFunction,
};
use isomer_fuzz::{
    device::{Shape, drive},
    virtio::disk,
};
use libfuzzer_sys::fuzz_target;

/// Registers at the start, doorbells in the middle.
const SHAPE: Shape = Shape { windows: &[0x4000], landmarks: &[0x14, 0x1000, 0x1008, 0x100c] };

fuzz_target!(|data: &[u8]| {
    let (disk, memory) = (disk(), GuestMemory::new(&[(Gpa(0), 64 << 10)]).expect("the host has 64 KiB"));
    let make = || {
        let mut nvme = Nvme::new(disk.clone(), &NvmeOptions::default(), memory.clone(), None);
        nvme.config_write(4, 2, 6);
        nvme
    };
    drive(data, SHAPE, make, |nvme, input| {
        if input.flag() {
            // Queues of sixteen commands at the second and third page.
            for (offset, value) in [(0x24, 0x000f_000f), (0x28, 0x1000), (0x30, 0x2000), (0x14, 0x0046_0001)] {
                Device::write(nvme, 0, offset, 4, value);
            }
        }
        let at = 64 * input.below(1024) as u64;
        let command = input.take(64);
        let _ = memory.write(Gpa(at), command);
        Device::write(nvme, 0, 0x1000, 4, input.below(16) as u64);
    });
});
