//! MSI-X (PCI Local Bus 3.0, 6.8.2): the vector table, the pending bits and the way to the message sink.

use super::MsiSink;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most vectors of a table here, so that table and pending bits share one page.
pub(super) const MAX_VECTORS: u16 = 128;
/// Bytes of the BAR that holds table and pending bits.
pub(super) const BAR_BYTES: u64 = 0x1000;
/// Where the pending bits are in that BAR.
pub(super) const PBA_OFFSET: u64 = 0x800;

/// Bytes of a table entry.
const ENTRY_BYTES: u64 = 16;
/// Vector Control: masked.
const MASKED: u32 = 1;

/// Address low, address high, data, vector control.
type Entry = [u32; 4];

/// The table as saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    entries: Vec<Entry>,
    pending: u128,
}

#[derive(Debug)]
struct Inner {
    table: MsixState,
    /// MSI-X Enable, without Function Mask; and the function may send (bus master enable).
    enabled: bool,
    open: bool,
    requester_id: u16,
}

/// A function's MSI-X vectors, for the function and its worker threads.
pub struct Msix {
    inner: Mutex<Inner>,
    sink: Arc<dyn MsiSink>,
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Msix").field(&*self.inner()).finish()
    }
}

impl Msix {
    /// A table of `vectors` (at most 128) masked entries, sending to `sink`.
    pub fn new(vectors: u16, sink: Arc<dyn MsiSink>) -> Self {
        let entries = vec![[0, 0, 0, MASKED]; vectors.clamp(1, MAX_VECTORS).into()];
        let table = MsixState { entries, pending: 0 };
        Self { inner: Mutex::new(Inner { table, enabled: false, open: false, requester_id: 0 }), sink }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        self.inner().table.entries.len() as u16
    }

    /// Has the guest switched from INTx to MSI-X?
    pub fn is_enabled(&self) -> bool {
        self.inner().enabled
    }

    /// Sends vector `vector`, or notes it as pending while it is masked. Nothing happens for a vector that does not
    /// exist or while MSI-X is disabled.
    pub fn signal(&self, vector: u16) {
        let mut inner = self.inner();
        if inner.enabled && vector < inner.table.entries.len() as u16 {
            inner.table.pending |= 1 << vector;
            self.deliver(&mut inner);
        }
    }

    /// Sends every pending message that is not masked.
    fn deliver(&self, inner: &mut Inner) {
        if !inner.enabled || !inner.open {
            return;
        }
        let mut left = inner.table.pending;
        while left != 0 {
            let vector = left.trailing_zeros() as usize;
            left &= left - 1;
            let Some(&[low, high, data, control]) = inner.table.entries.get(vector) else { break };
            if control & MASKED == 0 {
                inner.table.pending &= !(1 << vector);
                self.sink.send(inner.requester_id, u64::from(high) << 32 | u64::from(low), data);
            }
        }
    }

    /// The configuration space changed: MSI-X Enable, and whether messages may be sent at all.
    pub(super) fn set_control(&self, enabled: bool, open: bool) {
        let mut inner = self.inner();
        (inner.enabled, inner.open) = (enabled, open);
        self.deliver(&mut inner);
    }

    pub(super) fn set_requester(&self, requester_id: u16) {
        self.inner().requester_id = requester_id;
    }

    /// A guest read of the BAR. Only aligned 4- and 8-byte accesses are defined.
    pub fn read(&self, offset: u64, size: usize) -> u64 {
        let word = |offset| u64::from(self.read_word(offset));
        match size {
            4 if offset.is_multiple_of(4) => word(offset),
            8 if offset.is_multiple_of(8) => word(offset) | word(offset + 4) << 32,
            _ => 0,
        }
    }

    fn read_word(&self, offset: u64) -> u32 {
        let inner = self.inner();
        if let Some(at) = offset.checked_sub(PBA_OFFSET) {
            return if at < ENTRY_BYTES { (inner.table.pending >> (8 * at)) as u32 } else { 0 };
        }
        let entry = inner.table.entries.get((offset / ENTRY_BYTES) as usize);
        entry.map_or(0, |entry| entry[(offset % ENTRY_BYTES / 4) as usize])
    }

    /// A guest write of the BAR.
    pub fn write(&self, offset: u64, size: usize, value: u64) {
        match size {
            4 if offset.is_multiple_of(4) => self.write_word(offset, value as u32),
            8 if offset.is_multiple_of(8) => {
                self.write_word(offset, value as u32);
                self.write_word(offset + 4, (value >> 32) as u32);
            }
            _ => (),
        }
    }

    fn write_word(&self, offset: u64, value: u32) {
        let mut inner = self.inner();
        let Some(entry) = inner.table.entries.get_mut((offset / ENTRY_BYTES) as usize) else { return };
        let field = (offset % ENTRY_BYTES / 4) as usize;
        entry[field] = match field {
            0 => value & !3,
            3 => value & MASKED,
            _ => value,
        };
        self.deliver(&mut inner);
    }

    /// Power-on state: all masked, nothing pending.
    pub fn reset(&self) {
        let mut inner = self.inner();
        inner.table.entries.fill([0, 0, 0, MASKED]);
        inner.table.pending = 0;
    }

    /// Copies the table.
    pub fn save(&self) -> MsixState {
        self.inner().table.clone()
    }

    /// Could this table have saved `state`?
    pub fn accepts(&self, state: &MsixState) -> bool {
        let count = self.vectors();
        let entry_fits = |entry: &Entry| entry[0] & 3 == 0 && entry[3] & !MASKED == 0;
        let pending_fits = state.pending.checked_shr(count.into()).unwrap_or(0) == 0;
        state.entries.len() == usize::from(count) && pending_fits && state.entries.iter().all(entry_fits)
    }

    /// Takes over a state that [`Self::accepts`] has accepted; nothing is sent before the configuration space is
    /// restored too.
    pub fn restore(&self, state: MsixState) {
        let mut inner = self.inner();
        (inner.enabled, inner.open) = (false, false);
        inner.table = state;
    }
}
