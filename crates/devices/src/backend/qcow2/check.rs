//! Whether a qcow2 image's reference counts are what its tables say (QEMU's `docs/interop/qcow2.rst`), and the repair
//! of those that are too high.
//!
//! A count that is too high wastes a cluster (a leak: what a crash may leave). One that is too low lets the next
//! allocation overwrite data: that is corruption, and nothing here touches it.

use super::{
    super::{
        block::BlockError,
        host_file::{HostFile, read_vec, write_all},
    },
    Fields, L2_OFFSET_MASK, be32, be64, checked_fields,
    tables::{COMPRESSED, COPIED, ZERO},
};
use serde::Serialize;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Clusters an image may have to be checked: two bytes of memory are needed for each, twice.
const MAX_CLUSTERS: u64 = 1 << 27;
/// Problems told one by one.
const MAX_PROBLEMS: usize = 20;
/// L1 entries of a snapshot, at most: 32 MiB.
const MAX_L1_ENTRIES: u32 = 4 << 20;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Clusters in use by data.
    pub data_clusters: u64,
    /// Of those, compressed ones.
    pub compressed_clusters: u64,
    /// Clusters whose count is too high.
    pub leaks: u64,
    /// Leaks that were repaired.
    pub repaired: u64,
    /// Counts that are too low, entries that lead nowhere, flags that lie.
    pub corruptions: u64,
    /// The first problems in words.
    pub problems: Vec<String>,
}

/// Checks the image in `file`; `progress` hears the share done, 0 to 1. With `repair`, leaks are mended, if there is
/// no corruption.
pub(in super::super) fn check(
    path: &Path,
    file: &dyn HostFile,
    repair: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<CheckReport, BlockError> {
    let file_bytes = file.len().map_err(|e| read_error(path, e))?;
    let fields = checked_fields(path, file, file_bytes)?;
    let clusters = file_bytes.div_ceil(fields.cluster_bytes());
    if clusters > MAX_CLUSTERS {
        return Err(BlockError::Damaged {
            path: path.into(),
            why: format!("it has {clusters} clusters, more than can be checked"),
        });
    }
    let mut checker = Checker {
        path: path.into(),
        file,
        fields,
        refcount_blocks: Vec::new(),
        counts: vec![0; clusters as usize],
        references: vec![0; clusters as usize],
        report: CheckReport::default(),
    };
    checker.read_counts()?;
    checker.walk(progress)?;
    checker.compare();
    if repair && checker.report.corruptions == 0 && checker.report.leaks > 0 {
        checker.repair()?;
    }
    progress(1.0);
    Ok(checker.report)
}

fn read_error(path: &Path, source: io::Error) -> BlockError {
    BlockError::Host { path: path.into(), doing: "read", source }
}

struct Checker<'a> {
    path: PathBuf,
    file: &'a dyn HostFile,
    fields: Fields,
    /// Where the blocks of counts are; 0: there is none.
    refcount_blocks: Vec<u64>,
    /// Counts as recorded, by cluster; what does not fit is as good as 65535.
    counts: Vec<u16>,
    /// References found.
    references: Vec<u16>,
    report: CheckReport,
}

impl Checker<'_> {
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockError> {
        read_vec(self.file, offset, len).map_err(|e| read_error(&self.path, e))
    }

    fn corrupt(&mut self, problem: String) {
        self.report.corruptions += 1;
        self.tell(problem);
    }

    fn tell(&mut self, problem: String) {
        if self.report.problems.len() < MAX_PROBLEMS {
            self.report.problems.push(problem);
        }
    }

    fn cluster_of(&self, offset: u64) -> u64 {
        offset >> self.fields.cluster_bits
    }

    /// Notes a reference to each cluster of `len` bytes from `offset`.
    fn refer(&mut self, offset: u64, len: u64, what: &str) {
        let clusters = self.references.len() as u64;
        let first = self.cluster_of(offset);
        let last = offset.checked_add(len.max(1) - 1).map_or(u64::MAX, |end| self.cluster_of(end));
        if last >= clusters {
            return self.corrupt(format!("{what} at {offset:#x} lies beyond the end of the file"));
        }
        for cluster in first..=last {
            let count = &mut self.references[cluster as usize];
            *count = count.saturating_add(1);
        }
    }

    fn count_at(&self, offset: u64) -> u16 {
        self.counts.get(self.cluster_of(offset) as usize).copied().unwrap_or(0)
    }

    fn counts_per_block(&self) -> u64 {
        (self.fields.cluster_bytes() * 8) >> self.fields.refcount_order
    }

    /// Reads all counts; the blocks refer to themselves as anything else does.
    fn read_counts(&mut self) -> Result<(), BlockError> {
        let cluster = self.fields.cluster_bytes();
        let table_bytes = u64::from(self.fields.refcount_clusters) << self.fields.cluster_bits;
        let table = self.read(self.fields.refcount_offset, table_bytes as usize)?;
        self.refer(self.fields.refcount_offset, table_bytes, "the table of reference counts");
        let per_block = self.counts_per_block();
        self.refcount_blocks = (0..table.len() / 8).map(|at| be64(&table, 8 * at) & !0x1ff).collect();
        // A block is a cluster of the file; more of them than clusters are not believed.
        let used = self.refcount_blocks.iter().filter(|offset| **offset != 0).count();
        if used > self.counts.len() {
            return Err(BlockError::Damaged {
                path: self.path.clone(),
                why: format!("{used} blocks of reference counts do not fit into the file"),
            });
        }
        for (index, offset) in self.refcount_blocks.clone().into_iter().enumerate() {
            if offset == 0 {
                continue;
            }
            if !offset.is_multiple_of(cluster) || self.cluster_of(offset) >= self.counts.len() as u64 {
                self.corrupt(format!("block {index} of reference counts cannot be at {offset:#x}"));
                self.refcount_blocks[index] = 0;
                continue;
            }
            self.refer(offset, cluster, "a block of reference counts");
            let block = self.read(offset, cluster as usize)?;
            for within in 0..per_block {
                let count = get_count(&block, within as usize, self.fields.refcount_order);
                let at = index as u64 * per_block + within;
                match self.counts.get_mut(at as usize) {
                    Some(slot) => *slot = count,
                    None if count != 0 => {
                        self.report.leaks += 1;
                        self.tell(format!("cluster {at}, beyond the end of the file, has count {count}"));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Follows everything that refers to clusters.
    fn walk(&mut self, progress: &mut dyn FnMut(f64)) -> Result<(), BlockError> {
        self.refer(0, self.fields.cluster_bytes(), "the header");
        let (offset, entries) = (self.fields.l1_offset, self.fields.l1_entries);
        self.walk_l1(offset, entries, true, progress)?;
        let mut at = self.fields.snapshots_offset;
        for index in 0..self.fields.snapshots {
            let head = self.read(at, 40)?;
            let (l1_offset, l1_entries) = (be64(&head, 0), be32(&head, 8));
            let names = u64::from(be32(&head, 12) >> 16) + u64::from(be32(&head, 12) & 0xffff);
            let len = 40 + u64::from(be32(&head, 36)) + names;
            if l1_entries > MAX_L1_ENTRIES || !l1_offset.is_multiple_of(self.fields.cluster_bytes()) {
                self.corrupt(format!("snapshot {index} has an impossible L1 table"));
                return Ok(());
            }
            self.walk_l1(l1_offset, l1_entries, false, progress)?;
            at = at.saturating_add(len.next_multiple_of(8));
            if at > self.fields.snapshots_offset.saturating_add(1 << 30) {
                self.corrupt("the table of snapshots is too long".into());
                return Ok(());
            }
        }
        if self.fields.snapshots > 0 {
            let start = self.fields.snapshots_offset;
            self.refer(start, at - start, "the table of snapshots");
        }
        Ok(())
    }

    fn walk_l1(
        &mut self,
        offset: u64,
        entries: u32,
        active: bool,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(), BlockError> {
        let cluster = self.fields.cluster_bytes();
        if entries > 0 {
            self.refer(offset, u64::from(entries) * 8, "an L1 table");
        }
        let table = self.read(offset, entries as usize * 8)?;
        for index in 0..entries as usize {
            let entry = be64(&table, 8 * index);
            let l2 = entry & L2_OFFSET_MASK;
            if l2 == 0 {
                continue;
            }
            if !l2.is_multiple_of(cluster) {
                self.corrupt(format!("L1 entry {index} is {entry:#x}, not a cluster's start"));
                continue;
            }
            self.refer(l2, cluster, "an L2 table");
            if active {
                self.check_copied(entry, l2, &format!("L1 entry {index}"));
            }
            if self.cluster_of(l2) < self.counts.len() as u64 {
                self.walk_l2(l2, active)?;
            }
            progress(index as f64 / f64::from(entries));
        }
        Ok(())
    }

    fn walk_l2(&mut self, at: u64, active: bool) -> Result<(), BlockError> {
        let cluster = self.fields.cluster_bytes();
        let table = self.read(at, cluster as usize)?;
        for index in 0..table.len() / 8 {
            let entry = be64(&table, 8 * index);
            let name = || format!("entry {index} of the L2 table at {at:#x}");
            if entry & COMPRESSED != 0 {
                let (offset, len) = compressed_extent(entry, self.fields.cluster_bits);
                self.refer(offset, len, "compressed data");
                self.report.data_clusters += u64::from(active);
                self.report.compressed_clusters += u64::from(active);
                if entry & COPIED != 0 {
                    self.corrupt(format!("{} is compressed and claims to be written in place", name()));
                }
                continue;
            }
            let offset = entry & L2_OFFSET_MASK;
            if offset == 0 {
                continue;
            }
            if !offset.is_multiple_of(cluster) {
                self.corrupt(format!("{} is {entry:#x}, not a cluster's start", name()));
                continue;
            }
            self.refer(offset, cluster, "data");
            self.report.data_clusters += u64::from(active && entry & ZERO == 0);
            if active {
                self.check_copied(entry, offset, &name());
            }
        }
        Ok(())
    }

    fn check_copied(&mut self, entry: u64, offset: u64, name: &str) {
        let count = self.count_at(offset);
        if (entry & COPIED != 0) != (count == 1) {
            self.corrupt(format!("{name} is {entry:#x}, but its cluster's count is {count}"));
        }
    }

    fn compare(&mut self) {
        for cluster in 0..self.counts.len() {
            let (count, found) = (self.counts[cluster], self.references[cluster]);
            if count < found {
                self.corrupt(format!("cluster {cluster} has count {count} and {found} references"));
            } else if count > found {
                self.report.leaks += 1;
                self.tell(format!("cluster {cluster} has count {count} and {found} references (leak)"));
            }
        }
    }

    /// Lowers counts to what refers to their clusters.
    fn repair(&mut self) -> Result<(), BlockError> {
        let failed = |source| BlockError::Host { path: self.path.clone(), doing: "repair", source };
        let (per_block, cluster) = (self.counts_per_block(), self.fields.cluster_bytes());
        for (index, offset) in self.refcount_blocks.iter().enumerate().filter(|(_, offset)| **offset != 0) {
            let mut block = self.read(*offset, cluster as usize)?;
            let mut changed = 0;
            for within in 0..per_block as usize {
                let at = index * per_block as usize + within;
                let wanted = self.references.get(at).copied().unwrap_or(0);
                if get_count(&block, within, self.fields.refcount_order) > wanted {
                    set_count(&mut block, within, self.fields.refcount_order, wanted);
                    changed += 1;
                }
            }
            if changed > 0 {
                write_all(self.file, *offset, block.as_slice().into()).map_err(failed)?;
                self.report.repaired += changed;
            }
        }
        self.file.sync().map_err(failed)
    }
}

/// Where the data of a compressed cluster is: the sectors that hold it, whole.
pub(super) fn compressed_extent(entry: u64, cluster_bits: u32) -> (u64, u64) {
    let offset_bits = 62 - (cluster_bits - 8);
    let offset = entry & ((1 << offset_bits) - 1);
    let sectors = ((entry & !(COPIED | COMPRESSED)) >> offset_bits) + 1;
    (offset, (sectors * 512).saturating_sub(offset % 512))
}

/// Count number `at` of a block whose counts have `1 << order` bits; large ones saturate.
pub(super) fn get_count(block: &[u8], at: usize, order: u32) -> u16 {
    match order {
        0..=2 => {
            let (bits, per_byte) = (1_usize << order, 8_usize >> order);
            let byte = block.get(at / per_byte).copied().unwrap_or(0);
            u16::from(byte >> (at % per_byte * bits)) & ((1 << bits) - 1)
        }
        _ => {
            let bytes = 1_usize << (order - 3);
            let raw = block.get(at * bytes..(at + 1) * bytes).unwrap_or(&[]);
            let value = raw.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            u16::try_from(value).unwrap_or(u16::MAX)
        }
    }
}

/// Sets it; the value must fit.
pub(super) fn set_count(block: &mut [u8], at: usize, order: u32, value: u16) {
    match order {
        0..=2 => {
            let (bits, per_byte) = (1_usize << order, 8_usize >> order);
            let mask = ((1_u16 << bits) - 1) as u8;
            let shift = at % per_byte * bits;
            if let Some(byte) = block.get_mut(at / per_byte) {
                *byte = *byte & !(mask << shift) | (value as u8 & mask) << shift;
            }
        }
        _ => {
            let bytes = 1_usize << (order - 3);
            let all = u64::from(value).to_be_bytes();
            if let Some(raw) = block.get_mut(at * bytes..(at + 1) * bytes) {
                raw.copy_from_slice(&all[8 - bytes..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_widths_are_read_and_written() {
        for order in 0..=6 {
            let mut block = vec![0; 64];
            let most = if order >= 4 { 0x1234 } else { ((1_u32 << (1 << order)) - 1) as u16 };
            for at in [0, 1, 5, 7] {
                set_count(&mut block, at, order, most);
                assert_eq!(get_count(&block, at, order), most, "order {order}, {at}");
            }
            assert_eq!(get_count(&block, 2, order), 0);
            set_count(&mut block, 5, order, 0);
            assert_eq!((get_count(&block, 5, order), get_count(&block, 7, order)), (0, most));
        }
        assert_eq!(get_count(&[0xff; 8], 0, 6), u16::MAX);
        assert_eq!(get_count(&[], 3, 4), 0);
    }

    #[test]
    fn compressed_data_is_found_in_its_sectors() {
        // Clusters of 64 KiB: the offset has 54 bits, the number of further sectors 8.
        assert_eq!(compressed_extent(COMPRESSED | 3 << 54 | 0x1_0203, 16), (0x1_0203, 4 * 512 - 3));
    }
}
