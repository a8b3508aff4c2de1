//! Address spaces, flushes, and translated code under changing page tables.

use crate::{asm::*, machine::*};
use isomer_core::Gpa;
use isomer_engine::{EngineKind, SoftVcpu};
use isomer_riscv64::Riscv64;

const VIRTUAL: u64 = 0x40_0000_0000 - 0x8000_0000;
/// A page that shares `VIRTUAL`'s place in a TLB of 256 entries a table.
const RIVAL: u64 = VIRTUAL + (256 << 12);
const FIRST: u64 = DATA;
const SECOND: u64 = DATA + 0x1000;
const TABLES: u64 = DATA + 0x10_0000;

/// A function at offset 0 that stores a1 to a0, loads from a2, and goes on at offset 0x100, where a page says which
/// one it is.
fn page_that_tells(name: i32) -> Vec<u8> {
    let mut page = Asm::new(VIRTUAL);
    page.ops(&[sd(A1, 0, A0), ld(T0, 0, A2)]).op(j(0xf8)).pad_to(VIRTUAL + 0x100);
    page.ops(&[addi(A3, ZERO, name), ret()]);
    page.finish()
}

/// A page table entry that changes without a fence lets a block of the old page find its successor in the new one. That
/// must leave nothing behind once the fence has come.
#[test]
fn blocks_of_different_pages_do_not_stay_linked() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut tables = Tables::new(&machine, TABLES);
        tables.map_machine();
        let entry = tables.map(VIRTUAL, FIRST, 0, RWX);
        tables.map(RIVAL, DATA + 0x2000, 0, RWX);
        machine.write(FIRST, &page_that_tells(1));
        machine.write(SECOND, &page_that_tells(2));

        let mut p = Asm::new(CODE);
        p.li(T0, tables.satp(1)).op(csrrw(ZERO, csr::SATP, T0)).op(sfence_vma(ZERO, ZERO));
        p.li(S0, VIRTUAL).li(A0, entry).li(A2, RIVAL).li(S1, 0).li(A4, 100).li(A6, SECOND + 0x100);
        let round = p.mark();
        // While the page changes under the function, either successor is right.
        p.li(A1, leaf(SECOND, RWX)).op(jalr(RA, S0, 0));
        // From here on only the first page's is.
        p.li(A1, leaf(FIRST, RWX)).op(sd(A1, 0, A0)).op(sfence_vma(ZERO, ZERO));
        p.op(jalr(RA, S0, 0)).op(add(S1, S1, A3));
        // The other page's blocks go, whoever points to them.
        p.op(lw(T1, 0, A6)).op(sw(T1, 0, A6)).op(FENCE_I);
        p.op(jalr(RA, S0, 0)).op(add(S1, S1, A3));
        p.op(addi(A4, A4, -1)).branch(bne, A4, ZERO, round);
        finish(&mut p, S1);
        machine.write(CODE, &p.finish());
        let mut hart = machine.hart(0, engine, CODE);
        enter_supervisor(hart.cpu_mut());
        assert_eq!(machine.run_hart(hart).1, 200, "{engine:?}");
    }
}

/// A program that turns translation on with satp from a7, in supervisor mode.
fn translated() -> Asm {
    let mut p = Asm::new(CODE);
    p.ops(&[csrrw(ZERO, csr::SATP, A7), sfence_vma(ZERO, ZERO)]);
    p
}

/// Runs it on hart 0; the result.
fn run(machine: &Machine, engine: EngineKind, p: Asm, satp: u64) -> (SoftVcpu<Riscv64>, u64) {
    machine.write(CODE, &p.finish());
    let mut hart = machine.hart(0, engine, CODE);
    enter_supervisor(hart.cpu_mut());
    hart.cpu_mut().x[A7 as usize] = satp;
    machine.run_hart(hart)
}

/// The ways to fence one page in address space 1: nothing named, address, address space (in a5), both.
fn fences(gva: Reg) -> [u32; 4] {
    [sfence_vma(ZERO, ZERO), sfence_vma(gva, ZERO), sfence_vma(ZERO, A5), sfence_vma(gva, A5)]
}

/// The second half of an instruction moves to another page: after the fence, the new half is what runs.
#[test]
fn the_second_half_of_an_instruction_follows_its_page() {
    for engine in ENGINES {
        for fence in fences(A3) {
            let machine = Machine::new(1);
            let mut tables = Tables::new(&machine, TABLES);
            tables.map_machine();
            tables.map(VIRTUAL, FIRST, 0, RWX);
            let entry = tables.map(VIRTUAL + 0x1000, SECOND, 0, RWX);
            // `li a0, n; ret`, with n and the return on the second page.
            for n in 0..4 {
                let page = SECOND + 0x1000 * n;
                machine.write(page - if n == 0 { 2 } else { 0 }, &addi(A0, ZERO, 0).to_le_bytes());
                machine.write(page, &addi(A0, ZERO, n as i32 + 1).to_le_bytes()[2..]);
                machine.write(page + 2, &ret().to_le_bytes());
            }
            let mut p = translated();
            p.li(A2, VIRTUAL + 0xffe).li(A3, VIRTUAL + 0x1000).li(A4, entry).li(A5, 1).li(S0, 0).li(S1, 10);
            for n in [0, 1, 2, 3, 0, 2] {
                p.li(T0, leaf(SECOND + 0x1000 * n, RWX)).ops(&[sd(T0, 0, A4), fence, jalr(RA, A2, 0)]);
                p.ops(&[mul(S0, S0, S1), add(S0, S0, A0)]);
            }
            finish(&mut p, S0);
            assert_eq!(run(&machine, engine, p, tables.satp(1)).1, 123_413, "{engine:?} {fence:#x}");
        }
    }
}

/// Accesses a constant apart, of which compiled code may look up the first one's page only: at every distance from the end of
/// a page, when what follows it is elsewhere.
#[test]
fn neighbours_across_the_end_of_a_page_are_where_they_are() {
    const OFFSETS: [i32; 9] = [0, 8, 3, -5, 16, 1, 9, -16, 24];
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut tables = Tables::new(&machine, TABLES);
        tables.map_machine();
        // Three pages in a row, whose places are not.
        let pages = [SECOND, SECOND + 0x4000, FIRST];
        for (n, page) in pages.into_iter().enumerate() {
            tables.map(VIRTUAL + 0x1000 * n as u64, page, 0, RWX);
            let bytes: Vec<u8> = (0..0x1000_u32).map(|i| (i * 7 + i / 256 + n as u32 * 91) as u8).collect();
            machine.write(page, &bytes);
        }
        let mut p = translated();
        p.li(S0, 0).li(S1, 31).li(A0, VIRTUAL + 0x1000 - 40).li(A1, VIRTUAL + 0x1000 + 40);
        let round = p.mark();
        for offset in OFFSETS {
            p.ops(&[ld(T0, offset, A0), mul(S0, S0, S1), add(S0, S0, T0)]);
        }
        for (offset, n) in OFFSETS.into_iter().zip(1..) {
            p.ops(&[lhu(T1, offset + 2, A0), add(T0, S0, T1), sw(T0, 0x800 - 8 * n, A0), sd(T0, offset, A0)]);
        }
        p.op(addi(A0, A0, 1)).branch(bne, A0, A1, round);
        finish(&mut p, S0);

        // The same on a plain array.
        let mut memory = vec![0; 0x3000];
        for (n, page) in pages.into_iter().enumerate() {
            machine.memory.read(Gpa(page), &mut memory[0x1000 * n..0x1000 * (n + 1)]).unwrap();
        }
        let mut sum = 0_u64;
        for at in 0x1000 - 40..0x1000 + 40_usize {
            let place = |offset: i32| at.wrapping_add_signed(offset as isize);
            for offset in OFFSETS {
                let loaded = u64::from_le_bytes(memory[place(offset)..][..8].try_into().unwrap());
                sum = sum.wrapping_mul(31).wrapping_add(loaded);
            }
            for (offset, n) in OFFSETS.into_iter().zip(1..) {
                let loaded = u16::from_le_bytes(memory[place(offset + 2)..][..2].try_into().unwrap());
                let value = sum.wrapping_add(loaded.into()).to_le_bytes();
                memory[place(0x800 - 8 * n)..][..4].copy_from_slice(&value[..4]);
                memory[place(offset)..][..8].copy_from_slice(&value);
            }
        }
        assert_eq!(run(&machine, engine, p, tables.satp(1)).1, sum, "{engine:?}");
        for (n, page) in pages.into_iter().enumerate() {
            let mut bytes = vec![0; 0x1000];
            machine.memory.read(Gpa(page), &mut bytes).unwrap();
            assert!(bytes == memory[0x1000 * n..0x1000 * (n + 1)], "{engine:?} page {n}");
        }
    }
}

/// Code that runs off the end of a page, by instructions of 2 and 4 bytes, into one that may not be executed.
#[test]
fn code_ends_with_its_page() {
    for engine in ENGINES {
        for (last_is_short, next) in
            [(false, None), (true, None), (false, Some(READ_ONLY)), (true, Some(READ_ONLY))]
        {
            let machine = Machine::new(1);
            let mut tables = Tables::new(&machine, TABLES);
            tables.map_machine();
            tables.map(VIRTUAL, FIRST, 0, RWX);
            if let Some(bits) = next {
                tables.map(VIRTUAL + 0x1000, SECOND, 0, bits);
            }
            let mut page = Asm::new(FIRST + 0xff0);
            page.op(addi(A0, A0, 1)).op(addi(A0, A0, 1));
            match last_is_short {
                // c.nop, addi, c.addi a0, 1
                true => page.half(C_NOP).op(addi(A0, A0, 1)).half(0x0505),
                false => page.op(addi(A0, A0, 1)).op(addi(A0, A0, 1)),
            };
            assert_eq!(page.here(), SECOND);
            machine.write(FIRST + 0xff0, &page.finish());
            let mut p = translated();
            let handler = p.label();
            p.op(csrrw(ZERO, csr::STVEC, A6))
                .li(A0, 0)
                .li(A2, VIRTUAL + 0xff0)
                .op(jalr(ZERO, A2, 0))
                .bind(handler);
            let at = p.here();
            p.ops(&[csrr(A1, 0x141), csrr(A2, 0x142), csrr(A3, 0x143)]);
            finish(&mut p, A0);
            machine.write(CODE, &p.finish());
            let mut hart = machine.hart(0, engine, CODE);
            enter_supervisor(hart.cpu_mut());
            hart.cpu_mut().x[A7 as usize] = tables.satp(1);
            hart.cpu_mut().x[A6 as usize] = at;
            let (hart, count) = machine.run_hart(hart);
            let seen = [A1, A2, A3].map(|reg| hart.cpu().x[reg as usize]);
            assert_eq!((count, seen), (4, [VIRTUAL + 0x1000, 12, VIRTUAL + 0x1000]), "{engine:?}");
        }
    }
}

/// Six address spaces (more than are kept at once) with a page each at the same address, data and code, and no fence between
/// switches.
#[test]
fn address_spaces_stay_apart_without_fences() {
    const SPACES: u64 = 6;
    const ROUNDS: u64 = 50;
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut p = Asm::new(CODE);
        p.li(S0, 0).li(S1, 0).li(A5, ROUNDS).li(A2, VIRTUAL);
        let round = p.mark();
        for n in 0..SPACES {
            let mut tables = Tables::new(&machine, TABLES + 0x2_0000 * n);
            tables.map_machine();
            let page = DATA + 0x1000 * n;
            tables.map(VIRTUAL, page, 0, RWX);
            let mut code = Asm::new(VIRTUAL);
            code.op(addi(A0, ZERO, 1 << n)).op(ret());
            machine.write(page, &code.finish());
            machine.write_u64(page + 0x800, 100 * n);
            p.li(T0, tables.satp(n + 1)).op(csrrw(ZERO, csr::SATP, T0));
            p.ops(&[jalr(RA, A2, 0), add(S0, S0, A0), addi(A4, A2, 0x400)]);
            // Count in the page itself, past 2 KiB.
            p.ops(&[ld(A3, 0x400, A4), add(S1, S1, A3), addi(A3, A3, 1), sd(A3, 0x400, A4)]);
        }
        p.op(addi(A5, A5, -1)).branch(bne, A5, ZERO, round);
        p.op(mv(A1, S1));
        finish(&mut p, S0);
        let (hart, result) = run(&machine, engine, p, 0);
        assert_eq!(result, ROUNDS * ((1 << SPACES) - 1), "{engine:?}");
        let counts: u64 = (0..SPACES).map(|n| ROUNDS * 100 * n + ROUNDS * (ROUNDS - 1) / 2).sum();
        assert_eq!(hart.cpu().x[S1 as usize], counts, "{engine:?}");
        for n in 0..SPACES {
            assert_eq!(machine.read_u64(DATA + 0x1000 * n + 0x800), 100 * n + ROUNDS);
        }
    }
}

/// More large pages than the TLB remembers; then each moves, and is fenced by an address somewhere else inside it.
#[test]
fn a_fence_inside_a_large_page_moves_all_of_it() {
    const PAGES: u64 = 12;
    const LARGE: u64 = 2 << 20;
    for engine in ENGINES {
        for whole in [false, true] {
            let machine = Machine::new(1);
            // All of them show the same two pieces of RAM, one after the other.
            let pieces = [RAM + LARGE, RAM + 2 * LARGE];
            let mut tables = Tables::new(&machine, RAM + 4 * LARGE);
            tables.map_machine();
            let granule = |n: u64| 0x1000 * (3 * n + 1);
            let mut p = translated();
            p.li(S0, 0).li(A5, 1);
            let entries: Vec<_> =
                (0..PAGES).map(|n| tables.map(VIRTUAL + n * LARGE, pieces[0], 1, RWX)).collect();
            for n in 0..PAGES {
                machine.write_u64(pieces[0] + granule(n), 1);
                machine.write_u64(pieces[1] + granule(n), 1000);
                p.li(A0, VIRTUAL + n * LARGE + granule(n)).ops(&[ld(T0, 0, A0), add(S0, S0, T0)]);
            }
            for (n, entry) in entries.iter().enumerate() {
                let page = VIRTUAL + n as u64 * LARGE;
                p.li(A0, page + granule(n as u64)).li(A3, page + 0x1f_f000);
                p.li(T0, leaf(pieces[1], RWX)).li(A4, *entry).op(sd(T0, 0, A4));
                p.op(if whole { sfence_vma(ZERO, A5) } else { sfence_vma(A3, A5) });
                p.ops(&[ld(T0, 0, A0), add(S0, S0, T0)]);
            }
            finish(&mut p, S0);
            assert_eq!(run(&machine, engine, p, tables.satp(1)).1, PAGES * 1001, "{engine:?}");
        }
    }
}

/// Permissions that grow need no fence to be found out by a fault's retry; ones that shrink hold after the fence.
#[test]
fn permissions_hold_after_the_fence() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut tables = Tables::new(&machine, TABLES);
        tables.map_machine();
        let entry = tables.map(VIRTUAL, FIRST, 0, RWX);
        machine.write(FIRST, &ret().to_le_bytes());
        let mut p = translated();
        p.li(A2, VIRTUAL).li(A4, entry).li(S0, 0);
        // Warm: store, load, fetch. Then each of them taken away in turn; the handler counts and skips.
        p.ops(&[sd(S0, 8, A2), ld(T0, 8, A2), jalr(RA, A2, 0)]).op(csrrw(ZERO, csr::STVEC, A6));
        for (bits, insn, cause) in [
            (0x4b_u64 & !4, sd(S0, 8, A2), 15),
            (0xc9, ld(T0, 8, A2), 13),
            (0xc3, jalr(RA, A2, 0), 12),
            (0xcf & !1, ld(T0, 8, A2), 13),
            (0xcf | 1 << 4, amoadd_d(T0, S0, A2), 15),
        ] {
            p.li(T0, leaf(FIRST, bits)).ops(&[sd(T0, 0, A4), sfence_vma(A2, ZERO)]);
            p.li(A3, 0).op(insn).li(T1, cause).op(xor(T1, T1, A3)).op(sltu(T1, ZERO, T1)).op(add(S0, S0, T1));
            p.li(T0, leaf(FIRST, RWX)).op(sd(T0, 0, A4));
            // Without a fence: what was refused is looked up again.
            p.ops(&[sd(ZERO, 8, A2), ld(T0, 8, A2), jalr(RA, A2, 0)]);
        }
        finish(&mut p, S0);
        // Gives the cause in a3 and goes on behind the instruction, or at ra for a fetch.
        let handler = p.here();
        let (fetch, back) = (p.label(), p.label());
        p.ops(&[csrr(A3, 0x142), addi(T1, ZERO, 12)]).branch(beq, A3, T1, fetch);
        p.ops(&[csrr(T1, 0x141), addi(T1, T1, 4)]).jump(back).bind(fetch).op(mv(T1, RA)).bind(back);
        p.op(csrrw(ZERO, 0x141, T1)).op(SRET);
        machine.write(CODE, &p.finish());
        let mut hart = machine.hart(0, engine, CODE);
        enter_supervisor(hart.cpu_mut());
        hart.cpu_mut().x[A7 as usize] = tables.satp(1);
        hart.cpu_mut().x[A6 as usize] = handler;
        assert_eq!(machine.run_hart(hart).1, 0, "{engine:?}");
    }
}

/// Hardware sets accessed and dirty bits, also in tables that share a page with code.
#[test]
fn accessed_and_dirty_bits_are_set() {
    for engine in ENGINES {
        let machine = Machine::new(1);
        let mut tables = Tables::new(&machine, TABLES);
        tables.map_machine();
        let entry = tables.map(VIRTUAL, FIRST, 0, 0x0f);
        let mut p = translated();
        p.li(A2, VIRTUAL).li(A4, entry);
        p.ops(&[ld(A0, 0, A4), ld(T0, 0, A2), ld(A1, 0, A4), sd(T0, 0, A2), ld(A3, 0, A4)]);
        finish(&mut p, A0);
        machine.write(CODE, &p.finish());
        let mut hart = machine.hart(0, engine, CODE);
        enter_supervisor(hart.cpu_mut());
        hart.cpu_mut().menvcfg |= 1 << 61;
        hart.cpu_mut().x[A7 as usize] = tables.satp(1);
        let (hart, _) = machine.run_hart(hart);
        let bits = [A0, A1, A3].map(|reg| hart.cpu().x[reg as usize] & 0xff);
        assert_eq!(bits, [0x0f, 0x4f, 0xcf], "{engine:?}");
    }
}
