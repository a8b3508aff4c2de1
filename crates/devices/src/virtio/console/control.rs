//! The control queues of a console with several ports (Virtio 1.3, 5.3.6.2).

use crate::virtio::{Interrupt, SharedQueue};
use isomer_core::guest_warn;
use std::{collections::VecDeque, io::Write, sync::PoisonError};

/// Control events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Event {
    /// From the driver: it is there (1) or failed (0).
    DeviceReady = 0,
    /// To the driver: a port exists.
    DeviceAdd = 1,
    /// To the driver: a port is gone.
    DeviceRemove = 2,
    /// From the driver: the port is set up (1) or could not be (0).
    PortReady = 3,
    /// To the driver: the port is a console.
    ConsolePort = 4,
    /// To the driver: the console's window has a size.
    Resize = 5,
    /// Either way: this side of the port was opened (1) or closed (0).
    PortOpen = 6,
    /// To the driver: the port has a name.
    PortName = 7,
}

/// `struct virtio_console_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) port: u32,
    pub(super) event: u16,
    pub(super) value: u16,
}

impl Message {
    pub(super) const BYTES: usize = 8;

    pub(super) fn decode(raw: &[u8; Self::BYTES]) -> Self {
        let raw = u64::from_le_bytes(*raw);
        Self { port: raw as u32, event: (raw >> 32) as u16, value: (raw >> 48) as u16 }
    }

    fn encode(&self) -> [u8; Self::BYTES] {
        let raw = u64::from(self.port) | u64::from(self.event) << 32 | u64::from(self.value) << 48;
        raw.to_le_bytes()
    }
}

/// Longest message: a name.
const MAX_MESSAGE_BYTES: usize = Message::BYTES + 256;

/// Messages to the driver, and what they are about.
#[derive(Debug)]
pub(super) struct Control {
    /// Columns and rows of the console's window; 0 if not known.
    pub(super) size: (u16, u16),
    /// The driver has said that it is there.
    pub(super) driver_ready: bool,
    pub(super) parked: bool,
    messages: VecDeque<Vec<u8>>,
    /// Messages kept for a driver that provides no buffers.
    limit: usize,
    queue: Option<SharedQueue>,
    /// SIZE was negotiated.
    size_interrupt: Option<Interrupt>,
}

impl Control {
    pub(super) fn new(ports: usize) -> Self {
        Self {
            size: (0, 0),
            driver_ready: false,
            parked: false,
            messages: VecDeque::new(),
            limit: 64 + 8 * ports,
            queue: None,
            size_interrupt: None,
        }
    }

    /// The driver is live.
    pub(super) fn start(&mut self, queue: Option<SharedQueue>, size_interrupt: Option<Interrupt>) {
        (self.queue, self.size_interrupt, self.parked) = (queue, size_interrupt, false);
    }

    /// The device is reset.
    pub(super) fn stop(&mut self) {
        (self.queue, self.size_interrupt, self.parked) = (None, None, false);
        self.driver_ready = false;
        self.messages.clear();
    }

    /// Queues a message and delivers what can be.
    pub(super) fn send(&mut self, message: &Message, extra: &[u8]) {
        if self.messages.len() >= self.limit {
            // Only a driver that asks and asks and never listens gets here.
            guest_warn!("console: a control message is lost, since the guest takes none");
            return;
        }
        let extra = &extra[..extra.len().min(MAX_MESSAGE_BYTES - Message::BYTES)];
        self.messages.push_back([&message.encode()[..], extra].concat());
        self.deliver();
    }

    /// Gives messages to the driver while it has buffers for them.
    pub(super) fn deliver(&mut self) {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.parked) else { return };
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(message) = self.messages.front() {
            let Some(mut chain) = queue.pop() else { break };
            // A buffer that is too short gets what fits, as a driver that provides such asks for.
            let written = chain.write(message).unwrap_or(0);
            queue.push(chain, written as u32);
            self.messages.pop_front();
        }
        queue.signal();
    }

    /// The window changed. Without `multiport`, the configuration changed with it.
    pub(super) fn resize(&mut self, columns: u16, rows: u16, multiport: bool) {
        let changed = std::mem::replace(&mut self.size, (columns, rows)) != (columns, rows);
        if let Some(interrupt) = self.size_interrupt.as_ref().filter(|_| changed && !multiport) {
            interrupt.config_changed();
        }
    }

    /// Messages not delivered yet.
    pub(super) fn pending(&self) -> Vec<Vec<u8>> {
        self.messages.iter().cloned().collect()
    }

    /// Takes over a saved state if it is possible.
    pub(super) fn restore(&mut self, size: (u16, u16), driver_ready: bool, messages: Vec<Vec<u8>>) -> bool {
        let possible = |message: &Vec<u8>| (Message::BYTES..=MAX_MESSAGE_BYTES).contains(&message.len());
        if messages.len() > self.limit || !messages.iter().all(possible) {
            return false;
        }
        (self.size, self.driver_ready, self.messages) = (size, driver_ready, messages.into());
        true
    }
}
