//! Integer data processing (Arm ARM, C4.1.93 "Data processing - immediate", C4.1.95 "Data processing - register").
//!
//! Carry is the manual's: set when an addition carries out, and when a subtraction does *not* borrow.

use crate::{
    helpers_integer::IntegerHelper,
    lift::{Lift, width},
    operands::{
        AddImm, Adr, Bitfield, CondCompare, CondCompareImm, Extended, Extract, LogicImm, MoveWide, R1,
        R1Imm8, R2, R3, Rotate, Select, Shifted, bitmask,
    },
    regs::slot,
};
use isomer_ir::{
    Type, Value,
    op::{BinOp, Cond, UnOp},
};

/// Addition or subtraction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    Add,
    Sub,
}

impl Lift<'_> {
    /// a + b or a - b.
    fn sum(&mut self, op: Sum, a: Value, b: Value) -> Value {
        match op {
            Sum::Add => self.b.add(a, b),
            Sum::Sub => self.b.sub(a, b),
        }
    }

    /// a + b or a - b, its value and NZCV. Comparisons make the flags rather than [`isomer_ir::Op::AddCarry`], whose
    /// three results engines compute together: passes drop each flag that is not needed, and fuse conditions with them.
    fn sum_flags(&mut self, op: Sum, a: Value, b: Value) -> (Value, [Value; 4]) {
        let value = self.sum(op, a, b);
        let [n, z] = self.sign_and_zero(value);
        let (c, v) = match op {
            Sum::Add => {
                let c = self.b.compare(Cond::LtU, value, a);
                let zero = self.b.iconst(self.b.type_of(b), 0);
                let (less, negative) =
                    (self.b.compare(Cond::LtS, value, a), self.b.compare(Cond::LtS, b, zero));
                (c, self.b.xor(less, negative))
            }
            Sum::Sub => {
                let (c, less) = (self.b.compare(Cond::GeU, a, b), self.b.compare(Cond::LtS, a, b));
                (c, self.b.xor(less, n))
            }
        };
        (value, [n, z, c, v])
    }

    /// a + b + C or a - b - not C, its value and NZCV.
    fn sum_carry(&mut self, op: Sum, a: Value, b: Value) -> (Value, [Value; 4]) {
        let carry = self.flag(slot::C);
        let (value, c, v) = match op {
            Sum::Add => {
                let [value, c, v] = self.b.add_with_carry(a, b, carry);
                (value, c, v)
            }
            Sum::Sub => {
                let borrow = self.not(carry);
                let [value, borrow, v] = self.b.sub_with_borrow(a, b, borrow);
                (value, self.not(borrow), v)
            }
        };
        let [n, z] = self.sign_and_zero(value);
        (value, [n, z, c, v])
    }

    /// NZCV of a logical operation: C and V are cleared.
    fn set_logic_flags(&mut self, value: Value) {
        let [n, z] = self.sign_and_zero(value);
        let zero = self.truth(false);
        self.set_nzcv([n, z, zero, zero]);
    }

    /// ShiftReg: LSL, LSR, ASR, ROR by a constant.
    fn shifted(&mut self, value: Value, shift: u8, amount: u8) -> Value {
        const SHIFTS: [BinOp; 4] = [BinOp::Shl, BinOp::ShrU, BinOp::ShrS, BinOp::Rotr];
        match amount {
            0 => value,
            _ => self.b.bin_imm(SHIFTS[usize::from(shift & 3)], value, u64::from(amount)),
        }
    }

    /// ExtendReg: register `m` extended by `option` from its low bits to the width of `sf`, then shifted left.
    pub(crate) fn extended(&mut self, sf: bool, m: u8, option: u8, amount: u8) -> Value {
        let value = self.x(m);
        let narrow = [Type::I8, Type::I16, Type::I32, Type::I64][usize::from(option & 3)];
        let low = self.b.trunc(narrow, value);
        let ty = width(sf);
        let whole = match narrow.bits() >= ty.bits() {
            true => self.b.trunc(ty, low),
            false if option & 4 != 0 => self.b.sext(ty, low),
            false => self.b.zext(ty, low),
        };
        self.shifted(whole, 0, amount)
    }

    /// SP moves: it stays known to be aligned if it moves by whole units of 16.
    fn set_x_sp_by(&mut self, o: AddImm, value: Value, imm: u64) {
        if o.rd == 31 && o.sf && o.rn == 31 && imm.is_multiple_of(16) {
            self.move_sp(value);
        } else {
            self.set_x_sp(o.rd, value);
        }
    }
}

// --- addition and subtraction

/// `add`, `sub` with an immediate.
pub(crate) fn add_imm(l: &mut Lift<'_>, o: AddImm, op: Sum) {
    let imm = if o.sh { o.imm << 12 } else { o.imm };
    let (a, b) = (l.r_sp(o.sf, o.rn), l.constant(o.sf, imm));
    let value = if imm == 0 { a } else { l.sum(op, a, b) };
    l.set_x_sp_by(o, value, imm);
}

/// `adds`, `subs` with an immediate.
pub(crate) fn adds_imm(l: &mut Lift<'_>, o: AddImm, op: Sum) {
    let imm = if o.sh { o.imm << 12 } else { o.imm };
    let (a, b) = (l.r_sp(o.sf, o.rn), l.constant(o.sf, imm));
    let (value, flags) = l.sum_flags(op, a, b);
    l.set_x(o.rd, value);
    l.set_nzcv(flags);
}

/// `add`, `sub` of a shifted register.
pub(crate) fn add_shifted(l: &mut Lift<'_>, o: Shifted, op: Sum) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let b = l.shifted(b, o.shift, o.amount);
    let value = l.sum(op, a, b);
    l.set_x(o.rd, value);
}

/// `adds`, `subs` of a shifted register.
pub(crate) fn adds_shifted(l: &mut Lift<'_>, o: Shifted, op: Sum) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let b = l.shifted(b, o.shift, o.amount);
    let (value, flags) = l.sum_flags(op, a, b);
    l.set_x(o.rd, value);
    l.set_nzcv(flags);
}

/// `add`, `sub` of an extended register.
pub(crate) fn add_extended(l: &mut Lift<'_>, o: Extended, op: Sum) {
    let (a, b) = (l.r_sp(o.sf, o.rn), l.extended(o.sf, o.rm, o.option, o.amount));
    let value = l.sum(op, a, b);
    l.set_x_sp(o.rd, value);
}

/// `adds`, `subs` of an extended register.
pub(crate) fn adds_extended(l: &mut Lift<'_>, o: Extended, op: Sum) {
    let (a, b) = (l.r_sp(o.sf, o.rn), l.extended(o.sf, o.rm, o.option, o.amount));
    let (value, flags) = l.sum_flags(op, a, b);
    l.set_x(o.rd, value);
    l.set_nzcv(flags);
}

/// `adc`, `sbc`.
pub(crate) fn adc(l: &mut Lift<'_>, o: R2, op: Sum) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let (value, _) = l.sum_carry(op, a, b);
    l.set_x(o.rd, value);
}

/// `adcs`, `sbcs`.
pub(crate) fn adcs(l: &mut Lift<'_>, o: R2, op: Sum) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let (value, flags) = l.sum_carry(op, a, b);
    l.set_x(o.rd, value);
    l.set_nzcv(flags);
}

/// `adr`.
pub(crate) fn adr(l: &mut Lift<'_>, o: Adr) {
    let value = l.pc_rel(o.high << 2 | o.low as i64);
    l.set_x(o.rd, value);
}

/// `adrp`: of 4 KiB pages. Blocks know their page offset only at run time.
pub(crate) fn adrp(l: &mut Lift<'_>, o: Adr) {
    let here = l.pc_rel(0);
    let page = l.b.bin_imm(BinOp::And, here, !0xfff);
    let value = l.b.bin_imm(BinOp::Add, page, ((o.high << 2 | o.low as i64) << 12) as u64);
    l.set_x(o.rd, value);
}

// --- logic and moves

/// `and`, `orr`, `eor` with an immediate.
pub(crate) fn logic_imm(l: &mut Lift<'_>, o: LogicImm, op: BinOp) {
    let imm = bitmask(o.n, o.immr, o.imms, width(o.sf).bits()).unwrap_or_default();
    let a = l.r(o.sf, o.rn);
    // With the zero register this is how assemblers move bitmasks.
    let value = match (o.rn, op) {
        (31, BinOp::Or | BinOp::Xor) => l.constant(o.sf, imm),
        _ => l.b.bin_imm(op, a, imm),
    };
    l.set_x_sp(o.rd, value);
}

/// `ands` with an immediate.
pub(crate) fn ands_imm(l: &mut Lift<'_>, o: LogicImm) {
    let imm = bitmask(o.n, o.immr, o.imms, width(o.sf).bits()).unwrap_or_default();
    let a = l.r(o.sf, o.rn);
    let value = l.b.bin_imm(BinOp::And, a, imm);
    l.set_x(o.rd, value);
    l.set_logic_flags(value);
}

/// `and`, `orr`, `eor` of a shifted register.
pub(crate) fn logic(l: &mut Lift<'_>, o: Shifted, op: BinOp) {
    let b = l.r(o.sf, o.rm);
    let b = l.shifted(b, o.shift, o.amount);
    // `mov`.
    let value = if o.rn == 31 && op != BinOp::And {
        b
    } else {
        let a = l.r(o.sf, o.rn);
        l.b.bin(op, a, b)
    };
    l.set_x(o.rd, value);
}

/// `bic`.
pub(crate) fn bic(l: &mut Lift<'_>, o: Shifted) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let b = l.shifted(b, o.shift, o.amount);
    let value = l.b.bin(BinOp::AndNot, a, b);
    l.set_x(o.rd, value);
}

/// `orn`, `eon`.
pub(crate) fn logic_not(l: &mut Lift<'_>, o: Shifted, op: BinOp) {
    let b = l.r(o.sf, o.rm);
    let b = l.shifted(b, o.shift, o.amount);
    let b = l.invert(b);
    let value = if o.rn == 31 {
        b
    } else {
        let a = l.r(o.sf, o.rn);
        l.b.bin(op, a, b)
    };
    l.set_x(o.rd, value);
}

/// `ands`, `bics`.
pub(crate) fn logic_flags(l: &mut Lift<'_>, o: Shifted, op: BinOp) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let b = l.shifted(b, o.shift, o.amount);
    let value = l.b.bin(op, a, b);
    l.set_x(o.rd, value);
    l.set_logic_flags(value);
}

/// `movz`.
pub(crate) fn movz(l: &mut Lift<'_>, o: MoveWide) {
    let value = l.imm((o.imm << (16 * o.hw)) as i64);
    l.set_x(o.rd, value);
}

/// `movn`.
pub(crate) fn movn(l: &mut Lift<'_>, o: MoveWide) {
    let value = l.constant(o.sf, !(o.imm << (16 * o.hw)));
    let value = l.b.zext(Type::I64, value);
    l.set_x(o.rd, value);
}

/// `movk`.
pub(crate) fn movk(l: &mut Lift<'_>, o: MoveWide) {
    let (old, new) = (l.r(o.sf, o.rd), l.constant(o.sf, o.imm));
    let value = l.b.deposit(old, new, 16 * o.hw, 16);
    l.set_x(o.rd, value);
}

// --- bit fields

/// `ubfm`, `sbfm`: a field extracted to the bottom, or the bottom moved up into zeros; above it zeros or its sign.
pub(crate) fn extract_field(l: &mut Lift<'_>, o: Bitfield, signed: bool) {
    let a = l.r(o.sf, o.rn);
    let bits = width(o.sf).bits() as u8;
    let value = if o.imms >= o.immr {
        l.b.extract(a, o.immr, o.imms - o.immr + 1, signed)
    } else {
        let (len, up) = (o.imms + 1, bits - o.immr);
        let field = if len + up == bits { a } else { l.b.extract(a, 0, len, signed) };
        l.b.bin_imm(BinOp::Shl, field, u64::from(up))
    };
    l.set_x(o.rd, value);
}

/// `bfm`: the same into the destination's other bits.
pub(crate) fn bfm(l: &mut Lift<'_>, o: Bitfield) {
    let (old, a) = (l.r(o.sf, o.rd), l.r(o.sf, o.rn));
    let bits = width(o.sf).bits() as u8;
    let value = if o.imms >= o.immr {
        let field = if o.immr == 0 { a } else { l.b.bin_imm(BinOp::ShrU, a, u64::from(o.immr)) };
        l.b.deposit(old, field, 0, o.imms - o.immr + 1)
    } else {
        l.b.deposit(old, a, bits - o.immr, o.imms + 1)
    };
    l.set_x(o.rd, value);
}

/// `extr`: bits from `lsb` on of Rn:Rm.
pub(crate) fn extr(l: &mut Lift<'_>, o: Extract) {
    let low = l.r(o.sf, o.rm);
    let value = if o.rn == o.rm {
        l.shifted(low, 3, o.lsb)
    } else if o.lsb == 0 {
        low
    } else {
        let high = l.r(o.sf, o.rn);
        let low = l.b.bin_imm(BinOp::ShrU, low, u64::from(o.lsb));
        let high = l.b.bin_imm(BinOp::Shl, high, u64::from(width(o.sf).bits()) - u64::from(o.lsb));
        l.b.or(high, low)
    };
    l.set_x(o.rd, value);
}

// --- shifts, products, quotients, bit counts

/// `lslv`, `lsrv`, `asrv`, `rorv` (amounts are taken modulo the width, as the IR does), `smax` and its kin.
pub(crate) fn binary(l: &mut Lift<'_>, o: R2, op: BinOp) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let value = l.b.bin(op, a, b);
    l.set_x(o.rd, value);
}

/// `udiv`, `sdiv`: by zero gives zero. Minimum / -1 gives the minimum, as in the IR.
pub(crate) fn divide(l: &mut Lift<'_>, o: R2, op: BinOp) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let quotient = l.b.bin(op, a, b);
    let zero = l.constant(o.sf, 0);
    let by_zero = l.b.compare(Cond::Eq, b, zero);
    let value = l.b.select(by_zero, zero, quotient);
    l.set_x(o.rd, value);
}

/// `madd`, `msub`.
pub(crate) fn madd(l: &mut Lift<'_>, o: R3, op: Sum) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let product = l.b.bin(BinOp::Mul, a, b);
    l.accumulate(o, op, product);
}

/// `smaddl`, `umsubl` and their kin.
pub(crate) fn maddl(l: &mut Lift<'_>, o: R3, op: Sum, signed: bool) {
    let [a, b] = [o.rn, o.rm].map(|n| {
        let low = l.w(n);
        if signed { l.b.sext(Type::I64, low) } else { l.b.zext(Type::I64, low) }
    });
    let product = l.b.bin(BinOp::Mul, a, b);
    l.accumulate(o, op, product);
}

impl Lift<'_> {
    fn accumulate(&mut self, o: R3, op: Sum, product: Value) {
        let value = if o.ra == 31 && op == Sum::Add {
            product
        } else {
            let c = self.r(o.sf, o.ra);
            self.sum(op, c, product)
        };
        self.set_x(o.rd, value);
    }
}

/// `rbit`, `clz`, `ctz`, `cnt`, `rev`.
pub(crate) fn unary(l: &mut Lift<'_>, o: R1, op: UnOp) {
    let a = l.r(o.sf, o.rn);
    let value = l.b.un(op, a);
    l.set_x(o.rd, value);
}

/// `rev16`: bytes swapped in each sixteen bits.
pub(crate) fn rev16(l: &mut Lift<'_>, o: R1) {
    let a = l.r(o.sf, o.rn);
    let low = 0x00ff_00ff_00ff_00ff;
    let down = l.b.bin_imm(BinOp::ShrU, a, 8);
    let down = l.b.bin_imm(BinOp::And, down, low);
    let up = l.b.bin_imm(BinOp::And, a, low);
    let up = l.b.bin_imm(BinOp::Shl, up, 8);
    let value = l.b.or(up, down);
    l.set_x(o.rd, value);
}

/// `rev32`: bytes swapped in each half.
pub(crate) fn rev32(l: &mut Lift<'_>, o: R1) {
    let a = l.x(o.rn);
    let swapped = l.b.un(UnOp::Bswap, a);
    let value = l.b.bin_imm(BinOp::Rotr, swapped, 32);
    l.set_x(o.rd, value);
}

/// `cls`: how many bits below the sign are copies of it.
pub(crate) fn cls(l: &mut Lift<'_>, o: R1) {
    let a = l.r(o.sf, o.rn);
    let signs = l.b.bin_imm(BinOp::ShrS, a, u64::from(width(o.sf).bits()) - 1);
    let differing = l.b.xor(a, signs);
    let leading = l.b.un(UnOp::Clz, differing);
    let value = l.b.bin_imm(BinOp::Sub, leading, 1);
    l.set_x(o.rd, value);
}

/// `abs`.
pub(crate) fn abs(l: &mut Lift<'_>, o: R1) {
    let a = l.r(o.sf, o.rn);
    let negated = l.b.un(UnOp::Neg, a);
    let zero = l.constant(o.sf, 0);
    let negative = l.b.compare(Cond::LtS, a, zero);
    let value = l.b.select(negative, negated, a);
    l.set_x(o.rd, value);
}

/// `smax`, `umin` and their kin with an immediate.
pub(crate) fn extremum_imm(l: &mut Lift<'_>, o: R1Imm8, op: BinOp) {
    let imm = if matches!(op, BinOp::MaxS | BinOp::MinS) { o.signed as u64 } else { o.unsigned };
    let (a, b) = (l.r(o.sf, o.rn), l.constant(o.sf, imm));
    let value = l.b.bin(op, a, b);
    l.set_x(o.rd, value);
}

/// `crc32b` to `crc32cx`; `bytes` of Rm.
pub(crate) fn crc32(l: &mut Lift<'_>, o: R2, helper: IntegerHelper, bytes: i64) {
    let (sum, data, bytes) = (l.w(o.rn), l.x(o.rm), l.imm(bytes));
    let sum = l.b.zext(Type::I64, sum);
    let value = l.call(helper.id(), &[sum, data, bytes]);
    l.set_x(o.rd, value);
}

// --- conditions

/// `csel`, `csinc`, `csinv`, `csneg`: Rn, or Rm changed.
pub(crate) fn select(l: &mut Lift<'_>, o: Select, change: fn(&mut Lift<'_>, Value) -> Value) {
    let holds = l.condition(o.cond);
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    let b = change(l, b);
    let value = l.b.select(holds, a, b);
    l.set_x(o.rd, value);
}

/// Rm of `csel`.
pub(crate) fn same(_: &mut Lift<'_>, value: Value) -> Value {
    value
}

/// Rm of `csinc`.
pub(crate) fn plus_one(l: &mut Lift<'_>, value: Value) -> Value {
    l.b.bin_imm(BinOp::Add, value, 1)
}

/// Rm of `csinv`.
pub(crate) fn inverted(l: &mut Lift<'_>, value: Value) -> Value {
    l.invert(value)
}

/// Rm of `csneg`.
pub(crate) fn negated(l: &mut Lift<'_>, value: Value) -> Value {
    l.b.un(UnOp::Neg, value)
}

/// `ccmp`, `ccmn` of registers.
pub(crate) fn ccmp(l: &mut Lift<'_>, o: CondCompare, op: Sum) {
    let (a, b) = (l.r(o.sf, o.rn), l.r(o.sf, o.rm));
    l.compare_if(o.cond, o.nzcv, op, a, b);
}

/// `ccmp`, `ccmn` with an immediate.
pub(crate) fn ccmp_imm(l: &mut Lift<'_>, o: CondCompareImm, op: Sum) {
    let (a, b) = (l.r(o.sf, o.rn), l.constant(o.sf, o.imm));
    l.compare_if(o.cond, o.nzcv, op, a, b);
}

impl Lift<'_> {
    /// NZCV of a op b if the condition holds, else the constant.
    fn compare_if(&mut self, cond: u8, nzcv: u8, op: Sum, a: Value, b: Value) {
        let holds = self.condition(cond);
        let (_, flags) = self.sum_flags(op, a, b);
        let mut bit = 8;
        let flags = flags.map(|flag| {
            let other = self.truth(nzcv & bit != 0);
            bit >>= 1;
            self.b.select(holds, flag, other)
        });
        self.set_nzcv(flags);
    }
}

// --- flag manipulation (FEAT_FlagM, FEAT_FlagM2)

/// `rmif`: bits of a rotated register into the flags that `mask` names.
pub(crate) fn rmif(l: &mut Lift<'_>, o: Rotate) {
    let a = l.x(o.rn);
    let rotated = l.shifted(a, 3, o.amount);
    let low = l.b.trunc(Type::I8, rotated);
    for (bit, flag) in [slot::V, slot::C, slot::Z, slot::N].into_iter().enumerate() {
        if o.mask >> bit & 1 != 0 {
            let value = l.b.extract(low, bit as u8, 1, false);
            l.set_flag(flag, value);
        }
    }
}

/// `setf8`, `setf16`: N and Z of the low bits, V where the bit above differs from their sign. C stays.
pub(crate) fn setf(l: &mut Lift<'_>, o: R1, ty: Type) {
    let a = l.w(o.rn);
    let low = l.b.trunc(ty, a);
    let [n, z] = l.sign_and_zero(low);
    let above = l.b.extract(a, ty.bits() as u8, 1, false);
    let above = l.b.trunc(Type::I8, above);
    let v = l.b.xor(above, n);
    l.set_flag(slot::N, n);
    l.set_flag(slot::Z, z);
    l.set_flag(slot::V, v);
}

/// `cfinv`.
pub(crate) fn cfinv(l: &mut Lift<'_>, _: ()) {
    let c = l.flag(slot::C);
    let c = l.not(c);
    l.set_flag(slot::C, c);
}

/// `axflag`: from the flags of a floating-point comparison to another architecture's.
pub(crate) fn axflag(l: &mut Lift<'_>, _: ()) {
    let [_, z, c, v] = l.nzcv();
    let zero = l.truth(false);
    let z = l.b.or(z, v);
    let c = l.b.bin(BinOp::AndNot, c, v);
    l.set_nzcv([zero, z, c, zero]);
}

/// `xaflag`: and back.
pub(crate) fn xaflag(l: &mut Lift<'_>, _: ()) {
    let [_, z, c, _] = l.nzcv();
    let not_c = l.not(c);
    let n = l.b.bin(BinOp::AndNot, not_c, z);
    let new_z = l.b.and(z, c);
    let new_c = l.b.or(c, z);
    let v = l.b.bin(BinOp::AndNot, z, c);
    l.set_nzcv([n, new_z, new_c, v]);
}
