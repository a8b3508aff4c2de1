//! GICv2m (Arm Server Base System Architecture 2.2, appendix E): a frame that turns messages into SPIs, the simplest way
//! to have MSI with a GICv2.
//!
//! | Offset | Register |
//! |---|---|
//! | `0x008` | MSI_TYPER: first INTID in 25:16, number of them in 9:0 |
//! | `0x040` | MSI_SETSPI_NS: writing an INTID makes it pending |
//! | `0xfcc` | MSI_IIDR |

use super::Gicv2;
use crate::{gic::FIRST_SPI, pci::MsiSink};
use isomer_core::{Device, FwNode, FwValue, Gpa, IrqLine, Placement, StateError};
use std::sync::Arc;

/// Bytes in the register window.
pub const WINDOW_LEN: u64 = 0x1000;

const TYPER: u64 = 0x008;
const SETSPI_NS: u64 = 0x040;
const IIDR: u64 = 0xfcc;
/// Product and revision 0, architecture version 0, implementer Arm.
const IIDR_VALUE: u64 = 0x43b;

/// The wires that messages pulse.
#[derive(Debug)]
struct Wires {
    /// INTID of the first.
    first: u32,
    wires: Vec<IrqLine>,
    /// Where messages are written to.
    setspi: Gpa,
}

impl Wires {
    fn pulse(&self, intid: u32) {
        if let Some(wire) = intid.checked_sub(self.first).and_then(|n| self.wires.get(n as usize)) {
            wire.pulse();
        }
    }
}

impl MsiSink for Wires {
    fn send(&self, _requester_id: u16, address: u64, data: u32) {
        if address == self.setspi.0 {
            self.pulse(data);
        }
    }
}

/// The frame. It has no state of its own: pending messages are the distributor's.
#[derive(Debug)]
pub struct Gicv2m(Arc<Wires>);

impl Gicv2m {
    /// A frame at `base` with `count` SPIs of `gic` from SPI `first` (counted from 0) on.
    pub fn new(gic: &Gicv2, first: u32, count: u32, base: Gpa) -> Self {
        let wires = (first..first.saturating_add(count)).map(|spi| gic.spi(spi)).collect();
        Self(Arc::new(Wires { first: FIRST_SPI + first, wires, setspi: base.wrapping_add(SETSPI_NS) }))
    }

    /// Where functions send their messages.
    pub fn msi_sink(&self) -> Arc<dyn MsiSink> {
        self.0.clone()
    }
}

impl Device for Gicv2m {
    const NAME: &'static str = "arm,gic-v2m-frame";
    const VERSION: u32 = 1;
    type State = ();

    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        match (region, size, offset) {
            (0, 4, TYPER) => u64::from(self.0.first) << 16 | self.0.wires.len() as u64,
            (0, 4, IIDR) => IIDR_VALUE,
            _ => 0,
        }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if (region, offset) == (0, SETSPI_NS) && matches!(size, 2 | 4) {
            self.0.pulse(value as u32);
        }
    }

    fn reset(&mut self) {}

    fn save(&self) {}

    fn restore(&mut self, _state: ()) -> Result<(), StateError> {
        Ok(())
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("v2m", &["arm,gic-v2m-frame"])
        };
        Some(node.with("msi-controller", FwValue::Flag))
    }
}
