//! SCSI logical units as targets answer for them: a disk (SBC-3) or a CD-ROM drive with a disc in it (MMC-6), with
//! what both have in common (SPC-4). Which bus carries commands and data is the [`Transfer`]'s business.

mod cd;
mod inquiry;
mod sense;
#[cfg(test)]
mod tests;

pub use sense::{Sense, status};

use crate::backend::{BlockBackend, block::SECTOR_BYTES};
use isomer_core::guest_warn;
use std::{io, sync::Arc};

/// Bytes of a command descriptor block that are looked at.
pub const CDB_BYTES: usize = 32;
/// Ranges of one UNMAP command.
const MAX_UNMAP_RANGES: usize = 256;
/// Blocks of one WRITE SAME command: 2 GiB of a disk.
const MAX_SAME_BLOCKS: u64 = 1 << 22;

/// Operation codes.
mod op {
    pub(super) const TEST_UNIT_READY: u8 = 0x00;
    pub(super) const REQUEST_SENSE: u8 = 0x03;
    pub(super) const READ_6: u8 = 0x08;
    pub(super) const WRITE_6: u8 = 0x0a;
    pub(super) const INQUIRY: u8 = 0x12;
    pub(super) const MODE_SENSE_6: u8 = 0x1a;
    pub(super) const START_STOP_UNIT: u8 = 0x1b;
    pub(super) const PREVENT_ALLOW_REMOVAL: u8 = 0x1e;
    pub(super) const READ_CAPACITY_10: u8 = 0x25;
    pub(super) const READ_10: u8 = 0x28;
    pub(super) const WRITE_10: u8 = 0x2a;
    pub(super) const VERIFY_10: u8 = 0x2f;
    pub(super) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub(super) const WRITE_SAME_10: u8 = 0x41;
    pub(super) const UNMAP: u8 = 0x42;
    pub(super) const READ_TOC: u8 = 0x43;
    pub(super) const GET_CONFIGURATION: u8 = 0x46;
    pub(super) const GET_EVENT_STATUS: u8 = 0x4a;
    pub(super) const READ_DISC_INFORMATION: u8 = 0x51;
    pub(super) const MODE_SENSE_10: u8 = 0x5a;
    pub(super) const READ_16: u8 = 0x88;
    pub(super) const WRITE_16: u8 = 0x8a;
    pub(super) const VERIFY_16: u8 = 0x8f;
    pub(super) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub(super) const WRITE_SAME_16: u8 = 0x93;
    pub(super) const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub(super) const REPORT_LUNS: u8 = 0xa0;
    pub(super) const READ_12: u8 = 0xa8;
    pub(super) const WRITE_12: u8 = 0xaa;
}

/// What a logical unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// A disk.
    Disk,
    /// A CD-ROM drive. Its backend is never written.
    Cdrom,
}

/// The data of one command, where the bus has it.
pub trait Transfer {
    /// Bytes the initiator sends.
    fn out_len(&self) -> u64;
    /// Bytes it has room for.
    fn in_len(&self) -> u64;
    /// Copies the first bytes it sends.
    fn take(&self, into: &mut [u8]) -> io::Result<()>;
    /// Gives it bytes from the start of its room.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Reads the disk from byte `offset` into its room, whole.
    fn read_disk(&mut self, disk: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<()>;
    /// Writes the first `len` bytes it sends to the disk.
    fn write_disk(&self, disk: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<()>;
}

/// How a command ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// CHECK CONDITION with this sense.
    Check(Sense),
    /// The command moves more than the initiator has sent or has room for.
    Overrun,
}

impl From<Sense> for Failure {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

impl From<io::Error> for Failure {
    /// Of the transfer itself, which is RAM that was checked.
    fn from(_: io::Error) -> Self {
        Self::Check(Sense::TRANSFER_FAILED)
    }
}

/// A logical unit.
#[derive(Clone, Debug)]
pub struct Unit {
    kind: UnitKind,
    disk: Arc<dyn BlockBackend>,
    serial: String,
}

fn be16(cdb: &[u8], at: usize) -> u64 {
    u64::from(cdb[at]) << 8 | u64::from(cdb[at + 1])
}

fn be32(cdb: &[u8], at: usize) -> u64 {
    be16(cdb, at) << 16 | be16(cdb, at + 2)
}

fn be64(cdb: &[u8], at: usize) -> u64 {
    be32(cdb, at) << 32 | be32(cdb, at + 4)
}

impl Unit {
    /// A unit on `disk`.
    pub fn new(kind: UnitKind, disk: Arc<dyn BlockBackend>, serial: &str) -> Self {
        Self { kind, disk, serial: serial.into() }
    }

    /// What it is.
    pub fn kind(&self) -> UnitKind {
        self.kind
    }

    /// Bytes of a logical block.
    fn block_bytes(&self) -> u64 {
        match self.kind {
            UnitKind::Disk => SECTOR_BYTES,
            UnitKind::Cdrom => 2048,
        }
    }

    /// Its length in blocks.
    pub fn blocks(&self) -> u64 {
        match self.kind {
            UnitKind::Disk => self.disk.sectors(),
            UnitKind::Cdrom => self.disk.size_bytes().div_ceil(self.block_bytes()),
        }
    }

    /// Are writes refused?
    pub fn read_only(&self) -> bool {
        self.kind == UnitKind::Cdrom || self.disk.read_only()
    }

    /// Carries out a command; returns how many bytes it moved.
    pub fn execute(&self, cdb: &[u8; CDB_BYTES], data: &mut dyn Transfer) -> Result<u64, Failure> {
        match (cdb[0], self.kind) {
            (op::TEST_UNIT_READY | op::START_STOP_UNIT | op::PREVENT_ALLOW_REMOVAL, _) => Ok(0),
            (op::REQUEST_SENSE, _) => give(data, &Sense::NONE.fixed(), cdb[4].into()),
            (op::INQUIRY, _) => give(data, &self.inquiry(cdb)?, be16(cdb, 3)),
            (op::REPORT_LUNS, _) => {
                give(data, &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], be32(cdb, 6))
            }
            (op::MODE_SENSE_6, _) => give(data, &self.mode_sense(cdb, false)?, cdb[4].into()),
            (op::MODE_SENSE_10, _) => give(data, &self.mode_sense(cdb, true)?, be16(cdb, 7)),
            (op::READ_CAPACITY_10, _) => give(data, &self.capacity_10(), 8),
            (op::SERVICE_ACTION_IN_16, UnitKind::Disk) if cdb[1] & 0x1f == 0x10 => {
                give(data, &self.capacity_16(), be32(cdb, 10))
            }
            (op::READ_6 | op::READ_10 | op::READ_12 | op::READ_16, _) => self.read(cdb, data),
            (op::VERIFY_10 | op::VERIFY_16, _) => self.verify(cdb),
            (op::SYNCHRONIZE_CACHE_10 | op::SYNCHRONIZE_CACHE_16, _) => self.flush().map(|()| 0),
            (op::WRITE_6 | op::WRITE_10 | op::WRITE_12 | op::WRITE_16, UnitKind::Disk) => {
                self.write(cdb, data)
            }
            (op::WRITE_SAME_10 | op::WRITE_SAME_16, UnitKind::Disk) => self.write_same(cdb, data),
            (op::UNMAP, UnitKind::Disk) => self.unmap(cdb, data),
            (op::READ_TOC, UnitKind::Cdrom) => give(data, &cd::toc(self.blocks(), cdb)?, be16(cdb, 7)),
            (op::GET_CONFIGURATION, UnitKind::Cdrom) => give(data, &cd::configuration(), be16(cdb, 7)),
            (op::GET_EVENT_STATUS, UnitKind::Cdrom) => give(data, &cd::event_status(cdb)?, be16(cdb, 7)),
            (op::READ_DISC_INFORMATION, UnitKind::Cdrom) => give(data, &cd::disc_information(), be16(cdb, 7)),
            _ => Err(Sense::INVALID_OPCODE.into()),
        }
    }

    fn capacity_10(&self) -> [u8; 8] {
        let last = u32::try_from(self.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
        let mut answer = [0; 8];
        answer[..4].copy_from_slice(&last.to_be_bytes());
        answer[4..].copy_from_slice(&(self.block_bytes() as u32).to_be_bytes());
        answer
    }

    fn capacity_16(&self) -> [u8; 32] {
        let mut answer = [0; 32];
        answer[..8].copy_from_slice(&self.blocks().saturating_sub(1).to_be_bytes());
        answer[8..12].copy_from_slice(&(self.block_bytes() as u32).to_be_bytes());
        // Eight blocks in a physical one; blocks can be unmapped.
        (answer[13], answer[14]) = (3, if self.read_only() { 0 } else { 0x80 });
        answer
    }

    /// First byte and length of the blocks a command is about.
    fn extent(&self, cdb: &[u8; CDB_BYTES]) -> Result<(u64, u64), Failure> {
        let (first, count) = match cdb[0] {
            // A count of 0 is 256 here alone.
            op::READ_6 | op::WRITE_6 => {
                (be32(cdb, 0) & 0x1f_ffff, (u64::from(cdb[4]).wrapping_sub(1) & 0xff) + 1)
            }
            op::READ_12 | op::WRITE_12 => (be32(cdb, 2), be32(cdb, 6)),
            op::READ_16 | op::WRITE_16 | op::VERIFY_16 | op::WRITE_SAME_16 => (be64(cdb, 2), be32(cdb, 10)),
            _ => (be32(cdb, 2), be16(cdb, 7)),
        };
        self.checked(first, count)
    }

    fn checked(&self, first: u64, count: u64) -> Result<(u64, u64), Failure> {
        let blocks = self.blocks();
        if first > blocks || count > blocks - first {
            return Err(Sense::OUT_OF_RANGE.into());
        }
        Ok((first * self.block_bytes(), count * self.block_bytes()))
    }

    fn read(&self, cdb: &[u8; CDB_BYTES], data: &mut dyn Transfer) -> Result<u64, Failure> {
        let (offset, len) = self.extent(cdb)?;
        if len > data.in_len() {
            return Err(Failure::Overrun);
        }
        data.read_disk(&*self.disk, offset, len).map_err(failed(Sense::READ_ERROR))?;
        Ok(len)
    }

    fn write(&self, cdb: &[u8; CDB_BYTES], data: &mut dyn Transfer) -> Result<u64, Failure> {
        self.check_writable()?;
        let (offset, len) = self.extent(cdb)?;
        if len > data.out_len() {
            return Err(Failure::Overrun);
        }
        data.write_disk(&*self.disk, offset, len).map_err(failed(Sense::WRITE_ERROR))?;
        // Force unit access, which the short form does not have.
        if cdb[0] != op::WRITE_6 && cdb[1] & 8 != 0 {
            self.flush()?;
        }
        Ok(len)
    }

    fn verify(&self, cdb: &[u8; CDB_BYTES]) -> Result<u64, Failure> {
        // Comparing with data is not offered.
        if cdb[1] & 6 != 0 {
            return Err(Sense::INVALID_FIELD.into());
        }
        self.extent(cdb).map(|_| 0)
    }

    fn check_writable(&self) -> Result<(), Failure> {
        if self.read_only() { Err(Sense::WRITE_PROTECTED.into()) } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Failure> {
        if self.read_only() {
            return Ok(());
        }
        self.disk.flush().map_err(failed(Sense::WRITE_ERROR))
    }

    /// Zeros only: other patterns are written as data by whoever wants them.
    fn write_same(&self, cdb: &[u8; CDB_BYTES], data: &mut dyn Transfer) -> Result<u64, Failure> {
        self.check_writable()?;
        let (mut offset, mut len) = self.extent(cdb)?;
        if len == 0 {
            // Up to the end.
            (offset, len) =
                self.checked(offset / self.block_bytes(), self.blocks() - offset / self.block_bytes())?;
        }
        if len / self.block_bytes() > MAX_SAME_BLOCKS {
            return Err(Sense::INVALID_FIELD.into());
        }
        let mut moved = 0;
        // No data-out buffer: zeros.
        if cdb[0] == op::WRITE_SAME_10 || cdb[1] & 1 == 0 {
            moved = self.block_bytes();
            if data.out_len() < moved {
                return Err(Failure::Overrun);
            }
            let mut block = vec![0; moved as usize];
            data.take(&mut block)?;
            if block.iter().any(|byte| *byte != 0) {
                return Err(Sense::INVALID_FIELD.into());
            }
        }
        let unmap = cdb[1] & 8 != 0;
        self.disk.write_zeroes(offset, len, unmap).map_err(failed(Sense::WRITE_ERROR))?;
        Ok(moved)
    }

    fn unmap(&self, cdb: &[u8; CDB_BYTES], data: &mut dyn Transfer) -> Result<u64, Failure> {
        self.check_writable()?;
        let len = be16(cdb, 7);
        if len == 0 {
            return Ok(0);
        }
        if len > data.out_len() {
            return Err(Failure::Overrun);
        }
        let mut list = vec![0; len as usize];
        data.take(&mut list)?;
        let Some(head) = list.get(..8) else { return Err(Sense::PARAMETER_LENGTH.into()) };
        let described = be16(head, 2) as usize;
        let Some(ranges) = list.get(8..8 + described) else { return Err(Sense::PARAMETER_LENGTH.into()) };
        let ranges = ranges.chunks_exact(16);
        if ranges.len() > MAX_UNMAP_RANGES {
            return Err(Sense::INVALID_PARAMETER.into());
        }
        let checked = |range: &[u8]| self.checked(be64(range, 0), be32(range, 8));
        // All are checked before the first is touched.
        for (offset, len) in ranges.map(checked).collect::<Result<Vec<_>, _>>()? {
            self.disk.discard(offset, len).map_err(failed(Sense::WRITE_ERROR))?;
        }
        Ok(len)
    }
}

/// Gives the initiator what it has asked for and has room for.
fn give(data: &mut dyn Transfer, answer: &[u8], asked: u64) -> Result<u64, Failure> {
    let len = (answer.len() as u64).min(asked).min(data.in_len());
    data.put(&answer[..len as usize])?;
    Ok(len)
}

/// What a failure of the host is to the initiator.
fn failed(sense: Sense) -> impl Fn(io::Error) -> Failure {
    move |error| {
        guest_warn!("SCSI command failed: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Sense::NO_SPACE.into(),
            _ => sense.into(),
        }
    }
}
