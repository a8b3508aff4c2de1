//! The limit, what goes first, and what crashes leave behind.

use super::*;
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

fn files(root: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(root.path().join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn disk_bytes(root: &TempDir) -> u64 {
    files(root).iter().map(|path| fs::metadata(path).unwrap().blocks() * 512).sum()
}

fn small(root: &TempDir) -> CacheConfig {
    CacheConfig { limit_bytes: MIN_LIMIT_BYTES, ..config(root) }
}

fn fill_small(root: &TempDir, seeds: std::ops::Range<u32>) {
    let cache = CodeCache::open(small(root)).unwrap();
    for seed in seeds {
        put(&cache, seed, 20_000);
        if seed % 16 == 15 {
            cache.flush();
        }
    }
    cache.flush();
    assert_eq!(cache.stats().trouble, None);
}

#[test]
fn the_cache_stays_within_its_limit() {
    let root = root();
    // 24 MB into 8 MiB, in runs of different lengths.
    for (first, last) in [(0, 200), (200, 210), (210, 700), (700, 1200)] {
        fill_small(&root, first..last);
        let bytes = disk_bytes(&root);
        assert!(bytes <= MIN_LIMIT_BYTES, "{bytes} bytes after {last}");
    }
    let cache = CodeCache::open(small(&root)).unwrap();
    let latest = found(&cache, 1100..1200, 20_000);
    let all = found(&cache, 0..1200, 20_000);
    // What was used in the same second is equally old.
    assert!(latest >= 90, "{latest}");
    assert!((180..420).contains(&all), "{all}");
}

#[test]
fn what_is_used_outlives_what_is_not() {
    let root = root();
    fill_small(&root, 0..100);
    // Everything was used long ago but ten, which the last run needed.
    age(&root);
    let cache = CodeCache::open(small(&root)).unwrap();
    assert_eq!(found(&cache, 40..50, 20_000), 10);
    drop(cache);
    fill_small(&root, 1000..1300);
    let cache = CodeCache::open(small(&root)).unwrap();
    assert_eq!(found(&cache, 40..50, 20_000), 10);
    assert!(found(&cache, 0..40, 20_000) + found(&cache, 50..100, 20_000) < 90);
    let files = CacheFiles::open(&Places::under(root.path())).unwrap().unwrap();
    assert_eq!(files.verify().unwrap().damaged, []);
}

/// Sets every stamp to the beginning of 2020.
fn age(root: &TempDir) {
    use std::os::unix::fs::FileExt;
    let stamps = 1_577_836_800_u32.to_le_bytes().repeat(segment::SLOTS as usize);
    for path in files(root).iter().filter(|path| path.extension().is_some_and(|e| e == "code")) {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&stamps, segment::STAMPS_AT).unwrap();
    }
}

#[test]
fn small_segments_are_put_together() {
    let root = root();
    for run in 0..30 {
        fill(&root, run..run + 1, 500);
        assert!(files(&root).len() <= 12, "run {run}: {:?}", files(&root));
    }
    assert_eq!(found(&open(&root), 0..30, 500), 30);
}

#[test]
fn what_crashes_left_is_removed_and_what_is_not_ours_stays() {
    let root = root();
    fill(&root, 0..3, 500);
    let dir = root.path().join("cache");
    let left =
        ["aa-bb.code.tmp", "1234.profile.55.tmp", "0011223344556677.profile"].map(|name| dir.join(name));
    left.iter().for_each(|path| fs::write(path, "half").unwrap());
    let stranger = dir.join("README");
    fs::write(&stranger, "mine").unwrap();
    fill(&root, 3..4, 500);
    left.iter().for_each(|path| assert!(!path.exists(), "{}", path.display()));
    assert!(stranger.exists());
    assert_eq!(found(&open(&root), 0..4, 500), 4);
}

#[test]
fn survey_verify_and_clear() {
    let root = root();
    let places = Places::under(root.path());
    assert!(CacheFiles::open(&places).unwrap().is_none());
    fill(&root, 0..10, 500);
    let other = Namespace { guest: "aarch64", ..namespace() };
    let cache = CodeCache::open(CacheConfig { namespace: other, ..config(&root) }).unwrap();
    put(&cache, 77, 800);
    cache.flush();
    let files = CacheFiles::open(&places).unwrap().unwrap();
    let survey = files.survey().unwrap();
    assert_eq!((survey.refused_segments, survey.namespaces.len()), (0, 2));
    assert!(survey.bytes > 0);
    let of = |guest: &str| survey.namespaces.iter().find(|namespace| namespace.guest == guest).unwrap();
    assert_eq!((of("riscv64").entries, of("riscv64").code_bytes, of("riscv64").live_segments), (10, 5000, 0));
    assert_eq!((of("aarch64").entries, of("aarch64").code_bytes, of("aarch64").live_segments), (1, 800, 1));
    assert!(of("riscv64").last_used_secs >= 1_700_000_000);
    let verification = files.verify().unwrap();
    assert_eq!((verification.segments, verification.entries, verification.damaged.len()), (2, 11, 0));
    let (removed, bytes) = files.clear().unwrap();
    assert!(removed >= 3 && bytes > 0);
    // The machine that runs keeps what it has open, and goes on.
    assert_eq!(found(&cache, 77..78, 800), 1);
    put(&cache, 78, 800);
    drop(cache);
    assert_eq!(found(&open(&root), 0..10, 500), 0);
    assert_eq!(files.survey().unwrap().namespaces, []);
}

#[test]
fn a_lock_that_is_never_given_back_stops_nobody() {
    let root = root();
    fill(&root, 0..1, 500);
    let dir = Dir::open(&root.path().join("cache"), false).unwrap().unwrap();
    let lock = dir.lock(std::time::Duration::ZERO).unwrap();
    let cache = open(&root);
    put(&cache, 1, 500);
    cache.flush();
    let stats = cache.stats();
    assert_eq!((stats.written, stats.dropped), (0, 1));
    assert!(stats.trouble.is_some_and(|why| why.contains("busy")));
    assert_eq!(found(&cache, 0..1, 500), 1);
    drop((cache, lock));
    fill(&root, 1..2, 500);
    assert_eq!(found(&open(&root), 0..2, 500), 2);
}
