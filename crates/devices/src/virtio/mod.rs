//! Virtio devices (Virtio 1.3): what a device implements, and the two transports that present it to a guest.
//!
//! A device is one [`VirtioDevice`]; [`mmio::VirtioMmio`] and [`pci::VirtioPci`] wrap it unchanged. Queues are
//! [`VirtQueue`]s behind a lock, shared by the transport (set-up, reset, save) and the device (requests). Locks are
//! always taken in the order device, queue, interrupt; a worker thread takes a queue's lock and never the device's,
//! and holds it only to pop, push and signal: vCPUs wait for it.
//!
//! A machine stops and continues in this order: vCPUs stop, `quiesce` on every device, `save` (or `restore`),
//! `resume` on every device, vCPUs run.

pub mod blk;
pub mod console;
pub mod fs;
mod guest_io;
mod interrupt;
pub mod mmio;
pub mod net;
pub mod nine_p;
pub mod pci;
mod queue;
pub mod rng;
pub mod scsi;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod transport;
mod wire;
mod workers;

pub use interrupt::{Interrupt, InterruptPort};
pub use queue::{Chain, QueueFault, QueueState, Segment, SharedQueue, VirtQueue};

use isomer_core::{GuestMemory, StateError};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Device types (Virtio 1.3, 5).
pub mod device_type {
    /// Network card.
    pub const NET: u32 = 1;
    /// Block device.
    pub const BLOCK: u32 = 2;
    /// Console.
    pub const CONSOLE: u32 = 3;
    /// Entropy source.
    pub const ENTROPY: u32 = 4;
    /// Memory balloon.
    pub const BALLOON: u32 = 5;
    /// SCSI host.
    pub const SCSI: u32 = 8;
    /// 9P transport.
    pub const NINE_P: u32 = 9;
    /// GPU.
    pub const GPU: u32 = 16;
    /// Input device.
    pub const INPUT: u32 = 18;
    /// Socket device.
    pub const SOCKET: u32 = 19;
    /// File system.
    pub const FILE_SYSTEM: u32 = 26;
}

/// Feature bits that belong to transports and queues (Virtio 1.3, 6). Transports offer them for every device.
pub mod feature {
    /// Chains may use a table of indirect descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are suppressed by index (`used_event`, `avail_event`).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device; always offered, and must be accepted.
    pub const VERSION_1: u64 = 1 << 32;
    /// Single queues can be reset.
    pub const RING_RESET: u64 = 1 << 40;
}

/// Bits of the device status field (Virtio 1.3, 2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up: the device is live.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u8 = 8;
    /// The device met an error it cannot recover from.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The guest has given up on the device.
    pub const FAILED: u8 = 128;
}

/// What a driver has agreed with a device when it becomes live.
#[derive(Clone, Debug)]
pub struct Activation {
    /// Negotiated feature bits.
    pub features: u64,
    /// All queues, by index, set up or not: [`VirtQueue::pop`] yields nothing on one that is not.
    pub queues: Vec<SharedQueue>,
    /// Guest RAM, for devices that need more than [`Chain`] offers.
    pub memory: GuestMemory,
    /// Tells the driver of used buffers ([`VirtQueue::signal`] does it) and of configuration changes.
    pub interrupt: Interrupt,
}

/// [`VirtioDevice::read_config`] for a device whose configuration is `config`.
fn copy_config(config: &[u8], offset: u64, buf: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|at| config.get(at..)).unwrap_or(&[]);
    let len = rest.len().min(buf.len());
    buf[..len].copy_from_slice(&rest[..len]);
}

/// A virtio device, whatever the transport.
///
/// A device serves its queues in [`Self::notify`], on the calling vCPU's thread, or hands them to a thread of its
/// own. A thread must look for its stop and park requests between two chains: a guest can keep a queue full for ever.
pub trait VirtioDevice: Send + 'static {
    /// The model's name without transport, as QEMU calls it ("virtio-blk"); at most 24 bytes.
    const NAME: &'static str;
    /// Version of [`Self::State`], below 65536.
    const VERSION: u32;
    /// What the guest can observe besides queues, status and negotiated features, which the transport saves.
    type State: Serialize + DeserializeOwned + PartialEq + Debug;

    /// The device type ([`device_type`]).
    fn device_type(&self) -> u32;
    /// Feature bits offered besides those in [`feature`].
    fn features(&self) -> u64;
    /// Largest size of each queue, in descriptors: powers of two up to 32768.
    fn queue_max_sizes(&self) -> &[u16];
    /// Reads device configuration; `buf` is all zeros on entry, and stays so beyond the end of the configuration.
    /// `offset` is any 64-bit number. Fields that a worker changes must come from atomics or a lock of their own.
    fn read_config(&self, offset: u64, buf: &mut [u8]) {
        let _ = (offset, buf);
    }
    /// Writes device configuration; whatever is read-only or does not exist is ignored.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }
    /// The driver is ready (DRIVER_OK), or a restored machine is about to run: start.
    fn activate(&mut self, activation: Activation);
    /// The driver made buffers available on `queue` (always below the number of queues).
    /// Called only while active; may come when there is nothing new.
    fn notify(&mut self, queue: u16);
    /// Stops: when it returns, no thread of the device touches guest memory or its queues, which it has let go.
    /// Chains in flight may be dropped. Called when active or not; configuration returns to its initial values.
    fn reset(&mut self);
    /// Completes or puts back (see [`VirtQueue::undo_pop`]) every chain in flight and parks: until [`Self::resume`],
    /// the device touches neither guest memory nor queues. Called only while active. Must not wait for the outside
    /// world without limit (a console does not wait for input).
    fn quiesce(&mut self) {}
    /// Continues after [`Self::quiesce`]. The transport notifies all queues afterwards.
    fn resume(&mut self) {}
    /// Copies the state; the device is quiesced.
    fn save(&self) -> Self::State;
    /// Takes over a saved state; the device is reset, and `activate` follows if it was live. A state that no device
    /// could have saved is refused and changes nothing.
    fn restore(&mut self, state: Self::State) -> Result<(), StateError>;
}
