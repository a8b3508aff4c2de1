//! Guest CPU state as the engines see it: a common header, then whatever the guest's registers are.

use crate::types::Type;

/// 8-byte units at the start of a guest CPU that the interpreter's compact form can name directly.
pub const DIRECT_UNITS: usize = 256;
/// Temporaries in the header: where the interpreter keeps SSA values.
pub const TEMP_UNITS: usize = 56;

/// The first field of every guest's CPU. Layout is part of the contract with compiled code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct CpuHeader {
    /// Guest virtual pc: of the running block's entry inside a block, of the next instruction outside.
    pub pc: u64,
    /// Every mode bit that changes lifting, kept up to date by the guest's helpers and traps.
    pub mode: u32,
    /// Rounding of [`crate::types::Rounding::Dynamic`] operations: a [`crate::softfloat::Round`] discriminant.
    pub rounding: u8,
    /// Sticky floating-point exceptions, [`crate::softfloat::Flags`] bits; the guest's status register is made from it.
    pub fp_flags: u8,
    /// Padding.
    pub reserved: u16,
    /// Instructions retired, brought up to date when a block is left.
    pub insns: u64,
    /// Host address of the reserved location (RAM has one mapping that engines use, so it names the place in every address
    /// space, and compiled code has it at hand); [`NO_RESERVATION`] when there is none.
    pub reserve_host: u64,
    /// The value the reserved location had.
    pub reserve_value: u64,
    /// Room for engines.
    pub engine: [u64; 3],
    /// The interpreter's temporaries.
    pub temps: [u64; TEMP_UNITS],
}

/// [`CpuHeader::reserve_host`] when no reservation is held.
pub const NO_RESERVATION: u64 = u64::MAX;

impl Default for CpuHeader {
    fn default() -> Self {
        Self {
            pc: 0,
            mode: 0,
            rounding: 0,
            fp_flags: 0,
            reserved: 0,
            insns: 0,
            reserve_host: NO_RESERVATION,
            reserve_value: 0,
            engine: [0; 3],
            temps: [0; TEMP_UNITS],
        }
    }
}

/// A guest CPU: plain data that starts with a [`CpuHeader`].
///
/// # Safety
/// The type must be `repr(C)` with a [`CpuHeader`] as its first field, hold no padding-sensitive, borrowed or
/// owning data in the ranges that its guest's slots name (any bit pattern must be valid there), and be at least
/// as large as the end of its last slot.
#[allow(unsafe_code)]
pub unsafe trait CpuState: Send + Clone + 'static {
    /// The header.
    fn header(&self) -> &CpuHeader;
    /// The header.
    fn header_mut(&mut self) -> &mut CpuHeader;
}

/// One named piece of guest state. Slots may overlap (a vector register and its low half); a write to one is
/// then a write to the bytes of the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotDesc {
    /// The manual's name of the register ("x10", "nzcv.c").
    pub name: &'static str,
    /// Byte offset in the guest's CPU; a multiple of the type's size (V128: of 8).
    pub offset: u32,
    /// Its type.
    pub ty: Type,
}

impl SlotDesc {
    /// Do two slots share bytes?
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.offset < other.offset + other.ty.bytes() && other.offset < self.offset + self.ty.bytes()
    }
    /// Are all bytes of `other` in this slot?
    pub const fn covers(&self, other: &Self) -> bool {
        self.offset <= other.offset && other.offset + other.ty.bytes() <= self.offset + self.ty.bytes()
    }
}

const _: () = {
    assert!(std::mem::offset_of!(CpuHeader, temps) == 64);
    assert!(std::mem::size_of::<CpuHeader>() == 512);
};
