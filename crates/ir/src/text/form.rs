//! The words and operands of every operation and terminal, in order; printer and parser walk them alike.

use super::names::Named;
use crate::{
    block::{LinkHint, Terminal},
    op::Op,
    types::{Align, Endian, HelperId, MemFlags, Slot, Type, Value},
};

/// Prints fields, or fills them in from text.
pub(super) trait Form {
    /// What may go wrong.
    type Error;

    /// A word behind the operation's name.
    fn word<E: Named>(&mut self, word: &mut E) -> Result<(), Self::Error>;
    /// The first word for false, the second for true.
    fn flag(&mut self, flag: &mut bool, words: [&'static str; 2]) -> Result<(), Self::Error>;
    /// A type, or `none`.
    fn optional_type(&mut self, ty: &mut Option<Type>) -> Result<(), Self::Error>;

    /// A value.
    fn value(&mut self, v: &mut Value) -> Result<(), Self::Error>;
    /// A value in brackets.
    fn address(&mut self, v: &mut Value) -> Result<(), Self::Error>;
    /// A value, or nothing if this is the last operand.
    fn optional_value(&mut self, v: &mut Option<Value>) -> Result<(), Self::Error>;
    /// The values of a call, `_` for one that is absent although others follow.
    fn arguments(&mut self, args: &mut [Option<Value>; 4]) -> Result<(), Self::Error>;
    /// A slot's name.
    fn slot(&mut self, slot: &mut Slot) -> Result<(), Self::Error>;
    /// A helper's name.
    fn helper(&mut self, helper: &mut HelperId) -> Result<(), Self::Error>;
    /// A number in hexadecimal.
    fn bits<N: Number>(&mut self, bits: &mut N) -> Result<(), Self::Error>;
    /// A number in decimal.
    fn number(&mut self, number: &mut u8) -> Result<(), Self::Error>;
    /// A number with its sign.
    fn offset(&mut self, offset: &mut i64) -> Result<(), Self::Error>;
    /// A memory order.
    fn order(&mut self, order: &mut crate::types::Order) -> Result<(), Self::Error>;
    /// `mmu=`, order, and `big` and `aligned` where they apply.
    fn mem_flags(&mut self, flags: &mut MemFlags) -> Result<(), Self::Error>;
    /// `call +return` or `return` behind the last operand, or nothing.
    fn hint(&mut self, hint: &mut LinkHint) -> Result<(), Self::Error>;
    /// An instruction's offset and length.
    fn insn(&mut self, offset: &mut u32, len: &mut u8) -> Result<(), Self::Error>;
}

/// An unsigned number that is written in hexadecimal.
pub(super) trait Number: Copy {
    fn to_wide(self) -> u128;
    fn from_wide(wide: u128) -> Option<Self>;
}

macro_rules! numbers {
    ($($ty:ident)*) => {$(
        impl Number for $ty {
            fn to_wide(self) -> u128 {
                self.into()
            }
            fn from_wide(wide: u128) -> Option<Self> {
                Self::try_from(wide).ok()
            }
        }
    )*};
}

numbers! { u32 u64 u128 }

/// Sixteen bytes are written as one number whose low byte is the first.
impl Number for [u8; 16] {
    fn to_wide(self) -> u128 {
        u128::from_le_bytes(self)
    }
    fn from_wide(wide: u128) -> Option<Self> {
        Some(wide.to_le_bytes())
    }
}

const SIGNS: [&str; 2] = ["u", "s"];
const QUIET: [&str; 2] = ["quiet", "signalling"];

/// Walks an operation's fields.
pub(super) fn operation<F: Form>(op: &mut Op, f: &mut F) -> Result<(), F::Error> {
    match op {
        Op::InsnStart { offset, len } => f.insn(offset, len),
        Op::Const { ty, bits } => {
            f.word(ty)?;
            f.bits(bits)
        }
        Op::ConstVec { bits } => f.bits(bits),
        Op::PcRel { offset } => f.offset(offset),
        Op::Get { slot } => f.slot(slot),
        Op::Set { slot, value } => {
            f.slot(slot)?;
            f.value(value)
        }
        Op::Call { helper, args, result } => {
            f.optional_type(result)?;
            f.helper(helper)?;
            f.arguments(args)
        }
        Op::TrapIf { c, code, value } => {
            f.value(c)?;
            f.bits(code)?;
            f.value(value)
        }
        Op::Fence { order } => f.order(order),
        Op::Unary { .. }
        | Op::Binary { .. }
        | Op::AddCarry { .. }
        | Op::SubBorrow { .. }
        | Op::Compare { .. }
        | Op::Select { .. }
        | Op::Zext { .. }
        | Op::Sext { .. }
        | Op::Trunc { .. }
        | Op::Extract { .. }
        | Op::Deposit { .. } => integer(op, f),
        Op::Load { .. }
        | Op::Store { .. }
        | Op::Rmw { .. }
        | Op::Cas { .. }
        | Op::CasPair { .. }
        | Op::LoadReserve { .. }
        | Op::StoreCond { .. } => access(op, f),
        Op::FpBinary { .. }
        | Op::FpSqrt { .. }
        | Op::FpFma { .. }
        | Op::FpCompare { .. }
        | Op::FpConvert { .. }
        | Op::FpToInt { .. }
        | Op::FpFromInt { .. }
        | Op::FpRound { .. }
        | Op::VecFpBinary { .. }
        | Op::VecFpFma { .. }
        | Op::VecFpSqrt { .. }
        | Op::VecFpCompare { .. } => float(op, f),
        Op::VecUnary { .. }
        | Op::VecBinary { .. }
        | Op::VecSelect { .. }
        | Op::VecShift { .. }
        | Op::VecSplat { .. }
        | Op::VecGet { .. }
        | Op::VecSet { .. }
        | Op::VecShuffle { .. } => vector(op, f),
    }
}

fn values<F: Form, const N: usize>(f: &mut F, vs: [&mut Value; N]) -> Result<(), F::Error> {
    vs.into_iter().try_for_each(|v| f.value(v))
}

fn integer<F: Form>(op: &mut Op, f: &mut F) -> Result<(), F::Error> {
    match op {
        Op::Unary { ty, a, .. }
        | Op::Zext { to: ty, a }
        | Op::Sext { to: ty, a }
        | Op::Trunc { to: ty, a } => {
            f.word(ty)?;
            f.value(a)
        }
        Op::Binary { ty, a, b, .. } => {
            f.word(ty)?;
            values(f, [a, b])
        }
        Op::AddCarry { ty, a, b, carry: c }
        | Op::SubBorrow { ty, a, b, borrow: c }
        | Op::Select { ty, c: a, a: b, b: c } => {
            f.word(ty)?;
            values(f, [a, b, c])
        }
        Op::Compare { cond, ty, a, b } => {
            f.word(cond)?;
            f.word(ty)?;
            values(f, [a, b])
        }
        Op::Extract { ty, a, lo, len, signed } => {
            f.word(ty)?;
            f.flag(signed, SIGNS)?;
            f.value(a)?;
            f.number(lo)?;
            f.number(len)
        }
        Op::Deposit { ty, a, b, lo, len } => {
            f.word(ty)?;
            values(f, [a, b])?;
            f.number(lo)?;
            f.number(len)
        }
        _ => Ok(()),
    }
}

fn access<F: Form>(op: &mut Op, f: &mut F) -> Result<(), F::Error> {
    match op {
        Op::Load { ty, mem, signed, addr, flags } => {
            f.word(ty)?;
            f.word(mem)?;
            f.flag(signed, SIGNS)?;
            f.address(addr)?;
            f.mem_flags(flags)
        }
        Op::Store { mem: ty, addr, value, flags } | Op::StoreCond { ty, addr, value, flags } => {
            f.word(ty)?;
            f.address(addr)?;
            f.value(value)?;
            f.mem_flags(flags)
        }
        Op::Rmw { op, ty, addr, value, flags } => {
            f.word(op)?;
            f.word(ty)?;
            f.address(addr)?;
            f.value(value)?;
            f.mem_flags(flags)
        }
        Op::Cas { ty, addr, expected, new, flags } => {
            f.word(ty)?;
            f.address(addr)?;
            values(f, [expected, new])?;
            f.mem_flags(flags)
        }
        Op::CasPair { addr, expected: [a, b], new: [c, d], flags } => {
            f.address(addr)?;
            values(f, [a, b, c, d])?;
            f.mem_flags(flags)
        }
        Op::LoadReserve { ty, addr, flags } => {
            f.word(ty)?;
            f.address(addr)?;
            f.mem_flags(flags)
        }
        _ => Ok(()),
    }
}

fn float<F: Form>(op: &mut Op, f: &mut F) -> Result<(), F::Error> {
    match op {
        Op::FpBinary { op, fmt, rounding, a, b } | Op::VecFpBinary { op, fmt, rounding, a, b } => {
            f.word(op)?;
            f.word(fmt)?;
            f.word(rounding)?;
            values(f, [a, b])
        }
        Op::FpSqrt { fmt, rounding, a } | Op::VecFpSqrt { fmt, rounding, a } => {
            f.word(fmt)?;
            f.word(rounding)?;
            f.value(a)
        }
        Op::FpFma { op, fmt, rounding, a, b, c } | Op::VecFpFma { op, fmt, rounding, a, b, c } => {
            f.word(op)?;
            f.word(fmt)?;
            f.word(rounding)?;
            values(f, [a, b, c])
        }
        Op::FpCompare { cond, fmt, signalling, a, b } | Op::VecFpCompare { cond, fmt, signalling, a, b } => {
            f.word(cond)?;
            f.word(fmt)?;
            f.flag(signalling, QUIET)?;
            values(f, [a, b])
        }
        Op::FpConvert { from, to, rounding, a } => {
            f.word(from)?;
            f.word(to)?;
            f.word(rounding)?;
            f.value(a)
        }
        Op::FpToInt { fmt, to, signed, overflow, rounding, a } => {
            f.word(fmt)?;
            f.word(to)?;
            f.flag(signed, SIGNS)?;
            f.word(overflow)?;
            f.word(rounding)?;
            f.value(a)
        }
        Op::FpFromInt { fmt, from, signed, rounding, a } => {
            f.word(fmt)?;
            f.word(from)?;
            f.flag(signed, SIGNS)?;
            f.word(rounding)?;
            f.value(a)
        }
        Op::FpRound { fmt, rounding, inexact, a } => {
            f.word(fmt)?;
            f.word(rounding)?;
            f.flag(inexact, ["silent", "inexact"])?;
            f.value(a)
        }
        _ => Ok(()),
    }
}

fn vector<F: Form>(op: &mut Op, f: &mut F) -> Result<(), F::Error> {
    match op {
        Op::VecUnary { op, lane, a } => {
            f.word(op)?;
            f.word(lane)?;
            f.value(a)
        }
        Op::VecBinary { op, lane, a, b } => {
            f.word(op)?;
            f.word(lane)?;
            values(f, [a, b])
        }
        Op::VecSelect { m, a, b } => values(f, [m, a, b]),
        Op::VecShift { lane, left, signed, amount, a } => {
            f.word(lane)?;
            f.flag(left, ["right", "left"])?;
            f.flag(signed, SIGNS)?;
            f.value(a)?;
            f.number(amount)
        }
        Op::VecSplat { lane, a } => {
            f.word(lane)?;
            f.value(a)
        }
        Op::VecGet { lane, index, a } => {
            f.word(lane)?;
            f.value(a)?;
            f.number(index)
        }
        Op::VecSet { lane, index, a, b } => {
            f.word(lane)?;
            f.value(a)?;
            f.number(index)?;
            f.value(b)
        }
        Op::VecShuffle { bytes, a, b } => {
            values(f, [a, b])?;
            f.bits(bytes)
        }
        _ => Ok(()),
    }
}

/// Terminals by name, with templates that the parser fills in.
const TERMINALS: &[(&str, Terminal)] = &[
    ("jump", Terminal::Jump { offset: 0, hint: LinkHint::None }),
    ("branch", Terminal::Branch { c: Value(0), taken: 0, not_taken: 0 }),
    ("indirect", Terminal::Indirect { pc: Value(0), hint: LinkHint::None }),
    ("trap", Terminal::Trap { code: 0, value: None }),
    ("exit", Terminal::Exit { offset: 0 }),
    ("attend", Terminal::Attend { offset: 0 }),
    ("exit_indirect", Terminal::ExitIndirect { pc: Value(0) }),
];

/// The terminal's name.
pub(super) fn terminal_name(terminal: &Terminal) -> &'static str {
    let kind = std::mem::discriminant(terminal);
    TERMINALS
        .iter()
        .find(|(_, template)| std::mem::discriminant(template) == kind)
        .map_or("?", |(name, _)| name)
}

/// A terminal of that name, to be filled in.
pub(super) fn terminal_template(name: &str) -> Option<Terminal> {
    TERMINALS.iter().find(|(known, _)| *known == name).map(|(_, terminal)| *terminal)
}

/// Walks a terminal's fields.
pub(super) fn terminal<F: Form>(terminal: &mut Terminal, f: &mut F) -> Result<(), F::Error> {
    match terminal {
        Terminal::Jump { offset, hint } => {
            f.offset(offset)?;
            f.hint(hint)
        }
        Terminal::Branch { c, taken, not_taken } => {
            f.value(c)?;
            f.offset(taken)?;
            f.offset(not_taken)
        }
        Terminal::Indirect { pc, hint } => {
            f.value(pc)?;
            f.hint(hint)
        }
        Terminal::Trap { code, value } => {
            f.bits(code)?;
            f.optional_value(value)
        }
        Terminal::Exit { offset } | Terminal::Attend { offset } => f.offset(offset),
        Terminal::ExitIndirect { pc } => f.value(pc),
    }
}

/// The words of [`MemFlags`] that are written only where they apply.
pub(super) const BIG: &str = "big";
/// See [`BIG`].
pub(super) const ALIGNED: &str = "aligned";

/// Whether each of the two applies.
pub(super) fn exceptions(flags: &MemFlags) -> [(&'static str, bool); 2] {
    [(BIG, flags.endian == Endian::Big), (ALIGNED, flags.align == Align::Natural)]
}
