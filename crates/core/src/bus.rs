//! Address-decoded buses: memory-mapped I/O and, on guests that have it, port I/O.

use crate::{DynDevice, Gpa};
use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

/// A device behind its lock, as buses and machines hold it.
pub type SharedDevice = Arc<Mutex<dyn DynDevice>>;

/// Why a device could not be placed on a bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The window is empty, wraps, or overlaps another.
    #[error("{device}: window {base} + {len:#x} {why}")]
    Window {
        /// The device being placed.
        device: &'static str,
        /// Window start.
        base: Gpa,
        /// Window length in bytes.
        len: u64,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Clone)]
struct Window {
    base: u64,
    len: u64,
    region: usize,
    name: &'static str,
    device: SharedDevice,
}

/// One address space of devices. Windows can come and go while the machine runs (PCI BARs).
#[derive(Default)]
pub struct Bus {
    /// Sorted by base, never overlapping.
    windows: RwLock<Vec<Window>>,
    unclaimed: AtomicU64,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let windows = self.windows.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(windows.iter().map(|w| (w.name, Gpa(w.base), w.len))).finish()
    }
}

impl Bus {
    /// Places register window `region` of `device` at `base`.
    pub fn map(&self, base: Gpa, len: u64, region: usize, device: SharedDevice) -> Result<(), BusError> {
        let name = device.lock().unwrap_or_else(PoisonError::into_inner).name();
        self.map_named(base, len, region, name, device)
    }

    /// As [`Self::map`] for a device that is locked by the caller (a PCI function that moves its own BAR).
    pub fn map_named(
        &self,
        base: Gpa,
        len: u64,
        region: usize,
        name: &'static str,
        device: SharedDevice,
    ) -> Result<(), BusError> {
        let wrong = |why: String| BusError::Window { device: name, base, len, why };
        if len == 0 || base.0.checked_add(len - 1).is_none() {
            return Err(wrong("is empty or wraps".into()));
        }
        let mut windows = self.windows.write().unwrap_or_else(PoisonError::into_inner);
        let at = windows.partition_point(|w| w.base < base.0);
        let last = base.0 + (len - 1);
        let clash = |w: &Window| w.base <= last && base.0 <= w.base + (w.len - 1);
        let near = [at.checked_sub(1), Some(at)].into_iter().flatten();
        if let Some(other) = near.filter_map(|i| windows.get(i)).find(|w| clash(w)) {
            return Err(wrong(format!("overlaps {} at {:#x}", other.name, other.base)));
        }
        windows.insert(at, Window { base: base.0, len, region, name, device });
        Ok(())
    }

    /// Removes the window that starts at `base`; tells whether there was one.
    pub fn unmap(&self, base: Gpa) -> bool {
        let mut windows = self.windows.write().unwrap_or_else(PoisonError::into_inner);
        let found = windows.iter().position(|w| w.base == base.0);
        found.map(|i| windows.remove(i)).is_some()
    }

    /// The device whose window holds all `size` bytes at `gpa`, the region number and the offset in it.
    fn find(&self, gpa: Gpa, size: usize) -> Option<(SharedDevice, usize, u64)> {
        let windows = self.windows.read().unwrap_or_else(PoisonError::into_inner);
        let at = windows.partition_point(|w| w.base <= gpa.0).checked_sub(1)?;
        let window = &windows[at];
        let offset = gpa.0 - window.base;
        (offset < window.len && window.len - offset >= size as u64)
            .then(|| (window.device.clone(), window.region, offset))
    }

    /// A guest read of 1, 2, 4 or 8 bytes. `None`: nobody answers (the guest's architecture decides what that means).
    pub fn read(&self, gpa: Gpa, size: usize) -> Option<u64> {
        let Some((device, region, offset)) = self.find(gpa, size) else {
            self.unclaimed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        Some(device.lock().unwrap_or_else(PoisonError::into_inner).read(region, offset, size))
    }

    /// A guest write of 1, 2, 4 or 8 bytes; `false` when nobody answers.
    pub fn write(&self, gpa: Gpa, size: usize, value: u64) -> bool {
        let Some((device, region, offset)) = self.find(gpa, size) else {
            self.unclaimed.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        device.lock().unwrap_or_else(PoisonError::into_inner).write(region, offset, size, value);
        true
    }

    /// Accesses that no device answered since the start.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, StateError};

    struct Latch(u64);
    impl Device for Latch {
        const NAME: &'static str = "latch";
        const VERSION: u32 = 1;
        type State = u64;
        fn read(&mut self, region: usize, offset: u64, _size: usize) -> u64 {
            self.0 + offset + 1000 * region as u64
        }
        fn write(&mut self, _region: usize, _offset: u64, _size: usize, value: u64) {
            self.0 = value;
        }
        fn reset(&mut self) {
            self.0 = 0;
        }
        fn save(&self) -> u64 {
            self.0
        }
        fn restore(&mut self, state: u64) -> Result<(), StateError> {
            self.0 = state;
            Ok(())
        }
    }

    #[test]
    fn windows_decode_and_refuse_overlap() {
        let bus = Bus::default();
        let device: SharedDevice = Arc::new(Mutex::new(Latch(0)));
        bus.map(Gpa(0x1000), 0x100, 0, device.clone()).unwrap();
        bus.map(Gpa(0x1100), 0x100, 3, device.clone()).unwrap();
        assert!(bus.map(Gpa(0x10ff), 2, 0, device.clone()).is_err());
        assert!(bus.map(Gpa(0xfff), 2, 0, device.clone()).is_err());
        assert!(bus.map(Gpa(u64::MAX), 2, 0, device).is_err());
        assert!(bus.write(Gpa(0x1004), 4, 5));
        assert_eq!(bus.read(Gpa(0x1108), 4), Some(3013));
        assert_eq!(bus.read(Gpa(0x11fe), 4), None);
        assert_eq!(bus.read(Gpa(0xfff), 1), None);
        assert_eq!(bus.unclaimed(), 2);
        assert!(bus.unmap(Gpa(0x1100)) && !bus.unmap(Gpa(0x1100)));
        assert_eq!(bus.read(Gpa(0x1108), 4), None);
    }

    #[test]
    fn states_of_other_devices_are_refused() {
        let mut latch = Latch(9);
        let state = DynDevice::save(&latch).unwrap();
        Device::reset(&mut latch);
        DynDevice::restore(&mut latch, &state).unwrap();
        assert_eq!(latch.0, 9);
        let other = crate::State { device: "other".into(), ..state.clone() };
        assert!(DynDevice::restore(&mut latch, &other).is_err());
        let damaged = crate::State { bytes: vec![], ..state };
        assert!(DynDevice::restore(&mut latch, &damaged).is_err());
        assert_eq!(latch.0, 9);
    }
}
