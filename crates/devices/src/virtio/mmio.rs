//! Virtio over MMIO (Virtio 1.3, 4.2), version 2: one register window and one level-triggered interrupt a device.

use super::transport::{Suffixed, Transport, TransportState, version};
use super::{InterruptPort, VirtioDevice};
use isomer_core::{Device, FwNode, FwValue, GuestMemory, IrqLine, Placement, StateError};
use serde::{Deserialize, Serialize};
use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bytes of registers and device configuration. Boards may place windows further apart.
pub const WINDOW_BYTES: u64 = 0x200;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
/// Not legacy.
const VERSION: u32 = 2;
/// QEMU's vendor number, which some small guests insist on.
const VENDOR: u32 = 0x554d_4551;

/// InterruptStatus: used buffers.
const USED_BUFFER: u32 = 1;
/// InterruptStatus: the configuration changed.
const CONFIG_CHANGE: u32 = 2;

/// Register offsets (Virtio 1.3, table 4.1), in bytes.
mod reg {
    pub(super) const MAGIC_VALUE: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const VENDOR_ID: u64 = 0x00c;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(super) const QUEUE_SEL: u64 = 0x030;
    pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
    pub(super) const QUEUE_SIZE: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = 0x050;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x084;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub(super) const SHM_LEN_LOW: u64 = 0x0b0;
    pub(super) const SHM_BASE_HIGH: u64 = 0x0bc;
    pub(super) const QUEUE_RESET: u64 = 0x0c0;
    pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
    pub(super) const CONFIG: u64 = 0x100;
}

/// The interrupt register and the wire it drives, reachable from worker threads.
struct Wire {
    causes: Mutex<u32>,
    line: IrqLine,
}

impl Wire {
    fn causes(&self) -> MutexGuard<'_, u32> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the pending causes and drives the wire under one lock, so that a cause raised by a worker while the
    /// guest acknowledges another is never lost.
    fn change(&self, change: impl FnOnce(u32) -> u32) {
        let mut causes = self.causes();
        *causes = change(*causes);
        self.line.set(*causes != 0);
    }
}

impl InterruptPort for Wire {
    fn queue(&self, _index: u16) {
        self.change(|causes| causes | USED_BUFFER);
    }
    fn config(&self) {
        self.change(|causes| causes | CONFIG_CHANGE);
    }
}

/// A virtio device behind an MMIO register window.
pub struct VirtioMmio<V> {
    transport: Transport<V>,
    wire: Arc<Wire>,
}

impl<V: Debug> Debug for VirtioMmio<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioMmio").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// The saved state of a [`VirtioMmio`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct MmioState<S> {
    transport: TransportState<S>,
    interrupt_status: u32,
}

impl<V: VirtioDevice> VirtioMmio<V> {
    /// Presents `device`, which reads and writes `memory` and interrupts through `line`.
    pub fn new(device: V, memory: GuestMemory, line: IrqLine) -> Self {
        let wire = Arc::new(Wire { causes: Mutex::new(0), line });
        Self { transport: Transport::new(device, memory, wire.clone(), true), wire }
    }

    /// The device behind the window.
    pub fn device(&self) -> &V {
        &self.transport.device
    }

    fn read_register(&self, offset: u64) -> u32 {
        let transport = &self.transport;
        let queue = |get: fn(&super::VirtQueue) -> u32| transport.queue().map_or(0, |queue| get(&queue));
        match offset {
            reg::MAGIC_VALUE => MAGIC,
            reg::VERSION => VERSION,
            reg::DEVICE_ID => transport.device.device_type(),
            reg::VENDOR_ID => VENDOR,
            reg::DEVICE_FEATURES => transport.device_features(),
            reg::QUEUE_SIZE_MAX => queue(|queue| queue.max_size().into()),
            reg::QUEUE_READY => queue(|queue| queue.is_ready().into()),
            reg::INTERRUPT_STATUS => *self.wire.causes(),
            reg::STATUS => transport.status().into(),
            // No shared memory regions: all lengths and bases read as all ones.
            reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH => u32::MAX,
            reg::CONFIG_GENERATION => transport.generation(),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let transport = &mut self.transport;
        match offset {
            reg::DEVICE_FEATURES_SEL => transport.registers.device_features_select = value,
            reg::DRIVER_FEATURES_SEL => transport.registers.driver_features_select = value,
            reg::DRIVER_FEATURES => transport.set_driver_features(value),
            reg::QUEUE_SEL => transport.registers.queue_select = value,
            reg::QUEUE_READY if value == 1 => transport.enable_queue(),
            reg::QUEUE_READY if value == 0 => transport.disable_queue(),
            reg::QUEUE_RESET if value == 1 => transport.reset_queue(),
            reg::QUEUE_NOTIFY => transport.notify(value),
            reg::INTERRUPT_ACK => self.wire.change(|causes| causes & !value),
            reg::STATUS if value == 0 => Device::reset(self),
            reg::STATUS => transport.set_status(value as u8),
            _ => self.write_queue_layout(offset, value),
        }
    }

    fn write_queue_layout(&mut self, offset: u64, value: u32) {
        let Some(mut queue) = self.transport.queue() else { return };
        let Some(layout) = queue.layout_mut() else { return };
        let low = |address: &mut u64| *address = *address >> 32 << 32 | u64::from(value);
        let high = |address: &mut u64| *address = u64::from(value) << 32 | *address & 0xffff_ffff;
        match offset {
            reg::QUEUE_SIZE => layout.size = u16::try_from(value).unwrap_or(0),
            reg::QUEUE_DESC_LOW => low(&mut layout.descriptors),
            reg::QUEUE_DESC_HIGH => high(&mut layout.descriptors),
            reg::QUEUE_DRIVER_LOW => low(&mut layout.driver),
            reg::QUEUE_DRIVER_HIGH => high(&mut layout.driver),
            reg::QUEUE_DEVICE_LOW => low(&mut layout.device),
            reg::QUEUE_DEVICE_HIGH => high(&mut layout.device),
            _ => (),
        }
    }
}

impl<V: VirtioDevice> Device for VirtioMmio<V> {
    const NAME: &'static str = Suffixed::<V, false>::NAME;
    const VERSION: u32 = version::<V>(1);
    type State = MmioState<V::State>;

    fn read(&mut self, _region: usize, offset: u64, size: usize) -> u64 {
        match offset.checked_sub(reg::CONFIG) {
            Some(offset) => self.transport.read_config(offset, size),
            // Registers are 32 bits wide and accessed so (4.2.2.2).
            None if size == 4 => self.read_register(offset).into(),
            None => 0,
        }
    }

    fn write(&mut self, _region: usize, offset: u64, size: usize, value: u64) {
        match offset.checked_sub(reg::CONFIG) {
            Some(offset) => self.transport.write_config(offset, size, value),
            None if size == 4 => self.write_register(offset, value as u32),
            None => (),
        }
    }

    fn reset(&mut self) {
        self.transport.reset();
        self.wire.change(|_| 0);
    }

    fn save(&self) -> Self::State {
        MmioState { transport: self.transport.save(), interrupt_status: *self.wire.causes() }
    }

    fn restore(&mut self, state: Self::State) -> Result<(), StateError> {
        let causes = state.interrupt_status;
        if causes & !(USED_BUFFER | CONFIG_CHANGE) != 0 {
            let why = format!("interrupt status {causes:#x}");
            return Err(StateError::Damaged { device: <Self as Device>::NAME, why });
        }
        self.transport.restore(state.transport)?;
        self.wire.change(|_| causes);
        Ok(())
    }

    fn quiesce(&mut self) {
        self.transport.quiesce();
    }

    fn resume(&mut self) {
        self.transport.resume();
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        Some(node(at))
    }
}

/// The device-tree node (Linux `Documentation/devicetree/bindings/virtio/mmio.yaml`).
fn node(at: &Placement) -> FwNode {
    let mut node = FwNode::new("virtio_mmio", &["virtio,mmio"]).with("dma-coherent", FwValue::Flag);
    node.unit_address = at.regions.first().map(|&(start, _)| start);
    node
}

/// A window without a device: drivers find device ID 0 and leave it alone (4.2.2.2).
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptySlot;

impl Device for EmptySlot {
    const NAME: &'static str = "virtio-mmio-empty";
    const VERSION: u32 = 1;
    type State = ();

    fn read(&mut self, _region: usize, offset: u64, size: usize) -> u64 {
        let value = match offset {
            reg::MAGIC_VALUE => MAGIC,
            reg::VERSION => VERSION,
            reg::VENDOR_ID => VENDOR,
            _ => 0,
        };
        if size == 4 { value.into() } else { 0 }
    }
    fn write(&mut self, _region: usize, _offset: u64, _size: usize, _value: u64) {}
    fn reset(&mut self) {}
    fn save(&self) {}
    fn restore(&mut self, (): ()) -> Result<(), StateError> {
        Ok(())
    }
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        Some(node(at))
    }
}
