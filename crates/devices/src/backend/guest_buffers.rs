//! Disk reads and writes straight from and to guest memory, without a copy.

use super::block::{BlockBackend, IoVector, IoVectorMut};
use crate::virtio::Segment;
use isomer_core::memory::{RamMap, WriteTracker};
use std::{io, ops::Range};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};

/// Buffers handed to the host in one call; `IOV_MAX` is 1024 everywhere.
const MAX_BUFFERS: usize = 512;

/// The guest memory behind bytes `range` of `segments`, all of which are RAM.
fn slices<'a>(
    memory: &'a RamMap,
    segments: &[Segment],
    range: Range<u64>,
) -> io::Result<Vec<VolatileSlice<'a, WriteTracker>>> {
    let mut slices = Vec::with_capacity(segments.len());
    let mut base = 0;
    for segment in segments {
        let next = base + u64::from(segment.len);
        let (from, to) = (range.start.max(base), range.end.min(next));
        if from < to {
            let start = GuestAddress(segment.gpa.0 + (from - base));
            for slice in GuestMemoryBackend::get_slices(memory, start, (to - from) as usize) {
                slices.push(slice.map_err(io::Error::other)?);
            }
        }
        base = next;
    }
    Ok(slices)
}

/// Reads the disk from byte `offset` into bytes `range` of `segments`.
pub(crate) fn read_disk(
    disk: &dyn BlockBackend,
    mut offset: u64,
    memory: &RamMap,
    segments: &[Segment],
    range: Range<u64>,
) -> io::Result<()> {
    for slices in slices(memory, segments, range)?.chunks(MAX_BUFFERS) {
        let (buffers, in_use) = IoVectorMut::from_volatile_slice(slices);
        let count = buffers.len();
        disk.read_vectored(offset, buffers)?;
        drop(in_use);
        offset += count;
    }
    Ok(())
}

/// Writes bytes `range` of `segments` to the disk from byte `offset`.
pub(crate) fn write_disk(
    disk: &dyn BlockBackend,
    mut offset: u64,
    memory: &RamMap,
    segments: &[Segment],
    range: Range<u64>,
) -> io::Result<()> {
    for slices in slices(memory, segments, range)?.chunks(MAX_BUFFERS) {
        let (buffers, in_use) = IoVector::from_volatile_slice(slices);
        let count = buffers.len();
        disk.write_vectored(offset, buffers)?;
        drop(in_use);
        offset += count;
    }
    Ok(())
}
