//! Compiled code that is kept on disk: what one machine compiled the next one runs, if it is for the very same code.

use crate::{asm::*, machine::*};
use isomer_engine::{CacheMode, CacheSettings, EngineKind, Jit, JitPolicy, JitStats};
use isomer_riscv64::Riscv64;
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// Blocks are compiled at once, and regions after a few entries, while the vCPU waits: every run compiles the same.
const POLICY: JitPolicy = JitPolicy {
    template_after: Some(0),
    region_after: Some(1),
    hot_after: 8,
    background: false,
    code_bytes: 16 << 20,
};
/// Some blocks are interpreted, as they are in earnest.
const LATE: JitPolicy = JitPolicy { template_after: Some(5), ..POLICY };

fn settings(dir: &Path, mode: CacheMode) -> CacheSettings {
    CacheSettings { mode, dir: Some(dir.to_owned()), ..CacheSettings::default() }
}

fn jit(policy: JitPolicy, dir: &Path, mode: CacheMode) -> Arc<Jit<Riscv64>> {
    let jit = Jit::with_cache(Arc::new(Riscv64::max()), policy, &settings(dir, mode)).unwrap();
    assert!(jit.cache_error().is_none());
    jit
}

/// A sum over `rounds` with a call, a skip and memory in its loop, on two pages; `step` stands in an instruction of the
/// callee.
fn program(rounds: u64, step: i32) -> (Asm, [u32; 4]) {
    const FAR: u64 = CODE + 0x3000;
    let mut p = Asm::new(CODE);
    p.li(A0, 0).li(A1, rounds).li(A2, FAR).li(A3, DATA);
    let round = p.mark();
    let even = p.label();
    p.ops(&[jalr(RA, A2, 0), andi(T0, A1, 1)]).branch(beq, T0, ZERO, even);
    p.op(addi(A0, A0, 1)).bind(even);
    p.ops(&[sd(A0, 0, A3), addi(A1, A1, -1), ld(A0, 0, A3)]).branch(bne, A1, ZERO, round);
    finish(&mut p, A0);
    (p, [addi(A0, A0, step), NOP, ret(), NOP])
}

const ROUNDS: u64 = 300;

fn expected(step: u64) -> u64 {
    ROUNDS * step + ROUNDS / 2
}

/// Runs it with these compilers, which are dropped then: the result, what they compiled, what they found, how many blocks
/// were translated in any way.
struct Ran {
    result: u64,
    jit: JitStats,
    memory_hits: u64,
    disk_hits: u64,
    damaged: u64,
    written: u64,
}

fn run(jit: Arc<Jit<Riscv64>>, step: i32) -> Ran {
    let machine = Machine { jit: Some(jit.clone()), ..Machine::new(1) };
    let (program, callee) = program(ROUNDS, step);
    let callee: Vec<u8> = callee.iter().flat_map(|insn| insn.to_le_bytes()).collect();
    machine.write(CODE + 0x3000, &callee);
    let (hart, result) = machine.run(EngineKind::Jit, program);
    drop((hart, machine));
    jit.write_cache();
    let cache = jit.cache_stats();
    assert_eq!(cache.trouble, None);
    Ran {
        result,
        jit: jit.stats(),
        memory_hits: cache.memory_hits,
        disk_hits: cache.disk_hits,
        damaged: cache.damaged,
        written: cache.written,
    }
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_second_machine_compiles_nothing() {
    for policy in [POLICY, LATE] {
        let dir = dir();
        let first = run(jit(policy, dir.path(), CacheMode::ReadWrite), 3);
        assert_eq!(first.result, expected(3));
        assert!(first.jit.blocks > 3 && first.jit.regions > 0 && first.written > 1, "{:?}", first.jit);
        assert_eq!((first.disk_hits, first.memory_hits, first.damaged), (0, 0, 0));
        for mode in [CacheMode::ReadOnly, CacheMode::ReadWrite] {
            let second = run(jit(policy, dir.path(), mode), 3);
            assert_eq!(second.result, expected(3));
            assert_eq!((second.jit.blocks, second.jit.regions), (0, 0), "{policy:?} {mode:?}");
            assert!(second.jit.kept_regions > 0 && second.disk_hits > 2 && second.written == 0);
            assert!(second.jit.kept_pages > 0 && second.jit.kept_blocks > 3, "{:?}", second.jit);
        }
        let off = run(jit(policy, dir.path(), CacheMode::Off), 3);
        assert_eq!((off.result, off.disk_hits), (expected(3), 0));
        assert!(off.jit.blocks > 3);
    }
}

#[test]
fn changed_code_is_compiled_and_the_rest_is_not() {
    let dir = dir();
    let first = run(jit(POLICY, dir.path(), CacheMode::ReadWrite), 3);
    assert_eq!(first.result, expected(3));
    for (step, compiled) in [(5, true), (5, false), (3, false), (5, false), (700, true)] {
        let next = run(jit(POLICY, dir.path(), CacheMode::ReadWrite), step);
        assert_eq!(next.result, expected(step as u64));
        // The callee alone differs.
        assert_eq!(next.jit.blocks, u64::from(compiled), "{step}");
        assert!(next.jit.regions <= u64::from(compiled), "{step}");
    }
}

/// A guest that changes its code while it runs gets what it wrote, not what another run found there.
#[test]
fn code_that_changes_is_kept_as_it_was() {
    let dir = dir();
    for round in 0..4 {
        let jit = jit(POLICY, dir.path(), CacheMode::ReadWrite);
        let machine = Machine { jit: Some(jit.clone()), ..Machine::new(1) };
        let at = CODE + 0x8000;
        machine.write(at, &[addi(A0, A0, 0), ret()].map(u32::to_le_bytes).concat());
        let mut p = Asm::new(CODE);
        // Each version runs often enough to become a region.
        p.li(A0, 0).li(A1, u64::from(addi(A0, A0, 0))).li(A2, at).li(A3, 5 + round).li(A4, 1 << 20);
        let version = p.mark();
        p.ops(&[add(A1, A1, A4), sw(A1, 0, A2), FENCE_I]).li(A5, 40);
        let call = p.mark();
        p.ops(&[jalr(RA, A2, 0), addi(A5, A5, -1)]).branch(bne, A5, ZERO, call);
        p.op(addi(A3, A3, -1)).branch(bne, A3, ZERO, version);
        finish(&mut p, A0);
        let (hart, result) = machine.run(EngineKind::Jit, p);
        assert_eq!(result, (1..=5 + round).map(|n| 40 * n).sum::<u64>(), "round {round}");
        drop((hart, machine));
        jit.write_cache();
        assert_eq!(jit.cache_stats().damaged, 0);
    }
}

/// No room for all: code is given up, found again, and the result is right.
#[test]
fn code_comes_back_after_it_was_given_up() {
    let dir = dir();
    let small = JitPolicy { code_bytes: 1 << 16, ..POLICY };
    let many = |p: &mut Asm| {
        p.li(A0, 0).li(A1, 20);
        let round = p.mark();
        for page in 1..60 {
            p.li(A2, CODE + 0x1_0000 + page * 0x1000).op(jalr(RA, A2, 0));
        }
        p.op(addi(A1, A1, -1)).branch(bne, A1, ZERO, round);
        finish(p, A0);
    };
    for round in 0..3 {
        let jit = jit(small, dir.path(), CacheMode::ReadWrite);
        let machine = Machine { jit: Some(jit.clone()), ..Machine::new(1) };
        for page in 1..60 {
            let body: Vec<u32> = (0..40).map(|n| xori(T0, A0, n)).chain([addi(A0, A0, 1), ret()]).collect();
            let bytes: Vec<u8> = body.iter().flat_map(|insn| insn.to_le_bytes()).collect();
            machine.write(CODE + 0x1_0000 + page * 0x1000, &bytes);
        }
        let mut p = Asm::new(CODE);
        many(&mut p);
        assert_eq!(machine.run(EngineKind::Jit, p).1, 20 * 59, "round {round}");
        drop(machine);
        jit.write_cache();
        assert_eq!(jit.cache_stats().damaged, 0);
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("cache")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "code")).collect()
}

/// What is done to the files, while an engine has them open or before.
type Harm = fn(&Path);

fn edit(path: &Path, change: impl Fn(&fs::File, u64)) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    change(&file, len);
}

fn flip(file: &fs::File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

/// Where payloads begin, and the bytes of one's digest and MAC.
const DATA_AT: u64 = 561_152;
const DIGESTS: u64 = 64;

const HARMS: [(&str, Harm); 12] = [
    ("a bit of the header", |path| edit(path, |file, _| flip(file, 100))),
    ("a bit of a slot", |path| edit(path, |file, _| flip(file, 4096 + 20))),
    ("a bit of the first MAC", |path| edit(path, |file, _| flip(file, DATA_AT + 40))),
    ("a bit of the first block's record", |path| edit(path, |file, _| flip(file, DATA_AT + DIGESTS + 20))),
    ("the last byte of the last code", |path| edit(path, |file, len| flip(file, len - 1))),
    ("every tenth byte of the payloads", |path| {
        edit(path, |file, len| (DATA_AT..len).step_by(10).for_each(|at| flip(file, at)));
    }),
    ("cut to nothing", |path| edit(path, |file, _| file.set_len(0).unwrap())),
    ("cut inside a payload", |path| edit(path, |file, _| file.set_len(DATA_AT + 100).unwrap())),
    ("zeroed slots", |path| edit(path, |file, _| file.write_all_at(&[0; 65536], 4096).unwrap())),
    ("zeroed payloads", |path| {
        edit(path, |file, len| file.write_all_at(&vec![0; (len - DATA_AT) as usize], DATA_AT).unwrap());
    }),
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("replaced by other code", |path| {
        // What an attacker would like to see executed.
        edit(path, |file, len| file.write_all_at(&vec![0xcc; (len - DATA_AT) as usize], DATA_AT).unwrap());
    }),
];

#[test]
fn damaged_files_are_refused_and_made_anew() {
    for (what, harm) in HARMS {
        for open in [false, true] {
            let dir = dir();
            assert_eq!(run(jit(POLICY, dir.path(), CacheMode::ReadWrite), 3).result, expected(3));
            let files = segments(dir.path());
            assert!(!files.is_empty());
            let before = open.then(|| jit(POLICY, dir.path(), CacheMode::ReadWrite));
            files.iter().for_each(|path| harm(path));
            let used = before.unwrap_or_else(|| jit(POLICY, dir.path(), CacheMode::ReadWrite));
            let second = run(used, 3);
            assert_eq!(second.result, expected(3), "{what}, open: {open}");
            // Was anything made anew, and is all of it found then?
            let third = run(jit(POLICY, dir.path(), CacheMode::ReadWrite), 3);
            assert_eq!(third.result, expected(3), "{what}, open: {open}");
            let fourth = run(jit(POLICY, dir.path(), CacheMode::ReadOnly), 3);
            assert_eq!(
                (fourth.result, fourth.jit.blocks, fourth.jit.regions),
                (expected(3), 0, 0),
                "{what}, {open}"
            );
        }
    }
}

#[test]
fn a_cache_that_cannot_be_opened_costs_time_only() {
    let dir = dir();
    let file = dir.path().join("file");
    fs::write(&file, b"not a directory").unwrap();
    let guest = Arc::new(Riscv64::max());
    let jit = Jit::with_cache(guest, POLICY, &settings(&file, CacheMode::ReadWrite)).unwrap();
    assert!(jit.cache_error().is_some());
    let ran = run(jit, 3);
    assert_eq!((ran.result, ran.written, ran.disk_hits), (expected(3), 0, 0));
}

/// Two harts that share the compilers, and find each other's pages in memory.
#[test]
fn harts_share_what_was_kept() {
    let dir = dir();
    for round in 0..3 {
        let jit = jit(POLICY, dir.path(), CacheMode::ReadWrite);
        let machine = Machine { jit: Some(jit.clone()), ..Machine::new(2) };
        let mut p = Asm::new(CODE);
        p.op(csrr(A1, 0xf14)).li(A0, 0).li(A2, 500);
        let again = p.mark();
        p.ops(&[addi(A0, A0, 2), addi(A2, A2, -1)]).branch(bne, A2, ZERO, again);
        p.op(slli(A1, A1, 3)).li(SP, FINISH).ops(&[add(SP, SP, A1), sd(A0, 0, SP)]).op(j(0));
        machine.write(CODE, &p.finish());
        let harts = (0..2).map(|index| machine.hart(index, EngineKind::Jit, CODE)).collect::<Vec<_>>();
        let threads = harts.into_iter().map(|hart| machine.spawn(hart)).collect();
        drop(machine.join(threads));
        assert_eq!(*machine.results.lock().unwrap(), [Some(1000); 2]);
        drop(machine);
        jit.write_cache();
        assert_eq!((jit.cache_stats().damaged, jit.stats().blocks == 0), (0, round > 0));
    }
}
