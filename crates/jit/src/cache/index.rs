//! What is in the open segments, in memory: small items found by a cheap hash. Nothing here is trusted; an item says where
//! to read, and what is read is verified.

use super::{
    Tier,
    key::Keys,
    page::Record,
    page_index::PageIndex,
    segment::{Segment, Slot},
};
use rustc_hash::FxHashMap;
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// Items of one probe that are looked at: more share it only in a cache made to be slow.
const MAX_CHAIN: usize = 32;
/// Items kept; a full cache of tiny entries has about half as many.
const MAX_ITEMS: usize = 1 << 18;
const NONE: u32 = u32::MAX;

/// How an entry fared in this run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Use {
    NotYet = 0,
    Used = 1,
    /// Used, and its segment tells.
    Stamped = 2,
    /// Damaged: never to be read again.
    Dead = 3,
}

#[derive(Debug)]
struct Item {
    slot: Slot,
    segment: Arc<Segment>,
    number: u32,
    /// The next item of the same probe.
    next: u32,
    state: AtomicU8,
}

/// Where an entry may be.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) slot: Slot,
    pub(super) segment: Arc<Segment>,
    pub(super) number: u32,
    item: u32,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    heads: FxHashMap<u64, u32>,
    items: Vec<Item>,
    /// Entries that are a page's.
    pub(super) pages: PageIndex,
}

impl Index {
    /// Adds an entry of any kind; `records` are a page's.
    pub(super) fn insert_any(
        &mut self,
        segment: &Arc<Segment>,
        number: u32,
        slot: Slot,
        records: &[Record],
        state: Use,
    ) {
        match slot.tier {
            Tier::Page => self.pages.insert(segment, number, slot, records, state),
            Tier::Template | Tier::Region => self.insert(segment, number, slot, state),
        }
    }

    /// Adds an entry. Its content may be there already: another process may have made it too, or it replaces one that was
    /// found damaged, which nobody knows before it is read.
    fn insert(&mut self, segment: &Arc<Segment>, number: u32, slot: Slot, state: Use) {
        if self.items.len() >= MAX_ITEMS {
            return;
        }
        let place = self.items.len() as u32;
        let next = self.heads.insert(slot.probe, place).unwrap_or(NONE);
        let state = AtomicU8::new(state as u8);
        self.items.push(Item { slot, segment: Arc::clone(segment), number, next, state });
    }

    /// Is there a sound entry of that content?
    pub(super) fn contains(&self, probe: u64, content: u64) -> bool {
        self.chain(probe).any(|(_, item)| item.slot.content == content && !item.is(Use::Dead))
    }

    /// May there be an entry that is not a page's? Tens of nanoseconds.
    #[inline]
    pub(super) fn may_have(&self, probe: u64) -> bool {
        self.chain(probe).any(|(_, item)| !item.is(Use::Dead))
    }

    fn chain(&self, probe: u64) -> impl Iterator<Item = (u32, &Item)> {
        let mut place = self.heads.get(&probe).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let item = self.items.get(place as usize)?;
            let found = (place, item);
            place = item.next;
            Some(found)
        })
        .take(MAX_CHAIN)
    }

    /// The entries that may be for this place: the same mode, entry and bytes from the entry to the end of their range.
    /// The best tier first. Free of allocation when there is none.
    #[inline]
    pub(super) fn candidates(
        &self,
        keys: &Keys,
        probe: u64,
        mode: u32,
        entry: u16,
        page: &[u8; 4096],
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (place, item) in self.chain(probe) {
            let slot = &item.slot;
            let run = page.get(usize::from(entry)..usize::from(entry) + usize::from(slot.run_len));
            let fits = slot.mode == mode
                && slot.entry == entry
                && run.is_some_and(|run| keys.run_hash(run) == slot.run_hash)
                && !item.is(Use::Dead);
            if fits {
                found.push(item.candidate(place));
            }
        }
        found.sort_by_key(|candidate| std::cmp::Reverse(candidate.slot.tier));
        found
    }

    /// Notes what became of a candidate. Was it used for the first time?
    pub(super) fn note(&self, candidate: &Candidate, state: Use) -> bool {
        // After a rebuild another item may have its number.
        match self.items.get(candidate.item as usize) {
            Some(item)
                if item.number == candidate.number && Arc::ptr_eq(&item.segment, &candidate.segment) =>
            {
                let expected =
                    if state == Use::Dead { item.state.load(Ordering::Relaxed) } else { Use::NotYet as u8 };
                item.state
                    .compare_exchange(expected, state as u8, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            }
            _ => false,
        }
    }

    /// Entries used since they were last asked for, by segment.
    pub(super) fn take_used(&self) -> Vec<(Arc<Segment>, Vec<u32>)> {
        let mut by_name: FxHashMap<&str, (Arc<Segment>, Vec<u32>)> = FxHashMap::default();
        let items = self.items.iter().filter_map(|item| {
            let (from, to) = (Use::Used as u8, Use::Stamped as u8);
            let first = item.state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
            first.is_ok().then_some((&item.segment, item.number))
        });
        for (segment, number) in items.chain(self.pages.take_used()) {
            let entry = by_name.entry(&segment.name);
            entry.or_insert_with(|| (Arc::clone(segment), Vec::new())).1.push(number);
        }
        by_name.into_values().collect()
    }

    /// Where each content is.
    pub(super) fn by_content(&self) -> FxHashMap<u64, Candidate> {
        let sound = self.items.iter().enumerate().filter(|(_, item)| !item.is(Use::Dead));
        sound.map(|(place, item)| (item.slot.content, item.candidate(place as u32))).collect()
    }

    /// Forgets the entries of segments that are no more.
    pub(super) fn retain(&mut self, keep: impl Fn(&Segment) -> bool) {
        self.pages.retain(&keep);
        let items = std::mem::take(&mut self.items);
        self.heads.clear();
        for item in items.into_iter().filter(|item| keep(&item.segment)) {
            let place = self.items.len() as u32;
            let next = self.heads.insert(item.slot.probe, place).unwrap_or(NONE);
            self.items.push(Item { next, ..item });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() + self.pages.places()
    }
}

impl Item {
    fn is(&self, state: Use) -> bool {
        self.state.load(Ordering::Relaxed) == state as u8
    }

    fn candidate(&self, item: u32) -> Candidate {
        Candidate { slot: self.slot, segment: Arc::clone(&self.segment), number: self.number, item }
    }
}
