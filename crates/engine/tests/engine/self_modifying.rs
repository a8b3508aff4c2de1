//! Code that changes: by the hart that runs it.

use crate::{asm::*, machine::*};
use isomer_core::Gpa;
use std::time::{Duration, Instant};

/// `addi a0, a0, n; ret` at `at`, for a store to change `n`.
const FUNCTION: u64 = CODE + 0x8000;
/// What the immediate of an instruction counts in.
const IMMEDIATE: u64 = 1 << 20;

#[test]
fn a_store_over_the_next_instruction_is_seen_after_the_fence() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut p = Asm::new(CODE);
        p.li(A1, u64::from(addi(A0, ZERO, 2)));
        let patch = p.here() + 24;
        p.op(lui(T0, 0)).op(addi(T0, ZERO, 0));
        // The address in two instructions at most keeps the distance known.
        p.ops(&[NOP, sw(A1, 0, A2), FENCE_I, NOP]);
        assert_eq!(p.here(), patch);
        p.op(addi(A0, ZERO, 1));
        finish(&mut p, A0);
        machine.write(CODE, &p.finish());
        let mut hart = machine.hart(0, engine, CODE);
        hart.cpu_mut().x[A2 as usize] = patch;
        assert_eq!(machine.run_hart(hart).1, 2, "{engine:?}");
    }
}

/// The function is changed and called again and again: each call must run what was stored last.
#[test]
fn a_function_that_changes_before_every_call_runs_as_stored() {
    const ROUNDS: u64 = 5000;
    for engine in ENGINES {
        for (fence, offset) in [(FENCE_I, 0), (FENCE_I, 0xffc)] {
            let machine = Machine::new(1);
            let at = FUNCTION + offset;
            machine.write(at, &addi(A0, A0, 0).to_le_bytes());
            machine.write(at + 4, &ret().to_le_bytes());
            let mut p = Asm::new(CODE);
            p.li(A0, 0).li(A1, u64::from(addi(A0, A0, 0))).li(A2, at).li(A3, ROUNDS).li(A4, IMMEDIATE);
            p.li(A5, 1024 * IMMEDIATE).li(A6, u64::from(addi(A0, A0, 0)));
            let round = p.mark();
            let keep = p.label();
            p.ops(&[add(A1, A1, A4), sub(T0, A1, A6)]).branch(bltu, T0, A5, keep);
            p.op(mv(A1, A6)).bind(keep);
            p.ops(&[sw(A1, 0, A2), fence, jalr(RA, A2, 0), addi(A3, A3, -1)]).branch(bne, A3, ZERO, round);
            finish(&mut p, A0);
            let start = Instant::now();
            let (hart, result) = machine.run(engine, p);
            assert_eq!(result, (1..=ROUNDS).map(|n| n % 1024).sum::<u64>(), "{engine:?}");
            assert!(hart.stats().blocks < 4 * ROUNDS, "{:?}", hart.stats());
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        }
    }
}

/// Atomics and misaligned stores change code as plain stores do.
#[test]
fn atomics_and_misaligned_stores_change_code_too() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let insn = |n| addi(A0, A0, n);
        let mut p = Asm::new(CODE);
        p.li(A0, 0).li(A2, FUNCTION).op(jalr(RA, A2, 0));
        // By an addition to the immediate, a swap, a pair of reserved accesses, single bytes, and across the page's end.
        p.li(A1, IMMEDIATE).ops(&[amoadd_w(ZERO, A1, A2), FENCE_I, jalr(RA, A2, 0)]);
        p.li(A1, u64::from(insn(100))).ops(&[amoswap_w(ZERO, A1, A2), FENCE_I, jalr(RA, A2, 0)]);
        p.li(A1, u64::from(insn(1000))).ops(&[lr_w(T0, A2), sc_w(T0, A1, A2), FENCE_I, jalr(RA, A2, 0)]);
        p.li(A1, u64::from(insn(7)) >> 16).ops(&[sh(A1, 2, A2), FENCE_I, jalr(RA, A2, 0)]);
        p.li(A1, u64::from(insn(9)) >> 8).ops(&[sb(A1, 1, A2), srli(A1, A1, 8), sh(A1, 2, A2)]);
        p.ops(&[FENCE_I, jalr(RA, A2, 0)]);
        p.li(A1, u64::from(insn(20)) << 16).ops(&[sd(A1, -2, A2), FENCE_I]);
        p.li(T1, u64::from(ret())).ops(&[sw(T1, 4, A2), FENCE_I, jalr(RA, A2, 0)]);
        finish(&mut p, A0);
        machine.write(FUNCTION, &insn(1).to_le_bytes());
        machine.write(FUNCTION + 4, &ret().to_le_bytes());
        assert_eq!(machine.run(engine, p).1, 1 + 2 + 100 + 1000 + 7 + 9 + 20, "{engine:?}");
    }
}

/// Data next to running code, in one page: every store throws the page's translations away, which must stay right and take
/// bounded time.
#[test]
fn data_beside_running_code_stays_right_and_bounded() {
    const ROUNDS: u64 = 20_000;
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut p = Asm::new(CODE);
        p.li(A0, 0).li(A2, CODE + 0x800).li(A3, ROUNDS);
        let round = p.mark();
        p.ops(&[ld(T0, 0, A2), addi(T0, T0, 1), sd(T0, 0, A2), addi(A3, A3, -1)])
            .branch(bne, A3, ZERO, round);
        p.op(ld(A0, 0, A2));
        finish(&mut p, A0);
        let start = Instant::now();
        let (hart, result) = machine.run(engine, p);
        assert_eq!((result, machine.read_u64(CODE + 0x800)), (ROUNDS, ROUNDS), "{engine:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?} {:?}", start.elapsed(), hart.stats());
        // Nothing piles up.
        assert!(hart.stats().code_bytes < 1 << 16, "{:?}", hart.stats());
    }
}

/// The same while much other code is translated: one page's change must not cost a look at every block.
#[test]
fn a_change_costs_the_same_however_much_is_translated() {
    const PAGES: u64 = 1000;
    const ROUNDS: u64 = 2000;
    let machine = Machine::new(1);
    // Pages full of two-instruction blocks, each of which jumps to the next.
    for page in 0..PAGES {
        let base = DATA + page * 0x1000;
        let mut code = Asm::new(base);
        for _ in 0..511 {
            code.op(NOP).op(j(4));
        }
        code.op(NOP).op(if page + 1 < PAGES { j(4) } else { ret() });
        machine.write(base, &code.finish());
    }
    let time = |warm: bool| {
        let machine = Machine { code_limit_bytes: 1 << 30, ..Machine::new(1) }.with_memory(&machine);
        let mut p = Asm::new(CODE);
        if warm {
            p.li(A1, DATA).op(jalr(RA, A1, 0));
        }
        p.li(A2, CODE + 0x800).li(A3, ROUNDS);
        let round = p.mark();
        p.ops(&[ld(T0, 0, A2), addi(T0, T0, 1), sd(T0, 0, A2), addi(A3, A3, -1)])
            .branch(bne, A3, ZERO, round);
        finish(&mut p, A3);
        machine.write(CODE, &p.finish());
        let mut hart = machine.hart(0, ENGINES[0], CODE);
        while hart.cpu().x[A3 as usize] == 0 {
            hart.run(Some(1000));
        }
        let blocks = hart.stats().blocks;
        assert_eq!(blocks > 500 * PAGES, warm);
        let start = Instant::now();
        machine.run_hart(hart);
        start.elapsed() / ROUNDS as u32
    };
    let (cold, warm) = (time(false), time(true));
    assert!(
        warm < cold * 20 + Duration::from_micros(300),
        "{cold:?} a round alone, {warm:?} beside much code"
    );
}

/// A device's write to code needs no fence by the hart's stores, but one of its fetches.
#[test]
fn a_write_from_outside_is_seen_after_a_fence() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        machine.write(FUNCTION, &addi(A0, A0, 1).to_le_bytes());
        machine.write(FUNCTION + 4, &ret().to_le_bytes());
        let mut p = Asm::new(CODE);
        p.li(A2, FUNCTION).li(A3, DATA).op(jalr(RA, A2, 0));
        let round = p.mark();
        p.op(ld(T0, 0, A3)).branch(beq, T0, ZERO, round).op(FENCE_I).op(jalr(RA, A2, 0));
        finish(&mut p, A0);
        machine.write(CODE, &p.finish());
        let mut hart = machine.hart(0, engine, CODE);
        assert_eq!(hart.run(Some(100)), isomer_engine::Exit::Limit);
        machine.memory.write(Gpa(FUNCTION), &addi(A0, A0, 40).to_le_bytes()).unwrap();
        machine.write_u64(DATA, 1);
        assert_eq!(machine.run_hart(hart).1, 41, "{engine:?}");
    }
}

/// One instruction over the end of a page, and then another page in place of the second.
#[test]
fn an_instruction_across_pages_follows_both() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let at = FUNCTION + 0xffe;
        let insn = |n| addi(A0, A0, n).to_le_bytes();
        machine.write(at, &insn(1));
        machine.write(at + 4, &ret().to_le_bytes());
        let mut p = Asm::new(CODE);
        p.li(A0, 0).li(A2, at).op(jalr(RA, A2, 0));
        // Only the second page's half changes; then only the first's (a1 + a0, still the first's to say).
        p.li(A1, u64::from(addi(A0, A0, 100)) >> 16).ops(&[sh(A1, 2, A2), FENCE_I, jalr(RA, A2, 0)]);
        p.li(A1, u64::from(addi(A3, A0, 100)) & 0xffff).ops(&[sh(A1, 0, A2), FENCE_I, jalr(RA, A2, 0)]);
        p.op(add(A0, A0, A3));
        finish(&mut p, A0);
        assert_eq!(machine.run(engine, p).1, 101 + 201, "{engine:?}");
    }
}
