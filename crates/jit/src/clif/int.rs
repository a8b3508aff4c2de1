//! Integer operations.

use super::translate::{Translator, clif_type};
use crate::CompileError;
use cranelift_codegen::ir::{
    self, InstBuilder,
    condcodes::IntCC,
    types::{I32, I64},
};
use isomer_ir::{
    Inst, Op, Type,
    op::{BinOp, Cond, UnOp},
    types::Value,
};

const fn condition(cond: Cond) -> IntCC {
    match cond {
        Cond::Eq => IntCC::Equal,
        Cond::Ne => IntCC::NotEqual,
        Cond::LtU => IntCC::UnsignedLessThan,
        Cond::GeU => IntCC::UnsignedGreaterThanOrEqual,
        Cond::LtS => IntCC::SignedLessThan,
        Cond::GeS => IntCC::SignedGreaterThanOrEqual,
    }
}

impl Translator<'_, '_> {
    pub(super) fn int_op(&mut self, inst: &Inst) -> Result<(), CompileError> {
        let first = inst.first;
        match inst.op {
            Op::Const { ty, bits } => {
                let value = self.iconst(ty, bits);
                self.define(first, value);
            }
            Op::Unary { op, ty, a } => {
                let a = self.bits(a);
                let value = self.unary(op, ty, a);
                self.define(first, value);
            }
            Op::Binary { op: BinOp::ClMul | BinOp::ClMulHi, .. } => self.compute_all(inst)?,
            Op::Binary { op, ty, a, b } => {
                let (a, b) = (self.bits(a), self.bits(b));
                let value = self.binary(op, ty, a, b);
                self.define(first, value);
            }
            Op::AddCarry { ty, a, b, carry } => self.add_carry(first, ty, [a, b, carry]),
            Op::SubBorrow { ty, a, b, borrow } => self.sub_borrow(first, ty, [a, b, borrow]),
            Op::Compare { cond, a, b, .. } => {
                let (a, b) = (self.bits(a), self.bits(b));
                let value = self.b.ins().icmp(condition(cond), a, b);
                self.define(first, value);
            }
            Op::Select { c, a, b, .. } => {
                let c = self.bits(c);
                // Doubles stay doubles.
                match (self.forms(a).float, self.forms(b).float) {
                    (Some(a), Some(b)) => {
                        let value = self.b.ins().select(c, a, b);
                        self.define_float(first, value);
                    }
                    _ => {
                        let (a, b) = (self.bits(a), self.bits(b));
                        let value = self.b.ins().select(c, a, b);
                        self.define(first, value);
                    }
                }
            }
            Op::Zext { to, a } => {
                let a = self.bits(a);
                let value = self.resize(a, to, false);
                self.define(first, value);
            }
            Op::Sext { to, a } => {
                let a = self.bits(a);
                let value = self.resize(a, to, true);
                self.define(first, value);
            }
            Op::Trunc { to, a } => {
                let a = self.bits(a);
                let value = self.resize(a, to, false);
                self.define(first, value);
            }
            Op::Extract { ty, a, lo, len, signed } => {
                let from = self.type_of(a);
                let a = self.bits(a);
                let value = self.extract((from, ty), a, (lo, len), signed);
                self.define(first, value);
            }
            Op::Deposit { ty, a, b, lo, len } => {
                let (a, b) = (self.bits(a), self.bits(b));
                let field = u64::MAX >> (64 - u32::from(len));
                let b = self.resize(b, ty, false);
                let b = self.mask(b, ty, field);
                let b = self.b.ins().ishl_imm_s(b, i64::from(lo));
                let a = self.mask(a, ty, !(field << lo));
                let value = self.b.ins().bor(a, b);
                self.define(first, value);
            }
            // Everything else has its place in `Translator::inst`.
            _ => return Err(CompileError::Nothing("an operation has no code")),
        }
        Ok(())
    }

    fn mask(&mut self, value: ir::Value, ty: Type, mask: u64) -> ir::Value {
        let mask = self.iconst(ty, mask);
        self.b.ins().band(value, mask)
    }

    /// Zero- or sign-extends, or truncates.
    pub(super) fn resize(&mut self, value: ir::Value, to: Type, signed: bool) -> ir::Value {
        let (from, to) = (self.b.func.dfg.value_type(value), clif_type(to));
        match from.bits().cmp(&to.bits()) {
            std::cmp::Ordering::Equal => value,
            std::cmp::Ordering::Less if signed => self.b.ins().sextend(to, value),
            std::cmp::Ordering::Less => self.b.ins().uextend(to, value),
            std::cmp::Ordering::Greater => self.b.ins().ireduce(to, value),
        }
    }

    fn extract(
        &mut self,
        (from, ty): (Type, Type),
        a: ir::Value,
        (lo, len): (u8, u8),
        signed: bool,
    ) -> ir::Value {
        let part = [Type::I8, Type::I16, Type::I32].into_iter().find(|t| t.bits() == u32::from(len));
        if let (0, Some(part)) = (lo, part)
            && part < from
        {
            let low = self.resize(a, part, false);
            return self.resize(low, ty, signed);
        }
        let width = from.bits() as i64;
        let (lo, len) = (i64::from(lo), i64::from(len));
        let field = if signed {
            let top = if lo + len == width { a } else { self.b.ins().ishl_imm_s(a, width - lo - len) };
            self.b.ins().sshr_imm_s(top, width - len)
        } else {
            let low = if lo == 0 { a } else { self.b.ins().ushr_imm_s(a, lo) };
            if lo + len == width { low } else { self.mask(low, from, u64::MAX >> (64 - len)) }
        };
        self.resize(field, ty, signed)
    }

    fn unary(&mut self, op: UnOp, ty: Type, a: ir::Value) -> ir::Value {
        match op {
            UnOp::Not => self.b.ins().bnot(a),
            UnOp::Neg => self.b.ins().ineg(a),
            UnOp::Clz => self.b.ins().clz(a),
            UnOp::Ctz => self.b.ins().ctz(a),
            UnOp::Popcnt => self.b.ins().popcnt(a),
            UnOp::Bswap if ty == Type::I8 => a,
            UnOp::Bswap => self.b.ins().bswap(a),
            UnOp::Bitrev => self.b.ins().bitrev(a),
            UnOp::OrBytes => self.or_bytes(ty, a),
        }
    }

    /// Each byte becomes all ones if it has any bit set: carries into bit 7 tell, and cannot leave the byte.
    fn or_bytes(&mut self, ty: Type, a: ir::Value) -> ir::Value {
        let low = self.mask(a, ty, 0x7f7f_7f7f_7f7f_7f7f);
        let ones = self.iconst(ty, 0x7f7f_7f7f_7f7f_7f7f);
        let sum = self.b.ins().iadd(low, ones);
        let any = self.b.ins().bor(sum, a);
        let top = self.mask(any, ty, 0x8080_8080_8080_8080);
        let bit = self.b.ins().ushr_imm_s(top, 7);
        let shifted = self.b.ins().ishl_imm_s(bit, 8);
        // 1 in a byte times 255, as 256 - 1; the highest byte's 256 falls off.
        self.b.ins().isub(shifted, bit)
    }

    fn binary(&mut self, op: BinOp, ty: Type, a: ir::Value, b: ir::Value) -> ir::Value {
        match op {
            BinOp::Add => self.b.ins().iadd(a, b),
            BinOp::Sub => self.b.ins().isub(a, b),
            BinOp::Mul => self.b.ins().imul(a, b),
            BinOp::MulHiU | BinOp::MulHiS | BinOp::MulHiSU => self.high_half(op, ty, a, b),
            BinOp::DivU | BinOp::DivS | BinOp::RemU | BinOp::RemS => self.divide(op, ty, a, b),
            BinOp::And => self.b.ins().band(a, b),
            BinOp::Or => self.b.ins().bor(a, b),
            BinOp::Xor => self.b.ins().bxor(a, b),
            BinOp::AndNot => {
                let b = self.b.ins().bnot(b);
                self.b.ins().band(a, b)
            }
            BinOp::Shl => self.b.ins().ishl(a, b),
            BinOp::ShrU => self.b.ins().ushr(a, b),
            BinOp::ShrS => self.b.ins().sshr(a, b),
            BinOp::Rotl => self.b.ins().rotl(a, b),
            BinOp::Rotr => self.b.ins().rotr(a, b),
            BinOp::MinU => self.b.ins().umin(a, b),
            BinOp::MaxU => self.b.ins().umax(a, b),
            BinOp::MinS => self.b.ins().smin(a, b),
            BinOp::MaxS => self.b.ins().smax(a, b),
            // `int_op` leaves these to the evaluator.
            BinOp::ClMul | BinOp::ClMulHi => a,
        }
    }

    fn high_half(&mut self, op: BinOp, ty: Type, a: ir::Value, b: ir::Value) -> ir::Value {
        if ty != Type::I64 {
            let a = self.resize(a, Type::I64, op != BinOp::MulHiU);
            let b = self.resize(b, Type::I64, op == BinOp::MulHiS);
            let product = self.b.ins().imul(a, b);
            let high = self.b.ins().ushr_imm_s(product, i64::from(ty.bits()));
            return self.resize(high, ty, false);
        }
        match op {
            BinOp::MulHiU => self.b.ins().umulhi(a, b),
            BinOp::MulHiS => self.b.ins().smulhi(a, b),
            _ => {
                // Signed a is unsigned a less 2^64 where it is negative.
                let high = self.b.ins().umulhi(a, b);
                let sign = self.b.ins().sshr_imm_s(a, 63);
                let excess = self.b.ins().band(sign, b);
                self.b.ins().isub(high, excess)
            }
        }
    }

    /// RISC-V's results where others trap: the divisor is replaced, then the result where it was 0.
    fn divide(&mut self, op: BinOp, ty: Type, a: ir::Value, b: ir::Value) -> ir::Value {
        let signed = matches!(op, BinOp::DivS | BinOp::RemS);
        let wide = if ty == Type::I64 { I64 } else { I32 };
        let wide_ty = if ty == Type::I64 { Type::I64 } else { Type::I32 };
        let (a, b) = (self.resize(a, wide_ty, signed), self.resize(b, wide_ty, signed));
        let zero = self.b.ins().icmp_imm_s(IntCC::Equal, b, 0);
        let mut replace = zero;
        if signed {
            let minimum = self.iconst(wide_ty, 1 << (wide_ty.bits() - 1));
            let least = self.b.ins().icmp(IntCC::Equal, a, minimum);
            let minus_one = self.b.ins().icmp_imm_s(IntCC::Equal, b, -1);
            let overflows = self.b.ins().band(least, minus_one);
            replace = self.b.ins().bor(zero, overflows);
        }
        let one = self.b.ins().iconst(wide, 1);
        let divisor = self.b.ins().select(replace, one, b);
        let (result, by_zero) = match op {
            BinOp::DivU => (self.b.ins().udiv(a, divisor), self.iconst(wide_ty, u64::MAX)),
            BinOp::DivS => (self.b.ins().sdiv(a, divisor), self.iconst(wide_ty, u64::MAX)),
            BinOp::RemU => (self.b.ins().urem(a, divisor), a),
            _ => (self.b.ins().srem(a, divisor), a),
        };
        let result = self.b.ins().select(zero, by_zero, result);
        self.resize(result, ty, false)
    }

    /// Bit `ty.bits() - 1` as a truth value.
    fn top_bit(&mut self, ty: Type, value: ir::Value) -> ir::Value {
        let bit = self.b.ins().ushr_imm_s(value, i64::from(ty.bits() - 1));
        self.resize(bit, Type::I8, false)
    }

    fn add_carry(&mut self, first: Value, ty: Type, [a, b, carry]: [Value; 3]) {
        let [a, b, carry] = [a, b, carry].map(|value| self.bits(value));
        let carry = self.mask(carry, Type::I8, 1);
        let carry = self.resize(carry, ty, false);
        let partial = self.b.ins().iadd(a, b);
        let sum = self.b.ins().iadd(partial, carry);
        let first_carry = self.b.ins().icmp(IntCC::UnsignedLessThan, partial, a);
        let second_carry = self.b.ins().icmp(IntCC::UnsignedLessThan, sum, partial);
        let out = self.b.ins().bor(first_carry, second_carry);
        let (x, y) = (self.b.ins().bxor(a, sum), self.b.ins().bxor(b, sum));
        let both = self.b.ins().band(x, y);
        let overflow = self.top_bit(ty, both);
        self.define_three(first, [sum, out, overflow]);
    }

    fn sub_borrow(&mut self, first: Value, ty: Type, [a, b, borrow]: [Value; 3]) {
        let [a, b, borrow] = [a, b, borrow].map(|value| self.bits(value));
        let borrow = self.mask(borrow, Type::I8, 1);
        let borrow = self.resize(borrow, ty, false);
        let partial = self.b.ins().isub(a, b);
        let difference = self.b.ins().isub(partial, borrow);
        let first_borrow = self.b.ins().icmp(IntCC::UnsignedLessThan, a, b);
        let second_borrow = self.b.ins().icmp(IntCC::UnsignedLessThan, partial, borrow);
        let out = self.b.ins().bor(first_borrow, second_borrow);
        let (x, y) = (self.b.ins().bxor(a, b), self.b.ins().bxor(a, difference));
        let both = self.b.ins().band(x, y);
        let overflow = self.top_bit(ty, both);
        self.define_three(first, [difference, out, overflow]);
    }

    fn define_three(&mut self, first: Value, values: [ir::Value; 3]) {
        for (i, value) in values.into_iter().enumerate() {
            self.define(Value(first.0 + i as u32), value);
        }
    }
}
