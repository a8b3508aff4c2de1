//! What is written to a qcow2 image at once, in three steps with a barrier after each, so that a crash between any
//! two writes leaves an image that is sound but for leaked clusters:
//!
//! 1. counts, and tables that nothing leads to yet; the data they tell of is on stable storage already;
//! 2. what leads to new blocks of counts;
//! 3. what leads to clusters: L2 tables in use, L1 entries, the header.
//!
//! Only then do clusters that were let go of lose their count.

use super::{
    super::host_file::{HostFile, write_all},
    tables::Numbers,
};
use std::{io, sync::Arc};

/// Bytes to be written: shared with tables that may change meanwhile.
#[derive(Debug)]
pub(super) enum Bytes {
    Counts(Arc<Vec<u8>>),
    Entries(Arc<Vec<u64>>),
    Raw(Vec<u8>),
}

/// What has changed besides tables, which know it themselves.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) l1: Numbers,
    pub(super) l1_moved: bool,
    pub(super) block_table: Numbers,
    pub(super) block_table_moved: bool,
    pub(super) header_size: Option<u64>,
    /// Clusters that will not be used when this is written; once for each use that ended.
    pub(super) freed: Vec<u64>,
}

impl Changes {
    /// Adds what was changed before.
    pub(super) fn merge(&mut self, earlier: Self) {
        self.l1.extend(earlier.l1);
        self.block_table.extend(earlier.block_table);
        self.l1_moved |= earlier.l1_moved;
        self.block_table_moved |= earlier.block_table_moved;
        self.header_size = self.header_size.or(earlier.header_size);
        self.freed.extend(earlier.freed);
    }
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Writes, `(offset, bytes)`, by step.
    pub(super) phases: [Vec<(u64, Bytes)>; 3],
    pub(super) blocks: Vec<usize>,
    pub(super) l2: Vec<usize>,
    pub(super) changes: Changes,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.phases.iter().all(Vec::is_empty)
    }

    /// Writes one step.
    pub(super) fn write(&self, file: &dyn HostFile, step: usize) -> io::Result<()> {
        for (offset, bytes) in &self.phases[step] {
            match bytes {
                Bytes::Counts(counts) => write_all(file, *offset, counts.as_slice().into())?,
                Bytes::Raw(bytes) => write_all(file, *offset, bytes.as_slice().into())?,
                Bytes::Entries(entries) => {
                    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
                    write_all(file, *offset, bytes.as_slice().into())?;
                }
            }
        }
        Ok(())
    }
}
