//! What shares may take of the host: descriptors, memory, and the numbers that guests name open files by.

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Files that one guest can make a share remember: about 300 MiB of memory, and more than a guest of 2 GiB can.
pub(super) const MAX_INODES: usize = 1 << 20;
/// Open files of one share.
const MOST_OPEN_FILES: usize = 1 << 16;
/// Open directories of one share, each with entries fetched in advance.
const MOST_OPEN_DIRS: usize = 1 << 12;
/// Path descriptors of one share.
const MOST_PATH_DESCRIPTORS: usize = 1 << 14;

/// The process's limit on descriptors, after it was raised as far as the host allows.
fn descriptor_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        // Refused where the limit is the hard one already.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        let current = getrlimit(Resource::Nofile).current;
        current.and_then(|current| usize::try_from(current).ok()).unwrap_or(usize::MAX)
    })
}

/// How many descriptors a share keeps to find files by.
pub(super) fn path_descriptors() -> usize {
    (descriptor_limit() / 8).clamp(16, MOST_PATH_DESCRIPTORS)
}

/// How many files a guest may have open in a share.
fn open_files() -> usize {
    (descriptor_limit() / 4).clamp(16, MOST_OPEN_FILES)
}

/// The process's umask, read without changing it.
pub(super) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Unknown: every permission is checked after a file was made.
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}

/// One open file's part of the limit.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicUsize>);

impl Permit {
    pub(super) fn for_file(open: &Arc<AtomicUsize>) -> Result<Self, Errno> {
        Self::take(open, open_files())
    }

    pub(super) fn for_dir(open: &Arc<AtomicUsize>) -> Result<Self, Errno> {
        Self::take(open, open_files().min(MOST_OPEN_DIRS))
    }

    fn take(open: &Arc<AtomicUsize>, limit: usize) -> Result<Self, Errno> {
        if open.fetch_add(1, Ordering::Relaxed) >= limit {
            open.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::NFILE);
        }
        Ok(Self(open.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Open files by the number their guest has for them; no number is used twice.
#[derive(Debug)]
pub struct Handles<T> {
    inner: Mutex<(HashMap<u64, Arc<T>>, u64)>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { inner: Mutex::new((HashMap::new(), 1)) }
    }
}

impl<T> Handles<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, (HashMap<u64, Arc<T>>, u64)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `value` and names it.
    pub fn insert(&self, value: T) -> u64 {
        let mut inner = self.lock();
        let number = inner.1;
        inner.1 += 1;
        inner.0.insert(number, Arc::new(value));
        number
    }

    /// What the guest calls `number`; `EBADF` if it is nothing.
    pub fn get(&self, number: u64) -> Result<Arc<T>, Errno> {
        self.lock().0.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Lets go of `number`.
    pub fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.lock().0.remove(&number)
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        let all = std::mem::take(&mut self.lock().0);
        drop(all);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().0.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
