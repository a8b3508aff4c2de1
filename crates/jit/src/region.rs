//! Which code is compiled together: the blocks that can be reached from a hot one over direct edges within its page.

use isomer_core::PAGE_SIZE;
use isomer_ir::{Block, LinkHint, Op, Terminal};
use rustc_hash::FxHashMap;
use std::collections::{BTreeSet, VecDeque};

/// Where lifted blocks come from: one physical page of guest code, in one mode.
pub trait Source {
    /// The block that starts `offset` bytes into the page, at most `max_insns` instructions long, optimised; `None` if its
    /// first instruction leaves the page, or is more than a block can hold.
    fn block(&self, offset: u16, max_insns: u32) -> Option<Block>;
}

/// How large regions get.
#[derive(Clone, Copy, Debug)]
pub struct RegionLimits {
    /// Guest instructions.
    pub insns: u32,
    /// Guest instructions a block.
    pub block_insns: u32,
    /// Blocks.
    pub blocks: u32,
    /// Follow calls into their callees, and return to the instructions behind them.
    pub calls: bool,
}

impl RegionLimits {
    /// A region for the optimising compiler.
    pub const REGION: Self = Self { insns: 400, block_insns: 48, blocks: 96, calls: true };
    /// One block, for the template compiler.
    pub const BLOCK: Self = Self { insns: 48, block_insns: 48, blocks: 1, calls: false };
}

/// A block of a region.
#[derive(Clone, Debug)]
pub struct RegionBlock {
    /// Bytes from the page's start to its entry.
    pub offset: u16,
    /// Its operations and terminal; offsets in them count from its own entry.
    pub block: Block,
}

impl RegionBlock {
    /// Where a terminal's offset leads, as bytes from the page's start; `None` if to another page.
    pub fn place(&self, offset: i64) -> Option<u16> {
        let place = i64::from(self.offset).checked_add(offset)?;
        (0..PAGE_SIZE as i64).contains(&place).then_some(place as u16)
    }

    /// The places this block's terminal may go on at directly, in this page.
    pub fn successors(&self) -> impl Iterator<Item = u16> + use<> {
        let (first, second) = match self.block.terminal {
            Terminal::Jump { offset, .. } => (self.place(offset), None),
            Terminal::Branch { taken, not_taken, .. } => (self.place(not_taken), self.place(taken)),
            _ => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Where a call that ends this block returns to, if in this page.
    pub fn return_site(&self) -> Option<u16> {
        match self.block.terminal {
            Terminal::Jump { hint: LinkHint::Call { return_offset }, .. }
            | Terminal::Indirect { hint: LinkHint::Call { return_offset }, .. } => self.place(return_offset),
            _ => None,
        }
    }
}

/// Blocks to compile together; the first is the entry.
#[derive(Clone, Debug)]
pub struct Region {
    /// The blocks, entry first, then in the order they were found.
    pub blocks: Vec<RegionBlock>,
    /// Index of the block that starts at a place of the page.
    pub index: FxHashMap<u16, usize>,
    /// Guest instructions in it.
    pub insns: u32,
}

impl Region {
    /// The region that starts at `entry`; `None` if nothing can be lifted there.
    pub fn form(source: &dyn Source, entry: u16, limits: RegionLimits) -> Option<Self> {
        let found = discover(source, entry, limits)?;
        // Blocks end where others begin, so that no instruction is compiled twice.
        let leaders: BTreeSet<u16> = found.iter().map(|block| block.offset).collect();
        let mut blocks: Vec<RegionBlock> = Vec::with_capacity(found.len());
        for RegionBlock { offset, block } in found {
            let block = match insns_before_leader(&block, offset, &leaders) {
                Some(insns) => source.block(offset, insns)?,
                None => block,
            };
            blocks.push(RegionBlock { offset, block });
        }
        let index = blocks.iter().enumerate().map(|(i, block)| (block.offset, i)).collect();
        let insns = blocks.iter().map(|block| block.block.insn_count).sum();
        Some(Self { blocks, index, insns })
    }

    /// The page's bytes it was made from, as sorted ranges that do not touch.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> =
            self.blocks.iter().map(|b| (b.offset, b.offset + b.block.len as u16)).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        merged
    }
}

/// Breadth first from the entry until a limit is reached.
fn discover(source: &dyn Source, entry: u16, limits: RegionLimits) -> Option<Vec<RegionBlock>> {
    let mut found: Vec<RegionBlock> = Vec::new();
    let mut seen = BTreeSet::from([entry]);
    let mut queue = VecDeque::from([entry]);
    let mut insns = 0;
    while let Some(offset) = queue.pop_front() {
        if found.len() as u32 >= limits.blocks || insns >= limits.insns {
            break;
        }
        let Some(block) = source.block(offset, limits.block_insns) else {
            if found.is_empty() {
                return None;
            }
            continue;
        };
        insns += block.insn_count;
        let block = RegionBlock { offset, block };
        let is_call = block.return_site().is_some();
        if !is_call || limits.calls {
            let next = block.successors().chain(block.return_site());
            next.for_each(|place| {
                if seen.insert(place) {
                    queue.push_back(place);
                }
            });
        }
        found.push(block);
    }
    Some(found)
}

/// How many instructions of a block come before the first leader inside it, if there is one at an instruction's start.
fn insns_before_leader(block: &Block, offset: u16, leaders: &BTreeSet<u16>) -> Option<u32> {
    let starts = block.insts.iter().filter_map(|inst| match inst.op {
        Op::InsnStart { offset, .. } => Some(offset),
        _ => None,
    });
    let mut inside = starts.enumerate().skip(1);
    inside.find(|&(_, at)| leaders.contains(&(offset + at as u16))).map(|(number, _)| number as u32)
}
