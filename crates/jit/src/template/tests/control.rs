//! Polls, counters, loops, and transfers through the jump cache.

use super::{
    compile,
    machine::{BASE, Bench, Cpu, EACH, SLOTS},
    random::Random,
};
use crate::{
    abi::{ExitReason, JumpEntry, MIN_JUMPS, jump_index, mode_tag},
    code_memory::CodeSpan,
    host::HostFeatures,
    region::RegionBlock,
};
use isomer_ir::{
    Block, Builder, CpuHeader, MmuIndex, Slot, SlotDesc, Terminal, Type,
    block::LinkHint,
    op::{BinOp, Cond, FpBinOp, Op, RmwOp},
    softfloat::{NanRule, Tininess},
    types::{FpFormat, FpModel, Rounding},
};
use std::sync::atomic::Ordering;

const MODEL: FpModel =
    FpModel { nan: NanRule::Canonical, tininess: Tininess::After, flush_inputs: false, flush_outputs: false };
const X0: Slot = Slot(3 * EACH as u16);
/// Units of the CPU behind it.
const X0_UNIT: usize = 24;

/// Two instructions that add `step` to x0, and end like that.
fn adder(bench: &Bench, mode: u32, step: u64, terminal: Terminal, hot: Option<u16>) -> CodeSpan {
    let mut b = Builder::new(&SLOTS, mode, MODEL);
    b.insn_start(0, 4);
    let x = b.get(X0);
    let sum = b.bin_imm(BinOp::Add, x, step);
    b.set(X0, sum);
    b.insn_start(4, 4);
    let terminal = match terminal {
        Terminal::Branch { taken, not_taken, .. } => {
            let limit = b.iconst(Type::I64, 10);
            let c = b.compare(Cond::LtU, sum, limit);
            Terminal::Branch { c, taken, not_taken }
        }
        other => other,
    };
    b.end(terminal);
    let block = RegionBlock { offset: 0x10, block: b.finish() };
    let code = compile(&block, HostFeatures::detect(), hot).expect("compiles");
    assert_eq!(code.insns, 2);
    bench.memory.install(&code.code).expect("room")
}

fn cpu() -> Cpu {
    let mut cpu = Random(7).cpu();
    cpu.header = CpuHeader::default();
    cpu.units[X0_UNIT] = 0;
    cpu
}

const JUMP: Terminal = Terminal::Jump { offset: 0x2468, hint: LinkHint::None };

#[test]
fn nothing_runs_without_instructions_left_or_with_attention() {
    let mut bench = Bench::new();
    let code = adder(&bench, 0, 1, JUMP, Some(5));
    for (left, attention) in [(0, 0), (-3, 0), (i64::MIN, 0), (100, 1), (100, 1 << 31)] {
        let mut cpu = cpu();
        bench.attention().store(attention, Ordering::Relaxed);
        bench.context.hot[5] = 9;
        assert_eq!(bench.enter(&code, &mut cpu, left, 0x4000), ExitReason::Leave);
        assert_eq!((cpu.header.pc, bench.context.left, cpu.units[X0_UNIT]), (0x4000, left, 0));
        assert_eq!(bench.context.hot[5], 9, "what did not run does not count");
    }
}

#[test]
fn a_counter_at_zero_says_hot_and_stays() {
    let mut bench = Bench::new();
    let code = adder(&bench, 0, 1, JUMP, Some(2047));
    let mut cpu = cpu();
    bench.context.hot[2047] = 2;
    let mut reasons = Vec::new();
    for _ in 0..4 {
        reasons.push(bench.enter(&code, &mut cpu, 50, 0x4000));
    }
    assert_eq!(reasons, [ExitReason::Lookup, ExitReason::Lookup, ExitReason::Hot, ExitReason::Hot]);
    assert_eq!((cpu.units[X0_UNIT], bench.context.hot[2047], cpu.header.pc), (2, 0, 0x4000));
    assert_eq!((bench.context.left, cpu.header.insns), (50, 4));
}

#[test]
fn a_loop_polls_each_time_round() {
    let mut bench = Bench::new();
    let branch = |taken, not_taken| Terminal::Branch { c: isomer_ir::Value(0), taken, not_taken };
    // The loop's way back is the taken one, or the other; or there is no other.
    for (terminal, rounds, pc) in
        [(branch(0, 8), 10, 0x4008), (Terminal::Jump { offset: 0, hint: LinkHint::None }, 50, 0x4000)]
    {
        let code = adder(&bench, 0, 1, terminal, None);
        let mut cpu = cpu();
        let reason = bench.enter(&code, &mut cpu, 100, 0x4000);
        let expected = if rounds == 10 { ExitReason::Lookup } else { ExitReason::Leave };
        assert_eq!((reason, cpu.units[X0_UNIT], cpu.header.pc), (expected, rounds, pc));
        assert_eq!((bench.context.left, cpu.header.insns), (100 - 2 * rounds as i64, 2 * rounds));
    }
    let code = adder(&bench, 0, 100, branch(8, 0), None);
    let mut cpu = cpu();
    assert_eq!(bench.enter(&code, &mut cpu, 5, 0x4000), ExitReason::Leave);
    assert_eq!((cpu.units[X0_UNIT], bench.context.left), (300, -1));
}

#[test]
fn code_is_followed_through_the_jump_cache_by_pc_and_mode() {
    let mut bench = Bench::new();
    let mut random = Random(99);
    for mode in [0, 7, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        for _ in 0..200 {
            let entry = random.next() & !1;
            let next = entry.wrapping_add(0x2468);
            let first = adder(&bench, mode, 1, JUMP, None);
            let second = adder(&bench, mode, 16, Terminal::Exit { offset: -2 }, None);
            let empty = JumpEntry { pc: next, ..JumpEntry::EMPTY };
            let full = JumpEntry { mode: mode_tag(mode), entry: second.address(), ..empty };
            let strangers =
                [empty, JumpEntry { mode: mode_tag(mode ^ 1), ..full }, JumpEntry { pc: next ^ 2, ..full }];
            for (held, runs_on) in strangers.into_iter().map(|held| (held, false)).chain([(full, true)]) {
                bench.jumps[jump_index(next, MIN_JUMPS)] = held;
                let mut cpu = cpu();
                let reason = bench.enter(&first, &mut cpu, 100, entry);
                if runs_on {
                    assert_eq!((reason, cpu.header.pc), (ExitReason::Exit, next.wrapping_sub(2)));
                    assert_eq!((cpu.units[X0_UNIT], bench.context.left), (17, 96));
                } else {
                    assert_eq!((reason, cpu.header.pc), (ExitReason::Lookup, next));
                    assert_eq!((cpu.units[X0_UNIT], bench.context.left), (1, 98));
                }
            }
            bench.jumps[jump_index(next, MIN_JUMPS)] = JumpEntry::EMPTY;
        }
    }
}

/// Eight accesses of every kind, each at the address in a register of its own, each counted before and after.
fn accesses() -> Block {
    let mut b = Builder::new(&SLOTS, 3, MODEL);
    let register = |n: usize| Slot(X0.0 + n as u16);
    let done = Slot(0);
    let mut count = None;
    for n in 0..8 {
        b.insn_start(4 * n as u32, 4);
        let flags = b.plain(MmuIndex(0));
        let addr = b.get(register(n));
        let one = *count.get_or_insert_with(|| b.iconst(Type::I8, 1));
        match n {
            0 | 5 => {
                let value = b.load(Type::I64, Type::I16, true, addr, flags);
                b.push(Op::Set { slot: register(n), value });
            }
            1 | 6 => b.store(Type::I64, addr, addr, flags),
            2 => drop(b.rmw(RmwOp::MaxU, addr, addr, flags)),
            3 => drop(b.load_reserve(Type::I32, addr, flags)),
            4 => drop(b.store_cond(addr, one, flags)),
            _ => drop(b.cas(addr, addr, addr, flags)),
        }
        let before = b.get(done);
        let after = b.add(before, one);
        b.set(done, after);
    }
    b.end(Terminal::Exit { offset: 32 });
    b.finish()
}

#[test]
fn every_access_can_fault_with_exact_state() {
    let mut bench = Bench::new();
    let block = accesses();
    let place = RegionBlock { offset: 0, block: block.clone() };
    let code = compile(&place, HostFeatures::detect(), None).expect("compiles");
    let ram = Random(11).ram();
    // Plain memory, memory behind the slow path, and from there on nothing.
    for page in [0, 2] {
        for faulting in 0..9 {
            let mut start = cpu();
            for n in 0..8 {
                let good = BASE + 4096 * page + 64 * n as u64;
                start.units[X0_UNIT + n] = if n == faulting { 0x10 } else { good };
            }
            let expected = bench.reference(&block, &start, &ram);
            let found = bench.compiled(&code.code, &block, &start, &ram);
            assert_eq!(found, expected);
            let (end, at) = if faulting < 8 { ("fault", faulting) } else { ("exit", 8) };
            assert_eq!((found.end.as_str(), found.pc, found.insns), (end, 4 * at as u64, at as u64));
        }
    }
}

/// The rounding direction, the sticky flags, and a register.
static FP_SLOTS: [SlotDesc; 4] = [
    SlotDesc { name: "rounding", offset: std::mem::offset_of!(CpuHeader, rounding) as u32, ty: Type::I8 },
    SlotDesc { name: "flags", offset: std::mem::offset_of!(CpuHeader, fp_flags) as u32, ty: Type::I8 },
    SlotDesc { name: "result", offset: 512, ty: Type::I64 },
    SlotDesc { name: "seen", offset: 520, ty: Type::I64 },
];

#[test]
fn slots_of_the_floating_point_state_are_the_hosts_own() {
    let mut bench = Bench::new();
    for rounding in 0..5u8 {
        let mut b = Builder::new(&FP_SLOTS, 0, MODEL);
        b.insn_start(0, 4);
        let direction = b.iconst(Type::I8, rounding.into());
        b.set(Slot(0), direction);
        let (one, three) = (b.iconst(Type::I64, 1f64.to_bits()), b.iconst(Type::I64, (-3f64).to_bits()));
        let third = b.fp_bin(FpBinOp::Div, FpFormat::F64, Rounding::Dynamic, one, three);
        b.set(Slot(2), third);
        let seen = b.get(Slot(1));
        let zero = b.iconst(Type::I8, 0);
        b.set(Slot(1), zero);
        let none = b.iconst(Type::I64, 0);
        let infinity = b.fp_bin(FpBinOp::Div, FpFormat::F64, Rounding::Dynamic, one, none);
        let again = b.get(Slot(1));
        let [seen, again] = [seen, again].map(|v| b.zext(Type::I64, v));
        let eight = b.iconst(Type::I64, 8);
        let again = b.bin(BinOp::Shl, again, eight);
        let all = b.or(seen, again);
        b.set(Slot(3), all);
        let _ = infinity;
        b.end(Terminal::Exit { offset: 4 });
        let block = b.finish();
        let (mut start, ram) = (cpu(), Random(3).ram());
        start.header.fp_flags = 2;
        let expected = bench.reference(&block, &start, &ram);
        assert_eq!(expected.units[1], 0x0803, "underflow from before, inexact, then division by zero alone");
        let place = RegionBlock { offset: 0, block: block.clone() };
        let code = compile(&place, HostFeatures::detect(), None).expect("compiles");
        assert_eq!(bench.compiled(&code.code, &block, &start, &ram), expected);
    }
}

#[test]
fn too_many_values_are_refused_without_harm() {
    let mut b = Builder::new(&SLOTS, 0, MODEL);
    b.insn_start(0, 4);
    let x = b.get(X0);
    let values: Vec<_> = (0..100).map(|i| b.bin_imm(BinOp::Mul, x, i)).collect();
    let sum =
        values.iter().fold(x, |sum, v| b.push(Op::Binary { op: BinOp::Xor, ty: Type::I64, a: sum, b: *v }));
    b.set(X0, sum);
    b.end(Terminal::Exit { offset: 4 });
    let block = RegionBlock { offset: 0, block: b.finish() };
    assert!(compile(&block, HostFeatures::detect(), None).is_err());
}
