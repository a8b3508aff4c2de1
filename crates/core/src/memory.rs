//! Guest RAM: one memfd a region, so that it can be mapped more than once (engine windows, snapshots,
//! other processes), wrapped so that `virtio-queue` and loaders work on it.
#![allow(unsafe_code)]

use crate::{
    Gpa,
    code_pages::{CodePages, CodeWatch},
};
use std::{fs::File, ptr::NonNull, sync::Arc};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion, MmapRegion,
    bitmap::{Bitmap, BitmapSlice, WithBitmapSlice},
};

/// `vm-memory`'s guest memory with our write tracking: what `virtio-queue` and loaders take.
pub type RamMap = vm_memory::GuestMemoryMmap<WriteTracker>;

/// Why guest RAM could not be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has no room for it.
    #[error("the host cannot provide {size_mib} MiB of guest memory: {source}")]
    Allocate {
        /// What was asked for.
        size_mib: u64,
        /// The host's answer.
        source: std::io::Error,
    },
    /// Two regions overlap, one is empty, or one wraps round the address space.
    #[error("the guest memory map is wrong: {0}")]
    Layout(String),
    /// Access outside RAM.
    #[error("{len} bytes at guest-physical {gpa} are not RAM")]
    NotRam {
        /// Start of the access.
        gpa: Gpa,
        /// Bytes asked for.
        len: usize,
    },
}

/// Tells the engines of writes that come through `vm-memory` (devices, loaders).
#[derive(Clone, Debug)]
pub struct WriteTracker {
    pages: Arc<CodePages>,
    base: usize,
}

impl<'a> WithBitmapSlice<'a> for WriteTracker {
    type S = Self;
}
impl BitmapSlice for WriteTracker {}
impl Bitmap for WriteTracker {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.pages.written((self.base + offset) as u64, len);
    }
    fn dirty_at(&self, offset: usize) -> bool {
        !self.pages.has_code((self.base + offset) as u64)
    }
    fn slice_at(&self, offset: usize) -> Self {
        Self { pages: self.pages.clone(), base: self.base + offset }
    }
}

/// One stretch of RAM as the engine needs it: where the host sees it and who watches its code.
#[derive(Debug, Clone)]
pub struct RamRegion {
    /// First guest-physical byte.
    pub gpa: Gpa,
    /// Bytes, a multiple of the granule.
    pub len: u64,
    /// Host address of the first byte; valid as long as the `GuestMemory` lives.
    pub host: NonNull<u8>,
    /// Translated-code marks of this region.
    pub code: Arc<CodePages>,
}

// SAFETY: the pointer names a shared mapping that lives as long as `GuestMemory`; accesses through it
// follow the engine's rules (atomic or volatile), so sharing the description between threads is fine.
unsafe impl Send for RamRegion {}
// SAFETY: as above.
unsafe impl Sync for RamRegion {}

/// All RAM of one machine. Cheap to clone; clones share the mappings.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    map: Arc<RamMap>,
    regions: Arc<[RamRegion]>,
    watch: Arc<CodeWatch>,
}

impl GuestMemory {
    /// Makes RAM regions `(start, bytes)`. Bytes must be multiples of 4 KiB; memory starts as zeros and is
    /// only taken from the host when touched.
    pub fn new(layout: &[(Gpa, u64)]) -> Result<Self, MemoryError> {
        let watch = Arc::new(CodeWatch::default());
        let mut mapped = Vec::new();
        let mut regions = Vec::new();
        for &(gpa, len) in layout {
            let layout_error = |why: &str| MemoryError::Layout(format!("{why}: {len:#x} bytes at {gpa}"));
            if len == 0 || len % crate::PAGE_SIZE != 0 || gpa.0 % crate::PAGE_SIZE != 0 {
                return Err(layout_error("empty or not a multiple of 4 KiB"));
            }
            let code = Arc::new(CodePages::new(gpa, len, watch.clone()));
            let tracker = WriteTracker { pages: code.clone(), base: 0 };
            let mmap = map_shared(len, tracker)?;
            let host = NonNull::new(mmap.as_ptr()).ok_or_else(|| layout_error("mapped at null"))?;
            regions.push(RamRegion { gpa, len, host, code });
            let region = vm_memory::GuestRegionMmap::new(mmap, GuestAddress(gpa.0))
                .ok_or_else(|| layout_error("wraps round the address space"))?;
            mapped.push(Arc::new(region));
        }
        mapped.sort_by_key(|region| region.start_addr());
        let map = RamMap::from_arc_regions(mapped).map_err(|e| MemoryError::Layout(e.to_string()))?;
        Ok(Self { map: Arc::new(map), regions: regions.into(), watch })
    }

    /// The `vm-memory` view, for queues, loaders and anything that copies.
    pub fn map(&self) -> &RamMap {
        &self.map
    }

    /// A shared handle on the `vm-memory` view.
    pub fn shared_map(&self) -> Arc<RamMap> {
        self.map.clone()
    }

    /// The regions, for engines.
    pub fn regions(&self) -> &[RamRegion] {
        &self.regions
    }

    /// The region that holds `len` bytes from `gpa` whole.
    pub fn region(&self, gpa: Gpa, len: u64) -> Option<&RamRegion> {
        let holds = |r: &&RamRegion| gpa >= r.gpa && len <= r.len && gpa.0 - r.gpa.0 <= r.len - len;
        self.regions.iter().find(holds)
    }

    /// Total RAM, in bytes.
    pub fn size(&self) -> u64 {
        self.regions.iter().map(|r| r.len).sum()
    }

    /// Who hears of overwritten code, and how often there was any.
    pub fn code_watch(&self) -> &CodeWatch {
        &self.watch
    }

    /// Copies out of RAM.
    pub fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        let len = buf.len();
        self.map.read_slice(buf, GuestAddress(gpa.0)).map_err(|_| MemoryError::NotRam { gpa, len })
    }

    /// Copies into RAM.
    pub fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), MemoryError> {
        let not_ram = MemoryError::NotRam { gpa, len: data.len() };
        self.map.write_slice(data, GuestAddress(gpa.0)).map_err(|_| not_ram)
    }

    /// Does `len` bytes from `gpa` lie in RAM (possibly across regions)?
    pub fn is_ram(&self, gpa: Gpa, len: usize) -> bool {
        self.map.check_range(GuestAddress(gpa.0), len)
    }
}

/// A zeroed shared mapping backed by a memfd of its own.
fn map_shared(len: u64, tracker: WriteTracker) -> Result<MmapRegion<WriteTracker>, MemoryError> {
    let allocate = |source: std::io::Error| MemoryError::Allocate { size_mib: len >> 20, source };
    let fd = rustix::fs::memfd_create("isomer-ram", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| allocate(e.into()))?;
    rustix::fs::ftruncate(&fd, len).map_err(|e| allocate(e.into()))?;
    let size = usize::try_from(len).map_err(|_| allocate(std::io::ErrorKind::OutOfMemory.into()))?;
    vm_memory::mmap::MmapRegionBuilder::new_with_bitmap(size, tracker)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .with_file_offset(FileOffset::new(File::from(fd), 0))
        .build()
        .map_err(|e| allocate(std::io::Error::other(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_found_and_bounds_hold() {
        let ram = GuestMemory::new(&[(Gpa(0x8000_0000), 1 << 20)]).unwrap();
        ram.write(Gpa(0x800f_fff8), &[7; 8]).unwrap();
        let mut back = [0; 8];
        ram.read(Gpa(0x800f_fff8), &mut back).unwrap();
        assert_eq!(back, [7; 8]);
        assert!(ram.write(Gpa(0x800f_fffc), &[7; 8]).is_err());
        assert!(ram.region(Gpa(0x800f_fff8), 8).is_some());
        assert!(ram.region(Gpa(0x800f_fff9), 8).is_none());
        assert!(ram.region(Gpa(u64::MAX), 8).is_none());
        assert!(ram.region(Gpa(0x8000_0000), (1 << 20) + 1).is_none());
        assert!(ram.region(Gpa(0x7fff_ffff), 1).is_none());
    }

    #[test]
    fn device_writes_invalidate_code() {
        let ram = GuestMemory::new(&[(Gpa(0), 1 << 16)]).unwrap();
        let generation = ram.regions()[0].code.mark(0x2000);
        ram.write(Gpa(0x1ff8), &[0; 16]).unwrap();
        assert_ne!(ram.regions()[0].code.generation(0x2000), generation);
        assert_eq!(ram.code_watch().epoch(), 1);
    }

    #[test]
    fn nonsense_layouts_are_refused() {
        assert!(GuestMemory::new(&[(Gpa(0), 0)]).is_err());
        assert!(GuestMemory::new(&[(Gpa(0), 100)]).is_err());
        assert!(GuestMemory::new(&[(Gpa(0), 1 << 16), (Gpa(0x1000), 1 << 16)]).is_err());
    }
}
