//! Virtio console device (Virtio 1.3, 5.3): a console and named ports, between a guest and character backends.
//!
//! The device has no thread. Guest output goes to each port's [`CharOutput`] on the notifying vCPU; what that has no
//! room for stays in the guest's queue until the output calls back. Host input comes through [`PortHandle`]s, is
//! buffered up to a limit, and delivered as the guest provides buffers. Each port has a lock for either direction,
//! and the control queue one of its own; they are taken in the order input, control, queue.

mod control;
mod port;

pub use port::PortHandle;

use super::{Activation, VirtioDevice, device_type};
use crate::backend::char::{CharInput, CharOutput};
use control::{Control, Event, Message};
use isomer_core::{StateError, guest_warn};
use port::{Port, PortState};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::Read,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Feature bits (Virtio 1.3, 5.3.3), as bit numbers.
mod feature_bit {
    /// The configuration holds the window's size.
    pub(super) const SIZE: u32 = 0;
    /// There are control queues, and there may be several ports.
    pub(super) const MULTIPORT: u32 = 1;
    /// `emerg_wr` works.
    pub(super) const EMERGENCY_WRITE: u32 = 2;
}

/// Ports a device may have, at most.
pub const MAX_PORTS: usize = 16;
/// Descriptors in each queue.
const QUEUE_SIZE: u16 = 64;
/// The control queues: messages to the driver, and from it.
const CONTROL_RX: usize = 2;
const CONTROL_TX: usize = 3;
/// Offset of `emerg_wr` in the configuration.
const EMERGENCY_WRITE: u64 = 8;

/// One port to make.
pub struct PortOptions {
    /// Its name in the guest (`/dev/virtio-ports/NAME`); `None` for the console.
    pub name: Option<String>,
    /// Where the guest's output goes.
    pub output: Box<dyn CharOutput>,
    /// Called when a guest program opens (`true`) or closes the port, with the device's lock held: it must not call
    /// back into the device.
    pub on_guest_open: Option<Box<dyn Fn(bool) + Send + Sync>>,
}

impl PortOptions {
    /// The console.
    pub fn console(output: impl CharOutput + 'static) -> Self {
        Self { name: None, output: Box::new(output), on_guest_open: None }
    }

    /// A named port.
    pub fn named(name: &str, output: impl CharOutput + 'static) -> Self {
        Self { name: Some(name.into()), output: Box::new(output), on_guest_open: None }
    }

    /// Sets [`Self::on_guest_open`].
    #[must_use]
    pub fn on_guest_open(mut self, callback: impl Fn(bool) + Send + Sync + 'static) -> Self {
        self.on_guest_open = Some(Box::new(callback));
        self
    }
}

impl fmt::Debug for PortOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortOptions({:?})", self.name)
    }
}

/// What the device and its handles share.
#[derive(Debug)]
struct Shared {
    ports: Vec<Port>,
    control: Mutex<Control>,
    /// MULTIPORT was negotiated.
    multiport: AtomicBool,
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_multiport(&self) -> bool {
        self.multiport.load(Ordering::Acquire)
    }

    /// Sends a control message about port `port`.
    fn send(&self, port: usize, event: Event, value: u16, extra: &[u8]) {
        if self.is_multiport() {
            self.control().send(&Message { port: port as u32, event: event as u16, value }, extra);
        }
    }

    /// Tells the driver the size of the console's window.
    fn send_size(&self) {
        // The order of Virtio 1.3, 5.3.6.2: columns first. Linux has it so since 6.15; older ones swap the two.
        let size = self.control().size;
        let extra = [size.0.to_le_bytes(), size.1.to_le_bytes()].concat();
        let console = self.ports.iter().position(|port| port.name.is_none());
        if let Some(index) = console.filter(|&index| size != (0, 0) && self.ports[index].is_ready()) {
            self.send(index, Event::Resize, 0, &extra);
        }
    }
}

/// What the user's side of the console can do to it; cheap to clone.
#[derive(Clone, Debug)]
pub struct ConsoleHandle(Arc<Shared>);

impl ConsoleHandle {
    /// The window has a new size in characters (SIGWINCH).
    pub fn resize(&self, columns: u16, rows: u16) {
        self.0.control().resize(columns, rows, self.0.is_multiport());
        self.0.send_size();
    }

    /// Unplugs port `index` from the guest, or plugs it in again.
    pub fn set_plugged(&self, index: usize, plugged: bool) {
        let Some(port) = self.0.ports.get(index) else { return };
        if port.set_plugged(plugged) != plugged && self.0.control().driver_ready {
            let event = if plugged { Event::DeviceAdd } else { Event::DeviceRemove };
            self.0.send(index, event, 1, &[]);
        }
    }
}

/// The device.
#[derive(Debug)]
pub struct VirtioConsole {
    shared: Arc<Shared>,
    queue_sizes: Vec<u16>,
    control_requests: Option<super::SharedQueue>,
}

/// The guest-visible state.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Columns and rows.
    size: (u16, u16),
    driver_ready: bool,
    /// Control messages the driver has not taken yet.
    messages: Vec<Vec<u8>>,
    ports: Vec<PortState>,
}

impl VirtioConsole {
    /// A device with `ports`, of which the first is port 0; ports beyond [`MAX_PORTS`] are left out.
    pub fn new(ports: Vec<PortOptions>) -> Self {
        let count = ports.len().min(MAX_PORTS);
        let ports = ports.into_iter().take(count).map(Port::new).collect();
        let control = Mutex::new(Control::new(count));
        let shared = Arc::new(Shared { ports, control, multiport: AtomicBool::new(false) });
        for index in 0..count {
            let weak = Arc::downgrade(&shared);
            shared.ports[index].on_room(Arc::new(move || {
                if let Some(shared) = weak.upgrade() {
                    shared.ports[index].drain_output();
                }
            }));
        }
        // One pair for port 0, one for control, one for each further port.
        Self { shared, queue_sizes: vec![QUEUE_SIZE; 2 + 2 * count.max(1)], control_requests: None }
    }

    /// For the window's size and for hot-plugging.
    pub fn handle(&self) -> ConsoleHandle {
        ConsoleHandle(self.shared.clone())
    }

    /// The host's end of port `index`, for input; `None` if there is no such port.
    pub fn port(&self, index: usize) -> Option<PortHandle> {
        (index < self.shared.ports.len()).then(|| PortHandle::new(self.shared.clone(), index))
    }

    /// Serves the driver's control messages.
    fn serve_control(&self) {
        let Some(queue) = &self.control_requests else { return };
        loop {
            let popped = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut chain) = popped else { break };
            let mut raw = [0; Message::BYTES];
            match chain.read_exact(&mut raw) {
                Ok(()) => self.obey(&Message::decode(&raw)),
                Err(_) => guest_warn!("console: a control message is too short"),
            }
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.push(chain, 0);
            queue.signal();
        }
    }

    /// Does what a control message of the driver says (Virtio 1.3, 5.3.6.2).
    fn obey(&self, message: &Message) {
        let shared = &self.shared;
        if message.event == Event::DeviceReady as u16 {
            shared.control().driver_ready = message.value == 1;
            let plugged = shared.ports.iter().enumerate().filter(|(_, port)| port.is_plugged());
            plugged
                .filter(|_| message.value == 1)
                .for_each(|(i, _)| shared.send(i, Event::DeviceAdd, 1, &[]));
            return;
        }
        let index = message.port as usize;
        let Some(port) = shared.ports.get(index) else {
            guest_warn!("console: a control message names port {index}, which does not exist");
            return;
        };
        match message.event {
            e if e == Event::PortReady as u16 && message.value == 1 => {
                port.set_ready();
                if let Some(name) = &port.name {
                    shared.send(index, Event::PortName, 1, name.as_bytes());
                } else {
                    shared.send(index, Event::ConsolePort, 1, &[]);
                    shared.send_size();
                }
                if port.open_host_side() {
                    shared.send(index, Event::PortOpen, 1, &[]);
                }
            }
            e if e == Event::PortReady as u16 => {
                guest_warn!("console: the guest could not set up port {index}")
            }
            e if e == Event::PortOpen as u16 => {
                port.set_guest_open(message.value != 0);
                self.deliver_input(index);
            }
            event => guest_warn!("console: unknown control event {event}"),
        }
    }

    fn deliver_input(&self, index: usize) {
        PortHandle::new(self.shared.clone(), index).deliver();
    }
}

/// The port that owns queue `queue`, and whether the queue carries guest output.
fn port_of(queue: usize) -> (usize, bool) {
    let port = if queue < CONTROL_RX { 0 } else { queue / 2 - 1 };
    (port, queue % 2 == 1)
}

impl VirtioDevice for VirtioConsole {
    const NAME: &'static str = "virtio-console";
    const VERSION: u32 = 1;
    type State = ConsoleState;

    fn device_type(&self) -> u32 {
        device_type::CONSOLE
    }

    fn features(&self) -> u64 {
        1 << feature_bit::SIZE | 1 << feature_bit::MULTIPORT | 1 << feature_bit::EMERGENCY_WRITE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, buf: &mut [u8]) {
        let (columns, rows) = self.shared.control().size;
        let ports = self.shared.ports.len().max(1) as u32;
        let config = [&columns.to_le_bytes()[..], &rows.to_le_bytes(), &ports.to_le_bytes()].concat();
        super::copy_config(&config, offset, buf);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if offset == EMERGENCY_WRITE
            && let (Some(byte), Some(port)) = (data.first(), self.shared.ports.first())
        {
            port.emergency_write(*byte);
        }
    }

    fn activate(&mut self, activation: Activation) {
        let multiport = activation.features & 1 << feature_bit::MULTIPORT != 0;
        self.shared.multiport.store(multiport, Ordering::Release);
        let tells_size = activation.features & 1 << feature_bit::SIZE != 0;
        let messages = activation.queues.get(CONTROL_RX).filter(|_| multiport).cloned();
        self.shared.control().start(messages, tells_size.then(|| activation.interrupt.clone()));
        self.control_requests = activation.queues.get(CONTROL_TX).filter(|_| multiport).cloned();
        for (index, port) in self.shared.ports.iter().enumerate() {
            let first = if index == 0 { 0 } else { 2 * index + 2 };
            // Without MULTIPORT, the driver knows port 0 only, and that is always open.
            let used = multiport || index == 0;
            let queue = |at: usize| activation.queues.get(at).filter(|_| used).cloned();
            port.start(queue(first), queue(first + 1), !multiport);
        }
    }

    fn notify(&mut self, queue: u16) {
        let queue = usize::from(queue);
        match queue {
            CONTROL_RX => self.shared.control().deliver(),
            CONTROL_TX => self.serve_control(),
            _ => {
                let (index, output) = port_of(queue);
                match self.shared.ports.get(index) {
                    Some(port) if output => port.drain_output(),
                    Some(_) => self.deliver_input(index),
                    None => {}
                }
            }
        }
    }

    fn reset(&mut self) {
        self.control_requests = None;
        self.shared.control().stop();
        self.shared.ports.iter().for_each(Port::stop);
        self.shared.multiport.store(false, Ordering::Release);
    }

    fn quiesce(&mut self) {
        self.shared.control().parked = true;
        self.shared.ports.iter().for_each(|port| port.park(true));
    }

    fn resume(&mut self) {
        self.shared.control().parked = false;
        self.shared.ports.iter().for_each(|port| port.park(false));
    }

    fn save(&self) -> ConsoleState {
        let control = self.shared.control();
        let (size, driver_ready) = (control.size, control.driver_ready);
        let messages = control.pending();
        drop(control);
        ConsoleState {
            size,
            driver_ready,
            messages,
            ports: self.shared.ports.iter().map(Port::save).collect(),
        }
    }

    fn restore(&mut self, state: ConsoleState) -> Result<(), StateError> {
        let damaged = |why: &str| StateError::Damaged { device: Self::NAME, why: why.into() };
        if state.ports.len() != self.shared.ports.len() {
            return Err(damaged("it has another number of ports"));
        }
        if !state.ports.iter().all(PortState::is_possible) {
            return Err(damaged("a port holds more input than fits"));
        }
        if !self.shared.control().restore(state.size, state.driver_ready, state.messages) {
            return Err(damaged("it holds impossible control messages"));
        }
        self.shared.ports.iter().zip(state.ports).for_each(|(port, saved)| port.restore(saved));
        Ok(())
    }
}

impl CharInput for PortHandle {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.push_input(bytes)
    }
    fn end_of_input(&self) {
        self.end_input();
    }
}

#[cfg(test)]
mod tests;
