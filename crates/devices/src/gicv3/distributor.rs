//! The distributor's registers (IHI 0069H, 12.9): shared peripheral interrupts and where they go.

use super::{Core, ID_BITS};
use crate::gic::{
    FIRST_SPI,
    lines::{Lines, place},
};
use serde::{Deserialize, Serialize};

/// Register offsets in bytes.
mod reg {
    pub(super) const CTLR: u64 = 0x0;
    pub(super) const TYPER: u64 = 0x4;
    pub(super) const IIDR: u64 = 0x8;
    pub(super) const SETSPI_NSR: u64 = 0x40;
    pub(super) const CLRSPI_NSR: u64 = 0x48;
    /// `GICD_IROUTER32`; those of the private interrupts before do not exist.
    pub(super) const IROUTER: u64 = 0x6100;
    pub(super) const IROUTER_END: u64 = 0x7fe0;
    pub(super) const PIDR2: u64 = 0xffe8;
}

mod ctlr {
    /// EnableGrp0 and EnableGrp1.
    pub(super) const GROUPS: u32 = 3;
    /// Affinity routing, for good.
    pub(super) const ARE: u32 = 1 << 4;
    /// One Security state.
    pub(super) const DS: u32 = 1 << 6;
}

mod typer {
    /// Message-based SPIs.
    pub(super) const MBIS: u32 = 1 << 16;
    pub(super) const LPIS: u32 = 1 << 17;
    pub(super) const ID_BITS_SHIFT: u32 = 19;
    /// Affinity level 3 can be other than 0.
    pub(super) const A3V: u32 = 1 << 24;
}

/// Implementer Arm, product and revision 0.
pub(super) const IIDR: u32 = 0x43b;
/// Architecture revision 3 (GICv3).
pub(super) const PIDR2: u32 = 0x3b;
/// `GICD_IROUTER`'s bits: Aff3, Interrupt_Routing_Mode, Aff2 to Aff0.
const ROUTE_MASK: u64 = 0xff_80ff_ffff;
/// Any CPU may take it.
const ROUTE_ANY: u64 = 1 << 31;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Distributor {
    ctlr: u32,
    /// SPIs, 32 a bank.
    pub(super) banks: Vec<Lines>,
    /// `GICD_IROUTER` of each SPI.
    routes: Vec<u64>,
}

impl Distributor {
    pub(super) fn new(spis: u32) -> Self {
        let banks = spis.div_ceil(32) as usize;
        Self { ctlr: 0, banks: vec![Lines::default(); banks], routes: vec![0; banks * 32] }
    }

    /// Groups that are forwarded, a bit each.
    pub(super) fn groups(&self) -> u32 {
        self.ctlr & ctlr::GROUPS
    }

    pub(super) fn bank_mut(&mut self, spi: u32) -> Option<&mut Lines> {
        self.banks.get_mut((spi / 32) as usize)
    }

    pub(super) fn is_possible(&self, banks: usize) -> bool {
        self.ctlr & !ctlr::GROUPS == 0
            && self.banks.len() == banks
            && self.routes.len() == 32 * banks
            && self.banks.iter().all(Lines::is_possible)
            && self.routes.iter().all(|route| route & !ROUTE_MASK == 0)
    }

    fn typer(&self) -> u32 {
        self.banks.len() as u32
            | typer::MBIS
            | typer::LPIS
            | (ID_BITS - 1) << typer::ID_BITS_SHIFT
            | typer::A3V
    }
}

/// Which SPI's `GICD_IROUTER` an offset belongs to, and by how many bits its half is shifted.
fn route_at(offset: u64) -> Option<(usize, u32)> {
    let within = (reg::IROUTER..reg::IROUTER_END).contains(&offset);
    within.then(|| (((offset - reg::IROUTER) / 8) as usize, (offset % 8 * 8) as u32))
}

impl Core {
    pub(super) fn read_distributor(&self, offset: u64) -> u32 {
        let distributor = &self.state.distributor;
        if let Some((spi, shift)) = route_at(offset) {
            return distributor.routes.get(spi).map_or(0, |route| (route >> shift) as u32);
        }
        match offset {
            reg::CTLR => distributor.ctlr | ctlr::ARE | ctlr::DS,
            reg::TYPER => distributor.typer(),
            reg::IIDR => IIDR,
            reg::PIDR2 => PIDR2,
            _ => place(offset).map_or(0, |place| {
                // The first bank is in the redistributors.
                let bank = place.bank.checked_sub(1).and_then(|bank| distributor.banks.get(bank));
                bank.map_or(0, |lines| lines.read(place.field, place.first))
            }),
        }
    }

    pub(super) fn write_distributor(&mut self, offset: u64, value: u32, mask: u32) {
        let distributor = &mut self.state.distributor;
        if let Some((spi, shift)) = route_at(offset) {
            let Some(route) = distributor.routes.get_mut(spi) else { return };
            *route = (*route & !(u64::from(mask) << shift) | u64::from(value) << shift) & ROUTE_MASK;
            self.route(spi);
            return;
        }
        match offset {
            reg::CTLR => distributor.ctlr = value & ctlr::GROUPS,
            reg::SETSPI_NSR | reg::CLRSPI_NSR => {
                let spi = (value & 0x3ff).checked_sub(FIRST_SPI);
                let Some(spi) = spi else { return };
                let Some(lines) = distributor.bank_mut(spi) else { return };
                let bit = 1 << (spi % 32);
                lines.latched = lines.latched & !bit | if offset == reg::SETSPI_NSR { bit } else { 0 };
            }
            _ => {
                let Some(place) = place(offset) else { return };
                let bank = place.bank.checked_sub(1).and_then(|bank| distributor.banks.get_mut(bank));
                if let Some(lines) = bank {
                    lines.write(place.field, place.first, value, mask, u32::MAX);
                }
            }
        }
    }

    /// The CPU with this affinity.
    pub(super) fn cpu_by_affinity(&self, affinity: u32) -> Option<usize> {
        self.cpus.iter().position(|cpu| cpu.affinity == affinity)
    }

    /// Works out anew where an SPI goes. One that any CPU may take goes to the first: a choice the architecture leaves
    /// to the implementation.
    fn route(&mut self, spi: usize) {
        let route = self.state.distributor.routes[spi];
        let affinity = (route >> 8) as u32 & 0xff00_0000 | route as u32 & 0xff_ffff;
        let to = if route & ROUTE_ANY != 0 { Some(0) } else { self.cpu_by_affinity(affinity) };
        let (bank, bit) = (spi / 32, 1 << (spi % 32));
        for (cpu, routed) in self.routed.iter_mut().enumerate() {
            routed[bank] = routed[bank] & !bit | if to == Some(cpu) { bit } else { 0 };
        }
    }

    /// Works out anew where all SPIs go.
    pub(super) fn route_all(&mut self) {
        let banks = self.state.distributor.banks.len();
        self.routed.iter_mut().for_each(|routed| *routed = vec![0; banks]);
        (0..banks * 32).for_each(|spi| self.route(spi));
    }
}
