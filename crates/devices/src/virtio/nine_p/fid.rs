//! Fids: the numbers a 9P client has for files, chosen by itself.

use crate::backend::share::{Dir, Errno, File, Inode};
use std::{
    collections::HashMap,
    ffi::CString,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Fids a client may have. Linux keeps one for each cached directory entry.
const MAX_FIDS: usize = 1 << 17;

/// One fid.
#[derive(Debug)]
pub(super) struct Fid {
    pub(super) inode: Arc<Inode>,
    /// The user who attached.
    pub(super) uid: u32,
    pub(super) open: Mutex<Open>,
    /// Owners of locks taken through this fid.
    pub(super) lock_owners: Mutex<Vec<u64>>,
}

/// What a fid can be used for besides walking.
#[derive(Clone, Debug, Default)]
pub(super) enum Open {
    /// Nothing yet.
    #[default]
    No,
    File(Arc<File>),
    Dir(Arc<Dir>),
    /// The value of an extended attribute, or the list of all.
    XattrRead {
        value: Arc<Vec<u8>>,
        _permit: Arc<XattrPermit>,
    },
    /// An extended attribute that is set when the fid is given up.
    XattrWrite(XattrWrite),
}

/// See [`Open::XattrWrite`].
#[derive(Clone, Debug)]
pub(super) struct XattrWrite {
    pub(super) name: CString,
    pub(super) flags: u32,
    pub(super) size: usize,
    pub(super) value: Vec<u8>,
    pub(super) _permit: Arc<XattrPermit>,
}

/// Extended attributes held for a client, of up to 64 KiB each.
const MAX_XATTRS: usize = 256;

/// One of [`MAX_XATTRS`].
#[derive(Debug)]
pub(super) struct XattrPermit(Arc<AtomicUsize>);

impl XattrPermit {
    pub(super) fn take(count: &Arc<AtomicUsize>) -> Result<Arc<Self>, Errno> {
        let permit = Arc::new(Self(count.clone()));
        if count.fetch_add(1, Ordering::Relaxed) >= MAX_XATTRS { Err(Errno::NFILE) } else { Ok(permit) }
    }
}

impl Drop for XattrPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fid {
    pub(super) fn new(inode: Arc<Inode>, uid: u32, open: Open) -> Self {
        Self { inode, uid, open: Mutex::new(open), lock_owners: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn file(&self) -> Result<Arc<File>, Errno> {
        match &*self.lock() {
            Open::File(file) => Ok(file.clone()),
            _ => Err(Errno::BADF),
        }
    }

    pub(super) fn dir(&self) -> Result<Arc<Dir>, Errno> {
        match &*self.lock() {
            Open::Dir(dir) => Ok(dir.clone()),
            _ => Err(Errno::BADF),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(*self.lock(), Open::No)
    }
}

/// All fids of a client.
#[derive(Debug, Default)]
pub(super) struct Fids(Mutex<HashMap<u32, Arc<Fid>>>);

impl Fids {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Fid>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, fid: u32) -> Result<Arc<Fid>, Errno> {
        self.lock().get(&fid).cloned().ok_or(Errno::BADF)
    }

    /// A new fid; the number must be free.
    pub(super) fn insert(&self, number: u32, fid: Fid) -> Result<(), Errno> {
        let mut fids = self.lock();
        if fids.contains_key(&number) {
            return Err(Errno::BADF);
        }
        if fids.len() >= MAX_FIDS {
            return Err(Errno::NFILE);
        }
        fids.insert(number, Arc::new(fid));
        Ok(())
    }

    /// Makes an existing number mean something else.
    pub(super) fn replace(&self, number: u32, fid: Fid) -> Result<(), Errno> {
        let old = self.lock().get_mut(&number).map(|slot| std::mem::replace(slot, Arc::new(fid)));
        old.map(drop).ok_or(Errno::BADF)
    }

    pub(super) fn remove(&self, number: u32) -> Result<Arc<Fid>, Errno> {
        self.lock().remove(&number).ok_or(Errno::BADF)
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
