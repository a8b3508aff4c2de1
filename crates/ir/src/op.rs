//! The operations. Everything is total: no operation has undefined results for any operand.
//!
//! Narrow integers are carried zero-extended. Shift and rotate amounts are taken modulo the width.
//! Division is RISC-V's: by zero gives all ones (remainder: the dividend), and minimum / -1 gives the minimum
//! (remainder: zero); guests with other rules add a select or a [`Op::TrapIf`].
#![allow(missing_docs, reason = "variant fields are described by their variant")]

use crate::types::{Endian, FpFormat, HelperId, Lane, MemFlags, Order, Rounding, Slot, Type, Value};

/// Integer operations with one operand of type `ty`, result of the same type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum UnOp {
    /// Ones' complement.
    Not,
    /// Two's complement.
    Neg,
    /// Leading zeros; the width for zero.
    Clz,
    /// Trailing zeros; the width for zero.
    Ctz,
    /// Ones.
    Popcnt,
    /// Bytes reversed.
    Bswap,
    /// Bits reversed.
    Bitrev,
    /// Each byte: 0xff if it had any bit set, else 0 (RISC-V `orc.b`, A64 byte tests, Power `cmpb`).
    OrBytes,
}

impl UnOp {
    /// All of them, in order.
    pub const ALL: [Self; 8] =
        [Self::Not, Self::Neg, Self::Clz, Self::Ctz, Self::Popcnt, Self::Bswap, Self::Bitrev, Self::OrBytes];
}

/// Integer operations with two operands of type `ty`, result of the same type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum BinOp {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// Low half of a * b.
    Mul,
    /// High half of the unsigned product.
    MulHiU,
    /// High half of the signed product.
    MulHiS,
    /// High half of signed a times unsigned b.
    MulHiSU,
    /// Unsigned quotient.
    DivU,
    /// Signed quotient.
    DivS,
    /// Unsigned remainder.
    RemU,
    /// Signed remainder.
    RemS,
    /// a and b.
    And,
    /// a or b.
    Or,
    /// a exclusive-or b.
    Xor,
    /// a and not b.
    AndNot,
    /// a << b.
    Shl,
    /// a >> b, zeros in.
    ShrU,
    /// a >> b, sign in.
    ShrS,
    /// Rotate left.
    Rotl,
    /// Rotate right.
    Rotr,
    /// Smaller, unsigned.
    MinU,
    /// Larger, unsigned.
    MaxU,
    /// Smaller, signed.
    MinS,
    /// Larger, signed.
    MaxS,
    /// Low half of the carry-less product.
    ClMul,
    /// High half of the carry-less product.
    ClMulHi,
}

impl BinOp {
    /// All of them, in order.
    pub const ALL: [Self; 25] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::MulHiU,
        Self::MulHiS,
        Self::MulHiSU,
        Self::DivU,
        Self::DivS,
        Self::RemU,
        Self::RemS,
        Self::And,
        Self::Or,
        Self::Xor,
        Self::AndNot,
        Self::Shl,
        Self::ShrU,
        Self::ShrS,
        Self::Rotl,
        Self::Rotr,
        Self::MinU,
        Self::MaxU,
        Self::MinS,
        Self::MaxS,
        Self::ClMul,
        Self::ClMulHi,
    ];
}

/// Integer comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Cond {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Unsigned less.
    LtU,
    /// Unsigned greater or equal.
    GeU,
    /// Signed less.
    LtS,
    /// Signed greater or equal.
    GeS,
}

impl Cond {
    /// The condition that holds exactly when this one does not.
    pub const fn inverse(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::LtU => Self::GeU,
            Self::GeU => Self::LtU,
            Self::LtS => Self::GeS,
            Self::GeS => Self::LtS,
        }
    }
}

/// Read-modify-write operations; the result is the old memory value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RmwOp {
    /// New = operand.
    Xchg,
    /// New = old + operand.
    Add,
    /// New = old and operand.
    And,
    /// New = old and not operand (A64 LDCLR).
    AndNot,
    /// New = old or operand.
    Or,
    /// New = old xor operand.
    Xor,
    /// Smaller, signed.
    MinS,
    /// Larger, signed.
    MaxS,
    /// Smaller, unsigned.
    MinU,
    /// Larger, unsigned.
    MaxU,
}

impl RmwOp {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Xchg,
        Self::Add,
        Self::And,
        Self::AndNot,
        Self::Or,
        Self::Xor,
        Self::MinS,
        Self::MaxS,
        Self::MinU,
        Self::MaxU,
    ];
}

/// Floating-point operations with two operands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FpBinOp {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a * b.
    Mul,
    /// a / b.
    Div,
    /// IEEE 754-2019 minimumNumber: quiet and signalling NaNs are ignored, -0 < +0 (RISC-V `fmin`).
    MinNumber,
    /// IEEE 754-2019 maximumNumber.
    MaxNumber,
    /// IEEE 754-2019 minimum: NaN wins (RISC-V `fminm`, A64 `fmin`).
    Minimum,
    /// IEEE 754-2019 maximum.
    Maximum,
    /// IEEE 754-2008 minNum: a quiet NaN is ignored, a signalling one is propagated (A64 `fminnm`, Power `xsmindp`).
    MinNum2008,
    /// IEEE 754-2008 maxNum.
    MaxNum2008,
    /// a < b ? a : b (x86 `minsd`, Power `xsmincdp`).
    MinSelect,
    /// a > b ? a : b.
    MaxSelect,
}

impl FpBinOp {
    /// All of them, in order.
    pub const ALL: [Self; 12] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::MinNumber,
        Self::MaxNumber,
        Self::Minimum,
        Self::Maximum,
        Self::MinNum2008,
        Self::MaxNum2008,
        Self::MinSelect,
        Self::MaxSelect,
    ];
}

/// Which fused multiply-add: `(+-)(a * b) (+-) c`, signs applied before the single rounding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FmaOp {
    /// a * b + c.
    MulAdd,
    /// a * b - c.
    MulSub,
    /// -(a * b) + c.
    NegMulAdd,
    /// -(a * b) - c.
    NegMulSub,
}

impl FmaOp {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::MulAdd, Self::MulSub, Self::NegMulAdd, Self::NegMulSub];
}

/// Floating-point comparisons; false on unordered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FpCond {
    /// a = b.
    Eq,
    /// a < b.
    Lt,
    /// a <= b.
    Le,
    /// Either is a NaN (the one that is true then).
    Unordered,
}

impl FpCond {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Eq, Self::Lt, Self::Le, Self::Unordered];
}

/// What a conversion to an integer gives for NaN and out-of-range inputs (which raise Invalid, never Inexact).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FpOverflow {
    /// Saturate; NaN is the maximum (RISC-V).
    SaturateNanMax,
    /// Saturate; NaN is zero (A64, Power unsigned).
    SaturateNanZero,
    /// Always the minimum signed value / all ones (x86 integer indefinite).
    Indefinite,
    /// Saturate; NaN is the minimum (Power signed).
    SaturateNanMin,
}

impl FpOverflow {
    /// All of them, in order.
    pub const ALL: [Self; 4] =
        [Self::SaturateNanMax, Self::SaturateNanZero, Self::Indefinite, Self::SaturateNanMin];
}

/// Lane-wise vector operations with one operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum VecUnOp {
    /// Ones' complement (lane width does not matter).
    Not,
    /// Two's complement.
    Neg,
    /// Absolute value, wrapping.
    Abs,
    /// Leading zeros.
    Clz,
    /// Ones.
    Popcnt,
    /// Lanes reversed in order within the whole vector.
    Reverse,
    /// Low half of the lanes, zero-extended to twice the width.
    WidenLowU,
    /// Low half of the lanes, sign-extended.
    WidenLowS,
    /// High half, zero-extended.
    WidenHighU,
    /// High half, sign-extended.
    WidenHighS,
}

impl VecUnOp {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Not,
        Self::Neg,
        Self::Abs,
        Self::Clz,
        Self::Popcnt,
        Self::Reverse,
        Self::WidenLowU,
        Self::WidenLowS,
        Self::WidenHighU,
        Self::WidenHighS,
    ];
}

/// Lane-wise vector operations with two operands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum VecBinOp {
    /// Wrapping sum.
    Add,
    /// Wrapping difference.
    Sub,
    /// Low product.
    Mul,
    /// Unsigned saturating sum.
    AddSatU,
    /// Signed saturating sum.
    AddSatS,
    /// Unsigned saturating difference.
    SubSatU,
    /// Signed saturating difference.
    SubSatS,
    /// Smaller, unsigned.
    MinU,
    /// Smaller, signed.
    MinS,
    /// Larger, unsigned.
    MaxU,
    /// Larger, signed.
    MaxS,
    /// Unsigned average, rounded up.
    AvgU,
    /// And (lane width does not matter).
    And,
    /// Or.
    Or,
    /// Exclusive or.
    Xor,
    /// a and not b.
    AndNot,
    /// All-ones where equal.
    CmpEq,
    /// All-ones where unsigned greater.
    CmpGtU,
    /// All-ones where signed greater.
    CmpGtS,
    /// Left shift by the same lane of b, amounts at or above the width give 0.
    ShlV,
    /// Logical right shift by lane.
    ShrUV,
    /// Arithmetic right shift by lane; large amounts give the sign.
    ShrSV,
    /// Lanes of the low halves, a and b alternating.
    ZipLow,
    /// Lanes of the high halves alternating.
    ZipHigh,
    /// Even lanes of a then of b.
    UnzipEven,
    /// Odd lanes of a then of b.
    UnzipOdd,
    /// Byte lanes of a picked by the byte indexes in b; indexes of 16 and more give 0.
    Table,
    /// Lanes narrowed to half width, a low and b high, truncating.
    Narrow,
    /// Narrowed, signed to signed saturating.
    NarrowSatS,
    /// Narrowed, signed to unsigned saturating.
    NarrowSatSU,
    /// Narrowed, unsigned saturating.
    NarrowSatU,
}

impl VecBinOp {
    /// All of them, in order.
    pub const ALL: [Self; 31] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::AddSatU,
        Self::AddSatS,
        Self::SubSatU,
        Self::SubSatS,
        Self::MinU,
        Self::MinS,
        Self::MaxU,
        Self::MaxS,
        Self::AvgU,
        Self::And,
        Self::Or,
        Self::Xor,
        Self::AndNot,
        Self::CmpEq,
        Self::CmpGtU,
        Self::CmpGtS,
        Self::ShlV,
        Self::ShrUV,
        Self::ShrSV,
        Self::ZipLow,
        Self::ZipHigh,
        Self::UnzipEven,
        Self::UnzipOdd,
        Self::Table,
        Self::Narrow,
        Self::NarrowSatS,
        Self::NarrowSatSU,
        Self::NarrowSatU,
    ];
}

/// One operation. Results are described by [`Op::results`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Op {
    /// A guest instruction starts `offset` bytes after the block's entry and is `len` bytes long. Faults of the
    /// operations up to the next one have this instruction's pc.
    InsnStart { offset: u32, len: u8 },

    // --- constants and guest state
    /// An integer constant, zero-extended.
    Const { ty: Type, bits: u64 },
    /// A vector constant.
    ConstVec { bits: u128 },
    /// The guest virtual address `offset` bytes from the block's entry. Blocks are position-independent: guest
    /// code addresses come from here only, never from [`Op::Const`].
    PcRel { offset: i64 },
    /// Reads a slot.
    Get { slot: Slot },
    /// Writes a slot.
    Set { slot: Slot, value: Value },

    // --- integers
    /// One operand.
    Unary { op: UnOp, ty: Type, a: Value },
    /// Two operands.
    Binary { op: BinOp, ty: Type, a: Value, b: Value },
    /// a + b + carry (0 or 1): value, carry out, signed overflow.
    AddCarry { ty: Type, a: Value, b: Value, carry: Value },
    /// a - b - borrow (0 or 1): value, borrow out, signed overflow.
    SubBorrow { ty: Type, a: Value, b: Value, borrow: Value },
    /// 0 or 1, as I8.
    Compare { cond: Cond, ty: Type, a: Value, b: Value },
    /// `if c != 0 { a } else { b }`; `c` is I8.
    Select { ty: Type, c: Value, a: Value, b: Value },
    /// Zero-extends to a wider type.
    Zext { to: Type, a: Value },
    /// Sign-extends to a wider type.
    Sext { to: Type, a: Value },
    /// Keeps the low bits.
    Trunc { to: Type, a: Value },
    /// Bits `lo .. lo + len` of a, zero- or sign-extended to `ty`; `lo + len <= width`, `len >= 1`.
    Extract { ty: Type, a: Value, lo: u8, len: u8, signed: bool },
    /// `a` with bits `lo .. lo + len` replaced by the low bits of `b`.
    Deposit { ty: Type, a: Value, b: Value, lo: u8, len: u8 },

    // --- memory; addresses are I64 guest virtual addresses
    /// Loads `mem` and extends it to `ty` (`V128` only to itself).
    Load { ty: Type, mem: Type, signed: bool, addr: Value, flags: MemFlags },
    /// Stores the low bits of `value`.
    Store { mem: Type, addr: Value, value: Value, flags: MemFlags },
    /// Atomic read-modify-write; the old value. Always naturally aligned.
    Rmw { op: RmwOp, ty: Type, addr: Value, value: Value, flags: MemFlags },
    /// Atomic compare-and-swap; the old value (equal to `expected` exactly when stored). Naturally aligned.
    Cas { ty: Type, addr: Value, expected: Value, new: Value, flags: MemFlags },
    /// 16-byte compare-and-swap on pairs of I64, low half first; the old pair. 16-byte aligned.
    CasPair { addr: Value, expected: [Value; 2], new: [Value; 2], flags: MemFlags },
    /// Loads and sets this vCPU's reservation.
    LoadReserve { ty: Type, addr: Value, flags: MemFlags },
    /// Stores if the reservation still holds, and clears it; I8 1 if it stored.
    StoreCond { ty: Type, addr: Value, value: Value, flags: MemFlags },
    /// Orders earlier accesses before later ones.
    Fence { order: Order },

    // --- floating point; flags accumulate in `CpuHeader::fp_flags`, rules come from `Block::fp`
    /// Two operands.
    FpBinary { op: FpBinOp, fmt: FpFormat, rounding: Rounding, a: Value, b: Value },
    /// Square root.
    FpSqrt { fmt: FpFormat, rounding: Rounding, a: Value },
    /// Fused multiply-add.
    FpFma { op: FmaOp, fmt: FpFormat, rounding: Rounding, a: Value, b: Value, c: Value },
    /// Comparison, I8 0 or 1; `signalling` raises Invalid on any NaN, else only on a signalling one.
    FpCompare { cond: FpCond, fmt: FpFormat, signalling: bool, a: Value, b: Value },
    /// Format conversion.
    FpConvert { from: FpFormat, to: FpFormat, rounding: Rounding, a: Value },
    /// To a 32- or 64-bit integer.
    FpToInt { fmt: FpFormat, to: Type, signed: bool, overflow: FpOverflow, rounding: Rounding, a: Value },
    /// From a 32- or 64-bit integer.
    FpFromInt { fmt: FpFormat, from: Type, signed: bool, rounding: Rounding, a: Value },
    /// To an integral value in the same format; `inexact`: raise Inexact when it changes.
    FpRound { fmt: FpFormat, rounding: Rounding, inexact: bool, a: Value },

    // --- 128-bit vectors
    /// Lane-wise, one operand.
    VecUnary { op: VecUnOp, lane: Lane, a: Value },
    /// Lane-wise, two operands.
    VecBinary { op: VecBinOp, lane: Lane, a: Value, b: Value },
    /// Bit-wise `(m & a) | (!m & b)`.
    VecSelect { m: Value, a: Value, b: Value },
    /// Shift all lanes by a constant (smaller than the lane): `left`, else `signed` or logical right.
    VecShift { lane: Lane, left: bool, signed: bool, amount: u8, a: Value },
    /// Every lane = the integer `a` of the lane's type.
    VecSplat { lane: Lane, a: Value },
    /// Lane `index`, as the lane's integer type.
    VecGet { lane: Lane, index: u8, a: Value },
    /// `a` with lane `index` replaced by the integer `b`.
    VecSet { lane: Lane, index: u8, a: Value, b: Value },
    /// Bytes picked from `a` (0..16) and `b` (16..32); other indexes give 0.
    VecShuffle { bytes: [u8; 16], a: Value, b: Value },
    /// Lane-wise floating point. Lane width = the format's.
    VecFpBinary { op: FpBinOp, fmt: FpFormat, rounding: Rounding, a: Value, b: Value },
    /// Lane-wise fused multiply-add.
    VecFpFma { op: FmaOp, fmt: FpFormat, rounding: Rounding, a: Value, b: Value, c: Value },
    /// Lane-wise square root.
    VecFpSqrt { fmt: FpFormat, rounding: Rounding, a: Value },
    /// Lane-wise comparison, all-ones where true.
    VecFpCompare { cond: FpCond, fmt: FpFormat, signalling: bool, a: Value, b: Value },

    // --- escape hatches
    /// Calls a helper with up to four I64 (or narrower, zero-extended) arguments; `result` is the type of the
    /// value it gives (the low bits of its u64), if any. See [`crate::guest::HelperDesc`] for what it may touch.
    Call { helper: HelperId, args: [Option<Value>; 4], result: Option<Type> },
    /// Takes the guest's trap `code` with `value` at this instruction if `c` (I8) is not 0.
    TrapIf { c: Value, code: u32, value: Value },
}

impl Op {
    /// The types of the values this operation defines, in order. `slot_type` gives a slot's type.
    pub fn results(&self, slot_type: impl Fn(Slot) -> Type) -> ([Type; 3], usize) {
        use Type::{I8, I64, V128};
        let one = |ty| ([ty, I8, I8], 1);
        let none = ([I8; 3], 0);
        match *self {
            Self::InsnStart { .. }
            | Self::Set { .. }
            | Self::Store { .. }
            | Self::Fence { .. }
            | Self::TrapIf { .. } => none,
            Self::Const { ty, .. }
            | Self::Unary { ty, .. }
            | Self::Binary { ty, .. }
            | Self::Select { ty, .. }
            | Self::Extract { ty, .. }
            | Self::Deposit { ty, .. }
            | Self::Load { ty, .. }
            | Self::Rmw { ty, .. }
            | Self::Cas { ty, .. }
            | Self::LoadReserve { ty, .. } => one(ty),
            Self::Zext { to, .. }
            | Self::Sext { to, .. }
            | Self::Trunc { to, .. }
            | Self::FpToInt { to, .. } => one(to),
            Self::AddCarry { ty, .. } | Self::SubBorrow { ty, .. } => ([ty, I8, I8], 3),
            Self::CasPair { .. } => ([I64, I64, I8], 2),
            Self::PcRel { .. } => one(I64),
            Self::Get { slot } => one(slot_type(slot)),
            Self::Compare { .. } | Self::StoreCond { .. } | Self::FpCompare { .. } => one(I8),
            Self::FpBinary { fmt, .. }
            | Self::FpSqrt { fmt, .. }
            | Self::FpFma { fmt, .. }
            | Self::FpFromInt { fmt, .. }
            | Self::FpRound { fmt, .. } => one(fmt.ty()),
            Self::FpConvert { to, .. } => one(to.ty()),
            Self::VecGet { lane, .. } => one(lane.ty()),
            Self::ConstVec { .. }
            | Self::VecUnary { .. }
            | Self::VecBinary { .. }
            | Self::VecSelect { .. }
            | Self::VecShift { .. }
            | Self::VecSplat { .. }
            | Self::VecSet { .. }
            | Self::VecShuffle { .. }
            | Self::VecFpBinary { .. }
            | Self::VecFpFma { .. }
            | Self::VecFpSqrt { .. }
            | Self::VecFpCompare { .. } => one(V128),
            Self::Call { result, .. } => result.map_or(none, one),
        }
    }

    /// Calls `f` on every value operand, in order.
    pub fn for_each_operand(&self, mut f: impl FnMut(Value)) {
        let _ = self.clone_with(|v| {
            f(v);
            v
        });
    }

    /// The same operation with every operand replaced.
    #[must_use]
    pub fn clone_with(&self, f: impl FnMut(Value) -> Value) -> Self {
        let mut op = *self;
        op.map_operands(f);
        op
    }

    /// Replaces every operand, in order.
    pub fn map_operands(&mut self, mut f: impl FnMut(Value) -> Value) {
        match self {
            Self::InsnStart { .. }
            | Self::Const { .. }
            | Self::ConstVec { .. }
            | Self::PcRel { .. }
            | Self::Get { .. }
            | Self::Fence { .. } => {}
            Self::Set { value: a, .. }
            | Self::Unary { a, .. }
            | Self::Zext { a, .. }
            | Self::Sext { a, .. }
            | Self::Trunc { a, .. }
            | Self::Extract { a, .. }
            | Self::Load { addr: a, .. }
            | Self::LoadReserve { addr: a, .. }
            | Self::FpSqrt { a, .. }
            | Self::FpConvert { a, .. }
            | Self::FpToInt { a, .. }
            | Self::FpFromInt { a, .. }
            | Self::FpRound { a, .. }
            | Self::VecUnary { a, .. }
            | Self::VecShift { a, .. }
            | Self::VecSplat { a, .. }
            | Self::VecGet { a, .. }
            | Self::VecFpSqrt { a, .. } => *a = f(*a),
            Self::Binary { a, b, .. }
            | Self::Compare { a, b, .. }
            | Self::Deposit { a, b, .. }
            | Self::Store { addr: a, value: b, .. }
            | Self::Rmw { addr: a, value: b, .. }
            | Self::StoreCond { addr: a, value: b, .. }
            | Self::FpBinary { a, b, .. }
            | Self::FpCompare { a, b, .. }
            | Self::VecBinary { a, b, .. }
            | Self::VecSet { a, b, .. }
            | Self::VecShuffle { a, b, .. }
            | Self::VecFpBinary { a, b, .. }
            | Self::VecFpCompare { a, b, .. }
            | Self::TrapIf { c: a, value: b, .. } => (*a, *b) = (f(*a), f(*b)),
            Self::AddCarry { a, b, carry: c, .. }
            | Self::SubBorrow { a, b, borrow: c, .. }
            | Self::Select { c: a, a: b, b: c, .. }
            | Self::Cas { addr: a, expected: b, new: c, .. }
            | Self::FpFma { a, b, c, .. }
            | Self::VecSelect { m: a, a: b, b: c }
            | Self::VecFpFma { a, b, c, .. } => (*a, *b, *c) = (f(*a), f(*b), f(*c)),
            Self::CasPair { addr, expected, new, .. } => {
                *addr = f(*addr);
                *expected = expected.map(&mut f);
                *new = new.map(&mut f);
            }
            Self::Call { args, .. } => *args = args.map(|a| a.map(&mut f)),
        }
    }

    /// Computes only from its operands: may be merged, moved, or dropped when unused. Floating point is not
    /// pure: it raises sticky flags.
    pub const fn is_pure(&self) -> bool {
        matches!(
            self,
            Self::Const { .. }
                | Self::ConstVec { .. }
                | Self::PcRel { .. }
                | Self::Unary { .. }
                | Self::Binary { .. }
                | Self::AddCarry { .. }
                | Self::SubBorrow { .. }
                | Self::Compare { .. }
                | Self::Select { .. }
                | Self::Zext { .. }
                | Self::Sext { .. }
                | Self::Trunc { .. }
                | Self::Extract { .. }
                | Self::Deposit { .. }
                | Self::VecUnary { .. }
                | Self::VecBinary { .. }
                | Self::VecSelect { .. }
                | Self::VecShift { .. }
                | Self::VecSplat { .. }
                | Self::VecGet { .. }
                | Self::VecSet { .. }
                | Self::VecShuffle { .. }
        )
    }

    /// Can this operation leave the block with a guest trap, so that all slots must be up to date before it?
    /// (A helper call's answer is in its [`crate::guest::HelperDesc`].)
    pub const fn may_fault(&self) -> bool {
        matches!(
            self,
            Self::Load { .. }
                | Self::Store { .. }
                | Self::Rmw { .. }
                | Self::Cas { .. }
                | Self::CasPair { .. }
                | Self::LoadReserve { .. }
                | Self::StoreCond { .. }
                | Self::TrapIf { .. }
        )
    }

    /// The memory flags of an access.
    pub const fn mem_flags(&self) -> Option<MemFlags> {
        match self {
            Self::Load { flags, .. }
            | Self::Store { flags, .. }
            | Self::Rmw { flags, .. }
            | Self::Cas { flags, .. }
            | Self::CasPair { flags, .. }
            | Self::LoadReserve { flags, .. }
            | Self::StoreCond { flags, .. } => Some(*flags),
            _ => None,
        }
    }

    /// Is this a big-endian access?
    pub const fn is_big_endian(&self) -> bool {
        matches!(self.mem_flags(), Some(MemFlags { endian: Endian::Big, .. }))
    }
}
