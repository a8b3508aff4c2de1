//! Several harts on threads of their own: shared memory, shared code, shared page tables.

use crate::{asm::*, machine::*};
use isomer_core::Gva;
use isomer_engine::{EngineKind, Exit, Request};
use isomer_ir::guest::TlbFlush;
use std::time::Instant;

const INTERPRETER: EngineKind = EngineKind::Interpreter;

/// Words that harts wait for each other with, each on a page of its own, away from code.
const FLAG: u64 = DATA;
const ACK: u64 = DATA + 0x1000;
const OUT: u64 = DATA + 0x2000;
/// Code that changes.
const FUNCTION: u64 = DATA + 0x8000;

/// Runs one program a hart, each to its end; what they finished with.
fn run(machine: &Machine, programs: Vec<Asm>) -> Vec<u64> {
    let count = programs.len();
    let harts: Vec<_> = programs
        .into_iter()
        .enumerate()
        .map(|(index, program)| {
            let at = CODE + 0x8000 * index as u64;
            machine.write(at, &program.finish());
            machine.hart(index, INTERPRETER, at)
        })
        .collect();
    let threads = harts.into_iter().map(|hart| machine.spawn(hart)).collect();
    assert!(machine.join(threads).iter().all(|(_, exit)| *exit == Exit::Stopped));
    let results = machine.results.lock().unwrap();
    (0..count).map(|hart| results[hart].expect("every program ends with a result")).collect()
}

fn program(hart: u64) -> Asm {
    Asm::new(CODE + 0x8000 * hart)
}

/// Hart 0 changes the immediate of `li a0, n; ret` at `function` by a store of `bytes` (2: the upper half, where the
/// immediate is, 4: all) and tells with a flag; the others, which call it all the while, must see the new one after a
/// fence. Gives how many rounds each of them got right.
fn rewriting(readers: u64, function: u64, bytes: u32, rounds: u64) -> Vec<u64> {
    let machine = Machine::new(1 + readers as usize);
    machine.write(function, &addi(A0, ZERO, 0).to_le_bytes());
    machine.write(function + 4, &ret().to_le_bytes());
    let mut writer = program(0);
    writer.li(A1, FLAG).li(A2, function).li(A3, rounds).li(A4, 0).li(S0, 1 << 30);
    writer.li(A6, u64::from(addi(A0, ZERO, 0))).li(A5, ACK);
    // What the function is to give is a4 modulo 1024. It is stored twice, first wrong: whoever translates that, and asks
    // this hart to notice stores from now on, asks too late for the second, which comes in the same block. A store
    // in between has put the page into the TLB as writable.
    let store: fn(Reg, i32, Reg) -> u32 = if bytes == 2 { sh } else { sw };
    let (shift, offset) = if bytes == 2 { (16, 2) } else { (0, 0) };
    writer.li(S1, FINISH);
    let round = writer.mark();
    writer.ops(&[addi(A4, A4, 1), andi(T0, A4, 1023), slli(T0, T0, 20), add(T0, T0, A6)]);
    writer.ops(&[xor(T1, T0, S0), srli(T0, T0, shift), srli(T1, T1, shift)]);
    writer.ops(&[store(T1, offset, A2), sd(T0, 0x102, A2), ld(T2, 0, S1), store(T0, offset, A2)]);
    writer.ops(&[FENCE_W_W, sd(A4, 0, A1)]);
    for reader in 0..readers {
        let wait = writer.mark();
        writer.op(ld(T1, 8 * reader as i32, A5)).branch(bne, T1, A4, wait);
    }
    writer.branch(bne, A4, A3, round);
    finish_hart(&mut writer, 0, A4);
    let mut programs = vec![writer];
    for reader in 0..readers {
        let mut p = program(1 + reader);
        p.li(A1, FLAG).li(A2, function).li(A3, rounds).li(A5, ACK + 8 * reader).li(S0, 0).li(S1, 0);
        let wait = p.mark();
        p.ops(&[jalr(RA, A2, 0), ld(A4, 0, A1)]).branch(beq, A4, S0, wait);
        p.ops(&[mv(S0, A4), FENCE_R_R, FENCE_I, jalr(RA, A2, 0), andi(T0, S0, 1023)]);
        let wrong = p.label();
        p.branch(bne, A0, T0, wrong).op(addi(S1, S1, 1)).bind(wrong);
        p.op(sd(S0, 0, A5)).branch(bne, S0, A3, wait);
        finish_hart(&mut p, 1 + reader, S1);
        programs.push(p);
    }
    run(&machine, programs)
}

#[test]
fn code_changed_by_another_hart_is_seen_after_the_fence() {
    for function in [FUNCTION, FUNCTION + 0xffc, CODE + 0x7000] {
        assert_eq!(rewriting(1, function, 4, 1000), [1000, 1000], "{function:#x}");
    }
    assert_eq!(rewriting(1, FUNCTION, 2, 1000), [1000, 1000]);
}

#[test]
fn the_far_half_of_a_crossing_instruction_is_seen_after_the_fence() {
    assert_eq!(rewriting(1, FUNCTION + 0xffe, 2, 1000), [1000, 1000]);
}

#[test]
fn code_changed_by_another_hart_is_seen_by_three() {
    assert_eq!(rewriting(3, FUNCTION, 4, 300), [300; 4]);
    assert_eq!(rewriting(3, FUNCTION + 0xffe, 2, 300), [300; 4]);
}

/// Two writers of one page at once: the second must not rely on what the first is just about to tell.
#[test]
fn two_writers_and_two_readers_of_one_page() {
    const ROUNDS: u64 = 400;
    let machine = Machine::new(4);
    let mut programs = Vec::new();
    for pair in 0..2 {
        let (flag, ack, function) = (FLAG + 64 * pair, ACK + 64 * pair, FUNCTION + 0x100 * pair);
        machine.write(function, &addi(A0, ZERO, 0).to_le_bytes());
        machine.write(function + 4, &ret().to_le_bytes());
        let mut p = program(2 * pair);
        p.li(A1, flag).li(A2, function).li(A3, ROUNDS).li(A4, 0).li(A5, ack);
        p.li(A6, u64::from(addi(A0, ZERO, 0)));
        let round = p.mark();
        p.ops(&[addi(A4, A4, 1), slli(T0, A4, 20), add(T0, T0, A6), sw(T0, 0, A2)]);
        p.ops(&[FENCE_W_W, sd(A4, 0, A1)]);
        let wait = p.mark();
        p.op(ld(T1, 0, A5)).branch(bne, T1, A4, wait).branch(bne, A4, A3, round);
        finish_hart(&mut p, 2 * pair, A4);
        programs.push(p);
        let mut p = program(2 * pair + 1);
        p.li(A1, flag).li(A2, function).li(A3, ROUNDS).li(A5, ack).li(S0, 0).li(S1, 0);
        let wait = p.mark();
        p.ops(&[jalr(RA, A2, 0), ld(A4, 0, A1)]).branch(beq, A4, S0, wait);
        p.ops(&[mv(S0, A4), FENCE_R_R, FENCE_I, jalr(RA, A2, 0)]);
        let wrong = p.label();
        p.branch(bne, A0, S0, wrong).op(addi(S1, S1, 1)).bind(wrong);
        p.op(sd(S0, 0, A5)).branch(bne, S0, A3, wait);
        finish_hart(&mut p, 2 * pair + 1, S1);
        programs.push(p);
    }
    assert_eq!(run(&machine, programs), [ROUNDS; 4]);
}

/// Four harts count with each kind of atomic, in `page`; the sums must be exact.
fn counting(page: u64, rounds: u64) {
    const HARTS: u64 = 4;
    let machine = Machine::new(HARTS as usize);
    let programs = (0..HARTS).map(|hart| {
        let mut p = program(hart);
        p.li(A1, page).li(A2, page + 64).li(A3, page + 128).li(A4, page + 192).li(A5, rounds).li(S0, 1);
        // And one of its own with plain accesses.
        p.li(A6, page + 256 + 8 * hart);
        let round = p.mark();
        p.ops(&[amoadd_d(ZERO, S0, A1), amoadd_w(ZERO, S0, A2)]);
        let again = p.mark();
        p.ops(&[lr_d(T0, A3), addi(T0, T0, 1), sc_d(T1, T0, A3)]).branch(bne, T1, ZERO, again);
        let again = p.mark();
        p.ops(&[lr_w(T0, A4), addi(T0, T0, 1), sc_w(T1, T0, A4)]).branch(bne, T1, ZERO, again);
        p.ops(&[ld(T0, 0, A6), addi(T0, T0, 1), sd(T0, 0, A6)]);
        p.op(addi(A5, A5, -1)).branch(bne, A5, ZERO, round);
        finish_hart(&mut p, hart, S0);
        p
    });
    run(&machine, programs.collect());
    let sums = [0, 64, 128, 192].map(|at| machine.read_u64(page + at));
    assert_eq!(sums, [HARTS * rounds; 4]);
    for hart in 0..HARTS {
        assert_eq!(machine.read_u64(page + 256 + 8 * hart), rounds, "hart {hart}'s own");
    }
}

#[test]
fn counters_are_exact() {
    counting(DATA, 5000);
}

/// The same in the page that hart 0 runs in: every count throws code away, on every hart that notices stores there.
#[test]
fn counters_in_a_page_of_code_are_exact() {
    counting(CODE + 0x800, 200);
}

#[test]
fn messages_arrive_in_order() {
    const ROUNDS: u64 = 20_000;
    let machine = Machine::new(2);
    let mut sender = program(0);
    sender.li(A1, FLAG).li(A2, OUT).li(A3, ROUNDS).li(A4, 0);
    let round = sender.mark();
    sender.ops(&[addi(A4, A4, 1), sd(A4, 0, A2), FENCE_W_W, sd(A4, 0, A1)]).branch(bne, A4, A3, round);
    finish_hart(&mut sender, 0, A4);
    // The receiver may miss messages, but never sees a flag before its message.
    let mut receiver = program(1);
    receiver.li(A1, FLAG).li(A2, OUT).li(A3, ROUNDS).li(S0, 0);
    let (round, early) = (receiver.mark(), receiver.label());
    receiver.ops(&[ld(T0, 0, A1), FENCE_R_R, ld(T1, 0, A2)]).branch(bltu, T1, T0, early);
    receiver.branch(bne, T0, A3, round);
    finish_hart(&mut receiver, 1, S0);
    receiver.bind(early).op(addi(S0, ZERO, 1));
    finish_hart(&mut receiver, 1, S0);
    assert_eq!(run(&machine, vec![sender, receiver]), [ROUNDS, 0]);
}

/// Peterson's lock: plain loads and stores and full fences, which must keep a load from passing an earlier store.
#[test]
fn a_lock_made_of_fences_excludes() {
    const ROUNDS: u64 = 3000;
    let machine = Machine::new(2);
    let programs = (0..2u64).map(|hart| {
        let mut p = program(hart);
        p.li(A1, FLAG + 64 * hart).li(A2, FLAG + 64 * (1 - hart)).li(A3, ACK).li(A4, OUT).li(A5, ROUNDS);
        p.li(S0, 1).li(S1, 1 - hart);
        let round = p.mark();
        p.ops(&[sd(S0, 0, A1), sd(S1, 0, A3), FENCE]);
        let (wait, enter) = (p.mark(), p.label());
        p.op(ld(T0, 0, A2)).branch(beq, T0, ZERO, enter).op(ld(T1, 0, A3)).branch(beq, T1, S1, wait);
        p.bind(enter).ops(&[FENCE, ld(T0, 0, A4), addi(T0, T0, 1), sd(T0, 0, A4), FENCE, sd(ZERO, 0, A1)]);
        p.op(addi(A5, A5, -1)).branch(bne, A5, ZERO, round);
        finish_hart(&mut p, hart, S0);
        p
    });
    run(&machine, programs.collect());
    assert_eq!(machine.read_u64(OUT), 2 * ROUNDS);
}

/// A lock of atomic swaps with acquire and release around plain accesses.
#[test]
fn a_lock_made_of_swaps_excludes() {
    const ROUNDS: u64 = 1500;
    let machine = Machine::new(4);
    let programs = (0..4).map(|hart| {
        let mut p = program(hart);
        p.li(A1, FLAG).li(A4, OUT).li(A5, ROUNDS).li(S0, 1);
        let round = p.mark();
        p.op(amoswap_w(T0, S0, A1)).branch(bne, T0, ZERO, round);
        p.ops(&[ld(T0, 0, A4), addi(T0, T0, 1), sd(T0, 0, A4), amoswap_w(ZERO, ZERO, A1)]);
        p.op(addi(A5, A5, -1)).branch(bne, A5, ZERO, round);
        finish_hart(&mut p, hart, S0);
        p
    });
    run(&machine, programs.collect());
    assert_eq!(machine.read_u64(OUT), 4 * ROUNDS);
}

/// A page moves under a running hart. Once its flush is done, the hart must neither read nor write the old place.
#[test]
fn a_remote_flush_is_done_when_it_says_so() {
    const V: u64 = 0x10_0000_0000;
    const POISON: u64 = 0xdead;
    const ROUNDS: u64 = 500;
    let machine = Machine::new(1);
    let mut tables = Tables::new(&machine, DATA + 0x10_0000);
    tables.map_machine();
    let pages = [DATA + 0x4000, DATA + 0x5000];
    let entry = tables.map(V, pages[0], 0, RWX);
    let mut p = program(0);
    p.li(T0, tables.satp(1)).op(csrrw(ZERO, csr::SATP, T0)).op(sfence_vma(ZERO, ZERO));
    p.li(A0, V).li(A1, POISON).li(A2, OUT).li(A3, FLAG).li(S0, 0);
    let (round, poisoned) = (p.mark(), p.label());
    p.ops(&[ld(T0, 0, A0)]).branch(beq, T0, A1, poisoned);
    p.ops(&[addi(S0, S0, 1), sd(S0, 8, A0), sd(S0, 0, A2), ld(T1, 0, A3)]).branch(beq, T1, ZERO, round);
    p.op(addi(S0, ZERO, 0));
    finish(&mut p, S0);
    p.bind(poisoned).op(addi(S0, ZERO, 1));
    finish(&mut p, S0);
    machine.write(CODE, &p.finish());
    let mut hart = machine.hart(0, INTERPRETER, CODE);
    enter_supervisor(hart.cpu_mut());
    let thread = machine.spawn(hart);
    let peer = &machine.group.peers()[0];
    let start = Instant::now();
    for round in 0..ROUNDS {
        let (old, new) = (pages[(round & 1) as usize], pages[((round + 1) & 1) as usize]);
        // Let it fill its TLB.
        let seen = machine.read_u64(OUT);
        while machine.read_u64(OUT) == seen && !thread.is_finished() {
            assert!(start.elapsed() < PATIENCE);
        }
        machine.write_u64(new, 0);
        machine.write_u64(entry, leaf(new, RWX));
        let what = match round % 3 {
            0 => TlbFlush::default(),
            1 => TlbFlush { gva: Some(Gva(V)), ..TlbFlush::default() },
            _ => TlbFlush {
                address_space: Some(isomer_riscv64::address_space(tables.satp(1))),
                ..TlbFlush::default()
            },
        };
        let ticket = peer.post(Request::FlushTlb(what));
        while !peer.is_done(ticket) {
            assert!(start.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        let written = machine.read_u64(old + 8);
        machine.write_u64(old, POISON);
        if round % 16 == 0 {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        assert_eq!(machine.read_u64(old + 8), written, "it still writes to the old page in round {round}");
    }
    machine.write_u64(FLAG, 1);
    machine.join(vec![thread]);
    assert_eq!(machine.results.lock().unwrap()[0], Some(0), "it still reads from the old page");
}

/// Harts that flush each other's translations all the time do not wait for each other for ever.
#[test]
fn harts_that_wait_for_each_other_go_on() {
    const ROUNDS: u64 = 2000;
    let machine = Machine::new(4);
    let harts: Vec<_> = (0..4usize)
        .map(|index| {
            let at = CODE + 0x8000 * index as u64;
            let mut p = Asm::new(at);
            p.li(A5, ROUNDS);
            let round = p.mark();
            p.op(ECALL).op(addi(A5, A5, -1)).branch(bne, A5, ZERO, round);
            finish_hart(&mut p, index as u64, A5);
            machine.write(at, &p.finish());
            let firmware = Calls(|cx: isomer_engine::FirmwareCx<'_, isomer_riscv64::Riscv64>| {
                cx.cpu.header.pc += 4;
                let others = cx.group.peers().iter().enumerate().filter(|(i, _)| *i != cx.index);
                let tickets = others.map(|(i, peer)| (i, peer.post(Request::FlushTlb(TlbFlush::default()))));
                isomer_engine::FirmwareResult::ContinueAfter(tickets.collect())
            });
            let mut hart = machine.hart_off(index, INTERPRETER, Some(Box::new(firmware)));
            hart.cpu_mut().header.pc = at;
            enter_supervisor(hart.cpu_mut());
            hart.power_on();
            hart
        })
        .collect();
    let threads = harts.into_iter().map(|hart| machine.spawn(hart)).collect();
    machine.join(threads);
    assert_eq!(*machine.results.lock().unwrap(), vec![Some(0); 4]);
}
