//! PCI's level-triggered interrupt pins (PCI Local Bus 3.0, 2.2.6), shared between functions.

use super::PciError;
use isomer_core::{IrqLine, IrqSink};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A function's interrupt pin, for the function and its worker threads. Clones drive the same pin.
#[derive(Clone, Debug, Default)]
pub struct Intx(Arc<Mutex<Pin>>);

#[derive(Debug, Default)]
struct Pin {
    /// The function wants service; shown as Interrupt Status.
    asserted: bool,
    /// Interrupt Disable is set, or MSI-X is in use.
    disabled: bool,
    line: IrqLine,
}

impl Pin {
    fn drive(&self) {
        self.line.set(self.asserted && !self.disabled);
    }
}

impl Intx {
    fn pin(&self) -> MutexGuard<'_, Pin> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function asks for service, or no longer does.
    pub fn set(&self, asserted: bool) {
        let mut pin = self.pin();
        pin.asserted = asserted;
        pin.drive();
    }

    /// Does the function ask for service?
    pub fn is_asserted(&self) -> bool {
        self.pin().asserted
    }

    /// Keeps the pin quiet whatever the function asks.
    pub(super) fn set_disabled(&self, disabled: bool) {
        let mut pin = self.pin();
        pin.disabled = disabled;
        pin.drive();
    }

    /// Leads the pin to `line`.
    pub(super) fn connect(&self, line: IrqLine) {
        let mut pin = self.pin();
        pin.line = line;
        pin.drive();
    }
}

/// Number of interrupt pins of a bus.
pub(super) const PINS: usize = 4;

/// Which of the bus's four wires pin `pin` (1 to 4) of device `slot` is on: the usual swizzle.
pub(super) fn swizzle(slot: u8, pin: u8) -> usize {
    (usize::from(slot) + usize::from(pin).saturating_sub(1)) % PINS
}

/// Joins all pins of a bus into four wires: a wire is high while any pin on it is.
#[derive(Debug)]
pub(super) struct Router {
    /// Which slots assert each wire, a bit each. One pin a slot is on each wire.
    asserted: Mutex<[u32; PINS]>,
    wires: [IrqLine; PINS],
}

impl Router {
    pub(super) fn new(wires: [IrqLine; PINS]) -> Self {
        Self { asserted: Mutex::default(), wires }
    }

    /// The wire for pin `pin` (1 to 4, 0: none) of device `slot`.
    pub(super) fn line(self: &Arc<Self>, slot: u8, pin: u8) -> Result<IrqLine, PciError> {
        match pin {
            0 => Ok(IrqLine::unconnected()),
            1..=4 if slot < 32 => Ok(IrqLine::new(self.clone(), u32::from(slot) << 3 | u32::from(pin))),
            _ => Err(PciError::Pin { slot, pin }),
        }
    }
}

impl IrqSink for Router {
    fn set_level(&self, line: u32, level: bool) {
        let (slot, pin) = ((line >> 3) as u8, (line & 7) as u8);
        let wire = swizzle(slot, pin);
        let mut asserted = self.asserted.lock().unwrap_or_else(PoisonError::into_inner);
        let bit = 1u32.checked_shl(slot.into()).unwrap_or(0);
        if level {
            asserted[wire] |= bit;
        } else {
            asserted[wire] &= !bit;
        }
        // With the lock held, so that two functions' changes reach the controller in order.
        self.wires[wire].set(asserted[wire] != 0);
    }
}
