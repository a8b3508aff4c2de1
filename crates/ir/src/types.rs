//! Value types and the small index types of the IR.

use crate::softfloat::{NanRule, Tininess};
use std::fmt;

/// The type of an SSA value. Floating-point values are carried as their bits in the integer type of the
/// same width; the operation says which format it computes in, so no bit casts exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Type {
    /// 8 bits; also the type of truth values, which are 0 or 1.
    I8,
    /// 16 bits; also f16 and bf16.
    I16,
    /// 32 bits; also f32.
    I32,
    /// 64 bits; also f64.
    I64,
    /// 128 bits: a vector of lanes, lane 0 in the least significant bits.
    V128,
}

impl Type {
    /// Width in bits.
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }
    /// Width in bytes.
    pub const fn bytes(self) -> u32 {
        1 << self as u32
    }
    /// All-ones of this width, for integer types of up to 64 bits.
    pub const fn mask(self) -> u64 {
        match self {
            Self::V128 | Self::I64 => u64::MAX,
            _ => (1 << self.bits()) - 1,
        }
    }
    /// One of the integer types.
    pub const fn is_int(self) -> bool {
        !matches!(self, Self::V128)
    }
    /// The text form's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::V128 => "v128",
        }
    }
}

/// An SSA value of one block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// An index into the guest's slot table ([`crate::Guest::SLOTS`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Slot(pub u16);

/// Which of the guest's translation regimes an access uses (riscv64: user, supervisor, machine...).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MmuIndex(pub u8);

/// A helper's index in the guest's table ([`crate::Guest::HELPERS`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HelperId(pub u16);

/// Lane width of a vector operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Lane {
    /// 16 lanes of 8 bits.
    B,
    /// 8 lanes of 16 bits.
    H,
    /// 4 lanes of 32 bits.
    S,
    /// 2 lanes of 64 bits.
    D,
}

impl Lane {
    /// Width of one lane in bits.
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }
    /// Lanes in 128 bits.
    pub const fn count(self) -> u32 {
        16 >> self as u32
    }
    /// The integer type of one lane.
    pub const fn ty(self) -> Type {
        match self {
            Self::B => Type::I8,
            Self::H => Type::I16,
            Self::S => Type::I32,
            Self::D => Type::I64,
        }
    }
}

pub use crate::softfloat::Fmt as FpFormat;

impl FpFormat {
    /// The integer type that carries it.
    pub const fn ty(self) -> Type {
        match self {
            Self::F16 | Self::Bf16 => Type::I16,
            Self::F32 => Type::I32,
            Self::F64 => Type::I64,
        }
    }
}

/// The floating-point rules of one block, fixed when it is lifted: mode bits that change them (A64 FPCR.DN, FZ;
/// x86 MXCSR.DAZ, FTZ) belong to the block's mode word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FpModel {
    /// Which NaN an operation gives.
    pub nan: NanRule,
    /// When a result counts as tiny.
    pub tininess: Tininess,
    /// Subnormal operands are zeros.
    pub flush_inputs: bool,
    /// Subnormal results are zeros.
    pub flush_outputs: bool,
}

/// How a floating-point operation rounds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even.
    NearestEven,
    /// Towards zero.
    TowardZero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// To nearest, ties away from zero.
    NearestAway,
    /// As [`crate::CpuHeader::rounding`] says when the operation runs.
    Dynamic,
}

/// Order of a memory access or fence with respect to the other accesses of this vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Order {
    /// None.
    Relaxed,
    /// Later accesses stay later.
    Acquire,
    /// Earlier accesses stay earlier.
    Release,
    /// Both.
    AcqRel,
    /// Both, and one total order among all such accesses.
    SeqCst,
}

/// Byte order of a memory access, where it differs from little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// What a misaligned access does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Align {
    /// Works (not necessarily as one access).
    Any,
    /// Faults through [`crate::Guest::misaligned`].
    Natural,
}

/// Everything about a memory access but its type and address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MemFlags {
    /// Translation regime.
    pub mmu: MmuIndex,
    /// Ordering.
    pub order: Order,
    /// Byte order.
    pub endian: Endian,
    /// Alignment rule.
    pub align: Align,
}

impl MemFlags {
    /// A plain little-endian access that may be misaligned.
    pub const fn plain(mmu: MmuIndex) -> Self {
        Self { mmu, order: Order::Relaxed, endian: Endian::Little, align: Align::Any }
    }
    /// The same with another order.
    #[must_use]
    pub const fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }
    /// The same with another alignment rule.
    #[must_use]
    pub const fn align(self, align: Align) -> Self {
        Self { align, ..self }
    }
    /// The same with another byte order.
    #[must_use]
    pub const fn endian(self, endian: Endian) -> Self {
        Self { endian, ..self }
    }
}
