//! What both transports share (Virtio 1.3, 2.1-2.6 and 3.1): feature negotiation, the status machine, queue set-up,
//! activation, reset, and the saved state.

use super::{Activation, Interrupt, InterruptPort, QueueState, SharedQueue, VirtQueue, VirtioDevice};
use super::{feature, status};
use isomer_core::{GuestMemory, StateError, guest_warn};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Feature bits every transport offers for every device.
const COMMON_FEATURES: u64 =
    feature::INDIRECT_DESC | feature::EVENT_IDX | feature::VERSION_1 | feature::RING_RESET;

/// Selectors and negotiation results, as the driver wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registers {
    status: u8,
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    driver_features: u64,
    pub(super) queue_select: u32,
}

/// The shared part's saved state.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TransportState<S> {
    registers: Registers,
    needs_reset: bool,
    generation: u32,
    queues: Vec<QueueState>,
    device: S,
}

/// A device, its queues and the driver's dealings with them.
#[derive(Debug)]
pub(super) struct Transport<V> {
    pub(super) device: V,
    pub(super) registers: Registers,
    memory: GuestMemory,
    queues: Vec<SharedQueue>,
    interrupt: Interrupt,
    dma: Arc<AtomicBool>,
    /// The device has its queues: `activate` was called since the last reset.
    active: bool,
    /// The device is active and quiesced.
    parked: bool,
}

impl<V: VirtioDevice> Transport<V> {
    /// `dma` tells whether the device may touch guest memory from the start.
    pub(super) fn new(device: V, memory: GuestMemory, port: Arc<dyn InterruptPort>, dma: bool) -> Self {
        let interrupt = Interrupt::new(port);
        let dma = Arc::new(AtomicBool::new(dma));
        let queue = |(index, &max_size): (usize, &u16)| {
            let queue = VirtQueue::new(index as u16, max_size, &memory, interrupt.clone(), dma.clone());
            Arc::new(Mutex::new(queue))
        };
        let queues = device.queue_max_sizes().iter().enumerate().map(queue).collect();
        let registers = Registers::default();
        Self { device, registers, memory, queues, interrupt, dma, active: false, parked: false }
    }

    fn offered(&self) -> u64 {
        self.device.features() | COMMON_FEATURES
    }

    /// The selected half of the offered features.
    pub(super) fn device_features(&self) -> u32 {
        half(self.offered(), self.registers.device_features_select)
    }

    /// The selected half of what the driver accepted so far.
    pub(super) fn driver_features(&self) -> u32 {
        half(self.registers.driver_features, self.registers.driver_features_select)
    }

    /// The driver accepts the selected half; too late once FEATURES_OK is set.
    pub(super) fn set_driver_features(&mut self, value: u32) {
        let select = self.registers.driver_features_select;
        if self.registers.status & status::FEATURES_OK == 0 && select < 2 {
            let shift = 32 * select;
            let others = self.registers.driver_features & !(u64::from(u32::MAX) << shift);
            self.registers.driver_features = others | u64::from(value) << shift;
        }
    }

    /// The device status field.
    pub(super) fn status(&self) -> u8 {
        let broken = self.interrupt.is_reset_needed();
        self.registers.status | if broken { status::DEVICE_NEEDS_RESET } else { 0 }
    }

    /// The driver sets status bits; they stay until reset, which writing anything but zero is not.
    pub(super) fn set_status(&mut self, value: u8) {
        let known = value & !status::DEVICE_NEEDS_RESET;
        let mut rising = known & !self.registers.status;
        if rising & status::FEATURES_OK != 0 && !self.features_acceptable(self.registers.driver_features) {
            guest_warn!(
                device = V::NAME,
                "driver accepted features {:#x} of {:#x}, which do not fit",
                self.registers.driver_features,
                self.offered()
            );
            rising &= !status::FEATURES_OK;
        }
        if (self.registers.status | rising) & status::FEATURES_OK == 0 {
            rising &= !status::DRIVER_OK;
        }
        self.registers.status |= rising;
        if rising & status::DRIVER_OK != 0 {
            self.interrupt.set_live(true);
            self.run();
        }
    }

    fn features_acceptable(&self, accepted: u64) -> bool {
        accepted & !self.offered() == 0 && accepted & feature::VERSION_1 != 0
    }

    fn is_live(&self) -> bool {
        self.registers.status & status::DRIVER_OK != 0
    }

    /// Number of queues.
    pub(super) fn queue_count(&self) -> u16 {
        self.queues.len() as u16
    }

    /// The selected queue, if it exists.
    pub(super) fn queue(&self) -> Option<MutexGuard<'_, VirtQueue>> {
        self.queues.get(self.registers.queue_select as usize).map(lock)
    }

    /// The driver enables the selected queue.
    pub(super) fn enable_queue(&mut self) {
        let features = self.registers.driver_features;
        if let Some(mut queue) = self.queue() {
            queue.enable(features);
        }
    }

    /// The driver resets the selected queue (Virtio 1.3, 2.6.1): nothing of it is in use when this returns.
    pub(super) fn reset_queue(&mut self) {
        self.stop_queue(VirtQueue::reset);
    }

    /// The driver disables the selected queue, which keeps its place.
    pub(super) fn disable_queue(&mut self) {
        self.stop_queue(VirtQueue::disable);
    }

    fn stop_queue(&mut self, stop: fn(&mut VirtQueue)) {
        let Some(queue) = self.queues.get(self.registers.queue_select as usize).cloned() else { return };
        let running = self.active && !self.parked && lock(&queue).is_ready();
        if running {
            self.device.quiesce();
        }
        stop(&mut lock(&queue));
        if running {
            self.device.resume();
            (0..u32::from(self.queue_count())).for_each(|index| self.notify(index));
        }
    }

    /// The driver made buffers available on queue `index`.
    pub(super) fn notify(&mut self, index: u32) {
        let Some(queue) = self.queues.get(index as usize) else { return };
        if self.is_live() && lock(queue).is_ready() {
            self.start();
            self.device.notify(index as u16);
        }
    }

    /// See [`Interrupt::generation`].
    pub(super) fn generation(&self) -> u32 {
        self.interrupt.generation()
    }

    /// Reads `size` bytes (up to 8) of device configuration.
    pub(super) fn read_config(&self, offset: u64, size: usize) -> u64 {
        let mut buf = [0; 8];
        if let Some(part) = buf.get_mut(..size) {
            self.device.read_config(offset, part);
        }
        u64::from_le_bytes(buf)
    }

    /// Writes `size` bytes (up to 8) of device configuration.
    pub(super) fn write_config(&mut self, offset: u64, size: usize, value: u64) {
        if let Some(part) = value.to_le_bytes().get(..size) {
            self.device.write_config(offset, part);
        }
    }

    /// May the device touch guest memory? Queues that waited for it are served.
    pub(super) fn set_dma(&mut self, allowed: bool) {
        if self.dma.swap(allowed, Ordering::AcqRel) != allowed && allowed && self.is_live() {
            self.run();
        }
    }

    /// As [`Self::set_dma`], for a device that is being restored.
    pub(super) fn restore_dma(&mut self, allowed: bool) {
        self.dma.store(allowed, Ordering::Release);
    }

    /// Device reset (Virtio 1.3, 2.4). Interrupt causes are the transport's to clear, afterwards.
    pub(super) fn reset(&mut self) {
        self.interrupt.set_live(false);
        self.device.reset();
        (self.active, self.parked) = (false, false);
        self.queues.iter().for_each(|queue| lock(queue).reset());
        self.interrupt.restore(false, 0);
        self.registers = Registers::default();
    }

    /// Gives the device its queues, or wakes it.
    fn start(&mut self) {
        if !self.active {
            let features = self.registers.driver_features;
            self.queues.iter().for_each(|queue| lock(queue).set_features(features));
            let (queues, memory) = (self.queues.clone(), self.memory.clone());
            let interrupt = self.interrupt.clone();
            self.device.activate(Activation { features, queues, memory, interrupt });
            self.active = true;
        } else if self.parked {
            self.device.resume();
        }
        self.parked = false;
    }

    /// As [`Self::start`], and has the device look at every queue.
    fn run(&mut self) {
        self.start();
        (0..u32::from(self.queue_count())).for_each(|index| self.notify(index));
    }

    /// Parks a live device.
    pub(super) fn quiesce(&mut self) {
        if self.active && !self.parked {
            self.device.quiesce();
            self.parked = true;
        }
    }

    /// Lets a device continue, or start after a restore, if its driver has made it live.
    pub(super) fn resume(&mut self) {
        if self.is_live() && (self.parked || !self.active) {
            self.run();
        }
    }

    /// Copies the state.
    pub(super) fn save(&self) -> TransportState<V::State> {
        TransportState {
            registers: self.registers.clone(),
            needs_reset: self.interrupt.is_reset_needed(),
            generation: self.interrupt.generation(),
            queues: self.queues.iter().map(|queue| lock(queue).save()).collect(),
            device: self.device.save(),
        }
    }

    /// Takes over a state. The device starts at [`Self::resume`], when RAM and all other devices are restored too.
    pub(super) fn restore(&mut self, state: TransportState<V::State>) -> Result<(), StateError> {
        self.check(&state)?;
        self.quiesce();
        let old = self.device.save();
        self.interrupt.set_live(false);
        self.device.reset();
        (self.active, self.parked) = (false, false);
        if let Err(error) = self.device.restore(state.device) {
            // The device's own earlier state cannot be refused; queues and registers were not touched.
            self.device.restore(old)?;
            self.interrupt.set_live(self.is_live());
            return Err(error);
        }
        let features = state.registers.driver_features;
        for (queue, saved) in self.queues.iter().zip(&state.queues) {
            lock(queue).restore(saved, features);
        }
        self.registers = state.registers;
        self.interrupt.restore(state.needs_reset, state.generation);
        self.interrupt.set_live(self.is_live());
        Ok(())
    }

    fn check(&self, state: &TransportState<V::State>) -> Result<(), StateError> {
        let damaged = |why: String| StateError::Damaged { device: V::NAME, why };
        let Registers { status, driver_features, .. } = state.registers;
        let negotiated = status & status::FEATURES_OK != 0;
        if (negotiated && !self.features_acceptable(driver_features))
            || (status & status::DRIVER_OK != 0 && !negotiated)
            || status & status::DEVICE_NEEDS_RESET != 0
        {
            return Err(damaged(format!("status {status:#x} with features {driver_features:#x}")));
        }
        if state.queues.len() != self.queues.len() {
            return Err(damaged(format!("{} queues instead of {}", state.queues.len(), self.queues.len())));
        }
        let check = |(queue, saved): (&SharedQueue, &QueueState)| lock(queue).check(saved, driver_features);
        self.queues.iter().zip(&state.queues).try_for_each(check).map_err(|e| damaged(e.to_string()))
    }
}

/// Bits `32 * select` up of `value`.
fn half(value: u64, select: u32) -> u32 {
    if select < 2 { (value >> (32 * select)) as u32 } else { 0 }
}

fn lock(queue: &SharedQueue) -> MutexGuard<'_, VirtQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `NAME` of a device with its transport's suffix ("virtio-blk" becomes "virtio-blk-pci"), at compile time.
pub(super) struct Suffixed<V, const PCI: bool>(std::marker::PhantomData<V>);

impl<V: VirtioDevice, const PCI: bool> Suffixed<V, PCI> {
    const SUFFIX: &'static [u8] = if PCI { b"-pci" } else { b"-mmio" };
    const LEN: usize = V::NAME.len() + Self::SUFFIX.len();
    const BYTES: [u8; 32] = {
        let (name, mut bytes, mut at) = (V::NAME.as_bytes(), [0; 32], 0);
        while at < Self::LEN {
            bytes[at] = if at < name.len() { name[at] } else { Self::SUFFIX[at - name.len()] };
            at += 1;
        }
        bytes
    };
    pub(super) const NAME: &'static str = match std::str::from_utf8(Self::BYTES.split_at(Self::LEN).0) {
        Ok(name) => name,
        Err(_) => V::NAME,
    };
}

/// A transport's and its device's version in one number.
pub(super) const fn version<V: VirtioDevice>(transport: u32) -> u32 {
    transport << 16 | V::VERSION
}
