//! The FUSE server behind a virtio-fs device: takes requests apart, and answers them from a [`Share`].
//!
//! It has no thread of its own and keeps what the guest has open; any number of threads may call it at once.

use super::{abi::*, answer};
use crate::{
    backend::share::{
        Attr, ByteLock, Creator, Dir, Errno, File, FileSystemStat, Handles, Inode, LockKind, NodeKind,
        SetAttr, SetTime, Share, Whence,
    },
    virtio::{
        Chain,
        guest_io::{read_vector, write_vector},
        wire::{Answer, Fields},
    },
};
use isomer_core::guest_warn;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Most bytes of a READ or WRITE: 256 pages, what Linux's driver takes.
pub(super) const MAX_IO_BYTES: u32 = 1 << 20;
/// Most bytes of a request that is not a WRITE: the longest extended attribute, with name and arguments.
const MAX_REQUEST_BYTES: u64 = (64 << 10) + 4096;
/// Most bytes of one answer of READDIR.
const MAX_DIR_BYTES: u32 = 64 << 10;
/// Flags accepted in INIT. No write-back cache: what a guest has written, the host sees.
const FLAGS: u32 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::HANDLE_KILLPRIV_V2;
/// Further ones with locks on the host.
const LOCK_FLAGS: u32 = init::POSIX_LOCKS | init::FLOCK_LOCKS;

/// How long a guest may trust what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Names.
    pub entry: Duration,
    /// Attributes.
    pub attr: Duration,
    /// Keep cached data and directories when a file is opened, instead of looking at the host's.
    pub keep_data: bool,
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    share: Arc<Share>,
    freshness: Freshness,
    host_locks: bool,
    files: Handles<File>,
    dirs: Handles<Dir>,
    /// Minor version agreed on; 0 before INIT.
    minor: AtomicU32,
}

/// A request without its header.
struct Request<'a> {
    op: u32,
    unique: u64,
    node: u64,
    by: Creator,
    args: Fields<'a>,
}

/// What an answer is, besides an error.
enum Reply {
    /// None at all.
    Nothing,
    /// The bytes put together.
    Bytes,
    /// This many bytes, in the chain already.
    Written(u64),
    /// To be had later.
    Wait(LockRequest),
}

/// A lock that a process of the guest waits for.
#[derive(Debug)]
pub(super) struct LockRequest {
    unique: u64,
    file: Arc<File>,
    owner: u64,
    range: ByteLock,
    /// The whole file, as flock(2) locks.
    whole: bool,
}

type Result<T, E = Errno> = std::result::Result<T, E>;

impl Server {
    pub(super) fn new(share: Arc<Share>, freshness: Freshness, host_locks: bool) -> Self {
        let (files, dirs) = (Handles::default(), Handles::default());
        Self { share, freshness, host_locks, files, dirs, minor: AtomicU32::new(0) }
    }

    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    /// Has the guest mounted the share?
    pub(super) fn is_mounted(&self) -> bool {
        self.minor.load(Ordering::Acquire) != 0
    }

    /// The guest has unmounted the share, or is gone.
    pub(super) fn forget_guest(&self) {
        self.files.clear();
        self.dirs.clear();
        self.share.forget_all();
        self.minor.store(0, Ordering::Release);
    }

    /// Can this request keep a thread for long?
    pub(super) fn may_wait(op: u32) -> bool {
        matches!(op, op::FSYNC | op::FSYNCDIR | op::SYNCFS | op::COPY_FILE_RANGE | op::FALLOCATE | op::FLUSH)
    }

    /// The operation that a chain asks for, if it is long enough to tell.
    pub(super) fn operation(chain: &Chain) -> Option<u32> {
        let mut op = [0; 4];
        matches!(chain.read_at(4, &mut op), Ok(4)).then(|| u32::from_le_bytes(op))
    }

    /// Carries out the request in `chain`; returns how many bytes of the answer were written to it, or what has to
    /// be waited for.
    pub(super) fn serve(&self, chain: &Chain, scratch: &mut Scratch) -> Result<u32, LockRequest> {
        let mut header = [0; IN_HEADER_BYTES];
        if !matches!(chain.read_at(0, &mut header), Ok(IN_HEADER_BYTES)) {
            guest_warn!("a FUSE request is shorter than its header");
            return Ok(0);
        }
        let unique = u64::from_le_bytes(std::array::from_fn(|i| header[8 + i]));
        scratch.answer.0.clear();
        scratch.answer.0.resize(OUT_HEADER_BYTES, 0);
        Ok(match self.run(chain, &header, scratch) {
            Ok(Reply::Nothing) => 0,
            Ok(Reply::Wait(lock)) => return Err(lock),
            Ok(Reply::Bytes) if scratch.answer.len() as u64 > chain.writable_len() => {
                send(chain, unique, Err(Errno::RANGE), &mut scratch.answer, 0)
            }
            Ok(Reply::Bytes) => send(chain, unique, Ok(()), &mut scratch.answer, 0),
            Ok(Reply::Written(len)) => {
                scratch.answer.0.truncate(OUT_HEADER_BYTES);
                send(chain, unique, Ok(()), &mut scratch.answer, len)
            }
            Err(error) => send(chain, unique, Err(error), &mut scratch.answer, 0),
        })
    }

    /// Tries again to get a lock; returns the answer's length once there is one. With `give_up`, there is.
    pub(super) fn retry(&self, chain: &Chain, lock: &LockRequest, give_up: bool) -> Option<u32> {
        let result = match self.try_lock(lock) {
            Err(Errno::AGAIN) if give_up => Err(Errno::INTR),
            Err(Errno::AGAIN) => return None,
            other => other,
        };
        Some(send(chain, lock.unique, result, &mut Answer(vec![0; OUT_HEADER_BYTES]), 0))
    }

    fn try_lock(&self, lock: &LockRequest) -> Result<()> {
        match lock.whole {
            false => self.share.set_lock(lock.file.inode(), lock.owner, lock.range),
            true => self.share.lock_whole(&lock.file, lock.range.kind),
        }
    }

    fn run(&self, chain: &Chain, header: &[u8], scratch: &mut Scratch) -> Result<Reply> {
        let mut fields = Fields::new(header);
        let (len, op, unique, node) = (fields.u32()?, fields.u32()?, fields.u64()?, fields.u64()?);
        let by = Creator { uid: fields.u32()?, gid: fields.u32()? };
        if u64::from(len) != chain.readable_len() {
            guest_warn!("a FUSE request says it has {len} bytes and has {}", chain.readable_len());
            return Err(Errno::INVAL);
        }
        let limit = match op {
            op::WRITE => (IN_HEADER_BYTES + WRITE_IN_BYTES) as u64,
            _ if chain.readable_len() > MAX_REQUEST_BYTES => return Err(Errno::TOOBIG),
            _ => chain.readable_len(),
        };
        let Scratch { request, answer } = scratch;
        request.resize((limit as usize).saturating_sub(IN_HEADER_BYTES), 0);
        let got = chain.read_at(IN_HEADER_BYTES as u64, request).map_err(|_| Errno::FAULT)?;
        let args = Fields::new(&request[..got]);
        let request = Request { op, unique, node, by, args };
        if op == op::INIT {
            return self.init(request, answer);
        }
        if !self.is_mounted() {
            return Err(Errno::IO);
        }
        self.dispatch(request, chain, answer)
    }

    fn dispatch(&self, mut request: Request<'_>, chain: &Chain, out: &mut Answer) -> Result<Reply> {
        let Request { op, node, by, ref mut args, .. } = request;
        match op {
            op::FORGET => {
                self.share.forget(node, args.u64()?);
                return Ok(Reply::Nothing);
            }
            op::BATCH_FORGET => {
                let count = args.u32()?;
                args.u32()?;
                // The request's own length ends the list.
                for _ in 0..count {
                    let (Ok(node), Ok(times)) = (args.u64(), args.u64()) else { break };
                    self.share.forget(node, times);
                }
                return Ok(Reply::Nothing);
            }
            // Requests end by themselves soon; the driver expects no answer to this one.
            op::INTERRUPT => return Ok(Reply::Nothing),
            op::DESTROY => self.forget_guest(),
            op::READ => return self.read(args, chain),
            op::WRITE => self.write(args, chain, out)?,
            op::LOOKUP => {
                let made = self.share.lookup(&self.node(node)?, args.c_str()?)?;
                self.entry(&made, out);
            }
            op::GETATTR => {
                let (flags, _, fh) = (args.u32()?, args.u32()?, args.u64()?);
                let attr = match flags & GETATTR_FH {
                    0 => self.share.attr(&self.node(node)?)?,
                    _ => self.share.attr_of(&*self.files.get(fh)?)?,
                };
                answer::attr_out(out, self.freshness.attr, &attr);
            }
            op::SETATTR => self.set_attr(node, args, out)?,
            op::READLINK => {
                out.bytes(&self.share.read_link(&self.node(node)?)?);
            }
            op::SYMLINK => {
                let (name, target) = (args.c_str()?, args.c_str()?);
                let made = self.share.make_symlink(&self.node(node)?, name, target, by)?;
                self.entry(&made, out);
            }
            op::MKNOD => {
                let (mode, rdev, _umask, _) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
                let kind = NodeKind::from_mode(mode, rdev)?;
                let made = self.share.make_node(&self.node(node)?, args.c_str()?, kind, mode, by)?;
                self.entry(&made, out);
            }
            op::MKDIR => {
                let (mode, _umask) = (args.u32()?, args.u32()?);
                let made = self.share.make_dir(&self.node(node)?, args.c_str()?, mode, by)?;
                self.entry(&made, out);
            }
            op::UNLINK | op::RMDIR => {
                self.share.remove(&self.node(node)?, args.c_str()?, op == op::RMDIR)?;
            }
            op::RENAME => {
                let to = args.u64()?;
                self.rename(node, to, 0, args)?;
            }
            op::RENAME2 => {
                let (to, flags, _) = (args.u64()?, args.u32()?, args.u32()?);
                self.rename(node, to, flags, args)?;
            }
            op::LINK => {
                let file = self.node(args.u64()?)?;
                let made = self.share.link(&file, &self.node(node)?, args.c_str()?)?;
                self.entry(&made, out);
            }
            op::OPEN | op::CREATE | op::TMPFILE => self.open(op, node, by, args, out)?,
            op::OPENDIR => {
                let dir = self.share.open_dir(&self.node(node)?)?;
                let flags = if self.freshness.keep_data { FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE } else { 0 };
                out.u64(self.dirs.insert(dir)).u32(flags).u32(0);
            }
            op::READDIR | op::READDIRPLUS => self.read_dir(op == op::READDIRPLUS, args, chain, out)?,
            op::RELEASEDIR => drop(self.dirs.remove(args.u64()?).ok_or(Errno::BADF)?),
            op::RELEASE => self.release(args)?,
            op::FLUSH => self.flush(args)?,
            op::FSYNC => {
                let (fh, flags) = (args.u64()?, args.u32()?);
                self.share.sync(&*self.files.get(fh)?, flags & FSYNC_FDATASYNC != 0)?;
            }
            op::FSYNCDIR => {
                let (fh, flags) = (args.u64()?, args.u32()?);
                self.share.sync_dir(&*self.dirs.get(fh)?, flags & FSYNC_FDATASYNC != 0)?;
            }
            op::SYNCFS => self.share.sync_all()?,
            op::STATFS => statfs_out(out, &self.share.file_system(&self.node(node)?)?),
            op::SETXATTR => {
                let (size, flags) = (args.u32()?, args.u32()?);
                let (name, value) = (args.c_str()?, args.bytes(size as usize)?);
                self.share.set_xattr(&self.node(node)?, name, value, flags)?;
            }
            op::GETXATTR => {
                let (size, _) = (args.u32()?, args.u32()?);
                sized(out, size, &self.share.get_xattr(&self.node(node)?, args.c_str()?)?)?;
            }
            op::LISTXATTR => {
                let (size, _) = (args.u32()?, args.u32()?);
                sized(out, size, &self.share.list_xattrs(&self.node(node)?)?)?;
            }
            op::REMOVEXATTR => self.share.remove_xattr(&self.node(node)?, args.c_str()?)?,
            op::FALLOCATE => {
                let (fh, offset, len, mode) = (args.u64()?, args.u64()?, args.u64()?, args.u32()?);
                self.share.allocate(&*self.files.get(fh)?, mode, offset, len)?;
            }
            op::LSEEK => {
                let (fh, offset, whence) = (args.u64()?, args.u64()?, args.u32()?);
                let whence = match whence {
                    3 => Whence::Data,
                    4 => Whence::Hole,
                    _ => return Err(Errno::INVAL),
                };
                out.u64(self.share.seek(&*self.files.get(fh)?, whence, offset)?);
            }
            op::COPY_FILE_RANGE => {
                let (from, from_at, _node) = (args.u64()?, args.u64()?, args.u64()?);
                let (to, to_at, len) = (args.u64()?, args.u64()?, args.u64()?);
                let (from, to) = (self.files.get(from)?, self.files.get(to)?);
                let copied = self.share.copy((&*from, from_at), (&*to, to_at), len)?;
                out.u32(copied as u32).u32(0);
            }
            op::GETLK | op::SETLK | op::SETLKW if self.host_locks => {
                return self.lock(op, request.unique, args, out);
            }
            op::IOCTL => return Err(Errno::NOTTY),
            // The driver then does without: BMAP, POLL, ACCESS, SETUPMAPPING (there is no DAX window).
            _ => return Err(Errno::NOSYS),
        }
        Ok(Reply::Bytes)
    }

    /// FUSE_INIT: the two sides agree on a version and on what they can do.
    fn init(&self, mut request: Request<'_>, out: &mut Answer) -> Result<Reply> {
        let args = &mut request.args;
        let (major, minor, readahead, wanted) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
        tracing::debug!(major, minor, wanted, request.unique, "a guest mounts a share");
        if major < MAJOR || (major == MAJOR && minor < OLDEST_MINOR) {
            guest_warn!("a guest speaks FUSE {major}.{minor}, older than {MAJOR}.{OLDEST_MINOR}");
            return Err(Errno::PROTO);
        }
        // A second mount without an unmount: the first is gone.
        self.forget_guest();
        if major == MAJOR {
            self.minor.store(minor.min(MINOR), Ordering::Release);
        }
        let flags = wanted & (FLAGS | if self.host_locks { LOCK_FLAGS } else { 0 });
        // Of a newer major version the driver asks again with ours.
        out.u32(MAJOR).u32(MINOR).u32(readahead).u32(flags);
        // Background requests, and the number from which on the guest holds back.
        out.u16(64).u16(48).u32(MAX_IO_BYTES);
        // Times in nanoseconds, pages in a request, no DAX alignment, no further flags.
        out.u32(1).u16((MAX_IO_BYTES / 4096) as u16).u16(0).u32(0).bytes(&[0; 28]);
        Ok(Reply::Bytes)
    }

    fn node(&self, id: u64) -> Result<Arc<Inode>> {
        self.share.inode(id)
    }

    /// The answer of whatever names a file; the guest will forget it some day.
    fn entry(&self, (inode, attr): &(Arc<Inode>, Attr), out: &mut Answer) {
        self.share.remember(inode);
        answer::entry_out(out, inode.id(), &self.freshness, attr);
    }

    fn set_attr(&self, node: u64, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let (valid, _, fh, size) = (args.u32()?, args.u32()?, args.u64()?, args.u64()?);
        let (_lock_owner, atime, mtime, _ctime) = (args.u64()?, args.u64()?, args.u64()?, args.u64()?);
        let (atime_ns, mtime_ns, _ctime_ns, mode) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
        let (_, uid, gid) = (args.u32()?, args.u32()?, args.u32()?);
        let has = |bit: u32| valid & bit != 0;
        let time = |given, now, sec: u64, ns| match (has(given), has(now)) {
            (_, true) => Some(SetTime::Now),
            (true, false) => Some(SetTime::At((sec as i64, ns))),
            (false, false) => None,
        };
        let set = SetAttr {
            mode: has(fattr::MODE).then_some(mode),
            uid: has(fattr::UID).then_some(uid),
            gid: has(fattr::GID).then_some(gid),
            size: has(fattr::SIZE).then_some(size),
            atime: time(fattr::ATIME, fattr::ATIME_NOW, atime, atime_ns),
            mtime: time(fattr::MTIME, fattr::MTIME_NOW, mtime, mtime_ns),
            kill_privileges: has(fattr::KILL_SUIDGID),
        };
        let file = has(fattr::FH).then(|| self.files.get(fh)).transpose()?;
        let attr = self.share.set_attr(&self.node(node)?, file.as_deref(), &set)?;
        answer::attr_out(out, self.freshness.attr, &attr);
        Ok(())
    }

    fn rename(&self, from: u64, to: u64, flags: u32, args: &mut Fields<'_>) -> Result<()> {
        let (name, new_name) = (args.c_str()?, args.c_str()?);
        self.share.rename(&self.node(from)?, name, &self.node(to)?, new_name, flags)
    }

    fn open(&self, op: u32, node: u64, by: Creator, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let inode = self.node(node)?;
        let flags = args.u32()?;
        let file = if op == op::OPEN {
            let open_flags = args.u32()?;
            let file = self.share.open_file(&inode, flags)?;
            if open_flags & OPEN_KILL_SUIDGID != 0 {
                self.share.drop_set_ids(&file)?;
            }
            file
        } else {
            let (mode, _umask, _open_flags) = (args.u32()?, args.u32()?, args.u32()?);
            let (inode, attr, file) = match op {
                op::CREATE => self.share.create(&inode, args.c_str()?, flags, mode, by)?,
                _ => self.share.create_unnamed(&inode, flags, mode, by)?,
            };
            self.entry(&(inode, attr), out);
            file
        };
        let keep = if self.freshness.keep_data { FOPEN_KEEP_CACHE } else { 0 };
        // FLUSH brings errors of earlier writes and drops locks; there are none of either.
        let no_flush = if flags & 3 == 0 && !self.host_locks { FOPEN_NOFLUSH } else { 0 };
        out.u64(self.files.insert(file)).u32(keep | no_flush).u32(0);
        Ok(())
    }

    fn read(&self, args: &mut Fields<'_>, chain: &Chain) -> Result<Reply> {
        let (fh, offset, size) = (args.u64()?, args.u64()?, args.u32()?);
        let file = self.files.get(fh)?;
        let room = chain.writable_len().saturating_sub(OUT_HEADER_BYTES as u64);
        let size = u64::from(size.min(MAX_IO_BYTES)).min(room);
        let start = OUT_HEADER_BYTES as u64;
        let read =
            read_vector(chain, start..start + size, |buffers| self.share.read(&file, offset, buffers))?;
        Ok(Reply::Written(read))
    }

    fn write(&self, args: &mut Fields<'_>, chain: &Chain, out: &mut Answer) -> Result<()> {
        let (fh, offset, size, write_flags) = (args.u64()?, args.u64()?, args.u32()?, args.u32()?);
        let (_lock_owner, flags) = (args.u64()?, args.u32()?);
        let file = self.files.get(fh)?;
        let start = (IN_HEADER_BYTES + WRITE_IN_BYTES) as u64;
        let end = start + u64::from(size);
        if size > MAX_IO_BYTES || end > chain.readable_len() {
            return Err(Errno::INVAL);
        }
        if write_flags & WRITE_KILL_SUIDGID != 0 {
            self.share.drop_set_ids(&file)?;
        }
        // O_APPEND as it is now, fcntl(2) can change it.
        let append = flags & 0o2000 != 0;
        let written =
            write_vector(chain, start..end, |buffers| self.share.write(&file, offset, append, buffers))?;
        out.u32(written as u32).u32(0);
        Ok(())
    }

    fn release(&self, args: &mut Fields<'_>) -> Result<()> {
        let (fh, _flags, release_flags) = (args.u64()?, args.u32()?, args.u32()?);
        let (_, owner) = (0, args.u64()?);
        let Some(file) = self.files.remove(fh) else { return Err(Errno::BADF) };
        if self.host_locks {
            if release_flags & RELEASE_FLOCK_UNLOCK != 0 {
                self.share.lock_whole(&file, LockKind::Unlock)?;
            }
            self.share.release_locks(file.inode(), owner);
        }
        Ok(())
    }

    fn flush(&self, args: &mut Fields<'_>) -> Result<()> {
        let (fh, _, _, owner) = (args.u64()?, args.u32()?, args.u32()?, args.u64()?);
        let file = self.files.get(fh)?;
        if self.host_locks {
            self.share.release_locks(file.inode(), owner);
        }
        if file.was_written() { self.share.flush(&file) } else { Ok(()) }
    }

    fn read_dir(&self, plus: bool, args: &mut Fields<'_>, chain: &Chain, out: &mut Answer) -> Result<()> {
        let (fh, offset, size) = (args.u64()?, args.u64()?, args.u32()?);
        let dir = self.dirs.get(fh)?;
        let room =
            chain.writable_len().min(u64::from(size.min(MAX_DIR_BYTES)) + OUT_HEADER_BYTES as u64) as usize;
        self.share.read_dir(&dir, offset, |entry| {
            let name = entry.name.to_bytes();
            if out.len() + answer::dirent_bytes(name.len(), plus) > room {
                // The guest's buffer holds not even one.
                return if out.len() == OUT_HEADER_BYTES { Err(Errno::INVAL) } else { Ok(false) };
            }
            if plus {
                // `.` and `..` are the guest's to know.
                let looked_up = match name {
                    b"." | b".." => None,
                    _ => self.share.lookup_open(&dir, &entry.name).ok(),
                };
                match looked_up {
                    Some(found) => self.entry(&found, out),
                    None => answer::no_entry(out),
                }
            }
            answer::dirent(out, entry);
            Ok(true)
        })
    }

    fn lock(&self, op: u32, unique: u64, args: &mut Fields<'_>, out: &mut Answer) -> Result<Reply> {
        let (fh, owner, start, end) = (args.u64()?, args.u64()?, args.u64()?, args.u64()?);
        let (kind, _pid, lk_flags) = (args.u32()?, args.u32()?, args.u32()?);
        let (file, kind) = (self.files.get(fh)?, answer::lock_kind(kind)?);
        if start > end {
            return Err(Errno::INVAL);
        }
        let to_end = end >= i64::MAX as u64;
        let range = ByteLock { kind, start, len: if to_end { 0 } else { end - start + 1 } };
        if op == op::GETLK {
            answer::lock_out(out, self.share.test_lock(file.inode(), owner, range)?);
            return Ok(Reply::Bytes);
        }
        let lock = LockRequest { unique, file, owner, range, whole: lk_flags & LK_FLOCK != 0 };
        match self.try_lock(&lock) {
            Err(Errno::AGAIN) if op == op::SETLKW => Ok(Reply::Wait(lock)),
            other => other.map(|()| Reply::Bytes),
        }
    }
}

/// Buffers that a thread uses again for each request.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    request: Vec<u8>,
    answer: Answer,
}

/// Fills in the header and writes the answer, whose data may be in the chain already; returns its length.
fn send(chain: &Chain, unique: u64, result: Result<()>, answer: &mut Answer, data_len: u64) -> u32 {
    if result.is_err() {
        answer.0.truncate(OUT_HEADER_BYTES);
    }
    let error = result.map_or_else(|error| -error.raw_os_error(), |()| 0);
    let len = (answer.len() as u64 + data_len) as u32;
    answer.0[..4].copy_from_slice(&len.to_le_bytes());
    answer.0[4..8].copy_from_slice(&error.to_le_bytes());
    answer.0[8..16].copy_from_slice(&unique.to_le_bytes());
    if chain.writable_len() < answer.len() as u64 || chain.write_at(0, &answer.0).is_err() {
        guest_warn!("a FUSE request has no room for its answer");
        return 0;
    }
    len
}

/// GETXATTR and LISTXATTR: the length if `size` is 0, else the bytes if they fit.
fn sized(out: &mut Answer, size: u32, bytes: &[u8]) -> Result<()> {
    if size == 0 {
        out.u32(bytes.len() as u32).u32(0);
    } else if bytes.len() > size as usize {
        return Err(Errno::RANGE);
    } else {
        out.bytes(bytes);
    }
    Ok(())
}

/// `struct fuse_kstatfs`.
fn statfs_out(out: &mut Answer, stat: &FileSystemStat) {
    out.u64(stat.blocks).u64(stat.free).u64(stat.available).u64(stat.files).u64(stat.free_files);
    out.u32(stat.block_size).u32(stat.name_len).u32(stat.block_size).u32(0).bytes(&[0; 24]);
}
