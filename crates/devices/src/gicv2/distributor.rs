//! The distributor's registers (IHI 0048B, 4.3).

use super::Core;
use crate::gic::lines::{Field, Lines, place};
use serde::{Deserialize, Serialize};

/// Register offsets in bytes.
mod reg {
    pub(super) const CTLR: u64 = 0x0;
    pub(super) const TYPER: u64 = 0x4;
    pub(super) const IIDR: u64 = 0x8;
    pub(super) const ITARGETSR: u64 = 0x800;
    /// Those of the SPIs.
    pub(super) const ITARGETSR_SPIS: u64 = 0x820;
    pub(super) const ITARGETSR_END: u64 = 0xc00;
    pub(super) const SGIR: u64 = 0xf00;
    pub(super) const CPENDSGIR: u64 = 0xf10;
    pub(super) const SPENDSGIR: u64 = 0xf20;
    pub(super) const SPENDSGIR_END: u64 = 0xf30;
    pub(super) const ICPIDR2: u64 = 0xfe8;
}

/// EnableGrp0 and EnableGrp1 of `GICD_CTLR`.
const GROUPS: u32 = 3;
/// Implementer Arm, product and revision 0.
const IIDR: u32 = 0x43b;
/// Architecture revision 2.
const ICPIDR2: u32 = 0x2b;
/// SGIs, whose pending bits and configuration are not written the usual way.
const SGI_BITS: u32 = 0xffff;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Distributor {
    ctlr: u32,
    /// SPIs, 32 a bank.
    pub(super) banks: Vec<Lines>,
    /// CPUs each SPI goes to, a bit each.
    targets: Vec<u8>,
}

impl Distributor {
    pub(super) fn new(spis: u32) -> Self {
        let banks = spis.div_ceil(32) as usize;
        Self { ctlr: 0, banks: vec![Lines::default(); banks], targets: vec![0; 32 * banks] }
    }

    /// Groups that are forwarded, a bit each.
    pub(super) fn groups(&self) -> u32 {
        self.ctlr & GROUPS
    }

    pub(super) fn is_possible(&self, banks: usize, cpus: usize) -> bool {
        self.ctlr & !GROUPS == 0
            && self.banks.len() == banks
            && self.targets.len() == 32 * banks
            && self.banks.iter().all(Lines::is_possible)
            && self.targets.iter().all(|targets| u32::from(*targets) >> cpus == 0)
    }
}

impl Core {
    fn bank(&mut self, cpu: usize, bank: usize) -> Option<&mut Lines> {
        match bank.checked_sub(1) {
            None => Some(&mut self.state.cpus[cpu].lines),
            Some(shared) => self.state.distributor.banks.get_mut(shared),
        }
    }

    pub(super) fn read_distributor(&mut self, cpu: usize, offset: u64) -> u32 {
        let (cpus, distributor) = (self.ports.len() as u32, &self.state.distributor);
        match offset {
            reg::CTLR => distributor.ctlr,
            reg::TYPER => distributor.banks.len() as u32 | (cpus - 1) << 5,
            reg::IIDR => IIDR,
            // With one CPU there is no choice, and the registers are not there.
            reg::ITARGETSR..reg::ITARGETSR_END if cpus == 1 => 0,
            reg::ITARGETSR..reg::ITARGETSR_SPIS => (1 << cpu) * 0x0101_0101,
            reg::ITARGETSR_SPIS..reg::ITARGETSR_END => {
                let first = (offset - reg::ITARGETSR_SPIS) as usize;
                let byte = |n| distributor.targets.get(first + n).copied().unwrap_or(0);
                u32::from_le_bytes([0, 1, 2, 3].map(byte))
            }
            reg::CPENDSGIR..reg::SPENDSGIR_END => {
                let first = (offset % 0x10) as usize;
                u32::from_le_bytes([0, 1, 2, 3].map(|n| self.state.cpus[cpu].sgi_sources[first + n]))
            }
            reg::ICPIDR2 => ICPIDR2,
            _ => {
                let Some(place) = place(offset) else { return 0 };
                self.bank(cpu, place.bank).map_or(0, |lines| lines.read(place.field, place.first))
            }
        }
    }

    pub(super) fn write_distributor(&mut self, cpu: usize, offset: u64, value: u32, mask: u32) {
        let bytes = || value.to_le_bytes().into_iter().zip(mask.to_le_bytes()).enumerate();
        let everybody = ((1u32 << self.ports.len()) - 1) as u8;
        match offset {
            reg::CTLR => self.state.distributor.ctlr = value & GROUPS,
            reg::ITARGETSR_SPIS..reg::ITARGETSR_END => {
                let first = (offset - reg::ITARGETSR_SPIS) as usize;
                for (n, (byte, _)) in bytes().filter(|(_, (_, mask))| *mask != 0) {
                    if let Some(targets) = self.state.distributor.targets.get_mut(first + n) {
                        *targets = byte & everybody;
                        self.route(first + n);
                    }
                }
            }
            reg::SGIR => self.send_sgi(cpu, value),
            reg::CPENDSGIR..reg::SPENDSGIR_END => {
                let (first, private) = ((offset % 0x10) as usize, &mut self.state.cpus[cpu]);
                for (n, (byte, mask)) in bytes() {
                    let (sources, named) = (&mut private.sgi_sources[first + n], byte & mask & everybody);
                    *sources = if offset < reg::SPENDSGIR { *sources & !named } else { *sources | named };
                }
                private.update_sgis();
            }
            _ => {
                let Some(place) = place(offset) else { return };
                let fixed = matches!(place.field, Field::SetPending | Field::ClearPending | Field::Config);
                let exist = if place.bank == 0 && fixed { !SGI_BITS } else { u32::MAX };
                if let Some(lines) = self.bank(cpu, place.bank) {
                    lines.write(place.field, place.first, value, mask, exist);
                }
            }
        }
    }

    /// `GICD_SGIR`: an interrupt for the CPUs listed, for all others, or for the writer.
    fn send_sgi(&mut self, from: usize, value: u32) {
        let sgi = (value & 0xf) as usize;
        for (cpu, private) in self.state.cpus.iter_mut().enumerate() {
            let named = match value >> 24 & 3 {
                0 => value >> 16 >> cpu & 1 != 0,
                1 => cpu != from,
                2 => cpu == from,
                _ => false,
            };
            if named {
                private.sgi_sources[sgi] |= 1 << from;
                private.update_sgis();
            }
        }
    }

    /// Notes where an SPI goes.
    fn route(&mut self, spi: usize) {
        let only_cpu = self.ports.len() == 1;
        let targets = self.state.distributor.targets[spi];
        let (bank, bit) = (spi / 32, 1 << (spi % 32));
        for (cpu, routed) in self.routed.iter_mut().enumerate() {
            let goes = only_cpu || targets >> cpu & 1 != 0;
            routed[bank] = routed[bank] & !bit | if goes { bit } else { 0 };
        }
    }

    /// Notes where all SPIs go.
    pub(super) fn route_all(&mut self) {
        let banks = self.state.distributor.banks.len();
        self.routed.iter_mut().for_each(|routed| *routed = vec![0; banks]);
        (0..32 * banks).for_each(|spi| self.route(spi));
    }
}
