//! The thread that writes: entries in the order they were put, what was used, and now and then the directory's upkeep.
//! Whatever fails here costs speed in a later run and nothing else.

use super::{
    CacheError, Store,
    error::Tried,
    index::Use,
    page::Record,
    places::unlock,
    profile,
    segment::{MAX_SEGMENT_BYTES, NewEntry, SegmentWriter},
    upkeep,
};
use rustix::process::{Resource, getrlimit};
use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

/// After a failure (the disk is full, no room) nothing is written for so long.
const PAUSE: Duration = Duration::from_secs(30);
/// Other processes' segments are looked at no more often.
const REFRESH: Duration = Duration::from_secs(2);

pub(super) enum Job {
    Put(Box<NewEntry>),
    /// Blocks of a page, and how they are found.
    PutPage(Box<NewEntry>, Vec<Record>),
    /// Everything put before is handed to the host, and what was used is noted, when this is answered.
    Flush(SyncSender<()>),
}

pub(super) struct Keeper {
    store: Arc<Store>,
    writer: Option<SegmentWriter>,
    paused_until: Option<Instant>,
    refreshed: Instant,
}

impl Keeper {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, writer: None, paused_until: None, refreshed: Instant::now() }
    }

    /// Works until nobody can send any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Put(new) => self.take(&new, &[]),
                Job::PutPage(new, records) => self.take(&new, &records),
                Job::Flush(done) => {
                    self.note_use();
                    // Who asked may have left.
                    let _ = done.send(());
                }
            }
        }
        self.note_use();
        self.seal();
    }

    fn take(&mut self, new: &NewEntry, records: &[Record]) {
        self.refresh();
        self.put(new, records);
        self.store.queued_bytes.fetch_sub(new.payload_len(), Ordering::Relaxed);
    }

    /// Looks for what other processes have added or removed.
    fn refresh(&mut self) {
        if self.refreshed.elapsed() < REFRESH {
            return;
        }
        self.refreshed = Instant::now();
        let own = self.writer.as_ref().map(|writer| Arc::clone(&writer.segment));
        if let Some(own) = own.filter(|own| self.store.dir.stat(&own.name).is_none()) {
            tracing::debug!("the code cache's segment {} was removed; starting another", own.name);
            self.seal();
        }
        self.store.refresh();
    }

    fn put(&mut self, new: &NewEntry, records: &[Record]) {
        let store = Arc::clone(&self.store);
        let counters = &store.counters;
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            counters.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let content = new.slot.content;
        if records.is_empty() && store.read_index().contains(new.slot.probe, content) {
            return;
        }
        match self.write(new, records) {
            Ok(true) => {
                self.paused_until = None;
                counters.written.fetch_add(1, Ordering::Relaxed);
                counters.written_bytes.fetch_add(new.payload_len() as u64, Ordering::Relaxed);
                if records.is_empty() {
                    store.note_first_use(content);
                }
            }
            Ok(false) => self.pause("other processes are using all of it"),
            Err(error) => self.pause(&error.to_string()),
        }
    }

    fn pause(&mut self, why: &str) {
        self.store.counters.dropped.fetch_add(1, Ordering::Relaxed);
        self.paused_until = Some(Instant::now() + PAUSE);
        tracing::info!("nothing is added to the code cache for a while: {why}");
        self.store.set_trouble(why);
    }

    /// `Ok(false)` if there is no room.
    fn write(&mut self, new: &NewEntry, records: &[Record]) -> Result<bool, CacheError> {
        // Every entry fits an empty segment.
        for _ in 0..2 {
            if self.writer.is_none() {
                self.writer = self.start()?;
            }
            let Some(writer) = &mut self.writer else { return Ok(false) };
            let segment = Arc::clone(&writer.segment);
            let stored = writer.append(&self.store.keys, new, None);
            match stored.tried("cannot write", &self.store.dir.name(&segment.name))? {
                Some((number, slot)) => {
                    self.store.write_index().insert_any(&segment, number, slot, records, Use::Used);
                    return Ok(true);
                }
                None => self.seal(),
            }
        }
        Ok(false)
    }

    /// A new segment, if there is room for one.
    fn start(&mut self) -> Result<Option<SegmentWriter>, CacheError> {
        let Store { dir, user, keys, guest, limit_bytes, .. } = &*self.store;
        let capacity = super::segment_capacity(*limit_bytes);
        if !may_write(capacity) {
            return Ok(None);
        }
        let Some(_lock) = upkeep::make_room(dir, user, *limit_bytes, capacity)? else { return Ok(None) };
        let made = SegmentWriter::create(dir, user, keys.namespace, guest, capacity);
        let writer = made.and_then(|writer| writer.publish(dir));
        let writer = writer.tried("cannot make a segment in", dir.path())?;
        self.store.adopt(&writer.segment);
        Ok(Some(writer))
    }

    /// Ends the segment being written: it is one to read from now on.
    fn seal(&mut self) {
        if let Some(writer) = self.writer.take() {
            unlock(writer.segment.file());
        }
    }

    /// Tells segments and profile what this run used.
    fn note_use(&self) {
        if !may_write(MAX_SEGMENT_BYTES) {
            return;
        }
        let Store { dir, user, keys, .. } = &*self.store;
        let used = self.store.read_index().take_used();
        let stamped: io::Result<()> = used.iter().try_for_each(|(segment, used)| segment.stamp(dir, used));
        let profile = self.store.used_in_order();
        let saved = match profile.is_empty() {
            true => Ok(()),
            false => profile::save(dir, user, &keys.namespace, &profile),
        };
        if let Err(error) = stamped.and(saved) {
            self.store.set_trouble(&error.to_string());
        }
    }
}

/// May files become this long? Beyond the process's limit the host would not refuse but kill us (SIGXFSZ).
fn may_write(len: u64) -> bool {
    getrlimit(Resource::Fsize).current.is_none_or(|limit| limit >= len)
}
