//! The SIMD and floating-point registers as lifting functions use them, and the operands of their instructions (the
//! manual, B1.2.1 and C4.1.96 "Data processing, scalar floating-point and Advanced SIMD").

use crate::{lift::Lift, operands::FromInsn, pattern::Field, regs::slot};
use isomer_ir::{
    Op, Type, Value,
    op::{VecBinOp, VecUnOp},
    types::{FpFormat, HelperId, Lane},
};

/// Operands of SIMD and floating-point instructions: fields that lie where they always lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Simd(pub(crate) u32);

impl FromInsn for Simd {
    fn from_insn(insn: u32) -> Self {
        Self(insn)
    }
}

impl Simd {
    /// Bits `low .. low + len`.
    pub(crate) const fn bits(self, low: u32, len: u32) -> u32 {
        self.0 >> low & ((1 << len) - 1)
    }
    const fn is(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }
    /// Vd, Rd or Rt.
    pub(crate) const fn rd(self) -> u8 {
        Field::Rd.of(self.0) as u8
    }
    /// Vn or Rn.
    pub(crate) const fn rn(self) -> u8 {
        Field::Rn.of(self.0) as u8
    }
    /// Vm or Rm.
    pub(crate) const fn rm(self) -> u8 {
        Field::Rm.of(self.0) as u8
    }
    /// Va or the second register of a pair.
    pub(crate) const fn ra(self) -> u8 {
        Field::Ra.of(self.0) as u8
    }
    /// U: unsigned, or another second form.
    pub(crate) const fn u(self) -> bool {
        self.is(29)
    }
    /// One lane only.
    pub(crate) const fn scalar(self) -> bool {
        self.is(28)
    }
    /// 128-bit vectors, or the upper half of a narrower operand.
    pub(crate) const fn q(self) -> bool {
        self.is(30) && !self.is(28)
    }
    /// sf: a 64-bit general register.
    pub(crate) const fn sf(self) -> bool {
        self.is(31)
    }
    /// The lane by size, bits 23:22.
    pub(crate) const fn lane(self) -> Lane {
        lane_of(Field::vsize.of(self.0))
    }
    /// The lane twice as wide as [`Self::lane`].
    pub(crate) const fn wide(self) -> Lane {
        wider(self.lane())
    }
    /// The lane of a shift by immediate, by the highest bit of immh.
    pub(crate) const fn shift_lane(self) -> Lane {
        let immh = Field::immh.of(self.0);
        lane_of(if immh == 0 { 0 } else { immh.ilog2() })
    }
    /// The amount of a right shift: 1 to the lane's width.
    pub(crate) const fn right_shift(self) -> u8 {
        (2 * self.shift_lane().bits() - self.bits(16, 7)) as u8
    }
    /// The amount of a left shift: 0 to the lane's width less 1.
    pub(crate) const fn left_shift(self) -> u8 {
        (self.bits(16, 7) - self.shift_lane().bits()) as u8
    }
    /// Single or double by sz, bit 22.
    pub(crate) const fn fmt(self) -> FpFormat {
        if self.is(22) { FpFormat::F64 } else { FpFormat::F32 }
    }
    /// The format by ftype, bits 23:22, of scalar instructions.
    pub(crate) const fn ftype(self) -> FpFormat {
        match Field::ftype.of(self.0) {
            0 => FpFormat::F32,
            1 => FpFormat::F64,
            _ => FpFormat::F16,
        }
    }
    /// The register and index of an element of `lane` (the manual's H:L:M), Rm having 4 bits for 16-bit elements.
    pub(crate) const fn element(self, lane: Lane) -> (u8, u8) {
        let (h, l, m) = (self.bits(11, 1) as u8, self.bits(21, 1) as u8, self.bits(20, 1) as u8);
        match lane {
            Lane::B | Lane::H => (self.rm() & 15, h << 2 | l << 1 | m),
            Lane::S => (self.rm(), h << 1 | l),
            Lane::D => (self.rm(), h),
        }
    }
}

/// The lane of `8 << log2` bits.
pub(crate) const fn lane_of(log2: u32) -> Lane {
    match log2 {
        0 => Lane::B,
        1 => Lane::H,
        2 => Lane::S,
        _ => Lane::D,
    }
}

/// The lane twice as wide; of the widest, itself.
pub(crate) const fn wider(lane: Lane) -> Lane {
    lane_of(lane as u32 + 1)
}

/// The lane of a floating-point format.
pub(crate) const fn lane_of_format(fmt: FpFormat) -> Lane {
    match fmt {
        FpFormat::F16 | FpFormat::Bf16 => Lane::H,
        FpFormat::F32 => Lane::S,
        FpFormat::F64 => Lane::D,
    }
}

/// `bits` with the low `width` of them in every lane.
pub(crate) fn splat_bits(lane: Lane, bits: u64) -> u128 {
    (0..lane.count()).fold(0, |v, i| v | u128::from(bits & lane.ty().mask()) << (i * lane.bits()))
}

impl Lift<'_> {
    /// Vn, all 128 bits.
    pub(crate) fn v(&mut self, n: u8) -> Value {
        self.b.get(slot::v(n))
    }

    /// Writes all of Vn.
    pub(crate) fn set_v(&mut self, n: u8, value: Value) {
        self.b.set(slot::v(n), value);
    }

    /// The lower half of Vn.
    pub(crate) fn d(&mut self, n: u8) -> Value {
        self.b.get(slot::d(n))
    }

    /// Writes the lower half of Vn, an integer zero-extended, and clears the upper one.
    pub(crate) fn set_scalar(&mut self, n: u8, value: Value) {
        let value = self.b.zext(Type::I64, value);
        let zero = self.imm(0);
        self.b.set(slot::d(n), value);
        self.b.set(slot::d_high(n), zero);
    }

    /// Lane 0 of Vn as an integer type.
    pub(crate) fn scalar(&mut self, n: u8, ty: Type) -> Value {
        let low = self.d(n);
        self.b.trunc(ty, low)
    }

    /// Writes as many lanes of a vector as the instruction has: all by Q, else the lower half, or one if scalar.
    pub(crate) fn set_lanes(&mut self, o: Simd, lane: Lane, value: Value) {
        if o.q() {
            self.set_v(o.rd(), value);
            return;
        }
        let lane = if o.scalar() { lane } else { Lane::D };
        let low = self.vec_get(lane, 0, value);
        self.set_scalar(o.rd(), low);
    }

    /// Vn for a lane-wise operation with side effects: lanes that the instruction does not have are copies of lanes that
    /// it has, so that they raise nothing new.
    pub(crate) fn v_repeated(&mut self, o: Simd, lane: Lane, n: u8) -> Value {
        if o.q() {
            return self.v(n);
        }
        let lane = if o.scalar() { lane } else { Lane::D };
        let low = self.scalar(n, lane.ty());
        self.splat(lane, low)
    }

    /// Vm, or where the encoding picks an element, that in every lane.
    pub(crate) fn v_element(&mut self, o: Simd, lane: Lane) -> Value {
        let (register, index) = o.element(lane);
        let whole = self.v(register);
        let element = self.vec_get(lane, index, whole);
        self.splat(lane, element)
    }

    /// A result half as wide as its operands, lanes in the lower half of `value`: written to the lower half of Vd, or
    /// by Q to the upper one.
    pub(crate) fn set_narrow(&mut self, o: Simd, value: Value) {
        if o.q() {
            let low = self.v(o.rd());
            let both = self.b.vec_bin(VecBinOp::ZipLow, Lane::D, low, value);
            self.set_v(o.rd(), both);
        } else {
            let low = self.vec_get(Lane::D, 0, value);
            self.set_scalar(o.rd(), low);
        }
    }

    /// Lanes of Vn, by Q from the upper half, extended to twice their width.
    pub(crate) fn v_widened(&mut self, o: Simd, lane: Lane, signed: bool, value: Value) -> Value {
        let op = match (o.q(), signed) {
            (false, false) => VecUnOp::WidenLowU,
            (false, true) => VecUnOp::WidenLowS,
            (true, false) => VecUnOp::WidenHighU,
            (true, true) => VecUnOp::WidenHighS,
        };
        self.b.vec_un(op, lane, value)
    }

    /// Every lane = `a`.
    pub(crate) fn splat(&mut self, lane: Lane, a: Value) -> Value {
        self.b.push(Op::VecSplat { lane, a })
    }

    /// Lane `index`.
    pub(crate) fn vec_get(&mut self, lane: Lane, index: u8, a: Value) -> Value {
        self.b.push(Op::VecGet { lane, index, a })
    }

    /// `a` with lane `index` replaced.
    pub(crate) fn vec_set(&mut self, lane: Lane, index: u8, a: Value, b: Value) -> Value {
        self.b.push(Op::VecSet { lane, index, a, b })
    }

    /// A constant with `bits` in every lane.
    pub(crate) fn vec_const(&mut self, lane: Lane, bits: u64) -> Value {
        self.b.vconst(splat_bits(lane, bits))
    }

    /// All lanes shifted left.
    pub(crate) fn vec_shl(&mut self, lane: Lane, amount: u8, a: Value) -> Value {
        self.b.push(Op::VecShift { lane, left: true, signed: false, amount, a })
    }

    /// All lanes shifted right by up to their width.
    pub(crate) fn vec_shr(&mut self, lane: Lane, signed: bool, amount: u8, a: Value) -> Value {
        let most = lane.bits() as u8 - 1;
        if amount > most && !signed {
            return self.b.vconst(0);
        }
        self.b.push(Op::VecShift { lane, left: false, signed, amount: amount.min(most), a })
    }

    /// Bytes picked from two vectors; see [`Op::VecShuffle`].
    pub(crate) fn shuffle(&mut self, bytes: [u8; 16], a: Value, b: Value) -> Value {
        self.b.push(Op::VecShuffle { bytes, a, b })
    }

    /// `m` chooses bits of `a`, else of `b`.
    pub(crate) fn vec_select(&mut self, m: Value, a: Value, b: Value) -> Value {
        self.b.push(Op::VecSelect { m, a, b })
    }

    /// Has a helper execute the whole instruction (see [`crate::vector`]).
    pub(crate) fn execute(&mut self, helper: HelperId) {
        let insn = self.imm(i64::from(self.insn));
        self.call_void(helper, &[insn]);
    }
}
