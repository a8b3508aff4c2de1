//! PCI (PCI Local Bus 3.0, PCI Express Base 6.0, 7.2.2): functions, their configuration space, interrupts, and a
//! host bridge that places them on the machine's buses.
//!
//! A function is a [`Device`](isomer_core::Device) whose regions are its BARs by number, plus [`PciFunction`].
//! Locks are taken in the order host bridge, function, interrupt (INTx or MSI-X); a function never reaches for its
//! host bridge, which maps the function's BARs after each configuration write that moves them.

pub mod config;
pub mod host;
mod intx;
mod msix;
#[cfg(test)]
mod tests;

pub use config::{Bar, BarKind, ConfigSpace, ConfigState, DecodedBar, Identity, Space};
pub use host::{ECAM_BYTES, PciError, PciHost, PciHostConfig, PciHostState, PciWindow};
pub use intx::Intx;
pub use msix::{Msix, MsixState};

use isomer_core::{DynDevice, IrqLine};
use std::sync::{Arc, Mutex};

/// A function behind its lock, as host bridges hold it.
pub type SharedFunction = Arc<Mutex<dyn PciFunction>>;

/// One PCI function. `read` and `write` of its [`DynDevice`] side access BAR number `region`.
pub trait PciFunction: DynDevice {
    /// The configuration space.
    fn config(&self) -> &ConfigSpace;
    /// The configuration space, to change.
    fn config_mut(&mut self) -> &mut ConfigSpace;
    /// A guest read of 1, 2 or 4 bytes of configuration space, in the low bytes of the result.
    fn config_read(&mut self, offset: u16, size: usize) -> u32 {
        self.config().read(offset, size)
    }
    /// A guest write of 1, 2 or 4 bytes of configuration space.
    fn config_write(&mut self, offset: u16, size: usize, value: u32) {
        self.config_mut().write(offset, size, value);
    }
    /// The function was plugged in.
    fn connect(&mut self, slot: &Connection) {
        self.config_mut().connect(slot);
    }
}

/// What a slot gives the function in it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The slot's wire for the function's interrupt pin.
    pub intx: IrqLine,
    /// Bus, device and function number (`bus << 8 | device << 3 | function`), which messages carry.
    pub requester_id: u16,
}

/// Receives message-signalled interrupts: an MSI controller (IMSIC, ITS, local APIC). Called from any thread with a
/// function's interrupt lock held, so it must not call back into devices.
pub trait MsiSink: Send + Sync {
    /// A 32-bit write of `data` to guest-physical `address` by function `requester_id`.
    fn send(&self, requester_id: u16, address: u64, data: u32);
}
