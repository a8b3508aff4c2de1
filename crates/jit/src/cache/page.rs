//! The template compiler's blocks, all of a guest page in one entry: a hundred thousand entries of a few hundred bytes each
//! would cost more to find, read and verify than to compile.
//!
//! A block stands with the guest's bytes it was made from, so each holds by itself: where a page differs in some bytes from
//! the one that was compiled, the blocks elsewhere in it are as good as before.

use super::{
    Tier,
    key::Keys,
    segment::{DATA_AT, MAX_CODE_BYTES, NewEntry, Slot, content_prefix},
};

/// Blocks of one entry at most.
pub const MAX_PAGE_BLOCKS: usize = 1024;
/// A block on disk: probe, hash of its bytes, mode, where its code begins, entry, bytes of guest code, guest instructions,
/// counter.
pub(super) const RECORD_BYTES: usize = 32;
/// Guest code of one block at most.
const MAX_BLOCK_BYTES: u16 = 1024;

/// A block to be kept.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    /// Mode word.
    pub mode: u32,
    /// Offset in its page.
    pub entry: u16,
    /// Guest instructions.
    pub insns: u16,
    /// The index of the counter in [`crate::abi::Context::hot`] that its code counts down.
    pub hot: u16,
    /// The guest's bytes it was made from.
    pub source: &'a [u8],
    /// Host code.
    pub code: &'a [u8],
}

/// A block of a [`PageCode`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageBlock {
    /// Mode word.
    pub mode: u32,
    /// Where its code begins in [`PageCode::code`].
    pub code_at: u32,
    /// Offset in its page.
    pub entry: u16,
    /// Bytes of guest code.
    pub len: u16,
    /// Guest instructions.
    pub insns: u16,
    /// As [`NewBlock::hot`].
    pub hot: u16,
}

/// Code of many blocks of a page, read and verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageCode {
    /// Sorted by entry and mode.
    pub blocks: Vec<PageBlock>,
    /// The guest's bytes of each, in order.
    source: Vec<u8>,
    /// The code of each, in order.
    pub code: Vec<u8>,
}

impl PageCode {
    /// Which blocks were made from the bytes in the page: a bit each.
    pub fn current(&self, page: &[u8; 4096]) -> Vec<u64> {
        let mut bits = vec![0; self.blocks.len().div_ceil(64)];
        let mut rest = &self.source[..];
        for (number, block) in self.blocks.iter().enumerate() {
            let Some((source, behind)) = rest.split_at_checked(block.len.into()) else { break };
            rest = behind;
            let entry = usize::from(block.entry);
            if page.get(entry..entry + source.len()) == Some(source) {
                bits[number / 64] |= 1 << (number % 64);
            }
        }
        bits
    }

    /// The number of the block at `entry` for `mode`.
    pub fn find(&self, mode: u32, entry: u16) -> Option<usize> {
        self.blocks.binary_search_by_key(&(entry, mode), |block| (block.entry, block.mode)).ok()
    }

    /// Forgets the code, which is in its place by now; the rest tells where that is.
    pub fn take_code(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.code)
    }

    /// From a body that is authentic.
    pub(super) fn from_body(slot: &Slot, body: &[u8]) -> Option<Self> {
        let (records, rest) = body.split_at_checked(usize::from(slot.ranges) * RECORD_BYTES)?;
        let (source, code) = rest.split_at_checked(rest.len().checked_sub(slot.code_len as usize)?)?;
        let blocks: Vec<PageBlock> =
            records.as_chunks().0.iter().map(|bytes| Record::read(bytes).block).collect();
        let source_len: usize = blocks.iter().map(|block| usize::from(block.len)).sum();
        let sound = source_len == source.len()
            && blocks.iter().all(|block| (block.code_at as usize) < code.len())
            && blocks.is_sorted_by_key(|block| (block.entry, block.mode));
        sound.then(|| Self { blocks, source: source.to_vec(), code: code.to_vec() })
    }
}

/// A block as it is found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) probe: u64,
    pub(super) run_hash: u64,
    pub(super) block: PageBlock,
}

impl Record {
    fn new(keys: &Keys, new: &NewBlock<'_>, code_at: u32) -> Self {
        let NewBlock { mode, entry, insns, hot, source, .. } = *new;
        let block = PageBlock { mode, code_at, entry, len: source.len() as u16, insns, hot };
        Self { probe: keys.probe_at(mode, entry, source), run_hash: keys.run_hash(source), block }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let PageBlock { mode, code_at, entry, len, insns, hot } = self.block;
        bytes.extend([self.probe, self.run_hash].iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend([mode, code_at].iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend([entry, len, insns, hot].iter().flat_map(|x| x.to_le_bytes()));
    }

    pub(super) fn read(bytes: &[u8; RECORD_BYTES]) -> Self {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let block = PageBlock {
            mode: word(16),
            code_at: word(20),
            entry: half(24),
            len: half(26),
            insns: half(28),
            hot: half(30),
        };
        Self { probe: long(0), run_hash: long(8), block }
    }
}

/// How a block would be found.
pub(super) fn record(keys: &Keys, new: &NewBlock<'_>) -> Record {
    Record::new(keys, new, 0)
}

/// Can a block be kept at all?
pub(super) fn is_sound(new: &NewBlock<'_>) -> bool {
    let len = new.source.len();
    (1..=usize::from(MAX_BLOCK_BYTES)).contains(&len)
        && usize::from(new.entry) + len <= 4096
        && (1..=MAX_CODE_BYTES).contains(&new.code.len())
}

/// Blocks that are sound, sorted, no two of one place, within the limits of an entry: as an entry, with what is needed to find
/// them.
pub(super) fn new_entry(keys: &Keys, blocks: &[NewBlock<'_>]) -> (NewEntry, Vec<Record>) {
    let mut records = Vec::with_capacity(blocks.len());
    let mut code_len = 0;
    for new in blocks {
        records.push(Record::new(keys, new, code_len));
        code_len += new.code.len() as u32;
    }
    let source_len: usize = blocks.iter().map(|new| new.source.len()).sum();
    let mut body = Vec::with_capacity(records.len() * RECORD_BYTES + source_len + code_len as usize);
    records.iter().for_each(|record| record.write(&mut body));
    blocks.iter().for_each(|new| body.extend_from_slice(new.source));
    let content = keys.page_content(&body);
    blocks.iter().for_each(|new| body.extend_from_slice(new.code));
    let slot = Slot {
        probe: 0,
        run_hash: 0,
        content: content_prefix(&content),
        offset: DATA_AT as u32,
        payload_len: NewEntry::payload_len_of(body.len()),
        mode: 0,
        insns: blocks.iter().map(|new| u32::from(new.insns)).sum(),
        code_len,
        entry: 0,
        run_len: 0,
        ranges: records.len() as u16,
        tier: Tier::Page,
    };
    (NewEntry { slot, content, body }, records)
}

/// Which blocks go into one entry: as many from the front as fit.
pub(super) fn fitting(blocks: &[NewBlock<'_>]) -> usize {
    let mut code_len = 0;
    let fits = |new: &&NewBlock<'_>| {
        code_len += new.code.len();
        code_len <= MAX_CODE_BYTES
    };
    blocks.iter().take(MAX_PAGE_BLOCKS).take_while(fits).count()
}
