//! The longer structures of FUSE's answers.

use super::server::Freshness;
use crate::{
    backend::share::{Attr, ByteLock, DirEntry, Errno, FileType, LockKind},
    virtio::wire::Answer,
};
use std::time::Duration;

/// Bytes of `struct fuse_entry_out`.
const ENTRY_OUT_BYTES: usize = 128;
/// Bytes of `struct fuse_dirent` before the name.
const DIRENT_BYTES: usize = 24;

/// `struct fuse_attr`.
fn attr(out: &mut Answer, attr: &Attr) {
    out.u64(attr.ino).u64(attr.size).u64(attr.blocks);
    for (sec, _) in [attr.atime, attr.mtime, attr.ctime] {
        out.u64(sec as u64);
    }
    for (_, nsec) in [attr.atime, attr.mtime, attr.ctime] {
        out.u32(nsec);
    }
    out.u32(attr.mode).u32(attr.links).u32(attr.uid).u32(attr.gid);
    out.u32(attr.rdev_encoded()).u32(attr.block_size).u32(0);
}

/// `struct fuse_attr_out`.
pub(super) fn attr_out(out: &mut Answer, valid: Duration, of: &Attr) {
    out.u64(valid.as_secs()).u32(valid.subsec_nanos()).u32(0);
    attr(out, of);
}

/// `struct fuse_entry_out`. Numbers are never used again, so their generation is always 0.
pub(super) fn entry_out(out: &mut Answer, node: u64, valid: &Freshness, of: &Attr) {
    out.u64(node).u64(0).u64(valid.entry.as_secs()).u64(valid.attr.as_secs());
    out.u32(valid.entry.subsec_nanos()).u32(valid.attr.subsec_nanos());
    attr(out, of);
}

/// `struct fuse_entry_out` of READDIRPLUS that names nothing.
pub(super) fn no_entry(out: &mut Answer) {
    out.bytes(&[0; ENTRY_OUT_BYTES]);
}

/// Bytes of one entry of READDIR, or of READDIRPLUS.
pub(super) fn dirent_bytes(name_len: usize, plus: bool) -> usize {
    (DIRENT_BYTES + name_len).next_multiple_of(8) + if plus { ENTRY_OUT_BYTES } else { 0 }
}

/// `struct fuse_dirent`.
pub(super) fn dirent(out: &mut Answer, entry: &DirEntry) {
    let name = entry.name.to_bytes();
    out.u64(entry.ino).u64(entry.next).u32(name.len() as u32).u32(dirent_kind(entry.kind)).bytes(name);
    out.0.resize(out.len() + (DIRENT_BYTES + name.len()).next_multiple_of(8) - DIRENT_BYTES - name.len(), 0);
}

/// `d_type` (readdir(3)).
pub(in super::super) fn dirent_kind(kind: FileType) -> u32 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        _ => 0,
    }
}

/// `F_RDLCK` and friends.
pub(super) fn lock_kind(kind: u32) -> Result<LockKind, Errno> {
    match kind {
        0 => Ok(LockKind::Read),
        1 => Ok(LockKind::Write),
        2 => Ok(LockKind::Unlock),
        _ => Err(Errno::INVAL),
    }
}

/// `struct fuse_lk_out`. Who holds the lock cannot be told: it is no process of the guest's.
pub(super) fn lock_out(out: &mut Answer, lock: Option<ByteLock>) {
    let (kind, start, end) = match lock {
        None => (2, 0, 0),
        Some(lock) => {
            let end = if lock.len == 0 { i64::MAX as u64 } else { lock.start + lock.len - 1 };
            (u32::from(lock.kind == LockKind::Write), lock.start, end)
        }
    };
    out.u64(start).u64(end).u32(kind).u32(0);
}
