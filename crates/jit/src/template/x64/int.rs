//! Integer operations. Values of 8 and 16 bits are computed in 32 and cut to size.

use super::super::alloc::{NO_HOME, NONE, Remat};
use super::{
    Class, Done, Gen, Src, X14, X15,
    enc::{Alu, Opcode, Rm, Shift, cc, one, reg::*, sse, sse3a, two},
};
use isomer_ir::{
    Op, Terminal, Type, Value,
    op::{BinOp, Cond, UnOp},
};

const fn condition_code(cond: Cond) -> u8 {
    match cond {
        Cond::Eq => cc::E,
        Cond::Ne => cc::NE,
        Cond::LtU => cc::B,
        Cond::GeU => cc::AE,
        Cond::LtS => cc::L,
        Cond::GeS => cc::GE,
    }
}

/// Are these values 64 bits wide?
fn wide(ty: Type) -> bool {
    ty == Type::I64
}

impl Gen<'_> {
    pub(super) fn integer(&mut self, at: usize, op: &Op, first: Value) -> Done {
        match *op {
            Op::Unary { op: un, ty, a } => self.unary(op, un, ty, a, first),
            Op::Binary { op: bin, ty, a, b } => self.binary(op, bin, ty, a, b, first),
            Op::AddCarry { ty, a, b, carry } => self.with_carry(Alu::Adc, ty, [a, b, carry], first),
            Op::SubBorrow { ty, a, b, borrow } => self.with_carry(Alu::Sbb, ty, [a, b, borrow], first),
            Op::Compare { cond, ty, a, b } => self.compare(at, cond, ty, a, b, first),
            Op::Select { ty, c, a, b } => self.select(ty, c, a, b, first),
            Op::Zext { to, a } => self.zext(to, a, first),
            Op::Sext { to, a } => self.sext(to, a, first),
            Op::Trunc { to, a } => self.trunc(to, a, first),
            Op::Extract { ty, a, lo, len, signed } => self.extract(ty, a, lo, len, signed, first),
            Op::Deposit { ty, a, b, lo, len } => self.deposit(ty, a, b, lo, len, first),
            _ => Ok(()),
        }
    }

    /// Clears what is above `ty` in a register whose upper half is clear.
    fn cut(&mut self, reg: u8, ty: Type) {
        if ty < Type::I32 {
            self.asm.load(reg, Rm::Reg(reg), ty.bytes(), false, false);
        }
    }

    fn unary(&mut self, op: &Op, un: UnOp, ty: Type, a: Value, v: Value) -> Done {
        let w = wide(ty);
        let bits = ty.bits() as i32;
        match un {
            UnOp::Not | UnOp::Neg => {
                let dst = self.define_from(v, a)?;
                self.asm.group3(if un == UnOp::Not { 2 } else { 3 }, w, Rm::Reg(dst));
                self.cut(dst, ty);
            }
            UnOp::Clz if self.features.lzcnt => {
                let a = self.rm(a)?;
                let dst = self.define(v)?;
                self.asm.op(sse(0xf3, 0xbd), w, dst, a);
                if bits < 32 {
                    self.asm.alu_imm(Alu::Sub, false, Rm::Reg(dst), 32 - bits);
                }
            }
            UnOp::Ctz if self.features.bmi1 => {
                let a = self.rm(a)?;
                let dst = self.define(v)?;
                if bits < 32 {
                    // A one just above ends the count.
                    self.asm.op(one(0x8b), false, dst, a);
                    self.asm.alu_imm(Alu::Or, false, Rm::Reg(dst), 1 << bits);
                    self.asm.op(sse(0xf3, 0xbc), false, dst, Rm::Reg(dst));
                } else {
                    self.asm.op(sse(0xf3, 0xbc), w, dst, a);
                }
            }
            UnOp::Popcnt if self.features.popcnt => {
                let a = self.rm(a)?;
                let dst = self.define(v)?;
                self.asm.op(sse(0xf3, 0xb8), w, dst, a);
            }
            UnOp::Bswap => {
                let dst = self.define_from(v, a)?;
                self.byte_swap(dst, ty.bytes());
            }
            UnOp::OrBytes => {
                let a = self.int(a)?;
                let dst = self.define(v)?;
                self.asm.vec_from(X14, a, w);
                self.asm.op(sse(0x66, 0xef), false, X15, Rm::Reg(X15));
                self.asm.op(sse(0x66, 0x74), false, X14, Rm::Reg(X15));
                self.asm.vec_to(dst, X14, w);
                self.asm.group3(2, w, Rm::Reg(dst));
                self.cut(dst, ty);
            }
            _ => return self.compute(op, v),
        }
        Ok(())
    }

    /// Reverses the `size` bytes of a zero-extended value.
    pub(super) fn byte_swap(&mut self, reg: u8, size: u32) {
        match size {
            1 => {}
            2 => self.asm.shift_imm(Shift::Rol, 2, reg, 8),
            _ => self.asm.bswap(size == 8, reg),
        }
    }

    fn binary(&mut self, op: &Op, bin: BinOp, ty: Type, a: Value, b: Value, v: Value) -> Done {
        match bin {
            BinOp::Add => self.add(ty, a, b, v),
            BinOp::Sub => match self.imm(b) {
                Some(imm) if imm != i32::MIN => self.add_imm(ty, a, imm.wrapping_neg(), v),
                _ => self.alu2(Alu::Sub, ty, a, b, v),
            },
            BinOp::And => self.and(ty, a, b, v),
            BinOp::Or => self.alu2(Alu::Or, ty, a, b, v),
            BinOp::Xor => self.alu2(Alu::Xor, ty, a, b, v),
            BinOp::AndNot => self.and_not(ty, a, b, v),
            BinOp::Mul => self.mul(ty, a, b, v),
            BinOp::MulHiU | BinOp::MulHiS | BinOp::MulHiSU => self.mul_high(bin, ty, a, b, v),
            BinOp::DivU | BinOp::DivS | BinOp::RemU | BinOp::RemS => self.divide(bin, ty, a, b, v),
            BinOp::Shl => self.shift(Shift::Shl, ty, a, b, v),
            BinOp::ShrU => self.shift(Shift::Shr, ty, a, b, v),
            BinOp::ShrS => self.shift(Shift::Sar, ty, a, b, v),
            BinOp::Rotl => self.shift(Shift::Rol, ty, a, b, v),
            BinOp::Rotr => self.shift(Shift::Ror, ty, a, b, v),
            BinOp::MinU => self.pick_one(cc::B, ty, a, b, v),
            BinOp::MaxU => self.pick_one(cc::A, ty, a, b, v),
            BinOp::MinS => self.pick_one(cc::L, ty, a, b, v),
            BinOp::MaxS => self.pick_one(cc::G, ty, a, b, v),
            BinOp::ClMul | BinOp::ClMulHi if self.features.pclmulqdq => {
                self.carryless(bin == BinOp::ClMulHi, ty, a, b, v)
            }
            BinOp::ClMul | BinOp::ClMulHi => self.compute(op, v),
        }
    }

    fn add(&mut self, ty: Type, a: Value, b: Value, v: Value) -> Done {
        match (self.imm(a), self.imm(b)) {
            (_, Some(imm)) => self.add_imm(ty, a, imm, v),
            (Some(imm), None) => self.add_imm(ty, b, imm, v),
            _ => {
                // Both in registers and both still needed: one instruction all the same.
                let (x, y) = (self.alloc.place(a).regs[0], self.alloc.place(b).regs[0]);
                if x != NONE && y != NONE && !self.alloc.dies(a) && wide(ty) {
                    let (x, y) = (self.int(a)?, self.int(b)?);
                    let dst = self.define(v)?;
                    self.asm.op(one(0x8d), true, dst, Rm::Sum(x, y));
                    return Ok(());
                }
                if self.alloc.dies(b) && !self.alloc.dies(a) && y != NONE {
                    return self.alu2(Alu::Add, ty, b, a, v);
                }
                self.alu2(Alu::Add, ty, a, b, v)
            }
        }
    }

    fn add_imm(&mut self, ty: Type, a: Value, imm: i32, v: Value) -> Done {
        if !self.alloc.dies(a) && ty >= Type::I32 {
            let a = self.int(a)?;
            let dst = self.define(v)?;
            self.asm.op(one(0x8d), wide(ty), dst, Rm::Mem(a, imm));
            return Ok(());
        }
        let dst = self.define_from(v, a)?;
        if imm != 0 {
            self.asm.alu_imm(Alu::Add, wide(ty), Rm::Reg(dst), imm);
        }
        self.cut(dst, ty);
        Ok(())
    }

    /// `v = a op b`.
    fn alu2(&mut self, op: Alu, ty: Type, a: Value, b: Value, v: Value) -> Done {
        let b = self.src(b)?;
        let dst = self.define_from(v, a)?;
        self.alu_src(op, wide(ty), dst, b);
        if matches!(op, Alu::Add | Alu::Sub) {
            self.cut(dst, ty);
        }
        Ok(())
    }

    fn alu_src(&mut self, op: Alu, w: bool, dst: u8, b: Src) {
        match b {
            Src::Imm(imm) => self.asm.alu_imm(op, w, Rm::Reg(dst), imm),
            Src::Rm(rm) => self.asm.alu(op, w, dst, rm),
        }
    }

    fn and(&mut self, ty: Type, a: Value, b: Value, v: Value) -> Done {
        let (a, b) = if self.constant(a).is_some() { (b, a) } else { (a, b) };
        match self.constant(b) {
            // Zero extension says it shorter.
            Some(mask @ (0xff | 0xffff | 0xffff_ffff)) => {
                let a = self.int(a)?;
                let dst = self.define(v)?;
                self.asm.load(dst, Rm::Reg(a), mask.count_ones() / 8, false, false);
                Ok(())
            }
            Some(mask) if wide(ty) && mask <= i32::MAX as u64 => {
                let dst = self.define_from(v, a)?;
                self.asm.alu_imm(Alu::And, false, Rm::Reg(dst), mask as i32);
                Ok(())
            }
            _ => self.alu2(Alu::And, ty, a, b, v),
        }
    }

    fn and_not(&mut self, ty: Type, a: Value, b: Value, v: Value) -> Done {
        if self.features.bmi1 {
            let (a, b) = (self.rm(a)?, self.int(b)?);
            let dst = self.define(v)?;
            self.asm.vex(Opcode { prefix: 0, map: 2, byte: 0xf2 }, wide(ty), dst, b, a);
        } else {
            let a = self.int(a)?;
            let not = self.define(v)?;
            self.copy_to(not, b);
            self.asm.group3(2, true, Rm::Reg(not));
            self.asm.alu(Alu::And, true, not, Rm::Reg(a));
        }
        Ok(())
    }

    fn mul(&mut self, ty: Type, a: Value, b: Value, v: Value) -> Done {
        let (a, b) = if self.constant(a).is_some() { (b, a) } else { (a, b) };
        match self.src(b)? {
            Src::Imm(imm) => {
                let a = self.rm(a)?;
                let dst = self.define(v)?;
                self.asm.op_imm32(one(0x69), wide(ty), dst, a, imm);
                self.cut(dst, ty);
            }
            Src::Rm(b) => {
                let dst = self.define_from(v, a)?;
                self.asm.op(two(0xaf), wide(ty), dst, b);
                self.cut(dst, ty);
            }
        }
        Ok(())
    }

    fn mul_high(&mut self, op: BinOp, ty: Type, a: Value, b: Value, v: Value) -> Done {
        if !wide(ty) {
            // The whole product fits into 64 bits.
            let (x, y) = (self.int(a)?, self.int(b)?);
            let (dst, other) = (self.define(v)?, self.int_temp()?);
            self.asm.load(dst, Rm::Reg(x), ty.bytes(), op != BinOp::MulHiU, true);
            self.asm.load(other, Rm::Reg(y), ty.bytes(), op == BinOp::MulHiS, true);
            self.asm.op(two(0xaf), true, dst, Rm::Reg(other));
            self.asm.shift_imm(Shift::Shr, 8, dst, ty.bits() as u8);
            self.asm.load(dst, Rm::Reg(dst), ty.bytes(), false, true);
            return Ok(());
        }
        let rax = self.take(Class::Int, Some(RAX))?;
        let other = self.int(b)?;
        self.copy_to(rax, a);
        let fix = if op == BinOp::MulHiSU {
            // A negative a counts as a + 2^64: that is b too much in the upper half.
            let fix = self.int_temp()?;
            self.asm.mov(fix, rax);
            self.asm.shift_imm(Shift::Sar, 8, fix, 63);
            self.asm.alu(Alu::And, true, fix, Rm::Reg(other));
            Some(fix)
        } else {
            None
        };
        self.asm.vec_from(X15, RDX, true);
        self.asm.group3(if op == BinOp::MulHiS { 5 } else { 4 }, true, Rm::Reg(other));
        self.asm.mov(rax, RDX);
        self.asm.vec_to(RDX, X15, true);
        if let Some(fix) = fix {
            self.asm.alu(Alu::Sub, true, rax, Rm::Reg(fix));
        }
        self.alloc.own(Class::Int, rax, v);
        Ok(())
    }

    fn divide(&mut self, op: BinOp, ty: Type, a: Value, b: Value, v: Value) -> Done {
        let signed = matches!(op, BinOp::DivS | BinOp::RemS);
        let quotient = matches!(op, BinOp::DivU | BinOp::DivS);
        let w = wide(ty);
        let rax = self.take(Class::Int, Some(RAX))?;
        let divisor = self.int_temp()?;
        let narrow_signed = signed && ty < Type::I32;
        self.copy_to(divisor, b);
        self.copy_to(rax, a);
        if narrow_signed {
            for reg in [rax, divisor] {
                self.asm.load(reg, Rm::Reg(reg), ty.bytes(), true, false);
            }
        }
        self.asm.vec_from(X15, RDX, true);
        // By zero, and by -1 where the quotient may not fit.
        let special = if signed {
            self.asm.lea(RDX, divisor, 1);
            self.asm.alu_imm(Alu::Cmp, w, Rm::Reg(RDX), 1);
            let special = self.asm.jcc_short(cc::BE);
            if w {
                self.asm.raw(&[0x48]);
            }
            self.asm.raw(&[0x99]);
            self.asm.group3(7, w, Rm::Reg(divisor));
            special
        } else {
            self.asm.test(w, divisor, divisor);
            let special = self.asm.jcc_short(cc::E);
            self.asm.mov_imm(RDX, 0);
            self.asm.group3(6, w, Rm::Reg(divisor));
            special
        };
        if !quotient {
            self.asm.mov(rax, RDX);
        }
        let done = self.asm.jmp_short();
        self.asm.short_here(special);
        match (quotient, signed) {
            // b is 0 or -1: -1, or -a.
            (true, true) => {
                self.asm.group3(3, w, Rm::Reg(rax));
                self.asm.test(w, divisor, divisor);
                let by_minus_one = self.asm.jcc_short(cc::NE);
                self.asm.mov_imm(rax, ty.mask());
                self.asm.short_here(by_minus_one);
            }
            (true, false) => self.asm.mov_imm(rax, ty.mask()),
            // a, or 0.
            (false, true) => {
                self.asm.test(w, divisor, divisor);
                let by_zero = self.asm.jcc_short(cc::E);
                self.asm.mov_imm(rax, 0);
                self.asm.short_here(by_zero);
            }
            (false, false) => {}
        }
        self.asm.short_here(done);
        self.asm.vec_to(RDX, X15, true);
        if ty < Type::I32 {
            self.asm.load(rax, Rm::Reg(rax), ty.bytes(), false, false);
        } else if !w {
            self.asm.mov32(rax, rax);
        }
        self.alloc.own(Class::Int, rax, v);
        Ok(())
    }

    fn shift(&mut self, op: Shift, ty: Type, a: Value, b: Value, v: Value) -> Done {
        if let Some(amount) = self.constant(b) {
            return self.shift_constant(op, ty, a, (amount % u64::from(ty.bits())) as u8, v);
        }
        let rotates = matches!(op, Shift::Rol | Shift::Ror);
        let w = wide(ty);
        if self.features.bmi2 && !rotates && ty >= Type::I32 {
            let (a, amount) = (self.rm(a)?, self.int(b)?);
            let dst = self.define(v)?;
            let prefix = match op {
                Shift::Shl => 0x66,
                Shift::Shr => 0xf2,
                _ => 0xf3,
            };
            self.asm.vex(Opcode { prefix, map: 2, byte: 0xf7 }, w, dst, amount, a);
            return Ok(());
        }
        let amount = self.int(b)?;
        let dst = self.define(v)?;
        self.copy_to(dst, a);
        if op == Shift::Sar && ty < Type::I32 {
            self.asm.load(dst, Rm::Reg(dst), ty.bytes(), true, false);
        }
        self.asm.vec_from(X15, RCX, true);
        self.asm.mov32(RCX, amount);
        let size = if rotates { ty.bytes() } else { ty.bytes().max(4) };
        if size != ty.bytes() {
            self.asm.alu_imm(Alu::And, false, Rm::Reg(RCX), ty.bits() as i32 - 1);
        }
        self.asm.shift_cl(op, size, dst);
        self.asm.vec_to(RCX, X15, true);
        self.cut(dst, ty);
        Ok(())
    }

    fn shift_constant(&mut self, op: Shift, ty: Type, a: Value, amount: u8, v: Value) -> Done {
        if op == Shift::Sar && ty < Type::I32 {
            let a = self.int(a)?;
            let dst = self.define(v)?;
            self.asm.load(dst, Rm::Reg(a), ty.bytes(), true, false);
            self.asm.shift_imm(op, 4, dst, amount);
            self.cut(dst, ty);
            return Ok(());
        }
        let dst = self.define_from(v, a)?;
        let rotates = matches!(op, Shift::Rol | Shift::Ror);
        let size = if rotates { ty.bytes() } else { ty.bytes().max(4) };
        if amount != 0 {
            self.asm.shift_imm(op, size, dst, amount);
        }
        self.cut(dst, ty);
        Ok(())
    }

    /// `v = (a cond b) ? a : b`.
    fn pick_one(&mut self, cond: u8, ty: Type, a: Value, b: Value, v: Value) -> Done {
        let (a, dst) = (self.int(a)?, self.define(v)?);
        self.copy_to(dst, b);
        self.asm.cmp(ty.bytes(), a, Rm::Reg(dst));
        self.asm.cmov(cond, wide(ty), dst, Rm::Reg(a));
        Ok(())
    }

    fn carryless(&mut self, high: bool, ty: Type, a: Value, b: Value, v: Value) -> Done {
        let (a, b) = (self.int(a)?, self.int(b)?);
        let dst = self.define(v)?;
        self.asm.vec_from(X14, a, true);
        self.asm.vec_from(X15, b, true);
        self.asm.op_imm8(sse3a(0x44), false, X14, Rm::Reg(X15), 0);
        if high && wide(ty) {
            // Down by 8 bytes.
            self.asm.op_imm8(sse(0x66, 0x73), false, 3, Rm::Reg(X14), 8);
        }
        self.asm.vec_to(dst, X14, true);
        if !wide(ty) {
            if high {
                self.asm.shift_imm(Shift::Shr, 8, dst, ty.bits() as u8);
            }
            self.asm.load(dst, Rm::Reg(dst), ty.bytes(), false, true);
        }
        Ok(())
    }

    /// Add or subtract with carry: value, carry (borrow), signed overflow.
    fn with_carry(&mut self, op: Alu, ty: Type, [a, b, carry]: [Value; 3], first: Value) -> Done {
        let (carry_out, overflow) = (Value(first.0 + 1), Value(first.0 + 2));
        let b = self.int(b)?;
        let carry_in = match self.constant(carry) {
            Some(bits) if bits & 1 == 0 => None,
            _ => Some(self.int(carry)?),
        };
        // Carry and overflow must be those of the type's own size: the value is copied, not taken over.
        let dst = self.define(first)?;
        self.copy_to(dst, a);
        if let Some(carry_in) = carry_in {
            // bt carry, 0
            self.asm.op_imm8(two(0xba), false, 4, Rm::Reg(carry_in), 0);
        } else {
            // clc
            self.asm.raw(&[0xf8]);
        }
        let byte = (op as u8) << 3;
        match ty {
            Type::I8 => self.asm.op_byte(one(byte | 2), dst, Rm::Reg(b)),
            Type::I16 => {
                self.asm.op(Opcode { prefix: 0x66, map: 0, byte: byte | 3 }, false, dst, Rm::Reg(b));
            }
            _ => self.asm.op(one(byte | 3), wide(ty), dst, Rm::Reg(b)),
        }
        // Defining the others may spill, which leaves the flags alone.
        for (cond, v) in [(cc::B, carry_out), (cc::O, overflow)] {
            if self.alloc.place(v).uses > 0 {
                let reg = self.define(v)?;
                self.asm.setcc(cond, reg);
            }
        }
        Ok(())
    }

    fn compare(&mut self, at: usize, cond: Cond, ty: Type, a: Value, b: Value, v: Value) -> Done {
        let mut cond = condition_code(cond);
        let (mut a, mut b) = (a, b);
        if self.constant(a).is_some() && self.constant(b).is_none() {
            (a, b) = (b, a);
            cond = swapped(cond);
        }
        let size = ty.bytes();
        if let Some(imm) = self.imm(b) {
            let place = *self.alloc.place(a);
            let in_memory = place.regs == [NONE; 2] && place.home != NO_HOME && place.remat == Remat::No;
            if in_memory && self.alloc.dies(a) {
                self.asm.cmp_imm(size, super::cpu(place.home), imm);
            } else {
                let a = self.int(a)?;
                if imm == 0 && size >= 4 {
                    self.asm.test(size == 8, a, a);
                } else {
                    self.asm.cmp_imm(size, Rm::Reg(a), imm);
                }
            }
        } else {
            let (a, b) = (self.int(a)?, self.rm(b)?);
            self.asm.cmp(size, a, b);
        }
        if self.alloc.place(v).uses == 1 && self.is_used_next(at, v) {
            self.flags = Some((v, cond));
            return Ok(());
        }
        let dst = self.define(v)?;
        self.asm.setcc(cond, dst);
        Ok(())
    }

    /// Is the truth value `v` tested by the very next operation or the terminal?
    fn is_used_next(&self, at: usize, v: Value) -> bool {
        let rest = &self.block.insts[at + 1..];
        match rest.iter().find(|inst| !matches!(inst.op, Op::InsnStart { .. })).map(|inst| inst.op) {
            Some(Op::Select { c, a, b, .. }) => c == v && a != v && b != v,
            Some(Op::TrapIf { c, .. }) => c == v,
            Some(_) => false,
            None => matches!(self.block.terminal, Terminal::Branch { c, .. } if c == v),
        }
    }

    fn select(&mut self, ty: Type, c: Value, a: Value, b: Value, v: Value) -> Done {
        if let Some(truth) = self.constant(c) {
            let from = if truth != 0 { a } else { b };
            return if ty.is_int() { self.define_from(v, from) } else { self.define_vec_from(v, from) }
                .map(drop);
        }
        if !ty.is_int() {
            let a = self.vec(a)?;
            let dst = self.define_vec(v)?;
            let held = self.alloc.place(b).regs[1];
            match held {
                NONE => self.copy_to_vec(dst, b),
                _ => self.asm.movaps(dst, held),
            }
            let cond = self.condition(c)?;
            let over = self.asm.jcc_short(cond ^ 1);
            self.asm.movaps(dst, a);
            self.asm.short_here(over);
            return Ok(());
        }
        let a = self.rm(a)?;
        let cond = self.condition(c)?;
        // Moves only from here on: they leave the flags alone.
        let dst = self.define_from(v, b)?;
        self.asm.cmov(cond, wide(ty), dst, a);
        Ok(())
    }

    fn zext(&mut self, to: Type, a: Value, v: Value) -> Done {
        if to.is_int() {
            return self.define_from(v, a).map(drop);
        }
        let from = self.ty(a);
        if self.alloc.place(a).regs[0] == NONE && from >= Type::I32 && self.alloc.place(a).home != NO_HOME {
            let dst = self.define_vec(v)?;
            self.asm.load_vec(dst, super::cpu(self.alloc.place(a).home), from.bytes());
            return Ok(());
        }
        let a = self.int(a)?;
        let dst = self.define_vec(v)?;
        self.asm.vec_from(dst, a, true);
        Ok(())
    }

    fn sext(&mut self, to: Type, a: Value, v: Value) -> Done {
        let place = *self.alloc.place(a);
        let from = if place.regs == [NONE; 2] && place.home != NO_HOME && place.remat == Remat::No {
            super::cpu(place.home)
        } else {
            Rm::Reg(self.int(a)?)
        };
        let dst = self.define(v)?;
        self.asm.load(dst, from, place.ty.bytes(), true, wide(to));
        self.cut(dst, to);
        Ok(())
    }

    fn trunc(&mut self, to: Type, a: Value, v: Value) -> Done {
        let place = *self.alloc.place(a);
        if place.ty == Type::V128 {
            let a = self.vec(a)?;
            let dst = self.define(v)?;
            self.asm.vec_to(dst, a, wide(to));
            self.cut(dst, to);
            return Ok(());
        }
        let slot = place.home != NO_HOME && place.home >= size_of::<isomer_ir::CpuHeader>() as u32;
        if place.regs == [NONE; 2] && slot && place.remat == Remat::No {
            // The low part of the slot is a home of its own.
            self.alloc.set_home(v, place.home);
            return Ok(());
        }
        let a = self.int(a)?;
        let dst = self.define(v)?;
        self.asm.load(dst, Rm::Reg(a), to.bytes(), false, false);
        Ok(())
    }

    fn extract(&mut self, ty: Type, a: Value, lo: u8, len: u8, signed: bool, v: Value) -> Done {
        let (bits, w) = (ty.bits() as u8, wide(ty));
        let whole = matches!(len, 8 | 16 | 32);
        if whole && lo == 0 {
            let a = self.int(a)?;
            let dst = self.define(v)?;
            self.asm.load(dst, Rm::Reg(a), u32::from(len) / 8, signed, w);
            self.cut(dst, ty);
            return Ok(());
        }
        let dst = self.define_from(v, a)?;
        if !signed {
            if lo != 0 {
                self.asm.shift_imm(Shift::Shr, if w { 8 } else { 4 }, dst, lo);
            }
            if lo + len < bits {
                match len {
                    8 | 16 | 32 => self.asm.load(dst, Rm::Reg(dst), u32::from(len) / 8, false, false),
                    0..32 => self.asm.alu_imm(Alu::And, false, Rm::Reg(dst), ((1u32 << len) - 1) as i32),
                    _ => {
                        self.asm.shift_imm(Shift::Shl, 8, dst, 64 - len);
                        self.asm.shift_imm(Shift::Shr, 8, dst, 64 - len);
                    }
                }
            }
            return Ok(());
        }
        let (size, width) = if w { (8, 64) } else { (4, 32) };
        if lo + len < width {
            self.asm.shift_imm(Shift::Shl, size, dst, width - lo - len);
        }
        if len < width {
            self.asm.shift_imm(Shift::Sar, size, dst, width - len);
        }
        self.cut(dst, ty);
        Ok(())
    }

    fn deposit(&mut self, ty: Type, a: Value, b: Value, lo: u8, len: u8, v: Value) -> Done {
        let field = u64::MAX >> (64 - u32::from(len));
        let mask = field << lo;
        let b = self.int(b)?;
        let part = self.int_temp()?;
        // The field alone, in place.
        self.asm.mov(part, b);
        if u32::from(lo) + u32::from(len) < 64 {
            self.asm.shift_imm(Shift::Shl, 8, part, 64 - len);
            if len + lo < 64 {
                self.asm.shift_imm(Shift::Shr, 8, part, 64 - len - lo);
            }
        } else if lo != 0 {
            self.asm.shift_imm(Shift::Shl, 8, part, lo);
        }
        let dst = self.define_from(v, a)?;
        let keep = !mask & ty.mask();
        match i32::try_from(keep as i64) {
            Ok(imm) => self.asm.alu_imm(Alu::And, true, Rm::Reg(dst), imm),
            // `a` has nothing above its type.
            Err(_) if i32::try_from(!mask as i64).is_ok() => {
                self.asm.alu_imm(Alu::And, true, Rm::Reg(dst), !mask as i32);
            }
            Err(_) => {
                let constant = self.int_temp()?;
                self.asm.mov_imm(constant, keep);
                self.asm.alu(Alu::And, true, dst, Rm::Reg(constant));
            }
        }
        self.asm.alu(Alu::Or, true, dst, Rm::Reg(part));
        Ok(())
    }
}

/// The condition with the operands exchanged.
const fn swapped(cond: u8) -> u8 {
    match cond {
        cc::B => cc::A,
        cc::AE => cc::BE,
        cc::L => cc::G,
        cc::GE => cc::LE,
        other => other,
    }
}
