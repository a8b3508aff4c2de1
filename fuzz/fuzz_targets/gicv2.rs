//! Any accesses of any CPU to the GICv2, while its inputs change.
#![no_main]

use isomer_core::{VcpuSignal, initiator};
use isomer_devices::gicv2::{CPU_INTERFACE_LEN, CpuPort, DISTRIBUTOR_LEN, Gicv2};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const SHAPE: Shape = Shape {
    windows: &[DISTRIBUTOR_LEN, CPU_INTERFACE_LEN],
    landmarks: &[0, 0x400, 0x800, 0xc00, 0xf00, 0x1000],
};

fuzz_target!(|data: &[u8]| {
    let cpus = [(); 2].map(|()| Arc::new(VcpuSignal::default()));
    let make = || Gicv2::new(CpuPort::of(&cpus, 0, 1), 64);
    drive(data, SHAPE, make, |gic, input| match input.u8() % 4 {
        0 => initiator::set_vcpu(input.below(3)),
        1 => gic.ppi(input.below(3), input.u8().into()).set(input.flag()),
        _ => gic.spi(input.u8().into()).set(input.flag()),
    });
});
