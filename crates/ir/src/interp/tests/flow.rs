//! Links, budgets, polls, guards and the state they leave.

use super::machine::{Cpu, MODEL, Machine, SLOTS};
use crate::{
    Block, Builder, Terminal, Type,
    block::LinkHint,
    interp::{self, Code, End},
    op::{BinOp, Cond},
    types::{HelperId, MemFlags, MmuIndex, Slot},
};
use std::sync::atomic::Ordering;

const PC: u64 = 0x8000_0f00;

fn block(f: impl FnOnce(&mut Builder)) -> Block {
    let mut b = Builder::new(SLOTS, 0, MODEL);
    f(&mut b);
    b.finish()
}

/// Instructions that add 1 to x0 each.
fn count(b: &mut Builder, insns: u32) {
    for _ in 0..insns {
        b.insn_start(b.len(), 4);
        let x = b.get(Slot(0));
        let x = b.bin_imm(BinOp::Add, x, 1);
        b.set(Slot(0), x);
    }
}

fn jump(offset: i64) -> Terminal {
    Terminal::Jump { offset, hint: LinkHint::None }
}

/// A machine with `blocks` at their pcs for mode 0, and a CPU at [`PC`].
fn machine(blocks: impl IntoIterator<Item = (u64, Block)>) -> (Machine, Cpu) {
    let mut machine = Machine::new();
    for (pc, block) in blocks {
        machine.blocks.insert((pc, block.mode), Code::compile(&block).unwrap());
    }
    let mut cpu = Cpu::default();
    cpu.header.pc = PC;
    (machine, cpu)
}

fn run(machine: &mut Machine, cpu: &mut Cpu, budget: u64) -> End {
    let code: *const Code = &machine.blocks[&(cpu.header.pc, cpu.header.mode)];
    // SAFETY: blocks stay in the machine, and were compiled for this CPU.
    unsafe { interp::run(&*code, cpu, machine, budget) }
}

/// Three instructions that loop while x0 is not x1.
fn three_insn_loop() -> Block {
    block(|b| {
        count(b, 2);
        b.insn_start(8, 4);
        let (x, end) = (b.get(Slot(0)), b.get(Slot(1)));
        let c = b.compare(Cond::Ne, x, end);
        b.end(Terminal::Branch { c, taken: 0, not_taken: 12 });
    })
}

#[test]
fn a_linked_loop_stays_inside_until_its_budget_is_used() {
    let (mut m, mut cpu) = machine([(PC, three_insn_loop())]);
    assert_eq!(run(&mut m, &mut cpu, 3000), End::Leave);
    assert_eq!((cpu.header.pc, cpu.header.insns, cpu.near[0]), (PC, 3000, 2000));
    assert_eq!(m.lookups, 1, "the second time round goes through the link");
    assert_eq!(run(&mut m, &mut cpu, 3001), End::Leave);
    assert_eq!(cpu.header.insns, 3000 + 3003, "whole blocks only");
    cpu.near[1] = cpu.near[0] + 20;
    assert_eq!(run(&mut m, &mut cpu, 3000), End::Leave);
    assert_eq!((cpu.header.pc, cpu.header.insns), (PC + 12, 6003 + 30), "no block there");
    assert_eq!(m.lookups, 2);
}

#[test]
fn unlinked_blocks_look_up_again() {
    let (mut m, mut cpu) = machine([(PC, three_insn_loop())]);
    run(&mut m, &mut cpu, 300);
    m.blocks[&(PC, 0)].unlink();
    run(&mut m, &mut cpu, 300);
    assert_eq!(m.lookups, 2);
}

#[test]
fn attention_leaves_with_everything_in_place() {
    let (mut m, mut cpu) = machine([(PC, three_insn_loop())]);
    m.attention.store(1, Ordering::SeqCst);
    assert_eq!(run(&mut m, &mut cpu, 3000), End::Leave);
    assert_eq!((cpu.header.pc, cpu.header.insns, cpu.near[0]), (PC, 3, 2));
    m.attention.store(0, Ordering::SeqCst);
    assert_eq!(run(&mut m, &mut cpu, 30), End::Leave);
    assert_eq!(cpu.header.insns, 33);
}

#[test]
fn only_jumps_within_a_page_are_linked() {
    let far = PC + 0x100;
    let (mut m, mut cpu) = machine([
        (
            PC,
            block(|b| {
                count(b, 1);
                b.end(jump(0x100));
            }),
        ),
        (
            far,
            block(|b| {
                count(b, 1);
                b.end(jump(-0x100));
            }),
        ),
    ]);
    assert_eq!(PC >> 12, (far - 1) >> 12);
    assert_eq!(run(&mut m, &mut cpu, 100), End::Leave);
    assert_eq!((m.lookups, cpu.near[0]), (100 - 1, 100), "every jump crosses a page");
}

#[test]
fn only_blocks_of_one_home_are_linked() {
    for (homes, lookups) in [([1, 1], 2), ([1, 2], 100 - 1)] {
        let jump_by = |offset| {
            block(|b| {
                count(b, 1);
                b.end(jump(offset));
            })
        };
        let (mut m, mut cpu) = machine([(PC, jump_by(8)), (PC + 8, jump_by(-8))]);
        for (pc, home) in [PC, PC + 8].into_iter().zip(homes) {
            let code = m.blocks.remove(&(pc, 0)).unwrap();
            m.blocks.insert((pc, 0), code.at_home(home));
        }
        assert_eq!(run(&mut m, &mut cpu, 100), End::Leave);
        assert_eq!((m.lookups, cpu.near[0]), (lookups, 100));
    }
}

#[test]
fn a_block_that_may_change_the_mode_is_never_linked() {
    let flip = |mode| {
        let mut b = Builder::new(SLOTS, mode, MODEL);
        count(&mut b, 1);
        b.insn_start(4, 4);
        b.call_void(HelperId(2), &[]);
        b.end(jump(0));
        b.finish()
    };
    let (mut m, mut cpu) = machine([(PC, flip(0)), (PC, flip(1))]);
    assert_eq!(run(&mut m, &mut cpu, 10), End::Leave);
    assert_eq!((m.lookups, cpu.header.mode, cpu.near[0]), (4, 1, 5));
}

#[test]
fn indirect_jumps_go_where_they_say() {
    let (mut m, mut cpu) = machine([(
        PC,
        block(|b| {
            count(b, 1);
            let base = b.pc_rel(7);
            let mask = b.iconst(Type::I64, !1);
            let pc = b.and(base, mask);
            b.end(Terminal::Indirect { pc, hint: LinkHint::Return });
        }),
    )]);
    assert_eq!(run(&mut m, &mut cpu, 10), End::Leave);
    assert_eq!((cpu.header.pc, cpu.header.insns), (PC + 6, 1));
}

#[test]
fn exits_always_leave() {
    let (mut m, mut cpu) = machine([(
        PC,
        block(|b| {
            count(b, 2);
            b.end(Terminal::Exit { offset: 0 });
        }),
    )]);
    assert_eq!(run(&mut m, &mut cpu, 10), End::Exit);
    assert_eq!((cpu.header.pc, cpu.header.insns, m.lookups), (PC, 2, 0));
}

/// Two instructions that count, one that stores to x2, one that counts.
fn storing() -> Block {
    block(|b| {
        count(b, 2);
        b.insn_start(8, 2);
        let (addr, value) = (b.get(Slot(2)), b.get(Slot(0)));
        b.store(Type::I64, addr, value, MemFlags::plain(MmuIndex(0)));
        count(b, 1);
        b.end(jump(0));
    })
}

#[test]
fn a_fault_is_precise() {
    let (mut m, mut cpu) = machine([(PC, storing())]);
    cpu.near[2] = 0x100;
    assert_eq!(run(&mut m, &mut cpu, 8), End::Leave);
    cpu.near[2] = 0x9_0000;
    assert_eq!(run(&mut m, &mut cpu, 8), End::Fault { insn_offset: 8 });
    assert_eq!((cpu.header.pc, cpu.header.insns), (PC, 8 + 2));
    assert_eq!(cpu.near[0], 6 + 2, "what came before the store has happened, what comes after has not");
}

#[test]
fn a_fault_in_a_later_block_is_relative_to_that_block() {
    let (mut m, mut cpu) = machine([
        (
            PC,
            block(|b| {
                count(b, 5);
                b.end(jump(0x20));
            }),
        ),
        (PC + 0x20, storing()),
    ]);
    cpu.near[2] = u64::MAX;
    assert_eq!(run(&mut m, &mut cpu, 100), End::Fault { insn_offset: 8 });
    assert_eq!((cpu.header.pc, cpu.header.insns), (PC + 0x20, 7));
}

#[test]
fn helpers_see_the_exact_instruction_count() {
    let (mut m, mut cpu) = machine([(
        PC,
        block(|b| {
            count(b, 3);
            b.insn_start(12, 4);
            let result = b.call(HelperId(4), &[], Type::I64);
            b.set(Slot(3), result);
            count(b, 1);
            b.end(Terminal::Exit { offset: 0 });
        }),
    )]);
    cpu.header.insns = 100;
    assert_eq!(run(&mut m, &mut cpu, 10), End::Exit);
    assert_eq!((cpu.near[3], cpu.header.insns), (103, 105));
}

#[test]
fn a_trap_if_traps_only_if() {
    let (mut m, mut cpu) = machine([(
        PC,
        block(|b| {
            count(b, 1);
            b.insn_start(4, 4);
            let (x, two) = (b.get(Slot(0)), b.iconst(Type::I64, 2));
            let c = b.compare(Cond::Eq, x, two);
            b.trap_if(c, 77, x);
            b.end(jump(0));
        }),
    )]);
    assert_eq!(run(&mut m, &mut cpu, 100), End::Trap { code: 77, value: 2, insn_offset: 4 });
    assert_eq!((cpu.header.pc, cpu.header.insns), (PC, 3));
}

#[test]
fn a_block_with_too_many_live_values_is_refused() {
    let wide = |live: u64| {
        block(|b| {
            b.insn_start(0, 4);
            let x = b.get(Slot(0));
            let values: Vec<_> = (0..live).map(|i| b.bin_imm(BinOp::Mul, x, i + 3)).collect();
            let sum = values.into_iter().reduce(|a, v| b.bin(BinOp::Xor, a, v)).unwrap();
            b.set(Slot(1), sum);
        })
    };
    assert!(Code::compile(&wide(50)).is_ok());
    assert!(Code::compile(&wide(80)).is_err());
}

#[test]
fn reservations_end_with_a_store_by_somebody_else() {
    let flags = MemFlags::plain(MmuIndex(0));
    let load = block(|b| {
        b.insn_start(0, 4);
        let addr = b.get(Slot(2));
        let old = b.load_reserve(Type::I64, addr, flags);
        b.set(Slot(3), old);
        b.end(jump(4));
    });
    let store = block(|b| {
        b.insn_start(0, 4);
        let (addr, value) = (b.get(Slot(2)), b.iconst(Type::I64, 42));
        let stored = b.store_cond(addr, value, flags);
        let stored = b.zext(Type::I64, stored);
        b.set(Slot(4), stored);
        b.end(Terminal::Exit { offset: 4 });
    });
    let (mut m, mut cpu) = machine([(PC, load), (PC + 4, store)]);
    cpu.near[2] = 0x40;
    for (interfere, stored) in [(false, 1), (true, 0)] {
        cpu.header.pc = PC;
        assert_eq!(run(&mut m, &mut cpu, 1), End::Leave);
        m.ram.0[0x41] ^= u8::from(interfere);
        assert_eq!(run(&mut m, &mut cpu, 1), End::Exit);
        assert_eq!(cpu.near[4], stored);
    }
    cpu.header.pc = PC + 4;
    assert_eq!(run(&mut m, &mut cpu, 1), End::Exit);
    assert_eq!(cpu.near[4], 0, "no reservation left");
}
