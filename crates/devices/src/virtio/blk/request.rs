//! One block request (Virtio 1.3, 5.2.6): a 16-byte header and data the device reads, data the device writes, and
//! a status byte at the very end of what it may write.

use super::{MAX_RANGE_SECTORS, MAX_RANGES};
use crate::{
    backend::{
        block::{BlockBackend, SECTOR_BYTES},
        guest_buffers::{read_disk, write_disk},
    },
    virtio::Chain,
};
use isomer_core::guest_warn;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

/// Bytes of `struct virtio_blk_req` before the data.
const HEADER_BYTES: u64 = 16;
/// Bytes of `struct virtio_blk_discard_write_zeroes`.
const RANGE_BYTES: u64 = 16;
/// Bytes GET_ID answers with.
pub(super) const ID_BYTES: usize = 20;
/// `flags` of a range: the sectors may be given back.
const RANGE_FLAG_UNMAP: u32 = 1;

/// What a guest did to its disk, and how much of it failed.
#[derive(Debug, Default)]
pub struct BlkStats {
    /// IN requests completed.
    pub reads: AtomicU64,
    /// Bytes they brought.
    pub read_bytes: AtomicU64,
    /// OUT requests completed.
    pub writes: AtomicU64,
    /// Bytes they took.
    pub written_bytes: AtomicU64,
    /// FLUSH requests completed.
    pub flushes: AtomicU64,
    /// Requests answered with an error, by the host's fault or the guest's.
    pub errors: AtomicU64,
}

/// A disk as all workers share it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) backend: Arc<dyn BlockBackend>,
    pub(super) sectors: u64,
    pub(super) read_only: bool,
    pub(super) id: [u8; ID_BYTES],
    /// A write is complete only when it is on stable storage.
    pub(super) write_through: AtomicBool,
    pub(super) stats: BlkStats,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The guest asked for what it must not.
    #[error("{0}")]
    Wrong(&'static str),
    /// The guest asked for what is not offered.
    #[error("request type {0} is not supported")]
    Unsupported(u32),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] io::Error),
}

impl Refusal {
    fn status(&self) -> u8 {
        let status = match self {
            Self::Unsupported(_) => VIRTIO_BLK_S_UNSUPP,
            Self::Wrong(_) | Self::Host(_) => VIRTIO_BLK_S_IOERR,
        };
        status as u8
    }
}

/// The request has no byte to answer in.
#[derive(Debug, thiserror::Error)]
#[error("a disk request has no room for its status")]
pub(super) struct NoStatus;

/// Carries out the request in `chain` and writes its status; returns how much of the writable part was written.
pub(super) fn serve(disk: &Disk, chain: &mut Chain) -> Result<u32, NoStatus> {
    let status_at = chain.writable_len().checked_sub(1).ok_or(NoStatus)?;
    let (status, filled) = match run(disk, chain, status_at) {
        Ok(filled) => (VIRTIO_BLK_S_OK as u8, filled),
        Err(refusal) => {
            disk.stats.errors.fetch_add(1, Ordering::Relaxed);
            guest_warn!("disk request failed: {refusal}");
            (refusal.status(), 0)
        }
    };
    // The driver is told that everything up to the status was written, so everything is (Virtio 1.3, 2.7.8.2).
    let answered = zero(chain, filled, status_at).and_then(|()| chain.write_at(status_at, &[status]));
    // The chain was found to be in RAM when it was popped, and RAM does not go away.
    answered.map_err(|_| NoStatus)?;
    Ok(u32::try_from(status_at + 1).unwrap_or(u32::MAX))
}

fn zero(chain: &Chain, from: u64, to: u64) -> io::Result<()> {
    const ZEROES: [u8; 4096] = [0; 4096];
    let mut at = from;
    while at < to {
        let len = (to - at).min(ZEROES.len() as u64);
        at += chain.write_at(at, &ZEROES[..len as usize])? as u64;
    }
    Ok(())
}

/// Carries out the request; returns how many bytes of data it wrote to the guest, of `room`.
fn run(disk: &Disk, chain: &Chain, room: u64) -> Result<u64, Refusal> {
    let mut header = [0; HEADER_BYTES as usize];
    if chain.read_at(0, &mut header)? < header.len() {
        return Err(Refusal::Wrong("the header is too short"));
    }
    let [kind, _priority, sector_low, sector_high] =
        std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|b| header[4 * i + b])));
    let sector = u64::from(sector_high) << 32 | u64::from(sector_low);
    let data = chain.readable_len() - HEADER_BYTES;
    match kind {
        VIRTIO_BLK_T_IN => read(disk, chain, sector, room),
        VIRTIO_BLK_T_OUT => write(disk, chain, sector, data).map(|()| 0),
        VIRTIO_BLK_T_FLUSH => flush(disk).map(|()| 0),
        VIRTIO_BLK_T_GET_ID => Ok(chain.write_at(0, &disk.id[..room.min(ID_BYTES as u64) as usize])? as u64),
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => ranges(disk, chain, kind, data).map(|()| 0),
        other => Err(Refusal::Unsupported(other)),
    }
}

/// The byte at which `len` bytes from `sector` start, if they are whole sectors of the disk.
fn place(disk: &Disk, sector: u64, len: u64) -> Result<u64, Refusal> {
    if !len.is_multiple_of(SECTOR_BYTES) {
        return Err(Refusal::Wrong("the data is not whole sectors"));
    }
    if sector > disk.sectors || len / SECTOR_BYTES > disk.sectors - sector {
        return Err(Refusal::Wrong("the request goes beyond the end of the disk"));
    }
    Ok(sector * SECTOR_BYTES)
}

fn check_writable(disk: &Disk) -> Result<(), Refusal> {
    if disk.read_only { Err(Refusal::Wrong("the disk is read-only")) } else { Ok(()) }
}

fn read(disk: &Disk, chain: &Chain, sector: u64, len: u64) -> Result<u64, Refusal> {
    let offset = place(disk, sector, len)?;
    read_disk(&*disk.backend, offset, chain.memory(), chain.writable_segments(), 0..len)?;
    disk.stats.reads.fetch_add(1, Ordering::Relaxed);
    disk.stats.read_bytes.fetch_add(len, Ordering::Relaxed);
    Ok(len)
}

fn write(disk: &Disk, chain: &Chain, sector: u64, len: u64) -> Result<(), Refusal> {
    check_writable(disk)?;
    let offset = place(disk, sector, len)?;
    let data = HEADER_BYTES..HEADER_BYTES + len;
    write_disk(&*disk.backend, offset, chain.memory(), chain.readable_segments(), data)?;
    disk.stats.writes.fetch_add(1, Ordering::Relaxed);
    disk.stats.written_bytes.fetch_add(len, Ordering::Relaxed);
    harden(disk)
}

fn flush(disk: &Disk) -> Result<(), Refusal> {
    disk.backend.flush()?;
    disk.stats.flushes.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// After a change: with the cache in write-through mode, waits until it is stable.
fn harden(disk: &Disk) -> Result<(), Refusal> {
    if disk.write_through.load(Ordering::Acquire) { Ok(disk.backend.flush()?) } else { Ok(()) }
}

/// DISCARD and WRITE_ZEROES: the data is a list of ranges. All are checked before the first is touched.
fn ranges(disk: &Disk, chain: &Chain, kind: u32, len: u64) -> Result<(), Refusal> {
    check_writable(disk)?;
    if len == 0 || !len.is_multiple_of(RANGE_BYTES) || len / RANGE_BYTES > u64::from(MAX_RANGES) {
        return Err(Refusal::Wrong("the list of ranges has a wrong length"));
    }
    let mut list = [0; (RANGE_BYTES * MAX_RANGES as u64) as usize];
    chain.read_at(HEADER_BYTES, &mut list[..len as usize])?;
    let zeroes = kind == VIRTIO_BLK_T_WRITE_ZEROES;
    let allowed_flags = if zeroes { RANGE_FLAG_UNMAP } else { 0 };
    let ranges = list[..len as usize].chunks_exact(RANGE_BYTES as usize).map(|raw| {
        let raw: [u8; RANGE_BYTES as usize] = std::array::from_fn(|at| raw[at]);
        let raw = u128::from_le_bytes(raw);
        let (sector, sectors, flags) = (raw as u64, (raw >> 64) as u32, (raw >> 96) as u32);
        if flags & !allowed_flags != 0 {
            return Err(Refusal::Unsupported(kind));
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Refusal::Wrong("a range is too long"));
        }
        let len = u64::from(sectors) * SECTOR_BYTES;
        Ok((place(disk, sector, len)?, len, flags & RANGE_FLAG_UNMAP != 0))
    });
    for (offset, len, unmap) in ranges.collect::<Result<Vec<_>, _>>()? {
        match zeroes {
            true => disk.backend.write_zeroes(offset, len, unmap)?,
            false => disk.backend.discard(offset, len)?,
        }
    }
    harden(disk)
}
