//! For tests: random well-formed blocks, and what they do, step by step.

use crate::{
    block::{Block, LinkHint, Terminal},
    builder::Builder,
    eval,
    guest::Effects,
    op::*,
    softfloat::{NanRule, Tininess},
    state::SlotDesc,
    types::*,
};
use proptest::prelude::*;

const fn slot(name: &'static str, offset: u32, ty: Type) -> SlotDesc {
    SlotDesc { name, offset, ty }
}

/// Registers of every type, some of which overlap; the first is in the header.
pub(crate) const SLOTS: &[SlotDesc] = &[
    slot("fflags", 21, Type::I8),
    slot("x1", 512, Type::I64),
    slot("x2", 520, Type::I64),
    slot("x3", 528, Type::I64),
    slot("w3", 528, Type::I32),
    slot("h3", 530, Type::I16),
    slot("b3.1", 529, Type::I8),
    slot("v0", 536, Type::V128),
    slot("d0", 536, Type::I64),
    slot("d0.high", 544, Type::I64),
    slot("v1", 552, Type::V128),
    slot("cf", 568, Type::I8),
    slot("zf", 569, Type::I8),
    slot("x4", 576, Type::I64),
];

/// Bytes of CPU that the slots and the header need.
pub(crate) const CPU_BYTES: usize = 584;

/// What the helper with this number may touch.
pub(crate) fn effects(helper: HelperId) -> Effects {
    match helper.0 % 3 {
        0 => Effects::Pure,
        1 => Effects::ReadsState,
        _ => Effects::Any,
    }
}

/// Numbers to make choices with; zeros when used up.
struct Choices<'a>(std::slice::Iter<'a, u64>);

impl Choices<'_> {
    fn next(&mut self) -> u64 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn flag(&mut self) -> bool {
        self.next() & 1 != 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Well-formed blocks with every operation.
pub(crate) fn blocks() -> impl Strategy<Value = Block> {
    proptest::collection::vec(any::<u64>(), 0..400).prop_map(|numbers| block_from(&numbers, false))
}

/// Well-formed blocks of integer operations on few values and few constants, where folding finds much to do.
pub(crate) fn integer_blocks() -> impl Strategy<Value = Block> {
    proptest::collection::vec(any::<u64>(), 40..240).prop_map(|numbers| block_from(&numbers, true))
}

/// The block that `numbers` stand for.
fn block_from(numbers: &[u64], focused: bool) -> Block {
    let mut choices = Choices(numbers.iter());
    let fp = FpModel {
        nan: choices.pick(&[NanRule::Canonical, NanRule::Arm, NanRule::Power, NanRule::X86]),
        tininess: choices.pick(&[Tininess::Before, Tininess::After]),
        flush_inputs: choices.flag(),
        flush_outputs: choices.flag(),
    };
    let mode = choices.next() as u32;
    let mut maker = Maker { choices, b: Builder::new(SLOTS, mode, fp), types: Vec::new(), focused };
    maker.insn();
    while maker.choices.0.len() > END_CHOICES {
        if focused { maker.focused_step() } else { maker.step() }
    }
    maker.end();
    if focused {
        maker.show_all();
    }
    maker.b.finish()
}

/// Left for the terminal.
const END_CHOICES: usize = 16;

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
const UN_OPS: [UnOp; 8] = UnOp::ALL;
const BIN_OPS: [BinOp; 25] = BinOp::ALL;
const RMW_OPS: [RmwOp; 10] = RmwOp::ALL;
const FP_OPS: [FpBinOp; 12] = FpBinOp::ALL;
const FMA_OPS: [FmaOp; 4] = FmaOp::ALL;
const FP_CONDS: [FpCond; 4] = FpCond::ALL;
const OVERFLOWS: [FpOverflow; 4] = FpOverflow::ALL;
const VEC_UN_OPS: [VecUnOp; 10] = VecUnOp::ALL;
const VEC_BIN_OPS: [VecBinOp; 34] = {
    use VecBinOp::*;
    [
        Add,
        Sub,
        Mul,
        AddSatU,
        AddSatS,
        SubSatU,
        SubSatS,
        MinU,
        MinS,
        MaxU,
        MaxS,
        AvgU,
        And,
        Or,
        Xor,
        AndNot,
        CmpEq,
        CmpGtU,
        CmpGtS,
        ShlV,
        ShrUV,
        ShrSV,
        ZipLow,
        ZipHigh,
        UnzipEven,
        UnzipOdd,
        Table,
        Narrow,
        NarrowSatS,
        NarrowSatSU,
        NarrowSatU,
        And,
        Xor,
        Or,
    ]
};

struct Maker<'a> {
    choices: Choices<'a>,
    b: Builder,
    /// Types of the values so far.
    types: Vec<Type>,
    /// Few types, constants and operands to choose from.
    focused: bool,
}

impl Maker<'_> {
    fn push(&mut self, op: Op) -> Value {
        let (types, count) = op.results(|slot| SLOTS[usize::from(slot.0)].ty);
        self.types.extend_from_slice(&types[..count]);
        self.b.push(op)
    }

    fn insn(&mut self) {
        let (gap, len) = (self.choices.pick(&[0, 0, 0, 2]), self.choices.pick(&[2, 4, 15]));
        let gap = if self.b.is_empty() { 0 } else { gap };
        self.b.insn_start(self.b.len() + gap, len);
    }

    fn int(&mut self) -> Type {
        if self.focused {
            self.choices.pick(&[Type::I64, Type::I32, Type::I8, Type::I64])
        } else {
            self.choices.pick(&INTS)
        }
    }

    fn konst(&mut self, ty: Type) -> Value {
        let width = u64::from(ty.bits());
        let few = [
            0,
            1,
            u64::MAX,
            0,
            1 << (ty.bits().min(64) - 1),
            ty.mask() >> 1,
            width - 1,
            0xff,
            width / 2,
            0xffff_ffff,
        ];
        let bits = match self.choices.below(5) {
            _ if self.focused => self.choices.pick(&few),
            0 => self.choices.next() & 1,
            1 => u64::MAX,
            2 => 1 << (self.choices.next() & 63),
            3 => u64::MAX >> (self.choices.next() & 63),
            _ => self.choices.next(),
        };
        match ty {
            Type::V128 => {
                let high = self.choices.next();
                self.push(Op::ConstVec { bits: u128::from(bits) | u128::from(high) << 64 })
            }
            _ => self.push(Op::Const { ty, bits: bits & ty.mask() }),
        }
    }

    /// A value of that type: most often a recent one.
    fn value(&mut self, ty: Type) -> Value {
        let seen: Vec<u32> = (0..self.types.len() as u32).filter(|&v| self.types[v as usize] == ty).collect();
        match self.choices.below(8) {
            0 => self.konst(ty),
            1 => {
                let slots: Vec<u16> =
                    (0..SLOTS.len() as u16).filter(|&s| SLOTS[usize::from(s)].ty == ty).collect();
                let slot = Slot(self.choices.pick(&slots));
                self.push(Op::Get { slot })
            }
            _ if seen.is_empty() => self.konst(ty),
            2 if self.focused => self.konst(ty),
            2 => Value(self.choices.pick(&seen)),
            _ => {
                let recent = self.choices.below(seen.len().min(4));
                Value(seen[seen.len() - 1 - recent])
            }
        }
    }

    fn truth(&mut self) -> Value {
        let (cond, ty) = (self.choices.pick(&CONDS), self.int());
        let (a, b) = (self.value(ty), self.value(ty));
        self.push(Op::Compare { cond, ty, a, b })
    }

    fn flags(&mut self) -> MemFlags {
        MemFlags {
            mmu: MmuIndex(self.choices.below(4) as u8),
            order: self.choices.pick(&ORDERS),
            endian: self.choices.pick(&[Endian::Little, Endian::Big]),
            align: self.choices.pick(&[Align::Any, Align::Natural]),
        }
    }

    fn field(&mut self, ty: Type) -> (u8, u8) {
        if self.focused {
            let (width, half) = (ty.bits() as u8, ty.bits() as u8 / 2);
            let around = self.choices.pick(&[7, 8, 9, 15, 16, 17, 31, 32, 33]).min(width);
            let fields =
                [(0, half), (half, half), (0, width), (1, half), (half - 1, half), (0, around), (0, around)];
            return self.choices.pick(&fields);
        }
        let lo = self.choices.below(ty.bits() as usize) as u8;
        (lo, 1 + self.choices.below(ty.bits() as usize - usize::from(lo)) as u8)
    }

    fn step(&mut self) {
        match self.choices.below(16) {
            0 => self.insn(),
            1..=3 => {
                let slot = Slot(self.choices.below(SLOTS.len()) as u16);
                let value = self.value(SLOTS[usize::from(slot.0)].ty);
                self.push(Op::Set { slot, value });
            }
            4 => self.access(),
            5 => self.float(),
            6 => self.vector(),
            7 => self.call(),
            8..=10 => self.convert(),
            _ => self.integer(),
        }
    }

    /// Computes something.
    fn focused_step(&mut self) {
        match self.choices.below(16) {
            10..=15 => self.idiom(),
            0..=3 => self.integer(),
            4 | 5 => self.convert(),
            6 => {
                let (ty, flags) = (self.int(), self.flags());
                let mem = ALL[self.choices.below(ty as usize + 1)];
                let (signed, addr) = (self.choices.flag(), self.value(Type::I64));
                self.push(Op::Load { ty, mem, signed, addr, flags });
            }
            7 => self.signed_less(),
            8 => drop(self.truth()),
            _ => {
                let ty = self.int();
                let c = if self.choices.flag() { self.tested_truth() } else { self.value(Type::I8) };
                let (a, b) = (self.value(ty), self.value(ty));
                self.push(Op::Select { ty, c, a, b });
            }
        }
    }

    /// Operations that mean something together, as lifters and compilers write them.
    fn idiom(&mut self) {
        let ty = self.int();
        let a = self.value(ty);
        match self.choices.below(5) {
            0 => drop(self.tested_truth()),
            // Through a narrower type and back.
            1 => {
                let (a, to) = (self.value(Type::I64), self.choices.pick(&INTS[..3]));
                let a = self.push(Op::Trunc { to, a });
                let signed = self.choices.flag();
                let to = Type::I64;
                self.push(if signed { Op::Sext { to, a } } else { Op::Zext { to, a } });
            }
            // A shift by a masked amount.
            2 => {
                let op = self.choices.pick(&[BinOp::Shl, BinOp::ShrU, BinOp::ShrS, BinOp::Rotl, BinOp::Rotr]);
                let mask = [ty.bits() - 1, 2 * ty.bits() - 1, ty.bits() / 2 - 1, ty.bits()];
                let bits = self.choices.pick(&mask).into();
                let (amount, mask) = (self.value(ty), self.push(Op::Const { ty, bits }));
                let b = self.push(Op::Binary { op: BinOp::And, ty, a: amount, b: mask });
                self.push(Op::Binary { op, ty, a, b });
            }
            // A field put in, and one taken out of the same or a neighbouring place.
            3 => {
                let (b, (lo, len)) = (self.value(ty), self.field(ty));
                let a = self.push(Op::Deposit { ty, a, b, lo, len });
                let ((lo, len), signed) = (self.field(ty), self.choices.flag());
                self.push(Op::Extract { ty, a, lo, len, signed });
            }
            // The low part of something masked or extracted.
            _ => {
                let bits = self.choices.pick(&[0x7f, 0xff, 0x1ff, 0x7fff_ffff, 0xffff_ffff, 0xff80]);
                let (a, ty) = (self.value(Type::I64), Type::I64);
                let a = if self.choices.flag() {
                    let b = self.push(Op::Const { ty, bits });
                    self.push(Op::Binary { op: BinOp::And, ty, a, b })
                } else {
                    let ((lo, len), signed) = (self.field(ty), self.choices.flag());
                    self.push(Op::Extract { ty, a, lo, len, signed })
                };
                let to = self.choices.pick(&INTS[..3]);
                let a = self.push(Op::Trunc { to, a });
                let ((lo, len), signed) = (self.field(to), self.choices.flag());
                self.push(Op::Extract { ty: to, a, lo, len, signed });
            }
        }
    }

    /// A truth value or what it is not, compared with 0 or 1 after zero extension.
    fn tested_truth(&mut self) -> Value {
        let (mut a, ty) = (self.truth(), self.int());
        if ty != Type::I8 {
            a = self.push(Op::Zext { to: ty, a });
        }
        let (cond, bits) = (self.choices.pick(&CONDS[..2]), self.choices.pick(&[0, 0, 1]));
        let b = self.push(Op::Const { ty, bits });
        self.push(Op::Compare { cond, ty, a, b })
    }

    /// Passes every integer to a helper.
    fn show_all(&mut self) {
        let ints: Vec<u32> =
            (0..self.types.len() as u32).filter(|&v| self.types[v as usize].is_int()).collect();
        for few in ints.chunks(4) {
            let args = std::array::from_fn(|i| few.get(i).map(|&v| Value(v)));
            self.push(Op::Call { helper: HelperId(1), args, result: None });
        }
    }

    /// How A64 and x86 say "less".
    fn signed_less(&mut self) {
        let (ty, borrow) = (self.int(), self.truth_or_zero());
        let (a, b) = (self.value(ty), self.value(ty));
        let difference = self.push(Op::SubBorrow { ty, a, b, borrow });
        let zero = self.push(Op::Const { ty, bits: 0 });
        let sign = self.push(Op::Compare { cond: Cond::LtS, ty, a: difference, b: zero });
        let overflow = Value(difference.0 + 2);
        let (a, b) = if self.choices.flag() { (sign, overflow) } else { (overflow, sign) };
        self.push(Op::Compare { cond: Cond::Ne, ty: Type::I8, a, b });
    }

    fn integer(&mut self) {
        let ty = self.int();
        let op = match self.choices.below(8) {
            0 => Op::Unary { op: self.choices.pick(&UN_OPS), ty, a: self.value(ty) },
            1 => {
                let carry = self.truth_or_zero();
                Op::AddCarry { ty, a: self.value(ty), b: self.value(ty), carry }
            }
            2 => {
                let borrow = self.truth_or_zero();
                Op::SubBorrow { ty, a: self.value(ty), b: self.value(ty), borrow }
            }
            3 => Op::Compare { cond: self.choices.pick(&CONDS), ty, a: self.value(ty), b: self.value(ty) },
            4 => {
                let ty = self.choices.pick(&ALL);
                Op::Select { ty, c: self.value(Type::I8), a: self.value(ty), b: self.value(ty) }
            }
            _ => Op::Binary { op: self.choices.pick(&BIN_OPS), ty, a: self.value(ty), b: self.value(ty) },
        };
        self.push(op);
    }

    fn truth_or_zero(&mut self) -> Value {
        if self.choices.flag() { self.truth() } else { self.push(Op::Const { ty: Type::I8, bits: 0 }) }
    }

    fn convert(&mut self) {
        let narrow = self.choices.below(4);
        let wide = ALL[narrow + 1 + self.choices.below(4 - narrow)];
        let narrow = ALL[narrow];
        let op = match self.choices.below(7) {
            0 => Op::Zext { to: wide, a: self.value(narrow) },
            1 if wide.is_int() => Op::Sext { to: wide, a: self.value(narrow) },
            2 => {
                let (lo, len) = self.field(narrow);
                Op::Extract { ty: narrow, a: self.value(narrow), lo, len, signed: self.choices.flag() }
            }
            3 => {
                let (lo, len) = self.field(narrow);
                Op::Deposit { ty: narrow, a: self.value(narrow), b: self.value(narrow), lo, len }
            }
            4 => Op::PcRel { offset: self.choices.next() as i64 },
            _ => Op::Trunc { to: narrow, a: self.value(wide) },
        };
        self.push(op);
    }

    fn access(&mut self) {
        let ty = self.choices.pick(&INTS);
        let (addr, flags) = (self.value(Type::I64), self.flags());
        let op = match self.choices.below(9) {
            0 => Op::Rmw { op: self.choices.pick(&RMW_OPS), ty, addr, value: self.value(ty), flags },
            1 => Op::Cas { ty, addr, expected: self.value(ty), new: self.value(ty), flags },
            2 => {
                let [a, b, c, d] = [(); 4].map(|()| self.value(Type::I64));
                Op::CasPair { addr, expected: [a, b], new: [c, d], flags }
            }
            3 => Op::LoadReserve { ty, addr, flags },
            4 => Op::StoreCond { ty, addr, value: self.value(ty), flags },
            5 => Op::Fence { order: self.choices.pick(&ORDERS) },
            6 => {
                let ty = self.choices.pick(&ALL);
                let value = self.value(ty);
                let mem = if ty.is_int() { ALL[self.choices.below(ty as usize + 1)] } else { ty };
                Op::Store { mem, addr, value, flags }
            }
            _ => {
                let ty = self.choices.pick(&ALL);
                let mem = if ty.is_int() { ALL[self.choices.below(ty as usize + 1)] } else { ty };
                Op::Load { ty, mem, signed: self.choices.flag(), addr, flags }
            }
        };
        self.push(op);
    }

    fn float(&mut self) {
        let (fmt, rounding) = (self.choices.pick(&FORMATS), self.choices.pick(&ROUNDINGS));
        let ty = fmt.ty();
        let vector = self.choices.flag();
        let operand = if vector { Type::V128 } else { ty };
        let [a, b, c] = [(); 3].map(|()| self.value(operand));
        let op = self.choices.pick(&FP_OPS);
        let fma = self.choices.pick(&FMA_OPS);
        let (cond, signalling) = (self.choices.pick(&FP_CONDS), self.choices.flag());
        let int = self.choices.pick(&[Type::I32, Type::I64]);
        let op = match (self.choices.below(if vector { 4 } else { 8 }), vector) {
            (0, false) => Op::FpBinary { op, fmt, rounding, a, b },
            (1, false) => Op::FpSqrt { fmt, rounding, a },
            (2, false) => Op::FpFma { op: fma, fmt, rounding, a, b, c },
            (3, false) => Op::FpCompare { cond, fmt, signalling, a, b },
            (4, _) => Op::FpConvert { from: fmt, to: self.choices.pick(&FORMATS), rounding, a },
            (5, _) => {
                let overflow = self.choices.pick(&OVERFLOWS);
                Op::FpToInt { fmt, to: int, signed: signalling, overflow, rounding, a }
            }
            (6, _) => Op::FpFromInt { fmt, from: int, signed: signalling, rounding, a: self.value(int) },
            (7, _) => Op::FpRound { fmt, rounding, inexact: signalling, a },
            (0, true) => Op::VecFpBinary { op, fmt, rounding, a, b },
            (1, true) => Op::VecFpFma { op: fma, fmt, rounding, a, b, c },
            (2, true) => Op::VecFpSqrt { fmt, rounding, a },
            _ => Op::VecFpCompare { cond, fmt, signalling, a, b },
        };
        self.push(op);
    }

    fn vector(&mut self) {
        let lane = self.choices.pick(&LANES);
        let [a, b] = [(); 2].map(|()| self.value(Type::V128));
        let index = self.choices.below(lane.count() as usize) as u8;
        let op = match self.choices.below(9) {
            0 => Op::VecUnary { op: self.choices.pick(&VEC_UN_OPS[..6]), lane, a },
            1 => Op::VecUnary { op: self.choices.pick(&VEC_UN_OPS), lane: self.choices.pick(&LANES[..3]), a },
            2 => Op::VecSelect { m: self.value(Type::V128), a, b },
            3 => {
                let amount = self.choices.below(lane.bits() as usize) as u8;
                Op::VecShift { lane, left: self.choices.flag(), signed: self.choices.flag(), amount, a }
            }
            4 => Op::VecSplat { lane, a: self.value(lane.ty()) },
            5 => Op::VecGet { lane, index, a },
            6 => Op::VecSet { lane, index, a, b: self.value(lane.ty()) },
            7 => {
                let bytes = u128::from(self.choices.next()) | u128::from(self.choices.next()) << 64;
                Op::VecShuffle { bytes: bytes.to_le_bytes().map(|byte| byte & 0x3f), a, b }
            }
            _ => Op::VecBinary {
                op: self.choices.pick(&VEC_BIN_OPS),
                lane: self.choices.pick(&LANES[1..]),
                a,
                b,
            },
        };
        self.push(op);
    }

    fn call(&mut self) {
        if self.choices.below(3) == 0 {
            let c = if self.choices.flag() { self.truth() } else { self.value(Type::I8) };
            let (code, value) = (self.choices.next() as u32, self.value(Type::I64));
            self.push(Op::TrapIf { c, code, value });
            return;
        }
        let count = self.choices.below(5);
        let args = std::array::from_fn(|i| {
            let ty = self.choices.pick(&INTS);
            (i < count).then(|| self.value(ty))
        });
        let result = if self.choices.flag() { Some(self.choices.pick(&INTS)) } else { None };
        let helper = HelperId(self.choices.below(6) as u16);
        self.push(Op::Call { helper, args, result });
    }

    fn end(&mut self) {
        let offset = self.choices.next() as i64;
        let hint = match self.choices.below(3) {
            0 => LinkHint::None,
            1 => LinkHint::Call { return_offset: self.choices.next() as i64 },
            _ => LinkHint::Return,
        };
        let terminal = match self.choices.below(9) {
            0 => return,
            1 => Terminal::Jump { offset, hint },
            2 => Terminal::Indirect { pc: self.value(Type::I64), hint },
            3 => {
                let value = if self.choices.flag() { Some(self.value(Type::I64)) } else { None };
                Terminal::Trap { code: offset as u32, value }
            }
            4 => Terminal::Exit { offset },
            6 => Terminal::Attend { offset },
            5 => Terminal::ExitIndirect { pc: self.value(Type::I64) },
            _ => {
                let c = if self.choices.flag() { self.tested_truth() } else { self.value(Type::I8) };
                Terminal::Branch { c, taken: offset, not_taken: self.choices.next() as i64 }
            }
        };
        self.b.end(terminal);
    }
}

/// Everything a block does that can be seen from outside.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Outcome {
    /// Accesses, fences and calls in order, with their operands' values; calls with the CPU they saw.
    pub(crate) events: Vec<String>,
    /// The CPU afterwards.
    pub(crate) cpu: Vec<u8>,
    /// How and where it ended.
    pub(crate) end: String,
}

/// The pc of entry; as aligned as [`INSN_ALIGN`] says.
pub(crate) const ENTRY: u64 = 0x8000_1234;
/// What block entries are multiples of.
pub(crate) const INSN_ALIGN: u32 = 4;

fn scramble(seed: u64, number: u64) -> u64 {
    let x = (seed ^ number.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Some numbers are more interesting than others.
    match x >> 61 {
        0 => u64::MAX,
        1 => 1 << (x & 63),
        2 => u64::MAX << (x & 63),
        3 => x & 1,
        4 => (x >> 32) & 0x3f,
        _ => x ^ x >> 29,
    }
}

/// Runs a block on a CPU full of noise. Memory holds noise too. The access or impure call number `fault_at` traps.
pub(crate) fn run(block: &Block, seed: u64, fault_at: usize) -> Outcome {
    let cpu = (0..CPU_BYTES as u64 / 8).flat_map(|i| scramble(seed, i).to_le_bytes()).collect();
    let outcome = Outcome { events: Vec::new(), cpu, end: String::new() };
    let mut run =
        Run { block, seed, fault_at, may_fault: 0, values: vec![0; block.value_types.len()], outcome };
    let mut offset = 0;
    for inst in &block.insts {
        if let Op::InsnStart { offset: at, .. } = inst.op {
            offset = at;
        }
        match run.step(&inst.op) {
            Ok(results) => {
                for (i, (v, ty)) in block.results(inst).enumerate() {
                    let mask = if ty.is_int() { u128::from(ty.mask()) } else { u128::MAX };
                    run.values[v.0 as usize] = results[i] & mask;
                }
            }
            Err(end) => {
                run.outcome.end = format!("{end} at +{offset}");
                return run.outcome;
            }
        }
    }
    run.outcome.end = match block.terminal {
        // Hints are not meaning, and a branch with one outcome is a jump.
        Terminal::Jump { offset, .. } => format!("to {:#x}", ENTRY.wrapping_add(offset as u64)),
        Terminal::Branch { c, taken, not_taken } => {
            let offset = if run.int(c) != 0 { taken } else { not_taken };
            format!("to {:#x}", ENTRY.wrapping_add(offset as u64))
        }
        Terminal::Indirect { pc, .. } => format!("to {:#x}", run.int(pc)),
        Terminal::Exit { offset } | Terminal::Attend { offset } => {
            format!("exit to {:#x}", ENTRY.wrapping_add(offset as u64))
        }
        Terminal::ExitIndirect { pc } => format!("exit to {:#x}", run.int(pc)),
        Terminal::Trap { code, value } => format!("trap {code} {:?} at +{offset}", value.map(|v| run.int(v))),
    };
    run.outcome
}

struct Run<'a> {
    block: &'a Block,
    seed: u64,
    fault_at: usize,
    /// Accesses and impure calls so far.
    may_fault: usize,
    values: Vec<u128>,
    outcome: Outcome,
}

impl Run<'_> {
    fn int(&self, v: Value) -> u64 {
        self.values[v.0 as usize] as u64
    }

    fn event(&mut self, text: String) -> Result<(), String> {
        self.may_fault += 1;
        self.outcome.events.push(text);
        if self.may_fault > self.fault_at { Err("fault".into()) } else { Ok(()) }
    }

    fn bytes(&mut self, slot: Slot) -> &mut [u8] {
        let desc = self.block.slots[usize::from(slot.0)];
        let at = desc.offset as usize;
        &mut self.outcome.cpu[at..at + desc.ty.bytes() as usize]
    }

    fn step(&mut self, op: &Op) -> Result<[u128; 3], String> {
        let mut operands = Vec::new();
        op.for_each_operand(|v| operands.push(self.values[v.0 as usize]));
        match *op {
            Op::InsnStart { .. } => {}
            Op::PcRel { offset } => return Ok([ENTRY.wrapping_add(offset as u64).into(), 0, 0]),
            Op::Get { slot } => {
                let mut value = [0; 16];
                let bytes = self.bytes(slot);
                value[..bytes.len()].copy_from_slice(bytes);
                return Ok([u128::from_le_bytes(value), 0, 0]);
            }
            Op::Set { slot, .. } => {
                let bytes = self.bytes(slot);
                bytes.copy_from_slice(&operands[0].to_le_bytes()[..bytes.len()]);
            }
            Op::Sext { a, .. } => {
                let bits = self.block.type_of(a).bits();
                return Ok([eval::sign_extend(operands[0] as u64, bits) as u64 as u128, 0, 0]);
            }
            Op::TrapIf { code, .. } => {
                if operands[0] != 0 {
                    return Err(format!("trap_if {code} {:#x}", operands[1]));
                }
            }
            Op::Fence { .. } => self.outcome.events.push(format!("{op:?}")),
            Op::Call { helper, result, .. } => return self.call(helper, &operands, result.is_some()),
            _ if op.mem_flags().is_some() => {
                // Operands by value: numbers differ between blocks that mean the same.
                let kind = op.clone_with(|_| Value(0));
                self.event(format!("{kind:?} {operands:x?}"))?;
                let loaded = |i| {
                    u128::from(scramble(self.seed, operands[0] as u64 ^ (self.may_fault as u64) << 40 ^ i))
                };
                return Ok(match *op {
                    Op::Load { ty: Type::V128, .. } => [loaded(1) | loaded(2) << 64, 0, 0],
                    Op::Load { mem, signed: true, .. } => {
                        [eval::sign_extend(loaded(1) as u64 & mem.mask(), mem.bits()) as u64 as u128, 0, 0]
                    }
                    Op::Load { mem, .. } => [loaded(1) & u128::from(mem.mask()), 0, 0],
                    Op::StoreCond { .. } => [loaded(1) & 1, 0, 0],
                    _ => [loaded(1), loaded(2), 0],
                });
            }
            _ => {
                let (rounding, mut flags) = (self.outcome.cpu[20], self.outcome.cpu[21]);
                let results = eval::compute(op, &operands, self.block.fp, rounding, &mut flags);
                self.outcome.cpu[21] = flags;
                return results.ok_or_else(|| format!("{op:?} cannot be computed"));
            }
        }
        Ok([0; 3])
    }

    fn call(&mut self, helper: HelperId, operands: &[u128], result: bool) -> Result<[u128; 3], String> {
        let mut hash = operands.iter().fold(helper.0.into(), |hash, &v| scramble(hash, v as u64));
        if effects(helper) != Effects::Pure {
            let cpu = self.outcome.cpu.clone();
            hash = cpu.iter().fold(hash, |hash, &byte| scramble(hash, byte.into()));
            let text = format!("call {helper:?} {operands:x?} {result} {hash:x}");
            match effects(helper) {
                Effects::Any => self.event(text)?,
                _ => self.outcome.events.push(text),
            }
        }
        if effects(helper) == Effects::Any {
            let i = 512 + hash as usize % (CPU_BYTES - 512);
            self.outcome.cpu[i] ^= 1;
        }
        Ok([hash.into(), 0, 0])
    }
}
