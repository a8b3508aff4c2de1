//! Rounding directions, exception flags and the choices IEEE 754-2019 leaves to an architecture (4.3, 6.2, 7).

use std::ops::{BitOr, BitOrAssign};

/// A rounding direction. The first five discriminants are RISC-V's `frm` encoding (unprivileged ISA, F extension).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Round {
    /// To nearest, ties to even (RNE).
    #[default]
    NearestEven = 0,
    /// Toward zero (RTZ).
    TowardZero = 1,
    /// Toward negative infinity (RDN).
    Down = 2,
    /// Toward positive infinity (RUP).
    Up = 3,
    /// To nearest, ties away from zero (RMM).
    NearestAway = 4,
    /// Truncate, then set the last bit if anything was lost (Arm FCVTXN, Power `xs*qpo`); no `frm` value.
    ToOdd = 5,
}

impl Round {
    /// Every direction, in discriminant order.
    pub const ALL: [Round; 6] =
        [Round::NearestEven, Round::TowardZero, Round::Down, Round::Up, Round::NearestAway, Round::ToOdd];

    /// The direction a RISC-V `frm` value names; `None` for the reserved values and for 7 (dynamic).
    #[inline]
    pub const fn from_frm(frm: u8) -> Option<Round> {
        match frm {
            0 => Some(Round::NearestEven),
            1 => Some(Round::TowardZero),
            2 => Some(Round::Down),
            3 => Some(Round::Up),
            4 => Some(Round::NearestAway),
            _ => None,
        }
    }
}

/// Sticky exception flags. The low five bits are RISC-V's `fflags` in its own order.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// Nothing raised.
    pub const NONE: Flags = Flags(0);
    /// Inexact.
    pub const NX: Flags = Flags(1);
    /// Underflow: tiny and inexact.
    pub const UF: Flags = Flags(2);
    /// Overflow.
    pub const OF: Flags = Flags(4);
    /// Division of a finite non-zero number by zero.
    pub const DZ: Flags = Flags(8);
    /// Invalid operation.
    pub const NV: Flags = Flags(16);
    /// A subnormal operand was used (x86 MXCSR.DE) or, with [`Env::flush_inputs`], replaced by zero (Arm
    /// FPSR.IDC). The two meet in one bit because a guest knows which mode it is in; RISC-V has neither and
    /// masks it off with [`Flags::fflags`].
    pub const DENORMAL_INPUT: Flags = Flags(32);

    /// The flags in `bits`; bits 6 and 7 are dropped.
    #[inline]
    pub const fn from_bits(bits: u8) -> Flags {
        Flags(bits & 0x3f)
    }

    /// All six flags as bits.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The five IEEE flags as RISC-V's `fflags`.
    #[inline]
    pub const fn fflags(self) -> u8 {
        self.0 & 0x1f
    }

    /// Whether every flag of `other` is set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

/// How a NaN result is chosen. Every rule but `Canonical` sets the quiet bit of the operand it returns.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NanRule {
    /// Always the positive default NaN: RISC-V, and Arm with FPCR.DN set.
    #[default]
    Canonical,
    /// The first signalling operand, else the first quiet one; a fused operation looks at the addend first
    /// (Arm ARM, FPProcessNaNs3). `inf * 0 + qNaN` is the default NaN.
    Arm,
    /// The first NaN operand; the default NaN is negative (Intel SDM volume 1, 4.8.3.5 and table 4-7, for SSE).
    /// `inf * 0 + qNaN` is that NaN and raises nothing.
    X86,
    /// The first NaN of frA, frB, frC, where a fused operation is frA * frC + frB (Power ISA, Floating-Point Facility).
    Power,
}

/// When a result counts as tiny for underflow (IEEE 754-2019, 7.5).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Tininess {
    /// Before rounding: Arm, Power.
    Before,
    /// After rounding with unbounded exponent: RISC-V, x86.
    #[default]
    After,
}

/// Everything an operation reads besides its operands, and the flags it accumulates.
///
/// The default is RISC-V's: nearest even, canonical NaNs, tininess after rounding, no flushing, no flags.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Env {
    /// Direction for every operation that does not take one itself.
    pub rounding: Round,
    /// Choice of NaN results.
    pub nan: NanRule,
    /// Detection of underflow.
    pub tininess: Tininess,
    /// Subnormal operands are zeros of their sign (Arm FPCR.FZ, x86 MXCSR.DAZ).
    pub flush_inputs: bool,
    /// Tiny results are zeros of their sign (Arm FPCR.FZ, x86 MXCSR.FTZ). With [`Tininess::Before`] that
    /// raises UF alone as Arm does, with [`Tininess::After`] UF and NX as x86 does.
    pub flush_outputs: bool,
    /// Sticky flags: operations only add to them.
    pub flags: Flags,
}

impl Env {
    /// RISC-V's rules with direction `rounding` and no flags.
    #[inline]
    pub const fn riscv(rounding: Round) -> Env {
        Env {
            rounding,
            nan: NanRule::Canonical,
            tininess: Tininess::After,
            flush_inputs: false,
            flush_outputs: false,
            flags: Flags::NONE,
        }
    }

    /// Adds `flags` to the accumulated ones.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags |= flags;
    }
}
