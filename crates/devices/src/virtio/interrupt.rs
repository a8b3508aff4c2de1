//! A virtio device's way to its driver (Virtio 1.3, 2.3 and 2.7.7): used-buffer and configuration-change
//! notifications, and the "needs reset" condition.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

/// How a transport delivers notifications: a wire, or messages. Called from any thread, with a queue's or a device's
/// lock held, so it takes its own lock only.
pub trait InterruptPort: Send + Sync {
    /// Queue `index` has used buffers the driver wants to hear of.
    fn queue(&self, index: u16);
    /// The configuration, or the status, changed.
    fn config(&self);
}

/// A handle for devices and their threads; cheap to clone.
#[derive(Clone)]
pub struct Interrupt(Arc<Inner>);

struct Inner {
    port: Arc<dyn InterruptPort>,
    /// DRIVER_OK is set: the driver may be told things.
    live: AtomicBool,
    needs_reset: AtomicBool,
    generation: AtomicU32,
}

impl Interrupt {
    /// A handle on `port`.
    pub fn new(port: Arc<dyn InterruptPort>) -> Self {
        let (live, needs_reset) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Inner { port, live, needs_reset, generation: AtomicU32::new(0) }))
    }

    /// Tells the driver of used buffers on queue `index`. [`super::VirtQueue::signal`] is the usual way.
    pub fn signal_queue(&self, index: u16) {
        if self.0.live.load(Ordering::Acquire) {
            self.0.port.queue(index);
        }
    }

    /// The device changed its configuration: call after the change is visible to `read_config`.
    pub fn config_changed(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        if self.0.live.load(Ordering::Acquire) {
            self.0.port.config();
        }
    }

    /// The device cannot go on (a malformed ring, a lost backend): sets DEVICE_NEEDS_RESET until the driver resets.
    pub fn needs_reset(&self) {
        if !self.0.needs_reset.swap(true, Ordering::AcqRel) && self.0.live.load(Ordering::Acquire) {
            self.0.port.config();
        }
    }

    /// Is DEVICE_NEEDS_RESET set?
    pub fn is_reset_needed(&self) -> bool {
        self.0.needs_reset.load(Ordering::Acquire)
    }

    /// Rises with every configuration change (Virtio 1.3, 2.5).
    pub fn generation(&self) -> u32 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// DRIVER_OK was set or cleared.
    pub(super) fn set_live(&self, live: bool) {
        self.0.live.store(live, Ordering::Release);
    }

    /// Sets what a saved state says, without notifying anybody.
    pub(super) fn restore(&self, needs_reset: bool, generation: u32) {
        self.0.needs_reset.store(needs_reset, Ordering::Release);
        self.0.generation.store(generation, Ordering::Release);
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interrupt(needs_reset: {})", self.is_reset_needed())
    }
}
