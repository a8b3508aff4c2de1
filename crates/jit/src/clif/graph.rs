//! The control flow of a region: which blocks follow which, in what order they are compiled, where loops close.

use super::slots::SlotSet;
use crate::region::Region;
use isomer_ir::{LinkHint, Op, Terminal};
use rustc_hash::{FxHashMap, FxHashSet};

/// Return sites a return compares its target with before it asks the jump cache.
const RETURN_GUARDS: usize = 4;

/// Slots a loop may keep in registers of which it only reads some.
const LOOP_SLOTS: usize = 9;

/// Control flow inside a region; blocks by index.
pub(super) struct Graph {
    /// Blocks that can be reached, each after its predecessors but for backward edges.
    pub(super) order: Vec<usize>,
    /// Edges that close a loop: every cycle has one.
    pub(super) backward: FxHashSet<(usize, usize)>,
    /// Edges into each block; the region's entry counts as one.
    pub(super) predecessors: Vec<u32>,
    /// Slots read in the loops that begin at a block, by that block.
    pub(super) loop_reads: FxHashMap<usize, SlotSet>,
    /// Where calls in the region return to, as far as those places are in it.
    pub(super) return_sites: Vec<usize>,
}

impl Graph {
    pub(super) fn of(region: &Region) -> Self {
        let sites = region.blocks.iter().filter_map(|block| region.index.get(&block.return_site()?).copied());
        let mut return_sites: Vec<usize> = Vec::new();
        for site in sites {
            if return_sites.len() < RETURN_GUARDS && !return_sites.contains(&site) {
                return_sites.push(site);
            }
        }
        let mut graph = Self {
            order: Vec::new(),
            backward: FxHashSet::default(),
            predecessors: vec![0; region.blocks.len()],
            loop_reads: FxHashMap::default(),
            return_sites,
        };
        graph.search(region);
        graph.find_loops(region);
        graph
    }

    /// The blocks a block may continue at without leaving the region.
    fn successors(&self, region: &Region, at: usize) -> Vec<usize> {
        let block = &region.blocks[at];
        if is_return(&block.block.terminal) {
            return self.return_sites.clone();
        }
        let mut next: Vec<usize> =
            block.successors().filter_map(|place| region.index.get(&place).copied()).collect();
        next.dedup();
        next
    }

    /// What is read in each loop: worth loading before it.
    fn find_loops(&mut self, region: &Region) {
        let mut sources: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        for &(from, to) in &self.backward {
            sources.entry(to).or_default().push(from);
        }
        if sources.is_empty() {
            return;
        }
        let mut predecessors: Vec<Vec<usize>> = vec![Vec::new(); region.blocks.len()];
        for &at in &self.order {
            self.successors(region, at).into_iter().for_each(|to| predecessors[to].push(at));
        }
        for (head, sources) in sources {
            let mut inside: FxHashSet<usize> = FxHashSet::from_iter([head]);
            let mut queue = sources;
            while let Some(at) = queue.pop() {
                if inside.insert(at) {
                    queue.extend(&predecessors[at]);
                }
            }
            let mut reads = SlotSet::default();
            let mut writes = SlotSet::default();
            for inst in inside.iter().flat_map(|&at| &region.blocks[at].block.insts) {
                match inst.op {
                    Op::Get { slot } => reads.insert(slot.0.into()),
                    Op::Set { slot, .. } => writes.insert(slot.0.into()),
                    _ => {}
                }
            }
            if reads.members().len() > LOOP_SLOTS {
                // What only is read would be spilled, and can be read from the CPU as well.
                reads.keep_only(&writes);
            }
            self.loop_reads.insert(head, reads);
        }
    }

    /// Depth first from the entry.
    fn search(&mut self, region: &Region) {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; region.blocks.len()];
        let mut stack = vec![(0, self.successors(region, 0))];
        marks[0] = Mark::Open;
        self.predecessors[0] = 1;
        while let Some((at, next)) = stack.last_mut() {
            let at = *at;
            match next.pop() {
                Some(to) => {
                    self.predecessors[to] += 1;
                    match marks[to] {
                        Mark::New => {
                            marks[to] = Mark::Open;
                            let successors = self.successors(region, to);
                            stack.push((to, successors));
                        }
                        Mark::Open => {
                            self.backward.insert((at, to));
                        }
                        Mark::Done => {}
                    }
                }
                None => {
                    marks[at] = Mark::Done;
                    self.order.push(at);
                    stack.pop();
                }
            }
        }
        self.order.reverse();
    }
}

/// Does this terminal return from a call?
pub(super) const fn is_return(terminal: &Terminal) -> bool {
    matches!(terminal, Terminal::Indirect { hint: LinkHint::Return, .. })
}
