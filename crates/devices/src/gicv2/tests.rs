//! The GICv2 as software uses it.

use super::{msi::Gicv2m, *};
use crate::conformance::Options;
use isomer_core::Gpa;

const IRQ: u64 = 1;
const FIQ: u64 = 2;
const SPURIOUS: u32 = 1023;

// CPU interface registers.
const CTLR: u64 = 0x0;
const PMR: u64 = 0x4;
const IAR: u64 = 0xc;
const EOIR: u64 = 0x10;
const HPPIR: u64 = 0x18;
const AIAR: u64 = 0x20;
const AEOIR: u64 = 0x24;
const DIR: u64 = 0x1000;

struct Rig {
    gic: Gicv2,
    cpus: Vec<Arc<VcpuSignal>>,
}

impl Rig {
    /// As Linux has it: everything in group 0, and on.
    fn new(cpus: usize) -> Self {
        let cpus: Vec<_> = (0..cpus).map(|_| Arc::new(VcpuSignal::default())).collect();
        let mut rig = Self { gic: Gicv2::new(CpuPort::of(&cpus, 0, 1), 256), cpus };
        rig.dist(0, 0, 1);
        for cpu in 0..rig.cpus.len() {
            rig.set(cpu, PMR, 0xf0);
            rig.set(cpu, CTLR, 1);
            rig.dist(cpu, 0x100, 0xffff);
        }
        rig
    }
    fn dist(&mut self, cpu: usize, offset: u64, value: u32) {
        initiator::set_vcpu(cpu);
        Device::write(&mut self.gic, 0, offset, 4, value.into());
    }
    fn get_dist(&mut self, cpu: usize, offset: u64) -> u32 {
        initiator::set_vcpu(cpu);
        Device::read(&mut self.gic, 0, offset, 4) as u32
    }
    fn set(&mut self, cpu: usize, offset: u64, value: u32) {
        initiator::set_vcpu(cpu);
        Device::write(&mut self.gic, 1, offset, 4, value.into());
    }
    fn get(&mut self, cpu: usize, offset: u64) -> u32 {
        initiator::set_vcpu(cpu);
        Device::read(&mut self.gic, 1, offset, 4) as u32
    }
    fn arm(&mut self, intid: u64, priority: u8, targets: u8) {
        initiator::set_vcpu(0);
        Device::write(&mut self.gic, 0, 0x400 + intid, 1, priority.into());
        Device::write(&mut self.gic, 0, 0x800 + intid, 1, targets.into());
        self.dist(0, 0x100 + intid / 32 * 4, 1 << (intid % 32));
    }
    fn lines(&self) -> Vec<u64> {
        self.cpus.iter().map(|cpu| cpu.lines()).collect()
    }
}

device_conformance!(
    conformance,
    Gicv2::new(CpuPort::of(&[Arc::default(), Arc::default()], 0, 1), 64),
    Options { windows: &[DISTRIBUTOR_LEN, CPU_INTERFACE_LEN], self_contained: true, ..Options::default() }
);
device_conformance!(
    msi_conformance,
    Gicv2m::new(&Rig::new(1).gic, 48, 64, Gpa(0)),
    Options { windows: &[msi::WINDOW_LEN], self_contained: true, ..Options::default() }
);

#[test]
fn an_interrupt_goes_to_its_targets_and_one_takes_it() {
    let mut rig = Rig::new(2);
    rig.arm(33, 0xa0, 3);
    rig.gic.spi(1).set(true);
    assert_eq!(rig.lines(), [IRQ, IRQ]);
    assert_eq!((rig.get(1, IAR), rig.get(0, IAR)), (33, SPURIOUS));
    assert_eq!(rig.lines(), [0, 0]);
    rig.gic.spi(1).set(false);
    rig.set(1, EOIR, 33);
    assert_eq!(rig.lines(), [0, 0]);
    rig.arm(33, 0xa0, 2);
    rig.gic.spi(1).set(true);
    assert_eq!(rig.lines(), [0, IRQ]);
}

#[test]
fn one_cpu_needs_no_targets() {
    let mut rig = Rig::new(1);
    rig.arm(33, 0xa0, 0);
    rig.gic.spi(1).set(true);
    assert_eq!((rig.lines()[0], rig.get_dist(0, 0x820)), (IRQ, 0));
}

#[test]
fn registers_are_banked_by_cpu() {
    let mut rig = Rig::new(2);
    assert_eq!([rig.get_dist(0, 0x800), rig.get_dist(1, 0x800)], [0x0101_0101, 0x0202_0202]);
    rig.dist(1, 0x100, 1 << 27);
    rig.gic.ppi(0, 27).set(true);
    rig.gic.ppi(1, 27).set(true);
    assert_eq!(rig.lines(), [0, IRQ]);
    assert_eq!((rig.get_dist(0, 0x100), rig.get_dist(1, 0x100)), (0xffff, 0x0800_ffff));
    initiator::set_vcpu(7);
    assert_eq!(Device::read(&mut rig.gic, 0, 8, 4), 0, "no such CPU");
}

#[test]
fn sgis_say_who_sent_them() {
    let mut rig = Rig::new(3);
    rig.dist(0, 0xf00, 0b100 << 16 | 5);
    rig.dist(1, 0xf00, 1 << 24 | 5);
    assert_eq!(rig.lines(), [IRQ, 0, IRQ]);
    assert_eq!(rig.get_dist(2, 0xf24), 0x0300, "from 0 and 1");
    assert_eq!((rig.get(2, HPPIR), rig.get(2, IAR)), (5, 5));
    rig.set(2, EOIR, 5);
    assert_eq!(rig.get(2, IAR), 1 << 10 | 5);
    rig.set(2, EOIR, 1 << 10 | 5);
    assert_eq!((rig.get(2, IAR), rig.get(0, IAR)), (SPURIOUS, 1 << 10 | 5));
    rig.dist(1, 0xf00, 2 << 24 | 3);
    assert_eq!(rig.get(1, IAR), 1 << 10 | 3);
    rig.dist(2, 0xf20, 1 << 8);
    assert_eq!(rig.get(2, IAR), 1);
    rig.dist(2, 0xf20, 7 << 16);
    rig.dist(2, 0xf10, 7 << 16);
    assert_eq!(rig.get(2, HPPIR), SPURIOUS);
}

#[test]
fn groups_are_told_apart() {
    let mut rig = Rig::new(1);
    rig.dist(0, 0, 3);
    rig.set(0, CTLR, 1 | 2 | 8);
    rig.dist(0, 0x84, 1 << 1);
    rig.arm(33, 0xa0, 1);
    rig.arm(34, 0xb0, 1);
    rig.gic.spi(1).set(true);
    assert_eq!((rig.lines()[0], rig.get(0, IAR)), (IRQ, 1022));
    assert_eq!(rig.get(0, AIAR), 33);
    rig.set(0, EOIR, 33);
    assert_eq!(rig.get(0, 0x14), 0xa0, "of the other group");
    rig.gic.spi(1).set(false);
    rig.set(0, AEOIR, 33);
    rig.gic.spi(2).set(true);
    assert_eq!((rig.lines()[0], rig.get(0, AIAR), rig.get(0, IAR)), (FIQ, SPURIOUS, 34));
}

#[test]
fn deactivation_can_be_separate() {
    let mut rig = Rig::new(1);
    rig.set(0, CTLR, 0x201);
    rig.arm(33, 0xa0, 1);
    rig.gic.spi(1).set(true);
    assert_eq!(rig.get(0, IAR), 33);
    rig.set(0, EOIR, 33);
    assert_eq!((rig.lines()[0], rig.get(0, 0x14)), (0, 0xff));
    rig.set(0, DIR, 33);
    assert_eq!(rig.lines()[0], IRQ);
}

#[test]
fn messages_become_spis() {
    let mut rig = Rig::new(1);
    let base = Gpa(0x802_0000);
    let mut frame = Gicv2m::new(&rig.gic, 48, 64, base);
    assert_eq!(Device::read(&mut frame, 0, 8, 4), 80 << 16 | 64);
    rig.dist(0, 0xc14, 2);
    rig.arm(80, 0xa0, 1);
    frame.msi_sink().send(8, base.0 + 0x40, 80);
    assert_eq!(rig.get(0, IAR), 80);
    rig.set(0, EOIR, 80);
    for (address, data) in [(base.0, 80), (base.0 + 0x40, 79), (base.0 + 0x40, 144)] {
        frame.msi_sink().send(8, address, data);
    }
    assert_eq!(rig.lines()[0], 0);
    Device::write(&mut frame, 0, 0x40, 4, 80);
    assert_eq!(rig.get(0, IAR), 80);
}

#[test]
fn restore_drives_the_lines() {
    let mut rig = Rig::new(2);
    rig.arm(33, 0xa0, 2);
    rig.gic.spi(1).set(true);
    let state = Device::save(&rig.gic);
    let mut other = Rig::new(2);
    Device::restore(&mut other.gic, state.clone()).unwrap();
    assert_eq!(other.lines(), [0, IRQ]);
    assert!(Device::restore(&mut Rig::new(1).gic, state).is_err(), "another number of CPUs");
    assert_eq!(other.get(0, 0xfc) & 0xff_0fff, 0x02_043b, "what Linux takes for a GIC-400");
}
