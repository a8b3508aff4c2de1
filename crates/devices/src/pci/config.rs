//! A function's configuration space with a type 0 header (PCI Local Bus 3.0, 6.1-6.2 and 6.7): identification,
//! command and status, base addresses, capability list.

use super::{Connection, Intx, Msix, msix};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Bytes of configuration space that exist; beyond, there are no extended capabilities and reads give 0.
const BYTES: usize = 256;

/// Register offsets, in bytes.
mod reg {
    pub(super) const VENDOR_ID: usize = 0x00;
    pub(super) const DEVICE_ID: usize = 0x02;
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION_ID: usize = 0x08;
    pub(super) const CLASS_CODE: usize = 0x09;
    pub(super) const CACHE_LINE_SIZE: usize = 0x0c;
    pub(super) const LATENCY_TIMER: usize = 0x0d;
    pub(super) const BAR0: usize = 0x10;
    pub(super) const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
    pub(super) const SUBSYSTEM_ID: usize = 0x2e;
    pub(super) const CAPABILITIES: usize = 0x34;
    pub(super) const INTERRUPT_LINE: usize = 0x3c;
    pub(super) const INTERRUPT_PIN: usize = 0x3d;
    pub(super) const FIRST_CAPABILITY: usize = 0x40;
}

/// Command register bits.
mod command {
    pub(super) const IO_SPACE: u16 = 1;
    pub(super) const MEMORY_SPACE: u16 = 1 << 1;
    pub(super) const BUS_MASTER: u16 = 1 << 2;
    pub(super) const INTERRUPT_DISABLE: u16 = 1 << 10;
    /// What software may set: the above, parity error response and SERR# enable.
    pub(super) const WRITABLE: u16 =
        IO_SPACE | MEMORY_SPACE | BUS_MASTER | 1 << 6 | 1 << 8 | INTERRUPT_DISABLE;
}

/// Status register: the function asks for service through INTx.
const STATUS_INTERRUPT: u8 = 1 << 3;
/// Status register: there is a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// The MSI-X capability.
const CAPABILITY_MSIX: u8 = 0x11;
/// MSI-X Message Control: enable, and mask all vectors.
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// Who a function says it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, sub-class and programming interface: 24 bits.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Interrupt pin, 1 (INTA#) to 4; 0 without.
    pub interrupt_pin: u8,
}

/// Address spaces of PCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Port I/O.
    Io,
    /// Memory.
    Memory,
}

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Prefetchable memory anywhere; takes two registers.
    Memory64,
}

/// A base address register.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Its number, 0 to 5: the region number of accesses.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes, a power of two of at least 16.
    pub len: u64,
}

impl Bar {
    fn offset(&self) -> usize {
        reg::BAR0 + 4 * usize::from(self.index)
    }

    /// The type bits software finds in the register.
    fn type_bits(&self) -> u8 {
        match self.kind {
            BarKind::Io => 0b01,
            BarKind::Memory32 => 0b0000,
            BarKind::Memory64 => 0b1100,
        }
    }

    fn space(&self) -> Space {
        if self.kind == BarKind::Io { Space::Io } else { Space::Memory }
    }
}

/// A BAR that is enabled, where the guest put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedBar {
    /// The BAR's number.
    pub index: u8,
    /// The address space it is in.
    pub space: Space,
    /// Bus address of its first byte, a multiple of `len`.
    pub address: u64,
    /// Bytes.
    pub len: u64,
}

/// The guest-writable contents, and the others for comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState(Vec<u8>);

/// A function's configuration space, with its interrupt pin and MSI-X control.
#[derive(Debug)]
pub struct ConfigSpace {
    bytes: [u8; BYTES],
    /// Bits software can change.
    writable: [u8; BYTES],
    /// Contents at reset.
    initial: [u8; BYTES],
    bars: Vec<Bar>,
    next_capability: usize,
    intx: Intx,
    /// The MSI-X capability's offset, and its vectors.
    msix: Option<(usize, Arc<Msix>)>,
}

impl ConfigSpace {
    /// A configuration space without BARs and capabilities.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; BYTES],
            writable: [0; BYTES],
            initial: [0; BYTES],
            bars: Vec::new(),
            next_capability: reg::FIRST_CAPABILITY,
            intx: Intx::default(),
            msix: None,
        };
        space.define(reg::VENDOR_ID, &identity.vendor.to_le_bytes());
        space.define(reg::DEVICE_ID, &identity.device.to_le_bytes());
        space.define(reg::REVISION_ID, &[identity.revision]);
        space.define(reg::CLASS_CODE, &identity.class.to_le_bytes()[..3]);
        space.define(reg::SUBSYSTEM_VENDOR_ID, &identity.subsystem_vendor.to_le_bytes());
        space.define(reg::SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        space.define(reg::INTERRUPT_PIN, &[identity.interrupt_pin]);
        space.allow(reg::COMMAND, &command::WRITABLE.to_le_bytes());
        for register in [reg::CACHE_LINE_SIZE, reg::LATENCY_TIMER, reg::INTERRUPT_LINE] {
            space.allow(register, &[0xff]);
        }
        space
    }

    /// Sets contents, now and at reset.
    fn define(&mut self, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.initial[at..at + data.len()].copy_from_slice(data);
    }

    /// Lets software change the bits set in `mask`.
    fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Adds a base address register. Panics on one that no device could have (part of a model's construction).
    #[must_use]
    pub fn with_bar(mut self, bar: Bar) -> Self {
        let registers = if bar.kind == BarKind::Memory64 { 2 } else { 1 };
        assert!(
            bar.len.is_power_of_two() && bar.len >= 16 && bar.index + registers <= 6,
            "impossible {bar:?}"
        );
        let mask = !(bar.len - 1);
        self.define(bar.offset(), &[bar.type_bits()]);
        self.allow(bar.offset(), &mask.to_le_bytes()[..4 * usize::from(registers)]);
        self.bars.push(bar);
        self
    }

    /// Appends a capability: `body` follows the identifier and link bytes, `writable` are the bits of it software can
    /// change. Returns its offset. Panics when the space is full (part of a model's construction).
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u8 {
        let at = self.next_capability;
        let status = STATUS_CAPABILITIES.to_le_bytes();
        self.define(reg::STATUS, &status);
        // New capabilities go to the front of the list, so the link is the old head.
        let next = std::mem::replace(&mut self.bytes[reg::CAPABILITIES], at as u8);
        self.define(reg::CAPABILITIES, &[at as u8]);
        self.define(at, &[id, next]);
        self.define(at + 2, body);
        self.allow(at + 2, writable);
        self.next_capability = (at + 2 + body.len()).next_multiple_of(4);
        at as u8
    }

    /// Adds MSI-X with its table and pending bits in memory BAR `bar`, which [`Msix::read`] and [`Msix::write`] serve.
    #[must_use]
    pub fn with_msix(self, bar: u8, msix: Arc<Msix>) -> Self {
        let mut space = self.with_bar(Bar { index: bar, kind: BarKind::Memory32, len: msix::BAR_BYTES });
        let control = msix.vectors() - 1;
        let (table, pba) = (u32::from(bar), msix::PBA_OFFSET as u32 | u32::from(bar));
        let body = [&control.to_le_bytes()[..], &table.to_le_bytes(), &pba.to_le_bytes()].concat();
        let writable = (MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes();
        let at = space.add_capability(CAPABILITY_MSIX, &body, &writable);
        space.msix = Some((at.into(), msix));
        space
    }

    /// The function's interrupt pin.
    pub fn intx(&self) -> &Intx {
        &self.intx
    }

    /// Which pin it is: 1 to 4, or 0 for none.
    pub fn interrupt_pin(&self) -> u8 {
        self.bytes[reg::INTERRUPT_PIN]
    }

    /// Leads the interrupt pin to the slot's wire and learns the requester ID.
    pub fn connect(&mut self, slot: &Connection) {
        self.intx.connect(slot.intx.clone());
        if let Some((_, msix)) = &self.msix {
            msix.set_requester(slot.requester_id);
        }
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// May the function read and write guest memory and send messages?
    pub fn is_bus_master(&self) -> bool {
        self.word(reg::COMMAND) & command::BUS_MASTER != 0
    }

    /// The BARs that decode accesses now.
    pub fn decoded_bars(&self) -> impl Iterator<Item = DecodedBar> {
        let enabled = self.word(reg::COMMAND);
        self.bars.iter().filter_map(move |bar| {
            let (space, len) = (bar.space(), bar.len);
            let bit = if space == Space::Io { command::IO_SPACE } else { command::MEMORY_SPACE };
            let width = if bar.kind == BarKind::Memory64 { 8 } else { 4 };
            let mut raw = [0; 8];
            raw[..width].copy_from_slice(&self.bytes[bar.offset()..bar.offset() + width]);
            let address = u64::from_le_bytes(raw) & !(len - 1);
            (enabled & bit != 0).then_some(DecodedBar { index: bar.index, space, address, len })
        })
    }

    /// A byte as software sees it.
    fn byte(&self, at: usize) -> u8 {
        let interrupt = at == reg::STATUS && self.intx.is_asserted();
        self.bytes.get(at).map_or(0, |byte| byte | if interrupt { STATUS_INTERRUPT } else { 0 })
    }

    /// Reads up to 4 bytes; what does not exist reads 0.
    pub fn read(&self, offset: u16, size: usize) -> u32 {
        let bytes = (0..size.min(4)).map(|i| u32::from(self.byte(usize::from(offset) + i)) << (8 * i));
        bytes.fold(0, |value, byte| value | byte)
    }

    /// Writes up to 4 bytes, where software may.
    pub fn write(&mut self, offset: u16, size: usize, value: u32) {
        for (i, new) in value.to_le_bytes().into_iter().enumerate().take(size) {
            let at = usize::from(offset) + i;
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | new & mask;
            }
        }
        self.apply();
    }

    /// Tells the interrupt pin and MSI-X what the registers say.
    fn apply(&self) {
        let mut quiet = self.word(reg::COMMAND) & command::INTERRUPT_DISABLE != 0;
        if let Some((at, msix)) = &self.msix {
            let control = self.word(at + 2);
            let enabled = control & MSIX_ENABLE != 0;
            msix.set_control(enabled, control & MSIX_FUNCTION_MASK == 0 && self.is_bus_master());
            quiet |= enabled;
        }
        self.intx.set_disabled(quiet);
    }

    /// Power-on contents; the interrupt pin is the function's to lower.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
        if let Some((_, msix)) = &self.msix {
            msix.reset();
        }
        self.apply();
    }

    /// Copies the contents.
    pub fn save(&self) -> ConfigState {
        ConfigState(self.bytes.to_vec())
    }

    /// Could this space have saved `state`? What software cannot change must be the same.
    pub fn accepts(&self, state: &ConfigState) -> bool {
        let same = |(i, byte): (usize, &u8)| (byte ^ self.initial[i]) & !self.writable[i] == 0;
        state.0.len() == BYTES && state.0.iter().enumerate().all(same)
    }

    /// Takes over a state that [`Self::accepts`] has accepted, after MSI-X's own.
    pub fn restore(&mut self, state: &ConfigState) {
        if let Ok(bytes) = state.0.as_slice().try_into() {
            self.bytes = bytes;
        }
        self.apply();
    }
}
