//! Tests of the host bridge as a guest meets it: enumeration through the configuration window, BARs that come, move
//! and go on the machine's bus, shared interrupt wires, states.

use super::{
    Bar, BarKind, ConfigSpace, ConfigState, Identity, PciError, PciFunction, PciHost, PciHostConfig,
    PciWindow, Space,
};
use crate::conformance::Options;
use crate::virtio::{pci::VirtioPci, rng::VirtioRng, testing};
use isomer_core::device::FwCell;
use isomer_core::{Bus, Device, DynDevice, FwNode, FwValue, Gpa, Placement, StateError};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use testing::Wire;

const ECAM: u64 = 0x3000_0000;
const PIO: u64 = 0x300_0000;
const MMIO32: u64 = 0x4000_0000;
const MMIO64: u64 = 0x4_0000_0000;

/// The windows and interrupts of the riscv64 board.
fn board(wires: &[Arc<Wire>; 4]) -> PciHostConfig {
    let window = |space, bus_base, cpu_base, len| PciWindow { space, bus_base, cpu_base: Gpa(cpu_base), len };
    PciHostConfig {
        windows: vec![
            window(Space::Io, 0, PIO, 0x1_0000),
            window(Space::Memory, MMIO32, MMIO32, 1 << 30),
            window(Space::Memory, MMIO64, MMIO64, 16 << 30),
        ],
        wires: wires.each_ref().map(Wire::line),
        specifiers: [0x20, 0x21, 0x22, 0x23].map(|irq| vec![irq]),
        controller: "plic".into(),
        msi_controller: Some("its".into()),
    }
}

/// A function with a BAR of each kind whose every byte reads as the BAR's number, and an interrupt on request.
struct Plain {
    config: ConfigSpace,
    written: u64,
}

impl Plain {
    fn new(interrupt_pin: u8) -> Self {
        let identity = Identity {
            vendor: 0x1234,
            device: 0x5678,
            class: 0xff_0000,
            interrupt_pin,
            ..Identity::default()
        };
        let config = ConfigSpace::new(&identity)
            .with_bar(Bar { index: 0, kind: BarKind::Io, len: 0x20 })
            .with_bar(Bar { index: 1, kind: BarKind::Memory32, len: 0x1000 })
            .with_bar(Bar { index: 2, kind: BarKind::Memory64, len: 0x1_0000 });
        Self { config, written: 0 }
    }
}

impl Device for Plain {
    const NAME: &'static str = "plain-function";
    const VERSION: u32 = 1;
    type State = (ConfigState, bool);

    fn read(&mut self, region: usize, _offset: u64, size: usize) -> u64 {
        (0x0101_0101_0101_0101 * region as u64) & (u64::MAX >> (64 - 8 * size))
    }
    fn write(&mut self, _region: usize, _offset: u64, _size: usize, value: u64) {
        self.written += 1;
        self.config.intx().set(value != 0);
    }
    fn reset(&mut self) {
        self.config.reset();
        self.config.intx().set(false);
    }
    fn save(&self) -> Self::State {
        (self.config.save(), self.config.intx().is_asserted())
    }
    fn restore(&mut self, (config, asserted): Self::State) -> Result<(), StateError> {
        if !self.config.accepts(&config) {
            return Err(StateError::Damaged { device: Self::NAME, why: "configuration".into() });
        }
        self.config.restore(&config);
        self.config.intx().set(asserted);
        Ok(())
    }
}

impl PciFunction for Plain {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

/// A machine with the bridge and `count` plain functions in slots 1 up.
struct Machine {
    bus: Arc<Bus>,
    host: Arc<Mutex<PciHost>>,
    wires: [Arc<Wire>; 4],
}

impl Machine {
    fn new(count: u8) -> Self {
        let (bus, wires) = (Arc::new(Bus::default()), <[Arc<Wire>; 4]>::default());
        let mut host = PciHost::new(&bus, board(&wires));
        for slot in 1..=count {
            assert_eq!(host.add(None, Arc::new(Mutex::new(Plain::new(1)))).unwrap(), slot);
        }
        let host = Arc::new(Mutex::new(host));
        bus.map(Gpa(ECAM), super::ECAM_BYTES, 0, host.clone()).unwrap();
        Self { bus, host, wires }
    }

    fn config(&self, slot: u8, register: u64, size: usize) -> u64 {
        self.bus.read(Gpa(ECAM + (u64::from(slot) << 15) + register), size).unwrap()
    }

    fn set_config(&self, slot: u8, register: u64, size: usize, value: u64) {
        assert!(self.bus.write(Gpa(ECAM + (u64::from(slot) << 15) + register), size, value));
    }

    /// Places the three BARs of `slot` and enables decoding.
    fn place(&self, slot: u8, io: u64, memory32: u64, memory64: u64) {
        self.set_config(slot, 0x10, 4, io);
        self.set_config(slot, 0x14, 4, memory32);
        self.set_config(slot, 0x18, 4, memory64 & 0xffff_ffff);
        self.set_config(slot, 0x1c, 4, memory64 >> 32);
        self.set_config(slot, 4, 2, 7);
    }
}

#[test]
fn functions_are_found_and_sized() {
    let machine = Machine::new(2);
    assert_eq!(machine.config(0, 0, 4), 0x0008_1b36);
    assert_eq!(machine.config(0, 8, 4), 0x0600_0000);
    assert_eq!(machine.config(1, 0, 8), 0x5678_1234);
    assert_eq!(machine.config(1, 2, 1), 0x78);
    // Absent: another slot, another function of a slot, another bus.
    assert_eq!(machine.config(3, 0, 2), 0xffff);
    assert_eq!(machine.config(0, 0x1000, 4), 0xffff_ffff);
    assert_eq!(machine.bus.read(Gpa(ECAM + (1 << 20)), 8), Some(u64::MAX));
    // Sizing, with memory decoding off.
    for (register, mask) in
        [(0x10, 0xffff_ffe1), (0x14, 0xffff_f000), (0x18, 0xffff_000c), (0x1c, 0xffff_ffff)]
    {
        machine.set_config(1, register, 4, 0xffff_ffff);
        assert_eq!(machine.config(1, register, 4), mask);
    }
    // Identification is read-only, the interrupt line is software's.
    machine.set_config(1, 0, 8, u64::MAX);
    machine.set_config(1, 0x3c, 4, 0xffff_ff0b);
    assert_eq!((machine.config(1, 0, 4), machine.config(1, 0x3c, 4)), (0x5678_1234, 0x010b));
    assert_eq!(machine.config(1, 4, 4), 0x0547);
}

#[test]
fn bars_appear_move_and_go() {
    let machine = Machine::new(1);
    machine.place(1, 0x1000, MMIO32 + 0x5000, MMIO64 + 0x20_0000);
    assert_eq!(machine.bus.read(Gpa(PIO + 0x101f), 1), Some(0));
    assert_eq!(machine.bus.read(Gpa(PIO + 0x1020), 1), None);
    assert_eq!(machine.bus.read(Gpa(MMIO32 + 0x5ffc), 4), Some(0x0101_0101));
    assert_eq!(machine.bus.read(Gpa(MMIO64 + 0x20_0000), 2), Some(0x0202));
    machine.set_config(1, 0x14, 4, MMIO32);
    assert_eq!(machine.bus.read(Gpa(MMIO32 + 0x5ffc), 4), None);
    assert_eq!(machine.bus.read(Gpa(MMIO32), 4), Some(0x0101_0101));
    machine.set_config(1, 4, 2, 1);
    assert_eq!(machine.bus.read(Gpa(MMIO32), 4), None);
    assert_eq!(machine.bus.read(Gpa(PIO + 0x1000), 4), Some(0));
    machine.set_config(1, 4, 2, 7);
    assert_eq!(machine.bus.read(Gpa(MMIO32), 4), Some(0x0101_0101));
    Device::reset(&mut *machine.host.lock().unwrap());
    for gpa in [PIO + 0x1000, MMIO32, MMIO64 + 0x20_0000] {
        assert_eq!(machine.bus.read(Gpa(gpa), 1), None);
    }
    assert_eq!(machine.config(1, 0x14, 4), 0);
}

#[test]
fn bars_stay_in_their_windows_and_apart() {
    let machine = Machine::new(3);
    // Over RAM, over the configuration window, over the edges of the windows.
    for bad in [0, 0x8000_0000, ECAM, MMIO32 - 0x1000, MMIO32 + (1 << 30)] {
        machine.place(1, 0xffff_ffe0, bad, bad);
        assert_eq!(machine.bus.read(Gpa(MMIO32), 1), None);
        assert_eq!(machine.config(1, 0, 4), 0x5678_1234, "the configuration window is hidden");
        assert_eq!(format!("{:?}", machine.bus).matches("plain").count(), 0);
    }
    machine.place(1, 0xffe0, MMIO32 + (1 << 30) - 0x1000, MMIO64 + (16 << 30) - 0x1_0000);
    assert_eq!(format!("{:?}", machine.bus).matches("plain").count(), 3);
    // Overlap: the lower slot answers, whatever the order of events; the other takes over when it leaves.
    machine.place(3, 0, MMIO32, MMIO32);
    machine.place(2, 0x20, MMIO32, MMIO64);
    assert_eq!(machine.bus.read(Gpa(MMIO32), 1), Some(1));
    assert!(machine.bus.write(Gpa(MMIO32), 1, 1));
    assert!(machine.wires[2].level() && !machine.wires[3].level());
    machine.set_config(2, 4, 2, 0);
    assert!(machine.bus.write(Gpa(MMIO32), 1, 1));
    assert!(machine.wires[3].level());
    assert_eq!(machine.bus.read(Gpa(MMIO32 + 0x8000), 1), None, "BAR 2 of slot 3 overlaps its BAR 1");
}

#[test]
fn wires_are_shared() {
    let machine = Machine::new(9);
    for slot in [1, 5, 9] {
        machine.place(slot, 0x20 * u64::from(slot), MMIO32 + 0x1000 * u64::from(slot), 0);
    }
    let set = |slot: u64, level| assert!(machine.bus.write(Gpa(MMIO32 + 0x1000 * slot), 4, level));
    set(1, 1);
    set(5, 1);
    set(1, 0);
    assert!(machine.wires[1].level(), "slot 5 still asserts the wire");
    assert_eq!((machine.config(1, 6, 2) & 8, machine.config(5, 6, 2) & 8), (0, 8));
    set(9, 1);
    set(5, 0);
    machine.set_config(9, 4, 2, 0x407);
    assert!(!machine.wires[1].level(), "slot 9 has its interrupt disabled");
    assert_eq!(machine.wires.each_ref().map(|wire| wire.rises()), [0, 1, 0, 0]);
}

#[test]
fn slots_run_out() {
    let (bus, wires) = (Arc::new(Bus::default()), <[Arc<Wire>; 4]>::default());
    let mut host = PciHost::new(&bus, board(&wires));
    let function = || Arc::new(Mutex::new(Plain::new(1)));
    assert!(matches!(host.add(Some(0), function()), Err(PciError::Slot(0))));
    assert!(matches!(host.add(Some(32), function()), Err(PciError::Slot(32))));
    assert!(matches!(host.add(None, Arc::new(Mutex::new(Plain::new(5)))), Err(PciError::Pin { .. })));
    assert_eq!(host.add(Some(31), function()).unwrap(), 31);
    (1..31).for_each(|slot| assert_eq!(host.add(None, function()).unwrap(), slot));
    assert!(matches!(host.add(None, function()), Err(PciError::Full)));
}

#[test]
fn a_restored_bridge_has_its_bars() {
    let machine = Machine::new(2);
    machine.place(1, 0x1000, MMIO32, MMIO64);
    machine.place(2, 0x1020, MMIO32 + 0x1000, MMIO64 + 0x1_0000);
    assert!(machine.bus.write(Gpa(MMIO32), 4, 1));
    let state = DynDevice::save(&*machine.host.lock().unwrap()).unwrap();
    let other = Machine::new(2);
    other.place(2, 0, MMIO32 + 0x4000, MMIO64);
    DynDevice::restore(&mut *other.host.lock().unwrap(), &state).unwrap();
    assert_eq!(format!("{:?}", other.bus), format!("{:?}", machine.bus));
    assert!(other.wires[1].level());
    // Of another machine: refused, nothing changes.
    let third = Machine::new(3);
    assert!(DynDevice::restore(&mut *third.host.lock().unwrap(), &state).is_err());
    // Slot 1 is fine, slot 2 is not: slot 1 stays as it was, too.
    let host = &mut *other.host.lock().unwrap();
    let mut mixed = Device::save(host);
    mixed.functions[1].1.bytes.fill(0xff);
    mixed.functions[2].1.bytes[5] ^= 0xff;
    let before = Device::save(host);
    assert!(Device::restore(host, mixed).is_err());
    assert_eq!(Device::save(host), before);
}

#[test]
fn the_device_tree_says_where_everything_is() {
    let wires = <[Arc<Wire>; 4]>::default();
    let host = PciHost::new(&Arc::default(), board(&wires));
    let at = Placement { regions: vec![(ECAM, super::ECAM_BYTES)], irqs: vec![] };
    let node: FwNode = Device::fw_node(&host, &at).unwrap();
    let property = |name: &str| &node.properties.iter().find(|(key, _)| key == name).unwrap().1;
    assert_eq!((node.name.as_str(), node.unit_address), ("pci", Some(ECAM)));
    let ranges = [
        [0x0100_0000, 0, 0, 0, 0x0300_0000, 0, 0x1_0000],
        [0x0200_0000, 0, 0x4000_0000, 0, 0x4000_0000, 0, 0x4000_0000],
        [0x0300_0000, 4, 0, 4, 0, 4, 0],
    ];
    assert_eq!(*property("ranges"), FwValue::Cells(ranges.concat()));
    assert_eq!(*property("bus-range"), FwValue::Cells(vec![0, 255]));
    let FwValue::Mixed(map) = property("interrupt-map") else { panic!("interrupt-map has no phandles") };
    assert_eq!(map.len(), 16 * 6);
    // Slot 2, INTC#: wire (2 + 3 - 1) % 4.
    let entry = [0x1000, 0, 0, 3].map(FwCell::Cell);
    assert_eq!(map[10 * 6..10 * 6 + 4], entry);
    assert_eq!(map[10 * 6 + 4..11 * 6], [FwCell::Phandle("plic".into()), FwCell::Cell(0x20)]);
}

#[test]
fn a_virtio_function_works_through_the_bridge() {
    let (bus, wires) = (Arc::new(Bus::default()), <[Arc<Wire>; 4]>::default());
    let ram = testing::ram();
    let mut host = PciHost::new(&bus, board(&wires));
    let function = VirtioPci::new(VirtioRng::new(), ram.clone(), None);
    let slot = host.add(Some(6), Arc::new(Mutex::new(function))).unwrap();
    bus.map(Gpa(ECAM), super::ECAM_BYTES, 0, Arc::new(Mutex::new(host))).unwrap();
    let base = ECAM + (u64::from(slot) << 15);
    bus.write(Gpa(base + 0x20), 8, MMIO64 + 0x4000);
    bus.write(Gpa(base + 4), 2, 6);
    let bar = MMIO64 + 0x4000;
    let set = |at, size, value| assert!(bus.write(Gpa(bar + at), size, value));
    set(20, 1, 3);
    set(8, 4, 1);
    set(12, 4, 1);
    set(20, 1, 11);
    for (at, value) in [(32, 0), (40, 0x1000), (48, 0x2000)] {
        set(at, 8, testing::RAM_BASE + value);
    }
    set(28, 2, 1);
    set(20, 1, 15);
    let descriptor = u128::from(testing::RAM_BASE + 0x3000) | 64 << 64 | 2 << 96;
    ram.write(Gpa(testing::RAM_BASE), &descriptor.to_le_bytes()).unwrap();
    ram.write(Gpa(testing::RAM_BASE + 0x1002), &[1, 0, 0, 0]).unwrap();
    set(0x3000, 2, 0);
    let mut data = [0; 64];
    ram.read(Gpa(testing::RAM_BASE + 0x3000), &mut data).unwrap();
    assert_ne!(data, [0; 64]);
    assert!(wires[2].level());
    assert_eq!(bus.read(Gpa(bar + 0x1000), 1), Some(1));
    assert!(!wires[2].level());
}

#[test]
fn nothing_keeps_a_machine_alive() {
    let machine = Machine::new(1);
    machine.place(1, 0, MMIO32, MMIO64);
    let bus = Arc::downgrade(&machine.bus);
    drop(machine);
    assert_eq!(bus.strong_count(), 0);
}

fn virtio_host() -> PciHost {
    let wires = <[Arc<Wire>; 4]>::default();
    let mut host = PciHost::new(&Arc::new(Bus::default()), board(&wires));
    let messages = Arc::new(testing::Messages::default());
    let function = VirtioPci::new(VirtioRng::new(), testing::ram(), Some(messages));
    host.add(None, Arc::new(Mutex::new(function))).unwrap();
    host.add(None, Arc::new(Mutex::new(Plain::new(2)))).unwrap();
    host
}

device_conformance!(
    host_conformance,
    virtio_host(),
    Options { windows: &[0x1_8000], self_contained: true, ..Options::default() }
);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a guest writes to BARs and command registers, what the bus shows are BARs inside the windows.
    #[test]
    fn no_bar_leaves_its_window(
        writes in prop::collection::vec(
            (1..4u8, prop_oneof![Just(4u64), 0x10..0x20u64], prop::sample::select(vec![1usize, 2, 4, 8]),
                prop_oneof![any::<u64>(), Just(7), (0..0x8000u64).prop_map(|n| MMIO32 + 0x1000 * n),
                    (0..0x40u64).prop_map(|n| 0x400 * n)]),
            1..60,
        ),
    ) {
        let machine = Machine::new(3);
        for (slot, register, size, value) in writes {
            machine.set_config(slot, register, size, value & u64::MAX >> (64 - 8 * size));
        }
        prop_assert_eq!(machine.config(0, 0, 4), 0x0008_1b36);
        let host = machine.host.lock().unwrap();
        let inside = |start: u64, len: u64| {
            [(PIO, 0x1_0000), (MMIO32, 1u64 << 30), (MMIO64, 16 << 30)]
                .iter()
                .any(|&(base, size)| start >= base && start + len <= base + size)
        };
        for mapping in &host.mapped {
            prop_assert!(inside(mapping.gpa.0, mapping.len));
            let others = host.mapped.iter().filter(|other| *other != mapping);
            for other in others {
                prop_assert!(mapping.gpa.0 + mapping.len <= other.gpa.0 || other.gpa.0 + other.len <= mapping.gpa.0);
            }
        }
        let shown = format!("{:?}", machine.bus).matches("plain").count();
        prop_assert_eq!(shown, host.mapped.len());
    }
}
