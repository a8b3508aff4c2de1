//! The redistributors' registers (IHI 0069H, 12.11): each CPU's own interrupts, its power state, and its LPIs.

use super::{
    Core, REDISTRIBUTOR_LEN,
    distributor::{IIDR, PIDR2},
    lpi::Lpis,
};
use crate::gic::lines::{Lines, place};
use serde::{Deserialize, Serialize};

/// Register offsets in RD_base, in bytes.
mod reg {
    pub(super) const CTLR: u64 = 0x0;
    pub(super) const IIDR: u64 = 0x4;
    pub(super) const TYPER: u64 = 0x8;
    pub(super) const TYPER_HIGH: u64 = 0xc;
    pub(super) const WAKER: u64 = 0x14;
    pub(super) const PROPBASER: u64 = 0x70;
    pub(super) const PROPBASER_HIGH: u64 = 0x74;
    pub(super) const PENDBASER: u64 = 0x78;
    pub(super) const PENDBASER_HIGH: u64 = 0x7c;
    pub(super) const PIDR2: u64 = 0xffe8;
}

/// Where SGI_base starts.
const SGI_BASE: u64 = 0x1_0000;

mod ctlr {
    pub(super) const ENABLE_LPIS: u32 = 1;
    /// EnableLPIs can be cleared again.
    pub(super) const CES: u32 = 2;
}

mod waker {
    pub(super) const PROCESSOR_SLEEP: u32 = 2;
    pub(super) const CHILDREN_ASLEEP: u32 = 4;
}

mod typer {
    /// Physical LPIs.
    pub(super) const PLPIS: u32 = 1;
    /// The last redistributor of the region.
    pub(super) const LAST: u32 = 1 << 4;
    pub(super) const NUMBER_SHIFT: u32 = 8;
}

/// Writable bits of `GICR_PROPBASER`: caches, address, shareability, IDbits.
const PROPBASER_MASK: u64 = 7 << 56 | 0xf_ffff_ffff_f000 | 0xf9f;
/// Writable bits of `GICR_PENDBASER`: PTZ, caches, address, shareability.
const PENDBASER_MASK: u64 = 1 << 62 | 7 << 56 | 0xf_ffff_ffff_0000 | 0xf80;
/// Pending table zero: software says that the table is zeros. Reads as zero.
const PENDING_TABLE_ZERO: u64 = 1 << 62;

/// The registers of one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Redistributor {
    /// SGIs and PPIs.
    pub(super) lines: Lines,
    ctlr: u32,
    /// `GICR_WAKER.ProcessorSleep`. An interrupt would then ask a power controller to wake the CPU; here it just comes,
    /// and firmware counts on that (EDK2 leaves the bit as it finds it).
    asleep: bool,
    pub(super) propbaser: u64,
    pub(super) pendbaser: u64,
    pub(super) lpis: Lpis,
}

impl Default for Redistributor {
    fn default() -> Self {
        Self {
            lines: Lines::private(),
            ctlr: 0,
            asleep: true,
            propbaser: 0,
            pendbaser: 0,
            lpis: Lpis::default(),
        }
    }
}

impl Redistributor {
    pub(super) fn lpis_enabled(&self) -> bool {
        self.ctlr & ctlr::ENABLE_LPIS != 0
    }

    pub(super) fn is_possible(&self) -> bool {
        self.lines.is_possible()
            && self.ctlr & !ctlr::ENABLE_LPIS == 0
            && self.propbaser & !PROPBASER_MASK == 0
            && self.pendbaser & !PENDBASER_MASK == 0
            && self.lpis.is_possible(self.lpis_enabled())
    }
}

fn with_half(whole: u64, high: bool, value: u32, mask: u32) -> u64 {
    let shift = if high { 32 } else { 0 };
    whole & !(u64::from(mask) << shift) | u64::from(value) << shift
}

impl Core {
    /// The CPU an offset belongs to, and the offset in its redistributor.
    fn redistributor_at(&self, offset: u64) -> Option<(usize, u64)> {
        let cpu = usize::try_from(offset / REDISTRIBUTOR_LEN).ok()?;
        (cpu < self.cpus.len()).then_some((cpu, offset % REDISTRIBUTOR_LEN))
    }

    pub(super) fn read_redistributor(&self, offset: u64) -> u32 {
        let Some((cpu, offset)) = self.redistributor_at(offset) else { return 0 };
        let redistributor = &self.state.redistributors[cpu];
        match offset {
            reg::CTLR => redistributor.ctlr | ctlr::CES,
            reg::IIDR => IIDR,
            reg::TYPER => {
                let last = if cpu + 1 == self.cpus.len() { typer::LAST } else { 0 };
                typer::PLPIS | last | (cpu as u32) << typer::NUMBER_SHIFT
            }
            reg::TYPER_HIGH => self.cpus[cpu].affinity,
            reg::WAKER if redistributor.asleep => waker::PROCESSOR_SLEEP | waker::CHILDREN_ASLEEP,
            reg::PROPBASER => redistributor.propbaser as u32,
            reg::PROPBASER_HIGH => (redistributor.propbaser >> 32) as u32,
            reg::PENDBASER => redistributor.pendbaser as u32,
            reg::PENDBASER_HIGH => ((redistributor.pendbaser & !PENDING_TABLE_ZERO) >> 32) as u32,
            reg::PIDR2 => PIDR2,
            SGI_BASE.. => place(offset - SGI_BASE)
                .filter(|place| place.bank == 0)
                .map_or(0, |place| redistributor.lines.read(place.field, place.first)),
            _ => 0,
        }
    }

    pub(super) fn write_redistributor(&mut self, offset: u64, value: u32, mask: u32) {
        let Some((cpu, offset)) = self.redistributor_at(offset) else { return };
        let redistributor = &mut self.state.redistributors[cpu];
        // The tables' places cannot change while they are in use.
        let in_use = redistributor.lpis_enabled();
        match offset {
            reg::CTLR => self.enable_lpis(cpu, value & ctlr::ENABLE_LPIS != 0),
            reg::WAKER => redistributor.asleep = value & waker::PROCESSOR_SLEEP != 0,
            reg::PROPBASER | reg::PROPBASER_HIGH if !in_use => {
                let high = offset == reg::PROPBASER_HIGH;
                redistributor.propbaser =
                    with_half(redistributor.propbaser, high, value, mask) & PROPBASER_MASK;
            }
            reg::PENDBASER | reg::PENDBASER_HIGH if !in_use => {
                let high = offset == reg::PENDBASER_HIGH;
                redistributor.pendbaser =
                    with_half(redistributor.pendbaser, high, value, mask) & PENDBASER_MASK;
            }
            SGI_BASE.. => {
                let Some(place) = place(offset - SGI_BASE).filter(|place| place.bank == 0) else { return };
                // How SGIs are triggered is fixed.
                let is_config = place.field == crate::gic::lines::Field::Config;
                let exist = if is_config { 0xffff_0000 } else { u32::MAX };
                redistributor.lines.write(place.field, place.first, value, mask, exist);
            }
            _ => {}
        }
    }

    /// Starts or stops the use of LPIs: reads what is pending from memory, or writes it there.
    fn enable_lpis(&mut self, cpu: usize, enable: bool) {
        let redistributor = &mut self.state.redistributors[cpu];
        if redistributor.lpis_enabled() == enable {
            return;
        }
        redistributor.ctlr = if enable { ctlr::ENABLE_LPIS } else { 0 };
        let (propbaser, pendbaser) = (redistributor.propbaser, redistributor.pendbaser);
        if enable {
            let zero = pendbaser & PENDING_TABLE_ZERO != 0;
            redistributor.lpis = Lpis::load(&self.memory, propbaser, (!zero).then_some(pendbaser));
        } else {
            redistributor.lpis.store(&self.memory, propbaser, pendbaser);
            redistributor.lpis = Lpis::default();
        }
    }
}
