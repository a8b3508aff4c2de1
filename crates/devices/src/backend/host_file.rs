//! A disk image's file as image formats use it: positioned reads and writes, holes, and one way to make sure that
//! what was written stays. Tests put files in its place that fail, or that lose what was not made sure of.

use super::block::{IoVector, IoVectorMut};
use rustix::{
    fs::{FallocateFlags, SeekFrom, fallocate, ftruncate, seek},
    io::{Errno, preadv, pwritev},
};
use std::{
    fmt::Debug,
    fs::File,
    io::{self, ErrorKind, IoSlice, IoSliceMut},
    sync::atomic::{AtomicBool, Ordering},
};

/// Buffers the host takes in one call.
const IOV_MAX: usize = 1024;

/// What reads and writes past the host's cache have to be aligned to, on any host.
const DIRECT_ALIGNMENT: u64 = 4096;

/// A file of bytes. Threads may use it at once.
pub(super) trait HostFile: Send + Sync + Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads from `offset` into the first of `buffers`; may be short, and 0 is the end.
    fn read(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
    /// Writes the first of `buffers` to `offset`; may be short. A file grows as needed.
    fn write(&self, offset: u64, buffers: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Makes bytes read as zeros; never changes the length. With `give_back`, the host may take their storage.
    fn zero(&self, offset: u64, len: u64, give_back: bool) -> io::Result<()>;
    /// Gives storage back if the host can do that. What the bytes read as is open.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Changes the length.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when everything written before is on stable storage.
    fn sync(&self) -> io::Result<()>;
    /// Does it hold data at `offset`, and for how many of the `len` bytes from there is that so?
    fn data_or_hole(&self, offset: u64, len: u64) -> io::Result<(bool, u64)> {
        let _ = offset;
        Ok((true, len))
    }
}

/// Fills all of `buffers` from `offset`; what lies past the file's end is zeros.
pub(super) fn read_all(file: &dyn HostFile, offset: u64, buffers: IoVectorMut<'_>) -> io::Result<()> {
    let mut slices = buffers.into_inner();
    let (mut rest, mut at) = (&mut slices[..], offset);
    while !rest.is_empty() {
        match file.read(at, rest) {
            Ok(0) => {
                rest.iter_mut().for_each(|slice| slice.fill(0));
                return Ok(());
            }
            Ok(count) => {
                IoSliceMut::advance_slices(&mut rest, count);
                at += count as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes all of `buffers` to `offset`.
pub(super) fn write_all(file: &dyn HostFile, offset: u64, buffers: IoVector<'_>) -> io::Result<()> {
    let mut slices = buffers.into_inner();
    let (mut rest, mut at) = (&mut slices[..], offset);
    while !rest.is_empty() {
        match file.write(at, rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                IoSlice::advance_slices(&mut rest, count);
                at += count as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// `len` bytes from `offset`; zeros past the end.
pub(super) fn read_vec(file: &dyn HostFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    read_all(file, offset, bytes.as_mut_slice().into())?;
    Ok(bytes)
}

/// Writes zeros as data.
pub(super) fn write_zero_blocks(file: &dyn HostFile, mut offset: u64, len: u64) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let end = offset + len;
    while offset < end {
        let chunk = (end - offset).min(ZEROES.len() as u64);
        write_all(file, offset, ZEROES[..chunk as usize].into())?;
        offset += chunk;
    }
    Ok(())
}

/// A regular file or a block device of the host.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    /// The same file past the host's cache, for what is aligned.
    direct: Option<File>,
    /// The host has no holes in this file: it is not asked again.
    no_holes: AtomicBool,
}

impl OpenFile {
    pub(super) fn new(file: File, direct: Option<File>) -> Self {
        Self { file, direct, no_holes: AtomicBool::new(false) }
    }

    /// The file to use: the host keeps both views of it in step.
    fn by_alignment<'b>(&self, offset: u64, buffers: impl Iterator<Item = &'b [u8]>) -> &File {
        match &self.direct {
            Some(direct) => {
                let bits = buffers.fold(offset, |bits, b| bits | b.as_ptr().addr() as u64 | b.len() as u64);
                if bits.is_multiple_of(DIRECT_ALIGNMENT) { direct } else { &self.file }
            }
            None => &self.file,
        }
    }

    /// `false`: the host cannot do that here.
    fn fallocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        if len == 0 {
            return Ok(true);
        }
        if self.no_holes.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                self.no_holes.store(true, Ordering::Relaxed);
                Ok(false)
            }
            // A block device refuses what is not whole sectors of its own.
            Err(Errno::INVAL) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl HostFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        match metadata.is_file() {
            true => Ok(metadata.len()),
            // Block devices have a length of zero there.
            false => Ok(seek(&self.file, SeekFrom::End(0))?),
        }
    }

    fn read(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = buffers.len().min(IOV_MAX);
        let buffers = &mut buffers[..count];
        let file = self.by_alignment(offset, buffers.iter().map(|buffer| &**buffer));
        Ok(preadv(file, buffers, offset)?)
    }

    fn write(&self, offset: u64, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let buffers = &buffers[..buffers.len().min(IOV_MAX)];
        let file = self.by_alignment(offset, buffers.iter().map(|buffer| &**buffer));
        Ok(pwritev(file, buffers, offset)?)
    }

    fn zero(&self, offset: u64, len: u64, give_back: bool) -> io::Result<()> {
        let end = self.len()?;
        let inside = len.min(end.saturating_sub(offset));
        let flags = if give_back { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        match self.fallocate(flags, offset, inside)? {
            true => Ok(()),
            false => write_zero_blocks(self, offset, inside),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(FallocateFlags::PUNCH_HOLE, offset, len).map(|_| ())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(ftruncate(&self.file, len)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn data_or_hole(&self, offset: u64, len: u64) -> io::Result<(bool, u64)> {
        if len == 0 {
            return Ok((false, 0));
        }
        let within = |end: u64| end.saturating_sub(offset).min(len);
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Ok((false, within(data))),
            Ok(_) => match seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => Ok((true, within(hole))),
                _ => Ok((true, len)),
            },
            // No data up to the end of the file.
            Err(Errno::NXIO) => Ok((false, len)),
            // The file system cannot tell.
            Err(_) => Ok((true, len)),
        }
    }
}
