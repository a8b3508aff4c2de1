//! One vCPU's translated blocks: by physical granule, then by offset and mode; valid for one generation of the
//! granule's contents, bounded in memory.
#![allow(unsafe_code)]

use crate::{jit::NativeCode, kept::LoadedPage};
use isomer_core::{Gpa, GuestMemory};
use isomer_ir::{
    Block,
    interp::{Code, Entry},
};
use isomer_jit::cache::PageId;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::{
    cell::{Cell, OnceCell, RefCell},
    ptr::NonNull,
    sync::Arc,
};

/// A block in the form its engine runs.
pub(crate) enum Form {
    /// For the interpreter.
    Compact(Code),
    /// For the reference engine.
    Lifted(Box<Block>),
    /// Compiled code is all there is, until somebody has to interpret it after all. With the bytes that it takes if it belongs
    /// to this block alone.
    Native(OnceCell<Box<Form>>, usize),
}

impl Form {
    fn heap_bytes(&self) -> usize {
        match self {
            // What it is when it is made: what comes later is rare.
            Self::Native(_, bytes) => *bytes,
            Self::Compact(code) => code.heap_bytes(),
            Self::Lifted(block) => {
                size_of::<Block>() + size_of_val(&block.insts[..]) + block.value_types.len()
            }
        }
    }

    /// Where the interpreter enters it.
    pub(crate) fn entry(&self) -> Option<Entry> {
        match self {
            Self::Compact(code) => Some(code.entry()),
            Self::Lifted(_) | Self::Native(..) => None,
        }
    }
}

/// A translated block and what it was made from.
pub(crate) struct Translated {
    pub(crate) form: Form,
    /// The second granule of an instruction that crosses, with its generation.
    pub(crate) second: Option<(Gpa, u32)>,
    /// Good for one run only.
    transient: bool,
    /// Where it starts, and its mode.
    pub(crate) key: (Gpa, u32),
    /// Of its granule.
    pub(crate) generation: u32,
    /// Compiled code for it, and older code that jump caches may still lead to.
    native: RefCell<SmallVec<[Held; 1]>>,
    /// Where the last of it is entered; null if there is none.
    entry: Cell<*const u8>,
    /// Virtual pages where jump caches may have it, or others of its granule on its account.
    seen: Cell<Seen>,
}

/// Compiled code of a block.
pub(crate) enum Held {
    /// Made for it.
    Own(NativeCode),
    /// A region that others start with, too.
    Shared(Arc<NativeCode>),
}

impl std::ops::Deref for Held {
    type Target = NativeCode;

    fn deref(&self) -> &NativeCode {
        match self {
            Self::Own(code) => code,
            Self::Shared(code) => code,
        }
    }
}

/// Virtual pages, by number.
#[derive(Clone, Copy, Default)]
enum Seen {
    #[default]
    Nowhere,
    Once(u64),
    Twice(u64, u64),
    /// Too often to remember.
    Anywhere,
}

/// Where jump caches may lead to blocks that are gone.
#[derive(Default)]
pub(crate) struct Dropped {
    /// Granule, virtual page.
    pub(crate) at: Vec<(u64, u64)>,
    /// Elsewhere, too.
    pub(crate) anywhere: bool,
}

impl Dropped {
    fn add(&mut self, granule: u64, block: &Translated) {
        let at = match block.seen.get() {
            Seen::Nowhere => [None, None],
            Seen::Once(a) => [Some(a), None],
            Seen::Twice(a, b) => [Some(a), Some(b)],
            Seen::Anywhere => {
                self.anywhere = true;
                return;
            }
        };
        for at in at.into_iter().flatten() {
            if self.at.last() != Some(&(granule, at)) {
                self.at.push((granule, at));
            }
        }
    }
}

impl Translated {
    /// What it takes, in bytes.
    fn bytes(&self) -> usize {
        self.form.heap_bytes() + size_of::<Self>() + BLOCK_OVERHEAD
    }

    /// Counts entries that do not come from interpreted code; true if it is hot.
    pub(crate) fn count_down(&self, entries: u64) -> bool {
        matches!(&self.form, Form::Compact(code) if code.count_down(entries))
    }

    /// Where its compiled code is entered, if there is any.
    pub(crate) fn native_entry(&self) -> Option<*const u8> {
        let entry = self.entry.get();
        (!entry.is_null()).then_some(entry)
    }

    /// Is its compiled code the best there can be?
    pub(crate) fn is_best(&self) -> bool {
        self.native.borrow().last().is_some_and(|code| !code.is_template())
    }

    /// The counter of its code that wants to be compiled better.
    pub(crate) fn counter(&self) -> Option<u16> {
        self.native.borrow().iter().rev().find_map(|code| code.hot)
    }

    /// Jump caches may lead to it at `pc`, or to others of its granule in that page.
    pub(crate) fn seen_at(&self, pc: u64) {
        let page = pc >> isomer_core::PAGE_SHIFT;
        self.seen.set(match self.seen.get() {
            Seen::Nowhere => Seen::Once(page),
            Seen::Once(a) if a != page => Seen::Twice(a, page),
            Seen::Twice(a, b) if a != page && b != page => Seen::Anywhere,
            same => same,
        });
    }

    /// Gives it compiled code, from now on.
    pub(crate) fn attach(&self, code: Held) {
        self.entry.set(code.entry());
        self.native.borrow_mut().push(code);
    }

    /// May it be found without asking for its translation: by other blocks' links and by the jump cache? Not if it
    /// depends on the mapping of a second page, or on permissions that change within the page.
    pub(crate) fn is_linkable(&self) -> bool {
        self.second.is_none() && !self.transient
    }
}

// SAFETY: a block owns its words, and the blocks it links to belong to the same vCPU.
unsafe impl Send for Translated {}

/// A pointer to a block owned by [`Blocks`]; dangling after the calls that drop blocks, which is why those are
/// followed by clearing everything that holds one (jump cache, links).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRef(pub(crate) NonNull<Translated>);

// SAFETY: a BlockRef only moves with the vCPU that owns the blocks it points to.
unsafe impl Send for BlockRef {}

impl BlockRef {
    /// The block.
    ///
    /// # Safety
    /// No call that drops blocks may have happened since the reference was obtained.
    pub(crate) unsafe fn get<'a>(self) -> &'a Translated {
        // SAFETY: the caller says it is live; blocks are boxed, so they do not move.
        unsafe { self.0.as_ref() }
    }
}

/// Where a block starts in its granule, and the mode word it was made for.
type Key = (u16, u32);

/// Code of a granule that came from the cache, page by page.
pub(crate) struct KeptPage {
    pub(crate) id: PageId,
    pub(crate) page: Arc<LoadedPage>,
    /// The blocks that were made from the bytes that are there: a bit each.
    pub(crate) current: Vec<u64>,
    /// Blocks that are to be looked up, because there may be better code.
    pub(crate) better: Vec<u64>,
}

fn has_bit(bits: &[u64], number: usize) -> bool {
    bits.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 != 0)
}

impl KeptPage {
    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&self.current[..]) * 2 + self.page.bytes()
    }

    /// Places and entries of the blocks for `mode`.
    fn natives(&self, mode: u32) -> impl Iterator<Item = (u16, *const u8)> {
        let offered = move |&number: &usize| has_bit(&self.current, number) && !has_bit(&self.better, number);
        let blocks =
            self.page.blocks().blocks.iter().enumerate().filter(move |(_, block)| block.mode == mode);
        blocks
            .filter(move |(number, _)| offered(number))
            .map(|(number, block)| (block.entry, self.page.entry(number)))
    }
}

/// The blocks that start in one granule. They link to each other, so they go together.
struct Granule {
    generation: u32,
    /// Some were translated before all vCPUs confirmed that they notice stores to the code.
    provisional: bool,
    blocks: FxHashMap<Key, Box<Translated>>,
    /// Those whose instruction crosses into another granule: few, and the ones that depend on another generation.
    crossing: Vec<Key>,
    kept: Vec<KeptPage>,
    bytes: usize,
}

impl Granule {
    fn new(generation: u32) -> Self {
        Self {
            generation,
            provisional: false,
            blocks: FxHashMap::default(),
            crossing: Vec::new(),
            kept: Vec::new(),
            bytes: 0,
        }
    }

    fn is_current(&self, number: u64, memory: &GuestMemory) -> bool {
        let current = |gpa: Gpa, generation| generation_of(memory, gpa) == Some(generation);
        let seconds = self.crossing.iter().filter_map(|key| self.blocks.get(key)?.second);
        current(Gpa(number << isomer_core::PAGE_SHIFT), self.generation)
            && seconds.into_iter().all(|(gpa, generation)| current(gpa, generation))
    }
}

/// All blocks of one vCPU.
pub(crate) struct Blocks {
    granules: FxHashMap<u64, Granule>,
    transient: Option<Box<Translated>>,
    bytes: usize,
    limit_bytes: usize,
    /// Some granule may be provisional: guests with a code fence in every exception return ask often.
    provisional: bool,
    /// Blocks made since the start, dropped ones included.
    pub(crate) translated: u64,
}

/// Pages of the cache that one granule takes: more than one where runs found what earlier ones had not seen.
const MAX_KEPT: usize = 16;

/// Hash map slots and box headers of one block, roughly.
const BLOCK_OVERHEAD: usize = 96;

impl Blocks {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            granules: FxHashMap::default(),
            transient: None,
            bytes: 0,
            limit_bytes,
            provisional: false,
            translated: 0,
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Is there no room for another block?
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.limit_bytes
    }

    /// The valid block at `gpa` for `mode`.
    pub(crate) fn get(&self, gpa: Gpa, mode: u32, memory: &GuestMemory) -> Option<BlockRef> {
        let granule = self.granules.get(&gpa.page_number())?;
        let block = granule.blocks.get(&(gpa.page_offset() as u16, mode))?;
        let current = |gpa: Gpa, generation| generation_of(memory, gpa) == Some(generation);
        let valid = current(gpa, granule.generation) && block.second.is_none_or(|(gpa, g)| current(gpa, g));
        valid.then(|| BlockRef(NonNull::from(&**block)))
    }

    /// May a block of generation `generation` join those of its granule?
    pub(crate) fn accepts(&self, gpa: Gpa, generation: u32) -> bool {
        self.granules.get(&gpa.page_number()).is_none_or(|granule| granule.generation == generation)
    }

    /// Keeps a block made from generation `generation` of its granule, which accepts it ([`Self::accepts`]). A block that
    /// depends on a `second` granule takes the place of one that depended on another; no other is ever replaced, since
    /// [`Self::get`] finds it.
    pub(crate) fn insert(
        &mut self,
        (gpa, mode): (Gpa, u32),
        generation: u32,
        provisional: bool,
        form: Form,
        second: Option<(Gpa, u32)>,
    ) -> BlockRef {
        let key = (gpa.page_offset() as u16, mode);
        let (native, entry) = (RefCell::default(), Cell::new(std::ptr::null()));
        let block = Box::new(Translated {
            form,
            second,
            transient: false,
            key: (gpa, mode),
            generation,
            native,
            entry,
            seen: Cell::default(),
        });
        let reference = BlockRef(NonNull::from(&*block));
        let size = block.bytes();
        let granule = self.granules.entry(gpa.page_number()).or_insert_with(|| Granule::new(generation));
        granule.provisional |= provisional;
        self.provisional |= provisional;
        granule.bytes += size;
        self.bytes += size;
        self.translated += 1;
        if second.is_some() && !granule.crossing.contains(&key) {
            granule.crossing.push(key);
        }
        if let Some(replaced) = granule.blocks.insert(key, block) {
            debug_assert!(
                !replaced.is_linkable() && replaced.native_entry().is_none(),
                "links and jump caches may lead to it"
            );
            granule.bytes -= replaced.bytes();
            self.bytes -= replaced.bytes();
        }
        reference
    }

    /// Keeps a block until the next transient one.
    pub(crate) fn set_transient(&mut self, form: Form) -> BlockRef {
        self.translated += 1;
        let block = self.transient.insert(Box::new(Translated {
            form,
            second: None,
            transient: true,
            key: (Gpa(0), 0),
            generation: 0,
            native: RefCell::default(),
            entry: Cell::new(std::ptr::null()),
            seen: Cell::default(),
        }));
        BlockRef(NonNull::from(&**block))
    }

    /// Drops the blocks of those granules of `pages` that were overwritten. Blocks that cross into them stay: they are checked
    /// whenever they are looked up.
    pub(crate) fn drop_overwritten(&mut self, pages: &[u64], memory: &GuestMemory) -> Dropped {
        let mut dropped = Dropped::default();
        for &page in pages {
            let current = generation_of(memory, Gpa(page << isomer_core::PAGE_SHIFT));
            if self.granules.get(&page).is_none_or(|granule| Some(granule.generation) == current) {
                continue;
            }
            let Some(granule) = self.granules.remove(&page) else { continue };
            self.bytes -= granule.bytes;
            granule.blocks.values().for_each(|block| dropped.add(page, block));
        }
        dropped
    }

    /// Drops the block at `gpa` that crosses into another granule, if there is one: before another takes its place.
    pub(crate) fn drop_crossing(&mut self, gpa: Gpa, mode: u32) -> Dropped {
        let mut dropped = Dropped::default();
        let key = (gpa.page_offset() as u16, mode);
        if let Some(granule) = self.granules.get_mut(&gpa.page_number())
            && let Some(block) = granule.blocks.remove(&key)
        {
            granule.crossing.retain(|crossing| *crossing != key);
            granule.bytes -= block.bytes();
            self.bytes -= block.bytes();
            dropped.add(gpa.page_number(), &block);
        }
        dropped
    }

    /// Drops blocks whose code was overwritten; true if there were any.
    pub(crate) fn drop_stale(&mut self, memory: &GuestMemory) -> bool {
        self.drop_where(|number, granule| !granule.is_current(number, memory))
    }

    /// Drops the blocks of the granule at `gpa`.
    pub(crate) fn drop_granule(&mut self, gpa: Gpa) -> bool {
        let granule = self.granules.remove(&gpa.page_number());
        self.bytes -= granule.as_ref().map_or(0, |granule| granule.bytes);
        granule.is_some()
    }

    /// Drops provisional blocks; true if there were any.
    pub(crate) fn drop_provisional(&mut self) -> bool {
        std::mem::take(&mut self.provisional) && self.drop_where(|_, granule| granule.provisional)
    }

    /// Takes all compiled code from the blocks, and drops those that are nothing else.
    pub(crate) fn detach_all(&mut self) {
        for granule in self.granules.values_mut() {
            let mut freed: usize = granule.kept.drain(..).map(|kept| kept.bytes()).sum();
            granule.blocks.retain(|_, block| {
                block.native.borrow_mut().clear();
                block.entry.set(std::ptr::null());
                let keep = !matches!(block.form, Form::Native(..));
                freed += if keep { 0 } else { block.bytes() };
                keep
            });
            granule.bytes -= freed;
            self.bytes -= freed;
        }
    }

    /// Places and entries of the compiled blocks for `mode` in the granule at `gpa` that others may link to; where one comes
    /// twice, the second time it is better.
    pub(crate) fn natives(&self, gpa: Gpa, mode: u32) -> impl Iterator<Item = (u16, *const u8)> {
        let granule = self.granules.get(&gpa.page_number());
        let kept = granule.into_iter().flat_map(|granule| &granule.kept);
        let blocks = granule.into_iter().flat_map(|granule| &granule.blocks);
        kept.flat_map(move |kept| kept.natives(mode)).chain(blocks.filter_map(
            move |(&(place, of), block)| {
                let entry = block.native_entry().filter(|_| of == mode && block.is_linkable())?;
                Some((place, entry))
            },
        ))
    }

    /// Code from the cache for the block at `gpa` in `mode`, among what its granule has.
    pub(crate) fn find_kept(&self, gpa: Gpa, mode: u32) -> Option<(Arc<LoadedPage>, usize)> {
        let kept = &self.granules.get(&gpa.page_number())?.kept;
        kept.iter().find_map(|kept| {
            let block = kept.page.blocks().find(mode, gpa.page_offset() as u16)?;
            has_bit(&kept.current, block).then(|| (kept.page.clone(), block))
        })
    }

    /// May the granule at `gpa` have this page of the cache, too?
    pub(crate) fn lacks_kept(&self, gpa: Gpa, id: PageId) -> bool {
        let kept = self.granules.get(&gpa.page_number()).map(|granule| &granule.kept);
        kept.is_none_or(|kept| kept.len() < MAX_KEPT && kept.iter().all(|kept| kept.id != id))
    }

    /// Gives the granule at `gpa`, which accepts the generation ([`Self::accepts`]), a page of the cache.
    pub(crate) fn keep(&mut self, gpa: Gpa, generation: u32, provisional: bool, kept: KeptPage) {
        let granule = self.granules.entry(gpa.page_number()).or_insert_with(|| Granule::new(generation));
        granule.provisional |= provisional;
        self.provisional |= provisional;
        granule.bytes += kept.bytes();
        self.bytes += kept.bytes();
        granule.kept.push(kept);
    }

    /// Is the granule at `gpa` free of provisional blocks?
    pub(crate) fn is_settled(&self, gpa: Gpa) -> bool {
        self.granules.get(&gpa.page_number()).is_none_or(|granule| !granule.provisional)
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.granules = FxHashMap::default();
        self.bytes = 0;
    }

    fn drop_where(&mut self, doomed: impl Fn(u64, &Granule) -> bool) -> bool {
        let before = self.granules.len();
        let bytes = &mut self.bytes;
        self.granules.retain(|&number, granule| {
            let keep = !doomed(number, granule);
            if !keep {
                *bytes -= granule.bytes;
            }
            keep
        });
        self.granules.len() != before
    }
}

/// The present generation of the granule at `gpa`, if it is RAM.
pub(crate) fn generation_of(memory: &GuestMemory, gpa: Gpa) -> Option<u32> {
    let region = memory.region(gpa.page_base(), isomer_core::PAGE_SIZE)?;
    Some(region.code.generation(gpa.0 - region.gpa.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_ir::{
        Builder, Terminal,
        softfloat::{NanRule, Tininess},
        types::FpModel,
    };

    const PAGE: u64 = 0x8000_0000;

    fn form() -> Form {
        let fp = FpModel {
            nan: NanRule::Canonical,
            tininess: Tininess::After,
            flush_inputs: false,
            flush_outputs: false,
        };
        let mut b = Builder::new(&[], 0, fp);
        b.insn_start(0, 4);
        b.end(Terminal::Exit { offset: 4 });
        Form::Lifted(Box::new(b.finish()))
    }

    fn memory() -> GuestMemory {
        GuestMemory::new(&[(Gpa(PAGE), 1 << 16)]).unwrap()
    }

    #[test]
    fn a_granule_takes_blocks_of_one_generation_only() {
        let memory = memory();
        let mut blocks = Blocks::new(1 << 20);
        let code = &memory.regions()[0].code;
        let first = code.mark(0);
        assert!(blocks.accepts(Gpa(PAGE), first));
        blocks.insert((Gpa(PAGE), 0), first, false, form(), None);
        assert!(blocks.accepts(Gpa(PAGE + 8), first) && blocks.get(Gpa(PAGE), 0, &memory).is_some());
        // What a writer on another thread does before it has told anybody.
        code.written(0, 8);
        let second = code.mark(0);
        assert!(blocks.get(Gpa(PAGE), 0, &memory).is_none() && !blocks.accepts(Gpa(PAGE), second));
        assert!(blocks.drop_granule(Gpa(PAGE + 8)) && blocks.bytes() == 0);
        assert!(blocks.accepts(Gpa(PAGE), second) && !blocks.drop_granule(Gpa(PAGE)));
    }

    #[test]
    fn a_block_that_crosses_depends_on_both_granules() {
        let memory = memory();
        let mut blocks = Blocks::new(1 << 20);
        let code = &memory.regions()[0].code;
        let (at, next) = (Gpa(PAGE + 0xffe), Gpa(PAGE + 0x1000));
        for round in 0..3 {
            let (generation, second) = (code.mark(0xffe), code.mark(0x1000));
            blocks.insert((at, 0), generation, false, form(), Some((next, second)));
            assert!(!blocks.drop_stale(&memory) && blocks.get(at, 0, &memory).is_some(), "{round}");
            code.written(0x1000 * (round & 1), 4);
            assert!(blocks.get(at, 0, &memory).is_none(), "{round}");
            assert!(blocks.drop_stale(&memory) && blocks.bytes() == 0, "{round}");
        }
    }

    #[test]
    fn replaced_blocks_do_not_count() {
        let memory = memory();
        let mut blocks = Blocks::new(1 << 20);
        let code = &memory.regions()[0].code;
        let at = Gpa(PAGE + 0xffe);
        let mut first = None;
        for n in 1..10 {
            let generation = code.mark(0xffe);
            let second = Some((Gpa(PAGE + n * 0x1000), code.mark(n * 0x1000)));
            blocks.insert((at, 0), generation, false, form(), second);
            assert_eq!(*first.get_or_insert(blocks.bytes()), blocks.bytes());
        }
        assert_eq!(blocks.granules[&at.page_number()].crossing.len(), 1);
        assert!(blocks.drop_granule(at) && blocks.bytes() == 0 && blocks.translated == 9);
    }

    #[test]
    fn provisional_blocks_go_with_their_granule() {
        let memory = memory();
        let mut blocks = Blocks::new(1 << 20);
        let code = &memory.regions()[0].code;
        blocks.insert((Gpa(PAGE), 0), code.mark(0), false, form(), None);
        blocks.insert((Gpa(PAGE + 4), 0), code.mark(0), true, form(), None);
        blocks.insert((Gpa(PAGE + 0x1000), 0), code.mark(0x1000), false, form(), None);
        assert!(blocks.drop_provisional() && !blocks.drop_provisional());
        assert!(blocks.get(Gpa(PAGE), 0, &memory).is_none());
        assert!(blocks.get(Gpa(PAGE + 0x1000), 0, &memory).is_some());
    }
}
