//! The 9P2000.L server behind a virtio-9p device: takes requests apart, and answers them from a [`Share`].
//!
//! Any number of threads may call it at once. Locks are taken on the host, without waiting: the client asks again.

use super::{
    abi::*,
    fid::{Fid, Fids, Open, XattrPermit, XattrWrite},
};
use crate::{
    backend::share::{
        Attr, ByteLock, Creator, Errno, FileType, Inode, LockKind, NodeKind, SetAttr, SetTime, Share,
    },
    virtio::{
        Chain,
        guest_io::{read_vector, write_vector},
        wire::{Answer, Fields},
    },
};
use isomer_core::guest_warn;
use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

/// Longest message. Linux's virtio transport takes 500 KiB.
const MAX_MSIZE: u32 = 1 << 20;
/// Shortest, with room for any answer but data.
const MIN_MSIZE: u32 = 4096;
/// Longest request that is not a WRITE.
const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// Names in one WALK.
const MAX_WALK: u16 = 16;
/// Longest extended attribute.
const MAX_XATTR: u64 = 64 << 10;
/// Bytes of WRITE before the data.
const WRITE_BYTES: usize = HEADER_BYTES + 16;
/// Bytes of READ's and READDIR's answers before the data.
const READ_BYTES: usize = HEADER_BYTES + 4;

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    share: Arc<Share>,
    pub(super) fids: Fids,
    /// Longest message agreed on; 0 before VERSION.
    msize: AtomicU32,
    tags: Mutex<HashMap<u16, u32>>,
    tag_done: Condvar,
    xattrs: Arc<AtomicUsize>,
}

/// What an answer is, besides an error.
enum Reply {
    /// The bytes put together.
    Bytes,
    /// The bytes put together, then this many that are in the chain already.
    WithData(u64),
}

type Result<T, E = Errno> = std::result::Result<T, E>;

impl Server {
    pub(super) fn new(share: Arc<Share>) -> Self {
        let (tags, tag_done) = (Mutex::default(), Condvar::new());
        Self {
            share,
            fids: Fids::default(),
            msize: AtomicU32::new(0),
            tags,
            tag_done,
            xattrs: Arc::default(),
        }
    }

    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    /// Has a client agreed on a version?
    pub(super) fn is_mounted(&self) -> bool {
        self.msize.load(Ordering::Acquire) != 0
    }

    /// The client is gone.
    pub(super) fn forget_client(&self) {
        self.fids.clear();
        self.share.forget_all();
        self.msize.store(0, Ordering::Release);
        self.tags().clear();
        self.tag_done.notify_all();
    }

    fn tags(&self) -> MutexGuard<'_, HashMap<u16, u32>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Type and tag of a request, if it is long enough to tell.
    pub(super) fn kind_and_tag(chain: &Chain) -> Option<(u8, u16)> {
        let mut raw = [0; 3];
        matches!(chain.read_at(4, &mut raw), Ok(3)).then(|| (raw[0], u16::from_le_bytes([raw[1], raw[2]])))
    }

    /// Can this request keep a thread for long?
    pub(super) fn may_wait(kind: u8) -> bool {
        matches!(kind, op::FSYNC | op::FLUSH | op::WRITE | op::READ | op::CLUNK)
    }

    /// A request with this tag is being worked on from now on.
    pub(super) fn begin(&self, kind: u8, tag: u16) {
        if kind != op::FLUSH {
            *self.tags().entry(tag).or_default() += 1;
        }
    }

    /// Its answer was given back.
    pub(super) fn end(&self, kind: u8, tag: u16) {
        if kind == op::FLUSH {
            return;
        }
        let mut tags = self.tags();
        if let Some(count) = tags.get_mut(&tag) {
            *count -= 1;
            if *count == 0 {
                tags.remove(&tag);
                drop(tags);
                self.tag_done.notify_all();
            }
        }
    }

    /// FLUSH: requests are not cut short, but none is answered after its FLUSH was. All end by themselves.
    fn flush(&self, tag: u16) {
        let mut tags = self.tags();
        while tags.contains_key(&tag) {
            tags = self.tag_done.wait(tags).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Carries out the request in `chain`; returns how many bytes of the answer were written to it.
    pub(super) fn serve(&self, chain: &Chain, scratch: &mut Scratch) -> u32 {
        let mut header = [0; HEADER_BYTES];
        if !matches!(chain.read_at(0, &mut header), Ok(HEADER_BYTES)) {
            guest_warn!("a 9P request is shorter than its header");
            return 0;
        }
        let size = u32::from_le_bytes(std::array::from_fn(|i| header[i]));
        let (kind, tag) = (header[4], u16::from_le_bytes([header[5], header[6]]));
        scratch.answer.0.clear();
        scratch.answer.0.resize(HEADER_BYTES, 0);
        let result = self.run(chain, size, kind, scratch);
        let out = &mut scratch.answer;
        let (kind, data) = match result {
            Ok(Reply::Bytes) if (out.len() as u64) <= chain.writable_len() => (kind.wrapping_add(1), 0),
            Ok(Reply::WithData(len)) => (kind.wrapping_add(1), len),
            other => {
                let error = other.err().unwrap_or(Errno::MSGSIZE);
                out.0.truncate(HEADER_BYTES);
                out.u32(error.raw_os_error() as u32);
                (op::ERROR + 1, 0)
            }
        };
        let len = (out.len() as u64 + data) as u32;
        out.0[..4].copy_from_slice(&len.to_le_bytes());
        out.0[4] = kind;
        out.0[5..7].copy_from_slice(&tag.to_le_bytes());
        if chain.writable_len() < out.len() as u64 || chain.write_at(0, &out.0).is_err() {
            guest_warn!("a 9P request has no room for its answer");
            return 0;
        }
        len
    }

    fn run(&self, chain: &Chain, size: u32, kind: u8, scratch: &mut Scratch) -> Result<Reply> {
        if u64::from(size) > chain.readable_len() || (size as usize) < HEADER_BYTES {
            guest_warn!("a 9P request says it has {size} bytes and has {}", chain.readable_len());
            return Err(Errno::INVAL);
        }
        let limit = match kind {
            op::WRITE => u64::from(size).min(WRITE_BYTES as u64),
            _ if u64::from(size) > MAX_REQUEST_BYTES => return Err(Errno::MSGSIZE),
            _ => u64::from(size),
        };
        let Scratch { request, answer } = scratch;
        request.resize(limit as usize - HEADER_BYTES, 0);
        chain.read_at(HEADER_BYTES as u64, request).map_err(|_| Errno::FAULT)?;
        let mut args = Fields::new(request);
        if kind == op::VERSION {
            return self.version(&mut args, answer);
        }
        match self.msize.load(Ordering::Acquire) {
            0 => return Err(Errno::PROTO),
            msize if size > msize => return Err(Errno::MSGSIZE),
            _ => {}
        }
        match kind {
            op::READ => self.read(&mut args, chain, answer),
            op::WRITE => self.write(&mut args, chain, size, answer),
            _ => self.dispatch(kind, &mut args, chain, answer).map(|()| Reply::Bytes),
        }
    }

    fn dispatch(&self, kind: u8, args: &mut Fields<'_>, chain: &Chain, out: &mut Answer) -> Result<()> {
        match kind {
            op::FLUSH => self.flush(args.u16()?),
            op::ATTACH => self.attach(args, out)?,
            op::WALK => self.walk(args, out)?,
            op::CLUNK => self.clunk(args.u32()?)?,
            op::REMOVE => self.remove(args.u32()?)?,
            op::LOPEN => self.open(args, out)?,
            op::LCREATE => self.create(args, out)?,
            op::STATFS => {
                let stat = self.share.file_system(&self.fid(args)?.inode)?;
                out.u32(stat.kind).u32(stat.block_size).u64(stat.blocks).u64(stat.free).u64(stat.available);
                out.u64(stat.files).u64(stat.free_files).u64(0).u32(stat.name_len);
            }
            op::GETATTR => {
                let attr = self.share.attr(&self.fid(args)?.inode)?;
                getattr_out(out, &attr);
            }
            op::SETATTR => self.set_attr(args)?,
            op::READLINK => {
                let target = self.share.read_link(&self.fid(args)?.inode)?;
                string(out, &target);
            }
            op::READDIR => self.read_dir(args, chain, out)?,
            op::FSYNC => {
                let fid = self.fid(args)?;
                let data_only = args.u32().unwrap_or(0) != 0;
                match &*fid.lock() {
                    Open::File(file) => self.share.sync(file, data_only)?,
                    Open::Dir(dir) => self.share.sync_dir(dir, data_only)?,
                    _ => return Err(Errno::BADF),
                }
            }
            op::SYMLINK => {
                let (dir, name, target, gid) = (self.fid(args)?, text(args)?, text(args)?, args.u32()?);
                let by = Creator { uid: dir.uid, gid };
                qid(out, &self.share.make_symlink(&dir.inode, &name, &target, by)?.1);
            }
            op::MKDIR => {
                let (dir, name, mode, gid) = (self.fid(args)?, text(args)?, args.u32()?, args.u32()?);
                let by = Creator { uid: dir.uid, gid };
                qid(out, &self.share.make_dir(&dir.inode, &name, mode, by)?.1);
            }
            op::MKNOD => {
                let (dir, name, mode) = (self.fid(args)?, text(args)?, args.u32()?);
                let (major, minor, gid) = (args.u32()?, args.u32()?, args.u32()?);
                let kind = NodeKind::from_mode(mode, major | minor)?;
                let by = Creator { uid: dir.uid, gid };
                qid(out, &self.share.make_node(&dir.inode, &name, kind, mode, by)?.1);
            }
            op::LINK => {
                let (dir, file, name) = (self.fid(args)?, self.fid(args)?, text(args)?);
                self.share.link(&file.inode, &dir.inode, &name)?;
            }
            op::RENAME => {
                let (file, dir, name) = (self.fid(args)?, self.fid(args)?, text(args)?);
                let (from, old) = self.share.place(&file.inode)?;
                self.share.rename(&from, &old, &dir.inode, &name, 0)?;
            }
            op::RENAMEAT => {
                let (from, old, to, new) = (self.fid(args)?, text(args)?, self.fid(args)?, text(args)?);
                self.share.rename(&from.inode, &old, &to.inode, &new, 0)?;
            }
            op::UNLINKAT => {
                let (dir, name, flags) = (self.fid(args)?, text(args)?, args.u32()?);
                self.share.remove(&dir.inode, &name, flags & AT_REMOVEDIR != 0)?;
            }
            op::XATTRWALK => self.xattr_walk(args, out)?,
            op::XATTRCREATE => self.xattr_create(args)?,
            op::LOCK => self.lock(args, out)?,
            op::GETLOCK => self.get_lock(args, out)?,
            // AUTH among them: who may mount is decided by who runs the machine.
            _ => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }

    fn fid(&self, args: &mut Fields<'_>) -> Result<Arc<Fid>> {
        self.fids.get(args.u32()?)
    }

    /// A new client, or the old one anew: everything before is void.
    fn version(&self, args: &mut Fields<'_>, out: &mut Answer) -> Result<Reply> {
        let msize = args.u32()?;
        let len = args.u16()?;
        let version = args.bytes(len.into())?;
        if msize < MIN_MSIZE {
            return Err(Errno::MSGSIZE);
        }
        self.fids.clear();
        self.share.forget_all();
        let known = version == VERSION;
        let agreed = msize.min(MAX_MSIZE);
        self.msize.store(if known { agreed } else { 0 }, Ordering::Release);
        out.u32(agreed);
        string(out, if known { VERSION } else { UNKNOWN_VERSION });
        Ok(Reply::Bytes)
    }

    fn attach(&self, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let (number, _auth, _user, tree, uid) =
            (args.u32()?, args.u32()?, text(args)?, text(args)?, args.u32()?);
        if !matches!(tree.to_bytes(), b"" | b"/") {
            return Err(Errno::NOENT);
        }
        // NONUNAME: the client did not say who it is, and creates files as root.
        let uid = if uid == u32::MAX { 0 } else { uid };
        let root = self.share.root().clone();
        let attr = self.share.attr(&root)?;
        self.fids.insert(number, Fid::new(root, uid, Open::No))?;
        qid(out, &attr);
        Ok(())
    }

    fn walk(&self, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let (number, new_number, count) = (args.u32()?, args.u32()?, args.u16()?);
        let fid = self.fids.get(number)?;
        if count > MAX_WALK {
            return Err(Errno::INVAL);
        }
        if fid.is_open() && number == new_number {
            return Err(Errno::BADF);
        }
        let (mut at, mut found) = (fid.inode.clone(), 0);
        let start = out.len();
        out.u16(0);
        for _ in 0..count {
            let name = text(args)?;
            match self.step(&at, &name) {
                Ok((inode, attr)) => {
                    qid(out, &attr);
                    at = inode;
                    found += 1;
                }
                Err(error) if found == 0 => return Err(error),
                Err(_) => break,
            }
        }
        out.0[start..start + 2].copy_from_slice(&u16::to_le_bytes(found));
        if found < count {
            return Ok(());
        }
        let fid = Fid::new(at, fid.uid, Open::No);
        if number == new_number { self.fids.replace(number, fid) } else { self.fids.insert(new_number, fid) }
    }

    fn step(&self, at: &Arc<Inode>, name: &CStr) -> Result<(Arc<Inode>, Attr)> {
        if name.to_bytes() != b".." {
            return self.share.lookup(at, name);
        }
        let parent = self.share.parent(at)?;
        let attr = self.share.attr(&parent)?;
        Ok((parent, attr))
    }

    fn clunk(&self, number: u32) -> Result<()> {
        let fid = self.fids.remove(number)?;
        let owners = std::mem::take(&mut *fid.lock_owners.lock().unwrap_or_else(PoisonError::into_inner));
        owners.iter().for_each(|&owner| self.share.release_locks(&fid.inode, owner));
        let open = std::mem::take(&mut *fid.lock());
        match open {
            Open::XattrWrite(XattrWrite { name, size: 0, .. }) => self.share.remove_xattr(&fid.inode, &name),
            Open::XattrWrite(XattrWrite { name, flags, size, value, .. }) if value.len() == size => {
                self.share.set_xattr(&fid.inode, &name, &value, flags)
            }
            Open::XattrWrite(_) => Err(Errno::INVAL),
            _ => Ok(()),
        }
    }

    fn remove(&self, number: u32) -> Result<()> {
        let fid = self.fids.remove(number)?;
        let (parent, name) = self.share.place(&fid.inode)?;
        self.share.remove(&parent, &name, fid.inode.is_dir())
    }

    fn open(&self, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let (fid, flags) = (self.fid(args)?, args.u32()?);
        if fid.is_open() {
            return Err(Errno::BADF);
        }
        let open = match fid.inode.is_dir() {
            true => Open::Dir(Arc::new(self.share.open_dir(&fid.inode)?)),
            false => Open::File(Arc::new(self.share.open_file(&fid.inode, flags)?)),
        };
        qid(out, &self.share.attr(&fid.inode)?);
        // The unit of I/O: as much as fits a message.
        out.u32(0);
        *fid.lock() = open;
        Ok(())
    }

    fn create(&self, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let (number, name, flags) = (args.u32()?, text(args)?, args.u32()?);
        let (mode, gid) = (args.u32()?, args.u32()?);
        let dir = self.fids.get(number)?;
        if dir.is_open() {
            return Err(Errno::BADF);
        }
        let by = Creator { uid: dir.uid, gid };
        let (inode, attr, file) = self.share.create(&dir.inode, &name, flags, mode, by)?;
        self.fids.replace(number, Fid::new(inode, dir.uid, Open::File(Arc::new(file))))?;
        qid(out, &attr);
        out.u32(0);
        Ok(())
    }

    fn set_attr(&self, args: &mut Fields<'_>) -> Result<()> {
        let (fid, valid, mode) = (self.fid(args)?, args.u32()?, args.u32()?);
        let (uid, gid, size) = (args.u32()?, args.u32()?, args.u64()?);
        let mut time = |given: u32, set: u32| {
            let at = (args.u64()? as i64, args.u64()?.min(999_999_999) as u32);
            Ok::<_, Errno>(match (valid & given != 0, valid & set != 0) {
                (false, _) => None,
                (true, false) => Some(SetTime::Now),
                (true, true) => Some(SetTime::At(at)),
            })
        };
        let atime = time(setattr::ATIME, setattr::ATIME_SET)?;
        let mtime = time(setattr::MTIME, setattr::MTIME_SET)?;
        let set = SetAttr {
            mode: (valid & setattr::MODE != 0).then_some(mode),
            uid: (valid & setattr::UID != 0).then_some(uid),
            gid: (valid & setattr::GID != 0).then_some(gid),
            size: (valid & setattr::SIZE != 0).then_some(size),
            atime,
            mtime,
            kill_privileges: false,
        };
        // By the open file where there is one: its permissions were checked when it was opened.
        let file = fid.file().ok();
        self.share.set_attr(&fid.inode, file.as_deref().filter(|file| file.is_writable()), &set).map(drop)
    }

    fn read(&self, args: &mut Fields<'_>, chain: &Chain, out: &mut Answer) -> Result<Reply> {
        let (fid, offset, count) = (self.fid(args)?, args.u64()?, args.u32()?);
        let room = chain.writable_len().saturating_sub(READ_BYTES as u64);
        let most = u64::from(self.msize.load(Ordering::Acquire)).saturating_sub(READ_BYTES as u64);
        let count = u64::from(count).min(room).min(most);
        let open = fid.lock().clone();
        let start = READ_BYTES as u64;
        let len = match open {
            Open::File(file) => {
                read_vector(chain, start..start + count, |buffers| self.share.read(&file, offset, buffers))?
            }
            Open::XattrRead { value, .. } => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
                let part = &value[from..value.len().min(from + count as usize)];
                chain.write_at(start, part).map_err(|_| Errno::FAULT)? as u64
            }
            _ => return Err(Errno::BADF),
        };
        out.u32(len as u32);
        Ok(Reply::WithData(len))
    }

    fn write(&self, args: &mut Fields<'_>, chain: &Chain, size: u32, out: &mut Answer) -> Result<Reply> {
        let (fid, offset, count) = (self.fid(args)?, args.u64()?, args.u32()?);
        let start = WRITE_BYTES as u64;
        let end = start + u64::from(count);
        if end > u64::from(size) {
            return Err(Errno::INVAL);
        }
        let file = match &mut *fid.lock() {
            Open::File(file) => file.clone(),
            Open::XattrWrite(xattr) => {
                let at = xattr.value.len();
                if offset != at as u64 || at + count as usize > xattr.size {
                    return Err(Errno::NOSPC);
                }
                xattr.value.resize(at + count as usize, 0);
                chain.read_at(start, &mut xattr.value[at..]).map_err(|_| Errno::FAULT)?;
                out.u32(count);
                return Ok(Reply::Bytes);
            }
            _ => return Err(Errno::BADF),
        };
        let written = write_vector(chain, start..end, |buffers| {
            self.share.write(&file, offset, file.appends(), buffers)
        })?;
        out.u32(written as u32);
        Ok(Reply::Bytes)
    }

    fn read_dir(&self, args: &mut Fields<'_>, chain: &Chain, out: &mut Answer) -> Result<()> {
        let (fid, offset, count) = (self.fid(args)?, args.u64()?, args.u32()?);
        let dir = fid.dir()?;
        let msize = self.msize.load(Ordering::Acquire);
        let room = chain.writable_len().min(msize.into()).min(u64::from(count) + READ_BYTES as u64) as usize;
        let start = out.len();
        out.u32(0);
        self.share.read_dir(&dir, offset, |entry| {
            let name = entry.name.to_bytes();
            if out.len() + 24 + name.len() > room {
                return Ok(false);
            }
            out.u8(qid_kind(entry.kind)).u32(0).u64(entry.ino);
            out.u64(entry.next).u8(super::super::fs::dirent_kind(entry.kind) as u8);
            string(out, name);
            Ok(true)
        })?;
        let len = (out.len() - start - 4) as u32;
        out.0[start..start + 4].copy_from_slice(&len.to_le_bytes());
        Ok(())
    }

    fn xattr_walk(&self, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let (fid, number, name) = (self.fid(args)?, args.u32()?, text(args)?);
        let permit = XattrPermit::take(&self.xattrs)?;
        let value = match name.is_empty() {
            true => self.share.list_xattrs(&fid.inode)?,
            false => self.share.get_xattr(&fid.inode, &name)?,
        };
        let len = value.len() as u64;
        let open = Open::XattrRead { value: Arc::new(value), _permit: permit };
        self.fids.insert(number, Fid::new(fid.inode.clone(), fid.uid, open))?;
        out.u64(len);
        Ok(())
    }

    fn xattr_create(&self, args: &mut Fields<'_>) -> Result<()> {
        let (fid, name, size, flags) = (self.fid(args)?, text(args)?, args.u64()?, args.u32()?);
        if size > MAX_XATTR {
            return Err(Errno::TOOBIG);
        }
        let mut open = fid.lock();
        if !matches!(*open, Open::No) {
            return Err(Errno::BADF);
        }
        let _permit = XattrPermit::take(&self.xattrs)?;
        *open = Open::XattrWrite(XattrWrite { name, flags, size: size as usize, value: Vec::new(), _permit });
        Ok(())
    }

    fn lock(&self, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let (fid, kind, _flags) = (self.fid(args)?, lock_kind(args.u8()?)?, args.u32()?);
        let (start, len, process) = (args.u64()?, args.u64()?, args.u32()?);
        let owner = owner(process, &text(args)?);
        fid.file()?;
        let status = match self.share.set_lock(&fid.inode, owner, ByteLock { kind, start, len }) {
            Ok(()) => LOCK_SUCCESS,
            Err(Errno::AGAIN) => LOCK_BLOCKED,
            Err(error) => return Err(error),
        };
        let mut owners = fid.lock_owners.lock().unwrap_or_else(PoisonError::into_inner);
        if !owners.contains(&owner) && kind != LockKind::Unlock {
            owners.push(owner);
        }
        out.u8(status);
        Ok(())
    }

    fn get_lock(&self, args: &mut Fields<'_>, out: &mut Answer) -> Result<()> {
        let (fid, kind) = (self.fid(args)?, lock_kind(args.u8()?)?);
        let (start, len, process) = (args.u64()?, args.u64()?, args.u32()?);
        let client = text(args)?;
        fid.file()?;
        let asked = ByteLock { kind, start, len };
        let held = self.share.test_lock(&fid.inode, owner(process, &client), asked)?;
        let (kind, lock, process) = match held {
            None => (2, asked, process),
            // Who has it is no process of this client's.
            Some(lock) => (u8::from(lock.kind == LockKind::Write), lock, 0),
        };
        out.u8(kind).u64(lock.start).u64(lock.len).u32(process);
        string(out, client.to_bytes());
        Ok(())
    }
}

/// Buffers that a thread uses again for each request.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    request: Vec<u8>,
    answer: Answer,
}

/// A string: its length and its bytes, none of which may be zero.
fn text(args: &mut Fields<'_>) -> Result<CString> {
    let len = args.u16()?;
    CString::new(args.bytes(len.into())?).map_err(|_| Errno::INVAL)
}

fn string(out: &mut Answer, text: &[u8]) {
    out.u16(text.len() as u16).bytes(text);
}

/// Locks belong to a process of a client.
fn owner(process: u32, client: &CStr) -> u64 {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    hasher.finish() << 32 | u64::from(process)
}

fn lock_kind(kind: u8) -> Result<LockKind> {
    match kind {
        0 => Ok(LockKind::Read),
        1 => Ok(LockKind::Write),
        2 => Ok(LockKind::Unlock),
        _ => Err(Errno::INVAL),
    }
}

fn qid_kind(kind: FileType) -> u8 {
    match kind {
        FileType::Directory => 0x80,
        FileType::Symlink => 0x02,
        _ => 0,
    }
}

/// A qid: kind, version (changes with the contents), number.
fn qid(out: &mut Answer, attr: &Attr) {
    let (sec, nsec) = attr.mtime;
    let version = sec as u32 ^ nsec << 8 ^ attr.size as u32;
    out.u8(qid_kind(FileType::from_raw_mode(attr.mode))).u32(version).u64(attr.ino);
}

/// RGETATTR.
fn getattr_out(out: &mut Answer, attr: &Attr) {
    out.u64(GETATTR_VALID);
    qid(out, attr);
    out.u32(attr.mode).u32(attr.uid).u32(attr.gid).u64(attr.links.into()).u64(attr.rdev_encoded().into());
    out.u64(attr.size).u64(attr.block_size.into()).u64(attr.blocks);
    for (sec, nsec) in [attr.atime, attr.mtime, attr.ctime, attr.btime] {
        out.u64(sec as u64).u64(nsec.into());
    }
    // Generation and data version, neither of which is said to be valid.
    out.u64(0).u64(0);
}
