//! Where compiled code is, by virtual pc: the jump caches that compiled code reads, one a TLB set, so that a context switch
//! swaps them, and what is needed to take single pages out of them.
//!
//! When translations may have changed, entries are *suspended*: they match nothing until the engine has found their page where
//! it was. So a flush costs one look a page afterwards, not one a block.
//!
//! A block whose one instruction crosses into a second page depends on that page's translation and contents as well. It is
//! *removed* when either may have changed: it is noted by the second page, and begins in the last bytes of the one before.
#![allow(unsafe_code)]

use isomer_core::{Gpa, PAGE_SHIFT, PAGE_SIZE};
use isomer_jit::abi::{JumpEntry, MAX_JUMPS, MIN_JUMPS, jump_index, jump_mask, jump_other, mode_tag};
use rustc_hash::FxHashMap;

/// Cleared in [`JumpEntry::mode`] while nobody knows whether the page is still where it was: no mode's tag is without.
const CERTAIN: u64 = 1 << 62;
/// Places where an instruction may begin in a page.
const PLACES: usize = PAGE_SIZE as usize / 2;
/// Bytes at the end of a page in which an instruction that crosses may begin: no guest's are longer.
const CROSSING_BYTES: u64 = 16;
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
    /// Entries that gave way to others since there are as many places as now.
    displaced: usize,
    /// By virtual page number.
    pages: FxHashMap<u64, Page>,
    /// Pages that instructions cross into, by virtual page number, with their guest-physical page number.
    crossed: FxHashMap<u64, u64>,
}

/// The jump caches of one vCPU.
pub(crate) struct Jumps {
    sets: Vec<Set>,
}

// SAFETY: the pointers name code that the owner keeps.
unsafe impl Send for Jumps {}

/// Memory that is taken from the host only where it is used.
fn no_entries(len: usize) -> Box<[JumpEntry]> {
    // SAFETY: `JumpEntry` is numbers and raw pointers, and all zeros are `JumpEntry::EMPTY`.
    unsafe { Box::new_zeroed_slice(len).assume_init() }
}

/// Both places where pc's entry may be.
fn places(pc: u64, len: usize) -> [usize; 2] {
    let at = jump_index(pc, len);
    [at, jump_other(at, len)]
}

impl Set {
    /// More room, if too many give way to others.
    fn grow(&mut self) {
        /// The part of all places.
        const CROWDED: usize = 8;
        const FACTOR: usize = 4;
        let len = self.entries.len();
        if self.displaced < len / CROWDED || len >= MAX_JUMPS {
            return;
        }
        let mut entries = no_entries((len * FACTOR).min(MAX_JUMPS));
        for entry in self.entries.iter().filter(|entry| !entry.entry.is_null()) {
            let free = places(entry.pc, entries.len()).into_iter().find(|&at| entries[at].entry.is_null());
            if let Some(at) = free {
                entries[at] = *entry;
            }
        }
        self.entries = entries;
        self.displaced = 0;
    }

    /// Gives `f` the entries of `page` that the places name, if they are still its own.
    fn visit(entries: &mut [JumpEntry], number: u64, page: &Page, mut f: impl FnMut(&mut JumpEntry)) {
        for pc in page.pcs(number) {
            for at in places(pc, entries.len()) {
                if entries[at].pc == pc && !entries[at].entry.is_null() {
                    f(&mut entries[at]);
                }
            }
        }
    }

    /// Removes what crosses into a page.
    fn remove_crossing(&mut self, number: u64) {
        if self.crossed.remove(&number).is_some() {
            let page = number << PAGE_SHIFT;
            for pc in (2..CROSSING_BYTES).step_by(2).map(|bytes| page.wrapping_sub(bytes)) {
                for at in places(pc, self.entries.len()) {
                    if self.entries[at].pc == pc {
                        self.entries[at] = JumpEntry::EMPTY;
                    }
                }
            }
        }
    }

    fn remove_all_crossing(&mut self) {
        let numbers: Vec<u64> = self.crossed.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.remove_crossing(number));
    }

    fn suspend(&mut self, number: u64) {
        self.remove_crossing(number);
        if let Some(page) = self.pages.get_mut(&number).filter(|page| !page.suspended) {
            page.suspended = true;
            Self::visit(&mut self.entries, number, page, |entry| entry.mode &= !CERTAIN);
        }
    }

    fn remove(&mut self, number: u64) {
        self.remove_crossing(number);
        if let Some(page) = self.pages.remove(&number) {
            Self::visit(&mut self.entries, number, &page, |entry| *entry = JumpEntry::EMPTY);
        }
    }
}

impl Jumps {
    pub(crate) fn new(sets: usize) -> Self {
        let set = || Set {
            entries: no_entries(MIN_JUMPS),
            displaced: 0,
            pages: FxHashMap::default(),
            crossed: FxHashMap::default(),
        };
        Self { sets: std::iter::repeat_with(set).take(sets).collect() }
    }

    /// A set's entries, and their mask.
    pub(crate) fn entries(&self, set: usize) -> (*const JumpEntry, u64) {
        let entries = &self.sets[set].entries;
        (entries.as_ptr(), jump_mask(entries.len()))
    }

    /// Is `entry` in pc's first place?
    pub(crate) fn has(&self, set: usize, pc: u64, mode: u32, entry: *const u8) -> bool {
        let entries = &self.sets[set].entries;
        let held = &entries[jump_index(pc, entries.len())];
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
        let [at, other] = places(pc, set.entries.len());
        let old = std::mem::replace(&mut set.entries[at], new);
        let same = |held: &JumpEntry| held.pc == pc && held.mode | CERTAIN == new.mode;
        let other = &mut set.entries[other];
        if same(other) {
            *other = JumpEntry::EMPTY;
        }
        if !old.entry.is_null() && !same(&old) {
            set.displaced += usize::from(!other.entry.is_null());
            *other = old;
            set.grow();
        }
    }

    /// The same for code of an instruction that crosses into the page at `second`.
    pub(crate) fn insert_crossing(
        &mut self,
        set: usize,
        pc: u64,
        (gpa, second): (Gpa, Gpa),
        mode: u32,
        entry: *const u8,
    ) {
        if self.sets[set].crossed.len() >= MAX_PAGES {
            self.clear(set);
        }
        self.insert(set, pc, gpa, mode, entry);
        self.sets[set].crossed.insert(pc.wrapping_add(PAGE_SIZE) >> PAGE_SHIFT, second.page_number());
    }

    /// Code that crosses into `granule` is about to go, or is no longer what is there.
    pub(crate) fn forget_crossing(&mut self, granule: u64) {
        for set in self.sets.iter_mut().filter(|set| !set.crossed.is_empty()) {
            let into = set.crossed.iter().filter(|&(_, &second)| second == granule);
            let numbers: Vec<u64> = into.map(|(&number, _)| number).collect();
            numbers.into_iter().for_each(|number| set.remove_crossing(number));
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
        set.remove_all_crossing();
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
            set.crossed.clear();
            set.entries = no_entries(MIN_JUMPS);
            set.displaced = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: u64 = 0x4_2000;
    const CODE: *const u8 = std::ptr::without_provenance(0x1000);

    fn find(jumps: &Jumps, pc: u64, mode: u32) -> bool {
        let entries = &jumps.sets[0].entries;
        let matches =
            |entry: &JumpEntry| entry.pc == pc && entry.mode == mode_tag(mode) && !entry.entry.is_null();
        places(pc, entries.len()).iter().any(|&at| matches(&entries[at]))
    }

    #[test]
    fn two_that_compete_are_both_found() {
        let mut jumps = Jumps::new(1);
        let rival = PC + (MIN_JUMPS as u64 * 2) * 3 + 6;
        let index = |pc| jump_index(pc, MIN_JUMPS);
        let rival = (0..).map(|n| rival + n * 2).find(|&pc| index(pc) == index(PC)).unwrap();
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
    fn what_crosses_goes_with_either_page() {
        let (pc, pages) = (PC + 0xffe, (Gpa(0x8ffe), Gpa(0x3000)));
        let jumps = || {
            let mut jumps = Jumps::new(2);
            jumps.insert(0, PC, Gpa(0x8000), 7, CODE);
            jumps.insert_crossing(0, pc, pages, 7, CODE);
            assert!(find(&jumps, pc, 7));
            jumps
        };
        let mut first = jumps();
        first.suspend_page(0, PC);
        assert!(!find(&first, pc, 7));
        assert!(first.resume(0, PC, Gpa(0x8000)) && find(&first, pc, 7), "the second page has not changed");
        let mut second = jumps();
        second.suspend_page(0, PC + 0x1000);
        assert!(!find(&second, pc, 7) && find(&second, PC, 7));
        assert!(second.resume(0, PC, Gpa(0x8000)) && !find(&second, pc, 7));
        let mut all = jumps();
        all.suspend_set(0);
        assert!(all.resume(0, PC, Gpa(0x8000)) && find(&all, PC, 7) && !find(&all, pc, 7));
        let mut overwritten = jumps();
        overwritten.forget_crossing(8);
        assert!(find(&overwritten, pc, 7));
        overwritten.forget_crossing(3);
        assert!(!find(&overwritten, pc, 7) && find(&overwritten, PC, 7));
        let mut gone = jumps();
        gone.forget(0, 8, PC >> PAGE_SHIFT);
        assert!(!find(&gone, pc, 7));
    }

    #[test]
    fn what_crosses_the_end_of_the_address_space_goes_with_page_0() {
        let (mut jumps, pc) = (Jumps::new(1), u64::MAX - 1);
        jumps.insert_crossing(0, pc, (Gpa(0x8ffe), Gpa(0x3000)), 7, CODE);
        assert!(find(&jumps, pc, 7));
        jumps.suspend_page(0, 0x123);
        assert!(!find(&jumps, pc, 7));
    }

    #[test]
    fn a_crowded_set_grows() {
        let mut jumps = Jumps::new(1);
        let pcs = || (0..MAX_JUMPS as u64 / 4).map(|n| PC + n * 6);
        for _ in 0..2 {
            for pc in pcs() {
                jumps.insert(0, pc, Gpa(pc), 7, CODE);
            }
        }
        let found = pcs().filter(|&pc| find(&jumps, pc, 7)).count();
        assert_eq!(jumps.sets[0].entries.len(), MAX_JUMPS);
        assert!(found > pcs().count() * 9 / 10, "{found}");
        jumps.clear(0);
        assert!(!find(&jumps, PC, 7) && jumps.sets[0].entries.len() == MIN_JUMPS);
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
