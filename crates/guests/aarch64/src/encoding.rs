//! The instruction tables for tools that write instructions, such as generators of test programs.

use crate::{
    Aarch64,
    decode::{self, Decoder, Row},
};

pub use crate::pattern::Field;

/// One row of the instruction tables.
#[derive(Clone, Copy, Debug)]
pub struct Encoding(&'static Row);

impl Encoding {
    /// Every row.
    pub fn all() -> impl Iterator<Item = Self> {
        Decoder::rows().iter().map(Self)
    }

    /// The row that `guest` decodes `insn` as.
    pub fn of(guest: &Aarch64, insn: u32) -> Option<Self> {
        decode::decode(guest.features, insn).map(Self)
    }

    /// The mnemonic; parts in braces depend on the encoding.
    pub const fn name(self) -> &'static str {
        self.0.insn.name
    }

    /// The operands in assembly; names in braces stand for what depends on the encoding.
    pub const fn operands(self) -> &'static str {
        self.0.insn.assembly
    }

    /// Is it a floating-point or SIMD instruction?
    pub const fn is_fp(self) -> bool {
        self.0.fp
    }

    /// Does `guest` have it?
    pub fn enabled(self, guest: &Aarch64) -> bool {
        guest.has(self.0.insn.features)
    }

    /// Does it have this field?
    pub fn has(self, field: Field) -> bool {
        self.0.pattern.has(field)
    }

    /// An encoding whose fields are filled from `bits`. Some fillings are unallocated or belong to another row: see
    /// [`Self::is`].
    pub const fn fill(self, bits: u32) -> u32 {
        bits & !self.0.pattern.mask | self.0.pattern.bits
    }

    /// Is `insn` an encoding that `guest` decodes as this row?
    pub fn is(self, guest: &Aarch64, insn: u32) -> bool {
        decode::decode(guest.features, insn).is_some_and(|row| std::ptr::eq(row, self.0))
    }
}

/// Does `guest` decode `insn`? It may still be undefined for its operands or at its exception level.
pub fn is_decoded(guest: &Aarch64, insn: u32) -> bool {
    decode::decode(guest.features, insn).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Features;

    #[test]
    fn every_row_can_be_filled() {
        let mut guest = Aarch64::max();
        guest.features = Features::all();
        for row in Encoding::all() {
            let mut fills = (1..20_000u32).map(|n| row.fill(n.wrapping_mul(0x9e37_79b9)));
            assert!(fills.any(|insn| row.is(&guest, insn)), "{} {}", row.name(), row.operands());
        }
    }

    #[test]
    fn half_precision_fixed_point_needs_its_feature() {
        let a72 = Aarch64::by_name("cortex-a72").expect("a model");
        for insn in [0x4f19_fe52, 0x0f11_e74e, 0x7f16_e584] {
            assert!(is_decoded(&Aarch64::max(), insn) && !is_decoded(&a72, insn), "{insn:#x}");
        }
        assert!(is_decoded(&a72, 0x4f39_fe52), "fcvtzs v18.4s, v18.4s, #7");
    }

    #[test]
    fn fields_are_put_where_the_decoder_finds_them() {
        let row = Encoding::all().find(|row| row.name() == "madd").expect("a row");
        let insn = [(Field::Rd, 1), (Field::Rn, 2), (Field::Rm, 3), (Field::Ra, 4)]
            .iter()
            .fold(row.fill(0), |insn, &(field, value)| field.with(insn, value));
        assert_eq!(insn, 0x1b03_1041);
        assert!(row.has(Field::Ra) && !row.has(Field::imm12) && !row.is_fp());
        assert!(row.enabled(&Aarch64::max()) && is_decoded(&Aarch64::max(), insn));
    }
}
