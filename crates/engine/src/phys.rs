//! Guest-physical memory as page walkers and slow paths see it.
#![allow(unsafe_code)]

use isomer_core::{Bus, Gpa, GuestMemory, PAGE_SIZE, memory::RamRegion};
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
        let region = self.memory.region(base, PAGE_SIZE)?;
        Some((region, region.host.as_ptr() as u64 + (base.0 - region.gpa.0)))
    }

    /// Instruction bytes from `gpa` on: `most`, or as many as its granule has. Each aligned word is read at once, so that
    /// an instruction that is replaced by one store meanwhile is the old or the new one (Ziccif; A64 and Power say
    /// the same of some or all instructions).
    pub(crate) fn code_bytes(&self, gpa: Gpa, most: usize) -> Option<Vec<u8>> {
        const WORD: u64 = size_of::<u64>() as u64;
        let (_, granule) = self.granule(gpa)?;
        let offset = gpa.page_offset();
        let end = (offset + most as u64).min(PAGE_SIZE);
        let words = offset / WORD..end.div_ceil(WORD);
        let mut bytes = Vec::with_capacity(most + 2 * WORD as usize);
        for word in words.clone() {
            // SAFETY: `granule` is the page-aligned host address of mapped RAM, `word` is one of its words, and guest RAM
            // is only ever accessed atomically or through raw pointers.
            let cell = unsafe { AtomicU64::from_ptr((granule as *mut u64).add(word as usize)) };
            bytes.extend(cell.load(Ordering::Relaxed).to_ne_bytes());
        }
        bytes.truncate((end - words.start * WORD) as usize);
        bytes.drain(..(offset - words.start * WORD) as usize);
        Some(bytes)
    }

    /// The granule that holds `gpa`, each of its words read at once.
    pub(crate) fn page(&self, gpa: Gpa) -> Option<Box<[u8; PAGE_SIZE as usize]>> {
        let bytes = self.code_bytes(gpa.page_base(), PAGE_SIZE as usize)?;
        bytes.into_boxed_slice().try_into().ok()
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
