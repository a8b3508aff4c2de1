//! A process that writes is killed at any instant: the cache opens, and every entry found is what was put.

use super::*;
use std::{
    env,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Where the child writes; tells the child that it is one.
const VARIABLE: &str = "ISOMER_TEST_CACHE_WRITER";
const CODE_LEN: usize = 9000;
const SEEDS: u32 = 2000;

fn small(root: &std::path::Path) -> CacheConfig {
    CacheConfig {
        places: Places::under(root),
        mode: CacheMode::ReadWrite,
        limit_bytes: MIN_LIMIT_BYTES,
        namespace: namespace(),
    }
}

/// Not a test by itself: the process that is killed. It writes, evicts, merges and saves profiles without end.
#[test]
fn writer() {
    let Some(root) = env::var_os(VARIABLE) else { return };
    let round: u32 = env::var("ISOMER_TEST_ROUND").ok().and_then(|round| round.parse().ok()).unwrap_or(0);
    for run in 0_u32.. {
        let cache = CodeCache::open(small(root.as_ref())).unwrap();
        for i in 0..60 {
            let seed = (round * 97 + run * 60 + i) % SEEDS;
            cache.find(MODE, ENTRY, &page(seed));
            put(&cache, seed, CODE_LEN);
        }
        cache.flush();
    }
}

/// Kills a writer so many times, `seed` choosing when. How many entries were found in all.
fn kill_writers(rounds: u32) -> u32 {
    let root = root();
    let mut total = 0;
    for round in 0..rounds {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([concat!(module_path!(), "::writer").split_once("::").unwrap().1, "--exact"])
            .env(VARIABLE, root.path())
            .env("ISOMER_TEST_ROUND", round.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Most of a start, up to some runs; prime so that no phase is favoured.
        thread::sleep(Duration::from_micros(u64::from(round) * 7919 % 150_000 + 2000));
        child.kill().unwrap();
        child.wait().unwrap();
        let cache = CodeCache::open(small(root.path())).unwrap();
        // Asserts that what is found is what was put.
        let sample = (round * 131) % (SEEDS - 200);
        total += found(&cache, sample..sample + 200, CODE_LEN);
        let stats = cache.stats();
        assert_eq!((stats.damaged, &stats.trouble), (0, &None), "round {round}");
        drop(cache);
        let files = CacheFiles::open(&Places::under(root.path())).unwrap().unwrap();
        if round % 10 == 9 {
            assert_eq!(files.verify().unwrap().damaged, [], "round {round}");
        }
    }
    let cache = CodeCache::open(small(root.path())).unwrap();
    let left = found(&cache, 0..SEEDS, CODE_LEN);
    assert!(left > 20, "{left} entries survived");
    total + left
}

#[test]
fn a_killed_writer_leaves_a_sound_cache() {
    assert!(kill_writers(12) > 0);
}

/// Some minutes: `cargo test -p isomer-jit --release -- --ignored two_hundred`.
#[test]
#[ignore = "takes a minute; xtask runs it"]
fn two_hundred_killed_writers_leave_a_sound_cache() {
    let began = Instant::now();
    let found = kill_writers(200);
    println!("200 kills, {found} entries found and compared, {:?}", began.elapsed());
}
