//! Operands as the functions that lift take them, and the macros that tables are written with.

use crate::pattern::Field;
use isomer_ir::Type;

/// Operands that can be taken out of an encoding.
pub(crate) trait FromInsn {
    /// Takes them out.
    fn from_insn(insn: u32) -> Self;
}

/// No operands, or none that matter.
impl FromInsn for () {
    fn from_insn(_: u32) -> Self {}
}

/// Declares operand structs filled from the fields of the encoding: `Name { member: type = Field, ... }`. Unsigned
/// types and `bool` take the field as it is, `i64` takes it signed.
macro_rules! operands {
    ($($(#[$doc:meta])* $name:ident { $($member:ident: $ty:ty = $field:ident),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) struct $name { $(pub(crate) $member: $ty),* }
        impl $crate::operands::FromInsn for $name {
            #[inline(always)]
            fn from_insn(insn: u32) -> Self {
                Self { $($member: $crate::pattern::FromField::from_field($crate::pattern::Field::$field, insn)),* }
            }
        }
    )*};
}
#[allow(unused_imports, reason = "for the other tables")]
pub(crate) use operands;

/// A row of a table: mnemonic, encoding, features, assembly operands, lifting function.
///
/// The function is anything that can be called with `&mut Lift<'_>` and one operand struct; further arguments, the
/// same for the whole row, may follow it: `row!("ldr", "...", BASE, "{Xt}, [{Xnsp}]", mem::load, X)`.
macro_rules! row {
    ($name:expr, $pattern:expr, $features:expr, $assembly:expr, $lift:expr $(, $constant:expr)* $(,)?) => {
        $crate::decode::Insn {
            name: $name,
            pattern: $pattern,
            features: $features,
            assembly: $assembly,
            when: None,
            refines: false,
            lift: |l, insn| $lift(l, $crate::operands::FromInsn::from_insn(insn) $(, $constant)*),
        }
    };
}
pub(crate) use row;

operands! {
    /// Two sources, the second shifted.
    Shifted { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, rm: u8 = Rm, shift: u8 = shift, amount: u8 = imm6 }
    /// Two sources, the second extended and shifted left; Rn and maybe Rd are SP where they are 31.
    Extended { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, rm: u8 = Rm, option: u8 = option, amount: u8 = imm3 }
    /// A source and a 12-bit immediate, shifted left by 12 if `sh`.
    AddImm { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, sh: bool = sh, imm: u64 = imm12 }
    /// A source and a bitmask immediate.
    LogicImm { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, n: bool = N, immr: u8 = immr, imms: u8 = imms }
    /// A 16-bit immediate and which sixteen bits it is.
    MoveWide { sf: bool = sf, rd: u8 = Rd, hw: u8 = hw, imm: u64 = imm16 }
    /// A pc-relative address.
    Adr { rd: u8 = Rd, low: u64 = immlo, high: i64 = immhi }
    /// A bit field.
    Bitfield { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, immr: u8 = immr, imms: u8 = imms }
    /// Two sources and a bit position.
    Extract { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, rm: u8 = Rm, lsb: u8 = imms }
    /// Three sources.
    R3 { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, rm: u8 = Rm, ra: u8 = Ra }
    /// Two sources.
    R2 { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, rm: u8 = Rm }
    /// One source.
    R1 { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn }
    /// A source and an 8-bit immediate.
    R1Imm8 { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, unsigned: u64 = imm8c, signed: i64 = imm8c }
    /// Two sources and a condition.
    Select { sf: bool = sf, rd: u8 = Rd, rn: u8 = Rn, rm: u8 = Rm, cond: u8 = cond }
    /// A conditional comparison of registers.
    CondCompare { sf: bool = sf, rn: u8 = Rn, rm: u8 = Rm, cond: u8 = cond, nzcv: u8 = nzcv }
    /// A conditional comparison with an immediate.
    CondCompareImm { sf: bool = sf, rn: u8 = Rn, imm: u64 = imm5, cond: u8 = cond, nzcv: u8 = nzcv }
    /// `rmif`.
    Rotate { rn: u8 = Rn, amount: u8 = rot, mask: u8 = mask }
    /// `b`, `bl`: words from here.
    Jump { words: i64 = imm26 }
    /// `b.cond`.
    CondBranch { words: i64 = imm19, cond: u8 = bcond }
    /// `cbz`, `cbnz`.
    CompareBranch { sf: bool = sf, rt: u8 = Rt, words: i64 = imm19 }
    /// `tbz`, `tbnz`.
    TestBranch { rt: u8 = Rt, high: u8 = b5, low: u8 = b40, words: i64 = imm14 }
    /// A branch to a register; `rm` modifies its authentication.
    Register { rn: u8 = Rn, rm: u8 = Rd }
    /// A load or store with an unsigned offset in units of its size.
    Scaled { rt: u8 = Rt, rn: u8 = Rn, units: u64 = imm12 }
    /// A load or store with a signed offset in bytes.
    Unscaled { rt: u8 = Rt, rn: u8 = Rn, imm: i64 = imm9 }
    /// A load or store with a register offset.
    Indexed { rt: u8 = Rt, rn: u8 = Rn, rm: u8 = Rm, option: u8 = option, scaled: bool = S }
    /// A load or store of two registers; the offset counts units of their size.
    Pair { rt: u8 = Rt, rt2: u8 = Rt2, rn: u8 = Rn, units: i64 = imm7 }
    /// An ordered load or store of two registers (FEAT_LRCPC3).
    OrderedPair { rt: u8 = Rt, rt2: u8 = Rm, rn: u8 = Rn }
    /// A pc-relative load; words from here.
    Literal { rt: u8 = Rt, words: i64 = imm19 }
    /// Exclusive and ordered accesses, compare and swap. `ordered` is o0: acquire for loads, release for stores.
    Exclusive { rt: u8 = Rt, rt2: u8 = Rt2, rn: u8 = Rn, rs: u8 = Rs, ordered: bool = o0, acquire: bool = L }
    /// Atomic read-modify-write.
    Atomic { rt: u8 = Rt, rn: u8 = Rn, rs: u8 = Rs, acquire: bool = A, release: bool = R }
    /// `ldraa`, `ldrab`: the highest bit of the offset, the rest of it, and whether the base is written back.
    LoadAuth { rt: u8 = Rt, rn: u8 = Rn, sign: bool = S10, imm: u64 = imm9, writeback: bool = H }
}

/// What a load or store of general registers moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mem {
    /// In memory.
    pub(crate) ty: Type,
    /// A load sign-extends.
    pub(crate) signed: bool,
    /// To 64 bits rather than 32.
    pub(crate) sf: bool,
}

impl Mem {
    pub(crate) const fn new(ty: Type, signed: bool, sf: bool) -> Self {
        Self { ty, signed, sf }
    }
    /// Bytes in memory.
    pub(crate) const fn bytes(self) -> u32 {
        self.ty.bytes()
    }
}

/// The bitmask immediate of `N:imms:immr` for a register of `width` bits (Arm ARM, J1.3 "DecodeBitMasks"): a run of ones,
/// rotated, repeated in elements of 2 to 64 bits. `None` where it is reserved.
pub(crate) fn bitmask(n: bool, immr: u8, imms: u8, width: u32) -> Option<u64> {
    let length = (u32::from(n) << 6 | u32::from(!imms) & 0x3f).checked_ilog2()?;
    let size = 1u32 << length;
    if length == 0 || size > width {
        return None;
    }
    let levels = size - 1;
    let (ones, rotate) = (u32::from(imms) & levels, u32::from(immr) & levels);
    if ones == levels {
        return None;
    }
    let run = (1u64 << (ones + 1)) - 1;
    let element = match rotate {
        0 => run,
        _ => run >> rotate | run << (size - rotate),
    };
    let element = element & (u64::MAX >> (64 - size));
    // A one at the bottom of each element, times the element.
    Some(element.wrapping_mul(u64::MAX / (u64::MAX >> (64 - size))) & (u64::MAX >> (64 - width)))
}

/// Is the bitmask immediate of a logical instruction allocated?
pub(crate) fn has_bitmask(insn: u32) -> bool {
    let width = if Field::sf.of(insn) != 0 { 64 } else { 32 };
    let (immr, imms) = (Field::immr.of(insn) as u8, Field::imms.of(insn) as u8);
    bitmask(Field::N.of(insn) != 0, immr, imms, width).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmasks_are_rotated_runs() {
        assert_eq!(bitmask(true, 0, 0, 64), Some(1));
        assert_eq!(bitmask(true, 63, 62, 64), Some(0xffff_ffff_ffff_fffe));
        assert_eq!(bitmask(false, 0, 0b111_100, 64), Some(0x5555_5555_5555_5555));
        assert_eq!(bitmask(false, 1, 0b000_111, 32), Some(0x8000_007f));
        assert_eq!(bitmask(false, 4, 0b100_111, 64), Some(0xf00f_f00f_f00f_f00f));
        assert_eq!(bitmask(true, 0, 63, 64), None);
        assert_eq!(bitmask(true, 0, 0, 32), None);
        assert_eq!(bitmask(false, 0, 0b111_111, 64), None);
        assert_eq!(bitmask(false, 0, 0b111_110, 64), None);
    }

    /// The manual's count: 5334 different 64-bit immediates.
    #[test]
    fn there_are_5334_of_them() {
        let mut all: Vec<u64> = (0..1 << 13)
            .filter_map(|n| bitmask(n >> 12 != 0, (n >> 6 & 63) as u8, (n & 63) as u8, 64))
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5334);
    }
}
