//! Where blocks are that were kept a page together. As in [`super::index`], nothing here is trusted.

use super::{
    index::Use,
    key::Keys,
    page::Record,
    segment::{Segment, Slot},
};
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// Blocks of one probe that are looked at.
const MAX_CHAIN: usize = 64;
/// Blocks kept: 24 MiB, at the very worst.
const MAX_BLOCKS: usize = 1 << 19;
const NONE: u32 = u32::MAX;

/// An entry with code of a page. Names one as long as the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageId(pub(super) u32);

#[derive(Debug)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) segment: Arc<Segment>,
    pub(super) number: u32,
    state: AtomicU8,
}

#[derive(Debug)]
struct Block {
    run_hash: u64,
    /// Of its probe.
    tag: u32,
    page: u32,
    /// The next block of the same bucket.
    next: u32,
    len: u16,
}

#[derive(Debug, Default)]
pub(super) struct PageIndex {
    places: Vec<Place>,
    /// A power of two, or none.
    heads: Vec<u32>,
    blocks: Vec<Block>,
}

impl PageIndex {
    pub(super) fn insert(
        &mut self,
        segment: &Arc<Segment>,
        number: u32,
        slot: Slot,
        records: &[Record],
        state: Use,
    ) {
        if self.blocks.len() + records.len() > MAX_BLOCKS {
            return;
        }
        let page = self.places.len() as u32;
        let state = AtomicU8::new(state as u8);
        self.places.push(Place { slot, segment: Arc::clone(segment), number, state });
        for record in records {
            let tag = (record.probe >> 32) as u32;
            let block = Block { run_hash: record.run_hash, tag, page, next: NONE, len: record.block.len };
            self.blocks.push(block);
            if self.blocks.len() > self.heads.len() {
                self.grow();
            } else {
                self.link(self.blocks.len() - 1);
            }
        }
    }

    fn link(&mut self, number: usize) {
        let mask = self.heads.len() - 1;
        let head = &mut self.heads[self.blocks[number].tag as usize & mask];
        self.blocks[number].next = std::mem::replace(head, number as u32);
    }

    fn grow(&mut self) {
        self.heads = vec![NONE; (self.blocks.len() * 2).next_power_of_two().max(1 << 10)];
        (0..self.blocks.len()).for_each(|number| self.link(number));
    }

    /// The page with code for the block that `code` begins with; `probe` is that of mode, entry and code.
    #[inline]
    pub(super) fn find(&self, keys: &Keys, probe: u64, code: &[u8]) -> Option<PageId> {
        self.chain(probe).find_map(|block| {
            let matches =
                code.get(..block.len.into()).is_some_and(|run| keys.run_hash(run) == block.run_hash);
            (matches && !self.is_dead(block.page)).then_some(PageId(block.page))
        })
    }

    /// Is there code for the block with exactly these bytes?
    pub(super) fn contains(&self, record: &Record) -> bool {
        self.chain(record.probe).any(|block| {
            block.run_hash == record.run_hash && block.len == record.block.len && !self.is_dead(block.page)
        })
    }

    fn chain(&self, probe: u64) -> impl Iterator<Item = &Block> {
        let tag = (probe >> 32) as u32;
        let bucket = (tag as usize) & self.heads.len().wrapping_sub(1);
        let mut next = self.heads.get(bucket).copied().unwrap_or(NONE);
        let walk = std::iter::from_fn(move || {
            let block = self.blocks.get(next as usize)?;
            next = block.next;
            Some(block)
        });
        walk.take(MAX_CHAIN).filter(move |block| block.tag == tag)
    }

    pub(super) fn place(&self, id: PageId) -> Option<&Place> {
        self.places.get(id.0 as usize).filter(|place| !place.is(Use::Dead))
    }

    fn is_dead(&self, page: u32) -> bool {
        self.places.get(page as usize).is_none_or(|place| place.is(Use::Dead))
    }

    /// Entries used since they were last asked for.
    pub(super) fn take_used(&self) -> impl Iterator<Item = (&Arc<Segment>, u32)> {
        self.places.iter().filter_map(|place| {
            let (from, to) = (Use::Used as u8, Use::Stamped as u8);
            let first = place.state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
            first.is_ok().then_some((&place.segment, place.number))
        })
    }

    /// Forgets segments that are no more. Numbers stay: they are handed out.
    pub(super) fn retain(&self, keep: impl Fn(&Segment) -> bool) {
        self.places.iter().filter(|place| !keep(&place.segment)).for_each(|place| place.set(Use::Dead));
    }

    pub(super) fn places(&self) -> usize {
        self.places.iter().filter(|place| !place.is(Use::Dead)).count()
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

impl Place {
    fn is(&self, state: Use) -> bool {
        self.state.load(Ordering::Relaxed) == state as u8
    }

    pub(super) fn set(&self, state: Use) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Notes that it was used.
    pub(super) fn used(&self) {
        let (from, to) = (Use::NotYet as u8, Use::Used as u8);
        let _ = self.state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}
