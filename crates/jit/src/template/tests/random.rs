//! Random numbers that are worth computing with, every operation there is, and blocks of them.

use super::machine::{BASE, BYTES, Cpu, PAGES, SLOTS, UNITS, plain_slots};
use isomer_ir::{
    Block, Builder, CpuHeader, MmuIndex, Op, Slot, Terminal, Type, Value,
    block::LinkHint,
    op::*,
    softfloat::{NanRule, Tininess},
    types::*,
};

/// A generator of the xorshift family: the same numbers every time.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    pub(super) fn flag(&mut self) -> bool {
        self.below(2) != 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// An integer that is often at an edge, or a floating-point number that is.
    pub(super) fn number(&mut self) -> u64 {
        const DOUBLES: [u64; 20] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xbff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0xfff8_0000_0000_1234,
            0x7ff0_0000_0000_0001,
            0x0010_0000_0000_0000,
            0x000f_ffff_ffff_ffff,
            1,
            0x7fef_ffff_ffff_ffff,
            0x41ef_ffff_ffe0_0000,
            0x43e0_0000_0000_0000,
            0xc1e0_0000_0000_0000,
            0x3fdf_ffff_ffff_ffff,
            0x4004_0000_0000_0000,
            0x2000_0000_0000_0000,
            0x1fef_ffff_ffff_ffff,
        ];
        const SINGLES: [u32; 18] = [
            0,
            1 << 31,
            0x3f80_0000,
            0xbfc0_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0xffc0_1234,
            0x7f80_0001,
            0x0080_0000,
            0x007f_ffff,
            1,
            0x7f7f_ffff,
            0x4f7f_ffff,
            0x4f00_0000,
            0xcf00_0000,
            0x2000_0000,
            0x1fff_ffff,
        ];
        let near = self.next() % 3;
        match self.below(10) {
            0 => near.wrapping_sub(1),
            1 => (1 << self.below(64)) + near - 1,
            2 => u64::MAX << self.below(64),
            3 => self.next() >> self.below(64),
            4 | 5 => self.pick(&DOUBLES).wrapping_add(if self.flag() { near } else { 0 }),
            6 => {
                let (high, low) = (self.pick(&SINGLES), self.pick(&SINGLES));
                u64::from(high) << 32 | u64::from(low)
            }
            7 => 0xffff_ffff << 32 | u64::from(self.pick(&SINGLES)),
            // Numbers of moderate size in both formats.
            8 => {
                let (high, low) = (self.next() as u32 % 0x1000_0000, self.next() as u32 % 0x1000_0000);
                u64::from(high + 0x3800_0000) << 32 | u64::from(low + 0x3800_0000)
            }
            _ => self.next(),
        }
    }

    pub(super) fn vector(&mut self) -> u128 {
        u128::from(self.number()) | u128::from(self.number()) << 64
    }

    /// An address: most often of memory, sometimes across the edge of a page, rarely beyond.
    pub(super) fn address(&mut self) -> u64 {
        let page = BASE + 4096 * self.below(PAGES as usize + 1) as u64;
        match self.below(8) {
            0 => page.wrapping_sub(self.next() % 20),
            1 => page + self.next() % 4096,
            2 => page + 16 * (self.next() % 256) + self.pick(&[1, 2, 4, 8]),
            3 => self.next() % 4096,
            _ => page + 16 * (self.next() % 256),
        }
    }

    pub(super) fn cpu(&mut self) -> Cpu {
        let mut header = CpuHeader {
            pc: 0x8000_1000 + 2 * (self.next() % 2048),
            rounding: self.pick(&[0, 0, 0, 1, 2, 3, 4, 5]),
            fp_flags: if self.flag() { 0 } else { self.next() as u8 & 0x1f },
            insns: self.next() >> 1,
            ..CpuHeader::default()
        };
        header.temps = [0x5555_5555_5555_5555; isomer_ir::state::TEMP_UNITS];
        Cpu { header, units: std::array::from_fn::<_, UNITS, _>(|_| self.number()) }
    }

    pub(super) fn ram(&mut self) -> Vec<u8> {
        (0..BYTES / 8).flat_map(|_| self.number().to_le_bytes()).collect()
    }

    pub(super) fn model(&mut self) -> FpModel {
        let strange = self.below(3) == 0;
        FpModel {
            nan: if strange { self.pick(&NANS) } else { NanRule::Canonical },
            tininess: if strange { self.pick(&[Tininess::Before, Tininess::After]) } else { Tininess::After },
            flush_inputs: strange && self.below(4) == 0,
            flush_outputs: strange && self.below(4) == 0,
        }
    }
}

const NANS: [NanRule; 4] = [NanRule::Canonical, NanRule::Arm, NanRule::X86, NanRule::Power];
pub(super) const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
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
const CONDS: [Cond; 6] = [Cond::Eq, Cond::Ne, Cond::LtU, Cond::GeU, Cond::LtS, Cond::GeS];
const UN: [UnOp; 8] = UnOp::ALL;
const BIN: [BinOp; 25] = BinOp::ALL;
const RMW: [RmwOp; 10] = RmwOp::ALL;
const FP_BIN: [FpBinOp; 12] = FpBinOp::ALL;
const FMA: [FmaOp; 4] = FmaOp::ALL;
const FP_CONDS: [FpCond; 4] = FpCond::ALL;
const OVERFLOWS: [FpOverflow; 4] = FpOverflow::ALL;
const VEC_UN: [VecUnOp; 10] = VecUnOp::ALL;
const VEC_BIN: [VecBinOp; 31] = VecBinOp::ALL;

/// What an operand must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arg {
    Of(Type),
    Address,
}

/// An operation whose operands are still to be filled in, in order.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) op: Op,
    pub(super) args: Vec<Arg>,
}

const V: Value = Value(0);

/// Every operation with every type and variant (fields, lanes and shift amounts are a choice).
pub(super) fn templates() -> Vec<Template> {
    let mut all = Vec::new();
    integers(&mut all);
    accesses(&mut all);
    floats(&mut all);
    vectors(&mut all);
    let i64s = |n: usize| vec![Arg::Of(Type::I64); n];
    for count in 0..5 {
        for result in [None, Some(Type::I8), Some(Type::I16), Some(Type::I32), Some(Type::I64)] {
            let args = std::array::from_fn(|i| (i < count).then_some(V));
            all.push(Template { op: Op::Call { helper: HelperId(7), args, result }, args: i64s(count) });
        }
    }
    let types = [Arg::Of(Type::I8), Arg::Of(Type::I16), Arg::Of(Type::I32), Arg::Of(Type::I8)];
    let op = Op::Call { helper: HelperId(9), args: [Some(V); 4], result: Some(Type::I64) };
    all.push(Template { op, args: types.to_vec() });
    for code in [3, 0x8000_0001] {
        let args = vec![Arg::Of(Type::I8), Arg::Of(Type::I64)];
        all.push(Template { op: Op::TrapIf { c: V, code, value: V }, args });
    }
    for offset in [0, 8, -0x1234, 0x7fff_ffff_ffff] {
        all.push(Template { op: Op::PcRel { offset }, args: vec![] });
    }
    for order in ORDERS {
        all.push(Template { op: Op::Fence { order }, args: vec![] });
    }
    all
}

const ORDERS: [Order; 5] = [Order::Relaxed, Order::Acquire, Order::Release, Order::AcqRel, Order::SeqCst];

fn integers(all: &mut Vec<Template>) {
    let mut push = |op: Op, args: &[Type]| {
        all.push(Template { op, args: args.iter().map(|ty| Arg::Of(*ty)).collect() });
    };
    for ty in INTS {
        UN.iter().for_each(|&op| push(Op::Unary { op, ty, a: V }, &[ty]));
        BIN.iter().for_each(|&op| push(Op::Binary { op, ty, a: V, b: V }, &[ty; 2]));
        CONDS.iter().for_each(|&cond| push(Op::Compare { cond, ty, a: V, b: V }, &[ty; 2]));
        push(Op::AddCarry { ty, a: V, b: V, carry: V }, &[ty, ty, Type::I8]);
        push(Op::SubBorrow { ty, a: V, b: V, borrow: V }, &[ty, ty, Type::I8]);
        let bits = ty.bits() as u8;
        let fields = [
            (0, bits),
            (0, 1),
            (bits - 1, 1),
            (0, bits / 2),
            (bits / 2, bits / 2),
            (1, bits - 1),
            (3, 4),
            (bits / 4, bits / 2),
            (0, 8),
            (bits - 8, 8),
            (0, bits - 1),
            (bits / 2 - 1, bits / 2 + 1),
        ];
        for (lo, len) in fields {
            for signed in [false, true] {
                push(Op::Extract { ty, a: V, lo, len, signed }, &[ty]);
            }
            push(Op::Deposit { ty, a: V, b: V, lo, len }, &[ty; 2]);
        }
    }
    for to in ALL {
        push(Op::Select { ty: to, c: V, a: V, b: V }, &[Type::I8, to, to]);
        for from in ALL {
            if from < to {
                push(Op::Zext { to, a: V }, &[from]);
                if to.is_int() {
                    push(Op::Sext { to, a: V }, &[from]);
                }
            } else if to < from {
                push(Op::Trunc { to, a: V }, &[from]);
            }
        }
    }
}

fn accesses(all: &mut Vec<Template>) {
    let mut number = 0;
    let mut variants = Vec::new();
    for endian in [Endian::Little, Endian::Big] {
        for align in [Align::Any, Align::Natural] {
            // All regimes and orders come up, if not with everything else.
            number += 3;
            let (mmu, order) = (MmuIndex(number % 4), ORDERS[usize::from(number) % 5]);
            variants.push(MemFlags { mmu: MmuIndex(0), order: Order::Relaxed, endian, align });
            variants.push(MemFlags { mmu, order, endian, align });
        }
    }
    for flags in variants {
        let mut push = |op: Op, args: &[Type]| {
            let rest = args.iter().map(|ty| Arg::Of(*ty));
            all.push(Template { op, args: std::iter::once(Arg::Address).chain(rest).collect() });
        };
        for ty in ALL {
            for mem in ALL {
                if mem == ty || mem < ty && ty.is_int() {
                    for signed in [false, true] {
                        push(Op::Load { ty, mem, signed, addr: V, flags }, &[]);
                    }
                    push(Op::Store { mem, addr: V, value: V, flags }, &[ty]);
                }
            }
        }
        for ty in INTS {
            for op in RMW {
                push(Op::Rmw { op, ty, addr: V, value: V, flags }, &[ty]);
            }
            push(Op::Cas { ty, addr: V, expected: V, new: V, flags }, &[ty; 2]);
            push(Op::LoadReserve { ty, addr: V, flags }, &[]);
            push(Op::StoreCond { ty, addr: V, value: V, flags }, &[ty]);
        }
        push(Op::CasPair { addr: V, expected: [V; 2], new: [V; 2], flags }, &[Type::I64; 4]);
    }
}

fn floats(all: &mut Vec<Template>) {
    for fmt in FORMATS {
        let ty = fmt.ty();
        let mut push = |op: Op, args: &[Type]| {
            all.push(Template { op, args: args.iter().map(|ty| Arg::Of(*ty)).collect() });
        };
        for rounding in ROUNDINGS {
            for op in FP_BIN {
                push(Op::FpBinary { op, fmt, rounding, a: V, b: V }, &[ty; 2]);
                push(Op::VecFpBinary { op, fmt, rounding, a: V, b: V }, &[Type::V128; 2]);
            }
            push(Op::FpSqrt { fmt, rounding, a: V }, &[ty]);
            push(Op::VecFpSqrt { fmt, rounding, a: V }, &[Type::V128]);
            for op in FMA {
                push(Op::FpFma { op, fmt, rounding, a: V, b: V, c: V }, &[ty; 3]);
                push(Op::VecFpFma { op, fmt, rounding, a: V, b: V, c: V }, &[Type::V128; 3]);
            }
            for to in FORMATS {
                push(Op::FpConvert { from: fmt, to, rounding, a: V }, &[ty]);
            }
            for signed in [false, true] {
                push(Op::FpRound { fmt, rounding, inexact: signed, a: V }, &[ty]);
                for int in [Type::I32, Type::I64] {
                    push(Op::FpFromInt { fmt, from: int, signed, rounding, a: V }, &[int]);
                    for overflow in OVERFLOWS {
                        push(Op::FpToInt { fmt, to: int, signed, overflow, rounding, a: V }, &[ty]);
                    }
                }
            }
        }
        for cond in FP_CONDS {
            for signalling in [false, true] {
                push(Op::FpCompare { cond, fmt, signalling, a: V, b: V }, &[ty; 2]);
                push(Op::VecFpCompare { cond, fmt, signalling, a: V, b: V }, &[Type::V128; 2]);
            }
        }
    }
}

fn vectors(all: &mut Vec<Template>) {
    const W: Type = Type::V128;
    let mut push = |op: Op, args: &[Type]| {
        all.push(Template { op, args: args.iter().map(|ty| Arg::Of(*ty)).collect() });
    };
    for lane in LANES {
        for op in VEC_UN {
            let widens = matches!(
                op,
                VecUnOp::WidenLowU | VecUnOp::WidenLowS | VecUnOp::WidenHighU | VecUnOp::WidenHighS
            );
            if !(widens && lane == Lane::D) {
                push(Op::VecUnary { op, lane, a: V }, &[W]);
            }
        }
        for op in VEC_BIN {
            let narrows = matches!(
                op,
                VecBinOp::Narrow | VecBinOp::NarrowSatS | VecBinOp::NarrowSatSU | VecBinOp::NarrowSatU
            );
            if !(narrows && lane == Lane::B) {
                push(Op::VecBinary { op, lane, a: V, b: V }, &[W; 2]);
            }
        }
        for amount in [0, 1, 5, lane.bits() as u8 - 1] {
            for (left, signed) in [(false, false), (false, true), (true, false), (true, true)] {
                push(Op::VecShift { lane, left, signed, amount, a: V }, &[W]);
            }
        }
        push(Op::VecSplat { lane, a: V }, &[lane.ty()]);
        for index in [0, 1, lane.count() as u8 - 1] {
            push(Op::VecGet { lane, index, a: V }, &[W]);
            push(Op::VecSet { lane, index, a: V, b: V }, &[W, lane.ty()]);
        }
    }
    push(Op::VecSelect { m: V, a: V, b: V }, &[W; 3]);
    let shuffles: [[u8; 16]; 4] = [
        std::array::from_fn(|i| 15 - i as u8),
        std::array::from_fn(|i| 2 * i as u8),
        std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 3),
        std::array::from_fn(|i| 31 - i as u8),
    ];
    shuffles.iter().for_each(|&bytes| push(Op::VecShuffle { bytes, a: V, b: V }, &[W; 2]));
}

/// A block being made.
pub(super) struct Maker<'a> {
    pub(super) random: &'a mut Random,
    pub(super) b: Builder,
    /// Values to take operands from.
    pub(super) values: Vec<Value>,
}

impl<'a> Maker<'a> {
    pub(super) fn new(random: &'a mut Random) -> Self {
        let mode = random.pick(&[0, 0x1234, 0x8000_0001, u32::MAX]);
        let b = Builder::new(&SLOTS, mode, random.model());
        let mut maker = Self { random, b, values: Vec::new() };
        (0..1 + maker.random.below(3)).for_each(|_| maker.insn());
        maker
    }

    pub(super) fn insn(&mut self) {
        let len = self.random.pick(&[2, 4]);
        self.b.insn_start(self.b.len(), len);
    }

    pub(super) fn push(&mut self, op: Op) -> Value {
        let (_, count) = op.results(|slot| SLOTS[usize::from(slot.0)].ty);
        let first = self.b.push(op);
        self.values.extend((0..count as u32).map(|i| Value(first.0 + i)));
        first
    }

    fn constant(&mut self, ty: Type) -> Value {
        match ty {
            Type::V128 => {
                let bits = self.random.vector();
                self.push(Op::ConstVec { bits })
            }
            _ => {
                let bits = self.random.number() & ty.mask();
                self.push(Op::Const { ty, bits })
            }
        }
    }

    fn get(&mut self, ty: Type) -> Value {
        let slots = plain_slots(ty);
        let slot = Slot(slots.start + self.random.below(slots.len()) as u16);
        self.push(Op::Get { slot })
    }

    /// An operand: constant, in a slot only, in a register only, or one that exists already.
    pub(super) fn operand(&mut self, arg: Arg) -> Value {
        let ty = match arg {
            Arg::Address => {
                let bits = self.random.address();
                let base = self.push(Op::Const { ty: Type::I64, bits });
                return if self.random.below(4) == 0 { base } else { self.in_register(base) };
            }
            Arg::Of(ty) => ty,
        };
        let known: Vec<Value> =
            self.values.iter().copied().filter(|v| self.b.type_of(*v) == ty).rev().take(12).collect();
        match self.random.below(6) {
            0 => self.constant(ty),
            1 => self.get(ty),
            2 => {
                let v = self.get(ty);
                self.in_register(v)
            }
            _ if !known.is_empty() => self.random.pick(&known),
            _ => {
                let v = self.get(ty);
                self.in_register(v)
            }
        }
    }

    /// The same value as the result of an operation.
    fn in_register(&mut self, a: Value) -> Value {
        match self.b.type_of(a) {
            Type::V128 => {
                let b = self.push(Op::ConstVec { bits: 0 });
                self.push(Op::VecBinary { op: VecBinOp::Or, lane: Lane::B, a, b })
            }
            ty => {
                let b = self.push(Op::Const { ty, bits: 0 });
                self.push(Op::Binary { op: BinOp::Or, ty, a, b })
            }
        }
    }

    pub(super) fn apply(&mut self, template: &Template) -> Value {
        let mut args: Vec<Value> = template.args.iter().map(|arg| self.operand(*arg)).collect();
        // The same value twice is a case of its own.
        if args.len() > 1 && self.random.below(6) == 0 {
            let (i, j) = (self.random.below(args.len()), self.random.below(args.len()));
            if template.args[i] == template.args[j] {
                args[i] = args[j];
            }
        }
        let mut args = args.into_iter();
        let op = template.op.clone_with(|_| args.next().expect("as many operands as the template says"));
        self.push(op)
    }

    /// Writes a value to a slot of its type.
    pub(super) fn show(&mut self, value: Value) {
        let ty = self.b.type_of(value);
        let slots: Vec<u16> = (0..SLOTS.len() as u16).filter(|s| SLOTS[usize::from(*s)].ty == ty).collect();
        let slot = Slot(self.random.pick(&slots));
        self.b.push(Op::Set { slot, value });
    }

    pub(super) fn terminal(&mut self) {
        let hint = LinkHint::None;
        let offset = self.random.pick(&[0, 4, 8, -16, 0x1000, 0x7fff_ffff_0000]);
        let terminal = match self.random.below(8) {
            0 => Terminal::Jump { offset, hint },
            1 => Terminal::Indirect { pc: self.operand(Arg::Of(Type::I64)), hint },
            2 => {
                let value = self.random.flag().then(|| self.operand(Arg::Of(Type::I64)));
                Terminal::Trap { code: self.random.pick(&[5, u32::MAX]), value }
            }
            3 => Terminal::Exit { offset },
            4 => Terminal::ExitIndirect { pc: self.operand(Arg::Of(Type::I64)) },
            _ => {
                let c = if self.random.flag() {
                    let ty = self.random.pick(&INTS);
                    let cond = self.random.pick(&CONDS);
                    let (a, b) = (self.operand(Arg::Of(ty)), self.operand(Arg::Of(ty)));
                    self.b.push(Op::Compare { cond, ty, a, b })
                } else {
                    self.operand(Arg::Of(Type::I8))
                };
                let taken = self.random.pick(&[0, 12, -0x2000, 0x6fff_ffff_ffff]);
                Terminal::Branch { c, taken, not_taken: offset }
            }
        };
        self.b.end(terminal);
    }

    pub(super) fn finish(self) -> Block {
        self.b.finish()
    }
}
