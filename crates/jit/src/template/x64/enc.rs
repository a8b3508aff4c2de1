//! An encoder for the x86-64 instructions that the templates use (Intel SDM volume 2, chapter 2). It writes bytes and
//! keeps nothing: a call costs a few nanoseconds, where a general assembler takes ten times as long.

/// General registers by number.
pub(super) mod reg {
    pub(crate) const RAX: u8 = 0;
    pub(crate) const RCX: u8 = 1;
    pub(crate) const RDX: u8 = 2;
    pub(crate) const RBX: u8 = 3;
    pub(crate) const RSP: u8 = 4;
    pub(crate) const RBP: u8 = 5;
    pub(crate) const RSI: u8 = 6;
    pub(crate) const RDI: u8 = 7;
    pub(crate) const R8: u8 = 8;
    pub(crate) const R9: u8 = 9;
    pub(crate) const R10: u8 = 10;
    pub(crate) const R11: u8 = 11;
}
use reg::*;

/// A register or a place in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rm {
    /// General or vector register.
    Reg(u8),
    /// Base plus displacement.
    Mem(u8, i32),
    /// Base plus index.
    Sum(u8, u8),
    /// Relative to the next instruction; the displacement is filled in later.
    Rip,
}

/// The opcode map and the mandatory prefix of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opcode {
    /// 0, 0x66, 0xf2 or 0xf3.
    pub(super) prefix: u8,
    /// 0: one byte; 1: 0f; 2: 0f 38; 3: 0f 3a.
    pub(super) map: u8,
    pub(super) byte: u8,
}

/// A one-byte opcode.
pub(super) const fn one(byte: u8) -> Opcode {
    Opcode { prefix: 0, map: 0, byte }
}
/// 0f byte.
pub(super) const fn two(byte: u8) -> Opcode {
    Opcode { prefix: 0, map: 1, byte }
}
/// prefix 0f byte.
pub(super) const fn sse(prefix: u8, byte: u8) -> Opcode {
    Opcode { prefix, map: 1, byte }
}
/// 66 0f 38 byte.
pub(super) const fn sse38(byte: u8) -> Opcode {
    Opcode { prefix: 0x66, map: 2, byte }
}
/// 66 0f 3a byte.
pub(super) const fn sse3a(byte: u8) -> Opcode {
    Opcode { prefix: 0x66, map: 3, byte }
}

/// Two-operand integer instructions by their number in opcode bits 3 to 5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Alu {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts by their number in ModRM.reg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// Condition codes by number.
pub(super) mod cc {
    pub(crate) const O: u8 = 0;
    pub(crate) const B: u8 = 2;
    pub(crate) const AE: u8 = 3;
    pub(crate) const E: u8 = 4;
    pub(crate) const NE: u8 = 5;
    pub(crate) const BE: u8 = 6;
    pub(crate) const A: u8 = 7;
    pub(crate) const S: u8 = 8;
    pub(crate) const P: u8 = 10;
    pub(crate) const NP: u8 = 11;
    pub(crate) const L: u8 = 12;
    pub(crate) const GE: u8 = 13;
    pub(crate) const LE: u8 = 14;
    pub(crate) const G: u8 = 15;
}

/// An instruction in the making: at most 15 bytes.
struct Bytes {
    bytes: [u8; ROOM],
    len: usize,
}

impl Bytes {
    #[inline(always)]
    fn push(&mut self, byte: u8) {
        self.bytes[self.len & 15] = byte;
        self.len += 1;
    }

    #[inline(always)]
    fn push_i32(&mut self, value: i32) {
        value.to_le_bytes().into_iter().for_each(|byte| self.push(byte));
    }
}

/// Code being written. The buffer is always longer than the code, so that an instruction is one copy of fixed size.
#[derive(Debug)]
pub(super) struct Asm {
    buffer: Vec<u8>,
    len: usize,
}

/// Bytes an instruction's copy takes.
const ROOM: usize = 16;

/// Where a jump's or a literal's 32-bit displacement is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Patch(pub(super) u32);

impl Asm {
    /// Writes into a buffer that may have been used before.
    pub(super) fn reusing(buffer: Vec<u8>) -> Self {
        Self { buffer, len: 0 }
    }

    /// Bytes so far.
    pub(super) fn here(&self) -> u32 {
        self.len as u32
    }

    /// Takes the last bytes away again.
    pub(super) fn shorten(&mut self, bytes: usize) {
        self.len = self.len.saturating_sub(bytes);
    }

    /// The code, and the buffer for the next one.
    pub(super) fn finish(self) -> (Vec<u8>, Vec<u8>) {
        (self.buffer[..self.len].to_vec(), self.buffer)
    }

    #[inline(always)]
    fn put(&mut self, bytes: &Bytes) {
        self.append(&bytes.bytes, bytes.len);
    }

    #[inline(always)]
    fn append(&mut self, bytes: &[u8; ROOM], len: usize) {
        loop {
            if let Some(place) = self.buffer.get_mut(self.len..).and_then(|rest| rest.first_chunk_mut()) {
                *place = *bytes;
                self.len += len;
                return;
            }
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        self.buffer.resize(self.buffer.len() * 2 + 4096, 0);
    }

    /// Bytes as they are: up to 16.
    #[inline(always)]
    pub(super) fn raw<const N: usize>(&mut self, bytes: &[u8; N]) {
        let mut padded = [0; ROOM];
        padded[..N].copy_from_slice(bytes);
        self.append(&padded, N);
    }

    /// REX and VEX bits of the operands: R, X, B.
    #[inline(always)]
    fn extensions(reg: u8, rm: Rm) -> (u8, u8, u8) {
        match rm {
            Rm::Reg(rm) => (reg >> 3, 0, rm >> 3),
            Rm::Mem(base, _) => (reg >> 3, 0, base >> 3),
            Rm::Sum(base, index) => (reg >> 3, index >> 3, base >> 3),
            Rm::Rip => (reg >> 3, 0, 0),
        }
    }

    #[inline(always)]
    fn modrm(out: &mut Bytes, reg: u8, rm: Rm) {
        let reg = (reg & 7) << 3;
        match rm {
            Rm::Reg(rm) => out.push(0xc0 | reg | rm & 7),
            Rm::Rip => {
                out.push(0x05 | reg);
                out.push_i32(0);
            }
            Rm::Sum(base, index) => {
                // No displacement means something else for rbp and r13.
                let short = base & 7 == RBP;
                out.push(if short { 0x44 } else { 0x04 } | reg);
                out.push((index & 7) << 3 | base & 7);
                if short {
                    out.push(0);
                }
            }
            Rm::Mem(base, disp) => {
                let low = base & 7;
                let mode = match disp {
                    0 if low != RBP => 0,
                    -128..=127 => 0x40,
                    _ => 0x80,
                };
                out.push(mode | reg | low);
                if low == RSP {
                    out.push(0x24);
                }
                match mode {
                    0 => {}
                    0x40 => out.push(disp as u8),
                    _ => out.push_i32(disp),
                }
            }
        }
    }

    #[inline(always)]
    fn start(op: Opcode, w: bool, reg: u8, rm: Rm, force_rex: bool) -> Bytes {
        let mut out = Bytes { bytes: [0; ROOM], len: 0 };
        if op.prefix != 0 {
            out.push(op.prefix);
        }
        let (r, x, b) = Self::extensions(reg, rm);
        let rex = 0x40 | u8::from(w) << 3 | r << 2 | x << 1 | b;
        if rex != 0x40 || force_rex {
            out.push(rex);
        }
        match op.map {
            0 => {}
            1 => out.push(0x0f),
            2 => {
                out.push(0x0f);
                out.push(0x38);
            }
            _ => {
                out.push(0x0f);
                out.push(0x3a);
            }
        }
        out.push(op.byte);
        Self::modrm(&mut out, reg, rm);
        out
    }

    /// `op reg, rm`, or `op rm, reg` where the opcode says so; 64 bits wide if `w`.
    #[inline(always)]
    pub(super) fn op(&mut self, op: Opcode, w: bool, reg: u8, rm: Rm) {
        let out = Self::start(op, w, reg, rm, false);
        self.put(&out);
    }

    /// The same with an 8-bit immediate.
    #[inline(always)]
    pub(super) fn op_imm8(&mut self, op: Opcode, w: bool, reg: u8, rm: Rm, imm: u8) {
        let mut out = Self::start(op, w, reg, rm, false);
        out.push(imm);
        self.put(&out);
    }

    /// The same with a 32-bit immediate.
    #[inline(always)]
    pub(super) fn op_imm32(&mut self, op: Opcode, w: bool, reg: u8, rm: Rm, imm: i32) {
        let mut out = Self::start(op, w, reg, rm, false);
        out.push_i32(imm);
        self.put(&out);
    }

    /// The same on byte registers: a REX prefix keeps 4 to 7 from meaning ah to bh.
    #[inline(always)]
    pub(super) fn op_byte(&mut self, op: Opcode, reg: u8, rm: Rm) {
        let out = Self::start(op, false, reg, rm, true);
        self.put(&out);
    }

    /// A VEX instruction of 128 bits (or a general one): `op reg, v, rm`.
    pub(super) fn vex(&mut self, op: Opcode, w: bool, reg: u8, v: u8, rm: Rm) {
        let out = Self::vex_bytes(op, w, reg, v, rm);
        self.put(&out);
    }

    /// The same with an 8-bit immediate.
    pub(super) fn vex_imm8(&mut self, op: Opcode, w: bool, reg: u8, v: u8, rm: Rm, imm: u8) {
        let mut out = Self::vex_bytes(op, w, reg, v, rm);
        out.push(imm);
        self.put(&out);
    }

    fn vex_bytes(op: Opcode, w: bool, reg: u8, v: u8, rm: Rm) -> Bytes {
        let mut out = Bytes { bytes: [0; ROOM], len: 0 };
        let (r, x, b) = Self::extensions(reg, rm);
        let pp = match op.prefix {
            0 => 0,
            0x66 => 1,
            0xf3 => 2,
            _ => 3,
        };
        out.push(0xc4);
        out.push((r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | op.map);
        out.push(u8::from(w) << 7 | (!v & 15) << 3 | pp);
        out.push(op.byte);
        Self::modrm(&mut out, reg, rm);
        out
    }

    // --- moves

    /// `mov dst, src` of 64 bits.
    pub(super) fn mov(&mut self, dst: u8, src: u8) {
        if dst != src {
            self.op(one(0x8b), true, dst, Rm::Reg(src));
        }
    }

    /// `mov dst32, src32`: also clears the upper half.
    pub(super) fn mov32(&mut self, dst: u8, src: u8) {
        self.op(one(0x8b), false, dst, Rm::Reg(src));
    }

    /// A constant; flags stay.
    pub(super) fn mov_imm(&mut self, dst: u8, bits: u64) {
        if let Ok(small) = u32::try_from(bits) {
            let mut out = Bytes { bytes: [0; ROOM], len: 0 };
            if dst > 7 {
                out.push(0x41);
            }
            out.push(0xb8 | dst & 7);
            out.push_i32(small as i32);
            self.put(&out);
        } else if let Ok(small) = i32::try_from(bits as i64) {
            self.op_imm32(one(0xc7), true, 0, Rm::Reg(dst), small);
        } else {
            let mut out = Bytes { bytes: [0; ROOM], len: 0 };
            out.push(0x48 | dst >> 3);
            out.push(0xb8 | dst & 7);
            bits.to_le_bytes().into_iter().for_each(|byte| out.push(byte));
            self.put(&out);
        }
    }

    /// Loads `size` (1, 2, 4, 8) bytes, extended to 64 bits, or to 32 and the upper half cleared if not `wide`.
    pub(super) fn load(&mut self, dst: u8, rm: Rm, size: u32, signed: bool, wide: bool) {
        match (size, signed) {
            (1, false) => self.op_byte(two(0xb6), dst, rm),
            (2, false) => self.op(two(0xb7), false, dst, rm),
            (4, false) => self.op(one(0x8b), false, dst, rm),
            (1, true) if wide => self.op(two(0xbe), true, dst, rm),
            (1, true) => self.op_byte(two(0xbe), dst, rm),
            (2, true) => self.op(two(0xbf), wide, dst, rm),
            (4, true) if wide => self.op(one(0x63), true, dst, rm),
            (4, true) => self.op(one(0x8b), false, dst, rm),
            _ => self.op(one(0x8b), true, dst, rm),
        }
    }

    /// Stores the low `size` (1, 2, 4, 8) bytes.
    pub(super) fn store(&mut self, src: u8, rm: Rm, size: u32) {
        match size {
            1 => self.op_byte(one(0x88), src, rm),
            2 => self.op(Opcode { prefix: 0x66, map: 0, byte: 0x89 }, false, src, rm),
            4 => self.op(one(0x89), false, src, rm),
            _ => self.op(one(0x89), true, src, rm),
        }
    }

    /// Stores a constant, sign-extended to `size` bytes.
    pub(super) fn store_imm(&mut self, imm: i32, rm: Rm, size: u32) {
        match size {
            1 => self.op_imm8(one(0xc6), false, 0, rm, imm as u8),
            2 => {
                let mut out = Self::start(Opcode { prefix: 0x66, map: 0, byte: 0xc7 }, false, 0, rm, false);
                out.push(imm as u8);
                out.push((imm >> 8) as u8);
                self.put(&out);
            }
            4 => self.op_imm32(one(0xc7), false, 0, rm, imm),
            _ => self.op_imm32(one(0xc7), true, 0, rm, imm),
        }
    }

    /// `lea dst, [base + disp]`.
    pub(super) fn lea(&mut self, dst: u8, base: u8, disp: i32) {
        if disp == 0 {
            self.mov(dst, base);
        } else {
            self.op(one(0x8d), true, dst, Rm::Mem(base, disp));
        }
    }

    // --- arithmetic

    /// `op dst, src` on `w` ? 64 : 32 bits.
    pub(super) fn alu(&mut self, op: Alu, w: bool, dst: u8, src: Rm) {
        self.op(one((op as u8) << 3 | 3), w, dst, src);
    }

    /// `op rm, imm` on `w` ? 64 : 32 bits.
    pub(super) fn alu_imm(&mut self, op: Alu, w: bool, rm: Rm, imm: i32) {
        match i8::try_from(imm) {
            Ok(small) => self.op_imm8(one(0x83), w, op as u8, rm, small as u8),
            Err(_) => self.op_imm32(one(0x81), w, op as u8, rm, imm),
        }
    }

    /// Compares `size` bytes.
    pub(super) fn cmp(&mut self, size: u32, a: u8, b: Rm) {
        match size {
            1 => self.op_byte(one(0x3a), a, b),
            2 => self.op(Opcode { prefix: 0x66, map: 0, byte: 0x3b }, false, a, b),
            4 => self.op(one(0x3b), false, a, b),
            _ => self.op(one(0x3b), true, a, b),
        }
    }

    /// Compares `size` bytes with a constant.
    pub(super) fn cmp_imm(&mut self, size: u32, a: Rm, imm: i32) {
        match size {
            1 => {
                let mut out = Self::start(one(0x80), false, 7, a, true);
                out.push(imm as u8);
                self.put(&out);
            }
            2 => {
                let mut out = Self::start(Opcode { prefix: 0x66, map: 0, byte: 0x81 }, false, 7, a, false);
                out.push(imm as u8);
                out.push((imm >> 8) as u8);
                self.put(&out);
            }
            4 => self.alu_imm(Alu::Cmp, false, a, imm),
            _ => self.alu_imm(Alu::Cmp, true, a, imm),
        }
    }

    pub(super) fn test(&mut self, w: bool, a: u8, b: u8) {
        self.op(one(0x85), w, a, Rm::Reg(b));
    }

    /// Shifts `size` bytes by a constant.
    pub(super) fn shift_imm(&mut self, op: Shift, size: u32, dst: u8, amount: u8) {
        match size {
            1 => {
                let mut out = Self::start(one(0xc0), false, op as u8, Rm::Reg(dst), true);
                out.push(amount);
                self.put(&out);
            }
            2 => self.op_imm8(
                Opcode { prefix: 0x66, map: 0, byte: 0xc1 },
                false,
                op as u8,
                Rm::Reg(dst),
                amount,
            ),
            _ => self.op_imm8(one(0xc1), size == 8, op as u8, Rm::Reg(dst), amount),
        }
    }

    /// Shifts `size` bytes by cl.
    pub(super) fn shift_cl(&mut self, op: Shift, size: u32, dst: u8) {
        match size {
            1 => self.op_byte(one(0xd2), op as u8, Rm::Reg(dst)),
            2 => self.op(Opcode { prefix: 0x66, map: 0, byte: 0xd3 }, false, op as u8, Rm::Reg(dst)),
            _ => self.op(one(0xd3), size == 8, op as u8, Rm::Reg(dst)),
        }
    }

    /// The group of not (2), neg (3), mul (4), imul (5), div (6), idiv (7).
    pub(super) fn group3(&mut self, number: u8, w: bool, rm: Rm) {
        self.op(one(0xf7), w, number, rm);
    }

    pub(super) fn bswap(&mut self, w: bool, dst: u8) {
        let rex = 0x40 | u8::from(w) << 3 | dst >> 3;
        self.raw(&[rex, 0x0f, 0xc8 | dst & 7]);
    }

    /// The byte register `dst` becomes 0 or 1, then is extended.
    pub(super) fn setcc(&mut self, cc: u8, dst: u8) {
        self.op_byte(two(0x90 | cc), 0, Rm::Reg(dst));
        self.op_byte(two(0xb6), dst, Rm::Reg(dst));
    }

    pub(super) fn cmov(&mut self, cc: u8, w: bool, dst: u8, src: Rm) {
        self.op(two(0x40 | cc), w, dst, src);
    }

    // --- vectors

    /// `movaps dst, src`.
    pub(super) fn movaps(&mut self, dst: u8, src: u8) {
        if dst != src {
            self.op(two(0x28), false, dst, Rm::Reg(src));
        }
    }

    /// Loads 4, 8 or 16 bytes; the rest becomes 0.
    pub(super) fn load_vec(&mut self, dst: u8, rm: Rm, size: u32) {
        match size {
            4 => self.op(sse(0x66, 0x6e), false, dst, rm),
            8 => self.op(sse(0xf3, 0x7e), false, dst, rm),
            _ => self.op(two(0x10), false, dst, rm),
        }
    }

    /// Stores 4, 8 or 16 bytes.
    pub(super) fn store_vec(&mut self, src: u8, rm: Rm, size: u32) {
        match size {
            4 => self.op(sse(0x66, 0x7e), false, src, rm),
            8 => self.op(sse(0x66, 0xd6), false, src, rm),
            _ => self.op(two(0x11), false, src, rm),
        }
    }

    /// `movd`/`movq` from a general register.
    pub(super) fn vec_from(&mut self, dst: u8, src: u8, w: bool) {
        self.op(sse(0x66, 0x6e), w, dst, Rm::Reg(src));
    }

    /// `movd`/`movq` to a general register.
    pub(super) fn vec_to(&mut self, dst: u8, src: u8, w: bool) {
        self.op(sse(0x66, 0x7e), w, src, Rm::Reg(dst));
    }

    // --- control

    pub(super) fn push(&mut self, reg: u8) {
        if reg > 7 {
            self.raw(&[0x41, 0x50 | reg & 7]);
        } else {
            self.raw(&[0x50 | reg]);
        }
    }

    pub(super) fn pop(&mut self, reg: u8) {
        if reg > 7 {
            self.raw(&[0x41, 0x58 | reg & 7]);
        } else {
            self.raw(&[0x58 | reg]);
        }
    }

    /// A conditional jump to a place not known yet.
    pub(super) fn jcc(&mut self, cc: u8) -> Patch {
        self.raw(&[0x0f, 0x80 | cc, 0, 0, 0, 0]);
        Patch(self.here() - 4)
    }

    /// A jump to a place not known yet.
    pub(super) fn jmp(&mut self) -> Patch {
        self.raw(&[0xe9, 0, 0, 0, 0]);
        Patch(self.here() - 4)
    }

    /// A jump to a place already written.
    pub(super) fn jmp_to(&mut self, place: u32) {
        let near = i64::from(place) - i64::from(self.here()) - 2;
        match i8::try_from(near) {
            Ok(near) => self.raw(&[0xeb, near as u8]),
            Err(_) => {
                let patch = self.jmp();
                self.patch(patch, place);
            }
        }
    }

    /// A conditional jump to a place already written.
    pub(super) fn jcc_to(&mut self, cc: u8, place: u32) {
        let near = i64::from(place) - i64::from(self.here()) - 2;
        match i8::try_from(near) {
            Ok(near) => self.raw(&[0x70 | cc, near as u8]),
            Err(_) => {
                let patch = self.jcc(cc);
                self.patch(patch, place);
            }
        }
    }

    /// A short conditional jump over the next few instructions: ends at [`Self::short_here`].
    pub(super) fn jcc_short(&mut self, cc: u8) -> u32 {
        self.raw(&[0x70 | cc, 0]);
        self.here()
    }

    /// A short jump over the next few instructions.
    pub(super) fn jmp_short(&mut self) -> u32 {
        self.raw(&[0xeb, 0]);
        self.here()
    }

    /// Where a short jump leads; `after` is what it gave. Less than 128 bytes on.
    pub(super) fn short_here(&mut self, after: u32) {
        let distance = self.here() - after;
        debug_assert!(distance < 128);
        self.buffer[after as usize - 1] = distance as u8;
    }

    /// Fills in a displacement: `patch` leads to `place`.
    pub(super) fn patch(&mut self, patch: Patch, place: u32) {
        let at = patch.0 as usize;
        let distance = place.wrapping_sub(patch.0 + 4);
        self.buffer[at..at + 4].copy_from_slice(&distance.to_le_bytes());
    }

    /// `patch` leads here.
    pub(super) fn patch_here(&mut self, patch: Patch) {
        self.patch(patch, self.here());
    }
}
