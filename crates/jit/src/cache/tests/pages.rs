//! Template code that is kept a page at a time.

use super::*;

/// Blocks of 12 bytes, 16 apart, whose code tells entry and seed.
fn code(seed: u32, entry: u16) -> Vec<u8> {
    let mut code = vec![0x90; 30 + usize::from(entry) % 50];
    code[..6].copy_from_slice(&[&seed.to_le_bytes()[..], &entry.to_le_bytes()].concat());
    code
}

const ENTRIES: std::ops::Range<u16> = 10..200;

fn entries() -> impl Iterator<Item = u16> {
    ENTRIES.map(|n| n * 16)
}

fn put_blocks(cache: &CodeCache, seed: u32, entries: impl Iterator<Item = u16>) {
    let (page, entries): (Page, Vec<u16>) = (page(seed), entries.collect());
    let codes: Vec<_> = entries.iter().map(|&entry| code(seed, entry)).collect();
    let blocks: Vec<_> = entries
        .iter()
        .zip(&codes)
        .map(|(&entry, code)| NewBlock {
            mode: MODE,
            entry,
            insns: 3,
            hot: entry / 2,
            source: &page[usize::from(entry)..][..12],
            code,
        })
        .collect();
    cache.put_page(&blocks);
}

/// Which entries' code is found for the page; all of it is what was put.
fn found_blocks(cache: &CodeCache, seed: u32, page: &Page) -> Vec<u16> {
    let mut found = Vec::new();
    for entry in entries() {
        let Some(id) = cache.page_of(MODE, entry, &page[usize::from(entry)..]) else { continue };
        let Some(kept) = cache.page(id) else { continue };
        let number = kept.find(MODE, entry).unwrap();
        let block = kept.blocks[number];
        assert_eq!(
            (block.mode, block.entry, block.len, block.insns, block.hot),
            (MODE, entry, 12, 3, entry / 2)
        );
        if kept.current(page)[number / 64] >> (number % 64) & 1 != 0 {
            let expected = code(seed, entry);
            assert_eq!(kept.code[block.code_at as usize..][..expected.len()], expected);
            found.push(entry);
        }
    }
    found
}

#[test]
fn blocks_are_found_in_this_run_and_the_next() {
    let root = root();
    let cache = open(&root);
    for seed in 0..5 {
        put_blocks(&cache, seed, entries());
    }
    cache.flush();
    let all: Vec<u16> = entries().collect();
    for seed in 0..5 {
        assert_eq!(found_blocks(&cache, seed, &page(seed)), all);
    }
    assert!(found_blocks(&cache, 9, &page(9)).is_empty());
    drop(cache);
    let cache = open(&root);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.blocks, stats.damaged), (5, 5 * all.len() as u64, 0));
    for seed in 0..5 {
        assert_eq!(found_blocks(&cache, seed, &page(seed)), all);
    }
    assert!(cache.page_of(MODE + 1, 160, &page(0)[160..]).is_none());
    assert!(cache.page_of(MODE, 164, &page(0)[160..]).is_none());
    assert!(cache.page_of(MODE, 160, &page(0)[160..171]).is_none());
}

/// Where a page differs, the blocks elsewhere are as good as before; and what is kept already is not kept twice.
#[test]
fn each_block_holds_by_itself() {
    let root = root();
    let cache = open(&root);
    put_blocks(&cache, 1, entries());
    cache.flush();
    let mut other = page(1);
    other[16 * 50 + 11] ^= 1;
    other[16 * 70] ^= 0x80;
    // Between two blocks.
    other[16 * 90 + 13] ^= 0xff;
    let expected: Vec<u16> = entries().filter(|entry| ![16 * 50, 16 * 70].contains(entry)).collect();
    assert_eq!(found_blocks(&cache, 1, &other), expected);
    put_blocks(&cache, 1, entries());
    cache.flush();
    assert_eq!(cache.stats().written, 1);
    put_blocks(&cache, 1, entries().chain([4000]));
    cache.flush();
    let stats = cache.stats();
    assert_eq!((stats.written, stats.blocks), (2, ENTRIES.len() as u64 + 1));
}

#[test]
fn what_cannot_be_a_block_is_not_kept() {
    let root = root();
    let cache = open(&root);
    let source = [1; 2000];
    let sound = NewBlock { mode: 1, entry: 0, insns: 1, hot: 0, source: &source[..4], code: &[0xc3] };
    let bad = [
        NewBlock { source: &[], ..sound },
        NewBlock { source: &source, ..sound },
        NewBlock { entry: 4094, ..sound },
        NewBlock { entry: u16::MAX, ..sound },
        NewBlock { code: &[], ..sound },
        NewBlock { code: &[0; segment::MAX_CODE_BYTES + 1], ..sound },
    ];
    cache.put_page(&bad);
    cache.put_page(&[]);
    cache.flush();
    assert_eq!(cache.stats().entries, 0);
    // More than one entry holds.
    let code = [0x90; 300];
    let many: Vec<_> =
        (0..2048).map(|n| NewBlock { entry: n * 2, source: &source[..2], code: &code, ..sound }).collect();
    cache.put_page(&many);
    cache.flush();
    let stats = cache.stats();
    assert_eq!(stats.blocks, 2048);
    assert!((5..9).contains(&stats.entries), "{stats:?}");
}

#[test]
fn damage_is_refused() {
    let root = root();
    let cache = open(&root);
    put_blocks(&cache, 1, entries());
    cache.flush();
    drop(cache);
    let dir = std::fs::read_dir(root.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let segment = dir.into_iter().find(|path| path.extension().is_some_and(|e| e == "code")).unwrap();
    let sound = std::fs::read(&segment).unwrap();
    for at in (segment::DATA_AT as usize..sound.len()).step_by(97) {
        let mut bytes = sound.clone();
        bytes[at] ^= 4;
        std::fs::write(&segment, bytes).unwrap();
        let cache = CodeCache::open(CacheConfig { mode: CacheMode::ReadOnly, ..config(&root) }).unwrap();
        assert!(found_blocks(&cache, 1, &page(1)).is_empty(), "byte {at}");
        assert_eq!(cache.stats().damaged, 1, "byte {at}");
    }
    std::fs::write(&segment, &sound).unwrap();
    assert_eq!(found_blocks(&open(&root), 1, &page(1)).len(), ENTRIES.len());
}

/// Pages and regions share segments, and upkeep carries both along.
#[test]
fn upkeep_keeps_pages() {
    let root = root();
    for run in 0..20 {
        let cache = open(&root);
        put_blocks(&cache, run, entries());
        put(&cache, run, 500);
        cache.flush();
    }
    let cache = open(&root);
    put(&cache, 100, 500);
    cache.flush();
    let segments = std::fs::read_dir(root.path().join("cache")).unwrap();
    let segments =
        segments.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "code")).count();
    assert!(segments < 12, "{segments} segments");
    drop(cache);
    let cache = open(&root);
    for run in 0..20 {
        assert_eq!(found_blocks(&cache, run, &page(run)).len(), ENTRIES.len(), "run {run}");
        assert_eq!(found(&cache, run..run + 1, 500), 1);
    }
    assert_eq!(cache.stats().damaged, 0);
}
