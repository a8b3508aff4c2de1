//! A guest's side of virtio for tests: a minimal driver that negotiates, lays out split rings in RAM, posts chains
//! and collects used ones, over either transport.

use super::{
    Activation, Chain, SharedQueue, VirtioDevice, feature, mmio::VirtioMmio, pci::VirtioPci, status,
};
use crate::pci::{Connection, MsiSink, PciFunction};
use isomer_core::{Device, Gpa, GuestMemory, IrqLine, IrqSink, StateError};
use std::{
    io::{Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Start of the test machine's RAM.
pub(crate) const RAM_BASE: u64 = 0x8000_0000;
/// Its size in bytes.
pub(crate) const RAM_BYTES: u64 = 16 << 20;
/// Rings take this much from the start of RAM, 64 KiB a queue.
const RINGS_BYTES: u64 = 1 << 20;
const QUEUE_STRIDE: u64 = 0x1_0000;

/// The test machine's RAM.
pub(crate) fn ram() -> GuestMemory {
    GuestMemory::new(&[(Gpa(RAM_BASE), RAM_BYTES)]).unwrap()
}

/// The far end of an interrupt wire: its level, and how often it rose.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    level: AtomicU64,
    rises: AtomicU32,
}

impl Wire {
    pub(crate) fn level(&self) -> bool {
        self.level.load(Ordering::SeqCst) != 0
    }
    pub(crate) fn rises(&self) -> u32 {
        self.rises.load(Ordering::SeqCst)
    }
    pub(crate) fn line(self: &Arc<Self>) -> IrqLine {
        IrqLine::new(self.clone(), 0)
    }
}

impl IrqSink for Wire {
    fn set_level(&self, line: u32, level: bool) {
        let bit = 1 << line;
        let old = if level {
            self.level.fetch_or(bit, Ordering::SeqCst)
        } else {
            self.level.fetch_and(!bit, Ordering::SeqCst)
        };
        if level && old & bit == 0 {
            self.rises.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Register accesses a driver makes, whatever the transport. All are plain guest accesses.
pub(crate) trait Registers: Device {
    /// A device as this transport presents it.
    fn status(&mut self) -> u8;
    fn set_status(&mut self, value: u8);
    fn features(&mut self) -> u64;
    fn accept(&mut self, features: u64);
    /// Largest size of queue `index`, 0 if there is none. Leaves the queue selected.
    fn queue_max(&mut self, index: u16) -> u16;
    /// Places the selected queue.
    fn place_queue(&mut self, size: u16, descriptors: u64, driver: u64, device: u64);
    fn enable_queue(&mut self);
    fn queue_enabled(&mut self) -> bool;
    fn reset_selected_queue(&mut self);
    fn kick(&mut self, index: u16);
    /// Pending causes (1 used buffer, 2 configuration), acknowledged by this call.
    fn take_causes(&mut self) -> u32;
    fn config(&mut self, offset: u64, size: usize) -> u64;
    fn set_config(&mut self, offset: u64, size: usize, value: u64);
}

impl<V: VirtioDevice> Registers for VirtioMmio<V> {
    fn status(&mut self) -> u8 {
        self.read(0, 0x70, 4) as u8
    }
    fn set_status(&mut self, value: u8) {
        self.write(0, 0x70, 4, value.into());
    }
    fn features(&mut self) -> u64 {
        self.write(0, 0x14, 4, 0);
        let low = self.read(0, 0x10, 4);
        self.write(0, 0x14, 4, 1);
        low | self.read(0, 0x10, 4) << 32
    }
    fn accept(&mut self, features: u64) {
        for half in 0..2 {
            self.write(0, 0x24, 4, half);
            self.write(0, 0x20, 4, features >> (32 * half) & 0xffff_ffff);
        }
    }
    fn queue_max(&mut self, index: u16) -> u16 {
        self.write(0, 0x30, 4, index.into());
        self.read(0, 0x34, 4) as u16
    }
    fn place_queue(&mut self, size: u16, descriptors: u64, driver: u64, device: u64) {
        self.write(0, 0x38, 4, size.into());
        for (register, address) in [(0x80, descriptors), (0x90, driver), (0xa0, device)] {
            self.write(0, register, 4, address & 0xffff_ffff);
            self.write(0, register + 4, 4, address >> 32);
        }
    }
    fn enable_queue(&mut self) {
        self.write(0, 0x44, 4, 1);
    }
    fn queue_enabled(&mut self) -> bool {
        self.read(0, 0x44, 4) == 1
    }
    fn reset_selected_queue(&mut self) {
        self.write(0, 0xc0, 4, 1);
        assert_eq!(self.read(0, 0xc0, 4), 0);
    }
    fn kick(&mut self, index: u16) {
        self.write(0, 0x50, 4, index.into());
    }
    fn take_causes(&mut self) -> u32 {
        let causes = self.read(0, 0x60, 4);
        self.write(0, 0x64, 4, causes);
        causes as u32
    }
    fn config(&mut self, offset: u64, size: usize) -> u64 {
        self.read(0, 0x100 + offset, size)
    }
    fn set_config(&mut self, offset: u64, size: usize, value: u64) {
        self.write(0, 0x100 + offset, size, value);
    }
}

/// The common configuration structure's fields, by offset, through BAR 4.
impl<V: VirtioDevice> Registers for VirtioPci<V> {
    fn status(&mut self) -> u8 {
        self.read(4, 20, 1) as u8
    }
    fn set_status(&mut self, value: u8) {
        self.write(4, 20, 1, value.into());
    }
    fn features(&mut self) -> u64 {
        self.write(4, 0, 4, 0);
        let low = self.read(4, 4, 4);
        self.write(4, 0, 4, 1);
        low | self.read(4, 4, 4) << 32
    }
    fn accept(&mut self, features: u64) {
        for half in 0..2 {
            self.write(4, 8, 4, half);
            self.write(4, 12, 4, features >> (32 * half) & 0xffff_ffff);
        }
    }
    fn queue_max(&mut self, index: u16) -> u16 {
        self.write(4, 22, 2, index.into());
        assert_eq!(index < self.read(4, 18, 2) as u16, self.read(4, 24, 2) != 0);
        self.read(4, 24, 2) as u16
    }
    fn place_queue(&mut self, size: u16, descriptors: u64, driver: u64, device: u64) {
        self.write(4, 24, 2, size.into());
        for (register, address) in [(32, descriptors), (40, driver), (48, device)] {
            self.write(4, register, 4, address & 0xffff_ffff);
            self.write(4, register + 4, 4, address >> 32);
            assert_eq!(self.read(4, register, 8), address);
        }
    }
    fn enable_queue(&mut self) {
        self.write(4, 28, 2, 1);
    }
    fn queue_enabled(&mut self) -> bool {
        self.read(4, 28, 2) == 1
    }
    fn reset_selected_queue(&mut self) {
        self.write(4, 58, 2, 1);
        assert_eq!(self.read(4, 58, 2), 0);
    }
    fn kick(&mut self, index: u16) {
        self.write(4, 22, 2, index.into());
        let offset = 0x3000 + 4 * self.read(4, 30, 2);
        self.write(4, offset, 2, index.into());
    }
    fn take_causes(&mut self) -> u32 {
        self.read(4, 0x1000, 1) as u32
    }
    fn config(&mut self, offset: u64, size: usize) -> u64 {
        self.read(4, 0x2000 + offset, size)
    }
    fn set_config(&mut self, offset: u64, size: usize, value: u64) {
        self.write(4, 0x2000 + offset, size, value);
    }
}

/// A message sink that remembers what it got: `(requester, address, data)`.
#[derive(Debug, Default)]
pub(crate) struct Messages(Mutex<Vec<(u16, u64, u32)>>);

impl Messages {
    pub(crate) fn take(&self) -> Vec<(u16, u64, u32)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MsiSink for Messages {
    fn send(&self, requester_id: u16, address: u64, data: u32) {
        self.0.lock().unwrap().push((requester_id, address, data));
    }
}

/// A device for testing transports and queues. Queue 0 gives back what it reads, in capitals, at once. Queue 1 does
/// so, too, but holds requests until the driver writes the second configuration byte.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    /// First configuration byte: the driver's to write, and saved.
    pub(crate) value: u8,
    held: Vec<Chain>,
    pub(crate) running: Option<Activation>,
}

impl Echo {
    fn queue(&self, index: usize) -> Option<SharedQueue> {
        self.running.as_ref()?.queues.get(index).cloned()
    }

    fn answer(mut chain: Chain) -> (Chain, u32) {
        let mut data = vec![0; chain.readable_len() as usize];
        chain.read_exact(&mut data).unwrap();
        data.make_ascii_uppercase();
        data.truncate(chain.writable_len() as usize);
        chain.write_all(&data).unwrap();
        (chain, data.len() as u32)
    }

    fn release(&mut self) {
        let Some(queue) = self.queue(1) else { return };
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        for chain in self.held.drain(..) {
            let (chain, written) = Self::answer(chain);
            queue.push(chain, written);
        }
        queue.signal();
    }
}

impl VirtioDevice for Echo {
    const NAME: &'static str = "virtio-echo";
    const VERSION: u32 = 3;
    type State = u8;

    fn device_type(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        0b101
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[16, 4]
    }
    fn read_config(&self, offset: u64, buf: &mut [u8]) {
        let config = [self.value, 0, 0x34, 0x12];
        buf.iter_mut().zip(config.iter().skip(offset.min(4) as usize)).for_each(|(to, from)| *to = *from);
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, [value, ..]) => self.value = *value & 0x7f,
            (1, _) => self.release(),
            (2, _) => self.running.iter().for_each(|running| running.interrupt.config_changed()),
            _ => (),
        }
    }
    fn activate(&mut self, activation: Activation) {
        assert!(self.running.is_none(), "activated twice");
        self.running = Some(activation);
    }
    fn notify(&mut self, index: u16) {
        let queue = self.queue(index.into()).expect("notified while inactive");
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(chain) = queue.pop() {
            if index == 1 {
                self.held.push(chain);
            } else {
                let (chain, written) = Self::answer(chain);
                queue.push(chain, written);
                queue.signal();
            }
        }
    }
    fn reset(&mut self) {
        *self = Self::default();
    }
    fn quiesce(&mut self) {
        let queue = self.queue(1).expect("quiesced while inactive");
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.held.drain(..).rev().for_each(|chain| queue.undo_pop(chain));
    }
    fn save(&self) -> u8 {
        self.value
    }
    fn restore(&mut self, state: u8) -> Result<(), StateError> {
        if state > 0x7f {
            return Err(StateError::Damaged { device: Self::NAME, why: "no such value".into() });
        }
        self.value = state;
        Ok(())
    }
}

/// A part of a chain to post.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// Bytes the device reads.
    Out(&'a [u8]),
    /// Room the device may write.
    In(u32),
}

/// A chain that was posted.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) head: u16,
    /// `(guest-physical start, bytes)` of the device-writable parts.
    pub(crate) writable: Vec<(u64, u32)>,
}

/// The driver's side of one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    next_descriptor: u16,
    pub(crate) avail_idx: u16,
    pub(crate) used_idx: u16,
}

/// A guest with one virtio device.
#[derive(Debug)]
pub(crate) struct Guest<T> {
    pub(crate) device: T,
    pub(crate) ram: GuestMemory,
    pub(crate) wire: Arc<Wire>,
    pub(crate) rings: Vec<Ring>,
    /// What was negotiated.
    pub(crate) features: u64,
    heap: u64,
}

impl<V: VirtioDevice> Guest<VirtioMmio<V>> {
    /// A guest that sees `device` through MMIO.
    pub(crate) fn mmio(device: V) -> Self {
        let (ram, wire) = (ram(), Arc::new(Wire::default()));
        let device = VirtioMmio::new(device, ram.clone(), wire.line());
        Self::new(device, ram, wire)
    }
}

impl<V: VirtioDevice> Guest<VirtioPci<V>> {
    /// A guest that sees `device` as a PCI function with INTA#, memory decoding and bus mastering on.
    pub(crate) fn pci(device: V) -> Self {
        let (ram, wire) = (ram(), Arc::new(Wire::default()));
        let mut device = VirtioPci::new(device, ram.clone(), None);
        device.connect(&Connection { intx: wire.line(), requester_id: 8 });
        device.config_write(4, 2, 6);
        Self::new(device, ram, wire)
    }
}

impl<T: Registers> Guest<T> {
    pub(crate) fn new(device: T, ram: GuestMemory, wire: Arc<Wire>) -> Self {
        Self { device, ram, wire, rings: Vec::new(), features: 0, heap: RAM_BASE + RINGS_BYTES }
    }

    /// Resets, negotiates all of `wanted` (plus VERSION_1) that is offered, sets up every queue at its largest
    /// size and goes live, as drivers do.
    pub(crate) fn start(&mut self, wanted: u64) {
        self.negotiate(wanted);
        self.set_up_queues();
        self.go_live();
    }

    pub(crate) fn negotiate(&mut self, wanted: u64) {
        self.device.set_status(0);
        assert_eq!(self.device.status(), 0);
        self.device.set_status(status::ACKNOWLEDGE | status::DRIVER);
        self.features = self.device.features() & (wanted | feature::VERSION_1);
        self.device.accept(self.features);
        self.device.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        assert_ne!(self.device.status() & status::FEATURES_OK, 0, "features were refused");
    }

    pub(crate) fn set_up_queues(&mut self) {
        self.rings.clear();
        while self.set_up_queue(self.rings.len() as u16) {}
    }

    /// Sets up queue `index`, which may be the next new one; `false` if the device has no such queue.
    pub(crate) fn set_up_queue(&mut self, index: u16) -> bool {
        let size = self.device.queue_max(index);
        if size == 0 {
            return false;
        }
        assert!(!self.device.queue_enabled());
        let base = RAM_BASE + u64::from(index) * QUEUE_STRIDE;
        let (driver, device) = (base + 0x8000, base + 0xa000);
        assert!(
            size <= 2048 && u64::from(index) < RINGS_BYTES / QUEUE_STRIDE,
            "the test rings are too small"
        );
        self.ram.write(Gpa(base), &[0; QUEUE_STRIDE as usize]).unwrap();
        self.device.place_queue(size, base, driver, device);
        self.device.enable_queue();
        assert!(self.device.queue_enabled(), "queue {index} was refused");
        let ring = Ring { size, descriptors: base, driver, device, ..Ring::default() };
        match self.rings.get_mut(usize::from(index)) {
            Some(old) => *old = ring,
            None => self.rings.push(ring),
        }
        true
    }

    pub(crate) fn go_live(&mut self) {
        let old = self.device.status();
        self.device.set_status(old | status::DRIVER_OK);
        assert_ne!(self.device.status() & status::DRIVER_OK, 0);
    }

    /// Takes `len` bytes of RAM, 16-byte aligned. Starts over at the end of RAM.
    pub(crate) fn allocate(&mut self, len: u64) -> u64 {
        let start = self.heap.next_multiple_of(16);
        let start = if start + len > RAM_BASE + RAM_BYTES { RAM_BASE + RINGS_BYTES } else { start };
        self.heap = start + len;
        start
    }

    /// Writes descriptor `at` of `ring`'s table (or any table).
    pub(crate) fn write_descriptor(&self, table: u64, at: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        let raw = u128::from(gpa) | u128::from(len) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
        self.ram.write(Gpa(table + 16 * u64::from(at)), &raw.to_le_bytes()).unwrap();
    }

    /// Makes the chain that starts at `head` available.
    pub(crate) fn make_available(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let slot = u64::from(ring.avail_idx % ring.size);
        self.ram.write(Gpa(ring.driver + 4 + 2 * slot), &head.to_le_bytes()).unwrap();
        ring.avail_idx = ring.avail_idx.wrapping_add(1);
        self.ram.write(Gpa(ring.driver + 2), &ring.avail_idx.to_le_bytes()).unwrap();
    }

    /// Posts a chain of direct descriptors without notifying the device. At most `size` descriptors may be in use.
    pub(crate) fn post(&mut self, queue: usize, parts: &[Part<'_>]) -> Posted {
        let first = self.rings[queue].next_descriptor;
        let size = self.rings[queue].size;
        let mut writable = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let index = (first + at as u16) % size;
            let more = u16::from(at + 1 < parts.len());
            let (gpa, len, write) = match part {
                Part::Out(data) => {
                    let gpa = self.allocate(data.len() as u64);
                    self.ram.write(Gpa(gpa), data).unwrap();
                    (gpa, data.len() as u32, 0)
                }
                Part::In(len) => {
                    let gpa = self.allocate(u64::from(*len));
                    writable.push((gpa, *len));
                    (gpa, *len, 2)
                }
            };
            self.write_descriptor(
                self.rings[queue].descriptors,
                index,
                gpa,
                len,
                more | write,
                (index + 1) % size,
            );
        }
        self.rings[queue].next_descriptor = (first + parts.len() as u16) % size;
        self.make_available(queue, first);
        Posted { head: first, writable }
    }

    /// Posts a chain through an indirect table.
    pub(crate) fn post_indirect(&mut self, queue: usize, parts: &[Part<'_>]) -> Posted {
        let direct = self.rings[queue].clone();
        let table = self.allocate(16 * parts.len() as u64);
        // Lay the chain out in the table, then point one descriptor at it.
        let fake =
            Ring { size: u16::MAX, descriptors: table, driver: direct.device + 0x4000, ..Ring::default() };
        self.rings[queue] = fake;
        let posted = self.post(queue, parts);
        self.rings[queue] = direct;
        let head = self.rings[queue].next_descriptor;
        let (table_len, size) = (16 * parts.len() as u32, self.rings[queue].size);
        self.write_descriptor(self.rings[queue].descriptors, head, table, table_len, 4, 0);
        self.rings[queue].next_descriptor = (head + 1) % size;
        self.make_available(queue, head);
        Posted { head, writable: posted.writable }
    }

    /// Notifies the device of `queue`.
    pub(crate) fn kick(&mut self, queue: usize) {
        self.device.kick(queue as u16);
    }

    /// The next used chain, `(head, bytes written)`, if there is one. With EVENT_IDX, asks for an interrupt at the next.
    pub(crate) fn used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let ring = self.rings[queue].clone();
        if self.ram_u16(ring.device + 2) == ring.used_idx {
            return None;
        }
        let slot = u64::from(ring.used_idx % ring.size);
        let mut element = [0; 8];
        self.ram.read(Gpa(ring.device + 4 + 8 * slot), &mut element).unwrap();
        let element = u64::from_le_bytes(element);
        let ring = &mut self.rings[queue];
        ring.used_idx = ring.used_idx.wrapping_add(1);
        if self.features & feature::EVENT_IDX != 0 {
            let event = ring.driver + 4 + 2 * u64::from(ring.size);
            self.ram.write(Gpa(event), &ring.used_idx.to_le_bytes()).unwrap();
        }
        Some((element as u16, (element >> 32) as u32))
    }

    /// As [`Self::used`], waiting up to 20 s for devices that work on a thread of their own.
    pub(crate) fn wait_used(&mut self, queue: usize) -> (u16, u32) {
        let start = Instant::now();
        loop {
            if let Some(used) = self.used(queue) {
                return used;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "nothing was used on queue {queue}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Posts, notifies, waits; returns the bytes the device says it wrote.
    pub(crate) fn request(&mut self, queue: usize, parts: &[Part<'_>]) -> Vec<u8> {
        let posted = self.post(queue, parts);
        self.kick(queue);
        let (head, written) = self.wait_used(queue);
        assert_eq!(head, posted.head);
        let mut data = self.received(&posted);
        data.truncate(written as usize);
        data
    }

    /// All bytes of a chain's device-writable parts.
    pub(crate) fn received(&self, posted: &Posted) -> Vec<u8> {
        let mut data = Vec::new();
        for &(gpa, len) in &posted.writable {
            let at = data.len();
            data.resize(at + len as usize, 0);
            self.ram.read(Gpa(gpa), &mut data[at..]).unwrap();
        }
        data
    }

    pub(crate) fn ram_u16(&self, gpa: u64) -> u16 {
        let mut raw = [0; 2];
        self.ram.read(Gpa(gpa), &mut raw).unwrap();
        u16::from_le_bytes(raw)
    }

    /// Quiesces, saves, and restores into `other`'s device, which shares nothing but a copy of RAM; continues there.
    pub(crate) fn migrate(mut self, mut other: Self) -> Self {
        self.device.quiesce();
        let mut all = vec![0; RAM_BYTES as usize];
        self.ram.read(Gpa(RAM_BASE), &mut all).unwrap();
        other.ram.write(Gpa(RAM_BASE), &all).unwrap();
        let state = isomer_core::DynDevice::save(&self.device).unwrap();
        isomer_core::DynDevice::restore(&mut other.device, &state).unwrap();
        Device::resume(&mut other.device);
        Self { rings: self.rings, features: self.features, heap: self.heap, ..other }
    }
}
