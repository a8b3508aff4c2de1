//! The files of a share that a guest knows, and how each is found again without ever leaving the share.
//!
//! A file is known by device, number and birth time. It is reached through a descriptor (`O_PATH`), kept while there
//! are few, or from its parent's by one name; then it must still be the same file, else the guest gets `ESTALE` and
//! looks it up again. So the number of descriptors is bounded whatever the guest remembers.

use super::{attr::Stat, path};
use rustix::{fs::FileType, io::Errno};
use std::{
    collections::{HashMap, VecDeque},
    ffi::{CStr, CString},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What tells a file from all others, also from one that gets its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) dev: (u32, u32),
    pub(super) ino: u64,
    /// Birth time, where the host's file system has it.
    pub(super) born: Option<(i64, u32)>,
    /// `S_IFMT` of its mode.
    pub(super) format: u32,
}

impl Key {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.format)
    }
}

/// Most path steps taken to find a file whose ancestors have no descriptor either.
const MAX_DEPTH: usize = 1024;

/// A file of the share.
#[derive(Debug)]
pub struct Inode {
    id: u64,
    key: Key,
    state: Mutex<State>,
    live: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    fd: Option<Arc<OwnedFd>>,
    place: Option<Place>,
    /// Its name is gone: the descriptor is the only way to it.
    pinned: bool,
    /// The descriptor was used since eviction last looked.
    used: bool,
}

/// Where a file was last seen.
#[derive(Debug)]
struct Place {
    parent: Arc<Inode>,
    name: CString,
}

impl Inode {
    /// A number for this file that is never used for another.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What kind of file it is; that never changes.
    pub fn kind(&self) -> FileType {
        self.key.kind()
    }

    /// Is it a directory?
    pub fn is_dir(&self) -> bool {
        self.key.kind() == FileType::Directory
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn descriptor(&self) -> Option<Arc<OwnedFd>> {
        let mut state = self.lock();
        state.used = true;
        state.fd.clone()
    }

    pub(super) fn place(&self) -> Option<(Arc<Inode>, CString)> {
        self.lock().place.as_ref().map(|place| (place.parent.clone(), place.name.clone()))
    }

    pub(super) fn parent(&self) -> Option<Arc<Inode>> {
        self.lock().place.as_ref().map(|place| place.parent.clone())
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        // One after the other: a guest can nest directories deeper than a thread's stack is.
        let mut next = self.lock().place.take();
        while let Some(place) = next {
            next = match Arc::into_inner(place.parent) {
                Some(parent) => parent.lock().place.take(),
                None => None,
            };
        }
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How much a share may keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Files the guest knows.
    pub(super) inodes: usize,
    /// Path descriptors kept open for them.
    pub(super) descriptors: usize,
}

/// The files a guest knows.
#[derive(Debug)]
pub(super) struct Table {
    root: Arc<Inode>,
    maps: Mutex<Maps>,
    open: Mutex<VecDeque<Weak<Inode>>>,
    live: Arc<AtomicUsize>,
    limits: Limits,
}

#[derive(Debug)]
struct Maps {
    /// Files the guest holds by number, and how often it was given that number.
    known: HashMap<u64, (Arc<Inode>, u64)>,
    by_key: HashMap<Key, Weak<Inode>>,
    next_id: u64,
}

/// The root's number, as FUSE wants it.
pub(super) const ROOT_ID: u64 = 1;

impl Table {
    pub(super) fn new(root: OwnedFd, key: Key, limits: Limits) -> Self {
        let live = Arc::new(AtomicUsize::new(1));
        let state = State { fd: Some(Arc::new(root)), place: None, pinned: true, used: true };
        let root = Arc::new(Inode { id: ROOT_ID, key, state: Mutex::new(state), live: live.clone() });
        let by_key = HashMap::from([(key, Arc::downgrade(&root))]);
        let maps = Maps { known: HashMap::new(), by_key, next_id: ROOT_ID + 1 };
        Self { root, maps: Mutex::new(maps), open: Mutex::default(), live, limits }
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn root(&self) -> &Arc<Inode> {
        &self.root
    }

    /// The file a guest names by number.
    pub(super) fn get(&self, id: u64) -> Result<Arc<Inode>, Errno> {
        if id == ROOT_ID {
            return Ok(self.root.clone());
        }
        self.lock().known.get(&id).map(|(inode, _)| inode.clone()).ok_or(Errno::STALE)
    }

    /// The file with `key`, seen just now as `name` in `parent`; with its descriptor, if there is one already.
    pub(super) fn intern(
        &self,
        key: Key,
        place: Option<(&Arc<Inode>, &CStr)>,
        fd: Option<OwnedFd>,
    ) -> Result<Arc<Inode>, Errno> {
        let mut maps = self.lock();
        if let Some(inode) = maps.by_key.get(&key).and_then(Weak::upgrade) {
            if let Some((parent, name)) = place {
                self.settle(&inode, parent, name);
            }
            return Ok(inode);
        }
        if self.live.load(Ordering::Relaxed) >= self.limits.inodes {
            return Err(Errno::NFILE);
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        let id = maps.next_id;
        maps.next_id += 1;
        let has_fd = fd.is_some();
        let place = place.map(|(parent, name)| Place { parent: parent.clone(), name: name.to_owned() });
        let state = State { fd: fd.map(Arc::new), pinned: place.is_none(), place, used: true };
        let inode = Arc::new(Inode { id, key, state: Mutex::new(state), live: self.live.clone() });
        if maps.by_key.len() > 2 * self.live.load(Ordering::Relaxed) + 1024 {
            maps.by_key.retain(|_, inode| inode.strong_count() != 0);
        }
        maps.by_key.insert(key, Arc::downgrade(&inode));
        drop(maps);
        if has_fd {
            self.note_open(&inode)?;
        }
        Ok(inode)
    }

    /// The file with `key`, if the guest knows it.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Inode>> {
        self.lock().by_key.get(key).and_then(Weak::upgrade)
    }

    /// Remembers where a file is now.
    pub(super) fn moved(&self, key: &Key, parent: &Arc<Inode>, name: &CStr) {
        let maps = self.lock();
        if let Some(inode) = maps.by_key.get(key).and_then(Weak::upgrade) {
            self.settle(&inode, parent, name);
        }
    }

    /// Sets a file's place; the maps are locked, so places change one at a time.
    fn settle(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &CStr) {
        let same = |place: &Place| Arc::ptr_eq(&place.parent, parent) && *place.name == *name;
        if inode.id == ROOT_ID || inode.lock().place.as_ref().is_some_and(same) {
            return;
        }
        if inode.is_dir() {
            // The host may have turned the tree round; what is stale in the chain must not make it a ring.
            let mut at = Some(parent.clone());
            while let Some(ancestor) = at {
                if Arc::ptr_eq(&ancestor, inode) {
                    return;
                }
                let above = ancestor.parent();
                if above.as_ref().is_some_and(|above| Arc::ptr_eq(above, inode)) {
                    ancestor.lock().place = None;
                    break;
                }
                at = above;
            }
        }
        let old = {
            let mut state = inode.lock();
            state.pinned = false;
            state.place.replace(Place { parent: parent.clone(), name: name.to_owned() })
        };
        drop(old);
    }

    /// The guest has been given the file's number once more.
    pub(super) fn remember(&self, inode: &Arc<Inode>) {
        if inode.id != ROOT_ID {
            self.lock().known.entry(inode.id).or_insert_with(|| (inode.clone(), 0)).1 += 1;
        }
    }

    /// The guest forgets `count` of the times it was given the number.
    pub(super) fn forget(&self, id: u64, count: u64) {
        let mut maps = self.lock();
        let Some((_, known)) = maps.known.get_mut(&id) else { return };
        *known = known.saturating_sub(count);
        if *known == 0 {
            let gone = maps.known.remove(&id);
            drop(maps);
            drop(gone);
        }
    }

    /// The guest forgets everything.
    pub(super) fn forget_all(&self) {
        let known = std::mem::take(&mut self.lock().known);
        drop(known);
        self.lock().by_key.retain(|_, inode| inode.strong_count() != 0);
    }

    /// Files the guest knows and their ancestors, the root included.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// A path descriptor of the file.
    pub(super) fn fd(&self, inode: &Arc<Inode>) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = inode.descriptor() {
            return Ok(fd);
        }
        let mut missing = vec![inode.clone()];
        let mut base = loop {
            let parent = missing.last().and_then(|last| last.parent()).ok_or(Errno::STALE)?;
            if let Some(fd) = parent.descriptor() {
                break fd;
            }
            if missing.len() == MAX_DEPTH {
                return Err(Errno::STALE);
            }
            missing.push(parent);
        };
        while let Some(inode) = missing.pop() {
            let name = inode.lock().place.as_ref().map(|place| place.name.clone()).ok_or(Errno::STALE)?;
            let fd = path::open_entry(&base, &name).map_err(|error| match error {
                Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
                other => other,
            })?;
            if Stat::of_fd(&fd)?.key() != inode.key {
                return Err(Errno::STALE);
            }
            let fd = Arc::new(fd);
            base = inode.lock().fd.get_or_insert(fd).clone();
            self.note_open(&inode)?;
        }
        Ok(base)
    }

    /// Before a name goes away: makes sure that whoever still has the file open in the guest can reach it.
    pub(super) fn pin(&self, key: &Key) {
        let Some(inode) = self.find(key) else { return };
        if self.fd(&inode).is_ok() {
            let mut state = inode.lock();
            state.pinned = true;
            let place = state.place.take();
            drop(state);
            drop(place);
        }
    }

    /// Counts a new descriptor, and closes others where there are too many.
    fn note_open(&self, inode: &Arc<Inode>) -> Result<(), Errno> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(inode));
        let mut closed = Vec::new();
        for _ in 0..open.len().min(64) {
            if open.len() <= self.limits.descriptors {
                break;
            }
            let Some(candidate) = open.pop_front() else { break };
            let Some(other) = candidate.upgrade() else { continue };
            let mut state = other.lock();
            let busy = state.fd.as_ref().is_some_and(|fd| Arc::strong_count(fd) > 1);
            if state.pinned || busy || Arc::ptr_eq(&other, inode) || std::mem::take(&mut state.used) {
                open.push_back(candidate);
            } else {
                closed.push(state.fd.take());
            }
            drop(state);
            closed.push(None);
        }
        let crowded = open.len() > 2 * self.limits.descriptors;
        drop(open);
        drop(closed);
        if crowded { Err(Errno::NFILE) } else { Ok(()) }
    }

    /// Descriptors counted as open.
    #[cfg(test)]
    pub(super) fn open_descriptors(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |inode: &Weak<Inode>| inode.upgrade().is_some_and(|inode| inode.lock().fd.is_some());
        open.iter().filter(|inode| is_open(inode)).count()
    }
}
