//! Numbers of 9P2000.L (Linux, `include/net/9p/9p.h`; <https://github.com/chaos/diod/blob/master/protocol.md>).

/// Bytes of a message's header: length, type, tag.
pub(super) const HEADER_BYTES: usize = 7;
/// The version spoken.
pub(super) const VERSION: &[u8] = b"9P2000.L";
/// The answer to any other.
pub(super) const UNKNOWN_VERSION: &[u8] = b"unknown";

/// Requests; an answer's type is one more.
pub(super) mod op {
    pub(in super::super) const ERROR: u8 = 6;
    pub(in super::super) const STATFS: u8 = 8;
    pub(in super::super) const LOPEN: u8 = 12;
    pub(in super::super) const LCREATE: u8 = 14;
    pub(in super::super) const SYMLINK: u8 = 16;
    pub(in super::super) const MKNOD: u8 = 18;
    pub(in super::super) const RENAME: u8 = 20;
    pub(in super::super) const READLINK: u8 = 22;
    pub(in super::super) const GETATTR: u8 = 24;
    pub(in super::super) const SETATTR: u8 = 26;
    pub(in super::super) const XATTRWALK: u8 = 30;
    pub(in super::super) const XATTRCREATE: u8 = 32;
    pub(in super::super) const READDIR: u8 = 40;
    pub(in super::super) const FSYNC: u8 = 50;
    pub(in super::super) const LOCK: u8 = 52;
    pub(in super::super) const GETLOCK: u8 = 54;
    pub(in super::super) const LINK: u8 = 70;
    pub(in super::super) const MKDIR: u8 = 72;
    pub(in super::super) const RENAMEAT: u8 = 74;
    pub(in super::super) const UNLINKAT: u8 = 76;
    pub(in super::super) const VERSION: u8 = 100;
    pub(in super::super) const ATTACH: u8 = 104;
    pub(in super::super) const FLUSH: u8 = 108;
    pub(in super::super) const WALK: u8 = 110;
    pub(in super::super) const READ: u8 = 116;
    pub(in super::super) const WRITE: u8 = 118;
    pub(in super::super) const CLUNK: u8 = 120;
    pub(in super::super) const REMOVE: u8 = 122;
}

/// Bits of `valid` in SETATTR.
pub(super) mod setattr {
    pub(in super::super) const MODE: u32 = 1 << 0;
    pub(in super::super) const UID: u32 = 1 << 1;
    pub(in super::super) const GID: u32 = 1 << 2;
    pub(in super::super) const SIZE: u32 = 1 << 3;
    pub(in super::super) const ATIME: u32 = 1 << 4;
    pub(in super::super) const MTIME: u32 = 1 << 5;
    pub(in super::super) const ATIME_SET: u32 = 1 << 7;
    pub(in super::super) const MTIME_SET: u32 = 1 << 8;
}

/// GETATTR: what statx(2) calls basic, and the time of birth.
pub(super) const GETATTR_VALID: u64 = 0xfff;
/// LOCK's answers.
pub(super) const LOCK_SUCCESS: u8 = 0;
pub(super) const LOCK_BLOCKED: u8 = 1;
/// UNLINKAT: a directory.
pub(super) const AT_REMOVEDIR: u32 = 0x200;
