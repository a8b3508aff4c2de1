//! From a virtual pc to translated code without a page walk: direct-mapped, tagged with the TLB set's generation.

#![allow(unsafe_code)]

use crate::blocks::BlockRef;
use isomer_core::PAGE_SHIFT;
use isomer_ir::interp::Entry as CodeEntry;

/// Entries of one virtual page lie together, so that a page's entries can be dropped without a scan.
const PER_PAGE: usize = 64;
const PAGES: usize = 64;

#[derive(Clone, Copy)]
struct Entry {
    pc: u64,
    mode: u32,
    generation: u32,
    block: Option<(BlockRef, Option<CodeEntry>)>,
}

const EMPTY: Entry = Entry { pc: 0, mode: 0, generation: 0, block: None };

/// One vCPU's jump cache.
pub(crate) struct JumpCache {
    entries: Box<[Entry; PER_PAGE * PAGES]>,
}

// SAFETY: the pointers name blocks of the vCPU that owns this cache too, and both move together.
unsafe impl Send for JumpCache {}

#[inline(always)]
fn index(pc: u64) -> usize {
    let page = pc >> PAGE_SHIFT;
    let page = (page ^ (page >> 6) ^ (page >> 12)) as usize % PAGES;
    let offset = ((pc >> 1) ^ (pc >> 7)) as usize % PER_PAGE;
    page * PER_PAGE + offset
}

impl JumpCache {
    pub(crate) fn new() -> Self {
        Self { entries: Box::new([EMPTY; PER_PAGE * PAGES]) }
    }

    #[inline(always)]
    pub(crate) fn get(&self, pc: u64, mode: u32, generation: u32) -> Option<BlockRef> {
        self.find(pc, mode, generation).map(|(block, _)| block)
    }

    /// The same, straight to where the interpreter enters.
    #[inline(always)]
    pub(crate) fn entry(&self, pc: u64, mode: u32, generation: u32) -> Option<CodeEntry> {
        self.find(pc, mode, generation).and_then(|(_, entry)| entry)
    }

    #[inline(always)]
    fn find(&self, pc: u64, mode: u32, generation: u32) -> Option<(BlockRef, Option<CodeEntry>)> {
        let entry = &self.entries[index(pc)];
        let same = entry.pc == pc && entry.mode == mode && entry.generation == generation;
        if same { entry.block } else { None }
    }

    pub(crate) fn insert(&mut self, pc: u64, mode: u32, generation: u32, block: BlockRef) {
        // SAFETY: callers pass blocks they have just obtained.
        let entry = unsafe { block.get() }.form.entry();
        self.entries[index(pc)] = Entry { pc, mode, generation, block: Some((block, entry)) };
    }

    /// Forgets the entries of one virtual page, in every address space.
    pub(crate) fn forget_page(&mut self, gva: u64) {
        let first = index(gva) / PER_PAGE * PER_PAGE;
        self.entries[first..first + PER_PAGE].fill(EMPTY);
    }

    /// Forgets everything: block memory is about to be freed.
    pub(crate) fn clear(&mut self) {
        self.entries.fill(EMPTY);
    }
}
