//! A hostile driver of virtio devices over MMIO: rings anywhere, descriptors of any content, registers in any order;
//! and enough of a well-behaved one that requests get through to the device.

use crate::{
    device::{Shape, drive},
    input::Input,
};
use isomer_core::{Device, Gpa, GuestMemory, IrqLine};
use isomer_devices::{
    backend::{
        block::{BlockBackend, IoVector, IoVectorMut},
        char::Discard,
        net::{MacAddr, UserNet, UserNetOptions},
    },
    virtio::{
        VirtioDevice,
        blk::{BlkOptions, VirtioBlk},
        console::{PortOptions, VirtioConsole},
        mmio::{VirtioMmio, WINDOW_BYTES},
        net::{NetOptions, VirtioNet},
    },
};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// Start of RAM.
pub const RAM: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 256 << 10;
/// From one queue's rings to the next's.
const QUEUE_STRIDE: u64 = 0x2000;
/// From a queue's descriptor table to its driver area, and to its device area.
const DRIVER_AREA: u64 = 0x1000;
const DEVICE_AREA: u64 = 0x1800;
/// Where buffers are usually put.
const BUFFERS: u64 = RAM + 0x2_0000;
/// Sectors of [`disk`].
const DISK_SECTORS: usize = 64;

/// The register window of virtio over MMIO, with landmarks at the registers that matter most.
pub const SHAPE: Shape = Shape {
    windows: &[WINDOW_BYTES],
    landmarks: &[0x0, 0x20, 0x30, 0x44, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0x100],
};

/// RAM of one run.
pub fn ram() -> GuestMemory {
    GuestMemory::new(&[(Gpa(RAM), RAM_BYTES)]).expect("the host has 256 KiB")
}

/// Register accesses, ring operations and the host's events on the device from `make`.
pub fn drive_mmio<V: VirtioDevice>(
    data: &[u8],
    make: impl Fn() -> V,
    mut host: impl FnMut(&V, &mut Input<'_>),
) {
    let memory = ram();
    let device = || VirtioMmio::new(make(), memory.clone(), IrqLine::unconnected());
    drive(data, SHAPE, device, |device, input| match input.u8() % 8 {
        0 => host(device.device(), input),
        step => ring_step(device, &memory, step, input),
    });
}

/// Ring operations only, on a device that is set up and live from the start.
pub fn drive_rings<V: VirtioDevice>(
    input: &mut Input<'_>,
    device: V,
    mut host: impl FnMut(&V, &mut Input<'_>),
) {
    let memory = ram();
    let mut device = VirtioMmio::new(device, memory.clone(), IrqLine::unconnected());
    set_up(&mut device, u64::MAX, 2);
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => host(device.device(), input),
            step => ring_step(&mut device, &memory, step, input),
        }
    }
    Device::quiesce(&mut device);
}

fn ring_step<V: VirtioDevice>(
    device: &mut VirtioMmio<V>,
    memory: &GuestMemory,
    step: u8,
    input: &mut Input<'_>,
) {
    match step {
        1 => {
            let features = input.number();
            set_up(device, features, input.u8());
        }
        2 | 3 => write_descriptor(memory, input),
        4 | 5 => {
            let queue = input.below(8) as u64;
            publish(memory, queue, input.u8().into());
            set(device, 0x50, queue);
        }
        6 => {
            let at = Gpa(RAM + u64::from(input.u16()) * 2);
            let len = usize::from(input.u8());
            // What lies behind RAM is not written.
            let _ = memory.write(at, input.take(len));
        }
        _ => {
            set(device, 0x64, 3);
            set(device, 0x50, input.below(16) as u64);
        }
    }
}

/// Writes a 32-bit register.
fn set<V: VirtioDevice>(device: &mut VirtioMmio<V>, register: u64, value: u64) {
    Device::write(device, 0, register, 4, value & 0xffff_ffff);
}

/// Negotiates what is offered of `features`, and makes every queue ready with `2 << (size & 7)` descriptors.
fn set_up<V: VirtioDevice>(device: &mut VirtioMmio<V>, features: u64, size: u8) {
    set(device, 0x70, 0);
    set(device, 0x70, 3);
    for half in 0..2 {
        set(device, 0x14, half);
        set(device, 0x24, half);
        let offered = Device::read(device, 0, 0x10, 4);
        // VERSION_1, the first bit of the upper half, must be accepted.
        set(device, 0x20, offered & (features >> (32 * half) | half));
    }
    set(device, 0x70, 11);
    for queue in 0..8 {
        let rings = RAM + queue * QUEUE_STRIDE;
        set(device, 0x30, queue);
        set(device, 0x38, 2 << (size & 7));
        for (register, address) in [(0x80, rings), (0x90, rings + DRIVER_AREA), (0xa0, rings + DEVICE_AREA)] {
            set(device, register, address);
            set(device, register + 4, address >> 32);
        }
        set(device, 0x44, 1);
    }
    set(device, 0x70, 15);
}

/// Writes one descriptor of a queue's table, or of a table among the buffers for indirect use.
fn write_descriptor(memory: &GuestMemory, input: &mut Input<'_>) {
    let (queue, index) = (input.u8() as u64 % 9, input.u8() as u64);
    let table = if queue == 8 { BUFFERS } else { RAM + queue * QUEUE_STRIDE };
    let address = match input.u8() {
        wild @ 0xf0.. => input.number().wrapping_add(u64::from(wild & 1) * RAM),
        near => BUFFERS + u64::from(near) * 16,
    };
    let len = input.number() as u32;
    let (flags, next) = (u16::from(input.u8()), u16::from(input.u8()));
    let descriptor =
        u128::from(address) | u128::from(len) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
    memory.write(Gpa(table + 16 * index), &descriptor.to_le_bytes()).expect("tables are in RAM");
}

/// Appends `head` to a queue's available ring. The ring's size is read from nowhere: it is 8 unless the input said
/// otherwise, and a wrong slot is one more hostile ring.
fn publish(memory: &GuestMemory, queue: u64, head: u16) {
    let ring = RAM + queue * QUEUE_STRIDE + DRIVER_AREA;
    let mut index = [0; 2];
    memory.read(Gpa(ring + 2), &mut index).expect("rings are in RAM");
    let index = u16::from_le_bytes(index);
    memory.write(Gpa(ring + 4 + 2 * u64::from(index % 8)), &head.to_le_bytes()).expect("rings are in RAM");
    memory.write(Gpa(ring + 2), &index.wrapping_add(1).to_le_bytes()).expect("rings are in RAM");
}

/// A small disk in host memory.
#[derive(Debug)]
struct MemoryDisk(Mutex<Vec<u8>>);

impl MemoryDisk {
    /// Runs `f` on `len` bytes from `offset`, all of which must be on the disk.
    fn range(&self, offset: u64, len: u64, f: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        let range = bytes.get_mut(offset as usize..end as usize);
        range.map(f).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl BlockBackend for MemoryDisk {
    fn size_bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_vectored(&self, offset: u64, mut buffers: IoVectorMut<'_>) -> io::Result<()> {
        self.range(offset, buffers.len(), |bytes| buffers.copy_from_slice(bytes))
    }
    fn write_vectored(&self, offset: u64, buffers: IoVector<'_>) -> io::Result<()> {
        self.range(offset, buffers.len(), |bytes| buffers.copy_into_slice(bytes))
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.range(offset, len, |bytes| bytes.fill(0xdd))
    }
    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.range(offset, len, |bytes| bytes.fill(0))
    }
}

/// A disk of 64 sectors that forgets everything when dropped.
pub fn disk() -> Arc<dyn BlockBackend> {
    Arc::new(MemoryDisk(Mutex::new(vec![0x5a; 512 * DISK_SECTORS])))
}

/// A block device on `backend` with two queues.
pub fn blk(backend: &Arc<dyn BlockBackend>) -> VirtioBlk {
    VirtioBlk::new(backend.clone(), &BlkOptions { serial: "fuzz".into(), queues: 2 })
}

/// A console with a named port beside port 0.
pub fn console() -> VirtioConsole {
    VirtioConsole::new(vec![PortOptions::console(Discard), PortOptions::named("second", Discard)])
}

/// What the user does at a console: types, resizes the window, unplugs a port.
pub fn console_event(device: &VirtioConsole, input: &mut Input<'_>) {
    use isomer_devices::backend::char::CharInput as _;
    match input.u8() % 4 {
        0 => device.handle().resize(input.u16(), input.u16()),
        1 => device.handle().set_plugged(input.below(3), input.flag()),
        _ => {
            let (port, len) = (input.below(2), usize::from(input.u8()));
            if let Some(port) = device.port(port) {
                port.receive(input.take(len));
            }
        }
    }
}

/// A network card with two queue pairs, in a network that leads nowhere.
pub fn net() -> VirtioNet {
    let mac = MacAddr(crate::frames::MAC);
    let network = UserNet::new(&UserNetOptions { mac, restrict: true, ..UserNetOptions::default() });
    let network = Box::new(network.expect("the host has a few descriptors"));
    VirtioNet::new(network, &NetOptions { mac, pairs: 2 })
}

/// No events.
pub fn no_event<V>(_: &V, _: &mut Input<'_>) {}

/// Ring operations of a well-behaved driver for seeds: `parts` are `(bytes, device-writable)` on queue `queue`. With
/// `through_registers`, each operation is wrapped as [`drive_mmio`] expects it, behind a set-up.
pub fn request_seed(queue: u8, parts: &[(u32, bool)], through_registers: bool) -> Vec<u8> {
    let mut steps: Vec<Vec<u8>> = Vec::new();
    if through_registers {
        steps.push(vec![1, 0xe0, 2]);
    }
    for (index, &(len, writable)) in (0u8..).zip(parts) {
        let more = usize::from(index) + 1 < parts.len();
        let mut step = vec![2, queue, index, index * 33];
        step.push(0xff);
        step.extend(u64::from(len).to_le_bytes());
        step.extend([u8::from(more) | u8::from(writable) << 1, index + 1]);
        steps.push(step);
    }
    steps.push(vec![4, queue, 0]);
    let event: &[u8] = if through_registers { &[15] } else { &[] };
    steps.iter().flat_map(|step| [event, step].concat()).collect()
}
