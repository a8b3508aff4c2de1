//! Passes keep what blocks do, and remove what the rules say.

use super::*;
use crate::{
    Builder, Terminal,
    guest::Effects,
    op::{BinOp, Cond},
    softfloat::{NanRule, Tininess},
    testing::{self, SLOTS},
    types::{FpModel, MemFlags, MmuIndex, Slot},
    verify::verify,
};
use proptest::prelude::*;

const FACTS: GuestFacts = GuestFacts { insn_align: testing::INSN_ALIGN, effects: testing::effects };

fn optimized(block: &Block, facts: GuestFacts) -> Block {
    let mut copy = block.clone();
    Optimizer::new(facts).run(&mut copy);
    copy
}

fn slot(name: &str) -> Slot {
    Slot(SLOTS.iter().position(|desc| desc.name == name).expect("a slot of that name") as u16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn blocks_do_the_same_afterwards(block in testing::blocks(), seed in any::<u64>()) {
        prop_assert_eq!(verify(&block), Ok(()));
        for facts in [GuestFacts::NONE, FACTS] {
            let after = optimized(&block, facts);
            prop_assert_eq!(verify(&after), Ok(()));
            prop_assert!(after.insts.len() <= block.insts.len());
            let again = optimized(&after, facts);
            prop_assert!(again.insts.len() <= after.insts.len());
            let whole = testing::run(&block, seed, usize::MAX);
            prop_assert_eq!(&whole, &testing::run(&after, seed, usize::MAX));
            prop_assert_eq!(&whole, &testing::run(&again, seed, usize::MAX));
            for fault_at in 0..whole.events.len() {
                let stopped = testing::run(&block, seed, fault_at);
                prop_assert_eq!(&stopped, &testing::run(&after, seed, fault_at));
            }
        }
    }

    #[test]
    fn instructions_stay(block in testing::blocks()) {
        let starts = |block: &Block| -> Vec<Op> {
            block.insts.iter().map(|inst| inst.op).filter(|op| matches!(op, Op::InsnStart { .. })).collect()
        };
        let after = optimized(&block, FACTS);
        prop_assert_eq!(starts(&block), starts(&after));
        prop_assert_eq!((block.insn_count, block.len), (after.insn_count, after.len));
    }

    #[test]
    fn working_memory_leaves_no_trace(first in testing::blocks(), second in testing::blocks()) {
        let mut optimizer = Optimizer::new(FACTS);
        optimizer.run(&mut first.clone());
        let mut reused = second.clone();
        optimizer.run(&mut reused);
        prop_assert_eq!(reused, optimized(&second, FACTS));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8000))]

    #[test]
    fn folding_keeps_values(block in testing::integer_blocks(), seed in any::<u64>()) {
        prop_assert_eq!(verify(&block), Ok(()));
        let after = optimized(&block, FACTS);
        prop_assert!(after.insts.len() <= block.insts.len());
        prop_assert_eq!(testing::run(&block, seed, usize::MAX), testing::run(&after, seed, usize::MAX));
    }
}

fn builder() -> Builder {
    let fp = FpModel {
        nan: NanRule::Canonical,
        tininess: Tininess::After,
        flush_inputs: false,
        flush_outputs: false,
    };
    let mut b = Builder::new(SLOTS, 0, fp);
    b.insn_start(0, 4);
    b
}

/// What is left of a block, without its `insn_start`s.
fn left(b: Builder) -> Vec<Op> {
    let block = optimized(&b.finish(), FACTS);
    block.insts.iter().map(|inst| inst.op).filter(|op| !matches!(op, Op::InsnStart { .. })).collect()
}

const MMU: MemFlags = MemFlags::plain(MmuIndex(0));

#[test]
fn constants_fold_to_what_the_manuals_say() {
    use BinOp::*;
    use Type::{I8, I16, I32, I64};
    const MIN: u64 = 1 << 63;
    const MAX: u64 = u64::MAX;
    let cases = [
        (Add, I8, 0xff, 2, 1),
        (Sub, I32, 0, 1, 0xffff_ffff),
        (Mul, I16, 0x1234, 0x10, 0x2340),
        (MulHiU, I64, MAX, MAX, MAX - 1),
        (MulHiS, I64, MAX, MAX, 0),
        (MulHiSU, I64, MAX, MAX, MAX),
        (MulHiSU, I32, 0x8000_0000, 0xffff_ffff, 0x8000_0000),
        (DivU, I64, 7, 0, MAX),
        (DivS, I32, 7, 0, 0xffff_ffff),
        (DivS, I64, MIN, MAX, MIN),
        (DivS, I8, 0xf9, 2, 0xfd),
        (RemU, I64, 7, 0, 7),
        (RemS, I64, MIN, MAX, 0),
        (RemS, I8, 0xf9, 2, 0xff),
        (AndNot, I8, 0xff, 0x0f, 0xf0),
        (Shl, I32, 1, 33, 2),
        (Shl, I8, 0x81, 1, 2),
        (ShrU, I64, MIN, 127, 1),
        (ShrS, I16, 0x8000, 15, 0xffff),
        (Rotl, I8, 0x81, 1, 3),
        (Rotr, I8, 0x81, 8, 0x81),
        (Rotr, I32, 1, 1, 0x8000_0000),
        (MinS, I8, 0x80, 0x7f, 0x80),
        (MaxU, I8, 0x80, 0x7f, 0x80),
        (ClMul, I64, 3, 3, 5),
        (ClMulHi, I64, MIN, 6, 3),
        (ClMulHi, I8, 0xff, 0xff, 0x55),
    ];
    for (op, ty, a, b, result) in cases {
        let mut builder = builder();
        let (x, y) = (builder.iconst(ty, a), builder.iconst(ty, b));
        let value = builder.bin(op, x, y);
        let wide = builder.zext(I64, value);
        builder.set(slot("x1"), wide);
        assert_eq!(left(builder)[0], Op::Const { ty: I64, bits: result }, "{op:?} {ty:?} {a:#x} {b:#x}");
    }
}

#[test]
fn a_write_is_dropped_when_overwritten_before_it_can_be_seen() {
    let mut b = builder();
    let x1 = b.get(slot("x1"));
    b.set(slot("x2"), x1);
    b.insn_start(4, 4);
    b.set(slot("x2"), x1);
    assert_eq!(left(b), [Op::Get { slot: slot("x1") }, Op::Set { slot: slot("x2"), value: Value(0) }]);
}

#[test]
fn a_write_stays_when_an_access_may_fault_in_between() {
    let mut b = builder();
    let x1 = b.get(slot("x1"));
    b.set(slot("x2"), x1);
    b.insn_start(4, 4);
    let loaded = b.load(Type::I64, Type::I64, false, x1, MMU);
    b.set(slot("x2"), loaded);
    assert_eq!(left(b).len(), 4);
}

#[test]
fn a_wide_write_covers_narrow_ones_but_not_the_reverse() {
    let mut b = builder();
    let (x1, d0) = (b.get(slot("x1")), slot("d0"));
    b.set(d0, x1);
    let vector = b.get(slot("v1"));
    b.set(slot("v0"), vector);
    assert_eq!(left(b).iter().filter(|op| matches!(op, Op::Set { .. })).count(), 1);

    let mut b = builder();
    let vector = b.get(slot("v1"));
    b.set(slot("v0"), vector);
    let x1 = b.get(slot("x1"));
    b.set(d0, x1);
    assert_eq!(left(b).iter().filter(|op| matches!(op, Op::Set { .. })).count(), 2);
}

#[test]
fn slots_in_the_header_are_read_and_written_as_told() {
    let mut b = builder();
    let fflags = slot("fflags");
    let (first, second) = (b.get(fflags), b.get(fflags));
    b.set(fflags, first);
    b.set(fflags, second);
    assert_eq!(left(b).len(), 4);
}

#[test]
fn reads_after_pure_and_reading_calls_are_known_but_not_after_others() {
    for (helper, gets) in [(0, 1), (1, 1), (2, 2)] {
        let mut b = builder();
        let before = b.get(slot("x1"));
        b.call_void(HelperId(helper), &[before]);
        let after = b.get(slot("x1"));
        b.set(slot("x2"), before);
        b.set(slot("x3"), after);
        assert_eq!(left(b).iter().filter(|op| matches!(op, Op::Get { .. })).count(), gets, "{helper}");
    }
    assert_eq!(
        [0, 1, 2].map(|i| testing::effects(HelperId(i))),
        [Effects::Pure, Effects::ReadsState, Effects::Any]
    );
}

#[test]
fn auipc_and_jalr_become_a_jump() {
    let mut b = builder();
    let base = b.pc_rel(0x12000);
    let address = b.bin_imm(BinOp::Add, base, 0xffff_ffff_ffff_fff0);
    let pc = b.bin_imm(BinOp::And, address, !1);
    b.end(Terminal::Indirect { pc, hint: crate::LinkHint::None });
    let block = optimized(&b.finish(), FACTS);
    assert_eq!(block.terminal, Terminal::Jump { offset: 0x11ff0, hint: crate::LinkHint::None });
    assert_eq!(block.insts.len(), 1);
}

#[test]
fn unread_flags_cost_nothing() {
    let mut b = builder();
    let (x1, x2) = (b.get(slot("x1")), b.get(slot("x2")));
    let zero = b.iconst(Type::I8, 0);
    let [difference, borrow, _] = b.sub_with_borrow(x1, x2, zero);
    b.set(slot("cf"), borrow);
    let nothing = b.iconst(Type::I64, 0);
    let zf = b.compare(Cond::Eq, difference, nothing);
    b.set(slot("zf"), zf);
    let (a, b_) = (Value(0), Value(1));
    assert_eq!(
        left(b)[2..],
        [
            Op::Compare { cond: Cond::LtU, ty: Type::I64, a, b: b_ },
            Op::Set { slot: slot("cf"), value: Value(2) },
            Op::Compare { cond: Cond::Eq, ty: Type::I64, a, b: b_ },
            Op::Set { slot: slot("zf"), value: Value(3) },
        ]
    );
}

/// Flags of a comparison as A64 has them, the overflow made from hot operations, and the conditions over them.
#[test]
fn conditions_over_flags_are_comparisons() {
    let comparison = |name: &str| {
        let mut b = builder();
        let (x1, x2) = (b.get(slot("x1")), b.get(slot("x2")));
        let difference = b.sub(x1, x2);
        let nothing = b.iconst(Type::I64, 0);
        let n = b.compare(Cond::LtS, difference, nothing);
        let z = b.compare(Cond::Eq, difference, nothing);
        let c = b.compare(Cond::GeU, x1, x2);
        let less = b.compare(Cond::LtS, x1, x2);
        let v = b.xor(less, n);
        let ge = b.compare(Cond::Eq, n, v);
        let holds = match name {
            "hi" => b.bin(BinOp::AndNot, c, z),
            "ge" => ge,
            "lt" => b.compare(Cond::Ne, v, n),
            _ => b.bin(BinOp::AndNot, ge, z),
        };
        b.set(slot("cf"), holds);
        left(b)[2]
    };
    let (a, b) = (Value(0), Value(1));
    let compare = |cond, a, b| Op::Compare { cond, ty: Type::I64, a, b };
    assert_eq!(comparison("hi"), compare(Cond::LtU, b, a));
    assert_eq!(comparison("ge"), compare(Cond::GeS, a, b));
    assert_eq!(comparison("lt"), compare(Cond::LtS, a, b));
    assert_eq!(comparison("gt"), compare(Cond::LtS, b, a));
}

#[test]
fn a_branch_on_a_set_instruction_compares_at_once() {
    let mut b = builder();
    let (x1, x2) = (b.get(slot("x1")), b.get(slot("x2")));
    let less = b.compare(Cond::LtS, x1, x2);
    let wide = b.zext(Type::I64, less);
    let zero = b.iconst(Type::I64, 0);
    let c = b.compare(Cond::Eq, wide, zero);
    b.end(Terminal::Branch { c, taken: 8, not_taken: 4 });
    let block = optimized(&b.finish(), FACTS);
    let greater = Op::Compare { cond: Cond::GeS, ty: Type::I64, a: Value(0), b: Value(1) };
    assert_eq!(block.insts.last().map(|inst| inst.op), Some(greater));
    assert_eq!(block.terminal, Terminal::Branch { c: Value(2), taken: 8, not_taken: 4 });
}

#[test]
fn a_sign_extended_load_needs_no_further_extension() {
    let mut b = builder();
    let x1 = b.get(slot("x1"));
    let loaded = b.load(Type::I64, Type::I32, true, x1, MMU);
    let low = b.trunc(Type::I32, loaded);
    let sum = b.bin_imm(BinOp::Add, low, 0);
    let wide = b.sext(Type::I64, sum);
    b.set(slot("x2"), wide);
    assert_eq!(left(b).len(), 3);
}
