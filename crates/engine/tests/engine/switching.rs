//! Changing engines while the guest runs, which it does not notice.

use crate::{asm::*, machine::*};
use isomer_engine::{EngineKind, Engines, Exit, Jit, SwitchEngine};
use isomer_riscv64::{Cpu, Riscv64};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;
/// Words of a hart's table.
const WORDS: u64 = 256;

/// Where a hart is told to end, what it counts, and its table.
const END: u64 = DATA;
const fn table(hart: u64) -> u64 {
    DATA + 0x1_0000 + hart * 0x1_0000
}

/// Rounds over random words of a table, half of them in a function, until told to end: a round's result depends on all
/// before it. Ends with the sum in memory, and the rounds as the result.
fn program(hart: u64) -> Asm {
    let mut p = Asm::new(CODE + 0x8000 * hart);
    let (round, function, odd) = (p.label(), p.label(), p.label());
    p.li(S0, 1 + hart)
        .li(S1, 0)
        .li(A0, table(hart))
        .li(A1, MULTIPLIER)
        .li(A2, INCREMENT)
        .li(A3, END)
        .li(A4, 0);
    p.bind(round).ops(&[mul(S0, S0, A1), add(S0, S0, A2), srli(T0, S0, 40), andi(T0, T0, WORDS as i32 - 1)]);
    p.ops(&[slli(T0, T0, 3), add(T0, T0, A0), ld(T1, 0, T0), add(T1, T1, S0), sd(T1, 0, T0)]);
    p.op(andi(T2, T1, 1)).branch(bne, T2, ZERO, odd).call(RA, function).bind(odd);
    p.ops(&[add(S1, S1, T1), addi(A4, A4, 1), sd(A4, 8 + 8 * hart as i32, A3), ld(T2, 0, A3)])
        .branch(beq, T2, ZERO, round);
    p.li(T0, table(hart) + 8 * WORDS).op(sd(S1, 0, T0));
    finish_hart(&mut p, hart, A4);
    p.bind(function).ops(&[srli(T2, T1, 7), xor(T1, T1, T2), amoadd_d(ZERO, T1, T0), addi(T1, T1, 3), ret()]);
    p
}

/// The same here.
fn sum(hart: u64, rounds: u64) -> u64 {
    let (mut x, mut sum) = (1 + hart, 0u64);
    let mut table = [0u64; WORDS as usize];
    for _ in 0..rounds {
        x = x.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        let word = &mut table[(x >> 40 & (WORDS - 1)) as usize];
        *word = word.wrapping_add(x);
        let mut value = *word;
        if value & 1 == 0 {
            value ^= value >> 7;
            *word = word.wrapping_add(value);
            value += 3;
        }
        sum = sum.wrapping_add(value);
    }
    sum
}

fn check(machine: &Machine, harts: u64) {
    for hart in 0..harts {
        let rounds = machine.results.lock().unwrap()[hart as usize].expect("it ends with a result");
        assert!(rounds > 1000, "hart {hart}: {rounds} rounds are too few to mean anything");
        let found = machine.read_u64(table(hart) + 8 * WORDS);
        assert_eq!(found, sum(hart, rounds), "hart {hart}, {rounds} rounds");
    }
}

/// Four harts, while another thread switches all of them from engine to engine.
#[test]
fn any_thread_switches_engines_while_harts_run() {
    const HARTS: u64 = 4;
    let machine = Machine::new(HARTS as usize);
    let guest = machine.guest.clone();
    let make = move |kind| Jit::for_engine(kind, &guest);
    let engines = Engines::new(machine.group.clone(), EngineKind::Interpreter, Box::new(make)).unwrap();
    let harts = (0..HARTS).map(|hart| {
        machine.write(CODE + 0x8000 * hart, &program(hart).finish());
        machine.hart(hart as usize, engines.current().0, CODE + 0x8000 * hart)
    });
    let threads: Vec<_> = harts.collect::<Vec<_>>().into_iter().map(|hart| machine.spawn(hart)).collect();
    let start = Instant::now();
    // Twenty times each, and until every hart has done something worth checking.
    let done = || (0..HARTS).all(|hart| machine.read_u64(END + 8 + 8 * hart) > 2000);
    for round in (0..).take_while(|round| *round < 120 || !done() && start.elapsed() < PATIENCE) {
        let kind = ENGINES[(round * 5 + 2) % ENGINES.len()];
        engines.switch_engine(kind).unwrap();
        assert_eq!((engines.engine(), engines.current().0), (kind, kind));
        // Compiling everything anew may take longer than three milliseconds: then nobody gets anywhere.
        std::thread::sleep(Duration::from_millis(if round < 120 { 3 } else { 100 }));
    }
    machine.write_u64(END, 1);
    let harts = machine.join(threads);
    assert!(start.elapsed() < PATIENCE && harts.iter().all(|(_, exit)| *exit == Exit::Stopped));
    check(&machine, HARTS);
    // Regions wait until every hart notices stores to their page, which a busy host can delay.
    assert!(engines.jit_stats().blocks > 0, "{:?}", engines.jit_stats());
    assert!(Arc::ptr_eq(engines.group(), &machine.group));
}

/// One hart, switched between any two engines between any two instructions.
#[test]
fn a_hart_goes_on_where_it_was() {
    let machine = Machine::new(1);
    machine.write(CODE, &program(0).finish());
    let jits = ENGINES.map(|kind| (kind, Jit::for_engine(kind, &machine.guest).unwrap()));
    let mut hart = machine.hart(0, ENGINES[0], CODE);
    for round in 0..3000u64 {
        // Every ordered pair of engines, at distances that walk over all instructions of the loop.
        let (kind, jit) = &jits[(round * 7 + round / 6) as usize % ENGINES.len()];
        hart.switch_engine(*kind, jit.clone());
        let before = hart.cpu().header.insns;
        assert_eq!(hart.run(Some(1 + round % 97)), Exit::Limit);
        assert!(hart.cpu().header.insns > before, "{round} {kind:?}");
    }
    machine.write_u64(END, 1);
    machine.run_hart(hart);
    check(&machine, 1);
}

/// A hart that sleeps is not woken for it, and one that is off is switched before it starts.
#[test]
fn a_sleeping_hart_wakes_up_on_the_new_engine() {
    let machine = Machine::new(1);
    let guest = machine.guest.clone();
    let make = move |kind| Jit::for_engine(kind, &guest);
    let engines = Engines::new(machine.group.clone(), EngineKind::Interpreter, Box::new(make)).unwrap();
    machine.write(CODE, &program(0).finish());
    let mut hart = machine.hart_off(0, EngineKind::Interpreter, None);
    hart.cpu_mut().header.pc = CODE;
    let thread = machine.spawn(hart);
    engines.switch_engine(EngineKind::Template).unwrap();
    assert!(machine.group.peers()[0].claim_power_on());
    machine.group.peers()[0]
        .post(isomer_engine::Request::PowerOn(Box::new(|_: &Riscv64, cpu: &mut Cpu| cpu.header.pc = CODE)));
    let start = Instant::now();
    while engines.jit_stats().blocks == 0 || machine.read_u64(END + 8) < 2000 {
        assert!(start.elapsed() < PATIENCE, "nothing is compiled");
        std::thread::sleep(Duration::from_millis(1));
    }
    machine.write_u64(END, 1);
    machine.join(vec![thread]);
    check(&machine, 1);
}
