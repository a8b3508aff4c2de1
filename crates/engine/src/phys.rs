//! Guest-physical memory as page walkers and slow paths see it.
#![allow(unsafe_code)]

use isomer_core::{Bus, Gpa, GuestMemory, memory::RamRegion};
use isomer_ir::guest::PhysMemory;
use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// RAM and the devices behind it.
#[derive(Clone, Debug)]
pub(crate) struct Phys {
    pub(crate) memory: GuestMemory,
    pub(crate) mmio: Arc<Bus>,
}

impl Phys {
    /// The region that holds the 4 KiB granule at `gpa`, and the host address of that granule.
    pub(crate) fn granule(&self, gpa: Gpa) -> Option<(&RamRegion, u64)> {
        let base = gpa.page_base();
        let region = self.memory.region(base, isomer_core::PAGE_SIZE)?;
        Some((region, region.host.as_ptr() as u64 + (base.0 - region.gpa.0)))
    }

    /// The host address of an aligned `size`-byte RAM location.
    fn host(&self, gpa: Gpa, size: usize) -> Option<(*mut u8, &RamRegion)> {
        if !gpa.0.is_multiple_of(size as u64) {
            return None;
        }
        let region = self.memory.region(gpa, size as u64)?;
        // SAFETY: `region` holds `size` bytes from `gpa`, so the offset is inside its mapping.
        Some((unsafe { region.host.as_ptr().add((gpa.0 - region.gpa.0) as usize) }, region))
    }
}

impl Phys {
    /// An aligned 4-byte cell of RAM.
    fn cell32(&self, gpa: Gpa) -> Option<(&AtomicU32, &RamRegion)> {
        let (host, region) = self.host(gpa, 4)?;
        // SAFETY: `host` is aligned, in bounds and mapped as long as `memory` lives; guest RAM is only ever accessed
        // atomically or through raw pointers, so an atomic view of it is sound.
        Some((unsafe { AtomicU32::from_ptr(host.cast()) }, region))
    }

    /// An aligned 8-byte cell of RAM.
    fn cell64(&self, gpa: Gpa) -> Option<(&AtomicU64, &RamRegion)> {
        let (host, region) = self.host(gpa, 8)?;
        // SAFETY: as in `cell32`.
        Some((unsafe { AtomicU64::from_ptr(host.cast()) }, region))
    }
}

impl PhysMemory for Phys {
    fn load(&self, gpa: Gpa, size: usize) -> Option<u64> {
        match size {
            4 => Some(u64::from(u32::from_le(self.cell32(gpa)?.0.load(Ordering::Acquire)))),
            8 => Some(u64::from_le(self.cell64(gpa)?.0.load(Ordering::Acquire))),
            _ => None,
        }
    }

    fn compare_exchange(&self, gpa: Gpa, size: usize, old: u64, new: u64) -> Option<bool> {
        let order = Ordering::SeqCst;
        let (swapped, region) = match size {
            4 => {
                let (cell, region) = self.cell32(gpa)?;
                (
                    cell.compare_exchange((old as u32).to_le(), (new as u32).to_le(), order, order).is_ok(),
                    region,
                )
            }
            8 => {
                let (cell, region) = self.cell64(gpa)?;
                (cell.compare_exchange(old.to_le(), new.to_le(), order, order).is_ok(), region)
            }
            _ => return None,
        };
        if swapped {
            region.code.written(gpa.0 - region.gpa.0, size);
        }
        Some(swapped)
    }
}
