//! Where compiled code is, by virtual pc: the jump caches that compiled code reads, one a TLB set, so that a context switch
//! swaps them, and what is needed to take single pages out of them.
//!
//! When translations may have changed, entries are *suspended*: they match nothing until the engine has found their page where
//! it was. So a flush costs one look a page afterwards, not one a block.
#![allow(unsafe_code)]

use isomer_core::{Gpa, PAGE_SHIFT, PAGE_SIZE};
use isomer_jit::abi::{JUMPS, JumpEntry, jump_index, jump_other, mode_tag};
use rustc_hash::FxHashMap;

/// Cleared in [`JumpEntry::mode`] while nobody knows whether the page is still where it was: no mode's tag is without.
const CERTAIN: u64 = 1 << 62;
/// Places where an instruction may begin in a page.
const PLACES: usize = PAGE_SIZE as usize / 2;
/// Pages a set has entries of; with more it starts anew.
const MAX_PAGES: usize = 4096;

/// What one set has of one virtual page.
struct Page {
    /// Guest-physical page number.
    granule: u64,
    suspended: bool,
    /// Where there are, or were, entries: a bit each.
    places: [u64; PLACES / 64],
}

impl Page {
    /// The pcs with entries in virtual page number `page`.
    fn pcs(&self, page: u64) -> impl Iterator<Item = u64> + '_ {
        self.places.iter().enumerate().flat_map(move |(word, &bits)| {
            let set = (0..64_u64).filter(move |bit| bits >> bit & 1 != 0);
            set.map(move |bit| (page << PAGE_SHIFT) + 2 * (64 * word as u64 + bit))
        })
    }
}

/// The jump cache of one set.
struct Set {
    entries: Box<[JumpEntry]>,
    /// By virtual page number.
    pages: FxHashMap<u64, Page>,
}

/// The jump caches of one vCPU.
pub(crate) struct Jumps {
    sets: Vec<Set>,
}

// SAFETY: the pointers name code that the owner keeps.
unsafe impl Send for Jumps {}

/// Memory that is taken from the host only where it is used.
fn no_entries() -> Box<[JumpEntry]> {
    // SAFETY: `JumpEntry` is numbers and raw pointers, and all zeros are `JumpEntry::EMPTY`.
    unsafe { Box::new_zeroed_slice(JUMPS).assume_init() }
}

impl Set {
    /// Gives `f` the entries of `page` that the places name, if they are still its own.
    fn visit(entries: &mut [JumpEntry], number: u64, page: &Page, mut f: impl FnMut(&mut JumpEntry)) {
        for pc in page.pcs(number) {
            let at = jump_index(pc);
            for at in [at, jump_other(at)] {
                if entries[at].pc == pc && !entries[at].entry.is_null() {
                    f(&mut entries[at]);
                }
            }
        }
    }

    fn suspend(&mut self, number: u64) {
        if let Some(page) = self.pages.get_mut(&number).filter(|page| !page.suspended) {
            page.suspended = true;
            Self::visit(&mut self.entries, number, page, |entry| entry.mode &= !CERTAIN);
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(page) = self.pages.remove(&number) {
            Self::visit(&mut self.entries, number, &page, |entry| *entry = JumpEntry::EMPTY);
        }
    }
}

impl Jumps {
    pub(crate) fn new(sets: usize) -> Self {
        let set = || Set { entries: no_entries(), pages: FxHashMap::default() };
        Self { sets: std::iter::repeat_with(set).take(sets).collect() }
    }

    pub(crate) fn entries(&self, set: usize) -> *const JumpEntry {
        self.sets[set].entries.as_ptr()
    }

    /// Is `entry` in pc's first place?
    pub(crate) fn has(&self, set: usize, pc: u64, mode: u32, entry: *const u8) -> bool {
        let held = &self.sets[set].entries[jump_index(pc)];
        held.pc == pc && held.mode == mode_tag(mode) && held.entry == entry
    }

    /// Remembers compiled code for `pc`, which is at `gpa`. What was in its place gives way.
    pub(crate) fn insert(&mut self, set: usize, pc: u64, gpa: Gpa, mode: u32, entry: *const u8) {
        let number = pc >> PAGE_SHIFT;
        let granule = gpa.page_number();
        let full = self.sets[set].pages.len() >= MAX_PAGES;
        if full && !self.sets[set].pages.contains_key(&number) {
            self.clear(set);
        }
        let set = &mut self.sets[set];
        if set.pages.get(&number).is_some_and(|page| page.granule != granule) {
            set.remove(number);
        }
        let new = || Page { granule, suspended: false, places: [0; PLACES / 64] };
        let page = set.pages.entry(number).or_insert_with(new);
        let place = (pc % PAGE_SIZE) as usize / 2;
        page.places[place / 64] |= 1 << (place % 64);
        let new = JumpEntry { pc, mode: mode_tag(mode), entry };
        let at = jump_index(pc);
        let old = std::mem::replace(&mut set.entries[at], new);
        let same = |held: &JumpEntry| held.pc == pc && held.mode | CERTAIN == new.mode;
        let other = &mut set.entries[jump_other(at)];
        if same(other) {
            *other = JumpEntry::EMPTY;
        }
        if !old.entry.is_null() && !same(&old) {
            *other = old;
        }
    }

    /// Is anything known for certain of the page of `pc`?
    pub(crate) fn knows(&self, set: usize, pc: u64) -> bool {
        self.sets[set].pages.get(&(pc >> PAGE_SHIFT)).is_some_and(|page| !page.suspended)
    }

    /// The page of `pc` is at `gpa`: what was known of it while it was there before holds again. True if there was any.
    pub(crate) fn resume(&mut self, set: usize, pc: u64, gpa: Gpa) -> bool {
        let (set, number) = (&mut self.sets[set], pc >> PAGE_SHIFT);
        let Some(page) = set.pages.get_mut(&number) else { return false };
        if page.granule != gpa.page_number() {
            set.remove(number);
            return false;
        }
        page.suspended = false;
        Set::visit(&mut set.entries, number, page, |entry| entry.mode |= CERTAIN);
        true
    }

    /// The translation of the page at `gva` may have changed.
    pub(crate) fn suspend_page(&mut self, set: usize, gva: u64) {
        self.sets[set].suspend(gva >> PAGE_SHIFT);
    }

    /// All translations of the set may have changed.
    pub(crate) fn suspend_set(&mut self, set: usize) {
        let set = &mut self.sets[set];
        for (&number, page) in set.pages.iter_mut().filter(|(_, page)| !page.suspended) {
            page.suspended = true;
            Set::visit(&mut set.entries, number, page, |entry| entry.mode &= !CERTAIN);
        }
    }

    /// Code of `granule` in virtual page number `page` is about to go.
    pub(crate) fn forget(&mut self, set: usize, granule: u64, page: u64) {
        if self.sets[set].pages.get(&page).is_some_and(|page| page.granule == granule) {
            self.sets[set].remove(page);
        }
    }

    pub(crate) fn clear(&mut self, set: usize) {
        let set = &mut self.sets[set];
        if !set.pages.is_empty() {
            set.pages.clear();
            set.entries = no_entries();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: u64 = 0x4_2000;
    const CODE: *const u8 = std::ptr::without_provenance(0x1000);

    fn find(jumps: &Jumps, pc: u64, mode: u32) -> bool {
        let at = jump_index(pc);
        let matches =
            |entry: &JumpEntry| entry.pc == pc && entry.mode == mode_tag(mode) && !entry.entry.is_null();
        [at, jump_other(at)].iter().any(|&at| matches(&jumps.sets[0].entries[at]))
    }

    #[test]
    fn two_that_compete_are_both_found() {
        let mut jumps = Jumps::new(1);
        let rival = PC + (JUMPS as u64 * 2) * 3 + 6;
        let rival = (0..).map(|n| rival + n * 2).find(|&pc| jump_index(pc) == jump_index(PC)).unwrap();
        for _ in 0..3 {
            jumps.insert(0, PC, Gpa(0x8000), 1, CODE);
            jumps.insert(0, rival, Gpa(0x9000), 1, CODE);
        }
        assert!(find(&jumps, PC, 1) && find(&jumps, rival, 1) && !find(&jumps, PC, 2));
        jumps.forget(0, 9, rival >> PAGE_SHIFT);
        assert!(find(&jumps, PC, 1) && !find(&jumps, rival, 1));
    }

    #[test]
    fn suspended_pages_hold_again_where_they_were() {
        let mut jumps = Jumps::new(1);
        for pc in [PC, PC + 2, PC + 0xffe, PC + 0x1000] {
            jumps.insert(0, pc, Gpa(0x8000 + (pc - PC)), 7, CODE);
        }
        jumps.suspend_page(0, PC + 0x123);
        assert!(!find(&jumps, PC + 2, 7) && find(&jumps, PC + 0x1000, 7) && !jumps.knows(0, PC));
        assert!(jumps.resume(0, PC, Gpa(0x8000)) && find(&jumps, PC + 0xffe, 7));
        jumps.suspend_set(0);
        assert!(!find(&jumps, PC, 7) && !find(&jumps, PC + 0x1000, 7));
        assert!(!jumps.resume(0, PC, Gpa(0xa000)) && !jumps.resume(0, PC, Gpa(0x8000)), "it has moved");
        assert!(jumps.resume(0, PC + 0x1000, Gpa(0x9000)) && find(&jumps, PC + 0x1000, 7));
        jumps.clear(0);
        assert!(!find(&jumps, PC + 0x1000, 7));
    }

    #[test]
    fn pages_are_bounded() {
        let mut jumps = Jumps::new(1);
        for n in 0..3 * MAX_PAGES as u64 {
            jumps.insert(0, n << PAGE_SHIFT, Gpa(n << PAGE_SHIFT), 0, CODE);
        }
        assert!(jumps.sets[0].pages.len() <= MAX_PAGES);
    }
}
