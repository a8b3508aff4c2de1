//! Folding rules: what one operation over known operands comes down to. A rule gives an earlier value or one operation
//! in place of the old one, never more, so folding cannot make a block longer.

use super::Code;
use crate::{
    eval,
    op::{BinOp, Cond, Op, UnOp, VecBinOp},
    types::{Type, Value},
};

/// What an operation is after one rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Folded {
    /// No rule fits.
    Kept,
    /// A value that exists already.
    Value(Value),
    /// A simpler operation; other rules may fit it.
    Op(Op),
}

use Folded::Kept;

fn konst(ty: Type, bits: u64) -> Folded {
    Folded::Op(Op::Const { ty, bits: bits & ty.mask() })
}

fn value_if(condition: bool, v: Value) -> Folded {
    if condition { Folded::Value(v) } else { Kept }
}

const fn commutes(op: BinOp) -> bool {
    use BinOp::{Add, And, ClMul, ClMulHi, MaxS, MaxU, MinS, MinU, Mul, MulHiS, MulHiU, Or, Xor};
    matches!(op, Add | Mul | MulHiU | MulHiS | And | Or | Xor | MinU | MaxU | MinS | MaxS | ClMul | ClMulHi)
}

const fn shifts(op: BinOp) -> bool {
    matches!(op, BinOp::Shl | BinOp::ShrU | BinOp::ShrS | BinOp::Rotl | BinOp::Rotr)
}

impl Code {
    /// Applies the first rule that fits the pure operation `op`. `insn_align` divides the block's entry address.
    pub(super) fn fold(&self, op: &Op, insn_align: u32) -> Folded {
        match *op {
            Op::Unary { op, ty, a } if ty.is_int() => self.fold_unary(op, ty, a),
            Op::Binary { op, ty, a, b } if ty.is_int() => self.fold_binary(op, ty, a, b, insn_align),
            Op::Compare { cond, ty, a, b } if ty.is_int() => self.fold_compare(cond, ty, a, b),
            Op::Select { ty, c, a, b } => self.fold_select(ty, c, a, b),
            Op::Zext { to, a } => self.fold_zext(to, a),
            Op::Sext { to, a } => self.fold_sext(to, a),
            Op::Trunc { to, a } => self.fold_trunc(to, a),
            Op::Extract { ty, a, lo, len, signed } if ty.is_int() => {
                self.fold_extract(ty, a, lo, len, signed)
            }
            Op::Deposit { ty, a, b, lo, len } if ty.is_int() => self.fold_deposit(ty, a, b, lo, len),
            Op::VecBinary { op, a, b, .. } if a == b => match op {
                VecBinOp::And | VecBinOp::Or => Folded::Value(a),
                VecBinOp::Xor | VecBinOp::Sub | VecBinOp::AndNot => Folded::Op(Op::ConstVec { bits: 0 }),
                _ => Kept,
            },
            Op::VecSelect { a, b, .. } => value_if(a == b, a),
            _ => Kept,
        }
    }

    // --- what is known of a value

    /// An upper bound of the number of low bits of an integer that may be set; constants fold without it.
    fn zero_extended_from(&self, v: Value) -> u32 {
        let ty = self.type_of(v);
        let (op, result) = self.def(v);
        let bound = match *op {
            _ if result > 0 && ty == Type::I8 => 1,
            _ if result > 0 => ty.bits(),
            Op::Zext { a, .. } => self.zero_extended_from(a),
            Op::Load { mem, signed: false, .. } => mem.bits(),
            Op::Compare { .. } | Op::FpCompare { .. } | Op::StoreCond { .. } => 1,
            Op::Extract { len, signed: false, .. } => len.into(),
            Op::Binary { op: BinOp::And, b, .. } => {
                self.konst(b).map_or(u32::MAX, |mask| 64 - mask.leading_zeros())
            }
            Op::Binary { op: BinOp::ShrU, b, .. } => {
                self.konst(b).map_or(u32::MAX, |by| ty.bits() - (by % u64::from(ty.bits())) as u32)
            }
            _ => u32::MAX,
        };
        bound.min(ty.bits())
    }

    /// An upper bound of the width whose sign extension the integer is.
    fn sign_extended_from(&self, v: Value) -> u32 {
        let ty = self.type_of(v);
        let bound = match *self.def(v).0 {
            Op::Sext { a, .. } => self.type_of(a).bits(),
            Op::Load { mem, signed: true, .. } => mem.bits(),
            Op::Extract { len, signed: true, .. } => len.into(),
            Op::Binary { op: BinOp::ShrS, b, .. } => {
                self.konst(b).map_or(u32::MAX, |by| ty.bits() - (by % u64::from(ty.bits())) as u32)
            }
            _ => self.zero_extended_from(v) + 1,
        };
        bound.min(ty.bits())
    }

    /// The truth value (I8, 0 or 1) that `v` is, perhaps after zero extension.
    pub(super) fn boolean(&self, v: Value) -> Option<Value> {
        match *self.def(v).0 {
            Op::Zext { a, .. } => self.boolean(a),
            _ => (self.type_of(v) == Type::I8 && self.zero_extended_from(v) <= 1).then_some(v),
        }
    }

    /// The comparison whose truth `v` is.
    fn comparison(&self, v: Value) -> Option<(Cond, Type, Value, Value)> {
        match (self.def(v).0, self.def(v).1) {
            (&Op::Compare { cond, ty, a, b }, _) => Some((cond, ty, a, b)),
            (&Op::SubBorrow { ty, a, b, borrow }, 1) if self.konst(borrow) == Some(0) => {
                Some((Cond::LtU, ty, a, b))
            }
            _ => None,
        }
    }

    // --- rules

    fn fold_unary(&self, op: UnOp, ty: Type, a: Value) -> Folded {
        if let Some(bits) = self.konst(a) {
            return konst(ty, eval::unary(op, ty, bits));
        }
        match *self.def(a).0 {
            Op::Unary { op: inner, a: original, .. } => {
                let own_inverse = matches!(op, UnOp::Not | UnOp::Neg | UnOp::Bswap | UnOp::Bitrev);
                value_if(op == inner && own_inverse, original)
            }
            _ => Kept,
        }
    }

    fn fold_binary(&self, op: BinOp, ty: Type, a: Value, b: Value, insn_align: u32) -> Folded {
        match (self.konst(a), self.konst(b)) {
            (Some(x), Some(y)) => konst(ty, eval::binary(op, ty, x, y)),
            (Some(_), None) if commutes(op) => Folded::Op(Op::Binary { op, ty, a: b, b: a }),
            (Some(x), None) => fold_left_konst(op, ty, a, x, b),
            (None, Some(y)) => match self.fold_pc(op, a, y, insn_align) {
                Kept => self.fold_right_konst(op, ty, a, b, y),
                folded => folded,
            },
            (None, None) => self.fold_values(op, ty, a, b),
        }
    }

    /// A guest code address and a constant.
    fn fold_pc(&self, op: BinOp, a: Value, y: u64, insn_align: u32) -> Folded {
        let &Op::PcRel { offset } = self.def(a).0 else { return Kept };
        let offset = match op {
            BinOp::Add => offset.wrapping_add(y as i64),
            BinOp::Sub => offset.wrapping_sub(y as i64),
            // The mask clears only bits that the entry's address has not.
            BinOp::And if !y < u64::from(insn_align) => offset & y as i64,
            _ => return Kept,
        };
        Folded::Op(Op::PcRel { offset })
    }

    fn fold_right_konst(&self, op: BinOp, ty: Type, a: Value, b: Value, y: u64) -> Folded {
        use BinOp::*;
        let ones = ty.mask();
        let (smallest, largest) = (1 << (ty.bits() - 1), ones >> 1);
        if shifts(op) && y.is_multiple_of(u64::from(ty.bits())) {
            return Folded::Value(a);
        }
        match (op, y) {
            (Add | Sub | Or | Xor | AndNot | MaxU, 0) => Folded::Value(a),
            (Mul | DivU | DivS | ClMul, 1) => Folded::Value(a),
            (And | MinU, _) if y == ones => Folded::Value(a),
            (RemU | RemS, 0) => Folded::Value(a),
            (Mul | MulHiU | MulHiS | MulHiSU | And | MinU | ClMul | ClMulHi, 0) => Folded::Value(b),
            (Or | MaxU, _) if y == ones => Folded::Value(b),
            (DivU | DivS, 0) => konst(ty, ones),
            (MulHiU | ClMulHi | RemU | RemS, 1) => konst(ty, 0),
            (AndNot | RemS, _) if y == ones => konst(ty, 0),
            (DivS, _) if y == ones => Folded::Op(Op::Unary { op: UnOp::Neg, ty, a }),
            (Xor, _) if y == ones => Folded::Op(Op::Unary { op: UnOp::Not, ty, a }),
            (MinS, _) if y == smallest => Folded::Value(b),
            (MinS, _) if y == largest => Folded::Value(a),
            (MaxS, _) if y == largest => Folded::Value(b),
            (MaxS, _) if y == smallest => Folded::Value(a),
            (And, _) => {
                let width = self.zero_extended_from(a);
                value_if(width < 64 && !y & ((1 << width) - 1) == 0, a)
            }
            (Xor, 1) => match self.comparison(a) {
                Some((cond, ty, a, b)) if self.type_of(a) != Type::V128 => {
                    Folded::Op(Op::Compare { cond: cond.inverse(), ty, a, b })
                }
                _ => Kept,
            },
            _ => Kept,
        }
    }

    fn fold_values(&self, op: BinOp, ty: Type, a: Value, b: Value) -> Folded {
        use BinOp::*;
        if a == b {
            return match op {
                Sub | Xor | AndNot | RemU | RemS => konst(ty, 0),
                And | Or | MinU | MaxU | MinS | MaxS => Folded::Value(a),
                _ => Kept,
            };
        }
        let inverted = |v| match *self.def(v).0 {
            Op::Unary { op: UnOp::Not, a, .. } => Some(a),
            _ => None,
        };
        match op {
            And => match (inverted(a), inverted(b)) {
                (_, Some(b)) => Folded::Op(Op::Binary { op: AndNot, ty, a, b }),
                (Some(a), None) => Folded::Op(Op::Binary { op: AndNot, ty, a: b, b: a }),
                (None, None) => Kept,
            },
            AndNot => match inverted(b) {
                Some(b) => Folded::Op(Op::Binary { op: And, ty, a, b }),
                None => self.fold_greater(a, b),
            },
            // Amounts are taken modulo the width anyway.
            _ if shifts(op) => match *self.def(b).0 {
                Op::Binary { op: And, a: amount, b: mask, .. } => {
                    let needed = u64::from(ty.bits() - 1);
                    let all = self.konst(mask).is_some_and(|mask| mask & needed == needed);
                    if all { Folded::Op(Op::Binary { op, ty, a, b: amount }) } else { Kept }
                }
                _ => Kept,
            },
            _ => Kept,
        }
    }

    fn fold_compare(&self, cond: Cond, ty: Type, a: Value, b: Value) -> Folded {
        let equal = matches!(cond, Cond::Eq | Cond::Ne);
        if a == b {
            return konst(Type::I8, u64::from(matches!(cond, Cond::Eq | Cond::GeU | Cond::GeS)));
        }
        match (self.konst(a), self.konst(b)) {
            (Some(x), Some(y)) => konst(Type::I8, u64::from(eval::compare(cond, ty, x, y))),
            (Some(_), None) if equal => Folded::Op(Op::Compare { cond, ty, a: b, b: a }),
            (Some(0), None) if cond == Cond::LtU => {
                Folded::Op(Op::Compare { cond: Cond::Ne, ty, a: b, b: a })
            }
            (Some(0), None) if cond == Cond::GeU => {
                Folded::Op(Op::Compare { cond: Cond::Eq, ty, a: b, b: a })
            }
            (None, Some(0)) if cond == Cond::LtU => konst(Type::I8, 0),
            (None, Some(0)) if cond == Cond::GeU => konst(Type::I8, 1),
            (None, Some(y)) if equal => self.fold_equal_konst(cond, a, y),
            (None, None) if equal && ty == Type::I8 => match self.fold_equal_xor(cond, a, b) {
                Kept if cond == Cond::Ne => self.fold_signed_less(a, b),
                folded => folded,
            },
            _ => Kept,
        }
    }

    /// Equality with a constant: of truth values, and of differences with 0.
    fn fold_equal_konst(&self, cond: Cond, a: Value, y: u64) -> Folded {
        if y <= 1
            && let Some(truth) = self.boolean(a)
        {
            return match ((cond == Cond::Ne) == (y == 0), self.comparison(truth)) {
                (true, _) => Folded::Value(truth),
                (false, Some((cond, ty, a, b))) => Folded::Op(Op::Compare { cond: cond.inverse(), ty, a, b }),
                (false, None) => Kept,
            };
        }
        match (self.def(a).0, self.def(a).1) {
            (&Op::Binary { op: BinOp::Sub | BinOp::Xor, ty, a, b }, _) if y == 0 => {
                Folded::Op(Op::Compare { cond, ty, a, b })
            }
            (&Op::SubBorrow { ty, a, b, borrow }, 0) if y == 0 && self.konst(borrow) == Some(0) => {
                Folded::Op(Op::Compare { cond, ty, a, b })
            }
            _ => Kept,
        }
    }

    /// Greater or equal, and not equal, is greater (A64 HI and GT).
    fn fold_greater(&self, a: Value, b: Value) -> Folded {
        let (Some((cond, ty, x, y)), Some((Cond::Eq, _, p, q))) = (self.comparison(a), self.comparison(b))
        else {
            return Kept;
        };
        let cond = match cond {
            Cond::GeU => Cond::LtU,
            Cond::GeS => Cond::LtS,
            _ => return Kept,
        };
        if (x, y) == (p, q) { Folded::Op(Op::Compare { cond, ty, a: y, b: x }) } else { Kept }
    }

    /// Of truth values, `a == (c ^ a)` is not c (overflow made from less and sign: A64 GE).
    fn fold_equal_xor(&self, cond: Cond, a: Value, b: Value) -> Folded {
        let rest = |sum: Value, part: Value| match *self.def(sum).0 {
            Op::Binary { op: BinOp::Xor, a, b, .. } if a == part => Some(b),
            Op::Binary { op: BinOp::Xor, a, b, .. } if b == part => Some(a),
            _ => None,
        };
        let Some(truth) = rest(b, a).or_else(|| rest(a, b)).filter(|&v| self.boolean(v).is_some()) else {
            return Kept;
        };
        match (cond, self.comparison(truth)) {
            (Cond::Ne, _) => Folded::Value(truth),
            (_, Some((cond, ty, a, b))) => Folded::Op(Op::Compare { cond: cond.inverse(), ty, a, b }),
            _ => Kept,
        }
    }

    /// `sign != overflow` of a subtraction is signed less (A64 LT, x86 L).
    fn fold_signed_less(&self, a: Value, b: Value) -> Folded {
        let less = |sign: Value, overflow: Value| {
            let &Op::Compare { cond: Cond::LtS, a: difference, b: zero, .. } = self.def(sign).0 else {
                return None;
            };
            let (&Op::SubBorrow { ty, a, b, borrow }, 2) = self.def(overflow) else { return None };
            let same = difference.0 + 2 == overflow.0;
            let fits = same && self.konst(zero) == Some(0) && self.konst(borrow) == Some(0);
            fits.then_some(Folded::Op(Op::Compare { cond: Cond::LtS, ty, a, b }))
        };
        less(a, b).or_else(|| less(b, a)).unwrap_or(Kept)
    }

    fn fold_select(&self, ty: Type, c: Value, a: Value, b: Value) -> Folded {
        if let Some(bits) = self.konst(c) {
            return Folded::Value(if bits != 0 { a } else { b });
        }
        if a == b {
            return Folded::Value(a);
        }
        if let &Op::Compare { cond: Cond::Eq, a: x, b: zero, .. } = self.def(c).0
            && self.konst(zero) == Some(0)
            && let Some(c) = self.boolean(x)
        {
            return Folded::Op(Op::Select { ty, c, a: b, b: a });
        }
        match (self.konst(a), self.konst(b), self.boolean(c)) {
            (Some(1), Some(0), Some(c)) if ty == Type::I8 => Folded::Value(c),
            (Some(1), Some(0), Some(c)) => Folded::Op(Op::Zext { to: ty, a: c }),
            _ => Kept,
        }
    }

    fn fold_zext(&self, to: Type, a: Value) -> Folded {
        let from = self.type_of(a);
        match *self.def(a).0 {
            Op::Const { bits, .. } if to.is_int() => konst(to, bits),
            Op::Const { bits, .. } => Folded::Op(Op::ConstVec { bits: bits.into() }),
            Op::Zext { a, .. } => Folded::Op(Op::Zext { to, a }),
            Op::Trunc { a: wide, .. } if self.type_of(wide) == to && to.is_int() => {
                value_if(self.zero_extended_from(wide) <= from.bits(), wide)
            }
            _ => Kept,
        }
    }

    fn fold_sext(&self, to: Type, a: Value) -> Folded {
        let from = self.type_of(a);
        match *self.def(a).0 {
            Op::Const { bits, .. } if to.is_int() => konst(to, eval::sign_extend(bits, from.bits()) as u64),
            Op::Const { bits, .. } => {
                Folded::Op(Op::ConstVec { bits: i128::from(eval::sign_extend(bits, from.bits())) as u128 })
            }
            Op::Sext { a, .. } => Folded::Op(Op::Sext { to, a }),
            Op::Zext { a, .. } => Folded::Op(Op::Zext { to, a }),
            Op::Trunc { a: wide, .. } if self.type_of(wide) == to => {
                value_if(self.sign_extended_from(wide) <= from.bits(), wide)
            }
            _ => Kept,
        }
    }

    fn fold_trunc(&self, to: Type, a: Value) -> Folded {
        match *self.def(a).0 {
            Op::Const { bits, .. } => konst(to, bits),
            Op::ConstVec { bits } => konst(to, bits as u64),
            Op::Trunc { a, .. } => Folded::Op(Op::Trunc { to, a }),
            Op::Zext { a: narrow, .. } | Op::Sext { a: narrow, .. } if self.type_of(narrow) == to => {
                Folded::Value(narrow)
            }
            Op::Zext { a, .. } | Op::Sext { a, .. } if to < self.type_of(a) => {
                Folded::Op(Op::Trunc { to, a })
            }
            Op::Zext { a, .. } => Folded::Op(Op::Zext { to, a }),
            Op::Sext { a, .. } => Folded::Op(Op::Sext { to, a }),
            Op::Binary { op: BinOp::And, ty, a, b } if ty.is_int() => match self.konst(b) {
                Some(mask) if !mask & to.mask() == 0 => Folded::Op(Op::Trunc { to, a }),
                _ => Kept,
            },
            Op::Extract { ty, a, lo: 0, len, .. } if ty.is_int() && u32::from(len) >= to.bits() => {
                Folded::Op(Op::Trunc { to, a })
            }
            _ => Kept,
        }
    }

    fn fold_extract(&self, ty: Type, a: Value, lo: u8, len: u8, signed: bool) -> Folded {
        let end = u32::from(lo) + u32::from(len);
        if u32::from(len) == ty.bits() {
            return Folded::Value(a);
        }
        if let Some(bits) = self.konst(a) {
            return konst(ty, extract(bits, lo, len, signed));
        }
        let whole = if signed { self.sign_extended_from(a) } else { self.zero_extended_from(a) };
        if lo == 0 && whole <= len.into() {
            return Folded::Value(a);
        }
        match *self.def(a).0 {
            Op::Deposit { b, lo: at, len: n, .. } if (at, n) == (lo, len) => {
                Folded::Op(Op::Extract { ty, a: b, lo: 0, len, signed })
            }
            Op::Deposit { a, lo: at, len: n, .. } if u32::from(at) >= end || at + n <= lo => {
                Folded::Op(Op::Extract { ty, a, lo, len, signed })
            }
            _ => Kept,
        }
    }

    fn fold_deposit(&self, ty: Type, a: Value, b: Value, lo: u8, len: u8) -> Folded {
        if u32::from(len) == ty.bits() {
            return Folded::Value(b);
        }
        if let (Some(x), Some(y)) = (self.konst(a), self.konst(b)) {
            let mask = low_ones(len) << lo;
            return konst(ty, x & !mask | y << lo & mask);
        }
        match *self.def(a).0 {
            Op::Deposit { a, lo: at, len: n, .. } if (at, n) == (lo, len) => {
                Folded::Op(Op::Deposit { ty, a, b, lo, len })
            }
            _ => Kept,
        }
    }
}

/// A constant on the left of an operation that does not commute.
fn fold_left_konst(op: BinOp, ty: Type, a: Value, x: u64, b: Value) -> Folded {
    use BinOp::*;
    match (op, x) {
        (Sub, 0) => Folded::Op(Op::Unary { op: UnOp::Neg, ty, a: b }),
        (Shl | ShrU | ShrS | Rotl | Rotr | AndNot | RemU | RemS | MulHiSU, 0) => Folded::Value(a),
        (AndNot, _) if x == ty.mask() => Folded::Op(Op::Unary { op: UnOp::Not, ty, a: b }),
        (ShrS | Rotl | Rotr, _) if x == ty.mask() => Folded::Value(a),
        _ => Kept,
    }
}

/// That many ones, 1 to 64.
const fn low_ones(len: u8) -> u64 {
    u64::MAX >> (64 - len as u32)
}

/// A bit field extended to 64 bits.
fn extract(bits: u64, lo: u8, len: u8, signed: bool) -> u64 {
    let field = bits >> lo & low_ones(len);
    if signed { eval::sign_extend(field, len.into()) as u64 } else { field }
}
