//! Which guest-physical granules hold code some engine has translated, and who must hear of a write to them.
//!
//! Engines mark a granule before they translate from it. Every writer that could change it (a vCPU's
//! slow store path, a device's DMA) calls [`CodePages::written`]; the first write clears the mark, raises
//! the granule's generation and asks all vCPUs to look before they run further translated code.
//! A translation made from generation `g` is valid while the granule's generation still is `g`.

use crate::{VcpuSignal, addr::PAGE_SHIFT};
use std::sync::{
    Arc, RwLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Low bit of a granule's word: some translation was made from the current contents.
const HAS_CODE: u32 = 1;
/// The generation lives above the mark.
const GENERATION_STEP: u32 = 2;

/// One word a granule of a RAM region: `generation << 1 | has_code`.
#[derive(Debug)]
pub struct CodePages {
    words: Box<[AtomicU32]>,
    /// Rises with every invalidation in any granule: a cheap "did anything change" for engines.
    epoch: Arc<AtomicU64>,
    listeners: Arc<RwLock<Vec<Arc<VcpuSignal>>>>,
}

impl CodePages {
    /// Tracks `len` bytes of RAM; `epoch` and `listeners` are shared by all regions of one machine.
    pub fn new(len: u64, epoch: Arc<AtomicU64>, listeners: Arc<RwLock<Vec<Arc<VcpuSignal>>>>) -> Self {
        let granules = (len >> PAGE_SHIFT) as usize;
        // A zeroed allocation stays untouched host memory until code is marked.
        let words = std::iter::repeat_with(AtomicU32::default).take(granules).collect();
        Self { words, epoch, listeners }
    }

    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        self.words.get((offset >> PAGE_SHIFT) as usize)
    }

    /// Marks the granule at byte `offset` as translated; returns the generation the translation belongs to.
    /// Call it before reading the code bytes, so that a racing write is seen as a newer generation.
    pub fn mark(&self, offset: u64) -> u32 {
        self.word(offset).map_or(0, |word| word.fetch_or(HAS_CODE, Ordering::SeqCst) >> 1)
    }

    /// The granule's present generation.
    pub fn generation(&self, offset: u64) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Acquire) >> 1)
    }

    /// Does the granule at `offset` hold translated code? Stores to such a granule must take the slow path.
    pub fn has_code(&self, offset: u64) -> bool {
        self.word(offset).is_some_and(|word| word.load(Ordering::Acquire) & HAS_CODE != 0)
    }

    /// Tells that `len` bytes from `offset` were written. Cheap where no code is.
    pub fn written(&self, offset: u64, len: usize) {
        if len == 0 {
            return;
        }
        let first = offset >> PAGE_SHIFT;
        let last = (offset + len as u64 - 1) >> PAGE_SHIFT;
        let mut dropped = false;
        for granule in first..=last {
            let Some(word) = self.words.get(granule as usize) else { break };
            if word.load(Ordering::Acquire) & HAS_CODE == 0 {
                continue;
            }
            let step = |w: u32| (w & HAS_CODE != 0).then(|| (w & !HAS_CODE).wrapping_add(GENERATION_STEP));
            dropped |= word.fetch_update(Ordering::SeqCst, Ordering::Acquire, step).is_ok();
        }
        if dropped {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            if let Ok(listeners) = self.listeners.read() {
                listeners.iter().for_each(|vcpu| vcpu.kick());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_marked_code_raises_the_generation_once() {
        let epoch = Arc::new(AtomicU64::new(0));
        let pages = CodePages::new(4 << PAGE_SHIFT, epoch.clone(), Arc::default());
        let generation = pages.mark(0x1000);
        pages.written(0x0, 8);
        assert_eq!((pages.generation(0x1000), epoch.load(Ordering::SeqCst)), (generation, 0));
        pages.written(0xffc, 8);
        assert_eq!(pages.generation(0x1000), generation + 1);
        assert!(!pages.has_code(0x1000));
        pages.written(0x1000, 8);
        assert_eq!((pages.generation(0x1000), epoch.load(Ordering::SeqCst)), (generation + 1, 1));
        pages.written(u64::from(u32::MAX), 8); // beyond the region: nothing to do
    }
}
