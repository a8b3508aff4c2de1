//! Kinds of damage: all refused, none fatal, and what was lost is made anew. Offsets are those of the format.

use super::*;
use std::{
    fs::{self, File, OpenOptions, Permissions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

const SEEDS: std::ops::Range<u32> = 0..20;
const CODE_LEN: usize = 700;
/// Bytes of one payload: digests, two ranges, code.
const PAYLOAD: u64 = 64 + 8 + CODE_LEN as u64;
const STRIDE: u64 = PAYLOAD.next_multiple_of(8);
const DATA: u64 = segment::DATA_AT;

/// A cache of one segment with an entry for each seed, and that segment.
fn filled() -> (TempDir, PathBuf) {
    let root = root();
    fill(&root, SEEDS, CODE_LEN);
    let segment = segments(&root).pop().unwrap();
    (root, segment)
}

fn segments(root: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.path().join("cache")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "code")).collect()
}

fn edit(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn flip(path: &Path, at: u64, bit: u32) {
    let file = edit(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

/// The cache opens, gives `expected` sound entries and no others, takes in what is missing, and the run after that has
/// all of them.
#[track_caller]
fn heals(root: &TempDir, expected: u32) {
    let cache = open(root);
    assert_eq!(found(&cache, SEEDS, CODE_LEN), expected);
    // Again: what was refused once stays refused.
    assert_eq!(found(&cache, SEEDS, CODE_LEN), expected);
    for seed in SEEDS {
        put(&cache, seed, CODE_LEN);
    }
    cache.flush();
    assert_eq!(found(&cache, SEEDS, CODE_LEN), SEEDS.end);
    drop(cache);
    assert_eq!(found(&open(root), SEEDS, CODE_LEN), SEEDS.end);
}

#[test]
fn a_flipped_bit_in_the_header() {
    // One place in every field: magic, version, namespace, id, capacity, MAC.
    for at in [0, 9, 20, 50, 66, 100, 127] {
        let (root, segment) = filled();
        flip(&segment, at, 3);
        heals(&root, 0);
        assert!(!segment.exists(), "upkeep removes it");
    }
}

#[test]
fn a_flipped_bit_in_a_slot() {
    let slot = segment::SLOTS_AT + 64 * 5;
    for at in 0..64 {
        let (root, segment) = filled();
        flip(&segment, slot + at, at as u32 % 8);
        let cache = open(&root);
        assert_eq!(found(&cache, SEEDS, CODE_LEN), SEEDS.end - 1, "byte {at} of the slot");
        assert_eq!(cache.stats().damaged, 1, "byte {at} of the slot");
    }
    let (root, segment) = filled();
    flip(&segment, slot + 26, 0);
    heals(&root, SEEDS.end - 1);
}

#[test]
fn a_flipped_bit_in_a_payload() {
    // Digest, MAC, ranges, and the code's first and last byte.
    for at in [0, 31, 32, 63, 64, 71, 72, PAYLOAD - 1] {
        let (root, segment) = filled();
        flip(&segment, DATA + STRIDE * 7 + at, 6);
        let files = CacheFiles::open(&Places::under(root.path())).unwrap().unwrap();
        let verification = files.verify().unwrap();
        assert_eq!(verification.entries, 19);
        let [damaged] = &verification.damaged[..] else { panic!("{verification:?}") };
        assert_eq!((damaged.slot, damaged.damage), (Some(7), Damage::Entry));
        heals(&root, SEEDS.end - 1);
    }
}

#[test]
fn a_truncated_file() {
    for (len, expected) in [
        (0, 0),
        (64, 0),
        (127, 0),
        (128, 0),
        (segment::SLOTS_AT + 64 * 3 + 10, 0),
        (DATA, 0),
        (DATA + STRIDE * 4 + 100, 4),
        (DATA + STRIDE * 19 + PAYLOAD - 1, 19),
    ] {
        let (root, segment) = filled();
        edit(&segment).set_len(len).unwrap();
        heals(&root, expected);
    }
}

/// Shortened while it is open: a mapping would end the process here.
#[test]
fn a_file_truncated_under_way() {
    let (root, segment) = filled();
    let cache = open(&root);
    edit(&segment).set_len(DATA + STRIDE * 4).unwrap();
    assert_eq!(found(&cache, SEEDS, CODE_LEN), 4);
    edit(&segment).set_len(0).unwrap();
    assert_eq!(found(&cache, SEEDS, CODE_LEN), 0);
    drop(cache);
    heals(&root, 0);
}

#[test]
fn zeroed_pages() {
    let zero = [0; 4096];
    for (at, expected) in [
        // The header; the slots; stamps, which matter to nobody; entries 0 to 5.
        (0, 0),
        (segment::SLOTS_AT, 0),
        (segment::STAMPS_AT, 20),
        (DATA, 14),
    ] {
        let (root, segment) = filled();
        edit(&segment).write_all_at(&zero, at).unwrap();
        heals(&root, expected);
    }
}

#[test]
fn swapped_segments() {
    let (root, first) = filled();
    fill(&root, 100..120, CODE_LEN);
    let second = segments(&root).into_iter().find(|path| *path != first).unwrap();
    let aside = root.path().join("aside");
    fs::rename(&first, &aside).unwrap();
    fs::rename(&second, &first).unwrap();
    fs::rename(&aside, &second).unwrap();
    assert_eq!(found(&open(&root), 100..120, CODE_LEN), 0);
    heals(&root, 0);
}

#[test]
fn a_foreign_key() {
    let (root, _) = filled();
    let other = filled().0;
    let key = Path::new("state").join(places::KEY);
    fs::copy(other.path().join(&key), root.path().join(&key)).unwrap();
    heals(&root, 0);
    // No key, a short key, and one of zeros, as crashes may leave it.
    fs::remove_file(root.path().join(&key)).unwrap();
    heals(&root, 0);
    edit(&root.path().join(&key)).set_len(31).unwrap();
    heals(&root, 0);
    edit(&root.path().join(&key)).write_all_at(&[0; 32], 0).unwrap();
    heals(&root, 0);
    // A cache that comes with a user's own files is as foreign.
    let mine = super::root();
    fill(&mine, 50..51, CODE_LEN);
    fs::rename(root.path().join("cache"), root.path().join("theirs")).unwrap();
    fs::rename(mine.path().join("cache"), root.path().join("cache")).unwrap();
    assert_eq!(found(&open(&root), 50..51, CODE_LEN), 0);
}

/// A segment of another namespace under this one's name: its header says what it is.
#[test]
fn another_namespaces_segment() {
    let root = root();
    let other = CacheConfig { namespace: Namespace { abi_version: 9, ..namespace() }, ..config(&root) };
    let cache = CodeCache::open(other).unwrap();
    SEEDS.for_each(|seed| put(&cache, seed, CODE_LEN));
    drop(cache);
    let segment = segments(&root).pop().unwrap();
    let own = key::hex(&namespace().digest()[..8]);
    let name = segment.file_name().unwrap().to_str().unwrap();
    fs::rename(&segment, segment.with_file_name(own + &name[16..])).unwrap();
    heals(&root, 0);
}

/// Were such a segment opened all the same, nothing in it would be authentic.
#[test]
fn another_namespaces_entry() {
    let (root, path) = filled();
    let store = open(&root).store.clone().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let segment = Segment::open(&store.dir, name, &store.user).unwrap().unwrap();
    let (slots, _) = segment.scan(&store.keys, &mut 0);
    let (number, slot) = slots[0];
    assert!(segment.read(number, &slot, &store.keys).is_ok());
    let other = Keys::new(&store.user, Namespace { variant: 1, ..namespace() }.digest());
    assert_eq!(segment.read(number, &slot, &other).unwrap_err(), Damage::Entry);
    let (slots, damaged) = segment.scan(&other, &mut 0);
    assert_eq!((slots.len(), damaged), (0, SEEDS.end));
}

/// An entry copied over another, with its slot, and over another's payload only.
#[test]
fn an_entry_replayed_elsewhere() {
    let copy = |segment: &Path, from: u64, to: u64, len: u64| {
        let file = edit(segment);
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, from).unwrap();
        file.write_all_at(&bytes, to).unwrap();
    };
    let slot = |number: u64| segment::SLOTS_AT + 64 * number;
    let payload = |number: u64| DATA + STRIDE * number;
    let (root, segment) = filled();
    copy(&segment, payload(2), payload(9), PAYLOAD);
    heals(&root, SEEDS.end - 1);
    // The slot in another place, still referring to its own payload: an authentic entry, in a place that is not its own.
    let (root, segment) = filled();
    copy(&segment, slot(2), slot(9), 64);
    copy(&segment, slot(3), slot(2), 64);
    let cache = open(&root);
    assert_eq!(found(&cache, 2..3, CODE_LEN), 0);
    assert_eq!(found(&cache, 9..10, CODE_LEN), 0);
    drop(cache);
    // 3 is there twice, once in its own place; 2 only in 9's, and 9 not at all.
    heals(&root, SEEDS.end - 2);
    // Between two segments, to the same place: the id differs.
    let (root, first) = filled();
    fill(&root, 100..120, CODE_LEN);
    let second = segments(&root).into_iter().find(|path| *path != first).unwrap();
    let (from, to) = (edit(&first), edit(&second));
    let mut bytes = vec![0; fs::metadata(&first).unwrap().len() as usize - 4096];
    from.read_exact_at(&mut bytes, 4096).unwrap();
    to.write_all_at(&bytes, 4096).unwrap();
    fs::remove_file(&first).unwrap();
    heals(&root, 0);
}

#[test]
fn garbage_appended() {
    let (root, segment) = filled();
    let len = fs::metadata(&segment).unwrap().len();
    edit(&segment).write_all_at(&[0xa5; 100_000], len).unwrap();
    heals(&root, SEEDS.end);
}

#[test]
fn wrong_permissions() {
    let (root, segment) = filled();
    fs::set_permissions(&segment, Permissions::from_mode(0o620)).unwrap();
    heals(&root, 0);
}

#[test]
fn a_damaged_profile() {
    let (root, _) = filled();
    let profile = root.path().join("cache").join(profile::name(&namespace().digest()));
    assert_eq!(open(&root).preload().count(), 20);
    let len = fs::metadata(&profile).unwrap().len();
    for at in [0, 8, 20, 50, len - 1] {
        flip(&profile, at, 1);
        assert_eq!(open(&root).preload().count(), 0, "byte {at}");
        flip(&profile, at, 1);
    }
    edit(&profile).set_len(len - 8).unwrap();
    assert_eq!(open(&root).preload().count(), 0);
    edit(&profile).set_len(3).unwrap();
    assert_eq!(open(&root).preload().count(), 0);
    heals(&root, SEEDS.end);
}

/// Slots of an attacker who knows the format but not the key, and plain noise: nothing panics, nothing is found.
#[test]
fn noise() {
    let (root, segment) = filled();
    let file = edit(&segment);
    for round in 0..40 {
        let noise: Vec<u8> = (0..3).flat_map(|i| page(round * 3 + i)).collect();
        let at = [segment::SLOTS_AT, segment::STAMPS_AT, DATA][round as usize % 3];
        file.write_all_at(&noise, at).unwrap();
        let cache = open(&root);
        found(&cache, SEEDS, CODE_LEN);
        CacheFiles::open(&Places::under(root.path())).unwrap().unwrap().verify().unwrap();
    }
    heals(&root, 0);
}
