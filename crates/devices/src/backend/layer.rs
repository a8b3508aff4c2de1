//! One image of a chain: raw, or qcow2 with what is below it.

use super::{
    block::{IoVector, IoVectorMut},
    host_file::{HostFile, read_all, write_all},
    qcow2::Qcow2,
};
use std::{
    io::{self, ErrorKind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// An image as a line of bytes.
#[derive(Debug)]
pub(super) enum Layer {
    Raw(Raw),
    Qcow2(Box<Qcow2>),
}

/// The file is the disk.
#[derive(Debug)]
pub(super) struct Raw {
    file: Arc<dyn HostFile>,
    size: AtomicU64,
    durable: bool,
    failed: AtomicBool,
}

impl Raw {
    pub(super) fn open(file: Arc<dyn HostFile>, durable: bool) -> io::Result<Self> {
        let size = AtomicU64::new(file.len()?);
        Ok(Self { file, size, durable, failed: AtomicBool::new(false) })
    }

    /// Once the host has lost something it had taken, it is believed no more.
    fn check(&self) -> io::Result<()> {
        match self.failed.load(Ordering::Acquire) {
            true => Err(io::Error::other("the host lost writes to this image before")),
            false => Ok(()),
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.check()?;
        let synced = if self.durable { self.file.sync() } else { Ok(()) };
        synced.inspect_err(|_| self.failed.store(true, Ordering::Release))
    }
}

impl Layer {
    /// The disk's length in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Raw(raw) => raw.size.load(Ordering::Acquire),
            Self::Qcow2(qcow2) => qcow2.size(),
        }
    }

    /// Fills `buffers` from `offset`; zeros past the end.
    pub(super) fn read(&self, offset: u64, buffers: IoVectorMut<'_>) -> io::Result<()> {
        match self {
            Self::Raw(raw) => {
                let (inside, mut beyond) = buffers.split_at(self.size().saturating_sub(offset));
                beyond.fill(0);
                read_all(&*raw.file, offset, inside)
            }
            Self::Qcow2(qcow2) => qcow2.read(offset, buffers),
        }
    }

    /// Writes all of `buffers`, which end within the disk.
    pub(super) fn write(&self, offset: u64, buffers: IoVector<'_>) -> io::Result<()> {
        match self {
            Self::Raw(raw) => {
                raw.check()?;
                write_all(&*raw.file, offset, buffers)
            }
            Self::Qcow2(qcow2) => qcow2.write(offset, buffers),
        }
    }

    /// Returns when everything written before is on stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.flush(),
            Self::Qcow2(qcow2) => qcow2.flush(),
        }
    }

    /// Gives storage back.
    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.check().and_then(|()| raw.file.discard(offset, len)),
            Self::Qcow2(qcow2) => qcow2.discard(offset, len),
        }
    }

    /// Makes bytes read as zeros.
    pub(super) fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.check().and_then(|()| raw.file.zero(offset, len, unmap)),
            Self::Qcow2(qcow2) => qcow2.write_zeroes(offset, len, unmap),
        }
    }

    /// Changes the disk's length.
    pub(super) fn resize(&self, size: u64) -> io::Result<()> {
        match self {
            Self::Raw(raw) => {
                raw.check()?;
                raw.file.set_len(size)?;
                // A block device takes no length, and says so only by its old one.
                if raw.file.len()? != size {
                    return Err(ErrorKind::Unsupported.into());
                }
                raw.size.store(size, Ordering::Release);
                raw.flush()
            }
            Self::Qcow2(qcow2) => qcow2.resize(size),
        }
    }

    /// Does the disk hold data at `offset`, and for how many of the `len` bytes from there is that so?
    pub(super) fn data_or_hole(&self, offset: u64, len: u64) -> io::Result<(bool, u64)> {
        let inside = len.min(self.size().saturating_sub(offset));
        if inside == 0 {
            return Ok((false, len));
        }
        match self {
            Self::Raw(raw) => raw.file.data_or_hole(offset, inside),
            Self::Qcow2(qcow2) => qcow2.data_or_hole(offset, inside),
        }
    }
}
