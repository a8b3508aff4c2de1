//! The software TLB: direct-mapped tables at fixed places, one set an address space, so that a context switch
//! swaps an index and a one-page flush touches one entry.
//!
//! Regimes that a guest names in [`isomer_ir::Guest::SHARED_MMUS`] have one table for all address spaces: a kernel's
//! mappings are global. What is not global there (user memory that the kernel touches) is listed and dropped with every
//! switch. An entry that gives way to another keeps a second place, where only misses look: two pages that are used in turn
//! and fall on one entry are common enough. A guest whose kernel is not global after all (page-table isolation) shows by fetching through such a mapping,
//! and its regime gets a table a set like the others, for good.

use crate::jumps::Jumps;
use isomer_core::{Gpa, PAGE_SHIFT, PAGE_SIZE};
use isomer_ir::{Access, Page, guest::TlbFlush};
use isomer_jit::abi::{
    JumpEntry, TLB_ENTRIES as ENTRIES, TLB_INVALID as INVALID, TLB_TABLES, TlbEntry as Entry,
    tlb_index as index,
};
use rustc_hash::FxHashSet;

/// Address spaces kept at once: with fewer than take turns, each of them starts anew at each of its turns.
const SETS: usize = 16;
/// The set that stands for what all address spaces share: it has a generation and a jump cache.
const SHARED: usize = SETS;
/// Entries that are not global which a shared table lists; with more it is searched.
const LOCALS: usize = 64;
/// Large translations remembered a regime, so that a miss inside one needs no walk.
const LARGE: usize = 8;

/// The first address and the number of the pages to flush, if they are so few that each is worth a look.
pub(crate) fn few_pages(what: TlbFlush) -> Option<(u64, u64)> {
    let gva = what.gva?;
    let pages = what.len.saturating_add(gva.page_offset()).div_ceil(PAGE_SIZE).max(1);
    (pages <= 64).then_some((gva.0, pages))
}

/// The second place of what belongs to entry `index` of its table.
const fn second_place(index: usize) -> usize {
    index ^ (ENTRIES / 2)
}

/// Might the page of `gva` stand where compiled code looks for the page before it? Of an access that may cross that compares the
/// last byte's page only, on the grounds that this page is elsewhere. True at multiples of 1 GiB.
const fn stands_before_itself(gva: u64) -> bool {
    (index(gva) ^ index(gva.wrapping_sub(PAGE_SIZE))) & (ENTRIES / 2 - 1) == 0
}

/// What the page of an access has to be for an entry to allow it.
const fn tag(entry: &Entry, access: Access) -> u64 {
    match access {
        Access::Load => entry.load,
        Access::Store => entry.store,
        Access::Fetch => entry.fetch,
    }
}

/// The page that an entry is of, if any.
fn page_of(entry: &Entry) -> Option<u64> {
    [entry.load, entry.store, entry.fetch].into_iter().find(|tag| *tag != INVALID)
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

/// Large translations that are remembered to have been in use; with more, any address may be part of one.
const LARGE_SEEN: usize = 4096;

/// Which large translations entries were made from, as far back as the table was cleared last.
#[derive(Clone, Default)]
struct LargeSeen {
    /// Address without its low bits, size.
    pages: FxHashSet<(u64, u8)>,
    /// The sizes there are, a bit each.
    shifts: u64,
    many: bool,
}

impl LargeSeen {
    fn note(&mut self, gva: u64, shift: u8) {
        let shift = shift & 63;
        self.shifts |= 1 << shift;
        match self.pages.len() < LARGE_SEEN {
            true => drop(self.pages.insert((gva >> shift, shift))),
            false => self.many = true,
        }
    }

    fn may_cover(&self, gva: u64) -> bool {
        let mut shifts = self.shifts;
        while shifts != 0 {
            let shift = shifts.trailing_zeros() as u8;
            shifts &= shifts - 1;
            if self.many || self.pages.contains(&(gva >> shift, shift)) {
                return true;
            }
        }
        false
    }
}

/// What a table knows besides its entries.
#[derive(Clone, Default)]
struct TableInfo {
    large: [Option<Large>; LARGE],
    next_large: usize,
    large_seen: LargeSeen,
    /// Entries that are not global, where the table is shared.
    locals: Vec<u16>,
    /// There are more of them than listed.
    more_locals: bool,
    /// Its entries are entries, and not yet memory that nobody has touched.
    made: bool,
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

/// Addresses of tables.
struct Tables([*const Entry; TLB_TABLES]);

// SAFETY: they are in the TLB's own allocation, which moves with it.
#[allow(unsafe_code)]
unsafe impl Send for Tables {}

/// One vCPU's TLB: `SETS` sets of one table a regime, all tables in one allocation. A table takes memory from the host
/// when it is used first.
pub(crate) struct Tlb {
    jumps: Option<Jumps>,
    entries: Box<[Entry]>,
    /// Guest-physical granule of each entry, and in its low bits log2 of the size of the translation it is part of.
    /// Apart because only protection and flushes look at it.
    gpas: Box<[u64]>,
    tables: Box<[TableInfo]>,
    sets: [Set; SETS + 1],
    regimes: usize,
    current: usize,
    /// Regimes with one table for all sets, a bit each.
    shared: u64,
    /// Index of the first entry of each regime's present table.
    bases: [usize; TLB_TABLES],
    /// The same for compiled code.
    tables_at: Tables,
    /// The set that fetches use: the current one, or [`SHARED`].
    fetch_set: usize,
    clock: u64,
    next_generation: u32,
    /// Generations started over: what is tagged with one from before must go.
    started_over: bool,
}

/// The part of a `gpas` word that is not the granule: the translation's size, and whether it is global.
const LOW_BITS: u64 = PAGE_SIZE - 1;
const SHIFT_BITS: u64 = 63;
const GLOBAL: u64 = 64;
const NO_GPA: u64 = !LOW_BITS;

/// Memory for entries that is taken from the host only where it is used. They are not empty: zeros are page 0's.
#[allow(unsafe_code)]
fn no_entries(len: usize) -> Box<[Entry]> {
    // SAFETY: `Entry` is numbers, which may be zero.
    unsafe { Box::new_zeroed_slice(len).assume_init() }
}

impl Tlb {
    pub(crate) fn new(regimes: usize, shared: u64) -> Self {
        assert!(regimes <= TLB_TABLES, "compiled code names at most {TLB_TABLES} regimes");
        let set =
            |i: usize| Set { address_space: (i == 0).then_some(0), last_used: 0, generation: i as u32 + 1 };
        let mut tlb = Self {
            jumps: None,
            entries: no_entries(SETS * regimes * ENTRIES),
            gpas: vec![0; SETS * regimes * ENTRIES].into_boxed_slice(),
            tables: vec![TableInfo::default(); SETS * regimes].into_boxed_slice(),
            sets: std::array::from_fn(set),
            regimes,
            current: 0,
            shared,
            bases: [0; TLB_TABLES],
            tables_at: Tables([std::ptr::null(); TLB_TABLES]),
            fetch_set: 0,
            clock: 0,
            next_generation: SETS as u32 + 2,
            started_over: false,
        };
        tlb.find_bases();
        tlb
    }

    /// The entry for `gva` in regime `mmu`.
    #[inline(always)]
    pub(crate) fn entry(&self, gva: u64, mmu: u8) -> &Entry {
        &self.entries[self.bases[usize::from(mmu)] + index(gva)]
    }

    /// The present table of each regime.
    pub(crate) fn tables(&self) -> &[*const Entry; TLB_TABLES] {
        &self.tables_at.0
    }

    fn is_shared(&self, mmu: usize) -> bool {
        self.shared >> mmu & 1 != 0
    }

    fn find_bases(&mut self) {
        for mmu in 0..self.regimes {
            let table = self.table_number(mmu as u8);
            self.bases[mmu] = table * ENTRIES;
            if !std::mem::replace(&mut self.tables[table].made, true) {
                let entries = table * ENTRIES..(table + 1) * ENTRIES;
                self.entries[entries.clone()].fill(EMPTY);
                self.gpas[entries].fill(NO_GPA);
            }
            self.tables_at.0[mmu] = &raw const self.entries[self.bases[mmu]];
        }
    }

    /// Code is fetched through regime `mmu` from now on.
    #[inline]
    pub(crate) fn fetch_through(&mut self, mmu: u8) {
        self.fetch_set = if self.is_shared(usize::from(mmu)) { SHARED } else { self.current };
    }

    /// Makes the jump caches of compiled code.
    pub(crate) fn use_jumps(&mut self) {
        self.jumps = Some(Jumps::new(SETS + 1));
    }

    /// The jump cache of what runs, with its mask; null if there are none.
    pub(crate) fn jumps(&self) -> (*const JumpEntry, u64) {
        self.jumps.as_ref().map_or((std::ptr::null(), 0), |jumps| jumps.entries(self.fetch_set))
    }

    /// Does compiled code find `entry` for `pc` at the first look?
    pub(crate) fn has_jump(&self, pc: u64, mode: u32, entry: *const u8) -> bool {
        self.jumps.as_ref().is_some_and(|jumps| jumps.has(self.fetch_set, pc, mode, entry))
    }

    /// Remembers compiled code for `pc`, which is at `gpa`, in the current address space.
    pub(crate) fn insert_jump(&mut self, pc: u64, gpa: Gpa, mode: u32, entry: *const u8) {
        if let Some(jumps) = &mut self.jumps {
            jumps.insert(self.fetch_set, pc, gpa, mode, entry);
        }
    }

    /// The same for code of an instruction that crosses into the page at `second`.
    pub(crate) fn insert_crossing_jump(&mut self, pc: u64, pages: (Gpa, Gpa), mode: u32, entry: *const u8) {
        if let Some(jumps) = &mut self.jumps {
            jumps.insert_crossing(self.fetch_set, pc, pages, mode, entry);
        }
    }

    /// Forgets compiled code that crosses into `granule`.
    pub(crate) fn forget_crossing_jumps(&mut self, granule: u64) {
        if let Some(jumps) = &mut self.jumps {
            jumps.forget_crossing(granule);
        }
    }

    /// Is nothing known, or nothing for certain, of compiled code in the page of `pc`?
    pub(crate) fn knows_no_jumps(&self, pc: u64) -> bool {
        self.jumps.as_ref().is_some_and(|jumps| !jumps.knows(self.fetch_set, pc))
    }

    /// What was known of compiled code in the page of `pc`, which is at `gpa`, holds again; false if nothing was.
    pub(crate) fn resume_jumps(&mut self, pc: u64, gpa: Gpa) -> bool {
        let set = self.fetch_set;
        self.jumps.as_mut().is_some_and(|jumps| jumps.resume(set, pc, gpa))
    }

    /// Forgets compiled code of `granule` in a virtual page: it is about to go.
    pub(crate) fn forget_jumps(&mut self, granule: u64, page: u64) {
        if let Some(jumps) = &mut self.jumps {
            (0..=SHARED).for_each(|set| jumps.forget(set, granule, page));
        }
    }

    /// Forgets where compiled code is: some is about to go.
    pub(crate) fn clear_jumps(&mut self) {
        if let Some(jumps) = &mut self.jumps {
            (0..=SHARED).for_each(|set| jumps.clear(set));
        }
    }

    /// A number that names the set that fetches use and its contents' age.
    #[inline(always)]
    pub(crate) fn generation(&self) -> u32 {
        self.sets[self.fetch_set].generation
    }

    fn table_number(&self, mmu: u8) -> usize {
        let set = if self.is_shared(usize::from(mmu)) { 0 } else { self.current };
        set * self.regimes + usize::from(mmu)
    }

    /// The tables of a set that are its own; of [`SHARED`], those that all sets share.
    fn tables_of(&self, set: usize) -> impl Iterator<Item = usize> + use<> {
        let (regimes, shared) = (self.regimes, self.shared);
        let wanted = move |mmu: &usize| (shared >> mmu & 1 != 0) == (set == SHARED);
        let first = if set == SHARED { 0 } else { set * regimes };
        (0..regimes).filter(wanted).map(move |mmu| first + mmu)
    }

    fn renew(&mut self, set: usize) {
        if self.next_generation == u32::MAX {
            self.started_over = true;
            for (set, generation) in self.sets.iter_mut().zip(1..) {
                set.generation = generation;
            }
            self.next_generation = SETS as u32 + 2;
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
            self.tables[table] = TableInfo { made: true, ..TableInfo::default() };
        }
    }

    fn clear_set(&mut self, set: usize) {
        if let Some(jumps) = &mut self.jumps {
            jumps.suspend_set(set);
        }
        self.tables_of(set).for_each(|table| self.clear_table(table));
    }

    /// Drops what is not global from the shared tables: it belongs to the present address space.
    fn clear_locals(&mut self) {
        for table in self.tables_of(SHARED) {
            let info = &mut self.tables[table];
            for slot in &mut info.large {
                if slot.is_some_and(|large| !large.page.global) {
                    *slot = None;
                }
            }
            let locals = std::mem::take(&mut info.locals);
            if std::mem::take(&mut info.more_locals) {
                for at in self.tables[table].ranges().flatten() {
                    self.clear_local(table * ENTRIES + at);
                }
            }
            locals.iter().for_each(|&at| self.clear_local(table * ENTRIES + usize::from(at)));
            // Keeps its memory.
            self.tables[table].locals = locals;
            self.tables[table].locals.clear();
        }
    }

    fn clear_local(&mut self, at: usize) {
        if self.gpas[at] & GLOBAL == 0 {
            self.entries[at] = EMPTY;
        }
    }

    /// Regime `mmu` fetches through a mapping that is not global: it gets a table a set.
    fn unshare(&mut self, mmu: u8) {
        self.clear_table(usize::from(mmu));
        if let Some(jumps) = &mut self.jumps {
            jumps.suspend_set(SHARED);
        }
        self.renew(SHARED);
        self.shared &= !(1 << mmu);
        self.find_bases();
    }

    /// Drops the entry of one page, and of the larger one it is part of: true if there may be one.
    fn clear_page(&mut self, table: usize, gva: u64) -> bool {
        let tag = gva & !(PAGE_SIZE - 1);
        for at in [index(gva), second_place(index(gva))] {
            let entry = &mut self.entries[table * ENTRIES + at];
            if page_of(entry) == Some(tag) {
                *entry = EMPTY;
            }
        }
        // A flush of any address inside a large page drops all of it.
        let info = &mut self.tables[table];
        if !info.large_seen.may_cover(gva) {
            return false;
        }
        for slot in &mut info.large {
            if slot.is_some_and(|large| large.covers(gva)) {
                *slot = None;
            }
        }
        self.clear_large(table, gva);
        true
    }

    /// Drops the entries that are part of a large translation which covers `gva`.
    fn clear_large(&mut self, table: usize, gva: u64) {
        for at in self.tables[table].ranges().flatten() {
            let at = table * ENTRIES + at;
            let entry = &mut self.entries[at];
            let shift = self.gpas[at] & SHIFT_BITS;
            if page_of(entry).is_some_and(|tag| tag >> shift == gva >> shift) {
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
        if page.fetch && !page.global && self.is_shared(usize::from(mmu)) {
            self.unshare(mmu);
        }
        let number = self.table_number(mmu);
        let table = &mut self.tables[number];
        table.used = true;
        if u32::from(page.shift) > PAGE_SHIFT {
            table.large_seen.note(gva, page.shift);
            if !table.large.iter().flatten().any(|large| large.covers(gva)) {
                table.large[table.next_large] = Some(Large { tag: gva, page: *page });
                table.next_large = (table.next_large + 1) % LARGE;
            }
        }
        let Some(host) = host else { return };
        let tag = gva & !(PAGE_SIZE - 1);
        let allow = |yes: bool| if yes { tag } else { INVALID };
        // Such a page is always looked up.
        let data = !stands_before_itself(gva);
        let place = index(gva);
        let [at, second] = [place, second_place(place)].map(|place| number * ENTRIES + place);
        match page_of(&self.entries[at]) {
            Some(old) if old != tag => {
                self.entries[second] = self.entries[at];
                self.gpas[second] = self.gpas[at];
                self.note_entry(number, second_place(place));
            }
            _ if page_of(&self.entries[second]) == Some(tag) => self.entries[second] = EMPTY,
            _ => {}
        }
        let global = if page.global { GLOBAL } else { 0 };
        self.gpas[at] = page.gpa.page_base().0 | u64::from(page.shift) | global;
        self.entries[at] = Entry {
            load: allow(page.load && data),
            store: allow(page.store && writable && data),
            fetch: allow(page.fetch),
            addend: host.wrapping_sub(tag),
        };
        self.note_entry(number, place);
    }

    /// There is something new at `place` of a table.
    fn note_entry(&mut self, number: usize, place: usize) {
        let local = self.gpas[number * ENTRIES + place] & GLOBAL == 0;
        let shared = self.is_shared(number % self.regimes);
        let table = &mut self.tables[number];
        table.groups |= 1 << (place / GROUP);
        if local && shared {
            match table.locals.len() < LOCALS {
                true => table.locals.push(place as u16),
                false => table.more_locals = true,
            }
        }
    }

    /// Is there an entry that allows an access to `gva`? It is in its first place afterwards.
    pub(crate) fn allows(&mut self, gva: u64, mmu: u8, access: Access) -> bool {
        tag(self.entry(gva, mmu), access) == gva & !(PAGE_SIZE - 1) || self.recall(gva, mmu, access)
    }

    /// Looks for what allows an access to `gva` in its second place; if it is there, it is in the first one afterwards.
    fn recall(&mut self, gva: u64, mmu: u8, access: Access) -> bool {
        let (number, place) = (self.table_number(mmu), index(gva));
        let [at, second] = [place, second_place(place)].map(|place| number * ENTRIES + place);
        let found = tag(&self.entries[second], access) == gva & !(PAGE_SIZE - 1);
        if found {
            self.entries.swap(at, second);
            self.gpas.swap(at, second);
            self.note_entry(number, place);
            self.note_entry(number, second_place(place));
        }
        found
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
        }
    }

    /// Makes stores to the granule at `gpa` take the slow path from now on, in every set.
    pub(crate) fn protect(&mut self, gpa: Gpa) {
        let base = gpa.page_base().0;
        for table in (0..self.tables.len()).filter(|&table| self.tables[table].used) {
            for at in self.tables[table].ranges().flatten() {
                let at = table * ENTRIES + at;
                if self.gpas[at] & !LOW_BITS == base {
                    self.entries[at].store = INVALID;
                }
            }
        }
    }

    /// Switches to the set of address space `id`, evicting the one unused for longest if it has none.
    pub(crate) fn set_address_space(&mut self, id: u64) {
        if self.sets[self.current].address_space == Some(id) {
            return;
        }
        self.clear_locals();
        self.clock += 1;
        self.sets[self.current].last_used = self.clock;
        let found = self.sets[..SETS].iter().position(|set| set.address_space == Some(id));
        let chosen = found.unwrap_or_else(|| {
            let oldest = (0..SETS).min_by_key(|&set| self.sets[set].last_used).unwrap_or(0);
            self.clear_set(oldest);
            self.sets[oldest].address_space = Some(id);
            self.renew(oldest);
            oldest
        });
        if self.fetch_set == self.current {
            self.fetch_set = chosen;
        }
        self.current = chosen;
        self.find_bases();
    }

    /// Drops translations, and with them the generation of every set concerned, unless it is a few small pages only
    /// ([`few_pages`]). Global ones go only where no address space is named.
    pub(crate) fn flush(&mut self, what: TlbFlush) {
        let few = few_pages(what);
        for set in 0..=SHARED {
            let concerned = match what.address_space {
                None => true,
                Some(_) if set == SHARED => false,
                Some(id) => self.sets[set].address_space == Some(id),
            };
            if !concerned {
                continue;
            }
            if what.address_space.is_some() && set == self.current {
                // All there are, since few are: it takes no longer to drop them than to look for some.
                self.clear_locals();
            }
            match few {
                Some((gva, pages)) if !self.flush_pages(set, gva, pages) => {}
                Some(_) => self.renew(set),
                None => {
                    self.clear_set(set);
                    self.renew(set);
                }
            }
        }
    }

    /// Drops some pages of a set; true if a large one may have been among them: then who knows all the jumps into it?
    fn flush_pages(&mut self, set: usize, gva: u64, pages: u64) -> bool {
        if let Some(jumps) = &mut self.jumps {
            (0..pages).for_each(|page| jumps.suspend_page(set, gva.wrapping_add(page << PAGE_SHIFT)));
        }
        let mut large = false;
        for table in self.tables_of(set) {
            if self.tables[table].used {
                (0..pages).for_each(|page| {
                    large |= self.clear_page(table, gva.wrapping_add(page << PAGE_SHIFT));
                });
            }
        }
        if large && let Some(jumps) = &mut self.jumps {
            jumps.suspend_set(set);
        }
        large
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
    fn what_gives_way_keeps_a_second_place() {
        let mut tlb = Tlb::new(1, 0);
        let first = 0x40_0000;
        let rival = (1..).map(|n| first + n * PAGE_SIZE).find(|&gva| index(gva) == index(first)).unwrap();
        let fill = |tlb: &mut Tlb, gva| tlb.fill(gva, 0, &page(gva, 12), Some(gva), true);
        fill(&mut tlb, first);
        fill(&mut tlb, rival);
        for gva in [first, rival, first] {
            assert!(tlb.entry(gva, 0).load != gva && tlb.recall(gva, 0, Access::Load));
            assert!(tlb.entry(gva, 0).load == gva && tlb.gpa(gva, 0) == Gpa(gva));
            assert!(!tlb.recall(gva, 0, Access::Load));
        }
        // As code is translated there.
        tlb.protect(Gpa(rival));
        assert!(!tlb.recall(rival, 0, Access::Store) && tlb.recall(rival, 0, Access::Load));
        for gva in [first, rival] {
            tlb.flush(TlbFlush { gva: Some(Gva(gva)), len: PAGE_SIZE, address_space: None });
            assert!(tlb.entry(gva, 0).load != gva && !tlb.recall(gva, 0, Access::Load));
        }
    }

    /// As compiled code compares: the entry of the first byte's page with the page of the last byte.
    #[test]
    fn an_access_that_crosses_never_hits() {
        let multiples = (12..64).flat_map(|shift| [1_u64, 3, 5].map(|n| n.wrapping_shl(shift)));
        for gva in multiples.chain([0]) {
            let before = gva.wrapping_sub(PAGE_SIZE);
            for order in [[gva, before, gva], [before, gva, before]] {
                let mut tlb = Tlb::new(1, 0);
                for used in order {
                    if !tlb.recall(used, 0, Access::Load) {
                        tlb.fill(used, 0, &page(used, 12), Some(used), true);
                    }
                    let entry = tlb.entry(before, 0);
                    assert!(entry.load != gva && entry.store != gva, "{gva:#x}");
                }
            }
        }
    }

    #[test]
    fn nothing_matches_an_invalid_tag() {
        let mut tlb = Tlb::new(1, 0);
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
        let mut tlb = Tlb::new(2, 0);
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
        (100..101 + SETS as u64).for_each(|id| tlb.set_address_space(id));
        tlb.set_address_space(0);
        assert_eq!(tlb.entry(0x1abc, 1).load, INVALID);
    }

    #[test]
    fn a_flush_inside_a_large_page_drops_all_of_it() {
        let mut tlb = Tlb::new(1, 0);
        tlb.fill(0x40_1000, 0, &page(0x20_1000, 21), Some(0x10_0000), true);
        assert_eq!(tlb.large(0x5f_f123, 0).map(|p| p.gpa), Some(Gpa(0x3f_f000)));
        assert_eq!(tlb.large(0x60_0000, 0), None);
        tlb.flush(TlbFlush { gva: Some(Gva(0x5f_0000)), ..TlbFlush::default() });
        assert_eq!(tlb.large(0x5f_f123, 0), None);
        assert_eq!(tlb.entry(0x40_1000, 0).load, INVALID);
    }

    #[test]
    fn protection_takes_stores_off_the_fast_path_everywhere() {
        let mut tlb = Tlb::new(1, 0);
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
        let mut tlb = Tlb::new(1, 0);
        tlb.fill(0x1000, 0, &page(0x8000, 4), Some(0), true);
        assert_eq!(tlb.entry(0x1000, 0).load, INVALID);
    }

    #[test]
    fn switching_never_evicts_the_current_space_while_others_are_free() {
        let mut tlb = Tlb::new(1, 0);
        let others = 5..4 + SETS as u64;
        for id in others.clone() {
            tlb.fill(0x1000, 0, &page(0x8000, 12), Some(0), true);
            tlb.set_address_space(id);
        }
        tlb.fill(0x1000, 0, &page(0x8000, 12), Some(0), true);
        for id in [0].into_iter().chain(others).chain([0]) {
            tlb.set_address_space(id);
            assert_eq!(tlb.entry(0x1000, 0).load, 0x1000, "space {id}");
        }
        // One more takes the place of the one that was left first: 5.
        tlb.set_address_space(1000);
        tlb.set_address_space(0);
        assert_eq!(tlb.entry(0x1000, 0).load, 0x1000);
        tlb.set_address_space(5);
        assert_eq!(tlb.entry(0x1000, 0).load, INVALID);
    }

    #[test]
    fn a_flush_drops_large_pages_that_are_remembered_no_more() {
        let mut tlb = Tlb::new(1, 0);
        // More large pages than are remembered, each at a granule of its own place in the table.
        let at = |n: u64| (n + 1) << 21 | n << 12;
        for n in 0..=LARGE as u64 {
            tlb.fill(at(n), 0, &page(at(n), 21), Some(0), true);
        }
        assert_eq!((tlb.large(at(0), 0), tlb.entry(at(0), 0).load), (None, at(0)));
        tlb.flush(TlbFlush { gva: Some(Gva(0x3f_f000)), ..TlbFlush::default() });
        assert_eq!(tlb.entry(at(0), 0).load, INVALID);
        assert_eq!(tlb.entry(at(1), 0).load, at(1));

        // Forgotten for want of permissions, and found smaller afterwards.
        let mut tlb = Tlb::new(1, 0);
        tlb.fill(0x40_1000, 0, &page(0x20_1000, 21), Some(0), true);
        tlb.forget_large(0x40_2000, 0);
        tlb.fill(0x40_2000, 0, &page(0x20_2000, 12), Some(0), true);
        tlb.flush(TlbFlush { gva: Some(Gva(0x40_2000)), ..TlbFlush::default() });
        assert_eq!(tlb.entry(0x40_1000, 0).load, INVALID);
    }

    #[test]
    fn a_flush_covers_every_page_its_bytes_touch() {
        let mut tlb = Tlb::new(1, 0);
        for gva in [0x1000, 0x2000, 0x3000] {
            tlb.fill(gva, 0, &page(0x8000, 12), Some(0), true);
        }
        tlb.flush(TlbFlush { gva: Some(Gva(0x1800)), len: PAGE_SIZE, address_space: None });
        assert_eq!([0x1000, 0x2000, 0x3000].map(|gva| tlb.entry(gva, 0).load), [INVALID, INVALID, 0x3000]);
        tlb.flush(TlbFlush { gva: Some(Gva(u64::MAX)), len: u64::MAX, address_space: None });
        assert_eq!(tlb.entry(0x3000, 0).load, INVALID);
        tlb.fill(0, 0, &Page { fetch: true, ..page(0x8000, 12) }, Some(0), true);
        assert_eq!(tlb.entry(0, 0).fetch, 0);
        tlb.flush(TlbFlush { gva: Some(Gva(u64::MAX)), len: 2, address_space: None });
        assert_eq!(tlb.entry(0, 0).fetch, INVALID);
    }

    #[test]
    fn generations_stay_unique_when_they_start_over() {
        let mut tlb = Tlb::new(1, 0);
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
