//! Floating point on the host's SSE unit, which rounds as MXCSR says and keeps the sticky flags there. Its exceptions and
//! tininess (after rounding) are IEEE 754's and RISC-V's; what differs (which NaN, tininess before rounding, directions
//! it does not have, flushing of subnormals) is noticed beside the operation and left to [`crate::abi::Context::compute`],
//! whose flags include those the host has raised by then.

use super::{
    Done, Gen, X13, X14, X15,
    cold::Wanted,
    enc::{Alu, Opcode, Patch, Rm, cc, sse, sse3a, two},
    header,
};
use isomer_ir::{
    CpuHeader, Op, Type, Value,
    op::{FmaOp, FpBinOp, FpCond},
    softfloat::{NanRule, Tininess},
    types::{FpFormat, FpModel, Rounding},
};
use std::mem::offset_of;

/// What a conversion to or from an integer is.
#[derive(Clone, Copy)]
struct IntConversion {
    fmt: FpFormat,
    int: Type,
    signed: bool,
    rounding: Rounding,
}

/// `f32` or `f64`, which the host computes in.
pub(super) fn host_format(fmt: FpFormat) -> bool {
    matches!(fmt, FpFormat::F32 | FpFormat::F64)
}

/// Prefix of scalar instructions.
fn scalar(fmt: FpFormat) -> u8 {
    if fmt == FpFormat::F64 { 0xf2 } else { 0xf3 }
}

/// Prefix of comparisons and packed instructions.
pub(super) fn packed(fmt: FpFormat) -> u8 {
    if fmt == FpFormat::F64 { 0x66 } else { 0 }
}

/// Neither operands nor results are flushed.
pub(super) fn keeps_subnormals(fp: FpModel) -> bool {
    !fp.flush_inputs && !fp.flush_outputs
}

/// The arithmetic instruction, for both scalar and packed forms.
pub(super) const fn arithmetic(op: FpBinOp) -> Option<u8> {
    match op {
        FpBinOp::Add => Some(0x58),
        FpBinOp::Sub => Some(0x5c),
        FpBinOp::Mul => Some(0x59),
        FpBinOp::Div => Some(0x5e),
        _ => None,
    }
}

/// The last byte of `vf(n)m(add|sub)213`, packed; scalar is the next one.
pub(super) const fn fma_opcode(op: FmaOp) -> u8 {
    match op {
        FmaOp::MulAdd => 0xa8,
        FmaOp::MulSub => 0xaa,
        FmaOp::NegMulAdd => 0xac,
        FmaOp::NegMulSub => 0xae,
    }
}

/// Can the result be tiny and inexact? Sums below the smallest normal number are exact.
pub(super) const fn may_underflow(op: FpBinOp) -> bool {
    matches!(op, FpBinOp::Mul | FpBinOp::Div)
}

impl Gen<'_> {
    pub(super) fn float(&mut self, op: &Op, first: Value) -> Done {
        let fp = self.block.fp;
        if !keeps_subnormals(fp) {
            return self.compute(op, first);
        }
        match *op {
            Op::FpBinary { op: which, fmt, rounding, a, b } if host_format(fmt) => {
                match (arithmetic(which), rounding) {
                    (Some(byte), Rounding::Dynamic) => {
                        let tiny = may_underflow(which);
                        self.arithmetic(op, sse(scalar(fmt), byte), fmt, tiny, [a, b], first)
                    }
                    (None, _) => self.min_max(op, which, fmt, a, b, first),
                    _ => self.compute(op, first),
                }
            }
            Op::FpSqrt { fmt, rounding: Rounding::Dynamic, a } if host_format(fmt) => {
                self.one_operand(op, sse(scalar(fmt), 0x51), fmt, true, a, first)
            }
            Op::FpFma { op: which, fmt, rounding: Rounding::Dynamic, a, b, c }
                if host_format(fmt) && self.features.fma =>
            {
                self.fma(op, which, fmt, [a, b, c], first)
            }
            Op::FpCompare { cond, fmt, signalling, a, b } if host_format(fmt) => {
                self.fp_compare(cond, fmt, signalling, a, b, first)
            }
            Op::FpConvert { from: FpFormat::F32, to: FpFormat::F64, a, .. } => {
                self.one_operand(op, sse(0xf3, 0x5a), FpFormat::F64, false, a, first)
            }
            Op::FpConvert { from: FpFormat::F64, to: FpFormat::F32, rounding: Rounding::Dynamic, a } => {
                self.one_operand(op, sse(0xf2, 0x5a), FpFormat::F32, true, a, first)
            }
            Op::FpToInt { fmt, to, signed, rounding, a, .. }
                if host_format(fmt) && matches!(rounding, Rounding::Dynamic | Rounding::TowardZero) =>
            {
                self.convert_to_int(op, IntConversion { fmt, int: to, signed, rounding }, a, first)
            }
            Op::FpFromInt { fmt, from, signed, rounding, a } if host_format(fmt) => {
                let exact = fmt == FpFormat::F64 && from == Type::I32;
                if exact || rounding == Rounding::Dynamic {
                    self.convert_from_int(
                        op,
                        IntConversion { fmt, int: from, signed, rounding },
                        exact,
                        a,
                        first,
                    )
                } else {
                    self.compute(op, first)
                }
            }
            Op::FpRound { fmt, rounding, inexact, a } if host_format(fmt) && self.features.sse42 => {
                self.round(op, fmt, rounding, inexact, a, first)
            }
            _ => self.compute(op, first),
        }
    }

    /// Directions that MXCSR does not have (`NearestAway`, `ToOdd`) go to the cold path.
    pub(super) fn guard_rounding(&mut self) -> Patch {
        self.asm.cmp_imm(1, header(offset_of!(CpuHeader, rounding)), 3);
        self.asm.jcc(cc::A)
    }

    /// Registers for [`Self::guard_result`]. To be taken before the first jump to the cold path, like every register: what
    /// makes room for them must not be jumped over.
    fn guard_temps(&mut self, rounds: bool) -> Done<Option<[u8; 2]>> {
        let needed = rounds && self.block.fp.tininess == Tininess::Before;
        Ok(if needed { Some([self.int_temp()?, self.int_temp()?]) } else { None })
    }

    /// A result that may not be what the guest expects goes to the cold path.
    fn guard_result(
        &mut self,
        dst: u8,
        fmt: FpFormat,
        temps: Option<[u8; 2]>,
    ) -> (Option<Patch>, Option<Patch>) {
        let fp = self.block.fp;
        let nan = (fp.nan != NanRule::X86).then(|| {
            self.asm.op(Opcode { prefix: packed(fmt), map: 1, byte: 0x2e }, false, dst, Rm::Reg(dst));
            self.asm.jcc(cc::P)
        });
        let tiny = temps.map(|[bits, constant]| {
            // Only a result that was rounded up to the smallest normal number can be tiny before and not after.
            let (w, smallest) = match fmt {
                FpFormat::F64 => (true, 1u64 << 53),
                _ => (false, 1 << 24),
            };
            self.asm.vec_to(bits, dst, w);
            self.asm.alu(Alu::Add, w, bits, Rm::Reg(bits));
            if w {
                self.asm.mov_imm(constant, smallest);
                self.asm.cmp(8, bits, Rm::Reg(constant));
            } else {
                self.asm.cmp_imm(4, Rm::Reg(bits), smallest as i32);
            }
            self.asm.jcc(cc::E)
        });
        (nan, tiny)
    }

    fn arithmetic(
        &mut self,
        op: &Op,
        code: Opcode,
        fmt: FpFormat,
        rounds: bool,
        [a, b]: [Value; 2],
        v: Value,
    ) -> Done {
        let (a, b) = (self.vec(a)?, self.vec(b)?);
        let dst = self.define_vec(v)?;
        let temps = self.guard_temps(rounds)?;
        let rounding = self.guard_rounding();
        self.asm.movaps(dst, a);
        self.asm.op(code, false, dst, Rm::Reg(b));
        let (nan, tiny) = self.guard_result(dst, fmt, temps);
        self.compute_later(op, [Some(rounding), nan, tiny], Wanted::Vec(dst, fmt.ty().bytes()))
    }

    /// Square roots and conversions between formats; `fmt` is the result's.
    fn one_operand(
        &mut self,
        op: &Op,
        code: Opcode,
        fmt: FpFormat,
        rounds: bool,
        a: Value,
        v: Value,
    ) -> Done {
        let a = self.vec(a)?;
        let dst = self.define_vec(v)?;
        // Square roots are never tiny.
        let temps = self.guard_temps(rounds && matches!(op, Op::FpConvert { .. }))?;
        let rounding = rounds.then(|| self.guard_rounding());
        self.asm.op(code, false, dst, Rm::Reg(a));
        let (nan, tiny) = self.guard_result(dst, fmt, temps);
        self.compute_later(op, [rounding, nan, tiny], Wanted::Vec(dst, fmt.ty().bytes()))
    }

    fn fma(&mut self, op: &Op, which: FmaOp, fmt: FpFormat, [a, b, c]: [Value; 3], v: Value) -> Done {
        let (a, b, c) = (self.vec(a)?, self.vec(b)?, self.vec(c)?);
        let dst = self.define_vec(v)?;
        let temps = self.guard_temps(true)?;
        let rounding = self.guard_rounding();
        self.asm.movaps(dst, a);
        // dst = dst * b + c
        let code = Opcode { prefix: 0x66, map: 2, byte: fma_opcode(which) | 1 };
        self.asm.vex(code, fmt == FpFormat::F64, dst, b, Rm::Reg(c));
        let (nan, tiny) = self.guard_result(dst, fmt, temps);
        // Rules differ for infinity times zero plus a NaN, and for the order of NaNs.
        let nan = nan.or_else(|| {
            self.asm.op(Opcode { prefix: packed(fmt), map: 1, byte: 0x2e }, false, dst, Rm::Reg(dst));
            Some(self.asm.jcc(cc::P))
        });
        self.compute_later(op, [Some(rounding), nan, tiny], Wanted::Vec(dst, fmt.ty().bytes()))
    }

    fn min_max(&mut self, op: &Op, which: FpBinOp, fmt: FpFormat, a: Value, b: Value, v: Value) -> Done {
        let minimum =
            matches!(which, FpBinOp::MinNumber | FpBinOp::Minimum | FpBinOp::MinNum2008 | FpBinOp::MinSelect);
        let code = sse(scalar(fmt), if minimum { 0x5d } else { 0x5f });
        let (a, b) = (self.vec(a)?, self.vec(b)?);
        let dst = self.define_vec(v)?;
        if matches!(which, FpBinOp::MinSelect | FpBinOp::MaxSelect) {
            self.asm.movaps(dst, a);
            self.asm.op(code, false, dst, Rm::Reg(b));
            return Ok(());
        }
        self.asm.op(Opcode { prefix: packed(fmt), map: 1, byte: 0x2e }, false, a, Rm::Reg(b));
        let nan = self.asm.jcc(cc::P);
        // Both ways: they differ only for zeros of unlike sign, where the bits tell.
        self.asm.movaps(X15, b);
        self.asm.op(code, false, X15, Rm::Reg(a));
        self.asm.movaps(dst, a);
        self.asm.op(code, false, dst, Rm::Reg(b));
        self.asm.op(two(if minimum { 0x56 } else { 0x54 }), false, dst, Rm::Reg(X15));
        self.compute_later(op, [Some(nan), None, None], Wanted::Vec(dst, fmt.ty().bytes()))
    }

    fn fp_compare(
        &mut self,
        cond: FpCond,
        fmt: FpFormat,
        signalling: bool,
        a: Value,
        b: Value,
        v: Value,
    ) -> Done {
        let (mut a, mut b) = (self.vec(a)?, self.vec(b)?);
        let dst = self.define(v)?;
        // b > a rather than a < b: carry is also set for NaNs.
        if matches!(cond, FpCond::Lt | FpCond::Le) {
            (a, b) = (b, a);
        }
        let byte = if signalling { 0x2f } else { 0x2e };
        self.asm.op(Opcode { prefix: packed(fmt), map: 1, byte }, false, a, Rm::Reg(b));
        match cond {
            FpCond::Lt => self.asm.setcc(cc::A, dst),
            FpCond::Le => self.asm.setcc(cc::AE, dst),
            FpCond::Unordered => self.asm.setcc(cc::P, dst),
            FpCond::Eq => {
                let ordered = self.int_temp()?;
                self.asm.setcc(cc::NP, ordered);
                self.asm.setcc(cc::E, dst);
                self.asm.alu(Alu::And, false, dst, Rm::Reg(ordered));
            }
        }
        Ok(())
    }

    fn convert_to_int(&mut self, op: &Op, conversion: IntConversion, a: Value, v: Value) -> Done {
        let IntConversion { fmt, int, signed, rounding } = conversion;
        let a = self.vec(a)?;
        let (dst, bits) = (self.define(v)?, self.int_temp()?);
        let guard = (rounding == Rounding::Dynamic).then(|| self.guard_rounding());
        let double = fmt == FpFormat::F64;
        let mut range = None;
        if !signed {
            // Converted as a signed 64-bit integer. Out of range must not raise Inexact, so look first: as integers, the
            // bits of what is negative, too large or a NaN are all above those of the first number out of range.
            let first_above: u64 = match (double, int) {
                (true, Type::I64) => 0x43e0_0000_0000_0000,
                (true, _) => 0x41ef_ffff_ffe0_0000,
                (false, Type::I64) => 0x5f00_0000,
                (false, _) => 0x4f80_0000,
            };
            self.asm.vec_to(bits, a, double);
            self.asm.mov_imm(dst, first_above);
            self.asm.cmp(if double { 8 } else { 4 }, bits, Rm::Reg(dst));
            range = Some(self.asm.jcc(cc::AE));
        }
        let byte = if rounding == Rounding::TowardZero { 0x2c } else { 0x2d };
        let w = int == Type::I64 || !signed;
        self.asm.op(sse(scalar(fmt), byte), w, dst, Rm::Reg(a));
        if signed {
            // The "integer indefinite" value: perhaps out of range. One less overflows.
            self.asm.cmp_imm(if w { 8 } else { 4 }, Rm::Reg(dst), 1);
            range = Some(self.asm.jcc(cc::O));
        }
        let wanted = Wanted::Int { reg: dst, bytes: int.bytes(), signed: false, wide: true };
        self.compute_later(op, [guard, range, None], wanted)
    }

    fn convert_from_int(
        &mut self,
        op: &Op,
        conversion: IntConversion,
        exact: bool,
        a: Value,
        v: Value,
    ) -> Done {
        let IntConversion { fmt, int, signed, .. } = conversion;
        let a = self.int(a)?;
        let dst = self.define_vec(v)?;
        let guard = (!exact).then(|| self.guard_rounding());
        let large = (!signed && int == Type::I64).then(|| {
            self.asm.test(true, a, a);
            self.asm.jcc(cc::S)
        });
        // Breaks the dependency on what was in the register.
        self.asm.op(two(0x57), false, dst, Rm::Reg(dst));
        let w = int == Type::I64 || !signed;
        self.asm.op(sse(scalar(fmt), 0x2a), w, dst, Rm::Reg(a));
        if guard.is_some() || large.is_some() {
            self.compute_later(op, [guard, large, None], Wanted::Vec(dst, fmt.ty().bytes()))?;
        }
        Ok(())
    }

    fn round(
        &mut self,
        op: &Op,
        fmt: FpFormat,
        rounding: Rounding,
        inexact: bool,
        a: Value,
        v: Value,
    ) -> Done {
        let direction = match rounding {
            Rounding::NearestEven => 0,
            Rounding::Down => 1,
            Rounding::Up => 2,
            Rounding::TowardZero => 3,
            Rounding::Dynamic => 4,
            Rounding::NearestAway => return self.compute(op, v),
        };
        let a = self.vec(a)?;
        let dst = self.define_vec(v)?;
        let guard = (rounding == Rounding::Dynamic).then(|| self.guard_rounding());
        let imm = direction | if inexact { 0 } else { 8 };
        let byte = if fmt == FpFormat::F64 { 0x0b } else { 0x0a };
        self.asm.op_imm8(sse3a(byte), false, dst, Rm::Reg(a), imm);
        let (nan, tiny) = self.guard_result(dst, fmt, None);
        self.compute_later(op, [guard, nan, tiny], Wanted::Vec(dst, fmt.ty().bytes()))
    }

    // --- lane by lane

    pub(super) fn vector_float(&mut self, op: &Op, first: Value) -> Done {
        if !keeps_subnormals(self.block.fp) {
            return self.compute(op, first);
        }
        match *op {
            Op::VecFpBinary { op: which, fmt, rounding, a, b } if host_format(fmt) => {
                let select = match which {
                    FpBinOp::MinSelect => Some(0x5d),
                    FpBinOp::MaxSelect => Some(0x5f),
                    _ => None,
                };
                if let Some(byte) = select {
                    let (a, b) = (self.vec(a)?, self.vec(b)?);
                    let dst = self.define_vec(first)?;
                    self.asm.movaps(dst, a);
                    self.asm.op(sse(packed(fmt), byte), false, dst, Rm::Reg(b));
                    return Ok(());
                }
                match (arithmetic(which), rounding) {
                    (Some(byte), Rounding::Dynamic) => {
                        let (a, b) = (self.vec(a)?, self.vec(b)?);
                        let dst = self.define_vec(first)?;
                        let (mask, guard) = (self.int_temp()?, self.guard_rounding());
                        self.asm.movaps(dst, a);
                        self.asm.op(sse(packed(fmt), byte), false, dst, Rm::Reg(b));
                        self.guard_lanes(op, guard, [dst, mask], fmt, may_underflow(which))
                    }
                    _ => self.compute(op, first),
                }
            }
            Op::VecFpSqrt { fmt, rounding: Rounding::Dynamic, a } if host_format(fmt) => {
                let a = self.vec(a)?;
                let dst = self.define_vec(first)?;
                let (mask, guard) = (self.int_temp()?, self.guard_rounding());
                self.asm.op(sse(packed(fmt), 0x51), false, dst, Rm::Reg(a));
                self.guard_lanes(op, guard, [dst, mask], fmt, false)
            }
            Op::VecFpFma { op: which, fmt, rounding: Rounding::Dynamic, a, b, c }
                if host_format(fmt) && self.features.fma =>
            {
                let (a, b, c) = (self.vec(a)?, self.vec(b)?, self.vec(c)?);
                let dst = self.define_vec(first)?;
                let (mask, guard) = (self.int_temp()?, self.guard_rounding());
                self.asm.movaps(dst, a);
                let code = Opcode { prefix: 0x66, map: 2, byte: fma_opcode(which) };
                self.asm.vex(code, fmt == FpFormat::F64, dst, b, Rm::Reg(c));
                self.guard_lanes(op, guard, [dst, mask], fmt, true)
            }
            Op::VecFpCompare { cond, fmt, signalling, a, b } if host_format(fmt) && self.features.avx => {
                // Predicates of SDM volume 2, table 3-1.
                let predicate = match (cond, signalling) {
                    (FpCond::Eq, false) => 0x00,
                    (FpCond::Eq, true) => 0x10,
                    (FpCond::Lt, true) => 0x01,
                    (FpCond::Lt, false) => 0x11,
                    (FpCond::Le, true) => 0x02,
                    (FpCond::Le, false) => 0x12,
                    (FpCond::Unordered, false) => 0x03,
                    (FpCond::Unordered, true) => 0x13,
                };
                let (a, b) = (self.vec(a)?, self.vec(b)?);
                let dst = self.define_vec(first)?;
                self.asm.vex_imm8(sse(packed(fmt), 0xc2), false, dst, a, Rm::Reg(b), predicate);
                Ok(())
            }
            _ => self.compute(op, first),
        }
    }

    /// NaNs and results that may have been tiny before rounding go to the cold path, whichever lane they are in.
    fn guard_lanes(
        &mut self,
        op: &Op,
        guard: Patch,
        [dst, mask]: [u8; 2],
        fmt: FpFormat,
        rounds: bool,
    ) -> Done {
        let fp = self.block.fp;
        let fused = matches!(op, Op::VecFpFma { .. });
        let before = rounds && fp.tininess == Tininess::Before;
        let nans = fp.nan != NanRule::X86 || fused;
        let mut odd = None;
        if nans || before {
            self.asm.movaps(X15, dst);
            self.asm.op_imm8(sse(packed(fmt), 0xc2), false, X15, Rm::Reg(X15), 3);
            if before {
                self.mark_smallest(dst, fmt);
            }
            self.asm.op(sse(0x66, 0xd7), false, mask, Rm::Reg(X15));
            self.asm.test(false, mask, mask);
            odd = Some(self.asm.jcc(cc::NE));
        }
        self.compute_later(op, [Some(guard), odd, None], Wanted::Vec(dst, 16))
    }

    /// Adds to the mask in xmm15 the lanes of `dst` that hold the smallest normal number.
    fn mark_smallest(&mut self, dst: u8, fmt: FpFormat) {
        let lanes = |bits: u64, width: u32| (0..128 / width).map(|i| u128::from(bits) << (i * width)).sum();
        let (smallest, one_bit): (u128, u8) = match fmt {
            FpFormat::F64 => (lanes(1 << 53, 64), 0x73),
            _ => (lanes(1 << 24, 32), 0x72),
        };
        self.asm.movaps(X14, dst);
        // Shift the sign out, compare 32 bits at a time, and keep doublewords that agree in both halves.
        self.asm.op_imm8(sse(0x66, one_bit), false, 6, Rm::Reg(X14), 1);
        self.literal(X13, smallest);
        self.asm.op(sse(0x66, 0x76), false, X14, Rm::Reg(X13));
        if fmt == FpFormat::F64 {
            self.asm.op_imm8(sse(0x66, 0x70), false, X13, Rm::Reg(X14), 0xb1);
            self.asm.op(sse(0x66, 0xdb), false, X14, Rm::Reg(X13));
        }
        self.asm.op(sse(0x66, 0xeb), false, X15, Rm::Reg(X14));
    }
}
