//! Four harts that write code for one another, move each other's pages, fence each other remotely and are interrupted by
//! timers all the while; the result is known beforehand.
//!
//! `cargo xtask stress` runs the long version.

use crate::{asm::*, machine::*};
use isomer_core::Gva;
use isomer_engine::{EngineKind, Exit, FirmwareCx, FirmwareResult, Jit, Request};
use isomer_ir::guest::TlbFlush;
use isomer_riscv64::Riscv64;
use std::time::{Duration, Instant};

const HARTS: u64 = 4;
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;
/// Functions of a hart, a page each: so many that none changes too often to be worth compiling.
const SLOTS: u64 = 512;
/// Instructions of a function, and how often it is called before it changes.
const LENGTH: u64 = 8;
const CALLS: u64 = 400;
/// Ticks of a tenth of a microsecond between timer interrupts.
const TICKS: u64 = 700;

const fn seq(hart: u64) -> u64 {
    DATA + 0x1000 * hart
}
const fn ack(hart: u64) -> u64 {
    DATA + 0x8000 + 0x1000 * hart
}
/// What a hart's interrupt handler uses: two registers, and the count of interrupts.
const fn saved(hart: u64) -> u64 {
    DATA + 0x1_0000 + 0x1000 * hart
}
/// Two frames, one of which a hart's alias leads to.
const fn frames(hart: u64) -> u64 {
    DATA + 0x2_0000 + 0x2000 * hart
}
const fn alias(hart: u64) -> u64 {
    0x10_0000_0000 + 0x1000 * hart
}
const fn functions(hart: u64) -> u64 {
    RAM + 0x40_0000 + SLOTS * 0x1000 * hart
}
const TABLES: u64 = DATA + 0x10_0000;

/// Firmware functions, in a7.
const REMOTE_FENCE_I: u64 = 0;
/// Of the page at a0.
const REMOTE_SFENCE_VMA: u64 = 1;

const A_SEED: u64 = 0x1234_5678_9abc_def0;
/// Where a hart's sum starts, and the numbers it makes code from.
const fn start(seed: u64, hart: u64) -> (u64, u64) {
    (seed ^ A_SEED.wrapping_mul(hart + 1), seed.wrapping_mul(MULTIPLIER) ^ hart)
}

/// The sums after `rounds`, here.
fn expected(seed: u64, rounds: u64) -> Vec<u64> {
    let mut harts: Vec<_> = (0..HARTS).map(|hart| start(seed, hart)).collect();
    for _ in 0..rounds {
        for writer in 0..HARTS {
            let reader = ((writer + 1) % HARTS) as usize;
            let x = &mut harts[writer as usize].1;
            let code: Vec<_> = (0..LENGTH)
                .map(|_| {
                    *x = x.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
                    (*x >> 40 & 1 != 0, *x >> 52 & 0x7ff)
                })
                .collect();
            let value = *x;
            let sum = &mut harts[reader].0;
            *sum = sum.wrapping_add(value);
            for _ in 0..CALLS {
                for &(is_xor, imm) in &code {
                    *sum = if is_xor { *sum ^ imm } else { sum.wrapping_add(imm) };
                }
                *sum = sum.wrapping_mul(MULTIPLIER);
            }
        }
    }
    harts.into_iter().map(|(sum, _)| sum).collect()
}

/// One hart's program; `entry` is the page table entry of its successor's alias.
fn program(hart: u64, entry: u64, seed: u64, rounds: u64) -> Asm {
    const X: Reg = 18;
    const MUL: Reg = 19;
    const INC: Reg = 20;
    const NEXT_F: Reg = 21;
    const MY_F: Reg = 22;
    const MY_SEQ: Reg = 23;
    const NEXT_SEQ: Reg = 24;
    const MY_ACK: Reg = 25;
    const NEXT_ACK: Reg = 26;
    const ROUNDS: Reg = 27;
    const AT: Reg = 28;
    const COUNT: Reg = 29;
    const BASE: Reg = 30;
    const MASK: Reg = 31;
    let next = (hart + 1) % HARTS;
    let mut p = Asm::new(CODE + 0x8000 * hart);
    let (handler, begin, round, no_fence) = (p.label(), p.label(), p.label(), p.label());
    p.jump(begin);
    // The timer: counts, and sets the next.
    p.bind(handler).ops(&[
        csrrw(SP, 0x140, SP),
        sd(T0, 0, SP),
        sd(T1, 8, SP),
        ld(T0, 16, SP),
        addi(T0, T0, 1),
    ]);
    p.op(sd(T0, 16, SP)).li(T1, TICKS + 13 * hart).ops(&[csrr(T0, csr::TIME), add(T0, T0, T1)]);
    p.ops(&[csrrw(ZERO, csr::STIMECMP, T0), ld(T0, 0, SP), ld(T1, 8, SP), csrrw(SP, 0x140, SP), SRET]);

    let (sum, x) = start(seed, hart);
    p.bind(begin).li(T0, CODE + 0x8000 * hart + 4).op(csrrw(ZERO, csr::STVEC, T0));
    p.li(T0, saved(hart)).op(csrrw(ZERO, 0x140, T0)).li(T0, 1 << 5).op(csrs(csr::SIE, T0));
    p.op(csrr(T0, csr::TIME)).op(csrrw(ZERO, csr::STIMECMP, T0)).li(T0, 2).op(csrs(csr::SSTATUS, T0));
    p.li(S0, sum).li(S1, 0).li(X, x).li(MUL, MULTIPLIER).li(INC, INCREMENT).li(ROUNDS, rounds);
    p.li(NEXT_F, functions(next)).li(MY_F, functions(hart)).li(MY_SEQ, seq(hart)).li(NEXT_SEQ, seq(next));
    p.li(MY_ACK, ack(hart)).li(NEXT_ACK, ack(next)).li(BASE, u64::from(addi(A0, A0, 0))).li(MASK, SLOTS - 1);
    p.li(A2, frames(next)).li(A3, entry).li(A4, alias(hart));

    // The successor has done with the last function: the next one is written.
    p.bind(round).op(addi(S1, S1, 1));
    let wait = p.mark();
    p.ops(&[ld(T0, 0, NEXT_ACK), addi(T0, T0, 1)]).branch(bltu, T0, S1, wait).op(FENCE);
    p.ops(&[and(T0, S1, MASK), slli(T0, T0, 12), add(AT, NEXT_F, T0), addi(COUNT, ZERO, LENGTH as i32)]);
    let generate = p.mark();
    p.ops(&[mul(X, X, MUL), add(X, X, INC), srli(T0, X, 52), andi(T0, T0, 0x7ff), slli(T0, T0, 20)]);
    p.ops(&[srli(T1, X, 40), andi(T1, T1, 1), slli(T1, T1, 14), or(T0, T0, T1), or(T0, T0, BASE)]);
    p.ops(&[sw(T0, 0, AT), addi(AT, AT, 4), addi(COUNT, COUNT, -1)]).branch(bne, COUNT, ZERO, generate);
    p.li(T0, u64::from(ret())).op(sw(T0, 0, AT));
    // Its alias moves to the other frame, which holds the number it is to add; the old one then holds another.
    p.ops(&[andi(T0, S1, 1), slli(T0, T0, 12), add(A5, A2, T0), sd(X, 8, A5), srli(T1, A5, 2)]);
    p.ops(&[ori(T1, T1, RWX as i32), sd(T1, 0, A3), FENCE]);
    p.li(A0, alias(next)).li(A7, REMOTE_SFENCE_VMA).op(ECALL);
    p.op(lui(T0, 1)).ops(&[xor(A5, A5, T0), xori(T1, X, -1), sd(T1, 8, A5)]);
    // Every other time the successor fences its fetches itself.
    let told = p.label();
    p.op(andi(T0, S1, 1)).branch(bne, T0, ZERO, told).li(A7, REMOTE_FENCE_I).op(ECALL).bind(told);
    p.ops(&[FENCE, sd(S1, 0, NEXT_SEQ)]);

    // Its own function is ready: it calls it.
    let wait = p.mark();
    p.op(ld(T0, 0, MY_SEQ)).branch(bltu, T0, S1, wait).ops(&[FENCE, andi(T0, S1, 1)]);
    p.branch(beq, T0, ZERO, no_fence).op(FENCE_I).bind(no_fence).ops(&[ld(T0, 8, A4), add(S0, S0, T0)]);
    p.ops(&[and(T0, S1, MASK), slli(T0, T0, 12), add(AT, MY_F, T0), addi(COUNT, ZERO, CALLS as i32)]);
    let call = p.mark();
    p.ops(&[mv(A0, S0), jalr(RA, AT, 0), mul(S0, A0, MUL), addi(COUNT, COUNT, -1)])
        .branch(bne, COUNT, ZERO, call);
    p.ops(&[FENCE, sd(S1, 0, MY_ACK)]);
    // Branches do not reach as far.
    let over = p.label();
    p.branch(beq, S1, ROUNDS, over).jump(round).bind(over);
    finish_hart(&mut p, hart, S0);
    p
}

/// What the harts call.
fn firmware(cx: FirmwareCx<'_, Riscv64>) -> FirmwareResult {
    cx.cpu.header.pc += 4;
    let what = (cx.cpu.x[A7 as usize], cx.cpu.x[A0 as usize]);
    let request = || match what {
        (REMOTE_FENCE_I, _) => Request::SyncCode,
        (_, gva) => Request::FlushTlb(TlbFlush { gva: Some(Gva(gva)), ..TlbFlush::default() }),
    };
    let index = cx.index;
    let others = cx.group.peers().iter().enumerate().filter(|(other, _)| *other != index);
    let tickets = others.map(|(other, peer)| (other, peer.post(request()))).collect();
    FirmwareResult::ContinueAfter(tickets)
}

/// Runs all harts to their end on an engine; the sums, and how many interrupts there were. `watch` is called meanwhile.
fn run(
    engine: EngineKind,
    seed: u64,
    rounds: u64,
    patience: Duration,
    mut watch: impl FnMut(),
) -> (Vec<u64>, u64) {
    let machine = Machine::new(HARTS as usize);
    let mut tables = Tables::new(&machine, TABLES);
    tables.map_machine();
    let entries: Vec<_> = (0..HARTS).map(|hart| tables.map(alias(hart), frames(hart), 0, RWX)).collect();
    let satp = tables.satp(1);
    // One compiler for all harts, as a machine has it.
    let jit = Jit::for_engine(engine, &machine.guest).unwrap();
    let mut harts = Vec::new();
    for hart in 0..HARTS {
        let code = program(hart, entries[((hart + 1) % HARTS) as usize], seed, rounds).finish();
        assert!(code.len() < 0x8000);
        machine.write(CODE + 0x8000 * hart, &code);
        let mut vcpu = machine.hart_with(hart as usize, engine, jit.clone(), Some(Box::new(Calls(firmware))));
        let cpu = vcpu.cpu_mut();
        cpu.header.pc = CODE + 0x8000 * hart;
        cpu.satp = satp;
        enter_supervisor(cpu);
        vcpu.mix(seed.wrapping_mul(HARTS) + hart);
        vcpu.power_on();
        harts.push(vcpu);
    }
    let threads: Vec<_> = harts.into_iter().map(|hart| machine.spawn(hart)).collect();
    let start = Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) && start.elapsed() < patience {
        watch();
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = machine.join(threads);
    assert!(ended.iter().all(|(_, exit)| *exit == Exit::Stopped), "{engine:?} {seed}");
    let sums =
        machine.results.lock().unwrap().iter().map(|sum| sum.expect("every hart ends with a sum")).collect();
    let interrupts = (0..HARTS).map(|hart| machine.read_u64(saved(hart) + 16));
    (sums, interrupts.sum())
}

#[test]
fn harts_that_write_code_for_one_another_compute_what_they_should() {
    for (engine, rounds) in [
        (EngineKind::Interpreter, 600),
        (EngineKind::Jit, 600),
        (EngineKind::Template, 300),
        (EngineKind::Mixed, 60),
        (EngineKind::Eager, 60),
        (EngineKind::Reference, 20),
    ] {
        let (sums, interrupts) = run(engine, 7, rounds, PATIENCE, || ());
        assert_eq!(sums, expected(7, rounds), "{engine:?}");
        assert!(interrupts > HARTS, "{engine:?}: {interrupts} interrupts");
    }
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// For as many minutes as `ISOMER_STRESS_MINUTES` says: engines by turns, each time from another seed. The memory that a
/// turn takes at most must not grow.
#[test]
#[ignore = "runs for minutes: cargo xtask stress"]
fn for_minutes() {
    const TURNS: [(EngineKind, u64); 5] = [
        (EngineKind::Jit, 20_000),
        (EngineKind::Mixed, 1500),
        (EngineKind::Template, 20_000),
        (EngineKind::Eager, 1500),
        (EngineKind::Interpreter, 5000),
    ];
    /// What allocators keep of a thread's memory varies by some MiB.
    const SLACK_KIB: u64 = 24 << 10;
    let minutes: f64 = std::env::var("ISOMER_STRESS_MINUTES").expect("how long is said").parse().unwrap();
    let limit = Duration::from_secs_f64(60.0 * minutes);
    let start = Instant::now();
    let mut most = [0; TURNS.len()];
    let (mut instructions, mut all_interrupts) = (0, 0);
    for seed in 0.. {
        for (turn, (engine, rounds)) in TURNS.into_iter().enumerate() {
            let began = Instant::now();
            let mut peak = 0;
            let watch = || peak = peak.max(resident_kib());
            let (sums, interrupts) = run(engine, seed, rounds, 10 * PATIENCE, watch);
            assert_eq!(sums, expected(seed, rounds), "{engine:?}, seed {seed}");
            instructions += HARTS * rounds * CALLS * (LENGTH + 6);
            all_interrupts += interrupts;
            println!(
                "stress: {:>6.0} s: {} seed {seed}: {rounds} rounds in {:.1} s, {interrupts} interrupts, peak {} MiB",
                start.elapsed().as_secs_f64(),
                engine.name(),
                began.elapsed().as_secs_f64(),
                peak >> 10
            );
            // The first turn of each grows what it needs.
            if seed < 2 {
                most[turn] = most[turn].max(peak);
            }
            assert!(peak <= most[turn] + SLACK_KIB, "{engine:?}: {peak} KiB, {} at first", most[turn]);
            if start.elapsed() >= limit {
                println!(
                    "stress: {instructions} instructions at least, {all_interrupts} interrupts, no difference"
                );
                return;
            }
        }
    }
}
