//! Where a command's data is in guest memory: physical region pages (NVMe 1.4, 4.3).

use super::spec::Status;
use crate::virtio::Segment;
use isomer_core::{Gpa, GuestMemory};

/// Bytes of a memory page: the only size offered.
pub(super) const PAGE: u64 = 4096;

/// The `len` bytes that `prp1` and `prp2` describe, page by page. All of it is RAM. `len` is at most what
/// [`super::MAX_TRANSFER_BYTES`] says, so the lists are short.
pub(super) fn segments(memory: &GuestMemory, prp1: u64, prp2: u64, len: u64) -> Result<Vec<Segment>, Status> {
    let mut segments = Vec::with_capacity((len / PAGE) as usize + 2);
    let mut add = |at: u64, len: u64| {
        if !memory.is_ram(Gpa(at), len as usize) {
            return Err(Status::TRANSFER_ERROR);
        }
        segments.push(Segment { gpa: Gpa(at), len: len as u32 });
        Ok(())
    };
    if len == 0 {
        return Ok(segments);
    }
    if !prp1.is_multiple_of(4) {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    let first = (PAGE - prp1 % PAGE).min(len);
    add(prp1, first)?;
    let mut left = len - first;
    if left == 0 {
        return Ok(segments);
    }
    if left <= PAGE {
        if !prp2.is_multiple_of(PAGE) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        add(prp2, left)?;
        return Ok(segments);
    }
    if !prp2.is_multiple_of(8) {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    let mut list = prp2;
    while left > 0 {
        let mut raw = [0; 8];
        memory.read(Gpa(list), &mut raw).map_err(|_| Status::TRANSFER_ERROR)?;
        let entry = u64::from_le_bytes(raw);
        if !entry.is_multiple_of(PAGE) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        let last_in_page = list % PAGE == PAGE - 8;
        if last_in_page && left > PAGE {
            // Each page of a list but the last ends in where the next one is, and has 511 entries before: no loop
            // of them goes on without data.
            list = entry;
            continue;
        }
        let part = left.min(PAGE);
        add(entry, part)?;
        left -= part;
        list += 8;
    }
    Ok(segments)
}

/// Copies what a guest has described out of its memory.
pub(super) fn read(memory: &GuestMemory, segments: &[Segment], into: &mut [u8]) -> Result<(), Status> {
    let mut at = 0;
    for segment in segments {
        let part = &mut into[at..at + segment.len as usize];
        memory.read(segment.gpa, part).map_err(|_| Status::TRANSFER_ERROR)?;
        at += segment.len as usize;
    }
    Ok(())
}

/// Copies `data` to it.
pub(super) fn write(memory: &GuestMemory, segments: &[Segment], data: &[u8]) -> Result<(), Status> {
    let mut at = 0;
    for segment in segments {
        let part = &data[at..at + segment.len as usize];
        memory.write(segment.gpa, part).map_err(|_| Status::TRANSFER_ERROR)?;
        at += segment.len as usize;
    }
    Ok(())
}
