//! Address spaces, flushes, and translated code under changing page tables.

use crate::{asm::*, machine::*};

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
