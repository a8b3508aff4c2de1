//! A disk in a qcow2 image: reads, writes, zeros, discards, and the commit that makes them last.
//!
//! Data that is written in place goes to the file at once, on the caller's thread. What needs a new cluster holds the
//! tables' lock until its data is written and the cluster mapped. Locks are taken in the order commit, use, tables.

use super::{
    super::{
        block::{IoVector, IoVectorMut},
        host_file::{HostFile, read_all, read_vec, write_all},
        layer::Layer,
    },
    DIRTY, Fields,
    check::compressed_extent,
    tables::{COPIED, Mapped, Tables, ZERO},
};
use flate2::{Decompress, FlushDecompress};
use std::{
    io::{self, ErrorKind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Where the incompatible features are in the header.
const INCOMPATIBLE_AT: u64 = 72;
/// Where those are that writing invalidates.
const AUTOCLEAR_AT: u64 = 88;

/// An open image.
#[derive(Debug)]
pub(in super::super) struct Qcow2 {
    file: Arc<dyn HostFile>,
    version: u32,
    incompatible: u64,
    /// Features that writing invalidates.
    autoclear: u64,
    size: AtomicU64,
    backing: Option<Layer>,
    writable: bool,
    /// What is flushed has to survive the host.
    durable: bool,
    tables: Mutex<Tables>,
    /// Held while clusters of the file are read or written; exclusively where some lose their purpose.
    in_use: RwLock<()>,
    commit: Mutex<()>,
    /// Data or tables were written since the last barrier.
    unsynced: AtomicBool,
    /// The header says that the image is in use for writing.
    marked: AtomicBool,
    /// The host lost what it had taken: nothing that follows could be relied on.
    failed: AtomicBool,
    /// The compressed cluster read last, by its entry.
    inflated: Mutex<(u64, Arc<Vec<u8>>)>,
}

impl Qcow2 {
    /// Opens the image in `file`, whose header is `fields`.
    pub(in super::super) fn open(
        file: Arc<dyn HostFile>,
        fields: &Fields,
        backing: Option<Layer>,
        writable: bool,
        durable: bool,
    ) -> io::Result<Self> {
        let tables = Tables::load(&*file, fields)?;
        Ok(Self {
            file,
            version: fields.version,
            incompatible: fields.incompatible & !DIRTY,
            autoclear: fields.autoclear,
            size: AtomicU64::new(fields.size),
            backing,
            writable,
            durable,
            tables: Mutex::new(tables),
            in_use: RwLock::new(()),
            commit: Mutex::new(()),
            unsynced: AtomicBool::new(false),
            marked: AtomicBool::new(writable && fields.incompatible & DIRTY != 0),
            failed: AtomicBool::new(false),
            inflated: Mutex::default(),
        })
    }

    /// The disk's length in bytes.
    pub(in super::super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> std::sync::RwLockReadGuard<'_, ()> {
        self.in_use.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> io::Result<()> {
        match self.failed.load(Ordering::Acquire) {
            true => Err(io::Error::other("the host lost writes to this image before")),
            false => Ok(()),
        }
    }

    /// What `len` bytes from `offset` are mapped to: the first of it, how many bytes of that, and the place within
    /// the first cluster.
    fn run(&self, tables: &mut Tables, offset: u64, len: u64) -> io::Result<(Mapped, u64, u64)> {
        let bits = tables.cluster_bits;
        let within = offset & (tables.cluster_bytes() - 1);
        let clusters = (within + len).div_ceil(tables.cluster_bytes());
        let (mapped, run) = tables.run(&*self.file, offset >> bits, clusters)?;
        Ok((mapped, ((run << bits) - within).min(len), within))
    }

    /// Fills `buffers` from byte `offset` on; past the end there are zeros.
    pub(in super::super) fn read(&self, mut offset: u64, buffers: IoVectorMut<'_>) -> io::Result<()> {
        let (mut rest, mut beyond) = buffers.split_at(self.size().saturating_sub(offset));
        beyond.fill(0);
        let _in_use = self.shared();
        while !rest.is_empty() {
            let (mapped, len, within) = self.run(&mut self.tables(), offset, rest.len())?;
            let (mut part, next) = match mapped {
                Mapped::Compressed { .. } => rest.split_at(len.min(self.cluster_bytes() - within)),
                _ => rest.split_at(len),
            };
            let count = part.len();
            match (mapped, &self.backing) {
                (Mapped::Data { host, .. }, _) => read_all(&*self.file, host + within, part)?,
                (Mapped::Compressed { entry }, _) => {
                    let cluster = self.inflate(entry)?;
                    part.copy_from_slice(&cluster[within as usize..(within + count) as usize]);
                }
                (Mapped::Below, Some(backing)) => backing.read(offset, part)?,
                (Mapped::Below, None) | (Mapped::Zero { .. }, _) => part.fill(0),
            }
            rest = next;
            offset += count;
        }
        Ok(())
    }

    fn cluster_bytes(&self) -> u64 {
        self.tables().cluster_bytes()
    }

    fn inflate(&self, entry: u64) -> io::Result<Arc<Vec<u8>>> {
        let mut last = self.inflated.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 == entry {
            return Ok(last.1.clone());
        }
        let bits = self.tables().cluster_bits;
        let cluster = self.inflate_held(entry, bits)?;
        *last = (entry, cluster.clone());
        Ok(cluster)
    }

    /// Writes all of `buffers`, which end within the disk.
    pub(in super::super) fn write(&self, mut offset: u64, buffers: IoVector<'_>) -> io::Result<()> {
        self.make_room()?;
        let _in_use = self.shared();
        let mut rest = buffers;
        while !rest.is_empty() {
            let mut tables = self.tables();
            let (mapped, len, within) = self.run(&mut tables, offset, rest.len())?;
            let (part, next) = rest.split_at(len);
            rest = next;
            match mapped {
                Mapped::Data { host, copied: true } => {
                    drop(tables);
                    self.write_data(host + within, part)?;
                    offset += len;
                }
                _ => {
                    let (written, left) = self.write_new(&mut tables, offset, mapped, part)?;
                    offset += written;
                    if !left.is_empty() {
                        let mut all = left;
                        all.append(rest);
                        rest = all;
                    }
                }
            }
        }
        Ok(())
    }

    fn write_data(&self, host: u64, data: IoVector<'_>) -> io::Result<()> {
        let written = write_all(&*self.file, host, data);
        self.unsynced.store(true, Ordering::Release);
        written
    }

    /// Writes the start of `data` to new clusters in place of what `mapped` says; returns how much, and what is left.
    fn write_new<'a>(
        &self,
        tables: &mut Tables,
        offset: u64,
        mapped: Mapped,
        data: IoVector<'a>,
    ) -> io::Result<(u64, IoVector<'a>)> {
        let (bits, bytes) = (tables.cluster_bits, tables.cluster_bytes());
        let (cluster, within) = (offset >> bits, offset & (bytes - 1));
        let wanted = match mapped {
            // One by one: a kept cluster has its own place, a compressed one its own content.
            Mapped::Zero { host: Some(_), copied: true } | Mapped::Compressed { .. } => 1,
            _ => (within + data.len()).div_ceil(bytes),
        };
        let (host, count, taken) = match mapped {
            Mapped::Zero { host: Some(host), copied: true } => (host, 1, false),
            _ => {
                let (first, count) = tables.allocate(&*self.file, wanted)?;
                (first << bits, count, true)
            }
        };
        let len = data.len().min((count << bits) - within);
        let (data, left) = data.split_at(len);
        let fresh = tables.is_fresh(host, count << bits);
        let filled = self.fill_around(tables, mapped, (cluster, host, count), (within, len), fresh);
        let written = filled.and_then(|()| self.write_data(host + within, data));
        let mapped_anew = written.and_then(|()| {
            (0..count).try_for_each(|n| tables.set(&*self.file, cluster + n, (host + (n << bits)) | COPIED))
        });
        match mapped_anew {
            Ok(()) => Ok((len, left)),
            Err(error) => {
                // Entries are set in order: if the first is as it was, all are.
                if taken && tables.run(&*self.file, cluster, 1).is_ok_and(|(now, _)| now == mapped) {
                    tables.give_back(&*self.file, host >> bits, count)?;
                }
                Err(error)
            }
        }
    }

    /// Copies what the first and the last of new clusters hold besides the new data.
    fn fill_around(
        &self,
        tables: &mut Tables,
        mapped: Mapped,
        (cluster, host, count): (u64, u64, u64),
        (within, len): (u64, u64),
        fresh: bool,
    ) -> io::Result<()> {
        let (bits, bytes) = (tables.cluster_bits, tables.cluster_bytes());
        let end = within + len;
        let tail = end & (bytes - 1);
        let last = count - 1;
        // `(cluster's number among the new ones, first byte, end)` of what has to be there.
        let mut gaps = Vec::with_capacity(2);
        if within > 0 {
            gaps.push((0, 0, within));
        }
        if tail > 0 {
            gaps.push((last, tail, bytes));
        }
        for (number, from, to) in gaps {
            let Some(old) = self.old_content(mapped, cluster + number, number << bits, bits)? else {
                if !fresh {
                    write_all(
                        &*self.file,
                        host + (number << bits) + from,
                        vec![0; (to - from) as usize].as_slice().into(),
                    )?;
                }
                continue;
            };
            let part = &old[from as usize..to as usize];
            write_all(&*self.file, host + (number << bits) + from, part.into())?;
        }
        Ok(())
    }

    /// What a cluster held; `None`: zeros. `ahead` is how far it lies behind the start of what `mapped` is about.
    fn old_content(
        &self,
        mapped: Mapped,
        cluster: u64,
        ahead: u64,
        bits: u32,
    ) -> io::Result<Option<Arc<Vec<u8>>>> {
        let bytes = 1_usize << bits;
        Ok(match (mapped, &self.backing) {
            (Mapped::Data { host, .. }, _) => Some(Arc::new(read_vec(&*self.file, host + ahead, bytes)?)),
            (Mapped::Compressed { entry }, _) => Some(self.inflate_held(entry, bits)?),
            (Mapped::Below, Some(backing)) => {
                let mut old = vec![0; bytes];
                backing.read(cluster << bits, old.as_mut_slice().into())?;
                Some(Arc::new(old))
            }
            (Mapped::Below, None) | (Mapped::Zero { .. }, _) => None,
        })
    }

    /// One compressed cluster, unpacked; for those who hold the tables.
    fn inflate_held(&self, entry: u64, bits: u32) -> io::Result<Arc<Vec<u8>>> {
        let (offset, len) = compressed_extent(entry, bits);
        let packed = read_vec(&*self.file, offset, len as usize)?;
        let mut cluster = vec![0; 1 << bits];
        let mut inflater = Decompress::new(false);
        inflater.decompress(&packed, &mut cluster, FlushDecompress::Finish).map_err(io::Error::other)?;
        match inflater.total_out() == 1 << bits {
            true => Ok(Arc::new(cluster)),
            false => Err(io::Error::new(ErrorKind::InvalidData, "a compressed cluster is too short")),
        }
    }

    /// Makes bytes read as zeros. With `unmap`, clusters they fill are given back; without, kept.
    pub(in super::super) fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let (head, whole, tail) = self.split_range(offset, len);
        self.zero_part(head.0, head.1)?;
        self.zero_clusters(whole.0, whole.1, unmap)?;
        self.zero_part(tail.0, tail.1)
    }

    /// Gives whole clusters back.
    pub(in super::super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let (_, whole, _) = self.split_range(offset, len);
        self.zero_clusters(whole.0, whole.1, true)
    }

    /// Splits a range into `(offset, bytes)` of a partial cluster, `(number, count)` of clusters, and a partial one.
    /// The disk's last cluster is whole where the disk ends.
    fn split_range(&self, offset: u64, len: u64) -> ((u64, u64), (u64, u64), (u64, u64)) {
        let (bits, bytes) = {
            let tables = self.tables();
            (tables.cluster_bits, tables.cluster_bytes())
        };
        let end = offset + len;
        let first = offset.div_ceil(bytes);
        let last = if end == self.size() { end.div_ceil(bytes) } else { end >> bits };
        if first >= last {
            // Within one cluster, or over one boundary without filling a cluster.
            let middle = (first << bits).clamp(offset, end);
            return ((offset, middle - offset), (first, 0), (middle, end - middle));
        }
        let tail = (last << bits).min(end);
        ((offset, (first << bits) - offset), (first, last - first), (tail, end - tail))
    }

    /// Zeros for less than a cluster, as data unless they are there.
    fn zero_part(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mapped = self.run(&mut self.tables(), offset, len)?.0;
        let zero = matches!(mapped, Mapped::Zero { .. }) || mapped == Mapped::Below && self.backing.is_none();
        match zero {
            true => Ok(()),
            false => self.write(offset, vec![0; len as usize].as_slice().into()),
        }
    }

    fn zero_clusters(&self, first: u64, count: u64, unmap: bool) -> io::Result<()> {
        let (mut at, end) = (first, first + count);
        while at < end {
            self.make_room()?;
            let _in_use = self.shared();
            let mut tables = self.tables();
            if self.backing.is_none()
                && let Some(next) = tables.unmapped_until(&*self.file, at)?
            {
                at = next;
                continue;
            }
            let (mapped, run) = tables.run(&*self.file, at, end - at)?;
            match self.zero_entry(mapped, unmap) {
                Zeroed::Already => {}
                Zeroed::Entry(entry) => {
                    for n in 0..run {
                        let host = entry & !(COPIED | ZERO);
                        let step = if host == 0 { 0 } else { n << tables.cluster_bits };
                        tables.set(&*self.file, at + n, entry + step)?;
                    }
                }
                Zeroed::AsData => {
                    let bits = tables.cluster_bits;
                    drop(tables);
                    drop(_in_use);
                    let zeroes = vec![0; 1 << bits];
                    for n in 0..run {
                        let offset = (at + n) << bits;
                        let len = self.size().saturating_sub(offset).min(1 << bits);
                        self.write(offset, zeroes[..len as usize].into())?;
                    }
                }
            }
            at += run;
        }
        Ok(())
    }

    /// What makes a cluster read as zeros.
    fn zero_entry(&self, mapped: Mapped, unmap: bool) -> Zeroed {
        let flags = self.version >= 3;
        match (mapped, unmap) {
            (Mapped::Below, _) if self.backing.is_none() => Zeroed::Already,
            (Mapped::Zero { host: None, .. }, _) | (Mapped::Zero { .. }, false) => Zeroed::Already,
            (Mapped::Data { host, copied: true }, false) if flags => Zeroed::Entry(host | COPIED | ZERO),
            (Mapped::Data { copied: true, .. }, false) => Zeroed::AsData,
            // Without anything below, what is not mapped is zeros.
            _ if self.backing.is_none() => Zeroed::Entry(0),
            _ if flags => Zeroed::Entry(ZERO),
            _ => Zeroed::AsData,
        }
    }

    /// Does an image of this kind hold data for `len` bytes from `offset`, and for how many of them is that so?
    pub(in super::super) fn data_or_hole(&self, offset: u64, len: u64) -> io::Result<(bool, u64)> {
        let (mapped, len, _) = self.run(&mut self.tables(), offset, len)?;
        match (mapped, &self.backing) {
            (Mapped::Below, Some(backing)) => backing.data_or_hole(offset, len),
            (Mapped::Below, None) | (Mapped::Zero { .. }, _) => Ok((false, len)),
            _ => Ok((true, len)),
        }
    }

    /// Changes the disk's length.
    pub(in super::super) fn resize(&self, size: u64) -> io::Result<()> {
        let old = self.size();
        if size > old {
            self.tables().resize(&*self.file, size)?;
            self.flush()?;
            // What the backing file holds beyond the old end must not appear.
            let below = self.backing.as_ref().map_or(0, Layer::size);
            let hidden = below.min(size).saturating_sub(old);
            self.size.store(size, Ordering::Release);
            if hidden > 0 {
                self.write_zeroes(old, hidden, true)?;
            }
        } else {
            // Zeroed first, so that growing again shows zeros; then shorter.
            self.write_zeroes(size, old - size, true)?;
            self.tables().resize(&*self.file, size)?;
            self.size.store(size, Ordering::Release);
        }
        self.flush()
    }

    /// Writes what has changed if it has become much.
    fn make_room(&self) -> io::Result<()> {
        self.check()?;
        if self.tables().is_full() { self.flush() } else { Ok(()) }
    }

    fn barrier(&self) -> io::Result<()> {
        let synced = if self.durable { self.file.sync() } else { Ok(()) };
        synced.inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    /// Returns when everything written before is on stable storage.
    pub(in super::super) fn flush(&self) -> io::Result<()> {
        if !self.writable {
            return Ok(());
        }
        self.check()?;
        let _commit = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = self.tables().take_batch();
        let written = self.write_batch(&batch);
        if let Err(error) = written {
            self.tables().put_back(batch);
            return Err(error);
        }
        let freed = self.tables().written(batch);
        if freed.is_empty() {
            return Ok(());
        }
        // Nobody may still be reading or writing what is given away now.
        let _alone = self.in_use.write().unwrap_or_else(PoisonError::into_inner);
        let mut tables = self.tables();
        let free = tables.free(&*self.file, &freed)?;
        let bits = tables.cluster_bits;
        for run in free.chunk_by(|a, b| a + 1 == *b) {
            // The host need not take it.
            let _ = self.file.discard(run[0] << bits, (run.len() as u64) << bits);
        }
        Ok(())
    }

    fn write_batch(&self, batch: &super::batch::Batch) -> io::Result<()> {
        if self.unsynced.swap(false, Ordering::AcqRel) {
            self.barrier()?;
        }
        if batch.is_empty() {
            return Ok(());
        }
        if self.version >= 3 && !self.marked.load(Ordering::Acquire) {
            self.mark(DIRTY)?;
            self.barrier()?;
            self.marked.store(true, Ordering::Release);
        }
        for step in 0..batch.phases.len() {
            if !batch.phases[step].is_empty() {
                batch.write(&*self.file, step)?;
                self.barrier()?;
            }
        }
        Ok(())
    }

    /// Tells whoever opens the image whether leaked clusters are to be expected.
    fn mark(&self, bits: u64) -> io::Result<()> {
        let features = (self.incompatible | bits).to_be_bytes();
        if self.autoclear != 0 {
            write_all(&*self.file, AUTOCLEAR_AT, [0; 8][..].into())?;
        }
        write_all(&*self.file, INCOMPATIBLE_AT, features.as_slice().into())
    }

    fn close(&self) -> io::Result<()> {
        self.flush()?;
        if self.marked.load(Ordering::Acquire) {
            // Once more, for the counts of clusters that the last flush let go of.
            self.flush()?;
            self.mark(0)?;
            self.barrier()?;
        }
        Ok(())
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        if self.writable
            && let Err(error) = self.close()
        {
            tracing::error!("a disk image could not be closed properly: {error}");
        }
    }
}

enum Zeroed {
    /// It does.
    Already,
    /// This L2 entry does it.
    Entry(u64),
    /// Zeros have to be written.
    AsData,
}
