//! Blocks of IR for any input: every operation, operands of the right types, and now and then something wrong in one
//! place, which the verifier must find or the passes must cope with.

use crate::input::Input;
use isomer_ir::{
    Block, Builder, LinkHint, MmuIndex, Op, Slot, SlotDesc, Terminal, Type, Value,
    op::{BinOp, Cond, FmaOp, FpBinOp, FpCond, FpOverflow, RmwOp, UnOp, VecBinOp, VecUnOp},
    softfloat::{NanRule, Tininess},
    types::{Align, Endian, FpFormat, FpModel, HelperId, Lane, MemFlags, Order, Rounding},
};

const fn slot(name: &'static str, offset: u32, ty: Type) -> SlotDesc {
    SlotDesc { name, offset, ty }
}

/// Registers of every type, some of which overlap; the first is in the header.
pub const SLOTS: &[SlotDesc] = &[
    slot("fflags", 21, Type::I8),
    slot("x1", 512, Type::I64),
    slot("x2", 520, Type::I64),
    slot("w2", 520, Type::I32),
    slot("h2", 522, Type::I16),
    slot("b2.1", 521, Type::I8),
    slot("v0", 528, Type::V128),
    slot("d0", 528, Type::I64),
    slot("d0.high", 536, Type::I64),
    slot("v1", 544, Type::V128),
    slot("cf", 560, Type::I8),
];

const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
const ALL: [Type; 5] = [Type::I8, Type::I16, Type::I32, Type::I64, Type::V128];
const LANES: [Lane; 4] = [Lane::B, Lane::H, Lane::S, Lane::D];
const FORMATS: [FpFormat; 4] = [FpFormat::F16, FpFormat::Bf16, FpFormat::F32, FpFormat::F64];
const ROUNDINGS: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::TowardZero,
    Rounding::Down,
    Rounding::Up,
    Rounding::NearestAway,
    Rounding::Dynamic,
];
const ORDERS: [Order; 5] = [Order::Relaxed, Order::Acquire, Order::Release, Order::AcqRel, Order::SeqCst];
const CONDS: [Cond; 6] = [Cond::Eq, Cond::Ne, Cond::LtU, Cond::GeU, Cond::LtS, Cond::GeS];
const FP_CONDS: [FpCond; 4] = [FpCond::Eq, FpCond::Lt, FpCond::Le, FpCond::Unordered];
const OVERFLOWS: [FpOverflow; 4] = [
    FpOverflow::SaturateNanMax,
    FpOverflow::SaturateNanZero,
    FpOverflow::Indefinite,
    FpOverflow::SaturateNanMin,
];
const FMA_OPS: [FmaOp; 4] = [FmaOp::MulAdd, FmaOp::MulSub, FmaOp::NegMulAdd, FmaOp::NegMulSub];
#[rustfmt::skip]
const UN_OPS: [UnOp; 8] = {
    use UnOp::*;
    [Not, Neg, Clz, Ctz, Popcnt, Bswap, Bitrev, OrBytes]
};
#[rustfmt::skip]
const BIN_OPS: [BinOp; 25] = {
    use BinOp::*;
    [
        Add, Sub, Mul, MulHiU, MulHiS, MulHiSU, DivU, DivS, RemU, RemS, And, Or, Xor, AndNot, Shl, ShrU, ShrS, Rotl,
        Rotr, MinU, MaxU, MinS, MaxS, ClMul, ClMulHi,
    ]
};
#[rustfmt::skip]
const RMW_OPS: [RmwOp; 10] = {
    use RmwOp::*;
    [Xchg, Add, And, AndNot, Or, Xor, MinS, MaxS, MinU, MaxU]
};
#[rustfmt::skip]
const FP_OPS: [FpBinOp; 12] = {
    use FpBinOp::*;
    [Add, Sub, Mul, Div, MinNumber, MaxNumber, Minimum, Maximum, MinNum2008, MaxNum2008, MinSelect, MaxSelect]
};
#[rustfmt::skip]
const VEC_UN_OPS: [VecUnOp; 10] = {
    use VecUnOp::*;
    [Not, Neg, Abs, Clz, Popcnt, Reverse, WidenLowU, WidenLowS, WidenHighU, WidenHighS]
};
#[rustfmt::skip]
const VEC_BIN_OPS: [VecBinOp; 31] = {
    use VecBinOp::*;
    [
        Add, Sub, Mul, AddSatU, AddSatS, SubSatU, SubSatS, MinU, MinS, MaxU, MaxS, AvgU, And, Or, Xor, AndNot, CmpEq,
        CmpGtU, CmpGtS, ShlV, ShrUV, ShrSV, ZipLow, ZipHigh, UnzipEven, UnzipOdd, Table, Narrow, NarrowSatS,
        NarrowSatSU, NarrowSatU,
    ]
};

/// The block that `input` stands for. [`isomer_ir::verify::verify`] accepts it unless the input asks for damage.
pub fn block(input: &mut Input<'_>) -> Block {
    let fp = FpModel {
        nan: input.pick(&[NanRule::Canonical, NanRule::Arm, NanRule::Power, NanRule::X86]),
        tininess: input.pick(&[Tininess::Before, Tininess::After]),
        flush_inputs: input.flag(),
        flush_outputs: input.flag(),
    };
    let damages = input.u8().saturating_sub(250);
    let mut maker = Maker { b: Builder::new(SLOTS, input.u32(), fp), types: Vec::new(), input };
    maker.b.insn_start(0, 4);
    while !maker.input.is_empty() {
        maker.step();
    }
    maker.end();
    let mut block = maker.b.finish();
    (0..damages).for_each(|i| damage(&mut block, damages.wrapping_mul(37).wrapping_add(i)));
    block
}

/// Makes one thing wrong, or keeps it right by chance.
fn damage(block: &mut Block, how: u8) {
    if block.insts.is_empty() {
        return;
    }
    let at = usize::from(how) * 7 % block.insts.len();
    match how % 6 {
        0 => block.len = block.len.wrapping_add(1),
        1 => block.insts.swap_remove(at).op = Op::Fence { order: Order::Relaxed },
        // Without results, `first` means nothing.
        2 if block.results(&block.insts[at]).next().is_some() => block.insts[at].first.0 ^= 1,
        3 => block.insts[at].op = block.insts[at].op.clone_with(|v| Value(v.0.wrapping_add(1))),
        4 => drop(block.value_types.pop()),
        _ => block.value_types.reverse(),
    }
}

struct Maker<'a, 'b> {
    b: Builder,
    /// Types of the values so far.
    types: Vec<Type>,
    input: &'a mut Input<'b>,
}

impl Maker<'_, '_> {
    fn push(&mut self, op: Op) -> Value {
        let (types, count) = op.results(|slot| SLOTS[usize::from(slot.0)].ty);
        self.types.extend_from_slice(&types[..count]);
        self.b.push(op)
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        self.input.pick(choices)
    }

    fn konst(&mut self, ty: Type) -> Value {
        let bits = self.input.number();
        match ty {
            Type::V128 => {
                let high = self.input.number();
                self.push(Op::ConstVec { bits: u128::from(bits) | u128::from(high) << 64 })
            }
            _ => self.push(Op::Const { ty, bits: bits & ty.mask() }),
        }
    }

    /// A value of that type: a recent one, a register's, a constant.
    fn value(&mut self, ty: Type) -> Value {
        let choice = self.input.u8();
        let recent = usize::from(choice & 0x3f);
        let seen = || (0..self.types.len()).rev().filter(|&v| self.types[v] == ty).map(|v| Value(v as u32));
        let slots = || (0..).zip(SLOTS).filter(|(_, slot)| slot.ty == ty).map(|(number, _)| Slot(number));
        if choice & 0x80 == 0
            && let Some(value) = seen().nth(recent).or_else(|| seen().next())
        {
            return value;
        }
        match slots().nth(recent & 3) {
            Some(slot) if choice & 0x40 == 0 => self.push(Op::Get { slot }),
            _ => self.konst(ty),
        }
    }

    fn values<const N: usize>(&mut self, ty: Type) -> [Value; N] {
        std::array::from_fn(|_| self.value(ty))
    }

    fn flags(&mut self) -> MemFlags {
        MemFlags {
            mmu: MmuIndex(self.input.below(4) as u8),
            order: self.pick(&ORDERS),
            endian: self.pick(&[Endian::Little, Endian::Big]),
            align: self.pick(&[Align::Any, Align::Natural]),
        }
    }

    /// What is in memory for a value of `ty`.
    fn memory(&mut self, ty: Type) -> Type {
        if ty.is_int() { ALL[self.input.below(ty as usize + 1)] } else { ty }
    }

    fn step(&mut self) {
        match self.input.u8() % 16 {
            0 => {
                let gap = u32::from(self.input.u8() & 6);
                self.b.insn_start(self.b.len() + gap, 4);
            }
            1 | 2 => {
                let slot = Slot(self.input.below(SLOTS.len()) as u16);
                let value = self.value(SLOTS[usize::from(slot.0)].ty);
                self.push(Op::Set { slot, value });
            }
            3 => self.access(),
            4 => self.float(),
            5 => self.vector_float(),
            6 | 7 => self.vector(),
            8 => self.call(),
            9..=11 => self.convert(),
            _ => self.integer(),
        }
    }

    fn integer(&mut self) {
        let ty = self.pick(&INTS);
        let op = match self.input.u8() % 8 {
            0 => Op::Unary { op: self.pick(&UN_OPS), ty, a: self.value(ty) },
            1 => Op::AddCarry { ty, a: self.value(ty), b: self.value(ty), carry: self.value(Type::I8) },
            2 => Op::SubBorrow { ty, a: self.value(ty), b: self.value(ty), borrow: self.value(Type::I8) },
            3 => Op::Compare { cond: self.pick(&CONDS), ty, a: self.value(ty), b: self.value(ty) },
            4 => {
                let ty = self.pick(&ALL);
                Op::Select { ty, c: self.value(Type::I8), a: self.value(ty), b: self.value(ty) }
            }
            _ => Op::Binary { op: self.pick(&BIN_OPS), ty, a: self.value(ty), b: self.value(ty) },
        };
        self.push(op);
    }

    fn convert(&mut self) {
        let narrow = self.input.below(4);
        let wide = ALL[narrow + 1 + self.input.below(4 - narrow)];
        let narrow = ALL[narrow];
        let lo = self.input.below(narrow.bits() as usize) as u8;
        let len = 1 + self.input.below(narrow.bits() as usize - usize::from(lo)) as u8;
        let op = match self.input.u8() % 6 {
            0 => Op::Zext { to: wide, a: self.value(narrow) },
            1 if wide.is_int() => Op::Sext { to: wide, a: self.value(narrow) },
            2 => Op::Extract { ty: narrow, a: self.value(narrow), lo, len, signed: self.input.flag() },
            3 => Op::Deposit { ty: narrow, a: self.value(narrow), b: self.value(narrow), lo, len },
            4 => Op::PcRel { offset: self.input.number() as i64 },
            _ => Op::Trunc { to: narrow, a: self.value(wide) },
        };
        self.push(op);
    }

    fn access(&mut self) {
        let (ty, any) = (self.pick(&INTS), self.pick(&ALL));
        let (addr, flags) = (self.value(Type::I64), self.flags());
        let op = match self.input.u8() % 8 {
            0 => Op::Rmw { op: self.pick(&RMW_OPS), ty, addr, value: self.value(ty), flags },
            1 => Op::Cas { ty, addr, expected: self.value(ty), new: self.value(ty), flags },
            2 => Op::CasPair { addr, expected: self.values(Type::I64), new: self.values(Type::I64), flags },
            3 => Op::LoadReserve { ty, addr, flags },
            4 => Op::StoreCond { ty, addr, value: self.value(ty), flags },
            5 => Op::Fence { order: flags.order },
            6 => Op::Store { mem: self.memory(any), addr, value: self.value(any), flags },
            _ => Op::Load { ty: any, mem: self.memory(any), signed: self.input.flag(), addr, flags },
        };
        self.push(op);
    }

    fn float(&mut self) {
        let (fmt, rounding, flag) = (self.pick(&FORMATS), self.pick(&ROUNDINGS), self.input.flag());
        let [a, b, c] = self.values(fmt.ty());
        let int = self.pick(&[Type::I32, Type::I64]);
        let op = match self.input.u8() % 8 {
            0 => Op::FpBinary { op: self.pick(&FP_OPS), fmt, rounding, a, b },
            1 => Op::FpSqrt { fmt, rounding, a },
            2 => Op::FpFma { op: self.pick(&FMA_OPS), fmt, rounding, a, b, c },
            3 => Op::FpCompare { cond: self.pick(&FP_CONDS), fmt, signalling: flag, a, b },
            4 => Op::FpConvert { from: fmt, to: self.pick(&FORMATS), rounding, a },
            5 => Op::FpToInt { fmt, to: int, signed: flag, overflow: self.pick(&OVERFLOWS), rounding, a },
            6 => Op::FpFromInt { fmt, from: int, signed: flag, rounding, a: self.value(int) },
            _ => Op::FpRound { fmt, rounding, inexact: flag, a },
        };
        self.push(op);
    }

    fn vector_float(&mut self) {
        let (fmt, rounding) = (self.pick(&FORMATS), self.pick(&ROUNDINGS));
        let [a, b, c] = self.values(Type::V128);
        let op = match self.input.u8() % 4 {
            0 => Op::VecFpBinary { op: self.pick(&FP_OPS), fmt, rounding, a, b },
            1 => Op::VecFpFma { op: self.pick(&FMA_OPS), fmt, rounding, a, b, c },
            2 => Op::VecFpSqrt { fmt, rounding, a },
            _ => Op::VecFpCompare { cond: self.pick(&FP_CONDS), fmt, signalling: self.input.flag(), a, b },
        };
        self.push(op);
    }

    fn vector(&mut self) {
        let lane = self.pick(&LANES);
        let [a, b] = self.values(Type::V128);
        let index = self.input.below(lane.count() as usize) as u8;
        let op = match self.input.u8() % 9 {
            0 => Op::VecUnary { op: self.pick(&VEC_UN_OPS[..6]), lane, a },
            1 => Op::VecUnary { op: self.pick(&VEC_UN_OPS), lane: self.pick(&LANES[..3]), a },
            2 => Op::VecSelect { m: self.value(Type::V128), a, b },
            3 => {
                let amount = self.input.below(lane.bits() as usize) as u8;
                Op::VecShift { lane, left: self.input.flag(), signed: self.input.flag(), amount, a }
            }
            4 => Op::VecSplat { lane, a: self.value(lane.ty()) },
            5 => Op::VecGet { lane, index, a },
            6 => Op::VecSet { lane, index, a, b: self.value(lane.ty()) },
            7 => Op::VecShuffle { bytes: std::array::from_fn(|_| self.input.u8()), a, b },
            _ => Op::VecBinary { op: self.pick(&VEC_BIN_OPS), lane: self.pick(&LANES[1..]), a, b },
        };
        self.push(op);
    }

    fn call(&mut self) {
        if self.input.flag() {
            let (c, code, value) = (self.value(Type::I8), self.input.u32(), self.value(Type::I64));
            self.push(Op::TrapIf { c, code, value });
            return;
        }
        let count = self.input.below(5);
        let args = std::array::from_fn(|i| {
            let ty = self.pick(&INTS);
            (i < count).then(|| self.value(ty))
        });
        let result = if self.input.flag() { Some(self.pick(&INTS)) } else { None };
        let helper = HelperId(self.input.u16());
        self.push(Op::Call { helper, args, result });
    }

    /// The terminal is made of zeros once the input is used up, so its kind comes from the last value instead.
    fn end(&mut self) {
        let kind = self.types.len();
        let offset = (kind as i64) << 2;
        let terminal = match kind % 8 {
            0 => return,
            1 => Terminal::Jump { offset, hint: LinkHint::Call { return_offset: 4 } },
            2 => Terminal::Indirect { pc: self.value(Type::I64), hint: LinkHint::Return },
            3 => Terminal::Trap { code: 2, value: Some(self.value(Type::I64)) },
            4 => Terminal::Exit { offset },
            5 => Terminal::ExitIndirect { pc: self.value(Type::I64) },
            _ => Terminal::Branch { c: self.value(Type::I8), taken: offset, not_taken: -offset },
        };
        self.b.end(terminal);
    }
}
