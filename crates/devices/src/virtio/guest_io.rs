//! Transfers between a chain's guest memory and the host without a copy in between.

use super::{Chain, Segment};
use imago::io_buffers::{IoVector, IoVectorMut};
use isomer_core::memory::WriteTracker;
use rustix::io::Errno;
use std::ops::Range;
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};

/// The guest memory behind bytes `range` of `segments`.
fn slices<'a>(
    chain: &'a Chain,
    segments: &[Segment],
    range: Range<u64>,
) -> Result<Vec<VolatileSlice<'a, WriteTracker>>, Errno> {
    let mut slices = Vec::with_capacity(segments.len());
    let mut base = 0;
    for segment in segments {
        let next = base + u64::from(segment.len);
        let (from, to) = (range.start.max(base), range.end.min(next));
        if from < to {
            let start = GuestAddress(segment.gpa.0 + (from - base));
            for slice in GuestMemoryBackend::get_slices(chain.memory(), start, (to - from) as usize) {
                slices.push(slice.map_err(|_| Errno::FAULT)?);
            }
        }
        base = next;
    }
    Ok(slices)
}

/// Lets `fill` write to bytes `range` of a chain's device-writable part.
pub(super) fn read_vector<T>(
    chain: &Chain,
    range: Range<u64>,
    fill: impl FnOnce(IoVectorMut<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let slices = slices(chain, chain.writable_segments(), range)?;
    let (buffers, in_use) = IoVectorMut::from_volatile_slice(&*slices);
    let result = fill(buffers);
    drop(in_use);
    result
}

/// Lets `take` read bytes `range` of a chain's device-readable part.
pub(super) fn write_vector<T>(
    chain: &Chain,
    range: Range<u64>,
    take: impl FnOnce(IoVector<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let slices = slices(chain, chain.readable_segments(), range)?;
    let (buffers, in_use) = IoVector::from_volatile_slice(&*slices);
    let result = take(buffers);
    drop(in_use);
    result
}
