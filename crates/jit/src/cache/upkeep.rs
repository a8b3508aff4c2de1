//! Keeping the cache within its bounds: what was not used for longest goes first, small segments are put together, and
//! what is not authentic is removed. Under the directory's lock; readers need none, because a file that is removed stays
//! whole for those who have it open.

use super::{
    error::CacheError,
    key::{Keys, UserKey},
    places::{Dir, DirLock},
    profile,
    segment::{Damage, NewEntry, SLOTS, SUFFIX, Segment, SegmentWriter, Slot, TEMPORARY},
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{io, sync::Arc, time::Duration};

/// Waiting for another process's upkeep: on a thread nobody waits for.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many small segments of one namespace are put together.
const MANY_SMALL: usize = 8;

/// One segment and what is in it.
struct Content {
    segment: Arc<Segment>,
    live: bool,
    /// Bytes it counts for: those it may grow to while somebody writes it.
    charge: u64,
    entries: Vec<Found>,
}

#[derive(Clone, Copy)]
struct Found {
    number: u32,
    slot: Slot,
    stamp: u32,
    keep: bool,
}

impl Found {
    fn bytes(&self) -> u64 {
        u64::from(self.slot.payload_len) + 64
    }
}

/// Makes room for a segment of `reserve` bytes in a cache of at most `limit` bytes. The lock is held while the answer is:
/// make the segment before dropping it. `None` if there is no room, because other processes are writing as much.
pub(super) fn make_room(
    dir: &Dir,
    user: &UserKey,
    limit: u64,
    reserve: u64,
) -> Result<Option<DirLock>, CacheError> {
    let lock = dir.lock(PATIENCE)?;
    let mut contents = sound_segments(dir, user)?;
    let used = |contents: &[Content]| contents.iter().map(|content| content.charge).sum::<u64>();
    let evict = used(&contents) + reserve > limit;
    let capacity = super::segment_capacity(limit);
    if evict || has_many_small(&contents, capacity) {
        contents.iter_mut().for_each(|content| content.read(user));
        if evict {
            // A quarter is freed, so that this is rare.
            choose(&mut contents, (limit / 4 * 3).saturating_sub(reserve));
        }
        if let Err(error) = apply(dir, user, &contents, capacity) {
            tracing::debug!("upkeep of the code cache: {error}");
        }
        contents = sound_segments(dir, user)?;
    }
    Ok((used(&contents) + reserve <= limit).then_some(lock))
}

/// The authentic segments. Removes the others, what crashes left, and profiles without a segment.
fn sound_segments(dir: &Dir, user: &UserKey) -> Result<Vec<Content>, CacheError> {
    let names = dir.names()?;
    let mut sound = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
        match Segment::open(dir, name, user) {
            Ok(None) | Err(Damage::Io) => {}
            Ok(Some(segment)) => sound.push(Content::new(dir, segment)),
            Err(damage) if !Segment::is_live(dir, name) => {
                tracing::info!("removing {} from the code cache: {damage}", dir.name(name).display());
                let _ = dir.remove(name);
            }
            Err(_) => {}
        }
    }
    let needed: FxHashSet<String> =
        sound.iter().map(|content| profile::name(&content.segment.namespace)).collect();
    for name in &names {
        let left_over = name.ends_with(TEMPORARY) && !Segment::is_live(dir, name);
        if left_over || name.ends_with(profile::SUFFIX) && !needed.contains(name) {
            let _ = dir.remove(name);
        }
    }
    Ok(sound)
}

impl Content {
    fn new(dir: &Dir, segment: Segment) -> Self {
        let live = Segment::is_live(dir, &segment.name);
        let disk = segment.disk_bytes();
        let charge = if live { segment.capacity.max(disk) } else { disk };
        Self { segment: Arc::new(segment), live, charge, entries: Vec::new() }
    }

    fn read(&mut self, user: &UserKey) {
        let keys = Keys::new(user, self.segment.namespace);
        let stamps = self.segment.stamps();
        let (slots, _) = self.segment.scan(&keys, &mut 0);
        let found = |(number, slot): (u32, Slot)| {
            let stamp = stamps.get(number as usize).copied().unwrap_or(0);
            Found { number, slot, stamp, keep: true }
        };
        self.entries = slots.into_iter().map(found).collect();
    }

    /// Less than a quarter full by every measure. Slots are read for it only if its size leaves the question open.
    fn is_small(&self, capacity: u64) -> bool {
        !self.live && self.charge < capacity / 4 && self.entries.len() < SLOTS as usize / 2
    }

    fn kept_bytes(&self) -> u64 {
        self.entries.iter().filter(|found| found.keep).map(Found::bytes).sum()
    }
}

fn has_many_small(contents: &[Content], capacity: u64) -> bool {
    let mut count: FxHashMap<[u8; 32], usize> = FxHashMap::default();
    contents.iter().filter(|content| content.is_small(capacity)).any(|content| {
        let count = count.entry(content.segment.namespace).or_default();
        *count += 1;
        *count >= MANY_SMALL
    })
}

/// Marks what is to be kept: the latest used, within the budget.
fn choose(contents: &mut [Content], budget: u64) {
    let live: u64 = contents.iter().filter(|content| content.live).map(|content| content.charge).sum();
    let mut left = budget.saturating_sub(live);
    let closed = contents.iter_mut().filter(|content| !content.live);
    let mut all: Vec<&mut Found> = closed.flat_map(|content| &mut content.entries).collect();
    all.sort_by_key(|found| std::cmp::Reverse(found.stamp));
    for found in all {
        found.keep = found.bytes() <= left;
        // The first that does not fit ends it, or large entries would go before old ones.
        left = if found.keep { left - found.bytes() } else { 0 };
    }
}

/// Removes segments nothing of which is kept, and rewrites those that are small or of which little is kept.
fn apply(dir: &Dir, user: &UserKey, contents: &[Content], capacity: u64) -> io::Result<()> {
    let mut rewrite: FxHashMap<[u8; 32], Vec<&Content>> = FxHashMap::default();
    for content in contents.iter().filter(|content| !content.live) {
        let kept = content.kept_bytes();
        if kept == 0 {
            dir.remove(&content.segment.name)?;
        } else if content.is_small(capacity) || kept < content.charge / 5 * 4 {
            rewrite.entry(content.segment.namespace).or_default().push(content);
        }
    }
    rewrite.retain(|_, sources| match sources[..] {
        // Alone it would become what it is.
        [only] => only.entries.iter().any(|found| !found.keep),
        _ => true,
    });
    rewrite.into_values().try_for_each(|sources| merge(dir, user, &sources, capacity))
}

/// Copies what is kept of some segments of one namespace into new ones, the latest used first, and removes the sources.
/// Ended at any point, this leaves entries twice at worst.
fn merge(dir: &Dir, user: &UserKey, sources: &[&Content], capacity: u64) -> io::Result<()> {
    let Some(first) = sources.first() else { return Ok(()) };
    let (namespace, guest) = (first.segment.namespace, first.segment.guest.as_str());
    let keys = Keys::new(user, namespace);
    let mut entries: Vec<(&Segment, &Found)> = Vec::new();
    for source in sources {
        entries
            .extend(source.entries.iter().filter(|found| found.keep).map(|found| (&*source.segment, found)));
    }
    entries.sort_by_key(|(_, found)| std::cmp::Reverse(found.stamp));
    let mut seen = FxHashSet::default();
    let mut outputs = Vec::new();
    let result = entries.iter().filter(|(_, found)| seen.insert(found.slot.content)).try_for_each(
        |(segment, Found { number, slot, stamp, .. })| {
            // What is damaged is not carried along.
            let Ok((content, body)) = segment.read_body(*number, slot, &keys) else { return Ok(()) };
            let new = NewEntry { slot: *slot, content, body };
            for _ in 0..2 {
                let stored = match outputs.last_mut() {
                    Some(output) => SegmentWriter::append(output, &keys, &new, Some(*stamp))?.is_some(),
                    None => false,
                };
                if stored {
                    break;
                }
                outputs.push(SegmentWriter::create(dir, user, namespace, guest, capacity)?);
            }
            Ok(())
        },
    );
    if let Err(error) = result {
        outputs.iter().for_each(|output| drop(dir.remove(&output.segment.name)));
        return Err(error);
    }
    for output in outputs {
        output.publish(dir)?;
    }
    sources.iter().try_for_each(|source| dir.remove(&source.segment.name))
}
