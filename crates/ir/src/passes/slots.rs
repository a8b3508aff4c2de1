//! Which slots of a guest share bytes, worked out once a slot table.

use crate::{
    state::{CpuHeader, SlotDesc},
    types::Slot,
};

/// A slot that shares bytes with another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    pub(super) slot: Slot,
    /// All its bytes are shared.
    pub(super) covered: bool,
}

/// The slot table as passes need it.
#[derive(Debug, Default)]
pub(super) struct SlotLayout {
    slots: &'static [SlotDesc],
    neighbours: Vec<Neighbour>,
    /// A slot's neighbours end here and begin where the slot's before it end.
    ends: Vec<u32>,
    in_header: Vec<bool>,
}

impl SlotLayout {
    /// Makes this the layout of `slots`.
    pub(super) fn prepare(&mut self, slots: &'static [SlotDesc]) {
        if std::ptr::eq(self.slots, slots) {
            return;
        }
        self.slots = slots;
        self.neighbours.clear();
        self.ends.clear();
        self.in_header.clear();
        for (i, desc) in slots.iter().enumerate() {
            let others = slots.iter().enumerate().filter(|&(j, other)| j != i && desc.overlaps(other));
            self.neighbours.extend(
                others.map(|(j, other)| Neighbour { slot: Slot(j as u16), covered: desc.covers(other) }),
            );
            self.ends.push(self.neighbours.len() as u32);
            self.in_header.push((desc.offset as usize) < size_of::<CpuHeader>());
        }
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The other slots that share bytes with `slot`.
    pub(super) fn neighbours(&self, slot: Slot) -> &[Neighbour] {
        let i = usize::from(slot.0);
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.neighbours[start as usize..self.ends[i] as usize]
    }

    /// Is it in the header, where others than `get` and `set` may touch it?
    pub(super) fn in_header(&self, slot: Slot) -> bool {
        self.in_header[usize::from(slot.0)]
    }
}
