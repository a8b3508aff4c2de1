//! The device trait: registers, reset, and a versioned state that no device can exist without.

use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// A device model: guest-visible registers and nothing of the host (host resources are backends it is given).
///
/// `region` numbers the device's register windows (0 for most; PCI: the BAR number). `offset` is in bytes from
/// the start of the window and `size` is 1, 2, 4 or 8; any combination may arrive, and the device answers
/// as hardware would (usually: read 0, ignore the write). Values are in the low `size` bytes, host-order integers.
pub trait Device: Send {
    /// The model's name, as in the FDT or the manual ("ns16550a").
    const NAME: &'static str;
    /// Version of [`Self::State`]; raise it whenever the layout changes.
    const VERSION: u32;
    /// Everything a guest can observe, and nothing of the host.
    type State: Serialize + DeserializeOwned + PartialEq + Debug;

    /// A guest read.
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64;
    /// A guest write.
    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64);
    /// Power-on state; interrupt lines are lowered.
    fn reset(&mut self);
    /// Copies the guest-visible state.
    fn save(&self) -> Self::State;
    /// Takes over a saved state and drives the interrupt lines accordingly. A state that no device could have
    /// saved is refused and changes nothing.
    fn restore(&mut self, state: Self::State) -> Result<(), StateError>;
    /// Finishes or parks work in flight on backends, so that `save` is complete: until [`Self::resume`], the
    /// device touches neither guest memory nor its own state on its own accord. vCPUs are stopped.
    fn quiesce(&mut self) {}
    /// Continues after `quiesce` or `restore`. Called for every device before vCPUs run (again).
    fn resume(&mut self) {}
    /// How firmware tables describe this device at `at`, if they do.
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let _ = at;
        None
    }
}

/// A device's saved state, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// [`Device::NAME`] of the writer.
    pub device: String,
    /// [`Device::VERSION`] of the writer.
    pub version: u32,
    /// The state, in postcard's format.
    pub bytes: Vec<u8>,
}

/// Why a saved state was refused.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It belongs to another device or version.
    #[error(
        "state is of {found} version {found_version}, this device is {expected} version {expected_version}"
    )]
    Mismatch {
        /// This device.
        expected: &'static str,
        /// This device's version.
        expected_version: u32,
        /// The state's device.
        found: String,
        /// The state's version.
        found_version: u32,
    },
    /// The bytes are damaged or hold an impossible value.
    #[error("state of {device} is damaged: {why}")]
    Damaged {
        /// The device.
        device: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// [`Device`] without its associated types, for buses and machines. Implemented for every `Device`.
pub trait DynDevice: Send {
    /// See [`Device::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Device::read`].
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64;
    /// See [`Device::write`].
    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64);
    /// See [`Device::reset`].
    fn reset(&mut self);
    /// See [`Device::save`].
    fn save(&self) -> Result<State, StateError>;
    /// See [`Device::restore`].
    fn restore(&mut self, state: &State) -> Result<(), StateError>;
    /// See [`Device::quiesce`].
    fn quiesce(&mut self);
    /// See [`Device::resume`].
    fn resume(&mut self);
    /// See [`Device::fw_node`].
    fn fw_node(&self, at: &Placement) -> Option<FwNode>;
}

impl<D: Device> DynDevice for D {
    fn name(&self) -> &'static str {
        D::NAME
    }
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        Device::read(self, region, offset, size)
    }
    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        Device::write(self, region, offset, size, value);
    }
    fn reset(&mut self) {
        Device::reset(self);
    }
    fn save(&self) -> Result<State, StateError> {
        let bytes = postcard::to_stdvec(&Device::save(self))
            .map_err(|e| StateError::Damaged { device: D::NAME, why: e.to_string() })?;
        Ok(State { device: D::NAME.into(), version: D::VERSION, bytes })
    }
    fn restore(&mut self, state: &State) -> Result<(), StateError> {
        if state.device != D::NAME || state.version != D::VERSION {
            return Err(StateError::Mismatch {
                expected: D::NAME,
                expected_version: D::VERSION,
                found: state.device.clone(),
                found_version: state.version,
            });
        }
        let decoded = postcard::from_bytes(&state.bytes)
            .map_err(|e| StateError::Damaged { device: D::NAME, why: e.to_string() })?;
        Device::restore(self, decoded)
    }
    fn quiesce(&mut self) {
        Device::quiesce(self);
    }
    fn resume(&mut self) {
        Device::resume(self);
    }
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        Device::fw_node(self, at)
    }
}

/// Where a board put a device.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Register windows `(guest-physical start, bytes)`, in region order.
    pub regions: Vec<(u64, u64)>,
    /// Interrupt specifiers, in the parent controller's cells (riscv64 PLIC: the source number).
    pub irqs: Vec<u32>,
}

/// A device's node in the flattened device tree (Devicetree Specification 0.4, 2.2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FwNode {
    /// Node name without unit address ("serial").
    pub name: String,
    /// Unit address; usually the first register window's start.
    pub unit_address: Option<u64>,
    /// Properties in order. The board adds `reg`, `interrupts` and `interrupt-parent` from the placement unless present.
    pub properties: Vec<(String, FwValue)>,
    /// Child nodes.
    pub children: Vec<FwNode>,
}

/// A device-tree property's value.
#[derive(Clone, Debug, PartialEq)]
pub enum FwValue {
    /// Present, without value.
    Flag,
    /// 32-bit cells.
    Cells(Vec<u32>),
    /// 64-bit values as cell pairs.
    Cells64(Vec<u64>),
    /// NUL-terminated strings.
    Strings(Vec<String>),
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// A reference to a node the board knows by label ("cpu0-intc", "plic", "finisher"); becomes its phandle.
    Phandle(String),
    /// Cells with label references inside, as `interrupts-extended` needs.
    Mixed(Vec<FwCell>),
}

/// One cell of [`FwValue::Mixed`].
#[derive(Clone, Debug, PartialEq)]
pub enum FwCell {
    /// A number.
    Cell(u32),
    /// A label's phandle.
    Phandle(String),
}

impl FwNode {
    /// A node with a `compatible` property.
    pub fn new(name: &str, compatible: &[&str]) -> Self {
        let strings = compatible.iter().map(|s| (*s).to_owned()).collect();
        let properties = vec![("compatible".to_owned(), FwValue::Strings(strings))];
        Self { name: name.to_owned(), properties, ..Self::default() }
    }

    /// Adds a property.
    #[must_use]
    pub fn with(mut self, name: &str, value: FwValue) -> Self {
        self.properties.push((name.to_owned(), value));
        self
    }
}
