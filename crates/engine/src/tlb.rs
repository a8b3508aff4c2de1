//! The software TLB: direct-mapped tables at fixed places, one set an address space, so that a context switch
//! swaps an index and a one-page flush touches one entry.

use isomer_core::{Gpa, PAGE_SHIFT, PAGE_SIZE};
use isomer_ir::{Page, guest::TlbFlush};
use isomer_jit::abi::{
    JUMPS, JUMPS_PER_PAGE, JumpEntry, NO_MODE, TLB_ENTRIES as ENTRIES, TLB_INVALID as INVALID,
    TlbEntry as Entry, jump_index, tlb_index as index,
};

/// Address spaces kept at once.
const SETS: usize = 4;
/// Large translations remembered a regime, so that a miss inside one needs no walk.
const LARGE: usize = 8;

/// The first address and the number of the pages to flush, if they are so few that each is worth a look.
pub(crate) fn few_pages(what: TlbFlush) -> Option<(u64, u64)> {
    let gva = what.gva?;
    let pages = what.len.saturating_add(gva.page_offset()).div_ceil(PAGE_SIZE).max(1);
    (pages <= 64).then_some((gva.0, pages))
}

const EMPTY: Entry = Entry { load: INVALID, store: INVALID, fetch: INVALID, addend: 0 };

/// A translation larger than a granule, with the walk's permissions.
#[derive(Clone, Copy, Debug)]
struct Large {
    tag: u64,
    page: Page,
}

impl Large {
    fn covers(&self, gva: u64) -> bool {
        gva >> self.page.shift == self.tag >> self.page.shift
    }
}

/// What a table knows besides its entries.
#[derive(Clone, Default)]
struct TableInfo {
    large: [Option<Large>; LARGE],
    next_large: usize,
    /// A large translation was forgotten to make room; granules of it may still have entries.
    spilled: bool,
    used: bool,
    /// Groups of entries that may be valid, a bit each: what flushes and searches need to look at.
    groups: u64,
}

/// Entries a bit of [`TableInfo::groups`] stands for.
const GROUP: usize = ENTRIES / 64;

impl TableInfo {
    /// The entries that may be valid, as ranges within the table.
    fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let groups = self.groups;
        (0..64).filter(move |group| groups >> group & 1 != 0).map(|group| group * GROUP..(group + 1) * GROUP)
    }
}

struct Set {
    address_space: Option<u64>,
    last_used: u64,
    /// Changes whenever translations of this set are dropped: tags the jump cache.
    generation: u32,
}

const NO_JUMP: JumpEntry =
    JumpEntry { pc: 0, mode: NO_MODE, entry: std::ptr::null(), block: std::ptr::null() };

/// Set in [`JumpEntry::mode`] while nobody knows whether the page is still where it was: no mode word is so long.
const SUSPENDED: u64 = 1 << 32;

/// Where compiled code is, by virtual pc: a jump cache a set, so that a context switch swaps these too.
struct Jumps {
    entries: Box<[JumpEntry]>,
    /// Groups of entries in use, a bit each, by set.
    used: [u64; SETS],
}

// SAFETY: the pointers name code that the owner of the TLB keeps.
#[allow(unsafe_code)]
unsafe impl Send for Jumps {}

impl Jumps {
    /// Translations of a group's pages may have changed: its entries match nothing until they are resumed.
    fn suspend_group(&mut self, set: usize, group: usize) {
        let start = set * JUMPS + group * JUMPS_PER_PAGE;
        self.entries[start..start + JUMPS_PER_PAGE].iter_mut().for_each(|entry| entry.mode |= SUSPENDED);
        self.used[set] &= !(1 << group);
    }

    fn suspend_set(&mut self, set: usize) {
        while self.used[set] != 0 {
            self.suspend_group(set, self.used[set].trailing_zeros() as usize);
        }
    }

    /// The page of `pc` is at `gpa`: what was known of it while it was there before holds again. True if there was any.
    fn resume(&mut self, set: usize, pc: u64, gpa: Gpa) -> bool {
        let group = jump_index(pc) / JUMPS_PER_PAGE;
        let start = set * JUMPS + group * JUMPS_PER_PAGE;
        let mut any = false;
        for entry in &mut self.entries[start..start + JUMPS_PER_PAGE] {
            let same = entry.pc >> PAGE_SHIFT == pc >> PAGE_SHIFT
                && entry.block.addr() as u64 == gpa.page_number()
                && entry.mode != NO_MODE;
            if same {
                entry.mode &= !SUSPENDED;
                any = true;
            }
        }
        self.used[set] |= 1 << group;
        any
    }
}

/// One vCPU's TLB: `SETS` sets of one table a regime, all tables in one allocation.
pub(crate) struct Tlb {
    jumps: Option<Jumps>,
    entries: Box<[Entry]>,
    /// Guest-physical granule of each entry, and in its low bits log2 of the size of the translation it is part of.
    /// Apart because only protection and flushes look at it.
    gpas: Box<[u64]>,
    tables: Box<[TableInfo]>,
    sets: [Set; SETS],
    regimes: usize,
    current: usize,
    /// Index of the current set's first entry.
    base: usize,
    clock: u64,
    next_generation: u32,
    /// Generations started over: what is tagged with one from before must go.
    started_over: bool,
}

/// The part of a `gpas` word that is not the granule.
const SHIFT_BITS: u64 = PAGE_SIZE - 1;
const NO_GPA: u64 = !SHIFT_BITS;

impl Tlb {
    pub(crate) fn new(regimes: usize) -> Self {
        let set =
            |i: usize| Set { address_space: (i == 0).then_some(0), last_used: 0, generation: i as u32 + 1 };
        Self {
            jumps: None,
            entries: vec![EMPTY; SETS * regimes * ENTRIES].into_boxed_slice(),
            gpas: vec![NO_GPA; SETS * regimes * ENTRIES].into_boxed_slice(),
            tables: vec![TableInfo::default(); SETS * regimes].into_boxed_slice(),
            sets: std::array::from_fn(set),
            regimes,
            current: 0,
            base: 0,
            clock: 0,
            next_generation: SETS as u32 + 1,
            started_over: false,
        }
    }

    /// The entry for `gva` in regime `mmu`.
    #[inline(always)]
    pub(crate) fn entry(&self, gva: u64, mmu: u8) -> &Entry {
        &self.entries[self.base + usize::from(mmu) * ENTRIES + index(gva)]
    }

    /// The current set's first table.
    pub(crate) fn base(&self) -> *const Entry {
        &raw const self.entries[self.base]
    }

    /// Makes the jump caches of compiled code.
    pub(crate) fn use_jumps(&mut self) {
        self.jumps = Some(Jumps { entries: vec![NO_JUMP; SETS * JUMPS].into_boxed_slice(), used: [0; SETS] });
    }

    /// The current set's jump cache; null if there are none.
    pub(crate) fn jumps(&self) -> *const JumpEntry {
        self.jumps.as_ref().map_or(std::ptr::null(), |jumps| &raw const jumps.entries[self.current * JUMPS])
    }

    /// Remembers compiled code for `pc`, which is at `gpa`, in the current address space.
    pub(crate) fn insert_jump(&mut self, pc: u64, gpa: Gpa, mode: u32, entry: *const u8) {
        if let Some(jumps) = &mut self.jumps {
            let at = jump_index(pc);
            jumps.used[self.current] |= 1 << (at / JUMPS_PER_PAGE);
            jumps.entries[self.current * JUMPS + at] = JumpEntry {
                pc,
                mode: mode.into(),
                entry,
                block: std::ptr::without_provenance(gpa.page_number() as usize),
            };
        }
    }

    /// Is nothing known of compiled code in the group of `pc`'s page?
    pub(crate) fn knows_no_jumps(&self, pc: u64) -> bool {
        let group = jump_index(pc) / JUMPS_PER_PAGE;
        self.jumps.as_ref().is_some_and(|jumps| jumps.used[self.current] >> group & 1 == 0)
    }

    /// What was known of compiled code in the page of `pc`, which is at `gpa`, holds again; false if nothing was.
    pub(crate) fn resume_jumps(&mut self, pc: u64, gpa: Gpa) -> bool {
        let set = self.current;
        self.jumps.as_mut().is_some_and(|jumps| jumps.resume(set, pc, gpa))
    }

    /// Forgets where compiled code is: some is about to go.
    pub(crate) fn clear_jumps(&mut self) {
        if let Some(jumps) = &mut self.jumps {
            jumps.entries.fill(NO_JUMP);
            jumps.used = [0; SETS];
        }
    }

    /// A number that names the current set and its contents' age.
    #[inline(always)]
    pub(crate) fn generation(&self) -> u32 {
        self.sets[self.current].generation
    }

    fn table_number(&self, mmu: u8) -> usize {
        self.current * self.regimes + usize::from(mmu)
    }

    fn renew(&mut self, set: usize) {
        if self.next_generation == u32::MAX {
            self.started_over = true;
            for (set, generation) in self.sets.iter_mut().zip(1..) {
                set.generation = generation;
            }
            self.next_generation = SETS as u32 + 1;
        } else {
            self.sets[set].generation = self.next_generation;
            self.next_generation += 1;
        }
    }

    /// Were generations used up and started over since the last call? Whoever tags anything with them must then forget
    /// all of it.
    pub(crate) fn take_started_over(&mut self) -> bool {
        std::mem::take(&mut self.started_over)
    }

    fn clear_table(&mut self, table: usize) {
        if self.tables[table].used {
            for range in self.tables[table].ranges() {
                let entries = table * ENTRIES + range.start..table * ENTRIES + range.end;
                self.entries[entries.clone()].fill(EMPTY);
                self.gpas[entries].fill(NO_GPA);
            }
            self.tables[table] = TableInfo::default();
        }
    }

    fn clear_set(&mut self, set: usize) {
        if let Some(jumps) = &mut self.jumps {
            jumps.suspend_set(set);
        }
        (set * self.regimes..(set + 1) * self.regimes).for_each(|table| self.clear_table(table));
    }

    /// True if more than that page went: it was part of a larger one.
    fn clear_page(&mut self, table: usize, gva: u64) -> bool {
        let tag = gva & !(PAGE_SIZE - 1);
        let entry = &mut self.entries[table * ENTRIES + index(gva)];
        if [entry.load, entry.store, entry.fetch].contains(&tag) {
            *entry = EMPTY;
        }
        // A flush of any address inside a large page drops all of it.
        let info = &mut self.tables[table];
        let mut any = info.spilled;
        for slot in &mut info.large {
            if slot.is_some_and(|large| large.covers(gva)) {
                *slot = None;
                any = true;
            }
        }
        if any {
            self.clear_large(table, gva);
        }
        any
    }

    /// Drops the entries that are part of a large translation which covers `gva`.
    fn clear_large(&mut self, table: usize, gva: u64) {
        for at in self.tables[table].ranges().flatten() {
            let at = table * ENTRIES + at;
            let entry = &mut self.entries[at];
            let shift = self.gpas[at] & SHIFT_BITS;
            let tag = [entry.load, entry.store, entry.fetch].into_iter().find(|tag| *tag != INVALID);
            if tag.is_some_and(|tag| tag >> shift == gva >> shift) {
                *entry = EMPTY;
            }
        }
    }

    /// Remembers a walk's answer. `host` is the host address of the granule if it is RAM; `writable` says whether
    /// stores may bypass the slow path (they may not where translated code is).
    pub(crate) fn fill(&mut self, gva: u64, mmu: u8, page: &Page, host: Option<u64>, writable: bool) {
        if u32::from(page.shift) < PAGE_SHIFT {
            return;
        }
        let number = self.table_number(mmu);
        let table = &mut self.tables[number];
        table.used = true;
        if u32::from(page.shift) > PAGE_SHIFT && !table.large.iter().flatten().any(|large| large.covers(gva))
        {
            table.spilled |= table.large[table.next_large].is_some();
            table.large[table.next_large] = Some(Large { tag: gva, page: *page });
            table.next_large = (table.next_large + 1) % LARGE;
        }
        let Some(host) = host else { return };
        let tag = gva & !(PAGE_SIZE - 1);
        let allow = |yes: bool| if yes { tag } else { INVALID };
        table.groups |= 1 << (index(gva) / GROUP);
        let at = number * ENTRIES + index(gva);
        self.gpas[at] = page.gpa.page_base().0 | u64::from(page.shift);
        self.entries[at] = Entry {
            load: allow(page.load),
            store: allow(page.store && writable),
            fetch: allow(page.fetch),
            addend: host.wrapping_sub(tag),
        };
    }

    /// The guest-physical granule of a valid entry.
    pub(crate) fn gpa(&self, gva: u64, mmu: u8) -> Gpa {
        Gpa(self.gpas[self.table_number(mmu) * ENTRIES + index(gva)]).page_base()
    }

    /// A remembered large translation that covers `gva`, moved to its granule.
    pub(crate) fn large(&self, gva: u64, mmu: u8) -> Option<Page> {
        let table = &self.tables[self.table_number(mmu)];
        let large = table.large.iter().flatten().find(|large| large.covers(gva))?;
        let delta = (gva & !(PAGE_SIZE - 1)).wrapping_sub(large.tag & !(PAGE_SIZE - 1));
        Some(Page { gpa: Gpa(large.page.gpa.0.wrapping_add(delta)), ..large.page })
    }

    /// Drops a large translation whose permissions were not enough, so that the next fill replaces it.
    pub(crate) fn forget_large(&mut self, gva: u64, mmu: u8) {
        let number = self.table_number(mmu);
        let info = &mut self.tables[number];
        for slot in info.large.iter_mut().filter(|slot| slot.is_some_and(|large| large.covers(gva))) {
            *slot = None;
            info.spilled = true;
        }
    }

    /// Makes stores to the granule at `gpa` take the slow path from now on, in every set.
    pub(crate) fn protect(&mut self, gpa: Gpa) {
        let base = gpa.page_base().0;
        for table in (0..self.tables.len()).filter(|&table| self.tables[table].used) {
            for at in self.tables[table].ranges().flatten() {
                let at = table * ENTRIES + at;
                if self.gpas[at] & !SHIFT_BITS == base {
                    self.entries[at].store = INVALID;
                }
            }
        }
    }

    /// Switches to the set of address space `id`, evicting the one unused for longest if it has none.
    pub(crate) fn set_address_space(&mut self, id: u64) {
        self.clock += 1;
        self.sets[self.current].last_used = self.clock;
        let found = self.sets.iter().position(|set| set.address_space == Some(id));
        let chosen = found.unwrap_or_else(|| {
            let oldest = (0..SETS).min_by_key(|&set| self.sets[set].last_used).unwrap_or(0);
            self.clear_set(oldest);
            self.sets[oldest].address_space = Some(id);
            self.renew(oldest);
            oldest
        });
        self.current = chosen;
        self.base = chosen * self.regimes * ENTRIES;
    }

    /// Drops translations, and with them the generation of every set concerned, unless it is a few small pages only
    /// ([`few_pages`]).
    pub(crate) fn flush(&mut self, what: TlbFlush) {
        let few = few_pages(what);
        for set in 0..SETS {
            if what.address_space.is_some_and(|id| self.sets[set].address_space != Some(id)) {
                continue;
            }
            match few {
                Some((gva, pages)) => {
                    if let Some(jumps) = &mut self.jumps {
                        for page in 0..pages {
                            let at = jump_index(gva.wrapping_add(page << PAGE_SHIFT));
                            jumps.suspend_group(set, at / JUMPS_PER_PAGE);
                        }
                    }
                    let mut large = false;
                    for table in set * self.regimes..(set + 1) * self.regimes {
                        if self.tables[table].used {
                            (0..pages).for_each(|page| {
                                large |= self.clear_page(table, gva.wrapping_add(page << PAGE_SHIFT));
                            });
                        }
                    }
                    // The jump cache's entries for these pages are dropped one by one, but who knows all of a large one's?
                    if !large {
                        continue;
                    }
                    if let Some(jumps) = &mut self.jumps {
                        jumps.suspend_set(set);
                    }
                }
                _ => self.clear_set(set),
            }
            self.renew(set);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_core::Gva;

    fn page(gpa: u64, shift: u8) -> Page {
        Page { gpa: Gpa(gpa), shift, load: true, store: true, fetch: false, global: false }
    }

    #[test]
    fn nothing_matches_an_invalid_tag() {
        let mut tlb = Tlb::new(1);
        for gva in 0..PAGE_SIZE {
            // As the interpreter compares (`Env::read_hit`).
            for size in [1, 2, 4, 8, 16] {
                assert_ne!(
                    gva & (!(PAGE_SIZE - 1) | (size - 1)),
                    tlb.entry(gva, 0).load,
                    "{size} bytes at {gva}"
                );
            }
        }
        // The entry's address is that of another page which may be read only.
        tlb.fill(0x10_0000, 0, &Page { store: false, ..page(0x8000, 12) }, Some(0x10_0000), true);
        assert!((0..16).all(|gva: u64| {
            (0..4).all(|log| gva & (!(PAGE_SIZE - 1) | ((1 << log) - 1)) != tlb.entry(gva, 0).store)
        }));
    }

    #[test]
    fn spaces_keep_their_own_translations() {
        let mut tlb = Tlb::new(2);
        tlb.fill(0x1234, 1, &page(0x8000, 12), Some(0x10_0000), true);
        assert_eq!(tlb.entry(0x1abc, 1).load, 0x1000);
        assert_eq!(tlb.entry(0x1abc, 1).fetch, INVALID);
        assert_eq!(0x1abc_u64.wrapping_add(tlb.entry(0x1abc, 1).addend), 0x10_0abc);
        assert_eq!(tlb.entry(0x1abc, 0).load, INVALID);
        let first = tlb.generation();
        tlb.set_address_space(7);
        assert_ne!(tlb.generation(), first);
        assert_eq!(tlb.entry(0x1abc, 1).load, INVALID);
        tlb.set_address_space(0);
        assert_eq!((tlb.entry(0x1abc, 1).load, tlb.generation()), (0x1000, first));
        (100..110).for_each(|id| tlb.set_address_space(id));
        tlb.set_address_space(0);
        assert_eq!(tlb.entry(0x1abc, 1).load, INVALID);
    }

    #[test]
    fn a_flush_inside_a_large_page_drops_all_of_it() {
        let mut tlb = Tlb::new(1);
        tlb.fill(0x40_1000, 0, &page(0x20_1000, 21), Some(0x10_0000), true);
        assert_eq!(tlb.large(0x5f_f123, 0).map(|p| p.gpa), Some(Gpa(0x3f_f000)));
        assert_eq!(tlb.large(0x60_0000, 0), None);
        tlb.flush(TlbFlush { gva: Some(Gva(0x5f_0000)), ..TlbFlush::default() });
        assert_eq!(tlb.large(0x5f_f123, 0), None);
        assert_eq!(tlb.entry(0x40_1000, 0).load, INVALID);
    }

    #[test]
    fn protection_takes_stores_off_the_fast_path_everywhere() {
        let mut tlb = Tlb::new(1);
        tlb.fill(0x1000, 0, &page(0x8000, 12), Some(0), true);
        tlb.set_address_space(3);
        tlb.fill(0x5000, 0, &page(0x8000, 12), Some(0), true);
        tlb.protect(Gpa(0x8010));
        assert_eq!((tlb.entry(0x5000, 0).load, tlb.entry(0x5000, 0).store), (0x5000, INVALID));
        tlb.set_address_space(0);
        assert_eq!((tlb.entry(0x1000, 0).load, tlb.entry(0x1000, 0).store), (0x1000, INVALID));
    }

    #[test]
    fn translations_below_a_granule_are_not_kept() {
        let mut tlb = Tlb::new(1);
        tlb.fill(0x1000, 0, &page(0x8000, 4), Some(0), true);
        assert_eq!(tlb.entry(0x1000, 0).load, INVALID);
    }

    #[test]
    fn switching_never_evicts_the_current_space_while_others_are_free() {
        let mut tlb = Tlb::new(1);
        for id in [5, 6, 7] {
            tlb.fill(0x1000, 0, &page(0x8000, 12), Some(0), true);
            tlb.set_address_space(id);
        }
        tlb.fill(0x1000, 0, &page(0x8000, 12), Some(0), true);
        for id in [0, 5, 6, 7, 0] {
            tlb.set_address_space(id);
            assert_eq!(tlb.entry(0x1000, 0).load, 0x1000, "space {id}");
        }
        // A fifth takes the place of the one that was left first: 5.
        tlb.set_address_space(8);
        tlb.set_address_space(0);
        assert_eq!(tlb.entry(0x1000, 0).load, 0x1000);
        tlb.set_address_space(5);
        assert_eq!(tlb.entry(0x1000, 0).load, INVALID);
    }

    #[test]
    fn a_flush_drops_large_pages_that_are_remembered_no_more() {
        let mut tlb = Tlb::new(1);
        // More large pages than are remembered, each at a granule of its own place in the table.
        for n in 0..=LARGE as u64 {
            tlb.fill(n << 21 | n << 12, 0, &page(n << 21 | n << 12, 21), Some(0), true);
        }
        assert_eq!((tlb.large(0, 0), tlb.entry(0, 0).load), (None, 0));
        tlb.flush(TlbFlush { gva: Some(Gva(0x1f_f000)), ..TlbFlush::default() });
        assert_eq!(tlb.entry(0, 0).load, INVALID);
        assert_eq!(tlb.entry(1 << 21 | 1 << 12, 0).load, 1 << 21 | 1 << 12);

        // Forgotten for want of permissions, and found smaller afterwards.
        let mut tlb = Tlb::new(1);
        tlb.fill(0x40_1000, 0, &page(0x20_1000, 21), Some(0), true);
        tlb.forget_large(0x40_2000, 0);
        tlb.fill(0x40_2000, 0, &page(0x20_2000, 12), Some(0), true);
        tlb.flush(TlbFlush { gva: Some(Gva(0x40_2000)), ..TlbFlush::default() });
        assert_eq!(tlb.entry(0x40_1000, 0).load, INVALID);
    }

    #[test]
    fn a_flush_covers_every_page_its_bytes_touch() {
        let mut tlb = Tlb::new(1);
        for gva in [0x1000, 0x2000, 0x3000] {
            tlb.fill(gva, 0, &page(0x8000, 12), Some(0), true);
        }
        tlb.flush(TlbFlush { gva: Some(Gva(0x1800)), len: PAGE_SIZE, address_space: None });
        assert_eq!([0x1000, 0x2000, 0x3000].map(|gva| tlb.entry(gva, 0).load), [INVALID, INVALID, 0x3000]);
        tlb.flush(TlbFlush { gva: Some(Gva(u64::MAX)), len: u64::MAX, address_space: None });
        assert_eq!(tlb.entry(0x3000, 0).load, INVALID);
        tlb.fill(0, 0, &page(0x8000, 12), Some(0), true);
        tlb.flush(TlbFlush { gva: Some(Gva(u64::MAX)), len: 2, address_space: None });
        assert_eq!(tlb.entry(0, 0).load, INVALID);
    }

    #[test]
    fn generations_stay_unique_when_they_start_over() {
        let mut tlb = Tlb::new(1);
        tlb.set_address_space(1);
        tlb.next_generation = u32::MAX;
        tlb.sets[0].generation = 3;
        tlb.flush(TlbFlush { address_space: Some(1), ..TlbFlush::default() });
        assert!(tlb.take_started_over() && !tlb.take_started_over());
        let mut generations = [0, 1, 2, 3].map(|set| tlb.sets[set].generation);
        generations.sort_unstable();
        assert!(
            generations.windows(2).all(|pair| pair[0] != pair[1]) && tlb.next_generation > generations[3]
        );
    }
}
