//! Several users of one cache at a time: threads, and processes, which are the same to the files.

use super::*;
use std::thread;

#[test]
fn writers_see_what_others_wrote() {
    let root = root();
    let (first, second) = (open(&root), open(&root));
    put(&first, 1, 300);
    first.flush();
    put(&second, 2, 300);
    second.flush();
    // Later ones have both; a running one looks about when it has something to write, and not too often.
    assert_eq!(found(&open(&root), 0..5, 300), 2);
    thread::sleep(std::time::Duration::from_millis(2100));
    put(&first, 3, 300);
    first.flush();
    assert_eq!(found(&first, 0..5, 300), 3);
    drop((first, second));
    assert_eq!(found(&open(&root), 0..5, 300), 3);
}

#[test]
fn many_writers_and_readers_at_once() {
    let root = root();
    thread::scope(|scope| {
        for writer in 0..4_u32 {
            let root = &root;
            scope.spawn(move || {
                let cache = CodeCache::open(CacheConfig { limit_bytes: 16 << 20, ..config(root) }).unwrap();
                for seed in (0..400).filter(|seed| seed % 4 == writer || seed % 7 == 0) {
                    put(&cache, seed, 3000);
                    found(&cache, seed.saturating_sub(5)..seed + 1, 3000);
                }
                cache.flush();
                assert_eq!(cache.stats().damaged, 0);
            });
            scope.spawn(move || {
                for _ in 0..20 {
                    found(&open(root), 0..400, 3000);
                }
            });
        }
    });
    let cache = open(&root);
    assert!(found(&cache, 0..400, 3000) > 300);
    let files = CacheFiles::open(&Places::under(root.path())).unwrap().unwrap();
    assert_eq!(files.verify().unwrap().damaged, []);
}

#[test]
fn threads_share_one_cache() {
    let root = root();
    let cache = open(&root);
    thread::scope(|scope| {
        for first in 0..4_u32 {
            let cache = &cache;
            scope.spawn(move || {
                for seed in (first * 50)..(first * 50 + 50) {
                    put(cache, seed, 200);
                    found(cache, 0..200, 200);
                }
            });
        }
    });
    cache.flush();
    assert_eq!(found(&cache, 0..200, 200), 200);
}
