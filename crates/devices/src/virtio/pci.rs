//! Virtio over PCI (Virtio 1.3, 4.1), modern devices only: register structures in one 64-bit BAR, MSI-X in another,
//! INTx where the machine has no message-signalled interrupts.

use super::transport::{Suffixed, Transport, TransportState, version};
use super::{InterruptPort, VirtioDevice, device_type};
use crate::pci::{
    Bar, BarKind, ConfigSpace, ConfigState, Identity, Intx, MsiSink, Msix, MsixState, PciFunction,
};
use isomer_core::{Device, GuestMemory, StateError};
use serde::{Deserialize, Serialize};
use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The BAR with the register structures, at the places QEMU has them.
const BAR: u8 = 4;
const BAR_BYTES: u64 = 0x4000;
/// The BAR with MSI-X table and pending bits.
const MSIX_BAR: u8 = 1;

/// Bytes each structure takes in the BAR.
const STRUCTURE_BYTES: u64 = 0x1000;
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// Bytes between the notification addresses of two queues.
const NOTIFY_MULTIPLIER: u32 = 4;

/// ISR status: used buffers.
const ISR_QUEUE: u8 = 1;
/// ISR status: the configuration changed.
const ISR_CONFIG: u8 = 2;
/// No MSI-X vector is mapped.
const NO_VECTOR: u16 = 0xffff;

/// `cfg_type` of the capabilities (4.1.4).
mod capability {
    pub(super) const COMMON_CFG: u8 = 1;
    pub(super) const NOTIFY_CFG: u8 = 2;
    pub(super) const ISR_CFG: u8 = 3;
    pub(super) const DEVICE_CFG: u8 = 4;
    pub(super) const PCI_CFG: u8 = 5;
    /// PCI's vendor-specific capability, which all of them are.
    pub(super) const VENDOR: u8 = 0x09;
    /// `pci_cfg_data` of the PCI_CFG capability, from its start.
    pub(super) const DATA: u16 = 16;
}

/// Fields of the common configuration structure (4.1.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    QueueDescriptors,
    QueueDriver,
    QueueDevice,
    QueueReset,
}

/// Offset and width of each field, in bytes.
const FIELDS: [(u64, u64, Field); 17] = [
    (0, 4, Field::DeviceFeatureSelect),
    (4, 4, Field::DeviceFeature),
    (8, 4, Field::DriverFeatureSelect),
    (12, 4, Field::DriverFeature),
    (16, 2, Field::ConfigVector),
    (18, 2, Field::NumQueues),
    (20, 1, Field::DeviceStatus),
    (21, 1, Field::ConfigGeneration),
    (22, 2, Field::QueueSelect),
    (24, 2, Field::QueueSize),
    (26, 2, Field::QueueVector),
    (28, 2, Field::QueueEnable),
    (30, 2, Field::QueueNotifyOffset),
    (32, 8, Field::QueueDescriptors),
    (40, 8, Field::QueueDriver),
    (48, 8, Field::QueueDevice),
    (58, 2, Field::QueueReset),
];

/// Class codes, as QEMU has them: drivers and firmware look at them to find boot disks and the like.
const CLASSES: [(u32, u32); 9] = [
    (device_type::NET, 0x02_0000),
    (device_type::BLOCK, 0x01_0000),
    (device_type::CONSOLE, 0x07_8000),
    (device_type::SCSI, 0x01_0000),
    (device_type::NINE_P, 0x00_0200),
    (device_type::GPU, 0x03_8000),
    (device_type::INPUT, 0x09_8000),
    (device_type::SOCKET, 0x07_8000),
    (device_type::FILE_SYSTEM, 0x01_8000),
];
/// Unclassified, for the others.
const CLASS_OTHER: u32 = 0x00_ff00;

/// Interrupt registers, reachable from worker threads.
#[derive(Debug)]
struct Port {
    vectors: Mutex<Vectors>,
    intx: Intx,
    msix: Option<Arc<Msix>>,
}

/// Pending INTx causes and the MSI-X vectors of causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vectors {
    isr: u8,
    config: u16,
    queues: Vec<u16>,
}

impl Vectors {
    fn new(queues: usize) -> Self {
        Self { isr: 0, config: NO_VECTOR, queues: vec![NO_VECTOR; queues] }
    }
}

impl Port {
    fn vectors(&self) -> MutexGuard<'_, Vectors> {
        self.vectors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports `cause` by the vector that `pick` finds, or by INTx while MSI-X is off.
    fn raise(&self, cause: u8, pick: impl FnOnce(&Vectors) -> u16) {
        let mut vectors = self.vectors();
        match self.msix.as_ref().filter(|msix| msix.is_enabled()) {
            Some(msix) => msix.signal(pick(&vectors)),
            None => {
                vectors.isr |= cause;
                self.intx.set(true);
            }
        }
    }

    /// Reads ISR status, which acknowledges it.
    fn take_isr(&self) -> u8 {
        let mut vectors = self.vectors();
        self.intx.set(false);
        std::mem::take(&mut vectors.isr)
    }

    /// What a driver gets when it asks for `vector`: that, or NO_VECTOR if there is none such.
    fn granted(&self, vector: u16) -> u16 {
        let exists = self.msix.as_ref().is_some_and(|msix| vector < msix.vectors());
        if exists { vector } else { NO_VECTOR }
    }

    fn restore(&self, state: Vectors) {
        let mut vectors = self.vectors();
        self.intx.set(state.isr != 0);
        *vectors = state;
    }
}

impl InterruptPort for Port {
    fn queue(&self, index: u16) {
        self.raise(ISR_QUEUE, |vectors| vectors.queues.get(usize::from(index)).copied().unwrap_or(NO_VECTOR));
    }
    fn config(&self) {
        self.raise(ISR_CONFIG, |vectors| vectors.config);
    }
}

/// A virtio device as a PCI function.
#[derive(Debug)]
pub struct VirtioPci<V> {
    transport: Transport<V>,
    config: ConfigSpace,
    port: Arc<Port>,
    /// Offset of the PCI_CFG capability.
    window: u16,
}

/// The saved state of a [`VirtioPci`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PciState<S> {
    transport: TransportState<S>,
    config: ConfigState,
    vectors: Vectors,
    msix: Option<MsixState>,
}

impl<V: VirtioDevice> VirtioPci<V> {
    /// Presents `device`, which reads and writes `memory`. With `msi` the function has MSI-X, one vector a queue
    /// and one for configuration changes; without, only INTA#.
    pub fn new(device: V, memory: GuestMemory, msi: Option<Arc<dyn MsiSink>>) -> Self {
        let queues = device.queue_max_sizes().len();
        let msix = msi.map(|sink| Arc::new(Msix::new(queues as u16 + 1, sink)));
        let (config, window) = config_space(device.device_type(), msix.clone());
        let vectors = Mutex::new(Vectors::new(queues));
        let port = Arc::new(Port { vectors, intx: config.intx().clone(), msix });
        let transport = Transport::new(device, memory, port.clone(), false);
        Self { transport, config, port, window }
    }

    /// The device behind the function.
    pub fn device(&self) -> &V {
        &self.transport.device
    }

    fn read_field(&self, field: Field) -> u64 {
        let transport = &self.transport;
        let queue = |get: fn(&super::VirtQueue) -> u64| transport.queue().map_or(0, |queue| get(&queue));
        match field {
            Field::DeviceFeatureSelect => transport.registers.device_features_select.into(),
            Field::DeviceFeature => transport.device_features().into(),
            Field::DriverFeatureSelect => transport.registers.driver_features_select.into(),
            Field::DriverFeature => transport.driver_features().into(),
            Field::ConfigVector => self.port.vectors().config.into(),
            Field::NumQueues => transport.queue_count().into(),
            Field::DeviceStatus => transport.status().into(),
            Field::ConfigGeneration => u64::from(transport.generation()) & 0xff,
            Field::QueueSelect => transport.registers.queue_select.into(),
            Field::QueueSize => queue(|queue| queue.layout().size.into()),
            Field::QueueVector => {
                let selected = transport.registers.queue_select as usize;
                self.port.vectors().queues.get(selected).copied().unwrap_or(NO_VECTOR).into()
            }
            Field::QueueEnable => queue(|queue| queue.is_ready().into()),
            Field::QueueNotifyOffset => u64::from(transport.queue().map_or(0, |queue| queue.index())),
            Field::QueueDescriptors => queue(|queue| queue.layout().descriptors),
            Field::QueueDriver => queue(|queue| queue.layout().driver),
            Field::QueueDevice => queue(|queue| queue.layout().device),
            // A reset is complete when the write returns.
            Field::QueueReset => 0,
        }
    }

    fn write_field(&mut self, field: Field, value: u64) {
        let transport = &mut self.transport;
        match field {
            Field::DeviceFeatureSelect => transport.registers.device_features_select = value as u32,
            Field::DriverFeatureSelect => transport.registers.driver_features_select = value as u32,
            Field::DriverFeature => transport.set_driver_features(value as u32),
            Field::ConfigVector => self.port.vectors().config = self.port.granted(value as u16),
            Field::DeviceStatus if value == 0 => self.reset_device(),
            Field::DeviceStatus => transport.set_status(value as u8),
            Field::QueueSelect => transport.registers.queue_select = (value as u16).into(),
            Field::QueueVector => {
                let selected = transport.registers.queue_select as usize;
                if let Some(vector) = self.port.vectors().queues.get_mut(selected) {
                    *vector = self.port.granted(value as u16);
                }
            }
            Field::QueueEnable if value == 1 => transport.enable_queue(),
            // Not allowed to drivers, but U-Boot does it when it takes queues down.
            Field::QueueEnable if value == 0 => transport.disable_queue(),
            Field::QueueReset if value == 1 => transport.reset_queue(),
            _ => self.write_queue_layout(field, value),
        }
    }

    fn write_queue_layout(&mut self, field: Field, value: u64) {
        let Some(mut queue) = self.transport.queue() else { return };
        let Some(layout) = queue.layout_mut() else { return };
        match field {
            Field::QueueSize => layout.size = value as u16,
            Field::QueueDescriptors => layout.descriptors = value,
            Field::QueueDriver => layout.driver = value,
            Field::QueueDevice => layout.device = value,
            _ => (),
        }
    }

    fn read_common(&self, offset: u64, size: usize) -> u64 {
        let overlap = |field| Overlap::of(field, offset, size);
        FIELDS
            .iter()
            .filter_map(overlap)
            .fold(0, |value, part| value | part.in_access(self.read_field(part.field)))
    }

    fn write_common(&mut self, offset: u64, size: usize, value: u64) {
        for part in FIELDS.iter().filter_map(|field| Overlap::of(field, offset, size)) {
            let old = if part.whole { 0 } else { self.read_field(part.field) };
            self.write_field(part.field, part.merge_into(old, value));
        }
    }

    /// Device reset by the driver; configuration space stays.
    fn reset_device(&mut self) {
        self.transport.reset();
        let queues = usize::from(self.transport.queue_count());
        self.port.restore(Vectors::new(queues));
    }

    /// The register access that the PCI_CFG capability describes (4.1.4.9), if it is a proper one.
    fn window_access(&self) -> Option<(usize, u64, usize)> {
        let word = |at| u64::from(self.config.read(self.window + at, 4));
        let (bar, offset, size) = (self.config.read(self.window + 4, 1) as u8, word(8), word(12));
        let proper = bar == BAR && matches!(size, 1 | 2 | 4) && offset % size == 0 && offset < BAR_BYTES;
        proper.then_some((bar.into(), offset, size as usize))
    }
}

/// Which bytes of a field an access touches.
struct Overlap {
    field: Field,
    /// Bits the field's value must be shifted up to stand in the access (negative: down).
    shift: i64,
    /// The bits of the field that are accessed.
    mask: u64,
    /// All of the field is accessed.
    whole: bool,
}

impl Overlap {
    fn of(&(start, width, field): &(u64, u64, Field), offset: u64, size: usize) -> Option<Self> {
        let (end, access_end) = (start + width, offset + size as u64);
        let (from, to) = (start.max(offset), end.min(access_end));
        if from >= to {
            return None;
        }
        let mask = u64::MAX >> (64 - 8 * (to - from)) << (8 * (from - start));
        let shift = 8 * (start as i64 - offset as i64);
        Some(Self { field, shift, mask, whole: to - from == width })
    }

    /// The field's `value` as it appears in the access.
    fn in_access(&self, value: u64) -> u64 {
        let value = value & self.mask;
        if self.shift >= 0 { value << self.shift } else { value >> -self.shift }
    }

    /// The field after a write of `value` to it, when it was `old`.
    fn merge_into(&self, old: u64, value: u64) -> u64 {
        let moved = if self.shift >= 0 { value >> self.shift } else { value << -self.shift };
        old & !self.mask | moved & self.mask
    }
}

/// The configuration space of a device of type `kind`, and where its PCI_CFG capability is.
fn config_space(kind: u32, msix: Option<Arc<Msix>>) -> (ConfigSpace, u16) {
    let class = CLASSES.iter().find(|(of, _)| *of == kind).map_or(CLASS_OTHER, |&(_, class)| class);
    let mut space = ConfigSpace::new(&Identity {
        vendor: 0x1af4,
        device: 0x1040 + kind as u16,
        revision: 1,
        class,
        subsystem_vendor: 0x1af4,
        // Above 0x40: not a transitional device (4.1.2.1).
        subsystem: 0x1100,
        interrupt_pin: 1,
    })
    .with_bar(Bar { index: BAR, kind: BarKind::Memory64, len: BAR_BYTES });
    if let Some(msix) = msix {
        space = space.with_msix(MSIX_BAR, msix);
    }
    // The window to the BAR through configuration space: bar, offset, length and data are the driver's.
    let body = capability_body(capability::PCI_CFG, 0, 0, &[0; 4]);
    let writable = [&[0, 0, 0xff, 0, 0, 0][..], &[0xff; 12]].concat();
    let window = space.add_capability(capability::VENDOR, &body, &writable);
    let structures = [
        (capability::NOTIFY_CFG, NOTIFY, &NOTIFY_MULTIPLIER.to_le_bytes()[..]),
        (capability::DEVICE_CFG, DEVICE, &[]),
        (capability::ISR_CFG, ISR, &[]),
        (capability::COMMON_CFG, COMMON, &[]),
    ];
    for (kind, at, more) in structures {
        let body = capability_body(kind, at, STRUCTURE_BYTES, more);
        space.add_capability(capability::VENDOR, &body, &[]);
    }
    (space, window.into())
}

/// `struct virtio_pci_cap` after its identifier and link: length, type, BAR, id, padding, offset, length.
fn capability_body(kind: u8, offset: u64, len: u64, more: &[u8]) -> Vec<u8> {
    let bar = if kind == capability::PCI_CFG { 0 } else { BAR };
    let head = [16 + more.len() as u8, kind, bar, 0, 0, 0];
    [&head[..], &(offset as u32).to_le_bytes(), &(len as u32).to_le_bytes(), more].concat()
}

impl<V: VirtioDevice> Device for VirtioPci<V> {
    const NAME: &'static str = Suffixed::<V, true>::NAME;
    const VERSION: u32 = version::<V>(1);
    type State = PciState<V::State>;

    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        if region == usize::from(MSIX_BAR) {
            return self.port.msix.as_ref().map_or(0, |msix| msix.read(offset, size));
        }
        if region != usize::from(BAR) || offset >= BAR_BYTES {
            return 0;
        }
        let at = offset % STRUCTURE_BYTES;
        match offset - at {
            COMMON => self.read_common(at, size),
            ISR if at == 0 => self.port.take_isr().into(),
            DEVICE => self.transport.read_config(at, size),
            _ => 0,
        }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if region == usize::from(MSIX_BAR) {
            if let Some(msix) = &self.port.msix {
                msix.write(offset, size, value);
            }
            return;
        }
        if region != usize::from(BAR) || offset >= BAR_BYTES {
            return;
        }
        let at = offset % STRUCTURE_BYTES;
        match offset - at {
            COMMON => self.write_common(at, size, value),
            DEVICE => self.transport.write_config(at, size, value),
            // The address names the queue; without NOTIFICATION_DATA the value says no more.
            NOTIFY => self.transport.notify((at / u64::from(NOTIFY_MULTIPLIER)) as u32),
            _ => (),
        }
    }

    fn reset(&mut self) {
        self.reset_device();
        self.config.reset();
        self.transport.set_dma(false);
    }

    fn save(&self) -> Self::State {
        PciState {
            transport: self.transport.save(),
            config: self.config.save(),
            vectors: self.port.vectors().clone(),
            msix: self.port.msix.as_ref().map(|msix| msix.save()),
        }
    }

    fn restore(&mut self, state: Self::State) -> Result<(), StateError> {
        self.check(&state).map_err(|why| StateError::Damaged { device: <Self as Device>::NAME, why })?;
        self.transport.restore(state.transport)?;
        if let (Some(msix), Some(table)) = (&self.port.msix, state.msix) {
            msix.restore(table);
        }
        self.config.restore(&state.config);
        self.port.restore(state.vectors);
        self.transport.restore_dma(self.config.is_bus_master());
        Ok(())
    }

    fn quiesce(&mut self) {
        self.transport.quiesce();
    }

    fn resume(&mut self) {
        self.transport.resume();
    }
}

impl<V: VirtioDevice> VirtioPci<V> {
    /// Could this function have saved what is not the transport's in `state`?
    fn check(&self, state: &PciState<V::State>) -> Result<(), String> {
        let Vectors { isr, config, queues } = &state.vectors;
        let granted = |&vector: &u16| self.port.granted(vector) == vector;
        let msix_fits = match (&self.port.msix, &state.msix) {
            (Some(msix), Some(table)) => msix.accepts(table),
            (None, None) => true,
            _ => false,
        };
        let queues_fit = queues.len() == usize::from(self.transport.queue_count());
        if isr & !(ISR_QUEUE | ISR_CONFIG) != 0 {
            Err(format!("ISR status {isr:#x}"))
        } else if !msix_fits || !queues_fit || !granted(config) || !queues.iter().all(granted) {
            Err("MSI-X vectors of another device".into())
        } else if !self.config.accepts(&state.config) {
            Err("it changes what is fixed in configuration space".into())
        } else {
            Ok(())
        }
    }
}

impl<V: VirtioDevice> PciFunction for VirtioPci<V> {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_read(&mut self, offset: u16, size: usize) -> u32 {
        if offset == self.window + capability::DATA
            && let Some((bar, at, len)) = self.window_access()
        {
            let value = self.read(bar, at, len) as u32;
            self.config.write(offset, len, value);
        }
        self.config.read(offset, size)
    }

    fn config_write(&mut self, offset: u16, size: usize, value: u32) {
        self.config.write(offset, size, value);
        self.transport.set_dma(self.config.is_bus_master());
        if offset == self.window + capability::DATA
            && let Some((bar, at, len)) = self.window_access()
        {
            let value = self.config.read(offset, len);
            self.write(bar, at, len, value.into());
        }
    }
}
