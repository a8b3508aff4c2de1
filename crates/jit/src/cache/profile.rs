//! What the last runs used, in the order they came to need it: what the next run reads ahead.

use super::{
    key::{UserKey, hex, random},
    places::{Access, Dir},
    segment::TEMPORARY,
};
use rustc_hash::FxHashSet;
use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = *b"ISOMERPF";
const HEADER_BYTES: usize = 48;
const MAC_BYTES: usize = 32;
/// Entries of a profile at most.
const MAX_ENTRIES: usize = 1 << 15;
/// How profiles' names end.
pub(super) const SUFFIX: &str = ".profile";

/// The name of a namespace's profile.
pub(super) fn name(namespace: &[u8; 32]) -> String {
    hex(&namespace[..8]) + SUFFIX
}

/// The contents the namespace's profile names, in order; none if there is no profile, or it is not authentic.
pub(super) fn load(dir: &Dir, user: &UserKey, namespace: &[u8; 32]) -> Vec<u64> {
    let mut bytes = Vec::new();
    let limit = (HEADER_BYTES + MAX_ENTRIES * 8 + MAC_BYTES) as u64;
    let Ok(file) = dir.open_file(&name(namespace), Access::Read) else { return Vec::new() };
    if file.take(limit).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let Some((covered, mac)) = bytes.split_last_chunk::<MAC_BYTES>() else { return Vec::new() };
    let Some((header, entries)) = covered.split_first_chunk::<HEADER_BYTES>() else { return Vec::new() };
    let authentic = header[..8] == MAGIC
        && header[16..] == namespace[..]
        && blake3::Hash::from_bytes(user.profile_mac(covered)) == *mac;
    let entries = if authentic { entries.as_chunks::<8>().0 } else { &[] };
    entries.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

/// Puts this run's use in front of what earlier runs noted. All at once: readers see the old one or the new one.
pub(super) fn save(dir: &Dir, user: &UserKey, namespace: &[u8; 32], used: &[u64]) -> io::Result<()> {
    let mut seen = FxHashSet::default();
    let earlier = load(dir, user, namespace);
    let all = used.iter().chain(&earlier).filter(|content| seen.insert(**content)).take(MAX_ENTRIES);
    let mut bytes = Vec::from(MAGIC);
    bytes.extend([0; 8]);
    bytes.extend_from_slice(namespace);
    bytes.extend(all.flat_map(|content| content.to_le_bytes()));
    bytes.extend(user.profile_mac(&bytes));
    let name = name(namespace);
    let temporary = format!("{name}.{}{TEMPORARY}", hex(&random::<8>()?));
    let written = dir.create_file(&temporary).and_then(|mut file| {
        file.write_all(&bytes)?;
        dir.rename(&temporary, &name)
    });
    if written.is_err() {
        let _ = dir.remove(&temporary);
    }
    written
}
