//! 128-bit integer vectors, one or a few SSE instructions each; the rest is left to `compute`.

use super::{
    Done, Gen, X13, X14, X15,
    enc::{Opcode, Rm, sse, sse3a, sse38, two},
};
use isomer_ir::{
    Op, Value,
    op::{VecBinOp, VecUnOp},
    types::Lane,
};

/// An instruction that is the whole operation, `dst = dst op src`.
#[derive(Clone, Copy)]
enum Direct {
    /// Every host has it.
    Sse2(u8),
    /// 66 0f 38 byte, of SSSE3 to SSE4.2.
    Sse42(u8),
}

const fn direct(op: VecBinOp, lane: Lane) -> Option<Direct> {
    use Direct::{Sse2, Sse42};
    use Lane::{B, D, H, S};
    use VecBinOp::*;
    Some(match (op, lane) {
        (Add, B) => Sse2(0xfc),
        (Add, H) => Sse2(0xfd),
        (Add, S) => Sse2(0xfe),
        (Add, D) => Sse2(0xd4),
        (Sub, B) => Sse2(0xf8),
        (Sub, H) => Sse2(0xf9),
        (Sub, S) => Sse2(0xfa),
        (Sub, D) => Sse2(0xfb),
        (Mul, H) => Sse2(0xd5),
        (Mul, S) => Sse42(0x40),
        (AddSatU, B) => Sse2(0xdc),
        (AddSatU, H) => Sse2(0xdd),
        (AddSatS, B) => Sse2(0xec),
        (AddSatS, H) => Sse2(0xed),
        (SubSatU, B) => Sse2(0xd8),
        (SubSatU, H) => Sse2(0xd9),
        (SubSatS, B) => Sse2(0xe8),
        (SubSatS, H) => Sse2(0xe9),
        (MinU, B) => Sse2(0xda),
        (MinU, H) => Sse42(0x3a),
        (MinU, S) => Sse42(0x3b),
        (MinS, B) => Sse42(0x38),
        (MinS, H) => Sse2(0xea),
        (MinS, S) => Sse42(0x39),
        (MaxU, B) => Sse2(0xde),
        (MaxU, H) => Sse42(0x3e),
        (MaxU, S) => Sse42(0x3f),
        (MaxS, B) => Sse42(0x3c),
        (MaxS, H) => Sse2(0xee),
        (MaxS, S) => Sse42(0x3d),
        (AvgU, B) => Sse2(0xe0),
        (AvgU, H) => Sse2(0xe3),
        (And, _) => Sse2(0xdb),
        (Or, _) => Sse2(0xeb),
        (Xor, _) => Sse2(0xef),
        (CmpEq, B) => Sse2(0x74),
        (CmpEq, H) => Sse2(0x75),
        (CmpEq, S) => Sse2(0x76),
        (CmpEq, D) => Sse42(0x29),
        (CmpGtS, B) => Sse2(0x64),
        (CmpGtS, H) => Sse2(0x65),
        (CmpGtS, S) => Sse2(0x66),
        (CmpGtS, D) => Sse42(0x37),
        (ZipLow, B) => Sse2(0x60),
        (ZipLow, H) => Sse2(0x61),
        (ZipLow, S) => Sse2(0x62),
        (ZipLow | UnzipEven, D) => Sse2(0x6c),
        (ZipHigh, B) => Sse2(0x68),
        (ZipHigh, H) => Sse2(0x69),
        (ZipHigh, S) => Sse2(0x6a),
        (ZipHigh | UnzipOdd, D) => Sse2(0x6d),
        (NarrowSatS, H) => Sse2(0x63),
        (NarrowSatS, S) => Sse2(0x6b),
        (NarrowSatSU, H) => Sse2(0x67),
        (NarrowSatSU, S) => Sse42(0x2b),
        _ => return None,
    })
}

/// The same bits in every lane.
fn every(lane: Lane, bits: u64) -> u128 {
    (0..lane.count()).map(|i| u128::from(bits) << (i * lane.bits())).sum()
}

/// The group of shifts by a constant for a lane; bytes have none.
const fn shift_group(lane: Lane) -> u8 {
    match lane {
        Lane::B | Lane::H => 0x71,
        Lane::S => 0x72,
        Lane::D => 0x73,
    }
}

impl Gen<'_> {
    pub(super) fn vector(&mut self, op: &Op, first: Value) -> Done {
        let sse42 = self.features.sse42;
        match *op {
            Op::VecUnary { op: which, lane, a } => self.vec_unary(op, which, lane, a, first),
            Op::VecBinary { op: which, lane, a, b } => self.vec_binary(op, which, lane, a, b, first),
            Op::VecSelect { m, a, b } => {
                let (m, a, b) = (self.vec(m)?, self.vec(a)?, self.vec(b)?);
                let dst = self.define_vec(first)?;
                self.asm.movaps(dst, m);
                self.asm.movaps(X15, m);
                self.asm.op(sse(0x66, 0xdb), false, dst, Rm::Reg(a));
                self.asm.op(sse(0x66, 0xdf), false, X15, Rm::Reg(b));
                self.asm.op(sse(0x66, 0xeb), false, dst, Rm::Reg(X15));
                Ok(())
            }
            Op::VecShift { lane, left, signed, amount, a } => {
                self.vec_shift(lane, left, signed, amount, a, first)
            }
            Op::VecSplat { lane, a } => self.splat(lane, a, first),
            Op::VecGet { lane, index, a } if sse42 || lane == Lane::H => self.vec_get(lane, index, a, first),
            Op::VecSet { lane, index, a, b } if sse42 || lane == Lane::H => {
                self.vec_set(lane, index, a, b, first)
            }
            Op::VecShuffle { bytes, a, b } if sse42 => self.shuffle(bytes, a, b, first),
            Op::VecGet { .. } | Op::VecSet { .. } | Op::VecShuffle { .. } => self.vector_by_parts(op, first),
            _ => self.compute(op, first),
        }
    }

    fn vec_op(&mut self, byte: u8, dst: u8, src: u8) {
        self.asm.op(sse(0x66, byte), false, dst, Rm::Reg(src));
    }

    fn vec_unary(&mut self, op: &Op, which: VecUnOp, lane: Lane, a: Value, v: Value) -> Done {
        let sse42 = self.features.sse42;
        let widen = match (which, lane) {
            (VecUnOp::WidenLowU | VecUnOp::WidenHighU, Lane::B) => 0x30,
            (VecUnOp::WidenLowU | VecUnOp::WidenHighU, Lane::H) => 0x33,
            (VecUnOp::WidenLowU | VecUnOp::WidenHighU, Lane::S) => 0x35,
            (VecUnOp::WidenLowS | VecUnOp::WidenHighS, Lane::B) => 0x20,
            (VecUnOp::WidenLowS | VecUnOp::WidenHighS, Lane::H) => 0x23,
            (VecUnOp::WidenLowS | VecUnOp::WidenHighS, Lane::S) => 0x25,
            _ => 0,
        };
        match which {
            VecUnOp::Not => {
                let a = self.vec(a)?;
                let dst = self.define_vec(v)?;
                self.vec_op(0x76, dst, dst);
                self.vec_op(0xef, dst, a);
            }
            VecUnOp::Neg => {
                let a = self.vec(a)?;
                let dst = self.define_vec(v)?;
                self.vec_op(0xef, dst, dst);
                let byte = [0xf8, 0xf9, 0xfa, 0xfb][lane as usize];
                self.vec_op(byte, dst, a);
            }
            VecUnOp::Abs if sse42 && lane != Lane::D => {
                let a = self.vec(a)?;
                let dst = self.define_vec(v)?;
                self.asm.op(sse38(0x1c + lane as u8), false, dst, Rm::Reg(a));
            }
            VecUnOp::Reverse if lane >= Lane::S => {
                let a = self.vec(a)?;
                let dst = self.define_vec(v)?;
                let order = if lane == Lane::S { 0x1b } else { 0x4e };
                self.asm.op_imm8(sse(0x66, 0x70), false, dst, Rm::Reg(a), order);
            }
            VecUnOp::Reverse if sse42 => {
                let dst = self.define_vec_from(v, a)?;
                let order: [u8; 16] = match lane {
                    Lane::B => std::array::from_fn(|i| 15 - i as u8),
                    _ => std::array::from_fn(|i| 14 - (i as u8 & !1) + (i as u8 & 1)),
                };
                self.literal(X15, u128::from_le_bytes(order));
                self.asm.op(sse38(0x00), false, dst, Rm::Reg(X15));
            }
            VecUnOp::WidenLowU | VecUnOp::WidenLowS if sse42 && widen != 0 => {
                let a = self.vec(a)?;
                let dst = self.define_vec(v)?;
                self.asm.op(sse38(widen), false, dst, Rm::Reg(a));
            }
            VecUnOp::WidenHighU | VecUnOp::WidenHighS if sse42 && widen != 0 => {
                let a = self.vec(a)?;
                let dst = self.define_vec(v)?;
                self.asm.op_imm8(sse(0x66, 0x70), false, dst, Rm::Reg(a), 0xee);
                self.asm.op(sse38(widen), false, dst, Rm::Reg(dst));
            }
            _ => return self.compute(op, v),
        }
        Ok(())
    }

    fn vec_binary(&mut self, op: &Op, which: VecBinOp, lane: Lane, a: Value, b: Value, v: Value) -> Done {
        let sse42 = self.features.sse42;
        match (direct(which, lane), which) {
            (Some(Direct::Sse2(byte)), _) => self.two_vectors(sse(0x66, byte), a, b, v),
            (Some(Direct::Sse42(byte)), _) if sse42 => self.two_vectors(sse38(byte), a, b, v),
            (None, VecBinOp::AndNot) => self.two_vectors(sse(0x66, 0xdf), b, a, v),
            (None, VecBinOp::CmpGtU) if lane != Lane::D || sse42 => {
                // Signed, with the sign bits turned over.
                let b = self.vec(b)?;
                let dst = self.define_vec_copy(v, a)?;
                self.literal(X15, every(lane, 1 << (lane.bits() - 1)));
                self.asm.movaps(X14, b);
                self.vec_op(0xef, X14, X15);
                self.vec_op(0xef, dst, X15);
                let code = if lane == Lane::D { sse38(0x37) } else { sse(0x66, 0x64 + lane as u8) };
                self.asm.op(code, false, dst, Rm::Reg(X14));
                Ok(())
            }
            (None, VecBinOp::ShlV | VecBinOp::ShrUV | VecBinOp::ShrSV)
                if self.features.avx2 && lane >= Lane::S && (which != VecBinOp::ShrSV || lane == Lane::S) =>
            {
                let byte = match which {
                    VecBinOp::ShlV => 0x47,
                    VecBinOp::ShrUV => 0x45,
                    _ => 0x46,
                };
                let (a, b) = (self.vec(a)?, self.vec(b)?);
                let dst = self.define_vec(v)?;
                self.asm.vex(sse38(byte), lane == Lane::D, dst, a, Rm::Reg(b));
                Ok(())
            }
            (None, VecBinOp::Table) if sse42 => {
                // Indexes of 16 and more get bit 7, for which the instruction gives 0.
                let b = self.vec(b)?;
                let dst = self.define_vec_copy(v, a)?;
                self.literal(X15, every(Lane::B, 0x70));
                self.vec_op(0xdc, X15, b);
                self.asm.op(sse38(0x00), false, dst, Rm::Reg(X15));
                Ok(())
            }
            (None, VecBinOp::UnzipEven | VecBinOp::UnzipOdd) => {
                self.unzip(op, lane, which == VecBinOp::UnzipOdd, a, b, v)
            }
            // The low half of every lane.
            (None, VecBinOp::Narrow) => {
                let half = match lane {
                    Lane::D => Lane::S,
                    Lane::S => Lane::H,
                    _ => Lane::B,
                };
                self.unzip(op, half, false, a, b, v)
            }
            _ => self.compute(op, v),
        }
    }

    /// A register for `v` with a copy of `a` in it: never `a`'s own, so that other operands stay whole.
    fn define_vec_copy(&mut self, v: Value, a: Value) -> Done<u8> {
        let dst = self.define_vec(v)?;
        self.copy_to_vec(dst, a);
        Ok(dst)
    }

    /// `v = a op b`.
    fn two_vectors(&mut self, code: Opcode, a: Value, b: Value, v: Value) -> Done {
        let b_reg = self.vec(b)?;
        let dst = if a == b { self.define_vec_copy(v, a)? } else { self.define_vec_from(v, a)? };
        self.asm.op(code, false, dst, Rm::Reg(b_reg));
        Ok(())
    }

    /// Even or odd lanes of `a`, then of `b`.
    fn unzip(&mut self, op: &Op, lane: Lane, odd: bool, a: Value, b: Value, v: Value) -> Done {
        if lane == Lane::H && !self.features.sse42 || lane == Lane::D {
            return self.compute(op, v);
        }
        let b = self.vec(b)?;
        let dst = self.define_vec_copy(v, a)?;
        if lane == Lane::S {
            // shufps
            self.asm.op_imm8(two(0xc6), false, dst, Rm::Reg(b), if odd { 0xdd } else { 0x88 });
            return Ok(());
        }
        // Lanes in question alone, each in twice its width; packing with unsigned saturation then loses nothing.
        self.asm.movaps(X14, b);
        if odd {
            let wider = if lane == Lane::B { Lane::H } else { Lane::S };
            for reg in [dst, X14] {
                let code = sse(0x66, shift_group(wider));
                self.asm.op_imm8(code, false, 2, Rm::Reg(reg), lane.bits() as u8);
            }
        } else {
            let (wider, mask) = if lane == Lane::B { (Lane::H, 0xff) } else { (Lane::S, 0xffff) };
            self.literal(X15, every(wider, mask));
            self.vec_op(0xdb, dst, X15);
            self.vec_op(0xdb, X14, X15);
        }
        let code = if lane == Lane::B { sse(0x66, 0x67) } else { sse38(0x2b) };
        self.asm.op(code, false, dst, Rm::Reg(X14));
        Ok(())
    }

    fn vec_shift(&mut self, lane: Lane, left: bool, signed: bool, amount: u8, a: Value, v: Value) -> Done {
        let arithmetic = signed && !left && amount != 0;
        match lane {
            Lane::B if arithmetic => return self.bytes_shifted_signed(amount, a, v),
            Lane::D if arithmetic => return self.longs_shifted_signed(amount, a, v),
            _ => {}
        }
        let number = match (left, signed) {
            (true, _) => 6,
            (false, false) => 2,
            (false, true) => 4,
        };
        let dst = self.define_vec_from(v, a)?;
        if amount == 0 {
            return Ok(());
        }
        self.asm.op_imm8(sse(0x66, shift_group(lane)), false, number, Rm::Reg(dst), amount);
        if lane == Lane::B {
            // Bytes are shifted as words: what came from the neighbour goes.
            let kept = if left { 0xff << amount & 0xff } else { 0xff >> amount };
            self.literal(X15, every(Lane::B, kept));
            self.vec_op(0xdb, dst, X15);
        }
        Ok(())
    }

    /// Bytes are shifted as the upper halves of words.
    fn bytes_shifted_signed(&mut self, amount: u8, a: Value, v: Value) -> Done {
        let a = self.vec(a)?;
        let dst = self.define_vec(v)?;
        self.asm.movaps(X15, a);
        self.vec_op(0x68, X15, X15);
        self.asm.movaps(dst, a);
        self.vec_op(0x60, dst, dst);
        for reg in [dst, X15] {
            self.asm.op_imm8(sse(0x66, 0x71), false, 4, Rm::Reg(reg), 8 + amount);
        }
        self.vec_op(0x63, dst, X15);
        Ok(())
    }

    /// Logically, and the sign put in above.
    fn longs_shifted_signed(&mut self, amount: u8, a: Value, v: Value) -> Done {
        let a = self.vec(a)?;
        let dst = self.define_vec(v)?;
        self.asm.movaps(X15, a);
        self.asm.op_imm8(sse(0x66, 0x72), false, 4, Rm::Reg(X15), 31);
        self.asm.op_imm8(sse(0x66, 0x70), false, X15, Rm::Reg(X15), 0xf5);
        self.asm.op_imm8(sse(0x66, 0x73), false, 6, Rm::Reg(X15), 64 - amount);
        self.asm.movaps(dst, a);
        self.asm.op_imm8(sse(0x66, 0x73), false, 2, Rm::Reg(dst), amount);
        self.vec_op(0xeb, dst, X15);
        Ok(())
    }

    fn splat(&mut self, lane: Lane, a: Value, v: Value) -> Done {
        let a = self.int(a)?;
        let dst = self.define_vec(v)?;
        self.asm.vec_from(dst, a, lane == Lane::D);
        match lane {
            Lane::D => self.vec_op(0x6c, dst, dst),
            _ => {
                if lane == Lane::B {
                    self.vec_op(0x60, dst, dst);
                }
                if lane <= Lane::H {
                    self.asm.op_imm8(sse(0xf2, 0x70), false, dst, Rm::Reg(dst), 0);
                }
                self.asm.op_imm8(sse(0x66, 0x70), false, dst, Rm::Reg(dst), 0);
            }
        }
        Ok(())
    }

    fn vec_get(&mut self, lane: Lane, index: u8, a: Value, v: Value) -> Done {
        let a = self.vec(a)?;
        let dst = self.define(v)?;
        match (lane, index) {
            (Lane::S | Lane::D, 0) => self.asm.vec_to(dst, a, lane == Lane::D),
            (Lane::B, _) => self.asm.op_imm8(sse3a(0x14), false, a, Rm::Reg(dst), index),
            (Lane::H, _) => self.asm.op_imm8(sse(0x66, 0xc5), false, dst, Rm::Reg(a), index),
            _ => self.asm.op_imm8(sse3a(0x16), lane == Lane::D, a, Rm::Reg(dst), index),
        }
        Ok(())
    }

    fn vec_set(&mut self, lane: Lane, index: u8, a: Value, b: Value, v: Value) -> Done {
        let b = self.int(b)?;
        let dst = self.define_vec_from(v, a)?;
        match lane {
            Lane::B => self.asm.op_imm8(sse3a(0x20), false, dst, Rm::Reg(b), index),
            Lane::H => self.asm.op_imm8(sse(0x66, 0xc4), false, dst, Rm::Reg(b), index),
            _ => self.asm.op_imm8(sse3a(0x22), lane == Lane::D, dst, Rm::Reg(b), index),
        }
        Ok(())
    }

    fn shuffle(&mut self, bytes: [u8; 16], a: Value, b: Value, v: Value) -> Done {
        /// An index for which the instruction gives 0.
        const NOTHING: u8 = 0x80;
        let from_a = bytes.map(|index| if index < 16 { index } else { NOTHING });
        let from_b = bytes.map(|index| if (16..32).contains(&index) { index - 16 } else { NOTHING });
        let (a, b) = (self.vec(a)?, self.vec(b)?);
        let dst = self.define_vec(v)?;
        self.asm.movaps(dst, a);
        self.literal(X15, u128::from_le_bytes(from_a));
        self.asm.op(sse38(0x00), false, dst, Rm::Reg(X15));
        if from_b != [NOTHING; 16] {
            self.asm.movaps(X14, b);
            self.literal(X13, u128::from_le_bytes(from_b));
            self.asm.op(sse38(0x00), false, X14, Rm::Reg(X13));
            self.vec_op(0xeb, dst, X14);
        }
        Ok(())
    }

    /// Lanes and shuffles on hosts without SSE4: through memory, a piece at a time.
    fn vector_by_parts(&mut self, op: &Op, first: Value) -> Done {
        use super::argument;
        let low = argument(0, 0);
        let byte_at = |offset: u32| match low {
            Rm::Mem(base, disp) => Rm::Mem(base, disp + offset as i32),
            other => other,
        };
        match *op {
            Op::VecGet { lane, index, a } => {
                let a = self.vec(a)?;
                let dst = self.define(first)?;
                self.asm.store_vec(a, low, 16);
                let size = lane.bits() / 8;
                self.asm.load(dst, byte_at(u32::from(index) * size), size, false, true);
            }
            Op::VecSet { lane, index, a, b } => {
                let (a, b) = (self.vec(a)?, self.int(b)?);
                let dst = self.define_vec(first)?;
                self.asm.store_vec(a, low, 16);
                let size = lane.bits() / 8;
                self.asm.store(b, byte_at(u32::from(index) * size), size);
                self.asm.load_vec(dst, low, 16);
            }
            Op::VecShuffle { bytes, a, b } => {
                let (a, b) = (self.vec(a)?, self.vec(b)?);
                let dst = self.define_vec(first)?;
                let part = self.int_temp()?;
                self.asm.store_vec(a, low, 16);
                self.asm.store_vec(b, byte_at(16), 16);
                for (i, index) in bytes.into_iter().enumerate() {
                    match index {
                        0..32 => self.asm.load(part, byte_at(index.into()), 1, false, false),
                        _ => self.asm.mov_imm(part, 0),
                    }
                    self.asm.store(part, byte_at(32 + i as u32), 1);
                }
                self.asm.load_vec(dst, byte_at(32), 16);
            }
            _ => {}
        }
        Ok(())
    }
}
