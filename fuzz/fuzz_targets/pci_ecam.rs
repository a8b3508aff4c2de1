//! Any configuration accesses to a PCI host with virtio functions, and accesses through BARs wherever they are.
#![no_main]

use isomer_core::{Bus, Device, Gpa, IrqLine};
use isomer_devices::{
    pci::{MsiSink, PciHost, PciHostConfig, PciWindow, Space},
    virtio::{pci::VirtioPci, rng::VirtioRng},
};
use isomer_fuzz::{
    device::{Shape, drive},
    input::Input,
    seeds,
    virtio::{blk, console, disk, ram},
};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, Mutex};

/// Where memory BARs are on the bus; the I/O window is at 0x1000_0000.
const MMIO32: u64 = 0x4000_0000;
const MMIO64: u64 = 0x4_0000_0000;
/// From one device's configuration space to the next's.
const SLOT: u64 = 1 << 15;
const SHAPE: Shape =
    Shape { windows: &[5 * SLOT], landmarks: &[0, SLOT, 2 * SLOT, 3 * SLOT, SLOT + 0x40, 3 * SLOT + 0x40] };

struct Messages;

impl MsiSink for Messages {
    fn send(&self, _: u16, _: u64, _: u32) {}
}

/// Places the BARs of slots 1 to 3.
const PLACED: [u8; 9] = [14, 0, 1, 14, 0, 2, 14, 0, 3];

fuzz_target!(init: seeds::plant([("placed", PLACED.to_vec())]), |data: &[u8]| {
    let (memory, disk) = (ram(), disk());
    // A bus a host: the one that takes over a state maps its own BARs.
    let buses: Mutex<Vec<Arc<Bus>>> = Mutex::default();
    let make = || {
        let bus = Arc::new(Bus::default());
        let mut host = PciHost::new(&bus, config());
        let msi = || Some(Arc::new(Messages) as Arc<dyn MsiSink>);
        let rng = Arc::new(Mutex::new(VirtioPci::new(VirtioRng::new(), memory.clone(), msi())));
        let blk = Arc::new(Mutex::new(VirtioPci::new(blk(&disk), memory.clone(), None)));
        let console = Arc::new(Mutex::new(VirtioPci::new(console(), memory.clone(), msi())));
        let added = [host.add(None, rng), host.add(Some(2), blk), host.add(Some(3), console)];
        assert!(added.into_iter().all(|slot| slot.is_ok()));
        buses.lock().expect("no thread panics").push(bus);
        host
    };
    drive(data, SHAPE, make, |host, input| {
        let bus = buses.lock().expect("no thread panics").last().cloned();
        match bus {
            Some(_) if input.u8() % 4 == 0 => place_bars(host, input),
            Some(bus) => access(&bus, input),
            None => (),
        }
    });
});

fn config() -> PciHostConfig {
    let window = |space, bus_base, cpu_base, len| PciWindow { space, bus_base, cpu_base: Gpa(cpu_base), len };
    PciHostConfig {
        windows: vec![
            window(Space::Io, 0, 0x1000_0000, 0x1_0000),
            window(Space::Memory, MMIO32, MMIO32, 1 << 30),
            window(Space::Memory, MMIO64, MMIO64, 16 << 30),
        ],
        wires: [(); 4].map(|()| IrqLine::unconnected()),
        specifiers: [0x20, 0x21, 0x22, 0x23].map(|irq| vec![irq]),
        controller: "plic".into(),
        msi_controller: None,
    }
}

/// As a guest enumerates: BARs 1 and 4 of a slot at addresses of their own, then memory decoding and bus mastering.
fn place_bars(host: &mut PciHost, input: &mut Input<'_>) {
    let slot = input.below(5) as u64;
    let at = |register| slot * SLOT + register;
    Device::write(host, 0, at(0x14), 4, MMIO32 + slot * 0x1_0000);
    Device::write(host, 0, at(0x20), 4, slot * 0x1_0000);
    Device::write(host, 0, at(0x24), 4, MMIO64 >> 32);
    Device::write(host, 0, at(0x04), 2, 0x6);
}

/// An access where a BAR probably is: page, offset and size, then the value to write.
fn access(bus: &Bus, input: &mut Input<'_>) {
    let base = input.pick(&[MMIO32, MMIO64, 0x1000_0000]);
    let (slot, offset, size) = (input.u8() as u64 % 5, u64::from(input.u16()), 1 << input.below(4));
    let gpa = Gpa(base + slot * 0x1_0000 + offset);
    if input.flag() {
        bus.write(gpa, size, input.uint(size));
    } else if let Some(value) = bus.read(gpa, size) {
        assert!(size == 8 || value >> (8 * size) == 0, "{value:#x} read with {size} bytes at {gpa}");
    }
}
