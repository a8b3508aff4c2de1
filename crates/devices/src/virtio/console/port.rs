//! One port of a console: its two queues, the input that waits for the guest, the output that waits for the host.

use super::{PortOptions, Shared, control::Event};
use crate::{
    backend::char::{CharOutput, InputWaker},
    virtio::{Chain, SharedQueue, VirtQueue},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fmt,
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Input bytes kept for a guest that does not read.
const INPUT_LIMIT_BYTES: usize = 64 << 10;
/// Output bytes handled at a time.
const BLOCK_BYTES: usize = 4096;

/// A port.
pub(super) struct Port {
    /// `None`: the console.
    pub(super) name: Option<String>,
    on_guest_open: Option<Box<dyn Fn(bool) + Send + Sync>>,
    plugged: AtomicBool,
    input: Mutex<Input>,
    output: Mutex<Output>,
}

/// Host to guest.
#[derive(Default)]
struct Input {
    queue: Option<SharedQueue>,
    waiting: VecDeque<u8>,
    /// Nothing will follow what waits.
    ended: bool,
    /// The driver has set the port up.
    ready: bool,
    /// The driver was told that the host's side is open.
    host_open: bool,
    /// A guest program has the port open.
    guest_open: bool,
    parked: bool,
    /// Whoever brings input was told to wait.
    short: bool,
    waker: Option<InputWaker>,
}

/// Guest to host.
struct Output {
    queue: Option<SharedQueue>,
    backend: Box<dyn CharOutput>,
    parked: bool,
    begun: Option<Begun>,
}

/// A chain whose first bytes are out; it waits at the head of the queue for the host to take the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    head: u16,
    len: u64,
    done: u64,
}

/// A port's saved state.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PortState {
    plugged: bool,
    ready: bool,
    host_open: bool,
    guest_open: bool,
    input: Vec<u8>,
    begun: Option<Begun>,
}

impl PortState {
    pub(super) fn is_possible(&self) -> bool {
        self.input.len() <= INPUT_LIMIT_BYTES && self.begun.is_none_or(|begun| begun.done <= begun.len)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({:?})", self.name)
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Port {
    pub(super) fn new(options: PortOptions) -> Self {
        let output = Output { queue: None, backend: options.output, parked: false, begun: None };
        Self {
            name: options.name,
            on_guest_open: options.on_guest_open,
            plugged: AtomicBool::new(true),
            input: Mutex::default(),
            output: Mutex::new(output),
        }
    }

    /// Sets what the output calls when it has room again.
    pub(super) fn on_room(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        lock(&self.output).backend.on_room(wake);
    }

    /// The driver is live; `always_open`: it knows no opening and closing.
    pub(super) fn start(&self, input: Option<SharedQueue>, output: Option<SharedQueue>, always_open: bool) {
        let mut state = lock(&self.input);
        (state.queue, state.parked) = (input, false);
        state.guest_open |= always_open;
        drop(state);
        let mut state = lock(&self.output);
        (state.queue, state.parked) = (output, false);
    }

    /// The device is reset. Input that waits stays for the next driver.
    pub(super) fn stop(&self) {
        let mut input = lock(&self.input);
        (input.queue, input.parked) = (None, false);
        (input.ready, input.host_open) = (false, false);
        let was_open = std::mem::take(&mut input.guest_open);
        drop(input);
        let mut output = lock(&self.output);
        (output.queue, output.parked, output.begun) = (None, false, None);
        drop(output);
        self.tell_guest_open(false, was_open);
    }

    fn tell_guest_open(&self, open: bool, was_open: bool) {
        if let Some(callback) = self.on_guest_open.as_ref().filter(|_| open != was_open) {
            callback(open);
        }
    }

    /// Stops or continues touching queues.
    pub(super) fn park(&self, parked: bool) {
        lock(&self.input).parked = parked;
        lock(&self.output).parked = parked;
    }

    pub(super) fn is_plugged(&self) -> bool {
        self.plugged.load(Ordering::Acquire)
    }

    /// Sets whether the guest has the port at all; returns what was before.
    pub(super) fn set_plugged(&self, plugged: bool) -> bool {
        if !plugged {
            lock(&self.input).ready = false;
        }
        self.plugged.swap(plugged, Ordering::AcqRel)
    }

    pub(super) fn is_ready(&self) -> bool {
        lock(&self.input).ready
    }

    pub(super) fn set_ready(&self) {
        lock(&self.input).ready = true;
    }

    /// Opens the host's side unless its input is over; tells whether it is open.
    pub(super) fn open_host_side(&self) -> bool {
        let mut input = lock(&self.input);
        input.host_open = !input.ended || !input.waiting.is_empty();
        input.host_open
    }

    pub(super) fn set_guest_open(&self, open: bool) {
        let was_open = std::mem::replace(&mut lock(&self.input).guest_open, open);
        self.tell_guest_open(open, was_open);
    }

    /// A byte from a driver too early or too broken for queues.
    pub(super) fn emergency_write(&self, byte: u8) {
        lock(&self.output).backend.offer(&[byte]);
    }

    /// Gives the guest's output to the host, as far as that has room.
    pub(super) fn drain_output(&self) {
        let mut output = lock(&self.output);
        let Output { queue, backend, parked, begun } = &mut *output;
        let Some(queue) = queue.as_ref().filter(|_| !*parked) else { return };
        let mut queue = lock::<VirtQueue>(queue);
        while let Some(chain) = queue.pop() {
            let (head, len) = (chain.head(), chain.readable_len());
            let earlier = begun.take().filter(|begun| (begun.head, begun.len) == (head, len));
            let done = copy_out(&chain, earlier.map_or(0, |begun| begun.done), backend.as_mut());
            if done < len {
                *begun = Some(Begun { head, len, done });
                queue.undo_pop(chain);
                break;
            }
            queue.push(chain, 0);
        }
        queue.signal();
    }

    pub(super) fn save(&self) -> PortState {
        let (input, output) = (lock(&self.input), lock(&self.output));
        PortState {
            plugged: self.is_plugged(),
            ready: input.ready,
            host_open: input.host_open,
            guest_open: input.guest_open,
            input: input.waiting.iter().copied().collect(),
            begun: output.begun,
        }
    }

    /// Takes over a state that [`PortState::is_possible`] accepts.
    pub(super) fn restore(&self, state: PortState) {
        self.plugged.store(state.plugged, Ordering::Release);
        let mut input = lock(&self.input);
        (input.ready, input.host_open) = (state.ready, state.host_open);
        input.waiting = state.input.into();
        let was_open = std::mem::replace(&mut input.guest_open, state.guest_open);
        drop(input);
        lock(&self.output).begun = state.begun;
        self.tell_guest_open(state.guest_open, was_open);
    }
}

/// Offers the chain's bytes from `done` on to `backend`; returns how far it got.
fn copy_out(chain: &Chain, mut done: u64, backend: &mut dyn CharOutput) -> u64 {
    let mut block = [0; BLOCK_BYTES];
    loop {
        // The chain is in RAM, which does not go away: a failure would be the end of it.
        let count = chain.read_at(done, &mut block).unwrap_or(0);
        if count == 0 {
            return chain.readable_len();
        }
        let taken = backend.offer(&block[..count]).min(count);
        done += taken as u64;
        if taken < count {
            return done;
        }
    }
}

/// The host's end of a port; cheap to clone.
#[derive(Clone, Debug)]
pub struct PortHandle {
    shared: Arc<Shared>,
    index: usize,
}

impl PortHandle {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self { shared, index }
    }

    fn port(&self) -> &Port {
        &self.shared.ports[self.index]
    }

    /// Sets what to wake when the port has room after it took less than it was given.
    pub fn set_waker(&self, waker: InputWaker) {
        lock(&self.port().input).waker = Some(waker);
    }

    /// Does a guest program have the port open?
    pub fn is_guest_open(&self) -> bool {
        lock(&self.port().input).guest_open
    }

    /// Takes what there is room for and delivers what the guest has buffers for.
    pub(super) fn push_input(&self, bytes: &[u8]) -> usize {
        let mut input = lock(&self.port().input);
        let mut taken = 0;
        if !input.ended {
            taken = (INPUT_LIMIT_BYTES - input.waiting.len()).min(bytes.len());
            input.waiting.extend(&bytes[..taken]);
        }
        input.short = taken < bytes.len() && !input.ended;
        drop(input);
        self.deliver();
        // Input after the end goes nowhere.
        if lock(&self.port().input).ended { bytes.len() } else { taken }
    }

    /// Nothing will follow: the guest's reader sees the end after what waits.
    pub(super) fn end_input(&self) {
        lock(&self.port().input).ended = true;
        self.deliver();
    }

    /// Gives input to the guest while it reads and has buffers; then, at the end, closes the host's side.
    pub(super) fn deliver(&self) {
        let mut input = lock(&self.port().input);
        if input.parked {
            return;
        }
        if input.guest_open && !input.waiting.is_empty() {
            fill_buffers(&mut input);
        }
        if input.ended && input.waiting.is_empty() && std::mem::take(&mut input.host_open) {
            self.shared.send(self.index, Event::PortOpen, 0, &[]);
        }
        let room = input.waiting.len() < INPUT_LIMIT_BYTES;
        if room
            && std::mem::take(&mut input.short)
            && let Some(waker) = &input.waker
        {
            waker.wake();
        }
    }
}

/// Moves waiting input into the driver's buffers.
fn fill_buffers(input: &mut Input) {
    let Some(queue) = input.queue.clone() else { return };
    let mut queue = lock::<VirtQueue>(&queue);
    while !input.waiting.is_empty() {
        let Some(mut chain) = queue.pop() else { break };
        let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
        let count = room.min(input.waiting.len());
        let written = chain.write(&input.waiting.make_contiguous()[..count]).unwrap_or(0);
        input.waiting.drain(..written);
        queue.push(chain, written as u32);
    }
    queue.signal();
}
