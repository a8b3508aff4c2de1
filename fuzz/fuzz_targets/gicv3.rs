//! Any accesses to the GICv3's registers, system registers too, while its inputs change.
#![no_main]

use isomer_core::{Gpa, GuestMemory, VcpuSignal};
use isomer_devices::gicv3::{CpuInputs, CpuPort, DISTRIBUTOR_LEN, Gicv3, REDISTRIBUTOR_LEN, sysreg};
use isomer_fuzz::device::{Shape, drive};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const SHAPE: Shape = Shape {
    windows: &[DISTRIBUTOR_LEN, 2 * REDISTRIBUTOR_LEN],
    landmarks: &[0, 0x400, 0x6100, 0x1_0000, 0x1_0400, 0x2_0000, 0x3_0000],
};

const INPUTS: CpuInputs = CpuInputs { irq: 0, fiq: 1, virq: 2, vfiq: 3 };

fuzz_target!(|data: &[u8]| {
    let cpus = [(); 2].map(|()| Arc::new(VcpuSignal::default()));
    let memory = GuestMemory::new(&[(Gpa(0), 1 << 18)]).expect("the host has 256 KiB");
    let make = || Gicv3::new(CpuPort::number(&cpus, INPUTS), 64, memory.clone());
    drive(data, SHAPE, make, |gic, input| {
        let cpu = input.below(3);
        let register = sysreg::number(
            3,
            input.pick(&[0, 4]),
            input.pick(&[12, 12, 4]),
            input.u8().into(),
            (input.u8() & 7).into(),
        );
        match input.u8() % 8 {
            0 => gic.ppi(cpu, input.u8().into()).set(input.flag()),
            1 | 2 => gic.spi(input.u8().into()).set(input.flag()),
            3 | 4 => drop(gic.cpu_interface(cpu).read(register)),
            5 => drop(gic.cpu_interface(cpu).read_virtual(register)),
            6 => drop(gic.cpu_interface(cpu).write_virtual(register, input.number())),
            _ => drop(gic.cpu_interface(cpu).write(register, input.number())),
        }
    });
});
