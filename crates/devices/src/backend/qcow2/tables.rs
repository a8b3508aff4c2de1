//! A qcow2 image's tables in memory (QEMU's `docs/interop/qcow2.rst`): where the disk's clusters are, and which
//! clusters of the file are in use.
//!
//! Nothing here writes. Changes gather until [`Tables::take_batch`], which says what has to be written in which order
//! so that the image is sound wherever a crash falls between. A cluster that is no longer used keeps its count until
//! the change that let go of it is on stable storage: only then can anything else be put there.

use super::{
    super::host_file::{HostFile, read_vec},
    batch::{Batch, Bytes, Changes},
    check::{compressed_extent, get_count, set_count},
    {Fields, L2_OFFSET_MASK, be64},
};
use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
};

/// L1 and L2 entries: the cluster's count is exactly one, so that it can be written in place.
pub(super) const COPIED: u64 = 1 << 63;
/// L2 entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// L2 entry: the cluster reads as zeros.
pub(super) const ZERO: u64 = 1;
/// Bytes of L2 tables, and of blocks of counts, that are kept beyond those with changes.
const CACHE_BYTES: usize = 16 << 20;
/// Most tables of one kind kept.
const MAX_CACHED: usize = 4096;
/// Files do not get longer.
const MAX_FILE_BYTES: u64 = 1 << 55;
/// Most entries of a table of blocks: what opening an image accepts.
const MAX_BLOCKS: usize = (8 << 20) / 8;

fn damaged(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// What clusters of the disk are mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapped {
    /// Nothing here: the backing file's, or zeros.
    Below,
    /// Zeros; a cluster of the file may be kept for them.
    Zero { host: Option<u64>, copied: bool },
    /// Data at this byte of the file; `copied`: to be written in place.
    Data { host: u64, copied: bool },
    /// Compressed data; the entry says where.
    Compressed { entry: u64 },
}

/// A table of the second level.
#[derive(Debug)]
struct L2 {
    host: u64,
    entries: Arc<Vec<u64>>,
    dirty: bool,
    /// A batch that holds it is being written: the file does not have it yet.
    pinned: bool,
    used: u64,
}

/// A block of reference counts.
#[derive(Debug)]
struct Block {
    host: u64,
    counts: Arc<Vec<u8>>,
    dirty: bool,
    /// As [`L2::pinned`].
    pinned: bool,
    used: u64,
}

/// All tables.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) cluster_bits: u32,
    order: u32,
    l1: Vec<u64>,
    l1_offset: u64,
    l2: HashMap<usize, L2>,
    blocks: HashMap<usize, Block>,
    /// Where the blocks are, by number; 0: there is none.
    block_table: Vec<u64>,
    block_table_offset: u64,
    /// Clusters below are in use.
    first_free: u64,
    /// The file's length in bytes, as far as clusters were given out.
    end: u64,
    clock: u64,
    changes: Changes,
}

impl Tables {
    /// Reads L1 and the table of blocks, which the header's checks have bounded.
    pub(super) fn load(file: &dyn HostFile, fields: &Fields) -> io::Result<Self> {
        let numbers = |bytes: Vec<u8>| (0..bytes.len() / 8).map(|at| be64(&bytes, 8 * at)).collect();
        let l1 = numbers(read_vec(file, fields.l1_offset, fields.l1_entries as usize * 8)?);
        let table_bytes = (fields.refcount_clusters as usize) << fields.cluster_bits;
        let block_table: Vec<u64> = numbers(read_vec(file, fields.refcount_offset, table_bytes)?);
        Ok(Self {
            cluster_bits: fields.cluster_bits,
            order: fields.refcount_order,
            l1,
            l1_offset: fields.l1_offset,
            l2: HashMap::new(),
            blocks: HashMap::new(),
            block_table: block_table.into_iter().map(|offset| offset & !0x1ff).collect(),
            block_table_offset: fields.refcount_offset,
            first_free: 0,
            end: file.len()?,
            clock: 0,
            changes: Changes::default(),
        })
    }

    pub(super) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table, as a power of two.
    fn l2_bits(&self) -> u32 {
        self.cluster_bits - 3
    }

    fn place(&self, cluster: u64) -> (usize, usize) {
        ((cluster >> self.l2_bits()) as usize, (cluster & ((1 << self.l2_bits()) - 1)) as usize)
    }

    fn counts_per_block(&self) -> u64 {
        (self.cluster_bytes() * 8) >> self.order
    }

    fn cached_tables(&self) -> usize {
        (CACHE_BYTES >> self.cluster_bits).clamp(4, MAX_CACHED)
    }

    /// Is there so much to be written that it should be, before more is changed?
    pub(super) fn is_full(&self) -> bool {
        self.changes.freed.len() > 1 << 16
            || self.l2.values().filter(|l2| l2.dirty).count() > self.cached_tables() / 2
            || self.blocks.values().filter(|block| block.dirty).count() > self.cached_tables() / 2
    }

    /// The L2 table behind an L1 entry, if there is one.
    fn l2(&mut self, file: &dyn HostFile, index: usize) -> io::Result<Option<&mut L2>> {
        self.clock += 1;
        if !self.l2.contains_key(&index) {
            let host = self.l1.get(index).map_or(0, |entry| entry & L2_OFFSET_MASK);
            if host == 0 {
                return Ok(None);
            }
            if !host.is_multiple_of(self.cluster_bytes()) {
                return Err(damaged(format!("L1 entry {index} is not a cluster's start")));
            }
            let bytes = read_vec(file, host, self.cluster_bytes() as usize)?;
            let entries = Arc::new((0..bytes.len() / 8).map(|at| be64(&bytes, 8 * at)).collect());
            self.make_room();
            self.l2.insert(index, L2 { host, entries, dirty: false, pinned: false, used: 0 });
        }
        let clock = self.clock;
        match self.l2.get_mut(&index) {
            Some(l2) => {
                l2.used = clock;
                Ok(Some(l2))
            }
            None => Ok(None),
        }
    }

    /// Forgets what has not been used for longest and needs no writing.
    fn make_room(&mut self) {
        let limit = self.cached_tables();
        if self.l2.len() >= limit {
            let clean = self.l2.iter().filter(|(_, l2)| !l2.dirty && !l2.pinned);
            if let Some(oldest) = clean.min_by_key(|(_, l2)| l2.used).map(|(index, _)| *index) {
                self.l2.remove(&oldest);
            }
        }
        if self.blocks.len() >= limit {
            let clean = self.blocks.iter().filter(|(_, block)| !block.dirty && !block.pinned);
            if let Some(oldest) = clean.min_by_key(|(_, block)| block.used).map(|(index, _)| *index) {
                self.blocks.remove(&oldest);
            }
        }
    }

    fn decode(&self, entry: u64) -> io::Result<Mapped> {
        if entry & COMPRESSED != 0 {
            return Ok(Mapped::Compressed { entry });
        }
        let (host, copied) = (entry & L2_OFFSET_MASK, entry & COPIED != 0);
        if !host.is_multiple_of(self.cluster_bytes()) {
            return Err(damaged(format!("L2 entry {entry:#x} is not a cluster's start")));
        }
        Ok(match (entry & ZERO != 0, host) {
            (true, 0) => Mapped::Zero { host: None, copied: false },
            (true, _) => Mapped::Zero { host: Some(host), copied },
            (false, 0) => Mapped::Below,
            (false, _) => Mapped::Data { host, copied },
        })
    }

    /// What `cluster` is mapped to, and how many of the `most` clusters from there continue it. Never past one table.
    pub(super) fn run(&mut self, file: &dyn HostFile, cluster: u64, most: u64) -> io::Result<(Mapped, u64)> {
        let (index, within) = self.place(cluster);
        let in_table = ((1_u64 << self.l2_bits()) - within as u64).min(most.max(1));
        let Some(l2) = self.l2(file, index)? else { return Ok((Mapped::Below, in_table)) };
        let entries = l2.entries.clone();
        let first = self.decode(entries[within])?;
        let mut len = 1;
        while len < in_table {
            let next = self.decode(entries[within + len as usize])?;
            let continues = match (first, next) {
                (Mapped::Data { host, copied }, Mapped::Data { host: next, copied: same }) => {
                    next == host + (len << self.cluster_bits) && copied == same
                }
                (Mapped::Below, Mapped::Below) | (Mapped::Zero { .. }, Mapped::Zero { .. }) => first == next,
                _ => false,
            };
            if !continues {
                break;
            }
            len += 1;
        }
        Ok((first, len))
    }

    /// Is there no L2 table for `cluster`? Then nothing in its whole reach is mapped; returns the reach's end.
    pub(super) fn unmapped_until(&mut self, file: &dyn HostFile, cluster: u64) -> io::Result<Option<u64>> {
        let index = self.place(cluster).0;
        let absent = self.l2(file, index)?.is_none();
        Ok(absent.then(|| (index as u64 + 1) << self.l2_bits()))
    }

    /// Maps `cluster` anew; what it was mapped to before is let go of unless the new entry keeps it.
    pub(super) fn set(&mut self, file: &dyn HostFile, cluster: u64, entry: u64) -> io::Result<()> {
        let (index, within) = self.place(cluster);
        self.own_l2(file, index)?;
        let Some(l2) = self.l2(file, index)? else { return Err(damaged("an L2 table is gone")) };
        let old = std::mem::replace(&mut Arc::make_mut(&mut l2.entries)[within], entry);
        l2.dirty |= old != entry;
        let kept = |host| entry & COMPRESSED == 0 && entry & L2_OFFSET_MASK == host;
        match self.decode(old)? {
            Mapped::Data { host, .. } | Mapped::Zero { host: Some(host), .. } if !kept(host) => {
                self.changes.freed.push(host >> self.cluster_bits);
            }
            Mapped::Compressed { entry } => {
                let (offset, len) = compressed_extent(entry, self.cluster_bits);
                let last = (offset + len.max(1) - 1) >> self.cluster_bits;
                self.changes.freed.extend(offset >> self.cluster_bits..=last);
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes the L2 table exist, and be the disk's own.
    fn own_l2(&mut self, file: &dyn HostFile, index: usize) -> io::Result<()> {
        let entry = *self.l1.get(index).ok_or_else(|| damaged("the L1 table is too short"))?;
        if entry & L2_OFFSET_MASK != 0 && entry & COPIED != 0 {
            return Ok(());
        }
        let entries = match self.l2(file, index)? {
            Some(shared) => shared.entries.clone(),
            None => Arc::new(vec![0; 1 << self.l2_bits()]),
        };
        let host = self.allocate(file, 1)?.0 << self.cluster_bits;
        if entry & L2_OFFSET_MASK != 0 {
            self.changes.freed.push((entry & L2_OFFSET_MASK) >> self.cluster_bits);
        }
        self.make_room();
        self.l2.insert(index, L2 { host, entries, dirty: true, pinned: false, used: self.clock });
        self.l1[index] = host | COPIED;
        self.changes.l1.insert(index);
        Ok(())
    }

    fn block(&mut self, file: &dyn HostFile, index: usize) -> io::Result<Option<&mut Block>> {
        self.clock += 1;
        if !self.blocks.contains_key(&index) {
            let host = self.block_table.get(index).copied().unwrap_or(0);
            if host == 0 {
                return Ok(None);
            }
            if !host.is_multiple_of(self.cluster_bytes()) {
                return Err(damaged(format!("block {index} of counts is not at a cluster's start")));
            }
            let counts = Arc::new(read_vec(file, host, self.cluster_bytes() as usize)?);
            self.make_room();
            self.blocks.insert(index, Block { host, counts, dirty: false, pinned: false, used: 0 });
        }
        let clock = self.clock;
        match self.blocks.get_mut(&index) {
            Some(block) => {
                block.used = clock;
                Ok(Some(block))
            }
            None => Ok(None),
        }
    }

    fn change_count(&mut self, file: &dyn HostFile, cluster: u64, change: fn(u16) -> u16) -> io::Result<u16> {
        let (order, per_block) = (self.order, self.counts_per_block());
        let (index, within) = ((cluster / per_block) as usize, (cluster % per_block) as usize);
        let Some(block) = self.block(file, index)? else { return Ok(0) };
        let count = change(get_count(&block.counts, within, order));
        let counts: &mut Vec<u8> = Arc::make_mut(&mut block.counts);
        set_count(counts, within, order, count);
        block.dirty = true;
        Ok(count)
    }

    /// Takes free clusters that follow each other, 1 to `most`: the first one's number, and how many.
    pub(super) fn allocate(&mut self, file: &dyn HostFile, most: u64) -> io::Result<(u64, u64)> {
        let (order, per_block) = (self.order, self.counts_per_block());
        let mut at = self.first_free;
        loop {
            let index = (at / per_block) as usize;
            if index >= self.block_table.len() {
                break;
            }
            let Some(block) = self.block(file, index)? else {
                at = (index as u64 + 1) * per_block;
                continue;
            };
            let free = |n: u64| get_count(&block.counts, n as usize, order) == 0;
            let Some(first) = (at % per_block..per_block).find(|n| free(*n)) else {
                at = (index as u64 + 1) * per_block;
                continue;
            };
            let len =
                (first..per_block.min(first.saturating_add(most))).take_while(|n| free(*n)).count() as u64;
            let counts: &mut Vec<u8> = Arc::make_mut(&mut block.counts);
            (first..first + len).for_each(|n| set_count(counts, n as usize, order, 1));
            block.dirty = true;
            let cluster = index as u64 * per_block + first;
            self.first_free = cluster + len;
            return self.given_out(cluster, len);
        }
        let cluster = self.extend(1)?;
        // Blocks before the new ones are full, or there are none.
        self.first_free = cluster + 1;
        self.given_out(cluster, 1)
    }

    fn given_out(&mut self, cluster: u64, len: u64) -> io::Result<(u64, u64)> {
        if cluster + len > MAX_FILE_BYTES >> self.cluster_bits {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok((cluster, len))
    }

    /// Was this cluster never written, so that it reads as zeros? Asked once, before it is.
    pub(super) fn is_fresh(&mut self, host: u64, len: u64) -> bool {
        let fresh = host >= self.end;
        self.end = self.end.max(host + len);
        fresh
    }

    /// Takes `len` clusters behind everything there is, with blocks that count them, and a longer table of blocks if
    /// need be. Returns the first.
    fn extend(&mut self, len: u64) -> io::Result<u64> {
        let per_block = self.counts_per_block();
        let first_block = self.block_table.iter().rposition(|host| *host != 0).map_or(0, |last| last + 1);
        let base = first_block as u64 * per_block;
        let in_table_cluster = (self.cluster_bytes() / 8) as usize;
        let (mut blocks, mut table_clusters) = (0, 0);
        loop {
            let wanted = (blocks + table_clusters + len).div_ceil(per_block);
            let entries = first_block + wanted as usize;
            let grown = (2 * self.block_table.len()).max(entries).next_multiple_of(in_table_cluster);
            let table = if entries > self.block_table.len() { (grown / in_table_cluster) as u64 } else { 0 };
            if (wanted, table) == (blocks, table_clusters) {
                break;
            }
            (blocks, table_clusters) = (wanted, table);
        }
        if table_clusters as usize * in_table_cluster > MAX_BLOCKS
            || base + blocks + table_clusters + len > MAX_FILE_BYTES >> self.cluster_bits
        {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if table_clusters > 0 {
            let old = self.block_table_offset >> self.cluster_bits;
            self.changes.freed.extend(old..old + (self.block_table.len() / in_table_cluster) as u64);
            self.block_table.resize(table_clusters as usize * in_table_cluster, 0);
            self.block_table_offset = (base + blocks) << self.cluster_bits;
            self.changes.block_table_moved = true;
        }
        let used = blocks + table_clusters + len;
        for number in 0..blocks {
            let mut counts = vec![0; self.cluster_bytes() as usize];
            let covered = used.saturating_sub(number * per_block).min(per_block);
            (0..covered).for_each(|n| set_count(&mut counts, n as usize, self.order, 1));
            let (index, host) = (first_block + number as usize, (base + number) << self.cluster_bits);
            self.make_room();
            self.blocks.insert(
                index,
                Block { host, counts: Arc::new(counts), dirty: true, pinned: false, used: self.clock },
            );
            self.block_table[index] = host;
            self.changes.block_table.insert(index);
        }
        Ok(base + blocks + table_clusters)
    }

    /// Lets go of clusters that were taken and never mapped.
    pub(super) fn give_back(&mut self, file: &dyn HostFile, cluster: u64, len: u64) -> io::Result<()> {
        for cluster in cluster..cluster + len {
            self.change_count(file, cluster, |count| count.saturating_sub(1))?;
            self.first_free = self.first_free.min(cluster);
        }
        Ok(())
    }

    /// Ends the life of clusters whose release is on stable storage. Returns those that nothing uses any more.
    pub(super) fn free(&mut self, file: &dyn HostFile, freed: &[u64]) -> io::Result<Vec<u64>> {
        let mut free = Vec::new();
        for &cluster in freed {
            if self.change_count(file, cluster, |count| count.saturating_sub(1))? == 0 {
                free.push(cluster);
                self.first_free = self.first_free.min(cluster);
            }
        }
        free.sort_unstable();
        Ok(free)
    }

    /// Makes the L1 table long enough for a disk of `size` bytes, and the header say so.
    pub(super) fn resize(&mut self, file: &dyn HostFile, size: u64) -> io::Result<()> {
        let clusters = size.div_ceil(self.cluster_bytes());
        let entries = clusters.div_ceil(1 << self.l2_bits()) as usize;
        if entries * 8 > super::MAX_L1_BYTES as usize {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if entries > self.l1.len() {
            let bytes = |entries: usize| (entries as u64 * 8).div_ceil(self.cluster_bytes());
            let (old, new) = (bytes(self.l1.len()), bytes(entries));
            let (mut cluster, taken) = self.allocate(file, new)?;
            if taken < new {
                self.give_back(file, cluster, taken)?;
                cluster = self.extend(new)?;
            }
            let first = self.l1_offset >> self.cluster_bits;
            self.changes.freed.extend(first..first + old);
            self.l1.resize(entries, 0);
            self.l1_offset = cluster << self.cluster_bits;
            self.changes.l1_moved = true;
        }
        self.changes.header_size = Some(size);
        Ok(())
    }

    /// What has changed since the last batch, in the order in which it may be written. All of it counts as written.
    pub(super) fn take_batch(&mut self) -> Batch {
        let changes = std::mem::take(&mut self.changes);
        let mut batch = Batch::default();
        let [prepare, count, publish] = &mut batch.phases;
        for (index, block) in self.blocks.iter_mut().filter(|(_, block)| block.dirty) {
            (block.dirty, block.pinned) = (false, true);
            prepare.push((block.host, Bytes::Counts(block.counts.clone())));
            batch.blocks.push(*index);
        }
        if changes.block_table_moved {
            prepare.push((self.block_table_offset, Bytes::Entries(Arc::new(self.block_table.clone()))));
            let clusters = ((self.block_table.len() * 8) as u64 >> self.cluster_bits) as u32;
            let pointer = [&self.block_table_offset.to_be_bytes()[..], &clusters.to_be_bytes()].concat();
            count.push((48, Bytes::Raw(pointer)));
        } else {
            for &index in &changes.block_table {
                let entry = self.block_table[index].to_be_bytes().to_vec();
                count.push((self.block_table_offset + 8 * index as u64, Bytes::Raw(entry)));
            }
        }
        for (index, l2) in self.l2.iter_mut().filter(|(_, l2)| l2.dirty) {
            (l2.dirty, l2.pinned) = (false, true);
            // A table that nothing leads to yet can be written at any time before something does.
            let phase = if changes.l1.contains(index) { &mut *prepare } else { &mut *publish };
            phase.push((l2.host, Bytes::Entries(l2.entries.clone())));
            batch.l2.push(*index);
        }
        if changes.l1_moved {
            prepare.push((self.l1_offset, Bytes::Entries(Arc::new(self.l1.clone()))));
        } else {
            for &index in &changes.l1 {
                let entry = self.l1[index].to_be_bytes().to_vec();
                publish.push((self.l1_offset + 8 * index as u64, Bytes::Raw(entry)));
            }
        }
        if let Some(size) = changes.header_size {
            // In one write, for a disk longer than its L1 table is damage. Between them, 0: not encrypted.
            let entries = (self.l1.len() as u32).to_be_bytes();
            let fields = [&size.to_be_bytes()[..], &[0; 4], &entries, &self.l1_offset.to_be_bytes()].concat();
            publish.push((24, Bytes::Raw(fields)));
        }
        batch.changes = changes;
        batch
    }

    /// The batch is on stable storage. Returns the clusters it lets go of.
    pub(super) fn written(&mut self, batch: Batch) -> Vec<u64> {
        self.unpin(&batch, false);
        batch.changes.freed
    }

    /// Takes a batch back that could not be written.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.unpin(&batch, true);
        self.changes.merge(batch.changes);
    }

    fn unpin(&mut self, batch: &Batch, dirty: bool) {
        for index in &batch.blocks {
            if let Some(block) = self.blocks.get_mut(index) {
                (block.pinned, block.dirty) = (false, block.dirty || dirty);
            }
        }
        for index in &batch.l2 {
            if let Some(l2) = self.l2.get_mut(index) {
                (l2.pinned, l2.dirty) = (false, l2.dirty || dirty);
            }
        }
    }
}

/// Numbers of L1 entries and blocks that have changed.
pub(super) type Numbers = BTreeSet<usize>;
