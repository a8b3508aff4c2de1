//! One vCPU's translated blocks: by physical granule, then by offset and mode; valid for one generation of the
//! granule's contents, bounded in memory.
#![allow(unsafe_code)]

use isomer_core::{Gpa, GuestMemory};
use isomer_ir::{
    Block,
    interp::{Code, Entry},
};
use rustc_hash::FxHashMap;
use std::ptr::NonNull;

/// A block in the form its engine runs.
pub(crate) enum Form {
    /// For the interpreter.
    Compact(Code),
    /// For the reference engine.
    Lifted(Box<Block>),
}

impl Form {
    fn heap_bytes(&self) -> usize {
        match self {
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
            Self::Lifted(_) => None,
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
}

impl Translated {
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

struct Granule {
    generation: u32,
    /// Translated before all vCPUs confirmed the protection of this granule.
    provisional: bool,
    blocks: FxHashMap<(u16, u32), Box<Translated>>,
    bytes: usize,
}

/// All blocks of one vCPU.
pub(crate) struct Blocks {
    granules: FxHashMap<u64, Granule>,
    transient: Option<Box<Translated>>,
    bytes: usize,
    limit_bytes: usize,
    /// Blocks made since the start, dropped ones included.
    pub(crate) translated: u64,
}

/// Hash map slots and box headers of one block, roughly.
const BLOCK_OVERHEAD: usize = 96;

impl Blocks {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { granules: FxHashMap::default(), transient: None, bytes: 0, limit_bytes, translated: 0 }
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

    /// Keeps a block made from generation `generation` of its granule. Blocks of older generations must have
    /// been dropped before ([`Self::drop_stale`]).
    pub(crate) fn insert(
        &mut self,
        (gpa, mode): (Gpa, u32),
        generation: u32,
        provisional: bool,
        form: Form,
        second: Option<(Gpa, u32)>,
    ) -> BlockRef {
        let size = form.heap_bytes() + size_of::<Translated>() + BLOCK_OVERHEAD;
        let granule = self.granules.entry(gpa.page_number()).or_insert_with(|| Granule {
            generation,
            provisional: false,
            blocks: FxHashMap::default(),
            bytes: 0,
        });
        granule.provisional |= provisional;
        granule.bytes += size;
        self.bytes += size;
        self.translated += 1;
        let block = Box::new(Translated { form, second, transient: false });
        let reference = BlockRef(NonNull::from(&*block));
        granule.blocks.insert((gpa.page_offset() as u16, mode), block);
        reference
    }

    /// Keeps a block until the next transient one.
    pub(crate) fn set_transient(&mut self, form: Form) -> BlockRef {
        self.translated += 1;
        let block = self.transient.insert(Box::new(Translated { form, second: None, transient: true }));
        BlockRef(NonNull::from(&**block))
    }

    /// Drops blocks whose code was overwritten; true if there were any.
    pub(crate) fn drop_stale(&mut self, memory: &GuestMemory) -> bool {
        self.drop_where(|number, granule| {
            let current = |gpa: Gpa, generation| generation_of(memory, gpa) == Some(generation);
            !current(Gpa(number << isomer_core::PAGE_SHIFT), granule.generation)
                || granule.blocks.values().any(|b| b.second.is_some_and(|(gpa, g)| !current(gpa, g)))
        })
    }

    /// Drops provisional blocks; true if there were any.
    pub(crate) fn drop_provisional(&mut self) -> bool {
        self.drop_where(|_, granule| granule.provisional)
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
