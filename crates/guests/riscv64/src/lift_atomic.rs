//! Atomics: A (volume I, 13), Zawrs (14), Zacas (15). They must be aligned; a misaligned one traps.

use crate::{lift::Lift, operands::Amo};
use isomer_ir::{
    Type,
    op::{BinOp, RmwOp},
    types::{Align, MemFlags},
};

impl Lift<'_> {
    fn atomic_flags(&self, o: Amo) -> MemFlags {
        self.plain().align(Align::Natural).order(o.order)
    }

    /// The value of a register in an access of type `ty`.
    fn x_as(&mut self, ty: Type, n: u8) -> isomer_ir::Value {
        let value = self.x(n);
        self.b.trunc(ty, value)
    }

    fn load_reserved(&mut self, ty: Type, o: Amo) {
        let (addr, flags) = (self.x(o.rs1), self.atomic_flags(o));
        let value = self.b.load_reserve(ty, addr, flags);
        self.set_x(o.rd, value);
    }

    fn store_conditional(&mut self, ty: Type, o: Amo) {
        let (addr, flags) = (self.x(o.rs1), self.atomic_flags(o));
        let value = self.x_as(ty, o.rs2);
        let stored = self.b.store_cond(addr, value, flags);
        let failed = self.b.bin_imm(BinOp::Xor, stored, 1);
        self.set_x_zext(o.rd, failed);
    }

    fn read_modify_write(&mut self, op: RmwOp, ty: Type, o: Amo) {
        let (addr, flags) = (self.x(o.rs1), self.atomic_flags(o));
        let operand = self.x_as(ty, o.rs2);
        let old = self.b.rmw(op, addr, operand, flags);
        self.set_x(o.rd, old);
    }

    fn compare_and_swap(&mut self, ty: Type, o: Amo) {
        let (addr, flags) = (self.x(o.rs1), self.atomic_flags(o));
        let (expected, new) = (self.x_as(ty, o.rd), self.x_as(ty, o.rs2));
        let old = self.b.cas(addr, expected, new, flags);
        self.set_x(o.rd, old);
    }
}

pub(crate) fn lr_w(l: &mut Lift<'_>, o: Amo) {
    l.load_reserved(Type::I32, o);
}

pub(crate) fn lr_d(l: &mut Lift<'_>, o: Amo) {
    l.load_reserved(Type::I64, o);
}

pub(crate) fn sc_w(l: &mut Lift<'_>, o: Amo) {
    l.store_conditional(Type::I32, o);
}

pub(crate) fn sc_d(l: &mut Lift<'_>, o: Amo) {
    l.store_conditional(Type::I64, o);
}

macro_rules! amos {
    ($($word:ident $double:ident $op:ident)*) => {$(
        pub(crate) fn $word(l: &mut Lift<'_>, o: Amo) {
            l.read_modify_write(RmwOp::$op, Type::I32, o);
        }
        pub(crate) fn $double(l: &mut Lift<'_>, o: Amo) {
            l.read_modify_write(RmwOp::$op, Type::I64, o);
        }
    )*};
}

amos! {
    amoswap_w amoswap_d Xchg
    amoadd_w amoadd_d Add
    amoand_w amoand_d And
    amoor_w amoor_d Or
    amoxor_w amoxor_d Xor
    amomin_w amomin_d MinS
    amomax_w amomax_d MaxS
    amominu_w amominu_d MinU
    amomaxu_w amomaxu_d MaxU
}

pub(crate) fn amocas_w(l: &mut Lift<'_>, o: Amo) {
    l.compare_and_swap(Type::I32, o);
}

pub(crate) fn amocas_d(l: &mut Lift<'_>, o: Amo) {
    l.compare_and_swap(Type::I64, o);
}

/// On even/odd register pairs. A pair that starts at x0 reads as zero whole, and is not written at all.
pub(crate) fn amocas_q(l: &mut Lift<'_>, o: Amo) {
    let pair = |l: &mut Lift<'_>, n: u8| [l.x(n), l.x(if n == 0 { 0 } else { n + 1 })];
    let (addr, flags) = (l.x(o.rs1), l.atomic_flags(o));
    let (expected, new) = (pair(l, o.rd), pair(l, o.rs2));
    let [low, high] = l.b.cas_pair(addr, expected, new, flags);
    if o.rd != 0 {
        l.set_x(o.rd, low);
        l.set_x(o.rd + 1, high);
    }
}

/// `wrs.nto`, `wrs.sto`: waiting may end at any time, here at once. So `mstatus.TW` never gets to trap it.
pub(crate) fn wrs(_: &mut Lift<'_>) {}
