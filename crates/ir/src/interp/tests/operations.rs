//! Answers known from the manuals, and every integer operation in every operand form against the plain evaluator.

use super::machine::{Cpu, MODEL, Machine, SLOTS};
use crate::{
    Builder, Terminal, Type, Value, eval,
    interp::{self, Code, End},
    op::{BinOp, Cond, Op, UnOp},
    types::Slot,
};

const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];

/// Runs what `f` builds; its values' first three land in x0 to x2, zero-extended. x4 and x5 hold `a` and `b`.
fn evaluate(a: u64, b: u64, f: impl FnOnce(&mut Builder) -> Vec<Value>) -> [u64; 3] {
    let mut builder = Builder::new(SLOTS, 0, MODEL);
    builder.insn_start(0, 4);
    let values = f(&mut builder);
    for (i, value) in values.into_iter().enumerate() {
        let wide = builder.zext(Type::I64, value);
        builder.set(Slot(i as u16), wide);
    }
    builder.end(Terminal::Exit { offset: 4 });
    let code = Code::compile(&builder.finish()).unwrap();
    let (mut cpu, mut machine) = (Cpu::default(), Machine::new());
    (cpu.near[4], cpu.near[5]) = (a, b);
    // SAFETY: compiled for this CPU; nothing is linked.
    assert_eq!(unsafe { interp::run(&code, &mut cpu, &mut machine, 1) }, End::Exit);
    [cpu.near[0], cpu.near[1], cpu.near[2]]
}

/// The low bits of x4 or x5, with whatever is above them.
fn register(b: &mut Builder, slot: u16, ty: Type) -> Value {
    let wide = b.get(Slot(slot));
    b.trunc(ty, wide)
}

fn binary(op: BinOp, ty: Type, a: u64, b: u64) -> u64 {
    evaluate(a, b, |builder| {
        let (a, b) = (register(builder, 4, ty), register(builder, 5, ty));
        vec![builder.bin(op, a, b)]
    })[0]
}

#[test]
fn division_has_no_undefined_cases() {
    let min = 1 << 63;
    assert_eq!(binary(BinOp::DivS, Type::I64, min, u64::MAX), min);
    assert_eq!(binary(BinOp::RemS, Type::I64, min, u64::MAX), 0);
    assert_eq!(binary(BinOp::DivS, Type::I64, 7, 0), u64::MAX);
    assert_eq!(binary(BinOp::RemS, Type::I64, 7, 0), 7);
    assert_eq!(binary(BinOp::DivU, Type::I64, 7, 0), u64::MAX);
    assert_eq!(binary(BinOp::RemU, Type::I64, 7, 0), 7);
    assert_eq!(binary(BinOp::DivS, Type::I32, 0xffff_ffff_8000_0000, u64::MAX), 0x8000_0000);
    assert_eq!(binary(BinOp::RemS, Type::I32, 0x8000_0000, 0xffff_ffff), 0);
    assert_eq!(binary(BinOp::DivU, Type::I32, 5, 1 << 40), 0xffff_ffff);
    assert_eq!(binary(BinOp::RemU, Type::I32, 0x1_8000_0001, 0), 0x8000_0001);
    assert_eq!(binary(BinOp::DivS, Type::I8, 0x80, 0xff), 0x80);
    assert_eq!(binary(BinOp::DivS, Type::I16, 0xfff9, 2), 0xfffd, "rounds towards zero");
    assert_eq!(binary(BinOp::RemS, Type::I64, -7i64 as u64, 2), -1i64 as u64);
}

#[test]
fn shift_amounts_are_modulo_the_width() {
    assert_eq!(binary(BinOp::Shl, Type::I64, 1, 64), 1);
    assert_eq!(binary(BinOp::ShrS, Type::I64, 1 << 63, 127), u64::MAX);
    assert_eq!(binary(BinOp::Shl, Type::I32, 1, 33), 2);
    assert_eq!(binary(BinOp::ShrU, Type::I32, 0xffff_ffff_8000_0000, 31), 1);
    assert_eq!(binary(BinOp::ShrS, Type::I32, 0x8000_0000, 36), 0xf800_0000);
    assert_eq!(binary(BinOp::Shl, Type::I8, 0xff, 9), 0xfe);
    assert_eq!(binary(BinOp::Rotl, Type::I8, 0x81, 12), 0x18);
    assert_eq!(binary(BinOp::Rotr, Type::I16, 1, 17), 0x8000);
    assert_eq!(binary(BinOp::Rotr, Type::I64, 1, 0), 1);
}

#[test]
fn products_of_either_kind() {
    assert_eq!(binary(BinOp::MulHiU, Type::I64, u64::MAX, u64::MAX), u64::MAX - 1);
    assert_eq!(binary(BinOp::MulHiS, Type::I64, u64::MAX, u64::MAX), 0);
    assert_eq!(binary(BinOp::MulHiSU, Type::I64, u64::MAX, u64::MAX), u64::MAX);
    assert_eq!(binary(BinOp::MulHiU, Type::I8, 0xff, 0xff), 0xfe);
    assert_eq!(binary(BinOp::ClMul, Type::I64, 0b101, 0b11), 0b1111);
    assert_eq!(binary(BinOp::ClMul, Type::I64, u64::MAX, u64::MAX), 0x5555_5555_5555_5555);
    assert_eq!(binary(BinOp::ClMulHi, Type::I64, u64::MAX, u64::MAX), 0x5555_5555_5555_5555);
    assert_eq!(binary(BinOp::ClMulHi, Type::I8, 0x80, 0x80), 0x40);
}

#[test]
fn minimum_and_maximum_by_sign() {
    assert_eq!(binary(BinOp::MinS, Type::I8, 0x80, 0x7f), 0x80);
    assert_eq!(binary(BinOp::MinU, Type::I8, 0x1_80, 0x7f), 0x7f);
    assert_eq!(binary(BinOp::MaxS, Type::I32, 0xffff_ffff, 0x5_0000_0000), 0);
    assert_eq!(binary(BinOp::MaxU, Type::I64, u64::MAX, 0), u64::MAX);
}

#[test]
fn carries_and_overflows() {
    let add = |ty, a, b, carry| {
        evaluate(a, b, |builder| {
            let (a, b) = (register(builder, 4, ty), register(builder, 5, ty));
            let carry = builder.iconst(Type::I8, carry);
            builder.add_with_carry(a, b, carry).to_vec()
        })
    };
    let sub = |ty, a, b, borrow| {
        evaluate(a, b, |builder| {
            let (a, b) = (register(builder, 4, ty), register(builder, 5, ty));
            let borrow = builder.iconst(Type::I8, borrow);
            builder.sub_with_borrow(a, b, borrow).to_vec()
        })
    };
    assert_eq!(add(Type::I64, u64::MAX, 0, 1), [0, 1, 0]);
    assert_eq!(add(Type::I64, u64::MAX >> 1, 0, 1), [1 << 63, 0, 1]);
    assert_eq!(add(Type::I64, u64::MAX, u64::MAX, 1), [u64::MAX, 1, 0]);
    assert_eq!(add(Type::I8, 0x80, 0x80, 0), [0, 1, 1]);
    assert_eq!(sub(Type::I64, 0, 0, 1), [u64::MAX, 1, 0]);
    assert_eq!(sub(Type::I64, 1 << 63, 1, 0), [u64::MAX >> 1, 0, 1]);
    assert_eq!(sub(Type::I32, 5, 5, 0), [0, 0, 0]);
    assert_eq!(sub(Type::I16, 3, 0xffff, 1), [3, 1, 0]);
}

#[test]
fn bit_fields() {
    let field = |a, lo, len, signed| {
        evaluate(a, 0, |b| {
            let a = register(b, 4, Type::I32);
            vec![b.extract(a, lo, len, signed)]
        })[0]
    };
    assert_eq!(field(0xffff_ffff_8765_4321, 0, 32, false), 0x8765_4321);
    assert_eq!(field(0x8765_4321, 28, 4, false), 8);
    assert_eq!(field(0x8765_4321, 28, 4, true), 0xffff_fff8);
    assert_eq!(field(0x8765_4321, 0, 1, true), 0xffff_ffff);
    let replaced = |a, b, lo, len| {
        evaluate(a, b, |builder| {
            let (a, b) = (builder.get(Slot(4)), builder.get(Slot(5)));
            vec![builder.deposit(a, b, lo, len)]
        })[0]
    };
    assert_eq!(replaced(u64::MAX, 0x10, 4, 8), 0xffff_ffff_ffff_f10f);
    assert_eq!(replaced(1, u64::MAX, 63, 1), 1 << 63 | 1);
    assert_eq!(replaced(1, 77, 0, 64), 77);
}

/// Operands around every boundary, with rubbish above narrow ones.
const SAMPLES: [u64; 19] = [
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    63,
    0x7f,
    0x80,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 63,
    u64::MAX,
    u64::MAX - 1,
    0x8000_8080_7fff_7f80,
];

const BINARY: [BinOp; 25] = [
    BinOp::Add,
    BinOp::Sub,
    BinOp::Mul,
    BinOp::MulHiU,
    BinOp::MulHiS,
    BinOp::MulHiSU,
    BinOp::DivU,
    BinOp::DivS,
    BinOp::RemU,
    BinOp::RemS,
    BinOp::And,
    BinOp::Or,
    BinOp::Xor,
    BinOp::AndNot,
    BinOp::Shl,
    BinOp::ShrU,
    BinOp::ShrS,
    BinOp::Rotl,
    BinOp::Rotr,
    BinOp::MinU,
    BinOp::MaxU,
    BinOp::MinS,
    BinOp::MaxS,
    BinOp::ClMul,
    BinOp::ClMulHi,
];

/// Calls `f` with every operand pair and every way to give them: registers or constants.
fn for_each_form(ty: Type, mut f: impl FnMut(&str, u64, u64, &dyn Fn(&mut Builder) -> [Value; 2])) {
    for a in SAMPLES {
        for b in SAMPLES {
            let mask = ty.mask();
            f("registers", a, b, &|x| [register(x, 4, ty), register(x, 5, ty)]);
            f("right constant", a, b, &|x| [register(x, 4, ty), x.iconst(ty, b & mask)]);
            f("left constant", a, b, &|x| [x.iconst(ty, a & mask), register(x, 5, ty)]);
        }
    }
}

#[test]
fn two_operand_operations_in_every_form() {
    for ty in INTS {
        for op in BINARY {
            for_each_form(ty, |form, a, b, operands| {
                let got = evaluate(a, b, |builder| {
                    let [a, b] = operands(builder);
                    vec![builder.bin(op, a, b)]
                })[0];
                let want = eval::binary(op, ty, a & ty.mask(), b & ty.mask());
                assert_eq!(got, want, "{op:?} {ty:?} {a:#x} {b:#x} {form}");
            });
        }
    }
}

#[test]
fn comparisons_in_every_form_alone_and_in_branches_and_selects() {
    for ty in INTS {
        for cond in [Cond::Eq, Cond::Ne, Cond::LtU, Cond::GeU, Cond::LtS, Cond::GeS] {
            for_each_form(ty, |form, a, b, operands| {
                let got = evaluate(a, b, |builder| {
                    let [x, y] = operands(builder);
                    let c = builder.compare(cond, x, y);
                    let (yes, no) = (builder.iconst(Type::I16, 300), builder.iconst(Type::I16, 200));
                    vec![c, builder.select(c, yes, no)]
                });
                let want = eval::compare(cond, ty, a & ty.mask(), b & ty.mask());
                let context = format!("{cond:?} {ty:?} {a:#x} {b:#x} {form}");
                assert_eq!(got[..2], [u64::from(want), if want { 300 } else { 200 }], "{context}");
                assert_eq!(branch_taken(a, b, cond, operands), want, "branch {context}");
            });
        }
    }
}

fn branch_taken(a: u64, b: u64, cond: Cond, operands: &dyn Fn(&mut Builder) -> [Value; 2]) -> bool {
    let mut builder = Builder::new(SLOTS, 0, MODEL);
    builder.insn_start(0, 4);
    let [x, y] = operands(&mut builder);
    let c = builder.compare(cond, x, y);
    builder.end(Terminal::Branch { c, taken: 0x40, not_taken: 4 });
    let code = Code::compile(&builder.finish()).unwrap();
    let (mut cpu, mut machine) = (Cpu::default(), Machine::new());
    (cpu.near[4], cpu.near[5]) = (a, b);
    // SAFETY: compiled for this CPU; nothing is linked.
    assert_eq!(unsafe { interp::run(&code, &mut cpu, &mut machine, 1) }, End::Leave);
    cpu.header.pc == 0x40
}

#[test]
fn one_operand_operations_and_extensions() {
    let ops =
        [UnOp::Not, UnOp::Neg, UnOp::Clz, UnOp::Ctz, UnOp::Popcnt, UnOp::Bswap, UnOp::Bitrev, UnOp::OrBytes];
    for ty in INTS {
        for a in SAMPLES {
            for op in ops {
                let got = evaluate(a, 0, |b| {
                    let a = register(b, 4, ty);
                    vec![b.un(op, a)]
                })[0];
                assert_eq!(got, eval::unary(op, ty, a & ty.mask()), "{op:?} {ty:?} {a:#x}");
            }
            let got = evaluate(a, 0, |b| {
                let a = register(b, 4, ty);
                vec![b.sext(Type::I64, a), b.zext(Type::I64, a)]
            });
            assert_eq!(got[..2], [eval::sign_extend(a, ty.bits()) as u64, a & ty.mask()], "{ty:?} {a:#x}");
        }
    }
}

#[test]
fn extensions_to_vectors_fill_them() {
    let set = |signed| {
        let mut b = Builder::new(SLOTS, 0, MODEL);
        b.insn_start(0, 4);
        let a = register(&mut b, 4, Type::I16);
        let to = Type::V128;
        let wide = b.push(if signed { Op::Sext { to, a } } else { Op::Zext { to, a } });
        b.set(Slot(8), wide);
        b.end(Terminal::Exit { offset: 4 });
        let code = Code::compile(&b.finish()).unwrap();
        let (mut cpu, mut machine) = (Cpu::default(), Machine::new());
        cpu.near[4] = 0x7_8001;
        // SAFETY: compiled for this CPU; nothing is linked.
        assert_eq!(unsafe { interp::run(&code, &mut cpu, &mut machine, 1) }, End::Exit);
        [cpu.near[6], cpu.near[7]]
    };
    assert_eq!(set(false), [0x8001, 0]);
    assert_eq!(set(true), [0xffff_ffff_ffff_8001, u64::MAX]);
}
