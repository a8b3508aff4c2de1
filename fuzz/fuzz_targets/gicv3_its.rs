//! Any accesses to the ITS, with any commands in its queue and any messages.
#![no_main]

use isomer_core::{Device, Gpa, GuestMemory, VcpuSignal};
use isomer_devices::gicv3::{
    CpuInputs, CpuPort, Gicv3,
    its::{Its, TRANSLATER, WINDOW_LEN},
};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const SHAPE: Shape = Shape { windows: &[WINDOW_LEN], landmarks: &[0, 0x80, 0x100, TRANSLATER] };
const QUEUE: u64 = 0x1_0000;

const INPUTS: CpuInputs = CpuInputs { irq: 0, fiq: 1, virq: 2, vfiq: 3 };

fuzz_target!(|data: &[u8]| {
    let cpus = [(); 2].map(|()| Arc::new(VcpuSignal::default()));
    let memory = GuestMemory::new(&[(Gpa(0), 1 << 18)]).expect("the host has 256 KiB");
    let mut gic = Gicv3::new(CpuPort::number(&cpus, INPUTS), 32, memory.clone());
    for cpu in 0..2 {
        Device::write(&mut gic, 1, cpu << 17 | 0x70, 8, 0xf);
        Device::write(&mut gic, 1, cpu << 17, 4, 1);
    }
    let make = || {
        let mut its = Its::new(&gic, memory.clone(), Gpa(0));
        for (offset, value) in [(0x100, 0x2_0000), (0x108, 0x3_0000), (0x80, QUEUE)] {
            Device::write(&mut its, 0, offset, 8, 1 << 63 | value);
        }
        Device::write(&mut its, 0, 0, 4, 1);
        its
    };
    drive(data, SHAPE, make, |its, input| {
        if input.flag() {
            its.msi_sink().send(input.u16(), TRANSLATER, input.u8().into());
            return;
        }
        let (device, event) = (u64::from(input.u8()) << 32, u64::from(input.u8()));
        let words =
            [device | u64::from(input.u8() & 15), 8192 << 32 | event, 1 << 63 | input.number(), 1 << 16];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let at = Device::read(its, 0, 0x90, 8);
        memory.write(Gpa(QUEUE + at), &bytes).unwrap_or(());
        Device::write(its, 0, 0x88, 8, (at + 32) % 0x1000);
    });
});
