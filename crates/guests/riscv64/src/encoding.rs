//! The instruction table for tools that write instructions, such as generators of test programs (volume I, 1.5).

use crate::{
    Extensions,
    decode::{self, Decoder, Row},
};

pub use crate::pattern::Field;

/// One row of the instruction table.
#[derive(Clone, Copy, Debug)]
pub struct Encoding(&'static Row);

impl Encoding {
    /// Every row.
    pub fn all() -> impl Iterator<Item = Self> {
        Decoder::rows().iter().map(Self)
    }

    /// The manual's mnemonic; a number in it (`mop.r.#`) is the field [`Field::Imm`].
    pub const fn name(self) -> &'static str {
        self.0.insn.name
    }

    /// The operands in assembly, comma-separated. Lower-case names are fields; registers with an `f` in front are
    /// floating-point ones. Those the encoding does not have are named all the same: see [`Self::has`].
    pub const fn operands(self) -> &'static str {
        self.0.insn.form.assembly()
    }

    /// Bytes: 2 or 4.
    pub const fn bytes(self) -> usize {
        self.0.pattern.width as usize / 8
    }

    /// Is it an instruction of a hart with `ext`?
    pub fn enabled(self, ext: Extensions) -> bool {
        self.0.insn.enabled(ext)
    }

    /// Does it have this field, in its bits or implied?
    pub const fn has(self, field: Field) -> bool {
        self.0.pattern.has(field)
    }

    /// An encoding whose fields are filled from `bits`. Some fillings belong to no instruction or to another row:
    /// see [`Self::is`].
    pub const fn fill(self, bits: u32) -> u32 {
        let pattern = &self.0.pattern;
        (bits & !pattern.mask | pattern.bits) & (u32::MAX >> (32 - pattern.width))
    }

    /// A field of an encoding of this row: register numbers, immediates extended and scaled; 0 if there is none.
    pub fn get(self, insn: u32, field: Field) -> i64 {
        self.0.pattern.fields(insn).get(field)
    }

    /// `insn` with another value in a field; `None` if the field is missing or cannot hold it.
    pub fn set(self, insn: u32, field: Field, value: i64) -> Option<u32> {
        let changed = self.0.pattern.with(insn, field, value);
        (self.has(field) && self.get(changed, field) == value).then_some(changed)
    }

    /// Is `insn` an encoding that a hart with `ext` decodes as this row?
    pub fn is(self, ext: Extensions, insn: u32) -> bool {
        decode::decode(ext, insn).is_some_and(|decoded| std::ptr::eq(decoded.row, self.0))
    }
}

/// Does a hart with `ext` decode `insn`? It may still be illegal for its rounding mode, its CSR or the hart's state.
pub fn is_decoded(ext: Extensions, insn: u32) -> bool {
    decode::decode(ext, insn).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Encoding {
        Encoding::all().find(|row| row.name() == name).expect("a row")
    }

    #[test]
    fn fields_are_put_where_the_decoder_finds_them() {
        // beq x10, x11, -8
        let beq = row("beq");
        let fields = [(Field::Rs1, 10), (Field::Rs2, 11), (Field::Imm, -8)];
        let insn = fields.iter().try_fold(beq.fill(!0), |insn, &(field, value)| beq.set(insn, field, value));
        assert_eq!(insn, Some(0xfeb5_0ce3));
        assert_eq!(beq.set(0xfeb5_0ce3, Field::Imm, 3), None, "odd");
        assert_eq!(beq.set(0xfeb5_0ce3, Field::Imm, 4096), None, "too far");
        assert_eq!(beq.set(0xfeb5_0ce3, Field::Rd, 1), None, "no such field");
    }

    #[test]
    fn short_registers_are_limited_and_implied_ones_fixed() {
        let (lw, jalr) = (row("c.lw"), row("c.jalr"));
        assert_eq!(lw.set(lw.fill(0), Field::Rd, 9), Some(0x4004));
        assert_eq!(lw.set(lw.fill(0), Field::Rd, 7), None);
        assert_eq!(jalr.get(jalr.fill(0), Field::Rd), 1);
        assert_eq!(jalr.set(0x9282, Field::Rd, 1), Some(0x9282));
        assert_eq!(jalr.set(0x9282, Field::Rd, 2), None);
    }

    #[test]
    fn fused_fields_change_together() {
        let add = row("c.add");
        let insn = add.set(add.fill(0), Field::Rs2, 3).and_then(|insn| add.set(insn, Field::Rd, 17));
        assert_eq!(insn.map(|insn| add.get(insn, Field::Rs1)), Some(17));
    }

    #[test]
    fn every_row_can_be_filled() {
        let all = Extensions::all();
        for row in Encoding::all() {
            let mut fills = (1..200u32).map(|n| row.fill(n.wrapping_mul(0x9e37_79b9)));
            assert!(fills.any(|insn| row.is(all, insn)), "{}", row.name());
        }
    }
}
