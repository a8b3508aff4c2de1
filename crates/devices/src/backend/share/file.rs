//! Open files: data, space, and what goes to stable storage.

use super::{Errno, Inode, Share, limits::Permit};
use imago::io_buffers::{IoVector, IoVectorMut};
use rustix::{
    fs::{self, FallocateFlags, OFlags, SeekFrom},
    io::{self, ReadWriteFlags},
};
use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Buffers given to the host in one call (Linux, `UIO_MAXIOV`).
const MAX_BUFFERS: usize = 1024;
/// Most bytes copied between files for one request, so that none takes for ever.
const MAX_COPY_BYTES: u64 = 64 << 20;

/// An open regular file.
#[derive(Debug)]
pub struct File {
    pub(super) fd: OwnedFd,
    inode: Arc<Inode>,
    /// Opened for appending, for protocols whose requests do not say so themselves.
    append: bool,
    writable: bool,
    written: AtomicBool,
    _permit: Permit,
}

impl File {
    /// The file that is open.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// Was anything written through this handle?
    pub fn was_written(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }

    /// Was it opened for writing?
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Was it opened for appending?
    pub fn appends(&self) -> bool {
        self.append
    }
}

/// Where to seek to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// Data at or after the offset.
    Data,
    /// A hole at or after the offset; the end of the file counts as one.
    Hole,
}

/// What a file system tells of itself (statfs(2)).
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystemStat {
    /// The host's number for its type.
    pub kind: u32,
    /// Bytes in a block.
    pub block_size: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Free ones.
    pub free: u64,
    /// Free ones for unprivileged users.
    pub available: u64,
    /// File numbers in all.
    pub files: u64,
    /// Free ones.
    pub free_files: u64,
    /// Longest name.
    pub name_len: u32,
}

impl Share {
    /// Opens a regular file; `raw` are the guest's flags of open(2).
    pub fn open_file(&self, inode: &Arc<Inode>, raw: u32) -> Result<File, Errno> {
        let flags = self.open_flags.to_host(raw)?;
        if inode.is_dir() {
            return Err(Errno::ISDIR);
        }
        // Appending is said with each write: another handle's writes must not be drawn to the end.
        let fd = self.open_fd(inode, flags.difference(OFlags::APPEND))?;
        self.opened(inode, fd, flags)
    }

    pub(super) fn opened(&self, inode: &Arc<Inode>, fd: OwnedFd, flags: OFlags) -> Result<File, Errno> {
        Ok(File {
            fd,
            inode: inode.clone(),
            append: flags.contains(OFlags::APPEND),
            writable: flags.intersects(OFlags::WRONLY | OFlags::RDWR),
            written: AtomicBool::new(false),
            _permit: Permit::for_file(&self.open_files)?,
        })
    }

    /// Reads into `buffers` from `offset` on; returns how many bytes there were.
    pub fn read(&self, file: &File, offset: u64, buffers: IoVectorMut<'_>) -> Result<u64, Errno> {
        let mut buffers: Vec<IoSliceMut<'_>> = buffers.into_inner();
        let mut done = 0;
        for part in buffers.chunks_mut(MAX_BUFFERS) {
            let wanted: usize = part.iter().map(|buffer| buffer.len()).sum();
            let at = offset.checked_add(done).ok_or(Errno::INVAL)?;
            let count = match io::retry_on_intr(|| io::preadv(&file.fd, part, at)) {
                Ok(count) => count,
                Err(_) if done != 0 => break,
                Err(error) => return Err(error),
            };
            done += count as u64;
            if count < wanted {
                break;
            }
        }
        Ok(done)
    }

    /// Writes `buffers` from `offset` on, or at the end; returns how many bytes the host took.
    pub fn write(&self, file: &File, offset: u64, append: bool, buffers: IoVector<'_>) -> Result<u64, Errno> {
        let buffers: Vec<IoSlice<'_>> = buffers.into_inner();
        let flags = if append { ReadWriteFlags::APPEND } else { ReadWriteFlags::empty() };
        file.written.store(true, Ordering::Relaxed);
        let mut done = 0;
        for part in buffers.chunks(MAX_BUFFERS) {
            let wanted: usize = part.iter().map(|buffer| buffer.len()).sum();
            let at = offset.checked_add(done).ok_or(Errno::FBIG)?;
            let written = io::retry_on_intr(|| match append {
                false => io::pwritev(&file.fd, part, at),
                true => io::pwritev2(&file.fd, part, at, flags),
            });
            let count = match written {
                Ok(count) => count,
                Err(_) if done != 0 => break,
                Err(error) => return Err(error),
            };
            done += count as u64;
            if count < wanted {
                break;
            }
        }
        Ok(done)
    }

    /// As [`Self::kill_privileges`], of an open file: somebody unprivileged in the guest has written to it.
    pub fn drop_set_ids(&self, file: &File) -> Result<(), Errno> {
        self.kill_privileges(self.table.fd(&file.inode)?)
    }

    /// Returns when the file is on stable storage; with `data_only`, times may not be.
    pub fn sync(&self, file: &File, data_only: bool) -> Result<(), Errno> {
        if data_only { fs::fdatasync(&file.fd) } else { fs::fsync(&file.fd) }
    }

    /// Tells what writing to the file before failed, where the host says so only when a file is closed.
    pub fn flush(&self, file: &File) -> Result<(), Errno> {
        let copy = io::fcntl_dupfd_cloexec(&file.fd, 0)?;
        // Closing by hand, for the answer.
        nix::unistd::close(copy).map_err(|error| Errno::from_raw_os_error(error as i32))
    }

    /// Returns when everything on the share's file system is on stable storage.
    pub fn sync_all(&self) -> Result<(), Errno> {
        let fd = self.proc_fds.reopen(self.table.fd(self.root())?, OFlags::RDONLY | OFlags::DIRECTORY)?;
        fs::syncfs(fd)
    }

    /// Reserves, punches or zeroes space; `mode` is fallocate(2)'s.
    pub fn allocate(&self, file: &File, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        self.check_writable()?;
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        fs::fallocate(&file.fd, mode, offset, len)
    }

    /// Finds data or a hole.
    pub fn seek(&self, file: &File, whence: Whence, offset: u64) -> Result<u64, Errno> {
        fs::seek(
            &file.fd,
            match whence {
                Whence::Data => SeekFrom::Data(offset),
                Whence::Hole => SeekFrom::Hole(offset),
            },
        )
    }

    /// Copies up to `len` bytes; returns how many were.
    pub fn copy(
        &self,
        (from, from_at): (&File, u64),
        (to, to_at): (&File, u64),
        len: u64,
    ) -> Result<u64, Errno> {
        self.check_writable()?;
        let (mut from_at, mut to_at) = (from_at, to_at);
        let len = usize::try_from(len.min(MAX_COPY_BYTES)).unwrap_or(usize::MAX);
        let copied = fs::copy_file_range(&from.fd, Some(&mut from_at), &to.fd, Some(&mut to_at), len)?;
        Ok(copied as u64)
    }

    /// About the file system a file is on.
    pub fn file_system(&self, inode: &Arc<Inode>) -> Result<FileSystemStat, Errno> {
        let stat = fs::fstatfs(self.table.fd(inode)?)?;
        Ok(FileSystemStat {
            kind: stat.f_type as u32,
            block_size: stat.f_bsize as u32,
            blocks: stat.f_blocks,
            free: stat.f_bfree,
            available: stat.f_bavail,
            files: stat.f_files,
            free_files: stat.f_ffree,
            name_len: stat.f_namelen as u32,
        })
    }
}
