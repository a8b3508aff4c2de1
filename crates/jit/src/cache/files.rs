//! The cache from outside, without a machine: what is in it, whether all of it is sound, and how to be rid of it.

use super::{
    error::CacheError,
    key::{Keys, UserKey, hex},
    places::{Dir, Places},
    profile,
    segment::{Damage, SUFFIX, Segment, TEMPORARY},
};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Waiting for another process's upkeep.
const PATIENCE: Duration = Duration::from_secs(5);

/// The files of a cache.
#[derive(Debug)]
pub struct CacheFiles {
    dir: Dir,
    key_dir: Option<Dir>,
}

/// What is in a cache.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// Bytes on disk, of everything that is the cache's.
    pub bytes: u64,
    /// Segments that are not used: damaged, foreign, or not private. The next run that writes removes them.
    pub refused_segments: u64,
    /// By what the code was made for and by.
    pub namespaces: Vec<NamespaceSurvey>,
}

/// What is in a cache for one guest and translator.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceSurvey {
    /// The guest's instruction set.
    pub guest: String,
    /// The first bytes of the namespace's digest, in hexadecimal.
    pub id: String,
    /// Segments.
    pub segments: u64,
    /// Of these, written by a running process.
    pub live_segments: u64,
    /// Entries.
    pub entries: u64,
    /// Guest instructions compiled in them.
    pub guest_insns: u64,
    /// Host code in them.
    pub code_bytes: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// When an entry was last used, seconds since 1970.
    pub last_used_secs: u64,
}

/// Every entry of a cache, looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verification {
    /// Segments looked at.
    pub segments: u64,
    /// Entries that are sound.
    pub entries: u64,
    /// What is not.
    pub damaged: Vec<Damaged>,
}

/// Something that is not sound. It is never used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// The segment.
    pub path: PathBuf,
    /// The entry's slot, if it is not the whole segment.
    pub slot: Option<u32>,
    /// What is wrong.
    pub damage: Damage,
}

impl CacheFiles {
    /// `None` if there is no cache.
    ///
    /// # Errors
    ///
    /// Its directories cannot be opened or trusted.
    pub fn open(places: &Places) -> Result<Option<Self>, CacheError> {
        let Some(dir) = Dir::open(&places.code, false)? else { return Ok(None) };
        Ok(Some(Self { dir, key_dir: Dir::open(&places.key, false)? }))
    }

    /// Counts what is there, without reading entries.
    ///
    /// # Errors
    ///
    /// The directory or the key cannot be read, or the key not trusted.
    pub fn survey(&self) -> Result<Survey, CacheError> {
        let user = self.user_key()?;
        let mut survey = Survey::default();
        let mut namespaces: BTreeMap<[u8; 32], NamespaceSurvey> = BTreeMap::new();
        for name in self.own_names()? {
            survey.bytes += self.dir.stat(&name).map_or(0, |stat| stat.st_blocks as u64 * 512);
            if !name.ends_with(SUFFIX) {
                continue;
            }
            match open_segment(&self.dir, &name, user.as_ref()) {
                Ok(Some((segment, keys))) => {
                    let live = Segment::is_live(&self.dir, &name);
                    namespaces.entry(segment.namespace).or_default().add(&segment, &keys, live);
                }
                Ok(None) => {}
                Err(_) => survey.refused_segments += 1,
            }
        }
        survey.namespaces = namespaces.into_values().collect();
        Ok(survey)
    }

    /// Reads and authenticates every entry. Changes nothing.
    ///
    /// # Errors
    ///
    /// The directory or the key cannot be read, or the key not trusted.
    pub fn verify(&self) -> Result<Verification, CacheError> {
        let user = self.user_key()?;
        let mut verification = Verification::default();
        for name in self.own_names()?.iter().filter(|name| name.ends_with(SUFFIX)) {
            let damaged = |slot, damage| Damaged { path: self.dir.name(name), slot, damage };
            let (segment, keys) = match open_segment(&self.dir, name, user.as_ref()) {
                Ok(Some(opened)) => opened,
                Ok(None) => continue,
                Err(damage) => {
                    verification.damaged.push(damaged(None, damage));
                    continue;
                }
            };
            verification.segments += 1;
            let (slots, bad_slots) = segment.scan(&keys, &mut 0);
            for _ in 0..bad_slots {
                verification.damaged.push(damaged(None, Damage::Slot));
            }
            for (number, slot) in slots {
                match segment.read_body(number, &slot, &keys) {
                    Ok(_) => verification.entries += 1,
                    Err(damage) => verification.damaged.push(damaged(Some(number), damage)),
                }
            }
        }
        Ok(verification)
    }

    /// Removes everything but the key: segments, profiles, what crashes left. Running machines keep what they have open.
    /// How many files that were, and their bytes.
    ///
    /// # Errors
    ///
    /// Another process is busy with upkeep, or the host refuses to remove a file.
    pub fn clear(&self) -> Result<(u64, u64), CacheError> {
        let _lock = self.dir.lock(PATIENCE)?;
        let (mut files, mut bytes) = (0, 0);
        for name in self.own_names()? {
            bytes += self.dir.stat(&name).map_or(0, |stat| stat.st_blocks as u64 * 512);
            self.dir
                .remove(&name)
                .map_err(|error| CacheError::io("cannot remove", &self.dir.name(&name), error))?;
            files += 1;
        }
        Ok((files, bytes))
    }

    /// The names that are the cache's. Anything else in the directory is somebody else's business.
    fn own_names(&self) -> Result<Vec<String>, CacheError> {
        let mut names = self.dir.names()?;
        names.retain(|name| [SUFFIX, TEMPORARY, profile::SUFFIX].iter().any(|suffix| name.ends_with(suffix)));
        names.sort_unstable();
        Ok(names)
    }

    fn user_key(&self) -> Result<Option<UserKey>, CacheError> {
        self.key_dir.as_ref().map_or(Ok(None), UserKey::load)
    }
}

/// Without a key every segment is foreign.
fn open_segment(dir: &Dir, name: &str, user: Option<&UserKey>) -> Result<Option<(Segment, Keys)>, Damage> {
    let user = user.ok_or(Damage::Header)?;
    let segment = Segment::open(dir, name, user)?;
    Ok(segment.map(|segment| {
        let keys = Keys::new(user, segment.namespace);
        (segment, keys)
    }))
}

impl NamespaceSurvey {
    fn add(&mut self, segment: &Segment, keys: &Keys, live: bool) {
        let stamps = segment.stamps();
        self.guest.clone_from(&segment.guest);
        self.id = hex(&segment.namespace[..4]);
        self.segments += 1;
        self.live_segments += u64::from(live);
        self.bytes += segment.disk_bytes();
        for (number, slot) in segment.scan(keys, &mut 0).0 {
            self.entries += 1;
            self.guest_insns += u64::from(slot.insns);
            self.code_bytes += u64::from(slot.code_len);
            let stamp = stamps.get(number as usize).copied().unwrap_or(0);
            self.last_used_secs = self.last_used_secs.max(stamp.into());
        }
    }
}
