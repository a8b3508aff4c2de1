//! The control flow of a region: which blocks follow which, in what order they are compiled, where loops close.

use crate::region::Region;
use isomer_ir::{LinkHint, Terminal};
use rustc_hash::FxHashSet;

/// Return sites a return compares its target with before it asks the jump cache.
const RETURN_GUARDS: usize = 4;

/// Control flow inside a region; blocks by index.
pub(super) struct Graph {
    /// Blocks that can be reached, each after its predecessors but for backward edges.
    pub(super) order: Vec<usize>,
    /// Edges that close a loop: every cycle has one.
    pub(super) backward: FxHashSet<(usize, usize)>,
    /// Edges into each block; the region's entry counts as one.
    pub(super) predecessors: Vec<u32>,
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
            return_sites,
        };
        graph.search(region);
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
