//! Integer computation: I (volume I, 2.4 and 4.2), M (12), Zicond (27), Zba, Zbb, Zbc, Zbs, Zbkb, Zbkc, Zbkx (28).

use crate::{
    helpers::Helper,
    lift::Lift,
    operands::{I, R, R1, U},
};
use isomer_ir::{
    Type, Value,
    op::{BinOp, Cond, UnOp},
};

impl Lift<'_> {
    /// rd = rs1 op rs2.
    fn binary(&mut self, op: BinOp, o: R) {
        let (a, b) = (self.x(o.rs1), self.x(o.rs2));
        let value = self.b.bin(op, a, b);
        self.set_x(o.rd, value);
    }

    /// rd = rs1 op imm.
    fn binary_imm(&mut self, op: BinOp, o: I) {
        let (a, b) = (self.x(o.rs1), self.imm(o.imm));
        let value = self.b.bin(op, a, b);
        self.set_x(o.rd, value);
    }

    /// rd = rs1 op rs2 in 32 bits.
    fn binary_word(&mut self, op: BinOp, o: R) {
        let (a, b) = (self.x32(o.rs1), self.x32(o.rs2));
        let value = self.b.bin(op, a, b);
        self.set_x(o.rd, value);
    }

    /// rd = rs1 op imm in 32 bits.
    fn binary_word_imm(&mut self, op: BinOp, o: I) {
        let a = self.x32(o.rs1);
        let value = self.b.bin_imm(op, a, o.imm as u64);
        self.set_x(o.rd, value);
    }

    /// rd = op rs1.
    fn unary(&mut self, op: UnOp, o: R1) {
        let a = self.x(o.rs1);
        let value = self.b.un(op, a);
        self.set_x(o.rd, value);
    }

    /// rd = op of rs1's low half; a count, so that its extension does not matter.
    fn unary_word(&mut self, op: UnOp, o: R1) {
        let a = self.x32(o.rs1);
        let value = self.b.un(op, a);
        self.set_x_zext(o.rd, value);
    }

    /// rd = rs1 op not rs2, for the operations the IR has no such form of.
    fn binary_not(&mut self, op: BinOp, o: R) {
        let (a, b) = (self.x(o.rs1), self.x(o.rs2));
        let b = self.b.un(UnOp::Not, b);
        let value = self.b.bin(op, a, b);
        self.set_x(o.rd, value);
    }

    /// rd = rs1 cond b.
    fn set_if(&mut self, cond: Cond, rd: u8, a: Value, b: Value) {
        let value = self.b.compare(cond, a, b);
        self.set_x_zext(rd, value);
    }

    /// rd = rs1's low `ty` extended.
    fn extend(&mut self, ty: Type, signed: bool, o: R1) {
        let a = self.x(o.rs1);
        let value = self.b.trunc(ty, a);
        if signed { self.set_x(o.rd, value) } else { self.set_x_zext(o.rd, value) }
    }

    /// rs1's low half, zero-extended: the operand of the `.uw` instructions.
    fn x_uw(&mut self, n: u8) -> Value {
        let low = self.x32(n);
        self.b.zext(Type::I64, low)
    }

    /// rd = rs2 + (a << shift).
    fn shift_add(&mut self, shift: u64, a: Value, o: R) {
        let a = self.b.bin_imm(BinOp::Shl, a, shift);
        let b = self.x(o.rs2);
        let value = self.b.add(a, b);
        self.set_x(o.rd, value);
    }

    /// rd = rs1 with bit `index` changed by `op`.
    fn single_bit(&mut self, op: BinOp, rd: u8, rs1: u8, index: Value) {
        let one = self.imm(1);
        let bit = self.b.bin(BinOp::Shl, one, index);
        let a = self.x(rs1);
        let value = self.b.bin(op, a, bit);
        self.set_x(rd, value);
    }

    /// rd = bit `index` of rs1.
    fn extract_bit(&mut self, rd: u8, rs1: u8, index: Value) {
        let a = self.x(rs1);
        let shifted = self.b.bin(BinOp::ShrU, a, index);
        let value = self.b.bin_imm(BinOp::And, shifted, 1);
        self.set_x(rd, value);
    }

    /// rd = cond(rs2, 0) ? 0 : rs1.
    fn zero_if(&mut self, cond: Cond, o: R) {
        let (a, b, zero) = (self.x(o.rs1), self.x(o.rs2), self.imm(0));
        let c = self.b.compare(cond, b, zero);
        let value = self.b.select(c, zero, a);
        self.set_x(o.rd, value);
    }
}

/// Declares functions that are one call with one constant: `name(operands) => method(constant)`.
macro_rules! simple {
    ($($operands:ident => $method:ident($constants:ident): $($name:ident $constant:ident),*;)*) => {$($(
        pub(crate) fn $name(l: &mut Lift<'_>, o: $operands) {
            l.$method($constants::$constant, o);
        }
    )*)*};
}

simple! {
    R => binary(BinOp):
        add Add, sub Sub, and And, or Or, xor Xor, sll Shl, srl ShrU, sra ShrS,
        mul Mul, mulh MulHiS, mulhu MulHiU, mulhsu MulHiSU, div DivS, divu DivU, rem RemS, remu RemU,
        andn AndNot, min MinS, minu MinU, max MaxS, maxu MaxU, rol Rotl, ror Rotr, clmul ClMul, clmulh ClMulHi;
    I => binary_imm(BinOp):
        addi Add, andi And, ori Or, xori Xor, slli Shl, srli ShrU, srai ShrS, rori Rotr;
    R => binary_word(BinOp):
        addw Add, subw Sub, sllw Shl, srlw ShrU, sraw ShrS, mulw Mul, divw DivS, divuw DivU, remw RemS, remuw RemU,
        rolw Rotl, rorw Rotr;
    I => binary_word_imm(BinOp):
        addiw Add, slliw Shl, srliw ShrU, sraiw ShrS, roriw Rotr;
    R1 => unary(UnOp):
        not Not, clz Clz, ctz Ctz, cpop Popcnt, rev8 Bswap, orc_b OrBytes;
    R1 => unary_word(UnOp):
        clzw Clz, ctzw Ctz, cpopw Popcnt;
    R => binary_not(BinOp):
        orn Or, xnor Xor;
    R => zero_if(Cond):
        czero_eqz Eq, czero_nez Ne;
}

pub(crate) fn lui(l: &mut Lift<'_>, o: U) {
    let value = l.imm(o.imm);
    l.set_x(o.rd, value);
}

pub(crate) fn auipc(l: &mut Lift<'_>, o: U) {
    let value = l.pc_rel(o.imm);
    l.set_x(o.rd, value);
}

pub(crate) fn slt(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.x(o.rs1), l.x(o.rs2));
    l.set_if(Cond::LtS, o.rd, a, b);
}

pub(crate) fn sltu(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.x(o.rs1), l.x(o.rs2));
    l.set_if(Cond::LtU, o.rd, a, b);
}

pub(crate) fn slti(l: &mut Lift<'_>, o: I) {
    let (a, b) = (l.x(o.rs1), l.imm(o.imm));
    l.set_if(Cond::LtS, o.rd, a, b);
}

/// The immediate is sign-extended, then compared unsigned.
pub(crate) fn sltiu(l: &mut Lift<'_>, o: I) {
    let (a, b) = (l.x(o.rs1), l.imm(o.imm));
    l.set_if(Cond::LtU, o.rd, a, b);
}

pub(crate) fn sext_b(l: &mut Lift<'_>, o: R1) {
    l.extend(Type::I8, true, o);
}

pub(crate) fn sext_h(l: &mut Lift<'_>, o: R1) {
    l.extend(Type::I16, true, o);
}

pub(crate) fn zext_b(l: &mut Lift<'_>, o: R1) {
    l.extend(Type::I8, false, o);
}

pub(crate) fn zext_h(l: &mut Lift<'_>, o: R1) {
    l.extend(Type::I16, false, o);
}

pub(crate) fn zext_w(l: &mut Lift<'_>, o: R1) {
    l.extend(Type::I32, false, o);
}

// --- Zba

pub(crate) fn add_uw(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.x_uw(o.rs1), l.x(o.rs2));
    let value = l.b.add(a, b);
    l.set_x(o.rd, value);
}

pub(crate) fn slli_uw(l: &mut Lift<'_>, o: I) {
    let a = l.x_uw(o.rs1);
    let value = l.b.bin_imm(BinOp::Shl, a, o.imm as u64);
    l.set_x(o.rd, value);
}

macro_rules! shift_adds {
    ($($name:ident $name_uw:ident $shift:literal)*) => {$(
        pub(crate) fn $name(l: &mut Lift<'_>, o: R) {
            let a = l.x(o.rs1);
            l.shift_add($shift, a, o);
        }
        pub(crate) fn $name_uw(l: &mut Lift<'_>, o: R) {
            let a = l.x_uw(o.rs1);
            l.shift_add($shift, a, o);
        }
    )*};
}

shift_adds! {
    sh1add sh1add_uw 1
    sh2add sh2add_uw 2
    sh3add sh3add_uw 3
}

// --- Zbs

macro_rules! single_bits {
    ($($name:ident $name_imm:ident $op:ident)*) => {$(
        pub(crate) fn $name(l: &mut Lift<'_>, o: R) {
            let index = l.x(o.rs2);
            l.single_bit(BinOp::$op, o.rd, o.rs1, index);
        }
        pub(crate) fn $name_imm(l: &mut Lift<'_>, o: I) {
            let index = l.imm(o.imm);
            l.single_bit(BinOp::$op, o.rd, o.rs1, index);
        }
    )*};
}

single_bits! {
    bclr bclri AndNot
    binv binvi Xor
    bset bseti Or
}

pub(crate) fn bext(l: &mut Lift<'_>, o: R) {
    let index = l.x(o.rs2);
    l.extract_bit(o.rd, o.rs1, index);
}

pub(crate) fn bexti(l: &mut Lift<'_>, o: I) {
    let index = l.imm(o.imm);
    l.extract_bit(o.rd, o.rs1, index);
}

// --- Zbc, Zbkb, Zbkx

/// Bits 126:63 of the carry-less product.
pub(crate) fn clmulr(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.x(o.rs1), l.x(o.rs2));
    let low = l.b.bin(BinOp::ClMul, a, b);
    let high = l.b.bin(BinOp::ClMulHi, a, b);
    let low = l.b.bin_imm(BinOp::ShrU, low, 63);
    let high = l.b.bin_imm(BinOp::Shl, high, 1);
    let value = l.b.or(high, low);
    l.set_x(o.rd, value);
}

/// rd = rs2's low half : rs1's low half.
pub(crate) fn pack(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.x(o.rs1), l.x(o.rs2));
    let value = l.b.deposit(a, b, 32, 32);
    l.set_x(o.rd, value);
}

/// rd = rs2's low byte : rs1's low byte.
pub(crate) fn packh(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.x(o.rs1), l.x(o.rs2));
    let low = l.b.extract(a, 0, 8, false);
    let value = l.b.deposit(low, b, 8, 8);
    l.set_x(o.rd, value);
}

/// rd = rs2's low 16 bits : rs1's low 16 bits, sign-extended.
pub(crate) fn packw(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.x32(o.rs1), l.x32(o.rs2));
    let value = l.b.deposit(a, b, 16, 16);
    l.set_x(o.rd, value);
}

/// Bits reversed within each byte.
pub(crate) fn brev8(l: &mut Lift<'_>, o: R1) {
    let a = l.x(o.rs1);
    let reversed = l.b.un(UnOp::Bitrev, a);
    let value = l.b.un(UnOp::Bswap, reversed);
    l.set_x(o.rd, value);
}

pub(crate) fn xperm4(l: &mut Lift<'_>, o: R) {
    l.pure(Helper::Xperm4, o);
}

pub(crate) fn xperm8(l: &mut Lift<'_>, o: R) {
    l.pure(Helper::Xperm8, o);
}

impl Lift<'_> {
    /// rd = helper(rs1, rs2).
    pub(crate) fn pure(&mut self, helper: Helper, o: R) {
        let args = [self.x(o.rs1), self.x(o.rs2)];
        let value = self.call(helper, &args);
        self.set_x(o.rd, value);
    }
}
