//! The cache as its users see it, in directories of the tests' own.

mod bounds;
mod damage;
mod kill;
mod pages;
mod privacy;
mod sharing;

use super::*;
use tempfile::TempDir;

type Page = [u8; 4096];

/// A page whose bytes depend on `seed` everywhere.
fn page(seed: u32) -> Page {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

/// Code that tells what it was made from, so that a test knows it again.
fn compiled(seed: u32, code_len: usize) -> Compiled {
    let code = (0..code_len as u32).map(|i| (seed.wrapping_mul(31).wrapping_add(i * 7) >> 3) as u8).collect();
    Compiled { code, ranges: vec![(16, 64), (100, 220)], insns: 40 + seed % 7 }
}

const ENTRY: u16 = 24;
const MODE: u32 = 0x2b;

fn namespace() -> Namespace {
    Namespace {
        guest: "riscv64",
        translator: BuildId([7; 32]),
        host_features: 0x15,
        abi_version: 1,
        variant: 0,
    }
}

fn config(root: &TempDir) -> CacheConfig {
    CacheConfig {
        places: Places::under(root.path()),
        mode: CacheMode::ReadWrite,
        limit_bytes: 32 << 20,
        namespace: namespace(),
    }
}

fn open(root: &TempDir) -> CodeCache {
    CodeCache::open(config(root)).unwrap()
}

fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Puts entries for seeds and leaves.
fn fill(root: &TempDir, seeds: std::ops::Range<u32>, code_len: usize) {
    let cache = open(root);
    for seed in seeds {
        put(&cache, seed, code_len);
        // The queue is bounded: faster than the writer means dropped.
        if seed % 64 == 63 {
            cache.flush();
        }
    }
}

fn put(cache: &CodeCache, seed: u32, code_len: usize) {
    cache.put(MODE, ENTRY, Tier::Region, &page(seed), &compiled(seed, code_len));
}

/// How many of the seeds are found; each with exactly the code that was put.
fn found(cache: &CodeCache, seeds: std::ops::Range<u32>, code_len: usize) -> u32 {
    let hits = seeds.filter(|&seed| match cache.find(MODE, ENTRY, &page(seed)) {
        Some(cached) => {
            assert_eq!(cached, Cached { compiled: compiled(seed, code_len), tier: Tier::Region });
            true
        }
        None => false,
    });
    hits.count() as u32
}

#[test]
fn what_one_run_compiled_the_next_one_finds() {
    let root = root();
    let cache = open(&root);
    put(&cache, 1, 5000);
    cache.flush();
    assert_eq!(found(&cache, 0..3, 5000), 1);
    drop(cache);
    let cache = open(&root);
    assert_eq!(found(&cache, 0..3, 5000), 1);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.lookups, stats.disk_hits, stats.damaged), (1, 3, 1, 0));
    assert_eq!(stats.trouble, None);
}

#[test]
fn code_is_for_the_bytes_it_was_made_from_and_no_others() {
    let root = root();
    fill(&root, 1..2, 300);
    let cache = open(&root);
    let sound = page(1);
    for at in 0..4096 {
        let mut other = sound;
        other[at] ^= 0x10;
        let covered = (16..64).contains(&at) || (100..220).contains(&at);
        // Nothing but the ranges matters, though at the entry eight bytes are always looked at.
        assert_eq!(cache.find(MODE, ENTRY, &other).is_some(), !covered, "byte {at}");
    }
    assert!(cache.find(MODE + 1, ENTRY, &sound).is_none());
    assert!(cache.find(MODE, ENTRY + 2, &sound).is_none());
    assert!(cache.find(MODE, 4095, &sound).is_none());
    assert!(cache.find(MODE, u16::MAX, &sound).is_none());
}

#[test]
fn the_faster_code_is_found() {
    let root = root();
    for order in [[Tier::Region, Tier::Template], [Tier::Template, Tier::Region]] {
        let cache = open(&root);
        for tier in order {
            cache.put(MODE, ENTRY, tier, &page(9), &compiled(tier as u32, 64));
        }
        cache.flush();
        let found = cache.find(MODE, ENTRY, &page(9)).unwrap();
        assert_eq!((found.tier, found.compiled), (Tier::Region, compiled(2, 64)));
        assert_eq!(cache.stats().entries, 2);
    }
}

#[test]
fn a_namespace_sees_nothing_of_another() {
    let root = root();
    fill(&root, 0..5, 200);
    let others = [
        Namespace { guest: "aarch64", ..namespace() },
        Namespace { translator: BuildId([8; 32]), ..namespace() },
        Namespace { host_features: 0x14, ..namespace() },
        Namespace { abi_version: 2, ..namespace() },
        Namespace { variant: 1, ..namespace() },
    ];
    for namespace in others {
        let cache = CodeCache::open(CacheConfig { namespace, ..config(&root) }).unwrap();
        assert_eq!((found(&cache, 0..5, 200), cache.stats().entries), (0, 0));
    }
    assert_eq!(found(&open(&root), 0..5, 200), 5);
}

#[test]
fn what_breaks_the_rules_is_not_kept() {
    let root = root();
    let cache = open(&root);
    let good = compiled(1, 100);
    let bad: [Vec<(u16, u16)>; 7] = [
        vec![],
        vec![(64, 16)],
        vec![(16, 16)],
        vec![(100, 220), (16, 64)],
        vec![(16, 100), (100, 220)],
        vec![(16, 4097)],
        vec![(100, 220)],
    ];
    for ranges in bad {
        cache.put(MODE, ENTRY, Tier::Region, &page(1), &Compiled { ranges, ..good.clone() });
    }
    cache.put(MODE, ENTRY, Tier::Region, &page(1), &Compiled { code: vec![], ..good.clone() });
    cache.put(MODE, ENTRY, Tier::Region, &page(1), &compiled(1, segment::MAX_CODE_BYTES + 1));
    cache.put(MODE, u16::MAX, Tier::Region, &page(1), &good);
    cache.flush();
    let stats = cache.stats();
    assert_eq!((stats.dropped, stats.entries), (10, 0));
    // The largest that is allowed.
    put(&cache, 1, segment::MAX_CODE_BYTES);
    cache.flush();
    assert_eq!(found(&cache, 1..2, segment::MAX_CODE_BYTES), 1);
}

#[test]
fn off_and_read_only_touch_nothing() {
    let root = root();
    for mode in [CacheMode::Off, CacheMode::ReadOnly] {
        let cache = CodeCache::open(CacheConfig { mode, ..config(&root) }).unwrap();
        put(&cache, 1, 100);
        cache.flush();
        assert_eq!(found(&cache, 1..2, 100), 0);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "{mode:?}");
    }
    fill(&root, 0..4, 100);
    let state = || {
        let dir = std::fs::read_dir(root.path().join("cache")).unwrap();
        let mut files: Vec<_> = dir
            .map(|entry| entry.unwrap().path())
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect();
        files.sort();
        files
    };
    let before = state();
    let cache = CodeCache::open(CacheConfig { mode: CacheMode::ReadOnly, ..config(&root) }).unwrap();
    put(&cache, 9, 100);
    assert_eq!(found(&cache, 0..10, 100), 4);
    assert_eq!(cache.warm(1 << 20), 4);
    drop(cache);
    assert!(state() == before);
}

#[test]
fn what_was_used_comes_first_and_in_order() {
    let root = root();
    fill(&root, 0..6, 1000);
    // This run needs three, in an order of its own, and makes one.
    let cache = open(&root);
    for seed in [4, 1, 3] {
        assert_eq!(found(&cache, seed..seed + 1, 1000), 1);
    }
    put(&cache, 50, 1000);
    drop(cache);
    let cache = open(&root);
    let preloaded: Vec<Preloaded> = cache.preload().collect();
    let order: Vec<Option<u32>> = preloaded
        .iter()
        .map(|preloaded| (0..60).find(|&seed| cache.is_for(preloaded, &page(seed))))
        .collect();
    assert_eq!(order, [4, 1, 3, 50, 0, 2, 5].map(Some));
    let first = &preloaded[0];
    assert_eq!((first.mode, first.entry), (MODE, ENTRY));
    assert_eq!(first.cached, Cached { compiled: compiled(4, 1000), tier: Tier::Region });
    // Room for two of 1008 bytes.
    assert_eq!(cache.warm(2500), 2);
    assert_eq!(found(&cache, 0..6, 1000), 6);
    let stats = cache.stats();
    assert_eq!((stats.memory_hits, stats.disk_hits), (2, 4));
}

#[test]
fn a_put_never_waits() {
    let root = root();
    let cache = open(&root);
    // More at once than the queue holds.
    for seed in 0..2000 {
        cache.put(MODE, ENTRY, Tier::Region, &page(seed), &compiled(seed, 60_000));
    }
    cache.flush();
    let stats = cache.stats();
    assert!(stats.written > 0);
    assert_eq!(stats.written + stats.dropped, 2000, "{stats:?}");
    assert_eq!(cache.store.as_ref().unwrap().queued_bytes.load(Ordering::Relaxed), 0);
}

/// Prints what lookups cost: `cargo test -p isomer-jit --release lookups_cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn lookups_cost() {
    let root = root();
    fill(&root, 0..4000, 4000);
    let began = std::time::Instant::now();
    let cache = open(&root);
    println!("open: {:?} for {} entries", began.elapsed(), cache.stats().entries);
    let pages: Vec<Page> = (10_000..10_064).map(page).collect();
    let began = std::time::Instant::now();
    const ROUNDS: u32 = 200_000;
    for round in 0..ROUNDS {
        let page = &pages[round as usize % 64];
        assert!(std::hint::black_box(cache.find(MODE, ENTRY, std::hint::black_box(page))).is_none());
    }
    println!("miss: {:?}", began.elapsed() / ROUNDS);
    let pages: Vec<Page> = (0..2000).map(page).collect();
    let began = std::time::Instant::now();
    let hits = pages.iter().filter(|page| cache.find(MODE, ENTRY, page).is_some()).count();
    println!("hit on disk: {:?}", began.elapsed() / hits as u32);
    let began = std::time::Instant::now();
    let warm = cache.warm(8 << 20);
    println!("warming: {:?} each", began.elapsed() / warm as u32);
    let began = std::time::Instant::now();
    let hits = pages[..warm.min(2000)].iter().filter(|page| cache.find(MODE, ENTRY, page).is_some()).count();
    println!("hit in memory: {:?} ({:?})", began.elapsed() / hits as u32, cache.stats());
    let code = compiled(1, 4000);
    let keys = &cache.store.as_ref().unwrap().keys;
    let began = std::time::Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(keys.entry_mac(&[std::hint::black_box(&code.code)]));
    }
    println!("of which authenticating: {:?}", began.elapsed() / 1000);
    let began = std::time::Instant::now();
    for seed in 20_000..20_500 {
        cache.put(MODE, ENTRY, Tier::Region, &pages[seed as usize % 2000], &code);
    }
    println!("put: {:?}", began.elapsed() / 500);
    let began = std::time::Instant::now();
    BuildId::of_this_program().unwrap();
    println!("digest of this program: {:?}", began.elapsed());
}
