//! A generic PCI Express host bridge with an enhanced configuration window (PCI Express Base 6.0, 7.2.2;
//! Devicetree binding `pci-host-ecam-generic`): one bus of up to 32 devices.
//!
//! BARs appear on the machine's bus only inside the bridge's windows, so a guest cannot lay one over RAM or another
//! device. Where two BARs overlap, the one of the lower device and BAR number answers.

use super::config::{ConfigSpace, ConfigState, DecodedBar, Identity, Space};
use super::{Connection, PciFunction, SharedFunction, intx};
use isomer_core::device::FwCell;
use isomer_core::guest_warn;
use isomer_core::{
    Bus, Device, FwNode, FwValue, Gpa, IrqLine, Placement, State, StateError, bus::SharedDevice,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// Bytes of the configuration window: 256 buses of 1 MiB.
pub const ECAM_BYTES: u64 = 256 << 20;

/// Devices of a bus.
const SLOTS: u8 = 32;

/// Why a function could not be plugged in.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// The slot number is taken or above 31.
    #[error("PCI slot {0} is taken or does not exist")]
    Slot(u8),
    /// All slots are taken.
    #[error("the PCI bus is full: it has {SLOTS} slots")]
    Full,
    /// The function's interrupt pin is none of INTA# to INTD#.
    #[error("the function for PCI slot {slot} has interrupt pin {pin}; pins are 1 to 4")]
    Pin {
        /// The slot asked for.
        slot: u8,
        /// The function's pin.
        pin: u8,
    },
}

/// A stretch of the machine's address space through which BARs are reached.
#[derive(Clone, Copy, Debug)]
pub struct PciWindow {
    /// The PCI address space it leads to.
    pub space: Space,
    /// First PCI address.
    pub bus_base: u64,
    /// Guest-physical address of the same byte.
    pub cpu_base: Gpa,
    /// Bytes.
    pub len: u64,
}

impl PciWindow {
    /// Where a BAR is in guest-physical space, if it lies in this window.
    fn translate(&self, bar: &DecodedBar) -> Option<Gpa> {
        let offset = bar.address.checked_sub(self.bus_base)?;
        let fits = bar.space == self.space && offset <= self.len && self.len - offset >= bar.len;
        fits.then(|| Gpa(self.cpu_base.0 + offset))
    }

    /// The `ranges` entry: PCI address (3 cells), CPU address, size (Open Firmware PCI binding 2.1, 2.2.1).
    fn range(&self) -> [u32; 7] {
        let space = match self.space {
            Space::Io => 0x0100_0000,
            Space::Memory if self.bus_base >> 32 == 0 => 0x0200_0000,
            Space::Memory => 0x0300_0000,
        };
        let (bus, cpu, len) = (self.bus_base, self.cpu_base.0, self.len);
        let high = |value: u64| (value >> 32) as u32;
        [space, high(bus), bus as u32, high(cpu), cpu as u32, high(len), len as u32]
    }
}

/// How a board wires the bridge.
#[derive(Clone, Debug)]
pub struct PciHostConfig {
    /// Where BARs may be.
    pub windows: Vec<PciWindow>,
    /// The four interrupt wires; pin `p` of device `s` is on wire `(s + p - 1) % 4`.
    pub wires: [IrqLine; intx::PINS],
    /// Their specifiers at the interrupt controller, for the device tree: cells, after as many zeros as the controller's
    /// node has `#address-cells`.
    pub specifiers: [Vec<u32>; intx::PINS],
    /// The interrupt controller's device-tree label.
    pub controller: String,
    /// The device-tree label of who receives messages; it knows functions by their requester IDs.
    pub msi_controller: Option<String>,
}

/// A BAR on the machine's bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) gpa: Gpa,
    pub(super) len: u64,
    slot: u8,
    bar: u8,
}

/// A plugged function, under both of its faces.
struct Plugged {
    function: SharedFunction,
    device: SharedDevice,
    name: &'static str,
}

impl Plugged {
    fn lock(&self) -> MutexGuard<'_, dyn PciFunction + 'static> {
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host bridge. Region 0 is the configuration window. It owns the functions: their reset, state and interrupts
/// go through it, and machines hold only the bridge.
pub struct PciHost {
    slots: BTreeMap<u8, Plugged>,
    config: PciHostConfig,
    router: Arc<intx::Router>,
    /// Weak, because the bus holds the bridge.
    bus: Weak<Bus>,
    pub(super) mapped: Vec<Mapping>,
}

impl std::fmt::Debug for PciHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.slots.iter().map(|(slot, plugged)| (slot, plugged.name));
        f.debug_struct("PciHost").field("slots", &names.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// The states of all functions, by slot.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PciHostState {
    pub(super) functions: Vec<(u8, State)>,
}

impl PciHost {
    /// A bridge whose BARs appear on `bus`; the bridge's own function is in slot 0.
    pub fn new(bus: &Arc<Bus>, config: PciHostConfig) -> Self {
        let router = Arc::new(intx::Router::new(config.wires.clone()));
        let mut host =
            Self { slots: BTreeMap::new(), config, router, bus: Arc::downgrade(bus), mapped: Vec::new() };
        let bridge = Arc::new(Mutex::new(BridgeFunction::new()));
        host.insert(0, bridge, BridgeFunction::NAME);
        host
    }

    fn insert<F: PciFunction + 'static>(&mut self, slot: u8, function: Arc<Mutex<F>>, name: &'static str) {
        self.slots.insert(slot, Plugged { function: function.clone(), device: function, name });
    }

    /// Plugs `function` into `slot`, or into the first free one; returns the slot.
    pub fn add<F: PciFunction + 'static>(
        &mut self,
        slot: Option<u8>,
        function: Arc<Mutex<F>>,
    ) -> Result<u8, PciError> {
        let free = |slot: &u8| !self.slots.contains_key(slot);
        let slot = match slot {
            Some(slot) if slot < SLOTS && free(&slot) => slot,
            Some(slot) => return Err(PciError::Slot(slot)),
            None => (0..SLOTS).find(free).ok_or(PciError::Full)?,
        };
        let name = {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            let intx = self.router.line(slot, function.config().interrupt_pin())?;
            function.connect(&Connection { intx, requester_id: u16::from(slot) << 3 });
            function.name()
        };
        self.insert(slot, function, name);
        Ok(slot)
    }

    /// The function that configuration-window offset `offset` belongs to, and the register. Bus 0, function 0 only.
    fn decode(&self, offset: u64) -> Option<(&Plugged, u16)> {
        let device = u8::try_from(offset >> 15).ok()?;
        let function = offset >> 12 & 7;
        let plugged = self.slots.get(&device).filter(|_| function == 0)?;
        Some((plugged, (offset & 0xfff) as u16))
    }

    /// A configuration write; tells whether the function's decoded BARs changed.
    fn config_write(plugged: &Plugged, register: u16, size: usize, value: u32) -> bool {
        let mut function = plugged.lock();
        let before: Vec<_> = function.config().decoded_bars().collect();
        function.config_write(register, size, value);
        !function.config().decoded_bars().eq(before)
    }

    /// Where BARs should be now. Depends on the functions' registers alone, not on how they came to be.
    fn wanted(&self) -> Vec<Mapping> {
        let mut wanted: Vec<Mapping> = Vec::new();
        for (&slot, plugged) in &self.slots {
            for bar in plugged.lock().config().decoded_bars() {
                let Some(gpa) = self.config.windows.iter().find_map(|window| window.translate(&bar)) else {
                    continue;
                };
                let apart =
                    |other: &Mapping| gpa.0 + bar.len <= other.gpa.0 || other.gpa.0 + other.len <= gpa.0;
                if wanted.iter().all(apart) {
                    wanted.push(Mapping { gpa, len: bar.len, slot, bar: bar.index });
                } else {
                    guest_warn!(slot, bar = bar.index, "a PCI BAR overlaps another and does not answer");
                }
            }
        }
        wanted
    }

    /// Brings the machine's bus in line with the BARs.
    fn remap(&mut self) {
        let Some(bus) = self.bus.upgrade() else { return };
        let wanted = self.wanted();
        for old in self.mapped.extract_if(.., |mapping| !wanted.contains(mapping)) {
            bus.unmap(old.gpa);
        }
        for new in wanted {
            let Some(plugged) = self.slots.get(&new.slot).filter(|_| !self.mapped.contains(&new)) else {
                continue;
            };
            let (device, region) = (plugged.device.clone(), usize::from(new.bar));
            match bus.map_named(new.gpa, new.len, region, plugged.name, device) {
                Ok(()) => self.mapped.push(new),
                Err(error) => guest_warn!(slot = new.slot, "a PCI BAR does not answer: {error}"),
            }
        }
    }

    fn restore_functions(&mut self, states: &[(u8, State)]) -> Result<(), StateError> {
        for (slot, state) in states {
            if let Some(plugged) = self.slots.get(slot) {
                plugged.lock().restore(state)?;
            }
        }
        Ok(())
    }
}

impl Device for PciHost {
    const NAME: &'static str = "pci-host-ecam-generic";
    const VERSION: u32 = 1;
    type State = PciHostState;

    fn read(&mut self, _region: usize, offset: u64, size: usize) -> u64 {
        let Some((plugged, register)) = self.decode(offset) else {
            // Nobody answers: all ones (PCI Local Bus 3.0, 6.1).
            return if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
        };
        let mut function = plugged.lock();
        let low = function.config_read(register, size.min(4)).into();
        if size <= 4 { low } else { low | u64::from(function.config_read(register.wrapping_add(4), 4)) << 32 }
    }

    fn write(&mut self, _region: usize, offset: u64, size: usize, value: u64) {
        let Some((plugged, register)) = self.decode(offset) else { return };
        let mut moved = Self::config_write(plugged, register, size.min(4), value as u32);
        if size > 4 {
            moved |= Self::config_write(plugged, register.wrapping_add(4), 4, (value >> 32) as u32);
        }
        if moved {
            self.remap();
        }
    }

    fn reset(&mut self) {
        self.slots.values().for_each(|plugged| plugged.lock().reset());
        self.remap();
    }

    fn save(&self) -> PciHostState {
        // A function that cannot be encoded is left out, and the state is then refused by `restore`.
        let save = |(&slot, plugged): (&u8, &Plugged)| Some((slot, plugged.lock().save().ok()?));
        PciHostState { functions: self.slots.iter().filter_map(save).collect() }
    }

    fn restore(&mut self, state: PciHostState) -> Result<(), StateError> {
        if !state.functions.iter().map(|(slot, _)| slot).eq(self.slots.keys()) {
            let why = "it is of other PCI slots than are in use".to_owned();
            return Err(StateError::Damaged { device: Self::NAME, why });
        }
        let old = Device::save(self);
        let result = self.restore_functions(&state.functions);
        if result.is_err() {
            self.restore_functions(&old.functions)?;
        }
        self.remap();
        result
    }

    fn quiesce(&mut self) {
        self.slots.values().for_each(|plugged| plugged.lock().quiesce());
    }

    fn resume(&mut self) {
        self.slots.values().for_each(|plugged| plugged.lock().resume());
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let ranges = self.config.windows.iter().flat_map(PciWindow::range).collect();
        let cells = |cells: &[u32]| FwValue::Cells(cells.to_vec());
        let mut node = FwNode::new("pci", &["pci-host-ecam-generic"])
            .with("device_type", FwValue::Strings(vec!["pci".into()]))
            .with("#address-cells", cells(&[3]))
            .with("#size-cells", cells(&[2]))
            .with("#interrupt-cells", cells(&[1]))
            .with("linux,pci-domain", cells(&[0]))
            .with("bus-range", cells(&[0, (ECAM_BYTES >> 20) as u32 - 1]))
            .with("dma-coherent", FwValue::Flag)
            .with("ranges", FwValue::Cells(ranges))
            .with("interrupt-map-mask", cells(&[0x1800, 0, 0, 7]))
            .with("interrupt-map", self.interrupt_map());
        if let Some(label) = &self.config.msi_controller {
            // All requester IDs, as they are (Linux Documentation/devicetree/bindings/pci/pci-msi.txt).
            let map =
                [FwCell::Cell(0), FwCell::Phandle(label.clone()), FwCell::Cell(0), FwCell::Cell(0x1_0000)];
            node = node.with("msi-map", FwValue::Mixed(map.to_vec()));
        }
        node.unit_address = at.regions.first().map(|&(start, _)| start);
        Some(node)
    }
}

impl PciHost {
    /// Device and pin to interrupt, for four devices: the swizzle repeats after that (the mask says so).
    fn interrupt_map(&self) -> FwValue {
        let entry = |(slot, pin): (u8, u8)| {
            let specifier = &self.config.specifiers[intx::swizzle(slot, pin)];
            let child = [u32::from(slot) << 11, 0, 0, u32::from(pin)].map(FwCell::Cell);
            let controller = FwCell::Phandle(self.config.controller.clone());
            child.into_iter().chain([controller]).chain(specifier.iter().copied().map(FwCell::Cell))
        };
        let pairs = (0..4).flat_map(|slot| (1..=4).map(move |pin| (slot, pin)));
        FwValue::Mixed(pairs.flat_map(entry).collect())
    }
}

/// The bridge's own function, as QEMU's (1b36:0008).
#[derive(Debug)]
struct BridgeFunction(ConfigSpace);

impl BridgeFunction {
    fn new() -> Self {
        let (vendor, device, class) = (0x1b36, 0x0008, 0x06_0000);
        let (subsystem_vendor, subsystem) = (0x1af4, 0x1100);
        Self(ConfigSpace::new(&Identity {
            vendor,
            device,
            class,
            subsystem_vendor,
            subsystem,
            ..Identity::default()
        }))
    }
}

impl Device for BridgeFunction {
    const NAME: &'static str = "pci-host-function";
    const VERSION: u32 = 1;
    type State = ConfigState;

    fn read(&mut self, _region: usize, _offset: u64, _size: usize) -> u64 {
        0
    }
    fn write(&mut self, _region: usize, _offset: u64, _size: usize, _value: u64) {}
    fn reset(&mut self) {
        self.0.reset();
    }
    fn save(&self) -> ConfigState {
        self.0.save()
    }
    fn restore(&mut self, state: ConfigState) -> Result<(), StateError> {
        if !self.0.accepts(&state) {
            let why = "it changes what is fixed in configuration space".to_owned();
            return Err(StateError::Damaged { device: Self::NAME, why });
        }
        self.0.restore(&state);
        Ok(())
    }
}

impl PciFunction for BridgeFunction {
    fn config(&self) -> &ConfigSpace {
        &self.0
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.0
    }
}
