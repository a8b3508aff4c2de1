//! The persistent cache of compiled code: what one run compiled, the next one finds.
//!
//! **It is executable code.** Whoever can make the cache hand something out runs it with the user's rights. So:
//!
//! * Everything handed out was authenticated with a 256-bit key of the user's (keyed BLAKE3), in a copy that nobody else
//!   can change; the MAC covers the place as well, so an entry moved or replayed elsewhere is not authentic.
//! * The key is in a file of mode 0600 in a directory of its own ([`Places::of_user`] says why there), so a cache that
//!   was copied, restored or downloaded is foreign.
//! * Directories and files that belong to others, that others can write, or that are links are refused. Files are
//!   opened by name inside a directory that is held open; see [`places`].
//! * Nothing found there is an error: what is damaged is not used, and is removed by the next upkeep.
//!
//! Files are read with `pread`, not mapped: a mapped file that somebody shortens kills its reader with SIGBUS, entries have
//! to be copied before they are verified anyway, and 10 KiB from the page cache take 2 us. So the cache needs no `unsafe`
//! and no address space, and its memory is the index: about 100 bytes an entry, and 32 a block of template code.
//!
//! # On disk
//!
//! Little-endian. `NAMESPACE-ID.code` is a *segment*: written by one process, which holds its advisory lock
//! (flock) all the time; read by all. `NAMESPACE` is the first 8 bytes of [`Namespace`]'s digest in hexadecimal, `ID` 16
//! random bytes. Files being made end in `.tmp`, and are renamed when their header is complete. `lock` is what upkeep locks.
//!
//! | at | bytes | segment |
//! |---|---|---|
//! | 0 | 8 | `ISOMERCC` |
//! | 8 | 4 | format version, 2 |
//! | 12 | 4 | slots, 8192 |
//! | 16 | 32 | the namespace's digest |
//! | 48 | 16 | id |
//! | 64 | 8 | length the file may reach |
//! | 72 | 8 | made, seconds since 1970 |
//! | 80 | 16 | the guest's name, zero-padded |
//! | 96 | 32 | MAC of the 96 bytes before |
//! | 4 096 | 64 each | slots |
//! | 528 384 | 4 each | stamps: when the slot's entry was last used, seconds since 1970; not authenticated |
//! | 561 152 | | payloads, at multiples of 8 |
//!
//! | at | bytes | slot | | at | bytes | payload |
//! |---|---|---|---|---|---|---|
//! | 0 | 8 | probe: hash of mode, entry, 8 bytes there | | 0 | 32 | digest of the content |
//! | 8 | 8 | hash of the bytes from the entry to its range's end | | 32 | 32 | MAC |
//! | 16 | 8 | first bytes of the content's digest | | 64 | 4 each | ranges: start and end in the page |
//! | 24 | 4 | the payload's offset in the file | | | | host code |
//! | 28 | 4 | its length | | | | |
//! | 32 | 4 | mode word | | | | |
//! | 36 | 4 | guest instructions | | | | |
//! | 40 | 4 | bytes of host code | | | | |
//! | 44 | 2 | entry: offset in the page | | | | |
//! | 46 | 2 | bytes from the entry to its range's end | | | | |
//! | 48 | 2 | ranges | | | | |
//! | 50 | 1 | tier | | | | |
//! | 60 | 4 | check of the slot | | | | |
//!
//! A slot of tier 3 is for template code of many blocks of a page ([`page`]): its first two and the entry's fields are 0, and
//! what it calls ranges are blocks. Its payload has, behind digest and MAC, 32 bytes a block, the guest's bytes of each, the
//! code of each; the content's digest is of what stands before the code.
//!
//! Else the content's digest is of mode, entry, tier, ranges and the guest's bytes in them, keyed for the namespace. The MAC is
//! of segment id, slot number, slot, digest, ranges and code, keyed for the namespace. Both keys are derived from the user's.
//!
//! A payload is written before its slot, so a process that ends at any instant leaves a file in which every slot refers to
//! a complete entry; nothing is ever written twice, but stamps. There is no `fsync`: what a power failure tears does not
//! authenticate. `NAMESPACE.profile` lists the contents that runs used, in order ([`profile`]), and is replaced as a whole.
//!
//! # Bounds
//!
//! All namespaces together stay within the limit: a segment is made, of an eighth of the limit (1 to 16 MiB), only
//! when there is room for all it may grow to; upkeep makes room by rewriting segments without what was not used for
//! longest, to three quarters of the limit ([`upkeep`]). Meanwhile a segment's worth may exist twice.

mod error;
mod files;
mod index;
mod keeper;
mod key;
mod page;
mod page_index;
mod places;
mod profile;
mod segment;
#[cfg(test)]
mod tests;
mod upkeep;

pub use error::CacheError;
pub use files::{CacheFiles, Damaged, NamespaceSurvey, Survey, Verification};
pub use key::{BuildId, Namespace};
pub use page::{MAX_PAGE_BLOCKS, NewBlock, PageBlock, PageCode};
pub use page_index::PageId;
pub use places::Places;
pub use segment::Damage;

use crate::Compiled;
use index::{Index, Use};
use keeper::{Job, Keeper};
use key::{Keys, UserKey};
use places::Dir;
use rustc_hash::FxHashMap;
use segment::{Entry, MAX_SEGMENT_BYTES, NewEntry, Segment, content_prefix, is_segment_of};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The smallest limit: room for eight of the smallest segments.
pub const MIN_LIMIT_BYTES: u64 = 8 << 20;
/// A limit that keeps some boots of several distributions.
pub const DEFAULT_LIMIT_BYTES: u64 = 256 << 20;
/// Entries waiting to be written, at most; more are dropped.
const MAX_QUEUED: usize = 1024;
const MAX_QUEUED_BYTES: usize = 8 << 20;
/// How long [`CodeCache::put_page`] waits for the writer.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Entries a profile names of one run.
const MAX_PROFILE: usize = 1 << 15;

/// How long a segment may become in a cache of that limit.
fn segment_capacity(limit_bytes: u64) -> u64 {
    (limit_bytes / 8).clamp(1 << 20, MAX_SEGMENT_BYTES)
}

/// Which compiler made the code. Higher is faster code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Tier {
    /// The template compiler.
    Template = 1,
    /// The region compiler.
    Region = 2,
    /// The template compiler's blocks, all of a page in one entry: [`CodeCache::put_page`].
    Page = 3,
}

impl Tier {
    fn from_raw(raw: u8) -> Option<Self> {
        [Self::Template, Self::Region, Self::Page].into_iter().find(|tier| *tier as u8 == raw)
    }
}

/// Whether and how the cache is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CacheMode {
    /// Not at all; nothing is opened or made.
    Off,
    /// Found, never written: not even what was used.
    ReadOnly,
    /// Found and added to.
    #[default]
    ReadWrite,
}

/// Where the cache is and what it is for.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Its directories.
    pub places: Places,
    /// How it is used.
    pub mode: CacheMode,
    /// Bytes on disk at most, of all namespaces together; at least [`MIN_LIMIT_BYTES`].
    pub limit_bytes: u64,
    /// What the code is made for and by.
    pub namespace: Namespace,
}

/// Code the cache has for a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cached {
    /// What was put.
    pub compiled: Compiled,
    /// What made it.
    pub tier: Tier,
}

/// An entry the last run used.
#[derive(Clone, Debug)]
pub struct Preloaded {
    /// Mode word.
    pub mode: u32,
    /// Offset in its page.
    pub entry: u16,
    /// The code.
    pub cached: Cached,
    content: [u8; 32],
}

/// What the cache did in this run, and what it has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Entries that can be found.
    pub entries: u64,
    /// Blocks in those of them that are pages'.
    pub blocks: u64,
    /// Calls of [`CodeCache::find`].
    pub lookups: u64,
    /// Of these, found among what [`CodeCache::warm`] had read.
    pub memory_hits: u64,
    /// Of these, found on disk.
    pub disk_hits: u64,
    /// Entries read that were for other guest code.
    pub stale: u64,
    /// Segments, slots and entries refused because they are damaged, foreign or not private.
    pub damaged: u64,
    /// Entries written.
    pub written: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Entries not written: too many at once, no room, too large, or writing failed.
    pub dropped: u64,
    /// Why something was not written last.
    pub trouble: Option<String>,
}

#[derive(Default)]
struct Counters {
    lookups: AtomicU64,
    memory_hits: AtomicU64,
    disk_hits: AtomicU64,
    stale: AtomicU64,
    damaged: AtomicU64,
    written: AtomicU64,
    written_bytes: AtomicU64,
    dropped: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A segment and how far its slots were read.
struct Known {
    segment: Arc<Segment>,
    next_slot: u32,
    /// Written by this process, which puts entries into the index itself.
    own: bool,
}

/// What [`CodeCache`] and its thread share.
struct Store {
    dir: Dir,
    user: UserKey,
    keys: Keys,
    guest: &'static str,
    limit_bytes: u64,
    index: RwLock<Index>,
    known: Mutex<FxHashMap<String, Known>>,
    /// Verified entries read ahead, by content, until they are asked for.
    warm: Mutex<FxHashMap<u64, Entry>>,
    /// Contents in the order of their first use.
    used: Mutex<Vec<u64>>,
    trouble: Mutex<Option<String>>,
    counters: Counters,
    queued_bytes: AtomicUsize,
}

/// The persistent cache of one namespace. Dropping it writes what is queued.
pub struct CodeCache {
    store: Option<Arc<Store>>,
    keeper: Option<(SyncSender<Job>, JoinHandle<()>)>,
}

impl std::fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl CodeCache {
    /// Opens the cache; makes it if it is to be written. Damaged files in it are no error.
    ///
    /// # Errors
    ///
    /// The directories or the key cannot be used or trusted. Go on with [`CodeCache::off`].
    pub fn open(config: CacheConfig) -> Result<Self, CacheError> {
        let create = match config.mode {
            CacheMode::Off => return Ok(Self::off()),
            CacheMode::ReadOnly => false,
            CacheMode::ReadWrite => true,
        };
        if config.limit_bytes < MIN_LIMIT_BYTES {
            return Err(CacheError::Limit { limit_bytes: config.limit_bytes });
        }
        let Some(key_dir) = Dir::open(&config.places.key, create)? else { return Ok(Self::off()) };
        let Some(dir) = Dir::open(&config.places.code, create)? else { return Ok(Self::off()) };
        let user = match create {
            true => Some(UserKey::load_or_create(&key_dir)?),
            false => UserKey::load(&key_dir)?,
        };
        let Some(user) = user else { return Ok(Self::off()) };
        let keys = Keys::new(&user, config.namespace.digest());
        let store = Arc::new(Store {
            dir,
            user,
            keys,
            guest: config.namespace.guest,
            limit_bytes: config.limit_bytes,
            index: RwLock::default(),
            known: Mutex::default(),
            warm: Mutex::default(),
            used: Mutex::default(),
            trouble: Mutex::default(),
            counters: Counters::default(),
            queued_bytes: AtomicUsize::new(0),
        });
        store.refresh();
        let keeper = match create {
            true => Some(start_keeper(&store)?),
            false => None,
        };
        Ok(Self { store: Some(store), keeper })
    }

    /// A cache that has nothing and keeps nothing.
    pub const fn off() -> Self {
        Self { store: None, keeper: None }
    }

    /// Code for `entry` bytes into `page` in `mode`, of the highest tier there is, made from exactly the bytes that are
    /// there. Where there is none this takes some tens of nanoseconds. Where there is, reading and verifying it takes
    /// ten to twenty microseconds, and longer if the host has to fetch it from its disk.
    pub fn find(&self, mode: u32, entry: u16, page: &[u8; 4096]) -> Option<Cached> {
        let store = self.store.as_ref()?;
        count(&store.counters.lookups);
        let probe = store.keys.probe(mode, entry, page);
        let candidates = store.read_index().candidates(&store.keys, probe, mode, entry, page);
        candidates.iter().find_map(|candidate| store.take(candidate, page))
    }

    /// Queues code to be kept. Never waits: if the queue is full, the entry is dropped. What breaks the rules of
    /// [`Compiled`], has no range that holds the entry, or is too large is dropped as well.
    ///
    /// `page` must be the very bytes that were compiled, copied before: were it the guest's page as it is now, a guest that
    /// writes there in time would have the wrong code kept for what it wrote.
    pub fn put(&self, mode: u32, entry: u16, tier: Tier, page: &[u8; 4096], compiled: &Compiled) {
        let (Some(store), Some((jobs, _))) = (&self.store, &self.keeper) else { return };
        let new = NewEntry::new(&store.keys, mode, entry, tier, page, compiled);
        let queued = new.is_some_and(|new| {
            let len = new.payload_len();
            let before = store.queued_bytes.fetch_add(len, Ordering::Relaxed);
            let queued = before + len <= MAX_QUEUED_BYTES && jobs.try_send(Job::Put(Box::new(new))).is_ok();
            if !queued {
                store.queued_bytes.fetch_sub(len, Ordering::Relaxed);
            }
            queued
        });
        if !queued {
            count(&store.counters.dropped);
        }
    }

    /// Can anything be found?
    pub fn is_on(&self) -> bool {
        self.store.is_some()
    }

    /// Is what is put kept?
    pub fn is_written(&self) -> bool {
        self.keeper.is_some()
    }

    /// May there be code for `entry` bytes into a page in `mode`, where these are the page's bytes from there on? Some tens of
    /// nanoseconds, before a page is copied for [`CodeCache::find`].
    #[inline]
    pub fn may_have(&self, mode: u32, entry: u16, code: &[u8]) -> bool {
        self.store.as_ref().is_some_and(|store| {
            let probe = store.keys.probe_from(mode, entry, code);
            store.read_index().may_have(probe)
        })
    }

    /// The entry with template code for the block at `entry` in `mode`, where `code` are the bytes from there on.
    #[inline]
    pub fn page_of(&self, mode: u32, entry: u16, code: &[u8]) -> Option<PageId> {
        let store = self.store.as_ref()?;
        store.read_index().pages.find(&store.keys, store.keys.probe_at(mode, entry, code), code)
    }

    /// Reads and verifies an entry with template code. What of it is for the page that is there, [`PageCode::current`] tells.
    pub fn page(&self, id: PageId) -> Option<PageCode> {
        let store = self.store.as_ref()?;
        let index = store.read_index();
        let place = index.pages.place(id)?;
        let read = place.segment.read_body(place.number, &place.slot, &store.keys);
        let page = read.and_then(|(_, body)| PageCode::from_body(&place.slot, &body).ok_or(Damage::Entry));
        match page {
            Ok(page) => {
                count(&store.counters.disk_hits);
                place.used();
                Some(page)
            }
            Err(damage) => {
                count(&store.counters.damaged);
                place.set(Use::Dead);
                tracing::debug!(
                    "code cache: entry {} of {} is refused: {damage}",
                    place.number,
                    place.segment.name
                );
                None
            }
        }
    }

    /// Keeps template code of blocks of one page; those that are kept already are left out. Waits for the writer if that is
    /// far behind, so it is not for a vCPU's thread. As for [`CodeCache::put`], `source` must be what was compiled.
    pub fn put_page(&self, blocks: &[NewBlock<'_>]) {
        let (Some(store), Some((jobs, _))) = (&self.store, &self.keeper) else { return };
        let mut new: Vec<NewBlock<'_>> =
            blocks.iter().filter(|block| page::is_sound(block)).copied().collect();
        new.sort_by_key(|block| (block.entry, block.mode));
        new.dedup_by_key(|block| (block.entry, block.mode));
        {
            let index = store.read_index();
            new.retain(|block| !index.pages.contains(&page::record(&store.keys, block)));
        }
        let mut rest = &new[..];
        while !rest.is_empty() {
            let (first, behind) = rest.split_at(page::fitting(rest).max(1));
            rest = behind;
            let (entry, records) = page::new_entry(&store.keys, first);
            let len = entry.payload_len();
            let patience = Instant::now() + MAX_WAIT;
            while store.queued_bytes.load(Ordering::Relaxed) > MAX_QUEUED_BYTES && Instant::now() < patience {
                thread::sleep(Duration::from_millis(1));
            }
            store.queued_bytes.fetch_add(len, Ordering::Relaxed);
            if store.queued_bytes.load(Ordering::Relaxed) > 2 * MAX_QUEUED_BYTES
                || jobs.send(Job::PutPage(Box::new(entry), records)).is_err()
            {
                store.queued_bytes.fetch_sub(len, Ordering::Relaxed);
                count(&store.counters.dropped);
            }
        }
    }

    /// Waits until everything put before is written, and notes what was used so far. Not for a vCPU's thread.
    pub fn flush(&self) {
        if let Some((jobs, _)) = &self.keeper {
            let (done, answer) = sync_channel(1);
            if jobs.send(Job::Flush(done)).is_ok() {
                let _ = answer.recv();
            }
        }
    }

    /// What the last runs used, read and verified one by one as it is asked for, in the order they came to need it.
    /// Whether it is for a page that is there, [`CodeCache::is_for`] tells.
    pub fn preload(&self) -> impl Iterator<Item = Preloaded> + use<'_> {
        self.store.iter().flat_map(|store| {
            let places = store.read_index().by_content();
            let profile = profile::load(&store.dir, &store.user, &store.keys.namespace);
            profile.into_iter().filter_map(move |content| {
                let candidate = places.get(&content)?;
                let entry = store.read_sound(candidate)?;
                Some(Preloaded {
                    mode: candidate.slot.mode,
                    entry: candidate.slot.entry,
                    cached: Cached { compiled: entry.compiled, tier: candidate.slot.tier },
                    content: entry.content,
                })
            })
        })
    }

    /// Was this made from the bytes of the page?
    pub fn is_for(&self, preloaded: &Preloaded, page: &[u8; 4096]) -> bool {
        let Preloaded { mode, entry, cached: Cached { compiled, tier }, content } = preloaded;
        let keys = self.store.as_ref().map(|store| &store.keys);
        keys.is_some_and(|keys| keys.content(*mode, *entry, *tier, &compiled.ranges, page) == *content)
    }

    /// Reads what the last runs used into memory, at most so many bytes of it, where [`CodeCache::find`] then has it ten
    /// times as fast. For a thread of its own, at the start. How many entries that were.
    pub fn warm(&self, limit_bytes: usize) -> usize {
        let Some(store) = &self.store else { return 0 };
        let (mut bytes, mut entries) = (0, 0);
        for preloaded in self.preload() {
            let Preloaded { cached: Cached { compiled, .. }, content, .. } = preloaded;
            bytes += compiled.code.len() + compiled.ranges.len() * 4;
            if bytes > limit_bytes {
                break;
            }
            entries += 1;
            lock(&store.warm).insert(content_prefix(&content), Entry { content, compiled });
        }
        entries
    }

    /// What the cache did in this run.
    pub fn stats(&self) -> CacheStats {
        let Some(store) = &self.store else { return CacheStats::default() };
        let counters = &store.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            entries: store.read_index().len() as u64,
            blocks: store.read_index().pages.blocks() as u64,
            lookups: load(&counters.lookups),
            memory_hits: load(&counters.memory_hits),
            disk_hits: load(&counters.disk_hits),
            stale: load(&counters.stale),
            damaged: load(&counters.damaged),
            written: load(&counters.written),
            written_bytes: load(&counters.written_bytes),
            dropped: load(&counters.dropped),
            trouble: lock(&store.trouble).clone(),
        }
    }
}

impl Drop for CodeCache {
    fn drop(&mut self) {
        if let Some((jobs, thread)) = self.keeper.take() {
            drop(jobs);
            // A panic there has been told on standard error already.
            let _ = thread.join();
        }
    }
}

fn start_keeper(store: &Arc<Store>) -> Result<(SyncSender<Job>, JoinHandle<()>), CacheError> {
    let (jobs, queue) = sync_channel(MAX_QUEUED);
    let keeper = Keeper::new(Arc::clone(store));
    let thread = thread::Builder::new().name("code cache".into()).spawn(move || keeper.run(&queue));
    let thread =
        thread.map_err(|error| CacheError::io("cannot start a thread for", store.dir.path(), error))?;
    Ok((jobs, thread))
}

impl Store {
    /// The candidate's code, if its content is what is there.
    fn take(&self, candidate: &index::Candidate, page: &[u8; 4096]) -> Option<Cached> {
        let slot = &candidate.slot;
        let is_current = |entry: &Entry| {
            let ranges = &entry.compiled.ranges;
            self.keys.content(slot.mode, slot.entry, slot.tier, ranges, page) == entry.content
        };
        let warm = lock(&self.warm).remove(&slot.content);
        let (entry, hits) = match warm {
            Some(entry) => (entry, &self.counters.memory_hits),
            None => (self.read_sound(candidate)?, &self.counters.disk_hits),
        };
        if !is_current(&entry) {
            count(&self.counters.stale);
            return None;
        }
        count(hits);
        if self.read_index().note(candidate, Use::Used) {
            self.note_first_use(slot.content);
        }
        Some(Cached { compiled: entry.compiled, tier: slot.tier })
    }

    /// Reads and verifies an entry. One that is damaged is not looked at again.
    fn read_sound(&self, candidate: &index::Candidate) -> Option<Entry> {
        match candidate.segment.read(candidate.number, &candidate.slot, &self.keys) {
            Ok(entry) => Some(entry),
            Err(damage) => {
                count(&self.counters.damaged);
                self.read_index().note(candidate, Use::Dead);
                tracing::debug!(
                    "code cache: entry {} of {} is refused: {damage}",
                    candidate.number,
                    candidate.segment.name
                );
                None
            }
        }
    }

    /// Brings the index up to date with the directory.
    fn refresh(&self) {
        let names = match self.dir.names() {
            Ok(names) => names,
            Err(error) => return self.set_trouble(&error.to_string()),
        };
        let mut known = lock(&self.known);
        let before = known.len();
        known.retain(|name, _| names.contains(name));
        if known.len() != before {
            self.write_index().retain(|segment| known.contains_key(&segment.name));
        }
        for name in names.iter().filter(|name| is_segment_of(name, &self.keys.namespace)) {
            let first = !known.contains_key(name);
            if first {
                match Segment::open(&self.dir, name, &self.user) {
                    Ok(Some(segment)) if segment.namespace == self.keys.namespace => {
                        segment.read_ahead();
                        let new = Known { segment: Arc::new(segment), next_slot: 0, own: false };
                        known.insert(name.clone(), new);
                    }
                    Ok(_) => {}
                    Err(damage) => {
                        count(&self.counters.damaged);
                        tracing::debug!("code cache: {name} is refused: {damage}");
                    }
                }
            }
            let Some(Known { segment, next_slot, .. }) = known.get_mut(name).filter(|known| !known.own)
            else {
                continue;
            };
            let (found, damaged) = segment.scan(&self.keys, next_slot);
            // Later on, what looks damaged may be half written.
            let damaged = if first { damaged } else { 0 };
            self.counters.damaged.fetch_add(damaged.into(), Ordering::Relaxed);
            for (number, slot) in found {
                let records = if slot.tier == Tier::Page { segment.records(&slot) } else { Vec::new() };
                self.write_index().insert_any(segment, number, slot, &records, Use::NotYet);
            }
        }
    }

    /// Takes in a segment that this process writes.
    fn adopt(&self, segment: &Arc<Segment>) {
        let known = Known { segment: Arc::clone(segment), next_slot: 0, own: true };
        lock(&self.known).insert(segment.name.clone(), known);
    }

    fn note_first_use(&self, content: u64) {
        let mut used = lock(&self.used);
        if used.len() < MAX_PROFILE {
            used.push(content);
        }
    }

    fn used_in_order(&self) -> Vec<u64> {
        lock(&self.used).clone()
    }

    fn set_trouble(&self, why: &str) {
        *lock(&self.trouble) = Some(why.to_owned());
    }

    fn read_index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A poisoned lock is taken all the same: nothing here is half done when something panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
