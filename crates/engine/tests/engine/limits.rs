//! Guests that make trouble: the host stays bounded, and says what is wrong.

use crate::{asm::*, machine::*};
use isomer_core::Gpa;
use isomer_engine::{EngineKind, Exit, FirmwareCx, FirmwareResult};
use isomer_riscv64::Riscv64;
use std::time::{Duration, Instant};

#[test]
fn a_guest_that_faults_for_ever_is_reported() {
    for engine in ENGINES {
        for target in [HOLE, 0, u64::MAX - 1, RAM + RAM_BYTES] {
            let machine = Machine::new(1);
            let mut p = Asm::new(CODE);
            p.li(A0, target).op(csrrw(ZERO, csr::MTVEC, A0)).op(jalr(ZERO, A0, 0));
            machine.write(CODE, &p.finish());
            let mut hart = machine.hart(0, engine, CODE);
            let start = Instant::now();
            let Exit::Wedged { pc, registers, trap } = hart.run(None) else { panic!("it goes on") };
            assert_eq!(pc, target & !3, "{engine:?}");
            assert!(registers.contains("a0") && trap.contains("exception 1"), "{registers} {trap}");
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            // Asking again gives the same answer at once.
            assert!(matches!(hart.run(None), Exit::Wedged { .. }));
        }
    }
}

/// A call that firmware declines is taken like any exception; a handler that begins with one gets nowhere.
#[test]
fn a_handler_that_calls_declining_firmware_for_ever_is_reported() {
    let machine = Machine::new(1);
    machine.write(CODE, &ECALL.to_le_bytes());
    let firmware = Calls(|_: FirmwareCx<'_, Riscv64>| FirmwareResult::Decline);
    let mut hart = machine.hart_off(0, EngineKind::Interpreter, Some(Box::new(firmware)));
    enter_supervisor(hart.cpu_mut());
    hart.cpu_mut().medeleg |= 1 << 9;
    hart.cpu_mut().stvec = CODE;
    hart.power_on();
    assert!(matches!(hart.run(Some(1_000_000)), Exit::Wedged { pc: CODE, .. }));
}

/// Accesses to nothing, each of which traps and is skipped: bounded, counted, and nothing else.
#[test]
fn a_storm_of_unclaimed_accesses_stays_bounded() {
    const ROUNDS: u64 = 20_000;
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut p = Asm::new(CODE);
        p.li(A0, HOLE).li(A3, ROUNDS).li(A2, 0).op(csrrw(ZERO, csr::MTVEC, A6));
        let round = p.mark();
        p.ops(&[ld(T0, 0, A0), sw(T0, 4, A0), lb(T0, 0x7ff, A0), addi(A0, A0, 16), addi(A3, A3, -1)]);
        p.branch(bne, A3, ZERO, round);
        finish(&mut p, A2);
        p.pad_to((p.here() + 3) & !3);
        let handler = p.here();
        p.ops(&[addi(A2, A2, 1), csrr(T1, csr::MEPC), addi(T1, T1, 4), csrrw(ZERO, csr::MEPC, T1), MRET]);
        machine.write(CODE, &p.finish());
        let mut hart = machine.hart(0, engine, CODE);
        hart.cpu_mut().x[A6 as usize] = handler;
        let start = Instant::now();
        let (hart, result) = machine.run_hart(hart);
        assert_eq!((result, machine.bus.unclaimed()), (3 * ROUNDS, 3 * ROUNDS), "{engine:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert!(hart.stats().code_bytes < 1 << 16, "{:?}", hart.stats());
        // Engines by turns translate anew with every turn.
        assert!(hart.stats().blocks < 100 || engine == EngineKind::Mixed, "{:?}", hart.stats());
    }
}

/// With hardly any room for translated code everything is translated again and again, and still right.
#[test]
fn no_room_for_code_is_slow_but_right() {
    for engine in ENGINES {
        for code_limit_bytes in [0, 1, 2000, 20_000] {
            let machine = Machine { code_limit_bytes, ..Machine::new(1) };
            let mut p = Asm::new(CODE);
            p.li(A0, 0).li(A3, 100);
            let round = p.mark();
            // Blocks all over the place.
            for n in 0..20 {
                let at = DATA + 0x1234 * n;
                p.li(A1, at).op(jalr(RA, A1, 0));
                let mut block = Asm::new(at);
                block.op(addi(A0, A0, n as i32)).op(ret());
                machine.write(at, &block.finish());
            }
            p.op(addi(A3, A3, -1)).branch(bne, A3, ZERO, round);
            finish(&mut p, A0);
            let (hart, result) = machine.run(engine, p);
            assert_eq!(result, 100 * 190, "{engine:?} {code_limit_bytes}");
            // A block more than the limit at most.
            assert!(hart.stats().code_bytes < code_limit_bytes as u64 + 20_000, "{:?}", hart.stats());
        }
    }
}

/// Code in every page there is: held translations stay below the limit.
#[test]
fn code_everywhere_stays_below_the_limit() {
    let machine = Machine { code_limit_bytes: 200_000, ..Machine::new(1) };
    let mut p = Asm::new(CODE);
    p.li(A1, DATA).li(A2, RAM + RAM_BYTES).li(A3, 0x1000).li(T0, u64::from(ret()));
    let round = p.mark();
    p.ops(&[sw(T0, 0, A1), FENCE_I, jalr(RA, A1, 0), add(A1, A1, A3)]).branch(bne, A1, A2, round);
    finish(&mut p, A1);
    let (hart, _) = machine.run(EngineKind::Interpreter, p);
    assert!(hart.stats().blocks > 3800 && hart.stats().code_bytes < 220_000, "{:?}", hart.stats());
}

/// Blocks of the most instructions, of the kinds that become most: whatever a compiler cannot take whole, it must take in
/// parts.
#[test]
fn the_heaviest_blocks_run_the_same_on_both_engines() {
    /// `cbo.zero (a2)`
    const CBO_ZERO: u32 = 4 << 20 | A2 << 15 | 2 << 12 | 0xf;
    /// `amocas.q a0, a2, (a4)` with zeros
    const AMOCAS_Q: u32 = 0x05 << 27 | 3 << 25 | A2 << 20 | A4 << 15 | 4 << 12 | A0 << 7 | 0x2f;
    /// `fmadd.d fa0, fa1, fa2, fa3, rne`
    const FMADD_D: u32 = 13 << 27 | 1 << 25 | 12 << 20 | 11 << 15 | 10 << 7 | 0x43;
    // Every register from its neighbour, round and round: as many values live as there are.
    let rotation: Vec<u32> = (0..60).map(|n| add(5 + n % 26, 5 + (n + 1) % 26, 5 + (n + 13) % 26)).collect();
    for body in [vec![CBO_ZERO; 60], vec![AMOCAS_Q; 60], vec![FMADD_D; 60], rotation] {
        let states = ENGINES.map(|engine| {
            let machine = Machine::new(1);
            machine.write(DATA, &[7; 256]);
            let mut p = Asm::new(CODE);
            p.li(A2, DATA + 0x40).li(A4, DATA + 0x100).li(T1, 3 << 13).op(csrs(0x300, T1)).ops(&body);
            finish(&mut p, A2);
            machine.write(CODE, &p.finish());
            let mut hart = machine.hart(0, engine, CODE);
            hart.cpu_mut().menvcfg = 1 << 7;
            hart.cpu_mut().f[11..14].copy_from_slice(&[0x3ff0_0000_0000_0001; 3]);
            hart.cpu_mut().update_mode();
            let (hart, _) = machine.run_hart(hart);
            let mut bytes = [0; 512];
            machine.memory.read(Gpa(DATA), &mut bytes).unwrap();
            (hart.cpu().x, hart.cpu().f, bytes, hart.cpu().mcause)
        });
        assert_eq!(states[0], states[1]);
        assert_eq!(states[0].3, 0, "nothing trapped");
    }
}
