//! Numbers of the FUSE protocol, version 7.38 (Linux, `include/uapi/linux/fuse.h`).

/// The version spoken. A guest that speaks an older one gets what that one has; below [`OLDEST_MINOR`] it is refused.
pub(super) const MAJOR: u32 = 7;
pub(super) const MINOR: u32 = 38;
/// Linux 5.4, the first with a virtio-fs driver.
pub(super) const OLDEST_MINOR: u32 = 31;

/// Bytes of the header of a request.
pub(super) const IN_HEADER_BYTES: usize = 40;
/// Bytes of the header of an answer.
pub(super) const OUT_HEADER_BYTES: usize = 16;
/// Bytes of the arguments of WRITE, before the data.
pub(super) const WRITE_IN_BYTES: usize = 40;

/// Requests.
pub(super) mod op {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const GETLK: u32 = 31;
    pub(in super::super) const SETLK: u32 = 32;
    pub(in super::super) const SETLKW: u32 = 33;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const IOCTL: u32 = 39;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const LSEEK: u32 = 46;
    pub(in super::super) const COPY_FILE_RANGE: u32 = 47;
    pub(in super::super) const SYNCFS: u32 = 50;
    pub(in super::super) const TMPFILE: u32 = 51;
}

/// Flags of INIT.
pub(super) mod init {
    pub(in super::super) const ASYNC_READ: u32 = 1 << 0;
    pub(in super::super) const POSIX_LOCKS: u32 = 1 << 1;
    pub(in super::super) const ATOMIC_O_TRUNC: u32 = 1 << 3;
    pub(in super::super) const BIG_WRITES: u32 = 1 << 5;
    pub(in super::super) const FLOCK_LOCKS: u32 = 1 << 10;
    pub(in super::super) const AUTO_INVAL_DATA: u32 = 1 << 12;
    pub(in super::super) const DO_READDIRPLUS: u32 = 1 << 13;
    pub(in super::super) const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub(in super::super) const ASYNC_DIO: u32 = 1 << 15;
    pub(in super::super) const PARALLEL_DIROPS: u32 = 1 << 18;
    pub(in super::super) const MAX_PAGES: u32 = 1 << 22;
    pub(in super::super) const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
}

/// Flags of SETATTR (`FATTR_*`).
pub(super) mod fattr {
    pub(in super::super) const MODE: u32 = 1 << 0;
    pub(in super::super) const UID: u32 = 1 << 1;
    pub(in super::super) const GID: u32 = 1 << 2;
    pub(in super::super) const SIZE: u32 = 1 << 3;
    pub(in super::super) const ATIME: u32 = 1 << 4;
    pub(in super::super) const MTIME: u32 = 1 << 5;
    pub(in super::super) const FH: u32 = 1 << 6;
    pub(in super::super) const ATIME_NOW: u32 = 1 << 7;
    pub(in super::super) const MTIME_NOW: u32 = 1 << 8;
    pub(in super::super) const KILL_SUIDGID: u32 = 1 << 11;
}

/// GETATTR: `fh` is valid.
pub(super) const GETATTR_FH: u32 = 1;
/// OPEN, CREATE: drop set-ID bits, the file is truncated by somebody unprivileged.
pub(super) const OPEN_KILL_SUIDGID: u32 = 1;
/// WRITE: drop set-ID bits.
pub(super) const WRITE_KILL_SUIDGID: u32 = 4;
/// FSYNC, FSYNCDIR: data only.
pub(super) const FSYNC_FDATASYNC: u32 = 1;
/// SETLK: a lock of flock(2).
pub(super) const LK_FLOCK: u32 = 1;
/// RELEASE: drop the lock of flock(2).
pub(super) const RELEASE_FLOCK_UNLOCK: u32 = 2;
/// Answer of OPEN: keep cached data.
pub(super) const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// Answer of OPENDIR: the directory may be cached.
pub(super) const FOPEN_CACHE_DIR: u32 = 1 << 3;
/// Answer of OPEN: no FLUSH is needed when a descriptor is closed.
pub(super) const FOPEN_NOFLUSH: u32 = 1 << 5;
