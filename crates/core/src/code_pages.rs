//! Which guest-physical granules hold code some engine has translated, and who must hear of a write to them.
//!
//! Engines mark a granule before they translate from it. Every writer that could change it (a vCPU's
//! slow store path, a device's DMA) calls [`CodePages::written`]; the first write clears the mark, raises
//! the granule's generation and asks all vCPUs to look before they run further translated code.
//! A translation made from generation `g` is valid while the granule's generation still is `g`.

use crate::{Gpa, VcpuSignal, addr::PAGE_SHIFT};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
};

/// Low bit of a granule's word: some translation was made from the current contents.
const HAS_CODE: u32 = 1;
/// The generation lives above the mark.
const GENERATION_STEP: u32 = 2;

/// What all regions of one machine share: how often translated code was overwritten, and who must hear of it.
#[derive(Debug, Default)]
pub struct CodeWatch {
    /// Rises before a granule's generation does,
    begun: AtomicU64,
    /// and this one afterwards. Apart because a second writer finds the mark cleared by a first one that may not have
    /// got as far as telling anybody.
    done: AtomicU64,
    listeners: RwLock<Vec<Arc<VcpuSignal>>>,
    recent: Mutex<Recent>,
}

/// Overwritten granules that are remembered.
const RECENT: usize = 256;

/// The numbers of the granules that were overwritten last.
#[derive(Debug, Default)]
struct Recent {
    pages: VecDeque<u64>,
    /// How many there were since the start.
    total: u64,
}

impl CodeWatch {
    /// How many invalidations are complete. Ask before looking at generations, and [`Self::changed_since`] later.
    pub fn epoch(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// May generations have risen that a look at them just after `epoch` did not see?
    pub fn changed_since(&self, epoch: u64) -> bool {
        self.begun.load(Ordering::SeqCst) != epoch
    }

    /// The numbers of the granules that were overwritten since `position` (0 at first), which is moved on; `None` if some
    /// are forgotten. After [`Self::epoch`] it names all that belong to it.
    pub fn overwritten_since(&self, position: &mut u64) -> Option<Vec<u64>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = (recent.total - *position) as usize;
        *position = recent.total;
        let skip = recent.pages.len().checked_sub(missed)?;
        Some(recent.pages.iter().skip(skip).copied().collect())
    }

    fn note(&self, page: u64) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.total += 1;
        if recent.pages.len() == RECENT {
            recent.pages.pop_front();
        }
        recent.pages.push_back(page);
    }

    /// Registers a vCPU that must look up when translated code is overwritten.
    pub fn add_listener(&self, vcpu: Arc<VcpuSignal>) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(vcpu);
    }
}

/// One word a granule of a RAM region: `generation << 1 | has_code`.
#[derive(Debug)]
pub struct CodePages {
    words: Box<[AtomicU32]>,
    /// The number of the first granule.
    first: u64,
    watch: Arc<CodeWatch>,
}

impl CodePages {
    /// Tracks `len` bytes of RAM from `gpa`.
    pub fn new(gpa: Gpa, len: u64, watch: Arc<CodeWatch>) -> Self {
        let granules = (len >> PAGE_SHIFT) as usize;
        // A zeroed allocation stays untouched host memory until code is marked.
        let words = std::iter::repeat_with(AtomicU32::default).take(granules).collect();
        Self { words, first: gpa.page_number(), watch }
    }

    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        self.words.get((offset >> PAGE_SHIFT) as usize)
    }

    /// Marks the granule at byte `offset` as translated; returns the generation the translation belongs to.
    /// Call it before reading the code bytes, so that a racing write is seen as a newer generation.
    pub fn mark(&self, offset: u64) -> u32 {
        let generation = self.word(offset).map_or(0, |word| word.fetch_or(HAS_CODE, Ordering::SeqCst) >> 1);
        // With the fence in `written`: either that writer sees the mark, or we see what it wrote.
        fence(Ordering::SeqCst);
        generation
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
        fence(Ordering::SeqCst);
        let first = offset >> PAGE_SHIFT;
        let last = ((offset + len as u64 - 1) >> PAGE_SHIFT).min(self.words.len() as u64);
        let marked = |granule: &u64| self.has_code(granule << PAGE_SHIFT);
        if !(first..=last).any(|granule| marked(&granule)) {
            return;
        }
        let watch = &*self.watch;
        watch.begun.fetch_add(1, Ordering::SeqCst);
        for granule in (first..=last).filter(marked) {
            let Some(word) = self.words.get(granule as usize) else { break };
            let step = |w: u32| (w & HAS_CODE != 0).then(|| (w & !HAS_CODE).wrapping_add(GENERATION_STEP));
            // If somebody else was first, that is as good.
            if word.fetch_update(Ordering::SeqCst, Ordering::Acquire, step).is_ok() {
                watch.note(self.first + granule);
            }
        }
        watch.done.fetch_add(1, Ordering::SeqCst);
        // Those that sleep look when they wake: they need not be woken for this.
        let listeners = watch.listeners.read().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().for_each(|vcpu| vcpu.attention().store(1, Ordering::SeqCst));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_marked_code_raises_the_generation_once() {
        let watch = Arc::new(CodeWatch::default());
        let vcpu = Arc::new(VcpuSignal::default());
        watch.add_listener(vcpu.clone());
        let pages = CodePages::new(Gpa(0x8000), 4 << PAGE_SHIFT, watch.clone());
        let generation = pages.mark(0x1000);
        pages.written(0x0, 8);
        assert_eq!((pages.generation(0x1000), watch.epoch()), (generation, 0));
        assert!(!watch.changed_since(0) && !vcpu.take_attention());
        pages.written(0xffc, 8);
        assert_eq!(pages.generation(0x1000), generation + 1);
        assert!(!pages.has_code(0x1000) && watch.changed_since(0) && vcpu.take_attention());
        let mut position = 0;
        assert_eq!(watch.overwritten_since(&mut position), Some(vec![9]));
        assert_eq!(watch.overwritten_since(&mut position), Some(Vec::new()));
        pages.written(0x1000, 8);
        assert_eq!((pages.generation(0x1000), watch.epoch()), (generation + 1, 1));
        assert!(!watch.changed_since(1) && !vcpu.take_attention());
        pages.written(u64::from(u32::MAX), 8); // beyond the region: nothing to do
        pages.mark(0x3000);
        pages.written(0x2ff8, 0x10_0000); // far beyond, in part: what is there counts
        assert_eq!((pages.generation(0x3000), watch.epoch()), (1, 2));
        assert_eq!(watch.overwritten_since(&mut position), Some(vec![11]));
        for _ in 0..=RECENT {
            pages.mark(0);
            pages.written(0, 1);
        }
        assert_eq!(watch.overwritten_since(&mut position), None, "more than are remembered");
    }

    /// A second writer, which finds nothing to do because a first one is just about to tell, may tell of its own write
    /// by other means: whoever asks then must not hear "nothing changed".
    #[test]
    fn an_invalidation_under_way_counts_as_a_change() {
        let watch = Arc::new(CodeWatch::default());
        let pages = CodePages::new(Gpa(0), 1 << PAGE_SHIFT, watch.clone());
        pages.mark(0);
        let epoch = watch.epoch();
        watch.begun.fetch_add(1, Ordering::SeqCst); // the first writer, stopped in the middle of `written`
        pages.words[0].store(GENERATION_STEP, Ordering::SeqCst);
        pages.written(0, 8);
        assert!(watch.changed_since(epoch));
        assert!(watch.changed_since(watch.epoch()), "and again, until it has told");
    }
}
