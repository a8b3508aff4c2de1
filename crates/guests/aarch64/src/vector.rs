//! Vector instructions that are executed by helpers: what such a helper sees, and how lanes are gone through (the
//! manual, C1.2 "SIMD and floating-point" and shared pseudocode `Elem[]`).
//!
//! A helper is called with the encoding, reads the registers it names, and writes the destination and FPSR itself.
//! Scalar encodings have bit 28 set and work on one lane; vector encodings have Q in bit 30.

use crate::{Aarch64, Trap};
use isomer_ir::{
    guest::HelperCx,
    softfloat::{Env, Flags, Fmt, NanRule, Round, Tininess},
};

/// FPCR.AHP: alternative half precision.
const AHP: u32 = 1 << 26;
/// FPCR.DN: default NaN.
const DN: u32 = 1 << 25;
/// FPCR.FZ: flush single and double subnormals.
const FZ: u32 = 1 << 24;
/// FPCR.FZ16: flush half subnormals.
const FZ16: u32 = 1 << 19;

/// One instruction's operands and the status it adds to.
pub(crate) struct Vector {
    /// The encoding.
    pub(crate) insn: u32,
    /// Vn.
    pub(crate) n: u128,
    /// Vm, or what [`Vector::by_element`] made of it.
    pub(crate) m: u128,
    /// Vd before the instruction.
    pub(crate) d: u128,
    /// Has something saturated (FPSR.QC)?
    pub(crate) saturated: bool,
    /// FPCR and the accumulated flags.
    pub(crate) fp: FpState,
}

/// The floating-point state that helpers read and add to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FpState {
    fpcr: u32,
    rounding: Round,
    flags: u8,
}

impl FpState {
    /// As the CPU has it now.
    pub(crate) fn of(cpu: &crate::Cpu) -> Self {
        let rounding = Round::ALL[usize::from(cpu.header.rounding) % Round::ALL.len()];
        Self { fpcr: cpu.fpcr, rounding, flags: cpu.header.fp_flags }
    }

    /// Gives the CPU its flags.
    pub(crate) fn leave(self, cpu: &mut crate::Cpu) {
        cpu.header.fp_flags = self.flags;
    }

    /// FPCR.AHP.
    pub(crate) fn alternative_half(&self) -> bool {
        self.fpcr & AHP != 0
    }

    /// Are subnormal numbers of this format flushed?
    pub(crate) fn flushes(&self, fmt: Fmt) -> bool {
        self.fpcr & if fmt == Fmt::F16 { FZ16 } else { FZ } != 0
    }

    /// Computes with the rules that FPCR sets for `fmt`, and keeps the flags. Flushed half-precision inputs raise
    /// nothing (the manual, shared pseudocode `FPUnpackBase`); subnormals that are not flushed never do.
    pub(crate) fn with<T>(&mut self, fmt: Fmt, f: impl FnOnce(&mut Env) -> T) -> T {
        let mut env = self.env(fmt);
        let value = f(&mut env);
        self.raise(env.flags, fmt != Fmt::F16);
        value
    }

    /// The rules for `fmt`, without flags.
    pub(crate) fn env(&self, fmt: Fmt) -> Env {
        Env {
            rounding: self.rounding,
            nan: if self.fpcr & DN != 0 { NanRule::Canonical } else { NanRule::Arm },
            tininess: Tininess::Before,
            flush_inputs: self.flushes(fmt),
            flush_outputs: self.flushes(fmt),
            flags: Flags::NONE,
        }
    }

    /// Adds flags; `denormal` tells whether a flushed input is to be noted.
    pub(crate) fn raise(&mut self, flags: Flags, denormal: bool) {
        let counted = denormal && self.fpcr & FZ != 0;
        self.flags |= if counted { flags.bits() } else { flags.fflags() };
    }
}

/// What computes a vector instruction: gives the new Vd.
pub(crate) type Kernel = fn(&mut Vector) -> u128;

/// Executes the instruction in the first argument.
pub(crate) fn run(cx: &mut HelperCx<'_, Aarch64>, [insn, ..]: [u64; 4], kernel: Kernel) -> Result<u64, Trap> {
    let insn = insn as u32;
    let register = |low: u32| register_of(cx.cpu, insn >> low & 31);
    let mut vector = Vector {
        insn,
        n: register(5),
        m: register(16),
        d: register(0),
        saturated: false,
        fp: FpState::of(cx.cpu),
    };
    if by_element_half(insn) {
        vector.m = register_of(cx.cpu, insn >> 16 & 15);
    }
    let result = kernel(&mut vector);
    cx.cpu.v[(insn & 31) as usize] = [result as u64, (result >> 64) as u64];
    cx.cpu.qc |= u8::from(vector.saturated);
    vector.fp.leave(cx.cpu);
    Ok(0)
}

fn register_of(cpu: &crate::Cpu, number: u32) -> u128 {
    let [low, high] = cpu.v[number as usize];
    u128::from(low) | u128::from(high) << 64
}

/// Is it one of the encodings "vector x indexed element"?
const fn is_by_element(insn: u32) -> bool {
    insn >> 24 & 0xf == 0xf && insn >> 10 & 1 == 0
}

/// Indexed with 16-bit elements, so that Rm has four bits: by size, which floating-point encodings use otherwise.
const fn by_element_half(insn: u32) -> bool {
    let size = insn >> 22 & 3;
    let fmlal = size == 2 && insn >> 12 & 3 == 0 && (insn >> 15 & 1 == insn >> 29 & 1);
    let bfmlal = size == 3 && insn >> 12 & 15 == 15;
    let fmulx = size == 0 && insn >> 12 & 15 == 9;
    is_by_element(insn) && (size == 1 && !is_bfdot(insn) || fmlal || bfmlal || fmulx)
}

/// BFDOT by element, whose size field is 01 although its elements are pairs.
const fn is_bfdot(insn: u32) -> bool {
    insn >> 22 & 3 == 1 && insn >> 12 & 15 == 15 && insn >> 29 & 1 == 0
}

impl Vector {
    /// Bits `low .. low + len` of the encoding.
    pub(crate) const fn field(&self, low: u32, len: u32) -> u32 {
        self.insn >> low & ((1 << len) - 1)
    }

    /// U: the unsigned or otherwise second form.
    pub(crate) const fn u(&self) -> bool {
        self.field(29, 1) != 0
    }

    /// Lane width by the size field, 23:22.
    pub(crate) const fn size_bits(&self) -> u32 {
        8 << self.field(22, 2)
    }

    /// Is there one lane only?
    pub(crate) const fn is_scalar(&self) -> bool {
        self.field(28, 1) != 0
    }

    /// Is Q set: 128-bit vectors, or the second half of a vector?
    pub(crate) const fn q(&self) -> bool {
        !self.is_scalar() && self.field(30, 1) != 0
    }

    /// Bits of the result.
    const fn width(&self, bits: u32) -> u32 {
        if self.is_scalar() {
            bits
        } else if self.q() {
            128
        } else {
            64
        }
    }

    /// Makes Vm the element that an indexed encoding picks, in every lane of `bits` (16 or 32).
    pub(crate) fn by_element(&mut self, bits: u32) {
        if is_by_element(self.insn) {
            let (h, l, m) = (self.field(11, 1), self.field(21, 1), self.field(20, 1));
            let index = if bits == 16 { h << 2 | l << 1 | m } else { h << 1 | l };
            let element = lane(self.m, bits, index);
            self.m = (0..128 / bits).fold(0, |v, i| v | u128::from(element) << (i * bits));
        }
    }

    /// Lane by lane: `f(status, [n, m, d])`.
    pub(crate) fn map(&mut self, bits: u32, mut f: impl FnMut(&mut Self, [u64; 3]) -> u64) -> u128 {
        let (n, m, d) = (self.n, self.m, self.d);
        (0..self.width(bits) / bits).fold(0, |result, i| {
            let value = f(self, [n, m, d].map(|v| lane(v, bits, i)));
            result | u128::from(value & ones(bits)) << (i * bits)
        })
    }

    /// From lanes of Vn and Vm (by Q their lower or upper half) to lanes of twice the width, `bits` being the narrow
    /// one: `f(status, n, m, d)`, where d is wide.
    pub(crate) fn widen(&mut self, bits: u32, mut f: impl FnMut(&mut Self, [u64; 3]) -> u64) -> u128 {
        let shift = if self.q() { 64 } else { 0 };
        let (n, m, d) = (self.n >> shift, self.m >> shift, self.d);
        let lanes = if self.is_scalar() { 1 } else { 64 / bits };
        (0..lanes).fold(0, |result, i| {
            let value = f(self, [lane(n, bits, i), lane(m, bits, i), lane(d, 2 * bits, i)]);
            result | u128::from(value & ones(2 * bits)) << (i * 2 * bits)
        })
    }

    /// From lanes of Vn of twice `bits` to lanes of `bits`, in the lower half of Vd or by Q the upper one.
    pub(crate) fn narrow(&mut self, bits: u32, mut f: impl FnMut(&mut Self, u64) -> u64) -> u128 {
        let n = self.n;
        let lanes = if self.is_scalar() { 1 } else { 64 / bits };
        let half = (0..lanes).fold(0, |result, i| {
            let value = f(self, lane(n, 2 * bits, i));
            result | u128::from(value & ones(bits)) << (i * bits)
        });
        self.in_half(half)
    }

    /// A narrowed result where Q wants it.
    pub(crate) fn in_half(&self, half: u128) -> u128 {
        if self.q() { self.d & u128::from(u64::MAX) | half << 64 } else { half }
    }

    /// The value as a signed lane of `bits`; saturates.
    pub(crate) fn saturate_signed(&mut self, value: i128, bits: u32) -> u64 {
        let (min, max) = (-1i128 << (bits - 1), !(-1i128 << (bits - 1)));
        self.saturate(value, min, max)
    }

    /// The value as an unsigned lane of `bits`; saturates.
    pub(crate) fn saturate_unsigned(&mut self, value: i128, bits: u32) -> u64 {
        self.saturate(value, 0, !(-1i128 << bits))
    }

    fn saturate(&mut self, value: i128, min: i128, max: i128) -> u64 {
        let clamped = value.clamp(min, max);
        self.saturated |= clamped != value;
        clamped as u64
    }
}

/// `bits` ones (1 to 64).
pub(crate) const fn ones(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

/// Lane `index` of `bits`; lanes beyond the vector are 0.
pub(crate) fn lane(v: u128, bits: u32, index: u32) -> u64 {
    v.checked_shr(index * bits).unwrap_or(0) as u64 & ones(bits)
}

/// The low `bits` as a number.
pub(crate) fn number(value: u64, bits: u32, signed: bool) -> i128 {
    let value = value & ones(bits);
    if signed { i128::from((value << (64 - bits)) as i64 >> (64 - bits)) } else { i128::from(value) }
}
