//! The thread between a card's queues and the far end of its cable.

use super::{NetState, NetStats, filter::Filter, guest_offloads};
use crate::{
    backend::net::{
        ETHERNET_HEADER_BYTES, FrameMeta, MAX_FRAME_BYTES, MacAddr, NetBackend, NetWaker,
        vnet_header::{self, BYTES as HEADER_BYTES},
    },
    virtio::{Chain, SharedQueue, VirtQueue},
};
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// Frames taken from one queue before the rest has its turn.
const BURST: usize = 64;
/// Flows told apart when frames are spread over the driver's queues.
const STEERED_FLOWS: usize = 256;

/// What the device wants of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Serve,
    Park,
    Stop,
}

#[derive(Debug)]
struct Control {
    order: Order,
    parked: bool,
    /// Other offloads of the guest, as feature bits.
    offloads: Option<u64>,
}

/// What the driver receives, and where. Looked at for each frame, so that a command holds when it is answered.
#[derive(Debug)]
struct Rules {
    filter: Filter,
    pairs_in_use: usize,
}

#[derive(Debug)]
struct Shared {
    control: Mutex<Control>,
    rules: Mutex<Rules>,
    changed: Condvar,
    /// `control` has something new.
    attention: AtomicBool,
    /// The worker was woken and has not looked at its queues since.
    kicked: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    waker: NetWaker,
    thread: Option<JoinHandle<Option<Box<dyn NetBackend>>>>,
}

impl Worker {
    /// Starts to carry frames; `queues` are pairs, receive queue first. Gives the backend back on failure.
    pub(super) fn start(
        mut backend: Box<dyn NetBackend>,
        queues: Vec<SharedQueue>,
        mergeable: bool,
        settings: &NetState,
        stats: Arc<NetStats>,
    ) -> Result<Self, (Option<Box<dyn NetBackend>>, io::Error)> {
        let waker = backend.waker();
        backend.set_guest_offloads(guest_offloads(settings.offloads));
        let control = Mutex::new(Control { order: Order::Serve, parked: false, offloads: None });
        let rules = Rules { filter: settings.filter.clone(), pairs_in_use: settings.pairs.into() };
        let shared = Arc::new(Shared {
            control,
            rules: Mutex::new(rules),
            changed: Condvar::new(),
            attention: AtomicBool::new(false),
            kicked: AtomicBool::new(false),
        });
        let pairs = queues.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let carrier = Carrier {
            shared: shared.clone(),
            pairs,
            mergeable,
            steering: [0; STEERED_FLOWS],
            frame: Vec::with_capacity(MAX_FRAME_BYTES),
            pending: None,
            chains: Vec::new(),
            stats,
        };
        // In a slot, so that it is not lost with a thread that cannot be made.
        let slot = Arc::new(Mutex::new(Some(backend)));
        let own = slot.clone();
        let take = |slot: &Mutex<Option<_>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let run = move || take(&own).map(|backend| carrier.run(backend));
        match std::thread::Builder::new().name("net".into()).spawn(run) {
            Ok(thread) => Ok(Self { shared, waker, thread: Some(thread) }),
            Err(error) => Err((take(&slot), error)),
        }
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!("a network card's thread cannot be woken: {error}");
        }
    }

    /// The driver made buffers available.
    pub(super) fn kick(&self) {
        if !self.shared.kicked.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Uses other settings from now on.
    pub(super) fn configure(&self, settings: &NetState) {
        let rules = Rules { filter: settings.filter.clone(), pairs_in_use: settings.pairs.into() };
        *self.shared.rules() = rules;
        self.shared.lock().offloads = Some(settings.offloads);
        self.shared.attention.store(true, Ordering::Release);
        self.wake();
    }

    fn order(&self, order: Order) {
        self.shared.lock().order = order;
        self.shared.attention.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        self.wake();
    }

    /// Returns when the worker touches neither queues nor guest memory.
    pub(super) fn park(&self) {
        self.order(Order::Park);
        let mut control = self.shared.lock();
        while !control.parked {
            control = self.shared.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets it go on.
    pub(super) fn unpark(&self) {
        self.order(Order::Serve);
    }

    /// Ends the thread; the backend comes back, unless the thread failed.
    pub(super) fn stop(mut self) -> Option<Box<dyn NetBackend>> {
        self.end()
    }

    fn end(&mut self) -> Option<Box<dyn NetBackend>> {
        let thread = self.thread.take()?;
        self.order(Order::Stop);
        thread.join().ok().flatten()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread works with.
struct Carrier {
    shared: Arc<Shared>,
    pairs: Vec<(SharedQueue, SharedQueue)>,
    mergeable: bool,
    /// The pair that each flow was last sent on: where its answers go (5.1.6.5.5).
    steering: [u8; STEERED_FLOWS],
    /// The frame in hand.
    frame: Vec<u8>,
    /// `frame` waits for the driver's buffers.
    pending: Option<FrameMeta>,
    chains: Vec<Chain>,
    stats: Arc<NetStats>,
}

fn lock(queue: &SharedQueue) -> MutexGuard<'_, VirtQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    Done,
    Dropped,
    NoRoom,
}

impl Carrier {
    fn run(mut self, mut backend: Box<dyn NetBackend>) -> Box<dyn NetBackend> {
        let mut buffer = Vec::with_capacity(MAX_FRAME_BYTES);
        loop {
            if self.shared.attention.swap(false, Ordering::AcqRel) && !self.attend(&mut *backend) {
                return backend;
            }
            // Before the queues are looked at: what comes later ends the wait.
            self.shared.kicked.store(false, Ordering::Release);
            let mut more = false;
            for pair in 0..self.pairs.len() {
                more |= self.transmit(pair, &mut *backend, &mut buffer);
            }
            // Answers that are there already, before anything is waited for.
            self.receive(&mut *backend);
            backend.poll(!more);
            self.receive(&mut *backend);
        }
    }

    /// Does what the device asks for; `false`: stop.
    fn attend(&self, backend: &mut dyn NetBackend) -> bool {
        let shared = self.shared.clone();
        let mut control = shared.lock();
        loop {
            if let Some(offloads) = control.offloads.take() {
                backend.set_guest_offloads(guest_offloads(offloads));
            }
            control.parked = control.order == Order::Park;
            match control.order {
                Order::Stop => return false,
                Order::Serve => return true,
                Order::Park => {
                    shared.changed.notify_all();
                    control = shared.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Sends what the driver has on a queue, up to a limit; is there more?
    fn transmit(&mut self, pair: usize, backend: &mut dyn NetBackend, buffer: &mut Vec<u8>) -> bool {
        let queue = self.pairs[pair].1.clone();
        let mut sent = 0;
        while sent < BURST {
            let Some(chain) = lock(&queue).pop() else { break };
            let meta = take(&chain, buffer);
            let mut queue = lock(&queue);
            queue.push(chain, 0);
            drop(queue);
            sent += 1;
            match meta {
                Some(meta) => {
                    count(&self.stats.sent, 1);
                    count(&self.stats.sent_bytes, buffer.len());
                    self.steering[flow(buffer)] = pair as u8;
                    backend.send(&meta, buffer);
                }
                None => count(&self.stats.send_errors, 1),
            }
        }
        if sent != 0 {
            lock(&queue).signal();
        }
        sent == BURST
    }

    /// Gives the driver what has come for it, as long as it has buffers.
    fn receive(&mut self, backend: &mut dyn NetBackend) {
        let mut touched = 0u32;
        loop {
            let meta = match self.pending.take() {
                Some(meta) => meta,
                None => match backend.receive(&mut self.frame) {
                    Some(meta) => meta,
                    None => break,
                },
            };
            let rules = self.shared.rules();
            let wanted = MacAddr::from_bytes(&self.frame[..6]).is_some_and(|to| rules.filter.accepts(to));
            let in_use = rules.pairs_in_use.clamp(1, self.pairs.len().max(1));
            drop(rules);
            let pair = usize::from(self.steering[flow(&self.frame)]) % in_use;
            match if wanted { self.place(pair, &meta) } else { Placed::Dropped } {
                Placed::Done => {
                    touched |= 1 << pair;
                    count(&self.stats.received, 1);
                    count(&self.stats.received_bytes, self.frame.len());
                }
                Placed::Dropped => count(&self.stats.receive_drops, 1),
                Placed::NoRoom => {
                    self.pending = Some(meta);
                    break;
                }
            }
        }
        for (pair, (queue, _)) in self.pairs.iter().enumerate() {
            if touched & 1 << pair != 0 {
                lock(queue).signal();
            }
        }
    }

    /// Puts the frame in hand into buffers of a receive queue (5.1.6.4).
    fn place(&mut self, pair: usize, meta: &FrameMeta) -> Placed {
        let queue = &self.pairs[pair].0;
        let needed = (HEADER_BYTES + self.frame.len()) as u64;
        match collect(&mut lock(queue), needed, self.mergeable, &mut self.chains) {
            Placed::Done => (),
            other => return other,
        }
        let header = vnet_header::write(meta, self.chains.len() as u16);
        let mut left = &self.frame[..];
        let mut lens = Vec::with_capacity(self.chains.len());
        for (index, chain) in self.chains.iter().enumerate() {
            let mut at = 0;
            if index == 0 {
                // The chain has room, and RAM does not go away.
                at = chain.write_at(0, &header).unwrap_or(0);
            }
            let len = left.len().min((chain.writable_len() - at as u64) as usize);
            let written = chain.write_at(at as u64, &left[..len]).unwrap_or(0);
            left = &left[written..];
            lens.push((at + written) as u32);
        }
        let mut queue = lock(queue);
        for (chain, len) in self.chains.drain(..).zip(lens) {
            queue.push(chain, len);
        }
        Placed::Done
    }
}

/// Takes buffers for `needed` bytes from a receive queue, all or none.
fn collect(queue: &mut VirtQueue, needed: u64, mergeable: bool, chains: &mut Vec<Chain>) -> Placed {
    let mut room = 0;
    while room < needed {
        let Some(chain) = queue.pop() else {
            let ready = queue.is_ready();
            put_back(queue, chains);
            return if ready { Placed::NoRoom } else { Placed::Dropped };
        };
        let len = chain.writable_len();
        let enough = if chains.is_empty() { HEADER_BYTES as u64 } else { 1 };
        chains.push(chain);
        if len < enough {
            put_back(queue, chains);
            queue.fail(&"a receive buffer has no room");
            return Placed::Dropped;
        }
        room += len;
        if !mergeable && room < needed {
            put_back(queue, chains);
            return Placed::Dropped;
        }
    }
    Placed::Done
}

fn put_back(queue: &mut VirtQueue, chains: &mut Vec<Chain>) {
    chains.drain(..).rev().for_each(|chain| queue.undo_pop(chain));
}

/// Copies a frame out of a driver's buffer; `None` if it is none.
fn take(chain: &Chain, frame: &mut Vec<u8>) -> Option<FrameMeta> {
    let len = usize::try_from(chain.readable_len()).ok()?.checked_sub(HEADER_BYTES)?;
    if !(ETHERNET_HEADER_BYTES..=MAX_FRAME_BYTES).contains(&len) {
        return None;
    }
    let mut header = [0; HEADER_BYTES];
    chain.read_at(0, &mut header).ok()?;
    frame.resize(len, 0);
    chain.read_at(HEADER_BYTES as u64, frame).ok()?;
    vnet_header::read(&header, len)
}

/// A number for the conversation a frame belongs to, the same in both directions.
fn flow(frame: &[u8]) -> usize {
    let addresses = match frame.get(12..15) {
        Some(&[0x08, 0x00, first]) => {
            let ports = ETHERNET_HEADER_BYTES + usize::from(first & 15) * 4;
            [frame.get(26..34), frame.get(ports..ports + 4)]
        }
        Some(&[0x86, 0xdd, _]) => [frame.get(22..54), frame.get(54..58)],
        _ => [None, None],
    };
    let mix =
        |part: &[u8]| part.iter().fold(0u32, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let both = addresses.into_iter().flatten().map(|pair| {
        let (one, other) = pair.split_at(pair.len() / 2);
        mix(one).wrapping_add(mix(other))
    });
    let sum = both.fold(0, u32::wrapping_add).wrapping_mul(0x9e37_79b1);
    (sum >> 24) as usize % STEERED_FLOWS
}
