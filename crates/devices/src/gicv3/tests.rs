//! The GICv3 as software uses it: distributor, redistributors, CPU interfaces, and messages through the ITS.

use super::{
    its::{self, Its},
    sysreg::*,
    *,
};
use crate::{conformance::Options, gic::SPURIOUS};
use isomer_core::Gpa;

const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 1 << 20;
const ITS_BASE: u64 = 0x808_0000;

// Tables in RAM.
const CONFIG: u64 = RAM;
const PENDING: u64 = RAM + 0x2_0000;
const QUEUE: u64 = RAM + 0x6_0000;
const DEVICES: u64 = RAM + 0x7_0000;
const COLLECTIONS: u64 = RAM + 0x9_0000;
const ITT: u64 = RAM + 0xa_0000;

/// CPU inputs.
const INPUTS: CpuInputs = CpuInputs { irq: 0, fiq: 1, virq: 2, vfiq: 3 };
const IRQ: u64 = 1;
const FIQ: u64 = 2;
const VIRQ: u64 = 4;
const VFIQ: u64 = 8;

struct Rig {
    gic: Gicv3,
    its: Its,
    memory: GuestMemory,
    cpus: Vec<Arc<VcpuSignal>>,
    queued: u64,
}

impl Rig {
    fn new(cpus: usize) -> Self {
        let memory = GuestMemory::new(&[(Gpa(RAM), RAM_LEN)]).unwrap();
        let cpus: Vec<_> = (0..cpus).map(|_| Arc::new(VcpuSignal::default())).collect();
        let gic = Gicv3::new(CpuPort::number(&cpus, INPUTS), 256, memory.clone());
        let its = Its::new(&gic, memory.clone(), Gpa(ITS_BASE));
        Self { gic, its, memory, cpus, queued: 0 }
    }

    /// Everything on as Linux has it: group 1, priority mask open, all awake.
    fn linux(cpus: usize) -> Self {
        let mut rig = Self::new(cpus);
        rig.dist(0, 0x13);
        (1..9).for_each(|bank| rig.dist(0x80 + 4 * bank, u32::MAX));
        for cpu in 0..cpus as u64 {
            rig.redist(cpu, 0x14, 0);
            rig.redist(cpu, 0x1_0080, u32::MAX);
            let interface = rig.gic.cpu_interface(cpu as usize);
            assert!(interface.write(ICC_PMR_EL1, 0xf0) && interface.write(ICC_IGRPEN1_EL1, 1));
        }
        rig
    }

    fn dist(&mut self, offset: u64, value: u32) {
        Device::write(&mut self.gic, 0, offset, 4, value.into());
    }
    fn redist(&mut self, cpu: u64, offset: u64, value: u32) {
        Device::write(&mut self.gic, 1, cpu * REDISTRIBUTOR_LEN + offset, 4, value.into());
    }
    fn redist64(&mut self, cpu: u64, offset: u64, value: u64) {
        Device::write(&mut self.gic, 1, cpu * REDISTRIBUTOR_LEN + offset, 8, value);
    }
    fn get(&mut self, region: usize, offset: u64) -> u32 {
        Device::read(&mut self.gic, region, offset, 4) as u32
    }
    /// Enables an SPI of this INTID at a priority.
    fn arm(&mut self, intid: u64, priority: u8) {
        Device::write(&mut self.gic, 0, 0x400 + intid, 1, priority.into());
        self.dist(0x100 + intid / 32 * 4, 1 << (intid % 32));
    }
    fn read(&self, cpu: usize, register: u16) -> u32 {
        self.gic.cpu_interface(cpu).read(register).unwrap() as u32
    }
    fn write(&self, cpu: usize, register: u16, value: u64) {
        assert!(self.gic.cpu_interface(cpu).write(register, value));
    }
    fn lines(&self) -> Vec<u64> {
        self.cpus.iter().map(|cpu| cpu.lines()).collect()
    }

    /// Tables for LPIs and the ITS; LPIs are enabled at every CPU.
    fn with_its(cpus: usize) -> Self {
        let mut rig = Self::linux(cpus);
        for cpu in 0..cpus as u64 {
            rig.redist64(cpu, 0x70, CONFIG | 15);
            rig.redist64(cpu, 0x78, PENDING + 0x1_0000 * cpu);
            rig.redist(cpu, 0, 1);
        }
        rig.its(0x100, 1 << 63 | DEVICES | 0xf);
        rig.its(0x108, 1 << 63 | COLLECTIONS);
        rig.its(0x80, 1 << 63 | QUEUE);
        rig.its(0, 1);
        rig
    }
    fn its(&mut self, offset: u64, value: u64) {
        Device::write(&mut self.its, 0, offset, 8, value);
    }
    fn configure(&self, lpi: u64, byte: u8) {
        self.memory.write(Gpa(CONFIG + lpi - 8192), &[byte]).unwrap();
    }
    fn command(&mut self, words: [u64; 4]) {
        for (n, word) in words.into_iter().enumerate() {
            self.memory.write(Gpa(QUEUE + self.queued + 8 * n as u64), &word.to_le_bytes()).unwrap();
        }
        self.queued = (self.queued + 32) % 0x1000;
        self.its(0x88, self.queued);
        assert_eq!(Device::read(&mut self.its, 0, 0x90, 8), self.queued);
    }
    /// Device 8's events 0 to 3 are LPIs from 8192; collections have their CPU's number.
    fn map(&mut self) {
        self.command([8 << 32 | 0x08, 1, 1 << 63 | ITT, 0]);
        for cpu in 0..self.cpus.len() as u64 {
            self.command([0x09, 0, 1 << 63 | cpu << 16 | cpu, 0]);
        }
        for event in 0..4 {
            self.command([8 << 32 | 0x0a, (8192 + event) << 32 | event, 0, 0]);
        }
    }
    fn message(&self, device: u16, data: u32) {
        self.its.msi_sink().send(device, ITS_BASE + its::TRANSLATER, data);
    }
}

fn two_cpus() -> Gicv3 {
    Rig::new(2).gic
}

device_conformance!(
    conformance,
    two_cpus(),
    Options {
        windows: &[DISTRIBUTOR_LEN, 2 * REDISTRIBUTOR_LEN],
        self_contained: true,
        ..Options::default()
    }
);
device_conformance!(
    its_conformance,
    Rig::new(2).its,
    Options { windows: &[its::WINDOW_LEN], self_contained: true, ..Options::default() }
);

#[test]
fn a_level_interrupt_is_handled() {
    let mut rig = Rig::linux(2);
    rig.arm(33, 0xa0);
    rig.gic.spi(1).set(true);
    assert_eq!(rig.lines(), [IRQ, 0]);
    assert_eq!((rig.read(0, ICC_HPPIR1_EL1), rig.read(0, ICC_IAR0_EL1)), (33, SPURIOUS));
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 33);
    assert_eq!((rig.lines(), rig.read(0, ICC_RPR_EL1)), (vec![0, 0], 0xa0));
    assert_eq!((rig.get(0, 0x304), rig.get(0, 0x204)), (2, 2), "active and pending");
    rig.write(0, ICC_EOIR1_EL1, 33);
    assert_eq!((rig.lines(), rig.read(0, ICC_RPR_EL1)), (vec![IRQ, 0], 0xff));
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 33);
    rig.gic.spi(1).set(false);
    rig.write(0, ICC_EOIR1_EL1, 33);
    assert_eq!((rig.lines(), rig.read(0, ICC_IAR1_EL1)), (vec![0, 0], SPURIOUS));
}

#[test]
fn an_edge_while_active_is_kept() {
    let mut rig = Rig::linux(1);
    rig.dist(0xc08, 2 << 2);
    rig.arm(33, 0xa0);
    rig.gic.spi(1).pulse();
    assert_eq!((rig.read(0, ICC_IAR1_EL1), rig.lines()[0]), (33, 0));
    rig.gic.spi(1).pulse();
    assert_eq!((rig.read(0, ICC_IAR1_EL1), rig.lines()[0]), (SPURIOUS, 0));
    rig.write(0, ICC_EOIR1_EL1, 33);
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 33);
}

#[test]
fn priorities_mask_order_and_preempt() {
    let mut rig = Rig::linux(1);
    for (intid, priority) in [(40, 0xa0), (41, 0x80), (42, 0x80), (43, 0xf0)] {
        rig.arm(intid, priority);
        rig.gic.spi(intid as u32 - 32).set(true);
    }
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 41);
    assert_eq!(rig.lines()[0], 0, "the same priority does not pre-empt");
    rig.arm(44, 0x78);
    rig.gic.spi(12).set(true);
    assert_eq!((rig.lines()[0], rig.read(0, ICC_IAR1_EL1)), (IRQ, 44));
    assert_eq!(rig.read(0, ICC_AP1R0_EL1), 1 << 15 | 1 << 16);
    rig.write(0, ICC_EOIR1_EL1, 44);
    assert_eq!(rig.read(0, ICC_RPR_EL1), 0x80);
    rig.gic.spi(12).set(false);
    rig.gic.spi(9).set(false);
    rig.write(0, ICC_EOIR1_EL1, 41);
    rig.write(0, ICC_PMR_EL1, 0x80);
    assert_eq!((rig.read(0, ICC_IAR1_EL1), rig.read(0, ICC_HPPIR1_EL1)), (SPURIOUS, 42));
    rig.write(0, ICC_PMR_EL1, 0xff);
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 42);
    // With a coarser binary point 0x78 is no better than 0x80's group.
    rig.write(0, ICC_BPR1_EL1, 7);
    rig.dist(0x284, 0);
    rig.arm(44, 0x00);
    rig.gic.spi(12).set(true);
    assert_eq!(rig.lines()[0], IRQ);
    rig.arm(44, 0x88);
    assert_eq!(rig.lines()[0], 0);
}

#[test]
fn deactivation_can_be_separate() {
    let mut rig = Rig::linux(1);
    rig.write(0, ICC_CTLR_EL1, 2);
    rig.arm(33, 0xa0);
    rig.gic.spi(1).set(true);
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 33);
    rig.write(0, ICC_EOIR1_EL1, 33);
    assert_eq!((rig.read(0, ICC_RPR_EL1), rig.lines()[0]), (0xff, 0));
    rig.write(0, ICC_DIR_EL1, 33);
    assert_eq!(rig.lines()[0], IRQ);
}

#[test]
fn group_0_is_an_fiq() {
    let mut rig = Rig::linux(1);
    rig.dist(0x84, 0);
    rig.write(0, ICC_IGRPEN0_EL1, 1);
    rig.arm(33, 0xa0);
    rig.gic.spi(1).set(true);
    assert_eq!((rig.lines()[0], rig.read(0, ICC_IAR1_EL1)), (FIQ, SPURIOUS));
    assert_eq!(rig.read(0, ICC_IAR0_EL1), 33);
    rig.write(0, ICC_EOIR1_EL1, 33);
    assert_eq!(rig.read(0, ICC_RPR_EL1), 0xa0, "of the other group");
    rig.write(0, ICC_EOIR0_EL1, 33);
    assert_eq!(rig.read(0, ICC_RPR_EL1), 0xff);
}

#[test]
fn sgis_reach_whom_they_name() {
    let mut rig = Rig::linux(4);
    for cpu in 0..4 {
        rig.redist(cpu, 0x1_0100, u32::MAX);
    }
    rig.write(0, ICC_SGI1R_EL1, 5 << 24 | 0b1010);
    assert_eq!(rig.lines(), [0, IRQ, 0, IRQ]);
    assert_eq!(rig.read(3, ICC_IAR1_EL1), 5);
    rig.write(3, ICC_EOIR1_EL1, 5);
    assert_eq!(rig.lines(), [0, IRQ, 0, 0]);
    rig.write(1, ICC_SGI1R_EL1, 1 << 40 | 6 << 24);
    assert_eq!(rig.lines(), [IRQ; 4]);
    assert_eq!((rig.read(1, ICC_IAR1_EL1), rig.read(0, ICC_IAR1_EL1)), (5, 6));
    // Another cluster, and another group, have nobody.
    let mut rig = Rig::linux(2);
    rig.redist(0, 0x1_0100, u32::MAX);
    rig.write(1, ICC_SGI1R_EL1, 1 << 16 | 5 << 24 | 1);
    rig.write(1, ICC_SGI0R_EL1, 5 << 24 | 1);
    assert_eq!(rig.lines(), [0, 0]);
}

#[test]
fn spis_are_routed_and_ppis_are_private() {
    let mut rig = Rig::linux(2);
    rig.arm(33, 0xa0);
    rig.gic.spi(1).set(true);
    Device::write(&mut rig.gic, 0, 0x6000 + 8 * 33, 8, 1);
    assert_eq!(rig.lines(), [0, IRQ]);
    Device::write(&mut rig.gic, 0, 0x6000 + 8 * 33, 8, 0x1_0000_0000);
    assert_eq!(rig.lines(), [0, 0], "nobody has this affinity");
    Device::write(&mut rig.gic, 0, 0x6000 + 8 * 33, 8, 1 << 31);
    assert_eq!(rig.lines(), [IRQ, 0]);
    rig.gic.spi(1).set(false);
    rig.redist(1, 0x1_0100, 1 << 27);
    rig.gic.ppi(1, 27).set(true);
    rig.gic.ppi(0, 27).set(true);
    assert_eq!(rig.lines(), [0, IRQ]);
    rig.redist(1, 0x14, 2);
    assert_eq!((rig.lines(), rig.get(1, REDISTRIBUTOR_LEN + 0x14)), (vec![0, IRQ], 6), "asleep, but woken");
}

#[test]
fn identification_is_what_drivers_expect() {
    let mut rig = Rig::new(2);
    assert_eq!((rig.get(0, 0xffe8) >> 4 & 0xf, rig.get(1, 0xffe8) >> 4 & 0xf), (3, 3));
    assert_eq!(rig.get(0, 0) & 0x50, 0x50);
    assert_eq!((rig.get(0, 4) & 0x1f, rig.get(0, 4) >> 19 & 0x1f), (8, 15));
    let typer = |rig: &mut Rig, cpu: u64| Device::read(&mut rig.gic, 1, cpu * REDISTRIBUTOR_LEN + 8, 8);
    assert_eq!((typer(&mut rig, 0), typer(&mut rig, 1)), (1, 1 << 32 | 0x111));
    assert_eq!(rig.read(0, ICC_CTLR_EL1) >> 8 & 7, 4, "five priority bits");
    assert_eq!((rig.read(0, ICC_SRE_EL1), rig.gic.cpu_interface(0).read(ICC_SGI1R_EL1)), (7, None));
    assert!(!rig.gic.cpu_interface(0).write(ICC_IAR1_EL1, 0));
    assert_eq!((rig.gic.cpu_interface(2).read(ICC_PMR_EL1), rig.get(1, 2 * REDISTRIBUTOR_LEN)), (None, 0));
}

#[test]
fn messages_become_lpis() {
    let mut rig = Rig::with_its(2);
    rig.map();
    rig.configure(8193, 0xa0 | 1);
    rig.message(8, 1);
    assert_eq!((rig.lines(), rig.read(0, ICC_IAR1_EL1)), (vec![IRQ, 0], 8193));
    assert_eq!((rig.lines()[0], rig.read(0, ICC_RPR_EL1)), (0, 0xa0));
    rig.message(8, 1);
    rig.write(0, ICC_EOIR1_EL1, 8193);
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 8193, "LPIs are never active");
    rig.write(0, ICC_EOIR1_EL1, 8193);
    // Unmapped events, devices, and addresses elsewhere.
    rig.message(8, 4);
    rig.message(9, 1);
    rig.its.msi_sink().send(8, ITS_BASE, 1);
    assert_eq!(rig.lines(), [0, 0]);
}

#[test]
fn a_disabled_lpi_waits_for_its_configuration() {
    let mut rig = Rig::with_its(2);
    rig.map();
    rig.configure(8194, 0x80);
    rig.message(8, 2);
    assert_eq!(rig.lines(), [0, 0]);
    rig.configure(8194, 0x81);
    assert_eq!(rig.lines(), [0, 0]);
    rig.command([8 << 32 | 0x0c, 2, 0, 0]);
    assert_eq!(rig.lines(), [IRQ, 0]);
    rig.configure(8194, 0x80);
    rig.command([0x0d, 0, 0, 0]);
    assert_eq!(rig.lines(), [0, 0]);
    rig.configure(8194, 0x81);
    rig.command([0x0d, 0, 0, 0]);
    rig.command([8 << 32 | 0x01, 2, 1, 0]);
    assert_eq!(rig.lines(), [0, IRQ], "moved while pending");
    rig.command([0x0e, 0, 1 << 16, 0]);
    assert_eq!(rig.lines(), [IRQ, 0]);
    rig.message(8, 2);
    assert_eq!(rig.lines(), [IRQ, IRQ]);
    rig.command([8 << 32 | 0x04, 2, 0, 0]);
    assert_eq!(rig.lines(), [IRQ, 0]);
    rig.command([8 << 32 | 0x0f, 2, 0, 0]);
    rig.message(8, 2);
    assert_eq!((rig.lines(), rig.read(0, ICC_IAR1_EL1)), (vec![IRQ, 0], 8194));
}

#[test]
fn pending_lpis_go_to_memory_and_come_back() {
    let mut rig = Rig::with_its(1);
    rig.map();
    rig.configure(8195, 0x81);
    rig.message(8, 3);
    rig.redist(0, 0, 0);
    let mut byte = [0];
    rig.memory.read(Gpa(PENDING + 8192 / 8), &mut byte).unwrap();
    assert_eq!((byte[0], rig.lines()[0]), (8, 0));
    rig.message(8, 2);
    rig.redist(0, 0, 1);
    assert_eq!((rig.lines()[0], rig.read(0, ICC_IAR1_EL1)), (IRQ, 8195));
    assert_eq!(rig.read(0, ICC_IAR1_EL1), SPURIOUS);
    rig.redist(0, 0, 0);
    rig.redist64(0, 0x78, 1 << 62 | PENDING);
    rig.memory.write(Gpa(PENDING + 8192 / 8), &[0xff]).unwrap();
    rig.redist(0, 0, 1);
    assert_eq!(rig.lines()[0], 0, "software said the table is zeros");
}

#[test]
fn two_level_tables_are_walked() {
    let mut rig = Rig::with_its(1);
    rig.its(0, 0);
    rig.its(0x100, 3 << 62 | DEVICES);
    rig.its(0, 1);
    rig.map();
    rig.configure(8192, 0x81);
    rig.message(8, 0);
    assert_eq!(rig.lines()[0], 0, "no second level");
    rig.memory.write(Gpa(DEVICES), &(1 << 63 | (DEVICES + 0x1000)).to_le_bytes()).unwrap();
    rig.map();
    rig.message(8, 0);
    assert_eq!(rig.lines()[0], IRQ);
}

#[test]
fn a_full_queue_of_anything_ends() {
    let mut rig = Rig::with_its(2);
    rig.map();
    for at in (0..0x1000).step_by(32) {
        let words = [[8 << 32 | 0x03u64, at / 32 % 4, 0, 0], [0x0d, 0, 1, 0], [0x0e, 0, 0, 1 << 16]]
            [at as usize / 32 % 3];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        rig.memory.write(Gpa(QUEUE + at), &bytes).unwrap();
    }
    for round in 0..50u64 {
        rig.its(0x88, (rig.queued + 0x1000 - 32 * (1 + round)) % 0x1000);
    }
    // Beyond the queue: nothing moves.
    rig.its(0x88, 0x2000);
    let stuck = Device::read(&mut rig.its, 0, 0x90, 8);
    assert!(stuck < 0x1000);
    assert_eq!(Device::read(&mut rig.its, 0, 0x88, 8), 0x2000);
}

#[test]
fn a_snapshot_keeps_pending_lpis() {
    let mut rig = Rig::with_its(1);
    rig.map();
    rig.configure(8192, 0x81);
    rig.message(8, 0);
    let state = Device::save(&rig.gic);
    let mut other = Rig::new(1);
    Device::restore(&mut other.gic, state.clone()).unwrap();
    assert_eq!((other.lines()[0], other.read(0, ICC_IAR1_EL1)), (IRQ, 8192));
    assert!(Device::restore(&mut Rig::new(2).gic, state).is_err(), "another number of CPUs");
    Device::reset(&mut other.gic);
    assert_eq!(Device::save(&other.gic), Device::save(&Rig::new(1).gic));
}

/// A list register: pending, of group 1, at priority 0xa0.
fn pending(vintid: u64) -> u64 {
    1 << 62 | 1 << 60 | 0xa0 << 48 | vintid
}

/// A hypervisor on one CPU whose guest has group 1 on and its priority mask open.
fn hypervisor() -> Rig {
    let rig = Rig::linux(1);
    rig.write(0, ICH_HCR_EL2, 1);
    let guest = rig.gic.cpu_interface(0);
    assert!(guest.write_virtual(ICC_PMR_EL1, 0xf0) && guest.write_virtual(ICC_IGRPEN1_EL1, 1));
    rig
}

#[test]
fn a_guest_handles_what_its_hypervisor_lists() {
    let rig = hypervisor();
    let guest = rig.gic.cpu_interface(0);
    assert_eq!(rig.read(0, ICH_VTR_EL2) & 0x1f, 3);
    rig.write(0, ICH_LR0_EL2 + 2, pending(40));
    rig.write(0, ICH_LR0_EL2 + 1, pending(41) & !(0xff << 48) | 0xb0 << 48);
    assert_eq!((rig.lines()[0], rig.read(0, ICH_ELRSR_EL2)), (VIRQ, 0b1001));
    assert_eq!((guest.read_virtual(ICC_IAR0_EL1), guest.read_virtual(ICC_IAR1_EL1)), (Some(1023), Some(40)));
    assert_eq!((rig.lines()[0], guest.read_virtual(ICC_RPR_EL1)), (0, Some(0xa0)));
    assert_eq!(guest.read(ICH_LR0_EL2 + 2).unwrap() >> 62, 2, "active");
    assert!(guest.write_virtual(ICC_EOIR1_EL1, 40));
    assert_eq!((guest.read(ICH_LR0_EL2 + 2).unwrap() >> 62, rig.lines()[0]), (0, VIRQ));
    assert_eq!(guest.read_virtual(ICC_IAR1_EL1), Some(41));
    // Group 0 is a virtual FIQ.
    rig.write(0, ICH_LR0_EL2, pending(42) & !(1 << 60 | 0xff << 48));
    assert_eq!(rig.lines()[0], 0);
    assert!(guest.write_virtual(ICC_IGRPEN0_EL1, 1));
    assert_eq!((rig.lines()[0], guest.read_virtual(ICC_HPPIR0_EL1)), (VFIQ, Some(42)));
    rig.write(0, ICH_HCR_EL2, 0);
    assert_eq!(rig.lines()[0], 0);
    assert_eq!((guest.read_virtual(ICC_SGI1R_EL1), guest.write_virtual(ICC_SGI1R_EL1, 0)), (None, false));
    assert_eq!((guest.read(ICH_LR0_EL2 + 4), guest.write(ICH_LR0_EL2 + 4, 0)), (None, false));
}

#[test]
fn a_guest_deactivates_the_hardware_interrupt() {
    let mut rig = hypervisor();
    let guest = rig.gic.cpu_interface(0);
    rig.write(0, ICC_CTLR_EL1, 2);
    rig.arm(33, 0xa0);
    rig.gic.spi(1).set(true);
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 33);
    rig.write(0, ICC_EOIR1_EL1, 33);
    rig.write(0, ICH_LR0_EL2, pending(50) | 1 << 61 | 33 << 32);
    assert_eq!((guest.read_virtual(ICC_IAR1_EL1), rig.lines()[0]), (Some(50), 0));
    assert!(guest.write_virtual(ICC_EOIR1_EL1, 50));
    assert_eq!(rig.lines()[0], IRQ, "33 is active no more, and still high");
}

#[test]
fn maintenance_is_asked_for() {
    let mut rig = hypervisor();
    let guest = rig.gic.cpu_interface(0);
    rig.redist(0, 0x1_0100, 1 << 25);
    rig.write(0, ICH_LR0_EL2, pending(40) | 1 << 41);
    rig.write(0, ICH_LR0_EL2 + 1, pending(41));
    rig.write(0, ICH_HCR_EL2, 1 | 1 << 1);
    assert_eq!(rig.lines()[0], VIRQ);
    assert_eq!(guest.read_virtual(ICC_IAR1_EL1), Some(40));
    assert!(guest.write_virtual(ICC_EOIR1_EL1, 40));
    assert_eq!((rig.lines()[0], rig.read(0, ICH_MISR_EL2), rig.read(0, ICH_EISR_EL2)), (IRQ | VIRQ, 3, 1));
    assert_eq!(rig.read(0, ICC_IAR1_EL1), 25);
    rig.write(0, ICH_LR0_EL2, 0);
    rig.write(0, ICH_HCR_EL2, 1 | 1 << 2);
    assert_eq!(rig.read(0, ICH_MISR_EL2), 0);
    rig.write(0, ICC_EOIR1_EL1, 25);
    assert_eq!(rig.lines()[0], VIRQ);
    // An end without a list register is counted.
    assert_eq!(guest.read_virtual(ICC_IAR1_EL1), Some(41));
    rig.write(0, ICH_LR0_EL2 + 1, 0);
    assert!(guest.write_virtual(ICC_EOIR1_EL1, 41));
    assert_eq!((rig.read(0, ICH_HCR_EL2) >> 27, rig.lines()[0]), (1, IRQ));
}
