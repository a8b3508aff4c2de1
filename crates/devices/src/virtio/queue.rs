//! Split virtqueues as devices use them (Virtio 1.3, 2.7), over `virtio-queue`'s ring arithmetic.
//!
//! Everything in a ring comes from a hostile guest: a chain reaches a device only when all of it was checked (no
//! loop, RAM only, readable before writable). A ring that breaks the rules is dead until reset and the driver is
//! told DEVICE_NEEDS_RESET.

use super::{Interrupt, feature};
use isomer_core::{Gpa, GuestMemory, guest_warn, memory::RamMap};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering, fence},
    },
};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// A queue as its device and its transport share it.
pub type SharedQueue = Arc<Mutex<VirtQueue>>;

/// Longest chain accepted, in descriptors, where an indirect table makes it longer than the queue.
const MAX_CHAIN: usize = 1024;

/// Descriptor flags (Virtio 1.3, 2.7.5).
mod descriptor_flag {
    /// The chain continues at `next`.
    pub(super) const NEXT: u16 = 1;
    /// The device writes the buffer; otherwise it reads it.
    pub(super) const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub(super) const INDIRECT: u16 = 4;
}

/// `virtq_avail.flags`: the driver does not want interrupts.
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Bytes of one descriptor.
const DESCRIPTOR_BYTES: u64 = 16;

/// How a driver broke a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueFault {
    /// The size is zero, too large or not a power of two.
    #[error("queue size {0} is not a power of two up to the maximum")]
    Size(u16),
    /// A ring is misaligned or not wholly in RAM.
    #[error("the {area} at {gpa} is misaligned or not in RAM")]
    Ring {
        /// Which of the three areas.
        area: &'static str,
        /// Its address.
        gpa: Gpa,
    },
    /// The available index is further ahead than the queue is long, or the ring cannot be read.
    #[error("the available ring is inconsistent: {0}")]
    Available(String),
    /// More chains were made available than the queue has descriptors.
    #[error("descriptors were made available again before the device had used them")]
    Reused,
    /// A chain or its indirect table loops or is longer than allowed.
    #[error("a descriptor chain loops or is too long")]
    Loop,
    /// A descriptor index is outside its table.
    #[error("descriptor {0} is outside its table")]
    Index(u16),
    /// A buffer or indirect table does not lie in RAM.
    #[error("{len:#x} bytes at {gpa} are not RAM")]
    Buffer {
        /// Start of the buffer.
        gpa: Gpa,
        /// Its length in bytes.
        len: u32,
    },
    /// An indirect descriptor that was not negotiated, is nested, has a successor, or a table of odd length.
    #[error("an indirect descriptor is not allowed here or its table has a wrong length")]
    Indirect,
    /// A device-readable descriptor follows a device-writable one.
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
    /// A chain holds more than 2^32 bytes.
    #[error("a chain is longer than 2^32 bytes")]
    TotalLength,
}

/// A stretch of guest RAM within a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte.
    pub gpa: Gpa,
    /// Bytes, at least 1.
    pub len: u32,
}

/// One request of a driver: device-readable bytes, then device-writable bytes.
///
/// `Read` consumes the device-readable bytes in order, `Write` fills the device-writable bytes in order and returns
/// short counts (0) at their end. A chain goes back with [`VirtQueue::push`]; a dropped one is lost to the driver.
#[derive(Debug)]
pub struct Chain {
    memory: Arc<RamMap>,
    head: u16,
    epoch: u32,
    readable: Area,
    writable: Area,
}

/// One direction of a chain and the position in it.
#[derive(Debug, Default)]
struct Area {
    segments: Vec<Segment>,
    len: u64,
    at: u64,
}

impl Area {
    fn add(&mut self, segment: Segment) {
        self.len += u64::from(segment.len);
        self.segments.push(segment);
    }

    /// Calls `copy` with each guest stretch of the `len` bytes from `start` that exist; returns how many do.
    fn copy(&self, start: u64, len: usize, copy: Copy<'_>) -> io::Result<usize> {
        let end = self.len.min(start.saturating_add(len as u64));
        let (mut base, mut done) = (0, 0);
        for segment in &self.segments {
            let next = base + u64::from(segment.len);
            let (from, to) = (start.max(base), end.min(next));
            if from < to {
                let count = (to - from) as usize;
                copy(GuestAddress(segment.gpa.0 + (from - base)), done..done + count)
                    .map_err(io::Error::other)?;
                done += count;
            }
            base = next;
        }
        Ok(done)
    }
}

/// Copies the given range of a caller's buffer from or to guest memory.
type Copy<'a> =
    &'a mut dyn FnMut(GuestAddress, std::ops::Range<usize>) -> Result<(), vm_memory::GuestMemoryError>;

impl Chain {
    /// Index of the first descriptor, unique among the chains in flight.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Device-readable bytes in all.
    pub fn readable_len(&self) -> u64 {
        self.readable.len
    }

    /// Device-writable bytes in all.
    pub fn writable_len(&self) -> u64 {
        self.writable.len
    }

    /// Device-readable bytes not yet read.
    pub fn unread(&self) -> u64 {
        self.readable.len - self.readable.at
    }

    /// Bytes written so far through `Write`: what [`VirtQueue::push`] reports to the driver in simple devices.
    pub fn written(&self) -> u32 {
        u32::try_from(self.writable.at).unwrap_or(u32::MAX)
    }

    /// Where the device-readable bytes lie, for transfers without a copy.
    pub fn readable_segments(&self) -> &[Segment] {
        &self.readable.segments
    }

    /// Where the device-writable bytes lie. All of them are RAM.
    pub fn writable_segments(&self) -> &[Segment] {
        &self.writable.segments
    }

    /// The RAM the segments are in.
    pub fn memory(&self) -> &RamMap {
        &self.memory
    }

    /// Copies device-readable bytes from `offset` on into `buf`; returns how many there were.
    /// Does not move the position of `Read`.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len();
        self.readable.copy(offset, len, &mut |gpa, range| self.memory.read_slice(&mut buf[range], gpa))
    }

    /// Copies `data` into the device-writable bytes from `offset` on; returns how many there was room for.
    /// Does not move the position of `Write`.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        self.writable.copy(offset, data.len(), &mut |gpa, range| self.memory.write_slice(&data[range], gpa))
    }
}

impl Read for Chain {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(self.readable.at, buf)?;
        self.readable.at += count as u64;
        Ok(count)
    }
}

impl Write for Chain {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.write_at(self.writable.at, data)?;
        self.writable.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the driver put a queue, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// Number of descriptors.
    pub(super) size: u16,
    /// Guest-physical address of the descriptor table.
    pub(super) descriptors: u64,
    /// Guest-physical address of the available ring.
    pub(super) driver: u64,
    /// Guest-physical address of the used ring.
    pub(super) device: u64,
}

/// A queue as saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    layout: Layout,
    ready: bool,
    broken: bool,
    next_avail: u16,
    next_used: u16,
}

/// A split virtqueue.
#[derive(Debug)]
pub struct VirtQueue {
    index: u16,
    max_size: u16,
    layout: Layout,
    /// `Some` once the driver has enabled the queue.
    ring: Option<Queue>,
    /// Negotiated: chains may end in an indirect table.
    indirect: bool,
    /// The driver broke the rules; nothing moves until reset.
    broken: bool,
    /// Rises with each reset, so that chains from before it are not pushed after it.
    epoch: u32,
    /// Chains popped and not pushed.
    in_flight: u16,
    /// Chains were pushed since the last `signal`.
    unsignalled: bool,
    memory: Arc<RamMap>,
    interrupt: Interrupt,
    /// The device may touch guest memory (PCI: bus master enable).
    dma: Arc<AtomicBool>,
}

impl VirtQueue {
    /// A queue that is not set up. `max_size` must be a power of two up to 32768.
    pub(super) fn new(
        index: u16,
        max_size: u16,
        memory: &GuestMemory,
        interrupt: Interrupt,
        dma: Arc<AtomicBool>,
    ) -> Self {
        let layout = Layout { size: max_size, descriptors: 0, driver: 0, device: 0 };
        let memory = memory.shared_map();
        Self {
            index,
            max_size,
            layout,
            ring: None,
            indirect: false,
            broken: false,
            epoch: 0,
            in_flight: 0,
            unsignalled: false,
            memory,
            interrupt,
            dma,
        }
    }

    /// The queue's number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The largest size offered.
    pub(super) fn max_size(&self) -> u16 {
        self.max_size
    }

    /// Has the driver set this queue up?
    pub fn is_ready(&self) -> bool {
        self.ring.is_some()
    }

    /// What the driver wrote about the queue so far.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// For the driver to write; `None` while the queue is enabled.
    pub(super) fn layout_mut(&mut self) -> Option<&mut Layout> {
        self.ring.is_none().then_some(&mut self.layout)
    }

    /// The driver enables the queue. A queue that cannot work stays disabled, and the driver is told.
    pub(super) fn enable(&mut self, features: u64) {
        if self.ring.is_some() || self.broken {
            return;
        }
        match build_ring(&self.memory, self.max_size, &self.layout, features, (0, 0)) {
            Ok(ring) => self.ring = Some(ring),
            Err(fault) => self.fail(&fault),
        }
        self.set_features(features);
    }

    /// The driver settled on `features`: they hold for queues it enabled earlier, too.
    pub(super) fn set_features(&mut self, features: u64) {
        self.indirect = features & feature::INDIRECT_DESC != 0;
        if let Some(ring) = &mut self.ring {
            ring.set_event_idx(features & feature::EVENT_IDX != 0);
        }
    }

    /// Stops using the rings, whose place stays known; chains in flight become stale.
    pub(super) fn disable(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        (self.ring, self.in_flight) = (None, 0);
        (self.indirect, self.broken, self.unsignalled) = (false, false, false);
    }

    /// Back to the power-on state.
    pub(super) fn reset(&mut self) {
        self.disable();
        self.layout = Layout { size: self.max_size, descriptors: 0, driver: 0, device: 0 };
    }

    /// The state; nothing is in flight.
    pub(super) fn save(&self) -> QueueState {
        let position = |get: fn(&Queue) -> u16| self.ring.as_ref().map_or(0, get);
        QueueState {
            layout: self.layout,
            ready: self.ring.is_some(),
            broken: self.broken,
            next_avail: position(Queue::next_avail),
            next_used: position(Queue::next_used),
        }
    }

    /// Could this queue have saved `state` with `features` negotiated?
    pub(super) fn check(&self, state: &QueueState, features: u64) -> Result<(), QueueFault> {
        if state.ready { self.build_at(state, features).map(|_| ()) } else { Ok(()) }
    }

    /// Takes over a state that [`Self::check`] has accepted.
    pub(super) fn restore(&mut self, state: &QueueState, features: u64) {
        self.reset();
        self.layout = state.layout;
        self.broken = state.broken;
        self.indirect = features & feature::INDIRECT_DESC != 0;
        if state.ready {
            self.ring = self.build_at(state, features).ok();
        }
    }

    fn build_at(&self, state: &QueueState, features: u64) -> Result<Queue, QueueFault> {
        build_ring(&self.memory, self.max_size, &state.layout, features, (state.next_avail, state.next_used))
    }

    /// The next chain the driver made available. `None`: there is none now, and the driver will notify the device
    /// of the next one; or the queue is disabled, broken, or the device may not do DMA.
    pub fn pop(&mut self) -> Option<Chain> {
        if self.broken || !self.dma.load(Ordering::Acquire) {
            return None;
        }
        match self.try_pop() {
            Ok(chain) => chain,
            Err(fault) => {
                self.fail(&fault);
                None
            }
        }
    }

    fn try_pop(&mut self) -> Result<Option<Chain>, QueueFault> {
        let Some(ring) = &mut self.ring else { return Ok(None) };
        let wrong = |e: virtio_queue::Error| QueueFault::Available(e.to_string());
        let map = &*self.memory;
        // Twice: a chain may become available before the driver sees that it must notify again.
        for _ in 0..2 {
            if let Some(chain) = ring.iter(map).map_err(wrong)?.next() {
                let head = chain.head_index();
                if self.in_flight >= ring.size() {
                    return Err(QueueFault::Reused);
                }
                let table = Table { gpa: Gpa(ring.desc_table()), len: ring.size(), indirect: false };
                let (readable, writable) = walk(map, table, head, self.indirect)?;
                self.in_flight += 1;
                let memory = self.memory.clone();
                return Ok(Some(Chain { memory, head, epoch: self.epoch, readable, writable }));
            }
            if !ring.enable_notification(map).map_err(wrong)? {
                break;
            }
        }
        Ok(None)
    }

    /// For a device that will be busy with the chain popped last: has the driver notify it of the next one. `true`:
    /// there is one already.
    pub fn listen(&mut self) -> bool {
        match &mut self.ring {
            Some(ring) if !self.broken => ring.enable_notification(&*self.memory).unwrap_or(true),
            _ => false,
        }
    }

    /// Puts back the chain popped last, before any other was popped: the next [`Self::pop`] yields it again.
    pub fn undo_pop(&mut self, chain: Chain) {
        if chain.epoch == self.epoch
            && let Some(ring) = &mut self.ring
        {
            ring.go_to_previous_position();
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// Gives a chain back to the driver; `written` is how many bytes the device wrote from the start of its
    /// writable part. Chains from before a reset are dropped. [`Self::signal`] afterwards, once for several chains.
    pub fn push(&mut self, chain: Chain, written: u32) {
        if chain.epoch != self.epoch || self.broken {
            return;
        }
        let Some(ring) = &mut self.ring else { return };
        self.in_flight = self.in_flight.saturating_sub(1);
        self.unsignalled = true;
        if let Err(e) = ring.add_used(&*self.memory, chain.head, written) {
            self.fail(&QueueFault::Available(e.to_string()));
        }
    }

    /// Interrupts the driver if it wants to hear of the chains pushed since the last call.
    pub fn signal(&mut self) {
        if !std::mem::take(&mut self.unsignalled) {
            return;
        }
        match self.wants_signal() {
            Ok(true) => self.interrupt.signal_queue(self.index),
            Ok(false) => (),
            Err(e) => self.fail(&QueueFault::Available(e.to_string())),
        }
    }

    fn wants_signal(&mut self) -> Result<bool, virtio_queue::Error> {
        let Some(ring) = &mut self.ring else { return Ok(false) };
        if ring.event_idx_enabled() {
            return ring.needs_notification(&*self.memory);
        }
        // The used index must be visible before the flag is read (Virtio 1.3, 2.7.7.2).
        fence(Ordering::SeqCst);
        let flags: u16 = self
            .memory
            .load(GuestAddress(ring.avail_ring()), Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u16::from_le(flags) & AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Declares the queue broken: it stays silent until reset, and the driver finds DEVICE_NEEDS_RESET. Devices
    /// call this for requests that break their own framing beyond repair.
    pub fn fail(&mut self, why: &dyn std::fmt::Display) {
        guest_warn!(queue = self.index, "virtqueue is broken until reset: {why}");
        self.broken = true;
        self.interrupt.needs_reset();
    }
}

/// Builds the ring the driver described, if it can work.
fn build_ring(
    memory: &RamMap,
    max_size: u16,
    layout: &Layout,
    features: u64,
    (next_avail, next_used): (u16, u16),
) -> Result<Queue, QueueFault> {
    let size_fault = |_| QueueFault::Size(layout.size);
    let mut ring = Queue::new(max_size).map_err(size_fault)?;
    ring.try_set_size(layout.size).map_err(size_fault)?;
    let size = usize::from(layout.size);
    // The event fields at the ends of the rings exist whether negotiated or not.
    let areas = [
        ("descriptor table", layout.descriptors, 16 * size),
        ("available ring", layout.driver, 6 + 2 * size),
        ("used ring", layout.device, 6 + 8 * size),
    ];
    for (area, start, len) in areas {
        if !in_ram(memory, start, len as u64) {
            return Err(QueueFault::Ring { area, gpa: Gpa(start) });
        }
    }
    let misaligned = |area, start| move |_| QueueFault::Ring { area, gpa: Gpa(start) };
    let [table, avail, used] = areas.map(|(area, start, _)| (GuestAddress(start), misaligned(area, start)));
    ring.try_set_desc_table_address(table.0).map_err(table.1)?;
    ring.try_set_avail_ring_address(avail.0).map_err(avail.1)?;
    ring.try_set_used_ring_address(used.0).map_err(used.1)?;
    ring.set_next_avail(next_avail);
    ring.set_next_used(next_used);
    ring.set_event_idx(features & feature::EVENT_IDX != 0);
    ring.set_ready(true);
    Ok(ring)
}

fn in_ram(memory: &RamMap, start: u64, len: u64) -> bool {
    let fits = start.checked_add(len).is_some();
    fits && usize::try_from(len)
        .is_ok_and(|len| GuestMemoryBackend::check_range(memory, GuestAddress(start), len))
}

/// A descriptor table: the queue's own or an indirect one.
struct Table {
    gpa: Gpa,
    len: u16,
    indirect: bool,
}

/// One descriptor as it lies in guest memory (Virtio 1.3, 2.7.5).
struct Descriptor {
    gpa: Gpa,
    len: u32,
    flags: u16,
    next: u16,
}

impl Table {
    fn get(&self, memory: &RamMap, index: u16) -> Result<Descriptor, QueueFault> {
        if index >= self.len {
            return Err(QueueFault::Index(index));
        }
        let at = self.gpa.0 + u64::from(index) * DESCRIPTOR_BYTES;
        let raw: [u8; DESCRIPTOR_BYTES as usize] = memory
            .read_obj(GuestAddress(at))
            .map_err(|_| QueueFault::Buffer { gpa: Gpa(at), len: DESCRIPTOR_BYTES as u32 })?;
        let raw = u128::from_le_bytes(raw);
        let (gpa, len) = (Gpa(raw as u64), (raw >> 64) as u32);
        Ok(Descriptor { gpa, len, flags: (raw >> 96) as u16, next: (raw >> 112) as u16 })
    }

    /// The indirect table that `descriptor` of this table names.
    fn indirect(&self, memory: &RamMap, descriptor: &Descriptor, allowed: bool) -> Result<Self, QueueFault> {
        let Descriptor { gpa, len, flags, .. } = *descriptor;
        let entries = u64::from(len) / DESCRIPTOR_BYTES;
        let whole = u64::from(len) % DESCRIPTOR_BYTES == 0 && entries != 0;
        let last = flags & descriptor_flag::NEXT == 0;
        if !allowed || self.indirect || !last || !whole {
            return Err(QueueFault::Indirect);
        }
        if !in_ram(memory, gpa.0, u64::from(len)) {
            return Err(QueueFault::Buffer { gpa, len });
        }
        let len = u16::try_from(entries).map_err(|_| QueueFault::Indirect)?;
        Ok(Self { gpa, len, indirect: true })
    }
}

/// Collects and checks the chain that starts at descriptor `head` of `table`.
fn walk(
    memory: &RamMap,
    mut table: Table,
    head: u16,
    indirect_allowed: bool,
) -> Result<(Area, Area), QueueFault> {
    let limit = MAX_CHAIN.max(usize::from(table.len));
    let (mut readable, mut writable) = (Area::default(), Area::default());
    let mut index = head;
    for _ in 0..limit {
        let descriptor = table.get(memory, index)?;
        let Descriptor { gpa, len, flags, next } = descriptor;
        if flags & descriptor_flag::INDIRECT != 0 {
            table = table.indirect(memory, &descriptor, indirect_allowed)?;
            index = 0;
            continue;
        }
        let write = flags & descriptor_flag::WRITE != 0;
        if !write && !writable.segments.is_empty() {
            return Err(QueueFault::Order);
        }
        if len != 0 {
            if !in_ram(memory, gpa.0, u64::from(len)) {
                return Err(QueueFault::Buffer { gpa, len });
            }
            let area = if write { &mut writable } else { &mut readable };
            area.add(Segment { gpa, len });
        }
        if readable.len + writable.len > 1 << 32 {
            return Err(QueueFault::TotalLength);
        }
        if flags & descriptor_flag::NEXT == 0 {
            return Ok((readable, writable));
        }
        index = next;
    }
    Err(QueueFault::Loop)
}
