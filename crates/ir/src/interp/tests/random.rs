//! Random blocks, run both ways.

use super::machine::{Cpu, MODEL, Machine, REGISTERS, SLOTS, describe};
use crate::{
    Block, Builder, Terminal,
    block::LinkHint,
    interp::{self, Code, End, word::Opc},
    op::{BinOp, Cond, FmaOp, FpBinOp, FpCond, FpOverflow, Op, RmwOp, UnOp, VecBinOp, VecUnOp},
    reference,
    state::NO_RESERVATION,
    types::{
        Align, Endian, FpFormat, HelperId, Lane, MemFlags, MmuIndex, Order, Rounding, Slot, Type, Value,
    },
};
use proptest::prelude::*;

/// A small generator; proptest chooses its seed.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }
    /// Bits that make trouble more often than chance would.
    pub(super) fn bits(&mut self) -> u64 {
        match self.below(11) {
            8 => (self.below(4000) as f64 / 8.0 - 250.0).to_bits(),
            9 => u64::from((self.below(4000) as f32 / 8.0 - 250.0).to_bits()) | !0 << 32,
            // Anywhere near a boundary of some format.
            10 => (self.pick(&[0u64, 0x38, 0x43, 0x41, 0x47, 0x7f, 0xc3]) << 56)
                .wrapping_add(self.below(1 << 54)),
            0 => self.below(70),
            1 => (self.below(70) as i64 - 70) as u64,
            2 => 1 << self.below(64),
            3 => (1u64 << self.below(64)).wrapping_sub(1),
            4 => {
                self.pick(&[1 << 31, 1 << 63, 0x7fff_ffff, 0xffff_ffff, 0x8000, 0x7f, 0x80, u64::MAX, 0x1ff8])
            }
            5 => self.next() as i32 as u64,
            6 => {
                self.pick(&[0x3ff0_0000_0000_0000, 0x7ff0_0000_0000_0001, 0xffff_ffff_3f80_0000, 0x7fc0_0000])
            }
            _ => self.next(),
        }
    }
}

const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
const WIDE: [Type; 2] = [Type::I32, Type::I64];
const LANES: [Lane; 4] = [Lane::B, Lane::H, Lane::S, Lane::D];
const FORMATS: [FpFormat; 4] = [FpFormat::F16, FpFormat::Bf16, FpFormat::F32, FpFormat::F64];
const CONDS: [Cond; 6] = [Cond::Eq, Cond::Ne, Cond::LtU, Cond::GeU, Cond::LtS, Cond::GeS];
const UNARY: [UnOp; 8] =
    [UnOp::Not, UnOp::Neg, UnOp::Clz, UnOp::Ctz, UnOp::Popcnt, UnOp::Bswap, UnOp::Bitrev, UnOp::OrBytes];
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
const FUSED: [BinOp; 6] = [BinOp::Add, BinOp::And, BinOp::Shl, BinOp::ShrU, BinOp::ShrS, BinOp::Sub];
const RMW: [RmwOp; 10] = [
    RmwOp::Xchg,
    RmwOp::Add,
    RmwOp::And,
    RmwOp::AndNot,
    RmwOp::Or,
    RmwOp::Xor,
    RmwOp::MinS,
    RmwOp::MaxS,
    RmwOp::MinU,
    RmwOp::MaxU,
];
const VEC_UNARY: [VecUnOp; 6] =
    [VecUnOp::Not, VecUnOp::Neg, VecUnOp::Abs, VecUnOp::Clz, VecUnOp::Popcnt, VecUnOp::Reverse];
const VEC_WIDEN: [VecUnOp; 4] =
    [VecUnOp::WidenLowU, VecUnOp::WidenLowS, VecUnOp::WidenHighU, VecUnOp::WidenHighS];
const VEC_BINARY: [VecBinOp; 27] = [
    VecBinOp::Add,
    VecBinOp::Sub,
    VecBinOp::Mul,
    VecBinOp::AddSatU,
    VecBinOp::AddSatS,
    VecBinOp::SubSatU,
    VecBinOp::SubSatS,
    VecBinOp::MinU,
    VecBinOp::MinS,
    VecBinOp::MaxU,
    VecBinOp::MaxS,
    VecBinOp::AvgU,
    VecBinOp::And,
    VecBinOp::Or,
    VecBinOp::Xor,
    VecBinOp::AndNot,
    VecBinOp::CmpEq,
    VecBinOp::CmpGtU,
    VecBinOp::CmpGtS,
    VecBinOp::ShlV,
    VecBinOp::ShrUV,
    VecBinOp::ShrSV,
    VecBinOp::ZipLow,
    VecBinOp::ZipHigh,
    VecBinOp::UnzipEven,
    VecBinOp::UnzipOdd,
    VecBinOp::Table,
];
const VEC_NARROW: [VecBinOp; 4] =
    [VecBinOp::Narrow, VecBinOp::NarrowSatS, VecBinOp::NarrowSatSU, VecBinOp::NarrowSatU];
const ROUNDINGS: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::TowardZero,
    Rounding::Down,
    Rounding::Up,
    Rounding::NearestAway,
    Rounding::Dynamic,
];
const ORDERS: [Order; 5] = [Order::Relaxed, Order::Acquire, Order::Release, Order::AcqRel, Order::SeqCst];
const FP_BINARY: [FpBinOp; 12] = [
    FpBinOp::Add,
    FpBinOp::Sub,
    FpBinOp::Mul,
    FpBinOp::Div,
    FpBinOp::MinNumber,
    FpBinOp::MaxNumber,
    FpBinOp::Minimum,
    FpBinOp::Maximum,
    FpBinOp::MinNum2008,
    FpBinOp::MaxNum2008,
    FpBinOp::MinSelect,
    FpBinOp::MaxSelect,
];
const FMAS: [FmaOp; 4] = [FmaOp::MulAdd, FmaOp::MulSub, FmaOp::NegMulAdd, FmaOp::NegMulSub];
const FP_CONDS: [FpCond; 4] = [FpCond::Eq, FpCond::Lt, FpCond::Le, FpCond::Unordered];
const FP_OVERFLOWS: [FpOverflow; 4] = [
    FpOverflow::SaturateNanMax,
    FpOverflow::SaturateNanZero,
    FpOverflow::Indefinite,
    FpOverflow::SaturateNanMin,
];

struct Generator {
    rng: Rng,
    b: Builder,
    /// Values defined so far.
    values: Vec<Value>,
}

impl Generator {
    fn push(&mut self, op: Op) -> Value {
        let first = self.b.push(op);
        let (_, count) = op.results(|slot| SLOTS[usize::from(slot.0)].ty);
        self.values.extend((0..count as u32).map(|i| Value(first.0 + i)));
        first
    }

    /// An operand of a type: mostly a recent value, else a constant or register.
    fn value(&mut self, ty: Type) -> Value {
        let known: Vec<_> = self.values.iter().copied().filter(|&v| self.b.type_of(v) == ty).collect();
        let recent = known.len().saturating_sub(if self.rng.flip() { 4 } else { 40 });
        match self.rng.below(8) {
            0 if ty != Type::V128 => {
                let bits = self.rng.bits() & ty.mask();
                self.push(Op::Const { ty, bits })
            }
            1 if ty == Type::I64 => {
                let slot = Slot(self.rng.below(REGISTERS.into()) as u16);
                self.push(Op::Get { slot })
            }
            _ if !known.is_empty() => self.rng.pick(&known[recent..]),
            _ if ty == Type::V128 => {
                let bits = u128::from(self.rng.bits()) << 64 | u128::from(self.rng.bits());
                self.push(Op::ConstVec { bits })
            }
            _ => {
                let a = self.push(Op::Get { slot: Slot(2) });
                if ty == Type::I64 { a } else { self.push(Op::Trunc { to: ty, a }) }
            }
        }
    }

    /// An address that is usually in RAM.
    fn address(&mut self) -> Value {
        let v = self.value(Type::I64);
        if self.rng.below(8) == 0 {
            return v;
        }
        let mask = if self.rng.below(4) > 0 { 0x1fe0 } else { 0x1fff };
        let bits = self.push(Op::Const { ty: Type::I64, bits: mask });
        let masked = self.push(Op::Binary { op: BinOp::And, ty: Type::I64, a: v, b: bits });
        if self.rng.flip() {
            return masked;
        }
        let bits = self.rng.below(32);
        let disp = self.push(Op::Const { ty: Type::I64, bits });
        self.push(Op::Binary { op: BinOp::Add, ty: Type::I64, a: masked, b: disp })
    }

    fn flags(&mut self) -> MemFlags {
        MemFlags {
            mmu: MmuIndex(self.rng.pick(&[0, 0, 0, 1, 2, 70])),
            order: if self.rng.flip() { Order::Relaxed } else { self.rng.pick(&ORDERS) },
            endian: self.rng.pick(&[Endian::Little, Endian::Little, Endian::Big]),
            align: self.rng.pick(&[Align::Any, Align::Natural]),
        }
    }

    fn step(&mut self) {
        match self.rng.below(32) {
            0..8 => self.integer(),
            8..11 => self.pattern(),
            11..14 => self.conversion(),
            14..20 => self.slot(),
            20..23 => self.memory(),
            23..25 => self.atomic(),
            25..27 => self.float(),
            27..30 => self.vector(),
            _ => self.escape(),
        }
    }

    fn integer(&mut self) {
        let ty = self.rng.pick(&INTS);
        let op = match self.rng.below(10) {
            0 => Op::Unary { op: self.rng.pick(&UNARY), ty, a: self.value(ty) },
            1 => Op::Compare { cond: self.rng.pick(&CONDS), ty, a: self.value(ty), b: self.value(ty) },
            2 => Op::Select { ty, c: self.value(Type::I8), a: self.value(ty), b: self.value(ty) },
            3 => {
                let zero = Op::Const { ty: Type::I8, bits: 0 };
                let (a, b) = (self.value(ty), self.value(ty));
                let carry = if self.rng.flip() { self.push(zero) } else { self.truth() };
                match self.rng.flip() {
                    true => Op::AddCarry { ty, a, b, carry },
                    false => Op::SubBorrow { ty, a, b, borrow: carry },
                }
            }
            _ => {
                let op = self.rng.pick(&BINARY);
                Op::Binary { op, ty, a: self.value(ty), b: self.value(ty) }
            }
        };
        self.push(op);
    }

    fn truth(&mut self) -> Value {
        let ty = self.rng.pick(&INTS);
        let op = Op::Compare { cond: self.rng.pick(&CONDS), ty, a: self.value(ty), b: self.value(ty) };
        self.push(op)
    }

    /// Pairs of operations that compilation makes one of.
    fn pattern(&mut self) {
        let ty = self.rng.pick(&[Type::I64, Type::I64, Type::I32]);
        let mut a = self.value(ty);
        for _ in 0..2 {
            let b = match self.rng.below(3) {
                0 => self.value(ty),
                1 => {
                    let low = self.value(Type::I32);
                    if ty == Type::I64 { self.push(Op::Zext { to: ty, a: low }) } else { low }
                }
                _ => {
                    let bits = self.rng.bits() & ty.mask();
                    self.push(Op::Const { ty, bits })
                }
            };
            let op = self.rng.pick(&FUSED);
            let (x, y) = if self.rng.below(4) == 0 { (b, a) } else { (a, b) };
            a = self.push(Op::Binary { op, ty, a: x, b: y });
        }
        if self.rng.below(3) == 0 {
            let op = Op::Compare { cond: self.rng.pick(&CONDS), ty, a, b: self.value(ty) };
            let c = self.push(op);
            let op = Op::Select { ty: Type::I64, c, a: self.value(Type::I64), b: self.value(Type::I64) };
            self.push(op);
        }
    }

    fn conversion(&mut self) {
        let from = self.rng.pick(&INTS);
        let to = self.rng.pick(&INTS);
        let a = self.value(from);
        let op = match (self.rng.below(6), to.cmp(&from)) {
            (0, _) => {
                let lo = self.rng.below(from.bits().into()) as u8;
                let len = self.rng.below((from.bits() - u32::from(lo)).into()) as u8 + 1;
                Op::Extract { ty: from, a, lo, len, signed: self.rng.flip() }
            }
            (1, _) => {
                let lo = self.rng.below(from.bits().into()) as u8;
                let len = self.rng.below((from.bits() - u32::from(lo)).into()) as u8 + 1;
                Op::Deposit { ty: from, a, b: self.value(from), lo, len }
            }
            (2, _) => Op::PcRel { offset: self.rng.pick(&[0, 4, -8, 1 << 20, 1 << 40]) },
            (_, std::cmp::Ordering::Greater) => match self.rng.flip() {
                true => Op::Zext { to, a },
                false => Op::Sext { to, a },
            },
            (_, std::cmp::Ordering::Less) => Op::Trunc { to, a },
            _ => Op::Unary { op: UnOp::Not, ty: from, a },
        };
        self.push(op);
    }

    fn slot(&mut self) {
        let registers_only = self.rng.flip();
        let count = if registers_only { u64::from(REGISTERS) } else { SLOTS.len() as u64 };
        let slot = Slot(self.rng.below(count) as u16);
        if self.rng.below(3) == 0 {
            self.push(Op::Get { slot });
        } else {
            let value = self.value(SLOTS[usize::from(slot.0)].ty);
            self.push(Op::Set { slot, value });
        }
    }

    fn memory(&mut self) {
        let mem = self.rng.pick(&[Type::I8, Type::I16, Type::I32, Type::I64, Type::V128]);
        let addr = self.address();
        let flags = if self.rng.flip() { MemFlags::plain(MmuIndex(0)) } else { self.flags() };
        let op = if self.rng.flip() {
            Op::Store { mem, addr, value: self.value(mem), flags }
        } else {
            let wider: Vec<_> = INTS.into_iter().filter(|&ty| ty >= mem).collect();
            let ty = if mem == Type::V128 { mem } else { self.rng.pick(&wider) };
            Op::Load { ty, mem, signed: mem != Type::V128 && self.rng.flip(), addr, flags }
        };
        self.push(op);
    }

    fn atomic(&mut self) {
        let ty = self.rng.pick(&INTS);
        let addr = self.address();
        let flags = self.flags().align(Align::Natural);
        let op = match self.rng.below(6) {
            0 => Op::Cas { ty, addr, expected: self.value(ty), new: self.value(ty), flags },
            1 => Op::CasPair {
                addr,
                expected: [self.value(Type::I64), self.value(Type::I64)],
                new: [self.value(Type::I64), self.value(Type::I64)],
                flags,
            },
            2 => Op::LoadReserve { ty, addr, flags },
            3 => Op::StoreCond { ty, addr, value: self.value(ty), flags },
            4 => Op::Fence { order: self.rng.pick(&ORDERS) },
            _ => Op::Rmw { op: self.rng.pick(&RMW), ty, addr, value: self.value(ty), flags },
        };
        self.push(op);
    }

    fn float(&mut self) {
        let fmt = self.rng.pick(&FORMATS);
        let (ty, rounding) = (fmt.ty(), self.rng.pick(&ROUNDINGS));
        let int = self.rng.pick(&WIDE);
        let op = match self.rng.below(8) {
            0 => Op::FpBinary {
                op: self.rng.pick(&FP_BINARY),
                fmt,
                rounding,
                a: self.value(ty),
                b: self.value(ty),
            },
            1 => Op::FpSqrt { fmt, rounding, a: self.value(ty) },
            2 => Op::FpFma {
                op: self.rng.pick(&FMAS),
                fmt,
                rounding,
                a: self.value(ty),
                b: self.value(ty),
                c: self.value(ty),
            },
            3 => Op::FpCompare {
                cond: self.rng.pick(&FP_CONDS),
                fmt,
                signalling: self.rng.flip(),
                a: self.value(ty),
                b: self.value(ty),
            },
            4 => Op::FpConvert { from: fmt, to: self.rng.pick(&FORMATS), rounding, a: self.value(ty) },
            5 => Op::FpToInt {
                fmt,
                to: int,
                signed: self.rng.flip(),
                overflow: self.rng.pick(&FP_OVERFLOWS),
                rounding,
                a: self.value(ty),
            },
            6 => Op::FpFromInt { fmt, from: int, signed: self.rng.flip(), rounding, a: self.value(int) },
            _ => Op::FpRound { fmt, rounding, inexact: self.rng.flip(), a: self.value(ty) },
        };
        self.push(op);
    }

    fn vector(&mut self) {
        let lane = self.rng.pick(&LANES);
        let ty = lane.ty();
        let index = self.rng.below(lane.count().into()) as u8;
        let fmt = self.rng.pick(&FORMATS);
        let rounding = self.rng.pick(&ROUNDINGS);
        let (a, b, m) = (self.value(Type::V128), self.value(Type::V128), self.value(Type::V128));
        let op = match self.rng.below(16) {
            0 => Op::VecUnary { op: self.rng.pick(&VEC_UNARY), lane, a },
            1 if lane != Lane::D => Op::VecUnary { op: self.rng.pick(&VEC_WIDEN), lane, a },
            2 if lane != Lane::B => Op::VecBinary { op: self.rng.pick(&VEC_NARROW), lane, a, b },
            3 => Op::VecSelect { m, a, b },
            4 => Op::VecShift {
                lane,
                left: self.rng.flip(),
                signed: self.rng.flip(),
                amount: self.rng.below(lane.bits().into()) as u8,
                a,
            },
            5 => Op::VecSplat { lane, a: self.value(ty) },
            6 | 7 => Op::VecGet { lane, index, a },
            8 => Op::VecSet { lane, index, a, b: self.value(ty) },
            9 => Op::VecShuffle { bytes: std::array::from_fn(|_| self.rng.below(40) as u8), a, b },
            10 => Op::VecFpBinary { op: self.rng.pick(&FP_BINARY), fmt, rounding, a, b },
            11 => Op::VecFpFma { op: self.rng.pick(&FMAS), fmt, rounding, a, b, c: m },
            12 => Op::VecFpSqrt { fmt, rounding, a },
            13 => {
                let cond = self.rng.pick(&FP_CONDS);
                Op::VecFpCompare { cond, fmt, signalling: self.rng.flip(), a, b }
            }
            14 => Op::Select { ty: Type::V128, c: self.value(Type::I8), a, b },
            _ => Op::VecBinary { op: self.rng.pick(&VEC_BINARY), lane, a, b },
        };
        self.push(op);
    }

    fn escape(&mut self) {
        let op = match self.rng.below(4) {
            0 => {
                let c = self.truth();
                let two = [c, self.truth()];
                let never = Op::Binary { op: BinOp::And, ty: Type::I8, a: two[0], b: two[1] };
                Op::TrapIf { c: self.push(never), code: self.rng.next() as u32, value: self.value(Type::I64) }
            }
            1 => {
                let slot = self.rng.pick(&[0, 2, 6, 10]);
                Op::Get { slot: Slot(slot) }
            }
            _ => {
                let count = self.rng.below(5) as usize;
                let types: Vec<_> = (0..count).map(|_| self.rng.pick(&INTS)).collect();
                let args: Vec<_> = types.into_iter().map(|ty| self.value(ty)).collect();
                let result = if self.rng.flip() { Some(self.rng.pick(&INTS)) } else { None };
                Op::Call {
                    helper: HelperId(self.rng.pick(&[0, 0, 1, 3])),
                    args: std::array::from_fn(|i| args.get(i).copied()),
                    result,
                }
            }
        };
        self.push(op);
    }

    fn terminal(&mut self) -> Terminal {
        let offset = self.rng.pick(&[0, 8, -64, 1 << 33]);
        match self.rng.below(10) {
            0 => Terminal::Jump { offset, hint: LinkHint::None },
            1 => Terminal::Indirect { pc: self.value(Type::I64), hint: LinkHint::Return },
            2 => {
                let mask = self.push(Op::Const { ty: Type::I64, bits: !1 });
                let a = self.address();
                let pc = self.push(Op::Binary { op: BinOp::And, ty: Type::I64, a, b: mask });
                Terminal::Indirect { pc, hint: LinkHint::None }
            }
            3 => Terminal::Trap { code: 3, value: Some(self.value(Type::I64)) },
            4 => Terminal::Exit { offset },
            5 => Terminal::ExitIndirect { pc: self.value(Type::I64) },
            6 => Terminal::Branch { c: self.value(Type::I8), taken: offset, not_taken: 4 },
            _ => Terminal::Branch { c: self.truth(), taken: offset, not_taken: 4 },
        }
    }
}

fn random_block(seed: u64, len: u32) -> Block {
    let mut g = Generator { rng: Rng::new(seed), b: Builder::new(SLOTS, 0, MODEL), values: Vec::new() };
    for i in 0..len {
        if i % 3 == 0 {
            g.b.insn_start(i * 2, 4);
        }
        g.step();
    }
    let terminal = g.terminal();
    g.b.end(terminal);
    g.b.finish()
}

fn random_cpu(seed: u64) -> Cpu {
    let mut rng = Rng::new(seed);
    let mut cpu = Cpu::default();
    cpu.near.iter_mut().chain(&mut cpu.far).for_each(|word| *word = rng.bits());
    cpu.header.pc = 0x4000_0ff0;
    cpu.header.insns = 1000;
    cpu.header.rounding = rng.below(5) as u8 * rng.below(2) as u8;
    cpu.header.fp_flags = rng.below(2) as u8;
    cpu.header.temps.fill(0xdead_beef_dead_beef);
    cpu
}

/// Runs a block both ways and compares everything visible; what ended it.
fn check(block: &Block, cpu: &Cpu) -> Option<End> {
    let code = Code::compile(block).ok()?;
    let (mut expected, mut actual) = (cpu.clone(), cpu.clone());
    let (mut slow, mut fast) = (Machine::new(), Machine::new());
    // SAFETY: the CPU has the block's slots; nothing is linked.
    let (want, got) = unsafe {
        let want = reference::run_block(block, &mut expected, &mut slow);
        (want, interp::run(&code, &mut actual, &mut fast, 1))
    };
    let listing =
        || block.insts.iter().map(|i| format!("{:?} = {}\n", i.first, describe(&i.op))).collect::<String>();
    assert_eq!(want, got, "\n{}{:?}", listing(), block.terminal);
    assert_eq!(slow.log, fast.log, "\n{}", listing());
    // A reservation is named by its host address, and each machine has RAM of its own.
    for (cpu, machine) in [(&mut expected, &slow), (&mut actual, &fast)] {
        if cpu.header.reserve_host != NO_RESERVATION {
            cpu.header.reserve_host -= machine.ram.0.as_ptr().addr() as u64;
        }
    }
    let (expected, actual) = (expected.visible(), actual.visible());
    let words = expected.near.iter().chain(&expected.far).zip(actual.near.iter().chain(&actual.far));
    for (i, (want, got)) in words.enumerate() {
        assert_eq!(want, got, "word {i}\n{}{:?}", listing(), block.terminal);
    }
    assert_eq!(expected.header, actual.header, "\n{}", listing());
    let changed = (0..slow.ram.0.len()).find(|&i| slow.ram.0[i] != fast.ram.0[i]);
    assert_eq!(changed, None, "first byte that differs\n{}", listing());
    Some(got)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn random_blocks_run_as_the_reference_says(seed: u64, len in 1u32..48) {
        check(&random_block(seed, len), &random_cpu(seed));
    }
}

#[test]
fn random_blocks_reach_every_end_and_mostly_compile() {
    let ends: Vec<_> =
        (0..600).filter_map(|seed| check(&random_block(seed, 20), &random_cpu(seed))).collect();
    assert!(ends.len() > 590, "only {} of 600 compiled", ends.len());
    let count = |f: fn(&End) -> bool| ends.iter().filter(|&end| f(end)).count();
    assert!(count(|e| matches!(e, End::Leave)) > 100);
    assert!(count(|e| matches!(e, End::Exit)) > 20);
    assert!(count(|e| matches!(e, End::Trap { .. })) > 20);
    assert!(count(|e| matches!(e, End::Fault { .. })) > 100);
}

/// A block as a RISC-V lifter makes them: each instruction reads registers and sets one, or stores, or ends the block.
fn guest_like_block(rng: &mut Rng) -> Block {
    let mut b = Builder::new(SLOTS, 0, MODEL);
    let flags = MemFlags::plain(MmuIndex(0));
    let kinds: Vec<_> = (0..rng.below(3) + 1).map(|_| rng.below(16)).collect();
    for i in 0..rng.below(6) as u32 {
        b.insn_start(i * 4, 4);
        let [d, x, y] = [(); 3].map(|()| Slot(rng.below(REGISTERS.into()) as u16));
        let (vx, vy) = (b.get(x), b.get(y));
        let imm = rng.pick(&[0, 1, 3, 8, 255, 4000, !0, !7]);
        let value = match rng.pick(&kinds) {
            0 => vx,
            1 => b.iconst(Type::I64, imm),
            2 => b.pc_rel(imm as i64),
            3 => b.bin_imm(BinOp::Add, vx, imm),
            4 => {
                let op = rng.pick(&[BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::Or, BinOp::Xor]);
                b.bin(op, vx, vy)
            }
            5 => b.bin_imm(rng.pick(&[BinOp::And, BinOp::Shl, BinOp::ShrU]), vx, imm & 63),
            6 => b.extract(vx, 4, 20, false),
            7 => {
                let shifted = b.bin_imm(BinOp::Shl, vx, 3);
                b.add(shifted, vy)
            }
            8 => {
                let c = b.compare(Cond::LtU, vx, vy);
                b.zext(Type::I64, c)
            }
            9 => {
                let low = b.trunc(Type::I32, vx);
                let sum = b.bin_imm(BinOp::Add, low, imm & 0xff);
                b.sext(Type::I64, sum)
            }
            kind => {
                // Mostly where RAM is.
                let base = if rng.below(6) == 0 { vx } else { b.bin_imm(BinOp::And, vx, 0xff8) };
                let addr = if kind % 2 == 0 { vx } else { base };
                match kind {
                    10 | 11 => {
                        b.store(Type::I64, addr, vy, flags);
                        continue;
                    }
                    12 | 13 => b.load(Type::I64, Type::I64, false, addr, flags),
                    14 => b.load(Type::I64, Type::I8, false, addr, flags),
                    _ => b.load(Type::I64, Type::I32, true, base, flags),
                }
            }
        };
        b.set(d, value);
    }
    let (x, y, zero) = (b.get(Slot(1)), b.get(Slot(2)), b.iconst(Type::I64, 0));
    let (taken, not_taken) = (8, 4);
    let terminal = match rng.below(8) {
        0 => Terminal::Jump { offset: 64, hint: LinkHint::None },
        1 => Terminal::Indirect { pc: x, hint: LinkHint::None },
        2 => Terminal::Branch { c: b.compare(Cond::Eq, x, y), taken, not_taken },
        3 => Terminal::Branch { c: b.compare(Cond::Ne, x, y), taken, not_taken },
        4 => Terminal::Branch { c: b.compare(Cond::Eq, x, zero), taken, not_taken },
        5 => Terminal::Branch { c: b.compare(Cond::Ne, x, zero), taken, not_taken },
        6 => Terminal::Branch { c: b.compare(Cond::LtU, x, y), taken, not_taken },
        _ => Terminal::Exit { offset: 0 },
    };
    b.end(terminal);
    b.finish()
}

#[test]
fn every_pair_of_operations_runs_as_its_halves_do() {
    let mut unseen: Vec<_> = Opc::PAIRS.to_vec();
    for seed in 0..30_000 {
        let mut rng = Rng::new(seed);
        let block = guest_like_block(&mut rng);
        let mut cpu = random_cpu(seed);
        cpu.near[..4].fill_with(|| rng.below(0x400) * 8);
        check(&block, &cpu);
        let code = Code::compile(&block).unwrap();
        // The second word keeps its code; no word of these blocks that is no operation looks like a pair.
        for words in code.words().windows(2) {
            let [first, second] = [words[0] as u8, words[1] as u8];
            unseen.retain(|&(pair, [_, y])| (pair as u8, y as u8) != (first, second));
        }
    }
    assert_eq!(unseen, []);
}
