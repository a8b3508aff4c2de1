//! Locks of a guest's processes on the host's files, seen by the host and by other guests.
//!
//! Byte ranges are open-file-description locks (fcntl(2), `F_OFD_SETLK`): each lock owner of the guest gets a
//! description of its own, so owners exclude one another as processes do. Whole-file locks are flock(2)'s.

use super::{Errno, File, Inode, Share};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Lock owners that a share remembers.
const MAX_OWNERS: usize = 1024;

/// Kind of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Excludes writers.
    Read,
    /// Excludes everybody.
    Write,
    /// None.
    Unlock,
}

/// A lock on bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteLock {
    /// Its kind.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Number of bytes; 0: to the end, wherever that is.
    pub len: u64,
}

/// Descriptions by the number of the file and of the owner.
#[derive(Debug, Default)]
pub(super) struct LockTable(Mutex<HashMap<(u64, u64), Arc<OwnedFd>>>);

impl LockTable {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, u64), Arc<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }
}

impl ByteLock {
    fn to_host(self) -> Result<libc::flock, Errno> {
        let kind = match self.kind {
            LockKind::Read => libc::F_RDLCK,
            LockKind::Write => libc::F_WRLCK,
            LockKind::Unlock => libc::F_UNLCK,
        };
        let offset = |value: u64| i64::try_from(value).map_err(|_| Errno::INVAL);
        Ok(libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: offset(self.start)?,
            l_len: offset(self.len)?,
            l_pid: 0,
        })
    }
}

impl Share {
    fn description(&self, inode: &Arc<Inode>, owner: u64) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = self.locks.lock().get(&(inode.id(), owner)) {
            return Ok(fd.clone());
        }
        let flags = OFlags::NONBLOCK;
        let fd = match self.open_fd(inode, OFlags::RDWR | flags) {
            // A lock for reading needs no more, and the host refuses one for writing on this.
            Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => self.open_fd(inode, OFlags::RDONLY | flags)?,
            other => other?,
        };
        let mut table = self.locks.lock();
        if table.len() >= MAX_OWNERS {
            return Err(Errno::NOLCK);
        }
        Ok(table.entry((inode.id(), owner)).or_insert_with(|| Arc::new(fd)).clone())
    }

    /// Locks or unlocks without waiting; `EAGAIN`: somebody else has it.
    pub fn set_lock(&self, inode: &Arc<Inode>, owner: u64, lock: ByteLock) -> Result<(), Errno> {
        let host = lock.to_host()?;
        if lock.kind == LockKind::Unlock && !self.locks.lock().contains_key(&(inode.id(), owner)) {
            return Ok(());
        }
        let fd = self.description(inode, owner)?;
        match fcntl(&*fd, FcntlArg::F_OFD_SETLK(&host)) {
            Ok(_) => Ok(()),
            Err(nix::errno::Errno::EACCES) => Err(Errno::AGAIN),
            Err(error) => Err(Errno::from_raw_os_error(error as i32)),
        }
    }

    /// The lock in the way of `lock`, if one is.
    pub fn test_lock(
        &self,
        inode: &Arc<Inode>,
        owner: u64,
        lock: ByteLock,
    ) -> Result<Option<ByteLock>, Errno> {
        let mut host = lock.to_host()?;
        let fd = self.description(inode, owner)?;
        fcntl(&*fd, FcntlArg::F_OFD_GETLK(&mut host))
            .map_err(|error| Errno::from_raw_os_error(error as i32))?;
        let kind = match i32::from(host.l_type) {
            libc::F_UNLCK => return Ok(None),
            libc::F_RDLCK => LockKind::Read,
            _ => LockKind::Write,
        };
        Ok(Some(ByteLock { kind, start: host.l_start as u64, len: host.l_len as u64 }))
    }

    /// Drops everything that an owner has locked in a file, as closing any descriptor of it does.
    pub fn release_locks(&self, inode: &Arc<Inode>, owner: u64) {
        let gone = self.locks.lock().remove(&(inode.id(), owner));
        drop(gone);
    }

    /// Drops all locks on a file.
    pub fn release_all_locks(&self, inode: &Arc<Inode>) {
        let id = inode.id();
        let gone: Vec<_> = self.locks.lock().extract_if(|&(file, _), _| file == id).collect();
        drop(gone);
    }

    /// Locks a whole file for one open handle, without waiting.
    pub fn lock_whole(&self, file: &File, kind: LockKind) -> Result<(), Errno> {
        flock(
            &file.fd,
            match kind {
                LockKind::Read => FlockOperation::NonBlockingLockShared,
                LockKind::Write => FlockOperation::NonBlockingLockExclusive,
                LockKind::Unlock => FlockOperation::NonBlockingUnlock,
            },
        )
    }
}
