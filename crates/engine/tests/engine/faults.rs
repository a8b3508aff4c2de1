//! Precise faults and accesses at awkward addresses.

use crate::{asm::*, machine::*};
use isomer_engine::{EngineKind, SoftVcpu};
use isomer_riscv64::{Riscv64, cause};

/// The last page of RAM: nothing follows it.
const LAST: u64 = RAM + RAM_BYTES - 0x1000;

/// What a handler saw: cause, value, pc, and how many instructions were retired since the `instret` read into s0.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    cause: u64,
    tval: u64,
    epc: u64,
    retired: u64,
}

/// A program whose traps end it, with what a [`Seen`] needs in a4 to a7.
fn program_with_handler() -> Asm {
    let mut p = Asm::new(CODE);
    let (handler, start) = (p.label(), p.label());
    p.jump(start);
    p.bind(handler).ops(&[
        csrr(A7, csr::INSTRET),
        csrr(A4, csr::MCAUSE),
        csrr(A5, csr::MTVAL),
        csrr(A6, csr::MEPC),
    ]);
    finish(&mut p, A4);
    p.bind(start).li(T0, CODE + 4).op(csrrw(ZERO, csr::MTVEC, T0));
    p
}

fn seen(hart: &SoftVcpu<Riscv64>) -> Seen {
    let x = &hart.cpu().x;
    let [cause, tval, epc] = [A4, A5, A6].map(|reg| x[reg as usize]);
    // Reading does not count itself.
    Seen { cause, tval, epc, retired: x[A7 as usize] - x[S0 as usize] - 1 }
}

fn x(hart: &SoftVcpu<Riscv64>, reg: Reg) -> u64 {
    hart.cpu().x[reg as usize]
}

/// Runs instructions in the middle of a block, the third of which faults on a0; checks that exactly what comes before it
/// has happened.
fn fault_in_the_middle(engine: EngineKind, insn: u32, cause: u64, a0: u64) {
    let machine = Machine::new(1);
    machine.write_u64(DATA, 5);
    let mut p = program_with_handler();
    p.li(A0, a0).li(A1, DATA).li(A2, 7).li(A3, 9).op(csrr(S0, csr::INSTRET));
    p.ops(&[addi(A2, A2, 1), sd(A2, 0, A1)]);
    let at = p.here();
    p.ops(&[insn, addi(A2, A2, 1), sd(A2, 8, A1), addi(A3, A3, 1)]);
    finish(&mut p, ZERO + A2);
    let (hart, result) = machine.run(engine, p);
    let name = format!("{engine:?} {insn:#x}");
    assert_eq!(result, cause, "{name}");
    assert_eq!(seen(&hart), Seen { cause, tval: a0, epc: at, retired: 2 }, "{name}");
    assert_eq!((x(&hart, A2), x(&hart, A3), x(&hart, A0)), (8, 9, a0), "{name}");
    assert_eq!((machine.read_u64(DATA), machine.read_u64(DATA + 8)), (8, 0), "{name}");
}

#[test]
fn faults_leave_the_earlier_instructions_effects_and_no_others() {
    for engine in ENGINES {
        for (insn, cause) in [
            (ld(A3, 0, A0), cause::LOAD_ACCESS),
            (lb(A2, 0, A0), cause::LOAD_ACCESS),
            (lr_d(A3, A0), cause::LOAD_ACCESS),
            (sd(A3, 0, A0), cause::STORE_ACCESS),
            (sb(A3, 0, A0), cause::STORE_ACCESS),
            (amoadd_d(A3, A2, A0), cause::STORE_ACCESS),
            (amoswap_w(A2, A2, A0), cause::STORE_ACCESS),
            (sc_d(A3, A2, A0), cause::STORE_ACCESS),
        ] {
            fault_in_the_middle(engine, insn, cause, HOLE);
            fault_in_the_middle(engine, insn, cause, u64::MAX - 7);
            fault_in_the_middle(engine, insn, cause, LAST + 0x1000);
        }
        for (insn, cause) in [
            (lr_d(A3, A0), cause::LOAD_MISALIGNED),
            (sc_w(A3, A2, A0), cause::STORE_MISALIGNED),
            (amoadd_d(A3, A2, A0), cause::STORE_MISALIGNED),
            (amomax_w(A3, A2, A0), cause::STORE_MISALIGNED),
        ] {
            fault_in_the_middle(engine, insn, cause, DATA + 0x102);
            fault_in_the_middle(engine, insn, cause, DATA + 0xffe);
        }
    }
}

/// A loop faults in a later round of a block that has run, linked to itself, many times before.
#[test]
fn a_fault_in_a_linked_loop_counts_exactly() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut p = program_with_handler();
        p.li(A0, LAST).li(A2, 0).op(csrr(S0, csr::INSTRET));
        let round = p.mark();
        let at = p.here() + 4;
        p.ops(&[addi(A2, A2, 1), ld(A3, 0, A0), addi(A0, A0, 8)]).branch(beq, ZERO, ZERO, round);
        let (hart, _) = machine.run(engine, p);
        let expected = Seen { cause: cause::LOAD_ACCESS, tval: LAST + 0x1000, epc: at, retired: 512 * 4 + 1 };
        assert_eq!((seen(&hart), x(&hart, A2)), (expected, 513), "{engine:?}");
    }
}

#[test]
fn misaligned_accesses_work_everywhere() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let pattern: Vec<u8> = (0..64).map(|i| (i * 7 + 3) as u8).collect();
        let mut p = program_with_handler();
        let mut at = Vec::new();
        // Inside a page, across two, and up to the last byte of RAM.
        for (n, base) in [DATA + 0x100, DATA + 0xff8, LAST + 0xff8].into_iter().enumerate() {
            machine.write(base, &pattern[..if n == 2 { 8 } else { 16 }]);
            for offset in 0..if n == 2 { 1 } else { 8 } {
                let slot = DATA + 0x10_0000 + 0x40 * at.len() as u64;
                p.li(A0, base + offset).li(A1, slot);
                p.ops(&[ld(T0, 0, A0), sd(T0, 0, A1), lw(T0, 0, A0), sd(T0, 8, A1), lhu(T0, 0, A0)]);
                p.ops(&[sd(T0, 16, A1), lh(T0, 0, A0), sd(T0, 24, A1)]);
                // A misaligned store, seen again by an aligned load of bytes.
                let stored = base + 0x20_0000 + 0x2001 * offset;
                p.li(T1, 0x8877_6655_4433_2211).li(A0, stored);
                if n < 2 {
                    p.ops(&[sd(T1, 0, A0), sw(T1, 8, A0), sh(T1, 12, A0)]);
                }
                at.push((slot, n, offset as usize, stored));
            }
        }
        finish(&mut p, ZERO + A1);
        machine.run(engine, p);
        for (slot, n, offset, stored) in at {
            let bytes = &pattern[offset..offset + 8];
            let word = |len: usize| {
                let mut word = [0; 8];
                word[..len].copy_from_slice(&bytes[..len]);
                u64::from_le_bytes(word)
            };
            let expected = [word(8), word(4) as i32 as u64, word(2), word(2) as i16 as u64];
            let found = [0, 8, 16, 24].map(|i| machine.read_u64(slot + i));
            assert_eq!(found, expected, "{engine:?} {n} {offset}");
            if n < 2 {
                assert_eq!(machine.read_u64(stored), 0x8877_6655_4433_2211, "{engine:?} {n} {offset}");
                assert_eq!(
                    machine.read_u64(stored + 8) << 16 >> 16,
                    0x2211_4433_2211,
                    "{engine:?} {n} {offset}"
                );
            }
        }
    }
}

/// Stores across the end of a page, whose second half faults for one reason or another.
#[test]
fn a_store_that_faults_on_its_second_page_changes_nothing() {
    const V: u64 = 0x10_0000_0000;
    let refused = [
        ("nothing there", None, cause::STORE_PAGE),
        ("read-only", Some((DATA + 0x1000, READ_ONLY)), cause::STORE_PAGE),
        ("no RAM", Some((HOLE, RWX)), cause::STORE_ACCESS),
    ];
    for engine in ENGINES {
        for (why, second, cause) in refused {
            for (insn, size) in [(sd(A2, 0, A0), 8), (sw(A2, 0, A0), 4), (sh(A2, 0, A0), 2)] {
                let machine = Machine::new(1);
                let mut tables = Tables::new(&machine, DATA + 0x10_0000);
                tables.map_machine();
                tables.map(V, DATA, 0, RWX);
                if let Some((gpa, bits)) = second {
                    tables.map(V + 0x1000, gpa, 0, bits);
                }
                machine.write(DATA + 0xff0, &[0x55; 32]);
                let mut p = program_with_handler();
                p.li(T0, tables.satp(1)).op(csrrw(ZERO, csr::SATP, T0));
                // Data accesses as S-mode, until the trap makes them M-mode's again.
                p.li(T0, 1 << 17 | 1 << 11).op(csrs(0x300, T0));
                p.li(A0, V + 0x1000 - size / 2).li(A2, u64::MAX).op(csrr(S0, csr::INSTRET));
                p.op(addi(T1, ZERO, 1));
                let at = p.here();
                p.op(insn);
                machine.write(CODE, &p.finish());
                let mut hart = machine.hart(0, engine, CODE);
                enter_pmp_open(&mut hart);
                let (hart, _) = machine.run_hart(hart);
                let name = format!("{engine:?} {why} {size}");
                assert_eq!(hart.cpu().mcause, cause, "{name}");
                assert_eq!((hart.cpu().mtval, hart.cpu().mepc), (V + 0x1000, at), "{name}");
                assert_eq!(machine.read_u64(DATA + 0xff8), 0x5555_5555_5555_5555, "{name}");
            }
        }
    }
}

/// The same without translation: RAM ends, and a protected range begins in the middle of the first half.
#[test]
fn a_store_that_is_refused_in_part_changes_nothing() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        machine.write(LAST + 0xff0, &[0x55; 16]);
        let mut p = program_with_handler();
        p.li(A0, LAST + 0xffd).li(A2, u64::MAX).op(csrr(S0, csr::INSTRET)).op(sd(A2, 0, A0));
        let (hart, _) = machine.run(engine, p);
        assert_eq!((seen(&hart).cause, seen(&hart).tval), (cause::STORE_ACCESS, LAST + 0x1000), "{engine:?}");
        assert_eq!(machine.read_u64(LAST + 0xff8), 0x5555_5555_5555_5555, "{engine:?}");

        let machine = Machine::new(1);
        machine.write(DATA + 0xff0, &[0x55; 32]);
        let mut p = program_with_handler();
        p.li(A0, DATA + 0xffa).li(A2, u64::MAX).op(csrr(S0, csr::INSTRET)).op(sd(A2, 0, A0));
        machine.write(CODE, &p.finish());
        let mut hart = machine.hart(0, engine, CODE);
        // Locked, naturally aligned 4 bytes, read-only.
        (hart.cpu_mut().pmpcfg[0], hart.cpu_mut().pmpaddr[0]) = (1 << 7 | 2 << 3 | 1, (DATA + 0xffc) >> 2);
        let (hart, _) = machine.run_hart(hart);
        assert_eq!(seen(&hart).cause, cause::STORE_ACCESS, "{engine:?}");
        assert_eq!(machine.read_u64(DATA + 0xff8), 0x5555_5555_5555_5555, "{engine:?}");
        assert_eq!(machine.read_u64(DATA + 0x1000), 0x5555_5555_5555_5555, "{engine:?}");
    }
}

/// Addresses wrap round as the manual says; what is mapped at both ends can be accessed across them.
#[test]
fn accesses_wrap_round_the_address_space() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut tables = Tables::new(&machine, DATA + 0x10_0000);
        tables.map_machine();
        tables.map(0, DATA, 0, RWX);
        tables.map(0xffff_ffff_ffff_f000, DATA + 0x1000, 0, RWX);
        let mut p = Asm::new(CODE);
        p.li(T0, tables.satp(1)).op(csrrw(ZERO, csr::SATP, T0)).op(sfence_vma(ZERO, ZERO));
        p.op(ld(A0, -4, ZERO)).op(addi(A1, A0, 1)).op(sd(A1, -4, ZERO)).op(ld(A2, -4, ZERO));
        p.op(sub(A2, A2, A1));
        // An instruction that crosses the end, too: 4 bytes at -2, and then a jump back through t1.
        p.op(addi(T0, ZERO, -2)).op(jalr(ZERO, T0, 0));
        let resume = p.here();
        finish(&mut p, A0);
        machine.write(CODE, &p.finish());
        let insn = addi(A3, ZERO, 99).to_le_bytes();
        let first = [1, 2, insn[0], insn[1]];
        machine.write(DATA + 0x1ffc, &first);
        let jump = jalr(ZERO, T1, 0).to_le_bytes();
        let second = [insn[2], insn[3], jump[0], jump[1]];
        machine.write(DATA, &second);
        machine.write(DATA + 4, &jump[2..]);
        let mut hart = machine.hart(0, engine, CODE);
        enter_supervisor(hart.cpu_mut());
        hart.cpu_mut().x[T1 as usize] = resume;
        let whole = u64::from(u32::from_le_bytes(first)) | u64::from(u32::from_le_bytes(second)) << 32;
        let (hart, result) = machine.run_hart(hart);
        assert_eq!(result, whole, "{engine:?}");
        assert_eq!((x(&hart, A2), x(&hart, A3)), (0, 99), "{engine:?}");
    }
}

#[test]
fn fetches_from_nowhere_fault_at_their_address() {
    for engine in ENGINES {
        for target in [HOLE, HOLE + 0xffe, u64::MAX - 1, 1 << 56, LAST + 0x1000, 0] {
            let machine = Machine::new(1);
            let mut p = program_with_handler();
            p.li(A0, target).op(csrr(S0, csr::INSTRET)).op(jalr(ZERO, A0, 0));
            let (hart, _) = machine.run(engine, p);
            let expected = Seen { cause: cause::FETCH_ACCESS, tval: target, epc: target, retired: 1 };
            assert_eq!(seen(&hart), expected, "{engine:?}");
        }
        // The last 2 bytes of RAM begin a 4-byte instruction.
        let machine = Machine::new(1);
        machine.write(LAST + 0xffe, &NOP.to_le_bytes()[..2]);
        let mut p = program_with_handler();
        p.li(A0, LAST + 0xffe).op(csrr(S0, csr::INSTRET)).op(jalr(ZERO, A0, 0));
        let (hart, _) = machine.run(engine, p);
        let expected =
            Seen { cause: cause::FETCH_ACCESS, tval: LAST + 0x1000, epc: LAST + 0xffe, retired: 1 };
        assert_eq!(seen(&hart), expected, "{engine:?}");
    }
}

/// Opens all of memory to S-mode accesses of a hart in M-mode.
fn enter_pmp_open(hart: &mut SoftVcpu<Riscv64>) {
    let cpu = hart.cpu_mut();
    (cpu.pmpcfg[0], cpu.pmpaddr[0]) = (3 << 3 | 7, (1 << 54) - 1);
}
